"""The charts that the cluster runs: the AWS Load Balancer Controller and External Secrets, by Helm, pinned.

* Requests and limits are those the capacity plan counts (infra/capacity.py).
* The controller runs twice, is never the first to be evicted, looks at shut gates every few seconds, and its pod webhook
  fails closed, but for our pods alone: nothing else in the cluster waits for it.
* Each has an IAM role that allows what it does here and no more, handed out by EKS Pod Identity. Pods are first made when
  that has had time to take effect: one that is made too early never gets credentials.
* Each chart's archive is compared with `chartDigests` before it is installed or changed.
* The controller's definitions are brought to the chart's version before the chart is (infra/foundation/crds.py). External
  Secrets' chart holds its own as templates, which Helm keeps up by itself, and deletes if a version has them no more.
* External Secrets reads previews' secrets in a second role, in a session for one namespace; with its own it can't.
* What they may do in AWS is in infra/access/addon_policies.py, what inside the cluster in infra/foundation/addon_isolation.py.
* Their images are given by digest (shopcat:images): a chart names its own by tag, and a tag can be moved. An update warns of
  one that has none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import pulumi
import pulumi_aws as aws
import pulumi_kubernetes as kubernetes

from infra import capacity
from infra.access import addon_policies, boundary, iam_policies
from infra.clients import threads
from infra.clients.kubernetes import cluster_of
from infra.foundation import addon_isolation, crds
from infra.foundation.addon_isolation import CONTROLLER, CONTROLLER_NAMESPACE, OPERATOR, OPERATOR_ROLE
from infra.foundation.admission import bound_policy
from infra.foundation.cluster_roles import cluster_role, cluster_role_binding
from infra.foundation.pod_role import PodRole, pod_role
from infra.names import APPLICATION, POD_SECURITY, POD_SECURITY_LABEL, PREVIEW_SECRETS_ROLE

if TYPE_CHECKING:
    from infra.access.iam_policies import AwsScope
    from infra.clients.kubernetes import KubernetesClient
    from infra.settings import Settings

ADDON_PRIORITY_CLASS = "system-cluster-critical"
OFF = (
    "processClusterExternalSecret",
    "processClusterGenerator",
    "processClusterPushSecret",
    "processClusterStore",
    "processPushSecret",
)
"""Values of the chart external-secrets that switch off a controller which nothing here uses."""

IDENTITY_SECONDS = 30
"""Wait between a pod identity association and the first pod that needs it.

Associations "may take several seconds to be effective"
(docs.aws.amazon.com/eks/latest/APIReference/API_UpdatePodIdentityAssociation.html), and a pod is given its credentials'
address only when it is made; AWS names no upper limit."""


async def let_identity_settle(_: pulumi.ResourceHookArgs) -> None:
    """Wait before a chart is installed for the first time; both charts' pods wait at once."""
    await asyncio.sleep(IDENTITY_SECONDS)


def requests(workload: capacity.Workload) -> dict[str, Any]:
    """Return requests, and a memory limit twice as high; CPU is never throttled."""
    memory = workload.pod.memory_mebibytes
    return {
        "requests": {"cpu": f"{workload.pod.cpu_millicores}m", "memory": f"{memory}Mi"},
        "limits": {"memory": f"{2 * memory}Mi"},
    }


def sdk_environment(endpoint: str | None) -> list[dict[str, str]]:
    """Return the variable that AWS's SDKs read; empty means AWS's own endpoints."""
    return [{"name": "AWS_ENDPOINT_URL", "value": endpoint or ""}]


def chart_image(reference: str) -> dict[str, str]:
    """Return a chart's `image` values; the tag takes the digest along, since neither chart has a value for that."""
    named, at, digest = reference.partition("@")
    repository, _, tag = named.rpartition(":")
    return {"repository": repository, "tag": f"{tag}{at}{digest}"}


