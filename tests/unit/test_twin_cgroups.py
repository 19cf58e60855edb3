"""The cgroup tree of a node on the machine's own v2 hierarchy, as if that were the only one."""

import subprocess
from pathlib import Path

import pytest

from twin import config
from twin.errors import TwinError
from twin.host import cgroups
from twin.kubernetes import node_processes
from twin.paths import is_root


def _v2_root() -> Path | None:
    return next((root for root, is_v2 in cgroups.hierarchies() if is_v2), None)


@pytest.fixture
def twin(tmp_path: Path) -> config.Twin:
    # An index that no twin is given: real ones must not be met.
    return config.Twin("x", 99, tmp_path, tmp_path, simulated=False)


@pytest.fixture
def v2_only(twin: config.Twin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = _v2_root()
    if root is None or not is_root():
        pytest.skip("needs root and a mounted cgroup2 hierarchy")
    mounts = tmp_path / "mounts"
    mounts.write_text(f"cgroup2 {root} cgroup2 rw 0 0\n")
    monkeypatch.setattr(cgroups, "_MOUNTS", mounts)
    # Whatever v2 has here; on a hybrid machine v1 has taken the others.
    available = (root / "cgroup.controllers").read_text().split()
    monkeypatch.setattr(cgroups, "_WANTED_CONTROLLERS", tuple(available[-1:]))
    return root


def test_a_tree_is_made_entered_emptied_and_removed(twin: config.Twin, v2_only: Path) -> None:
    control = v2_only / "cgroup.subtree_control"
    enabled_before = control.read_text()
    cgroups.make(twin, 1)
    cgroups.make(twin, 1)
    for controller in cgroups._WANTED_CONTROLLERS:
        assert controller in (v2_only / cgroups.name(twin, 1) / "cgroup.subtree_control").read_text()
    child = subprocess.Popen(["sleep", "600"])
    cgroups.enter(twin, 1, child.pid)
    assert str(child.pid) in (v2_only / cgroups.name(twin, 1) / "runtime" / "cgroup.procs").read_text()
    cgroups.remove(twin, 1)
    assert child.poll() is not None or child.wait(5) is not None
    assert not cgroups.exists(twin, 1)
    others = any(v2_only.glob("shopcat*-node*"))
    cgroups.put_back_controllers(twin)
    if others:  # a real twin's, of another test that runs now: it may need what was enabled
        assert set(enabled_before.split()) <= set(control.read_text().split())
        for controller in set(cgroups._WANTED_CONTROLLERS) - set(enabled_before.split()):
            control.write_text(f"-{controller}")
    assert control.read_text() == enabled_before
    cgroups.remove(twin, 1)


def test_without_any_hierarchy_the_way_out_is_named(
    twin: config.Twin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "mounts"
    empty.write_text("proc /proc proc rw 0 0\n")
    monkeypatch.setattr(cgroups, "_MOUNTS", empty)
    with pytest.raises(TwinError, match="SHOPCAT_TWIN_SIMULATED=1"):
        cgroups.make(twin, 1)


def test_too_few_inotify_instances_are_said_before_a_kubelet_dies_of_it() -> None:
    node_processes.require_inotify_instances(1)
    with pytest.raises(TwinError, match=r"need 1000000 inotify instances.*max_user_instances"):
        node_processes.require_inotify_instances(1_000_000)


def test_what_is_put_behind_is_of_the_idle_class_and_outlives_its_group(twin: config.Twin) -> None:
    if not is_root():
        pytest.skip("cgroups need root")
    child = subprocess.Popen(["sleep", "600"])
    try:
        if not cgroups.put_behind(twin, child.pid):
            pytest.skip("no cgroup hierarchy here has cpu.idle: Linux before 5.15, or the v2 root hands down no cpu")
        groups = Path(f"/proc/{child.pid}/cgroup")
        assert f"/{twin.bridge}-behind" in groups.read_text()
        assert [(one / "cpu.idle").read_text() for one in cgroups._behind(twin) if one.exists()] == ["1\n"]
        cgroups.remove_behind(twin)
        assert "-behind" not in groups.read_text()
        assert [one for one in cgroups._behind(twin) if one.exists()] == []
        assert child.poll() is None
        cgroups.remove_behind(twin)
    finally:
        child.kill()
        child.wait()
