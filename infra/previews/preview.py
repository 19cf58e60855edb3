"""Preview stacks `pr-<n>`: one namespace in production's cluster, a host of its own, and nothing left when it is destroyed.

* Everything is found through production's contract (infra/previews/cluster_info.py); production's state is never read.
* A preview takes its slot with its first resource, an item of the slots' table that is only written if there is none;
  it is the last to go, so a slot is free once nothing of its preview is left, also after an update that failed.
* An update that was killed between a call that makes something in AWS and its checkpoint has left what the state doesn't
  know: the next one deletes that before it makes it anew (infra/previews/slots.py).
* Names are constants inside the namespace; only the Deployment differs from one commit to the next.
* The namespace is isolated (infra/previews/isolation.py) before anything in it, and production's admission holds it to that. All
  that is in it goes with it: `destroy` deletes the namespace and nothing inside, so it is done when the namespace is gone
  already.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pulumi
import pulumi_aws as aws
import pulumi_kubernetes as kubernetes
from botocore.exceptions import BotoCoreError, ClientError

from infra.access.iam_policies import NUMBER_TAG, OWNER_TAG
from infra.clients import kubernetes as kubernetes_client
from infra.clients import threads
from infra.clients.aws import AwsClients, error_code, explain
from infra.clients.kubernetes import KubernetesClient
from infra.errors import KubernetesUnreachableError, PreflightError
from infra.foundation.database import ensure_database_secret
from infra.foundation.load_balancers import target_group
from infra.foundation.providers import aws_provider, kubernetes_provider
from infra.names import (
    APPLICATION,
    CLUSTER_INFO_PARAMETER,
    DATABASE_PORT,
    EXTERNAL_SECRETS_API,
    PREVIEW_CLUSTER_ROLE,
)
from infra.previews import cluster_info, isolation, manifests, slots
from infra.previews.isolation import DATABASE_WORKLOAD, preview_selector
from infra.settings.domains import preview_host

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from infra.previews.cluster_info import ClusterInfo
    from infra.settings import PreviewSettings as Settings

FIRST_PRIORITY = 100
"""Priority of the rule of slot k on the previews' listener: FIRST_PRIORITY + k; slots are unique, so priorities are."""
PREVIEW_PASSWORD_LENGTH = 32
GRANT_SECONDS = 60
"""Longest time until the cluster follows the binding just made; each API server learns of it by itself."""
_GRANTED_IN_A_ROW = 3


def pull_request(stack: str) -> int:
    """Return the pull request of a preview stack.

    Raises:
        ShopCatError: the stack is neither.
    """
    number = slots.number_of_stack(stack)
    if number is None:
        raise PreflightError(
            f"stack {stack!r}: this project has the stack prod and, for pull request <n>, pr-<n> (pr-123); remove it "
            f"with `pulumi stack rm {stack}`"
        )
    return number


def preview_image(clients: AwsClients, info: ClusterInfo, tag: str) -> str:
    """Return the preview image by digest.

    Raises:
        ShopCatError: the contract names production's repository, or the image isn't there.
    """
    name = info.preview_repository
    if name == info.release_repository or not info.preview_repository_url.endswith(f"/{name}"):
        raise PreflightError(
            f"{CLUSTER_INFO_PARAMETER} gives {info.preview_repository_url} as the previews' repository; "
            "previews never run "
            f"images of production's repository {info.release_repository}: run `pulumi up -s prod` again"
        )
    try:
        details = clients.get("ecr").describe_images(repositoryName=name, imageIds=[{"imageTag": tag}])["imageDetails"]
    except (BotoCoreError, ClientError) as error:
        if error_code(error) in ("ImageNotFoundException", "RepositoryNotFoundException"):
            raise PreflightError(
                f"shopcat:tag: {tag} is not in {info.preview_repository_url}; push it first: "
                f"docker push {info.preview_repository_url}:{tag}"
            ) from error
        raise explain(error, f"ECR repository {name}", clients.endpoint_url) from error
    return f"{info.preview_repository_url}@{details[0]['imageDigest']}"


def ensure_secret(clients: AwsClients, name: str) -> None:
    """Give the preview's secret a value, once; a value it has stays, since the database was made with it.

    Raises:
        ShopCatError: Secrets Manager says no; the message says why.
    """
    fields = {
        "host": DATABASE_WORKLOAD,
        "port": str(DATABASE_PORT),
        "dbname": APPLICATION,
        "username": APPLICATION,
    }
    ensure_database_secret(clients, name, fields, PREVIEW_PASSWORD_LENGTH)


