"""Releases in a world where anybody interferes at any time: a model of cluster, load balancer, state and ledger.

The real decisions and hooks run against it. The oracle looks at the model alone, at each write of weights, of a Deployment or a
password: users are only ever sent to the live release or to one that passed all its checks, no pods go that serve them, and none
loses the password that it holds. Whatever was done by hand, a plain update heals it while no release is open, and an abort does
while one is. In half of the worlds the former release keeps its pods; some have a restored database beside the first, or serve
from it.
"""

from __future__ import annotations

import asyncio
import copy
import json
import random
import unittest.mock
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from infra.errors import LedgerConflictError, ShopCatError
from infra.names import COLOURS, RELEASE_LABEL, RESTORED, Colour, colour_selector, other_colour
from infra.release import drift, logins, metrics
from infra.release import plan as release_plan
from infra.release.decide import Abort, Decision, Nothing, Rollback, Rotate, Tag, Wanted, decide, rollback_to_kept
from infra.release.health import CLOCKS_DIFFER_SECONDS
from infra.release.listener_weights import Timing, all_on
from infra.release.manifests import render_pod_template
from infra.release.plan import Plan
from infra.release.pod_losses import TEMPLATE_ANNOTATION
from infra.release.promotion import INTENT_ANNOTATION, Hooks
from infra.release.record import Record, fingerprint
from infra.release.session import Session
from infra.release.state import ONCE_LIVE, LedgerState
from infra.release.traffic_shift import Traffic
from infra.release.transitions import aborted, claimed, gone_live
from tests.examples import examples
from tests.unit.releases import digest, run, template

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

TAGS = ("v1", "v2", "v3", "v4")
BEGAN = datetime(2026, 11, 24, 10, tzinfo=UTC)
TIMING = Timing(settle_seconds=10, proof_deadline_seconds=2000)


@dataclass(frozen=True)
class Undo:
    """`make undo`, in place of an update."""


class Killed(BaseException):
    """The engine is gone; nothing of it runs any more."""


class UpdateError(Exception):
    """The engine ends with an error that is not one of ours: a Deployment or Job did not become ready."""


class World:
    """Cluster, load balancer and ledger; everything that is the same whoever looks."""

    def __init__(self) -> None:
        self.ledger = LedgerState(version=1)
        self.weights: dict[Colour, int] = {"blue": 100, "green": 0}
        self.deployments: dict[Colour, dict[str, Any]] = {}
        self.jobs: dict[str, bool] = {}
        self.kinds: dict[str, str] = {}
        """What a digest is like: good, fails its smoke test, or is never ready."""
        self.version = 0
        self.keeps_former = False
        self.log: list[str] = []
        self.person_acts = False
        self.leaving: dict[Colour, list[dict[str, Any]]] = {one: [] for one in COLOURS}
        self.made: dict[str, list[str]] = {}
        """Secret in Secrets Manager → ids of its versions, the current one last."""
        self.databases: Sequence[str] = ("",)
        """Where passwords are set, as the ends of names; pods use the first."""
        self.accepted: dict[tuple[str, Colour], str] = {}
        """Database and colour → the Secret whose password the colour's role accepts there."""
        self.owner_is_open = True
        self.login_jobs: dict[str, tuple[str, Colour, Record]] = {}
        """Jobs that have not ended yet."""
        self.seconds = 0
        self.started: dict[Colour, list[tuple[str, int]]] = {one: [] for one in COLOURS}
        """Template of each pod, and the second in which it started."""
        self.served: set[tuple[Colour, str, int]] = set()
        """Pods that had users when their release was the live one and had everything."""

    def now(self) -> str:
        """The time by every clock; between two moments is more than clocks may differ."""
        self.seconds += 2 * CLOCKS_DIFFER_SECONDS
        return (BEGAN + timedelta(seconds=self.seconds)).isoformat()

    def start_pods(self, colour: Colour) -> None:
        """Let the pods be those that the Deployment asks for: what has another template starts anew."""
        standing = self.deployments.get(colour)
        made_from = fingerprint(standing["spec"]["template"]) if standing else ""
        wanted = int(standing["spec"]["replicas"]) if standing else 0
        left = [pod for pod in self.started[colour] if pod[0] == made_from][:wanted]
        self.now()
        self.started[colour] = left + [(made_from, self.seconds)] * (wanted - len(left))

    def users_are_served(self) -> None:
        live = self.ledger.live
        if live and self.weights == all_on(live.colour):
            self.served |= {(live.colour, *pod) for pod in self.started[live.colour]}

    def pods(self, colour: Colour) -> list[dict[str, Any]]:
        standing = self.deployments.get(colour)
        if standing is None:
            return []
        self.start_pods(colour)
        gate = f"target-health.elbv2.k8s.aws/shopcat-{colour}"
        container = standing["spec"]["template"]["spec"]["containers"][0]
        ready = "False" if self.kinds.get(container["image"].rpartition("@")[2]) == "never ready" else "True"
        return [
            {
                "metadata": {"name": f"{colour}-{index}", "labels": standing["spec"]["template"]["metadata"]["labels"]},
                "spec": {"containers": [container], "readinessGates": [{"conditionType": gate}]},
                "status": {
                    "podIP": f"10.0.{COLOURS.index(colour)}.{index}",
                    "conditions": [{"type": kind, "status": ready} for kind in ("Ready", gate)],
                    "containerStatuses": [
                        {
                            "name": container["name"],
                            "state": {"running": {"startedAt": (BEGAN + timedelta(seconds=started)).isoformat()}},
                        }
                    ],
                },
            }
            for index, (_, started) in enumerate(self.started[colour])
        ]

    def set_password(self, job: str) -> None:
        """Let a Job end, with the oracle's question: no pod loses the password that it holds."""
        database, colour, record = self.login_jobs.pop(job)
        assert record.login
        assert self.made[record.login.secret_id][-1] == record.login.version, "a password that is not the current one"
        others = [one for one in (*self.pods(colour), *self.leaving[colour]) if secret_of(one) != record.secret_name]
        assert self.person_acts or not others, "a password changes under a pod that holds another one"
        self.accepted[database, colour] = record.secret_name
        if record.login.closes_owner:
            held = [secret_of(one) for each in COLOURS for one in (*self.pods(each), *self.leaving[each])]
            assert "shopcat-v0-r1" not in held, "the owner's password ends under a pod that holds it"
            self.owner_is_open = False

    def accepts(self, colour: Colour, secret_name: str) -> bool:
        """Whether a pod that holds this Secret's password may sign in."""
        accepted = self.accepted.get((self.databases[0], colour))
        return accepted == secret_name or (secret_name == "shopcat-v0-r1" and self.owner_is_open)

    def healthy(self, colour: Colour) -> list[dict[str, Any]]:
        return [pod for pod in self.pods(colour) if pod["status"]["conditions"][0]["status"] == "True"]

    def has_passed(self, colour: Colour) -> bool:
        """The open release is whole, and has passed its smoke test or, going back, has served users with these very pods."""
        opened = self.ledger.open
        if opened is None or not self.is_whole(colour, opened.name):
            return False
        went_back = opened.kind == "rollback" and {(colour, *pod) for pod in self.started[colour]} <= self.served
        return went_back or bool(self.jobs.get(f"smoke-{opened.intent}"))

    def is_whole(self, colour: Colour, name: str) -> bool:
        """All pods of the release, and no others, are there and healthy."""
        record = self.ledger.releases[name].record
        found = [release_of(pod) for pod in self.healthy(colour)]
        return len(found) >= record.template.replicas and set(found) == {(name, record.template.image)}

    def keeps_everything(self, colour: Colour) -> bool:
        """A rollback that has everything, and a pod of its own that serves: nothing but an abort takes users from it."""
        opened = self.ledger.open
        if opened is None or opened.kind != "rollback" or self.weights != all_on(colour) or not self.healthy(colour):
            return False
        image = self.ledger.releases[opened.name].record.template.image
        return {release_of(pod) for pod in self.pods(colour)} == {(opened.name, image)}


