"""The Pulumi program's entry: settings from the stack, one clear message for whatever is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pulumi

from infra import settings
from infra.errors import ShopCatError
from infra.foundation.providers import own_fields
from infra.names import PRODUCTION_STACK
from infra.settings import stack_file

SETTINGS_NAMESPACE = "shopcat"
PREVIEW_SETTINGS = Path(__file__).resolve().parent.parent / "Pulumi.pr.yaml"


def stack_values() -> dict[str, Any]:
    """Return the stack's settings as plain values; maps and lists come as JSON from the engine."""
    return {
        key.partition(":")[2]: value for key, value in all_values().items() if key.startswith(f"{SETTINGS_NAMESPACE}:")
    }


def all_values() -> dict[str, Any]:
    """Return every setting of the stack, keys with their namespace."""
    return {key: stack_file.plain(text) for key, text in pulumi.runtime.config.get_config_env().items()}


def declare_stack() -> None:
    """Declare the stack.

    Raises:
        ShopCatError: a person has to change something first.
    """
    pulumi.runtime.register_stack_transformation(own_fields)
    stack = pulumi.get_stack()
    if stack != PRODUCTION_STACK:
        from infra.previews import preview

        number = preview.pull_request(stack)
        preview.Preview(number, *settings.read_preview(PREVIEW_SETTINGS, all_values())).export()
        return
    production_settings = settings.read_settings(stack_values())
    region = settings.check_region(pulumi.Config("aws").get("region"), "Pulumi.prod.yaml")
    from infra.production import Production

    production = Production(production_settings, region, stack)
    production.export()
    production.seal()


def main() -> None:
    """Run the program; a refusal is one error without a traceback."""
    try:
        declare_stack()
    except ShopCatError as error:
        raise pulumi.RunError(str(error)) from None
