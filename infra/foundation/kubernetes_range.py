"""Compare a chart's `kubeVersion` with the settings' version of Kubernetes, which Helm does in the middle of an update only."""

from __future__ import annotations

import re

_BOUND = re.compile(
    r"\s*(=|!=|>=|=>|<=|=<|>|<|~>?|\^)?\s*v?(\d+)(?:\.(\d+|[xX*]))?(?:\.(\d+|[xX*]))?(-[0-9A-Za-z.-]+)?"
)


def takes_kubernetes(constraint: str, minor: str) -> bool:
    """Return whether a chart's kubeVersion allows EKS's versions of a Kubernetes minor version; True where that is not known.

    Helm compares with the version as the cluster gives it, and refuses in the middle of an update. EKS's (v1.35.4-eks-…) is a
    pre-release, which only bounds allow of which one is a pre-release too: `>= 1.22.0-0`. What follows the minor version in it
    is not known here, so a bound within that minor version is one that holds (github.com/Masterminds/semver v3).
    """
    return any(_group_holds(group, minor) for group in constraint.split("||"))


def _group_holds(group: str, minor: str) -> bool:
    bounds = list(_BOUND.finditer(group))
    if not bounds or _BOUND.sub("", group).strip(" ,"):
        return True  # a form that is not read here, such as `1.2 - 1.5`
    return any(bound[5] for bound in bounds) and all(_is_within(bound, minor) for bound in bounds)


def _is_within(bound: re.Match[str], minor: str) -> bool:
    """Check that some patch of a minor version lies within a bound; `=` and `~` ask for that minor version itself."""
    operator, major, second, patch = bound[1] or "=", int(bound[2]), bound[3] or "x", bound[4] or "x"
    own_major, own_minor = (int(part) for part in minor.split("."))
    is_any_minor = not second.isdigit()
    own, limit = ((own_major,), (major,)) if is_any_minor else ((own_major, own_minor), (major, int(second)))
    is_whole = is_any_minor or not patch.isdigit()
    return {
        "^": own_major == major and own >= limit,
        "!=": own != limit or not is_whole,
        ">=": own >= limit,
        "=>": own >= limit,
        "<=": own <= limit,
        "=<": own <= limit,
        ">": own > limit or (own == limit and not is_whole),
        "<": own < limit or (own == limit and not is_whole and patch != "0"),
    }.get(operator, own == limit)
