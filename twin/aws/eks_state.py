"""The twin's EKS clusters: what moto keeps of none, and the errors and names that EKS answers with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from twin.config import ACCOUNT_ID, region


class EksError(Exception):
    """An error as EKS answers it."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


def missing(what: str, name: str) -> EksError:
    """Return EKS's answer to a request for what does not exist."""
    return EksError(404, "ResourceNotFoundException", f"No {what} found: {name}.")


def arn(kind: str, *parts: str) -> str:
    """Return the ARN of an EKS resource of the twin's account."""
    return f"arn:aws:eks:{region()}:{ACCOUNT_ID}:{kind}/{'/'.join(parts)}"


@dataclass
class Entry:
    """A principal's access to the cluster, and its associated policies by ARN."""

    record: dict[str, Any]
    policies: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass
class ClusterState:
    """The state of a cluster that moto does not keep."""

    access: dict[str, Any]
    vpc_id: str = ""
    security_group_id: str = ""
    addons: dict[str, dict[str, Any]] = field(default_factory=dict)
    entries: dict[str, Entry] = field(default_factory=dict)
    associations: dict[str, dict[str, Any]] = field(default_factory=dict)
    version: str = ""
    node_groups: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By name what an update has changed of what moto keeps."""
    updates: dict[str, dict[str, Any]] = field(default_factory=dict)

    def addon(self, name: str) -> dict[str, Any]:
        """Return an add-on, or raise EksError."""
        if name not in self.addons:
            raise missing("addon", name)
        return self.addons[name]


class Machines(Protocol):
    """The calls by which EKS changes machines; each call returns once it is done, and raises TwinError if it can't be."""

    def change_addon(self, name: str, *, present: bool, version: str) -> None:
        """Make an add-on's pods run, those of another version in place of the former; or delete them."""

    def replace_nodes(self) -> None:
        """Drain and replace each node."""

    def restart_control_plane(self) -> None:
        """Restart the API server."""

    def deprecated_apis(self, removed_in: str) -> list[str]:
        """Return the APIs in use that a version of Kubernetes has no more."""
