"""Entry of the policy pack, which Pulumi's engine starts with `--policy-pack policy`; `make policy` is policy/check.py."""

import sys
from pathlib import Path

# Pulumi runs this folder with the folder itself first on the path, where a file of ours would stand in the way of any library
# that has its name. What is imported from here on begins with `policy.` and `infra.`.
HERE = Path(__file__).resolve().parent
sys.path[:] = [str(HERE.parent), *(entry for entry in sys.path if Path(entry).resolve() != HERE)]

from policy.pack import start  # noqa: E402 - after the lines above

start()
