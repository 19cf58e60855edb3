"""Who may take each role, and what a pull request's session may touch."""

import json
from typing import Any

import pytest

from infra.access import iam_policies
from infra.access.iam_policies import ISSUER, AwsScope
from infra.names import CLEANUP_ROLE, PREVIEW_ROLE, PREVIEW_SECRETS_ROLE, RELEASE_ROLE
from tests import iam
from tests.iam import Decision, Request, decide

ACCOUNT, REGION, ROLE_ID = "123456789012", "eu-central-1", "AROAPREVIEW"
PLACE = AwsScope(ACCOUNT, REGION, "shopcat", "shopcat-releases")
PROVIDER = f"arn:aws:iam::{ACCOUNT}:oidc-provider/{ISSUER}"
LISTENER = PLACE.arn("elasticloadbalancing", "listener/app/shopcat-preview/1/2")
TRUST = iam_policies.trust(ACCOUNT, "octo/shop", "production")
OURS = "repo:octo@1/shop@2"


def takes(role: str, session: str = "run", **claims: str) -> bool:
    """Return true if a token with these claims gets the role under this session name."""
    context = {"repository": "octo/shop", "aud": "sts.amazonaws.com", **claims}
    request = Request(
        "sts:AssumeRoleWithWebIdentity",
        context={**{f"{ISSUER}:{key}": value for key, value in context.items()}, "sts:RoleSessionName": session},
        principal=PROVIDER,
    )
    return decide([json.loads(TRUST[role])], request).allowed


PULL = {"sub": f"{OURS}:pull_request", "ref": "refs/pull/123/merge"}
DEPLOY = {"sub": f"{OURS}:environment:production", "environment": "production", "ref": "refs/heads/main"}
MERGED = {"sub": f"{OURS}:pull_request", "ref": "refs/heads/main"}
SCHEDULE = {"sub": f"{OURS}:ref:refs/heads/main", "ref": "refs/heads/main"}


@pytest.mark.parametrize("prefix", ["repo:octo/shop", OURS])
def test_subjects_count_with_and_without_numbers(prefix: str) -> None:
    assert takes(PREVIEW_ROLE, "123", **{**PULL, "sub": f"{prefix}:pull_request"})


def test_a_session_is_named_by_its_own_pull_request() -> None:
    assert takes(PREVIEW_ROLE, "123", **PULL)
    for name in ("77", "1234", "12", "prod", "123*"):
        assert not takes(PREVIEW_ROLE, name, **PULL), name


def test_a_pull_request_gets_no_other_role() -> None:
    assert not takes(RELEASE_ROLE, "123", **PULL)
    assert not takes(CLEANUP_ROLE, "123", **PULL)


def test_a_release_needs_branch_and_environment() -> None:
    assert takes(RELEASE_ROLE, **DEPLOY)
    assert not takes(RELEASE_ROLE, **{**DEPLOY, "ref": "refs/heads/feature"})
    assert not takes(RELEASE_ROLE, **SCHEDULE)
    assert not takes(RELEASE_ROLE, **{**DEPLOY, "environment": "staging", "sub": f"{OURS}:environment:staging"})


def test_the_clean_up_runs_from_the_main_branch() -> None:
    assert takes(CLEANUP_ROLE, **SCHEDULE)
    assert takes(CLEANUP_ROLE, **MERGED)
    assert not takes(CLEANUP_ROLE, **{**SCHEDULE, "ref": "refs/heads/x", "sub": f"{OURS}:ref:refs/heads/x"})


@pytest.mark.parametrize("role", [RELEASE_ROLE, PREVIEW_ROLE, CLEANUP_ROLE])
def test_other_repositories_get_nothing(role: str) -> None:
    for claims in (PULL, DEPLOY, MERGED, SCHEDULE):
        assert not takes(role, "123", **{**claims, "repository": "octo/shop-evil"})
        assert not takes(role, "123", **{**claims, "aud": "other"})


