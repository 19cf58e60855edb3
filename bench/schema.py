"""Schema of docs/bench.json, the one file that docs/bench.html is drawn from; the docstrings are its documentation.

Names in the file are the names here. A name that is not here is refused, so that a misspelt figure can't be lost in silence.
Seconds are seconds, moments are seconds since the epoch unless they are called seconds since something. The second kind of file,
docs/bench-full.json, holds a run's figures alone (``bench.figures.figures``) and is read as a document with only ``short``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from bench import accidents, steps
from bench.figures import BUCKET_SECONDS, FAILED, measurements_of
from bench.measurements import Measurement
from bench.workloads import SETTLED_SECONDS

SCHEMA: Final = 2
"""Number of this schema; it grows when a name is taken away or means something else."""

Outcome = accidents.Outcome | Literal["unsupported"]
"""Outcome of a release: one of :data:`bench.accidents.Outcome`, or ``unsupported`` where the system has no documented way to do
this and nothing was run."""
QUIET = "nothing"
"""Accident that is none: a release on a quiet day."""
CURVE = "eviction"
"""Scenario of a run's figures whose measurements are points of the curve."""
_EPOCH_SECONDS = 1e9
"""Moments since the epoch are greater than this, seconds since something are less."""


def time_to_rest(settled_seconds: float, *, given_up: bool) -> str:
    """Return the seconds until a release was at rest, or that nobody waited any longer, as words."""
    return f"given up after {SETTLED_SECONDS} s" if given_up else f"{settled_seconds:.0f} s"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Series(_Record):
    """Requests of one kind over time, by when they were due."""

    first: float
    """Begin of the first bucket."""
    counts: Sequence[int]
    """Requests of each ``bench.figures.BUCKET_SECONDS`` from then."""

    @property
    def end(self) -> float:
        """Return the end of the last bucket."""
        return self.first + len(self.counts) * BUCKET_SECONDS


AllSeries = Mapping[str, Series]
"""By kind: a release's tag, a colour, ``answered`` where neither is known, or ``failed``."""


class Mark(_Record):
    """Something that happened, drawn as an upright line."""

    at: float
    """Seconds since the begin of the release, or of the undoing; or a moment."""
    text: str
    """Two or three words."""

    def moment(self, began: float) -> float:
        """Return when it happened."""
        return self.at if self.at > _EPOCH_SECONDS else began + self.at


class Step(_Record):
    """Begin of one step of a release of this program, by the names of ``bench.steps``."""

    at: float
    name: str


class Histogram(_Record):
    """Latencies in buckets that grow by a constant factor."""

    first: float
    """Lower bound of the first bucket, in seconds."""
    ratio: float
    """Upper bound ÷ lower bound of each bucket; ``bench.histogram`` counts so."""
    counts: Sequence[int]


class Latency(_Record):
    """Latency of the short requests that went well, from when each was due, in seconds."""

    p50: float
    p90: float
    p99: float
    p999: float
    histogram: Histogram | None = None


class Run(_Record):
    """One of several runs of the same cell."""

    sent: int
    failed: int
    settled_seconds: float
    given_up: bool = False
    """Nobody waited for this run to come to rest any longer (``Cell.given_up``)."""
    outcome: Outcome

    @property
    def rest(self) -> str:
        """Return how long it took until it was at rest, as words."""
        return time_to_rest(self.settled_seconds, given_up=self.given_up)


