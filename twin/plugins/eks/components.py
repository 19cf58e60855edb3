"""The components."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from typing import Any

import pulumi
import pulumi_aws as aws

_LOADED = (aws.eks.Cluster, aws.iam.Role)
"""The SDK's modules load when something in them is asked for: now, in whichever thread this is."""
CLUSTER = "eks:index:Cluster"
CLUSTER_POLICIES = ("AmazonEKSClusterPolicy",)
_KUBERNETES_PROVIDER_VERSION = "4.19.0"
"""Version of the kubernetes provider that upstream's component asks for (nodejs/eks/package.json)."""
_OLDEST_AWS_CLI = {"1": (1, 24, 0), "2": (2, 7, 0)}
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
_DISABLED_ADDONS = ("corednsAddonOptions", "kubeProxyAddonOptions")


def refuse(inputs: Mapping[str, Any]) -> str | None:
    """Return why these inputs can't be served by the stand-in; None if they can."""
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


def _upgrade_policy(inputs: Mapping[str, Any]) -> aws.eks.ClusterUpgradePolicyArgs | None:
    policy = inputs.get("upgradePolicy")
    return None if policy is None else aws.eks.ClusterUpgradePolicyArgs(support_type=policy.get("supportType"))


def require_aws_cli() -> None:
    """Refuse a machine whose `aws` upstream refuses too (nodejs/eks/dependencies.ts).

    Raises:
        ValueError: there is none, or it is too old.
    """
    if shutil.which("aws") is None:
        raise ValueError("Could not find aws CLI for EKS.")
    answer = subprocess.run(["aws", "--version"], text=True, capture_output=True, check=True).stdout
    version = re.match(r"aws-cli/(\d+)\.(\d+)\.(\d+)", answer)
    wanted = _OLDEST_AWS_CLI.get(version[1] if version else "", _OLDEST_AWS_CLI["2"])
    if version is None or tuple(map(int, version.groups())) < wanted:
        raise ValueError(f"At least v{'.'.join(map(str, wanted))} of aws-cli is required, not {answer.strip()!r}.")


def kubeconfig(name: str, endpoint: str, authority: str, region: str) -> dict[str, Any]:
    """The kubeconfig of the component's own provider and outputs."""
    command = ["--region", region, "eks", "get-token", "--cluster-name", name, "--output", "json"]
    version = "client.authentication.k8s.io/v1beta1"
    environment = [{"name": "KUBERNETES_EXEC_INFO", "value": f'{{"apiVersion": "{version}"}}'}]
    user = {"exec": {"apiVersion": version, "command": "aws", "args": command, "env": environment}}
    cluster = {"server": endpoint, "certificate-authority-data": authority}
    return {
        "apiVersion": "v1",
        "clusters": [{"cluster": cluster, "name": "kubernetes"}],
        "contexts": [{"context": {"cluster": "kubernetes", "user": "aws"}, "name": "aws"}],
        "current-context": "aws",
        "kind": "Config",
        "users": [{"name": "aws", "user": user}],
    }


class ServiceRole(pulumi.ComponentResource):
    """Upstream's component of a role that a service assumes (nodejs/eks/servicerole.ts)."""

    def __init__(
        self, name: str, service: str, actions: list[str], policies: list[str], tags: Any, opts: pulumi.ResourceOptions
    ) -> None:
        super().__init__("eks:index:ServiceRole", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        statement = {"Action": actions, "Effect": "Allow", "Principal": {"Service": [service]}}
        self.role = aws.iam.Role(
            f"{name}-role",
            description="Allows EKS to manage clusters on your behalf.",
            assume_role_policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}),
            tags=tags,
            opts=child,
        )
        self.policies = [
            aws.iam.RolePolicyAttachment(
                f"{name}-{hashlib.sha1(arn.encode(), usedforsecurity=False).hexdigest()[:8]}",
                policy_arn=arn,
                role=self.role.name,
                opts=child,
            )
            for arn in policies
        ]
        self.register_outputs({"directRole": self.role, "resolvedRole": self.role})


