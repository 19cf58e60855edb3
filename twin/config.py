"""One twin on this machine: its name, its folders and every address and port it uses.

Several twins can run side by side (a person's and a test run's); each takes a small index, and every address, port and
namespace name is derived from that index, so they never meet.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from twin.errors import TwinError
from twin.paths import REPOSITORY, cache_directory, is_root, state_directory

ACCOUNT_ID = "123456789012"
"""The AWS account moto plays."""

ACCESS_KEY_ID = "twin"
SECRET_ACCESS_KEY = "twin"  # noqa: S105 - moto takes any key; this one opens nothing
MAXIMUM_INDEX = 15
_PORTS_PER_TWIN = 100
_FIRST_PORT = 21000


@dataclass(frozen=True)
class PartStatus:
    """One line of ``twin status``."""

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True)
class Twin:
    """Names, folders, addresses and ports of one twin.

    ``simulated`` means KWOK nodes on a real control plane: everything but served pages, no root needed.
    """

    name: str
    index: int
    cache: Path
    state: Path
    simulated: bool

    @property
    def directory(self) -> Path:
        """Everything this twin writes, but the cache."""
        return self.state / self.name

    @property
    def logs(self) -> Path:
        """One log file per process."""
        return self.directory / "logs"

    @property
    def bridge(self) -> str:
        """Name of the bridge that joins host and nodes."""
        return f"shopcat{self.index}"

    def _subnet(self, offset: int) -> str:
        return f"10.213.{16 * self.index + offset}"

    @property
    def _services(self) -> str:
        return f"10.214.{4 * self.index}"

    @property
    def host_ip(self) -> str:
        """Address at which control plane, AWS and registry answer the host, the nodes and the pods."""
        return "127.0.0.1" if self.simulated else f"{self._subnet(0)}.1"

    @property
    def vpc_cidr(self) -> str:
        """The VPC's network, which holds bridge and pods, as pods of the VPC CNI have addresses of the VPC."""
        return f"{self._subnet(0)}.0/20"

    @property
    def bridge_cidr(self) -> str:
        """The bridge's network: the beginning of the VPC's first public subnet, where the load balancers are."""
        return f"{self._subnet(0)}.0/24"

    @property
    def node_names(self) -> tuple[str, str]:
        """Kubernetes names of the two nodes."""
        return ("node1", "node2")

    def netns(self, node: int) -> str:
        """Network namespace of node 1 or 2."""
        return f"{self.bridge}-node{node}"

    def node_ip(self, node: int) -> str:
        """Address of node 1 or 2 on the bridge."""
        return f"{self._subnet(0)}.{10 + node}"

    def pod_cidr(self, node: int) -> str:
        """Pod addresses of node 1 or 2: the beginning of the VPC's first or second private subnet."""
        return f"{self._subnet(4 + 4 * node)}.0/24"

    @property
    def service_cidr(self) -> str:
        """Cluster IPs, which lie outside the VPC's network, as EKS wants it."""
        return f"{self._services}.0/22"

    @property
    def service_ip(self) -> str:
        """Cluster IP of the API server's own Service."""
        return f"{self._services}.1"

    @property
    def dns_service_ip(self) -> str:
        """Cluster IP of CoreDNS."""
        return f"{self._services}.10"

    def load_balancer_ips(self, ordinal: int, *, loopback: bool) -> tuple[str, str]:
        """The two node addresses of the ordinal-th (0 …) load balancer, on loopback or on the bridge."""
        first = 101 + 2 * ordinal
        network = f"127.213.{self.index}" if loopback or self.simulated else self._subnet(0)
        return (f"{network}.{first}", f"{network}.{first + 1}")

    def port(self, offset: int) -> int:
        """The twin's port at an offset (see the properties below)."""
        return _FIRST_PORT + _PORTS_PER_TWIN * self.index + offset

    @property
    def etcd_port(self) -> int:
        """The client port of etcd; its peer port is the next one."""
        return self.port(0)

    @property
    def etcd_peer_port(self) -> int:
        """The peer port of etcd."""
        return self.port(1)

    @property
    def api_port(self) -> int:
        """The Kubernetes API."""
        return self.port(2)

    @property
    def controller_manager_port(self) -> int:
        """Health of kube-controller-manager."""
        return self.port(3)

    @property
    def scheduler_port(self) -> int:
        """Health of kube-scheduler."""
        return self.port(4)

    @property
    def aws_port(self) -> int:
        """Every AWS API."""
        return self.port(5)

    @property
    def registry_port(self) -> int:
        """The ECR registry, immutability enforced."""
        return self.port(6)

    @property
    def plain_registry_port(self) -> int:
        """The registry behind it, no questions asked; loopback only."""
        return self.port(7)

    @property
    def postgres_port(self) -> int:
        """PostgreSQL behind the RDS endpoint's name."""
        return self.port(8)

    @property
    def charts_port(self) -> int:
        """The Helm repository."""
        return self.port(9)

    @property
    def dns_port(self) -> int:
        """DNS upstream of the cluster's CoreDNS."""
        return self.port(10)

    @property
    def authenticator_port(self) -> int:
        """IAM token review for the API server."""
        return self.port(11)

    @property
    def load_balancer_port(self) -> int:
        """Status and faults of the load balancer stand-in."""
        return self.port(12)

    @property
    def aws_endpoint(self) -> str:
        """URL of every AWS API."""
        return f"http://{self.host_ip}:{self.aws_port}"

    @property
    def chart_mirror(self) -> str:
        """URL of the Helm repository."""
        return f"http://{self.host_ip}:{self.charts_port}"

    @property
    def api_server(self) -> str:
        """URL of the Kubernetes API."""
        return f"https://{self.host_ip}:{self.api_port}"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig (client certificate)."""
        return self.directory / "kubeconfig"

    @property
    def pki(self) -> Path:
        """Certificate authority and certificates."""
        return self.directory / "pki"

    @property
    def hosts_directory(self) -> Path:
        """Names the twin's DNS answers: one hosts file per owner."""
        return self.directory / "dns" / "hosts.d"

    def aws_environment(self) -> dict[str, str]:
        """Credentials and region for a program that talks to the twin's AWS (its endpoint is a setting of its own)."""
        return {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY,
            "AWS_REGION": region(),
            "AWS_DEFAULT_REGION": region(),
            "AWS_EC2_METADATA_DISABLED": "true",
        }


