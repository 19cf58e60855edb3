"""Versions: what is pinned, where, and what of it is still offered.

`make aws-check` asks whether everything pinned can still be had; `make upgrade-check` lists what is newer. Both only read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError
from pydantic.alias_generators import to_camel

from infra.clients.aws import error_code
from infra.commands.findings import FindingState, Row, read_rows
from infra.errors import ShopCatError
from infra.foundation import crds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from infra.clients.aws import AwsClients
    from infra.settings import Settings

FILE = "Pulumi.prod.yaml"
INFRA_REQUIREMENTS = "requirements/infra.in"
ADDONS = ("vpc-cni", "coredns", "kube-proxy", "eks-pod-identity-agent")
CHARTS = {"aws-load-balancer-controller": "load_balancer_controller", "external-secrets": "external_secrets"}
"""Chart → its setting."""
AMI = "/aws/service/eks/optimized-ami/{version}/amazon-linux-2023/x86_64/standard/recommended/release_version"
"""SSM parameter (docs.aws.amazon.com/eks/latest/userguide/retrieve-ami-id.html)."""
AMI_NAME = "amazon-eks-node-al2023-x86_64-standard-{version}-v{date}"
NEWEST_PULUMI = "https://www.pulumi.com/latest-version"

_PULUMI_PIN = re.compile(r"^pulumi==([0-9.]+)", re.MULTILINE)


@dataclass(frozen=True)
class Offer:
    """Something pinned."""

    subject: str
    where: str
    pinned: str
    """Empty: the newest at the first update."""
    offered: tuple[str, ...]
    """Every version that can still be had, in any order."""
    note: str = ""
    step: str | None = None
    """The version that one update goes to, where that may be another than the newest; empty: there is none."""
    also: str = ""
    """Settings that go together with it."""

    @property
    def newest(self) -> str:
        """Return the newest that is offered."""
        return max(self.offered, key=version_order, default="")


def version_order(version: str) -> tuple[int, ...]:
    """Return the numbers of a version, by which versions of one thing compare."""
    return tuple(int(number) for number in re.findall(r"\d+", version))


def next_minor(pinned: str, offered: Iterable[str]) -> str:
    """Return the smallest newer version, since EKS goes up one minor version at a time; empty if there is none."""
    newer = [version for version in offered if version_order(version) > version_order(pinned)]
    return min(newer, key=version_order, default="")


def newest_of_major(pinned: str, offered: Iterable[str]) -> str:
    """Return the newest version with the same first number, if it is a newer one; empty if there is none."""
    same = [version for version in offered if version_order(version)[:1] == version_order(pinned)[:1]]
    newest = max(same, key=version_order, default="")
    return newest if version_order(newest) > version_order(pinned) else ""


def judge_offer(offer: Offer) -> Row:
    """Judge whether what is pinned can be had, and what is newer."""
    newer = bool(offer.pinned) and version_order(offer.newest) > version_order(offer.pinned)
    note = f"; {offer.note}" if offer.note else ""
    if not offer.offered:
        return Row(
            offer.subject,
            FindingState.CHANGE,
            f"{offer.pinned or 'nothing'} is pinned, nothing is offered{note}",
            offer.where,
        )
    if offer.pinned and offer.pinned not in offer.offered:
        return Row(
            offer.subject,
            FindingState.CHANGE,
            f"{offer.pinned} is not offered; newest: {offer.newest}{note}",
            f"set {offer.where} to {offer.newest}",
        )
    if newer:
        step = offer.newest if offer.step is None else offer.step
        todo = f"next step: {step} in {offer.where}{offer.also}" if step else "no newer one that an update goes to"
        return Row(offer.subject, FindingState.LOOK, f"{offer.pinned}; newest: {offer.newest}{note}", todo)
    text = f"{offer.pinned}, the newest" if offer.pinned else f"not pinned, so {offer.newest}"
    return Row(offer.subject, FindingState.OK, f"{text}{note} ({offer.where})")


def read_offers(settings: Settings, clients: AwsClients, folder: Path) -> list[Row]:
    """Return a row for everything that is pinned; what can't be asked is a row too."""
    cluster, charts, mirror = settings.cluster, settings.charts, settings.chart_mirror
    version = cluster.kubernetes_version
    checks: dict[str, Callable[[], Row]] = {}
    if cluster.existing is None:
        checks["Kubernetes"] = partial(_kubernetes, clients, version)
        for addon in ADDONS:
            checks[f"add-on {addon}"] = partial(
                _addon_offer, clients, addon, version, cluster.addon_versions.get(addon, "")
            )
        checks["node AMI"] = partial(_ami, clients, version, cluster.ami_release_version)
    checks["PostgreSQL"] = partial(_engine, clients, settings.database.engine_version)
    for chart, key in CHARTS.items():
        arguments = (chart, getattr(mirror, key), getattr(charts, key), to_camel(key))
        checks[f"chart {chart}"] = partial(_chart, *arguments)
    checks["Pulumi CLI"] = partial(_pulumi, folder)
    return [row for subject, check in checks.items() for row in read_rows(subject, partial(_alone, check))]


