"""Two Kubernetes nodes on one machine: containerd, kubelet and kube-proxy each, shaped like t3.medium.

A node is a network namespace (twin/network.py), a cgroup tree (twin/cgroups.py) and a mount namespace that a small
process holds open. In that mount namespace ``/run``, ``/var/log``, ``/var/lib/kubelet`` … are the node's own, so what
a kubelet or containerd mounts or leaves behind never shows on the host, and all mounts end with it. The files through
which a kubelet reads the machine's memory and changes the kernel's settings are covered there too: it sees a
t3.medium's memory and the settings it wants, and the machine's stay as they are.
"""

from __future__ import annotations

import ctypes
import datetime as dt
import hashlib
import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml

from twin import build, cgroups, controlplane, machine, network, pki, processes
from twin.config import PartStatus, Twin, region
from twin.errors import TwinError

INSTANCE_TYPE = "t3.medium"
CAPACITY_MEMORY_KIBIBYTES = 3_943_312
"""What a t3.medium's kernel reports: `kubectl describe node` of real nodes."""
RESERVED_MEMORY_MEBIBYTES = 442 + 100
"""EKS: 255 Mi + 11 Mi for each of 17 pods for the kubelet, and 100 Mi below which it would evict. The twin's kubelet
never evicts (the machine's memory isn't the node's), so all of it is reserved."""
ALLOCATABLE_CPU_MILLICORES = 1930
MAXIMUM_PODS = 17
"""3 network interfaces x (6 - 1) addresses + 2."""
SANDBOX_IMAGE = "registry.k8s.io/pause:3.10"
NODE_GROUP = "shopcat"
NODE_DNS_PORT = 53
MARKER = ".made-by-the-shopcat-twin"
"""In a folder of the machine that twins made as a place to mount on."""

_KUBELET_PORT = 10250
_PROXY_HEALTH_PORT = 10256
_START_SECONDS = 120.0
_MAXIMUM_SOCKET_PATH = 100
_CAP_SYS_RESOURCE = 24
_INOTIFY_INSTANCES = 32  # a twin with production running had 31 open
OWN_DIRECTORIES = {
    "log": Path("/var/log"),
    "kubelet": Path("/var/lib/kubelet"),
    "cni": Path("/var/lib/cni"),
}
"""Folders whose paths are fixed in the programs; each node has its own in their place (source below the node's folder)."""

# What a kubelet insists on; covered in the node's mount namespace where the machine has another value.
_KERNEL_SETTINGS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}


@dataclass(frozen=True)
class Node:
    """Names and folders of node 1 or 2."""

    twin: Twin
    number: int

    @property
    def name(self) -> str:
        """Its name in Kubernetes."""
        return self.twin.node_names[self.number - 1]

    @property
    def netns(self) -> str:
        """Its network namespace."""
        return self.twin.netns(self.number)

    @property
    def ip(self) -> str:
        """Its address."""
        return self.twin.node_ip(self.number)

    @property
    def directory(self) -> Path:
        """Everything it writes."""
        return self.twin.directory / "nodes" / self.name

    @property
    def etc(self) -> Path:
        """Its configuration files."""
        return self.directory / "etc"

    @property
    def containerd_socket(self) -> Path:
        """Where ``ctr -n k8s.io`` reaches it."""
        return self.directory / "containerd.sock"

    @property
    def zone(self) -> str:
        """The nodes stand in two zones."""
        return f"{region()}{'ab'[self.number - 1]}"

    @property
    def instance_id(self) -> str:
        """An EC2 instance id that stays the same for this twin's node."""
        return f"i-{hashlib.sha256(f'{self.twin.name}/{self.name}'.encode()).hexdigest()[:17]}"

    @property
    def provider_id(self) -> str:
        """As the AWS cloud provider writes it."""
        return f"aws:///{self.zone}/{self.instance_id}"

    def process(self, role: str) -> str:
        """Name of one of its processes."""
        return f"{self.name}-{role}"


def nodes(twin: Twin) -> tuple[Node, Node]:
    """Both nodes."""
    return (Node(twin, 1), Node(twin, 2))


