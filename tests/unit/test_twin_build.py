"""The twin's builder: the cache's keys and locks, what is asked of Go and Pulumi, the registry's and images' rules."""

import contextlib
import gzip
import hashlib
import io
import json
import os
import stat
import tarfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twin.aws.registry import Repository
from twin.build import cache, debian, golang, image_layers, installed, programs
from twin.config import Twin
from twin.errors import TwinError
from twin.images import buildah, registry_client


def a_part(recipe: str = "1", *, build: object = None) -> cache.BuiltPart:
    def make(step: cache.Step) -> None:
        (step.directory / "made").write_text("made")

    return cache.BuiltPart("thing", "1.0", recipe, build or make)  # type: ignore[arg-type]


def test_another_recipe_is_another_folder(tmp_path: Path) -> None:
    first, second = cache.ensure(tmp_path, a_part("1")), cache.ensure(tmp_path, a_part("2"))
    assert first != second
    assert first.name.startswith("thing-1.0-")
    assert (first / "made").read_text() == "made"


def test_what_is_built_is_not_built_again_and_its_time_is_kept(tmp_path: Path) -> None:
    built: list[str] = []

    def make(step: cache.Step) -> None:
        built.append(str(step.directory))

    cache.ensure(tmp_path, a_part(build=make))
    cache.ensure(tmp_path, a_part(build=make))
    assert len(built) == 1
    assert list(cache.build_times(tmp_path)) == ["thing 1.0"]


