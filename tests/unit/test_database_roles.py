"""The SQL of the roles Job against a real PostgreSQL, with a master user that is no superuser, as on RDS."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO
from uuid import NAMESPACE_OID, uuid5

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.foundation.database_jobs import psql_command
from infra.foundation.database_roles import login_sql, role_sql
from infra.foundation.restored_database import MAY_REPEAT, SEQUENCE_GAP, restored_sql
from infra.names import COLOURS, Colour, login_role
from tests.examples import examples

MASTER, APPLICATION, DATABASE = "shopcat", "shopcat_app", "shop"
LOGINS = {colour: login_role(APPLICATION, colour) for colour in COLOURS}
UNPRIVILEGED = "nobody"


def _folders() -> list[Path | None]:
    """Folders of every PostgreSQL server on this machine; None if there is none."""
    return [*sorted(path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb"))] or [None]


@dataclass(frozen=True)
class Server:
    """A server on a Unix socket in its own folder."""

    programs: Path
    folder: Path

    def run(self, program: str, *arguments: str, stdin: str = "", **environment: str) -> str:
        """Run a program, the server's own before others, as a user without rights or a terminal; return what it prints."""
        account = pwd.getpwnam(UNPRIVILEGED) if os.getuid() == 0 else None
        result = subprocess.run(
            [program, *arguments],
            start_new_session=True,
            input=stdin,
            text=True,
            capture_output=True,
            check=False,
            cwd="/",
            env={"PATH": f"{self.programs}{os.pathsep}{os.environ['PATH']}", "LC_ALL": "C.UTF-8", **environment},
            user=account.pw_uid if account else None,
            group=account.pw_gid if account else None,
            extra_groups=[] if account else None,
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    def environment(self, user: str, database: str = DATABASE, **more: str) -> dict[str, str]:
        return {"PGHOST": str(self.folder), "PGUSER": user, "PGDATABASE": database, **more}

    def sql(self, user: str, text: str, database: str = DATABASE) -> list[str]:
        flags = ("-v", "ON_ERROR_STOP=1", "-XAtq")
        return self.run("psql", *flags, stdin=text, **self.environment(user, database)).splitlines()

    def script(self, sql: str, **variables: str) -> str:
        """Run SQL as a Job's pod does; return what it prints."""
        return self.run(*psql_command(sql), **self.environment(MASTER), **variables)

    def job(self, *, taken_over: bool = True) -> None:
        """Run what the Job runs, as it runs it."""
        self.script(role_sql(taken_over=taken_over), APP_USER=APPLICATION, NEW_PASSWORD="it's $secret")

    def login(self, colour: Colour, password: str, *, closes_owner: bool = False) -> None:
        """Run what a claim's Job runs, as it runs it; each password is a claim's own."""
        values = {"APP_OWNER": APPLICATION, "LOGIN_USER": LOGINS[colour], "CLOSES_OWNER": str(closes_owner).lower()}
        self.script(login_sql(), NEW_PASSWORD=password, LOGIN_VERSION=str(uuid5(NAMESPACE_OID, password)), **values)

    def as_colour(self, colour: Colour, password: str, text: str) -> list[str]:
        """Run SQL as a pod of the colour, which signs in with its password."""
        flags = ("-v", "ON_ERROR_STOP=1", "-XAtq")
        variables = self.environment(LOGINS[colour], PGPASSWORD=password)
        return self.run("psql", *flags, stdin=text, **variables).splitlines()

    def session(self, user: str, **more: str) -> subprocess.Popen[str]:
        """Start a connection that stays open."""
        account = pwd.getpwnam(UNPRIVILEGED) if os.getuid() == 0 else None
        return subprocess.Popen(
            [self.programs / "psql", "-v", "ON_ERROR_STOP=1", "-XAtq"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd="/",
            env={"PATH": os.environ["PATH"], **self.environment(user, **more)},
            user=account.pw_uid if account else None,
        )


@pytest.fixture(
    scope="module", params=_folders(), ids=lambda path: f"postgresql-{path.parent.name}" if path else "none"
)
def programs(request: pytest.FixtureRequest) -> Path:
    if request.param is None:
        pytest.skip("no PostgreSQL server is in /usr/lib/postgresql (Debian: postgresql)")
    path: Path = request.param
    return path


@pytest.fixture(scope="module")
def running(programs: Path) -> Iterator[Server]:
    folder = Path(tempfile.mkdtemp(prefix="shopcat-sql-"))
    server = Server(programs, folder)
    if os.getuid() == 0:
        shutil.chown(folder, UNPRIVILEGED)
    data = str(folder / "data")
    try:
        server.run("initdb", "-D", data, "-U", "rdsadmin", "--auth=trust", "--no-sync")
        access = folder / "data" / "pg_hba.conf"
        access.write_text(f"local all {','.join(LOGINS.values())} scram-sha-256\n{access.read_text()}")
        options = f"-c listen_addresses='' -c fsync=off -c log_statement=all -k {folder}"
        server.run("pg_ctl", "-D", data, "-l", str(folder / "log"), "-w", "-o", options, "start")
        yield server
    finally:
        if (folder / "data" / "postmaster.pid").exists():
            server.run("pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def server(running: Server) -> Iterator[Server]:
    """A server with the shop's database: its master user has made it all, as the old pods do."""
    make = f"CREATE ROLE {MASTER} LOGIN CREATEROLE CREATEDB; CREATE DATABASE {DATABASE} OWNER {MASTER};"
    running.sql("rdsadmin", make, "postgres")
    running.sql("rdsadmin", f'CREATE ROLE reader LOGIN; SET ROLE {MASTER}; CREATE SCHEMA "other"; RESET ROLE;')
    yield running
    roles = ", ".join((APPLICATION, *LOGINS.values()))
    drop = f"DROP DATABASE {DATABASE} WITH (FORCE); DROP ROLE IF EXISTS {roles}; DROP ROLE {MASTER}; DROP ROLE reader;"
    running.sql("rdsadmin", drop, "postgres")


OLD_SHOP = """
CREATE TABLE orders (id serial PRIMARY KEY, item text NOT NULL, at timestamptz DEFAULT now());
CREATE TABLE "Order Lines" (id bigint GENERATED ALWAYS AS IDENTITY, of_order int REFERENCES orders (id) ON DELETE CASCADE);
CREATE TABLE events (at date NOT NULL) PARTITION BY RANGE (at);
CREATE TABLE events_2026 PARTITION OF events FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE SEQUENCE numbers;
CREATE VIEW latest AS SELECT * FROM orders ORDER BY id DESC LIMIT 1;
CREATE MATERIALIZED VIEW counted AS SELECT count(*) FROM orders;
CREATE TYPE colour AS ENUM ('blue', 'green');
CREATE TYPE pair AS (a int, b int);
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE FUNCTION twice(a int, VARIADIC b int[]) RETURNS int LANGUAGE sql AS 'SELECT 2 * a';
CREATE PROCEDURE nothing() LANGUAGE sql AS '';
CREATE AGGREGATE total(int) (SFUNC = int4pl, STYPE = int, INITCOND = '0');
CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.at := now(); RETURN NEW; END';
CREATE TRIGGER stamps BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION stamp();
INSERT INTO orders (item) VALUES ('before');
"""
OWNERS = """
SELECT concat_ws(' ', relkind, relname, relowner::regrole) FROM pg_class
  WHERE relnamespace = 'public'::regnamespace AND relkind NOT IN ('i', 'I')
UNION ALL SELECT concat_ws(' ', prokind, proname, proowner::regrole) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
UNION ALL SELECT concat_ws(' ', typtype, typname, typowner::regrole) FROM pg_type
  WHERE typnamespace = 'public'::regnamespace AND typelem = 0 ORDER BY 1
"""
RIGHTS = """
SELECT relname, relowner::regrole, relacl FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY 1;
SELECT defaclrole::regrole, defaclobjtype, defaclacl FROM pg_default_acl ORDER BY 1, 2;
SELECT roleid::regrole, member::regrole, grantor::regrole FROM pg_auth_members WHERE member = 'shopcat'::regrole ORDER BY 1, 3;
SELECT datname, datdba::regrole, datacl FROM pg_database WHERE datname = 'shop';
SELECT nspname, nspowner::regrole, nspacl FROM pg_namespace WHERE nspname IN ('public', 'other') ORDER BY 1;
SELECT rolname, rolsuper, rolcreaterole, rolcanlogin, rolconfig FROM pg_roles WHERE rolname !~ '^pg_' ORDER BY 1;
"""


def _buy(server: Server, user: str, item: str) -> None:
    server.sql(
        user,
        f"INSERT INTO orders (item) VALUES ('{item}'); UPDATE orders SET item = item || '.' WHERE item = '{item}';",
    )


def _items(server: Server, user: str) -> list[str]:
    return server.sql(user, "SELECT item FROM orders ORDER BY id")


def test_both_roles_read_and_change_each_other_s_orders_before_during_and_after(server: Server) -> None:
    server.sql(MASTER, OLD_SHOP)
    old_pod = server.session(MASTER)
    _write(old_pod, "INSERT INTO orders (item) VALUES ('old pod 1') RETURNING item;")
    assert _read(old_pod) == "old pod 1"
    server.job()
    _buy(server, APPLICATION, "new")
    _buy(server, MASTER, "old")
    _write(old_pod, "UPDATE orders SET item = item || '!' WHERE item = 'new.' RETURNING item;")
    assert _read(old_pod) == "new.!", "a connection of before goes on, and changes what the new role has written"
    server.sql(APPLICATION, "UPDATE orders SET item = item || '?' WHERE item IN ('old.', 'old pod 1')")
    expected = ["before", "old pod 1?", "new.!", "old.?"]
    assert sorted(_items(server, MASTER)) == sorted(_items(server, APPLICATION)) == sorted(expected)
    # The release after it changes the schema, while pods of before still run.
    server.sql(APPLICATION, "ALTER TABLE orders ADD COLUMN note text; CREATE TABLE carts (id serial, item text);")
    server.sql(
        MASTER, "INSERT INTO carts (item) VALUES ('x'); ALTER TABLE carts ADD COLUMN note text; SELECT twice(1, 2);"
    )
    _buy(server, MASTER, "late")
    # What pods of before make after the Job, the new role may use; the Job of the next update gives it away.
    server.sql(MASTER, "CREATE TABLE coupons (id serial, item text);")
    server.sql(APPLICATION, "INSERT INTO coupons (item) VALUES ('y'); DELETE FROM coupons;")
    server.job()
    server.sql(APPLICATION, "ALTER TABLE coupons ADD COLUMN note text")
    # Without the old credentials: the application alone, and the master user no more.
    server.sql("rdsadmin", f"ALTER ROLE {MASTER} NOLOGIN")
    _buy(server, APPLICATION, "after")
    assert _items(server, APPLICATION)[-1] == "after."
    _write(old_pod, "\\q")
    old_pod.communicate(timeout=10)


def _write(session: subprocess.Popen[str], text: str) -> None:
    pipe: IO[str] | None = session.stdin
    assert pipe is not None
    pipe.write(f"{text}\n")
    pipe.flush()


def _read(session: subprocess.Popen[str]) -> str:
    assert session.stdout is not None
    return session.stdout.readline().strip()


def test_everything_of_the_old_shop_is_the_application_s_and_nothing_else(server: Server) -> None:
    server.sql(MASTER, f"{OLD_SHOP} CREATE TABLE other.ledger (id int);")
    server.sql("rdsadmin", "CREATE TABLE public.of_rds (id int);")
    assert {line.split()[-1] for line in server.sql(MASTER, OWNERS)} == {MASTER, "rdsadmin"}
    server.job()
    owners = server.sql(MASTER, OWNERS)
    assert len(owners) > 20
    assert {line.split()[-1] for line in owners if " of_rds " not in line} == {APPLICATION}
    assert "r of_rds rdsadmin" in owners
    assert server.sql(MASTER, "SELECT tableowner FROM pg_tables WHERE schemaname = 'other'") == [MASTER]
    assert server.sql(MASTER, "SELECT datdba::regrole FROM pg_database WHERE datname = 'shop'") == [MASTER]


def test_a_schema_as_before_postgresql_15(server: Server) -> None:
    """There public is not the database owner's, and anyone may make objects in it."""
    server.sql("rdsadmin", "ALTER SCHEMA public OWNER TO rdsadmin; GRANT CREATE ON SCHEMA public TO PUBLIC")
    server.sql(MASTER, OLD_SHOP)
    server.job()
    assert {line.split()[-1] for line in server.sql(MASTER, OWNERS)} == {APPLICATION}
    server.sql(APPLICATION, "CREATE TABLE carts (id int)")
    _buy(server, MASTER, "old")


def test_twice_changes_nothing(server: Server) -> None:
    server.sql(MASTER, OLD_SHOP)
    server.job()
    first = server.sql("rdsadmin", RIGHTS)
    server.job()
    assert server.sql("rdsadmin", RIGHTS) == first


def test_who_may_connect_still_may(server: Server) -> None:
    server.job()
    assert server.sql("reader", "SELECT 1") == ["1"]


def test_a_database_of_this_program_s_own_keeps_others_out_and_gives_nothing_away(server: Server) -> None:
    server.sql(MASTER, "CREATE TABLE orders (id int)")
    server.job(taken_over=False)
    first = server.sql("rdsadmin", RIGHTS)
    assert first[0].startswith(f"orders|{MASTER}|")
    with pytest.raises(AssertionError, match="permission denied for database"):
        server.sql("reader", "SELECT 1")
    server.job(taken_over=False)
    assert server.sql("rdsadmin", RIGHTS) == first


def test_a_table_in_use_is_waited_for_and_not_for_long(server: Server) -> None:
    """ALTER TABLE would queue every other query behind it."""
    server.sql(MASTER, OLD_SHOP)
    reader = server.session(MASTER)
    _write(reader, "BEGIN; SELECT 'locked' FROM orders LIMIT 1;")
    assert _read(reader) == "locked"
    with pytest.raises(AssertionError, match="lock timeout"):
        server.job()
    _write(reader, "COMMIT; SELECT 'free';")
    assert _read(reader) == "free"
    server.job()
    assert server.sql(MASTER, "SELECT tableowner FROM pg_tables WHERE tablename = 'orders'") == [APPLICATION]
    reader.communicate(timeout=10)


def test_what_an_extension_has_made_stays_its_own(server: Server) -> None:
    available: Mapping[str, str] = dict.fromkeys(
        server.sql("rdsadmin", "SELECT name FROM pg_available_extensions"), "contrib"
    )
    if "citext" not in available:
        pytest.skip("the server has no extension citext (Debian: postgresql-contrib)")
    server.sql(MASTER, "CREATE EXTENSION citext")
    before = server.sql("rdsadmin", OWNERS)
    server.job()
    assert server.sql("rdsadmin", OWNERS) == before


def test_a_role_that_somebody_else_made_keeps_its_password(server: Server) -> None:
    stored = f"SELECT rolpassword FROM pg_authid WHERE rolname = '{APPLICATION}'"
    server.sql("rdsadmin", f"CREATE ROLE {APPLICATION} LOGIN PASSWORD 'theirs'", "postgres")
    before = server.sql("rdsadmin", stored, "postgres")
    with pytest.raises(AssertionError, match=r"shopcat:database\.applicationRole"):
        server.job()
    assert server.sql("rdsadmin", stored, "postgres") == before


# A role of each colour -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("taken_over", [True, False])
def test_what_one_colour_makes_is_the_owner_s_and_the_other_one_s_to_change(
    server: Server, *, taken_over: bool
) -> None:
    server.sql(MASTER, OLD_SHOP)
    server.job(taken_over=taken_over)
    _use(server, taken_over=taken_over)
    server.login("blue", "b1")
    server.login("green", "it's $g1")
    blue, green = partial(server.as_colour, "blue", "b1"), partial(server.as_colour, "green", "it's $g1")
    blue(
        "CREATE TABLE carts (id serial PRIMARY KEY, item text); CREATE TYPE size AS ENUM ('s');"
        "INSERT INTO carts (item) VALUES ('b')"
    )
    green(
        "ALTER TABLE carts ADD COLUMN size size; INSERT INTO carts (item) VALUES ('g'); ALTER TYPE size ADD VALUE 'm'"
    )
    assert blue("SELECT item FROM carts ORDER BY id") == ["b", "g"]
    # A pod from before still signs in as the owner, and uses what a migration has made since.
    assert server.sql(APPLICATION, "INSERT INTO carts (item) VALUES ('o'); SELECT count(*) FROM carts") == ["3"]
    assert blue("SELECT session_user, current_user") == [f"{LOGINS['blue']}|{APPLICATION}"]
    made = [line for line in server.sql(MASTER, OWNERS) if "carts" in line or "size" in line]
    assert made
    assert {line.split()[-1] for line in made} == {APPLICATION}


def _use(server: Server, *, taken_over: bool) -> None:
    """A shop of this program's own is made by the application itself."""
    if not taken_over:
        server.sql(MASTER, "DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        server.job(taken_over=False)


def test_a_colour_has_one_password_and_what_leaked_ends_with_the_second_release(server: Server) -> None:
    server.job(taken_over=False)
    server.login("green", "g1")
    server.login("blue", "b1")
    assert server.as_colour("green", "g1", "SELECT 1") == ["1"], "the former release's pods may start again"
    reader = server.session(LOGINS["blue"], PGPASSWORD="b1")
    server.login("green", "g2")
    with pytest.raises(AssertionError, match="password authentication failed"):
        server.as_colour("green", "g1", "SELECT 1")
    assert server.as_colour("green", "g2", "SELECT 1") == server.as_colour("blue", "b1", "SELECT 1") == ["1"]
    _write(reader, "SELECT 'goes on';")
    assert _read(reader) == "goes on"
    reader.communicate(timeout=10)
    first = server.sql("rdsadmin", RIGHTS)
    server.login("green", "g2")
    assert server.sql("rdsadmin", RIGHTS) == first, "the second time changes nothing"
    assert server.as_colour("green", "g2", "SELECT 1") == ["1"]


def _is_open(session: subprocess.Popen[str]) -> bool:
    _write(session, "SELECT 'goes on';")
    return _read(session) == "goes on"


def test_sessions_of_a_former_password_end_with_it_and_no_other_ones(server: Server) -> None:
    """What leaked may be signed in already."""
    server.job(taken_over=False)
    server.login("green", "g1")
    server.login("blue", "b1")
    blue, green = server.session(LOGINS["blue"], PGPASSWORD="b1"), server.session(LOGINS["green"], PGPASSWORD="g1")
    owner = server.session(APPLICATION)
    server.login("blue", "b1")
    assert _is_open(blue), "the Job of the live claim runs again"
    server.sql("rdsadmin", f"COMMENT ON ROLE {LOGINS['blue']} IS 'made for a colour of ShopCat'", "postgres")
    server.login("blue", "b1")
    assert _is_open(blue), "it was made before the comment had a claim"
    server.login("blue", "b2")
    assert not _is_open(blue)
    assert _is_open(green)
    assert _is_open(owner), "pods from before sign in as the owner"
    server.login("blue", "b3", closes_owner=True)
    assert not _is_open(owner)
    assert _is_open(green)
    for each in (blue, green, owner):
        each.communicate(timeout=10)


@pytest.mark.parametrize("taken_over", [True, False])
def test_the_owner_s_own_password_ends_with_the_claim_that_closes_it(server: Server, *, taken_over: bool) -> None:
    server.job(taken_over=taken_over)
    server.login("blue", "b1")
    assert server.sql(APPLICATION, "SELECT 1") == ["1"]
    server.login("green", "g1", closes_owner=True)
    with pytest.raises(AssertionError, match="not permitted to log in"):
        server.sql(APPLICATION, "SELECT 1")
    stored = f"SELECT rolpassword IS NULL FROM pg_authid WHERE rolname = '{APPLICATION}'"
    assert server.sql("rdsadmin", stored) == ["t"]
    for colour, password in (("blue", "b1"), ("green", "g1")):
        made = server.as_colour(colour, password, f"CREATE TABLE of_{colour} (id int); SELECT current_user")  # type: ignore[arg-type]
        assert made == [APPLICATION]
    server.job(taken_over=taken_over)
    with pytest.raises(AssertionError, match="not permitted to log in"):
        server.sql(APPLICATION, "SELECT 1")


@pytest.mark.parametrize("taken_over", [True, False])
def test_a_restored_copy_is_looked_at_as_the_owner_who_may_not_sign_in_any_more(
    server: Server, *, taken_over: bool
) -> None:
    server.job(taken_over=taken_over)
    server.login("blue", "b1", closes_owner=True)
    server.as_colour(
        "blue", "b1", "CREATE TABLE orders (id serial, at timestamptz); INSERT INTO orders (at) VALUES (now())"
    )
    server.sql("rdsadmin", f"CREATE TABLE theirs (at timestamptz); GRANT INSERT ON theirs TO {APPLICATION}")
    for _ in range(2):  # it may run again
        script = role_sql(taken_over=taken_over) + restored_sql()
        lines = server.script(script, APP_USER=APPLICATION, NEW_PASSWORD="it's $secret").splitlines()
    assert "orders: rows|1" in lines
    assert [line for line in lines if "theirs" in line] == ["theirs: another role's, not looked at"]
    assert any(line.startswith("orders.at: newest|20") for line in lines)
    number = server.as_colour("blue", "b1", "INSERT INTO orders (at) VALUES (now()) RETURNING id")
    assert int(number[0]) > 2 * SEQUENCE_GAP
    with pytest.raises(AssertionError, match="not permitted to log in"):
        server.sql(APPLICATION, "SELECT 1")


@pytest.mark.parametrize(
    ("declared", "at"),
    [
        ("AS bigint", 7),
        ("AS integer", 2_000_000_000),
        ("AS integer", 2_147_483_647 - 2 * SEQUENCE_GAP),
        ("AS integer", 2_147_483_648 - 2 * SEQUENCE_GAP),
        ("AS smallint", 7),
        ("INCREMENT -1", -7),
        ("INCREMENT 5 MAXVALUE 9999999", 7),
    ],
)
def test_a_sequence_of_a_copy_goes_on_later_or_is_named(server: Server, declared: str, at: int) -> None:
    server.job(taken_over=False)
    server.login("blue", "b1")
    server.as_colour(
        "blue", "b1", f"CREATE TABLE orders (id int); CREATE SEQUENCE number {declared}; SELECT setval('number', {at})"
    )
    lines = server.script(restored_sql(), APP_USER=APPLICATION, NEW_PASSWORD="x").splitlines()
    (next_number,) = server.as_colour("blue", "b1", "SELECT nextval('number')")
    has_gone_on = int(next_number) - at > SEQUENCE_GAP
    assert has_gone_on != (f"number: {MAY_REPEAT}|{at}" in lines)
    assert any(line.startswith("number: goes on at|") for line in lines) == has_gone_on


ODD = st.text(st.characters(exclude_categories=("C", "Z"), codec="utf-8"), min_size=12, max_size=30)
QUOTES = st.text("aB1'\"\\\\$%`:;{}()&#", min_size=12, max_size=30)


@settings(max_examples=examples(20), deadline=None, suppress_health_check=list(HealthCheck))
@given(password=st.one_of(ODD, QUOTES))
def test_any_password_is_set_as_it_is_and_stands_in_no_log(server: Server, password: str) -> None:
    server.job(taken_over=False)
    server.login("blue", password)
    assert server.as_colour("blue", password, "SELECT current_user") == [APPLICATION]
    log = (server.folder / "log").read_text()
    assert f"ALTER USER {LOGINS['blue']} PASSWORD" in log, "statements are logged"
    assert password not in log
    assert password.replace("'", "''") not in log


@pytest.mark.parametrize("password", ["", "two\nlines"])
def test_a_password_that_nobody_can_sign_in_with_is_refused(server: Server, password: str) -> None:
    server.job(taken_over=False)
    server.login("blue", "b1")
    with pytest.raises(AssertionError, match=r"NEW_PASSWORD: is empty|Passwords didn't match"):
        server.login("blue", password)
    assert server.as_colour("blue", "b1", "SELECT 1") == ["1"]


ROLE = LOGINS["blue"]
BY_HAND = (
    f"ALTER ROLE {ROLE} NOLOGIN",
    f"ALTER ROLE {ROLE} NOINHERIT",
    f"ALTER ROLE {ROLE} CONNECTION LIMIT 0",
    f"ALTER ROLE {ROLE} VALID UNTIL '2020-01-01'",
    f"ALTER ROLE {ROLE} PASSWORD NULL",
    f"ALTER ROLE {ROLE} PASSWORD 'another'",
    f"ALTER ROLE {ROLE} RESET ALL",
    f"ALTER ROLE {ROLE} SET role = none",
    f"ALTER ROLE {ROLE} SET default_transaction_read_only = on",
    f"ALTER ROLE {ROLE} IN DATABASE {DATABASE} SET role = {ROLE}",
    f"ALTER ROLE {ROLE} IN DATABASE {DATABASE} SET search_path = nowhere",
    f"REVOKE {APPLICATION} FROM {ROLE}",
    f"DROP ROLE {ROLE}",
)
"""What a person may do to a colour's role."""
SHOWN = ("search_path", "statement_timeout", "timezone", "datestyle", "default_transaction_read_only")
OF_OWNER = (
    "SET search_path = shop, public",
    'SET search_path = "$user", "Odd, it\'s", public',
    "SET search_path = ''",
    "SET statement_timeout = '7s'",
    "SET TimeZone = 'Asia/Yekaterinburg'",
    "SET datestyle = 'German, DMY'",
    "SET app.tenant = 'x'",
    "SET log_statement = 'none'",
    "RESET search_path",
    "RESET ALL",
)
"""What a shop, or a superuser, may have set for the role that it signed in as."""


@settings(max_examples=examples(30), deadline=None, suppress_health_check=list(HealthCheck))
@given(
    by_hand=st.lists(st.sampled_from(BY_HAND), max_size=4, unique=True).map(
        lambda chosen: sorted(chosen, key=BY_HAND.index)
    ),
    of_owner=st.lists(
        st.tuples(st.sampled_from(["", f"IN DATABASE {DATABASE}"]), st.sampled_from(OF_OWNER)), max_size=4
    ),
)
def test_a_claim_undoes_what_was_done_to_its_role_and_follows_the_owner_s_settings(
    server: Server, by_hand: list[str], of_owner: list[tuple[str, str]]
) -> None:
    """A schema that is not public is found by the owner's `search_path`, which PostgreSQL applies where the owner signs in."""
    server.job(taken_over=False)
    server.login("blue", "b1")
    server.sql(
        "rdsadmin", ";".join([*by_hand, *(f"ALTER ROLE {APPLICATION} {place} {text}" for place, text in of_owner)])
    )
    server.login("blue", "b2")
    show = "".join(f"SHOW {name};" for name in SHOWN)
    assert server.as_colour("blue", "b2", f"SELECT current_user; {show}") == [
        APPLICATION,
        *server.sql(APPLICATION, show),
    ]


def test_a_colour_s_role_that_somebody_else_made_is_refused_before_it_is_touched(server: Server) -> None:
    server.job(taken_over=False)
    server.sql("rdsadmin", f"CREATE ROLE {LOGINS['blue']} LOGIN PASSWORD 'theirs'", "postgres")
    with pytest.raises(AssertionError, match="no release has made it"):
        server.login("blue", "b1", closes_owner=True)
    assert server.sql(APPLICATION, "SELECT 1") == ["1"]
    with pytest.raises(AssertionError, match="password authentication failed"):
        server.as_colour("blue", "b1", "SELECT 1")


def test_no_quote_is_one_that_kubernetes_would_change() -> None:
    for sql in (role_sql(taken_over=True), role_sql(taken_over=False), login_sql(), restored_sql()):
        assert "$$" not in sql
        assert "$(" not in sql
