"""A state that is lost with all its versions: one update imports what is there (`shopcat:rebuildState`, docs/restore.md).

The program declares everything as ever. Before the engine decides what to do with a resource that the state doesn't know, AWS is
asked for it: by its name or address (existing_resources.py), or by tags, where AWS chose the id. What is found is imported, so
what comes later is asked for by its real id. Then:

* The engine refuses to make anything anew that this update imports, and all of it is protected until the next plain update.
* What is not found is not made (`MUST_BE_FOUND`): a second one would stand there, with nothing in it. The update ends and names
  it. Only a rule, a route, a record or a permission inside something that was found is made (`MAY_BE_MADE`).
* What AWS writes by a put (`WRITTEN_AGAIN`) and objects in the cluster are written once more with the same content. Passwords
  and weights are neither read nor written here; no pod is made anew.
* What the state knows is left to the engine, so an update that was killed is run again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pulumi
from botocore.exceptions import BotoCoreError, ClientError

from infra.clients import threads
from infra.clients.aws import AwsClients, error_code, explain
from infra.errors import PreflightError, ShopCatError
from infra.foundation.auto_names import is_auto_name
from infra.foundation.dns import certificate_arns
from infra.foundation.existing_resources import (
    FINDERS,
    HELM_RELEASE,
    Inputs,
    export_state,
    find_existing,
    find_helm_release,
    resources_of,
)

if TYPE_CHECKING:
    from infra.clients.kubernetes import KubernetesClient

Lister = Callable[[AwsClients, str, str, Inputs], list[str]]
"""Ids, as the provider's import wants them, of what this stack (second) made under this logical name (third) by these inputs."""
STACK_TAG = "shopcat:stack"
WRITTEN_AGAIN = frozenset(
    {
        "aws:acm/certificateValidation:CertificateValidation",
        "aws:cloudwatch/dashboard:Dashboard",
        "aws:cloudwatch/logMetricFilter:LogMetricFilter",
        "aws:cloudwatch/metricAlarm:MetricAlarm",
        "aws:ecr/lifecyclePolicy:LifecyclePolicy",
        "aws:eks/accessPolicyAssociation:AccessPolicyAssociation",
        "aws:iam/rolePolicyAttachment:RolePolicyAttachment",
        "aws:sns/topic:Topic",
        "aws:sns/topicPolicy:TopicPolicy",
        "aws:sns/topicSubscription:TopicSubscription",
    }
)
"""Types that AWS has no second one of: their creation is a put, an attachment or a wait."""
MAY_BE_MADE = frozenset(
    {
        "aws:budgets/budget:Budget",
        "aws:ec2/route:Route",
        "aws:ec2/routeTableAssociation:RouteTableAssociation",
        "aws:ec2/vpcEndpoint:VpcEndpoint",
        "aws:eks/accessEntry:AccessEntry",
        "aws:eks/podIdentityAssociation:PodIdentityAssociation",
        "aws:route53/record:Record",
        "aws:ssm/parameter:Parameter",
        "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule",
        "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule",
    }
)
"""Types that are made where none is found: AWS takes one of a name inside something that was found, and nothing is in it."""
_PLACE = "aws:region"
MUST_BE_FOUND: Mapping[str, tuple[str, ...]] = {
    "aws:acm/certificate:Certificate": ("domain", "domainAliases", "previewDomain"),
    "aws:cloudwatch/logGroup:LogGroup": ("cluster.name", "monitoring.logs"),
    "aws:dynamodb/table:Table": (_PLACE,),
    "aws:ec2/eip:Eip": ("vpc.natGateways",),
    "aws:ec2/internetGateway:InternetGateway": ("vpc.cidr",),
    "aws:ec2/launchTemplate:LaunchTemplate": (_PLACE,),
    "aws:ec2/natGateway:NatGateway": ("vpc.natGateways",),
    "aws:ec2/routeTable:RouteTable": ("vpc.zones",),
    "aws:ec2/securityGroup:SecurityGroup": ("vpc.interfaceEndpoints", "database.securityGroupName"),
    "aws:ec2/subnet:Subnet": ("vpc.cidr", "vpc.zones"),
    "aws:ec2/vpc:Vpc": ("vpc.cidr",),
    "aws:ecr/repository:Repository": ("registry.repository",),
    "aws:eks/addon:Addon": ("cluster.name",),
    "aws:eks/cluster:Cluster": ("cluster.name",),
    "aws:eks/nodeGroup:NodeGroup": ("cluster.name", "vpc.cidr", "vpc.zones"),
    "aws:iam/role:Role": ("github", "monitoring.logs"),
    "aws:iam/rolePolicy:RolePolicy": ("github", "monitoring.logs"),
    "aws:kms/key:Key": ("cluster.name", "monitoring"),
    "aws:lb/listener:Listener": (_PLACE,),
    "aws:lb/listenerRule:ListenerRule": (_PLACE,),
    "aws:lb/loadBalancer:LoadBalancer": (_PLACE,),
    "aws:lb/targetGroup:TargetGroup": (_PLACE,),
    "aws:rds/instance:Instance": ("database.identifier", "database.restore"),
    "aws:rds/parameterGroup:ParameterGroup": ("database.engineVersion", "database.parameterGroup"),
    "aws:rds/subnetGroup:SubnetGroup": ("database.subnetGroup",),
    "aws:secretsmanager/secret:Secret": (_PLACE,),
}
"""Types that are never made, and the settings that decide by what each is looked for. They hold data, serve, or AWS would take a
second one; and a rule of a listener made anew would begin with the weights of the first release."""


