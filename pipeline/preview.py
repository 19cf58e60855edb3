"""Open a pull request's preview (image, stack, an answering URL, one comment) and close it again."""

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
from dataclasses import dataclass, replace
from pathlib import Path

from infra.errors import ShopCatError
from infra.names import PREVIEW_REPOSITORY
from pipeline import comment, image, removal, stack, state
from pipeline.comment import PreviewComment
from pipeline.environment import aws_clients, source_directory
from pipeline.errors import PipelineError
from pipeline.github import Github
from pipeline.stack import POLICY_PACK, Stack
from pipeline.steps import BUDGET_SECONDS, Step, Steps, steps_table

ANSWER_SECONDS = 90
"""Longest wait for a URL once its pods are ready: the load balancer's nodes learn of a rule one by one."""
ANSWERS_IN_A_ROW = 10
_AFTER_PULUMI_SECONDS = 45
"""Time kept of the job's limit for Pulumi to end in order once interrupted (process.GRACE_SECONDS), and for the comment."""
_LEAST_SECONDS = 30
_COMMENT_SECONDS = 20
"""Time kept of the job's limit for the comment, whether the URL has answered or not."""
_BROKEN_RULE = "[mandatory]"
"""With it the engine names a rule of the policy pack that stops the update; which, it says before everything else."""
_INTERRUPTED = re.compile(r"^\s*Traceback \(most recent call last\):\n(?:.*\n)*?\s*KeyboardInterrupt\n", re.MULTILINE)
"""Traceback of the program when Pulumi ends it because another resource has failed."""


@dataclass
class PreviewJob:
    """A job for one pull request."""

    number: int
    environment: Mapping[str, str]
    steps: Steps
    most_seconds: float | None = None
    """Time for the work where the job has no limit of its own; None: no limit."""

    def _left_seconds(self, now: float) -> float | None:
        """Return the seconds until GitHub ends the job; None without a limit."""
        started = self.environment.get("SHOPCAT_STARTED")
        return float(started) + self._limit_seconds - now if started else None

    @property
    def _limit_seconds(self) -> float:
        return float(self.environment.get("SHOPCAT_LIMIT_SECONDS") or BUDGET_SECONDS)

    def deadline_seconds(self, now: float) -> float | None:
        """Return the seconds that Pulumi may take, so that the job's limit never ends it in the middle; None without one.

        Raises:
            ShopCatError: too few are left to begin.
        """
        left = self._left_seconds(now)
        if left is None:
            return self.most_seconds
        if left < _AFTER_PULUMI_SECONDS + _LEAST_SECONDS:
            raise PipelineError(
                f"{self._limit_seconds - left:.0f} s of the job's {self._limit_seconds:.0f} have passed, too many to "
                "begin with Pulumi: run the job again, it goes on with what is done"
            )
        return left - _AFTER_PULUMI_SECONDS

    def answer_seconds(self, now: float) -> float:
        """Return the longest wait for an answer that leaves time for the comment."""
        left = self._left_seconds(now)
        return ANSWER_SECONDS if left is None else min(ANSWER_SECONDS, max(left - _COMMENT_SECONDS, 0))

    def earlier_steps(self) -> list[Step]:
        """Return what the job did before this script began, as one step."""
        started = self.environment.get("SHOPCAT_STARTED")
        if not started:
            return []
        return [Step("packages, plugins, roles", time.time() - float(started) - self.steps.seconds)]

    def stack(self) -> Stack:
        """Return the pull request's stack.

        Raises:
            ShopCatError: no usable credentials.
        """
        backend = stack.preview_backend(self.number, self.environment, aws_clients())
        return stack.preview_stack(self.number, backend, self.environment)

    def run_url(self) -> str:
        """Return the URL of this run; empty outside GitHub."""
        run = self.environment.get("GITHUB_RUN_ID")
        return f"{self._repository_url()}/actions/runs/{run}" if run else ""

    def compare_url(self, former_sha: str, sha: str) -> str:
        """Return the URL that compares two commits; empty outside GitHub or without a former one."""
        url = self._repository_url()
        return f"{url}/compare/{former_sha}...{sha}" if url and former_sha else ""

    def _repository_url(self) -> str:
        repository = self.environment.get("GITHUB_REPOSITORY")
        server = self.environment.get("GITHUB_SERVER_URL", "https://github.com")
        return f"{server}/{repository}" if repository else ""

    def publish(self, content: PreviewComment) -> None:
        """Write the comment, with the job's steps and URL, below the pull request; outside GitHub print it."""
        content = replace(content, steps=[*self.earlier_steps(), *self.steps.done], run=self.run_url())
        github, text = Github.from_environment(self.environment), comment.render_comment(content)
        if github is None:
            print(f"\n{text}\n", flush=True)
            return
        try:
            github.write_comment(self.number, comment.COMMENT_MARKER, text, only_change=content.state == "closed")
        except ShopCatError as error:  # without the comment the preview is there all the same
            print(f"::warning title=comment::{error}", file=sys.stderr)


