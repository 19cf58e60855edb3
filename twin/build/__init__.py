"""Every program of the twin, built or unpacked into the cache; nothing is installed on the machine."""

from __future__ import annotations

import time
from pathlib import Path

from twin.build import cache, debian, golang
from twin.config import Twin

ALWAYS = ("kubernetes", "pulumi", "pulumi-language-python", "helm", "external-secrets", "coredns")
WITH_ROOT = ("pause",)
SIMULATED = ("kwok",)


def needed(twin: Twin) -> tuple[str, ...]:
    """Names of the Go programs that this twin uses."""
    return ALWAYS + (SIMULATED if twin.simulated else WITH_ROOT)


def directory(twin: Twin, name: str) -> Path:
    """The cache folder of a Go program, built first if need be."""
    return cache.ensure(twin.cache, golang.part(name))


def program(twin: Twin, name: str) -> Path:
    """Path of a Go program's binary: kube-apiserver, kubelet, kubectl, pulumi, helm, coredns, external-secrets and others."""
    owners = {link: owner.name for owner in golang.programs().values() for link in (*owner.links, owner.binary)}
    return directory(twin, owners[name]) / "bin" / name


def debian_root(twin: Twin) -> Path:
    """Root of the unpacked Debian packages."""
    return cache.ensure(twin.cache, debian.part(with_root=not twin.simulated)) / "root"


def debian_environment(twin: Twin) -> dict[str, str]:
    """Environment for a program below :func:`debian_root`."""
    return debian.environment(debian_root(twin))


def debian_program(twin: Twin, name: str) -> Path:
    """Path of an unpacked Debian program; start it with :func:`debian_environment`."""
    root = debian_root(twin)
    for folder in ("usr/sbin", "usr/bin", "usr/lib/postgresql/15/bin", "usr/lib/cni"):
        found = root / folder / name
        if found.exists() or found.is_symlink():
            return found
    raise FileNotFoundError(f"{name} is in none of the unpacked Debian packages below {root}")


def path_directories(twin: Twin) -> list[Path]:
    """What a person's PATH needs before everything else: pulumi, its language host, kubectl, helm, aws."""
    names = ("pulumi", "pulumi-language-python", "kubernetes", "helm")
    return [directory(twin, name) / "bin" for name in names]


def everything(twin: Twin) -> None:
    """Build all that tests and ``make up`` need, with and without root, and print how long each part took."""
    started = time.monotonic()
    names = ALWAYS + SIMULATED + (() if twin.simulated else WITH_ROOT)
    debian_root(twin)
    for name in names:
        directory(twin, name)
    print(f"every program is in {twin.cache} ({time.monotonic() - started:.0f} s)")
