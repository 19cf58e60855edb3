"""The EKS cluster: two t3.medium nodes, access by IAM access entries alone, or an existing cluster by kubeconfig.

* Authentication mode API: no aws-auth map that could lock everybody out.
* Control-plane logs of every kind, kept for as long as the settings say; secrets encrypted by a key of its own.
* Nodes: exactly two, AL2023, instance metadata by token and from the node alone (hop limit 1), so no pod can borrow the
  node's role; an encrypted disk of the size that the capacity plan counts with. An update takes away one at a time, after
  new ones have come.
* AWS moves the cluster to another Kubernetes version by itself only where the settings say so.
* Managed add-ons, versions pinned; the VPC CNI enforces network policies.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pulumi
import pulumi_aws as aws
import pulumi_eks as eks

from infra.capacity import DISK_GIBIBYTES, NODES
from infra.clients.kubernetes import kubeconfig
from infra.foundation.auto_names import keep_component_name, name_of_content
from infra.foundation.availability_zones import zone_names
from infra.foundation.providers import one_kubernetes_plugin
from infra.names import CLUSTER_ADMIN_POLICY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from infra.foundation.network import Network
    from infra.settings import Settings

INSTANCE_TYPE = "t3.medium"
AMI_TYPE = "AL2023_x86_64_STANDARD"
CAPACITY_TYPE = "ON_DEMAND"
ROOT_DEVICE = "/dev/xvda"
"""Root device of AL2023 (docs.aws.amazon.com/linux/al2023, EBS root volume)."""
_ACCESS = frozenset({"aws:eks/accessEntry:AccessEntry", "aws:eks/accessPolicyAssociation:AccessPolicyAssociation"})
LOG_TYPES = ("api", "audit", "authenticator", "controllerManager", "scheduler")
NODE_POLICIES = ("AmazonEKSWorkerNodePolicy", "AmazonEC2ContainerRegistryPullOnly", "AmazonEKS_CNI_Policy")
CONFIGURATION: dict[str, dict[str, Any]] = {"vpc-cni": {"enableNetworkPolicy": "true"}}
UNAVAILABLE_NODES = 1
"""Number of nodes drained at once during an update of the nodes: the capacity plan has room for one (infra/capacity.py)."""

UPDATE_STRATEGY = "DEFAULT"
"""New nodes come first. MINIMAL takes old ones away first, when production fits on one of two only without previews
(docs.aws.amazon.com/eks/latest/APIReference/API_NodegroupUpdateConfig.html)."""


def assume(service: str, *actions: str) -> str:
    """Return the trust policy for an AWS service."""
    statement = {
        "Effect": "Allow",
        "Principal": {"Service": service},
        "Action": list(actions) or ["sts:AssumeRole"],
    }
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def bounded(boundary: str) -> pulumi.ResourceTransform:
    """Give each role that a component makes the permissions boundary; pulumi-eks has no argument for its own role's."""

    def transform(args: pulumi.ResourceTransformArgs) -> pulumi.ResourceTransformResult | None:
        if args.type_ != "aws:iam/role:Role":
            return None
        return pulumi.ResourceTransformResult({**args.props, "permissionsBoundary": boundary}, args.opts)

    return transform


def removable_access(cluster: str, administrators: Sequence[str]) -> pulumi.ResourceTransform:
    """Let an administrator be taken out of the settings: access holds no data, so the cluster's protection is not for it.

    An entry is named by whose it is. By its place in the list, as states of before have it, the others would move when one is
    taken out, and EKS takes no second entry of a role.
    """
    former = {f"{cluster}-{_access_key(arn)}": f"{cluster}-administrator-{at}" for at, arn in enumerate(administrators)}

    def transform(args: pulumi.ResourceTransformArgs) -> pulumi.ResourceTransformResult | None:
        own = next((name for name in former if args.name.startswith(name)), None)
        if own is None or args.type_ not in _ACCESS:
            return None
        aliases = [pulumi.Alias(name=args.name.replace(own, former[own]))]
        options = pulumi.ResourceOptions(protect=False, aliases=aliases)
        return pulumi.ResourceTransformResult(args.props, pulumi.ResourceOptions.merge(args.opts, options))

    return transform


def _access_key(administrator: str) -> str:
    return name_of_content("administrator", [administrator])