def unpinned(settings: Settings) -> list[str]:
    """List a sentence on each add-on's image that is given by tag alone."""
    images = {
        "loadBalancerController": settings.images.load_balancer_controller,
        "externalSecrets": settings.images.external_secrets,
    }
    return [
        f"shopcat:images.{name} names no digest, so whoever moves the tag chooses what runs; `docker buildx imagetools "
        f"inspect {reference}` prints it: add @sha256:<digest> to the setting"
        for name, reference in images.items()
        if "@" not in reference
    ]


def controller_values(settings: Settings, vpc_id: Any, region: str) -> dict[str, Any]:
    """Return the values of the chart aws-load-balancer-controller (aws/eks-charts)."""
    drain = settings.drain.budget
    return {
        "clusterName": settings.cluster.name,
        "region": region,
        "vpcId": vpc_id,
        "replicaCount": capacity.LOAD_BALANCER_CONTROLLER.count,
        "image": chart_image(settings.images.load_balancer_controller),
        "serviceAccount": {"create": True, "name": CONTROLLER},
        "resources": requests(capacity.LOAD_BALANCER_CONTROLLER),
        "priorityClassName": ADDON_PRIORITY_CLASS,
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
        "env": {variable["name"]: variable["value"] for variable in sdk_environment(settings.aws_endpoint)},
    }


def external_secrets_values(settings: Settings) -> dict[str, Any]:
    """Return the values of the chart external-secrets.

    Its webhook only re-checks what this program declares, and its certificates' controller only serves the webhook: left
    out, they leave two pod slots to previews and one thing less that can refuse a release.
    """
    return {
        "installCRDs": True,
        "replicaCount": capacity.EXTERNAL_SECRETS.count,
        "image": chart_image(settings.images.external_secrets),
        "serviceAccount": {"create": True, "name": OPERATOR},
        "rbac": {"create": False},
        **dict.fromkeys(OFF, False),
        # Keeps what generators made; no ExternalSecret here has one. The chart writes a value of `false` as a switch that is on.
        "extraArgs": {"enable-generator-state": "false"},
        "resources": requests(capacity.EXTERNAL_SECRETS),
        "priorityClassName": ADDON_PRIORITY_CLASS,
        "webhook": {"create": False},
        "certController": {"create": False},
        "extraEnv": sdk_environment(settings.aws_endpoint),
    }


