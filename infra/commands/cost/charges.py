"""Charges of AWS for each resource that is declared: how many of which price, or by what use.

A type that is neither here nor in the price list's `free` is an error, and so is an argument that another price would belong
to: a resource can't be added without its cost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from infra.commands.takeover.declaration import Declared, reference
from infra.errors import SettingsError
from infra.names import POD_LOGS_GROUP, STATE_BACKENDS

if TYPE_CHECKING:
    from infra.commands.cost.prices import PriceList
    from infra.settings import Settings


@dataclass(frozen=True)
class Charge:
    """One line of a bill."""

    what: str
    price: str
    """Name in the price list."""
    count: Decimal | None
    """Number of them at once; None: paid by use, so that nothing is added up."""


Declarations = Mapping[tuple[str, str], Declared]


def _fixed(what: str, price: str, count: float = 1) -> Charge:
    return Charge(what, price, Decimal(str(count)))


def _by_use(what: str, price: str) -> Charge:
    return Charge(what, price, None)


def _expect(resource: Declared, argument: str, value: Any, expected: Any) -> None:
    """Refuse a resource that another price belongs to.

    Raises:
        SettingsError: the argument is not the one that is priced.
    """
    if value != expected:
        raise SettingsError(
            f"{resource.pulumi_type} {resource.name}: {argument} is {value!r} and only {expected!r} has a price; add "
            "its price, and which one it is in infra/commands/cost/charges.py"
        )


def _node_group(resource: Declared, declared: Declarations) -> Iterable[Charge]:
    _expect(resource, "capacityType", resource.inputs.get("capacityType"), "ON_DEMAND")
    (instance_type,) = resource.inputs["instanceTypes"]
    count = resource.inputs["scalingConfig"]["desiredSize"]
    yield _fixed(f"node {instance_type}", instance_type, count)
    template = reference(resource.inputs["launchTemplate"]["id"])
    if template is None:
        raise SettingsError(f"{resource.pulumi_type} {resource.name}: no launch template says how large its disks are")
    for disk in declared[template].inputs["blockDeviceMappings"]:
        _expect(resource, "volumeType", disk["ebs"]["volumeType"], "gp3")
        yield _fixed("disks of the nodes", "node-disk", count * disk["ebs"]["volumeSize"])


def _load_balancer(resource: Declared, _: Declarations) -> Iterable[Charge]:
    _expect(resource, "loadBalancerType", resource.inputs.get("loadBalancerType"), "application")
    yield _fixed("load balancer", "load-balancer")
    if not resource.inputs.get("internal"):
        yield _fixed(
            "public address of a load balancer, one in each zone", "public-ipv4", len(resource.inputs["subnets"])
        )
    yield _by_use("requests and traffic of the load balancers", "load-balancer-capacity")
    yield _by_use("answers to the internet", "transfer-out")


def _vpc_endpoint(resource: Declared, _: Declarations) -> Iterable[Charge]:
    kind = resource.inputs.get("vpcEndpointType")
    if kind != "Gateway":  # those cost nothing
        _expect(resource, "vpcEndpointType", kind, "Interface")
        yield _fixed("interface endpoint, in each zone", "interface-endpoint", len(resource.inputs["subnetIds"]))
        yield _by_use("traffic through interface endpoints", "interface-endpoint-traffic")


def _database(resource: Declared, declared: Declarations) -> Iterable[Charge]:
    inputs = {**_source_of_copy(resource, declared), **resource.inputs}
    _expect(resource, "engine", inputs.get("engine"), "postgres")
    kind = inputs.get("storageType")
    if kind != "gp2":  # of a database that was there before
        _expect(resource, "storageType", kind, "gp3")
    _expect(resource, "iops", inputs.get("iops"), None)
    instance_class = inputs["instanceClass"]
    zones, place = ("multi", "two zones") if inputs.get("multiAz") else ("single", "one zone")
    yield _fixed(f"database {instance_class} in {place}", f"{instance_class}-{zones}")
    yield _fixed(
        f"storage of the database in {place}",
        f"database-storage{'-gp2' if kind == 'gp2' else ''}-{zones}",
        inputs["allocatedStorage"],
    )
    if inputs.get("manageMasterUserPassword"):
        yield _fixed("secret with the database's master password", "secret")


def _source_of_copy(resource: Declared, declared: Declarations) -> Mapping[str, Any]:
    """Return the arguments of the database that this one is a copy of: a restore takes from it what it does not say itself."""
    source = (resource.inputs.get("restoreToPointInTime") or {}).get("sourceDbInstanceIdentifier")
    others = [each.inputs for each in declared.values() if each.pulumi_type == resource.pulumi_type]
    return next((inputs for inputs in others if source and inputs.get("identifier") == source), {})


def _logs(resource: Declared, _: Declarations) -> Iterable[Charge]:
    if resource.inputs["name"] == POD_LOGS_GROUP:
        yield _by_use("logs of pods, as they are written", "logs-pods")
        yield _by_use(f"the same, kept for {int(resource.inputs['retentionInDays'])} days", "logs-kept")
        return
    yield _by_use("logs of the control plane, as they are written", "logs")
    yield _by_use(f"the same, kept for {int(resource.inputs['retentionInDays'])} days", "logs-kept")


def _alarm(resource: Declared, _: Declarations) -> Iterable[Charge]:
    metrics = [query for query in resource.inputs["metricQueries"] if "metric" in query]
    yield _fixed("alarms of CloudWatch, for each metric of one", "alarm-metric", len(metrics))


def _table(resource: Declared, _: Declarations) -> Iterable[Charge]:
    _expect(resource, "billingMode", resource.inputs.get("billingMode"), "PAY_PER_REQUEST")
    yield from _table_use()


def _table_use() -> Iterable[Charge]:
    yield _by_use("tables: the ledger and the previews' places", "table-storage")
    yield _by_use("the same, written", "table-writes")
    yield _by_use("the same, read", "table-reads")


def _service(resource: Declared, _: Declarations) -> Iterable[Charge]:
    kind = resource.inputs.get("spec", {}).get("type") or "ClusterIP"
    _expect(resource, "spec.type", kind, "ClusterIP")  # another one would order a load balancer
    return ()


ALWAYS_CHARGED: Mapping[str, tuple[Charge, ...]] = {
    "aws:ec2/eip:Eip": (_fixed("public address of a NAT gateway", "public-ipv4"),),
    "aws:ec2/natGateway:NatGateway": (
        _fixed("NAT gateway", "nat-gateway"),
        _by_use("traffic through NAT, both ways", "nat-traffic"),
    ),
    "aws:ecr/repository:Repository": (_by_use("images in ECR", "images"),),
    "aws:eks/cluster:Cluster": (_fixed("EKS cluster, in standard support", "eks-cluster"),),
    "aws:kms/key:Key": (_fixed("KMS key", "key"),),
    "aws:secretsmanager/secret:Secret": (_fixed("secret in Secrets Manager", "secret"),),
}
"""Type → what is charged for one of it, whatever its arguments."""

CHARGED: Mapping[str, Callable[[Declared, Declarations], Iterable[Charge]]] = {
    "aws:cloudwatch/logGroup:LogGroup": _logs,
    "aws:cloudwatch/metricAlarm:MetricAlarm": _alarm,
    "aws:dynamodb/table:Table": _table,
    "aws:ec2/vpcEndpoint:VpcEndpoint": _vpc_endpoint,
    "aws:eks/nodeGroup:NodeGroup": _node_group,
    "aws:lb/loadBalancer:LoadBalancer": _load_balancer,
    "aws:rds/instance:Instance": _database,
    "kubernetes:core/v1:Service": _service,
}
"""Type → what is charged for one of it, by its arguments."""


def charges(declared: Sequence[Declared], prices: PriceList) -> list[Charge]:
    """Return what AWS charges for these resources, in the order of their types and names.

    Raises:
        SettingsError: a type has neither a price nor an entry in `free`, or an argument has another price.
    """
    by_key = {each.key: each for each in declared}
    lines: list[Charge] = []
    for resource in sorted(declared, key=lambda each: each.key):
        kind = resource.pulumi_type
        if kind in CHARGED:
            lines += CHARGED[kind](resource, by_key)
        elif kind in ALWAYS_CHARGED:
            lines += ALWAYS_CHARGED[kind]
        elif kind not in prices.free:
            raise SettingsError(
                f"{kind} {resource.name}: nothing says what it costs; add its charge to "
                f"infra/commands/cost/charges.py, or why it is free to [free] in infra/commands/cost/{prices.region}.toml"
            )
    return lines


def charges_beside(settings: Settings) -> list[Charge]:
    """Return what production needs and no stack declares: what `make bootstrap` makes, and the zones that are there before."""
    zones = {settings.zone, settings.preview_zone} if settings.dns == "route53" else set()
    return [
        *(_fixed("KMS key of a state bucket", "key") for _ in STATE_BACKENDS),
        *(_fixed("hosted zone", "hosted-zone") for _ in zones),
        _by_use("state buckets", "bucket-storage"),
        *_table_use(),
        _by_use("point-in-time recovery of the ledger", "table-recovery"),
    ]
