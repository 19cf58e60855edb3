"""AWS calls that the provider makes for each type of resource that production declares, and whose they are.

The calls are those of terraform-provider-aws, which the plugin aws wraps (internal/service/<service>/*.go: the functions
Create, Update and Delete of each resource, and the reads that follow a change). What the release role may call of an update is
given by name; everything else is an administrator's.
"""

from dataclasses import dataclass, field

ACCOUNT, REGION = "123456789012", "eu-central-1"


def arn(service: str, rest: str) -> str:
    return f"arn:aws:{service}:{REGION}:{ACCOUNT}:{rest}"


@dataclass(frozen=True)
class Calls:
    """Calls of the provider for one type; actions without their service's prefix."""

    service: str
    resource: str
    """ARN of such a resource of production; a role's ARN has no region."""
    create: str
    delete: str
    update: str = ""
    ordinary: str = ""
    """Updates that the release role makes where `updatesPlatform` is set."""
    release: str = ""
    """Updates that every release may make."""
    read: str = ""
    """Reads that follow an ordinary update or a release's."""
    tags: str = ""
    context: dict[str, str] = field(default_factory=dict)


def _group(kind: str) -> str:
    return arn("elasticloadbalancing", kind)


CALLS = {
    "acm.Certificate": Calls(
        "acm", arn("acm", "certificate/1"), "RequestCertificate", "DeleteCertificate", "UpdateCertificateOptions",
        tags="AddTagsToCertificate RemoveTagsFromCertificate",
    ),
    "acm.CertificateValidation": Calls("acm", arn("acm", "certificate/1"), "", ""),
    "budgets.Budget": Calls("budgets", f"arn:aws:budgets::{ACCOUNT}:budget/shopcat-monthly", "ModifyBudget", "ModifyBudget"),
    "cloudwatch.Dashboard": Calls(
        "cloudwatch", f"arn:aws:cloudwatch::{ACCOUNT}:dashboard/shopcat", "PutDashboard", "DeleteDashboards", "PutDashboard"
    ),
    "cloudwatch.LogGroup": Calls(
        "logs", arn("logs", "log-group:/aws/eks/shopcat/cluster"), "CreateLogGroup", "DeleteLogGroup",
        "PutRetentionPolicy DeleteRetentionPolicy AssociateKmsKey DisassociateKmsKey", tags="TagResource UntagResource",
    ),
    "cloudwatch.LogMetricFilter": Calls(
        "logs", arn("logs", "log-group:/shopcat/pods"), "PutMetricFilter", "DeleteMetricFilter", "PutMetricFilter"
    ),
    "cloudwatch.MetricAlarm": Calls(
        "cloudwatch", arn("cloudwatch", "alarm:shopcat-live-targets"), "PutMetricAlarm", "DeleteAlarms", "PutMetricAlarm",
        tags="TagResource UntagResource",
    ),
    "dynamodb.Table": Calls(
        "dynamodb", arn("dynamodb", "table/shopcat-previews"), "CreateTable", "DeleteTable",
        "UpdateTable UpdateTimeToLive UpdateContinuousBackups", tags="TagResource UntagResource",
    ),
    "ec2.Eip": Calls("ec2", arn("ec2", "elastic-ip/eipalloc-1"), "AllocateAddress", "ReleaseAddress", "AssociateAddress"),
    "ec2.InternetGateway": Calls(
        "ec2", arn("ec2", "internet-gateway/igw-1"), "CreateInternetGateway AttachInternetGateway",
        "DetachInternetGateway DeleteInternetGateway",
    ),
    "ec2.LaunchTemplate": Calls(
        "ec2", arn("ec2", "launch-template/lt-1"), "CreateLaunchTemplate", "DeleteLaunchTemplate",
        "CreateLaunchTemplateVersion ModifyLaunchTemplate",
    ),
    "ec2.NatGateway": Calls("ec2", arn("ec2", "natgateway/nat-1"), "CreateNatGateway", "DeleteNatGateway"),
    "ec2.Route": Calls("ec2", arn("ec2", "route-table/rtb-1"), "CreateRoute", "DeleteRoute", "ReplaceRoute"),
    "ec2.RouteTable": Calls("ec2", arn("ec2", "route-table/rtb-1"), "CreateRouteTable", "DeleteRouteTable"),
    "ec2.RouteTableAssociation": Calls(
        "ec2", arn("ec2", "route-table/rtb-1"), "AssociateRouteTable", "DisassociateRouteTable",
        "ReplaceRouteTableAssociation",
    ),
    "ec2.SecurityGroup": Calls(
        "ec2", arn("ec2", "security-group/sg-1"), "CreateSecurityGroup", "DeleteSecurityGroup",
        "AuthorizeSecurityGroupIngress AuthorizeSecurityGroupEgress RevokeSecurityGroupIngress RevokeSecurityGroupEgress",
        tags="CreateTags DeleteTags",
    ),
    "ec2.Subnet": Calls("ec2", arn("ec2", "subnet/subnet-1"), "CreateSubnet", "DeleteSubnet", "ModifySubnetAttribute"),
    "ec2.Vpc": Calls(
        "ec2", arn("ec2", "vpc/vpc-1"), "CreateVpc", "DeleteVpc", "ModifyVpcAttribute", tags="CreateTags DeleteTags"
    ),
    "ec2.VpcEndpoint": Calls(
        "ec2", arn("ec2", "vpc-endpoint/vpce-1"), "CreateVpcEndpoint", "DeleteVpcEndpoints", "ModifyVpcEndpoint"
    ),
    "vpc.SecurityGroupEgressRule": Calls(
        "ec2", arn("ec2", "security-group/sg-1"), "AuthorizeSecurityGroupEgress", "RevokeSecurityGroupEgress",
        "ModifySecurityGroupRules",
    ),
    "vpc.SecurityGroupIngressRule": Calls(
        "ec2", arn("ec2", "security-group/sg-1"), "AuthorizeSecurityGroupIngress", "RevokeSecurityGroupIngress",
        "ModifySecurityGroupRules",
    ),
    "ecr.LifecyclePolicy": Calls(
        "ecr", arn("ecr", "repository/shopcat"), "PutLifecyclePolicy", "DeleteLifecyclePolicy", "PutLifecyclePolicy"
    ),
    "ecr.Repository": Calls(
        "ecr", arn("ecr", "repository/shopcat"), "CreateRepository", "DeleteRepository BatchDeleteImage",
        "PutImageTagMutability PutImageScanningConfiguration SetRepositoryPolicy DeleteRepositoryPolicy",
        tags="TagResource UntagResource",
    ),
    "eks.AccessEntry": Calls(
        "eks", arn("eks", "access-entry/shopcat/role/123456789012/x/1"), "CreateAccessEntry", "DeleteAccessEntry",
        "UpdateAccessEntry",
    ),
    "eks.AccessPolicyAssociation": Calls(
        "eks", arn("eks", "access-entry/shopcat/role/123456789012/x/1"), "AssociateAccessPolicy",
        "DisassociateAccessPolicy", "AssociateAccessPolicy",
    ),
    "eks.Addon": Calls(
        "eks", arn("eks", "addon/shopcat/coredns/1"), "CreateAddon", "DeleteAddon", ordinary="UpdateAddon",
        read="DescribeAddon DescribeUpdate", tags="TagResource UntagResource",
    ),
    "eks.Cluster": Calls(
        "eks", arn("eks", "cluster/shopcat"), "CreateCluster", "DeleteCluster",
        "UpdateClusterConfig AssociateEncryptionConfig AssociateIdentityProviderConfig "
        "DisassociateIdentityProviderConfig",
        ordinary="UpdateClusterVersion", read="DescribeCluster DescribeUpdate", tags="TagResource UntagResource",
    ),
    "eks.NodeGroup": Calls(
        "eks", arn("eks", "nodegroup/shopcat/nodes/1"), "CreateNodegroup", "DeleteNodegroup",
        ordinary="UpdateNodegroupVersion UpdateNodegroupConfig", read="DescribeNodegroup DescribeUpdate",
        tags="TagResource UntagResource",
    ),
    "eks.PodIdentityAssociation": Calls(
        "eks", arn("eks", "podidentityassociation/shopcat/a-1"), "CreatePodIdentityAssociation",
        "DeletePodIdentityAssociation", "UpdatePodIdentityAssociation",
    ),
    "iam.Role": Calls(
        "iam", f"arn:aws:iam::{ACCOUNT}:role/shopcat-release", "CreateRole PassRole", "DeleteRole",
        "UpdateAssumeRolePolicy UpdateRole PutRolePermissionsBoundary DeleteRolePermissionsBoundary",
        tags="TagRole UntagRole",
    ),
    "iam.RolePolicy": Calls(
        "iam", f"arn:aws:iam::{ACCOUNT}:role/shopcat-release", "PutRolePolicy", "DeleteRolePolicy", "PutRolePolicy"
    ),
    "iam.RolePolicyAttachment": Calls(
        "iam", f"arn:aws:iam::{ACCOUNT}:role/node-1234567", "AttachRolePolicy", "DetachRolePolicy"
    ),
    "kms.Key": Calls(
        "kms", arn("kms", "key/1"), "CreateKey", "ScheduleKeyDeletion",
        "PutKeyPolicy EnableKey DisableKey EnableKeyRotation DisableKeyRotation UpdateKeyDescription",
        tags="TagResource UntagResource",
    ),
    "lb.Listener": Calls(
        "elasticloadbalancing", _group("listener/app/shopcat/1/2"), "CreateListener", "DeleteListener",
        "ModifyListenerAttributes AddListenerCertificates RemoveListenerCertificates", release="ModifyListener",
        read="DescribeListeners DescribeTags", tags="AddTags RemoveTags",
    ),
    "lb.ListenerRule": Calls(
        "elasticloadbalancing", _group("listener-rule/app/shopcat/1/2/3"), "CreateRule", "DeleteRule",
        "SetRulePriorities", release="ModifyRule", read="DescribeRules DescribeTags", tags="AddTags RemoveTags",
    ),
    "lb.LoadBalancer": Calls(
        "elasticloadbalancing", _group("loadbalancer/app/shopcat/1"), "CreateLoadBalancer", "DeleteLoadBalancer",
        "SetSecurityGroups SetSubnets SetIpAddressType SetWebAcl ModifyCapacityReservation",
        ordinary="ModifyLoadBalancerAttributes",
        read="DescribeLoadBalancers DescribeLoadBalancerAttributes DescribeCapacityReservation DescribeTags",
        tags="AddTags RemoveTags",
    ),
    "lb.TargetGroup": Calls(
        "elasticloadbalancing", _group("targetgroup/shopcat-blue/1"), "CreateTargetGroup", "DeleteTargetGroup",
        "RegisterTargets DeregisterTargets", ordinary="ModifyTargetGroup ModifyTargetGroupAttributes",
        read="DescribeTargetGroups DescribeTargetGroupAttributes DescribeTags", tags="AddTags RemoveTags",
    ),
    "rds.Instance": Calls(
        "rds", arn("rds", "db:shopcat"), "CreateDBInstance", "DeleteDBInstance",
        "ModifyDBInstance RebootDBInstance DeleteDBInstanceAutomatedBackup RestoreDBInstanceToPointInTime "
        "CreateDBSnapshot DeleteDBSnapshot ModifyDBSnapshotAttribute AddRoleToDBInstance",
        tags="AddTagsToResource RemoveTagsFromResource",
    ),
    "rds.ParameterGroup": Calls(
        "rds", arn("rds", "pg:shopcat-postgres16"), "CreateDBParameterGroup", "DeleteDBParameterGroup",
        "ModifyDBParameterGroup ResetDBParameterGroup",
    ),
    "rds.SubnetGroup": Calls(
        "rds", arn("rds", "subgrp:shopcat"), "CreateDBSubnetGroup", "DeleteDBSubnetGroup", "ModifyDBSubnetGroup"
    ),
    "route53.Record": Calls(
        "route53", "arn:aws:route53:::hostedzone/Z1", "ChangeResourceRecordSets", "ChangeResourceRecordSets",
        "ChangeResourceRecordSets",
    ),
    "secretsmanager.Secret": Calls(
        "secretsmanager", arn("secretsmanager", "secret:shopcat/application-AbCdEf"), "CreateSecret", "DeleteSecret",
        "UpdateSecret PutSecretValue PutResourcePolicy DeleteResourcePolicy RotateSecret GetSecretValue",
        read="DescribeSecret", tags="TagResource UntagResource",
    ),
    "sns.Topic": Calls(
        "sns", arn("sns", "shopcat-alarms"), "CreateTopic", "DeleteTopic", "SetTopicAttributes",
        tags="TagResource UntagResource",
    ),
    "sns.TopicPolicy": Calls("sns", arn("sns", "shopcat-alarms"), "SetTopicAttributes", "", "SetTopicAttributes"),
    "sns.TopicSubscription": Calls("sns", arn("sns", "shopcat-alarms"), "Subscribe", "Unsubscribe"),
    "ssm.Parameter": Calls(
        "ssm", arn("ssm", "parameter/shopcat/contract"), "", "DeleteParameter", release="PutParameter",
        read="GetParameter DescribeParameters ListTagsForResource", tags="AddTagsToResource RemoveTagsFromResource",
    ),
}  # fmt: skip

