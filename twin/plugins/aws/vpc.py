"""VPC types. Force-new fields follow terraform-provider-aws internal/service/ec2."""

from __future__ import annotations

from typing import Any

from twin.plugins.aws.ec2 import Ec2Kind
from twin.plugins.aws.kind import Aws, Kind, pick, wait
from twin.plugins.common import Properties


class Vpc(Ec2Kind):
    """aws_vpc."""

    token = "aws:ec2/vpc:Vpc"
    inputs = frozenset({"cidrBlock", "enableDnsSupport", "enableDnsHostnames"})
    replaces = frozenset({"cidrBlock"})
    defaults = {"enableDnsSupport": True}
    describe = ("describe_vpcs", "VpcIds", "Vpcs")
    deletion = ("delete_vpc", "VpcId")

    def create(self, aws: Aws, inputs: Properties) -> str:
        identifier: str = aws("ec2").create_vpc(CidrBlock=inputs["cidrBlock"])["Vpc"]["VpcId"]
        self.update(aws, identifier, {}, inputs, {"enableDnsSupport", "enableDnsHostnames"} & set(inputs))
        return identifier

    def update(self, aws: Aws, identifier: str, state: Properties, new: Properties, changed: set[str]) -> None:
        del state
        for name in changed:
            value = {"Value": bool(new.get(name))}
            aws("ec2").modify_vpc_attribute(VpcId=identifier, **{name[:1].upper() + name[1:]: value})

    def properties(self, aws: Aws, identifier: str, description: dict[str, Any]) -> Properties:
        return {"arn": self.arn(aws, "vpc", identifier), "cidrBlock": description["CidrBlock"], "ownerId": aws.account}


class Subnet(Ec2Kind):
    """aws_subnet."""

    token = "aws:ec2/subnet:Subnet"
    inputs = frozenset({"vpcId", "cidrBlock", "availabilityZone", "mapPublicIpOnLaunch"})
    replaces = frozenset({"vpcId", "cidrBlock", "availabilityZone"})
    describe = ("describe_subnets", "SubnetIds", "Subnets")
    deletion = ("delete_subnet", "SubnetId")

    def create(self, aws: Aws, inputs: Properties) -> str:
        arguments = pick(inputs, VpcId="vpcId", CidrBlock="cidrBlock", AvailabilityZone="availabilityZone")
        identifier: str = aws("ec2").create_subnet(**arguments)["Subnet"]["SubnetId"]
        self.update(aws, identifier, {}, inputs, {"mapPublicIpOnLaunch"} & set(inputs))
        return identifier

    def update(self, aws: Aws, identifier: str, state: Properties, new: Properties, changed: set[str]) -> None:
        del state
        if changed:
            value = {"Value": bool(new.get("mapPublicIpOnLaunch"))}
            aws("ec2").modify_subnet_attribute(SubnetId=identifier, MapPublicIpOnLaunch=value)

    def properties(self, aws: Aws, identifier: str, description: dict[str, Any]) -> Properties:
        return {
            "arn": self.arn(aws, "subnet", identifier),
            "cidrBlock": description["CidrBlock"],
            "availabilityZone": description["AvailabilityZone"],
            "vpcId": description["VpcId"],
        }


class InternetGateway(Ec2Kind):
    """aws_internet_gateway."""

    token = "aws:ec2/internetGateway:InternetGateway"
    inputs = frozenset({"vpcId"})
    replaces = frozenset({"vpcId"})
    describe = ("describe_internet_gateways", "InternetGatewayIds", "InternetGateways")

    def create(self, aws: Aws, inputs: Properties) -> str:
        identifier: str = aws("ec2").create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
        aws("ec2").attach_internet_gateway(InternetGatewayId=identifier, VpcId=inputs["vpcId"])
        return identifier

    def properties(self, aws: Aws, identifier: str, description: dict[str, Any]) -> Properties:
        attached = [attachment["VpcId"] for attachment in description.get("Attachments", [])]
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
    deletion = ("release_address", "AllocationId")

    def create(self, aws: Aws, inputs: Properties) -> str:
        identifier: str = aws("ec2").allocate_address(Domain=inputs.get("domain", "vpc"))["AllocationId"]
        return identifier

    def properties(self, aws: Aws, identifier: str, description: dict[str, Any]) -> Properties:
        del aws
        return {"allocationId": identifier, "publicIp": description["PublicIp"]}


class NatGateway(Ec2Kind):
    """aws_nat_gateway."""

    token = "aws:ec2/natGateway:NatGateway"
    inputs = frozenset({"subnetId", "allocationId", "connectivityType"})
    replaces = frozenset({"subnetId", "allocationId", "connectivityType"})
    create_before_delete = False
    describe = ("describe_nat_gateways", "NatGatewayIds", "NatGateways")

    def create(self, aws: Aws, inputs: Properties) -> str:
        arguments = pick(inputs, SubnetId="subnetId", AllocationId="allocationId", ConnectivityType="connectivityType")
        identifier: str = aws("ec2").create_nat_gateway(**arguments)["NatGateway"]["NatGatewayId"]
        wait(
            lambda: (self.description(aws, identifier) or {}).get("State") == "available",
            f"NAT gateway {identifier}",
            600,
        )
        return identifier

    def properties(self, aws: Aws, identifier: str, description: dict[str, Any]) -> Properties:
        del aws, identifier
        addresses = description.get("NatGatewayAddresses") or [{}]
        return {"publicIp": addresses[0].get("PublicIp", ""), "privateIp": addresses[0].get("PrivateIp", "")}

    def delete(self, aws: Aws, identifier: str, state: Properties) -> None:
        del state
        aws("ec2").delete_nat_gateway(NatGatewayId=identifier)
        wait(lambda: self.description(aws, identifier) is None, f"deletion of NAT gateway {identifier}", 600)


class RouteTable(Ec2Kind):
    """aws_route_table; routes are resources of their own."""

    token = "aws:ec2/routeTable:RouteTable"
    inputs = frozenset({"vpcId"})
    replaces = frozenset({"vpcId"})
    describe = ("describe_route_tables", "RouteTableIds", "RouteTables")
    deletion = ("delete_route_table", "RouteTableId")

    def create(self, aws: Aws, inputs: Properties) -> str:
        identifier: str = aws("ec2").create_route_table(VpcId=inputs["vpcId"])["RouteTable"]["RouteTableId"]
        return identifier

    def properties(self, aws: Aws, identifier: str, description: dict[str, Any]) -> Properties:
        return {"arn": self.arn(aws, "route-table", identifier), "vpcId": description["VpcId"]}


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
        tables = aws("ec2").describe_route_tables(RouteTableIds=[state["routeTableId"]])["RouteTables"]
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
        identifier: str = aws("ec2").associate_route_table(**arguments)["AssociationId"]
        return identifier

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
        identifier: str = aws("ec2").create_vpc_endpoint(**arguments)["VpcEndpoint"]["VpcEndpointId"]
        return identifier

    def properties(self, aws: Aws, identifier: str, description: dict[str, Any]) -> Properties:
        del description
        return {"arn": self.arn(aws, "vpc-endpoint", identifier), "state": "available"}

    def delete(self, aws: Aws, identifier: str, state: Properties) -> None:
        del state
        aws("ec2").delete_vpc_endpoints(VpcEndpointIds=[identifier])
