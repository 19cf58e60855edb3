"""Resources that are there already and this update would make, since the state doesn't know them.

An update that is killed between a call that makes something and its checkpoint leaves that behind; a destroyed stack leaves
what is kept on purpose; and a name may be somebody else's. AWS, or the provider, then stops at "already exists". Production
holds data, so nothing of it is deleted or taken over by a guess: before anything with a name of its own is made, AWS is asked
whether that is there, and if so the update ends with the `pulumi import` that takes it into the state. The engine calls a hook
before a creation only of what the state doesn't know, so an update that makes nothing asks nothing.

What AWS makes anew under a name of its own choice (a KMS key, a certificate) hinders no update; the engine's own warning of
pending operations names it.
"""

from __future__ import annotations

import asyncio
import json
import shlex
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import pulumi
from botocore.exceptions import BotoCoreError, ClientError

from infra.clients import threads
from infra.clients.aws import AwsClients, error_code, explain
from infra.errors import PreflightError
from infra.foundation.dns import routing_obstacle
from infra.foundation.helm_history import read_history
from infra.foundation.import_commands import import_command, provider_urn

if TYPE_CHECKING:
    from infra.clients.kubernetes import KubernetesClient

Inputs = Mapping[str, Any]
Finder = Callable[[AwsClients, Inputs], str | None]
"""Id, as `pulumi import` wants it, of what has the name that these inputs ask for; None if nothing has."""
QUIET_SECONDS = 3.0
"""Time without a new question of the engine after which the first find is reported, so that one message names them all."""
GATHER_SECONDS = 60.0
"""Longest wait of the first find: an update goes on meanwhile with all that does not depend on what was found."""


def _by_name(service: str, operation: str, argument: str, name: str, *, many: bool = False) -> Finder:
    """Return a finder of things whose name is their id."""

    def find(clients: AwsClients, inputs: Inputs) -> str | None:
        wanted = str(inputs[name])
        answer = getattr(clients.get(service), operation)(**{argument: [wanted] if many else wanted})
        return None if [] in answer.values() else wanted

    return find


def _find_budget(clients: AwsClients, inputs: Inputs) -> str | None:
    account, name = clients.identity()[0], str(inputs["name"])
    clients.get("budgets").describe_budget(AccountId=account, BudgetName=name)
    return f"{account}:{name}"


def _by_arn(operation: str, key: str, arn: str) -> Finder:
    """Return a finder at ELBv2, of what is found by name and known by ARN."""

    def find(clients: AwsClients, inputs: Inputs) -> str | None:
        listed = getattr(clients.get("elbv2"), operation)(Names=[inputs["name"]])[key]
        return str(listed[0][arn]) if listed else None

    return find


def _in_ec2(operation: str, key: str, identifier: str, **filters: str) -> Finder:
    """Return a finder at EC2 by filters, each given as its name with `_` for `-` and the name of the input it compares."""

    def find(clients: AwsClients, inputs: Inputs) -> str | None:
        criteria = [
            {"Name": name.replace("__", ".").replace("_", "-"), "Values": [inputs[value]]}
            for name, value in filters.items()
        ]
        listed = getattr(clients.get("ec2"), operation)(Filters=criteria)[key]
        return str(listed[0][identifier]) if listed else None

    return find


def _log_group(clients: AwsClients, inputs: Inputs) -> str | None:
    listed = clients.get("logs").describe_log_groups(logGroupNamePrefix=inputs["name"])["logGroups"]
    return next((str(group["logGroupName"]) for group in listed if group["logGroupName"] == inputs["name"]), None)


def _secret(clients: AwsClients, inputs: Inputs) -> str | None:
    secret = clients.get("secretsmanager").describe_secret(SecretId=inputs["name"])
    if secret.get("DeletedDate"):
        name = shlex.quote(inputs["name"])
        raise PreflightError(
            f"secret {inputs['name']} is to be deleted and holds its name until {secret['DeletedDate']:%Y-%m-%d}; bring it "
            f"back (`aws secretsmanager restore-secret --secret-id {name}`) or give its name free at once "
            f"(`aws secretsmanager delete-secret --secret-id {name} --force-delete-without-recovery`), then run "
            "`pulumi up` again"
        )
    return str(secret["ARN"])


