"""List what is pinned, what is newer, what waits for a restart or a renewal, each with its next step (``make upgrade-check``).

Changes nothing.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from infra.commands import offers, running
from infra.commands.aws_check import main

if TYPE_CHECKING:
    from pathlib import Path

    from infra.clients.aws import AwsClients
    from infra.commands.findings import Row
    from infra.settings import Settings


def check_upgrades(settings: Settings, clients: AwsClients, _: str, folder: Path) -> list[Row]:
    """Return a row for everything that is pinned, and for what runs; what can't be asked is a row too."""
    return [*offers.read_offers(settings, clients, folder), *running.read_running(settings, clients)]


if __name__ == "__main__":
    sys.exit(main(check_upgrades))
