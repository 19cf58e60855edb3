"""The steps of the move, each of which reads all there is, decides, writes at most one batch, and watches what it wrote.

A step may be killed between any two calls. Nothing is kept between steps but the records themselves: the same step again reads
them, writes them again if they stand already (which gives a change to wait for), and watches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from infra.clients.aws import AwsClients
from infra.commands.traffic_move import rules
from infra.commands.traffic_move.reads import ShopZone, find_edge, find_new_edge, read_counts, read_live
from infra.commands.traffic_move.records import Edge, Shape, ShopRecords, require_new, strays
from infra.commands.traffic_move.watch import Ask, WatchClock, Watched, ask_some, watch_change
from infra.errors import PreflightError, ShopCatError, TrafficError
from infra.names import LOAD_BALANCER
from infra.settings import Settings

STEP_COMMAND = "make takeover-dns STEP="


def refuse(reason: str) -> None:
    """Stop a step before its write.

    Raises:
        PreflightError: there is a reason.
    """
    if reason:
        raise PreflightError(reason)


@dataclass(frozen=True)
class TrafficMove:
    """The shop's name in Route 53, and the steps that move it."""

    clients: AwsClients
    settings: Settings
    zone: ShopZone
    ask: Ask
    say: Callable[[str], None] = print
    clock: WatchClock = field(default_factory=WatchClock)
    old_name: str = ""
    """Name or DNS name of the old load balancer, for `status` once no record leads there."""

    def status(self) -> None:
        """Print what stands, what each load balancer answers and counted, and the next step; change nothing."""
        new = find_new_edge(self.clients)
        records = self.zone.read(new)
        old = self._old(records) or (find_edge(self.clients, self.old_name) if self.old_name else None)
        self.say(f"{records.host}, Route 53 zone {self.zone.zone} ({self.zone.zone_id})")
        self.say(f"  records  {describe(records, new)}")
        # Each of our own requests counts as one of the hour, and of the window that `finish` looks at.
        is_out_of_use = records.weight == 100 and not strays(records, new)
        self.say(f"  old      {self._edge_line(old, records.old_target, ask=not is_out_of_use)}")
        self.say(f"  new      {self._edge_line(new, LOAD_BALANCER, ask=True)}")
        release = read_live(self.clients, self.settings)
        self.say(f"  release  {release.live or 'none'} live" + (f", {release.open} open" if release.open else ""))
        self.say(f"  next     {following_step(records, new)}")

    def split(self) -> None:
        """Turn the simple record into a pair, 100 % at the old load balancer.

        Raises:
            ShopCatError: refused, and nothing was changed; or AWS did not answer.
        """
        refuse(rules.owner_refusal(self.settings.dns))
        new = require_new(find_new_edge(self.clients))
        records = self.zone.read(new)
        if records.shape is Shape.PAIR:
            self.say(f"{records.host} is split already: {describe(records, new)}")
            return
        if records.shape is Shape.NONE:
            raise PreflightError(_no_record(records.host, self.zone.zone))
        old = self._old(records)
        refuse(rules.split_refusal(records, old, new))
        change = self.zone.write(records, new, 0)
        self.say(f"{records.host} is a weighted pair now, all at the old load balancer as before")
        self._watch(change, records, old, None, 0)
        self.say(f"next: {STEP_COMMAND}weight WEIGHT={rules.next_limit(0)}")

    def weight(self, percent: int) -> None:
        """Give the new load balancer a share, watch it, and take it back if the new one fails.

        Raises:
            TrafficError: the new load balancer failed; the message says where the weights are.
            ShopCatError: refused, and nothing was changed; or AWS did not answer.
        """
        refuse(rules.owner_refusal(self.settings.dns))
        new, records = self._read_for_new()
        if percent:
            refuse(rules.ipv6_refusal(records, new))
        old = self._old(records)
        release = read_live(self.clients, self.settings)
        refuse(rules.weight_refusal(records, percent, ask_some(self.ask, old), ask_some(self.ask, new), release))
        change = self.zone.write(records, new, percent)
        self.say(
            f"{records.host}: {100 - percent} % old, {percent} % new; watched for Route 53 and {records.ttl_seconds} s"
        )
        watched = self._watch(change, records, old, new if percent else None, percent)
        if watched.verdict:
            self._return(percent, watched.verdict)
        if self.zone.read(new).weight != percent:
            raise TrafficError(
                f"{records.host} has another weight than {percent} % after the watch: somebody else moves traffic too; run "
                f"{STEP_COMMAND}status"
            )
        self.say(f"{percent} % held: old {watched.old}, new {watched.new}")
        self.say(f"next: {following_step(self.zone.read(new), new)}")

    def back(self) -> None:
        """Send all traffic to the old load balancer, whatever the weight, the release and the new load balancer are.

        The new load balancer is not even looked for. The next `weight` lets its record lead to it again.

        Raises:
            ShopCatError: the old load balancer is gone or does not answer, and nothing was changed; or AWS did not answer.
        """
        records = self.zone.read(None)
        change, old = self._write_back(records)
        self.say(f"{records.host}: 100 % old, 0 % new")
        watched = self._watch(change, records, old, None, 0)
        self.say(f"all is at the old load balancer: {watched.old}")

    def finish(self, minutes: int, accepted: int) -> None:
        """Replace the pair by the record that this program declares with dns route53.

        Args:
            minutes: window in which the old load balancer had no request.
            accepted: requests of scanners in it, as its access logs show.

        Raises:
            ShopCatError: refused, and nothing was changed; or AWS did not answer.
        """
        refuse(rules.owner_refusal(self.settings.dns))
        new, records = self._read_for_new()
        if records.shape is not Shape.NEW:
            old = self._old(records)
            refuse(rules.finish_refusal(records, old))
            counts = read_counts(self.clients, old, self.clock.now(), minutes) if old else rules.RequestCounts(0)
            refuse(rules.counts_refusal(counts, accepted, minutes))
            refuse(rules.new_refusal(ask_some(self.ask, new), read_live(self.clients, self.settings)))
            self.say(f"the old load balancer counted {counts} in the last {rules.span(minutes)}")
        change = self.zone.write(records, new, None)
        watched = self._watch(change, records, None, new, 100)
        if watched.verdict:
            raise TrafficError(
                f"{watched.verdict}, and {records.host} leads to it alone: mend the release behind it (`shopcat:rollback`, "
                "docs/runbook.md), or let the record lead to the old load balancer by hand"
            )
        self.say(f"{records.host} is one alias to {new.name}, as this program declares it")
        zone = (
            "" if self.zone.zone == self.settings.zone.rstrip(".") else f" and shopcat:hostedZone to {self.zone.zone}"
        )
        self.say(
            f"next: set shopcat:dns to route53{zone}, and run `pulumi up -s prod`; it stops with the `pulumi import` command of "
            f"the record ({self.zone.zone_id}_{records.host}_A), and goes on after it"
        )

    def _old(self, records: ShopRecords) -> Edge | None:
        return find_edge(self.clients, records.old_target) if records.old_target else None

    def _read_for_new(self) -> tuple[Edge, ShopRecords]:
        """Read the records for a step that gives the new load balancer users.

        Raises:
            ShopCatError: users of the new record are sent elsewhere, there is no new load balancer, or AWS can't be asked.
        """
        new = find_new_edge(self.clients)
        records = self.zone.read(new)
        refuse(rules.stray_refusal(records, new))
        return require_new(new), records

    def _edge_line(self, edge: Edge | None, name: str, *, ask: bool) -> str:
        if edge is None:
            return f"{name}: no load balancer of this account and region" if name else "none"
        counts = read_counts(self.clients, edge, self.clock.now(), 60)
        asked = str(ask_some(self.ask, edge)) if ask else "not asked at 100 %, since that would count"
        return f"{edge.name}: {asked}; {counts} in an hour"

    def _watch(self, change: str, records: ShopRecords, old: Edge | None, new: Edge | None, percent: int) -> Watched:
        """Watch a change that stands; whatever interrupts that leaves the weights as they were written.

        Raises:
            TrafficError: the watch could not be carried to its end.
        """
        try:
            return watch_change(
                self.ask,
                self.clock,
                old=old,
                new=new,
                is_in_sync=partial(self.zone.is_in_sync, change),
                ttl_seconds=records.ttl_seconds,
                say=self.say,
            )
        except ShopCatError as error:
            raise TrafficError(
                f"{records.host} has {percent} % at the new load balancer, which was not watched to the end: {error}. Run the "
                f"same step again, or {STEP_COMMAND}back"
            ) from error

    def _write_back(self, records: ShopRecords) -> tuple[str, Edge | None]:
        old = self._old(records)
        refuse(rules.back_refusal(records, old, ask_some(self.ask, old)))
        return self.zone.write(records, None, 0), old

    def _return(self, percent: int, verdict: str) -> None:
        """Send all back to the old load balancer after the new one failed.

        Raises:
            TrafficError: always; the message says where the weights are.
        """
        try:
            records = self.zone.read(None)
            change, old = self._write_back(records)
        except ShopCatError as error:
            raise TrafficError(
                f"{verdict}; it could not go back by itself: {error}. {percent} % or more are at the new load balancer: run "
                f"{STEP_COMMAND}back"
            ) from error
        self.say(f"{verdict}: all goes back to the old load balancer")
        self._watch(change, records, old, None, 0)
        raise TrafficError(
            f"{verdict} at {percent} %, so all went back to the old load balancer; mend the new one, then begin with "
            f"{STEP_COMMAND}weight WEIGHT={rules.next_limit(0)}"
        )


