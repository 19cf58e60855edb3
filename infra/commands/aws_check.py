"""Check, without changing anything, that an AWS account is ready for the first `pulumi up -s prod` (``make aws-check``).

One table: quotas, plan, zones, state, names and DNS records that are taken, versions that AWS still offers; each line that
would stop the update with what to do. Lines that these credentials may not look at say so, and stop nothing.
"""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from infra.capacity import NODES, T3_MEDIUM
from infra.clients.aws import AwsClients, error_code
from infra.commands import dns_check, offers
from infra.commands.findings import FindingState, Row, findings_table, read_rows
from infra.errors import ShopCatError
from infra.foundation import availability_zones, dns
from infra.names import (
    APPLICATION_SECRET,
    CLEANUP_ROLE,
    CLUSTER_INFO_PARAMETER,
    COLOURS,
    LOAD_BALANCER,
    PREVIEW_REPOSITORY,
    PREVIEW_ROLE,
    PREVIEW_SECRETS_ROLE,
    PREVIEW_SLOTS_TABLE,
    PRODUCTION_STACK,
    PROJECT,
    RELEASE_ROLE,
    login_secret,
    state_bucket,
    workload_name,
)
from infra.settings import read_stack

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from infra.settings import Settings

VCPUS = 2
"""vCPUs of one t3.medium (docs.aws.amazon.com/ec2/latest/instancetypes/gp.html)."""
ZONES = 2
DATABASE_INSTANCE = "shopcat"
_STANDARD = re.compile(r"(?!(inf|dl|hpc|mac|trn)\d)[acdhimrtz][a-z]*\d")
"""Instance types of quota L-1216C47A: families A, C, D, H, I, M, R, T, Z."""


@dataclass(frozen=True)
class Quota:
    """A quota that production uses, by its codes at Service Quotas."""

    subject: str
    service: str
    code: str
    needed: int
    used: Callable[[AwsClients, Settings], int]
    """Amount that others in this account and region use."""


@dataclass(frozen=True)
class TakenName:
    """A name that this program's resources have in every account, and how to see whether it is free."""

    kind: str
    name: str
    service: str
    operation: str
    """A read that fails, or answers without the name, if nothing has it."""
    arguments: Mapping[str, Any]
    removal: str
    """The command that frees it."""


def vcpus_of_an_update() -> int:
    """Return the most vCPUs while the nodes are updated: EKS adds up to two new nodes in each zone before an old one goes.

    Source: docs.aws.amazon.com/eks/latest/userguide/managed-node-update-behavior.html (scale up phase).
    """
    return VCPUS * (NODES + 2 * ZONES)


# What is decided ------------------------------------------------------------------------------------------------------


def judge_quota(quota: Quota, limit: float, used: int, region: str) -> Row:
    """Judge whether what production needs fits beside what others use."""
    text = f"limit {limit:g}, others use {used}, production needs up to {quota.needed}"
    if used + quota.needed <= limit:
        return Row(quota.subject, FindingState.OK, text)
    return Row(
        quota.subject,
        FindingState.CHANGE,
        text,
        f"aws service-quotas request-service-quota-increase --region {region} --service-code {quota.service} "
        f"--quota-code {quota.code} --desired-value {used + quota.needed}",
    )


def judge_plan(plan: Mapping[str, Any] | None) -> Row:
    """Judge whether the account's plan has what is declared; accounts older than July 2025 have none."""
    if plan is None:
        return Row("account plan", FindingState.OK, "pays as it goes")
    kind, status = plan.get("accountPlanType", ""), plan.get("accountPlanStatus", "")
    if kind == "PAID":
        return Row("account plan", FindingState.OK, "paid")
    return Row(
        "account plan",
        FindingState.CHANGE,
        f"{kind.lower() or 'unknown'} ({status.lower() or 'unknown'}): {T3_MEDIUM.name} nodes and backups kept for days need "
        "the paid plan",
        "upgrade it in the Billing console (`aws freetier upgrade-account-plan --account-plan-type PAID`)",
    )


def judge_name(name: TakenName, taken: str) -> Row:
    """Judge whether one of the fixed names is free; only asked while there is no stack that it could belong to."""
    subject = f"{name.kind} {name.name}"
    if not taken:
        return Row(subject, FindingState.OK, "free")
    return Row(
        subject,
        FindingState.CHANGE,
        f"taken ({taken}), and no stack has it",
        f"see docs/destroy.md if a former production left it; else: {name.removal}",
    )


