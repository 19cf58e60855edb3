"""More than ten thousand generated settings: each is a plan whose values AWS and Kubernetes take, or one clear message.

Whether a value is taken is decided here by others than infra/settings/limits.py: `ipaddress`, the models of AWS's APIs that
come with botocore, Kubernetes' own rules for names, and a retelling of its expansion of `$(NAME)`.
"""

from __future__ import annotations

import copy
import ipaddress
import json
import re
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.utils import is_valid_endpoint_url
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra import capacity
from infra import settings as program_settings
from infra.access import iam_policies
from infra.errors import ShopCatError
from infra.foundation import addons, network
from infra.previews import manifests
from infra.release.manifests import render_migration, render_pod_template, render_smoke
from infra.release.reads import template_of
from infra.release.record import Record
from infra.settings import domains, stack_file
from tests.examples import examples
from tests.unit.releases import SESSION, digest
from tests.unit.test_settings import COMMITTED, PREVIEWS, committed, existing

BASE = committed()
GENEROUS = {
    "deadline": None,
    "database": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
}
IMAGE = f"registry.example.com:5000/a/b_c:16-Alpine@{digest(1)}"

VALID: dict[str, list[Any]] = {
    "domain": ["shop.example.com", "xn--caf-dma.example", "a.bc", f"{'a' * 52}.example.com", "1.shop.example"],
    "previewDomain": [
        "shop-previews.example.net",
        "previews.example.com",
        "xn--caf-dma.test",
        f"{'a' * 50}.example.net",
    ],
    "previewDomainShared": [False, "false", True],
    "previewHostedZone": ["", "example.net", "example.net.", "shop-previews.example.net"],
    "domainAliases": [[], ["www.shop.example.com"]],
    "hostedZone": ["example.com", "example.com.", "shop.example.com", ""],
    "dns": ["route53", "external"],
    "apiAccess": ["public", "cidrs", "private"],
    "apiAccessCidrs": [["203.0.113.0/24"], ["0.0.0.0/0"], ["198.51.100.7/32", "203.0.113.0/24"], []],
    "adminCidrs": [[], ["203.0.113.0/24"], ["203.0.113.0/24", "10.0.0.0/8", "0.0.0.0/0"]],
    "awsEndpoint": ["http://localhost:4566", "https://aws.example.com/path", None],
    "ledgerTable": ["shopcat-releases", "a.b_c-D", "x" * 255, "abc"],
    "protection": [True, False, "true", "false"],
    "abort": ["", "v1.4.0", "v1.4.0-r2"],
    "rotate": ["", "v1.4.0-r1"],
    "rollback": ["", "v1.4.0->v1.3.0", "v1.4.0 -> v1.3.0-r1"],
    "tag": ["", "v1.0.0", "a" * 40, "1.2-3.x"],
    "vpc.cidr": ["10.64.0.0/16", "172.16.0.0/20", "192.168.0.0/17"],
    "vpc.zones": [["a", "b"], ["c", "f"]],
    "vpc.natGateways": [1, 2, "2"],
    "cluster.name": ["shopcat", "A_b-9", "x" * 100],
    "cluster.kubernetesVersion": ["1.35", "1.40"],
    "cluster.amiReleaseVersion": ["", "1.35.7-20260903"],
    "cluster.administrators": [[], ["arn:aws:iam::123456789012:role/admin", "arn:aws-cn:iam::123456789012:role/a/b"]],
    "cluster.existing": [
        None,
        existing()["existing"],
        existing(natAddresses=[])["existing"],
        existing(nodes={"instanceType": "m6i.large", "count": "3"})["existing"],
    ],
    "registry.repository": ["shopcat", "shop/shopcat", "a.b_c-d/e1"],
    "registry.kmsKey": ["", "arn:aws:kms:eu-central-1:123456789012:key/01234567-89ab-cdef-0123-456789abcdef"],
    "charts.loadBalancerController": ["3.5.0", "0.20.4"],
    "chartMirror.externalSecrets": ["https://charts.external-secrets.io", "http://127.0.0.1:8080/charts"],
    "chartDigests.externalSecrets": [digest(3)],
    "images.smoke": [IMAGE, f"curl@{digest(2)}"],
    "database.engineVersion": ["16", "16.4"],
    "database.instanceClass": ["db.t4g.micro", "db.t4g.medium"],
    "database.storageGibibytes": [20, 1000, "100"],
    "database.maxStorageGibibytes": [None, 0, 65_536],
    "database.storageType": ["gp2", "gp3", "io1"],
    "database.iops": [0, 3000, "12000"],
    "database.encrypted": [True, False, "true"],
    "database.kmsKeyArn": ["", "arn:aws:kms:eu-central-1:123456789012:key/01234567-89ab-cdef-0123-456789abcdef"],
    "database.identifier": ["shopcat", "shop-db"],
    "database.username": ["shopcat_admin", "shopcat"],
    "database.applicationRole": ["shopcat", "shopcat_app"],
    "database.port": [5432, 5433],
    "database.parameterGroup": ["", "default.postgres16"],
    "database.parameters": [{}, {"work_mem": "8192"}, {"max_locks_per_transaction": "128"}],
    "database.maintenanceWindow": ["", "sun:03:00-sun:03:30", "sun:23:45-mon:00:15"],
    "database.applyImmediately": [True, "false"],
    "database.subnetGroup": ["", "shop"],
    "database.securityGroupIds": [[], ["sg-0123456789abcdef0"]],
    "database.masterSecret": ["", "arn:aws:secretsmanager:eu-central-1:123456789012:secret:shopcat/master-AbCdEf"],
    "database.poolSize": [1, 5, 50],
    "drain.appDrain": [60, 31, 2.5, "90"],
    "drain.longestRequest": [30, 0, 1.5],
    "drain.propagation": [45, 0, 3600],
    "drain.requeue": [5, 1, 60],
    "drain.healthInterval": [5, 10, 300],
    "drain.healthThreshold": [2, 10, "3"],
    "drain.progressDeadline": [None, 130, 600],
    "drain.settle": [None, 120, 3600],
    "release.replicas": [1, 2, 3, "2"],
    "release.cpu": ["200m", "1m", "1"],
    "release.memory": ["384Mi", "1Gi", "6Mi"],
    "release.env": [{}, {"A": "b", "a.b-c_D": "$HOME ${x} $( $"}, {"TEXT": "é\n\t\U0001f600"}],
    "release.migrate": [[], ["python", "-m", "migrate"], ["sh", "-c", "echo $(date) ${PORT}"]],
    "release.migrateMemory": ["", "512Mi"],
    "release.migrateDeadline": [10, 300, 3600],
    "github.repository": ["", "owner/name", "a-b/.github"],
    "github.environment": ["production", "a b.c"],
    "monitoring": [
        None,
        {"email": "ops@example.com", "monthlyBudgetUsd": "300"},
        {"email": "ops@example.com", "logs": {"image": IMAGE, "retentionDays": 90}},
        {"webhook": "https://hooks.example.com/a?token=b", "slowestSeconds": 1.5},
    ],
}
"""Values that are good by themselves; not each goes with each."""