def session(number: int) -> dict[str, str]:
    return {"aws:userid": f"{ROLE_ID}:{number}"}


def asks(action: str, resource: str, number: int = 123, **context: Any) -> Decision:
    policy = json.loads(iam_policies.preview_policy(PLACE, LISTENER, ROLE_ID))
    return decide([policy], Request(action, resource, {**session(number), **context}))


def tagged(number: int) -> dict[str, Any]:
    return {"aws:ResourceTag/shopcat:owner": f"{ROLE_ID}:{number}"}


def tagging(number: int) -> dict[str, Any]:
    """Tags of a new thing, as infra/previews/preview.py gives them to all that it makes."""
    return {
        "aws:RequestTag/shopcat:owner": f"{ROLE_ID}:{number}",
        "aws:RequestTag/shopcat-pull-request": str(number),
    }


SECRET = PLACE.arn("secretsmanager", "secret:shopcat-preview/pr-123/database-AbCdEf")
GROUP = PLACE.arn("elasticloadbalancing", "targetgroup/shopcat-pr-123/50dc6c495c0c9188")


def test_what_a_pull_request_made_is_its_own() -> None:
    assert asks("secretsmanager:CreateSecret", SECRET, **tagging(123)).allowed
    assert asks("secretsmanager:GetSecretValue", SECRET, **tagged(123)).allowed
    assert not asks("secretsmanager:GetSecretValue", SECRET, 77, **tagged(123)).allowed
    assert not asks("secretsmanager:GetSecretValue", SECRET).allowed
    assert asks("elasticloadbalancing:DeleteTargetGroup", GROUP, **tagged(123)).allowed
    assert not asks("elasticloadbalancing:DeleteTargetGroup", GROUP, 77, **tagged(123)).allowed


POLICIES: dict[str, dict[str, Any]] = {
    PREVIEW_ROLE: json.loads(iam_policies.preview_policy(PLACE, LISTENER, ROLE_ID)),
    CLEANUP_ROLE: json.loads(iam_policies.cleanup_policy(PLACE, ROLE_ID, is_monitored=True)),
    PREVIEW_SECRETS_ROLE: json.loads(iam_policies.secrets_policy(PLACE)),
}
ASKED_OF_WHAT_IS_GONE = ("Delete", "Describe", "Get", "List", "Modify")
"""First words of what a provider asks of an object before it knows that it is gone."""
VALUES = {f"secretsmanager:{action}" for action in ("GetSecretValue", "PutSecretValue", "UpdateSecret")}
"""A secret's value is nobody's without the owner's tag."""
OBJECTS = {
    "secret": (SECRET, PLACE.arn("secretsmanager", "secret:shopcat/application-AbCdEf")),
    "targetgroup": (GROUP, PLACE.arn("elasticloadbalancing", "targetgroup/shopcat-blue/50dc6c495c0c9188")),
    "listener-rule": (
        PLACE.arn("elasticloadbalancing", "listener-rule/app/shopcat-preview/1/2/3"),
        PLACE.arn("elasticloadbalancing", "listener-rule/app/shopcat/1/2/3"),
    ),
}
"""By type in ARNs: a preview's object, and production's."""


def conditioned_on_tags() -> list[tuple[str, str, str]]:
    """Role, action and type of object of every statement in which a tag of the object decides."""
    return [
        (role, action, resource.split(":")[5].split("/")[0])
        for role, policy in POLICIES.items()
        for statement in policy["Statement"]
        if any(key.startswith("aws:ResourceTag/") for keys in statement.get("Condition", {}).values() for key in keys)
        for action in iam.as_list(statement["Action"])
        if action.partition(":")[2].startswith(ASKED_OF_WHAT_IS_GONE) or action in VALUES
        for resource in iam.as_list(statement["Resource"])
    ]


