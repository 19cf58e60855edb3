"""docs/cost.md: production, a preview, each setting and larger nodes, in US dollars."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING, Any

from infra import capacity
from infra.commands.cost.charges import charges, charges_beside
from infra.commands.cost.estimate import BillRow, Estimate, estimate
from infra.commands.cost.nodes import NodePair, cheapest_pair, node_pairs
from infra.commands.cost.prices import HOURS_PER_MONTH, PriceList
from infra.settings.monitoring import MonitoringSettings

if TYPE_CHECKING:
    from infra.commands.takeover.declaration import Declared
    from infra.settings import Settings

MANY_PREVIEWS = 100
BALANCER_TARGET_GROUPS = 100
"""Target groups of one load balancer, a quota that AWS does not raise; rules of one are as many, and can be raised
(docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-limits.html)."""
_CENT, _TENTH_OF_A_CENT = Decimal("0.01"), Decimal("0.001")
_EVIDENCE = {"page": "AWS's page", "copy": "copy of AWS's file", "quote": "quotation"}


@dataclass(frozen=True)
class SettingChange:
    """One setting with another value than the committed one."""

    setting: str
    apply: Callable[[Settings], Settings]


def changed(settings: Settings, section: str, **values: Any) -> Settings:
    """Return the settings with other values in one section."""
    return settings.model_copy(update={section: getattr(settings, section).model_copy(update=values)})


SETTING_CHANGES: tuple[SettingChange, ...] = (
    SettingChange("`vpc.natGateways: 2`, one in each zone", lambda it: changed(it, "vpc", nat_gateways=2)),
    SettingChange("`vpc.interfaceEndpoints: true`", lambda it: changed(it, "vpc", interface_endpoints=True)),
    SettingChange("`database.multiZone: true`", lambda it: changed(it, "database", multi_zone=True)),
    SettingChange(
        "`database.instanceClass: db.t4g.small`", lambda it: changed(it, "database", instance_class="db.t4g.small")
    ),
    SettingChange(
        "`database.instanceClass: db.t4g.medium`", lambda it: changed(it, "database", instance_class="db.t4g.medium")
    ),
    SettingChange(
        "`database.storageGibibytes`, 10 more",
        lambda it: changed(it, "database", storage_gibibytes=it.database.storage_gibibytes + 10),
    ),
    SettingChange(
        "`monitoring.email`: alarms and their topic's key",
        lambda it: it.model_copy(update={"monitoring": MonitoringSettings(email="ops@example.com")}),
    ),
    SettingChange("`dns: external`", lambda it: it.model_copy(update={"dns": "external"})),
)
"""Settings that a person may turn on or off, with what follows for the bill."""


@dataclass(frozen=True)
class CostSubject:
    """Everything that the page is about.

    Args:
        production: returns what production declares with these settings.
        preview: what a preview declares.
    """

    settings: Settings
    prices: PriceList
    production: Callable[[Settings], Sequence[Declared]]
    preview: Sequence[Declared]

    def monthly(self, settings: Settings) -> Estimate:
        """Return production's bill with these settings."""
        return estimate([*charges(self.production(settings), self.prices), *charges_beside(settings)], self.prices)


def cost_page(subject: CostSubject) -> str:
    """Return the page, Markdown.

    Raises:
        SettingsError: something that is declared has no price.
        CapacityError: production does not fit on a shape.
    """
    bill = subject.monthly(subject.settings)
    preview = estimate(charges(subject.preview, subject.prices), subject.prices)
    parts = [
        _introduction(subject.prices),
        _production_part(bill),
        _use_part(bill),
        _preview_part(preview),
        _settings_part(subject, bill),
        _nodes_part(subject),
        _many_part(subject, preview),
        _left_out(),
        _sources_part(subject.prices),
    ]
    return "\n\n".join(parts) + "\n"


def _usd(amount: Decimal | None, digit: Decimal = _CENT) -> str:
    return "unknown" if amount is None else str(amount.quantize(digit, ROUND_HALF_UP))


def _rate(price: Any) -> str:
    return f"unknown per {price.unit}" if price.usd is None else f"{price.usd} per {price.unit}"


def _number(count: Decimal | None) -> str:
    return "" if count is None else f"{count.normalize():f}"


