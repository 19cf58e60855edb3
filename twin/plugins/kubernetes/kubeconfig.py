"""What a kubeconfig says about its current cluster: address, trust, credentials, namespace."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DEFAULT_NAMESPACE = "default"


class KubeconfigError(ValueError):
    """It can't be used; the text says why."""


@dataclass(frozen=True)
class Access:
    """How to reach one cluster. ``cluster`` and ``user`` are the kubeconfig's own mappings."""

    cluster: Mapping[str, Any]
    user: Mapping[str, Any]
    namespace: str

    @property
    def server(self) -> str:
        """The API server's URL."""
        return str(self.cluster["server"]).rstrip("/")


def parse(given: object) -> dict[str, Any]:
    """A kubeconfig from its path, its contents (YAML or JSON) or an already parsed mapping.

    Raises:
        KubeconfigError: it is none of them.
    """
    if isinstance(given, Mapping):
        return dict(given)
    text = str(given)
    path = Path(text).expanduser() if "\n" not in text and len(text) < 4096 else None
    if path is not None and path.is_file():
        text = path.read_text()
    try:
        document = json.loads(text)
    except ValueError:
        document = _parse_yaml(text)
    if not isinstance(document, dict) or not isinstance(document.get("clusters"), list):
        raise KubeconfigError("neither a file of that name nor a kubeconfig (it has no `clusters`)")
    return document


def _parse_yaml(text: str) -> Any:
    import yaml  # most are JSON, and a plugin's start waits for what is loaded at the top

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise KubeconfigError(f"it is neither YAML nor JSON: {error}") from error


def _named(document: Mapping[str, Any], section: str, part: str) -> dict[str, dict[str, Any]]:
    return {str(one.get("name")): one.get(part) or {} for one in document.get(section) or []}


def access(document: Mapping[str, Any], *, context: str | None, cluster: str | None, namespace: str | None) -> Access:
    """The chosen (or current) context's cluster and user; ``cluster`` and ``namespace`` overrule the context's own.

    Raises:
        KubeconfigError: context, cluster or user is not in the kubeconfig.
    """
    contexts = _named(document, "contexts", "context")
    name = context or str(document.get("current-context") or "")
    if name not in contexts:
        known = ", ".join(sorted(contexts)) or "none"
        raise KubeconfigError(f'context "{name}" does not exist (contexts of the kubeconfig: {known})')
    chosen = contexts[name]
    clusters, users = _named(document, "clusters", "cluster"), _named(document, "users", "user")
    wanted = cluster or str(chosen.get("cluster"))
    if wanted not in clusters or "server" not in clusters[wanted]:
        raise KubeconfigError(f'cluster "{wanted}" does not exist, or has no server')
    user = str(chosen.get("user"))
    if user not in users:
        raise KubeconfigError(f'user "{user}" does not exist')
    found = namespace or chosen.get("namespace") or DEFAULT_NAMESPACE
    return Access(cluster=clusters[wanted], user=users[user], namespace=str(found))


def active_cluster(settings: Mapping[str, Any]) -> str | None:
    """The cluster that provider settings point at, comparable by text; None when it can't be told."""
    try:
        document = parse(settings.get("kubeconfig") or "")
        context = str(settings.get("context") or document.get("current-context") or "")
        chosen = _named(document, "contexts", "context").get(context)
        if chosen is None:
            return None
        name = str(settings.get("cluster") or chosen.get("cluster"))
        found = _named(document, "clusters", "cluster").get(name)
    except KubeconfigError:
        return None
    return None if found is None else json.dumps(found, sort_keys=True)
