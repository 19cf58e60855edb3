"""Leftovers of a preview that no state holds are deleted, and nothing of anybody else's is."""

import itertools
import json
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.access import iam_policies
from infra.access.iam_policies import AwsScope
from infra.clients.aws import AwsClients
from infra.errors import ShopCatError
from infra.names import PREVIEW_SLOTS_TABLE
from infra.previews import slots
from infra.previews.slots import Leftovers, PreviewSlot
from infra.settings.domains import preview_host
from pipeline import reaper
from pipeline.state import PreviewStack
from twin.plugins.aws import data, elbv2
from twin.plugins.aws.kind import Aws

REGION = "eu-central-1"
DOMAIN = "shop.example.com"
ORDER = ("place", "group", "rule", "secret")


class Account:
    """An AWS account with the previews' table and listener, and what the stand-in of the provider makes in it."""

    def __init__(self) -> None:
        self.clients = AwsClients(REGION)
        self.aws = Aws({"region": REGION, "accessKey": "test", "secretKey": "test"})
        ec2: Any = boto3.client("ec2", region_name=REGION)
        elb: Any = boto3.client("elbv2", region_name=REGION)
        self.vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        subnets = [
            ec2.create_subnet(VpcId=self.vpc, CidrBlock=f"10.0.{index}.0/24", AvailabilityZone=f"{REGION}{zone}")
            for index, zone in enumerate("ab")
        ]
        balancer = elb.create_load_balancer(
            Name="shopcat-preview", Subnets=[one["Subnet"]["SubnetId"] for one in subnets]
        )["LoadBalancers"][0]["LoadBalancerArn"]
        fixed = {"Type": "fixed-response", "FixedResponseConfig": {"StatusCode": "404"}}
        self.listener = elb.create_listener(LoadBalancerArn=balancer, Protocol="HTTP", Port=80, DefaultActions=[fixed])[
            "Listeners"
        ][0]["ListenerArn"]
        keys = [{"name": slots.SLOT_KEY, "type": "S"}]
        table = {"name": PREVIEW_SLOTS_TABLE, "billingMode": "PAY_PER_REQUEST", "hashKey": slots.SLOT_KEY}
        data.Table().create(self.aws, {**table, "attributes": keys})

    def make(self, number: int, parts: tuple[str, ...] = ORDER) -> None:
        """Make a preview's objects as `pulumi up` does, in its order, at place <number>."""
        stack = f"pr-{number}"
        if "place" in parts:
            item = PreviewSlot(number, stack, "2026-05-04T12:00:00+00:00").item()
            table = {"tableName": PREVIEW_SLOTS_TABLE, "hashKey": slots.SLOT_KEY}
            data.TableItem().create(self.aws, {**table, "item": item})
        if "group" in parts:
            shape = {"port": 8080, "protocol": "HTTP", "targetType": "ip", "vpcId": self.vpc}
            group = elbv2.TargetGroup().create(self.aws, {"name": slots.group_name(stack), **shape})
            if "rule" in parts:
                inputs = {"listenerArn": self.listener, "priority": 100 + number}
                inputs["conditions"] = [{"hostHeader": {"values": [preview_host(stack, DOMAIN)]}}]
                inputs["actions"] = [{"type": "forward", "targetGroupArn": group}]
                elbv2.ListenerRule().create(self.aws, inputs)
        if "secret" in parts:
            data.Secret().create(self.aws, {"name": slots.secret_name(stack)})

    def there(self) -> list[str]:
        """Everything that the account holds of previews, by kind and name."""
        elb, manager = self.clients.get("elbv2"), self.clients.get("secretsmanager")
        rules = elb.describe_rules(ListenerArn=self.listener)["Rules"]
        return sorted(
            [f"place {one.stack}" for one in slots.read_slots(self.clients, PREVIEW_SLOTS_TABLE)]
            + [f"group {one['TargetGroupName']}" for one in elb.describe_target_groups()["TargetGroups"]]
            + [f"rule {one['Conditions'][0]['HostHeaderConfig']['Values'][0]}" for one in rules if one["Conditions"]]
            + [f"secret {one['Name']}" for one in manager.list_secrets(IncludePlannedDeletion=True)["SecretList"]]
        )

    def leftovers(self, number: int, domain: str = DOMAIN) -> Leftovers:
        found = {
            "placesTable": PREVIEW_SLOTS_TABLE,
            "previewListenerArn": self.listener,
            "previewDomain": domain,
        }
        return Leftovers.of(self.clients, f"pr-{number}", found)


