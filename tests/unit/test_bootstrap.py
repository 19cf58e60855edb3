"""Bootstrap on moto: every property holds after every run, whatever it found."""

import copy
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from moto import mock_aws
from moto.core.responses import EmptyResult
from moto.iam.responses import IamResponse

from infra.access import boundary
from infra.access.iam_policies import AUDIENCE, ISSUER
from infra.clients.aws import AwsClients
from infra.commands import bootstrap as module
from infra.commands.bootstrap import Bootstrap
from infra.commands.policy_statements import normalised, only_tls, with_statement
from infra.errors import ShopCatError
from infra.names import STATE_BACKENDS

REGION = "eu-central-1"
ACCOUNT = "123456789012"
TABLE = "shopcat-releases"
ISSUER_ARN = f"arn:aws:iam::{ACCOUNT}:oidc-provider/{ISSUER}"
BOUNDARY_ARN = boundary.boundary_arn(ACCOUNT)
CLIENTS = AwsClients(REGION)
"""Made once: each costs as much as a whole run on moto."""
READS = ("get_", "list_", "describe_", "head_")


@contextmanager
def account() -> Iterator[AwsClients]:
    """An empty AWS account."""
    with pytest.MonkeyPatch.context() as patch, mock_aws():
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.delenv("AWS_ENDPOINT_URL", raising=False)
        # What moto lacks of OIDC providers.
        patch.setattr(IamResponse, "add_client_id_to_open_id_connect_provider", _change_audiences, raising=False)
        patch.setattr(IamResponse, "remove_client_id_from_open_id_connect_provider", _change_audiences, raising=False)
        yield CLIENTS


def _change_audiences(response: IamResponse) -> EmptyResult:
    provider = response.backend.get_open_id_connect_provider(response._get_param("OpenIDConnectProviderArn"))
    audience = response._get_param("ClientID")
    left = [one for one in provider.client_id_list if one != audience]
    provider.client_id_list = [*left, audience] if response._get_action().startswith("Add") else left
    return EmptyResult()


def bootstrapped(clients: AwsClients) -> Bootstrap:
    return Bootstrap(clients, ACCOUNT, TABLE)


@pytest.fixture
def bootstrap() -> Iterator[Bootstrap]:
    with account() as clients:
        yield bootstrapped(clients)


class Killed(BaseException):
    """The process ends here."""


class Killing(AwsClients):
    """Clients whose n-th writing call is the last thing that happens; the call itself still takes effect."""

    def __init__(self, clients: AwsClients, last: int = 0) -> None:
        super().__init__(REGION)
        self.clients = clients
        self.left = last
        self.calls: list[str] = []

    def get(self, service: str) -> Any:
        return _Counting(self.clients.get(service), self)


class _Counting:
    def __init__(self, client: Any, clients: Killing) -> None:
        self._client, self._clients = client, clients

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        if not callable(found) or name.startswith(READS) or name in ("get_paginator", "get_waiter"):
            return found

        def call(**arguments: Any) -> Any:
            answer = found(**arguments)
            self._clients.calls.append(name)
            self._clients.left -= 1
            if self._clients.left == 0:
                raise Killed
            return answer

        return call


