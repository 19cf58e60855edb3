"""Decisions of the stand-in of the pulumi-kubernetes plugin: differences, names, readiness, ownership, kubeconfigs."""

import sys
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
from twin.plugins.kubernetes.api import Api, ApiError, Credentials, UnreachableError, again_while_missing
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


def _changed(value: Any, path: changes.Path, kind: str, new: Any) -> Any:
    """The value with one change made."""
    step, rest = path[0], path[1:]
    if isinstance(value, list):
        assert isinstance(step, int)
        if rest:
            return [*value[:step], _changed(value[step], rest, kind, new), *value[step + 1 :]]
        return value[:step] if kind == "delete" else [*value[:step], new, *value[step + 1 :]]
    if rest:
        return {**value, step: _changed(value[step], rest, kind, new)}
    others = {key: one for key, one in value.items() if key != step}
    return others if kind == "delete" else {**others, step: new}


@given(OBJECTS, OBJECTS)
def test_the_changes_found_lead_from_the_old_to_the_new(old: dict[str, Any], new: dict[str, Any]) -> None:
    reached: Any = old
    found = changes.walk(old, new, {})
    kept = [one for one in found if one[1] != "delete"]
    for path, kind, value in [*kept, *reversed([one for one in found if one[1] == "delete"])]:
        reached = _changed(reached, path, kind, value)
    assert _meaning(reached) == _meaning(new)


def pod_of(image: str, **metadata: str) -> dict[str, Any]:
    return manifest("v1", "Pod", spec={"containers": [{"image": image}], **metadata})


@pytest.mark.parametrize(
    ("old", "new", "replaced"),
    [
        pytest.param(pod_of("i:1"), pod_of("i:2"), ["spec.containers[0].image"], id="an item of a list"),
        pytest.param(pod_of("i:1", hostname="a"), pod_of("i:1"), ["spec.hostname"], id="one that is taken away"),
        pytest.param(pod_of("i:1"), pod_of("i:1", activeDeadlineSeconds="5"), [], id="one that is not listed"),
        pytest.param(
            manifest("apps/v1", "StatefulSet", spec={"replicas": 1}),
            manifest("apps/v1", "StatefulSet", spec={"replicas": 1, "serviceName": "s"}),
            ["spec.serviceName"],
            id="one that is added",
        ),
        pytest.param(
            manifest("v1", "PersistentVolume"),
            manifest("v1", "PersistentVolume", spec={"nfs": {"path": "/"}}),
            ["spec"],
            id="a parent that brings it along",
        ),
        pytest.param(
            manifest("v1", "Pod", spec={}), pod_of("i:1"), ["spec.containers"], id="a list that brings it along"
        ),
        pytest.param(
            manifest("v1", "Secret", type="a"), manifest("v1", "Secret", type="b"), ["type"], id="a Secret's type"
        ),
    ],
)
def test_immutable_paths_match_at_every_depth(old: dict[str, Any], new: dict[str, Any], replaced: list[str]) -> None:
    assert between(old, new).replaces == replaced


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


# --- readiness of the other kinds


SELECTED: dict[str, Any] = {"spec": {"selector": {"app": "x"}, "clusterIP": "10.0.0.1"}}
SERVED: dict[str, Any] = {"subsets": [{"addresses": [{"ip": "10.0.0.2"}]}]}
PENDING: dict[str, Any] = {"subsets": [{"notReadyAddresses": [{"ip": "10.0.0.2"}]}]}
BALANCED: dict[str, Any] = {"loadBalancer": {"ingress": [{"hostname": "lb"}]}}


