"""The Job that sets the password of a claim, in the database's own namespace, and the Secret it reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pulumi

from infra.foundation.database_jobs import Field, declare_external_secret
from infra.foundation.database_roles import login_sql
from infra.names import LOGIN_KEYS
from infra.release.logins import LOGIN_JOB_LABELS, job_name, secret_resource

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from infra.foundation.database_jobs import DatabaseJobs
    from infra.release.plan import Plan
    from infra.release.record import Login, Record


def declare_logins(
    plan: Plan, records: Mapping[str, Record], databases: Sequence[DatabaseJobs], opts: pulumi.ResourceOptions
) -> dict[str, list[pulumi.Resource]]:
    """Declare what sets the password of each release, in each database that its pods, or those of a later release, may use.

    Returns, by the release's name, what must have run before the release's own Secret is written: what sets its own password.
    For the release that is being made live beside a restored database that is the other colour's as well, so that no release
    uses a database with passwords of before.

    Args:
        plan: what is decided.
        records: of the releases that have pods or are to have some, by name.
        databases: where passwords are set.
        opts: of all that is declared; their hooks run before it is made.
    """
    own = {
        name: [
            _declare_login(record.login, each, plan.database_owner, _login_options(plan, name, opts))
            for each in databases
        ]
        if record.login and _sets_password(plan, record)
        else []
        for name, record in sorted(records.items())
    }
    everything = [each for resources in own.values() for each in resources]
    is_restored = any(each.place for each in databases)
    return {name: everything if is_restored and _is_going_on(plan, name) else own[name] for name in own}


def _is_going_on(plan: Plan, name: str) -> bool:
    """Check for the release that this update makes live."""
    decision = plan.decision
    return decision.open is not None and decision.open.name == name and decision.action in ("release", "resume")


def _login_options(plan: Plan, name: str, opts: pulumi.ResourceOptions) -> pulumi.ResourceOptions:
    """Return options by which a way back sets no other release's password once more, whatever image the settings name now."""
    stays = plan.is_way_back and not _is_going_on(plan, name)
    return pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(ignore_changes=["*"])) if stays else opts


def _sets_password(plan: Plan, record: Record) -> bool:
    """Check for a release that is being made live, or was when its colour was last claimed.

    An abort, and what follows it, sets no password: it waits for nothing of what it takes back.
    """
    known = plan.state.releases.get(record.name)
    return _is_going_on(plan, record.name) or (known is not None and known.attempts[-1].outcome == "live")


def _declare_login(login: Login, jobs: DatabaseJobs, owner: str, opts: pulumi.ResourceOptions) -> pulumi.Resource:
    """Declare the Job that sets the password of a claim in one database, and the Secret it reads."""
    name = job_name(login, jobs.place)
    fields = [
        Field("master", jobs.master_arn, "password"),
        *(Field(key, login.secret_id, key, login.version) for key in LOGIN_KEYS),
    ]
    secret = declare_external_secret(secret_resource(login, jobs.place), name, fields, {}, opts)
    job: pulumi.Resource = jobs.job(
        name,
        login_sql(),
        {
            "PGPASSWORD": (name, "master"),
            "LOGIN_USER": (name, "username"),
            "NEW_PASSWORD": (name, "password"),
        },
        pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=[secret])),
        values={
            "APP_OWNER": owner,
            "CLOSES_OWNER": str(login.closes_owner).lower(),
            "LOGIN_VERSION": login.version,
        },
        annotations=jobs.notes,
        labels=LOGIN_JOB_LABELS,
    )
    return job
