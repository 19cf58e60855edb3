"""Decisions of the stand-in of the pulumi-kubernetes plugin: differences, names, readiness, ownership, kubeconfigs."""

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from twin.plugins.common import UNKNOWN, Difference, ProviderError, Secret
from twin.plugins.kubernetes import changes, helm, jsonpath, kubeconfig, objects, ownership, readiness, waiting
from twin.plugins.kubernetes.provider import KubernetesProvider

DEPLOYMENT: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "app", "namespace": "shop"},
    "spec": {
        "replicas": 2,
        "selector": {"matchLabels": {"app": "x"}},
        "template": {"spec": {"containers": [{"name": "a", "image": "i:1"}]}},
    },
}


def manifest(api_version: str, kind: str, **more: Any) -> dict[str, Any]:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": "x", "namespace": "shop"}, **more}


def between(old: Mapping[str, Any], new: Mapping[str, Any], *, mutable: bool = True) -> Difference:
    return changes.between(old, old, new, namespaced=True, config_maps_change=mutable, secrets_change=mutable)


# --- differences


@pytest.mark.parametrize(
    ("old", "new", "changed", "replaced"),
    [
        pytest.param(
            DEPLOYMENT,
            {**DEPLOYMENT, "spec": {**DEPLOYMENT["spec"], "replicas": 3}},
            ["spec.replicas"],
            [],
            id="replicas",
        ),
        pytest.param(
            DEPLOYMENT,
            {**DEPLOYMENT, "spec": {**DEPLOYMENT["spec"], "selector": {"matchLabels": {"app": "y"}}}},
            ["spec.selector.matchLabels.app"],
            ["spec.selector.matchLabels.app"],
            id="a Deployment's selector is immutable",
        ),
        pytest.param(
            manifest("batch/v1", "Job", spec={"template": {"spec": {"containers": [{"image": "i:1"}]}}}),
            manifest("batch/v1", "Job", spec={"template": {"spec": {"containers": [{"image": "i:2"}]}}}),
            ["spec.template.spec.containers[0].image"],
            ["spec.template.spec.containers[0].image"],
            id="a Job's template is immutable",
        ),
        pytest.param(
            manifest("v1", "Service", spec={"type": "ClusterIP"}),
            {**manifest("v1", "Service", spec={"type": "ClusterIP"}), "metadata": {"name": "y", "namespace": "shop"}},
            ["metadata.name"],
            ["metadata.name"],
            id="a name is immutable",
        ),
        pytest.param(
            manifest("rbac.authorization.k8s.io/v1", "RoleBinding", roleRef={"name": "a"}),
            manifest("rbac.authorization.k8s.io/v1", "RoleBinding", roleRef={"name": "b"}),
            ["roleRef.name"],
            ["roleRef.name"],
            id="a binding's role is immutable",
        ),
    ],
)
def test_which_changes_need_a_new_object(
    old: dict[str, Any], new: dict[str, Any], changed: list[str], replaced: list[str]
) -> None:
    found = between(old, new)
    assert (found.changed, found.replaces) == (changed, replaced)


def test_config_maps_and_secrets_are_made_anew_unless_told_otherwise() -> None:
    old, new = manifest("v1", "ConfigMap", data={"a": "1"}), manifest("v1", "ConfigMap", data={"a": "2"})
    assert between(old, new, mutable=False).replaces == ["data.a"]
    assert between(old, new).replaces == []
    assert between({**old, "immutable": True}, {**new, "immutable": True}).replaces == ["data.a"]


def test_what_only_the_server_writes_is_no_change() -> None:
    live = {
        **DEPLOYMENT,
        "metadata": {**DEPLOYMENT["metadata"], "uid": "u", "resourceVersion": "7", "generation": 3},
        "spec": {**DEPLOYMENT["spec"], "progressDeadlineSeconds": 600},
        "status": {"replicas": 2},
    }
    found = changes.between(live, DEPLOYMENT, DEPLOYMENT, namespaced=True, config_maps_change=True, secrets_change=True)
    assert found.changed == []