async def granted(connect: Callable[[], KubernetesClient], namespace: str, pause_seconds: float = 0.2) -> None:
    """Return once the cluster lets us into our own namespace, several times in a row and each time by a new connection.

    Raises:
        KubernetesUnreachableError: it still doesn't after a minute, with what the API server says.
    """
    path = f"/api/v1/namespaces/{namespace}/resourcequotas/{isolation.QUOTA_NAME}"
    deadline, row = time.monotonic() + GRANT_SECONDS, 0
    while row < _GRANTED_IN_A_ROW:
        try:
            await threads.in_thread(lambda: connect().get(path))
        except KubernetesUnreachableError:
            if time.monotonic() > deadline:
                raise
            row = 0
        else:
            row += 1
        await asyncio.sleep(pause_seconds)


class Preview(pulumi.ComponentResource):
    """Everything of a stack `pr-<n>`."""

    def __init__(self, number: int, region: str, settings: Settings) -> None:
        # Everything is read before anything is declared: a refusal leaves no half plan.
        self.name = f"pr-{number}"
        self._settings = settings
        self._clients = AwsClients(region, endpoint_url=settings.aws_endpoint)
        self._clients.identity()
        self._cluster_info = cluster_info.read_cluster_info(self._clients)
        self.image = preview_image(self._clients, self._cluster_info, settings.tag)
        taken = slots.read_slots(self._clients, self._cluster_info.places_table)
        self._slot = slots.choose_slot(taken, self.name, self._cluster_info.previews, datetime.now(UTC))
        self.host = preview_host(self.name, self._cluster_info.preview_domain)
        self.url = f"https://{self.host}"
        self._leftovers = slots.Leftovers(
            self._clients,
            self.name,
            self._cluster_info.places_table,
            self._cluster_info.preview_listener_arn,
            self.host,
        )

        role = self._cluster_info.preview_role_id
        owned = {OWNER_TAG: isolation.owner(role, number), NUMBER_TAG: str(number)} if role else {}
        cloud = aws_provider(settings, region, self.name, owned)
        self._kubeconfig = kubernetes_client.kubeconfig(
            self._cluster_info.cluster,
            self._cluster_info.cluster_endpoint,
            self._cluster_info.cluster_authority,
            region,
        )
        provider = kubernetes_provider(self._kubeconfig, [])
        super().__init__(
            "shopcat:index:Preview", APPLICATION, None, pulumi.ResourceOptions(providers=[cloud, provider])
        )
        slot = aws.dynamodb.TableItem(
            "place",
            table_name=self._cluster_info.places_table,
            hash_key=slots.SLOT_KEY,
            item=self._slot.item(),
            opts=self._anew(self._leftovers.free_slot),
        )
        rule, group_arn = self._edge(slot)
        # Deleted before the rule and its group, as it was made after them: pods leave while requests still find them.
        self._space = self._namespace([slot, rule])
        limits = self._isolate()
        secret = self._secret(slot, limits, region)
        binding = self._binding(rule, group_arn, limits)
        database = self._database([*limits, secret])
        self._application([*limits, secret, binding, database])
        self.register_outputs({"url": self.url})

    def _options(self, **options: Any) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions(parent=self, **options)

    def _anew(self, clear: Callable[[], None], **options: Any) -> pulumi.ResourceOptions:
        """Return the options of what is in AWS under a name of its own: what a killed update has left of it goes first.

        The engine calls a hook before a creation only of what the state doesn't know.
        """

        async def hook(_: pulumi.ResourceHookArgs) -> None:
            await threads.in_thread(clear)

        name = f"preview-{clear.__name__.replace('_', '-')}"
        return self._options(
            hooks=pulumi.ResourceHookBinding(before_create=[pulumi.ResourceHook(name, hook)]), **options
        )

    def _inside(self, **options: Any) -> pulumi.ResourceOptions:
        """Return the options of what is in the namespace, and goes with it."""
        return self._options(deleted_with=self._space, **options)

    def _metadata(
        self, name: str, annotations: Mapping[str, str] | None = None, labels: Mapping[str, str] | None = None
    ) -> kubernetes.meta.v1.ObjectMetaArgs:
        return kubernetes.meta.v1.ObjectMetaArgs(name=name, namespace=self.name, annotations=annotations, labels=labels)

    def _namespace(self, depends_on: list[pulumi.Resource]) -> pulumi.Resource:
        namespace: pulumi.Resource = kubernetes.core.v1.Namespace(
            "namespace",
            metadata=kubernetes.meta.v1.ObjectMetaArgs(name=self.name, labels=isolation.namespace_labels(self.name)),
            opts=self._options(depends_on=depends_on, custom_timeouts=pulumi.CustomTimeouts(delete="10m")),
        )
        return namespace

    def _isolate(self) -> list[pulumi.Resource]:
        """Declare, before any pod, who may work in the namespace, how much it gets of the cluster, and whom its pods reach."""
        name, info = self.name, self._cluster_info

        async def let_in(_: pulumi.ResourceHookArgs) -> None:
            await granted(
                lambda: kubernetes_client.of_cluster(
                    self._clients, info.cluster, info.cluster_endpoint, info.cluster_authority
                ),
                name,
            )

        binding = kubernetes.rbac.v1.RoleBinding(
            "access",
            metadata=self._metadata(PREVIEW_CLUSTER_ROLE),
            role_ref=isolation.role_reference(),
            subjects=isolation.role_subjects(name),
            opts=self._inside(depends_on=[self._space]),
        )
        core = kubernetes.core.v1
        quota = core.ResourceQuota(
            "quota",
            metadata=self._metadata(isolation.QUOTA_NAME),
            spec=core.ResourceQuotaSpecArgs(hard=isolation.quota()),
            opts=self._inside(
                depends_on=[binding],
                hooks=pulumi.ResourceHookBinding(before_create=[pulumi.ResourceHook("preview-access", let_in)]),
            ),
        )
        limits = isolation.container_limits()
        limit_range = core.LimitRange(
            "limits",
            metadata=self._metadata(isolation.QUOTA_NAME),
            spec=core.LimitRangeSpecArgs(
                limits=[
                    core.LimitRangeItemArgs(
                        type="Container", default=limits["default"], default_request=limits["defaultRequest"]
                    )
                ]
            ),
            opts=self._inside(depends_on=[quota]),
        )
        policies = [
            kubernetes.networking.v1.NetworkPolicy(
                f"policy-{policy}",
                metadata=self._metadata(policy),
                spec=spec,
                opts=self._inside(depends_on=[quota]),
            )
            for policy, spec in isolation.preview_network_policies(self._cluster_info.load_balancer_cidrs).items()
        ]
        return [quota, limit_range, *policies]

    def _secret(self, slot: pulumi.Resource, limits: list[pulumi.Resource], region: str) -> pulumi.Resource:
        """Declare the preview's secret, deleted at once with it, and the Kubernetes Secret made of it."""
        name, clients = slots.secret_name(self.name), self._clients
        source = aws.secretsmanager.Secret(
            "database",
            name=name,
            description=f"The throw-away database of preview {self.name}",
            recovery_window_in_days=0,
            opts=self._anew(self._leftovers.delete_secret, depends_on=[slot]),
        )

        async def fill(_: pulumi.ResourceHookArgs) -> None:
            await threads.in_thread(ensure_secret, clients, name)

        timeouts = pulumi.CustomTimeouts(create="3m", update="3m", delete="2m")
        waited = {"pulumi.com/waitFor": "condition=Ready"}
        store = kubernetes.apiextensions.CustomResource(
            "secret-store",
            api_version=EXTERNAL_SECRETS_API,
            kind="SecretStore",
            metadata=self._metadata(isolation.PREVIEW_STORE, waited),
            spec=isolation.store(self.name, region, self._cluster_info.secrets_role),
            opts=self._inside(depends_on=limits, custom_timeouts=timeouts),
        )
        external_secret: pulumi.Resource = kubernetes.apiextensions.CustomResource(
            "secret",
            api_version=EXTERNAL_SECRETS_API,
            kind="ExternalSecret",
            metadata=self._metadata(APPLICATION, waited),
            spec=manifests.external_secret(self.name),
            opts=self._inside(
                depends_on=[store, source],
                custom_timeouts=timeouts,
                hooks=pulumi.ResourceHookBinding(before_create=[pulumi.ResourceHook("preview-secret", fill)]),
            ),
        )
        return external_secret

    def _edge(self, slot: pulumi.Resource) -> tuple[pulumi.Resource, pulumi.Output[str]]:
        """Declare host rule and target group, there before any pod; return the rule and the group's ARN."""
        group = target_group(
            "group",
            slots.group_name(self.name),
            self._cluster_info.vpc_id,
            self._settings.drain.budget,
            self._anew(self._enter, depends_on=[slot]),
        )
        rule = aws.lb.ListenerRule(
            "host",
            listener_arn=self._cluster_info.preview_listener_arn,
            priority=FIRST_PRIORITY + self._slot.number,
            conditions=[
                aws.lb.ListenerRuleConditionArgs(
                    host_header=aws.lb.ListenerRuleConditionHostHeaderArgs(values=[self.host])
                )
            ],
            actions=[aws.lb.ListenerRuleActionArgs(type="forward", target_group_arn=group.arn)],
            opts=self._anew(self._leftovers.delete_rule),
        )
        return rule, group.arn

    def _enter(self) -> None:
        """Check, after the slot is taken, that production still takes previews, and clear the target group's name.

        Production looks for taken slots once it lets none open, so one of the two sees the other.
        """
        if cluster_info.read_cluster_info(self._clients).previews == 0:
            raise PreflightError(
                f"{self.name}: production is being taken down (shopcat:protection is false there); give its place free "
                f"again: pulumi destroy -s {self.name}"
            )
        self._leftovers.delete_group()

    def _binding(
        self, rule: pulumi.Resource, group_arn: pulumi.Output[str], limits: list[pulumi.Resource]
    ) -> pulumi.Resource:
        """Declare the Service, and what puts its pods into the target group."""
        service = self._service(APPLICATION, limits)
        binding: pulumi.Resource = kubernetes.apiextensions.CustomResource(
            "binding",
            api_version="elbv2.k8s.aws/v1beta1",
            kind="TargetGroupBinding",
            metadata=self._metadata(APPLICATION),
            spec=manifests.target_group_binding(group_arn),
            opts=self._inside(depends_on=[service, rule]),
        )
        return binding

    def _service(self, name: str, depends_on: list[pulumi.Resource]) -> pulumi.Resource:
        service: pulumi.Resource = kubernetes.core.v1.Service(
            f"service-{name}",
            # Its pods come later, so there are no endpoints to wait for.
            metadata=self._metadata(name, {"pulumi.com/skipAwait": "true"}),
            spec=manifests.service(name),
            opts=self._inside(depends_on=depends_on),
        )
        return service

    def _database(self, depends_on: list[pulumi.Resource]) -> pulumi.Resource:
        service = self._service(DATABASE_WORKLOAD, depends_on)
        spec = manifests.database_deployment(self._settings.images.database, self._cluster_info.priority_class)
        return self._deployment(
            DATABASE_WORKLOAD, spec, [*depends_on, service], self._settings.drain.budget.grace_seconds
        )

    def _application(self, depends_on: list[pulumi.Resource]) -> pulumi.Resource:
        release = manifests.record(self._settings, self.image, self.url)
        spec = manifests.application_deployment(release, self._cluster_info.priority_class)
        return self._deployment(APPLICATION, spec, depends_on, self._settings.drain.budget.grace_seconds)

    def _deployment(
        self, name: str, spec: Any, depends_on: list[pulumi.Resource], grace_seconds: int
    ) -> pulumi.Resource:
        seconds = self._settings.drain.budget.pulumi_timeout_seconds
        deployment: pulumi.Resource = kubernetes.apps.v1.Deployment(
            f"deployment-{name}",
            metadata=self._metadata(name, labels=preview_selector(name)),
            spec=spec,
            opts=self._inside(
                depends_on=depends_on,
                custom_timeouts=pulumi.CustomTimeouts(
                    create=f"{seconds}s", update=f"{seconds}s", delete=f"{grace_seconds + 60}s"
                ),
            ),
        )
        return deployment

    def export(self) -> None:
        """Export the stack's outputs."""
        pulumi.export("url", self.url)
        pulumi.export("image", self.image)
        pulumi.export("tag", self._settings.tag)
        pulumi.export("place", f"{self._slot.number} of {self._cluster_info.previews}")
