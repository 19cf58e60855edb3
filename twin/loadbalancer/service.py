"""The load balancer as a part of the twin: the daemon, the nodes it starts, the front door, the controller's image."""

from __future__ import annotations

import json
import os
import socket
import sys
import urllib.error
import urllib.request
from typing import Any

from twin import config
from twin.config import PartStatus, Twin
from twin.errors import TwinError
from twin.host import dns, processes
from twin.loadbalancer import dns_names, front_door

DAEMON = "load-balancer"
_NODE_PREFIX = "alb-"


def can_listen(twin: Twin) -> bool:
    """Report whether this user may listen on port 443 of the nodes' loopback addresses (root, or a lowered sysctl)."""
    address, _ = twin.load_balancer_ips(0, loopback=True)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, 443))
        except PermissionError:
            return False
        except OSError:
            return True  # taken, so there is the right to take it
    return True


def _get(twin: Twin, path: str) -> Any:
    with urllib.request.urlopen(f"http://127.0.0.1:{twin.load_balancer_port}{path}", timeout=5) as answer:
        return json.load(answer)


def read_status(twin: Twin) -> dict[str, Any]:
    """The daemon's own account of itself.

    Raises:
        TwinError: it does not answer.
    """
    try:
        report: dict[str, Any] = _get(twin, "/status")
    except (OSError, ValueError) as error:
        log = twin.logs / f"{DAEMON}.log"
        raise TwinError(f"the load balancer does not answer ({error}); log: {log}") from error
    return report


def set_faults(twin: Twin, **faults: Any) -> None:
    """Switch faults: ``set_faults(twin, delayScale=3)``.

    Raises:
        TwinError: refused, with the reason.
    """
    request = urllib.request.Request(
        f"http://127.0.0.1:{twin.load_balancer_port}/faults", data=json.dumps(faults).encode(), method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=5):
            pass
    except urllib.error.HTTPError as error:
        raise TwinError(json.load(error)["error"]) from error


def up(twin: Twin) -> None:
    """Start the daemon; it starts the nodes as load balancers appear.

    Raises:
        TwinError: the front door's port is taken (says by whom and what moves it), or the daemon did not start.
    """
    ip = front_door.address(twin)
    if can_listen(twin) and processes.find(twin, front_door.PROCESS) is None:
        front_door.refuse_taken_ports(ip)
    process = processes.start(
        twin,
        DAEMON,
        [sys.executable, "-m", "twin.loadbalancer"],
        env={
            **config.module_environment(twin),
            front_door.ADDRESS_VARIABLE: ip,
            "NO_PROXY": ",".join(filter(None, [os.environ.get("NO_PROXY", ""), twin.host_ip, "127.0.0.1"])),
        },
    )
    processes.wait_until(
        lambda: _get(twin, "/status")["api"] == "ok",
        "the load balancer to read the AWS API",
        timeout_seconds=120,
        process=process,
    )


def down(twin: Twin) -> None:
    """Stop the daemon, the front door and every node."""
    processes.stop(twin, DAEMON)
    for name in processes.names(twin):
        if name == front_door.PROCESS or name.startswith(_NODE_PREFIX):
            processes.stop(twin, name)
    dns.withdraw(twin, dns_names.OWNER)


def status(twin: Twin) -> list[PartStatus]:
    """The daemon, each node, the front door, and what is not implemented."""
    if processes.find(twin, DAEMON) is None:
        return [PartStatus("load balancer", ok=False, detail="not running")]
    try:
        report = read_status(twin)
    except TwinError as error:
        return [PartStatus("load balancer", ok=False, detail=str(error))]
    problems = list(report["problems"])
    if report["api"] != "ok":
        problems.append(f"AWS API: {report['api']}")
    lines = [
        PartStatus(
            "load balancer", ok=not problems, detail="; ".join(problems) or report["note"] or "follows the AWS API"
        )
    ]
    if not can_listen(twin):
        lines.append(PartStatus("load-balancer nodes", ok=True, detail="none: ports below 1024 need root; status only"))
        return lines
    for load_balancer in report["loadBalancers"]:
        for node in load_balancer["nodes"]:
            detail = (
                ", ".join(node["addresses"]) if node["running"] else f"not running: {node['problem'] or 'see its log'}"
            )
            lines.append(
                PartStatus(f"ALB {load_balancer['name']} node {node['node']}", ok=node["running"], detail=detail)
            )
    door = processes.find(twin, front_door.PROCESS)
    lines.append(
        PartStatus(
            "front door",
            ok=door is not None or not report["loadBalancers"],
            detail=f"{front_door.address(twin)}:443 and :80"
            if door is not None
            else "opens with the first load balancer",
        )
    )
    return lines
