"""A cgroup tree per node: ``/<node>/kubepods`` for its pods, ``/<node>/runtime`` for its daemons and shims.

Both layouts work: hybrid or legacy (a folder under each v1 hierarchy) and unified (v2 alone). The tree is found by its
name, so whatever a crashed run left in it is found too; only processes inside it are ever killed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from pathlib import Path

from twin.config import Twin
from twin.errors import TwinError
from twin.host import undo

_WANTED_CONTROLLERS = ("cpu", "cpuset", "io", "memory", "pids")
_KILL_SECONDS = 20.0
_CONTROLLERS_ENABLED = "cgroup v2 controllers"
_MOUNTS = Path("/proc/self/mounts")


def name(twin: Twin, node: int) -> str:
    """The node's folder below the root of each hierarchy."""
    return twin.netns(node)


def hierarchies() -> list[tuple[Path, bool]]:
    """Mount points of all cgroup hierarchies, each with whether it is the v2 one."""
    roots: dict[Path, bool] = {}
    for line in _MOUNTS.read_text().splitlines():
        _, where, kind, *_ = line.split()
        if kind in ("cgroup", "cgroup2"):
            roots[Path(where)] = kind == "cgroup2"
    return sorted(roots.items())


def unified_only() -> bool:
    """Report whether every controller is in the cgroup v2 hierarchy."""
    return all(is_v2 for _, is_v2 in hierarchies())


def _enable_controllers(twin: Twin, root: Path) -> None:
    """Enable the controllers below the root, on a v2-only machine; most of them usually are already."""
    available = (root / "cgroup.controllers").read_text().split()
    switch = root / "cgroup.subtree_control"
    missing = [c for c in _WANTED_CONTROLLERS if c in available and c not in switch.read_text().split()]
    for controller in missing:
        undo.record(twin, _CONTROLLERS_ENABLED, controller)
        try:
            switch.write_text(f"+{controller}")
        except OSError as error:
            undo.forget(twin, _CONTROLLERS_ENABLED, controller)
            raise TwinError(
                f"the cgroup controller {controller!r} can't be enabled in {switch} ({error.strerror}); inside a "
                "container that is usual: run on the machine itself, or with SHOPCAT_TWIN_SIMULATED=1"
            ) from error


def make(twin: Twin, node: int) -> None:
    """Make the node's tree in every hierarchy; what exists is left alone.

    Raises:
        TwinError: no hierarchy is mounted, or it can't be written.
    """
    roots = hierarchies()
    if not roots:
        raise TwinError("no cgroup hierarchy is mounted, so there can be no nodes; SHOPCAT_TWIN_SIMULATED=1 needs none")
    v2_only = unified_only()
    for root, is_v2 in roots:
        if is_v2 and v2_only:
            _enable_controllers(twin, root)
        folder = root / name(twin, node)
        for path in (folder, folder / "runtime"):
            try:
                path.mkdir(exist_ok=True)
            except OSError as error:
                raise TwinError(
                    f"{path} can't be made ({error.strerror}); SHOPCAT_TWIN_SIMULATED=1 needs no cgroups"
                ) from error
            if not is_v2:
                _copy_cpuset(path)
        if is_v2 and v2_only:
            enabled = [c for c in _WANTED_CONTROLLERS if c in (folder / "cgroup.controllers").read_text().split()]
            (folder / "cgroup.subtree_control").write_text(" ".join(f"+{c}" for c in enabled))


def _copy_cpuset(path: Path) -> None:
    """A v1 cpuset starts empty, and nothing can run in it."""
    for file in ("cpuset.cpus", "cpuset.mems"):
        target = path / file
        if target.exists() and not target.read_text().strip():
            target.write_text((path.parent / file).read_text())


def enter(twin: Twin, node: int, pid: int) -> None:
    """Move a process, and what it will start, into the node's ``runtime`` group of every hierarchy."""
    for root, _ in hierarchies():
        # One that has ended meanwhile needs no group; whoever started it will notice.
        with contextlib.suppress(ProcessLookupError):
            (root / name(twin, node) / "runtime" / "cgroup.procs").write_text(str(pid))