class Cluster(pulumi.ComponentResource):
    """The resources of upstream's component for a cluster without node groups of its own (nodejs/eks/cluster/cluster.ts)."""

    def __init__(self, name: str, inputs: Mapping[str, Any], opts: pulumi.ResourceOptions) -> None:
        super().__init__(CLUSTER, name, None, opts)
        reason = refuse(inputs)
        if reason is not None:
            raise ValueError(reason)
        require_aws_cli()
        role = ServiceRole(
            f"{name}-eksRole",
            "eks.amazonaws.com",
            ["sts:AssumeRole", "sts:TagSession"],
            [f"arn:aws:iam::aws:policy/{policy}" for policy in CLUSTER_POLICIES],
            inputs.get("tags"),
            pulumi.ResourceOptions(parent=self),
        )
        subnet_lists = [inputs.get(key) or [] for key in ("publicSubnetIds", "privateSubnetIds", "subnetIds")]
        subnets = pulumi.Output.all(*subnet_lists).apply(lambda lists: [subnet for each in lists for subnet in each])
        self.cluster = self._cluster(name, inputs, role, subnets)
        self._entries(name, inputs.get("accessEntries") or {})
        authority = self.cluster.certificate_authority.data
        config = pulumi.Output.all(self.cluster.name, self.cluster.endpoint, authority, self.cluster.arn).apply(
            lambda values: kubeconfig(values[0], values[1], values[2], values[3].split(":")[3])
        )
        text = config.apply(json.dumps)
        provider = pulumi.ProviderResource(
            "kubernetes",
            f"{name}-eks-k8s",
            {"kubeconfig": text},
            pulumi.ResourceOptions(parent=self, version=_KUBERNETES_PROVIDER_VERSION),
        )
        issuer = self.cluster.identities.apply(
            lambda identities: identities[0]["oidcs"][0]["issuer"] if identities else ""
        )
        group = self.cluster.vpc_config.cluster_security_group_id
        core = {
            "accessEntries": [],
            "cluster": self.cluster,
            "clusterIamRole": role.role,
            "endpoint": self.cluster.endpoint,
            "instanceRoles": [],
            "kubeconfig": config,
            "nodeGroupOptions": {},
            "provider": provider,
            "subnetIds": subnets,
            "vpcId": inputs.get("vpcId"),
        }
        self.outputs: dict[str, Any] = {
            "autoModeNodeRoleName": "",
            "clusterIngressRuleId": "",
            "clusterSecurityGroupId": group,
            "core": pulumi.Output.secret(core),
            "defaultNodeGroupAsgName": "",
            "eksCluster": pulumi.Output.secret(self.cluster),
            "fargateProfileId": "",
            "fargateProfileStatus": "",
            "instanceRoles": [],
            "kubeconfig": config,
            "kubeconfigJson": text,
            "nodeSecurityGroupId": group,
            "oidcIssuer": issuer.apply(lambda url: url.removeprefix("https://")),
            "oidcProviderArn": "",
            "oidcProviderUrl": issuer,
        }
        self.register_outputs(self.outputs)

    def _cluster(
        self, name: str, inputs: Mapping[str, Any], role: ServiceRole, subnets: pulumi.Output[list[str]]
    ) -> aws.eks.Cluster:
        key = inputs.get("encryptionConfigKeyArn")
        encryption = None
        if key is not None:
            encryption = aws.eks.ClusterEncryptionConfigArgs(
                provider=aws.eks.ClusterEncryptionConfigProviderArgs(key_arn=key), resources=["secrets"]
            )
        return aws.eks.Cluster(
            f"{name}-eksCluster",
            name=inputs.get("name"),
            role_arn=role.role.arn,
            bootstrap_self_managed_addons=True,
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
            tags=pulumi.Output.from_input(inputs.get("tags")).apply(
                lambda tags: {"Name": f"{name}-eksCluster", **(tags or {})}
            ),
            opts=pulumi.ResourceOptions(
                parent=self,
                depends_on=[role.role, *role.policies],
                ignore_changes=[
                    "accessConfig.bootstrapClusterCreatorAdminPermissions",
                    "bootstrapSelfManagedAddons",
                ],
            ),
        )

    def _entries(self, name: str, entries: Mapping[str, Any]) -> None:
        for key, entry in entries.items():
            access_entry = aws.eks.AccessEntry(
                f"{name}-{key}",
                cluster_name=self.cluster.name,
                principal_arn=entry["principalArn"],
                kubernetes_groups=entry.get("kubernetesGroups"),
                type=entry.get("type"),
                user_name=entry.get("username"),
                opts=pulumi.ResourceOptions(parent=self, depends_on=[self.cluster]),
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
                    opts=pulumi.ResourceOptions(parent=access_entry, depends_on=[access_entry]),
                )
