"""Roles for GitHub's workflows, by OIDC: no long-lived key anywhere.

* `release`: jobs of the protected environment alone may take it; pushes to `shopcat`.
* `preview`: pull-request jobs may take it; pushes to `shopcat-preview`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pulumi
import pulumi_aws as aws

if TYPE_CHECKING:
    from infra.registry import Registry
    from infra.settings import Github

ISSUER = "token.actions.githubusercontent.com"
AUDIENCE = "sts.amazonaws.com"
_PUSH = (
    "ecr:BatchCheckLayerAvailability",
    "ecr:BatchGetImage",
    "ecr:CompleteLayerUpload",
    "ecr:DescribeImages",
    "ecr:GetDownloadUrlForLayer",
    "ecr:InitiateLayerUpload",
    "ecr:PutImage",
    "ecr:UploadLayerPart",
)


def trust(account: str, subject: str) -> str:
    """Only tokens of GitHub for exactly this subject (owner, repository and event or environment)."""
    statement = {
        "Effect": "Allow",
        "Principal": {"Federated": f"arn:aws:iam::{account}:oidc-provider/{ISSUER}"},
        "Action": "sts:AssumeRoleWithWebIdentity",
        "Condition": {"StringEquals": {f"{ISSUER}:aud": AUDIENCE, f"{ISSUER}:sub": subject}},
    }
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def push_policy(repository_arn: str) -> str:
    """Push to one repository; the log-in token can't be narrowed to one."""
    statements: list[dict[str, Any]] = [
        {"Effect": "Allow", "Action": ["ecr:GetAuthorizationToken"], "Resource": "*"},
        {"Effect": "Allow", "Action": list(_PUSH), "Resource": repository_arn},
    ]
    return json.dumps({"Version": "2012-10-17", "Statement": statements})


class Identity(pulumi.ComponentResource):
    """The two roles; none if no repository is set."""

    def __init__(
        self, name: str, settings: Github, *, account: str, registry: Registry, opts: pulumi.ResourceOptions
    ) -> None:
        super().__init__("shopcat:identity:Identity", name, None, opts)
        self.roles: dict[str, pulumi.Output[str]] = {}
        if settings.repository:
            prefix = f"repo:{settings.repository}"
            subjects = {"release": f"{prefix}:environment:{settings.environment}", "preview": f"{prefix}:pull_request"}
            repositories = {"release": registry.release, "preview": registry.preview}
            for role, subject in subjects.items():
                made = aws.iam.Role(
                    role,
                    name=f"shopcat-{role}",
                    assume_role_policy=trust(account, subject),
                    opts=pulumi.ResourceOptions(parent=self),
                )
                aws.iam.RolePolicy(
                    f"{role}-push",
                    role=made.name,
                    policy=repositories[role].arn.apply(push_policy),
                    opts=pulumi.ResourceOptions(parent=self),
                )
                self.roles[role] = made.arn
        self.register_outputs({})
