"""Everything that is read to decide what to declare, read once, before anything is declared.

`make_plan` answers with a `Plan`: what is decided, which record stands in which colour with how many pods, and what a person
is told. It refuses with one message. Plain `pulumi destroy` and `pulumi refresh` don't run the program, so nothing here
can refuse them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from infra import capacity
from infra.clients import kubernetes as kubernetes_client
from infra.clients.aws import AwsClients, error_code, explain
from infra.errors import Refused
from infra.names import (
    APPLICATION_SECRET,
    COLOURS,
    LOAD_BALANCER,
    RELEASE_REPOSITORY,
    SHOP_NAMESPACE,
    Colour,
    check_tag,
    colour_selector,
    other_colour,
)
from infra.release import health, ledger, traffic
from infra.release.ledger import (
    Abort,
    Decision,
    Ledger,
    LedgerState,
    LedgerUnknown,
    Nothing,
    Rollback,
    Session,
    Tag,
    Wanted,
)
from infra.release.record import AFTER_VARIABLE, DrainNumbers, Provenance, Record, TemplateInput, template_differences

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from infra.clients.kubernetes import KubernetesClient
    from infra.settings import Settings
    from infra.timeouts import DrainBudget


@dataclass(frozen=True)
class Question:
    """What the settings say of the release, as plain values."""

    cluster: str
    """Name of the EKS cluster."""
    ledger_table: str
    replicas: int
    cpu_millicores: int
    memory_mebibytes: int
    environment: Mapping[str, str]
    secret_id: str
    smoke_image: str
    public_url: str
    drain: DrainBudget
    production: capacity.ProductionDemand
    kubeconfig: str = ""
    """Instead of asking EKS."""
    tag: str = ""
    abort: str = ""
    rollback: str = ""
    migrate: tuple[str, ...] = ()
    migrate_deadline_seconds: int = 300
    contracts: bool = False
    accept_unserved: str = ""
    """Name of the live release whose ready pods may be no healthy targets when a release starts."""
    load_balancer: str = LOAD_BALANCER
    repository: str = RELEASE_REPOSITORY


def make_question(settings: Settings) -> Question:
    """The settings' part in a release."""
    release, database = settings.release, settings.database
    return Question(
        cluster=settings.cluster.name,
        kubeconfig=settings.cluster.kubeconfig,
        ledger_table=settings.ledger_table,
        replicas=release.replicas,
        cpu_millicores=release.pod.cpu_millicores,
        memory_mebibytes=release.pod.memory_mebibytes,
        environment={
            **release.env,
            "DATABASE_POOL_SIZE": str(database.pool_size),
            "DATABASE_SSLMODE": "require",
            "SHOPCAT_PUBLIC_URL": settings.url,
        },
        secret_id=APPLICATION_SECRET,
        smoke_image=settings.images.smoke,
        public_url=settings.url,
        drain=settings.drain.budget,
        production=settings.production,
        tag=settings.tag,
        abort=settings.abort,
        rollback=settings.rollback,
        migrate=release.migrate,
        migrate_deadline_seconds=release.migrate_deadline,
        contracts=release.contracts,
        accept_unserved=settings.accept_unserved,
    )


@dataclass(frozen=True)
class ColourPlan:
    """What is declared for one colour."""

    colour: Colour
    record: Record
    replicas: int
    changes_last: bool
    """Only once the live pointer stands: the colour that is left."""


@dataclass(frozen=True)
class Checks:
    """The Jobs of one attempt at a release."""

    record: Record
    colour: Colour
    attempt: int
    again: bool = False
    """It was live before: a rollback."""

    @property
    def migrates(self) -> bool:
        """Whether the release's migration is run: not again for one that was live, since migrations are not undone."""
        return bool(self.record.template.migrate) and not self.again

    @property
    def smoke_name(self) -> str:
        """Named by release and attempt."""
        return f"smoke-{self.record.name}-a{self.attempt}"

    @property
    def migrate_name(self) -> str:
        """Named by release and attempt."""
        return f"migrate-{self.record.name}-a{self.attempt}"


