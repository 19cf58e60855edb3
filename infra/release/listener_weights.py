"""The weights of the load balancer's listeners, read from its own API and written so that they are read back twice."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from infra.clients import threads
from infra.clients.aws import AwsClients, error_code, explain, is_transient
from infra.errors import ShopCatError, TrafficError
from infra.names import COLOUR_HEADER, COLOURS, Colour, other_colour, workload_name
from infra.release.health import Target
from infra.release.progress import Log, Progress, Wait

Weights = dict[Colour, int]
Result = TypeVar("Result")
EVERYTHING = 100


def all_on(colour: Colour) -> Weights:
    """Return weights with everything on one colour."""
    return {colour: EVERYTHING, other_colour(colour): 0}


def describe_weights(weights: Mapping[Colour, int]) -> str:
    """Return weights as text: `blue 90 / green 10`."""
    return " / ".join(f"{colour} {weights.get(colour, 0)}" for colour in COLOURS)


@dataclass(frozen=True)
class Rule:
    """One rule, or one listener's default action, that forwards to our groups by weight."""

    listener: str
    arn: str
    """ARN of the rule; empty for a listener's default action."""
    weights: Mapping[Colour, int]
    actions: Sequence[Mapping[str, Any]]

    @property
    def where(self) -> str:
        """Return a short name for messages."""
        return (self.arn or self.listener).rsplit("/", 1)[-1]


@dataclass(frozen=True)
class View:
    """The load balancer at one moment."""

    groups: Mapping[Colour, str]
    """ARN of each colour's target group that exists."""
    rules: Sequence[Rule]
    load_balancer: str = ""
    """ARN of the load balancer whose listeners hold the rules."""
    dns_name: str = ""
    """Its own name at AWS."""

    def carries(self, colour: Colour) -> bool:
        """Check that a listener gives the colour weight."""
        return any(rule.weights.get(colour, 0) > 0 for rule in self.rules)

    def agree(self, weights: Mapping[Colour, int]) -> bool:
        """Check that every listener that forwards has exactly these weights, and that one does."""
        return bool(self.rules) and all(dict(rule.weights) == dict(weights) for rule in self.rules)

    def describe(self) -> str:
        """Return the weights on each listener as text."""
        return (
            "; ".join(f"{rule.where}: {describe_weights(rule.weights)}" for rule in self.rules)
            or "no listener forwards"
        )


@dataclass(frozen=True)
class Timing:
    """Lengths of a shift's waits, and its weights and thresholds."""

    settle_seconds: float
    canary_seconds: float = 20
    canary_weight: int = 10
    poll_seconds: float = 5
    write_deadline_seconds: float = 180
    """For one set of weights to be written and read back twice, throttling included."""
    proof_deadline_seconds: float = 120
    metric_delay_seconds: float = 240
    """Longest wait for whole metric minutes, counted from the end of settle."""
    metric_minutes: int = 2
    probe_seconds: float = 0.5
    baseline_minutes: int = 10


Overtaken = Callable[[], Awaitable[str]]
"""Returns who has taken over from this update; empty while nobody has. Raises ShopCatError if that can't be known."""
Refusal = Callable[[Colour], Awaitable[list[str]]]
"""Lists what forbids giving a colour more weight; empty if it may have it. Raises ShopCatError if that can't be known."""


async def _not_overtaken() -> str:
    return ""


async def _no_refusal(_: Colour) -> list[str]:
    return []


