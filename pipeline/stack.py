"""Pulumi on one stack: each command with a throw-away copy of its settings, since `pulumi up -c` writes into its file.

A stack that is locked by an update that no longer runs is unlocked where that is known (`stale_after_seconds`), and
otherwise refused with what to do.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from infra.clients.aws import AwsClients, error_code, explain
from infra.names import (
    CLUSTER_INFO_PARAMETER,
    PREVIEWS_BACKEND,
    PRODUCTION_STACK,
    state_bucket,
    state_key_alias,
    state_url,
)
from infra.settings import stack_file
from pipeline import process, state
from pipeline.environment import REPOSITORY
from pipeline.errors import PipelineError, StackLockedError
from pipeline.plan import PRODUCTION_FILE
from pipeline.process import Finished

_LOCKED = "the stack is currently locked by"
_LOCK = re.compile(r"\.json(?:\?\S*)?: created by .* \(pid \d+\) at (\S+)")


def locks(text: str, now: datetime) -> list[float] | None:
    """Return seconds since each lock that Pulumi names was taken; None if it names none."""
    if _LOCKED not in text:
        return None
    return [(now - datetime.fromisoformat(at)).total_seconds() for at in _LOCK.findall(text)]


@dataclass(frozen=True)
class Backend:
    """Where the state is, and what encrypts the secrets in it."""

    url: str
    secrets_provider: str
    more: Mapping[str, str] = field(default_factory=dict)
    """Variables that Pulumi needs here, which this process lacks."""

    @property
    def environment(self) -> dict[str, str | None]:
        """For Pulumi."""
        return {
            **self.more,
            "PULUMI_BACKEND_URL": self.url,
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            # A stack that is there already says itself how its secrets are encrypted.
            "PULUMI_FALLBACK_TO_STATE_SECRETS_MANAGER": "true",
            "PULUMI_OPTION_CONFIG_FILE": None,
        }


def _provider(kind: str, environment: Mapping[str, str], clients: AwsClients) -> str:
    given = environment.get("SHOPCAT_SECRETS_PROVIDER")
    return given or f"awskms://{state_key_alias(kind)}?region={clients.region}"


def production_backend(environment: Mapping[str, str], clients: AwsClients) -> Backend:
    """What the environment names, or else what `make bootstrap` made.

    Raises:
        ShopCatError: no usable credentials.
    """
    kind = PRODUCTION_STACK
    url = environment.get("PULUMI_BACKEND_URL")
    return Backend(url or state_url(kind, clients.identity()[0], clients.region), _provider(kind, environment, clients))


def preview_backend(number: int, environment: Mapping[str, str], clients: AwsClients) -> Backend:
    """The pull request's own folder: named by `aws:userid` of its job's session, which alone and the clean-up role may use it.

    Raises:
        ShopCatError: no usable credentials, or no contract that names whose folder it is.
    """
    kind = PREVIEWS_BACKEND
    url = environment.get("PULUMI_BACKEND_URL")
    if not url:
        owner = f"{_preview_role(clients)}:{number}"
        url = state_url(kind, clients.identity()[0], clients.region, owner)
    return Backend(url, _provider(kind, environment, clients))


def preview_files(environment: Mapping[str, str], clients: AwsClients, number: int | None = None) -> state.Files:
    """The files of all previews' state, or of one pull request's.

    Raises:
        ShopCatError: no usable credentials, no contract that names whose they are, or a backend of another kind.
    """
    url = environment.get("PULUMI_BACKEND_URL")
    if not url:
        bucket = state_bucket(PREVIEWS_BACKEND, clients.identity()[0], clients.region)
        folder = "" if number is None else f"{number}/"
        return state.Bucket(clients, bucket, f"{_preview_role(clients)}:{folder}")
    if not url.startswith("file:///"):
        raise PipelineError(
            f"PULUMI_BACKEND_URL={url}: the clean-up knows the previews' bucket and file:///…; unset it"
        )
    return state.Directory(Path(url.removeprefix("file://")))


def cluster_info(clients: AwsClients) -> dict[str, Any]:
    """What production publishes for previews (infra/previews/cluster_info.py).

    Raises:
        ShopCatError: there is none, or it can't be read.
    """
    try:
        text = clients.get("ssm").get_parameter(Name=CLUSTER_INFO_PARAMETER)["Parameter"]["Value"]
    except (BotoCoreError, ClientError) as error:
        if error_code(error) == "ParameterNotFound":
            raise PipelineError(
                f"SSM parameter {CLUSTER_INFO_PARAMETER} does not exist; bring the platform up: pulumi up -s prod"
            ) from error
        raise explain(error, f"SSM parameter {CLUSTER_INFO_PARAMETER}", clients.endpoint_url) from error
    found: dict[str, Any] = json.loads(text)
    return found


def _preview_role(clients: AwsClients) -> str:
    """Unique id of the previews' role."""
    found = str(cluster_info(clients).get("previewRoleId", ""))
    if not found:
        raise PipelineError(
            f"{CLUSTER_INFO_PARAMETER} names no role of previews: "
            "set shopcat:github.repository in Pulumi.prod.yaml to <owner>/<name> "
            "and run `pulumi up -s prod`"
        )
    return found


