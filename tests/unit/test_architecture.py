"""docs/architecture.md names files that exist, and the functions in them."""

import re

import pytest

from twin.paths import REPOSITORY

_DOCUMENT = (REPOSITORY / "docs" / "architecture.md").read_text()
_TABLE = _DOCUMENT.partition("## Where it is decided")[2].partition("\n## ")[0]
_REFERENCE = re.compile(r"`([\w./-]+\.\w+)`(?: \(([^)]*)\))?")


def references() -> list[tuple[str, tuple[str, ...]]]:
    """Return each file of the table with the names that stand in brackets behind it."""
    return [(path, tuple(re.findall(r"`(\w+)`", names))) for path, names in _REFERENCE.findall(_TABLE)]


def test_the_table_has_references() -> None:
    assert len(references()) > 20
    assert any(names for _, names in references())


@pytest.mark.parametrize(("path", "names"), references())
def test_each_file_holds_the_names_that_stand_behind_it(path: str, names: tuple[str, ...]) -> None:
    text = (REPOSITORY / path).read_text()
    assert [name for name in names if not re.search(rf"\b{name}\b", text)] == []
