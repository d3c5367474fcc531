"""Which instances a probing balancer chooses, by exact times."""

from __future__ import annotations

from graceful.rehearsal.rotation import Rotation


def rotation(*, fall: int = 2, rise: int = 1, lag: float = 1.0) -> Rotation:
    """Two instances, both in."""
    return Rotation(["a", "b"], fall=fall, rise=rise, lag=lag)


def test_instances_are_chosen_in_turn() -> None:
    """And everybody is in at first."""
    r = rotation()
    chosen = [r.choose(0) for _ in range(4)]
    assert chosen[:2] == chosen[2:]
    assert set(chosen) == {"a", "b"}


def test_an_instance_leaves_after_its_failed_probes_and_the_lag() -> None:
    """Not before the second failure, not before a second has passed."""
    r = rotation()
    r.observe("a", ok=False, now=10.0)
    assert r.members(99) == ["a", "b"]
    r.observe("a", ok=False, now=10.5)
    assert r.members(11.49) == ["a", "b"]
    assert r.members(11.5) == ["b"]


def test_a_good_probe_between_starts_the_count_again() -> None:
    """`fall` means in a row."""
    r = rotation(lag=0)
    for ok in (False, True, False):
        r.observe("a", ok=ok, now=0)
    assert r.members(0) == ["a", "b"]


def test_an_instance_comes_back_as_it_left() -> None:
    """After `rise` good probes and the lag."""
    r = rotation(rise=2)
    for now in (0.0, 0.5):
        r.observe("a", ok=False, now=now)
    r.observe("a", ok=True, now=2.0)
    r.observe("a", ok=True, now=2.5)
    assert r.members(3.4) == ["b"]
    assert r.members(3.5) == ["a", "b"]


def test_with_nobody_left_nobody_is_chosen() -> None:
    """No panic mode: the loss shows."""
    r = rotation(fall=1, lag=0)
    r.observe("a", ok=False, now=0)
    r.observe("b", ok=False, now=0)
    assert r.choose(0) is None


def test_steady_means_in_and_nothing_on_its_way() -> None:
    """A restart is over only when the balancer will not change its mind."""
    r = rotation()
    assert r.steady("a", 0)
    r.observe("a", ok=False, now=0)
    assert not r.steady("a", 0), "a failure has been seen"
    r.observe("a", ok=False, now=0.5)
    assert not r.steady("a", 1), "it is about to leave"
    assert not r.steady("a", 2), "it has left"
    r.observe("a", ok=True, now=2)
    assert not r.steady("a", 2.5), "it is about to return"
    assert r.steady("a", 3)
    assert r.steady("b", 3)
