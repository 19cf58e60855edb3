"""The network and the version of a cluster that somebody else keeps."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pulumi
from botocore.exceptions import BotoCoreError, ClientError

from infra.clients.aws import explain
from infra.errors import PreflightError
from infra.settings.limits import OLDEST_KUBERNETES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from infra.clients.aws import AwsClients
    from infra.clients.kubernetes import KubernetesClient
    from infra.settings.platform import ExistingCluster


@dataclass(frozen=True)
class ExistingNetwork:
    """The counterpart of Network for a network that somebody else keeps."""

    vpc_id: str
    cidr: str
    public_subnet_ids: list[str]
    preview_subnet_ids: list[str]
    private_subnet_ids: list[str]
    nat_addresses: list[pulumi.Output[str]]

    @staticmethod
    def of(cluster: ExistingCluster) -> ExistingNetwork:
        """Take the network from settings."""
        return ExistingNetwork(
            vpc_id=cluster.vpc_id,
            cidr=cluster.vpc_cidr,
            public_subnet_ids=list(cluster.public_subnet_ids),
            preview_subnet_ids=list(cluster.preview_subnet_ids),
            private_subnet_ids=list(cluster.private_subnet_ids),
            nat_addresses=[pulumi.Output.from_input(address) for address in cluster.nat_addresses],
        )


def load_balancer_cidrs(clients: AwsClients, cluster: ExistingCluster) -> tuple[list[str], list[str]]:
    """Read where production's load balancer has its addresses, and where the previews' has.

    Raises:
        ShopCatError: a subnet is not there, or is in another VPC.
    """
    wanted = [*cluster.public_subnet_ids, *cluster.preview_subnet_ids]
    try:
        answer = clients.get("ec2").describe_subnets(Filters=[{"Name": "subnet-id", "Values": wanted}])["Subnets"]
    except (BotoCoreError, ClientError) as error:
        raise explain(error, f"subnets {', '.join(wanted)}", clients.endpoint_url) from error
    cidrs = {subnet["SubnetId"]: subnet["CidrBlock"] for subnet in answer if subnet["VpcId"] == cluster.vpc_id}
    missing = [subnet for subnet in wanted if subnet not in cidrs]
    if missing:
        raise PreflightError(
            f"shopcat:cluster.existing: {', '.join(missing)} not found in {cluster.vpc_id}; publicSubnetIds and "
            "previewSubnetIds name subnets of that VPC (aws ec2 describe-subnets)"
        )

    def of(ids: Sequence[str]) -> list[str]:
        return [str(cidrs[subnet]) for subnet in ids]

    return of(cluster.public_subnet_ids), of(cluster.preview_subnet_ids)


def refuse_old(client: KubernetesClient) -> None:
    """Check that the cluster takes a namespace's pods away before its NetworkPolicies.

    Before Kubernetes 1.33 a namespace that is deleted may lose its policies first, and a preview's pods then reach what they
    like until they end (kubernetes.io/docs/reference/command-line-tools-reference/feature-gates, OrderedNamespaceDeletion).

    Raises:
        ShopCatError: its version is older, or it names none.
    """
    answer: Any = client.get("/version")
    version = tuple(int(re.sub("[^0-9].*", "", str((answer or {}).get(part, ""))) or 0) for part in ("major", "minor"))
    if version < OLDEST_KUBERNETES:
        oldest = ".".join(map(str, OLDEST_KUBERNETES))
        raise PreflightError(
            f"the existing cluster runs Kubernetes {'.'.join(map(str, version))}: before {oldest} a closed preview's "
            f"NetworkPolicies may go before its pods; bring the cluster to {oldest} or later"
        )
