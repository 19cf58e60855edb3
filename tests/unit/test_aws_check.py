"""Verdicts on an account before the first update; no answer of AWS stops the check itself."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from botocore.parsers import ResponseParserError
from hypothesis import given
from hypothesis import strategies as st
from moto import mock_aws

from infra import settings
from infra.clients.aws import AwsClients, explain
from infra.commands import aws_check, dns_check, offers
from infra.commands.aws_check import Quota, judge_database_zones, judge_name, judge_plan, judge_quota
from infra.commands.findings import FindingState, Row, findings_table, read_rows
from infra.commands.offers import Offer, judge_offer, support, version_order
from infra.errors import UnreachableError
from infra.foundation import crds
from tests.unit.test_settings import committed

REGION = "eu-central-1"
ACCOUNT = "123456789012"
ROOT = Path(__file__).resolve().parents[2]
SETTINGS = settings.read_settings(committed())

# What is decided ------------------------------------------------------------------------------------------------------

versions = st.lists(st.integers(min_value=0, max_value=30), min_size=1, max_size=3).map(
    lambda numbers: ".".join(map(str, numbers))
)


@given(
    limit=st.integers(min_value=0, max_value=64),
    used=st.integers(min_value=0, max_value=64),
    needed=st.integers(min_value=1, max_value=16),
)
def test_a_quota_passes_exactly_if_what_is_needed_fits(limit: int, used: int, needed: int) -> None:
    quota = Quota("vCPUs", "ec2", "L-1216C47A", needed, lambda *_: 0)
    row = judge_quota(quota, float(limit), used, REGION)
    assert (row.state is FindingState.OK) == (used + needed <= limit)
    if row.state is FindingState.CHANGE:
        wanted = re.search(r"--desired-value (\d+)$", row.todo)
        assert wanted
        assert judge_quota(quota, float(wanted[1]), used, REGION).state is FindingState.OK
        assert int(wanted[1]) == used + needed


def test_an_update_of_two_nodes_in_two_zones_needs_twelve_vcpus() -> None:
    assert aws_check.vcpus_of_an_update() == 12


@given(pinned=st.one_of(st.just(""), versions), offered=st.lists(versions, unique=True, max_size=6))
def test_a_pin_passes_exactly_if_it_is_offered_and_the_newest_is_the_greatest(pinned: str, offered: list[str]) -> None:
    offer = Offer("x", "Pulumi.prod.yaml, shopcat:x", pinned, tuple(offered))
    row = judge_offer(offer)
    assert (row.state is FindingState.CHANGE) == (not offered or (pinned != "" and pinned not in offered))
    assert all(version_order(one) <= version_order(offer.newest) for one in offered)
    if row.state is FindingState.CHANGE and offered:
        assert row.todo == f"set Pulumi.prod.yaml, shopcat:x to {offer.newest}"
        assert judge_offer(Offer("x", "", offer.newest, tuple(offered))).state is FindingState.OK
    assert "shopcat:x" in row.finding + row.todo
    if row.state is FindingState.LOOK:
        assert any(version_order(one) > version_order(pinned) for one in offered)
    if row.state is FindingState.OK and pinned:
        assert not any(version_order(one) > version_order(pinned) for one in offered)


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("v1.9.5-eksbuild.2", "v1.10.1-eksbuild.1"),
        ("v1.21.1-eksbuild.7", "v1.21.1-eksbuild.10"),
        ("1.35.7-20260903", "1.35.7-20261001"),
        ("0.20.4", "2.0.0"),
        ("9.6", "16"),
    ],
)
def test_versions_compare_by_their_numbers(older: str, newer: str) -> None:
    assert version_order(older) < version_order(newer)


def known(**statuses: str) -> dict[str, dict[str, Any]]:
    end = datetime(2027, 3, 1, tzinfo=UTC)
    return {
        version.replace("_", "."): {"versionStatus": status, "endOfStandardSupportDate": end}
        for version, status in statuses.items()
    }


@pytest.mark.parametrize(
    ("statuses", "state", "part"),
    [
        ({"_1_35": "STANDARD_SUPPORT"}, FindingState.OK, "standard support until 2027-03-01"),
        ({"_1_35": "STANDARD_SUPPORT", "_1_36": "STANDARD_SUPPORT"}, FindingState.LOOK, "newest: 1.36"),
        ({"_1_35": "EXTENDED_SUPPORT"}, FindingState.LOOK, "0.60 USD an hour"),
        ({"_1_35": "EXTENDED_SUPPORT", "_1_36": "STANDARD_SUPPORT"}, FindingState.LOOK, "0.60 USD an hour"),
        ({"_1_35": "UNSUPPORTED", "_1_37": "STANDARD_SUPPORT"}, FindingState.CHANGE, "1.35 is not offered"),
        ({"_1_37": "STANDARD_SUPPORT"}, FindingState.CHANGE, "newest: 1.37"),
        ({}, FindingState.CHANGE, "nothing is offered"),
    ],
)
def test_a_kubernetes_version_is_judged_by_its_support(
    statuses: dict[str, str], state: FindingState, part: str
) -> None:
    row = support("1.35", known(**{version.removeprefix("_"): status for version, status in statuses.items()}))
    assert row.state is state
    assert part in row.finding


@pytest.mark.parametrize(
    ("plan", "state"),
    [
        (None, FindingState.OK),
        ({"accountPlanType": "PAID", "accountPlanStatus": "ACTIVE"}, FindingState.OK),
        ({"accountPlanType": "FREE", "accountPlanStatus": "ACTIVE"}, FindingState.CHANGE),
        ({"accountPlanType": "FREE", "accountPlanStatus": "EXPIRED"}, FindingState.CHANGE),
        ({}, FindingState.CHANGE),
    ],
)
def test_only_a_free_plan_is_in_the_way(plan: dict[str, str] | None, state: FindingState) -> None:
    assert judge_plan(plan).state is state


@given(
    wanted=st.lists(st.sampled_from("abcd"), min_size=2, max_size=2, unique=True),
    offering=st.sets(st.sampled_from("abcd")),
    multi=st.booleans(),
)
def test_the_database_needs_a_zone_of_its_subnets_or_both(
    wanted: list[str], offering: set[str], *, multi: bool
) -> None:
    row = judge_database_zones("db.t4g.micro", "16", wanted, offering, multi=multi)
    assert (row.state is FindingState.OK) == (len(offering & set(wanted)) >= (2 if multi else 1))


def test_a_name_is_free_or_comes_with_the_command_that_frees_it() -> None:
    for name in aws_check.taken_names(SETTINGS):
        assert judge_name(name, "").state is FindingState.OK
        row = judge_name(name, "there already")
        assert row.state is FindingState.CHANGE
        assert row.todo.endswith(name.removal)
        assert name.name in name.removal


def test_a_database_that_the_settings_describe_is_never_to_be_deleted() -> None:
    there = {
        "identifier": "shop-db", "username": "shop", "subnetGroup": "shop", "parameterGroup": "shop-pg16",
    }  # fmt: skip
    chosen = settings.read_settings(committed(database={**committed()["database"], **there}))
    kinds = {name.kind for name in aws_check.taken_names(SETTINGS)} - {
        name.kind for name in aws_check.taken_names(chosen)
    }
    assert kinds == {"database", "subnet group", "parameter group"}


text = st.text(alphabet="abc xyz", min_size=1, max_size=20)


@given(st.lists(st.builds(Row, text, st.sampled_from(FindingState), text, st.one_of(st.just(""), text)), max_size=8))
def test_the_table_has_every_row_and_what_has_to_change_first(rows: list[Row]) -> None:
    lines = findings_table(rows).split("\n") if rows else []
    firsts = [line for line in lines if not line.startswith(" ")]
    assert len(firsts) == len(rows)
    assert len(lines) == len(rows) + sum(bool(row.todo) for row in rows)
    states = [line.split(" ")[0] for line in firsts]
    assert states == sorted(states, key=["change", "look", "ok"].index)


# What is read ---------------------------------------------------------------------------------------------------------


PIN = "1.35.7-20260903"


@pytest.mark.parametrize(
    ("newest", "images", "pinned", "state", "part"),
    [
        (PIN, ["ami-1"], PIN, FindingState.OK, PIN),
        ("1.35.8-20261001", ["ami-1"], PIN, FindingState.LOOK, "newest: 1.35.8-20261001"),
        ("1.35.8-20261001", [], PIN, FindingState.CHANGE, f"{PIN} is not offered; newest: 1.35.8-20261001"),
        ("1.35.8-20261001", ["ami-1"], "1.34.2-20260903", FindingState.CHANGE, "1.34.2-20260903 is not offered"),
        ("1.35.8-20261001", [], "", FindingState.OK, "not pinned, so 1.35.8-20261001"),
        (None, [], PIN, FindingState.CHANGE, "nothing is offered"),
        (None, [], "", FindingState.CHANGE, "nothing is offered"),
    ],
)
def test_the_nodes_image_is_one_of_the_clusters_version_that_is_still_there(
    newest: str | None, images: list[str], pinned: str, state: FindingState, part: str
) -> None:
    class Clients(AwsClients):
        def get(self, service: str) -> Any:
            return self

        def get_parameter(self, **_: Any) -> dict[str, Any]:
            if newest is None:
                raise ClientError({"Error": {"Code": "ParameterNotFound", "Message": ""}}, "GetParameter")
            return {"Parameter": {"Value": newest}}

        def describe_images(self, **given: Any) -> dict[str, Any]:
            assert given["Filters"][0]["Values"] == ["amazon-eks-node-al2023-x86_64-standard-1.35-v20260903"]
            return {"Images": images}

    row = offers._ami(Clients(REGION), "1.35", pinned)
    assert row.state is state
    assert part in row.finding


@given(
    code=st.one_of(
        st.sampled_from(["AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "Throttling", "501", ""]),
        text,
    ),
    wrapped=st.booleans(),
)
def test_whatever_aws_answers_is_one_row(code: str, *, wrapped: bool) -> None:
    def read() -> list[Row]:
        error = ClientError({"Error": {"Code": code, "Message": "no\n" * 400}}, "DescribeThings")
        if wrapped:
            raise explain(error, "vCPUs") from error
        raise error

    (row,) = read_rows("vCPUs", read)
    assert row.state is FindingState.LOOK
    assert "\n" not in row.finding
    if code in ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation"):
        assert row.finding == "these credentials may not call DescribeThings"


@pytest.mark.parametrize(
    "error", [ResponseParserError("<html>"), KeyError("Quota"), AttributeError("no such operation"), ValueError("x")]
)
def test_an_answer_that_makes_no_sense_is_one_row(error: Exception) -> None:
    def read() -> list[Row]:
        raise error

    (row,) = read_rows("vCPUs", read)
    assert row.state is FindingState.LOOK
    assert type(error).__name__ in row.finding


class DeniedClients(AwsClients):
    """Credentials that may do nothing, or a network without AWS."""

    def __init__(self, error: Exception) -> None:
        super().__init__(REGION)
        self.error = error

    def get(self, service: str) -> Any:
        return self

    def __getattr__(self, name: str) -> Any:
        def call(*_: Any, **__: Any) -> Any:
            raise self.error

        if name.startswith("_"):
            raise AttributeError(name)
        return call


@pytest.mark.parametrize(
    "error",
    [
        ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no"}}, "X"),
        EndpointConnectionError(endpoint_url="https://x"),
    ],
)
@pytest.mark.parametrize("dns", ["route53", "external"])
def test_credentials_that_may_do_nothing_get_a_whole_table(
    monkeypatch: pytest.MonkeyPatch, error: Exception, dns: str
) -> None:
    monkeypatch.setattr(aws_check, "AwsClients", lambda *_, **__: DeniedClients(error))
    monkeypatch.setattr(crds, "get_url", _unreachable)
    rows = aws_check.check_account(
        settings.read_settings({**committed(), "dns": dns}), DeniedClients(error), ACCOUNT, ROOT
    )
    assert {row.state for row in rows} == {FindingState.LOOK}
    subjects = {row.subject for row in rows}
    assert subjects >= {
        "account plan",
        "vCPUs of nodes",
        "zones",
        "DNS" if dns == "external" else "DNS shop.example.com",
        "names",
        "Kubernetes",
        "node AMI",
        "PostgreSQL",
    }


def _unreachable(url: str) -> bytes:

    raise UnreachableError(f"{url} can't be reached")


class Answers:
    """A service that answers from a table of operations; pages are what their operation answers."""

    def __init__(self, **operations: Any) -> None:
        self.operations = operations

    def __getattr__(self, name: str) -> Any:
        if name == "get_paginator":
            return lambda operation: Answers(paginate=[self.operations[operation]])
        if name not in self.operations:
            raise AttributeError(name)
        return lambda **_: self.operations[name]


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[AwsClients]:
    """An AWS account on moto, with what moto lacks answered from tables."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    addons = [{"addonVersions": [{"addonVersion": version}]} for version in SETTINGS.cluster.addon_versions.values()]
    tables = {
        "service-quotas": Answers(get_service_quota={"Quota": {"Value": 20.0}}),
        "freetier": Answers(get_account_plan_state={"accountPlanType": "PAID"}),
    }
    eks = Answers(
        describe_cluster_versions={
            "clusterVersions": [{"clusterVersion": "1.35", "versionStatus": "STANDARD_SUPPORT"}]
        },
        describe_addon_versions={"addons": addons},
    )

    engines = [{"EngineVersion": one, "Status": "available"} for one in ("15.9", "16.8", "16.10")]
    orderable = [{"EngineVersion": "16.8", "AvailabilityZones": [{"Name": f"{REGION}a"}]}]
    rds = Answers(
        describe_db_engine_versions={"DBEngineVersions": engines},
        describe_orderable_db_instance_options={"OrderableDBInstanceOptions": orderable},
    )
    over = {"eks": eks, "rds": rds}

    class Clients(AwsClients):
        def get(self, service: str) -> Any:
            if service in tables:
                return tables[service]
            found = super().get(service)
            return Overlaid(found, over[service]) if service in over else found

    class Overlaid:
        def __init__(self, client: Any, over: Answers) -> None:
            self.client, self.over = client, over

        def get_paginator(self, operation: str) -> Any:
            return (self.over if operation in self.over.operations else self.client).get_paginator(operation)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.client, name)

    monkeypatch.setattr(aws_check, "AwsClients", Clients)
    monkeypatch.setattr(crds, "get_url", _web)
    with mock_aws():
        clients = Clients(REGION)
        for domain in (SETTINGS.domain, SETTINGS.preview_domain):
            clients.get("route53").create_hosted_zone(Name=domain, CallerReference=domain)
        yield clients


