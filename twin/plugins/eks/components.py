"""The components."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pulumi
import pulumi_aws as aws

_LOADED = (aws.eks.Cluster, aws.iam.Role)
"""The SDK's modules load when something in them is asked for: now, in whichever thread this is."""
CLUSTER = "eks:index:Cluster"
NODE_GROUP = "eks:index:ManagedNodeGroup"
CLUSTER_POLICIES = ("AmazonEKSClusterPolicy",)
_USED = {
    "name", "version", "vpcId", "publicSubnetIds", "privateSubnetIds", "subnetIds", "authenticationMode", "accessEntries",
    "endpointPrivateAccess", "endpointPublicAccess", "publicAccessCidrs", "enabledClusterLogTypes",
    "encryptionConfigKeyArn", "upgradePolicy", "tags",
}  # fmt: skip
_ONLY = {
    "skipDefaultNodeGroup": True,
    "skipDefaultSecurityGroups": True,
    "createInstanceRole": False,
    "createOidcProvider": False,
    "useDefaultVpcCni": True,
}
_NODE_GROUP_NEEDED = {"cluster", "clusterName", "nodeRoleArn", "subnetIds", "launchTemplate"}
_NODE_GROUP_USED = {
    *_NODE_GROUP_NEEDED, "amiType", "capacityType", "instanceTypes", "labels", "releaseVersion", "scalingConfig", "tags",
    "version",
}  # fmt: skip
_DISABLED_ADDONS = ("corednsAddonOptions", "kubeProxyAddonOptions")


def refuse(inputs: Mapping[str, Any]) -> str | None:
    """Why these inputs can't be served by the stand-in; None if they can."""
    for name, value in inputs.items():
        if name in _USED:
            continue
        if name in _ONLY and value == _ONLY[name]:
            continue
        if name in _DISABLED_ADDONS and isinstance(value, Mapping) and value.get("enabled") is False:
            continue
        return f"twin: {CLUSTER} input {name}={value!r} is not implemented by the stand-in of the eks plugin"
    for name, wanted in _ONLY.items():
        if inputs.get(name) != wanted:
            return f"twin: {CLUSTER} without {name}={wanted} is not implemented by the stand-in of the eks plugin"
    if inputs.get("authenticationMode") != "API":
        return f"twin: {CLUSTER} authenticationMode={inputs.get('authenticationMode')!r} is not implemented; only API"
    return None


def refuse_nodes(inputs: Mapping[str, Any]) -> str | None:
    """Why this node group can't be served by the stand-in; None if it can."""
    extra, missing = sorted(set(inputs) - _NODE_GROUP_USED), sorted(_NODE_GROUP_NEEDED - set(inputs))
    if extra:
        return f"twin: {NODE_GROUP} input {', '.join(extra)} is not implemented by the stand-in of the eks plugin"
    if missing:
        return f"twin: {NODE_GROUP} without {', '.join(missing)} is not implemented by the stand-in of the eks plugin"
    return None


def _upgrade_policy(inputs: Mapping[str, Any]) -> aws.eks.ClusterUpgradePolicyArgs | None:
    given = inputs.get("upgradePolicy")
    return None if given is None else aws.eks.ClusterUpgradePolicyArgs(support_type=given.get("supportType"))


