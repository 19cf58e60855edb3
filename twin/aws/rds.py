"""RDS instances in moto get a real PostgreSQL: started, restarted, given another password, restored, deleted with the instance.

* Another engine version or instance class restarts the server, if the call says `ApplyImmediately`; otherwise it is pending for
  ever, since the twin has no maintenance windows. PostgreSQL itself stays the version that it is.
* Parameters are the server's own: PostgreSQL decides which of them are static, and those hold once the instance was rebooted.
"""

from __future__ import annotations

import json
import logging
import secrets
import string
import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, cast

from moto.rds import models as rds

from twin.aws import point_in_time, postgres
from twin.aws.postgres import Server
from twin.config import Twin
from twin.errors import TwinError
from twin.host import dns

log = logging.getLogger("aws")

_KEPT = (
    "allocated_storage", "auto_minor_version_upgrade", "backup_retention_period", "copy_tags_to_snapshot",
    "db_instance_class", "engine", "engine_version", "iops", "kms_key_id", "master_username", "storage_encrypted",
    "storage_type",
)  # fmt: skip
"""Attributes that a restored instance has of its source, unless the call says otherwise."""
_RESTORE_ARGUMENTS = frozenset(
    {
        "AllocatedStorage", "AutoMinorVersionUpgrade", "BackupRetentionPeriod", "CopyTagsToSnapshot", "DBInstanceClass", "DBName",
        "DBParameterGroupName", "DBSubnetGroupName", "DeletionProtection", "EnableIAMDatabaseAuthentication", "Engine", "Iops",
        "MaxAllocatedStorage", "MultiAZ", "Port", "PubliclyAccessible", "RestoreTime", "SourceDBInstanceIdentifier",
        "StorageType", "Tags", "TargetDBInstanceIdentifier", "UseLatestRestorableTime", "VpcSecurityGroupIds",
    }
)  # fmt: skip
REBOOT_SECONDS = 11.0
"""Time that a rebooted instance is down. AWS's example has 11 s between "DB instance shutdown" and "DB instance restarted"
(repost.aws/knowledge-center/rds-connections-reboot-failover, a Multi-AZ instance without a failover)."""
UPGRADE_SECONDS = 60.0
"""Time that an instance is down for another version or class. AWS names none but "several minutes" as possible
(docs.aws.amazon.com/AmazonRDS/latest/UserGuide/USER_UpgradeDBInstance.PostgreSQL.html); a minute is this twin's choice."""
_RESTARTING = ("engine_version", "db_instance_class")
_ABOUT_SOURCE = {
    "restore_time", "source_db_instance_identifier", "target_db_instance_identifier", "use_latest_restorable_time",
}  # fmt: skip
"""Arguments that are no attribute of the restored instance."""


class InvalidRestoreFaultError(rds.RDSClientError):  # type: ignore[name-defined, misc, unused-ignore]
    """RDS's answer to a moment that its backups don't reach."""

    def __init__(self, message: str) -> None:
        super().__init__("InvalidRestoreFault", message)


def _whole_version(version: str | None) -> str | None:
    """Return a version with its minor part, which RDS chooses where only the major one is given; 13.4 to 17.4 all exist."""
    return f"{version}.4" if version and version.isdigit() else version


def _password() -> str:
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(28))


class Servers:
    """Each instance's own PostgreSQL, and the names they answer to."""

    def __init__(self, twin: Twin) -> None:
        self._twin = twin
        self._by_instance: dict[str, Server] = {}
        self._hostnames: dict[str, str] = {}
        self._lock = threading.Lock()

    def take(self, identifier: str) -> Server:
        """Take a free place for an instance.

        Raises:
            RDSClientError: the stand-in has no more.
        """
        with self._lock:
            taken = {server.place for server in self._by_instance.values()}
            free = next((server for server in postgres.servers(self._twin) if server.place not in taken), None)
            if free is None:
                raise rds.InvalidParameterCombination(
                    f"twin: more than {postgres.MOST_SERVERS} RDS instances are not implemented by the stand-in"
                )
            self._by_instance[identifier] = free
            return free

    def of(self, identifier: str) -> Server:
        """Return an instance's server; the first one's for an instance that has none yet."""
        return self._by_instance.get(identifier, Server(self._twin))

    def publish(self, identifier: str, hostname: str) -> None:
        """Let the instance's name be found."""
        with self._lock:
            self._hostnames[identifier] = hostname
            self._write_names()

    def remove(self, identifier: str) -> None:
        """Delete an instance's server with its files."""
        with self._lock:
            server = self._by_instance.pop(identifier, None)
            self._hostnames.pop(identifier, None)
            self._write_names()
        if server is not None:
            postgres.destroy(server)

    def _write_names(self) -> None:
        dns.publish(self._twin, "rds", {name: [self._twin.host_ip] for name in self._hostnames.values()})


