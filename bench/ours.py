"""This program as one of the systems that are compared: `pulumi up -s prod` with a tag, an abort or a rollback."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import pods, run
from bench.images import Images
from bench.system import State, Target
from bench.systems import LOAD_BALANCER_CONTROLLER, OURS
from bench.tools import execute
from bench.workloads import SHORT_SETTINGS
from infra.release.ledger import Ledger
from infra.settings import Settings
from twin import pulumi
from twin.host import pki
from twin.loadbalancer import front_door, hostnames

if TYPE_CHECKING:
    from bench.experiment import Bench
    from infra.release.state import LedgerState

_COLOUR = "shopcat/colour"
_LEDGER_TABLE = str(Settings.model_fields["ledger_table"].default)


class Ours:
    """Production on the bench's twin, whose first release is live already."""

    name = OURS
    title = "this program"
    tuned = (
        "`pulumi up -s prod -c shopcat:tag=…` with the drain budget's numbers; 10 % for two whole minutes of CloudWatch. "
        "Undone by `-c shopcat:abort=…` while the release is open, by `-c shopcat:rollback=…` afterwards."
    )
    controllers = (LOAD_BALANCER_CONTROLLER,)

    def __init__(self, bench: Bench, images: Images, changes: Mapping[str, Any] = SHORT_SETTINGS) -> None:
        """Take the twin's production, released with these changes of its committed settings."""
        self._bench, self._images, self._twin, self._changes = bench, images, bench.twin, changes
        self.log: Path | None = None
        """Output of the update that was started last."""

    def install(self, tag: str) -> None:
        """Do nothing: the stack is there, with its first release."""

    def push(self, tag: str, edits: Mapping[str, str]) -> None:
        """Build and push to the repository, whose tags can't be changed."""
        self._images.push(tag, edits)

    def push_again(self, content: str) -> None:
        """Push other content under this one's tag."""
        self._images.push_again(content)

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
        state = self._ledger()
        live = state.live.colour if state.live else ""
        listed = pods.list_pods(self._twin, OURS)
        leaving = any(pods.is_leaving(pod) for pod in listed)
        serving = [pod for pod in listed if pod["metadata"]["labels"][_COLOUR] == live]
        unfinished = f"{state.open.tag} is open" if state.open else ""
        return State(self._images.content(serving), pods.are_at_rest(serving) and not leaving, unfinished)

    def _ledger(self) -> LedgerState:
        return Ledger(pulumi.client(self._twin, "dynamodb"), _LEDGER_TABLE).read()

    def _live(self, state: LedgerState) -> str:
        return state.live.tag if state.live else ""

    def has_ready_pod(self, tag: str) -> bool:
        """Tell whether a pod of this content is ready."""
        listed = pods.list_pods(self._twin, OURS)
        return any(pods.is_ready(pod) and self._images.content([pod]) == tag for pod in listed)

    def is_shifting(self, tag: str) -> bool:
        """Tell whether the target group of its colour has a weight."""
        listed = [pod for pod in pods.list_pods(self._twin, OURS) if self._images.content([pod]) == tag]
        colours = {pod["metadata"]["labels"][_COLOUR] for pod in listed}
        return any(weight > 0 for name, weight in self._weights().items() if name.rpartition("-")[2] in colours)

    def _weights(self) -> dict[str, int]:
        """Return the weight of each of production's target groups, by name."""
        elb = pulumi.client(self._twin, "elbv2")
        groups = {
            each["TargetGroupArn"]: each["TargetGroupName"] for each in elb.describe_target_groups()["TargetGroups"]
        }
        (balancer,) = elb.describe_load_balancers(Names=[run.LOAD_BALANCER])["LoadBalancers"]
        listeners = elb.describe_listeners(LoadBalancerArn=balancer["LoadBalancerArn"])["Listeners"]
        rules = [
            rule
            for listener in listeners
            for rule in elb.describe_rules(ListenerArn=listener["ListenerArn"])["Rules"]
            if not any(condition["Field"] == "http-header" for condition in rule["Conditions"])
        ]
        forwards = [
            action["ForwardConfig"] for rule in rules for action in rule["Actions"] if "ForwardConfig" in action
        ]
        return {
            groups[each["TargetGroupArn"]]: each["Weight"] for config in forwards for each in config["TargetGroups"]
        }

    def target(self) -> Target:
        """Return where its users send requests."""
        return Target(front_door.address(self._twin), hostnames.domain(self._twin), 443, pki.ca_file(self._twin))

    def _up(self, values: dict[str, str]) -> subprocess.Popen[str]:
        self.log = self._bench.directory / f"ours-{len(list(self._bench.directory.glob('ours-*.log')))}.log"
        return run.start_up(self._twin, self._bench.write_settings(self._changes), self.log, values)
