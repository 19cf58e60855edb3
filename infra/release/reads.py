"""What a plan reads: load balancer, cluster, registry and secret, and what is refused for what stands there."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from infra import capacity
from infra.clients import kubernetes as kubernetes_client
from infra.clients.aws import AwsClients, error_code, explain
from infra.errors import LedgerUnavailableError, PreflightError, ShopCatError
from infra.names import SHOP_NAMESPACE, colour_selector
from infra.release import health
from infra.release.decide import Abort, Decision, Nothing, Rollback, Tag, Wanted, up_command
from infra.release.listener_weights import ListenerWeights, View
from infra.release.question import Question
from infra.release.record import AFTER_VARIABLE, DrainNumbers, Provenance, Record, TemplateInput, template_differences
from infra.release.state import LedgerState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from infra.clients.kubernetes import KubernetesClient


def read_load_balancer(clients: AwsClients, load_balancer: str) -> View:
    """Read groups and rules."""
    try:
        return ListenerWeights(clients, load_balancer).view()
    except (BotoCoreError, ClientError) as error:
        raise explain(error, "load balancer", clients.endpoint_url) from error


def refuse_lost_ledger(state: LedgerState, view: View, table: str) -> None:
    """An empty table is only believed where nothing of ours exists yet."""
    if state.version == 0 and view.groups:
        raise LedgerUnavailableError(
            f"release ledger {table} is empty although target groups of ours exist, so what was released is unknown; "
            "restore the table (point-in-time recovery), or for a stack that never had a release run `make bootstrap`"
        )


def kubernetes_on_demand(question: Question, clients: AwsClients) -> Callable[[], KubernetesClient]:
    """Return what connects to the cluster when it is first called."""
    made: list[KubernetesClient] = []

    def connect() -> KubernetesClient:
        if not made:
            found = kubernetes_client.from_eks(clients, question.cluster)
            if found is None:
                raise PreflightError(f"EKS cluster {question.cluster} doesn't answer yet; run pulumi up -s prod again")
            made.append(found)
        return made[0]

    return connect


def read_standing(
    state: LedgerState, kubernetes: Callable[[], KubernetesClient], notes: list[str]
) -> Mapping[str, Mapping[str, Any]] | None:
    """Read what stands of a release; a cluster that can't be asked is told, since this very update may make it."""
    if not state.occupants:
        return None
    try:
        return kubernetes().release_objects(SHOP_NAMESPACE)
    except ShopCatError as error:
        notes.append(f"what somebody changed by hand in the cluster is unknown: {error}")
        return None


def provenance_of(arn: str, environment: Mapping[str, str]) -> Provenance:
    """Who releases, from what: GitHub's variables, or who AWS says that is."""
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


def read_wanted(question: Question, clients: AwsClients, state: LedgerState, view: View, by: Provenance) -> Wanted:
    """What the settings want, with what the registry has of it."""
    given = {
        name: value
        for name, value in (("tag", question.tag), ("abort", question.abort), ("rollback", question.rollback))
        if value
    }
    if len(given) > 1:
        shown = ", ".join(f"shopcat:{name}={value}" for name, value in given.items())
        raise PreflightError(f"{shown}: set one of tag, abort and rollback, not several")
    if question.abort:
        return Abort(question.abort)
    if question.rollback:
        return Rollback.parse(question.rollback, by)
    if not question.tag:
        return Nothing()
    image, absent = _image_of_tag(question, clients)
    if not image:
        return Tag(question.tag, None, by, absent)
    opened = state.open
    if opened and opened.tag == question.tag and opened.kind == "release":
        # The record is what counts; only the digest is compared.
        known = state.release(opened.name).record.template
        return Tag(question.tag, replace(known, image=image), by)
    return Tag(question.tag, template_of(question, view, image, _secret_version(question, clients)), by)


def template_of(question: Question, view: View, image: str, secret_version: str) -> TemplateInput:
    """The input of a new release's pods, as the settings have it today."""
    return TemplateInput(
        image=image,
        replicas=question.replicas,
        cpu_millicores=question.cpu_millicores,
        memory_mebibytes=question.memory_mebibytes,
        disk_mebibytes=capacity.APPLICATION_DISK_MEBIBYTES,
        environment=dict(sorted(question.environment.items())),
        secret_id=question.secret_id,
        secret_version=secret_version,
        drain=DrainNumbers.of(question.drain),
        smoke_image=question.smoke_image,
        smoke_url=question.public_url,
        smoke_connect=view.dns_name,
        contracts=question.contracts,
        **_migration(question),
    )


def _migration(question: Question) -> dict[str, Any]:
    """The migration's part of a record; without one nothing, so that settings without effect make no difference."""
    pod = question.production.migration
    if not question.migrate or pod is None:
        return {}
    return {
        "migrate": question.migrate,
        "migrate_deadline_seconds": question.migrate_deadline_seconds,
        "migrate_cpu_millicores": pod.cpu_millicores,
        "migrate_memory_mebibytes": pod.memory_mebibytes,
    }


