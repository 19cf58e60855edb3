"""Close previews that were missed: the pull request is closed, nobody has pushed to it for days, or no stack owns the slot.

It runs on a schedule from the main branch, so it may also write below pull requests from forks, whose own jobs may not: one
comment says how such a pull request gets a preview.
"""

from __future__ import annotations

import functools
import random
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from infra.clients.aws import AwsClients, explain
from infra.errors import ShopCatError
from infra.names import METRICS_NAMESPACE, UNCLOSED_METRIC
from infra.previews import slots
from infra.previews.slots import Leftovers, PreviewSlot, number_of_stack
from pipeline import comment, plan, preview, stack, state
from pipeline.environment import aws_clients, is_monitored
from pipeline.errors import PipelineError, StackLockedError
from pipeline.github import Github
from pipeline.plan import PullRequest
from pipeline.state import Files, PreviewStack
from pipeline.steps import Steps

DAYS = 14
"""Longest time without a push: the lifetime of the images in `shopcat-preview` (infra/foundation/registry.py). An older preview
could not start a pod again."""
STALE_LOCK_SECONDS = 3600
"""Age from which on a lock is a killed update's: no job that opens a preview lives longer than minutes."""
RUN_SECONDS = 1500
"""Time of one run; the workflow ends it after 30 minutes (.github/workflows/reaper.yml)."""
LEAST_SECONDS, MOST_SECONDS = 240, 600
"""Time that one preview may take: it needs the longest grace period and the half of it that Pulumi.pr.yaml explains."""


def choose_previews(stacks: Sequence[PreviewStack], wanted: set[int], now: datetime) -> dict[int, str]:
    """Return the previews to close, with the reason of each.

    Args:
        stacks: of every preview.
        wanted: pull requests that should have a preview.
        now: the present.
    """
    chosen = {}
    for preview_stack in stacks:
        idle_days = (now - preview_stack.updated).days
        if preview_stack.number not in wanted:
            chosen[preview_stack.number] = "its pull request is closed, or has the label that switches previews off"
        elif idle_days >= DAYS:
            chosen[preview_stack.number] = f"no push for {idle_days} days; the next one opens it again"
    return chosen


def share_seconds(left_seconds: float, previews: int) -> float:
    """Return the next preview's share of the time that is left, among so many previews; 0 if it is too short.

    A preview that hangs takes its own share alone. Where there are too many for one run, the random order gives each its turn.
    """
    if left_seconds < LEAST_SECONDS:
        return 0
    return min(max(left_seconds / previews, LEAST_SECONDS), MOST_SECONDS)


def orphans(taken_slots: Sequence[PreviewSlot], stacks: Sequence[PreviewStack]) -> dict[int, str]:
    """Return the previews that hold a slot and have no stack: an update was killed before its state knew of the slot.

    A stack exists before its slot is taken, so if the slots were read first, no preview that is being opened is among them.
    """
    holders = (number_of_stack(slot.stack) for slot in taken_slots)
    numbers = {preview_stack.number for preview_stack in stacks}
    return {number: "it holds a place and has no stack" for number in holders if number and number not in numbers}


def free_foreign(clients: AwsClients, info: Mapping[str, Any], taken_slots: Sequence[PreviewSlot]) -> None:
    """Free slots whose holder is no preview's name.

    Raises:
        ShopCatError: AWS refuses.
    """
    for slot in taken_slots:
        if number_of_stack(slot.stack) is None:
            print(f"freeing place {slot.number}, which {slot.stack!r} holds: that is no preview", flush=True)
            Leftovers.of(clients, slot.stack, info).free_slot()


def is_to_stay(github: Github, files: Files, number: int) -> bool:
    """Return true if a preview is to stay after all, by its pull request and its stack at this moment.

    Raises:
        ShopCatError: GitHub or the backend can't be asked.
    """
    answer = github.pull_request(number)
    wanted = {number} if answer is not None and plan.decide_job(PullRequest.read(answer)) == "up" else set()
    stacks = [preview_stack for preview_stack in state.preview_stacks(files) if preview_stack.number == number]
    return bool(stacks) and number not in choose_previews(stacks, wanted, datetime.now(UTC))


def reap(environment: Mapping[str, str]) -> int:
    """Close the previews that were missed; return how many could not be closed, and tell CloudWatch where that is watched.

    Raises:
        ShopCatError: GitHub or the backend can't be asked.
    """
    github = Github.from_environment(environment)
    if github is None:
        raise PipelineError(
            "set GITHUB_TOKEN and GITHUB_REPOSITORY: the reaper asks GitHub which pull requests are open"
        )
    clients = aws_clients()
    info = stack.cluster_info(clients)
    taken_slots = slots.read_slots(clients, info["placesTable"])
    free_foreign(clients, info, taken_slots)
    # Stacks before pull requests: one that is opened in between is then no stack without a pull request.
    stacks = state.preview_stacks(stack.preview_files(environment, clients))
    pull_requests = [PullRequest.read(item) for item in github.list_items("/pulls?state=open")]
    wanted = {pull_request.number for pull_request in pull_requests if plan.decide_job(pull_request) == "up"}
    failures = 0
    chosen = {**choose_previews(stacks, wanted, datetime.now(UTC)), **orphans(taken_slots, stacks)}
    end = time.monotonic() + RUN_SECONDS
    order = random.sample(sorted(chosen), len(chosen))
    for done, number in enumerate(order):
        seconds = share_seconds(end - time.monotonic(), len(order) - done)
        if not seconds:
            print(
                f"no time is left: {', '.join(f'pr-{later}' for later in order[done:])} stay until the next run",
                flush=True,
            )
            break
        print(f"closing pr-{number}: {chosen[number]}", flush=True)
        try:
            files = stack.preview_files(environment, clients, number)
            stays = functools.partial(is_to_stay, github, files, number)
            job = preview.PreviewJob(number, environment, Steps(), seconds)
            preview.close(job, stale_after_seconds=STALE_LOCK_SECONDS, is_wanted=stays)
        except StackLockedError as error:
            print(f"pr-{number} stays until the next run: {error}", flush=True)
        except Exception as error:  # whatever a pull request has written, the others are closed
            failures += 1
            print(
                f"::error title=pr-{number}::{error if isinstance(error, ShopCatError) else repr(error)}",
                file=sys.stderr,
            )
    for pull_request in pull_requests:
        if plan.decide_job(pull_request) == "fork":
            text = plan.NO_PREVIEW_REASONS["fork"].format(number=pull_request.number)
            github.write_comment(pull_request.number, comment.COMMENT_MARKER, text)
    if is_monitored():
        write_metric(clients, failures)
    return failures


def write_metric(clients: AwsClients, failures: int) -> None:
    """Write how many previews could not be closed; infra/foundation/alarms.py has the alarm.

    Raises:
        ShopCatError: CloudWatch doesn't take it.
    """
    datum = {"MetricName": UNCLOSED_METRIC, "Value": failures, "Unit": "Count"}
    try:
        clients.get("cloudwatch").put_metric_data(Namespace=METRICS_NAMESPACE, MetricData=[datum])
    except (BotoCoreError, ClientError) as error:
        raise explain(error, f"metric {METRICS_NAMESPACE}/{UNCLOSED_METRIC}", clients.endpoint_url) from error