def test_two_builders_at_once_build_once(tmp_path: Path) -> None:
    built: list[int] = []
    begun = threading.Event()

    def make(_: cache.Step) -> None:
        begun.set()
        built.append(threading.get_ident())

    workers = [threading.Thread(target=cache.ensure, args=(tmp_path, a_part(build=make))) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(built) == 1


def test_a_failed_step_names_its_log_and_leaves_nothing_half_built(tmp_path: Path) -> None:
    def make(step: cache.Step) -> None:
        step.run(["sh", "-c", "echo the reason; exit 3"])

    with pytest.raises(TwinError, match=r"failed \(log: .*thing\.build\.log\):\nthe reason"):
        cache.ensure(tmp_path, a_part(build=make))
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_a_missing_program_is_one_clear_error(tmp_path: Path) -> None:
    def make(step: cache.Step) -> None:
        step.run(["no-such-program"])

    with pytest.raises(TwinError, match="the program no-such-program is missing"):
        cache.ensure(tmp_path, a_part(build=make))


def test_what_a_killed_builder_left_is_cleared_and_a_neighbour_s_is_not(tmp_path: Path) -> None:
    (tmp_path / ".thing-partial-abc" / "deep").mkdir(parents=True)
    (tmp_path / ".thing-small-partial-abc").mkdir()
    cache.ensure(tmp_path, a_part())
    assert not (tmp_path / ".thing-partial-abc").exists()
    assert (tmp_path / ".thing-small-partial-abc").exists()


def test_other_users_can_read_whatever_the_builder_s_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        found = cache.ensure(tmp_path, a_part())
    finally:
        os.umask(before)
    assert stat.S_IMODE((found / "made").stat().st_mode) & 0o444 == 0o444
    assert stat.S_IMODE(found.stat().st_mode) & 0o555 == 0o555


def test_broken_build_times_count_as_none(tmp_path: Path) -> None:
    (tmp_path / "build-times.json").write_text("{")
    assert cache.build_times(tmp_path) == {}


def test_the_table_lists_the_longest_first_and_the_sum() -> None:
    lines = programs.table({"quick": 1.0, "slow": 200.5}).splitlines()
    assert [line.split()[0] for line in lines] == ["slow", "quick", "all"]
    assert lines[-1].split()[-2:] == ["201.5", "s"]


@pytest.fixture
def recipes(monkeypatch: pytest.MonkeyPatch) -> dict[str, Callable[[cache.Step], None]]:
    """Programs by name, built by these functions."""
    made: dict[str, Callable[[cache.Step], None]] = {}
    monkeypatch.setattr(programs, "debian_root", lambda _: None)
    monkeypatch.setattr(programs, "part", lambda _, name: cache.BuiltPart(name, "1.0", name, made[name]))
    monkeypatch.setattr(programs, "_available_bytes", lambda: 64 << 30)
    monkeypatch.setattr(programs.os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(golang, "downloading_ahead", lambda _: contextlib.nullcontext())
    return made


def test_programs_are_built_side_by_side(tmp_path: Path, recipes: dict[str, Callable[[cache.Step], None]]) -> None:
    both = threading.Barrier(2, timeout=10)
    recipes |= {"one": lambda _: both.wait(), "two": lambda _: both.wait()}  # type: ignore[dict-item, return-value]
    twin = Twin("t", 1, tmp_path, tmp_path, simulated=True)
    programs.build_missing(twin, ["one", "two"])
    assert set(cache.build_times(tmp_path)) == {"one 1.0", "two 1.0"}


def test_a_build_that_fails_ends_the_one_beside_it(
    tmp_path: Path, recipes: dict[str, Callable[[cache.Step], None]]
) -> None:
    begun = threading.Event()

    def fail(step: cache.Step) -> None:
        begun.wait(10)
        step.run(["sh", "-c", "sleep 0.5; echo the reason; exit 3"])

    def last(step: cache.Step) -> None:
        begun.set()
        step.run(["sleep", "600"])

    recipes |= {"bad": fail, "slow": last, "third": last}
    twin = Twin("t", 1, tmp_path, tmp_path, simulated=True)
    started = time.monotonic()
    with pytest.raises(TwinError, match="the reason"):
        programs.build_missing(twin, ["bad", "slow", "third"])
    assert time.monotonic() - started < 30
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


@given(st.integers(0, 1 << 40), st.integers(1, 256))
def test_builds_side_by_side_fit_memory_and_processors(available: int, processors: int) -> None:
    found = programs.side_by_side(available, processors)
    assert 1 <= found <= max(1, min(2, processors))
    assert found == 1 or found * (4 << 30) <= available


@pytest.mark.parametrize("answer", ["go1.21.0", "go1.26.8", "go2.0", "go1.25rc1"])
def test_go_that_will_do(answer: str) -> None:
    assert golang.go_problem(answer) is None


@pytest.mark.parametrize(("answer", "said"), [("", "Go is missing"), ("go1.19.8", "Go is go1.19.8")])
def test_go_that_won_t_do_is_said_with_what_mends_it(answer: str, said: str) -> None:
    problem = golang.go_problem(answer)
    assert problem is not None
    assert said in problem
    assert "https://go.dev/dl" in problem


def test_every_program_has_a_recipe_of_its_own() -> None:
    folders = {golang.part(name).directory(Path("/cache")) for name in golang.programs()}
    assert len(folders) == len(golang.programs())
    several = (
        programs.ALWAYS,
        programs.WITH_ROOT,
        programs.SIMULATED,
        programs.FOR_TESTS,
        programs.FOR_BENCH,
        programs.LINTERS,
    )
    assert {name for names in several for name in names} == set(golang.programs())


def _changed(monkeypatch: pytest.MonkeyPatch, folder: Path, *paths: str) -> Path:
    (folder / "module" / "pkg").mkdir(parents=True)
    (folder / "module" / "pkg" / "all.go").write_text("package all\n")
    (folder / "module" / "main.go").write_text("package main\n")
    (folder / "module" / "pkg").chmod(0o555)
    monkeypatch.setattr(golang, "module", lambda path, version: {"Dir": str(folder / "module")})
    program = golang.Program("thing", "1.0", "example.com/thing", instead=dict.fromkeys(paths, "package few\n"))
    golang._write_wrapper(program, folder / "wrapper")
    return folder / "wrapper"


def test_a_file_compiled_differently_leaves_the_module_as_it_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wrapper = _changed(monkeypatch, tmp_path, "pkg/all.go")
    assert "replace example.com/thing => ./changed" in (wrapper / "go.mod").read_text().splitlines()
    assert (wrapper / "changed" / "pkg" / "all.go").read_text() == "package few\n"
    assert (wrapper / "changed" / "main.go").read_text() == "package main\n"
    assert (tmp_path / "module" / "pkg" / "all.go").read_text() == "package all\n"


def test_a_file_that_the_module_no_longer_has_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(TwinError, match=r"example\.com/thing v1\.0 has no pkg/gone\.go"):
        _changed(monkeypatch, tmp_path, "pkg/gone.go")


def test_what_is_compiled_differently_is_part_of_the_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    before = golang.part("external-secrets").directory(Path("/cache"))
    monkeypatch.setattr(golang, "_EXTERNAL_SECRETS_OF_AWS", {"pkg/provider/register/register.go": "package register\n"})
    assert golang.part("external-secrets").directory(Path("/cache")) != before


@pytest.mark.parametrize("answer", ["v3.250.0", "3.250.1", "v3.251.0", "v3.1000.0"])
def test_pulumi_that_is_new_enough(answer: str) -> None:
    assert installed.new_enough(answer, "3.250.0")


@pytest.mark.parametrize("answer", ["v3.249.9", "v2.300.0", "v4.0.0", "v3.251.0-alpha.1", "", "command not found"])
def test_pulumi_that_is_not(answer: str) -> None:
    assert not installed.new_enough(answer, "3.250.0")


def _install_pulumi(folder: Path, version: str, *, companions: bool = True) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = ["pulumi", *(("pulumi-language-python", "pulumi-language-python-exec") if companions else ())]
    for name in names:
        (folder / name).write_text(f"#!/bin/sh\necho {version}\n")
        (folder / name).chmod(0o755)


def test_an_installed_pulumi_is_used_with_its_language_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, cached = tmp_path / "bin", tmp_path / "cache"
    _install_pulumi(folder, "v3.999.1")
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    part = installed.pulumi(cached)
    assert part is not None
    linked = cache.ensure(cached, part) / "bin"
    assert {path.name: path.resolve().parent for path in linked.iterdir()} == dict.fromkeys(
        ("pulumi", "pulumi-language-python", "pulumi-language-python-exec"), folder
    )


@pytest.mark.parametrize(("version", "companions"), [("v3.249.0", True), ("v3.999.1", False)])
def test_an_old_or_lonely_pulumi_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, *, companions: bool
) -> None:
    _install_pulumi(tmp_path / "bin", version, companions=companions)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    assert installed.pulumi(tmp_path / "cache") is None


def test_the_cache_s_own_pulumi_on_path_is_no_installed_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _install_pulumi(tmp_path / "cache" / "pulumi-1" / "bin", "v3.999.1")
    monkeypatch.setenv("PATH", f"{tmp_path / 'cache' / 'pulumi-1' / 'bin'}:{os.environ['PATH']}")
    assert installed.pulumi(tmp_path / "cache") is None


def test_simulated_nodes_need_fewer_debian_packages() -> None:
    assert debian.part(with_root=True).name != debian.part(with_root=False).name
    assert not set(debian.PACKAGES) & set(debian.ROOT_PACKAGES)


@pytest.mark.parametrize(
    ("rule", "exclusions", "tag", "immutable"),
    [
        ("IMMUTABLE", (), "v1", True),
        ("MUTABLE", (), "v1", False),
        ("IMMUTABLE_WITH_EXCLUSION", ("dev-*",), "v1", True),
        ("IMMUTABLE_WITH_EXCLUSION", ("dev-*",), "dev-1", False),
        ("IMMUTABLE_WITH_EXCLUSION", ("dev-*",), "my-dev-1", True),
        ("MUTABLE_WITH_EXCLUSION", ("v*",), "v1.0", True),
        ("MUTABLE_WITH_EXCLUSION", ("v1.0",), "v1x0", False),
    ],
)
def test_which_tags_keep_their_digest(rule: str, exclusions: tuple[str, ...], tag: str, *, immutable: bool) -> None:
    assert Repository("shopcat", rule, exclusions).immutable(tag) is immutable


_MOUNTS = """\
1 0 0:1 / / rw - overlay overlay rw
2 1 0:2 / /var/cache rw - ext4 /dev/sda rw
3 1 0:3 / /var/cache2 rw - tmpfs tmpfs rw
"""


@pytest.mark.parametrize(
    ("folder", "driver"), [("/home/x", "vfs"), ("/var/cache/twin", "overlay"), ("/var/cachet", "vfs")]
)
def test_no_overlay_on_an_overlay(folder: str, driver: str) -> None:
    assert buildah.storage_driver(Path(folder), _MOUNTS) == driver


def _layer(files: dict[str, bytes]) -> bytes:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return gzip.compress(plain.getvalue(), mtime=0)


@given(st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.binary(max_size=64), max_size=4))
def test_a_manifest_names_what_it_is_made_of(files: dict[str, bytes]) -> None:
    layer = _layer(files)
    recipe = image_layers.Recipe("a/b", "1", Path("unused"), entrypoint=("/x",), user="1:1")
    configuration, manifest = registry_client._manifest(recipe, layer)
    document = json.loads(manifest)
    assert document["config"]["digest"] == f"sha256:{hashlib.sha256(configuration).hexdigest()}"
    assert document["config"]["size"] == len(configuration)
    (described,) = document["layers"]
    assert (described["digest"], described["size"]) == (f"sha256:{hashlib.sha256(layer).hexdigest()}", len(layer))
    (plain,) = json.loads(configuration)["rootfs"]["diff_ids"]
    assert plain == f"sha256:{hashlib.sha256(gzip.decompress(layer)).hexdigest()}"
    assert registry_client._manifest(recipe, layer) == (configuration, manifest), "the same content, the same digest"


