"""Guard rails: each rule finds what it is for, lets the rest pass, and everything that the program declares passes them all."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra import settings
from infra.commands import recorded_stacks
from infra.commands.takeover.declaration import UNKNOWN, Declared
from infra.names import RESTORED_SNAPSHOT
from policy import check as command
from policy import from_engine, rules
from policy.acceptances import Acceptance, acceptances
from policy.judgement import judge, judge_production
from policy.rules import HOLDS_DATA, KEPT, MISSING_DATA, PUBLIC_PORTS, RULES, missing_data
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

SERVICE = "kubernetes:core/v1:Service"
PREFIXES = "aws:ec2/managedPrefixList:ManagedPrefixList"
PREFIX = "aws:ec2/managedPrefixListEntry:ManagedPrefixListEntry"
PUBLIC_BLOCK = "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock"
ENDPOINTS = "aws:ec2/vpcEndpointService:VpcEndpointService"
_BLOCKED = dict.fromkeys(("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets"), True)

GUARDED = {"deletionProtection": True, "skipFinalSnapshot": False, "backupRetentionPeriod": 14}


def _disks(*encrypted: Any) -> dict[str, Any]:
    disks = [{"deviceName": "/dev/xvda", "ebs": {"encrypted": value}} for value in encrypted]
    return {"blockDeviceMappings": disks}


def _trust(principal: Any, **more: Any) -> str:
    return json.dumps({"Statement": [{"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole", **more}]})


def _template(policy: str) -> str:
    role = {"Type": "AWS::IAM::Role", "Properties": {"AssumeRolePolicyDocument": json.loads(policy)}}
    return json.dumps({"Resources": {"one": role}})


def _tcp(first: int, last: int | None = None) -> dict[str, Any]:
    return {"ipProtocol": "tcp", "fromPort": first, "toPort": last or first}


def _pod(image: str | None, kind: str = "containers") -> dict[str, Any]:
    return {"spec": {"template": {"spec": {kind: [{"name": "main", "image": image}]}}}}


CASES: Sequence[tuple[str, str, Mapping[str, Any], str]] = [
    ("public-access", INSTANCE, {"publiclyAccessible": True}, "publiclyAccessible must be false"),
    ("public-access", INSTANCE, {}, "publiclyAccessible must be false"),
    ("public-access", INSTANCE, {"publiclyAccessible": False}, ""),
    ("public-access", INSTANCE, {"publiclyAccessible": UNKNOWN}, ""),
    ("public-access", INGRESS, {"cidrIpv4": "0.0.0.0/0", **_tcp(5432)}, "5432 to 5432 (tcp) are open to"),
    ("public-access", INGRESS, {"cidrIpv6": "::/0", **_tcp(80, 443)}, "80 to 443 (tcp) are open to ::/0"),
    ("public-access", INGRESS, {"cidrIpv4": "0.0.0.0/0", "ipProtocol": "-1"}, "are open to 0.0.0.0/0"),
    ("public-access", INGRESS, {"cidrIpv4": "0.0.0.0/0", **_tcp(443), "ipProtocol": "-1"}, "are open to 0.0.0.0/0"),
    ("public-access", INGRESS, {"cidrIpv4": "0.0.0.0/0", **_tcp(443)}, ""),
    ("public-access", INGRESS, {"cidrIpv4": UNKNOWN, **_tcp(5432)}, ""),
    ("public-access", INGRESS, {"cidrIpv4": "0/0", **_tcp(5432)}, "are open to 0/0"),
    ("public-access", PREFIXES, {"entries": [{"cidr": "10.0.0.0/8"}, {"cidr": "0.0.0.0/0"}]}, "holds 0.0.0.0/0"),
    ("public-access", PREFIXES, {"entries": [{"cidr": "10.0.0.0/8"}]}, ""),
    ("public-access", PREFIX, {"cidr": "::/0"}, "holds ::/0"),
    ("public-access", "aws:redshift/cluster:Cluster", {}, "publiclyAccessible must be false"),
    ("public-access", "aws:mq/broker:Broker", {"publiclyAccessible": True}, "publiclyAccessible must be false"),
    ("public-access", "aws:mq/broker:Broker", {}, ""),
    (
        "public-access",
        "aws:rds/snapshot:Snapshot",
        {"sharedAccounts": ["1", "all"]},
        "sharedAccounts must not hold all",
    ),
    ("public-access", "aws:rds/snapshotCopy:SnapshotCopy", {"sharedAccounts": ["all"]}, "sharedAccounts must not"),
    ("public-access", "aws:rds/clusterSnapshot:ClusterSnapshot", {"sharedAccounts": [ACCOUNT]}, ""),
    ("public-access", "aws:ec2/amiLaunchPermission:AmiLaunchPermission", {"group": "all"}, "group must not be all"),
    ("public-access", "aws:s3/bucketAcl:BucketAcl", {"acl": "public-read"}, "acl must not be public-read"),
    ("public-access", "aws:s3/bucketAcl:BucketAcl", {"acl": "private"}, ""),
    ("public-access", PUBLIC_BLOCK, {**_BLOCKED, "restrictPublicBuckets": False}, "restrictPublicBuckets must be true"),
    ("public-access", PUBLIC_BLOCK, {**_BLOCKED, "blockPublicPolicy": None}, "blockPublicPolicy must be true"),
    ("public-access", PUBLIC_BLOCK, _BLOCKED, ""),
    (
        "public-access",
        SERVICE,
        {"spec": {"type": "LoadBalancer", "ports": [{"port": 5432}]}},
        "must not be LoadBalancer",
    ),
    ("public-access", f"{SERVICE}List", {"items": [{"spec": {"type": "LoadBalancer"}}]}, "must not be LoadBalancer"),
    ("public-access", SERVICE, {"spec": {"type": "ClusterIP"}}, ""),
    ("public-access", SERVICE, {"spec": UNKNOWN}, ""),
    ("public-access", INGRESS, {"cidrIpv4": "10.0.0.0/8", "fromPort": 5432, "toPort": 5432}, ""),
    ("public-access", INGRESS, {"referencedSecurityGroupId": "sg-1", "fromPort": 5432, "toPort": 5432}, ""),
    (
        "public-access",
        "aws:ec2/securityGroup:SecurityGroup",
        {"ingress": [{"cidrBlocks": ["10.0.0.0/8", "0.0.0.0/0"], "protocol": "tcp", "fromPort": 22, "toPort": 22}]},
        "22 to 22 (tcp) are open",
    ),
    (
        "public-access",
        "aws:ec2/securityGroup:SecurityGroup",
        {
            "ingress": [{"cidrBlocks": ["0.0.0.0/0"], "protocol": "tcp", "fromPort": 80, "toPort": 80}],
            "egress": [{"cidrBlocks": ["0.0.0.0/0"]}],
        },
        "",
    ),
    (
        "public-access",
        "aws:ec2/securityGroupRule:SecurityGroupRule",
        {"type": "ingress", "cidrBlocks": ["0.0.0.0/0"], "protocol": "tcp", "fromPort": 22, "toPort": 22},
        "22 to 22 (tcp) are open",
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
    (
        "unencrypted-storage",
        TEMPLATE,
        {"blockDeviceMappings": [{"virtualName": "ephemeral0"}]},
        "the disk that a machine",
    ),
    ("unencrypted-storage", TEMPLATE, {}, "the disk that a machine starts from"),
    ("unencrypted-storage", TEMPLATE, {"blockDeviceMappings": UNKNOWN}, ""),
    ("unencrypted-storage", TEMPLATE, {"blockDeviceMappings": [{"deviceName": "a", "ebs": UNKNOWN}]}, ""),
    ("unencrypted-storage", "aws:ec2/ami:Ami", {"ebsBlockDevices": [{"encrypted": False}]}, "encrypted must be true"),
    ("unencrypted-storage", "aws:docdb/cluster:Cluster", {}, "storageEncrypted must be true"),
    ("unencrypted-storage", "aws:ec2/launchConfiguration:LaunchConfiguration", {}, "the disk it starts from"),
    ("unencrypted-storage", "aws:eks/cluster:Cluster", {"encryptionConfig": UNKNOWN}, ""),
    ("unencrypted-storage", "aws:ebs/volume:Volume", {"encrypted": False}, "encrypted must be true"),
    ("unencrypted-storage", "aws:ebs/volume:Volume", {"encrypted": True}, ""),
    ("unencrypted-storage", INSTANCE, {"storageEncrypted": True, "storageType": "gp2"}, ""),
    ("unencrypted-storage", INSTANCE, {"storageEncrypted": UNKNOWN}, ""),
    ("unencrypted-storage", "aws:rds/cluster:Cluster", {}, "storageEncrypted must be true"),
    ("unencrypted-storage", "aws:sns/topic:Topic", {}, "kmsMasterKeyId must be set"),
    ("unencrypted-storage", "aws:sns/topic:Topic", {"kmsMasterKeyId": UNKNOWN}, ""),
    (
        "unencrypted-storage",
        "aws:sqs/queue:Queue",
        {"sqsManagedSseEnabled": False},
        "sqsManagedSseEnabled must be true",
    ),
    ("unencrypted-storage", "aws:sqs/queue:Queue", {}, ""),
    ("unencrypted-storage", "aws:eks/nodeGroup:NodeGroup", {"instanceTypes": ["t3.medium"]}, "launchTemplate must be"),
    ("unencrypted-storage", "aws:eks/nodeGroup:NodeGroup", {"launchTemplate": {"id": UNKNOWN}}, ""),
    ("unencrypted-storage", "aws:ec2/instance:Instance", {"ebsBlockDevices": []}, "the disk it starts from"),
    ("unencrypted-storage", "aws:s3/bucket:Bucket", {}, ""),
    ("unencrypted-storage", "aws:dynamodb/table:Table", {}, ""),
    ("unencrypted-storage", "aws:cloudwatch/logGroup:LogGroup", {}, ""),
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
    (
        "wildcard-principal",
        "aws:iam/role:Role",
        {"inlinePolicies": [{"name": "a", "policy": _trust({"AWS": "arn:aws:iam::*:root"})}]},
        'policy allows the principal "arn:aws:iam::*:root"',
    ),
    ("wildcard-principal", "aws:sns/topicPolicy:TopicPolicy", {"policy": json.loads(_trust("*"))}, 'principal "*"'),
    ("wildcard-principal", "aws:sns/topicPolicy:TopicPolicy", {"policy": UNKNOWN}, ""),
    ("wildcard-principal", BINDING, {"subjects": [{"kind": "Group", "name": "system:authenticated"}]}, "is everybody"),
    ("wildcard-principal", BINDING, {"subjects": [{"kind": "Group", "name": "shopcat-previews"}]}, ""),
    (
        "wildcard-principal",
        f"{BINDING}List",
        {"items": [{"subjects": [{"kind": "User", "name": "system:anonymous"}]}]},
        "is everybody",
    ),
    (
        "wildcard-principal",
        "aws:lambda/permission:Permission",
        {"principal": "*"},
        'principal allows the principal "*"',
    ),
    ("wildcard-principal", "aws:lambda/permission:Permission", {"principal": "sns.amazonaws.com"}, ""),
    ("wildcard-principal", ENDPOINTS, {"allowedPrincipals": [f"arn:aws:iam::{ACCOUNT}:root", "*"]}, 'principal "*"'),
    ("wildcard-principal", "aws:opensearch/domain:Domain", {"accessPolicies": _trust("*")}, 'principal "*"'),
    ("wildcard-principal", "aws:cloudformation/stack:Stack", {"templateBody": _template(_trust("*"))}, 'principal "*"'),
    ("wildcard-principal", "aws:cloudwatch/dashboard:Dashboard", {"dashboardBody": "{'widgets'"}, ""),
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
    ("mutable-image", DEPLOYMENT, _pod(UNKNOWN), ""),
    ("mutable-image", "kubernetes:core/v1:Pod", {"spec": {"volumes": [{"image": {"reference": "a:1"}}]}}, "image a:1"),
    ("mutable-image", "kubernetes:core/v1:Pod", {"spec": {"volumes": [{"name": "a", "emptyDir": {}}]}}, ""),
    ("mutable-image", "kubernetes:core/v1:ConfigMap", {"data": {"image": "shop:latest"}}, ""),
    ("mutable-image", RELEASE, {"version": "1.0.0", "values": {"image": {"tag": "latest"}}}, "not to latest"),
    ("mutable-image", RELEASE, {"version": "1.0.0", "values": {}}, "values.image.tag must be set"),
    ("mutable-image", RELEASE, {"values": {"image": {"tag": f"v1@{DIGEST}"}}}, "version must name"),
    ("mutable-image", RELEASE, {"version": "1.0.0", "values": {"image": {"tag": "v1.0.0"}}}, ""),
    ("mutable-image", RELEASE, {"version": "1.0.0", "values": UNKNOWN}, ""),
    ("mutable-image", RELEASE, {"version": "1.0.0", "values": {"image": f"shop@{DIGEST}"}}, ""),
    ("mutable-image", RELEASE, {"version": "1.0.0", "values": {"image": "registry:5000/shop"}}, "not to latest"),
    (
        "mutable-image",
        RELEASE,
        {"version": "1.0.0", "values": {"image": {"tag": "v1"}, "webhook": {"image": {"tag": "latest"}}}},
        "not to latest",
    ),
    ("mutable-image", RELEASE, {"version": "1.0.0", "values": {"image": {}, "a": {"tag": "v1"}}}, "must be set"),
    ("unguarded-data", INSTANCE, GUARDED, "protect or retain_on_delete"),
    ("unguarded-data", REPOSITORY, {"name": "shopcat"}, "the released images"),
    ("unguarded-data", REPOSITORY, {"name": "shopcat-preview", "forceDelete": True}, ""),
    ("unguarded-data", SECRET, {"name": "shopcat/application"}, "a password"),
    ("unguarded-data", SECRET, {"name": "shopcat-preview/pr-1/database", "recoveryWindowInDays": 0}, ""),
    ("unguarded-data", "aws:dynamodb/table:Table", {"name": "orders"}, "a table"),
    ("unguarded-data", "aws:dynamodb/table:Table", {"name": "shopcat-previews"}, ""),
    ("unguarded-data", REPOSITORY, {"name": "shopcat-previews"}, "the released images"),
    ("unguarded-data", "aws:eks/cluster:Cluster", {"name": "shopcat-preview/pr-1"}, "the cluster"),
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


@pytest.mark.parametrize(("kind", "inputs"), [(kind, inputs) for _, kind, inputs, _ in CASES if inputs])
def test_what_is_not_known_yet_is_not_judged(kind: str, inputs: Mapping[str, Any]) -> None:
    resource = Declared(kind, "one", dict.fromkeys(inputs, UNKNOWN), protect=True)
    said = [problem for rule in RULES.values() for problem in rule(resource)]
    about = {argument for argument in inputs if any(argument in problem.split(" must ")[0] for problem in said)}
    assert about == set(), said


@given(st.data(), st.sampled_from(CASES))
def test_no_value_stops_a_rule(data: st.DataObject, case: tuple[str, str, Mapping[str, Any], str]) -> None:
    """A rule that raises would stop the whole update, or let everything pass."""
    _, kind, inputs, _ = case
    odd = st.sampled_from(
        [UNKNOWN, None, "", "{", "[]", 0, 1.5, True, [], [None], {}, {"": None}, [UNKNOWN], {"a": UNKNOWN}]
    )

    def changed(value: Any) -> Any:
        if data.draw(st.integers(0, 3)) == 0:
            return data.draw(odd)
        if isinstance(value, Mapping):
            return {key: changed(inner) for key, inner in value.items()}
        return [changed(inner) for inner in value] if isinstance(value, list) else value

    resource = Declared(kind, "one", {key: changed(value) for key, value in inputs.items()})
    for rule in RULES.values():
        assert all(isinstance(problem, str) for problem in rule(resource))


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
    rule, copy = RULES["unguarded-data"], {"finalSnapshotIdentifier": f"{RESTORED_SNAPSHOT}20261129100000"}
    unused = {**GUARDED, **copy, "deletionProtection": False}
    assert rule(Declared(INSTANCE, "database-restored", unused)) == []
    assert rule(Declared(INSTANCE, "database-restored", {**GUARDED, **copy}, protect=True)) == []
    for inputs, protect in (
        ({**unused, "skipFinalSnapshot": True}, False),
        (unused, True),
        ({**GUARDED, **copy}, False),
        ({**unused, "finalSnapshotIdentifier": "shopcat-final-0a1b2c3d"}, False),
    ):
        assert rule(Declared(INSTANCE, "database-restored", inputs, protect=protect)), inputs


@pytest.mark.parametrize("serves", [False, True])
def test_a_restore_breaks_no_rule(serves: bool) -> None:  # noqa: FBT001
    database = {**committed()["database"], "restore": {"at": "2026-11-29T10:00:00Z", "serves": serves}}
    declared = _production(database=database)
    assert "database-restored" in {each.name for each in declared}
    assert violations(declared) == []


@pytest.mark.parametrize("kind", sorted(set(HOLDS_DATA) - {INSTANCE, rules.DATABASE_CLUSTER}))
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


# Inputs as kinds, and what is known of each ---------------------------------------------------------------------------

WORLD = ["0.0.0.0/0", "::/0", "0::/0", "0.0.0.0/1", "128.0.0.0/1", "64.0.0.0/2", "2000::/3", "8000::/1"]
NETWORKS = [
    "10.0.0.0/8",
    "10.1.2.3/32",
    "192.168.0.0/16",
    "100.64.0.0/10",
    "203.0.113.0/24",
    "fc00::/7",
    "2001:db8::/32",
]


@given(
    st.lists(st.sampled_from(WORLD), max_size=2),
    st.lists(st.sampled_from(NETWORKS), max_size=2),
    st.sampled_from([0, 22, 79, 80, 443, 444, 5432]) | st.integers(0, 65535),
    st.integers(0, 2),
    st.sampled_from(["tcp", "6", "TCP", "udp", "17", "-1", "all", "icmp"]),
    st.sampled_from(["rule", "group", "old rule"]),
)
def test_the_world_is_let_in_to_public_ports_alone(
    world: list[str], networks: list[str], port: int, more: int, protocol: str, shape: str
) -> None:
    """A rule about several networks is one of the provider's older kinds; the newer has one network each."""
    sources = [*networks, *world]
    ports = {"fromPort": port, "toPort": port + more}
    blocks = {
        "cidrBlocks": [source for source in sources if ":" not in source],
        "ipv6CidrBlocks": [source for source in sources if ":" in source],
    }
    resources = {
        "rule": [
            Declared(
                INGRESS, "one", {"cidrIpv6" if ":" in source else "cidrIpv4": source, "ipProtocol": protocol, **ports}
            )
            for source in sources
        ],
        "group": [
            Declared(
                "aws:ec2/securityGroup:SecurityGroup", "one", {"ingress": [{**blocks, "protocol": protocol, **ports}]}
            )
        ],
        "old rule": [
            Declared(
                "aws:ec2/securityGroupRule:SecurityGroupRule",
                "one",
                {"type": "ingress", **blocks, "protocol": protocol, **ports},
            )
        ],
    }[shape]
    is_public = port in PUBLIC_PORTS and more == 0 and protocol.lower() in {"tcp", "6"}
    found = [problem for resource in resources for problem in RULES["public-access"](resource)]
    assert bool(found) == (bool(world) and not is_public)
    for network in world if found else []:
        assert any(network in problem for problem in found)
    for network in networks:
        assert not any(re.search(rf"[ ,]{re.escape(network)}[,:]", problem) for problem in found)


