"""Decisions of the platform's components."""

import asyncio
import ipaddress
import json
from importlib.metadata import version
from typing import Any

import pulumi
import pulumi_aws as aws
import pulumi_eks
import pulumi_kubernetes
import pytest
from pulumi.runtime.mocks import MockMonitor

from infra import capacity, settings
from infra.access.iam_policies import AwsScope
from infra.clients import kubernetes as kubernetes_client
from infra.errors import ShopCatError
from infra.foundation import addons, cluster, load_balancers, network, providers, registry
from infra.previews import preview, rbac
from infra.settings import Vpc
from tests.unit.releases import run
from tests.unit.test_settings import committed


@pytest.mark.parametrize("cidr", ["10.64.0.0/16", "10.0.0.0/20"])
def test_subnets_are_inside_the_network_and_apart(cidr: str) -> None:
    groups = network.subnets(cidr)
    assert [len(one) for one in groups] == [2, 2, 2]
    found = [ipaddress.ip_network(one) for group in groups for one in group]
    whole = ipaddress.ip_network(cidr)
    assert all(one.subnet_of(whole) for one in found)  # type: ignore[arg-type]
    assert not any(a.overlaps(b) for i, a in enumerate(found) for b in found[i + 1 :])


class Echo(pulumi.runtime.Mocks):
    """Every resource is made, with its inputs and what is known of its kind as outputs."""

    known: dict[str, dict[str, Any]] = {}

    def new_resource(self, args: pulumi.runtime.MockResourceArgs) -> tuple[str, dict[str, Any]]:
        return f"{args.name}-id", {**args.inputs, **self.known.get(args.typ, {})}

    def call(self, args: pulumi.runtime.MockCallArgs) -> dict[str, Any]:
        raise AssertionError(f"no invoke is expected: {args.token}")


class Needs(MockMonitor):
    """Dependencies of each resource, by URN."""

    def __init__(self) -> None:
        super().__init__(Echo())
        self.known: dict[str, set[str]] = {}

    def RegisterResource(self, request: Any) -> Any:  # noqa: N802 - the mocks' name
        answer = super().RegisterResource(request)
        self.known[answer.urn] = set(request.dependencies)
        return answer

    def of(self, name: str) -> set[str]:
        """Types and names of everything that a resource depends on, however far; its URN ends like this."""
        found: set[str] = set()
        left = {urn for urn in self.known if urn.endswith(name)}
        while left:
            found |= left
            left = {one for urn in left for one in self.known[urn]} - found
        return {urn.rpartition("$")[2] for urn in found}


@pytest.mark.parametrize("gateways", [1, 2])
def test_what_is_in_a_subnet_comes_after_its_way_out(gateways: int) -> None:
    needs = Needs()
    pulumi.runtime.set_mocks(needs.mocks, preview=False, monitor=needs)

    @pulumi.runtime.test
    def program() -> Any:
        made = network.Network(
            "net",
            Vpc(nat_gateways=gateways),
            cluster_name="shopcat",
            region="eu-central-1",
            protect=False,
            opts=pulumi.ResourceOptions(),
        )
        inside = [
            aws.ec2.NetworkInterface(f"in-{kind}", subnet_id=ids[1])
            for kind, ids in (
                ("public", made.public_subnet_ids),
                ("preview", made.preview_subnet_ids),
                ("private", made.private_subnet_ids),
            )
        ]
        return pulumi.Output.all(*(one.id for one in inside))

    program()
    public = {
        "aws:ec2/internetGateway:InternetGateway::internet",
        "aws:ec2/route:Route::public-default",
        "aws:ec2/routeTableAssociation:RouteTableAssociation::public-1",
    }
    assert needs.of("::in-public") >= public
    assert needs.of("::in-preview") >= {one.replace("public-1", "preview-1") for one in public}
    nat = gateways - 1
    assert needs.of("::in-private") >= {
        "aws:ec2/internetGateway:InternetGateway::internet",
        "aws:ec2/route:Route::public-default",
        f"aws:ec2/routeTableAssociation:RouteTableAssociation::public-{nat}",
        f"aws:ec2/natGateway:NatGateway::nat-{nat}",
        "aws:ec2/route:Route::private-1-default",
        "aws:ec2/routeTableAssociation:RouteTableAssociation::private-1",
    }


