"""What the cluster needs of others: the AWS Load Balancer Controller and External Secrets, by Helm, pinned.

* Requests and limits are those the capacity plan counts (infra/capacity.py).
* The controller runs twice, is never the first to be evicted, looks at shut gates every few seconds, and its pod webhook
  fails closed, but for our pods alone: nothing else in the cluster waits for it.
* Each has an IAM role that allows what it does here and no more, handed out by EKS Pod Identity. Pods are first made when
  that has had time to take effect: one that is made too early never gets credentials.
* The controller's definitions are brought to the chart's version before the chart is (infra/definitions.py). External
  Secrets' chart holds its own as templates, which Helm keeps up by itself.
* External Secrets reads previews' secrets in a second role, in a session for one namespace; with its own it can't.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import pulumi
import pulumi_aws as aws
import pulumi_kubernetes as kubernetes

from infra import capacity, definitions, permissions, threads
from infra.cluster import assume
from infra.record import APPLICATION

if TYPE_CHECKING:
    from infra.kubernetes_client import KubernetesClient
    from infra.permissions import Place
    from infra.settings import Settings

CONTROLLER = "aws-load-balancer-controller"
CONTROLLER_NAMESPACE = "kube-system"
EXTERNAL_SECRETS = "external-secrets"
PRIORITY = "system-cluster-critical"
SECRET_PATH = "shopcat"  # noqa: S105 - a path
"""Secrets that the operator may read begin with this path."""

IDENTITY_SECONDS = 30
"""From a pod identity association to the first pod that needs it. Associations "may take several seconds to be effective"
(docs.aws.amazon.com/eks/latest/APIReference/API_UpdatePodIdentityAssociation.html), and a pod is given its credentials'
address only when it is made; AWS names no upper limit."""


async def let_identity_settle(_: pulumi.ResourceHookArgs) -> None:
    """Before a chart is installed for the first time; both charts' pods wait at once."""
    await asyncio.sleep(IDENTITY_SECONDS)


def requests(workload: capacity.Workload) -> dict[str, Any]:
    """Requests, and a memory limit twice as high; CPU is never throttled."""
    memory = workload.pod.memory_mebibytes
    return {
        "requests": {"cpu": f"{workload.pod.cpu_millicores}m", "memory": f"{memory}Mi"},
        "limits": {"memory": f"{2 * memory}Mi"},
    }


def environment(endpoint: str | None) -> list[dict[str, str]]:
    """AWS's SDKs read this variable; empty means AWS's own endpoints."""
    return [{"name": "AWS_ENDPOINT_URL", "value": endpoint or ""}]


def controller_values(settings: Settings, vpc_id: Any, region: str) -> dict[str, Any]:
    """Values of the chart aws-load-balancer-controller (aws/eks-charts)."""
    drain = settings.drain.budget
    return {
        "clusterName": settings.cluster.name,
        "region": region,
        "vpcId": vpc_id,
        "replicaCount": capacity.LOAD_BALANCER_CONTROLLER.count,
        "serviceAccount": {"create": True, "name": CONTROLLER},
        "resources": requests(capacity.LOAD_BALANCER_CONTROLLER),
        "priorityClassName": PRIORITY,
        "podDisruptionBudget": {"maxUnavailable": 1},
        "targetgroupbindingRequeueDuration": f"{drain.requeue_seconds}s",
        # After failed calls of AWS it waits twice as long each time, by default up to 16 min 40 s. So short, targets leave
        # within what the drain budget allows for it once AWS answers again; a call every few seconds is far from throttling.
        "targetgroupbindingMaxExponentialBackoffDelay": f"{max(1, min(drain.requeue_seconds, drain.controller_lag_seconds))}s",
        "enableServiceMutatorWebhook": False,
        "podMutatorWebhookConfig": {"failurePolicy": "Fail"},
        # The chart's one selector for pods; podMutatorWebhookConfig has none.
        "objectSelector": {
            "matchExpressions": [{"key": "app.kubernetes.io/name", "operator": "In", "values": [APPLICATION]}]
        },
        # Without it every upgrade makes a new certificate, and pods mount it up to a minute later than the API server trusts it.
        "keepTLSSecret": True,
        # /readyz says nothing before the webhooks serve; the chart's first look after 10 s only makes a restart longer.
        "readinessProbe": {"initialDelaySeconds": 2, "periodSeconds": 3},
        "env": {one["name"]: one["value"] for one in environment(settings.aws_endpoint)},
    }