def release_of(pod: dict[str, Any]) -> tuple[str, str]:
    """The release that a pod was made for, and its image."""
    return pod["metadata"]["labels"][RELEASE_LABEL], pod["spec"]["containers"][0]["image"]


def secret_of(pod: dict[str, Any]) -> str:
    """The Secret that a pod's password is in."""
    (variable,) = [one for one in pod["spec"]["containers"][0]["env"] if one["name"] == "DATABASE_PASSWORD"]
    return str(variable["valueFrom"]["secretKeyRef"]["name"])


class Kubernetes:
    """The model's cluster, as the client has it; `write` is told of each Deployment before it is made again."""

    def __init__(self, world: World, write: Callable[[Colour, dict[str, Any]], None]) -> None:
        self._world, self._write = world, write

    def stop_pods(self, namespace: str, name: str) -> None:
        declared = self.deployment(namespace, name)
        assert declared
        declared["spec"]["replicas"] = 0
        self._write(name.removeprefix("shopcat-"), declared)  # type: ignore[arg-type]

    def recreate(self, manifest: dict[str, Any]) -> bool:
        self._write(manifest["metadata"]["name"].removeprefix("shopcat-"), manifest)
        return True

    def release_object(self, _kind: str, namespace: str, name: str) -> dict[str, Any] | None:
        return self.deployment(namespace, name)

    def deployment(self, _: str, name: str) -> dict[str, Any] | None:
        return copy.deepcopy(self._world.deployments.get(name.removeprefix("shopcat-")))  # type: ignore[call-overload]

    def pods(self, _: str, labels: dict[str, str]) -> list[dict[str, Any]]:
        colour = next(one for one in COLOURS if colour_selector(one) == labels)
        return copy.deepcopy([*self._world.pods(colour), *self._world.leaving[colour]])

    def jobs(self, *_: Any) -> list[dict[str, Any]]:
        return [{"metadata": {"name": name}} for name in self._world.login_jobs]

    def job(self, _: str, name: str) -> dict[str, Any] | None:
        passed = self._world.jobs.get(name)
        return None if passed is None else {"status": {"succeeded" if passed else "failed": 1}}


