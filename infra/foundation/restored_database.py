"""A second RDS instance, as production's was at a moment: `shopcat:database.restore`.

It is declared like the first one, so state and program agree with what is there, and it goes when the setting goes. The provider
makes it by RestoreDBInstanceToPointInTime and lets RDS keep its master password afterwards (hashicorp/terraform-provider-aws,
internal/service/rds/instance.go, resourceInstanceCreate). What the restore takes from the source (engine, size, names, the
master user) is not declared: the provider reads it. The moment is in no answer of RDS, so an import doesn't know it: it is
compared by the state alone, and another one replaces the instance (pkg/v3 3.250.0, resource/deploy/step_generator.go,
shouldTriggerReplace: without a former trigger, as after an import, nothing is replaced, and the next update notes it).

The source is never touched. docs/restore.md has the order of things.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pulumi
import pulumi_aws as aws

from infra.names import DATABASE_PORT

if TYPE_CHECKING:
    from infra.settings.platform import DatabaseSettings, Restore

SEQUENCE_GAP = 1_000_000
"""Numbers that the restored database leaves out: those that the first one has given to rows since the moment are among them, so
no number means two orders."""
MAY_REPEAT = "numbers may repeat, as it has no room to leave so many out; it is at"
"""Printed for a sequence that counts down, is another role's, or would have fewer numbers left than it leaves out."""

# The owner of the tables may not sign in any more, and a copy knows it as the first database did at that moment.
_AS_OWNER = """
\\getenv role APP_USER
\\set QUIET on
\\pset format unaligned
\\pset tuples_only on
SELECT format('GRANT %I TO %I', :'role', current_user) \\gexec
SET ROLE :"role";
"""
_CHECK = """
SELECT count(*) = 0 AS is_empty FROM pg_catalog.pg_tables WHERE schemaname = 'public' \\gset
\\if :is_empty
  DO $do$ BEGIN RAISE EXCEPTION USING MESSAGE = 'the restored database has no table in schema public',
    HINT = 'choose a later moment: shopcat:database.restore.at'; END $do$;
\\endif
SELECT tablename || ': another role''s, not looked at' FROM pg_catalog.pg_tables
  WHERE schemaname = 'public' AND NOT has_table_privilege(format('%I.%I', schemaname, tablename), 'SELECT') ORDER BY tablename;
SELECT format('SELECT %L, count(*) FROM public.%I', tablename || ': rows', tablename)
  FROM pg_catalog.pg_tables
  WHERE schemaname = 'public' AND has_table_privilege(format('%I.%I', schemaname, tablename), 'SELECT') ORDER BY tablename \\gexec
SELECT format('SELECT %L, max(%I) FROM public.%I', table_name || '.' || column_name || ': newest', column_name, table_name)
  FROM information_schema.columns JOIN pg_catalog.pg_tables ON schemaname = table_schema AND tablename = table_name
  WHERE table_schema = 'public' AND data_type LIKE 'timestamp%'
    AND has_table_privilege(format('%I.%I', table_schema, table_name), 'SELECT') ORDER BY table_name, column_name \\gexec
"""
_LEAVE_OUT_NUMBERS = """
SELECT sequencename || ': ' || CASE WHEN has_room THEN 'goes on at' ELSE :'may_repeat' END,
    CASE WHEN has_room THEN setval(format('%I.%I', schemaname, sequencename)::regclass, present + :gap * increment_by)
      ELSE present END
  FROM (SELECT *, coalesce(last_value, start_value) AS present, sequenceowner = current_user AND increment_by > 0
      AND coalesce(last_value, start_value) <= max_value - 2 * :gap * increment_by AS has_room
    FROM pg_catalog.pg_sequences WHERE schemaname = 'public') AS numbered
  ORDER BY sequencename;
"""


def restored_sql() -> str:
    """Return what runs in the restored database as the application's role: what is in it, and numbers that nobody has.

    Prints the rows of each table, the newest of each column of times, and where each sequence goes on, or that its numbers may
    repeat. A database without a table is an error.
    """
    return f"{_AS_OWNER}{_CHECK}\\set gap {SEQUENCE_GAP}\n\\set may_repeat '{MAY_REPEAT}'{_LEAVE_OUT_NUMBERS}"


def declare_restored_instance(
    config: DatabaseSettings,
    restore: Restore,
    source: aws.rds.Instance,
    *,
    protect: bool,
    parent: pulumi.Resource,
    stays_as_it_is: bool = False,
) -> aws.rds.Instance:
    """Declare the instance.

    Args:
        config: the first instance's settings; what a restore can be told is as they say.
        restore: the moment, and whether releases use it.
        source: the first instance.
        protect: production's protection. It holds for the restored one while releases use it.
        parent: component that it belongs to.
        stays_as_it_is: what the settings change of it is left to the next update.
    """
    protected = protect and restore.serves
    return aws.rds.Instance(
        "database-restored",
        identifier=config.restored_identifier,
        restore_to_point_in_time=aws.rds.InstanceRestoreToPointInTimeArgs(
            source_db_instance_identifier=source.identifier, restore_time=restore.at
        ),
        instance_class=config.instance_class,
        max_allocated_storage=config.largest_storage_gibibytes,
        storage_type=config.storage_type,
        iops=config.iops or None,
        # The restore takes no such argument; without it the provider would see a change from true to nothing.
        storage_encrypted=config.encrypted,
        port=config.port if config.port != DATABASE_PORT else None,
        manage_master_user_password=None if config.master_secret else True,
        iam_database_authentication_enabled=config.iam_authentication or None,
        db_subnet_group_name=source.db_subnet_group_name,
        parameter_group_name=source.parameter_group_name,
        vpc_security_group_ids=source.vpc_security_group_ids,
        publicly_accessible=False,
        multi_az=config.multi_zone,
        backup_retention_period=config.backup_retention_days,
        copy_tags_to_snapshot=True,
        auto_minor_version_upgrade=True,
        deletion_protection=protected,
        skip_final_snapshot=False,
        final_snapshot_identifier=restore.last_snapshot,
        apply_immediately=True,
        opts=pulumi.ResourceOptions(
            parent=parent,
            protect=protected,
            # Another moment is another database under the same name.
            delete_before_replace=True,
            replacement_trigger=restore.at,
            ignore_changes=["*"] if stays_as_it_is else ["restoreToPointInTime"],
            custom_timeouts=pulumi.CustomTimeouts(create="3h", update="3h", delete="1h"),
        ),
    )
