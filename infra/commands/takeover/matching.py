"""Pair what Terraform owns with what this program declares.

* By name: AWS takes one of that name (or address range, or place) alone.
* By the only one there is: a production has one cluster, one network, one database and one group of nodes.
* By reference: where a pair refers to something without a name of its own (a role, a key, an address), the two of those are a
  pair too.

Whatever is left has no counterpart, and what is declared then is made anew beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from infra.commands.takeover.declaration import Declared, is_computed, reference
from infra.commands.takeover.differences import is_same, leaves, state_value
from infra.commands.takeover.kinds import KINDS, TerraformType
from infra.commands.takeover.state import Owned

_ONLY = (
    "aws:eks/cluster:Cluster",
    "aws:ec2/vpc:Vpc",
    "aws:eks/nodeGroup:NodeGroup",
    "aws:rds/instance:Instance",
)
_TYPES: dict[str, list[str]] = {}
for _type, _kind in KINDS.items():
    _TYPES.setdefault(_kind.pulumi_type, []).append(_type)


class Pairs:
    """Declared resource ↔ owned object; each is in one pair at most."""

    def __init__(self, declared: Sequence[Declared], owned: Sequence[Owned]) -> None:
        self._declared = {each.key: each for each in declared}
        self._owned = [each for each in owned if each.type_name in KINDS and not each.deposed and each.comparable]
        self._objects: dict[tuple[str, str], Owned] = {}
        self._taken: dict[str, Declared] = {}
        self._pair_by_name()
        self._pair_only_ones()
        count = -1
        while count != len(self._objects):  # each new pair may name others
            count = len(self._objects)
            self._pair_by_reference()
            self._pair_by_name()

    def counterpart(self, owned: Owned) -> Declared | None:
        """Return what is declared of an object."""
        return self._taken.get(owned.address)

    def only(self, pulumi_type: str) -> Owned | None:
        """Return the object of a type of which one is declared."""
        return next((each for key, each in self._objects.items() if key[0] == pulumi_type), None)

    def resolve(self, key: tuple[str, str]) -> set[str] | None:
        """Return the texts that refer to what is there of a declared resource; None if it is made anew."""
        owned = self._objects.get(key)
        return None if owned is None else owned.identity

    def anew(self) -> Iterator[Declared]:
        """Yield every declared resource of which nothing is there."""
        return (each for key, each in self._declared.items() if key not in self._objects)

    def _add(self, declared: Declared, owned: Owned) -> None:
        self._objects[declared.key] = owned
        self._taken[owned.address] = declared

    def _free(self, pulumi_type: str) -> list[Owned]:
        types = _TYPES.get(pulumi_type, [])
        return [each for each in self._owned if each.type_name in types and each.address not in self._taken]

    def _open(self) -> list[Declared]:
        return [each for key, each in self._declared.items() if key not in self._objects]

    def _pair_by_name(self) -> None:
        for declared in self._open():
            types = _TYPES.get(declared.pulumi_type)
            if not types:
                continue
            kind = KINDS[types[0]]
            same = [each for each in self._free(declared.pulumi_type) if self._has_name(kind, declared, each)]
            if len(same) == 1:
                self._add(declared, same[0])

    def _has_name(self, kind: TerraformType, declared: Declared, owned: Owned) -> bool:
        if not kind.names or any(name not in declared.inputs for name in kind.names):
            return False
        return all(
            is_same(
                declared.pulumi_type,
                name,
                declared.inputs[name],
                state_value(name, owned.attributes),
                self.resolve,
            )
            for name in kind.names
        )

    def _pair_only_ones(self) -> None:
        for declared in self._open():
            if declared.pulumi_type not in _ONLY:
                continue
            candidates = [each for each in self._free(declared.pulumi_type) if self._fits(declared, each)]
            if len(candidates) == 1:
                self._add(declared, candidates[0])

    def _fits(self, declared: Declared, owned: Owned) -> bool:
        """Rule out what can't be the production's: another engine, the network or nodes of another cluster."""
        if declared.pulumi_type == "aws:rds/instance:Instance":
            return may_be_shops(owned)
        cluster = self.only("aws:eks/cluster:Cluster")
        if cluster is None:
            return True
        if declared.pulumi_type == "aws:ec2/vpc:Vpc":
            return vpc_of(cluster) in {"", owned.text("id")}
        return owned.text("cluster_name") in {"", cluster.text("name")}

    def _pair_by_reference(self) -> None:
        for key, owned in list(self._objects.items()):
            for name, value in self._declared[key].inputs.items():
                for _, (leaf, actual) in leaves(name, value, state_value(name, owned.attributes)):
                    target = reference(leaf)
                    if target in self._declared and target not in self._objects and isinstance(actual, str):
                        self._pair_referred(self._declared[target], actual)

    def _pair_referred(self, declared: Declared, text: str) -> None:
        types = _TYPES.get(declared.pulumi_type)
        if not types or any(
            name in declared.inputs and not is_computed(declared.inputs[name]) for name in KINDS[types[0]].names
        ):
            return  # it has a name of its own, and that is another
        for each in self._free(declared.pulumi_type):
            if text in each.identity:
                self._add(declared, each)
                return


def may_be_shops(database: Owned) -> bool:
    """Tell whether a database may be the shop's: PostgreSQL, as far as the state says, and no replica of another."""
    return database.text("engine") in {"postgres", ""} and not database.text("replicate_source_db")


def block(owned: Owned, name: str) -> dict[str, Any]:
    """Return a nested block that may be there once; empty if it is not."""
    value = owned.attributes.get(name)
    first = value[0] if isinstance(value, list) and value else value
    return first if isinstance(first, dict) else {}


def vpc_of(cluster: Owned) -> str:
    """Return the id of a cluster's network."""
    value = block(cluster, "vpc_config").get("vpc_id")
    return value if isinstance(value, str) else ""
