"""The twin's certificates: one that a listener has can't be deleted, as at ACM, until the listener has another."""

from __future__ import annotations

from collections.abc import Iterator

import boto3
import pytest
from botocore.exceptions import ClientError

from tests import moto_classes
from twin.aws.acm import patch_certificates

REGION = "eu-central-1"


@pytest.fixture
def patched(mocked_aws: None) -> Iterator[None]:
    with moto_classes.kept():
        patch_certificates()
        yield


@pytest.mark.usefixtures("patched")
def test_a_certificate_goes_once_its_listener_has_another() -> None:
    certificates, elb, ec2 = (boto3.client(name, region_name=REGION) for name in ("acm", "elbv2", "ec2"))
    old, new = (
        certificates.request_certificate(DomainName=name)["CertificateArn"] for name in ("a.example", "b.example")
    )
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnets = [
        ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.0.{index}.0/24", AvailabilityZone=f"{REGION}{zone}")["Subnet"][
            "SubnetId"
        ]
        for index, zone in enumerate("ab")
    ]
    balancer = elb.create_load_balancer(Name="shopcat", Subnets=subnets)["LoadBalancers"][0]["LoadBalancerArn"]
    listener = elb.create_listener(
        LoadBalancerArn=balancer, Port=443, Protocol="HTTPS", Certificates=[{"CertificateArn": old}],
        DefaultActions=[{"Type": "fixed-response", "FixedResponseConfig": {"StatusCode": "404"}}],
    )["Listeners"][0]["ListenerArn"]  # fmt: skip
    assert certificates.describe_certificate(CertificateArn=old)["Certificate"]["InUseBy"] == [balancer]
    with pytest.raises(ClientError, match="is in use by"):
        certificates.delete_certificate(CertificateArn=old)
    elb.modify_listener(ListenerArn=listener, Certificates=[{"CertificateArn": new}])
    certificates.delete_certificate(CertificateArn=old)
    assert [each["CertificateArn"] for each in certificates.list_certificates()["CertificateSummaryList"]] == [new]