def _web(url: str) -> bytes:
    if url == offers.NEWEST_PULUMI:
        return b"3.300.0\n"
    charts = {"aws-load-balancer-controller": ["3.5.0", "3.6.0"], "external-secrets": ["0.20.4", "2.0.0", "3.0.0-rc1"]}
    return json.dumps({"entries": {name: [{"version": one} for one in each] for name, each in charts.items()}}).encode()


def rows_of(account: AwsClients, **changes: Any) -> dict[str, Row]:
    given = settings.read_settings({**committed(), **changes})
    return {row.subject: row for row in aws_check.check_account(given, account, ACCOUNT, ROOT)}


def taken(account: AwsClients, **changes: Any) -> dict[str, Row]:
    given = settings.read_settings({**committed(), **changes})
    return {row.subject: row for row in aws_check._taken(account, ACCOUNT, given)}


def bucket(account: AwsClients) -> str:
    name = f"shopcat-state-prod-{ACCOUNT}-{REGION}"
    account.get("s3").create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
    return name


def test_an_account_that_is_ready(account: AwsClients) -> None:
    bucket(account)
    rows = rows_of(account)
    quiet = [
        "account plan", "vCPUs of nodes", "Elastic IPs", "VPCs", "internet gateways", "load balancers", "EKS clusters",
        "database instances", "zones", "names", "Kubernetes", "PostgreSQL", "RDS db.t4g.micro",
    ]  # fmt: skip
    assert {subject: rows[subject].state for subject in quiet} == dict.fromkeys(quiet, FindingState.OK)
    for host in (SETTINGS.domain, f"*.{SETTINGS.preview_domain}"):
        assert rows[f"DNS {host}"].state is FindingState.OK
        assert f"dig +short NS {host.removeprefix('*.')}" in rows[f"DNS {host}: delegation"].todo
    assert rows["names"].finding == f"{len(aws_check.taken_names(SETTINGS))} fixed names are free"
    assert "newest: 3.6.0" in rows["chart aws-load-balancer-controller"].finding
    assert "newest: 2.0.0" in rows["chart external-secrets"].finding
    assert rows["Pulumi CLI"].state is FindingState.LOOK
    assert "newest: 3.300.0" in rows["Pulumi CLI"].finding


