"""Any order of steps, failures, releases, kills and other people: each write is held against the oracle of `traffic_world`."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from moto import mock_aws

from infra.commands.takeover_dns import choose_move
from infra.commands.traffic_move.rules import LiveRelease, RequestCounts, next_limit
from infra.errors import ShopCatError
from tests.unit.traffic_world import EXTERNAL, GONE, HOST, NEW, OLD, TrafficWorld

PERCENTS = st.sampled_from([0, 1, 5, 10, 49, 50, 51, 100, 101, -1])
STEPS = st.one_of(
    st.tuples(st.just("weight"), PERCENTS),
    st.tuples(st.sampled_from(["split", "back", "finish", "status"]), st.just(0)),
)


class Move(RuleBasedStateMachine):
    world: ClassVar[TrafficWorld]
    seen: ClassVar[set[str]]
    messages: ClassVar[list[str]]

    @initialize(kind=st.sampled_from(["alias", "cname"]), weight=st.sampled_from([None, 0, 10, 50, 100]))
    def begin(self, kind: str, weight: int | None) -> None:
        self.world.reset()
        self.world.put(self.world.alias() if kind == "alias" else self.world.cname(ttl=60))
        if weight is not None:
            move = self.world.mover()
            move.zone.write(move.zone.read(self.world.new), self.world.new, weight)

    @rule()
    def goes_up(self) -> None:
        share = max(parts[NEW] for parts in self.world.shares().values())
        self.run(("weight", next_limit(round(100 * share))))

    @rule()
    def goes_back(self) -> None:
        self.run(("back", 0))

    def run(self, step: tuple[str, int]) -> None:
        name, percent = step
        move = self.world.mover()
        call: dict[str, Any] = {
            "weight": lambda: move.weight(percent),
            "finish": lambda: move.finish(24 * 60, 0),
            "split": move.split,
            "back": move.back,
            "status": move.status,
        }
        try:
            call[name]()
            self.seen.add(f"{name} done")
        except ShopCatError as error:
            self.seen.add(f"{name} {type(error).__name__}")
            self.messages.append(str(error))

    @rule(step=STEPS)
    def step(self, step: tuple[str, int]) -> None:
        self.run(step)

    @rule(step=STEPS, number=st.integers(1, 12), when=st.sampled_from(["before", "after"]))
    def killed(self, step: tuple[str, int], number: int, when: str) -> None:
        if self.world.stop_at(number, when, lambda: self.run(step)):
            self.seen.add("killed")

    @rule(step=STEPS, other=STEPS)
    def two_people(self, step: tuple[str, int], other: tuple[str, int]) -> None:
        self.world.meanwhile = lambda: self.run(other)
        self.run(step)
        self.world.meanwhile = None

    @rule(name=st.sampled_from([OLD, NEW]), after=st.sampled_from([None, 0, 5, 40]))
    def fails(self, name: str, after: int | None) -> None:
        begin = self.world.seconds
        self.world.broken[name] = lambda second: after is not None and second >= begin + after

    @rule(live=st.sampled_from(["", "v1.0.0-r1"]), opened=st.sampled_from(["", "", "v1.1.0-r1"]))
    def release(self, live: str, opened: str) -> None:
        self.world.release = LiveRelease(live, opened)

    @rule(requests=st.sampled_from([0, 0, 1]), reported=st.sampled_from([288, 288, 0]))
    def counted(self, requests: int, reported: int) -> None:
        self.world.counts = RequestCounts(requests, 0, 288, reported)

    @rule(again=st.booleans())
    def new_one_is_deleted(self, *, again: bool) -> None:
        self.world.delete_new()
        if again:
            self.world.make_new(f"{NEW}-{self.world.calls}-{int(self.world.seconds)}.elb.amazonaws.com")

    @invariant()
    def users_have_one_of_both(self) -> None:
        if not any(record.name == f"{HOST}." for record in self.world.backend.rrsets):
            return  # before `begin`
        for parts in self.world.shares().values():
            assert sum(parts.values()) == pytest.approx(1)

    @invariant()
    def back_is_in_reach_of_every_pair(self) -> None:
        records = list(self.world.backend.rrsets)
        if not any(record.set_identifier for record in records):
            return
        world = self.world
        kept = {name: getattr(world, name) for name in ("broken", "release", "seconds", "said")}
        world.broken, world.release, world.said = {NEW: lambda _: True}, LiveRelease(), []
        move = choose_move(world.clients, EXTERNAL, "")
        replace(move, ask=world.ask, say=world.said.append, clock=world.clock()).back()
        assert all(parts == {OLD: 1.0, NEW: 0.0} for parts in world.shares().values())
        world.backend.rrsets = records
        for name, value in kept.items():
            setattr(world, name, value)

    @invariant()
    def status_says_where_users_are_sent(self) -> None:
        pairs = [record for record in self.world.backend.rrsets if record.set_identifier]
        if not pairs:
            return
        kept, self.world.said = self.world.said, []
        self.world.mover().status()
        (line,) = [each for each in self.world.said if each.startswith("  records")]
        self.world.said = kept
        share = max(int(record.weight) for record in pairs if record.set_identifier == "shopcat-new")
        gone = any(parts.get(GONE) for parts in self.world.shares().values())
        assert f"{100 - share} % old, {share} % " in line
        assert ("which is not the new load balancer; run" in line) == gone
        if gone:
            self.seen.add("users sent nowhere")


def test_no_order_of_events_sends_users_to_what_does_not_answer() -> None:
    Move.seen, Move.messages = set(), []
    with mock_aws(), pytest.MonkeyPatch.context() as patch:
        Move.world = TrafficWorld(patch)
        run_state_machine_as_test(
            Move,
            settings=settings(
                max_examples=30,
                stateful_step_count=15,
                deadline=None,
                derandomize=True,
                suppress_health_check=list(HealthCheck),
            ),
        )
    # The orders that were tried came to what they are about.
    assert Move.seen >= {"weight done", "back done", "killed", "weight PreflightError", "users sent nowhere"}
    remedy = re.compile(
        r"\brun\b|\bset\b|\bmend\b|\bwait\b|expected|release one first|let it end|begin with|By hand", re.IGNORECASE
    )
    assert [message for message in Move.messages if not remedy.search(message)] == []
