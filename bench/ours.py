"""This program as one of the systems that are compared: `pulumi up -s prod` with a tag, an abort or a rollback."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import pods, run
from bench.abort_failed import LEDGER_TABLE
from bench.images import Images
from bench.system import State, Target
from bench.systems import LOAD_BALANCER_CONTROLLER, OURS
from bench.tools import execute
from bench.workloads import SHORT_SETTINGS
from infra.release.ledger import Ledger
from twin import pulumi
from twin.host import pki
from twin.loadbalancer import front_door, hostnames

if TYPE_CHECKING:
    from bench.experiment import Bench
    from infra.release.state import LedgerState

_COLOUR = "shopcat/colour"


class Ours:
    """Production on the bench's twin, whose first release is live already."""

    name = OURS
    title = "this program"
    tuned = (
        "`pulumi up -s prod -c shopcat:tag=…` with the drain budget's numbers: 10 % for the propagation, then everything, "
        "watched by requests of its own twice a second and two whole minutes of CloudWatch. A release that failed is aborted at "
        "once, as the pipeline does. Undone by `-c shopcat:abort=…` while the release is open, by `-c shopcat:rollback=…` "
        "afterwards, or where `shopcat:keepFormer` is set by `make undo` and a plain `pulumi up -s prod` behind it."
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
        """Start `pulumi up -s prod -c shopcat:tag=…`; if that fails, its process aborts the release as the pipeline does."""
        settings = self._bench.write_settings(self._changes)
        return self._up({"tag": tag}, [sys.executable, "-m", "bench.abort_failed", tag, str(settings)])

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
        """Read what the ledger calls live and what the weights make of it, and all pods; an open release waits for a person.

        A colour serves if the ledger calls it live and it has all weight in every rule.
        """
        state = self._ledger()
        live = state.live.colour if state.live else ""
        rules = self._weights()
        carries_all = bool(rules) and all(_weighted(rule) == {live} for rule in rules)
        listed = pods.list_pods(self._twin, OURS)
        serving = [pod for pod in listed if carries_all and pod["metadata"]["labels"][_COLOUR] == live]
        unfinished = f"{state.open.tag} is open" if state.open else ""
        return State(self._images.content(serving), self._are_at_rest(listed), unfinished)

    def _are_at_rest(self, listed: list[dict[str, Any]]) -> bool:
        return pods.are_at_rest(listed)

    def _ledger(self) -> LedgerState:
        return Ledger(pulumi.client(self._twin, "dynamodb"), LEDGER_TABLE).read()

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
        return any(colours & _weighted(rule) for rule in self._weights())

    def _weights(self) -> list[dict[str, int]]:
        """Return, for each rule that forwards users, the weight of each target group by its name."""
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
        return [
            {groups[each["TargetGroupArn"]]: each["Weight"] for each in config["TargetGroups"]} for config in forwards
        ]

    def load_balancer(self) -> str:
        """Return the name of production's load balancer."""
        return run.LOAD_BALANCER

    def target(self) -> Target:
        """Return where its users send requests."""
        return Target(front_door.address(self._twin), hostnames.domain(self._twin), 443, pki.ca_file(self._twin))

    def _up(
        self, values: dict[str, str], if_it_fails: Sequence[str] = (), first: Sequence[str] = ()
    ) -> subprocess.Popen[str]:
        self.log = self._bench.directory / f"ours-{len(list(self._bench.directory.glob('ours-*.log')))}.log"
        settings = self._bench.write_settings(self._changes)
        return run.start_up(self._twin, settings, self.log, values, first=first, if_it_fails=if_it_fails)


def _weighted(rule: Mapping[str, int]) -> set[str]:
    """Return the colours that have a weight in a rule; a target group's name ends with its colour."""
    return {name.rpartition("-")[2] for name, weight in rule.items() if weight > 0}
