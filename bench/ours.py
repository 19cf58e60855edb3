"""This program as one of the systems that are compared: `pulumi up -s prod` with a tag, an abort or a rollback."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bench import pods, run
from bench.system import State, Target
from bench.systems import OURS, execute
from bench.workloads import SHORT_SETTINGS
from infra.release.ledger import Ledger
from infra.settings import Settings
from twin import pulumi
from twin.host import pki
from twin.loadbalancer import front_door, hostnames

if TYPE_CHECKING:
    from bench.experiment import Bench
    from infra.release.state import LedgerState

_LEDGER_TABLE = str(Settings.model_fields["ledger_table"].default)


class Ours:
    """Production on the bench's twin, whose first release is live already."""

    name = OURS
    title = "this program"
    namespace = "shopcat"

    def __init__(self, bench: Bench, changes: Mapping[str, Any] = SHORT_SETTINGS) -> None:
        """Take the twin's production, released with these changes of its committed settings."""
        self._bench, self._twin, self._changes = bench, bench.twin, changes
        self.log = bench.directory / "ours-0.log"
        """Output of the update that was started last."""

    def install(self, tag: str) -> None:
        """Do nothing: the stack is there, with its first release."""

    def start(self, tag: str) -> subprocess.Popen[str]:
        """Start `pulumi up -s prod -c shopcat:tag=…`."""
        return self._up({"tag": tag})

    def go_on(self, tag: str) -> subprocess.Popen[str]:
        """Unlock the stack and start a plain `pulumi up -s prod`."""
        del tag
        execute(self._twin, ["pulumi", "cancel", "-s", "prod", "--yes"])
        return self._up({})

    def undo(self) -> subprocess.Popen[str]:
        """Abort what is open, else roll back from what is live to what was live before it."""
        state = self._ledger()
        if state.open is not None:
            return self._up({"abort": state.open.tag})
        (former,) = [each.record.tag for each in state.releases.values() if each.state == "former"]
        return self._up({"rollback": f"{self._live(state)}->{former}"})

    def state(self) -> State:
        """Read what is live and whether any pod moves; a release that is open waits for a person."""
        leaving = any(pods.is_leaving(pod) for pod in pods.list_pods(self._twin, OURS))
        state = self._ledger()
        return State(self._live(state), not leaving, f"{state.open.tag} is open" if state.open else "")

    def _ledger(self) -> LedgerState:
        return Ledger(pulumi.client(self._twin, "dynamodb"), _LEDGER_TABLE).read()

    def _live(self, state: LedgerState) -> str:
        return state.live.tag if state.live else ""

    def has_ready_pod(self, tag: str) -> bool:
        """Tell whether a pod of the tag's release is ready."""
        listed = [pod for pod in pods.list_pods(self._twin, OURS) if _release_of(pod) == tag]
        return any(pods.is_ready(pod) and not pods.is_leaving(pod) for pod in listed)

    def target(self) -> Target:
        """Return where its users send requests."""
        return Target(front_door.address(self._twin), hostnames.domain(self._twin), 443, pki.ca_file(self._twin))

    def _up(self, values: dict[str, str]) -> subprocess.Popen[str]:
        self.log = self._bench.directory / f"ours-{len(list(self._bench.directory.glob('ours-*.log')))}.log"
        return run.start_up(self._twin, self._bench.write_settings(self._changes), self.log, values)


def _release_of(pod: Mapping[str, Any]) -> str:
    """Return the tag that a pod of production names in its answers."""
    variables = pod["spec"]["containers"][0].get("env") or []
    return next((str(each.get("value", "")) for each in variables if each["name"] == "SHOPCAT_RELEASE"), "")
