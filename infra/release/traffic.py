"""Which colour carries traffic: read from and written to the load balancer's own API, and believed only from there.

Shift, abort and guard are one idempotent act: *make colour X carry everything*. Weights move only to a colour that is
proven; every write is read back twice on every listener that forwards; what goes wrong on the way puts the weights back
in the same act, and that is read back too. Every poll logs a line, every wait has a deadline, throttled and unreachable
APIs are tried again until then.
"""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Protocol, TypeVar

import urllib3
from botocore.exceptions import BotoCoreError, ClientError

from infra.clients import threads
from infra.clients.aws import AwsClients, error_code, explain, is_transient
from infra.errors import Refused
from infra.names import COLOUR_HEADER, COLOURS, Colour, other_colour, workload_name
from infra.release import cloudwatch, metrics
from infra.release.health import Target

Log = Callable[[str], None]
Weights = dict[Colour, int]
Result = TypeVar("Result")
EVERYTHING = 100
PROBES_BEFORE = 20
"""Own requests before a shift; so many show one that fails in ten."""
FAILURES_BEFORE = 5
"""So many are enough: each may take as long as its timeout."""


class TrafficError(Refused):
    """The load balancer could not be read or written as needed; weights are where the message says."""


def all_on(colour: Colour) -> Weights:
    """Everything on one colour."""
    return {colour: EVERYTHING, other_colour(colour): 0}


def describe_weights(weights: Mapping[Colour, int]) -> str:
    """`blue 90 / green 10`."""
    return " / ".join(f"{colour} {weights.get(colour, 0)}" for colour in COLOURS)


@dataclass(frozen=True)
class Rule:
    """One rule, or one listener's default action, that forwards to our groups by weight."""

    listener: str
    arn: str
    """Nothing for a listener's default action."""
    weights: Mapping[Colour, int]
    actions: Sequence[Mapping[str, Any]]

    @property
    def where(self) -> str:
        """Short name for messages."""
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
        """Whether any listener gives it weight."""
        return any(rule.weights.get(colour, 0) > 0 for rule in self.rules)

    def agree(self, weights: Mapping[Colour, int]) -> bool:
        """Whether every listener that forwards has exactly these weights, and there is one."""
        return bool(self.rules) and all(dict(rule.weights) == dict(weights) for rule in self.rules)

    def describe(self) -> str:
        """The weights on each listener."""
        return (
            "; ".join(f"{rule.where}: {describe_weights(rule.weights)}" for rule in self.rules)
            or "no listener forwards"
        )


@dataclass(frozen=True)
class Probe:
    """One of our own requests through the load balancer."""

    ok: bool
    what: str
    colour: str = ""
    """Which colour answered, if the answer says so."""
    reached: bool = True
    """Whether the load balancer was reached at all: without that it says nothing of the shop."""


class Prober(Protocol):
    """Sends one request through the load balancer."""

    async def __call__(self) -> Probe:
        """What came back; never raises."""


class HttpsProber:
    """GET of the shop's page on a fresh connection each time; TLS trust follows SSL_CERT_FILE as everywhere.

    Names below `localhost` are this machine (RFC 6761), also where the resolver doesn't know them.
    """

    def __init__(self, url: str, timeout_seconds: float = 10) -> None:
        self._url = urllib3.util.parse_url(url)
        self._timeout = timeout_seconds

    def _pool(self) -> urllib3.HTTPConnectionPool:
        host = self._url.host or ""
        address = "127.0.0.1" if host.endswith(".localhost") and not _resolves(host) else host
        if self._url.scheme == "https":
            return urllib3.HTTPSConnectionPool(
                address, self._url.port or 443, server_hostname=host, assert_hostname=host, timeout=self._timeout
            )
        return urllib3.HTTPConnectionPool(address, self._url.port or 80, timeout=self._timeout)

    def _get(self) -> Probe:
        headers = {"Host": self._url.netloc or "", "Connection": "close"}
        try:
            with self._pool() as pool:
                response = pool.request("GET", self._url.path or "/", headers=headers, retries=False)
        except urllib3.exceptions.ReadTimeoutError:
            return Probe(ok=False, what=f"no answer within {self._timeout} s")
        except (urllib3.exceptions.HTTPError, OSError) as error:
            return Probe(ok=False, what=f"{type(error).__name__}: {error}", reached=False)
        return Probe(response.status < 400, f"HTTP {response.status}", response.headers.get(COLOUR_HEADER, ""))

    async def __call__(self) -> Probe:
        """One request, off the event loop."""
        return await threads.in_thread(self._get)


