"""For the whole suite. What the apps of the tests import must not be here: it has no pytest."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("tests.servers.contract")
