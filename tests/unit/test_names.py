"""One name, one meaning; and what the layout of infra/ promises."""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
INFRA = ROOT / "infra"
ALLOWED = {
    "main": "the entry of each program that people or workflows start",
}


def defined(path: Path) -> set[str]:
    """Names that a module defines at its top level, its own ones too: a reader meets them all."""
    names: set[str] = set()
    for statement in ast.parse(path.read_text()).body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(statement.name)
        elif isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            names |= {each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)}
    return names


def test_a_name_stands_in_one_module() -> None:
    modules = defaultdict(list)
    for path in sorted([*INFRA.rglob("*.py"), *(ROOT / "pipeline").rglob("*.py")]):
        for name in defined(path):
            modules[name].append(str(path.relative_to(ROOT)))
    twice = {name: found for name, found in modules.items() if len(found) > 1}
    assert {name: found for name, found in twice.items() if name not in ALLOWED} == {}
    assert twice.keys() >= ALLOWED.keys(), "an exception that nothing needs any more"


def test_nothing_in_infra_has_the_name_of_a_module_of_python() -> None:
    """Pulumi puts the folder itself on the path before it runs infra/__main__.py, which takes it off again."""
    names = {path.stem for path in INFRA.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert names & sys.stdlib_module_names == set()


def test_a_package_s_own_file_holds_no_code() -> None:
    long = {
        str(path): count for path in INFRA.rglob("__init__.py") if (count := len(path.read_text().splitlines())) > 50
    }
    assert long == {}
