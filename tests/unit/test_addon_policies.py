"""Rights of the add-ons in AWS and inside the cluster: the calls that they are known to make, and nothing else."""

import json
from typing import Any

import pytest

from infra import settings
from infra.access import addon_policies
from infra.access.iam_policies import AwsScope
from infra.foundation import addon_isolation, addons
from infra.foundation.addon_isolation import CONTROLLER, CONTROLLER_NAMESPACE, OPERATOR
from infra.names import PREVIEW_SECRETS_ROLE
from tests.iam import Request, decide
from tests.unit.test_settings import committed

PLACE = AwsScope("123456789012", "eu-central-1", "shopcat", "shopcat-releases")
CONTROLLERS = [json.loads(addon_policies.controller_policy(PLACE))]
APPLICATION = PLACE.arn("secretsmanager", "secret:shopcat/application-AbCdEf")
MASTER = PLACE.arn("secretsmanager", "secret:rds!db-0123-AbCdEf")
OPERATORS = [
    json.loads(addon_policies.operator_policy(PLACE)),
    json.loads(addon_policies.operator_reads([APPLICATION, MASTER])),
]


def balancing(rest: str) -> str:
    return PLACE.arn("elasticloadbalancing", rest)


@pytest.mark.parametrize(
    ("action", "resource", "allowed"),
    [
        # Measured: half an hour of releases, previews and a drained node.
        ("elasticloadbalancing:DescribeTargetGroups", "*", True),
        ("elasticloadbalancing:DescribeTargetHealth", "*", True),
        ("ec2:DescribeVpcs", "*", True),
        ("ec2:DescribeSecurityGroups", "*", True),
        ("elasticloadbalancing:RegisterTargets", balancing("targetgroup/shopcat-blue/1"), True),
        ("elasticloadbalancing:DeregisterTargets", balancing("targetgroup/shopcat-pr-123/1"), True),
        ("elasticloadbalancing:RegisterTargets", balancing("targetgroup/billing/1"), False),
        ("elasticloadbalancing:RegisterTargets", balancing("targetgroup/shopcart/1"), False),
        ("elasticloadbalancing:ModifyTargetGroup", balancing("targetgroup/shopcat-blue/1"), False),
        ("elasticloadbalancing:ModifyRule", balancing("listener-rule/app/shopcat/1/2/3"), False),
        ("elasticloadbalancing:DescribeRules", "*", False),
        ("ec2:AuthorizeSecurityGroupIngress", PLACE.arn("ec2", "security-group/sg-database"), False),
        ("ec2:RevokeSecurityGroupIngress", PLACE.arn("ec2", "security-group/sg-database"), False),
        ("ec2:DescribeInstances", "*", False),
    ],
)
def test_the_controller(action: str, resource: str, *, allowed: bool) -> None:
    ours = {"aws:ResourceTag/shopcat:project": "shopcat"}
    assert decide(CONTROLLERS, Request(action, resource, ours)).allowed is allowed


@pytest.mark.parametrize(
    ("action", "resource", "allowed"),
    [
        ("secretsmanager:GetSecretValue", APPLICATION, True),
        ("secretsmanager:GetSecretValue", MASTER, True),
        ("sts:AssumeRole", PLACE.role(PREVIEW_SECRETS_ROLE), True),
        ("sts:TagSession", PLACE.role(PREVIEW_SECRETS_ROLE), True),
        ("secretsmanager:GetSecretValue", PLACE.arn("secretsmanager", "secret:rds!db-other-AbCdEf"), False),
        ("secretsmanager:GetSecretValue", PLACE.arn("secretsmanager", "secret:shopcat/other-AbCdEf"), False),
        ("secretsmanager:GetSecretValue", PLACE.arn("secretsmanager", "secret:shopcat-preview/pr-1/database"), False),
        ("secretsmanager:GetSecretValue", APPLICATION.replace("eu-central-1", "us-east-1"), False),
        ("secretsmanager:PutSecretValue", APPLICATION, False),
        ("secretsmanager:ListSecrets", "*", False),
        ("sts:AssumeRole", PLACE.role("shopcat-release"), False),
    ],
)
def test_the_operator(action: str, resource: str, *, allowed: bool) -> None:
    assert decide(OPERATORS, Request(action, resource)).allowed is allowed


