"""VPC and EC2 types. Force-new fields follow hashicorp/terraform-provider-aws internal/service/ec2."""

from __future__ import annotations

from typing import Any, ClassVar

from botocore.exceptions import ClientError

from twin.plugins.aws.kind import Aws, Kind, gone, pick, tag_list, upper, wait
from twin.plugins.common import Properties


class Ec2Kind(Kind):
    """An EC2 thing found by id in one Describe call."""

    tagged = True
    describe: ClassVar[tuple[str, str, str]]  # operation, argument, field of the answer

    def found(self, aws: Aws, identifier: str) -> dict[str, Any] | None:
        """Its description, or None."""
        operation, argument, key = self.describe
        try:
            answer = getattr(aws("ec2"), operation)(**{argument: [identifier]})
        except ClientError as error:
            if gone(error):
                return None
            raise
        items = answer[key]
        return items[0] if items and items[0].get("State") not in ("deleted", "deleting") else None

    def arn(self, aws: Aws, kind: str, identifier: str) -> str:
        """ARN of an EC2 resource."""
        return f"arn:aws:ec2:{aws.region}:{aws.account}:{kind}/{identifier}"

    def tag(self, aws: Aws, identifier: str, state: Properties, add: dict[str, str], remove: list[str]) -> None:
        """EC2 tags everything alike."""
        del state
        if add:
            aws("ec2").create_tags(Resources=[identifier], Tags=tag_list(add))
        if remove:
            aws("ec2").delete_tags(Resources=[identifier], Tags=[{"Key": key} for key in remove])


class Vpc(Ec2Kind):
    """aws_vpc."""

    token = "aws:ec2/vpc:Vpc"
    inputs = frozenset({"cidrBlock", "enableDnsSupport", "enableDnsHostnames"})
    replaces = frozenset({"cidrBlock"})
    defaults = {"enableDnsSupport": True}
    describe = ("describe_vpcs", "VpcIds", "Vpcs")

    def create(self, aws: Aws, inputs: Properties) -> str:
        made: str = aws("ec2").create_vpc(CidrBlock=inputs["cidrBlock"])["Vpc"]["VpcId"]
        self.update(aws, made, {}, inputs, {"enableDnsSupport", "enableDnsHostnames"} & set(inputs))
        return made

    def update(self, aws: Aws, identifier: str, state: Properties, new: Properties, changed: set[str]) -> None:
        del state
        for name in changed:
            value = {"Value": bool(new.get(name))}
            aws("ec2").modify_vpc_attribute(VpcId=identifier, **{name[:1].upper() + name[1:]: value})

    def read(self, aws: Aws, identifier: str, state: Properties) -> Properties | None:
        del state
        found = self.found(aws, identifier)
        if found is None:
            return None
        return {"arn": self.arn(aws, "vpc", identifier), "cidrBlock": found["CidrBlock"], "ownerId": aws.account}

    def delete(self, aws: Aws, identifier: str, state: Properties) -> None:
        del state
        aws("ec2").delete_vpc(VpcId=identifier)


class Subnet(Ec2Kind):
    """aws_subnet."""

    token = "aws:ec2/subnet:Subnet"
    inputs = frozenset({"vpcId", "cidrBlock", "availabilityZone", "mapPublicIpOnLaunch"})
    replaces = frozenset({"vpcId", "cidrBlock", "availabilityZone"})
    describe = ("describe_subnets", "SubnetIds", "Subnets")

    def create(self, aws: Aws, inputs: Properties) -> str:
        arguments = pick(inputs, VpcId="vpcId", CidrBlock="cidrBlock", AvailabilityZone="availabilityZone")
        made: str = aws("ec2").create_subnet(**arguments)["Subnet"]["SubnetId"]
        self.update(aws, made, {}, inputs, {"mapPublicIpOnLaunch"} & set(inputs))
        return made

    def update(self, aws: Aws, identifier: str, state: Properties, new: Properties, changed: set[str]) -> None:
        del state
        if changed:
            value = {"Value": bool(new.get("mapPublicIpOnLaunch"))}
            aws("ec2").modify_subnet_attribute(SubnetId=identifier, MapPublicIpOnLaunch=value)

    def read(self, aws: Aws, identifier: str, state: Properties) -> Properties | None:
        del state
        found = self.found(aws, identifier)
        if found is None:
            return None
        return {
            "arn": self.arn(aws, "subnet", identifier),
            "cidrBlock": found["CidrBlock"],
            "availabilityZone": found["AvailabilityZone"],
            "vpcId": found["VpcId"],
        }

    def delete(self, aws: Aws, identifier: str, state: Properties) -> None:
        del state
        aws("ec2").delete_subnet(SubnetId=identifier)


