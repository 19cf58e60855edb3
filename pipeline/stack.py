"""Pulumi's command line on one stack, each time with a throw-away copy of the settings: `pulumi up -c` writes into its file.

Not by Pulumi's Automation API: its `outputs()` runs a second command that decrypts every secret, and its `up()` hands out no
process that could be interrupted at a deadline.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from infra.clients.aws import AwsClients
from infra.errors import AwsError
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
from pipeline.environment import REPOSITORY, aws_errors
from pipeline.errors import PipelineError, StackLockedError
from pipeline.plan import PRODUCTION_FILE
from pipeline.process import Finished


@dataclass(frozen=True)
class Backend:
    """Backend of the state, and the provider that encrypts its secrets."""

    url: str
    secrets_provider: str
    more: Mapping[str, str] = field(default_factory=dict)
    """Variables that Pulumi needs besides this process's own."""

    @property
    def environment(self) -> dict[str, str | None]:
        """Variables for Pulumi; None takes one away."""
        return {
            **self.more,
            "PULUMI_BACKEND_URL": self.url,
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            # A stack that is there already says itself how its secrets are encrypted.
            "PULUMI_FALLBACK_TO_STATE_SECRETS_MANAGER": "true",
            "PULUMI_OPTION_CONFIG_FILE": None,
        }


def _provider(kind: str, environment: Mapping[str, str], clients: AwsClients) -> str:
    return environment.get("SHOPCAT_SECRETS_PROVIDER") or f"awskms://{state_key_alias(kind)}?region={clients.region}"


def production_backend(environment: Mapping[str, str], clients: AwsClients) -> Backend:
    """Return production's backend: the environment's, or else the one that `make bootstrap` makes.

    Raises:
        ShopCatError: no usable credentials.
    """
    kind = PRODUCTION_STACK
    url = environment.get("PULUMI_BACKEND_URL")
    return Backend(url or state_url(kind, clients.identity()[0], clients.region), _provider(kind, environment, clients))


def preview_backend(number: int, environment: Mapping[str, str], clients: AwsClients) -> Backend:
    """Return a pull request's backend: the environment's, or else its own folder in the previews' bucket.

    The folder is named by `aws:userid` of the job's session. That session and the clean-up role alone may use it.

    Raises:
        ShopCatError: no usable credentials, or production has published no role of previews.
    """
    kind = PREVIEWS_BACKEND
    url = environment.get("PULUMI_BACKEND_URL")
    if not url:
        owner = f"{_preview_role(clients)}:{number}"
        url = state_url(kind, clients.identity()[0], clients.region, owner)
    return Backend(url, _provider(kind, environment, clients))


def preview_files(environment: Mapping[str, str], clients: AwsClients, number: int | None = None) -> state.Files:
    """Return the files of all previews' state, or of one pull request's.

    Raises:
        ShopCatError: no usable credentials, production has published no role of previews, or a backend of another kind.
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
    return state.Directory(Path(urlsplit(url).path))


def cluster_info(clients: AwsClients) -> dict[str, Any]:
    """Return what production publishes for previews (infra/previews/cluster_info.py).

    Raises:
        ShopCatError: nothing is published, or it can't be read.
    """
    try:
        with aws_errors(clients, f"SSM parameter {CLUSTER_INFO_PARAMETER}"):
            text = clients.get("ssm").get_parameter(Name=CLUSTER_INFO_PARAMETER)["Parameter"]["Value"]
    except AwsError as error:
        if error.code != "ParameterNotFound":
            raise
        raise PipelineError(
            f"SSM parameter {CLUSTER_INFO_PARAMETER} does not exist; bring the platform up: pulumi up -s prod"
        ) from error
    info: dict[str, Any] = json.loads(text)
    return info


def _preview_role(clients: AwsClients) -> str:
    """Return the unique id of the previews' role."""
    role_id = str(cluster_info(clients).get("previewRoleId", ""))
    if not role_id:
        raise PipelineError(
            f"{CLUSTER_INFO_PARAMETER} names no role of previews: "
            "set shopcat:github.repository in Pulumi.prod.yaml to <owner>/<name> "
            "and run `pulumi up -s prod`"
        )
    return role_id


def stack_names(backend: Backend) -> list[str]:
    """Return the names of this project's stacks in the backend."""
    command = ["pulumi", "stack", "ls", "--json", "--non-interactive"]
    stacks = json.loads(process.capture(command, environment=backend.environment, cwd=REPOSITORY))
    return [str(stack["name"]).rpartition("/")[2] for stack in stacks]


