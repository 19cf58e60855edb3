"""The ELBv2 API as the controller uses it: silent SDK retries, client-side limits, a cache of targets.

Numbers: LBC's defaults, as in its `pkg/aws` (retries 10, back-off up to 20 s, no time-out on reads) and `throttle`
settings (Register/Deregister 4 per second, burst 20; Describe 50, burst 200); cache five minutes.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

AWS_ERRORS = (ClientError, BotoCoreError)
_CACHE_SECONDS = 300.0
_CREDENTIAL_SOURCES = ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI")


class Bucket:
    """A token bucket."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._at = time.monotonic()
        self._lock = threading.Lock()

    def take(self) -> None:
        """Wait for a token."""
        with self._lock:
            now = time.monotonic()
            self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate) - 1
            self._at = now
            wait = -self._tokens / self._rate
        if wait > 0:
            time.sleep(wait)


@dataclass(frozen=True)
class TargetInfo:
    """A target and its health as ELB described it last; ``state`` is empty if it has not been asked yet."""

    ip: str
    port: int
    state: str = ""
    reason: str = ""
    description: str = ""

    @property
    def identity(self) -> tuple[str, int]:
        """The key by which two targets are the same."""
        return self.ip, self.port


def create_client(service: str, region: str, endpoint: str | None, maximum_retries: int) -> Any:
    """Return a client that retries as the controller's SDK does."""
    session = botocore.session.get_session()
    # Nobody hands out or checks identities on the twin; on AWS a pod without any of these fails.
    keys: dict[str, Any] = {}
    if not any(os.environ.get(name) for name in _CREDENTIAL_SOURCES):
        keys = {"aws_access_key_id": "twin", "aws_secret_access_key": "twin"}
    return session.create_client(
        service,
        region_name=region,
        endpoint_url=endpoint,
        config=Config(
            retries={"total_max_attempts": maximum_retries + 1, "mode": "standard"},
            connect_timeout=30,
            read_timeout=None,
            max_pool_connections=10,
        ),
        **keys,
    )


class ElasticLoadBalancing:
    """Target groups and their targets."""

    def __init__(self, region: str, endpoint: str | None, maximum_retries: int) -> None:
        self._client: Any = create_client("elbv2", region, endpoint, maximum_retries)
        self._describe = Bucket(50, 200)
        self._change = Bucket(4, 20)
        self._cache: dict[str, tuple[float, list[TargetInfo]]] = {}
        self._lock = threading.Lock()

    def target_group(self, *, arn: str | None = None, name: str | None = None) -> dict[str, Any]:
        """One target group, by ARN or by name.

        Raises:
            ClientError: there is none, among others.
        """
        self._describe.take()
        wanted = {"TargetGroupArns": [arn]} if arn else {"Names": [name]}
        (group,) = self._client.describe_target_groups(**wanted)["TargetGroups"]
        return dict(group)

    def _targets(self, arn: str, only: list[TargetInfo]) -> list[TargetInfo]:
        self._describe.take()
        wanted = {"Targets": [{"Id": target.ip, "Port": target.port} for target in only]} if only else {}
        answer = self._client.describe_target_health(TargetGroupArn=arn, **wanted)
        return [
            TargetInfo(
                description["Target"]["Id"],
                int(description["Target"]["Port"]),
                description["TargetHealth"]["State"],
                description["TargetHealth"].get("Reason", ""),
                description["TargetHealth"].get("Description", ""),
            )
            for description in answer["TargetHealthDescriptions"]
        ]

    def targets(self, arn: str) -> list[TargetInfo]:
        """The group's targets. What was healthy within the last five minutes is taken from memory."""
        with self._lock:
            until, known = self._cache.get(arn, (0.0, []))
        if time.monotonic() >= until:
            targets = self._targets(arn, [])
            with self._lock:
                self._cache[arn] = (time.monotonic() + _CACHE_SECONDS, targets)
            return targets
        healthy = [target for target in known if target.state == "healthy"]
        other = [target for target in known if target.state != "healthy"]
        if other:
            other = [target for target in self._targets(arn, other) if target.reason != "Target.NotRegistered"]
        with self._lock:
            self._cache[arn] = (until, healthy + other)
        return healthy + other

    def _unknown_now(self, arn: str, changed: list[TargetInfo]) -> None:
        identities = {target.identity for target in changed}
        with self._lock:
            if arn in self._cache:
                until, known = self._cache[arn]
                kept = [target for target in known if target.identity not in identities]
                self._cache[arn] = (until, kept + [TargetInfo(*identity) for identity in sorted(identities)])

    def register(self, arn: str, targets: list[TargetInfo]) -> None:
        """Register targets."""
        self._change.take()
        self._client.register_targets(
            TargetGroupArn=arn, Targets=[{"Id": target.ip, "Port": target.port} for target in targets]
        )
        self._unknown_now(arn, targets)

    def deregister(self, arn: str, targets: list[TargetInfo]) -> None:
        """Deregister targets."""
        self._change.take()
        self._client.deregister_targets(
            TargetGroupArn=arn, Targets=[{"Id": target.ip, "Port": target.port} for target in targets]
        )
        self._unknown_now(arn, targets)


def is_not_found(error: Exception) -> bool:
    """Report whether an error says that the target group does not exist."""
    codes = ("TargetGroupNotFound", "ValidationError")
    return isinstance(error, ClientError) and error.response["Error"]["Code"] in codes