class InternetGateway(Ec2Kind):
    """aws_internet_gateway."""

    token = "aws:ec2/internetGateway:InternetGateway"
    inputs = frozenset({"vpcId"})
    replaces = frozenset({"vpcId"})
    describe = ("describe_internet_gateways", "InternetGatewayIds", "InternetGateways")

    def create(self, aws: Aws, inputs: Properties) -> str:
        made: str = aws("ec2").create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
        aws("ec2").attach_internet_gateway(InternetGatewayId=made, VpcId=inputs["vpcId"])
        return made

    def read(self, aws: Aws, identifier: str, state: Properties) -> Properties | None:
        del state
        found = self.found(aws, identifier)
        if found is None:
            return None
        attached = [one["VpcId"] for one in found.get("Attachments", [])]
        return {"arn": self.arn(aws, "internet-gateway", identifier), "vpcId": attached[0] if attached else ""}

    def delete(self, aws: Aws, identifier: str, state: Properties) -> None:
        if state.get("vpcId"):
            aws("ec2").detach_internet_gateway(InternetGatewayId=identifier, VpcId=state["vpcId"])
        aws("ec2").delete_internet_gateway(InternetGatewayId=identifier)


class Eip(Ec2Kind):
    """aws_eip."""

    token = "aws:ec2/eip:Eip"
    inputs = frozenset({"domain"})
    replaces = frozenset({"domain"})
    describe = ("describe_addresses", "AllocationIds", "Addresses")

    def create(self, aws: Aws, inputs: Properties) -> str:
        made: str = aws("ec2").allocate_address(Domain=inputs.get("domain", "vpc"))["AllocationId"]
        return made

    def read(self, aws: Aws, identifier: str, state: Properties) -> Properties | None:
        del state
        found = self.found(aws, identifier)
        if found is None:
            return None
        return {"allocationId": identifier, "publicIp": found["PublicIp"]}

    def delete(self, aws: Aws, identifier: str, state: Properties) -> None:
        del state
        aws("ec2").release_address(AllocationId=identifier)


class NatGateway(Ec2Kind):
    """aws_nat_gateway."""

    token = "aws:ec2/natGateway:NatGateway"
    inputs = frozenset({"subnetId", "allocationId", "connectivityType"})
    replaces = frozenset({"subnetId", "allocationId", "connectivityType"})
    create_before_delete = False
    describe = ("describe_nat_gateways", "NatGatewayIds", "NatGateways")

    def create(self, aws: Aws, inputs: Properties) -> str:
        arguments = pick(inputs, SubnetId="subnetId", AllocationId="allocationId", ConnectivityType="connectivityType")
        made: str = aws("ec2").create_nat_gateway(**arguments)["NatGateway"]["NatGatewayId"]
        wait(lambda: (self.found(aws, made) or {}).get("State") == "available", f"NAT gateway {made}", 600)
        return made

    def read(self, aws: Aws, identifier: str, state: Properties) -> Properties | None:
        del state
        found = self.found(aws, identifier)
        if found is None:
            return None
        addresses = found.get("NatGatewayAddresses") or [{}]
        return {"publicIp": addresses[0].get("PublicIp", ""), "privateIp": addresses[0].get("PrivateIp", "")}

    def delete(self, aws: Aws, identifier: str, state: Properties) -> None:
        del state
        aws("ec2").delete_nat_gateway(NatGatewayId=identifier)
        wait(lambda: self.found(aws, identifier) is None, f"deletion of NAT gateway {identifier}", 600)


