"""Reads of a plan: load balancer, cluster, registry and secret, and the refusals that follow from them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from infra import capacity
from infra.clients import kubernetes as kubernetes_client
from infra.clients.aws import AwsClients, error_code, explain
from infra.errors import LedgerUnavailableError, PreflightError, ShopCatError
from infra.foundation.secret_versions import (
    current_version,
    refuse_forgotten_restore,
    refuse_other_database,
    refuse_record_of_other_database,
)
from infra.names import APPLICATION_SECRET, LOAD_BALANCER, SHOP_NAMESPACE, colour_selector, workload_name
from infra.release import health
from infra.release.decide import Abort, Decision, Nothing, Rollback, Rotate, Tag, Wanted, up_command
from infra.release.listener_weights import ListenerWeights, View
from infra.release.record import AFTER_VARIABLE, DrainNumbers, Provenance, Record, TemplateInput, template_differences
from infra.release.state import LedgerState
from infra.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from infra.clients.kubernetes import KubernetesClient
    from infra.settings.platform import DatabaseSettings


def read_load_balancer(clients: AwsClients, load_balancer: str) -> View:
    """Read target groups, rules and weights.

    Raises:
        ShopCatError: AWS does not answer or refuses.
    """
    try:
        return ListenerWeights(clients, load_balancer).view()
    except (BotoCoreError, ClientError) as error:
        raise explain(error, "load balancer", clients.endpoint_url) from error


def refuse_lost_ledger(state: LedgerState, view: View, table: str) -> None:
    """Refuse an empty ledger where target groups of ours exist."""
    if state.version == 0 and view.groups:
        raise LedgerUnavailableError(
            f"release ledger {table} is empty although target groups of ours exist, so what was released is unknown; "
            "restore the table (point-in-time recovery), or for a stack that never had a release run `make bootstrap`"
        )


def kubernetes_on_demand(settings: Settings, clients: AwsClients) -> Callable[[], KubernetesClient]:
    """Return a function that connects to the cluster when it is first called."""
    clients_made: list[KubernetesClient] = []

    def connect() -> KubernetesClient:
        if not clients_made:
            client = kubernetes_client.from_eks(clients, settings.cluster.name)
            if client is None:
                raise PreflightError(
                    f"EKS cluster {settings.cluster.name} doesn't answer yet; run pulumi up -s prod again"
                )
            clients_made.append(client)
        return clients_made[0]

    return connect


def read_standing(
    state: LedgerState, kubernetes: Callable[[], KubernetesClient], notes: list[str]
) -> Mapping[str, Mapping[str, Any]] | None:
    """Read the release's objects; a cluster that does not answer becomes a note, since this very update may make it."""
    if not state.occupants:
        return None
    try:
        return kubernetes().release_objects(SHOP_NAMESPACE)
    except ShopCatError as error:
        notes.append(f"what somebody changed by hand in the cluster is unknown: {error}")
        return None


def provenance_of(arn: str, environment: Mapping[str, str]) -> Provenance:
    """Return who releases from which commit: GitHub's variables, or the identity that AWS knows."""
    run = ""
    if environment.get("GITHUB_RUN_ID"):
        server = environment.get("GITHUB_SERVER_URL", "https://github.com")
        run = f"{server}/{environment.get('GITHUB_REPOSITORY', '')}/actions/runs/{environment['GITHUB_RUN_ID']}"
    return Provenance(
        who=environment.get("GITHUB_ACTOR") or arn,
        commit=environment.get("GITHUB_SHA", ""),
        run=run,
        after=environment.get(AFTER_VARIABLE, ""),
    )