def test_ignored_paths_are_left_out() -> None:
    new = {**DEPLOYMENT, "spec": {**DEPLOYMENT["spec"], "replicas": 5}}
    found = changes.between(
        DEPLOYMENT,
        DEPLOYMENT,
        new,
        namespaced=True,
        config_maps_change=True,
        secrets_change=True,
        ignored=("spec.replicas",),
    )
    assert found.changed == []


LEAVES = st.none() | st.booleans() | st.integers(-5, 5) | st.text("ab.", max_size=3)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("xyz", min_size=1, max_size=2), inner, max_size=3)
    ),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text("xyz", min_size=1, max_size=2), VALUES, max_size=4)


@given(OBJECTS)
def test_nothing_differs_from_itself(value: dict[str, Any]) -> None:
    assert changes.walk(value, value, value) == []


def _meaning(value: Any) -> Any:
    """Without names whose value says nothing: leaving them out and saying them means the same."""
    if isinstance(value, dict):
        return {key: _meaning(one) for key, one in value.items() if one is not None}
    return [_meaning(one) for one in value] if isinstance(value, list) else (type(value), value)


@given(OBJECTS, OBJECTS)
def test_values_that_mean_different_things_differ(old: dict[str, Any], new: dict[str, Any]) -> None:
    if _meaning(old) != _meaning(new):
        assert changes.walk(old, new, {}) or changes.walk(new, old, {})


def test_names_with_dots_are_quoted_in_paths() -> None:
    assert changes.render(("metadata", "annotations", "a.b/c", 0)) == 'metadata.annotations["a.b/c"][0]'


# --- forms that mean the same


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("1024Mi", "1Gi"),
        ("0.5", "500m"),
        ("1500m", "1500m"),
        ("2000m", "2"),
        ("384Mi", "384Mi"),
        ("1e3", "1e3"),
        ("x", "x"),
    ],
)
def test_quantities_are_written_as_the_server_writes_them(written: str, canonical: str) -> None:
    assert objects.canonical_quantity(written) == canonical


