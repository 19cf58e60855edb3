"""The twin's network: the host and two nodes on one switch, made so that the machine's own network hardly notices.

The switch is a bridge in a network namespace of its own, and the host joins it by one interface, ``shopcat<index>``:
frames between nodes never meet the host's firewall, and forwarding stays as it is on the host. The host's routes hang
on that interface and go with it. Inside the nodes' namespaces pods are routed, not bridged (each has its own veth, as
the VPC CNI does it), so kube-proxy's rules see every packet without br_netfilter.

Nothing leaves the machine: nodes have routes to the switch and to each other's pods, and no default route.
"""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import json
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from twin.config import PartStatus, Twin
from twin.errors import TwinError
from twin.host import machine, processes, undo

NETNS_DIRECTORY = Path("/var/run/netns")
NODES = (1, 2)
_PROBE_SECONDS = 3.0
_RULE = "iptables INPUT"

# Pods are routed by the nodes; answers may come another way than a strict check expects; IPv4 is all there is.
_NODE_SYSCTLS = {
    "net/ipv4/ip_forward": "1",
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "0",
    "net/ipv6/conf/all/disable_ipv6": "1",
    "net/ipv6/conf/default/disable_ipv6": "1",
}
_SWITCH_SYSCTLS = {"net/ipv6/conf/all/disable_ipv6": "1", "net/ipv6/conf/default/disable_ipv6": "1"}


def switch_netns(twin: Twin) -> str:
    """Network namespace of the bridge."""
    return f"{twin.bridge}-switch"


def networks(twin: Twin) -> tuple[ipaddress.IPv4Network, ipaddress.IPv4Network]:
    """All addresses of this twin: bridge and pods, and cluster IPs."""
    return ipaddress.IPv4Network(twin.vpc_cidr), ipaddress.IPv4Network(twin.service_cidr)


def _ip(*arguments: str, check: bool = True) -> str:
    try:
        result = subprocess.run(["ip", *arguments], text=True, check=False, capture_output=True)
    except FileNotFoundError as error:
        raise TwinError("`ip` is missing; install the package iproute2") from error
    if check and result.returncode != 0:
        raise TwinError(f"`ip {' '.join(arguments)}` failed: {result.stderr.strip()}")
    return result.stdout


def _ip_batch(netns: str | None, lines: list[str]) -> None:
    where = [] if netns is None else ["-netns", netns]
    result = subprocess.run(
        ["ip", *where, "-batch", "-"], input="\n".join(lines) + "\n", text=True, check=False, capture_output=True
    )
    if result.returncode != 0:
        raise TwinError(f"`ip {' '.join(where)} -batch` failed: {result.stderr.strip()}")


def in_netns(netns: str, *argv: str) -> list[str]:
    """The command line that runs ``argv`` in a network namespace with the machine's own view of everything else."""
    return ["nsenter", f"--net={NETNS_DIRECTORY / netns}", *argv]


def _set_sysctls(netns: str, values: dict[str, str]) -> None:
    """Set sysctls inside the namespace, which has its own."""
    script = "; ".join(f"echo {value} > /proc/sys/{name} 2>/dev/null || true" for name, value in values.items())
    subprocess.run(in_netns(netns, "sh", "-c", script), check=True)


def overlapping_routes(twin: Twin, routes: list[dict[str, Any]]) -> list[str]:
    """Return those routes (from ``ip -json route show table all``) that lead an address of this twin elsewhere."""
    own = networks(twin)
    overlaps: list[str] = []
    for route in routes:
        destination = route.get("dst", "default")
        if destination in ("default", "0.0.0.0/0") or route.get("dev") == twin.bridge:
            continue
        with contextlib.suppress(ValueError):
            other = ipaddress.ip_network(destination, strict=False)
            if any(other.overlaps(network) for network in own):
                overlaps.append(f"{destination} dev {route.get('dev', '-')}")
    return sorted(set(overlaps))


