"""A small shop that shuts down as ShopCat does.

What a release can notice of the real application, and so of this one:

* ``/healthz`` answers 200 as long as the process lives, also while it drains (it lies).
* After SIGTERM every *new* request is refused at once: its connection is reset without an answer, whether it is a new
  connection or one that was kept alive. A load balancer that still sends here makes a 502 of it.
* Requests that had begun before are finished.
* The process exits ``APP_DRAIN_SECONDS`` (default 60) after SIGTERM; what still runs then is cut.
"""

from __future__ import annotations

import asyncio
import html
import logging
import os
import signal
import socket

import psycopg
from aiohttp import web
from aiohttp.typedefs import Handler
from psycopg_pool import AsyncConnectionPool, PoolTimeout

KEEP_ALIVE_SECONDS = 75.0
SLOWEST_SECONDS = 30.0
_SCHEMA_LOCK = 0x5C47  # any constant: two pods that start together make the tables one after the other
_SCHEMA = """
CREATE TABLE IF NOT EXISTS product (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text UNIQUE NOT NULL);
CREATE TABLE IF NOT EXISTS orders (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  idempotency_key text UNIQUE NOT NULL,
  item text NOT NULL,
  quantity integer NOT NULL CHECK (quantity > 0),
  release text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now());
INSERT INTO product (name) VALUES ('Cat tree'), ('Scratching post'), ('Laser pointer') ON CONFLICT DO NOTHING;
"""

log = logging.getLogger("shopcat")
pool_key: web.AppKey[AsyncConnectionPool] = web.AppKey("pool", AsyncConnectionPool)


class Drain:
    """The application's drain, which SIGTERM begins."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()

    def begin(self) -> None:
        """Refuse new requests from now on."""
        log.info("SIGTERM: new requests are refused, old ones are finished")
        self.begun.set()


def _database() -> str:
    """A libpq connection string from the environment; the password never leaves it for a log."""
    names = {"host": "HOST", "port": "PORT", "dbname": "NAME", "user": "USER", "password": "PASSWORD"}
    settings = {key: os.environ[f"DATABASE_{name}"] for key, name in names.items()}
    sslmode = os.environ.get("DATABASE_SSLMODE", "require")
    return psycopg.conninfo.make_conninfo(**settings, sslmode=sslmode, connect_timeout=5)


def _identity() -> dict[str, str]:
    return {
        "X-ShopCat-Release": os.environ.get("SHOPCAT_RELEASE", ""),
        "X-ShopCat-Colour": os.environ.get("SHOPCAT_COLOUR", ""),
        "X-ShopCat-Pod": socket.gethostname(),
    }


def make_application(drain: Drain) -> web.Application:
    """The shop's routes behind the drain rule."""
    identity = _identity()

    @web.middleware
    async def refuse_while_draining(request: web.Request, handler: Handler) -> web.StreamResponse:
        if drain.begun.is_set() and request.path != "/healthz":
            transport = request.transport
            if transport is not None:
                transport.abort()
            return web.Response(status=503)  # nobody is left to read it
        try:
            response: web.StreamResponse = await handler(request)
        except (PoolTimeout, psycopg.OperationalError):
            log.exception("database")
            response = web.json_response({"error": "database unavailable"}, status=503)
        response.headers.update(identity)
        return response

    application = web.Application(middlewares=[refuse_while_draining])
    application.router.add_get("/healthz", health)
    application.router.add_get("/", page)
    application.router.add_get("/slow", slow)
    application.router.add_post("/orders", place_order)
    application.router.add_get("/orders/{id:[0-9]+}", show_order)
    return application


async def health(_: web.Request) -> web.Response:
    """Answer 200 while the process runs."""
    return web.Response(text="ok\n")


