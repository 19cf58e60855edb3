"""What lets a preview's state be destroyed with the clean-up role, and what doesn't."""

import json
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.errors import Refused
from infra.kubernetes_client import kubeconfig
from pipeline import inspection
from pipeline.inspection import Expected

ACCOUNT, REGION = "123456789012", "eu-central-1"
ELB = f"arn:aws:elasticloadbalancing:{REGION}:{ACCOUNT}"
SECRETS = f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret"
CONTRACT = {
    "cluster": "shopcat",
    "clusterEndpoint": "https://api.example",
    "clusterAuthority": "Q0E=",
    "region": REGION,
    "previewDomain": "shop-previews.example",
    "placesTable": "shopcat-previews",
    "previewListenerArn": f"{ELB}:listener/app/shopcat-preview/1a/2b",
}
EXPECTED = Expected(12, ACCOUNT, CONTRACT, None)
HOST = "pr-12.shop-previews.example"
RULE = f"{ELB}:listener-rule/app/shopcat-preview/1a/2b/3c"
URN = "urn:pulumi:pr-12::shopcat::"
AWS, KUBERNETES = f"{URN}pulumi:providers:aws::aws::0c63", f"{URN}pulumi:providers:kubernetes::kubernetes::d8f2"
INSIDE = {
    "apps/v1:Deployment": "apps/v1",
    "core/v1:LimitRange": "v1",
    "core/v1:ResourceQuota": "v1",
    "core/v1:Service": "v1",
    "elbv2.k8s.aws/v1beta1:TargetGroupBinding": "elbv2.k8s.aws/v1beta1",
    "external-secrets.io/v1:ExternalSecret": "external-secrets.io/v1",
    "external-secrets.io/v1:SecretStore": "external-secrets.io/v1",
    "networking.k8s.io/v1:NetworkPolicy": "networking.k8s.io/v1",
    "rbac.authorization.k8s.io/v1:RoleBinding": "rbac.authorization.k8s.io/v1",
}
Resource = dict[str, Any]
Change = Callable[[dict[str, Resource]], Any]


def provider(kind: str, identifier: str, **inputs: Any) -> Resource:
    inputs |= {"__internal": {}, "version": version(f"pulumi-{kind}")}
    urn = f"{URN}pulumi:providers:{kind}::{kind}"
    return {"urn": urn, "type": f"pulumi:providers:{kind}", "custom": True, "id": identifier, "inputs": inputs}


def custom(kind: str, name: str, identifier: str, inputs: Resource) -> Resource:
    return {
        "urn": f"{URN}shopcat:index:Preview${kind}::{name}",
        "type": kind,
        "custom": True,
        "id": identifier,
        "inputs": inputs,
        "outputs": {**inputs, **({"arn": identifier} if identifier.startswith("arn:") else {})},
        "provider": AWS if kind.startswith("aws:") else KUBERNETES,
        "parent": f"{URN}shopcat:index:Preview::shopcat",
        "dependencies": [],
        "created": "2026-11-26T04:22:04Z",
    }


def inside(kind: str, api_version: str) -> Resource:
    metadata = {"name": "shopcat", "namespace": "pr-12"}
    inputs = {"apiVersion": api_version, "kind": kind.rpartition(":")[2], "metadata": metadata, "spec": {}}
    made = custom(f"kubernetes:{kind}", kind, "pr-12/shopcat", inputs)
    made["outputs"] = {**inputs, "__initialApiVersion": api_version, "__fieldManager": "shopcat", "status": {}}
    return {**made, "deletedWith": f"{URN}shopcat:index:Preview$kubernetes:core/v1:Namespace::namespace"}


def genuine() -> dict[str, Resource]:
    """Every resource of a preview, by a short name, as the engine exports them; tests/engine/test_preview.py has real ones."""
    plain = {"custom": False, "outputs": {"url": f"https://{HOST}"}}
    space = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": "pr-12", "labels": {"shopcat/preview": "true"}},
    }
    place = {"place": {"S": "3"}, "since": {"S": "2026-11-26T04:21:51+00:00"}, "stack": {"S": "pr-12"}}
    flags = ("enableConfigMapMutable", "enableSecretMutable", "enableServerSideApply", "upsertExistingObjects")
    return {
        "stack": {"urn": f"{URN}pulumi:pulumi:Stack::shopcat-pr-12", "type": "pulumi:pulumi:Stack", **plain},
        "kubernetes": provider("kubernetes", "d8f2", **dict.fromkeys(flags, "true"), kubeconfig=EXPECTED.kubeconfig()),
        "aws": provider(
            "aws",
            "0c63",
            region=REGION,
            endpoints="[{}]",
            defaultTags='{"tags": {"shopcat:stack": "pr-12"}}',
            skipCredentialsValidation="false",
            skipRegionValidation="true",
        ),
        "component": {"urn": f"{URN}shopcat:index:Preview::shopcat", "type": "shopcat:index:Preview", **plain},
        "place": custom(
            "aws:dynamodb/tableItem:TableItem",
            "place",
            "shopcat-previews|place||3|",
            {"tableName": "shopcat-previews", "hashKey": "place", "item": json.dumps(place)},
        ),
        "secret": custom(
            "aws:secretsmanager/secret:Secret",
            "database",
            f"{SECRETS}:shopcat-preview/pr-12/database-pRkZjl",
            {"name": "shopcat-preview/pr-12/database", "recoveryWindowInDays": 0},
        ),
        "group": custom(
            "aws:lb/targetGroup:TargetGroup", "group", f"{ELB}:targetgroup/shopcat-pr-12/32ab", {"port": 8080}
        ),
        "rule": custom("aws:lb/listenerRule:ListenerRule", "host", RULE, {"priority": 103}),
        "namespace": custom("kubernetes:core/v1:Namespace", "namespace", "pr-12", space),
        **{kind: inside(kind, api_version) for kind, api_version in INSIDE.items()},
    }


