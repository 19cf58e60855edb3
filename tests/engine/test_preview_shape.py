"""A preview's Deployments and pods are exactly the program's own: every field of Kubernetes is tried, on a real API server.

Each change is asked for twice, as a dry run: in a namespace without rules, where the API server completes the object or finds it
wrong, and in a preview's. It must be let in where the completed object differs from the program's own in nothing but what a pull
request may choose (`may`), and nowhere else.
"""

import copy
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as how
from hypothesis import strategies as st

from infra import settings
from infra.names import PREVIEW_LABEL, PREVIEW_PRIORITY_CLASS
from infra.previews import admission_policies, isolation, manifests
from infra.previews.admission_facts import AdmissionFacts
from infra.program import PREVIEW_SETTINGS
from tests.engine.schema import Fields, Path
from tests.examples import examples
from twin import config
from twin.config import Twin
from twin.host import dns, pki, processes
from twin.kubernetes import control_plane
from twin.kubernetes.control_plane import ApiError

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the twin's control plane needs Linux"),
]

MODULES = (pki, dns, control_plane)
REGISTRY = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"
REPOSITORY = f"{REGISTRY}/shopcat-preview"
DIGEST = "sha256:" + "a" * 64
FACTS = AdmissionFacts(
    account="123456789012",
    region="eu-central-1",
    load_balancer_cidrs=["10.64.64.0/19"],
    secrets_role="arn:aws:iam::123456789012:role/shopcat-preview-secrets",
    tools={"shopcat": [f"r/curl@{DIGEST}"], "shopcat-database": [f"r/psql@{DIGEST}"]},
    database_image=f"docker.io/library/postgres:16-alpine@{DIGEST}",
    most_grace_seconds=140,
    repository=f"{REGISTRY}/shopcat",
    preview_repository=REPOSITORY,
)
OWN, PLAIN = "pr-1", "plain"
Object = dict[str, Any]


@pytest.fixture(scope="module")
def fields(cluster: Twin) -> Fields:
    """Of the API server's own description."""
    return Fields(cluster)


def take_down(twin: Twin) -> None:
    for module in reversed(MODULES):
        module.down(twin)
    shutil.rmtree(twin.directory, ignore_errors=True)
    config.release_index(twin)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Twin]:
    from tests.conftest import PREFIX

    name = f"{PREFIX}shape"
    take_down(config.load(name, simulated=True))
    twin = config.load(name, simulated=True)
    twin.directory.mkdir(parents=True)
    for module in MODULES:
        module.up(twin)
    prepare(twin)
    yield twin
    take_down(twin)


def prepare(twin: Twin) -> None:
    """The rules, a preview's namespace with what its pods need beside them, and one without rules."""

    def create(path: str, kind: str, name: str, **rest: Any) -> None:
        version = "v1" if path.startswith("/api/") else f"{path.split('/')[2]}/v1"
        control_plane.call(
            twin, "POST", path, {"apiVersion": version, "kind": kind, "metadata": {"name": name}, **rest}
        )

    for name, labels in ((OWN, {PREVIEW_LABEL: "true"}), (PLAIN, {})):
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
        control_plane.call(twin, "POST", "/api/v1/namespaces", body)
    create("/apis/scheduling.k8s.io/v1/priorityclasses", "PriorityClass", PREVIEW_PRIORITY_CLASS,
           value=isolation.PREVIEW_PRIORITY, preemptionPolicy="Never")  # fmt: skip
    networking = f"/apis/networking.k8s.io/v1/namespaces/{OWN}/networkpolicies"
    create(networking, "NetworkPolicy", isolation.DEFAULT_DENY, spec=isolation.default_deny())
    for namespace in (OWN, PLAIN):
        create(f"/api/v1/namespaces/{namespace}/serviceaccounts", "ServiceAccount", "x")
    create("/apis/node.k8s.io/v1/runtimeclasses", "RuntimeClass", "x", handler="x")
    create(
        f"/api/v1/namespaces/{OWN}/resourcequotas",
        "ResourceQuota",
        isolation.QUOTA_NAME,
        spec={"hard": isolation.quota()},
    )
    path = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolic"
    for one in admission_policies.admission_policies(FACTS):
        create(f"{path}ies", "ValidatingAdmissionPolicy", one.name, spec=one.spec())
        create(f"{path}ybindings", "ValidatingAdmissionPolicyBinding", one.name, spec=one.binding())
    for good in OBJECTS.values():
        processes.wait_until(lambda good=good: in_force(twin, good), "the rules are in force", timeout_seconds=60)  # type: ignore[misc]


def in_force(twin: Twin, good: Object) -> bool:
    """Say whether the API server has taken the rules up: it does a moment after they are made."""
    field, value = ("minReadySeconds", 77) if good["kind"] == "Deployment" else ("hostname", "x")
    try:
        ask(twin, OWN, setting(good, ("spec", field), value))
    except (DeniedError, WrongError) as error:
        return isinstance(error, DeniedError)
    return False


