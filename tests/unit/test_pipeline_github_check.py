"""`make github-check` and the release's first step, against a server on this machine that answers as GitHub documents."""

import copy
import fnmatch
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from infra.commands.findings import FindingState, Row
from infra.errors import ShopCatError
from infra.settings import GithubSettings
from pipeline import github_check, protection
from pipeline.github import Github
from pipeline.protection import NEEDS, Guard

ROOT = Path(__file__).resolve().parents[2]
REPOSITORY = "shop/cat"
WORKFLOWS = [path.read_text() for path in sorted((ROOT / ".github" / "workflows").glob("*.yml"))]
MAIN_RULESET: dict[str, Any] = json.loads((ROOT / protection.RULESET).read_text())
TAGS_RULESET: dict[str, Any] = json.loads((ROOT / github_check.TAGS_RULESET).read_text())
ENVIRONMENT = "/environments/production"
POLICIES = f"{ENVIRONMENT}/deployment-branch-policies"
RULES = "/rules/branches/main"
CLASSIC = "/branches/main/protection"
WORKFLOW = "/actions/permissions/workflow"
FORKS = "/actions/permissions/fork-pr-contributor-approval"
PRIVATE_FORKS = "/actions/permissions/fork-pr-workflows-private-repos"
REVIEWED = {
    "type": "required_reviewers",
    "prevent_self_review": True,
    "reviewers": [{"type": "Team", "reviewer": {"slug": "production"}}],
}

Answers = dict[str, Any]
"""Path below the repository → what GitHub answers; a number is a refusal with that status."""


def as_it_should_be() -> Answers:
    """Every answer of a repository that was set up with the two rulesets of this one."""
    return copy.deepcopy({
        "": {"full_name": REPOSITORY, "private": False, "default_branch": "main"},
        RULES: [{**rule, "ruleset_id": 1, "ruleset_source": REPOSITORY} for rule in MAIN_RULESET["rules"]],
        "/rulesets/1": {**MAIN_RULESET, "id": 1},
        "/rulesets": [{"id": 2, "name": "tags", "target": "tag", "enforcement": "active"}],
        "/rulesets/2": {**TAGS_RULESET, "id": 2},
        ENVIRONMENT: {
            "name": "production",
            "can_admins_bypass": False,
            "protection_rules": [{"type": "branch_policy"}, REVIEWED],
            "deployment_branch_policy": {"protected_branches": False, "custom_branch_policies": True},
        },
        POLICIES: {"total_count": 1, "branch_policies": [{"name": "main", "type": "branch"}]},
        WORKFLOW: {"default_workflow_permissions": "read", "can_approve_pull_request_reviews": False},
        FORKS: {"approval_policy": "all_external_contributors"},
        "/codeowners/errors": {"errors": []},
        "/labels/no-preview": {"name": "no-preview"},
        **{f"/actions/variables/{name}": {"name": name, "value": "x"} for name in ("APP_SRC", "AWS_ACCOUNT_ID", "AWS_REGION")},
    })  # fmt: skip


class Served(ThreadingHTTPServer):
    """One repository; what it has no answer for it refuses, as GitHub does what is not there."""

    def __init__(self) -> None:
        self.answers: Answers = {}
        self.asked: list[str] = []
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(BaseHTTPRequestHandler):
    server: Served

    def log_message(self, *_: Any) -> None:
        """Not on the screen."""

    def do_GET(self) -> None:
        path = urlsplit(self.path).path.removeprefix(f"/repos/{REPOSITORY}")
        self.server.asked.append(path)
        found = self.server.answers.get(path, 404)
        status, body = (found, {"message": "Not Found"}) if isinstance(found, int) else (200, found)
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def served() -> Iterator[Served]:
    server = Served()
    server.answers = as_it_should_be()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def github(served: Served) -> Github:
    return Github(f"http://127.0.0.1:{served.server_port}", REPOSITORY, "secret")


def rows(served: Served) -> list[Row]:
    return github_check.check_repository(github(served), "production", WORKFLOWS)