def _refuse_overlap(twin: Twin) -> None:
    routes = json.loads(_ip("-json", "-4", "route", "show", "table", "all") or "[]")
    overlaps = overlapping_routes(twin, routes)
    if overlaps:
        own = " and ".join(map(str, networks(twin)))
        raise TwinError(
            f"the twin {twin.name!r} uses {own}, and this machine already routes {', '.join(overlaps)}; "
            "remove that route (a VPN?) while the twin runs, or run the twin on another machine"
        )


def _namespaces(twin: Twin) -> list[str]:
    return [switch_netns(twin), *(twin.netns(node) for node in NODES)]


def _interface_exists(name: str) -> bool:
    return Path("/sys/class/net", name).exists()


def other_owner(twin: Twin) -> Path | None:
    """The folder of another twin with the same index that runs on these names, if there is one.

    Twins know only those of their own state folder, so two can have taken one index. The interface's alias says whose
    it is.
    """
    try:
        alias = Path("/sys/class/net", twin.bridge, "ifalias").read_text().strip()
    except OSError:
        return None
    if not alias or alias == str(twin.directory):
        return None
    folder = Path(alias)
    other = dataclasses.replace(twin, name=folder.name, state=folder.parent)
    alive = any(processes.find(other, name) is not None for name in processes.names(other))
    return folder if alive else None


def refuse_other_owner(twin: Twin) -> None:
    """Raise TwinError if another twin runs on this one's names."""
    folder = other_owner(twin)
    if folder is not None:
        raise TwinError(
            f"the twin in {folder} runs with the index {twin.index} too; take it down first "
            f"(SHOPCAT_TWIN_STATE={folder.parent} SHOPCAT_TWIN_NAME={folder.name} make down), or take another name"
        )


def _complete(twin: Twin) -> bool:
    if not _interface_exists(twin.bridge) or not all((NETNS_DIRECTORY / name).exists() for name in _namespaces(twin)):
        return False
    return all(_answers(twin, node) for node in NODES)


def _answers(twin: Twin, node: int) -> bool:
    """Report whether a program in the node's namespace can open a TCP connection to the host's address."""
    with socket.socket() as server:
        try:
            server.bind((twin.host_ip, 0))
        except OSError:
            return False
        server.listen()
        server.settimeout(_PROBE_SECONDS)

        def accept() -> None:
            with contextlib.suppress(OSError):
                server.accept()[0].close()

        acceptor = threading.Thread(target=accept, daemon=True)
        acceptor.start()
        address = f"({twin.host_ip!r}, {server.getsockname()[1]})"
        program = f"import socket; socket.create_connection({address}, {_PROBE_SECONDS})"
        command = in_netns(twin.netns(node), sys.executable, "-I", "-S", "-c", program)
        result = subprocess.run(command, check=False, capture_output=True)
        acceptor.join()
    return result.returncode == 0


def _build(twin: Twin) -> None:
    switch = switch_netns(twin)
    with machine.places():
        for name in _namespaces(twin):
            _ip("netns", "add", name)
    _set_sysctls(switch, _SWITCH_SYSCTLS)
    _ip_batch(
        switch,
        [
            "link set lo up",
            "link add switch type bridge stp_state 0 forward_delay 0",
            "link set switch up",
        ],
    )
    for node in NODES:
        netns = twin.netns(node)
        _set_sysctls(netns, _NODE_SYSCTLS)
        _ip_batch(switch, [f"link add node{node} type veth peer name eth0 netns {netns}"])
        _ip_batch(switch, [f"link set node{node} master switch up"])
        other = 3 - node
        _ip_batch(
            netns,
            [
                "link set lo up",
                f"addr add {twin.node_ip(node)}/24 brd + dev eth0",
                "link set eth0 up",
                f"route add {twin.pod_cidr(other)} via {twin.node_ip(other)}",
                # A connection from the node itself needs some route before kube-proxy's rules give it a real target.
                f"route add {twin.service_cidr} dev lo src {twin.node_ip(node)}",
            ],
        )
    _ip("link", "add", twin.bridge, "type", "veth", "peer", "name", "host", "netns", switch)
    _ip_batch(switch, ["link set host master switch up"])
    with contextlib.suppress(OSError):
        Path(f"/proc/sys/net/ipv6/conf/{twin.bridge}/disable_ipv6").write_text("1")
    _ip_batch(
        None,
        [
            f"addr add {twin.host_ip}/24 brd + dev {twin.bridge}",
            f"link set {twin.bridge} alias {twin.directory} up",
            *(f"route add {twin.pod_cidr(node)} via {twin.node_ip(node)} dev {twin.bridge}" for node in NODES),
            # Cluster IPs for people and tests on the host; node 1 plays the router.
            f"route add {twin.service_cidr} via {twin.node_ip(1)} dev {twin.bridge}",
        ],
    )


