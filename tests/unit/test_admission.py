"""The shape of the admission rules; what they decide is asked of a real API server in tests/engine/test_isolation.py."""

import json
import re

import pytest

from infra import settings
from infra.foundation import cel
from infra.names import PREVIEW_CLUSTER_ROLE, PREVIEW_NAMESPACE_PATTERN
from infra.previews import admission_policies, admitted_shapes, isolation, rbac
from infra.previews.admission_facts import AdmissionFacts
from infra.previews.image_policies import smoke_images
from infra.program import PREVIEW_SETTINGS
from tests.unit.test_settings import committed

FACTS = AdmissionFacts(
    account="123456789012",
    region="eu-central-1",
    load_balancer_cidrs=["10.64.64.0/19"],
    secrets_role="arn:aws:iam::123456789012:role/shopcat-preview-secrets",
    tools={"shopcat": ["r/curl@sha256:aa"], "shopcat-database": ["r/psql@sha256:bb"]},
    database_image="docker.io/library/postgres:16-alpine@sha256:cc",
    most_grace_seconds=140,
    repository="1.dkr.ecr.example.com/shopcat",
    preview_repository="1.dkr.ecr.example.com/shopcat-preview",
)
POLICIES = {one.name: one for one in admission_policies.admission_policies(FACTS)}


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
    unknown = AdmissionFacts(**{**FACTS.__dict__, "repository": "", "preview_repository": ""})
    assert [one.name for one in admission_policies.admission_policies(unknown)] == list(POLICIES)


def test_the_numbers_are_those_that_previews_declare() -> None:
    (expression, _) = POLICIES["shopcat-preview-quota"].validations[0]
    for name, value in isolation.quota().items():
        assert f'quantity(string(dyn(object.spec).hard["{name}"])).compareTo(quantity("{value}"))' in expression


def test_literals_are_of_one_type() -> None:
    assert cel.literal({"a": 1, "b": {}}) == '{"a": dyn(1), "b": dyn({})}'
    assert cel.literal(["x", {"y": "z"}]) == '[dyn("x"), dyn({"y": dyn("z")})]'


def test_the_repositorys_dots_are_dots() -> None:
    (expression, _) = POLICIES["shopcat-images"].validations[0]
    assert "^1[.]dkr[.]ecr[.]example[.]com/shopcat@sha256:" in expression
    (expression, _) = POLICIES["shopcat-database-images"].validations[0]
    assert "dkr" not in expression


@pytest.mark.parametrize("name", ["pr-1", "pr-123", "pr-999999999"])
def test_previews_namespaces(name: str) -> None:
    assert re.search(PREVIEW_NAMESPACE_PATTERN, name)


@pytest.mark.parametrize("name", ["pr-0", "pr-01", "pr-", "xpr-1", "pr-1x", "prod", "shopcat"])
def test_other_namespaces(name: str) -> None:
    assert not re.search(PREVIEW_NAMESPACE_PATTERN, name)


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
    assert rule["resourceNames"] == [PREVIEW_CLUSTER_ROLE]


def test_each_release_that_may_come_back_keeps_its_smoke_test() -> None:
    from tests.unit.releases import record

    old = record("v1.0.0")
    assert smoke_images("new@sha256:1", [old]) == sorted({"new@sha256:1", old.template.smoke_image})


def test_a_closed_template_reads_back_what_it_leaves_open_and_nothing_else() -> None:
    free = cel.between(0, 1)
    found = cel.cel_rules(
        "object.spec", {"replicas": free, "paused": False, "list": [{"a": free}], "plain": [1]}, "spec"
    )
    root = "optional.of(dyn(object.spec))"
    inside = (
        f'?"replicas": {root}[?"replicas"], "paused": dyn(false), ?"list": {root}[?"list"], ?"plain": {root}[?"plain"]'
    )
    said = "spec: exactly replicas, paused, list, plain, as given"
    assert found[0] == (f"{root} == optional.of(dyn({{{inside}}}))", said)
    assert f'{root}[?"replicas"].hasValue()' in found[1][0]
    assert [said for _, said in found[1:]] == [
        "spec.replicas: 0 to 1",
        "spec.list: exactly 1",
        "spec.list[0]: exactly a, as given",
        "spec.list[0].a: 0 to 1",
        "spec.plain: exactly [1]",
    ]


def test_every_kind_that_the_role_may_make_is_counted_or_has_one_name() -> None:
    """An object of each kind that may be created is bounded: by the quota, and by the one name that admission admits."""
    groups = {f"{resource}.{rule['apiGroups'][0]}".rstrip(".") for rule in rbac.inside() for resource in rule["resources"]
              if "create" in rule["verbs"]}  # fmt: skip
    assert groups - isolation.OBJECT_COUNTS.keys() == {"resourcequotas"}
    (expression, _) = POLICIES["shopcat-preview-quota"].validations[0]
    assert f'object.metadata.name == "{isolation.QUOTA_NAME}"' in expression


IMAGES = {
    "1.dkr.ecr.example.com/shopcat-preview@sha256:" + "a" * 64: True,
    "1.dkr.ecr.example.com/shopcat-preview:x@sha256:" + "a" * 64: False,
    "1.DKR.ecr.example.com/shopcat-preview@sha256:" + "a" * 64: False,
    "1.dkr.ecr.example.com:443/shopcat-preview@sha256:" + "a" * 64: False,
    "1.dkr.ecr.example.com./shopcat-preview@sha256:" + "a" * 64: False,
    "1xdkr.ecr.example.com/shopcat-preview@sha256:" + "a" * 64: False,
    "x/1.dkr.ecr.example.com/shopcat-preview@sha256:" + "a" * 64: False,
    "1.dkr.ecr.example.com/shopcat-preview@sha256:" + "a" * 63: False,
    "1.dkr.ecr.example.com/shopcat-preview@sha256:" + "A" * 64: False,
    "1.dkr.ecr.example.com/shopcat-preview@sha512:" + "a" * 64: False,
    "1.dkr.ecr.example.com/shopcat@sha256:" + "a" * 64: False,
    "1.dkr.ecr.example.com/shopcat-preview/x@sha256:" + "a" * 64: False,
    "1.dkr.ecr.example.com/shopcat-preview": False,
    "": False,
}


@pytest.mark.parametrize(("image", "allowed"), IMAGES.items())
def test_a_previews_image_has_one_spelling(image: str, *, allowed: bool) -> None:
    text = admitted_shapes.application_image(FACTS.preview_repository).holds("it")
    pattern = json.loads(text.removeprefix("it.matches(").removesuffix(")"))
    assert bool(re.search(pattern, image)) is allowed


def test_images_are_looked_for_wherever_one_can_stand() -> None:
    images = POLICIES["shopcat-images"].variables["images"]
    for place in ("containers", "initContainers", "ephemeralContainers", "volumes"):
        assert f"variables.pod.{place}" in images


def test_the_committed_previews_fit_productions_bounds() -> None:
    """A pod of a preview may take as long to end as production's: what is committed for both must agree."""
    production = settings.read_settings(committed()).drain.budget
    previews = settings.read_preview(PREVIEW_SETTINGS, {"shopcat:tag": "a" * 40})[1].drain.budget
    assert previews.grace_seconds <= production.grace_seconds
