"""Letting Pulumi's engine work while the program goes on.

The SDK sends a resource to the engine once its event loop turns, and the loop turns when the program has run to its end.
Until then no plugin starts, however long the program loads modules and asks AWS. A turn of the loop in between changes
nothing but when the engine hears of what was declared.
"""

from __future__ import annotations

import asyncio

from pulumi.runtime.sync_await import _sync_await  # what the SDK's own blocking calls (`invoke`) wait with

TURNS = 20
"""Of the loop: a registration passes through several coroutines before it is sent (pulumi/runtime/resource.py)."""


def hear() -> None:
    """Send what has been declared, and take in what has been answered; nothing is waited for."""
    _sync_await(_turns())


async def _turns() -> None:
    for _ in range(TURNS):
        await asyncio.sleep(0)
