"""Decide what becomes of everything that Terraform and Helm own, and refuse what would lose data or the cluster.

A plan says what this version of the program would do with these settings. Where no setting can describe what is there, the plan
says so: it is refused, and nothing is promised.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from infra.commands.takeover import layout
from infra.commands.takeover.database_settings import existing_database
from infra.commands.takeover.differences import NOTHING, Difference, Effect, compare, state_value
from infra.commands.takeover.helm import TYPE as HELM_TYPE
from infra.commands.takeover.kinds import KINDS, Part, TerraformType, documentation_page, kubernetes_kind
from infra.commands.takeover.matching import Pairs, block, may_be_shops, vpc_of
from infra.commands.takeover.rows import Outcome, TakeoverRow
from infra.commands.takeover.state import masked
from infra.commands.takeover.suggestions import usable_lines
from infra.commands.takeover.unpaired import Unpaired
from infra.foundation.database_fit import engine_refusal, storage_refusal
from infra.foundation.import_commands import import_command, provider_urn
from infra.names import COLOURS, PRODUCTION_STACK, PROJECT, SHOP_NAMESPACE, workload_name

if TYPE_CHECKING:
    from infra.commands.takeover.declaration import Declared
    from infra.commands.takeover.state import Owned
    from infra.settings import Settings

_EKS_CLUSTER = "aws:eks/cluster:Cluster"
_VPC = "aws:ec2/vpc:Vpc"
_REPOSITORY = "aws:ecr/repository:Repository"
_RECORD = "aws_route53_record"
_INSTANCE = "aws:rds/instance:Instance"
EXISTING = "shopcat:cluster.existing"
NO_SETTING = "no setting of this version describes that, so it can't be taken over yet"
ASK = "run the plan without OFFLINE=1, so that AWS is asked, or refresh the state (`terraform apply -refresh-only`)"
SETTINGS: Mapping[tuple[str, str], str] = {
    (_VPC, "cidrBlock"): f"shopcat:vpc.cidr or {EXISTING}",
    ("aws:ec2/subnet:Subnet", "availabilityZone"): f"shopcat:vpc.zones or {EXISTING}",
    (_EKS_CLUSTER, "name"): f"shopcat:cluster.name or {EXISTING}",
    (_EKS_CLUSTER, "version"): "shopcat:cluster.kubernetesVersion",
    (_EKS_CLUSTER, "upgradePolicy"): "shopcat:cluster.supportType",
    (_EKS_CLUSTER, "vpcConfig.endpointPublicAccess"): "shopcat:apiAccess",
    (_EKS_CLUSTER, "vpcConfig.publicAccessCidrs"): "shopcat:apiAccess",
    ("aws:eks/nodeGroup:NodeGroup", "version"): "shopcat:cluster.kubernetesVersion",
    ("aws:eks/nodeGroup:NodeGroup", "releaseVersion"): "shopcat:cluster.amiReleaseVersion",
    ("aws:eks/addon:Addon", "addonVersion"): "shopcat:cluster.addonVersions",
    ("aws:cloudwatch/logGroup:LogGroup", "retentionInDays"): "shopcat:cluster.logRetentionDays",
    **{
        (_INSTANCE, argument): f"shopcat:database.{setting}"
        for argument, setting in {
            "allocatedStorage": "storageGibibytes",
            "backupRetentionPeriod": "backupRetentionDays",
            "dbName": "dbName",
            "dbSubnetGroupName": "subnetGroup",
            "engineVersion": "engineVersion",
            "iamDatabaseAuthenticationEnabled": "iamAuthentication",
            "identifier": "identifier",
            "instanceClass": "instanceClass",
            "iops": "iops",
            "kmsKeyId": "kmsKeyArn",
            "manageMasterUserPassword": "masterSecret",
            "maxAllocatedStorage": "maxStorageGibibytes",
            "multiAz": "multiZone",
            "parameterGroupName": "parameterGroup",
            "port": "port",
            "storageEncrypted": "encrypted",
            "storageType": "storageType",
            "username": "username",
            "vpcSecurityGroupIds": "securityGroupIds",
        }.items()
    },
    (_INSTANCE, "deletionProtection"): "shopcat:protection",
    ("aws:route53/record:Record", "aliases"): "shopcat:dns",
    (_REPOSITORY, "encryptionConfigurations"): "shopcat:registry.kmsKey",
    ("kubernetes:helm.sh/v3:Release", "version"): "shopcat:charts",
}
"""Setting that decides an argument (infra/settings)."""
LOOK = "look who uses it"
DOUBLE_ENCRYPTION = "KMS_DSSE"
"""A repository's encryption in two layers, which the provider can make and no setting names."""
UNGUARDED = (
    "no update stops at it: the first `pulumi up` makes another, or writes over it, before this can run; "
    f"{EXISTING} avoids that for a network and a cluster"
)
UNTAGGED = (
    "this program's lifecycle policy deletes its images without a tag: give those that run one first (docs/takeover.md)"
)


