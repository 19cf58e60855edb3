"""`pulumi import` of a database that is there, by the stand-in: what fits changes nothing, what does not is named."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import boto3
import pytest
from moto import mock_aws

from infra import settings
from infra.commands.takeover.declared import record_declared
from tests.unit.test_settings import committed
from twin.plugins.aws.provider import AwsProvider
from twin.plugins.common import Properties, decode, encode

KIND = "aws:rds/instance:Instance"
REGION = "eu-central-1"
SECRET = f"arn:aws:secretsmanager:{REGION}:123456789012:secret:shopcat/master-AbCdEf"
SETTINGS: dict[str, Any] = {
    "engineVersion": "15.8",
    "instanceClass": "db.t3.small",
    "storageGibibytes": 500,
    "maxStorageGibibytes": 0,
    "storageType": "io1",
    "iops": 4000,
    "encrypted": True,
    "kmsKeyArn": "",
    "backupRetentionDays": 0,
    "identifier": "shop-db",
    "dbName": "shop",
    "username": "shop",
    "parameterGroup": "shop-pg15",
    "subnetGroup": "shop",
    "masterSecret": SECRET,
}


@cache
def recorded() -> Properties:
    """What the program declares of the instance, as the engine hands it over."""
    chosen = settings.read_settings(committed(database={**committed()["database"], **SETTINGS}))
    (each,) = [each for each in record_declared(chosen, REGION, "123456789012") if each.pulumi_type == KIND]
    inputs: Properties = decode(encode(each.inputs))
    return inputs


class There:
    """A database that Terraform has made, and this program's declaration of it."""

    def __init__(self) -> None:
        ec2, self.rds = self._client("ec2"), self._client("rds")
        vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/20")["Subnet"]["SubnetId"]
        self.group = ec2.create_security_group(GroupName="shop-database", Description="x", VpcId=vpc)["GroupId"]
        self.key = self._client("kms").create_key()["KeyMetadata"]["Arn"]
        self.rds.create_db_subnet_group(DBSubnetGroupName="shop", DBSubnetGroupDescription="x", SubnetIds=[subnet])
        self.rds.create_db_parameter_group(
            DBParameterGroupName="shop-pg15", DBParameterGroupFamily="postgres15", Description="x"
        )
        self.rds.create_db_instance(
            DBInstanceIdentifier="shop-db", Engine="postgres", EngineVersion="15.8", DBInstanceClass="db.t3.small",
            AllocatedStorage=500, StorageType="io1", Iops=4000, StorageEncrypted=True, KmsKeyId=self.key, DBName="shop",
            MasterUsername="shop", MasterUserPassword="old-password", DBSubnetGroupName="shop",
            DBParameterGroupName="shop-pg15", VpcSecurityGroupIds=[self.group], BackupRetentionPeriod=0,
            PubliclyAccessible=False,
        )  # fmt: skip
        self.provider = AwsProvider()
        self.provider.configure({"region": REGION, "accessKey": "test", "secretKey": "test"})

    @staticmethod
    def _client(service: str) -> Any:
        make: Any = boto3.client
        return make(service, region_name=REGION, aws_access_key_id="test", aws_secret_access_key="test")

    def imported(self) -> tuple[str, Properties, Properties]:
        answer = self.provider.read(KIND, "shop-db", {}, {})
        assert answer is not None
        return answer

    def declared(self, **changes: Any) -> Properties:
        """What the program declares, with the group of the account in place of references; None leaves an argument out."""
        inputs = {**recorded(), "vpcSecurityGroupIds": [self.group], **changes}
        given = {name: value for name, value in inputs.items() if value is not None}
        return self.provider.check(KIND, f"u::v::{KIND}::database", {}, given, b"")

    def change(self, **changes: Any) -> tuple[set[str], set[str]]:
        """What an update after the import would change, and what of it by a new instance."""
        identifier, inputs, outputs = self.imported()
        found = self.provider.difference(KIND, identifier, inputs, outputs, self.declared(**changes))
        return set(found.changed), set(found.replaces)


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> Iterator[There]:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        yield There()


