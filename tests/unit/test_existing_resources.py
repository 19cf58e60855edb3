"""Resources that AWS has already are found under the id by which the provider imports them."""

import asyncio
import inspect
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pulumi_aws
import pytest
from botocore.exceptions import ClientError

from infra.clients.aws import AwsClients
from infra.errors import ShopCatError
from infra.foundation import existing_resources
from tests.unit.releases import run
from tests.unit.test_helm_history import helm_secrets
from twin.plugins.aws import imports
from twin.plugins.aws.kind import Aws
from twin.plugins.aws.provider import KINDS

REGION = "eu-central-1"
POLICY = '{"Version": "2012-10-17", "Statement": []}'


class Account:
    """AWS by moto, and in it what is made by the twin's stand-in of the provider, with inputs as the engine has them."""

    def __init__(self) -> None:
        self.clients = AwsClients(REGION)
        self.aws = Aws({"region": REGION, "accessKey": "test", "secretKey": "test"})

    def make(self, kind: str, **inputs: Any) -> str:
        return KINDS[kind].create(self.aws, {**KINDS[kind].defaults, **inputs})

    def find(self, kind: str, **inputs: Any) -> str | None:
        return existing_resources.find_existing(self.clients, kind, inputs)

    def network(self) -> tuple[str, str, str]:
        vpc = self.make("aws:ec2/vpc:Vpc", cidrBlock="10.0.0.0/16")
        zones = {"cidrBlock": "10.0.0.0/20", "availabilityZone": f"{REGION}a", "vpcId": vpc}
        first = self.make("aws:ec2/subnet:Subnet", **zones)
        second = self.make(
            "aws:ec2/subnet:Subnet", **{**zones, "cidrBlock": "10.0.16.0/20", "availabilityZone": f"{REGION}b"}
        )
        return vpc, first, second

    def cases(self) -> list[tuple[str, dict[str, Any]]]:
        """Every guarded type that moto knows, in an order in which it can be made."""
        vpc, first, second = self.network()
        role = {"assumeRolePolicy": POLICY, "path": "/", "maxSessionDuration": 3600}
        table = self.make("aws:ec2/routeTable:RouteTable", vpcId=vpc)
        gateway = self.make(
            "aws:ec2/internetGateway:InternetGateway", vpcId=self.make("aws:ec2/vpc:Vpc", cidrBlock="10.1.0.0/16")
        )
        group = self.make("aws:ec2/securityGroup:SecurityGroup", name="other", description="x", vpcId=vpc)
        balancer = {"name": "lb", "subnets": [first, second], "loadBalancerType": "application"}
        arn = self.make("aws:lb/loadBalancer:LoadBalancer", **{**balancer, "name": "other"})
        fixed = {"type": "fixed-response", "fixedResponse": {"contentType": "text/plain", "statusCode": "404"}}
        listener = self.make(
            "aws:lb/listener:Listener", loadBalancerArn=arn, port=81, protocol="HTTP", defaultActions=[fixed]
        )
        zone = self.make("aws:route53/zone:Zone", name="shop.example.com")
        address = self.make("aws:ec2/eip:Eip", domain="vpc")
        inward = {"securityGroupId": group, "ipProtocol": "tcp", "fromPort": 80, "toPort": 80, "cidrIpv4": "0.0.0.0/0"}
        return [
            (
                "aws:budgets/budget:Budget",
                {
                    "name": "shopcat-monthly",
                    "budgetType": "COST",
                    "timeUnit": "MONTHLY",
                    "limitAmount": "300",
                    "limitUnit": "USD",
                },
            ),
            ("aws:cloudwatch/logGroup:LogGroup", {"name": "/aws/eks/shopcat/cluster"}),
            (
                "aws:dynamodb/table:Table",
                {
                    "name": "t",
                    "billingMode": "PAY_PER_REQUEST",
                    "hashKey": "k",
                    "attributes": [{"name": "k", "type": "S"}],
                },
            ),
            ("aws:ec2/internetGateway:InternetGateway", {"vpcId": vpc}),
            ("aws:ec2/natGateway:NatGateway", {"subnetId": first, "allocationId": address}),
            ("aws:ec2/route:Route", {"routeTableId": table, "destinationCidrBlock": "0.0.0.0/0", "gatewayId": gateway}),
            ("aws:ec2/routeTableAssociation:RouteTableAssociation", {"routeTableId": table, "subnetId": first}),
            ("aws:ec2/securityGroup:SecurityGroup", {"name": "g", "description": "x", "vpcId": vpc}),
            ("aws:ec2/subnet:Subnet", {"vpcId": vpc, "cidrBlock": "10.0.32.0/20", "availabilityZone": f"{REGION}a"}),
            (
                "aws:ec2/vpcEndpoint:VpcEndpoint",
                {"vpcId": vpc, "serviceName": f"com.amazonaws.{REGION}.s3", "vpcEndpointType": "Gateway"},
            ),
            ("aws:ecr/repository:Repository", {"name": "shopcat"}),
            (
                "aws:eks/cluster:Cluster",
                {"name": "c", "roleArn": "arn:aws:iam::123456789012:role/r", "vpcConfig": {"subnetIds": [first]}},
            ),
            (
                "aws:eks/nodeGroup:NodeGroup",
                {
                    "clusterName": "c",
                    "nodeGroupName": "nodes-0123456",
                    "nodeRoleArn": "arn:aws:iam::123456789012:role/r",
                    "subnetIds": [first],
                    "scalingConfig": {"minSize": 2, "maxSize": 2, "desiredSize": 2},
                },
            ),
            ("aws:iam/role:Role", {"name": "shopcat-release", **role}),
            (
                "aws:lb/listener:Listener",
                {"loadBalancerArn": arn, "port": 80, "protocol": "HTTP", "defaultActions": [fixed]},
            ),
            (
                "aws:lb/listenerRule:ListenerRule",
                {
                    "listenerArn": listener,
                    "priority": 100,
                    "actions": [fixed],
                    "conditions": [{"pathPattern": {"values": ["/*"]}}],
                },
            ),
            ("aws:lb/loadBalancer:LoadBalancer", balancer),
            (
                "aws:lb/targetGroup:TargetGroup",
                {"name": "shopcat-blue", "port": 1, "protocol": "HTTP", "vpcId": vpc, "targetType": "ip"},
            ),
            (
                "aws:rds/parameterGroup:ParameterGroup",
                {"name": "shopcat-postgres16", "family": "postgres16", "description": "x"},
            ),
            ("aws:rds/subnetGroup:SubnetGroup", {"name": "shopcat", "description": "x", "subnetIds": [first, second]}),
            (
                "aws:rds/instance:Instance",
                {
                    "identifier": "shopcat",
                    "engine": "postgres",
                    "instanceClass": "db.t4g.micro",
                    "allocatedStorage": 20,
                    "username": "a",
                    "manageMasterUserPassword": True,
                },
            ),
            (
                "aws:route53/record:Record",
                {
                    "zoneId": zone,
                    "name": "*.preview.shop.example.com",
                    "type": "A",
                    "ttl": 60,
                    "records": ["192.0.2.1"],
                },
            ),
            ("aws:secretsmanager/secret:Secret", {"name": "shopcat/application"}),
            ("aws:ssm/parameter:Parameter", {"name": "/shopcat/contract", "type": "String", "value": "x"}),
            ("aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule", inward),
            ("aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule", inward),
        ]


