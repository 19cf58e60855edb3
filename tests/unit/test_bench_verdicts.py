"""Judgement of the matrix's cells, against rules written down once more."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from bench import schema, verdicts
from bench.schema import Document
from bench.verdicts import Severity, severity
from bench.workloads import SHORT_MIX

OUTCOMES = ("released", "undone", "stuck", "wrong code", "unsupported")
SYSTEMS = ("legacy", "argo-canary", "ours")
EXPECTED = {"nothing": "released", "bad-version": "undone"}

CELL = st.fixed_dictionaries(
    {
        "sent": st.integers(1, 500),
        "failed": st.integers(0, 20),
        "settled_seconds": st.floats(1, 900),
        "outcome": st.sampled_from(OUTCOMES),
    }
)
MATRIX = st.dictionaries(st.tuples(st.sampled_from(sorted(EXPECTED)), st.sampled_from(SYSTEMS)), CELL)


def read(cells: dict[tuple[str, str], dict[str, Any]]) -> Document:
    return schema.read(
        {
            "schema": 2,
            "accidents": [{"name": name, "title": name, "expected_outcome": word} for name, word in EXPECTED.items()],
            "systems": [{"name": name, "title": name} for name in SYSTEMS],
            "cells": [{"accident": accident, "system": system, **cell} for (accident, system), cell in cells.items()],
        }
    )


def is_wrong(accident: str, cell: dict[str, Any]) -> bool:
    if cell["outcome"] == "released":
        return EXPECTED[accident] == "undone"
    return cell["outcome"] in {"stuck", "wrong code"}


@given(MATRIX)
def test_a_cell_is_as_bad_as_its_outcome_and_then_as_its_failures(cells: dict[tuple[str, str], dict[str, Any]]) -> None:
    judged = read(cells)
    for accident in judged.accidents:
        for system in SYSTEMS:
            cell = cells.get((accident.name, system))
            kind = severity(judged.cell(accident.name, system), accident)
            if cell is None:
                assert kind is Severity.NOT_RUN
            elif cell["outcome"] == "unsupported":
                assert kind is Severity.UNSUPPORTED
            elif is_wrong(accident.name, cell):
                assert kind is Severity.WRONG
            elif cell["failed"] == 0:
                assert kind is Severity.FINE
            else:
                assert kind is (Severity.MANY if cell["failed"] >= 12 else Severity.FEW)


@given(MATRIX)
def test_a_peer_is_as_good_where_it_loses_no_more_and_leaves_nothing_to_mend(
    cells: dict[tuple[str, str], dict[str, Any]],
) -> None:
    wanted = []
    for accident in EXPECTED:
        ours = cells.get((accident, "ours"), {"outcome": "unsupported"})
        for system in SYSTEMS[:-1]:
            peer = cells.get((accident, system), {"outcome": "unsupported"})
            if "unsupported" in {ours["outcome"], peer["outcome"]} or peer["failed"] > ours["failed"]:
                continue
            if not is_wrong(accident, peer) or is_wrong(accident, ours):
                wanted.append((accident, system, peer["settled_seconds"] < 0.9 * ours["settled_seconds"]))
    found = [(each.accident.name, each.peer.system, each.quicker) for each in verdicts.peers_as_good(read(cells))]
    assert found == wanted


@given(MATRIX)
def test_a_summary_adds_up_what_was_run(cells: dict[tuple[str, str], dict[str, Any]]) -> None:
    for system in SYSTEMS:
        run = {key: cell for key, cell in cells.items() if key[1] == system and cell["outcome"] != "unsupported"}
        summary = verdicts.summary(read(cells), system)
        assert summary.run == len(run)
        assert summary.failed == sum(cell["failed"] for cell in run.values())
        assert summary.sent == sum(cell["sent"] for cell in run.values())
        assert summary.losing == sum(cell["failed"] > 0 for cell in run.values())
        assert summary.wrong == sum(is_wrong(key[0], cell) for key, cell in run.items())


def test_many_is_a_second_of_the_load() -> None:
    assert sum(stream.rate for stream in SHORT_MIX) == verdicts.MANY_FAILED == 12


@given(MATRIX)
def test_what_was_said_before_is_broken_by_more_failures_or_another_outcome(
    cells: dict[tuple[str, str], dict[str, Any]],
) -> None:
    wanted = {
        accident
        for (accident, system), cell in cells.items()
        if system == "ours" and (cell["failed"] > 0 or cell["outcome"] != EXPECTED[accident])
    }
    assert {cell.accident for cell in verdicts.broken_expectations(read(cells))} == wanted


RUN = st.fixed_dictionaries(
    {
        "sent": st.just(100),
        "failed": st.sampled_from([0, 0, 1]),
        "settled_seconds": st.just(9.0),
        "outcome": st.sampled_from(["released", "released", "undone"]),
    }
)


@given(st.lists(RUN, min_size=1, max_size=4))
def test_each_run_has_to_keep_what_was_said(runs: list[dict[str, Any]]) -> None:
    good = {"sent": 100, "failed": 0, "settled_seconds": 9.0, "outcome": "released"}
    document = read({("nothing", "ours"): {**good, "runs": runs}})
    broken = [run for run in runs if run["failed"] or run["outcome"] != "released"]
    assert bool(verdicts.broken_expectations(document)) == bool(broken)
    found = verdicts.broken_runs(document.cells[0], document.accidents[0])
    assert [(run.failed, run.outcome) for run in found] == [(run["failed"], run["outcome"]) for run in broken]
