"""Every cell of the ledger's table, the writes behind it on DynamoDB, and races between two checkouts."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from moto import mock_aws

from infra.commands import releases
from infra.errors import LedgerConflictError, LedgerUnavailableError, ShopCatError
from infra.names import other_colour
from infra.release.decide import Abort, Decision, Nothing, Rollback, Tag, Wanted, decide
from infra.release.ledger import Ledger, table_definition
from infra.release.record import Provenance
from infra.release.session import Session
from infra.release.state import LedgerState, table_rows
from infra.release.transitions import aborted, claimed, gone_live
from tests.unit.releases import TABLE, client, digest, template

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BY = Provenance(who="ann", commit="abc1234", run="42")


def tag(name: str, number: int, **changes: Any) -> Tag:
    return Tag(name, template(number, **changes), BY)


def release(state: LedgerState, wanted: Wanted) -> LedgerState:
    return gone_live(claim(state, wanted))


def claim(state: LedgerState, wanted: Wanted) -> LedgerState:
    return claimed(state, decide(wanted, state), f"2026-11-24T10:{state.version:02}:00+00:00")


EMPTY = LedgerState(version=1)
FIRST = release(EMPTY, tag("v1.0.0", 1))
SECOND = release(FIRST, tag("v1.1.0", 2))
THIRD = release(SECOND, tag("v1.2.0", 3))
OPEN = claim(SECOND, tag("v1.2.0", 3))
FIRST_OPEN = claim(EMPTY, tag("v1.0.0", 1))
ABORTED = aborted(OPEN)
ROLLING_BACK = claim(SECOND, Rollback("v1.1.0", "v1.0.0"))


def refused(state: LedgerState, wanted: Wanted, *words: str) -> None:
    with pytest.raises(ShopCatError) as caught:
        decide(wanted, state)
    for word in words:
        assert word in str(caught.value), str(caught.value)


def decided(state: LedgerState, wanted: Wanted, action: str) -> Decision:
    decision = decide(wanted, state)
    assert decision.action == action, decision.message
    return decision


# wanted: nothing


def test_nothing_wanted_nothing_ever_live_is_the_platform_alone() -> None:
    decided(EMPTY, Nothing(), "platform")


def test_nothing_wanted_the_live_release_stays() -> None:
    assert "v1.1.0-r1 is live" in decided(SECOND, Nothing(), "stay").message


@pytest.mark.parametrize("state", [OPEN, FIRST_OPEN, ROLLING_BACK])
def test_nothing_wanted_an_open_release_goes_on_and_says_so(state: LedgerState) -> None:
    decision = decided(state, Nothing(), "resume")
    assert decision.open == state.open
    assert "goes on with" in decision.message
    assert "shopcat:abort=" in decision.message


# wanted: a tag


def test_the_live_tag_stays() -> None:
    decided(SECOND, tag("v1.1.0", 2), "stay")


def test_the_live_tag_stays_also_when_the_registry_has_lost_it() -> None:
    decided(SECOND, Tag("v1.1.0", None, absent="gone"), "stay")


def test_the_live_tag_with_another_input_is_the_next_revision_in_the_idle_colour() -> None:
    decision = decided(SECOND, tag("v1.1.0", 2, replicas=1), "release")
    assert decision.open is not None
    assert decision.open.revision == 2
    assert decision.open.colour == other_colour(SECOND.live.colour)  # type: ignore[union-attr]


def test_the_live_tag_with_another_digest_is_refused() -> None:
    refused(SECOND, tag("v1.1.0", 9), digest(2), digest(9), "keeps its digest for ever")


def test_the_live_tag_while_another_is_open_is_refused_with_both_commands() -> None:
    refused(OPEN, tag("v1.1.0", 2), "v1.2.0-r1 is open", "go on: pulumi up -s prod", "shopcat:abort=v1.2.0")


def test_the_open_tag_goes_on() -> None:
    assert decided(OPEN, tag("v1.2.0", 3), "resume").open == OPEN.open


def test_the_open_tag_with_another_digest_is_refused() -> None:
    refused(OPEN, tag("v1.2.0", 9), digest(3), digest(9))


@pytest.mark.parametrize(("state", "colour"), [(EMPTY, "green"), (FIRST, "blue"), (SECOND, "green")])
def test_a_new_tag_is_claimed_for_the_idle_colour(state: LedgerState, colour: str) -> None:
    decision = decided(state, tag("v9.0.0", 9), "release")
    assert decision.open is not None
    assert (decision.open.revision, decision.open.attempt, decision.open.colour) == (1, 1, colour)


@pytest.mark.parametrize(
    ("state", "after", "allowed"),
    [
        (SECOND, "v1.1.0-r1", True),
        (SECOND, "", True),
        (SECOND, "v1.0.0-r1", False),
        (SECOND, "nothing", False),
        (EMPTY, "nothing", True),
        (EMPTY, "v1.1.0-r1", False),
    ],
)
def test_a_commit_is_released_only_onto_what_it_was_compared_with(
    state: LedgerState, after: str, *, allowed: bool
) -> None:
    wanted = Tag("v1.2.0", template(3), replace(BY, after=after))
    if allowed:
        decided(state, wanted, "release")
    else:
        refused(state, wanted, "was found to be newer than", "run the job again")


def test_a_new_tag_the_registry_does_not_have_is_refused() -> None:
    refused(SECOND, Tag("v9.0.0", None, absent="no image v9.0.0; there are v1.0.0"), "there are v1.0.0")


def test_a_new_tag_while_one_is_open_is_refused() -> None:
    refused(OPEN, tag("v9.0.0", 9), "v1.2.0-r1 is open", "shopcat:abort=v1.2.0")


@pytest.mark.parametrize("state", [SECOND, THIRD])
def test_a_tag_that_was_live_is_refused_with_its_record(state: LedgerState) -> None:
    assert state.live is not None
    refused(state, tag("v1.0.0", 1), "released before", digest(1), "ann", f"rollback={state.live.tag}->v1.0.0")


def test_a_tag_that_was_live_is_refused_while_one_is_open() -> None:
    refused(OPEN, tag("v1.0.0", 1), "v1.2.0-r1 is open")


def test_an_aborted_tag_is_tried_again_as_a_new_attempt_in_its_record() -> None:
    decision = decided(ABORTED, tag("v1.2.0", 3), "release")
    assert decision.open is not None
    assert (decision.open.revision, decision.open.attempt) == (1, 2)
    again = claimed(ABORTED, decision, "later")
    assert [attempt.outcome for attempt in again.releases["v1.2.0-r1"].attempts] == ["aborted", ""]


def test_an_aborted_tag_with_another_digest_is_refused() -> None:
    refused(ABORTED, tag("v1.2.0", 9), "keeps its digest for ever")


def test_an_aborted_tag_with_mended_settings_is_its_next_revision() -> None:
    decision = decided(ABORTED, tag("v1.2.0", 3, memory_mebibytes=400), "release")
    assert decision.open is not None
    assert decision.open.name == "v1.2.0-r2"


def test_an_aborted_tag_is_refused_while_another_is_open() -> None:
    refused(claim(ABORTED, tag("v1.3.0", 4)), tag("v1.2.0", 3), "v1.3.0-r1 is open")


# wanted: abort


@pytest.mark.parametrize("state", [OPEN, FIRST_OPEN])
def test_the_open_release_is_aborted(state: LedgerState) -> None:
    assert state.open is not None
    decision = decided(state, Abort(state.open.tag), "abort")
    after = aborted(state)
    assert after.open is None
    assert after.live == state.live
    assert after.intent != state.intent
    assert after.releases[state.open.name].state == "aborted"
    assert decision.open == state.open


def test_an_abort_that_is_done_changes_nothing() -> None:
    decided(ABORTED, Abort("v1.2.0"), "stay")
    decided(aborted(FIRST_OPEN), Abort("v1.0.0"), "platform")
    decided(aborted(ROLLING_BACK), Abort("v1.0.0"), "stay")


def test_an_abort_of_what_is_not_open_is_refused() -> None:
    refused(OPEN, Abort("v1.1.0"), "the open release is v1.2.0-r1")
    refused(SECOND, Abort("v1.1.0"), "it is live", "rollback")
    refused(SECOND, Abort("v7"), "doesn't know it")


def test_an_abort_of_a_live_tag_is_refused_whatever_became_of_its_earlier_revision() -> None:
    once_aborted = aborted(claim(FIRST, tag("v1.1.0", 2)))
    live = release(once_aborted, tag("v1.1.0", 2, replicas=1))
    refused(live, Abort("v1.1.0"), "it is live", "rollback=v1.1.0->")
    decided(live, Abort("v1.1.0-r1"), "stay")


def test_an_aborted_rollback_leaves_the_former_release_as_it_was() -> None:
    after = aborted(ROLLING_BACK)
    assert after.releases["v1.0.0-r1"].state == "former"
    decided(after, Rollback("v1.1.0", "v1.0.0"), "release")


# wanted: rollback


def test_a_rollback_takes_the_former_record_whole_into_the_idle_colour() -> None:
    decision = decided(SECOND, Rollback("v1.1.0", "v1.0.0"), "release")
    assert decision.open is not None
    assert decision.open.kind == "rollback"
    assert decision.record == SECOND.releases["v1.0.0-r1"].record
    after = release(SECOND, Rollback("v1.1.0", "v1.0.0"))
    assert {name: each.state for name, each in after.releases.items()} == {"v1.0.0-r1": "live", "v1.1.0-r1": "former"}


def test_a_rollback_that_is_done_changes_nothing() -> None:
    decided(release(SECOND, Rollback("v1.1.0", "v1.0.0")), Rollback("v1.1.0", "v1.0.0"), "stay")


def test_a_rollback_under_way_goes_on() -> None:
    decided(ROLLING_BACK, Rollback("v1.1.0", "v1.0.0"), "resume")


def test_a_rollback_is_refused_while_a_release_is_open() -> None:
    refused(OPEN, Rollback("v1.1.0", "v1.0.0"), "refused while release v1.2.0-r1 is open")


def test_a_rollback_from_what_is_not_live_is_refused() -> None:
    refused(THIRD, Rollback("v1.1.0", "v1.0.0"), "v1.2.0-r1 is live, not v1.1.0")
    refused(EMPTY, Rollback("v1.1.0", "v1.0.0"), "nothing is live")


def test_a_rollback_to_what_was_never_live_is_refused() -> None:
    refused(ABORTED, Rollback("v1.1.0", "v1.2.0"), "was never live", "v1.0.0")


def test_a_rollback_past_a_release_that_contracts_is_refused() -> None:
    contracted = release(FIRST, tag("v1.1.0", 2, contracts=True))
    refused(contracted, Rollback("v1.1.0", "v1.0.0"), "v1.1.0-r1 is marked `contracts`")
    later = release(contracted, tag("v1.2.0", 3))
    refused(later, Rollback("v1.2.0", "v1.0.0"), "contracts")
    decided(later, Rollback("v1.2.0", "v1.1.0"), "release")


def test_a_migration_that_ran_before_its_release_was_aborted_counts() -> None:
    contracted = aborted(claim(SECOND, tag("v1.2.0", 3, contracts=True)))
    refused(contracted, Rollback("v1.1.0", "v1.0.0"), "v1.2.0-r1 is marked `contracts`")


def test_after_a_rollback_the_way_forward_is_open_though_the_target_contracts() -> None:
    contracted = release(FIRST, tag("v1.1.0", 2, contracts=True))
    back = release(release(contracted, tag("v1.2.0", 3)), Rollback("v1.2.0", "v1.1.0"))
    decided(back, Rollback("v1.1.0", "v1.2.0"), "release")
    refused(back, Rollback("v1.1.0", "v1.0.0"), "v1.1.0-r1 is marked `contracts`")


def test_a_rollback_between_revisions_of_one_tag_names_them() -> None:
    state = release(SECOND, tag("v1.1.0", 2, replicas=1))
    decision = decided(state, Rollback("v1.1.0-r2", "v1.1.0-r1"), "release")
    assert decision.record == state.releases["v1.1.0-r1"].record


@pytest.mark.parametrize("text", ["", "v1", "v1->", "->v1", "v1-v2"])
def test_a_rollback_is_written_from_to(text: str) -> None:
    with pytest.raises(ShopCatError, match="expected <live tag>-><former tag>"):
        Rollback.parse(text)


# The table in DynamoDB


@pytest.fixture
def open_ledger() -> Iterator[Callable[[], Ledger]]:
    with mock_aws():
        client("dynamodb").create_table(**table_definition(TABLE))
        ledger = Ledger(client("dynamodb"), TABLE)
        assert ledger.initialise()
        assert not ledger.initialise(), "a second bootstrap changes nothing"
        yield lambda: Ledger(client("dynamodb"), TABLE)


def test_a_release_through_the_table(open_ledger: Callable[[], Ledger]) -> None:
    ledger = open_ledger()
    for number, name in enumerate(["v1.0.0", "v1.1.0", "v1.2.0"], start=1):
        state = ledger.read()
        session = Session(ledger, state, decide(tag(name, number), state))
        session.take()
        session.take()
        session.refuse_overtaken()
        assert open_ledger().read().open is not None
        session.go_live()
    state = open_ledger().read()
    assert [state.releases[f"v1.{minor}.0-r1"].state for minor in range(3)] == ["retired", "former", "live"]
    assert state.live is not None
    assert (state.live.tag, state.live.colour) == ("v1.2.0", "green")
    assert state.occupants == {"green": "v1.2.0-r1", "blue": "v1.1.0-r1"}
    assert table_rows(state)[0]["who"] == "ann"
    heading, youngest, *_ = releases.lines(table_rows(state))
    assert heading.split() == ["TAG", "REVISION", "STATE", "COLOUR", "WHEN", "WHO", "COMMIT", "DIGEST"]
    assert youngest.split()[:4] == ["v1.2.0", "1", "live", "green"]
    assert heading.index("WHO") == youngest.index("ann")


def test_of_two_checkouts_with_two_tags_one_wins(open_ledger: Callable[[], Ledger]) -> None:
    mine, theirs = open_ledger(), open_ledger()
    my_state, their_state = mine.read(), theirs.read()
    Session(mine, my_state, decide(tag("v1.0.0", 1), my_state)).take()
    with pytest.raises(LedgerConflictError, match=r"v1\.0\.0-r1 holds the slot") as caught:
        Session(theirs, their_state, decide(tag("v1.1.0", 2), their_state)).take()
    assert "shopcat:abort=v1.0.0" in str(caught.value)
    assert list(open_ledger().read().releases) == ["v1.0.0-r1"]


def test_who_was_overtaken_can_not_go_live(open_ledger: Callable[[], Ledger]) -> None:
    mine, theirs = open_ledger(), open_ledger()
    state = mine.read()
    first = Session(mine, state, decide(tag("v1.0.0", 1), state))
    first.take()
    found = theirs.read()
    second = Session(theirs, found, decide(Abort("v1.0.0"), found))
    second.take()
    with pytest.raises(LedgerConflictError):
        first.refuse_overtaken()
    with pytest.raises(LedgerConflictError):
        first.go_live()
    second.abort()
    assert open_ledger().read().releases["v1.0.0-r1"].state == "aborted"
    assert open_ledger().read().live is None


def test_a_hook_that_looks_while_another_writes_sees_no_stranger() -> None:
    writing, go_on = threading.Event(), threading.Event()

    class Slow:
        state = LedgerState(version=1)

        def claim(self, state: LedgerState, decision: Decision) -> LedgerState:
            self.state = claimed(state, decision, "now")
            writing.set()
            assert go_on.wait(10)
            return self.state

        def read(self) -> LedgerState:
            return self.state

    slow = Slow()
    session = Session(slow, slow.state, decide(tag("v1.0.0", 1), slow.state))  # type: ignore[arg-type]
    with ThreadPoolExecutor(2) as pool:
        taking = pool.submit(session.take)
        assert writing.wait(10)
        looking = pool.submit(session.refuse_overtaken)
        with pytest.raises(TimeoutError):  # the write has arrived, its answer has not
            looking.result(0.2)
        go_on.set()
        assert taking.result()
        looking.result()


def test_a_lost_answer_is_no_conflict(open_ledger: Callable[[], Ledger], monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = open_ledger()
    state = ledger.read()
    decision = decide(tag("v1.0.0", 1), state)
    monkeypatch.setattr(ledger, "_now", lambda: "same")
    ledger.claim(state, decision)
    assert ledger.claim(state, decision).open == decision.open


def test_two_updates_never_both_hold_the_open_release(open_ledger: Callable[[], Ledger]) -> None:
    """Going on writes nothing but a version; of two that go on from the same reading, one has to be refused."""
    ledger = open_ledger()
    ledger.claim(ledger.read(), decide(tag("v1.0.0", 1), ledger.read()))
    seen = ledger.read()
    first, second = (Session(open_ledger(), seen, decide(Nothing(), seen)) for _ in range(2))
    assert first.take()
    with pytest.raises(LedgerConflictError, match="another update was first"):
        second.take()
    first.go_live()
    with pytest.raises(LedgerConflictError):
        second.go_live()


def test_many_releases_are_read_page_by_page(open_ledger: Callable[[], Ledger]) -> None:
    ledger = open_ledger()
    for number in range(1, 6):
        state = ledger.read()
        session = Session(ledger, state, decide(tag(f"v{number}", number, environment={"LARGE": "x" * 390_000}), state))
        session.go_live()
    assert len(open_ledger().read().releases) == 5, "more than one page of a scan (1 MB)"


def test_no_table_says_bootstrap() -> None:
    with mock_aws(), pytest.raises(LedgerUnavailableError, match="make bootstrap"):
        Ledger(client("dynamodb"), TABLE).read()


def test_an_unreachable_ledger_is_unknown() -> None:
    class Down:
        def get_item(self, **_: object) -> None:
            raise EndpointConnectionError(endpoint_url="https://dynamodb.example")

    with pytest.raises(LedgerUnavailableError, match="unknown and nothing is done"):
        Ledger(Down(), TABLE).read()


@pytest.mark.parametrize("write", ["claim", "hold", "initialise"])
def test_a_ledger_that_can_not_be_written_is_not_said_to_be_unreadable(
    open_ledger: Callable[[], Ledger], monkeypatch: pytest.MonkeyPatch, write: str
) -> None:
    store = open_ledger()
    state = store.read()

    def denied(**_: Any) -> None:
        raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no PutItem"}}, "TransactWriteItems")

    monkeypatch.setattr(store._client, "transact_write_items", denied)
    monkeypatch.setattr(store._client, "put_item", denied)
    steps: dict[str, Callable[[], object]] = {
        "claim": lambda: store.claim(state, decide(tag("v1.0.0", 1), state)),
        "hold": lambda: store.hold(state),
        "initialise": store.initialise,
    }
    with pytest.raises(LedgerUnavailableError, match=r"can't be written: .*no PutItem.* run it again") as refused:
        steps[write]()
    assert "can't be read" not in str(refused.value)


def test_nonsense_in_the_table_is_unknown(open_ledger: Callable[[], Ledger]) -> None:
    ledger = open_ledger()
    item = {"pk": {"S": "release#v1#1"}, "state": {"S": "live"}, "document": {"S": "{}"}}
    client("dynamodb").put_item(TableName=TABLE, Item=item)
    with pytest.raises(LedgerUnavailableError, match="release#v1#1"):
        ledger.read()


class Releases(RuleBasedStateMachine):
    """Any wishes in any order, from two checkouts that may have read too early: the ledger never breaks its rules."""

    @initialize()
    def start(self) -> None:
        self.aws = mock_aws()
        self.aws.start()
        client("dynamodb").create_table(**table_definition(TABLE))
        self.ledger = Ledger(client("dynamodb"), TABLE)
        self.ledger.initialise()
        self.stale: LedgerState = self.ledger.read()
        self.digests: dict[str, str] = {}
        self.lives: list[str] = []

    def teardown(self) -> None:
        if hasattr(self, "aws"):
            self.aws.stop()

    @rule()
    def another_checkout_reads(self) -> None:
        self.stale = self.ledger.read()

    @rule(
        wanted=st.one_of(
            st.just(Nothing()),
            st.builds(
                lambda name, number, replicas: tag(name, number, replicas=replicas),
                st.sampled_from(["v1", "v2", "v3"]),
                st.integers(1, 3),
                st.integers(1, 2),
            ),
            st.builds(Abort, st.sampled_from(["v1", "v2", "v3"])),
            st.builds(Rollback, st.sampled_from(["v1", "v2", "v3"]), st.sampled_from(["v1", "v2", "v3"])),
        ),
        stale=st.booleans(),
        finish=st.sampled_from(["nothing", "take", "all"]),
    )
    def update(self, wanted: Wanted, stale: bool, finish: str) -> None:  # noqa: FBT001
        before = self.ledger.read()
        seen = self.stale if stale else before
        try:
            decision = decide(wanted, seen)
            # Each update is a process with a ledger of its own.
            session = Session(Ledger(client("dynamodb"), TABLE), seen, decision)
            if finish == "nothing" or not decision.moves:
                return
            session.take()
            if finish == "all" and decision.action == "abort":
                session.abort()
            elif finish == "all":
                session.go_live()
        except ShopCatError:
            assert self.ledger.read() == before, "what was refused wrote nothing"
            return
        assert seen.version == before.version, "only what was decided on the newest state is written"
        after = self.ledger.read()
        if after.live != before.live and after.live:
            if after.live.name in self.lives:
                assert decision.open is not None
                assert decision.open.kind == "rollback", "only a rollback brings a release back"
            self.lives.append(after.live.name)

    @invariant()
    def rules(self) -> None:
        if not hasattr(self, "ledger"):
            return
        state = self.ledger.read()
        states = [each.state for each in state.releases.values()]
        assert states.count("live") == (1 if state.live else 0)
        assert states.count("former") <= 1
        claimed = [name for name, each in state.releases.items() if each.state == "claimed"]
        if state.open and state.open.kind == "release":
            assert claimed == [state.open.name]
        else:
            assert claimed == []
        if state.live:
            assert state.releases[state.live.name].state == "live"
            assert state.occupants[state.live.colour] == state.live.name, "nothing else is put into the live colour"
        if state.open and state.live:
            assert state.open.colour != state.live.colour
        for each in state.releases.values():
            assert self.digests.setdefault(each.record.tag, each.record.digest) == each.record.digest


Releases.TestCase.settings = settings(
    max_examples=12, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
TestReleases = Releases.TestCase
