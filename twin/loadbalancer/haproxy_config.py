"""A load balancer as an HAProxy configuration: one text per structure, with weights and targets left to run time.

Weights live in a map (one line per forward rule), targets in server slots declared beforehand, so that a shift or a
deployment is never a reload. A request takes this way: rules in order set ``txn.rule``; the map gives that rule's
groups with running sums of weights; a die picks one; the group is the backend.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from twin.loadbalancer.model import (
    Condition,
    FixedResponse,
    Forward,
    Listener,
    LoadBalancer,
    Redirect,
    Rule,
    Target,
    TargetGroup,
    rule_key,
)

SLOTS_PER_GROUP = 32
DICE_SIDES = 1_000_000
MOST_GROUPS_PER_RULE = 5  # AWS: up to five target groups per forward action

_TLS_VERSIONS = {
    "TLS13-1-3": ("TLSv1.3", "TLSv1.3"),
    "TLS13-1-2": ("TLSv1.2", "TLSv1.3"),
    "TLS13-1-1": ("TLSv1.1", "TLSv1.3"),
    "TLS13-1-0": ("TLSv1.0", "TLSv1.3"),
    "TLS-1-2": ("TLSv1.2", "TLSv1.2"),
    "FS-1-2": ("TLSv1.2", "TLSv1.2"),
}


@dataclass(frozen=True)
class HaproxyNode:
    """Addresses and folders of one load-balancer node."""

    name: str
    namespace: str
    addresses: tuple[str, ...]
    directory: Path
    certificates: Path
    pod_networks: tuple[str, ...]
    connect_timeout_seconds: float

    @property
    def config(self) -> Path:
        """The configuration file."""
        return self.directory / "haproxy.cfg"

    @property
    def forwards(self) -> Path:
        """The map of weights."""
        return self.directory / "forwards.map"

    def inner_address(self, port: int) -> str:
        """The abstract socket between a listener's outer and inner frontend."""
        return f"abns@{self.namespace}/{self.name}/{port}"

    @property
    def master_socket(self) -> Path:
        """HAProxy's master, through which every worker, old ones too, is reached."""
        return self.directory / "master.sock"


def forward_line(forward: Forward, names: Mapping[str, str]) -> str:
    """The map's value for a forward action: ``limit:group|limit:group``, limits out of DICE_SIDES.

    A group with weight 0 is left out; no weight at all gives an empty string, which is answered 503.
    """
    total = sum(weight for _, weight in forward.weights)
    parts = []
    upto = 0
    for arn, weight in forward.weights:
        if weight > 0:
            upto += weight
            parts.append(f"{upto * DICE_SIDES // total}:{names[arn]}")
    return "|".join(parts)


def forwards_map(load_balancer: LoadBalancer, names: Mapping[str, str]) -> dict[str, str]:
    """Every rule's line. HAProxy's maps can't hold an empty value, so ``-`` stands for "no weight at all"."""
    return {key: forward_line(forward, names) or "-" for key, forward in load_balancer.forwards().items()}


def wildcard(pattern: str) -> str:
    """ELB's ``*`` and ``?`` as a regular expression."""
    return "^" + "".join({"*": ".*", "?": "."}.get(letter, re.escape(letter)) for letter in pattern) + "$"


def _condition(condition: Condition) -> str:
    def patterns(values: Sequence[str]) -> str:
        return " ".join(f"'{wildcard(value)}'" for value in values)

    if condition.kind == "host-header":
        return f"req.hdr(host),field(1,:) -m reg -i {patterns(condition.values)}"
    if condition.kind == "path-pattern":
        return f"path -m reg {patterns(condition.values)}"
    if condition.kind == "http-header":
        return f"req.fhdr({condition.header}) -m reg -i {patterns(condition.values)}"
    if condition.kind == "http-request-method":
        return "method " + " ".join(condition.values)
    return "src " + " ".join(condition.values)


def _expand(template: str) -> str:
    """ELB's placeholders as HAProxy samples."""
    for placeholder, sample in {
        "#{protocol}": "%[var(txn.protocol)]",
        "#{host}": "%[req.hdr(host),field(1,:)]",
        "#{port}": "%[var(txn.port)]",
        "#{path}": "%[path,regsub(^/,)]",
        "#{query}": "%[query]",
    }.items():
        template = template.replace(placeholder, sample)
    return template


