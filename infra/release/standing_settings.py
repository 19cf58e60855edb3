"""The settings that the platform stands by: those of the last update that ended well. A way back goes by them.

Each update keeps its settings as a secret output of the stack once all that it declares stands. So an abort or a rollback
neither makes, replaces nor deletes what was merged into the settings meanwhile. After an update that broke off, these are the
settings of before it: what it had made anew goes once the way back is done, and comes with the next update. `pulumi up --target`
keeps the settings too, although it leaves things out.
"""

from __future__ import annotations

import json
from typing import Any

import pulumi

from infra.errors import PreflightError, ShopCatError
from infra.settings import Settings, read_settings

OUTPUT = "standingSettings"
_OF_THE_RUN = {
    *("tag", "abort", "rollback", "rotate", "accept_unserved", "hold_traffic", "rebuild_state"),
    *("aws_endpoint", "ledger_table"),
}
"""Fields that each update sets for itself: what it is asked to do, and where it finds AWS and the ledger."""


def keep(settings: Settings) -> str:
    """Return the text that an update keeps once it has ended well."""
    return json.dumps(_values(settings, exclude=_OF_THE_RUN), sort_keys=True)


def of_way_back(settings: Settings, kept: str) -> Settings:
    """Return the settings of a way back: what was kept, and of the present ones what is of the run alone.

    The access to an existing cluster is the present one too: what was kept may have expired.

    Raises:
        ShopCatError: nothing was kept, or this program can't read it any more.
    """
    if not kept:
        raise ShopCatError("no update has kept its settings yet")
    try:
        values = {**json.loads(kept), **_values(settings, include=_OF_THE_RUN)}
    except (TypeError, ValueError) as error:
        raise ShopCatError(f"what the last update kept is no map of settings: {error}") from error
    standing = read_settings(values)
    if not (standing.cluster.existing and settings.cluster.existing):
        return standing
    values["cluster"]["existing"]["kubeconfig"] = settings.cluster.existing.kubeconfig
    return read_settings(values)


def read_kept(stack: str) -> str:
    """Ask the engine for the text that the last update that ended well has kept; empty if none has.

    Raises:
        PreflightError: it doesn't say so.
    """
    name = f"{pulumi.get_organization()}/{pulumi.get_project()}/{stack}"
    try:
        answer = pulumi.runtime.invoke("pulumi:pulumi:readStackOutputs", {"name": name}).value
        return str((answer["outputs"] or {}).get(OUTPUT) or "")
    except Exception as error:  # the SDK raises no narrower one
        raise PreflightError(f"the outputs of {name} can't be read: {error}") from error


def _values(settings: Settings, **chosen: Any) -> dict[str, Any]:
    """Return the chosen fields as they stand in the stack's file; those that nobody set are left out."""
    return settings.model_dump(mode="json", by_alias=True, exclude_unset=True, **chosen)
