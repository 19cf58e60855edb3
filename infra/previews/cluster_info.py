"""The SSM parameter that production publishes for previews, nothing secret in it, and what it names.

Previews find cluster, listener, repository and their domain there, so they need no access to production's state. Beside it stand
the previews' PriorityClass, which no preview may declare for itself, and the table in which each preview takes its slot.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import pulumi
import pulumi_aws as aws
import pulumi_kubernetes as kubernetes
from botocore.exceptions import BotoCoreError, ClientError
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from infra.clients.aws import error_code, explain
from infra.clients.kubernetes import cluster_of
from infra.errors import PreflightError
from infra.names import CLUSTER_INFO_PARAMETER, PREVIEW_PRIORITY_CLASS, PREVIEW_SLOTS_TABLE
from infra.previews import isolation
from infra.previews.slots import SLOT_KEY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from infra.clients.aws import AwsClients


class ClusterInfo(BaseModel):
    """The parameter's content."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)

    cluster: str
    cluster_endpoint: str
    cluster_authority: str
    """The API server's CA, PEM in base64."""
    region: str
    preview_domain: str
    """Domain under which previews answer, as pr-<n>.<preview_domain>."""
    vpc_id: str
    load_balancer_cidrs: tuple[str, ...]
    """Networks that the nodes of the previews' load balancer have their addresses in."""
    preview_listener_arn: str
    preview_dns_name: str
    preview_repository: str
    preview_repository_url: str
    release_repository: str
    priority_class: str
    places_table: str
    preview_role_id: str
    """Unique id of the role that pull requests' jobs take; empty if there is none."""
    secrets_role: str
    """ARN of the role in which the operator reads previews' secrets."""
    previews: Annotated[int, Field(ge=0)]
    """Number of previews that fit beside a full release; none while production is being taken down."""


def publish_cluster_info(
    plain: Mapping[str, Any],
    later: Mapping[str, pulumi.Input[str]],
    kubeconfig: pulumi.Output[str],
    depends_on: Sequence[pulumi.Resource],
    opts: pulumi.ResourceOptions,
    hooks: pulumi.ResourceHookBinding | None = None,
) -> None:
    """Declare the parameter and what it names.

    Args:
        plain: fields of the contract known from settings, camelCase.
        later: fields known once their resources are.
        kubeconfig: of the cluster; address and CA are taken from it and its user is not.
        depends_on: what the cluster needs before it takes objects.
        opts: parent and providers.
        hooks: of the parameter.
    """
    table = aws.dynamodb.Table(
        "previews",
        name=PREVIEW_SLOTS_TABLE,
        billing_mode="PAY_PER_REQUEST",
        hash_key=SLOT_KEY,
        attributes=[aws.dynamodb.TableAttributeArgs(name=SLOT_KEY, type="S")],
        opts=opts,
    )
    priority = kubernetes.scheduling.v1.PriorityClass(
        "preview-priority",
        metadata=kubernetes.meta.v1.ObjectMetaArgs(name=PREVIEW_PRIORITY_CLASS),
        value=isolation.PREVIEW_PRIORITY,
        global_default=False,
        preemption_policy="Never",
        description="ShopCat's previews: they yield to production and push nobody out",
        opts=pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=list(depends_on))),
    )
    # Neither address nor CA is a secret; only the text they come from is marked so.
    server = pulumi.Output.unsecret(kubeconfig.apply(cluster_of))
    facts = pulumi.Output.all(
        **later,
        clusterEndpoint=server.apply(lambda address: address["server"]),
        clusterAuthority=server.apply(lambda address: address["authority"]),
        placesTable=table.name,
        priorityClass=priority.metadata.apply(lambda metadata: str(metadata["name"])),
    )
    aws.ssm.Parameter(
        "contract",
        name=CLUSTER_INFO_PARAMETER,
        type="String",
        description="What a preview stack needs to know of production; nothing secret",
        value=facts.apply(lambda known: json.dumps({**plain, **known}, sort_keys=True)),
        opts=pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(hooks=hooks)),
    )


def read_cluster_info(clients: AwsClients) -> ClusterInfo:
    """Read the contract.

    Raises:
        ShopCatError: there is none yet, or it is not one this program can read.
    """
    try:
        text = clients.get("ssm").get_parameter(Name=CLUSTER_INFO_PARAMETER)["Parameter"]["Value"]
    except (BotoCoreError, ClientError) as error:
        if error_code(error) == "ParameterNotFound":
            raise PreflightError(
                f"SSM parameter {CLUSTER_INFO_PARAMETER} does not exist in {clients.region}: "
                "previews live in production's cluster, "
                "so bring that up first with `pulumi up -s prod`, or set aws:region to where it is"
            ) from error
        raise explain(error, f"SSM parameter {CLUSTER_INFO_PARAMETER}", clients.endpoint_url) from error
    try:
        return ClusterInfo.model_validate_json(text)
    except ValidationError as error:
        names = ", ".join(".".join(map(str, problem["loc"])) or problem["msg"] for problem in error.errors())
        raise PreflightError(
            f"SSM parameter {CLUSTER_INFO_PARAMETER} doesn't fit this program ({names}): "
            "production was brought up by another version "
            "of it; run `pulumi up -s prod` from the main branch, or rebase this branch onto it"
        ) from error