def _redirect(redirect: Redirect, condition: str) -> list[str]:
    location = (
        f"{_expand(redirect.protocol).lower() if '#' not in redirect.protocol else _expand(redirect.protocol)}://"
        f"{_expand(redirect.host)}:{_expand(redirect.port)}{_expand(redirect.path)}"
    )
    code = f"http-request redirect code {redirect.status} location"
    if not redirect.query:
        return [f"{code} {location} if {condition}"]
    return [
        f"{code} {location}?{_expand(redirect.query)} if {condition} {{ query -m len gt 0 }}"
        if redirect.query == "#{query}"
        else f"{code} {location}?{_expand(redirect.query)} if {condition}",
        f"{code} {location} if {condition}",
    ]


def _fixed_response(response: FixedResponse, condition: str) -> str:
    line = f"http-request return status {response.status}"
    if response.body:
        body = response.body
        for letter, written in {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "$": "\\$"}.items():
            body = body.replace(letter, written)
        line += f' content-type "{response.content_type}" string "{body}"'
    return f"{line} if {condition}"


def _rule(listener: Listener, rule: Rule, number: int) -> list[str]:
    lines = []
    names = []
    for position, condition in enumerate(rule.conditions):
        names.append(f"rule{number}_{position}")
        lines.append(f"acl {names[-1]} {_condition(condition)}")
    key = rule_key(listener, rule)
    unless_taken = " ".join(["!{ var(txn.rule) -m found }", *names])
    lines.append(f"http-request set-var(txn.rule) str({key}) if {unless_taken}")
    taken = f"{{ var(txn.rule) -m str {key} }}"
    if isinstance(rule.action, FixedResponse):
        lines.append(_fixed_response(rule.action, taken))
    elif isinstance(rule.action, Redirect):
        lines.extend(_redirect(rule.action, taken))
    return lines


def tls_versions(policy: str) -> tuple[str, str] | None:
    """Lowest and highest TLS version of a named ELB security policy, or None if the policy is not known."""
    for marker, versions in _TLS_VERSIONS.items():
        if marker in policy:
            return versions
    return ("TLSv1.0", "TLSv1.2") if policy.endswith("2016-08") or not policy else None


def _binds(node: HaproxyNode, listener: Listener, load_balancer: LoadBalancer) -> list[str]:
    lines = []
    for address in node.addresses:
        line = f"bind {address}:{listener.port}"
        if listener.protocol == "HTTPS":
            lowest, highest = tls_versions(listener.ssl_policy) or ("TLSv1.2", "TLSv1.3")
            alpn = "h2,http/1.1" if load_balancer.http2 else "http/1.1"
            certificates = " ".join(f"crt {node.certificates}/{certificate_file(arn)}" for arn in listener.certificates)
            line += f" ssl {certificates} alpn {alpn} ssl-min-ver {lowest} ssl-max-ver {highest}"
        lines.append(line)
    return lines


def certificate_file(arn: str) -> str:
    """File name of a certificate with its key."""
    return f"certificate-{arn.rpartition('/')[2]}.pem"


LOG_FORMAT = (
    '{"time":%[var(txn.received)],"node":"NODE","listener":%[var(txn.port)],"rule":"%[var(txn.rule)]",'
    '"group":"%b","target":"%si:%sp","status":%ST,"by":"%[var(txn.by)]","flags":"%ts","queued":%Tw,"connect":%Tc,'
    '"response":%Tr,"total":%Ta,"bytes":%B,"client":"%ci:%cp","method":"%[var(txn.method)]",'
    '"path":"%[var(txn.path),json(utf8s)]","id":"%[var(txn.trace)]"}'
)
"""One JSON object a line. Times in milliseconds; ``by`` is ``target`` when the target's own response was passed on."""


