"""EKS types. Force-new fields follow terraform-provider-aws internal/service/eks."""

from __future__ import annotations

from typing import Any

from twin.plugins.aws.kind import Aws, Kind, existing, pick, wait
from twin.plugins.common import Properties, ProviderError

_SLOW_SECONDS = 1800
_UPDATE_SECONDS = 3600
"""Upstream's default timeout for an update of a cluster or node group."""


class _Eks(Kind):
    tagged = True

    def tag(self, aws: Aws, identifier: str, state: Properties, add: dict[str, str], remove: list[str]) -> None:
        """Do nothing: the twin's EKS takes tags at creation only; later changes are kept in the state."""
        del aws, identifier, state, add, remove


def _wait_for_update(aws: Aws, cluster: str, identifier: str, node_group: str = "") -> None:
    """Wait until an update has ended.

    Raises:
        ProviderError: it failed, with EKS's errors; or it takes longer than an hour.
    """
    arguments = {"name": cluster, "updateId": identifier, **({"nodegroupName": node_group} if node_group else {})}
    found: dict[str, Any] = {}

    def ended() -> bool:
        found.update(aws("eks").describe_update(**arguments)["update"])
        return str(found["status"]) != "InProgress"

    wait(ended, f"update of {node_group or cluster}", _UPDATE_SECONDS)
    if found["status"] != "Successful":
        errors = "; ".join(f"{each['errorCode']}: {each['errorMessage']}" for each in found["errors"])
        raise ProviderError(f"update of {node_group or cluster}: {found['status']}: {errors}")


class Cluster(_Eks):
    """aws_eks_cluster; the id is the name."""

    token = "aws:eks/cluster:Cluster"
    inputs = frozenset(
        {"name", "roleArn", "version", "vpcConfig", "accessConfig", "encryptionConfig", "enabledClusterLogTypes",
         "kubernetesNetworkConfig", "bootstrapSelfManagedAddons", "deletionProtection", "upgradePolicy"}
    )  # fmt: skip
    replaces = frozenset(
        {"name", "roleArn", "encryptionConfig", "kubernetesNetworkConfig", "bootstrapSelfManagedAddons"}
    )
    name_property = "name"
    name_limit = 100

    def create(self, aws: Aws, inputs: Properties) -> str:
        vpc = {key: value for key, value in inputs["vpcConfig"].items() if value is not None}
        arguments = pick(inputs, name="name", roleArn="roleArn", version="version", accessConfig="accessConfig")
        arguments |= pick(inputs, kubernetesNetworkConfig="kubernetesNetworkConfig")
        arguments |= pick(inputs, bootstrapSelfManagedAddons="bootstrapSelfManagedAddons")
        encryption = inputs.get("encryptionConfig")
        if encryption:
            arguments["encryptionConfig"] = [encryption]
        logs = inputs.get("enabledClusterLogTypes")
        if logs:
            arguments["logging"] = {"clusterLogging": [{"types": logs, "enabled": True}]}
        renamed = {"publicAccessCidrs": "publicAccessCidrs", "subnetIds": "subnetIds"}
        wanted = ("endpointPublicAccess", "endpointPrivateAccess", "securityGroupIds", *renamed)
        arguments["resourcesVpcConfig"] = {key: vpc[key] for key in wanted if key in vpc}
        if "publicAccessCidrs" in arguments["resourcesVpcConfig"]:
            arguments["resourcesVpcConfig"]["publicAccessCidrs"] = list(vpc["publicAccessCidrs"])
        arguments["tags"] = inputs.get("tagsAll") or {}
        aws("eks").create_cluster(**arguments)
        name = str(inputs["name"])
        wait(lambda: self._status(aws, name) == "ACTIVE", f"EKS cluster {name}", _SLOW_SECONDS)
        return name

    def _description(self, aws: Aws, name: str) -> dict[str, Any] | None:
        return existing(lambda: aws("eks").describe_cluster(name=name)["cluster"])

    def _status(self, aws: Aws, name: str) -> str:
        return str((self._description(aws, name) or {}).get("status", ""))

    def read(self, aws: Aws, identifier: str, state: Properties) -> Properties | None:
        cluster = self._description(aws, identifier)
        if cluster is None:
            return None
        vpc = dict(state.get("vpcConfig") or {})
        vpc["clusterSecurityGroupId"] = cluster["resourcesVpcConfig"].get("clusterSecurityGroupId", "")
        vpc["vpcId"] = cluster["resourcesVpcConfig"].get("vpcId", "")
        return {
            "arn": cluster["arn"],
            "name": cluster["name"],
            "endpoint": cluster["endpoint"],
            "certificateAuthority": {"data": cluster["certificateAuthority"]["data"]},
            "certificateAuthorities": [{"data": cluster["certificateAuthority"]["data"]}],
            "identities": [{"oidcs": [{"issuer": cluster["identity"]["oidc"]["issuer"]}]}],
            "platformVersion": cluster.get("platformVersion", ""),
            "status": cluster["status"],
            "vpcConfig": vpc,
        }

    def update(self, aws: Aws, identifier: str, state: Properties, new: Properties, changed: set[str]) -> None:
        if "vpcConfig" in changed:
            wanted = ("endpointPublicAccess", "endpointPrivateAccess", "publicAccessCidrs")
            vpc_config = {key: new["vpcConfig"][key] for key in wanted if key in new["vpcConfig"]}
            aws("eks").update_cluster_config(name=identifier, resourcesVpcConfig=vpc_config)
        if "enabledClusterLogTypes" in changed:
            logging = {"clusterLogging": [{"types": new.get("enabledClusterLogTypes", []), "enabled": True}]}
            aws("eks").update_cluster_config(name=identifier, logging=logging)
        if "version" in changed:
            update = aws("eks").update_cluster_version(name=identifier, version=new["version"])["update"]
            _wait_for_update(aws, identifier, update["id"])
        # moto keeps no upgrade policy, at creation neither; only an import finds another one than is declared.
        rest = changed - {"vpcConfig", "enabledClusterLogTypes", "deletionProtection", "version", "upgradePolicy"}
        super().update(aws, identifier, state, new, rest)

    def delete(self, aws: Aws, identifier: str, state: Properties) -> None:
        del state
        aws("eks").delete_cluster(name=identifier)
        wait(lambda: self._description(aws, identifier) is None, f"deletion of EKS cluster {identifier}", _SLOW_SECONDS)


