"""What the recorded state makes is what Terraform would have made: its own plan finds nothing to change."""

import json

import pytest

from twin.scenarios.old_shop import OldShop

pytestmark = pytest.mark.engine


def test_terraform_finds_nothing_to_change(terraform_shop: OldShop) -> None:
    state = terraform_shop.apply_recorded()
    (terraform_shop.terraform_directory / "terraform.tfstate").write_text(json.dumps(state))
    terraform_shop.terraform("plan", "-input=false", "-no-color", "-detailed-exitcode")
