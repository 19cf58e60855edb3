"""The providers, all explicit: region, endpoints and default tags come from settings and nowhere else."""

from __future__ import annotations

from copy import copy
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pulumi
import pulumi_aws as aws
import pulumi_eks as eks
import pulumi_kubernetes as kubernetes

from infra.clients.kubernetes import FIELD_MANAGER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from infra.settings import PreviewSettings, Settings

SERVICES = (
    "acm", "cloudwatch", "dynamodb", "ec2", "ecr", "eks", "elbv2", "iam", "kms",
    "logs", "rds", "route53", "secretsmanager", "ssm", "sts",
)  # fmt: skip
"""Every AWS service this program uses, by the provider's names."""
MONITORING_SERVICES = ("budgets", "sns")
"""Those that `shopcat:monitoring` needs besides; without it no stack gets another endpoint."""


def aws_provider(
    settings: Settings | PreviewSettings, region: str, stack: str, tags: Mapping[str, str]
) -> aws.Provider:
    """Declare the AWS provider, with the endpoint given to every service (none: AWS's own) and tags for all that it makes."""
    services = (*SERVICES, *MONITORING_SERVICES) if getattr(settings, "monitoring", None) else SERVICES
    endpoints = dict.fromkeys(services, settings.aws_endpoint)
    return aws.Provider(
        "aws",
        region=region,
        endpoints=[aws.ProviderEndpointArgs(**endpoints)],
        default_tags=aws.ProviderDefaultTagsArgs(
            tags={"shopcat:stack": stack, "shopcat:managed-by": "pulumi", "shopcat:project": "shopcat", **tags}
        ),
    )


def own_fields(args: pulumi.ResourceTransformationArgs) -> pulumi.ResourceTransformationResult | None:
    """Give every Kubernetes object's fields to one manager, whichever update wrote them.

    Without this annotation the provider makes up a name for each object and keeps it in the state alone.
    """
    metadata: Any = args.props.get("metadata")
    if not args.type_.startswith("kubernetes:") or metadata is None:
        return None
    manager = {"pulumi.com/patchFieldManager": FIELD_MANAGER}
    owned: Any
    if isinstance(metadata, dict):
        owned = {**metadata, "annotations": {**(metadata.get("annotations") or {}), **manager}}
    elif isinstance(metadata, kubernetes.meta.v1.ObjectMetaArgs):
        owned = copy(metadata)  # objects may share theirs
        annotations: Any = metadata.annotations or {}
        owned.annotations = {**annotations, **manager}
    else:
        raise TypeError(f"{args.type_} {args.name}: metadata is neither ObjectMetaArgs nor a dict")
    return pulumi.ResourceTransformationResult({**args.props, "metadata": owned}, args.opts)


def one_kubernetes_plugin(args: pulumi.ResourceTransformArgs) -> pulumi.ResourceTransformResult | None:
    """Pin the Kubernetes provider that the eks component declares beside ours to the plugin of this program's SDK.

    Nothing uses that provider, and the component can't be told to leave it out (pulumi-eks 4.3.0, nodejs/eks/cluster/cluster.ts,
    createCore). Unpinned it asks for plugin 4.19.0, which every fresh runner would download for nothing.
    """
    if args.type_ != "pulumi:providers:kubernetes":
        return None
    args.opts.version = version("pulumi-kubernetes")
    return pulumi.ResourceTransformResult(args.props, args.opts)


def eks_provider() -> eks.Provider:
    """Declare the component plugin's provider; it makes its resources with the AWS provider above."""
    return eks.Provider("eks")


def kubernetes_provider(kubeconfig: pulumi.Input[str], depends_on: list[pulumi.Resource]) -> kubernetes.Provider:
    """Declare the cluster's provider; fields are owned by server-side apply."""
    return kubernetes.Provider(
        "kubernetes",
        kubeconfig=kubeconfig,
        enable_server_side_apply=True,
        # Without these the provider replaces a changed ConfigMap or Secret: delete first, then create.
        enable_config_map_mutable=True,
        enable_secret_mutable=True,
        # An update that was killed between a write and its checkpoint has made an object that the state doesn't know. All
        # names are constants of ours, so the next update takes it up again instead of stopping at "already exists"; it is
        # the same field manager (below), so it meets no conflict, and fields that go later really go.
        upsert_existing_objects=True,
        opts=pulumi.ResourceOptions(depends_on=depends_on),
    )