def _find_addon(clients: AwsClients, inputs: Inputs) -> str | None:
    cluster, addon = inputs["clusterName"], inputs["addonName"]
    clients.get("eks").describe_addon(clusterName=cluster, addonName=addon)
    return f"{cluster}:{addon}"


def _find_nodes(clients: AwsClients, inputs: Inputs) -> str | None:
    cluster, name = inputs["clusterName"], inputs["nodeGroupName"]
    clients.get("eks").describe_nodegroup(clusterName=cluster, nodegroupName=name)
    return f"{cluster}:{name}"


def _access_entry(clients: AwsClients, inputs: Inputs) -> str | None:
    cluster, principal = inputs["clusterName"], inputs["principalArn"]
    clients.get("eks").describe_access_entry(clusterName=cluster, principalArn=principal)
    return f"{cluster}:{principal}"


def _pod_identity(clients: AwsClients, inputs: Inputs) -> str | None:
    cluster = inputs["clusterName"]
    listed = clients.get("eks").list_pod_identity_associations(
        clusterName=cluster, namespace=inputs["namespace"], serviceAccount=inputs["serviceAccount"]
    )["associations"]
    return f"{cluster},{listed[0]['associationId']}" if listed else None


def _group_rule(*, egress: bool) -> Finder:
    def find(clients: AwsClients, inputs: Inputs) -> str | None:
        wanted = {
            "IpProtocol": str(inputs["ipProtocol"]),
            "FromPort": int(inputs.get("fromPort", -1)),
            "ToPort": int(inputs.get("toPort", -1)),
            "CidrIpv4": inputs.get("cidrIpv4"),
            "ReferencedGroupInfo": inputs.get("referencedSecurityGroupId"),
        }
        filters = [{"Name": "group-id", "Values": [inputs["securityGroupId"]]}]
        for rule in clients.get("ec2").describe_security_group_rules(Filters=filters)["SecurityGroupRules"]:
            reference = rule.get("ReferencedGroupInfo") or {}
            current = {**{key: rule.get(key) for key in wanted}, "ReferencedGroupInfo": reference.get("GroupId")}
            if rule["IsEgress"] is egress and current == wanted:
                return str(rule["SecurityGroupRuleId"])
        return None

    return find


def _route(clients: AwsClients, inputs: Inputs) -> str | None:
    table, destination = inputs["routeTableId"], inputs["destinationCidrBlock"]
    (route_table,) = clients.get("ec2").describe_route_tables(RouteTableIds=[table])["RouteTables"]
    taken = [route.get("DestinationCidrBlock") for route in route_table["Routes"]]
    return f"{table}_{destination}" if destination in taken else None


def _association(clients: AwsClients, inputs: Inputs) -> str | None:
    filters = [{"Name": "association.subnet-id", "Values": [inputs["subnetId"]]}]
    listed = clients.get("ec2").describe_route_tables(Filters=filters)["RouteTables"]
    return f"{inputs['subnetId']}/{listed[0]['RouteTableId']}" if listed else None


def _nat_gateway(clients: AwsClients, inputs: Inputs) -> str | None:
    filters = [
        {"Name": "subnet-id", "Values": [inputs["subnetId"]]},
        {"Name": "state", "Values": ["pending", "available"]},
    ]
    for gateway in clients.get("ec2").describe_nat_gateways(Filters=filters)["NatGateways"]:
        if inputs["allocationId"] in [address.get("AllocationId") for address in gateway["NatGatewayAddresses"]]:
            return str(gateway["NatGatewayId"])
    return None


