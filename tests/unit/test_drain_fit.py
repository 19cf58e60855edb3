"""A record's frozen waits against the target groups that today's settings declare."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.errors import PreflightError
from infra.release.decide import Abort, Nothing, Rollback, Tag, Wanted, decide
from infra.release.drain_fit import drain_misfits, refuse_drain_misfit
from infra.release.record import DrainNumbers, Record
from infra.release.state import LedgerState
from infra.release.transitions import claimed, gone_live
from infra.timeouts import DrainBudget, DrainInputs, DrainOverrides
from tests.unit.releases import template

TODAY = DrainBudget.derive(overrides=DrainOverrides(deregistration_delay_seconds=75))
SLOWER = DrainBudget.derive(DrainInputs(propagation_seconds=60))


@st.composite
def budgets(draw: st.DrawFn, controller_lag: int | None = None) -> DrainBudget:
    """Everything that settings may hold, with timeouts that are derived or longer than they have to be."""
    longest = draw(st.integers(0, 300))
    inputs = DrainInputs(
        app_drain_seconds=longest + draw(st.integers(1, 100)),
        longest_request_seconds=longest,
        propagation_seconds=draw(st.integers(0, 300)),
        controller_lag_seconds=draw(st.integers(0, 100)) if controller_lag is None else controller_lag,
        app_keep_alive_seconds=longest + draw(st.integers(10, 100)),
        margin_seconds=draw(st.integers(10, 60)),
        startup_seconds=draw(st.integers(0, 300)),
        health_interval_seconds=draw(st.integers(5, 60)),
        health_threshold=draw(st.integers(2, 10)),
        requeue_seconds=draw(st.integers(1, 60)),
    )
    derived = DrainBudget.derive(inputs)
    more = st.none() | st.integers(0, 300)
    delay, progress = draw(more), draw(more)
    chosen = DrainOverrides(
        deregistration_delay_seconds=None if delay is None else derived.deregistration_delay_seconds + delay,
        progress_deadline_seconds=None if progress is None else derived.seconds_to_ready + 1 + progress,
    )
    return DrainBudget.derive(inputs, chosen)


@given(budgets())
def test_a_record_of_the_same_settings_fits(budget: DrainBudget) -> None:
    assert drain_misfits(DrainNumbers.of(budget), budget) == []


@given(budgets(25), budgets(25))
def test_exactly_the_records_that_break_an_inequality_are_named(live: DrainBudget, today: DrainBudget) -> None:
    longest = min(today.longest_request_seconds, live.app_drain_seconds - 1)
    check = today.health_interval_seconds * today.health_threshold + today.requeue_seconds
    broken = [
        name
        for name, is_broken in (
            ("deregistrationDelay", live.propagation_seconds + longest > today.deregistration_delay_seconds),
            ("progressDeadline", live.startup_seconds + check >= live.progress_deadline_seconds),
        )
        if is_broken
    ]
    lines = drain_misfits(DrainNumbers.of(live), today)
    assert len(lines) == len(broken)
    for name, line in zip(broken, lines, strict=True):
        assert f" {name}, but " in line
        assert "set shopcat:drain." in line


@given(budgets(), st.integers(1, 300))
def test_a_record_with_a_larger_propagation_than_the_delay_leaves_room_for_is_refused(
    today: DrainBudget, more: int
) -> None:
    slack = today.deregistration_delay_seconds - today.propagation_seconds - today.longest_request_seconds
    pre_stop = today.pre_stop_seconds + slack + more
    lines = drain_misfits(replace(DrainNumbers.of(today), pre_stop_seconds=pre_stop), today)
    assert len(lines) == 1
    needed = today.deregistration_delay_seconds + more
    assert f"but {needed} s <= {today.deregistration_delay_seconds} s is false" in lines[0]
    mended = replace(today, deregistration_delay_seconds=needed)
    assert lines[0].endswith(f"set shopcat:drain.deregistrationDelay to at least {needed}")
    assert drain_misfits(replace(DrainNumbers.of(today), pre_stop_seconds=pre_stop), mended) == []


def test_a_health_check_that_outlasts_the_record_s_deadline_is_named_with_what_mends_it() -> None:
    slow = DrainBudget.derive(DrainInputs(health_interval_seconds=60))
    (line,) = drain_misfits(DrainNumbers.of(TODAY), slow)
    assert line == (
        "startup + healthInterval * healthThreshold + requeue < progressDeadline, but 185 s < 130 s is false: its startup "
        "is 60 s; set shopcat:drain.healthInterval and healthThreshold so that their product and requeue (5 s) are less "
        "than 70 s together"
    )


def record(number: int, budget: DrainBudget) -> Record:
    return Record(f"v1.{number}.0", 1, template(number, drain=DrainNumbers.of(budget)))


def claim(state: LedgerState, wanted: Wanted) -> LedgerState:
    return claimed(state, decide(wanted, state), "2026-11-24T10:00:00+00:00")


def tag(number: int, budget: DrainBudget) -> Tag:
    return Tag(f"v1.{number}.0", record(number, budget).template)


LIVE = gone_live(claim(LedgerState(version=1), tag(0, SLOWER)))
ROLLED_ON = gone_live(claim(LIVE, tag(1, TODAY)))
"""A release of today's settings is live, one of other settings was before."""
BACK = Rollback("v1.1.0", "v1.0.0")


def check(wanted: Wanted, state: LedgerState, budget: DrainBudget = TODAY) -> list[str]:
    return refuse_drain_misfit(wanted, decide(wanted, state), state, budget)


@pytest.mark.parametrize(
    ("wanted", "state"),
    [
        (Nothing(), LIVE),
        (tag(1, TODAY), LIVE),
        (Nothing(), claim(LIVE, tag(1, TODAY))),
        (Nothing(), claim(ROLLED_ON, tag(2, SLOWER))),
    ],
    ids=["plain update", "release", "going on", "going on with a record that does not fit"],
)
def test_what_does_not_fit_is_refused_by_name(wanted: Wanted, state: LedgerState) -> None:
    with pytest.raises(PreflightError) as caught:
        check(wanted, state)
    assert "nothing was touched" in str(caught.value)
    assert (
        "-r1: propagation + longestRequest <= deregistrationDelay, but 90 s <= 75 s is false: its preStop of 85 s allows "
        "for a propagation of 60 s; set shopcat:drain.deregistrationDelay to at least 90"
    ) in str(caught.value)
    mended = DrainBudget.derive(overrides=DrainOverrides(deregistration_delay_seconds=90))
    assert check(wanted, state, mended) == []


@pytest.mark.parametrize("wanted", [Nothing(), tag(2, TODAY)])
def test_a_former_record_is_not_asked(wanted: Wanted) -> None:
    assert check(wanted, ROLLED_ON) == []


def test_an_abort_is_never_asked() -> None:
    opened = claim(LIVE, tag(1, TODAY))
    assert check(Abort("v1.1.0"), opened) == []


@pytest.mark.parametrize(("wanted", "state"), [(BACK, ROLLED_ON), (Nothing(), claim(ROLLED_ON, BACK))])
def test_a_rollback_goes_on_and_says_what_does_not_fit(wanted: Wanted, state: LedgerState) -> None:
    (note,) = check(wanted, state)
    assert note.startswith("the rollback goes on")
    assert "v1.0.0-r1: propagation + longestRequest <= deregistrationDelay, but 90 s <= 75 s" in note


def test_the_first_release_has_nothing_to_fit() -> None:
    assert check(tag(0, TODAY), LedgerState(version=1)) == []
    assert check(Nothing(), LedgerState(version=1)) == []