class RouteTable(Ec2Kind):
    """aws_route_table; routes are resources of their own."""

    token = "aws:ec2/routeTable:RouteTable"
    inputs = frozenset({"vpcId"})
    replaces = frozenset({"vpcId"})
    describe = ("describe_route_tables", "RouteTableIds", "RouteTables")

    def create(self, aws: Aws, inputs: Properties) -> str:
        made: str = aws("ec2").create_route_table(VpcId=inputs["vpcId"])["RouteTable"]["RouteTableId"]
        return made

    def read(self, aws: Aws, identifier: str, state: Properties) -> Properties | None:
        del state
        found = self.found(aws, identifier)
        return None if found is None else {"arn": self.arn(aws, "route-table", identifier), "vpcId": found["VpcId"]}

    def delete(self, aws: Aws, identifier: str, state: Properties) -> None:
        del state
        aws("ec2").delete_route_table(RouteTableId=identifier)


class Route(Kind):
    """aws_route."""

    token = "aws:ec2/route:Route"
    inputs = frozenset({"routeTableId", "destinationCidrBlock", "gatewayId", "natGatewayId"})
    replaces = frozenset({"routeTableId", "destinationCidrBlock"})

    def _arguments(self, inputs: Properties) -> dict[str, Any]:
        names = {"RouteTableId": "routeTableId", "DestinationCidrBlock": "destinationCidrBlock"}
        return pick(inputs, **names, GatewayId="gatewayId", NatGatewayId="natGatewayId")

    def create(self, aws: Aws, inputs: Properties) -> str:
        aws("ec2").create_route(**self._arguments(inputs))
        return f"r-{inputs['routeTableId']}-{inputs['destinationCidrBlock']}"

    def read(self, aws: Aws, identifier: str, state: Properties) -> Properties | None:
        del identifier
        try:
            tables = aws("ec2").describe_route_tables(RouteTableIds=[state["routeTableId"]])["RouteTables"]
        except ClientError as error:
            if gone(error):
                return None
            raise
        for route in tables[0]["Routes"]:
            if route.get("DestinationCidrBlock") == state["destinationCidrBlock"]:
                return pick(route, gatewayId="GatewayId", natGatewayId="NatGatewayId")
        return None

    def update(self, aws: Aws, identifier: str, state: Properties, new: Properties, changed: set[str]) -> None:
        del identifier, state
        if changed:
            aws("ec2").replace_route(**self._arguments(new))

    def delete(self, aws: Aws, identifier: str, state: Properties) -> None:
        del identifier
        aws("ec2").delete_route(RouteTableId=state["routeTableId"], DestinationCidrBlock=state["destinationCidrBlock"])


class RouteTableAssociation(Kind):
    """aws_route_table_association."""

    token = "aws:ec2/routeTableAssociation:RouteTableAssociation"
    inputs = frozenset({"subnetId", "routeTableId"})
    replaces = frozenset({"subnetId", "routeTableId"})
    create_before_delete = False

    def create(self, aws: Aws, inputs: Properties) -> str:
        arguments = pick(inputs, SubnetId="subnetId", RouteTableId="routeTableId")
        made: str = aws("ec2").associate_route_table(**arguments)["AssociationId"]
        return made

    def read(self, aws: Aws, identifier: str, state: Properties) -> Properties | None:
        del state
        filters = [{"Name": "association.route-table-association-id", "Values": [identifier]}]
        tables = aws("ec2").describe_route_tables(Filters=filters)["RouteTables"]
        return {"routeTableId": tables[0]["RouteTableId"]} if tables else None

    def delete(self, aws: Aws, identifier: str, state: Properties) -> None:
        del state
        aws("ec2").disassociate_route_table(AssociationId=identifier)


