"""The system images as a part of the twin: pushed to the plain registry.

Both nodes find them there under the paths of the public registries they stand in for.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from twin.build.image_layers import (
    BASE_IMAGE,
    COREDNS_IMAGE,
    EXTERNAL_SECRETS_IMAGE,
    PAUSE_IMAGE,
    TOOL_IMAGES,
    Recipe,
    recipes,
    split_reference,
)
from twin.config import PartStatus, Twin
from twin.errors import TwinError
from twin.images.registry_client import digest, push_recipe


def up(twin: Twin) -> None:
    """Push every system image that the registry lacks or has from another recipe."""
    record = twin.directory / "system-images.json"
    pushed: dict[str, str] = json.loads(record.read_text()) if record.exists() else {}

    def push_one(recipe: Recipe) -> None:
        image = f"{recipe.repository}:{recipe.tag}"
        if pushed.get(image) != str(recipe.layer) or _missing(twin, [image]):
            push_recipe(twin, recipe)
            pushed[image] = str(recipe.layer)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(push_one, recipes(twin)))
    record.write_text(json.dumps(pushed, indent=2) + "\n")


def down(twin: Twin) -> None:
    """Do nothing: the images go with the registry's folder."""


def _missing(twin: Twin, images: Iterable[str]) -> list[str]:
    missing = []
    for image in images:
        repository, tag = split_reference(image)
        try:
            digest(twin, repository, tag)
        except TwinError:
            missing.append(image)
    return missing


def status(twin: Twin) -> list[PartStatus]:
    """Report the system images that the registry lacks."""
    if twin.simulated:
        return [PartStatus("images", ok=True, detail="none: simulated nodes pull nothing")]
    missing = _missing(twin, (PAUSE_IMAGE, COREDNS_IMAGE, EXTERNAL_SECRETS_IMAGE, BASE_IMAGE, *TOOL_IMAGES))
    return [PartStatus("images", ok=not missing, detail=f"missing: {', '.join(missing)}" if missing else "pushed")]