def check(resources: list[Any], hosts: list[str] | None = None) -> None:
    inspection.check({"version": 3, "deployment": {"resources": resources}}, EXPECTED, lambda _: hosts or [HOST])


def test_a_preview_is_let_pass_whole_and_in_any_part() -> None:
    resources = list(genuine().values())
    for length in range(len(resources) + 1):
        check(resources[:length])
    inspection.check({"version": 3, "deployment": {}}, EXPECTED, lambda _: None)


def test_every_type_that_is_let_pass_is_one_of_a_previews() -> None:
    assert {one["type"] for one in genuine().values()} == inspection.TYPES


def test_the_kubeconfig_is_the_programs_own_to_the_letter() -> None:
    assert EXPECTED.kubeconfig() == kubeconfig("shopcat", "https://api.example", "Q0E=", REGION)


def test_what_is_half_made_or_half_deleted_is_let_pass() -> None:
    made = genuine()
    made["Service"] = {**made["core/v1:Service"], "outputs": {}, "initErrors": ["not ready"]}
    made["group"] |= {"delete": True, "pendingReplacement": True}
    made["core/v1:ResourceQuota"]["resourceHooks"] = {"BeforeCreate": ["preview-access"]}
    check(list(made.values()))


def test_a_rule_that_is_gone_is_let_pass() -> None:
    inspection.check({"deployment": {"resources": [genuine()["rule"]]}}, EXPECTED, lambda _: None)


def secret(value: Any) -> dict[str, str]:
    return {inspection._SIGNATURE: inspection._SECRET, "plaintext": json.dumps(value)}


def test_what_the_engine_marks_as_secret_is_looked_into() -> None:
    made = genuine()
    inputs = made["kubernetes"]["inputs"]
    inputs["kubeconfig"] = secret(inputs["kubeconfig"])
    check(list(made.values()))
    inputs["kubeconfig"] = secret("{}")
    with pytest.raises(Refused, match="another kubeconfig"):
        check(list(made.values()))
    inputs["kubeconfig"] = {**secret(""), "plaintext": "no JSON"}
    with pytest.raises(Refused, match="another kubeconfig"):
        check(list(made.values()))


def test_on_the_twin_aws_is_where_the_job_finds_it() -> None:
    made = genuine()["aws"]
    made["inputs"]["endpoints"] = '[{"s3": "http://10.0.0.1:5000", "elbv2": "http://10.0.0.1:5000"}]'
    twin = Expected(12, ACCOUNT, CONTRACT, "http://10.0.0.1:5000")
    inspection.check({"deployment": {"resources": [made]}}, twin, lambda _: None)
    with pytest.raises(Refused, match="other endpoints"):
        check([made])


def evil_kubeconfig() -> str:
    made = json.loads(EXPECTED.kubeconfig())
    made["users"][0]["user"]["exec"]["command"] = "sh"
    return json.dumps(made)


def item(stack: str) -> str:
    return json.dumps({"place": {"S": "4"}, "stack": {"S": stack}})


