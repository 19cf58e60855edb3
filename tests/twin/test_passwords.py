"""Passwords that change with each release and rotation, under constant load; none is printed."""

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from bench import run
from bench.reconcile import disagreements, orders_lost_or_doubled
from tests.tools import aws, command, kubectl
from tests.twin.shop import Shop, open_shop, stop, wait_for
from twin import pulumi
from twin.config import Twin

pytestmark = [
    pytest.mark.twin,
    pytest.mark.skipif(not os.environ.get("SHOPCAT_PASSWORDS"), reason="takes long; `make passwords` runs it"),
]


@pytest.fixture(scope="module")
def shop(twin: Twin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with open_shop(twin, tmp_path_factory.mktemp("shop")) as opened:
        yield opened


@dataclass(frozen=True)
class Credentials:
    """Role and password; what pytest shows of a failed assertion has neither."""

    role: str
    password: str

    def __repr__(self) -> str:
        return "Credentials(…)"


def current(shop: Shop, colour: str) -> Credentials:
    """What a colour's secret holds now."""
    text = aws(shop.twin, "secretsmanager").get_secret_value(SecretId=f"shopcat/login-{colour}")["SecretString"]
    value = json.loads(text)
    return Credentials(value["username"], value["password"])


def sign_in(shop: Shop, credentials: Credentials) -> "subprocess.Popen[str]":
    """Start psql, which runs what it is given."""
    twin = shop.twin
    where = f"host={twin.host_ip} port={twin.postgres_port} dbname=shopcat user={credentials.role} sslmode=require"
    return subprocess.Popen(
        ["psql", where, "-XAt"],
        env={**os.environ, **pulumi.environment(twin), "PGPASSWORD": credentials.password},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def signs_in(shop: Shop, credentials: Credentials) -> bool:
    """Whether PostgreSQL accepts them; any other answer than that or a refusal of the password is an error."""
    psql = sign_in(shop, credentials)
    output, errors = psql.communicate("SELECT current_user;\n", timeout=60)
    if psql.returncode:
        assert "password authentication failed" in errors
        return False
    assert output.strip() == "shopcat", "each session is the owner's"
    return True


def test_each_release_and_a_rotation_end_the_password_before_the_last(shop: Shop) -> None:
    """Green is live. Two releases, the first of them killed while its password is set, and a rotation."""
    start = shop.load.started
    green = [current(shop, "green")]
    assert signs_in(shop, green[0])

    shop.push("v1.1.0")
    process, log = shop.start(tag="v1.1.0")
    wait_for(log, r"shopcat/login-blue: made version", process)
    stop(process)
    blue = [current(shop, "blue")]
    shop.cancel()
    code, output = shop.up()
    assert code == 0, output
    assert current(shop, "blue") == blue[0], "the next update goes on with the password that was made"
    assert (shop.outputs()["liveColour"], shop.replicas("green")) == ("blue", 0)
    assert signs_in(shop, blue[0])
    assert signs_in(shop, green[0]), "the former release may come back"

    leaked = sign_in(shop, green[0])
    assert leaked.stdin is not None
    assert leaked.stdout is not None
    leaked.stdin.write("SELECT 'signed in';\n")
    leaked.stdin.flush()
    assert leaked.stdout.readline() == "signed in\n"
    shop.push("v1.2.0")
    code, output = shop.up(tag="v1.2.0")
    assert code == 0, output
    green.append(current(shop, "green"))
    assert green[0] != green[1]
    assert not signs_in(shop, green[0]), "what leaked ends with the second release"
    leaked.communicate("SELECT 'still there';\n", timeout=60)
    assert leaked.returncode, "a session that was signed in with it goes on"
    assert signs_in(shop, green[1])
    assert signs_in(shop, blue[0])

    code, output = shop.up(rotate="v1.2.0-r1")
    assert code == 0, output
    blue.append(current(shop, "blue"))
    assert blue[0] != blue[1]
    assert not signs_in(shop, blue[0])
    assert signs_in(shop, blue[1])
    assert signs_in(shop, green[1])
    assert (shop.outputs()["liveRelease"], shop.outputs()["liveColour"]) == ("v1.2.0", "blue")
    passwords = {each.password for each in (*blue, *green)}
    state = command(shop.twin, ["pulumi", "stack", "export", "-s", "prod"]).stdout
    manifests = json.dumps(kubectl(shop.twin, "get", "jobs,pods,deployments,externalsecrets,configmaps", "-A"))
    for place in (*(path.read_text() for path in shop.directory.glob("up-*.log")), state, manifests):
        assert not any(each in place for each in passwords), "a password was printed, or is in the state or a manifest"
    assert shop.failed(start) == []


def test_the_owner_of_the_tables_signs_in_no_more(shop: Shop) -> None:
    text = aws(shop.twin, "secretsmanager").get_secret_value(SecretId="shopcat/application")["SecretString"]
    value = json.loads(text)
    assert not signs_in(shop, Credentials(value["username"], value["password"]))


def test_no_order_is_lost(shop: Shop) -> None:
    """Run last: compare over everything that the tests before have done."""
    outcomes = shop.load.stop()
    assert len(outcomes) > 1000
    assert disagreements(outcomes, run.requests_since(shop.twin, shop.load.started - 1)) == []
    assert orders_lost_or_doubled(outcomes, run.stored_orders(shop.twin)) == []
