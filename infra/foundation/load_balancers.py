"""The edge: two load balancers, their certificates and names, production's target groups and rules.

All of it is declared here; the controller in the cluster only binds pods to the groups (release/blue_green.py declares the
Services, bindings and Deployments). Every attribute a release relies on is written out, none is left to a default.

* Production: rule 10 and 11 send requests that carry ``X-ShopCat-Colour`` to that colour, from the NAT addresses and
  ``adminCidrs`` alone; rule 100 is the weighted one. Its actions are changed by release/listener_weights.py only.
* Previews: a load balancer of their own in subnets of its own, so that nothing they do can freeze production's, and its
  addresses are none that production's pods take requests from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import pulumi
import pulumi_aws as aws

from infra.foundation import dns
from infra.names import APPLICATION_PORT, COLOUR_HEADER, COLOURS, HEALTH_PATH, LOAD_BALANCER, Colour, workload_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pulumi_aws.acm.outputs import CertificateDomainValidationOption as Option

    from infra.foundation.network import Network
    from infra.settings import Settings
    from infra.timeouts import DrainBudget

TLS_POLICY = "ELBSecurityPolicy-TLS13-1-2-Res-2021-06"
"""TLS 1.2 and 1.3, forward secrecy only; docs.aws.amazon.com/elasticloadbalancing (security policies)."""

FIRST_COLOUR: Colour = "blue"
HEALTH_TIMEOUT_SECONDS = 3
CLIENT_KEEP_ALIVE_SECONDS = 3600
VALIDATION_MINUTES = 75
"""Longest time that the provider waits for a certificate (registry.terraform.io, aws_acm_certificate_validation, timeouts)."""

Purpose = Literal["validation", "address"]
"""Use of a host's record at Route 53: ACM reads it to issue the certificate, or it leads users to the load balancer."""