def open_rows(served: Served) -> set[str]:
    return {row.subject for row in rows(served) if row.state is not FindingState.OK}


# make github-check ----------------------------------------------------------------------------------------------------


def test_a_repository_set_up_with_our_rulesets_is_fine(served: Served) -> None:
    assert open_rows(served) == set()
    assert len(rows(served)) > 15


def put(path: str, value: Any) -> Callable[[Answers], None]:
    def change(answers: Answers) -> None:
        answers[path] = value

    return change


def within(path: str, key: str, value: Any) -> Callable[[Answers], None]:
    def change(answers: Answers) -> None:
        answers[path] = {**answers[path], key: value}

    return change


def parameter(name: str, value: Any) -> Callable[[Answers], None]:
    def change(answers: Answers) -> None:
        rule = next(one for one in answers[RULES] if one["type"] == "pull_request")
        rule["parameters"][name] = value

    return change


def without(kind: str, path: str = RULES) -> Callable[[Answers], None]:
    def change(answers: Answers) -> None:
        found = answers[path]
        rules = found if isinstance(found, list) else found["rules"]
        kept = [one for one in rules if one["type"] != kind]
        answers[path] = kept if isinstance(found, list) else {**found, "rules": kept}

    return change


ADMINISTRATORS = [{"actor_id": 5, "actor_type": "RepositoryRole", "bypass_mode": "always"}]
OPEN: dict[str, tuple[Callable[[Answers], None], set[str]]] = {
    "another default branch": (within("", "default_branch", "master"), {"default branch"}),
    "no rules": (put(RULES, []), {f"main: {need}" for need in NEEDS}),
    "no approvals": (parameter("required_approving_review_count", 0), {"main: pull request"}),
    "no code owners": (parameter("require_code_owner_review", False), {"main: code owners"}),
    "last push by oneself": (parameter("require_last_push_approval", False), {"main: last push"}),
    "deleted": (without("deletion"), {"main: no deletion"}),
    "forced": (without("non_fast_forward"), {"main: no force push"}),
    "bypassed": (within("/rulesets/1", "bypass_actors", ADMINISTRATORS), {f"main: {need}" for need in NEEDS}),
    "environment for all": (within(ENVIRONMENT, "deployment_branch_policy", None), {"environment production: branches"}),
    "environment for protected ones": (
        within(ENVIRONMENT, "deployment_branch_policy", {"protected_branches": True, "custom_branch_policies": False}),
        {"environment production: branches"},
    ),
    "environment for more": (
        put(POLICIES, {"branch_policies": [{"name": "main", "type": "branch"}, {"name": "*", "type": "branch"}]}),
        {"environment production: branches"},
    ),
    "environment for a tag": (
        put(POLICIES, {"branch_policies": [{"name": "main", "type": "tag"}]}),
        {"environment production: branches"},
    ),
    "no reviewers": (within(ENVIRONMENT, "protection_rules", []), {"environment production: reviews"}),
    "empty reviewers": (
        within(ENVIRONMENT, "protection_rules", [{**REVIEWED, "reviewers": []}]),
        {"environment production: reviews"},
    ),
    "self-review": (
        within(ENVIRONMENT, "protection_rules", [{**REVIEWED, "prevent_self_review": False}]),
        {"environment production: reviews"},
    ),
    "administrators": (within(ENVIRONMENT, "can_admins_bypass", True), {"environment production: reviews"}),
    "administrators, perhaps": (within(ENVIRONMENT, "can_admins_bypass", None), {"environment production: reviews"}),
    "no environment": (put(ENVIRONMENT, 404), {"environment production"}),
    "tokens write": (within(WORKFLOW, "default_workflow_permissions", "write"), {"Actions: token"}),
    "Actions approve": (within(WORKFLOW, "can_approve_pull_request_reviews", True), {"Actions: approvals"}),
    "first-timers alone": (put(FORKS, {"approval_policy": "first_time_contributors"}), {"forks: approval"}),
    "no tag ruleset": (put("/rulesets", []), {"tags v*: deletion", "tags v*: update"}),
    "tag ruleset off": (
        within("/rulesets/2", "enforcement", "evaluate"),
        {"tags v*: deletion", "tags v*: update"},
    ),
    "tags move": (without("update", "/rulesets/2"), {"tags v*: update"}),
    "tags go": (without("deletion", "/rulesets/2"), {"tags v*: deletion"}),
    "other tags": (
        within("/rulesets/2", "conditions", {"ref_name": {"include": ["refs/tags/v1*"], "exclude": []}}),
        {"tags v*: deletion", "tags v*: update"},
    ),
    "some tags": (
        within("/rulesets/2", "conditions", {"ref_name": {"include": ["~ALL"], "exclude": ["refs/tags/v2*"]}}),
        {"tags v*: deletion", "tags v*: update"},
    ),
    "tags bypassed": (
        within("/rulesets/2", "bypass_actors", ADMINISTRATORS),
        {"tags v*: deletion", "tags v*: update"},
    ),
    "no tag can be made": (
        within("/rulesets/2", "rules", [*TAGS_RULESET["rules"], {"type": "creation"}]),
        {"tags v*: creation"},
    ),
    "unknown owner": (
        put("/codeowners/errors", {"errors": [{"line": 3, "kind": "Unknown owner", "source": "/ci/ @shopcat/nobody"}]}),
        {"CODEOWNERS"},
    ),
    "no label": (put("/labels/no-preview", 404), {"label no-preview"}),
    "no variable": (put("/actions/variables/AWS_REGION", 404), {"variable AWS_REGION"}),
    "empty variable": (put("/actions/variables/APP_SRC", {"name": "APP_SRC", "value": ""}), {"variable APP_SRC"}),
}  # fmt: skip