def patch_rds(twin: Twin) -> None:
    """Give RDS instances a real PostgreSQL."""
    servers = Servers(twin)
    _patch_instance(twin, servers)
    _patch_secret(servers)
    _patch_backend(servers)
    _patch_restarts(servers)


def _patch_instance(twin: Twin, servers: Servers) -> None:
    instance = cast("Any", rds.DBInstance)

    def address(self: Any) -> str:
        return postgres.endpoint_name(twin, self.db_instance_identifier, self.region)

    def endpoint(self: Any) -> dict[str, Any]:
        return {"Address": self.address, "Port": servers.of(self.db_instance_identifier).port}

    def group_states(self: Any) -> Any:
        groups = self.db_parameter_groups()
        waits = self.status == "available" and postgres.waits_for_restart(servers.of(self.db_instance_identifier))
        for group in groups:
            group.ParameterApplyStatus = "pending-reboot" if waits else "in-sync"
        return groups

    instance.db_parameter_group_status_list = property(group_states)
    instance.address = property(address)
    instance.endpoint = property(endpoint)
    instance.latest_restorable_time = property(
        lambda self: point_in_time.latest(servers.of(self.db_instance_identifier))
    )


def _patch_secret(servers: Servers) -> None:
    secret = cast("Any", rds.MasterUserSecret)

    def secret_string(self: Any) -> str:
        user = self.resource.master_username
        return json.dumps({"username": user, "password": _password()})

    def rotate(self: Any) -> None:
        self._status = "rotating"
        content = json.loads(secret_string(self))
        postgres.set_password(
            servers.of(self.resource.db_instance_identifier), content["username"], content["password"]
        )
        self.secretsmanager.put_secret_value(
            self.secret.arn, json.dumps(content), "", str(secrets.token_hex(16)), ["AWSCURRENT"]
        )

    secret._generate_secret_string = secret_string  # noqa: SLF001 - moto has no other seam
    secret.rotate_secret = rotate


def _patch_backend(servers: Servers) -> None:
    backend = cast("Any", rds.RDSBackend)
    create, delete, modify = backend.create_db_instance, backend.delete_db_instance, backend.modify_db_instance

    def begin(self: Any, kwargs: dict[str, Any], start: Callable[..., None], *more: Any) -> Any:
        """Record the instance as being made, and make its PostgreSQL meanwhile."""
        server = servers.take(kwargs["db_instance_identifier"])
        try:
            created = create(self, kwargs)
        except Exception:
            servers.remove(kwargs["db_instance_identifier"])
            raise
        created.status = "creating"
        threading.Thread(target=_make, args=(servers, self, created, start, server, *more), daemon=True).start()
        return created

    def create_instance(self: Any, kwargs: dict[str, Any]) -> Any:
        if kwargs.get("engine") != "postgres":
            raise rds.InvalidParameterCombination(f"twin: RDS engine {kwargs.get('engine')} is not implemented")
        kwargs["engine_version"] = _whole_version(kwargs.get("engine_version"))
        return begin(self, kwargs, _start_database)

    def restore_instance(self: Any, source: str, target: str, overrides: Any) -> Any:
        if target in self.databases:
            raise rds.DBInstanceAlreadyExists
        (original,) = self.describe_db_instances(source)
        origin = servers.of(source)
        moment = _moment(origin, overrides)
        restored = begin(self, _restored_arguments(original, target, overrides), _restore_database, origin, moment)
        restored.dbi_resource_id = f"db-{secrets.token_hex(13).upper()}"
        return restored

    def delete_instance(self: Any, *args: Any, **kwargs: Any) -> Any:
        gone = delete(self, *args, **kwargs)
        servers.remove(gone.db_instance_identifier)
        return gone

    def modify_instance(self: Any, identifier: str, kwargs: dict[str, Any]) -> Any:
        was_managed = getattr(self.databases.get(identifier), "manage_master_user_password", False)
        changed = modify(self, identifier, _without_second_secret(kwargs, was_managed=was_managed))
        changed.status = "available"
        # Another password, or one that RDS keeps from now on: the former one is good no more (rds-secrets-manager).
        if kwargs.get("master_user_password") or (changed.manage_master_user_password and not was_managed):
            postgres.set_password(servers.of(identifier), changed.master_username, _master_password(self, changed))
        return changed

    backend.create_db_instance = create_instance
    backend.delete_db_instance = delete_instance
    backend.modify_db_instance = modify_instance
    backend.restore_db_instance_to_point_in_time = restore_instance