Statement = tuple[dict[str, Any], bool]
"""A statement, and whether it lets everybody in."""
_ARN = "arn:aws:iam::123456789012:role/shop"
PRINCIPALS: list[Statement] = [
    ({"Principal": "*"}, True),
    ({"Principal": {"AWS": "*"}}, True),
    ({"Principal": {"AWS": [_ARN, "*"]}}, True),
    ({"Principal": {"Federated": "*"}}, True),
    ({"Principal": {"Service": "rds.amazonaws.com", "AWS": ["*"]}}, True),
    ({"Principal": {"AWS": "arn:aws:iam::*:root"}}, True),
    ({"NotPrincipal": {"AWS": _ARN}}, True),
    ({"Principal": {"AWS": _ARN}}, False),
    ({"Principal": {"AWS": [_ARN, "arn:aws:iam::123456789012:root"]}}, False),
    ({"Principal": {"Service": ["rds.amazonaws.com"]}}, False),
    ({"Resource": "*", "Action": "*"}, False),
]
CONDITIONS: list[dict[str, Any]] = [{}, {"Condition": {"StringEquals": {"aws:SourceAccount": "123456789012"}}}]
WRITTEN: list[Callable[[Any], Any]] = [
    json.dumps,
    lambda document: f"\n {json.dumps(document, indent=1)}",
    lambda document: document,
    lambda document: json.dumps(document).replace('"Statement"', '"statement"').replace('"Effect"', '"effect"'),
]
PLACES: list[Callable[[Any], tuple[str, dict[str, Any]]]] = [
    lambda text: (ROLE, {"assumeRolePolicy": text}),
    lambda text: (ROLE, {"inlinePolicies": [{"name": "one", "policy": text}]}),
    lambda text: ("aws:kms/key:Key", {"policy": text}),
    lambda text: ("aws:ec2/vpcEndpoint:VpcEndpoint", {"policy": text}),
    lambda text: ("aws:s3/bucketPolicy:BucketPolicy", {"policy": text}),
    lambda text: ("aws:cloudwatch/logResourcePolicy:LogResourcePolicy", {"policyDocument": text}),
    lambda text: ("aws:opensearch/domainPolicy:DomainPolicy", {"accessPolicies": text}),
    lambda text: ("aws:cloudformation/stack:Stack", {"templateBody": json.dumps({"Resources": [{"a": text}]})}),
]