@pytest.mark.parametrize("name", OPEN)
def test_what_is_open_is_a_row_with_what_mends_it(served: Served, name: str) -> None:
    change, expected = OPEN[name]
    change(served.answers)
    found = [row for row in rows(served) if row.state is not FindingState.OK]
    assert {row.subject for row in found} == expected
    assert all(row.todo and "should be" in row.finding for row in found)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"run_workflows_from_fork_pull_requests": False}, set()),
        (
            {
                "run_workflows_from_fork_pull_requests": True,
                "send_write_tokens_to_workflows": False,
                "send_secrets_and_variables": False,
                "require_approval_for_fork_pr_workflows": True,
            },
            set(),
        ),
        ({"run_workflows_from_fork_pull_requests": True}, {"forks: what they get"}),
        (
            {
                "run_workflows_from_fork_pull_requests": True,
                "send_write_tokens_to_workflows": False,
                "send_secrets_and_variables": False,
                "require_approval_for_fork_pr_workflows": False,
            },
            {"forks: what they get"},
        ),
    ],
)
def test_a_private_repository_says_what_forks_get(served: Served, answer: Any, expected: set[str]) -> None:
    """Public ones give them nothing; GitHub answers for private ones alone (and 422 the other way round)."""
    served.answers[""]["private"] = True
    served.answers[FORKS] = 422
    served.answers[PRIVATE_FORKS] = answer
    assert open_rows(served) == expected


@pytest.mark.parametrize("status", [401, 403, 404, 500])
@pytest.mark.parametrize("path", as_it_should_be())
def test_what_the_token_may_not_see_is_never_fine(served: Served, path: str, status: int) -> None:
    before = {row.subject: row.state for row in rows(served)}
    served.answers[path] = status
    after = rows(served)
    hidden = set(before) - {row.subject for row in after if row.state is FindingState.OK}
    assert hidden, "nothing depends on this answer, or its loss goes unnoticed"
    said = [row for row in after if row.state is FindingState.CHANGE]
    assert said
    if status in (401, 403):
        assert all("can't be seen with this token" in row.finding and "(read)" in row.todo for row in said)


