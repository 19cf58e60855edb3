"""The Pulumi program's entry: settings from the stack, one clear message for whatever is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pulumi

from infra import engine, settings, stack_file
from infra.backends import PRODUCTION
from infra.errors import Refused
from infra.providers import own_fields

NAMESPACE = "shopcat"
PREVIEW_SETTINGS = Path(__file__).resolve().parent.parent / "Pulumi.pr.yaml"


def stack_values() -> dict[str, Any]:
    """The stack's settings as plain values; maps and lists come as JSON from the engine."""
    found = all_values()
    return {key.partition(":")[2]: value for key, value in found.items() if key.startswith(f"{NAMESPACE}:")}


def all_values() -> dict[str, Any]:
    """Every setting of the stack, keys with their namespace."""
    return {key: stack_file.plain(text) for key, text in pulumi.runtime.config.get_config_env().items()}


def run() -> None:
    """Declare the stack.

    Raises:
        Refused: a person has to change something first.
    """
    engine.withhold_debug_messages()
    pulumi.runtime.register_stack_transformation(own_fields)
    engine.hear()  # of the stack: what is declared is only sent once its parent is known
    stack = pulumi.get_stack()
    if stack != PRODUCTION:
        from infra import preview

        number = preview.pull_request(stack)
        preview.Preview(number, *settings.read_preview(PREVIEW_SETTINGS, all_values())).export()
        return
    given = settings.read(stack_values())
    region = settings.check_region(pulumi.Config("aws").get("region"), "Pulumi.prod.yaml")
    from infra.production import Production

    production = Production(given, region, stack)
    production.export()
    production.seal()


def main() -> None:
    """Run; a refusal is one error without a traceback."""
    try:
        run()
    except Refused as error:
        raise pulumi.RunError(str(error)) from None
