"""EKS as moto lacks it: add-ons, access entries, pod identity associations, the local cluster in descriptions.

A recorded stand-in: answers have the fields of AWS's API reference (docs.aws.amazon.com/eks/latest/APIReference), nothing
behind them is EKS. What isn't listed here is refused by name. Updates of versions are in twin/aws/eks_versions.py.
"""

from __future__ import annotations

import base64
import re
import threading
import time
import urllib.parse
import uuid
from collections.abc import Callable
from typing import Any

from twin.aws.eks_state import ClusterState, EksError, Entry, Machines, arn, missing
from twin.aws.eks_versions import Versions
from twin.config import Twin
from twin.host import pki

Answer = tuple[int, dict[str, Any]]
ADDONS = ("vpc-cni", "coredns", "kube-proxy", "eks-pod-identity-agent")
SESSION_NAME = "{{SessionName}}"
_RESERVED = ("system:", "eks:", "aws:", "amazon:", "iam:")
_MOTO_REMOTE_ACCESS = {"ec2SshKey": "eksKeypair"}
POLICY_PREFIX = "arn:aws:eks::aws:cluster-access-policy/"


def default_username(principal: str) -> str:
    """The Kubernetes user of an access entry that names none: a role's sessions, or the IAM user itself."""
    role = re.fullmatch(r"arn:aws:iam::(\d+):role/(?:.*/)?([^/]+)", principal)
    return f"arn:aws:sts::{role[1]}:assumed-role/{role[2]}/{SESSION_NAME}" if role else principal


def username_refusal(username: str, kind: str) -> str | None:
    """Return why EKS would not take a user name (docs.aws.amazon.com/eks/latest/userguide/creating-access-entries.html)."""
    if kind == "STANDARD" and username.startswith(_RESERVED):
        return f"The username {username} must not begin with {', '.join(_RESERVED)}"
    if SESSION_NAME in username and ":" not in username.partition(SESSION_NAME)[0]:
        return f"The username {username} needs a colon before {SESSION_NAME}"
    return None