class Cluster(pulumi.ComponentResource):
    """What upstream's component makes of a cluster without node groups of its own."""

    def __init__(self, name: str, inputs: Mapping[str, Any], opts: pulumi.ResourceOptions) -> None:
        super().__init__(CLUSTER, name, None, opts)
        reason = refuse(inputs)
        if reason is not None:
            raise ValueError(reason)
        child = pulumi.ResourceOptions(parent=self)
        statement = {
            "Effect": "Allow",
            "Principal": {"Service": "eks.amazonaws.com"},
            "Action": ["sts:AssumeRole", "sts:TagSession"],
        }
        role = aws.iam.Role(
            f"{name}-eksRole-role",
            assume_role_policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}),
            opts=child,
        )
        policies = [
            aws.iam.RolePolicyAttachment(
                f"{name}-eksRole-{index}",
                role=role.name,
                policy_arn=f"arn:aws:iam::aws:policy/{policy}",
                opts=child,
            )
            for index, policy in enumerate(CLUSTER_POLICIES)
        ]
        given = [inputs.get(key) or [] for key in ("publicSubnetIds", "privateSubnetIds", "subnetIds")]
        subnets = pulumi.Output.all(*given).apply(lambda lists: [one for each in lists for one in each])
        key = inputs.get("encryptionConfigKeyArn")
        encryption = None
        if key is not None:
            encryption = aws.eks.ClusterEncryptionConfigArgs(
                provider=aws.eks.ClusterEncryptionConfigProviderArgs(key_arn=key), resources=["secrets"]
            )
        self.cluster = aws.eks.Cluster(
            f"{name}-eksCluster",
            name=inputs.get("name"),
            role_arn=role.arn,
            version=inputs.get("version"),
            upgrade_policy=_upgrade_policy(inputs),
            vpc_config=aws.eks.ClusterVpcConfigArgs(
                subnet_ids=subnets,
                endpoint_private_access=inputs.get("endpointPrivateAccess"),
                endpoint_public_access=inputs.get("endpointPublicAccess"),
                public_access_cidrs=inputs.get("publicAccessCidrs"),
            ),
            access_config=aws.eks.ClusterAccessConfigArgs(
                authentication_mode="API", bootstrap_cluster_creator_admin_permissions=True
            ),
            encryption_config=encryption,
            enabled_cluster_log_types=inputs.get("enabledClusterLogTypes"),
            tags=inputs.get("tags"),
            opts=pulumi.ResourceOptions(parent=self, depends_on=policies),
        )
        self._entries(name, inputs.get("accessEntries") or {})
        self.register_outputs({})

    def _entries(self, name: str, entries: Mapping[str, Any]) -> None:
        for key, entry in entries.items():
            made = aws.eks.AccessEntry(
                f"{name}-{key}",
                cluster_name=self.cluster.name,
                principal_arn=entry["principalArn"],
                kubernetes_groups=entry.get("kubernetesGroups"),
                type=entry.get("type"),
                user_name=entry.get("username"),
                opts=pulumi.ResourceOptions(parent=self),
            )
            for policy, association in (entry.get("accessPolicies") or {}).items():
                scope = association["accessScope"]
                aws.eks.AccessPolicyAssociation(
                    f"{name}-{key}-{policy}",
                    cluster_name=self.cluster.name,
                    principal_arn=entry["principalArn"],
                    policy_arn=association["policyArn"],
                    access_scope=aws.eks.AccessPolicyAssociationAccessScopeArgs(
                        type=scope["type"], namespaces=scope.get("namespaces")
                    ),
                    opts=pulumi.ResourceOptions(parent=self, depends_on=[made]),
                )


class ManagedNodeGroup(pulumi.ComponentResource):
    """Upstream's component with a launch template given: one node group (nodejs/eks/nodes/nodegroup.ts)."""

    def __init__(self, name: str, inputs: Mapping[str, Any], opts: pulumi.ResourceOptions) -> None:
        super().__init__(NODE_GROUP, name, None, opts)
        reason = refuse_nodes(inputs)
        if reason is not None:
            raise ValueError(reason)
        scaling = inputs.get("scalingConfig") or {}
        template: pulumi.Output[Any] = pulumi.Output.from_input(inputs["launchTemplate"])
        self.group = aws.eks.NodeGroup(
            name,
            ami_type=inputs.get("amiType"),
            capacity_type=inputs.get("capacityType"),
            cluster_name=inputs["clusterName"],
            instance_types=inputs.get("instanceTypes"),
            labels=inputs.get("labels"),
            launch_template=aws.eks.NodeGroupLaunchTemplateArgs(
                id=template.apply(lambda given: given["id"]), version=template.apply(lambda given: given["version"])
            ),
            node_role_arn=inputs["nodeRoleArn"],
            release_version=inputs.get("releaseVersion"),
            scaling_config=aws.eks.NodeGroupScalingConfigArgs(
                desired_size=scaling.get("desiredSize", 2),
                min_size=scaling.get("minSize", 1),
                max_size=scaling.get("maxSize", 2),
            ),
            subnet_ids=inputs["subnetIds"],
            tags=inputs.get("tags"),
            version=inputs.get("version"),
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.register_outputs({})
