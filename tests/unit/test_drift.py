"""Declared objects against the cluster's: defaults are no difference, a person's change is one."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.release.drift import RESTORED_ANNOTATION, Drift, compare_objects, object_differences
from infra.release.manifests import render_pod_template
from tests.unit.releases import record

LEAVES = st.one_of(st.integers(1, 99), st.text("abc", min_size=1, max_size=3), st.booleans())
NAMED = st.lists(
    st.fixed_dictionaries({"name": st.sampled_from("abcd"), "value": LEAVES}), unique_by=lambda one: one["name"]
)
SPECS = st.dictionaries(
    st.sampled_from(["a", "b", "c", "d"]),
    st.one_of(LEAVES, NAMED, st.dictionaries(st.sampled_from(["x", "y"]), LEAVES, max_size=2)),
    max_size=4,
)


def stored(spec: Any, name: str = "") -> Any:
    """The spec as the API server keeps it: with defaults of its own, and without what is empty."""
    if isinstance(spec, dict):
        kept = {key: stored(each, key) for key, each in spec.items() if each not in ("", 0, False, [], {})}
        return kept if name == "matchLabels" else {**kept, "defaulted": 1}
    return [stored(each) for each in spec] if isinstance(spec, list) else spec


@given(SPECS)
def test_what_the_api_server_adds_or_leaves_out_is_no_difference(spec: dict[str, Any]) -> None:
    assert object_differences(spec, stored(spec)) == []


@given(SPECS, st.data())
def test_any_declared_value_that_somebody_changed_is_a_difference(spec: dict[str, Any], data: st.DataObject) -> None:
    standing = stored(spec)
    keys = [key for key, value in spec.items() if type(value) in (int, str) and key in standing]
    if keys:
        standing[data.draw(st.sampled_from(keys))] = "somebody's"
        assert len(object_differences(spec, standing)) == 1


def test_the_values_that_people_change() -> None:
    pod = render_pod_template(record(), "blue")
    spec = {"replicas": 2, "paused": False, "template": pod}
    standing = stored(copy.deepcopy(spec))
    assert object_differences(spec, standing) == []
    standing["replicas"] = 3
    standing["paused"] = True
    standing["template"]["spec"]["containers"][0]["image"] = "another"
    shown = object_differences(spec, standing)
    assert [line.partition(" is ")[0] for line in shown] == [
        "replicas",
        "paused",
        "template.spec.containers[shopcat].image",
    ]
    del standing["replicas"]
    assert "replicas is None, expected 2" in object_differences(spec, standing)


@pytest.mark.parametrize(
    ("declared", "kept", "same"),
    [
        ("1000m", "1", True),
        ("200m", "200m", True),
        ("1024Mi", "1Gi", True),
        ("384Mi", "384Mi", True),
        ("384Mi", "385Mi", False),
        ("200m", "200", False),
        ("abc", "abd", False),
        (8080, "8080", False),
    ],
)
def test_quantities_are_numbers(declared: Any, kept: Any, *, same: bool) -> None:
    assert (object_differences({"x": declared}, {"x": kept}) == []) is same


def test_what_somebody_added_to_a_list_of_named_things_stays() -> None:
    declared = {"env": [{"name": "A", "value": "1"}, {"name": "EMPTY", "value": ""}]}
    assert object_differences(declared, {"env": [{"name": "Z"}, {"name": "EMPTY"}, {"name": "A", "value": "1"}]}) == []
    assert object_differences(declared, {"env": [{"name": "EMPTY"}]}) == [
        "env[A].name is None, expected 'A'",
        "env[A].value is None, expected '1'",
    ]
    assert object_differences({"args": ["a", "b"]}, {"args": ["a"]}) == ["args is ['a'], expected ['a', 'b']"]


@pytest.mark.parametrize("name", ["selector", "matchLabels", "podSelector", "nodeSelector"])
def test_one_more_key_in_a_map_that_selects_is_a_difference(name: str) -> None:
    declared = {name: {"app": "shopcat"}}
    assert object_differences(declared, {name: {"app": "shopcat"}}) == []
    (line,) = object_differences(declared, {name: {"app": "shopcat", "debug": "yes"}})
    assert line == f"{name}.debug is 'yes', expected none"
    assert object_differences({"labels": {"app": "shopcat"}}, {"labels": {"app": "shopcat", "debug": "yes"}}) == []


def compared(spec: dict[str, Any], standing: dict[str, Any] | None, *, is_expected: bool = True) -> Drift:
    return compare_objects(spec, {}, standing, intent="shopcat/intent", is_expected=is_expected)


def test_the_mark_is_new_when_somebody_changed_something_and_stays_after_that() -> None:
    spec = {"replicas": 2}
    standing: dict[str, Any] = {"metadata": {"resourceVersion": "7"}, "spec": {"replicas": 2}}
    assert compared(spec, standing) == Drift()
    standing["spec"]["replicas"] = 3
    first = compared(spec, standing)
    assert first == Drift(("replicas is 3, expected 2",), {RESTORED_ANNOTATION: "7"})
    written = {"metadata": {"resourceVersion": "8", "annotations": first.mark}, "spec": {"replicas": 2}}
    assert compared(spec, written) == Drift((), first.mark), "nothing is left to write"
    written["spec"] = {"replicas": 1}
    assert compared(spec, written).mark == {RESTORED_ANNOTATION: "8"}


@pytest.mark.parametrize("standing", [None, {"metadata": {"deletionTimestamp": "2026-01-02T03:04:05Z"}}])
def test_what_somebody_deleted_is_written_if_an_update_has_made_it_before(standing: dict[str, Any] | None) -> None:
    found = compared({"replicas": 2}, standing)
    assert found.lines == ("was deleted",)
    assert found.mark[RESTORED_ANNOTATION].startswith("deleted before 2")
    assert compared({"replicas": 2}, standing, is_expected=False) == Drift()


def test_what_was_written_for_another_intent_is_not_compared() -> None:
    standing = {"metadata": {"annotations": {"shopcat/intent": "older"}}, "spec": {"replicas": 3}}
    found = compare_objects(
        {"replicas": 2}, {"shopcat/intent": "new"}, standing, intent="shopcat/intent", is_expected=True
    )
    assert found == Drift()
