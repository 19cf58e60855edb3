"""PostgreSQL on RDS, and the application's own role in it.

* Private subnets, encrypted, TLS forced, backups, deletion protection; RDS keeps and rotates the master password. A database
  that is there may have less (infra/settings/platform.py, DatabaseSettings); each update says what.
* External Secrets may read these two secrets of production, by their ARNs, and no third.
* Pods never see the master secret. One Job in a namespace of its own uses it to make the application's role; that role's
  password is made by a hook, straight in Secrets Manager, and is in no manifest and no state.
* RDS rotating its master password changes nothing here: the Job has run, and the pods have a secret of their own.
* While `database.masterSecret` stands, neither a password nor RDS's management of it is declared. The provider reads neither back
  and writes them only where its configuration changes (hashicorp/terraform-provider-aws, internal/service/rds/instance.go,
  resourceInstanceRead and dbInstancePopulateModify), so after an import the password stays.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pulumi
import pulumi_aws as aws
import pulumi_kubernetes as kubernetes
from botocore.exceptions import BotoCoreError, ClientError

from infra import capacity
from infra.access import addon_policies
from infra.clients import threads
from infra.clients.aws import error_code, explain
from infra.errors import PreflightError
from infra.foundation.database_roles import role_sql
from infra.foundation.restored_database import declare_restored_instance, restored_sql
from infra.foundation.secret_versions import current_version, restored_instance, restored_label
from infra.names import (
    APPLICATION_SECRET,
    DATABASE_NAMESPACE,
    DATABASE_PORT,
    DATABASE_RESTORED_JOB,
    EXTERNAL_SECRETS_API,
    RUNTIME_USER,
)

if TYPE_CHECKING:
    from infra.clients.aws import AwsClients
    from infra.settings import Settings
    from infra.settings.platform import DatabaseSettings

APPLICATION_PASSWORD_LENGTH = 40
DATABASE_ROLES_JOB = "database-roles"
_STORE = "database"


def final_snapshot(security_group_id: str) -> str:
    """Name the last snapshot of a database, by the security group that was made with it and goes with it."""
    return f"shopcat-final-{security_group_id.removeprefix('sg-')}"


def ensure_database_secret(clients: AwsClients, name: str, fields: Mapping[str, str], password_length: int) -> str:
    """Give a secret these fields and a new password, unless it has a value; return its value.

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
        manager.put_secret_value(SecretId=name, SecretString=text)
    except (BotoCoreError, ClientError) as error:
        raise explain(error, f"secret {name}", clients.endpoint_url) from error
    return text


def ensure_application_secret(clients: AwsClients, database: DatabaseSettings, host: str, port: str) -> None:
    """Give the application's secret a value, once; a value it has stays, so running releases keep theirs.

    The version is labelled where it leads to a restored database: a release reads no value, and goes by the label.
    A secret that was kept when the stack was destroyed may name the database of then: role and password stay, and where
    the database is is written anew.

    Raises:
        ShopCatError: Secrets Manager says no, or the secret is another role's, whose password the Job would set; the message
            says why.
    """
    address, role = {"dbname": database.db_name, "host": host, "port": port}, database.application_role
    fields = {"username": role, **address}
    manager, restored = clients.get("secretsmanager"), database.serving_restored
    text = ensure_database_secret(clients, APPLICATION_SECRET, fields, APPLICATION_PASSWORD_LENGTH)
    try:
        value = json.loads(text)
        renewed = {**value, **address}
        if renewed.get("username") != role:
            raise PreflightError(
                f"secret {APPLICATION_SECRET} is of the role {renewed.get('username')}, and shopcat:database.applicationRole is "
                f"{role}; set it to the secret's, or delete the secret's value's version and run `pulumi up -s prod` again"
            )
        _, stages = current_version(manager.describe_secret(SecretId=APPLICATION_SECRET))
        if renewed != value or restored_instance(stages) != restored:
            manager.put_secret_value(
                SecretId=APPLICATION_SECRET,
                SecretString=json.dumps(renewed),
                VersionStages=["AWSCURRENT", *([restored_label(restored)] if restored else [])],
            )
    except (BotoCoreError, ClientError) as error:
        raise explain(error, f"secret {APPLICATION_SECRET}", clients.endpoint_url) from error
    except (TypeError, ValueError) as error:
        raise PreflightError(
            f"secret {APPLICATION_SECRET} holds no JSON object of host, port, dbname, username and password; mend it, or "
            "delete its value's version and run `pulumi up -s prod` again"
        ) from error


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