class NodeGroup(_Eks):
    """aws_eks_node_group; the id is ``cluster:name``."""

    token = "aws:eks/nodeGroup:NodeGroup"
    inputs = frozenset(
        {"clusterName", "nodeGroupName", "nodeRoleArn", "subnetIds", "scalingConfig", "instanceTypes", "amiType",
         "capacityType", "diskSize", "labels", "launchTemplate", "releaseVersion", "version", "updateConfig", "taints"}
    )  # fmt: skip
    replaces = frozenset(
        {"clusterName", "nodeGroupName", "nodeRoleArn", "subnetIds", "instanceTypes", "amiType", "capacityType",
         "diskSize"}
    )  # fmt: skip
    name_property = "nodeGroupName"
    name_limit = 63

    def create(self, aws: Aws, inputs: Properties) -> str:
        arguments = pick(
            inputs,
            clusterName="clusterName",
            nodegroupName="nodeGroupName",
            nodeRole="nodeRoleArn",
            subnets="subnetIds",
            scalingConfig="scalingConfig",
            instanceTypes="instanceTypes",
            amiType="amiType",
            capacityType="capacityType",
            diskSize="diskSize",
            labels="labels",
            releaseVersion="releaseVersion",
            version="version",
        )
        template = inputs.get("launchTemplate")
        if template:
            arguments["launchTemplate"] = {key: str(template[key]) for key in ("id", "version") if key in template}
        arguments["tags"] = inputs.get("tagsAll") or {}
        aws("eks").create_nodegroup(**arguments)
        identifier = f"{inputs['clusterName']}:{inputs['nodeGroupName']}"
        wait(
            lambda: (self._description(aws, identifier) or {}).get("status") == "ACTIVE",
            f"node group {identifier}",
            900,
        )
        return identifier

    def _description(self, aws: Aws, identifier: str) -> dict[str, Any] | None:
        cluster, _, name = identifier.partition(":")
        return existing(lambda: aws("eks").describe_nodegroup(clusterName=cluster, nodegroupName=name)["nodegroup"])

    def read(self, aws: Aws, identifier: str, state: Properties) -> Properties | None:
        node_group = self._description(aws, identifier)
        if node_group is None:
            return None
        groups = node_group.get("resources", {}).get("autoScalingGroups", [])
        live = {"arn": node_group["nodegroupArn"], "status": node_group["status"]}
        live["resources"] = [{"autoscalingGroups": [{"name": scaling_group["name"]} for scaling_group in groups]}]
        live |= {key: node_group[key] for key in ("version", "releaseVersion") if key in state and key in node_group}
        if "scalingConfig" in state:
            live["scalingConfig"] = {key: node_group["scalingConfig"].get(key) for key in state["scalingConfig"]}
        return live

    def update(self, aws: Aws, identifier: str, state: Properties, new: Properties, changed: set[str]) -> None:
        cluster, _, name = identifier.partition(":")
        if changed & {"scalingConfig", "labels"}:
            arguments = pick(new, scalingConfig="scalingConfig")
            if "labels" in changed:
                arguments["labels"] = {"addOrUpdateLabels": new.get("labels") or {}}
            aws("eks").update_nodegroup_config(clusterName=cluster, nodegroupName=name, **arguments)
        rolled = changed & {"releaseVersion", "version", "launchTemplate"}
        if rolled:
            # As upstream: what has not changed is not sent (internal/service/eks/node_group.go).
            arguments = {key: new[key] for key in rolled - {"launchTemplate"} if new.get(key)}
            if "launchTemplate" in rolled:
                template = new["launchTemplate"]
                arguments["launchTemplate"] = {key: str(template[key]) for key in ("id", "version") if key in template}
            answer = aws("eks").update_nodegroup_version(clusterName=cluster, nodegroupName=name, **arguments)
            _wait_for_update(aws, cluster, answer["update"]["id"], name)
        super().update(aws, identifier, state, new, changed - rolled - {"scalingConfig", "labels", "updateConfig"})

    def delete(self, aws: Aws, identifier: str, state: Properties) -> None:
        del state
        cluster, _, name = identifier.partition(":")
        aws("eks").delete_nodegroup(clusterName=cluster, nodegroupName=name)
        wait(lambda: self._description(aws, identifier) is None, f"deletion of node group {identifier}", 900)


