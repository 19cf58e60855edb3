"""A release of ours against its floor, the least that it can take: both as bars, with what each part waits for."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from html import escape

from bench import steps
from bench.drawing.release import MEANINGS
from bench.ratios import floor_ratio, p99_ratio
from bench.schema import Document

FLOOR_MEANINGS = {
    "targets healthy": "health interval × threshold: the load balancer sends nothing to a target before",
    "canary": "the propagation of the drain budget: the time in which a weight reaches every node of the load balancer",
    "settle and two metric minutes": "CloudWatch has two whole minutes after the shift, as late as it had them in this run",
}
_SHORTEST_SHARE = 0.02


_WAITS = {"canary", "shift", *FLOOR_MEANINGS}
"""Parts that safety asks for; the others are work of Pulumi, Kubernetes and the image."""


def bar(parts: Sequence[tuple[str, float]], longest: float, classes: Sequence[str], goal: float = 0.0) -> str:
    """Return a bar of numbered parts, as long as its share of the longest.

    Args:
        parts: with their seconds.
        longest: seconds of the longest bar.
        classes: colours of the parts.
        goal: seconds at which a line stands; 0 for none.
    """
    line = f'<u style="left:{goal / longest:.1%}"></u>' if goal else ""
    pieces = "".join(
        f'<i style="width:{seconds / longest:.1%}" class="{css}">'
        f"{number if seconds / longest >= _SHORTEST_SHARE else ''}</i>"
        for number, ((_, seconds), css) in enumerate(zip(parts, classes, strict=True), start=1)
    )
    return f'<div class="bar" aria-hidden="true">{pieces}{line}</div>'


def parts_list(parts: Sequence[tuple[str, float]], meanings: dict[str, str]) -> str:
    """Return a bar's parts in words, numbered as in the bar."""
    items = "".join(
        f"<li><b>{escape(name)}</b> {seconds:.1f} s{': ' if name in meanings else ''}{escape(meanings.get(name, ''))}"
        for name, seconds in parts
    )
    return f'<ol class="steps">{items}</ol>'


def _classes(parts: Sequence[tuple[str, float]]) -> list[str]:
    return ["wait" if name in _WAITS else "work" for name, _ in parts]


def floor_html(document: Document) -> str:
    """Return the first release with a floor as two bars, and the ratios of all of them; empty if there is none."""
    releases = [release for release, _ in document.releases if release.floor]
    if not releases:
        return ""
    first, ratios = releases[0], [floor_ratio(release) for release in releases]
    measured = steps.parts(first.began, first.steps, first.ended)
    least = [(name, seconds) for name, seconds in first.floor]
    longest = max(first.ended - first.began, sum(seconds for _, seconds in least))
    every = f" All {len(ratios)} releases: median {statistics.median(ratios):.2f}, most {max(ratios):.2f}."
    return (
        f"<p>A release of {first.ended - first.began:.0f} s took <b>{ratios[0]:.2f} of its floor</b>."
        f"{every if len(ratios) > 1 else ''} p99 during a release ÷ p99 just before it"
        f"{', median of all' if len(ratios) > 1 else ''}: {p99_ratio(releases):.2f}.</p>"
        '<p class="legend"><span><i class="swatch wait"></i> waiting that safety asks for</span>'
        '<span><i class="swatch work"></i> work of Pulumi, Kubernetes and the image</span></p>'
        f"<h3>Measured: {first.ended - first.began:.0f} s</h3>"
        f"{bar(measured, longest, _classes(measured))}{parts_list(measured, MEANINGS)}"
        f"<h3>Floor: {sum(seconds for _, seconds in least):.0f} s, if Pulumi, Kubernetes and the image took no time</h3>"
        f"{bar(least, longest, _classes(least))}{parts_list(least, FLOOR_MEANINGS)}"
    )