class LoadBalancer:
    """The ELB API over the model's weights; `write` is told of each change before it is made."""

    def __init__(self, world: World, write: Callable[[dict[Colour, int]], None]) -> None:
        self._world, self._write = world, write

    endpoint_url = None

    def get(self, _: str) -> Any:
        return self

    def describe_load_balancers(self, **_: Any) -> Any:
        return {"LoadBalancers": [{"LoadBalancerArn": "arn", "DNSName": "dns"}]}

    def describe_target_groups(self, Names: list[str]) -> Any:  # noqa: N803
        return {"TargetGroups": [{"TargetGroupArn": Names[0].removeprefix("shopcat-")}]}

    def describe_target_health(self, TargetGroupArn: Colour) -> Any:  # noqa: N803
        healthy = {pod["status"]["podIP"] for pod in self._world.healthy(TargetGroupArn)}
        addresses = [pod["status"]["podIP"] for pod in self._world.pods(TargetGroupArn)]
        return {
            "TargetHealthDescriptions": [
                {"Target": {"Id": one}, "TargetHealth": {"State": "healthy" if one in healthy else "unhealthy"}}
                for one in addresses
            ]
        }

    def get_paginator(self, name: str) -> Any:
        groups = [{"TargetGroupArn": one, "Weight": self._world.weights[one]} for one in COLOURS]
        page = {
            "describe_listeners": {"Listeners": [{"ListenerArn": "l"}]},
            "describe_rules": {
                "Rules": [{"RuleArn": "r", "Actions": [{"Type": "forward", "ForwardConfig": {"TargetGroups": groups}}]}]
            },
        }[name]
        return type("Pages", (), {"paginate": lambda *_, **__: [page]})()

    def modify_rule(self, Actions: list[dict[str, Any]], **_: Any) -> None:  # noqa: N803
        tuples = Actions[0]["ForwardConfig"]["TargetGroups"]
        self._write({each["TargetGroupArn"]: each["Weight"] for each in tuples})


class SecretsManager:
    """Its API over the model's versions; `write` is told of each before it is made."""

    endpoint_url = None

    def __init__(self, world: World, write: Callable[[], None]) -> None:
        self._world, self._write = world, write

    def get(self, _: str) -> SecretsManager:
        return self

    def describe_secret(self, SecretId: str) -> Any:  # noqa: N803
        # Only versions that have a label are listed: the current one and the one before.
        return {"VersionIdsToStages": {one: ["label"] for one in self._world.made.get(SecretId, [])[-2:]}}

    def put_secret_value(self, SecretId: str, ClientRequestToken: str, SecretString: str) -> None:  # noqa: N803
        assert json.loads(SecretString)["username"].startswith("shop_")
        versions = self._world.made.setdefault(SecretId, [])
        assert ClientRequestToken not in versions, "a version is made once"
        self._write()
        versions.append(ClientRequestToken)


class Unmeasured(Traffic):
    """The metrics say nothing against a release here; they have tests of their own."""

    async def _aws_time(self, _: Timing) -> datetime:
        return datetime(2026, 11, 24, 10, tzinfo=UTC)

    async def _read(self, *_: Any) -> metrics.Reading:
        return metrics.Reading()

    async def _wait_for_healthy_minutes(self, *_: Any) -> None:
        await self._sleep(5)