def judge_database_zones(
    instance_class: str, engine: str, wanted: Sequence[str], offering: set[str], *, multi: bool
) -> Row:
    """Judge whether RDS has the instance class where the subnets will be."""
    subject, zones = f"RDS {instance_class}", [name for name in wanted if name in offering]
    if len(zones) >= (2 if multi else 1):
        return Row(subject, FindingState.OK, f"offered in {', '.join(zones)}")
    return Row(
        subject,
        FindingState.CHANGE,
        f"PostgreSQL {engine} on it is offered in {', '.join(sorted(offering)) or 'no zone'}, not in {', '.join(wanted)}",
        "set shopcat:database.instanceClass, or shopcat:vpc.zones",
    )


# What is read ---------------------------------------------------------------------------------------------------------


def _pages(clients: AwsClients, service: str, operation: str, key: str, **arguments: Any) -> list[dict[str, Any]]:
    pages = clients.get(service).get_paginator(operation).paginate(**arguments)
    return [item for page in pages for item in page[key]]


def _is_ours(tagged: Mapping[str, Any]) -> bool:
    tags = {tag["Key"]: tag["Value"] for tag in tagged.get("Tags", [])}
    return tags.get("shopcat:project") == PROJECT


def _of_others(operation: str, key: str) -> Callable[[AwsClients, Settings], int]:
    def count(clients: AwsClients, _: Settings) -> int:
        return sum(not _is_ours(item) for item in _pages(clients, "ec2", operation, key))

    return count


def _vcpus(clients: AwsClients, settings: Settings) -> int:
    states = [{"Name": "instance-state-name", "Values": ["pending", "running"]}]
    used = 0
    for reservation in _pages(clients, "ec2", "describe_instances", "Reservations", Filters=states):
        for instance in reservation["Instances"]:
            tags = {tag["Key"]: tag["Value"] for tag in instance.get("Tags", [])}
            is_ours = tags.get("eks:cluster-name") == settings.cluster.name
            if (
                not is_ours
                and instance.get("InstanceLifecycle") != "spot"
                and _STANDARD.match(instance["InstanceType"])
            ):
                options = instance.get("CpuOptions", {})
                used += options.get("CoreCount", 1) * options.get("ThreadsPerCore", 1)
    return used


def _addresses(clients: AwsClients, _: Settings) -> int:
    return sum(not _is_ours(address) for address in clients.get("ec2").describe_addresses()["Addresses"])


def _balancers(clients: AwsClients, settings: Settings) -> int:
    ours = {name.balancer for name in dns.dns_names(settings, LOAD_BALANCER)}
    balancers = _pages(clients, "elbv2", "describe_load_balancers", "LoadBalancers")
    return sum(each["Type"] == "application" and each["LoadBalancerName"] not in ours for each in balancers)


def _databases(clients: AwsClients, settings: Settings) -> int:
    databases = _pages(clients, "rds", "describe_db_instances", "DBInstances")
    return sum(each["DBInstanceIdentifier"] != settings.database.identifier for each in databases)


def _clusters(clients: AwsClients, settings: Settings) -> int:
    pages = clients.get("eks").get_paginator("list_clusters").paginate()
    return sum(name != settings.cluster.name for page in pages for name in page["clusters"])


def quotas(settings: Settings) -> list[Quota]:
    """List every quota of which production takes a part that a new account may not have."""
    listed = [
        Quota("load balancers", "elasticloadbalancing", "L-53DA6B97", 2, _balancers),
        Quota("database instances", "rds", "L-7B6409FD", 1, _databases),
    ]
    if settings.cluster.existing is None:
        gateways = settings.vpc.nat_gateways
        vpcs, internet = (
            _of_others("describe_vpcs", "Vpcs"),
            _of_others("describe_internet_gateways", "InternetGateways"),
        )
        listed += [
            Quota("vCPUs of nodes", "ec2", "L-1216C47A", vcpus_of_an_update(), _vcpus),
            Quota("Elastic IPs", "ec2", "L-0263D0A3", gateways, _addresses),
            Quota("VPCs", "vpc", "L-F678F1CE", 1, vpcs),
            Quota("internet gateways", "vpc", "L-A4707A72", 1, internet),
            Quota("EKS clusters", "eks", "L-1194D53C", 1, _clusters),
        ]
    return listed


def _quota(quota: Quota, clients: AwsClients, settings: Settings) -> list[Row]:
    service = clients.get("service-quotas")
    codes = {"ServiceCode": quota.service, "QuotaCode": quota.code}
    try:
        limit = service.get_service_quota(**codes)["Quota"]["Value"]
    except ClientError as error:
        if error_code(error) != "NoSuchResourceException":
            raise
        limit = service.get_aws_default_service_quota(**codes)["Quota"]["Value"]  # never changed in this account
    return [judge_quota(quota, limit, quota.used(clients, settings), clients.region)]