def external_secrets_values(settings: Settings) -> dict[str, Any]:
    """Values of the chart external-secrets.

    Its webhook only re-checks what this program declares, and its certificates' controller only serves the webhook: left
    out, they leave two pod slots to previews and one thing less that can refuse a release.
    """
    return {
        "installCRDs": True,
        "replicaCount": capacity.EXTERNAL_SECRETS.count,
        "serviceAccount": {"create": True, "name": EXTERNAL_SECRETS},
        "resources": requests(capacity.EXTERNAL_SECRETS),
        "priorityClassName": PRIORITY,
        "webhook": {"create": False},
        "certController": {"create": False},
        "extraEnv": environment(settings.aws_endpoint),
    }


def controller_policy() -> dict[str, Any]:
    """Targets in and out of target groups, and the security-group rule that lets the load balancer reach pods.

    Load balancers, groups, listeners and rules are this program's own; the controller can't touch them.
    """
    describe = [
        "elasticloadbalancing:DescribeTargetGroups",
        "elasticloadbalancing:DescribeTargetHealth",
        "elasticloadbalancing:DescribeTargetGroupAttributes",
        "elasticloadbalancing:DescribeLoadBalancers",
        "elasticloadbalancing:DescribeListeners",
        "elasticloadbalancing:DescribeRules",
        "elasticloadbalancing:DescribeTags",
        "ec2:DescribeVpcs",
        "ec2:DescribeSubnets",
        "ec2:DescribeSecurityGroups",
        "ec2:DescribeInstances",
        "ec2:DescribeNetworkInterfaces",
        "ec2:DescribeAvailabilityZones",
    ]
    targets = ["elasticloadbalancing:RegisterTargets", "elasticloadbalancing:DeregisterTargets"]
    rules = ["ec2:AuthorizeSecurityGroupIngress", "ec2:RevokeSecurityGroupIngress"]
    return {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": describe, "Resource": "*"},
            {
                "Effect": "Allow",
                "Action": targets,
                "Resource": f"arn:aws:elasticloadbalancing:*:*:targetgroup/{APPLICATION}-*",
            },
            {
                "Effect": "Allow",
                "Action": rules,
                "Resource": "arn:aws:ec2:*:*:security-group/*",
                "Condition": {"StringLike": {"aws:ResourceTag/shopcat:project": "shopcat"}},
            },
        ],
    }


def external_secrets_policy(preview_role_arn: str) -> dict[str, Any]:
    """Reading the secrets below our path and the database's master secret, each by its exact name.

    Previews' secrets are not among them: for those it has to take the role that a preview's store names.
    """
    actions = [
        "secretsmanager:GetSecretValue",
        "secretsmanager:DescribeSecret",
        "secretsmanager:ListSecretVersionIds",
        "secretsmanager:GetResourcePolicy",
    ]
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": actions,
                "Resource": [
                    f"arn:aws:secretsmanager:*:*:secret:{SECRET_PATH}/*",
                    "arn:aws:secretsmanager:*:*:secret:rds!db-*",
                ],
            },
            {"Effect": "Allow", "Action": ["sts:AssumeRole", "sts:TagSession"], "Resource": preview_role_arn},
        ],
    }


