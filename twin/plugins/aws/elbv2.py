"""ELBv2 types. Force-new fields follow terraform-provider-aws internal/service/elbv2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twin.plugins.aws.kind import Aws, Kind, existing, pick, tag_list
from twin.plugins.common import Properties, ProviderError

CONDITIONS = {
    "hostHeader": ("host-header", "HostHeaderConfig"),
    "pathPattern": ("path-pattern", "PathPatternConfig"),
    "sourceIp": ("source-ip", "SourceIpConfig"),
    "httpHeader": ("http-header", "HttpHeaderConfig"),
}
"""Conditions of a rule: the provider's name → the API's field and its configuration."""


class _Elb(Kind):
    tagged = True

    def tag(self, aws: Aws, identifier: str, state: Properties, add: dict[str, str], remove: list[str]) -> None:
        del state
        if add:
            aws("elbv2").add_tags(ResourceArns=[identifier], Tags=tag_list(add))
        if remove:
            aws("elbv2").remove_tags(ResourceArns=[identifier], TagKeys=remove)

    def description(self, aws: Aws, operation: str, argument: str, key: str, arn: str) -> dict[str, Any] | None:
        """Return one description by ARN, or None."""
        items = existing(lambda: getattr(aws("elbv2"), operation)(**{argument: [arn]})[key])
        return items[0] if items else None


class LoadBalancer(_Elb):
    """aws_lb of type application; the id is the ARN."""

    token = "aws:lb/loadBalancer:LoadBalancer"
    _ATTRIBUTES = {
        "idleTimeout": "idle_timeout.timeout_seconds",
        "clientKeepAlive": "client_keep_alive.seconds",
        "enableDeletionProtection": "deletion_protection.enabled",
        "dropInvalidHeaderFields": "routing.http.drop_invalid_header_fields.enabled",
        "enableHttp2": "routing.http2.enabled",
        "desyncMitigationMode": "routing.http.desync_mitigation_mode",
        "preserveHostHeader": "routing.http.preserve_host_header.enabled",
        "xffHeaderProcessingMode": "routing.http.xff_header_processing.mode",
    }
    inputs = frozenset(
        {"name", "internal", "loadBalancerType", "ipAddressType", "securityGroups", "subnets", *_ATTRIBUTES}
    )
    replaces = frozenset({"name", "internal", "loadBalancerType"})
    name_property = "name"
    name_limit = 32
    defaults = {"loadBalancerType": "application"}

    def create(self, aws: Aws, inputs: Properties) -> str:
        if inputs["loadBalancerType"] != "application":
            raise ProviderError(f"twin: load balancer type {inputs['loadBalancerType']} is not implemented")
        arguments = pick(inputs, Name="name", Subnets="subnets", SecurityGroups="securityGroups")
        arguments |= pick(inputs, Type="loadBalancerType", IpAddressType="ipAddressType")
        arguments["Scheme"] = "internal" if inputs.get("internal") else "internet-facing"
        arn: str = aws("elbv2").create_load_balancer(**arguments)["LoadBalancers"][0]["LoadBalancerArn"]
        self.update(aws, arn, {}, inputs, set(self._ATTRIBUTES) & set(inputs))
        return arn

    def read(self, aws: Aws, identifier: str, state: Properties) -> Properties | None:
        del state
        load_balancer = self.description(
            aws, "describe_load_balancers", "LoadBalancerArns", "LoadBalancers", identifier
        )
        if load_balancer is None:
            return None
        return {
            "arn": identifier,
            "arnSuffix": identifier.partition(":loadbalancer/")[2],
            "name": load_balancer["LoadBalancerName"],
            "dnsName": load_balancer["DNSName"],
            "zoneId": load_balancer["CanonicalHostedZoneId"],
            "vpcId": load_balancer["VpcId"],
        }

    def update(self, aws: Aws, identifier: str, state: Properties, new: Properties, changed: set[str]) -> None:
        named = [name for name in self._ATTRIBUTES if name in changed]
        if named:
            attributes = [{"Key": self._ATTRIBUTES[name], "Value": _text(new[name])} for name in named if name in new]
            aws("elbv2").modify_load_balancer_attributes(LoadBalancerArn=identifier, Attributes=attributes)
        if "securityGroups" in changed:
            aws("elbv2").set_security_groups(LoadBalancerArn=identifier, SecurityGroups=new["securityGroups"])
        if "subnets" in changed:
            aws("elbv2").set_subnets(LoadBalancerArn=identifier, Subnets=new["subnets"])
        super().update(aws, identifier, state, new, changed - {*self._ATTRIBUTES, "securityGroups", "subnets"})

    def delete(self, aws: Aws, identifier: str, state: Properties) -> None:
        if state.get("enableDeletionProtection"):
            raise ProviderError(
                f"load balancer {state.get('name')} has deletion protection; set enableDeletionProtection to false first"
            )
        aws("elbv2").delete_load_balancer(LoadBalancerArn=identifier)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


class TargetGroup(_Elb):
    """aws_lb_target_group; the id is the ARN."""

    token = "aws:lb/targetGroup:TargetGroup"
    _ATTRIBUTES = {
        "deregistrationDelay": "deregistration_delay.timeout_seconds",
        "slowStart": "slow_start.duration_seconds",
        "loadBalancingAlgorithmType": "load_balancing.algorithm.type",
        "loadBalancingAnomalyMitigation": "load_balancing.algorithm.anomaly_mitigation",
        "loadBalancingCrossZoneEnabled": "load_balancing.cross_zone.enabled",
    }
    inputs = frozenset(
        {"name", "port", "protocol", "protocolVersion", "vpcId", "targetType", "healthCheck", "stickiness",
         "ipAddressType", *_ATTRIBUTES}
    )  # fmt: skip
    replaces = frozenset({"name", "port", "protocol", "protocolVersion", "vpcId", "targetType", "ipAddressType"})
    name_property = "name"
    name_limit = 32

    def _health(self, inputs: Properties) -> dict[str, Any]:
        check = inputs.get("healthCheck") or {}
        arguments = pick(
            check,
            HealthCheckPath="path",
            HealthCheckPort="port",
            HealthCheckProtocol="protocol",
            HealthCheckIntervalSeconds="interval",
            HealthCheckTimeoutSeconds="timeout",
            HealthyThresholdCount="healthyThreshold",
            UnhealthyThresholdCount="unhealthyThreshold",
            HealthCheckEnabled="enabled",
        )
        if "matcher" in check:
            arguments["Matcher"] = {"HttpCode": str(check["matcher"])}
        return arguments

    def create(self, aws: Aws, inputs: Properties) -> str:
        arguments = pick(
            inputs,
            Name="name",
            Port="port",
            Protocol="protocol",
            ProtocolVersion="protocolVersion",
            VpcId="vpcId",
            TargetType="targetType",
            IpAddressType="ipAddressType",
        )
        answer = aws("elbv2").create_target_group(**arguments, **self._health(inputs))
        arn: str = answer["TargetGroups"][0]["TargetGroupArn"]
        self.update(aws, arn, {}, inputs, {*self._ATTRIBUTES, "stickiness"} & set(inputs))
        return arn

    def read(self, aws: Aws, identifier: str, state: Properties) -> Properties | None:
        del state
        group = self.description(aws, "describe_target_groups", "TargetGroupArns", "TargetGroups", identifier)
        if group is None:
            return None
        return {
            "arn": identifier,
            "arnSuffix": identifier.rpartition(":")[2],
            "name": group["TargetGroupName"],
            "loadBalancerArns": group.get("LoadBalancerArns", []),
        }

    def update(self, aws: Aws, identifier: str, state: Properties, new: Properties, changed: set[str]) -> None:
        attributes = [
            {"Key": key, "Value": _text(new[name])}
            for name, key in self._ATTRIBUTES.items()
            if name in changed and name in new
        ]
        sticky = new.get("stickiness")
        if "stickiness" in changed and sticky:
            attributes.append({"Key": "stickiness.enabled", "Value": _text(sticky.get("enabled", True))})
            attributes.append({"Key": "stickiness.type", "Value": sticky["type"]})
        if attributes:
            aws("elbv2").modify_target_group_attributes(TargetGroupArn=identifier, Attributes=attributes)
        if "healthCheck" in changed:
            aws("elbv2").modify_target_group(TargetGroupArn=identifier, **self._health(new))
        super().update(aws, identifier, state, new, changed - {*self._ATTRIBUTES, "stickiness", "healthCheck"})

    def delete(self, aws: Aws, identifier: str, state: Properties) -> None:
        del state
        aws("elbv2").delete_target_group(TargetGroupArn=identifier)


def load_balancer_inputs(balancer: Mapping[str, Any], attributes: Mapping[str, str]) -> Properties:
    """Return a described load balancer in the provider's words."""
    numbers = {"idleTimeout": "idle_timeout.timeout_seconds", "clientKeepAlive": "client_keep_alive.seconds"}
    switches = {
        "enableDeletionProtection": "deletion_protection.enabled",
        "dropInvalidHeaderFields": "routing.http.drop_invalid_header_fields.enabled",
    }
    return {
        **pick(balancer, name="LoadBalancerName", loadBalancerType="Type", securityGroups="SecurityGroups"),
        "internal": balancer["Scheme"] == "internal",
        "subnets": [zone["SubnetId"] for zone in balancer["AvailabilityZones"]],
        **{name: int(attributes[key]) for name, key in numbers.items() if key in attributes},
        **{name: attributes[key] == "true" for name, key in switches.items() if key in attributes},
    }