@given(
    st.lists(
        st.tuples(st.sampled_from(["Allow", "Deny"]), st.sampled_from(PRINCIPALS), st.sampled_from(CONDITIONS)),
        max_size=4,
    ),
    st.booleans(),
    st.sampled_from(WRITTEN),
    st.sampled_from(PLACES),
)
def test_everybody_is_found_however_a_policy_is_written(
    chosen: list[tuple[str, Statement, dict[str, Any]]],
    alone: bool,  # noqa: FBT001 - of hypothesis
    written: Callable[[Any], Any],
    place: Callable[[Any], tuple[str, dict[str, Any]]],
) -> None:
    """Whatever the conditions; AWS takes one statement in place of a list of one."""
    statements = [{"Effect": effect, **principal, **condition} for effect, (principal, _), condition in chosen]
    document = {"Statement": statements[0] if alone and len(statements) == 1 else statements}
    expected = any(effect == "Allow" and is_everybody for effect, (_, is_everybody), _ in chosen)
    assert bool(RULES["wildcard-principal"](Declared(place("")[0], "one", place(written(document))[1]))) == expected


IMAGES = [
    ("shop:latest", False),
    ("shop", False),
    ("shop:v1.0.0", False),
    (f"shop@{DIGEST}", True),
    (f"shop:v1.0.0@{DIGEST}", True),
    (f"shop@{DIGEST[:-1]}", False),
    (f"shop@{DIGEST.upper()}", False),
    (f"{ACCOUNT}.dkr.ecr.eu-central-1.amazonaws.com/shop:v1@{DIGEST}", True),
    (UNKNOWN, True),
]
WORKLOADS: Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "kubernetes:core/v1:Pod": lambda pod: {"spec": pod},
    "kubernetes:apps/v1:Deployment": lambda pod: {"spec": {"template": {"spec": pod}}},
    "kubernetes:apps/v1:DaemonSet": lambda pod: {"spec": {"template": {"spec": pod}}},
    "kubernetes:batch/v1:Job": lambda pod: {"spec": {"template": {"spec": pod}}},
    "kubernetes:batch/v1:CronJob": lambda pod: {"spec": {"jobTemplate": {"spec": {"template": {"spec": pod}}}}},
    "kubernetes:core/v1:PodList": lambda pod: {"items": [{"spec": pod}]},
}


