"""Check that what reaches main was reviewed, and that main alone gets production's environment (release.yml's first step).

A release trusts main: it builds and runs whatever is there. So it refuses while GitHub's settings let one person put
something there alone, unless `shopcat:github.unprotectedMain` says that this is wanted. `make github-check` looks at more,
with an administrator's token; this needs a job's own token, and Python alone.

Sources: docs.github.com/rest/repos/rules (rules that apply to a branch; rules of several rulesets add up),
docs.github.com/rest/branches/branch-protection, docs.github.com/rest/deployments/environments and branch-policies.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from infra.errors import ShopCatError
from infra.names import MAIN_BRANCH
from pipeline.errors import GithubDeniedError, GithubError, GithubNotFoundError
from pipeline.github import Github
from pipeline.plan import PRODUCTION_FILE

Need: TypeAlias = Literal["pull request", "code owners", "last push", "no deletion", "no force push"]
NEEDS: Mapping[Need, str] = {
    "pull request": "a pull request with one approval for every change",
    "code owners": "the approval of code owners",
    "last push": "an approval of the last push by somebody else than who pushed it",
    "no deletion": "no deletion",
    "no force push": "no force push",
}
"""Each need of main, in words."""
RULESET = ".github/rulesets/main.json"
"""Ruleset that meets all needs, as GitHub's API takes it."""
ADMIN_BYPASS_UNKNOWN = "whether administrators may bypass it is unknown"
"""Gap of an environment where GitHub's answer leaves that out."""
BYPASS_UNKNOWN = "unknown"
"""In place of a ruleset's bypass list: GitHub shows it only to those who may change it."""

_ENVIRONMENT = re.compile(
    r"^    environment:[ \t]*[\"']?([A-Za-z0-9][A-Za-z0-9 ._-]*?)[\"']?[ \t]*(?:#.*)?$", re.MULTILINE
)
WORKFLOWS = tuple(Path(".github", "workflows", name) for name in ("release.yml", "rollback.yml"))
_UNPROTECTED = re.compile(r"^    unprotectedMain:[ \t]*[\"']?true[\"']?[ \t]*(?:#.*)?$", re.MULTILINE)
"""Both of `shopcat:github`; the first step of a job has no YAML parser."""


@dataclass(frozen=True)
class Guard:
    """A ruleset, or a branch's classic protection."""

    name: str
    keeps: frozenset[str]
    """Needs that it meets."""
    bypass: tuple[str, ...] = ()
    """Those who may bypass it; :data:`BYPASS_UNKNOWN` if this token may not see them."""


def ruleset_guards(rules: Iterable[Mapping[str, Any]], bypass: Mapping[int, tuple[str, ...]]) -> list[Guard]:
    """Return a guard for each ruleset that has rules for main.

    Args:
        rules: of `GET rules/branches/main`.
        bypass: who may bypass each ruleset, by its id; unknown for a ruleset that is missing here.
    """
    needs_met: dict[tuple[int, str], set[str]] = {}
    for rule in rules:
        number = rule.get("ruleset_id")
        if isinstance(number, int):
            needs_met.setdefault((number, str(rule.get("ruleset_source", ""))), set()).update(_needs_met(rule))
    return [
        Guard(f"ruleset {number} of {source}", frozenset(keeps), bypass.get(number, (BYPASS_UNKNOWN,)))
        for (number, source), keeps in needs_met.items()
    ]


def _needs_met(rule: Mapping[str, Any]) -> set[Need]:
    """Return the needs that a rule meets."""
    kind, parameters = rule.get("type"), rule.get("parameters")
    if kind == "deletion":
        return {"no deletion"}
    if kind == "non_fast_forward":
        return {"no force push"}
    if kind != "pull_request" or not isinstance(parameters, Mapping):
        return set()
    return _needs_met_by_reviews(parameters, "require_code_owner_review")


def _needs_met_by_reviews(reviews: Mapping[str, Any], owners_key: str) -> set[Need]:
    """Return the needs that reviews meet; rules and classic protection spell the key of code owners differently."""
    needs: set[Need] = set()
    if _count(reviews.get("required_approving_review_count")) > 0:
        needs.add("pull request")
    if reviews.get(owners_key) is True:
        needs.add("code owners")
    if reviews.get("require_last_push_approval") is True:
        needs.add("last push")
    return needs