@dataclass(frozen=True)
class TakeoverPlan:
    """Everything that is decided."""

    rows: tuple[TakeoverRow, ...]
    errors: tuple[str, ...]
    anew: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Type → logical names of what is declared and has nothing of its kind there."""
    suggestion: tuple[str, ...] = ()
    """Lines of settings that would describe the cluster, the repository and the database that are there."""


def plan_takeover(
    owned: Sequence[Owned],
    declared: Sequence[Declared],
    settings: Settings,
    *,
    region: str = "",
    account: str = "",
    notes: Mapping[str, str] | None = None,
) -> TakeoverPlan:
    """Decide about each object.

    Args:
        owned: by Terraform and by Helm.
        declared: by this program, with these settings.
        settings: of the stack.
        region: of the settings.
        account: that the credentials belong to; empty if nobody was asked.
        notes: address → what AWS says of it that the state does not.
    """
    everything, elsewhere = owned, layout.places_elsewhere(owned, region, account)
    owned = [each for each in owned if each.address not in elsewhere]
    pairs = Pairs(declared, owned)
    paired = {
        each.address: compare(KINDS[each.type_name], counterpart, each, pairs.resolve)
        for each in owned
        if (counterpart := pairs.counterpart(each)) is not None
    }
    errors = [
        *layout.wrong_place(owned, region, account),
        *layout.wrong_references(owned, settings),
        *layout.wrong_repository(owned, settings),
        *layout.wrong_arns(settings, region, account),
    ]
    losses = list(_losses(owned, paired, pairs, is_asked=bool(account)))
    cluster_fits = not any(is_cluster for is_cluster, _ in losses)
    errors += [text for _, text in losses]
    errors += _several_databases(owned, pairs, settings)
    errors += _disturbed_database(owned, pairs, settings)
    errors += _taken_names(owned, paired, pairs)
    unpaired = Unpaired(owned, pairs, declared, settings)
    rows = [
        TakeoverRow(
            each.address, Outcome.UNKNOWN, f"it is in {elsewhere[each.address]}, not where the settings are; {LOOK}"
        )
        if each.address in elsewhere
        else _row(
            each,
            pairs,
            paired.get(each.address),
            unpaired,
            cluster_fits=cluster_fits,
            note=(notes or {}).get(each.address, ""),
        )
        for each in everything
    ]
    suggestion = [
        *(() if cluster_fits else layout.existing_cluster(owned, settings)),
        *layout.registry(owned, settings),
    ]
    instance = pairs.only(_INSTANCE)
    if instance is not None and _is_disturbed(KINDS[instance.type_name], paired[instance.address]):
        suggestion += existing_database(instance, owned, settings)
    usable, unusable = usable_lines(suggestion, settings)
    return TakeoverPlan(tuple(rows), (*errors, *unusable), _anew(pairs, cluster_fits=cluster_fits), tuple(usable))


def _is_disturbed(kind: TerraformType, differences: Sequence[Difference]) -> bool:
    """Tell whether a database would be replaced, or whoever uses it shut out."""
    return _is_lost(kind, differences) or any(each.argument == "manageMasterUserPassword" for each in differences)


def _row(
    owned: Owned,
    pairs: Pairs,
    differences: list[Difference] | None,
    unpaired: Unpaired,
    *,
    cluster_fits: bool,
    note: str,
) -> TakeoverRow:
    kind = KINDS.get(owned.type_name)
    row = _decide(owned, kind, pairs, differences, unpaired, cluster_fits=cluster_fits)
    remarks = [note] if note else []
    if owned.tainted:
        remarks.append("tainted: Terraform would replace it at its next apply")
    return replace(row, remarks=(*row.remarks, *remarks))


def _decide(
    owned: Owned,
    kind: TerraformType | None,
    pairs: Pairs,
    differences: list[Difference] | None,
    unpaired: Unpaired,
    *,
    cluster_fits: bool,
) -> TakeoverRow:
    if owned.deposed:
        return TakeoverRow(owned.address, Outcome.LEFT, "replaced already, and Terraform has not deleted it yet")
    if owned.type_name == HELM_TYPE or kubernetes_kind(owned.type_name):
        return _kubernetes_row(owned, unpaired)
    if kind is None:
        return TakeoverRow(owned.address, Outcome.UNKNOWN, "this program does not know the type; look at it by hand")
    declared = pairs.counterpart(owned)
    if declared is None or differences is None:
        return unpaired.row(owned, kind)
    if not cluster_fits and not _is_lost(kind, differences) and unpaired.is_of_cluster(owned, kind):
        return TakeoverRow(owned.address, Outcome.USED, f"with the cluster, once {EXISTING} describes it")
    return _paired(owned, kind, declared, differences)


def _is_lost(kind: TerraformType, differences: Sequence[Difference]) -> bool:
    return kind.holds_data and any(each.forced or each.effect is Effect.REPLACES for each in differences)


def _paired(owned: Owned, kind: TerraformType, declared: Declared, differences: list[Difference]) -> TakeoverRow:
    row, named = _import(owned, kind, declared, differences), f"{declared.pulumi_type} {declared.name}"
    if _is_lost(kind, differences):
        verb = "would" if any(each.effect is Effect.REPLACES for each in differences) else "may"
        return replace(row, outcome=Outcome.REFUSED, detail=f"{named} {verb} replace it", remarks=())
    if owned.type_name == _RECORD and differences:
        return replace(
            row, outcome=Outcome.REFUSED, detail=f"{named} would lead all users elsewhere at once", remarks=()
        )
    return row


def _import(owned: Owned, kind: TerraformType, declared: Declared, differences: list[Difference]) -> TakeoverRow:
    identifier = import_id(kind, owned)
    if not identifier:
        return TakeoverRow(
            owned.address, Outcome.UNKNOWN, f"the state lacks what its import id {kind.import_id} is made of"
        )
    noted = tuple(_with_source(owned.type_name, declared.pulumi_type, difference) for difference in differences)
    remarks = [] if declared.is_guarded else [UNGUARDED]
    if declared.pulumi_type == _REPOSITORY:
        remarks.append(UNTAGGED)
    return TakeoverRow(owned.address, Outcome.TAKEN, takeover_command(declared, identifier), noted, tuple(remarks))


def takeover_command(declared: Declared, identifier: str) -> str:
    """Return the command that takes one thing into the state, the same with which `pulumi up` stops at it."""
    package = declared.pulumi_type.partition(":")[0]
    urns = {"provider": provider_urn(PRODUCTION_STACK, PROJECT, package)}
    if declared.parent:
        urns["parent"] = declared.parent
    return import_command(PRODUCTION_STACK, urns, declared.pulumi_type, declared.name, identifier)


def _with_source(type_name: str, pulumi_type: str, difference: Difference) -> Difference:
    """Name the page that says of an argument that it needs a new resource, or the setting that decides another."""
    setting = _setting(pulumi_type, difference)
    if difference.effect is Effect.REPLACES:
        text = documentation_page(type_name)
    elif setting:
        text = f"{setting} decides it"
    else:
        return difference
    return replace(difference, note=f"{difference.note}; {text}" if difference.note else text)


def _setting(pulumi_type: str, difference: Difference) -> str:
    top = difference.argument.partition(".")[0]
    return SETTINGS.get((pulumi_type, difference.argument)) or SETTINGS.get((pulumi_type, top)) or ""


def import_id(kind: TerraformType, owned: Owned) -> str:
    """Return the id for `pulumi import`; nothing if the state lacks a part of it."""
    names = re.findall(r"{(\w+)}", kind.import_id)
    parts = {name: owned.shown(name) for name in names}
    return kind.import_id.format(**parts) if all(parts.values()) else ""


# Refusals -------------------------------------------------------------------------------------------------------------


def _losses(
    owned: Sequence[Owned], paired: Mapping[str, list[Difference]], pairs: Pairs, *, is_asked: bool
) -> Iterator[tuple[bool, str]]:
    """Yield why taking something over would lose it: whether that is the cluster or its network, and the message."""
    for each in owned:
        declared, kind = pairs.counterpart(each), KINDS.get(each.type_name)
        if declared is None or kind is None or not kind.holds_data:
            continue
        is_cluster = kind.part in {Part.NETWORK, Part.CLUSTER}
        for difference in paired[each.address]:
            if difference.forced or difference.effect is Effect.REPLACES:
                setting = _setting(declared.pulumi_type, difference) or (EXISTING if is_cluster else "")
                mend = (
                    f"set {setting} to what is there" if setting and not _is_beyond_settings(difference) else NO_SETTING
                )
                if difference.effect is Effect.UNKNOWN and not is_asked:
                    mend = ASK
                yield is_cluster, f"{each.address}: {_loss(kind, difference)}; {mend}"
    for text in _moved_cluster(owned, pairs):
        yield True, text


def _is_beyond_settings(difference: Difference) -> bool:
    """Tell whether a value is one that its setting can't have: no name of a database is not an empty name."""
    return difference.actual == DOUBLE_ENCRYPTION or (difference.argument, difference.actual) == ("dbName", NOTHING)


