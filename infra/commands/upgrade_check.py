"""List what is pinned, where, and what is newer, without changing anything (``make upgrade-check``)."""

from __future__ import annotations

import sys

from infra.commands import offers
from infra.commands.aws_check import main

if __name__ == "__main__":
    sys.exit(main(lambda settings, clients, _, folder: offers.read_offers(settings, clients, folder)))
