"""The controller stand-in's Ingress: moto's ELBv2 and EC2, and a Kubernetes API of a few collections."""

import copy
import itertools
import logging
from collections.abc import Iterator
from typing import Any, cast

import boto3
import pytest
import yaml
from botocore.exceptions import ClientError
from moto import mock_aws

from twin.loadbalancer.controller import flags
from twin.loadbalancer.controller.bindings import BackendNotFoundError, Caches, Recorder
from twin.loadbalancer.controller.elb import ElasticLoadBalancing
from twin.loadbalancer.controller.informer import trim_service
from twin.loadbalancer.controller.ingress_aws import IngressResources
from twin.loadbalancer.controller.ingress_model import ModelError, build, shared_security_group_name, unplayed
from twin.loadbalancer.controller.ingresses import INGRESS_FINALIZER, IngressReconciler, ingresses_of_service
from twin.loadbalancer.controller.kubernetes import ApiError, Kubernetes, Object, Store
from twin.loadbalancer.controller.webhooks import Admission
from twin.loadbalancer.elb import parse_rules, parse_target_group
from twin.loadbalancer.model import Condition, FixedResponse, Forward
from twin.paths import REPOSITORY

REGION = "eu-central-1"
CLUSTER = "shopcat"
INGRESS = "/apis/networking.k8s.io/v1/namespaces/shopcat/ingresses/shopcat"
BINDINGS = "/apis/elbv2.k8s.aws/v1beta1/namespaces/shopcat/targetgroupbindings"
PREFIX = "alb.ingress.kubernetes.io/"


def legacy_ingress() -> Object:
    document: Object = yaml.safe_load((REPOSITORY / "legacy" / "k8s" / "ingress.yaml").read_text())
    return document


