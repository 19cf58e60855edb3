"""Install Pulumi's CLI and provider plugins from archives whose checksums are ours (pins.txt).

``python3 -m pipeline.downloads install`` runs on Python alone, outside the virtual environment, so by urllib.request. The
versions are those of requirements.txt, so SDK and plugin are one version. An archive is compared with pins.txt before it is
unpacked, whether it comes from the network or from a folder that a cache restored, so neither the publisher's server nor a
cache is trusted. Pulumi gets a home of the job's own, so nothing that an earlier job left on the machine runs, and fetches no
plugin by itself. `make pins` (twin/build/releases.py) writes pins.txt: once by a person, who compares it with what Pulumi
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
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from infra.errors import ShopCatError
from pipeline.errors import PipelineError
from pipeline.plan import append_lines

ROOT = Path(__file__).resolve().parent.parent
PINS = ROOT / "pins.txt"
REQUIREMENTS = ROOT / "requirements.txt"
RELEASES = "https://get.pulumi.com/releases"
PLUGINS = ("aws", "eks", "kubernetes")
ARCHITECTURES: Mapping[str, tuple[str, str]] = {"x86_64": ("x64", "amd64"), "aarch64": ("arm64", "arm64")}
"""Machine → its name in the CLI's archives, and in the plugins'."""
DOWNLOAD_TIMEOUT_SECONDS = 60

_PIN = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9][A-Za-z0-9._-]*)")
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Download:
    """An archive to download."""

    folder: str
    """Folder on the publisher's server."""
    file: str
    target: str
    """Folder to unpack it into, below the job's."""
    publisher: str = RELEASES
    pin: str = ""
    """Its name in pins.txt and in the cache, if the file's own name has no version."""

    @property
    def name(self) -> str:
        """Its name in pins.txt."""
        return self.pin or self.file

    @property
    def url(self) -> str:
        """Address of the file."""
        return f"{self.publisher}/{self.folder}/{self.file}"


def for_machine(requirements: str, machine: str, releases: str = RELEASES) -> list[Download]:
    """Return the archives that a machine needs from a server, at the versions that requirements.txt pins.

    Raises:
        ShopCatError: there are no archives for this machine, or a version isn't pinned.
    """
    if machine not in ARCHITECTURES:
        raise PipelineError(f"no archive of Pulumi for {machine}; a runner needs one of {', '.join(ARCHITECTURES)}")
    cli, plugin = ARCHITECTURES[machine]
    pulumi = _version(requirements, "pulumi")
    downloads = [Download("sdk", f"pulumi-v{pulumi}-linux-{cli}.tar.gz", ".", releases)]
    for name in PLUGINS:
        version = _version(requirements, f"pulumi-{name}")
        file = f"pulumi-resource-{name}-v{version}-linux-{plugin}.tar.gz"
        downloads.append(Download("plugins", file, f"home/plugins/resource-{name}-v{version}", releases))
    return downloads


def _version(requirements: str, package: str) -> str:
    match = re.search(rf"^{re.escape(package)}==([0-9]+(?:\.[0-9]+)+)(?= )", requirements, re.MULTILINE)
    if match is None:
        raise PipelineError(f"requirements.txt pins no {package}==<version>; compile it from requirements/infra.in")
    return match[1]


def read_pins(text: str) -> dict[str, str]:
    """Return the checksum of each file.

    Raises:
        ShopCatError: a line is neither a comment nor a checksum with a file's name, or names a file again.
    """
    pins: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        match = _PIN.fullmatch(line)
        if match is None or match[2] in pins:
            raise PipelineError(
                f"pins.txt, line {number}: expected `<sha256>  <file>`, each file once; make pins writes it"
            )
        pins[match[2]] = match[1]
    return pins


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(download: Download, folder: Path) -> Path:
    """Download an archive into a folder, whole or not at all.

    Raises:
        ShopCatError: it can't be downloaded.
    """
    url, part = download.url, folder / f"{download.name}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file, urllib.request.urlopen(url, timeout=DOWNLOAD_TIMEOUT_SECONDS) as answer:
            while block := answer.read(_CHUNK):
                file.write(block)
            length = answer.headers.get("Content-Length")
        if length is not None and part.stat().st_size != int(length):
            raise OSError(f"it broke off after {part.stat().st_size} of {length} bytes")  # noqa: TRY301 - as any other break
        return part.replace(folder / download.name)
    except (OSError, ValueError, http.client.HTTPException) as error:
        part.unlink(missing_ok=True)
        raise PipelineError(f"{url} can't be downloaded ({error}); run the job again") from error


