"""Passwords that change with each release and rotation, under constant load; none is printed. Writes docs/passwords.md."""

import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from bench import run
from bench.reconcile import disagreements, orders_lost_or_doubled
from tests.tools import aws, command, kubectl
from tests.twin.shop import Shop, open_shop, stop, wait_for
from twin import pulumi
from twin.config import Twin
from twin.paths import REPOSITORY

pytestmark = [
    pytest.mark.twin,
    pytest.mark.skipif(not os.environ.get("SHOPCAT_PASSWORDS"), reason="takes long; `make passwords` runs it"),
]

PAGE = REPOSITORY / "docs" / "passwords.md"
NAMES = ("G1", "B1", "G2", "B2")
HEAD = """# Passwords, before and after

Written by `make passwords` on the twin, never by hand: production under constant load, green live. G1 and G2 are green's first
and second password, B1 and B2 blue's. After each step somebody tries to sign in to PostgreSQL with each of them; a dash is a
password that there is not yet. A session that was signed in with G1 ends where G1 does.

| step | killed meanwhile | seconds | failed of sent | G1 | B1 | G2 | B2 |
|---|---|---:|---:|---|---|---|---|
"""


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


@dataclass
class Report:
    """The page's rows, and the passwords so far."""

    shop: Shop
    passwords: dict[str, Credentials] = field(default_factory=dict)
    rows: list[str] = field(default_factory=list)

    def take(self, name: str, colour: str) -> Credentials:
        """Keep what a colour's secret holds now."""
        self.passwords[name] = current(self.shop, colour)
        return self.passwords[name]

    def row(self, step: str, killed: str, began: float, expected: Mapping[str, bool]) -> None:
        """Try every password, and count the requests since the step began."""
        ended = time.time()
        accepted = {name: signs_in(self.shop, each) for name, each in self.passwords.items()}
        assert accepted == expected
        failed = self.shop.failed(began)
        assert failed == []
        sent = sum(1 for outcome in self.shop.load.outcomes if outcome.due >= began)
        cells = [("accepted" if accepted[name] else "refused") if name in accepted else "-" for name in NAMES]
        self.rows.append(f"| {step} | {killed} | {ended - began:.0f} | {len(failed)} of {sent} | {' | '.join(cells)} |")


def test_each_release_and_a_rotation_end_the_password_before_the_last(shop: Shop) -> None:
    """Green is live. Two releases, the first of them killed while its password is set, and a rotation."""
    report = Report(shop)
    report.take("G1", "green")
    report.row("before", "-", shop.load.started, {"G1": True})

    began = time.time()
    shop.push("v1.1.0")
    process, log = shop.start(tag="v1.1.0")
    wait_for(log, r"shopcat/login-blue: made version", process)
    stop(process)
    made = report.take("B1", "blue")
    shop.cancel()
    code, output = shop.up()
    assert code == 0, output
    assert current(shop, "blue") == made, "the next update goes on with the password that was made"
    assert (shop.outputs()["liveColour"], shop.replicas("green")) == ("blue", 0)
    report.row("v1.1.0 into blue", "the engine, B1 being set", began, {"G1": True, "B1": True})

    leaked = sign_in(shop, report.passwords["G1"])
    assert leaked.stdin is not None
    assert leaked.stdout is not None
    leaked.stdin.write("SELECT 'signed in';\n")
    leaked.stdin.flush()
    assert leaked.stdout.readline() == "signed in\n"
    began = time.time()
    shop.push("v1.2.0")
    code, output = shop.up(tag="v1.2.0")
    assert code == 0, output
    report.take("G2", "green")
    leaked.communicate("SELECT 'still there';\n", timeout=60)
    assert leaked.returncode, "a session that was signed in with it goes on"
    report.row("v1.2.0 into green", "-", began, {"G1": False, "B1": True, "G2": True})

    began = time.time()
    code, output = shop.up(rotate="v1.2.0-r1")
    assert code == 0, output
    report.take("B2", "blue")
    report.row("`shopcat:rotate`, into blue", "-", began, {"G1": False, "B1": False, "G2": True, "B2": True})
    assert (shop.outputs()["liveRelease"], shop.outputs()["liveColour"]) == ("v1.2.0", "blue")

    secrets = {each.password for each in report.passwords.values()}
    assert len(secrets) == len(NAMES)
    state = command(shop.twin, ["pulumi", "stack", "export", "-s", "prod"]).stdout
    manifests = json.dumps(kubectl(shop.twin, "get", "jobs,pods,deployments,externalsecrets,configmaps", "-A"))
    for place in (*(path.read_text() for path in shop.directory.glob("up-*.log")), state, manifests):
        assert not any(each in place for each in secrets), "a password was printed, or is in the state or a manifest"
    measured = (
        f"\nMeasured {datetime.now(UTC):%Y-%m-%d}. None of them is in an update's output, the state or a manifest.\n"
    )
    PAGE.write_text(HEAD + "".join(f"{row}\n" for row in report.rows) + measured)


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
