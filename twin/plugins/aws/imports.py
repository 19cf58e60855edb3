"""Inputs of what is imported, as AWS has them: `pulumi import` reads a resource by its id alone.

As upstream, whatever would make another resource of it is read back, and what only changes it in place is left to the next
update where that is simpler. Ids have the forms of each type's section "Import" in the provider's documentation.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from twin.plugins.aws import ec2, elbv2
from twin.plugins.aws.kind import Aws, existing, lower
from twin.plugins.common import DEFAULTS, Properties, ProviderError

ImportReader = Callable[[Aws, str], Properties]


def _described(service: str, operation: str, argument: str, key: str, **fields: str) -> ImportReader:
    """Inputs from the one description that the operation gives; a field may name one inside another by a dot."""

    def read(aws: Aws, identifier: str) -> Properties:
        many = argument.endswith("s")
        answer = getattr(aws(service), operation)(**{argument: [identifier] if many else identifier})[key]
        description = answer[0] if isinstance(answer, list) else answer
        return _fields(description, fields)

    return read


def _fields(description: Mapping[str, Any], fields: Mapping[str, str]) -> Properties:
    inputs = {}
    for name, path in fields.items():
        value: Any = description
        for part in path.split("."):
            value = value[int(part)] if part.isdigit() else value.get(part)
        if value is not None:
            inputs[name] = value
    return inputs


def _log_group(aws: Aws, name: str) -> Properties:
    listed = aws("logs").describe_log_groups(logGroupNamePrefix=name)["logGroups"]
    (log_group,) = [candidate for candidate in listed if candidate["logGroupName"] == name]
    return _fields(log_group, {"name": "logGroupName", "retentionInDays": "retentionInDays"})


def _endpoint(aws: Aws, identifier: str) -> Properties:
    (endpoint,) = aws("ec2").describe_vpc_endpoints(VpcEndpointIds=[identifier])["VpcEndpoints"]
    names = {
        "vpcId": "VpcId", "serviceName": "ServiceName", "vpcEndpointType": "VpcEndpointType",
        "routeTableIds": "RouteTableIds", "subnetIds": "SubnetIds",
    }  # fmt: skip
    groups = [group["GroupId"] for group in endpoint.get("Groups") or []]
    found = {name: value for name, value in _fields(endpoint, names).items() if value}
    is_interface = endpoint["VpcEndpointType"] == "Interface"  # moto has private names of the others, too
    private = {"privateDnsEnabled": True} if is_interface and endpoint.get("PrivateDnsEnabled") else {}
    return {**found, **private, **({"securityGroupIds": groups} if groups else {})}


def _table(aws: Aws, name: str) -> Properties:
    table = aws("dynamodb").describe_table(TableName=name)["Table"]
    attributes = [
        {"name": attribute["AttributeName"], "type": attribute["AttributeType"]}
        for attribute in table["AttributeDefinitions"]
    ]
    key, mode = table["KeySchema"][0]["AttributeName"], table["BillingModeSummary"]["BillingMode"]
    return {"name": name, "hashKey": key, "billingMode": mode, "attributes": attributes}


def _repository(aws: Aws, name: str) -> Properties:
    (repository,) = aws("ecr").describe_repositories(repositoryNames=[name])["repositories"]
    encryption = [{"encryptionType": repository["encryptionConfiguration"]["encryptionType"]}]
    return {
        "name": name,
        "imageTagMutability": repository["imageTagMutability"],
        "encryptionConfigurations": encryption,
    }


def _internet_gateway(aws: Aws, identifier: str) -> Properties:
    (gateway,) = aws("ec2").describe_internet_gateways(InternetGatewayIds=[identifier])["InternetGateways"]
    return {"vpcId": gateway["Attachments"][0]["VpcId"]}


def _route(aws: Aws, identifier: str) -> Properties:
    table, _, destination = identifier.partition("_")
    (route_table,) = aws("ec2").describe_route_tables(RouteTableIds=[table])["RouteTables"]
    (route,) = [
        candidate for candidate in route_table["Routes"] if candidate.get("DestinationCidrBlock") == destination
    ]
    ways = {"gatewayId": "GatewayId", "natGatewayId": "NatGatewayId"}
    return {"routeTableId": table, "destinationCidrBlock": destination, **_fields(route, ways)}


def _association(_: Aws, identifier: str) -> Properties:
    subnet, table = identifier.split("/", maxsplit=1)
    return {"subnetId": subnet, "routeTableId": table}


def _group_rule(aws: Aws, identifier: str) -> Properties:
    rules = aws("ec2").describe_security_group_rules(SecurityGroupRuleIds=[identifier])["SecurityGroupRules"]
    names = {
        "securityGroupId": "GroupId", "cidrIpv4": "CidrIpv4", "fromPort": "FromPort", "toPort": "ToPort",
        "ipProtocol": "IpProtocol", "description": "Description",
    }  # fmt: skip
    inputs = _fields(rules[0], names)
    reference = (rules[0].get("ReferencedGroupInfo") or {}).get("GroupId")
    return {**inputs, **({"referencedSecurityGroupId": reference} if reference else {})}


def _cluster(aws: Aws, name: str) -> Properties:
    cluster = aws("eks").describe_cluster(name=name)["cluster"]
    vpc = cluster["resourcesVpcConfig"]
    access = ("subnetIds", "endpointPublicAccess", "endpointPrivateAccess", "publicAccessCidrs", "securityGroupIds")
    logs = [each["types"] for each in cluster.get("logging", {}).get("clusterLogging", []) if each["enabled"]]
    encryption = [
        {"provider": {"keyArn": configuration["provider"]["keyArn"]}, "resources": configuration["resources"]}
        for configuration in cluster.get("encryptionConfig", [])
    ]
    return {
        "name": name,
        "roleArn": cluster["roleArn"],
        "version": cluster["version"],
        "vpcConfig": {key: vpc[key] for key in access if vpc.get(key)},
        "enabledClusterLogTypes": sorted(name for types in logs for name in types),
        **_fields(cluster, {"upgradePolicy": "upgradePolicy"}),
        **({"encryptionConfig": encryption[0]} if encryption else {}),
        "accessConfig": {"authenticationMode": "API"},
    }


def _addon(aws: Aws, identifier: str) -> Properties:
    cluster, _, name = identifier.partition(":")
    addon = aws("eks").describe_addon(clusterName=cluster, addonName=name)["addon"]
    names = ("clusterName", "addonName", "addonVersion", "configurationValues", "serviceAccountRoleArn")
    return _fields(addon, {each: each for each in names})


def _access_entry(aws: Aws, identifier: str) -> Properties:
    cluster, _, principal = identifier.partition(":")
    entry = aws("eks").describe_access_entry(clusterName=cluster, principalArn=principal)["accessEntry"]
    names = {"clusterName": "clusterName", "principalArn": "principalArn", "userName": "username", "type": "type"}
    return {**_fields(entry, names), "kubernetesGroups": entry["kubernetesGroups"]}


def _pod_identity(aws: Aws, identifier: str) -> Properties:
    cluster, _, association = identifier.partition(",")
    description = aws("eks").describe_pod_identity_association(clusterName=cluster, associationId=association)[
        "association"
    ]
    return {key: description[key] for key in ("clusterName", "namespace", "serviceAccount", "roleArn")}


def _load_balancer(aws: Aws, arn: str) -> Properties:
    (balancer,) = aws("elbv2").describe_load_balancers(LoadBalancerArns=[arn])["LoadBalancers"]
    listed = aws("elbv2").describe_load_balancer_attributes(LoadBalancerArn=arn)["Attributes"]
    return elbv2.load_balancer_inputs(balancer, {each["Key"]: each["Value"] for each in listed})


def _target_group(aws: Aws, arn: str) -> Properties:
    (group,) = aws("elbv2").describe_target_groups(TargetGroupArns=[arn])["TargetGroups"]
    listed = aws("elbv2").describe_target_group_attributes(TargetGroupArn=arn)["Attributes"]
    return elbv2.target_group_inputs(group, {each["Key"]: each["Value"] for each in listed})


def _listener(aws: Aws, arn: str) -> Properties:
    (listener,) = aws("elbv2").describe_listeners(ListenerArns=[arn])["Listeners"]
    names = {
        "loadBalancerArn": "LoadBalancerArn", "port": "Port", "protocol": "Protocol", "sslPolicy": "SslPolicy",
    }  # fmt: skip
    certificates = [each["CertificateArn"] for each in listener.get("Certificates") or []]
    return {
        **_fields(listener, names),
        **({"certificateArn": certificates[0]} if certificates else {}),
        "defaultActions": elbv2.action_inputs(listener["DefaultActions"]),
    }


def _rule(aws: Aws, arn: str) -> Properties:
    (rule,) = aws("elbv2").describe_rules(RuleArns=[arn])["Rules"]
    return {
        "listenerArn": arn.replace(":listener-rule/", ":listener/").rpartition("/")[0],
        "priority": int(rule["Priority"]),
        "actions": elbv2.action_inputs(rule["Actions"]),
        "conditions": elbv2.condition_inputs(rule["Conditions"]),
    }


def _address(aws: Aws, identifier: str) -> Properties:
    (address,) = aws("ec2").describe_addresses(AllocationIds=[identifier])["Addresses"]
    return {"domain": address["Domain"]}


def _launch_template(aws: Aws, identifier: str) -> Properties:
    """Inputs from the newest version; which one is the default is no property of a version, and upstream reads none."""
    answer = aws("ec2").describe_launch_template_versions(LaunchTemplateId=identifier, Versions=["$Latest"])
    version = answer["LaunchTemplateVersions"][0]
    return {"name": version["LaunchTemplateName"], **ec2.template_inputs(version["LaunchTemplateData"])}


def _node_group(aws: Aws, identifier: str) -> Properties:
    cluster, _, name = identifier.partition(":")
    group = aws("eks").describe_nodegroup(clusterName=cluster, nodegroupName=name)["nodegroup"]
    names = {
        "clusterName": "clusterName", "nodeGroupName": "nodegroupName", "nodeRoleArn": "nodeRole",
        "subnetIds": "subnets", "instanceTypes": "instanceTypes", "amiType": "amiType",
        "capacityType": "capacityType", "releaseVersion": "releaseVersion", "version": "version",
        "updateConfig": "updateConfig",
    }  # fmt: skip
    template, sizes = group.get("launchTemplate"), group["scalingConfig"]
    return {
        **_fields(group, names),
        "scalingConfig": {key: sizes[key] for key in ("minSize", "maxSize", "desiredSize")},
        **({"launchTemplate": {"id": template["id"], "version": str(template["version"])}} if template else {}),
    }


def _certificate(aws: Aws, arn: str) -> Properties:
    certificate = aws("acm").describe_certificate(CertificateArn=arn)["Certificate"]
    domain = certificate["DomainName"]
    others = [name for name in certificate.get("SubjectAlternativeNames") or [] if name != domain]
    methods = [option.get("ValidationMethod") for option in certificate.get("DomainValidationOptions") or []]
    return {
        "domainName": domain,
        "validationMethod": next(filter(None, methods), "DNS"),
        **({"subjectAlternativeNames": others} if others else {}),
    }


def _role_policy(aws: Aws, identifier: str) -> Properties:
    role, _, name = identifier.partition(":")
    policy = aws("iam").get_role_policy(RoleName=role, PolicyName=name)
    return {"role": role, "name": name, "policy": json.dumps(policy["PolicyDocument"])}


def _record(aws: Aws, identifier: str) -> Properties:
    zone, name, kind = identifier.split("_", 2)
    listed = aws("route53").list_resource_record_sets(
        HostedZoneId=zone, StartRecordName=name, StartRecordType=kind, MaxItems="1"
    )["ResourceRecordSets"]
    return {"zoneId": zone, "name": name, "type": listed[0]["Type"]}


def _secret(aws: Aws, arn: str) -> Properties:
    return _fields(aws("secretsmanager").describe_secret(SecretId=arn), {"name": "Name", "description": "Description"})


def _instance(aws: Aws, identifier: str) -> Properties:
    """All that upstream reads back of what the stand-in takes; who keeps the master password it doesn't read."""
    (instance,) = aws("rds").describe_db_instances(DBInstanceIdentifier=identifier)["DBInstances"]
    names = {
        "identifier": "DBInstanceIdentifier", "engine": "Engine", "engineVersion": "EngineVersion",
        "instanceClass": "DBInstanceClass", "allocatedStorage": "AllocatedStorage", "storageType": "StorageType",
        "iops": "Iops", "storageEncrypted": "StorageEncrypted", "kmsKeyId": "KmsKeyId", "dbName": "DBName",
        "username": "MasterUsername", "port": "Endpoint.Port", "multiAz": "MultiAZ",
        "backupRetentionPeriod": "BackupRetentionPeriod", "backupWindow": "PreferredBackupWindow",
        "maintenanceWindow": "PreferredMaintenanceWindow", "caCertIdentifier": "CACertificateIdentifier",
        "publiclyAccessible": "PubliclyAccessible", "deletionProtection": "DeletionProtection",
        "copyTagsToSnapshot": "CopyTagsToSnapshot", "autoMinorVersionUpgrade": "AutoMinorVersionUpgrade",
    }  # fmt: skip
    if instance.get("DBSubnetGroup"):
        names["dbSubnetGroupName"] = "DBSubnetGroup.DBSubnetGroupName"
    if instance.get("DBParameterGroups"):
        names["parameterGroupName"] = "DBParameterGroups.0.DBParameterGroupName"
    groups = [group["VpcSecurityGroupId"] for group in instance.get("VpcSecurityGroups", [])]
    # RDS names a largest storage only where it makes the storage larger by itself; moto always does.
    largest = instance.get("MaxAllocatedStorage", 0)
    growing = {"maxAllocatedStorage": largest} if largest > instance["AllocatedStorage"] else {}
    by_iam = {"iamDatabaseAuthenticationEnabled": True} if instance.get("IAMDatabaseAuthenticationEnabled") else {}
    return {**_fields(instance, names), **growing, **by_iam, "vpcSecurityGroupIds": groups}


