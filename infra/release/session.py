"""Writes of one update to the ledger: the slot is taken once, by the hook that comes first."""

from __future__ import annotations

import threading

from infra.errors import LedgerConflictError
from infra.release.decide import Decision
from infra.release.ledger import Ledger, conflict_message
from infra.release.state import LedgerState


class Session:
    """One update's writes to the ledger, each step once."""

    def __init__(self, ledger: Ledger, state: LedgerState, decision: Decision) -> None:
        self._ledger = ledger
        self._held = False
        self._lock = threading.RLock()
        """Hooks run side by side; none compares the ledger with `state` while another one writes it."""
        self.state = state
        self.decision = decision

    def take(self) -> bool:
        """Claim the release of the decision, or go on with it; true the first time.

        Raises:
            LedgerConflictError: another update was first.
        """
        with self._lock:
            if self._held:
                return False
            if self.decision.action == "release":
                self.state = self._ledger.claim(self.state, self.decision)
            elif self.decision.moves:
                self.state = self._ledger.hold(self.state)
            self._held = True
            return True

    def hold(self) -> None:
        """Write the ledger once, so that whoever read it before can't begin anything any more.

        Raises:
            LedgerConflictError: another update has written it.
        """
        with self._lock:
            if not self._held:
                self.state = self._ledger.hold(self.state)
                self._held = True

    def refuse_overtaken(self) -> None:
        """Refuse to go on if another update has written the ledger since this one read or wrote it.

        Raises:
            LedgerConflictError: another one has.
        """
        with self._lock:
            stored = self._ledger.read()
            if stored.version != self.state.version:
                raise LedgerConflictError(conflict_message(stored))

    def go_live(self) -> LedgerState:
        """Make the open release the live one."""
        with self._lock:
            self.take()
            self.state = self._ledger.go_live(self.state)
            return self.state

    def abort(self) -> LedgerState:
        """Take the open release back."""
        with self._lock:
            self.take()
            self.state = self._ledger.abort(self.state)
            return self.state
