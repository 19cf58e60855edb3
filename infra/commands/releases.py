"""Print the release ledger as a table, read from DynamoDB and not from the stack's outputs (``make releases``)."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from infra.clients.aws import AwsClients
from infra.errors import ShopCatError
from infra.release.ledger import Ledger
from infra.release.state import table_rows
from infra.settings import read_stack

COLUMNS = ("tag", "revision", "state", "colour", "when", "who", "commit", "digest")


def lines(rows: Sequence[dict[str, str]]) -> list[str]:
    """Return a heading and one line for each release, in columns."""
    table = [[name.upper() for name in COLUMNS], *([row[name] or "-" for name in COLUMNS] for row in rows)]
    widths = [max(len(line[place]) for line in table) for place in range(len(COLUMNS))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table]


def main() -> int:
    """Run ``python -m infra.commands.releases``; PULUMI_OPTION_CONFIG_FILE names another stack file, as for pulumi itself."""
    try:
        region, settings = read_stack(Path(os.environ.get("PULUMI_OPTION_CONFIG_FILE", "Pulumi.prod.yaml")))
        clients = AwsClients(region, endpoint_url=settings.aws_endpoint)
        state = Ledger(clients.get("dynamodb"), settings.ledger_table).read()
    except ShopCatError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("\n".join(lines(table_rows(state))))
    if state.open:
        print(f"open: {state.open.kind} {state.open.name} in {state.open.colour}, attempt {state.open.attempt}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