def target_group_inputs(group: Mapping[str, Any], attributes: Mapping[str, str]) -> Properties:
    """Return a described target group in the provider's words, with all that upstream reads of what the stand-in takes."""
    names = {
        "name": "TargetGroupName", "port": "Port", "protocol": "Protocol", "protocolVersion": "ProtocolVersion",
        "vpcId": "VpcId", "targetType": "TargetType",
    }  # fmt: skip
    checked = {
        "enabled": "HealthCheckEnabled", "path": "HealthCheckPath", "port": "HealthCheckPort",
        "protocol": "HealthCheckProtocol", "interval": "HealthCheckIntervalSeconds",
        "timeout": "HealthCheckTimeoutSeconds", "healthyThreshold": "HealthyThresholdCount",
        "unhealthyThreshold": "UnhealthyThresholdCount",
    }  # fmt: skip
    numbers = {
        "deregistrationDelay": "deregistration_delay.timeout_seconds",
        "slowStart": "slow_start.duration_seconds",
    }
    return {
        **pick(group, **names),
        "healthCheck": {**pick(group, **checked), "matcher": str(group["Matcher"]["HttpCode"])},
        **{name: int(attributes[key]) for name, key in numbers.items() if key in attributes},
        **pick(attributes, loadBalancingAlgorithmType="load_balancing.algorithm.type"),
        "stickiness": {"enabled": attributes["stickiness.enabled"] == "true", "type": attributes["stickiness.type"]},
    }