OURS = {
    "applyImmediately", "autoMinorVersionUpgrade", "copyTagsToSnapshot", "deletionProtection", "finalSnapshotIdentifier",
    "maxAllocatedStorage", "skipFinalSnapshot", "tagsAll",
}  # fmt: skip
"""Arguments of this program's own habits: none of them is felt by who uses the database."""


def test_a_database_that_the_settings_describe_is_adopted_as_it_is(there: There) -> None:
    changed, replaced = there.change()
    assert replaced == set()
    assert changed <= OURS


def test_the_key_of_the_storage_may_be_named(there: There) -> None:
    assert there.change(kmsKeyId=there.key)[1] == set()
    other = there.key[:-12] + "0123456789ab"
    assert there.change(kmsKeyId=other)[1] == {"kmsKeyId"}


@pytest.mark.parametrize(
    ("changes", "replaced"),
    [
        ({"identifier": "shopcat"}, "identifier"),
        ({"dbName": "shopcat"}, "dbName"),
        ({"username": "shopcat_admin"}, "username"),
        ({"storageEncrypted": False}, "storageEncrypted"),
    ],
)
def test_what_does_not_fit_would_replace_it_and_is_named(there: There, changes: dict[str, Any], replaced: str) -> None:
    assert there.change(**changes)[1] == {replaced}


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"storageType": "gp2", "iops": None}, "storageType"),
        ({"engineVersion": "15"}, "engineVersion"),
        ({"instanceClass": "db.t4g.medium"}, "instanceClass"),
        ({"backupRetentionPeriod": 7}, "backupRetentionPeriod"),
        ({"parameterGroupName": "default.postgres15"}, "parameterGroupName"),
        ({"dbSubnetGroupName": "other"}, "dbSubnetGroupName"),
        ({"manageMasterUserPassword": True}, "manageMasterUserPassword"),
    ],
)
def test_what_else_differs_is_changed_in_place_and_is_named(there: There, changes: dict[str, Any], name: str) -> None:
    changed, replaced = there.change(**changes)
    assert name in changed
    assert replaced == set()


def test_an_update_keeps_password_storage_and_key_and_the_last_step_gives_the_password_to_rds(there: There) -> None:
    identifier, inputs, outputs = there.imported()
    declared = there.declared()
    outputs = there.provider.update(KIND, identifier, inputs, outputs, declared, 60)
    (instance,) = there.rds.describe_db_instances()["DBInstances"]
    assert (instance["StorageType"], instance["Iops"], instance["KmsKeyId"]) == ("io1", 4000, there.key)
    assert instance["DeletionProtection"] is True
    assert "MasterUserSecret" not in instance
    assert not outputs.get("masterUserSecrets")
    last = there.declared(manageMasterUserPassword=True, backupRetentionPeriod=7)
    outputs = there.provider.update(KIND, identifier, declared, outputs, last, 60)
    (instance,) = there.rds.describe_db_instances()["DBInstances"]
    assert outputs["masterUserSecrets"][0]["secretArn"] == instance["MasterUserSecret"]["SecretArn"]
    assert instance["BackupRetentionPeriod"] == 7
    assert instance["StorageType"] == "io1"


def test_signing_in_by_iam_stays_on_only_if_the_settings_say_so(there: There) -> None:
    there.rds.modify_db_instance(DBInstanceIdentifier="shop-db", EnableIAMDatabaseAuthentication=True)
    name = "iamDatabaseAuthenticationEnabled"
    assert name in there.change()[0]
    assert name not in there.change(iamDatabaseAuthenticationEnabled=True)[0]
    identifier, inputs, outputs = there.imported()
    there.provider.update(KIND, identifier, inputs, outputs, there.declared(), 60)
    assert there.rds.describe_db_instances()["DBInstances"][0]["IAMDatabaseAuthenticationEnabled"] is False