def module_environment(twin: Twin) -> dict[str, str]:
    """Environment in which a ``python -m twin.…`` process finds this twin and its modules."""
    return {
        "PYTHONPATH": str(REPOSITORY),
        "SHOPCAT_TWIN_NAME": twin.name,
        "SHOPCAT_TWIN_STATE": str(twin.state),
        "SHOPCAT_TWIN_CACHE": str(twin.cache),
        "SHOPCAT_TWIN_SIMULATED": "1" if twin.simulated else "0",
    }


def production_settings() -> dict[str, Any]:
    """The committed settings of the production stack, as they stand in Pulumi.prod.yaml.

    Raises:
        TwinError: the file is missing or has no ``config``.
    """
    path = REPOSITORY / "Pulumi.prod.yaml"
    try:
        document = yaml.safe_load(path.read_text())
    except OSError as error:
        message = f"{path} can't be read ({error.strerror}); the twin runs the production stack it describes"
        raise TwinError(message) from error
    if not isinstance(document, dict) or not isinstance(document.get("config"), dict):
        message = f"{path} has no `config:` mapping; restore it from git"
        raise TwinError(message)
    config: dict[str, Any] = document["config"]
    return config


def region() -> str:
    """AWS region of the production stack (``aws:region`` in Pulumi.prod.yaml)."""
    name = production_settings().get("aws:region")
    if not isinstance(name, str):
        message = "Pulumi.prod.yaml sets no `aws:region`; the twin needs it to play that region"
        raise TwinError(message)
    return name


def registry_host() -> str:
    """The name ECR has in the image references of this account and region."""
    return f"{ACCOUNT_ID}.dkr.ecr.{region()}.amazonaws.com"


def _allocate_index(state: Path, name: str) -> int:
    state.mkdir(parents=True, exist_ok=True)
    register = state / "instances.json"
    with (state / "instances.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known: dict[str, int] = json.loads(register.read_text()) if register.exists() else {"main": 0}
        if name not in known:
            # 0 belongs to `main`, so that a person's twin is always found at the same addresses.
            wanted = [0] if name == "main" else range(1, MAXIMUM_INDEX + 1)
            free = [i for i in wanted if i not in known.values()]
            if not free:
                message = (
                    f"no room for another twin: {', '.join(sorted(known))} are registered in {register}; "
                    "take one down with `SHOPCAT_TWIN_NAME=<name> make down`"
                )
                raise TwinError(message)
            known[name] = free[0]
            register.write_text(json.dumps(known, indent=2) + "\n")
        return known[name]


def release_index(twin: Twin) -> None:
    """Give a twin's index back, once nothing of it runs any more."""
    register = twin.state / "instances.json"
    with (twin.state / "instances.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known: dict[str, int] = json.loads(register.read_text()) if register.exists() else {}
        if known.pop(twin.name, None) is not None:
            register.write_text(json.dumps(known, indent=2) + "\n")


def load(name: str | None = None, *, simulated: bool | None = None) -> Twin:
    """The twin called ``name`` (default ``$SHOPCAT_TWIN_NAME`` or ``main``).

    ``simulated`` defaults to what the twin was started as, then to ``$SHOPCAT_TWIN_SIMULATED``, then to "not root".

    Raises:
        TwinError: the name is not a short lower-case word, too many twins are registered, or ``$TWIN_KUBECONFIG`` asks
            for a cluster that is not the twin's own.
    """
    if os.environ.get("TWIN_KUBECONFIG"):
        raise TwinError(
            "TWIN_KUBECONFIG: a cluster of your own as the twin's Kubernetes is not implemented (its pods would have to "
            "reach the twin's AWS, registry and load balancer); unset it, and the twin runs its own"
        )
    chosen = name or os.environ.get("SHOPCAT_TWIN_NAME", "main")
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,19}", chosen):
        message = f"SHOPCAT_TWIN_NAME is {chosen!r}; a lower-case word of at most 20 letters, digits and - is expected"
        raise TwinError(message)
    state = state_directory()
    index = _allocate_index(state, chosen)
    started = state / chosen / "mode"
    if simulated is None and started.exists():
        simulated = started.read_text().strip() == "simulated"
    if simulated is None:
        wish = os.environ.get("SHOPCAT_TWIN_SIMULATED", "")
        simulated = wish == "1" if wish else not is_root()
    return Twin(name=chosen, index=index, cache=cache_directory(), state=state, simulated=simulated)