def classic_guard(document: Mapping[str, Any]) -> Guard:
    """Return the guard that a branch's classic protection is (`GET branches/main/protection`)."""
    reviews = _map(document, "required_pull_request_reviews")
    allowances = _map(reviews, "bypass_pull_request_allowances")
    needs = _needs_met_by_reviews(reviews, "require_code_owner_reviews")
    if _map(document, "allow_deletions").get("enabled") is False:
        needs.add("no deletion")
    if _map(document, "allow_force_pushes").get("enabled") is False:
        needs.add("no force push")
    bypass = [] if _map(document, "enforce_admins").get("enabled") is True else ["administrators"]
    bypass += [f"{kind} named in it" for kind in ("users", "teams", "apps") if allowances.get(kind)]
    return Guard("classic protection", frozenset(needs), tuple(bypass))


def bypass_actors(ruleset: Mapping[str, Any]) -> tuple[str, ...]:
    """Return who may bypass a ruleset (`GET rulesets/<id>`)."""
    actors = ruleset.get("bypass_actors")
    if not isinstance(actors, list):
        return (BYPASS_UNKNOWN,)
    return tuple(
        f"{actor.get('actor_type')} {actor.get('actor_id') or ''} ({actor.get('bypass_mode')})".replace("  ", " ")
        if isinstance(actor, Mapping)
        else str(actor)
        for actor in actors
    )


def missing_protection(guards: Iterable[Guard]) -> list[Need]:
    """Return the needs that no guard meets, whoever may bypass it."""
    needs_met = {need for guard in guards for need in guard.keeps}
    return [need for need in NEEDS if need not in needs_met]


def bypassed(guards: Sequence[Guard]) -> dict[Need, tuple[str, ...]]:
    """Return the needs that no guard without a bypass meets, each with those who may bypass it."""
    bypassers = {}
    for need in NEEDS:
        meeting = [guard for guard in guards if need in guard.keeps]
        if meeting and all(guard.bypass for guard in meeting):
            bypassers[need] = tuple(sorted({actor for guard in meeting for actor in guard.bypass}))
    return bypassers


def other_branches(document: Mapping[str, Any], branches: Sequence[Mapping[str, Any]]) -> str:
    """Return the branches beside main that an environment is open to; empty if it is open to main alone.

    Args:
        document: of `GET environments/<name>`.
        branches: of `GET environments/<name>/deployment-branch-policies`; none where it has no such list.
    """
    policy = _map(document, "deployment_branch_policy")
    if policy.get("custom_branch_policies") is not True:
        return "open to every protected branch" if policy.get("protected_branches") is True else "open to every branch"
    names = sorted(f"{branch.get('type', 'branch')} {branch.get('name')}" for branch in branches)
    return "" if names == [f"branch {MAIN_BRANCH}"] else f"open to {', '.join(names) or 'no branch'}"


def unreviewed(document: Mapping[str, Any]) -> list[str]:
    """Return the ways in which a job of an environment may start without somebody else's approval."""
    rules = [rule for rule in document.get("protection_rules") or [] if isinstance(rule, Mapping)]
    reviews = next((rule for rule in rules if rule.get("type") == "required_reviewers"), {})
    gaps = []
    if not reviews.get("reviewers"):
        gaps.append("no reviewers")
    if reviews.get("prevent_self_review") is not True:
        gaps.append("who starts a release may approve it")
    bypass = document.get("can_admins_bypass")
    if bypass is not False:
        gaps.append("administrators may bypass it" if bypass is True else ADMIN_BYPASS_UNKNOWN)
    return gaps


def read_rules(github: Github) -> list[dict[str, Any]]:
    """Return the rules that hold for main now.

    Raises:
        ShopCatError: GitHub can't be asked.
    """
    return list(github.list_items(f"/rules/branches/{MAIN_BRANCH}"))