def _endpoint(clients: AwsClients, inputs: Inputs) -> str | None:
    filters = [
        {"Name": name, "Values": [inputs[key]]} for name, key in (("vpc-id", "vpcId"), ("service-name", "serviceName"))
    ]
    listed = clients.get("ec2").describe_vpc_endpoints(Filters=filters)["VpcEndpoints"]
    return next(
        (str(endpoint["VpcEndpointId"]) for endpoint in listed if not endpoint["State"].lower().startswith("delet")),
        None,
    )


def _listener(clients: AwsClients, inputs: Inputs) -> str | None:
    listed = clients.get("elbv2").describe_listeners(LoadBalancerArn=inputs["loadBalancerArn"])["Listeners"]
    return next((str(listener["ListenerArn"]) for listener in listed if listener["Port"] == int(inputs["port"])), None)


def _find_rule(clients: AwsClients, inputs: Inputs) -> str | None:
    pages = clients.get("elbv2").get_paginator("describe_rules").paginate(ListenerArn=inputs["listenerArn"])
    rules = [rule for page in pages for rule in page["Rules"]]
    return next((str(rule["RuleArn"]) for rule in rules if rule["Priority"] == str(int(inputs["priority"]))), None)


def _find_record(clients: AwsClients, inputs: Inputs) -> str | None:
    if inputs.get("allowOverwrite"):
        return None
    name, kind = str(inputs["name"]).rstrip("."), inputs["type"]
    listed = clients.get("route53").list_resource_record_sets(
        HostedZoneId=inputs["zoneId"], StartRecordName=name, StartRecordType=kind, MaxItems="100"
    )["ResourceRecordSets"]
    taken = [each for each in listed if (each["Name"].rstrip(".").replace("\\052", "*"), each["Type"]) == (name, kind)]
    if obstacle := routing_obstacle(taken, inputs["zoneId"]):
        raise PreflightError(f"{obstacle}, then run `pulumi up` again")
    return f"{inputs['zoneId']}_{name}_{kind}" if taken else None


FINDERS: Mapping[str, Finder] = {
    "aws:budgets/budget:Budget": _find_budget,
    "aws:cloudwatch/logGroup:LogGroup": _log_group,
    "aws:dynamodb/table:Table": _by_name("dynamodb", "describe_table", "TableName", "name"),
    "aws:ec2/internetGateway:InternetGateway": _in_ec2(
        "describe_internet_gateways", "InternetGateways", "InternetGatewayId", attachment__vpc_id="vpcId"
    ),
    "aws:ec2/natGateway:NatGateway": _nat_gateway,
    "aws:ec2/route:Route": _route,
    "aws:ec2/routeTableAssociation:RouteTableAssociation": _association,
    "aws:ec2/securityGroup:SecurityGroup": _in_ec2(
        "describe_security_groups", "SecurityGroups", "GroupId", group_name="name", vpc_id="vpcId"
    ),
    "aws:ec2/subnet:Subnet": _in_ec2("describe_subnets", "Subnets", "SubnetId", vpc_id="vpcId", cidr_block="cidrBlock"),
    "aws:ec2/vpcEndpoint:VpcEndpoint": _endpoint,
    "aws:ecr/repository:Repository": _by_name("ecr", "describe_repositories", "repositoryNames", "name", many=True),
    "aws:eks/accessEntry:AccessEntry": _access_entry,
    "aws:eks/addon:Addon": _find_addon,
    "aws:eks/cluster:Cluster": _by_name("eks", "describe_cluster", "name", "name"),
    "aws:eks/nodeGroup:NodeGroup": _find_nodes,
    "aws:eks/podIdentityAssociation:PodIdentityAssociation": _pod_identity,
    "aws:iam/role:Role": _by_name("iam", "get_role", "RoleName", "name"),
    "aws:lb/listener:Listener": _listener,
    "aws:lb/listenerRule:ListenerRule": _find_rule,
    "aws:lb/loadBalancer:LoadBalancer": _by_arn("describe_load_balancers", "LoadBalancers", "LoadBalancerArn"),
    "aws:lb/targetGroup:TargetGroup": _by_arn("describe_target_groups", "TargetGroups", "TargetGroupArn"),
    "aws:rds/instance:Instance": _by_name("rds", "describe_db_instances", "DBInstanceIdentifier", "identifier"),
    "aws:rds/parameterGroup:ParameterGroup": _by_name(
        "rds", "describe_db_parameter_groups", "DBParameterGroupName", "name"
    ),
    "aws:rds/subnetGroup:SubnetGroup": _by_name("rds", "describe_db_subnet_groups", "DBSubnetGroupName", "name"),
    "aws:route53/record:Record": _find_record,
    "aws:secretsmanager/secret:Secret": _secret,
    "aws:ssm/parameter:Parameter": _by_name("ssm", "get_parameter", "Name", "name"),
    "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule": _group_rule(egress=True),
    "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule": _group_rule(egress=False),
}
"""Types of which AWS takes one of a name (or an address range, a port, a priority) alone; the ids' forms are those of each
type's section "Import" in the provider's documentation (pulumi.com/registry/packages/aws)."""