def test_an_account_without_a_bucket_is_told_to_bootstrap(account: AwsClients) -> None:
    assert taken(account)["state"] == Row("state", FindingState.CHANGE, "there is no bucket for it", "make bootstrap")


def test_what_is_in_the_way_is_named(account: AwsClients) -> None:
    bucket(account)
    account.get("secretsmanager").create_secret(Name="shopcat/application", SecretString="x")
    account.get("secretsmanager").delete_secret(SecretId="shopcat/application", RecoveryWindowInDays=30)
    account.get("ecr").create_repository(repositoryName="shopcat")
    account.get("logs").create_log_group(logGroupName="/aws/eks/shopcat/cluster")
    account.get("logs").create_log_group(logGroupName="/aws/eks/shopcat/cluster-other")
    account.get("iam").create_role(RoleName="shopcat-preview-secrets", AssumeRolePolicyDocument="{}")
    account.get("iam").create_role(RoleName="shopcat-release", AssumeRolePolicyDocument="{}")
    account.get("ssm").put_parameter(Name="/shopcat/contract", Value="{}", Type="String")
    taken_names = {SETTINGS.domain: SETTINGS.domain, SETTINGS.preview_domain: f"*.{SETTINGS.preview_domain}"}
    for zone in account.get("route53").list_hosted_zones()["HostedZones"]:
        record = {
            "Name": taken_names[zone["Name"].rstrip(".")], "Type": "A", "TTL": 60,
            "ResourceRecords": [{"Value": "192.0.2.1"}],
        }  # fmt: skip
        account.get("route53").change_resource_record_sets(
            HostedZoneId=zone["Id"], ChangeBatch={"Changes": [{"Action": "CREATE", "ResourceRecordSet": record}]}
        )
    rows = {**taken(account), **{row.subject: row for row in dns_check.check_dns(SETTINGS, account)}}
    changed = {subject for subject, row in rows.items() if row.state is FindingState.CHANGE}
    assert changed >= {
        "secret shopcat/application",
        "ECR repository shopcat",
        "log group /aws/eks/shopcat/cluster",
        "IAM role shopcat-preview-secrets",
        "SSM parameter /shopcat/contract",
        f"DNS {SETTINGS.domain}",
        f"DNS *.{SETTINGS.preview_domain}",
    }
    assert "IAM role shopcat-release" not in rows
    assert "to be deleted" in rows["secret shopcat/application"].finding
    assert "IAM role shopcat-release" in taken(account, github={"repository": "a/b"})