characters = st.characters() | st.sampled_from("\0\ud800\n\r\t\u2028$(){}[]:/.-_'\"%*&!#@` 0aZ\x7f\x85é")
text = st.text(characters, max_size=12)
few = st.text(characters, max_size=3)
numbers = st.integers(-2, 5000) | st.floats(-1, 5000)
names = text | st.sampled_from(["PORT", "DATABASE_HOST", "SHOPCAT_X", "A", "..", "_", "a=b", "$(A)"])
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from(
        [0, -1, 10**18, 10**400, "0", "-1", "1e18", "nan", "0x1F", "1_000", " 5 ", "٣", "on", "OFF", "12:30"]
    )
    | st.floats()
    | text
)
junk = st.recursive(
    scalars, lambda each: st.lists(each, max_size=3) | st.dictionaries(text, each, max_size=3), max_leaves=6
)
DEEP: Any = []
for _ in range(3000):
    DEEP = [DEEP]


counts = st.integers(1, 4)
contents = scalars | st.sampled_from(["$$", "$(A)", "$(PORT)", "a$(b)c", "$", "$(", "x" * 70_000])
paths = st.lists(st.sampled_from(sorted(VALID)), min_size=1, max_size=4, unique=True)
candidates = {path: st.sampled_from(values) for path, values in VALID.items()}


@st.composite
def nearly(draw: st.DrawFn, value: Any) -> Any:
    """A good value with one character changed, taken out or put in; a list or map with such an item."""
    if isinstance(value, str):
        at = draw(st.integers(0, len(value)))
        return value[:at] + draw(few) + value[at + draw(st.integers(0, 1)) :]
    if isinstance(value, list):
        more = [draw(nearly(value[0]) if value else scalars) for _ in range(draw(counts))]
        return [*value, *more]
    if isinstance(value, dict):
        return {**value, draw(names): draw(contents)}
    return draw(numbers)


