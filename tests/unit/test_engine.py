"""The engine works while the program reads."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from infra.clients import engine
from infra.errors import ShopCatError

T = TypeVar("T")


def run(program: Coroutine[Any, Any, T]) -> T:
    """As `asyncio.run`, which would leave the other tests, and Pulumi's mocks, without a loop."""
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(program)
    finally:
        loop.close()


def test_the_engine_is_served_while_a_thread_works() -> None:
    served = threading.Event()

    async def answer() -> None:
        served.set()

    async def program() -> bool:
        task = asyncio.ensure_future(answer())
        found = engine.run_beside_engine(lambda: served.wait(10))
        await task
        return found

    assert run(program())


def test_a_refusal_in_a_thread_is_the_programs_own() -> None:
    def refuse() -> None:
        raise ShopCatError("a setting is wrong")

    async def program() -> None:
        engine.run_beside_engine(refuse)

    with pytest.raises(ShopCatError, match="a setting is wrong"):
        run(program())
