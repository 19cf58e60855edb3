"""Decide about what this program declares no counterpart of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from infra.commands.takeover.database_settings import setting_of
from infra.commands.takeover.kinds import KINDS, Part, TerraformType
from infra.commands.takeover.redaction import strings_in
from infra.commands.takeover.rows import Outcome, TakeoverRow
from infra.names import COLOURS, SHOP_NAMESPACE, workload_name

if TYPE_CHECKING:
    from infra.commands.takeover.declaration import Declared
    from infra.commands.takeover.matching import Pairs
    from infra.commands.takeover.state import Owned
    from infra.settings import Settings

_OWNERS = ("role", "security_group_id", "target_key_id", "key_id")
"""Attributes that name what a shared object is a part of."""


class Unpaired:
    """Knows the layout: what belongs to the cluster, which settings name what, what is declared of which type."""

    def __init__(self, owned: Sequence[Owned], pairs: Pairs, declared: Sequence[Declared], settings: Settings) -> None:
        self._pairs, self._settings = pairs, settings
        self._names: dict[str, list[str]] = {}
        for each in declared:
            self._names.setdefault(each.pulumi_type, []).append(each.name)
        self._kubernetes = {("Namespace", "", SHOP_NAMESPACE)}
        for kind in ("Deployment", "Service", "TargetGroupBinding", "PodDisruptionBudget"):
            self._kubernetes |= {(kind, SHOP_NAMESPACE, workload_name(colour)) for colour in COLOURS}
        self._kubernetes |= set(_kubernetes_names(declared))
        self._of_cluster = _parts_of_cluster(owned)
        self._encrypting = _keys_of_data(owned)

    def kubernetes_name(self, kind: str, namespace: str, name: str) -> str:
        """Return what an object in the cluster is called here, if this program declares one of that name."""
        return f"{kind} {name}" if (kind, namespace, name) in self._kubernetes else ""

    def is_of_cluster(self, owned: Owned, kind: TerraformType) -> bool:
        """Tell whether an object goes with the cluster and its network."""
        return kind.part in {Part.NETWORK, Part.CLUSTER} or owned.address in self._of_cluster

    def row(self, owned: Owned, kind: TerraformType) -> TakeoverRow:
        """Return the row of an object without a counterpart."""
        outcome, detail = self._decide(owned, kind)
        return TakeoverRow(owned.address, outcome, detail)

    def _decide(self, owned: Owned, kind: TerraformType) -> tuple[Outcome, str]:
        by_part = {
            Part.NETWORK: self._referenced,
            Part.CLUSTER: self._referenced,
            Part.SHARED: self._shared,
            Part.DATABASE: self._database,
            Part.REGISTRY: self._beside,
            Part.SECRETS: self._secret,
            Part.ZONE: self._zone,
            Part.EDGE: self._edge,
            Part.CHART: self._chart,
        }
        if setting := setting_of(owned, self._settings.database):
            return Outcome.USED, f"{setting} names it"
        decide = by_part.get(kind.part)
        if decide is None:
            return Outcome.LEFT, "it is only in Terraform's state"
        return decide(owned, kind)

    def _referenced(self, owned: Owned, kind: TerraformType) -> tuple[Outcome, str]:
        existing = self._settings.cluster.existing
        if existing is not None:
            named = {
                existing.vpc_id: "vpcId",
                **dict.fromkeys(existing.public_subnet_ids, "publicSubnetIds"),
                **dict.fromkeys(existing.preview_subnet_ids, "previewSubnetIds"),
                **dict.fromkeys(existing.private_subnet_ids, "privateSubnetIds"),
                existing.security_group_id: "securityGroupId",
                **dict.fromkeys(existing.nat_addresses, "natAddresses"),
            }
            if owned.type_name == "aws_eks_cluster" and owned.text("name") == self._settings.cluster.name:
                named[owned.text("id")] = "kubeconfig"
            setting = named.get(owned.text("id")) or named.get(owned.text("public_ip"))
            if setting:
                return Outcome.USED, f"shopcat:cluster.existing.{setting} names it"
        part = "network" if kind.part is Part.NETWORK else "cluster"
        return Outcome.USED, f"a part of the {part} that no setting names; whoever keeps it goes on keeping it"

    def _shared(self, owned: Owned, kind: TerraformType) -> tuple[Outcome, str]:
        if owned.address in self._of_cluster:
            return self._referenced(owned, kind)
        if owned.type_name.startswith("aws_kms"):
            if owned.identity & self._encrypting or owned.text("target_key_id") in self._encrypting:
                return Outcome.USED, "it encrypts data that stays; never delete it before that is gone"
            return Outcome.UNKNOWN, "it may encrypt something; look at its use before it is deleted"
        if "security_group" in owned.type_name:
            return Outcome.BESIDE, "security groups of this program's load balancers and database"
        return Outcome.LEFT, "nothing of this program uses it"

    def _database(self, owned: Owned, kind: TerraformType) -> tuple[Outcome, str]:
        if kind.holds_data:
            return Outcome.UNKNOWN, "it holds data, and this program declares no such database"
        return self._beside(owned, kind)

    def _beside(self, owned: Owned, kind: TerraformType) -> tuple[Outcome, str]:
        names = self._names.get(kind.pulumi_type, []) if kind.pulumi_type else []
        if not names:
            return Outcome.LEFT, "this program declares nothing like it"
        detail = f"{kind.pulumi_type} {', '.join(sorted(names))}"
        if kind.holds_data:
            detail += f"; what {owned.shown('name') or 'it'} holds stays there and is not copied"
        return Outcome.BESIDE, detail

    def _secret(self, owned: Owned, kind: TerraformType) -> tuple[Outcome, str]:
        if owned.type_name == "aws_secretsmanager_secret_version":
            secrets = self._pairs.only("aws:secretsmanager/secret:Secret")
            if secrets is not None and owned.text("secret_id") in secrets.identity:
                return Outcome.USED, "the value of a secret that is taken over"
            return Outcome.LEFT, "the value of a secret that this program does not read"
        if owned.type_name in {"aws_dynamodb_table", "aws_ssm_parameter"}:
            return Outcome.UNKNOWN, "this program declares none of that name; look who uses it"
        return self._beside(owned, kind)

    def _zone(self, owned: Owned, _: TerraformType) -> tuple[Outcome, str]:
        zones = {
            self._settings.zone.rstrip("."): "hostedZone",
            self._settings.preview_zone.rstrip("."): "previewHostedZone",
        }
        setting = zones.get(owned.text("name").rstrip("."))
        if setting and self._settings.dns == "route53":
            return Outcome.USED, f"the zone of shopcat:{setting}"
        return Outcome.USED, "no record of this program goes into it"

    def _edge(self, owned: Owned, kind: TerraformType) -> tuple[Outcome, str]:
        if owned.type_name == "aws_route53_record":
            if self._settings.dns == "external":
                return Outcome.USED, "shopcat:dns is external: whoever enters names changes it"
            return Outcome.UNKNOWN, "this program declares no record of that name and type; look who uses it"
        if owned.type_name == "aws_elb":
            return (
                Outcome.BESIDE,
                "the load balancer shopcat; `make takeover-dns` moves its users and counts its requests",
            )
        if owned.text("load_balancer_type") == "network":
            return (
                Outcome.BESIDE,
                "the load balancer shopcat; `make takeover-dns` moves its users and counts its connections",
            )
        if owned.text("load_balancer_type") == "gateway":
            return (
                Outcome.UNKNOWN,
                "it hands traffic to appliances, and `make takeover-dns` can't count it; look who uses it",
            )
        return self._beside(owned, kind)

    @staticmethod
    def _chart(owned: Owned, _: TerraformType) -> tuple[Outcome, str]:
        if owned.text("namespace") == SHOP_NAMESPACE:
            return Outcome.BESIDE, "the release of this program; HELM=<file> lists the chart's objects"
        return Outcome.USED, "another chart; it needs room that infra/capacity.py does not count"


_PROFILE = "aws_iam_instance_profile"
_BY_NAME = ("aws_iam_role", _PROFILE)
"""Types that others may refer to by name: a profile to its role, a launch template to a profile."""


def _parts_of_cluster(owned: Sequence[Owned]) -> set[str]:
    """Return addresses of roles, groups, keys and logs that are the cluster's: it refers to them, or its module has them."""
    own = [each for each in owned if KINDS.get(each.type_name) and KINDS[each.type_name].part is Part.CLUSTER]
    network = [each for each in owned if each.type_name == "aws_vpc"]
    modules = {each.module for each in (*own, *network) if each.module}
    known = {text for each in own for text in strings_in(each.attributes)}
    known |= {f"/aws/eks/{each.text('name')}/cluster" for each in own if each.type_name == "aws_eks_cluster"}
    shared = [each for each in owned if KINDS.get(each.type_name) and KINDS[each.type_name].part is Part.SHARED]
    owners = {text for text in known if text.startswith("sg-")}
    addresses: set[str] = set()
    count = -1
    while count != len(addresses):
        count = len(addresses)
        for each in shared:
            inside = any(each.module == module or each.module.startswith(f"{module}.") for module in modules)
            owner = {each.text(name) for name in _OWNERS} - {""}
            names = {each.text("arn") or each.text("id"), each.text("name") if each.type_name in _BY_NAME else ""} - {
                ""
            }
            if inside or names & known or owner & owners:
                addresses.add(each.address)
                owners |= each.identity
                known |= {each.text("role")} if each.type_name == _PROFILE else set()
    return addresses


def _keys_of_data(owned: Sequence[Owned]) -> set[str]:
    """Return ids and ARNs of the keys that encrypt what holds data."""
    return {
        text
        for each in owned
        if KINDS.get(each.type_name) and KINDS[each.type_name].holds_data
        for text in strings_in(
            {name: value for name, value in each.attributes.items() if "kms" in name or "encrypt" in name}
        )
    } - {""}


def _kubernetes_names(declared: Sequence[Declared]) -> Iterator[tuple[str, str, str]]:
    for each in declared:
        metadata = each.inputs.get("metadata")
        if each.pulumi_type.startswith("kubernetes:") and isinstance(metadata, dict):
            yield (
                each.pulumi_type.rpartition(":")[2],
                str(metadata.get("namespace") or ""),
                str(metadata.get("name") or ""),
            )