def labels(node: Node) -> dict[str, str]:
    """Labels that EKS and its kubelet arguments give a managed node, beside those a kubelet sets itself."""
    return {
        "node.kubernetes.io/instance-type": INSTANCE_TYPE,
        "beta.kubernetes.io/instance-type": INSTANCE_TYPE,
        "topology.kubernetes.io/region": region(),
        "topology.kubernetes.io/zone": node.zone,
        "eks.amazonaws.com/nodegroup": NODE_GROUP,
        "eks.amazonaws.com/capacityType": "ON_DEMAND",
    }


def reserved_cpu_millicores(machine_cpus: int) -> int:
    """What a kubelet must keep from pods so that 1930m are left.

    Raises:
        TwinError: the machine has fewer than two CPUs.
    """
    reserved = 1000 * machine_cpus - ALLOCATABLE_CPU_MILLICORES
    if reserved < 0:
        raise TwinError(f"this machine has {machine_cpus} CPU; a node shaped like {INSTANCE_TYPE} needs 2")
    return reserved


def _may_lower_oom_scores() -> bool:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> _CAP_SYS_RESOURCE & 1)
    return False


def _on_overlay(path: Path) -> bool:
    """Whether a folder lies on overlayfs (inside a container), on which no other overlay can be stacked."""
    best, kind = 0, ""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        place = fields[4]
        inside = place == "/" or path == Path(place) or Path(place) in path.parents
        if inside and len(place) >= best:
            best, kind = len(place), fields[fields.index("-") + 1]
    return kind == "overlay"


def _containerd_config(node: Node) -> str:
    twin = node.twin
    snapshotter = "native" if _on_overlay(node.directory) else "overlayfs"
    return f"""version = 2
root = "{node.directory}/containerd"
state = "/run/containerd"
oom_score = 0
# Snapshotters for other file systems, and a plug-in that makes a folder in /opt.
disabled_plugins = [
  "io.containerd.internal.v1.opt",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
]

[grpc]
address = "{node.containerd_socket}"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{SANDBOX_IMAGE}"
restrict_oom_score_adj = {str(not _may_lower_oom_scores()).lower()}
netns_mounts_under_state_dir = true
stream_server_address = "{node.ip}"

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{build.debian_root(twin)}/usr/lib/cni"
conf_dir = "{node.etc}/cni"

[plugins."io.containerd.grpc.v1.cri".registry]
config_path = "{node.etc}/registries"

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "{snapshotter}"
default_runtime_name = "runc"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
BinaryName = "{build.debian_program(twin, "runc")}"
SystemdCgroup = false
"""


def _registry_config(twin: Twin) -> str:
    """Every registry's name leads to the twin's."""
    server = f"http://{twin.host_ip}:{twin.registry_port}"
    return f'server = "{server}"\n\n[host."{server}"]\ncapabilities = ["pull", "resolve"]\n'


