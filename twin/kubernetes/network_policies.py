"""NetworkPolicies enforced on the twin's nodes by real packet filters, for tests: kube-router's controller, one per node.

Not a part of `make up`: production's policies let in the subnets of the VPC's load balancers, and the twin's own load
balancers have addresses on its bridge. On EKS the VPC CNI enforces; this one is another, of the same API.
"""

from __future__ import annotations

import os

from twin.build import cache, debian, programs
from twin.config import Twin
from twin.host import processes
from twin.kubernetes import node, node_configuration

_PROGRAM = "network-policies"


def _name(number: int) -> str:
    return f"{_PROGRAM}-{number}"


def up(twin: Twin) -> None:
    """Start one on each node; policies are in force a few seconds after they were made."""
    sets = debian.environment(cache.ensure(twin.cache, debian.ipset()) / "root")
    for each in node.nodes(twin):
        own = node_configuration.environment(each)
        joined = {name: os.pathsep.join((own[name], sets[name])) for name in ("PATH", "LD_LIBRARY_PATH")}
        processes.start(
            twin,
            _name(each.number),
            [
                str(programs.program(twin, _PROGRAM)),
                f"--kubeconfig={twin.kubeconfig}",
                f"--node={each.name}",
                f"--services={twin.service_cidr}",
            ],
            netns=each.netns,
            env={**own, **joined},
        )


def down(twin: Twin) -> None:
    """Stop both; their rules stay in the nodes' network namespaces and go with them."""
    for each in node.nodes(twin):
        processes.stop(twin, _name(each.number))
