"""Entry of the Pulumi program: interpreter settings, then infra/program.py."""

import gc
import os
import signal
import sys
from pathlib import Path

# Pulumi runs this folder with the folder itself first on the path (Pulumi.yaml, `main`), where a package of ours stands in the
# way of any library that has its name (`settings`, `clients`). What is imported from here on begins with `infra.`.
HERE = Path(__file__).resolve().parent
sys.path[:] = [str(HERE.parent), *(entry for entry in sys.path if Path(entry).resolve() != HERE)]
# The SDKs load very many objects that live until the end. Without garbage collection, here and when the interpreter ends, an
# update with nothing to do, of 197 resources, took 13 s instead of 19 s (medians of 10 in turns, providers that only echo, on a
# machine under load).
gc.disable()
# The engine interrupts a program that still waits when the update has failed; what went wrong is said, a traceback of the
# interrupt says nothing. Weights and the ledger are such that the next update goes on from anywhere.
signal.signal(signal.SIGINT, lambda *_: os._exit(130))

from infra.program import main  # noqa: E402 - after the lines above

main()
gc.freeze()
