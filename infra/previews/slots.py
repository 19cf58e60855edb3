"""The slots that previews may take, and what a preview has left in AWS that no state knows.

An update that is killed between a call that makes something and its checkpoint leaves that behind: the next `up` would stop at
its name, and `destroy` knows nothing of it. All that a preview makes in AWS is thrown away with it and is named by its number,
so what its state doesn't know is deleted: before it is made anew (infra/previews/preview.py), and when the preview is closed
(pipeline/preview.py).
"""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from infra.clients.aws import error_code, explain
from infra.errors import PreflightError
from infra.names import APPLICATION, PREVIEW_SECRET_PATH
from infra.settings.domains import preview_host

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from infra.clients.aws import AwsClients

SLOT_KEY = "place"
_PREVIEW = re.compile(r"pr-([1-9][0-9]{0,8})")
_GONE = ("ListenerNotFound", "ResourceNotFoundException", "RuleNotFound", "TargetGroupNotFound")


def number_of_stack(stack: str) -> int | None:
    """Return the pull request of a preview stack; None if the name is no preview's."""
    match = _PREVIEW.fullmatch(stack)
    return int(match[1]) if match else None


def group_name(stack: str) -> str:
    """Name a preview's target group."""
    return f"{APPLICATION}-{stack}"


def secret_name(stack: str) -> str:
    """Name a preview's secret."""
    return f"{PREVIEW_SECRET_PATH}/{stack}/database"


