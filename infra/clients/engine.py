"""Letting Pulumi's engine work while the program goes on.

The SDK sends a resource to the engine once its event loop turns, and the loop turns when the program has run to its end.
Until then no plugin starts and nothing is compared, however long the program loads modules and asks AWS. To turn the loop
in between changes nothing but when the engine hears of what was declared.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, TypeVar

import pulumi
from pulumi.runtime.sync_await import _sync_await  # what the SDK's own blocking calls (`invoke`) wait with

from infra.clients.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

TURNS = 20
"""Of the loop: a registration passes through several coroutines before it is sent (pulumi/runtime/resource.py)."""


def withhold_debug_messages() -> None:
    """Don't send the SDK's debug messages to the engine, which throws them away unless it was started with `--debug`.

    There are several for each resource, each a call that is waited for. With SHOPCAT_DEBUG=1 in the environment they are
    sent.
    """
    if not os.environ.get("SHOPCAT_DEBUG"):
        pulumi.log.debug = lambda *_, **__: None


def hear() -> None:
    """Send what has been declared, and take in what has been answered; nothing is waited for."""
    _sync_await(_turns())


def meanwhile(work: Callable[[], T]) -> T:
    """Do something that takes long and declares nothing, in a thread, while the engine is served; what it raises is raised."""
    return _sync_await(in_thread(work))


async def _turns() -> None:
    for _ in range(TURNS):
        await asyncio.sleep(0)
