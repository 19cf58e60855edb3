"""What BlueGreen declares, with Pulumi's mocks, for each decision; and what its hooks do before a write."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pulumi
import pytest

from infra.clients.aws import AwsClients
from infra.errors import ShopCatError, TrafficError
from infra.foundation.database_jobs import DatabaseJobs
from infra.names import RELEASE_LABEL, RESTORED
from infra.release import plan as release_plan
from infra.release.decide import Abort, Decision, Nothing, Rollback, Rotate, Tag, Wanted, decide
from infra.release.health import Target
from infra.release.listener_weights import Timing
from infra.release.plan import Plan
from infra.release.record import DrainNumbers
from infra.release.secrets import declare_release_secret
from infra.release.session import Session
from infra.release.state import LedgerState
from infra.release.transitions import aborted, claimed, gone_live
from infra.settings import read_settings
from tests.unit.releases import DRAIN, REGION, digest, run, template
from tests.unit.test_settings import committed


class Recorder(pulumi.runtime.Mocks):
    """Takes every resource as declared, and keeps it."""

    def __init__(self) -> None:
        self.resources: dict[str, dict[str, Any]] = {}

    def new_resource(self, args: pulumi.runtime.MockResourceArgs) -> tuple[str, dict[str, Any]]:
        self.resources[f"{args.typ}::{args.name}"] = args.inputs
        return f"{args.name}-id", args.inputs

    def call(self, args: pulumi.runtime.MockCallArgs) -> dict[str, Any]:
        raise AssertionError(f"no invoke is expected: {args.token}")


@pytest.fixture(autouse=True)
def _hooks_without_an_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pulumi's mocks know no resource hooks; what they do is tested below, that they run is the engine tests' part."""

    class Registered:
        def __await__(self) -> Any:
            return iter(())

    async def prepared(bound: Any, _: str) -> None:
        for each in (bound.before_create or []) + (bound.before_update or []) if bound else []:
            assert isinstance(each, pulumi.ResourceHook)

    monkeypatch.setattr("pulumi.resource_hooks.register_resource_hook", lambda _: Registered())
    monkeypatch.setattr("pulumi.resource_hooks.register_error_hook", lambda _: Registered())
    monkeypatch.setattr("pulumi.runtime.resource._prepare_resource_hooks", prepared)


def claim(state: LedgerState, wanted: Wanted) -> LedgerState:
    return claimed(state, decide(wanted, state), "2026-11-24T10:00:00+00:00")


def tag(name: str, number: int, **changes: Any) -> Tag:
    return Tag(name, template(number, **changes))


EMPTY = LedgerState(version=1)
FIRST = gone_live(claim(EMPTY, tag("v1.0.0", 1)))
SECOND = gone_live(claim(FIRST, tag("v1.1.0", 2)))


class Books:
    """A ledger in memory, with the same rules."""

    def __init__(self, state: LedgerState) -> None:
        self.state = state

    def read(self) -> LedgerState:
        return self.state

    def claim(self, state: LedgerState, decision: Decision) -> LedgerState:
        self.state = claimed(state, decision, "now")
        return self.state

    def hold(self, state: LedgerState) -> LedgerState:
        return state

    def go_live(self, state: LedgerState) -> LedgerState:
        self.state = gone_live(state)
        return self.state

    def abort(self, state: LedgerState) -> LedgerState:
        self.state = aborted(state)
        return self.state


def plan(state: LedgerState, wanted: Wanted, kubernetes: Any = None, *, keeps_former: bool = False) -> Plan:
    decision = decide(wanted, state)
    return Plan(
        decision=decision,
        state=state,
        session=Session(Books(state), state, decision),  # type: ignore[arg-type]
        colours=release_plan._colours(decision, state, keeps_former=keeps_former),
        checks=release_plan._checks(decision, state),
        intent=release_plan._intent(decision, state),
        pointer=release_plan._pointer(decision, state),
        timing=Timing(settle_seconds=120, proof_deadline_seconds=0),
        public_url="",
        load_balancer="shopcat",
        database_owner="shopcat",
        kubernetes=lambda: kubernetes,
        notes=(decision.message,),
    )


FIRST_DATABASE = DatabaseJobs(read_settings(committed()), "db.rds", "5432", "arn:master")
RESTORED_DATABASE = replace(FIRST_DATABASE, address="copy.rds", master_arn="arn:copy", place=RESTORED, moment="then")


def declare(
    state: LedgerState, wanted: Wanted, *, keeps_former: bool = False, databases: Sequence[DatabaseJobs] = ()
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """All resources of a decision, and the outputs."""
    from infra.release.blue_green import BlueGreen

    recorder = Recorder()
    pulumi.runtime.set_mocks(recorder, preview=False)
    outputs: dict[str, Any] = {}

    @pulumi.runtime.test
    def program() -> Any:
        release = BlueGreen(
            "shopcat",
            plan=plan(state, wanted, keeps_former=keeps_former),
            clients=AwsClients(REGION),
            target_group_arns={"blue": pulumi.Output.from_input("arn:blue"), "green": "arn:green"},
            load_balancer_cidrs=["10.64.0.0/19"],
            databases=databases or [FIRST_DATABASE],
        )
        outputs["notes"] = release.notes
        found = pulumi.Output.all(release.live_release, release.live_colour, release.table)
        return found.apply(lambda each: outputs.update(release=each[0], colour=each[1], table=each[2]))

    program()
    return recorder.resources, outputs


def one(resources: dict[str, dict[str, Any]], name: str) -> dict[str, Any]:
    found = [inputs for key, inputs in resources.items() if key.endswith(f"::{name}")]
    assert len(found) == 1, f"{name}: {sorted(resources)}"
    return found[0]


def test_before_any_release_services_and_bindings_stand_and_no_deployment() -> None:
    resources, outputs = declare(EMPTY, Nothing())
    names = {key.partition("::")[2] for key in resources}
    assert {"service-blue", "service-green", "binding-blue", "binding-green", "namespace"} <= names
    assert not any(name.startswith(("deployment-", "secret", "smoke")) for name in names)
    assert outputs["release"] == ""


def test_the_namespace_asks_for_readiness_gates_and_restricted_pods() -> None:
    labels = one(declare(EMPTY, Nothing())[0], "namespace")["metadata"]["labels"]
    assert labels["elbv2.k8s.aws/pod-readiness-gate-inject"] == "enabled"
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_services_do_not_wait_for_endpoints_and_bindings_name_their_group() -> None:
    resources, _ = declare(EMPTY, Nothing())
    for colour in ("blue", "green"):
        service, binding = one(resources, f"service-{colour}"), one(resources, f"binding-{colour}")
        assert service["metadata"]["annotations"]["pulumi.com/skipAwait"] == "true"
        assert service["spec"]["selector"]["shopcat/colour"] == colour
        assert binding["spec"]["targetGroupARN"] == f"arn:{colour}"
        assert binding["spec"]["serviceRef"] == {"name": f"shopcat-{colour}", "port": 80}
        assert binding["spec"]["targetType"] == "ip"


def test_only_the_load_balancers_and_the_smoke_test_reach_the_pods() -> None:
    spec = one(declare(EMPTY, Nothing())[0], "ingress")["spec"]
    assert spec["podSelector"] == {}
    (rule,) = spec["ingress"]
    smoke = {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "shopcat-smoke"}}}
    assert rule["from"] == [{"ipBlock": {"cidr": "10.64.0.0/19"}}, smoke]
    assert rule["ports"] == [{"protocol": "TCP", "port": 8080}]