def read_environment(github: Github, name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return an environment, and the branches that it is open to.

    Raises:
        GithubNotFoundError: it does not exist.
        ShopCatError: GitHub can't be asked.
    """
    path = f"/environments/{name.replace(' ', '%20')}"
    document = github.call("GET", path)
    if not isinstance(document, dict):
        raise GithubError(f"GitHub: GET {path} answered no environment; run it again")
    if _map(document, "deployment_branch_policy").get("custom_branch_policies") is not True:
        return document, []
    answer = github.call("GET", f"{path}/deployment-branch-policies?per_page=100")
    branches = answer.get("branch_policies") if isinstance(answer, dict) else None
    if not isinstance(branches, list) or not all(isinstance(branch, dict) for branch in branches):
        raise GithubError(f"GitHub: GET {path}/deployment-branch-policies answered no list; run it again")
    return document, branches


def environment_name(text: str) -> str:
    """Return `shopcat:github.environment` from the text of Pulumi.prod.yaml."""
    match = _ENVIRONMENT.search(text)
    return match[1] if match else "production"


def refuse_other_environment(text: str, workflows: Mapping[str, str]) -> None:
    """Refuse a setting that names another environment than the workflows, since the role trusts the setting's alone.

    Args:
        text: of Pulumi.prod.yaml.
        workflows: path of each workflow that takes the release role, and its text.

    Raises:
        ShopCatError: they differ.
    """
    name = environment_name(text)
    for path, workflow in workflows.items():
        others = set(_ENVIRONMENT.findall(workflow)) - {name}
        if others:
            raise GithubError(
                f"{path} runs in the environment {', '.join(sorted(others))}, and shopcat:github.environment is {name}, which "
                "is the only one that the release role trusts; give both the same name"
            )


def is_accepted(text: str) -> bool:
    """Return true if the text of Pulumi.prod.yaml accepts a main that nobody reviews."""
    return _UNPROTECTED.search(text) is not None


def ruleset_command(repository: str) -> str:
    """Return the command that protects main."""
    return f"gh api -X POST repos/{repository}/rulesets --input {RULESET}"


@dataclass(frozen=True)
class ProtectionVerdict:
    """Findings of a release's first step: one sentence each, with the command or page that mends it."""

    open_to_all: tuple[str, ...] = ()
    """Another branch could take production's role: nothing is released, whatever is set."""
    alone: tuple[str, ...] = ()
    """One person can release alone, which a setting may accept."""
    unseen: tuple[str, ...] = ()
    """This token may not see it."""


def judge_protection(github: Github, text: str) -> ProtectionVerdict:
    """Look at main and at its environment.

    Raises:
        ShopCatError: GitHub can't be asked for the rules of main, which every token may read.
    """
    gaps, name = missing_protection(ruleset_guards(read_rules(github), {})), environment_name(text)
    alone, unseen, others = [], [], ""
    if gaps:
        alone.append(
            f"{MAIN_BRANCH} has no ruleset that asks for {', '.join(NEEDS[gap] for gap in gaps)} (classic protection is shown to "
            f"administrators alone and doesn't count here): {ruleset_command(github.repository)}"
        )
    where = f"make github-check names the commands, https://github.com/{github.repository}/settings/environments has it"
    try:
        document, branches = read_environment(github, name)
        others = other_branches(document, branches)
        lacks = unreviewed(document)
        if ADMIN_BYPASS_UNKNOWN in lacks:
            lacks.remove(ADMIN_BYPASS_UNKNOWN)
            unseen.append(f"environment {name}: {ADMIN_BYPASS_UNKNOWN}")
        if lacks:
            alone.append(f"environment {name}: {', '.join(lacks)}; {where}")
    except GithubNotFoundError:
        others = "not there, so the first job that names it makes it, open to every branch"
    except GithubDeniedError as error:
        alone.append(f"environment {name} can't be seen: {error}")
    return ProtectionVerdict(
        (f"environment {name} is {others}; {where}",) if others else (), tuple(alone), tuple(unseen)
    )


def verdict_lines(verdict: ProtectionVerdict, *, accepted: bool) -> tuple[list[str], bool]:
    """Return the lines for the job's log, and whether the release may go on."""
    lines = [f"::warning title=protection::can't be seen with this job's token: {line}" for line in verdict.unseen]
    lines += [f"::error title=protection::{line}" for line in verdict.open_to_all]
    lines += [f"::{'warning' if accepted else 'error'} title=protection::{line}" for line in verdict.alone]
    goes_on = not verdict.open_to_all and (accepted or not verdict.alone)
    if goes_on and verdict.alone:
        lines.append("::warning title=protection::released all the same: shopcat:github.unprotectedMain is true")
    elif goes_on:
        lines.append(f"{MAIN_BRANCH} is protected")
    elif not verdict.open_to_all:
        lines.append(
            "::error title=protection::nothing is released: mend it, or set shopcat:github.unprotectedMain to true in "
            "Pulumi.prod.yaml if one person may release alone"
        )
    else:
        lines.append("::error title=protection::nothing is released until the environment is for main alone")
    return lines, goes_on


def main() -> int:
    """Refuse a release while main isn't protected; ``python3 -m pipeline.protection``."""
    text = PRODUCTION_FILE.read_text(errors="replace")
    github = Github.from_environment(os.environ)
    if github is None:
        print("::error title=protection::GITHUB_TOKEN or GITHUB_REPOSITORY is not set; by hand run `make github-check`")
        return 1
    try:
        refuse_other_environment(text, {str(path): path.read_text(encoding="utf-8") for path in WORKFLOWS})
        lines, goes_on = verdict_lines(judge_protection(github, text), accepted=is_accepted(text))
    except ShopCatError as error:
        print(f"::error title=protection::{error}")
        return 1
    print("\n".join(lines))
    return 0 if goes_on else 1


def _map(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = document.get(key)
    return value if isinstance(value, Mapping) else {}


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


if __name__ == "__main__":
    sys.exit(main())