def endpoint_access(api_access: str, cidrs: tuple[str, ...]) -> tuple[bool, list[str]]:
    """Decide if the API answers outside the VPC, and to which networks."""
    if api_access == "private":
        return False, []
    return True, list(cidrs) if api_access == "cidrs" else ["0.0.0.0/0"]


class Cluster(pulumi.ComponentResource):
    """EKS with its nodes and add-ons."""

    def __init__(
        self,
        name: str,
        settings: Settings,
        *,
        boundary: str,
        network: Network,
        region: str,
        components: pulumi.ResourceTransform,
        opts: pulumi.ResourceOptions,
    ) -> None:
        super().__init__("shopcat:cluster:Cluster", name, None, opts)
        self._settings, self._boundary, self._region = settings, boundary, region
        config = settings.cluster
        self.name = config.name
        logs = aws.cloudwatch.LogGroup(
            "control-plane",
            name=f"/aws/eks/{config.name}/cluster",  # EKS writes there; made first, so that the retention is ours
            retention_in_days=config.log_retention_days,
            # Kept when the stack is destroyed: EKS delivers logs for a while after its cluster is gone, and would make the
            # group anew, to be kept for ever.
            opts=pulumi.ResourceOptions(parent=self, retain_on_delete=True),
        )
        key = aws.kms.Key(
            "secrets",
            description=f"Kubernetes secrets of {config.name}",
            enable_key_rotation=True,
            deletion_window_in_days=30,
            opts=pulumi.ResourceOptions(parent=self, protect=settings.protection),
        )
        nodes = self._node_role()
        public, cidrs = endpoint_access(settings.api_access, settings.api_access_cidrs)
        cluster = eks.Cluster(
            name,
            name=config.name,
            version=config.kubernetes_version,
            upgrade_policy=aws.eks.ClusterUpgradePolicyArgs(support_type=config.support_type),
            vpc_id=network.vpc_id,
            public_subnet_ids=network.public_subnet_ids,
            private_subnet_ids=network.private_subnet_ids,
            authentication_mode=eks.AuthenticationMode.API,
            access_entries=self._access_entries(),
            endpoint_private_access=True,
            endpoint_public_access=public,
            public_access_cidrs=cidrs or None,
            enabled_cluster_log_types=list(LOG_TYPES),
            encryption_config_key_arn=key.arn,
            skip_default_node_group=True,
            skip_default_security_groups=True,
            create_instance_role=False,
            create_oidc_provider=False,
            use_default_vpc_cni=True,
            coredns_addon_options=eks.CoreDnsAddonOptionsArgs(enabled=False),
            kube_proxy_addon_options=eks.KubeProxyAddonOptionsArgs(enabled=False),
            opts=pulumi.ResourceOptions(
                parent=self,
                protect=settings.protection,
                depends_on=[logs],
                transforms=[
                    components,
                    one_kubernetes_plugin,
                    bounded(boundary),
                    keep_component_name,
                    removable_access(name, config.administrators),
                ],
            ),
        )
        self.control_plane_logs: pulumi.Input[str] = logs.name
        self.security_group_id = cluster.eks_cluster.vpc_config.cluster_security_group_id
        network_addon = self._addon("vpc-cni", [cluster])
        group = self._nodes(nodes, network, [network_addon])
        addons = [self._addon(addon, [group]) for addon in ("coredns", "kube-proxy", "eks-pod-identity-agent")]
        eks_cluster = cluster.eks_cluster
        text: pulumi.Output[str] = pulumi.Output.all(
            eks_cluster.endpoint, eks_cluster.certificate_authority.data
        ).apply(lambda both: kubeconfig(config.name, both[0], both[1], region))
        self.kubeconfig: pulumi.Output[str] = pulumi.Output.secret(text)
        self.ready: list[pulumi.Resource] = [*addons]
        self.register_outputs({"name": config.name})

    def _access_entries(self) -> dict[str, eks.AccessEntryArgs]:
        return {
            _access_key(arn): eks.AccessEntryArgs(
                principal_arn=arn,
                access_policies={
                    "admin": eks.AccessPolicyAssociationArgs(
                        policy_arn=CLUSTER_ADMIN_POLICY,
                        access_scope=aws.eks.AccessPolicyAssociationAccessScopeArgs(type="cluster"),
                    )
                },
            )
            for arn in self._settings.cluster.administrators
        }

    def _node_role(self) -> aws.iam.Role:
        role = aws.iam.Role(
            "node",
            assume_role_policy=assume("ec2.amazonaws.com"),
            permissions_boundary=self._boundary,
            opts=pulumi.ResourceOptions(parent=self),
        )
        self._node_policies = [
            aws.iam.RolePolicyAttachment(
                f"node-{policy}",
                role=role.name,
                policy_arn=f"arn:aws:iam::aws:policy/{policy}",
                opts=pulumi.ResourceOptions(parent=self),
            )
            for policy in NODE_POLICIES
        ]
        return role

    def _nodes(self, role: aws.iam.Role, network: Network, depends_on: list[pulumi.Resource]) -> aws.eks.NodeGroup:
        """Declare the nodes by the provider's own resource: pulumi-eks's ManagedNodeGroup (4.4.0) takes no `update_config`."""
        config, vpc = self._settings.cluster, self._settings.vpc
        template = aws.ec2.LaunchTemplate(
            "nodes",
            metadata_options=aws.ec2.LaunchTemplateMetadataOptionsArgs(
                http_endpoint="enabled", http_tokens="required", http_put_response_hop_limit=1
            ),
            block_device_mappings=[
                aws.ec2.LaunchTemplateBlockDeviceMappingArgs(
                    device_name=ROOT_DEVICE,
                    ebs=aws.ec2.LaunchTemplateBlockDeviceMappingEbsArgs(
                        volume_size=DISK_GIBIBYTES, volume_type="gp3", encrypted="true", delete_on_termination="true"
                    ),
                )
            ],
            tag_specifications=[
                aws.ec2.LaunchTemplateTagSpecificationArgs(
                    resource_type="instance", tags={"Name": f"{config.name}-node"}
                )
            ],
            update_default_version=True,
            opts=pulumi.ResourceOptions(parent=self),
        )
        group: aws.eks.NodeGroup = aws.eks.NodeGroup(
            "nodes",
            cluster_name=config.name,
            # Of all that a node group can't change: new nodes have another name and come before the old ones go, and a state
            # that is rebuilt (state_rebuild.py) finds them by it.
            node_group_name=name_of_content(
                "nodes", [INSTANCE_TYPE, AMI_TYPE, CAPACITY_TYPE, vpc.cidr, *zone_names(self._region, vpc.zones)]
            ),
            node_role_arn=role.arn,
            subnet_ids=network.private_subnet_ids,
            instance_types=[INSTANCE_TYPE],
            ami_type=AMI_TYPE,
            capacity_type=CAPACITY_TYPE,
            scaling_config=aws.eks.NodeGroupScalingConfigArgs(min_size=NODES, max_size=NODES, desired_size=NODES),
            update_config=aws.eks.NodeGroupUpdateConfigArgs(
                max_unavailable=UNAVAILABLE_NODES, update_strategy=UPDATE_STRATEGY
            ),
            release_version=config.ami_release_version or None,
            version=config.kubernetes_version,
            launch_template=aws.eks.NodeGroupLaunchTemplateArgs(
                id=template.id, version=template.latest_version.apply(str)
            ),
            opts=pulumi.ResourceOptions(
                parent=self,
                depends_on=[*depends_on, *self._node_policies],
                # It stood in a component of pulumi-eks before; without this the nodes would be made anew.
                aliases=[pulumi.Alias(parent=pulumi.create_urn("nodes", "eks:index:ManagedNodeGroup", self))],
            ),
        )
        return group

    def _addon(self, addon: str, depends_on: list[pulumi.Resource]) -> aws.eks.Addon:
        configuration = CONFIGURATION.get(addon)
        return aws.eks.Addon(
            addon,
            cluster_name=self.name,
            addon_name=addon,
            addon_version=self._settings.cluster.addon_versions.get(addon),
            configuration_values=json.dumps(configuration) if configuration else None,
            resolve_conflicts_on_create="OVERWRITE",
            resolve_conflicts_on_update="OVERWRITE",
            opts=pulumi.ResourceOptions(parent=self, depends_on=depends_on),
        )
