"""The shop before the takeover, on real pods: what Terraform and Helm made serves, and neither wants to change anything."""

import json
import sys
import urllib.request
import uuid

import pytest

from tests.tools import aws, command
from twin.scenarios.old_shop import NAMESPACE, OldShop

pytestmark = pytest.mark.twin


def test_an_order_is_taken_through_the_old_ingress(old_shop: OldShop) -> None:
    for address in old_shop.addresses():
        key = str(uuid.uuid4())
        order = urllib.request.Request(
            f"http://{address}/orders",
            data=json.dumps({"item": "Cat tree", "quantity": 2}).encode(),
            headers={"Content-Type": "application/json", "Idempotency-Key": key},
        )
        with urllib.request.urlopen(order, timeout=15) as answer:
            identifier = json.loads(answer.read())["id"]
        with urllib.request.urlopen(f"http://{address}/orders/{identifier}", timeout=15) as answer:
            assert json.loads(answer.read())["idempotency_key"] == key


def test_terraform_has_nothing_to_do(old_shop: OldShop) -> None:
    if old_shop.without_terraform:
        pytest.skip(f"the shop was made from a recorded state: {old_shop.without_terraform}")
    old_shop.terraform("plan", "-input=false", "-no-color", "-detailed-exitcode")


def test_the_takeover_plan_knows_everything_that_terraform_and_helm_own(old_shop: OldShop) -> None:
    state = old_shop.directory / "terraform.tfstate"
    state.touch(mode=0o600)
    state.write_text(json.dumps(old_shop.state()))
    plan = [sys.executable, "-m", "infra.commands.takeover_plan", str(state)]
    result = command(old_shop.twin, plan, check=False)
    assert "Traceback" not in result.stderr
    assert "can't say" not in [line[:21].strip() for line in result.stdout.splitlines()], result.stdout
    assert "helm: Deployment shopcat/shopcat" in result.stdout


def test_the_load_balancer_goes_with_its_ingress(old_shop: OldShop) -> None:
    assert old_shop.addresses()
    old_shop.kubectl("delete", "ingress", "shopcat", "-n", NAMESPACE, "--timeout=60s")
    assert old_shop.addresses() == []
    names = [group["TargetGroupName"] for group in aws(old_shop.twin, "elbv2").describe_target_groups()["TargetGroups"]]
    assert [name for name in names if name.startswith(f"k8s-{NAMESPACE}-")] == []
