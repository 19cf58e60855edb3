"""The Pulumi program's entry: settings from the stack, one clear message for whatever is refused."""

from __future__ import annotations

import json
from typing import Any

import pulumi

from infra import preview, settings
from infra.errors import Refused

NAMESPACE = "shopcat"


def stack_values() -> dict[str, Any]:
    """The stack's settings as plain values; maps and lists come as JSON from the engine."""
    values: dict[str, Any] = {}
    for key, text in pulumi.runtime.config.get_config_env().items():
        namespace, _, name = key.partition(":")
        if namespace == NAMESPACE:
            values[name] = _plain(text)
    return values


def _plain(text: str) -> Any:
    if text[:1] in "{[":
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text


def run() -> None:
    """Declare the stack.

    Raises:
        Refused: a person has to change something first.
    """
    stack = pulumi.get_stack()
    number = preview.pull_request(stack)
    if number is not None:
        raise Refused(f"stack {stack}: previews are not built yet; only prod is")
    given = settings.read(stack_values())
    region = pulumi.Config("aws").get("region")
    if not region:
        raise Refused("aws:region is not set; `pulumi config set aws:region eu-central-1` or the region of your choice")
    from infra.production import Production

    Production(given, region, stack).export()


def main() -> None:
    """Run; a refusal is one error without a traceback."""
    try:
        run()
    except Refused as error:
        raise pulumi.RunError(str(error)) from None
