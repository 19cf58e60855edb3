"""RDS's point-in-time recovery on the twin: a second instance as the first was at a moment, and not as it is now."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from infra.commands.takeover.declared import record_declared
from infra.settings import read_settings
from tests.unit.test_settings import committed
from twin import config
from twin.aws import point_in_time, postgres
from twin.aws.postgres import Server
from twin.aws.rds import patch_rds
from twin.build import programs
from twin.config import Twin
from twin.host import pki

pytestmark = pytest.mark.engine


NUMBERED = """
CREATE ROLE shopcat LOGIN;
CREATE TABLE parcels (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, sent timestamptz NOT NULL);
ALTER TABLE parcels OWNER TO shopcat;
INSERT INTO parcels (sent) SELECT timestamptz '2026-01-01 00:00Z' + n * interval '1 day' FROM generate_series(0, 8) AS n;
ALTER TABLE orders OWNER TO shopcat;
"""


@dataclass
class Order:
    """One row, and the moments between which it was committed."""

    key: int
    asked: datetime
    acknowledged: datetime


@dataclass
class Database:
    """One instance with orders in it, and moments between them."""

    twin: Twin
    rds: Any
    orders: list[Order] = field(default_factory=list)
    moments: list[datetime] = field(default_factory=list)

    def wait(self, identifier: str) -> dict[str, Any]:
        deadline = time.monotonic() + 60
        while True:
            (instance,) = self.rds.describe_db_instances(DBInstanceIdentifier=identifier)["DBInstances"]
            if instance["DBInstanceStatus"] == "available":
                return dict(instance)
            assert instance["DBInstanceStatus"] == "creating", "the twin's log says why"
            assert time.monotonic() < deadline
            time.sleep(0.2)

    def order(self, key: int) -> None:
        asked = datetime.now(UTC)
        postgres.sql(Server(self.twin), f"INSERT INTO orders VALUES ({key});", database="shopcat")
        self.orders.append(Order(key, asked, datetime.now(UTC)))

    def restore(self, target: str, **when: Any) -> None:
        self.rds.restore_db_instance_to_point_in_time(
            SourceDBInstanceIdentifier="shopcat", TargetDBInstanceIdentifier=target, **when
        )

    def keys(self, place: int) -> set[int]:
        rows = postgres.sql(Server(self.twin, place), "SELECT key FROM orders;", database="shopcat")
        return set(map(int, rows.split()))


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    # PostgreSQL runs as an account that may not enter pytest's own folder.
    state = Path("/tmp") / f"shopcat-restore-{time.time_ns()}"
    loaded = config.load("restored", simulated=True)
    twin = Twin(loaded.name, loaded.index, loaded.cache, state, simulated=True)
    twin.directory.mkdir(parents=True)
    pki.up(twin)
    try:
        with mock_aws():
            patch_rds(twin)
            make: Any = boto3.client
            client = make("rds", region_name="eu-central-1", aws_access_key_id="x", aws_secret_access_key="x")
            made = Database(twin, client)
            client.create_db_instance(
                DBInstanceIdentifier="shopcat", Engine="postgres", EngineVersion="16", DBInstanceClass="db.t4g.micro",
                AllocatedStorage=20, MasterUsername="shopcat_admin", ManageMasterUserPassword=True, DBName="shopcat",
                StorageEncrypted=True,
            )  # fmt: skip
            made.wait("shopcat")
            postgres.sql(Server(twin), "CREATE TABLE orders (key int PRIMARY KEY);", database="shopcat")
            postgres.sql(Server(twin), NUMBERED, database="shopcat")
            while point_in_time.earliest(Server(twin)) is None:
                time.sleep(0.1)
            for key in range(40):
                made.order(key)
                if key % 10 == 9:
                    time.sleep(0.3)
                    made.moments.append(datetime.now(UTC))
                    time.sleep(0.3)
            postgres.sql(Server(twin), "SELECT pg_switch_wal();")
            made.order(40)
            postgres.sql(Server(twin), "SELECT pg_switch_wal();")
            deadline = time.monotonic() + 30
            while (point_in_time.latest(Server(twin)) or made.moments[0]) < made.moments[-1]:
                assert time.monotonic() < deadline
                time.sleep(0.2)
            yield made
    finally:
        for server in postgres.servers(twin):
            postgres.destroy(server)
        config.release_index(loaded)


@pytest.mark.parametrize("moment", [0, 2])
def test_holds_what_was_committed_by_then_and_nothing_later(database: Database, moment: int) -> None:
    when = database.moments[moment]
    before = {order.key for order in database.orders if order.acknowledged < when}
    after = {order.key for order in database.orders if order.asked > when}
    assert before | after == set(range(41))
    database.restore("shopcat-restored", RestoreTime=when)
    try:
        instance = database.wait("shopcat-restored")
        assert database.keys(1) == before
        assert database.keys(0) == before | after, "the source stays as it is"
        assert instance["Endpoint"]["Port"] != database.twin.postgres_port
        assert instance["StorageEncrypted"] is True
        assert instance["DBName"] == "shopcat"
    finally:
        database.rds.delete_db_instance(DBInstanceIdentifier="shopcat-restored", SkipFinalSnapshot=True)


def test_the_job_looks_at_it_as_the_application_s_role_and_leaves_out_numbers(database: Database) -> None:
    """The very script of the Job, over TLS, with the master password that RDS keeps."""
    database.restore("shopcat-restored", RestoreTime=database.moments[2])
    try:
        instance = database.wait("shopcat-restored")
        managed = database.rds.modify_db_instance(
            DBInstanceIdentifier="shopcat-restored", ManageMasterUserPassword=True, ApplyImmediately=True
        )["DBInstance"]
        run = Script(database.twin, instance["Endpoint"]["Port"], managed["MasterUserSecret"]["SecretArn"])
        for _ in range(2):  # it may run again
            result = run()
            assert result.returncode == 0, result.stderr
        assert "orders: rows|30" in result.stdout
        assert "parcels: rows|9" in result.stdout
        assert "parcels.sent: newest|2026-01-09" in result.stdout
        insert = "INSERT INTO parcels (sent) VALUES (now()) RETURNING id;"
        numbers = [int(postgres.sql(Server(database.twin, place), insert, database="shopcat")) for place in (0, 1)]
        assert numbers[0] == 10
        assert numbers[1] >= 1_000_000
        postgres.sql(Server(database.twin, 1), "DROP TABLE parcels, orders;", database="shopcat")
        empty = run()
        assert empty.returncode != 0
        assert "the restored database has no table in schema public" in empty.stderr
    finally:
        database.rds.delete_db_instance(DBInstanceIdentifier="shopcat-restored", SkipFinalSnapshot=True)


class Script:
    """What the Job of a restored database runs, as this program declares it."""

    def __init__(self, twin: Twin, port: int, secret_arn: str) -> None:
        database = {**committed()["database"], "restore": {"at": "2026-11-29T10:00:00Z"}}
        declared = record_declared(read_settings(committed(database=database)), "eu-central-1", "123456789012")
        (job,) = [each for each in declared if each.key == ("kubernetes:batch/v1:Job", "database-restored")]
        (container,) = job.inputs["spec"]["template"]["spec"]["containers"]
        self._command: list[str] = container["command"]
        make: Any = boto3.client
        manager = make("secretsmanager", region_name="eu-central-1", aws_access_key_id="x", aws_secret_access_key="x")
        secret = json.loads(manager.get_secret_value(SecretId=secret_arn)["SecretString"])
        programs_of_debian = programs.debian_environment(twin)
        self._env = {
            **os.environ,
            **programs_of_debian,
            "PATH": f"{programs.debian_program(twin, 'psql').parent}{os.pathsep}{os.environ['PATH']}",
            "PGHOST": twin.host_ip, "PGPORT": str(port), "PGDATABASE": "shopcat", "PGUSER": "shopcat_admin",
            "PGSSLMODE": "require", "PGPASSWORD": secret["password"], "APP_USER": "shopcat", "NEW_PASSWORD": "only-here",
        }  # fmt: skip

    def __call__(self) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            self._command, env=self._env, text=True, capture_output=True, check=False, start_new_session=True
        )


def test_goes_on_from_there_by_itself(database: Database) -> None:
    """It takes orders of its own, its source's go on elsewhere, and RDS keeps its master password once it is told to."""
    database.restore("shopcat-restored", RestoreTime=database.moments[1])
    try:
        database.wait("shopcat-restored")
        postgres.sql(Server(database.twin, 1), "INSERT INTO orders VALUES (1000);", database="shopcat")
        assert 1000 not in database.keys(0)
        changed = database.rds.modify_db_instance(
            DBInstanceIdentifier="shopcat-restored", ManageMasterUserPassword=True, ApplyImmediately=True
        )["DBInstance"]
        (source,) = database.rds.describe_db_instances(DBInstanceIdentifier="shopcat")["DBInstances"]
        assert changed["MasterUserSecret"]["SecretArn"] != source["MasterUserSecret"]["SecretArn"]
        assert changed["DbiResourceId"] != source["DbiResourceId"]
    finally:
        database.rds.delete_db_instance(DBInstanceIdentifier="shopcat-restored", SkipFinalSnapshot=True)


@pytest.mark.parametrize("days", [-1, 1])
def test_refuses_a_moment_that_the_backups_do_not_reach(database: Database, days: int) -> None:
    with pytest.raises(ClientError, match="can be restored between") as refused:
        database.restore("shopcat-restored", RestoreTime=datetime.now(UTC) + timedelta(days=days))
    assert refused.value.response["Error"]["Code"] == "InvalidRestoreFault"
    names = [each["DBInstanceIdentifier"] for each in database.rds.describe_db_instances()["DBInstances"]]
    assert json.dumps(names) == '["shopcat"]'


def test_refuses_what_it_does_not_play(database: Database) -> None:
    with pytest.raises(ClientError, match=r"twin: .*OptionGroupName.* of a restore is not implemented"):
        database.restore("shopcat-restored", RestoreTime=database.moments[0], OptionGroupName="of-its-own")