def _without_second_secret(kwargs: dict[str, Any], *, was_managed: bool) -> dict[str, Any]:
    """Leave out that RDS shall keep the master password where it does; moto would make another secret.

    As the API's reference has it, management is turned on where it is off
    (docs.aws.amazon.com/AmazonRDS/latest/APIReference/API_ModifyDBInstance.html, ManageMasterUserPassword).
    """
    again = was_managed and kwargs.get("manage_master_user_password")
    return {key: value for key, value in kwargs.items() if not (again and key == "manage_master_user_password")}


def _patch_restarts(servers: Servers) -> None:
    backend = cast("Any", rds.RDSBackend)
    modify, modify_parameters = backend.modify_db_instance, backend.modify_db_parameter_group

    def modify_instance(self: Any, identifier: str, kwargs: dict[str, Any]) -> Any:
        restarting = _restarting(self.databases.get(identifier), kwargs)
        changed = modify(self, identifier, kwargs)
        if restarting:
            _restart(servers, changed, "upgrading", UPGRADE_SECONDS)
        return changed

    def reboot_instance(self: Any, identifier: str) -> Any:
        (instance,) = self.describe_db_instances(identifier)
        if instance.status != "available":
            raise rds.InvalidDBInstanceStateError(identifier, "stop")
        _restart(servers, instance, "rebooting", REBOOT_SECONDS)
        return instance

    def modify_group(self: Any, name: str, parameters: Iterable[dict[str, Any]]) -> Any:
        changed = list(parameters)
        using = [
            servers.of(each.db_instance_identifier)
            for each in self.databases.values()
            if each.db_parameter_group_name == name
        ]
        for server in using:
            _refuse_method(server, changed)
        group = modify_parameters(self, name, changed)
        for server in using:
            postgres.set_parameters(server, _own(changed))
        return group

    backend.modify_db_instance = modify_instance
    backend.reboot_db_instance = reboot_instance
    backend.modify_db_parameter_group = modify_group


def _restarting(instance: Any, kwargs: dict[str, Any]) -> bool:
    """Tell whether a change restarts the server now; takes what would wait for the maintenance window out of it.

    Raises:
        RDSClientError: RDS refuses the change.
    """
    kwargs["engine_version"] = _whole_version(kwargs.get("engine_version"))
    changed = [name for name in _RESTARTING if kwargs.get(name) and kwargs[name] != getattr(instance, name, "")]
    if "engine_version" in changed:
        live, wanted = (
            tuple(map(int, text.split("."))) for text in (instance.engine_version, kwargs["engine_version"])
        )
        if wanted < live:
            raise rds.InvalidParameterCombination(
                f"Cannot upgrade postgres from {instance.engine_version} to {kwargs['engine_version']}"
            )
        if wanted[0] != live[0]:
            raise rds.InvalidParameterCombination("The AllowMajorVersionUpgrade flag must be present")
    if changed and not kwargs.get("apply_immediately"):
        for name in changed:
            kwargs[name] = None
        return False
    return bool(changed)


def _restart(servers: Servers, instance: Any, status: str, seconds: float) -> None:
    """Restart an instance's server; it has the status until the server takes connections again."""
    instance.status = status

    def run() -> None:
        try:
            postgres.restart(servers.of(instance.db_instance_identifier), seconds)
            instance.status = "available"
        except Exception:
            log.exception("RDS instance %s", instance.db_instance_identifier)
            instance.status = "failed"

    threading.Thread(target=run, daemon=True).start()


def _own(parameters: Iterable[dict[str, Any]]) -> dict[str, str]:
    """Return the parameters that are PostgreSQL's; RDS's own are played elsewhere."""
    values = {str(each["ParameterName"]): str(each["ParameterValue"]) for each in parameters}
    return {name: value for name, value in values.items() if not name.startswith("rds.")}


