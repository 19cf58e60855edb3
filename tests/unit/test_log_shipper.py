"""Logs in CloudWatch: what is sent, what the pods that send may do, the room they take, and where they are refused."""

import json
import re
from typing import Any

import pytest

from infra import capacity, settings
from infra.access import addon_policies, boundary
from infra.access.iam_policies import AwsScope
from infra.commands import recorded_stacks
from infra.errors import ShopCatError
from infra.foundation import log_shipper
from infra.settings import Settings
from tests.iam import Request, decide
from tests.unit.test_alarms import ALARMS
from tests.unit.test_settings import committed

SCOPE = AwsScope("123456789012", "eu-central-1", "shopcat", "shopcat-releases")
IMAGE = f"public.ecr.aws/aws-observability/aws-for-fluent-bit:3.2.1@sha256:{'a' * 64}"


def logging(image: str = IMAGE, *, days: Any = 30, **changes: Any) -> Settings:
    """The committed settings with logs."""
    monitoring = {"email": "ops@example.com", "logs": {"image": image, "retentionDays": days}}
    return settings.read_settings(committed(monitoring=monitoring, **changes))


def declared(chosen: Settings) -> dict[str, Any]:
    """Inputs of what the shipper declares, by type."""
    recorded = recorded_stacks.record_production(chosen, SCOPE.region, SCOPE.account)
    found = [each for each in recorded if each.name == log_shipper.SHIPPER]
    assert len({each.pulumi_type for each in found}) == len(found)
    return {each.pulumi_type: each.inputs for each in found}


PARTS = declared(logging())
(POD,) = [inputs["spec"]["template"]["spec"] for kind, inputs in PARTS.items() if kind.endswith(":DaemonSet")]


def test_without_the_setting_there_is_none() -> None:
    assert declared(settings.read_settings(committed())) == {}
    assert declared(settings.read_settings(committed(monitoring={"email": "ops@example.com"}))) == {}


def test_the_pods_see_logs_alone_and_have_no_token() -> None:
    assert [volume["hostPath"]["path"] for volume in POD["volumes"] if "hostPath" in volume] == ["/var/log"]
    assert POD["automountServiceAccountToken"] is False
    assert PARTS["kubernetes:core/v1:ServiceAccount"]["automountServiceAccountToken"] is False
    assert not [kind for kind in PARTS if "rbac" in kind]
    (container,) = POD["containers"]
    assert container["image"] == IMAGE
    assert container["securityContext"]["allowPrivilegeEscalation"] is False


def test_nothing_of_an_update_waits_for_the_pods() -> None:
    daemon_set = PARTS["kubernetes:apps/v1:DaemonSet"]
    assert daemon_set["metadata"]["annotations"]["pulumi.com/skipAwait"] == "true"


def test_another_configuration_makes_other_pods(monkeypatch: pytest.MonkeyPatch) -> None:
    def template() -> Any:
        return declared(logging())["kubernetes:apps/v1:DaemonSet"]["spec"]["template"]["metadata"]

    before = template()
    monkeypatch.setattr(log_shipper, "SHIPPED_NAMESPACES", ("shopcat",))
    assert before != template()


def test_what_is_sent_is_production_s_and_the_add_ons() -> None:
    before_the_journal, _, after = log_shipper.shipper_config("eu-west-1").partition("    Name              systemd")
    text = before_the_journal + after.partition("[OUTPUT]")[2]
    lines = dict(line.split(maxsplit=1) for line in text.splitlines() if line[:1] == " ")
    assert {path.split("*")[1].strip("_") for path in lines["Path"].split(",")} == {
        "shopcat",
        "shopcat-database",
        "external-secrets",
        "kube-system",
    }
    assert (lines["region"], lines["log_group_name"]) == ("eu-west-1", "/shopcat/pods")
    assert PARTS["aws:cloudwatch/logGroup:LogGroup"]["name"] == "/shopcat/pods"
    assert PARTS["kubernetes:core/v1:ConfigMap"]["data"] == {
        "fluent-bit.conf": log_shipper.shipper_config("eu-central-1")
    }


@pytest.mark.parametrize("days", [7, 365])
def test_logs_are_kept_as_long_as_the_setting_says(days: int) -> None:
    assert declared(logging(days=days))["aws:cloudwatch/logGroup:LogGroup"]["retentionInDays"] == days


