"""A real PostgreSQL behind the endpoint of each of the twin's RDS instances.

It is made when the RDS instance is made, with the instance's database, master user and master password; TLS comes from the
twin's authority, and ``rds.force_ssl`` of the parameter group decides whether a connection without TLS is let in.

Its write-ahead log is archived as RDS does it (twin/aws/point_in_time.py), so that another instance can be made of it as it was
at a moment.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from twin.build import programs
from twin.config import PartStatus, Twin
from twin.errors import TwinError
from twin.host import pki, processes
from twin.paths import is_root

MOST_SERVERS = 3
"""Instances at a time: production's, one that is restored, and one more."""
SEGMENT_SECONDS = 30
"""Time after which a segment of the log is archived although it isn't full. RDS does it every five minutes
(docs.aws.amazon.com/AmazonRDS/latest/UserGuide/USER_PIT.html), a tenth of that keeps a rehearsal short."""
_SEGMENT_MEBIBYTES = 1
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


@dataclass(frozen=True)
class Server:
    """One PostgreSQL: where its files are and how it is reached."""

    twin: Twin
    place: int = 0
    """0 is the first instance; each other one has a port and a folder of its own."""

    @property
    def process(self) -> str:
        """Name of its process."""
        return f"postgres-{self.place}" if self.place else "postgres"

    @property
    def data(self) -> Path:
        """Folder of the cluster's files."""
        return self.twin.directory / self.process

    @property
    def backup(self) -> Path:
        """Folder of its base backup and of its archived log."""
        return self.twin.directory / f"{self.process}-backup"

    @property
    def port(self) -> int:
        """TCP port on the twin's address."""
        return self.twin.postgres_port if self.place == 0 else self.twin.port(12 + self.place)


def servers(twin: Twin) -> list[Server]:
    """All that a twin may have, whether or not they are there."""
    return [Server(twin, place) for place in range(MOST_SERVERS)]


def endpoint_name(twin: Twin, identifier: str, region: str) -> str:
    """A DNS name such as RDS makes."""
    return f"{identifier}.c{twin.index:02d}twintwin.{region}.rds.amazonaws.com"


def tool(twin: Twin, name: str, *arguments: str, stdin: str = "") -> str:
    """Run one of PostgreSQL's programs as the account that owns the files; return its output.

    Raises:
        TwinError: it failed, with its message.
    """
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


def own(path: Path) -> None:
    """Give a file or folder to the account that PostgreSQL runs as."""
    if is_root():
        account = pwd.getpwnam(_ACCOUNT)
        os.chown(path, account.pw_uid, account.pw_gid)


def make_folder(path: Path) -> None:
    """Make a folder that PostgreSQL's account alone may enter."""
    path.mkdir(mode=0o700)
    own(path)


def local(server: Server) -> list[str]:
    """Options with which a client program comes in over the local socket, as PostgreSQL's own superuser."""
    return ["-h", str(server.data), "-p", str(server.port), "-U", "rdsadmin"]


def sql(server: Server, text: str, *, database: str = "postgres") -> str:
    """Run SQL as PostgreSQL's own superuser over the local socket."""
    flags = [*local(server), "-d", database]
    return tool(server.twin, "psql", *flags, "-v", "ON_ERROR_STOP=1", "-At", "-q", stdin=text)


