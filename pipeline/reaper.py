"""Previews that were missed: their pull request is closed, nobody has pushed to it for days, or no stack owns their slot.

Runs on a schedule from the main branch, so it is also what may write below pull requests from forks, whose own jobs may
not: it says there, once, how such a one gets a preview.
"""

from __future__ import annotations

import functools
import random
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from infra.clients.aws import AwsClients
from infra.errors import ShopCatError
from infra.previews import slots
from infra.previews.slots import Leftovers, PreviewSlot, number_of_stack
from pipeline import comment, plan, preview, stack, state
from pipeline.environment import aws_clients
from pipeline.errors import PipelineError, StackLockedError
from pipeline.github import Github
from pipeline.plan import PullRequest
from pipeline.state import Files, PreviewStack
from pipeline.steps import Steps

DAYS = 14
"""As long as the images in `shopcat-preview` are kept (infra/foundation/registry.py): an older preview could not start a pod
again."""
STALE_LOCK_SECONDS = 3600
"""No job that opens or closes a preview lives longer than minutes."""
RUN_SECONDS = 1500
"""Time of one run; the workflow ends it after 30 minutes (.github/workflows/reaper.yml)."""
LEAST_SECONDS, MOST_SECONDS = 240, 600
"""Time that one preview may take: it needs the longest grace period and the half of it that Pulumi.pr.yaml explains."""


def choose_previews(seen: Sequence[PreviewStack], wanted: set[int], now: datetime, days: int = DAYS) -> dict[int, str]:
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
        elif (now - one.updated).days >= days:
            chosen[one.number] = f"no push for {(now - one.updated).days} days; the next one opens it again"
    return chosen


def share(left_seconds: float, previews: int) -> float:
    """Return what the next of so many previews may take of the time that is left, in seconds; 0 if that is too little.

    One that hangs takes its share and no other's. Where there are too many for one run, the order, which is drawn anew each
    time, gives every one its turn.
    """
    if left_seconds < LEAST_SECONDS:
        return 0
    return min(max(left_seconds / previews, LEAST_SECONDS), MOST_SECONDS)


def orphans(taken: Sequence[PreviewSlot], seen: Sequence[PreviewStack]) -> dict[int, str]:
    """Return the previews that hold a slot and have no stack: an update was killed before its state knew of the slot.

    A stack is there before its slot is taken, so none that is just being opened is among them if `taken` was read first.
    """
    holders = (number_of_stack(slot.stack) for slot in taken)
    there = {one.number for one in seen}
    return {number: "it holds a place and has no stack" for number in holders if number and number not in there}


def free_foreign(clients: AwsClients, contract: Mapping[str, Any], taken: Sequence[PreviewSlot]) -> None:
    """Free slots that no preview can have taken, since what holds them is no preview's name.

    Raises:
        ShopCatError: AWS says no.
    """
    for slot in taken:
        if number_of_stack(slot.stack) is None:
            print(f"freeing place {slot.number}, which {slot.stack!r} holds: that is no preview", flush=True)
            Leftovers.of(clients, slot.stack, contract).free_slot()


def is_to_stay(github: Github, files: Files, number: int, days: int) -> bool:
    """Whether a preview is not to be closed after all, as its pull request and its stack are at this moment.

    Raises:
        ShopCatError: GitHub or the backend can't be asked.
    """
    answer = github.pull_request(number)
    wanted = {number} if answer is not None and plan.decide_job(PullRequest.read(answer)) == "up" else set()
    there = [one for one in state.preview_stacks(files) if one.number == number]
    return bool(there) and number not in choose_previews(there, wanted, datetime.now(UTC), days)


def reap(environment: Mapping[str, str], days: int) -> int:
    """Close what is to be closed; how many could not be.

    Raises:
        ShopCatError: GitHub or the backend can't be asked.
    """
    github = Github.find(environment)
    if github is None:
        raise PipelineError("the reaper needs GITHUB_TOKEN and GITHUB_REPOSITORY, to ask which pull requests are open")
    clients = aws_clients()
    contract = stack.cluster_info(clients)
    taken = slots.read_slots(clients, contract["placesTable"])
    free_foreign(clients, contract, taken)
    # The previews first: a pull request opened in between is then no preview without a pull request.
    seen = state.preview_stacks(stack.preview_files(environment, clients))
    requests = [PullRequest.read(one) for one in github.pages("/pulls?state=open")]
    wanted = {one.number for one in requests if plan.decide_job(one) == "up"}
    failures = 0
    chosen = {**choose_previews(seen, wanted, datetime.now(UTC), days), **orphans(taken, seen)}
    end = time.monotonic() + RUN_SECONDS
    order = random.sample(sorted(chosen), len(chosen))
    for done, number in enumerate(order):
        seconds = share(end - time.monotonic(), len(order) - done)
        if not seconds:
            print(
                f"no time is left: {', '.join(f'pr-{one}' for one in order[done:])} stay until the next run", flush=True
            )
            break
        print(f"closing pr-{number}: {chosen[number]}", flush=True)
        try:
            files = stack.preview_files(environment, clients, number)
            stays = functools.partial(is_to_stay, github, files, number, days)
            job = preview.PreviewJob(number, environment, Steps(), seconds)
            preview.close(job, stale_after_seconds=STALE_LOCK_SECONDS, is_wanted=stays)
        except StackLockedError as error:
            print(f"pr-{number} stays until the next run: {error}", flush=True)
        except Exception as error:  # whatever one pull request has written, the others are closed
            failures += 1
            print(
                f"::error title=pr-{number}::{error if isinstance(error, ShopCatError) else repr(error)}",
                file=sys.stderr,
            )
    for one in requests:
        if plan.decide_job(one) == "fork":
            github.comment(one.number, comment.COMMENT_MARKER, plan.WITHOUT["fork"].format(number=one.number))
    return failures