def _loss(kind: TerraformType, difference: Difference) -> str:
    if difference.effect is Effect.REPLACES:
        values = f"{difference.argument} is {difference.actual}, this program declares {difference.declared}"
        return f"{values}, so {_what(kind)} would be replaced"
    return f"the state says nothing of {difference.argument}, so {_what(kind)} may be replaced"


def _moved_cluster(owned: Sequence[Owned], pairs: Pairs) -> Iterator[str]:
    """Yield why the cluster would be elsewhere, or another one."""
    cluster, anew = pairs.only(_EKS_CLUSTER), {each.pulumi_type for each in pairs.anew()}
    if cluster is not None and _VPC in anew:
        yield (
            f"{cluster.address}: its network {masked(vpc_of(cluster), owned) or 'unknown'} is not in this state, and this "
            f"program would make another, where the cluster can't go; set {EXISTING} to what is there"
        )
    subnets = layout.subnets_of(cluster, owned) if cluster is not None else []
    left = ", ".join(subnet.address for subnet in subnets if pairs.counterpart(subnet) is None)
    if left:
        yield (
            f"{left}: the cluster is there, and this program declares no such subnets, so the nodes would be replaced elsewhere; "
            f"set {EXISTING} to what is there"
        )
    is_there = any(each.type_name == "aws_eks_cluster" and not each.deposed for each in owned)
    if is_there and _EKS_CLUSTER in anew:
        yield (
            "can't say which EKS cluster is the production's, and this program would make another; set shopcat:cluster.name to "
            f"its name, or {EXISTING}"
        )


