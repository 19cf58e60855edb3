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
"""Needs of main, in words."""
RULESET = ".github/rulesets/main.json"
"""The ruleset that gives all of it, as GitHub's API takes it."""
UNTOLD = "whether administrators may bypass it is unknown"
"""Said of an environment where GitHub's answer leaves that out."""
UNSEEN = "unknown"
"""In place of who may bypass a ruleset: GitHub tells only those who may change it."""

_ENVIRONMENT = re.compile(
    r"^    environment:[ \t]*[\"']?([A-Za-z0-9][A-Za-z0-9 ._-]*?)[\"']?[ \t]*(?:#.*)?$", re.MULTILINE
)
WORKFLOWS = tuple(Path(".github", "workflows", name) for name in ("release.yml", "rollback.yml"))
_UNPROTECTED = re.compile(r"^    unprotectedMain:[ \t]*[\"']?true[\"']?[ \t]*(?:#.*)?$", re.MULTILINE)
"""Both of `shopcat:github`; the first step of a job has no YAML."""


@dataclass(frozen=True)
class Guard:
    """A ruleset, or a branch's classic protection."""

    name: str
    keeps: frozenset[str]
    """Needs that it meets."""
    bypass: tuple[str, ...] = ()
    """Those who may pass it by; :data:`UNSEEN` if this token isn't told."""


def of_rules(rules: Iterable[Mapping[str, Any]], bypass: Mapping[int, tuple[str, ...]]) -> list[Guard]:
    """Return a guard for each ruleset that has rules for main.

    Args:
        rules: of `GET rules/branches/main`.
        bypass: who may bypass each ruleset, by its id; of one that is missing here it is unknown.
    """
    kept: dict[tuple[int, str], set[str]] = {}
    for rule in rules:
        number = rule.get("ruleset_id")
        if isinstance(number, int):
            kept.setdefault((number, str(rule.get("ruleset_source", ""))), set()).update(_needs_met(rule))
    return [
        Guard(f"ruleset {number} of {source}", frozenset(keeps), bypass.get(number, (UNSEEN,)))
        for (number, source), keeps in kept.items()
    ]


def _needs_met(rule: Mapping[str, Any]) -> set[Need]:
    """Needs that one rule meets."""
    kind, given = rule.get("type"), rule.get("parameters")
    if kind == "deletion":
        return {"no deletion"}
    if kind == "non_fast_forward":
        return {"no force push"}
    if kind != "pull_request" or not isinstance(given, Mapping):
        return set()
    return _approvals(given, "require_code_owner_review")


def _approvals(given: Mapping[str, Any], owners: str) -> set[Need]:
    """Needs that the reviews meet; the key on code owners has another spelling in rules than in classic protection."""
    found: set[Need] = set()
    if _count(given.get("required_approving_review_count")) > 0:
        found.add("pull request")
    if given.get(owners) is True:
        found.add("code owners")
    if given.get("require_last_push_approval") is True:
        found.add("last push")
    return found


def of_classic(document: Mapping[str, Any]) -> Guard:
    """Return what a branch's classic protection keeps (`GET branches/main/protection`)."""
    reviews = _map(document, "required_pull_request_reviews")
    allowances = _map(reviews, "bypass_pull_request_allowances")
    found = _approvals(reviews, "require_code_owner_reviews")
    if _map(document, "allow_deletions").get("enabled") is False:
        found.add("no deletion")
    if _map(document, "allow_force_pushes").get("enabled") is False:
        found.add("no force push")
    bypass = [] if _map(document, "enforce_admins").get("enabled") is True else ["administrators"]
    bypass += [f"{kind} named in it" for kind in ("users", "teams", "apps") if allowances.get(kind)]
    return Guard("classic protection", frozenset(found), tuple(bypass))


def actors(ruleset: Mapping[str, Any]) -> tuple[str, ...]:
    """Return who may bypass a ruleset (`GET rulesets/<id>`)."""
    found = ruleset.get("bypass_actors")
    if not isinstance(found, list):
        return (UNSEEN,)
    return tuple(
        f"{one.get('actor_type')} {one.get('actor_id') or ''} ({one.get('bypass_mode')})".replace("  ", " ")
        if isinstance(one, Mapping)
        else str(one)
        for one in found
    )


def missing_protection(guards: Iterable[Guard]) -> list[Need]:
    """Return the needs that no guard meets, whoever may bypass it."""
    kept = {one for guard in guards for one in guard.keeps}
    return [need for need in NEEDS if need not in kept]


def bypassed(guards: Sequence[Guard]) -> dict[Need, tuple[str, ...]]:
    """Return the needs that somebody, or perhaps somebody, may pass by, and who: no guard without a bypass meets them."""
    found = {}
    for need in NEEDS:
        meeting = [guard for guard in guards if need in guard.keeps]
        if meeting and all(guard.bypass for guard in meeting):
            found[need] = tuple(sorted({who for guard in meeting for who in guard.bypass}))
    return found


