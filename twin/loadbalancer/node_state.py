"""State of one load-balancer node: the rules and targets that have reached it, and the targets' health as it sees them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from twin.loadbalancer.haproxy import NodeProcess
from twin.loadbalancer.model import LoadBalancer, Target
from twin.loadbalancer.propagation import Versions
from twin.loadbalancer.targets import View, routable

Membership = tuple[str, Target]
"""A target in a target group: (target group ARN, target)."""


@dataclass
class Registration:
    """A target the API knows, or knew until its deregistration delay is over."""

    draining_since: float | None = None


@dataclass
class NodeState:
    """One load-balancer node and what has reached it."""

    load_balancer: str
    number: int
    process: NodeProcess | None
    rules: Versions[str, LoadBalancer] = field(default_factory=Versions)
    members: Versions[Membership, bool] = field(default_factory=Versions)
    views: dict[Membership, View] = field(default_factory=dict)
    applied: Any = None
    problem: str = ""
    retry_at: float = 0.0

    def version(self) -> LoadBalancer | None:
        """The load balancer as this node has it."""
        return self.rules.get(self.load_balancer)

    def routable(self) -> dict[str, frozenset[Target]]:
        """The targets that get requests from this node, by target group ARN."""
        version = self.version()
        targets = {}
        for arn in version.target_groups() if version is not None else []:
            views = {
                str(member[1]): (member[1], self.views.get(member, View()))
                for member in self.members
                if member[0] == arn and self.members.get(member)
            }
            chosen = routable({name: view for name, (_, view) in views.items()})
            targets[arn] = frozenset(views[name][0] for name in chosen)
        return targets

    def status(self, group_names: Mapping[str, str]) -> dict[str, Any]:
        """Return what runs on this node and what has reached it. ``group_names``: target group ARN → name."""
        version = self.version()
        return {
            "node": self.number,
            "addresses": list(self.process.node.addresses) if self.process is not None else [],
            "running": self.process.alive() if self.process is not None else False,
            "reloads": self.process.reloads if self.process is not None else 0,
            "problem": self.problem,
            "changesUnderWay": self.rules.under_way() + self.members.under_way(),
            "weights": {
                key: {group_names.get(arn, arn): weight for arn, weight in forward.weights}
                for key, forward in (version.forwards().items() if version is not None else ())
            },
            "routable": {
                group_names.get(arn, arn): sorted(str(target) for target in targets)
                for arn, targets in self.routable().items()
            },
        }
