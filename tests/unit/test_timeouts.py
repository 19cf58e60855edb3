"""The drain budget: defaults, every inequality, rounding, and what scales."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.timeouts import DrainBudget, DrainError, DrainInputs, DrainOverrides

seconds = st.floats(min_value=0, max_value=400, allow_nan=False)
inputs = st.builds(
    DrainInputs,
    app_drain_seconds=seconds,
    longest_request_seconds=seconds,
    propagation_seconds=seconds,
    controller_lag_seconds=seconds,
    app_keep_alive_seconds=st.floats(min_value=0, max_value=5000),
    margin_seconds=st.floats(min_value=0, max_value=60),
    startup_seconds=seconds,
    health_interval_seconds=st.floats(min_value=0, max_value=60),
    health_threshold=st.integers(min_value=2, max_value=10),
    requeue_seconds=st.floats(min_value=0, max_value=60),
)
overrides = st.builds(
    DrainOverrides,
    idle_timeout_seconds=st.none() | st.floats(min_value=0, max_value=5000),
    deregistration_delay_seconds=st.none() | st.floats(min_value=0, max_value=5000),
    settle_seconds=st.none() | seconds,
    progress_deadline_seconds=st.none() | st.floats(min_value=0, max_value=2000),
    pulumi_timeout_seconds=st.none() | st.floats(min_value=0, max_value=2000),
)


def test_the_defaults_are_the_designs() -> None:
    budget = DrainBudget.derive()
    assert budget.pre_stop_seconds == 25 + 45
    assert budget.grace_seconds == 70 + 60 + 10
    assert budget.idle_timeout_seconds == 60
    assert budget.deregistration_delay_seconds == budget.grace_seconds == 140
    assert budget.settle_seconds == 120


@given(inputs, overrides)
def test_a_budget_that_is_made_keeps_every_inequality(given_inputs: DrainInputs, chosen: DrainOverrides) -> None:
    violations: list[str] = []
    try:
        b = DrainBudget.derive(given_inputs, chosen)
    except DrainError as error:
        violations = error.violations
        if not violations:
            raise
    if violations:
        assert all("but" in line and "is false" in line for line in violations)
        return
    i = given_inputs
    assert b.pre_stop_seconds >= i.controller_lag_seconds + i.propagation_seconds
    assert b.grace_seconds >= b.pre_stop_seconds + i.app_drain_seconds + 10
    assert b.app_drain_seconds >= i.longest_request_seconds + 1
    assert i.longest_request_seconds + 5 <= b.idle_timeout_seconds
    assert b.idle_timeout_seconds + 5 <= b.app_keep_alive_seconds
    assert i.propagation_seconds + i.longest_request_seconds <= b.deregistration_delay_seconds <= 3600
    assert b.settle_seconds >= max(i.propagation_seconds + i.longest_request_seconds, 120)
    ready = i.startup_seconds + i.health_interval_seconds * i.health_threshold + i.requeue_seconds
    assert ready < b.progress_deadline_seconds < b.pulumi_timeout_seconds
    assert all(isinstance(value, int) for value in vars(b).values()), "whole seconds"


@given(inputs)
def test_what_is_derived_fails_only_by_what_was_put_in(given_inputs: DrainInputs) -> None:
    possible = (
        given_inputs.longest_request_seconds <= 300
        and given_inputs.app_drain_seconds >= given_inputs.longest_request_seconds + 2
        and given_inputs.app_keep_alive_seconds >= given_inputs.longest_request_seconds + 12
        and given_inputs.margin_seconds >= 10
        and given_inputs.health_interval_seconds >= 5
        and given_inputs.requeue_seconds > 0
    )
    if possible:
        assert DrainBudget.derive(given_inputs).violations() == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"app_drain_seconds": 20}, "longestRequest + 1 <= appDrain, but 31 s <= 20 s"),
        ({"app_keep_alive_seconds": 30}, "idleTimeout + 5 <= appKeepAlive, but 40 s <= 30 s"),
        ({"margin_seconds": 9}, "smallest margin <= margin, but 10 s <= 9 s"),
        ({"health_interval_seconds": 4}, "healthInterval, but 5 s <= 4 s"),
        ({"health_interval_seconds": 301}, "healthInterval <= an ALB's largest, but 301 s <= 300 s"),
        ({"requeue_seconds": 0}, "smallest requeue <= requeue, but 1 s <= 0 s"),
        ({"propagation_seconds": 3600}, "deregistrationDelay <= an ALB's largest, but 3630 s <= 3600 s"),
        ({"propagation_seconds": -1}, "propagation_seconds is -1; expected a number of at least 0"),
        ({"startup_seconds": float("nan")}, "startup_seconds is nan"),
        ({"health_threshold": 1}, "an ALB takes 2 to 10"),
    ],
)
def test_an_input_that_breaks_an_inequality_is_named_with_both_values(change: dict[str, float], words: str) -> None:
    with pytest.raises(DrainError) as caught:
        DrainBudget.derive(replace(DrainInputs(), **change))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"idle_timeout_seconds": 34}, "longestRequest + 5 <= idleTimeout, but 35 s <= 34 s"),
        ({"idle_timeout_seconds": 71}, "idleTimeout + 5 <= appKeepAlive, but 76 s <= 75 s"),
        ({"deregistration_delay_seconds": 74}, "deregistrationDelay, but 75 s <= 74 s"),
        ({"settle_seconds": 119}, "settle, but 120 s <= 119 s"),
        ({"progress_deadline_seconds": 75}, "progressDeadline, but 75 s < 75 s"),
        ({"pulumi_timeout_seconds": 100}, "pulumiTimeout"),
    ],
)
def test_a_timeout_set_by_hand_is_checked_too(change: dict[str, float], words: str) -> None:
    with pytest.raises(DrainError) as caught:
        DrainBudget.derive(overrides=DrainOverrides(**change))
    assert words in str(caught.value)


def test_all_broken_inequalities_are_named_together() -> None:
    with pytest.raises(DrainError) as caught:
        DrainBudget.derive(DrainInputs(app_drain_seconds=5, margin_seconds=1), DrainOverrides(settle_seconds=1))
    assert len(caught.value.violations) == 3
