"""Base class and helpers for the resource types of the stand-in aws plugin."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from botocore.exceptions import ClientError

from twin.plugins.common import Properties, ProviderError

_WAIT_STEP_SECONDS = 0.5

Result = TypeVar("Result")


class Aws:
    """boto3 clients as the provider resource configures them."""

    def __init__(self, settings: Properties) -> None:
        self.region = settings.get("region") or os.environ.get("AWS_REGION", "")
        self.default_tags: dict[str, str] = (_maybe_json(settings.get("defaultTags")) or {}).get("tags") or {}
        endpoints: dict[str, str] = {}
        for entry in _maybe_json(settings.get("endpoints")) or []:
            endpoints.update({name.lower(): url for name, url in entry.items() if url})
        self._endpoints = endpoints
        self._settings = {
            "aws_access_key_id": settings.get("accessKey"),
            "aws_secret_access_key": settings.get("secretKey"),
            "aws_session_token": settings.get("token"),
            "profile_name": settings.get("profile"),
            "region_name": self.region or None,
        }
        self._session: Any = None
        self._clients: dict[str, Any] = {}
        self._lock = threading.Lock()

    def __call__(self, service: str) -> Any:
        """The client of a service; the endpoint is the provider's, by the provider's name for the service."""
        with self._lock:
            if service not in self._clients:
                self._clients[service] = self._client(service)
            return self._clients[service]

    def _client(self, service: str) -> Any:
        # Loaded when AWS is first asked: an update that has nothing to do never asks.
        import boto3
        import botocore.config

        if self._session is None:
            make: Any = boto3.Session
            self._session = make(**self._settings)
        names = {"events": "eventbridge", "logs": "cloudwatchlogs", "elbv2": "elbv2"}
        url = self._endpoints.get(service) or self._endpoints.get(names.get(service, service))
        settings = botocore.config.Config(retries={"mode": "standard", "max_attempts": 5}, connect_timeout=5)
        return self._session.client(service, endpoint_url=url, config=settings)

    @property
    def account(self) -> str:
        """The caller's account."""
        identifier: str = self("sts").get_caller_identity()["Account"]
        return identifier


def _maybe_json(value: Any) -> Any:
    """Nested provider settings arrive as JSON text (pulumi/pulumi's provider configuration encoding)."""
    return json.loads(value) if isinstance(value, str) and value else value


def gone(error: ClientError) -> bool:
    """Report whether an AWS error says that the resource does not exist."""
    code = error.response["Error"]["Code"]
    generic = ("NotFound", "NoSuch", "NotFoundException", "NotFoundFault", "ResourceNotFound")
    return any(word in code for word in generic)


def existing(call: Callable[[], Result]) -> Result | None:
    """Return what the call returns, or None if AWS says that the resource does not exist."""
    try:
        return call()
    except ClientError as error:
        if gone(error):
            return None
        raise


def wait(probe: Callable[[], bool], what: str, timeout_seconds: float) -> None:
    """Poll until true.

    Raises:
        ProviderError: it took longer.
    """
    deadline = time.monotonic() + timeout_seconds
    while not probe():
        if time.monotonic() > deadline:
            raise ProviderError(f"{what}: not within {timeout_seconds:.0f} s")
        time.sleep(_WAIT_STEP_SECONDS)


def pick(inputs: Mapping[str, Any], **names: str) -> dict[str, Any]:
    """API arguments from inputs that are there: ``pick(inputs, VpcId="vpcId")``."""
    return {argument: inputs[name] for argument, name in names.items() if inputs.get(name) is not None}


def upper(value: Any) -> Any:
    """CamelCase keys of the provider's nested arguments → the API's PascalCase."""
    if isinstance(value, Mapping):
        return {key[:1].upper() + key[1:]: upper(item) for key, item in value.items()}
    if isinstance(value, list):
        return [upper(item) for item in value]
    return value


def lower(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return the API's description in the provider's camelCase, one level deep."""
    return {key[:1].lower() + key[1:]: item for key, item in value.items() if item is not None}


def tag_list(tags: Mapping[str, str] | None) -> list[dict[str, str]]:
    """Tags as most AWS APIs write them."""
    return [{"Key": key, "Value": value} for key, value in (tags or {}).items()]


@dataclass(frozen=True)
class Tagging:
    """A service's two calls for tags, and the argument that names the resource by id or by ARN."""

    service: str
    add: str
    remove: str
    argument: str
    by_arn: bool = False


class Kind:
    """One resource type. Subclasses declare what they know; anything else is refused by name."""

    token: ClassVar[str]
    inputs: ClassVar[frozenset[str]]
    replaces: ClassVar[frozenset[str]] = frozenset()
    computed: ClassVar[frozenset[str]] = frozenset()
    """Inputs that AWS chooses where they are not given (upstream: `Optional` and `Computed`): without them nothing changes."""
    name_property: ClassVar[str | None] = None
    name_limit: ClassVar[int] = 64
    name_suffix: ClassVar[bool] = True
    tagged: ClassVar[bool] = False
    tagging: ClassVar[Tagging | None] = None
    defaults: ClassVar[Mapping[str, Any]] = {}
    secret_outputs: ClassVar[frozenset[str]] = frozenset()
    create_before_delete: ClassVar[bool] = True

    def create(self, aws: Aws, inputs: Properties) -> str:
        """Make it, wait until it is usable, return its id."""
        raise NotImplementedError

    def read(self, aws: Aws, identifier: str, state: Properties) -> Properties | None:
        """Return live properties (inputs that AWS tells, and computed outputs).

        None, or an AWS error for which `gone` is true, means that the resource does not exist.
        """
        raise NotImplementedError

    def live(self, aws: Aws, identifier: str, state: Properties) -> Properties | None:
        """Return live properties, or None if the resource does not exist."""
        return existing(lambda: self.read(aws, identifier, state))

    def with_computed(self, old: Properties, new: Properties) -> Properties:
        """Return new inputs, and of the old ones those that AWS goes on choosing."""
        return {**{name: old[name] for name in self.computed & old.keys()}, **new}

    def update(self, aws: Aws, identifier: str, state: Properties, new: Properties, changed: set[str]) -> None:
        """Change it in place. ``changed`` are top-level input names, tags left out."""
        if changed:
            raise ProviderError(
                f"twin: changing {', '.join(sorted(changed))} of {self.token} in place is not implemented by the stand-in"
            )

    def delete(self, aws: Aws, identifier: str, state: Properties) -> None:
        """Delete it and wait until it is gone."""
        raise NotImplementedError

    def tag(self, aws: Aws, identifier: str, state: Properties, add: dict[str, str], remove: list[str]) -> None:
        """Set and remove tags."""
        if self.tagging is None:
            raise ProviderError(f"twin: tags of {self.token} are not implemented by the stand-in")
        client = aws(self.tagging.service)
        resource = {self.tagging.argument: state["arn"] if self.tagging.by_arn else identifier}
        if add:
            getattr(client, self.tagging.add)(**resource, Tags=tag_list(add))
        if remove:
            getattr(client, self.tagging.remove)(**resource, TagKeys=remove)
