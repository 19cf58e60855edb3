"""Proof that a colour serves a release."""

from __future__ import annotations

from typing import Any

import pytest

from infra.names import RELEASE_LABEL
from infra.release.health import GATE_PREFIX, Target, is_served, unready_reasons, unserved
from tests.unit.releases import digest, record

GATE = f"{GATE_PREFIX}shopcat-blue"


def pod(index: int = 0, **changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "image": f"shopcat@{digest(1)}",
        "gates": [GATE],
        "gate": "True",
        "ready": "True",
        **changes,
    }
    conditions = [{"type": "Ready", "status": values["ready"]}, {"type": GATE, "status": values["gate"]}]
    metadata: dict[str, Any] = {"name": f"pod-{index}", "labels": {RELEASE_LABEL: values.get("release", "v1.0.0-r1")}}
    if values.get("leaving"):
        metadata["deletionTimestamp"] = "2026-11-24T10:00:00Z"
    return {
        "metadata": metadata,
        "spec": {
            "containers": [{"name": "shopcat", "image": values["image"]}],
            "readinessGates": [{"conditionType": gate} for gate in values["gates"]],
        },
        "status": {"podIP": f"10.0.0.{index}", "phase": values.get("phase", "Running"), "conditions": conditions},
    }


def target(index: int = 0, state: str = "healthy", reason: str = "") -> Target:
    return Target(f"10.0.0.{index}", 8080, state, reason)


BOTH = [target(0), target(1)]


def test_as_many_healthy_targets_as_pods_of_the_digest_are_proof() -> None:
    assert unready_reasons(record(), "blue", [pod(0), pod(1)], BOTH) == []


@pytest.mark.parametrize(
    ("second", "targets", "words"),
    [
        (pod(1, image=f"shopcat@{digest(2)}"), BOTH, f"not {digest(1)}"),
        (pod(1, image="shopcat:v1"), BOTH, "runs shopcat:v1"),
        (pod(1, release="v1.0.0-r2"), BOTH, "was made for another release than v1.0.0-r1"),
        (pod(1, gates=[]), BOTH, "has no readiness gate"),
        (pod(1, gate="False"), BOTH, "is not ready (its gate is False)"),
        (pod(1, ready="False"), BOTH, "is not ready"),
        (pod(1), [target(0)], "is absent in target group shopcat-blue"),
        (pod(1), [target(0), target(1, "initial", "Elb.RegistrationInProgress")], "is initial Elb.Registration"),
        (pod(1), [target(0), target(1, "unused", "Target.NotInUse")], "is unused Target.NotInUse"),
        (pod(1, leaving=True), BOTH, "1 of 2 pods"),
        (pod(1, phase="Failed"), BOTH, "1 of 2 pods"),
        (pod(1), [*BOTH, target(7)], "target 10.0.0.7 of shopcat-blue is healthy and no pod of v1.0.0-r1"),
    ],
)
def test_anything_less_is_named(second: dict[str, Any], targets: list[Target], words: str) -> None:
    reasons = unready_reasons(record(), "blue", [pod(0), second], targets)
    assert any(words in reason for reason in reasons), reasons


def test_what_is_on_its_way_out_does_not_count_against_the_colour() -> None:
    pods = [pod(0), pod(1), pod(2, leaving=True, image="old")]
    assert (
        unready_reasons(record(), "blue", pods, [*BOTH, target(2, "draining", "Target.DeregistrationInProgress")]) == []
    )


def test_a_pod_that_is_ready_but_no_target_is_unserved() -> None:
    assert unserved([pod(0), pod(1)], BOTH) == []
    assert unserved([pod(0), pod(1)], [target(0), target(1, "unhealthy")]) == [
        "pod pod-1 is ready but no healthy target"
    ]
    assert unserved([pod(1, ready="False")], []) == [], "a pod that is not ready is no lie"


@pytest.mark.parametrize(
    ("pods", "targets", "expected"),
    [
        ([pod(0), pod(1)], BOTH, True),
        ([pod(0), pod(1, ready="False")], [target(0), target(1, "unhealthy")], True),
        ([pod(0), pod(1)], [target(0, "unhealthy"), target(1, "initial")], False),
        ([pod(0), pod(1, image=f"shopcat@{digest(2)}")], BOTH, False),
        ([pod(0), pod(1, release="v1.0.0-r2")], BOTH, False),
        ([pod(0), pod(1, release="v1.0.0-r2", leaving=True)], BOTH, True),
        ([pod(0, leaving=True)], BOTH, False),
        ([], BOTH, False),
    ],
)
def test_a_release_serves_while_one_of_its_pods_does_and_no_other_release_s_stands_beside(
    pods: list[dict[str, Any]], targets: list[Target], *, expected: bool
) -> None:
    assert is_served(record(), pods, targets) is expected
