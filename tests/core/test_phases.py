"""The phase table, read as data: it is total where a signal may come, and it goes one way."""

from __future__ import annotations

import pytest

from graceful.core.phases import TRAITS, TRANSITIONS, Event, IllegalTransition, Phase, next_phase

ORDER = list(Phase)
LADDER = (Event.TERMINATE, Event.HURRY, Event.CUT)


def place(phase: Phase) -> int:
    return ORDER.index(phase)


def test_phases_are_written_in_the_order_of_a_life() -> None:
    """The enum itself is the order that 'never backwards' is measured by."""
    assert [phase.value for phase in Phase] == [
        "starting",
        "serving",
        "lame_duck",
        "draining",
        "closing",
        "stopped",
    ]


def test_each_phase_has_transitions_and_traits() -> None:
    """No phase is without a row in either table."""
    assert set(TRANSITIONS) == set(TRAITS) == set(Phase)


@pytest.mark.parametrize("event", [*LADDER, Event.RETIRE, Event.SHUTDOWN])
@pytest.mark.parametrize("phase", Phase)
def test_whatever_asks_for_the_end_is_defined_in_every_phase(phase: Phase, event: Event) -> None:
    """A signal may come at any time, so a reason to stop has an entry everywhere."""
    assert event in TRANSITIONS[phase]


def test_only_recover_and_a_new_life_lead_back() -> None:
    """Of all entries, LAME_DUCK to SERVING and STOPPED to STARTING alone go backwards."""
    backwards = [
        (old, event, new)
        for old, row in TRANSITIONS.items()
        for event, new in row.items()
        if place(new) < place(old)
    ]
    assert backwards == [
        (Phase.LAME_DUCK, Event.RECOVER, Phase.SERVING),
        (Phase.STOPPED, Event.START, Phase.STARTING),
    ]


def test_a_higher_rung_never_leads_to_an_earlier_phase() -> None:
    """TERMINATE, HURRY and CUT reach the same phase or a later one, in this order."""
    for phase in Phase:
        reached = [place(TRANSITIONS[phase][rung]) for rung in LADDER]
        assert reached == sorted(reached), phase


@pytest.mark.parametrize("event", [Event.DELAY_OVER, Event.DRAINED, Event.CLOSED])
def test_an_overtaken_report_of_the_driver_changes_nothing(event: Event) -> None:
    """Once the phase that a report ends is over, the report leaves the phase as it is."""
    (ended,) = [p for p in Phase if TRANSITIONS[p].get(event, p) is not p and p is not ORDER[0]]
    for later in ORDER[place(ended) + 1 :]:
        assert next_phase(later, event) is later


def test_every_phase_but_the_last_can_be_left_and_reached() -> None:
    """A life that begins in STARTING can visit each phase, and STOPPED is left by START only."""
    reached = {Phase.STARTING}
    for _ in Phase:
        reached |= {new for old in reached for new in TRANSITIONS[old].values()}
    assert reached == set(Phase)
    leaving = [e for e, new in TRANSITIONS[Phase.STOPPED].items() if new is not Phase.STOPPED]
    assert leaving == [Event.START]


@pytest.mark.parametrize(
    ("phase", "event", "then"),
    [
        (Phase.STARTING, Event.STARTED, Phase.SERVING),
        (Phase.STARTING, Event.TERMINATE, Phase.CLOSING),
        (Phase.STARTING, Event.CLOSED, Phase.STOPPED),
        (Phase.SERVING, Event.TERMINATE, Phase.LAME_DUCK),
        (Phase.SERVING, Event.LAME_DUCK, Phase.LAME_DUCK),
        (Phase.SERVING, Event.HURRY, Phase.DRAINING),
        (Phase.SERVING, Event.CUT, Phase.DRAINING),
        (Phase.SERVING, Event.RETIRE, Phase.DRAINING),
        (Phase.SERVING, Event.SHUTDOWN, Phase.DRAINING),
        (Phase.LAME_DUCK, Event.TERMINATE, Phase.LAME_DUCK),
        (Phase.LAME_DUCK, Event.HURRY, Phase.DRAINING),
        (Phase.LAME_DUCK, Event.DELAY_OVER, Phase.DRAINING),
        (Phase.LAME_DUCK, Event.RECOVER, Phase.SERVING),
        (Phase.DRAINING, Event.CUT, Phase.DRAINING),
        (Phase.DRAINING, Event.DRAINED, Phase.CLOSING),
        (Phase.CLOSING, Event.STARTED, Phase.CLOSING),
        (Phase.CLOSING, Event.CLOSED, Phase.STOPPED),
        (Phase.STOPPED, Event.TERMINATE, Phase.STOPPED),
    ],
)
def test_the_entries_that_make_the_choreography(phase: Phase, event: Event, then: Phase) -> None:
    """The steps that the design promises are the ones in the table."""
    assert next_phase(phase, event) is then


@pytest.mark.parametrize(
    ("phase", "event", "text"),
    [
        (Phase.SERVING, Event.RECOVER, "'recover' cannot happen while serving"),
        (Phase.DRAINING, Event.RECOVER, "'recover' cannot happen while draining"),
        (Phase.SERVING, Event.DRAINED, "'drained' cannot happen while serving"),
        (Phase.LAME_DUCK, Event.CLOSED, "'closed' cannot happen while lame_duck"),
        (Phase.STARTING, Event.LAME_DUCK, "'lame_duck' cannot happen while starting"),
    ],
)
def test_an_event_without_an_entry_is_an_error_that_names_both(
    phase: Phase, event: Event, text: str
) -> None:
    """The message has the event and the phase, without a chained KeyError above it."""
    with pytest.raises(IllegalTransition) as caught:
        next_phase(phase, event)
    assert str(caught.value) == text
    assert caught.value.__suppress_context__
    assert caught.value.__cause__ is None


def test_the_tables_cannot_be_changed() -> None:
    """The protocol is the same for everybody in the process."""
    with pytest.raises(TypeError):
        TRANSITIONS[Phase.SERVING] = {}  # type: ignore[index]  # pyright: ignore[reportIndexIssue]
    with pytest.raises(TypeError):
        TRAITS[Phase.SERVING] = TRAITS[Phase.STOPPED]  # type: ignore[index]  # pyright: ignore[reportIndexIssue]


def test_traits_are_the_rows_of_the_design() -> None:
    """Readiness, accepting, `Connection: close`, new streams and stopping, phase by phase."""
    rows = {
        phase.value: (t.ready, t.accepts, t.close, t.new_streams, t.stopping)
        for phase, t in TRAITS.items()
    }
    assert rows == {
        "starting": (False, False, "never", True, False),
        "serving": (True, True, "never", True, False),
        "lame_duck": (False, True, "ramp", True, False),
        "draining": (False, False, "always", False, True),
        "closing": (False, False, "always", False, True),
        "stopped": (False, False, "always", False, True),
    }


def test_only_serving_is_ready() -> None:
    """No balancer should choose a process in any other phase."""
    assert [phase for phase in Phase if TRAITS[phase].ready] == [Phase.SERVING]