def _tagged(operation: str, key: str, identifier: str, **filters: str) -> Lister:
    """Return a lister at EC2 by this stack's tag, by the tag Name, and by filters as `existing_resources` has them."""

    def find(clients: AwsClients, stack: str, logical: str, inputs: Inputs) -> list[str]:
        del logical
        wanted = {f"tag:{STACK_TAG}": stack, "tag:Name": inputs["tags"]["Name"]}
        wanted |= {name.replace("_", "-"): inputs[value] for name, value in filters.items()}
        criteria = [{"Name": name, "Values": [value]} for name, value in wanted.items()]
        listed = getattr(clients.get("ec2"), operation)(Filters=criteria)[key]
        return [str(each[identifier]) for each in listed]

    return find


def _auto_named(operation: str, key: str, identifier: str, name: str) -> Lister:
    """Return a lister at EC2 by this stack's tag and a name that the provider made."""

    def find(clients: AwsClients, stack: str, logical: str, inputs: Inputs) -> list[str]:
        del inputs
        criteria = [{"Name": f"tag:{STACK_TAG}", "Values": [stack]}]
        listed = getattr(clients.get("ec2"), operation)(Filters=criteria)[key]
        return [str(each[identifier]) for each in listed if is_auto_name(logical, each[name])]

    return find


def _roles(clients: AwsClients, stack: str, logical: str, inputs: Inputs) -> list[str]:
    del inputs
    iam, found = clients.get("iam"), []
    for page in iam.get_paginator("list_roles").paginate():
        for name in (str(role["RoleName"]) for role in page["Roles"]):
            if is_auto_name(logical, name) and _has_tag(iam.list_role_tags(RoleName=name)["Tags"], stack):
                found.append(name)
    return found


def _has_tag(tags: Sequence[Mapping[str, str]], stack: str, *, key: str = "Key", value: str = "Value") -> bool:
    return any(tag[key] == STACK_TAG and tag[value] == stack for tag in tags)


def _role_policies(clients: AwsClients, stack: str, logical: str, inputs: Inputs) -> list[str]:
    del stack
    role, wanted = str(inputs["role"]), inputs.get("name")
    names = clients.get("iam").list_role_policies(RoleName=role)["PolicyNames"]
    return [f"{role}:{name}" for name in names if (name == wanted if wanted else is_auto_name(logical, name))]


def _keys(clients: AwsClients, stack: str, logical: str, inputs: Inputs) -> list[str]:
    del logical
    kms, found = clients.get("kms"), []
    for page in kms.get_paginator("list_keys").paginate():
        for name in (str(key["KeyId"]) for key in page["Keys"]):
            try:
                key = kms.describe_key(KeyId=name)["KeyMetadata"]
                if key["Description"] != inputs["description"] or key["KeyState"] != "Enabled":
                    continue
                tags = kms.list_resource_tags(KeyId=name)["Tags"]
            except ClientError as error:
                if "AccessDenied" in error_code(error):  # somebody else's: its own policy decides who may look at it
                    continue
                raise
            if _has_tag(tags, stack, key="TagKey", value="TagValue"):
                found.append(name)
    return found


