"""Report on opening as many previews as fit: the trend of their times, the verdict on the run, and the page.

``python -m bench.previews_report`` draws docs/previews.md again from docs/previews.json, without a run.
"""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from bench.figures import as_text, measurement_of
from bench.measurements import Measurement
from infra import capacity
from pipeline.steps import BUDGET_SECONDS
from twin.paths import REPOSITORY
from twin.scenarios import leftovers

PUBLISHED = REPOSITORY / "docs" / "previews.json"
OPENED, UPDATED, CLOSED = "opened", "updated", "closed"
QUIET, BUSY = "quiet", "beside releases"
UP = "pulumi up"
MAX_TREND = 0.10
FLATNESS = (
    "Alone, all of them are opened several times, each of the load balancer's delays being its worst; what stands here is the "
    "median for each place. Flat is judged by the Theil-Sen slope: the median of the slopes between every two places, times "
    "the steps from the first to the last, relative to the median opening. It uses every place, and up to a quarter of them "
    "may be off (the first is cold, the machine has other work) without moving it much; one that is off moves a difference of "
    "first and last, or a line of least squares."
)


@dataclass(frozen=True)
class Operation:
    """Something done to one preview by the pipeline's script; times in seconds since the epoch."""

    what: str
    """OPENED, UPDATED or CLOSED."""
    number: int
    phase: str
    """QUIET or BUSY."""
    began: float
    ended: float
    steps: Mapping[str, float]
    """The script's own steps and their seconds."""

    @property
    def seconds(self) -> float:
        """Seconds from the push to an answering URL, or from the close to nothing left."""
        return self.ended - self.began


@dataclass(frozen=True)
class Result:
    """Everything that the page is made of."""

    places: int
    """Previews that fit, by production's contract."""
    arithmetic: str
    room: Sequence[tuple[str, int, int, int, int]]
    """Resource, how much there is, what a full release takes, these previews, and what one more would make of them."""
    operations: Sequence[Operation]
    changes: Sequence[Measurement]
    """Releases and rollbacks of production during the run."""
    requests: int
    failed: int
    by_failure: Mapping[str, int]
    disagreements: Sequence[str]
    orders_wrong: Sequence[str]
    refusal: str
    """Message to the preview that was one too many; empty if it was let in."""
    left_by_refused: Mapping[str, Sequence[str]]
    stale: Sequence[str]
    """Previews that don't serve the commit they were updated to."""
    left: Mapping[str, Sequence[str]]
    new_objects: Sequence[str]
    """Cluster-scoped objects that were not there before the first preview."""
    seconds: float
    date: str = field(default_factory=lambda: time.strftime("%Y-%m-%d", time.gmtime()))
    cores: int = field(default_factory=lambda: os.cpu_count() or 1)
    leftover_kinds: Sequence[str] = leftovers.LEFTOVER_KINDS
    """Kinds of things that were looked for at the end."""

    def of(self, what: str, phase: str) -> list[Operation]:
        """Return the operations of one kind, in their order."""
        return sorted(
            (each for each in self.operations if (each.what, each.phase) == (what, phase)), key=lambda each: each.began
        )


def room(plan: capacity.CapacityPlan, production: capacity.ProductionDemand) -> list[tuple[str, int, int, int, int]]:
    """Return per resource how much there is, what a full release takes, its previews, and what one more would make of them.

    With the previews counts one application pod more, for the one that is being updated (infra/capacity.py).
    """
    application, database = capacity.PREVIEW_APPLICATION, capacity.PREVIEW_DATABASE
    node, nodes = production.node, capacity.NODES
    rows = [
        ("pod slots", node.pod_slots, plan.pods, 2, 1),
        (
            "millicores",
            node.cpu_millicores,
            plan.cpu_millicores,
            application.cpu_millicores + database.cpu_millicores,
            application.cpu_millicores,
        ),
        (
            "MiB",
            node.memory_mebibytes,
            plan.memory_mebibytes,
            application.memory_mebibytes + database.memory_mebibytes,
            application.memory_mebibytes,
        ),
    ]
    return [
        (title, nodes * total, release, plan.previews * each + surge, (plan.previews + 1) * each + surge)
        for title, total, release, each, surge in rows
    ]


# --- flatness


def slope(values: Sequence[float]) -> float:
    """Return the Theil-Sen slope: the median of the slopes between every two of them; 0 of fewer than two."""
    slopes = [(later - earlier) / (j - i) for (i, earlier), (j, later) in combinations(enumerate(values), 2)]
    return statistics.median(slopes) if slopes else 0.0


def trend(values: Sequence[float]) -> float:
    """Return how much longer the last takes than the first, by the slope, as a share of the median: 0.05 is five per cent."""
    middle = statistics.median(values) if values else 0.0
    return slope(values) * (len(values) - 1) / middle if middle else 0.0


def scatter(values: Sequence[float]) -> float:
    """Return the median distance from the median, as a share of it: what this machine's other work adds."""
    middle = statistics.median(values) if values else 0.0
    return statistics.median(abs(value - middle) for value in values) / middle if middle else 0.0