def exists(twin: Twin, node: int) -> bool:
    """Report whether any part of the node's cgroup tree exists."""
    return any((root / name(twin, node)).exists() for root, _ in hierarchies())


def _pids(folders: list[Path]) -> set[int]:
    pids: set[int] = set()
    for folder in folders:
        for file in folder.rglob("cgroup.procs"):
            with contextlib.suppress(OSError):
                pids.update(int(line) for line in file.read_text().split())
    return pids - {0, os.getpid()}


def _thaw(folders: list[Path]) -> None:
    """Thaw frozen processes, which under v1 SIGKILL does not end."""
    for folder in folders:
        for file in folder.rglob("freezer.state"):
            with contextlib.suppress(OSError):
                file.write_text("THAWED")


def kill_all(twin: Twin, node: int) -> None:
    """SIGKILL everything inside the node's tree, until it is empty.

    Raises:
        TwinError: something in it can't be killed (it hangs in the kernel).
    """
    folders = [root / name(twin, node) for root, _ in hierarchies() if (root / name(twin, node)).exists()]
    _thaw(folders)
    deadline = time.monotonic() + _KILL_SECONDS
    while pids := _pids(folders):
        if time.monotonic() > deadline:
            listed = ", ".join(str(pid) for pid in sorted(pids))
            raise TwinError(f"processes {listed} in the cgroup {name(twin, node)} don't end; a reboot ends them")
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        time.sleep(0.05)


def _remove_tree(folder: Path) -> None:
    below = sorted((path for path in folder.rglob("*") if path.is_dir()), key=lambda path: -len(path.parts))
    for path in [*below, folder]:
        deadline = time.monotonic() + _KILL_SECONDS
        while True:
            try:
                path.rmdir()
                break
            except FileNotFoundError:
                break
            except OSError as error:
                # The kernel lets go of a group a moment after its last process ended.
                if error.errno != errno.EBUSY or time.monotonic() > deadline:
                    raise TwinError(f"the cgroup {path} can't be removed: {error.strerror}") from error
                time.sleep(0.05)


def remove(twin: Twin, node: int) -> None:
    """Kill what is left inside and remove the node's tree from every hierarchy."""
    kill_all(twin, node)
    for root, _ in hierarchies():
        folder = root / name(twin, node)
        if folder.exists():
            _remove_tree(folder)


def _behind(twin: Twin) -> list[Path]:
    return [root / f"{twin.bridge}-behind" for root, _ in hierarchies()]


def put_behind(twin: Twin, pid: int) -> bool:
    """Let a process, and what it will start, run only while nothing else wants the processor.

    It goes into a group of the kernel's idle class (``cpu.idle``, Linux 5.15), which :func:`remove_behind` removes.

    Returns:
        Whether the machine can do so; if it can't, nothing has changed.
    """
    for folder in _behind(twin):
        with contextlib.suppress(OSError):
            folder.mkdir(exist_ok=True)
            if (folder / "cpu.idle").exists():
                (folder / "cpu.idle").write_text("1")
                (folder / "cgroup.procs").write_text(str(pid))
                return True
            folder.rmdir()
    return False


def remove_behind(twin: Twin) -> None:
    """Remove the group of :func:`put_behind`; what is in it goes on as before."""
    for folder in _behind(twin):
        if folder.exists():
            for pid in _pids([folder]):
                with contextlib.suppress(ProcessLookupError):
                    (folder.parent / "cgroup.procs").write_text(str(pid))
            _remove_tree(folder)


def put_back_controllers(twin: Twin) -> None:
    """Undo :func:`make` at the root, unless another twin needs the controllers now."""
    roots = [root for root, is_v2 in hierarchies() if is_v2]
    for controller in undo.recorded(twin, _CONTROLLERS_ENABLED):
        for root in roots:
            if not any(root.glob("shopcat*-node*")):
                with contextlib.suppress(OSError):
                    (root / "cgroup.subtree_control").write_text(f"-{controller}")
        undo.forget(twin, _CONTROLLERS_ENABLED, controller)