@given(
    st.sampled_from(sorted(WORKLOADS)),
    st.dictionaries(
        st.sampled_from(["containers", "initContainers", "ephemeralContainers"]),
        st.lists(st.sampled_from(IMAGES), max_size=3),
    ),
)
def test_each_image_without_a_digest_is_found_in_each_kind_of_workload(
    kind: str, chosen: dict[str, list[tuple[str, bool]]]
) -> None:
    pod = {
        place: [{"name": str(number), "image": image} for number, (image, _) in enumerate(images)]
        for place, images in chosen.items()
    }
    expected = [image for images in chosen.values() for image, is_pinned in images if not is_pinned]
    found = RULES["mutable-image"](Declared(kind, "one", WORKLOADS[kind](pod)))
    assert sorted(problem.split()[2] for problem in found) == sorted(expected)


ENCRYPTION: Mapping[str, Callable[[Any], dict[str, Any]]] = {
    INSTANCE: lambda value: {"storageEncrypted": value},
    rules.DATABASE_CLUSTER: lambda value: {"storageEncrypted": value},
    "aws:ebs/volume:Volume": lambda value: {"encrypted": value},
    "aws:efs/fileSystem:FileSystem": lambda value: {"encrypted": value},
    TEMPLATE: lambda value: {"blockDeviceMappings": [{"deviceName": "a", "ebs": {"encrypted": value}}]},
    "aws:ec2/instance:Instance": lambda value: {"rootBlockDevice": {"encrypted": value}},
    "aws:sns/topic:Topic": lambda value: {
        "kmsMasterKeyId": "a" if value in {True, "true"} else "" if value is False else value
    },
}