class Addon(_Eks):
    """aws_eks_addon; the id is ``cluster:addon``."""

    token = "aws:eks/addon:Addon"
    inputs = frozenset(
        {"clusterName", "addonName", "addonVersion", "configurationValues", "resolveConflictsOnCreate",
         "resolveConflictsOnUpdate", "serviceAccountRoleArn", "preserve", "podIdentityAssociations"}
    )  # fmt: skip
    replaces = frozenset({"clusterName", "addonName"})

    def create(self, aws: Aws, inputs: Properties) -> str:
        arguments = pick(
            inputs,
            clusterName="clusterName",
            addonName="addonName",
            addonVersion="addonVersion",
            configurationValues="configurationValues",
            resolveConflicts="resolveConflictsOnCreate",
            serviceAccountRoleArn="serviceAccountRoleArn",
        )
        aws("eks").create_addon(**arguments, tags=inputs.get("tagsAll") or {})
        identifier = f"{inputs['clusterName']}:{inputs['addonName']}"
        wait(lambda: self._settled(aws, identifier), f"EKS add-on {identifier}", 1200)
        return identifier

    def _settled(self, aws: Aws, identifier: str) -> bool:
        addon = self._description(aws, identifier) or {}
        if addon.get("status") in ("DEGRADED", "CREATE_FAILED"):
            issues = "; ".join(issue.get("message", "") for issue in addon.get("health", {}).get("issues", []))
            raise ProviderError(f"EKS add-on {identifier} is {addon['status']}: {issues}")
        return addon.get("status") == "ACTIVE"

    def _description(self, aws: Aws, identifier: str) -> dict[str, Any] | None:
        cluster, _, name = identifier.partition(":")
        return existing(lambda: aws("eks").describe_addon(clusterName=cluster, addonName=name)["addon"])

    def read(self, aws: Aws, identifier: str, state: Properties) -> Properties | None:
        del state
        addon = self._description(aws, identifier)
        if addon is None:
            return None
        return {"arn": addon["addonArn"], "addonVersion": addon["addonVersion"]}

    def update(self, aws: Aws, identifier: str, state: Properties, new: Properties, changed: set[str]) -> None:
        del state
        cluster, _, name = identifier.partition(":")
        if changed & {"addonVersion", "configurationValues", "serviceAccountRoleArn"}:
            arguments = pick(
                new,
                addonVersion="addonVersion",
                configurationValues="configurationValues",
                serviceAccountRoleArn="serviceAccountRoleArn",
                resolveConflicts="resolveConflictsOnUpdate",
            )
            aws("eks").update_addon(clusterName=cluster, addonName=name, **arguments)
            wait(lambda: self._settled(aws, identifier), f"EKS add-on {identifier}", 1200)

    def delete(self, aws: Aws, identifier: str, state: Properties) -> None:
        cluster, _, name = identifier.partition(":")
        aws("eks").delete_addon(clusterName=cluster, addonName=name, preserve=bool(state.get("preserve")))
        wait(lambda: self._description(aws, identifier) is None, f"deletion of EKS add-on {identifier}", 1200)