def _markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    marks = ["---:" if place in numbers else "---" for place in range(len(heads))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (heads, marks, *rows))


def _introduction(prices: PriceList) -> str:
    read = max(source.read for source in prices.source.values())
    return f"""# What it costs

Written by `make cost` from `Pulumi.prod.yaml`, `Pulumi.pr.yaml` and `infra/commands/cost/{prices.region}.toml`; nothing
here is typed. What is charged for comes from the program's own components: they run in the command and are recorded. A
resource without a price is an error there.

US dollars in {prices.region}, {prices.location}: on demand, without tax, free tier and discounts. A month has
{HOURS_PER_MONTH} hours. Prices were last read on {read}; each has its source at the end, and some are older than
that. No real bill has been compared with this."""


def _production_part(bill: Estimate) -> str:
    rows = [(row.what, _number(row.count), _rate(row.price), _usd(row.monthly)) for row in bill.fixed]
    total = "**total, to which the unknown has to be added**" if bill.unknown else "**total**"
    table = _markdown_table(
        ("what", "how many", "price", "per month"), [*rows, (total, "", "", f"**{_usd(bill.total)}**")], (1, 3)
    )
    lacks = f"\n\nNot in the total, since no price has a source: {', '.join(bill.unknown)}." if bill.unknown else ""
    return f"""## Production, per month

For the time it exists, whoever uses it, with the settings as committed.

{table}{lacks}"""


def _use_rows(rows: Sequence[BillRow]) -> list[tuple[str, str]]:
    return [(row.what, _rate(row.price)) for row in rows]


def _use_part(bill: Estimate) -> str:
    unknown = [row.what for row in bill.by_use if row.price.usd is None]
    lacks = f"\n\nPrices without a source: {', '.join(unknown)}." if unknown else ""
    return f"""## By use

Nothing of this is in the total: how much it is was not measured.

{_markdown_table(("what", "price"), _use_rows(bill.by_use))}{lacks}

Log volume is decided by the number of API calls in the cluster; `cluster.logRetentionDays` decides only what is kept."""


def _preview_part(preview: Estimate) -> str:
    def daily(monthly: Decimal | None) -> str:
        return _usd(None if monthly is None else monthly * 24 / HOURS_PER_MONTH, _TENTH_OF_A_CENT)

    rows = [(row.what, _number(row.count), daily(row.monthly)) for row in preview.fixed]
    total = ("**total**", "", f"**{daily(preview.total)}**")
    return f"""## A preview, per day

It lives on production's nodes and behind the previews' load balancer, which are paid for anyway.

{_markdown_table(("what", "how many", "per day"), [*rows, total], (1, 2))}

Beside it, by use: its image in ECR until it expires, and what it sends."""


def _settings_part(subject: CostSubject, bill: Estimate) -> str:
    rows = []
    for change in SETTING_CHANGES:
        other = subject.monthly(change.apply(subject.settings))
        is_known = _without_price(other) == _without_price(bill)
        rows.append((change.setting, _signed(other.total - bill.total) if is_known else "unknown"))
    extended = subject.prices.of("eks-extended-support").monthly(Decimal(1))
    cluster = subject.settings.cluster
    rows.append(
        (
            f"`cluster.supportType: EXTENDED`, once standard support of {cluster.kubernetes_version} has ended",
            "unknown" if extended is None else _signed(extended),
        )
    )
    return f"""## What a setting adds

Per month, to the total above.

{_markdown_table(("setting", "per month"), rows, (1,))}

`cluster.supportType` is {cluster.support_type} as committed. Until that day both cost the same; with STANDARD AWS
moves the cluster to the next version instead. Interface endpoints save what their traffic would cost through NAT."""


def _without_price(bill: Estimate) -> set[tuple[str, Decimal | None]]:
    """Return what the total lacks, and how much of it."""
    return {(row.what, row.count) for row in bill.fixed if row.monthly is None}


def _signed(amount: Decimal) -> str:
    return f"{'+' if amount >= 0 else '-'}{_usd(abs(amount))}"