def test_names_of_a_stack_that_has_a_state_are_its_own(account: AwsClients) -> None:
    account.get("s3").put_object(Bucket=bucket(account), Key=".pulumi/stacks/shopcat/prod.json", Body=b"{}")
    account.get("ecr").create_repository(repositoryName="shopcat")
    rows = taken(account)
    assert list(rows) == ["names"]
    assert rows["names"].state is FindingState.OK


def test_the_quota_counts_what_others_run_and_not_ours(account: AwsClients) -> None:
    ec2 = account.get("ec2")
    image = ec2.describe_images()["Images"][0]["ImageId"]
    ours = [{"ResourceType": "instance", "Tags": [{"Key": "eks:cluster-name", "Value": "shopcat"}]}]
    ec2.run_instances(ImageId=image, InstanceType="t3.medium", MinCount=2, MaxCount=2, TagSpecifications=ours)
    before = aws_check._vcpus(account, SETTINGS)
    ec2.run_instances(ImageId=image, InstanceType="m5.large", MinCount=3, MaxCount=3)
    ec2.run_instances(ImageId=image, InstanceType="p3.2xlarge", MinCount=1, MaxCount=1)
    assert before == 0
    assert aws_check._vcpus(account, SETTINGS) > 0
    ec2.create_vpc(CidrBlock="10.9.0.0/16", TagSpecifications=[
        {"ResourceType": "vpc", "Tags": [{"Key": "shopcat:project", "Value": "shopcat"}]}
    ])  # fmt: skip
    count = aws_check._of_others("describe_vpcs", "Vpcs")
    assert count(account, SETTINGS) == len(ec2.describe_vpcs()["Vpcs"]) - 1


