"""Reads of a takeover plan: values of AWS stand before those of the state, nothing is written, and a failed read is reported."""

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from moto import mock_aws

from infra.clients.aws import AwsClients
from infra.commands import takeover_plan
from infra.commands.takeover import live
from infra.commands.takeover.state import Owned
from infra.errors import AwsError
from tests.unit.test_takeover_plan import FOLDER, PLAIN

REGION = "eu-central-1"


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> Iterator[AwsClients]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    with mock_aws():
        yield AwsClients(REGION)


def _owned(type_name: str, **attributes: Any) -> Owned:
    return Owned(f"{type_name}.x", type_name, "", attributes)


def test_every_reader_takes_aws_s_own_values(clients: AwsClients) -> None:
    vpc = clients.get("ec2").create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    clients.get("ecr").create_repository(repositoryName="shopcat", imageTagMutability="IMMUTABLE")
    clients.get("eks").create_cluster(
        name="shopcat",
        version="1.33",
        roleArn="arn:aws:iam::123456789012:role/cluster",
        resourcesVpcConfig={"subnetIds": []},
    )
    clients.get("rds").create_db_instance(
        DBInstanceIdentifier="shopcat",
        Engine="postgres",
        DBInstanceClass="db.t4g.small",
        MasterUsername="shopcat",
        MasterUserPassword="long-password",
        AllocatedStorage=20,
    )
    secret = clients.get("secretsmanager").create_secret(Name="shopcat/application")["ARN"]
    stale = [
        _owned("aws_vpc", id=vpc, cidr_block="10.9.0.0/16"),
        _owned("aws_ecr_repository", name="shopcat", image_tag_mutability="MUTABLE"),
        _owned("aws_eks_cluster", name="shopcat", version="1.29", role_arn="old"),
        _owned("aws_db_instance", identifier="shopcat", instance_class="db.t4g.micro", allocated_storage=20),
        _owned("aws_secretsmanager_secret", arn=secret, name="old"),
    ]
    assert {each.type_name for each in stale} == set(live.READERS)
    reading = live.read_aws(clients, stale)
    assert [(each.attributes.get("cidr_block") or each.attributes.get("version")) for each in reading.owned[:3:2]] == [
        "10.0.0.0/16",
        "1.33",
    ]
    assert reading.owned[1].attributes["image_tag_mutability"] == "IMMUTABLE"
    assert reading.owned[3].attributes["instance_class"] == "db.t4g.small"
    assert reading.notes == {
        "aws_vpc.x": "AWS differs from the state in cidr_block; AWS's values count here",
        "aws_ecr_repository.x": "AWS differs from the state in image_tag_mutability; AWS's values count here",
        "aws_eks_cluster.x": "AWS differs from the state in role_arn, version; AWS's values count here",
        "aws_db_instance.x": "AWS differs from the state in instance_class; AWS's values count here",
        "aws_secretsmanager_secret.x": "AWS differs from the state in name; AWS's values count here",
    }


def test_what_is_gone_is_said(clients: AwsClients) -> None:
    secret = clients.get("secretsmanager").create_secret(Name="shopcat/application")["ARN"]
    clients.get("secretsmanager").delete_secret(SecretId=secret)
    gone = [
        _owned("aws_vpc", id="vpc-0123456789abcdef0"),
        _owned("aws_ecr_repository", name="shopcat"),
        _owned("aws_eks_cluster", name="shopcat"),
        _owned("aws_db_instance", identifier="shopcat"),
        _owned("aws_secretsmanager_secret", arn=secret),
        _owned("aws_db_instance"),
        _owned("aws_eip", id="eipalloc-1"),
    ]
    notes = live.read_aws(clients, gone).notes
    assert set(notes) == {f"{name}.x" for name in live.READERS}
    assert set(notes.values()) == {"AWS has it no more, or is deleting it; the state is old"}


@pytest.mark.parametrize(
    ("error", "note"),
    [
        (
            ClientError({"Error": {"Code": "AccessDenied"}}, "DescribeVpcs"),
            "answered AccessDenied; the values are the state's",
        ),
        (EndpointConnectionError(endpoint_url="https://ec2"), r"can't be reached \(EndpointConnectionError\)"),
        (KeyError("Vpcs"), r"can't be read \(KeyError\)"),
    ],
)
def test_what_can_t_be_read_keeps_the_state_s_values(
    error: Exception, note: str, clients: AwsClients, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: Any) -> Any:
        raise error

    monkeypatch.setattr(clients.get("ec2"), "describe_vpcs", refuse)
    vpc = _owned("aws_vpc", id="vpc-1", cidr_block="10.9.0.0/16")
    reading = live.read_aws(clients, [vpc])
    assert reading.owned == (vpc,)
    (text,) = reading.notes.values()
    assert pytest.raises(ValueError, match=note).matches(ValueError(text))


def test_only_reads_are_sent(clients: AwsClients, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    for service in ("ec2", "ecr", "eks", "rds", "secretsmanager", "sts"):
        client = clients.get(service)
        client.meta.events.register("before-call", lambda model, **_: called.append(model.name))
    clients.identity()
    live.read_aws(clients, PLAIN.owned)
    assert called
    assert all(name.startswith(("Describe", "GetCallerIdentity")) for name in called), called


def test_the_command_asks_aws_and_says_what_it_did_not_ask(
    clients: AwsClients, capsys: pytest.CaptureFixture[str]
) -> None:
    assert takeover_plan.main([str(FOLDER / "plain.tfstate")]) == 1
    out = capsys.readouterr().out
    assert "Helm was not asked: the cluster can't be asked" in out
    assert "AWS was not asked" not in out
    assert "AWS has it no more, or is deleting it; the state is old" in out


def test_without_credentials_the_plan_is_made_from_the_state(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(_: AwsClients) -> tuple[str, str]:
        raise AwsError("AWS credentials: none")

    monkeypatch.setattr(AwsClients, "identity", refuse)
    assert takeover_plan.main([str(FOLDER / "plain.tfstate")]) == 1
    out = capsys.readouterr().out
    assert "AWS was not asked, so all values are the state's: AWS credentials: none" in out
    assert "aws_db_instance.shopcat: username is shopcat" in out


class Cluster:
    def __init__(self, answer: Any) -> None:
        self.answer, self.asked = answer, ("", "")

    def get(self, path: str, **query: str) -> Any:
        self.asked = (path, query["labelSelector"])
        return self.answer


def test_the_deployed_release_of_the_shop_is_asked_for() -> None:
    cluster = Cluster(None)
    assert live.read_helm(cluster).owned == ()  # type: ignore[arg-type]
    assert cluster.asked == ("/api/v1/namespaces/shopcat/secrets", "owner=helm,status=deployed")
