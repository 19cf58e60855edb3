"""Lines of a release: numbered steps, and few lines a wait, however often it is reported on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from infra.release import blue_green
from infra.release.progress import CHANGE_SECONDS, REPEAT_SECONDS, Progress, ReleaseStep, Wait

START = datetime(2026, 11, 24, 10, 0, 5, tzinfo=UTC)


class Screen:
    """A log and a clock; each line is kept with the second in which it was printed."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.lines: list[tuple[float, str]] = []
        self.progress = Progress(
            lambda line: self.lines.append((self.seconds, line)),
            lambda: self.seconds,
            lambda: START + timedelta(seconds=self.seconds),
        )

    def texts(self) -> list[str]:
        return [line for _, line in self.lines]

    def poll(
        self, wait: Wait, *, every: float, times: int, text: str = "1 of 2 minutes", change: object = None
    ) -> None:
        for _ in range(times):
            wait.report(text, change=change)
            self.seconds += every


def test_the_steps_are_those_that_the_release_lists() -> None:
    table = [line.split() for line in (blue_green.__doc__ or "").splitlines() if line[:4].isspace() and line.strip()]
    numbered = [(int(words[0]), " ".join(words[1:])) for words in table if words[0].isdigit()]
    assert len(numbered) == len(ReleaseStep)
    for step, (number, text) in zip(ReleaseStep, numbered, strict=True):
        assert step.number == number
        assert text.startswith(f"{step.value} ")


def test_a_step_says_number_name_colour_and_time() -> None:
    screen = Screen()
    screen.progress.begin(ReleaseStep.CANARY, "blue", "a tenth of the traffic, 45 s")
    assert screen.texts() == ["step 7 of 11: canary (blue) since 10:00:05 UTC; a tenth of the traffic, 45 s"]


def test_a_wait_says_when_it_ends_and_then_how_long_still() -> None:
    screen = Screen()
    screen.poll(screen.progress.wait(120, is_deadline=False), every=0.5, times=240)
    assert screen.texts() == [
        "1 of 2 minutes; waits until 10:02:05 UTC (120 s)",
        "1 of 2 minutes; 90 s left",
        "1 of 2 minutes; 60 s left",
        "1 of 2 minutes; 30 s left",
    ]


def test_a_deadline_is_said_to_be_one_and_what_is_late_has_nothing_left() -> None:
    screen = Screen()
    wait = screen.progress.wait(20)
    screen.poll(wait, every=40, times=2)
    assert screen.texts() == ["1 of 2 minutes; waits until 10:00:25 UTC at most (20 s)", "1 of 2 minutes; 0 s left"]


def test_a_change_is_printed_sooner() -> None:
    screen = Screen()
    wait = screen.progress.wait(120)
    screen.poll(wait, every=5, times=3)
    screen.poll(wait, every=5, times=1, text="2 of 2 minutes", change=2)
    assert screen.lines[1:] == [(15.0, "2 of 2 minutes; 105 s left")]


def test_equal_waits_share_their_lines() -> None:
    screen = Screen()
    wait = screen.progress.wait(0)
    for _ in range(8):
        wait.restart(60)
        screen.poll(wait, every=5, times=1, text="throttled")
    assert screen.texts() == ["throttled; waits until 10:01:05 UTC at most (60 s)", "throttled; 60 s left"]


def test_an_end_is_printed_only_of_a_wait_that_was() -> None:
    screen = Screen()
    screen.progress.wait(20).end("blue is ready")
    assert screen.lines == []
    wait = screen.progress.wait(20)
    wait.report("blue is not ready")
    wait.end("blue is ready")
    assert screen.texts()[1:] == ["blue is ready"]


pauses = st.floats(0.01, 60)
polls = st.lists(st.tuples(pauses, st.integers(0, 3)), max_size=200)


@given(polls)
def test_the_lines_of_a_wait_are_bounded_by_its_time_whatever_changes(polls: list[tuple[float, int]]) -> None:
    screen = Screen()
    wait = screen.progress.wait(600)
    for pause, change in polls:
        wait.report(f"{change} of 3", change=change)
        screen.seconds += pause
    times = [second for second, _ in screen.lines]
    assert all(later - earlier >= CHANGE_SECONDS for earlier, later in pairwise(times))
    assert len(times) <= 1 + screen.seconds / CHANGE_SECONDS


@given(polls)
def test_without_a_change_a_line_comes_no_sooner_than_the_repeat(polls: list[tuple[float, int]]) -> None:
    screen = Screen()
    wait = screen.progress.wait(600)
    for pause, _ in polls:
        wait.report("the same")
        screen.seconds += pause
    times = [second for second, _ in screen.lines]
    assert all(later - earlier >= REPEAT_SECONDS for earlier, later in pairwise(times))


@given(polls)
def test_a_change_that_lasts_is_printed(polls: list[tuple[float, int]]) -> None:
    screen = Screen()
    wait = screen.progress.wait(600)
    for pause, change in polls:
        wait.report(f"{change} of 3", change=change)
        screen.seconds += pause
    screen.seconds += CHANGE_SECONDS
    wait.report("3 of 3", change="last")
    assert screen.texts()[-1].startswith("3 of 3; ")