@pytest.fixture
def account(mocked_aws: None) -> Account:
    return Account()


IMPORTED_OTHERWISE = {
    "aws:ec2/route:Route": r"rtb-\w+_0\.0\.0\.0/0",
    "aws:ec2/routeTableAssociation:RouteTableAssociation": r"subnet-\w+/rtb-\w+",
    "aws:rds/instance:Instance": "shopcat",
}
"""Types whose import id is not their id in the state."""


def test_what_is_there_is_found_and_what_is_not_there_is_not(account: Account) -> None:
    cases = account.cases()
    for kind, inputs in cases:
        assert account.find(kind, **inputs) is None, kind
        made = account.make(kind, **inputs)
        found = account.find(kind, **inputs)
        assert found is not None, kind
        if kind in IMPORTED_OTHERWISE:
            assert re.fullmatch(IMPORTED_OTHERWISE[kind], found), kind
        else:
            assert found == made, kind
        imported = imports.inputs(account.aws, kind, found)
        assert imported is not None, kind
        assert imports.state_id(account.aws, kind, found) == made, kind
        assert KINDS[kind].live(account.aws, made, imported) is not None, kind
    not_in_moto = {
        f"aws:eks/{one}"
        for one in ("accessEntry:AccessEntry", "addon:Addon", "podIdentityAssociation:PodIdentityAssociation")
    }
    assert {kind for kind, _ in cases} == set(existing_resources.FINDERS) - not_in_moto