def _cni_config(node: Node) -> dict[str, Any]:
    return {
        "cniVersion": "0.4.0",
        "name": "shopcat",
        "plugins": [
            {
                "type": "ptp",
                "mtu": 1500,
                "ipMasq": False,
                "ipam": {
                    "type": "host-local",
                    "dataDir": str(node.directory / "addresses"),
                    "ranges": [[{"subnet": node.twin.pod_cidr(node.number)}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True},
        ],
    }


def _kubelet_config(node: Node) -> dict[str, Any]:
    twin = node.twin
    serving = pki.server_files(twin, f"{node.name}-kubelet-server", [node.name], [node.ip])
    never = "0%"
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": node.ip,
        "port": _KUBELET_PORT,
        "healthzBindAddress": "127.0.0.1",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(pki.ca_file(twin))},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(serving.certificate),
        "tlsPrivateKeyFile": str(serving.key),
        "containerRuntimeEndpoint": f"unix://{node.containerd_socket}",
        "providerID": node.provider_id,
        "clusterDNS": [twin.dns_service_ip],
        "clusterDomain": "cluster.local",
        "resolvConf": str(node.etc / "resolv.conf"),
        "maxPods": MAXIMUM_PODS,
        "kubeReserved": {
            "cpu": f"{reserved_cpu_millicores(os.cpu_count() or 1)}m",
            "memory": f"{RESERVED_MEMORY_MEBIBYTES}Mi",
        },
        "enforceNodeAllocatable": ["pods"],
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{cgroups.name(twin, node.number)}",
        "failCgroupV1": False,
        "failSwapOn": False,
        # The disk is the whole machine's: pods have limits of their own on it, and how full it is says nothing about this node.
        "localStorageCapacityIsolation": True,
        "evictionHard": {
            "memory.available": never,
            "nodefs.available": never,
            "nodefs.inodesFree": never,
            "imagefs.available": never,
            "imagefs.inodesFree": never,
        },
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "serializeImagePulls": False,
        "oomScoreAdj": -999 if _may_lower_oom_scores() else 0,
        "volumePluginDir": str(node.directory / "volume-plugins"),
        "logging": {"verbosity": 1},
    }


def _proxy_config(node: Node, kubeconfig: Path) -> dict[str, Any]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "bindAddress": node.ip,
        "healthzBindAddress": f"{node.ip}:{_PROXY_HEALTH_PORT}",
        "metricsBindAddress": "127.0.0.1:10249",
        "hostnameOverride": node.name,
        "clientConnection": {"kubeconfig": str(kubeconfig)},
        # Pods' interfaces are called so by the ptp plug-in; whoever else asks for a cluster IP is given the node's
        # address, so that the answer comes back through here.
        "detectLocalMode": "InterfaceNamePrefix",
        "detectLocal": {"interfaceNamePrefix": "veth"},
        "nodePortAddresses": ["primary"],
        # The connection table is the machine's.
        "conntrack": {"maxPerCore": 0, "min": 0},
        "oomScoreAdj": -999 if _may_lower_oom_scores() else 0,
    }


def _write_configuration(node: Node) -> None:
    twin = node.twin
    for name in (*OWN_DIRECTORIES, "containerd", "etc/cni", "etc/registries/_default", "etc/proc"):
        (node.directory / name).mkdir(parents=True, exist_ok=True)
    if len(str(node.containerd_socket)) > _MAXIMUM_SOCKET_PATH:
        raise TwinError(
            f"{node.containerd_socket} is too long for a socket's name ({_MAXIMUM_SOCKET_PATH} characters at most); "
            "set SHOPCAT_TWIN_STATE to a shorter folder"
        )
    kubeconfig = pki.kubeconfig(twin, "kube-proxy", "system:kube-proxy")
    memory = f"MemTotal: {CAPACITY_MEMORY_KIBIBYTES} kB\nMemFree: {CAPACITY_MEMORY_KIBIBYTES} kB\nSwapTotal: 0 kB\n"
    files = {
        "containerd.toml": _containerd_config(node),
        "registries/_default/hosts.toml": _registry_config(twin),
        "cni/10-shopcat.conflist": json.dumps(_cni_config(node), indent=2),
        "kubelet.yaml": yaml.safe_dump(_kubelet_config(node), sort_keys=False),
        "kube-proxy.yaml": yaml.safe_dump(_proxy_config(node, kubeconfig), sort_keys=False),
        # The VPC's resolver, so to speak; port 53 of that address is turned to the twin's DNS inside the node.
        "resolv.conf": f"nameserver {twin.host_ip}\n",
        "proc/meminfo": memory,
        **{f"proc/{_flat(setting)}": f"{value}\n" for setting, value in _KERNEL_SETTINGS.items()},
    }
    for name, text in files.items():
        path = node.etc / name
        # kube-proxy ends itself when its file is written to.
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def _flat(setting: str) -> str:
    return setting.replace("/", ".")


def _xtables(node: Node) -> Path:
    """A folder of the names by which iptables is called; Debian's package leaves them to its installer."""
    folder = node.directory / "bin"
    folder.mkdir(exist_ok=True)
    program = build.debian_program(node.twin, "xtables-nft-multi")
    for family in ("iptables", "ip6tables"):
        for suffix in ("", "-save", "-restore"):
            link = folder / f"{family}{suffix}"
            link.unlink(missing_ok=True)
            link.symlink_to(program)
    return folder