class Cell(_Record):
    """One system in one accident: every request that was due from the begin of the release until nothing moved any more."""

    system: str
    accident: str
    sent: int = 0
    failed: int = 0
    by_failure: Mapping[str, int] = {}
    """Failed requests by kind: connect, tls, reset, closed, timeout, malformed, wrong-body, or http-<status>."""
    seconds: float = 0.0
    """From the begin of the release until its tool, or its controller, was done."""
    settled_seconds: float = 0.0
    """From the begin of the release until no pod started or left, and no request failed, any more."""
    given_up: bool = False
    """Nobody waited for that any longer: ``bench.workloads.SETTLED_SECONDS`` after the tool was done it still was not so."""
    outcome: Outcome
    detail: str = ""
    """The system's own account of its state at the end."""
    reason: str = ""
    """Why this can't be done (``unsupported``), or why requests are expected to fail."""
    at: str = ""
    """Day of the run, as 2026-11-29."""
    fingerprint: str = ""
    """Hash of the accident, the numbers, the configuration, and the files that decide the system, the application and the load
    (``bench.fingerprints``). A run replaces a cell with another one; a report alone keeps it, and names it in ``stale``."""
    contradictions: Sequence[str] = ()
    """Requests that clients and load balancer saw differently, and acknowledged orders not stored once: the first few."""
    runs: Sequence[Run] = ()
    """Every run; the worst of them is the cell."""
    began: float = 0.0
    """Begin of the release."""
    series: AllSeries = {}
    marks: Sequence[Mark] = ()
    latency: Mapping[str, Latency] = {}
    """By phase: ``before`` the release, ``during`` it (until its tool was done), and ``after``."""
    steps: Sequence[Step] = ()
    """Steps of this program that were reached."""
    floor: Sequence[tuple[str, float]] = ()
    """Parts of the least that this release can take, with their seconds: ``bench.steps.floor``."""

    @property
    def rest(self) -> str:
        """Return how long it took until it was at rest, as words."""
        return time_to_rest(self.settled_seconds, given_up=self.given_up)

    @property
    def every_run(self) -> Sequence[Run]:
        """Return every run; the cell's own figures if it lists none."""
        figures = self.model_dump(include=set(Run.model_fields))
        return self.runs or [Run(**figures)]


class UndoStep(_Record):
    """One step on the way back."""

    name: str
    seconds: float


class Undo(_Record):
    """A system's fastest documented way back, from "the live release answers 500" to "the last request failed"."""

    system: str
    seconds: float = 0.0
    """From the one to the other."""
    failed: int = 0
    sent: int = 0
    steps: Sequence[UndoStep] = ()
    """In their order; those that come after the last failed request too."""
    reason: str = ""
    """Why there is no such way; nothing was run then."""
    began: float = 0.0
    """When the live release answered 500 for the first time; by default the first mark."""
    series: AllSeries = {}
    marks: Sequence[Mark] = ()
    at: str = ""
    fingerprint: str = ""
    """Likewise of the system and its way back."""

    @property
    def zero(self) -> float:
        """Return when the live release answered 500 for the first time."""
        first = min((mark.at for mark in self.marks), default=0.0)
        return self.began or (first if first > _EPOCH_SECONDS else span([self.series])[0])


class Point(_Record):
    """One eviction of one pod."""

    ratio: float
    """The load balancer's real delay ÷ the propagation that the drain budget allows for."""
    sent: int
    failed: int


class Curve(_Record):
    """Evictions of one system at every delay."""

    system: str
    points: Sequence[Point]
    fingerprint: str = ""
    """Likewise of the system and its evictions."""


class Accident(_Record):
    """A row of the matrix: what goes wrong during a release."""

    name: str
    title: str
    expected_failed: int = 0
    """Most requests that may fail with this program; stands in the source before the run."""
    reason: str = ""
    """Why any may fail, or why this program does not release."""
    expected_outcome: Outcome = "released"
    """Outcome that is expected of this program; stands in the source before the run."""
    headline: bool = False
    """Run by ``make bench`` alone; the others need ALL=1."""
    fault: str = ""
    at_shift: bool = False
    delay_ratio: float = 1.0
    edits: Mapping[str, str] = {}
    """Causes of the accident; ``bench.accidents`` says what each means. The page does not show them."""


class System(_Record):
    """A column of the matrix: one way to release."""

    name: str
    title: str
    tuned: str | Sequence[str] = ()
    """Configuration, and the documentation that it follows; as in Markdown, code stands between backticks."""


