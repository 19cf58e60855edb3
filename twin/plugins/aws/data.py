"""Secrets Manager, SSM, DynamoDB and Logs types. Force-new fields follow terraform-provider-aws internal/service."""

from __future__ import annotations

import json
from typing import Any

from botocore.exceptions import ClientError

from twin.plugins.aws.identity import document
from twin.plugins.aws.kind import Aws, Kind, Tagging, gone, pick, tag_list
from twin.plugins.common import Properties


class Secret(Kind):
    """aws_secretsmanager_secret; the id is the ARN."""

    token = "aws:secretsmanager/secret:Secret"
    inputs = frozenset({"name", "description", "kmsKeyId", "recoveryWindowInDays", "forceOverwriteReplicaSecret"})
    replaces = frozenset({"name"})
    name_property = "name"
    name_limit = 512
    tagged = True
    tagging = Tagging("secretsmanager", "tag_resource", "untag_resource", "SecretId")

    def create(self, aws: Aws, inputs: Properties) -> str:
        arguments = pick(inputs, Name="name", Description="description", KmsKeyId="kmsKeyId")
        return str(aws("secretsmanager").create_secret(**arguments)["ARN"])

    def read(self, aws: Aws, identifier: str, state: Properties) -> Properties | None:
        del state
        secret = aws("secretsmanager").describe_secret(SecretId=identifier)
        return None if secret.get("DeletedDate") else {"arn": identifier, "name": secret["Name"]}

    def update(self, aws: Aws, identifier: str, state: Properties, new: Properties, changed: set[str]) -> None:
        del state
        if changed & {"description", "kmsKeyId"}:
            arguments = pick(new, Description="description", KmsKeyId="kmsKeyId")
            aws("secretsmanager").update_secret(SecretId=identifier, **arguments)

    def delete(self, aws: Aws, identifier: str, state: Properties) -> None:
        window = state.get("recoveryWindowInDays")
        arguments: dict[str, Any] = (
            {"ForceDeleteWithoutRecovery": True} if window == 0 else {"RecoveryWindowInDays": int(window or 30)}
        )
        aws("secretsmanager").delete_secret(SecretId=identifier, **arguments)


class SecretPolicy(Kind):
    """aws_secretsmanager_secret_policy; the id is the secret's ARN."""

    token = "aws:secretsmanager/secretPolicy:SecretPolicy"
    inputs = frozenset({"secretArn", "policy", "blockPublicPolicy"})
    replaces = frozenset({"secretArn"})
    create_before_delete = False

    def create(self, aws: Aws, inputs: Properties) -> str:
        self.update(aws, inputs["secretArn"], {}, inputs, {"policy"})
        return str(inputs["secretArn"])

    def read(self, aws: Aws, identifier: str, state: Properties) -> Properties | None:
        del state
        answer = aws("secretsmanager").get_resource_policy(SecretId=identifier)
        return {} if answer.get("ResourcePolicy") else None

    def update(self, aws: Aws, identifier: str, state: Properties, new: Properties, changed: set[str]) -> None:
        del state
        if "policy" in changed:
            aws("secretsmanager").put_resource_policy(SecretId=identifier, ResourcePolicy=document(new["policy"]))

    def delete(self, aws: Aws, identifier: str, state: Properties) -> None:
        del state
        aws("secretsmanager").delete_resource_policy(SecretId=identifier)


class Parameter(Kind):
    """aws_ssm_parameter; the id is the name."""

    token = "aws:ssm/parameter:Parameter"
    inputs = frozenset({"name", "type", "value", "description", "tier", "overwrite"})
    replaces = frozenset({"name"})
    name_property = "name"
    name_limit = 1011
    tagged = True

    def create(self, aws: Aws, inputs: Properties) -> str:
        arguments = pick(inputs, Name="name", Type="type", Value="value", Description="description", Tier="tier")
        aws("ssm").put_parameter(**arguments, Overwrite=bool(inputs.get("overwrite")))
        return str(inputs["name"])

    def read(self, aws: Aws, identifier: str, state: Properties) -> Properties | None:
        parameter = aws("ssm").get_parameter(Name=identifier, WithDecryption=True)["Parameter"]
        live = {"arn": parameter["ARN"], "version": parameter["Version"], "name": identifier}
        return {**live, "value": parameter["Value"]} if state.get("type") != "SecureString" else live

    def update(self, aws: Aws, identifier: str, state: Properties, new: Properties, changed: set[str]) -> None:
        del state
        if changed - {"overwrite"}:
            arguments = pick(new, Type="type", Value="value", Description="description", Tier="tier")
            aws("ssm").put_parameter(Name=identifier, **arguments, Overwrite=True)

    def delete(self, aws: Aws, identifier: str, state: Properties) -> None:
        del state
        aws("ssm").delete_parameter(Name=identifier)

    def tag(self, aws: Aws, identifier: str, state: Properties, add: dict[str, str], remove: list[str]) -> None:
        del state
        if add:
            aws("ssm").add_tags_to_resource(ResourceType="Parameter", ResourceId=identifier, Tags=tag_list(add))
        if remove:
            aws("ssm").remove_tags_from_resource(ResourceType="Parameter", ResourceId=identifier, TagKeys=remove)