def read_back(clients: AwsClients) -> dict[str, Any]:
    """Everything that bootstrap is responsible for, and whatever else of its kinds is in the account."""
    kms, s3, dynamodb, iam = (clients.get(name) for name in ("kms", "s3", "dynamodb", "iam"))
    aliases = {one["AliasName"]: one.get("TargetKeyId") for one in kms.list_aliases()["Aliases"]}
    names = {key: alias for alias, key in aliases.items() if alias.startswith("alias/shopcat")}
    keys = []
    for one in kms.list_keys()["Keys"]:
        key = one["KeyId"]
        found = kms.describe_key(KeyId=key)["KeyMetadata"]
        keys.append(
            {
                "alias": names.get(key),
                "state": found["KeyState"],
                "description": found["Description"],
                "rotation": kms.get_key_rotation_status(KeyId=key)["KeyRotationEnabled"],
                "policy": statements(kms.get_key_policy(KeyId=key, PolicyName="default")["Policy"]),
            }
        )
    buckets = {}
    for one in s3.list_buckets()["Buckets"]:
        name = one["Name"]
        buckets[name] = {
            "versioning": s3.get_bucket_versioning(Bucket=name).get("Status"),
            "encryption": s3.get_bucket_encryption(Bucket=name)["ServerSideEncryptionConfiguration"],
            "access": s3.get_public_access_block(Bucket=name)["PublicAccessBlockConfiguration"],
            "policy": statements(s3.get_bucket_policy(Bucket=name)["Policy"]),
        }
    tables = {}
    for name in dynamodb.list_tables()["TableNames"]:
        table = dynamodb.describe_table(TableName=name)["Table"]
        backups = dynamodb.describe_continuous_backups(TableName=name)["ContinuousBackupsDescription"]
        tables[name] = {
            "key": table["KeySchema"],
            "protected": table["DeletionProtectionEnabled"],
            "billing": table["BillingModeSummary"]["BillingMode"],
            "recovery": backups["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"],
            "items": dynamodb.scan(TableName=name)["Items"],
        }
    issuers = {
        one["Arn"]: sorted(iam.get_open_id_connect_provider(OpenIDConnectProviderArn=one["Arn"])["ClientIDList"])
        for one in iam.list_open_id_connect_providers()["OpenIDConnectProviderList"]
    }
    policies = {}
    for one in iam.list_policies(Scope="Local")["Policies"]:
        version = iam.get_policy_version(PolicyArn=one["Arn"], VersionId=one["DefaultVersionId"])["PolicyVersion"]
        policies[one["Arn"]] = statements(json.dumps(version["Document"]))
    return {
        "keys": sorted(keys, key=json.dumps),
        "buckets": buckets,
        "tables": tables,
        "issuers": issuers,
        "policies": policies,
    }


def statements(policy: str) -> list[str]:
    return sorted(json.dumps(normalised(one), sort_keys=True) for one in json.loads(policy)["Statement"])


def uninterrupted() -> tuple[dict[str, Any], list[str]]:
    """The end state of one whole run, and the writing calls that it made."""
    with account() as clients:
        counting = Killing(clients)
        bootstrapped(counting).run(lambda _: None)
        return read_back(clients), counting.calls


EXPECTED, WRITES = uninterrupted()


def test_a_whole_run_makes_every_property() -> None:
    for key in EXPECTED["keys"]:
        assert (key["state"], key["rotation"]) == ("Enabled", True)
        assert any(f"{ACCOUNT}:root" in one and "kms:*" in one for one in key["policy"])
    assert [key["alias"] for key in EXPECTED["keys"]] == ["alias/shopcat-state-previews", "alias/shopcat-state-prod"]
    assert len(EXPECTED["buckets"]) == len(STATE_BACKENDS)
    for name, bucket in EXPECTED["buckets"].items():
        assert bucket["versioning"] == "Enabled"
        (rule,) = bucket["encryption"]["Rules"]
        assert rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "aws:kms"
        assert "alias/shopcat-state-" in rule["ApplyServerSideEncryptionByDefault"]["KMSMasterKeyID"]
        assert list(bucket["access"].values()) == [True] * 4
        (denied,) = bucket["policy"]
        assert name in denied
        assert "aws:SecureTransport" in denied
    (table,) = EXPECTED["tables"].values()
    assert (table["protected"], table["recovery"], len(table["items"])) == (True, "ENABLED", 1)
    assert EXPECTED["issuers"] == {ISSUER_ARN: [AUDIENCE]}
    assert set(EXPECTED["policies"]) == {BOUNDARY_ARN, boundary.boundary_arn(ACCOUNT, boundary.EKS_BOUNDARY_NAME)}


@pytest.mark.parametrize("last", range(1, len(WRITES) + 1), ids=[f"{n}-{call}" for n, call in enumerate(WRITES, 1)])
def test_a_run_killed_after_any_write_is_finished_by_the_next(last: int) -> None:
    with account() as clients:
        with pytest.raises(Killed):
            bootstrapped(Killing(clients, last)).run(lambda _: None)
        said: list[str] = []
        changes = bootstrapped(clients).run(said.append)
        assert read_back(clients) == EXPECTED
        assert sum(len(line.split(": ", 2)[2].split(", ")) for line in said if line.startswith("set: ")) == changes
        again: list[str] = []
        assert bootstrapped(clients).run(again.append) == 0
        assert all(line.startswith("as it should be: ") for line in again)


def _bucket(clients: AwsClients) -> str:
    return bootstrapped(clients).bucket("prod")