def put(values: dict[str, Any], path: str, value: Any) -> None:
    section, _, name = path.rpartition(".")
    if section:
        found = values.setdefault(section, {})
        if isinstance(found, dict):
            found[name] = value
    else:
        values[path] = value


@st.composite
def generated(draw: st.DrawFn, kind: str) -> dict[str, Any]:
    """The committed settings, some of them changed: to what is good, nearly good, or anything."""
    values = copy.deepcopy(BASE)
    for path in draw(paths):
        value = copy.deepcopy(draw(candidates[path]))
        if kind == "nearly":
            value = draw(nearly(value))
        elif kind == "anything":
            value = draw(junk)
        put(values, path, value)
    if kind == "anything" and draw(st.booleans()):
        put(values, draw(text | st.sampled_from(["release.unknown", "vpc", "cluster.existing", "env"])), draw(junk))
    return values


def as_the_engine_hands_over(values: dict[str, Any]) -> dict[str, Any]:
    """Through JSON, as Pulumi does; only what JSON can carry."""
    try:
        texts = {
            key: value if isinstance(value, str) else "" if value is None else json.dumps(value)
            for key, value in values.items()
        }
    except (TypeError, ValueError):
        return values
    return {key: stack_file.plain(each) for key, each in texts.items()}


LINE = re.compile(r"  - (shopcat|aws):\S.*")


def clear(error: ShopCatError) -> None:
    """One message: it can be printed, it is not endless, and each line names a setting."""
    message = str(error)
    message.encode()
    first, *lines = message.split("\n")
    assert first == "settings can't be used:"
    assert lines
    for line in lines:
        assert LINE.fullmatch(line), line
        assert len(line) < 700, line


@cache
def aws_shape(service: str, operation: str, member: str) -> Any:
    return SESSION.client(service).meta.service_model.operation_model(operation).input_shape.members[member]


def aws_takes(value: str, service: str, operation: str, member: str) -> bool:
    """By the API's model: length and pattern."""
    rule = aws_shape(service, operation, member).metadata
    pattern = rule.get("pattern", ".*").rstrip("$")
    return rule.get("min", 0) <= len(value) <= rule.get("max", 10**9) and bool(re.fullmatch(pattern, value, re.DOTALL))


def expanded(value: str, variables: dict[str, str]) -> str:
    """`$(NAME)` and `$$` as Kubernetes replaces them (third_party/forked/golang/expansion/expand.go)."""
    out, at = "", 0
    while at < len(value):
        if value[at] == "$" and at + 1 < len(value):
            after = value[at + 1]
            if after == "$":
                out, at = out + "$", at + 2
                continue
            if after == "(" and (end := value.find(")", at + 2)) >= 0:
                name = value[at + 2 : end]
                out, at = out + variables.get(name, f"$({name})"), end + 1
                continue
        out, at = out + value[at], at + 1
    return out


def is_env_name(name: str) -> bool:
    """k8s.io/apimachinery/pkg/util/validation, IsEnvVarName."""
    return bool(re.fullmatch(r"[-._a-zA-Z][-._a-zA-Z0-9]*", name)) and name != "." and not name.startswith("..")


def check_pods(record: Record, env: dict[str, str]) -> None:
    """A person's settings arrive in every pod, once and unchanged, and so does the record through the ledger."""
    assert Record.from_json(record.to_json()) == record
    for pod in (render_pod_template(record, "blue"), render_migration(record, "green")):
        variables = pod["spec"]["containers"][0]["env"]
        names = [each["name"] for each in variables]
        assert len(set(names)) == len(names)
        assert all(is_env_name(name) for name in names)
        plain = {each["name"]: each["value"] for each in variables if "value" in each}
        assert {name: plain[name] for name in env} == env
        known = dict.fromkeys(names, "changed")
        assert all(expanded(value, known) == value for value in plain.values())
        command = pod["spec"]["containers"][0].get("command", [])
        assert [expanded(word, known) for word in command] == command
        json.dumps(pod).encode()
    render_smoke(record, "blue")


