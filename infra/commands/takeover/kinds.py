"""Terraform's types that this program knows: the Pulumi type, the import id, and which argument needs a new resource.

The provider's schema would say the last, and no Python package holds it. So it is a table: the arguments that the page of
each type marks "Forces new resource" (`source`), for what this program declares. The rows of `aws_db_instance`,
`aws_eks_cluster`, `aws_eks_node_group` and `aws_ecr_repository` were compared with `ForceNew` in the provider's source
(hashicorp/terraform-provider-aws, internal/service/{rds,eks,ecr}). Where versions of the provider differ, the stricter counts.

Import ids have the form of each page's section "Import".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

_DOCUMENTATION = "https://registry.terraform.io/providers/hashicorp/aws/latest/docs/resources"


class Part(StrEnum):
    """The part of a layout that a type belongs to; it decides about objects that this program declares no counterpart of."""

    NETWORK = "network"
    CLUSTER = "cluster"
    SHARED = "shared"
    """The cluster's if the cluster refers to it or its module has it, else the application's."""
    DATABASE = "database"
    EDGE = "edge"
    """Names, certificates and load balancers, which users reach."""
    REGISTRY = "registry"
    SECRETS = "secrets"
    ZONE = "zone"
    CHART = "chart"
    KUBERNETES = "kubernetes"
    LOCAL = "local"
    """Only in the state: no provider holds anything of it."""


@dataclass(frozen=True)
class TerraformType:
    """One of Terraform's types."""

    part: Part
    pulumi_type: str = ""
    """Pulumi's type; empty if this program declares none like it."""
    forces_new: frozenset[str] = frozenset()
    """Arguments by Pulumi's names; a dot leads into a nested one."""
    forces_new_if_removed: frozenset[str] = frozenset()
    """Arguments by Terraform's names, which this program never gives: what is set would be taken away by a new resource."""
    import_id: str = "{id}"
    """Attributes in braces."""
    names: frozenset[str] = frozenset()
    """Arguments by Pulumi's names that say which one it is: AWS takes one of such a name alone."""
    holds_data: bool = False
    """Nothing in it comes back when it is made anew; or all in the cluster goes with it."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _aws(
    part: Part,
    pulumi_type: str = "",
    forces_new: str = "",
    *,
    names: str = "",
    removed: str = "",
    import_id: str = "{id}",
    holds_data: bool = False,
) -> TerraformType:
    return TerraformType(
        part,
        f"aws:{pulumi_type}" if pulumi_type else "",
        _words(forces_new),
        _words(removed),
        import_id,
        _words(names),
        holds_data,
    )


_RULE = (
    "securityGroupId cidrIpv4 cidrIpv6 fromPort toPort ipProtocol prefixListId referencedSecurityGroupId description"
)
_NETWORK_TYPES = {
    "aws_vpc": _aws(Part.NETWORK, "ec2/vpc:Vpc", "cidrBlock ipv4IpamPoolId", holds_data=True),
    "aws_subnet": _aws(
        Part.NETWORK,
        "ec2/subnet:Subnet",
        "vpcId cidrBlock availabilityZone availabilityZoneId outpostArn",
        names="vpcId cidrBlock",
        holds_data=True,
    ),
    "aws_internet_gateway": _aws(Part.NETWORK, "ec2/internetGateway:InternetGateway", "vpcId", names="vpcId"),
    "aws_nat_gateway": _aws(
        Part.NETWORK,
        "ec2/natGateway:NatGateway",
        "allocationId subnetId connectivityType privateIp",
        names="subnetId",
    ),
    "aws_eip": _aws(Part.NETWORK, "ec2/eip:Eip", "domain address publicIpv4Pool"),
    "aws_route_table": _aws(Part.NETWORK, "ec2/routeTable:RouteTable", "vpcId"),
    "aws_route": _aws(
        Part.NETWORK,
        "ec2/route:Route",
        "routeTableId destinationCidrBlock destinationIpv6CidrBlock destinationPrefixListId",
        names="routeTableId destinationCidrBlock",
        import_id="{route_table_id}_{destination_cidr_block}",
    ),
    "aws_route_table_association": _aws(
        Part.NETWORK,
        "ec2/routeTableAssociation:RouteTableAssociation",
        "subnetId gatewayId",
        names="subnetId",
        import_id="{subnet_id}/{route_table_id}",
    ),
    "aws_vpc_endpoint": _aws(
        Part.NETWORK,
        "ec2/vpcEndpoint:VpcEndpoint",
        "vpcId serviceName vpcEndpointType",
        names="vpcId serviceName",
    ),
    **dict.fromkeys(
        ("aws_default_network_acl", "aws_default_route_table", "aws_default_security_group", "aws_network_acl",
         "aws_network_acl_rule", "aws_vpc_dhcp_options", "aws_vpc_dhcp_options_association", "aws_flow_log",
         "aws_egress_only_internet_gateway", "aws_vpc_ipv4_cidr_block_association", "aws_main_route_table_association",
         "aws_vpn_gateway", "aws_customer_gateway", "aws_ec2_tag"),
        _aws(Part.NETWORK),
    ),
}  # fmt: skip
_CLUSTER_TYPES = {
    "aws_eks_cluster": _aws(
        Part.CLUSTER,
        "eks/cluster:Cluster",
        "name roleArn accessConfig.bootstrapClusterCreatorAdminPermissions bootstrapSelfManagedAddons encryptionConfig "
        "kubernetesNetworkConfig",
        names="name",
        removed="outpost_config remote_network_config encryption_config",
        import_id="{name}",
        holds_data=True,
    ),
    "aws_eks_node_group": _aws(
        Part.CLUSTER,
        "eks/nodeGroup:NodeGroup",
        "clusterName nodeGroupName nodeRoleArn subnetIds instanceTypes amiType capacityType diskSize launchTemplate.id "
        "launchTemplate.name remoteAccess",
        removed="remote_access",
        import_id="{cluster_name}:{node_group_name}",
    ),
    "aws_eks_addon": _aws(
        Part.CLUSTER,
        "eks/addon:Addon",
        "clusterName addonName",
        names="clusterName addonName",
        import_id="{cluster_name}:{addon_name}",
    ),
    "aws_eks_access_entry": _aws(
        Part.CLUSTER,
        "eks/accessEntry:AccessEntry",
        "clusterName principalArn type",
        names="clusterName principalArn",
        import_id="{cluster_name}:{principal_arn}",
    ),
    "aws_eks_access_policy_association": _aws(
        Part.CLUSTER,
        "eks/accessPolicyAssociation:AccessPolicyAssociation",
        "clusterName principalArn policyArn accessScope",
        names="clusterName principalArn policyArn",
        import_id="{cluster_name}#{principal_arn}#{policy_arn}",
    ),
    "aws_eks_pod_identity_association": _aws(
        Part.CLUSTER,
        "eks/podIdentityAssociation:PodIdentityAssociation",
        "clusterName namespace serviceAccount",
        names="clusterName namespace serviceAccount",
        import_id="{cluster_name},{association_id}",
    ),
    "aws_launch_template": _aws(Part.CLUSTER, "ec2/launchTemplate:LaunchTemplate", "name namePrefix", names="name"),
    **dict.fromkeys(
        ("aws_eks_fargate_profile", "aws_eks_identity_provider_config", "aws_iam_openid_connect_provider",
         "aws_autoscaling_group", "aws_autoscaling_group_tag"),
        _aws(Part.CLUSTER),
    ),
    "aws_iam_role": _aws(Part.SHARED, "iam/role:Role", "name namePrefix path", names="name", import_id="{name}"),
    "aws_iam_role_policy": _aws(
        Part.SHARED, "iam/rolePolicy:RolePolicy", "name namePrefix role", names="role name", import_id="{role}:{name}"
    ),
    "aws_iam_role_policy_attachment": _aws(
        Part.SHARED,
        "iam/rolePolicyAttachment:RolePolicyAttachment",
        "role policyArn",
        names="role policyArn",
        import_id="{role}/{policy_arn}",
    ),
    **dict.fromkeys(
        ("aws_iam_policy", "aws_iam_instance_profile", "aws_iam_policy_attachment", "aws_iam_user", "aws_iam_user_policy",
         "aws_iam_user_policy_attachment", "aws_iam_access_key"),
        _aws(Part.SHARED),
    ),
    "aws_security_group": _aws(
        Part.SHARED, "ec2/securityGroup:SecurityGroup", "name namePrefix description vpcId", names="name vpcId"
    ),
    "aws_vpc_security_group_ingress_rule": _aws(
        Part.SHARED, "vpc/securityGroupIngressRule:SecurityGroupIngressRule", _RULE
    ),
    "aws_vpc_security_group_egress_rule": _aws(
        Part.SHARED, "vpc/securityGroupEgressRule:SecurityGroupEgressRule", _RULE
    ),
    "aws_security_group_rule": _aws(Part.SHARED),
    "aws_kms_key": _aws(
        Part.SHARED, "kms/key:Key", "customKeyStoreId keyUsage customerMasterKeySpec multiRegion", import_id="{key_id}"
    ),
    "aws_kms_alias": _aws(Part.SHARED),
    "aws_kms_key_policy": _aws(Part.SHARED),
    "aws_budgets_budget": _aws(
        Part.SHARED, "budgets/budget:Budget", "name namePrefix accountId", names="name", import_id="{id}"
    ),
    "aws_cloudwatch_log_group": _aws(
        Part.SHARED,
        "cloudwatch/logGroup:LogGroup",
        "name namePrefix",
        names="name",
        import_id="{name}",
    ),
}  # fmt: skip
_APPLICATION_TYPES = {
    "aws_db_instance": _aws(
        Part.DATABASE,
        "rds/instance:Instance",
        "identifier identifierPrefix engine dbName username storageEncrypted kmsKeyId availabilityZone characterSetName "
        "snapshotIdentifier timezone customIamInstanceProfile restoreToPointInTime",
        names="identifier",
        removed="custom_iam_instance_profile restore_to_point_in_time s3_import",
        import_id="{identifier}",
        holds_data=True,
    ),
    "aws_db_subnet_group": _aws(
        Part.DATABASE, "rds/subnetGroup:SubnetGroup", "name namePrefix", names="name", import_id="{name}"
    ),
    "aws_db_parameter_group": _aws(
        Part.DATABASE,
        "rds/parameterGroup:ParameterGroup",
        "name namePrefix family description",
        names="name",
        import_id="{name}",
    ),
    **dict.fromkeys(
        ("aws_db_option_group", "aws_db_snapshot", "aws_db_proxy", "aws_db_instance_role_association",
         "aws_secretsmanager_secret_rotation"),
        _aws(Part.DATABASE),
    ),
    **dict.fromkeys(("aws_rds_cluster", "aws_rds_cluster_instance"), _aws(Part.DATABASE, holds_data=True)),
    "aws_ecr_repository": _aws(
        Part.REGISTRY,
        "ecr/repository:Repository",
        "name encryptionConfigurations",
        names="name",
        import_id="{name}",
        holds_data=True,
    ),
    "aws_ecr_lifecycle_policy": _aws(
        Part.REGISTRY, "ecr/lifecyclePolicy:LifecyclePolicy", "repository", names="repository", import_id="{repository}"
    ),
    "aws_ecr_repository_policy": _aws(Part.REGISTRY),
    "aws_ecr_registry_scanning_configuration": _aws(Part.REGISTRY),
    "aws_secretsmanager_secret": _aws(
        Part.SECRETS,
        "secretsmanager/secret:Secret",
        "name namePrefix",
        names="name",
        import_id="{arn}",
        holds_data=True,
    ),
    "aws_secretsmanager_secret_version": _aws(Part.SECRETS),
    "aws_secretsmanager_secret_policy": _aws(Part.SECRETS),
    "aws_ssm_parameter": _aws(Part.SECRETS, "ssm/parameter:Parameter", "name", names="name", import_id="{name}"),
    "aws_dynamodb_table": _aws(
        Part.SECRETS, "dynamodb/table:Table", "name hashKey rangeKey", names="name", import_id="{name}", holds_data=True
    ),
    "aws_route53_zone": _aws(Part.ZONE, import_id="{zone_id}"),
    "aws_route53_record": _aws(
        Part.EDGE,
        "route53/record:Record",
        "zoneId name type setIdentifier",
        names="name type",
        import_id="{zone_id}_{name}_{type}",
    ),
    "aws_acm_certificate": _aws(
        Part.EDGE, "acm/certificate:Certificate", "domainName subjectAlternativeNames validationMethod keyAlgorithm"
    ),
    "aws_acm_certificate_validation": _aws(
        Part.EDGE,
        "acm/certificateValidation:CertificateValidation",
        "certificateArn validationRecordFqdns",
    ),
    "aws_lb": _aws(
        Part.EDGE,
        "lb/loadBalancer:LoadBalancer",
        "name namePrefix internal loadBalancerType",
        names="name",
        import_id="{arn}",
    ),
    "aws_elb": _aws(Part.EDGE),
    "aws_lb_target_group": _aws(
        Part.EDGE,
        "lb/targetGroup:TargetGroup",
        "name namePrefix port protocol protocolVersion targetType vpcId ipAddressType",
        names="name",
        import_id="{arn}",
    ),
    "aws_lb_listener": _aws(Part.EDGE, "lb/listener:Listener", "loadBalancerArn"),
    "aws_lb_listener_rule": _aws(Part.EDGE, "lb/listenerRule:ListenerRule", "listenerArn"),
    "aws_lb_listener_certificate": _aws(Part.EDGE),
    "aws_lb_target_group_attachment": _aws(Part.EDGE),
    "aws_wafv2_web_acl_association": _aws(Part.EDGE),
    "helm_release": TerraformType(
        Part.CHART,
        "kubernetes:helm.sh/v3:Release",
        frozenset(),
        import_id="{namespace}/{name}",
        names=frozenset({"namespace", "name"}),
    ),
}  # fmt: skip
_APPLICATION_TYPES["aws_alb"] = _APPLICATION_TYPES["aws_lb"]
_APPLICATION_TYPES["aws_alb_listener"] = _APPLICATION_TYPES["aws_lb_listener"]
_APPLICATION_TYPES["aws_alb_listener_rule"] = _APPLICATION_TYPES["aws_lb_listener_rule"]
_APPLICATION_TYPES["aws_alb_target_group"] = _APPLICATION_TYPES["aws_lb_target_group"]
_LOCAL_TYPES = dict.fromkeys(
    ("null_resource", "terraform_data", "random_password", "random_string", "random_id", "random_pet", "random_integer",
     "random_uuid", "random_bytes", "random_shuffle", "tls_private_key", "tls_cert_request", "tls_self_signed_cert",
     "tls_locally_signed_cert", "time_sleep", "time_static", "time_rotating", "time_offset", "local_file",
     "local_sensitive_file"),
    TerraformType(Part.LOCAL),
)  # fmt: skip

KINDS: Mapping[str, TerraformType] = {**_NETWORK_TYPES, **_CLUSTER_TYPES, **_APPLICATION_TYPES, **_LOCAL_TYPES}


def documentation_page(type_name: str) -> str:
    """Return the address of the page that a row of the table follows; `aws_alb` is another name of `aws_lb`."""
    return f"{_DOCUMENTATION}/{type_name.removeprefix('aws_').replace('alb', 'lb', 1)}"


def kubernetes_kind(type_name: str) -> str:
    """Return the Kubernetes kind of a type of Terraform's provider; nothing if it is none of those."""
    if not type_name.startswith("kubernetes_"):
        return ""
    words = type_name.removeprefix("kubernetes_").split("_")
    if words and words[-1] in {"v1", "v2", "v1beta1", "v2beta2"}:
        words = words[:-1]
    return "".join(word.capitalize() for word in words)