@pytest.fixture
def account(mocked_aws: None) -> Account:
    return Account()


def killed() -> list[tuple[str, ...]]:
    """Every set of parts that may be there without the state's knowledge."""
    subsets = (one for count in range(5) for one in itertools.combinations(ORDER, count))
    return [one for one in subsets if not ("rule" in one and "group" not in one)]


@pytest.mark.parametrize("parts", killed(), ids="-".join)
def test_what_a_killed_update_has_left_goes_and_can_be_made_anew(account: Account, parts: tuple[str, ...]) -> None:
    for number in (1, 123):
        account.make(number)
    others = account.there()
    account.make(12, parts)
    leftovers = account.leftovers(12)
    for clear in (leftovers.free_slot, leftovers.delete_group, leftovers.delete_rule, leftovers.delete_secret):
        clear()  # as the hooks do
    assert account.there() == others
    account.make(12)
    leftovers.delete()
    leftovers.delete()
    assert account.there() == others


def test_a_rule_of_the_former_domain_goes_with_its_target_group(account: Account) -> None:
    for number in (1, 123):
        account.make(number)
    others = account.there()
    account.make(12)
    calls: set[str] = set()
    events = account.clients.get("elbv2").meta.events
    events.register("before-call", lambda model, **_: calls.add(f"elasticloadbalancing:{model.name}"))
    account.leftovers(12, "new.example.com").delete()
    assert account.there() == others
    policy = json.loads(
        iam_policies.cleanup_policy(AwsScope("123456789012", REGION, "shopcat", "releases"), "AROA", is_monitored=False)
    )
    allowed = {action for statement in policy["Statement"] for action in statement["Action"]}
    assert calls == {action for action in allowed if action.startswith("elasticloadbalancing:")}


def test_a_rule_that_splits_traffic_goes_with_any_of_its_target_groups(account: Account) -> None:
    account.make(123)
    others = account.there()
    account.make(12, ("group",))
    elb = account.clients.get("elbv2")
    arns = [one["TargetGroupArn"] for one in elb.describe_target_groups()["TargetGroups"]]
    forward = {"TargetGroups": [{"TargetGroupArn": arn, "Weight": 1} for arn in arns]}
    elb.create_rule(
        ListenerArn=account.listener,
        Priority=1,
        Conditions=[{"Field": "host-header", "HostHeaderConfig": {"Values": ["by-hand.example.com"]}}],
        Actions=[{"Type": "forward", "ForwardConfig": forward}],
    )
    account.leftovers(12).delete()
    assert account.there() == others


def test_each_hook_clears_what_is_made_after_it(account: Account) -> None:
    for part, clear in (
        ("place", Leftovers.free_slot),
        ("secret", Leftovers.delete_secret),
        ("group", Leftovers.delete_group),
    ):
        account.make(12, (part,))
        clear(account.leftovers(12))
        account.make(12, (part,))


def test_every_place_of_the_stack_is_freed_and_a_place_that_another_has_taken_stays(account: Account) -> None:
    table = account.clients.get("dynamodb")
    for slot in (PreviewSlot(1, "pr-12", "x"), PreviewSlot(2, "pr-12", "x"), PreviewSlot(3, "pr-1", "x")):
        table.put_item(TableName=PREVIEW_SLOTS_TABLE, Item=json.loads(slot.item()))
    stale = PreviewSlot(3, "pr-12", "x")
    account.leftovers(12)._free(stale)
    account.leftovers(12).free_slot()
    assert [one.stack for one in slots.read_slots(account.clients, PREVIEW_SLOTS_TABLE)] == ["pr-1"]


