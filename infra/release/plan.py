"""Read once what decides what is declared, before anything is declared.

`make_plan` returns a `Plan`: the decision, the record and the number of pods of each colour, and the notes for a person; or it
refuses with one message. Plain `pulumi destroy` and `pulumi refresh` don't run the program, so nothing here can refuse them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from infra import capacity
from infra.clients.aws import AwsClients
from infra.errors import PreflightError
from infra.foundation.secret_versions import refuse_record_of_other_database, restored_instance
from infra.names import COLOURS, LOAD_BALANCER, Colour, other_colour
from infra.release.decide import Decision, decide, rollback_to_kept, up_command
from infra.release.drain_fit import refuse_drain_misfit
from infra.release.ledger import Ledger
from infra.release.listener_weights import Timing, all_on
from infra.release.reads import (
    kubernetes_on_demand,
    provenance_of,
    read_load_balancer,
    read_standing,
    read_wanted,
    refuse_database_misfit,
    refuse_gone_image,
    refuse_lost_ledger,
    refuse_unserved,
    settings_differ,
)
from infra.release.record import Record
from infra.release.session import Session
from infra.release.state import LedgerState, Open, Release
from infra.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from infra.clients.kubernetes import KubernetesClient
    from infra.timeouts import DrainBudget


@dataclass(frozen=True)
class ColourPlan:
    """The declaration of one colour."""

    colour: Colour
    record: Record
    replicas: int
    changes_last: bool
    """The colour that is left: declared once the live pointer stands."""
    is_kept: bool = False
    """Its pods stay without weight, for a rollback; nothing waits for them."""


@dataclass(frozen=True)
class Checks:
    """The Jobs of one attempt at a release."""

    record: Record
    colour: Colour
    attempt: int
    again: bool = False
    """A rollback: the release was live before."""

    @property
    def migrates(self) -> bool:
        """Check for a migration to run: not again for pods that were live, since migrations are not undone."""
        return bool(self.record.template.migrate) and not self.again and not self.record.renews

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
    """Everything that this update declares of releases, and the means its hooks work with."""

    decision: Decision
    state: LedgerState
    session: Session
    """For the hooks: claim, go live, abort, each once."""
    colours: Mapping[Colour, ColourPlan]
    checks: Checks | None
    intent: str
    pointer: Mapping[str, str]
    """Text of the live pointer; empty if there is none yet."""
    timing: Timing
    public_url: str
    load_balancer: str
    database_owner: str
    """The role that owns the tables; a colour's role is named after it."""
    kubernetes: Callable[[], KubernetesClient]
    """Connects when first called. Raises ShopCatError."""
    probe_address: str = ""
    """Host that our own requests connect to; empty takes the public URL's. With `shopcat:dns: external` the name may still lead
    to a load balancer from before the takeover, whose answers say nothing of a release here."""
    is_way_back: bool = False
    """An abort or a rollback: it changes the release and nothing else (infra/release/way_back.py)."""
    is_held: bool = False
    """`shopcat:holdTraffic`, or a state that is being rebuilt: the release stops before traffic moves."""
    is_traffic_misplaced: bool = False
    """No release is open, and not all weight is on the live colour: at its end this update puts it there."""
    notes: tuple[str, ...] = field(default=())
    """Lines for a person."""
    standing: Mapping[str, Mapping[str, Any]] | None = None
    """The release's objects as they stand in the cluster, by `Kind/name`; `None` where there is no release or no answer."""


def is_way_back(settings: Settings, opened: Open | None) -> bool:
    """Tell whether an update aborts or rolls back, or goes on with the rollback that is open."""
    return bool(settings.abort or settings.rollback or (opened and opened.kind == "rollback"))