def test_the_first_release_takes_the_colour_without_weight() -> None:
    resources, _ = declare(EMPTY, tag("v1.0.0", 1))
    green, blue = one(resources, "deployment-green"), one(resources, "deployment-blue")
    assert green["spec"]["replicas"] == 2
    assert blue["spec"]["replicas"] == 0
    assert green["metadata"]["annotations"]["shopcat/intent"] == "v1.0.0-r1-a1"
    assert green["metadata"]["annotations"]["shopcat/template"] != blue["metadata"]["annotations"]["shopcat/template"]
    assert one(resources, "live")["data"]["colour"] == "green"
    assert "smoke-v1.0.0-r1-a1" in {key.partition("::")[2] for key in resources}


def test_a_deployment_is_its_records() -> None:
    resources, _ = declare(EMPTY, tag("v1.0.0", 1))
    spec = one(resources, "deployment-green")["spec"]
    assert spec["minReadySeconds"] == 5
    assert spec["progressDeadlineSeconds"] == DRAIN.progress_deadline_seconds
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    pod = spec["template"]["spec"]
    assert pod["containers"][0]["image"].endswith(digest(1))
    sleep = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] >= sleep + DRAIN.app_drain_seconds + 10
    assert spec["selector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()


def test_each_release_has_its_own_secret_with_its_version_pinned() -> None:
    resources, _ = declare(FIRST, tag("v1.1.0", 2, secret_version="22222222-2222-2222-2222-222222222222"))
    for name, version in (("v1.0.0-r1", "1111"), ("v1.1.0-r1", "2222")):
        secret = one(resources, f"secret-{name}-a1")
        assert secret["metadata"]["name"] == f"shopcat-{name}-a1"
        assert secret["metadata"]["annotations"]["pulumi.com/waitFor"] == "condition=Ready"
        sources = {each["secretKey"]: each["remoteRef"] for each in secret["spec"]["data"]}
        for key in ("host", "port", "dbname"):
            assert sources[key]["key"] == "shopcat/application"
            assert sources[key]["version"].startswith(f"uuid/{version}")
        for key in ("username", "password"):
            assert sources[key]["key"] == f"shopcat/login-{'green' if name == 'v1.0.0-r1' else 'blue'}"


def test_a_secret_that_never_came_holds_up_neither_an_abort_nor_what_follows() -> None:
    def waiting(state: LedgerState, wanted: Wanted) -> dict[str, str]:
        names = ("secret-v1.0.0-r1-a1", "secret-v1.1.0-r1-a1")
        found = {name: one(declare(state, wanted)[0], name)["metadata"]["annotations"] for name in names}
        return {name: ",".join(sorted(notes)) for name, notes in found.items()}

    awaited, unawaited = "pulumi.com/waitFor", "pulumi.com/skipAwait"
    opened = claim(FIRST, tag("v1.1.0", 2))
    assert set(waiting(opened, Nothing()).values()) == {awaited}
    for state, wanted in ((opened, Abort("v1.1.0")), (aborted(opened), Nothing())):
        assert waiting(state, wanted) == {"secret-v1.0.0-r1-a1": awaited, "secret-v1.1.0-r1-a1": unawaited}
    back = claim(SECOND, Rollback("v1.1.0", "v1.0.0"))
    for state, wanted in ((back, Abort("v1.0.0")), (aborted(back), Nothing())):
        assert waiting(state, wanted) == {"secret-v1.0.0-r1-a1": unawaited, "secret-v1.1.0-r1-a1": awaited}


def test_a_deployment_takes_back_what_somebody_scaled() -> None:
    resources, _ = declare(SECOND, Nothing())
    for colour in ("blue", "green"):
        assert one(resources, f"deployment-{colour}")["metadata"]["annotations"]["pulumi.com/patchForce"] == "true"


def test_only_what_was_written_for_this_very_intent_counts_as_changed_by_hand() -> None:
    from infra.release.blue_green import BlueGreen

    recorder = Recorder()
    pulumi.runtime.set_mocks(recorder, preview=False)
    standing = {
        "Deployment/shopcat-blue": {
            "metadata": {"resourceVersion": "5", "annotations": {"shopcat/intent": "v1.1.0-r1-a1"}}
        },
        "Deployment/shopcat-green": {"metadata": {"resourceVersion": "6", "annotations": {"shopcat/intent": "older"}}},
        "Service/shopcat-blue": {
            "metadata": {"resourceVersion": "7"},
            "spec": {"selector": {"shopcat/colour": "nobody"}},
        },
        "Service/shopcat-green": {"metadata": {"deletionTimestamp": "2026-01-02T03:04:05Z"}},
    }
    notes: list[str] = []

    @pulumi.runtime.test
    def program() -> None:
        release = BlueGreen(
            "shopcat",
            plan=replace(plan(SECOND, Nothing()), standing=standing),
            clients=AwsClients(REGION),
            target_group_arns={"blue": "arn:blue", "green": "arn:green"},
            load_balancer_cidrs=["10.64.0.0/19"],
            databases=[FIRST_DATABASE],
        )
        notes.extend(release.notes)

    program()
    marks = {
        name: one(recorder.resources, name)["metadata"]["annotations"].get("shopcat/restored")
        for name in ("deployment-blue", "deployment-green", "service-blue", "service-green")
    }
    assert str(marks.pop("service-green")).startswith("deleted before ")
    assert marks == {"deployment-blue": "5", "deployment-green": None, "service-blue": "7"}
    (note,) = [each for each in notes if each.startswith("changed by hand")]
    assert "Deployment shopcat-blue: replicas is None, expected 2" in note
    assert "Service shopcat-blue: selector.shopcat/colour is 'nobody', expected 'blue'" in note
    assert "Service shopcat-green: was deleted" in note
    assert "Deployment shopcat-green" not in note
    assert "PodDisruptionBudget shopcat-blue: was deleted" in note


def test_a_second_update_declares_the_same() -> None:
    before, _ = declare(EMPTY, tag("v1.0.0", 1))
    after, outputs = declare(FIRST, Nothing())
    assert before == after
    assert outputs["release"] == "v1.0.0"
    assert outputs["colour"] == "green"
    assert [row["tag"] for row in outputs["table"]] == ["v1.0.0"]


def test_a_release_that_went_on_declares_what_the_claim_declared() -> None:
    claimed, _ = declare(FIRST, tag("v1.1.0", 2))
    resumed, _ = declare(claim(FIRST, tag("v1.1.0", 2)), Nothing())
    done, _ = declare(SECOND, Nothing())
    assert claimed == resumed == done
    assert one(claimed, "deployment-blue")["spec"]["replicas"] == 2
    assert one(claimed, "deployment-green")["spec"]["replicas"] == 0


def test_a_release_never_changes_the_pods_of_the_other_colour() -> None:
    before = one(declare(FIRST, Nothing())[0], "deployment-green")["spec"]["template"]
    after = one(declare(FIRST, tag("v1.1.0", 2, replicas=1))[0], "deployment-green")["spec"]["template"]
    assert before == after


def test_an_abort_empties_the_new_colour_and_leaves_the_live_one() -> None:
    open_state = claim(FIRST, tag("v1.1.0", 2))
    resources, _ = declare(open_state, Abort("v1.1.0"))
    assert one(resources, "deployment-blue")["spec"]["replicas"] == 0
    assert one(resources, "deployment-green")["spec"]["replicas"] == 2
    assert one(resources, "live")["data"]["tag"] == "v1.0.0"
    again, _ = declare(aborted(open_state), Abort("v1.1.0"))
    assert again == resources


def test_a_rollback_declares_the_former_record_in_the_idle_colour() -> None:
    resources, _ = declare(SECOND, Rollback("v1.1.0", "v1.0.0"))
    green = one(resources, "deployment-green")
    assert green["spec"]["replicas"] == 2
    assert green["spec"]["template"]["spec"]["containers"][0]["image"].endswith(digest(1))
    assert one(resources, "deployment-blue")["spec"]["replicas"] == 0


def pods_of(state: LedgerState, wanted: Wanted) -> dict[str, tuple[int, str, bool]]:
    """By colour: replicas, the last digit of the digest, and that nothing waits for the pods; with the former kept."""
    resources, _ = declare(state, wanted, keeps_former=True)
    found = {colour: one(resources, f"deployment-{colour}") for colour in ("blue", "green")}
    return {
        colour: (
            each["spec"]["replicas"],
            each["spec"]["template"]["spec"]["containers"][0]["image"][-1],
            each["metadata"]["annotations"].get("pulumi.com/skipAwait") == "true",
        )
        for colour, each in found.items()
    }


def test_a_kept_former_has_its_pods_from_the_release_that_leaves_it_to_the_next() -> None:
    kept = {"green": (2, "1", True), "blue": (2, "2", False)}
    opened = claim(FIRST, tag("v1.1.0", 2))
    assert pods_of(FIRST, tag("v1.1.0", 2)) == pods_of(opened, Nothing()) == pods_of(SECOND, Nothing()) == kept
    assert pods_of(SECOND, tag("v1.2.0", 3)) == {"green": (2, "3", False), "blue": (2, "2", True)}


def test_a_kept_former_s_pods_are_the_rollback_s_and_what_it_leaves_is_not_kept() -> None:
    done = {"green": (2, "1", False), "blue": (0, "2", False)}
    back = claim(SECOND, Rollback("v1.1.0", "v1.0.0"))
    assert pods_of(SECOND, Rollback("v1.1.0", "v1.0.0")) == pods_of(back, Nothing()) == done
    assert pods_of(gone_live(back), Nothing()) == done
    after = gone_live(claim(gone_live(back), tag("v1.2.0", 3)))
    assert pods_of(after, Nothing()) == {"green": (2, "1", True), "blue": (2, "3", False)}


def test_nothing_is_kept_before_there_is_a_former_nor_after_an_abort() -> None:
    assert pods_of(FIRST, Nothing())["blue"][0] == 0
    for opened, name in ((claim(FIRST, tag("v1.1.0", 2)), "v1.1.0"), (claim(SECOND, tag("v1.2.0", 3)), "v1.2.0")):
        idle = opened.open.colour if opened.open else ""
        assert pods_of(opened, Abort(name))[idle][0] == pods_of(aborted(opened), Nothing())[idle][0] == 0
    back = claim(SECOND, Rollback("v1.1.0", "v1.0.0"))
    assert pods_of(back, Abort("v1.0.0"))["green"][0] == pods_of(aborted(back), Nothing())["green"][0] == 0


def test_a_rollback_does_not_migrate_again() -> None:
    def migrations(state: LedgerState, wanted: Wanted) -> list[str]:
        return [key.partition("::")[2] for key in declare(state, wanted)[0] if "::migrate-" in key]

    first = gone_live(claim(EMPTY, tag("v1.0.0", 1, migrate=("migrate",))))
    second = gone_live(claim(first, tag("v1.1.0", 2)))
    assert migrations(first, Nothing()) == ["migrate-v1.0.0-r1-a1"]
    assert migrations(second, Rollback("v1.1.0", "v1.0.0")) == []
    back = claim(second, Rollback("v1.1.0", "v1.0.0"))
    assert migrations(back, Nothing()) == []
    assert migrations(gone_live(back), Nothing()) == [], "nor once it is live"
    taken_back = aborted(claim(EMPTY, tag("v1.0.0", 1, migrate=("migrate",))))
    again = migrations(taken_back, tag("v1.0.0", 1, migrate=("migrate",)))
    assert again == ["migrate-v1.0.0-r1-a2"], "an aborted attempt proves nothing about its migration"


def test_jobs_are_tried_once_and_replaced_when_they_failed() -> None:
    resources, _ = declare(EMPTY, tag("v1.0.0", 1, migrate=("migrate",)))
    for name in ("smoke-v1.0.0-r1-a1", "migrate-v1.0.0-r1-a1"):
        job = one(resources, name)
        assert job["metadata"]["annotations"]["pulumi.com/replaceUnready"] == "true"
        assert job["spec"]["backoffLimit"] == 0
        assert job["spec"]["activeDeadlineSeconds"] > 0


@pytest.mark.parametrize("answers", [True, False])
def test_a_migration_that_failed_is_explained(monkeypatch: pytest.MonkeyPatch, *, answers: bool) -> None:
    found: list[pulumi.ErrorHook] = []
    said: list[str] = []

    async def prepared(bound: Any, name: str) -> None:
        if bound and bound.on_error:
            assert "migrate-v1.0.0-r1-a1" in name
            found.extend(bound.on_error)

    def why(*_: Any) -> str:
        if not answers:
            raise ShopCatError("the cluster does not answer")
        return "killed for want of memory"

    monkeypatch.setattr("pulumi.runtime.resource._prepare_resource_hooks", prepared)
    monkeypatch.setattr("infra.release.blue_green.read_why_failed", why)
    monkeypatch.setattr(pulumi.log, "error", lambda text, _: said.append(text))
    declare(EMPTY, tag("v1.0.0", 1, migrate=("migrate",)))
    (hook,) = found
    answered: list[Any] = []

    async def ask() -> None:
        answered.append(await hook.callback(pulumi.ErrorHookArgs("", "", "", "")))  # type: ignore[misc]

    run(ask())
    assert answered == [False], "the Job is not tried again"
    assert said == (["killed for want of memory"] if answers else [])


def test_no_manifest_holds_a_secret_value() -> None:
    resources, _ = declare(SECOND, tag("v1.2.0", 3))
    assert "password" in json.dumps(resources), "its name is there"
    for key, inputs in resources.items():
        assert inputs.get("stringData") is None, key
        assert inputs.get("kind") != "Secret", key


# Hooks


class FakeTraffic:
    """The load balancer's weights, and what was asked of it."""

    def __init__(self, weights: dict[str, int], targets: list[Target] | None = None) -> None:
        self.weights = weights
        self.found = targets or []
        self.moved: list[str] = []
        self.modes: list[str] = []
        self.meanwhile: dict[str, int] = {}

    def deadline(self, _: Any) -> float:
        return 0.0

    async def read_weights(self, _: float) -> Any:
        from infra.release.listener_weights import Rule, View

        return View({"blue": "b", "green": "g"}, (Rule("l", "r", self.weights, ()),))  # type: ignore[arg-type]

    async def targets_of(self, *_: Any) -> list[Target]:
        return self.found

    async def shift_all_traffic(self, colour: str, *, readiness: Any, mode: str, **_: Any) -> None:
        reasons = await readiness()
        if reasons:
            raise ShopCatError("; ".join(reasons))
        self.modes.append(mode)
        self.moved.append(f"{colour}{'' if mode == 'immediate' else ' watched'}")
        self.weights = self.meanwhile or {colour: 100, "green" if colour == "blue" else "blue": 0}

    async def set_weights(self, weights: dict[str, int], _: Any) -> None:
        self.weights = weights


class Cluster:
    """Pods and Jobs of a healthy release."""

    def __init__(self, number: int, colour: str, *, pods: int = 2, smoke: bool = True, replicas: int = 0) -> None:
        self.number, self.colour, self.count, self.smoke = number, colour, pods, smoke
        self.stands: dict[str, Any] | None = {"spec": {"replicas": replicas}}
        self.stopped: list[str] = []

    def stop_pods(self, _: str, name: str) -> None:
        self.stopped.append(name)

    def pods(self, *_: Any) -> list[dict[str, Any]]:
        gate = f"target-health.elbv2.k8s.aws/shopcat-{self.colour}"
        return [
            {
                "metadata": {"name": f"pod-{index}", "labels": {RELEASE_LABEL: f"v1.{self.number - 1}.0-r1"}},
                "spec": {
                    "containers": [{"name": "shopcat", "image": f"x@{digest(self.number)}"}],
                    "readinessGates": [{"conditionType": gate}],
                },
                "status": {
                    "podIP": f"10.0.0.{index}",
                    "conditions": [{"type": "Ready", "status": "True"}, {"type": gate, "status": "True"}],
                },
            }
            for index in range(self.count)
        ]

    def targets(self) -> list[Target]:
        return [Target(f"10.0.0.{index}", 8080, "healthy") for index in range(self.count)]

    def job(self, *_: Any) -> dict[str, Any]:
        return {"status": {"succeeded": 1} if self.smoke else {}}

    def deployment(self, *_: Any) -> dict[str, Any] | None:
        return self.stands


def hooks(
    state: LedgerState,
    wanted: Wanted,
    weights: dict[str, int],
    cluster: Cluster | None = None,
    log: Callable[[str], None] = lambda _: None,
) -> Any:
    from infra.release.promotion import Hooks

    cluster = cluster or Cluster(1, "blue", pods=0)
    made = Hooks(plan(state, wanted, cluster), AwsClients(REGION), log)
    made._traffic = FakeTraffic(weights, cluster.targets())  # type: ignore[assignment]
    return made


def deployment(replicas: int, template: int) -> dict[str, Any]:
    marks = {"shopcat/template": str(template), "shopcat/intent": "x"}
    return {"metadata": {"annotations": marks}, "spec": {"replicas": replicas, "template": {"a": template}}}


FULL = deployment(2, 1)
EMPTIED = deployment(0, 1)
CHANGED = deployment(2, 2)


RUNNING: Any = [{}, {}]


def test_what_a_write_takes_from_running_pods() -> None:
    from infra.release.pod_losses import losses

    assert losses(FULL, None, []) == []
    assert losses(FULL, FULL, RUNNING) == []
    assert losses(FULL, EMPTIED, []) == []
    assert losses(EMPTIED, FULL, RUNNING) == ["replicas 2 -> 0"]
    assert losses(CHANGED, FULL, RUNNING) == ["template"]
    assert losses(EMPTIED, None, RUNNING) == ["replicas 2 -> 0", "template"], "orphans of a Deployment that is gone"
    assert losses(EMPTIED, CHANGED, []) == ["replicas 2 -> 0", "template"], "wanted, and not made yet"


def test_replicas_that_somebody_added_are_no_loss() -> None:
    from infra.release.pod_losses import losses

    assert losses(FULL, deployment(5, 1), [{}] * 5) == []
    assert losses(EMPTIED, deployment(5, 1), [{}] * 5) == ["replicas 5 -> 0"]


def test_a_template_edited_by_hand_under_an_unchanged_mark_counts_as_another() -> None:
    from infra.release.pod_losses import losses

    edited = {**FULL, "spec": {"replicas": 2, "template": {"a": 9}}}
    assert losses(FULL, edited, RUNNING) == ["template"]
    unmarked = {"spec": {"replicas": 2, "template": {"a": 1}}}
    assert losses(FULL, unmarked, RUNNING) == []
    assert losses(CHANGED, unmarked, RUNNING) == ["template"]


def test_the_slot_is_claimed_before_the_idle_deployment_changes() -> None:
    made = hooks(FIRST, tag("v1.1.0", 2), {"green": 100, "blue": 0})
    run(made.guard_deployment("blue", FULL))
    assert made._plan.session.state.open.name == "v1.1.0-r1"


def test_the_first_release_moves_at_once_and_goes_live() -> None:
    made = hooks(EMPTY, tag("v1.0.0", 1), {"blue": 100, "green": 0}, Cluster(1, "green"))
    run(made.promote())
    assert made._traffic.moved == ["green"]
    assert made._plan.session.state.live.tag == "v1.0.0"


def test_a_release_prints_its_steps() -> None:
    lines: list[str] = []
    made = hooks(FIRST, tag("v1.1.0", 2), {"green": 100, "blue": 0}, Cluster(2, "blue", replicas=2), lines.append)
    run(made.claim())
    for name in ("login-v1.1.0-r1-a1-secret", "migrate-v1.1.0-r1-a1", "smoke-v1.1.0-r1-a1", "secret-v1.0.0-r1-a1"):
        made.begin_object(name)
    run(made.guard_deployment("blue", FULL))
    run(made.promote())
    run(made.guard_deployment("green", EMPTIED))
    steps = [(line.partition(" since ")[0], line.partition(" UTC; ")[2]) for line in lines if line.startswith("step ")]
    assert steps == [
        ("step 1 of 11: claim (blue)", "one conditional write in the ledger"),
        ("step 2 of 11: secret (blue)", "until its password is set and its Secret is written"),
        ("step 3 of 11: migrate (blue)", "until Job migrate-v1.1.0-r1-a1 has ended, at most 300 s"),
        ("step 5 of 11: smoke test (blue)", "until Job smoke-v1.1.0-r1-a1 has ended, at most 190 s"),
        ("step 4 of 11: start (blue)", "until 2 pods are available, at most 190 s"),
        ("step 10 of 11: live (blue)", "one conditional write in the ledger"),
        ("step 11 of 11: stop (green)", "its pods have 140 s to end"),
    ]


def test_the_hook_that_claims_prints_the_step_of_its_resource(monkeypatch: pytest.MonkeyPatch) -> None:
    bound: dict[str, list[pulumi.ResourceHook]] = {}
    lines: list[str] = []

    async def prepared(binding: Any, name: str) -> None:
        bound[name.rpartition("_")[2]] = list(binding.before_create or []) if binding else []

    monkeypatch.setattr("pulumi.runtime.resource._prepare_resource_hooks", prepared)
    monkeypatch.setattr(pulumi.log, "info", lambda text, *_: lines.append(text))
    declare(EMPTY, tag("v1.0.0", 1, migrate=("migrate",)))
    lines.clear()

    async def act() -> None:
        for name in ("secret-v1.0.0-r1-a1", "migrate-v1.0.0-r1-a1", "smoke-v1.0.0-r1-a1"):
            (hook,) = bound[name]
            await hook.callback(pulumi.ResourceHookArgs("", "", name, ""))  # type: ignore[misc]

    run(act())
    steps = [line.partition(" since ")[0] for line in lines if line.startswith("step ")]
    assert steps == [
        "step 1 of 11: claim (green)",
        "step 3 of 11: migrate (green)",
        "step 5 of 11: smoke test (green)",
    ]


class Colour(Cluster):
    """A colour in which a former claim's pods are still on their way out; each wait lets one of them end."""

    def __init__(self, leaving: int, **kept: Any) -> None:
        super().__init__(1, "blue", pods=0, **kept)
        self.leaving = leaving
        self.stopped: list[str] = []

    def pods(self, *_: Any) -> list[dict[str, Any]]:
        source = {"secretKeyRef": {"name": "shopcat-v0.9.0-r1-a1", "key": "password"}}
        spec = {"containers": [{"env": [{"name": "DATABASE_PASSWORD", "valueFrom": source}]}]}
        marks = {"deletionTimestamp": "2026-11-24T10:00:00Z"}
        return [{"metadata": {"name": f"pod-{index}", **marks}, "spec": spec} for index in range(self.leaving)]

    def jobs(self, *_: Any) -> list[dict[str, Any]]:
        return []

    def stop_pods(self, _: str, name: str) -> None:
        self.stopped.append(name)
        assert self.stands is not None
        self.stands["spec"]["replicas"] = 0

    async def one_ends(self, _: float) -> None:
        self.leaving -= 1


def renewed(cluster: Colour, weights: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], Any]:
    """What was printed, and the hooks that were asked for v1.1.0's password."""
    lines: list[str] = []
    made = hooks(FIRST, tag("v1.1.0", 2), weights, cluster, lines.append)
    made._renewal.sleep = cluster.one_ends

    def make_password(_: Any, login: Any, owner: str, colour: str) -> bool:
        assert cluster.leaving == 0, "the password is made under a pod"
        lines.append(f"made {login.claim} of {owner}_{colour}")
        return True

    monkeypatch.setattr("infra.release.login_renewal.logins.make_password", make_password)
    run(made.renew_login("login-v1.1.0-r1-a1-secret"))
    return lines, made