def test_a_released_image_never_expires() -> None:
    rules = json.loads(registry.release_lifecycle())["rules"]
    assert [rule["selection"]["tagStatus"] for rule in rules] == ["untagged"]
    assert json.loads(registry.preview_lifecycle())["rules"][0]["selection"]["tagStatus"] == "any"


@pytest.mark.parametrize(
    ("access", "cidrs", "expected"),
    [
        ("public", (), (True, ["0.0.0.0/0"])),
        ("cidrs", ("203.0.113.0/24",), (True, ["203.0.113.0/24"])),
        ("private", (), (False, [])),
    ],
)
def test_who_reaches_the_api(access: str, cidrs: tuple[str, ...], expected: tuple[bool, list[str]]) -> None:
    assert cluster.endpoint_access(access, cidrs) == expected


@pytest.mark.parametrize("support", ["EXTENDED", "STANDARD"])
def test_what_aws_may_do_to_a_running_cluster_is_declared(monkeypatch: pytest.MonkeyPatch, support: str) -> None:
    declared: list[pulumi_eks.ClusterArgs] = []

    class Component(pulumi.ComponentResource):
        """Component whose output is a resource, which the mocks can't return."""

        def __init__(self, title: str, *, opts: pulumi.ResourceOptions, **given: Any) -> None:
            opts.transforms = None  # Pulumi's mocks know none
            super().__init__("eks:index:Cluster", title, None, opts)
            declared.append(pulumi_eks.ClusterArgs(**given))
            self.eks_cluster = aws.eks.Cluster(
                title, role_arn="arn", vpc_config=aws.eks.ClusterVpcConfigArgs(subnet_ids=[])
            )

    class Subnets:
        vpc_id, public_subnet_ids, private_subnet_ids = "vpc-1", ["subnet-1", "subnet-2"], ["subnet-3", "subnet-4"]

    monkeypatch.setattr(pulumi_eks, "Cluster", Component)
    made: dict[str, dict[str, Any]] = {}

    class Recorded(Echo):
        def new_resource(self, args: pulumi.runtime.MockResourceArgs) -> tuple[str, dict[str, Any]]:
            made[args.typ] = args.inputs
            return super().new_resource(args)

    mocks = Recorded()
    mocks.known = {"aws:eks/cluster:Cluster": {"endpoint": "https://api", "certificateAuthority": {"data": "Q0E="}}}
    pulumi.runtime.set_mocks(mocks, preview=False)
    values = committed()
    values["cluster"] = {**values["cluster"], "supportType": support}

    @pulumi.runtime.test
    def program() -> Any:
        return cluster.Cluster(
            "shopcat",
            settings.read_settings(values),
            boundary="arn:boundary",
            network=Subnets(),  # type: ignore[arg-type]
            region="eu-central-1",
            components=lambda _: None,
            opts=pulumi.ResourceOptions(),
        ).kubeconfig

    program()
    (component,) = declared
    assert component.upgrade_policy.support_type == support  # type: ignore[union-attr]
    nodes = made["aws:eks/nodeGroup:NodeGroup"]
    assert nodes["updateConfig"] == {"maxUnavailable": 1, "updateStrategy": "DEFAULT"}
    assert (nodes["clusterName"], nodes["subnetIds"]) == ("shopcat", ["subnet-3", "subnet-4"])
    assert settings.read_settings(committed()).cluster.support_type == "EXTENDED"


def test_the_kubeconfig_holds_no_secret() -> None:
    document = json.loads(kubernetes_client.kubeconfig("shopcat", "https://api", "Q0E=", "eu-central-1"))
    (user,) = document["users"]
    assert set(user["user"]) == {"exec"}
    assert user["user"]["exec"]["args"][-4:] == ["--cluster-name", "shopcat", "--output", "json"]


def test_requests_are_those_the_capacity_plan_counts() -> None:
    found = addons.requests(capacity.EXTERNAL_SECRETS)
    assert found["requests"]["memory"] == f"{capacity.EXTERNAL_SECRETS.pod.memory_mebibytes}Mi"
    assert found["requests"]["cpu"] == f"{capacity.EXTERNAL_SECRETS.pod.cpu_millicores}m"
    assert "cpu" not in found["limits"]


