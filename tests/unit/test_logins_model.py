"""Passwords while updates end after any of their steps, in any order and beside a restored database."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from infra.errors import ShopCatError
from infra.foundation.secret_versions import refuse_other_database, restored_instance, restored_version
from infra.names import COLOURS, Colour, login_secret, other_colour
from infra.release.decide import Abort, Decision, Nothing, Rollback, Rotate, Tag, Wanted, decide
from infra.release.reads import refuse_database_misfit
from infra.release.record import Record
from infra.release.state import ONCE_LIVE, LedgerState
from infra.release.transitions import aborted, claimed, gone_live
from infra.settings.platform import DatabaseSettings
from tests.examples import examples
from tests.unit.releases import template
from tests.unit.test_logins import EMPTY, without_logins


@dataclass(frozen=True)
class Held:
    """What a pod signs in with, and where."""

    instance: str
    role: str
    password: str


Accepted: TypeAlias = dict[str, set[str]]


class Passwords(RuleBasedStateMachine):
    """Updates that end after any of their steps, and the passwords of the databases, the pods and the pods on their way out.

    The steps are those of the table in infra/release/logins.py, in its order; the decisions and refusals are the real ones. A
    second database is restored to any moment, serves, serves no more, is made anew of another moment, and goes.
    """

    @initialize(is_moved=st.booleans(), keeps_former=st.booleans())
    def start(self, *, is_moved: bool, keeps_former: bool) -> None:
        self.ledger, self.keeps_former = EMPTY, keeps_former
        self.database = DatabaseSettings()
        self.versions = ["first"]
        """Versions of the application's secret; the last one is current."""
        self.accepted: dict[str, Accepted] = {"shopcat": {"owner": {"owner"}, "blue": set(), "green": set()}}
        """Instance → database role → passwords it accepts."""
        self.moments: list[Accepted] = []
        """What the first instance accepted at each step."""
        self.restored_to = -1
        self.jobs: set[tuple[str, str]] = set()
        """Instance and claim of each Job that has run and is still declared."""
        self.pods: dict[Colour, set[Held]] = {"blue": set(), "green": set()}
        self.leaving: dict[Colour, set[Held]] = {"blue": set(), "green": set()}
        self.ended: set[str] = set()
        self.update(self.tag(1), 99)
        if not is_moved:
            self.ledger = without_logins(self.ledger)
            self.accepted["shopcat"] = {"owner": {"owner"}, "blue": set(), "green": set()}
            self.jobs.clear()
            self.pods = {"green": {Held("shopcat", "owner", "owner")}, "blue": set()}

    def instance_of(self, version: str) -> str:
        return restored_instance(version) or "shopcat"

    def tag(self, number: int, **changes: Any) -> Tag:
        return Tag(f"v{number}", template(number, secret_version=self.versions[-1], **changes))

    # An update

    def held(self, record: Record, colour: Colour) -> Held:
        instance = self.instance_of(record.template.secret_version)
        return Held(instance, colour, record.login.version) if record.login else Held(instance, "owner", "owner")

    def stop(self, colour: Colour, but: Held | None = None) -> None:
        gone = {each for each in self.pods[colour] if each != but}
        self.leaving[colour] |= gone
        self.pods[colour] -= gone

    def update(self, wanted: Wanted, steps: int) -> None:
        """Take the update's steps until it ends or is killed after some of them."""
        before = self.ledger
        try:
            decision = decide(wanted, before)
            if isinstance(wanted, Tag) and decision.action == "release":
                refuse_other_database(self.versions[-1], self.database.serving_restored)
            refuse_database_misfit(self.database, before, decision)
        except ShopCatError:
            return
        if decision.action == "release":
            self.ledger = claimed(before, decision, f"at {before.version:04}")
        for step in [*self.platform(), *self.steps(decision, before)][:steps]:
            step()
            self.moments.append(copy.deepcopy(self.accepted["shopcat"]))
            self.every_pod_may_sign_in()

    def platform(self) -> list[Callable[[], object]]:
        return [self.make_databases, self.lead_releases]

    def make_databases(self) -> None:
        restore, name = self.database.restore, self.database.restored_identifier
        if restore is None:
            self.accepted.pop(name, None)
            self.restored_to = -1
        elif self.restored_to != int(restore.at[11:13]):
            self.restored_to = int(restore.at[11:13])
            self.accepted[name] = copy.deepcopy(self.moments[self.restored_to % len(self.moments)])
            self.jobs = {each for each in self.jobs if each[0] != name}

    def lead_releases(self) -> None:
        serving = self.database.serving_restored
        if restored_instance(self.versions[-1]) != serving:
            self.versions.append(restored_version(serving) if serving else f"version {len(self.versions)}")

    def steps(self, decision: Decision, before: LedgerState) -> list[Callable[[], object]]:
        """List what an update does after its claim, in its order."""
        opened, record = decision.open, decision.record
        if opened is None or record is None:
            return self.plain_steps(before)
        colour, hold = opened.colour, self.held(record, opened.colour)
        other = other_colour(colour)
        if decision.action == "abort":
            return [*self.set_again(before, other), partial(self.stop, colour), partial(self.write, aborted)]
        instances = self.database.login_identifiers
        set_it = [
            partial(self.empty, colour, hold),
            *(partial(self.set_password, each, colour, record) for each in instances),
        ]
        return [
            *self.set_again(before, other),
            *(set_it if record.login else []),
            partial(self.start_pods, colour, hold),
            partial(self.write, gone_live),
            *([] if self.keeps_former and opened.kind != "rollback" else [partial(self.stop, other)]),
        ]

    def plain_steps(self, before: LedgerState) -> list[Callable[[], object]]:
        """A plain update ends what a killed one has left."""
        if before.live is None:
            return []
        idle = other_colour(before.live.colour)
        kept = before.kept_former if self.keeps_former else None
        hold = self.held(kept.record, idle) if kept else None
        return [
            *(step for each in COLOURS for step in self.set_again(before, each)),
            partial(self.stop, idle, but=hold),
        ]

    def set_again(self, before: LedgerState, colour: Colour) -> list[Callable[[], object]]:
        """What sets the password of the release that was last in a colour, where its Job has not run or is not declared."""
        name = before.occupants.get(colour)
        release = before.releases.get(name) if name else None
        if release is None or release.record.login is None or release.attempts[-1].outcome != "live":
            return []
        claim = release.record.login.claim
        return [
            partial(self.set_password, each, colour, release.record)
            for each in self.database.login_identifiers
            if (each, claim) not in self.jobs
        ]

    def write(self, change: Callable[[LedgerState], LedgerState]) -> None:
        self.ledger = change(self.ledger)
        self.jobs = {each for each in self.jobs if each[0] in self.database.login_identifiers}

    def start_pods(self, colour: Colour, hold: Held) -> None:
        if hold.role != "owner":
            self.only_passwords_of_now_are_accepted(hold.instance)
        self.pods[colour].add(hold)

    def empty(self, colour: Colour, hold: Held) -> None:
        self.stop(colour, but=hold)
        self.leaving[colour] &= {hold}

    def set_password(self, instance: str, colour: Colour, record: Record) -> None:
        login = record.login
        assert login is not None
        assert login.secret_id == login_secret(colour), "a password of the other colour's"
        assert login.version not in self.ended, "a password that has ended comes back"
        accepted = self.accepted[instance]
        self.ended |= accepted[colour] - {login.version}
        accepted[colour] = {login.version}
        if login.closes_owner:
            accepted["owner"] = set()
        self.jobs.add((instance, login.claim))

    tags = st.integers(1, 3)
    kills = st.one_of(st.just(99), st.integers(0, 9))

    @rule(number=tags, replicas=st.integers(1, 3), steps=kills)
    def release(self, number: int, replicas: int, steps: int) -> None:
        self.update(self.tag(number, replicas=replicas), steps)

    @rule(steps=kills)
    def plain(self, steps: int) -> None:
        self.update(Nothing(), steps)

    @rule(steps=kills)
    def abort(self, steps: int) -> None:
        if self.ledger.open:
            self.update(Abort(self.ledger.open.name), steps)

    @rule(steps=kills, number=st.integers(0, 9))
    def roll_back(self, steps: int, number: int) -> None:
        live = self.ledger.live
        names = [name for name, each in self.ledger.releases.items() if each.state in ONCE_LIVE]
        if live and len(names) > 1:
            self.update(
                Rollback(live.name, [name for name in names if name != live.name][number % (len(names) - 1)]), steps
            )

    @rule(steps=kills)
    def rotate(self, steps: int) -> None:
        if self.ledger.live:
            self.update(Rotate(self.ledger.live.name), steps)

    @rule(moment=st.integers(0, 23), steps=kills)
    def restore(self, moment: int, steps: int) -> None:
        """Another moment makes the instance anew: not while it serves, which protects it, nor while pods use it."""
        name = self.database.restored_identifier
        if self.database.serving_restored or any(each.instance == name for one in self.pods.values() for each in one):
            return
        self.database = DatabaseSettings.model_validate({"restore": {"at": f"2026-11-29T{moment:02}:00:00Z"}})
        self.update(Nothing(), steps)

    @rule(steps=kills, serves=st.booleans())
    def releases_are_led(self, steps: int, *, serves: bool) -> None:
        if self.database.restore:
            restore = {"at": self.database.restore.at, "serves": serves}
            self.database = DatabaseSettings.model_validate({"restore": restore})
            self.update(Nothing(), steps)

    @rule(steps=kills)
    def restored_database_goes(self, steps: int) -> None:
        name = self.database.restored_identifier
        if self.database.serving_restored or any(each.instance == name for one in self.pods.values() for each in one):
            return
        self.database = DatabaseSettings()
        self.update(Nothing(), steps)

    @rule()
    def another_image_of_psql(self) -> None:
        """Each Job runs again with the next update."""
        self.jobs.clear()

    @rule(colour=st.sampled_from(COLOURS))
    def pods_have_ended(self, colour: Colour) -> None:
        self.leaving[colour].clear()

    @invariant()
    def every_pod_may_sign_in(self) -> None:
        for colour in COLOURS:
            for each in self.pods[colour] | self.leaving[colour]:
                # What is on its way out may outlive a restored database.
                accepted = self.accepted.get(each.instance)
                assert accepted is not None or each in self.leaving[colour], "a database goes under its pods"
                assert accepted is None or each.password in accepted[each.role], f"a pod of {colour} is refused"

    def only_passwords_of_now_are_accepted(self, instance: str) -> None:
        """Both colours' roles accept what was last made for them and no other, before a pod of a release uses a database."""
        for colour, name in self.ledger.occupants.items():
            release = self.ledger.releases[name]
            if release.record.login and (
                name == (self.ledger.open and self.ledger.open.name) or release.attempts[-1].outcome == "live"
            ):
                assert self.accepted[instance][colour] == {release.record.login.version}, "a password of before"

    @invariant()
    def nothing_else_is_accepted(self) -> None:
        """Each colour's role accepts one password; the owner's ends with the move, where pods are."""
        for accepted in self.accepted.values():
            assert all(len(accepted[colour]) <= 1 for colour in COLOURS)
        live, record = self.ledger.live, self.ledger.live_record
        if self.ledger.open is not None or live is None or record is None or record.login is None:
            return
        accepted = self.accepted[self.instance_of(record.template.secret_version)]
        assert accepted[live.colour] == {record.login.version}
        if record.login.closes_owner:
            assert accepted["owner"] == set(), "the owner's password outlived the move"

    def teardown(self) -> None:
        """Two releases later nothing that was accepted is, in the database that they use."""
        if not hasattr(self, "ledger"):
            return
        if self.ledger.open:
            self.update(Abort(self.ledger.open.name), 99)
        self.update(Nothing(), 99)
        was = {each for accepted in self.accepted.values() for passwords in accepted.values() for each in passwords}
        for number in (8, 9):
            self.update(self.tag(number), 99)
            assert self.ledger.open is None
            assert self.ledger.live
            assert self.ledger.live.tag == f"v{number}"
        now = set[str]().union(*self.accepted[self.database.serving_identifier].values())
        assert not was & now, "a password outlived two releases"


Passwords.TestCase.settings = settings(
    max_examples=examples(200), stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
TestPasswords = Passwords.TestCase