def test_who_may_bypass_is_unknown_to_a_token_that_is_not_told(served: Served) -> None:
    """GitHub leaves bypass_actors out for whoever may not change the ruleset (docs.github.com/rest/repos/rules)."""
    for path in ("/rulesets/1", "/rulesets/2"):
        del served.answers[path]["bypass_actors"]
    assert open_rows(served) == {*(f"main: {need}" for need in NEEDS), "tags v*: deletion", "tags v*: update"}
    assert all("unknown" in row.finding for row in rows(served) if row.state is not FindingState.OK)


CLASSIC_WHOLE: dict[str, Any] = {
    "required_pull_request_reviews": {
        "required_approving_review_count": 1,
        "require_code_owner_reviews": True,
        "require_last_push_approval": True,
    },
    "enforce_admins": {"enabled": True},
    "allow_force_pushes": {"enabled": False},
    "allow_deletions": {"enabled": False},
}


def test_classic_protection_is_as_good_for_an_administrator(served: Served) -> None:
    served.answers[RULES] = []
    served.answers[CLASSIC] = copy.deepcopy(CLASSIC_WHOLE)
    assert open_rows(served) == set()
    served.answers[CLASSIC]["enforce_admins"] = {"enabled": False}
    assert open_rows(served) == {f"main: {need}" for need in NEEDS}
    served.answers[CLASSIC]["enforce_admins"] = {"enabled": True}
    served.answers[CLASSIC]["required_pull_request_reviews"]["bypass_pull_request_allowances"] = {
        "users": [{}],
        "apps": [],
    }
    assert "users named in it" in rows(served)[1].finding


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_nonsense_is_never_fine(document: Any) -> None:
    given_map = document if isinstance(document, dict) else {}
    found = [
        *github_check.judge_main(protection.ruleset_guards([given_map], {}), REPOSITORY),
        *github_check.judge_environment(given_map, [], "production", REPOSITORY),
        *github_check.judge_actions(given_map, REPOSITORY),
        *github_check.judge_forks(given_map, REPOSITORY, private=True),
        *github_check.judge_forks(given_map, REPOSITORY, private=False),
        *github_check.judge_tags([given_map], REPOSITORY)[:2],
        github_check.judge_owners({**given_map, "errors": document or None}),
    ]
    assert all(row.state is FindingState.CHANGE for row in found)


GUARDS = st.lists(
    st.builds(
        Guard,
        st.sampled_from(["ruleset 1", "ruleset 2", "classic protection"]),
        st.frozensets(st.sampled_from(sorted(NEEDS))),
        st.sampled_from([(), ("RepositoryRole 5 (always)",), (protection.BYPASS_UNKNOWN,)]),
    ),
    max_size=4,
)


@given(GUARDS)
def test_main_is_fine_only_if_each_need_has_a_guard_that_nobody_bypasses(guards: list[Guard]) -> None:
    states = {row.subject: row.state for row in github_check.judge_main(guards, REPOSITORY)}
    for need in NEEDS:
        held = any(need in guard.keeps and guard.bypass == () for guard in guards)
        assert states[f"main: {need}"] is (FindingState.OK if held else FindingState.CHANGE)


@given(
    st.tuples(*[st.integers(0, 30)] * 3),
    st.lists(
        st.sampled_from(["~ALL", "refs/tags/v*", "refs/tags/*", "refs/tags/v1.*", "refs/heads/v*", "v*"]), max_size=3
    ),
)
def test_a_tag_ruleset_covers_a_version_if_one_of_its_patterns_does(
    numbers: tuple[int, int, int], include: list[str]
) -> None:
    tag = f"v{numbers[0]}.{numbers[1]}.{numbers[2]}"
    expected = any(one == "~ALL" or fnmatch.fnmatchcase(f"refs/tags/{tag}", one) for one in include)
    ruleset = {"conditions": {"ref_name": {"include": include, "exclude": []}}}
    assert github_check.covers(ruleset, [tag]) is expected
    assert not github_check.covers(
        {"conditions": {"ref_name": {"include": include, "exclude": ["refs/tags/v*"]}}}, [tag]
    )