def test_an_imported_pod_identity_has_its_own_id_in_the_state() -> None:
    """moto has none to make."""
    kind = "aws:eks/podIdentityAssociation:PodIdentityAssociation"
    assert imports.state_id(Aws({"region": REGION}), kind, "shopcat,a-1") == "a-1"


@pytest.mark.parametrize("kind", sorted(existing_resources.FINDERS))
def test_every_type_can_be_imported(kind: str) -> None:
    """The published SDK says how; the form of the id is compared by eye and in the test above."""
    module, name = kind.split(":")[1].split("/", maxsplit=1)[0], kind.rpartition(":")[2]
    source = inspect.getsource(getattr(getattr(pulumi_aws, module), name))
    assert f"$ pulumi import {kind} " in source


FREE = {
    # AWS gives them ids of its own choice.
    "acm.Certificate", "ec2.Eip", "ec2.RouteTable", "ec2.Vpc", "kms.Key",
    # The engine adds seven random digits to the name.
    "ec2.LaunchTemplate",
    # The call that makes them may be repeated.
    "acm.CertificateValidation", "ecr.LifecyclePolicy", "eks.AccessPolicyAssociation", "iam.RolePolicy",
    "iam.RolePolicyAttachment", "cloudwatch.Dashboard", "cloudwatch.LogMetricFilter", "cloudwatch.MetricAlarm",
    "sns.Topic", "sns.TopicPolicy", "sns.TopicSubscription",
}  # fmt: skip
"""Types that production declares in AWS and at which no update stops."""


def test_every_type_that_production_declares_in_aws_is_guarded_or_needs_no_guard() -> None:
    infra = Path(existing_resources.__file__).parents[1]
    others = [infra / "access" / "github_roles.py", infra / "previews" / "cluster_info.py"]
    sources = [path.read_text() for path in [*(infra / "foundation").glob("*.py"), *others]]
    declared = {found for text in sources for found in re.findall(r"\baws\.(\w+\.[A-Z]\w+)\(", text)}
    declared = {one for one in declared if not one.endswith("Args")}
    guarded = {f"{kind.split(':')[1].split('/')[0]}.{kind.rpartition(':')[2]}" for kind in existing_resources.FINDERS}
    assert declared - FREE <= guarded, (
        "a killed update leaves it: how is it found? (infra/foundation/existing_resources.py)"
    )
    assert declared >= FREE
    assert guarded - declared == {"eks.Cluster"}  # which the eks component declares


def test_a_secret_that_waits_for_its_deletion_is_told_with_both_ways_out(account: Account) -> None:
    manager = account.clients.get("secretsmanager")
    manager.create_secret(Name="shopcat/application")
    manager.delete_secret(SecretId="shopcat/application", RecoveryWindowInDays=30)
    with pytest.raises(ShopCatError, match="restore-secret --secret-id shopcat/application") as refused:
        account.find("aws:secretsmanager/secret:Secret", name="shopcat/application")
    assert "--force-delete-without-recovery" in str(refused.value)