def _plan_row(clients: AwsClients) -> list[Row]:
    """Judge the account's plan.

    The Free Tier API has one endpoint, in us-east-1 (docs.aws.amazon.com/general/latest/gr/billing.html).
    """
    service = AwsClients("us-east-1", endpoint_url=clients.endpoint_url).get("freetier")
    try:
        return [judge_plan(service.get_account_plan_state())]
    except ClientError as error:
        if error_code(error) == "ResourceNotFoundException":
            return [judge_plan(None)]
        raise


def _zones(clients: AwsClients, settings: Settings) -> list[Row]:
    wanted = availability_zones.zone_names(clients.region, settings.vpc.zones)
    wrong = availability_zones.zone_refusal(wanted, *availability_zones.read_zones(clients), T3_MEDIUM.name)
    if wrong:
        return [Row("zones", FindingState.CHANGE, wrong, "set shopcat:vpc.zones")]
    return [Row("zones", FindingState.OK, ", ".join(wanted))]


def _database_zones(clients: AwsClients, settings: Settings) -> list[Row]:
    database = settings.database
    offered = _pages(
        clients,
        "rds",
        "describe_orderable_db_instance_options",
        "OrderableDBInstanceOptions",
        Engine="postgres",
        DBInstanceClass=database.instance_class,
        Vpc=True,
    )
    zones = {
        zone["Name"]
        for option in offered
        if f"{option['EngineVersion']}.".startswith(f"{database.engine_version}.")
        for zone in option["AvailabilityZones"]
    }
    wanted = availability_zones.zone_names(clients.region, settings.vpc.zones)
    return [
        judge_database_zones(database.instance_class, database.engine_version, wanted, zones, multi=database.multi_zone)
    ]


def has_stack(clients: AwsClients, account: str) -> bool | None:
    """Ask whether production's stack has a state; None if its bucket isn't there."""
    bucket = state_bucket(PRODUCTION_STACK, account, clients.region)
    prefix = f".pulumi/stacks/{PROJECT}/{PRODUCTION_STACK}.json"
    try:
        answer = clients.get("s3").list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)
    except ClientError as error:
        if error_code(error) == "NoSuchBucket":
            return None
        raise
    return bool(answer.get("KeyCount", len(answer.get("Contents", []))))


def taken_names(settings: Settings) -> list[TakenName]:
    """List fixed names for which something that no stack has would stop the first update, but none that describes a database."""
    cluster, engine = settings.cluster.name, settings.database.engine_version.partition(".")[0]
    logs, group, final = f"/aws/eks/{cluster}/cluster", f"shopcat-postgres{engine}", f"{DATABASE_INSTANCE}-final"
    database = settings.database
    groups = {"subnet group": database.subnet_group, "parameter group": database.parameter_group}
    names = [
        TakenName("database", database.identifier, "rds", "describe_db_instances", {"DBInstanceIdentifier": database.identifier},
             f"aws rds delete-db-instance --db-instance-identifier {database.identifier} --final-db-snapshot-identifier <name>"),
        TakenName("database snapshot", final, "rds", "describe_db_snapshots", {"DBSnapshotIdentifier": final},
             f"copy it (aws rds copy-db-snapshot), then aws rds delete-db-snapshot --db-snapshot-identifier {final}"),
        TakenName("subnet group", DATABASE_INSTANCE, "rds", "describe_db_subnet_groups", {"DBSubnetGroupName": DATABASE_INSTANCE},
             f"aws rds delete-db-subnet-group --db-subnet-group-name {DATABASE_INSTANCE}"),
        TakenName("parameter group", group, "rds", "describe_db_parameter_groups", {"DBParameterGroupName": group},
             f"aws rds delete-db-parameter-group --db-parameter-group-name {group}"),
        *(TakenName("secret", name, "secretsmanager", "describe_secret", {"SecretId": name},
             f"aws secretsmanager delete-secret --secret-id {name} --force-delete-without-recovery")
          for name in (APPLICATION_SECRET, *(login_secret(colour) for colour in COLOURS))),
        TakenName("SSM parameter", CLUSTER_INFO_PARAMETER, "ssm", "get_parameter", {"Name": CLUSTER_INFO_PARAMETER},
             f"aws ssm delete-parameter --name {CLUSTER_INFO_PARAMETER}"),
        TakenName("DynamoDB table", PREVIEW_SLOTS_TABLE, "dynamodb", "describe_table", {"TableName": PREVIEW_SLOTS_TABLE},
             f"aws dynamodb delete-table --table-name {PREVIEW_SLOTS_TABLE}"),
    ]  # fmt: skip
    names = [name for name in names if not {"database": database.is_taken_over, **groups}.get(name.kind)]
    if settings.cluster.existing is None:
        names += [
            TakenName("EKS cluster", cluster, "eks", "describe_cluster", {"name": cluster},
                 f"set shopcat:cluster.name to another, or aws eks delete-cluster --name {cluster}"),
            TakenName("log group", logs, "logs", "describe_log_groups", {"logGroupNamePrefix": logs},
                 f"aws logs delete-log-group --log-group-name {logs}"),
        ]  # fmt: skip
    names += [
        TakenName("ECR repository", name, "ecr", "describe_repositories", {"repositoryNames": [name]},
             f"take it over with its images (docs/takeover.md), or aws ecr delete-repository --repository-name {name} --force")
        for name in (settings.registry.repository, PREVIEW_REPOSITORY)
    ]  # fmt: skip
    names += [
        TakenName("IAM role", name, "iam", "get_role", {"RoleName": name}, f"delete the role {name} in IAM")
        for name in (
            PREVIEW_SECRETS_ROLE,
            *((RELEASE_ROLE, PREVIEW_ROLE, CLEANUP_ROLE) if settings.github.repository else ()),
        )
    ]
    names += [
        TakenName(
            "load balancer",
            record.balancer,
            "elbv2",
            "describe_load_balancers",
            {"Names": [record.balancer]},
            f"delete {record.balancer} in EC2",
        )
        for record in dns.dns_names(settings, LOAD_BALANCER)
    ]
    return names + [
        TakenName("target group", name, "elbv2", "describe_target_groups", {"Names": [name]}, f"delete {name} in EC2")
        for name in map(workload_name, COLOURS)
    ]


