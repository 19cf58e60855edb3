"""The matrix of accidents: its cells are kept, its words mean what they say, and its edits fit the application."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import matrix
from bench.matrix import ACCIDENTS, Cell, Matrix, read_cells, table
from twin import config
from twin.errors import TwinError
from twin.paths import REPOSITORY

CELL = Cell("ours", "nothing", 100, 0, {}, 60.0, 70.0, "released", "", "2026-11-29")


def test_a_bad_version_is_the_application_with_some_pieces_replaced() -> None:
    source = (REPOSITORY / "twin" / "application" / "shopcat" / "__main__.py").read_text()
    for accident in ACCIDENTS:
        changed = source
        for old, new in accident.edits.items():
            assert source.count(old) == 1
            changed = changed.replace(old, new)
        compile(changed, "main", "exec")


def test_what_is_expected_of_ours_is_said_with_a_reason() -> None:
    assert all(bool(accident.expected_failed) == bool(accident.reason) for accident in ACCIDENTS)
    assert len({accident.name for accident in ACCIDENTS}) == len(ACCIDENTS)


@given(st.sampled_from(["", "old", "new", "other"]), st.sampled_from([0.0, 5.0]))
def test_a_release_is_released_undone_or_stuck(serving: str, settled: float) -> None:
    word = matrix._outcome("new", "old", serving, settled=settled)
    assert word == ("stuck" if not settled else {"new": "released", "old": "undone"}.get(serving, "stuck"))


def test_cells_are_read_back_and_one_that_was_not_run_is_said(tmp_path: Path) -> None:
    cells = [CELL, replace(CELL, system="argo-canary", failed=7, outcome="stuck")]
    for cell in cells:
        (tmp_path / f"{cell.accident}-{cell.system}.json").write_text(json.dumps(asdict(cell)))
    assert sorted(read_cells(tmp_path), key=lambda cell: cell.failed) == cells
    text = table(cells, ACCIDENTS, {"ours": "this program", "argo-canary": "Argo"})
    assert "| nothing | 0 of 100 failed, 70 s, released | 7 of 100 failed, 70 s, stuck |" in text
    assert text.count("not run") == 2 * (len(ACCIDENTS) - 1)


def test_a_run_that_broke_off_goes_on_with_the_cells_that_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    class System:
        name, title, namespace = "ours", "this program", "shopcat"

        def install(self, tag: str) -> None:
            done.append(f"install {tag}")

    def cell(_: Matrix, system: Any, accident: Any) -> Cell:
        done.append(accident.name)
        if accident.name == "throttled" and done.count("throttled") == 1:
            raise TwinError("killed")
        return replace(CELL, system=system.name, accident=accident.name)

    monkeypatch.setattr(Matrix, "_cell", cell)
    twin = config.Twin("x", 1, tmp_path, tmp_path, True)
    runner = Matrix(twin, tmp_path / "run", tmp_path / "cells")
    with pytest.raises(TwinError, match="killed"):
        runner.run(cast("Any", System()), ACCIDENTS)
    assert {cell.accident for cell in read_cells(tmp_path / "cells")} == {"nothing", "slow"}
    before = len(done)
    runner.run(cast("Any", System()), ACCIDENTS)
    assert done[before:] == ["install v1.0.0", "throttled", "bad-version"]
    runner.run(cast("Any", System()), ACCIDENTS)
    assert len(done) == before + 3