def _key(clients: AwsClients) -> str:
    aliases = clients.get("kms").list_aliases()["Aliases"]
    return str(next(one["TargetKeyId"] for one in aliases if one["AliasName"] == "alias/shopcat-state-prod"))


def _policy_of_another(clients: AwsClients) -> None:
    allow = {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:role/x"}, "Action": "kms:Decrypt"}
    text = json.dumps({"Version": "2012-10-17", "Statement": [{**allow, "Resource": "*"}]})
    clients.get("kms").put_key_policy(KeyId=_key(clients), PolicyName="default", Policy=text)


def _widen_boundary(clients: AwsClients) -> None:
    statement = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    text = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    clients.get("iam").create_policy_version(PolicyArn=BOUNDARY_ARN, PolicyDocument=text, SetAsDefault=True)


def _delete_boundary(clients: AwsClients) -> None:
    iam = clients.get("iam")
    for version in iam.list_policy_versions(PolicyArn=BOUNDARY_ARN)["Versions"]:
        if not version["IsDefaultVersion"]:
            iam.delete_policy_version(PolicyArn=BOUNDARY_ARN, VersionId=version["VersionId"])
    iam.delete_policy(PolicyArn=BOUNDARY_ARN)


DAMAGE: dict[str, tuple[str, Callable[[AwsClients], Any]]] = {
    "rotation": ("yearly rotation", lambda c: c.get("kms").disable_key_rotation(KeyId=_key(c))),
    "key disabled": ("enabled", lambda c: c.get("kms").disable_key(KeyId=_key(c))),
    "key to be deleted": ("enabled", lambda c: c.get("kms").schedule_key_deletion(KeyId=_key(c))),
    "key policy": ("IAM of this account decides", _policy_of_another),
    "alias": ("made", lambda c: c.get("kms").delete_alias(AliasName="alias/shopcat-state-prod")),
    "versioning": (
        "versioning",
        lambda c: c.get("s3").put_bucket_versioning(Bucket=_bucket(c), VersioningConfiguration={"Status": "Suspended"}),
    ),
    "no encryption": ("encryption by its key", lambda c: c.get("s3").delete_bucket_encryption(Bucket=_bucket(c))),
    "another encryption": (
        "encryption by its key",
        lambda c: c.get("s3").put_bucket_encryption(
            Bucket=_bucket(c),
            ServerSideEncryptionConfiguration={
                "Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}, "BucketKeyEnabled": True}]
            },
        ),
    ),
    "no access block": ("no public access", lambda c: c.get("s3").delete_public_access_block(Bucket=_bucket(c))),
    "half an access block": (
        "no public access",
        lambda c: c.get("s3").put_public_access_block(
            Bucket=_bucket(c), PublicAccessBlockConfiguration={**module.BLOCK_PUBLIC_ACCESS, "BlockPublicPolicy": False}
        ),
    ),
    "no bucket policy": ("HTTPS only", lambda c: c.get("s3").delete_bucket_policy(Bucket=_bucket(c))),
    "deletion protection": (
        "deletion protection",
        lambda c: c.get("dynamodb").update_table(TableName=TABLE, DeletionProtectionEnabled=False),
    ),
    "recovery": (
        "point-in-time recovery",
        lambda c: c.get("dynamodb").update_continuous_backups(
            TableName=TABLE, PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": False}
        ),
    ),
    "head": (
        "an empty ledger",
        lambda c: c.get("dynamodb").delete_item(TableName=TABLE, Key={"pk": {"S": "head"}}),
    ),
    "audience": (
        f"audience {AUDIENCE}",
        lambda c: c.get("iam").remove_client_id_from_open_id_connect_provider(
            OpenIDConnectProviderArn=ISSUER_ARN, ClientID=AUDIENCE
        ),
    ),
    "boundary widened": ("what roles may do at most", _widen_boundary),
    "boundary deleted": ("made", _delete_boundary),
    "issuer": (
        "made",
        lambda c: c.get("iam").delete_open_id_connect_provider(OpenIDConnectProviderArn=ISSUER_ARN),
    ),
}
"""Kind of damage → the property that has to be set again, and the call that does the damage."""

ALONE = (
    {"alias", "key disabled", "key to be deleted", "rotation", "key policy"},
    {"audience", "issuer"},
    {"boundary widened", "boundary deleted"},
)
"""Kinds of which one is made at a time: the second call would meet what the first left."""


@pytest.mark.parametrize("kind", DAMAGE)
def test_each_property_that_was_lost_is_set_again_and_named(kind: str) -> None:
    name, damage = DAMAGE[kind]
    with account() as clients:
        bootstrapped(clients).run(lambda _: None)
        damage(clients)
        damaged = read_back_or_nothing(clients)
        assert damaged != EXPECTED
        said: list[str] = []
        assert bootstrapped(clients).run(said.append) == 1
        (line,) = [one for one in said if one.startswith("set: ")]
        assert name in line
        if kind != "key policy":  # whom somebody else let in stays in
            assert read_back(clients) == EXPECTED
        assert bootstrapped(clients).run(lambda _: None) == 0


def test_a_boundary_that_was_changed_often_still_has_room_for_a_version(bootstrap: Bootstrap) -> None:
    """IAM keeps five versions of a policy."""
    bootstrap.run(lambda _: None)
    for _ in range(2):
        _widen_boundary(CLIENTS)
        assert bootstrap.run(lambda _: None) == 1
    iam = CLIENTS.get("iam")
    assert len(iam.list_policy_versions(PolicyArn=BOUNDARY_ARN)["Versions"]) == 5
    iam.set_default_policy_version(PolicyArn=BOUNDARY_ARN, VersionId="v2")
    assert bootstrap.run(lambda _: None) == 1
    assert read_back(CLIENTS) == EXPECTED


def read_back_or_nothing(clients: AwsClients) -> dict[str, Any] | None:
    try:
        return read_back(clients)
    except ClientError:
        return None


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sets(st.sampled_from(sorted(DAMAGE)), min_size=2), st.integers(min_value=1, max_value=12))
def test_any_damage_is_mended_even_if_the_mending_is_killed(kinds: set[str], last: int) -> None:
    chosen = [kind for kind in sorted(kinds) if not any(kind in group and kinds & group - {kind} for group in ALONE)]
    with account() as clients:
        bootstrapped(clients).run(lambda _: None)
        for kind in chosen:
            DAMAGE[kind][1](clients)
        try:
            bootstrapped(Killing(clients, last)).run(lambda _: None)
        except Killed:
            bootstrapped(clients).run(lambda _: None)
        found = read_back(clients)
        expected = copy.deepcopy(EXPECTED)
        if "key policy" in chosen:
            expected["keys"] = found["keys"]
        assert found == expected


