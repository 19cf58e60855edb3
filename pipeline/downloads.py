"""Install Pulumi's CLI and provider plugins from archives whose checksums are ours (pins.txt).

``python3 -m pipeline.downloads install`` needs Python alone and runs before anything else of a job. The versions are those of
requirements.txt, so SDK and plugin are one version. An archive is compared with pins.txt before it is unpacked, whether it comes
from the network or from a folder that a cache restored, so neither the publisher's server nor a cache is trusted. Pulumi
gets a home of the job's own, so nothing that an earlier job left on the machine runs, and fetches no plugin by itself.
`make pins` (twin/build/releases.py) writes pins.txt: once by a person, who compares it with what Pulumi
publishes (github.com/pulumi/pulumi/releases has a file of checksums), and with each new version.

Sources: www.pulumi.com/docs/iac/download-install/versions (CLI), www.pulumi.com/docs/iac/concepts/plugins (where plugins come
from, and the folder that they are found in).
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import os
import platform
import re
import sys
import tarfile
import tempfile
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from infra.errors import ShopCatError
from pipeline.errors import PipelineError

ROOT = Path(__file__).resolve().parent.parent
PINS = ROOT / "pins.txt"
REQUIREMENTS = ROOT / "requirements.txt"
RELEASES = "https://get.pulumi.com/releases"
PLUGINS = ("aws", "eks", "kubernetes")
ARCHITECTURES: Mapping[str, tuple[str, str]] = {"x86_64": ("x64", "amd64"), "aarch64": ("arm64", "arm64")}
"""Machine → its name in the CLI's archives, and in those of plugins."""
DOWNLOAD_TIMEOUT_SECONDS = 60

_PIN = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9][A-Za-z0-9._-]*)")
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Download:
    """One archive."""

    folder: str
    """Folder on the publisher's server."""
    file: str
    target: str
    """Folder that it is unpacked into, below the job's."""
    publisher: str = RELEASES
    pin: str = ""
    """Its name in pins.txt and where it is kept, if the file's own has no version."""

    @property
    def name(self) -> str:
        """Its name in pins.txt."""
        return self.pin or self.file

    @property
    def url(self) -> str:
        """Address of the file."""
        return f"{self.publisher}/{self.folder}/{self.file}"


def wanted(requirements: str, machine: str, releases: str = RELEASES) -> list[Download]:
    """Return what a machine needs, at the versions that requirements.txt pins, of that server.

    Raises:
        ShopCatError: there are no archives for this machine, or a version isn't pinned.
    """
    if machine not in ARCHITECTURES:
        raise PipelineError(f"no archive of Pulumi for {machine}; a runner needs one of {', '.join(ARCHITECTURES)}")
    cli, plugin = ARCHITECTURES[machine]
    pulumi = _version(requirements, "pulumi")
    found = [Download("sdk", f"pulumi-v{pulumi}-linux-{cli}.tar.gz", ".", releases)]
    for name in PLUGINS:
        version = _version(requirements, f"pulumi-{name}")
        file = f"pulumi-resource-{name}-v{version}-linux-{plugin}.tar.gz"
        found.append(Download("plugins", file, f"home/plugins/resource-{name}-v{version}", releases))
    return found


def _version(requirements: str, package: str) -> str:
    found = re.search(rf"^{re.escape(package)}==([0-9]+(?:\.[0-9]+)+)(?= )", requirements, re.MULTILINE)
    if found is None:
        raise PipelineError(f"requirements.txt pins no {package}==<version>; compile it from requirements/infra.in")
    return found[1]


