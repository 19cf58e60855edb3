"""Debian packages unpacked into the cache, never installed: nothing of the machine's is started, stopped or replaced.

apt runs with lists, archives and configuration of its own, so it needs no root and leaves the machine's apt alone.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from twin.build.cache import BuiltPart, Step
from twin.errors import TwinError

PACKAGES = ("etcd-server", "haproxy", "docker-registry", "postgresql-15", "postgresql-client-15")
ROOT_PACKAGES = (
    "containerd",
    "runc",
    "containernetworking-plugins",
    "buildah",
    "debootstrap",
    "iptables",
    "conntrack",
    "iproute2",
    "patchelf",
)
_SUITE = "bookworm"
_LEFT_OUT = ("libc6_", "libc-bin_", "locales_")  # the machine's own C library fits its own loader


def _sources() -> str:
    """The machine's own Debian mirror if it names one for this suite, else Debian's."""
    candidates = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    for path in candidates:
        try:
            text = path.read_text()
        except OSError:
            continue
        deb822 = re.search(r"^URIs:\s*(\S+/debian)/?\s*$", text, re.MULTILINE)
        line = re.search(rf"^deb\s+(?:\[[^\]]*\]\s+)?(\S+/debian)/?\s+{_SUITE}\s", text, re.MULTILINE)
        entry = deb822 or line
        if entry:
            return f"deb {entry.group(1)} {_SUITE} main\n"
    return f"deb http://deb.debian.org/debian {_SUITE} main\n"


def unpack(packages: tuple[str, ...], step: Step, *, leave_out: tuple[str, ...] = ()) -> None:
    """Download the packages and all they depend on, and unpack them into ``step.directory / "root"``.

    ``leave_out`` are beginnings of archive names. No maintainer script runs.

    Raises:
        TwinError: apt-get or dpkg-deb is missing or failed.
    """
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise TwinError(f"{tool} is missing; the twin unpacks Debian packages and needs a Debian machine")
    apt = step.directory / "apt"
    for name in ("lists/partial", "archives/partial", "etc/preferences.d", "etc/apt.conf.d"):
        (apt / name).mkdir(parents=True)
    (apt / "etc" / "sources.list").write_text(_sources())
    # An empty status file makes apt fetch every dependency, so the result doesn't depend on what is installed.
    (apt / "status").write_text("")
    options = {
        "Dir::State": apt,
        "Dir::State::lists": apt / "lists",
        "Dir::State::status": apt / "status",
        "Dir::Cache": apt,
        "Dir::Cache::archives": apt / "archives",
        "Dir::Etc::sourcelist": apt / "etc" / "sources.list",
        "Dir::Etc::sourceparts": "-",
        "Dir::Etc::preferencesparts": apt / "etc" / "preferences.d",
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "root",
        "Debug::NoLocking": "true",
        "Acquire::Languages": "none",
        "Acquire::Retries": "3",
    }
    flags = [f"--option={name}={value}" for name, value in options.items()]
    step.run(["apt-get", *flags, "update"])
    step.run(["apt-get", *flags, "--yes", "--download-only", "install", *packages])
    root = step.directory / "root"
    # Debian 12 keeps /bin, /lib and /sbin as links into /usr; packages that ship files there must land behind them.
    for name in ("bin", "lib", "sbin", "lib64"):
        (root / "usr" / name).mkdir(parents=True, exist_ok=True)
        (root / name).symlink_to(f"usr/{name}")
    for archive in sorted((apt / "archives").glob("*.deb")):
        if leave_out and archive.name.startswith(leave_out):
            continue
        # Through tar: dpkg-deb --extract would replace the links above by folders.
        unpack = f'dpkg-deb --fsys-tarfile "{archive}" | tar -x -C "{root}" --keep-directory-symlink --no-same-owner'
        step.run(["bash", "-o", "pipefail", "-c", unpack])
    shutil.rmtree(apt)


def _programs(packages: tuple[str, ...], step: Step) -> None:
    unpack(packages, step, leave_out=_LEFT_OUT)
    # The names that Debian's alternatives would make when it installs the package.
    sbin = step.directory / "root" / "usr" / "sbin"
    for name in ("iptables", "ip6tables"):
        for suffix in ("", "-save", "-restore"):
            if (sbin / "xtables-nft-multi").exists() and not (sbin / f"{name}{suffix}").exists():
                (sbin / f"{name}{suffix}").symlink_to("xtables-nft-multi")


def part(*, with_root: bool) -> BuiltPart:
    """The unpacked packages; with those that only root can use, or without."""
    packages = (*PACKAGES, *ROOT_PACKAGES) if with_root else PACKAGES
    name = "debian" if with_root else "debian-small"
    return BuiltPart(name, _SUITE, f"6 {' '.join(packages)}", lambda step: _programs(packages, step))


def ipset() -> BuiltPart:
    """The ipset package, in which the enforcer of NetworkPolicies keeps addresses; only tests need it."""
    return BuiltPart("debian-ipset", _SUITE, "1 ipset", lambda step: unpack(("ipset",), step, leave_out=_LEFT_OUT))


def environment(root: Path) -> dict[str, str]:
    """Environment in which an unpacked program finds its libraries and the other unpacked programs."""
    libraries = [root / "usr/lib/x86_64-linux-gnu", root / "usr/lib/aarch64-linux-gnu", root / "usr/lib"]
    directories = [str(path) for path in libraries if path.is_dir()]
    path = [str(root / "usr/sbin"), str(root / "usr/bin"), os.environ.get("PATH", "")]
    return {"LD_LIBRARY_PATH": os.pathsep.join(directories), "PATH": os.pathsep.join(path)}


def self_starting(root: Path, name: str, target: Path) -> Path:
    """A copy of an unpacked program that finds its libraries without LD_LIBRARY_PATH.

    For programs that start themselves again with an empty environment from a copy in memory, as buildah does: neither
    the variable nor a path relative to the program would be found then, so the library path is written into the copy.
    """
    if not target.exists():
        search = environment(root)["LD_LIBRARY_PATH"]
        partial = target.with_suffix(".partial")
        shutil.copy(root / "usr/bin" / name, partial)
        subprocess.run(
            [root / "usr/bin/patchelf", "--force-rpath", "--set-rpath", search, partial],
            env=environment(root),
            check=True,
        )
        partial.rename(target)
    return target
