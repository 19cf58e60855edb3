"""An update that is killed right after AWS has carried out a call, before its answer is in any state; nodes are simulated."""

import json
import os
import subprocess
import urllib.request
from collections.abc import Mapping

import pytest

from twin.config import Twin
from twin.paths import REPOSITORY
from twin.scenarios import preview, production
from twin.scenarios.leftovers import declared

pytestmark = pytest.mark.engine

SHA = "d" * 40
EVERY_CALL = bool(os.environ.get("SHOPCAT_KILLS"))
"""`make kills`; otherwise a few of them, for the sake of time."""


def killed(
    twin: Twin, arguments: list[str], environment: Mapping[str, str], after: int, **where: str
) -> tuple[bool, str]:
    """Run `pulumi` and kill it with its plugins and program once AWS has carried out so many calls that change something.

    Returns:
        Whether it came to that, and what was said.
    """
    process = subprocess.Popen(
        ["sh", "-c", 'read go && exec pulumi "$@"', "sh", *arguments, "--non-interactive", "--yes", "--skip-preview"],
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    fault = {"kind": "kill", "session": process.pid, "after": after, "seconds": 600, **where}
    url = f"{twin.aws_endpoint}/twin/faults"
    urllib.request.urlopen(urllib.request.Request(url, json.dumps(fault).encode(), method="POST")).close()
    try:
        said, _ = process.communicate(b"go\n", timeout=500)
    finally:
        urllib.request.urlopen(urllib.request.Request(url, method="DELETE")).close()
    return process.returncode == -9, said.decode()


def kill_up(twin: Twin, number: int, after: int) -> bool:
    """Push an image and kill the preview's `up`; its lock is taken away, as its next job does."""
    stack = f"pr-{number}"
    production.push_image(twin, REPOSITORY / "twin" / "application", SHA, preview.REPOSITORY_NAME)
    preview.select(twin, stack)
    arguments = ["up", "-s", stack, "-c", f"shopcat:tag={SHA}"]
    done, _ = killed(twin, arguments, preview.environment(twin, stack), after)
    preview.run(twin, stack, "cancel", stack, "--yes", capture=True)
    return done


def test_a_preview_killed_after_any_call_comes_up_by_the_next_update_and_leaves_nothing(simulated: Twin) -> None:
    """Every call that changes something in AWS in turn, until an update needs none more; in CI only some of them."""
    parts: list[set[str]] = []
    for after in range(1, 30) if EVERY_CALL else (1, 4, 6):
        number = 60 + after
        if not kill_up(simulated, number, after):
            break
        parts.append({*declared(simulated, number)})
        assert parts[-1]
        result = preview.run(
            simulated, f"pr-{number}", "up", "-s", f"pr-{number}", "--yes", "--skip-preview", capture=True, check=False
        )
        assert result.returncode == 0, f"killed after call {after}, {parts[-1]}: {result.stdout}{result.stderr}"
        assert {*declared(simulated, number)} == {"namespaces", "target groups", "rules", "secrets", "places"}
        # The engine writes such a file in two steps, and a stack whose own is empty can't be read any more.
        assert not [*(simulated.directory / "pulumi-state-previews").rglob("*.attrs")]
        preview.close(simulated, number)
        assert declared(simulated, number) == {}
    assert {"places"} in parts
    if EVERY_CALL:
        assert {"places", "target groups", "rules"} <= parts[-1]
    assert len(parts) > (5 if EVERY_CALL else 2)


@pytest.mark.parametrize("after", [1, 2, 3, 5] if EVERY_CALL else [3])
def test_a_preview_killed_and_closed_at_once_leaves_nothing(simulated: Twin, after: int) -> None:
    assert kill_up(simulated, 50 + after, after)
    assert declared(simulated, 50 + after)
    preview.close(simulated, 50 + after)
    assert declared(simulated, 50 + after) == {}