def _refuse_method(server: Server, parameters: Iterable[dict[str, Any]]) -> None:
    """Refuse what RDS refuses: a parameter that there is not, and a static one that is to hold at once.

    Raises:
        RDSClientError: RDS refuses it, or the stand-in has not what is asked.
    """
    for each in parameters:
        name, method = str(each["ParameterName"]), each.get("ApplyMethod")
        if name.startswith("rds."):
            continue
        context = postgres.context(server, name)
        if not context:
            raise rds.InvalidParameterValue(f"Could not find parameter with name: {name}")
        if context == "postmaster" and method == "immediate":
            raise rds.InvalidParameterCombination("cannot use immediate apply method for static parameter")
        if context != "postmaster" and method != "immediate":
            raise rds.InvalidParameterCombination(f"twin: {name} is dynamic, and {method} is not implemented for it")


def _restored_arguments(original: Any, target: str, overrides: Any) -> dict[str, Any]:
    """Return the arguments of a restored instance: its source's own, and what the call says instead.

    Raises:
        RDSClientError: the call says something that the stand-in doesn't know.
    """
    unknown = sorted(set(overrides.original_dict()) - _RESTORE_ARGUMENTS)
    if unknown:
        raise rds.InvalidParameterCombination(f"twin: {', '.join(unknown)} of a restore is not implemented")
    kept = {name: getattr(original, name) for name in _KEPT}
    said = {name: value for name, value in dict(overrides).items() if value is not None and name not in _ABOUT_SOURCE}
    # Its password is in its data; moto wants one.
    fixed = {"db_instance_identifier": target, "db_name": original.db_name, "master_user_password": _password()}
    return {**kept, **said, **fixed}


def _moment(source: Server, overrides: Any) -> datetime:
    """Return the moment to restore.

    Raises:
        RDSClientError: the backups don't reach it.
    """
    asked = overrides.get("RestoreTime")
    if bool(asked) == bool(overrides.get("UseLatestRestorableTime")):
        raise rds.InvalidParameterCombination("either RestoreTime or UseLatestRestorableTime is expected")
    moment = asked or point_in_time.latest(source) or datetime.now(UTC)
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    try:
        point_in_time.refuse_unreachable(source, moment)
    except TwinError as error:
        raise InvalidRestoreFaultError(str(error)) from error
    return cast("datetime", moment)


def _master_password(backend: Any, instance: Any) -> str:
    """Return the master user's password, which is RDS's own secret or what whoever made the instance gave."""
    if instance.manage_master_user_password:
        secret = backend.secretsmanager.get_secret_value(instance.master_user_secret.secret_arn, "", "AWSCURRENT")
        return str(json.loads(secret["SecretString"])["password"])
    return str(instance._master_user_password)  # noqa: SLF001 - moto's own property refuses to be read


def _forces_tls(backend: Any, instance: Any) -> bool:
    """RDS for PostgreSQL 15 and later forces TLS unless the parameter group says otherwise."""
    group = backend.db_parameter_groups.get(instance.db_parameter_group_name or "")
    parameters = dict(group.parameters) if group is not None else {}
    return str(parameters.get("rds.force_ssl", {}).get("ParameterValue", "1")) == "1"


def _make(
    servers: Servers, backend: Any, instance: Any, start: Callable[..., None], server: Server, *more: Any
) -> None:
    try:
        start(backend, instance, server, *more)
        servers.publish(instance.db_instance_identifier, instance.address)
        instance.status = "available"
        point_in_time.back_up(server)
    except Exception:
        log.exception("RDS instance %s", instance.db_instance_identifier)
        instance.status = "failed"


def _start_database(backend: Any, instance: Any, server: Server) -> None:
    postgres.create(
        server,
        hostname=instance.address,
        database=instance.db_name or "postgres",
        user=instance.master_username,
        password=_master_password(backend, instance),
        instance_class=instance.db_instance_class,
        force_ssl=_forces_tls(backend, instance),
    )
    _take_group(backend, instance, server)


def _take_group(backend: Any, instance: Any, server: Server) -> None:
    """Give a new server the parameters of its group, the static ones too."""
    group = backend.db_parameter_groups.get(instance.db_parameter_group_name or "")
    postgres.set_parameters(server, _own(dict(group.parameters).values() if group is not None else ()))
    if postgres.waits_for_restart(server):
        postgres.restart(server)


def _restore_database(backend: Any, instance: Any, server: Server, source: Server, moment: datetime) -> None:
    """Restore the data; the master password is the one of then."""
    point_in_time.restore(
        source,
        server,
        moment,
        hostname=instance.address,
        instance_class=instance.db_instance_class,
        force_ssl=_forces_tls(backend, instance),
    )
    _take_group(backend, instance, server)
