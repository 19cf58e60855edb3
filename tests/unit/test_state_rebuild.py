"""A lost state: what of this stack is found, refused, made or written once more, and that an import changes no resource."""

import re
import uuid
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pulumi
import pytest
from botocore.exceptions import ClientError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from pydantic.alias_generators import to_camel

from infra.clients.aws import AwsClients
from infra.errors import PreflightError
from infra.foundation import auto_names, state_rebuild
from infra.foundation.existing_resources import FINDERS, HELM_RELEASE
from infra.foundation.state_rebuild import (
    LISTERS,
    MAY_BE_MADE,
    MUST_BE_FOUND,
    WRITTEN_AGAIN,
    find_unnamed,
    is_listed,
    known_resources,
)
from infra.settings import Settings
from tests.unit.releases import run
from tests.unit.test_twin_eks import stand_in
from twin.plugins.aws import imports
from twin.plugins.aws.kind import Aws
from twin.plugins.aws.provider import KINDS, AwsProvider
from twin.plugins.common import Difference

REGION = "eu-central-1"
POLICY = '{"Version": "2012-10-17", "Statement": []}'
ALLOWS = '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}]}'
NAMES = st.from_regex(r"[a-z][a-z-]{0,30}", fullmatch=True)


class Account:
    """AWS by moto, and in it what the twin's stand-in of the provider makes for this stack or another one."""

    def __init__(self) -> None:
        self.clients = AwsClients(REGION)
        self.aws = Aws({"region": REGION, "accessKey": "test", "secretKey": "test"})
        self.vpc = self.make("aws:ec2/vpc:Vpc", stack="", cidrBlock="10.0.0.0/16")

    def make(self, kind: str, *, stack: str = "prod", **inputs: Any) -> str:
        made = KINDS[kind].create(self.aws, {**KINDS[kind].defaults, **inputs})
        if stack and KINDS[kind].tagged and "eks" not in kind:
            tags = {**(inputs.get("tags") or {}), "shopcat:stack": stack}
            KINDS[kind].tag(self.aws, made, {}, tags, [])
        return made

    def cases(self) -> list[tuple[str, str, dict[str, Any], dict[str, Any]]]:
        """Type, logical name, inputs as the program declares them, and what the provider adds to them."""
        role = {"assumeRolePolicy": POLICY}
        self.make("aws:iam/role:Role", stack="", name="owner", **role)
        return [
            (
                "aws:acm/certificate:Certificate",
                "shopcat",
                {"domainName": "shop.example", "validationMethod": "DNS"},
                {},
            ),
            ("aws:ec2/eip:Eip", "nat-0", {"domain": "vpc", "tags": {"Name": "shopcat-nat-0"}}, {}),
            (
                "aws:ec2/launchTemplate:LaunchTemplate",
                "nodes",
                {"instanceType": "t3.medium"},
                {"name": "nodes-0a1b2c3"},
            ),
            ("aws:ec2/routeTable:RouteTable", "public", {"vpcId": self.vpc, "tags": {"Name": "shopcat-public"}}, {}),
            (
                "aws:ec2/securityGroup:SecurityGroup",
                "endpoints",
                {"vpcId": self.vpc, "description": "x"},
                {"name": "endpoints-0a1b2c3"},
            ),
            ("aws:ec2/vpc:Vpc", "vpc", {"cidrBlock": "10.9.0.0/16", "tags": {"Name": "shopcat"}}, {}),
            ("aws:iam/role:Role", "node", role, {"name": "node-0a1b2c3"}),
            ("aws:iam/rolePolicy:RolePolicy", "reads", {"role": "owner", "policy": ALLOWS}, {"name": "reads-0a1b2c3"}),
            ("aws:kms/key:Key", "secrets", {"description": "Kubernetes secrets of shopcat"}, {}),
        ]


@pytest.fixture
def account(mocked_aws: None) -> Account:
    return Account()


def taken_up(
    provider: AwsProvider, kind: str, identifier: str, declared: dict[str, Any], ignored: tuple[str, ...] = ()
) -> Difference:
    """Return what the stand-in would change of a resource that is imported and declared as before, without `ignored`."""
    read = provider.read(kind, identifier, {}, {})
    assert read is not None
    state, imported, outputs = read
    declared = {key: value for key, value in declared.items() if key not in ignored}
    declared |= {key: imported[key] for key in ignored if key in imported}
    again = provider.check(kind, f"urn:pulumi:prod::shopcat::{kind}::x", imported, declared, b"seed")
    return provider.difference(kind, state, imported, outputs, again)


