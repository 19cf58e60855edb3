"""A way back changes the release and nothing else: what the settings change of the platform is left to the next update.

An abort or a rollback comes when users are badly served, often with GitHub's release role, which may not change the platform, and
with settings into which other changes were merged meanwhile: new nodes, a larger database, an alarm. So:

* It goes by the settings of the last update that ended well (standing_settings.py).
* What is there keeps its inputs even so: an update may have broken off since then, and this program may be a newer one
  (`leave_platform`).
* A check of what an ordinary update would change refuses nothing; it is told (`Leniency`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import pulumi

from infra.errors import ShopCatError
from infra.release.blue_green import COMPONENT_TYPE

if TYPE_CHECKING:
    from collections.abc import Callable

Checked = TypeVar("Checked")
NOTE = (
    "a way back leaves the platform as it is; whatever else the settings change is made by the next `pulumi up -s prod`"
)
_ADMISSION = "kubernetes:admissionregistration.k8s.io/"
"""Begin of the types of admission policies. They follow the settings even so: a way back makes Jobs of their images."""


async def leave_platform(args: pulumi.ResourceTransformArgs) -> pulumi.ResourceTransformResult | None:
    """Let a resource that is there keep its inputs, unless it is a release's."""
    if not args.custom or args.type_.startswith(("pulumi:providers:", _ADMISSION)):
        return None
    # The SDK gives each resource a trigger here, an empty one mostly, and can't return any (infra/foundation/state_rebuild.py).
    # Who has one sees to itself.
    trigger: Any = args.opts.replacement_trigger
    if trigger is not None and trigger.WhichOneof("kind"):
        return None
    args.opts.replacement_trigger = None
    parent = str(await args.opts.parent.urn.future()) if args.opts.parent else ""
    if COMPONENT_TYPE in parent:
        return None
    return pulumi.ResourceTransformResult(
        args.props, pulumi.ResourceOptions.merge(args.opts, pulumi.ResourceOptions(ignore_changes=["*"]))
    )


class Leniency:
    """Runs checks of what an update would change of the platform; on a way back a refusal is a note."""

    def __init__(self, *, is_way_back: bool) -> None:
        self._is_way_back = is_way_back
        self.notes: list[str] = [NOTE] if is_way_back else []

    def judge(self, check: Callable[[], Checked]) -> Checked | None:
        """Return what the check returns; `None` where a way back went on in spite of it.

        Raises:
            ShopCatError: the check refuses, and this is no way back.
        """
        try:
            return check()
        except ShopCatError as error:
            if not self._is_way_back:
                raise
            self.notes.append(f"left to the next `pulumi up -s prod`: {error}")
            return None