@given(
    st.sampled_from(sorted(ENCRYPTION)),
    st.sampled_from([(True, True), ("true", True), (UNKNOWN, True), (False, False), ("", False), (None, False)]),
    st.dictionaries(st.sampled_from(["name", "tags", "size", "type"]), st.text(max_size=3)),
)
def test_storage_is_encrypted_or_is_found(kind: str, value: tuple[Any, bool], rest: dict[str, Any]) -> None:
    given_value, is_fine = value
    found = RULES["unencrypted-storage"](Declared(kind, "one", {**rest, **ENCRYPTION[kind](given_value)}))
    assert bool(found) != is_fine


# What a setting accepts -----------------------------------------------------------------------------------------------


def _settings(**changes: Any) -> settings.Settings:
    return settings.read_settings(committed(**changes))


OLD_SECRET = f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:old-abcdef"
ACCEPTING: Mapping[str, Mapping[str, Any]] = {
    "shopcat:protection: false": {"protection": False},
    "shopcat:database.encrypted: false": {"database": {"encrypted": False}},
    "shopcat:database.backupRetentionDays: 0": {"database": {"backupRetentionDays": 0, "masterSecret": OLD_SECRET}},
    "shopcat:cluster.existing": {"cluster": {**committed()["cluster"], **existing()}},
}


