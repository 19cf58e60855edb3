"""The bench of undoing: what is counted from when to when, and its broken version."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from bench.load import Outcome
from bench.undo import BREAKS_WHEN_TOLD, NAMES, Mark, UndoBench, undone
from twin import config
from twin.scenarios import production

requests = st.lists(st.tuples(st.floats(0, 100), st.booleans()), max_size=30)
moments = st.lists(st.floats(10, 100), max_size=4)


def outcomes(drawn: list[tuple[float, bool]]) -> list[Outcome]:
    return [Outcome("page", "", due, due + 1, failure="http-500" if failed else "") for due, failed in drawn]


@given(requests, moments)
def test_what_failed_is_counted_from_the_first_mark_until_the_last_failure(
    drawn: list[tuple[float, bool]], later: list[float]
) -> None:
    marks = [Mark(10.0, "breaks"), *(Mark(at, "step") for at in later)]
    result = undone("ours", outcomes(drawn), marks, "2026-11-29")
    bad = [due for due, failed in drawn if failed and due >= 10]
    assert (result.failed, result.sent) == (len(bad), sum(due >= 10 for due, _ in drawn))
    assert result.seconds == round(max(bad, default=10.0) - 10, 1)


@given(requests, moments)
def test_the_steps_fill_the_time_from_the_first_mark_to_the_last(
    drawn: list[tuple[float, bool]], later: list[float]
) -> None:
    marks = [Mark(10.0, "breaks"), *(Mark(at, "step") for at in later)]
    result = undone("ours", outcomes(drawn), marks, "2026-11-29")
    assert [mark["at"] for mark in result.marks] == sorted(mark["at"] for mark in result.marks)
    assert result.marks[0]["at"] == 10
    length = result.marks[-1]["at"] - 10
    assert abs(sum(step["seconds"] for step in result.steps) - length) < 0.1 * len(result.steps)
    assert "last failed request" in [step["name"] for step in result.steps]


def test_the_version_that_breaks_is_the_application_with_a_line_more(tmp_path: Path) -> None:
    production.copy_application(tmp_path / "v1", "v1", BREAKS_WHEN_TOLD)
    source = (tmp_path / "v1" / "shopcat" / "__main__.py").read_text()
    compile(source, "main", "exec")
    assert "import os\n" in source


def test_each_name_that_may_be_given_is_a_system(tmp_path: Path) -> None:
    bench = UndoBench(config.Twin("x", 1, tmp_path, tmp_path, True), tmp_path / "undo", soon=False)
    assert set(bench.systems()) == set(NAMES)
