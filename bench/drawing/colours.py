"""Signs of the systems: a colour of Okabe and Ito's, which the colour-blind tell apart, and a sign for those who see none."""

from __future__ import annotations

from collections.abc import Sequence

_SIGNS = {
    "legacy": ("y-legacy", "■"),
    "rolling": ("y-rolling", "◆"),
    "patched": ("y-patched", "▲"),
    "argo-canary": ("y-canary", "●"),
    "argo-bluegreen": ("y-bluegreen", "✚"),
    "ours": ("y-ours", "★"),
}
_OTHERS = (("y-other", "▼"), ("y-other", "◐"), ("y-other", "◇"))


def signs(systems: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Give each system the class of its colour, and its sign."""
    others = iter(_OTHERS * len(systems))
    return {system: _SIGNS.get(system) or next(others) for system in systems}
