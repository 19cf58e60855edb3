"""`make restore-drill` with the real engine: restored, checked, released and held, taken back, gone; nothing left to change.

PostgreSQL is real and restored to a moment, pods are simulated: what the Jobs run is in test_point_in_time.py.
"""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from bench import run
from infra.foundation.secret_versions import current_version, restored_instance
from tests.tools import aws, command, settings_file, summary
from twin import pulumi
from twin.aws import point_in_time
from twin.aws.postgres import Server
from twin.config import Twin
from twin.paths import REPOSITORY
from twin.scenarios import production

pytestmark = pytest.mark.engine


def instances(twin: Twin) -> dict[str, str]:
    described = aws(twin, "rds").describe_db_instances()["DBInstances"]
    return {each["DBInstanceIdentifier"]: each["Endpoint"]["Address"] for each in described}


def up(twin: Twin, settings: Path, *options: str) -> tuple[int, str]:
    argv = ["pulumi", "up", "-s", "prod", "--yes", "--skip-preview", "--non-interactive", *options]
    result = command(twin, argv, check=False, PULUMI_OPTION_CONFIG_FILE=str(settings))
    return result.returncode, result.stdout + result.stderr


def with_restore(twin: Twin, directory: Path, **restore: Any) -> Path:
    import yaml

    present = yaml.safe_load((twin.directory / "Pulumi.prod.yaml").read_text())["config"]["shopcat:database"]
    return settings_file(twin, directory, {"shopcat:database": {**present, "restore": restore}})


def restorable_moment(twin: Twin) -> str:
    """Wait until the backups reach further than the base backup; return the newest moment that can be restored."""
    from twin.aws import postgres

    deadline = time.monotonic() + 300
    while (moment := point_in_time.latest(Server(twin))) is None:
        postgres.sql(Server(twin), "SELECT pg_current_xact_id();")
        assert time.monotonic() < deadline
        time.sleep(2)
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


@pytest.fixture(scope="module")
def restorable(simulated: Twin) -> Twin:
    """Production whose backups reach further than its base backup."""
    restorable_moment(simulated)
    time.sleep(31)  # the ledger's backups reach as far as 30 s ago
    return simulated


def test_the_drill_leaves_everything_as_it_was(restorable: Twin, tmp_path: Path) -> None:
    twin, page = restorable, tmp_path / "restore.md"
    page.write_text("before\n<!-- measured: make restore-drill -->\n<!-- measured until here -->\nafter\n")
    before, secret = production.outputs(twin), run.application_secret(twin)
    seen: list[dict[str, str]] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(1.0):
            seen.append(instances(twin))

    watcher = threading.Thread(target=watch)
    watcher.start()
    code = (
        "import sys; from pathlib import Path; from pipeline import restore_drill; "
        f"sys.exit(restore_drill.main(Path({str(page)!r})))"
    )
    try:
        result = subprocess.run(
            [sys.executable, "-c", code], cwd=REPOSITORY, env={**os.environ, **pulumi.environment(twin)}, text=True,
            capture_output=True, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    finally:
        stop.set()
        watcher.join()
    print(result.stdout[-6000:])
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"
    assert "shopcat-restored" in {name for each in seen for name in each}
    assert list(instances(twin)) == ["shopcat"]
    after = production.outputs(twin)
    assert (after["liveRelease"], after["liveColour"]) == (before["liveRelease"], before["liveColour"])
    assert dict(run.application_secret(twin)) == dict(secret)
    assert "shopcat-releases-drill" not in aws(twin, "dynamodb").list_tables()["TableNames"]
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "held before traffic moves" in text
    assert "0 changes" in text


def test_a_restored_database_that_serves_is_refused_to_everybody_else_and_kept(
    restorable: Twin, tmp_path: Path
) -> None:
    twin = restorable
    moment = restorable_moment(twin)
    tag = str(production.outputs(twin)["liveRelease"])
    plain = settings_file(twin, tmp_path, {})
    serving = with_restore(twin, tmp_path / "serving", at=moment, serves=True)
    code, output = up(twin, serving)
    assert code == 0, output
    assert run.application_secret(twin)["host"] == instances(twin)["shopcat-restored"]
    version = current_version(aws(twin, "secretsmanager").describe_secret(SecretId="shopcat/application"))
    assert restored_instance(version) == "shopcat-restored"
    code, output = up(twin, plain, "-c", f"shopcat:tag={tag}")
    assert code != 0
    assert "leads to the database shopcat-restored, and the settings want the first database" in output
    assert run.application_secret(twin)["host"] == instances(twin)["shopcat-restored"], "nothing was touched"
    code, output = up(twin, settings_file(twin, tmp_path, {}))
    assert code != 0, "what holds orders is not deleted by settings that have lost it"
    assert "shopcat-restored" in instances(twin)
    code, output = up(twin, with_restore(twin, tmp_path / "standing", at=moment))
    assert code == 0, output
    assert run.application_secret(twin)["host"] == instances(twin)["shopcat"]
    code, output = up(twin, settings_file(twin, tmp_path, {}))
    assert code == 0, output
    assert list(instances(twin)) == ["shopcat"]
    code, output = up(twin, settings_file(twin, tmp_path, {}))
    assert code == 0, output
    assert set(summary(output)) == {"unchanged"}, json.dumps(summary(output))