def stack_names(where: Backend) -> list[str]:
    """Every stack of this project in the backend."""
    command = ["pulumi", "stack", "ls", "--json", "--non-interactive"]
    listed = json.loads(process.capture(command, environment=where.environment, cwd=REPOSITORY))
    return [str(one["name"]).rpartition("/")[2] for one in listed]


@dataclass(frozen=True)
class Stack:
    """One stack and the settings its commands get."""

    name: str
    where: Backend
    document: Mapping[str, Any] = field(default_factory=dict)
    """The stack file's content."""

    @contextmanager
    def _environment(self) -> Iterator[dict[str, str | None]]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"Pulumi.{self.name}.yaml"
            path.write_text(stack_file.dump(self.document))
            yield {**self.where.environment, "PULUMI_OPTION_CONFIG_FILE": str(path)}

    def select_or_create(self) -> None:
        """`pulumi stack select --create`; in a folder of its own, since it writes beside Pulumi.yaml.

        Raises:
            ShopCatError: Pulumi says no.
        """
        if self.name in stack_names(self.where):
            return
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(REPOSITORY / "Pulumi.yaml", folder)
            command = ["pulumi", "stack", "select", "--create", self.name, "--non-interactive"]
            command += ["--secrets-provider", self.where.secrets_provider]
            process.capture(command, environment=self.where.environment, cwd=Path(folder))

    def show(
        self,
        *arguments: str,
        stale_after_seconds: float | None = None,
        deadline_seconds: float | None = None,
    ) -> Finished:
        """Run `pulumi` on the stack and show what it says.

        Args:
            arguments: the command and what only it needs.
            stale_after_seconds: a lock this old belongs to no running update; None: never to be known from here.
            deadline_seconds: when to interrupt it.

        Raises:
            StackLockedError: the stack is locked.
        """
        command = ["pulumi", *arguments, "-s", self.name, "--yes", "--skip-preview", "--non-interactive"]
        with self._environment() as environment:
            for again in (False, True):
                finished = process.show(
                    command, environment=environment, cwd=REPOSITORY, deadline_seconds=deadline_seconds
                )
                held = locks(finished.text, datetime.now(UTC)) if finished.code else None
                if held is None:
                    return finished
                dead = stale_after_seconds is not None and [state.is_dead(age, stale_after_seconds) for age in held]
                if again or not dead or not all(dead):
                    raise StackLockedError(
                        f"stack {self.name} is locked (above is by whom and since when): wait for that update; if it "
                        f"was killed, `pulumi cancel -s {self.name}`, then run this again"
                    )
                print(f"stack {self.name} is locked by an update that was killed; unlocking it", flush=True)
                self._capture(["pulumi", "cancel", self.name, "--yes", "--non-interactive"], environment)
        raise AssertionError  # pragma: no cover - the loop returns or raises

    @staticmethod
    def _capture(command: Sequence[str], environment: Mapping[str, str | None]) -> str:
        return process.capture(command, environment=environment, cwd=REPOSITORY)

    def outputs(self) -> dict[str, Any]:
        """The stack's outputs; secrets stay hidden."""
        with self._environment() as environment:
            command = ["pulumi", "stack", "output", "-s", self.name, "--json", "--non-interactive"]
            found: dict[str, Any] = json.loads(self._capture(command, environment) or "{}")
            return found

    def changes(self) -> dict[str, int]:
        """What the latest update did, counted: {"create": 20}."""
        with self._environment() as environment:
            command = ["pulumi", "stack", "history", "-s", self.name, "--json", "--page-size", "1", "--non-interactive"]
            listed: list[dict[str, Any]] = json.loads(self._capture(command, environment) or "[]")
            return dict(listed[0].get("resourceChanges") or {}) if listed else {}


def preview_stack(number: int, where: Backend, environment: Mapping[str, str]) -> Stack:
    """The stack of a pull request; its settings are Pulumi.pr.yaml, which the program reads itself."""
    path = environment.get("SHOPCAT_STACK_FILE")
    document = stack_file.read_stack_file(Path(path)) if path else {"config": {}}
    return Stack(f"pr-{number}", where, {"secretsprovider": where.secrets_provider, **document})


def production(where: Backend, environment: Mapping[str, str]) -> Stack:
    """Production's stack, with the committed settings."""
    document = stack_file.read_stack_file(Path(environment.get("SHOPCAT_STACK_FILE") or PRODUCTION_FILE))
    return Stack("prod", where, {"secretsprovider": where.secrets_provider, **document})
