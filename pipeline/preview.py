"""A pull request's preview: image, stack, an answering URL, one comment; and all of it taken away again."""

from __future__ import annotations

import http.client
import json
import re
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.errors import ShopCatError
from infra.names import PREVIEW_REPOSITORY
from pipeline import comment, image, removal, stack, state
from pipeline.environment import aws_clients, source_directory
from pipeline.errors import PipelineError
from pipeline.github import Github
from pipeline.stack import Stack
from pipeline.steps import BUDGET_SECONDS, Step, Steps, steps_table

ANSWER_SECONDS = 90
"""How long a URL may take to answer once its pods are ready: the load balancer's nodes learn of a rule one by one."""
ROW = 10
_AFTER_PULUMI_SECONDS = 45
"""Kept of the job's time: for Pulumi to end in order once interrupted (process.GRACE_SECONDS), and for the comment."""
_LEAST_SECONDS = 30
_COMMENT_SECONDS = 20
"""Kept of the job's time for the comment, whatever came of the wait for an answer."""
_INTERRUPTED = re.compile(r"^\s*Traceback \(most recent call last\):\n(?:.*\n)*?\s*KeyboardInterrupt\n", re.MULTILINE)
"""What the program says when Pulumi ends it, because another resource has failed."""


@dataclass
class PreviewJob:
    """One run for one pull request."""

    number: int
    environment: Mapping[str, str]
    steps: Steps
    most_seconds: float | None = None
    """What Pulumi may take where the job's own limit doesn't say."""

    def _left_seconds(self, now: float) -> float | None:
        """Until the job is cut off; None if it isn't."""
        started = self.environment.get("SHOPCAT_STARTED")
        return float(started) + self._limit_seconds - now if started else None

    @property
    def _limit_seconds(self) -> float:
        return float(self.environment.get("SHOPCAT_LIMIT_SECONDS") or BUDGET_SECONDS)

    def deadline_seconds(self, now: float) -> float | None:
        """What Pulumi may take so that the job, which is cut off at its limit, is never cut off in the middle of it.

        Raises:
            ShopCatError: so little that it isn't begun.
        """
        left = self._left_seconds(now)
        if left is None:
            return self.most_seconds
        if left < _AFTER_PULUMI_SECONDS + _LEAST_SECONDS:
            raise PipelineError(
                f"{self._limit_seconds - left:.0f} s of the job's {self._limit_seconds:.0f} are over already, "
                "so nothing more is begun: run the job again, it finds more of its work done"
            )
        return left - _AFTER_PULUMI_SECONDS

    def answer_seconds(self, now: float) -> float:
        """How long to wait for an answer, so that what came of it is still told."""
        left = self._left_seconds(now)
        return ANSWER_SECONDS if left is None else min(ANSWER_SECONDS, max(left - _COMMENT_SECONDS, 0))

    def before(self) -> list[Step]:
        """What the job did before this script began, as one step."""
        started = self.environment.get("SHOPCAT_STARTED")
        if not started:
            return []
        return [Step("packages, plugins, roles", time.time() - float(started) - self.steps.seconds)]

    def stack(self) -> Stack:
        """The stack.

        Raises:
            ShopCatError: no usable credentials.
        """
        where = stack.preview_backend(self.number, self.environment, aws_clients())
        return stack.preview_stack(self.number, where, self.environment)

    def run_url(self) -> str:
        """Where this run is seen; empty by hand."""
        run = self.environment.get("GITHUB_RUN_ID")
        return f"{self._repository_url()}/actions/runs/{run}" if run else ""

    def compare_url(self, before: str, sha: str) -> str:
        """Where what changed is seen; empty by hand."""
        url = self._repository_url()
        return f"{url}/compare/{before}...{sha}" if url and before else ""

    def _repository_url(self) -> str:
        repository = self.environment.get("GITHUB_REPOSITORY")
        server = self.environment.get("GITHUB_SERVER_URL", "https://github.com")
        return f"{server}/{repository}" if repository else ""

    def say(self, found: comment.PreviewComment) -> None:
        """Put the comment below the pull request; by hand, print it."""
        github, text = Github.find(self.environment), comment.render_comment(found)
        if github is None:
            print(f"\n{text}\n", flush=True)
            return
        try:
            github.comment(self.number, comment.COMMENT_MARKER, text, only_change=found.state == "closed")
        except ShopCatError as error:  # the preview is what counts
            print(f"::warning title=comment::{error}", file=sys.stderr)


def up(job: PreviewJob, sha: str, *, pushed: bool, fresh: bool, wait: bool) -> str:
    """Open or update the preview; its URL.

    Args:
        job: the run.
        sha: the commit, and the image's tag.
        pushed: its image is there already; none is built.
        fresh: build it without anything built before.
        wait: until the URL answers.

    Raises:
        ShopCatError: a step failed; the comment says which and why.
    """
    before: dict[str, Any] = {}
    url, changes = "", {}
    name = f"pr-{job.number}"
    try:
        if not pushed:
            registry = image.RegistryClient(aws_clients(), PREVIEW_REPOSITORY)
            context = source_directory(job.environment)
            image.ensure_pushed(registry, image.builder(job.environment), context, sha, job.steps, fresh=fresh)
        with job.steps.timed("stack"):
            made = job.stack()
            made.select_or_create()
            before = made.outputs()
        with job.steps.timed("pulumi up"):
            _bring_up(job, made, sha)
        with job.steps.timed("outputs"):
            url, changes = str(made.outputs()["url"]), made.changes()
        if wait:
            with job.steps.timed("answers"):
                wait_until_answering(url, job.answer_seconds(time.time()))
    except ShopCatError as error:
        job.say(
            comment.PreviewComment(
                "failed",
                name,
                sha,
                url=str(before.get("url", "")),
                before=str(before.get("tag", "")),
                steps=[*job.before(), *job.steps.done],
                message=str(error),
                run=job.run_url(),
            )
        )
        raise
    finally:
        _record_times(job)
    old = str(before.get("tag", ""))
    job.say(
        comment.PreviewComment(
            "open",
            name,
            sha,
            url=url,
            before=old,
            changes=changes,
            steps=[*job.before(), *job.steps.done],
            run=job.run_url(),
            compare=job.compare_url(old, sha),
        )
    )
    return url