def typed(kind: str) -> Change:
    return lambda made: made["group"].update(type=kind, urn=f"{URN}{kind}::group")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (typed("command:local:Command"), "no part of a preview"),
        (typed("pulumi-python:dynamic:Resource"), "no part of a preview"),
        (typed("pulumi:providers:command"), "no part of a preview"),
        (typed("pulumi:providers:pulumi-python"), "no part of a preview"),
        (typed("aws:iam/role:Role"), "no part of a preview"),
        (typed("kubernetes:core/v1:Secret"), "no part of a preview"),
        (lambda made: made["group"].update(type=["aws"]), "no part of a preview"),
        (lambda made: made["kubernetes"]["inputs"].update(kubeconfig=evil_kubeconfig()), "another kubeconfig"),
        (lambda made: made["kubernetes"]["inputs"].pop("kubeconfig"), "another kubeconfig"),
        (lambda made: made["kubernetes"]["inputs"].update(deleteUnreachable="true"), "another deleteUnreachable"),
        (lambda made: made["kubernetes"]["inputs"].update(version="9.9.9"), "another version"),
        (lambda made: made["aws"]["inputs"].update(pluginDownloadURL="https://evil"), "another pluginDownloadURL"),
        (lambda made: made["aws"]["inputs"]["__internal"].update(pluginDownloadURL="https://evil"), "__internal"),
        (lambda made: made["aws"]["inputs"].update(region="us-east-1"), "another region"),
        (lambda made: made["aws"]["inputs"].update(profile="other"), "another profile"),
        (lambda made: made["aws"]["inputs"].update(endpoints='[{"sts": "https://evil"}]'), "other endpoints"),
        (lambda made: made["aws"]["inputs"].update(endpoints="["), "other endpoints"),
        (lambda made: made["aws"]["inputs"].update(endpoints=[{}]), "other endpoints"),
        (lambda made: made["group"].update(provider=KUBERNETES), "another provider"),
        (lambda made: made["namespace"].update(provider=AWS), "another provider"),
        (lambda made: made["group"].pop("provider"), "another provider"),
        (lambda made: made["group"].update(urn=f"{URN}aws:lb/listener:Listener::group"), "URN"),
        (lambda made: made["aws"].update(urn=f"{URN}pulumi:providers:command::aws"), "URN"),
        (lambda made: made["group"].update(urn=made["group"]["urn"].replace("pr-12", "pr-11")), "URN"),
        (lambda made: made["component"].update(custom=True), "made by another provider"),
        (lambda made: made["secret"].update(custom=False), "made by another provider"),
        (lambda made: made["group"].update(resourceHooks={"BeforeDelete": ["x"]}), "hooks"),
        (lambda made: made["group"].update(retainOnDelete=True), "retainOnDelete"),
        (lambda made: made["group"].update(external=True), "external"),
        (lambda made: made["group"].update(viewOf="x"), "viewOf"),
        (lambda made: made["namespace"].update(id="pr-11"), "not in namespace pr-12"),
        (lambda made: made["namespace"].update(id="shopcat"), "not in namespace pr-12"),
        (lambda made: made["namespace"].update(id="pr-12/pr-12"), "not in namespace pr-12"),
        (lambda made: made["namespace"]["inputs"]["metadata"].update(name="pr-11"), "another object"),
        (lambda made: made["namespace"].update(outputs={"metadata": {"name": "pr-11"}}), "another object"),
        (lambda made: made["namespace"]["outputs"].update(__inputs={"kind": "Namespace"}), "another object"),
        (lambda made: made["namespace"]["inputs"].update(kind="ClusterRole"), "another object"),
        (lambda made: made["namespace"].update(inputs={}), "no inputs"),
        (lambda made: made["core/v1:Service"].update(id="shopcat/shopcat"), "not in namespace pr-12"),
        (lambda made: made["core/v1:Service"].update(id="pr-12"), "not in namespace pr-12"),
        (lambda made: made["core/v1:Service"]["inputs"].update(metadata={"name": "shopcat"}), "another object"),
        (lambda made: made["core/v1:Service"]["outputs"].update(__initialApiVersion="v2"), "another object"),
        (lambda made: made["apps/v1:Deployment"]["inputs"].update(apiVersion="v1", kind="Namespace"), "another object"),
        (
            lambda made: made["secret"].update(id=f"{SECRETS}:shopcat-preview/pr-11/database-pRkZjl", outputs={}),
            "the id",
        ),
        (lambda made: made["secret"].update(id=f"{SECRETS}:shopcat-preview/pr-123/x-pRkZjl", outputs={}), "the id"),
        (lambda made: made["secret"].update(id=f"{SECRETS}:shopcat/application-pRkZjl", outputs={}), "the id"),
        (lambda made: made["secret"].update(id="shopcat/application", outputs={}), "the id"),
        (lambda made: made["secret"]["outputs"].update(arn=f"{SECRETS}:shopcat/application-pRkZjl"), "another id"),
        (lambda made: made["secret"]["inputs"].update(region="us-east-1"), "another region"),
        (lambda made: made["group"].update(id=f"{ELB}:targetgroup/shopcat-pr-11/32ab", outputs={}), "the id"),
        (lambda made: made["group"].update(id=f"{ELB}:targetgroup/shopcat-green/32ab", outputs={}), "the id"),
        (lambda made: made["rule"].update(id=RULE.replace("-preview/", "/"), outputs={}), "the id"),
        (lambda made: made["place"]["outputs"].update(item=item("pr-11")), "not the place"),
        (lambda made: made["place"]["inputs"].update(item="[]"), "not the place"),
        (lambda made: made["place"]["inputs"].update(tableName="shopcat-releases"), "not the place"),
        (lambda made: made["place"]["inputs"].update(rangeKey="x"), "not the place"),
        (lambda made: made["place"].update(id="shopcat-releases|place||3|"), "not the place"),
    ],
)
def test_whatever_else_is_in_it_is_refused_by_name(change: Change, words: str) -> None:
    made = genuine()
    change(made)
    with pytest.raises(Refused, match=words) as refused:
        check(list(made.values()))
    assert "stack pr-12 is not destroyed" in str(refused.value)
    assert "stack rm --force pr-12" in str(refused.value)