@pytest.mark.parametrize(("role", "action", "kind"), conditioned_on_tags())
def test_what_is_gone_is_answered_by_its_service_and_what_is_anothers_is_denied(
    role: str, action: str, kind: str
) -> None:
    mine, productions = OBJECTS[kind]

    def may(resource: str, **context: Any) -> bool:
        return decide([POLICIES[role]], Request(action, resource, {**session(123), **context})).allowed

    assert may(mine) is (action not in VALUES)  # it is gone, so it has no tag
    assert may(mine, **tagged(123))
    assert may(mine, **tagged(77)) is (role == CLEANUP_ROLE)
    assert not may(mine, **{"aws:ResourceTag/shopcat:owner": "AROAOTHER:123"})
    for tags in ({}, tagged(123)):
        assert not may(productions, **tags), "production's objects are told by their names, gone or not"


def test_every_question_of_a_cut_off_close_is_among_them() -> None:
    asked = {"elasticloadbalancing:DeleteRule", "elasticloadbalancing:DeleteTargetGroup", "secretsmanager:DeleteSecret"}
    of_provider = {"secretsmanager:DescribeSecret", "secretsmanager:GetResourcePolicy"}
    found = {
        role: {action for one, action, _ in conditioned_on_tags() if one == role}
        for role in (PREVIEW_ROLE, CLEANUP_ROLE)
    }
    assert asked | of_provider <= found[PREVIEW_ROLE]
    assert asked == found[CLEANUP_ROLE]


@pytest.mark.parametrize("operator", ["StringEquals", "StringLike", "Bool", "ArnLike", "ForAnyValue:StringLike"])
def test_if_exists_matches_a_key_that_is_missing_and_compares_one_that_is_there(operator: str) -> None:
    def matches(name: str, **context: str) -> bool:
        statement = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*", "Condition": {name: {"k": "true"}}}
        return decide([{"Statement": [statement]}], Request("s3:GetObject", context=context)).allowed

    assert not matches(operator)
    assert matches(f"{operator}IfExists")
    for name in (operator, f"{operator}IfExists"):
        assert matches(name, k="true")
        assert matches(name, K="true")  # keys have no case
        assert not matches(name, k="false")


@pytest.mark.parametrize("operator", ["NullIfExists", "StringNotLikeIfExists", "ForAllValues:StringLike", "DateLess"])
def test_operators_that_are_not_evaluated_are_refused_by_name(operator: str) -> None:
    statement = {"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": {operator: {"k": "true"}}}
    with pytest.raises(NotImplementedError, match=operator):
        decide([{"Statement": [statement]}], Request("s3:GetObject"))


def test_tags_make_nothing_of_others_ones_own() -> None:
    assert asks("secretsmanager:TagResource", SECRET, **tagging(123)).allowed  # while it is made it has none
    assert not asks("secretsmanager:TagResource", SECRET, 77, **tagging(77), **tagged(123)).allowed
    assert not asks("secretsmanager:CreateSecret", SECRET, **tagging(77)).allowed
    production = PLACE.arn("elasticloadbalancing", "targetgroup/shopcat-blue/50dc6c495c0c9188")
    assert not asks("elasticloadbalancing:AddTags", production, **tagging(123)).allowed
    assert not asks("secretsmanager:UntagResource", SECRET, **tagged(123)).allowed


def test_state_is_in_a_folder_of_ones_own() -> None:
    bucket = f"arn:aws:s3:::shopcat-state-previews-{ACCOUNT}-{REGION}"
    assert asks("s3:PutObject", f"{bucket}/{ROLE_ID}:123/.pulumi/stacks/shopcat/pr-123.json").allowed
    assert not asks("s3:GetObject", f"{bucket}/{ROLE_ID}:77/.pulumi/stacks/shopcat/pr-77.json").allowed
    assert not asks("s3:GetObject", f"{bucket}/{ROLE_ID}:1234/x").allowed
    assert asks("s3:ListBucket", bucket, **{"s3:prefix": f"{ROLE_ID}:123/.pulumi/"}).allowed
    assert not asks("s3:ListBucket", bucket, **{"s3:prefix": ""}).allowed


