"""Other nodes: what as many of them cost, and how many previews fit on them by the arithmetic of infra/capacity.py."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING

from infra import capacity

if TYPE_CHECKING:
    from infra.commands.cost.prices import PriceList

DISK_STEP_GIBIBYTES = 10
MOST_DISK_GIBIBYTES = 500
"""Where the search for a disk ends."""


@dataclass(frozen=True)
class NodePair:
    """Equal nodes with their disks, as many as there are."""

    shape: capacity.NodeShape
    disk_gibibytes: int
    monthly: Decimal | None
    """US dollars; None if a price is unknown."""
    previews: int
    """Previews that fit beside a full release."""


def other_types(production: capacity.ProductionDemand, prices: PriceList) -> list[str]:
    """Return the instance types that the capacity plan knows and the price file has, beside the one that there is."""
    return [name for name in capacity.NODE_SHAPES if name in prices.price and name != production.node.name]


def node_pair(
    production: capacity.ProductionDemand, shape: capacity.NodeShape, disk_gibibytes: int, prices: PriceList
) -> NodePair:
    """Return what as many nodes of a shape as there are cost and hold.

    Raises:
        CapacityError: production itself does not fit.
        SettingsError: there is no price of the shape.
    """
    instance = prices.of(shape.name).monthly(Decimal(production.nodes))
    disks = prices.of("node-disk").monthly(Decimal(production.nodes * disk_gibibytes))
    return NodePair(
        shape,
        disk_gibibytes,
        None if instance is None or disks is None else instance + disks,
        capacity.plan(replace(production, node=shape)).previews,
    )


def node_pairs(production: capacity.ProductionDemand, disk: int, prices: PriceList) -> list[NodePair]:
    """Return the nodes that there are, and after them the other shapes with the same disk in GiB, the cheapest first."""
    types = other_types(production, prices)
    others = [node_pair(production, capacity.known_shape(name, disk), disk, prices) for name in types]
    others.sort(key=lambda pair: (pair.monthly is None, pair.monthly or Decimal()))
    return [node_pair(production, production.node, disk, prices), *others]


def cheapest_pair(production: capacity.ProductionDemand, previews: int, prices: PriceList) -> NodePair | None:
    """Return the cheapest nodes, as many as there are, on which so many previews fit beside a full release.

    None if no known shape is enough.
    """
    enough = [pair for pair in _larger_pairs(production, previews, prices) if pair.monthly is not None]
    return min(enough, key=lambda pair: pair.monthly or Decimal(), default=None)


def _larger_pairs(production: capacity.ProductionDemand, previews: int, prices: PriceList) -> Iterator[NodePair]:
    """Return each shape with the smallest disk on which they fit."""
    disks = range(capacity.DISK_GIBIBYTES, MOST_DISK_GIBIBYTES + 1, DISK_STEP_GIBIBYTES)
    for name in other_types(production, prices):
        pairs = (node_pair(production, capacity.known_shape(name, disk), disk, prices) for disk in disks)
        yield from (pair for pair in [next((pair for pair in pairs if pair.previews >= previews), None)] if pair)
