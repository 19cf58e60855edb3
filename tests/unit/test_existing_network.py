"""Reads of a cluster that somebody else keeps."""

from typing import Any

import boto3
import pytest

from infra import settings
from infra.clients.aws import AwsClients
from infra.errors import ShopCatError
from infra.foundation import existing_network
from tests.unit.test_settings import committed, existing

REGION = "eu-central-1"


@pytest.fixture
def clients(mocked_aws: None) -> AwsClients:
    return AwsClients(REGION)


def given(**changes: Any) -> Any:
    return settings.read_settings(committed(cluster=existing(**changes))).cluster.existing


def test_addresses_of_both_load_balancers_are_those_of_their_subnets(clients: AwsClients) -> None:
    ec2 = boto3.client("ec2", region_name=REGION)
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    ids = [ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.0.{number}.0/24")["Subnet"]["SubnetId"] for number in range(4)]
    found = given(vpcId=vpc, publicSubnetIds=ids[:2], previewSubnetIds=ids[2:])
    production, previews = existing_network.load_balancer_cidrs(clients, found)
    assert (production, previews) == (["10.0.0.0/24", "10.0.1.0/24"], ["10.0.2.0/24", "10.0.3.0/24"])
    other = ec2.create_vpc(CidrBlock="10.1.0.0/16")["Vpc"]["VpcId"]
    with pytest.raises(ShopCatError, match=f"{ids[0]}.* not found in {other}"):
        existing_network.load_balancer_cidrs(
            clients, given(vpcId=other, publicSubnetIds=ids[:2], previewSubnetIds=ids[2:])
        )


class Cluster:
    def __init__(self, answer: dict[str, str] | None) -> None:
        self._answer = answer

    def get(self, path: str) -> dict[str, str] | None:
        assert path == "/version"
        return self._answer


@pytest.mark.parametrize(
    ("minor", "taken"),
    [("33", True), ("33+", True), ("35", True), ("32+", False), ("9", False), ("", False), (None, False)],
)
def test_a_cluster_that_drops_policies_before_pods_is_refused(minor: str | None, *, taken: bool) -> None:
    client: Any = Cluster(None if minor is None else {"major": "1", "minor": minor})
    if taken:
        existing_network.refuse_old(client)
    else:
        with pytest.raises(ShopCatError, match=r"1\.33 or later"):
            existing_network.refuse_old(client)
