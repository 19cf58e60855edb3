"""First step of a job: decide what it does, and whether this runner can do it (`python3 -m pipeline.plan`).

It needs Python alone, since nothing is installed yet. The state of the pull request now decides, never the event: of several
events that wait, GitHub keeps only the last one
(docs.github.com/actions/how-tos/write-workflows/choose-when-workflows-run/control-workflow-concurrency), and a job that is
run again gets the event that it had. So the event names the pull request and the commit, and GitHub's API the rest.
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
"""Repository in `shopcat:github`; no YAML parser is installed yet."""
_API_ACCESS = re.compile(r"^  shopcat:apiAccess:[ \t]*[\"']?([a-z]+)[\"']?[ \t]*(?:#.*)?$", re.MULTILINE)

Action = Literal["up", "close", "fork", "none", "later"]

COMMIT_ATTEMPTS, PAUSE_SECONDS = 3, 2.0
"""Requests to GitHub's API for a commit that it doesn't know yet, and the pause between them."""
LEAST_NUMBER = 10
"""Lowest pull request with a preview: its number names a session of the previews' role, and AWS wants two characters
(infra/access/iam_policies.py)."""


@dataclass(frozen=True)
class PullRequest:
    """A pull request as an event or GitHub's API describes it."""

    number: int
    sha: str
    open: bool
    fork: bool
    base: str
    """Branch that it is to be merged into."""
    labels: tuple[str, ...] = ()

    @classmethod
    def read(cls, event: Mapping[str, Any]) -> PullRequest:
        """Read a pull request from an event's payload, or from the API's answer (docs.github.com/rest/pulls/pulls).

        Raises:
            ShopCatError: there is none in it.
        """
        try:
            pull_request = event.get("pull_request", event)
            head, base = pull_request["head"], pull_request["base"]
            return cls(
                number=int(pull_request["number"]),
                sha=str(head["sha"]),
                open=pull_request["state"] == "open",
                # GitHub spells a name as the request did, so letter case means nothing.
                fork=_folded(head["repo"]) != _folded(base["repo"]),
                base=str(base["ref"]),
                labels=tuple(str(label["name"]) for label in pull_request["labels"]),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise PipelineError(
                f"the event names no pull request ({error!r}); run this on pull_request alone"
            ) from error


def _folded(repository: Mapping[str, Any] | None) -> str | None:
    """Return a repository's name for a comparison; None if it is deleted, as a fork's may be."""
    return None if repository is None else str(repository["full_name"]).casefold()


def decide_job(pull_request: PullRequest) -> Action:
    """Return what its preview needs as the pull request stands."""
    if pull_request.fork:
        return "fork"
    if pull_request.number < LEAST_NUMBER:
        return "none"
    is_wanted = pull_request.open and pull_request.base == MAIN_BRANCH and OFF_LABEL not in pull_request.labels
    return "up" if is_wanted else "close"


def read_event(environment: Mapping[str, str]) -> PullRequest:
    """Return the pull request as it was at the event that started this job.

    Raises:
        ShopCatError: no event, or none of a pull request.
    """
    path = environment.get("GITHUB_EVENT_PATH")
    if not path:
        raise PipelineError("GITHUB_EVENT_PATH is not set: outside a workflow, give --number and --sha")
    try:
        event: dict[str, Any] = json.loads(Path(path).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise PipelineError(f"GITHUB_EVENT_PATH={path} can't be read ({error}); run the job again") from error
    return PullRequest.read(event)


def read_pull_request(
    environment: Mapping[str, str], pause_seconds: float = PAUSE_SECONDS
) -> tuple[PullRequest, PullRequest]:
    """Return this job's pull request as it was at the event, and as it is now; twice the former without GitHub.

    GitHub's API may be a moment behind the push that started the job, so another commit than the event's is asked for again.

    Raises:
        ShopCatError: it does not exist, or GitHub can't be asked.
    """
    at_event, github = read_event(environment), Github.from_environment(environment)
    if github is None:
        return at_event, at_event
    for attempt in range(COMMIT_ATTEMPTS):
        answer = github.pull_request(at_event.number)
        if answer is None:
            raise PipelineError(f"GitHub: {github.repository} has no pull request {at_event.number}; nothing is done")
        now = PullRequest.read(answer)
        if now.sha == at_event.sha:
            break
        if attempt + 1 < COMMIT_ATTEMPTS:
            time.sleep(pause_seconds)
    return at_event, now


def decide_now(at_event: PullRequest, now: PullRequest) -> Action:
    """Return what this job does: nothing if the pull request has another commit by now, which has a job of its own."""
    return decide_job(now) if now.sha == at_event.sha else "later"


def api_access(text: str) -> str:
    """Return `shopcat:apiAccess` from the text of Pulumi.prod.yaml, where it has a line of its own.

    Raises:
        ShopCatError: there is no such line.
    """
    values = _API_ACCESS.findall(text)
    if len(values) != 1:
        count = "two lines" if values else "no line"
        raise PipelineError(
            f"Pulumi.prod.yaml has {count} `  shopcat:apiAccess: …`; set it once, to public, cidrs or private"
        )
    return str(values[0])


def access_problem(access: str, environment: Mapping[str, str], variable: str) -> str:
    """Return why this runner can't reach the Kubernetes API, and what mends it; empty if nothing is known against it.

    Args:
        access: `shopcat:apiAccess`.
        environment: of the job.
        variable: name of the repository's variable that names this job's runner.
    """
    if access == "public" or environment.get("RUNNER_ENVIRONMENT") != "github-hosted":
        return ""
    where = {"cidrs": "from the networks of shopcat:apiAccessCidrs", "private": "from inside the VPC"}.get(access, "")
    return (
        f"shopcat:apiAccess is {access}: the Kubernetes API is reached only {where}, and this runner is GitHub's and "
        f"has no fixed address. Set the repository variable {variable} to the label of a self-hosted runner in there, or "
        "shopcat:apiAccess to public (IAM alone decides then)"
    )


def spelling_problem(text: str, environment: Mapping[str, str]) -> str:
    """Return why AWS trusts no job of this repository, though GitHub accepts the name; empty if AWS does.

    Args:
        text: of Pulumi.prod.yaml.
        environment: of the job.
    """
    match, repository = _REPOSITORY_LINE.search(text), environment.get("GITHUB_REPOSITORY", "")
    if match is None or match[1] == repository or match[1].casefold() != repository.casefold():
        return ""
    return (
        f"shopcat:github.repository is {match[1]}, but GitHub spells it {repository}, and AWS compares letter case: set it to "
        f"{repository} in Pulumi.prod.yaml and run pulumi up -s prod"
    )


NO_PREVIEW_REASONS: Mapping[Action, str] = {
    "fork": (
        "This pull request comes from a fork, so its workflow gets no credentials and there is no preview. Someone who may "
        "push here can read it and open one: `gh pr checkout {number}`, then `git push origin HEAD:preview/{number}`, and a "
        "pull request from that branch."
    ),
    "later": "Pull request {number} has another commit by now. That commit's run acts on it, and this one does nothing.",
    "none": "Pull requests 1 to 9 get no preview: the number names a session in AWS, which needs two characters.",
}
"""Reasons to do nothing, as a person reads them."""


def main(arguments: Sequence[str]) -> int:
    """Write `action` and the job's start for the steps that follow; with ``access`` check the runner alone."""
    environment = os.environ
    try:
        if list(arguments) == ["access"]:
            _check_runner(environment, "RUNNER_PRODUCTION")
            return 0
        pull_request, action = _plan_job(environment)
    except ShopCatError as error:
        print(f"::error title=pipeline::{error}")
        return 1
    print(f"pull request {pull_request.number} at {pull_request.sha}: {action}")
    if action in NO_PREVIEW_REASONS:
        print(f"::notice title=preview::{NO_PREVIEW_REASONS[action].format(number=pull_request.number)}")
    append_lines(environment.get("GITHUB_OUTPUT"), f"action={action}")
    append_lines(environment.get("GITHUB_ENV"), f"SHOPCAT_STARTED={int(time.time())}")
    return 0


def _plan_job(environment: Mapping[str, str]) -> tuple[PullRequest, Action]:
    at_event, now = read_pull_request(environment)
    action = decide_now(at_event, now)
    if action not in NO_PREVIEW_REASONS:
        _check_runner(environment, "RUNNER_PRODUCTION" if environment.get("GITHUB_REF") == MAIN else "RUNNER")
    return at_event, action


def _check_runner(environment: Mapping[str, str], variable: str) -> None:
    text = PRODUCTION_FILE.read_text(errors="replace")
    problem = access_problem(api_access(text), environment, variable) or spelling_problem(text, environment)
    if problem:
        raise PipelineError(problem)


def append_lines(path: str | None, *lines: str) -> None:
    """Append lines to a file that hands values to the following steps; do nothing where GitHub names none."""
    if path:
        with Path(path).open("a", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
