"""The first step of a job: what is to be done, and whether this runner can do it (`python3 -m pipeline.plan`).

It needs Python alone, so it speaks before anything is installed. What is to be done follows from how the pull request
stands now, never from which event came: of several events that wait, GitHub keeps only the last one
(docs.github.com/actions/how-tos/write-workflows/choose-when-workflows-run/control-workflow-concurrency), and a job that is
run again gets the event that it had. So the event says which pull request and which commit, and GitHub's API the rest.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from infra.errors import ShopCatError
from infra.names import MAIN_BRANCH
from pipeline.errors import PipelineError
from pipeline.github import Github

MAIN = f"refs/heads/{MAIN_BRANCH}"
OFF_LABEL = "no-preview"
"""Closes the preview of the pull request that has it; without it again, the preview comes back."""

PRODUCTION_FILE = Path(__file__).resolve().parent.parent / "Pulumi.prod.yaml"
_REPOSITORY_LINE = re.compile(r"^[^#\n]*\brepository:[ \t]*[\"']?([A-Za-z0-9-]+/[A-Za-z0-9._-]+)", re.MULTILINE)
"""Of `shopcat:github`."""
_API_ACCESS = re.compile(r"^  shopcat:apiAccess:[ \t]*[\"']?([a-z]+)[\"']?[ \t]*(?:#.*)?$", re.MULTILINE)

Action = Literal["up", "close", "fork", "none", "later"]

ASKED, PAUSE_SECONDS = 3, 2.0
"""How often GitHub's API is asked for a commit that it doesn't know of yet."""
LEAST_NUMBER = 10
"""A session of the previews' role is named by its pull request, and AWS wants two characters (infra/access/iam_policies.py)."""