def action_inputs(actions: list[dict[str, Any]]) -> list[Properties]:
    """Return described actions in the provider's words."""
    return [_action_input(action) for action in actions]


def _action_input(action: dict[str, Any]) -> Properties:
    result: Properties = {"type": action["Type"]}
    groups = (action.get("ForwardConfig") or {}).get("TargetGroups") or []
    if len(groups) > 1:
        result["forward"] = {
            "targetGroups": [{"arn": each["TargetGroupArn"], "weight": int(each.get("Weight", 1))} for each in groups]
        }
    elif action["Type"] == "forward":
        result["targetGroupArn"] = action.get("TargetGroupArn") or groups[0]["TargetGroupArn"]
    for name, key, words in (
        ("redirect", "RedirectConfig", ("StatusCode", "Port", "Protocol")),
        ("fixedResponse", "FixedResponseConfig", ("ContentType", "MessageBody", "StatusCode")),
    ):
        if action.get(key):
            result[name] = {word[:1].lower() + word[1:]: action[key][word] for word in words if action[key].get(word)}
    return result


def condition_inputs(conditions: list[dict[str, Any]]) -> list[Properties]:
    """Return described conditions in the provider's words."""
    names = {field: (name, config) for name, (field, config) in CONDITIONS.items()}
    result = []
    for condition in conditions:
        name, config = names[condition["Field"]]
        body = condition.get(config) or {"Values": condition["Values"]}
        result.append({name: {**pick(body, httpHeaderName="HttpHeaderName"), "values": body["Values"]}})
    return result


def _action(action: Properties) -> dict[str, Any]:
    """A provider action → the API's."""
    result: dict[str, Any] = {"Type": action["type"], **pick(action, Order="order", TargetGroupArn="targetGroupArn")}
    if action.get("forward"):
        groups = action["forward"].get("targetGroups") or []
        result["ForwardConfig"] = {
            "TargetGroups": [
                {"TargetGroupArn": group["arn"], "Weight": int(group.get("weight", 1))} for group in groups
            ]
        }
        sticky = action["forward"].get("stickiness")
        if sticky:
            result["ForwardConfig"]["TargetGroupStickinessConfig"] = {
                "Enabled": bool(sticky.get("enabled")), "DurationSeconds": int(sticky.get("duration", 1)),
            }  # fmt: skip
    if action.get("redirect"):
        names = {"Host": "host", "Path": "path", "Port": "port", "Protocol": "protocol", "Query": "query"}
        result["RedirectConfig"] = pick(action["redirect"], **names, StatusCode="statusCode")
    if action.get("fixedResponse"):
        names = {"ContentType": "contentType", "MessageBody": "messageBody", "StatusCode": "statusCode"}
        result["FixedResponseConfig"] = pick(action["fixedResponse"], **names)
    if action["type"] not in ("forward", "redirect", "fixed-response"):
        raise ProviderError(f"twin: listener action {action['type']} is not implemented by the stand-in")
    return result


