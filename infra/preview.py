"""Preview stacks `pr-<n>`: their names."""

from __future__ import annotations

import re

from infra.errors import Refused

PRODUCTION = "prod"
_PREVIEW = re.compile(r"pr-([1-9][0-9]{0,8})")


def pull_request(stack: str) -> int | None:
    """The pull request of a preview stack; None for production.

    Raises:
        Refused: the stack is neither.
    """
    if stack == PRODUCTION:
        return None
    match = _PREVIEW.fullmatch(stack)
    if match is None:
        raise Refused(
            f"stack {stack!r}: this project has the stack prod and, for pull request <n>, pr-<n> (pr-123); remove it "
            f"with `pulumi stack rm {stack}`"
        )
    return int(match[1])
