"""The restore drill's decisions, its order, and what it leaves where a step fails; where a rehearsal finds each order."""

import copy
import re
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import combinations
from pathlib import Path
from typing import Any

import boto3
import pytest
from hypothesis import given
from hypothesis import strategies as st
from moto import mock_aws

from bench import restore as rehearsal
from infra import settings
from infra.clients.aws import AwsClients
from infra.errors import ShopCatError
from infra.foundation.restored_database import MAY_REPEAT
from infra.release.ledger import Ledger, table_definition
from infra.release.state import Attempt, LedgerState, Live, Open, Release
from infra.settings.platform import Restore
from pipeline import restore_drill
from pipeline.errors import PipelineError
from pipeline.process import Finished
from tests.unit.releases import record
from tests.unit.test_settings import committed
from twin.errors import TwinError

START = datetime(2026, 11, 29, 10, tzinfo=UTC)
SECONDS = st.integers(0, 10_000)
HELD = f"v1.0.0-r2 has passed every check in blue and {restore_drill.HELD}, as asked"


# Decisions ------------------------------------------------------------------------------------------------------------


@given(SECONDS, SECONDS, SECONDS, st.one_of(st.none(), SECONDS), st.integers(0, 999_999))
def test_the_moment_is_one_that_can_be_restored(
    first: int, length: int, kept: int, asked: int | None, fraction: int
) -> None:
    made, latest = START + timedelta(seconds=first), START + timedelta(seconds=first + length, microseconds=fraction)

    def choose(text: str) -> str:
        return restore_drill.choose_moment(made, latest, timedelta(seconds=kept), text)

    if asked is None:
        assert timedelta(0) <= latest - datetime.fromisoformat(choose("")) < timedelta(seconds=1)
        return
    text = f"{START + timedelta(seconds=asked):%Y-%m-%dT%H:%M:%SZ}"
    if max(first, first + length - kept + bool(fraction)) <= asked <= first + length:
        assert choose(text) == text
        return
    with pytest.raises(PipelineError, match="RDS can restore from"):
        choose(text)


@pytest.mark.parametrize(
    "asked",
    [
        "now",
        "2026-11-29",
        "2026-11-29T10:00:00",
        "2026-11-29T10:00:00z",
        "2026-11-29T10:00:00+01:00",
        "2026-11-29T10:00:00.5Z",
        "2026-11-29T24:00:00Z",
        "2026-11-29T10:00:60Z",
        "2026-02-30T10:00:00Z",
        "2026-12-1T1:0:0Z",
        "\u0662026-12-01T10:00:00Z",
        " 2026-12-01T10:00:00Z",
    ],
)
def test_what_is_no_moment_is_refused_by_the_drill_and_by_the_settings(asked: str) -> None:
    with pytest.raises(PipelineError, match="no moment such as"):
        restore_drill.choose_moment(START, START + timedelta(days=9), timedelta(days=9), asked)
    with pytest.raises(ShopCatError, match=r"restore\.at"):
        settings.read_settings(committed(database={**committed()["database"], "restore": {"at": asked}}))


@given(
    st.dictionaries(st.sampled_from(["engineVersion", "poolSize", "restore"]), st.text(max_size=3)),
    st.one_of(st.none(), st.just({"at": "2026-11-29T10:00:00Z"})),
)
def test_settings_change_in_one_place(database: dict[str, str], wanted: dict[str, str] | None) -> None:
    document = {"secretsprovider": "x", "config": {"aws:region": "y", "shopcat:database": database}}
    before = copy.deepcopy(document)
    changed = restore_drill.with_restore(document, wanted)
    assert document == before, "the settings of the next step begin from the same ones"
    assert changed["config"]["shopcat:database"].pop("restore", None) == wanted
    database.pop("restore", None)
    assert changed == document


RELEASE = Release(record("v1.0.0"), "live", "blue", (Attempt(1, "", "", "", "2026-11-29T09:00:00+00:00", "live"),), 1)
LIVE = LedgerState(
    version=5, live=Live("v1.0.0", 1, "blue"), releases={RELEASE.name: RELEASE}, occupants={"blue": RELEASE.name}
)


def test_a_drill_meets_nothing_that_is_under_way() -> None:
    chosen = settings.read_settings(committed())
    restore_drill.refuse_unfit(chosen, LIVE)
    restoring = {**committed()["database"], "restore": {"at": "2026-11-29T10:00:00Z"}}
    for unfit, state, words in (
        (settings.read_settings(committed(database=restoring)), LIVE, "a restore is under way"),
        (chosen, replace(LIVE, open=Open("v1.1.0", 1, 1, "green", "release")), "release v1.1.0-r1 is open"),
        (chosen, LedgerState(version=1), "nothing is live"),
    ):
        with pytest.raises(PipelineError, match=words):
            restore_drill.refuse_unfit(unfit, state)


