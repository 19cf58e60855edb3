"""Releases under constant load, with a drain budget for delays a quarter as long; every request is counted."""

import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from bench import run
from bench.reconcile import disagreements, orders_lost_or_doubled
from infra.release.health import CLOCKS_DIFFER_SECONDS
from tests.tools import command
from tests.twin.shop import Shop, open_shop, stop, wait_for
from twin.config import Twin
from twin.paths import REPOSITORY

pytestmark = pytest.mark.twin

SERVE = "    drain = Drain()\n    size"
CRASH = {SERVE: f'    raise SystemExit("no")\n{SERVE}'}
PAGE = "async def page(request: web.Request) -> web.Response:\n"
COUNT = '    """The shop\'s front page, read from PostgreSQL."""\n'
ERRORS_LATER = {
    PAGE + COUNT: f"served = []\n\n\n{PAGE}{COUNT}"
    "    served.append(1)\n    if len(served) > 60:\n        return web.Response(status=500)\n"
}
"""Every page after a pod's sixtieth is an error: smoke test and canary see none of them."""

KEPT = {"shopcat:keepFormer": True}


@pytest.fixture(scope="module")
def shop(twin: Twin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with open_shop(twin, tmp_path_factory.mktemp("shop")) as opened:
        yield opened


def test_a_release_survives_the_death_of_its_engine_without_one_failed_request(shop: Shop) -> None:
    """New tag and new settings; SIGKILL once everything is on the new colour; the next plain `up` finishes it."""
    shop.push("v1.1.0")
    time.sleep(CLOCKS_DIFFER_SECONDS)  # then what was just released for the first time counts as having served
    start = shop.load.started
    process, log = shop.start(KEPT, tag="v1.1.0")
    wait_for(log, r"weights blue 100 / green 0 read back \(2 of 2\)", process)
    stop(process)
    assert shop.weights() == {"blue": 100, "green": 0}
    assert shop.replicas("green") == 2, "the old colour keeps its pods"
    shop.cancel()
    code, output = shop.up(KEPT)
    assert code == 0, output
    assert "v1.1.0-r1 is live in blue" in output
    assert (shop.outputs()["liveRelease"], shop.replicas("green")) == ("v1.1.0", 2)
    assert shop.failed(start) == []


def test_users_go_back_to_kept_pods_at_once_and_an_abort_brings_them_forward(shop: Shop) -> None:
    since = shop.load.outcomes[-1].due
    undo = [sys.executable, "-m", "infra.commands.undo"]
    for _ in range(2):  # the second time it finds all done
        said = command(shop.twin, undo, PULUMI_OPTION_CONFIG_FILE=str(shop.copy(KEPT))).stdout
        assert "all weight is on v1.0.0-r1 in green" in said
        assert shop.weights() == {"blue": 0, "green": 100}
    code, output = shop.up(KEPT, abort="v1.0.0")
    assert code == 0, output
    assert shop.weights() == {"blue": 100, "green": 0}
    assert (shop.outputs()["liveRelease"], shop.replicas("green")) == ("v1.1.0", 0)
    refused = command(shop.twin, undo, check=False, PULUMI_OPTION_CONFIG_FILE=str(shop.copy(KEPT)))
    assert refused.returncode == 1
    assert "no release stands beside v1.1.0-r1" in refused.stderr
    assert shop.failed(since) == []


def test_a_tag_that_was_released_is_refused_in_preview(shop: Shop) -> None:
    preview = ["pulumi", "preview", "-s", "prod", "-c", "shopcat:tag=v1.0.0", "--non-interactive"]
    result = command(shop.twin, preview, check=False, PULUMI_OPTION_CONFIG_FILE=str(shop.copy()))
    output = result.stdout + result.stderr
    assert result.returncode != 0
    assert "v1.0.0" in output
    assert "Only a rollback brings it back" in output
    assert "Traceback" not in output


def test_draining_a_node_of_the_live_colour_fails_no_request(shop: Shop) -> None:
    before = run.requests_since(shop.twin, 0)[-1].received_ms / 1000
    drain = ["kubectl", "drain", "node1", "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=240s"]
    try:
        command(shop.twin, drain)
    finally:
        command(shop.twin, ["kubectl", "uncordon", "node1"])
    assert shop.failed(before) == []


def test_a_release_that_never_starts_hurts_nobody_and_is_aborted(shop: Shop) -> None:
    shop.push("v1.2.0", CRASH)
    shop.push("v1.2.1")
    since = shop.load.outcomes[-1].due
    code, output = shop.up(tag="v1.2.0")
    assert code != 0
    assert "CrashLoopBackOff" in output or "completed with exit code 1" in output
    assert "Traceback" not in output
    code, output = shop.up(tag="v1.2.1")
    assert code != 0
    assert "abort" in output
    assert "v1.2.0" in output
    code, output = shop.up(abort="v1.2.0")
    assert code == 0, output
    assert (shop.outputs()["liveRelease"], shop.replicas("green")) == ("v1.1.0", 0)
    assert shop.failed(since) == []


NONE_OPEN = {
    "nothing": ({}, 0, ["v1.1.0-r1 is live in blue"]),
    "the live tag": ({"tag": "v1.1.0"}, 0, ["v1.1.0-r1 is live in blue"]),
    "a new tag": ({"tag": "v1.2.1"}, 0, ["releases v1.2.1-r1 into green"]),
    "a tag once live": ({"tag": "v1.0.0"}, 1, ["v1.0.0", "Only a rollback brings it back"]),
    "an aborted tag": ({"tag": "v1.2.0"}, 0, ["releases v1.2.0-r1 into green again, attempt 2"]),
    "an abort that is done": ({"abort": "v1.2.0"}, 0, ["v1.2.0 is already aborted"]),
    "an abort of what is live": ({"abort": "v1.1.0"}, 1, ["it is live", "rollback"]),
    "a rollback": ({"rollback": "v1.1.0->v1.0.0"}, 0, ["rolls back from v1.1.0-r1 to v1.0.0-r1 in green"]),
    "a rollback that is done": ({"rollback": "v1.0.0->v1.1.0"}, 0, ["v1.1.0-r1 is live already"]),
    "a rollback from what is not live": ({"rollback": "v1.2.1->v1.0.0"}, 1, ["v1.1.0-r1 is live, not v1.2.1"]),
}
"""While no release is open: settings → exit code of `pulumi preview`, and texts in its output."""
BOTH_WAYS = ["go on: pulumi up -s prod", "abort: pulumi up -s prod", "shopcat:abort=v1.3.0"]
OPEN = {
    "nothing": ({}, 0, ["goes on with release v1.3.0-r1"]),
    "the live tag": ({"tag": "v1.1.0"}, 1, BOTH_WAYS),
    "the open tag": ({"tag": "v1.3.0"}, 0, ["goes on with release v1.3.0-r1"]),
    "a new tag": ({"tag": "v1.2.1"}, 1, BOTH_WAYS),
    "a tag once live": ({"tag": "v1.0.0"}, 1, BOTH_WAYS),
    "an aborted tag": ({"tag": "v1.2.0"}, 1, BOTH_WAYS),
    "its abort": ({"abort": "v1.3.0"}, 0, ["aborts release v1.3.0-r1: weights back, green to 0"]),
    "an abort of another": ({"abort": "v1.2.0"}, 1, ["the open release is v1.3.0-r1"]),
    "a rollback": ({"rollback": "v1.1.0->v1.0.0"}, 1, BOTH_WAYS),
}
"""The same while v1.3.0 is open."""


def table(shop: Shop, cells: dict[str, tuple[dict[str, str], int, list[str]]]) -> dict[str, str]:
    """Cells of the ledger's table that a checkout of its own doesn't find as they are written; empty if all are."""
    checkout = shop.directory / "second-checkout"
    if not checkout.exists():
        shutil.copytree(REPOSITORY / "infra", checkout / "infra", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(REPOSITORY / "Pulumi.yaml", checkout)
    wrong = {}
    for name, (values, code, words) in cells.items():
        options = [part for setting, value in values.items() for part in ("-c", f"shopcat:{setting}={value}")]
        result = subprocess.run(
            ["pulumi", "preview", "-s", "prod", "--non-interactive", *options],
            cwd=checkout,
            env=run.environment(shop.twin, shop.copy()),
            text=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        output = result.stdout + result.stderr
        # The engine breaks no lines, but it says a refusal with its own indentation.
        if (result.returncode != 0) != bool(code) or not all(word in output for word in words) or "Traceback" in output:
            wrong[name] = f"exit {result.returncode}: {output[-1500:]}"
    return wrong


def test_every_cell_of_the_ledger_s_table_while_no_release_is_open(shop: Shop) -> None:
    assert table(shop, NONE_OPEN) == {}


def test_errors_after_the_shift_put_the_weights_back_in_the_same_update(shop: Shop) -> None:
    shop.push("v1.3.0", ERRORS_LATER)
    since = shop.load.outcomes[-1].due
    code, output = shop.up(tag="v1.3.0")
    assert code != 0
    assert "everything is back on blue (read back twice)" in output
    assert shop.weights() == {"blue": 100, "green": 0}
    hurt = shop.failed(since)
    # Broken on purpose: the new release's own 500s, until our probes have seen two and each node has followed the rule.
    assert {outcome.failure for outcome in hurt} <= {"http-500"}
    assert {outcome.release for outcome in hurt} <= {"v1.3.0"}
    assert len(hurt) < 16 * (15 + 15), Counter(outcome.failure for outcome in hurt)


def test_every_cell_of_the_ledger_s_table_while_a_release_is_open(shop: Shop) -> None:
    assert table(shop, OPEN) == {}
    code, output = shop.up(abort="v1.3.0")
    assert code == 0, output
    assert shop.replicas("green") == 0


def test_clients_load_balancer_and_database_tell_the_same_story(shop: Shop) -> None:
    """Run last: compare over everything that the tests before have done."""
    outcomes = shop.load.stop()
    assert len(outcomes) > 5000
    assert sum(outcome.stream == "long" for outcome in outcomes) > 500
    assert disagreements(outcomes, run.requests_since(shop.twin, shop.load.started - 1)) == []
    assert orders_lost_or_doubled(outcomes, run.stored_orders(shop.twin)) == []
    others = [outcome for outcome in outcomes if outcome.failure and outcome.failure != "http-500"]
    assert others == []
