"""Database passwords: each claim of a colour has one, made before the colour's pods start and shared with no other claim.

Two database roles, one a colour, are members of the role that owns the tables and act as it. A version of the colour's secret
in Secrets Manager is one password; its id stands in the release's record from the claim on. One order holds for release,
rollback, rotation and whatever goes on with one of them:

| step | carried by | the colour's role accepts | its pods hold |
|---|---|---|---|
| claim | `Hooks.claim` | the password of the colour's former claim | that one: pods that are left over, or on their way out |
| empty the colour | `LoginRenewal`: no weight, then no pods | as before | - |
| make the password | `make_password`, nothing if the version is there | as before | - |
| set it | Job `login-<claim>` | the new one alone | - |
| Secret | ExternalSecret, pinned to the version | the new one | - |
| start the pods | Deployment | the new one | the new one |

The other colour's role is not touched. After a kill at any step the same claim goes on with the same version: each step finds
what is done, and pods that hold the new password already are let be. An abort sets no password: the colour's role accepts that
of the aborted claim, which no pod holds, until the next claim. A rollback to the release that was last in the colour keeps its
password, whose pods may still run; any other rollback is given a new one.

So at any moment the password of each running pod is accepted, and a colour's role accepts one password and no other: what
leaked ends with the second release after it, sessions that were signed in with it included. The owner's own password, which
pods of releases from before sign in with, ends with the first claim beside which no such release is left (`Login.closes_owner`).

A restored database (`shopcat:database.restore`) has the passwords of its moment. So each claim has a Job in the database that
releases use and one in the restored database (`DatabaseSettings.login_identifiers`): the claim that goes on, and the one that was
last in each colour if it went live. Before a pod uses a database, the role of each colour accepts there the password of its last
claim and no other: the live colour's since the update that leads releases there, or since the release's own, which waits for it
(`declare_logins`), the other one's since the claim. A claim has the same password in each database, so a Job that runs
again shuts no pod out. A database that no release uses any more keeps the passwords that it had; an update that leads releases
back there sets those of then.
"""

from __future__ import annotations

import json
import secrets
import string
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from infra.clients.aws import error_code, explain
from infra.errors import ReleaseError
from infra.names import RESTORED, SECRET_KEYS, login_role

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from infra.clients.aws import AwsClients
    from infra.names import Colour
    from infra.release.record import Login

LOGIN_JOB_LABELS = {"app.kubernetes.io/name": "database-login"}
"""Labels of the Jobs that set a password."""
PASSWORD_LENGTH = 40
_CHARACTERS = string.ascii_letters + string.digits
"""40 of these are 238 bits; none needs quoting in SQL, in a URL or in a shell."""


def job_name(login: Login, place: str = "") -> str:
    """Return the name of the Job that sets the password, and of the Secret it reads.

    Args:
        login: the claim's.
        place: `RESTORED` for the restored database's.
    """
    return f"login-{login.claim}{place}"


def secret_resource(login: Login, place: str = "") -> str:
    """Return the name of the resource of that Secret in the stack, the first of what sets the password."""
    return f"{job_name(login, place)}-secret"


def secret_resources(login: Login) -> tuple[str, str]:
    """Return the names of those resources, of both databases."""
    return secret_resource(login), secret_resource(login, RESTORED)


def resource_names(login: Login) -> frozenset[str]:
    """Return the names of all that sets the claim's password, in both databases."""
    return frozenset((*secret_resources(login), job_name(login), job_name(login, RESTORED)))


def make_password(clients: AwsClients, login: Login, owner: str, colour: Colour) -> bool:
    """Give the colour's secret the version that the claim has chosen; true if it was not there yet.

    The password is never read back: the id of the version is the request's token, by which Secrets Manager keeps a version as
    it is once it is made (docs.aws.amazon.com/secretsmanager/latest/apireference/API_PutSecretValue.html).

    Raises:
        ShopCatError: the secret is gone or to be deleted, or Secrets Manager says no; the message says what mends it.
    """
    manager = clients.get("secretsmanager")
    try:
        secret = manager.describe_secret(SecretId=login.secret_id)
        if "DeletedDate" in secret:
            raise ReleaseError(
                f"secret {login.secret_id} is scheduled for deletion; aws secretsmanager restore-secret --secret-id "
                f"{login.secret_id}, then run pulumi up -s prod again"
            )
        if login.version in secret.get("VersionIdsToStages", {}):
            return False
        password = "".join(secrets.choice(_CHARACTERS) for _ in range(PASSWORD_LENGTH))
        text = json.dumps({"username": login_role(owner, colour), "password": password})
        manager.put_secret_value(SecretId=login.secret_id, ClientRequestToken=login.version, SecretString=text)
    except (BotoCoreError, ClientError) as error:
        if error_code(error) == "ResourceExistsException":
            return False
        if error_code(error) == "ResourceNotFoundException":
            raise ReleaseError(
                f"secret {login.secret_id} is gone; as an administrator run pulumi up --refresh -s prod, which makes it again"
            ) from error
        raise explain(error, f"secret {login.secret_id}", clients.endpoint_url) from error
    return True


def unfinished_jobs(jobs: Sequence[Mapping[str, Any]], login: Login) -> list[str]:
    """Name the Jobs of other claims that may still set a password: those that have neither succeeded nor failed."""
    return [
        each["metadata"]["name"]
        for each in jobs
        if each["metadata"]["name"] not in resource_names(login)
        and not any(
            one.get("type") in ("Complete", "Failed") and one.get("status") == "True"
            for one in (each.get("status") or {}).get("conditions") or []
        )
    ]


def holders_of_another(pods: Sequence[Mapping[str, Any]], secret_name: str) -> list[str]:
    """Name the pods that run, or are on their way out, with another Secret than this, each with its node."""
    return [
        f"{pod['metadata']['name']} on node {pod['spec'].get('nodeName') or 'none'}"
        for pod in pods
        if (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")
        and reads_another(pod["spec"], secret_name)
    ]


def keeps_another(deployment: Mapping[str, Any] | None, secret_name: str) -> bool:
    """Check for a Deployment that makes pods which read another Secret than this."""
    spec = (deployment or {}).get("spec") or {}
    return bool(spec.get("replicas")) and reads_another(spec["template"]["spec"], secret_name)


def has_yet_to_stop(deployment: Mapping[str, Any] | None, secret_name: str) -> bool:
    """Check for a Deployment with such pods, or whose controller has not yet seen that it shall have none."""
    if deployment is None or not reads_another(deployment["spec"]["template"]["spec"], secret_name):
        return False
    status, seen = deployment.get("status") or {}, deployment["metadata"].get("generation", 0)
    behind = int(status.get("observedGeneration", 0)) < int(seen)
    return behind or bool(deployment["spec"].get("replicas")) or bool(status.get("replicas"))


def reads_another(pod_spec: Mapping[str, Any], secret_name: str) -> bool:
    """Check for a container that takes the database's password from another Secret than this; a sidecar's own is none of it."""
    return any(name != secret_name for name in _secrets_of(pod_spec))


def _secrets_of(pod_spec: Mapping[str, Any]) -> Iterator[str]:
    for container in pod_spec.get("containers") or []:
        for variable in container.get("env") or []:
            source = (variable.get("valueFrom") or {}).get("secretKeyRef")
            if source and variable["name"] in SECRET_KEYS:
                yield str(source["name"])
