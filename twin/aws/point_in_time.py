"""Point-in-time recovery of the twin's RDS instances, by PostgreSQL's own: a base backup and the archived write-ahead log.

The restored instance replays the log up to the moment and no further (postgresql.org/docs/15/continuous-archiving.html), so it
holds what was committed by then and nothing that came later.
"""

from __future__ import annotations

import shutil
import time
from datetime import UTC, datetime
from pathlib import Path

from twin.aws import postgres
from twin.aws.postgres import Server
from twin.errors import TwinError

_ARCHIVE_SECONDS = 30.0
_SEGMENT_NAME = 24
"""Length of the name of a segment; history files and backup labels beside them have others."""


class RestoreRefusedError(TwinError):
    """A moment that the backups don't reach."""


def back_up(server: Server) -> None:
    """Take the base backup that every restore begins with."""
    base = server.backup / "base"
    postgres.make_folder(base)
    postgres.tool(
        server.twin, "pg_basebackup", *postgres.local(server), "-D", str(base), "-X", "none", "-c", "fast",
    )  # fmt: skip
    (server.backup / "since").write_text(datetime.now(UTC).isoformat())


def earliest(server: Server) -> datetime | None:
    """Return the first moment that can be restored; None before the base backup is done."""
    since = server.backup / "since"
    return datetime.fromisoformat(since.read_text()) if since.exists() else None


def latest(server: Server) -> datetime | None:
    """Return the last moment that can be restored: the last write in the newest archived segment; None without any."""
    first = earliest(server)
    segments = _segments(server)
    if first is None or not segments:
        return None
    last = datetime.fromtimestamp(segments[-1].stat().st_mtime, UTC)
    return last if last > first else None


def _segments(server: Server) -> list[Path]:
    archive = server.backup / "log"
    names = archive.iterdir() if archive.exists() else ()
    return sorted(path for path in names if len(path.name) == _SEGMENT_NAME)


def restore(
    source: Server, target: Server, moment: datetime, *, hostname: str, instance_class: str, force_ssl: bool
) -> None:
    """Make the target's cluster as the source's was at the moment, and start it.

    Raises:
        RestoreRefusedError: the backups don't reach that moment.
        TwinError: PostgreSQL did not start; names its log.
    """
    refuse_unreachable(source, moment)
    _finish_segment(source)
    shutil.copytree(source.backup / "base", target.data, symlinks=True)
    for path in [target.data, *target.data.rglob("*")]:
        postgres.own(path)
    target.data.chmod(0o700)
    # Settings that come later in the file win over those of the source.
    postgres.write_settings(target, hostname, instance_class, force_ssl=force_ssl)
    with (target.data / "postgresql.conf").open("a") as settings:
        settings.write(
            f"restore_command = 'cp {source.backup}/log/%f %p'\n"
            f"recovery_target_time = '{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}+00'\n"
            "recovery_target_action = 'promote'\nhot_standby = on\n"
        )
    signal = target.data / "recovery.signal"
    signal.touch()
    postgres.own(signal)
    postgres.start(target)


def refuse_unreachable(source: Server, moment: datetime) -> None:
    """Refuse a moment outside of what the backups hold, as RDS does.

    Raises:
        RestoreRefusedError: it is too early or too late.
    """
    first, last = earliest(source), latest(source)
    if first is None or last is None:
        raise RestoreRefusedError("the instance has no backup yet that could be restored")
    if not first <= moment <= last:
        raise RestoreRefusedError(f"the instance can be restored between {first:%H:%M:%S} and {last:%H:%M:%S} UTC")


def _finish_segment(source: Server) -> None:
    """Archive what was written up to now: recovery wants one commit past its moment to know that it has arrived."""
    name = postgres.sql(
        source, "SELECT pg_current_xact_id() \\g /dev/null\nSELECT pg_walfile_name(pg_switch_wal());"
    ).strip()
    deadline = time.monotonic() + _ARCHIVE_SECONDS
    while not (source.backup / "log" / name).exists():
        if time.monotonic() > deadline:
            raise TwinError(f"PostgreSQL has not archived {name} within {_ARCHIVE_SECONDS:.0f} s")
        time.sleep(0.2)