class VpcEndpoint(Ec2Kind):
    """aws_vpc_endpoint, gateway and interface."""

    token = "aws:ec2/vpcEndpoint:VpcEndpoint"
    inputs = frozenset(
        {
            "vpcId",
            "serviceName",
            "vpcEndpointType",
            "routeTableIds",
            "subnetIds",
            "securityGroupIds",
            "privateDnsEnabled",
        }
    )
    replaces = frozenset({"vpcId", "serviceName", "vpcEndpointType"})
    describe = ("describe_vpc_endpoints", "VpcEndpointIds", "VpcEndpoints")

    def create(self, aws: Aws, inputs: Properties) -> str:
        arguments = pick(
            inputs,
            VpcId="vpcId",
            ServiceName="serviceName",
            VpcEndpointType="vpcEndpointType",
            RouteTableIds="routeTableIds",
            SubnetIds="subnetIds",
            SecurityGroupIds="securityGroupIds",
            PrivateDnsEnabled="privateDnsEnabled",
        )
        made: str = aws("ec2").create_vpc_endpoint(**arguments)["VpcEndpoint"]["VpcEndpointId"]
        return made

    def read(self, aws: Aws, identifier: str, state: Properties) -> Properties | None:
        del state
        found = self.found(aws, identifier)
        return None if found is None else {"arn": self.arn(aws, "vpc-endpoint", identifier), "state": "available"}

    def delete(self, aws: Aws, identifier: str, state: Properties) -> None:
        del state
        aws("ec2").delete_vpc_endpoints(VpcEndpointIds=[identifier])


