"""Two Kubernetes nodes on one machine as a part of the twin: containerd, kubelet and kube-proxy each.

A node is a network namespace (twin/host/network.py), a cgroup tree (twin/host/cgroups.py) and a mount namespace
(twin/kubernetes/node_mounts.py).
"""

from __future__ import annotations

import ctypes
import datetime as dt
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twin.build import programs
from twin.config import PartStatus, Twin
from twin.errors import TwinError
from twin.host import cgroups, network, pki, processes
from twin.kubernetes import control_plane
from twin.kubernetes.node import (
    KUBELET_PORT,
    PROXY_HEALTH_PORT,
    START_SECONDS,
    Node,
    labels,
    node_objects,
    nodes,
    ready_condition,
)
from twin.kubernetes.node_configuration import environment, write_configuration
from twin.kubernetes.node_mounts import delete_directory, hold_mounts, remove_shared_directories

NODE_DNS_PORT = 53
_INOTIFY_INSTANCES = 32  # a twin with production running had 31 open


def _start(node: Node, role: str, argv: Sequence[str | Path], holder: processes.Process) -> processes.Process:
    inside = ["nsenter", f"--mount=/proc/{holder.pid}/ns/mnt", *argv]
    process = processes.start(
        node.twin, node.process(role), inside, netns=node.netns, env=environment(node), cwd=Path("/")
    )
    # Here it is found again whatever becomes of the pid file, and so are shims, which outlive containerd.
    cgroups.enter(node.twin, node.number, process.pid)
    return process


def _redirect_dns(node: Node) -> None:
    """Port 53 of the resolver's address leads to the twin's DNS; rules of the node's own namespace."""
    twin = node.twin
    variables = {**os.environ, **environment(node)}
    program = str(node.directory / "bin" / "iptables")
    for chain in ("PREROUTING", "OUTPUT"):
        for protocol in ("udp", "tcp"):
            rule = [chain, "-d", twin.host_ip, "-p", protocol, "--dport", str(NODE_DNS_PORT)]
            rule += ["-j", "DNAT", "--to-destination", f"{twin.host_ip}:{twin.dns_port}"]
            table = [program, "-w", "-t", "nat"]
            present = subprocess.run(
                network.in_netns(node.netns, *table, "-C", *rule), env=variables, check=False, capture_output=True
            )
            if present.returncode == 0:
                continue
            added = subprocess.run(
                network.in_netns(node.netns, *table, "-A", *rule),
                env=variables,
                text=True,
                check=False,
                capture_output=True,
            )
            if added.returncode != 0:
                raise TwinError(f"iptables doesn't work in {node.netns}: {added.stderr.strip()}")


def _in_current_namespace(node: Node, process: processes.Process) -> bool:
    """Report whether a process runs in the node's current network namespace, not in one that was replaced."""
    try:
        own = Path(f"/proc/{process.pid}/ns/net").stat().st_ino
        return own == (network.NETNS_DIRECTORY / node.netns).stat().st_ino
    except OSError:
        return False


def _start_node(node: Node) -> None:
    twin = node.twin
    holder = processes.find(twin, node.process("mounts"))
    if holder is None or not _in_current_namespace(node, holder):
        stop(node)
    write_configuration(node)
    cgroups.make(twin, node.number)
    holder = hold_mounts(node)
    containerd = _start(
        node,
        "containerd",
        [programs.debian_program(twin, "containerd"), "--config", node.etc / "containerd.toml"],
        holder,
    )
    _redirect_dns(node)
    processes.wait_until(
        node.containerd_socket.is_socket, f"{node.name}'s containerd", timeout_seconds=30, process=containerd
    )
    kubeconfig = pki.kubeconfig(twin, f"{node.name}-kubelet", f"system:node:{node.name}", "system:nodes")
    _start(
        node,
        "kubelet",
        [
            programs.program(twin, "kubelet"),
            f"--config={node.etc / 'kubelet.yaml'}",
            f"--kubeconfig={kubeconfig}",
            f"--hostname-override={node.name}",
            f"--node-ip={node.ip}",
            f"--node-labels={','.join(f'{key}={value}' for key, value in labels(node).items())}",
            f"--cert-dir={node.directory / 'kubelet' / 'pki'}",
        ],
        holder,
    )
    _start(
        node,
        "kube-proxy",
        [programs.program(twin, "kube-proxy"), f"--config={node.etc / 'kube-proxy.yaml'}"],
        holder,
    )


def _give_pod_network(node: Node, node_object: dict[str, Any]) -> None:
    if "podCIDR" not in node_object["spec"]:
        cidr = node.twin.pod_cidr(node.number)
        patch = {"spec": {"podCIDR": cidr, "podCIDRs": [cidr]}}
        path = f"/api/v1/nodes/{node.name}"
        control_plane.call(node.twin, "PATCH", path, patch, content_type="application/merge-patch+json")