class Addons(pulumi.ComponentResource):
    """Both charts and their identities."""

    def __init__(
        self,
        name: str,
        settings: Settings,
        *,
        scope: AwsScope,
        kubernetes_api: Callable[[], KubernetesClient],
        kubeconfig: pulumi.Output[str],
        vpc_id: pulumi.Input[str],
        depends_on: list[pulumi.Resource],
        opts: pulumi.ResourceOptions,
    ) -> None:
        super().__init__("shopcat:addons:Addons", name, None, opts)
        for line in unpinned(settings):
            pulumi.log.warn(line, self)
        region = scope.region
        self.secrets_role = scope.role(PREVIEW_SECRETS_ROLE)

        def identity(name: str, namespace: str, policy: str) -> PodRole:
            return pod_role(
                name,
                policy,
                scope=scope,
                cluster=settings.cluster.name,
                namespace=namespace,
                parent=self,
                depends_on=depends_on,
            )

        controller = identity(CONTROLLER, CONTROLLER_NAMESPACE, addon_policies.controller_policy(scope))
        operator = identity(OPERATOR, OPERATOR, addon_policies.operator_policy(scope))
        self.operator = operator.role
        reader = self._preview_secrets(scope)
        within = self._isolation(settings, kubeconfig, depends_on)
        mirror, versions, digests = settings.chart_mirror, settings.charts, settings.chart_digests
        settled = pulumi.ResourceHook("pod-identity", let_identity_settle)

        async def define(_: pulumi.ResourceHookArgs) -> None:
            await threads.in_thread(
                lambda: crds.bring_up_to(
                    kubernetes_api(),
                    mirror.load_balancer_controller,
                    CONTROLLER,
                    versions.load_balancer_controller,
                    digests.load_balancer_controller,
                )
            )

        async def compare(_: pulumi.ResourceHookArgs) -> None:
            await threads.in_thread(
                crds.fetch_archive,
                mirror.external_secrets,
                OPERATOR,
                versions.external_secrets,
                digests.external_secrets,
            )

        defined = pulumi.ResourceHook("controller-definitions", define)
        compared = pulumi.ResourceHook("operator-chart", compare)
        self.controller = self._chart(
            CONTROLLER,
            CONTROLLER_NAMESPACE,
            mirror.load_balancer_controller,
            versions.load_balancer_controller,
            controller_values(settings, vpc_id, region),
            [*depends_on, controller.association, *within],
            pulumi.ResourceHookBinding(before_create=[settled, defined], before_update=[defined]),
        )
        self.external_secrets = self._chart(
            OPERATOR,
            OPERATOR,
            mirror.external_secrets,
            versions.external_secrets,
            external_secrets_values(settings),
            [*depends_on, operator.association, *within],
            pulumi.ResourceHookBinding(before_create=[settled, compared], before_update=[compared]),
        )
        self.ready: list[pulumi.Resource] = [self.controller, self.external_secrets, reader]
        self.register_outputs({})

    def _isolation(
        self, settings: Settings, kubeconfig: pulumi.Output[str], depends_on: list[pulumi.Resource]
    ) -> list[pulumi.Resource]:
        """Declare the limits on both inside the cluster, there before their first pod."""
        after = pulumi.ResourceOptions(parent=self, depends_on=depends_on)
        meta, rbac = kubernetes.meta.v1, kubernetes.rbac.v1
        namespace = kubernetes.core.v1.Namespace(
            OPERATOR,
            metadata=meta.ObjectMetaArgs(name=OPERATOR, labels={POD_SECURITY_LABEL: POD_SECURITY}),
            opts=after,
        )
        role = cluster_role(OPERATOR_ROLE, addon_isolation.operator_rules(), after)
        account = rbac.SubjectArgs(kind="ServiceAccount", name=OPERATOR, namespace=OPERATOR)
        binding = cluster_role_binding(
            OPERATOR_ROLE, account, pulumi.ResourceOptions.merge(after, pulumi.ResourceOptions(depends_on=[role]))
        )
        rule = addon_isolation.operator_secrets()
        _, bound = bound_policy(rule.name, rule.spec(), rule.binding(), after)
        # The address is no secret; only the text that it comes from is marked so.
        server = pulumi.Output.unsecret(kubeconfig.apply(lambda text: cluster_of(text)["server"]))

        def spec(space: str, name: str) -> pulumi.Output[Any]:
            return server.apply(
                lambda url: addon_isolation.addon_network_policies(
                    addon_isolation.egress_ports(url, settings.aws_endpoint)
                )[space, name]
            )

        networks = [
            kubernetes.networking.v1.NetworkPolicy(
                f"addon-{name}",
                metadata=meta.ObjectMetaArgs(name=name, namespace=space),
                spec=spec(space, name),
                opts=pulumi.ResourceOptions.merge(after, pulumi.ResourceOptions(depends_on=[namespace])),
            )
            for space, name in addon_isolation.addon_network_policies([])
        ]
        return [namespace, binding, bound, *networks]

    def _preview_secrets(self, scope: AwsScope) -> pulumi.Resource:
        """Declare the role in which the operator reads previews' secrets, each session those of one namespace."""
        child = pulumi.ResourceOptions(parent=self)
        name = PREVIEW_SECRETS_ROLE
        trusted = self.operator.arn.apply(iam_policies.secrets_trust)
        role = aws.iam.Role(
            name,
            name=name,
            assume_role_policy=trusted,
            permissions_boundary=boundary.boundary_arn(scope.account),
            opts=child,
        )
        policy: pulumi.Resource = aws.iam.RolePolicy(
            name, name=name, role=role.name, policy=iam_policies.secrets_policy(scope), opts=child
        )
        return policy

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
            create_namespace=namespace != OPERATOR,
            repository_opts=kubernetes.helm.v3.RepositoryOptsArgs(repo=repository),
            values=dict(values),
            atomic=False,
            cleanup_on_fail=True,
            timeout=300,
            opts=pulumi.ResourceOptions(parent=self, depends_on=depends_on, hooks=hooks),
        )
