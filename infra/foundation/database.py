"""PostgreSQL on RDS, and the application's own roles in it.

* Private subnets, encrypted, TLS forced, backups, deletion protection; RDS keeps and rotates the master password. A database
  that is there may have less (infra/settings/platform.py, DatabaseSettings); each update says what.
* External Secrets may read these secrets of production, by their ARNs, and no other.
* Pods never see the master secret. Jobs in a namespace of their own use it: one to make the application's role, which owns the
  tables, and one for each claim of a colour (infra/release/logins.py); a restored database has Jobs of its own. Passwords are
  made by hooks, straight in Secrets Manager, and are in no manifest and no state.
* RDS rotating its master password changes nothing here: a Job reads it when it is made, and the pods have secrets of their own.
* While `database.masterSecret` stands, neither a password nor RDS's management of it is declared. The provider reads neither back
  and writes them only where its configuration changes (hashicorp/terraform-provider-aws, internal/service/rds/instance.go,
  resourceInstanceRead and dbInstancePopulateModify), so after an import the password stays.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pulumi
import pulumi_aws as aws
import pulumi_kubernetes as kubernetes
from botocore.exceptions import BotoCoreError, ClientError

from infra.access import addon_policies
from infra.clients import threads
from infra.clients.aws import error_code, explain
from infra.errors import PreflightError
from infra.foundation.database_fit import OUTAGE, apply_method, restart_command, static_changes
from infra.foundation.database_jobs import STORE, DatabaseJobs, Field, declare_external_secret, job_metadata
from infra.foundation.database_roles import role_sql
from infra.foundation.restored_database import declare_restored_instance, restored_sql
from infra.foundation.secret_versions import current_version, first_version, restored_instance, restored_version
from infra.names import (
    APPLICATION_SECRET,
    COLOURS,
    DATABASE_NAMESPACE,
    DATABASE_PORT,
    DATABASE_RESTORED_JOB,
    EXTERNAL_SECRETS_API,
    LOGIN_KEYS,
    RESTORED,
    login_secret,
)
from infra.settings.platform import LONGEST_RESTORED_NAME

if TYPE_CHECKING:
    from infra.clients.aws import AwsClients
    from infra.settings import Settings
    from infra.settings.platform import DatabaseSettings

APPLICATION_PASSWORD_LENGTH = 40
DATABASE_ROLES_JOB = "database-roles"


def final_snapshot(security_group_id: str) -> str:
    """Name the last snapshot of a database, by the security group that was made with it and goes with it."""
    return f"shopcat-final-{security_group_id.removeprefix('sg-')}"


def ensure_database_secret(
    clients: AwsClients,
    name: str,
    fields: Mapping[str, str],
    password_length: int,
    version: Mapping[str, str] | None = None,
) -> str:
    """Give a secret these fields and a new password, unless it has a value; return its value.

    Args:
        clients: AWS.
        name: of the secret.
        fields: besides the password.
        password_length: number of its characters.
        version: names the version that is made, as PutSecretValue takes it.

    Raises:
        ShopCatError: Secrets Manager says no; the message says why.
    """
    manager = clients.get("secretsmanager")
    try:
        try:
            return str(manager.get_secret_value(SecretId=name).get("SecretString", ""))
        except ClientError as error:
            if error_code(error) != "ResourceNotFoundException":
                raise
        password = manager.get_random_password(PasswordLength=password_length, ExcludePunctuation=True)
        text = json.dumps({**fields, "password": password["RandomPassword"]})
        manager.put_secret_value(SecretId=name, SecretString=text, **(version or {}))
    except (BotoCoreError, ClientError) as error:
        raise explain(error, f"secret {name}", clients.endpoint_url) from error
    return text


def ensure_application_secret(clients: AwsClients, database: DatabaseSettings, host: str, port: str) -> None:
    """Give the application's secret a value, once; a value it has stays, so running releases keep theirs.

    A version's id names the instance that it leads to: a release reads no value, and goes by the id.
    A secret that was kept when the stack was destroyed may name the database of then: role and password stay, and where
    the database is is written anew.

    Raises:
        ShopCatError: Secrets Manager says no, or the secret is another role's, whose password the Job would set; the message
            says why.
    """
    address, role = {"dbname": database.db_name, "host": host, "port": port}, database.application_role
    fields = {"username": role, **address}
    manager, restored = clients.get("secretsmanager"), database.serving_restored
    text = ensure_database_secret(
        clients, APPLICATION_SECRET, fields, APPLICATION_PASSWORD_LENGTH, _version_id(database)
    )
    try:
        value = json.loads(text)
        renewed = {**value, **address}
        if renewed.get("username") != role:
            raise PreflightError(
                f"secret {APPLICATION_SECRET} is of the role {renewed.get('username')}, and shopcat:database.applicationRole is "
                f"{role}; set it to the secret's, or delete the secret's value's version and run `pulumi up -s prod` again"
            )
        current = current_version(manager.describe_secret(SecretId=APPLICATION_SECRET))
        if renewed != value or restored_instance(current, database.identifier) != restored:
            manager.put_secret_value(
                SecretId=APPLICATION_SECRET, SecretString=json.dumps(renewed), **_version_id(database)
            )
    except (BotoCoreError, ClientError) as error:
        raise explain(error, f"secret {APPLICATION_SECRET}", clients.endpoint_url) from error
    except (TypeError, ValueError) as error:
        raise PreflightError(
            f"secret {APPLICATION_SECRET} holds no JSON object of host, port, dbname, username and password; mend it, or "
            "delete its value's version and run `pulumi up -s prod` again"
        ) from error


def _version_id(database: DatabaseSettings) -> dict[str, str]:
    """Name a new version by the instance that releases use, if its name leaves room for that in an id."""
    if database.serving_restored:
        return {"ClientRequestToken": restored_version(database.serving_restored)}
    has_room = len(database.identifier) <= LONGEST_RESTORED_NAME
    return {"ClientRequestToken": first_version(database.identifier)} if has_room else {}


def misleading_version(clients: AwsClients, database: DatabaseSettings) -> str:
    """Return the id of the secret's current version where it leads to another database than the settings say; else nothing.

    An update that was killed between the secret and what reads it has left one: then nothing else differs, and no hook would run.

    Raises:
        ShopCatError: Secrets Manager says no.
    """
    try:
        current = current_version(clients.get("secretsmanager").describe_secret(SecretId=APPLICATION_SECRET))
    except (BotoCoreError, ClientError) as error:
        if error_code(error) == "ResourceNotFoundException":
            return ""
        raise explain(error, f"secret {APPLICATION_SECRET}", clients.endpoint_url) from error
    leads_to = restored_instance(current, database.identifier)
    return current if current and leads_to != database.serving_restored else ""


def managed_secret(secrets: Sequence[aws.rds.outputs.InstanceMasterUserSecret]) -> Any:
    """Return the ARN of the secret in which RDS keeps the master password; not known while a preview would turn that on.

    Raises:
        PreflightError: the update is made, and RDS keeps none.
    """
    if secrets:
        return str(secrets[0].secret_arn)
    if not pulumi.runtime.is_dry_run():
        raise PreflightError(
            "RDS keeps no master password of this database; run `pulumi up -s prod` again, or set "
            "shopcat:database.masterSecret to a secret that holds it"
        )
    return pulumi.UNKNOWN


def _values_by_name(inputs: Mapping[str, Any] | None) -> dict[str, str]:
    """Return a parameter group's values by name, from its inputs as the engine hands them to a hook."""
    return {str(each["name"]): str(each["value"]) for each in (inputs or {}).get("parameters") or []}