def _quote(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _identifier(value: str) -> str:
    return '"' + value.replace('"', '""') + '"'


def create(
    server: Server,
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
    twin, data = server.twin, server.data
    if not data.exists():
        make_folder(data)
        initial = ["-D", str(data), "-U", "rdsadmin", "--auth-local=trust", "--auth-host=scram-sha-256"]
        tool(twin, "initdb", *initial, f"--wal-segsize={_SEGMENT_MEBIBYTES}")
        write_settings(server, hostname, instance_class, force_ssl=force_ssl)
    start(server)
    sql(server, f"CREATE ROLE {_identifier(user)} LOGIN CREATEROLE CREATEDB PASSWORD {_quote(password)};")
    sql(server, f"CREATE DATABASE {_identifier(database)} OWNER {_identifier(user)};")


def write_settings(server: Server, hostname: str, instance_class: str, *, force_ssl: bool) -> None:
    """Write what the instance's own settings say: address, TLS, connections, and where its log is archived."""
    twin, data = server.twin, server.data
    files = pki.server_files(twin, f"postgres-{hostname.partition('.')[0]}", [hostname], [twin.host_ip, "127.0.0.1"])
    for source, name in ((files.certificate, "server.crt"), (files.key, "server.key")):
        target = data / name
        shutil.copy(source, target)
        target.chmod(0o600)
        own(target)
    archive = server.backup / "log"
    for folder in (server.backup, archive):
        if not folder.exists():
            make_folder(folder)
    addresses = ",".join(sorted({"127.0.0.1", twin.host_ip}))
    with (data / "postgresql.conf").open("a") as settings:
        settings.write(
            f"listen_addresses = '{addresses}'\n"
            f"port = {server.port}\n"
            f"unix_socket_directories = '{data}'\n"
            f"max_connections = {maximum_connections(instance_class)}\n"
            "ssl = on\nssl_cert_file = 'server.crt'\nssl_key_file = 'server.key'\n"
            "log_connections = off\nlog_statement = none\n"
            f"archive_mode = on\narchive_timeout = {SEGMENT_SECONDS}\n"
            # With the time of its last write, which says up to when the archive reaches.
            f"archive_command = 'test ! -f {archive}/%f && cp -p %p {archive}/%f'\n"
        )
    remote = "hostssl" if force_ssl else "host"
    (data / "pg_hba.conf").write_text(f"local all,replication rdsadmin trust\n{remote} all all all scram-sha-256\n")


def start(server: Server) -> None:
    """Start the cluster; returns when it takes connections."""
    twin = server.twin
    process = processes.start(
        twin,
        server.process,
        [programs.debian_program(twin, "postgres"), "-D", server.data],
        env=programs.debian_environment(twin),
        user=_ACCOUNT if is_root() else None,
        cwd=Path("/"),
    )

    def answers() -> bool:
        try:
            return sql(server, "SELECT NOT pg_is_in_recovery();").strip() == "t"
        except TwinError:
            return False

    processes.wait_until(answers, "PostgreSQL answers", timeout_seconds=60, process=process)


def _stop(server: Server) -> None:
    """Stop the server by its fast shutdown (SIGINT): SIGTERM would wait for clients to leave, and those of a pool never do."""
    processes.stop(server.twin, server.process, grace_seconds=60, by=signal.SIGINT)


def restart(server: Server, down_seconds: float = 0) -> None:
    """Restart a server that is down for that long, as RDS does for its reboot or another version: connections are cut."""
    _stop(server)
    time.sleep(down_seconds)
    start(server)


def context(server: Server, parameter: str) -> str:
    """Return when PostgreSQL reads a parameter (`postmaster`: when it starts); empty if it has no such parameter."""
    return sql(server, f"SELECT context FROM pg_settings WHERE name = {_quote(parameter)};").strip()  # noqa: S608 - quoted


def set_parameters(server: Server, parameters: Mapping[str, str]) -> None:
    """Write parameters down; PostgreSQL takes the dynamic ones at once, and the static ones when it starts again."""
    for name, value in parameters.items():
        sql(server, f"ALTER SYSTEM SET {_identifier(name)} = {_quote(value)};")
    sql(server, "SELECT pg_reload_conf();")


def waits_for_restart(server: Server) -> bool:
    """Tell whether a static parameter was changed and does not hold yet."""
    return sql(server, "SELECT count(*) FROM pg_settings WHERE pending_restart;").strip() != "0"


def set_password(server: Server, user: str, password: str) -> None:
    """Change a role's password in the database, like RDS when it rotates the master secret."""
    sql(server, f"ALTER ROLE {_identifier(user)} PASSWORD {_quote(password)};")


def destroy(server: Server) -> None:
    """Stop the cluster and delete its files, those of its backup too."""
    _stop(server)
    for folder in (server.data, server.backup):
        shutil.rmtree(folder, ignore_errors=True)


def status(twin: Twin) -> list[PartStatus]:
    """Report whether each instance's PostgreSQL runs; without an RDS instance none needs to."""
    lines = []
    for server in servers(twin):
        if server.data.exists():
            running = processes.find(twin, server.process) is not None
            detail = f"port {server.port}" if running else "not running"
            lines.append(PartStatus("PostgreSQL", ok=running, detail=detail))
    return lines or [PartStatus("PostgreSQL", ok=True, detail="no RDS instance yet")]