def up(job: PreviewJob, sha: str, *, pushed: bool, fresh: bool, wait: bool) -> str:
    """Open or update the preview; return its URL.

    Args:
        job: for this pull request.
        sha: the commit, and the image's tag.
        pushed: its image is in the repository already; none is built.
        fresh: build it without anything built before.
        wait: wait until the URL answers.

    Raises:
        ShopCatError: a step failed; the comment says which and why.
    """
    name, former_sha, former_url = f"pr-{job.number}", "", ""
    try:
        if not pushed:
            registry = image.RegistryClient(aws_clients(), PREVIEW_REPOSITORY)
            context = source_directory(job.environment)
            builder = image.choose_builder(job.environment)
            image.ensure_pushed(registry, builder, context, sha, job.steps, fresh=fresh)
        with job.steps.timed("stack"):
            pr_stack = job.stack()
            pr_stack.select_or_create()
            outputs = pr_stack.outputs()
            former_sha, former_url = str(outputs.get("tag", "")), str(outputs.get("url", ""))
        with job.steps.timed("pulumi up"):
            _bring_up(job, pr_stack, sha)
        with job.steps.timed("outputs"):
            url, changes = str(pr_stack.outputs()["url"]), pr_stack.changes()
        if wait:
            with job.steps.timed("answers"):
                wait_until_answering(url, job.answer_seconds(time.time()))
    except ShopCatError as error:
        failure = PreviewComment("failed", name, sha, url=former_url, former_sha=former_sha, message=str(error))
        job.publish(failure)
        raise
    finally:
        _record_times(job)
    compare = job.compare_url(former_sha, sha)
    job.publish(PreviewComment("open", name, sha, url=url, former_sha=former_sha, changes=changes, compare=compare))
    return url


def close(
    job: PreviewJob, *, reason: str = "", stale_after_seconds: float = 0, is_wanted: Callable[[], bool] = lambda: False
) -> bool:
    """Remove the preview and its images (pipeline/removal.py); return whether there was one.

    Args:
        job: for this pull request.
        reason: for the comment.
        stale_after_seconds: age from which on a lock is a killed update's.
        is_wanted: called right before anything is removed; true if the preview is to stay after all.

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
        seconds = job.deadline_seconds(time.time()) or removal.NAMESPACE_SECONDS
        existed = removal.remove_preview(clients, cluster, info, files, name, job.steps, seconds)
        with job.steps.timed("images"):
            _delete_images(job, tag)
    finally:
        _record_times(job)
    job.publish(PreviewComment("closed", name, message=reason))
    return existed


def _bring_up(job: PreviewJob, pr_stack: Stack, sha: str) -> None:
    """Run `pulumi up`; jobs of one pull request queue (preview.yml), so any lock is a killed update's.

    A rule of the policy pack that is broken ends it before the resource is made.
    """
    deadline = job.deadline_seconds(time.time())
    judged = ["up", "--policy-pack", POLICY_PACK, "-c", f"shopcat:tag={sha}"]
    finished = pr_stack.show(*judged, unlock=True, deadline_seconds=deadline)
    if finished.code != 0:
        raise PipelineError(_failure(finished.text, interrupted=finished.interrupted))


def _failure(text: str, *, interrupted: bool) -> str:
    """Return the part of the engine's output that explains a failure."""
    if interrupted:
        return (
            "Pulumi was interrupted, so that the job's time limit doesn't end it in the middle: run the job again, it goes on "
            "from there"
        )
    text = _INTERRUPTED.sub("", text)
    start = text.find("Policies:" if _BROKEN_RULE in text else "Diagnostics:")
    return (text[start:] if start >= 0 else text[-2000:]).strip()


def image_tags(deployed: str, commits: Sequence[str], open_heads: Sequence[str]) -> list[str]:
    """Return the tags of a closed pull request's images: all that it ran, without those that other previews may run."""
    return sorted({tag for tag in (deployed, *commits) if tag} - set(open_heads))


def _delete_images(job: PreviewJob, deployed: str) -> None:
    """Delete the preview's images, as far as possible: the repository's own rule deletes the rest two weeks later."""
    try:
        commits: list[str] = []
        heads: list[str] = []
        github = Github.from_environment(job.environment)
        if github is not None:
            commits = [str(commit["sha"]) for commit in github.list_items(f"/pulls/{job.number}/commits")]
            pull_requests = github.list_items("/pulls?state=open")
            heads = [str(other["head"]["sha"]) for other in pull_requests if other["number"] != job.number]
        registry = image.RegistryClient(aws_clients(), PREVIEW_REPOSITORY)
        deleted = registry.delete(image_tags(deployed, commits, heads))
        print(f"images deleted: {', '.join(deleted) or 'none'}", flush=True)
    except ShopCatError as error:
        print(f"::warning title=images::{error}", file=sys.stderr)


def wait_until_answering(url: str, timeout_seconds: float = ANSWER_SECONDS, pause_seconds: float = 0.2) -> None:
    """Wait until the page has come ten times in a row.

    By urllib.request, since it opens a connection for each request, so that several nodes of the load balancer answer, and goes
    through a runner's proxy.

    Raises:
        ShopCatError: not in time; with what came instead.
    """
    context = ssl.create_default_context()
    last, in_a_row, end = "nothing", 0, time.monotonic() + timeout_seconds
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(url, context=context, timeout=5) as answer:
                in_a_row, last = in_a_row + 1, f"HTTP {answer.status}"
        except urllib.error.HTTPError as error:
            in_a_row, last = 0, f"HTTP {error.code}"
        except (OSError, http.client.HTTPException) as error:
            in_a_row, last = 0, str(error) or type(error).__name__
        if in_a_row >= ANSWERS_IN_A_ROW:
            return
        time.sleep(pause_seconds if in_a_row == 0 else 0)
    raise PipelineError(
        f"{url} does not answer {timeout_seconds:.0f} s after its pods were ready; the last answer was "
        f"{last}: run the job again, and if that fails too, read the pods' log"
    )


def _record_times(job: PreviewJob) -> None:
    """Print the steps' times, and write them as JSON into the file that SHOPCAT_TIMES names."""
    done = [*job.earlier_steps(), *job.steps.done]
    print(f"\n{steps_table(done)}", flush=True)
    path = job.environment.get("SHOPCAT_TIMES")
    if path:
        Path(path).write_text(json.dumps({step.title: round(step.seconds, 1) for step in done}, indent=2) + "\n")