def read_pins(text: str) -> dict[str, str]:
    """Return the checksum of each file.

    Raises:
        ShopCatError: a line is neither a comment nor a checksum with a file's name, or a file is there twice.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        match = _PIN.fullmatch(line)
        if match is None or match[2] in found:
            raise PipelineError(
                f"pins.txt, line {number}: expected `<sha256>  <file>`, each file once; make pins writes it"
            )
        found[match[2]] = match[1]
    return found


def checksum(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(download: Download, folder: Path) -> Path:
    """Download an archive into a folder, whole or not at all.

    Raises:
        ShopCatError: it can't be had.
    """
    url, part = download.url, folder / f"{download.name}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file, urllib.request.urlopen(url, timeout=DOWNLOAD_TIMEOUT_SECONDS) as answer:
            while block := answer.read(_CHUNK):
                file.write(block)
            promised = answer.headers.get("Content-Length")
        if promised is not None and part.stat().st_size != int(promised):
            raise OSError(f"it broke off after {part.stat().st_size} of {promised} bytes")  # noqa: TRY301 - as any other break
        return part.replace(folder / download.name)
    except (OSError, ValueError, http.client.HTTPException) as error:
        part.unlink(missing_ok=True)
        raise PipelineError(f"{url} can't be downloaded ({error}); run the job again") from error


def verified(download: Download, pins: Mapping[str, str], kept: Path) -> Path:
    """Return an archive that is what pins.txt says: the one that is kept, or a new one.

    Raises:
        ShopCatError: pins.txt doesn't name it, it can't be had, or it is another file.
    """
    expected, path = pins.get(download.name), kept / download.name
    if expected is None:
        raise PipelineError(
            f"pins.txt has no checksum of {download.name}: run `make pins` on a machine with internet, compare what it prints "
            "with what Pulumi publishes, and commit it"
        )
    if path.is_file():
        if checksum(path) == expected:
            return path
        print(f"the kept {download.name} is not what pins.txt says; it is downloaded anew", file=sys.stderr)
    found = checksum(fetch(download, kept))
    if found != expected:
        path.unlink()
        raise PipelineError(
            f"{download.url} has the checksum {found}, and pins.txt says {expected}: somebody has "
            "replaced it. Nothing of it is run; find out who did, before `make pins` is run again"
        )
    return path


def unpack(archive: Path, target: Path) -> None:
    """Unpack an archive; nothing in it may lie outside the target (docs.python.org/3/library/tarfile, data_filter).

    Raises:
        ShopCatError: it is no archive, or something in it would.
    """
    target.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(archive) as files:
            files.extractall(target, filter="data")
    except (OSError, EOFError, tarfile.TarError) as error:
        raise PipelineError(f"{archive.name} can't be unpacked: {error}") from error


def install(environment: Mapping[str, str], machine: str, releases: str = RELEASES) -> Path:
    """Install what this machine needs and tell the steps that follow; the folder that `pulumi` is in.

    Args:
        environment: of the job: RUNNER_TEMP is emptied after it, SHOPCAT_DOWNLOADS is a folder that a cache may restore.
        machine: as `platform.machine` names it.
        releases: where the archives are.

    Raises:
        ShopCatError: one of them is not what pins.txt says, or can't be had.
    """
    temporary = Path(environment.get("RUNNER_TEMP") or tempfile.gettempdir())
    kept = Path(environment.get("SHOPCAT_DOWNLOADS") or temporary / "downloads")
    pins, folder = read_pins(PINS.read_text(encoding="utf-8")), Path(tempfile.mkdtemp(dir=temporary))
    downloads = wanted(REQUIREMENTS.read_text(encoding="utf-8"), machine, releases)
    for download, archive in [(one, verified(one, pins, kept)) for one in downloads]:
        unpack(archive, folder / download.target)
    settings = {"PULUMI_HOME": f"{folder}/home", "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true"}
    _append_lines(environment.get("GITHUB_ENV"), [f"{name}={value}" for name, value in settings.items()])
    _append_lines(environment.get("GITHUB_PATH"), [f"{folder}/pulumi"])
    return folder / "pulumi"


def pins_text(before: str, downloads: Iterable[Download], folder: Path) -> str:
    """Return pins.txt with the checksums of these files, each downloaded once; other files keep theirs.

    Raises:
        ShopCatError: one can't be had.
    """
    header = [line for line in before.splitlines() if line.startswith("#")]
    pins = read_pins(before)
    for download in downloads:
        path = fetch(download, folder)
        pins[download.name] = checksum(path)
        path.unlink()
    return "\n".join([*header, *(f"{pins[name]}  {name}" for name in sorted(pins))]) + "\n"


def every(requirements: str, releases: str = RELEASES) -> list[Download]:
    """Return what all machines need, each file once."""
    return list(
        {one.file: one for machine in ARCHITECTURES for one in wanted(requirements, machine, releases)}.values()
    )


def pin(downloads: Iterable[Download]) -> None:
    """Write their checksums into pins.txt.

    Raises:
        ShopCatError: one can't be had; pins.txt stays as it was.
    """
    with tempfile.TemporaryDirectory() as folder:
        text = pins_text(PINS.read_text(encoding="utf-8"), downloads, Path(folder))
    PINS.write_text(text, encoding="utf-8")
    print(text)


def _append_lines(path: str | None, lines: Sequence[str]) -> None:
    if path:
        with Path(path).open("a", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)


def main() -> int:
    """Install for this job."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.downloads", description=__doc__)
    parser.add_argument("what", choices=["install"])
    parser.parse_args()
    try:
        print(install(os.environ, platform.machine()))
    except ShopCatError as error:
        print(f"::error title=downloads::{error}" if os.environ.get("GITHUB_ACTIONS") else f"error: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