@dataclass(frozen=True)
class PullRequest:
    """A pull request as an event or the API tells of it."""

    number: int
    sha: str
    open: bool
    fork: bool
    base: str
    """The branch it is to be merged into."""
    labels: tuple[str, ...] = ()

    @classmethod
    def read(cls, event: Mapping[str, Any]) -> PullRequest:
        """From an event's payload, or from the API (docs.github.com/rest/pulls/pulls).

        Raises:
            ShopCatError: there is none in it.
        """
        try:
            found = event.get("pull_request", event)
            head = found["head"]
            return cls(
                number=int(found["number"]),
                sha=str(head["sha"]),
                open=found["state"] == "open",
                # GitHub writes a name as whoever asks spelt it, so letter case says nothing.
                fork=_folded(head["repo"]) != _folded(found["base"]["repo"]),
                base=str(found["base"]["ref"]),
                labels=tuple(str(one["name"]) for one in found["labels"]),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise PipelineError(
                f"the event names no pull request ({error!r}); run this on pull_request alone"
            ) from error


def _folded(repository: Mapping[str, Any] | None) -> str | None:
    """Name of a repository as it is compared; None if it is gone, as a fork's may be."""
    return None if repository is None else str(repository["full_name"]).casefold()


def decide_job(found: PullRequest) -> Action:
    """What its preview should be like from now on."""
    if found.fork:
        return "fork"
    if found.number < LEAST_NUMBER:
        return "none"
    return "up" if found.open and found.base == MAIN_BRANCH and OFF_LABEL not in found.labels else "close"


def read_event(environment: Mapping[str, str]) -> PullRequest:
    """The pull request as it was at the event that started this job.

    Raises:
        ShopCatError: there is none.
    """
    path = environment.get("GITHUB_EVENT_PATH")
    if not path:
        raise PipelineError("GITHUB_EVENT_PATH is not set: outside a workflow, give --number and --sha")
    try:
        found: dict[str, Any] = json.loads(Path(path).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise PipelineError(f"GITHUB_EVENT_PATH={path} can't be read ({error}); run the job again") from error
    return PullRequest.read(found)


def current(environment: Mapping[str, str], pause_seconds: float = PAUSE_SECONDS) -> tuple[PullRequest, PullRequest]:
    """The pull request of this job's event, as it was then and as it is now; the same where there is no GitHub to ask.

    GitHub's API may be a moment behind the push that started the job, so another commit than the event's is asked for again.

    Raises:
        ShopCatError: there is none, or GitHub can't be asked.
    """
    then, github = read_event(environment), Github.find(environment)
    if github is None:
        return then, then
    for attempt in range(ASKED):
        answer = github.pull_request(then.number)
        if answer is None:
            raise PipelineError(f"GitHub: {github.repository} has no pull request {then.number}; nothing is done")
        now = PullRequest.read(answer)
        if now.sha == then.sha:
            break
        if attempt + 1 < ASKED:
            time.sleep(pause_seconds)
    return then, now


def decide_now(then: PullRequest, now: PullRequest) -> Action:
    """What this job is to do: nothing, if the pull request has moved on to a commit that has a job of its own."""
    return decide_job(now) if now.sha == then.sha else "later"


def api_access(text: str) -> str:
    """`shopcat:apiAccess` in the text of Pulumi.prod.yaml; a line of its own there, as the committed file has it.

    Raises:
        ShopCatError: there is no such line.
    """
    found = _API_ACCESS.findall(text)
    if len(found) != 1:
        count = "two lines" if found else "no line"
        raise PipelineError(
            f"Pulumi.prod.yaml has {count} `  shopcat:apiAccess: …`; set it once, to public, cidrs or private"
        )
    return str(found[0])


def kept_out(access: str, environment: Mapping[str, str], variable: str) -> str:
    """Why this runner can't reach the Kubernetes API; empty if nothing says so.

    Args:
        access: `shopcat:apiAccess`.
        environment: of the job.
        variable: the repository's, which names this job's runner.
    """
    if access == "public" or environment.get("RUNNER_ENVIRONMENT") != "github-hosted":
        return ""
    where = {"cidrs": "from the networks of shopcat:apiAccessCidrs", "private": "from inside the VPC"}.get(access, "")
    return (
        f"shopcat:apiAccess is {access}: the Kubernetes API is reached only {where}, and this runner is GitHub's, whose "
        f"address is any. Set the repository variable {variable} to the label of a self-hosted runner in there, or "
        "shopcat:apiAccess to public (IAM alone decides then)"
    )


def spelt_otherwise(text: str, environment: Mapping[str, str]) -> str:
    """Return why AWS would trust none of this repository's jobs, though GitHub takes the name; empty if it would.

    Args:
        text: of Pulumi.prod.yaml.
        environment: of the job.
    """
    match, known = _REPOSITORY_LINE.search(text), environment.get("GITHUB_REPOSITORY", "")
    if match is None or match[1] == known or match[1].casefold() != known.casefold():
        return ""
    return (
        f"shopcat:github.repository is {match[1]}, but GitHub spells it {known}, and AWS compares letter case: set it to "
        f"{known} in Pulumi.prod.yaml and run pulumi up -s prod"
    )


WITHOUT: Mapping[Action, str] = {
    "fork": (
        "This pull request comes from a fork, so its workflow gets no credentials and there is no preview. Someone who may "
        "push here can read it and open one: `gh pr checkout {number}`, then `git push origin HEAD:preview/{number}`, and a "
        "pull request from that branch."
    ),
    "later": "Pull request {number} has another commit by now, whose own run does it; nothing is done here.",
    "none": "The first nine pull requests of a repository get no preview (pipeline/plan.py says why).",
}
"""Why nothing is done, for people."""


def main(arguments: Sequence[str]) -> int:
    """Write `action` for the steps that follow, and when the job began; with ``access`` ask about the runner alone."""
    environment = os.environ
    try:
        if list(arguments) == ["access"]:
            _refuse_kept_out(environment, "RUNNER_PRODUCTION")
            return 0
        found, action = _plan_job(environment)
    except ShopCatError as error:
        print(f"::error title=pipeline::{error}")
        return 1
    print(f"pull request {found.number} at {found.sha}: {action}")
    if action in WITHOUT:
        print(f"::notice title=preview::{WITHOUT[action].format(number=found.number)}")
    _append_line(environment.get("GITHUB_OUTPUT"), f"action={action}")
    _append_line(environment.get("GITHUB_ENV"), f"SHOPCAT_STARTED={int(time.time())}")
    return 0


def _plan_job(environment: Mapping[str, str]) -> tuple[PullRequest, Action]:
    found, now = current(environment)
    action = decide_now(found, now)
    if action not in WITHOUT:
        _refuse_kept_out(environment, "RUNNER_PRODUCTION" if environment.get("GITHUB_REF") == MAIN else "RUNNER")
    return found, action


def _refuse_kept_out(environment: Mapping[str, str], variable: str) -> None:
    text = PRODUCTION_FILE.read_text(errors="replace")
    reason = kept_out(api_access(text), environment, variable) or spelt_otherwise(text, environment)
    if reason:
        raise PipelineError(reason)


def _append_line(path: str | None, line: str) -> None:
    if path:
        with Path(path).open("a") as file:
            file.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