class EksStandIn:
    """Routes EKS requests that moto has no answer to."""

    def __init__(self, twin: Twin, machines: Machines) -> None:
        self._twin = twin
        self._machines = machines
        self._versions = Versions(machines)
        self._lock = threading.RLock()
        self.clusters: dict[str, ClusterState] = {}

        def on_state(handler: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
            return lambda cluster, *rest: handler(self._cluster(cluster), *rest)

        self._routes: list[tuple[str, re.Pattern[str], Callable[..., dict[str, Any]]]] = [
            ("POST", re.compile(r"/clusters/([^/]+)/addons"), self._create_addon),
            ("GET", re.compile(r"/clusters/([^/]+)/addons"), self._list_addons),
            ("GET", re.compile(r"/clusters/([^/]+)/addons/([^/]+)"), self._describe_addon),
            ("POST", re.compile(r"/clusters/([^/]+)/addons/([^/]+)/update"), on_state(self._versions.update_addon)),
            ("DELETE", re.compile(r"/clusters/([^/]+)/addons/([^/]+)"), self._delete_addon),
            ("POST", re.compile(r"/clusters/([^/]+)/updates"), on_state(self._versions.update_cluster)),
            ("GET", re.compile(r"/clusters/([^/]+)/updates/([^/]+)"), on_state(self._versions.describe_update)),
            ("POST", re.compile(r"/clusters/([^/]+)/insights"), on_state(self._versions.list_insights)),
            (
                "POST",
                re.compile(r"/clusters/([^/]+)/node-groups/([^/]+)/update-version"),
                on_state(self._versions.update_node_group),
            ),
            ("POST", re.compile(r"/clusters/([^/]+)/access-entries"), self._create_entry),
            ("GET", re.compile(r"/clusters/([^/]+)/access-entries"), self._list_entries),
            ("GET", re.compile(r"/clusters/([^/]+)/access-entries/([^/]+)"), self._describe_entry),
            ("POST", re.compile(r"/clusters/([^/]+)/access-entries/([^/]+)"), self._update_entry),
            ("DELETE", re.compile(r"/clusters/([^/]+)/access-entries/([^/]+)"), self._delete_entry),
            ("POST", re.compile(r"/clusters/([^/]+)/access-entries/([^/]+)/access-policies"), self._associate_policy),
            ("GET", re.compile(r"/clusters/([^/]+)/access-entries/([^/]+)/access-policies"), self._list_policies),
            (
                "DELETE",
                re.compile(r"/clusters/([^/]+)/access-entries/([^/]+)/access-policies/([^/]+)"),
                self._disassociate_policy,
            ),
            ("POST", re.compile(r"/clusters/([^/]+)/pod-identity-associations"), self._create_association),
            ("GET", re.compile(r"/clusters/([^/]+)/pod-identity-associations"), self._list_associations),
            ("GET", re.compile(r"/clusters/([^/]+)/pod-identity-associations/([^/]+)"), self._describe_association),
            ("POST", re.compile(r"/clusters/([^/]+)/pod-identity-associations/([^/]+)"), self._update_association),
            ("DELETE", re.compile(r"/clusters/([^/]+)/pod-identity-associations/([^/]+)"), self._delete_association),
        ]

    def answer(self, method: str, raw_path: str, body: dict[str, Any]) -> Answer | None:
        """The answer to a request, or None when it is moto's to answer."""
        for wanted, pattern, handler in self._routes:
            match = pattern.fullmatch(raw_path)
            if wanted == method and match:
                names = [urllib.parse.unquote(part) for part in match.groups()]
                try:
                    with self._lock:
                        return 200, handler(*names, body)
                except EksError as error:
                    return error.status, {"__type": error.code, "message": str(error)}
        return None

    # What moto answers is completed here.

    def created(
        self, cluster: str, request: dict[str, Any], creator: str, *, vpc_id: str, security_group_id: str
    ) -> None:
        """Remember the access configuration a cluster was created with, and make its creator's entry."""
        access = dict(request.get("accessConfig") or {})
        access.setdefault("authenticationMode", "CONFIG_MAP")
        access.setdefault("bootstrapClusterCreatorAdminPermissions", True)
        self.clusters[cluster] = ClusterState(access, vpc_id, security_group_id)
        if access["bootstrapClusterCreatorAdminPermissions"]:
            self._create_entry(cluster, {"principalArn": creator})
            policy = {"policyArn": f"{POLICY_PREFIX}AmazonEKSClusterAdminPolicy", "accessScope": {"type": "cluster"}}
            self._associate_policy(cluster, creator, policy)

    def deleted(self, cluster: str) -> str:
        """Forget a cluster; returns its security group, which EKS deletes with it."""
        state = self.clusters.pop(cluster, None)
        return state.security_group_id if state is not None else ""

    def complete(self, description: dict[str, Any]) -> None:
        """Put the local cluster's endpoint and authority, and the access configuration, into a description."""
        description["endpoint"] = self._twin.api_server
        authority = base64.b64encode(pki.ca_file(self._twin).read_bytes()).decode()
        description["certificateAuthority"] = {"data": authority}
        state = self.clusters.get(description["name"])
        if state is not None:
            description["accessConfig"] = state.access
            network = description.setdefault("resourcesVpcConfig", {})
            network["clusterSecurityGroupId"] = state.security_group_id
            network["vpcId"] = state.vpc_id
            if state.version:
                description["version"] = state.version

    def complete_node_group(self, description: dict[str, Any]) -> None:
        """Put in what updates have changed, and take out a key pair that nobody named: Terraform would replace the group."""
        if description.get("remoteAccess") == _MOTO_REMOTE_ACCESS:
            del description["remoteAccess"]
        state = self.clusters.get(description["clusterName"])
        if state is not None:
            description.update(state.node_groups.get(description["nodegroupName"], {}))

    def _cluster(self, name: str) -> ClusterState:
        if name not in self.clusters:
            raise missing("cluster", name)
        return self.clusters[name]

    # Add-ons. They are real pods (or placeholders of the same size) in kube-system; see twin/kubernetes/cluster_addons.py.

    def _create_addon(self, cluster: str, body: dict[str, Any]) -> dict[str, Any]:
        name = body["addonName"]
        if name not in ADDONS:
            raise EksError(400, "InvalidParameterException", f"twin: add-on {name} is not implemented by the stand-in")
        state = self._cluster(cluster)
        if name in state.addons:
            raise EksError(409, "ResourceInUseException", f"Addon already exists: {name}")
        now = time.time()
        addon = {
            "addonName": name,
            "clusterName": cluster,
            "status": "CREATING",
            "addonVersion": body.get("addonVersion", ""),
            "health": {"issues": []},
            "addonArn": arn("addon", cluster, name, str(uuid.uuid4())),
            "createdAt": now,
            "modifiedAt": now,
            "tags": body.get("tags", {}),
        }
        for key in ("serviceAccountRoleArn", "configurationValues"):
            if body.get(key):
                addon[key] = body[key]
        state.addons[name] = addon
        self._versions.settle(addon)
        return {"addon": dict(addon)}

    def _list_addons(self, cluster: str, _: dict[str, Any]) -> dict[str, Any]:
        return {"addons": sorted(self._cluster(cluster).addons)}

    def _describe_addon(self, cluster: str, name: str, _: dict[str, Any]) -> dict[str, Any]:
        return {"addon": self._cluster(cluster).addon(name)}

    def _delete_addon(self, cluster: str, name: str, _: dict[str, Any]) -> dict[str, Any]:
        addon = self._cluster(cluster).addon(name)
        self._machines.change_addon(name, present=False, version="")
        del self._cluster(cluster).addons[name]
        return {"addon": {**addon, "status": "DELETING"}}

    # Access entries.

    def _entry(self, cluster: str, principal: str) -> Entry:
        entry = self._cluster(cluster).entries.get(principal)
        if entry is None:
            raise missing("accessEntry", principal)
        return entry

    def _create_entry(self, cluster: str, body: dict[str, Any]) -> dict[str, Any]:
        principal = body["principalArn"]
        state = self._cluster(cluster)
        username = body.get("username") or default_username(principal)
        reason = username_refusal(username, body.get("type", "STANDARD"))
        if reason is not None:
            raise EksError(400, "InvalidParameterException", reason)
        if principal in state.entries:
            message = "The specified access entry resource is already in use on this cluster."
            raise EksError(409, "ResourceInUseException", message)
        now = time.time()
        record = {
            "clusterName": cluster,
            "principalArn": principal,
            "kubernetesGroups": body.get("kubernetesGroups", []),
            "accessEntryArn": arn("access-entry", cluster, str(uuid.uuid4())),
            "createdAt": now,
            "modifiedAt": now,
            "tags": body.get("tags", {}),
            "username": username,
            "type": body.get("type", "STANDARD"),
        }
        state.entries[principal] = Entry(record)
        return {"accessEntry": record}

    def _list_entries(self, cluster: str, _: dict[str, Any]) -> dict[str, Any]:
        return {"accessEntries": sorted(self._cluster(cluster).entries)}

    def _describe_entry(self, cluster: str, principal: str, _: dict[str, Any]) -> dict[str, Any]:
        return {"accessEntry": self._entry(cluster, principal).record}

    def _update_entry(self, cluster: str, principal: str, body: dict[str, Any]) -> dict[str, Any]:
        record = self._entry(cluster, principal).record
        record.update({key: body[key] for key in ("kubernetesGroups", "username") if key in body})
        record["modifiedAt"] = time.time()
        return {"accessEntry": record}

    def _delete_entry(self, cluster: str, principal: str, _: dict[str, Any]) -> dict[str, Any]:
        self._entry(cluster, principal)
        del self._cluster(cluster).entries[principal]
        return {}

    def _associate_policy(self, cluster: str, principal: str, body: dict[str, Any]) -> dict[str, Any]:
        entry = self._entry(cluster, principal)
        if not body["policyArn"].startswith(POLICY_PREFIX):
            raise EksError(400, "InvalidParameterException", f"The policyArn {body['policyArn']} is not valid")
        now = time.time()
        scope = body["accessScope"]
        policy = {"policyArn": body["policyArn"], "accessScope": scope, "associatedAt": now, "modifiedAt": now}
        entry.policies[body["policyArn"]] = policy
        return {"clusterName": cluster, "principalArn": principal, "associatedAccessPolicy": policy}

    def _list_policies(self, cluster: str, principal: str, _: dict[str, Any]) -> dict[str, Any]:
        policies = list(self._entry(cluster, principal).policies.values())
        return {"associatedAccessPolicies": policies, "clusterName": cluster, "principalArn": principal}

    def _disassociate_policy(self, cluster: str, principal: str, policy: str, _: dict[str, Any]) -> dict[str, Any]:
        if self._entry(cluster, principal).policies.pop(policy, None) is None:
            raise missing("access policy association", policy)
        return {}

    # Pod identity.

    def _association(self, cluster: str, identifier: str) -> dict[str, Any]:
        association = self._cluster(cluster).associations.get(identifier)
        if association is None:
            raise missing("association", identifier)
        return association

    def _create_association(self, cluster: str, body: dict[str, Any]) -> dict[str, Any]:
        state = self._cluster(cluster)
        wanted = (body["namespace"], body["serviceAccount"])
        if wanted in [(other["namespace"], other["serviceAccount"]) for other in state.associations.values()]:
            raise EksError(409, "ResourceInUseException", f"Association already exists: {'/'.join(wanted)}")
        identifier = f"a-{uuid.uuid4().hex[:17]}"
        now = time.time()
        association = {
            "clusterName": cluster,
            "namespace": body["namespace"],
            "serviceAccount": body["serviceAccount"],
            "roleArn": body["roleArn"],
            "associationArn": arn("podidentityassociation", cluster, identifier),
            "associationId": identifier,
            "tags": body.get("tags", {}),
            "createdAt": now,
            "modifiedAt": now,
            "disableSessionTags": body.get("disableSessionTags", False),
        }
        state.associations[identifier] = association
        return {"association": association}

    def _list_associations(self, cluster: str, wanted: dict[str, Any]) -> dict[str, Any]:
        keys = ("clusterName", "namespace", "serviceAccount", "associationArn", "associationId")
        filters = {key: wanted[key] for key in ("namespace", "serviceAccount") if key in wanted}
        associations = [
            association
            for association in self._cluster(cluster).associations.values()
            if all(association[key] == value for key, value in filters.items())
        ]
        return {"associations": [{key: association[key] for key in keys} for association in associations]}

    def _describe_association(self, cluster: str, identifier: str, _: dict[str, Any]) -> dict[str, Any]:
        return {"association": self._association(cluster, identifier)}

    def _update_association(self, cluster: str, identifier: str, body: dict[str, Any]) -> dict[str, Any]:
        association = self._association(cluster, identifier)
        association.update({key: body[key] for key in ("roleArn",) if key in body})
        association["modifiedAt"] = time.time()
        return {"association": association}

    def _delete_association(self, cluster: str, identifier: str, _: dict[str, Any]) -> dict[str, Any]:
        association = self._association(cluster, identifier)
        del self._cluster(cluster).associations[identifier]
        return {"association": association}