def _became_ready(node: Node, since: dt.datetime | None) -> bool:
    """Report whether the node's kubelet has reported Ready after ``since`` (a Ready from before a restart does not count)."""
    node_object = node_objects(node.twin).get(node.name)
    if node_object is None:
        return False
    _give_pod_network(node, node_object)
    condition = ready_condition(node_object)
    if condition["status"] != "True" or not control_plane.healthy_plain(_proxy_url(node)):
        return False
    return since is None or dt.datetime.fromisoformat(condition["lastHeartbeatTime"]) >= since


def require_inotify_instances(count: int) -> None:
    """Return if so many more can be opened.

    Raises:
        TwinError: kubelet and containerd would die of "too many open files" a minute later.
    """
    library = ctypes.CDLL(None, use_errno=True)
    opened: list[int] = []
    try:
        while len(opened) < count:
            instance = library.inotify_init1(os.O_CLOEXEC)
            if instance < 0:
                limit = Path("/proc/sys/fs/inotify/max_user_instances").read_text().strip()
                raise TwinError(
                    f"two nodes need {count} inotify instances, and this machine has {len(opened)} left of its {limit} "
                    "(fs.inotify.max_user_instances): take another twin down, or raise the limit with sysctl"
                )
            opened.append(instance)
    finally:
        for descriptor in opened:
            os.close(descriptor)


def up(twin: Twin) -> None:
    """Start what doesn't run on both nodes and wait until both are Ready.

    Raises:
        TwinError: a node doesn't become Ready; names the kubelet's log.
    """
    network.refuse_other_owner(twin)
    # Heartbeats carry whole seconds.
    now = dt.datetime.now(dt.UTC).replace(microsecond=0)
    since = {n.name: now for n in nodes(twin) if processes.find(twin, n.process("kubelet")) is None}
    if since:
        require_inotify_instances(_INOTIFY_INSTANCES)
    for node in nodes(twin):
        _start_node(node)
    for node in nodes(twin):
        processes.wait_until(
            lambda node=node: _became_ready(node, since.get(node.name)),  # type: ignore[misc]
            f"node {node.name} Ready",
            timeout_seconds=START_SECONDS,
            process=processes.find(twin, node.process("kubelet")),
        )


def _proxy_url(node: Node) -> str:
    return f"http://{node.ip}:{PROXY_HEALTH_PORT}/healthz"


def stop(node: Node) -> None:
    """Stop the node's daemons, then all its pods, then its mounts."""
    twin = node.twin
    for role in ("kubelet", "kube-proxy", "containerd"):
        processes.stop(twin, node.process(role), grace_seconds=5)
    if cgroups.exists(twin, node.number):
        cgroups.kill_all(twin, node.number)
    processes.stop(twin, node.process("mounts"), grace_seconds=1)


def down(twin: Twin) -> None:
    """Stop both nodes, kill what their pods left, remove cgroups and files."""
    if network.other_owner(twin) is not None:
        return
    for node in nodes(twin):
        stop(node)
    for node in nodes(twin):
        cgroups.remove(twin, node.number)
        delete_directory(node.directory)
    cgroups.remove_behind(twin)
    cgroups.put_back_controllers(twin)
    remove_shared_directories()


def status(twin: Twin) -> list[PartStatus]:
    """Each node's processes, and what Kubernetes says of it."""
    lines: list[PartStatus] = []
    try:
        objects = node_objects(twin)
    except control_plane.ApiError as error:
        return [PartStatus("nodes", ok=False, detail=str(error))]
    for node in nodes(twin):
        dead = [
            role
            for role in ("mounts", "containerd", "kubelet", "kube-proxy")
            if processes.find(twin, node.process(role)) is None
        ]
        if dead:
            logs = ", ".join(str(twin.logs / f"{node.process(role)}.log") for role in dead)
            lines.append(PartStatus(node.name, ok=False, detail=f"{', '.join(dead)} not running; log: {logs}"))
            continue
        node_object = objects.get(node.name, {})
        condition = ready_condition(node_object)
        ok = False
        if not control_plane.healthy(twin, f"https://{node.ip}:{KUBELET_PORT}/healthz"):
            detail = f"the kubelet runs but does not answer; log: {twin.logs / node.process('kubelet')}.log"
        elif condition["status"] != "True":
            detail = f"not Ready: {condition.get('message', '')}; log: {twin.logs / node.process('kubelet')}.log"
        else:
            ok, detail = True, f"Ready, {node.ip}, pods {twin.pod_cidr(node.number)}"
        lines.append(PartStatus(node.name, ok=ok, detail=detail))
    return lines
