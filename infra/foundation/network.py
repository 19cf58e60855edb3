"""The network: one VPC over two zones.

* Two public subnets for production's load balancer and NAT, two for the previews' load balancer, two private ones for nodes,
  pods and the database. So addresses alone tell one load balancer from the other (previews/isolation.py, release/blue_green.py).
* S3 and DynamoDB by gateway endpoints, which cost nothing; the rest by NAT, or by interface endpoints behind a setting.
* The ids of subnets are handed out by what ties each to its routes. So whatever is put into a subnet comes after its way
  out, and goes before it: nodes reach AWS until they are gone, and no public address is left when the internet gateway goes.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, NamedTuple

import pulumi
import pulumi_aws as aws

from infra.foundation.availability_zones import zone_names

if TYPE_CHECKING:
    from infra.settings.platform import Vpc

INTERFACE_SERVICES = ("ecr.api", "ecr.dkr", "sts", "logs", "secretsmanager")


class Subnets(NamedTuple):
    """CIDR blocks, one of each in every zone."""

    public: list[str]
    """Production's load balancer and NAT."""
    preview: list[str]
    """The previews' load balancer."""
    private: list[str]
    """Nodes, pods and the database."""


def subnets(cidr: str) -> Subnets:
    """Cut the network into eighths: two public ones, two for previews; private ones are a quarter each.

    Every pod has an address of its own there.
    """
    network = ipaddress.ip_network(cidr)
    eighths = [str(block) for block in network.subnets(prefixlen_diff=3)]
    quarters = [str(block) for block in network.subnets(prefixlen_diff=2)]
    return Subnets(eighths[:2], eighths[2:4], quarters[2:4])


class Network(pulumi.ComponentResource):
    """VPC, subnets, routes, NAT and endpoints."""

    def __init__(
        self, name: str, settings: Vpc, *, cluster_name: str, region: str, protect: bool, opts: pulumi.ResourceOptions
    ) -> None:
        super().__init__("shopcat:network:Network", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        vpc = aws.ec2.Vpc(
            "vpc",
            cidr_block=settings.cidr,
            enable_dns_support=True,
            enable_dns_hostnames=True,
            tags={"Name": name},
            opts=pulumi.ResourceOptions(parent=self, protect=protect),
        )
        zones = zone_names(region, settings.zones)
        cidrs = subnets(settings.cidr)
        shared = {f"kubernetes.io/cluster/{cluster_name}": "shared"}

        def declare(kind: str, blocks: list[str], tags: dict[str, str], *, is_public: bool) -> list[aws.ec2.Subnet]:
            return [
                aws.ec2.Subnet(
                    f"{kind}-{index}",
                    vpc_id=vpc.id,
                    cidr_block=cidr,
                    availability_zone=zone,
                    map_public_ip_on_launch=False if is_public else None,
                    tags={"Name": f"{name}-{kind}-{index}", **tags},
                    opts=child,
                )
                for index, (zone, cidr) in enumerate(zip(zones, blocks, strict=True))
            ]

        public = declare("public", cidrs.public, {"kubernetes.io/role/elb": "1", **shared}, is_public=True)
        preview = declare("preview", cidrs.preview, {}, is_public=True)
        internal = {"kubernetes.io/role/internal-elb": "1", **shared}
        private = declare("private", cidrs.private, internal, is_public=False)
        gateway = aws.ec2.InternetGateway("internet", vpc_id=vpc.id, tags={"Name": name}, opts=child)
        public_table = aws.ec2.RouteTable("public", vpc_id=vpc.id, tags={"Name": f"{name}-public"}, opts=child)
        public_route = aws.ec2.Route(
            "public-default",
            route_table_id=public_table.id,
            destination_cidr_block="0.0.0.0/0",
            gateway_id=gateway.id,
            opts=child,
        )
        public_routed, preview_routed = (
            [
                aws.ec2.RouteTableAssociation(
                    f"{kind}-{index}",
                    subnet_id=subnet.id,
                    route_table_id=public_table.id,
                    opts=pulumi.ResourceOptions(parent=self, depends_on=[public_route]),
                )
                for index, subnet in enumerate(group)
            ]
            for kind, group in (("public", public), ("preview", preview))
        )
        addresses = [
            aws.ec2.Eip(f"nat-{index}", domain="vpc", tags={"Name": f"{name}-nat-{index}"}, opts=child)
            for index in range(settings.nat_gateways)
        ]
        gateways = [
            aws.ec2.NatGateway(
                f"nat-{index}",
                subnet_id=public_routed[index].subnet_id,
                allocation_id=address.id,
                tags={"Name": f"{name}-{index}"},
                opts=child,
            )
            for index, address in enumerate(addresses)
        ]
        tables, private_routed = [], []
        for index, subnet in enumerate(private):
            table = aws.ec2.RouteTable(
                f"private-{index}", vpc_id=vpc.id, tags={"Name": f"{name}-private-{index}"}, opts=child
            )
            route = aws.ec2.Route(
                f"private-{index}-default",
                route_table_id=table.id,
                destination_cidr_block="0.0.0.0/0",
                nat_gateway_id=gateways[min(index, len(gateways) - 1)].id,
                opts=child,
            )
            private_routed.append(
                aws.ec2.RouteTableAssociation(
                    f"private-{index}",
                    subnet_id=subnet.id,
                    route_table_id=table.id,
                    opts=pulumi.ResourceOptions(parent=self, depends_on=[route]),
                )
            )
            tables.append(table)
        for service in ("s3", "dynamodb"):
            aws.ec2.VpcEndpoint(
                service,
                vpc_id=vpc.id,
                service_name=f"com.amazonaws.{region}.{service}",
                vpc_endpoint_type="Gateway",
                route_table_ids=[table.id for table in tables],
                tags={"Name": f"{name}-{service}"},
                opts=child,
            )
        self.vpc_id = vpc.id
        self.cidr = settings.cidr
        self.public_subnet_ids = [association.subnet_id for association in public_routed]
        self.preview_subnet_ids = [association.subnet_id for association in preview_routed]
        self.private_subnet_ids = [association.subnet_id for association in private_routed]
        self.nat_addresses = [address.public_ip for address in addresses]
        if settings.interface_endpoints:
            self._interface_endpoints(name, region)
        self.register_outputs({"vpcId": self.vpc_id})

    def _interface_endpoints(self, name: str, region: str) -> None:
        child = pulumi.ResourceOptions(parent=self)
        group = aws.ec2.SecurityGroup(
            "endpoints", vpc_id=self.vpc_id, description="HTTPS to interface endpoints from the VPC", opts=child
        )
        aws.vpc.SecurityGroupIngressRule(
            "endpoints-https",
            security_group_id=group.id,
            cidr_ipv4=self.cidr,
            from_port=443,
            to_port=443,
            ip_protocol="tcp",
            opts=child,
        )
        for service in INTERFACE_SERVICES:
            aws.ec2.VpcEndpoint(
                service,
                vpc_id=self.vpc_id,
                service_name=f"com.amazonaws.{region}.{service}",
                vpc_endpoint_type="Interface",
                subnet_ids=self.private_subnet_ids,
                security_group_ids=[group.id],
                private_dns_enabled=True,
                tags={"Name": f"{name}-{service}"},
                opts=child,
            )
