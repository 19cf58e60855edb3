"""The matrix of accidents: its cells are kept while they are asked the same, and its words mean what they say."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import assembly, cells, charts, matrix
from bench.accidents import ACCIDENTS, Accident
from bench.cells import Cell
from bench.load import Outcome
from bench.matrix import Release, Rest, Stage
from bench.system import State
from bench.systems import OURS
from bench.undo import OursKept
from bench.verdicts import GOAL_SECONDS
from bench.workloads import SHORT_BUDGET
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

    def __init__(self, *, is_ready: bool = True, takes_traffic: bool = True, code: int = 0) -> None:
        self.is_ready, self.takes_traffic, self.code = is_ready, takes_traffic, code
        self.states: list[State] = []
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

    def push(self, tag: str, edits: Any) -> None:
        self.calls.append(f"push {tag}")

    def load_balancer(self) -> str:
        return "its-own"

    def push_again(self, content: str) -> None:
        self.calls.append(f"push {content} again")
        if self.push_error:
            raise TwinError(self.push_error)

    def has_ready_pod(self, tag: str) -> bool:
        del tag
        return self.is_ready

    def is_shifting(self, tag: str) -> bool:
        del tag
        return self.takes_traffic

    def state(self) -> State:
        """The next of its states, the last one for ever."""
        return self.states.pop(0) if len(self.states) > 1 else self.states[0]

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


@given(
    st.lists(st.tuples(st.sampled_from(WORDS), st.integers(0, 9), st.integers(1, 9)), min_size=1, max_size=5),
    st.sampled_from(["released", "undone"]),
)
def test_of_several_runs_the_worst_is_shown(runs: list[tuple[str, int, int]], expected: Any) -> None:
    accident = replace(QUIET, expected_outcome=expected)
    order = [expected, next(word for word in ("released", "undone") if word != expected), "stuck", "wrong code"]
    measured = [
        replace(CELL, outcome=word, failed=failed, settled_seconds=seconds, contradictions=[f"{word} {failed}"])
        for word, failed, seconds in runs
    ]
    chosen = cells.worst(measured, accident)
    assert [run["outcome"] for run in chosen.runs] == [word for word, *_ in runs]
    assert list(chosen.contradictions) == [f"{word} {failed}" for word, failed, _ in runs]
    for word, failed, seconds in runs:
        shown = (order.index(chosen.outcome), chosen.failed, chosen.settled_seconds)
        assert shown >= (order.index(word), failed, seconds)


def test_a_cell_names_only_some_of_many_contradictions() -> None:
    chosen = cells.worst([replace(CELL, contradictions=["a"] * 4)] * 3, QUIET)
    assert len(chosen.contradictions) == cells.MAX_CONTRADICTIONS


def problems(*measured: Cell, curves: Sequence[Any] = (), undone: Sequence[Any] = ()) -> list[str]:
    found: list[str] = assembly.figures(measured, curves, undone)["problems"]
    return found


@given(st.sampled_from(ACCIDENTS), st.sampled_from(WORDS), st.integers(0, 300), st.booleans())
def test_ours_is_held_to_what_was_said_before(accident: Accident, word: str, failed: int, is_ours: Any) -> None:
    cell = replace(CELL, system=OURS if is_ours else "legacy", accident=accident.name, outcome=word, failed=failed)
    wrong = failed > accident.expected_failed or word != accident.expected_outcome
    assert sum("were expected" in line for line in problems(cell)) == (wrong if is_ours else 0)


def test_a_matrix_in_which_nobody_fails_proves_nothing() -> None:
    assert problems(CELL, replace(CELL, system="legacy", failed=40)) == []
    assert "too fast for a proof" in problems(CELL)[0]
    assert "too fast for a proof" in problems(CELL, replace(CELL, system="legacy"))[0]


PROOF = (CELL, replace(CELL, system="legacy", failed=40))
"""Cells in which there is nothing to find fault with."""


def points(**failed: int) -> list[dict[str, Any]]:
    """Return a curve's points, `at_2=3` for three failures at twice the delay."""
    return [{"ratio": int(name[3:]), "sent": 700, "failed": count} for name, count in failed.items()]


def test_the_proof_rests_on_a_system_that_drains() -> None:
    old = {"system": "legacy", "points": points(at_1=9, at_3=200)}
    fast = {"system": "patched", "points": points(at_1=0, at_3=0)}
    slow = {"system": "rolling", "points": points(at_1=0, at_3=1)}
    (problem,) = problems(*PROOF, curves=[old, fast])
    assert "too fast for a proof" in problem
    assert problems(*PROOF, curves=[old, fast, slow]) == []
    early = {"system": "rolling", "points": points(at_1=5, at_3=0)}
    assert "at 3 times the budgeted delay" in problems(*PROOF, curves=[old, early])[0]


