"""Every program of the twin, built or unpacked into the cache; nothing is installed on the machine."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from twin.build import cache, debian, golang, installed, releases
from twin.config import PartStatus, Twin

ALWAYS = ("kubernetes", "pulumi", "pulumi-language-python", "pulumi-kubernetes", "helm", "external-secrets", "coredns")
FOR_BENCH = ("rollouts-controller",)
FOR_TESTS = ("network-policies",)  # with root, and not part of `make up`
WITH_ROOT = ("pause",)
SIMULATED = ("kwok",)
LINTERS = ("actionlint",)


_BUILD_BYTES = 4 << 30
"""Memory that a build may take: compilers on every processor, or a linker, below 2 GiB each."""


def needed(twin: Twin) -> tuple[str, ...]:
    """Names of the Go programs that this twin uses."""
    return ALWAYS + (SIMULATED if twin.simulated else WITH_ROOT)


def part(twin: Twin, name: str) -> cache.BuiltPart:
    """Choose where a program comes from: Pulumi's as installed, if new enough; a release; else a build from its module."""
    here = installed.pulumi(twin.cache) if name in ("pulumi", "pulumi-language-python") else None
    if here is not None:
        return here
    built = golang.part(name)
    # What is built already asks no publisher: a network that swallows packets would cost each command its time-out.
    return built if built.directory(twin.cache).exists() else releases.part(twin.cache, name) or built


def directory(twin: Twin, name: str) -> Path:
    """The cache folder of a Go program, built first if need be."""
    return cache.ensure(twin.cache, part(twin, name))


def program(twin: Twin, name: str) -> Path:
    """Path of a Go program's binary: kube-apiserver, kubelet, kubectl, pulumi, helm, coredns, external-secrets and others."""
    owners = {link: owner.name for owner in golang.programs().values() for link in (*owner.links, owner.binary)}
    return directory(twin, owners[name]) / "bin" / name


def debian_part(twin: Twin) -> cache.BuiltPart:
    """The unpacked Debian packages; simulated nodes need fewer, but take the full set where it is there already."""
    full = debian.part(with_root=True)
    if not twin.simulated or full.directory(twin.cache).exists():
        return full
    return debian.part(with_root=False)


def debian_root(twin: Twin) -> Path:
    """Root of the unpacked Debian packages."""
    return cache.ensure(twin.cache, debian_part(twin)) / "root"


def debian_environment(twin: Twin) -> dict[str, str]:
    """Environment for a program below :func:`debian_root`."""
    return debian.environment(debian_root(twin))


def debian_program(twin: Twin, name: str) -> Path:
    """Path of an unpacked Debian program; start it with :func:`debian_environment`."""
    root = debian_root(twin)
    for folder in ("usr/sbin", "usr/bin", "usr/lib/postgresql/15/bin", "usr/lib/cni"):
        path = root / folder / name
        if path.exists() or path.is_symlink():
            return path
    raise FileNotFoundError(f"{name} is in none of the unpacked Debian packages below {root}")


def path_directories(twin: Twin) -> list[Path]:
    """Directories that come first on a person's PATH: pulumi, its language host, kubectl, helm."""
    return [folder / "bin" for folder in (_pulumi(twin), directory(twin, "kubernetes"), directory(twin, "helm"))]


def _pulumi(twin: Twin) -> Path:
    """Return a folder with the CLI and its language host side by side, as an installed release has them.

    The CLI looks for the host beside its own file, links resolved, and warns at every update of one that is elsewhere on
    PATH (GetPluginPath in pulumi/pulumi sdk/go/common/workspace/plugins.go). So what was built apart is linked hard.
    """
    folders = tuple(dict.fromkeys(directory(twin, name) for name in ("pulumi", "pulumi-language-python")))
    if len(folders) == 1:
        return folders[0]

    def link(step: cache.Step) -> None:
        (step.directory / "bin").mkdir()
        for file in (file for folder in folders for file in (folder / "bin").iterdir()):
            (step.directory / "bin" / file.name).hardlink_to(file.resolve())

    recipe = " ".join(folder.name for folder in folders)
    return cache.ensure(twin.cache, cache.BuiltPart("pulumi-together", golang.PULUMI, recipe, link))


def build_missing(twin: Twin, names: Sequence[str]) -> None:
    """Build or unpack what is missing of the Debian packages and these Go programs.

    Raises:
        TwinError: Go or apt is missing or too old, or a build failed.
    """
    debian_root(twin)
    missing = [name for name in names if not part(twin, name).directory(twin.cache).exists()]
    if not missing:
        return
    workers = side_by_side(_available_bytes(), len(os.sched_getaffinity(0)))
    with golang.downloading_ahead(missing[workers - 1 :]), ThreadPoolExecutor(workers) as pool:
        builds = [pool.submit(directory, twin, name) for name in missing]
        try:
            for finished in as_completed(builds):
                finished.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            while not all(build.done() for build in builds):  # one may only be starting
                cache.stop()
                time.sleep(0.1)
            raise


def side_by_side(available_bytes: int, processors: int) -> int:
    """Return how many programs to build at once: a second one uses the processor while the first is linked by one thread."""
    return max(1, min(processors, available_bytes // _BUILD_BYTES, 2))


def _available_bytes() -> int:
    line = re.search(r"^MemAvailable: +(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return int(line[1]) * 1024 if line else 0


def everything(twin: Twin) -> None:
    """Build all that tests and ``make up`` need, with and without root, and print how long each part took."""
    from twin.build import image_layers

    started = time.monotonic()
    build_missing(twin, ALWAYS + SIMULATED + (() if twin.simulated else (*WITH_ROOT, *FOR_TESTS)))
    image_layers.recipes(twin)
    print(table(cache.build_times(twin.cache)))
    print(f"everything is in {twin.cache} ({time.monotonic() - started:.0f} s just now)")


def table(seconds: Mapping[str, float]) -> str:
    """One line for each part and the seconds its latest build took, and their sum; the longest first."""
    lines = [f"{title:<36}{taken:>8.1f} s" for title, taken in sorted(seconds.items(), key=lambda item: -item[1])]
    lines.append(f"{'all together':<36}{sum(seconds.values()):>8.1f} s")
    return "\n".join(lines)


def up(twin: Twin) -> None:
    """Build or unpack what this twin uses."""
    build_missing(twin, needed(twin))


def down(twin: Twin) -> None:
    """The cache stays: it is what makes the next start quick."""


def status(twin: Twin) -> list[PartStatus]:
    """Report the programs that are missing."""
    parts = {name: part(twin, name) for name in needed(twin)}
    missing = [name for name, part in parts.items() if not part.directory(twin.cache).exists()]
    if not debian_part(twin).directory(twin.cache).exists():
        missing.append("Debian's packages")
    detail = f"missing: {', '.join(missing)}; `make build`" if missing else f"in {twin.cache}"
    return [PartStatus("programs", ok=not missing, detail=detail)]
