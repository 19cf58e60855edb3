"""One row of the plan."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from infra.commands.takeover.differences import Difference


class Outcome(StrEnum):
    """The future of something that Terraform or Helm owns."""

    TAKEN = "taken over"
    """It stays, and this program's state knows it."""
    USED = "used as it is"
    """It stays, and whoever keeps it now goes on keeping it."""
    BESIDE = "made anew beside"
    """This program makes one of its own; the old one goes once nothing uses it."""
    LEFT = "left to delete later"
    """Nothing of this program uses it."""
    REFUSED = "refused"
    """Taking it over would lose data or the cluster, or lead all users elsewhere at once."""
    UNKNOWN = "can't say"


@dataclass(frozen=True)
class TakeoverRow:
    """The decision about one object."""

    address: str
    outcome: Outcome
    detail: str
    differences: tuple[Difference, ...] = ()
    remarks: tuple[str, ...] = ()
