"""Official releases in place of builds: only what is pinned and can be had, and never anything else."""

from __future__ import annotations

import io
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipeline import downloads
from twin.build import cache, golang, releases
from twin.errors import TwinError

NAMES = ("pulumi", "pulumi-language-python", "pulumi-kubernetes", "helm", "kubernetes")
SCRIPT = b"#!/bin/sh\necho released\n"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


def archive(paths: list[str]) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as tar:
        for path in paths:
            member = tarfile.TarInfo(path)
            member.size = len(SCRIPT)
            tar.addfile(member, io.BytesIO(SCRIPT))
    return target.getvalue()


@pytest.fixture
def publisher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Every publisher's server in one, on this machine, and pins.txt as `make pins` writes it from there."""
    folder = tmp_path / "published"
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    real, wanted = releases.published, downloads.for_machine
    monkeypatch.setattr(downloads, "for_machine", lambda text, machine, _=None: wanted(text, machine, url))

    def published(name: str) -> releases.Release | None:
        found = real(name)
        return found and replace(found, downloads=[replace(one, publisher=url) for one in found.downloads])

    monkeypatch.setattr(releases, "published", published)
    monkeypatch.setattr(downloads, "PINS", tmp_path / "pins.txt")
    for name in NAMES:
        found = published(name)
        assert found
        for one in found.downloads:
            path = folder / one.folder / one.file
            path.parent.mkdir(parents=True, exist_ok=True)
            inside = [path.removeprefix(f"{one.target}/") for path in found.binaries.values()]
            path.write_bytes(archive(inside) if one.file.endswith(".tar.gz") else SCRIPT)
    for machine in downloads.ARCHITECTURES:
        for one in wanted(downloads.REQUIREMENTS.read_text(), machine, url):
            (folder / one.folder / one.file).touch()
    (tmp_path / "pins.txt").write_text("# pins\n")
    assert releases.main() == 0
    releases._answers.cache_clear()
    yield folder
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("name", NAMES)
def test_what_is_pinned_and_published_is_taken_and_runs(publisher: Path, tmp_path: Path, name: str) -> None:
    part = releases.part(tmp_path / "cache", name)
    assert part is not None
    folder = cache.ensure(tmp_path / "cache", part)
    found = releases.published(name)
    assert found is not None
    for binary in found.binaries:
        said = subprocess.run([folder / "bin" / binary], capture_output=True, text=True, check=True).stdout
        assert said == "released\n"
    assert not (folder / "downloads").exists()


def test_every_program_that_others_call_is_in_its_release() -> None:
    for name, program in golang.programs().items():
        found = releases.published(name)
        if found is not None:
            assert {program.binary, *program.links} - set(found.binaries) <= {"kubernetes"}, name


def test_a_release_that_was_replaced_is_refused_and_not_built_instead(publisher: Path, tmp_path: Path) -> None:
    part = releases.part(tmp_path / "cache", "helm")
    assert part is not None
    (publisher / f"helm-v{golang.HELM}-linux-amd64.tar.gz").write_bytes(archive(["linux-amd64/helm", "more"]))
    with pytest.raises(TwinError, match="somebody has replaced it"):
        cache.ensure(tmp_path / "cache", part)
    assert not part.directory(tmp_path / "cache").exists()


def test_what_is_not_pinned_or_not_to_be_had_is_built(
    publisher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = releases.part(tmp_path / "cache", "helm")
    assert here is not None
    cache.ensure(tmp_path / "cache", here)
    monkeypatch.setattr(releases, "_answers", lambda _: False)
    assert releases.part(tmp_path / "cache", "helm") is not None, "it is here already"
    assert releases.part(tmp_path / "cache", "kubernetes") is None
    monkeypatch.setattr(releases, "_answers", lambda _: True)
    downloads.PINS.write_text("# nothing\n")
    assert releases.part(tmp_path / "cache", "helm") is None
    assert releases.part(tmp_path / "cache", "coredns") is None, "nobody publishes it with a checksum of ours"
    downloads.PINS.write_text("not a pin\n")
    with pytest.raises(TwinError, match=r"pins\.txt, line 1"):
        releases.part(tmp_path / "cache", "helm")


def test_another_machine_builds(publisher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(releases.platform, "machine", lambda: "aarch64")
    assert releases.part(tmp_path / "cache", "helm") is None
