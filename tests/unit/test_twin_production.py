"""Sources of the application's image on the twin."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from twin.config import Twin
from twin.errors import TwinError
from twin.scenarios import production


def application(directory: Path, requirements: str = "one==1.0 --hash=sha256:00\n") -> Path:
    (directory / "shopcat").mkdir(parents=True)
    (directory / "shopcat" / "__main__.py").write_text("")
    (directory / "requirements.txt").write_text(requirements)
    return directory


def pip(monkeypatch: pytest.MonkeyPatch, path: Path, text: str) -> None:
    """A shell script in place of the interpreter that runs pip; it is given pip's arguments."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(path))


def test_twins_that_want_the_same_packages_at_once_all_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = application(tmp_path / "source")
    calls = tmp_path / "calls"
    # Arguments: -m pip download --quiet --require-hashes --only-binary=:all: --dest <folder> …
    pip(monkeypatch, tmp_path / "pip", f'echo called >> {calls}\nsleep 0.3\necho wheel > "$8/one.whl"')
    together = threading.Barrier(3)

    def build(index: int) -> Path:
        together.wait(10)
        twin = Twin(f"twin-{index}", index, tmp_path / "cache", tmp_path / "state", simulated=True)
        return production.build_context(twin, source)

    with ThreadPoolExecutor(3) as pool:
        contexts = list(pool.map(build, range(3)))
    assert len(set(contexts)) == 3
    for context in contexts:
        assert (context / "wheels" / "one.whl").read_text() == "wheel\n"
    assert calls.read_text() == "called\n"
    assert not list((tmp_path / "cache").glob("*partial*"))


def test_packages_that_can_t_be_downloaded_are_said_and_the_next_time_is_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = application(tmp_path / "source")
    twin = Twin("x", 1, tmp_path / "cache", tmp_path / "state", simulated=True)
    pip(monkeypatch, tmp_path / "pip", "echo 'No matching distribution found for one==1.0' >&2\nexit 1")
    with pytest.raises(
        TwinError, match=r"requirements\.txt can't be downloaded(?s:.)*No matching distribution"
    ) as said:
        production.build_context(twin, source)
    assert str(source / "requirements.txt") in str(said.value)
    pip(monkeypatch, tmp_path / "pip", 'echo wheel > "$8/one.whl"')
    assert (production.build_context(twin, source) / "wheels" / "one.whl").exists()


def test_other_packages_are_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    twin = Twin("x", 1, tmp_path / "cache", tmp_path / "state", simulated=True)
    pip(monkeypatch, tmp_path / "pip", 'for last; do :; done\ncp "$last" "$8/asked"')
    for number in ("1.0", "2.0"):
        source = application(tmp_path / number, f"one=={number}\n")
        context = production.build_context(twin, source)
        assert (context / "wheels" / "asked").read_text() == f"one=={number}\n"


def test_a_directory_without_requirements_is_refused_by_name(tmp_path: Path) -> None:
    source = application(tmp_path / "source")
    (source / "requirements.txt").unlink()
    twin = Twin("x", 1, tmp_path / "cache", tmp_path / "state", simulated=True)
    with pytest.raises(TwinError, match=r"has no requirements\.txt; app_docker/README\.md"):
        production.build_context(twin, source)
