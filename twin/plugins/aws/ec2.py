"""EC2 types. Force-new fields follow terraform-provider-aws internal/service/ec2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from twin.plugins.aws.kind import Aws, Kind, existing, lower, pick, tag_list, upper
from twin.plugins.common import Properties


class Ec2Kind(Kind):
    """An EC2 thing found by id in one Describe call."""

    tagged = True
    describe: ClassVar[tuple[str, str, str]]  # operation, argument, field of the answer
    deletion: ClassVar[tuple[str, str]]  # operation, argument

    def description(self, aws: Aws, identifier: str) -> dict[str, Any] | None:
        """Return its description, or None."""
        operation, argument, key = self.describe
        items = existing(lambda: getattr(aws("ec2"), operation)(**{argument: [identifier]})[key])
        return items[0] if items and items[0].get("State") not in ("deleted", "deleting") else None

    def read(self, aws: Aws, identifier: str, state: Properties) -> Properties | None:
        del state
        description = self.description(aws, identifier)
        return None if description is None else self.properties(aws, identifier, description)

    def properties(self, aws: Aws, identifier: str, description: dict[str, Any]) -> Properties:
        """Return the live properties that its description tells."""
        raise NotImplementedError

    def delete(self, aws: Aws, identifier: str, state: Properties) -> None:
        del state
        operation, argument = self.deletion
        getattr(aws("ec2"), operation)(**{argument: identifier})

    def arn(self, aws: Aws, kind: str, identifier: str) -> str:
        """ARN of an EC2 resource."""
        return f"arn:aws:ec2:{aws.region}:{aws.account}:{kind}/{identifier}"

    def tag(self, aws: Aws, identifier: str, state: Properties, add: dict[str, str], remove: list[str]) -> None:
        """Set and remove tags, by one call for every EC2 type."""
        del state
        if add:
            aws("ec2").create_tags(Resources=[identifier], Tags=tag_list(add))
        if remove:
            aws("ec2").delete_tags(Resources=[identifier], Tags=[{"Key": key} for key in remove])


class SecurityGroup(Ec2Kind):
    """aws_security_group without inline rules: rules are resources of their own."""

    token = "aws:ec2/securityGroup:SecurityGroup"
    inputs = frozenset({"vpcId", "name", "description", "revokeRulesOnDelete"})
    replaces = frozenset({"vpcId", "name", "description"})
    name_property = "name"
    name_limit = 255
    defaults = {"description": "Managed by Pulumi"}
    describe = ("describe_security_groups", "GroupIds", "SecurityGroups")
    deletion = ("delete_security_group", "GroupId")

    def create(self, aws: Aws, inputs: Properties) -> str:
        arguments = pick(inputs, VpcId="vpcId", GroupName="name", Description="description")
        identifier: str = aws("ec2").create_security_group(**arguments)["GroupId"]
        # The provider takes AWS's allow-all egress rule away; egress is declared or absent.
        everything = [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
        aws("ec2").revoke_security_group_egress(GroupId=identifier, IpPermissions=everything)
        return identifier

    def properties(self, aws: Aws, identifier: str, description: dict[str, Any]) -> Properties:
        return {
            "arn": self.arn(aws, "security-group", identifier),
            "name": description["GroupName"],
            "vpcId": description["VpcId"],
            "ownerId": description["OwnerId"],
        }


class _SecurityGroupRule(Kind):
    inputs = frozenset(
        {
            "securityGroupId", "cidrIpv4", "fromPort", "toPort", "ipProtocol", "referencedSecurityGroupId",
            "prefixListId", "description",
        }
    )  # fmt: skip
    replaces = frozenset({"securityGroupId"})
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
        identifier: str = answer["SecurityGroupRules"][0]["SecurityGroupRuleId"]
        return identifier

    def read(self, aws: Aws, identifier: str, state: Properties) -> Properties | None:
        filters = [{"Name": "group-id", "Values": [state["securityGroupId"]]}]
        rules = aws("ec2").describe_security_group_rules(Filters=filters)["SecurityGroupRules"]
        if identifier not in [rule["SecurityGroupRuleId"] for rule in rules]:
            return None
        arn = f"arn:aws:ec2:{aws.region}:{aws.account}:security-group-rule/{identifier}"
        return {"arn": arn, "securityGroupRuleId": identifier}

    def update(self, aws: Aws, identifier: str, state: Properties, new: Properties, changed: set[str]) -> None:
        if not changed:
            return
        rule = pick(
            new, IpProtocol="ipProtocol", FromPort="fromPort", ToPort="toPort", CidrIpv4="cidrIpv4",
            ReferencedGroupId="referencedSecurityGroupId", PrefixListId="prefixListId", Description="description",
        )  # fmt: skip
        aws("ec2").modify_security_group_rules(
            GroupId=state["securityGroupId"],
            SecurityGroupRules=[{"SecurityGroupRuleId": identifier, "SecurityGroupRule": rule}],
        )

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


def template_inputs(data: Mapping[str, Any]) -> Properties:
    """Return what a launch template's version holds, in the provider's words."""
    inputs: Properties = {}
    if data.get("MetadataOptions"):
        inputs["metadataOptions"] = lower(data["MetadataOptions"])
    if data.get("BlockDeviceMappings"):
        inputs["blockDeviceMappings"] = [_device_input(device) for device in data["BlockDeviceMappings"]]
    if data.get("TagSpecifications"):
        inputs["tagSpecifications"] = [
            {"resourceType": each["ResourceType"], "tags": {tag["Key"]: tag["Value"] for tag in each["Tags"]}}
            for each in data["TagSpecifications"]
        ]
    return {**inputs, **pick(data, instanceType="InstanceType", userData="UserData")}


def _device_input(device: Mapping[str, Any]) -> Properties:
    ebs = {
        name: str(value).lower() if isinstance(value, bool) else value for name, value in lower(device["Ebs"]).items()
    }
    return {**lower(device), "ebs": ebs}


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
    deletion = ("delete_launch_template", "LaunchTemplateId")

    def _data(self, inputs: Properties) -> dict[str, Any]:
        data: dict[str, Any] = pick(inputs, InstanceType="instanceType", UserData="userData")
        if inputs.get("metadataOptions"):
            data["MetadataOptions"] = upper(inputs["metadataOptions"])
        if inputs.get("blockDeviceMappings"):
            data["BlockDeviceMappings"] = [_device(device) for device in inputs["blockDeviceMappings"]]
        specifications = inputs.get("tagSpecifications") or []
        if specifications:
            data["TagSpecifications"] = [
                {"ResourceType": specification["resourceType"], "Tags": tag_list(specification.get("tags"))}
                for specification in specifications
            ]
        return data

    def create(self, aws: Aws, inputs: Properties) -> str:
        answer = aws("ec2").create_launch_template(
            LaunchTemplateName=inputs["name"],
            VersionDescription=inputs.get("description", ""),
            LaunchTemplateData=self._data(inputs),
        )
        identifier: str = answer["LaunchTemplate"]["LaunchTemplateId"]
        return identifier

    def update(self, aws: Aws, identifier: str, state: Properties, new: Properties, changed: set[str]) -> None:
        del state
        # As upstream: only what a version holds makes another one (internal/service/ec2, ec2_launch_template.go, updateKeys).
        if changed - {"updateDefaultVersion"}:
            aws("ec2").create_launch_template_version(LaunchTemplateId=identifier, LaunchTemplateData=self._data(new))

    def properties(self, aws: Aws, identifier: str, description: dict[str, Any]) -> Properties:
        return {
            "arn": self.arn(aws, "launch-template", identifier),
            "name": description["LaunchTemplateName"],
            "latestVersion": description["LatestVersionNumber"],
            "defaultVersion": description["DefaultVersionNumber"],
        }
