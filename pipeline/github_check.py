"""Check GitHub's settings without changing them (``make github-check``).

One table: subject, present value, wanted value, and the command or page that mends it. A setting that the token may not see is
never fine: its row names the right that the token lacks. The token is `GITHUB_TOKEN` or `GH_TOKEN`, an administrator's, such as
`GITHUB_TOKEN=$(gh auth token)` or a fine-grained one that may read Administration, Actions, Contents, Issues and Variables.

Sources: docs.github.com/rest: repos/rules, branches/branch-protection, deployments/environments, actions/permissions,
actions/variables, issues/labels, repos/repos (CODEOWNERS errors); docs.github.com/repositories, "Available rules for rulesets".
"""

from __future__ import annotations

import fnmatch
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from infra.commands.findings import FindingState, Row, findings_table
from infra.errors import ShopCatError
from infra.names import MAIN_BRANCH
from infra.settings import read_stack
from pipeline import protection
from pipeline.errors import GithubDeniedError, GithubError, GithubNotFoundError
from pipeline.github import Github
from pipeline.plan import OFF_LABEL, PRODUCTION_FILE

WORKFLOWS_FOLDER = Path(".github/workflows")
TAGS_RULESET = ".github/rulesets/tags.json"
VERSIONS = ("v0.0.1", "v1.0.0", "v1.4.0", "v10.20.30", "v2.0.0-rc.1")
"""Examples of every kind of version tag."""
TAG_RULES = ("deletion", "update")
"""Rules that keep a tag on its commit."""

_VARIABLE = re.compile(r"\bvars\.(\w+)( *\|\|)?")


def finding(subject: str, ok: bool, found: str, wanted: str, mend: str) -> Row:  # noqa: FBT001 - reads as a table's column
    """Return a row that is fine, or one to be changed with what mends it."""
    return (
        Row(subject, FindingState.OK, found)
        if ok
        else Row(subject, FindingState.CHANGE, f"{found}; should be: {wanted}", mend)
    )


def unseen(subject: str, needs: str, error: Exception) -> Row:
    """Return the row of a setting that this token may not see."""
    return Row(
        subject, FindingState.CHANGE, f"can't be seen with this token ({error})", f"give it {needs}, and run this again"
    )


# Decisions ------------------------------------------------------------------------------------------------------


def judge_main(guards: Sequence[protection.Guard], repository: str) -> list[Row]:
    """Return a row for each need of main: met or not, and who may bypass it."""
    gaps, bypassed = protection.missing_protection(guards), protection.bypassed(guards)
    rows = []
    for need, wanted in protection.NEEDS.items():
        subject = f"{MAIN_BRANCH}: {need}"
        if need in gaps:
            rows.append(finding(subject, False, "not asked for", wanted, protection.ruleset_command(repository)))
            continue
        keeping = ", ".join(guard.name for guard in guards if need in guard.keeps)
        bypassers = ", ".join(bypassed.get(need, ()))
        rows.append(
            finding(
                subject,
                not bypassers,
                f"by {keeping}{f', bypassed by {bypassers}' if bypassers else ''}",
                "for everybody: no bypass",
                f"https://github.com/{repository}/settings/rules: empty its bypass list (an administrator's token shows it)",
            )
        )
    return rows


def judge_environment(
    document: Mapping[str, Any], branches: Sequence[Mapping[str, Any]], name: str, repository: str
) -> list[Row]:
    """Judge production's environment: which branches may use it, and who approves."""
    others, lacks = protection.other_branches(document, branches), protection.unreviewed(document)
    path = f"repos/{repository}/environments/{name.replace(' ', '%20')}"
    return [
        finding(
            f"environment {name}: branches",
            not others,
            others or f"open to {MAIN_BRANCH}",
            f"open to {MAIN_BRANCH} alone",
            f"gh api -X PUT {path} -F 'deployment_branch_policy[protected_branches]=false' "
            "-F 'deployment_branch_policy[custom_branch_policies]=true'; then "
            f"gh api -X POST {path}/deployment-branch-policies -f name={MAIN_BRANCH}, and delete the others there",
        ),
        finding(
            f"environment {name}: reviews",
            not lacks,
            ", ".join(lacks) or "somebody else approves",
            "reviewers, no self-review, no bypass by administrators",
            f"https://github.com/{repository}/settings/environments: Required reviewers, Prevent self-review; switch off Allow "
            "administrators to bypass configured protection rules",
        ),
    ]


