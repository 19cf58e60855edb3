"""The application's secret, and what a database leaves behind."""

import json
import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moto import mock_aws

from infra.clients.aws import AwsClients
from infra.errors import ShopCatError
from infra.foundation.database import ensure_application_secret, final_snapshot
from infra.names import APPLICATION_SECRET


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> Iterator[AwsClients]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        found = AwsClients("eu-central-1")
        found.get("secretsmanager").create_secret(Name=APPLICATION_SECRET)
        yield found


def value(clients: AwsClients) -> dict[str, str]:
    found: dict[str, str] = json.loads(
        clients.get("secretsmanager").get_secret_value(SecretId=APPLICATION_SECRET)["SecretString"]
    )
    return found


def version(clients: AwsClients) -> str:
    return str(clients.get("secretsmanager").get_secret_value(SecretId=APPLICATION_SECRET)["VersionId"])


def test_the_secret_gets_a_value_once(clients: AwsClients) -> None:
    ensure_application_secret(clients, "one.rds", "5432")
    first, made = value(clients), version(clients)
    ensure_application_secret(clients, "one.rds", "5432")
    assert (value(clients), version(clients)) == (first, made)
    assert {key: first[key] for key in ("host", "port", "username")} == {
        "host": "one.rds",
        "port": "5432",
        "username": "shopcat",
    }


def test_a_secret_that_was_kept_names_the_database_of_now_and_keeps_its_password(clients: AwsClients) -> None:
    ensure_application_secret(clients, "one.rds", "5432")
    first = value(clients)
    ensure_application_secret(clients, "two.rds", "5432")
    assert value(clients) == {**first, "host": "two.rds"}


@pytest.mark.parametrize("text", ["no JSON", "[]", "1"])
def test_a_value_that_is_none_of_ours_is_one_clear_error(clients: AwsClients, text: str) -> None:
    clients.get("secretsmanager").put_secret_value(SecretId=APPLICATION_SECRET, SecretString=text)
    with pytest.raises(ShopCatError, match=APPLICATION_SECRET):
        ensure_application_secret(clients, "one.rds", "5432")


@given(lives=st.sets(st.from_regex(r"sg-[0-9a-f]{8,17}", fullmatch=True), min_size=2))
def test_each_life_has_a_final_snapshot_of_its_own(lives: set[str]) -> None:
    names = {final_snapshot(group) for group in lives}
    assert len(names) == len(lives)
    # RDS: begins with a letter; letters, digits and single hyphens; 255 characters at the most (CreateDBSnapshot).
    assert all(re.fullmatch(r"[a-z](-?[a-z0-9])*", name) and len(name) <= 255 for name in names)