def environment(node: Node) -> dict[str, str]:
    """What a program needs that changes the node's packet filter."""
    environment = build.debian_environment(node.twin)
    libraries = [Path(path) / "xtables" for path in environment["LD_LIBRARY_PATH"].split(os.pathsep)]
    extensions = next((path for path in libraries if path.is_dir()), None)
    environment["PATH"] = f"{_xtables(node)}{os.pathsep}{environment['PATH']}"
    if extensions is not None:
        environment["XTABLES_LIBDIR"] = str(extensions)
    return environment


def _mounts_script(node: Node) -> str:
    """What the holder of the node's mount namespace does first."""
    covered = [("proc/meminfo", "/proc/meminfo")]
    for setting, wanted in _KERNEL_SETTINGS.items():
        if Path("/proc/sys", setting).read_text().strip() != wanted:
            covered.append((f"proc/{_flat(setting)}", f"/proc/sys/{setting}"))
    lines = [
        "set -e",
        "mount --make-rshared /",
        "mount -t tmpfs -o mode=755 run /run",
        *(f"mount --bind {shlex.quote(str(node.directory / name))} {path}" for name, path in OWN_DIRECTORIES.items()),
        *(f"mount --bind {shlex.quote(str(node.etc / source))} {target}" for source, target in covered),
        f"touch {shlex.quote(str(node.directory / 'mounted'))}",
        "exec sleep infinity",
    ]
    return "\n".join(lines)


def _remove_shared_directories() -> None:
    """The last twin to leave removes the empty folders that twins made as places to mount on.

    Not earlier: removing a folder ends a mount on it in every other mount namespace.
    """
    with machine.places():
        for path in OWN_DIRECTORIES.values():
            marker = path / MARKER
            if marker.exists() and list(path.iterdir()) == [marker] and not machine.mounted(path):
                marker.unlink()
                path.rmdir()


def _hold_mounts(node: Node) -> processes.Process:
    twin = node.twin
    role = node.process("mounts")
    running = processes.find(twin, role)
    if running is not None:
        return running
    marker = node.directory / "mounted"
    marker.unlink(missing_ok=True)
    command = ["unshare", "--mount", "--propagation", "slave", "sh", "-c", _mounts_script(node)]
    with machine.places():  # until they are mounted on, another twin could think the folders unused
        for path in OWN_DIRECTORIES.values():
            if not path.exists():
                path.mkdir(parents=True)
                (path / MARKER).touch()
        holder = processes.start(twin, role, command, netns=node.netns)
        cgroups.enter(twin, node.number, holder.pid)
        processes.wait_until(marker.exists, f"mounts of {node.name}", timeout_seconds=_START_SECONDS, process=holder)
    return holder


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
    """Whether a process lives in the node's network namespace as it is now, not in one that was replaced."""
    try:
        own = Path(f"/proc/{process.pid}/ns/net").stat().st_ino
        return own == (network.NETNS_DIRECTORY / node.netns).stat().st_ino
    except OSError:
        return False


def _start_node(node: Node) -> None:
    twin = node.twin
    holder = processes.find(twin, node.process("mounts"))
    if holder is None or not _in_current_namespace(node, holder):
        _stop_processes(node)
    _write_configuration(node)
    cgroups.make(twin, node.number)
    holder = _hold_mounts(node)
    containerd = _start(
        node,
        "containerd",
        [build.debian_program(twin, "containerd"), "--config", node.etc / "containerd.toml"],
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
            build.program(twin, "kubelet"),
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
        [build.program(twin, "kube-proxy"), f"--config={node.etc / 'kube-proxy.yaml'}"],
        holder,
    )


def node_objects(twin: Twin) -> dict[str, dict[str, Any]]:
    """Both Node objects by name, those that exist."""
    items = controlplane.call(twin, "GET", "/api/v1/nodes")["items"]
    return {found["metadata"]["name"]: found for found in items}


def ready_condition(found: dict[str, Any]) -> dict[str, Any]:
    """A Node object's condition Ready; Unknown if it has none."""
    for condition in found.get("status", {}).get("conditions", []):
        if condition["type"] == "Ready":
            return cast("dict[str, Any]", condition)
    return {"status": "Unknown", "lastHeartbeatTime": "1970-01-01T00:00:00Z", "message": "never reported"}


