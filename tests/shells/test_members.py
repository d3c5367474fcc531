"""Who takes part in a life: who may join, who is alive, with whom it ends."""

from __future__ import annotations

from typing import Any

import pytest

from graceful.core.budget import Settings, SettingsError
from graceful.driver import Hook
from graceful.members import Member, Members
from graceful.servers import PlainServer


class Running:
    """A loop of which only matters whether it runs."""

    def __init__(self, alive: bool = True) -> None:
        self.alive = alive

    def is_alive(self) -> bool:
        return self.alive


def member(
    name: str = "app",
    *,
    guest: bool = False,
    loop: Any = None,
    settings: Settings | None = None,
) -> Member:
    """Return a member without lifespan, which is over when its loop is."""
    running: Any = loop or Running()
    return Member(name, settings or Settings(), running, False, guest=guest)


def test_a_life_ends_with_its_last_host() -> None:
    """Guests go with it; one that leaves ends nothing as long as somebody is there."""
    members = Members()
    first, second, guest = member(), member(), member(guest=True)
    for each in (first, second, guest):
        members.add(each)
    assert not members.is_last(first)
    assert not members.remove(first)
    assert members.is_last(second)
    assert members.remove(second)
    assert not members.remove(second), "it has left already"
    assert members.remove(guest), "alone among themselves guests are a life of their own"


def test_a_guest_that_leaves_first_ends_nothing() -> None:
    """Its host goes on."""
    members = Members()
    host, guest = member(), member(guest=True)
    members.add(host)
    members.add(guest)
    assert not members.remove(guest)
    assert members.is_last(host)


def test_who_has_no_loop_any_more_is_forgotten() -> None:
    """Without a lifespan nobody says when an app is over."""
    members = Members()
    ended = Running()
    gone, stays = member(loop=ended), member()
    members.add(gone)
    members.add(stays)
    ended.alive = False
    assert members.loop is stays.loop
    assert [server for server, _ in members.servers] == [stays.server]
    members.forget_ended()
    assert list(members) == [stays]


def test_the_servers_are_those_of_the_hosts() -> None:
    """A guest knows of none, unless there are only guests."""
    members = Members()
    guest, host = member(guest=True), member()
    host.server = PlainServer()
    members.add(guest)
    assert members.servers == [(guest.server, guest.loop)]
    members.add(host)
    assert members.servers == [(host.server, host.loop)]


def test_hooks_are_in_the_order_of_joining() -> None:
    """Also those of guests."""
    members = Members()
    hooks = [Hook("drain", lambda: None, None) for _ in range(3)]
    for hook, guest in zip(hooks, (False, True, False), strict=True):
        each = member(guest=guest)
        each.hooks = (hook,)
        members.add(each)
    assert members.hooks == hooks


def test_settings_that_contradict_are_named_with_both_apps() -> None:
    """A guest's own paths are its own business; seconds are shared by all."""
    members = Members()
    members.add(member("shop"))
    with pytest.raises(SettingsError, match=r"linger is 1\.0 in shop and 2\.0 in admin"):
        members.check(member("admin", settings=Settings(linger=2.0)))
    paths = Settings(readiness_path="/ready")
    members.check(member("admin", settings=paths, guest=True))
    with pytest.raises(SettingsError, match="readiness_path"):
        members.check(member("admin", settings=paths))
