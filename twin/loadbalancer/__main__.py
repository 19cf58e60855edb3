"""The load balancer's daemon: ``SHOPCAT_TWIN_NAME=<twin> python -m twin.loadbalancer``."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys

from aiohttp import web

from twin import config
from twin.config import Twin
from twin.errors import TwinError
from twin.loadbalancer import parameters
from twin.loadbalancer.control import application
from twin.loadbalancer.elb import Reader
from twin.loadbalancer.engine import Engine
from twin.loadbalancer.front_door import FrontDoor, address
from twin.loadbalancer.metrics import Metrics
from twin.loadbalancer.service import can_listen


async def serve(twin: Twin) -> None:
    """Run until SIGTERM."""
    numbers = parameters.load()
    reader = Reader(twin.aws_endpoint, config.region(), numbers.slow_poll_seconds)
    runs = can_listen(twin)
    door = FrontDoor(twin, address(twin), twin.directory / "loadbalancer" / "front-door") if runs else None
    engine = Engine(twin, numbers, reader, door, processes_run=runs, targets_answer=not twin.simulated)
    metrics = Metrics(twin, engine, reader.cloudwatch, numbers.seed)
    runner = web.AppRunner(application(engine), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", twin.load_balancer_port).start()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    tasks = [
        asyncio.create_task(engine.poll_forever()),
        asyncio.create_task(engine.tick_forever()),
        asyncio.create_task(metrics.run_forever()),
    ]
    await stopping.wait()
    for task in tasks:
        task.cancel()
    for task in tasks:
        with contextlib.suppress(asyncio.CancelledError):
            await task
    await engine.close()
    await runner.cleanup()


def main() -> int:
    """Entry point."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        asyncio.run(serve(config.load()))
    except TwinError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