@pytest.mark.parametrize(
    ("live", "endpoints", "settled", "late", "ready"),
    [
        pytest.param(SELECTED, SERVED, True, False, True, id="settled"),
        pytest.param(SELECTED, SERVED, False, False, False, id="not settled yet"),
        pytest.param(SELECTED, SERVED, False, True, True, id="never settled, time is up"),
        pytest.param(SELECTED, PENDING, True, False, False, id="pods not ready"),
        pytest.param(SELECTED, PENDING, True, True, False, id="pods not ready, time is up"),
        pytest.param(SELECTED, None, True, False, True, id="settled without any"),
        pytest.param({"spec": {"clusterIP": "10.0.0.1"}}, None, False, False, True, id="no selector"),
        pytest.param({"spec": {"selector": {"a": "b"}, "clusterIP": "None"}}, None, False, False, True, id="headless"),
        pytest.param({"spec": {"type": "ExternalName"}}, None, False, False, True, id="external name"),
        pytest.param({"spec": {"type": "LoadBalancer"}}, None, False, False, False, id="no address yet"),
        pytest.param({"spec": {"type": "LoadBalancer"}, "status": BALANCED}, None, False, False, True, id="address"),
    ],
)
def test_a_service_is_ready(
    live: dict[str, Any], endpoints: dict[str, Any] | None, *, settled: bool, late: bool, ready: bool
) -> None:
    assert readiness.service(live, endpoints, settled=settled, late=late).ready is ready


def test_a_service_says_what_it_lacks() -> None:
    live = {"spec": {**SELECTED["spec"], "type": "LoadBalancer"}}
    reasons = " ".join(readiness.service(live, PENDING, settled=True).reasons)
    assert "does not target any Pods" in reasons
    assert "not allocated an IP address" in reasons


def test_an_ingress_needs_its_services_and_an_address() -> None:
    path = {"path": "/", "backend": {"service": {"name": "app"}}}
    live: dict[str, Any] = {"spec": {"rules": [{"http": {"paths": [path]}}]}, "status": BALANCED}
    assert readiness.ingress(live, {"app"}, settled=False).ready
    assert readiness.ingress(live, set(), settled=True).ready
    missing = readiness.ingress(live, {"other"}, settled=False)
    assert (missing.ready, missing.status[:5]) == (False, "[1/3]")
    bare = readiness.ingress({**live, "status": {}}, {"app"}, settled=False)
    assert (bare.ready, bare.status[:5]) == (False, "[2/3]")


def test_endpoints_settle_after_their_last_change() -> None:
    settling = readiness.Settling()
    assert settling.observe(0.0, {}) is None
    assert settling.observe(1.0, {"": "7"}) == 0
    assert settling.observe(6.0, {"": "7"}) == 5
    assert settling.observe(7.0, {"": "8"}) == 0


def test_a_daemon_set_needs_a_pod_of_the_newest_revision_on_every_node() -> None:
    counts = {"currentNumberScheduled": 2, "updatedNumberScheduled": 2, "numberAvailable": 2, "numberReady": 2}
    status = {"observedGeneration": 3, "desiredNumberScheduled": 2, **counts}
    live: dict[str, Any] = {"metadata": {"name": "d", "generation": 3}, "status": status}
    assert readiness.daemon_set(live).ready
    for name in counts:
        assert not readiness.daemon_set({**live, "status": {**status, name: 1}}).ready, name
    assert not readiness.daemon_set({**live, "status": {**status, "observedGeneration": 2}}).ready
    assert not readiness.daemon_set({**live, "status": {}}).ready


def test_a_pod_is_scheduled_initialized_and_ready_or_has_succeeded() -> None:
    def pod(phase: str, **conditions: str) -> dict[str, Any]:
        listed = [{"type": name, "status": status} for name, status in conditions.items()]
        return {"metadata": {"name": "p"}, "status": {"phase": phase, "conditions": listed}}

    assert readiness.pod(pod("Running", PodScheduled="True", Initialized="True", Ready="True")).ready
    assert readiness.pod(pod("Succeeded", PodScheduled="True", Initialized="True", Ready="False")).ready
    assert "to be scheduled" in readiness.pod(pod("Pending")).status
    assert "to be initialized" in readiness.pod(pod("Pending", PodScheduled="True")).status
    assert "to be ready" in readiness.pod(pod("Running", PodScheduled="True", Initialized="True")).status


@pytest.mark.parametrize(
    ("phase", "mode", "update", "ready"),
    [
        ("Bound", None, False, True),
        ("Pending", None, False, False),
        ("Pending", "Immediate", False, False),
        ("Pending", "WaitForFirstConsumer", False, True),
        ("Bound", "WaitForFirstConsumer", True, True),
        ("Lost", None, True, False),
    ],
)
def test_a_claim_is_bound_or_waits_for_its_first_consumer(
    phase: str, mode: str | None, *, update: bool, ready: bool
) -> None:
    assert readiness.persistent_volume_claim({"status": {"phase": phase}}, mode, update=update).ready is ready