def test_a_password_is_made_once_the_colour_s_former_pods_are_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Colour(leaving=3)
    cluster.stands = None
    lines, made = renewed(cluster, {"green": 100, "blue": 0}, monkeypatch)
    waited = ", ".join(f"pod pod-{number} on node none" for number in range(3))
    assert f"{waited}: to end before the password of blue changes" in "\n".join(lines)
    assert "made v1.1.0-r1-a1 of shopcat_blue" in lines
    assert made._plan.session.state.open.name == "v1.1.0-r1"


@pytest.mark.parametrize("weights", [{"green": 100, "blue": 0}, {"green": 90, "blue": 10}])
def test_pods_that_a_killed_update_left_are_stopped_without_weight(
    weights: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = Colour(leaving=1)
    source = {"secretKeyRef": {"name": "shopcat-v0.9.0-r1-a1", "key": "password"}}
    containers = [{"env": [{"name": "DATABASE_PASSWORD", "valueFrom": source}]}]
    template = {"spec": {"containers": containers}}
    cluster.stands = {"metadata": {}, "spec": {"replicas": 2, "template": template}, "status": {}}
    if weights["blue"]:
        with pytest.raises(ShopCatError, match="2 pods"):
            renewed(cluster, weights, monkeypatch)
        assert cluster.stopped == [], "the live release could not be proven"
        return
    lines, _ = renewed(cluster, weights, monkeypatch)
    assert cluster.stopped == ["shopcat-blue"]
    assert lines.index("shopcat-blue has pods with the colour's former password; they are stopped first") < lines.index(
        "made v1.1.0-r1-a1 of shopcat_blue"
    )


def test_the_password_of_the_live_colour_and_of_an_abort_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def make_password(*_: Any) -> bool:
        raise AssertionError("a password is made")

    monkeypatch.setattr("infra.release.login_renewal.logins.make_password", make_password)
    opened = claim(FIRST, tag("v1.1.0", 2))
    for state, wanted, name in (
        (FIRST, Nothing(), "login-v1.0.0-r1-a1"),
        (FIRST, tag("v1.1.0", 2), "login-v1.0.0-r1-a1"),
        (opened, Abort("v1.1.0"), "login-v1.1.0-r1-a1"),
    ):
        run(hooks(state, wanted, {"green": 100, "blue": 0}, Colour(leaving=1)).renew_login(name))


def test_what_sets_a_password_stays_declared_and_a_release_s_secret_waits_for_it() -> None:
    for state, wanted in ((FIRST, tag("v1.1.0", 2)), (SECOND, Nothing())):
        resources, _ = declare(state, wanted)
        for each in ("v1.0.0-r1-a1", "v1.1.0-r1-a1"):
            job, secret = one(resources, f"login-{each}"), one(resources, f"login-{each}-secret")
            assert job["metadata"]["namespace"] == secret["metadata"]["namespace"] == "shopcat-database"
            assert job["spec"]["template"]["metadata"]["labels"] == {"app.kubernetes.io/name": "database-login"}
    opened = claim(FIRST, tag("v1.1.0", 2))
    left: list[tuple[LedgerState, Wanted]] = [(opened, Abort("v1.1.0")), (aborted(opened), Nothing())]
    for before, taken_back in left:
        names = {key.partition("::")[2] for key in declare(before, taken_back)[0]}
        assert "login-v1.0.0-r1-a1" in names
        assert "login-v1.1.0-r1-a1" not in names, "an abort waits for nothing of what it takes back"


def test_beside_a_restored_database_each_claim_sets_its_password_in_both_before_the_release_s_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: dict[str, set[str]] = {}

    def kept(*arguments: Any, **more: Any) -> Any:
        options = arguments[2]
        waits[arguments[0].name] = {each._name for each in options.depends_on}
        return declare_release_secret(*arguments, **more)

    monkeypatch.setattr("infra.release.blue_green.declare_release_secret", kept)
    names = {f"login-v1.{minor}.0-r1-a1{place}" for minor in (0, 1) for place in ("", RESTORED)}
    resources, _ = declare(FIRST, tag("v1.1.0", 2), databases=[FIRST_DATABASE, RESTORED_DATABASE])
    for name in names:
        job = one(resources, name)
        (container,) = job["spec"]["template"]["spec"]["containers"]
        env = {each["name"]: each.get("value") for each in container["env"]}
        assert env["PGHOST"] == ("copy.rds" if name.endswith(RESTORED) else "db.rds")
        secret = one(resources, f"{name}-secret")
        (master,) = [each["remoteRef"]["key"] for each in secret["spec"]["data"] if each["secretKey"] == "master"]
        assert master == ("arn:copy" if name.endswith(RESTORED) else "arn:master")
        versions = {each["remoteRef"].get("version") for each in secret["spec"]["data"]} - {None}
        assert len(versions) == 1, "one password in each database"
    assert names <= waits["v1.1.0-r1"], "also the other colour's, so that no database is used with passwords of before"
    assert {name for name in names if "v1.0.0" in name} <= waits["v1.0.0-r1"]
    assert not {name for name in names if "v1.1.0" in name} & waits["v1.0.0-r1"], "what serves waits for no release"
    declare(FIRST, tag("v1.1.0", 2), databases=[FIRST_DATABASE])
    assert "login-v1.0.0-r1-a1" not in waits["v1.1.0-r1"], "without a copy nothing waits for the other colour"


def test_another_moment_sets_the_passwords_once_more() -> None:
    marks = set()
    for moment in ("2026-11-29T10:00:00Z", "2026-11-29T11:00:00Z"):
        copy = replace(RESTORED_DATABASE, moment=moment)
        resources, _ = declare(SECOND, Nothing(), databases=[copy])
        job = one(resources, f"login-v1.1.0-r1-a1{RESTORED}")
        marks.add(job["spec"]["template"]["metadata"]["annotations"]["shopcat/restored-to"])
        assert not [key for key in resources if key.endswith("login-v1.1.0-r1-a1")], "the first one is left alone"
    assert len(marks) == 2


def test_a_rotation_does_not_migrate() -> None:
    first = gone_live(claim(EMPTY, tag("v1.0.0", 1, migrate=("migrate",))))
    for state, wanted in (
        (first, Rotate("v1.0.0-r1")),
        (claim(first, Rotate("v1.0.0-r1")), Nothing()),
        (gone_live(claim(first, Rotate("v1.0.0-r1"))), Nothing()),
    ):
        resources, _ = declare(state, wanted)
        assert not [key for key in resources if "::migrate-" in key]
        pods = one(resources, "deployment-blue")["spec"]["template"]
        assert pods["spec"]["containers"][0]["image"].endswith(digest(1))
        assert "shopcat-v1.0.0-r2-a1" in json.dumps(pods)


def test_an_abort_and_a_plain_update_print_no_steps() -> None:
    for state, wanted in ((claim(FIRST, tag("v1.1.0", 2)), Abort("v1.1.0")), (SECOND, Nothing())):
        lines: list[str] = []
        made = hooks(state, wanted, {"green": 100, "blue": 0}, log=lines.append)
        run(made.promote())
        made.begin_object(made._plan.checks.smoke_name)
        assert not [line for line in lines if line.startswith("step ")], lines


def test_later_releases_are_watched() -> None:
    made = hooks(FIRST, tag("v1.1.0", 2), {"green": 100, "blue": 0}, Cluster(2, "blue"))
    run(made.promote())
    assert made._traffic.moved == ["blue watched"]


@pytest.mark.parametrize(
    ("cluster", "words"),
    [
        (Cluster(2, "blue", pods=1), "1 of 2 pods"),
        (Cluster(9, "blue"), f"not {digest(2)}"),
        (Cluster(2, "green"), "no readiness gate"),
        (Cluster(2, "blue", smoke=False), "smoke-v1.1.0-r1-a1 has not passed"),
    ],
)
def test_what_is_not_proven_does_not_go_live(cluster: Cluster, words: str) -> None:
    made = hooks(FIRST, tag("v1.1.0", 2), {"green": 100, "blue": 0}, cluster)
    with pytest.raises(ShopCatError, match=words):
        run(made.promote())
    assert made._plan.session.state.live.tag == "v1.0.0"
    assert made._traffic.moved == []


def test_a_release_that_is_held_moves_nothing_and_goes_on_later() -> None:
    made = hooks(FIRST, tag("v1.1.0", 2), {"green": 100, "blue": 0}, Cluster(2, "blue"))
    plan, made._plan = made._plan, replace(made._plan, is_held=True)
    with pytest.raises(
        ShopCatError, match=r"passed every check in blue and is held before traffic moves.*go on: .*abort: "
    ):
        run(made.promote())
    assert made._traffic.moved == []
    assert made._plan.session.state.open.name == "v1.1.0-r1"
    made._plan = plan
    run(made.promote())
    assert made._traffic.moved == ["blue watched"]
    assert made._plan.session.state.live.name == "v1.1.0-r1"


def test_a_release_that_is_held_says_what_a_check_has_found() -> None:
    made = hooks(FIRST, tag("v1.1.0", 2), {"green": 100, "blue": 0}, Cluster(2, "blue", smoke=False))
    made._plan = replace(made._plan, is_held=True)
    with pytest.raises(ShopCatError, match=r"can't carry traffic: smoke test smoke-v1\.1\.0-r1-a1 has not passed"):
        run(made.promote())
    assert made._traffic.moved == []


def test_who_lost_the_slot_moves_nothing() -> None:
    made = hooks(FIRST, tag("v1.1.0", 2), {"green": 100, "blue": 0}, Cluster(2, "blue"))
    run(made.claim())
    books = made._plan.session._ledger
    books.state = aborted(books.state)
    with pytest.raises(ShopCatError, match="another update was first"):
        run(made.promote())
    assert made._traffic.moved == []


def test_a_colour_without_weight_may_lose_its_pods() -> None:
    made = hooks(SECOND, Nothing(), {"blue": 100, "green": 0})
    run(made.guard_deployment("green", EMPTIED))
    assert made._traffic.moved == []


def test_another_template_in_the_idle_colour_is_written_only_once_the_slot_is_taken_and_without_weight() -> None:
    for weights, wanted in (({"blue": 100, "green": 0}, tag("v1.2.0", 3)), ({"blue": 90, "green": 10}, Nothing())):
        cluster = Cluster(1, "green")
        cluster.stands = CHANGED
        made = hooks(SECOND, wanted, weights, cluster)
        if made._plan.decision.open:
            run(made.guard_deployment("green", FULL))
            assert made._plan.session.state.open.name == "v1.2.0-r1"
            continue
        with pytest.raises(ShopCatError):
            run(made.guard_deployment("green", FULL))


def test_a_rollback_keeps_the_pods_that_it_finds() -> None:
    cluster = Cluster(1, "green")
    cluster.stands = FULL
    made = hooks(SECOND, Rollback("v1.1.0", "v1.0.0"), {"blue": 100, "green": 0}, cluster)
    run(made.guard_deployment("green", FULL))
    run(made.promote())
    assert cluster.stopped == []
    assert made._traffic.moved == ["green watched"]
    assert made._traffic.modes == ["rollback"]


def test_a_checkout_with_an_older_state_writes_what_is_there_already() -> None:
    cluster = Cluster(1, "green", pods=0)
    made = hooks(SECOND, Nothing(), {"blue": 100, "green": 0}, cluster)
    cluster.stands = CHANGED
    run(made.guard_deployment("blue", CHANGED))
    cluster.stands = EMPTIED
    run(made.guard_deployment("green", EMPTIED))
    assert made._traffic.moved == []


def test_a_colour_that_another_update_has_taken_meanwhile_is_not_written() -> None:
    made = hooks(SECOND, Nothing(), {"blue": 100, "green": 0})
    made._plan.session._ledger.state = claim(SECOND, tag("v1.2.0", 3))
    with pytest.raises(ShopCatError, match=r"another update was first: release v1\.2\.0-r1 holds the slot"):
        run(made.guard_deployment("green", EMPTIED))


def test_a_colour_with_weight_loses_it_first_to_the_proven_other() -> None:
    made = hooks(SECOND, Nothing(), {"blue": 90, "green": 10}, Cluster(2, "blue", replicas=2))
    run(made.guard_deployment("green", EMPTIED))
    assert made._traffic.moved == ["blue watched"]


@pytest.mark.parametrize(("change", "words"), [(EMPTIED, "a write of 0 replicas"), (CHANGED, "make other pods of its")])
def test_the_live_colours_pods_stay(change: dict[str, Any], words: str) -> None:
    cluster = Cluster(2, "blue")
    cluster.stands = FULL
    made = hooks(SECOND, Nothing(), {"blue": 0, "green": 100}, cluster)
    with pytest.raises(ShopCatError, match=words):
        run(made.guard_deployment("blue", change))


def test_what_somebody_did_to_the_live_colour_is_put_back_and_moves_nothing() -> None:
    for count in (0, 1, 3):
        cluster = Cluster(2, "blue", pods=count)
        cluster.stands = deployment(count, 1)
        made = hooks(SECOND, Nothing(), {"blue": 100, "green": 0}, cluster)
        run(made.guard_deployment("blue", FULL))
        assert made._traffic.moved == []


def test_an_abort_never_moves_traffic_to_what_it_takes_back() -> None:
    """A refresh had written three replicas into the state; the abort's write of two counted as a loss."""
    cluster = Cluster(1, "green", pods=3, replicas=3)
    made = hooks(claim(FIRST, tag("v1.1.0", 2)), Abort("v1.1.0"), {"green": 100, "blue": 0}, cluster)
    run(made.guard_deployment("green", deployment(2, 1)))
    assert made._traffic.moved == []
    assert run(made._refuse_weight("blue")) == ["v1.1.0-r1, which is in blue, is being aborted"]


def test_weight_goes_to_what_is_live_or_has_passed_every_check() -> None:
    opened = claim(SECOND, tag("v1.2.0", 3))
    for state, wanted, cluster, words in (
        (opened, Nothing(), Cluster(3, "green"), []),
        (opened, Nothing(), Cluster(3, "green", smoke=False), ["smoke test smoke-v1.2.0-r1-a1 has not passed"]),
        (opened, Nothing(), Cluster(3, "green", pods=1), ["1 of 2 pods of v1.2.0-r1 are proven in green"]),
        (opened, Abort("v1.2.0"), Cluster(3, "green"), ["v1.2.0-r1, which is in green, is being aborted"]),
        (SECOND, Nothing(), Cluster(1, "green"), ["v1.0.0-r1, which is in green, is neither live nor being released"]),
    ):
        assert run(hooks(state, wanted, {"blue": 100, "green": 0}, cluster)._refuse_weight("green")) == words


def test_a_release_that_carries_weight_without_having_passed_loses_it_before_it_goes_on() -> None:
    opened = claim(SECOND, tag("v1.2.0", 3))
    for smoke, moved in ((False, ["blue watched"]), (True, [])):
        made = hooks(opened, Nothing(), {"blue": 0, "green": 100}, Cluster(3, "green", smoke=smoke))
        run(made.claim())
        assert made._traffic.moved == moved


def test_an_abort_ends_when_the_colour_is_empty() -> None:
    state = claim(FIRST, tag("v1.1.0", 2))
    made = hooks(state, Abort("v1.1.0"), {"green": 100, "blue": 0}, Cluster(1, "green", replicas=2))
    with pytest.raises(ShopCatError, match="still wants 2 pods"):
        run(made.promote())
    made = hooks(state, Abort("v1.1.0"), {"green": 90, "blue": 10}, Cluster(1, "green"))
    run(made.promote())
    assert made._traffic.moved == ["green watched"]
    assert made._plan.session.state.open is None


def test_a_first_release_that_carries_everything_can_be_aborted() -> None:
    state = claim(EMPTY, tag("v1.0.0", 1))
    made = hooks(state, Abort("v1.0.0"), {"blue": 0, "green": 100}, Cluster(1, "green", replicas=2))
    run(made.guard_deployment("green", EMPTIED))
    assert made._traffic.weights == {"blue": 100, "green": 0}
    assert made._traffic.moved == [], "there is no colour to prove"
    made._plan.kubernetes().stands = EMPTIED
    run(made.promote())
    assert made._plan.session.state.open is None


def test_a_first_release_that_carries_everything_keeps_its_pods_otherwise() -> None:
    state = claim(EMPTY, tag("v1.0.0", 1))
    made = hooks(state, Nothing(), {"blue": 0, "green": 100}, Cluster(1, "green", replicas=2))
    with pytest.raises(ShopCatError, match="nothing is live that could take it"):
        run(made.guard_deployment("green", EMPTIED))


MOVED = "somebody else moved traffic: everything was put on blue, now it is .*blue 0 / green 100"


def test_a_colour_that_got_weight_again_while_it_was_taken_away_keeps_its_pods() -> None:
    made = hooks(SECOND, Nothing(), {"blue": 90, "green": 10}, Cluster(2, "blue", replicas=2))
    made._traffic.meanwhile = {"blue": 0, "green": 100}
    with pytest.raises(ShopCatError, match=MOVED):
        run(made.guard_deployment("green", EMPTIED))


def test_a_release_whose_traffic_somebody_took_away_meanwhile_does_not_go_live() -> None:
    made = hooks(FIRST, tag("v1.1.0", 2), {"green": 100, "blue": 0}, Cluster(2, "blue"))
    made._traffic.meanwhile = {"blue": 0, "green": 100}
    with pytest.raises(ShopCatError, match=MOVED):
        run(made.promote())
    assert made._plan.session.state.live.tag == "v1.0.0"


def test_whoever_writes_the_ledger_meanwhile_takes_over_the_weights() -> None:
    made = hooks(FIRST, tag("v1.1.0", 2), {"green": 100, "blue": 0}, Cluster(2, "blue"))

    async def asked() -> None:
        assert await made._overtaken() == ""
        made._plan.session._ledger.state = claim(FIRST, tag("v1.2.0", 3))
        assert "another update was first" in await made._overtaken()

    run(asked())


def test_weights_that_say_otherwise_go_back_to_what_is_live() -> None:
    made = hooks(SECOND, Nothing(), {"blue": 0, "green": 100}, Cluster(2, "blue"))
    run(made.restore())
    assert made._traffic.moved == ["blue watched"]
    made = hooks(SECOND, Nothing(), {"blue": 0, "green": 100}, Cluster(2, "blue", pods=1))
    run(made.restore())
    assert made._traffic.moved == ["blue watched"], "one pod that serves is better than a colour that must not"
    made = hooks(SECOND, Nothing(), {"blue": 0, "green": 100}, Cluster(2, "blue", pods=0))
    with pytest.raises(ShopCatError, match="0 of 2 pods"):
        run(made.restore())


def test_drain_numbers_are_plain() -> None:
    assert all(type(value) is int for value in vars(DRAIN).values())
    assert isinstance(DRAIN, DrainNumbers)


def test_a_rollback_that_failed_says_why_although_the_load_balancer_can_not_be_read_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines: list[str] = []
    made = hooks(SECOND, Rollback("v1.1.0", "v1.0.0"), {"blue": 100, "green": 0}, Cluster(1, "green"), lines.append)

    async def fail(*_: Any, **__: Any) -> None:
        async def unread() -> None:
            raise TrafficError("the API is frozen")

        monkeypatch.setattr(made, "_read_weights", unread)
        raise TrafficError("both colours keep their pods")

    monkeypatch.setattr(made._traffic, "shift_all_traffic", fail)
    with pytest.raises(TrafficError, match="both colours keep their pods"):
        run(made.promote())
    assert lines[-1] == "the API is frozen"