def test_the_clean_up_removes_every_preview_and_reads_neither_secret_nor_state() -> None:
    policy = json.loads(iam_policies.cleanup_policy(PLACE, ROLE_ID, is_monitored=True))

    def may(action: str, resource: str, **context: Any) -> bool:
        return decide([policy], Request(action, resource, context)).allowed

    assert may("secretsmanager:DeleteSecret", SECRET, **tagged(77))
    assert not may("secretsmanager:GetSecretValue", SECRET, **tagged(77))
    assert not may("elasticloadbalancing:CreateRule", LISTENER)
    assert may("ecr:BatchDeleteImage", PLACE.arn("ecr", "repository/shopcat-preview"))
    assert not may("ecr:BatchDeleteImage", PLACE.arn("ecr", "repository/shopcat"))
    assert not asks("ecr:BatchDeleteImage", PLACE.arn("ecr", "repository/shopcat-preview")).allowed
    bucket = f"arn:aws:s3:::shopcat-state-previews-{ACCOUNT}-{REGION}"
    state = f"{bucket}/{ROLE_ID}:77/.pulumi/stacks/shopcat/pr-77.json"
    assert may("s3:DeleteObject", state)
    for action in ("s3:GetObject", "s3:PutObject", "s3:GetObjectVersion", "s3:DeleteObjectVersion"):
        assert not may(action, state), action
    assert not may("s3:DeleteObject", f"{bucket}/{PREVIEW_ROLE}/x")
    assert not may(
        "kms:Decrypt", PLACE.arn("kms", "key/1"), **{"kms:ResourceAliases": ["alias/shopcat-state-previews"]}
    )
    assert may("s3:ListBucket", bucket, **{"s3:prefix": f"{ROLE_ID}:"})


def makes(number: int, named: int, **tags: str) -> list[bool]:
    """Return if one pull request's session may make a secret and a target group that another's number names."""
    asked = [
        (
            "secretsmanager:CreateSecret",
            PLACE.arn("secretsmanager", f"secret:shopcat-preview/pr-{named}/database-AbCdEf"),
        ),
        (
            "elasticloadbalancing:CreateTargetGroup",
            PLACE.arn("elasticloadbalancing", f"targetgroup/shopcat-pr-{named}/1"),
        ),
    ]
    return [asks(action, resource, number, **tags).allowed for action, resource in asked]


@pytest.mark.parametrize(
    ("number", "named", "tags"),
    [
        (123, 77, tagging(123)),
        (123, 77, tagging(77)),
        (123, 77, {**tagging(123), "aws:RequestTag/shopcat-pull-request": "77"}),
        (123, 77, {"aws:RequestTag/shopcat:owner": f"{ROLE_ID}:123"}),
        (123, 1234, tagging(123)),
        (123, 12, tagging(123)),
        (123, 123, {"aws:RequestTag/shopcat:owner": f"{ROLE_ID}:123"}),
        (123, 123, {**tagging(123), "aws:RequestTag/shopcat-pull-request": "12*"}),
        (123, 123, {**tagging(123), "aws:RequestTag/shopcat-pull-request": "*"}),
        (123, 77, {**tagging(123), "aws:RequestTag/shopcat-pull-request": "*"}),
        (123, 123, {}),
    ],
)
def test_a_pull_request_takes_no_name_of_another_s(number: int, named: int, tags: dict[str, str]) -> None:
    assert makes(number, named, **tags) == [False, False]


@pytest.mark.parametrize("number", [10, 77, 123, 123456789])
def test_a_pull_request_takes_the_names_of_its_own_number(number: int) -> None:
    assert makes(number, number, **tagging(number)) == [True, True]


def test_policies_fit_what_aws_takes() -> None:
    assert (
        len(iam_policies.preview_policy(PLACE, LISTENER, ROLE_ID)) < 10_240
    )  # inline policies of a role, docs: IAM quotas
    for text in TRUST.values():
        assert len(text) < 2_048
