"""The reaper's whole run: pull requests from a server on this machine, AWS by moto, and a cluster that is a list of names."""

import json
import os
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moto import mock_aws

from infra.clients.aws import AwsClients
from infra.errors import KubernetesUnreachableError, ShopCatError
from infra.names import CLUSTER_INFO_PARAMETER
from infra.previews import slots
from pipeline import __main__, environment, reaper, removal, state
from tests.unit.test_pipeline import write
from tests.unit.test_pipeline_github import Served, served
from tests.unit.test_pipeline_plan import event

__all__ = ["served"]

LISTENER = "arn:aws:elasticloadbalancing:eu-central-1:123456789012:listener/app/shopcat-preview/1/2"
NUMBERS = (11, 12, 13, 14, 15, 16, 17, 18)


class Cluster:
    """Namespaces by name: deleted at once, but for one whose deletion is refused and one that hangs."""

    def __init__(self, namespaces: Iterable[str]) -> None:
        self.namespaces = set(namespaces)
        self.deleted: list[str] = []

    def deployment(self, namespace: str, name: str) -> dict[str, Any] | None:
        raise KubernetesUnreachableError("the clean-up may not read that")

    def get(self, path: str) -> dict[str, Any] | None:
        name = path.rpartition("/")[2]
        held = [{"status": "True", "message": "some finalizers remain"}, {"status": "False", "message": "none"}]
        return {"status": {"conditions": held}} if name in self.namespaces else None

    def delete(self, path: str) -> dict[str, Any] | None:
        found, name = self.get(path), path.rpartition("/")[2]
        if name == "pr-13":
            raise KubernetesUnreachableError("no way")
        if name != "pr-15":
            self.namespaces.discard(name)
        self.deleted.append(name)
        return found


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    made = Cluster(f"pr-{number}" for number in NUMBERS)
    monkeypatch.setattr(removal, "cluster", lambda *_: made)
    monkeypatch.setattr(removal, "_POLL_SECONDS", 0.01)
    monkeypatch.setattr(reaper, "LEAST_SECONDS", 0.1)
    monkeypatch.setattr(reaper, "MOST_SECONDS", 0.1)
    return made


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file in Pulumi's place that nobody may call."""
    program = tmp_path / "bin" / "pulumi"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho "$@" >> "$LOG"\nexit 1\n')
    program.chmod(0o755)
    write(state.Directory(tmp_path / "s"), *(f".pulumi/stacks/shopcat/pr-{number}.json" for number in NUMBERS))
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        clients = AwsClients("eu-central-1")
        found = {"placesTable": "places", "previewListenerArn": LISTENER, "previewDomain": "previews.example.net"}
        clients.get("ssm").put_parameter(Name=CLUSTER_INFO_PARAMETER, Type="String", Value=json.dumps(found))
        clients.get("dynamodb").create_table(
            TableName="places",
            KeySchema=[{"AttributeName": "place", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "place", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        yield tmp_path / "log"


def files(log: Path) -> state.Directory:
    return state.Directory(log.parent / "s")


def left(log: Path) -> list[int]:
    return [one.number for one in state.preview_stacks(files(log))]


def job_environment(served: Served, log: Path) -> dict[str, str]:
    return {
        "GITHUB_API_URL": f"http://127.0.0.1:{served.server_port}",
        "GITHUB_REPOSITORY": "shop/cat",
        "GITHUB_TOKEN": "secret",
        "PULUMI_BACKEND_URL": f"file://{log.parent}/s",
        "SHOPCAT_SECRETS_PROVIDER": "passphrase",
    }


def test_what_was_missed_is_closed_and_one_failure_keeps_nothing_else_open(
    served: Served, log: Path, cluster: Cluster, capfd: pytest.CaptureFixture[str]
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
    lock = ".pulumi/locks/organization/shopcat/pr-18/x.json"
    write(files(log), lock)
    assert reaper.reap(job_environment(served, log)) == 2
    assert sorted(cluster.deleted) == ["pr-11", "pr-14", "pr-15", "pr-17"]
    assert not log.exists(), "no Pulumi, no plugin"
    assert left(log) == [12, 13, 15, 16, 18]
    assert list(files(log).listed(".pulumi/locks")) == [lock]
    said = capfd.readouterr()
    assert "::error title=pr-13::no way" in said.err
    assert "::error title=pr-15::namespace pr-15 is still being deleted after 0 s (some finalizers remain)" in said.err
    assert "pr-16 is wanted again" in said.out
    assert "pr-18 stays until the next run" in said.out
    assert len(served.comments) == 1
    assert "comes from a fork" in served.comments[0]["body"]


def written() -> list[float]:
    """Values of the metric that the alarm of the clean-up reads."""
    query = {
        "Id": "m",
        "MetricStat": {
            "Metric": {"Namespace": "ShopCat", "MetricName": "PreviewsNotClosed"},
            "Period": 3600,
            "Stat": "Maximum",
        },
    }
    now = datetime.now(UTC)
    answer = (
        AwsClients("eu-central-1")
        .get("cloudwatch")
        .get_metric_data(
            MetricDataQueries=[query], StartTime=now - timedelta(minutes=30), EndTime=now + timedelta(minutes=29)
        )
    )
    return list(answer["MetricDataResults"][0]["Values"])


@pytest.mark.parametrize("values", [[2.0], []])
def test_a_watched_run_writes_how_many_stayed(
    served: Served, log: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, values: list[float]
) -> None:
    monkeypatch.setattr(reaper, "is_monitored", lambda: bool(values))
    assert reaper.reap(job_environment(served, log)) == 2
    assert written() == values


def test_a_run_that_ends_early_writes_nothing(
    served: Served, log: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the alarm has no data, which breaches."""
    monkeypatch.setattr(reaper, "is_monitored", lambda: True)
    AwsClients("eu-central-1").get("dynamodb").delete_table(TableName="places")
    with pytest.raises(ShopCatError):
        reaper.reap(job_environment(served, log))
    assert written() == []


def test_watching_is_what_the_committed_file_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "Pulumi.prod.yaml"
    monkeypatch.setattr(environment, "PRODUCTION_FILE", path)
    for text, is_watched in (("", False), ("  shopcat:monitoring:\n    email: a@example.com\n", True)):
        path.write_text(f"config:\n  aws:region: eu-central-1\n{text}")
        assert environment.is_monitored() is is_watched


@given(st.integers(1, 60), st.data())
def test_previews_that_hang_leave_the_others_their_time(count: int, data: st.DataObject) -> None:
    """Each takes its whole share or less: the run stays within its time, and none is given less than it needs."""
    left = float(reaper.RUN_SECONDS)
    served = 0
    for position in range(count):
        seconds = reaper.share_seconds(left, count - position)
        if not seconds:
            break
        served += 1
        assert reaper.LEAST_SECONDS <= seconds <= reaper.MOST_SECONDS
        left -= data.draw(st.floats(0, seconds))
        assert left >= 0
    assert served >= min(count, reaper.RUN_SECONDS // reaper.MOST_SECONDS)
    assert served == count or left < reaper.LEAST_SECONDS


def test_the_order_is_another_each_time(
    served: Served, log: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A preview that hangs is not the first again and again; and what one run has no time for is named."""
    drawn: list[int] = []
    monkeypatch.setattr(reaper.random, "sample", lambda found, count: drawn.extend(found) or found[::-1][:count])
    monkeypatch.setattr(reaper, "share_seconds", lambda left, count: 0 if count == 1 else 0.1)
    reaper.reap(job_environment(served, log))
    said = capfd.readouterr().out
    assert drawn == list(NUMBERS)
    assert [int(one) for one in re.findall(r"^closing pr-(\d+)", said, re.MULTILINE)] == drawn[:0:-1]
    assert f"no time is left: pr-{drawn[0]} stay" in said


def take(number: int, holder: str) -> None:
    item = json.loads(slots.PreviewSlot(number, holder, "2026-05-04T12:00:00+00:00").item())
    AwsClients("eu-central-1").get("dynamodb").put_item(TableName="places", Item=item)


def test_a_place_that_no_stack_owns_is_freed(
    served: Served, log: Path, cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    served.pulls = [event(number=number)["pull_request"] for number in NUMBERS]
    take(1, "pr-12")
    take(2, "pr-99")  # it was killed right after it took the place, and its stack was removed
    take(3, "staging")
    assert reaper.reap(job_environment(served, log)) == 0
    assert [one.stack for one in slots.read_slots(AwsClients("eu-central-1"), "places")] == ["pr-12"]
    assert "closing pr-99: it holds a place and has no stack" in capfd.readouterr().out
    assert left(log) == list(NUMBERS)


def test_without_github_nobody_knows_what_is_open(log: Path) -> None:
    with pytest.raises(ShopCatError, match="GITHUB_TOKEN"):
        reaper.reap({})
    assert not log.exists()


@pytest.fixture
def closing(served: Served, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of the job that the end of pull request 17 started."""
    path = log.parent / "event.json"
    path.write_text(json.dumps(event(number=17, state="closed")))
    for name, value in {**job_environment(served, log), "GITHUB_EVENT_PATH": str(path)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.argv", ["pipeline", "preview", "close"])


def test_a_closed_pull_request_s_preview_is_removed_without_pulumi(
    served: Served, log: Path, cluster: Cluster, closing: None
) -> None:
    served.pulls = [event(number=17, state="closed")["pull_request"]]
    take(1, "pr-17")
    assert __main__.main() == 0
    assert cluster.deleted == ["pr-17"]
    assert left(log) == [number for number in NUMBERS if number != 17]
    assert slots.read_slots(AwsClients("eu-central-1"), "places") == []
    assert not log.exists()
    assert __main__.main() == 0, "there is nothing left, so there is nothing to do"


def test_a_pull_request_that_is_open_again_is_not_closed(served: Served, log: Path, closing: None) -> None:
    served.pulls = [event(number=17)["pull_request"]]
    assert __main__.main() == 0
    assert not log.exists()
