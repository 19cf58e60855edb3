"""Why a migration failed: what Kubernetes says of its Job and pod, in a person's words."""

from __future__ import annotations

from typing import Any

import pytest

from infra.release.migration import JOB_LABEL, read_why_failed, why_failed
from tests.unit.releases import template

TEMPLATE = template(migrate=("m",), migrate_deadline_seconds=600, migrate_memory_mebibytes=96)
NAME = "migrate-v1.0.0-r1-a1"


def job(reason: str = "BackoffLimitExceeded") -> dict[str, Any]:
    return {"status": {"conditions": [{"type": "Failed", "status": "True", "reason": reason}]}}


def pod(**terminated: Any) -> dict[str, Any]:
    return {"status": {"containerStatuses": [{"state": {"terminated": terminated}}]}}


@pytest.mark.parametrize(
    ("found", "pods", "words"),
    [
        (job(), [pod(reason="OOMKilled", exitCode=137)], ["96Mi", "OOMKilled", "shopcat:release.migrateMemory"]),
        (job(), [pod(reason="Error", exitCode=137)], ["137", "96Mi", "shopcat:release.migrateMemory"]),
        (job("DeadlineExceeded"), [], ["within 600 s", "shopcat:release.migrateDeadline"]),
        (job("DeadlineExceeded"), [pod(reason="Error", exitCode=137)], ["within 600 s"]),
        (job(), [pod(reason="Error", exitCode=3)], ["exit code 3", f"logs job/{NAME}"]),
    ],
)
def test_the_reason_and_the_setting_are_named(found: Any, pods: Any, words: list[str]) -> None:
    text = why_failed(NAME, TEMPLATE, found, pods)
    assert NAME in text
    for word in words:
        assert word in text


@pytest.mark.parametrize("found", [{}, {"status": None}, {"status": {}}, job()])
@pytest.mark.parametrize("pods", [[], [{}], [{"status": None}], [{"status": {"containerStatuses": [{"state": {}}]}}]])
def test_what_kubernetes_does_not_say_is_not_made_up(found: Any, pods: Any) -> None:
    assert why_failed(NAME, TEMPLATE, found, pods) == ""


def test_the_pods_are_those_of_this_attempt() -> None:
    class Cluster:
        def pods(self, namespace: str, labels: dict[str, str]) -> list[Any]:
            assert labels == {JOB_LABEL: NAME}
            return [pod(reason="OOMKilled", exitCode=137)]

        def job(self, namespace: str, name: str) -> None:
            assert name == NAME

    assert "OOMKilled" in read_why_failed(Cluster(), NAME, TEMPLATE)  # type: ignore[arg-type]