def test_the_variables_are_those_that_the_workflows_use() -> None:
    assert github_check.wanted_variables(WORKFLOWS) == {
        "APP_SRC": True,
        "AWS_ACCOUNT_ID": True,
        "AWS_REGION": True,
        "RUNNER": False,
        "RUNNER_PRODUCTION": False,
    }
    assert github_check.wanted_variables(["${{ vars.A || 'x' }} ${{ vars.A }}"]) == {"A": True}


def test_nothing_is_written(served: Served) -> None:
    rows(served)  # the server answers GET alone, and everything was found
    assert served.asked


def run_check(served: Served, monkeypatch: pytest.MonkeyPatch, **more: str) -> int:
    for name in ("GITHUB_TOKEN", "GH_TOKEN", "GITHUB_REPOSITORY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GITHUB_API_URL", f"http://127.0.0.1:{served.server_port}")
    for name, value in more.items():
        monkeypatch.setenv(name, value)
    return github_check.main()


def test_the_command_prints_the_table_and_fails_while_something_is_open(
    served: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given_ = {"GH_TOKEN": "secret", "GITHUB_REPOSITORY": REPOSITORY}
    assert run_check(served, monkeypatch, **given_) == 0
    assert "0 to change" in capsys.readouterr().out
    served.answers[RULES] = []
    assert run_check(served, monkeypatch, **given_) == 1
    said = capsys.readouterr().out
    assert "gh api -X POST repos/shop/cat/rulesets --input .github/rulesets/main.json" in said
    assert "secret" not in said


@pytest.mark.parametrize("missing", ["GITHUB_TOKEN", "GITHUB_REPOSITORY"])
def test_the_command_says_what_it_needs(
    served: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], missing: str
) -> None:
    given_ = {"GITHUB_TOKEN": "secret", "GITHUB_REPOSITORY": REPOSITORY}
    del given_[missing]
    assert run_check(served, monkeypatch, **given_) == 1
    assert missing in capsys.readouterr().err
    assert served.asked == []


# The release's first step ---------------------------------------------------------------------------------------------

PLAIN = "config:\n  shopcat:domain: shop.example.com\n"
ACCEPTING = f"{PLAIN}  shopcat:github:\n    repository: shop/cat\n    unprotectedMain: true # one person\n"


def run_step(
    served: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str
) -> tuple[int, str]:
    file = tmp_path / "Pulumi.prod.yaml"
    file.write_text(text)
    monkeypatch.setattr(protection, "PRODUCTION_FILE", file)
    monkeypatch.setenv("GITHUB_API_URL", f"http://127.0.0.1:{served.server_port}")
    monkeypatch.setenv("GITHUB_TOKEN", "secret")
    monkeypatch.setenv("GITHUB_REPOSITORY", REPOSITORY)
    return protection.main(), capsys.readouterr().out


STEP: dict[str, tuple[Callable[[Answers], None], str, int, str]] = {
    "protected": (put("/rulesets/1", 403), PLAIN, 0, "main is protected"),
    "unprotected": (put(RULES, []), PLAIN, 1, "--input .github/rulesets/main.json"),
    "unprotected and accepted": (put(RULES, []), ACCEPTING, 0, "released all the same"),
    "half protected": (parameter("require_code_owner_review", False), PLAIN, 1, "the approval of code owners"),
    "nobody reviews": (within(ENVIRONMENT, "protection_rules", []), PLAIN, 1, "no reviewers"),
    "nobody reviews, accepted": (within(ENVIRONMENT, "protection_rules", []), ACCEPTING, 0, "no reviewers"),
    "open environment": (within(ENVIRONMENT, "deployment_branch_policy", None), PLAIN, 1, "open to every branch"),
    "open environment is never accepted": (
        within(ENVIRONMENT, "deployment_branch_policy", None), ACCEPTING, 1, "open to every branch",
    ),
    "no environment": (put(ENVIRONMENT, 404), ACCEPTING, 1, "the first job that names it makes it"),
    "another environment": (
        put("/rulesets/1", 403), ACCEPTING.replace("unprotectedMain: true", "environment: live"), 1, "give both the same name",
    ),
    "unseen environment": (put(ENVIRONMENT, 403), PLAIN, 1, "can't be seen"),
    "untold bypass": (within(ENVIRONMENT, "can_admins_bypass", None), PLAIN, 0, "bypass it is unknown"),
    "unseen rules": (put(RULES, 403), ACCEPTING, 1, "answered 403"),
    "GitHub is down": (put(RULES, 500), ACCEPTING, 1, "answered 500"),
}  # fmt: skip


