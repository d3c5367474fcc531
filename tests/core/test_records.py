"""Records are frozen data; the exit status is the one thing that they work out."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields, is_dataclass
from typing import get_args

import pytest

from graceful.core import records
from graceful.core.budget import Settings
from graceful.core.lifecycle import LifecycleCore


def test_the_exit_status_tells_whether_anything_was_cut() -> None:
    """0 when everything finished, 70 when not: also when only the watchdog could end it."""
    core = LifecycleCore(Settings(), lambda: 0.0)
    assert core.report(1.0).exit_status == 0
    assert core.report(1.0, by_watchdog=True).exit_status == 70
    core.tally.holds.append("export")
    assert core.report(1.0).exit_status == 70


def test_every_record_is_frozen_and_part_of_the_union() -> None:
    """An observer may keep a record: nobody changes it afterwards."""
    union = get_args(records.Record)
    exported = {getattr(records, name) for name in records.__all__} - {records.Record}
    assert exported - set(union) == {records.Straggler}, "a part of records, none itself"
    for kind in exported:
        assert is_dataclass(kind)
        assert fields(kind)
    fault = records.Fault("hook", "ValueError: 1")
    with pytest.raises(FrozenInstanceError):
        fault.what = "other"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