HELM_RELEASE = "kubernetes:helm.sh/v3:Release"


def find_helm_release(client: KubernetesClient, inputs: Inputs) -> str | None:
    """Return the import id of a chart's release that has the name in its namespace already; None if none has.

    Raises:
        ShopCatError: the cluster can't be asked, or Helm takes no other change of what it has recorded.
    """
    namespace, name = str(inputs["namespace"]), str(inputs["name"])
    history = read_history(client, namespace, name)
    if obstacle := history.obstacle():
        raise PreflightError(obstacle)
    return f"{namespace}/{name}" if history.revisions else None


def find_existing(clients: AwsClients, kind: str, inputs: Inputs) -> str | None:
    """Return the import id of what has the name already; None if nothing has.

    Raises:
        ShopCatError: AWS can't be asked, or what is there can't be imported; the message says why.
    """
    try:
        return FINDERS[kind](clients, inputs)
    except (BotoCoreError, ClientError) as error:
        if any(word in error_code(error) for word in ("NotFound", "NoSuch")):
            return None
        raise explain(error, f"{kind} (is it there already?)", clients.endpoint_url) from error


def export_state(stack: str) -> dict[str, Any]:
    """Ask Pulumi's own command for the stack's state.

    Raises:
        PreflightError: it doesn't say so.
    """
    argv = ["pulumi", "stack", "export", "--stack", stack]
    try:
        result = subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    except OSError as error:
        raise PreflightError(f"`{' '.join(argv)}` can't be run: {error}") from error
    if result.returncode != 0:
        raise PreflightError(f"`{' '.join(argv)}` failed: {result.stderr.strip()}")
    exported: dict[str, Any] = json.loads(result.stdout)
    return exported


