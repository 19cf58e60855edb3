"""This program as a system of the bench: what serves, what is at rest, and what is aborted."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import abort_failed, ours, run
from bench.images import Images
from bench.ours import Ours
from bench.undo import OursKept
from infra.release.state import LedgerState, Live, Open
from twin import config

TWIN = config.Twin("x", 1, Path("/nowhere"), Path("/nowhere"), True)
CONTENTS = {"blue": "v1.0.0", "green": "v1.1.0"}


def pod(colour: str, *, is_ready: bool = True, is_leaving: bool = False) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": "True" if is_ready else "False"}]
    leaving = {"deletionTimestamp": "2026-11-30T00:00:00Z"} if is_leaving else {}
    return {
        "metadata": {"name": f"shopcat-{colour}", "labels": {"shopcat/colour": colour}, **leaving},
        "status": {"conditions": conditions, "containerStatuses": [{"imageID": f"shopcat@{colour}"}]},
    }


def made(kind: type[Ours], tmp_path: Path, monkeypatch: Any, pods: list[Any], rules: list[Any], state: Any) -> Ours:
    images = Images(TWIN, tmp_path)
    images._contents = dict(CONTENTS)
    bench = SimpleNamespace(twin=TWIN, directory=tmp_path, write_settings=lambda _: tmp_path / "settings.yaml")
    system = kind(cast("Any", bench), images)
    monkeypatch.setattr(ours.pods, "list_pods", lambda *_: pods)
    monkeypatch.setattr(system, "_weights", lambda: rules)
    monkeypatch.setattr(system, "_ledger", lambda: state)
    return system


def weights(blue: int, green: int) -> dict[str, int]:
    return {"shopcat-blue": blue, "shopcat-green": green}


WEIGHTS = st.sampled_from([(100, 0), (0, 100), (90, 10), (0, 0)])


@given(st.lists(WEIGHTS, max_size=3), st.sampled_from([None, "blue", "green"]))
def test_what_serves_is_live_and_has_all_weight_in_every_rule(rules: list[tuple[int, int]], live: Any) -> None:
    state = LedgerState(live=Live("v9.9.9", 1, live) if live else None)
    with pytest.MonkeyPatch.context() as patch:
        listed = [pod("blue"), pod("green")]
        system = made(Ours, Path("/nowhere"), patch, listed, [weights(*rule) for rule in rules], state)
        serving = system.state().serving
    alone = {"blue": (100, 0), "green": (0, 100)}
    wanted = CONTENTS[live] if live and rules and set(rules) == {alone[live]} else ""
    assert serving == wanted


@pytest.mark.parametrize(
    ("pods", "at_rest", "kept_at_rest"),
    [
        ([pod("blue"), pod("blue")], True, True),
        ([pod("blue"), pod("blue"), pod("green"), pod("green")], False, True),
        ([pod("blue"), pod("blue"), pod("green", is_ready=False)], False, False),
        ([pod("blue"), pod("blue"), pod("green", is_leaving=True)], False, False),
        ([pod("blue"), pod("blue", is_leaving=True)], False, False),
        ([], False, False),
    ],
)
def test_every_pod_of_the_shop_counts_for_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pods: list[Any], at_rest: Any, kept_at_rest: Any
) -> None:
    state = LedgerState(live=Live("v1.0.0", 1, "blue"))
    for kind, wanted in ((Ours, at_rest), (OursKept, kept_at_rest)):
        found = made(kind, tmp_path, monkeypatch, pods, [weights(100, 0)], state).state()
        assert (kind, found.settled, found.unfinished) == (kind, wanted, "")


def test_a_shift_begins_with_the_first_weight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = [pod("blue"), pod("green")]
    for rules, shifting in (
        ([weights(100, 0), weights(100, 0)], False),
        ([weights(100, 0), weights(90, 10)], True),
        ([weights(90, 10), weights(100, 0)], True),
    ):
        system = made(Ours, tmp_path, monkeypatch, listed, rules, LedgerState())
        assert system.is_shifting("v1.1.0") is shifting
        assert not system.is_shifting("v1.2.0"), "no pod of it"


# The abort of a release that failed -------------------------------------------------------------------------------------


def opened(tag: str, kind: Any = "release") -> LedgerState:
    return LedgerState(open=Open(tag, 1, 1, "green", kind))


@pytest.mark.parametrize(
    ("state", "aborts"),
    [
        (opened("v1.1.0"), True),
        (opened("v1.2.0"), False),
        (opened("v1.1.0", "rollback"), False),
        (LedgerState(live=Live("v1.1.0", 1, "green")), False),
        (LedgerState(), False),
    ],
)
def test_only_the_open_release_of_that_tag_is_aborted(
    monkeypatch: pytest.MonkeyPatch, state: LedgerState, aborts: Any
) -> None:
    ran: list[tuple[list[str], str]] = []

    def execute(argv: list[str], *, env: dict[str, str], check: bool) -> Any:
        ran.append((argv, env["PULUMI_OPTION_CONFIG_FILE"]))
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(abort_failed, "aws_clients", lambda: SimpleNamespace(get=lambda _: None))
    monkeypatch.setattr(abort_failed, "Ledger", lambda *_: SimpleNamespace(read=lambda: state))
    monkeypatch.setattr(subprocess, "run", execute)
    assert abort_failed.main("v1.1.0", "other.yaml") == 0
    assert ran == ([(run.up_command({"abort": "v1.1.0"}), "other.yaml")] if aborts else [])
    assert "shopcat:abort=v1.1.0" in run.up_command({"abort": "v1.1.0"})


@pytest.mark.parametrize("code", [0, 3])
def test_an_update_that_failed_is_followed_by_a_command_and_keeps_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    pulumi = tmp_path / "pulumi"
    pulumi.write_text(f'#!/bin/sh\necho "pulumi $*"\nexit {code}\n')
    pulumi.chmod(0o755)
    monkeypatch.setattr(run, "environment", lambda *_: {"PATH": f"{tmp_path}:/usr/bin:/bin"})
    log = tmp_path / "up.log"
    process = run.start_up(TWIN, tmp_path, log, {"tag": "v1.1.0"}, if_it_fails=["echo", "it's", "aborted"])
    assert process.wait(30) == code
    first, *more = log.read_text().splitlines()
    assert first.endswith("-c shopcat:tag=v1.1.0")
    assert more == (["it's aborted"] if code else [])


def test_a_release_is_aborted_with_settings_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    names = iter("ab")
    system = made(Ours, tmp_path, monkeypatch, [], [], LedgerState())
    monkeypatch.setattr(system._bench, "write_settings", lambda _: tmp_path / next(names))
    monkeypatch.setattr(run, "start_up", lambda *arguments, **more: started.append((*arguments, more)))
    system.start("v1.1.0")
    ((_, settings, log, values, more),) = started
    *_, module, tag, abort_settings = more["if_it_fails"]
    assert (module, tag, values, log) == ("bench.abort_failed", "v1.1.0", {"tag": "v1.1.0"}, system.log)
    assert str(settings) != abort_settings, "`pulumi up -c` leaves the tag in its file"
