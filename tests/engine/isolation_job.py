"""A pull request's job on the twin: its role's session, its kubeconfig, its Pulumi, and what it tries with kubectl."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from infra.clients.kubernetes import kubeconfig
from infra.names import PREVIEW_SECRETS_ROLE
from tests.engine.isolation_attempts import Attempt, Facts
from tests.tools import aws, command, kubectl
from twin import config
from twin.config import ACCOUNT_ID, Twin
from twin.scenarios import preview

GITHUB = {"repository": "octo/shop", "environment": "production"}
Session = dict[str, str]


def session(twin: Twin, role: str, name: str) -> Session:
    """Credentials of the role, taken as a workflow takes them."""
    made = aws(twin, "sts").assume_role_with_web_identity(
        RoleArn=f"arn:aws:iam::{ACCOUNT_ID}:role/{role}", RoleSessionName=name, WebIdentityToken="token-of-github"
    )["Credentials"]
    return {
        "AWS_ACCESS_KEY_ID": made["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": made["SecretAccessKey"],
        "AWS_SESSION_TOKEN": made["SessionToken"],
    }


def contract(twin: Twin) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(aws(twin, "ssm").get_parameter(Name="/shopcat/contract")["Parameter"]["Value"])
    return found


def identity_of(twin: Twin, directory: Path, credentials: Session) -> Session:
    """Environment of a job: its credentials, and the kubeconfig that any preview makes of the contract."""
    agreed = contract(twin)
    path = directory / "kubeconfig"
    path.write_text(
        kubeconfig(agreed["cluster"], agreed["clusterEndpoint"], agreed["clusterAuthority"], config.region())
    )
    return {**credentials, "KUBECONFIG": str(path)}


def pulumi(twin: Twin, number: int, who: Session, *arguments: str, check: bool = True) -> str:
    """`pulumi` on a preview's stack as somebody; all that it says."""
    stack = f"pr-{number}"
    preview.select(twin, stack)
    env = {**preview.environment(twin, stack), **who}
    result = command(
        twin, ["pulumi", *arguments, "-s", stack, "--yes", "--skip-preview", "--non-interactive"], check=check, **env
    )
    return result.stdout + result.stderr


def facts_of(twin: Twin, number: int, other: int, unopened: int) -> Facts:
    """Context of attempts as one preview, with another beside it; both are open."""
    agreed = contract(twin)
    groups = aws(twin, "elbv2").describe_target_groups()["TargetGroups"]

    def image(deployment: str, namespace: str) -> str:
        found = kubectl(twin, "get", "deployment", deployment, "-n", namespace)
        return str(found["spec"]["template"]["spec"]["containers"][0]["image"])

    return Facts(
        number=number,
        other=other,
        unopened=unopened,
        region=config.region(),
        contract=agreed,
        target_groups={one["TargetGroupName"]: one["TargetGroupArn"] for one in groups},
        secrets_role=f"arn:aws:iam::{ACCOUNT_ID}:role/{PREVIEW_SECRETS_ROLE}",
        preview_image=f"{agreed['previewRepositoryUrl']}@sha256:{'a' * 64}",
        production_image=image("shopcat-green", "shopcat"),
        database_image=image("database", f"pr-{number}"),
    )


def tried(twin: Twin, attempt: Attempt, who: Session, facts: Facts) -> subprocess.CompletedProcess[str]:
    """One attempt with kubectl."""
    arguments = [one.format(**facts.words()) for one in attempt.arguments]
    manifest = attempt.manifest(facts) if attempt.manifest else attempt.stdin
    if manifest is None:
        return command(twin, ["kubectl", *arguments], check=False, **who)
    return subprocess.run(
        ["kubectl", *arguments, "-f", "-"],
        input=json.dumps(manifest),
        env={**os.environ, **preview.environment(twin, facts.own), **who},
        text=True,
        capture_output=True,
        check=False,
    )
