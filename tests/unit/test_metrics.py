"""The rule that judges a release by its metrics, beside exact fractions, a simulation and each request by itself."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.release import metrics
from infra.release.metrics import Group, MetricState, Minute, Reading, Sample, Shift

START = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)
CANARY = START + timedelta(seconds=20)
SINCE = START + timedelta(seconds=70)
NOW = START + timedelta(minutes=4)
SHIFT = Shift("green", SINCE, CANARY)
counts = st.integers(0, 400)


def exact(failed: int, requests: int, rate: Fraction) -> float:
    terms = (math.comb(requests, k) * rate**k * (1 - rate) ** (requests - k) for k in range(failed, requests + 1))
    return float(sum(terms, Fraction(0)))


def groups(blue: Group | None = None, green: Group | None = None) -> dict[metrics.Colour, Group]:
    return {"blue": blue or Group(), "green": green or Group()}


def served(requests: int, failed: int = 0) -> Group:
    return Group(requests, requests - failed, failed)


def minutes(*, ours: list[Group], theirs: Group | None = None) -> Reading:
    """One minute of the canary, and then one for each of ours but the first."""
    first = Minute(START, groups(theirs, ours[0]))
    alone = [Minute(START + timedelta(minutes=n), groups(green=each)) for n, each in enumerate(ours[1:], start=2)]
    return Reading((first, *alone))


def judge(reading: Reading, shift: Shift = SHIFT, now: datetime = NOW) -> metrics.Verdict:
    return metrics.judge_metrics(reading, shift, now, 2)


# The statistics ---------------------------------------------------------------------------------------------------


@settings(deadline=None)  # fractions are slow
@given(requests=st.integers(0, 120), failed=st.integers(0, 125), parts=st.integers(0, 200))
def test_the_tail_is_the_binomial_one(requests: int, failed: int, parts: int) -> None:
    rate = Fraction(parts, 200)
    assert metrics.chance(failed, requests, float(rate)) == pytest.approx(exact(failed, requests, rate), abs=1e-10)


@given(requests=st.integers(1, 2_000_000), part=st.floats(0, 1), rate=st.floats(0, 1))
def test_the_tail_is_a_probability_that_falls_at_any_traffic(requests: int, part: float, rate: float) -> None:
    failed = round(requests * part)
    here, next_one = metrics.chance(failed, requests, rate), metrics.chance(failed + 1, requests, rate)
    assert 0 <= next_one <= here + 1e-9 <= 1 + 1e-9


@given(requests=st.integers(1, 300), failed=st.integers(0, 300))
def test_what_failures_show_is_the_largest_rate_that_chance_does_not_explain(requests: int, failed: int) -> None:
    failed = min(failed, requests)
    rate = metrics.shown_rate(failed, requests)
    assert 0 <= rate <= failed / requests
    assert metrics.chance(failed, requests, rate) <= metrics.SIGNIFICANCE or not failed
    assert metrics.chance(failed, requests, rate + 0.001) > metrics.SIGNIFICANCE or not failed


@given(requests=st.integers(1, 10_000), tolerated=st.floats(0, 1))
def test_one_failed_request_is_never_enough(requests: int, tolerated: float) -> None:
    assert not metrics.is_worse(0, requests, tolerated)
    assert not metrics.is_worse(1, requests, tolerated)


@given(requests=st.integers(2, 500), failed=st.integers(0, 500), tolerated=st.floats(0, 0.5))
def test_more_failures_are_worse_and_more_tolerance_is_not(requests: int, failed: int, tolerated: float) -> None:
    failed = min(failed, requests - 1)
    if metrics.is_worse(failed, requests, tolerated):
        assert metrics.is_worse(failed + 1, requests, tolerated)
        assert metrics.is_worse(failed, requests, tolerated / 2)


@pytest.mark.parametrize(
    ("requests", "least", "most"),
    [(50, 0.45, 0.47), (100, 0.74, 0.75), (150, 0.94, 0.95), (200, 0.97, 0.98), (300, 0.997, 0.999), (500, 0.9999, 1)],
)
def test_one_failure_in_twenty_is_caught_as_often_as_is_stated(requests: int, least: float, most: float) -> None:
    assert least <= metrics.power(requests) <= most
    draws = random.Random(requests)  # noqa: S311 - a simulation
    tries = 3000
    caught = sum(
        metrics.is_worse(sum(draws.random() < metrics.CAUGHT_RATE for _ in range(requests)), requests)
        for _ in range(tries)
    )
    # Four standard deviations of a proportion of that many tries.
    assert caught / tries == pytest.approx(metrics.power(requests), abs=4 * math.sqrt(0.25 / tries))


def test_a_healthy_release_risks_what_is_stated_at_any_traffic() -> None:
    traffic = [*range(1, 1000), *range(1000, 20_000, 37), 10**5, 10**6]
    assert max(metrics.power(requests, rate=0.001) for requests in traffic) <= 0.0005
    assert max(metrics.power(requests, rate=metrics.ACCEPTED_RATE) for requests in traffic if requests > 1) <= 0.01


@pytest.mark.parametrize(("rate", "least", "most"), [(0.001, 0, 0.0006), (0.005, 0, 0.03), (0.05, 0.998, 1)])
def test_a_look_after_each_own_request_ends_a_shift_as_often_as_is_stated(
    rate: float, least: float, most: float
) -> None:
    going_on, ended = {0: 1.0}, 0.0
    for sent in range(1, 301):
        after: dict[int, float] = {}
        for failed, probability in going_on.items():
            for more, chance in ((0, 1 - rate), (1, rate)):
                after[failed + more] = after.get(failed + more, 0.0) + probability * chance
        ended += sum(after.pop(failed) for failed in list(after) if metrics.is_worse(failed, sent))
        going_on = after
    assert least <= ended <= most


@settings(deadline=None)  # fractions are slow
@given(requests=st.integers(2, 400))
def test_power_is_the_chance_of_the_fewest_failures_that_are_too_many(requests: int) -> None:
    fewest = next(k for k in range(requests + 2) if metrics.is_worse(k, requests) or k > requests)
    assert metrics.power(requests) == pytest.approx(exact(fewest, requests, Fraction(1, 20)), abs=1e-10)


@pytest.mark.parametrize(("rate", "least", "most"), [(0.001, 0.0, 0.005), (0.05, 0.97, 1.0)])
@pytest.mark.parametrize("past", [0.0, 0.5])
def test_releases_that_are_played_end_as_often_as_is_stated(
    rate: float, least: float, most: float, past: float
) -> None:
    """A minute of canary with a tenth of 120 requests, then two minutes; each new minute is a look, as it is in a shift."""
    draws = random.Random(15)  # noqa: S311 - a simulation
    put_back, releases = 0, 400
    before = Minute(START - timedelta(minutes=1), groups(served(120, round(120 * past))), no_target=round(120 * past))

    def play(requests: int, chance: float) -> Group:
        return served(requests, sum(draws.random() < chance for _ in range(requests)))

    for _ in range(releases):
        whole = minutes(ours=[play(12, rate), play(120, rate), play(120, rate)], theirs=play(108, 0.001)).minutes
        looks = [judge(Reading((before, *whole[:many]))).state for many in (1, 2, 3)]
        put_back += MetricState.FAILING in looks
        assert looks[-1] in (MetricState.FAILING, MetricState.HEALTHY)
    assert least <= put_back / releases <= most


# Each request counted once ----------------------------------------------------------------------------------------

OUTCOMES = ["good", "error", "refused", "crashed", "no target"]


@given(
    green=st.lists(st.sampled_from(OUTCOMES), max_size=60), blue=st.lists(st.sampled_from(OUTCOMES[:4]), max_size=60)
)
def test_each_failed_request_counts_once_and_for_the_colour_that_failed(green: list[str], blue: list[str]) -> None:
    """The load balancer counts as AWS documents it; a refused connection is a 502 and a connection error."""

    def group(outcomes: list[str]) -> Group:
        targets = sum(each != "no target" for each in outcomes)
        return Group(targets, outcomes.count("good"), outcomes.count("error"), outcomes.count("refused"))

    gateway = sum(each in ("refused", "crashed") for each in (*green, *blue))
    minute = Minute(START, groups(group(blue), group(green)), gateway, green.count("no target"))
    assert metrics.sample(minute, "green", alone=True) == Sample(len(green), len(green) - green.count("good"), 0)
    while_both_serve = metrics.sample(minute, "blue", alone=False)
    assert while_both_serve.failed == blue.count("error") + blue.count("refused")
    assert while_both_serve.unknown == blue.count("crashed")


@given(
    st.builds(Group, counts, counts, counts, counts),
    st.builds(Group, counts, counts, counts, counts),
    counts,
    counts,
    counts,
)
def test_any_counts_make_a_sample(blue: Group, green: Group, gateway: int, no_target: int, gone: int) -> None:
    """Series come in any order, so that they may not fit together yet."""
    minute = Minute(START, groups(blue, green), gateway, no_target, gone)
    for alone in (True, False):
        sample = metrics.sample(minute, "green", alone=alone)
        assert 0 <= sample.failed <= sample.requests
        assert 0 <= sample.unknown <= sample.requests - sample.failed
        assert sample.failed >= green.errors
        assert sample.requests - sample.failed - sample.unknown <= green.good + 0.02 * green.requests


@given(requests=st.integers(1, 2000), failed=st.integers(0, 2000), late=st.integers(0, 2000))
def test_what_is_late_is_never_health(requests: int, failed: int, late: int) -> None:
    """Counts with any part missing never make a failing release a healthy one."""
    failed = min(failed, requests)
    there = max(0, failed - late)
    whole = judge(minutes(ours=[Group(), served(requests, failed), served(requests, failed)]))
    part = Group(requests, requests - failed, there)
    seen = judge(minutes(ours=[Group(), part, part]))
    if whole.state is MetricState.FAILING:
        assert seen.state is not MetricState.HEALTHY


def test_clients_that_went_away_are_no_failures() -> None:
    part = Group(1000, 985, 0)
    minute = Minute(START + timedelta(minutes=2), groups(green=part), client_errors=15)
    again = Minute(START + timedelta(minutes=3), groups(green=part), client_errors=15)
    assert judge(Reading((minute, again))).state is MetricState.HEALTHY
    assert judge(Reading((minute, again)), SHIFT).why.startswith("0 of 2000")


def test_scanners_explain_no_missing_answer() -> None:
    part = Group(1000, 950, 0)
    both = [Minute(START + timedelta(minutes=n), groups(green=part), client_errors=500) for n in (2, 3)]
    assert judge(Reading(tuple(both))).state is MetricState.UNKNOWN


# The verdict ------------------------------------------------------------------------------------------------------

QUIET = Group()
CASES: list[tuple[str, Reading, MetricState, str]] = [
    ("nothing", Reading(), MetricState.UNKNOWN, "0 of 2 whole minutes"),
    ("one minute", minutes(ours=[QUIET, served(100)]), MetricState.UNKNOWN, "1 of 2 whole minutes"),
    ("healthy", minutes(ours=[served(10), served(100), served(100)], theirs=served(90)), MetricState.HEALTHY, "0 of 210"),
    ("one failure", minutes(ours=[QUIET, served(100, 1), served(100)]), MetricState.HEALTHY, "1 of 200"),
    ("one in twenty", minutes(ours=[QUIET, served(100, 5), served(100, 5)]), MetricState.FAILING, "10 of 200"),
    ("in the canary", minutes(ours=[served(30, 3)], theirs=served(270)), MetricState.FAILING, "of 270 on blue 0 failed"),
    ("both a little", minutes(ours=[QUIET, served(500, 15), served(500, 15)], theirs=served(9000, 270)),
     MetricState.HEALTHY, "30 of"),
    ("few of the other", minutes(ours=[QUIET, served(100, 5), served(100, 5)], theirs=served(20, 1)),
     MetricState.FAILING, "10 of"),
    ("half of trouble", minutes(ours=[QUIET, served(100, 9), served(100, 9)], theirs=served(900, 270)),
     MetricState.HEALTHY, "18 of"),
    ("no better", minutes(ours=[QUIET, served(100, 30), served(100, 30)], theirs=served(900, 270)), MetricState.FAILING, "60"),
    ("the other alone", minutes(ours=[served(10), served(100), served(100)], theirs=served(90, 80)), MetricState.HEALTHY, "0 of"),
]  # fmt: skip


@pytest.mark.parametrize(("reading", "state", "why"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_verdicts(reading: Reading, state: MetricState, why: str) -> None:
    verdict = judge(reading)
    assert (verdict.state, why in verdict.why) == (state, True), verdict.why


@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
def test_an_incomplete_answer_says_nothing(case: tuple[str, Reading, MetricState, str]) -> None:
    verdict = judge(Reading(case[1].minutes, ("requestcount_green: PartialData",)))
    assert (verdict.state, verdict.why) == (
        MetricState.UNKNOWN,
        "CloudWatch's answer was not complete: requestcount_green: PartialData",
    )


@given(before=st.lists(st.builds(served, st.integers(0, 500)), max_size=5), failed=st.integers(0, 500))
def test_no_past_minute_changes_the_verdict(before: list[Group], failed: int) -> None:
    ours = minutes(ours=[served(30), served(250, 12), served(250, 13)], theirs=served(300))
    past = [
        Minute(START - timedelta(minutes=n), groups(served(each.requests + failed, failed)), failed, failed)
        for n, each in enumerate(before, start=1)
    ]
    assert judge(Reading((*past, *ours.minutes))) == judge(ours)


def test_without_a_canary_only_what_was_there_before_is_compared_with() -> None:
    reading = minutes(ours=[QUIET, served(100, 10), served(100, 10)], theirs=served(900, 900))
    assert judge(reading, Shift("green", SINCE)).state is MetricState.FAILING, (
        "a resumed shift: its own errors, and no measure"
    )
    out_of_an_outage = Shift("green", SINCE, None, metrics.acceptable(1.0))
    assert judge(reading, out_of_an_outage).state is MetricState.HEALTHY
    assert judge(minutes(ours=[QUIET, served(100, 80), served(100, 80)]), out_of_an_outage).state is MetricState.FAILING


def test_errors_without_requests_wait_until_these_would_be_there() -> None:
    minute = Minute(START + timedelta(minutes=2), groups(), no_target=50)
    assert judge(Reading((minute,)), now=NOW).state is MetricState.UNKNOWN
    late = minute.end + timedelta(seconds=metrics.LATE_SECONDS)
    assert judge(Reading((minute,)), now=late).state is MetricState.FAILING


def test_a_minute_that_has_not_ended_does_not_count() -> None:
    reading = minutes(ours=[QUIET, served(100), served(100, 100)])
    assert judge(reading, now=START + timedelta(seconds=239)).state is MetricState.UNKNOWN


@pytest.mark.parametrize(
    ("failed", "expected"),
    [([68, 0, 0, 0], 0.0), ([0, 68, 68, 68], 0.92), ([68, 68, 68, 0], 0.0), ([10, 9, 11], 0.05), ([68, 68], 0.0)],
)
def test_the_past_counts_only_while_it_lasts(failed: list[int], expected: float) -> None:
    every = [
        Minute(START + timedelta(minutes=n), groups(served(max(0, 70 - each))), no_target=each)
        for n, each in enumerate(failed)
    ]
    assert metrics.steady_rate(Reading(tuple(every)), "blue") == pytest.approx(expected, abs=0.05)
    assert metrics.steady_rate(Reading(tuple(every), ("x: PartialData",)), "blue") == 0


@given(steady=st.floats(0, 1), sent=st.integers(1, 20), failed=st.integers(0, 1))
def test_where_own_requests_do_not_fail_there_is_no_outage(steady: float, sent: int, failed: int) -> None:
    assert metrics.before(Sample(sent, min(failed, sent)), steady) <= metrics.TROUBLE
    assert metrics.before(None, steady) == steady


def test_an_outage_that_own_requests_see_is_one() -> None:
    assert metrics.before(Sample(5, 5), 0.0) == 1.0
    assert metrics.before(Sample(20, 3), 0.4) == pytest.approx(0.4)
    assert metrics.before(Sample(20, 2), 0.0) == pytest.approx(0.1)


def test_what_is_read_again_and_differs_is_still_being_written() -> None:
    first = minutes(ours=[QUIET, served(100), served(100)])
    more = Reading((*first.minutes, Minute(NOW, groups(green=served(1)))))
    other = minutes(ours=[QUIET, served(100), served(101)])
    assert metrics.unchanged(first, first)
    assert metrics.unchanged(first, more)
    assert not metrics.unchanged(first, other)
    assert not metrics.unchanged(None, first)
    assert not metrics.unchanged(Reading(), first)