def check(found: program_settings.Settings) -> None:
    """A plan is made of the settings, and nothing in it is what AWS or Kubernetes refuses by its documentation."""
    view: Any = SimpleNamespace(dns_name="lb.example.com")
    template = template_of(found, view, f"shopcat@{digest(1)}", "1")
    check_pods(Record(found.tag or "v1.0.0", 1, template), dict(found.release.env))
    assert all(type(each) is int for each in vars(found.drain.budget).values())
    capacity.plan(found.production)
    text_of_values = json.dumps(
        [addons.controller_values(found, "vpc-1", "eu-central-1"), addons.external_secrets_values(found)]
    )
    assert '"0s"' not in text_of_values
    cidrs = [each for group in network.subnets(found.vpc.cidr) for each in group]
    assert all(ipaddress.IPv4Network(found.vpc.cidr).supernet_of(ipaddress.IPv4Network(each)) for each in cidrs)

    own = len(found.cluster.existing.nat_addresses) if found.cluster.existing else found.vpc.nat_gateways
    assert 1 <= own + len(found.admin_cidrs) <= 4, "five values of a rule, one of which is the colour"
    for each in (*found.admin_cidrs, *found.api_access_cidrs):
        assert str(ipaddress.IPv4Network(each)) == each
    for certificate in (found.domain, f"*.{found.preview_domain}"):
        assert len(certificate) <= 64
        assert aws_takes(certificate, "acm", "RequestCertificate", "DomainName")
    assert found.hosts == (found.domain, *found.domain_aliases)
    assert found.preview_domain_shared is any(domains.is_shared(host, found.preview_domain) for host in found.hosts)
    with pytest.raises(ValueError, match="not appear"):
        ipaddress.ip_address(found.domain)
    assert found.domain not in found.domain_aliases
    names = [(name, found.zone) for name in (found.domain, *found.domain_aliases)]
    assert all(aws_takes(name, "route53", "ListResourceRecordSets", "StartRecordName") for name, _ in names)
    for domain, zone in (*names, (found.preview_domain, found.preview_zone)):
        assert found.dns == "external" or f".{domain}".endswith(f".{zone.rstrip('.')}")
    assert aws_takes(found.cluster.name, "eks", "CreateCluster", "name")
    assert aws_takes(found.ledger_table, "dynamodb", "CreateTable", "TableName")
    budget = found.drain.budget
    assert 5 <= budget.health_interval_seconds <= 300
    assert 2 <= budget.health_threshold <= 10
    assert 1 <= budget.idle_timeout_seconds <= 4000
    assert 0 <= budget.deregistration_delay_seconds <= 3600
    assert budget.grace_seconds + budget.progress_deadline_seconds < 2**31
    assert all(type(each) is bool for each in (found.protection, found.database.multi_zone, found.release.contracts))
    for url in (found.aws_endpoint, *vars(found.chart_mirror).values()):
        assert url is None or (is_valid_endpoint_url(url) and " " not in url)
    if found.github.repository:
        for trusted in iam_policies.trust("1" * 12, found.github.repository, found.github.environment).values():
            assert len(trusted) <= 2048, "IAM's quota of a role's trust policy"


def attempt(values: dict[str, Any]) -> bool:
    try:
        found = program_settings.read_settings(values)
    except ShopCatError as error:
        clear(error)
        return False
    check(found)
    return True


@pytest.mark.parametrize("path", sorted(VALID))
def test_good_values_are_taken(path: str) -> None:
    """Each by itself, so that the generated settings below are not all refused."""
    together: dict[str, dict[str, Any]] = {
        "apiAccessCidrs": {"apiAccess": "cidrs"},
        "hostedZone": {"domain": "shop.example.com"},
        "previewDomainShared": {"previewDomain": "previews.example.com"},
        "release.migrateMemory": {"release.migrate": ["m"]},
        "release.cpu": {"release.replicas": 1},
    }
    taken = []
    for value in VALID[path]:
        values = copy.deepcopy(BASE)
        for other, needed in together.get(path, {}).items():
            put(values, other, needed)
        put(values, path, copy.deepcopy(value))
        taken.append(attempt(values))
    assert any(taken)


@settings(max_examples=examples(2500), **GENEROUS)
@given(generated("good"))
def test_good_settings_together_are_a_plan_or_one_message(values: dict[str, Any]) -> None:
    attempt(as_the_engine_hands_over(values))


@settings(max_examples=examples(3500), **GENEROUS)
@given(generated("nearly"))
def test_nearly_good_settings_are_a_plan_or_one_message(values: dict[str, Any]) -> None:
    attempt(values)


