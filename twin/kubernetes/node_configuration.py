"""Configuration files of a node's containerd, kubelet and kube-proxy, and the environment they run in."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import yaml

from twin.build import programs
from twin.config import Twin
from twin.errors import TwinError
from twin.host import cgroups, pki
from twin.kubernetes.node import (
    CAPACITY_MEMORY_KIBIBYTES,
    KUBELET_PORT,
    MAXIMUM_PODS,
    PROXY_HEALTH_PORT,
    RESERVED_MEMORY_MEBIBYTES,
    Node,
    reserved_cpu_millicores,
)

SANDBOX_IMAGE = "registry.k8s.io/pause:3.10"
_MAXIMUM_SOCKET_PATH = 100
_CAP_SYS_RESOURCE = 24
OWN_DIRECTORIES = {
    "log": Path("/var/log"),
    "kubelet": Path("/var/lib/kubelet"),
    "cni": Path("/var/lib/cni"),
}
"""Folders whose paths are fixed in the programs; each node has its own in their place (source below the node's folder)."""

# What a kubelet insists on; covered in the node's mount namespace where the machine has another value.
KERNEL_SETTINGS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}


def _may_lower_oom_scores() -> bool:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> _CAP_SYS_RESOURCE & 1)
    return False


def _on_overlay(path: Path) -> bool:
    """Report whether a folder lies on overlayfs (inside a container), on which no other overlay can be stacked."""
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
bin_dir = "{programs.debian_root(twin)}/usr/lib/cni"
conf_dir = "{node.etc}/cni"

[plugins."io.containerd.grpc.v1.cri".registry]
config_path = "{node.etc}/registries"

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "{snapshotter}"
default_runtime_name = "runc"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
BinaryName = "{programs.debian_program(twin, "runc")}"
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
        "port": KUBELET_PORT,
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
        "healthzBindAddress": f"{node.ip}:{PROXY_HEALTH_PORT}",
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


def write_configuration(node: Node) -> None:
    """Write what the node's programs read; a file that is right already isn't touched."""
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
        **{f"proc/{setting_file_name(setting)}": f"{value}\n" for setting, value in KERNEL_SETTINGS.items()},
    }
    for name, text in files.items():
        path = node.etc / name
        # kube-proxy ends itself when its file is written to.
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def setting_file_name(setting: str) -> str:
    """Return the name of the file that stands in for a kernel setting: ``vm/overcommit_memory`` has no folder."""
    return setting.replace("/", ".")


def _xtables(node: Node) -> Path:
    """A folder of the names by which iptables is called; Debian's package leaves them to its installer."""
    folder = node.directory / "bin"
    folder.mkdir(exist_ok=True)
    program = programs.debian_program(node.twin, "xtables-nft-multi")
    for family in ("iptables", "ip6tables"):
        for suffix in ("", "-save", "-restore"):
            link = folder / f"{family}{suffix}"
            link.unlink(missing_ok=True)
            link.symlink_to(program)
    return folder


def environment(node: Node) -> dict[str, str]:
    """Environment of a program that changes the node's packet filter."""
    environment = programs.debian_environment(node.twin)
    libraries = [Path(path) / "xtables" for path in environment["LD_LIBRARY_PATH"].split(os.pathsep)]
    extensions = next((path for path in libraries if path.is_dir()), None)
    environment["PATH"] = f"{_xtables(node)}{os.pathsep}{environment['PATH']}"
    if extensions is not None:
        environment["XTABLES_LIBDIR"] = str(extensions)
    return environment