def by_place(result: Result, what: str, phase: str, *, only_up: bool = False) -> dict[int, float]:
    """Map preview's number to seconds, from the first to the last that fits; the median if it was done several times.

    ``only_up`` counts `pulumi up` alone, not the whole way.
    """
    seconds: dict[int, list[float]] = {}
    for operation in result.of(what, phase):
        seconds.setdefault(operation.number, []).append(operation.steps[UP] if only_up else operation.seconds)
    return {number: statistics.median(seconds[number]) for number in sorted(seconds)}


def up_seconds(result: Result, phase: str) -> list[float]:
    """Return the seconds of `pulumi up` of an opening, for each place."""
    return list(by_place(result, OPENED, phase, only_up=True).values())


def whole_way_trend(result: Result) -> float:
    """Return the trend of the openings alone, from push to answering URL."""
    return trend(list(by_place(result, OPENED, QUIET).values()))


# --- what it proves


def beside(operation: Operation, changes: Sequence[Measurement]) -> list[str]:
    """List the changes of production during an operation."""
    return [
        change.scenario for change in changes if change.began <= operation.ended and operation.began <= change.ended
    ]


def problems(result: Result) -> list[str]:
    """List why this run proves nothing; empty when it proves what it should."""
    messages = [f"client and load balancer disagree: {disagreement}" for disagreement in result.disagreements[:5]]
    messages += [f"acknowledged order not stored exactly once: {key}" for key in result.orders_wrong[:5]]
    if result.failed or not result.requests:
        messages.append(f"{result.failed} of {result.requests} production requests failed: {dict(result.by_failure)}")
    for what, phase in ((OPENED, QUIET), (OPENED, BUSY), (UPDATED, BUSY), (CLOSED, QUIET), (CLOSED, BUSY)):
        done = result.of(what, phase)
        if len({operation.number for operation in done}) != result.places:
            messages.append(f"{what}, {phase}: {len(done)} previews of the {result.places} that fit")
        if phase == BUSY and done and not any(beside(operation, result.changes) for operation in done):
            messages.append(f"{what}, {phase}: production stood still meanwhile")
    if not any(step.name == "live" for change in result.changes for step in change.steps):
        messages.append("no release of production went live meanwhile")
    late = [each for each in result.operations if each.what != CLOSED and each.seconds > BUDGET_SECONDS]
    messages += [
        f"pr-{each.number} {each.what} after {each.seconds:.0f} s; {BUDGET_SECONDS} are allowed" for each in late
    ]
    messages += _refusal_problems(result)
    messages += [f"{preview} does not serve the commit it was updated to" for preview in result.stale]
    messages += [f"left of previews: {kind}: {', '.join(values)}" for kind, values in result.left.items()]
    messages += [f"left of previews: {name}" for name in result.new_objects]
    drift = trend(up_seconds(result, QUIET))
    if abs(drift) > MAX_TREND:
        messages.append(
            f"`pulumi up` of a preview changes by {drift:+.0%} from the first to the last; {MAX_TREND:.0%} is flat"
        )
    return messages


def _refusal_problems(result: Result) -> list[str]:
    if not result.refusal:
        return [f"pr-{result.places + 1}, one too many, was not refused"]
    messages = []
    if f"{result.places} previews fit" not in result.refusal:
        messages.append(f"one too many was refused for another reason: {result.refusal[-500:]}")
    unnamed = [f"pr-{n}" for n in range(1, result.places + 1) if f"pr-{n}, open for" not in result.refusal]
    if unnamed:
        messages.append(f"the refusal does not name {', '.join(unnamed)}, which are open")
    messages += [
        f"left by the refused one: {kind}: {', '.join(names)}" for kind, names in result.left_by_refused.items()
    ]
    return messages


# --- what it says


def raw(result: Result) -> dict[str, Any]:
    """Return the raw figures as the JSON file holds them."""
    quiet, busy = up_seconds(result, QUIET), up_seconds(result, BUSY)
    return {
        "seconds": round(result.seconds, 1),
        "date": result.date,
        "cores": result.cores,
        "places": result.places,
        "arithmetic": result.arithmetic,
        "room": [list(row) for row in result.room],
        "trend": {
            QUIET: round(trend(quiet), 4),
            "quiet, push to URL": round(whole_way_trend(result), 4),
            BUSY: round(trend(busy), 4),
        },
        "scatter": {QUIET: round(scatter(quiet), 4), BUSY: round(scatter(busy), 4)},
        "operations": [
            {**dataclasses.asdict(operation), "beside": beside(operation, result.changes)}
            for operation in sorted(result.operations, key=lambda each: each.began)
        ],
        "changes": [dataclasses.asdict(change) for change in result.changes],
        "requests": result.requests,
        "failed": result.failed,
        "byFailure": dict(result.by_failure),
        "disagreements": list(result.disagreements),
        "ordersLostOrDoubled": list(result.orders_wrong),
        "refusal": result.refusal,
        "leftByRefused": dict(result.left_by_refused),
        "stale": list(result.stale),
        "left": dict(result.left),
        "leftoverKinds": list(result.leftover_kinds),
        "newClusterScopedObjects": list(result.new_objects),
        "problems": problems(result),
    }


