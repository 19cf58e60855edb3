"""`make undo`: where it goes, which pods it trusts, and what it refuses."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.commands import undo
from infra.errors import ShopCatError
from infra.release.decide import Nothing, Rollback, decide
from infra.release.health import run_since
from infra.release.ledger import Ledger, table_definition
from infra.release.state import LedgerState
from infra.release.transitions import aborted, claimed, gone_live
from tests.unit.releases import TABLE, client
from tests.unit.test_kept_former import STEPS, Step, kept_by, wanted_of
from twin.paths import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Sequence

MOMENT = datetime(2026, 11, 24, 10, tzinfo=UTC)


@given(steps=st.lists(st.tuples(STEPS, st.sampled_from(["live", "aborted", "open"])), max_size=8))
def test_it_goes_back_to_the_kept_former_and_nowhere_else(steps: Sequence[tuple[Step, str]]) -> None:
    state = LedgerState(version=1)
    for step, end in steps:
        try:
            decision = decide(wanted_of(step, state), state)
        except ShopCatError:
            continue
        if decision.action == "release":
            opened = claimed(state, decision, f"2026-11-24T10:{state.version:02}:00+00:00")
            state = {"live": gone_live, "aborted": aborted, "open": lambda each: each}[end](opened)
    is_refused = state.open.kind != "rollback" if state.open else state.kept_former is None
    if is_refused:
        with pytest.raises(ShopCatError):
            undo.rollback_of(state)
        return
    decision = decide(Rollback.parse(undo.rollback_of(state)), state)
    assert decision.open is not None
    assert decision.open.kind == "rollback"
    assert state.live is not None
    assert decision.open.colour != state.live.colour
    if state.open:
        assert (decision.action, decision.open) == ("resume", state.open)
    else:
        assert state.kept_former is not None
        assert (decision.action, decision.record) == ("release", state.kept_former.record)
        assert kept_by(state, Nothing()) <= {decision.open.name}


PODS = st.lists(
    st.tuples(st.integers(-3, 3), st.sampled_from(["runs", "runs", "leaves", "ended", "waits", "is unknown"])),
    max_size=4,
)


def pod(second: int, what: str) -> dict[str, Any]:
    state = {"running": {"startedAt": (MOMENT + timedelta(seconds=second)).strftime("%Y-%m-%dT%H:%M:%SZ")}}
    beside = {"name": "sidecar", "state": {"running": {"startedAt": "2030-01-01T00:00:00Z"}}}
    application = {
        "name": "shopcat",
        "state": {"waiting": {"reason": "CrashLoopBackOff"}} if what == "waits" else state,
    }
    return {
        "metadata": {"name": "one", **({"deletionTimestamp": "now"} if what == "leaves" else {})},
        "status": {
            "phase": "Failed" if what == "ended" else "Running",
            **({} if what == "is unknown" else {"containerStatuses": [beside, application]}),
        },
    }


@given(PODS)
def test_pods_are_trusted_that_stay_and_whose_application_has_run_since_before(pods: list[tuple[int, str]]) -> None:
    staying = [each for each in pods if each[1] not in ("leaves", "ended")]
    expected = bool(staying) and all(what == "runs" and second < 0 for second, what in staying)
    assert run_since([pod(*each) for each in pods], MOMENT) is expected


def test_without_a_release_it_says_so_and_fails(
    mocked_aws: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("PULUMI_OPTION_CONFIG_FILE", raising=False)
    monkeypatch.chdir(REPOSITORY)
    assert undo.main() == 1
    assert TABLE in capsys.readouterr().err, "no ledger"
    client("dynamodb").create_table(**table_definition(TABLE))
    Ledger(client("dynamodb"), TABLE).initialise()
    assert undo.main() == 1
    assert capsys.readouterr().err == "error: nothing is live, so there is nothing to go back from\n"
    monkeypatch.setenv("PULUMI_OPTION_CONFIG_FILE", "no-such.yaml")
    assert undo.main() == 1
    assert "error: no-such.yaml" in capsys.readouterr().err
