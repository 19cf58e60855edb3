"""The move where the shop's name is answered outside this account's Route 53: the record to set by hand, and checks of it.

What can be seen is little. `socket.getaddrinfo` gives the addresses that this machine's resolver has just now, without TTL and
from its cache; an ALB's addresses change; a DNS with weights gives one of both answers. So a check tells only whether the name
leads to the old load balancer, the new one, or elsewhere, at this moment and from here.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass, field

from infra.clients.aws import AwsClients
from infra.commands.traffic_move import rules
from infra.commands.traffic_move.move import STEP_COMMAND, refuse
from infra.commands.traffic_move.reads import find_edge, find_new_edge, read_counts, read_live
from infra.commands.traffic_move.records import ALIAS_TTL_SECONDS, Edge, require_new
from infra.commands.traffic_move.watch import Ask, WatchClock, ask_some
from infra.errors import PreflightError
from infra.names import LOAD_BALANCER
from infra.settings import Settings

ResolveAddresses = Callable[[str], frozenset[str]]


def resolve_addresses(host: str) -> frozenset[str]:
    """Return the addresses that this machine's resolver has for a host; none if it has no answer."""
    try:
        return frozenset(str(each[4][0]) for each in socket.getaddrinfo(host, None, proto=socket.IPPROTO_TCP))
    except OSError:
        return frozenset()


def leads_to(host: frozenset[str], old: frozenset[str], new: frozenset[str]) -> str:
    """Return which load balancer a name's addresses are of."""
    sides = [side for side, addresses in (("old", old), ("new", new)) if host & addresses]
    if not host:
        return "nothing: this machine's resolver has no address of it"
    if sides and host - old - new:
        sides.append("others")
    return " and ".join(sides) or f"neither of both ({', '.join(sorted(host))}): a proxy, or addresses that changed"


def hand_records(host: str, old: Edge, new: Edge | None, percent: int) -> list[str]:
    """Return what a person enters for a share of the new load balancer, which need not be there for 0 %.

    Raises:
        PreflightError: it is to get users and is not there.
    """
    head = f"{host} CNAME (ALIAS or ANAME at the apex of its zone)"
    if not percent:
        return [f"{head} {old.dns_name}, TTL {ALIAS_TTL_SECONDS}; no other A, AAAA or CNAME"]
    new = require_new(new)
    if percent == 100:
        return [f"{head} {new.dns_name}, TTL {ALIAS_TTL_SECONDS}; no other A, AAAA or CNAME"]
    return [
        f"{head} {old.dns_name}, TTL {ALIAS_TTL_SECONDS}, weight {100 - percent}",
        f"{head} {new.dns_name}, TTL {ALIAS_TTL_SECONDS}, weight {percent}",
        "a DNS without weights knows 0 and 100 alone: then all users move at once, and back at once",
    ]


