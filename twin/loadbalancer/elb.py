"""Reads load balancers, rules, target groups, targets, names and certificates from the AWS API.

What the stand-in does not implement is listed by name in the snapshot's ``problems``; what it concerns is not served.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from twin.loadbalancer.haproxy_config import tls_versions
from twin.loadbalancer.model import (
    Action,
    Condition,
    FixedResponse,
    Forward,
    HealthCheck,
    Listener,
    LoadBalancer,
    Redirect,
    Rule,
    Snapshot,
    Target,
    TargetGroup,
)

REGISTERED_ONLY_HEADER = "X-Twin-Registered-Only"
"""Sent with DescribeTargetHealth: "say which targets are registered, don't ask the load balancer for their health"."""

_ATTRIBUTES_IGNORED = {
    "load balancer": {
        "deletion_protection.enabled",
        "access_logs.s3.enabled",
        "access_logs.s3.bucket",
        "access_logs.s3.prefix",
        "connection_logs.s3.enabled",
        "connection_logs.s3.bucket",
        "connection_logs.s3.prefix",
        "idle_timeout.timeout_seconds",
        "client_keep_alive.seconds",
        "routing.http2.enabled",
        "routing.http.drop_invalid_header_fields.enabled",
        "routing.http.desync_mitigation_mode",
        "load_balancing.cross_zone.enabled",
        "ipv6.deny_all_igw_traffic",
        "zonal_shift.config.enabled",
        "health_check_logs.s3.enabled",
        "health_check_logs.s3.bucket",
        "health_check_logs.s3.prefix",
    },
    "target group": {
        "deregistration_delay.timeout_seconds",
        "load_balancing.algorithm.type",
        "stickiness.type",
        "stickiness.lb_cookie.duration_seconds",
        "stickiness.app_cookie.cookie_name",
        "stickiness.app_cookie.duration_seconds",
        "load_balancing.cross_zone.enabled",
        "target_group_health.dns_failover.minimum_healthy_targets.count",
        "target_group_health.dns_failover.minimum_healthy_targets.percentage",
        "target_group_health.unhealthy_state_routing.minimum_healthy_targets.count",
        "target_group_health.unhealthy_state_routing.minimum_healthy_targets.percentage",
        "waf.fail_open.enabled",
        "load_balancing.algorithm.anomaly_mitigation",
    },
}
"""Attributes that are implemented, or whose values change nothing that this machine can show."""

_HARMLESS_VALUES = {"", "false", "off", "0", "append", "use_load_balancer_configuration", "defensive", "monitor"}


class UnimplementedError(Exception):
    """Something ELBv2 accepted and the stand-in doesn't do."""

    def __init__(self, what: str) -> None:
        super().__init__(f"twin: {what} is not implemented by the stand-in")


def _attributes(kind: str, pairs: Iterable[Mapping[str, str]]) -> dict[str, str]:
    values = {pair["Key"]: pair["Value"] for pair in pairs}
    for key, value in values.items():
        if key not in _ATTRIBUTES_IGNORED[kind] and value not in _HARMLESS_VALUES:
            raise UnimplementedError(f"{kind} attribute {key}={value}")
    return values


def parse_condition(document: Mapping[str, Any]) -> Condition:
    """A rule's condition.

    Raises:
        UnimplementedError: a kind of condition that is not played (query-string), or regular expressions.
    """
    kind = document["Field"]
    configurations = {
        "host-header": "HostHeaderConfig",
        "path-pattern": "PathPatternConfig",
        "http-header": "HttpHeaderConfig",
        "http-request-method": "HttpRequestMethodConfig",
        "source-ip": "SourceIpConfig",
    }
    if kind not in configurations:
        raise UnimplementedError(f"the rule condition {kind}")
    configuration = document.get(configurations[kind]) or {}
    if configuration.get("RegexValues") or document.get("RegexValues"):
        raise UnimplementedError(f"RegexValues in the rule condition {kind}")
    values = tuple(configuration.get("Values") or document.get("Values") or ())
    for value in values:
        if not value.isprintable() or "'" in value:
            raise UnimplementedError(f"the value {value!r} in the rule condition {kind}")
    return Condition(kind, values, configuration.get("HttpHeaderName", ""))


