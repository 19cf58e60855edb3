"""The AWS calls for an Ingress's resources: find them by their tags, create, change or delete what differs.

Order and choice follow the real controller 3.5.0 (`pkg/deploy`). Security groups are created, but the rules that it adds to
the nodes' own group are not: nothing on the twin enforces them.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from functools import cached_property
from typing import Any

from twin.loadbalancer.controller.elb import Bucket, create_client
from twin.loadbalancer.controller.ingress_model import (
    CLUSTER_TAG,
    LISTENER_PORT,
    RESOURCE_TAG,
    RULE_PRIORITY,
    STACK_TAG,
    GroupModel,
    IngressModel,
    ModelError,
    shared_security_group_name,
    stack_tags,
)

_log = logging.getLogger(__name__)

_TAGS_PER_CALL = 20
"""ELBv2's DescribeTags takes as many ARNs."""

_SUBNET_TAGS = {"internet-facing": "kubernetes.io/role/elb", "internal": "kubernetes.io/role/internal-elb"}
_MINIMUM_ZONES = 2
_NOT_FOUND_ACTION = {
    "Type": "fixed-response",
    "FixedResponseConfig": {"ContentType": "text/plain", "StatusCode": "404"},
}
_MANAGED_GROUP = "ManagedLBSecurityGroup"
_MANAGED_GROUP_DESCRIPTION = "[k8s] Managed SecurityGroup for LoadBalancer"
_SHARED_GROUP_TAG = {"elbv2.k8s.aws/resource": "backend-sg"}
_SHARED_GROUP_DESCRIPTION = "[k8s] Shared Backend SecurityGroup for LoadBalancer"

Tagged = tuple[dict[str, Any], dict[str, str]]
"""A resource as AWS describes it, and its tags."""


def _listed(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in sorted(tags.items())]


def _filters(tags: Mapping[str, str], **more: str) -> list[dict[str, Any]]:
    pairs = {f"tag:{key}": value for key, value in tags.items()} | {
        key.replace("_", "-"): value for key, value in more.items()
    }
    return [{"Name": key, "Values": [value]} for key, value in pairs.items()]


