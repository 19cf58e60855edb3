"""Golden master: every URN with its inputs, and the ledger's records, which an existing stack compares with.

The plans of production for the decisions of the ledger's table, one preview's, and the ledger's items, from the real engine
on simulated nodes, without what differs from one twin to the next. They equal the files in golden/; a change that is wanted
writes them anew with SHOPCAT_GOLDEN=write, and its diff is part of the change. Names, types, tags, paths and record keys
that move here move in a shop's own stack as well.
"""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.engine.isolation_job import GITHUB
from tests.tools import aws, command, settings_file
from twin.config import Twin
from twin.paths import REPOSITORY
from twin.scenarios import preview, production

pytestmark = pytest.mark.engine

GOLDEN = Path(__file__).parent / "golden"
SHA = "d" * 40
NUMBER = 123
NEW, LIVE = "v1.1.0", production.FIRST_TAG
LEDGER = "shopcat-releases"
PLAN = ["pulumi", "preview", "--json", "--show-sames"]
Plan = dict[str, dict[str, Any]]

VOLATILE = {
    r"04da6b54-80e4-46f7-96ec-b56ff0331ba9": "<known after the update>",
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}": "<uuid>",
    r"leads-to-shopcat-[0-9a-f]+": "<uuid>",
    r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)?": "<time>",
    r"10\.213\.\d+\.": "10.213.<twin>.",
    r"10\\?\.214\.\d+\.": "10.214.<twin>.",
    r"\b127\.\d+\.\d+\.\d+": "<elastic address>",
    r"\bc\d\dtwintwin\b": "<twin>",
    r"(?<=[:\[ ])2[1-4]\d{3}\b|^2[1-4]\d{3}$": "<port>",
    r"sha256:[0-9a-f]{64}": "sha256:<digest>",
    r"LS0t[A-Za-z0-9+/=]{100,}": "<certificate>",
    r"\b(vpc|subnet|sg|rtb|rtbassoc|igw|nat|eipalloc|lt|eni|pl|acl|sgr)-[0-9a-f]{8,17}\b": r"<\1>",
    r"(:secret:[^\"]+)-[A-Za-z0-9]{6}\b": r"\1-<random>",
    r"(?<=-)([0-9a-f]{7}|[0-9a-f]{17})\b": "<random>",
    r"\b[0-9a-f]{16}\b": "<hash>",
    r"\b(AROA|AIDA)[A-Z0-9]{12,17}\b": "<role id>",
    r"\b(?=[A-Z0-9]*\d)[A-Z0-9]{20,32}\b": "<zone>",
}


