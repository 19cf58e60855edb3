"""Pulumi and its plugins are installed from archives that are what pins.txt says, and nothing else is run."""

import functools
import hashlib
import io
import os
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.errors import ShopCatError
from pipeline import downloads
from pipeline.downloads import Download
from twin.build import golang
from twin.build.releases import published

REQUIREMENTS = downloads.REQUIREMENTS.read_text()
MACHINES = sorted(downloads.ARCHITECTURES)


def archive(files: dict[str, str], mode: int = 0o755) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(text.encode()), mode
            tar.addfile(member, io.BytesIO(text.encode()))
    return target.getvalue()


class Publisher:
    """Pulumi's server, on this machine; every archive holds a program that prints its own name."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked, self.breaks_off = folder, list[str](), False
        outer = self

        class Handler(SimpleHTTPRequestHandler):
            def log_message(self, *_: object) -> None: ...

            def do_GET(self) -> None:
                outer.asked.append(self.path)
                if not outer.breaks_off:
                    super().do_GET()
                    return
                self.send_response(200)
                self.send_header("Content-Length", "9")
                self.end_headers()
                self.wfile.write(b"12345")

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        for machine in MACHINES:
            for one in downloads.for_machine(REQUIREMENTS, machine):
                kind = one.file.partition("-v")[0]
                program = "pulumi/pulumi" if kind == "pulumi" else kind
                self.put(one, archive({program: f"#!/bin/sh\necho {kind}\n"}))

    def put(self, download: Download, content: bytes) -> None:
        path = self.folder / download.folder / download.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@pytest.fixture
def publisher(tmp_path: Path) -> Iterator[Publisher]:
    found = Publisher(tmp_path / "releases")
    threading.Thread(target=found.server.serve_forever, args=(0.02,), daemon=True).start()
    yield found
    found.server.shutdown()
    found.server.server_close()


@pytest.fixture
def pins(publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """pins.txt as `make pins` writes it from that server."""
    path = tmp_path / "pins.txt"
    path.write_text(
        downloads.pins_text("# pins", downloads.for_all_machines(REQUIREMENTS, publisher.url), tmp_path / "pinned")
    )
    monkeypatch.setattr(downloads, "PINS", path)
    publisher.asked.clear()
    return path


def job(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "runner").mkdir(exist_ok=True)
    return {
        "RUNNER_TEMP": str(tmp_path / "runner"),
        "SHOPCAT_DOWNLOADS": str(tmp_path / "kept"),
        "GITHUB_ENV": str(tmp_path / "env"),
        "GITHUB_PATH": str(tmp_path / "path"),
    }


@pytest.mark.parametrize("machine", MACHINES)
def test_what_is_pinned_is_installed_and_found_by_the_steps_that_follow(
    publisher: Publisher, pins: Path, tmp_path: Path, machine: str
) -> None:
    folder = downloads.install(job(tmp_path), machine, publisher.url)
    said = subprocess.run([folder / "pulumi"], check=True, capture_output=True, text=True).stdout
    assert said == "pulumi\n"
    assert (tmp_path / "path").read_text() == f"{folder}\n"
    variables = dict(line.partition("=")[::2] for line in (tmp_path / "env").read_text().splitlines())
    assert variables["PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION"] == "true"
    home = Path(variables["PULUMI_HOME"])
    assert sorted(path.name.partition("-v")[0] for path in (home / "plugins").iterdir()) == [
        "resource-aws", "resource-eks", "resource-kubernetes",
    ]  # fmt: skip
    for plugin in (home / "plugins").iterdir():
        (program,) = plugin.iterdir()
        assert os.access(program, os.X_OK)
        assert program.name == f"pulumi-{plugin.name.partition('-v')[0]}"
    assert list((tmp_path / "runner").iterdir()) == [folder.parent]
    assert pins.read_text().count("\n") == 1 + 2 * 4


def test_what_is_kept_is_not_downloaded_again_and_is_compared_again(
    publisher: Publisher, pins: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    downloads.install(job(tmp_path), "x86_64", publisher.url)
    publisher.asked.clear()
    downloads.install(job(tmp_path), "x86_64", publisher.url)
    assert publisher.asked == []
    (cli, *_) = downloads.for_machine(REQUIREMENTS, "x86_64")
    (tmp_path / "kept" / cli.file).write_bytes(archive({"pulumi/pulumi": "#!/bin/sh\necho evil\n"}))
    folder = downloads.install(job(tmp_path), "x86_64", publisher.url)
    assert publisher.asked == [f"/sdk/{cli.file}"]
    assert "differs from its checksum in pins.txt" in capsys.readouterr().err
    assert subprocess.run([folder / "pulumi"], check=True, capture_output=True, text=True).stdout == "pulumi\n"


@pytest.mark.parametrize("place", range(4))
def test_an_archive_that_was_replaced_is_refused_before_anything_is_unpacked(
    publisher: Publisher, pins: Path, tmp_path: Path, place: int
) -> None:
    one = downloads.for_machine(REQUIREMENTS, "x86_64")[place]
    publisher.put(one, archive({"pulumi/pulumi": "#!/bin/sh\necho evil\n"}))
    with pytest.raises(ShopCatError, match=r"somebody has replaced it. Nothing of it is run"):
        downloads.install(job(tmp_path), "x86_64", publisher.url)
    assert not (tmp_path / "path").exists()
    assert not (tmp_path / "kept" / one.file).exists()
    assert all(not any(folder.iterdir()) for folder in (tmp_path / "runner").iterdir())


def test_without_a_pin_nothing_is_downloaded(publisher: Publisher, pins: Path, tmp_path: Path) -> None:
    pins.write_text("# nothing\n")
    with pytest.raises(ShopCatError, match=r"no checksum of pulumi-v.*: run `make pins`"):
        downloads.install(job(tmp_path), "x86_64", publisher.url)
    assert publisher.asked == []


def test_an_archive_that_breaks_off_is_neither_pinned_nor_called_replaced(
    publisher: Publisher, pins: Path, tmp_path: Path
) -> None:
    publisher.breaks_off = True
    with pytest.raises(ShopCatError, match=r"can't be downloaded \(it broke off after 5 of 9 bytes\)"):
        downloads.install(job(tmp_path), "x86_64", publisher.url)
    with pytest.raises(ShopCatError, match="broke off"):
        downloads.pins_text("#", downloads.for_all_machines(REQUIREMENTS, publisher.url), tmp_path / "again")
    assert list((tmp_path / "kept").iterdir()) == list((tmp_path / "again").iterdir()) == []


@pytest.mark.parametrize("machine", ["riscv64", ""])
def test_another_machine_is_refused(machine: str) -> None:
    with pytest.raises(ShopCatError, match="x86_64, aarch64"):
        downloads.for_machine(REQUIREMENTS, machine)


def test_a_version_that_is_not_pinned_is_refused() -> None:
    with pytest.raises(ShopCatError, match="pins no pulumi-eks"):
        downloads.for_machine(REQUIREMENTS.replace("pulumi-eks==", "pulumi-eks>="), "x86_64")


def test_a_server_that_does_not_answer_leaves_nothing_half(publisher: Publisher, pins: Path, tmp_path: Path) -> None:
    one = downloads.for_machine(REQUIREMENTS, "x86_64")[0]
    (publisher.folder / one.folder / one.file).unlink()
    with pytest.raises(ShopCatError, match="can't be downloaded"):
        downloads.install(job(tmp_path), "x86_64", publisher.url)
    assert list((tmp_path / "kept").iterdir()) == []


def test_nothing_is_unpacked_outside_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    path.write_bytes(archive({"../outside": "x"}))
    with pytest.raises(ShopCatError, match="can't be unpacked"):
        downloads.unpack(path, tmp_path / "in" / "side")
    assert not (tmp_path / "in" / "outside").exists()


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    path.write_bytes(b"<html>")
    with pytest.raises(ShopCatError, match="can't be unpacked"):
        downloads.unpack(path, tmp_path / "side")


@given(st.dictionaries(st.from_regex(r"[a-z][a-z0-9._-]{0,20}", fullmatch=True), st.binary(max_size=8), max_size=5))
def test_pins_are_read_as_they_are_written(files: dict[str, bytes]) -> None:
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    text = "# a comment\n\n" + "".join(f"{value}  {name}\n" for name, value in sums.items())
    assert downloads.read_pins(text) == sums
    for name, value in sums.items():
        with pytest.raises(ShopCatError, match=r"pins.txt, line"):
            downloads.read_pins(f"{text}{value}  {name}\n")


@pytest.mark.parametrize(
    "line", ["x", "0" * 64, f"{'0' * 64} a", f"{'0' * 63}  a", f"{'G' * 64}  a", f"{'0' * 64}  ../a"]
)
def test_a_line_that_is_no_pin_is_refused(line: str) -> None:
    with pytest.raises(ShopCatError, match=r"pins.txt, line 1"):
        downloads.read_pins(line)


def test_the_committed_pins_are_of_the_versions_that_are_required() -> None:
    """Those of Pulumi are missing until `make pins` has run on a machine with internet; then whole, and of no other version."""
    found = downloads.read_pins(downloads.PINS.read_text())
    needed = {one.name for one in downloads.for_all_machines(REQUIREMENTS)}
    releases = [published(name) for name in golang.programs()]
    twins = {one.name for release in releases if release for one in release.downloads} - needed
    assert set(found) <= needed | twins
    assert set(found) & needed in (set(), needed)