POLICY_PACK = "policy"
"""The rules that no stack may break (policy/), for Pulumi's `--policy-pack`; a folder of this repository."""


def _is_locked(finished: Finished) -> bool:
    return finished.code != 0 and "the stack is currently locked by" in finished.text


@dataclass(frozen=True)
class Stack:
    """A stack and the settings that its commands get."""

    name: str
    backend: Backend
    document: Mapping[str, Any] = field(default_factory=dict)
    """The stack file's content."""

    @contextmanager
    def _environment(self) -> Iterator[dict[str, str | None]]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"Pulumi.{self.name}.yaml"
            path.write_text(stack_file.dump(self.document))
            yield {**self.backend.environment, "PULUMI_OPTION_CONFIG_FILE": str(path)}

    def select_or_create(self) -> None:
        """Create the stack unless it exists; in a folder of its own, since Pulumi writes beside Pulumi.yaml.

        Raises:
            ShopCatError: Pulumi failed.
        """
        if self.name in stack_names(self.backend):
            return
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(REPOSITORY / "Pulumi.yaml", folder)
            command = ["pulumi", "stack", "select", "--create", self.name, "--non-interactive"]
            command += ["--secrets-provider", self.backend.secrets_provider]
            process.capture(command, environment=self.backend.environment, cwd=Path(folder))

    def show(self, *arguments: str, unlock: bool = False, deadline_seconds: float | None = None) -> Finished:
        """Run `pulumi` on the stack and print its output as it comes; nobody is asked, and only `preview` previews.

        Args:
            arguments: the command and its own options.
            unlock: no other update of the stack can be running, so a lock is a killed update's and is taken away, once.
            deadline_seconds: when to interrupt it.

        Raises:
            StackLockedError: the stack is locked.
        """
        unasked = [] if arguments[0] == "preview" else ["--yes", "--skip-preview"]
        command = ["pulumi", *arguments, "-s", self.name, *unasked, "--non-interactive"]
        with self._environment() as environment:
            run = partial(
                process.show, command, environment=environment, cwd=REPOSITORY, deadline_seconds=deadline_seconds
            )
            finished = run()
            if unlock and _is_locked(finished):
                print(f"stack {self.name} is locked by an update that was killed; unlocking it", flush=True)
                cancel = ["pulumi", "cancel", self.name, "--yes", "--non-interactive"]
                process.capture(cancel, environment=environment, cwd=REPOSITORY)
                finished = run()
        if _is_locked(finished):
            raise StackLockedError(
                f"stack {self.name} is locked (above is by whom and since when): wait for that update; if it "
                f"was killed, `pulumi cancel -s {self.name}`, then run this again"
            )
        return finished

    def _read(self, *arguments: str) -> Any:
        """Return the JSON that a `pulumi stack` command prints; None if it prints nothing."""
        command = ["pulumi", "stack", *arguments, "-s", self.name, "--json", "--non-interactive"]
        with self._environment() as environment:
            return json.loads(process.capture(command, environment=environment, cwd=REPOSITORY) or "null")

    def outputs(self) -> dict[str, Any]:
        """Return the stack's outputs; secrets stay hidden."""
        return self._read("output") or {}

    def changes(self) -> dict[str, int]:
        """Return how many resources the latest update created, updated and so on: {"create": 20}."""
        updates = self._read("history", "--page-size", "1")
        return dict(updates[0].get("resourceChanges") or {}) if updates else {}


def preview_stack(number: int, backend: Backend, environment: Mapping[str, str]) -> Stack:
    """Return the stack of a pull request; the program reads its settings, Pulumi.pr.yaml, itself."""
    path = environment.get("SHOPCAT_STACK_FILE")
    document = stack_file.read_stack_file(Path(path)) if path else {"config": {}}
    return Stack(f"pr-{number}", backend, {"secretsprovider": backend.secrets_provider, **document})


def production(backend: Backend, environment: Mapping[str, str]) -> Stack:
    """Return production's stack with the committed settings."""
    document = stack_file.read_stack_file(Path(environment.get("SHOPCAT_STACK_FILE") or PRODUCTION_FILE))
    return Stack("prod", backend, {"secretsprovider": backend.secrets_provider, **document})