def test_a_chart_is_first_installed_some_time_after_its_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pulumi's mocks know no resource hooks; that they run is the engine tests' part."""
    bound: dict[str, pulumi.ResourceHookBinding] = {}

    class Registered:
        def __await__(self) -> Any:
            return iter(())

    async def prepared(hooks: pulumi.ResourceHookBinding | None, resource: str) -> None:
        if hooks and hooks.before_create:
            bound[resource] = hooks

    monkeypatch.setattr("pulumi.resource_hooks.register_resource_hook", lambda _: Registered())
    monkeypatch.setattr("pulumi.runtime.resource._prepare_resource_hooks", prepared)
    needs = Needs()
    pulumi.runtime.set_mocks(needs.mocks, preview=False, monitor=needs)

    @pulumi.runtime.test
    def program() -> Any:
        made = addons.Addons(
            "addons",
            settings.read_settings(committed()),
            scope=AwsScope("123456789012", "eu-central-1", "shopcat", "shopcat-releases"),
            kubernetes_api=lambda: "api",  # type: ignore[arg-type, return-value]
            kubeconfig=pulumi.Output.secret(
                kubernetes_client.kubeconfig("shopcat", "https://api:6443", "Q0E=", "eu-central-1")
            ),
            vpc_id="vpc-1",
            depends_on=[],
            opts=pulumi.ResourceOptions(),
        )
        return pulumi.Output.all(made.controller.id, made.external_secrets.id)

    program()
    kind = "kubernetes:helm.sh/v3:Release"
    assert {resource.removeprefix(f"{kind}_") for resource in bound} == {addons.CONTROLLER, addons.OPERATOR}
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    applied: list[tuple[Any, ...]] = []
    monkeypatch.setattr(addons.crds, "bring_up_to", lambda *given: applied.append(given))
    monkeypatch.setattr(addons.crds, "fetch_archive", lambda *given: applied.append(given))
    for hooks in bound.values():
        first, *rest = hooks.before_create or []
        assert rest == (hooks.before_update or []), "what is done before a chart is changed is also done at first"
        assert len(rest) == 1
        for hook in (first, *rest):
            assert isinstance(hook, pulumi.ResourceHook)
            run(hook.callback(pulumi.ResourceHookArgs("", "", "", "")))
    assert waited == [addons.IDENTITY_SECONDS] * 2
    digests = settings.read_settings(committed()).chart_digests
    assert sorted(applied, key=len) == [
        ("https://charts.external-secrets.io", addons.OPERATOR, "0.20.4", digests.external_secrets),
        ("api", "https://aws.github.io/eks-charts", addons.CONTROLLER, "3.5.0", digests.load_balancer_controller),
    ]
    for chart in (addons.CONTROLLER, addons.OPERATOR):
        association = f"aws:eks/podIdentityAssociation:PodIdentityAssociation::{chart}"
        assert association in needs.of(f"{kind}::{chart}")


def test_the_controller_never_waits_longer_than_a_deregistration_may_take() -> None:
    """Its own default is 16 min 40 s after failed calls."""
    given = settings.read_settings(committed())
    values = addons.controller_values(given, "vpc-1", "eu-central-1")
    seconds = [
        int(values[name].removesuffix("s"))
        for name in ("targetgroupbindingMaxExponentialBackoffDelay", "targetgroupbindingRequeueDuration")
    ]
    assert all(1 <= each <= given.drain.budget.controller_lag_seconds for each in seconds)


@pytest.mark.parametrize("zone_id", [None, "Z1"])
@pytest.mark.parametrize("dry_run", [False, True])
def test_external_dns_says_once_what_to_enter(
    monkeypatch: pytest.MonkeyPatch, zone_id: str | None, *, dry_run: bool
) -> None:
    option = {"resourceRecordName": "_1.shop.", "resourceRecordType": "CNAME", "resourceRecordValue": "_2.aws."}
    mocks = Echo()
    mocks.known = {
        "aws:acm/certificate:Certificate": {"domainValidationOptions": [option]},
        "aws:lb/loadBalancer:LoadBalancer": {"dnsName": "lb.amazonaws.com", "zoneId": "Z2"},
    }
    said: list[str] = []
    monkeypatch.setattr(pulumi.log, "info", lambda text, about: said.append(f"{about._name}: {text}"))
    pulumi.runtime.set_mocks(mocks, preview=dry_run)
    given = settings.read_settings(committed())
    found: list[list[dict[str, str]]] = []

    class Subnets:
        vpc_id, cidr = "vpc-1", "10.64.0.0/16"

    @pulumi.runtime.test
    def program() -> Any:
        made = load_balancers.LoadBalancer(
            "shop",
            hosts=["shop.example.com"],
            zone_id=zone_id,
            network=Subnets(),  # type: ignore[arg-type]
            subnet_ids=["subnet-1", "subnet-2"],
            drain=given.drain.budget,
            protect=False,
            opts=pulumi.ResourceOptions(),
        )
        return made.names.apply(found.append)

    program()
    if zone_id:
        assert found == [[]]
    else:
        assert found == [
            [
                {"name": "_1.shop.", "type": "CNAME", "value": "_2.aws."},
                {"name": "shop.example.com", "type": "CNAME", "value": "lb.amazonaws.com"},
            ]
        ]
    if zone_id or dry_run:
        assert said == []
    else:
        (line,) = said
        assert line.startswith("shop: ")
        assert "enter _1.shop. CNAME _2.aws., for which an update waits up to 75 minutes" in line
        assert "and shop.example.com CNAME lb.amazonaws.com (an ALIAS or ANAME" in line


def test_whoever_may_delete_a_kind_can_wait_until_it_is_gone() -> None:
    rules = [*rbac.opener(), *rbac.remover(), *rbac.inside()]
    deleting = [rule for rule in rules if "delete" in rule["verbs"]]
    assert {name for rule in deleting for name in rule["resources"]} >= {"namespaces", "deployments"}
    for rule in deleting:
        assert {"get", "list", "watch"} <= set(rule["verbs"]), rule


@pytest.mark.parametrize(("stack", "number"), [("pr-1", 1), ("pr-123", 123)])
def test_stack_names(stack: str, number: int) -> None:
    assert preview.pull_request(stack) == number


@pytest.mark.parametrize("stack", ["staging", "pr-", "pr-0", "pr-01", "PR-1", "pr-1-x", "production"])
def test_other_stack_names_are_refused_with_the_rule(stack: str) -> None:
    with pytest.raises(ShopCatError, match=r"pr-<n>"):
        preview.pull_request(stack)


def test_every_kubernetes_object_names_its_field_manager_and_nothing_else_does() -> None:
    given = {"metadata": {"name": "x", "annotations": {"a": "b"}}, "spec": {}}

    def transformed(kind: str, props: dict[str, object]) -> dict[str, object] | None:
        args = pulumi.ResourceTransformationArgs(None, kind, "x", props, pulumi.ResourceOptions())  # type: ignore[arg-type]
        found = providers.own_fields(args)
        return None if found is None else dict(found.props)

    assert transformed("kubernetes:core/v1:Service", given) == {
        "metadata": {"name": "x", "annotations": {"a": "b", "pulumi.com/patchFieldManager": "shopcat"}},
        "spec": {},
    }
    typed = pulumi_kubernetes.meta.v1.ObjectMetaArgs(name="x", annotations={"a": "b"})
    owned = transformed("kubernetes:core/v1:Service", {"metadata": typed})
    assert owned is not None
    assert owned["metadata"].annotations == {"a": "b", "pulumi.com/patchFieldManager": "shopcat"}  # type: ignore[attr-defined]
    assert typed.annotations == {"a": "b"}, "objects that share metadata keep their own"
    with pytest.raises(TypeError, match="metadata"):
        transformed("kubernetes:core/v1:Service", {"metadata": pulumi.Output.from_input({})})
    assert transformed("kubernetes:helm.sh/v3:Release", {"name": "x"}) is None
    assert transformed("aws:ec2/vpc:Vpc", given) is None


def _transformed(kind: str) -> pulumi.ResourceTransformResult | None:
    options = pulumi.ResourceOptions(version="4.19.0")
    args = pulumi.ResourceTransformArgs(custom=True, type_=kind, name="x", props={"kubeconfig": "k"}, opts=options)
    return providers.one_kubernetes_plugin(args)


def test_the_eks_component_s_own_provider_asks_for_this_program_s_plugin() -> None:
    found = _transformed("pulumi:providers:kubernetes")
    assert found is not None
    assert (found.opts.version, found.props) == (version("pulumi-kubernetes"), {"kubeconfig": "k"})
    assert _transformed("pulumi:providers:aws") is None
    assert _transformed("aws:iam/role:Role") is None