BOOTSTRAP = {
    "dynamodb:CreateTable",
    "dynamodb:DescribeContinuousBackups",
    "dynamodb:UpdateContinuousBackups",
    "dynamodb:UpdateTable",
    "iam:CreateOpenIDConnectProvider",
    "iam:CreatePolicy",
    "iam:GetOpenIDConnectProvider",
    "iam:GetPolicy",
    "iam:GetPolicyVersion",
    "iam:ListOpenIDConnectProviders",
    "iam:ListPolicyVersions",
    "iam:CreatePolicyVersion",
    "iam:DeletePolicyVersion",
    "kms:CreateAlias",
    "kms:GetKeyPolicy",
    "kms:GetKeyRotationStatus",
    "kms:ListAliases",
    "kms:ListKeys",
    "s3:CreateBucket",
    "s3:GetBucketPolicy",
    "s3:PutBucketPolicy",
}
"""Calls of `make bootstrap`."""
READS = {
    "acm:DescribeCertificate",
    "cloudwatch:GetDashboard",
    "dynamodb:DescribeContinuousBackups",
    "ec2:DescribeAddresses",
    "ec2:DescribeAvailabilityZones",
    "ec2:DescribeInstanceTypeOfferings",
    "ec2:DescribeInternetGateways",
    "ec2:DescribeLaunchTemplates",
    "ec2:DescribeNatGateways",
    "ec2:DescribeRouteTables",
    "ec2:DescribeSecurityGroupRules",
    "ec2:DescribeSecurityGroups",
    "ec2:DescribeVpcEndpoints",
    "ec2:DescribeVpcs",
    "ecr:GetLifecyclePolicy",
    "eks:ListClusters",
    "eks:DescribeAccessEntry",
    "eks:DescribePodIdentityAssociation",
    "eks:ListAccessEntries",
    "eks:ListAssociatedAccessPolicies",
    "eks:ListPodIdentityAssociations",
    "elasticloadbalancing:DescribeListenerCertificates",
    "iam:GetRole",
    "iam:GetRolePolicy",
    "iam:ListAttachedRolePolicies",
    "iam:ListRolePolicies",
    "kms:DescribeKey",
    "kms:ListResourceTags",
    "logs:DescribeLogGroups",
    "logs:DescribeMetricFilters",
    "rds:DescribeDBParameterGroups",
    "rds:DescribeDBSubnetGroups",
    "route53:GetHostedZone",
    "route53:ListResourceRecordSets",
    "secretsmanager:GetRandomPassword",
    "sns:GetSubscriptionAttributes",
    "sns:GetTopicAttributes",
}
"""Calls that notice an obstacle to an update, read a new resource, or wait until a resource is gone."""
OTHERS = {"elasticloadbalancing:RegisterTargets", "iam:ListRoles", "route53:CreateHostedZone", "sts:AssumeRole"}
"""Calls of the twin, whose load balancer controller, whose person and whose tests have its own credentials."""


def actions(each: Calls, *parts: str) -> set[str]:
    """IAM actions of some parts of a type's calls, by the parts' names."""
    return {f"{each.service}:{action}" for part in parts for action in getattr(each, part).split()}


def administrators() -> set[str]:
    """Actions that an administrator's runs need and no release may call."""
    found = {action for each in CALLS.values() for action in actions(each, "create", "update", "delete", "tags")}
    return found | BOOTSTRAP | READS | OTHERS