def _input_rule(twin: Twin) -> list[str]:
    return ["INPUT", "-i", twin.bridge, "-m", "comment", "--comment", f"ShopCat twin {twin.index}", "-j", "ACCEPT"]


def _open_firewall(twin: Twin) -> None:
    """Let the nodes in past a firewall that drops what it doesn't know; one rule, recorded."""
    iptables = shutil.which("iptables")
    if iptables is not None:
        undo.record(twin, _RULE, iptables)
        subprocess.run([iptables, "-w", "-I", *_input_rule(twin)], check=False, capture_output=True)
        if all(_answers(twin, node) for node in NODES):
            return
    _close_firewall(twin)
    raise TwinError(
        f"the nodes can't reach {twin.host_ip} on this host: a firewall drops what comes in on {twin.bridge}; "
        f"allow it (ufw allow in on {twin.bridge}; firewall-cmd --zone=trusted --add-interface={twin.bridge}) "
        "and run `make up` again"
    )


def _close_firewall(twin: Twin) -> None:
    for iptables in undo.recorded(twin, _RULE):
        while (
            subprocess.run([iptables, "-w", "-D", *_input_rule(twin)], check=False, capture_output=True).returncode == 0
        ):
            pass
        undo.forget(twin, _RULE, iptables)


def up(twin: Twin) -> None:
    """Interface, switch and node namespaces; rebuilt whole if any of it is missing.

    Raises:
        TwinError: the addresses are routed elsewhere, or a firewall keeps the nodes from the host.
    """
    refuse_other_owner(twin)
    if _complete(twin):
        return
    down(twin)
    _refuse_overlap(twin)
    _build(twin)
    if not all(_answers(twin, node) for node in NODES):
        _open_firewall(twin)


def down(twin: Twin) -> None:
    """Everything of that name is removed, also what a crashed run left; not what another living twin owns."""
    if other_owner(twin) is not None:
        return
    _close_firewall(twin)
    if _interface_exists(twin.bridge):
        _ip("link", "delete", twin.bridge)
    for name in _namespaces(twin):
        if (NETNS_DIRECTORY / name).exists():
            _ip("netns", "delete", name)
    _remove_empty_netns_directory()


def _remove_empty_netns_directory() -> None:
    """``ip netns add`` mounts the folder onto itself; the last one to leave takes that away."""
    with machine.places():
        if not NETNS_DIRECTORY.exists() or any(NETNS_DIRECTORY.iterdir()):
            return
        # A folder mounted onto itself is told from an ordinary one by the mount table alone.
        place = str(NETNS_DIRECTORY.resolve())
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            if line.split()[4] == place:
                subprocess.run(["umount", place], check=False, capture_output=True)
        with contextlib.suppress(OSError):
            NETNS_DIRECTORY.rmdir()


def status(twin: Twin) -> list[PartStatus]:
    """Report whether both nodes reach the host."""
    if not _interface_exists(twin.bridge):
        return [PartStatus("network", ok=False, detail=f"no interface {twin.bridge}")]
    cut = [twin.netns(node) for node in NODES if not _answers(twin, node)]
    if cut:
        detail = f"{', '.join(cut)} can't reach {twin.host_ip}"
    else:
        detail = f"{twin.bridge} {twin.bridge_cidr}, pods {twin.pod_cidr(1)} and {twin.pod_cidr(2)}"
    return [PartStatus("network", ok=not cut, detail=detail)]
