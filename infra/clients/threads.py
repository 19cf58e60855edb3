"""Threads of our own for calls that block.

The SDK waits in the event loop's own threads, one for each resource that the engine is working on, and has no more of them than
`--parallel` says. A hook that wanted one of those would wait for resources that wait for it.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
POOL = ThreadPoolExecutor(32, thread_name_prefix="shopcat")
"""Enough threads for all calls that hooks make at once: each waits for the network."""


async def in_thread(call: Callable[..., T], *arguments: object) -> T:
    """Run a blocking call without stopping the event loop; what it raises is raised."""
    return await asyncio.get_running_loop().run_in_executor(POOL, call, *arguments)