def _what(kind: TerraformType) -> str:
    return {
        Part.NETWORK: "the network, and the cluster in it,",
        Part.CLUSTER: "the cluster, and all that runs in it,",
        Part.DATABASE: "the database, and all orders in it,",
        Part.REGISTRY: "the repository, and all images in it,",
    }.get(kind.part, "it, and all that it holds,")


def _several_databases(owned: Sequence[Owned], pairs: Pairs, settings: Settings) -> Iterator[str]:
    """Yield why this program would make an empty database beside those that hold the orders."""
    chosen = pairs.only(_INSTANCE)
    is_named = chosen is not None and chosen.text("identifier") == settings.database.identifier
    for each in owned:
        if each.type_name == "aws_rds_cluster" and not each.deposed and not is_named:
            yield f"{each.address}: a cluster of RDS can't be taken over, this program declares one instance; {NO_SETTING}"
    left = [each for each in owned if each.type_name == "aws_db_instance" and not each.deposed and may_be_shops(each)]
    if left and chosen is None:
        names = ", ".join(each.address for each in left)
        yield (
            f"{names}: can't say which is the shop's, and this program would make an empty database beside it; set "
            "shopcat:database.identifier to the shop's"
        )


def _disturbed_database(owned: Sequence[Owned], pairs: Pairs, settings: Settings) -> Iterator[str]:
    """Yield what no argument that is declared says of the shop's database, and would change what its users have."""
    wanted = settings.database
    if wanted.is_taken_over and not any(each.type_name in {"aws_db_instance", "aws_rds_cluster"} for each in owned):
        yield (
            f"shopcat:database describes a database that somebody else has made ({wanted.identifier}), and the state has none; "
            "name the state that has it, or remove masterSecret, username and the groups to get a new, empty one"
        )
    for each in owned:
        counterpart = pairs.counterpart(each)
        if counterpart is None or counterpart.pulumi_type != _INSTANCE:
            continue
        if each.text("replicate_source_db"):
            yield (
                f"{each.address}: it is a replica of {each.shown('replicate_source_db')}, and an update without that would make "
                "it a database of its own; take over the one that it follows, or promote it first"
            )
        size = each.attributes.get("allocated_storage")
        version = str(state_value("engineVersion", each.attributes) or "")
        reasons = {
            str(size): storage_refusal(size, wanted) if isinstance(size, int) else "",
            version: engine_refusal(version, wanted),
        }
        for value, reason in reasons.items():
            if reason:
                yield f"{each.address}: {reason.replace(value, masked(value, [each]))}"
        port = each.attributes.get("port")
        if port is not None and str(port) != str(settings.database.port):
            shown = masked(port, [each])
            yield (
                f"{each.address}: it answers at port {shown}, and pods would be let in and led to {settings.database.port}; "
                f"set shopcat:database.port to {shown}"
            )


