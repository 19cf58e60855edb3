"""An abort or a rollback changes the release alone: the platform keeps its inputs, and its checks refuse nothing."""

from types import SimpleNamespace
from typing import Any

import pulumi
import pytest
from google.protobuf import struct_pb2
from hypothesis import given
from hypothesis import strategies as st

from infra import production, settings
from infra.errors import PreflightError
from infra.foundation.existing_resources import HELM_RELEASE
from infra.release import login_job
from infra.release.way_back import NOTE, Leniency, leave_platform
from tests.unit.releases import run
from tests.unit.test_settings import committed

RELEASE = "urn:pulumi:prod::shopcat::shopcat:index:Production$shopcat:release:BlueGreen::shopcat"
PLATFORM = "urn:pulumi:prod::shopcat::shopcat:index:Production$shopcat:database:Database::database"
ADMISSION = "kubernetes:admissionregistration.k8s.io/v1:ValidatingAdmissionPolicy"
TYPES = st.sampled_from(
    ["aws:rds/instance:Instance", "aws:eks/nodeGroup:NodeGroup", HELM_RELEASE, "kubernetes:batch/v1:Job", ADMISSION,
     "pulumi:providers:aws", "eks:index:Cluster"]
)  # fmt: skip


def parent_of(urn: str) -> Any:
    async def known() -> str:
        return urn

    return SimpleNamespace(urn=SimpleNamespace(future=known)) if urn else None


@given(TYPES, st.sampled_from(["", PLATFORM, RELEASE]), st.booleans(), st.sampled_from([None, ["policy"]]))
def test_exactly_what_is_no_release_s_keeps_its_inputs(
    kind: str, parent: str, has_trigger: Any, ignored: list[str] | None
) -> None:
    options = pulumi.ResourceOptions(ignore_changes=ignored)
    options.parent = parent_of(parent)
    # As the SDK hands it over: a trigger for every resource, an empty one mostly.
    options.replacement_trigger = struct_pb2.Value(string_value="t") if has_trigger else struct_pb2.Value()
    custom = not kind.startswith("eks:index")
    result = run(
        leave_platform(pulumi.ResourceTransformArgs(custom=custom, type_=kind, name="x", props={"a": 1}, opts=options))
    )
    is_left = custom and parent != RELEASE and not has_trigger and not kind.startswith(("pulumi:", ADMISSION))
    assert (result is not None) == is_left
    if result is not None:
        assert (result.props, result.opts.ignore_changes) == ({"a": 1}, [*(ignored or []), "*"])
        assert result.opts.replacement_trigger is None


CHECKS = (
    "dns.find_zone",
    "dns.refuse_taken_aliases",
    "existing_database.refuse_unfit_database",
    "existing_database.refuse_taken_snapshot",
    "chart_upgrade.refuse_unfit_charts",
    "upgrade.refuse_unfit_version",
)


def read(monkeypatch: pytest.MonkeyPatch, refusing: set[str], *, is_way_back: bool) -> Any:
    """What production reads before anything is declared, while these checks refuse and the others pass."""

    def check(name: str) -> Any:
        def called(*_: Any, **__: Any) -> Any:
            if name in refusing:
                raise PreflightError(f"{name} refuses")
            return "Z1" if name == "dns.find_zone" else None

        return called

    plan = SimpleNamespace(
        decision=SimpleNamespace(action="stay", open=None),
        state=SimpleNamespace(open=None),
        kubernetes=None,
        is_way_back=is_way_back,
    )
    with monkeypatch.context() as patch:
        patch.setattr("infra.production.release_plan.make_plan", lambda *_: plan)
        patch.setattr("infra.production.misleading_version", lambda *_: "")
        for name in CHECKS:
            patch.setattr(f"infra.production.{name}", check(name))
        return production._read(settings.read_settings(committed(dns="route53")), SimpleNamespace())  # type: ignore[arg-type]


@pytest.mark.parametrize("name", CHECKS)
def test_each_check_of_the_platform_refuses_an_ordinary_update_and_no_way_back(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PreflightError, match=f"{name} refuses"):
        read(monkeypatch, {name}, is_way_back=False)
    assert f"left to the next `pulumi up -s prod`: {name} refuses" in read(monkeypatch, {name}, is_way_back=True).notes
    every = read(monkeypatch, {*CHECKS}, is_way_back=True).notes
    assert all(any(f"{each} refuses" in note for note in every) for each in CHECKS)


def test_a_way_back_says_what_it_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    assert NOTE in read(monkeypatch, set(), is_way_back=True).notes
    assert NOTE not in read(monkeypatch, set(), is_way_back=False).notes


def test_what_is_no_refusal_ends_a_way_back_too() -> None:
    def broken() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        Leniency(is_way_back=True).judge(broken)


@pytest.mark.parametrize("is_way_back", [False, True])
@pytest.mark.parametrize("is_going_on", [False, True])
def test_no_other_release_s_password_is_set_once_more(
    monkeypatch: pytest.MonkeyPatch, *, is_way_back: bool, is_going_on: bool
) -> None:
    monkeypatch.setattr(login_job, "_is_going_on", lambda *_: is_going_on)
    plan: Any = SimpleNamespace(is_way_back=is_way_back)
    options = login_job._login_options(plan, "v1.2.0-r1", pulumi.ResourceOptions(protect=True))
    assert (options.ignore_changes == ["*"]) == (is_way_back and not is_going_on)
    assert options.protect is True