@pytest.mark.parametrize("name", STEP)
def test_a_release_is_refused_while_main_is_not_protected(
    served: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str
) -> None:
    change, text, code, words = STEP[name]
    change(served.answers)
    found, said = run_step(served, monkeypatch, capsys, tmp_path, text)
    assert (found, words in said) == (code, True), said
    assert ("::error" in said) is (code == 1)


def test_the_step_needs_a_job(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("GITHUB_TOKEN", raising=False)
    assert protection.main() == 1
    assert "GITHUB_TOKEN" in capsys.readouterr().out


SPELT = st.fixed_dictionaries(
    {"repository": st.just("shop/cat")},
    optional={
        "environment": st.sampled_from(["production", "live", '"prod 1"', "a_b.c-d"]),
        "unprotectedMain": st.sampled_from(["true", "false", '"true"', "'false'"]),
    },
)


@given(SPELT, st.sampled_from(["", "  # said so"]))
def test_the_step_reads_the_settings_as_the_program_does(values: dict[str, str], after: str) -> None:
    text = "config:\n  shopcat:github:\n" + "".join(f"    {key}: {value}{after}\n" for key, value in values.items())
    read = GithubSettings.model_validate(yaml.safe_load(text)["config"]["shopcat:github"])
    assert protection.is_accepted(text) is read.unprotected_main
    assert protection.environment_name(text) == read.environment


def test_an_environment_with_a_strange_list_of_branches_is_refused(served: Served) -> None:
    served.answers[POLICIES] = {"branch_policies": ["main"]}
    with pytest.raises(ShopCatError, match="answered no list"):
        protection.read_environment(github(served), "production")


# What the repository brings -------------------------------------------------------------------------------------------


def test_the_release_asks_before_it_tags_and_before_it_takes_its_role() -> None:
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())["jobs"]
    for job, afterwards in (("version", "pipeline.version"), ("release", "configure-aws-credentials")):
        steps = [f"{step.get('run', '')}{step.get('uses', '')}" for step in jobs[job]["steps"]]
        asks = next(place for place, step in enumerate(steps) if step == "python3 -m pipeline.protection")
        assert asks < next(place for place, step in enumerate(steps) if afterwards in step)
        assert jobs[job]["permissions"]["actions"] == "read"
    assert jobs["release"]["environment"] == GithubSettings().environment


OWNED = (
    ".ci/run", ".github/workflows/release.yml", ".github/CODEOWNERS", ".github/rulesets/main.json", "Makefile",
    "Pulumi.yaml", "Pulumi.prod.yaml", "Pulumi.pr.yaml", "app_docker/Dockerfile", "infra/__main__.py",
    "infra/foundation/load_balancers.py",
    "pins.txt", "pipeline/release.py", "policy/__main__.py", "pyproject.toml", "requirements.txt", "requirements-dev.txt",
    "requirements/infra.in",
)  # fmt: skip


@pytest.mark.parametrize("path", OWNED)
def test_what_runs_with_productions_rights_has_owners(path: str) -> None:
    """Patterns as docs.github.com, "About code owners": anchored at the root; a folder's pattern holds for all in it."""
    lines = (ROOT / ".github" / "CODEOWNERS").read_text().splitlines()
    patterns = [line.split() for line in lines if line and not line.startswith("#")]
    assert all(pattern.startswith("/") and owners for pattern, *owners in patterns)
    assert any(
        fnmatch.fnmatchcase(f"/{path}", f"{pattern}*" if pattern.endswith("/") else pattern) for pattern, *_ in patterns
    )