def test_ours_fails_nothing_where_the_load_balancer_is_as_budgeted() -> None:
    assert problems(*PROOF, curves=[{"system": OURS, "points": points(at_1=0, at_2=4)}]) == []
    (problem,) = problems(*PROOF, curves=[{"system": OURS, "points": points(at_1=2, at_2=4)}])
    assert "1 times as late as budgeted: 2 requests" in problem


@pytest.mark.parametrize("system", [OURS, OursKept.title])
def test_ours_goes_back_within_its_goal(system: str) -> None:
    assert problems(*PROOF, undone=[{"system": system, "seconds": float(GOAL_SECONDS)}]) == []
    assert "at most 60 s" in problems(*PROOF, undone=[{"system": system, "seconds": GOAL_SECONDS + 0.1}])[0]
    assert problems(*PROOF, undone=[{"system": "legacy", "seconds": 900.0}]) == []


def test_an_accident_without_ours_proves_nothing() -> None:
    (problem,) = problems(*PROOF, replace(CELL, system="patched", accident="slow"))
    assert problem == f"{ACCIDENTS[1].title}: this program was not run, others were"


@pytest.mark.parametrize("system", [OURS, "argo-canary"])
def test_what_clients_and_records_saw_differently_is_named(system: str) -> None:
    cell = replace(CELL, system=system, accident="two", contradictions=["a: client HTTP 200, load balancer HTTP 502"])
    found = problems(*PROOF, cell, replace(CELL, accident="two"))
    assert [line for line in found if "client HTTP 200" in line] == found
    assert found[0].startswith("two releases at once, ")


def test_every_run_of_ours_is_held_to_what_was_said_before() -> None:
    runs = [*cells.runs(CELL), *cells.runs(replace(CELL, failed=3))]
    (problem,) = problems(replace(CELL, runs=runs), PROOF[1])
    assert "3 requests failed" in problem


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
    assert "| nothing goes wrong | 0 of 100 failed, 70 s, released | not run |" in text
    assert text.count("not run") == 2 * len(ACCIDENTS) - 1
    assert "failed, given up after 300 s, released" in cells.table(
        [replace(CELL, given_up=True)], {OURS: "this program"}
    )


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
    assert done == ["nothing", "bad-version", "slow"]
    assert "killed" in first.broken[OURS], "a system that can't go on is left out, and it is said"
    second = stage(tmp_path, monkeypatch, run)
    second.run([system], ACCIDENTS[:3])
    assert done == ["nothing", "bad-version", "slow", "slow"]
    second.run([system], ACCIDENTS[:3])
    assert len(done) == 4
    second.run([system], ACCIDENTS[:1], runs=3)
    assert done[4:] == ["nothing"] * 2
    assert [len(cells.runs(cell)) for cell in cells.read(tmp_path / "cells")] == [1, 3, 1]


class DoneRelease(Release):
    """A release whose tool has ended."""

    def run(self) -> float:
        return self.began + 1


BAD_VERSION = next(accident for accident in ACCIDENTS if accident.name == "bad-version")


@pytest.mark.parametrize(
    ("accident", "end", "mended"),
    [
        (BAD_VERSION, State("v1.0.0", settled=True), False),
        (BAD_VERSION, State("v1.1.0", settled=True), True),
        (BAD_VERSION, State("v1.0.0", settled=True, unfinished="Degraded"), True),
        (BAD_VERSION, State("v1.0.0", settled=False), True),
        (QUIET, State("v1.1.0", settled=True), False),
    ],
)
def test_a_system_is_mended_unless_it_serves_a_good_version_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accident: Accident, end: State, mended: Any
) -> None:
    asked: list[str] = []
    system, made = FakeSystem(), Stage(config.Twin("x", 1, tmp_path, tmp_path, True), tmp_path / "run", tmp_path)
    system.states = [State("v1.0.0", settled=True)]
    monkeypatch.setattr(matrix, "Release", DoneRelease)
    monkeypatch.setattr(matrix.time, "sleep", lambda _: None)
    monkeypatch.setattr(made, "_load", lambda _: contextlib.nullcontext(SimpleNamespace(stop=list)))
    monkeypatch.setattr(made, "_wait_until_settled", lambda *_: Rest(end, 2e9, given_up=not end.settled))
    monkeypatch.setattr(made, "_mend", lambda _: asked.append("mend"))
    different = [f"request {number}" for number in range(9)]
    monkeypatch.setattr(made._bench, "contradictions_of", lambda _, name: asked.append(name) or different)
    cell = made._release(cast("Any", system), accident)
    assert asked == ["its-own", *(["mend"] if mended else [])]
    assert cell.contradictions == different[: cells.MAX_CONTRADICTIONS]
    assert cell.given_up == (not end.settled)
    assert cell.fingerprint == cells.fingerprint(cast("Any", system), accident)