def read_wanted(settings: Settings, clients: AwsClients, state: LedgerState, view: View, by: Provenance) -> Wanted:
    """Return what the settings want, with the image that the registry has for a tag."""
    if settings.abort:
        return Abort(settings.abort)
    if settings.rollback:
        return Rollback.parse(settings.rollback, by)
    if not settings.tag:
        return Rotate(settings.rotate, by) if settings.rotate else Nothing()
    image, absent = _image_of_tag(settings, clients)
    if not image:
        return Tag(settings.tag, None, by, absent)
    opened = state.open
    if opened and opened.tag == settings.tag and opened.kind == "release":
        # The record is what counts; only the digest is compared.
        known = state.release(opened.name).record.template
        return Tag(settings.tag, replace(known, image=image), by)
    version = _secret_version(clients)
    refuse_other_database(version, settings.database.serving_restored, settings.database.identifier)
    return Tag(settings.tag, template_of(settings, view, image, version), by)


def template_of(settings: Settings, view: View, image: str, secret_version: str) -> TemplateInput:
    """Return the input of a new release's pods from today's settings."""
    return TemplateInput(
        image=image,
        replicas=settings.release.replicas,
        cpu_millicores=settings.release.pod.cpu_millicores,
        memory_mebibytes=settings.release.pod.memory_mebibytes,
        disk_mebibytes=capacity.APPLICATION_DISK_MEBIBYTES,
        environment=_pod_environment(settings),
        secret_id=APPLICATION_SECRET,
        secret_version=secret_version,
        drain=DrainNumbers.of(settings.drain.budget),
        smoke_image=settings.images.smoke,
        smoke_url=settings.url,
        smoke_connect=view.dns_name,
        contracts=settings.release.contracts,
        **_migration(settings),
    )


def _pod_environment(settings: Settings) -> dict[str, str]:
    """Return the pods' plain variables, sorted by name: the record's text does not depend on the order of the settings."""
    values = {
        **settings.release.env,
        "DATABASE_POOL_SIZE": str(settings.database.pool_size),
        "DATABASE_SSLMODE": "require",
        "SHOPCAT_PUBLIC_URL": settings.url,
    }
    return dict(sorted(values.items()))


def _migration(settings: Settings) -> dict[str, Any]:
    """Return the migration's part of a record: nothing without one, so that settings without effect make no difference."""
    pod = settings.production.migration
    if not settings.release.migrate or pod is None:
        return {}
    return {
        "migrate": settings.release.migrate,
        "migrate_deadline_seconds": settings.release.migrate_deadline,
        "migrate_cpu_millicores": pod.cpu_millicores,
        "migrate_memory_mebibytes": pod.memory_mebibytes,
    }


def _image_of_tag(settings: Settings, clients: AwsClients) -> tuple[str, str]:
    """Return the image by digest, or nothing and the message that says why."""
    ecr, name, tag = clients.get("ecr"), settings.registry.repository, settings.tag
    try:
        uri = ecr.describe_repositories(repositoryNames=[name])["repositories"][0]["repositoryUri"]
        images = ecr.describe_images(repositoryName=name, imageIds=[{"imageTag": tag}])["imageDetails"]
        return f"{uri}@{images[0]['imageDigest']}", ""
    except (BotoCoreError, ClientError) as error:
        code = error_code(error)
        if code == "RepositoryNotFoundException":
            return "", (
                f"tag {tag}: there is no ECR repository {name} yet; bring the platform up first: pulumi up -s prod, "
                "without a tag"
            )
        if code == "ImageNotFoundException":
            tags = ", ".join(_youngest_tags(ecr, name)) or "no image at all"
            return "", f"tag {tag} is not in {uri}; it has: {tags}. Push it first: docker push {uri}:{tag}"
        raise explain(error, f"ECR repository {name}", clients.endpoint_url) from error


def refuse_gone_image(clients: AwsClients, name: str, record: Record) -> None:
    """Refuse a rollback whose image is no longer in the registry, before the slot is taken for it."""
    ecr = clients.get("ecr")
    try:
        ecr.describe_images(repositoryName=name, imageIds=[{"imageDigest": record.digest}])
    except (BotoCoreError, ClientError) as error:
        if error_code(error) in ("ImageNotFoundException", "RepositoryNotFoundException"):
            raise PreflightError(
                f"rollback to {record.name}: its image {record.digest} is no longer in ECR repository {name}; release "
                "its commit again under a new tag"
            ) from error
        raise explain(error, f"ECR repository {name}", clients.endpoint_url) from error


