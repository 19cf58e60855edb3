"""Steps of a release, read from what `pulumi up` says."""

import time
from pathlib import Path

from bench.steps import Follower, Step, floor, metrics_known, parts, step_at, steps_of
from infra.timeouts import DrainBudget, DrainInputs

SAID = """
    pulumi:pulumi:Stack shopcat-prod running release v1.1.0-r1: slot taken for attempt 1
 ~  kubernetes:apps/v1:Deployment deployment-blue updating (0s) [diff: ~spec]
 ~  kubernetes:apps/v1:Deployment deployment-blue updated (16s)
 +  kubernetes:batch/v1:Job smoke-v1.1.0-r1-a1 creating (0s)
    pulumi:pulumi:Stack shopcat-prod running listener f543: blue 0 / green 100 -> blue 10 / green 90
    pulumi:pulumi:Stack shopcat-prod running weights blue 10 / green 90 read back (2 of 2)
    pulumi:pulumi:Stack shopcat-prod running listener f543: blue 10 / green 90 -> blue 100 / green 0
    pulumi:pulumi:Stack shopcat-prod running v1.1.0-r1 is live in blue
 ~  kubernetes:apps/v1:Deployment deployment-green updating (0s) [diff: ~spec]
Diagnostics:
    pulumi:pulumi:Stack shopcat-prod running v1.1.0-r1 is live in blue
""".strip().splitlines()
NAMES = ["claim", "idle colour up", "smoke", "canary", "shift", "live", "old colour down"]


def test_each_step_is_found_once_and_in_order() -> None:
    found = steps_of((float(second), line) for second, line in enumerate(SAID))
    assert [step.name for step in found] == NAMES
    assert [step.at for step in found] == [0.0, 1.0, 3.0, 4.0, 6.0, 7.0, 8.0]


def test_weights_put_back_are_a_step() -> None:
    said = [*SAID[:7], "    running trouble (2 of our own requests failed); putting everything back on green"]
    assert steps_of((float(second), line) for second, line in enumerate(said))[-1].name == "taken back"


def test_the_abort_of_a_release_that_failed_stands_behind_it() -> None:
    failed = ["Updating (prod):", *SAID[:4], "Diagnostics:", *SAID[:3], "error: smoke test failed"]
    abort = [
        "Updating (prod):",
        SAID[1],
        "    listener f543: -> blue 100 / green 0",
        "    release v1.1.0-r1: aborted; green",
    ]
    found = steps_of((float(second), line) for second, line in enumerate([*failed, *abort]))
    assert [step.name for step in found] == ["claim", "idle colour up", "smoke", "taken back"]
    assert found[-1].at == len(failed) + 3


def test_users_that_are_moved_before_the_update_count_and_the_update_goes_on() -> None:
    first = [SAID[0].replace("shopcat-prod running ", ""), "listener f543: blue 100 / green 0 -> blue 0 / green 100"]
    said = [*first, "Updating (prod):", SAID[3], *SAID[7:]]
    found = steps_of((float(second), line) for second, line in enumerate(said))
    assert [step.name for step in found] == ["claim", "shift", "smoke", "live", "old colour down"]
    assert [step.at for step in found] == [0.0, 1.0, 3.0, 4.0, 5.0]


def test_weights_that_are_put_back_are_no_shift() -> None:
    trouble = "    running trouble (2 of our own requests failed); putting everything back on blue"
    said = [SAID[0], SAID[4], trouble, "    listener f543: blue 10 / green 90 -> blue 100 / green 0"]
    assert [step.name for step in steps_of((0.0, line) for line in said)] == ["claim", "canary", "taken back"]


def test_a_moment_belongs_to_the_step_that_began_last() -> None:
    steps = [Step(10.0, "canary"), Step(30.0, "shift")]
    assert [step_at(steps, moment) for moment in (9.0, 10.0, 29.0, 31.0)] == ["", "canary", "canary", "shift"]
    assert parts(3.0, steps, 100.0) == [("engine", 7.0), ("canary", 20.0), ("shift", 70.0)]


def test_the_floor_waits_until_cloudwatch_has_two_whole_minutes() -> None:
    budget = DrainBudget.derive(DrainInputs())
    written = {600: 700.0, 660: 820.0, 720: 790.0, 780: 990.0}
    assert metrics_known(615.0, written) == 820.0, "two that begin after the shift, in whatever order they came"
    assert metrics_known(725.0, written) is None, "there is one only"
    found = dict(floor(budget, shifted=615.0, known=820.0))
    assert found == {"targets healthy": 10.0, "canary": 45.0, "settle and two metric minutes": 205.0}
    at_once = dict(floor(budget, shifted=600.0, known=600.0))
    assert at_once["settle and two metric minutes"] == budget.settle_seconds


def test_a_log_is_followed_as_it_is_written(tmp_path: Path) -> None:
    log = tmp_path / "up.log"
    with Follower(log) as follower:
        log.write_text("\n".join(SAID[:2]) + "\n")
        deadline = time.monotonic() + 5
        while len(follower.steps) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        first = follower.steps[0].at
        with log.open("a") as file:
            file.write("\n".join(SAID[2:]))
    assert [step.name for step in follower.steps] == NAMES
    assert follower.steps[0].at == first < follower.steps[-1].at