def test_what_can_not_be_asked_is_no_answer(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(**_: Any) -> None:
        raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "GetRole")

    monkeypatch.setattr(account.clients.get("iam"), "get_role", denied)
    with pytest.raises(ShopCatError, match="AccessDenied"):
        account.find("aws:iam/role:Role", name="x")


class Cluster:
    """Helm's Secrets in a cluster: status of each revision by name of the release."""

    def __init__(self, **statuses: list[str]) -> None:
        self.statuses = statuses

    def get(self, path: str, *, labelSelector: str) -> Any:  # noqa: N803 - Kubernetes' own name
        namespace, name = path.split("/")[4], labelSelector.split(",")[1].removeprefix("name=")
        statuses = self.statuses.get(name, []) if namespace == "kube-system" else []
        return helm_secrets(name, statuses, without="superseded" if "status!=superseded" in labelSelector else "")


def chart(name: str) -> Any:
    inputs = {"name": name, "namespace": "kube-system"}
    return SimpleNamespace(type=existing_resources.HELM_RELEASE, name=name, urn="", new_inputs=inputs)


@pytest.fixture(autouse=True)
def empty_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(existing_resources, "read_owners", lambda _: {})


def test_a_chart_that_is_installed_is_told_with_its_import(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(existing_resources, "QUIET_SECONDS", 0.01)
    cluster = Cluster(
        there=["superseded", "deployed"], broken=["failed"], half=["pending-install"], cut=["deployed", "pending-upgrade"],
        leaving=["superseded", "uninstalling"], left=["uninstalled"],
    )  # fmt: skip
    guard = existing_resources.ImportGuard(account.clients, lambda: cluster, "prod", "shopcat")  # type: ignore[arg-type, return-value]
    run(guard._before_create(chart("absent")))
    for name in ("there", "broken"):
        with pytest.raises(ShopCatError) as refused:
            run(guard._before_create(chart(name)))
        provider = "urn:pulumi:prod::shopcat::pulumi:providers:kubernetes::kubernetes"
        assert f"--provider=provider={provider} kubernetes:helm.sh/v3:Release {name} kube-system/{name}" in str(
            refused.value
        )
    for name, command in (
        ("half", "helm uninstall half --namespace kube-system"),
        ("cut", "helm rollback cut 1 --namespace kube-system"),
        ("leaving", "helm rollback leaving 2 --namespace kube-system"),
        ("left", "helm uninstall left --namespace kube-system"),
    ):
        with pytest.raises(ShopCatError, match=command):
            run(guard._before_create(chart(name)))


def asked(name: str) -> Any:
    kind = "aws:ecr/repository:Repository"
    return SimpleNamespace(
        type=kind, name=name, urn=f"urn:pulumi:prod::shopcat::{kind}::{name}", new_inputs={"name": name}
    )


@pytest.mark.parametrize(
    ("delays", "messages"),
    [
        ((0, 0, 0), 1),
        ((0, 0.2, 0.4), 1),  # each is asked about while the one before it still waits
        ((0, 0, 1.5), 2),  # after the first message: one of its own
    ],
)
def test_each_thing_found_is_named_once_and_in_as_few_messages_as_can_be(
    account: Account, monkeypatch: pytest.MonkeyPatch, delays: tuple[float, ...], messages: int
) -> None:
    monkeypatch.setattr(existing_resources, "QUIET_SECONDS", 0.5)
    names = [f"shopcat-{number}" for number in range(len(delays))]
    for name in names:
        account.clients.get("ecr").create_repository(repositoryName=name)
    guard = existing_resources.ImportGuard(account.clients, Cluster, "prod", "shopcat")
    kind = "aws:ecr/repository:Repository"

    async def ask(name: str, delay: float) -> None:
        await asyncio.sleep(delay)
        await guard._before_create(asked(name))

    said: list[str] = []

    async def ask_all() -> None:
        answers = [*map(ask, names, delays), ask("not-there", 0)]
        found = await asyncio.gather(*answers, return_exceptions=True)
        assert [one is None for one in found] == [False] * len(names) + [True]
        said.extend(str(one) for one in found if one)

    run(ask_all())
    provider = "urn:pulumi:prod::shopcat::pulumi:providers:aws::aws"
    for name in names:
        flags = f"--stack prod --yes --protect=false --generate-code=false --provider=provider={provider}"
        assert "\n".join(said).count(f"  pulumi import {flags} {kind} {name} {name}") == 1
    assert sum("pulumi import" in one for one in said) == messages
    assert all("pulumi import" in one or "in the message of another resource" in one for one in said)


def test_what_another_name_of_the_state_owns_is_not_imported(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(existing_resources, "QUIET_SECONDS", 0.01)
    account.clients.get("ecr").create_repository(repositoryName="shop")
    own = asked("shop").urn
    former = own.removesuffix("shop") + "former"
    other_type = "urn:pulumi:prod::shopcat::aws:ssm/parameter:Parameter::shop"

    def refusal(owners: dict[str, str]) -> str:
        monkeypatch.setattr(existing_resources, "read_owners", lambda _: owners)
        guard = existing_resources.ImportGuard(account.clients, Cluster, "prod", "shopcat")
        with pytest.raises(ShopCatError) as refused:
            run(guard._before_create(asked("shop")))
        return str(refused.value)

    assert "\n  pulumi import " in refusal({})
    assert "\n  pulumi import " in refusal({other_type: "shop", former: "y"})
    said = refusal({former: "shop"})
    assert f"as {former}, and one thing can't have two names" in said
    assert "pulumi import" not in said
    # A replacement that was cut off: an import into a URN that is there would be refused by the engine.
    assert f"\n  pulumi state delete --stack prod --yes {own} && pulumi import " in refusal({own: "former-id"})


def test_a_record_is_overwritten_unless_the_state_has_it_under_another_name(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = "aws:route53/record:Record"
    zone = account.make("aws:route53/zone:Zone", name="shop.example.com")
    inputs = {
        "zoneId": zone,
        "name": "_1.shop.example.com",
        "type": "CNAME",
        "records": ["_2."],
        "allowOverwrite": True,
    }
    identifier = account.make(kind, **inputs)
    urn = f"urn:pulumi:prod::shopcat::{kind}::shopcat-validation@shop.example.com"
    question: Any = SimpleNamespace(type=kind, name="x", urn=urn, new_inputs=inputs)
    former = urn.partition("@")[0]
    for owners, is_refused in (
        ({}, False),
        ({urn: identifier}, False),
        ({former: "y"}, False),
        ({former: identifier}, True),
    ):
        monkeypatch.setattr(existing_resources, "read_owners", lambda _, owners=owners: owners)
        guard = existing_resources.ImportGuard(account.clients, Cluster, "prod", "shopcat")
        if is_refused:
            with pytest.raises(ShopCatError, match="can't have two names"):
                run(guard._before_create(question))
        else:
            run(guard._before_create(question))


@pytest.mark.parametrize(
    ("script", "owners"),
    [
        ('echo \'{"deployment": {"resources": [{"urn": "a", "id": "1"}, {"urn": "b"}]}}\'', {"a": "1", "b": ""}),
        ("echo '{\"deployment\": null}'", {}),
        ("exit 1", {}),
    ],
)
def test_the_state_is_read_by_pulumis_own_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, owners: dict[str, str]
) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert existing_resources.read_owners("prod") == {}
    (tmp_path / "pulumi").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "pulumi").chmod(0o755)
    assert existing_resources.read_owners("prod") == owners