@given(st.integers(0, 8), st.integers(1, 8), st.sets(st.sampled_from("abc")), st.sets(st.sampled_from("abc")))
def test_a_restored_ledger_is_the_present_one_or_a_former_state_of_it(
    then: int, now: int, had: set[str], has: set[str]
) -> None:
    def at(version: int, names: set[str]) -> LedgerState:
        return LedgerState(version=version, releases=dict.fromkeys(sorted(names), RELEASE))

    restored, present = at(then, had), at(now, has)
    if then > now or had - has or then == 0:
        with pytest.raises(PipelineError, match=f"restored ledger is at version {then}"):
            restore_drill.compared(restored, present)
        return
    told = restore_drill.compared(restored, present)
    assert ("the same" in told) == (then == now and had == has)


@pytest.mark.parametrize(
    ("write", "begin", "end", "error"),
    [
        (restore_drill.written, restore_drill.BEGIN, restore_drill.END, PipelineError),
        (rehearsal.written, rehearsal.BEGIN, rehearsal.END, TwinError),
    ],
)
def test_the_page_is_written_between_its_marks(write: Any, begin: str, end: str, error: type[Exception]) -> None:
    page = restore_drill.PAGE.read_text()
    assert page.count(begin) == page.count(end) == 1
    once = write(page, "measured")
    assert write(once, "measured") == once
    assert re.sub(f"{begin}.*?{end}", "", once, flags=re.DOTALL) == re.sub(
        f"{begin}.*?{end}", "", page, flags=re.DOTALL
    )
    with pytest.raises(error, match="has lost its marks"):
        write(page.replace(end, ""), "measured")


# Its order, and where a step fails ------------------------------------------------------------------------------------


@dataclass
class FakeStack:
    """Pulumi's command line: which settings each update got, and what it answers. None may move traffic."""

    calls: list[str]
    fails_at: int = -1
    held: bool = True
    document: dict[str, Any] = field(default_factory=lambda: {"config": {"shopcat:database": {"engineVersion": "16"}}})

    def show(self, command: str, *options: str) -> Finished:
        restore = self.document["config"]["shopcat:database"].get("restore")
        where = "first" if restore is None else "restored, serves" if restore.get("serves") else "restored"
        assert options[-2:] == ("-c", "shopcat:holdTraffic=true")
        self.calls.append(f"{command}: {where} {' '.join(options[:-2])}".strip())
        if len(self.calls) - 1 == self.fails_at:
            return Finished(1, "error")
        if "shopcat:tag=v1.0.0" in options:
            return Finished(1, HELD) if self.held else Finished(0, "v1.0.0-r2 is live")
        return Finished(0, "")

    def changes(self) -> dict[str, int]:
        return {"same": 200}


ORDER = [
    "up: restored",
    "up: restored, serves",
    "up: restored, serves -c shopcat:tag=v1.0.0",
    "up: restored, serves -c shopcat:abort=v1.0.0",
    "up: restored",
    "up: first",
    "up: first",
]


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.setattr(
        restore_drill.process,
        "capture",
        lambda _: f"orders: rows|12\nNOTICE\norders.created_at: newest|10:00\nid: {MAY_REPEAT}|7",
    )
    with mock_aws():
        make: Any = boto3.client
        dynamodb = make("dynamodb", region_name="eu-central-1")
        dynamodb.create_table(**table_definition("shopcat-releases"))
        ledger = Ledger(dynamodb, "shopcat-releases")
        ledger.initialise()
        ledger._write(ledger.read(), replace(LIVE, version=2))
        make("rds", region_name="eu-central-1").create_db_instance(
            DBInstanceIdentifier="shopcat", Engine="postgres", DBInstanceClass="db.t4g.micro", MasterUsername="admin_",
            MasterUserPassword="nobody-uses-it", AllocatedStorage=20,
        )  # fmt: skip
        yield AwsClients("eu-central-1")


def drill(clients: AwsClients, stack: FakeStack) -> restore_drill.Drill:
    return restore_drill.Drill(stack, settings.read_settings(committed()), clients)  # type: ignore[arg-type]


def test_it_takes_each_step_and_leaves_the_settings_as_they_were(account: AwsClients) -> None:
    calls: list[str] = []
    made = drill(account, FakeStack(calls))
    made.run()
    assert calls == ORDER
    text = restore_drill.section(made.rows, "here:")
    assert "the same 1 release" in text
    assert f"orders: rows 12; orders.created_at: newest 10:00; id: {MAY_REPEAT} 7" in text
    assert "0 changes" in text
    assert account.get("dynamodb").list_tables()["TableNames"] == ["shopcat-releases"]


