"""Shift all traffic to one colour, watched, and put it back if anything goes wrong.

Shift, abort and guard are one idempotent act. Weights move only to a colour that is ready; every write is read back twice on
every listener that forwards; what goes wrong on the way puts the weights back in the same act, and that is read back too.
Every wait has a deadline and says when it ends (progress.py); throttled and unreachable APIs are tried again until then.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Literal

from infra.errors import ShopCatError, TrafficError
from infra.names import Colour, other_colour
from infra.release import cloudwatch, metrics
from infra.release.listener_weights import EVERYTHING, ListenerWeights, Timing, View, all_on
from infra.release.probes import Probe, Prober
from infra.release.progress import ReleaseStep

PROBES_BEFORE = 20
"""Own requests before a shift: enough to show one failure in ten."""
FAILURES_BEFORE = 5
"""Failed requests after which no more are sent: each may take as long as its timeout."""


@dataclass
class Tally:
    """Counts of our own requests during a watch."""

    sent: int = 0
    failures: list[str] = field(default_factory=list)


Readiness = Callable[[], Awaitable[list[str]]]
"""Lists what keeps a colour from carrying traffic; empty if nothing does."""
Mode = Literal["canary", "rollback", "immediate", "restore"]
"""The way in which traffic moves.

* canary: users are on the other colour, so a tenth goes first, then all, each watched.
* rollback: all at once, watched. A person has decided that the live release must go, and this one has served everybody before;
  a canary would leave nine users of ten with the bad one for longer. One that has users already (`make undo`, a kill) keeps
  them whatever the watch sees, since nothing is left to compare with; the update fails.