class Update:
    """One `pulumi up`: the plan it made when it began, and the writes it makes until it ends or is killed."""

    def __init__(self, world: World, state: dict[str, Any], wanted: Wanted | Undo) -> None:
        self.world, self.state = world, state
        self.moves_back = isinstance(wanted, Undo)
        if isinstance(wanted, Undo):
            wanted = rollback_to_kept(world.ledger)
        decision = decide(
            wanted, world.ledger, next((one for one in reversed(COLOURS) if not world.weights[one]), "green")
        )
        self.session = Session(self, world.ledger, decision)  # type: ignore[arg-type]
        standing = {f"Deployment/shopcat-{one}": copy.deepcopy(each) for one, each in world.deployments.items()}
        seen = world.ledger
        self.plan = Plan(
            decision=decision,
            state=seen,
            session=self.session,
            colours=release_plan._colours(decision, seen, keeps_former=world.keeps_former),
            checks=release_plan._checks(decision, seen),
            intent=release_plan._intent(decision, seen),
            pointer=release_plan._pointer(decision, seen),
            timing=TIMING,
            public_url="",
            load_balancer="shopcat",
            database_owner="shop",
            kubernetes=lambda: Kubernetes(world, self.write_deployment),  # type: ignore[arg-type, return-value]
            is_traffic_misplaced=decision.action == "stay"
            and seen.live is not None
            and world.weights != all_on(seen.live.colour),
            standing=standing,
        )
        self.left = 10**9
        """Writes until it is killed."""
        self.made = 0
        self.moves = False
        """It has given its own release weight, so it may take it back."""
        self.meanwhile: dict[int, Callable[[], None]] = {}
        """What a person does while this update waits for the n-th time."""

    # The ledger

    def read(self) -> LedgerState:
        return self.world.ledger

    def _put(self, before: LedgerState, after: LedgerState) -> LedgerState:
        self.tick()
        if self.world.ledger.version != before.version:
            raise LedgerConflictError("another update was first")
        self.world.ledger = after
        return after

    def claim(self, state: LedgerState, decision: Decision) -> LedgerState:
        return self._put(state, claimed(state, decision, self.world.now()))

    def hold(self, state: LedgerState) -> LedgerState:
        return self._put(state, replace(state, version=state.version + 1))

    def go_live(self, state: LedgerState) -> LedgerState:
        assert self.world.weights == all_on(self.plan.decision.open.colour), "live before everything is there"  # type: ignore[union-attr]
        return self._put(state, gone_live(state))

    def abort(self, state: LedgerState) -> LedgerState:
        return self._put(state, aborted(state))

    # Writes, each with the oracle's question

    def tick(self) -> None:
        """One write more, or the end of the engine."""
        if self.left <= 0:
            raise Killed
        self.left -= 1
        self.made += 1

    def write_weights(self, weights: dict[Colour, int]) -> None:
        self.tick()
        world, state = self.world, self.world.ledger
        for colour in COLOURS:
            if weights[colour] <= world.weights[colour]:
                continue
            if state.live is None:
                continue  # nobody is served yet
            if colour == state.live.colour:
                taken = state.open is not None and world.keeps_everything(state.open.colour)
                assert not taken or self.moves or self.plan.decision.action == "abort", "users are taken away"
                assert world.healthy(colour) or not world.healthy(other_colour(colour)), "users sent to nobody"
                continue
            assert state.open, f"weight to {colour}, which is neither live nor open"
            assert state.open.colour == colour
            assert self.plan.decision.action != "abort", "weight to what is being aborted"
            assert world.has_passed(colour), "weight to what isn't whole, or has not passed"
            assert world.jobs.get(f"smoke-{state.open.intent}", True), "weight to what has failed"
            self.moves = True
        world.users_are_served()
        world.log.append(f"weights {world.weights} -> {weights}")
        world.weights = weights
        world.users_are_served()

    def write_deployment(self, colour: Colour, declared: dict[str, Any]) -> None:
        self.tick()
        world, state = self.world, self.world.ledger
        standing = world.deployments.get(colour)
        new = declared["spec"]["template"]["spec"]["containers"][0]["image"]
        if standing and standing["spec"]["replicas"]:
            image = standing["spec"]["template"]["spec"]["containers"][0]["image"]
            gone = declared["spec"]["replicas"] == 0 or image != new
            is_live = state.live is not None and colour == state.live.colour
            name = state.live.name if state.live and is_live else ""
            if state.open and state.open.colour == colour and world.keeps_everything(colour):
                name = state.open.name if self.plan.decision.action != "abort" else ""
            if name:
                record = state.releases[name].record
                assert new == record.template.image, "users get another release"
                assert declared["spec"]["replicas"] >= record.template.replicas, "users lose their pods"
            elif gone:
                assert world.weights[colour] == 0, f"pods of {colour} go while it has weight {world.weights}"
        before = world.pods(colour)
        if declared["spec"]["replicas"] and not world.accepts(colour, secret_of(declared["spec"]["template"])):
            assert world.person_acts or (state.open is None and state.live is None), (
                "pods start with a password that is refused"
            )
        if standing and standing["spec"]["template"] != declared["spec"]["template"]:
            gone = before
        else:
            gone = before[int(declared["spec"]["replicas"]) :]
        for pod in gone:
            pod["metadata"]["deletionTimestamp"] = "now"
        world.leaving[colour] += gone
        world.version += 1
        world.log.append(f"deployment {colour}: {declared['spec']['replicas']} of {new[-4:]}")
        world.deployments[colour] = copy.deepcopy(declared)
        world.deployments[colour]["metadata"]["resourceVersion"] = str(world.version)

    # The engine

    def declared(self, colour: Colour) -> dict[str, Any]:
        each = self.plan.colours[colour]
        pod = render_pod_template(each.record, colour)
        spec = {"replicas": each.replicas, "template": pod}
        marks = {TEMPLATE_ANNOTATION: fingerprint(pod), INTENT_ANNOTATION: self.plan.intent}
        assert self.plan.standing is not None
        found = drift.compare_objects(
            spec,
            marks,
            self.plan.standing.get(f"Deployment/shopcat-{colour}"),
            intent=INTENT_ANNOTATION,
            is_expected=colour in self.plan.state.occupants,
        )
        metadata = {"name": f"shopcat-{colour}", "annotations": {**marks, **found.mark}}
        return {"kind": "Deployment", "metadata": metadata, "spec": spec}

    async def run(self) -> None:
        """Everything that BlueGreen declares, in its order; what doesn't depend on each other runs side by side."""
        manager = SecretsManager(self.world, self.tick)
        hooks = Hooks(self.plan, manager, self.world.log.append)  # type: ignore[arg-type]
        seconds, waits = [0.0], [0]

        async def sleep(wanted: float) -> None:
            seconds[0] += max(wanted, 0.1)
            waits[0] += 1
            self.meanwhile.pop(waits[0], lambda: None)()
            await asyncio.sleep(0)

        hooks._traffic = Unmeasured(
            LoadBalancer(self.world, self.write_weights),  # type: ignore[arg-type]
            "shopcat",
            self.world.log.append,
            overtaken=hooks._overtaken,
            refuse=hooks._refuse_weight,
            sleep=sleep,
            clock=lambda: seconds[0],
        )

        async def others_end(_: float) -> None:
            """While the colour is emptied: pods go, and Jobs that another update has left end."""
            for colour in COLOURS:
                self.world.leaving[colour].clear()
            for job in list(self.world.login_jobs):
                self.world.set_password(job)

        hooks._renewal.sleep = others_end
        if self.moves_back:
            await hooks.move_users_back()
        else:
            await self._declare_all(hooks)

    async def _declare_all(self, hooks: Hooks) -> None:
        for each in sorted(
            {one.record.name: one for one in self.plan.colours.values()}.values(), key=lambda one: one.colour
        ):
            await asyncio.gather(*(self._login(hooks, each.colour, each.record, one) for one in self.world.databases))
        first = [one for one, each in self.plan.colours.items() if not each.changes_last]
        await asyncio.gather(*(self._deployment(hooks, one) for one in first))
        if self.plan.checks:
            await self._smoke(hooks)
        if self.plan.pointer and self.state.get("pointer") != self.plan.pointer:
            await hooks.promote()
            self.tick()
            self.state["pointer"] = self.plan.pointer
        for colour in self.plan.colours.keys() - set(first):
            await self._deployment(hooks, colour)
        if self.plan.is_traffic_misplaced:
            await hooks.restore()

    async def _deployment(self, hooks: Hooks, colour: Colour) -> None:
        declared = self.declared(colour)
        if self.state.get(colour) == declared:
            return
        await hooks.guard_deployment(colour, declared)
        if colour in self.state:
            await hooks.make_again(declared)
            if colour not in self.world.deployments:
                raise UpdateError("the provider updates only what is there")
        self.write_deployment(colour, declared)
        image = declared["spec"]["template"]["spec"]["containers"][0]["image"]
        awaited = declared["spec"]["replicas"] and not self.plan.colours[colour].is_kept
        if awaited and self.world.kinds.get(image.rpartition("@")[2]) == "never ready":
            raise UpdateError("timed out waiting for the Deployment")
        self.tick()
        self.state[colour] = declared

    async def _login(self, hooks: Hooks, colour: Colour, record: Record, database: str) -> None:
        """Declare what sets a password in a database, as BlueGreen does."""
        decision, known = self.plan.decision, self.plan.state.releases.get(record.name)
        is_going_on = (
            decision.open is not None and decision.open.name == record.name and decision.action in ("release", "resume")
        )
        if record.login is None or not (is_going_on or (known and known.attempts[-1].outcome == "live")):
            return
        name = logins.job_name(record.login, database)
        if self.state.get(name):
            return
        await hooks.renew_login(logins.secret_resource(record.login, database))
        self.tick()
        self.world.login_jobs[name] = (database, colour, record)
        self.tick()
        if name in self.world.login_jobs:  # another update's wait may have seen it end
            self.world.set_password(name)
        self.tick()
        self.state[name] = True

    async def _smoke(self, hooks: Hooks) -> None:
        checks = self.plan.checks
        assert checks is not None
        name = checks.smoke_name
        if self.state.get(name) and self.world.jobs.get(name):
            return
        await hooks.claim()
        self.tick()
        passes = self.world.kinds.get(checks.record.digest) == "good"
        self.world.jobs[name] = passes and self.world.is_whole(checks.colour, checks.record.name)
        if not self.world.jobs[name]:
            raise UpdateError("the smoke test has failed")
        self.state[name] = True