def test_a_layer_of_the_same_tree_is_the_same_to_the_byte(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "folder").mkdir(parents=True)
        (tmp_path / name / "folder" / "file").write_text("content")
        (tmp_path / name / "link").symlink_to("folder/file")
        os.utime(tmp_path / name / "folder" / "file", (len(name), 1000 if name == "one" else 2000))
        image_layers.tar_tree(tmp_path / name, tmp_path / f"{name}.tar.gz")
    assert (tmp_path / "one.tar.gz").read_bytes() == (tmp_path / "two.tar.gz").read_bytes()


def _language_host(folder: Path, *texts: str) -> None:
    """A copy of what upstream's language host is made of, with these texts in it."""
    host = folder / "cmd" / "pulumi-language-python"
    host.mkdir(parents=True)
    (host / "main.go").write_text("\n".join(texts))
    for name in ("python.go", "shim_unix.go", "shim_windows.go"):
        (folder / name).write_text("package python")


def test_the_language_host_is_upstreams_with_the_protocol_of_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, after = zip(*golang._LANGUAGE_HOST_CHANGES, strict=True)
    _language_host(tmp_path / "upstream", "package main", *before)
    monkeypatch.setattr(golang, "_language_host_source", lambda: tmp_path / "upstream")
    wrapper = tmp_path / "wrapper"
    wrapper.mkdir()
    golang._copy_language_host(tmp_path, wrapper)
    assert (wrapper / "main.go").read_text().splitlines() == ["package main", *after]
    assert len(list((wrapper / "python").iterdir())) == 3


@pytest.mark.parametrize("missing", range(len(golang._LANGUAGE_HOST_CHANGES)))
def test_a_language_host_with_another_text_is_not_changed_by_halves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: int
) -> None:
    texts = [before for before, _ in golang._LANGUAGE_HOST_CHANGES]
    _language_host(tmp_path / "upstream", *texts[:missing], *texts[missing + 1 :])
    monkeypatch.setattr(golang, "_language_host_source", lambda: tmp_path / "upstream")
    with pytest.raises(TwinError, match="to be changed"):
        golang._copy_language_host(tmp_path, tmp_path)
