"""Parts start after those they need, side by side where they can, and none starts once one has failed."""

import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from twin import parts
from twin.config import PartStatus, Twin
from twin.errors import TwinError


@dataclass
class Fake:
    """A part's module that remembers; it can wait for an event, or fail."""

    title: str
    seen: list[str]
    gate: threading.Event | None = None
    fails: bool = False

    def up(self, twin: Twin) -> None:
        del twin
        if self.gate is not None:
            assert self.gate.wait(10)
        if self.fails:
            raise TwinError(f"{self.title} is broken")
        self.seen.append(self.title)

    def down(self, twin: Twin) -> None:
        """Nothing."""

    def status(self, twin: Twin) -> list[PartStatus]:
        del twin
        return []


@dataclass
class World:
    twin: Twin
    seen: list[str] = field(default_factory=list)
    modules: dict[str, Fake] = field(default_factory=dict)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(Twin("x", 3, tmp_path, tmp_path, simulated=True))
    order = [("a", ()), ("b", ("a",)), ("c", ("a",)), ("d", ("b", "c"))]
    monkeypatch.setattr(parts, "PARTS", tuple(parts.Part(title, title, after) for title, after in order))
    made.modules = {title: Fake(title, made.seen) for title, _ in order}
    monkeypatch.setattr(parts.importlib, "import_module", lambda name: made.modules[name])
    return made


def test_each_part_follows_those_it_needs(world: World) -> None:
    parts.up(world.twin)
    assert world.seen[0] == "a"
    assert world.seen[-1] == "d"
    assert sorted(world.seen) == ["a", "b", "c", "d"]


def test_what_may_come_later_is_not_waited_for(world: World) -> None:
    gate = world.modules["d"].gate = threading.Event()
    rest = parts.begin(world.twin, later=("d",))
    assert sorted(world.seen) == ["a", "b", "c"]
    gate.set()
    rest()
    assert world.seen[-1] == "d"


def test_a_failed_part_stops_those_that_need_it_and_is_what_is_said(world: World) -> None:
    world.modules["b"].fails = True
    with pytest.raises(TwinError, match="b is broken"):
        parts.begin(world.twin, later=("d",))
    assert "d" not in world.seen


def test_a_later_part_that_fails_is_said_when_it_is_waited_for(world: World) -> None:
    world.modules["d"].fails = True
    rest = parts.begin(world.twin, later=("d",))
    with pytest.raises(TwinError, match="d is broken"):
        rest()