def _outer(node: HaproxyNode, load_balancer: LoadBalancer, listener: Listener) -> list[str]:
    """The frontend to which clients connect: TLS, keep-alive, and nothing else.

    Each request goes on by a connection of its own to the inner frontend. Without that hop HAProxy would answer a
    target's reset on a client's second request by closing the client's connection without a word (it counts on browsers
    to try again); ELB answers 502, and so does the inner frontend, for which every request is the first.
    """
    idle = int(load_balancer.idle_timeout_seconds)
    return [
        f"frontend outer-{listener.port}",
        *(f"  {line}" for line in _binds(node, listener, load_balancer)),
        "  no log",
        "  tcp-request connection set-var(sess.opened) date()",
        (
            "  http-after-response set-header Connection close if { date(),sub(sess.opened) gt"
            f" {int(load_balancer.client_keep_alive_seconds)} }}"
        ),
        f"  default_backend outer-{listener.port}",
        f"backend outer-{listener.port}",
        "  option http-server-close",
        f"  timeout server {idle + 60}s",  # the inner frontend is the one to give up
        f"  server inner {node.inner_address(listener.port)} send-proxy-v2",
    ]


def _inner(
    node: HaproxyNode, load_balancer: LoadBalancer, listener: Listener, nat_addresses: Sequence[str], first_rule: int
) -> list[str]:
    """The frontend that matches requests to rules and sends them to targets; its log is the access log."""
    patience = int(node.connect_timeout_seconds * 1000) - 100
    body = [
        f"bind {node.inner_address(listener.port)} accept-proxy",
        f"log-format '{LOG_FORMAT.replace('NODE', node.name)}'",
        "http-request set-var(txn.received) date(0,ms)",
        "http-request set-var(txn.path) path",
        "http-request set-var(txn.method) method",
        f"http-request set-var(txn.port) int({listener.port})",
        f"http-request set-var(txn.protocol) str({listener.protocol.lower()})",
    ]
    if load_balancer.internet_facing and nat_addresses and node.pod_networks:
        # What leaves the private subnets for a public load balancer comes from the NAT gateway.
        body.append(f"http-request set-src str({nat_addresses[0]}) if {{ src {' '.join(node.pod_networks)} }}")
    for offset, rule in enumerate(listener.rules):
        body.extend(_rule(listener, rule, first_rule + offset))
    body.append(f"http-request set-var(txn.forward) var(txn.rule),map_str({node.forwards})")
    body.append(f"http-request set-var(txn.die) rand({DICE_SIDES})")
    for number in range(1, MOST_GROUPS_PER_RULE + 1):
        part = f"var(txn.forward),word({number},|)"
        body.append(
            f"http-request set-var(txn.group) {part},field(2,:) if !{{ var(txn.group) -m found }}"
            f" {{ {part},field(1,:),sub(txn.die) gt 0 }}"
        )
    made_here = "!{ var(txn.by) -m found }"
    not_connected = "{ status 503 } { var(txn.sent) -m found } " + made_here
    body.extend(
        [
            "http-request set-var(txn.trace) req.hdr(X-Amzn-Trace-Id) if { req.hdr(X-Amzn-Trace-Id) -m found }",
            "http-request set-var(txn.trace) uuid if !{ var(txn.trace) -m found }",
            (
                'http-request set-header X-Amzn-Trace-Id "Root=%[var(txn.trace)]" unless'
                " { req.hdr(X-Amzn-Trace-Id) -m found }"
            ),
            (
                'http-request set-header X-Forwarded-For "%[req.fhdr(X-Forwarded-For)], %[src]" if'
                " { req.fhdr(X-Forwarded-For) -m found }"
            ),
            'http-request set-header X-Forwarded-For "%[src]" unless { req.fhdr(X-Forwarded-For) -m found }',
            "http-request set-header X-Forwarded-Proto %[var(txn.protocol)]",
            "http-request set-header X-Forwarded-Port %[var(txn.port)]",
            "http-response set-var(txn.by) str(target)",
            # HAProxy says 503 whenever it gets no connection; ELB says 502 when refused and 504 when it took too long.
            f"http-after-response set-var(txn.late) bool(true) if {{ date(0,ms),sub(txn.received) ge {patience} }}",
            f"http-after-response set-status 504 if {not_connected} {{ var(txn.late) -m found }}",
            f"http-after-response set-status 502 if {not_connected}",
            f"http-after-response set-header Server awselb/2.0 if {made_here}",
            f"http-after-response set-var(txn.by) str(elb) if {made_here}",
            "use_backend %[var(txn.group)] if { var(txn.group) -m found }",
            "default_backend no-target-group",
        ]
    )
    return [f"frontend listener-{listener.port}", *(f"  {line}" for line in body)]