def parse_action(documents: Iterable[Mapping[str, Any]]) -> Action:
    """A rule's one action.

    Raises:
        UnimplementedError: authentication, sticky groups, several actions.
    """
    actions = list(documents)
    if len(actions) != 1:
        raise UnimplementedError(f"a rule with {len(actions)} actions")
    (action,) = actions
    kind = action["Type"]
    if kind == "forward":
        configuration = action.get("ForwardConfig") or {}
        if (configuration.get("TargetGroupStickinessConfig") or {}).get("Enabled"):
            raise UnimplementedError("target group stickiness in a forward action")
        groups = configuration.get("TargetGroups") or [{"TargetGroupArn": action["TargetGroupArn"]}]
        return Forward(tuple((group["TargetGroupArn"], int(group.get("Weight", 1))) for group in groups))
    if kind == "redirect":
        configuration = action["RedirectConfig"]
        return Redirect(
            status=int(configuration["StatusCode"].removeprefix("HTTP_")),
            **{
                name: configuration[name.capitalize()]
                for name in ("protocol", "host", "port", "path", "query")
                if configuration.get(name.capitalize())
            },
        )
    if kind == "fixed-response":
        configuration = action["FixedResponseConfig"]
        return FixedResponse(
            status=int(configuration["StatusCode"]),
            content_type=configuration.get("ContentType") or "text/plain",
            body=configuration.get("MessageBody") or "",
        )
    raise UnimplementedError(f"the rule action {kind}")


def parse_rules(documents: Iterable[Mapping[str, Any]]) -> tuple[Rule, ...]:
    """A listener's rules, in the order they are evaluated."""
    rules = [
        Rule(
            "default" if document.get("IsDefault") else str(document["Priority"]),
            tuple(parse_condition(condition) for condition in document.get("Conditions", [])),
            parse_action(document["Actions"]),
        )
        for document in documents
    ]
    return tuple(sorted(rules, key=lambda rule: float("inf") if rule.priority == "default" else int(rule.priority)))


def parse_target_group(document: Mapping[str, Any], attributes: Iterable[Mapping[str, str]]) -> TargetGroup:
    """A target group.

    Raises:
        UnimplementedError: instance or lambda targets, stickiness, slow start, HTTP/2 to targets.
    """
    values = _attributes("target group", attributes)
    if document.get("TargetType") != "ip":
        raise UnimplementedError(f"target type {document.get('TargetType')} (of {document['TargetGroupName']})")
    if document.get("ProtocolVersion", "HTTP1") not in ("HTTP1", None):
        raise UnimplementedError(f"protocol version {document['ProtocolVersion']} (of {document['TargetGroupName']})")
    if document["Protocol"] not in ("HTTP", "HTTPS"):
        raise UnimplementedError(f"protocol {document['Protocol']} (of {document['TargetGroupName']})")
    if values.get("stickiness.enabled") == "true":
        raise UnimplementedError(f"stickiness (of {document['TargetGroupName']})")
    balance = values.get("load_balancing.algorithm.type", "round_robin")
    if balance not in ("round_robin", "least_outstanding_requests", "weighted_random"):
        raise UnimplementedError(f"load_balancing.algorithm.type={balance}")
    return TargetGroup(
        arn=document["TargetGroupArn"],
        name=document["TargetGroupName"],
        port=int(document["Port"]),
        protocol=document["Protocol"],
        health_check=HealthCheck(
            protocol=document.get("HealthCheckProtocol") or "HTTP",
            port=str(document.get("HealthCheckPort") or "traffic-port"),
            path=document.get("HealthCheckPath") or "/",
            interval_seconds=float(document.get("HealthCheckIntervalSeconds") or 30),
            timeout_seconds=float(document.get("HealthCheckTimeoutSeconds") or 5),
            healthy_threshold=int(document.get("HealthyThresholdCount") or 5),
            unhealthy_threshold=int(document.get("UnhealthyThresholdCount") or 2),
            matcher=(document.get("Matcher") or {}).get("HttpCode") or "200",
        ),
        deregistration_delay_seconds=float(values.get("deregistration_delay.timeout_seconds", "300")),
        balance=balance,
    )


