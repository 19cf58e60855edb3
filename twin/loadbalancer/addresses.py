"""Addresses of the load balancers' nodes, on loopback and on the twin's bridge."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable

from twin.config import Twin


class NodeAddresses:
    """Number the load balancers in a file; addresses hang on the number, so it is kept as long as the load balancer lives."""

    def __init__(self, twin: Twin) -> None:
        self._twin = twin
        self._file = twin.directory / "loadbalancer" / "ordinals.json"

    def _ordinals(self) -> dict[str, int]:
        known: dict[str, int] = json.loads(self._file.read_text()) if self._file.exists() else {}
        return known

    def keep(self, load_balancers: Iterable[str]) -> None:
        """Give each of these load balancers (ARNs) a number; those of others are free again."""
        before = self._ordinals()
        known = {arn: number for arn, number in before.items() if arn in load_balancers}
        for arn in load_balancers:
            if arn not in known:
                known[arn] = next(number for number in range(len(known) + 1) if number not in known.values())
        if known != before:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._file.write_text(json.dumps(known, indent=2) + "\n")

    def of(self, arn: str, *, loopback: bool) -> tuple[str, str]:
        """Return the addresses of a load balancer's two nodes."""
        return self._twin.load_balancer_ips(self._ordinals()[arn], loopback=loopback)


def add_to_bridge(twin: Twin, address: str) -> bool:
    """Give the twin's interface on the host another address; False if there is no such interface (no nodes)."""
    shown = subprocess.run(
        ["ip", "-json", "address", "show", "dev", twin.bridge], text=True, check=False, capture_output=True
    )
    if shown.returncode != 0:
        return False
    known = {entry["local"] for link in json.loads(shown.stdout or "[]") for entry in link.get("addr_info", [])}
    if address in known:
        return True
    added = subprocess.run(
        ["ip", "address", "add", f"{address}/32", "dev", twin.bridge], text=True, check=False, capture_output=True
    )
    return added.returncode == 0