def _pair_row(pair: NodePair, first: NodePair, nodes: int) -> tuple[str, ...]:
    more = "" if pair.monthly is None or first.monthly is None else _signed(pair.monthly - first.monthly)
    shape = pair.shape
    return (
        f"{nodes} x {shape.name}",
        str(nodes * shape.pod_slots),
        str(nodes * shape.cpu_millicores),
        str(nodes * shape.memory_mebibytes),
        str(pair.previews),
        _usd(pair.monthly),
        more,
    )


def _node_disk_gibibytes(settings: Settings) -> int:
    existing = settings.cluster.existing
    return capacity.DISK_GIBIBYTES if existing is None else existing.nodes.disk_gibibytes


def _nodes_part(subject: CostSubject) -> str:
    production = subject.settings.production
    disk = _node_disk_gibibytes(subject.settings)
    pairs = node_pairs(production, disk, subject.prices)
    heads = ("nodes", "pod slots", "millicores", "MiB", "previews beside a full release", "per month", "more")
    table = _markdown_table(
        heads, [_pair_row(pair, pairs[0], production.nodes) for pair in pairs], range(1, len(heads))
    )
    return f"""## {production.nodes} x {production.node.name}, and the next shapes

By `infra/capacity.py` {capacity.plan(production).describe(production)}.

{table}

The disks are {disk} GiB as today; where pods, CPU and memory allow more previews than they hold,
larger ones do. What pods may use of the other shapes is computed (`NODE_SHAPES` there), with more taken off for the kernel than a
running t3.medium needs, and no more pods than a managed node group allows. A cluster that this program makes has t3.medium; one
that is there may have any of them (`shopcat:cluster.existing.nodes`)."""


def _many_part(subject: CostSubject, preview: Estimate) -> str:
    production = subject.settings.production
    (today, *_) = node_pairs(production, _node_disk_gibibytes(subject.settings), subject.prices)
    pair = cheapest_pair(production, MANY_PREVIEWS, subject.prices)
    if pair is None or pair.monthly is None or today.monthly is None:
        need = f"No {production.nodes} nodes of a shape in the price file hold {MANY_PREVIEWS} previews beside a full release."
    else:
        more, secrets = pair.monthly - today.monthly, preview.total * MANY_PREVIEWS
        nodes = f"{production.nodes} x {pair.shape.name} with {pair.disk_gibibytes} GiB of disk"
        need = f"""By `infra/capacity.py`, the cheapest nodes of the shapes above that hold them beside a full release are
**{nodes}** each: {_usd(pair.monthly)} per month, {_signed(more)} to
today's nodes. The previews themselves add {_usd(secrets)} while all of them are open."""
    return f"""## {MANY_PREVIEWS} previews

{need}

Each has a target group of its own, and one load balancer takes {BALANCER_TARGET_GROUPS}, which AWS does not raise: more previews
need a second one. More nodes than {production.nodes} are more than the sums of `infra/capacity.py` are enough for."""


def _left_out() -> str:
    return """## Not counted

- The second copy that KMS keeps of a key it has rotated, once a year.
- Backups of the database beyond its own size, its last snapshot after it was destroyed, and storage that it grew by itself (up to
  four times what is set).
- CPU of the nodes above their baseline: t3 is burstable, and credits beyond what it earns cost extra.
- Traffic between zones; requests to KMS, Secrets Manager, Route 53, S3 and ECR.
- GitHub's runners, the domains' registration, AWS Support."""


def _sources_part(prices: PriceList) -> str:
    rows = [
        (
            name,
            "unknown" if price.usd is None else str(price.usd),
            price.unit,
            price.source,
            price.entry or price.unknown,
        )
        for name, price in prices.price.items()
    ]
    sources = [
        (
            name,
            f"<{source.url}>",
            str(source.published),
            str(source.read),
            f"[{_EVIDENCE[source.evidence]}]({source.seen})" if source.seen else _EVIDENCE[source.evidence],
        )
        for name, source in prices.source.items()
    ]
    return f"""## Prices

{_markdown_table(("price", "US dollars", "per", "source", "entry there"), rows, (1,))}

## Sources

{_markdown_table(("source", "AWS's file or page", "published", "read on", "read in"), sources)}

A copy is AWS's own file, kept by somebody else as it was. A quotation is a number of AWS's that somebody else wrote down; no
copy of the file itself was found."""
