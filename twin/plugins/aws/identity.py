"""IAM and KMS types. Force-new fields follow terraform-provider-aws internal/service/{iam,kms}."""

from __future__ import annotations

import json
from typing import Any

from twin.plugins.aws.kind import Aws, Kind, Tagging, pick
from twin.plugins.common import Properties


def document(value: Any) -> str:
    """A policy document as the API takes it."""
    return value if isinstance(value, str) else json.dumps(value)


class Role(Kind):
    """aws_iam_role; the id is the name."""

    token = "aws:iam/role:Role"
    inputs = frozenset(
        {"name", "assumeRolePolicy", "description", "maxSessionDuration", "path", "permissionsBoundary",
         "forceDetachPolicies"}
    )  # fmt: skip
    replaces = frozenset({"name", "path"})
    name_property = "name"
    defaults = {"path": "/", "maxSessionDuration": 3600}
    tagged = True
    tagging = Tagging("iam", "tag_role", "untag_role", "RoleName")

    def create(self, aws: Aws, inputs: Properties) -> str:
        arguments = pick(
            inputs,
            RoleName="name",
            Description="description",
            MaxSessionDuration="maxSessionDuration",
            Path="path",
            PermissionsBoundary="permissionsBoundary",
        )
        aws("iam").create_role(**arguments, AssumeRolePolicyDocument=document(inputs["assumeRolePolicy"]))
        return str(inputs["name"])

    def read(self, aws: Aws, identifier: str, state: Properties) -> Properties | None:
        del state
        role = aws("iam").get_role(RoleName=identifier)["Role"]
        return {"arn": role["Arn"], "name": identifier, "uniqueId": role["RoleId"]}

    def update(self, aws: Aws, identifier: str, state: Properties, new: Properties, changed: set[str]) -> None:
        del state
        if "assumeRolePolicy" in changed:
            aws("iam").update_assume_role_policy(RoleName=identifier, PolicyDocument=document(new["assumeRolePolicy"]))
        if changed & {"description", "maxSessionDuration"}:
            arguments = pick(new, Description="description", MaxSessionDuration="maxSessionDuration")
            aws("iam").update_role(RoleName=identifier, **arguments)
        if "permissionsBoundary" in changed:
            if new.get("permissionsBoundary"):
                aws("iam").put_role_permissions_boundary(
                    RoleName=identifier, PermissionsBoundary=new["permissionsBoundary"]
                )
            else:
                aws("iam").delete_role_permissions_boundary(RoleName=identifier)

    def delete(self, aws: Aws, identifier: str, state: Properties) -> None:
        del state
        aws("iam").delete_role(RoleName=identifier)


class Policy(Kind):
    """aws_iam_policy; the id is the ARN. A changed document is a new default version."""

    token = "aws:iam/policy:Policy"
    inputs = frozenset({"name", "policy", "description", "path"})
    replaces = frozenset({"name", "description", "path"})
    name_property = "name"
    name_limit = 128
    defaults = {"path": "/"}
    tagged = True
    tagging = Tagging("iam", "tag_policy", "untag_policy", "PolicyArn")

    def create(self, aws: Aws, inputs: Properties) -> str:
        arguments = pick(inputs, PolicyName="name", Description="description", Path="path")
        arn: str = aws("iam").create_policy(**arguments, PolicyDocument=document(inputs["policy"]))["Policy"]["Arn"]
        return arn

    def read(self, aws: Aws, identifier: str, state: Properties) -> Properties | None:
        del state
        policy = aws("iam").get_policy(PolicyArn=identifier)["Policy"]
        return {"arn": identifier, "name": policy["PolicyName"], "policyId": policy["PolicyId"]}

    def update(self, aws: Aws, identifier: str, state: Properties, new: Properties, changed: set[str]) -> None:
        del state
        if "policy" not in changed:
            return
        versions = aws("iam").list_policy_versions(PolicyArn=identifier)["Versions"]
        spare = sorted((v for v in versions if not v["IsDefaultVersion"]), key=lambda v: v["CreateDate"])
        if len(versions) >= 5:
            aws("iam").delete_policy_version(PolicyArn=identifier, VersionId=spare[0]["VersionId"])
        aws("iam").create_policy_version(
            PolicyArn=identifier, PolicyDocument=document(new["policy"]), SetAsDefault=True
        )

    def delete(self, aws: Aws, identifier: str, state: Properties) -> None:
        del state
        for version in aws("iam").list_policy_versions(PolicyArn=identifier)["Versions"]:
            if not version["IsDefaultVersion"]:
                aws("iam").delete_policy_version(PolicyArn=identifier, VersionId=version["VersionId"])
        aws("iam").delete_policy(PolicyArn=identifier)


