"""Settings: the committed file is good, and what is wrong comes out as one message with a line for each."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from infra import settings
from infra.errors import Refused

COMMITTED = Path(__file__).parents[2] / "Pulumi.prod.yaml"


def committed(**changes: Any) -> dict[str, Any]:
    config = yaml.safe_load(COMMITTED.read_text())["config"]
    values = {key.partition(":")[2]: value for key, value in config.items() if key.startswith("shopcat:")}
    return {key: value for key, value in {**values, **changes}.items() if value is not None}


def refusal(**changes: Any) -> str:
    with pytest.raises(Refused) as refused:
        settings.read(committed(**changes))
    return str(refused.value)


def test_the_committed_stack_file_is_valid_and_asks_for_no_release() -> None:
    found = settings.read(committed())
    assert (found.tag, found.abort, found.rollback) == ("", "", "")
    assert found.drain.budget.app_drain_seconds == 60
    assert found.database.max_connections == 112


def test_everything_that_is_wrong_is_in_one_message() -> None:
    text = refusal(nonsense="1", apiAccess=None, domain="no host", release={"cpu": "lots"}, drain={"appDrain": 20})
    for words in ("shopcat:nonsense: unknown", "shopcat:apiAccess: missing", "no host", "lots", "appDrain"):
        assert words in text
    assert len(text.splitlines()) >= 6


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"apiAccess": None}, ["public", "cidrs", "private"]),
        ({"apiAccess": "cidrs"}, ["apiAccessCidrs", "at least one"]),
        ({"apiAccessCidrs": ["10.0.0.0/8"]}, ["apiAccess is public"]),
        ({"adminCidrs": ["10.0.0.1/8"]}, ["not a network"]),
        ({"drain": {"appDrain": 20, "longestRequest": 30}}, ["appDrain", "20", "31"]),
        ({"release": {"replicas": 9}}, ["replicas", "t3.medium"]),
        ({"release": {"memory": "12"}}, ["12", "memory quantity"]),
        ({"images": {"database": "postgres:16", "smoke": "curl"}}, ["postgres:16", "sha256"]),
        ({"awsEndpoint": "localhost"}, ["localhost", "URL"]),
        ({"chartMirror": {"externalSecrets": "x"}}, ["not a URL"]),
        ({"vpc": {"cidr": "10.0.0.0/8"}}, ["/16 and /20"]),
        ({"vpc": {"zones": ["a", "a"]}}, ["vpc.zones", "two different"]),
        ({"vpc": {"zones": ["a"]}}, ["vpc.zones", "at least 2"]),
        ({"vpc": {"zones": ["eu-central-1a", "b"]}}, ["vpc.zones"]),
        ({"cluster": {"addonVersions": {"ebs": "1"}}}, ["ebs"]),
        ({"github": {"repository": "shopcat"}}, ["<owner>/<name>"]),
        ({"tag": "v1", "abort": "v1"}, ["one of them at a time"]),
    ],
)
def test_each_wrong_setting_is_named_with_what_was_expected(changes: dict[str, Any], words: list[str]) -> None:
    text = refusal(**changes)
    for word in words:
        assert word in text