def _provider_actions(actions: list[dict[str, Any]], like: list[Properties]) -> list[Properties]:
    """The live actions in the provider's words, as detailed as the declared ones are."""
    result = []
    for action, declared in zip(actions, like, strict=False):
        copy: Properties = dict(declared)
        groups = (action.get("ForwardConfig") or {}).get("TargetGroups")
        if groups is not None and declared.get("forward"):
            live = [{"arn": group["TargetGroupArn"], "weight": int(group.get("Weight", 1))} for group in groups]
            copy["forward"] = {**declared["forward"], "targetGroups": live}
        result.append(copy)
    return result if len(actions) == len(like) else like


class Listener(_Elb):
    """aws_lb_listener; the id is the ARN."""

    token = "aws:lb/listener:Listener"
    inputs = frozenset(
        {"loadBalancerArn", "port", "protocol", "sslPolicy", "certificateArn", "defaultActions", "alpnPolicy",
         "routingHttpResponseServerEnabled", "routingHttpResponseStrictTransportSecurityHeaderValue"}
    )  # fmt: skip
    replaces = frozenset({"loadBalancerArn"})
    create_before_delete = False

    def _arguments(self, inputs: Properties) -> dict[str, Any]:
        arguments = pick(inputs, Port="port", Protocol="protocol", SslPolicy="sslPolicy")
        if inputs.get("certificateArn"):
            arguments["Certificates"] = [{"CertificateArn": inputs["certificateArn"]}]
        arguments["DefaultActions"] = [_action(action) for action in inputs["defaultActions"]]
        return arguments

    def create(self, aws: Aws, inputs: Properties) -> str:
        answer = aws("elbv2").create_listener(LoadBalancerArn=inputs["loadBalancerArn"], **self._arguments(inputs))
        return str(answer["Listeners"][0]["ListenerArn"])

    def read(self, aws: Aws, identifier: str, state: Properties) -> Properties | None:
        listener = self.description(aws, "describe_listeners", "ListenerArns", "Listeners", identifier)
        if listener is None:
            return None
        actions = _provider_actions(listener["DefaultActions"], state.get("defaultActions", []))
        return {
            "arn": identifier,
            "port": listener["Port"],
            "protocol": listener["Protocol"],
            "defaultActions": actions,
        }

    def update(self, aws: Aws, identifier: str, state: Properties, new: Properties, changed: set[str]) -> None:
        del state
        if changed:
            aws("elbv2").modify_listener(ListenerArn=identifier, **self._arguments(new))

    def delete(self, aws: Aws, identifier: str, state: Properties) -> None:
        del state
        aws("elbv2").delete_listener(ListenerArn=identifier)


class ListenerRule(_Elb):
    """aws_lb_listener_rule; the id is the ARN."""

    token = "aws:lb/listenerRule:ListenerRule"
    inputs = frozenset({"listenerArn", "priority", "actions", "conditions"})
    replaces = frozenset({"listenerArn"})
    create_before_delete = False

    def _conditions(self, inputs: Properties) -> list[dict[str, Any]]:
        conditions = []
        for condition in inputs["conditions"]:
            for name, value in condition.items():
                if name not in CONDITIONS:
                    raise ProviderError(f"twin: listener condition {name} is not implemented by the stand-in")
                field, config = CONDITIONS[name]
                body: dict[str, Any] = {"Values": value["values"]}
                if name == "httpHeader":
                    body["HttpHeaderName"] = value["httpHeaderName"]
                conditions.append({"Field": field, config: body})
        return conditions

    def create(self, aws: Aws, inputs: Properties) -> str:
        answer = aws("elbv2").create_rule(
            ListenerArn=inputs["listenerArn"],
            Priority=int(inputs["priority"]),
            Conditions=self._conditions(inputs),
            Actions=[_action(action) for action in inputs["actions"]],
        )
        return str(answer["Rules"][0]["RuleArn"])

    def read(self, aws: Aws, identifier: str, state: Properties) -> Properties | None:
        rule = self.description(aws, "describe_rules", "RuleArns", "Rules", identifier)
        if rule is None:
            return None
        actions = _provider_actions(rule["Actions"], state.get("actions", []))
        return {"arn": identifier, "priority": int(rule["Priority"]), "actions": actions}

    def update(self, aws: Aws, identifier: str, state: Properties, new: Properties, changed: set[str]) -> None:
        del state
        if "priority" in changed:
            priorities = [{"RuleArn": identifier, "Priority": int(new["priority"])}]
            aws("elbv2").set_rule_priorities(RulePriorities=priorities)
        arguments: dict[str, Any] = {}
        if "actions" in changed:
            arguments["Actions"] = [_action(action) for action in new["actions"]]
        if "conditions" in changed:
            arguments["Conditions"] = self._conditions(new)
        if arguments:
            aws("elbv2").modify_rule(RuleArn=identifier, **arguments)

    def delete(self, aws: Aws, identifier: str, state: Properties) -> None:
        del state
        aws("elbv2").delete_rule(RuleArn=identifier)
