"""`make undo`: where it goes, which pods it trusts, and what it refuses."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra import settings
from infra.commands import undo
from infra.errors import ShopCatError
from infra.foundation.secret_versions import restored_version
from infra.release import plan
from infra.release.decide import Nothing, Tag, decide, rollback_to_kept
from infra.release.health import CLOCKS_DIFFER_SECONDS, run_since
from infra.release.ledger import Ledger, table_definition
from infra.release.state import LedgerState
from infra.release.transitions import aborted, claimed, gone_live
from tests.unit.releases import TABLE, client, template
from tests.unit.test_kept_former import STEPS, Step, kept_by, wanted_of
from tests.unit.test_settings import committed
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
            rollback_to_kept(state)
        return
    decision = decide(rollback_to_kept(state), state)
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
    st.tuples(
        st.integers(-2 * CLOCKS_DIFFER_SECONDS, CLOCKS_DIFFER_SECONDS),
        st.sampled_from(["runs", "runs", "leaves", "ended", "waits", "is unknown", "has no start", "has no zone"]),
    ),
    max_size=4,
)


def pod(second: int, what: str) -> dict[str, Any]:
    start = (MOMENT + timedelta(seconds=second)).strftime("%Y-%m-%dT%H:%M:%SZ")
    states: dict[str, Any] = {
        "waits": {"waiting": {"reason": "CrashLoopBackOff"}},
        "has no start": {"running": {"startedAt": None}},
        "has no zone": {"running": {"startedAt": start.removesuffix("Z")}},
    }
    beside = {"name": "sidecar", "state": {"running": {"startedAt": "2030-01-01T00:00:00Z"}}}
    application = {"name": "shopcat", "state": states.get(what, {"running": {"startedAt": start}})}
    return {
        "metadata": {"name": "one", **({"deletionTimestamp": "now"} if what == "leaves" else {})},
        "status": {
            "phase": "Failed" if what == "ended" else "Running",
            **({} if what == "is unknown" else {"containerStatuses": [beside, application]}),
        },
    }


@given(PODS, st.sampled_from([MOMENT.isoformat(), "2026-11-24T12:00:00+02:00", "2026-11-24T10:00:00", "now", ""]))
def test_pods_are_trusted_that_stay_and_whose_application_has_run_since_before(
    pods: list[tuple[int, str]], moment: str
) -> None:
    staying = [each for each in pods if each[1] not in ("leaves", "ended")]
    expected = "+" in moment and bool(staying)
    expected &= all(what == "runs" and second < -CLOCKS_DIFFER_SECONDS for second, what in staying)
    assert run_since([pod(*each) for each in pods], moment) is expected


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


@pytest.mark.parametrize("live", ["", "copy", "other"])
@pytest.mark.parametrize("former", ["", "copy", "other"])
def test_nobody_is_moved_to_another_database(former: str, live: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Orders that were written since would be missing there."""
    state = LedgerState(version=1)
    for number, name in enumerate((former, live), start=1):
        version = restored_version(name) if name else str(number)
        decision = decide(Tag(f"v{number}", template(number, secret_version=version)), state)
        state = gone_live(claimed(state, decision, f"2026-11-24T10:0{number}:00+00:00"))
    monkeypatch.setattr(plan, "Ledger", lambda *_: SimpleNamespace(read=lambda: state))
    clients: Any = SimpleNamespace(identity=lambda: ("1", "arn:aws:iam::1:user/ann"), get=lambda _: None)
    stands = settings.read_settings(committed(database={"identifier": "shopcat"}))
    if former == live:
        assert plan.make_undo_plan(stands, clients, {}).decision.record == state.release("v1-r1").record
    else:
        with pytest.raises(ShopCatError, match="v1-r1 would bring its users to"):
            plan.make_undo_plan(stands, clients, {})