def _differs(current: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return any(current.get(key) != value for key, value in wanted.items())


class IngressResources:
    """Load balancers, listeners, rules, target groups and security groups of Ingresses."""

    def __init__(
        self, region: str, endpoints: Mapping[str, str], maximum_retries: int, *, cluster: str, vpc: str | None
    ) -> None:
        self._region = region
        self._endpoints = endpoints
        self._maximum_retries = maximum_retries
        self._cluster = cluster
        self._vpc = vpc
        # The real controller's client-side limits: Describe* 50 a second (burst 200), Modify* 3 (burst 20).
        self._describe = Bucket(50, 200)
        self._modify = Bucket(3, 20)

    # Made when the first Ingress is: a client takes some 15 MB of memory, which most clusters of the twin don't need.
    @cached_property
    def _elb(self) -> Any:
        return create_client("elbv2", self._region, self._endpoints.get("elbv2"), self._maximum_retries)

    @cached_property
    def _ec2(self) -> Any:
        return create_client("ec2", self._region, self._endpoints.get("ec2"), self._maximum_retries)

    @property
    def vpc(self) -> str:
        """The cluster's VPC.

        Raises:
            ModelError: the flag is missing; the real controller asks the instance's metadata then.
        """
        if not self._vpc:
            raise ModelError("twin: an Ingress without the flag --aws-vpc-id is not implemented by the stand-in")
        return self._vpc

    def _call(self, operation: str, **arguments: Any) -> dict[str, Any]:
        if operation.startswith("describe_"):
            self._describe.take()
        else:
            if operation.startswith("modify_"):
                self._modify.take()
            _log.info("%s", operation)
        answer: dict[str, Any] = getattr(self._elb, operation)(**arguments)
        return answer

    def _every(self, operation: str, member: str, **arguments: Any) -> list[dict[str, Any]]:
        self._describe.take()
        pages = self._elb.get_paginator(operation).paginate(**arguments)
        return [document for page in pages for document in page[member]]

    def _tagged(self, operation: str, member: str, arn: str, stack: str) -> Iterator[Tagged]:
        """Yield the stack's load balancers or target groups."""
        documents = {document[arn]: document for document in self._every(operation, member)}
        arns = list(documents)
        wanted = stack_tags(self._cluster, stack)
        for start in range(0, len(arns), _TAGS_PER_CALL):
            chunk = arns[start : start + _TAGS_PER_CALL]
            for entry in self._call("describe_tags", ResourceArns=chunk)["TagDescriptions"]:
                tags = {tag["Key"]: tag["Value"] for tag in entry["Tags"]}
                if wanted.items() <= tags.items():
                    yield documents[entry["ResourceArn"]], tags

    def _load_balancers(self, stack: str) -> list[Tagged]:
        return list(self._tagged("describe_load_balancers", "LoadBalancers", "LoadBalancerArn", stack))

    def _target_groups(self, stack: str) -> list[Tagged]:
        return list(self._tagged("describe_target_groups", "TargetGroups", "TargetGroupArn", stack))

    # --- create and change ---

    def deploy(self, model: IngressModel) -> tuple[str, list[str], str]:
        """Bring everything in line; return the load balancer's DNS name, the groups' ARNs, the shared security group.

        Raises:
            ModelError: no two subnets, or the VPC is unknown.
            botocore errors: AWS refused, after the SDK's own retries.
        """
        # Before anything is made, as the real controller builds its whole model first.
        kept, surplus = self._sorted_load_balancers(model)
        subnets = [] if kept else self._subnets(model.scheme)
        groups = [self._managed_security_group(model), self._shared_security_group()]
        target_groups = [self._deploy_target_group(model, group) for group in model.groups]
        for arn in surplus:
            self._call("delete_load_balancer", LoadBalancerArn=arn)
        load_balancer = (
            self._update_load_balancer(kept, groups) if kept else self._create_load_balancer(model, subnets, groups)
        )
        listener = self._deploy_listener(model, load_balancer["LoadBalancerArn"])
        self._deploy_rule(model, listener, target_groups)
        return str(load_balancer["DNSName"]).lower(), target_groups, groups[-1]

    def _tags(self, model: IngressModel, resource: str) -> list[dict[str, str]]:
        return _listed({**stack_tags(self._cluster, model.stack), RESOURCE_TAG: resource})

    def _security_group(self, filters: list[dict[str, Any]]) -> dict[str, Any] | None:
        groups = self._ec2.describe_security_groups(Filters=filters)["SecurityGroups"]
        return dict(groups[0]) if groups else None

    def _create_security_group(self, name: str, description: str, tags: Mapping[str, str]) -> str:
        answer = self._ec2.create_security_group(
            GroupName=name,
            Description=description,
            VpcId=self.vpc,
            TagSpecifications=[{"ResourceType": "security-group", "Tags": _listed(tags)}],
        )
        return str(answer["GroupId"])

    def _managed_security_group(self, model: IngressModel) -> str:
        tags = {**stack_tags(self._cluster, model.stack), RESOURCE_TAG: _MANAGED_GROUP}
        group = self._security_group(_filters(tags, vpc_id=self.vpc))
        group_id = (
            group["GroupId"]
            if group
            else self._create_security_group(model.security_group_name, _MANAGED_GROUP_DESCRIPTION, tags)
        )
        open_ports = {permission.get("FromPort") for permission in (group or {}).get("IpPermissions", [])}
        if LISTENER_PORT not in open_ports:
            permission = {
                "IpProtocol": "tcp",
                "FromPort": LISTENER_PORT,
                "ToPort": LISTENER_PORT,
                "IpRanges": [{"CidrIp": "0.0.0.0/0"}],
            }
            self._ec2.authorize_security_group_ingress(GroupId=group_id, IpPermissions=[permission])
        return str(group_id)

    def _shared_security_group(self) -> str:
        name = shared_security_group_name(self._cluster)
        group = self._security_group(_filters({}, group_name=name, vpc_id=self.vpc))
        tags = {CLUSTER_TAG: self._cluster, **_SHARED_GROUP_TAG}
        return group["GroupId"] if group else self._create_security_group(name, _SHARED_GROUP_DESCRIPTION, tags)

    def _deploy_target_group(self, model: IngressModel, wanted: GroupModel) -> str:
        # What can't be changed makes another group necessary; the former one goes when the rule has left it.
        fixed = {"TargetType": "ip", "Port": wanted.group_port, "Protocol": "HTTP"}
        for group, tags in self._target_groups(model.stack):
            if tags.get(RESOURCE_TAG) == model.group_resource(wanted) and not _differs(group, fixed):
                arn = str(group["TargetGroupArn"])
                if _differs(group, wanted.health_check):
                    self._call("modify_target_group", TargetGroupArn=arn, **wanted.health_check)
                break
        else:
            answer = self._call(
                "create_target_group",
                Name=wanted.group_name,
                VpcId=self.vpc,
                ProtocolVersion="HTTP1",
                IpAddressType="ipv4",
                Tags=self._tags(model, model.group_resource(wanted)),
                **fixed,
                **wanted.health_check,
            )
            arn = str(answer["TargetGroups"][0]["TargetGroupArn"])
        # Only named attributes are written: one that is no longer named keeps its value.
        current = self._call("describe_target_group_attributes", TargetGroupArn=arn)["Attributes"]
        if _differs({pair["Key"]: pair["Value"] for pair in current}, wanted.group_attributes):
            attributes = _listed(wanted.group_attributes)
            self._call("modify_target_group_attributes", TargetGroupArn=arn, Attributes=attributes)
        return arn

    def _subnets(self, scheme: str) -> list[str]:
        """Return one tagged subnet in each zone."""
        tag = _SUBNET_TAGS[scheme]
        filters = [*_filters({}, vpc_id=self.vpc), {"Name": f"tag:{tag}", "Values": ["", "1"]}]
        by_zone: dict[str, str] = {}
        for subnet in self._ec2.describe_subnets(Filters=filters)["Subnets"]:
            zone = subnet["AvailabilityZone"]
            by_zone[zone] = min(subnet["SubnetId"], by_zone.get(zone, subnet["SubnetId"]))
        if len(by_zone) < _MINIMUM_ZONES:
            zones = ", ".join(sorted(by_zone)) or "no zone"
            raise ModelError(
                f"couldn't auto-discover subnets: {self.vpc} has subnets tagged {tag} in {zones}; two zones are needed"
            )
        return sorted(by_zone.values())

    def _sorted_load_balancers(self, model: IngressModel) -> tuple[dict[str, Any] | None, list[str]]:
        """Return the stack's load balancer of the model's scheme, and the ARNs of others."""
        kept, surplus = None, []
        for load_balancer, _ in self._load_balancers(model.stack):
            if load_balancer["Scheme"] == model.scheme and kept is None:
                kept = load_balancer
            else:
                surplus.append(str(load_balancer["LoadBalancerArn"]))
        return kept, surplus

    def _create_load_balancer(
        self, model: IngressModel, subnets: list[str], security_groups: list[str]
    ) -> dict[str, Any]:
        answer = self._call(
            "create_load_balancer",
            Name=model.load_balancer_name,
            Type="application",
            Scheme=model.scheme,
            IpAddressType="ipv4",
            Subnets=subnets,
            SecurityGroups=security_groups,
            Tags=self._tags(model, "LoadBalancer"),
        )
        return dict(answer["LoadBalancers"][0])

    def _update_load_balancer(self, load_balancer: dict[str, Any], security_groups: list[str]) -> dict[str, Any]:
        if set(load_balancer.get("SecurityGroups") or []) != set(security_groups):
            arn = load_balancer["LoadBalancerArn"]
            self._call("set_security_groups", LoadBalancerArn=arn, SecurityGroups=security_groups)
        return load_balancer

    def _deploy_listener(self, model: IngressModel, load_balancer: str) -> str:
        kept = None
        for listener in self._every("describe_listeners", "Listeners", LoadBalancerArn=load_balancer):
            if (listener["Port"], listener["Protocol"]) == (LISTENER_PORT, "HTTP"):
                kept = listener
            else:
                self._call("delete_listener", ListenerArn=listener["ListenerArn"])
        if kept is None:
            answer = self._call(
                "create_listener",
                LoadBalancerArn=load_balancer,
                Port=LISTENER_PORT,
                Protocol="HTTP",
                DefaultActions=[_NOT_FOUND_ACTION],
                Tags=self._tags(model, str(LISTENER_PORT)),
            )
            return str(answer["Listeners"][0]["ListenerArn"])
        arn = str(kept["ListenerArn"])
        if [action["Type"] for action in kept["DefaultActions"]] != ["fixed-response"]:
            self._call("modify_listener", ListenerArn=arn, DefaultActions=[_NOT_FOUND_ACTION])
        return arn

    def _deploy_rule(self, model: IngressModel, listener: str, target_groups: list[str]) -> None:
        """Write the one rule; whatever somebody else wrote into it, or beside it, goes."""
        weights = {arn: group.weight for arn, group in zip(target_groups, model.groups, strict=True)}
        tuples = [{"TargetGroupArn": arn, "Weight": weight} for arn, weight in weights.items()]
        wanted = {
            "Conditions": model.conditions,
            "Actions": [{"Type": "forward", "ForwardConfig": {"TargetGroups": tuples}}],
        }
        kept = None
        for rule in self._every("describe_rules", "Rules", ListenerArn=listener):
            if rule["IsDefault"]:
                continue
            if rule["Priority"] == str(RULE_PRIORITY):
                kept = rule
            else:
                self._call("delete_rule", RuleArn=rule["RuleArn"])
        if kept is None:
            tags = self._tags(model, f"{LISTENER_PORT}:{RULE_PRIORITY}")
            self._call("create_rule", ListenerArn=listener, Priority=RULE_PRIORITY, Tags=tags, **wanted)
        elif _rule_differs(kept, model.conditions, weights):
            self._call("modify_rule", RuleArn=kept["RuleArn"], **wanted)

    # --- delete ---

    def surplus_target_groups(self, stack: str, kept: Collection[str]) -> list[str]:
        """Return the ARNs of the stack's other target groups."""
        arns = [str(group["TargetGroupArn"]) for group, _ in self._target_groups(stack)]
        return [arn for arn in arns if arn not in kept]

    def delete_load_balancers(self, stack: str) -> None:
        """Delete the stack's load balancer; its listeners and rules go with it."""
        for load_balancer, _ in self._load_balancers(stack):
            self._call("delete_load_balancer", LoadBalancerArn=load_balancer["LoadBalancerArn"])

    def delete_target_group(self, arn: str) -> None:
        """Delete a target group that no rule and no binding uses."""
        self._call("delete_target_group", TargetGroupArn=arn)

    def delete_security_groups(self, stack: str, *, is_last: bool) -> None:
        """Delete the load balancer's security group; with the cluster's last Ingress, the shared one too."""
        filters = _filters({CLUSTER_TAG: self._cluster, STACK_TAG: stack, RESOURCE_TAG: _MANAGED_GROUP})
        groups = [self._security_group(filters)]
        if is_last:
            name = shared_security_group_name(self._cluster)
            groups.append(self._security_group(_filters({CLUSTER_TAG: self._cluster}, group_name=name)))
        for group in groups:
            if group:
                self._ec2.delete_security_group(GroupId=group["GroupId"])


def _rule_differs(rule: Mapping[str, Any], conditions: list[dict[str, Any]], weights: Mapping[str, int]) -> bool:
    def values(documents: list[dict[str, Any]]) -> dict[str, list[str]]:
        shapes = {"host-header": "HostHeaderConfig", "path-pattern": "PathPatternConfig"}
        return {
            document["Field"]: (document.get(shapes.get(document["Field"], "")) or document).get("Values", [])
            for document in documents
        }

    actions = rule["Actions"]
    forwarded = {
        group["TargetGroupArn"]: int(group.get("Weight", 1))
        for action in actions
        for group in (action.get("ForwardConfig") or {}).get("TargetGroups")
        or [{"TargetGroupArn": action.get("TargetGroupArn")}]
    }
    return values(rule["Conditions"]) != values(conditions) or len(actions) != 1 or forwarded != weights
