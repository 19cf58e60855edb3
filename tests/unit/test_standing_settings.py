"""The settings that a way back goes by: what an update keeps of them, and what of the present ones counts."""

import json
from types import SimpleNamespace
from typing import Any

import pulumi
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra import production, settings
from infra.errors import PreflightError, ShopCatError
from infra.release import plan, standing_settings
from infra.release.ledger import Ledger
from infra.release.state import LedgerState, Open
from infra.settings import Settings
from tests.unit.test_settings import committed, existing

PENDING: dict[str, st.SearchStrategy[Any]] = {
    "domainAliases": st.just(["www.shop.example.com"]),
    "adminCidrs": st.just(["203.0.113.0/24"]),
    "keepFormer": st.booleans(),
    "monitoring": st.just({"email": "ops@example.com", "slowestSeconds": 2.5, "webhook": "https://example.com/x?token=t"}),
    "drain": st.fixed_dictionaries({"appDrain": st.sampled_from([60, 75.5]), "margin": st.just(12)}),
    "database": st.fixed_dictionaries({"instanceClass": st.just("db.t4g.small"), "multiZone": st.booleans()}),
    "release": st.fixed_dictionaries({"replicas": st.just(2), "env": st.just({"A": "1"})}),
    "github": st.just({"repository": "example/shopcat"}),
    "vpc": st.fixed_dictionaries({"natGateways": st.sampled_from([1, 2])}),
}  # fmt: skip
CHANGES = st.fixed_dictionaries({}, optional=PENDING)
OF_THE_RUN = st.sampled_from([{"abort": "v1.1.0"}, {"rollback": "v1.1.0->v1.0.0"}, {}])


@given(
    CHANGES, CHANGES, OF_THE_RUN, st.sampled_from([{}, {"awsEndpoint": "http://127.0.0.1:9"}, {"ledgerTable": "other"}])
)
def test_a_way_back_has_the_kept_settings_and_the_run_s_own(
    stood: dict[str, Any], pending: dict[str, Any], wish: dict[str, str], where: dict[str, str]
) -> None:
    before = settings.read_settings(committed(**stood))
    present = settings.read_settings(committed(**{**pending, **wish, **where}))
    kept = standing_settings.keep(before)
    assert standing_settings.of_way_back(present, kept) == settings.read_settings(
        committed(**{**stood, **wish, **where})
    )
    # What a way back keeps for the next one is what it went by.
    assert standing_settings.keep(standing_settings.of_way_back(present, kept)) == kept


def test_nothing_of_one_run_is_kept() -> None:
    for wish in (
        {"tag": "v1.0.0"},
        {"abort": "v1.0.0"},
        {"rollback": "v1.1.0->v1.0.0"},
        {"rotate": "v1.0.0-r1"},
        {"holdTraffic": True},
    ):
        kept = standing_settings.keep(settings.read_settings(committed(**wish)))
        assert kept == standing_settings.keep(settings.read_settings(committed()))


@pytest.mark.parametrize(
    "kept",
    ["", " ", "[]", "null", "5", '"x"', '{"a"', json.dumps({"domain": "shop.example.com", "whatWasOnce": 1})],
)
def test_what_was_not_kept_or_is_not_understood_is_refused_by_a_message(kept: str) -> None:
    with pytest.raises(ShopCatError):
        standing_settings.of_way_back(settings.read_settings(committed()), kept)


OPEN = Open("v1.1.0", 1, 1, "green", "release")
ROLLBACK = Open("v1.0.0", 1, 2, "green", "rollback")


@pytest.mark.parametrize(
    ("wish", "opened", "expected"),
    [
        ({}, None, False),
        ({}, OPEN, False),
        ({"tag": "v1.1.0"}, OPEN, False),
        ({"abort": "v1.1.0"}, OPEN, True),
        ({"rollback": "v1.1.0->v1.0.0"}, None, True),
        ({}, ROLLBACK, True),
    ],
)
def test_a_way_back_is_an_abort_a_rollback_or_one_that_is_gone_on_with(
    wish: dict[str, str], opened: Open | None, expected: Any
) -> None:
    assert plan.is_way_back(settings.read_settings(committed(**wish)), opened) is expected


def read_with(monkeypatch: pytest.MonkeyPatch, kept: str, **present: Any) -> tuple[Settings, list[str]]:
    """By which settings production is read, and the notes, where the last update kept this."""
    seen: list[Settings] = []

    def read(of: Settings, _: Any) -> production._Known:
        seen.append(of)
        return production._Known(SimpleNamespace(), {}, [], [], "", ["first"])  # type: ignore[arg-type]

    monkeypatch.setattr(production, "_read", read)
    monkeypatch.setattr(standing_settings, "read_kept", lambda _: kept)
    monkeypatch.setattr(Ledger, "read", lambda _: LedgerState())
    clients: Any = SimpleNamespace(get=lambda _: None)
    found, known = production._read_all(settings.read_settings(committed(**present)), clients, "prod")
    assert seen == [found]
    return found, list(known.notes)


def test_production_is_read_by_the_standing_settings_on_a_way_back_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    pending = {"domainAliases": ["www.shop.example.com"]}
    kept = standing_settings.keep(settings.read_settings(committed()))
    assert read_with(monkeypatch, kept, **pending)[0].domain_aliases == ("www.shop.example.com",)
    found, notes = read_with(monkeypatch, kept, **pending, abort="v1.1.0")
    assert (found.domain_aliases, found.abort, notes) == ((), "v1.1.0", ["first"])
    found, notes = read_with(monkeypatch, "", **pending, abort="v1.1.0")
    assert found.domain_aliases == ("www.shop.example.com",)
    assert "goes by the present settings" in notes[-1]


def test_an_engine_that_does_not_answer_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("invoke of pulumi:pulumi:readStackOutputs failed")

    monkeypatch.setattr(pulumi.runtime, "invoke", broken)
    with pytest.raises(PreflightError, match="readStackOutputs"):
        standing_settings.read_kept("prod")


def test_the_access_to_an_existing_cluster_is_the_present_one() -> None:
    described = existing()["existing"]
    stood, present = (
        settings.read_settings(
            committed(cluster={"name": "shared", "existing": {**described, "kubeconfig": config, "natAddresses": nat}})
        )
        for config, nat in (("expired", ["203.0.113.1"]), ("renewed", ["203.0.113.2"]))
    )
    chosen = standing_settings.of_way_back(present, standing_settings.keep(stood)).cluster.existing
    assert chosen is not None
    assert (chosen.kubeconfig, chosen.nat_addresses) == ("renewed", ("203.0.113.1",))
