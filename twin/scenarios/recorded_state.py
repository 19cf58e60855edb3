"""legacy/terraform without Terraform: a recorded state, and the same calls by boto3.

``old_shop.tfstate`` is the state of Terraform 1.11.4 with the AWS provider 5.100.0 after `apply` on a twin, without password and
certificate. Each object in it is made again, and what AWS answers takes the recorded one's place in everything that refers to it.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from twin import pulumi
from twin.config import Twin
from twin.errors import TwinError

RECORDED = Path(__file__).with_name("old_shop.tfstate")
Attributes = Mapping[str, Any]


class RecordedState:
    """Makes what a recorded state holds in a twin's AWS."""

    def __init__(self, twin: Twin, *, kubernetes_version: str, password: str) -> None:
        self._twin, self._version, self._password = twin, kubernetes_version, password
        self._renamed: dict[str, str] = {}

    def apply(self) -> dict[str, Any]:
        """Make every object; return the state as Terraform would have it now, with the password.

        Raises:
            TwinError: the state has a type that is not made here.
        """
        document: dict[str, Any] = json.loads(RECORDED.read_text())
        resources, makers = document["resources"], self._makers()
        unknown = sorted({resource["type"] for resource in resources} - set(makers))
        if unknown:
            raise TwinError(
                f"{RECORDED.name} has {', '.join(unknown)}, which twin/scenarios/recorded_state.py does not make"
            )
        self._move_networks(resources)
        order = list(makers)
        for resource in sorted(resources, key=lambda each: order.index(each["type"])):
            for instance in resource["instances"]:
                recorded = instance["attributes"]
                made = makers[resource["type"]](self._with_new_names(recorded))
                self._renamed |= {str(recorded[key]): str(value) for key, value in made.items() if recorded.get(key)}
        return self._finished(document)

    def _makers(self) -> Mapping[str, Callable[[Attributes], Attributes]]:
        """Return what makes an object of each type, every type after those it refers to."""
        return {
            "aws_vpc": self._vpc,
            "aws_internet_gateway": self._internet_gateway,
            "aws_subnet": self._subnet,
            "aws_eip": self._address,
            "aws_nat_gateway": self._nat_gateway,
            "aws_route_table": self._route_table,
            "aws_route_table_association": self._association,
            "aws_iam_role": self._role,
            "aws_iam_role_policy_attachment": self._attachment,
            "aws_eks_cluster": self._cluster,
            "aws_iam_openid_connect_provider": self._identity_provider,
            "aws_eks_node_group": self._node_group,
            "aws_ecr_repository": self._repository,
            "aws_db_subnet_group": self._subnet_group,
            "aws_security_group": self._security_group,
            "aws_db_instance": self._database,
        }

    def _client(self, service: str) -> Any:
        return pulumi.client(self._twin, service)

    def _move_networks(self, resources: list[dict[str, Any]]) -> None:
        """Put this twin's networks in the place of those of the twin that was recorded; they lie in it at the same places."""
        blocks = [
            instance["attributes"]["cidr_block"]
            for resource in resources
            if resource["type"] in ("aws_vpc", "aws_subnet")
            for instance in resource["instances"]
        ]
        largest = min(map(ipaddress.IPv4Network, blocks), key=lambda block: block.prefixlen)
        distance = int(ipaddress.IPv4Network(self._twin.vpc_cidr).network_address) - int(largest.network_address)
        for block in map(ipaddress.IPv4Network, blocks):
            self._renamed[str(block)] = f"{block.network_address + distance}/{block.prefixlen}"

    def _with_new_names(self, value: Any) -> Any:
        """Return a value with everything that was made in the place of what was recorded, also where an ARN holds its id."""
        if isinstance(value, Mapping):
            return {key: self._with_new_names(each) for key, each in value.items()}
        if isinstance(value, list):
            return [self._with_new_names(each) for each in value]
        if isinstance(value, str):
            for old in sorted(self._renamed, key=len, reverse=True):
                if value == old or ("-" in old and old in value):
                    value = value.replace(old, self._renamed[old])
        return value

    def _finished(self, document: dict[str, Any]) -> dict[str, Any]:
        finished: dict[str, Any] = self._with_new_names(document)
        for resource in finished["resources"]:
            for instance in resource["instances"]:
                attributes = instance["attributes"]
                if resource["type"] == "aws_db_instance":
                    attributes["password"] = self._password
                    attributes["port"] = self._twin.postgres_port
                if resource["type"] in ("aws_eks_cluster", "aws_eks_node_group"):
                    attributes["version"] = self._version
        return finished

    # One method a type: the calls of the provider, and what is new about the object by its attribute ------------------

    def _vpc(self, recorded: Attributes) -> Attributes:
        ec2 = self._client("ec2")
        vpc = ec2.create_vpc(CidrBlock=recorded["cidr_block"], TagSpecifications=_tags("vpc", recorded))["Vpc"]["VpcId"]
        ec2.modify_vpc_attribute(VpcId=vpc, EnableDnsHostnames={"Value": recorded["enable_dns_hostnames"]})
        return {"id": vpc}

    def _internet_gateway(self, recorded: Attributes) -> Attributes:
        ec2, tags = self._client("ec2"), _tags("internet-gateway", recorded)
        gateway = ec2.create_internet_gateway(TagSpecifications=tags)["InternetGateway"]["InternetGatewayId"]
        ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=recorded["vpc_id"])
        return {"id": gateway}

    def _subnet(self, recorded: Attributes) -> Attributes:
        subnet = self._client("ec2").create_subnet(
            VpcId=recorded["vpc_id"],
            CidrBlock=recorded["cidr_block"],
            AvailabilityZone=recorded["availability_zone"],
            TagSpecifications=_tags("subnet", recorded),
        )
        return {"id": subnet["Subnet"]["SubnetId"]}

    def _address(self, recorded: Attributes) -> Attributes:
        tags = _tags("elastic-ip", recorded)
        address = self._client("ec2").allocate_address(Domain=recorded["domain"], TagSpecifications=tags)
        return {"id": address["AllocationId"], "public_ip": address["PublicIp"]}

    def _nat_gateway(self, recorded: Attributes) -> Attributes:
        gateway = self._client("ec2").create_nat_gateway(
            SubnetId=recorded["subnet_id"],
            AllocationId=recorded["allocation_id"],
            ConnectivityType=recorded["connectivity_type"],
            TagSpecifications=_tags("natgateway", recorded),
        )
        return {"id": gateway["NatGateway"]["NatGatewayId"]}

    def _route_table(self, recorded: Attributes) -> Attributes:
        ec2, tags = self._client("ec2"), _tags("route-table", recorded)
        created = ec2.create_route_table(VpcId=recorded["vpc_id"], TagSpecifications=tags)["RouteTable"]
        for route in recorded["route"]:
            ways = {"GatewayId": route["gateway_id"], "NatGatewayId": route["nat_gateway_id"]}
            way = {name: value for name, value in ways.items() if value}
            ec2.create_route(RouteTableId=created["RouteTableId"], DestinationCidrBlock=route["cidr_block"], **way)
        return {"id": created["RouteTableId"]}

    def _association(self, recorded: Attributes) -> Attributes:
        association = self._client("ec2").associate_route_table(
            RouteTableId=recorded["route_table_id"], SubnetId=recorded["subnet_id"]
        )
        return {"id": association["AssociationId"]}

    def _role(self, recorded: Attributes) -> Attributes:
        policy = recorded["assume_role_policy"]
        self._client("iam").create_role(RoleName=recorded["name"], AssumeRolePolicyDocument=policy)
        return {}

    def _attachment(self, recorded: Attributes) -> Attributes:
        self._client("iam").attach_role_policy(RoleName=recorded["role"], PolicyArn=recorded["policy_arn"])
        return {}

    def _cluster(self, recorded: Attributes) -> Attributes:
        (network,) = recorded["vpc_config"]
        cluster = self._client("eks").create_cluster(
            name=recorded["name"],
            roleArn=recorded["role_arn"],
            version=self._version,
            resourcesVpcConfig={
                "subnetIds": network["subnet_ids"],
                "endpointPublicAccess": network["endpoint_public_access"],
                "endpointPrivateAccess": network["endpoint_private_access"],
            },
        )["cluster"]
        # It stands in other objects, and the recorded one below another key than those that are renamed.
        self._renamed[network["cluster_security_group_id"]] = cluster["resourcesVpcConfig"]["clusterSecurityGroupId"]
        (identity,) = recorded["identity"]
        issuer = identity["oidc"][0]["issuer"]
        self._renamed[issuer] = cluster["identity"]["oidc"]["issuer"]
        self._renamed[issuer.removeprefix("https://")] = cluster["identity"]["oidc"]["issuer"].removeprefix("https://")
        return {"endpoint": cluster["endpoint"]}

    def _identity_provider(self, recorded: Attributes) -> Attributes:
        url = recorded["url"]
        self._client("iam").create_open_id_connect_provider(
            Url=url if url.startswith("https://") else f"https://{url}",
            ClientIDList=recorded["client_id_list"],
            ThumbprintList=recorded["thumbprint_list"],
        )
        return {}

    def _node_group(self, recorded: Attributes) -> Attributes:
        (scaling,) = recorded["scaling_config"]
        sizes = {"minSize": scaling["min_size"], "maxSize": scaling["max_size"], "desiredSize": scaling["desired_size"]}
        group = self._client("eks").create_nodegroup(
            clusterName=recorded["cluster_name"],
            nodegroupName=recorded["node_group_name"],
            nodeRole=recorded["node_role_arn"],
            subnets=recorded["subnet_ids"],
            instanceTypes=recorded["instance_types"],
            scalingConfig=sizes,
            version=self._version,
        )
        return {"arn": group["nodegroup"]["nodegroupArn"]}

    def _repository(self, recorded: Attributes) -> Attributes:
        self._client("ecr").create_repository(
            repositoryName=recorded["name"], imageTagMutability=recorded["image_tag_mutability"]
        )
        return {}

    def _subnet_group(self, recorded: Attributes) -> Attributes:
        self._client("rds").create_db_subnet_group(
            DBSubnetGroupName=recorded["name"],
            DBSubnetGroupDescription=recorded["description"],
            SubnetIds=recorded["subnet_ids"],
        )
        return {}

    def _security_group(self, recorded: Attributes) -> Attributes:
        ec2 = self._client("ec2")
        group = ec2.create_security_group(
            GroupName=recorded["name"], Description=recorded["description"], VpcId=recorded["vpc_id"]
        )["GroupId"]
        for rule in recorded["ingress"]:
            permission = {
                "IpProtocol": rule["protocol"],
                "FromPort": rule["from_port"],
                "ToPort": rule["to_port"],
                "UserIdGroupPairs": [{"GroupId": each} for each in rule["security_groups"]],
            }
            ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[permission])
        # Terraform takes away what EC2 gives each new group.
        for permission in ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]["IpPermissionsEgress"]:
            ec2.revoke_security_group_egress(GroupId=group, IpPermissions=[permission])
        return {"id": group}

    def _database(self, recorded: Attributes) -> Attributes:
        instance = self._client("rds").create_db_instance(
            DBInstanceIdentifier=recorded["identifier"],
            Engine=recorded["engine"],
            EngineVersion=recorded["engine_version"],
            DBInstanceClass=recorded["instance_class"],
            AllocatedStorage=recorded["allocated_storage"],
            StorageType=recorded["storage_type"],
            DBName=recorded["db_name"],
            MasterUsername=recorded["username"],
            MasterUserPassword=self._password,
            DBSubnetGroupName=recorded["db_subnet_group_name"],
            VpcSecurityGroupIds=recorded["vpc_security_group_ids"],
            BackupRetentionPeriod=recorded["backup_retention_period"],
            CopyTagsToSnapshot=recorded["copy_tags_to_snapshot"],
            PubliclyAccessible=recorded["publicly_accessible"],
        )["DBInstance"]
        endpoint = instance["Endpoint"]
        return {
            "id": instance["DbiResourceId"],
            "endpoint": f"{endpoint['Address']}:{endpoint['Port']}",
            "address": endpoint["Address"],
        }


def _tags(kind: str, recorded: Attributes) -> list[dict[str, Any]]:
    pairs = [{"Key": key, "Value": value} for key, value in (recorded.get("tags") or {}).items()]
    return [{"ResourceType": kind, "Tags": pairs}] if pairs else []
