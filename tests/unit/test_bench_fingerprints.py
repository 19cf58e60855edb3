"""Fingerprints of the bench's figures: each file that decides a system changes its own, and a page names those of other days."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from bench import assembly, cells, curve, fingerprints, page
from bench.accidents import ACCIDENTS
from bench.curve import Point
from bench.systems import ARGO_BLUE_GREEN, ARGO_CANARY, LEGACY, OURS, PATCHED, ROLLING
from bench.undo import OursKept
from tests.unit.test_bench_matrix import CELL
from twin.paths import REPOSITORY

CHARTS, ARGO = {LEGACY, ROLLING, PATCHED}, {ARGO_CANARY, ARGO_BLUE_GREEN}
ALL = CHARTS | ARGO | {OURS}
DECIDES = {
    "infra/release/traffic_shift.py": {OURS},
    "infra/production.py": {OURS},
    "Pulumi.yaml": {OURS},
    "bench/ours.py": {OURS},
    "legacy/helm/shopcat/templates/deployment.yaml": CHARTS,
    "patches/02-pods-leave-in-peace.diff": CHARTS,
    "bench/charts.py": CHARTS,
    "bench/argo.py": ARGO,
    "app_docker/Dockerfile": ALL,
    "twin/application/shopcat/__main__.py": ALL,
    "bench/workloads.py": ALL,
    "twin/loadbalancer/parameters.yaml": ALL,
    "bench/page.py": set(),
    "twin/application/shopcat/__pycache__/__main__.cpython-311.pyc": set(),
    "README.md": set(),
}
"""File → systems whose figures it makes old."""


def every(root: Path) -> dict[str, dict[str, str]]:
    kinds = {
        "cell": lambda name: fingerprints.of_cell(name, "tuned", ACCIDENTS[0], root),
        "curve": lambda name: fingerprints.of_curve(name, "tuned", root),
        "undo": lambda name: fingerprints.of_undo(name, "title", "tuned", root),
    }
    return {kind: {name: function(name) for name in sorted(ALL)} for kind, function in kinds.items()}


def write(root: Path, file: str, text: str) -> None:
    path = root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize("file", DECIDES)
def test_a_file_changes_the_fingerprints_of_the_systems_that_it_decides(tmp_path: Path, file: str) -> None:
    for each in DECIDES:
        write(tmp_path, each, "before")
    before = every(tmp_path)
    write(tmp_path, file, "after")
    for kind, values in every(tmp_path).items():
        assert {name for name in ALL if values[name] != before[kind][name]} == DECIDES[file], kind


def test_every_pattern_names_files_of_this_repository() -> None:
    patterns = {*fingerprints._EVERY_SYSTEM, *(each for files in fingerprints._FILES.values() for each in files)}
    assert [pattern for pattern in patterns if not any(REPOSITORY.glob(pattern))] == []
    assert set(fingerprints._FILES) == ALL == {system.name for system in assembly.SYSTEMS}


def test_a_fingerprint_is_of_what_was_asked_too(tmp_path: Path) -> None:
    first = fingerprints.of_cell(OURS, "tuned", ACCIDENTS[0], tmp_path)
    assert first == fingerprints.of_cell(OURS, "tuned", ACCIDENTS[0], tmp_path)
    assert first != fingerprints.of_cell(OURS, "otherwise", ACCIDENTS[0], tmp_path)
    assert first != fingerprints.of_cell(OURS, "tuned", ACCIDENTS[1], tmp_path)
    assert fingerprints.of_undo(OURS, "a", "", tmp_path) != fingerprints.of_undo(OURS, "b", "", tmp_path)


# Figures of other days ---------------------------------------------------------------------------------------------------


def figures(*, stale: bool) -> dict[str, Any]:
    systems = {each.name: each for each in assembly.SYSTEMS}

    def mark(fingerprint: str) -> str:
        return "of another day" if stale else fingerprint

    measured = [
        replace(CELL, fingerprint=mark(cells.fingerprint(cast("Any", systems[OURS]), ACCIDENTS[0]))),
        replace(CELL, accident="no accident any more", fingerprint="of another day"),
    ]
    curves = [
        {
            "system": LEGACY,
            "points": [{"ratio": 1.0, "sent": 9, "failed": 1}],
            "fingerprint": mark(fingerprints.of_curve(LEGACY, systems[LEGACY].tuned)),
        }
    ]
    kept = fingerprints.of_undo(OURS, OursKept.title, OursKept.tuned)
    undone = [{"system": OursKept.title, "seconds": 9.0, "sent": 3, "fingerprint": mark(kept)}]
    return assembly.figures(measured, curves, undone)


def test_a_report_names_the_figures_of_other_code_and_keeps_them() -> None:
    assert figures(stale=False)["stale"] == []
    assert "measured before" not in page.draw(figures(stale=False))
    old = figures(stale=True)
    assert old["stale"] == [
        "nothing goes wrong: this program",
        "a pod leaves while the load balancer is late: old chart",
        "a bad release is undone: this program, keepFormer",
    ]
    assert [len(old[kind]) for kind in ("cells", "curve", "undo")] == [2, 1, 1]
    drawn = page.draw(old)
    assert "3 of these figures were measured before" in drawn
    assert all(f"<li>{text}" in drawn for text in old["stale"])


def test_figures_without_a_fingerprint_are_of_another_day() -> None:
    entry = {"system": OURS, "points": []}
    assert assembly.stale([], [entry], []) == ["a pod leaves while the load balancer is late: this program"]


def test_a_curve_is_measured_again_when_it_was_of_other_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[list[str]] = []

    def measure(_: object, loads: Mapping[str, Any], systems: list[Any]) -> dict[str, list[Point]]:
        assert set(loads) == {system.name for system in systems}
        measured.append([system.name for system in systems])
        return {system.name: [Point(1.0, 9, 0)] for system in systems}

    monkeypatch.setattr(curve, "measure", measure)
    systems: list[Any] = [each for each in assembly.SYSTEMS if each.name in {LEGACY, OURS}]
    loads: Any = {system.name: contextlib.nullcontext() for system in systems}
    bench = cast("Any", None)
    curve.run(bench, loads, systems, tmp_path)
    curve.run(bench, loads, systems, tmp_path)
    file = tmp_path / f"{OURS}.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "fingerprint": "of another day"}))
    curve.run(bench, loads, systems, tmp_path)
    assert measured == [[LEGACY, OURS], [OURS]]
    assert assembly.stale([], curve.read(tmp_path), []) == []