def configured() -> AwsProvider:
    provider = AwsProvider()
    provider.configure({"region": REGION, "accessKey": "test", "secretKey": "test"})
    return provider


@given(
    optional=st.fixed_dictionaries(
        {},
        optional={
            "type": st.just("STANDARD"),
            "kubernetesGroups": st.lists(NAMES, max_size=2, unique=True),
            "userName": NAMES,
        },
    )
)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_access_entry_that_is_imported_does_not_change(tmp_path: Path, optional: dict[str, Any]) -> None:
    """Upstream: `type` has the default STANDARD, groups and user are computed (internal/service/eks/access_entry.go)."""
    eks, _ = stand_in(tmp_path)

    def create_access_entry(clusterName: str, **body: Any) -> Any:  # noqa: N803 - boto3's own name
        return eks._create_entry(clusterName, body)

    def describe_access_entry(clusterName: str, principalArn: str) -> Any:  # noqa: N803 - boto3's own name
        return eks._describe_entry(clusterName, principalArn, {})

    client = SimpleNamespace(create_access_entry=create_access_entry, describe_access_entry=describe_access_entry)
    provider, kind = configured(), "aws:eks/accessEntry:AccessEntry"
    cloud: Any = type("Cloud", (), {"region": REGION, "default_tags": {}, "__call__": lambda *_: client})()
    provider._aws = cloud
    declared = {"clusterName": "shop", "principalArn": "arn:aws:iam::123456789012:role/one", **optional}
    checked = provider.check(kind, f"urn:pulumi:prod::shopcat::{kind}::x", {}, declared, b"seed")
    identifier = KINDS[kind].create(cloud, checked)
    assert {path.split(".")[0] for path in taken_up(provider, kind, identifier, declared).changed} <= {"tagsAll"}


def test_a_budget_that_is_imported_needs_no_new_one_and_its_notifications_are_set_again(account: Account) -> None:
    kind, target = "aws:budgets/budget:Budget", {"AccountId": account.aws.account, "BudgetName": "shopcat-monthly"}
    declared: dict[str, Any] = {
        "name": "shopcat-monthly", "budgetType": "COST", "timeUnit": "MONTHLY", "limitAmount": "200", "limitUnit": "USD",
        "notifications": [
            {"comparisonOperator": "GREATER_THAN", "notificationType": each, "threshold": 100,
             "thresholdType": "PERCENTAGE", "subscriberSnsTopicArns": ["arn:aws:sns:eu-central-1:1:a"]}
            for each in ("ACTUAL", "FORECASTED")
        ],
    }  # fmt: skip
    identifier = account.make(kind, **declared)
    listed = account.clients.get("budgets").describe_notifications_for_budget
    before = listed(**target)["Notifications"]
    difference = taken_up(configured(), kind, identifier, declared)
    assert difference.replaces == []
    assert {path.rpartition(".")[2] for path in difference.changed} == {"subscriberSnsTopicArns"}, (
        "moto does not tell it"
    )
    KINDS[kind].update(account.aws, identifier, declared, declared, {"notifications"})
    assert listed(**target)["Notifications"] == before, "each is there once"


def test_only_what_this_stack_made_is_found_and_only_if_it_is_the_only_one(account: Account) -> None:
    cases, provider = account.cases(), configured()
    assert {kind for kind, *_ in cases} == set(LISTERS) - {"aws:eks/nodeGroup:NodeGroup"}
    for kind, logical, declared, added in cases:
        other = {key: re.sub(r"-0a1b2c3$", "-9f9f9f9", str(value)) for key, value in added.items()}
        if kind != "aws:iam/rolePolicy:RolePolicy":  # it has no tags, and its role is this stack's own
            account.make(kind, stack="pr-1", **declared, **other)
        with pytest.raises(PreflightError, match=f"{kind} {logical}: none has this stack's tag"):
            find_unnamed(account.clients, "prod", kind, logical, declared)
        made = account.make(kind, **declared, **added)
        found = find_unnamed(account.clients, "prod", kind, logical, declared)
        assert found == made, kind
        assert taken_up(provider, kind, found, declared, ("name",) if kind in auto_names.KEPT else ()).replaces == [], (
            kind
        )
        again = {key: re.sub(r"-0a1b2c3$", "-1234567", str(value)) for key, value in added.items()}
        account.make(kind, **declared, **again)
        with pytest.raises(PreflightError, match=f"{kind} {logical}: 2 fit"):
            find_unnamed(account.clients, "prod", kind, logical, declared)