def test_volumes_quotas_controllers_and_tokens() -> None:
    assert readiness.persistent_volume({"status": {"phase": "Available"}}).ready
    assert not readiness.persistent_volume({"status": {"phase": "Pending"}}).ready
    hard = {"hard": {"pods": "3"}}
    assert readiness.resource_quota({"spec": hard, "status": hard}).ready
    assert not readiness.resource_quota({"spec": hard}).ready
    assert readiness.replication_controller({"spec": {"replicas": 2}, "status": {"availableReplicas": 2}}).ready
    assert not readiness.replication_controller({"spec": {"replicas": 2}}).ready
    token = {"type": "kubernetes.io/service-account-token"}
    assert not readiness.secret(token).ready
    assert readiness.secret({**token, "data": {"token": "dA=="}}).ready
    assert readiness.secret({"type": "Opaque"}).ready


@pytest.mark.parametrize(
    ("status", "ready"),
    [
        ({}, True),
        ({"conditions": [{"type": "Ready", "status": "True"}]}, True),
        ({"conditions": [{"type": "Ready", "status": "Unknown"}]}, False),
        ({"conditions": [{"type": "Stalled", "status": "True"}]}, False),
        ({"conditions": [{"type": "Reconciling", "status": "True"}]}, False),
        ({"observedGeneration": 1}, False),
    ],
)
def test_other_kinds_go_by_their_conditions_when_everything_is_waited_for(
    status: dict[str, Any], *, ready: bool
) -> None:
    assert readiness.generic({"metadata": {"generation": 2}, "status": status}).ready is ready


# --- waiting


class Cluster(Api):
    """Answers one state after the other, the last one from then on; None is an object that is gone."""

    def __init__(self, *states: dict[str, Any] | None) -> None:
        self._states = list(states)

    def find(self, manifest: Mapping[str, Any]) -> dict[str, Any] | None:
        """The next state."""
        del manifest
        return self._states.pop(0) if len(self._states) > 1 else self._states[0]

    def path(self, api_version: str, kind: str, namespace: str | None, name: str | None) -> str:
        """Of a collection."""
        return f"/{api_version}/{namespace}/{kind}"

    def call(self, method: str, path: str, **_: Any) -> Any:
        """Lists nothing."""
        return {"items": []}