def close(
    job: PreviewJob, *, reason: str = "", stale_after_seconds: float = 0, is_wanted: Callable[[], bool] = lambda: False
) -> bool:
    """Remove the preview and its images (pipeline/removal.py); return whether there was one.

    Args:
        job: the run.
        reason: why, for the comment.
        stale_after_seconds: how old a lock is that is a dead update's.
        is_wanted: asked right before anything is removed: whether the preview is to stay after all.

    Raises:
        StackLockedError: an update may be running; nothing was touched.
        ShopCatError: something could not be removed.
    """
    clients, name = aws_clients(), f"pr-{job.number}"
    info, files = stack.cluster_info(clients), stack.preview_files(job.environment, clients, job.number)
    try:
        state.refuse_running(files, name, stale_after_seconds)
        if is_wanted():
            print(f"{name} is wanted again, so it stays", flush=True)
            return False
        cluster = removal.cluster(clients, info)
        tag = removal.deployed_tag(cluster, name)
        left = job.deadline_seconds(time.time()) or removal.NAMESPACE_SECONDS
        there = removal.remove_preview(clients, cluster, info, files, name, job.steps, left)
        with job.steps.timed("images"):
            _delete_images(job, tag)
    finally:
        _record_times(job)
    job.say(comment.PreviewComment("closed", name, message=reason))
    return there


def _bring_up(job: PreviewJob, made: Stack, sha: str) -> None:
    """Jobs of one pull request run one after the other (preview.yml), so for them any lock is a dead one's."""
    deadline = job.deadline_seconds(time.time())
    finished = made.show("up", "-c", f"shopcat:tag={sha}", unlock=True, deadline_seconds=deadline)
    if finished.code != 0:
        raise PipelineError(_failure(finished.text, interrupted=finished.interrupted))


def _failure(text: str, *, interrupted: bool) -> str:
    """The part of the engine's output that says what went wrong."""
    if interrupted:
        return (
            "Pulumi was interrupted, so that the job's time limit doesn't cut it off in the middle: run the job again, "
            "it goes on where it was"
        )
    text = _INTERRUPTED.sub("", text)
    start = text.find("Diagnostics:")
    return (text[start:] if start >= 0 else text[-2000:]).strip()


def image_tags(deployed: str, commits: Sequence[str], open_heads: Sequence[str]) -> list[str]:
    """Tags of a closed pull request's images: what it ran and all its commits, without what other previews may run."""
    return sorted({tag for tag in (deployed, *commits) if tag} - set(open_heads))


def _delete_images(job: PreviewJob, deployed: str) -> None:
    """Best effort: what stays is deleted by the repository's own rule two weeks later."""
    try:
        commits: list[str] = []
        heads: list[str] = []
        github = Github.find(job.environment)
        if github is not None:
            commits = [str(one["sha"]) for one in github.pages(f"/pulls/{job.number}/commits")]
            others = (one for one in github.pages("/pulls?state=open") if one["number"] != job.number)
            heads = [str(one["head"]["sha"]) for one in others]
        registry = image.RegistryClient(aws_clients(), PREVIEW_REPOSITORY)
        gone = registry.delete(image_tags(deployed, commits, heads))
        print(f"images deleted: {', '.join(gone) or 'none'}", flush=True)
    except ShopCatError as error:
        print(f"::warning title=images::{error}", file=sys.stderr)


def wait_until_answering(url: str, timeout_seconds: float = ANSWER_SECONDS, pause_seconds: float = 0.2) -> None:
    """Until the page has come ten times in a row.

    Raises:
        ShopCatError: not in time; with what came instead.
    """
    context = ssl.create_default_context()
    last, row, end = "nothing", 0, time.monotonic() + timeout_seconds
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(url, context=context, timeout=5) as answer:
                row, last = row + 1, f"HTTP {answer.status}"
        except urllib.error.HTTPError as error:
            row, last = 0, f"HTTP {error.code}"
        except (OSError, http.client.HTTPException) as error:
            row, last = 0, str(error) or type(error).__name__
        if row >= ROW:
            return
        time.sleep(pause_seconds if row == 0 else 0)
    raise PipelineError(f"{url} does not answer {timeout_seconds:.0f} s after its pods were ready: last came {last}")


def _record_times(job: PreviewJob) -> None:
    """The steps' times: for a person, and as JSON where the environment asks for it."""
    done = [*job.before(), *job.steps.done]
    print(f"\n{steps_table(done)}", flush=True)
    path = job.environment.get("SHOPCAT_TIMES")
    if path:
        Path(path).write_text(json.dumps({one.title: round(one.seconds, 1) for one in done}, indent=2) + "\n")
