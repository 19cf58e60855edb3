"""Jobs that sign in to the database as its master user, in a namespace of their own: nobody else sees that password."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pulumi
import pulumi_kubernetes as kubernetes

from infra import capacity
from infra.names import DATABASE_NAMESPACE, EXTERNAL_SECRETS_API, RUNTIME_USER

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from infra.settings import Settings

STORE = "database"


@dataclass(frozen=True)
class Field:
    """A field of a secret in Secrets Manager, and the key that it gets in Kubernetes."""

    key: str
    source: pulumi.Input[str]
    """Name or ARN of the secret."""
    field: str
    version: str = ""
    """Id of the version; empty takes the current one."""


def declare_external_secret(
    resource: str,
    name: str,
    fields: Sequence[Field],
    annotations: Mapping[str, pulumi.Input[str]],
    opts: pulumi.ResourceOptions,
) -> kubernetes.apiextensions.CustomResource:
    """Declare an ExternalSecret that is done once its Secret is written, and then read again each hour."""
    return kubernetes.apiextensions.CustomResource(
        resource,
        api_version=EXTERNAL_SECRETS_API,
        kind="ExternalSecret",
        metadata=job_metadata(name, {"pulumi.com/waitFor": "condition=Ready", **annotations}),
        spec={
            "refreshPolicy": "Periodic",
            "refreshInterval": "1h0m0s",
            "secretStoreRef": {"kind": "SecretStore", "name": STORE},
            "target": {"name": name, "creationPolicy": "Owner", "deletionPolicy": "Retain"},
            "data": [{"secretKey": each.key, "remoteRef": _remote(each)} for each in fields],
        },
        opts=pulumi.ResourceOptions.merge(
            opts,
            pulumi.ResourceOptions(custom_timeouts=pulumi.CustomTimeouts(create="3m", update="3m", delete="2m")),
        ),
    )


def _remote(field: Field) -> dict[str, pulumi.Input[str]]:
    version = {"version": f"uuid/{field.version}"} if field.version else {}
    return {"key": field.source, "property": field.field, **version}


def psql_command(sql: str) -> list[str]:
    r"""Return the command that runs SQL, in which `\password` takes the value of the variable `NEW_PASSWORD`.

    By that psql sends the role's verifier, never the password: a statement is in the server's log if it fails or `log_statement`
    is set, and in `pg_stat_statements`. psql asks for a password twice, on its input where it has no terminal.
    """
    refuse_empty = """: "${NEW_PASSWORD:?is empty}\""""
    answer = """printf '%s\\n%s\\n' "$NEW_PASSWORD" "$NEW_PASSWORD\""""
    return ["sh", "-c", f"{refuse_empty} && {answer} | psql -v ON_ERROR_STOP=1 -f /dev/fd/3 3<<'SQL'\n{sql}SQL"]


def job_metadata(
    name: str, annotations: Mapping[str, pulumi.Input[str]] | None = None, labels: Mapping[str, str] | None = None
) -> kubernetes.meta.v1.ObjectMetaArgs:
    """Return the metadata of an object in the Jobs' namespace."""
    return kubernetes.meta.v1.ObjectMetaArgs(
        name=name, namespace=DATABASE_NAMESPACE, annotations=annotations, labels=labels
    )


@dataclass(frozen=True)
class DatabaseJobs:
    """One database as its Jobs need it: where it is, and the secret of its master user."""

    settings: Settings
    address: pulumi.Input[str]
    port: pulumi.Input[str]
    master_arn: pulumi.Input[str]
    place: str = ""
    """Ends the names of what is there twice, once for each database."""
    moment: str = ""
    """The one that a restored database was restored to: of another moment, another one has the same name and address."""

    @property
    def notes(self) -> dict[str, str] | None:
        """Return annotations of pods that run in each new restored database once more."""
        return {"shopcat/restored-to": self.moment} if self.moment else None

    @property
    def master_password(self) -> Field:
        """Return the field of the master user's password."""
        return Field("password", self.master_arn, "password")

    def job(
        self,
        name: str,
        sql: str,
        secrets: Mapping[str, tuple[str, str]],
        opts: pulumi.ResourceOptions,
        *,
        values: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> kubernetes.batch.v1.Job:
        """Declare a Job that runs SQL as the master user; the next update makes one that failed anew.

        Args:
            name: of the Job and its resource.
            sql: for psql, which reads its variables from the environment.
            secrets: variable → Secret and key; `PGPASSWORD` is the master user's password, `NEW_PASSWORD` that of the role.
            opts: of the Job.
            values: more variables.
            annotations: of its pods.
            labels: of the Job and its pods; without any the pods have its name.
        """
        batch, core, meta = kubernetes.batch.v1, kubernetes.core.v1, kubernetes.meta.v1
        template = core.PodTemplateSpecArgs(
            metadata=meta.ObjectMetaArgs(labels=labels or {"app.kubernetes.io/name": name}, annotations=annotations),
            spec=core.PodSpecArgs(
                restart_policy="Never",
                automount_service_account_token=False,
                security_context=core.PodSecurityContextArgs(
                    run_as_non_root=True,
                    run_as_user=RUNTIME_USER,
                    seccomp_profile=core.SeccompProfileArgs(type="RuntimeDefault"),
                ),
                containers=[self._psql(sql, values or {}, secrets)],
            ),
        )
        timeouts = pulumi.ResourceOptions(custom_timeouts=pulumi.CustomTimeouts(create="6m", delete="2m"))
        return batch.Job(
            name,
            metadata=job_metadata(name, {"pulumi.com/replaceUnready": "true"}, labels),
            spec=batch.JobSpecArgs(backoff_limit=3, active_deadline_seconds=300, template=template),
            opts=pulumi.ResourceOptions.merge(opts, timeouts),
        )

    def _psql(
        self, sql: str, values: Mapping[str, str], secrets: Mapping[str, tuple[str, str]]
    ) -> kubernetes.core.v1.ContainerArgs:
        core, memory = kubernetes.core.v1, capacity.JOB_POD.memory_mebibytes
        plain: dict[str, pulumi.Input[str]] = {
            "PGHOST": self.address,
            "PGPORT": self.port,
            "PGDATABASE": self.settings.database.db_name,
            "PGUSER": self.settings.database.username,
            "PGSSLMODE": "require",
            **values,
        }
        return core.ContainerArgs(
            name="psql",
            image=self.settings.images.database,
            command=psql_command(sql),
            env=[
                *(core.EnvVarArgs(name=name, value=value) for name, value in plain.items()),
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
