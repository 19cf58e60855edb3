"""Which password a claim gets, when it is made, and who holds which; the SQL is in test_database_roles.py."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from moto import mock_aws

from infra.clients.aws import AwsClients
from infra.errors import ShopCatError
from infra.foundation.secret_versions import refuse_other_database, restored_instance, restored_version
from infra.names import COLOURS, Colour, login_secret, other_colour
from infra.release.decide import Abort, Decision, Nothing, Rollback, Rotate, Tag, Wanted, decide
from infra.release.logins import (
    PASSWORD_LENGTH,
    has_yet_to_stop,
    holders_of_another,
    job_name,
    keeps_another,
    make_password,
    unfinished_jobs,
)
from infra.release.reads import refuse_database_misfit
from infra.release.record import Login, Record
from infra.release.state import ONCE_LIVE, LedgerState
from infra.release.transitions import aborted, claimed, gone_live
from infra.settings.platform import DatabaseSettings
from tests.examples import examples
from tests.unit.releases import REGION, SESSION, client, template

LOGIN = Login(login_secret("blue"), "22222222-2222-5222-8222-222222222222", "v1.1.0-r1-a1", closes_owner=False)


# Which one


def claim(state: LedgerState, wanted: Wanted) -> LedgerState:
    return claimed(state, decide(wanted, state), f"2026-11-24T10:{state.version:02}:00+00:00")


def release(state: LedgerState, wanted: Wanted) -> LedgerState:
    return gone_live(claim(state, wanted))


def login_of(state: LedgerState, name: str) -> Login:
    login = state.releases[name].record.login
    assert login is not None
    return login


EMPTY = LedgerState(version=1)
FIRST = release(EMPTY, Tag("v1.0.0", template(1)))
SECOND = release(FIRST, Tag("v1.1.0", template(2)))
THIRD = release(SECOND, Tag("v1.2.0", template(3)))


def without_logins(state: LedgerState) -> LedgerState:
    """The same ledger as a program wrote it that knew one role for all."""
    releases = {name: replace(each, record=replace(each.record, login=None)) for name, each in state.releases.items()}
    return replace(state, releases=releases)


BEFORE = without_logins(SECOND)
"""v1.1.0 is live in blue, v1.0.0 was in green; both sign in as the owner of the tables."""


def test_every_claim_has_a_version_of_its_colour_s_secret() -> None:
    logins = [login_of(THIRD, f"v1.{minor}.0-r1") for minor in range(3)]
    assert [each.secret_id for each in logins] == [login_secret(one) for one in ("green", "blue", "green")]
    assert len({each.version for each in logins}) == 3
    assert [each.claim for each in logins] == [f"v1.{minor}.0-r1-a1" for minor in range(3)]


def test_what_goes_on_keeps_the_password_of_its_claim() -> None:
    opened = claim(SECOND, Tag("v1.2.0", template(3)))
    assert decide(Nothing(), opened).record == opened.releases["v1.2.0-r1"].record
    assert decide(Nothing(), opened) == decide(Tag("v1.2.0", template(3)), opened)


def test_an_aborted_release_gets_another_one() -> None:
    opened = claim(SECOND, Tag("v1.2.0", template(3)))
    again = claim(aborted(opened), Tag("v1.2.0", template(3)))
    assert login_of(again, "v1.2.0-r1").claim == "v1.2.0-r1-a2"
    assert login_of(again, "v1.2.0-r1").version != login_of(opened, "v1.2.0-r1").version


def test_a_rollback_to_what_was_last_in_the_colour_keeps_its_password() -> None:
    back = claim(SECOND, Rollback("v1.1.0", "v1.0.0"))
    assert login_of(back, "v1.0.0-r1") == login_of(SECOND, "v1.0.0-r1")
    twice = claim(aborted(back), Rollback("v1.1.0", "v1.0.0"))
    assert login_of(twice, "v1.0.0-r1") == login_of(SECOND, "v1.0.0-r1")


def test_any_other_rollback_gets_a_new_one() -> None:
    retired = claim(THIRD, Rollback("v1.2.0", "v1.0.0"))
    assert login_of(retired, "v1.0.0-r1").secret_id == login_secret("blue")
    assert login_of(retired, "v1.0.0-r1").claim == "v1.0.0-r1-a2"
    overwritten = claim(aborted(claim(SECOND, Tag("v1.2.0", template(3)))), Rollback("v1.1.0", "v1.0.0"))
    assert login_of(overwritten, "v1.0.0-r1").claim == "v1.0.0-r1-a2"
    assert login_of(overwritten, "v1.0.0-r1").version != login_of(SECOND, "v1.0.0-r1").version


def test_the_move_from_one_role_takes_two_releases_and_a_rollback_between_them_keeps_the_old_password() -> None:
    moved = claim(BEFORE, Tag("v1.2.0", template(3)))
    assert not login_of(moved, "v1.2.0-r1").closes_owner, "v1.1.0 still signs in as the owner"
    live = gone_live(moved)
    back = release(live, Rollback("v1.2.0", "v1.1.0"))
    assert back.releases["v1.1.0-r1"].record.login is None
    assert not login_of(claim(back, Tag("v1.3.0", template(4))), "v1.3.0-r1").closes_owner
    second = release(live, Tag("v1.3.0", template(4)))
    assert login_of(second, "v1.3.0-r1").closes_owner
    late = claim(second, Rollback("v1.3.0", "v1.1.0"))
    assert login_of(late, "v1.1.0-r1").closes_owner, "a release from before has a password of its own by now"


def test_the_first_release_of_all_closes_the_owner() -> None:
    assert login_of(FIRST, "v1.0.0-r1").closes_owner


# wanted: rotate


def test_a_rotation_is_the_live_pods_with_another_password_in_the_other_colour() -> None:
    decision = decide(Rotate("v1.1.0-r1"), SECOND)
    assert decision.action == "release"
    assert decision.open is not None
    assert (decision.open.kind, decision.open.name, decision.open.colour) == ("rotation", "v1.1.0-r2", "green")
    assert decision.record is not None
    assert decision.record.template == SECOND.releases["v1.1.0-r1"].record.template
    after = release(SECOND, Rotate("v1.1.0-r1"))
    assert {name: each.state for name, each in after.releases.items()} == {
        "v1.0.0-r1": "retired",
        "v1.1.0-r1": "former",
        "v1.1.0-r2": "live",
    }
    assert decide(Rotate("v1.1.0-r1"), after).action == "stay", "the setting says nothing any more"
    assert decide(Tag("v1.1.0", template(2)), after).action == "stay"
    assert decide(Rotate("v1.1.0-r2"), after).open.name == "v1.1.0-r3"  # type: ignore[union-attr]


def test_a_rotation_goes_on_is_aborted_and_is_tried_again() -> None:
    opened = claim(SECOND, Rotate("v1.1.0-r1"))
    for wanted in (Nothing(), Rotate("v1.1.0-r1")):
        assert decide(wanted, opened).action == "resume"
    assert decide(Abort("v1.1.0-r2"), opened).action == "abort"
    after = aborted(opened)
    assert after.releases["v1.1.0-r2"].state == "aborted"
    assert after.live == SECOND.live
    again = decide(Rotate("v1.1.0-r1"), after)
    assert again.open is not None
    assert (again.open.name, again.open.attempt) == ("v1.1.0-r2", 2)


@pytest.mark.parametrize(
    ("state", "name", "words"),
    [
        (EMPTY, "v1.0.0-r1", "nothing is live"),
        (SECOND, "v1.0.0-r1", "rotate=v1.1.0-r1"),
        (SECOND, "v1.1.0", "rotate=v1.1.0-r1"),
        (claim(SECOND, Tag("v1.2.0", template(3))), "v1.1.0-r1", "release v1.2.0-r1 is open"),
        (claim(SECOND, Rotate("v1.1.0-r1")), "v1.1.0-r2", "rotation v1.1.0-r2 is open"),
    ],
)
def test_a_rotation_of_what_is_not_live_is_refused_with_the_command(state: LedgerState, name: str, words: str) -> None:
    with pytest.raises(ShopCatError, match=words):
        decide(Rotate(name), state)


def test_a_rotation_does_not_stand_in_the_way_of_a_rollback() -> None:
    """It ran no migration, so what its template says of one is not to be heeded."""
    contracted = release(FIRST, Tag("v1.1.0", template(2, contracts=True)))
    rotated = release(contracted, Rotate("v1.1.0-r1"))
    assert decide(Rollback("v1.1.0-r2", "v1.1.0-r1"), rotated).action == "release"
    with pytest.raises(ShopCatError, match=r"v1\.1\.0-r1 is marked `contracts`"):
        decide(Rollback("v1.1.0-r2", "v1.0.0"), rotated)


# The version in Secrets Manager


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> Iterator[AwsClients]:
    monkeypatch.setattr("infra.clients.aws.boto3.session.Session", lambda **_: SESSION)
    with mock_aws():
        for colour in COLOURS:
            client("secretsmanager").create_secret(Name=login_secret(colour))
        yield AwsClients(REGION)


def stored(version: str) -> dict[str, str]:
    value: dict[str, str] = json.loads(
        client("secretsmanager").get_secret_value(SecretId=login_secret("blue"), VersionId=version)["SecretString"]
    )
    return value


def test_a_password_is_made_once_for_a_claim(clients: AwsClients) -> None:
    assert make_password(clients, LOGIN, "shop", "blue")
    first = stored(LOGIN.version)
    assert first["username"] == "shop_blue"
    assert len(first["password"]) == PASSWORD_LENGTH
    assert first["password"].isalnum()
    assert not make_password(clients, LOGIN, "shop", "blue")
    assert stored(LOGIN.version) == first
    later = replace(LOGIN, version="33333333-3333-5333-8333-333333333333")
    assert make_password(clients, later, "shop", "blue")
    assert stored(later.version)["password"] != first["password"]


def test_a_version_that_aws_no_longer_lists_is_not_made_anew(clients: AwsClients) -> None:
    """Only versions with a label are described; the token alone says that there is one."""
    numbers = range(3)
    versions = [replace(LOGIN, version=f"{number}{LOGIN.version[1:]}") for number in numbers]
    for each in versions:
        assert make_password(clients, each, "shop", "blue")
    first = stored(versions[0].version)
    assert not make_password(clients, versions[0], "shop", "blue")
    assert stored(versions[0].version) == first


def test_a_secret_that_is_not_there_is_one_message(clients: AwsClients) -> None:
    with pytest.raises(ShopCatError, match="shopcat/login-red"):
        make_password(clients, replace(LOGIN, secret_id="shopcat/login-red"), "shop", "blue")


# Who holds which


def pod(name: str, secret: str, **status: Any) -> dict[str, Any]:
    source = {"secretKeyRef": {"name": secret, "key": "password"}}
    containers = [{"env": [{"name": "PORT", "value": "8080"}, {"name": "DATABASE_PASSWORD", "valueFrom": source}]}]
    return {"metadata": {"name": name}, "spec": {"containers": containers}, "status": status}


def test_pods_on_their_way_out_still_hold_their_password() -> None:
    leaving = pod("leaving", "old", phase="Running")
    leaving["metadata"]["deletionTimestamp"] = "2026-11-24T10:00:00Z"
    pods = [leaving, pod("ended", "old", phase="Succeeded"), pod("own", "new", phase="Running"), pod("late", "old")]
    assert holders_of_another(pods, "new") == ["leaving", "late"]


def deployment(secret: str, wanted: int, **status: int) -> dict[str, Any]:
    return {
        "metadata": {"generation": 3},
        "spec": {"replicas": wanted, "template": {"spec": pod("x", secret)["spec"]}},
        "status": {"observedGeneration": 3, **status},
    }


def test_a_deployment_has_stopped_once_its_controller_has_seen_it() -> None:
    assert keeps_another(deployment("old", 2), "new")
    for stopped in (None, deployment("old", 0), deployment("new", 2)):
        assert not keeps_another(stopped, "new")
        assert not has_yet_to_stop(stopped, "new")
    for busy in (deployment("old", 2), deployment("old", 0, replicas=1), deployment("old", 0, observedGeneration=2)):
        assert has_yet_to_stop(busy, "new")


def test_a_job_of_another_claim_that_has_not_ended_may_still_set_a_password() -> None:
    def job(name: str, **conditions: str) -> dict[str, Any]:
        listed = [{"type": kind, "status": status} for kind, status in conditions.items()]
        return {"metadata": {"name": name}, "status": {"conditions": listed}}

    jobs = [
        job(job_name(LOGIN)),
        job("login-done", Complete="True"),
        job("login-failed", Failed="True"),
        job("login-ending", FailureTarget="True", Failed="False"),
        {"metadata": {"name": "login-new"}},
    ]
    assert unfinished_jobs(jobs, LOGIN) == ["login-ending", "login-new"]


@dataclass(frozen=True)
class Held:
    """What a pod signs in with, and where."""

    instance: str
    role: str
    password: str


Accepted: TypeAlias = dict[str, set[str]]

# Everything in any order ----------------------------------------------------------------------------------------------


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