def judge_actions(document: Mapping[str, Any], repository: str) -> list[Row]:
    """Judge the rights of a workflow's token where its file names none, and that it may not approve."""
    rights, approves = document.get("default_workflow_permissions"), document.get("can_approve_pull_request_reviews")
    command = f"gh api -X PUT repos/{repository}/actions/permissions/workflow"
    return [
        finding(
            "Actions: token", rights == "read", f"{rights}", "read", f"{command} -f default_workflow_permissions=read"
        ),
        finding(
            "Actions: approvals",
            approves is False,
            f"may {'not ' if approves is False else ''}approve pull requests",
            "may not approve",
            f"{command} -F can_approve_pull_request_reviews=false",
        ),
    ]


def judge_forks(document: Mapping[str, Any], repository: str, *, private: bool) -> list[Row]:
    """Judge what a pull request from a fork gets: never a secret in a public repository, what is set in a private one."""
    base = f"gh api -X PUT repos/{repository}/actions/permissions"
    if not private:
        policy = document.get("approval_policy")
        return [
            finding(
                "forks: approval",
                policy == "all_external_contributors",
                f"{policy}",
                "all_external_contributors",
                f"{base}/fork-pr-contributor-approval -f approval_policy=all_external_contributors",
            )
        ]
    runs = document.get("run_workflows_from_fork_pull_requests")
    gets = [
        words
        for key, words in (
            ("send_write_tokens_to_workflows", "tokens that write"),
            ("send_secrets_and_variables", "secrets"),
        )
        if document.get(key) is not False
    ]
    waits = document.get("require_approval_for_fork_pr_workflows") is True
    return [
        finding(
            "forks: what they get",
            runs is False or (not gets and waits),
            "no workflow runs"
            if runs is False
            else f"{' and '.join(gets) or 'nothing'}{'' if waits else ', unapproved'}",
            "no tokens that write, no secrets, approval of each run",
            f"{base}/fork-pr-workflows-private-repos -F run_workflows_from_fork_pull_requests=false "
            "-F send_write_tokens_to_workflows=false -F send_secrets_and_variables=false "
            "-F require_approval_for_fork_pr_workflows=true",
        )
    ]


def covers(ruleset: Mapping[str, Any], names: Iterable[str] = VERSIONS) -> bool:
    """Return true if a ruleset holds for the tags of these names (fnmatch patterns, docs.github.com, "Creating rulesets")."""
    names = [f"refs/tags/{name}" for name in names]
    condition = (ruleset.get("conditions") or {}).get("ref_name") or {}
    include, exclude = (list(map(str, condition.get(key) or [])) for key in ("include", "exclude"))
    return all(
        any(pattern == "~ALL" or fnmatch.fnmatchcase(name, pattern) for pattern in include)
        and not any(pattern == "~ALL" or fnmatch.fnmatchcase(name, pattern) for pattern in exclude)
        for name in names
    )


def judge_tags(rulesets: Sequence[Mapping[str, Any]], repository: str) -> list[Row]:
    """Judge the rules of version tags: nobody moves or deletes one, and the workflow can create one."""
    active = [ruleset for ruleset in rulesets if ruleset.get("enforcement") == "active" and covers(ruleset)]
    types_and_bypass = [
        ({rule.get("type") for rule in ruleset.get("rules") or []}, protection.bypass_actors(ruleset))
        for ruleset in active
    ]
    rows = []
    for kind in TAG_RULES:
        bypass_lists = [bypass for types, bypass in types_and_bypass if kind in types]
        fewest = min(bypass_lists, key=len, default=())
        rows.append(
            finding(
                f"tags v*: {kind}",
                bool(bypass_lists) and not fewest,
                f"forbidden, bypassed by {', '.join(fewest)}" if fewest else "forbidden" if bypass_lists else "allowed",
                "forbidden to everybody",
                f"gh api -X POST repos/{repository}/rulesets --input {TAGS_RULESET}"
                if not bypass_lists
                else f"https://github.com/{repository}/settings/rules: empty its bypass list (an administrator's token shows it)",
            )
        )
    # The token of a workflow can't be on a bypass list (github.com/tetherto/qvac/pull/3555: 422), so this would end releases.
    is_forbidden = any("creation" in types for types, _ in types_and_bypass)
    return [
        *rows,
        finding(
            "tags v*: creation",
            not is_forbidden,
            "forbidden" if is_forbidden else "allowed, as the release workflow needs",
            "allowed: a workflow's token can't be on a bypass list",
            f"https://github.com/{repository}/settings/rules: take Restrict creations out of the ruleset for v*",
        ),
    ]


