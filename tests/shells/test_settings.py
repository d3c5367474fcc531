"""What type checkers are told about the settings is what the table of settings says."""

from __future__ import annotations

from typing import get_type_hints

from graceful.core.budget import SETTINGS
from graceful.settings import Keywords


def test_the_keyword_arguments_are_the_rows_of_the_table() -> None:
    """Every setting, in the order of the table, and nothing else."""
    assert list(get_type_hints(Keywords)) == [row.name for row in SETTINGS]


def test_a_keyword_may_be_none_where_the_setting_may() -> None:
    """Off is a value of the settings whose kind says so, and of no other."""
    hints = get_type_hints(Keywords)
    for row in SETTINGS:
        assert (type(None) in getattr(hints[row.name], "__args__", ())) == row.kind.endswith("?")
