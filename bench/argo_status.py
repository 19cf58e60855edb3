"""Wait until a Rollout is healthy (exit code 0) or degraded (1): ``python bench/argo_status.py kubectl get … -o json``."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

FINAL_PHASES = ("Healthy", "Degraded")


def final_phase(rollout: Mapping[str, Any]) -> str:
    """Return the phase of a Rollout with which its controller is done; empty while it works on the newest template."""
    status = rollout.get("status", {})
    current = str(status.get("observedGeneration")) == str(rollout["metadata"]["generation"])
    phase = str(status.get("phase"))
    return phase if current and phase in FINAL_PHASES else ""


def main(kubectl: list[str]) -> int:
    """Ask again and again."""
    while True:
        rollout = json.loads(subprocess.run(kubectl, text=True, capture_output=True, check=True).stdout)
        if phase := final_phase(rollout):
            print(phase, rollout["status"].get("message", ""))
            return int(phase != "Healthy")
        time.sleep(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