@pytest.mark.parametrize(
    "hosts", [["pr-11.shop-previews.example"], [HOST, "shop.example"], ["*.shop-previews.example"]]
)
def test_a_rule_of_other_hosts_is_refused(hosts: list[str]) -> None:
    with pytest.raises(Refused, match=f"not for {HOST}"):
        check(list(genuine().values()), hosts)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.sampled_from(["pr-12", "pr-11", RULE, AWS]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=6,
)
OWN = {
    "urn": URN,
    "provider": f"{URN}pulumi:providers:",
    "secret": f"{SECRETS}:shopcat-preview/pr-12/",
    "group": f"{ELB}:targetgroup/shopcat-pr-12/",
    "rule": f"{ELB}:listener-rule/app/shopcat-preview/1a/2b/",
    "place": "shopcat-previews|",
}
"""How what may end in any way begins: names below the preview's own."""


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_no_other_value_passes_but_the_rest_of_an_own_name(data: st.DataObject) -> None:
    made = genuine()
    name = data.draw(st.sampled_from([one for one, resource in made.items() if "id" in resource]))
    key = data.draw(st.sampled_from(["type", "custom", "id", "urn", "provider", "inputs"]))
    before = str(made[name].get(key))
    value = data.draw(JSON | st.text(max_size=5).map(before.__add__) | st.integers(0, 90).map(lambda end: before[:end]))
    if key == "inputs" and name in {"secret", "group", "rule"}:
        return  # deleted by their id alone
    if (key, name) in {("id", "aws"), ("id", "kubernetes"), ("provider", "aws"), ("provider", "kubernetes")}:
        return  # a provider is its inputs
    made[name][key] = value
    try:
        check(list(made.values()))
    except Refused:
        return
    own = OWN.get(name if key == "id" else key)
    assert str(value) == before or (own is not None and str(value).startswith(own))


@settings(max_examples=200, deadline=None)
@given(garbage=JSON, resources=st.lists(JSON, max_size=3))
def test_what_is_no_state_is_refused_and_nothing_worse(garbage: Any, resources: list[Any]) -> None:
    for deployment in (garbage, {"resources": garbage}, {"resources": resources}):
        try:
            readable = inspection.portable({"deployment": deployment}, "awskms://alias/ours")
            inspection.check(readable, EXPECTED, lambda _: None)
        except Refused:
            continue
        assert not readable["deployment"]["resources"]


def test_what_is_nested_without_end_is_refused() -> None:
    made = genuine()
    deep: Any = {}
    for _ in range(900):
        deep = {"x": deep}
    made["group"]["inputs"]["x"] = deep
    with pytest.raises(Refused, match="too deep"):
        check(list(made.values()))


@pytest.mark.parametrize(
    ("ours", "kept"),
    [
        ("awskms://alias/ours", {"type": "cloud", "state": {"url": "awskms://alias/ours", "encryptedkey": "k"}}),
        ("passphrase", {"type": "passphrase", "state": {"salt": "v1:s"}}),
    ],
)
def test_the_copy_is_read_with_our_key_and_our_plugins(ours: str, kept: dict[str, Any]) -> None:
    made = genuine()
    made["aws"]["inputs"]["version"] = "1.2.3"
    given = {"url": "hashivault://evil", "encryptedkey": "k", "salt": "v1:s"}
    exported = {
        "version": 4,
        "features": ["hooks"],
        "deployment": {
            "manifest": {"time": "t", "magic": "m", "version": "v", "plugins": [{"name": "evil"}]},
            "secrets_providers": {"type": "cloud", "state": given},
            "resources": list(made.values()),
            "pending_operations": [{"resource": made["group"], "type": "creating"}],
        },
    }
    found = inspection.portable(exported, ours)
    assert found["deployment"]["secrets_providers"] == kept
    assert found["deployment"]["manifest"] == {"time": "t", "magic": "m", "version": "v"}
    assert {*found["deployment"]} == {"manifest", "secrets_providers", "resources"}
    assert (found["version"], found["features"]) == (4, ["hooks"])
    inspection.check(found, EXPECTED, lambda _: [HOST])