def make_plan(settings: Settings, clients: AwsClients, environment: Mapping[str, str] | None = None) -> Plan:
    """Read everything and decide.

    Args:
        settings: of the production stack.
        clients: AWS.
        environment: variables with commit and run; the process's own by default.

    Raises:
        ShopCatError: the update is refused; nothing was touched.
    """
    room = capacity.plan(settings.production)
    account, arn = clients.identity()
    ledger = Ledger(clients.get("dynamodb"), settings.ledger_table)
    state = ledger.read()
    view = read_load_balancer(clients, LOAD_BALANCER)
    refuse_lost_ledger(state, view, settings.ledger_table)
    wanted = read_wanted(settings, clients, state, view, provenance_of(arn, environment or os.environ))
    unweighted: Colour = next((colour for colour in ("green", "blue") if not view.carries(colour)), "green")
    decision = decide(wanted, state, unweighted)
    # An open release is gone on with, or taken back, by the very update that makes its load balancer anew.
    if decision.action == "release" and not view.rules:
        raise PreflightError(
            f"{decision.message}: load balancer {LOAD_BALANCER} has no listener that forwards to both colours; bring "
            "the platform up first: pulumi up -s prod, without a tag"
        )
    refuse_database_misfit(settings.database, state, decision)
    rollback_notes = refuse_drain_misfit(wanted, decision, state, settings.drain.budget)
    kubernetes = kubernetes_on_demand(settings, clients)
    if decision.action == "release" and decision.open and decision.open.kind != "rollback" and state.live:
        refuse_unserved(settings, state, clients, kubernetes())
    if decision.action == "release" and decision.open and decision.open.kind == "rollback" and decision.record:
        refuse_gone_image(clients, settings.registry.repository, decision.record)
    live = state.live if decision.action == "stay" else None
    is_traffic_misplaced = live is not None and not view.agree(all_on(live.colour))
    notes = [decision.message, room.describe(settings.production), *rollback_notes]
    if decision.action == "platform":
        host = f"{account}.dkr.ecr.{clients.region}.amazonaws.com/{settings.registry.repository}"
        notes.append(f"push an image to {host}:v1.0.0, then release it: {up_command('tag', 'v1.0.0')}")
    if live and is_traffic_misplaced:
        notes.append(
            f"{live.name} is live in {live.colour}, but the load balancer says: {view.describe()}; this update puts "
            f"everything back on {live.colour}"
        )
    colours = _colours(decision, state, keeps_former=settings.keep_former, counted=settings.production)
    notes += _notes_of_former(settings, decision, state, colours)
    notes += settings_differ(settings, clients, view, state, decision)
    standing = read_standing(state, kubernetes, notes)
    return Plan(
        decision=decision,
        state=state,
        session=Session(ledger, state, decision),
        colours=colours,
        checks=_checks(decision, state),
        intent=_intent(decision, state),
        pointer=_pointer(decision, state),
        timing=_timing(settings.drain.budget),
        public_url=settings.url,
        probe_address=view.dns_name if settings.dns == "external" else "",
        load_balancer=LOAD_BALANCER,
        database_owner=settings.database.application_role,
        kubernetes=kubernetes,
        is_way_back=is_way_back(settings, decision.open),
        is_held=settings.hold_traffic or settings.rebuild_state,
        is_traffic_misplaced=is_traffic_misplaced,
        notes=tuple(notes),
        standing=standing,
    )


def make_undo_plan(settings: Settings, clients: AwsClients, environment: Mapping[str, str] | None = None) -> Plan:
    """Plan that users go back to pods that are kept; it declares nothing, and the next update goes on with the rollback.

    Of the settings, only those count that say where AWS, ledger, cluster and the first database are, and how long is waited.

    Raises:
        ShopCatError: there is no such release, or the ledger can't be read; nothing was touched.
    """
    _, arn = clients.identity()
    ledger = Ledger(clients.get("dynamodb"), settings.ledger_table)
    state = ledger.read()
    decision = decide(rollback_to_kept(state, provenance_of(arn, environment or os.environ)), state)
    if decision.record and state.live_record:
        first = settings.database.identifier
        used = restored_instance(state.live_record.template.secret_version, first)
        refuse_record_of_other_database(decision.record.name, decision.record.template.secret_version, used, first)
    return Plan(
        decision=decision,
        state=state,
        session=Session(ledger, state, decision),
        colours={},
        checks=_checks(decision, state),
        intent=_intent(decision, state),
        pointer={},
        timing=_timing(settings.drain.budget),
        public_url="",
        load_balancer=LOAD_BALANCER,
        database_owner=settings.database.application_role,
        kubernetes=kubernetes_on_demand(settings, clients),
        is_way_back=True,
        notes=(decision.message,),
    )