def other_branches(document: Mapping[str, Any], branches: Sequence[Mapping[str, Any]]) -> str:
    """Return which branches beside main an environment is open to; empty if to none, and to main.

    Args:
        document: of `GET environments/<name>`.
        branches: of `GET environments/<name>/deployment-branch-policies`; none where it has no such list.
    """
    policy = _map(document, "deployment_branch_policy")
    if policy.get("custom_branch_policies") is not True:
        return "open to every protected branch" if policy.get("protected_branches") is True else "open to every branch"
    named = sorted(f"{one.get('type', 'branch')} {one.get('name')}" for one in branches)
    return "" if named == [f"branch {MAIN_BRANCH}"] else f"open to {', '.join(named) or 'no branch'}"


def unreviewed(document: Mapping[str, Any]) -> list[str]:
    """Return how a job of an environment may start without somebody else's approval; nothing if it may not."""
    rules = [one for one in document.get("protection_rules") or [] if isinstance(one, Mapping)]
    reviews = next((one for one in rules if one.get("type") == "required_reviewers"), {})
    found = []
    if not reviews.get("reviewers"):
        found.append("no reviewers")
    if reviews.get("prevent_self_review") is not True:
        found.append("who starts a release may approve it")
    bypass = document.get("can_admins_bypass")
    if bypass is not False:
        found.append("administrators may bypass it" if bypass is True else UNTOLD)
    return found


def read_rules(github: Github) -> list[dict[str, Any]]:
    """Rules that hold for main now.

    Raises:
        ShopCatError: GitHub doesn't tell.
    """
    return list(github.pages(f"/rules/branches/{MAIN_BRANCH}"))


def read_environment(github: Github, name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """An environment, and the branches that it is open to.

    Raises:
        GithubNotFoundError: there is none.
        ShopCatError: GitHub doesn't tell.
    """
    path = f"/environments/{name.replace(' ', '%20')}"
    document = github.call("GET", path)
    if not isinstance(document, dict):
        raise GithubError(f"GitHub: GET {path} answered no environment; run it again")
    if _map(document, "deployment_branch_policy").get("custom_branch_policies") is not True:
        return document, []
    listed = github.call("GET", f"{path}/deployment-branch-policies?per_page=100")
    branches = listed.get("branch_policies") if isinstance(listed, dict) else None
    if not isinstance(branches, list) or not all(isinstance(one, dict) for one in branches):
        raise GithubError(f"GitHub: GET {path}/deployment-branch-policies answered no list; run it again")
    return document, branches


def environment_name(text: str) -> str:
    """`shopcat:github.environment` in the text of Pulumi.prod.yaml."""
    found = _ENVIRONMENT.search(text)
    return found[1] if found else "production"


def refuse_other_environment(text: str, workflows: Mapping[str, str]) -> None:
    """Refuse a setting that names another environment than the workflows: the role trusts jobs of the setting's alone.

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
                "is the only one that the release role trusts; let both name the same"
            )


def is_accepted(text: str) -> bool:
    """Tell whether the text of Pulumi.prod.yaml accepts a main that nobody reviews."""
    return _UNPROTECTED.search(text) is not None


def mend(repository: str) -> str:
    """The command that protects main."""
    return f"gh api -X POST repos/{repository}/rulesets --input {RULESET}"


@dataclass(frozen=True)
class ProtectionVerdict:
    """Findings of a release's first step: one sentence each, with what mends it."""

    open_to_all: tuple[str, ...] = ()
    """Never released so: any branch could take production's role."""
    alone: tuple[str, ...] = ()
    """One person can release alone, which a setting may accept."""
    unseen: tuple[str, ...] = ()
    """This token may not look."""


def judge_protection(github: Github, text: str) -> ProtectionVerdict:
    """Look at main and at its environment.

    Raises:
        ShopCatError: GitHub doesn't tell the rules of main, which every token may read.
    """
    gaps, name = missing_protection(of_rules(read_rules(github), {})), environment_name(text)
    alone, unseen, others = [], [], ""
    if gaps:
        alone.append(
            f"{MAIN_BRANCH} has no ruleset that asks for {', '.join(NEEDS[gap] for gap in gaps)} (classic protection is shown to "
            f"administrators alone and doesn't count here): {mend(github.repository)}"
        )
    where = f"make github-check names the commands, https://github.com/{github.repository}/settings/environments has it"
    try:
        document, branches = read_environment(github, name)
        others = other_branches(document, branches)
        lacks = unreviewed(document)
        if UNTOLD in lacks:
            lacks.remove(UNTOLD)
            unseen.append(f"environment {name}: {UNTOLD}")
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
    """Return what is said in the job's log, and whether it may go on."""
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
    github = Github.find(os.environ)
    if github is None:
        print("::error title=protection::GITHUB_TOKEN or GITHUB_REPOSITORY is not set; this is a job's step")
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
    found = document.get(key)
    return found if isinstance(found, Mapping) else {}


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


if __name__ == "__main__":
    sys.exit(main())
