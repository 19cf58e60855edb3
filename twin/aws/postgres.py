"""A real PostgreSQL behind the endpoint of the twin's RDS instance.

It is made when the RDS instance is made, with the instance's database, master user and master password; TLS comes from the
twin's authority, and ``rds.force_ssl`` of the parameter group decides whether a connection without TLS is let in.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
from pathlib import Path

from twin.build import programs
from twin.config import PartStatus, Twin
from twin.errors import TwinError
from twin.host import pki, processes
from twin.paths import is_root

PROCESS = "postgres"
_ACCOUNT = "nobody"  # PostgreSQL refuses to run as root
_MEMORY_BYTES = {"db.t4g.micro": 1 << 30, "db.t4g.small": 2 << 30, "db.t4g.medium": 4 << 30}


def maximum_connections(instance_class: str) -> int:
    """RDS's default, LEAST(DBInstanceClassMemory / 9531392, 5000).

    Source: docs.aws.amazon.com/AmazonRDS/latest/UserGuide/CHAP_Limits.html (maximum number of database connections).
    DBInstanceClassMemory is less than the class's memory by what RDS itself uses; the whole is taken here.

    Raises:
        TwinError: a class whose memory is not known here.
    """
    if instance_class not in _MEMORY_BYTES:
        known = ", ".join(_MEMORY_BYTES)
        raise TwinError(f"twin: RDS instance class {instance_class} is not implemented by the stand-in; known: {known}")
    return min(_MEMORY_BYTES[instance_class] // 9531392, 5000)


def data_directory(twin: Twin) -> Path:
    """Folder of the cluster's files."""
    return twin.directory / "postgres"


def endpoint_name(twin: Twin, identifier: str, region: str) -> str:
    """A DNS name such as RDS makes."""
    return f"{identifier}.c{twin.index:02d}twintwin.{region}.rds.amazonaws.com"


def _tool(twin: Twin, name: str, *arguments: str, stdin: str = "") -> str:
    account = pwd.getpwnam(_ACCOUNT) if is_root() else None
    result = subprocess.run(
        [programs.debian_program(twin, name), *arguments],
        env={**os.environ, **programs.debian_environment(twin)},
        input=stdin,
        text=True,
        check=False,
        capture_output=True,
        cwd="/",
        user=account.pw_uid if account else None,
        group=account.pw_gid if account else None,
        extra_groups=[] if account else None,
    )
    if result.returncode != 0:
        raise TwinError(f"{name} failed: {result.stderr.strip()}")
    return result.stdout


def sql(twin: Twin, text: str, *, database: str = "postgres") -> str:
    """Run SQL as PostgreSQL's own superuser over the local socket."""
    socket = str(data_directory(twin))
    flags = ["-h", socket, "-p", str(twin.postgres_port), "-U", "rdsadmin", "-d", database]
    return _tool(twin, "psql", *flags, "-v", "ON_ERROR_STOP=1", "-At", "-q", stdin=text)


def _quote(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _identifier(value: str) -> str:
    return '"' + value.replace('"', '""') + '"'


def create(
    twin: Twin,
    *,
    hostname: str,
    database: str,
    user: str,
    password: str,
    instance_class: str,
    force_ssl: bool,
) -> None:
    """Make the cluster, start it, and give it the instance's database and master user.

    The master user may create roles and databases but is no superuser, as on RDS.

    Raises:
        TwinError: PostgreSQL did not start; names its log.
    """
    data = data_directory(twin)
    if not data.exists():
        data.mkdir(mode=0o700)
        if is_root():
            account = pwd.getpwnam(_ACCOUNT)
            os.chown(data, account.pw_uid, account.pw_gid)
        _tool(twin, "initdb", "-D", str(data), "-U", "rdsadmin", "--auth-local=trust", "--auth-host=scram-sha-256")
        _write_settings(twin, hostname, instance_class, force_ssl=force_ssl)
    start(twin)
    sql(twin, f"CREATE ROLE {_identifier(user)} LOGIN CREATEROLE CREATEDB PASSWORD {_quote(password)};")
    sql(twin, f"CREATE DATABASE {_identifier(database)} OWNER {_identifier(user)};")


def _write_settings(twin: Twin, hostname: str, instance_class: str, *, force_ssl: bool) -> None:
    data = data_directory(twin)
    files = pki.server_files(twin, "postgres", [hostname], [twin.host_ip, "127.0.0.1"])
    for source, name in ((files.certificate, "server.crt"), (files.key, "server.key")):
        target = data / name
        shutil.copy(source, target)
        target.chmod(0o600)
        if is_root():
            account = pwd.getpwnam(_ACCOUNT)
            os.chown(target, account.pw_uid, account.pw_gid)
    addresses = ",".join(sorted({"127.0.0.1", twin.host_ip}))
    with (data / "postgresql.conf").open("a") as settings:
        settings.write(
            f"listen_addresses = '{addresses}'\n"
            f"port = {twin.postgres_port}\n"
            f"unix_socket_directories = '{data}'\n"
            f"max_connections = {maximum_connections(instance_class)}\n"
            "ssl = on\nssl_cert_file = 'server.crt'\nssl_key_file = 'server.key'\n"
            "log_connections = off\nlog_statement = none\n"
        )
    remote = "hostssl" if force_ssl else "host"
    (data / "pg_hba.conf").write_text(f"local all rdsadmin trust\n{remote} all all all scram-sha-256\n")


def start(twin: Twin) -> None:
    """Start the cluster; returns when it takes connections."""
    data = data_directory(twin)
    process = processes.start(
        twin,
        PROCESS,
        [programs.debian_program(twin, "postgres"), "-D", data],
        env=programs.debian_environment(twin),
        user=_ACCOUNT if is_root() else None,
        cwd=Path("/"),
    )

    def answers() -> bool:
        try:
            return sql(twin, "SELECT 1;").strip() == "1"
        except TwinError:
            return False

    processes.wait_until(answers, "PostgreSQL answers", timeout_seconds=30, process=process)


def _stop(twin: Twin) -> None:
    """Stop the server by its fast shutdown (SIGINT): SIGTERM would wait for clients to leave, and those of a pool never do."""
    processes.stop(twin, PROCESS, grace_seconds=60, by=signal.SIGINT)


def restart(twin: Twin) -> None:
    """Restart the server, like RDS's reboot: connections are cut, data stays."""
    _stop(twin)
    start(twin)


def set_password(twin: Twin, user: str, password: str) -> None:
    """Change a role's password in the database, like RDS when it rotates the master secret."""
    sql(twin, f"ALTER ROLE {_identifier(user)} PASSWORD {_quote(password)};")


def destroy(twin: Twin) -> None:
    """Stop the cluster and delete its files."""
    _stop(twin)
    shutil.rmtree(data_directory(twin), ignore_errors=True)


def status(twin: Twin) -> list[PartStatus]:
    """Report whether PostgreSQL runs; without an RDS instance it needn't."""
    if not data_directory(twin).exists():
        return [PartStatus("PostgreSQL", ok=True, detail="no RDS instance yet")]
    running = processes.find(twin, PROCESS) is not None
    return [PartStatus("PostgreSQL", ok=running, detail=f"port {twin.postgres_port}" if running else "not running")]