@dataclass(frozen=True)
class Plan:
    """What this update declares of releases, and the means its hooks work with."""

    decision: Decision
    state: LedgerState
    session: Session
    """For the hooks: claim, go live, abort, each once."""
    colours: Mapping[Colour, ColourPlan]
    checks: Checks | None
    intent: str
    pointer: Mapping[str, str]
    """Text of the live pointer; empty if there is none yet."""
    timing: traffic.Timing
    public_url: str
    load_balancer: str
    kubernetes: Callable[[], KubernetesClient]
    """Connects when first called. Raises Refused."""
    room: capacity.CapacityPlan
    astray: bool = False
    """No release is open, and the weights aren't all on the live colour: at its end this update puts them there."""
    notes: tuple[str, ...] = field(default=())
    """What a person is told."""
    standing: Mapping[str, Mapping[str, Any]] | None = None
    """The release's objects as they stand in the cluster, by `Kind/name`; `None` where there is no release or no answer."""


def make_plan(question: Question, clients: AwsClients, environment: Mapping[str, str] | None = None) -> Plan:
    """Read everything and decide.

    Args:
        question: what the settings say.
        clients: AWS.
        environment: where commit and run are found; the process's own by default.

    Raises:
        Refused: one message; nothing was touched.
    """
    if question.tag:
        check_tag(question.tag)
    try:
        room = capacity.plan(question.production)
    except capacity.CapacityError as error:
        raise Refused(str(error)) from error
    account, arn = clients.identity()
    books = Ledger(clients.get("dynamodb"), question.ledger_table)
    state = books.read()
    view = _view(clients, question.load_balancer)
    _known(state, view, question.ledger_table)
    wanted = _wanted(question, clients, state, view, _provenance(arn, environment or os.environ))
    unweighted: Colour = next((colour for colour in ("green", "blue") if not view.carries(colour)), "green")
    decision = ledger.decide(wanted, state, unweighted)
    # An open release is gone on with, or taken back, by the very update that makes its load balancer anew.
    if decision.action == "release" and not view.rules:
        raise Refused(
            f"{decision.message}: load balancer {question.load_balancer} has no listener that forwards to both "
            "colours; bring the platform up first: pulumi up -s prod, without a tag"
        )
    kubernetes = _kubernetes(question, clients)
    if decision.action == "release" and decision.open and decision.open.kind == "release" and state.live:
        _refuse_unserved(question, state, clients, kubernetes())
    if decision.action == "release" and decision.open and decision.open.kind == "rollback" and decision.record:
        _refuse_gone(question, clients, decision.record)
    live = state.live if decision.action == "stay" else None
    astray = live is not None and not view.agree(traffic.all_on(live.colour))
    notes = [decision.message, room.describe(question.production)]
    if decision.action == "platform":
        host = f"{account}.dkr.ecr.{clients.region}.amazonaws.com/{question.repository}"
        notes.append(f"push an image to {host}:v1.0.0, then release it: {ledger.up_command('tag', 'v1.0.0')}")
    if live and astray:
        notes.append(
            f"{live.name} is live in {live.colour}, but the load balancer says: {view.describe()}; this update puts "
            f"everything back on {live.colour}"
        )
    notes += _settings_differ(question, clients, view, state, decision)
    standing = _standing(state, kubernetes, notes)
    return Plan(
        decision=decision,
        state=state,
        session=Session(books, state, decision),
        colours=_colours(decision, state),
        checks=_checks(decision, state),
        intent=_intent(decision, state),
        pointer=_pointer(decision, state),
        timing=traffic.Timing(
            settle_seconds=question.drain.settle_seconds,
            canary_seconds=question.drain.propagation_seconds,
            proof_deadline_seconds=question.drain.seconds_to_ready + question.drain.controller_lag_seconds,
        ),
        public_url=question.public_url,
        load_balancer=question.load_balancer,
        kubernetes=kubernetes,
        room=room,
        astray=astray,
        notes=tuple(notes),
        standing=standing,
    )


# What is declared: plain functions of the decision --------------------------------------------------------------------