def verified_archive(download: Download, pins: Mapping[str, str], cache: Path) -> Path:
    """Return an archive with the checksum that pins.txt has: from the cache, or else downloaded.

    Raises:
        ShopCatError: pins.txt doesn't name it, it can't be downloaded, or its checksum differs.
    """
    expected, path = pins.get(download.name), cache / download.name
    if expected is None:
        raise PipelineError(
            f"pins.txt has no checksum of {download.name}: run `make pins` on a machine with internet, compare what it prints "
            "with what Pulumi publishes, and commit it"
        )
    if path.is_file():
        if checksum(path) == expected:
            return path
        print(
            f"the cached {download.name} differs from its checksum in pins.txt; it is downloaded anew", file=sys.stderr
        )
    actual = checksum(fetch(download, cache))
    if actual != expected:
        path.unlink()
        raise PipelineError(
            f"{download.url} has the checksum {actual}, and pins.txt says {expected}: somebody has "
            "replaced it. Nothing of it is run; find out who did, before `make pins` is run again"
        )
    return path


def unpack(archive: Path, target: Path) -> None:
    """Unpack an archive; nothing in it may lie outside the target (docs.python.org/3/library/tarfile, data_filter).

    Raises:
        ShopCatError: it is no archive, or has a file that would.
    """
    target.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(archive) as files:
            files.extractall(target, filter="data")
    except (OSError, EOFError, tarfile.TarError) as error:
        raise PipelineError(f"{archive.name} can't be unpacked: {error}; run the job again") from error


def install(environment: Mapping[str, str], machine: str, releases: str = RELEASES) -> Path:
    """Install what this machine needs, for the steps that follow too; return the folder that `pulumi` is in.

    Args:
        environment: of the job. RUNNER_TEMP is emptied after it; SHOPCAT_DOWNLOADS is a folder that a cache may restore.
        machine: as `platform.machine` names it.
        releases: where the archives are.

    Raises:
        ShopCatError: an archive differs from pins.txt, or can't be downloaded.
    """
    temporary = Path(environment.get("RUNNER_TEMP") or tempfile.gettempdir())
    cache = Path(environment.get("SHOPCAT_DOWNLOADS") or temporary / "downloads")
    pins, folder = read_pins(PINS.read_text(encoding="utf-8")), Path(tempfile.mkdtemp(dir=temporary))
    downloads = for_machine(REQUIREMENTS.read_text(encoding="utf-8"), machine, releases)
    archives = [verified_archive(download, pins, cache) for download in downloads]
    for download, archive in zip(downloads, archives, strict=True):
        unpack(archive, folder / download.target)
    settings = {"PULUMI_HOME": f"{folder}/home", "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true"}
    append_lines(environment.get("GITHUB_ENV"), *(f"{name}={value}" for name, value in settings.items()))
    append_lines(environment.get("GITHUB_PATH"), f"{folder}/pulumi")
    return folder / "pulumi"


def pins_text(before: str, downloads: Iterable[Download], folder: Path) -> str:
    """Return pins.txt with the checksums of these files, each downloaded once; other files keep theirs.

    Raises:
        ShopCatError: a file can't be downloaded.
    """
    header = [line for line in before.splitlines() if line.startswith("#")]
    pins = read_pins(before)
    for download in downloads:
        path = fetch(download, folder)
        pins[download.name] = checksum(path)
        path.unlink()
    return "\n".join([*header, *(f"{pins[name]}  {name}" for name in sorted(pins))]) + "\n"


def for_all_machines(requirements: str, releases: str = RELEASES) -> list[Download]:
    """Return the archives that all machines need, each once."""
    downloads = [download for machine in ARCHITECTURES for download in for_machine(requirements, machine, releases)]
    return list({download.file: download for download in downloads}.values())


def write_pins(downloads: Iterable[Download]) -> None:
    """Write the checksums of these archives into pins.txt.

    Raises:
        ShopCatError: an archive can't be downloaded; pins.txt stays as it was.
    """
    with tempfile.TemporaryDirectory() as folder:
        text = pins_text(PINS.read_text(encoding="utf-8"), downloads, Path(folder))
    PINS.write_text(text, encoding="utf-8")
    print(text)


def main() -> int:
    """Install Pulumi for this job and print the folder that it is in."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.downloads", description=__doc__)
    parser.add_argument("command", choices=["install"])
    parser.parse_args()
    try:
        print(install(os.environ, platform.machine()))
    except ShopCatError as error:
        print(f"::error title=downloads::{error}" if os.environ.get("GITHUB_ACTIONS") else f"error: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