def deployments() -> dict[str, Object]:
    """The program's own."""
    _, found = settings.read_preview(PREVIEW_SETTINGS, {"shopcat:tag": "d" * 40, "shopcat:env": {"A": "b"}})
    record = manifests.record(found, f"{REPOSITORY}@{DIGEST}", "https://pr-1.preview.shop.example.com")
    specs = {
        "shopcat": manifests.application_deployment(record, PREVIEW_PRIORITY_CLASS),
        "database": manifests.database_deployment(found.images.database, PREVIEW_PRIORITY_CLASS),
    }
    return {
        name: {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}
        for name, spec in specs.items()
    }


def objects() -> dict[str, Object]:
    """Both Deployments, and the pods that are made of them."""
    found = {}
    for name, one in deployments().items():
        template = one["spec"]["template"]
        labels = {**template["metadata"]["labels"], "pod-template-hash": "abc"}
        metadata = {"name": f"{name}-abc-x", "labels": labels}
        found[f"Deployment {name}"] = one
        found[f"Pod {name}"] = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
    return found


OBJECTS = objects()


class DeniedError(Exception):
    """By a rule of ours."""


class WrongError(Exception):
    """By the API server itself, wherever it is asked for."""


def ask(twin: Twin, namespace: str, manifest: Object) -> Object:
    """The object as it would be, completed.

    Raises:
        DeniedError: a rule refuses it.
        WrongError: the API server does.
    """
    path = {
        "Deployment": f"/apis/apps/v1/namespaces/{namespace}/deployments",
        "Pod": f"/api/v1/namespaces/{namespace}/pods",
    }[manifest["kind"]]
    try:
        return control_plane.call(twin, "POST", f"{path}?dryRun=All", manifest)
    except ApiError as error:
        raise (DeniedError if "ValidatingAdmissionPolicy" in str(error) else WrongError)(str(error)) from error


def put(manifest: Object, path: Path, change: Callable[[Any, Any], None]) -> Object:
    """A copy with a change to the value that holds the path's last step."""
    found = copy.deepcopy(manifest)
    at: Any = found
    for step in path[:-1]:
        at = at[step]
    change(at, path[-1])
    return found


def setting(manifest: Object, path: Path, value: Any) -> Object:
    return put(manifest, path, lambda at, step: at.__setitem__(step, value))


def removing(manifest: Object, path: Path) -> Object:
    return put(manifest, path, lambda at, step: at.__delitem__(step))


def leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Each plain or empty value with its path."""
    items: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    if not items:
        yield path, value
    for step, one in items:
        yield from leaves(one, (*path, step))


def judged(found: Object) -> dict[Path, Any]:
    """What rules look at: a spec; of a pod, its labels too."""
    parts = {"spec": found["spec"]}
    if found["kind"] == "Pod":
        parts["labels"] = found["metadata"]["labels"]
    return dict(leaves(parts))


def may(good: Object, found: Object) -> bool:
    """Say whether a preview may have this, of completed objects: the test's own reading of what a pull request may choose."""
    before, after = judged(good), judged(found)
    name = good["metadata"]["name"].partition("-")[0]
    grace = 140
    free: dict[tuple[str, ...], Callable[[Any], bool]] = {
        ("progressDeadlineSeconds",): lambda it: name == "shopcat" and 1 <= it <= 3600,
        ("replicas",): lambda it: it in (0, 1),
        ("terminationGracePeriodSeconds",): lambda it: name == "shopcat" and 1 <= it <= grace,
        ("sleep", "seconds"): lambda it: 0 <= it <= grace,
        ("startupProbe", "failureThreshold"): lambda it: 1 <= it <= 3600,
        ("labels", "shopcat/release"): lambda it: name == "shopcat",
        ("labels", "pod-template-hash"): lambda it: good["kind"] == "Pod",
        ("tolerationSeconds",): lambda it: it <= 300,
    }

    def image(it: Any) -> bool:
        host, at, digest = str(it).partition("@")
        if not at or len(digest) != 71 or set(digest[7:]) - set("0123456789abcdef") or not digest.startswith("sha256:"):
            return False
        if name == "shopcat":
            return host == REPOSITORY
        repository, _, tag = host.partition(":")
        return repository == "docker.io/library/postgres" and (tag != "" or ":" not in host)

    for path in before.keys() | after.keys():
        if before.get(path) == after.get(path) and (path in before) == (path in after):
            continue
        if name == "shopcat" and "env" in path:
            continue  # judged as a whole below
        if path[-1] == "image" and path in after and image(after[path]):
            continue
        ends = [holds for end, holds in free.items() if path[-len(end) :] == end]
        if not ends or path not in before or path not in after or not ends[0](after[path]):
            return False
    return name != "shopcat" or environment_may(found)


def environment_may(found: Object) -> bool:
    spec = found["spec"]["template"]["spec"] if found["kind"] == "Deployment" else found["spec"]
    wanted = {
        (one["name"], json.dumps(one["valueFrom"], sort_keys=True))
        for one in OBJECTS["Pod shopcat"]["spec"]["containers"][0]["env"]
        if "valueFrom" in one
    }
    several = spec["containers"][0].get("env", [])
    references = {(one["name"], json.dumps(one["valueFrom"], sort_keys=True)) for one in several if "valueFrom" in one}
    length = sum(len(one["name"]) + len(one.get("value", "")) for one in several)
    return references <= wanted and length <= 16_384 and 0 < len(several) <= 128