@dataclass(frozen=True)
class PreviewSlot:
    """One of the slots that previews may take."""

    number: int
    stack: str
    since: str
    """Time at which it was taken, ISO 8601 in UTC."""

    def age(self, now: datetime) -> str:
        """Describe the age for a person: `3 d 4 h`, `2 h 5 min` or `7 min`."""
        try:
            minutes = max(int((now - datetime.fromisoformat(self.since)).total_seconds() // 60), 0)
        except (ValueError, TypeError):  # whoever opens previews writes what it likes
            return "an unknown time"
        if minutes < 60:
            return f"{minutes} min"
        return (
            f"{minutes // 60} h {minutes % 60} min" if minutes < 1440 else f"{minutes // 1440} d {minutes // 60 % 24} h"
        )

    def item(self) -> str:
        """Return the table's item, as the API writes it; the same text for the same slot."""
        item = {SLOT_KEY: str(self.number), "stack": self.stack, "since": self.since}
        return json.dumps({name: {"S": value} for name, value in item.items()}, sort_keys=True)


def describe_slots(taken_slots: Sequence[PreviewSlot], now: datetime) -> str:
    """Describe the open previews, a line each, the oldest first."""
    return "\n".join(
        f"  - {slot.stack}, open for {slot.age(now)}" for slot in sorted(taken_slots, key=lambda slot: slot.since)
    )


def choose_slot(taken_slots: Sequence[PreviewSlot], stack: str, count: int, now: datetime) -> PreviewSlot:
    """Return the slot that the stack has, or else the lowest free one.

    Raises:
        ShopCatError: all are taken; the open previews are named with their age.
    """
    for slot in taken_slots:
        if slot.stack == stack:
            return slot
    if count == 0:
        raise PreflightError(
            f"{stack}: production takes no previews: it is being taken down (shopcat:protection is false there), or its "
            "release leaves no room beside it (shopcat:release); `pulumi up -s prod` with other settings changes that"
        )
    taken = {slot.number for slot in taken_slots}
    free = next((number for number in range(1, count + 1) if number not in taken), None)
    if free is None:
        raise PreflightError(
            f"{stack}: {count} previews fit beside a full release and {len(taken_slots)} are open; close one first "
            f"(`pulumi destroy -s pr-<n>`):\n{describe_slots(taken_slots, now)}"
        )
    return PreviewSlot(free, stack, now.isoformat(timespec="seconds"))


def read_slots(clients: AwsClients, table: str) -> list[PreviewSlot]:
    """Return every slot that is taken.

    Raises:
        ShopCatError: the table can't be read.
    """
    try:
        pages = clients.get("dynamodb").get_paginator("scan").paginate(TableName=table, ConsistentRead=True)
        items = [item for page in pages for item in page["Items"]]
    except (BotoCoreError, ClientError) as error:
        raise explain(error, f"DynamoDB table {table}", clients.endpoint_url) from error
    texts = [{name: str(value.get("S", "")) for name, value in item.items()} for item in items]
    return [
        PreviewSlot(int(item[SLOT_KEY]), item.get("stack", ""), item.get("since", ""))
        for item in texts
        if item[SLOT_KEY].isdecimal()
    ]


def refuse_open_previews(clients: AwsClients, table: str) -> None:
    """Let production be taken down only if no preview lives in its cluster; where there is no table, none ever did.

    Raises:
        ShopCatError: previews are open, and which; or the table can't be read.
    """
    try:
        clients.get("dynamodb").describe_table(TableName=table)
    except (BotoCoreError, ClientError) as error:
        if error_code(error) == "ResourceNotFoundException":
            return
        raise explain(error, f"DynamoDB table {table}", clients.endpoint_url) from error
    taken = read_slots(clients, table)
    if taken:
        raise PreflightError(
            "shopcat:protection is false, by which production is taken down (docs/destroy.md), and previews live in its "
            "cluster, which would be left without it. Close them first: their pull requests, or `pulumi destroy -s pr-<n>`; a "
            f"place that no stack owns is freed by `python -m pipeline reaper` within the hour:\n"
            f"{describe_slots(taken, datetime.now(UTC))}"
        )


def _hosts(rule: Mapping[str, Any]) -> list[str]:
    """Return the hosts that a listener rule is for."""
    conditions = rule["Conditions"]
    return [host for condition in conditions for host in condition.get("HostHeaderConfig", {}).get("Values", [])]


def _target_groups(rule: Mapping[str, Any]) -> set[str]:
    """Return the names of the target groups that a listener rule forwards to."""
    targets = [
        target
        for action in rule["Actions"]
        for target in (action, *action.get("ForwardConfig", {}).get("TargetGroups", []))
    ]
    # arn:aws:elasticloadbalancing:<region>:<account>:targetgroup/<name>/<id>
    return {target["TargetGroupArn"].split("/")[1] for target in targets if "TargetGroupArn" in target}


@dataclass(frozen=True)
class Leftovers:
    """The objects that AWS may hold of one preview, known by its names alone; each deletion is complete, or done before."""

    clients: AwsClients
    stack: str
    table: str
    listener_arn: str
    host: str

    @classmethod
    def of(cls, clients: AwsClients, stack: str, contract: Mapping[str, Any]) -> Leftovers:
        """Take the names from production's contract (infra/previews/cluster_info.py), as its JSON has it."""
        host = preview_host(stack, contract["previewDomain"])
        return cls(clients, stack, contract["placesTable"], contract["previewListenerArn"], host)

    def delete_rule(self) -> None:
        """Delete every rule for the preview's host, or that forwards to its target group.

        A rule made before shopcat:previewDomain was changed names another host, and holds the target group.

        Raises:
            ShopCatError: AWS says no; so for all that follows.
        """
        elb = self.clients.get("elbv2")
        with self._explained(f"rule for {self.host}"):
            pages = elb.get_paginator("describe_rules").paginate(ListenerArn=self.listener_arn)
            for rule in [rule for page in pages for rule in page["Rules"]]:
                if _hosts(rule) == [self.host] or group_name(self.stack) in _target_groups(rule):
                    elb.delete_rule(RuleArn=rule["RuleArn"])

    def delete_group(self) -> None:
        """Delete the preview's target group, and first the rule that uses it."""
        self.delete_rule()
        elb, name = self.clients.get("elbv2"), group_name(self.stack)
        with self._explained(f"target group {name}"):
            for group in elb.describe_target_groups(Names=[name])["TargetGroups"]:
                elb.delete_target_group(TargetGroupArn=group["TargetGroupArn"])

    def delete_secret(self) -> None:
        """Delete the preview's secret, at once and for good."""
        name = secret_name(self.stack)
        with self._explained(f"secret {name}"):
            self.clients.get("secretsmanager").delete_secret(SecretId=name, ForceDeleteWithoutRecovery=True)

    def free_slot(self) -> None:
        """Free every slot that the stack holds."""
        with self._explained(f"DynamoDB table {self.table}"):
            for slot in read_slots(self.clients, self.table):
                if slot.stack == self.stack:
                    self._free(slot)

    def _free(self, slot: PreviewSlot) -> None:
        try:
            self.clients.get("dynamodb").delete_item(
                TableName=self.table,
                Key={SLOT_KEY: {"S": str(slot.number)}},
                ConditionExpression="stack = :stack",
                ExpressionAttributeValues={":stack": {"S": self.stack}},
            )
        except ClientError as error:
            if error_code(error) != "ConditionalCheckFailedException":  # it is another's by now
                raise

    def delete(self) -> None:
        """Delete all of it, the slot last: it is free once nothing of its preview is left."""
        self.delete_group()
        self.delete_secret()
        self.free_slot()

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except (BotoCoreError, ClientError) as error:
            if error_code(error) not in _GONE:
                raise explain(error, what, self.clients.endpoint_url) from error
