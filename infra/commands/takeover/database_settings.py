"""Suggest lines of `shopcat:database` for the database that is there, so that this program declares it as it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from infra.commands.takeover.differences import state_value
from infra.commands.takeover.suggestions import setting_line
from infra.names import DATABASE_PORT
from infra.settings.platform import DatabaseSettings

if TYPE_CHECKING:
    from infra.commands.takeover.state import Owned
    from infra.settings import Settings

_DEFAULT_ROLE = DatabaseSettings().application_role
NEW_ROLES = ("shopcat_app", "shopcat_web")
"""The application's role where the settings name none, since the default is likely to be somebody's already: the first that is
not the master user."""
NEW_GROUP = "shopcat-database-pods"
"""This program's own security group where the default's name is taken."""
_SAME = {
    "identifier": "identifier",
    "username": "username",
    "instanceClass": "instance_class",
    "storageGibibytes": "allocated_storage",
    "maxStorageGibibytes": "max_allocated_storage",
    "storageType": "storage_type",
    "encrypted": "storage_encrypted",
    "multiZone": "multi_az",
    "backupRetentionDays": "backup_retention_period",
    "parameterGroup": "parameter_group_name",
    "subnetGroup": "db_subnet_group_name",
    "securityGroupIds": "vpc_security_group_ids",
}
"""Setting → Terraform's attribute that says it."""


def existing_database(instance: Owned, owned: Sequence[Owned], settings: Settings) -> Iterator[str]:
    """Yield lines of `shopcat:database` that describe the database that is there, as far as the state tells.

    What the committed settings say besides (the pool's size) has to stay beside them.
    """
    yield "shopcat:database:"
    # Of "15" RDS would choose the minor version at an import; the state has the whole one too.
    values = {name: state_value(name, instance.attributes) for name in ("engineVersion", "dbName")}
    values |= {name: instance.attributes.get(key) for name, key in _SAME.items()}
    values |= _where_it_differs(instance, settings.database)
    for name, value in values.items():
        yield setting_line(name, value, 2, (instance, *owned), elsewhere="; AWS does (aws rds describe-db-instances)")
    if settings.database.application_role == _DEFAULT_ROLE:
        role = next(role for role in NEW_ROLES if role != instance.text("username"))
        yield f"  applicationRole: {role}  # a role that nobody has yet"
    if _has_group(instance, owned, settings.database.security_group_name):
        yield f"  securityGroupName: {NEW_GROUP}"
    if not settings.database.master_secret:
        yield '  # A secret that you make: {"password": <the master password>}. Remove the line last, once no old pod runs.'
        yield "  masterSecret: <its whole ARN>"


def _where_it_differs(instance: Owned, described: DatabaseSettings) -> dict[str, Any]:
    """Return what a state tells beyond what every database has, or beside what the settings say already."""
    attributes, values = instance.attributes, dict[str, Any]()
    has_iops = instance.text("storage_type") in {"io1", "io2"}
    if has_iops or described.iops:
        values["iops"] = attributes.get("iops") if has_iops else 0
    if instance.text("kms_key_id"):
        values["kmsKeyArn"] = instance.text("kms_key_id")
    if attributes.get("port") not in (None, DATABASE_PORT):
        values["port"] = attributes["port"]
    if attributes.get("iam_database_authentication_enabled"):
        values["iamAuthentication"] = True
    return values


def _has_group(instance: Owned, owned: Sequence[Owned], name: str) -> bool:
    """Tell whether a security group of the database has the name that this program would give its own."""
    ids = instance.attributes.get("vpc_security_group_ids")
    groups = [each for each in owned if each.type_name == "aws_security_group" and each.text("name") == name]
    return isinstance(ids, list) and any(group.text("id") in ids for group in groups)


def setting_of(owned: Owned, database: DatabaseSettings) -> str:
    """Return which setting names an object that goes on being used as it is; nothing if none does."""
    named = {
        ("aws_db_subnet_group", database.subnet_group): "subnetGroup",
        ("aws_db_parameter_group", database.parameter_group): "parameterGroup",
        ("aws_secretsmanager_secret", database.master_secret): "masterSecret",
        **{("aws_security_group", identifier): "securityGroupIds" for identifier in database.security_group_ids},
    }
    texts = {owned.text(key) for key in ("id", "name", "arn")} - {""}
    return next(
        (f"shopcat:database.{named[owned.type_name, text]}" for text in texts if (owned.type_name, text) in named), ""
    )