def test_the_committed_settings_accept_nothing() -> None:
    assert acceptances(_settings()) == []


@pytest.mark.parametrize("setting", ACCEPTING)
def test_what_a_setting_declares_is_accepted_by_that_setting_and_refused_without(setting: str) -> None:
    """So no acceptance is there for nothing, and none takes back more than its setting declares."""
    chosen = _settings(**ACCEPTING[setting])
    given_settings = acceptances(chosen)
    assert {each.setting for each in given_settings} == {setting}
    declared = _production(**ACCEPTING[setting])
    found = [
        *(each for one in declared for each in judge(one, given_settings)),
        *judge_production(declared, given_settings),
    ]
    assert found
    for finding in found:
        assert finding.acceptance is not None, finding
        assert finding.acceptance.setting == setting
        assert finding.remark.startswith(f"{finding.rule}: ")
        assert setting in finding.remark
        assert finding.acceptance.reason in finding.remark


def test_an_unencrypted_database_says_nothing_about_other_storage() -> None:
    given_settings = acceptances(_settings(database={"encrypted": False}))
    for kind, expected in ((INSTANCE, True), (rules.DATABASE_CLUSTER, False), ("aws:ebs/volume:Volume", False)):
        (finding,) = [
            each
            for each in judge(Declared(kind, "a", protect=True), given_settings)
            if each.rule == "unencrypted-storage"
        ]
        assert bool(finding.acceptance) == expected


