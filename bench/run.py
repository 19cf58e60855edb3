"""Load on a twin's production, and the records of load balancer and database."""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import secrets
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from bench import tools
from bench.load import MIX, Load, Stream
from twin import config, parts, pulumi
from twin.aws import postgres
from twin.aws.postgres import Server
from twin.config import Twin
from twin.errors import TwinError
from twin.host import pki, processes
from twin.loadbalancer import access_log, front_door, hostnames
from twin.paths import REPOSITORY, is_root, state_directory
from twin.scenarios import production

LOAD_BALANCER = "shopcat"
PREVIEW_LOAD_BALANCER = "shopcat-preview"
_NICE = 10
_OTHERS_ROLE = "bench"
_others_passwords: dict[str, str] = {}
"""Twin → password of that role, made once in the life of this process."""


def why_not(names: Iterable[str]) -> str:
    """Return what keeps a bench from making its twins; empty if nothing does."""
    if not is_root():
        return "the bench needs real pods, and those need root"
    for name in names:
        if (state_directory() / name).exists():
            return f"twin {name} exists; SHOPCAT_TWIN_NAME={name} make down, then again"
    return ""


def take_down(names: Iterable[str]) -> None:
    """Kill what still works on them, and take twins down whole; print what can't be removed, and keep that twin."""
    tools.kill_started()
    for name in names:
        twin = config.load(name, simulated=False)
        left = parts.down(twin)
        if left:
            print("\n".join(left), file=sys.stderr)
            continue
        shutil.rmtree(twin.directory, ignore_errors=True)
        config.release_index(twin)


def load_on(twin: Twin, streams: Iterable[Stream] = MIX, maximum_seconds: float = 3600.0, prefix: str = "") -> Load:
    """Return a load on a twin's production URL, or on a host below its previews' domain; it isn't started yet."""
    return Load(
        front_door.address(twin),
        f"{prefix}{hostnames.preview_domain(twin)}" if prefix else hostnames.domain(twin),
        ca_file=pki.ca_file(twin),
        streams=tuple(streams),
        maximum_seconds=maximum_seconds,
    )


def requests_since(twin: Twin, since: float, load_balancer: str = LOAD_BALANCER) -> list[access_log.Request]:
    """Read the requests that the load balancer's nodes have logged since then (seconds since the epoch)."""
    requests: list[access_log.Request] = []
    for log in sorted(twin.logs.glob(f"alb-{load_balancer}-node*.log")):
        requests += [request for request in access_log.read(log) if request.received_ms >= since * 1000]
    return requests


def application_secret_name(twin: Twin) -> str:
    """Return the name of the application's secret in Secrets Manager.

    Raises:
        TwinError: the stack has none yet.
    """
    names = [secret["Name"] for secret in pulumi.client(twin, "secretsmanager").list_secrets()["SecretList"]]
    name = next((name for name in names if name.endswith("/application")), None)
    if name is None:
        raise TwinError("the stack has no application secret yet; `make up` first")
    return str(name)


def _database(twin: Twin) -> Mapping[str, str]:
    """Return the application's secret, which names the database."""
    manager = pulumi.client(twin, "secretsmanager")
    where: dict[str, str] = json.loads(manager.get_secret_value(SecretId=application_secret_name(twin))["SecretString"])
    return where


def login_secret_name(twin: Twin) -> str:
    """Return the name of the secret that the live colour's pods sign in with; the application's own before any release."""
    colour = production.outputs(twin)["liveColour"]
    return f"shopcat/login-{colour}" if colour else application_secret_name(twin)


def application_secret(twin: Twin) -> Mapping[str, str]:
    """Return the secret part of the environment of the live colour's pods; never print it."""
    manager = pulumi.client(twin, "secretsmanager")
    names = (application_secret_name(twin), login_secret_name(twin))
    where, login = (json.loads(manager.get_secret_value(SecretId=name)["SecretString"]) for name in names)
    return {**where, **login}


