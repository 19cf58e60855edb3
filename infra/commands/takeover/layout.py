"""Read a Terraform layout: its cluster and network, and where the settings speak of others."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from infra.commands.takeover import nodes
from infra.commands.takeover.matching import block, vpc_of
from infra.commands.takeover.state import masked
from infra.commands.takeover.suggestions import setting_line
from infra.settings.limits import OLDEST_KUBERNETES

if TYPE_CHECKING:
    from infra.commands.takeover.state import Owned
    from infra.settings import Settings

_ARN = re.compile(r"arn:aws[a-z-]*:(?:eks|rds|ecr):([a-z0-9-]+):([0-9]{12}):.+")


def production_cluster(owned: Sequence[Owned], settings: Settings) -> Owned | None:
    """Return the cluster of the production: that of the name in the settings, else the only one."""
    clusters = [each for each in owned if each.type_name == "aws_eks_cluster" and not each.deposed]
    named = [each for each in clusters if each.text("name") == settings.cluster.name]
    candidates = named or clusters
    return candidates[0] if len(candidates) == 1 else None


def subnets_of(cluster: Owned, owned: Sequence[Owned]) -> list[Owned]:
    """Return the subnets that a cluster is in, as far as Terraform owns them."""
    ids = block(cluster, "vpc_config").get("subnet_ids")
    ids = ids if isinstance(ids, list) else []
    return [each for each in owned if each.type_name == "aws_subnet" and each.text("id") and each.text("id") in ids]


def account_of(owned: Sequence[Owned]) -> str:
    """Return the account that a state's ARNs name; nothing if none does."""
    matches = (_ARN.fullmatch(each.text("arn")) for each in owned)
    return next((match[2] for match in matches if match), "")


def places_elsewhere(owned: Sequence[Owned], region: str, account: str) -> dict[str, str]:
    """Return address → place of what is in another region or account than the settings, if the shop is in theirs.

    A state may hold a replica or a repository elsewhere. With all of its clusters or databases elsewhere, the settings are of the
    wrong place: then nothing is returned, and `wrong_place` says so.
    """
    places = {each.address: _place(each) for each in owned}
    away = {
        address: f"{place}, account {owner}" if owner else place
        for address, (place, owner) in places.items()
        if (region and place not in {"", region}) or (account and owner not in {"", account})
    }
    here = {each.type_name for each in owned if places[each.address][1] and each.address not in away}
    lost = {each.type_name for each in owned if each.address in away} & {"aws_eks_cluster", "aws_db_instance"} - here
    return away if here and not lost else {}


def _place(owned: Owned) -> tuple[str, str]:
    """Return region and account of an object; the region alone from version 6 of the provider on, nothing if neither is known."""
    match = _ARN.fullmatch(owned.text("arn"))
    if match:
        return match[1], match[2]
    return (owned.text("region"), "") if owned.type_name.startswith("aws_") else ("", "")


def wrong_place(owned: Sequence[Owned], region: str, account: str) -> Iterator[str]:
    """Yield that the state is of another account or region than the settings; the first object that shows it."""
    for each in owned:
        match = _ARN.fullmatch(each.text("arn"))
        if match is None:
            continue
        if region and match[1] != region:
            yield f"{each.address} is in {match[1]}, aws:region is {region}; set it to the region of what is there"
            return
        if account and match[2] != account:
            yield (
                f"{each.address} is in account {match[2]}, the credentials are of {account}; use those of the account of what "
                "is there"
            )
            return


def wrong_references(owned: Sequence[Owned], settings: Settings) -> Iterator[str]:
    """Yield which settings speak of another cluster than the state, and that its Kubernetes is too old."""
    cluster, existing = production_cluster(owned, settings), settings.cluster.existing
    if cluster is None:
        names = [each.shown("name") for each in owned if each.type_name == "aws_eks_cluster" and not each.deposed]
        if existing is not None and names:
            yield f"shopcat:cluster.name is {settings.cluster.name}, the clusters are {', '.join(names)}; set it to the shop's"
        return
    version = re.match(r"([0-9]{1,4})\.([0-9]{1,4})", cluster.text("version"))
    if version and (int(version[1]), int(version[2])) < OLDEST_KUBERNETES:
        oldest = ".".join(map(str, OLDEST_KUBERNETES))
        yield (
            f"{cluster.address} runs Kubernetes {version[0]}, and {oldest} is the oldest that this program runs on; bring it "
            "there with Terraform first, one minor version at a time"
        )
    if existing is None:
        return
    if cluster.text("name") not in {"", settings.cluster.name}:
        yield (
            f"{cluster.address}: shopcat:cluster.name is {settings.cluster.name}, the cluster is called {cluster.shown('name')}; "
            "set it to that"
        )
    yield from nodes.wrong_nodes(cluster, owned, existing.nodes)
    vpc = vpc_of(cluster)
    if vpc not in {"", existing.vpc_id}:
        yield (
            f"{cluster.address}: shopcat:cluster.existing.vpcId is {existing.vpc_id}, the cluster has {masked(vpc, owned)}; set "
            "it to that"
        )
    groups = nodes.security_groups(cluster, owned)
    if groups and existing.security_group_id not in groups:
        yield (
            f"{cluster.address}: shopcat:cluster.existing.securityGroupId is {existing.security_group_id}, its nodes are in "
            f"{' and '.join(masked(group, owned) for group in groups)}; set it to that"
        )


