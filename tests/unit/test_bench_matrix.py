"""The matrix of accidents: its cells are kept while they are asked the same, and its words mean what they say."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import assembly, cells, matrix
from bench.accidents import ACCIDENTS, Accident
from bench.cells import Cell
from bench.load import Outcome
from bench.matrix import Release, Stage
from bench.system import State
from bench.systems import OURS
from twin import config
from twin.errors import TwinError
from twin.paths import REPOSITORY
from twin.scenarios import production

CELL = Cell(
    system=OURS,
    accident="nothing",
    sent=100,
    failed=0,
    by_failure={},
    seconds=60.0,
    settled_seconds=70.0,
    outcome="released",
    detail="",
    at="2026-11-29",
)
WORDS = ("released", "undone", "stuck", "wrong code")
QUIET = ACCIDENTS[0]


class FakeSystem:
    """A system whose release tool ends at once."""

    name, title, tuned, controllers = OURS, "this program", "as it is", ()

    def __init__(self, *, is_ready: bool = True, code: int = 0) -> None:
        self.is_ready, self.code = is_ready, code
        self.calls: list[str] = []
        self.push_error = ""

    def start(self, tag: str) -> subprocess.Popen[str]:
        self.calls.append(f"start {tag}")
        return self._process()

    def go_on(self, tag: str) -> subprocess.Popen[str]:
        self.calls.append(f"go on {tag}")
        return self._process()

    def undo(self) -> subprocess.Popen[str]:
        self.calls.append("undo")
        return self._process()

    def push_again(self, content: str) -> None:
        self.calls.append(f"push {content} again")
        if self.push_error:
            raise TwinError(self.push_error)

    def has_ready_pod(self, tag: str) -> bool:
        del tag
        return self.is_ready

    is_shifting = has_ready_pod

    def _process(self) -> subprocess.Popen[str]:
        program = f"import sys, time; time.sleep(1); sys.exit({self.code})"
        return subprocess.Popen([sys.executable, "-c", program], text=True, start_new_session=True)


def release(system: FakeSystem, accident: Accident, *tags: str) -> Release:
    return Release(cast("Any", None), cast("Any", system), accident, "v1.0.0", tags or ("v1.1.0",))


def test_a_bad_version_is_the_application_with_some_pieces_replaced(tmp_path: Path) -> None:
    for accident in ACCIDENTS:
        production.copy_application(tmp_path / accident.name, accident.name, accident.edits)
        compile((tmp_path / accident.name / "shopcat" / "__main__.py").read_text(), accident.name, "exec")


def test_a_piece_that_the_application_lacks_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TwinError, match="0 times"):
        production.copy_application(tmp_path / "a", "a", {"no such line": "x"})


def test_what_is_expected_of_ours_is_said_with_a_reason() -> None:
    for accident in ACCIDENTS:
        usual = not accident.expected_failed and accident.expected_outcome == "released"
        assert bool(accident.reason) != usual, accident.name
    assert len({accident.name for accident in ACCIDENTS}) == len(ACCIDENTS)


@given(
    st.sampled_from(["", "v1.0.0", "v1.1.0", "v1.2.0", "v1.0.0-again", "unknown"]),
    st.booleans(),
    st.sampled_from([["v1.1.0"], ["v1.1.0", "v1.2.0"]]),
)
def test_an_outcome_is_one_word(serving: str, settled: Any, tags: list[str]) -> None:
    word = matrix.outcome(State(serving, settled), "v1.0.0", tags)
    if serving == "v1.0.0-again":
        assert word == "wrong code"
    elif settled and serving in tags:
        assert word == "released"
    elif settled and serving == "v1.0.0":
        assert word == "undone"
    else:
        assert word == "stuck"


@given(st.lists(st.tuples(st.sampled_from(WORDS), st.integers(0, 9)), min_size=1, max_size=5))
def test_of_several_runs_the_worst_is_shown(runs: list[tuple[str, int]]) -> None:
    chosen = cells.worst([replace(CELL, outcome=word, failed=failed) for word, failed in runs])
    assert len(chosen.runs) == len(runs)
    for word, failed in runs:
        assert (WORDS.index(chosen.outcome), chosen.failed) >= (WORDS.index(word), failed)


def problems(*measured: Cell) -> list[str]:
    return assembly.figures(measured, [], [])["problems"]


@given(st.sampled_from(ACCIDENTS), st.sampled_from(WORDS), st.integers(0, 300), st.booleans())
def test_ours_is_held_to_what_was_said_before(accident: Accident, word: str, failed: int, is_ours: Any) -> None:
    cell = replace(CELL, system=OURS if is_ours else "legacy", accident=accident.name, outcome=word, failed=failed)
    wrong = failed > accident.expected_failed or word != accident.expected_outcome
    assert sum("were expected" in line for line in problems(cell)) == (wrong if is_ours else 0)


def test_a_matrix_in_which_nobody_fails_proves_nothing() -> None:
    assert problems(CELL, replace(CELL, system="legacy", failed=40)) == []
    assert "too fast for a proof" in problems(CELL)[0]
    assert "too fast for a proof" in problems(CELL, replace(CELL, system="legacy"))[0]


def test_a_cell_counts_only_while_it_is_asked_the_same(tmp_path: Path) -> None:
    system = cast("Any", FakeSystem())
    assert not cells.kept(tmp_path, system, QUIET)
    cells.write(tmp_path, replace(CELL, fingerprint=cells.fingerprint(system, QUIET)))
    assert cells.kept(tmp_path, system, QUIET)
    assert not cells.kept(tmp_path, system, replace(QUIET, delay_ratio=2.0))
    system.tuned = "in another way"
    assert not cells.kept(tmp_path, system, QUIET)
    assert [cell.accident for cell in cells.read(tmp_path)] == ["nothing"]


def test_the_table_says_which_cells_were_not_run() -> None:
    text = cells.table([CELL], {OURS: "this program", "argo-canary": "Argo"})
    assert "| nothing | 0 of 100 failed, 70 s, released | not run |" in text
    assert text.count("not run") == 2 * len(ACCIDENTS) - 1


def test_requests_are_counted_from_the_start_of_the_release() -> None:
    sent = [
        Outcome("page", str(at), at, at + 0.1, failure=failure)
        for at, failure in ((1.0, "closed"), (2.0, ""), (3.0, "tls"))
    ]
    assert cells.count(sent, 2.0) == (2, {"tls": 1})


def test_latency_is_that_of_good_short_requests() -> None:
    sent = [
        Outcome("page", "a", 1.0, 1.1),
        Outcome("page", "b", 5.0, 5.2),
        Outcome("long", "c", 5.0, 13.0),
        Outcome("page", "d", 5.0, 35.0, failure="timeout"),
    ]
    found = cells.latencies(sent, 4.0, 10.0)
    assert {part: values["p50"] for part, values in found.items()} == {"before": 0.1, "during": 0.2}
    assert [sum(values["histogram"]["counts"]) for values in found.values()] == [1, 1]


# Runs --------------------------------------------------------------------------------------------------------------


def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Callable[[Any, Accident], Cell]) -> Stage:
    monkeypatch.setattr(Stage, "_release", lambda _, system, accident: run(system, accident))
    monkeypatch.setattr(matrix.Bench, "set_delays", lambda *_, **__: None)
    return Stage(config.Twin("x", 1, tmp_path, tmp_path, True), tmp_path / "run", tmp_path / "cells")


def test_a_run_that_broke_off_goes_on_with_the_cells_that_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def run(system: Any, accident: Accident) -> Cell:
        done.append(accident.name)
        if accident.name == "slow" and done.count("slow") == 1:
            raise TwinError("killed")
        found = cells.fingerprint(system, accident)
        return replace(CELL, system=system.name, accident=accident.name, fingerprint=found)

    first = stage(tmp_path, monkeypatch, run)
    system = cast("Any", FakeSystem())
    first.run([system], ACCIDENTS[:3])
    assert done == ["nothing", "slow"]
    assert "killed" in first.broken[OURS], "a system that can't go on is left out, and it is said"
    second = stage(tmp_path, monkeypatch, run)
    second.run([system], ACCIDENTS[:3])
    assert done == ["nothing", "slow", "slow", ACCIDENTS[2].name]
    second.run([system], ACCIDENTS[:3])
    assert len(done) == 4
    second.run([system], ACCIDENTS[:1], runs=3)
    assert done[4:] == ["nothing"] * 2
    assert [len(cells.runs(cell)) for cell in cells.read(tmp_path / "cells")] == [1, 3, 1]


def test_systems_release_at_once_but_for_accidents_of_the_whole_twin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, most = set(), {}

    def run(system: Any, accident: Accident) -> Cell:
        running.add(system.name)
        most[accident.name] = max(most.get(accident.name, 0), len(running))
        time.sleep(0.2)
        running.discard(system.name)
        return replace(CELL, system=system.name, accident=accident.name)

    systems = [cast("Any", FakeSystem()), cast("Any", FakeSystem())]
    systems[1].name = "legacy"
    stage(tmp_path, monkeypatch, run).run(systems, ACCIDENTS)
    assert {accident.name: 1 if accident.is_exclusive else 2 for accident in ACCIDENTS} == most


def test_a_killed_release_goes_on_the_documented_way() -> None:
    system = FakeSystem()
    killed = replace(QUIET, fault="kill", at_shift=True)
    found = release(system, killed)
    found.run()
    assert system.calls == ["start v1.1.0", "go on v1.1.0"]
    assert [mark["text"] for mark in found.marks] == ["kill", "tool ended with -9", "tool done"]


def test_two_releases_are_two_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix, "_PAUSE_SECONDS", 0.1)
    system = FakeSystem(code=1)
    found = release(system, replace(QUIET, fault="second"), "v1.1.0", "v1.2.0")
    found.run()
    assert system.calls == ["start v1.1.0", "start v1.2.0"]
    assert [mark["text"] for mark in found.marks] == ["tool ended with 1"] * 2


def test_an_accident_that_never_came_is_no_cell() -> None:
    with pytest.raises(TwinError, match="before the moment"):
        release(FakeSystem(is_ready=False), replace(QUIET, fault="throttle")).run()


PUSHED_AGAIN = replace(QUIET, fault="push-again")


@pytest.mark.parametrize("error", ["", "tag invalid: it can't be overwritten, since the repository is immutable."])
def test_a_tag_that_serves_is_pushed_again_and_the_release_undone(error: str) -> None:
    system = FakeSystem()
    system.push_error = error
    found = release(system, PUSHED_AGAIN)
    found.run()
    assert system.calls == ["start v1.1.0", "push v1.0.0 again", "undo"]
    assert any("immutable" in str(mark["text"]) for mark in found.marks) == bool(error)


def test_a_push_that_fails_for_another_reason_is_no_refusal() -> None:
    system = FakeSystem()
    system.push_error = "the registry does not answer"
    with pytest.raises(TwinError, match="does not answer"):
        release(system, PUSHED_AGAIN).run()


def test_an_interrupt_takes_the_twins_down_while_cells_still_run(tmp_path: Path) -> None:
    """Their threads would go on for hours, and their tools have sessions of their own."""
    script = """
import os, sys, time
from pathlib import Path
from bench import __main__ as command, matrix, run, tools

class Stage:
    broken = {}
    def __init__(self, *_): ...
    def prepare(self, names): return names
    def run(self, *_, **__):
        tool = tools.start_session(["sleep", "600"], Path("/"), {}, Path(os.devnull))
        print(tool.pid, flush=True)
        tool.wait()
        time.sleep(600)

matrix.Stage, run.why_not, run.prepare_process = Stage, lambda names: "", lambda: None
run.config.load = lambda name, **_: name
run.parts.down = lambda twin: print("down", twin, flush=True) or ["kept"]
sys.argv = ["bench", "--systems", "ours"]
command.main()
"""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        tool = int(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert process.stdout.read() == "down bench\ndown bench-2\ndown bench-3\n"
    assert not Path(f"/proc/{tool}").exists() or "Z" in Path(f"/proc/{tool}/stat").read_text().split()[2]
