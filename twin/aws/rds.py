"""RDS instances in moto get a real PostgreSQL: started, given another password and deleted with the instance."""

from __future__ import annotations

import json
import logging
import secrets
import string
import threading
from typing import Any, cast

from moto.rds import models as rds

from twin.aws import postgres
from twin.config import Twin
from twin.host import dns

log = logging.getLogger("aws")


def _whole_version(version: str | None) -> str | None:
    """Return a version with its minor part, which RDS chooses where only the major one is given; 13.4 to 17.4 all exist."""
    return f"{version}.4" if version and version.isdigit() else version


def _password() -> str:
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(28))


def patch_rds(twin: Twin) -> None:
    """Give RDS instances a real PostgreSQL. One instance at a time; a second is refused by name."""
    instance = cast("Any", rds.DBInstance)
    backend = cast("Any", rds.RDSBackend)
    secret = cast("Any", rds.MasterUserSecret)
    create, delete, modify = backend.create_db_instance, backend.delete_db_instance, backend.modify_db_instance

    def address(self: Any) -> str:
        return postgres.endpoint_name(twin, self.db_instance_identifier, self.region)

    instance.address = property(address)
    instance.endpoint = property(lambda self: {"Address": self.address, "Port": twin.postgres_port})

    def secret_string(self: Any) -> str:
        user = self.resource.master_username
        return json.dumps({"username": user, "password": _password()})

    def rotate(self: Any) -> None:
        self._status = "rotating"
        content = json.loads(secret_string(self))
        postgres.set_password(twin, content["username"], content["password"])
        self.secretsmanager.put_secret_value(
            self.secret.arn, json.dumps(content), "", str(secrets.token_hex(16)), ["AWSCURRENT"]
        )

    secret._generate_secret_string = secret_string  # noqa: SLF001 - moto has no other seam
    secret.rotate_secret = rotate

    def create_instance(self: Any, kwargs: dict[str, Any]) -> Any:
        if any(known.status != "deleting" for known in self.databases.values()):
            raise rds.InvalidParameterCombination("twin: a second RDS instance is not implemented by the stand-in")
        if kwargs.get("engine") != "postgres":
            raise rds.InvalidParameterCombination(f"twin: RDS engine {kwargs.get('engine')} is not implemented")
        kwargs["engine_version"] = _whole_version(kwargs.get("engine_version"))
        created = create(self, kwargs)
        created.status = "creating"
        threading.Thread(target=_start_database, args=(twin, self, created), daemon=True).start()
        return created

    def delete_instance(self: Any, *args: Any, **kwargs: Any) -> Any:
        gone = delete(self, *args, **kwargs)
        postgres.destroy(twin)
        _publish(twin, None)
        return gone

    def modify_instance(self: Any, identifier: str, kwargs: dict[str, Any]) -> Any:
        was_managed = getattr(self.databases.get(identifier), "manage_master_user_password", False)
        changed = modify(self, identifier, kwargs)
        changed.status = "available"
        # Another password, or one that RDS keeps from now on: the former one is good no more (rds-secrets-manager).
        if kwargs.get("master_user_password") or (changed.manage_master_user_password and not was_managed):
            postgres.set_password(twin, changed.master_username, _master_password(self, changed))
        return changed

    backend.create_db_instance = create_instance
    backend.delete_db_instance = delete_instance
    backend.modify_db_instance = modify_instance


def _publish(twin: Twin, hostname: str | None) -> None:
    dns.publish(twin, "rds", {hostname: [twin.host_ip]} if hostname else {})


def _master_password(backend: Any, instance: Any) -> str:
    """Return the master user's password, which is RDS's own secret or what whoever made the instance gave."""
    if instance.manage_master_user_password:
        secret = backend.secretsmanager.get_secret_value(instance.master_user_secret.secret_arn, "", "AWSCURRENT")
        return str(json.loads(secret["SecretString"])["password"])
    return str(instance._master_user_password)  # noqa: SLF001 - moto's own property refuses to be read


def _start_database(twin: Twin, backend: Any, instance: Any) -> None:
    try:
        group = backend.db_parameter_groups.get(instance.db_parameter_group_name or "")
        parameters = dict(group.parameters) if group is not None else {}
        forced = str(parameters.get("rds.force_ssl", {}).get("ParameterValue", "1"))
        # RDS for PostgreSQL 15 and later forces TLS unless the parameter group says otherwise.
        postgres.create(
            twin,
            hostname=instance.address,
            database=instance.db_name or "postgres",
            user=instance.master_username,
            password=_master_password(backend, instance),
            instance_class=instance.db_instance_class,
            force_ssl=forced == "1",
        )
        _publish(twin, instance.address)
        instance.status = "available"
    except Exception:
        log.exception("RDS instance %s", instance.db_instance_identifier)
        instance.status = "failed"