def read(document: Mapping[str, Any]) -> Result:
    """Read the raw figures back."""
    operations = [
        Operation(**{name: value for name, value in entry.items() if name != "beside"})
        for entry in document["operations"]
    ]
    return Result(
        places=document["places"],
        arithmetic=document["arithmetic"],
        room=document["room"],
        operations=operations,
        changes=[measurement_of(entry) for entry in document["changes"]],
        requests=document["requests"],
        failed=document["failed"],
        by_failure=document["byFailure"],
        disagreements=document["disagreements"],
        orders_wrong=document["ordersLostOrDoubled"],
        refusal=document["refusal"],
        left_by_refused=document["leftByRefused"],
        stale=document["stale"],
        left=document["left"],
        new_objects=document["newClusterScopedObjects"],
        seconds=document["seconds"],
        date=document["date"],
        cores=document["cores"],
        leftover_kinds=document["leftoverKinds"],
    )


def table(result: Result) -> str:
    """Return a table with a row for each preview: its seconds, alone and beside releases."""
    columns = [
        ("quiet: `pulumi up`", OPENED, QUIET, True),
        ("quiet: push → answering URL", OPENED, QUIET, False),
        ("beside releases: `pulumi up`", OPENED, BUSY, True),
        ("beside releases: push → answering URL", OPENED, BUSY, False),
        ("next commit → answering URL", UPDATED, BUSY, False),
        ("close → nothing left", CLOSED, BUSY, False),
    ]
    lines = [f"| preview | {' | '.join(title for title, *_ in columns)} |", f"|---|{'---:|' * len(columns)}"]
    cells_by_column = [by_place(result, what, phase, only_up=only_up) for _, what, phase, only_up in columns]
    for number in range(1, result.places + 1):
        cells = [f"{column[number]:.1f}" if number in column else "" for column in cells_by_column]
        lines.append(f"| {number} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _changes(result: Result) -> str:
    lines = ["| production meanwhile | took, s | requests | failed |", "|---|---:|---:|---:|"]
    lines += [
        f"| {each.scenario} | {each.ended - each.began:.0f} | {each.requests} | {each.failed} |"
        for each in result.changes
    ]
    return "\n".join(lines)


def _room(result: Result) -> str:
    head = f"{result.places} previews, one being updated"
    lines = [
        f"| | there are | a full release | left | {head} | {result.places + 1} previews |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {title} | {total} | {release} | {total - release} | {taken} | {more} |"
        for title, total, release, taken, more in result.room
    ]
    return "\n".join(lines)


def _median(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.1f}" if values else "none"


def _listed(left: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{kind}: {', '.join(values)}" for kind, values in left.items()) or "Nothing"


def page(result: Result) -> str:
    """Return the page as Markdown."""
    quiet, busy = up_seconds(result, QUIET), up_seconds(result, BUSY)
    verdict = "".join(f"- {problem}\n" for problem in problems(result))
    nothing = f"**This run proves nothing:**\n\n{verdict}\n" if verdict else ""
    return f"""# As many previews as fit

Made by `make bench-previews` on the twin, not on AWS; nothing here is typed. {result.cores} cores,
{result.date}, {result.seconds / 60:.0f} minutes. Previews are opened, updated and closed by the
pipeline's own scripts (`make pr`), with real pods. Drain numbers of production and previews are the bench's short ones.

{nothing}## How many

By production's contract {result.places}: {result.arithmetic}.

{_room(result)}

## Requests to production

{result.requests} requests, **{result.failed} failed**. The clients' and the load balancers' logs agree on every one
({len(result.disagreements)} exceptions); every acknowledged order is in PostgreSQL exactly once
({len(result.orders_wrong)} exceptions). What production did while previews were opened, updated and closed:

{_changes(result)}

## Seconds

{table(result)}

{FLATNESS}

Alone, from the first to the last that fits, `pulumi up` changes by **{trend(quiet):+.1%}** (flat is ± {MAX_TREND:.0%};
median {_median(quiet)} s, median distance from it {scatter(quiet):.1%}), the whole way from push to answering URL by
{whole_way_trend(result):+.1%}. Beside releases, where nothing is judged, `pulumi up` changes
by {trend(busy):+.1%} (median {_median(busy)} s, {scatter(busy):.1%}).

## One too many

pr-{result.places + 1} was told:

````
{result.refusal.strip()}
````

{_listed(result.left_by_refused)} was left of it, both at once and when it was closed.

## Left over at the end

{_listed(result.left)}. Looked for, of any preview:
{", ".join(result.leftover_kinds)}; and cluster-scoped objects that were not there before ({len(result.new_objects)}).
"""


def write(result: Result, directory: Path, name: str) -> None:
    """Write the JSON and the page."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{name}.json").write_text(as_text(raw(result)))
    (directory / f"{name}.md").write_text(page(result))


def main() -> int:
    """Draw the page beside the committed figures."""
    PUBLISHED.with_suffix(".md").write_text(page(read(json.loads(PUBLISHED.read_text()))))
    print(PUBLISHED.with_suffix(".md"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
