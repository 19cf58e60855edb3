"""Argo Rollouts' own controller on the twin: a canary that is aborted at its first weight gives all traffic back."""

import time
from collections import Counter
from collections.abc import Callable

import pytest

from bench import argo
from bench.images import Images
from bench.load import Load
from bench.workloads import SHORT_BUDGET, SHORT_MIX
from tests.tools import aws
from tests.twin.shop import DELAY_SCALE, STRAGGLERS_SECONDS
from twin.build import golang
from twin.config import Twin
from twin.host import processes
from twin.loadbalancer import service
from twin.paths import cache_directory
from twin.scenarios import production

pytestmark = [
    pytest.mark.twin,
    pytest.mark.skipif(
        not golang.part("rollouts-controller").directory(cache_directory()).exists(),
        reason="the Argo Rollouts controller is not built; the bench builds it",
    ),
]
BINDINGS = "targetgroupbindings.elbv2.k8s.aws"
NEW = "v1.1.0-argo"


@pytest.fixture(scope="module")
def canary(twin: Twin, tmp_path_factory: pytest.TempPathFactory) -> argo.ArgoCanary:
    """The canary with its first release, and an image that it does not run yet."""
    service.set_faults(twin, delayScale=DELAY_SCALE)
    directory = tmp_path_factory.mktemp("argo")
    images = Images(twin, directory)
    images.push(NEW, {})
    argo.install_controller(twin)
    system = argo.ArgoCanary(twin, directory, images, SHORT_BUDGET)
    system.install(production.FIRST_TAG)
    return system


def weights(twin: Twin, canary: argo.ArgoCanary) -> list[int]:
    """By the load balancer itself, smallest first."""
    elb = aws(twin, "elbv2")
    (listener,) = elb.describe_listeners(LoadBalancerArn=canary.balancer.arn())["Listeners"]
    rules = elb.describe_rules(ListenerArn=listener["ListenerArn"])["Rules"]
    (rule,) = [rule for rule in rules if not rule["IsDefault"]]
    return sorted(group["Weight"] for group in rule["Actions"][0]["ForwardConfig"]["TargetGroups"])


def wait(done: Callable[[], bool], title: str) -> None:
    processes.wait_until(done, title, timeout_seconds=300)


def test_an_abort_at_the_first_weight_gives_all_traffic_back(twin: Twin, canary: argo.ArgoCanary) -> None:
    target = canary.target()
    assert weights(twin, canary) == [0, 100]
    load = Load(target.address, target.host, port=target.port, ca_file=target.ca_file, streams=SHORT_MIX)
    with load:
        canary.start(NEW)
        wait(lambda: weights(twin, canary) == [10, 90], "the canary's weight")
        assert canary.has_ready_pod(NEW)
        assert canary.state().serving == ""
        assert canary.undo().wait(300) == 1, "an aborted Rollout is Degraded"
        # Degraded is said once the annotation is written; the load balancer's rule comes after it.
        wait(lambda: weights(twin, canary) == [0, 100], "the former weights")
        assert canary.has_ready_pod(NEW), "the load balancer may still send to them"
        wait(lambda: canary.state().settled, "the end of the new pods")
        time.sleep(STRAGGLERS_SECONDS)
        outcomes = load.stop()
    assert not canary.has_ready_pod(NEW)
    assert outcomes
    assert Counter(outcome.failure for outcome in outcomes if outcome.failure) == {}


def test_each_pod_has_the_gate_of_a_service_of_the_canary(canary: argo.ArgoCanary) -> None:
    gates = {f"target-health.elbv2.k8s.aws/{each['metadata']['name']}" for each in canary._get(BINDINGS)["items"]}
    assert len(gates) == len(canary.services)
    pods = canary._get("pods")["items"]
    given = [{gate["conditionType"] for gate in pod["spec"].get("readinessGates", [])} for pod in pods]
    assert given
    assert all(gates & each for each in given)


def test_the_controller_verified_the_weight_at_the_load_balancer(canary: argo.ArgoCanary) -> None:
    assert canary._read()["status"]["alb"]["loadBalancer"]["arn"] == canary.balancer.arn()