def others_secret(twin: Twin) -> Mapping[str, str]:
    """Return where the database is, and a role for systems that are compared with this program; never print it.

    The role acts as the owner of the tables, as each colour's does. A colour's own password would end under their pods, with the
    second release after it.
    """
    where = _database(twin)
    if twin.name not in _others_passwords:
        _others_passwords[twin.name] = password = secrets.token_hex(20)
        role, owner = _OTHERS_ROLE, where["username"]
        statements = f"""
            DROP ROLE IF EXISTS {role};
            CREATE ROLE {role} LOGIN PASSWORD '{password}';
            GRANT {owner} TO {role};
            ALTER ROLE {role} SET role = {owner};
        """
        postgres.sql(Server(twin), statements, database=where["dbname"])
    return {**where, "username": _OTHERS_ROLE, "password": _others_passwords[twin.name]}


def sql(twin: Twin, statement: str) -> list[list[str]]:
    """Query the shop's database; return the rows.

    Raises:
        TwinError: psql failed, with its message.
    """
    secret = application_secret(twin)
    where = f"host={twin.host_ip} port={twin.postgres_port} dbname={secret['dbname']} user={secret['username']}"
    result = subprocess.run(
        ["psql", f"{where} sslmode=require", "-At", "-F", "\t", "-c", statement],
        env={**os.environ, **pulumi.environment(twin), "PGPASSWORD": secret["password"]},
        text=True,
        capture_output=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if result.returncode != 0:
        raise TwinError(f"psql: {result.stderr.strip()}")
    return [line.split("\t") for line in result.stdout.splitlines()]


def stored_orders(twin: Twin) -> dict[str, int]:
    """Map each idempotency key to its number of rows, read as the superuser: a release changes the colours' passwords."""
    rows = postgres.sql(
        Server(twin), "SELECT idempotency_key, count(*) FROM orders GROUP BY 1;", database=_database(twin)["dbname"]
    )
    return {key: int(count) for key, _, count in (line.partition("|") for line in rows.splitlines())}


def up_command(values: Mapping[str, str]) -> list[str]:
    """Return ``pulumi up -s prod`` with settings, named without their prefix: ``{"tag": "v1.2.0"}``, ``{"abort": "v1.2.0"}``."""
    options = [part for name, value in values.items() for part in ("-c", f"shopcat:{name}={value}")]
    return ["pulumi", "up", "-s", pulumi.STACK, "--yes", "--skip-preview", "--non-interactive", *options]


def environment(twin: Twin, config_file: Path) -> dict[str, str]:
    """Return the environment for ``pulumi`` on the twin with a settings file of one's own."""
    return {**os.environ, **pulumi.environment(twin), "PULUMI_OPTION_CONFIG_FILE": str(config_file)}


def start_up(
    twin: Twin,
    settings: Path,
    log: Path,
    values: Mapping[str, str],
    *,
    more: Mapping[str, str] | None = None,
    first: Sequence[str] = (),
    if_it_fails: Sequence[str] = (),
) -> subprocess.Popen[str]:
    """Start ``pulumi up -s prod`` with settings for this one run, in the background; its output goes to ``log``.

    It runs at a lower priority: where there is an AWS it runs on a machine of its own.

    Args:
        twin: whose stack it is.
        settings: a throw-away file, which `pulumi up -c` writes into.
        log: where the output goes.
        values: as :func:`up_command` takes them.
        more: added to the environment.
        first: command that runs before it, into the same log; if it fails, nothing else runs.
        if_it_fails: command that runs after an update that failed, into the same log; the exit code stays the update's.
    """
    argv = up_command(values)
    if first:
        argv = ["sh", "-c", f"{shlex.join(first)} && {shlex.join(argv)}"]
    if if_it_fails:
        argv = ["sh", "-c", f"{shlex.join(argv)} || {{ code=$?; {shlex.join(if_it_fails)}; exit $code; }}"]
    variables = {**environment(twin, settings), **(more or {})}
    process = tools.start_session(["nice", "-n", str(_NICE), *argv], REPOSITORY, variables, log)
    # Where the kernel groups processes by session, a process's own niceness counts among its session alone.
    with contextlib.suppress(OSError):
        Path(f"/proc/{process.pid}/autogroup").write_text(str(_NICE))
    return process


def prepare_process() -> None:
    """Prepare a process that sends load for long: its output is seen at once, also in a file, and the client never pauses.

    The garbage collector would look through every outcome, the longer the more there are.
    """
    processes.heed_interrupts()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, 1 << 30)


def keep_logs(directory: Path, target: Path) -> None:
    """Copy the logs of the engine and the scripts, for whoever looks into a run; replace those of the run before."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for path in directory.rglob("*.log"):
        shutil.copy(path, target)