def test_where_production_is_gone_nothing_is_left_but_secrets(account: Account) -> None:
    account.make(12, ("secret",))
    found = {"placesTable": "none", "previewListenerArn": account.listener[:-16] + "0" * 16, "previewDomain": DOMAIN}
    with pytest.raises(ShopCatError, match="DynamoDB table none"):
        Leftovers.of(account.clients, "pr-12", found).delete()
    assert account.there() == []


def test_whatever_is_written_into_the_table_is_read(account: Account) -> None:
    table = account.clients.get("dynamodb")
    for item in ({"place": "7"}, {"place": "x", "stack": "pr-1"}, {"place": "8", "stack": "pr-8", "since": "long ago"}):
        table.put_item(TableName=PREVIEW_SLOTS_TABLE, Item={name: {"S": value} for name, value in item.items()})
    found = sorted(slots.read_slots(account.clients, PREVIEW_SLOTS_TABLE), key=lambda one: one.number)
    assert [(one.number, one.stack) for one in found] == [(7, ""), (8, "pr-8")]
    assert "pr-8, open for an unknown time" in slots.describe_slots(found, datetime.now(UTC))


def test_production_is_not_taken_down_over_open_previews(account: Account) -> None:
    slots.refuse_open_previews(account.clients, "none yet")
    slots.refuse_open_previews(account.clients, PREVIEW_SLOTS_TABLE)
    for number in (12, 123):
        account.make(number, ("place",))
    with pytest.raises(ShopCatError, match=r"(?s)docs/destroy.md.*pr-12, open for .*pr-123, open for"):
        slots.refuse_open_previews(account.clients, PREVIEW_SLOTS_TABLE)


def test_where_production_takes_no_previews_none_opens_and_an_open_one_keeps_its_place() -> None:
    now = datetime.now(UTC)
    with pytest.raises(ShopCatError, match=r"shopcat:protection"):
        slots.choose_slot([], "pr-12", 0, now)
    mine = PreviewSlot(1, "pr-12", now.isoformat())
    assert slots.choose_slot([mine], "pr-12", 0, now) == mine


@given(holders=st.lists(st.integers(10, 30)), stacks=st.sets(st.integers(10, 30)))
def test_a_place_is_an_orphan_if_and_only_if_no_stack_has_its_number(holders: list[int], stacks: set[int]) -> None:
    taken = [PreviewSlot(index, f"pr-{number}", "x") for index, number in enumerate(holders, 1)]
    seen = [PreviewStack(number, datetime.now(UTC)) for number in stacks]
    assert set(reaper.orphans([*taken, PreviewSlot(99, "prod", "x")], seen)) == set(holders) - stacks


def test_a_place_that_no_preview_can_have_taken_is_freed(account: Account, capfd: pytest.CaptureFixture[str]) -> None:
    account.make(12, ("place",))
    table: Any = account.clients.get("dynamodb")
    for slot in (PreviewSlot(3, "prod", "x"), PreviewSlot(4, "", "x"), PreviewSlot(5, "pr-012", "x")):
        table.put_item(TableName=PREVIEW_SLOTS_TABLE, Item=json.loads(slot.item()))
    found = {
        "placesTable": PREVIEW_SLOTS_TABLE,
        "previewListenerArn": account.listener,
        "previewDomain": DOMAIN,
    }
    reaper.free_foreign(account.clients, found, slots.read_slots(account.clients, PREVIEW_SLOTS_TABLE))
    assert account.there() == ["place pr-12"]
    assert capfd.readouterr().out.count("freeing place") == 3
