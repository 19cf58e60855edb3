"""A load balancer in ELBv2's terms: listeners, rules, target groups, targets. Plain values, no I/O."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, order=True)
class Target:
    """A registered ip target."""

    ip: str
    port: int

    def __str__(self) -> str:
        """``ip:port``."""
        return f"{self.ip}:{self.port}"


@dataclass(frozen=True)
class HealthCheck:
    """Health check of a target group. All times in seconds."""

    protocol: str = "HTTP"
    port: str = "traffic-port"
    path: str = "/"
    interval_seconds: float = 30.0
    timeout_seconds: float = 5.0
    healthy_threshold: int = 5
    unhealthy_threshold: int = 2
    matcher: str = "200"


@dataclass(frozen=True)
class TargetGroup:
    """A target group with the attributes that change what the load balancer does."""

    arn: str
    name: str
    port: int
    protocol: str = "HTTP"
    health_check: HealthCheck = field(default_factory=HealthCheck)
    deregistration_delay_seconds: float = 300.0
    balance: str = "round_robin"


@dataclass(frozen=True)
class Forward:
    """Weighted forward: (target group ARN, weight) pairs."""

    weights: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Redirect:
    """Redirect with ELB's placeholders (``#{host}`` …) still in its parts."""

    status: int
    protocol: str = "#{protocol}"
    host: str = "#{host}"
    port: str = "#{port}"
    path: str = "/#{path}"
    query: str = "#{query}"


@dataclass(frozen=True)
class FixedResponse:
    """A response made by the load balancer itself."""

    status: int
    content_type: str = "text/plain"
    body: str = ""


Action = Forward | Redirect | FixedResponse


@dataclass(frozen=True)
class Condition:
    """One condition of a rule; it holds if any of its values matches.

    ``kind`` is host-header, path-pattern, http-header, http-request-method or source-ip.
    """

    kind: str
    values: tuple[str, ...]
    header: str = ""


@dataclass(frozen=True)
class Rule:
    """A listener rule. The default rule has priority ``default`` and no conditions."""

    priority: str
    conditions: tuple[Condition, ...]
    action: Action


@dataclass(frozen=True)
class Listener:
    """A listener; ``certificates`` are ACM ARNs, the default one first. Rules are in order, the default one last."""

    port: int
    protocol: str
    rules: tuple[Rule, ...]
    certificates: tuple[str, ...] = ()
    ssl_policy: str = ""


@dataclass(frozen=True)
class LoadBalancer:
    """An application load balancer as one version of it stands. Seconds throughout."""

    arn: str
    name: str
    dns_name: str
    internet_facing: bool
    listeners: tuple[Listener, ...]
    idle_timeout_seconds: float = 60.0
    client_keep_alive_seconds: float = 3600.0
    http2: bool = True

    @property
    def dimension(self) -> str:
        """Its CloudWatch dimension: ``app/<name>/<id>``."""
        return self.arn.partition(":loadbalancer/")[2]

    def forwards(self) -> dict[str, Forward]:
        """Every forward action by its rule's key."""
        return {
            rule_key(listener, rule): rule.action
            for listener in self.listeners
            for rule in listener.rules
            if isinstance(rule.action, Forward)
        }

    def target_groups(self) -> list[str]:
        """ARNs of the target groups that any rule names, each once, in order."""
        return list(dict.fromkeys(arn for forward in self.forwards().values() for arn, _ in forward.weights))


def rule_key(listener: Listener, rule: Rule) -> str:
    """A rule's name inside its load balancer, such as ``443/default``."""
    return f"{listener.port}/{rule.priority}"


def target_group_dimension(arn: str) -> str:
    """Return a target group's CloudWatch dimension: ``targetgroup/<name>/<id>``."""
    return arn.rpartition(":")[2]


def groups_in_use(load_balancers: list[LoadBalancer], *, weight_zero_unused: bool) -> set[str]:
    """ARNs of the target groups that count as used.

    Args:
        load_balancers: all there are.
        weight_zero_unused: whether a group that has weight 0 in every rule naming it counts as unused.
    """
    return {
        arn
        for load_balancer in load_balancers
        for forward in load_balancer.forwards().values()
        for arn, weight in forward.weights
        if weight > 0 or not weight_zero_unused
    }


@dataclass(frozen=True)
class Snapshot:
    """The state of the AWS API at one moment.

    ``problems`` names what the stand-in does not implement; what it concerns is not served.
    ``names`` maps each DNS name to the load balancer (ARN) it points at; a wildcard starts with ``*.``.
    ``certificates`` maps an ACM ARN to the domain names it covers.
    """

    load_balancers: dict[str, LoadBalancer]
    target_groups: dict[str, TargetGroup]
    targets: dict[str, frozenset[Target]]
    names: dict[str, str]
    certificates: dict[str, tuple[str, ...]]
    nat_addresses: tuple[str, ...]
    problems: tuple[str, ...]
