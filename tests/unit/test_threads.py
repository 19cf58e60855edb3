"""Hooks block in threads of their own: the SDK's are all taken while the engine works on as many resources."""

from __future__ import annotations

import asyncio
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from infra.clients import threads
from tests.unit.releases import run


def test_a_hook_goes_on_while_every_thread_of_the_loop_waits_for_it() -> None:
    released = threading.Event()

    async def program() -> str:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(2))
        registrations = [loop.run_in_executor(None, released.wait, 30) for _ in range(2)]
        hooked = await asyncio.wait_for(threads.in_thread(lambda: "done"), 10)
        released.set()
        assert await asyncio.gather(*registrations) == [True, True]
        return hooked

    assert run(program()) == "done"


def test_nothing_of_the_program_takes_a_thread_of_the_loop() -> None:
    sources = Path(threads.__file__).parents[1].rglob("*.py")
    taken = [path.name for path in sources if re.search(r"to_thread\(|run_in_executor\(None", path.read_text())]
    assert taken == []
