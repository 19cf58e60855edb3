"""The add-ons' rights in AWS, as policy documents: the calls that they really make, and no other.

Measured with the real controller (chart 3.5.0) and the real operator (0.20.4) over half an hour of releases, previews and a
drained node. What upstream's own policies hold beyond these serves what is not used here:

* Controller: load balancers, listeners and rules are this program's own, so nothing is made, changed or described of them. It
  writes security-group rules only for bindings with `spec.networking`, and no binding here has it; subnets, instances and
  network interfaces are looked up for Ingresses and for targets of type instance.
* Operator: it reads values by name. Describing, listing and finding are for `dataFrom.find`, for metadata and for pushing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from infra.access.iam_policies import allow, document
from infra.names import APPLICATION, POD_LOGS_GROUP, PREVIEW_SECRETS_ROLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from infra.access.iam_policies import AwsScope


def controller_policy(scope: AwsScope) -> str:
    """Allow targets in and out of this shop's and its previews' target groups, and the reads that the controller starts with."""
    reads = [
        "ec2:DescribeSecurityGroups",  # asked once by each leader
        "ec2:DescribeVpcs",  # the VPC's networks, to tell targets inside from those outside
        "elasticloadbalancing:DescribeTargetGroups",
        "elasticloadbalancing:DescribeTargetHealth",
    ]
    targets = ["elasticloadbalancing:DeregisterTargets", "elasticloadbalancing:RegisterTargets"]
    groups = scope.arn("elasticloadbalancing", f"targetgroup/{APPLICATION}-*/*")
    return document([allow(reads, "*"), allow(targets, groups)])


def operator_policy(scope: AwsScope) -> str:
    """Allow taking the role that reads previews' secrets, in a session for one namespace; its own role reads none of them."""
    return document([allow(["sts:AssumeRole", "sts:TagSession"], scope.role(PREVIEW_SECRETS_ROLE))])


def operator_reads(secret_arns: Sequence[str]) -> str:
    """Allow reading production's secrets, each by its ARN."""
    return document([allow(["secretsmanager:GetSecretValue"], list(secret_arns))])


def log_shipper_policy(scope: AwsScope) -> str:
    """Allow writing production's logs, into the one group that is theirs (docs.fluentbit.io/manual, outputs/cloudwatch)."""
    streams = scope.arn("logs", f"log-group:{POD_LOGS_GROUP}:log-stream:*")
    group = scope.arn("logs", f"log-group:{POD_LOGS_GROUP}:*")
    return document([allow(["logs:CreateLogStream"], group), allow(["logs:PutLogEvents"], streams)])