def _taken_names(owned: Sequence[Owned], paired: Mapping[str, list[Difference]], pairs: Pairs) -> Iterator[str]:
    """Yield which record would lead all users elsewhere at once, and `pulumi up` refuses."""
    for each in owned:
        counterpart = pairs.counterpart(each)
        if counterpart is not None and each.type_name == _RECORD and paired[each.address]:
            yield (
                f"{each.address}: {each.shown('name')} {each.text('type')} leads to the old load balancer, and with shopcat:dns "
                "route53 this program would lead it to its own at once; set shopcat:dns to external"
            )


# Objects in the cluster -----------------------------------------------------------------------------------------------

_BESIDE = {
    "Deployment": ", ".join(f"Deployment {workload_name(colour)}" for colour in COLOURS),
    "Service": ", ".join(f"Service {workload_name(colour)}" for colour in COLOURS),
    "TargetGroupBinding": ", ".join(f"TargetGroupBinding {workload_name(colour)}" for colour in COLOURS),
    "PodDisruptionBudget": ", ".join(f"PodDisruptionBudget {workload_name(colour)}" for colour in COLOURS),
    "Ingress": "the load balancer shopcat, whose rule this program writes itself",
    "Secret": "a Secret of each release, from Secrets Manager",
}
"""Kind → what this program makes anew beside it."""


def _kubernetes_row(owned: Owned, unpaired: Unpaired) -> TakeoverRow:
    kind, named = owned.text("kind"), owned.attributes
    if owned.type_name != HELM_TYPE:
        kind, named = kubernetes_kind(owned.type_name), block(owned, "metadata")
    name, namespace = (value if isinstance(value, str) else "" for value in map(named.get, ("name", "namespace")))
    if kind == "Namespace":
        namespace = ""
    declared = unpaired.kubernetes_name(kind, namespace, name)
    if declared:
        unsaid = Difference("(all)", "what Helm or Terraform wrote", "this program's", Effect.UNKNOWN)
        return TakeoverRow(
            owned.address,
            Outcome.TAKEN,
            f"no import: the provider takes up what has this name ({declared})",
            (unsaid,),
        )
    if namespace == SHOP_NAMESPACE and kind in _BESIDE:
        return TakeoverRow(owned.address, Outcome.BESIDE, _BESIDE[kind])
    if namespace == SHOP_NAMESPACE or owned.type_name == HELM_TYPE:
        return TakeoverRow(owned.address, Outcome.LEFT, "this program declares nothing like it")
    return TakeoverRow(owned.address, Outcome.UNKNOWN, "this program declares nothing like it there; look who uses it")


def _anew(pairs: Pairs, *, cluster_fits: bool) -> dict[str, tuple[str, ...]]:
    """Return what is made anew; without a cluster and its network, if those can only be described."""
    parts = {kind.pulumi_type: kind.part for kind in KINDS.values()}
    anew: dict[str, list[str]] = {}
    for each in pairs.anew():
        if cluster_fits or parts.get(each.pulumi_type) not in {Part.NETWORK, Part.CLUSTER}:
            anew.setdefault(each.pulumi_type, []).append(each.name)
    return {pulumi_type: tuple(sorted(names)) for pulumi_type, names in sorted(anew.items())}
