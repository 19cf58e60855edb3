"""Which colour carries traffic: read from and written to the load balancer's own API, and believed only from there.

Shift, abort and guard are one idempotent act: *make colour X carry everything*. Weights move only to a colour that is
proven; every write is read back twice on every listener that forwards; what goes wrong on the way puts the weights back
in the same act, and that is read back too. Every poll logs a line, every wait has a deadline, throttled and unreachable
APIs are tried again until then.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial

from infra.errors import Refused
from infra.names import Colour, other_colour
from infra.release import cloudwatch, metrics
from infra.release.listener_weights import EVERYTHING, ListenerWeights, Timing, TrafficError, View, all_on
from infra.release.probes import Probe, Prober

PROBES_BEFORE = 20
"""Own requests before a shift; so many show one that fails in ten."""
FAILURES_BEFORE = 5
"""So many are enough: each may take as long as its timeout."""


@dataclass
class Tally:
    """What our own probes saw."""

    sent: int = 0
    failures: list[str] = field(default_factory=list)


Proof = Callable[[], Awaitable[list[str]]]


class Traffic(ListenerWeights):
    """Moves all traffic to one colour, watched, and back if anything goes wrong."""

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