@dataclass(frozen=True)
class DeclaredDatabase:
    """The database as a release needs it."""

    ready: list[pulumi.Resource]
    logins: list[DatabaseJobs]
    """Databases in which each claim sets its password."""


class Database(pulumi.ComponentResource):
    """The instance, the secrets of the roles that sign in, and the Job that makes the application's role."""

    def __init__(
        self, name: str, settings: Settings, *, clients: AwsClients, region: str, opts: pulumi.ResourceOptions
    ) -> None:
        super().__init__("shopcat:database:Database", name, None, opts)
        self._settings, self._clients, self._region = settings, clients, region
        # Among the first things of an update: where the secret is there already (docs/destroy.md), that is told at once.
        self._secret = aws.secretsmanager.Secret(
            "application",
            name=APPLICATION_SECRET,
            description="The application's own database role; made once, read by each release at its own version",
            recovery_window_in_days=30,
            opts=self._kept(),
        )
        self._logins = {
            colour: aws.secretsmanager.Secret(
                f"login-{colour}",
                name=login_secret(colour),
                description=f"The database role of {colour}; each release into it makes a version of its own",
                recovery_window_in_days=30,
                opts=self._kept(),
            )
            for colour in COLOURS
        }

    def _kept(self) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions(parent=self, protect=self._settings.protection, retain_on_delete=True)

    def declare(
        self,
        *,
        operator: aws.iam.Role,
        vpc_id: pulumi.Input[str],
        subnet_ids: list[pulumi.Input[str]],
        cluster_security_group_id: pulumi.Input[str],
        cluster: kubernetes.Provider,
        depends_on: list[pulumi.Resource],
        misleading: str = "",
        stays_as_it_is: bool = False,
    ) -> DeclaredDatabase:
        """Declare instance and Job.

        Args:
            operator: the role of External Secrets, which reads these secrets and no other.
            vpc_id: where the instance is.
            subnet_ids: the same.
            cluster_security_group_id: of the pods that may reach it.
            cluster: the provider of what is made in the cluster.
            depends_on: what that needs.
            misleading: version of the application's secret that is replaced (`misleading_version`).
            stays_as_it_is: on a way back a restored instance stays as it is, like all else (infra/release/way_back.py).

        Returns:
            What a release needs of the database.
        """
        settings = self._settings
        config = settings.database
        child = pulumi.ResourceOptions(parent=self)
        for remark in config.remarks():
            pulumi.log.warn(remark, self)
        group = aws.ec2.SecurityGroup(
            "database",
            name=config.security_group_name,
            description="PostgreSQL from the cluster",
            vpc_id=vpc_id,
            opts=child,
        )
        aws.vpc.SecurityGroupIngressRule(
            "database-from-cluster",
            security_group_id=group.id,
            referenced_security_group_id=cluster_security_group_id,
            from_port=config.port,
            to_port=config.port,
            ip_protocol="tcp",
            description="pods of the cluster",
            opts=child,
        )
        self.instance = aws.rds.Instance(
            "database",
            identifier=config.identifier,
            engine="postgres",
            engine_version=config.engine_version,
            instance_class=config.instance_class,
            allocated_storage=config.storage_gibibytes,
            max_allocated_storage=config.largest_storage_gibibytes,
            storage_type=config.storage_type,
            iops=config.iops or None,
            storage_encrypted=config.encrypted,
            kms_key_id=config.kms_key_arn or None,
            db_name=config.db_name,
            username=config.username,
            port=config.port if config.port != DATABASE_PORT else None,
            manage_master_user_password=None if config.master_secret else True,
            iam_database_authentication_enabled=config.iam_authentication or None,
            db_subnet_group_name=config.subnet_group or self._subnet_group(subnet_ids).name,
            parameter_group_name=config.parameter_group or self._parameter_group().name,
            vpc_security_group_ids=[*config.security_group_ids, group.id],
            publicly_accessible=False,
            multi_az=config.multi_zone,
            backup_retention_period=config.backup_retention_days,
            copy_tags_to_snapshot=True,
            # A whole version is a person's choice: RDS's own would be a version that these settings refuse as a way back.
            auto_minor_version_upgrade="." not in config.engine_version,
            maintenance_window=config.maintenance_window or None,
            deletion_protection=settings.protection,
            skip_final_snapshot=False,
            # Of a name of its own in each life of the stack, since the snapshot outlives it.
            final_snapshot_identifier=group.id.apply(final_snapshot),
            apply_immediately=config.apply_immediately,
            opts=pulumi.ResourceOptions(parent=self, protect=settings.protection),
        )
        self.restored = (
            declare_restored_instance(
                config,
                config.restore,
                self.instance,
                protect=settings.protection,
                parent=self,
                stays_as_it_is=stays_as_it_is,
            )
            if config.restore
            else None
        )
        master, *masters = [
            config.master_secret or instance.master_user_secrets.apply(managed_secret)
            for instance in (self.instance, self.restored)
            if instance is not None
        ]
        reading = aws.iam.RolePolicy(
            "database-secrets",
            role=operator.name,
            policy=pulumi.Output.all(
                *(secret.arn for secret in (self._secret, *self._logins.values())), master, *masters
            ).apply(addon_policies.operator_reads),
            opts=child,
        )
        databases = {config.identifier: self._database(self.instance, master)}
        if self.restored is not None and config.restore is not None:
            databases[config.restored_identifier] = self._database(
                self.restored, masters[0], place=RESTORED, moment=config.restore.at
            )
        jobs = self._role_jobs(cluster, list(databases.values()), [*depends_on, reading], misleading)
        self.register_outputs({"address": self.instance.address})
        return DeclaredDatabase(
            ready=[self.instance, self._secret, *self._logins.values(), *jobs],
            logins=[databases[name] for name in config.login_identifiers],
        )

    def _database(
        self, instance: aws.rds.Instance, master_arn: pulumi.Input[str], place: str = "", moment: str = ""
    ) -> DatabaseJobs:
        port = instance.port.apply(str)
        return DatabaseJobs(self._settings, instance.address, port, master_arn, place=place, moment=moment)

    def _subnet_group(self, subnet_ids: list[pulumi.Input[str]]) -> aws.rds.SubnetGroup:
        own = pulumi.ResourceOptions(parent=self)
        return aws.rds.SubnetGroup("database", name="shopcat", subnet_ids=subnet_ids, opts=own)

    def _parameter_group(self) -> aws.rds.ParameterGroup:
        """Declare one that forces TLS, with the settings' parameters; the plan says which of those wait for a restart."""
        config = self._settings.database
        family = f"postgres{config.engine_version.partition('.')[0]}"
        parameters = [
            aws.rds.ParameterGroupParameterArgs(name=name, value=value, apply_method=apply_method(name))
            for name, value in sorted(config.parameters.items())
        ]

        async def tell(changed: pulumi.ResourceHookArgs) -> None:
            before, after = (_values_by_name(inputs) for inputs in (changed.old_inputs, changed.new_inputs))
            if static := static_changes(before, after):
                pulumi.log.warn(
                    f"shopcat:database.parameters: {', '.join(static)} will hold from the database's next restart on; "
                    f"`{restart_command(config.identifier)}` restarts it, at a time of your choice, and {OUTAGE}",
                    self,
                )

        hook = pulumi.ResourceHook("static-parameters", tell, pulumi.ResourceHookOptions(on_dry_run=True))
        return aws.rds.ParameterGroup(
            "database",
            name=f"shopcat-{family}",
            family=family,
            parameters=[aws.rds.ParameterGroupParameterArgs(name="rds.force_ssl", value="1"), *parameters],
            opts=pulumi.ResourceOptions(parent=self, hooks=pulumi.ResourceHookBinding(before_update=[hook])),
        )

    def _role_jobs(
        self,
        cluster: kubernetes.Provider,
        databases: Sequence[DatabaseJobs],
        depends_on: list[pulumi.Resource],
        misleading: str,
    ) -> list[pulumi.Resource]:
        """Declare the Jobs' namespace, and in each database the Job that makes the application's role.

        A restored one's looks at what is in it, too.
        """
        namespace = kubernetes.core.v1.Namespace(
            "database",
            metadata=kubernetes.meta.v1.ObjectMetaArgs(
                name=DATABASE_NAMESPACE, labels={"pod-security.kubernetes.io/enforce": "restricted"}
            ),
            opts=self._inside(cluster, depends_on),
        )
        store = kubernetes.apiextensions.CustomResource(
            "database-store",
            api_version=EXTERNAL_SECRETS_API,
            kind="SecretStore",
            metadata=job_metadata(STORE),
            spec={"provider": {"aws": {"service": "SecretsManager", "region": self._region}}},
            opts=self._inside(cluster, [namespace]),
        )
        application = self._application_secret(cluster, store, misleading)
        return [self._role_job(cluster, database, store, application) for database in databases]

    def _application_secret(
        self, cluster: kubernetes.Provider, store: pulumi.Resource, misleading: str
    ) -> pulumi.Resource:
        """Declare what reads the application's secret, which is given a value first."""
        value, serving = self._value_hook(), self._serving
        reader: pulumi.Resource = declare_external_secret(
            "database-application",
            "application",
            [Field(key, self._secret.name, key) for key in LOGIN_KEYS],
            {
                "shopcat/database-host": serving.address,
                "shopcat/database-port": serving.port.apply(str),
                **({"shopcat/replaces-version": misleading} if misleading else {}),
            },
            self._inside(
                cluster,
                [store, serving],
                hooks=pulumi.ResourceHookBinding(before_create=[value], before_update=[value]),
            ),
        )
        return reader

    @property
    def _serving(self) -> aws.rds.Instance:
        """Return the instance that releases use."""
        restore = self._settings.database.restore
        return self.restored if self.restored is not None and restore and restore.serves else self.instance

    def _role_job(
        self,
        cluster: kubernetes.Provider,
        database: DatabaseJobs,
        store: pulumi.Resource,
        application: pulumi.Resource,
    ) -> pulumi.Resource:
        """Declare the Job that makes the application's role in a database."""
        secret, name = self._settings.database.master_secret, f"master{database.place}"
        sql = role_sql(taken_over=self._settings.database.is_taken_over)
        master = declare_external_secret(
            f"database-{name}", name, [database.master_password], {}, self._inside(cluster, [store])
        )
        job: pulumi.Resource = database.job(
            DATABASE_RESTORED_JOB if database.place else DATABASE_ROLES_JOB,
            f"{sql}{restored_sql()}" if database.place else sql,
            {
                "PGPASSWORD": (name, "password"),
                "APP_USER": ("application", "username"),
                "NEW_PASSWORD": ("application", "password"),
            },
            self._inside(cluster, [master, application]),
            # With the setting the Job goes and runs once more: pods of before may have made something since.
            annotations={**({"shopcat/master-secret": secret} if secret else {}), **(database.notes or {})} or None,
        )
        return job

    def _inside(
        self, cluster: kubernetes.Provider, depends_on: list[pulumi.Resource], **options: Any
    ) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions(parent=self, provider=cluster, depends_on=depends_on, **options)

    def _value_hook(self) -> pulumi.ResourceHook:
        """Give the secret a value before anything reads it; its host and port travel as the reader's annotations."""

        async def hook(args: pulumi.ResourceHookArgs) -> None:
            notes = (args.new_inputs or {})["metadata"]["annotations"]
            host, port = notes["shopcat/database-host"], notes["shopcat/database-port"]
            await threads.in_thread(ensure_application_secret, self._clients, self._settings.database, host, port)

        return pulumi.ResourceHook("application-secret", hook)