def _give_pod_network(node: Node, found: dict[str, Any]) -> None:
    if "podCIDR" not in found["spec"]:
        cidr = node.twin.pod_cidr(node.number)
        patch = {"spec": {"podCIDR": cidr, "podCIDRs": [cidr]}}
        path = f"/api/v1/nodes/{node.name}"
        controlplane.call(node.twin, "PATCH", path, patch, content_type="application/merge-patch+json")


def _became_ready(node: Node, since: dt.datetime | None) -> bool:
    """Whether the node says so itself, after ``since`` (a Ready from before a restart is worth nothing)."""
    found = node_objects(node.twin).get(node.name)
    if found is None:
        return False
    _give_pod_network(node, found)
    condition = ready_condition(found)
    if condition["status"] != "True" or not controlplane.healthy_plain(_proxy_url(node)):
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
            found = library.inotify_init1(os.O_CLOEXEC)
            if found < 0:
                limit = Path("/proc/sys/fs/inotify/max_user_instances").read_text().strip()
                raise TwinError(
                    f"two nodes need {count} inotify instances, and this machine has {len(opened)} left of its {limit} "
                    "(fs.inotify.max_user_instances): take another twin down, or raise the limit with sysctl"
                )
            opened.append(found)
    finally:
        for one in opened:
            os.close(one)


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
            timeout_seconds=_START_SECONDS,
            process=processes.find(twin, node.process("kubelet")),
        )


def _proxy_url(node: Node) -> str:
    return f"http://{node.ip}:{_PROXY_HEALTH_PORT}/healthz"


def _stop_processes(node: Node) -> None:
    """The node's daemons, then all its pods, then its mounts."""
    twin = node.twin
    for role in ("kubelet", "kube-proxy", "containerd"):
        processes.stop(twin, node.process(role), grace_seconds=5)
    if cgroups.exists(twin, node.number):
        cgroups.kill_all(twin, node.number)
    processes.stop(twin, node.process("mounts"), grace_seconds=1)


def _delete_directory(directory: Path) -> None:
    """Delete a node's files; never through a mount that would lead out of it."""
    if not directory.exists():
        return
    places = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    inside = [place for place in places if Path(place) == directory or directory in Path(place).parents]
    if inside:
        raise TwinError(f"{', '.join(inside)} is still mounted; unmount it, then run `make down` again")
    shutil.rmtree(directory)


def down(twin: Twin) -> None:
    """Stop both nodes, kill what their pods left, remove cgroups and files."""
    if network.other_owner(twin) is not None:
        return
    for node in nodes(twin):
        _stop_processes(node)
    for node in nodes(twin):
        cgroups.remove(twin, node.number)
        _delete_directory(node.directory)
    cgroups.remove_behind(twin)
    cgroups.put_back_controllers(twin)
    _remove_shared_directories()


def status(twin: Twin) -> list[PartStatus]:
    """Each node's processes, and what Kubernetes says of it."""
    lines: list[PartStatus] = []
    try:
        objects = node_objects(twin)
    except controlplane.ApiError as error:
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
        found = objects.get(node.name, {})
        condition = ready_condition(found)
        ok = False
        if not controlplane.healthy(twin, f"https://{node.ip}:{_KUBELET_PORT}/healthz"):
            detail = f"the kubelet runs but does not answer; log: {twin.logs / node.process('kubelet')}.log"
        elif condition["status"] != "True":
            detail = f"not Ready: {condition.get('message', '')}; log: {twin.logs / node.process('kubelet')}.log"
        else:
            ok, detail = True, f"Ready, {node.ip}, pods {twin.pod_cidr(node.number)}"
        lines.append(PartStatus(node.name, ok=ok, detail=detail))
    return lines


def import_image(twin: Twin, archive: Path) -> None:
    """Give both nodes the images of an archive (OCI or Docker), past every registry.

    Raises:
        TwinError: containerd refused it.
    """
    for node in nodes(twin):
        command = [build.debian_program(twin, "ctr"), "--address", node.containerd_socket, "--namespace", "k8s.io"]
        result = subprocess.run(
            [*map(str, command), "images", "import", str(archive)],
            env={**os.environ, **build.debian_environment(twin)},
            text=True,
            check=False,
            capture_output=True,
        )
        if result.returncode != 0:
            raise TwinError(f"{archive} can't be imported into {node.name}: {result.stderr.strip()}")