@given(st.integers(0, 10**6), st.sampled_from(["", "m", "k", "Ki", "Mi", "Gi"]))
def test_a_canonical_quantity_keeps_its_value_and_stays_as_it_is(number: int, suffix: str) -> None:
    units = {"": Fraction(1), "m": Fraction(1, 1000), "k": Fraction(1000), "M": Fraction(10**6), "G": Fraction(10**9)}
    units |= {name: Fraction(1024) ** (power + 1) for power, name in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi"))}
    units |= {"T": Fraction(10**12), "P": Fraction(10**15)}
    found = objects.canonical_quantity(f"{number}{suffix}")
    digits = found.rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    assert Fraction(digits) * units[found[len(digits) :]] == number * units[suffix]
    assert objects.canonical_quantity(found) == found


def test_plain_secret_values_are_the_same_as_encoded_ones_and_always_secret() -> None:
    plain = objects.normalized({"apiVersion": "v1", "kind": "Secret", "stringData": {"a": "b"}})
    assert plain["data"] == {"a": "Yg=="}
    assert isinstance(objects.marked(plain)["data"], Secret)


def test_schema_extensions_are_spelt_with_dashes() -> None:
    written = {"x_kubernetes_preserve_unknown_fields": True, "list": [{"x_kubernetes_int_or_string": True}]}
    assert objects.dashed(written)["x-kubernetes-preserve-unknown-fields"] is True
    assert objects.underscored(objects.dashed(written)) == written


def test_new_objects_get_a_name_from_their_logical_one_and_keep_it() -> None:
    first = objects.named({"kind": "ConfigMap"}, {}, "app", b"seed")
    assert first["metadata"]["name"].startswith("app-")
    assert objects.named({"kind": "ConfigMap"}, first, "app", b"other")["metadata"]["name"] == first["metadata"]["name"]
    assert objects.named({"metadata": {"name": "x"}}, {}, "app", b"")["metadata"]["name"] == "x"
    assert objects.named({"metadata": UNKNOWN}, {}, "app", b"")["metadata"] == UNKNOWN


# --- readiness


def rolled_out(
    *, ready: int, replicas: int = 2, revision: str = "2", **status: Any
) -> tuple[dict[str, Any], list[Any]]:
    live = {
        "metadata": {"name": "app", "uid": "d", "generation": 2, "annotations": {readiness.REVISION: revision}},
        "spec": {"replicas": replicas},
        "status": {
            "observedGeneration": 2,
            "conditions": [
                {"type": "Available", "status": "True"},
                {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"},
            ],
            **status,
        },
    }
    replica_set = {
        "metadata": {
            "name": "app-1",
            "uid": "r",
            "ownerReferences": [{"uid": "d"}],
            "annotations": {readiness.REVISION: revision},
        },
        "spec": {"replicas": replicas},
        "status": {"readyReplicas": ready} if ready else {},
    }
    return live, [replica_set]


def test_a_deployment_is_ready_when_its_newest_pods_are() -> None:
    live, sets = rolled_out(ready=2)
    assert readiness.deployment(live, sets).ready
    live, sets = rolled_out(ready=1)
    assert "(1/2 Pods available)" in readiness.deployment(live, sets).status
    live, sets = rolled_out(ready=2, observedGeneration=1)
    assert readiness.deployment(live, sets).status == "Waiting for the Deployment controller"


def test_a_deployment_scaled_to_zero_is_ready_at_once() -> None:
    assert readiness.deployment(*rolled_out(ready=0, replicas=0)).ready


def test_a_missed_progress_deadline_is_among_the_reasons() -> None:
    late = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "too late"}
    found = readiness.deployment(*rolled_out(ready=0, conditions=[late]))
    assert not found.ready
    assert "[ProgressDeadlineExceeded] too late" in found.reasons


def test_a_deployment_tells_why_its_pods_are_not_ready() -> None:
    live, sets = rolled_out(ready=0)
    waiting_for = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}
    conditions = [
        {"type": "PodScheduled", "status": "True"},
        {"type": "Initialized", "status": "True"},
        {"type": "Ready", "status": "False", "reason": "ContainersNotReady", "message": "no"},
    ]
    pod = {
        "metadata": {"name": "p", "ownerReferences": [{"uid": "r"}]},
        "status": {
            "conditions": conditions,
            "containerStatuses": [{"name": "a", "ready": False, "state": waiting_for}],
        },
    }
    assert any("CrashLoopBackOff" in reason for reason in readiness.deployment(live, sets, [pod]).reasons)


def test_a_job_is_complete_running_or_failed_for_good() -> None:
    started = {"startTime": "now"}
    assert not readiness.job({"metadata": {"name": "j"}}).ready
    assert not readiness.job({"metadata": {"name": "j"}, "status": {**started, "active": 1}}).ready
    done = [{"type": "Complete", "status": "True"}]
    assert readiness.job({"metadata": {"name": "j"}, "status": {**started, "conditions": done}}).ready
    lost = [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "no more tries"}]
    found = readiness.job({"metadata": {"name": "j"}, "status": {**started, "conditions": lost}})
    assert found.failed
    assert "no more tries" in found.reasons[0]


def test_a_stateful_set_needs_every_replica_of_the_newest_revision() -> None:
    status = {"observedGeneration": 1, "replicas": 1, "readyReplicas": 1, "currentReplicas": 1}
    live = {"metadata": {"name": "s", "generation": 1}, "spec": {"replicas": 1}}
    good = {**live, "status": {**status, "currentRevision": "a", "updateRevision": "a"}}
    assert readiness.stateful_set(good).ready
    assert not readiness.stateful_set(
        {**live, "status": {**status, "currentRevision": "a", "updateRevision": "b"}}
    ).ready