def _image_of_tag(question: Question, clients: AwsClients) -> tuple[str, str]:
    """The image by digest, or nothing and what to tell."""
    ecr, name, tag = clients.get("ecr"), question.repository, question.tag
    try:
        uri = ecr.describe_repositories(repositoryNames=[name])["repositories"][0]["repositoryUri"]
        found = ecr.describe_images(repositoryName=name, imageIds=[{"imageTag": tag}])["imageDetails"]
        return f"{uri}@{found[0]['imageDigest']}", ""
    except (BotoCoreError, ClientError) as error:
        code = error_code(error)
        if code == "RepositoryNotFoundException":
            return "", (
                f"tag {tag}: there is no ECR repository {name} yet; bring the platform up first: pulumi up -s prod, "
                "without a tag"
            )
        if code == "ImageNotFoundException":
            there = ", ".join(_youngest_tags(ecr, name)) or "no image at all"
            return "", f"tag {tag} is not in {uri}; it has: {there}. Push it first: docker push {uri}:{tag}"
        raise explain(error, f"ECR repository {name}", clients.endpoint_url) from error


def refuse_gone_image(question: Question, clients: AwsClients, record: Record) -> None:
    """What is rolled back to must still be there before the slot is taken for it."""
    ecr, name = clients.get("ecr"), question.repository
    try:
        ecr.describe_images(repositoryName=name, imageIds=[{"imageDigest": record.digest}])
    except (BotoCoreError, ClientError) as error:
        if error_code(error) in ("ImageNotFoundException", "RepositoryNotFoundException"):
            raise PreflightError(
                f"rollback to {record.name}: its image {record.digest} is no longer in ECR repository {name}; release "
                "its commit again under a new tag"
            ) from error
        raise explain(error, f"ECR repository {name}", clients.endpoint_url) from error


def _youngest_tags(ecr: Any, repository: str) -> list[str]:
    """The ten youngest tags."""
    found: list[tuple[Any, str]] = []
    pages = ecr.get_paginator("describe_images").paginate(repositoryName=repository, filter={"tagStatus": "TAGGED"})
    for page in pages:
        for image in page["imageDetails"]:
            found += [(image.get("imagePushedAt"), tag) for tag in image.get("imageTags", [])]
    return [tag for _, tag in sorted(found, key=lambda pair: str(pair[0]), reverse=True)[:10]]


def _secret_version(question: Question, clients: AwsClients) -> str:
    """The version id that is current now; a release keeps it for good."""
    try:
        found = clients.get("secretsmanager").describe_secret(SecretId=question.secret_id)
    except (BotoCoreError, ClientError) as error:
        if error_code(error) == "ResourceNotFoundException":
            raise PreflightError(
                f"the application's secret {question.secret_id} does not exist yet; bring the "
                "platform up first: pulumi up -s prod, without a tag"
            ) from error
        raise explain(error, f"secret {question.secret_id}", clients.endpoint_url) from error
    for version, stages in found.get("VersionIdsToStages", {}).items():
        if "AWSCURRENT" in stages:
            return str(version)
    raise PreflightError(f"secret {question.secret_id} has no current version; run pulumi up -s prod without a tag")


def settings_differ(
    question: Question, clients: AwsClients, view: View, state: LedgerState, decision: Decision
) -> list[str]:
    """What the settings would change in the live release; nothing is changed by that alone."""
    live = state.live_record
    if decision.action != "stay" or live is None:
        return []
    try:
        version = _secret_version(question, clients)
    except ShopCatError as error:
        return [f"settings can't be compared with live {live.name}: {error}"]
    wanted = template_of(question, view, live.template.image, version)
    lines = template_differences(wanted, live.template)
    if not lines:
        return []
    return [
        f"settings differ from live {live.name}: " + "; ".join(lines) + f". To release them: "
        f"{up_command('tag', live.tag)}"
    ]


def refuse_unserved(question: Question, state: LedgerState, clients: AwsClients, kubernetes: KubernetesClient) -> None:
    """The live colour must be whole before a release starts upon it."""
    live = state.live
    if live is None or question.accept_unserved in (live.tag, live.name):
        return
    try:
        targets = ListenerWeights(clients, question.load_balancer).targets(live.colour)
    except (BotoCoreError, ClientError) as error:
        raise explain(error, "target health", clients.endpoint_url) from error
    reasons = health.unserved(kubernetes.pods(SHOP_NAMESPACE, colour_selector(live.colour)), targets)
    if reasons:
        raise PreflightError(
            f"the live release {live.name} is not whole, so no release starts upon it: "
            + "; ".join(reasons)
            + ". A plain pulumi up -s prod puts back what somebody changed by hand. Otherwise delete such a pod (another "
            + "comes up whole), or go on all the same with "
            + f"shopcat:acceptUnserved={live.name}"
        )