# What is declared: plain functions of the decision --------------------------------------------------------------------


def _colours(
    decision: Decision,
    state: LedgerState,
    *,
    keeps_former: bool = False,
    counted: capacity.ProductionDemand | None = None,
) -> dict[Colour, ColourPlan]:
    """Return record and replicas of each colour; nothing before the first release.

    Args:
        decision: of this update.
        state: the ledger.
        keeps_former: the former release's pods stay without weight, until the next release begins.
        counted: what the settings count room for; larger pods are not kept.
    """
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
    kept = _kept_colour(decision, state, counted) if keeps_former else None
    plans = {}
    for colour in COLOURS:
        # A colour that nothing was ever put into is declared empty, from the other one's record.
        record = records.get(colour) or records[other_colour(colour)]
        replicas = record.template.replicas if colour in (carrying, kept) else 0
        is_last = colour == left or colour not in records
        plans[colour] = ColourPlan(colour, record, replicas, changes_last=is_last, is_kept=colour == kept)
    return plans


def _kept_colour(
    decision: Decision, state: LedgerState, counted: capacity.ProductionDemand | None = None
) -> Colour | None:
    """Return the colour whose pods stay without weight: by this update's end, what `LedgerState.kept_former` is."""
    if state.live is None or decision.action in ("platform", "abort"):
        return None
    former: Release | None
    if decision.open is None:
        former, colour = state.kept_former, other_colour(state.live.colour)
    else:
        former, colour = state.release(state.live.name), state.live.colour
        removes = (decision.record is not None and decision.record.contracts) or state.contracted_since(former)
        if decision.open.kind == "rollback" or removes:
            return None
    return colour if former and _has_room(former.record, counted) else None


def _has_room(record: Record, counted: capacity.ProductionDemand | None) -> bool:
    """Check that a release's pods are no more and no larger than those that the settings count room for."""
    if counted is None:
        return True
    pods, pod = record.template, counted.pod
    sizes = (pods.replicas, pods.cpu_millicores, pods.memory_mebibytes, pods.disk_mebibytes)
    room = (counted.replicas, pod.cpu_millicores, pod.memory_mebibytes, pod.disk_mebibytes)
    return all(size <= most for size, most in zip(sizes, room, strict=True))


def _notes_of_former(
    settings: Settings, decision: Decision, state: LedgerState, colours: Mapping[Colour, ColourPlan]
) -> list[str]:
    """Return what becomes of the former release's pods, where they are to be kept."""
    if not settings.keep_former or decision.action != "stay":
        return []
    former, live = state.kept_former, state.live
    if former is None or live is None:
        return []
    back = up_command("rollback", f"{live.tag}->{former.record.tag}")
    if any(each.is_kept for each in colours.values()):
        return [f"{former.name} keeps its pods in {former.colour} without weight until the next release; back: {back}"]
    return [
        f"{former.name} keeps no pods: they are more, or larger, than those that shopcat:release counts room for; back: {back}"
    ]


def _timing(budget: DrainBudget) -> Timing:
    return Timing(
        settle_seconds=budget.settle_seconds,
        canary_seconds=budget.propagation_seconds,
        proof_deadline_seconds=budget.seconds_to_ready + budget.controller_lag_seconds,
    )


def _checks(decision: Decision, state: LedgerState) -> Checks | None:
    """Return the open release's Jobs, or else the live one's: they stay declared, so that the next update changes nothing."""
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
