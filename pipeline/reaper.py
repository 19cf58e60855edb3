"""Previews that were missed: their pull request is closed, or nobody has pushed to it for days.

Runs on a schedule from the main branch, so it is also what may write below pull requests from forks, whose own jobs may
not: it says there, once, how such a one gets a preview.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from infra.errors import Refused
from pipeline import comment, plan, preview, process, stack, surroundings
from pipeline.github import Github
from pipeline.plan import PullRequest
from pipeline.steps import Steps
from pipeline.surroundings import REPOSITORY

DAYS = 14
"""As long as the images in `shopcat-preview` are kept (infra/registry.py): an older preview could not start a pod again."""
STALE_LOCK_SECONDS = 3600
"""No job that opens or closes a preview lives longer than minutes."""
_NAME = re.compile(r"pr-([1-9][0-9]{0,8})")


@dataclass(frozen=True)
class Seen:
    """A preview's stack."""

    number: int
    updated: datetime | None
    """None: it was made, and never updated."""


def read(text: str) -> list[Seen]:
    """The previews in what `pulumi stack ls --json` says."""
    found = []
    for one in json.loads(text):
        match = _NAME.fullmatch(str(one["name"]).rpartition("/")[2])
        if match:
            updated = one.get("lastUpdate")
            found.append(Seen(int(match[1]), datetime.fromisoformat(updated) if updated else None))
    return sorted(found, key=lambda one: one.number)


def choose(seen: Sequence[Seen], wanted: set[int], now: datetime, days: int = DAYS) -> dict[int, str]:
    """Which previews to close, and why.

    Args:
        seen: every preview there is.
        wanted: pull requests that should have one.
        now: the present.
        days: how long one may go without an update.
    """
    chosen = {}
    for one in seen:
        if one.number not in wanted:
            chosen[one.number] = "its pull request is closed, or has the label that switches previews off"
        elif one.updated is not None and (now - one.updated).days >= days:
            chosen[one.number] = f"no push for {(now - one.updated).days} days; the next one opens it again"
    return chosen


def run(environment: Mapping[str, str], days: int) -> int:
    """Close what is to be closed; how many could not be.

    Raises:
        Refused: GitHub or the backend can't be asked.
    """
    github = Github.find(environment)
    if github is None:
        raise Refused("the reaper needs GITHUB_TOKEN and GITHUB_REPOSITORY, to ask which pull requests are open")
    clients, command = surroundings.clients(), ["pulumi", "stack", "ls", "--json", "--non-interactive"]
    # The previews first: a pull request opened in between is then no preview without a pull request.
    found: dict[int, Seen] = {}
    for number in stack.preview_numbers(environment, clients):
        where = stack.preview_backend(number, environment, clients)
        listed = read(process.capture(command, environment=where.environment, cwd=REPOSITORY))
        found |= {one.number: one for one in listed}
    seen = sorted(found.values(), key=lambda one: one.number)
    requests = [PullRequest.read(one) for one in github.pages("/pulls?state=open")]
    wanted = {one.number for one in requests if plan.decide(one) == "up"}
    failures = 0
    for number, reason in choose(seen, wanted, datetime.now(UTC), days).items():
        print(f"closing pr-{number}: {reason}", flush=True)
        try:
            job = preview.Job(number, environment, Steps())
            preview.close(job, stale_after_seconds=STALE_LOCK_SECONDS)
        except Refused as error:
            failures += 1
            print(f"::error title=pr-{number}::{error}", file=sys.stderr)
    for one in requests:
        if plan.decide(one) == "fork":
            github.comment(one.number, comment.MARKER, plan.WITHOUT["fork"].format(number=one.number))
    return failures