@pytest.mark.parametrize(
    ("instance_type", "counted"),
    [("t3.medium", True), ("m7i-flex.large", True), ("im4gn.large", True), ("x2idn.large", False), ("inf2.xlarge", False),
     ("g5.xlarge", False), ("p5.48xlarge", False), ("trn1.2xlarge", False), ("mac2.metal", False), ("hpc7g.4xlarge", False),
     ("dl1.24xlarge", False), ("u-6tb1.metal", False), ("f1.2xlarge", False), ("vt1.3xlarge", False)],
)  # fmt: skip
def test_the_vcpu_quota_is_of_standard_families(instance_type: str, counted: bool) -> None:  # noqa: FBT001
    assert bool(aws_check._STANDARD.match(instance_type)) is counted


def test_a_version_that_is_gone_is_to_be_changed(account: AwsClients) -> None:
    given = {"kubernetesVersion": "1.33", "addonVersions": {"coredns": "v1.0.0-eksbuild.1"}}
    found = offers.read_offers(settings.read_settings({**committed(), "cluster": given}), account, ROOT)
    rows = {row.subject: row for row in found}
    for subject in ("Kubernetes", "add-on coredns"):
        assert rows[subject].state is FindingState.CHANGE
        assert "Pulumi.prod.yaml" in rows[subject].todo


