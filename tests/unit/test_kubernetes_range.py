"""Which charts allow a Kubernetes version of EKS."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from infra.foundation.kubernetes_range import takes_kubernetes

numbers = st.integers(0, 4)
bounds = st.tuples(
    st.sampled_from([">=", ">", "<=", "<", "=", "!=", "~", "^", ""]),
    numbers,
    st.none() | numbers,
    st.none() | numbers,
    st.booleans(),
)
Bound = tuple[str, int, int | None, int | None, bool]


def text_of(bound: Bound) -> str:
    operator, major, minor, patch, is_pre = bound
    parts = [major, *([minor] if minor is not None else []), *([patch] if None not in (minor, patch) else [])]
    return f"{operator}{' ' if major % 2 else ''}{'.'.join(map(str, parts))}{'-0' if is_pre else ''}"


def span(bound: Bound) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """First version that a bound's own text covers, and the first after it."""
    _, major, minor, patch, _ = bound
    if minor is None:
        return (major, 0, 0), (major + 1, 0, 0)
    if patch is None:
        return (major, minor, 0), (major, minor + 1, 0)
    return (major, minor, patch), (major, minor, patch + 1)


def allows(bound: Bound, version: tuple[int, int, int]) -> bool:
    """Check one version that is a pre-release of `version`, among bounds that take pre-releases (Masterminds/semver v3)."""
    operator, major, minor, _, _ = bound
    first, after = span(bound)
    within = first <= version < after
    last = (major, minor + 1, 0) if operator == "~" and minor is not None else (major + 1, 0, 0)
    return {
        ">=": version >= first,
        ">": version >= after,
        "<=": version < after,
        "<": version < first,
        "!=": not within,
        "~": first <= version < last,
        "^": first <= version < (major + 1, 0, 0),
    }.get(operator, within)


@given(st.lists(st.lists(bounds, min_size=1, max_size=1), min_size=1, max_size=3), st.integers(1, 4), numbers)
@example([[(">=", 1, 3, 0, True)]], 1, 3)
def test_a_range_is_refused_exactly_if_no_version_of_the_minor_is_in_it(
    groups: list[list[Bound]], major: int, minor: int
) -> None:
    allowed = any(
        any(each[4] for each in group)
        and any(all(allows(each, (major, minor, patch)) for each in group) for patch in range(7))
        for group in groups
    )
    constraint = " || ".join(", ".join(text_of(each) for each in group) for group in groups)
    assert takes_kubernetes(constraint, f"{major}.{minor}") == allowed, constraint


@given(st.lists(bounds, min_size=1, max_size=3), st.integers(1, 4), numbers)
def test_bounds_together_are_refused_only_where_one_refuses_the_minor(
    group: list[Bound], major: int, minor: int
) -> None:
    each_holds = all(any(allows(each, (major, minor, patch)) for patch in range(7)) for each in group)
    takes = takes_kubernetes(" ".join(text_of(each) for each in group), f"{major}.{minor}")
    assert takes == (each_holds and any(each[4] for each in group))


@pytest.mark.parametrize(
    ("constraint", "takes"),
    [
        (">= 1.19.0-0", True),
        (">= 1.22.0-0", True),
        (">= 1.22.0", False),  # EKS's own are pre-releases to Helm
        (">= 1.36.0-0", False),
        (">=1.22.0-0 <1.35.0-0", False),
        (">=1.22.0-0, <=1.35.x-0", True),
        ("1.20 - 1.25", True),  # not read here: Helm says it
        ("*", True),
        ("anything", True),
    ],
)
def test_ranges_as_charts_write_them(constraint: str, takes: bool) -> None:  # noqa: FBT001
    assert takes_kubernetes(constraint, "1.35") is takes