def steady(twin: Twin, value: Any) -> Any:
    """The value without what differs between twins and runs, its mappings in order."""
    if isinstance(value, dict):
        return {key: steady(twin, value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [steady(twin, one) for one in value]
    if isinstance(value, int) and not isinstance(value, bool) and 21_000 <= value < 25_000:
        return "<port>"
    if not isinstance(value, str):
        return value
    text = value.replace(str(twin.directory), "<twin>").replace(twin.name, "<name>")
    for pattern, word in VOLATILE.items():
        text = re.sub(pattern, word, text)
    return text


def plan(twin: Twin, stack: str, arguments: list[str], **environment: str) -> Plan:
    """Return what `pulumi preview` would declare: URN → inputs, and protected or not."""
    said = command(twin, [*PLAN, "-s", stack, *arguments], **environment).stdout
    steps = json.loads(said)["steps"]
    return {
        str(steady(twin, step["urn"])): steady(
            twin,
            {
                "inputs": step["newState"].get("inputs", {}),
                **({"protect": True} if step["newState"].get("protect") else {}),
            },
        )
        for step in steps
        if "newState" in step
    }


def compare(name: str, found: Any) -> None:
    """``found`` is what the file holds."""
    path = GOLDEN / f"{name}.json"
    if os.environ.get("SHOPCAT_GOLDEN") == "write":
        GOLDEN.mkdir(exist_ok=True)
        path.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    assert found == json.loads(path.read_text())


@pytest.fixture(scope="module")
def settings(simulated: Twin, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Production with its repository on GitHub, so that every identity is there; a second image is pushed."""
    path = settings_file(simulated, tmp_path_factory.mktemp("settings"), {"shopcat:github": GITHUB})
    up(simulated, str(path))
    production.push_image(simulated, REPOSITORY / "twin" / "application", NEW)
    return str(path)


def up(twin: Twin, path: str, *arguments: str, check: bool = True) -> None:
    environment = {"PULUMI_OPTION_CONFIG_FILE": path}
    command(twin, ["pulumi", "up", "-s", "prod", "--yes", "--skip-preview", *arguments], check=check, **environment)


@pytest.fixture(scope="module")
def whole(simulated: Twin, settings: str) -> Plan:
    """The plan when nothing is wanted and no release is open."""
    return plan(simulated, "prod", [], PULUMI_OPTION_CONFIG_FILE=settings)


def differing(twin: Twin, settings: str, directory: Path, whole: Plan, **wanted: str) -> Plan:
    """Return the differences of a plan to the whole one; a URN that is gone is null."""
    copy = directory / "Pulumi.prod.yaml"
    copy.write_text(Path(settings).read_text())
    arguments = [one for key, value in wanted.items() for one in ("-c", f"shopcat:{key}={value}")]
    found = plan(twin, "prod", arguments, PULUMI_OPTION_CONFIG_FILE=str(copy))
    return {urn: found.get(urn) for urn in {*whole, *found} if whole.get(urn) != found.get(urn)}  # type: ignore[misc]


def ledger(twin: Twin) -> list[Any]:
    """The table's items as they are stored."""
    items = aws(twin, "dynamodb").scan(TableName=LEDGER)["Items"]
    return sorted((steady(twin, _unpacked(one)) for one in items), key=lambda one: str(one["pk"]))


def _unpacked(item: Any) -> Any:
    """With documents that are stored as text read."""
    if isinstance(item, dict):
        return {key: _unpacked(value) for key, value in item.items()}
    if isinstance(item, list):
        return [_unpacked(one) for one in item]
    if isinstance(item, str) and item.startswith(("{", "[")):
        return json.loads(item)
    return item


def test_production(whole: Plan) -> None:
    compare("production", whole)


def test_the_ledger(simulated: Twin, settings: str) -> None:
    compare("ledger", ledger(simulated))


def test_a_preview(simulated: Twin, settings: str) -> None:
    stack = f"pr-{NUMBER}"
    production.push_image(simulated, REPOSITORY / "twin" / "application", SHA, preview.REPOSITORY_NAME)
    preview.select(simulated, stack)
    environment = preview.environment(simulated, stack)
    found = plan(simulated, stack, ["-c", f"shopcat:tag={SHA}"], **environment)
    compare("preview", found)


@pytest.mark.parametrize("wanted", ["nothing", "live", "new"])
def test_no_release_is_open(simulated: Twin, settings: str, whole: Plan, tmp_path: Path, wanted: str) -> None:
    tags = {"nothing": {}, "live": {"tag": LIVE}, "new": {"tag": NEW}}
    compare(f"none-open-{wanted}", differing(simulated, settings, tmp_path, whole, **tags[wanted]))


@contextmanager
def stored(twin: Twin, tag: str, state: str) -> Iterator[None]:
    """A release's state in the ledger, changed until the end of the block."""
    client, key = aws(twin, "dynamodb"), {"pk": {"S": f"release#{tag}#1"}}
    before = client.get_item(TableName=LEDGER, Key=key)["Item"]
    document = {**json.loads(before["document"]["S"]), "sequence": 1}
    after = {**before, "state": {"S": state}, "document": {"S": json.dumps(document)}}
    client.put_item(TableName=LEDGER, Item=after)
    yield
    client.put_item(TableName=LEDGER, Item=before)


def test_a_release_is_open_and_aborted(simulated: Twin, settings: str, whole: Plan, tmp_path: Path) -> None:
    """Its pods serve no page here, so its shift fails and it stays open."""
    copy = tmp_path / "Pulumi.prod.yaml"
    copy.write_text(Path(settings).read_text())
    up(simulated, str(copy), "-c", f"shopcat:tag={NEW}", check=False)
    compare("open-nothing", differing(simulated, settings, tmp_path, whole))
    compare("open-abort", differing(simulated, settings, tmp_path, whole, abort=NEW))
    copy.write_text(Path(settings).read_text())
    up(simulated, str(copy), "-c", f"shopcat:abort={NEW}")
    compare("aborted-again", differing(simulated, settings, tmp_path, whole, tag=NEW))
    compare("ledger-after", ledger(simulated))
    with stored(simulated, NEW, "former"):
        compare("rollback", differing(simulated, settings, tmp_path, whole, rollback=f"{LIVE}->{NEW}"))
