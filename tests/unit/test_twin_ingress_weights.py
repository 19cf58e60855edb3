"""An Ingress that forwards to several Services by weight, as the real controller does (facts of 3.5.0, and its documentation)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as generated
from hypothesis import strategies as st
from moto import mock_aws

from tests.unit.test_twin_ingress import CLUSTER, PREFIX, Cluster
from twin.loadbalancer.controller.bindings import BackendNotFoundError
from twin.loadbalancer.controller.informer import trim_service
from twin.loadbalancer.controller.ingress_model import ModelError
from twin.loadbalancer.controller.ingresses import ingresses_of_service
from twin.loadbalancer.controller.kubernetes import Store

INGRESS = "/apis/networking.k8s.io/v1/namespaces/shopcat/ingresses/shopcat"


def action(weights: Mapping[str, int], **more: Any) -> str:
    """As Argo Rollouts writes it, with capitals and the port as text."""
    groups = [{"ServiceName": name, "ServicePort": "80", "Weight": weight} for name, weight in weights.items()]
    return json.dumps({"Type": "forward", "ForwardConfig": {"TargetGroups": groups, **more}})


class Weighted(Cluster):
    """A cluster whose Ingress has the Services blue and green behind the annotation of `root`."""

    def __init__(self) -> None:
        super().__init__()
        for name in ("blue", "green"):
            self.add(name)
        backend = {"service": {"name": "root", "port": {"name": "use-annotation"}}}
        rules = [{"http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}]
        self.api.merge_patch(INGRESS, {"spec": {"rules": rules}})
        self.forward({"blue": 100, "green": 0})

    def add(self, name: str) -> None:
        metadata = {"name": name, "namespace": "shopcat", "uid": f"uid-{name}", "annotations": {}}
        ports = [{"name": "http", "port": 80, "targetPort": 8080}]
        self.services.put(trim_service({"metadata": metadata, "spec": {"selector": {}, "ports": ports}}))

    def forward(self, weights: Mapping[str, int], **more: Any) -> None:
        self.write(action(weights, **more))

    def write(self, text: str | None) -> None:
        self.api.merge_patch(INGRESS, {"metadata": {"annotations": {f"{PREFIX}actions.root": text}}})

    def weights(self) -> dict[str, int]:
        """By Service, as AWS has them."""
        (rule,) = self.rules()
        tuples = rule["Actions"][0]["ForwardConfig"]["TargetGroups"]
        return {self.resource(each["TargetGroupArn"]): each["Weight"] for each in tuples}

    def resource(self, arn: str) -> str:
        return self.tags(arn)["ingress.k8s.aws/resource"].removeprefix("shopcat/shopcat-").removesuffix(":80")


@pytest.fixture
def weighted() -> Iterator[Weighted]:
    with mock_aws():
        yield Weighted()


def test_each_service_has_a_group_a_binding_and_its_weight(weighted: Weighted) -> None:
    weighted.reconcile()
    assert weighted.weights() == {"blue": 100, "green": 0}
    bound = {
        binding["spec"]["serviceRef"]["name"]: binding["spec"]["targetGroupARN"] for binding in weighted.bindings()
    }
    assert {name: weighted.resource(arn) for name, arn in bound.items()} == {"blue": "blue", "green": "green"}
    for arn in bound.values():
        tags = weighted.tags(arn)
        assert (tags["elbv2.k8s.aws/cluster"], tags["ingress.k8s.aws/stack"]) == (CLUSTER, "shopcat/shopcat")


def test_a_flip_is_one_write_and_touches_no_group(weighted: Weighted, monkeypatch: pytest.MonkeyPatch) -> None:
    weighted.reconcile()
    groups, bindings = weighted.target_groups(), weighted.bindings()
    calls: list[str] = []
    resources = weighted.reconciler._resources
    call = resources._call
    monkeypatch.setattr(resources, "_call", lambda name, **arguments: (calls.append(name), call(name, **arguments))[1])
    weighted.forward({"blue": 40, "green": 60})
    weighted.reconcile()
    assert weighted.weights() == {"blue": 40, "green": 60}
    assert [name for name in calls if not name.startswith("describe_")] == ["modify_rule"]
    assert [group["TargetGroupArn"] for group in weighted.target_groups()] == [
        group["TargetGroupArn"] for group in groups
    ]
    assert weighted.bindings() == bindings


def test_weights_that_somebody_wrote_at_the_load_balancer_are_put_back(weighted: Weighted) -> None:
    weighted.reconcile()
    (rule,) = weighted.rules()
    arns = [each["TargetGroupArn"] for each in rule["Actions"][0]["ForwardConfig"]["TargetGroups"]]
    tuples = [{"TargetGroupArn": arn, "Weight": 50} for arn in arns]
    weighted.elb.modify_rule(
        RuleArn=rule["RuleArn"], Actions=[{"Type": "forward", "ForwardConfig": {"TargetGroups": tuples}}]
    )
    weighted.reconcile()
    assert weighted.weights() == {"blue": 100, "green": 0}


def test_a_tuple_that_is_dropped_takes_its_group_and_binding_along(weighted: Weighted) -> None:
    weighted.reconcile()
    weighted.forward({"green": 100})
    weighted.reconcile()
    assert weighted.weights() == {"green": 100}
    assert [binding["spec"]["serviceRef"]["name"] for binding in weighted.bindings()] == ["green"]
    assert len(weighted.target_groups()) == 1


def test_a_missing_service_leaves_the_last_good_rule(weighted: Weighted) -> None:
    weighted.reconcile()
    weighted.forward({"blue": 0, "purple": 100})
    with pytest.raises(BackendNotFoundError, match="purple"):
        weighted.reconcile()
    assert weighted.weights() == {"blue": 100, "green": 0}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "missing actions.root configuration"),
        ("{", "failed to parse json annotation"),
        ("[]", "an action other than forward"),
        (json.dumps({"type": "redirect"}), "an action other than forward"),
        (action({"blue": 1}, TargetGroupStickinessConfig={"Enabled": True, "DurationSeconds": 5}), "stickiness"),
        (
            json.dumps({"type": "forward", "forwardConfig": {"targetGroups": [{"targetGroupARN": "x"}]}}),
            "without a Service",
        ),
        (json.dumps({"type": "forward", "forwardConfig": {"targetGroups": []}}), "without a Service"),
    ],
)
def test_what_is_wrong_or_not_played_is_an_event_by_name(weighted: Weighted, text: str | None, words: str) -> None:
    weighted.reconcile()
    weighted.write(text)
    with pytest.raises(ModelError, match=words):
        weighted.reconcile()
    assert weighted.weights() == {"blue": 100, "green": 0}
    reason, message = weighted.api.events()[-1]
    assert reason == "FailedBuildModel"
    assert words in message


def test_an_ingress_is_looked_at_again_when_any_of_its_services_changes(weighted: Weighted) -> None:
    ingresses = Store()
    ingresses.put(weighted.api.objects[INGRESS])
    for name, keys in {"blue": [("shopcat", "shopcat")], "green": [("shopcat", "shopcat")], "shopcat": []}.items():
        assert ingresses_of_service(ingresses, {"metadata": {"name": name, "namespace": "shopcat"}}) == keys


@generated(max_examples=20)
@given(
    st.lists(
        st.dictionaries(st.sampled_from(["blue", "green"]), st.integers(0, 999), min_size=1), min_size=1, max_size=4
    )
)
def test_after_each_pass_aws_has_the_weights_of_the_annotation(steps: list[dict[str, int]]) -> None:
    with mock_aws():
        weighted = Weighted()
        for weights in steps:
            weighted.forward(weights)
            weighted.reconcile()
            assert weighted.weights() == weights
            assert {binding["spec"]["serviceRef"]["name"] for binding in weighted.bindings()} == set(weights)
