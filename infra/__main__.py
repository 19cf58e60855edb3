"""Stack name → Production or Preview; no logic."""

import gc
import sys
from pathlib import Path

# The SDKs load tens of thousands of objects that live until the end: collecting garbage among them, and once more when
# the interpreter ends, is a quarter of an update that has nothing to do (`python -m bench.noop`).
gc.disable()
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from infra.program import main  # noqa: E402 - after the two lines above

main()
gc.freeze()