def agree(twin: Twin, good: Object, changed: Object) -> str:
    """Ask for a change in both namespaces and compare: `allowed`, `denied`, `wrong` or `same`."""
    complete = ask(twin, PLAIN, good)
    try:
        plain = ask(twin, PLAIN, changed)
    except WrongError:
        with pytest.raises((WrongError, DeniedError)):
            ask(twin, OWN, changed)
        return "wrong"
    try:
        ask(twin, OWN, changed)
        answer = True
    except DeniedError:
        answer = False
    assert answer == may(complete, plain), f"{'allowed' if answer else 'denied'}: {json.dumps(changed)}"
    if judged(plain) == judged(complete):
        return "same"
    return "allowed" if answer else "denied"


@pytest.mark.parametrize("name", OBJECTS)
def test_the_programs_own_are_let_in(cluster: Twin, name: str) -> None:
    ask(cluster, OWN, OBJECTS[name])


_NEEDS = "takes a value only beside other fields, which are refused"
_FIXED = "takes no other value here, whoever asks"
NO_VALUE = {
    **dict.fromkeys(("creationTimestamp", "deletionTimestamp", "activeDeadlineSeconds", "ephemeralContainers"), _FIXED),
    **dict.fromkeys(("priority", "preemptionPolicy", "successThreshold", "terminationGracePeriodSeconds"), _FIXED),
    **dict.fromkeys(("claims", "volumeDevices", "recursiveReadOnly", "overhead", "localhostProfile"), _NEEDS),
    **dict.fromkeys(("restartPolicy", "restartPolicyRules", "stopSignal", "seLinuxChangePolicy"), _NEEDS),
    **dict.fromkeys(("fileKeyRef", "runtimeClassName", "resourceClaims", "restartPolicyRules"), _NEEDS),
    **dict.fromkeys(
        ("azureDisk", "fc", "flocker", "iscsi", "nfs", "quobyte", "scaleIO", "storageos"), "no values here"
    ),
}
"""Fields for which no value is found that the API server takes, and why; the sweep must find one for all others."""


@pytest.mark.parametrize("name", OBJECTS)
def test_every_field_that_the_program_does_not_use_is_refused(cluster: Twin, fields: Fields, name: str) -> None:
    good = OBJECTS[name]
    tried: dict[str, set[str]] = {}
    for path, schema, found in fields.nodes(good["kind"], good):
        if path[:1] != ("spec",):
            continue
        for field in schema["properties"].keys() - found.keys():
            where = ".".join("[]" if isinstance(step, int) else step for step in (*path, field))
            answers = tried.setdefault(where, set())
            # Beside what is there; and where that can't be, in place of one of the others: a volume is of one type.
            bases = [good, *(removing(good, (*path, other)) for other in found)]
            values = fields.values(schema["properties"][field], field)[:6]
            for base, value in ((base, value) for base in bases for value in values):
                answers.add(agree(cluster, good, setting(base, (*path, field), value)))
                if answers & {"denied"}:
                    break
    allowed = {where for where, answers in tried.items() if "allowed" in answers}
    # In place of what it reads of its Secret a variable may have a plain value.
    assert {where.rpartition("containers.")[2] for where in allowed} <= {"[].env.[].value"}, allowed
    untried = {where for where, answers in tried.items() if not answers & {"denied", "allowed"}}
    assert len(tried) > 100
    assert {where.rpartition(".")[2] for where in untried} <= set(NO_VALUE), sorted(untried)


@pytest.mark.parametrize("name", OBJECTS)
def test_every_value_that_is_removed_or_changed_is_refused_unless_it_is_free(cluster: Twin, name: str) -> None:
    good = OBJECTS[name]
    answers = []
    for path, value in [*leaves(good["spec"], ("spec",))]:
        answers.append(agree(cluster, good, removing(good, path)))
        for other in _others(value):
            answers.append(agree(cluster, good, setting(good, path, other)))
    assert answers.count("denied") > 40


def _others(value: Any) -> list[Any]:
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, 0, 31_536_000]
    if isinstance(value, str):
        return [f"{value}x", f"x{value}", "1Gi", value.upper()]
    return []


@how(max_examples=examples(150), deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_change_at_any_path_is_judged_as_the_oracle_says(
    cluster: Twin, fields: Fields, data: st.DataObject
) -> None:
    good = OBJECTS[data.draw(st.sampled_from(sorted(OBJECTS)))]
    changed = copy.deepcopy(good)
    for _ in range(data.draw(st.integers(1, 2))):
        nodes = [one for one in fields.nodes(good["kind"], changed) if one[0][:1] == ("spec",)]
        path, schema, found = data.draw(st.sampled_from(nodes))
        field = data.draw(st.sampled_from(sorted(schema["properties"])))
        values = [*fields.values(schema["properties"][field], field), *_others(found.get(field))]
        if values:
            changed = setting(changed, (*path, field), data.draw(st.sampled_from(values)))
    agree(cluster, good, changed)