def _colours(decision: Decision, state: LedgerState) -> dict[Colour, ColourPlan]:
    """Record and replicas of each colour; nothing before the first release."""
    records: dict[Colour, Record] = {colour: state.release(name).record for colour, name in state.occupants.items()}
    if decision.open and decision.record:
        records[decision.open.colour] = decision.record
    if not records:
        return {}
    carrying: Colour | None = state.live.colour if state.live else None
    left: Colour | None = None
    if decision.action in ("release", "resume") and decision.open:
        carrying = decision.open.colour
        left = other_colour(carrying)
    plans = {}
    for colour in COLOURS:
        # A colour that nothing was ever put into is declared empty, from the other one's record.
        record = records.get(colour) or records[other_colour(colour)]
        replicas = record.template.replicas if colour == carrying else 0
        plans[colour] = ColourPlan(colour, record, replicas, changes_last=colour == left or colour not in records)
    return plans


def _checks(decision: Decision, state: LedgerState) -> Checks | None:
    """The open release's Jobs, or else the live one's: they stay declared, so that the next update changes nothing."""
    if decision.action in ("release", "resume") and decision.open and decision.record:
        return Checks(
            decision.record, decision.open.colour, decision.open.attempt, again=decision.open.kind == "rollback"
        )
    if state.live is None:
        return None
    release = state.release(state.live.name)
    went_live = [each.number for each in release.attempts if each.outcome == "live"]
    return Checks(release.record, state.live.colour, went_live[-1] if went_live else 1, again=len(went_live) > 1)


def _intent(decision: Decision, state: LedgerState) -> str:
    if decision.action == "abort" and decision.open:
        return f"{decision.open.intent}-abort"
    return decision.open.intent if decision.open else state.intent


def _pointer(decision: Decision, state: LedgerState) -> dict[str, str]:
    intent = _intent(decision, state)
    if decision.action in ("release", "resume") and decision.open and decision.record:
        record, colour = decision.record, decision.open.colour
    elif state.live and state.live_record:
        record, colour = state.live_record, state.live.colour
    else:
        return {"release": "", "tag": "", "digest": "", "colour": "", "intent": intent} if intent else {}
    return {
        "release": record.name,
        "tag": record.tag,
        "digest": record.digest,
        "colour": colour,
        "intent": intent,
    }


# What is read ---------------------------------------------------------------------------------------------------------


def _view(clients: AwsClients, load_balancer: str) -> traffic.View:
    try:
        return traffic.Traffic(clients, load_balancer).view()
    except (BotoCoreError, ClientError) as error:
        raise explain(error, "load balancer", clients.endpoint_url) from error


def _known(state: LedgerState, view: traffic.View, table: str) -> None:
    """An empty table is only believed where nothing of ours exists yet."""
    if state.version == 0 and view.groups:
        raise LedgerUnknown(
            f"release ledger {table} is empty although target groups of ours exist, so what was released is unknown; "
            "restore the table (point-in-time recovery), or for a stack that never had a release run `make bootstrap`"
        )


def _kubernetes(question: Question, clients: AwsClients) -> Callable[[], KubernetesClient]:
    made: list[KubernetesClient] = []

    def connect() -> KubernetesClient:
        if not made:
            if question.kubeconfig:
                made.append(kubernetes_client.from_kubeconfig(question.kubeconfig))
            else:
                found = kubernetes_client.from_eks(clients, question.cluster)
                if found is None:
                    raise Refused(f"EKS cluster {question.cluster} doesn't answer yet; run pulumi up -s prod again")
                made.append(found)
        return made[0]

    return connect


def _standing(
    state: LedgerState, kubernetes: Callable[[], KubernetesClient], notes: list[str]
) -> Mapping[str, Mapping[str, Any]] | None:
    """Read what stands of a release; a cluster that can't be asked is told, since this very update may make it."""
    if not state.occupants:
        return None
    try:
        return kubernetes().standing(SHOP_NAMESPACE)
    except Refused as error:
        notes.append(f"what somebody changed by hand in the cluster is unknown: {error}")
        return None


def _provenance(arn: str, environment: Mapping[str, str]) -> Provenance:
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