def resources_of(exported: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the resources of an exported state; none of an empty one."""
    return list((exported.get("deployment") or {}).get("resources") or [])


def read_owners(stack: str) -> Mapping[str, str]:
    """Return URN → id of all that the stack's state holds; empty where Pulumi's own command can't say it."""
    try:
        resources = resources_of(export_state(stack))
    except PreflightError:
        return {}
    return {str(each["urn"]): str(each.get("id", "")) for each in resources}


class ImportGuard:
    """The hook before every creation under a name of the program's own choice, in AWS and of a chart.

    One thing has one URN: what another URN of the state holds is neither imported nor, if it is a record that may be
    overwritten, made again, since the update would delete it under its other name.
    """

    def __init__(
        self, clients: AwsClients, kubernetes: Callable[[], KubernetesClient], stack: str, project: str
    ) -> None:
        self._clients, self._kubernetes, self._stack, self._project = clients, kubernetes, stack, project
        self._parents: dict[tuple[str, str], pulumi.Resource] = {}
        self._found: list[str] = []
        self._asked = 0
        self._owners: Mapping[str, str] | None = None
        self._reading = threading.Lock()
        self._hook = pulumi.ResourceHook("already-there", self._before_create)

    def own(self, args: pulumi.ResourceTransformationArgs) -> pulumi.ResourceTransformationResult | None:
        """Hook up a resource that this program declares."""
        if args.type_ not in {*FINDERS, HELM_RELEASE}:
            return None
        return pulumi.ResourceTransformationResult(args.props, self._hooked(args.type_, args.name, args.opts))

    def components(self, args: pulumi.ResourceTransformArgs) -> pulumi.ResourceTransformResult | None:
        """Hook up a resource that a component of another plugin declares."""
        if args.type_ not in FINDERS:
            return None
        return pulumi.ResourceTransformResult(args.props, self._hooked(args.type_, args.name, args.opts))

    def _hooked(self, kind: str, name: str, opts: pulumi.ResourceOptions) -> pulumi.ResourceOptions:
        if opts.parent is not None:
            self._parents[kind, name] = opts.parent
        hooks = pulumi.ResourceHookBinding(before_create=[self._hook])
        # Before any other hook: those of a chart write to the cluster.
        return pulumi.ResourceOptions.merge(pulumi.ResourceOptions(hooks=hooks), opts)

    def _find(self, kind: str, inputs: Inputs) -> str | None:
        if kind == HELM_RELEASE:
            return find_helm_release(self._kubernetes(), inputs)
        return find_existing(self._clients, kind, {**inputs, "allowOverwrite": False})

    def _read_owners(self) -> Mapping[str, str]:
        """Read the state once, when the first thing is found that is there already."""
        with self._reading:
            if self._owners is None:
                self._owners = read_owners(self._stack)
            return self._owners

    async def _before_create(self, args: pulumi.ResourceHookArgs) -> None:
        # What a component gives out as a secret (pulumi-eks: the whole cluster) comes as an Output here.
        self._asked += 1
        inputs = await pulumi.Output.from_input(dict(args.new_inputs or {})).future() or {}
        identifier = await threads.in_thread(self._find, args.type, inputs)
        if identifier is None:
            return
        owners = await threads.in_thread(self._read_owners)
        others = [
            urn for urn, each in owners.items() if each == identifier and urn != args.urn and f"{args.type}::" in urn
        ]
        if others:
            raise PreflightError(
                f"{args.type} {args.name}: the state has {identifier} already, as {others[0]}, and one thing can't have two "
                "names: the update would delete it under the former. Put the settings back as they were and run `pulumi up "
                f"-s {self._stack}`, which gives it its present name; then change them in an update of their own"
            )
        if inputs.get("allowOverwrite"):
            return
        urns = {"provider": provider_urn(self._stack, self._project, args.type.partition(":")[0])}
        parent = self._parents.get((args.type, args.name))
        if parent is not None:
            urns["parent"] = str(await parent.urn.future())
        command = import_command(self._stack, urns, args.type, args.name, identifier)
        if args.urn in owners:
            # A replacement that was cut off: what it replaces is deleted, and the engine imports nothing into a URN that it has.
            delete = shlex.join(["pulumi", "state", "delete", "--stack", self._stack, "--yes", args.urn])
            command = f"{delete} && {command}"
        self._found.append(command)
        await self._quiet()
        commands, self._found = self._found, []
        if not commands:
            raise PreflightError(
                f"{args.type} {args.name} is there already; the command is in the message of another resource"
            )
        raise PreflightError(
            "there is already what this update would make, and the state doesn't know it: an update that was killed has made "
            "it, `pulumi destroy` has kept it on purpose (docs/destroy.md), or it is somebody else's, which has to be "
            f"renamed or deleted. Take what is this stack's own into the state, then run `pulumi up -s {self._stack}` "
            "again:\n" + "\n".join(f"  {command}" for command in commands)
        )

    async def _quiet(self) -> None:
        """Wait until the engine asks about nothing new; the first that ends its wait names all that was found."""
        until = time.monotonic() + GATHER_SECONDS
        while time.monotonic() < until:
            count = self._asked
            await asyncio.sleep(QUIET_SECONDS)
            if self._asked == count:
                return
