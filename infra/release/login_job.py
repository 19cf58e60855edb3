"""What sets the password of a claim: a Job in the database's own namespace, and the Secret it reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pulumi

from infra.foundation.database_jobs import Field, external_secret
from infra.foundation.database_roles import login_sql
from infra.names import LOGIN_KEYS
from infra.release.logins import JOB_LABELS, job_name, secret_resource

if TYPE_CHECKING:
    from infra.foundation.database_jobs import DatabaseJobs
    from infra.release.record import Login


def declare_login(
    login: Login, jobs: DatabaseJobs, owner: str, opts: pulumi.ResourceOptions, hooks: pulumi.ResourceHookBinding
) -> pulumi.Resource:
    """Declare the Job that sets the password of a claim in one database, and the Secret it reads.

    Args:
        login: the claim's.
        jobs: of the database.
        owner: the role that owns the tables.
        opts: of both.
        hooks: run before either is made.
    """
    name = job_name(login, jobs.place)
    own = pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(hooks=hooks))
    fields = [
        Field("master", jobs.master_arn, "password"),
        *(Field(key, login.secret_id, key, login.version) for key in LOGIN_KEYS),
    ]
    secret = external_secret(secret_resource(login, jobs.place), name, fields, {}, own)
    job: pulumi.Resource = jobs.job(
        name,
        login_sql(),
        {
            "PGPASSWORD": (name, "master"),
            "LOGIN_USER": (name, "username"),
            "LOGIN_PASSWORD": (name, "password"),
        },
        pulumi.ResourceOptions.merge(own, pulumi.ResourceOptions(depends_on=[secret])),
        values={"APP_OWNER": owner, "CLOSES_OWNER": str(login.closes_owner).lower()},
        annotations=jobs.notes,
        labels=JOB_LABELS,
    )
    return job