async def page(request: web.Request) -> web.Response:
    """The shop's front page, read from PostgreSQL."""
    async with request.app[pool_key].connection() as connection:
        products = await (await connection.execute("SELECT name FROM product ORDER BY id")).fetchall()
        # Not a count of all orders: the page takes no longer when there are more.
        row = await (await connection.execute("SELECT max(id) FROM orders")).fetchone()
    items = "".join(f"<li>{html.escape(name)}</li>" for (name,) in products)
    release = html.escape(os.environ.get("SHOPCAT_RELEASE", ""))
    body = (
        f"<!doctype html><title>ShopCat</title><h1>ShopCat</h1><ul>{items}</ul>"
        f"<p>Latest order: {(row and row[0]) or 'none yet'}. Release {release}.</p>\n"
    )
    return web.Response(text=body, content_type="text/html")


async def slow(request: web.Request) -> web.Response:
    """A request that takes ``seconds`` (at most 30): what a release must not cut."""
    try:
        seconds = min(float(request.query.get("seconds", "20")), SLOWEST_SECONDS)
    except ValueError:
        return web.json_response({"error": "seconds is a number"}, status=400)
    await asyncio.sleep(seconds)
    return web.json_response({"slept": seconds})


async def place_order(request: web.Request) -> web.Response:
    """Store an order once per ``Idempotency-Key``; acknowledged means committed."""
    key = request.headers.get("Idempotency-Key", "")
    try:
        order = await request.json()
        item, quantity = str(order["item"]), int(order["quantity"])
    except (ValueError, KeyError, TypeError):
        return web.json_response({"error": "expected {item, quantity}"}, status=400)
    if not key or quantity < 1:
        return web.json_response({"error": "expected Idempotency-Key and a quantity of at least 1"}, status=400)
    async with request.app[pool_key].connection() as connection:
        cursor = await connection.execute(
            "INSERT INTO orders (idempotency_key, item, quantity, release) VALUES (%s, %s, %s, %s)"
            " ON CONFLICT (idempotency_key) DO UPDATE SET idempotency_key = excluded.idempotency_key RETURNING id",
            (key, item, quantity, os.environ.get("SHOPCAT_RELEASE", "")),
        )
        row = await cursor.fetchone()
    return web.json_response({"id": row[0] if row else None}, status=201)


async def show_order(request: web.Request) -> web.Response:
    """One order by its id."""
    async with request.app[pool_key].connection() as connection:
        cursor = await connection.execute(
            "SELECT id, idempotency_key, item, quantity, release FROM orders WHERE id = %s",
            (int(request.match_info["id"]),),
        )
        row = await cursor.fetchone()
    if row is None:
        return web.json_response({"error": "no such order"}, status=404)
    names = ("id", "idempotency_key", "item", "quantity", "release")
    return web.json_response(dict(zip(names, row, strict=True)))


async def serve() -> None:
    """Run until SIGTERM and the drain time after it."""
    drain = Drain()
    size = int(os.environ.get("DATABASE_POOL_SIZE", "5"))
    pool = AsyncConnectionPool(
        _database(), min_size=1, max_size=size, timeout=5, check=AsyncConnectionPool.check_connection, open=False
    )
    await pool.open(wait=True, timeout=30)
    async with pool.connection() as connection:
        await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_SCHEMA_LOCK,))
        await connection.execute(_SCHEMA)
    application = make_application(drain)
    application[pool_key] = pool
    # handler_cancellation stays off: a client that goes away does not cut an order in two.
    runner = web.AppRunner(application, keepalive_timeout=KEEP_ALIVE_SECONDS, access_log=None)
    await runner.setup()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, drain.begin)
    await web.TCPSite(runner, "0.0.0.0", int(os.environ.get("PORT", "8080")), backlog=1024).start()  # noqa: S104
    log.info("release %s answers on port %s", os.environ.get("SHOPCAT_RELEASE"), os.environ.get("PORT", "8080"))
    await drain.begun.wait()
    await asyncio.sleep(float(os.environ.get("APP_DRAIN_SECONDS", "60")))
    log.info("drained, exiting")
    os._exit(0)  # what still runs is cut, as the real application cuts it


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    asyncio.run(serve())
