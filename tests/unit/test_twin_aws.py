"""Corrections of the twin to moto."""

from __future__ import annotations

import boto3
from moto import mock_aws

from twin.aws import route53


@mock_aws
def test_a_record_that_was_deleted_can_be_made_again() -> None:
    route53.patch_names()
    client = boto3.client("route53", region_name="eu-central-1", aws_access_key_id="x", aws_secret_access_key="x")
    zone = client.create_hosted_zone(Name="shop.example", CallerReference="1")["HostedZone"]["Id"]
    record = {"Name": "www.shop.example", "Type": "CNAME", "TTL": 60, "ResourceRecords": [{"Value": "a.example"}]}
    for action in ("CREATE", "DELETE", "CREATE"):
        changes = {"Changes": [{"Action": action, "ResourceRecordSet": record}]}
        client.change_resource_record_sets(HostedZoneId=zone, ChangeBatch=changes)
    names = [one["Name"] for one in client.list_resource_record_sets(HostedZoneId=zone)["ResourceRecordSets"]]
    assert "www.shop.example." in names
