"""The table of what servers can do."""

from __future__ import annotations

import pytest

from graceful.core.traits import TRAITS, UNKNOWN, ServerTraits, traits_named, traits_of_wsgi


def test_each_server_has_one_row() -> None:
    names = [row.name for row in TRAITS]
    assert len(set(names)) == len(names)
    assert all(names)


def test_an_integration_is_found_by_a_module() -> None:
    assert all(row.module for row in TRAITS if row.integration)


@pytest.mark.parametrize(
    ("software", "name"),
    [
        ("gunicorn/27.0.1", "gunicorn"),
        ("waitress", "waitress"),
        ("WSGIServer/0.2 CPython/3.11", "wsgiref"),
        ("Apache", ""),
        ("", ""),
    ],
)
def test_a_wsgi_server_is_known_by_its_software(software: str, name: str) -> None:
    assert traits_of_wsgi(software).name == name


def test_who_is_not_in_the_table_follows_the_specifications() -> None:
    assert traits_named("no such server") is UNKNOWN
    assert UNKNOWN.close_code(1012) == 1012
    assert UNKNOWN.knows("0.0.1")


@pytest.mark.parametrize(
    ("code", "said"), [(1000, 1000), (1012, 4012), (1013, 4013), (3000, 3000), (4999, 4999)]
)
def test_close_codes_where_only_the_apps_own_are_allowed(code: int, said: int) -> None:
    assert ServerTraits(close_codes="own").close_code(code) == said


@pytest.mark.parametrize(
    ("version", "known"),
    [
        ("0.29.9", False),
        ("0.30", True),
        ("0.30.1", True),
        ("0.54", True),
        ("0.54.7", True),
        ("0.55", False),
        ("1.0.dev1", False),
        ("0.54rc1", True),
        ("", False),
    ],
)
def test_versions_between_the_oldest_and_the_newest_are_tested(version: str, known: bool) -> None:
    assert ServerTraits(tested=("0.30", "0.54")).knows(version) is known