* immediate: nobody is served yet, so there is nothing to compare with.
* restore: the colour served before and the other one is in trouble: all at once, and nothing puts it back.
"""


class Traffic(ListenerWeights):
    """Moves all traffic to one colour, watched, and back if anything goes wrong."""

    async def wait_until_ready(self, colour: Colour, readiness: Readiness, timing: Timing) -> None:
        """Wait until nothing keeps the colour from carrying traffic.

        Raises:
            TrafficError: something still does by the deadline.
        """
        deadline = self._clock() + timing.proof_deadline_seconds
        wait = self._progress.wait(timing.proof_deadline_seconds)
        while True:
            reasons = await readiness()
            if not reasons:
                wait.end(f"{colour} is ready: pods, readiness gates, targets")
                return
            wait.report(f"{colour} is not ready yet: {reasons[0]}", change=reasons[0])
            if self._clock() >= deadline:
                raise TrafficError(f"{colour} can't carry traffic:\n" + "\n".join(f"  - {each}" for each in reasons))
            await self._sleep(timing.poll_seconds)

    async def shift_all_traffic(
        self, colour: Colour, *, mode: Mode, readiness: Readiness, timing: Timing, prober: Prober | None
    ) -> None:
        """Move all traffic to a colour once it is ready; on any trouble put the weights back and say what was seen.

        Args:
            colour: the colour that shall carry everything.
            mode: how; see :data:`Mode`.
            readiness: what keeps the colour from carrying traffic, asked until nothing does.
            timing: waits and thresholds.
            prober: our own requests; `None` sends none.

        Raises:
            TrafficError: it did not work out; the message says where the weights are.
        """
        view = await self.read_weights(self.deadline(timing))
        if not view.rules:
            raise TrafficError(f"load balancer {self._name}: no listener forwards to both colours")
        if mode != "restore":
            ready = f"until pods, readiness gates and targets are ready, at most {timing.proof_deadline_seconds:.0f} s"
            self._progress.begin(ReleaseStep.CHECK, colour, ready)
        await self.wait_until_ready(colour, readiness, timing)
        if mode == "immediate":
            self._begin_shift(colour, timing)
            await self.set_weights(all_on(colour), timing)
        elif mode == "restore":
            await self._restore(colour, timing, prober)
        else:
            await self._shift_watched(view, colour, readiness, timing, prober, has_canary=mode == "canary")

    def _begin_shift(self, colour: Colour, timing: Timing) -> None:
        read_back = f"until all traffic is there, read back twice, at most {timing.write_deadline_seconds:.0f} s"
        self._progress.begin(ReleaseStep.SHIFT, colour, read_back)

    async def _shift_watched(
        self,
        view: View,
        colour: Colour,
        readiness: Readiness,
        timing: Timing,
        prober: Prober | None,
        *,
        has_canary: bool,
    ) -> None:
        """Shift a tenth unless it is a rollback, then all; then watch the settle time and whole minutes of metrics.

        What is measured is the colour, not the one it takes over from: failures before the shift are no reason against
        it, and where most requests fail already there is no canary, which would only prolong that.
        """
        # After a kill the colour may have more than a canary already: that is never taken away, and no measure of before.
        is_resumed = any(rule.weights.get(colour, 0) > timing.canary_weight for rule in view.rules)
        pause = timing.probe_seconds / 5 if has_canary else 0
        before = 0.0 if is_resumed else await self._failure_rate_before(view, colour, timing, prober, pause)
        canary_from, is_moved = None, False
        try:
            if has_canary and not is_resumed and before < 0.5:
                canary_from = await self._aws_time(timing)
                tenth = f"{timing.canary_weight} % of the traffic, watched for {timing.canary_seconds:.0f} s"
                self._progress.begin(ReleaseStep.CANARY, colour, tenth)
                canary = {colour: timing.canary_weight, other_colour(colour): EVERYTHING - timing.canary_weight}
                await self.set_weights(canary, timing)
                await self._watch(colour, timing, prober, timing.canary_seconds, before)
                await self.wait_until_ready(colour, readiness, timing)
            self._begin_shift(colour, timing)
            await self.set_weights(all_on(colour), timing)
            is_moved = True
            if before > metrics.TROUBLE:  # each node of the load balancer sends requests into it until it has followed
                await self._watch(colour, timing, prober, timing.canary_seconds, before)
            acceptable = metrics.acceptable(before)
            settled = timing.settle_seconds
            minutes = f"then until {timing.metric_minutes} whole minutes of metrics are counted"
            most = f"at most {settled + timing.metric_delay_seconds:.0f} s in all"
            self._progress.begin(ReleaseStep.WATCH, colour, f"{settled:.0f} s of own requests, {minutes}, {most}")
            shift = metrics.Shift(colour, await self._aws_time(timing), canary_from, acceptable)
            await self._watch(colour, timing, prober, timing.settle_seconds, acceptable)
            await self._wait_for_healthy_minutes(view, shift, timing)
            await self.wait_until_ready(colour, readiness, timing)
        except BaseException as error:
            if has_canary or not is_resumed:
                await self._put_back(other_colour(colour), timing, error)
            elif is_moved and isinstance(error, ShopCatError):
                raise TrafficError(f"{error}\neverything stays on {colour}, as a person asked for") from error
            raise

    async def _restore(self, colour: Colour, timing: Timing, prober: Prober | None) -> None:
        """Move everything to the colour that served before, and give the load balancer's nodes time to follow."""
        view = await self.read_weights(self.deadline(timing))
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

    async def _failure_rate_before(
        self, view: View, colour: Colour, timing: Timing, prober: Prober | None, pause: float
    ) -> float:
        """Return failed requests per request before anything moves to the colour: of the present, not of the past.

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
                await self._sleep(pause)
            if not any(each.reached for each in probes):
                raise TrafficError(
                    f"our own requests don't reach the load balancer before any traffic is moved: {failures[-1].what}; "
                    "nothing was moved"
                )
            probed = metrics.Sample(len(probes), len(failures))
            if len(failures) > 1:  # one alone may be the way there
                self._log(f"{len(failures)} of {len(probes)} own requests fail before the shift: {failures[-1].what}")
        end = metrics.whole_minute(await self._aws_time(timing))
        reading = await self._read(view, end - timedelta(minutes=timing.baseline_minutes), end, self.deadline(timing))
        steady = metrics.steady_rate(reading, other_colour(colour))
        self._log(
            f"failures in each of the last {metrics.STEADY_MINUTES} minutes of metrics: {steady:.2%} of the requests"
        )
        return metrics.before(probed, steady)

    async def _put_back(self, colour: Colour, timing: Timing, error: BaseException) -> None:
        """Put everything back on the colour that had it, read it back, and keep the error that led here."""
        self._log(f"trouble ({error}); putting everything back on {colour}")
        try:
            await self.set_weights(all_on(colour), timing, going_back=True)
        except TrafficError as failed:
            raise TrafficError(
                f"{error}\nand the weights could NOT be put back on {colour}: {failed}; both colours keep their pods; "
                "run `pulumi up -s prod` again, or abort"
            ) from error
        if isinstance(error, ShopCatError):
            raise TrafficError(f"{error}\neverything is back on {colour} (read back twice)") from error

    async def _watch(
        self, colour: Colour, timing: Timing, prober: Prober | None, seconds: float, tolerated: float
    ) -> None:
        """Send our own requests at a steady rate, and end at once if too many fail that the other colour did not answer."""
        tally = Tally()
        end = self._clock() + seconds
        wait = self._progress.wait(seconds, is_deadline=False)
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
            failed = len(tally.failures)
            wait.report(f"watching {colour}: {tally.sent} own requests, {failed} failed", change=failed)
            await self._sleep(min(timing.probe_seconds, max(end - self._clock(), 0)))

    # Metrics ----------------------------------------------------------------------------------------------------------

    async def _aws_time(self, timing: Timing) -> datetime:
        """Return the time by AWS's own clock, which its metrics go by."""
        client = self._clients.get("elbv2")
        ask = partial(client.describe_load_balancers, Names=[self._name])
        return cloudwatch.aws_time(await self._persist("asking AWS for its time", ask, self.deadline(timing)))

    async def _read(self, view: View, start: datetime, end: datetime, deadline: float) -> metrics.Reading:
        read = partial(cloudwatch.read_metrics, self._clients, view.load_balancer, view.groups, start, end)
        return await self._persist("reading metrics", read, deadline)

    async def _wait_for_healthy_minutes(self, view: View, shift: metrics.Shift, timing: Timing) -> None:
        """Wait until the metrics show the colour healthy; missing data is not health.

        Raises:
            TrafficError: they show it failing, or by the deadline they don't show it healthy.
        """
        deadline = self._clock() + timing.metric_delay_seconds
        wait = self._progress.wait(timing.metric_delay_seconds)
        seen: metrics.Reading | None = None
        while True:
            now = await self._aws_time(timing)
            end = metrics.whole_minute(now)
            reading = metrics.Reading()
            if end > shift.start:
                reading = await self._read(view, shift.start, end, deadline)
            verdict = metrics.judge_metrics(reading, shift, now, timing.metric_minutes)
            wait.report(f"metrics of {shift.colour}: {verdict.why}", change=(verdict.state, verdict.minutes))
            late = self._clock() - deadline
            if verdict.state is metrics.MetricState.FAILING:
                raise TrafficError(verdict.why)
            if verdict.state is metrics.MetricState.HEALTHY:
                known = metrics.unchanged(seen, reading)
                if known and (late >= 0 or verdict.power >= metrics.WANTED_POWER):
                    wait.end(f"metrics of {shift.colour} are healthy: {verdict.why}")
                    return
                late -= 2 * timing.poll_seconds  # to be read again
            if late >= 0:
                healthy = verdict.state is metrics.MetricState.HEALTHY
                why = "CloudWatch's counts of past minutes still change" if healthy else verdict.why
                raise TrafficError(f"{why}; missing data is not health")
            seen = reading
            await self._sleep(timing.poll_seconds)