def _alone(check: Callable[[], Row]) -> list[Row]:
    return [check()]


def _kubernetes(clients: AwsClients, pinned: str) -> Row:
    """Judge the cluster's version by what AWS still supports."""
    pages = clients.get("eks").get_paginator("describe_cluster_versions").paginate()
    known = {each["clusterVersion"]: each for page in pages for each in page["clusterVersions"]}
    return support(pinned, known)


def support(pinned: str, known: Mapping[str, Mapping[str, Any]]) -> Row:
    """Judge a Kubernetes version by what `DescribeClusterVersions` answers."""
    offered = tuple(version for version, answer in known.items() if answer.get("versionStatus") != "UNSUPPORTED")
    facts = known.get(pinned, {})
    end = facts.get("endOfStandardSupportDate")
    note = f"standard support until {end:%Y-%m-%d}" if end else ""
    where = f"{FILE}, shopcat:cluster.kubernetesVersion (one minor version at a time)"
    step = next_minor(pinned, offered)
    also = f", with an amiReleaseVersion and addonVersions of {step}"
    row = judge_offer(Offer("Kubernetes", where, pinned, offered, note, step, also))
    if row.state is not FindingState.CHANGE and facts.get("versionStatus") == "EXTENDED_SUPPORT":
        return Row(
            row.subject, FindingState.LOOK, f"{row.finding}; in extended support, 0.60 USD an hour", f"upgrade: {where}"
        )
    return row


def _addon_offer(clients: AwsClients, addon: str, version: str, pinned: str) -> Row:
    pages = (
        clients.get("eks").get_paginator("describe_addon_versions").paginate(addonName=addon, kubernetesVersion=version)
    )
    offered = [each["addonVersion"] for page in pages for item in page["addons"] for each in item["addonVersions"]]
    return judge_offer(
        Offer(f"add-on {addon}", f"{FILE}, shopcat:cluster.addonVersions.{addon}", pinned, tuple(offered))
    )


def _ami(clients: AwsClients, version: str, pinned: str) -> Row:
    offered = []
    try:
        offered.append(clients.get("ssm").get_parameter(Name=AMI.format(version=version))["Parameter"]["Value"])
    except ClientError as error:
        if error_code(error) != "ParameterNotFound":  # EKS has no nodes for this version
            raise
    if pinned.startswith(f"{version}."):
        name = AMI_NAME.format(version=version, date=pinned.rpartition("-")[2])
        images = clients.get("ec2").describe_images(Owners=["amazon"], Filters=[{"Name": "name", "Values": [name]}])
        offered += [pinned] if images["Images"] else []
    return judge_offer(Offer("node AMI", f"{FILE}, shopcat:cluster.amiReleaseVersion", pinned, tuple(offered)))


def _engine(clients: AwsClients, pinned: str) -> Row:
    pages = clients.get("rds").get_paginator("describe_db_engine_versions").paginate(Engine="postgres")
    versions = [
        each["EngineVersion"]
        for page in pages
        for each in page["DBEngineVersions"]
        if each.get("Status", "available") == "available"
    ]
    offered = {*versions, *(version.partition(".")[0] for version in versions)}
    same_form = tuple(version for version in offered if ("." in version) == ("." in pinned))
    where = f"{FILE}, shopcat:database.engineVersion (it restarts the database; read RDS's notes on the version)"
    return judge_offer(Offer("PostgreSQL", where, pinned, same_form, step=newest_of_major(pinned, same_form)))


def _chart(chart: str, repository: str, pinned: str, key: str) -> Row:
    offered = crds.versions(repository, chart)
    also = f", together with shopcat:chartDigests.{key} and shopcat:images.{key}; read the publisher's notes on what lies between"
    return judge_offer(Offer(f"chart {chart}", f"{FILE}, shopcat:charts.{key}", pinned, tuple(offered), also=also))


def _pulumi(folder: Path) -> Row:
    """Judge the version of CLI and SDK; the workflows install what is pinned there, by its checksum (pipeline/downloads.py)."""
    pins = _PULUMI_PIN.findall((folder / INFRA_REQUIREMENTS).read_text(encoding="utf-8"))
    if len(pins) != 1:
        return Row(
            "Pulumi CLI",
            FindingState.CHANGE,
            f"{INFRA_REQUIREMENTS} pins {pins or 'no version'}",
            "pin pulumi==<version> there",
        )
    (pinned,) = pins
    try:
        newest = crds.get_url(NEWEST_PULUMI).decode(errors="replace").strip()
    except ShopCatError as error:
        return Row("Pulumi CLI", FindingState.LOOK, f"{pinned}; newest unknown: {error}")
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)+", newest):
        return Row("Pulumi CLI", FindingState.LOOK, f"{pinned}; newest unknown: {NEWEST_PULUMI} answers no version")
    return judge_offer(
        Offer("Pulumi CLI", f"pulumi in {INFRA_REQUIREMENTS}, then `make pins`", pinned, (pinned, newest))
    )