def test_what_others_added_stays(bootstrap: Bootstrap) -> None:
    bootstrap.run(lambda _: None)
    clients, name = CLIENTS, bootstrap.bucket("prod")
    read = {
        "Sid": "Auditor",
        "Effect": "Allow",
        "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:role/auditor"},
        "Action": "s3:GetObject",
        "Resource": f"arn:aws:s3:::{name}/*",
    }
    s3 = clients.get("s3")
    s3.put_bucket_policy(Bucket=name, Policy=json.dumps({"Version": "2012-10-17", "Statement": read}))
    clients.get("iam").add_client_id_to_open_id_connect_provider(
        OpenIDConnectProviderArn=ISSUER_ARN, ClientID="sts.example.com"
    )
    assert bootstrap.run(lambda _: None) == 1
    found = json.loads(s3.get_bucket_policy(Bucket=name)["Policy"])["Statement"]
    assert found == [read, only_tls(name)]
    audiences = clients.get("iam").get_open_id_connect_provider(OpenIDConnectProviderArn=ISSUER_ARN)["ClientIDList"]
    assert sorted(audiences) == ["sts.amazonaws.com", "sts.example.com"]


@pytest.mark.parametrize("sid", [{}, {"Sid": "x"}])
@pytest.mark.parametrize("principal", ["*", {"AWS": "*"}, {"AWS": ["*"]}])
@pytest.mark.parametrize("action", ["s3:*", ["s3:*"]])
@pytest.mark.parametrize("value", ["false", False, ["false"]])
def test_a_statement_written_otherwise_is_the_same(
    sid: dict[str, str], principal: Any, action: Any, value: Any
) -> None:
    wanted = only_tls("bucket")
    written = {
        **sid,
        **wanted,
        "Principal": principal,
        "Action": action,
        "Resource": wanted["Resource"][::-1],
        "Condition": {"Bool": {"aws:SecureTransport": value}},
    }
    assert with_statement(json.dumps({"Statement": written}), wanted) is None
    for change in ({"Effect": "Allow"}, {"Resource": wanted["Resource"][0]}, {"Condition": {}}, {"Action": "s3:Get*"}):
        assert with_statement(json.dumps({"Statement": {**written, **change}}), wanted) is not None