@dataclass(frozen=True)
class MoveByHand:
    """The steps for a name that a person sets elsewhere: refused by the same rules as far as they can be known."""

    clients: AwsClients
    settings: Settings
    old_name: str
    """Name or DNS name of the old load balancer."""
    ask: Ask
    say: Callable[[str], None] = print
    clock: WatchClock = field(default_factory=WatchClock)
    resolve: ResolveAddresses = resolve_addresses

    def status(self) -> None:
        """Print where the name leads as seen from here, and what both load balancers answer."""
        old, new = self._edges()
        self._where(old, new)
        for name, edge in (("old", old), ("new", new)):
            if edge is None:
                self.say(f"  {name}  no load balancer {LOAD_BALANCER} in this account and region")
                continue
            counts = read_counts(self.clients, edge, self.clock.now(), 60)
            self.say(f"  {name}  {edge.name}: {ask_some(self.ask, edge)}; {counts} in an hour")

    def split(self) -> None:
        """Print how the record gets a short TTL.

        Raises:
            PreflightError: refused.
        """
        old, new = self._both_edges()
        for line in hand_records(self.settings.domain, old, new, 0):
            self.say(f"set by hand: {line}")
        self.say(
            f"then wait for the TTL that the record had before, and run {STEP_COMMAND}weight WEIGHT=1 OLD={old.name}"
        )

    def weight(self, percent: int) -> None:
        """Print the records of a share, if both load balancers may have theirs.

        Raises:
            PreflightError: refused.
        """
        old, new = self._both_edges()
        old_answers = ask_some(self.ask, old)
        if percent:
            refuse(rules.new_refusal(ask_some(self.ask, new), read_live(self.clients, self.settings)))
        if percent < 100:
            refuse(rules.old_refusal(old_answers))
        self._instruct(old, new, percent)

    def back(self) -> None:
        """Print the record that leads to the old load balancer alone, if that answers.

        Raises:
            PreflightError: it does not.
        """
        old, new = self._edges()
        refuse(rules.old_refusal(ask_some(self.ask, old)))
        self._instruct(old, new, 0)

    def finish(self, minutes: int, accepted: int) -> None:
        """Check that the name leads to the new load balancer alone and the old one had no request for so long.

        The record stays a person's.

        Raises:
            PreflightError: refused; or that can't be known.
        """
        old, new = self._both_edges()
        led = self._led(old, new)
        if led != "new":
            raise PreflightError(
                f"{self.settings.domain} leads, seen from here, to {led}; STEP=finish expects the new load balancer alone: set "
                f"the record of {STEP_COMMAND}weight WEIGHT=100, wait for its TTL, then run the same step again"
            )
        counts = read_counts(self.clients, old, self.clock.now(), minutes)
        refuse(rules.counts_refusal(counts, accepted, minutes))
        refuse(rules.new_refusal(ask_some(self.ask, new), read_live(self.clients, self.settings)))
        self.say(f"the old load balancer counted {counts} in the last {rules.span(minutes)}")
        self.say(
            "next: leave shopcat:dns external, since the record is yours; then the old Deployment (docs/takeover-traffic.md)"
        )

    def _both_edges(self) -> tuple[Edge, Edge]:
        """Return both load balancers, for a step that leads to the new one."""
        refuse(rules.owner_refusal(self.settings.dns))
        old, new = self._edges()
        return old, require_new(new)

    def _edges(self) -> tuple[Edge, Edge | None]:
        new = find_new_edge(self.clients)
        if not self.old_name:
            raise PreflightError(
                f"this account's Route 53 has no record of {self.settings.domain}, so the old load balancer is not known; name "
                f"it: {STEP_COMMAND}status OLD=<its name or DNS name>. The name leads to "
                f"{', '.join(sorted(self.resolve(self.settings.domain))) or 'no address'} now"
            )
        old = find_edge(self.clients, self.old_name)
        if old is None or (new and old.arn == new.arn):
            raise PreflightError(
                f"OLD={self.old_name} is no load balancer of this account and region besides the new one; set it to a name or "
                "DNS name of `aws elbv2 describe-load-balancers` or, for a Classic Load Balancer, `aws elb "
                "describe-load-balancers`"
            )
        return old, new

    def _instruct(self, old: Edge, new: Edge | None, percent: int) -> None:
        for line in hand_records(self.settings.domain, old, new, percent):
            self.say(f"set by hand: {line}")
        self._where(old, new)
        self.say(f"wait {ALIAS_TTL_SECONDS} s after it is set, then look at {STEP_COMMAND}status OLD={old.name}")

    def _where(self, old: Edge, new: Edge | None) -> None:
        self.say(
            f"{self.settings.domain} is set outside this account and leads, seen from here, to {self._led(old, new)}"
        )

    def _led(self, old: Edge, new: Edge | None) -> str:
        host, ours = self.resolve(self.settings.domain), self.resolve(old.dns_name)
        return leads_to(host, ours, self.resolve(new.dns_name) if new else frozenset())