@given(
    st.builds(
        Acceptance,
        st.just("a"),
        st.just("b"),
        st.sampled_from([*RULES, MISSING_DATA]),
        st.sets(st.sampled_from([INSTANCE, ROLE])),
        st.sampled_from(["", "storageEncrypted"]),
    ),
    st.sampled_from([*RULES, MISSING_DATA]),
    st.sampled_from([INSTANCE, ROLE, SECRET]),
    st.sampled_from(["storageEncrypted must be true", "none is declared"]),
)
def test_an_acceptance_covers_its_rule_its_types_and_its_argument(
    acceptance: Acceptance, rule: str, kind: str, problem: str
) -> None:
    reasons_against = [
        acceptance.rule != rule,
        bool(acceptance.kinds) and kind not in acceptance.kinds,
        acceptance.argument == "storageEncrypted" and problem == "none is declared",
    ]
    assert acceptance.covers(rule, kind, problem) == (not any(reasons_against))


# Production as a whole ------------------------------------------------------------------------------------------------


@given(st.sets(st.sampled_from(KEPT)))
def test_data_of_production_that_nothing_declares_is_named(gone: set[str]) -> None:
    rest = [each for each in _committed() if each.pulumi_type not in gone]
    assert {kind for kind, _ in missing_data(rest)} == gone


def test_what_previews_throw_away_does_not_stand_in_for_productions_data() -> None:
    previews = [
        each for each in [*_committed(), *_preview()] if str(each.inputs.get("name", "")).startswith("shopcat-preview")
    ]
    assert {each.pulumi_type for each in previews} >= {REPOSITORY, SECRET}
    assert {kind for kind, _ in missing_data(previews)} == set(KEPT)