def is_missing(error: ClientError) -> bool:
    """Tell whether AWS says that there is no such thing; each service has its own code for it."""
    return bool(re.search(r"NotFound|NoSuchEntity", error_code(error)))


def _name(name: TakenName, clients: AwsClients) -> list[Row]:
    try:
        answer = getattr(clients.get(name.service), name.operation)(**name.arguments)
    except ClientError as error:
        if not is_missing(error):
            raise
        return [judge_name(name, "")]
    if f'"{name.name}"' not in json.dumps(answer, default=str):
        return [judge_name(name, "")]
    deleted = answer.get("DeletedDate")
    return [judge_name(name, f"to be deleted, since {deleted:%Y-%m-%d}" if deleted else "there already")]


def check_account(settings: Settings, clients: AwsClients, account: str, folder: Path) -> list[Row]:
    """Return every row of the table."""
    rows = read_rows("account plan", partial(_plan_row, clients))
    for quota in quotas(settings):
        rows += read_rows(quota.subject, partial(_quota, quota, clients, settings))
    if settings.cluster.existing is None:
        rows += read_rows("zones", partial(_zones, clients, settings))
        rows += read_rows("database's zones", partial(_database_zones, clients, settings))
    rows += dns_check.check_dns(settings, clients)
    rows += read_rows("names", partial(_taken, clients, account, settings))
    return rows + offers.read_offers(settings, clients, folder)


def _taken(clients: AwsClients, account: str, settings: Settings) -> list[Row]:
    stack = has_stack(clients, account)
    rows = []
    if stack is None:
        rows.append(Row("state", FindingState.CHANGE, "there is no bucket for it", "make bootstrap"))
    if stack:
        return [Row("names", FindingState.OK, f"stack {PRODUCTION_STACK} has a state, so they are its own")]
    for name in taken_names(settings):
        rows += read_rows(f"{name.kind} {name.name}", partial(_name, name, clients))
    free = [row for row in rows if row.state is FindingState.OK]
    return [row for row in rows if row.state is not FindingState.OK] + (
        [Row("names", FindingState.OK, f"{len(free)} fixed names are free")] if free else []
    )


def main(read: Callable[[Settings, AwsClients, str, Path], list[Row]] = check_account) -> int:
    """Run ``python -m infra.commands.aws_check``; the exit code is 1 if something has to change.

    PULUMI_OPTION_CONFIG_FILE names another stack file.
    """
    path = Path(os.environ.get("PULUMI_OPTION_CONFIG_FILE", "Pulumi.prod.yaml"))
    try:
        region, settings = read_stack(path)
        clients = AwsClients(region, endpoint_url=settings.aws_endpoint)
        account, caller = clients.identity()
        print(f"account {account}, region {region}, as {caller}; nothing is changed by this\n")
        rows = read(settings, clients, account, Path.cwd())
    except ShopCatError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(findings_table(rows))
    changes = sum(row.state is FindingState.CHANGE for row in rows)
    print(f"\n{changes} to change, {sum(row.state is FindingState.LOOK for row in rows)} to look at, of {len(rows)}")
    return 1 if changes else 0


if __name__ == "__main__":
    sys.exit(main())
