"""The load balancer's own numbers: how late it is, each with its source in parameters.yaml."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from twin.errors import TwinError

PARAMETERS_FILE = Path(__file__).with_name("parameters.yaml")


@dataclass(frozen=True)
class Delay:
    """A heavy-tailed delay in seconds: log-normal, cut at its maximum."""

    median: float
    sigma: float
    maximum: float

    def draw(self, source: random.Random, scale: float) -> float:
        """One delay, in seconds. The scale multiplies it after the cut, so that n-fold delays keep their shape."""
        return min(self.median * math.exp(self.sigma * source.gauss(0.0, 1.0)), self.maximum) * scale


@dataclass(frozen=True)
class Parameters:
    """The values of parameters.yaml; the comments there give each number's source."""

    seed: int
    delay_scale: float
    deregistration_seconds: Delay
    registration_seconds: Delay
    rules_seconds: Delay
    connect_timeout_seconds: float
    weight_zero_unused: bool
    metrics_delay_seconds: Delay
    poll_seconds: float
    slow_poll_seconds: float


def _delay(name: str, value: Any) -> Delay:
    if not isinstance(value, dict) or set(value) != {"median", "sigma", "maximum"}:
        message = f"{PARAMETERS_FILE.name}: {name} is {value!r}; {{median, sigma, maximum}} in seconds is expected"
        raise TwinError(message)
    return Delay(float(value["median"]), float(value["sigma"]), float(value["maximum"]))


def load(path: Path = PARAMETERS_FILE) -> Parameters:
    """Read the parameter file.

    Raises:
        TwinError: a key is missing or unknown, or a delay is not {median, sigma, maximum}.
    """
    document = yaml.safe_load(path.read_text())
    expected = set(Parameters.__dataclass_fields__)
    if not isinstance(document, dict) or set(document) != expected:
        keys = set(document) if isinstance(document, dict) else set()
        message = (
            f"{path}: missing {sorted(expected - keys) or 'nothing'}, unknown {sorted(keys - expected) or 'nothing'}"
        )
        raise TwinError(message)
    return Parameters(
        seed=int(document["seed"]),
        delay_scale=float(document["delay_scale"]),
        deregistration_seconds=_delay("deregistration_seconds", document["deregistration_seconds"]),
        registration_seconds=_delay("registration_seconds", document["registration_seconds"]),
        rules_seconds=_delay("rules_seconds", document["rules_seconds"]),
        connect_timeout_seconds=float(document["connect_timeout_seconds"]),
        weight_zero_unused=bool(document["weight_zero_unused"]),
        metrics_delay_seconds=_delay("metrics_delay_seconds", document["metrics_delay_seconds"]),
        poll_seconds=float(document["poll_seconds"]),
        slow_poll_seconds=float(document["slow_poll_seconds"]),
    )