def to_enter(records: list[dict[str, str]]) -> str:
    """Describe in one line what a person enters at another DNS: the certificate's records, as many names after them."""
    lines = [f"{record['name']} {record['type']} {record['value']}" for record in records]
    validation, names = lines[: len(lines) // 2], lines[len(lines) // 2 :]
    return (
        f"shopcat:dns is external: enter {', '.join(validation)}, for which an update waits up to {VALIDATION_MINUTES} "
        f"minutes, and {', '.join(names)} (an ALIAS or ANAME where that is the apex of its zone)"
    )


def target_group(
    resource_name: str, name: str, vpc_id: pulumi.Input[str], drain: DrainBudget, opts: pulumi.ResourceOptions
) -> aws.lb.TargetGroup:
    """Declare a target group for the application's pods: a colour's, or a preview's."""
    return aws.lb.TargetGroup(
        resource_name,
        name=name,
        port=APPLICATION_PORT,
        protocol="HTTP",
        protocol_version="HTTP1",
        target_type="ip",
        vpc_id=vpc_id,
        deregistration_delay=drain.deregistration_delay_seconds,
        slow_start=0,
        load_balancing_algorithm_type="round_robin",
        stickiness=aws.lb.TargetGroupStickinessArgs(type="lb_cookie", enabled=False),
        health_check=aws.lb.TargetGroupHealthCheckArgs(
            enabled=True,
            path=HEALTH_PATH,
            port="traffic-port",
            protocol="HTTP",
            interval=drain.health_interval_seconds,
            timeout=HEALTH_TIMEOUT_SECONDS,
            healthy_threshold=drain.health_threshold,
            unhealthy_threshold=drain.health_threshold,
            matcher="200",
        ),
        opts=opts,
    )


def _option_of(options: Sequence[Option], host: str) -> Option:
    """Return the record by which ACM knows that a host is ours; ACM lists the hosts of a certificate in any order.

    A host that the certificate lacks gets the first one: on a way back both it and the host's record stay as they are.
    """
    return next((each for each in options if each.domain_name == host), options[0])


def record_name(balancer: str, purpose: Purpose, host: str) -> str:
    """Return the logical name of a host's record: one name, whichever role and place the host has in the settings.

    So a host that moves between `domain` and `domainAliases` keeps its records: two names of one record would each make and
    delete it. No host and no load balancer has an `@` in its name, so no two records have one name.
    """
    return f"{balancer}-{purpose}@{host}"


def former_names(balancer: str, purpose: Purpose, host: str, *, is_first: bool) -> list[pulumi.Alias]:
    """Return what a state calls this record that was made when the first host's records were named by its role.

    The name by host comes first, since it is no other host's.
    """
    by_host, by_role = {
        "validation": (f"{balancer}-validation-{host}", f"{balancer}-validation"),
        "address": (f"{balancer}-{host}", f"{balancer}-0"),
    }[purpose]
    return [pulumi.Alias(name=name) for name in ([by_host, by_role] if is_first else [by_host])]


class LoadBalancer(pulumi.ComponentResource):
    """An application load balancer with HTTPS, a certificate by DNS and its name; 80 leads to 443."""

    def __init__(
        self,
        name: str,
        *,
        hosts: list[str],
        zone_id: str | None,
        network: Network,
        subnet_ids: Sequence[pulumi.Input[str]],
        drain: DrainBudget,
        protect: bool,
        opts: pulumi.ResourceOptions,
    ) -> None:
        super().__init__("shopcat:edge:LoadBalancer", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        self.group = aws.ec2.SecurityGroup(
            name,
            name=f"{name}-load-balancer",
            description=f"HTTPS to {name} and from there to pods",
            vpc_id=network.vpc_id,
            opts=child,
        )
        for port in (80, 443):
            aws.vpc.SecurityGroupIngressRule(
                f"{name}-in-{port}",
                security_group_id=self.group.id,
                cidr_ipv4="0.0.0.0/0",
                from_port=port,
                to_port=port,
                ip_protocol="tcp",
                opts=child,
            )
        aws.vpc.SecurityGroupEgressRule(
            f"{name}-to-pods",
            security_group_id=self.group.id,
            cidr_ipv4=network.cidr,
            from_port=APPLICATION_PORT,
            to_port=APPLICATION_PORT,
            ip_protocol="tcp",
            opts=child,
        )
        self.balancer = aws.lb.LoadBalancer(
            name,
            name=name,
            load_balancer_type="application",
            internal=False,
            subnets=list(subnet_ids),
            security_groups=[self.group.id],
            idle_timeout=drain.idle_timeout_seconds,
            client_keep_alive=CLIENT_KEEP_ALIVE_SECONDS,
            drop_invalid_header_fields=True,
            enable_deletion_protection=protect,
            opts=pulumi.ResourceOptions(parent=self, protect=protect),
        )
        self.certificate = certificate = aws.acm.Certificate(
            name,
            domain_name=hosts[0],
            subject_alternative_names=hosts[1:] or None,
            validation_method="DNS",
            opts=child,
        )
        options = {
            host: certificate.domain_validation_options.apply(lambda each, host=host: _option_of(each, host))
            for host in hosts
        }
        self.names = pulumi.Output.from_input([]) if zone_id else self._to_be_entered(options)
        validated = self._validation_records(name, zone_id, options) if zone_id else []
        issued = aws.acm.CertificateValidation(
            name,
            certificate_arn=certificate.arn,
            opts=pulumi.ResourceOptions(parent=self, depends_on=validated),
        )
        aws.lb.Listener(
            f"{name}-http",
            load_balancer_arn=self.balancer.arn,
            port=80,
            protocol="HTTP",
            default_actions=[
                aws.lb.ListenerDefaultActionArgs(
                    type="redirect",
                    redirect=aws.lb.ListenerDefaultActionRedirectArgs(
                        protocol="HTTPS", port="443", status_code="HTTP_301"
                    ),
                )
            ],
            opts=child,
        )
        self.listener = aws.lb.Listener(
            f"{name}-https",
            load_balancer_arn=self.balancer.arn,
            port=443,
            protocol="HTTPS",
            ssl_policy=TLS_POLICY,
            certificate_arn=issued.certificate_arn,
            default_actions=[
                aws.lb.ListenerDefaultActionArgs(
                    type="fixed-response",
                    fixed_response=aws.lb.ListenerDefaultActionFixedResponseArgs(
                        content_type="text/plain", message_body="No such shop here.\n", status_code="404"
                    ),
                )
            ],
            opts=child,
        )
        if zone_id:
            self._address_records(name, zone_id, hosts)
        self.register_outputs({"dnsName": self.balancer.dns_name})

    def _validation_records(
        self, name: str, zone_id: str, options: Mapping[str, pulumi.Output[Option]]
    ) -> list[pulumi.Resource]:
        return [
            aws.route53.Record(
                record_name(name, "validation", host),
                zone_id=zone_id,
                name=option.resource_record_name.apply(lambda text: (text or "").rstrip(".")),
                type=option.resource_record_type.apply(lambda text: text or "CNAME"),
                ttl=300,
                records=[option.resource_record_value.apply(lambda text: text or "")],
                allow_overwrite=True,
                opts=pulumi.ResourceOptions(
                    parent=self, aliases=former_names(name, "validation", host, is_first=index == 0)
                ),
            )
            for index, (host, option) in enumerate(options.items())
        ]

    def _address_records(self, name: str, zone_id: str, hosts: list[str]) -> None:
        """Declare each host's A record; a new host gets it once the listener has a certificate that names it."""
        for index, host in enumerate(hosts):
            aws.route53.Record(
                record_name(name, "address", host),
                zone_id=zone_id,
                name=host,
                type="A",
                aliases=[
                    aws.route53.RecordAliasArgs(
                        name=self.balancer.dns_name, zone_id=self.balancer.zone_id, evaluate_target_health=False
                    )
                ],
                opts=pulumi.ResourceOptions(
                    parent=self,
                    depends_on=[self.listener],
                    aliases=former_names(name, "address", host, is_first=index == 0),
                ),
            )

    def _to_be_entered(self, options: Mapping[str, pulumi.Output[Option]]) -> pulumi.Output[list[dict[str, str]]]:
        """Return, and log, what a person enters at a DNS elsewhere."""
        aliases = [
            pulumi.Output.all(host, self.balancer.dns_name).apply(
                lambda pair: {"name": pair[0], "type": "CNAME", "value": pair[1]}
            )
            for host in options
        ]
        validation = [
            pulumi.Output.all(
                option.resource_record_name, option.resource_record_type, option.resource_record_value
            ).apply(lambda three: {"name": three[0] or "", "type": three[1] or "", "value": three[2] or ""})
            for option in options.values()
        ]
        records: pulumi.Output[list[dict[str, str]]] = pulumi.Output.all(*validation, *aliases).apply(list)
        if not pulumi.runtime.is_dry_run():
            # Said of the balancer: the engine's display shows one message of each resource while it waits.
            records.apply(lambda entries: pulumi.log.info(to_enter(entries), self))
        return records


class LoadBalancers(pulumi.ComponentResource):
    """Both load balancers, and how requests reach production's two colours."""

    def __init__(
        self,
        name: str,
        settings: Settings,
        *,
        zone_ids: Mapping[str, str],
        network: Network,
        cluster_security_group_id: pulumi.Input[str],
        opts: pulumi.ResourceOptions,
    ) -> None:
        super().__init__("shopcat:edge:Edge", name, None, opts)
        drain = settings.drain.budget
        self._guarded = settings.protection
        inner = pulumi.ResourceOptions(parent=self)

        def declare(name: dns.DnsName, subnet_ids: Sequence[pulumi.Input[str]]) -> LoadBalancer:
            return LoadBalancer(
                name.balancer,
                hosts=[each.host for each in name.each_host()],
                zone_id=zone_ids.get(name.balancer),
                network=network,
                subnet_ids=subnet_ids,
                drain=drain,
                protect=settings.protection,
                opts=inner,
            )

        production, previews = dns.dns_names(settings, LOAD_BALANCER)
        self.production = declare(production, network.public_subnet_ids)
        self.previews = declare(previews, network.preview_subnet_ids)
        self.target_groups: Mapping[Colour, aws.lb.TargetGroup] = {
            colour: target_group(
                f"group-{colour}",
                workload_name(colour),
                network.vpc_id,
                drain,
                pulumi.ResourceOptions(parent=self, protect=self._guarded),
            )
            for colour in COLOURS
        }
        sources = [*(address.apply(lambda ip: f"{ip}/32") for address in network.nat_addresses), *settings.admin_cidrs]
        rules = [self._colour_rule(colour, 10 + index, sources) for index, colour in enumerate(COLOURS)]
        weighted = self._weighted_rule()
        for users, description, balancer in (
            ("production", "production load balancer to pods", self.production),
            ("previews", "preview load balancer to pods", self.previews),
        ):
            aws.vpc.SecurityGroupIngressRule(
                f"pods-from-{users}",
                security_group_id=cluster_security_group_id,
                referenced_security_group_id=balancer.group.id,
                from_port=APPLICATION_PORT,
                to_port=APPLICATION_PORT,
                ip_protocol="tcp",
                description=description,
                opts=inner,
            )
        both = pulumi.Output.all(self.production.names, self.previews.names)
        self.records: pulumi.Output[list[dict[str, str]]] = both.apply(lambda two: [*two[0], *two[1]])
        self.security_group = self.production.group
        self.ready: list[pulumi.Resource] = [*self.target_groups.values(), *rules, weighted]
        self.register_outputs({"dnsName": self.production.balancer.dns_name})

    def _colour_rule(self, colour: Colour, priority: int, sources: list[pulumi.Input[str]]) -> aws.lb.ListenerRule:
        return aws.lb.ListenerRule(
            f"colour-{colour}",
            listener_arn=self.production.listener.arn,
            priority=priority,
            conditions=[
                aws.lb.ListenerRuleConditionArgs(
                    http_header=aws.lb.ListenerRuleConditionHttpHeaderArgs(
                        http_header_name=COLOUR_HEADER, values=[colour]
                    )
                ),
                aws.lb.ListenerRuleConditionArgs(source_ip=aws.lb.ListenerRuleConditionSourceIpArgs(values=sources)),
            ],
            actions=[aws.lb.ListenerRuleActionArgs(type="forward", target_group_arn=self.target_groups[colour].arn)],
            opts=pulumi.ResourceOptions(parent=self),
        )

    def _weighted_rule(self) -> aws.lb.ListenerRule:
        """Declare the rule that sends all to blue at first; from then on a release alone changes the weights."""
        return aws.lb.ListenerRule(
            "weighted",
            listener_arn=self.production.listener.arn,
            priority=100,
            conditions=[
                aws.lb.ListenerRuleConditionArgs(
                    path_pattern=aws.lb.ListenerRuleConditionPathPatternArgs(values=["/*"])
                )
            ],
            actions=[
                aws.lb.ListenerRuleActionArgs(
                    type="forward",
                    forward=aws.lb.ListenerRuleActionForwardArgs(
                        target_groups=[
                            aws.lb.ListenerRuleActionForwardTargetGroupArgs(
                                arn=self.target_groups[colour].arn, weight=100 if colour == FIRST_COLOUR else 0
                            )
                            for colour in COLOURS
                        ],
                    ),
                )
            ],
            opts=pulumi.ResourceOptions(parent=self, protect=self._guarded, ignore_changes=["actions"]),
        )
