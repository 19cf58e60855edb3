"""Rows of `make upgrade-check` on what runs: a database that owes a restart, certificates that ACM has to renew. Only reads."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from infra.clients.aws import error_code
from infra.commands.findings import FindingState, Row, read_rows
from infra.foundation import dns
from infra.foundation.database_fit import OUTAGE, restart_command
from infra.foundation.existing_database import live_database
from infra.names import LOAD_BALANCER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from infra.clients.aws import AwsClients
    from infra.settings import Settings

_RENEWAL_IN_TROUBLE = frozenset({"PENDING_VALIDATION", "FAILED"})
"""docs.aws.amazon.com/acm/latest/APIReference/API_RenewalSummary.html: ACM waits for the records, or has given up."""


def read_running(settings: Settings, clients: AwsClients) -> list[Row]:
    """Return a row for the database and for each certificate; what can't be asked is a row too."""
    identifier = settings.database.identifier
    rows = read_rows(f"database {identifier}", partial(_database_rows, clients, identifier))
    for name in dns.dns_names(settings, LOAD_BALANCER):
        rows += read_rows(f"certificate {name.host}", partial(_certificate_rows, clients, name))
    return rows


def judge_database(description: Mapping[str, Any]) -> list[Row]:
    """Judge a database by what RDS answers (DescribeDBInstances): each thing that waits is a row, or that nothing does."""
    identifier = str(description["DBInstanceIdentifier"])
    subject, window = f"database {identifier}", description.get("PreferredMaintenanceWindow", "unknown")
    rows = []
    if live_database(description).waits_for_restart:
        rows.append(
            Row(
                subject,
                FindingState.LOOK,
                "static parameters were changed and hold from its next restart on",
                f"next step: `{restart_command(identifier)}`, while no release is open; {OUTAGE}",
            )
        )
    pending = description.get("PendingModifiedValues") or {}
    if pending:
        rows.append(
            Row(
                subject,
                FindingState.LOOK,
                f"{', '.join(f'{name} {value}' for name, value in sorted(pending.items()))} waits for the maintenance window, "
                f"{window} UTC",
                f"next step: none, or sooner: `aws rds modify-db-instance --db-instance-identifier {identifier} "
                "--apply-immediately`, while no release is open",
            )
        )
    text = f"runs PostgreSQL {description['EngineVersion']}, nothing waits; maintenance window {window} UTC"
    return rows or [Row(subject, FindingState.OK, text)]


def judge_certificate(host: str, certificate: Mapping[str, Any]) -> Row:
    """Judge a certificate by what ACM answers (DescribeCertificate)."""
    subject, expires = f"certificate {host}", certificate.get("NotAfter")
    until = f"valid until {expires:%Y-%m-%d}" if expires else f"not issued yet ({certificate.get('Status')})"
    renewal = certificate.get("RenewalSummary") or {}
    if renewal.get("RenewalStatus") not in _RENEWAL_IN_TROUBLE:
        return Row(subject, FindingState.OK, f"{until}; ACM renews it by itself while its CNAME is in DNS")
    options = renewal.get("DomainValidationOptions") or certificate.get("DomainValidationOptions") or []
    missing = [
        f"{option['ResourceRecord']['Name']} CNAME {option['ResourceRecord']['Value']}"
        for option in options
        if option.get("ResourceRecord") and option.get("ValidationStatus") != "SUCCESS"
    ]
    return Row(
        subject,
        FindingState.CHANGE,
        f"{until}; ACM can't renew it: {renewal['RenewalStatus']} {renewal.get('RenewalStatusReason', '')}".rstrip(),
        f"next step: have {', '.join(missing) or 'the CNAME of `aws acm describe-certificate`'} in DNS, by `pulumi up --refresh "
        "-s prod` where shopcat:dns is route53",
    )


def _database_rows(clients: AwsClients, identifier: str) -> list[Row]:
    try:
        listed = clients.get("rds").describe_db_instances(DBInstanceIdentifier=identifier)["DBInstances"]
    except ClientError as error:
        if "NotFound" not in error_code(error):
            raise
        listed = []
    subject = f"database {identifier}"
    return judge_database(listed[0]) if listed else [Row(subject, FindingState.OK, "not made yet")]


def _certificate_rows(clients: AwsClients, name: dns.DnsName) -> list[Row]:
    acm, host = clients.get("acm"), name.host
    # Others for the same name, such as the old shop's, are somebody else's to renew, and unused ones nobody's.
    described = [
        acm.describe_certificate(CertificateArn=arn)["Certificate"] for arn in dns.certificate_arns(clients, host)
    ]
    ours = [each for each in described if any(f"/{name.balancer}/" in user for user in each.get("InUseBy", []))]
    if not ours:
        return [Row(f"certificate {host}", FindingState.OK, "no load balancer of this program uses one yet")]
    return [judge_certificate(host, each) for each in ours]