def _wanted(question: Question, clients: AwsClients, state: LedgerState, view: traffic.View, by: Provenance) -> Wanted:
    given = {
        name: value
        for name, value in (("tag", question.tag), ("abort", question.abort), ("rollback", question.rollback))
        if value
    }
    if len(given) > 1:
        shown = ", ".join(f"shopcat:{name}={value}" for name, value in given.items())
        raise Refused(f"{shown}: set one of tag, abort and rollback, not several")
    if question.abort:
        return Abort(question.abort)
    if question.rollback:
        return Rollback.parse(question.rollback, by)
    if not question.tag:
        return Nothing()
    image, absent = _image(question, clients)
    if not image:
        return Tag(question.tag, None, by, absent)
    opened = state.open
    if opened and opened.tag == question.tag and opened.kind == "release":
        # The record is what counts; only the digest is compared.
        known = state.release(opened.name).record.template
        return Tag(question.tag, replace(known, image=image), by)
    return Tag(question.tag, _template(question, view, image, _secret_version(question, clients)), by)


def _template(question: Question, view: traffic.View, image: str, secret_version: str) -> TemplateInput:
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


def _image(question: Question, clients: AwsClients) -> tuple[str, str]:
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
            there = ", ".join(_tags(ecr, name)) or "no image at all"
            return "", f"tag {tag} is not in {uri}; it has: {there}. Push it first: docker push {uri}:{tag}"
        raise explain(error, f"ECR repository {name}", clients.endpoint_url) from error


def _refuse_gone(question: Question, clients: AwsClients, record: Record) -> None:
    """What is rolled back to must still be there before the slot is taken for it."""
    ecr, name = clients.get("ecr"), question.repository
    try:
        ecr.describe_images(repositoryName=name, imageIds=[{"imageDigest": record.digest}])
    except (BotoCoreError, ClientError) as error:
        if error_code(error) in ("ImageNotFoundException", "RepositoryNotFoundException"):
            raise Refused(
                f"rollback to {record.name}: its image {record.digest} is no longer in ECR repository {name}; release "
                "its commit again under a new tag"
            ) from error
        raise explain(error, f"ECR repository {name}", clients.endpoint_url) from error


def _tags(ecr: Any, repository: str) -> list[str]:
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
            raise Refused(
                f"the application's secret {question.secret_id} does not exist yet; bring the "
                "platform up first: pulumi up -s prod, without a tag"
            ) from error
        raise explain(error, f"secret {question.secret_id}", clients.endpoint_url) from error
    for version, stages in found.get("VersionIdsToStages", {}).items():
        if "AWSCURRENT" in stages:
            return str(version)
    raise Refused(f"secret {question.secret_id} has no current version; run pulumi up -s prod without a tag")


def _settings_differ(
    question: Question, clients: AwsClients, view: traffic.View, state: LedgerState, decision: Decision
) -> list[str]:
    """What the settings would change in the live release; nothing is changed by that alone."""
    live = state.live_record
    if decision.action != "stay" or live is None:
        return []
    try:
        version = _secret_version(question, clients)
    except Refused as error:
        return [f"settings can't be compared with live {live.name}: {error}"]
    wanted = _template(question, view, live.template.image, version)
    lines = template_differences(wanted, live.template)
    if not lines:
        return []
    return [
        f"settings differ from live {live.name}: " + "; ".join(lines) + f". To release them: "
        f"{ledger.up_command('tag', live.tag)}"
    ]


def _refuse_unserved(question: Question, state: LedgerState, clients: AwsClients, kubernetes: KubernetesClient) -> None:
    """The live colour must be whole before a release starts upon it."""
    live = state.live
    if live is None or question.accept_unserved in (live.tag, live.name):
        return
    try:
        targets = traffic.Traffic(clients, question.load_balancer).targets(live.colour)
    except (BotoCoreError, ClientError) as error:
        raise explain(error, "target health", clients.endpoint_url) from error
    reasons = health.unserved(kubernetes.pods(SHOP_NAMESPACE, colour_selector(live.colour)), targets)
    if reasons:
        raise Refused(
            f"the live release {live.name} is not whole, so no release starts upon it: "
            + "; ".join(reasons)
            + ". A plain pulumi up -s prod puts back what somebody changed by hand. Otherwise delete such a pod (another "
            + "comes up whole), or go on all the same with "
            + f"shopcat:acceptUnserved={live.name}"
        )
