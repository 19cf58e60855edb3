"""The load balancer's own HTTP API on loopback: target health for AWS's DescribeTargetHealth, status, faults.

- ``GET /target-health?arn=<target group ARN>``: ``{"TargetHealthDescriptions": [...]}`` as the AWS API answers it; 404
  if the load balancer does not know the group (yet).
- ``GET /status``: what runs, which weights and targets each node has, what is not implemented.
- ``POST /faults`` with JSON such as ``{"delayScale": 3, "weightZeroUnused": true}``.
"""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from twin.errors import TwinError
from twin.loadbalancer.engine import Engine


def _answer(document: Any, status: int = 200) -> web.Response:
    return web.Response(text=json.dumps(document, indent=2) + "\n", status=status, content_type="application/json")


def application(engine: Engine) -> web.Application:
    """The API's routes."""

    async def target_health(request: web.Request) -> web.Response:
        health = engine.target_health(request.query.get("arn", ""))
        if health is None:
            return _answer({"error": f"no target group {request.query.get('arn', '')!r}"}, 404)
        return _answer({"TargetHealthDescriptions": health})

    async def status(_: web.Request) -> web.Response:
        return _answer(engine.status())

    async def faults(request: web.Request) -> web.Response:
        try:
            wanted = await request.json()
            engine.set_faults(wanted if isinstance(wanted, dict) else {str(wanted): None})
        except (ValueError, TwinError) as error:
            return _answer({"error": str(error)}, 400)
        return _answer({"delayScale": engine.delay_scale, "weightZeroUnused": engine.weight_zero_unused})

    app = web.Application()
    app.add_routes([web.get("/target-health", target_health), web.get("/status", status), web.post("/faults", faults)])
    return app