def describe(records: ShopRecords, new: Edge | None) -> str:
    """Return what stands, in one line."""
    kinds, ttl = " and ".join(records.kinds), f"TTL {records.ttl_seconds} s"
    if records.shape is Shape.PAIR:
        share = rules.stray_share(records) if strays(records, new) else f"{records.weight} % new"
        return f"{records.shape.value} {kinds}, {ttl}, {100 - records.weight} % old, {share}"
    if records.shape is Shape.SIMPLE:
        return f"{records.shape.value} {kinds} to {records.old_target}, {ttl}"
    return f"{records.shape.value}, {kinds}, {ttl}" if records.records else records.shape.value


def following_step(records: ShopRecords, new: Edge | None) -> str:
    """Return the command that goes on from here."""
    if strays(records, new):
        return f"{STEP_COMMAND}back"
    if records.shape is Shape.SIMPLE:
        return f"{STEP_COMMAND}split"
    if records.shape is Shape.PAIR:
        step = f"weight WEIGHT={rules.next_limit(records.weight)}" if records.weight < 100 else "finish"
        return f"{STEP_COMMAND}{step}, or {STEP_COMMAND}back"
    if records.shape is Shape.NEW:
        return "set shopcat:dns to route53, then `pulumi up -s prod`"
    return "no record leads to the shop here; enter it where the name is answered"


def _no_record(host: str, zone: str) -> str:
    return (
        f"Route 53 zone {zone} has no record of {host}, so the name is answered elsewhere or not at all; if the zone is not the "
        "one that answers, set OLD to the old load balancer and enter the records by hand (docs/takeover-traffic.md)"
    )
