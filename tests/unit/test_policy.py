"""Guard rails: each rule finds what it is for, lets the rest pass, and everything that the program declares passes them all."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra import settings
from infra.commands import recorded_stacks
from infra.commands.takeover.declaration import Declared
from policy import __main__ as command
from policy.rules import HOLDS_DATA, RULES, violations
from tests.unit.test_settings import PREVIEWS, committed, existing

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "engine" / "golden"
DIGEST = f"sha256:{'a' * 64}"
REGION, ACCOUNT = "eu-central-1", "123456789012"

INSTANCE = "aws:rds/instance:Instance"
INGRESS = "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule"
REPOSITORY = "aws:ecr/repository:Repository"
ROLE = "aws:iam/role:Role"
SECRET = "aws:secretsmanager/secret:Secret"
TEMPLATE = "aws:ec2/launchTemplate:LaunchTemplate"
DEPLOYMENT = "kubernetes:apps/v1:Deployment"
RELEASE = "kubernetes:helm.sh/v3:Release"
BINDING = "kubernetes:rbac.authorization.k8s.io/v1:ClusterRoleBinding"

GUARDED = {"deletionProtection": True, "skipFinalSnapshot": False, "backupRetentionPeriod": 14}


def _disks(*encrypted: Any) -> dict[str, Any]:
    disks = [{"deviceName": "/dev/xvda", "ebs": {"encrypted": value}} for value in encrypted]
    return {"blockDeviceMappings": disks}


def _trust(principal: Any, **more: Any) -> str:
    return json.dumps({"Statement": [{"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole", **more}]})


def _pod(image: str | None, kind: str = "containers") -> dict[str, Any]:
    return {"spec": {"template": {"spec": {kind: [{"name": "main", "image": image}]}}}}


CASES: Sequence[tuple[str, str, Mapping[str, Any], str]] = [
    ("public-access", INSTANCE, {"publiclyAccessible": True}, "publiclyAccessible must be false"),
    ("public-access", INSTANCE, {}, "publiclyAccessible must be false"),
    ("public-access", INSTANCE, {"publiclyAccessible": False}, ""),
    ("public-access", INGRESS, {"cidrIpv4": "0.0.0.0/0", "fromPort": 5432, "toPort": 5432}, "5432 to 5432 are open to"),
    ("public-access", INGRESS, {"cidrIpv6": "::/0", "fromPort": 80, "toPort": 443}, "80 to 443 are open to ::/0"),
    ("public-access", INGRESS, {"cidrIpv4": "0.0.0.0/0", "ipProtocol": "-1"}, "are open to 0.0.0.0/0"),
    ("public-access", INGRESS, {"cidrIpv4": "0.0.0.0/0", "fromPort": 443, "toPort": 443}, ""),
    ("public-access", INGRESS, {"cidrIpv4": "10.0.0.0/8", "fromPort": 5432, "toPort": 5432}, ""),
    ("public-access", INGRESS, {"referencedSecurityGroupId": "sg-1", "fromPort": 5432, "toPort": 5432}, ""),
    (
        "public-access",
        "aws:ec2/securityGroup:SecurityGroup",
        {"ingress": [{"cidrBlocks": ["10.0.0.0/8", "0.0.0.0/0"], "fromPort": 22, "toPort": 22}]},
        "22 to 22 are open",
    ),
    (
        "public-access",
        "aws:ec2/securityGroup:SecurityGroup",
        {
            "ingress": [{"cidrBlocks": ["0.0.0.0/0"], "fromPort": 80, "toPort": 80}],
            "egress": [{"cidrBlocks": ["0.0.0.0/0"]}],
        },
        "",
    ),
    (
        "public-access",
        "aws:ec2/securityGroupRule:SecurityGroupRule",
        {"type": "ingress", "cidrBlocks": ["0.0.0.0/0"], "fromPort": 22, "toPort": 22},
        "22 to 22 are open",
    ),
    (
        "public-access",
        "aws:ec2/securityGroupRule:SecurityGroupRule",
        {"type": "egress", "cidrBlocks": ["0.0.0.0/0"]},
        "",
    ),
    ("unencrypted-storage", INSTANCE, {"storageEncrypted": False}, "storageEncrypted must be true"),
    ("unencrypted-storage", INSTANCE, {}, "storageEncrypted must be true"),
    ("unencrypted-storage", INSTANCE, {"storageEncrypted": True}, ""),
    ("unencrypted-storage", TEMPLATE, _disks("true", "false"), "the disk /dev/xvda: encrypted must be true"),
    ("unencrypted-storage", TEMPLATE, _disks("true", True), ""),
    ("unencrypted-storage", TEMPLATE, {"blockDeviceMappings": [{"virtualName": "ephemeral0"}]}, ""),
    ("unencrypted-storage", "aws:ebs/volume:Volume", {"encrypted": False}, "encrypted must be true"),
    ("unencrypted-storage", "aws:ebs/volume:Volume", {"encrypted": True}, ""),
    ("unencrypted-storage", REPOSITORY, {}, "encryptionConfigurations"),
    ("unencrypted-storage", REPOSITORY, {"encryptionConfigurations": [{"encryptionType": "KMS"}]}, ""),
    ("unencrypted-storage", "aws:eks/cluster:Cluster", {}, "encryptionConfig must encrypt secrets"),
    ("unencrypted-storage", "aws:eks/cluster:Cluster", {"encryptionConfig": {"resources": ["secrets"]}}, ""),
    ("wildcard-principal", ROLE, {"assumeRolePolicy": _trust("*")}, 'allows the principal "*"'),
    ("wildcard-principal", ROLE, {"assumeRolePolicy": _trust({"AWS": ["arn:aws:iam::1:root", "*"]})}, 'principal "*"'),
    (
        "wildcard-principal",
        ROLE,
        {"assumeRolePolicy": _trust({"Federated": "*"}, Condition={"Bool": {}})},
        'principal "*"',
    ),
    ("wildcard-principal", ROLE, {"assumeRolePolicy": _trust({"Service": "ec2.amazonaws.com"})}, ""),
    ("wildcard-principal", ROLE, {"assumeRolePolicy": _trust("*").replace("Allow", "Deny")}, ""),
    ("wildcard-principal", ROLE, {"assumeRolePolicy": "{'Statement'"}, "is no JSON"),
    (
        "wildcard-principal",
        "aws:kms/key:Key",
        {"policy": json.dumps({"Statement": {"Effect": "Allow", "NotPrincipal": {"AWS": "arn:aws:iam::1:root"}}})},
        "NotPrincipal",
    ),
    (
        "wildcard-principal",
        "aws:ecr/repositoryPolicy:RepositoryPolicy",
        {"policy": _trust({"AWS": "*"})},
        'principal "*"',
    ),
    (
        "wildcard-principal",
        "aws:iam/rolePolicy:RolePolicy",
        {"policy": '{"Statement": [{"Effect": "Allow", "Action": "*"}]}'},
        "",
    ),
    ("wildcard-principal", "aws:lb/listener:Listener", {"sslPolicy": "ELBSecurityPolicy", "policy": "none"}, ""),
    ("wildcard-principal", BINDING, {"subjects": [{"kind": "Group", "name": "system:authenticated"}]}, "is everybody"),
    ("wildcard-principal", BINDING, {"subjects": [{"kind": "Group", "name": "shopcat-previews"}]}, ""),
    ("mutable-image", REPOSITORY, {"imageTagMutability": "MUTABLE"}, "must be IMMUTABLE"),
    ("mutable-image", REPOSITORY, {}, "must be IMMUTABLE"),
    ("mutable-image", REPOSITORY, {"imageTagMutability": "IMMUTABLE"}, ""),
    ("mutable-image", DEPLOYMENT, _pod("shop:latest"), "the image shop:latest has no digest"),
    ("mutable-image", DEPLOYMENT, _pod("shop:v1.0.0"), "the image shop:v1.0.0 has no digest"),
    ("mutable-image", DEPLOYMENT, _pod(None), "has no digest"),
    ("mutable-image", DEPLOYMENT, _pod(f"shop@{DIGEST}x"), "has no digest"),
    ("mutable-image", "kubernetes:batch/v1:CronJob", {"spec": {"jobTemplate": _pod("curl:8")}}, "the image curl:8"),
    ("mutable-image", DEPLOYMENT, _pod("init:1", "initContainers"), "the image init:1"),
    ("mutable-image", DEPLOYMENT, _pod(f"shop:v1@{DIGEST}"), ""),
    ("mutable-image", "kubernetes:core/v1:ConfigMap", {"data": {"image": "shop:latest"}}, ""),
    ("mutable-image", RELEASE, {"version": "1.0.0", "values": {"image": {"tag": "latest"}}}, "not to latest"),
    ("mutable-image", RELEASE, {"version": "1.0.0", "values": {}}, "values.image.tag must be set"),
    ("mutable-image", RELEASE, {"values": {"image": {"tag": f"v1@{DIGEST}"}}}, "version must name"),
    ("mutable-image", RELEASE, {"version": "1.0.0", "values": {"image": {"tag": "v1.0.0"}}}, ""),
    ("unguarded-data", INSTANCE, GUARDED, "protect or retain_on_delete"),
    ("unguarded-data", REPOSITORY, {"name": "shopcat"}, "the released images"),
    ("unguarded-data", REPOSITORY, {"name": "shopcat-preview", "forceDelete": True}, ""),
    ("unguarded-data", SECRET, {"name": "shopcat/application"}, "a password"),
    ("unguarded-data", SECRET, {"name": "shopcat-preview/pr-1/database", "recoveryWindowInDays": 0}, ""),
    ("unguarded-data", "aws:ec2/subnet:Subnet", {}, ""),
]


@pytest.mark.parametrize(("rule", "kind", "inputs", "words"), CASES)
def test_a_rule_finds_what_it_is_for_and_lets_the_rest_pass(
    rule: str, kind: str, inputs: Mapping[str, Any], words: str
) -> None:
    problems = RULES[rule](Declared(kind, "one", inputs))
    if words:
        assert len(problems) == 1
        assert words in problems[0]
    else:
        assert problems == []


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_is_tried_with_something_that_breaks_it_and_something_that_does_not(rule: str) -> None:
    outcomes = {bool(words) for name, _, _, words in CASES if name == rule}
    assert outcomes == {True, False}


@pytest.mark.parametrize(
    ("argument", "value"), [("deletionProtection", False), ("skipFinalSnapshot", True), ("backupRetentionPeriod", 0)]
)
def test_a_protected_database_keeps_its_own_guards_too(argument: str, value: Any) -> None:
    database = Declared(INSTANCE, "database", GUARDED, protect=True)
    assert RULES["unguarded-data"](database) == []
    (problem,) = RULES["unguarded-data"](replace(database, inputs={**GUARDED, argument: value}))
    assert problem.startswith(f"{argument} must")


def test_a_restored_copy_is_free_to_go_until_releases_use_it() -> None:
    rule, copy = RULES["unguarded-data"], {"restoreToPointInTime": {"restoreTime": "2026-11-29T10:00:00Z"}}
    unused = {**GUARDED, **copy, "deletionProtection": False}
    assert rule(Declared(INSTANCE, "database-restored", unused)) == []
    assert rule(Declared(INSTANCE, "database-restored", {**GUARDED, **copy}, protect=True)) == []
    for inputs, protect in (
        ({**unused, "skipFinalSnapshot": True}, False),
        (unused, True),
        ({**GUARDED, **copy}, False),
        ({**unused, "restoreToPointInTime": None}, False),
    ):
        assert rule(Declared(INSTANCE, "database-restored", inputs, protect=protect)), inputs


@pytest.mark.parametrize("serves", [False, True])
def test_a_restore_breaks_no_rule(serves: bool) -> None:  # noqa: FBT001
    database = {**committed()["database"], "restore": {"at": "2026-11-29T10:00:00Z", "serves": serves}}
    declared = _production(database=database)
    assert "database-restored" in {each.name for each in declared}
    assert violations(declared) == []


@pytest.mark.parametrize("kind", [kind for kind in HOLDS_DATA if kind != INSTANCE])
def test_what_is_protected_or_stays_in_aws_is_guarded(kind: str) -> None:
    rule = RULES["unguarded-data"]
    assert len(rule(Declared(kind, "one"))) == 1
    assert rule(Declared(kind, "one", protect=True)) == []
    assert rule(Declared(kind, "one", retain_on_delete=True)) == []


def test_a_guarded_repository_and_secret_are_not_emptied_at_once() -> None:
    rule = RULES["unguarded-data"]
    assert rule(Declared(REPOSITORY, "shopcat", {"forceDelete": True}, protect=True))[0].startswith("forceDelete")
    assert rule(Declared(SECRET, "one", {"recoveryWindowInDays": 0}, protect=True))[0].startswith("recoveryWindow")


_nested = st.recursive(
    st.just({}),
    lambda inner: st.dictionaries(st.text("abc", min_size=1), inner | st.lists(inner), max_size=3),
    max_leaves=5,
)


@given(_nested, st.lists(st.text("abc", min_size=1), max_size=4), st.sampled_from(["containers", "initContainers"]))
def test_an_image_without_a_digest_is_found_however_deep_it_is(
    rest: dict[str, Any], path: list[str], kind: str
) -> None:
    pod: dict[str, Any] = {kind: [{"image": "shop:latest"}]}
    for key in path:
        pod = {**rest, key: [pod]}
    problems = RULES["mutable-image"](Declared("kubernetes:apps/v1:StatefulSet", "one", pod))
    assert [problem for problem in problems if "shop:latest" in problem]


@given(st.lists(st.sampled_from(CASES)))
def test_the_violations_are_those_of_each_resource(cases: list[tuple[str, str, Mapping[str, Any], str]]) -> None:
    resources = [Declared(kind, str(place), inputs) for place, (_, kind, inputs, _) in enumerate(cases)]
    apart = [line for resource in resources for line in violations([resource])]
    assert sorted(violations(resources)) == sorted(apart)


# What the program declares --------------------------------------------------------------------------------------------


def _production(**changes: Any) -> list[Declared]:
    return recorded_stacks.record_production(settings.read_settings(committed(**changes)), REGION, ACCOUNT)


@cache
def _committed() -> list[Declared]:
    return _production()


def _preview() -> list[Declared]:
    return recorded_stacks.record_preview(settings.read_preview(PREVIEWS, {"shopcat:tag": "abc"})[1], REGION)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"vpc": {"natGateways": 2, "interfaceEndpoints": True}},
        {"apiAccess": "private"},
        {"dns": "external"},
        {"github": {"repository": "octo/shop"}},
        {
            "monitoring": {
                "webhook": "https://hooks.example.com/a",
                "monthlyBudgetUsd": 300,
                "logs": {"image": f"a@{DIGEST}"},
            }
        },
        {"cluster": {**committed()["cluster"], **existing()}},
    ],
)
def test_everything_that_production_declares_passes(changes: Mapping[str, Any]) -> None:
    declared = _production(**changes) if changes else _committed()
    assert len(declared) > 40
    assert violations(declared) == []


def test_everything_that_a_preview_declares_passes() -> None:
    declared = _preview()
    assert {each.pulumi_type for each in declared} >= {DEPLOYMENT, SECRET}
    assert violations(declared) == []


@pytest.mark.parametrize(
    "name", sorted(path.name for path in GOLDEN.glob("*.json") if not path.name.startswith("ledger"))
)
def test_what_the_engine_was_given_passes(name: str) -> None:
    """With the release and what confines previews; each digest there is a placeholder."""
    text = (GOLDEN / name).read_text().replace("sha256:<digest>", DIGEST)
    resources = [
        Declared(
            urn.split("::")[-2].rpartition("$")[2], urn.split("::")[-1], entry["inputs"], bool(entry.get("protect"))
        )
        for urn, entry in json.loads(text).items()
        if entry is not None
    ]
    assert violations(resources) == []


def test_the_rules_see_the_types_that_they_are_about() -> None:
    """A renamed type would make a rule say nothing."""
    types = {each.pulumi_type for each in [*_committed(), *_preview()]}
    assert types >= {INSTANCE, INGRESS, REPOSITORY, ROLE, SECRET, TEMPLATE, DEPLOYMENT, RELEASE, BINDING}
    assert types >= set(HOLDS_DATA) - {"aws:s3/bucket:Bucket"}


def test_production_without_protection_breaks_the_rule_about_data() -> None:
    lines = violations(_production(protection=False))
    assert lines
    assert all(": unguarded-data: " in line for line in lines)
    broken = {line.split(" ")[0] for line in lines}
    assert broken == {INSTANCE, "aws:kms/key:Key", "aws:eks/cluster:Cluster"}, (
        "images and secrets stay in AWS all the same"
    )


def test_the_command_says_what_it_judged(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("PULUMI_OPTION_CONFIG_FILE", raising=False)
    monkeypatch.setattr(command, "record_production", lambda *_: _committed())
    assert command.main() == 0
    assert f"{len(_committed()) + len(_preview())} resources" in capsys.readouterr().out


def test_the_command_fails_with_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(command, "record_preview", lambda *_: [])
    monkeypatch.setattr(
        command, "record_production", lambda *_: [Declared(ROLE, "all", {"assumeRolePolicy": _trust("*")})]
    )
    assert command.main() == 1
    assert capsys.readouterr().err == (
        f'error: {ROLE} all: wildcard-principal: assumeRolePolicy allows the principal "*": name the roles or services that '
        "need it\n"
    )


def test_a_stack_file_that_can_t_be_read_is_one_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command.main() == 1
    assert capsys.readouterr().err.startswith("error: ")