def noted(phase: str, **metadata: Any) -> dict[str, Any]:
    notes = {"pulumi.com/waitFor": "jsonpath={.status.phase}=Done"}
    return manifest("v1", "ConfigMap", status={"phase": phase}) | {
        "metadata": {"name": "x", "namespace": "shop", "annotations": notes, **metadata}
    }


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asks again at once."""
    monkeypatch.setattr(waiting, "POLL_SECONDS", 0.0)


def wait(cluster: Cluster, live: dict[str, Any], seconds: float = 60, *, cancelled: bool = False) -> dict[str, Any]:
    told: list[str] = []
    watch = waiting.Watch(cluster)
    return waiting.until_ready(watch, live, seconds, tell=told.append, cancelled=lambda: cancelled)


@pytest.mark.usefixtures("quick")
def test_a_wait_ends_with_the_object_as_it_was_when_ready() -> None:
    assert wait(Cluster(noted("Half"), noted("Done")), noted("New"))["status"] == {"phase": "Done"}


@pytest.mark.usefixtures("quick")
def test_a_wait_that_does_not_end_well_says_why_and_keeps_the_object() -> None:
    with pytest.raises(waiting.NotReadyError, match="timed out") as late:
        wait(Cluster(noted("New")), noted("New"), -1)
    assert late.value.live["status"] == {"phase": "New"}
    assert late.value.reasons == ["Waiting for {.status.phase}=Done"]
    with pytest.raises(waiting.NotReadyError, match="deleted while"):
        wait(Cluster(None), noted("New"))
    with pytest.raises(waiting.NotReadyError, match="cancelled"):
        wait(Cluster(noted("New")), noted("New"), cancelled=True)


def test_kinds_that_nothing_is_known_of_are_ready_at_once_unless_all_are_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    live = manifest("example.org/v1", "Thing", status={"conditions": [{"type": "Ready", "status": "False"}]})
    monkeypatch.delenv("PULUMI_K8S_AWAIT_ALL", raising=False)
    assert wait(Cluster(live), live, -1) == live
    monkeypatch.setenv("PULUMI_K8S_AWAIT_ALL", "true")
    with pytest.raises(waiting.NotReadyError):
        wait(Cluster(live), live, -1)


@pytest.mark.usefixtures("quick")
def test_a_deletion_waits_for_that_very_object() -> None:
    def gone(cluster: Cluster, seconds: float = 60, *, cancelled: bool = False) -> str | None:
        told: list[str] = []
        return waiting.until_gone(cluster, noted("New"), "a", seconds, tell=told.append, cancelled=lambda: cancelled)

    assert gone(Cluster(noted("New", uid="a"), None)) is None
    assert gone(Cluster(noted("New", uid="b")), -1) is None
    held = noted("New", uid="a", finalizers=["example.org/hold"])
    assert "example.org/hold" in (gone(Cluster(held), -1) or "")
    assert "cancelled" in (gone(Cluster(held), cancelled=True) or "")


def test_a_deletion_is_waited_for_by_those_alone_who_may_list_its_kind() -> None:
    class Denied(Cluster):
        """Grants get and delete, and neither list nor watch."""

        error = ApiError(403, "Forbidden", "cannot list")

        def call(self, method: str, path: str, **_: Any) -> Any:
            assert (method, path) == ("GET", "/v1/shop/ConfigMap")
            raise self.error

    def gone(cluster: Cluster) -> str | None:
        return waiting.until_gone(cluster, noted("New"), "a", 60, tell=lambda _: None, cancelled=lambda: False)

    cluster = Denied(None)
    assert gone(cluster) == "cannot list"
    cluster.error = ApiError(404, "NotFound", "its definition is gone")
    assert gone(cluster) is None


def test_only_what_is_missing_is_tried_again() -> None:
    answers: list[ApiError | None] = [ApiError(404, "NotFound", "no namespace"), None]

    def attempt() -> dict[str, Any]:
        error = answers.pop(0)
        if error is not None:
            raise error
        return {"made": True}

    told: list[str] = []
    assert again_while_missing(attempt, told.append, lambda: False) == {"made": True}
    assert told == ["Retry #0; creation failed: no namespace"]
    answers.append(ApiError(422, "Invalid", "wrong"))
    with pytest.raises(ApiError, match="wrong"):
        again_while_missing(attempt, told.append, lambda: False)


# --- more of ownership, objects and access


MANAGERS = st.sampled_from(["kubectl", "kubectl-client-side-apply", "before-first-apply", "scaler", "me"])
OWNERS = st.lists(
    st.builds(
        lambda manager, operation, fields, sub: {
            **owner(manager, operation, *fields),
            **({"subresource": sub} if sub else {}),
        },
        MANAGERS,
        st.sampled_from(["Apply", "Update"]),
        st.sets(st.sampled_from("abcd"), min_size=1),
        st.sampled_from(["", "status"]),
    ),
    max_size=5,
)


@given(OWNERS)
def test_a_handover_loses_no_field_and_leaves_others_theirs(entries: list[dict[str, Any]]) -> None:
    live = {"metadata": {"resourceVersion": "7", "managedFields": entries}}
    patch = ownership.handover(live, "me")
    after = patch[0]["value"] if patch else entries
    every = [set().union(*(one["fieldsV1"] for one in some)) for some in (entries, after)]
    assert every[0] == every[1]
    for one in entries:
        if one["manager"] != "me" and (one["manager"] == "scaler" or one.get("subresource")):
            assert one in after
    assert not [
        one
        for one in after
        if one["manager"].startswith(("kubectl", "before"))
        and one["operation"] == "Update"
        and "subresource" not in one
    ]


def test_a_preview_takes_fields_from_our_own_earlier_form() -> None:
    ours = {"metadata": {"managedFields": [owner(ownership.CREATOR, "Update", "a")]}}
    assert ownership.forced(wanted=False, live=ours, preview=True)
    assert not ownership.forced(wanted=False, live=ours, preview=False)
    assert ownership.forced(wanted=False, live=None, preview=True)
    assert ownership.forced(wanted=False, live={"metadata": {}}, preview=False)


@given(OBJECTS)
def test_what_is_like_the_inputs_is_not_pruned(value: dict[str, Any]) -> None:
    assert objects.pruned(value, value) == value
    assert objects.pruned({**value, "more": 1}, value) == value


@given(OBJECTS)
def test_inputs_that_say_nothing_are_no_drift(value: dict[str, Any]) -> None:
    said = {key: one for key, one in value.items() if one}
    assert objects.with_empties(objects.pruned(said, value), value) == value


def test_overrides_win_and_what_is_missing_is_named() -> None:
    found = kubeconfig.access(dict(KUBECONFIG), context=None, cluster="two", namespace="other")
    assert (found.server, found.namespace) == ("https://two", "other")
    with pytest.raises(kubeconfig.KubeconfigError, match='cluster "three" does not exist'):
        kubeconfig.access(dict(KUBECONFIG), context=None, cluster="three", namespace=None)
    with pytest.raises(kubeconfig.KubeconfigError, match='user "u" does not exist'):
        kubeconfig.access({**KUBECONFIG, "users": []}, context=None, cluster=None, namespace=None)
    assert kubeconfig.active_cluster({"kubeconfig": "nowhere"}) is None


def test_a_cluster_identifier_decides_alone() -> None:
    provider = KubernetesProvider()
    here = {"kubeconfig": yaml.safe_dump(KUBECONFIG), "clusterIdentifier": "a"}
    there = {**here, "kubeconfig": yaml.safe_dump({**KUBECONFIG, "current-context": "second"})}
    assert provider.configuration_difference(here, there).replaces == []
    assert provider.configuration_difference(here, {**here, "clusterIdentifier": "b"}).replaces == ["clusterIdentifier"]
    assert provider.configuration_difference(here, {**here, "kubeconfig": UNKNOWN, "clusterIdentifier": "b"}).replaces


def test_namespaces_are_filled_in_where_a_kind_has_them() -> None:
    provider = KubernetesProvider()
    nobody = {"name": "one", "cluster": {"server": "https://127.0.0.1:9"}}
    provider.configure({"kubeconfig": yaml.safe_dump({**KUBECONFIG, "clusters": [nobody]})})

    def namespace(api_version: str, kind: str, **more: Any) -> object:
        given = {"apiVersion": api_version, "kind": kind, "metadata": {"name": "x"}, **more}
        return provider.check("kubernetes:any/v1:Kind", "a::x", {}, given, b"")["metadata"].get("namespace")

    assert namespace("v1", "ConfigMap") == "shop"
    assert namespace("v1", "Namespace") is None
    for scope in ("Cluster", "Namespaced"):
        spec = {"group": "example.org", "scope": scope, "names": {"kind": scope}}
        assert namespace("apiextensions.k8s.io/v1", "CustomResourceDefinition", spec=spec) is None
    assert namespace("example.org/v1", "Cluster") is None
    assert namespace("example.org/v1", "Namespaced") == "shop"
    unnamed = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "x-"}}
    with pytest.raises(ProviderError, match="generateName"):
        provider.check("kubernetes:core/v1:ConfigMap", "a::x", {}, unnamed, b"")


def test_a_token_is_kept_until_it_is_refused_or_expires(tmp_path: Path) -> None:
    count = tmp_path / "count"
    script = (
        "import json, pathlib, sys; path = pathlib.Path(sys.argv[1]);"
        "number = int(path.read_text()) + 1 if path.exists() else 1; path.write_text(str(number));"
        "print(json.dumps({'status': {'token': f't{number}', **json.loads(sys.argv[2])}}))"
    )

    def credentials(status: str) -> Credentials:
        return Credentials({"exec": {"command": sys.executable, "args": ["-c", script, str(count), status]}})

    lasting = credentials("{}")
    assert [lasting.token(), lasting.token(), lasting.token(refused="t1"), lasting.token()] == ["t1", "t1", "t2", "t2"]
    short = credentials('{"expirationTimestamp": "2020-01-01T00:00:00Z"}')
    assert [short.token(), short.token()] == ["t3", "t4"]
    with pytest.raises(UnreachableError, match="exit code 3"):
        Credentials({"exec": {"command": sys.executable, "args": ["-c", "raise SystemExit(3)"]}}).token()
    with pytest.raises(UnreachableError, match="not found"):
        Credentials({"exec": {"command": str(tmp_path / "none")}}).token()