def merged(document: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    before = document if isinstance(document, dict) else {}
    changed = {key: merged(before.get(key), value) for key, value in patch.items() if value is not None}
    return {key: value for key, value in before.items() if key not in patch} | changed


class Api:
    """Objects by path, with uid, resourceVersion, finalizers and deletion as the API server has them."""

    def __init__(self) -> None:
        self.objects: dict[str, Object] = {}
        self.writes: list[tuple[str, str]] = []
        self._versions = itertools.count(1)

    def put(self, path: str, document: Object) -> Object:
        metadata = document.setdefault("metadata", {})
        metadata.setdefault("uid", f"uid-{len(self.objects)}")
        metadata["resourceVersion"] = str(next(self._versions))
        self.objects[path] = document
        return copy.deepcopy(document)

    def _collection(self, path: str) -> list[Object]:
        ending = path.rpartition("/")[2]
        return [document for key, document in self.objects.items() if key.split("/")[-2] == ending]

    def request(self, method: str, path: str, body: Any = None, **_: Any) -> Object:
        if method == "GET":
            if path.rpartition("/")[2] in ("ingresses", "targetgroupbindings", "events"):
                return copy.deepcopy({"items": self._collection(path)})
            if path not in self.objects:
                raise ApiError(404, "not found")
            return copy.deepcopy(self.objects[path])
        self.writes.append((method, path))
        if method == "POST":
            document = copy.deepcopy(body)
            document["metadata"].setdefault("namespace", path.split("/")[path.split("/").index("namespaces") + 1])
            return self.put(f"{path}/{document['metadata']['name']}", document)
        assert method == "DELETE"
        if path not in self.objects:
            raise ApiError(404, "not found")
        return self.delete(path)

    def delete(self, path: str) -> Object:
        document = self.objects[path]
        document["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        self._end_deletion(path)
        return document

    def _end_deletion(self, path: str) -> None:
        metadata = self.objects[path]["metadata"]
        if metadata.get("deletionTimestamp") and not metadata.get("finalizers"):
            del self.objects[path]

    def merge_patch(self, path: str, patch: Object) -> Object:
        self.writes.append(("PATCH", path))
        path = path.removesuffix("/status")
        version = patch.get("metadata", {}).get("resourceVersion")
        if version not in (None, self.objects[path]["metadata"]["resourceVersion"]):
            raise ApiError(409, "the object has been modified")
        document = self.put(path, merged(self.objects[path], patch))
        self._end_deletion(path)
        return document

    def events(self) -> list[tuple[str, str]]:
        return [(event["reason"], event["message"]) for event in self._collection("events")]


class Cluster:
    """One Ingress and its Service, a VPC with two tagged zones, and a reconciler."""

    def __init__(self) -> None:
        self.elb = boto3.client("elbv2", region_name=REGION)
        self.ec2 = boto3.client("ec2", region_name=REGION)
        self.vpc = self.ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        self.subnets = {
            zone: self.ec2.create_subnet(
                VpcId=self.vpc, CidrBlock=f"10.0.{number}.0/24", AvailabilityZone=f"{REGION}{zone}"
            )["Subnet"]["SubnetId"]
            for number, zone in enumerate("ab")
        }
        self.ec2.create_tags(
            Resources=list(self.subnets.values()), Tags=[{"Key": "kubernetes.io/role/elb", "Value": "1"}]
        )
        self.api = Api()
        self.services = Store()
        self.api.put(INGRESS, legacy_ingress())
        self.add_service()
        self.reconciler = self.new_reconciler(self.vpc)

    def new_reconciler(self, vpc: str | None) -> IngressReconciler:
        kubernetes = cast("Kubernetes", self.api)
        return IngressReconciler(
            kubernetes,
            IngressResources(REGION, {}, 0, cluster=CLUSTER, vpc=vpc),
            Recorder(kubernetes),
            services=self.services,
            cluster=CLUSTER,
            default_target_type="instance",
        )

    def add_service(self, uid: str = "service-1", **annotations: str) -> None:
        named = {f"{PREFIX}{name.replace('_', '-')}": value for name, value in annotations.items()}
        metadata = {"name": "shopcat", "namespace": "shopcat", "uid": uid, "annotations": named}
        ports = [{"name": "http", "port": 80, "targetPort": "http"}]
        self.services.put(trim_service({"metadata": metadata, "spec": {"selector": {}, "ports": ports}}))

    def annotate(self, **annotations: str) -> None:
        named = {f"{PREFIX}{name.replace('_', '-')}": value for name, value in annotations.items()}
        self.api.merge_patch(INGRESS, {"metadata": {"annotations": named}})

    def reconcile(self) -> None:
        self.reconciler.reconcile("shopcat", "shopcat")

    def load_balancers(self) -> list[dict[str, Any]]:
        return list(self.elb.describe_load_balancers()["LoadBalancers"])

    def target_groups(self) -> list[dict[str, Any]]:
        return list(self.elb.describe_target_groups()["TargetGroups"])

    def security_groups(self) -> set[str]:
        groups = self.ec2.describe_security_groups(Filters=[{"Name": "vpc-id", "Values": [self.vpc]}])
        return {group["GroupName"] for group in groups["SecurityGroups"]} - {"default"}

    def listener(self) -> dict[str, Any]:
        (load_balancer,) = self.load_balancers()
        listeners = self.elb.describe_listeners(LoadBalancerArn=load_balancer["LoadBalancerArn"])["Listeners"]
        (listener,) = listeners
        return dict(listener)

    def rules(self) -> list[dict[str, Any]]:
        rules = self.elb.describe_rules(ListenerArn=self.listener()["ListenerArn"])["Rules"]
        return [rule for rule in rules if not rule["IsDefault"]]

    def tags(self, arn: str) -> dict[str, str]:
        (entry,) = self.elb.describe_tags(ResourceArns=[arn])["TagDescriptions"]
        return {tag["Key"]: tag["Value"] for tag in entry["Tags"]}

    def bindings(self) -> list[Object]:
        return [document for path, document in self.api.objects.items() if path.startswith(BINDINGS)]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with mock_aws():
        yield Cluster()


def test_the_old_ingress_gets_a_load_balancer_as_the_real_controller_names_and_tags_it(cluster: Cluster) -> None:
    cluster.reconcile()
    (load_balancer,), (group,), (rule,) = cluster.load_balancers(), cluster.target_groups(), cluster.rules()
    assert load_balancer["LoadBalancerName"] == "k8s-shopcat-shopcat-3b54a800e0"
    assert group["TargetGroupName"] == "k8s-shopcat-shopcat-54ad444162"
    assert load_balancer["Scheme"] == "internet-facing"
    assert {zone["SubnetId"] for zone in load_balancer["AvailabilityZones"]} == set(cluster.subnets.values())
    stack = {"elbv2.k8s.aws/cluster": CLUSTER, "ingress.k8s.aws/stack": "shopcat/shopcat"}
    for arn, resource in {
        load_balancer["LoadBalancerArn"]: "LoadBalancer",
        cluster.listener()["ListenerArn"]: "80",
        rule["RuleArn"]: "80:1",
        group["TargetGroupArn"]: "shopcat/shopcat-shopcat:80",
    }.items():
        assert cluster.tags(arn) == {**stack, "ingress.k8s.aws/resource": resource}
    assert (cluster.listener()["Port"], cluster.listener()["Protocol"]) == (80, "HTTP")
    assert cluster.listener()["DefaultActions"][0]["FixedResponseConfig"]["StatusCode"] == "404"
    assert rule["Conditions"][0]["PathPatternConfig"]["Values"] == ["/*"]
    (forwarded,) = rule["Actions"][0]["ForwardConfig"]["TargetGroups"]
    assert forwarded["TargetGroupArn"] == group["TargetGroupArn"]
    health_check = {
        "TargetType": "ip", "Port": 1, "HealthCheckPath": "/healthz", "HealthCheckIntervalSeconds": 15,
        "HealthCheckTimeoutSeconds": 5, "HealthyThresholdCount": 2, "UnhealthyThresholdCount": 2,
    }  # fmt: skip
    assert {name: group[name] for name in health_check} == health_check


def test_names_are_those_in_the_real_controllers_own_tests() -> None:
    """`pkg/ingress/model_builder_test.go` and `pkg/networking/backend_sg_provider_test.go` of v3.5.0."""
    ingress = legacy_ingress()
    ingress["metadata"] |= {"namespace": "ns-1", "name": "ing-1"}
    reference = {"name": "svc-1", "port": {"name": "http"}}
    ingress["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"] = reference
    service = {
        "metadata": {"namespace": "ns-1", "name": "svc-1", "uid": ""},
        "spec": {"ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
    }
    model = build(ingress, {"svc-1": service}, cluster="cluster-dummy", default_target_type="instance")
    (group,) = model.groups
    assert model.load_balancer_name == "k8s-ns1-ing1-159dd7a143"
    assert model.security_group_name == "k8s-ns1-ing1-bd83176788"
    assert (group.group_name, group.group_port) == ("k8s-ns1-svc1-6350990f3a", 8080)
    assert model.group_resource(group) == "ns-1/ing-1-svc-1:http"
    assert shared_security_group_name("testCluster") == "k8s-traffic-testCluster-411a1bcdb1"


def test_the_binding_names_the_service_and_the_group_and_the_status_the_load_balancer(cluster: Cluster) -> None:
    cluster.reconcile()
    (binding,), (group,) = cluster.bindings(), cluster.target_groups()
    assert binding["metadata"]["name"] == group["TargetGroupName"]
    assert binding["metadata"]["labels"] == {
        "ingress.k8s.aws/stack-namespace": "shopcat", "ingress.k8s.aws/stack-name": "shopcat"
    }  # fmt: skip
    spec = binding["spec"]
    assert (spec["targetGroupARN"], spec["targetType"], spec["vpcID"]) == (group["TargetGroupArn"], "ip", cluster.vpc)
    assert spec["serviceRef"] == {"name": "shopcat", "port": 80}
    ingress = cluster.api.objects[INGRESS]
    assert ingress["metadata"]["finalizers"] == [INGRESS_FINALIZER]
    (entry,) = ingress["status"]["loadBalancer"]["ingress"]
    assert entry["hostname"] == cluster.load_balancers()[0]["DNSName"].lower()
    assert cluster.api.events() == [("SuccessfullyReconciled", "Successfully reconciled")]
    written = [path for _, path in cluster.api.writes if "/events" not in path]
    assert written == [INGRESS, BINDINGS, f"{INGRESS}/status"], "the host name says that the binding is there"


def test_a_binding_that_the_ingress_made_passes_the_bindings_own_webhook(cluster: Cluster) -> None:
    cluster.reconcile()
    (binding,) = cluster.bindings()
    kubernetes = cast("Kubernetes", cluster.api)
    caches = Caches(*(Store() for _ in range(5)))
    admission = Admission(kubernetes, ElasticLoadBalancing(REGION, None, 0), caches, inject_gates=True)
    for path in (
        "/mutate-elbv2-k8s-aws-v1beta1-targetgroupbinding",
        "/validate-elbv2-k8s-aws-v1beta1-targetgroupbinding",
    ):
        request = {"uid": "r", "operation": "CREATE", "namespace": "shopcat", "object": binding}
        assert admission.review(path, {"request": request})["response"] == {"uid": "r", "allowed": True}


def test_the_load_balancers_stand_in_serves_what_the_ingress_made(cluster: Cluster) -> None:
    cluster.annotate(target_group_attributes="deregistration_delay.timeout_seconds=90")
    cluster.reconcile()
    (group,) = cluster.target_groups()
    arn = group["TargetGroupArn"]
    attributes = cluster.elb.describe_target_group_attributes(TargetGroupArn=arn)["Attributes"]
    served = parse_target_group(group, attributes)
    assert (served.deregistration_delay_seconds, served.health_check.path) == (90, "/healthz")
    rules = parse_rules(cluster.elb.describe_rules(ListenerArn=cluster.listener()["ListenerArn"])["Rules"])
    assert [rule.action for rule in rules] == [Forward(((arn, 1),)), FixedResponse(404)]
    assert rules[0].conditions == (Condition("path-pattern", ("/*",)),)


def test_a_second_pass_changes_nothing(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    cluster.reconcile()
    before = (cluster.load_balancers(), cluster.target_groups(), cluster.rules(), cluster.security_groups())
    cluster.api.writes.clear()
    with caplog.at_level(logging.INFO, "twin.loadbalancer.controller.ingress_aws"):
        cluster.reconcile()
    assert (cluster.load_balancers(), cluster.target_groups(), cluster.rules(), cluster.security_groups()) == before
    assert caplog.messages == []
    assert [path for _, path in cluster.api.writes if "/events" not in path] == []


def test_annotations_reach_the_group_and_one_that_is_taken_away_is_not_reset(cluster: Cluster) -> None:
    cluster.reconcile()
    (group,) = cluster.target_groups()
    cluster.annotate(
        healthcheck_interval_seconds="5", target_group_attributes="deregistration_delay.timeout_seconds=90"
    )
    cluster.reconcile()

    def delay() -> str:
        attributes = cluster.elb.describe_target_group_attributes(TargetGroupArn=group["TargetGroupArn"])["Attributes"]
        return next(pair["Value"] for pair in attributes if pair["Key"] == "deregistration_delay.timeout_seconds")

    (changed,) = cluster.target_groups()
    assert (changed["TargetGroupArn"], changed["HealthCheckIntervalSeconds"], delay()) == (
        group["TargetGroupArn"], 5, "90",
    )  # fmt: skip
    cluster.annotate(target_group_attributes="stickiness.enabled=false")
    cluster.reconcile()
    assert delay() == "90"


def test_an_annotation_of_the_service_hides_that_of_the_ingress(cluster: Cluster) -> None:
    cluster.add_service(healthcheck_path="/other")
    cluster.reconcile()
    assert cluster.target_groups()[0]["HealthCheckPath"] == "/other"


def test_what_somebody_else_writes_into_the_rules_is_put_back(cluster: Cluster) -> None:
    cluster.reconcile()
    (rule,), (group,) = cluster.rules(), cluster.target_groups()
    arn = group["TargetGroupArn"]
    page = {"Type": "fixed-response", "FixedResponseConfig": {"StatusCode": "503"}}
    cluster.elb.modify_rule(RuleArn=rule["RuleArn"], Actions=[page])
    cluster.elb.create_rule(
        ListenerArn=cluster.listener()["ListenerArn"],
        Priority=7,
        Conditions=[{"Field": "path-pattern", "PathPatternConfig": {"Values": ["/x"]}}],
        Actions=[page],
    )
    cluster.reconcile()
    (restored,) = cluster.rules()
    assert restored["RuleArn"] == rule["RuleArn"]
    assert restored["Actions"][0]["ForwardConfig"]["TargetGroups"][0]["TargetGroupArn"] == arn


def test_a_host_becomes_a_condition_and_a_path_two_patterns(cluster: Cluster) -> None:
    ingress = cluster.api.objects[INGRESS]
    ingress["spec"]["rules"][0]["host"] = "shop.example.com"
    ingress["spec"]["rules"][0]["http"]["paths"][0]["path"] = "/shop/"
    cluster.reconcile()
    host, path = cluster.rules()[0]["Conditions"]
    assert host["HostHeaderConfig"]["Values"] == ["shop.example.com"]
    assert path["PathPatternConfig"]["Values"] == ["/shop", "/shop/*"]


def test_without_its_service_nothing_is_made(cluster: Cluster) -> None:
    cluster.services.remove(("shopcat", "shopcat"))
    with pytest.raises(BackendNotFoundError):
        cluster.reconcile()
    assert cluster.api.events() == [
        ("FailedBuildModel", 'Failed build model due to Service "shopcat" not found')
    ]  # fmt: skip
    assert (cluster.load_balancers(), cluster.target_groups(), cluster.security_groups()) == ([], [], set())


def test_a_service_that_is_made_anew_keeps_its_group(cluster: Cluster) -> None:
    cluster.reconcile()
    before = cluster.target_groups(), [binding["metadata"]["name"] for binding in cluster.bindings()]
    cluster.add_service(uid="service-2")
    cluster.reconcile()
    assert (cluster.target_groups(), [binding["metadata"]["name"] for binding in cluster.bindings()]) == before


def test_another_target_port_moves_rule_and_binding_to_a_new_group(cluster: Cluster) -> None:
    cluster.reconcile()
    (former,) = cluster.target_groups()
    service = cluster.services.get("shopcat", "shopcat")
    assert service is not None
    service["spec"]["ports"][0]["targetPort"] = 8080
    cluster.reconcile()
    (group,), (binding,), (rule,) = cluster.target_groups(), cluster.bindings(), cluster.rules()
    assert group["TargetGroupArn"] != former["TargetGroupArn"]
    assert group["Port"] == 8080
    assert binding["spec"]["targetGroupARN"] == group["TargetGroupArn"]
    assert rule["Actions"][0]["ForwardConfig"]["TargetGroups"][0]["TargetGroupArn"] == group["TargetGroupArn"]


def test_another_scheme_replaces_the_load_balancer_and_its_host_name(cluster: Cluster) -> None:
    cluster.reconcile()
    (group,) = cluster.target_groups()
    cluster.ec2.create_tags(
        Resources=list(cluster.subnets.values()), Tags=[{"Key": "kubernetes.io/role/internal-elb", "Value": "1"}]
    )
    cluster.annotate(scheme="internal")
    cluster.reconcile()
    (load_balancer,) = cluster.load_balancers()
    assert load_balancer["Scheme"] == "internal"
    (entry,) = cluster.api.objects[INGRESS]["status"]["loadBalancer"]["ingress"]
    assert entry["hostname"] == load_balancer["DNSName"].lower()
    assert [current["TargetGroupArn"] for current in cluster.target_groups()] == [group["TargetGroupArn"]]
    assert len(cluster.rules()) == 1


def test_an_aws_error_is_an_event_and_the_next_pass_goes_on(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    def throttled(**_: Any) -> None:
        raise ClientError({"Error": {"Code": "Throttling", "Message": "Rate exceeded"}}, "CreateListener")

    with monkeypatch.context() as patch:
        patch.setattr(cluster.reconciler._resources._elb, "create_listener", throttled)
        with pytest.raises(ClientError):
            cluster.reconcile()
    ((reason, message),) = cluster.api.events()
    assert reason == "FailedDeployModel"
    assert "Rate exceeded" in message
    assert cluster.bindings() == []
    assert "status" not in cluster.api.objects[INGRESS]
    (load_balancer,), (group,) = cluster.load_balancers(), cluster.target_groups()
    cluster.reconcile()
    assert [current["LoadBalancerArn"] for current in cluster.load_balancers()] == [load_balancer["LoadBalancerArn"]]
    assert [current["TargetGroupArn"] for current in cluster.target_groups()] == [group["TargetGroupArn"]]
    assert (len(cluster.rules()), len(cluster.bindings())) == (1, 1)


def test_a_deleted_ingress_leaves_nothing_and_then_lets_go(cluster: Cluster) -> None:
    cluster.reconcile()
    assert len(cluster.security_groups()) == 2
    cluster.api.delete(INGRESS)
    assert INGRESS in cluster.api.objects, "held by the finalizer"
    cluster.reconcile()
    assert INGRESS not in cluster.api.objects
    assert (cluster.load_balancers(), cluster.target_groups(), cluster.bindings()) == ([], [], [])
    assert cluster.security_groups() == set()


def test_the_deletion_waits_for_the_bindings_own_finalizer(cluster: Cluster) -> None:
    cluster.reconcile()
    (binding,) = cluster.bindings()
    path = f"{BINDINGS}/{binding['metadata']['name']}"
    cluster.api.merge_patch(path, {"metadata": {"finalizers": ["elbv2.k8s.aws/resources"]}})
    waited: list[int] = []

    def binding_controller(_: float) -> None:
        assert len(cluster.target_groups()) == 1, "the group outlives its binding"
        waited.append(1)
        cluster.api.merge_patch(path, {"metadata": {"finalizers": []}})

    cluster.reconciler._sleep = binding_controller
    cluster.api.delete(INGRESS)
    cluster.reconcile()
    assert waited == [1]
    assert cluster.target_groups() == []


def test_the_shared_security_group_goes_with_the_last_ingress_alone(cluster: Cluster) -> None:
    other = legacy_ingress()
    other["metadata"] |= {"name": "other", "finalizers": [INGRESS_FINALIZER]}
    cluster.api.put(INGRESS.replace("ingresses/shopcat", "ingresses/other"), other)
    cluster.reconcile()
    cluster.api.delete(INGRESS)
    cluster.reconcile()
    (left,) = cluster.security_groups()
    assert left.startswith("k8s-traffic-shopcat-")


def test_an_ingress_that_leaves_the_class_loses_its_load_balancer(cluster: Cluster) -> None:
    cluster.reconcile()
    cluster.api.merge_patch(INGRESS, {"spec": {"ingressClassName": "nginx"}})
    cluster.reconcile()
    assert cluster.load_balancers() == []
    assert cluster.api.objects[INGRESS]["metadata"]["finalizers"] == []


def test_an_ingress_of_another_class_is_left_alone(cluster: Cluster) -> None:
    cluster.api.objects[INGRESS]["spec"]["ingressClassName"] = "nginx"
    cluster.reconcile()
    assert cluster.load_balancers() == []
    assert cluster.api.writes == []


@pytest.mark.parametrize(
    ("annotations", "message"),
    [
        ({"target_type": "instance"}, "twin: target-type instance is not implemented by the stand-in"),
        ({"group.name": "g"}, f"twin: the annotation {PREFIX}group.name is not implemented by the stand-in"),
        ({"scheme": "outside"}, "unknown scheme: outside"),
        (
            {"healthcheck_interval_seconds": "abc"},
            f"failed to parse int32 annotation, {PREFIX}healthcheck-interval-seconds: abc",
        ),
    ],
)
def test_what_can_not_be_built_is_an_event_and_nothing_in_aws(
    cluster: Cluster, annotations: dict[str, str], message: str
) -> None:
    cluster.annotate(**annotations)
    with pytest.raises(ModelError):
        cluster.reconcile()
    assert cluster.api.events() == [("FailedBuildModel", f"Failed build model due to {message}")]
    assert (cluster.load_balancers(), cluster.target_groups(), cluster.security_groups()) == ([], [], set())


def test_untagged_subnets_and_an_unknown_vpc_are_named(cluster: Cluster) -> None:
    subnet = cluster.subnets["b"]
    cluster.ec2.delete_tags(Resources=[subnet], Tags=[{"Key": "kubernetes.io/role/elb"}])
    with pytest.raises(ModelError, match=f"role/elb in {REGION}a; two zones are needed"):
        cluster.reconcile()
    cluster.reconciler = cluster.new_reconciler(None)
    with pytest.raises(ModelError, match="--aws-vpc-id"):
        cluster.reconcile()
    assert [reason for reason, _ in cluster.api.events()] == ["FailedBuildModel", "FailedBuildModel"]
    assert cluster.security_groups() == set()


# --- what is refused ---


def changed(**spec: Any) -> Object:
    ingress = legacy_ingress()
    ingress["spec"] |= spec
    return ingress


BACKEND = {"service": {"name": "shopcat", "port": {"number": 80}}}
PATH = {"path": "/", "pathType": "Prefix", "backend": BACKEND}


@pytest.mark.parametrize(
    ("ingress", "refused"),
    [
        (changed(), []),
        (changed(tls=[{"secretName": "s"}]), ["spec.tls of an Ingress"]),
        (changed(defaultBackend=BACKEND), ["spec.defaultBackend of an Ingress"]),
        (changed(rules=[{"host": host, "http": {"paths": [PATH]}} for host in "ab"]), ["an Ingress with 2 rules"]),
        (changed(rules=[{"http": {"paths": [PATH, PATH]}}]), ["an Ingress with 2 paths"]),
        (changed(rules=[{"http": {"paths": [{**PATH, "pathType": "Exact"}]}}]), ["pathType Exact"]),
        (
            changed(rules=[{"http": {"paths": [{**PATH, "backend": {"resource": {"kind": "Bucket"}}}]}}]),
            ["a backend that is no Service"],
        ),
    ],
)
def test_unplayed_parts_of_an_ingress_are_refused_by_name(ingress: Object, refused: list[str]) -> None:
    assert unplayed(ingress) == refused


def review(ingress: Object) -> dict[str, Any]:
    kubernetes, elb = cast("Kubernetes", Api()), cast("ElasticLoadBalancing", None)
    admission = Admission(kubernetes, elb, Caches(*(Store() for _ in range(5))), inject_gates=True)
    request = {"uid": "r", "operation": "CREATE", "namespace": "shopcat", "object": ingress}
    answer: dict[str, Any] = admission.review("/validate-networking-v1-ingress", {"request": request})["response"]
    return answer


def test_the_webhook_refuses_by_name_and_never_holds_up_a_deletion() -> None:
    assert review(legacy_ingress())["allowed"] is True
    ingress = legacy_ingress()
    ingress["metadata"]["annotations"] |= {f"{PREFIX}actions.weighted": "{}", f"{PREFIX}certificate-arn": "arn"}
    answer = review(ingress)
    assert answer["allowed"] is False
    assert answer["status"]["message"] == (
        f"twin: the annotation {PREFIX}actions.weighted, the annotation {PREFIX}certificate-arn "
        "is not implemented by the stand-in"
    )
    ingress["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert review(ingress)["allowed"] is True
    assert review({"metadata": {}, "spec": {"ingressClassName": "nginx", "tls": [{}]}})["allowed"] is True


def test_the_annotation_of_the_class_is_refused() -> None:
    ingress = legacy_ingress()
    del ingress["spec"]["ingressClassName"]
    ingress["metadata"]["annotations"]["kubernetes.io/ingress.class"] = "alb"
    assert "kubernetes.io/ingress.class" in review(ingress)["status"]["message"]


def test_a_change_of_a_service_wakes_the_ingresses_that_name_it() -> None:
    ingresses = Store()
    ingresses.put(legacy_ingress())
    service = {"metadata": {"namespace": "shopcat", "name": "shopcat"}}
    assert ingresses_of_service(ingresses, service) == [("shopcat", "shopcat")]
    assert ingresses_of_service(ingresses, {"metadata": {"namespace": "other", "name": "shopcat"}}) == []


def test_flags_of_the_ingress_part() -> None:
    parsed = flags.parse(
        ["--cluster-name=c", "--aws-region=r", "--aws-vpc-id=vpc-1", "--aws-api-endpoints=EC2=http://e,S3=http://s"]
    )
    assert (parsed.vpc, parsed.default_target_type, dict(parsed.endpoints)) == (
        "vpc-1",
        "instance",
        {"ec2": "http://e"},
    )
