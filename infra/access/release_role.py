"""Rights of the release role in AWS: a release, and on request ordinary updates of the platform; nothing else.

* **A release**: push an image, write state and ledger, read both load balancers, set the weights of production's rule, make the
  password of a colour, and publish the contract for previews.
* **Ordinary updates**, with `shopcat:github.updatesPlatform: true`: what changes in place when a person or Renovate moves a
  number in Pulumi.prod.yaml: versions of the cluster, its nodes and add-ons, drain times, health checks.
* **Everything else needs an administrator's own** `pulumi up -s prod`: who may do what (IAM, access entries, pod identities,
  policies of repositories, secrets and keys), what holds data (the database, whatever is deleted, how long anything is kept),
  network, DNS and certificates. So does `pulumi refresh`, which reads all of it. An update that needs one of these fails with
  AWS's own sentence, which names the call; the live release isn't touched, since the platform comes before it.

The database is among them because one call, ModifyDBInstance, sets the engine's version, the master password and the days
that backups are kept, and IAM can't tell these apart.

No action is a pattern. "*" stands only where AWS knows no resource for the action
(docs.aws.amazon.com/service-authorization/latest/reference; tests/unit/test_iam_lint.py compares).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from infra.access.iam_policies import allow, document, push_statements, state_statements
from infra.names import (
    APPLICATION,
    APPLICATION_SECRET,
    CLUSTER_INFO_PARAMETER,
    COLOURS,
    LOAD_BALANCER,
    PRODUCTION_STACK,
    login_secret,
    workload_name,
)

if TYPE_CHECKING:
    from infra.access.iam_policies import AwsScope, Statement

PROJECT_TAG = "shopcat:project"
"""Carried by all that production makes (infra/foundation/providers.py), with the value `shopcat`."""

_LEDGER = ["ConditionCheckItem", "DescribeTable", "GetItem", "PutItem", "Scan", "UpdateItem"]
_BALANCING_READS = [
    "DescribeListeners",
    "DescribeLoadBalancers",
    "DescribeRules",
    "DescribeTags",
    "DescribeTargetGroupAttributes",
    "DescribeTargetGroups",
    "DescribeTargetHealth",
]


def release_statements(scope: AwsScope) -> list[Statement]:
    """Allow what `pulumi up -s prod` calls to release, to take back or to go on with a release."""
    production = f"app/{LOAD_BALANCER}"
    return [
        *push_statements(scope, scope.repository),
        *state_statements(scope, PRODUCTION_STACK, ""),
        allow([f"dynamodb:{action}" for action in _LEDGER], scope.arn("dynamodb", f"table/{scope.ledger_table}")),
        allow(["eks:DescribeCluster"], scope.arn("eks", f"cluster/{scope.cluster}")),
        # Its current version, which a new release pins; never its value.
        allow(["secretsmanager:DescribeSecret"], scope.arn("secretsmanager", f"secret:{APPLICATION_SECRET}-??????")),
        # A new password of the colour that a release goes into; none is ever read back.
        allow(
            ["secretsmanager:DescribeSecret", "secretsmanager:PutSecretValue"],
            [scope.arn("secretsmanager", f"secret:{login_secret(colour)}-??????") for colour in COLOURS],
        ),
        # How many previews fit beside a release, which the release's own size decides.
        allow(
            ["ssm:GetParameter", "ssm:ListTagsForResource", "ssm:PutParameter"],
            scope.arn("ssm", f"parameter{CLUSTER_INFO_PARAMETER}"),
        ),
        allow(["ssm:DescribeParameters"], "*"),  # the provider finds a parameter's description by listing
        allow([f"elasticloadbalancing:{action}" for action in _BALANCING_READS], "*"),
        allow(
            ["elasticloadbalancing:ModifyRule"],
            scope.arn("elasticloadbalancing", f"listener-rule/{production}/*/*/*"),
        ),
        # Where a person has made a listener forward by default, its weights move with the rule's
        # (infra/release/listener_weights.py).
        allow(["elasticloadbalancing:ModifyListener"], scope.arn("elasticloadbalancing", f"listener/{production}/*/*")),
        allow(["cloudwatch:GetMetricData"], "*"),
        # Of a cluster that is there already: where its load balancers are (infra/foundation/existing_network.py).
        allow(["ec2:DescribeSubnets"], "*"),
        allow(["route53:ListHostedZones"], "*"),  # the zone is found by its name
        # Whether the database is as the settings describe it (infra/foundation/existing_database.py).
        allow(["rds:DescribeDBInstances"], scope.arn("rds", "db:*")),
    ]


def update_statements(scope: AwsScope) -> list[Statement]:
    """Allow what ordinary updates of the platform call besides."""
    cluster, nodes, addons = (
        scope.arn("eks", f"{kind}/{scope.cluster}{rest}")
        for kind, rest in (("cluster", ""), ("nodegroup", "/*/*"), ("addon", "/*/*"))
    )
    balancers = [scope.arn("elasticloadbalancing", f"loadbalancer/app/{name}/*") for name in both_balancers()]
    groups = [scope.arn("elasticloadbalancing", f"targetgroup/{workload_name(colour)}/*") for colour in COLOURS]
    template = scope.arn("ec2", "launch-template/*")
    launched = [scope.arn("ec2", f"{kind}/*") for kind in ("instance", "network-interface", "volume")]
    launched += [scope.arn("ec2", f"{kind}/*") for kind in ("security-group", "subnet")]
    launched.append(f"arn:aws:ec2:{scope.region}::image/*")
    ours = {"StringEquals": {f"aws:ResourceTag/{PROJECT_TAG}": APPLICATION}}
    return [
        allow(
            ["elasticloadbalancing:ModifyTargetGroup", "elasticloadbalancing:ModifyTargetGroupAttributes"],
            groups,
            **ours,
        ),
        allow(["elasticloadbalancing:ModifyLoadBalancerAttributes"], balancers, **ours),
        # What the provider reads after such a change.
        allow(
            [
                "elasticloadbalancing:DescribeCapacityReservation",
                "elasticloadbalancing:DescribeLoadBalancerAttributes",
            ],
            "*",
        ),
        # What EKS finds wrong with the cluster for another version is asked first (infra/foundation/upgrade.py).
        allow(["eks:ListInsights"], cluster),
        allow(["eks:UpdateClusterVersion"], cluster, **ours),
        allow(["eks:UpdateNodegroupConfig", "eks:UpdateNodegroupVersion"], nodes, **ours),
        allow(["eks:UpdateAddon"], addons, **ours),
        allow(["eks:DescribeUpdate"], [cluster, nodes, addons]),
        allow(["eks:DescribeNodegroup"], nodes),
        allow(["eks:DescribeAddon"], addons),
        # EKS asks whether whoever updates nodes may launch them from their template ("You are not authorized to launch
        # instances with this launch template"); no role is passed, since the template names none.
        allow(["ec2:RunInstances"], template, **ours),
        allow(["ec2:RunInstances"], launched, ArnLike={"ec2:LaunchTemplate": template}),
        allow(["ec2:CreateTags"], scope.arn("ec2", "instance/*"), StringEquals={"ec2:CreateAction": "RunInstances"}),
    ]


def both_balancers() -> tuple[str, str]:
    """Return the names of production's load balancer and the previews'."""
    return LOAD_BALANCER, f"{LOAD_BALANCER}-preview"


def release_policy(scope: AwsScope, *, updates_platform: bool) -> str:
    """Return the release role's policy."""
    return document([*release_statements(scope), *(update_statements(scope) if updates_platform else [])])
