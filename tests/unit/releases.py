"""Records and AWS clients that several unit tests start from."""

from __future__ import annotations

import asyncio
import importlib
from typing import TYPE_CHECKING, Any

import boto3

from infra.release.record import DrainNumbers, Record, TemplateInput

if TYPE_CHECKING:
    from collections.abc import Coroutine

REGION = "eu-central-1"
TABLE = "shopcat-releases"
DRAIN = DrainNumbers(
    app_drain_seconds=60,
    pre_stop_seconds=70,
    grace_seconds=140,
    progress_deadline_seconds=130,
    startup_seconds=60,
    pulumi_timeout_seconds=190,
)


def digest(number: int) -> str:
    return f"sha256:{number:064x}"


def template(number: int = 1, **changes: Any) -> TemplateInput:
    values: dict[str, Any] = {
        "image": f"123456789012.dkr.ecr.{REGION}.amazonaws.com/shopcat@{digest(number)}",
        "replicas": 2,
        "cpu_millicores": 200,
        "memory_mebibytes": 384,
        "environment": {"DATABASE_POOL_SIZE": "5", "DATABASE_SSLMODE": "require"},
        "secret_id": "shopcat/application",
        "secret_version": "11111111-1111-1111-1111-111111111111",
        "drain": DRAIN,
        "smoke_image": f"docker.io/curlimages/curl@{digest(999)}",
        "smoke_url": "",
        "smoke_connect": "",
        **changes,
    }
    return TemplateInput(**values)


def record(tag: str = "v1.0.0", revision: int = 1, number: int = 1, **changes: Any) -> Record:
    return Record(tag, revision, template(number, **changes))


importlib.import_module("moto")  # it hooks itself into the sessions that are made after it
SESSION = boto3.session.Session(region_name=REGION, aws_access_key_id="test", aws_secret_access_key="test")
"""One for all tests: reading the services' models again takes longer than the tests."""


def client(service: str) -> Any:
    return SESSION.client(service)


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Like asyncio.run, which would leave the thread without the event loop that Pulumi's mocks ask for."""
    loop = asyncio.new_event_loop()
    try:
        result = loop.run_until_complete(coroutine)
        loop.run_until_complete(loop.shutdown_default_executor())
        return result
    finally:
        loop.close()
