"""EKS's updates of versions: of the control plane, of a node group, of an add-on, and what stands in their way.

The twin has one version of Kubernetes: a new one is recorded, and the API server restarts or the nodes are replaced. Each update
runs in the background, as EKS's do; the caller holds the lock of the stand-in.
"""

from __future__ import annotations

import re
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

from twin.aws.eks_state import ClusterState, EksError, Machines, missing


class Versions:
    """Begins updates and answers what has become of them."""

    def __init__(self, machines: Machines) -> None:
        self._machines = machines

    def update_cluster(self, state: ClusterState, body: dict[str, Any]) -> dict[str, Any]:
        """Restart the API server and record another version."""
        version = body["version"]
        if not re.fullmatch(r"1\.\d+", version):
            raise EksError(400, "InvalidParameterException", f"unsupported Kubernetes version {version}")

        def work() -> None:
            self._machines.restart_control_plane()
            state.version = version

        return self._begin(state, "VersionUpdate", {"Version": version}, work)

    def list_insights(self, _: ClusterState, body: dict[str, Any]) -> dict[str, Any]:
        """Answer with one insight for each version asked for: what the API server counts of removed APIs."""
        wanted = body.get("filter") or {}
        if wanted.get("categories") != ["UPGRADE_READINESS"] or not wanted.get("kubernetesVersions"):
            raise EksError(400, "InvalidParameterException", "twin: other insights are not implemented by the stand-in")
        now = time.time()
        insights = []
        for version in wanted["kubernetesVersions"]:
            called = self._machines.deprecated_apis(version)
            status = {"status": "ERROR", "reason": f"called: {', '.join(called)}"} if called else {"status": "PASSING"}
            insights.append(
                {
                    "id": str(uuid.uuid4()),
                    "name": f"Deprecated APIs removed in Kubernetes v{version}",
                    "category": "UPGRADE_READINESS",
                    "kubernetesVersion": version,
                    "lastRefreshTime": now,
                    "lastTransitionTime": now,
                    "description": "Checks for usage of deprecated APIs",
                    "insightStatus": status,
                }
            )
        return {"insights": insights}

    def update_node_group(self, state: ClusterState, name: str, body: dict[str, Any]) -> dict[str, Any]:
        """Replace the nodes and record what they are now."""
        keys = ("version", "releaseVersion", "launchTemplate")
        changed = {key: body[key] for key in keys if body.get(key)}
        if body.get("force"):
            raise EksError(400, "InvalidParameterException", "twin: force is not implemented by the stand-in")
        overlay = state.node_groups.setdefault(name, {})
        if overlay.get("status") == "UPDATING":
            raise EksError(409, "ResourceInUseException", f"Nodegroup {name} is being updated")
        overlay["status"] = "UPDATING"

        def work() -> None:
            try:
                self._machines.replace_nodes()
                overlay.update(changed)
            finally:
                overlay["status"] = "ACTIVE"

        params = {
            key[0].upper() + key[1:]: value if isinstance(value, str) else str(value) for key, value in changed.items()
        }
        return self._begin(state, "VersionUpdate", params, work)

    def update_addon(self, state: ClusterState, name: str, body: dict[str, Any]) -> dict[str, Any]:
        """Change an add-on's settings; another version rolls its pods."""
        addon = state.addon(name)
        before = addon["addonVersion"]
        for key in ("addonVersion", "serviceAccountRoleArn", "configurationValues"):
            if key in body:
                addon[key] = body[key]
        addon["modifiedAt"] = time.time()
        if addon["addonVersion"] != before:
            addon["status"] = "UPDATING"
            self.settle(addon, addon["addonVersion"])
        update = {"id": str(uuid.uuid4()), "status": "Successful", "type": "AddonUpdate", "params": [], "errors": []}
        return {"update": {**update, "createdAt": time.time()}}

    def settle(self, addon: dict[str, Any], version: str = "") -> None:
        """Make an add-on's pods run, in the background."""

        def work() -> None:
            try:
                self._machines.change_addon(addon["addonName"], present=True, version=version)
                addon["status"] = "ACTIVE"
            except Exception as error:
                addon["status"] = "DEGRADED"
                issue = {"code": "ClusterUnreachable", "message": str(error), "resourceIds": []}
                addon["health"] = {"issues": [issue]}

        threading.Thread(target=work, daemon=True).start()

    def describe_update(self, state: ClusterState, identifier: str, _: dict[str, Any]) -> dict[str, Any]:
        """Answer with an update as it is now."""
        update = state.updates.get(identifier)
        if update is None:
            raise missing("update", identifier)
        return {"update": dict(update)}

    def _begin(
        self, state: ClusterState, kind: str, params: dict[str, str], work: Callable[[], None]
    ) -> dict[str, Any]:
        update: dict[str, Any] = {
            "id": str(uuid.uuid4()),
            "status": "InProgress",
            "type": kind,
            "params": [{"type": key, "value": value} for key, value in params.items()],
            "createdAt": time.time(),
            "errors": [],
        }
        state.updates[update["id"]] = update

        def run() -> None:
            try:
                work()
                update["status"] = "Successful"
            except Exception as error:
                code = "PodEvictionFailure" if "PodEvictionFailure" in str(error) else "Unknown"
                update["errors"] = [{"errorCode": code, "errorMessage": str(error), "resourceIds": []}]
                update["status"] = "Failed"

        threading.Thread(target=run, daemon=True).start()
        return {"update": dict(update)}
