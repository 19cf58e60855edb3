"""Another version of Kubernetes: whether EKS takes it, and whether what runs in the cluster does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from infra.clients.aws import error_code, explain
from infra.errors import PreflightError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from infra.clients.aws import AwsClients


@dataclass(frozen=True)
class Insight:
    """A check of EKS's own before an upgrade (docs.aws.amazon.com/eks/latest/userguide/cluster-insights.html)."""

    name: str
    status: str
    """PASSING, WARNING, ERROR or UNKNOWN."""
    reason: str


def version_refusal(live: str, wanted: str, insights: Sequence[Insight]) -> str:
    """Return why the cluster can't go from one version to another; empty if it can.

    Args:
        live: version of the control plane, such as 1.35.
        wanted: version in the settings.
        insights: EKS's checks for the wanted version. Removed APIs that are still called, nodes that would be too old and
            add-ons that don't fit are an ERROR there.
    """
    present, next_one = _minor(live), _minor(wanted)
    if next_one < present:
        return f"the cluster has Kubernetes {live}, and EKS goes back to no older version; set it to {live}"
    if next_one > present + 1:
        return (
            f"the cluster has Kubernetes {live}, and EKS goes up one minor version at a time; set it to 1.{present + 1} first, "
            "with an amiReleaseVersion of that version, and run `pulumi up -s prod`"
        )
    failed = [f"{insight.name} ({insight.reason})" for insight in insights if insight.status == "ERROR"]
    if failed and next_one != present:
        return (
            f"EKS finds the cluster not ready for it: {'; '.join(failed)}. `aws eks list-insights` and `describe-insight` say "
            f"what to change; mend that with the setting at {live}. A check that is mended is run again within a day, or by "
            "`aws eks start-insights-refresh`"
        )
    return ""


def refuse_unfit_version(clients: AwsClients, cluster: str, wanted: str) -> None:
    """Check a cluster that is there before anything of it changes; one that is not there takes any version.

    EKS's own checks are asked for only if the version is another one.

    Raises:
        PreflightError: the version is refused.
        AwsError: EKS can't be asked.
    """
    eks = clients.get("eks")
    try:
        live = str(eks.describe_cluster(name=cluster)["cluster"]["version"])
        insights = [] if live == wanted else _read_insights(clients, cluster, wanted)
    except (BotoCoreError, ClientError) as error:
        if error_code(error) == "ResourceNotFoundException":
            return
        raise explain(error, f"EKS cluster {cluster}", clients.endpoint_url) from error
    reason = version_refusal(live, wanted, insights)
    if reason:
        raise PreflightError(f"shopcat:cluster.kubernetesVersion is {wanted}: {reason}")


def _read_insights(clients: AwsClients, cluster: str, wanted: str) -> list[Insight]:
    chosen = {"categories": ["UPGRADE_READINESS"], "kubernetesVersions": [wanted]}
    pages = clients.get("eks").get_paginator("list_insights").paginate(clusterName=cluster, filter=chosen)
    return [
        Insight(
            str(found["name"]), str(found["insightStatus"]["status"]), str(found["insightStatus"].get("reason", ""))
        )
        for page in pages
        for found in page["insights"]
    ]


def _minor(version: str) -> int:
    return int(version.partition(".")[2])