class SecurityGroup(Ec2Kind):
    """aws_security_group without inline rules: rules are resources of their own."""

    token = "aws:ec2/securityGroup:SecurityGroup"
    inputs = frozenset({"vpcId", "name", "description", "revokeRulesOnDelete"})
    replaces = frozenset({"vpcId", "name", "description"})
    name_property = "name"
    name_limit = 255
    defaults = {"description": "Managed by Pulumi"}
    describe = ("describe_security_groups", "GroupIds", "SecurityGroups")

    def create(self, aws: Aws, inputs: Properties) -> str:
        arguments = pick(inputs, VpcId="vpcId", GroupName="name", Description="description")
        made: str = aws("ec2").create_security_group(**arguments)["GroupId"]
        # The provider takes AWS's allow-all egress rule away; egress is declared or absent.
        everything = [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
        aws("ec2").revoke_security_group_egress(GroupId=made, IpPermissions=everything)
        return made

    def read(self, aws: Aws, identifier: str, state: Properties) -> Properties | None:
        del state
        found = self.found(aws, identifier)
        if found is None:
            return None
        return {
            "arn": self.arn(aws, "security-group", identifier),
            "name": found["GroupName"],
            "vpcId": found["VpcId"],
            "ownerId": found["OwnerId"],
        }

    def delete(self, aws: Aws, identifier: str, state: Properties) -> None:
        del state
        aws("ec2").delete_security_group(GroupId=identifier)


class _SecurityGroupRule(Kind):
    inputs = frozenset(
        {
            "securityGroupId", "cidrIpv4", "fromPort", "toPort", "ipProtocol", "referencedSecurityGroupId",
            "prefixListId", "description",
        }
    )  # fmt: skip
    replaces = inputs
    tagged = True
    egress: ClassVar[bool]

    def _permission(self, inputs: Properties) -> dict[str, Any]:
        permission: dict[str, Any] = {"IpProtocol": inputs["ipProtocol"]}
        permission |= pick(inputs, FromPort="fromPort", ToPort="toPort")
        note = pick(inputs, Description="description")
        if inputs.get("cidrIpv4"):
            permission["IpRanges"] = [{"CidrIp": inputs["cidrIpv4"], **note}]
        if inputs.get("referencedSecurityGroupId"):
            permission["UserIdGroupPairs"] = [{"GroupId": inputs["referencedSecurityGroupId"], **note}]
        if inputs.get("prefixListId"):
            permission["PrefixListIds"] = [{"PrefixListId": inputs["prefixListId"], **note}]
        return permission

    def create(self, aws: Aws, inputs: Properties) -> str:
        operation = "authorize_security_group_egress" if self.egress else "authorize_security_group_ingress"
        answer = getattr(aws("ec2"), operation)(
            GroupId=inputs["securityGroupId"], IpPermissions=[self._permission(inputs)]
        )
        made: str = answer["SecurityGroupRules"][0]["SecurityGroupRuleId"]
        return made

    def read(self, aws: Aws, identifier: str, state: Properties) -> Properties | None:
        filters = [{"Name": "group-id", "Values": [state["securityGroupId"]]}]
        try:
            rules = aws("ec2").describe_security_group_rules(Filters=filters)["SecurityGroupRules"]
        except ClientError as error:
            if gone(error):
                return None
            raise
        if identifier not in [rule["SecurityGroupRuleId"] for rule in rules]:
            return None
        arn = f"arn:aws:ec2:{aws.region}:{aws.account}:security-group-rule/{identifier}"
        return {"arn": arn, "securityGroupRuleId": identifier}

    def delete(self, aws: Aws, identifier: str, state: Properties) -> None:
        operation = "revoke_security_group_egress" if self.egress else "revoke_security_group_ingress"
        del identifier
        getattr(aws("ec2"), operation)(GroupId=state["securityGroupId"], IpPermissions=[self._permission(state)])

    def tag(self, aws: Aws, identifier: str, state: Properties, add: dict[str, str], remove: list[str]) -> None:
        del aws, identifier, state, add, remove  # moto refuses tags on rules; nothing reads them


class SecurityGroupIngressRule(_SecurityGroupRule):
    """aws_vpc_security_group_ingress_rule."""

    token = "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule"
    egress = False


class SecurityGroupEgressRule(_SecurityGroupRule):
    """aws_vpc_security_group_egress_rule."""

    token = "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule"
    egress = True


def _device(mapping: Properties) -> dict[str, Any]:
    """A block device; the provider takes these truth values as text, the API as such."""
    device = upper(mapping)
    ebs = {name: value == "true" if value in ("true", "false") else value for name, value in device["Ebs"].items()}
    return {**device, "Ebs": ebs}


class LaunchTemplate(Ec2Kind):
    """aws_launch_template: what a node group hands to its instances. A change is a new version."""

    token = "aws:ec2/launchTemplate:LaunchTemplate"
    inputs = frozenset(
        {"name", "description", "metadataOptions", "tagSpecifications", "blockDeviceMappings", "updateDefaultVersion",
         "instanceType", "userData"}
    )  # fmt: skip
    replaces = frozenset({"name"})
    name_property = "name"
    name_limit = 125
    describe = ("describe_launch_templates", "LaunchTemplateIds", "LaunchTemplates")

    def _data(self, inputs: Properties) -> dict[str, Any]:
        data: dict[str, Any] = pick(inputs, InstanceType="instanceType", UserData="userData")
        if inputs.get("metadataOptions"):
            data["MetadataOptions"] = upper(inputs["metadataOptions"])
        if inputs.get("blockDeviceMappings"):
            data["BlockDeviceMappings"] = [_device(one) for one in inputs["blockDeviceMappings"]]
        specifications = inputs.get("tagSpecifications") or []
        if specifications:
            data["TagSpecifications"] = [
                {"ResourceType": one["resourceType"], "Tags": tag_list(one.get("tags"))} for one in specifications
            ]
        return data

    def create(self, aws: Aws, inputs: Properties) -> str:
        answer = aws("ec2").create_launch_template(
            LaunchTemplateName=inputs["name"],
            VersionDescription=inputs.get("description", ""),
            LaunchTemplateData=self._data(inputs),
        )
        made: str = answer["LaunchTemplate"]["LaunchTemplateId"]
        return made

    def update(self, aws: Aws, identifier: str, state: Properties, new: Properties, changed: set[str]) -> None:
        del state
        if changed:
            aws("ec2").create_launch_template_version(LaunchTemplateId=identifier, LaunchTemplateData=self._data(new))

    def read(self, aws: Aws, identifier: str, state: Properties) -> Properties | None:
        del state
        found = self.found(aws, identifier)
        if found is None:
            return None
        return {
            "arn": self.arn(aws, "launch-template", identifier),
            "name": found["LaunchTemplateName"],
            "latestVersion": found["LatestVersionNumber"],
            "defaultVersion": found["DefaultVersionNumber"],
        }

    def delete(self, aws: Aws, identifier: str, state: Properties) -> None:
        del state
        aws("ec2").delete_launch_template(LaunchTemplateId=identifier)
