"""The bill: equal charges added up, each with its price."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from infra.commands.cost.charges import Charge
    from infra.commands.cost.prices import Price, PriceList


@dataclass(frozen=True)
class BillRow:
    """Charges of one kind together."""

    what: str
    price_name: str
    price: Price
    count: Decimal | None
    """None: paid by use."""

    @property
    def monthly(self) -> Decimal | None:
        """Return US dollars per month; None if the price is unknown, or if it is paid by use."""
        return None if self.count is None else self.price.monthly(self.count)


@dataclass(frozen=True)
class Estimate:
    """A month, apart in what is paid for the time it exists and what is paid by use."""

    fixed: tuple[BillRow, ...]
    by_use: tuple[BillRow, ...]

    @property
    def total(self) -> Decimal:
        """Return the sum of the fixed rows whose price is known, in US dollars per month."""
        return sum((row.monthly for row in self.fixed if row.monthly is not None), Decimal())

    @property
    def unknown(self) -> tuple[str, ...]:
        """Return what the total lacks, since its price is unknown."""
        return tuple(row.what for row in self.fixed if row.monthly is None)


def estimate(charges: Iterable[Charge], prices: PriceList) -> Estimate:
    """Return the bill of these charges, the dearest first.

    Raises:
        SettingsError: a price is missing from the list.
    """
    counts: dict[tuple[str, str], Decimal | None] = {}
    for charge in charges:
        key = charge.what, charge.price
        known = counts.get(key)
        counts[key] = charge.count if known is None else known + (charge.count or 0)
    rows = [BillRow(what, name, prices.of(name), count) for (what, name), count in counts.items()]
    fixed = [row for row in rows if row.count is not None]
    fixed.sort(key=lambda row: (row.monthly is not None, -(row.monthly or Decimal()), row.what))
    return Estimate(tuple(fixed), tuple(row for row in rows if row.count is None))
