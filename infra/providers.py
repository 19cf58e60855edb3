"""The providers, all explicit: region, endpoints and default tags come from settings and nowhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pulumi
import pulumi_aws as aws
import pulumi_eks as eks
import pulumi_kubernetes as kubernetes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from infra.settings import Preview, Settings

SERVICES = (
    "acm", "cloudwatch", "dynamodb", "ec2", "ecr", "eks", "elbv2", "iam", "kms",
    "logs", "rds", "route53", "secretsmanager", "ssm", "sts",
)  # fmt: skip
"""Every AWS service this program uses, by the provider's names."""


def aws_provider(settings: Settings | Preview, region: str, stack: str, tags: Mapping[str, str]) -> aws.Provider:
    """The AWS provider, with the endpoint given to every service (none: AWS's own) and tags for all that it makes."""
    endpoints = dict.fromkeys(SERVICES, settings.aws_endpoint)
    return aws.Provider(
        "aws",
        region=region,
        endpoints=[aws.ProviderEndpointArgs(**endpoints)],
        default_tags=aws.ProviderDefaultTagsArgs(
            tags={"shopcat:stack": stack, "shopcat:managed-by": "pulumi", "shopcat:project": "shopcat", **tags}
        ),
    )


def eks_provider() -> eks.Provider:
    """The component plugin; it makes its resources with the AWS provider above."""
    return eks.Provider("eks")


def kubernetes_provider(kubeconfig: pulumi.Input[str], depends_on: list[pulumi.Resource]) -> kubernetes.Provider:
    """The cluster's provider; fields are owned by server-side apply."""
    return kubernetes.Provider(
        "kubernetes",
        kubeconfig=kubeconfig,
        enable_server_side_apply=True,
        # Without these the provider replaces a changed ConfigMap or Secret: delete first, then create.
        enable_config_map_mutable=True,
        enable_secret_mutable=True,
        opts=pulumi.ResourceOptions(depends_on=depends_on),
    )