class Addons(pulumi.ComponentResource):
    """Both charts and their identities."""

    def __init__(
        self,
        name: str,
        settings: Settings,
        *,
        place: Place,
        kubernetes_api: Callable[[], KubernetesClient],
        vpc_id: pulumi.Input[str],
        depends_on: list[pulumi.Resource],
        opts: pulumi.ResourceOptions,
    ) -> None:
        super().__init__("shopcat:addons:Addons", name, None, opts)
        self._cluster = settings.cluster.name
        region = place.region
        self.secrets_role = place.role(permissions.SECRETS_ROLE)
        _, controller = self._identity(CONTROLLER, CONTROLLER_NAMESPACE, CONTROLLER, controller_policy(), depends_on)
        operator, secrets = self._identity(
            EXTERNAL_SECRETS,
            EXTERNAL_SECRETS,
            EXTERNAL_SECRETS,
            external_secrets_policy(self.secrets_role),
            depends_on,
        )
        reader = self._preview_secrets(operator, place)
        mirror, versions = settings.chart_mirror, settings.charts
        settled = pulumi.ResourceHook("pod-identity", let_identity_settle)

        async def define(_: pulumi.ResourceHookArgs) -> None:
            await threads.in_thread(
                lambda: definitions.bring_up_to(
                    kubernetes_api(), mirror.load_balancer_controller, CONTROLLER, versions.load_balancer_controller
                )
            )

        defined = pulumi.ResourceHook("controller-definitions", define)
        self.controller = self._chart(
            CONTROLLER,
            CONTROLLER_NAMESPACE,
            mirror.load_balancer_controller,
            versions.load_balancer_controller,
            controller_values(settings, vpc_id, region),
            [*depends_on, controller],
            pulumi.ResourceHookBinding(before_create=[settled, defined], before_update=[defined]),
        )
        self.external_secrets = self._chart(
            EXTERNAL_SECRETS,
            EXTERNAL_SECRETS,
            mirror.external_secrets,
            versions.external_secrets,
            external_secrets_values(settings),
            [*depends_on, secrets],
            pulumi.ResourceHookBinding(before_create=[settled]),
        )
        self.ready: list[pulumi.Resource] = [self.controller, self.external_secrets, reader]
        self.register_outputs({})

    def _preview_secrets(self, operator: aws.iam.Role, place: Place) -> pulumi.Resource:
        """The role in which the operator reads previews' secrets, each session those of one namespace."""
        child = pulumi.ResourceOptions(parent=self)
        name = permissions.SECRETS_ROLE
        trusted = operator.arn.apply(permissions.secrets_trust)
        role = aws.iam.Role(name, name=name, assume_role_policy=trusted, opts=child)
        policy: pulumi.Resource = aws.iam.RolePolicy(
            name, name=name, role=role.name, policy=permissions.secrets_policy(place), opts=child
        )
        return policy

    def _identity(
        self,
        name: str,
        namespace: str,
        service_account: str,
        policy: Mapping[str, Any],
        depends_on: list[pulumi.Resource],
    ) -> tuple[aws.iam.Role, aws.eks.PodIdentityAssociation]:
        child = pulumi.ResourceOptions(parent=self)
        role = aws.iam.Role(
            name, assume_role_policy=assume("pods.eks.amazonaws.com", "sts:AssumeRole", "sts:TagSession"), opts=child
        )
        allowed = aws.iam.RolePolicy(name, role=role.name, policy=json.dumps(policy), opts=child)
        association = aws.eks.PodIdentityAssociation(
            name,
            cluster_name=self._cluster,
            namespace=namespace,
            service_account=service_account,
            role_arn=role.arn,
            opts=pulumi.ResourceOptions(parent=self, depends_on=[*depends_on, allowed]),
        )
        return role, association

    def _chart(
        self,
        chart: str,
        namespace: str,
        repository: str,
        version: str,
        values: Mapping[str, Any],
        depends_on: list[pulumi.Resource],
        hooks: pulumi.ResourceHookBinding,
    ) -> kubernetes.helm.v3.Release:
        return kubernetes.helm.v3.Release(
            chart,
            name=chart,
            chart=chart,
            version=version,
            namespace=namespace,
            create_namespace=True,
            repository_opts=kubernetes.helm.v3.RepositoryOptsArgs(repo=repository),
            values=dict(values),
            atomic=False,
            cleanup_on_fail=True,
            timeout=300,
            opts=pulumi.ResourceOptions(parent=self, depends_on=depends_on, hooks=hooks),
        )