class Database(pulumi.ComponentResource):
    """The instance, the application's secret, and the Job that makes the application's role."""

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
            opts=pulumi.ResourceOptions(parent=self, protect=settings.protection, retain_on_delete=True),
        )

    def declare(
        self,
        *,
        operator: aws.iam.Role,
        vpc_id: pulumi.Input[str],
        subnet_ids: list[pulumi.Input[str]],
        cluster_security_group_id: pulumi.Input[str],
        cluster: kubernetes.Provider,
        depends_on: list[pulumi.Resource],
    ) -> list[pulumi.Resource]:
        """Declare instance and Job.

        Args:
            operator: the role of External Secrets, which reads both secrets and no other.
            vpc_id: where the instance is.
            subnet_ids: the same.
            cluster_security_group_id: of the pods that may reach it.
            cluster: the provider of what is made in the cluster.
            depends_on: what that needs.

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
            auto_minor_version_upgrade=True,
            deletion_protection=settings.protection,
            skip_final_snapshot=False,
            # Of a name of its own in each life of the stack, since the snapshot outlives it.
            final_snapshot_identifier=group.id.apply(final_snapshot),
            apply_immediately=True,
            opts=pulumi.ResourceOptions(parent=self, protect=settings.protection),
        )
        self.restored = (
            declare_restored_instance(config, config.restore, self.instance, protect=settings.protection, parent=self)
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
            policy=pulumi.Output.all(self._secret.arn, master, *masters).apply(addon_policies.operator_reads),
            opts=child,
        )
        jobs = self._role_jobs(cluster, [master, *masters], [*depends_on, reading])
        self.register_outputs({"address": self.instance.address})
        return [self.instance, self._secret, *jobs]

    @property
    def _serving(self) -> aws.rds.Instance:
        """Return the instance that releases use."""
        restore = self._settings.database.restore
        return self.restored if self.restored is not None and restore and restore.serves else self.instance

    def _subnet_group(self, subnet_ids: list[pulumi.Input[str]]) -> aws.rds.SubnetGroup:
        own = pulumi.ResourceOptions(parent=self)
        return aws.rds.SubnetGroup("database", name="shopcat", subnet_ids=subnet_ids, opts=own)

    def _parameter_group(self) -> aws.rds.ParameterGroup:
        """Declare one that forces TLS."""
        family = f"postgres{self._settings.database.engine_version.partition('.')[0]}"
        return aws.rds.ParameterGroup(
            "database",
            name=f"shopcat-{family}",
            family=family,
            parameters=[aws.rds.ParameterGroupParameterArgs(name="rds.force_ssl", value="1")],
            opts=pulumi.ResourceOptions(parent=self),
        )

    def _role_jobs(
        self, cluster: kubernetes.Provider, master_arns: Sequence[pulumi.Input[str]], depends_on: list[pulumi.Resource]
    ) -> list[pulumi.Resource]:
        """Declare the Job that makes the application's role, and a second one for a restored database."""

        def inside(*depends_on: pulumi.Resource, **options: Any) -> pulumi.ResourceOptions:
            return pulumi.ResourceOptions(parent=self, provider=cluster, depends_on=depends_on, **options)

        batch, core, meta = kubernetes.batch.v1, kubernetes.core.v1, kubernetes.meta.v1
        namespace = core.Namespace(
            "database",
            metadata=meta.ObjectMetaArgs(
                name=DATABASE_NAMESPACE, labels={"pod-security.kubernetes.io/enforce": "restricted"}
            ),
            opts=inside(*depends_on),
        )
        store = kubernetes.apiextensions.CustomResource(
            "database-store",
            api_version=EXTERNAL_SECRETS_API,
            kind="SecretStore",
            metadata=_metadata(_STORE),
            spec={"provider": {"aws": {"service": "SecretsManager", "region": self._region}}},
            opts=inside(namespace),
        )

        secret = self._settings.database.master_secret
        waited = pulumi.CustomTimeouts(create="3m", update="3m", delete="2m")
        master = _external_secret(
            "master",
            {"password": "password"},
            master_arns[0],
            {},
            inside(store, custom_timeouts=waited),
        )
        value, serving = self._value_hook(), self._serving
        filled = pulumi.ResourceHookBinding(before_create=[value], before_update=[value])
        application = _external_secret(
            "application",
            {"username": "username", "password": "password"},
            self._secret.name,
            {
                "shopcat/database-host": serving.address,
                "shopcat/database-port": serving.port.apply(str),
            },
            inside(store, serving, custom_timeouts=waited, hooks=filled),
        )

        def job(
            name: str, container: kubernetes.core.v1.ContainerArgs, *depends_on: pulumi.Resource
        ) -> pulumi.Resource:
            template = core.PodTemplateSpecArgs(
                metadata=meta.ObjectMetaArgs(
                    labels={"app.kubernetes.io/name": name},
                    # With the setting the Job goes and runs once more: pods of before may have made something since.
                    annotations={"shopcat/master-secret": secret} if secret else None,
                ),
                spec=core.PodSpecArgs(
                    restart_policy="Never",
                    automount_service_account_token=False,
                    security_context=core.PodSecurityContextArgs(
                        run_as_non_root=True,
                        run_as_user=RUNTIME_USER,
                        seccomp_profile=core.SeccompProfileArgs(type="RuntimeDefault"),
                    ),
                    containers=[container],
                ),
            )
            declared: pulumi.Resource = batch.Job(
                name,
                metadata=_metadata(name, {"pulumi.com/replaceUnready": "true"}),
                spec=batch.JobSpecArgs(backoff_limit=3, active_deadline_seconds=300, template=template),
                opts=inside(*depends_on, application, custom_timeouts=pulumi.CustomTimeouts(create="6m", delete="2m")),
            )
            return declared

        jobs = [job(DATABASE_ROLES_JOB, self._psql(self.instance, "master"), master)]
        if self.restored is not None:
            name = "master-restored"
            password = _external_secret(
                name, {"password": "password"}, master_arns[1], {}, inside(store, custom_timeouts=waited)
            )
            container = self._psql(self.restored, name, then=restored_sql())
            jobs.append(job(DATABASE_RESTORED_JOB, container, password))
        return jobs

    def _psql(self, instance: aws.rds.Instance, master: str, then: str = "") -> kubernetes.core.v1.ContainerArgs:
        """Return the container that makes the application's role.

        Args:
            instance: where it does so.
            master: name of the Secret with the master user's password.
            then: what the application's role runs there afterwards.
        """
        core, memory = kubernetes.core.v1, capacity.JOB_POD.memory_mebibytes
        config = self._settings.database
        sql = role_sql(taken_over=config.is_taken_over)
        values: dict[str, pulumi.Input[str]] = {
            "PGHOST": instance.address,
            "PGPORT": instance.port.apply(str),
            "PGDATABASE": config.db_name,
            "PGUSER": config.username,
            "PGSSLMODE": "require",
        }
        secrets = {
            "PGPASSWORD": (master, "password"),
            "APP_USER": ("application", "username"),
            "APP_PASSWORD": ("application", "password"),
        }
        script = f"psql -v ON_ERROR_STOP=1 <<'SQL'\n{sql}SQL"
        if then:
            as_role = 'PGUSER="$APP_USER" PGPASSWORD="$APP_PASSWORD"'
            script = f"set -e\n{script}\n{as_role} psql -v ON_ERROR_STOP=1 -At <<'SQL'\n{then}SQL"
        return core.ContainerArgs(
            name="psql",
            image=self._settings.images.database,
            command=["sh", "-c", script],
            env=[
                *(core.EnvVarArgs(name=name, value=value) for name, value in values.items()),
                *(
                    core.EnvVarArgs(
                        name=name,
                        value_from=core.EnvVarSourceArgs(
                            secret_key_ref=core.SecretKeySelectorArgs(name=secret, key=key)
                        ),
                    )
                    for name, (secret, key) in secrets.items()
                ),
            ],
            resources=core.ResourceRequirementsArgs(
                requests={"cpu": f"{capacity.JOB_POD.cpu_millicores}m", "memory": f"{memory}Mi"},
                limits={"memory": f"{2 * memory}Mi"},
            ),
            security_context=core.SecurityContextArgs(
                allow_privilege_escalation=False,
                read_only_root_filesystem=True,
                capabilities=core.CapabilitiesArgs(drop=["ALL"]),
            ),
        )

    def _value_hook(self) -> pulumi.ResourceHook:
        """Give the secret a value before anything reads it; its host and port travel as the reader's annotations."""

        async def hook(args: pulumi.ResourceHookArgs) -> None:
            notes = (args.new_inputs or {})["metadata"]["annotations"]
            host, port = notes["shopcat/database-host"], notes["shopcat/database-port"]
            await threads.in_thread(ensure_application_secret, self._clients, self._settings.database, host, port)

        return pulumi.ResourceHook("application-secret", hook)


def _external_secret(
    name: str,
    keys: Mapping[str, str],
    source: pulumi.Input[str],
    annotations: Mapping[str, pulumi.Input[str]],
    opts: pulumi.ResourceOptions,
) -> kubernetes.apiextensions.CustomResource:
    return kubernetes.apiextensions.CustomResource(
        f"database-{name}",
        api_version=EXTERNAL_SECRETS_API,
        kind="ExternalSecret",
        metadata=_metadata(name, {"pulumi.com/waitFor": "condition=Ready", **annotations}),
        spec={
            "refreshPolicy": "Periodic",
            "refreshInterval": "1h0m0s",
            "secretStoreRef": {"kind": "SecretStore", "name": _STORE},
            "target": {"name": name, "creationPolicy": "Owner", "deletionPolicy": "Retain"},
            "data": [
                {"secretKey": key, "remoteRef": {"key": source, "property": field}} for key, field in keys.items()
            ],
        },
        opts=opts,
    )


def _metadata(
    name: str, annotations: Mapping[str, pulumi.Input[str]] | None = None
) -> kubernetes.meta.v1.ObjectMetaArgs:
    return kubernetes.meta.v1.ObjectMetaArgs(name=name, namespace=DATABASE_NAMESPACE, annotations=annotations)