def judge_owners(document: Mapping[str, Any]) -> Row:
    """Judge GitHub's errors in CODEOWNERS: a line with an error asks for nobody's approval."""
    errors = document.get("errors")
    lines = [
        f"line {error.get('line')}: {error.get('kind')} {str(error.get('source', '')).strip()}".strip()
        if isinstance(error, Mapping)
        else str(error)
        for error in (errors if isinstance(errors, list) else ["no list of errors"])
    ]
    return finding(
        "CODEOWNERS",
        not lines,
        "; ".join(lines) or "every owner is known",
        "owners who may write to this repository",
        "put your own team or people into .github/CODEOWNERS",
    )


def wanted_variables(workflows: Iterable[str]) -> dict[str, bool]:
    """Return each variable that workflows use; true if a workflow has no default for it."""
    variables: dict[str, bool] = {}
    for text in workflows:
        for name, default in _VARIABLE.findall(text):
            variables[name] = variables.get(name, False) or not default
    return dict(sorted(variables.items()))


# Reads ---------------------------------------------------------------------------------------------------------


def _read_rows(subject: str, needs: str, read: Callable[[], list[Row]], absent: Row | None = None) -> list[Row]:
    """Return the rows of a read; what is denied or does not exist is a row that is never fine.

    Args:
        subject: of that row.
        needs: right that a fine-grained token needs for it.
        read: calls GitHub.
        absent: in place of that row when GitHub answers 404, as it also does to a token without the right.
    """
    try:
        return read()
    except GithubDeniedError as error:
        return [unseen(subject, needs, error)]
    except GithubNotFoundError as error:
        if absent is None:
            return [unseen(subject, needs, error)]
        return [
            Row(
                absent.subject,
                absent.state,
                f"{absent.finding}, or this token may not see it (needs {needs})",
                absent.todo,
            )
        ]
    except ShopCatError as error:
        return [Row(subject, FindingState.CHANGE, str(error), "run this again")]


def _object(github: Github, path: str) -> dict[str, Any]:
    answer = github.call("GET", path)
    if not isinstance(answer, dict):
        raise GithubError(f"GitHub: GET {path} answered something else than an object")
    return answer


def _main(github: Github) -> list[Row]:
    rules = protection.read_rules(github)
    numbers = {rule["ruleset_id"] for rule in rules if isinstance(rule.get("ruleset_id"), int)}
    bypass = {number: protection.bypass_actors(_object(github, f"/rulesets/{number}")) for number in numbers}
    guards = protection.ruleset_guards(rules, bypass)
    if protection.missing_protection(guards) or protection.bypassed(guards):
        guards += _classic(github)
    return judge_main(guards, github.repository)


def _classic(github: Github) -> list[protection.Guard]:
    """Return the branch's classic protection, if it has one and this token may see it."""
    try:
        return [protection.classic_guard(_object(github, f"/branches/{MAIN_BRANCH}/protection"))]
    except (
        GithubNotFoundError,
        GithubDeniedError,
    ):  # none, or unseen: then what the rulesets lack counts as missing
        return []


def _tag_rows(github: Github) -> list[Row]:
    rulesets = github.list_items("/rulesets?targets=tag&includes_parents=true")
    active = [item for item in rulesets if item.get("enforcement") == "active" and item.get("target", "tag") == "tag"]
    return judge_tags([_object(github, f"/rulesets/{item.get('id')}") for item in active], github.repository)


def _forks(github: Github) -> list[Row]:
    private = _object(github, "").get("private") is not False
    name = "fork-pr-workflows-private-repos" if private else "fork-pr-contributor-approval"
    return judge_forks(_object(github, f"/actions/permissions/{name}"), github.repository, private=private)


def _default_branch(github: Github) -> list[Row]:
    branch = _object(github, "").get("default_branch")
    mend = f"gh api -X PATCH repos/{github.repository} -f default_branch={MAIN_BRANCH}"
    return [finding("default branch", branch == MAIN_BRANCH, f"{branch}", MAIN_BRANCH, mend)]