class RolePolicy(Kind):
    """aws_iam_role_policy; the id is ``role:name``."""

    token = "aws:iam/rolePolicy:RolePolicy"
    inputs = frozenset({"name", "role", "policy"})
    replaces = frozenset({"name", "role"})
    name_property = "name"
    name_limit = 128

    def create(self, aws: Aws, inputs: Properties) -> str:
        self.update(aws, "", {}, inputs, {"policy"})
        return f"{inputs['role']}:{inputs['name']}"

    def read(self, aws: Aws, identifier: str, state: Properties) -> Properties | None:
        del state
        role, _, name = identifier.partition(":")
        aws("iam").get_role_policy(RoleName=role, PolicyName=name)
        return {"role": role, "name": name}

    def update(self, aws: Aws, identifier: str, state: Properties, new: Properties, changed: set[str]) -> None:
        del identifier, state
        if changed:
            policy = document(new["policy"])
            aws("iam").put_role_policy(RoleName=new["role"], PolicyName=new["name"], PolicyDocument=policy)

    def delete(self, aws: Aws, identifier: str, state: Properties) -> None:
        del state
        role, _, name = identifier.partition(":")
        aws("iam").delete_role_policy(RoleName=role, PolicyName=name)


class RolePolicyAttachment(Kind):
    """aws_iam_role_policy_attachment."""

    token = "aws:iam/rolePolicyAttachment:RolePolicyAttachment"
    inputs = frozenset({"role", "policyArn"})
    replaces = inputs

    def create(self, aws: Aws, inputs: Properties) -> str:
        aws("iam").attach_role_policy(RoleName=inputs["role"], PolicyArn=inputs["policyArn"])
        return f"{inputs['role']}-{inputs['policyArn'].rpartition('/')[2]}"

    def read(self, aws: Aws, identifier: str, state: Properties) -> Properties | None:
        del identifier
        attached = aws("iam").list_attached_role_policies(RoleName=state["role"])["AttachedPolicies"]
        return {} if state["policyArn"] in [policy["PolicyArn"] for policy in attached] else None

    def delete(self, aws: Aws, identifier: str, state: Properties) -> None:
        del identifier
        aws("iam").detach_role_policy(RoleName=state["role"], PolicyArn=state["policyArn"])


class OpenIdConnectProvider(Kind):
    """aws_iam_openid_connect_provider; the id is the ARN."""

    token = "aws:iam/openIdConnectProvider:OpenIdConnectProvider"
    inputs = frozenset({"url", "clientIdLists", "thumbprintLists"})
    replaces = frozenset({"url"})
    tagged = True
    tagging = Tagging(
        "iam", "tag_open_id_connect_provider", "untag_open_id_connect_provider", "OpenIDConnectProviderArn"
    )

    def create(self, aws: Aws, inputs: Properties) -> str:
        answer = aws("iam").create_open_id_connect_provider(
            Url=inputs["url"],
            ClientIDList=inputs.get("clientIdLists", []),
            ThumbprintList=inputs.get("thumbprintLists") or ["0" * 40],
        )
        return str(answer["OpenIDConnectProviderArn"])

    def read(self, aws: Aws, identifier: str, state: Properties) -> Properties | None:
        del state
        aws("iam").get_open_id_connect_provider(OpenIDConnectProviderArn=identifier)
        return {"arn": identifier}

    def delete(self, aws: Aws, identifier: str, state: Properties) -> None:
        del state
        aws("iam").delete_open_id_connect_provider(OpenIDConnectProviderArn=identifier)