def existing_cluster(owned: Sequence[Owned], settings: Settings) -> Iterator[str]:
    """Yield lines of `shopcat:cluster` that describe the cluster that is there, as far as the state tells."""
    cluster = production_cluster(owned, settings)
    if cluster is None:
        return
    vpc = vpc_of(cluster)
    network = next((each for each in owned if each.type_name == "aws_vpc" and each.text("id") == vpc), None)
    subnets = [
        each for each in owned if each.type_name == "aws_subnet" and each.text("id") and each.text("vpc_id") == vpc
    ]
    public = [each.text("id") for each in subnets if _is_public(each)]
    used = _subnets_in_use(owned)
    private = [each.text("id") for each in subnets if not _is_public(each) and (not used or each.text("id") in used)]
    elsewhere = {each.text("id") for each in owned if each.type_name == "aws_subnet" and each.text("vpc_id") != vpc}
    nat = [
        each.text("public_ip")
        for each in owned
        if each.type_name == "aws_nat_gateway" and not each.deposed and each.text("subnet_id") not in elsewhere
    ]
    known = {
        "vpcId": vpc,
        "vpcCidr": network.text("cidr_block") if network else "",
        "publicSubnetIds": public,
        "privateSubnetIds": private,
        "securityGroupId": next(iter(nodes.security_groups(cluster, owned)), ""),
        "natAddresses": list(filter(None, nat)),
    }
    yield "shopcat:cluster:"
    yield setting_line("name", cluster.text("name"), 2, owned)
    yield "  existing:"
    yield "    # kubeconfig, a secret: pulumi config set --secret --path shopcat:cluster.existing.kubeconfig"
    yield "    previewSubnetIds: []  # two more public subnets of this VPC that nothing else uses"
    for name, value in known.items():
        yield setting_line(name, value or None, 4, owned)
    yield from nodes.node_lines(nodes.node_groups(cluster, owned), owned)


def registry(owned: Sequence[Owned], settings: Settings) -> Iterator[str]:
    """Yield lines of `shopcat:registry` that describe the repository that is there, if the settings describe another."""
    repositories = [each for each in owned if each.type_name == "aws_ecr_repository" and not each.deposed]
    named = [each for each in repositories if each.text("name") == settings.registry.repository]
    candidates = named or repositories
    if len(candidates) > 1:
        yield f"# shopcat:registry.repository names the one with the shop's images: {_names(candidates)}"
    if len(candidates) != 1 or not candidates[0].text("name"):
        return
    repository, encryption = candidates[0], block(candidates[0], "encryption_configuration")
    key = encryption.get("kms_key") if encryption.get("encryption_type") == "KMS" else ""
    key = key if isinstance(key, str) else ""
    if (repository.text("name"), key) != (settings.registry.repository, settings.registry.kms_key):
        yield "shopcat:registry:"
        yield setting_line("repository", repository.text("name"), 2, owned)
        if key:
            yield setting_line("kmsKey", key, 2, owned)
        elif settings.registry.kms_key and encryption.get("encryption_type") != "KMS":
            yield '  kmsKey: ""'


def wrong_repository(owned: Sequence[Owned], settings: Settings) -> Iterator[str]:
    """Yield that the settings name another repository than the only one that is there: its images would be left behind."""
    there = [
        each for each in owned if each.type_name == "aws_ecr_repository" and not each.deposed and each.text("name")
    ]
    named = settings.registry.repository
    if len(there) == 1 and there[0].text("name") != named:
        yield (
            f"{there[0].address}: shopcat:registry.repository is {named}, and the shop's images are in "
            f"{there[0].shown('name')}; set it to that"
        )


def wrong_arns(settings: Settings, region: str, account: str) -> Iterator[str]:
    """Yield which ARN in the settings is of another region, where RDS, ECR and the Job can't use it, or of another account."""
    named = {
        "shopcat:database.masterSecret": settings.database.master_secret,
        "shopcat:database.kmsKeyArn": settings.database.kms_key_arn,
        "shopcat:registry.kmsKey": settings.registry.kms_key,
    }
    for setting, arn in named.items():
        parts = arn.split(":")
        if len(parts) < 6:
            continue
        if region and parts[3] != region:
            yield f"{setting} is in {parts[3]}, aws:region is {region}; set it to one of that region"
        elif account and parts[4] != account and parts[2] == "secretsmanager":
            yield f"{setting} is in account {parts[4]}, the credentials are of {account}; make the secret in that account"


def _names(repositories: Sequence[Owned]) -> str:
    return ", ".join(each.shown("name") for each in repositories)


def _subnets_in_use(owned: Sequence[Owned]) -> set[str]:
    """Return the subnets that clusters and their nodes are in: others are a database's."""
    used_ids: set[str] = set()
    for each in owned:
        if each.type_name in {"aws_eks_cluster", "aws_eks_node_group"}:
            ids = each.attributes.get("subnet_ids") or block(each, "vpc_config").get("subnet_ids")
            used_ids |= {text for text in ids if isinstance(text, str)} if isinstance(ids, list) else set()
    return used_ids


def zone_ids(owned: Sequence[Owned]) -> dict[str, str]:
    """Return name → id of each Route 53 zone."""
    zones = [each for each in owned if each.type_name == "aws_route53_zone" and each.text("zone_id")]
    return {each.text("name").rstrip("."): each.text("zone_id") for each in zones}


def _is_public(subnet: Owned) -> bool:
    """Tell whether load balancers that users reach may be in a subnet, by the tags that EKS reads or by its addresses."""
    tags = subnet.attributes.get("tags_all") or subnet.attributes.get("tags")
    tags = tags if isinstance(tags, dict) else {}
    if "kubernetes.io/role/elb" in tags:
        return True
    if "kubernetes.io/role/internal-elb" in tags:
        return False
    name = str(tags.get("Name", ""))
    return subnet.attributes.get("map_public_ip_on_launch") is True or "public" in name
