"""Judgement of the cells: how bad each one is, what a system lost in all, and where a peer is as good as this program."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from bench.schema import Accident, Cell, Document, Run
from bench.systems import OURS
from bench.workloads import SHORT_MIX

MANY_FAILED = round(sum(stream.rate for stream in SHORT_MIX))
"""Failed requests from which on a cell counts as having lost many: one second of the load. A share of those sent would be the
smaller the longer a system takes."""
GOAL_SECONDS = 60
"""Seconds that this program's way back may take, at production's own drain numbers."""
QUICKER_SHARE = 0.9
"""A peer's seconds ÷ this program's, below which it counts as quicker: releases of one system differ by several percent."""
_WRONG = ("stuck", "wrong code")


class Severity(StrEnum):
    """Judgement of a cell, and the class of its colour on the page."""

    FINE = "fine"
    FEW = "few"
    MANY = "many"
    WRONG = "wrong"
    """The release ended in a state that someone has to mend, whatever failed: a bad version that is released is one too."""
    UNSUPPORTED = "unsupported"
    NOT_RUN = "not-run"


def severity(cell: Cell | None, accident: Accident) -> Severity:
    """Return how bad a cell of an accident is."""
    if cell is None:
        return Severity.NOT_RUN
    if cell.outcome == "unsupported":
        return Severity.UNSUPPORTED
    if cell.outcome in _WRONG or (cell.outcome == "released" and accident.expected_outcome == "undone"):
        return Severity.WRONG
    if not cell.failed:
        return Severity.FINE
    return Severity.MANY if cell.failed >= MANY_FAILED else Severity.FEW


def was_run(cell: Cell | None) -> bool:
    """Return whether a cell holds a measurement."""
    return cell is not None and cell.outcome != "unsupported"


@dataclass(frozen=True)
class Summary:
    """A system over all accidents that it was run in."""

    system: str
    run: int
    losing: int
    """Accidents in which a request failed."""
    wrong: int
    """Accidents that ended stuck or with the wrong code live."""
    sent: int
    failed: int


def summary(document: Document, system: str) -> Summary:
    """Add up a system's cells."""
    rows = [(each, cell) for each in document.accidents if (cell := document.cell(each.name, system)) and was_run(cell)]
    cells = [cell for _, cell in rows]
    return Summary(
        system,
        run=len(cells),
        losing=sum(cell.failed > 0 for cell in cells),
        wrong=sum(severity(cell, each) is Severity.WRONG for each, cell in rows),
        sent=sum(cell.sent for cell in cells),
        failed=sum(cell.failed for cell in cells),
    )


@dataclass(frozen=True)
class AsGood:
    """A peer that fails no more requests than this program in an accident, and leaves nothing to mend."""

    accident: Accident
    peer: Cell
    ours: Cell

    @property
    def quicker(self) -> bool:
        """Return whether it also settled sooner, by more than chance."""
        return self.peer.settled_seconds < QUICKER_SHARE * self.ours.settled_seconds


def peers_as_good(document: Document) -> list[AsGood]:
    """List every cell of a peer that is as good as ours, in the order of rows and columns."""
    listed = []
    for accident in document.accidents:
        ours = document.cell(accident.name, OURS)
        if ours is None or not was_run(ours):
            continue
        peers = (document.cell(accident.name, system.name) for system in document.systems if system.name != OURS)
        listed += [AsGood(accident, peer, ours) for peer in peers if peer and _is_as_good(peer, ours, accident)]
    return listed


def _is_as_good(peer: Cell, ours: Cell, accident: Accident) -> bool:
    if not was_run(peer) or peer.failed > ours.failed:
        return False
    return severity(peer, accident) is not Severity.WRONG or severity(ours, accident) is Severity.WRONG


def broken_runs(cell: Cell, accident: Accident) -> list[Run]:
    """List the runs of a cell in which more requests failed, or which ended otherwise, than was said before."""
    return [
        run
        for run in cell.every_run
        if run.failed > accident.expected_failed or run.outcome != accident.expected_outcome
    ]


def broken_expectations(document: Document) -> list[Cell]:
    """List the cells of this program of which any run broke what was said before."""
    said = {accident.name: accident for accident in document.accidents}
    ours = (cell for cell in document.cells if cell.system == OURS and cell.accident in said)
    return [cell for cell in ours if broken_runs(cell, said[cell.accident])]
