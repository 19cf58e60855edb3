"""The table of limits: each row belongs to a setting, each setting has one, and both ends of each are tried."""

from __future__ import annotations

import typing
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic.alias_generators import to_camel

from infra import settings
from infra.access import iam_policies
from infra.errors import ShopCatError
from infra.settings import PreviewSettings, Settings
from infra.settings.limits import LIMITS, Items, Number, Text
from tests.unit.test_settings import PREVIEWS, committed, existing

CHECKED_ELSEWHERE = {
    "cluster.existing.kubeconfig": "read when it is used; a secret",
    "cluster.existing.vpcCidr": "ipaddress",
    "cluster.existing.nodes.instanceType": "infra/capacity.py has the types",
    "vpc.cidr": "ipaddress",
    "vpc.zones": "two letters",
    "adminCidrs": "ipaddress, and counted with the addresses of the cluster's own",
    "tag": "infra/names.py",
    "release.env": "infra/settings/environment.py",
    "release.migrate": "infra/settings/environment.py",
    "env": "infra/settings/environment.py",
}


def leaves(model: type[BaseModel], prefix: str = "") -> set[str]:
    """Names of all settings but truth values and choices, as they are written in the file."""
    found = set()
    for name, field in model.model_fields.items():
        kinds = [kind for kind in (field.annotation, *typing.get_args(field.annotation)) if isinstance(kind, type)]
        inner = next((kind for kind in kinds if issubclass(kind, BaseModel)), None)
        path = prefix + to_camel(name)
        if inner:
            found |= leaves(inner, f"{path}.")
        elif typing.get_origin(field.annotation) is not typing.Literal and bool not in kinds:
            found.add(path)
    return found


ALL = leaves(Settings) | leaves(PreviewSettings)


def test_each_setting_has_a_limit() -> None:
    assert LIMITS.keys() | CHECKED_ELSEWHERE.keys() == ALL


def refusal(path: str, value: Any) -> str:
    values = committed()
    if path not in leaves(Settings):
        with pytest.raises(ShopCatError) as refused:
            settings.read_preview(PREVIEWS, {"shopcat:tag": "abc", f"shopcat:{path}": value})
        return str(refused.value)
    *sections, name = path.split(".")
    if path.startswith("cluster.existing."):
        values["cluster"] = existing()
    inner = values
    for section in sections:
        inner[section] = dict(inner.get(section) or {})
        inner = inner[section]
    inner[name] = value
    with pytest.raises(ShopCatError) as refused:
        settings.read_settings(values)
    return str(refused.value)


@pytest.mark.parametrize("path", sorted(path for path, limit in LIMITS.items() if isinstance(limit, Number)))
def test_a_number_beyond_its_limit_is_refused_by_name(path: str) -> None:
    limit = LIMITS[path]
    assert isinstance(limit, Number)
    assert not limit.wrong(limit.least)
    assert not limit.wrong(limit.most)
    assert limit.source
    for value in (limit.least - 1, limit.most + 1, str(limit.most + 1), 10**12):
        assert f"shopcat:{path}: " in refusal(path, value)
        assert "is outside" in refusal(path, value)


@pytest.mark.parametrize("path", sorted(path for path, limit in LIMITS.items() if isinstance(limit, Text)))
@pytest.mark.parametrize("text", ["\n", "a\nb", "\0", "\ud800", "é", "x y\t", "a" * 3000])
def test_a_text_of_another_form_is_refused_by_name(path: str, text: str) -> None:
    limit = LIMITS[path]
    assert isinstance(limit, Text)
    assert limit.source
    message = refusal(path, text)
    message.encode()
    assert f"shopcat:{path}: " in message
    assert limit.source in message


def test_the_longest_names_fit_into_policies() -> None:
    """IAM: 10,240 characters in a role's inline policies, 2048 in its trust (reference_iam-quotas.html)."""
    place = iam_policies.AwsScope("1" * 12, "ap-southeast-1", "x" * 100, "y" * 255)
    listener = place.arn("elasticloadbalancing", f"listener/app/shopcat-preview/{'0' * 16}/{'0' * 16}")
    for policy in (
        iam_policies.preview_policy(place, listener, "A" * 21),
        iam_policies.cleanup_policy(place, "A" * 21, is_monitored=True),
    ):
        assert len("".join(policy.split())) <= 10_240
    for trusted in iam_policies.trust("1" * 12, f"{'o' * 39}/{'n' * 100}", "e" * 255).values():
        assert len(trusted) <= 2048


@pytest.mark.parametrize("path", sorted(path for path, limit in LIMITS.items() if isinstance(limit, Items)))
def test_too_many_are_refused_by_name(path: str) -> None:
    limit = LIMITS[path]
    assert isinstance(limit, Items)
    many: Any = [f"203.0.113.{number}" for number in range(limit.most + 1)]
    if path in {"cluster.addonVersions", "database.parameters"}:
        many = dict.fromkeys(many, "v1.0.0-eksbuild.1")
    assert f"shopcat:{path}: has {limit.most + 1} entries, the most is {limit.most}" in refusal(path, many)