class Key(Kind):
    """aws_kms_key; deletion is scheduled."""

    token = "aws:kms/key:Key"
    inputs = frozenset({"description", "deletionWindowInDays", "enableKeyRotation", "policy"})
    tagged = True

    def create(self, aws: Aws, inputs: Properties) -> str:
        arguments = pick(inputs, Description="description")
        if inputs.get("policy"):
            arguments["Policy"] = document(inputs["policy"])
        identifier: str = aws("kms").create_key(**arguments)["KeyMetadata"]["KeyId"]
        if inputs.get("enableKeyRotation"):
            aws("kms").enable_key_rotation(KeyId=identifier)
        return identifier

    def read(self, aws: Aws, identifier: str, state: Properties) -> Properties | None:
        del state
        key = aws("kms").describe_key(KeyId=identifier)["KeyMetadata"]
        if key["KeyState"] == "PendingDeletion":
            return None
        return {"arn": key["Arn"], "keyId": key["KeyId"]}

    def update(self, aws: Aws, identifier: str, state: Properties, new: Properties, changed: set[str]) -> None:
        if "description" in changed:
            aws("kms").update_key_description(KeyId=identifier, Description=new.get("description", ""))
        if "policy" in changed:
            aws("kms").put_key_policy(KeyId=identifier, PolicyName="default", Policy=document(new["policy"]))
        if "enableKeyRotation" in changed:
            on = bool(new.get("enableKeyRotation"))
            (aws("kms").enable_key_rotation if on else aws("kms").disable_key_rotation)(KeyId=identifier)
        super().update(aws, identifier, state, new, changed - {*self.inputs})

    def delete(self, aws: Aws, identifier: str, state: Properties) -> None:
        days = int(state.get("deletionWindowInDays") or 30)
        aws("kms").schedule_key_deletion(KeyId=identifier, PendingWindowInDays=days)

    def tag(self, aws: Aws, identifier: str, state: Properties, add: dict[str, str], remove: list[str]) -> None:
        del state
        if add:
            tags = [{"TagKey": key, "TagValue": value} for key, value in add.items()]
            aws("kms").tag_resource(KeyId=identifier, Tags=tags)
        if remove:
            aws("kms").untag_resource(KeyId=identifier, TagKeys=remove)


class Alias(Kind):
    """aws_kms_alias; the id is the name."""

    token = "aws:kms/alias:Alias"
    inputs = frozenset({"name", "targetKeyId"})
    replaces = frozenset({"name"})
    create_before_delete = False

    def create(self, aws: Aws, inputs: Properties) -> str:
        aws("kms").create_alias(AliasName=inputs["name"], TargetKeyId=inputs["targetKeyId"])
        return str(inputs["name"])

    def read(self, aws: Aws, identifier: str, state: Properties) -> Properties | None:
        del state
        for page in aws("kms").get_paginator("list_aliases").paginate():
            for alias in page["Aliases"]:
                if alias["AliasName"] == identifier:
                    return {"arn": alias["AliasArn"], "name": identifier}
        return None

    def update(self, aws: Aws, identifier: str, state: Properties, new: Properties, changed: set[str]) -> None:
        del state
        if changed:
            aws("kms").update_alias(AliasName=identifier, TargetKeyId=new["targetKeyId"])

    def delete(self, aws: Aws, identifier: str, state: Properties) -> None:
        del state
        aws("kms").delete_alias(AliasName=identifier)
