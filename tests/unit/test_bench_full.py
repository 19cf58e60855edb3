"""The full run in parts: what is kept, what is measured again, and what the whole says of them."""

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import full, load, report, run
from bench.load import Load, Outcome
from bench.measurements import Measurement, Result
from bench.steps import Step
from bench.systems import OURS
from infra.settings import DrainSettings
from twin.errors import TwinError


def part(number: int, releases: int = 2, requests: int = 10, stopped_by: str = "") -> Result:
    """A part in which everything says its number."""
    sent = [Outcome("page", f"{number}-{at}", 100.0 * number + at, 100.0 * number + at + 0.5) for at in range(requests)]
    measured = [
        Measurement(
            full.RELEASE,
            OURS,
            100.0 * number + at,
            100.0 * number + at + 1,
            1.0,
            requests,
            0,
            {},
            0.1,
            0.2,
            steps=[Step(100.0 * number + at, "shift")],
            floor=[("drain", 1.0)],
            load=OURS,
        )
        for at in range(releases)
    ]
    return Result(
        measured,
        {OURS: sent},
        [f"disagreement {number}"],
        [f"order {number}"],
        float(number),
        full=True,
        engine_yields=True,
        retried_updates=[f"retried {number}"],
        stopped_by=stopped_by,
    )


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Parts of which each answers with its number; the small run that they make is complete with three."""
    numbers: list[int] = []

    def measure(*_: object) -> Result:
        numbers.append(len(numbers) + 1)
        return part(numbers[-1])

    monkeypatch.setattr(full, "_measure", measure)
    monkeypatch.setattr(run, "take_down", lambda _: None)
    monkeypatch.setattr(full, "RELEASES", 6)
    monkeypatch.setattr(full, "REQUESTS", 25)
    return numbers


def test_parts_are_measured_until_there_are_enough_releases_and_requests(begun: list[int], tmp_path: Path) -> None:
    result = full.run_full("x", tmp_path, tmp_path / "kept")
    assert begun == [1, 2, 3]
    assert list(result.outcomes) == [OURS, f"{OURS}-2", f"{OURS}-3"]
    assert result.broken_off == 0
    assert full.run_full("x", tmp_path, tmp_path / "kept") == result, "nothing is missing"
    assert begun == [1, 2, 3]


def test_a_part_that_breaks_off_is_measured_again_and_counted(
    begun: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "kept"
    first = full.run_full("x", tmp_path, kept, most=1)
    assert "2 releases and 10 requests" in str(report.problems(first))

    def stops(*_: object) -> Result:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(full, "_measure", stops)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                full.run_full("x", tmp_path, kept)
    (kept / "2.jsonl").write_text("half a line, as a killed process leaves it")
    result = full.run_full("x", tmp_path, kept)
    assert begun == [1, 2, 3]
    assert result.broken_off == 2
    assert [each.began for each in result.measurements] == [100, 101, 200, 201, 300, 301]


def test_a_part_that_found_something_stays_and_ends_the_run(
    begun: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(full, "_measure", lambda *_: part(7, stopped_by="a pod still runs"))
        full.run_full("x", tmp_path, tmp_path / "kept")
    result = full.run_full("x", tmp_path, tmp_path / "kept")
    assert begun == []
    assert "the run ended early: a pod still runs" in report.problems(result)


def test_parts_of_other_code_are_forgotten(begun: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full.run_full("x", tmp_path, tmp_path / "kept", most=2)
    monkeypatch.setattr(full, "fingerprint", lambda: "another")
    full.run_full("x", tmp_path, tmp_path / "kept", most=1)
    assert begun == [1, 2, 3]
    assert sorted(path.name for path in (tmp_path / "kept").glob("*.json")) == ["1.json"]


def test_without_any_part_nothing_is_said(tmp_path: Path) -> None:
    with pytest.raises(TwinError, match="no part"):
        full.run_full("x", tmp_path, tmp_path / "kept", most=0)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9)), min_size=1, max_size=5))
def test_together_loses_nothing_and_each_release_finds_its_own_requests(sizes: list[tuple[int, int]]) -> None:
    measured = [part(number, *size) for number, size in enumerate(sizes, start=1)]
    result = full.together(measured)
    assert [dataclasses.replace(each, load=OURS) for each in result.measurements] == [
        each for one in measured for each in one.measurements
    ]
    for each in result.measurements:
        number = int(each.began // 100)
        assert result.outcomes[each.load] == measured[number - 1].outcomes[OURS]
    assert sum(map(len, result.outcomes.values())) == sum(size[1] for size in sizes)
    assert len(result.disagreements) == len(result.orders_wrong) == len(result.retried_updates) == len(sizes)
    assert result.seconds == sum(range(len(sizes) + 1))


def test_what_was_sent_is_read_back_as_it_was(tmp_path: Path) -> None:
    sent = [
        Outcome("order", "a", 1.5, 2.5, 201, key="k", colour="blue", release="v1", pod="p", reused=True),
        Outcome("page", "b", 3.0, 4.0, failure="reset"),
    ]
    load.write(sent, tmp_path / "x.jsonl")
    assert load.read(tmp_path / "x.jsonl") == sent
    assert full.PART_RELEASES * full.MAX_PARTS >= full.RELEASES


def test_the_full_load_is_a_million_requests_in_its_releases() -> None:
    rate = sum(stream.rate for stream in full.MIX)
    committed = DrainSettings().budget
    watched = committed.settle_seconds + committed.propagation_seconds
    assert rate * watched * full.MAX_PARTS * full.PART_RELEASES > full.REQUESTS / 2
    long = next(stream for stream in full.MIX if stream.name == "long")
    assert long.rate * 20 >= 20, "twenty long requests in flight"


def test_the_full_load_may_last_as_long_as_it_has_to() -> None:
    most = full.PART_SECONDS
    assert sum(stream.rate for stream in full.MIX) * most * full.MAX_PARTS > full.REQUESTS
    # Refuses what is too much.
    Load("127.0.0.1", "shop", ca_file=None, streams=full.MIX, maximum_seconds=most)
