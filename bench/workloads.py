"""Numbers of the bench: drain settings, load, and how much a run has to show."""

from __future__ import annotations

from typing import Any

from bench.load import LONG, ORDER, PAGE, Stream
from infra.timeouts import DrainBudget, DrainInputs

PROPAGATION_SECONDS = 15
"""The short budget's propagation. Controller lag, health interval and metric minutes don't scale and stay real."""
APP_DRAIN_SECONDS = 10
LONGEST_REQUEST_SECONDS = 8
CONTROLLER_LAG_SECONDS = 25
STEADY_SECONDS = 20.0
"""Quiet time before an action, to compare with."""
SETTLED_SECONDS = 300
"""Longest wait, once the release tool is done, until nothing moves and no request fails any more."""
RECKONING_SECONDS = 5.0
"""Begin of the quiet time, which doesn't count: the clients wait while their process evaluates the scenario before."""
DELAY_RATIOS = (0.25, 0.5, 1.0, 2.0, 3.0)
"""Points of the curve: real delay of the load balancer ÷ the propagation that the budget allows for."""

SHORT_MIX = (
    Stream("page, kept alive", 7.0, contains=PAGE),
    Stream("page, fresh", 2.0, fresh=True, contains=PAGE),
    Stream("order", 2.0, path="/orders", order=True, expected=201, contains=ORDER),
    Stream("long", 1.0, path=f"/slow?seconds={LONGEST_REQUEST_SECONDS}", contains=LONG),
)

SHORT_INPUTS = DrainInputs(
    app_drain_seconds=APP_DRAIN_SECONDS,
    longest_request_seconds=LONGEST_REQUEST_SECONDS,
    propagation_seconds=PROPAGATION_SECONDS,
    controller_lag_seconds=CONTROLLER_LAG_SECONDS,
)
SHORT_BUDGET = DrainBudget.derive(SHORT_INPUTS)
SHORT_SETTINGS: dict[str, Any] = {
    "shopcat:drain": {
        "appDrain": SHORT_INPUTS.app_drain_seconds,
        "longestRequest": SHORT_INPUTS.longest_request_seconds,
        "propagation": SHORT_INPUTS.propagation_seconds,
        "controllerLag": SHORT_INPUTS.controller_lag_seconds,
        "appKeepAlive": SHORT_INPUTS.app_keep_alive_seconds,
    },
    "shopcat:release": {
        "replicas": 2,
        "cpu": "200m",
        "memory": "384Mi",
        "env": {"APP_DRAIN_SECONDS": str(APP_DRAIN_SECONDS)},
    },
}
