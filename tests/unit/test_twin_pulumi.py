from importlib.metadata import version
from pathlib import Path

import pytest

from twin import pulumi


def plugin(home: Path) -> Path:
    return home / "plugins" / f"resource-aws-v{version('pulumi-aws')}"


def test_the_stand_in_stays_when_the_twin_s_own_home_is_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after `eval "$(make -s env)"`."""
    monkeypatch.setenv("PULUMI_HOME", str(tmp_path))
    for _ in range(2):
        pulumi._install_plugin(tmp_path, "aws")
        assert not plugin(tmp_path).is_symlink()
        assert "twin.plugins.aws" in (plugin(tmp_path) / "pulumi-resource-aws").read_text()


def test_an_installed_plugin_is_used_also_from_a_home_that_points_at_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, home = tmp_path / "own", tmp_path / "twin"
    plugin(own).mkdir(parents=True)
    (plugin(own) / "pulumi-resource-aws").write_text("upstream")
    for current in (own, home):
        monkeypatch.setenv("PULUMI_HOME", str(current))
        pulumi._install_plugin(home, "aws")
        assert plugin(home).resolve() == plugin(own)
