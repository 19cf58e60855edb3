"""What one update does to the ledger: the slot is taken once, whoever asks first."""

from __future__ import annotations

import threading

from infra.errors import LedgerConflictError
from infra.release.decide import Decision
from infra.release.ledger import Ledger, conflict_message
from infra.release.state import LedgerState


class Session:
    """What one update does to the ledger, each step once, whoever asks first."""

    def __init__(self, ledger: Ledger, state: LedgerState, decision: Decision) -> None:
        self._ledger = ledger
        self._held = False
        self._lock = threading.RLock()
        """Hooks ask side by side: nobody compares the ledger with `state` while it is being written."""
        self.state = state
        self.decision = decision

    def take(self) -> bool:
        """Claim or go on with the release of the decision; whether this was the first time.

        Raises:
            LedgerConflictError: somebody else was first.
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

    def refuse_overtaken(self) -> None:
        """Nobody has written the ledger since this update read it or wrote it itself.

        Raises:
            LedgerConflictError: somebody has.
        """
        with self._lock:
            found = self._ledger.read()
            if found.version != self.state.version:
                raise LedgerConflictError(conflict_message(found))

    def go_live(self) -> LedgerState:
        """The open release becomes the live one."""
        with self._lock:
            self.take()
            self.state = self._ledger.go_live(self.state)
            return self.state

    def abort(self) -> LedgerState:
        """The open release is taken back."""
        with self._lock:
            self.take()
            self.state = self._ledger.abort(self.state)
            return self.state