@settings(max_examples=examples(2500), **GENEROUS)
@given(generated("anything"), st.sampled_from([as_the_engine_hands_over, dict]))
def test_anything_as_a_setting_is_a_plan_or_one_message(values: dict[str, Any], hand_over: Any) -> None:
    attempt(hand_over(values))


@pytest.mark.parametrize("path", [*sorted(VALID), "nothing", "vpc", "cluster", "release"])
def test_a_very_deep_value_is_one_message(path: str) -> None:
    values = copy.deepcopy(BASE)
    put(values, path, DEEP)
    assert not attempt(values)


preview_values = st.fixed_dictionaries(
    {"shopcat:tag": st.sampled_from(["abc", "v1.-2", "latest", ""]) | text},
    optional={
        "shopcat:env": st.sampled_from(VALID["release.env"]).flatmap(nearly) | junk,
        "shopcat:databasePoolSize": st.sampled_from([5, "5", 20]) | junk,
        "shopcat:drain": st.dictionaries(st.sampled_from(["requeue", "appDrain", "x"]), junk, max_size=2),
        "shopcat:awsEndpoint": text,
        "aws:region": st.sampled_from(["eu-central-1", "us-gov-west-1", ""]) | text,
    },
)


@settings(max_examples=examples(1500), **GENEROUS)
@given(preview_values)
def test_settings_of_a_preview_are_a_plan_or_one_message(values: dict[str, Any]) -> None:
    try:
        _, found = program_settings.read_preview(PREVIEWS, values)
    except ShopCatError as error:
        clear(error)
        return
    record = manifests.record(found, f"shopcat-preview@{digest(1)}", "https://pr-12.preview.shop.example.com")
    check_pods(record, dict(found.env))
    pod = manifests.application_pod(record, "previews")
    assert {each["name"] for each in pod["spec"]["containers"][0]["env"]} >= set(found.env)


# Files ----------------------------------------------------------------------------------------------------------------

plain = st.sampled_from(
    [
        "on",
        "OFF",
        "12:30",
        "0777",
        "0o17",
        "1_000",
        "1e3",
        "1.10",
        "2026-01-02",
        ".inf",
        "~",
        "true",
        "5",
        "<<",
        "a b",
        "",
    ]
) | st.text(st.characters(codec="utf-8"), max_size=8)
lines = st.builds(
    "{}{}: {}".format,
    st.sampled_from(["", "  ", "    ", "\t", "  - ", "? "]),
    st.sampled_from(
        ["config", "aws:region", "shopcat:domain", "shopcat:vpc", "OFF", "1", "<<", "domain", "secretsprovider"]
    )
    | plain,
    plain
    | st.sampled_from(
        ["", "[]", "{}", "[a, b]", "{a: 1}", "*x", "&x 1", "!!str 1", "|", ">-", '"\\x07"', "'", "{secure: x}"]
    ),
)


def parsed(content: bytes) -> dict[str, Any] | None:
    """The file; or nothing, if it is refused in one message that names it."""
    try:
        return stack_file.parse(content, "Pulumi.prod.yaml")
    except ShopCatError as error:
        message = str(error)
    message.encode()
    assert message.startswith("Pulumi.prod.yaml: ")
    return None


def ours(document: dict[str, Any]) -> dict[str, Any]:
    values = stack_file.handed_over(document["config"])
    return {key.partition(":")[2]: value for key, value in values.items() if key.startswith("shopcat:")}


files = st.lists(lines, max_size=8).map(lambda each: ("config:\n" + "\n".join(each)).encode()) | st.binary(max_size=60)


@settings(max_examples=examples(1000), **GENEROUS)
@given(files)
def test_a_file_is_read_or_refused_in_one_message(content: bytes) -> None:
    document = parsed(content)
    if document is not None:
        assert parsed(stack_file.dump(document).encode()) == document
        assert not attempt(ours(document)), "no such file is whole"


@settings(max_examples=examples(150), **GENEROUS)
@given(generated("good"))
def test_settings_come_out_of_a_file_as_they_were_put_in(values: dict[str, Any]) -> None:
    whole = {"config": {f"shopcat:{key}": value for key, value in values.items()}}
    assert stack_file.parse(stack_file.dump(whole).encode(), "copy") == whole


@settings(max_examples=examples(100), **GENEROUS)
@given(st.data())
def test_a_committed_file_that_was_damaged_is_read_or_refused(data: st.DataObject) -> None:
    content = bytearray(COMMITTED.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    document = parsed(bytes(content))
    if document is not None:
        attempt(ours(document))
