"""The reaper's whole run: pull requests from a server on this machine, AWS by moto, and what is said to `pulumi`."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from moto import mock_aws

from infra.errors import Refused
from pipeline import reaper, state
from tests.unit.test_pipeline_github import Served, served
from tests.unit.test_pipeline_plan import event

__all__ = ["served"]

PULUMI = """#!{python}
import os, sys
said = " ".join(sys.argv[1:])
open(os.environ["LOG"], "a").write(said + "\\n")
if said.startswith("stack ls"):
    print(os.environ["STACKS"])
elif said.startswith("stack output -s pr-15"):
    print("no JSON")
elif said.startswith("stack output"):
    print('{{"tag": "abc"}}')
elif said.startswith("destroy -s pr-13"):
    print("Diagnostics: no way")
    sys.exit(1)
"""


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    program = tmp_path / "bin" / "pulumi"
    program.parent.mkdir()
    program.write_text(PULUMI.format(python=sys.executable))
    program.chmod(0o755)
    numbers = (11, 12, 13, 14, 15, 16)
    for number in numbers:
        state.Directory(tmp_path / "s").write(f".pulumi/stacks/shopcat/pr-{number}.json", "{}")
    stacks = [{"name": f"pr-{number}"} for number in numbers]
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    monkeypatch.setenv("STACKS", json.dumps(stacks))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        yield tmp_path / "log"


def surroundings(served: Served, log: Path) -> dict[str, str]:
    return {
        "GITHUB_API_URL": f"http://127.0.0.1:{served.server_port}",
        "GITHUB_REPOSITORY": "shop/cat",
        "GITHUB_TOKEN": "secret",
        "PULUMI_BACKEND_URL": f"file://{log.parent}/s",
        "SHOPCAT_SECRETS_PROVIDER": "passphrase",
    }


def test_what_was_missed_is_closed_and_one_failure_keeps_nothing_else_open(
    served: Served, log: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fork = {"sha": "b" * 40, "repo": {"full_name": "else/cat"}}
    served.pulls = [
        event(number=12)["pull_request"],
        event(number=14, labels=[{"name": "no-preview"}])["pull_request"],
        event(number=7, head=fork)["pull_request"],
    ]
    # Listed as closed, and open again once it is looked at.
    reopened = event(number=16)["pull_request"]
    served.pulls.append({**reopened, "state": "closed"})
    served.meanwhile = lambda: served.pulls.__setitem__(3, reopened)
    assert reaper.run(surroundings(served, log), 14) == 2
    said = log.read_text().splitlines()
    assert [line for line in said if line.startswith("destroy")] == [
        f"destroy -s pr-{number} --yes --skip-preview --non-interactive" for number in (11, 13, 14)
    ]
    assert [line for line in said if line.startswith("stack rm")] == [
        f"stack rm pr-{number} --yes --remove-backups --non-interactive" for number in (11, 14)
    ]
    told = capfd.readouterr().err
    assert "::error title=pr-13::Diagnostics: no way" in told
    assert "::error title=pr-15::" in told
    assert len(served.comments) == 1
    assert "comes from a fork" in served.comments[0]["body"]


def test_without_github_nobody_knows_what_is_open(log: Path) -> None:
    with pytest.raises(Refused, match="GITHUB_TOKEN"):
        reaper.run({}, 14)
    assert not log.exists()
