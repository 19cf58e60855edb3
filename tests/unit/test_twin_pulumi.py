"""Which plugin the twin's engine gets, and what `make status` says of it."""

from importlib.metadata import version
from pathlib import Path

import pytest

from twin import pulumi
from twin.build import golang, programs
from twin.config import Twin

ALL = pytest.mark.parametrize("name", pulumi.PROVIDERS)


@pytest.fixture
def twin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Twin:
    made = Twin("plugins", 9, tmp_path / "cache", tmp_path / "state", simulated=True)
    built = made.cache / "pulumi-kubernetes-1" / "bin" / "pulumi-resource-kubernetes"
    built.parent.mkdir(parents=True)
    built.write_text("built")
    monkeypatch.setattr(programs, "program", lambda _, name: built.with_name(name))
    monkeypatch.setenv("PULUMI_HOME", str(tmp_path / "nobody"))
    return made


def plugin(home: Path, name: str) -> Path:
    return home / "plugins" / f"resource-{name}-v{version(f'pulumi-{name}')}"


def released(home: Path, name: str) -> Path:
    folder = plugin(home, name)
    folder.mkdir(parents=True)
    (folder / f"pulumi-resource-{name}").write_text("released")
    (folder / "PulumiPlugin.yaml").write_text("runtime: nodejs")
    return folder


def described(twin: Twin, name: str) -> str:
    (found,) = [one for one in pulumi.status(twin) if one.name == f"plugin {name}"]
    assert found.ok
    return found.detail


def text_of(twin: Twin, name: str) -> str:
    return (plugin(twin.directory / "pulumi-home", name) / f"pulumi-resource-{name}").read_text()


@ALL
def test_nobody_has_installed_one(twin: Twin, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The second time as after `eval "$(make -s env)"`, by which PULUMI_HOME is the twin's own."""
    for _ in range(2):
        pulumi._install_plugin(twin, name)
        if name == "kubernetes":
            assert text_of(twin, name) == "built"
            assert described(twin, name) == f"upstream {golang.KUBERNETES_PLUGIN}, built here"
        else:
            assert f"twin.plugins.{name}" in text_of(twin, name)
            assert described(twin, name) == "stand-in"
        monkeypatch.setenv("PULUMI_HOME", str(twin.directory / "pulumi-home"))


@ALL
def test_an_installed_release_is_used_also_from_a_twin_s_home_that_links_to_it(
    twin: Twin, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    own = released(tmp_path / "own", name)
    for home in (tmp_path / "own", twin.directory / "pulumi-home"):
        monkeypatch.setenv("PULUMI_HOME", str(home))
        pulumi._install_plugin(twin, name)
        assert text_of(twin, name) == "released"
        assert described(twin, name) == f"upstream {version(f'pulumi-{name}')}, as installed in {own}"


@ALL
def test_the_engine_ignores_a_folder_that_is_a_symlink_so_none_is_made(
    twin: Twin, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    folder = plugin(twin.directory / "pulumi-home", name)
    for home in (tmp_path / "nobody", tmp_path / "own"):
        monkeypatch.setenv("PULUMI_HOME", str(home))
        if home.name == "own":
            released(home, name)
        pulumi._install_plugin(twin, name)
        assert folder.is_dir()
        assert not folder.is_symlink()
        assert {path.name for path in folder.iterdir()} >= {f"pulumi-resource-{name}", "twin-origin"}


@ALL
def test_a_release_that_is_gone_again_is_missed(
    twin: Twin, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    own = released(tmp_path / "own", name)
    monkeypatch.setenv("PULUMI_HOME", str(tmp_path / "own"))
    pulumi._install_plugin(twin, name)
    (own / f"pulumi-resource-{name}").unlink()
    (found,) = [one for one in pulumi.status(twin) if one.name == f"plugin {name}"]
    assert not found.ok
    pulumi._install_plugin(twin, name)
    assert described(twin, name) != f"upstream {version(f'pulumi-{name}')}"


def test_a_cli_and_a_language_host_built_apart_are_put_side_by_side(
    twin: Twin, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pulumi", "pulumi-language-python", "kubernetes", "helm"):
        (twin.cache / name / "bin").mkdir(parents=True)
        (twin.cache / name / "bin" / name).write_text(name)
    monkeypatch.setattr(programs, "directory", lambda _, name: twin.cache / name)
    folder, *others = programs.path_directories(twin)
    assert sorted(path.name for path in folder.iterdir()) == ["pulumi", "pulumi-language-python"]
    assert not any(path.is_symlink() for path in folder.iterdir()), "the CLI looks beside the file that a link leads to"
    assert others == [twin.cache / "kubernetes" / "bin", twin.cache / "helm" / "bin"]


def test_a_release_of_the_cli_has_its_language_host_beside_it(twin: Twin, monkeypatch: pytest.MonkeyPatch) -> None:
    release = twin.cache / "pulumi-release"
    monkeypatch.setattr(programs, "directory", lambda _, name: release if "pulumi" in name else twin.cache / name)
    assert programs.path_directories(twin)[0] == release / "bin"
