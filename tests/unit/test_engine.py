"""The engine works while the program goes on."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

import pulumi
import pytest

from infra.clients import engine
from infra.errors import ShopCatError

T = TypeVar("T")


def run(program: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine; `asyncio.run` would leave the other tests, and Pulumi's mocks, without a loop."""
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(program)
    finally:
        loop.close()


def test_what_was_begun_goes_on_before_the_program_ends() -> None:
    steps: list[str] = []

    async def registration() -> None:
        for step in ("prepared", "sent"):
            await asyncio.sleep(0)
            steps.append(step)

    async def program() -> list[str]:
        task = asyncio.ensure_future(registration())
        engine.hear()
        found = list(steps)
        await task
        return found

    assert run(program()) == ["prepared", "sent"]


def test_the_engine_is_served_while_a_thread_works() -> None:
    served = threading.Event()

    async def answer() -> None:
        served.set()

    async def program() -> bool:
        task = asyncio.ensure_future(answer())
        found = engine.meanwhile(lambda: served.wait(10))
        await task
        return found

    assert run(program())


def test_a_refusal_in_a_thread_is_the_programs_own() -> None:
    def refuse() -> None:
        raise ShopCatError("a setting is wrong")

    async def program() -> None:
        engine.meanwhile(refuse)

    with pytest.raises(ShopCatError, match="a setting is wrong"):
        run(program())


@pytest.mark.parametrize(("variable", "sent"), [("", 0), ("1", 1)])
def test_debug_messages_are_sent_when_asked_for(monkeypatch: pytest.MonkeyPatch, variable: str, sent: int) -> None:
    said: list[str] = []
    monkeypatch.setattr(pulumi.log, "debug", said.append)
    monkeypatch.setenv("SHOPCAT_DEBUG", variable)
    engine.withhold_debug_messages()
    pulumi.log.debug("registering")
    assert len(said) == sent