def test_a_bucket_of_another_account_is_refused(bootstrap: Bootstrap, monkeypatch: pytest.MonkeyPatch) -> None:
    forbidden = ClientError({"Error": {"Code": "403", "Message": "Forbidden"}}, "HeadBucket")

    def head_bucket(**_: Any) -> None:
        raise forbidden

    s3 = bootstrap._clients.get("s3")
    monkeypatch.setattr(s3, "head_bucket", head_bucket)
    with pytest.raises(ShopCatError, match=r"shopcat-state-prod-123456789012-eu-central-1.*another account"):
        bootstrap.run(lambda _: None)


def test_a_key_that_nobody_may_look_at_is_somebody_elses(bootstrap: Bootstrap, monkeypatch: pytest.MonkeyPatch) -> None:
    kms = bootstrap._clients.get("kms")
    locked = kms.create_key(Description="Pulumi state and secrets of ShopCat, prod")["KeyMetadata"]["KeyId"]
    describe = kms.describe_key

    def describe_key(**given: Any) -> Any:
        if given["KeyId"] == locked:
            raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no"}}, "DescribeKey")
        return describe(**given)

    monkeypatch.setattr(kms, "describe_key", describe_key)
    bootstrap.run(lambda _: None)
    assert bootstrap._key_id("prod") not in ("", locked)


def test_an_alias_of_a_key_that_can_not_encrypt_is_refused(bootstrap: Bootstrap) -> None:
    kms = CLIENTS.get("kms")
    key = kms.create_key(KeySpec="RSA_2048", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["KeyId"]
    kms.create_alias(AliasName="alias/shopcat-state-prod", TargetKeyId=key)
    with pytest.raises(ShopCatError, match=rf"{key}, which is RSA_2048.*delete-alias"):
        bootstrap.run(lambda _: None)


def test_a_table_of_another_shape_is_refused(bootstrap: Bootstrap) -> None:
    CLIENTS.get("dynamodb").create_table(
        TableName=TABLE,
        AttributeDefinitions=[{"AttributeName": "other", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "other", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
    )
    with pytest.raises(ShopCatError, match=r"shopcat-releases is none of this program's.*shopcat:ledgerTable"):
        bootstrap.run(lambda _: None)


def test_a_ledger_that_lost_its_head_is_not_called_empty(bootstrap: Bootstrap) -> None:
    bootstrap.run(lambda _: None)
    dynamodb = CLIENTS.get("dynamodb")
    dynamodb.put_item(TableName=TABLE, Item={"pk": {"S": "release#v1.0.0#1"}})
    assert bootstrap.run(lambda _: None) == 0
    dynamodb.delete_item(TableName=TABLE, Key={"pk": {"S": "head"}})
    with pytest.raises(ShopCatError, match=r"holds releases and not what is live; restore it"):
        bootstrap.run(lambda _: None)
    assert "Item" not in dynamodb.get_item(TableName=TABLE, Key={"pk": {"S": "head"}})


class Unavailable:
    """DynamoDB that refuses recovery so many times before it takes it."""

    def __init__(self, refusals: int, code: str = "ContinuousBackupsUnavailableException") -> None:
        self.asked = 0
        self._refusals = refusals
        self._code = code

    def update_continuous_backups(self, **_: Any) -> None:
        self.asked += 1
        if self.asked <= self._refusals:
            raise ClientError({"Error": {"Code": self._code, "Message": "not yet"}}, "UpdateContinuousBackups")


def test_a_new_table_that_takes_no_recovery_yet_is_asked_again(
    bootstrap: Bootstrap, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(module.time, "sleep", pauses.append)
    ready = Unavailable(3)
    bootstrap._enable_recovery(ready)
    assert ready.asked == 4
    assert len(pauses) == 3

    pauses.clear()
    with pytest.raises(ShopCatError, match=r"shopcat-releases .* run `make bootstrap` again"):
        bootstrap._enable_recovery(Unavailable(1000))
    assert sum(pauses) == 60

    denied = Unavailable(1000, "AccessDeniedException")
    with pytest.raises(ClientError, match="AccessDenied"):
        bootstrap._enable_recovery(denied)
    assert denied.asked == 1