class Document(_Record):
    """Everything that a page holds."""

    version: Literal[2] = Field(SCHEMA, alias="schema")
    at: str = ""
    """Day on which the figures were put together."""
    machine: Mapping[str, Any] = {}
    """The machine it ran on: texts and numbers by name; a name says its unit."""
    settings: Mapping[str, Any] = {}
    """Numbers of the run by name, likewise."""
    budget: Mapping[str, Any] = {}
    """Drain budget of the run: every timeout, by the names of ``infra.timeouts.DrainBudget``."""
    mix: Sequence[Mapping[str, Any]] = ()
    """Load on each system: streams of requests, by the names of ``bench.load.Stream``."""
    accidents: Sequence[Accident] = ()
    systems: Sequence[System] = ()
    cells: Sequence[Cell] = ()
    curve: Sequence[Curve] = ()
    undo: Sequence[Undo] = ()
    """Several of the same system where it was measured several times."""
    problems: Sequence[str] = ()
    """Why the figures prove nothing, or what came otherwise than was said before."""
    stale: Sequence[str] = ()
    """Cells, curves and ways back, in words, whose fingerprint was another than that of the code that made this document: they
    were measured before the accident, the system, the application or the load was changed."""
    short: Mapping[str, Any] | None = None
    """Figures of ``make bench``'s scenarios, or of ``make bench FULL=1``, as ``bench.figures.figures`` writes them."""

    def cell(self, accident: str, system: str) -> Cell | None:
        """Return a cell; none if it was not run."""
        return next((cell for cell in self.cells if (cell.accident, cell.system) == (accident, system)), None)

    def undo_of(self, system: str) -> Undo | None:
        """Return how a system went back, the slowest time if there are several; none if that was not run."""
        return max((undo for undo in self.undo if undo.system == system), key=lambda undo: undo.seconds, default=None)

    def title(self, system: str) -> str:
        """Return the heading of a system's column."""
        return next((each.title for each in self.systems if each.name == system), system)

    @property
    def measurements(self) -> list[Measurement]:
        """Measurements of the scenarios, if there are any."""
        return measurements_of(self.short) if self.short else []

    @property
    def is_full(self) -> bool:
        """True for the figures of ``make bench FULL=1``."""
        return bool(self.short and self.short["full"])

    @property
    def curves(self) -> dict[str, list[Point]]:
        """Points of every system's curve, in the order of their delays."""
        points = {each.system: list(each.points) for each in self.curve}
        for row in self.measurements if not points else ():
            if row.scenario == CURVE:
                point = Point(ratio=row.delay_ratio, sent=row.requests, failed=row.failed)
                points.setdefault(row.system, []).append(point)
        return {system: sorted(each, key=lambda point: point.ratio) for system, each in points.items()}

    @property
    def releases(self) -> list[tuple[Measurement, AllSeries]]:
        """Releases of this program on a quiet day whose steps are known, with their requests."""
        cells = [(_release(cell), cell.series) for cell in self.cells if cell.accident == QUIET and cell.steps]
        return cells + [(each, self.series_of(each.load)) for each in self.measurements if each.floor]

    def series_of(self, load: str) -> dict[str, Series]:
        """Return the series of one of the scenarios' loads."""
        series = self.short["series"].get(load, {}) if self.short else {}
        return {kind: Series(**entry) for kind, entry in series.items()}


def _release(cell: Cell) -> Measurement:
    """Return a cell's release in the form of a run's."""
    latency = {phase: (each.p50, each.p99) for phase, each in cell.latency.items()}
    p50, p99 = latency.get("during", (0.0, 0.0))
    steady_p50, steady_p99 = latency.get("before", (0.0, 0.0))
    return Measurement(
        scenario=cell.accident,
        system=cell.system,
        began=cell.began,
        ended=cell.began + cell.seconds,
        delay_ratio=1.0,
        requests=cell.sent,
        failed=cell.failed,
        by_failure=cell.by_failure,
        p50=p50,
        p99=p99,
        steady_p50=steady_p50,
        steady_p99=steady_p99,
        steps=[steps.Step(each.at, each.name) for each in cell.steps],
        floor=cell.floor,
        load=cell.accident,
        drained=cell.began + cell.settled_seconds,
    )


def read(figures: Mapping[str, Any]) -> Document:
    """Read a document, or a run's figures alone as a document of only these.

    Raises:
        pydantic.ValidationError: a name is missing, is not known, or has a value that can't be.
    """
    return Document.model_validate(figures if "schema" in figures else {"short": figures})


def answered(series: AllSeries) -> list[str]:
    """Return the kinds of requests that were answered, in the order in which they came."""
    return sorted((kind for kind in series if kind != FAILED), key=lambda kind: (series[kind].first, kind))


def span(every: Iterable[AllSeries]) -> tuple[float, float]:
    """Return the first begin and the last end of some series; (0, 0) if there are none."""
    listed = [each for series in every for each in series.values() if each.counts]
    return (min(each.first for each in listed), max(each.end for each in listed)) if listed else (0.0, 0.0)