def test_the_role_writes_into_its_group_alone_and_within_the_boundary() -> None:
    documents = [json.loads(addon_policies.log_shipper_policy(SCOPE)), json.loads(boundary.boundary(SCOPE))]

    def may(action: str, group: str, stream: str) -> bool:
        asked = Request(action, SCOPE.arn("logs", f"log-group:{group}:log-stream:{stream}"), {})
        return all(decide([each], asked).allowed for each in documents)

    assert may("logs:CreateLogStream", "/shopcat/pods", "pods.a")
    assert may("logs:PutLogEvents", "/shopcat/pods", "pods.a")
    assert not may("logs:PutLogEvents", "/aws/eks/shopcat/cluster", "a")
    for action in ("DeleteLogStream", "GetLogEvents", "PutRetentionPolicy", "CreateLogGroup"):
        assert not may(f"logs:{action}", "/shopcat/pods", "pods.a"), action


def test_they_reach_names_credentials_and_aws_and_nobody_reaches_them() -> None:
    spec = PARTS["kubernetes:networking.k8s.io/v1:NetworkPolicy"]["spec"]
    labels = PARTS["kubernetes:apps/v1:DaemonSet"]["spec"]["template"]["metadata"]["labels"]
    assert spec["podSelector"]["matchLabels"] == labels
    assert not spec.get("ingress")
    assert {port["port"] for rule in spec["egress"] for port in rule["ports"]} == {53, 80, 443}


def test_their_room_is_counted_on_each_node() -> None:
    without = capacity.plan(settings.read_settings(committed()).production)
    with_them = capacity.plan(logging().production)
    pod = capacity.LOG_SHIPPER.pod
    assert with_them.pods - without.pods == capacity.NODES
    assert with_them.cpu_millicores - without.cpu_millicores == capacity.NODES * pod.cpu_millicores
    assert with_them.memory_mebibytes - without.memory_mebibytes == capacity.NODES * pod.memory_mebibytes
    assert with_them.previews <= without.previews
    (container,) = POD["containers"]
    assert container["resources"]["requests"] == {
        "cpu": f"{pod.cpu_millicores}m",
        "memory": f"{pod.memory_mebibytes}Mi",
    }


@pytest.mark.parametrize("image", ["public.ecr.aws/aws-observability/aws-for-fluent-bit:3.2.1", "fluent-bit", ""])
def test_an_image_without_a_digest_is_refused(image: str) -> None:
    with pytest.raises(ShopCatError, match=r"shopcat:monitoring\.logs\.image: .*is not an image by digest"):
        logging(image)


def test_another_aws_than_aws_s_own_is_refused_by_name() -> None:
    with pytest.raises(ShopCatError, match=r"monitoring\.logs: what sends the logs reaches AWS's own CloudWatch alone"):
        logging(awsEndpoint="http://localhost:4566")


def test_what_is_counted_in_the_logs_is_what_the_alarms_read() -> None:
    recorded = recorded_stacks.record_production(logging(), SCOPE.region, SCOPE.account)
    filters = {each.name: each.inputs for each in recorded if each.pulumi_type.endswith(":LogMetricFilter")}
    assert '$.namespace = "shopcat*"' in filters["unsynced-secrets"]["pattern"]
    read_by = {
        "unsynced-secrets": "shopcat-secrets-not-synced",
        "restarts": "shopcat-restart-loop",
        "silent-nodes": "shopcat-node-not-ready",
    }
    assert set(filters) == set(read_by)
    for title, alarm in read_by.items():
        (metric,) = ALARMS[alarm].metrics.values()
        written = {"namespace": metric.namespace, "name": metric.name, "value": "1"}
        assert filters[title]["metricTransformation"] == written
        assert metric.dimensions == {}


def test_of_the_kubelet_s_log_only_restarts_in_these_namespaces_are_sent() -> None:
    (pattern,) = re.findall(r"Regex +MESSAGE (.+)", log_shipper.shipper_config("eu-west-1"))
    failing = (
        'E1129 10:00:00.000000 1 pod_workers.go:1324] "Error syncing pod, skipping" err="failed to \\"StartContainer\\" for '
        '\\"x\\" with CrashLoopBackOff: \\"back-off 10s restarting failed container=x pod=x_{0}(1)\\"" pod="{0}/x" podUID="1"'
    )
    assert [
        name
        for name in ("shopcat", "kube-system", "pr-12", "shopcat-x", "x")
        if re.search(pattern, failing.format(name))
    ] == [
        "shopcat",
        "kube-system",
    ]
    assert not re.search(pattern, 'I1129 kubelet.go:1] "SyncLoop ADD" source="api" pods=["shopcat/x"]')
