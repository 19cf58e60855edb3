"""The shape of the admission rules; what they decide is asked of a real API server in tests/engine/test_isolation.py."""

import re

import pytest

from infra import admission, fence, rbac
from infra.admission import Facts

FACTS = Facts(
    account="123456789012",
    region="eu-central-1",
    load_balancer_cidrs=["10.64.0.0/19"],
    secrets_role="arn:aws:iam::123456789012:role/shopcat-preview-secrets",
    tools={"shopcat": ["r/curl@sha256:aa"], "shopcat-database": ["r/psql@sha256:bb"]},
    repository="1.dkr.ecr.example.com/shopcat",
)
POLICIES = {one.name: one for one in admission.policies(FACTS)}


def test_every_policy_denies_and_fails_closed() -> None:
    for one in POLICIES.values():
        assert one.spec()["failurePolicy"] == "Fail"
        assert one.binding()["validationActions"] == ["Deny"]
        assert one.spec()["validations"]


def test_a_missing_fence_denies() -> None:
    beside = {name: one.binding()["paramRef"] for name, one in POLICIES.items() if one.beside}
    assert beside == {
        "shopcat-preview-behind-network-policy": {"name": "default-deny", "parameterNotFoundAction": "Deny"},
        "shopcat-preview-within-quota": {"name": "preview", "parameterNotFoundAction": "Deny"},
    }


def test_names_are_known_before_the_repository_is() -> None:
    unknown = Facts(**{**FACTS.__dict__, "repository": ""})
    assert [one.name for one in admission.policies(unknown)] == list(POLICIES)


def test_the_numbers_are_those_that_previews_declare() -> None:
    (expression, _) = POLICIES["shopcat-preview-quota"].validations[0]
    for name, value in fence.quota().items():
        assert f'quantity(dyn(object.spec).hard["{name}"]).compareTo(quantity("{value}"))' in expression


def test_literals_are_of_one_type() -> None:
    assert admission.literal({"a": 1, "b": {}}) == '{"a": dyn(1), "b": dyn({})}'
    assert admission.literal(["x", {"y": "z"}]) == '[dyn("x"), dyn({"y": dyn("z")})]'


def test_the_repositorys_dots_are_dots() -> None:
    (expression, _) = POLICIES["shopcat-images"].validations[0]
    assert "^1[.]dkr[.]ecr[.]example[.]com/shopcat@sha256:" in expression
    (expression, _) = POLICIES["shopcat-database-images"].validations[0]
    assert "dkr" not in expression


@pytest.mark.parametrize("name", ["pr-1", "pr-123", "pr-999999999"])
def test_previews_namespaces(name: str) -> None:
    assert re.search(fence.NAMESPACE, name)


@pytest.mark.parametrize("name", ["pr-0", "pr-01", "pr-", "xpr-1", "pr-1x", "prod", "shopcat"])
def test_other_namespaces(name: str) -> None:
    assert not re.search(fence.NAMESPACE, name)


def test_nobody_reads_secrets_or_gets_into_pods() -> None:
    for rules in (rbac.opener(), rbac.remover(), rbac.inside()):
        for rule in rules:
            assert not {"secrets", "serviceaccounts", "*"} & set(rule["resources"])
            assert not [one for one in rule["resources"] if "/" in one]
            assert "*" not in (*rule["verbs"], *rule["apiGroups"])


def test_the_fence_can_not_be_deleted() -> None:
    fenced = {"resourcequotas", "limitranges", "networkpolicies", "rolebindings"}
    deleting = [rule for rule in rbac.inside() if "delete" in rule["verbs"]]
    assert not [rule for rule in deleting if fenced & set(rule["resources"])]


def test_bind_is_for_one_role() -> None:
    (rule,) = [one for one in rbac.opener() if "bind" in one["verbs"]]
    assert rule["resourceNames"] == [fence.ROLE]


def test_each_release_that_may_come_back_keeps_its_smoke_test() -> None:
    from tests.unit.releases import record

    old = record("v1.0.0")
    assert admission.smoke_images("new@sha256:1", [old]) == sorted({"new@sha256:1", old.template.smoke_image})