def test_systems_release_at_once_but_for_accidents_of_the_whole_twin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, most = set(), {}
    delays = [1.0]

    def run(system: Any, accident: Accident) -> Cell:
        running.add(system.name)
        assert delays[-1] == accident.delay_ratio
        most[accident.name] = max(most.get(accident.name, 0), len(running))
        time.sleep(0.2)
        running.discard(system.name)
        return replace(CELL, system=system.name, accident=accident.name)

    systems = [cast("Any", FakeSystem()), cast("Any", FakeSystem())]
    systems[1].name = "legacy"
    made = stage(tmp_path, monkeypatch, run)
    monkeypatch.setattr(matrix.Bench, "set_delays", lambda _, ratio, *__: delays.append(ratio))
    made.run(systems, ACCIDENTS)
    assert delays[-1] == 1.0
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


@pytest.mark.parametrize("at_shift", [False, True])
def test_an_accident_that_never_came_is_no_cell(at_shift: Any) -> None:
    """A pod that is ready is not yet a shift, nor the other way round."""
    system = FakeSystem(is_ready=at_shift, takes_traffic=not at_shift)
    with pytest.raises(TwinError, match="before the moment"):
        release(system, replace(QUIET, fault="throttle", at_shift=at_shift)).run()


def test_a_fault_comes_when_its_title_says() -> None:
    assert {accident.name for accident in ACCIDENTS if accident.at_shift} == {
        accident.name for accident in ACCIDENTS if re.search("as the shift begins|at the shift", accident.title)
    }


GOOD, MOVING = State("v1.1.0", settled=True), State("v1.1.0", settled=False)


@pytest.mark.parametrize(
    ("states", "failed_at", "given_up", "mark"),
    [
        ([GOOD], 0.0, False, "settled"),
        ([MOVING, GOOD], 0.0, False, "settled"),
        ([GOOD], 1e12, True, "requests still fail"),
        ([MOVING], 0.0, True, "still moving"),
    ],
)
def test_a_release_that_does_not_come_to_rest_is_given_up(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    states: list[State],
    failed_at: float,
    given_up: Any,
    mark: str,
) -> None:
    monkeypatch.setattr(matrix, "SETTLED_SECONDS", 3)
    load = SimpleNamespace(failures=[Outcome("page", "a", 0.0, failed_at, failure="closed")] if failed_at else [])
    system = FakeSystem()
    system.states = list(states)
    made = stage(tmp_path, monkeypatch, lambda *_: CELL)
    rest = made._wait_until_settled(cast("Any", system), cast("Any", load))
    assert (rest.given_up, rest.mark) == (given_up, mark)
    assert rest.at <= time.time()


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


@pytest.mark.parametrize("kind", [charts.Legacy, charts.Patched])
def test_a_chart_s_way_back_leads_to_what_served_before_and_not_to_what_lost(
    kind: type[charts.Chart], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed: list[str] = []
    images = SimpleNamespace(push=lambda content, *_, **__: pushed.append(content), edits=lambda _: {})
    chart = kind(
        cast("Any", config.Twin("x", 1, tmp_path, tmp_path, True)), tmp_path, cast("Any", images), SHORT_BUDGET
    )
    serving = iter(["v1.0.0", "", "v1.1.0"])  # two at once, of which the first came through; then another one
    monkeypatch.setattr(kind, "state", lambda _: State(next(serving), settled=True))
    for name in ("_start", "_release", "_rollback", "_upgrade"):
        monkeypatch.setattr(kind, name, lambda *_, **__: [])
    for tag in ("v1.1.0", "v1.2.0"):
        chart.start(tag)
    assert chart._former == "v1.0.0"
    chart.start("v1.3.0")
    if isinstance(chart, charts.Patched):
        chart._last_tag = "v1.3.0"
    chart.undo()
    assert pushed == ["v1.1.0"]