def refuse_database_misfit(database: DatabaseSettings, state: LedgerState, decision: Decision) -> None:
    """Refuse an update whose settings name another database than the live release uses, or than one that gets traffic would.

    A release that is made now is compared in `read_wanted`; a rotation takes the live release's pods, and so their database.
    Nothing is refused before the first release.
    """
    if state.live_record is None:
        return
    live = state.live_record
    first, is_set = database.identifier, database.restore is not None
    refuse_forgotten_restore(live.name, live.template.secret_version, first, is_set=is_set)
    record = decision.record
    is_former = decision.action == "resume" or (decision.open is not None and decision.open.kind != "release")
    if record is not None and is_former and decision.action in ("release", "resume"):
        refuse_record_of_other_database(record.name, record.template.secret_version, database.serving_restored, first)


def _youngest_tags(ecr: Any, repository: str) -> list[str]:
    """Return the ten youngest tags."""
    tags: list[tuple[Any, str]] = []
    pages = ecr.get_paginator("describe_images").paginate(repositoryName=repository, filter={"tagStatus": "TAGGED"})
    for page in pages:
        for image in page["imageDetails"]:
            tags += [(image.get("imagePushedAt"), tag) for tag in image.get("imageTags", [])]
    return [tag for _, tag in sorted(tags, key=lambda pair: str(pair[0]), reverse=True)[:10]]


def _secret_version(clients: AwsClients) -> str:
    """Return the id of the version that is current now; a release keeps it for good."""
    try:
        secret = clients.get("secretsmanager").describe_secret(SecretId=APPLICATION_SECRET)
    except (BotoCoreError, ClientError) as error:
        if error_code(error) == "ResourceNotFoundException":
            raise PreflightError(
                f"the application's secret {APPLICATION_SECRET} does not exist yet; bring the "
                "platform up first: pulumi up -s prod, without a tag"
            ) from error
        raise explain(error, f"secret {APPLICATION_SECRET}", clients.endpoint_url) from error
    if version := current_version(secret):
        return version
    raise PreflightError(f"secret {APPLICATION_SECRET} has no current version; run pulumi up -s prod without a tag")


def settings_differ(
    settings: Settings, clients: AwsClients, view: View, state: LedgerState, decision: Decision
) -> list[str]:
    """List what the settings would change in the live release; only a release changes it."""
    live = state.live_record
    if decision.action != "stay" or live is None:
        return []
    try:
        version = _secret_version(clients)
    except ShopCatError as error:
        return [f"settings can't be compared with live {live.name}: {error}"]
    wanted = template_of(settings, view, live.template.image, version)
    lines = template_differences(wanted, live.template)
    if not lines:
        return []
    return [
        f"settings differ from live {live.name}: " + "; ".join(lines) + f". To release them: "
        f"{up_command('tag', live.tag)}"
    ]


def refuse_unserved(settings: Settings, state: LedgerState, clients: AwsClients, kubernetes: KubernetesClient) -> None:
    """Refuse a release while a ready pod of the live colour is no healthy target, or while it has fewer pods than its own."""
    live, record = state.live, state.live_record
    if live is None or record is None or settings.accept_unserved in (live.tag, live.name):
        return
    try:
        targets = ListenerWeights(clients, LOAD_BALANCER).targets(live.colour)
    except (BotoCoreError, ClientError) as error:
        raise explain(error, "target health", clients.endpoint_url) from error
    pods = kubernetes.pods(SHOP_NAMESPACE, colour_selector(live.colour))
    deployment = kubernetes.deployment(SHOP_NAMESPACE, workload_name(live.colour))
    reasons = health.unserved(pods, targets, deployment, record.template.replicas)
    if reasons:
        raise PreflightError(
            f"the live release {live.name} is not whole, so no release starts upon it: "
            + "; ".join(reasons)
            + ". A plain pulumi up -s prod puts back what somebody changed by hand. Otherwise delete a pod that is no target "
            + "(another comes up whole), or go on all the same with "
            + f"shopcat:acceptUnserved={live.name}"
        )
