"""Which password a claim gets, when it is made, and who holds which; the SQL is in test_database_roles.py."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError
from moto import mock_aws

from infra.clients.aws import AwsClients
from infra.errors import ShopCatError
from infra.names import COLOURS, login_secret
from infra.release.decide import Abort, Nothing, Rollback, Rotate, Tag, Wanted, decide
from infra.release.logins import (
    PASSWORD_LENGTH,
    has_yet_to_stop,
    holders_of_another,
    job_name,
    keeps_another,
    make_password,
    unfinished_jobs,
)
from infra.release.record import Login
from infra.release.state import LedgerState
from infra.release.transitions import aborted, claimed, gone_live
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


def test_a_secret_that_is_gone_or_going_is_one_message_with_the_command(clients: AwsClients) -> None:
    """One that is to be deleted gives nobody a version that it has, either."""
    assert make_password(clients, LOGIN, "shop", "blue")
    with pytest.raises(ShopCatError, match=r"secret shopcat/login-red is gone.* pulumi up --refresh -s prod"):
        make_password(clients, replace(LOGIN, secret_id="shopcat/login-red"), "shop", "blue")
    client("secretsmanager").delete_secret(SecretId=LOGIN.secret_id)
    with pytest.raises(ShopCatError, match="restore-secret --secret-id shopcat/login-blue"):
        make_password(clients, LOGIN, "shop", "blue")
    client("secretsmanager").restore_secret(SecretId=LOGIN.secret_id)
    assert not make_password(clients, LOGIN, "shop", "blue")


def test_a_write_that_is_lost_after_it_took_effect_and_throttled_ones_make_one_password(
    clients: AwsClients, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = clients.get("secretsmanager")
    put, described = manager.put_secret_value, manager.describe_secret
    outcomes = iter(["ThrottlingException", "lost"])

    def fail(**request: Any) -> Any:
        outcome = next(outcomes)
        if outcome == "lost":
            put(**request)
            raise ReadTimeoutError(endpoint_url="https://secretsmanager")
        raise ClientError({"Error": {"Code": outcome, "Message": ""}}, "PutSecretValue")

    monkeypatch.setattr(manager, "put_secret_value", fail)
    for _ in range(2):
        with pytest.raises(ShopCatError, match="secret shopcat/login-blue: "):
            make_password(clients, LOGIN, "shop", "blue")
    first = stored(LOGIN.version)
    monkeypatch.setattr(manager, "put_secret_value", put)
    # The listing may lag behind the write.
    monkeypatch.setattr(
        manager, "describe_secret", lambda **request: {**described(**request), "VersionIdsToStages": {}}
    )
    assert not make_password(clients, LOGIN, "shop", "blue")
    assert stored(LOGIN.version) == first


# Who holds which


def pod(name: str, secret: str, **status: Any) -> dict[str, Any]:
    source = {"secretKeyRef": {"name": secret, "key": "password"}}
    containers = [{"env": [{"name": "PORT", "value": "8080"}, {"name": "DATABASE_PASSWORD", "valueFrom": source}]}]
    return {"metadata": {"name": name}, "spec": {"containers": containers}, "status": status}


def test_pods_on_their_way_out_still_hold_their_password() -> None:
    leaving = pod("leaving", "old", phase="Running")
    leaving["metadata"]["deletionTimestamp"] = "2026-11-24T10:00:00Z"
    pods = [leaving, pod("ended", "old", phase="Succeeded"), pod("own", "new", phase="Running"), pod("late", "old")]
    assert [name.split()[0] for name in holders_of_another(pods, "new")] == ["leaving", "late"]


def test_a_sidecar_s_own_secret_is_no_password_of_the_database() -> None:
    """Somebody's webhook puts sidecars into pods, though not into their Deployment: nobody would stop those pods."""
    own, former = pod("own", "new", phase="Running"), pod("former", "old", phase="Running")
    key = {"name": "API_KEY", "valueFrom": {"secretKeyRef": {"name": "vendor", "key": "key"}}}
    for each in (own, former):
        each["spec"]["containers"].insert(0, {"name": "agent", "env": [key]})
    assert holders_of_another([own, former], "new") == ["former on node none"]


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