def test_a_certificate_that_a_listener_uses_is_chosen(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, declared = "aws:acm/certificate:Certificate", {"domainName": "shop.example", "validationMethod": "DNS"}
    used, _ = account.make(kind, **declared), account.make(kind, **declared)
    describe = account.clients.get("acm").describe_certificate

    def in_use(CertificateArn: str) -> Any:  # noqa: N803 - boto3's own name
        answer = describe(CertificateArn=CertificateArn)
        answer["Certificate"]["InUseBy"] = ["arn:listener"] if CertificateArn == used else []
        return answer

    monkeypatch.setattr(account.clients.get("acm"), "describe_certificate", in_use)
    assert find_unnamed(account.clients, "prod", kind, "shopcat", declared) == used


@given(
    others=st.lists(st.sets(st.sampled_from(["www", "m", "blog"])), max_size=3, unique_by=frozenset),
    wanted=st.sets(st.sampled_from(["www", "m", "blog"])),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_certificate_is_taken_for_exactly_its_names(
    account: Account, others: list[set[str]], wanted: set[str]
) -> None:
    kind, domain = "aws:acm/certificate:Certificate", f"shop-{uuid.uuid4().hex}.example"

    def declared(names: set[str]) -> dict[str, Any]:
        more = {"subjectAlternativeNames": [f"{name}.{domain}" for name in sorted(names)]} if names else {}
        return {"domainName": domain, "validationMethod": "DNS", **more}

    made = {frozenset(names): account.make(kind, **declared(names)) for names in others}
    if frozenset(wanted) in made:
        assert find_unnamed(account.clients, "prod", kind, "shopcat", declared(wanted)) == made[frozenset(wanted)]
    else:
        with pytest.raises(PreflightError, match="shopcat:domain, shopcat:domainAliases"):
            find_unnamed(account.clients, "prod", kind, "shopcat", declared(wanted))


@pytest.mark.parametrize("operation", ["describe_key", "list_resource_tags"])
def test_a_key_that_nobody_here_may_look_at_is_somebody_else_s(
    account: Account, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    kind, declared = "aws:kms/key:Key", {"description": "Kubernetes secrets of shopcat"}
    shut = account.make(kind, **declared)
    client = account.clients.get("kms")
    call = getattr(client, operation)

    def answer(KeyId: str) -> Any:  # noqa: N803 - boto3's own name
        if KeyId == shut:
            raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no key policy"}}, operation)
        return call(KeyId=KeyId)

    monkeypatch.setattr(client, operation, answer)
    with pytest.raises(PreflightError, match="none has this stack's tag"):
        find_unnamed(account.clients, "prod", kind, "secrets", declared)
    own = account.make(kind, **declared)
    assert find_unnamed(account.clients, "prod", kind, "secrets", declared) == own


def test_a_node_group_is_found_by_its_name(account: Account) -> None:
    declared = {"clusterName": "shopcat", "nodeGroupName": "nodes-0123456"}
    with pytest.raises(PreflightError, match="NodeGroup nodes: none has"):
        find_unnamed(account.clients, "prod", "aws:eks/nodeGroup:NodeGroup", "nodes", declared)


def test_every_type_that_production_declares_in_aws_has_its_way_back() -> None:
    infra = Path(state_rebuild.__file__).parents[1]
    others = [infra / "access" / "github_roles.py", infra / "previews" / "cluster_info.py"]
    sources = [path.read_text() for path in [*(infra / "foundation").glob("*.py"), *others]]
    declared = {found for text in sources for found in re.findall(r"\baws\.(\w+\.[A-Z]\w+)\(", text)}
    declared = {one for one in declared if not one.endswith("Args")} | {"eks.Cluster"}
    classes = [*MUST_BE_FOUND, *MAY_BE_MADE, *WRITTEN_AGAIN]
    assert len(classes) == len(set(classes)), "each is one of the three"
    assert declared == {f"{kind.split(':')[1].split('/')[0]}.{kind.rpartition(':')[2]}" for kind in classes}
    assert {*FINDERS, *LISTERS} == {*MUST_BE_FOUND, *MAY_BE_MADE}
    assert set(LISTERS) <= set(MUST_BE_FOUND), "AWS would take a second one"
    assert set(imports.READERS) == {*FINDERS, *LISTERS}


def test_what_must_be_found_is_looked_for_by_settings_that_there_are() -> None:
    for name in {name for names in MUST_BE_FOUND.values() for name in names} - {"aws:region"}:
        model: Any = Settings
        for part in name.split("."):
            fields = {to_camel(key): field.annotation for key, field in model.model_fields.items()}
            assert part in fields, name
            choices = [fields[part], *getattr(fields[part], "__args__", ())]
            model = next((each for each in choices if isinstance(each, type) and issubclass(each, BaseModel)), None)


def test_a_name_that_is_given_is_asked_for_and_one_that_is_made_up_must_be_found() -> None:
    assert not is_listed("aws:iam/role:Role", {"name": "shopcat-release"})
    assert is_listed("aws:iam/role:Role", {})
    assert is_listed("aws:ec2/vpc:Vpc", {})
    assert is_listed("aws:iam/rolePolicy:RolePolicy", {"name": "shopcat-release"})
    assert not is_listed("aws:rds/instance:Instance", {"identifier": "shopcat"})


@given(logical=NAMES, first=st.lists(st.text(), max_size=4), second=st.lists(st.text(), max_size=4))
def test_a_name_of_content_is_one_of_the_provider_s_form_and_differs_with_the_content(
    logical: str, first: list[str], second: list[str]
) -> None:
    name = auto_names.name_of_content(logical, first)
    assert auto_names.is_auto_name(logical, name)
    joined = ["\0".join(each) for each in (first, second)]
    assert (name == auto_names.name_of_content(logical, second)) == (joined[0] == joined[1])


@given(logical=NAMES, other=NAMES, digits=st.text("0123456789abcdef", min_size=5, max_size=9))
def test_a_made_up_name_is_told_from_others_by_its_whole_form(logical: str, other: str, digits: str) -> None:
    expected = other == logical and len(digits) == 7
    assert auto_names.is_auto_name(logical, f"{other}-{digits}") == expected


def test_only_a_name_that_nobody_gave_is_never_compared() -> None:
    def ignored(kind: str, props: dict[str, Any]) -> list[str]:
        args = SimpleNamespace(
            type_=kind, name="x", props=props, opts=pulumi.ResourceOptions(ignore_changes=["policy"])
        )
        results = [auto_names.keep_name(args), auto_names.keep_component_name(args)]  # type: ignore[arg-type]
        (found,) = {tuple(result.opts.ignore_changes) if result else () for result in results}  # type: ignore[arg-type]
        return list(found)

    assert ignored("aws:iam/role:Role", {"name": None}) == ["policy", "name"]
    assert ignored("aws:iam/role:Role", {"name": "shopcat-release"}) == []
    assert ignored("aws:lb/targetGroup:TargetGroup", {}) == []


def test_known_resources_of_an_exported_state() -> None:
    assert known_resources({"deployment": {"resources": None}}) == frozenset()
    assert known_resources({"version": 3}) == frozenset()
    parent = "urn:pulumi:prod::shopcat::shopcat:network:Network::shopcat"
    one = {"type": "aws:ec2/vpc:Vpc", "urn": f"{parent.rpartition('::')[0]}$aws:ec2/vpc:Vpc::vpc", "parent": parent}
    assert known_resources({"deployment": {"resources": [one]}}) == {("aws:ec2/vpc:Vpc", "vpc", parent)}


def transformed(
    monkeypatch: pytest.MonkeyPatch, kind: str, props: dict[str, Any], known: frozenset[tuple[str, str, str]]
) -> pulumi.ResourceOptions | None:
    """Return the options that the transform gives a resource ``x`` without parent, with a finder that finds `found`."""
    monkeypatch.setattr(state_rebuild, "find_existing", lambda *_: "found" if props.get("name") != "absent" else None)

    async def resolved(self: Any) -> Any:
        return props

    monkeypatch.setattr(pulumi.Output, "from_input", lambda _: SimpleNamespace(future=lambda: resolved(None)))
    rebuild = state_rebuild.StateRebuild(None, lambda: None, "prod", known)  # type: ignore[arg-type, return-value]
    args = SimpleNamespace(
        custom=True, type_=kind, name="x", props=props, opts=pulumi.ResourceOptions(replacement_trigger="t")
    )
    result = run(rebuild.transform(args))  # type: ignore[arg-type]
    return result.opts if result else None


def test_what_is_found_is_imported_once_and_protected(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = "aws:iam/role:Role"
    options = transformed(monkeypatch, kind, {"name": "r"}, frozenset())
    assert options is not None
    assert (options.import_, options.protect, options.replacement_trigger) == ("found", True, None)
    options = transformed(monkeypatch, kind, {"name": "r"}, frozenset({(kind, "x", "")}))
    assert options is not None
    assert (options.import_, options.protect) == (None, True), "what the state knows is never imported over itself"
    assert transformed(monkeypatch, "kubernetes:apps/v1:Deployment", {}, frozenset()) is None


@pytest.mark.parametrize("kind", sorted({*MAY_BE_MADE, *WRITTEN_AGAIN, HELM_RELEASE}))
def test_what_aws_has_one_of_and_holds_nothing_is_made_where_it_is_not_found(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(state_rebuild, "find_helm_release", lambda *_: None)
    assert transformed(monkeypatch, kind, {"name": "absent"}, frozenset()) is None


@pytest.mark.parametrize(
    ("kind", "name"),
    [*((kind, "absent") for kind in sorted(FINDERS) if kind in MUST_BE_FOUND and kind != "aws:eks/nodeGroup:NodeGroup"),
     *((kind, "") for kind in sorted(LISTERS)), ("aws:sqs/queue:Queue", "")],
)  # fmt: skip
def test_what_can_not_be_found_is_not_made(monkeypatch: pytest.MonkeyPatch, kind: str, name: str) -> None:
    for each in LISTERS:
        monkeypatch.setitem(LISTERS, each, lambda *_: [])  # type: ignore[arg-type]
    warned: list[str] = []
    monkeypatch.setattr(pulumi.log, "warn", warned.append)
    monkeypatch.setattr(pulumi, "ResourceHook", lambda _, callback: callback)
    monkeypatch.setattr(
        pulumi, "ResourceHookBinding", lambda before_create: SimpleNamespace(before_create=before_create)
    )
    monkeypatch.setattr(
        pulumi.ResourceOptions, "merge", staticmethod(lambda opts, more: opts if more.protect else more)
    )
    options = transformed(monkeypatch, kind, {"name": name} if name else {}, frozenset())
    assert options is not None
    assert options.import_ is None
    (refuse,) = options.hooks.before_create  # type: ignore[union-attr, misc]
    with pytest.raises(PreflightError) as raised:
        refuse(None)  # type: ignore[arg-type]
    assert warned == [str(raised.value)]
    assert warned[0].startswith("shopcat:rebuildState: ")
    assert all(word in warned[0] for word in (kind, name, *MUST_BE_FOUND.get(kind, ())))


def test_a_state_that_can_not_be_asked_for_is_no_empty_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PreflightError, match="pulumi stack export --stack prod` can't be run"):
        state_rebuild.read_known_resources("prod")
    fake = tmp_path / "pulumi"
    fake.write_text("#!/bin/sh\necho no such stack >&2\nexit 255\n")
    fake.chmod(0o755)
    with pytest.raises(PreflightError, match="failed: no such stack"):
        state_rebuild.read_known_resources("prod")
    fake.write_text('#!/bin/sh\necho \'{"version": 3, "deployment": {}}\'\n')
    assert state_rebuild.read_known_resources("prod") == frozenset()


def test_the_stand_in_takes_an_imported_name_for_one_that_was_given(account: Account) -> None:
    """As upstream (pulumi/pulumi#9210): so the walk in tests/engine would fail without `keep_name`."""
    provider = configured()
    kind, urn = "aws:iam/role:Role", "urn:pulumi:prod::shopcat::aws:iam/role:Role::node"
    declared = {"assumeRolePolicy": POLICY}
    made = provider.check(kind, urn, {}, declared, b"seed")
    assert provider.check(kind, urn, made, declared, b"other")["name"] == made["name"]
    account.make(kind, name="node-0a1b2c3", **declared)
    read = provider.read(kind, "node-0a1b2c3", {}, {})
    assert read is not None
    _, imported, outputs = read
    again = provider.check(kind, urn, imported, declared, b"other")
    assert "name" in provider.difference(kind, "node-0a1b2c3", imported, outputs, again).replaces
    kept = provider.check(kind, urn, imported, {**declared, "name": imported["name"]}, b"other")
    assert provider.difference(kind, "node-0a1b2c3", imported, outputs, kept).replaces == []