def _certificates(clients: AwsClients, stack: str, logical: str, inputs: Inputs) -> list[str]:
    """Return those of exactly these names that something uses, or else all of them."""
    del logical
    acm, found = clients.get("acm"), {}
    wanted = {inputs["domainName"], *(inputs.get("subjectAlternativeNames") or [])}
    for arn in certificate_arns(clients, str(inputs["domainName"])):
        if not _has_tag(acm.list_tags_for_certificate(CertificateArn=arn)["Tags"], stack):
            continue
        certificate = acm.describe_certificate(CertificateArn=arn)["Certificate"]
        if {certificate["DomainName"], *(certificate.get("SubjectAlternativeNames") or [])} == wanted:
            found[arn] = bool(certificate.get("InUseBy"))
    return [arn for arn, is_used in found.items() if is_used or not any(found.values())]


def _node_groups(clients: AwsClients, stack: str, logical: str, inputs: Inputs) -> list[str]:
    del stack, logical
    found = FINDERS["aws:eks/nodeGroup:NodeGroup"](clients, inputs)
    return [found] if found else []


LISTERS: Mapping[str, Lister] = {
    "aws:acm/certificate:Certificate": _certificates,
    "aws:ec2/eip:Eip": _tagged("describe_addresses", "Addresses", "AllocationId"),
    "aws:ec2/launchTemplate:LaunchTemplate": _auto_named(
        "describe_launch_templates", "LaunchTemplates", "LaunchTemplateId", "LaunchTemplateName"
    ),
    "aws:ec2/routeTable:RouteTable": _tagged("describe_route_tables", "RouteTables", "RouteTableId", vpc_id="vpcId"),
    "aws:ec2/securityGroup:SecurityGroup": _auto_named(
        "describe_security_groups", "SecurityGroups", "GroupId", "GroupName"
    ),
    "aws:ec2/vpc:Vpc": _tagged("describe_vpcs", "Vpcs", "VpcId", cidr="cidrBlock"),
    "aws:eks/nodeGroup:NodeGroup": _node_groups,
    "aws:iam/role:Role": _roles,
    "aws:iam/rolePolicy:RolePolicy": _role_policies,
    "aws:kms/key:Key": _keys,
}
"""Types of which AWS would take a second one beside the first, so that a creation is refused where none is found."""


def find_unnamed(clients: AwsClients, stack: str, kind: str, logical: str, inputs: Inputs) -> str:
    """Return the import id of the one thing that this stack made so.

    Raises:
        ShopCatError: there is none, or more than one; or AWS can't be asked.
    """
    try:
        found = LISTERS[kind](clients, stack, logical, inputs)
    except (BotoCoreError, ClientError) as error:
        if not any(word in error_code(error) for word in ("NotFound", "NoSuch")):
            raise explain(error, f"{kind} {logical}", clients.endpoint_url) from error
        found = []
    if len(found) == 1:
        return found[0]
    what = f"shopcat:rebuildState: {kind} {logical}"
    if found:
        raise PreflightError(
            f"{what}: {len(found)} fit ({', '.join(found)}); take the tag {STACK_TAG} from those that aren't in use"
        )
    raise PreflightError(
        f"{what}: none has this stack's tag {STACK_TAG}={stack} and what {_settings_of(kind)} say of it; mend the settings, or "
        "tag it, then run the update again"
    )


def _settings_of(kind: str) -> str:
    names = (name if name == _PLACE else f"shopcat:{name}" for name in MUST_BE_FOUND[kind])
    return f"{', '.join(names)} and the account of the credentials"


def find_named(clients: AwsClients, kind: str, logical: str, inputs: Inputs) -> str | None:
    """Return the import id of what has the name, the range, the port or the priority; None if it may be made.

    Raises:
        ShopCatError: it is not there and must be; or AWS can't be asked.
    """
    identifier = find_existing(clients, kind, inputs)
    if identifier is None and kind in MUST_BE_FOUND:
        name = inputs.get("name") or inputs.get("identifier") or inputs.get("nodeGroupName") or ""
        raise PreflightError(
            f"shopcat:rebuildState: {kind} {logical}: there is none{f' of the name {name}' if name else ''}, and none is made; "
            f"it is looked for by {_settings_of(kind)}; give those of the last update, then run the update again"
        )
    return identifier


