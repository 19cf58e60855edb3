"""The ledger's content: releases and their attempts, the open one, the live one. Plain values; nothing is read or written."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from infra.errors import LedgerUnavailableError
from infra.names import Colour, other_colour
from infra.release.record import Record, release_name

if TYPE_CHECKING:
    from collections.abc import Mapping

ReleaseState = Literal["claimed", "live", "former", "retired", "aborted"]
Kind = Literal["release", "rollback", "rotation"]
ONCE_LIVE: tuple[ReleaseState, ...] = ("live", "former", "retired")


@dataclass(frozen=True)
class Attempt:
    """One time that a release was tried."""

    number: int
    who: str
    commit: str
    run: str
    at: str
    outcome: str = ""
    """`live`, `aborted`, or nothing while it is open."""


@dataclass(frozen=True)
class Release:
    """One revision of one tag, as the ledger knows it."""

    record: Record
    state: ReleaseState
    colour: Colour
    attempts: tuple[Attempt, ...]
    sequence: int = 0
    """Order of going live, counted over all releases; 0 if it never was."""

    @property
    def name(self) -> str:
        """`v1.4.0-r1`."""
        return self.record.name

    def describe(self) -> str:
        """Return its record in one line, for a person."""
        last = self.attempts[-1]
        by = f" by {last.who}" if last.who else ""
        source = f", commit {last.commit}" if last.commit else ""
        return (
            f"{self.name} ({self.record.digest}) {self.state} in {self.colour}, "
            f"attempt {last.number} of {last.at}{by}{source}"
        )


@dataclass(frozen=True)
class Open:
    """The release that holds the single slot."""

    tag: str
    revision: int
    attempt: int
    colour: Colour
    kind: Kind

    @property
    def name(self) -> str:
        """`v1.4.0-r1`."""
        return release_name(self.tag, self.revision)

    @property
    def intent(self) -> str:
        """Return the name of this attempt, written on both Deployments so that each new intent is a difference."""
        return f"{self.name}-a{self.attempt}"


@dataclass(frozen=True)
class Live:
    """The live pointer."""

    tag: str
    revision: int
    colour: Colour

    @property
    def name(self) -> str:
        """`v1.4.0-r1`."""
        return release_name(self.tag, self.revision)


@dataclass(frozen=True)
class LedgerState:
    """The whole content of the ledger, read at one version."""

    version: int = 0
    """0: the ledger has never been initialised."""
    open: Open | None = None
    live: Live | None = None
    occupants: Mapping[Colour, str] = field(default_factory=dict)
    """The release last put into each colour; its pods or its empty Deployment are declared from that record."""
    intent: str = ""
    sequence: int = 0
    releases: Mapping[str, Release] = field(default_factory=dict)
    writer: str = ""
    """Random name of the update that wrote this version: two that write the same are still two."""

    def release(self, name: str) -> Release:
        """Return the release of this name (`v1.4.0-r1`).

        Raises:
            LedgerUnavailableError: the ledger names a release it has no record of.
        """
        try:
            return self.releases[name]
        except KeyError:
            raise LedgerUnavailableError(f"the ledger names release {name} but holds no record of it") from None

    @property
    def live_record(self) -> Record | None:
        """Return the record of the live release."""
        return self.release(self.live.name).record if self.live else None

    @property
    def kept_former(self) -> Release | None:
        """Return the release whose pods may stay without weight, so that a rollback to it starts none.

        It was live right before the live one and still stands in its colour. What a rollback has left is not kept, since
        something is wrong with it; nor is what an aborted rollback has emptied, or what no rollback may bring back.
        """
        if self.live is None:
            return None
        former = self.releases.get(self.occupants.get(other_colour(self.live.colour), ""))
        outcomes = [attempt.outcome for attempt in self.release(self.live.name).attempts]
        if former is None or former.state != "former" or outcomes.count("live") != 1:
            return None
        if self.contracted_since(former):
            return None
        return former if former.attempts[-1].outcome == "live" else None

    def contracted_since(self, target: Release) -> Release | None:
        """Return the release whose migration removed what a former one needs; None if there is none.

        Migrations run once, at a release's first attempt, whether or not it goes live and however often it comes back.
        """
        for each in sorted(self.releases.values(), key=lambda release: release.attempts[0].at):
            is_later = each is not target and each.attempts[0].at >= target.attempts[0].at
            if is_later and each.record.contracts:
                return each
        return None

    def revisions(self, tag: str) -> list[Release]:
        """Return all revisions of a tag, oldest first."""
        return sorted(
            (each for each in self.releases.values() if each.record.tag == tag), key=lambda each: each.record.revision
        )


def table_rows(state: LedgerState) -> list[dict[str, str]]:
    """Return the ledger for a person: one row a release, the youngest first."""
    rows = []
    for release in state.releases.values():
        last = release.attempts[-1]
        is_open = state.open is not None and state.open.name == release.name
        rows.append(
            {
                "tag": release.record.tag,
                "revision": str(release.record.revision),
                "digest": release.record.digest,
                "colour": release.colour,
                "state": f"{release.state} (open)" if is_open else release.state,
                "attempt": str(last.number),
                "who": last.who,
                "commit": last.commit,
                "when": last.at,
            }
        )
    return sorted(rows, key=lambda row: (row["when"], row["tag"], row["revision"]), reverse=True)
