"""``python -m bench.abort_failed TAG SETTINGS``: abort a release whose update has failed, when the pipeline would."""

from __future__ import annotations

import os
import subprocess
import sys

from bench import run
from infra.release.ledger import Ledger
from infra.settings import Settings
from pipeline.environment import aws_clients
from pipeline.release import reason_not_to_abort

LEDGER_TABLE = str(Settings.model_fields["ledger_table"].default)


def main(tag: str, settings: str) -> int:
    """Abort with these settings if the release of this tag is the open one; return the exit code of the abort.

    Raises:
        LedgerUnavailableError: whether it is open can't be known.
    """
    state = Ledger(aws_clients().get("dynamodb"), LEDGER_TABLE).read()
    if reason := reason_not_to_abort(state, tag):
        print(f"not aborted: {reason}", flush=True)
        return 0
    environment = {**os.environ, "PULUMI_OPTION_CONFIG_FILE": settings}
    return subprocess.run(run.up_command({"abort": tag}), env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
