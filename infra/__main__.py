"""Stack name → Production or Preview; no logic."""

import gc
import os
import signal
import sys
from pathlib import Path

# The SDKs load very many objects that live until the end: to collect garbage among them, and once more when the
# interpreter ends, takes long and finds nothing.
gc.disable()
# The engine interrupts a program that still waits when the update has failed; what went wrong is said, a traceback of the
# interrupt says nothing. Weights and the ledger are such that the next update goes on from anywhere.
signal.signal(signal.SIGINT, lambda *_: os._exit(130))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from infra.program import main  # noqa: E402 - after the two lines above

main()
gc.freeze()
