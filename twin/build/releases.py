"""Official releases of the twin's programs, taken where pins.txt has their checksums and the network has them.

``make pins`` writes the checksums, on a machine with internet. A program without one is built from its published Go module
(twin/build/golang.py), as is everything where the publisher can't be reached. A file that is not what pins.txt says is
refused, never replaced by a build: somebody should look. Only for x86-64, as the twin's machines are.
"""

from __future__ import annotations

import functools
import platform
import shutil
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from infra.errors import ShopCatError
from pipeline import downloads
from pipeline.downloads import Download
from twin.build import golang
from twin.build.cache import BuiltPart, Step
from twin.errors import TwinError

HELM_URL = "https://get.helm.sh"
KUBERNETES_URL = "https://dl.k8s.io"
_MACHINE = "x86_64"
_ANSWER_SECONDS = 5
_LANGUAGE_HOST = ("pulumi-language-python", "pulumi-language-python-exec")


@dataclass(frozen=True)
class Release:
    """A published release of one program: its files, and where each of its binaries is in what was unpacked."""

    name: str
    version: str
    downloads: Sequence[Download]
    binaries: Mapping[str, str]
    """Name on PATH → path below the unpacked files; a file that is no archive is its own binary."""


def published(name: str) -> Release | None:
    """Return what a publisher has of a Go program of the twin; None where nobody publishes it with a checksum."""
    requirements = downloads.REQUIREMENTS.read_text(encoding="utf-8")
    pulumi, *plugins = downloads.for_machine(requirements, _MACHINE)
    if name in ("pulumi", "pulumi-language-python"):
        binaries = {binary: f"pulumi/{binary}" for binary in ("pulumi", *_LANGUAGE_HOST)}
        return Release("pulumi", version("pulumi"), [pulumi], binaries)
    if name == "pulumi-kubernetes":
        (plugin,) = [download for download in plugins if download.file.startswith("pulumi-resource-kubernetes-")]
        program = "pulumi-resource-kubernetes"
        return Release(name, version("pulumi-kubernetes"), [plugin], {program: f"{plugin.target}/{program}"})
    if name == "helm":
        archive = Download(".", f"helm-v{golang.HELM}-linux-amd64.tar.gz", ".", HELM_URL)
        return Release(name, golang.HELM, [archive], {"helm": "linux-amd64/helm"})
    if name == "kubernetes":
        folder = f"release/v{golang.KUBERNETES}/bin/linux/amd64"
        programs = golang.programs()[name].links
        files = [Download(folder, binary, ".", KUBERNETES_URL, f"{binary}-v{golang.KUBERNETES}") for binary in programs]
        return Release(name, golang.KUBERNETES, files, {binary: binary for binary in programs})
    return None


@functools.cache
def _answers(url: str) -> bool:
    """Ask once whether a publisher can be reached from here."""
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=_ANSWER_SECONDS).close()
    except (OSError, ValueError):
        return False
    return True


def part(cache: Path, name: str) -> BuiltPart | None:
    """Return the release as a part of the cache; None where it isn't pinned, or neither here nor to be had."""
    release = published(name) if platform.machine() == _MACHINE else None
    if release is None:
        return None
    try:
        pins = downloads.read_pins(downloads.PINS.read_text(encoding="utf-8"))
    except (OSError, ShopCatError) as error:
        raise TwinError(str(error)) from error
    if not all(download.name in pins for download in release.downloads):
        return None
    recipe = "\n".join(f"{pins[download.name]} {download.url}" for download in release.downloads)
    built = BuiltPart(f"{release.name}-release", release.version, recipe, lambda step: _unpack(release, pins, step))
    if built.directory(cache).exists() or _answers(release.downloads[0].url):
        return built
    return None


def _unpack(release: Release, pins: Mapping[str, str], step: Step) -> None:
    files = step.directory / "files"
    try:
        for download in release.downloads:
            file = downloads.verified_archive(download, pins, step.directory / "downloads")
            if download.file.endswith(".tar.gz"):
                downloads.unpack(file, files / download.target)
            else:
                files.mkdir(exist_ok=True)
                file.rename(files / download.file)
    except ShopCatError as error:
        raise TwinError(str(error)) from error
    shutil.rmtree(step.directory / "downloads", ignore_errors=True)
    (step.directory / "bin").mkdir()
    for name, path in release.binaries.items():
        if not (files / path).is_file():
            raise TwinError(f"{release.name} {release.version}: its release has no {path}")
        (files / path).chmod(0o755)
        (step.directory / "bin" / name).symlink_to(Path("..", "files", path))


def main() -> int:
    """Write the checksums of everything that is published: `make pins`."""
    releases = [published(name) for name in golang.programs()]
    twins = [download for release in releases if release for download in release.downloads]
    every = [*downloads.for_all_machines(downloads.REQUIREMENTS.read_text(encoding="utf-8")), *twins]
    try:
        downloads.write_pins({download.name: download for download in every}.values())
    except ShopCatError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
