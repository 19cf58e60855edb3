"""Remove a preview by its number alone: its namespace, what AWS holds under its names, the files of its state.

A pull request can write its own state, so none is read here, no command from there is run and no plugin is started; what a
state leaves out is found all the same. Every deletion is complete or was done before, so one that was cut off is run again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from infra.clients import kubernetes
from infra.errors import KubernetesUnreachableError
from infra.names import APPLICATION
from infra.previews.slots import Leftovers
from pipeline import state
from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from infra.clients.aws import AwsClients
    from infra.clients.kubernetes import KubernetesClient
    from pipeline.state import Files
    from pipeline.steps import Steps

NAMESPACE_SECONDS = 600
"""Longest wait for a namespace to go where the job has no limit of its own: several times a preview's longest grace period."""
_POLL_SECONDS = 2.0


def cluster(clients: AwsClients, info: Mapping[str, Any]) -> KubernetesClient:
    """Return a client of production's cluster, by the AWS credentials at hand."""
    return kubernetes.of_cluster(clients, info["cluster"], info["clusterEndpoint"], info["clusterAuthority"])


def deployed_tag(client: KubernetesClient, stack: str) -> str:
    """Return the tag of the image that a preview runs; empty if it runs none, or may not be asked."""
    try:
        deployment = client.deployment(stack, APPLICATION)
    except KubernetesUnreachableError:
        return ""
    labels = (((deployment or {}).get("spec") or {}).get("template") or {}).get("metadata", {}).get("labels", {})
    return str(labels.get("shopcat/release", ""))


def delete_namespace(client: KubernetesClient, stack: str, timeout_seconds: float) -> bool:
    """Delete the preview's namespace with all that is in it, and wait until it is gone; return whether there was one.

    Raises:
        ShopCatError: the API server says no, or something in it holds it longer than ``timeout_seconds``.
    """
    path = f"/api/v1/namespaces/{stack}"
    if client.delete(path) is None:
        return False
    end = time.monotonic() + timeout_seconds
    while (namespace := client.get(path)) is not None:
        if time.monotonic() > end:
            conditions = (namespace.get("status") or {}).get("conditions") or []
            reasons = "; ".join(
                str(condition.get("message", "")) for condition in conditions if condition.get("status") == "True"
            )
            raise PipelineError(
                f"namespace {stack} is still being deleted after {timeout_seconds:.0f} s ({reasons or 'no reason is given'}); "
                "nothing else of the preview was touched, run this again"
            )
        time.sleep(_POLL_SECONDS)
    return True


def remove_preview(
    clients: AwsClients,
    client: KubernetesClient,
    info: Mapping[str, Any],
    files: Files,
    stack: str,
    steps: Steps,
    timeout_seconds: float = NAMESPACE_SECONDS,
) -> bool:
    """Remove all of a preview but its images; return whether anything of it was in the cluster or in the state's folder.

    The namespace goes first, while the controller still finds the target group that its binding names; the slot goes last
    of what is in AWS, since the next preview may take it then.

    Raises:
        ShopCatError: something could not be removed; what and why.
    """
    with steps.timed("namespace"):
        existed = delete_namespace(client, stack, timeout_seconds)
    with steps.timed("AWS"):
        Leftovers.of(clients, stack, info).delete()
    with steps.timed("state"):
        return state.remove_files(files, stack) or existed