def verbs(resource: str) -> set[str]:
    return {
        verb for rule in addon_isolation.operator_rules() if resource in rule["resources"] for verb in rule["verbs"]
    }


def test_the_operator_s_role_is_for_what_it_runs() -> None:
    assert {one for rule in addon_isolation.operator_rules() for one in rule["resources"]} == {
        "externalsecrets",
        "externalsecrets/status",
        "secretstores",
        "secretstores/status",
        "secrets",
        "events",
        "generatorstates",
    }
    assert verbs("generatorstates") == {"get", "list", "watch"}
    assert not verbs("externalsecrets") & {"create", "delete", "deletecollection", "*"}


def values() -> dict[str, Any]:
    return addons.external_secrets_values(settings.read_settings(committed()))


def test_unused_controllers_and_the_chart_s_own_roles_are_off() -> None:
    found = values()
    assert found["rbac"] == {"create": False}
    assert {name: found[name] for name in addons.OFF} == dict.fromkeys(addons.OFF, False)
    assert found["webhook"] == found["certController"] == {"create": False}
    assert found["extraArgs"] == {"enable-generator-state": "false"}


DIGEST = f"sha256:{'a' * 64}"


@pytest.mark.parametrize(
    ("reference", "repository", "tag"),
    [
        (f"public.ecr.aws/eks/x:v3.5.0@{DIGEST}", "public.ecr.aws/eks/x", f"v3.5.0@{DIGEST}"),
        (f"127.0.0.1:5000/a/b:v1@{DIGEST}", "127.0.0.1:5000/a/b", f"v1@{DIGEST}"),
        ("oci.external-secrets.io/a/b:v0.20.4", "oci.external-secrets.io/a/b", "v0.20.4"),
    ],
)
def test_a_chart_gets_its_image_by_digest(reference: str, repository: str, tag: str) -> None:
    assert addons.chart_image(reference) == {"repository": repository, "tag": tag}


def test_an_image_without_a_digest_is_named() -> None:
    given = committed()
    images = {**given["images"], "loadBalancerController": "public.ecr.aws/eks/x:v3.5.0"}
    (line,) = [
        one
        for one in addons.unpinned(settings.read_settings({**given, "images": images}))
        if "loadBalancerController" in one
    ]
    assert "imagetools inspect public.ecr.aws/eks/x:v3.5.0" in line
    images["loadBalancerController"] += f"@{DIGEST}"
    found = addons.unpinned(settings.read_settings({**given, "images": images}))
    assert not [one for one in found if "loadBalancerController" in one]


@pytest.mark.parametrize(
    ("server", "endpoint", "ports"),
    [
        ("https://ABC.gr7.eu-central-1.eks.amazonaws.com", None, [443]),
        ("https://10.0.0.1:6443", None, [443, 6443]),
        ("https://api", "http://10.1.2.3:4566", [443, 4566]),
        ("https://api", "http://aws.internal", [80, 443]),
        ("https://api", "https://aws.internal", [443]),
    ],
)
def test_ports_follow_the_addresses(server: str, endpoint: str | None, ports: list[int]) -> None:
    assert addon_isolation.egress_ports(server, endpoint) == ports


def test_add_ons_are_reached_by_the_api_server_alone() -> None:
    found = addon_isolation.addon_network_policies([443])
    assert set(found) == {(OPERATOR, OPERATOR), (CONTROLLER_NAMESPACE, CONTROLLER)}
    operator, controller = found[OPERATOR, OPERATOR], found[CONTROLLER_NAMESPACE, CONTROLLER]
    assert operator["podSelector"] == {}
    assert operator["ingress"] == []
    assert controller["podSelector"] == {"matchLabels": {"app.kubernetes.io/name": CONTROLLER}}
    assert controller["ingress"] == [{"ports": [{"protocol": "TCP", "port": 9443}]}]
    for spec in found.values():
        assert spec["policyTypes"] == ["Ingress", "Egress"]
        assert [one["port"] for rule in spec["egress"] for one in rule["ports"]] == [53, 53, 80, 443]
        assert all("to" in rule for rule in spec["egress"][:2]), "only TLS goes anywhere"
