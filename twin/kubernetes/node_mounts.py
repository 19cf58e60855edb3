"""A node's mount namespace, which a small process holds open.

In it ``/run``, ``/var/log``, ``/var/lib/kubelet`` … are the node's own, so what a kubelet or containerd mounts or leaves
behind never shows on the host, and all mounts end with it. The files through which a kubelet reads the machine's memory and
changes the kernel's settings are covered there too: it sees a t3.medium's memory and the settings it wants, and the
machine's stay as they are.
"""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

from twin.errors import TwinError
from twin.host import cgroups, machine, processes
from twin.kubernetes.node import START_SECONDS, Node
from twin.kubernetes.node_configuration import KERNEL_SETTINGS, OWN_DIRECTORIES, setting_file_name

MARKER = ".made-by-the-shopcat-twin"
"""Name of a file that marks a folder of the machine that twins made to mount on."""


def _mounts_script(node: Node) -> str:
    """Shell script that makes the node's mounts and then sleeps, so that its mount namespace stays open."""
    covered = [("proc/meminfo", "/proc/meminfo")]
    for setting, wanted in KERNEL_SETTINGS.items():
        if Path("/proc/sys", setting).read_text().strip() != wanted:
            covered.append((f"proc/{setting_file_name(setting)}", f"/proc/sys/{setting}"))
    lines = [
        "set -e",
        "mount --make-rshared /",
        "mount -t tmpfs -o mode=755 run /run",
        *(f"mount --bind {shlex.quote(str(node.directory / name))} {path}" for name, path in OWN_DIRECTORIES.items()),
        *(f"mount --bind {shlex.quote(str(node.etc / source))} {target}" for source, target in covered),
        f"touch {shlex.quote(str(node.directory / 'mounted'))}",
        "exec sleep infinity",
    ]
    return "\n".join(lines)


def remove_shared_directories() -> None:
    """The last twin to leave removes the empty folders that twins made as places to mount on.

    Not earlier: removing a folder ends a mount on it in every other mount namespace.
    """
    with machine.places():
        for path in OWN_DIRECTORIES.values():
            marker = path / MARKER
            if marker.exists() and list(path.iterdir()) == [marker] and not machine.mounted(path):
                marker.unlink()
                path.rmdir()


def hold_mounts(node: Node) -> processes.Process:
    """Make the node's mount namespace, or find it: the process that holds it open."""
    twin = node.twin
    role = node.process("mounts")
    running = processes.find(twin, role)
    if running is not None:
        return running
    marker = node.directory / "mounted"
    marker.unlink(missing_ok=True)
    command = ["unshare", "--mount", "--propagation", "slave", "sh", "-c", _mounts_script(node)]
    with machine.places():  # until they are mounted on, another twin could think the folders unused
        for path in OWN_DIRECTORIES.values():
            if not path.exists():
                path.mkdir(parents=True)
                (path / MARKER).touch()
        holder = processes.start(twin, role, command, netns=node.netns)
        cgroups.enter(twin, node.number, holder.pid)
        processes.wait_until(marker.exists, f"mounts of {node.name}", timeout_seconds=START_SECONDS, process=holder)
    return holder


def delete_directory(directory: Path) -> None:
    """Delete a node's files; never through a mount that would lead out of it."""
    if not directory.exists():
        return
    places = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    inside = [place for place in places if Path(place) == directory or directory in Path(place).parents]
    if inside:
        raise TwinError(f"{', '.join(inside)} is still mounted; unmount it, then run `make down` again")
    shutil.rmtree(directory)