class ListenerWeights:
    """The load balancer as seen and written through its API."""

    def __init__(
        self,
        clients: AwsClients,
        load_balancer: str,
        log: Log = print,
        *,
        overtaken: Overtaken = _not_overtaken,
        refuse: Refusal = _no_refusal,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clients = clients
        self._name = load_balancer
        self._log = log
        self._progress = Progress(log, clock)
        self._retries: dict[str, Wait] = {}
        """By what is asked of AWS: one call may fail once in each of many polls."""
        self._overtaken = overtaken
        self._refuse = refuse
        self._sleep = sleep
        self._clock = clock

    def deadline(self, timing: Timing) -> float:
        """Return the moment at which a read or a write that begins now has failed."""
        return self._clock() + timing.write_deadline_seconds

    # Reading ----------------------------------------------------------------------------------------------------------

    def view(self) -> View:
        """Read the groups, and every rule or default action that forwards to them but for those that ask for a colour by name.

        One that forwards to a single colour, made by hand, gives that colour everything.

        Raises:
            TrafficError: a rule forwards to one group with a group that isn't ours.
            ClientError: AWS refuses; `read_weights` is the call that tries again.
        """
        elb = self._clients.get("elbv2")
        groups = {colour: arn for colour in COLOURS if (arn := self._group(elb, colour))}
        load_balancer, dns_name = self._load_balancer(elb)
        rules: list[Rule] = []
        if load_balancer and len(groups) == len(COLOURS):
            for page in elb.get_paginator("describe_listeners").paginate(LoadBalancerArn=load_balancer):
                for listener in page["Listeners"]:
                    rules += self._rules(elb, listener["ListenerArn"], groups)
        return View(groups, tuple(rules), load_balancer, dns_name)

    @staticmethod
    def _group(elb: Any, colour: Colour) -> str:
        try:
            groups = elb.describe_target_groups(Names=[workload_name(colour)])["TargetGroups"]
        except ClientError as error:
            if error_code(error) in ("TargetGroupNotFound", "TargetGroupNotFoundException"):
                return ""
            raise
        return str(groups[0]["TargetGroupArn"]) if groups else ""

    def _load_balancer(self, elb: Any) -> tuple[str, str]:
        try:
            balancers = elb.describe_load_balancers(Names=[self._name])["LoadBalancers"]
        except ClientError as error:
            if error_code(error) in ("LoadBalancerNotFound", "LoadBalancerNotFoundException"):
                return "", ""
            raise
        return (str(balancers[0]["LoadBalancerArn"]), str(balancers[0]["DNSName"])) if balancers else ("", "")

    @staticmethod
    def _rules(elb: Any, listener: str, groups: Mapping[Colour, str]) -> list[Rule]:
        colours = {arn: colour for colour, arn in groups.items()}
        forwarding = []
        for page in elb.get_paginator("describe_rules").paginate(ListenerArn=listener):
            for rule in page["Rules"]:
                for action in rule["Actions"]:
                    alone = [{"TargetGroupArn": action.get("TargetGroupArn", "")}]
                    tuples = action.get("ForwardConfig", {}).get("TargetGroups") or alone
                    arns = {each["TargetGroupArn"] for each in tuples}
                    if not arns & colours.keys() or (len(arns) == 1 and _asks_for_a_colour(rule)):
                        continue
                    strangers = sorted(arns - colours.keys())
                    if strangers:
                        raise TrafficError(f"rule {rule['RuleArn']} also forwards to {strangers}, which is no colour")
                    if len(arns) == 1:
                        weights = all_on(colours[arns.pop()])
                    else:
                        weights = {colours[each["TargetGroupArn"]]: int(each.get("Weight", 0)) for each in tuples}
                    arn = "" if rule.get("IsDefault") else rule["RuleArn"]
                    forwarding.append(Rule(listener, arn, weights, tuple(rule["Actions"])))
        return forwarding

    def targets(self, colour: Colour) -> list[Target]:
        """Read the colour's targets with their health."""
        elb = self._clients.get("elbv2")
        group = self._group(elb, colour)
        if not group:
            return []
        return [
            Target(
                each["Target"]["Id"],
                int(each["Target"].get("Port", 0)),
                each["TargetHealth"]["State"],
                each["TargetHealth"].get("Reason", ""),
            )
            for each in elb.describe_target_health(TargetGroupArn=group)["TargetHealthDescriptions"]
        ]

    async def read_weights(self, deadline: float) -> View:
        """Call `view` again while AWS is throttled or unreachable."""
        return await self._persist("reading the listeners", self.view, deadline)

    async def targets_of(self, colour: Colour, deadline: float) -> list[Target]:
        """Call `targets` again while AWS is throttled or unreachable."""
        return await self._persist(f"reading the health of {colour}", lambda: self.targets(colour), deadline)

    async def _persist(self, what: str, call: Callable[[], Result], deadline: float) -> Result:
        """Run a blocking AWS call off the event loop, again and again while it can still succeed."""
        pause = 1.0
        wait = self._retries.setdefault(what, self._progress.wait(0))
        wait.restart(deadline - self._clock())
        while True:
            try:
                return await threads.in_thread(call)
            except (BotoCoreError, ClientError) as error:
                late = self._clock() >= deadline
                if late or not is_transient(error):
                    raise TrafficError(str(explain(error, what, self._clients.endpoint_url))) from error
                wait.report(f"{what}: {error_code(error) or type(error).__name__}; trying again")
                # Spread out, so that several clients don't come back together.
                await self._sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - no secret hangs on it
                pause = min(pause * 2, 15.0)

    # Writing ----------------------------------------------------------------------------------------------------------

    def _write(self, rule: Rule, groups: Mapping[Colour, str], weights: Mapping[Colour, int]) -> None:
        elb = self._clients.get("elbv2")
        tuples = [{"TargetGroupArn": groups[colour], "Weight": weights[colour]} for colour in COLOURS]
        actions = []
        for action in rule.actions:
            if action.get("Type") != "forward":
                actions.append(dict(action))
                continue
            changed: dict[str, Any] = {"Type": "forward", "ForwardConfig": {"TargetGroups": tuples}}
            if "Order" in action:
                changed["Order"] = action["Order"]
            actions.append(changed)
        if rule.arn:
            elb.modify_rule(RuleArn=rule.arn, Actions=actions)
        else:
            elb.modify_listener(ListenerArn=rule.listener, DefaultActions=actions)

    async def _refuse_overtaken(self, *, going_back: bool) -> None:
        """Refuse to write once another update has taken over from this one, which was thought dead."""
        try:
            other_update = await self._overtaken()
        except ShopCatError:
            if not going_back:
                raise
            return  # nobody knows; what is in trouble loses its traffic all the same
        if other_update:
            raise TrafficError(f"{other_update}; the weights were left as they are")

    async def _refuse_unproven(self, view: View, weights: Mapping[Colour, int]) -> None:
        """Refuse weight for a colour that must not have it; asked right before each write."""
        for colour in COLOURS:
            if any(weights[colour] > rule.weights.get(colour, 0) for rule in view.rules):
                reasons = await self._refuse(colour)
                if reasons:
                    raise TrafficError(
                        f"{colour} must not get weight {weights[colour]}; the weights stay at {view.describe()}:\n"
                        + "\n".join(f"  - {each}" for each in reasons)
                    )

    async def set_weights(self, weights: Mapping[Colour, int], timing: Timing, *, going_back: bool = False) -> None:
        """Write the weights on every listener that forwards, and read them back twice.

        Args:
            weights: of each colour.
            timing: how long it may take.
            going_back: away from a colour in trouble, also while nobody can say whether this update was overtaken.

        Raises:
            TrafficError: by the deadline the API does not confirm them, another update has taken over, or a colour must not
                get more weight.
        """
        deadline = self.deadline(timing)
        wait = self._progress.wait(timing.write_deadline_seconds)
        confirmed = 0
        written = False
        while True:
            view = await self.read_weights(deadline)
            if not view.rules:
                raise TrafficError(f"load balancer {self._name}: no listener forwards to both colours")
            if view.agree(weights):
                confirmed += 1
                if confirmed == 2:
                    self._log(f"weights {describe_weights(weights)} read back (2 of 2)")
                    return
                await self._sleep(1)
                continue
            confirmed = 0
            if self._clock() >= deadline:
                raise TrafficError(f"weights {describe_weights(weights)} are not confirmed in time: {view.describe()}")
            if written:
                wait.report(f"weights are {view.describe()} and are written as {describe_weights(weights)} again")
                await self._sleep(1)
            await self._refuse_overtaken(going_back=going_back)
            await self._refuse_unproven(view, weights)
            for rule in view.rules:
                if dict(rule.weights) != dict(weights):
                    if not written:
                        change = f"{describe_weights(rule.weights)} -> {describe_weights(weights)}"
                        self._log(f"listener {rule.where}: {change}")
                    write = partial(self._write, rule, view.groups, weights)
                    await self._persist("writing the weights", write, deadline)
            written = True


def _asks_for_a_colour(rule: Mapping[str, Any]) -> bool:
    """Check that only requests which name their colour follow the rule."""
    headers = (each.get("HttpHeaderConfig", {}).get("HttpHeaderName", "") for each in rule.get("Conditions", []))
    return any(name.lower() == COLOUR_HEADER.lower() for name in headers)