# What the engine hands over -------------------------------------------------------------------------------------------


class _UnknownError(Exception):
    pass


class _Asked(Mapping[str, Any]):
    """Raises as the engine's arguments do, when a value is asked for that isn't known."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def __getitem__(self, key: str) -> Any:
        if self._values[key] is None:
            raise _UnknownError
        return _asked(self._values[key])

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


class _AskedList(Sequence[Any]):
    def __init__(self, values: Sequence[Any]) -> None:
        self._values = values

    def __getitem__(self, index: Any) -> Any:
        if self._values[index] is None:
            raise _UnknownError
        return _asked(self._values[index])

    def __len__(self) -> int:
        return len(self._values)


def _asked(value: Any) -> Any:
    if isinstance(value, dict):
        return _Asked(value)
    return _AskedList(value) if isinstance(value, list) else value


def _known(value: Any) -> Any:
    """The same with the mark of an unknown value."""
    if isinstance(value, dict):
        return {key: _known(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_known(each) for each in value]
    return UNKNOWN if value is None else value


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.dictionaries(st.text(max_size=3), inner, max_size=3) | st.lists(inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(max_size=3), _values), st.booleans())
def test_what_the_engine_hands_over_is_plain_and_unknown_values_are_marked(
    arguments: dict[str, Any],
    protect: bool,  # noqa: FBT001 - of hypothesis
) -> None:
    made = from_engine.declared("a:b:C", "one", _Asked(arguments), protect=protect, unknown=_UnknownError)
    assert made == Declared("a:b:C", "one", _known(arguments), protect=protect)


def test_the_pack_has_the_engine_and_the_settings_of_the_program() -> None:
    """Its protobuf is another, which is why it has packages of its own."""
    pinned = {
        path: dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / path).read_text(), re.MULTILINE))
        for path in ("requirements.txt", "policy/requirements.txt")
    }
    ours, pack = pinned["requirements.txt"], pinned["policy/requirements.txt"]
    assert pack["pulumi"] == ours["pulumi"]
    assert {"pulumi-policy", "pydantic", "publicsuffixlist", "pyyaml"} <= set(pack)
    assert pack["protobuf"].split(".")[0] != ours["protobuf"].split(".")[0]


# What the program declares --------------------------------------------------------------------------------------------


def violations(resources: Sequence[Declared]) -> list[str]:
    """What the rules refuse, the settings accepting nothing."""
    return [
        f"{resource.pulumi_type} {finding.rule}: {finding.problem}"
        for resource in resources
        for finding in judge(resource)
    ]


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
    assert types >= {*KEPT, "aws:dynamodb/table:Table"}


def test_production_without_protection_breaks_the_rule_about_data() -> None:
    lines = violations(_production(protection=False))
    assert lines
    assert all(" unguarded-data: " in line for line in lines)
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
    everybody = Declared(ROLE, "all", {"assumeRolePolicy": _trust("*")})
    rest = [each for each in _committed() if each.pulumi_type != INSTANCE]
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("PULUMI_OPTION_CONFIG_FILE", raising=False)
    monkeypatch.setattr(command, "record_preview", lambda *_: [])
    monkeypatch.setattr(command, "record_production", lambda *_: [*rest, everybody])
    assert command.main() == 1
    said = capsys.readouterr()
    assert said.err == (
        f'error: {ROLE} all: wildcard-principal: assumeRolePolicy allows the principal "*": name the roles or services that '
        "need it\n"
        f"error: production: missing-data: {INSTANCE}: production declares none, so an update deletes the database unless it "
        "was protected before\n"
    )
    assert "2 broken, 0 accepted" in said.out


def test_the_command_says_what_is_accepted_and_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    accepting = _settings(protection=False)
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(command, "read_stack", lambda _: (REGION, accepting))
    assert command.main() == 0
    said = capsys.readouterr().out
    assert f"{INSTANCE} database: unguarded-data: protect or retain_on_delete must be set" in said
    assert "accepted by shopcat:protection: false: production is being taken down (docs/destroy.md)" in said
    assert "none broken" in said


def test_a_stack_file_that_can_t_be_read_is_one_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command.main() == 1
    assert capsys.readouterr().err.startswith("error: ")