class Reader:
    """Polls the AWS API. Rules and targets are read each time, what seldom changes every ``slow_seconds``."""

    def __init__(self, endpoint: str, region: str, slow_seconds: float) -> None:
        session: Any = boto3.session.Session(
            aws_access_key_id="twin",
            aws_secret_access_key="twin",  # noqa: S106 - moto takes any key
            region_name=region,
        )
        config = Config(connect_timeout=2, read_timeout=10, retries={"total_max_attempts": 1})

        def client(service: str) -> Any:
            return session.client(service, endpoint_url=endpoint, config=config)

        self._elb = client("elbv2")
        self._acm = client("acm")
        self._route53 = client("route53")
        self._ec2 = client("ec2")
        self.cloudwatch = client("cloudwatch")
        self._elb.meta.events.register(
            "before-sign.elastic-load-balancing-v2.DescribeTargetHealth",
            lambda request, **_: request.headers.add_header(REGISTERED_ONLY_HEADER, "1"),
        )
        self._slow_seconds = slow_seconds
        self._slow_due = 0.0
        self._load_balancers: list[dict[str, Any]] = []
        self._load_balancer_attributes: dict[str, list[dict[str, str]]] = {}
        self._listeners: dict[str, list[dict[str, Any]]] = {}
        self._certificates: dict[str, tuple[str, ...]] = {}
        self._extra_certificates: dict[str, tuple[str, ...]] = {}
        self._groups: list[dict[str, Any]] = []
        self._group_attributes: dict[str, list[dict[str, str]]] = {}
        self._names: dict[str, str] = {}
        self._nat_addresses: tuple[str, ...] = ()

    def _read_slow(self) -> None:
        self._load_balancers = [
            load_balancer
            for page in self._elb.get_paginator("describe_load_balancers").paginate()
            for load_balancer in page["LoadBalancers"]
        ]
        self._groups = [
            group
            for page in self._elb.get_paginator("describe_target_groups").paginate()
            for group in page["TargetGroups"]
        ]
        self._load_balancer_attributes = {}
        self._listeners = {}
        self._extra_certificates = {}
        for document in self._load_balancers:
            arn = document["LoadBalancerArn"]
            self._load_balancer_attributes[arn] = self._elb.describe_load_balancer_attributes(LoadBalancerArn=arn)[
                "Attributes"
            ]
            self._listeners[arn] = self._elb.describe_listeners(LoadBalancerArn=arn)["Listeners"]
            for listener in self._listeners[arn]:
                if listener["Protocol"] == "HTTPS":
                    extra = self._elb.describe_listener_certificates(ListenerArn=listener["ListenerArn"])
                    self._extra_certificates[listener["ListenerArn"]] = tuple(
                        certificate["CertificateArn"]
                        for certificate in extra["Certificates"]
                        if not certificate.get("IsDefault")
                    )
        self._group_attributes = {
            group["TargetGroupArn"]: self._elb.describe_target_group_attributes(TargetGroupArn=group["TargetGroupArn"])[
                "Attributes"
            ]
            for group in self._groups
        }
        self._read_certificates()
        self._names = self._read_names()
        gateways = self._ec2.describe_nat_gateways(Filter=[{"Name": "state", "Values": ["available"]}])["NatGateways"]
        self._nat_addresses = tuple(
            sorted(
                address["PublicIp"]
                for gateway in gateways
                for address in gateway.get("NatGatewayAddresses", [])
                if address.get("PublicIp")
            )
        )

    def _read_certificates(self) -> None:
        wanted = {
            certificate["CertificateArn"]
            for listeners in self._listeners.values()
            for listener in listeners
            for certificate in listener.get("Certificates") or []
        } | {arn for arns in self._extra_certificates.values() for arn in arns}
        for arn in wanted - set(self._certificates):
            certificate = self._acm.describe_certificate(CertificateArn=arn)["Certificate"]
            self._certificates[arn] = tuple(
                dict.fromkeys([certificate["DomainName"], *certificate.get("SubjectAlternativeNames", [])])
            )

    def _read_names(self) -> dict[str, str]:
        by_dns_name = {
            load_balancer["DNSName"].lower(): load_balancer["LoadBalancerArn"] for load_balancer in self._load_balancers
        }
        names = dict(by_dns_name)
        for zone in self._route53.list_hosted_zones()["HostedZones"]:
            pages = self._route53.get_paginator("list_resource_record_sets").paginate(HostedZoneId=zone["Id"])
            for record in (record_set for page in pages for record_set in page["ResourceRecordSets"]):
                if record["Type"] in ("A", "AAAA"):
                    points_at = [record["AliasTarget"]["DNSName"]] if record.get("AliasTarget") else []
                elif record["Type"] == "CNAME":
                    points_at = [value["Value"] for value in record.get("ResourceRecords", [])]
                else:
                    continue
                for name in points_at:
                    arn = by_dns_name.get(name.rstrip(".").lower().removeprefix("dualstack."))
                    if arn is not None:
                        names[record["Name"].rstrip(".").lower().replace("\\052", "*")] = arn
        return names

    def read(self) -> Snapshot:
        """Everything as the AWS API says it now.

        Raises:
            ClientError: the API refused (a target group deleted in between, say).
            BotoCoreError: the API can't be reached.
        """
        if time.monotonic() >= self._slow_due:
            self._read_slow()
            self._slow_due = time.monotonic() + self._slow_seconds
        problems: list[str] = []
        groups: dict[str, TargetGroup] = {}
        targets: dict[str, frozenset[Target]] = {}
        for document in self._groups:
            arn = document["TargetGroupArn"]
            try:
                groups[arn] = parse_target_group(document, self._group_attributes[arn])
            except UnimplementedError as error:
                problems.append(str(error))
                continue
            descriptions = self._elb.describe_target_health(TargetGroupArn=arn)["TargetHealthDescriptions"]
            targets[arn] = frozenset(
                Target(description["Target"]["Id"], int(description["Target"].get("Port") or document["Port"]))
                for description in descriptions
            )
        load_balancers: dict[str, LoadBalancer] = {}
        for document in self._load_balancers:
            try:
                load_balancers[document["LoadBalancerArn"]] = self._load_balancer(document, groups)
            except UnimplementedError as error:
                problems.append(f"{document['LoadBalancerName']}: {error}")
        names = {name: arn for name, arn in self._names.items() if arn in load_balancers}
        return Snapshot(
            load_balancers,
            groups,
            targets,
            names,
            dict(self._certificates),
            self._nat_addresses,
            tuple(dict.fromkeys(problems)),
        )

    def _load_balancer(self, document: dict[str, Any], groups: Mapping[str, TargetGroup]) -> LoadBalancer:
        arn = document["LoadBalancerArn"]
        if document.get("Type", "application") != "application":
            raise UnimplementedError(f"load balancer type {document['Type']}")
        values = _attributes("load balancer", self._load_balancer_attributes[arn])
        listeners = []
        for listener in sorted(self._listeners[arn], key=lambda each: int(each["Port"])):
            if listener["Protocol"] not in ("HTTP", "HTTPS"):
                raise UnimplementedError(f"listener protocol {listener['Protocol']}")
            if (listener.get("MutualAuthentication") or {}).get("Mode", "off") != "off":
                raise UnimplementedError("mutual authentication")
            policy = listener.get("SslPolicy") or ""
            if listener["Protocol"] == "HTTPS" and tls_versions(policy) is None:
                raise UnimplementedError(f"the TLS policy {policy}")
            pages = self._elb.get_paginator("describe_rules").paginate(ListenerArn=listener["ListenerArn"])
            rules = parse_rules(rule for page in pages for rule in page["Rules"])
            default = [certificate["CertificateArn"] for certificate in listener.get("Certificates") or []]
            listeners.append(
                Listener(
                    port=int(listener["Port"]),
                    protocol=listener["Protocol"],
                    rules=rules,
                    certificates=tuple(
                        dict.fromkeys([*default, *self._extra_certificates.get(listener["ListenerArn"], ())])
                    ),
                    ssl_policy=policy,
                )
            )
        result = LoadBalancer(
            arn=arn,
            name=document["LoadBalancerName"],
            dns_name=document["DNSName"].lower(),
            internet_facing=document.get("Scheme") == "internet-facing",
            listeners=tuple(listeners),
            idle_timeout_seconds=float(values.get("idle_timeout.timeout_seconds", "60")),
            client_keep_alive_seconds=float(values.get("client_keep_alive.seconds", "3600")),
            http2=values.get("routing.http2.enabled", "true") == "true",
        )
        for group in result.target_groups():
            if group not in groups:
                raise UnimplementedError(f"a rule forwards to {group}, which")
        return result


AWS_ERRORS = (ClientError, BotoCoreError)