@pytest.mark.parametrize("step", range(len(ORDER)))
def test_a_step_that_fails_ends_it_and_points_to_the_way_back(account: AwsClients, step: int) -> None:
    calls: list[str] = []
    with pytest.raises(ShopCatError) as failed:
        drill(account, FakeStack(calls, fails_at=step)).run()
    expected = ORDER[: step + 1]
    # Only a release that was to be held is taken back at once: nothing else holds the slot.
    assert calls == ([*expected, ORDER[3]] if step == 2 else expected)
    assert "it was aborted" in str(failed.value) if step == 2 else '"A drill that stopped"' in str(failed.value)


def test_a_release_that_was_not_held_is_no_success(account: AwsClients) -> None:
    calls: list[str] = []
    with pytest.raises(PipelineError, match=r"v1\.0\.0 was not held: users are on the restored database"):
        drill(account, FakeStack(calls, held=False)).run()
    assert calls == ORDER[:3], "what is live can't be aborted"


def test_a_drill_beside_another_restore_is_refused_before_anything_is_touched(account: AwsClients) -> None:
    account.get("rds").create_db_instance(
        DBInstanceIdentifier="shopcat-restored", Engine="postgres", DBInstanceClass="db.t4g.micro",
        MasterUsername="admin_", MasterUserPassword="nobody-uses-it", AllocatedStorage=20,
    )  # fmt: skip
    calls: list[str] = []
    made = drill(account, FakeStack(calls))
    with pytest.raises(PipelineError, match="shopcat-restored is there: somebody else's drill"):
        made.run()
    assert (calls, made.rows) == ([], [])


def test_the_latest_moment_is_one_whose_copy_has_left_no_snapshot(account: AwsClients) -> None:
    """RDS refuses to delete an instance whose last snapshot would have a name that is taken."""
    made = drill(account, FakeStack([]))
    taken = [made._moment()]
    for _ in range(3):
        account.get("rds").create_db_snapshot(
            DBSnapshotIdentifier=Restore(at=taken[-1]).last_snapshot, DBInstanceIdentifier="shopcat"
        )
        latest = made._moment()
        assert latest not in taken
        taken.append(latest)


def test_a_moment_that_cannot_be_restored_is_refused_before_anything_is_touched(account: AwsClients) -> None:
    calls: list[str] = []
    made = replace(drill(account, FakeStack(calls)), asked="2020-01-01T00:00:00Z")
    with pytest.raises(PipelineError, match="RDS can restore from"):
        made.run()
    assert (calls, made.rows) == ([], [])


@dataclass
class World:
    """One stack, as updates leave it: where the secret leads, the release that is open, where users are."""

    secret: str = "first"
    opened: str = ""
    users: str = "first"

    def up(self, call: str, *, holds: bool) -> None:
        """Take an update as the program does: an open release is gone on with, by whoever runs the next one."""
        settings_of, _, option = call.removeprefix("up: ").partition(" -c shopcat:")
        wanted = "restored" if settings_of.endswith("serves") else "first"
        if option.startswith("abort"):
            self.opened = ""
        elif self.opened and self.opened != wanted:
            return  # refused
        elif option.startswith("tag") and not self.opened:
            if self.secret != wanted:
                return  # refused
            self.opened = wanted
        if self.opened and not holds:
            self.users, self.opened = self.opened, ""
        self.secret = wanted


def _users_after(first_at: tuple[int, ...], *, holds: bool) -> str:
    """Return where users are once two drills have run whose updates take turns."""
    world, drills = World(), (iter(ORDER), iter(ORDER))
    for turn in range(2 * len(ORDER)):
        call = next(drills[turn not in first_at])
        world.up(call, holds=holds or "tag=" in call)
    return world.users


def test_two_drills_at_once_move_no_user() -> None:
    """Both may have looked before either had restored anything; Pulumi's lock holds for one update, not for a drill."""
    turns = list(combinations(range(2 * len(ORDER)), len(ORDER)))
    assert {_users_after(first_at, holds=True) for first_at in turns} == {"first"}
    assert "restored" in {_users_after(first_at, holds=False) for first_at in turns}, "what holding each update is for"


def test_the_ways_back_are_in_the_guide() -> None:
    assert "### A drill that stopped" in Path(restore_drill.PAGE).read_text()


# Where orders are -----------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.booleans())))
def test_every_acknowledged_order_is_found_or_called_lost(places: list[tuple[int, int, bool]]) -> None:
    keys = [str(number) for number in range(len(places))]
    first = {key: place[0] for key, place in zip(keys, places, strict=True) if place[0]}
    restored = {key: place[1] for key, place in zip(keys, places, strict=True) if place[1]}
    before = {key for key, place in zip(keys, places, strict=True) if place[2]}
    found = rehearsal.place_orders(keys, first, restored, before)
    good = {(1, 0, False), (1, 0, True), (0, 1, False), (0, 1, True), (1, 1, True)}
    assert set(found.lost) == {key for key, place in zip(keys, places, strict=True) if place not in good}
    assert found.first + found.restored + len(found.lost) == found.acknowledged == len(keys)