def _subnet_group(aws: Aws, name: str) -> Properties:
    (group,) = aws("rds").describe_db_subnet_groups(DBSubnetGroupName=name)["DBSubnetGroups"]
    inputs = _fields(group, {"name": "DBSubnetGroupName", "description": "DBSubnetGroupDescription"})
    return {**inputs, "subnetIds": [subnet["SubnetIdentifier"] for subnet in group["Subnets"]]}


def _budget(aws: Aws, identifier: str) -> Properties:
    """Inputs of a budget; who is told by a notification is left to the next update, as moto has no call for that."""
    account, _, name = identifier.partition(":")
    target = {"AccountId": account, "BudgetName": name}
    budget = aws("budgets").describe_budget(**target)["Budget"]
    notifications = aws("budgets").describe_notifications_for_budget(**target)["Notifications"]
    fields = {"name": "BudgetName", "budgetType": "BudgetType", "timeUnit": "TimeUnit"}
    return {
        **_fields(budget, fields),
        "limitAmount": str(budget["BudgetLimit"]["Amount"]),
        "limitUnit": budget["BudgetLimit"]["Unit"],
        "notifications": [lower(notification) for notification in notifications],
    }


READERS: Mapping[str, ImportReader] = {
    "aws:budgets/budget:Budget": _budget,
    "aws:cloudwatch/logGroup:LogGroup": _log_group,
    "aws:dynamodb/table:Table": _table,
    "aws:acm/certificate:Certificate": _certificate,
    "aws:ec2/eip:Eip": _address,
    "aws:ec2/internetGateway:InternetGateway": _internet_gateway,
    "aws:ec2/launchTemplate:LaunchTemplate": _launch_template,
    "aws:ec2/natGateway:NatGateway": _described(
        "ec2", "describe_nat_gateways", "NatGatewayIds", "NatGateways",
        subnetId="SubnetId", allocationId="NatGatewayAddresses.0.AllocationId",
    ),
    "aws:ec2/route:Route": _route,
    "aws:ec2/routeTable:RouteTable": _described(
        "ec2", "describe_route_tables", "RouteTableIds", "RouteTables", vpcId="VpcId"
    ),
    "aws:ec2/routeTableAssociation:RouteTableAssociation": _association,
    "aws:ec2/securityGroup:SecurityGroup": _described(
        "ec2", "describe_security_groups", "GroupIds", "SecurityGroups",
        name="GroupName", description="Description", vpcId="VpcId",
    ),
    "aws:ec2/subnet:Subnet": _described(
        "ec2", "describe_subnets", "SubnetIds", "Subnets",
        vpcId="VpcId", cidrBlock="CidrBlock", availabilityZone="AvailabilityZone",
    ),
    "aws:ec2/vpc:Vpc": _described("ec2", "describe_vpcs", "VpcIds", "Vpcs", cidrBlock="CidrBlock"),
    "aws:ec2/vpcEndpoint:VpcEndpoint": _endpoint,
    "aws:ecr/repository:Repository": _repository,
    "aws:eks/accessEntry:AccessEntry": _access_entry,
    "aws:eks/addon:Addon": _addon,
    "aws:eks/cluster:Cluster": _cluster,
    "aws:eks/nodeGroup:NodeGroup": _node_group,
    "aws:eks/podIdentityAssociation:PodIdentityAssociation": _pod_identity,
    "aws:iam/role:Role": _described("iam", "get_role", "RoleName", "Role", name="RoleName", path="Path"),
    "aws:iam/rolePolicy:RolePolicy": _role_policy,
    "aws:kms/key:Key": _described("kms", "describe_key", "KeyId", "KeyMetadata", description="Description"),
    "aws:lb/listener:Listener": _listener,
    "aws:lb/listenerRule:ListenerRule": _rule,
    "aws:lb/loadBalancer:LoadBalancer": _load_balancer,
    "aws:lb/targetGroup:TargetGroup": _target_group,
    "aws:rds/instance:Instance": _instance,
    "aws:rds/parameterGroup:ParameterGroup": _described(
        "rds", "describe_db_parameter_groups", "DBParameterGroupName", "DBParameterGroups",
        name="DBParameterGroupName", family="DBParameterGroupFamily", description="Description",
    ),
    "aws:rds/subnetGroup:SubnetGroup": _subnet_group,
    "aws:route53/record:Record": _record,
    "aws:secretsmanager/secret:Secret": _secret,
    "aws:ssm/parameter:Parameter": _described(
        "ssm", "get_parameter", "Name", "Parameter", name="Name", type="Type", value="Value"
    ),
    "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule": _group_rule,
    "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule": _group_rule,
}  # fmt: skip


