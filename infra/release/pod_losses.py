"""Losses of running pods by the write of a Deployment: plain functions of what is declared and what stands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from infra.errors import ReleaseError
from infra.release import drift

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from infra.release.record import Record

TEMPLATE_ANNOTATION = "shopcat/template"
"""Hash of the template that a Deployment was made from."""


def wanted_pods(standing: Mapping[str, Any] | None) -> int:
    """Return how many pods a Deployment asks for as it stands in the cluster; 0 if there is none."""
    return int(((standing or {}).get("spec") or {}).get("replicas") or 0)


def losses(
    declared: Mapping[str, Any], standing: Mapping[str, Any] | None, pods: Sequence[Mapping[str, Any]]
) -> list[str]:
    """List what the write of a Deployment takes from pods that run: all of them, or the template they were made from.

    The cluster alone is asked; a state may be older than it, or hold what a refresh found there. Fewer replicas than
    somebody scaled to by hand are no loss while the release's own number stays.

    Args:
        declared: the Deployment's inputs as they are to be written.
        standing: the Deployment as it stands in the cluster, if there is one.
        pods: the colour's pods that are there to stay.
    """
    running = max(len(pods), wanted_pods(standing))
    replicas = int(declared["spec"].get("replicas") or 0)
    if running == 0:
        return []
    lost = [f"replicas {running} -> 0"] if replicas == 0 else []
    return [*lost, "template"] if _template_changes(declared, standing) else lost


def _template_mark(deployment: Mapping[str, Any] | None) -> str:
    """Return the hash of the template that a Deployment was made from; empty if it has none."""
    metadata = (deployment or {}).get("metadata") or {}
    return str((metadata.get("annotations") or {}).get(TEMPLATE_ANNOTATION, ""))


def _template_changes(declared: Mapping[str, Any], standing: Mapping[str, Any] | None) -> bool:
    mark = _template_mark(standing)
    if mark and mark != _template_mark(declared):
        return True
    return bool(
        drift.object_differences(declared["spec"]["template"], ((standing or {}).get("spec") or {}).get("template"))
    )


def refuse_other_pods(
    record: Record, state: str, way_out: str, declared: Mapping[str, Any], standing: Mapping[str, Any] | None
) -> None:
    """Refuse a write that takes more from pods with users than what somebody changed by hand.

    Args:
        record: of the release that the pods are of.
        state: who has users where, for the message.
        way_out: what a person does, for the message.
        declared: the Deployment's inputs as they are to be written.
        standing: the Deployment as it stands in the cluster, if there is one.

    Raises:
        ReleaseError: it takes pods, or this program would make others of the record.
    """
    replicas, mark = declared["spec"].get("replicas") or 0, _template_mark(standing)
    if replicas < record.template.replicas:
        raise ReleaseError(f"{state}; a write of {replicas} replicas there is refused")
    if mark and mark != _template_mark(declared):
        raise ReleaseError(
            f"{state}, and this program would make other pods of its record than the one that released it; {way_out}"
        )