def _environment(github: Github, name: str) -> list[Row]:
    return judge_environment(*protection.read_environment(github, name), name, github.repository)


def check_repository(github: Github, environment: str, workflows: Iterable[str]) -> list[Row]:
    """Return every row of the table."""
    repository, administration = github.repository, "Administration (read)"
    page = f"https://github.com/{repository}/settings/environments"
    rows = _read_rows("default branch", "Metadata (read)", partial(_default_branch, github))
    rows += _read_rows(MAIN_BRANCH, administration, partial(_main, github))
    rows += _read_rows(
        f"environment {environment}", "Actions (read)", partial(_environment, github, environment),
        finding(f"environment {environment}", False, "not there", f"reviewers, no self-review, {MAIN_BRANCH} alone", page),
    )  # fmt: skip
    rows += _read_rows(
        "Actions", administration,
        lambda: judge_actions(_object(github, "/actions/permissions/workflow"), repository),
    )  # fmt: skip
    rows += _read_rows("forks", administration, partial(_forks, github))
    rows += _read_rows("tags v*", administration, partial(_tag_rows, github))
    rows += _read_rows(
        "CODEOWNERS", "Contents (read)", lambda: [judge_owners(_object(github, f"/codeowners/errors?ref={MAIN_BRANCH}"))],
        finding("CODEOWNERS", False, f"not there on {MAIN_BRANCH}", "there", "push .github/CODEOWNERS"),
    )  # fmt: skip
    rows += _present(
        github, f"label {OFF_LABEL}", "Issues (read)", f"/labels/{OFF_LABEL}",
        f"gh api -X POST repos/{repository}/labels -f name={OFF_LABEL}",
    )  # fmt: skip
    for name, needed in wanted_variables(workflows).items():
        if needed:
            rows += _present(
                github, f"variable {name}", "Variables (read)", f"/actions/variables/{name}",
                f"gh api -X POST repos/{repository}/actions/variables -f name={name} -f value=<see docs/aws.md>",
            )  # fmt: skip
    return rows


def _present(github: Github, subject: str, needs: str, path: str, mend: str) -> list[Row]:
    def read() -> list[Row]:
        answer = _object(github, path)
        return [finding(subject, bool(answer.get("value", answer.get("name"))), "there", "not empty", mend)]

    return _read_rows(subject, needs, read, finding(subject, False, "not there", "there", mend))


def _github(environment: Mapping[str, str], repository: str) -> Github:
    """Return a client of the repository with the token that a person gives.

    Raises:
        ShopCatError: no token, or no repository's name.
    """
    github = Github.from_environment({
        "GITHUB_API_URL": environment.get("GITHUB_API_URL", "https://api.github.com"),
        "GITHUB_REPOSITORY": environment.get("GITHUB_REPOSITORY") or repository,
        "GITHUB_TOKEN": environment.get("GITHUB_TOKEN") or environment.get("GH_TOKEN", ""),
    })  # fmt: skip
    if github is None:
        raise GithubError(
            "give an administrator's token as GITHUB_TOKEN (`GITHUB_TOKEN=$(gh auth token) make github-check`), and the "
            "repository as shopcat:github.repository in Pulumi.prod.yaml or as GITHUB_REPOSITORY"
        )
    return github


def main() -> int:
    """Print the table; return 1 if something is to be changed (``python -m pipeline.github_check``)."""
    environment = os.environ
    try:
        _, settings = read_stack(PRODUCTION_FILE)
        github = _github(environment, settings.github.repository)
        texts = [
            path.read_text(encoding="utf-8")
            for path in sorted((PRODUCTION_FILE.parent / WORKFLOWS_FOLDER).glob("*.yml"))
        ]
        rows = check_repository(github, settings.github.environment, texts)
    except ShopCatError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if settings.github.unprotected_main:
        accepted = "shopcat:github.unprotectedMain is true: a release goes on though one person can release alone"
        rows.append(Row("releases", FindingState.LOOK, accepted))
    print(f"{github.repository}; nothing is changed by this\n\n{findings_table(rows)}")
    changes = sum(row.state is FindingState.CHANGE for row in rows)
    print(f"\n{changes} to change, of {len(rows)}")
    return 1 if changes else 0


if __name__ == "__main__":
    sys.exit(main())