@dataclass(frozen=True)
class Timing:
    """How long the waits of a shift are."""

    settle_seconds: float
    canary_seconds: float = 20
    canary_weight: int = 10
    poll_seconds: float = 5
    write_deadline_seconds: float = 180
    """For one set of weights to be written and read back twice, throttling included."""
    proof_deadline_seconds: float = 120
    metric_delay_seconds: float = 240
    """How late a whole metric minute may be, counted from the end of settle."""
    metric_minutes: int = 2
    probe_seconds: float = 0.5
    baseline_minutes: int = 10


@dataclass
class Tally:
    """What our own probes saw."""

    sent: int = 0
    failures: list[str] = field(default_factory=list)


Proof = Callable[[], Awaitable[list[str]]]
Overtaken = Callable[[], Awaitable[str]]
"""Who has taken over from this update; nothing while nobody has. Raises Refused if that can't be known."""


Refusal = Callable[[Colour], Awaitable[list[str]]]
"""What forbids giving a colour more weight than it has; nothing if it may. Raises Refused if that can't be known."""


async def _by_nobody() -> str:
    return ""


async def _nothing(_: Colour) -> list[str]:
    return []


class Traffic:
    """The load balancer as seen and written through its API."""

    def __init__(
        self,
        clients: AwsClients,
        load_balancer: str,
        log: Log = print,
        *,
        overtaken: Overtaken = _by_nobody,
        refuse: Refusal = _nothing,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clients = clients
        self._name = load_balancer
        self._log = log
        self._overtaken = overtaken
        self._refuse = refuse
        self._sleep = sleep
        self._clock = clock

    def deadline(self, timing: Timing) -> float:
        """When a read or a write that begins now has failed."""
        return self._clock() + timing.write_deadline_seconds

    # Reading ----------------------------------------------------------------------------------------------------------

    def view(self) -> View:
        """Groups, and every rule or default action that forwards to them, but for those that ask for a colour by name.

        One that forwards to a single colour, made by hand, gives that colour everything.

        Raises:
            TrafficError: a rule forwards to one group with a group that isn't ours.
            ClientError: AWS refuses; `look` is the call that tries again.
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
            found = elb.describe_target_groups(Names=[workload_name(colour)])["TargetGroups"]
        except ClientError as error:
            if error_code(error) in ("TargetGroupNotFound", "TargetGroupNotFoundException"):
                return ""
            raise
        return str(found[0]["TargetGroupArn"]) if found else ""

    def _load_balancer(self, elb: Any) -> tuple[str, str]:
        try:
            found = elb.describe_load_balancers(Names=[self._name])["LoadBalancers"]
        except ClientError as error:
            if error_code(error) in ("LoadBalancerNotFound", "LoadBalancerNotFoundException"):
                return "", ""
            raise
        return (str(found[0]["LoadBalancerArn"]), str(found[0]["DNSName"])) if found else ("", "")

    @staticmethod
    def _rules(elb: Any, listener: str, groups: Mapping[Colour, str]) -> list[Rule]:
        colours = {arn: colour for colour, arn in groups.items()}
        found = []
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
                    found.append(Rule(listener, arn, weights, tuple(rule["Actions"])))
        return found

    def targets(self, colour: Colour) -> list[Target]:
        """The colour's targets with their health."""
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

    async def look(self, deadline: float) -> View:
        """`view`, tried again while AWS is throttled or unreachable."""
        return await self._persist("reading the listeners", self.view, deadline)

    async def targets_of(self, colour: Colour, deadline: float) -> list[Target]:
        """`targets`, tried again while AWS is throttled or unreachable."""
        return await self._persist(f"reading the health of {colour}", lambda: self.targets(colour), deadline)

    async def _persist(self, what: str, call: Callable[[], Result], deadline: float) -> Result:
        """Run a blocking AWS call off the event loop, again and again while it can still succeed."""
        pause = 1.0
        while True:
            try:
                return await threads.in_thread(call)
            except (BotoCoreError, ClientError) as error:
                late = self._clock() >= deadline
                if late or not is_transient(error):
                    raise TrafficError(str(explain(error, what, self._clients.endpoint_url))) from error
                self._log(f"{what}: {error_code(error) or type(error).__name__}; trying again")
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
        """Another update may have taken over from one that was thought dead: then the weights are its business."""
        try:
            by = await self._overtaken()
        except Refused:
            if not going_back:
                raise
            return  # nobody knows; what is in trouble loses its traffic all the same
        if by:
            raise TrafficError(f"{by}; the weights were left as they are")

    async def _refuse_unproven(self, view: View, weights: Mapping[Colour, int]) -> None:
        """Weight only goes to a colour that may have it, asked right before each write."""
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
        confirmed = 0
        written = False
        while True:
            view = await self.look(deadline)
            if not view.rules:
                raise TrafficError(f"load balancer {self._name}: no listener forwards to both colours")
            if view.agree(weights):
                confirmed += 1
                self._log(f"weights {describe_weights(weights)} read back ({confirmed} of 2)")
                if confirmed == 2:
                    return
                await self._sleep(1)
                continue
            confirmed = 0
            if self._clock() >= deadline:
                raise TrafficError(f"weights {describe_weights(weights)} are not confirmed in time: {view.describe()}")
            if written:
                await self._sleep(1)
            written = True
            await self._refuse_overtaken(going_back=going_back)
            await self._refuse_unproven(view, weights)
            for rule in view.rules:
                if dict(rule.weights) != dict(weights):
                    self._log(f"listener {rule.where}: {describe_weights(rule.weights)} -> {describe_weights(weights)}")
                    write = partial(self._write, rule, view.groups, weights)
                    await self._persist("writing the weights", write, deadline)

    # The one act ------------------------------------------------------------------------------------------------------

    async def prove(self, colour: Colour, proof: Proof, timing: Timing) -> None:
        """Wait until nothing is missing from the colour.

        Raises:
            TrafficError: something still is by the deadline.
        """
        deadline = self._clock() + timing.proof_deadline_seconds
        while True:
            reasons = await proof()
            if not reasons:
                self._log(f"{colour} is proven: pods, gates, targets")
                return
            self._log(f"{colour} is not proven yet: {reasons[0]}")
            if self._clock() >= deadline:
                raise TrafficError(f"{colour} can't carry traffic:\n" + "\n".join(f"  - {each}" for each in reasons))
            await self._sleep(timing.poll_seconds)

    async def make_carry_everything(
        self,
        colour: Colour,
        *,
        proof: Proof,
        timing: Timing,
        prober: Prober | None,
        watched: bool,
        returning: bool = False,
    ) -> None:
        """Move all traffic to a proven colour, watched; on any trouble put the weights back and say what was seen.

        What is measured is the colour, not the one it takes over from: failures before the shift are no reason against
        it, and where most requests fail already there is no canary, which would only prolong that.

        Args:
            colour: the colour that shall carry everything.
            proof: what is missing from it, asked until nothing is.
            timing: waits and thresholds.
            prober: our own requests; `None` sends none.
            watched: whether somebody uses the other colour, so that it goes by a canary and with settle. Without, the
                weights are written at once: nobody is served yet.
            returning: the colour is the one that served before and the other is the one in trouble: the weights go at
                once, nothing puts them back, and only then the settle time passes.

        Raises:
            TrafficError: it did not work out; the message says where the weights are.
        """
        view = await self.look(self.deadline(timing))
        if not view.rules:
            raise TrafficError(f"load balancer {self._name}: no listener forwards to both colours")
        await self.prove(colour, proof, timing)
        if not watched:
            await self.set_weights(all_on(colour), timing)
            return
        if returning:
            await self._return(colour, timing, prober)
            return
        # After a kill the colour may have more than a canary already: that is never taken away, and no measure of before.
        started = any(rule.weights.get(colour, 0) > timing.canary_weight for rule in view.rules)
        before = 0.0 if started else await self._before(view, colour, timing, prober)
        canary_from = None
        try:
            if not started and before < 0.5:
                canary_from = await self._now(timing)
                canary = {colour: timing.canary_weight, other_colour(colour): EVERYTHING - timing.canary_weight}
                await self.set_weights(canary, timing)
                await self._watch(colour, timing, prober, timing.canary_seconds, before)
                await self.prove(colour, proof, timing)
            await self.set_weights(all_on(colour), timing)
            if before > metrics.TROUBLE:  # each node of the load balancer sends requests into it until it has followed
                await self._watch(colour, timing, prober, timing.canary_seconds, before)
            acceptable = metrics.acceptable(before)
            shift = metrics.Shift(colour, await self._now(timing), canary_from, acceptable)
            await self._watch(colour, timing, prober, timing.settle_seconds, acceptable)
            await self._count_minutes(view, shift, timing)
            await self.prove(colour, proof, timing)
        except BaseException as error:
            await self._back(other_colour(colour), timing, error)
            raise

    async def _return(self, colour: Colour, timing: Timing, prober: Prober | None) -> None:
        """Everything to the colour that served before, and time for the load balancer's nodes to follow."""
        view = await self.look(self.deadline(timing))
        if view.agree(all_on(colour)):
            return
        await self.set_weights(all_on(colour), timing)
        try:
            # Until each node of the load balancer has followed, what fails may be what carried the weight before.
            await self._watch(colour, timing, prober, timing.canary_seconds, 1.0)
            await self._watch(colour, timing, prober, max(0, timing.settle_seconds - timing.canary_seconds), 0.0)
        except TrafficError as error:
            self._log(f"everything is on {colour}, as it was before; still: {error}")
            raise TrafficError(f"{error}\neverything is on {colour} (read back twice); run it again") from error

    async def _before(self, view: View, colour: Colour, timing: Timing, prober: Prober | None) -> float:
        """Failed requests per request before anything moves to the colour: what fails now, not what failed once.

        Raises:
            TrafficError: our own requests don't reach the load balancer, so they would say nothing afterwards.
        """
        probed: metrics.Sample | None = None
        if prober is not None:
            probes: list[Probe] = []
            failures: list[Probe] = []
            while len(probes) < PROBES_BEFORE and len(failures) < FAILURES_BEFORE:
                probes.append(await prober())
                failures = [each for each in probes if not each.ok]
                await self._sleep(timing.probe_seconds / 5)
            if not any(each.reached for each in probes):
                raise TrafficError(
                    f"our own requests don't reach the load balancer before any traffic is moved: {failures[-1].what}; "
                    "nothing was moved"
                )
            probed = metrics.Sample(len(probes), len(failures))
            if len(failures) > 1:  # one alone may be the way there
                self._log(f"{len(failures)} of {len(probes)} own requests fail before the shift: {failures[-1].what}")
        end = metrics.whole_minute(await self._now(timing))
        reading = await self._read(view, end - timedelta(minutes=timing.baseline_minutes), end, self.deadline(timing))
        steady = metrics.steady_rate(reading, other_colour(colour))
        self._log(
            f"failures in each of the last {metrics.STEADY_MINUTES} minutes of metrics: {steady:.2%} of the requests"
        )
        return metrics.before(probed, steady)

    async def _back(self, colour: Colour, timing: Timing, error: BaseException) -> None:
        """Everything back on the colour that had it, read back; the trouble that led here is kept."""
        self._log(f"trouble ({error}); putting everything back on {colour}")
        try:
            await self.set_weights(all_on(colour), timing, going_back=True)
        except TrafficError as failed:
            raise TrafficError(
                f"{error}\nand the weights could NOT be put back on {colour}: {failed}; both colours keep their pods; "
                "run `pulumi up -s prod` again, or abort"
            ) from error
        if isinstance(error, Refused):
            raise TrafficError(f"{error}\neverything is back on {colour} (read back twice)") from error

    async def _watch(
        self, colour: Colour, timing: Timing, prober: Prober | None, seconds: float, tolerated: float
    ) -> None:
        """Send our own requests at a steady rate; too many failures that aren't the other colour's end it at once."""
        tally = Tally()
        end = self._clock() + seconds
        said = self._clock()
        while self._clock() < end:
            if prober is not None:
                probe = await prober()
                tally.sent += 1
                if not probe.ok and probe.colour != other_colour(colour):
                    tally.failures.append(probe.what)
                if metrics.is_worse(len(tally.failures), tally.sent, tolerated):
                    raise TrafficError(
                        f"{len(tally.failures)} of our own {tally.sent} requests failed with traffic on {colour}: "
                        f"{tally.failures[-1]}"
                    )
            if self._clock() - said >= timing.poll_seconds:
                said = self._clock()
                left = max(0, round(end - said))
                self._log(f"watching {colour}: {tally.sent} own requests, {len(tally.failures)} failed; {left} s left")
            await self._sleep(min(timing.probe_seconds, max(end - self._clock(), 0)))

    # Metrics ----------------------------------------------------------------------------------------------------------

    async def _now(self, timing: Timing) -> datetime:
        """The time by AWS's own clock, which its metrics go by."""
        client = self._clients.get("elbv2")
        ask = partial(client.describe_load_balancers, Names=[self._name])
        return cloudwatch.aws_time(await self._persist("asking AWS for its time", ask, self.deadline(timing)))

    async def _read(self, view: View, start: datetime, end: datetime, deadline: float) -> metrics.Reading:
        read = partial(cloudwatch.read_metrics, self._clients, view.load_balancer, view.groups, start, end)
        return await self._persist("reading metrics", read, deadline)

    async def _count_minutes(self, view: View, shift: metrics.Shift, timing: Timing) -> None:
        """Wait until the metrics show the colour healthy; missing data is not health.

        Raises:
            TrafficError: they show it failing, or by the deadline they don't show it healthy.
        """
        deadline = self._clock() + timing.metric_delay_seconds
        seen: metrics.Reading | None = None
        while True:
            now = await self._now(timing)
            end = metrics.whole_minute(now)
            reading = metrics.Reading()
            if end > shift.start:
                reading = await self._read(view, shift.start, end, deadline)
            verdict = metrics.judge_metrics(reading, shift, now, timing.metric_minutes)
            self._log(f"metrics of {shift.colour}: {verdict.state.value}: {verdict.why}")
            late = self._clock() - deadline
            if verdict.state is metrics.MetricState.FAILING:
                raise TrafficError(verdict.why)
            if verdict.state is metrics.MetricState.HEALTHY:
                known = metrics.unchanged(seen, reading)
                if known and (late >= 0 or verdict.power >= metrics.WANTED_POWER):
                    return
                late -= 2 * timing.poll_seconds  # to be read again
            if late >= 0:
                healthy = verdict.state is metrics.MetricState.HEALTHY
                why = "CloudWatch's counts of past minutes still change" if healthy else verdict.why
                raise TrafficError(f"{why}; missing data is not health")
            seen = reading
            await self._sleep(timing.poll_seconds)


def _asks_for_a_colour(rule: Mapping[str, Any]) -> bool:
    """Whether only requests that name their colour follow the rule."""
    headers = (each.get("HttpHeaderConfig", {}).get("HttpHeaderName", "") for each in rule.get("Conditions", []))
    return any(name.lower() == COLOUR_HEADER.lower() for name in headers)


def _resolves(host: str) -> bool:
    try:
        return bool(socket.getaddrinfo(host, None))
    except OSError:
        return False