class LogGroup(Kind):
    """aws_cloudwatch_log_group; the id is the name."""

    token = "aws:cloudwatch/logGroup:LogGroup"
    inputs = frozenset({"name", "retentionInDays", "kmsKeyId", "skipDestroy"})
    replaces = frozenset({"name"})
    name_property = "name"
    name_limit = 512
    tagged = True

    def create(self, aws: Aws, inputs: Properties) -> str:
        aws("logs").create_log_group(**pick(inputs, logGroupName="name", kmsKeyId="kmsKeyId"))
        self.update(aws, inputs["name"], {}, inputs, {"retentionInDays"} & set(inputs))
        return str(inputs["name"])

    def read(self, aws: Aws, identifier: str, state: Properties) -> Properties | None:
        del state
        for group in aws("logs").describe_log_groups(logGroupNamePrefix=identifier)["logGroups"]:
            if group["logGroupName"] == identifier:
                live = {"arn": group["arn"].removesuffix(":*"), "name": identifier}
                return {**live, "retentionInDays": group["retentionInDays"]} if "retentionInDays" in group else live
        return None

    def update(self, aws: Aws, identifier: str, state: Properties, new: Properties, changed: set[str]) -> None:
        del state
        if "retentionInDays" in changed:
            if new.get("retentionInDays"):
                days = int(new["retentionInDays"])
                aws("logs").put_retention_policy(logGroupName=identifier, retentionInDays=days)
            else:
                aws("logs").delete_retention_policy(logGroupName=identifier)

    def delete(self, aws: Aws, identifier: str, state: Properties) -> None:
        if not state.get("skipDestroy"):
            aws("logs").delete_log_group(logGroupName=identifier)

    def tag(self, aws: Aws, identifier: str, state: Properties, add: dict[str, str], remove: list[str]) -> None:
        del identifier
        if add:
            aws("logs").tag_resource(resourceArn=state["arn"], tags=add)
        if remove:
            aws("logs").untag_resource(resourceArn=state["arn"], tagKeys=remove)


class Table(Kind):
    """aws_dynamodb_table with a hash key alone, paid by request; the id is the name."""

    token = "aws:dynamodb/table:Table"
    inputs = frozenset({"name", "billingMode", "hashKey", "attributes", "deletionProtectionEnabled"})
    replaces = frozenset({"name", "hashKey"})
    name_property = "name"
    name_limit = 255
    tagged = True
    tagging = Tagging("dynamodb", "tag_resource", "untag_resource", "ResourceArn", by_arn=True)

    def create(self, aws: Aws, inputs: Properties) -> str:
        name = str(inputs["name"])
        aws("dynamodb").create_table(
            TableName=name,
            BillingMode=inputs.get("billingMode", "PROVISIONED"),
            KeySchema=[{"AttributeName": inputs["hashKey"], "KeyType": "HASH"}],
            AttributeDefinitions=[
                {"AttributeName": attribute["name"], "AttributeType": attribute["type"]}
                for attribute in inputs["attributes"]
            ],
            **pick(inputs, DeletionProtectionEnabled="deletionProtectionEnabled"),
        )
        aws("dynamodb").get_waiter("table_exists").wait(TableName=name)
        return name

    def read(self, aws: Aws, identifier: str, state: Properties) -> Properties | None:
        del state
        table = aws("dynamodb").describe_table(TableName=identifier)["Table"]
        return {"arn": table["TableArn"], "name": identifier}

    def update(self, aws: Aws, identifier: str, state: Properties, new: Properties, changed: set[str]) -> None:
        protection = "deletionProtectionEnabled"
        if protection in changed:
            aws("dynamodb").update_table(TableName=identifier, DeletionProtectionEnabled=bool(new.get(protection)))
        super().update(aws, identifier, state, new, changed - {protection})

    def delete(self, aws: Aws, identifier: str, state: Properties) -> None:
        del state
        aws("dynamodb").delete_table(TableName=identifier)
        aws("dynamodb").get_waiter("table_not_exists").wait(TableName=identifier)


class TableItem(Kind):
    """aws_dynamodb_table_item by hash key; as upstream it is created only if there is no such item yet."""

    token = "aws:dynamodb/tableItem:TableItem"
    inputs = frozenset({"tableName", "hashKey", "item"})
    replaces = frozenset({"tableName", "hashKey"})
    create_before_delete = False

    def _key(self, state: Properties) -> dict[str, Any]:
        return {state["hashKey"]: json.loads(state["item"])[state["hashKey"]]}

    def create(self, aws: Aws, inputs: Properties) -> str:
        aws("dynamodb").put_item(
            TableName=inputs["tableName"],
            Item=json.loads(inputs["item"]),
            ConditionExpression="attribute_not_exists(#key)",
            ExpressionAttributeNames={"#key": inputs["hashKey"]},
        )
        ((_, value),) = self._key(inputs)[inputs["hashKey"]].items()
        return f"{inputs['tableName']}|{inputs['hashKey']}||{value}|"

    def read(self, aws: Aws, identifier: str, state: Properties) -> Properties | None:
        del identifier
        answer = aws("dynamodb").get_item(TableName=state["tableName"], Key=self._key(state), ConsistentRead=True)
        if "Item" not in answer:
            return None
        same = answer["Item"] == json.loads(state["item"])
        return {"item": state["item"] if same else json.dumps(answer["Item"], sort_keys=True)}

    def update(self, aws: Aws, identifier: str, state: Properties, new: Properties, changed: set[str]) -> None:
        if changed == {"item"} and self._key(state) == self._key(new):
            aws("dynamodb").put_item(TableName=new["tableName"], Item=json.loads(new["item"]))
        else:
            super().update(aws, identifier, state, new, changed)

    def delete(self, aws: Aws, identifier: str, state: Properties) -> None:
        del identifier
        try:
            aws("dynamodb").delete_item(TableName=state["tableName"], Key=self._key(state))
        except ClientError as error:
            if not gone(error):
                raise