def _associated(aws: Aws, identifier: str) -> str:
    subnet, table = identifier.split("/", maxsplit=1)
    (route_table,) = aws("ec2").describe_route_tables(RouteTableIds=[table])["RouteTables"]
    (association,) = [each for each in route_table["Associations"] if each.get("SubnetId") == subnet]
    return str(association["RouteTableAssociationId"])


def _database(aws: Aws, identifier: str) -> str:
    (instance,) = aws("rds").describe_db_instances(DBInstanceIdentifier=identifier)["DBInstances"]
    return str(instance["DbiResourceId"])


_STATE_IDS: Mapping[str, Callable[[Aws, str], str]] = {
    "aws:ec2/route:Route": lambda _, identifier: "r-" + identifier.replace("_", "-"),
    "aws:ec2/routeTableAssociation:RouteTableAssociation": _associated,
    "aws:eks/podIdentityAssociation:PodIdentityAssociation": lambda _, identifier: identifier.rpartition(",")[2],
    "aws:rds/instance:Instance": _database,
}
"""Types whose id in the state is another one than that by which they are imported."""


def state_id(aws: Aws, type_name: str, identifier: str) -> str:
    """Return the id that a resource has in the state once it is imported by this one."""
    reader = _STATE_IDS.get(type_name)
    return reader(aws, identifier) if reader else identifier


def inputs(aws: Aws, type_name: str, identifier: str) -> Properties | None:
    """Inputs of what has this import id; None if there is no such thing.

    As upstream they say that none of them is a default, a name that was made up neither (`__defaults`).

    Raises:
        ProviderError: the stand-in imports no such type.
    """
    reader = READERS.get(type_name)
    if reader is None:
        raise ProviderError(f"twin: importing {type_name} is not implemented by the stand-in of the aws plugin")
    return existing(lambda: {**reader(aws, identifier), DEFAULTS: []})