def _page(title: str) -> str:
    return (
        "content-type text/html string"
        f" '<html><head><title>{title}</title></head><body><center><h1>{title}</h1></center></body></html>'"
    )


_UNAVAILABLE = f"http-request return status 503 {_page('503 Service Temporarily Unavailable')}"


def _backend(group: TargetGroup, idle_timeout_seconds: float, slots: Mapping[int, Target]) -> list[str]:
    balance = {
        "round_robin": "roundrobin",
        "least_outstanding_requests": "leastconn",
        "weighted_random": "random",
    }[group.balance]
    tls = " ssl verify none" if group.protocol == "HTTPS" else ""
    # Idle connections beyond what was needed lately go, half of them at a time; ELB drops them at the idle timeout.
    purge = max(1, int(idle_timeout_seconds / 2))
    return [
        f"backend {group.name}",
        f"  balance {balance}",
        # In a worker that a reload has replaced HAProxy counts no server any more, though it goes on sending to them.
        f"  {_UNAVAILABLE} if {{ nbsrv lt 1 }} !{{ stopping }}",
        "  http-request set-var(txn.sent) bool(true)",
        f"  default-server pool-purge-delay {purge}s{tls}",
        *(
            f"  server {slot_name(number)} {slots[number]}"
            if number in slots
            else f"  server {slot_name(number)} 127.0.0.1:1 disabled"
            for number in range(1, SLOTS_PER_GROUP + 1)
        ),
    ]


def slot_name(number: int) -> str:
    """Name of a server slot."""
    return f"s{number}"


def render(
    node: HaproxyNode,
    load_balancer: LoadBalancer,
    groups: Mapping[str, TargetGroup],
    nat_addresses: Sequence[str],
    slots: Mapping[str, Mapping[int, Target]],
) -> str:
    """The configuration. As long as its text for empty ``slots`` stays the same, no reload is needed.

    Args:
        node: where it runs.
        load_balancer: the version of it that has reached this node.
        groups: target groups by ARN, at least those its rules name.
        nat_addresses: the VPC's NAT gateways; pods' requests to a public load balancer come from the first.
        slots: the targets that get requests, by target group ARN and slot number.
    """
    idle = f"{int(load_balancer.idle_timeout_seconds)}s"
    lines = [
        f"# {load_balancer.name}, node {node.name}; written by twin.loadbalancer, overwritten at each change",
        "global",
        "  log stdout len 8192 format raw daemon info",
        f"  stats socket {node.directory}/stats.sock level admin expose-fd listeners",
        "  nbthread 1",
        "  maxconn 8000",
        # An old worker goes on until its last connection ends; a client may keep one this long.
        f"  hard-stop-after {int(load_balancer.client_keep_alive_seconds)}s",
        "defaults",
        "  mode http",
        "  log global",
        "  retries 0",
        "  http-reuse always",
        "  option idle-close-on-response",
        f"  timeout connect {int(node.connect_timeout_seconds)}s",
        f"  timeout client {idle}",
        f"  timeout server {idle}",
        f"  timeout http-request {idle}",
        f"  timeout http-keep-alive {idle}",
        f"  http-error status 502 {_page('502 Bad Gateway')}",
        f"  http-error status 503 {_page('502 Bad Gateway')}",  # only for a connection refused; see above
        f"  http-error status 504 {_page('504 Gateway Time-out')}",
    ]
    rules = 0
    for listener in load_balancer.listeners:
        lines.extend(_outer(node, load_balancer, listener))
        lines.extend(_inner(node, load_balancer, listener, nat_addresses, rules))
        rules += len(listener.rules)
    lines.extend(["backend no-target-group", f"  {_UNAVAILABLE}"])
    for arn in load_balancer.target_groups():
        lines.extend(_backend(groups[arn], load_balancer.idle_timeout_seconds, slots.get(arn, {})))
    return "\n".join(lines) + "\n"