def test_the_command_prints_one_table_and_fails_if_something_has_to_change(
    account: AwsClients, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("PULUMI_OPTION_CONFIG_FILE", raising=False)
    monkeypatch.chdir(ROOT)
    assert aws_check.main() == 1
    shown = capsys.readouterr().out
    assert f"account {ACCOUNT}, region {REGION}" in shown
    assert "change  state" in shown
    assert re.search(r"\d+ to change, \d+ to look at, of \d+", shown)
    assert aws_check.main(lambda *_: [Row("x", FindingState.LOOK, "y")]) == 0
    monkeypatch.setenv("PULUMI_OPTION_CONFIG_FILE", "no-such.yaml")
    assert aws_check.main() == 1
    assert "error: no-such.yaml" in capsys.readouterr().err


def test_the_previews_zone_that_is_missing_hides_nothing_of_the_shops(account: AwsClients) -> None:
    rows = rows_of(account, previewDomain="previews.example.org")
    assert rows["DNS *.previews.example.org"].state is FindingState.CHANGE
    assert "previewHostedZone" in rows["DNS *.previews.example.org"].finding
    assert rows[f"DNS {SETTINGS.domain}"].state is FindingState.OK


def test_previews_that_share_the_shops_site_are_said(account: AwsClients) -> None:
    assert "previews' site" not in rows_of(account)
    shared = {"previewDomain": "preview.shop.example.com", "previewDomainShared": True}
    row = rows_of(account, **shared)["previews' site"]
    assert row.state is FindingState.LOOK
    assert "can set the shop's cookies" in row.finding
