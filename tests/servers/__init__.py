import pytest

pytest.register_assert_rewrite("tests.servers.contract")