class Interference(RuleBasedStateMachine):
    """Updates, kills, two at once, and a person with kubectl."""

    @initialize(
        seed=st.integers(0, 2**16),
        keeps_former=st.booleans(),
        is_moved=st.booleans(),
        databases=st.sampled_from([("",), ("", RESTORED), (RESTORED,)]),
    )
    def start(
        self, seed: int, *, keeps_former: bool = False, is_moved: bool = True, databases: Sequence[str] = ("",)
    ) -> None:
        self.random = random.Random(seed)  # noqa: S311 - it orders calls
        self.person_acted = False
        self.world = World()
        self.world.keeps_former = keeps_former
        self.world.databases = databases
        for number, _ in enumerate(TAGS, start=1):
            self.world.kinds[digest(number)] = "good"
        self.world.kinds[digest(0)] = "good"
        self.state: dict[str, Any] = {}
        self.yesterday: dict[str, Any] = {}
        self.waiting: list[Update] = []
        if is_moved:
            self.up(Tag("v1", template(1)))
            return
        with unittest.mock.patch("infra.release.decide._with_new_login", lambda record, *_: record):
            assert self.up(Tag("v0", template(0)))

    async def in_turn(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """In place of a thread: the same calls in an order that depends on the seed alone."""
        for _ in range(self.random.randint(0, 3)):
            await asyncio.sleep(0)
        return call(*arguments)

    def begin(self, wanted: Wanted | Undo) -> Update | None:
        with suppress(ShopCatError):
            return Update(self.world, self.state, wanted)
        return None

    def up(self, wanted: Wanted | Undo, writes: int = 10**9) -> bool:
        update = self.begin(wanted)
        return update is not None and self.go(update, writes)

    def go(self, *updates: Update | int) -> bool:
        """Run updates side by side; whether all went through."""
        first = [one for one in updates if isinstance(one, Update)]
        for one, left in zip(first, [one for one in updates if isinstance(one, int)], strict=False):
            one.left = left
        outcomes: list[BaseException | None] = []

        async def guarded(one: Update) -> None:
            try:
                await one.run()
                outcomes.append(None)
            except (ShopCatError, UpdateError, Killed) as error:
                self.world.log.append(f"{type(error).__name__}: {error}")
                outcomes.append(error)

        async def together() -> None:
            await asyncio.gather(*(guarded(one) for one in first))

        self.world.log.clear()
        with unittest.mock.patch("infra.clients.threads.in_thread", self.in_turn):
            try:
                run(together())
            finally:
                note("\n".join(self.world.log))
        if len(first) == 1 and first[0].session.state.version == self.world.ledger.version:
            self.nothing_unproven_keeps_weight([one for one in outcomes if one is not None])
        return all(one is None for one in outcomes)

    def nothing_unproven_keeps_weight(self, errors: list[BaseException]) -> None:
        """An update that came to its end, well or not, leaves no weight on what has not passed while the live one serves.

        One that was read before somebody else's is not asked: it writes nothing.
        """
        state, world = self.world.ledger, self.world
        if state.live is None or state.open is None or self.person_acted:
            return
        if any(isinstance(error, Killed | LedgerConflictError) for error in errors):
            return
        opened = state.open.colour
        keeps = world.has_passed(opened) or world.keeps_everything(opened)
        assert not world.weights[opened] or keeps or not world.healthy(state.live.colour), (
            "weight on what has not passed"
        )

    wishes = st.one_of(
        st.just(Nothing()),
        st.just(Undo()),
        st.builds(lambda number: Tag(TAGS[number - 1], template(number)), st.integers(1, len(TAGS))),
        st.builds(Abort, st.sampled_from(TAGS)),
        st.builds(Rollback, st.sampled_from(TAGS), st.sampled_from(("v0", *TAGS))),
        st.builds(lambda tag, revision: Rotate(f"{tag}-r{revision}"), st.sampled_from(TAGS), st.integers(1, 3)),
    )
    ends = st.one_of(st.just(10**9), st.integers(0, 12))

    @rule(wanted=wishes, writes=ends)
    def update(self, wanted: Wanted | Undo, writes: int) -> None:
        self.up(wanted, writes)

    @rule()
    def the_next_release_goes_through(self) -> None:
        """Rollbacks to older ones need a row of releases, which chance alone rarely makes."""
        state = self.world.ledger
        if state.open:
            self.up(Abort(state.open.tag))
        once = {each.record.tag for each in state.releases.values() if each.state in ONCE_LIVE}
        number = next((number for number, tag in enumerate(TAGS, start=1) if tag not in once), None)
        if number:
            self.world.kinds[digest(number)] = "good"
            self.up(Tag(TAGS[number - 1], template(number)))

    @rule(number=st.integers(0, 9), writes=ends)
    def what_was_live_comes_back(self, number: int, writes: int) -> None:
        state = self.world.ledger
        if state.live is None:
            return
        former = sorted(
            name for name, each in state.releases.items() if each.state in ONCE_LIVE and name != state.live.name
        )
        if former:
            self.up(Rollback(state.live.name, former[number % len(former)]), writes)

    @rule(wanted=wishes, wait=st.integers(1, 12), blue=st.integers(0, 3), green=st.integers(0, 3), twice=st.booleans())
    def update_while_somebody_scales(
        self, wanted: Wanted | Undo, wait: int, blue: int, green: int, *, twice: bool
    ) -> None:
        update = self.begin(wanted)
        if update is None:
            return

        def act() -> None:
            self.scaled_by_hand("blue", blue)
            self.scaled_by_hand("green", green)

        update.meanwhile = {wait: act, **({wait + 3: act} if twice else {})}
        self.person_acted = self.world.person_acts = True
        self.go(update)
        self.person_acted = self.world.person_acts = False

    @rule(wanted=wishes)
    def an_update_reads_and_waits(self, wanted: Wanted | Undo) -> None:
        update = self.begin(wanted)
        if update:
            self.waiting.append(update)

    @rule(writes=ends)
    def what_waited_goes_on(self, writes: int) -> None:
        if self.waiting:
            self.go(self.waiting.pop(0), writes)

    @rule(one=wishes, two=wishes, writes=ends)
    def two_at_once(self, one: Wanted | Undo, two: Wanted | Undo, writes: int) -> None:
        updates = [each for each in (self.begin(one), self.begin(two)) if each]
        if len(updates) == 2:
            updates[1].state = copy.deepcopy(self.state)  # of another backend
            self.go(*updates, writes)

    @rule(job=st.integers(0, 3))
    def a_job_that_was_left_ends(self, job: int) -> None:
        if self.world.login_jobs:
            names = sorted(self.world.login_jobs)
            self.world.set_password(names[job % len(names)])

    @rule(colour=st.sampled_from(COLOURS))
    def pods_that_leave_are_gone(self, colour: Colour) -> None:
        self.world.leaving[colour].clear()

    @rule(number=st.integers(2, len(TAGS)), kind=st.sampled_from(["good", "fails its smoke test", "never ready"]))
    def an_image_is_pushed(self, number: int, kind: str) -> None:
        if TAGS[number - 1] not in {each.record.tag for each in self.world.ledger.releases.values()}:
            self.world.kinds[digest(number)] = kind

    def touch(self, colour: Colour) -> dict[str, Any] | None:
        standing = self.world.deployments.get(colour)
        if standing:
            self.world.version += 1
            standing["metadata"]["resourceVersion"] = str(self.world.version)
        return standing

    @rule(colour=st.sampled_from(COLOURS), replicas=st.integers(0, 4))
    def scaled_by_hand(self, colour: Colour, replicas: int) -> None:
        if standing := self.touch(colour):
            standing["spec"]["replicas"] = replicas
            self.world.start_pods(colour)

    @rule(colour=st.sampled_from(COLOURS))
    def a_pod_is_restarted(self, colour: Colour) -> None:
        if pods := self.world.started[colour]:
            self.world.now()
            pods[0] = (pods[0][0], self.world.seconds)

    @rule(colour=st.sampled_from(COLOURS), number=st.integers(1, len(TAGS)))
    def image_edited_by_hand(self, colour: Colour, number: int) -> None:
        if standing := self.touch(colour):
            standing["spec"]["template"]["spec"]["containers"][0]["image"] = template(number).image

    @rule(colour=st.sampled_from(COLOURS))
    def variable_edited_by_hand(self, colour: Colour) -> None:
        if standing := self.touch(colour):
            variables = standing["spec"]["template"]["spec"]["containers"][0]["env"]
            variables.append({"name": f"EDITED_{self.world.version}", "value": "yes"})
            self.world.start_pods(colour)

    @rule(colour=st.sampled_from(COLOURS))
    def deleted_by_hand(self, colour: Colour) -> None:
        self.world.deployments.pop(colour, None)

    @rule(blue=st.sampled_from([0, 10, 50, 100]))
    def weights_moved_by_hand(self, blue: int) -> None:
        self.world.weights = {"blue": blue, "green": 100 - blue}

    @rule(number=st.integers(2, len(TAGS)), kind=st.sampled_from(["fails its smoke test", "never ready"]), writes=ends)
    def traffic_is_put_on_a_release_that_failed(self, number: int, kind: str, writes: int) -> None:
        self.an_image_is_pushed(number, kind)
        self.up(Tag(TAGS[number - 1], template(number)))
        if opened := self.world.ledger.open:
            self.world.weights = all_on(opened.colour)
            self.up(Nothing(), writes)

    @rule()
    def refreshed(self) -> None:
        for colour in COLOURS:
            standing = self.world.deployments.get(colour)
            if standing is None:
                self.state.pop(colour, None)
            elif colour in self.state:
                fresh = copy.deepcopy(standing)
                fresh["metadata"].pop("resourceVersion")
                self.state[colour] = fresh

    @rule()
    def state_is_backed_up(self) -> None:
        self.yesterday = copy.deepcopy(self.state)

    @rule()
    def state_of_yesterday_is_restored(self) -> None:
        self.state = copy.deepcopy(self.yesterday)

    @rule()
    def healed(self) -> None:
        """Whoever did what: one command heals it, and after that nothing is left to write."""
        opened = self.world.ledger.open
        update = Update(self.world, self.state, Abort(opened.tag) if opened else Nothing())
        assert self.go(update), "neither an update nor an abort heals this"
        state = self.world.ledger
        assert state.open is None
        if state.live is None:
            return
        live, idle = state.live.colour, other_colour(state.live.colour)
        assert self.world.weights == all_on(live)
        assert self.world.is_whole(live, state.live.name)
        assert len(self.world.pods(live)) == state.releases[state.live.name].record.template.replicas
        self.only_the_former_stays(idle)
        self.every_pod_may_sign_in()
        again = Update(self.world, self.state, Nothing())
        assert self.go(again)
        assert again.made == 0, "a second update writes again"

    def every_pod_may_sign_in(self) -> None:
        """In the database that they use; the live colour's password is set in each, before releases are led there."""
        world, live = self.world, self.world.ledger.live
        for colour in COLOURS:
            for pod in world.pods(colour):
                assert world.accepts(colour, secret_of(pod)), f"a pod of {colour} is refused"
        record = world.ledger.live_record
        if record and live and record.login:
            assert {world.accepted[each, live.colour] for each in world.databases} == {record.secret_name}

    def only_the_former_stays(self, idle: Colour) -> None:
        """The idle colour is empty, or has the pods of the release that was live right before, all of them."""
        state = self.world.ledger
        former = next((each for each in state.releases.values() if each.state == "former"), None)
        pods = self.world.pods(idle)
        if not pods:
            return
        assert self.world.keeps_former
        assert former is not None
        assert state.occupants[idle] == former.name
        assert {pod["spec"]["containers"][0]["image"] for pod in pods} == {former.record.template.image}
        assert len(pods) == former.record.template.replicas

    @invariant()
    def time_passes(self) -> None:
        if hasattr(self, "world"):
            for colour in COLOURS:
                self.world.start_pods(colour)
            self.world.users_are_served()

    @invariant()
    def live_release_stays_in_its_colour(self) -> None:
        if hasattr(self, "world") and self.world.ledger.live:
            live = self.world.ledger.live
            assert self.world.ledger.occupants[live.colour] == live.name


Interference.TestCase.settings = settings(
    max_examples=examples(120), stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestInterference = Interference.TestCase


@given(seed=st.integers(0, 2**16), keeps_former=st.booleans())
@settings(max_examples=10, deadline=None)
def test_with_nobody_in_between_releases_rollbacks_and_aborts_go_through(seed: int, *, keeps_former: bool) -> None:
    model = Interference()
    model.start(seed=seed, keeps_former=keeps_former)
    model.world.kinds[digest(3)] = "fails its smoke test"
    assert model.up(Tag("v2", template(2)))
    assert model.up(Rollback("v2", "v1"))
    assert not model.up(Tag("v3", template(3)))
    model.healed()
    live = model.world.ledger.live
    assert live is not None
    assert live.tag == "v1"


@given(seed=st.integers(0, 2**16))
@settings(max_examples=10, deadline=None)
def test_a_kept_former_stays_until_the_next_release_or_its_own_rollback(seed: int) -> None:
    model = Interference()
    model.start(seed=seed, keeps_former=True)
    world = model.world

    def images() -> dict[Colour, set[str]]:
        return {one: {pod["spec"]["containers"][0]["image"][-1] for pod in world.pods(one)} for one in COLOURS}

    assert images() == {"green": {"1"}, "blue": set()}
    assert model.up(Tag("v2", template(2)))
    assert images() == {"green": {"1"}, "blue": {"2"}}
    model.healed()
    assert model.up(Tag("v3", template(3)))
    assert images() == {"green": {"3"}, "blue": {"2"}}, "the older one made room"
    assert model.up(Rollback("v3", "v2"))
    assert images() == {"green": set(), "blue": {"2"}}, "what a rollback leaves is not kept"
    assert not any("deployment blue: 0" in line for line in world.log), "the rollback started nothing anew"
    model.healed()
    assert model.up(Tag("v4", template(4)))
    assert images() == {"green": {"4"}, "blue": {"2"}}
    assert model.up(Rollback("v4", "v1"))
    assert images() == {"green": set(), "blue": {"1"}}, "one that is older still comes back as well"


@given(seed=st.integers(0, 2**16), writes=st.integers(1, 12))
@settings(max_examples=examples(60), deadline=None)
def test_a_rollback_to_a_kept_former_that_breaks_off_goes_on_or_back(seed: int, writes: int) -> None:
    for end in (Rollback("v2", "v1"), Abort("v1"), Nothing()):
        model = Interference()
        model.start(seed=seed, keeps_former=True)
        assert model.up(Tag("v2", template(2)))
        model.up(Rollback("v2", "v1"), writes)
        opened = model.world.ledger.open
        if opened:
            assert model.up(end)
        model.healed()
        idle = other_colour(model.world.ledger.live.colour)  # type: ignore[union-attr]
        if opened:
            assert model.world.pods(idle) == [], "neither what was left nor what an abort has emptied is kept"


@given(seed=st.integers(0, 2**16), writes=st.integers(1, 4), is_restarted=st.booleans(), keeps_former=st.booleans())
@settings(max_examples=examples(60), deadline=None)
def test_users_go_back_at_once_to_pods_that_have_served_and_the_next_update_goes_on(
    seed: int, writes: int, *, is_restarted: bool, keeps_former: bool
) -> None:
    model = Interference()
    model.start(seed=seed, keeps_former=keeps_former)
    assert model.up(Tag("v2", template(2)))
    if is_restarted:
        model.a_pod_is_restarted("green")
    before = model.world.ledger
    moved = model.up(Undo(), writes)
    if is_restarted or not keeps_former:
        assert not moved
        assert (model.world.ledger, model.world.weights) == (before, all_on("blue"))
        return
    assert moved == (writes >= 2), "one write in the ledger, one at the load balancer"
    assert not any("deployment" in line for line in model.world.log)
    assert model.up(Undo())
    assert model.world.weights == all_on("green")
    assert model.up(Nothing())
    live = model.world.ledger.live
    assert live is not None
    assert live.tag == "v1"
    assert model.world.pods("blue") == []
    model.healed()


def users_were_moved_back(seed: int) -> Interference:
    model = Interference()
    model.start(seed=seed, keeps_former=True)
    assert model.up(Tag("v2", template(2)))
    assert model.up(Undo())
    assert model.world.weights == all_on("green")
    return model


@given(seed=st.integers(0, 2**16), fails=st.booleans())
@settings(max_examples=20, deadline=None)
def test_users_who_were_moved_back_stay_although_a_pod_restarts_or_the_smoke_test_fails(
    seed: int, *, fails: bool
) -> None:
    model = users_were_moved_back(seed)
    world = model.world
    model.a_pod_is_restarted("green")
    assert model.up(Undo()), "there is nothing left to do"
    if fails:
        world.kinds[digest(1)] = "fails its smoke test"
        assert not model.up(Nothing())
        assert not model.up(Nothing())
        world.kinds[digest(1)] = "good"
    assert world.weights == all_on("green")
    assert model.up(Nothing())
    assert not any("weights" in line and "->" in line for line in world.log), "nobody was moved"
    model.healed()
    assert world.ledger.live is not None
    assert world.ledger.live.tag == "v1"


@given(seed=st.integers(0, 2**16), is_restarted=st.booleans())
@settings(max_examples=10, deadline=None)
def test_a_newer_program_makes_no_other_pods_under_users_who_were_moved_back(seed: int, *, is_restarted: bool) -> None:
    model = users_were_moved_back(seed)
    if is_restarted:
        model.a_pod_is_restarted("green")

    rendered = render_pod_template

    def newer(record: Record, colour: Colour) -> dict[str, Any]:
        pod = rendered(record, colour)
        return {**pod, "metadata": {**pod["metadata"], "annotations": {"newer": "yes"}}}

    with unittest.mock.patch(f"{__name__}.render_pod_template", newer):
        assert not model.up(Nothing())
        assert "would make other pods" in model.world.log[-1]
    assert model.world.weights == all_on("green")
    assert model.up(Nothing()), "the program that released it goes on"
    model.healed()


@given(seed=st.integers(0, 2**16), wait=st.integers(1, 40))
@settings(max_examples=20, deadline=None)
def test_users_leave_a_colour_in_which_nobody_serves_any_more(seed: int, wait: int) -> None:
    model = users_were_moved_back(seed)
    world = model.world
    update = model.begin(Nothing())
    assert update is not None
    update.meanwhile = {wait: lambda: world.kinds.update({digest(1): "never ready"})}
    if not model.go(update):
        assert world.weights == all_on("blue")
    world.kinds[digest(1)] = "good"
    model.healed()


@given(seed=st.integers(0, 2**16))
@settings(max_examples=10, deadline=None)
def test_weights_that_somebody_moved_back_by_hand_are_no_rollback_yet(seed: int) -> None:
    model = Interference()
    model.start(seed=seed, keeps_former=True)
    assert model.up(Tag("v2", template(2)))
    model.world.weights = all_on("green")
    assert model.up(Undo())
    assert model.up(Nothing())
    assert model.world.ledger.live is not None
    assert model.world.ledger.live.tag == "v1"


@given(seed=st.integers(0, 2**16), is_edited=st.booleans(), is_restarted=st.booleans())
@settings(max_examples=20, deadline=None)
def test_a_template_edited_by_hand_is_put_back_under_users_who_were_moved_back(
    seed: int, *, is_edited: bool, is_restarted: bool
) -> None:
    model = users_were_moved_back(seed)
    if is_restarted:
        model.a_pod_is_restarted("green")
    if is_edited:
        model.variable_edited_by_hand("green")
    assert model.up(Nothing())
    assert not any("weights" in line and "->" in line for line in model.world.log), "nobody was moved"
    model.healed()