WATCHED = {
    "metadata": {"generation": 2},
    "status": {
        "observedGeneration": 2,
        "phase": "Bound",
        "conditions": [{"type": "Ready", "status": "True"}, {"type": "Synced", "status": "False", "message": "no"}],
        "addresses": [{"kind": "ip", "value": "a"}, {"kind": "name", "value": "b"}],
    },
}


@pytest.mark.parametrize(
    ("annotation", "ready"),
    [
        ("condition=Ready", True),
        ("condition=ready", True),
        ("condition=Synced", False),
        ("condition=Synced=False", True),
        ("condition=Missing", False),
        ("jsonpath={.status.phase}", True),
        ("jsonpath={.status.phase}=Bound", True),
        ("jsonpath={.status.phase}=Lost", False),
        ("jsonpath={.status.addresses[1].value}=b", True),
        ("jsonpath={.status.addresses[?(@.kind=='name')].value}=b", True),
        ('["condition=Ready", "jsonpath={.status.phase}=Bound"]', True),
        ('["condition=Ready", "condition=Synced"]', False),
    ],
)
def test_wait_for(annotation: str, *, ready: bool) -> None:
    assert readiness.wait_for(annotation)(WATCHED).ready is ready


def test_a_status_of_an_older_generation_does_not_count() -> None:
    old = {**WATCHED, "metadata": {"generation": 3}}
    assert not readiness.wait_for("condition=Ready")(old).ready
    assert not readiness.wait_for("jsonpath={.status.phase}=Bound")(old).ready


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        ("cel=x", "jsonpath="),
        ("jsonpath=.status", "brackets"),
        ("jsonpath={.a}=", "requires a value"),
        ("jsonpath={.items[0:2]}", "not implemented"),
        ("[]", "at least one"),
    ],
)
def test_wrong_wait_for_is_refused(annotation: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        readiness.wait_for(annotation)
    provider = KubernetesProvider()
    provider.configure({"kubeconfig": yaml.safe_dump(KUBECONFIG)})
    notes = {"name": "x", "namespace": "shop", "annotations": {"pulumi.com/waitFor": annotation}}
    with pytest.raises(ProviderError, match=r"pulumi\.com/waitFor"):
        provider.check("kubernetes:core/v1:ConfigMap", "a::x", {}, manifest("v1", "ConfigMap", metadata=notes), b"")


def test_a_value_is_not_compared_with_a_mapping() -> None:
    with pytest.raises(ValueError, match="non-primitive"):
        jsonpath.parse("{.status}=x").matches({"status": {"a": 1}})


def test_time_limits_come_from_options_then_annotation_then_ten_minutes() -> None:
    noted = {"metadata": {"annotations": {"pulumi.com/timeoutSeconds": "30"}}}
    assert waiting.seconds_for(0, {}) == 600
    assert waiting.seconds_for(0, noted) == 30
    assert waiting.seconds_for(7, noted) == 7
    assert waiting.skipped({"metadata": {"annotations": {"pulumi.com/skipAwait": "true"}}})


# --- ownership


def owner(manager: str, operation: str, *fields: str) -> dict[str, Any]:
    return {"manager": manager, "operation": operation, "fieldsV1": {f"f:{name}": {} for name in fields}}


def test_fields_made_by_kubectl_or_by_a_create_become_ours() -> None:
    live = {
        "metadata": {
            "resourceVersion": "7",
            "managedFields": [
                owner("kubectl", "Update", "a"),
                owner("other", "Update", "b"),
                owner("me", "Apply", "c"),
            ],
        }
    }
    patch = ownership.handover(live, "me")
    kept, mine = patch[0]["value"]
    assert kept["manager"] == "other"
    assert (mine["manager"], mine["operation"], set(mine["fieldsV1"])) == ("me", "Apply", {"f:a", "f:c"})
    assert patch[1]["value"] == "7"
    nobody = {"metadata": {"resourceVersion": "7", "managedFields": [owner("other", "Update", "b")]}}
    assert ownership.handover(nobody, "me") == []


def test_ignored_fields_stay_with_whoever_owns_them() -> None:
    live = {"replicas": 5, "paused": True, "metadata": {"managedFields": [owner("scaler", "Update", "replicas")]}}
    found = ownership.without_ignored({"replicas": 2, "paused": False}, live, ("replicas", "paused"), "me")
    assert found == {"paused": True}


def test_others_fields_are_taken_only_when_asked() -> None:
    theirs = {"metadata": {"managedFields": [owner("someone", "Apply", "a")]}}
    assert not ownership.forced(wanted=False, live=theirs, preview=False)
    assert ownership.forced(wanted=True, live=theirs, preview=False)


# --- kubeconfigs, Helm


KUBECONFIG = {
    "clusters": [
        {"name": "one", "cluster": {"server": "https://one/"}},
        {"name": "two", "cluster": {"server": "https://two"}},
    ],
    "users": [{"name": "u", "user": {"token": "t"}}],
    "contexts": [
        {"name": "first", "context": {"cluster": "one", "user": "u", "namespace": "shop"}},
        {"name": "second", "context": {"cluster": "two", "user": "u"}},
    ],
    "current-context": "first",
}


def test_a_kubeconfig_is_a_path_a_text_or_a_mapping(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(KUBECONFIG))
    for form in (KUBECONFIG, yaml.safe_dump(KUBECONFIG), str(path)):
        found = kubeconfig.access(kubeconfig.parse(form), context=None, cluster=None, namespace=None)
        assert (found.server, found.namespace) == ("https://one", "shop")
    other = kubeconfig.access(dict(KUBECONFIG), context="second", cluster=None, namespace=None)
    assert (other.server, other.namespace) == ("https://two", "default")


@pytest.mark.parametrize("wrong", ["no-such-file", "a: [", "{}"])
def test_what_is_no_kubeconfig_is_refused(wrong: str) -> None:
    with pytest.raises(kubeconfig.KubeconfigError):
        kubeconfig.parse(wrong)


def test_a_context_that_is_not_there_is_named() -> None:
    with pytest.raises(kubeconfig.KubeconfigError, match=r'"third" does not exist \(contexts of the kubeconfig: first'):
        kubeconfig.access(dict(KUBECONFIG), context="third", cluster=None, namespace=None)


def test_another_cluster_replaces_and_other_credentials_do_not() -> None:
    provider = KubernetesProvider()
    text = yaml.safe_dump(KUBECONFIG)
    renewed = yaml.safe_dump({**KUBECONFIG, "users": [{"name": "u", "user": {"token": "new"}}]})
    moved = yaml.safe_dump({**KUBECONFIG, "current-context": "second"})
    assert provider.configuration_difference({"kubeconfig": text}, {"kubeconfig": renewed}).replaces == []
    assert provider.configuration_difference({"kubeconfig": text}, {"kubeconfig": moved}).replaces == ["kubeconfig"]


def test_a_chart_keeps_its_release_and_a_new_name_is_a_new_release() -> None:
    old = helm.check({"chart": "c", "values": {"a": 1, "b": 2}}, {}, "app", "shop", b"seed")
    assert (old["namespace"], old["name"][:4]) == ("shop", "app-")
    assert helm.check({"chart": "c"}, old, "app", "shop", b"")["name"] == old["name"]
    changed = helm.difference(old, old, {**old, "values": {"a": 1}}, ())
    assert (changed.changed, changed.replaces) == (["values.b"], [])
    assert helm.difference(old, old, {**old, "name": "other"}, ()).replaces == ["name"]
    assert helm.exact("1.2.3")
    assert not helm.exact("~1.2")