class AccessEntry(_Eks):
    """aws_eks_access_entry; the id is ``cluster:principal``."""

    token = "aws:eks/accessEntry:AccessEntry"
    inputs = frozenset({"clusterName", "principalArn", "kubernetesGroups", "type", "userName"})
    replaces = frozenset({"clusterName", "principalArn", "type"})
    computed = frozenset({"kubernetesGroups", "userName"})
    defaults = {"type": "STANDARD"}

    def create(self, aws: Aws, inputs: Properties) -> str:
        arguments = pick(
            inputs,
            clusterName="clusterName",
            principalArn="principalArn",
            kubernetesGroups="kubernetesGroups",
            type="type",
            username="userName",
        )
        aws("eks").create_access_entry(**arguments, tags=inputs.get("tagsAll") or {})
        return f"{inputs['clusterName']}:{inputs['principalArn']}"

    def read(self, aws: Aws, identifier: str, state: Properties) -> Properties | None:
        del state
        cluster, _, principal = identifier.partition(":")
        entry = aws("eks").describe_access_entry(clusterName=cluster, principalArn=principal)["accessEntry"]
        return {"accessEntryArn": entry["accessEntryArn"], "userName": entry["username"]}

    def update(self, aws: Aws, identifier: str, state: Properties, new: Properties, changed: set[str]) -> None:
        del state
        cluster, _, principal = identifier.partition(":")
        if changed:
            arguments = pick(new, kubernetesGroups="kubernetesGroups", username="userName")
            aws("eks").update_access_entry(clusterName=cluster, principalArn=principal, **arguments)

    def delete(self, aws: Aws, identifier: str, state: Properties) -> None:
        del state
        cluster, _, principal = identifier.partition(":")
        aws("eks").delete_access_entry(clusterName=cluster, principalArn=principal)


class AccessPolicyAssociation(Kind):
    """aws_eks_access_policy_association; the id is ``cluster#principal#policy``."""

    token = "aws:eks/accessPolicyAssociation:AccessPolicyAssociation"
    inputs = frozenset({"clusterName", "principalArn", "policyArn", "accessScope"})
    replaces = inputs

    def create(self, aws: Aws, inputs: Properties) -> str:
        arguments = pick(inputs, clusterName="clusterName", principalArn="principalArn", policyArn="policyArn")
        aws("eks").associate_access_policy(**arguments, accessScope=inputs["accessScope"])
        return f"{inputs['clusterName']}#{inputs['principalArn']}#{inputs['policyArn']}"

    def read(self, aws: Aws, identifier: str, state: Properties) -> Properties | None:
        del state
        cluster, principal, policy = identifier.split("#")
        answer = aws("eks").list_associated_access_policies(clusterName=cluster, principalArn=principal)
        known = [associated["policyArn"] for associated in answer["associatedAccessPolicies"]]
        return {} if policy in known else None

    def delete(self, aws: Aws, identifier: str, state: Properties) -> None:
        del state
        cluster, principal, policy = identifier.split("#")
        aws("eks").disassociate_access_policy(clusterName=cluster, principalArn=principal, policyArn=policy)


class PodIdentityAssociation(_Eks):
    """aws_eks_pod_identity_association; the id is the association's."""

    token = "aws:eks/podIdentityAssociation:PodIdentityAssociation"
    inputs = frozenset({"clusterName", "namespace", "serviceAccount", "roleArn", "disableSessionTags"})
    replaces = frozenset({"clusterName", "namespace", "serviceAccount"})
    create_before_delete = False

    def create(self, aws: Aws, inputs: Properties) -> str:
        names = {key: key for key in ("clusterName", "namespace", "serviceAccount", "roleArn")}
        answer = aws("eks").create_pod_identity_association(**pick(inputs, **names), tags=inputs.get("tagsAll") or {})
        return str(answer["association"]["associationId"])

    def read(self, aws: Aws, identifier: str, state: Properties) -> Properties | None:
        answer = aws("eks").describe_pod_identity_association(
            clusterName=state["clusterName"], associationId=identifier
        )
        association = answer["association"]
        return {
            "associationArn": association["associationArn"],
            "associationId": identifier,
            "roleArn": association["roleArn"],
        }

    def update(self, aws: Aws, identifier: str, state: Properties, new: Properties, changed: set[str]) -> None:
        if changed:
            aws("eks").update_pod_identity_association(
                clusterName=state["clusterName"], associationId=identifier, roleArn=new["roleArn"]
            )

    def delete(self, aws: Aws, identifier: str, state: Properties) -> None:
        aws("eks").delete_pod_identity_association(clusterName=state["clusterName"], associationId=identifier)
