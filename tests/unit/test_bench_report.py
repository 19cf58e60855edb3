"""The report holds what was measured, stays small, and names why a run proves nothing."""

import dataclasses
import json
from pathlib import Path

from bench import figures, page, report
from bench.full import MAX_PARTS, PART_RELEASES, PART_SECONDS, RELEASE
from bench.load import Outcome
from bench.measurements import Measurement, Result
from bench.steps import Step
from bench.systems import OURS
from twin.paths import REPOSITORY

STEPS = (Step(0.0, "claim"), Step(4.0, "shift"), Step(8.0, "live"))


def measurement(scenario: str, failed: int, system: str = OURS) -> Measurement:
    kinds = {"http-502": failed} if failed else {}
    result = Measurement(scenario, system, 0.0, 10.0, 1.0, 100, failed, kinds, 0.01, 0.05, 0.01, 0.05, load=system)
    if scenario == RELEASE:
        return dataclasses.replace(result, steps=STEPS, floor=(("settle", 8.0),))
    return result


def outcomes(system: str) -> list[Outcome]:
    good = [Outcome("page, fresh", f"{system}{i}", i, i + 0.01, 200, colour="blue") for i in range(20)]
    return [*good, Outcome("page, fresh", f"{system}x", 5.0, 5.1, 502, "http-502")]


GOOD = Result(
    measurements=[measurement(RELEASE, 0), measurement("drain", 3)],
    outcomes={OURS: outcomes(OURS), f"{OURS} 2": outcomes(OURS)},
    disagreements=[],
    orders_wrong=[],
    seconds=12.0,
    full=True,
)


def test_the_page_holds_every_count_and_the_json_every_failure_with_its_step(tmp_path: Path) -> None:
    report.write(GOOD, tmp_path, "bench")
    text, document = (tmp_path / "bench.html").read_text(), json.loads((tmp_path / "bench.json").read_text())
    assert "<b>3</b>" in text
    assert [entry["failed"] for entry in document["measured"]] == [0, 3]
    assert document["failureColumns"] == ["due", "seconds", "stream", "failure", "step"]
    assert document["failures"][OURS] == [[5.0, 0.1, "page, fresh", "http-502", f"{RELEASE}: shift"]]
    assert figures.step_of(GOOD.measurements, f"{OURS} 2", 5.0) == "before"
    assert document["series"][OURS] == {
        "blue": {"first": 0, "counts": [2] * 10},
        "failed": {"first": 4, "counts": [1]},
    }


def test_the_page_is_drawn_again_from_the_json_alone(tmp_path: Path) -> None:
    report.write(GOOD, tmp_path, "bench")
    text = (tmp_path / "bench.html").read_text()
    (tmp_path / "bench.html").unlink()
    page.main([tmp_path / "bench.json"])
    assert (tmp_path / "bench.html").read_text() == text


def test_the_longest_full_run_gives_small_files() -> None:
    seconds = int(PART_SECONDS) * MAX_PARTS
    releases = PART_RELEASES * MAX_PARTS
    names = ("claim", "idle colour up", "smoke", "canary", "shift", "live", "old colour down")
    spacing = seconds / releases
    measurements = [
        dataclasses.replace(
            measurement(RELEASE, 0),
            began=spacing * number,
            ended=spacing * (number + 1) - 20,
            steps=[Step(spacing * number + 30.123456 * (at + 1), name) for at, name in enumerate(names)],
        )
        for number in range(releases)
    ]
    # Jagged, so that no line can be simplified.
    counts = [(at * 7919) % 353 for at in range(seconds // figures.BUCKET_SECONDS)]
    series = {"first": 0, "counts": counts}
    document = {
        **figures.figures(dataclasses.replace(GOOD, full=True, measurements=measurements, outcomes={}), []),
        "series": {OURS: {"blue": series, "failed": series, "green": {**series, "counts": counts[::-1]}}},
        "failures": {
            OURS: [[at + 0.123, 0.123, "page, kept alive", "http-502", "release: shift"] for at in range(2000)]
        },
    }
    assert len(figures.as_text(document).encode()) < page.LARGEST_BYTES
    assert len(page.draw(document).encode()) < page.LARGEST_BYTES


def test_a_run_that_proves_nothing_is_told_why() -> None:
    assert "3 requests failed" in report.problems(GOOD)
    assert not any("failed" in line for line in report.problems(dataclasses.replace(GOOD, measurements=[])))
    assert "disagree" in report.problems(dataclasses.replace(GOOD, disagreements=["x"]))[0]
    assert "exactly once" in report.problems(dataclasses.replace(GOOD, orders_wrong=["k"]))[0]


def test_a_full_run_needs_its_releases_its_requests_its_latency_and_its_time() -> None:
    full = dataclasses.replace(GOOD, full=True, measurements=[measurement(RELEASE, 0)])
    problems = report.problems(full)
    assert "1 releases and 42 requests" in problems[0]
    assert "12 of 42 requests came while a release ran" in problems[1]
    assert "0 long requests in flight" in problems[2]
    assert len(problems) == 3
    slow = dataclasses.replace(full.measurements[0], p99=0.07, ended=11.0)
    problems = report.problems(dataclasses.replace(full, measurements=[slow]))
    assert "1.40 of the steady one" in problems[3]
    assert "1.38 of its floor" in problems[4]


def test_a_full_runs_page_tells_where_the_engine_ran(tmp_path: Path) -> None:
    full = dataclasses.replace(
        GOOD, full=True, engine_yields=True, retried_updates=["smoke <failed>"], stopped_by="stopped"
    )
    assert "the run ended early: stopped" in report.problems(full)
    report.write(full, tmp_path, "full")
    text = (tmp_path / "full.html").read_text()
    assert "idle class); the database" in text
    assert "make bench FULL=1" in text
    assert "was run once more: smoke &lt;failed&gt;" in text
    assert json.loads((tmp_path / "full.json").read_text())["engineYields"] is True
    assert "broke off" not in text
    report.write(dataclasses.replace(full, engine_yields=False, broken_off=2), tmp_path, "full")
    assert "measured once more from their begin: 2." in (tmp_path / "full.html").read_text()
    assert "could not be put into the kernel's idle class" in (tmp_path / "full.html").read_text()


def test_a_long_request_is_in_flight_from_when_it_is_due_until_it_ends() -> None:
    release = measurement(RELEASE, 0)
    sent = [Outcome("long", "x", due, ended) for due, ended in ((1.0, 3.9), (1.0, 4.1), (4.1, 9.0))]
    assert report.long_in_flight(release, [*sent, Outcome("page, fresh", "y", 3.0, 5.0)]) == 1
    drained = dataclasses.replace(release, drained=12.0)
    assert report.requests_during_releases([drained], [*sent, Outcome("a", "z", 13.0, 13.1)]) == 3
    assert report.requests_during_releases([release, drained], sent) == 3, "each is counted once"


def test_no_document_is_large() -> None:
    documents = list((REPOSITORY / "docs").iterdir())
    assert documents
    assert [path.name for path in documents if path.stat().st_size >= page.LARGEST_BYTES] == []
