"""Explain a failed migration: Pulumi reports only that its Job failed, the reason is in the Job and its pod."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from infra.names import SHOP_NAMESPACE

if TYPE_CHECKING:
    from infra.clients.kubernetes import KubernetesClient
    from infra.release.record import TemplateInput

JOB_LABEL = "batch.kubernetes.io/job-name"
"""Kubernetes puts it on a Job's pods (kubernetes.io/docs/reference/labels-annotations-taints)."""
AGAIN = "then abort this release and release its tag again, since an open one keeps its record"
KILLED = 137
"""128 + SIGKILL: what a shell, or any parent, answers whose child the kernel killed for want of memory."""


def why_failed(name: str, template: TemplateInput, job: Mapping[str, Any], pods: Sequence[Mapping[str, Any]]) -> str:
    """Say why a migration's Job failed and which setting mends it; nothing if Kubernetes does not say."""
    conditions = (job.get("status") or {}).get("conditions") or []
    reasons = {each.get("reason") for each in conditions if each.get("type") in {"Failed", "FailureTarget"}}
    if "DeadlineExceeded" in reasons:
        return (
            f"migration {name} did not end within {template.migrate_deadline_seconds} s and was stopped; raise "
            f"shopcat:release.migrateDeadline, {AGAIN}"
        )
    memory = f"{template.migrate_memory_mebibytes}Mi"
    for ended in _has_ended(pods):
        if ended.get("reason") == "OOMKilled":
            return (
                f"migration {name} was killed because it used more than its {memory} of memory (OOMKilled); raise "
                f"shopcat:release.migrateMemory (by default shopcat:release.memory), {AGAIN}"
            )
        if ended.get("exitCode") == KILLED:
            return (
                f"migration {name} ended with exit code {KILLED}: it, or a process of it, was killed, most likely because it "
                f"used more than its {memory} of memory; raise shopcat:release.migrateMemory, {AGAIN}"
            )
        if ended.get("exitCode"):
            return (
                f"migration {name} ended with exit code {ended['exitCode']}; what it said: "
                f"kubectl -n {SHOP_NAMESPACE} logs job/{name}"
            )
    return ""


def read_why_failed(client: KubernetesClient, name: str, template: TemplateInput) -> str:
    """Ask the cluster for the Job and its pods, and say why it failed.

    Raises:
        ShopCatError: the cluster does not answer.
    """
    pods = client.pods(SHOP_NAMESPACE, {JOB_LABEL: name})
    return why_failed(name, template, client.job(SHOP_NAMESPACE, name) or {}, pods)


def _has_ended(pods: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    for pod in pods:
        for container in (pod.get("status") or {}).get("containerStatuses") or []:
            if ended := (container.get("state") or {}).get("terminated"):
                yield ended