def is_listed(kind: str, inputs: Inputs) -> bool:
    """Tell whether a resource is one of those that must be found: AWS would take a second one beside it."""
    has_name = kind in FINDERS and bool(inputs.get("name"))
    return kind in LISTERS and not has_name


def known_resources(deployment: Mapping[str, Any]) -> frozenset[tuple[str, str, str]]:
    """Return type, name and parent's URN of each resource of an exported state."""
    return frozenset(
        (str(each["type"]), str(each["urn"]).rpartition("::")[2], str(each.get("parent", "")))
        for each in resources_of(deployment)
    )


def read_known_resources(stack: str) -> frozenset[tuple[str, str, str]]:
    """Ask Pulumi's own command for what the state knows as this update begins.

    Raises:
        ShopCatError: it doesn't say so.
    """
    try:
        return known_resources(export_state(stack))
    except PreflightError as error:
        raise PreflightError(f"shopcat:rebuildState: {error}") from error


class StateRebuild:
    """The transform that imports what is there."""

    def __init__(
        self,
        clients: AwsClients,
        kubernetes: Callable[[], KubernetesClient],
        stack: str,
        known: frozenset[tuple[str, str, str]],
    ) -> None:
        self._clients, self._kubernetes, self._stack, self._known = clients, kubernetes, stack, known

    async def transform(self, args: pulumi.ResourceTransformArgs) -> pulumi.ResourceTransformResult | None:
        """Import a resource that is there and that the state doesn't know."""
        is_aws = args.type_.startswith("aws:")
        if not args.custom or not (is_aws or args.type_ == HELM_RELEASE) or args.type_ in WRITTEN_AGAIN:
            return None
        # The SDK can't return a trigger from a transform (pulumi 3.250.0, runtime/_callbacks.py: it wants a protobuf value). What
        # is imported has none to compare with; the next update writes it into the state.
        args.opts.replacement_trigger = None
        parent = str(await args.opts.parent.urn.future()) if args.opts.parent else ""
        protected = pulumi.ResourceOptions.merge(args.opts, pulumi.ResourceOptions(protect=True))
        if (args.type_, args.name, parent) in self._known:
            return pulumi.ResourceTransformResult(args.props, protected)
        # What is secret comes as an Output here.
        inputs = await pulumi.Output.from_input(dict(args.props)).future()
        try:
            identifier = await threads.in_thread(self._find, args.type_, args.name, inputs or {})
        except ShopCatError as error:  # what can't be asked for is no more made than what can't be found
            return pulumi.ResourceTransformResult(args.props, self._refused(args.opts, error))
        except KeyError:
            if not pulumi.runtime.is_dry_run():
                raise
            return None  # a preview does not know yet what it depends on
        if identifier is None:
            return None
        protected.import_ = identifier
        return pulumi.ResourceTransformResult(args.props, protected)

    def _find(self, kind: str, logical: str, inputs: Inputs) -> str | None:
        if kind == HELM_RELEASE:
            return find_helm_release(self._kubernetes(), inputs)
        if is_listed(kind, inputs):
            return find_unnamed(self._clients, self._stack, kind, logical, inputs)
        if kind in FINDERS:
            return find_named(self._clients, kind, logical, inputs)
        raise PreflightError(f"shopcat:rebuildState: this program does not know how to find {kind} {logical}")

    @staticmethod
    def _refused(opts: pulumi.ResourceOptions, error: ShopCatError) -> pulumi.ResourceOptions:
        """Return options with which the resource is not made; a preview, which calls no hook, says so."""
        pulumi.log.warn(str(error))

        def refuse(_: pulumi.ResourceHookArgs) -> None:
            raise PreflightError(str(error))

        hook = pulumi.ResourceHook(f"not-found-{id(error)}", refuse)
        binding = pulumi.ResourceHookBinding(before_create=[hook])
        return pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(hooks=binding))
