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
    def of(given: ExistingCluster) -> ExistingNetwork:
        """From settings."""
        return ExistingNetwork(
            vpc_id=given.vpc_id,
            cidr=given.vpc_cidr,
            public_subnet_ids=list(given.public_subnet_ids),
            preview_subnet_ids=list(given.preview_subnet_ids),
            private_subnet_ids=list(given.private_subnet_ids),
            nat_addresses=[pulumi.Output.from_input(address) for address in given.nat_addresses],
        )


def load_balancer_cidrs(clients: AwsClients, given: ExistingCluster) -> tuple[list[str], list[str]]:
    """Read where production's load balancer has its addresses, and where the previews' has.

    Raises:
        ShopCatError: a subnet is not there, or is in another VPC.
    """
    wanted = [*given.public_subnet_ids, *given.preview_subnet_ids]
    try:
        answer = clients.get("ec2").describe_subnets(Filters=[{"Name": "subnet-id", "Values": wanted}])["Subnets"]
    except (BotoCoreError, ClientError) as error:
        raise explain(error, f"subnets {', '.join(wanted)}", clients.endpoint_url) from error
    cidrs = {one["SubnetId"]: one["CidrBlock"] for one in answer if one["VpcId"] == given.vpc_id}
    missing = [one for one in wanted if one not in cidrs]
    if missing:
        raise PreflightError(
            f"shopcat:cluster.existing: {', '.join(missing)} not found in {given.vpc_id}; publicSubnetIds and "
            "previewSubnetIds name subnets of that VPC (aws ec2 describe-subnets)"
        )

    def of(ids: Sequence[str]) -> list[str]:
        return [str(cidrs[one]) for one in ids]

    return of(given.public_subnet_ids), of(given.preview_subnet_ids)


def refuse_old(client: KubernetesClient) -> None:
    """Check that the cluster takes a namespace's pods away before its NetworkPolicies.

    Before Kubernetes 1.33 a namespace that is deleted may lose its policies first, and a preview's pods then reach what they
    like until they end (kubernetes.io/docs/reference/command-line-tools-reference/feature-gates, OrderedNamespaceDeletion).

    Raises:
        ShopCatError: its version is older, or it names none.
    """
    answer: Any = client.get("/version")
    found = tuple(int(re.sub("[^0-9].*", "", str((answer or {}).get(part, ""))) or 0) for part in ("major", "minor"))
    if found < OLDEST_KUBERNETES:
        oldest = ".".join(map(str, OLDEST_KUBERNETES))
        raise PreflightError(
            f"the existing cluster runs Kubernetes {'.'.join(map(str, found))}: before {oldest} a closed preview's "
            f"NetworkPolicies may go before its pods; bring the cluster to {oldest} or later"
        )
