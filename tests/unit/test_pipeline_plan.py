"""The first step of a job: what a pull request's preview should be like, and whether the runner reaches the cluster."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from infra.errors import ShopCatError
from infra.names import MAIN_BRANCH
from pipeline import plan
from pipeline.plan import PullRequest
from tests.unit.test_pipeline_github import Served, served

__all__ = ["served"]

ROOT = Path(__file__).parents[2]


def event(**changes: Any) -> dict[str, Any]:
    request: dict[str, Any] = {
        "number": 12,
        "state": "open",
        "labels": [],
        "head": {"sha": "a" * 40, "repo": {"full_name": "shop/cat"}},
        "base": {"ref": "main", "repo": {"full_name": "shop/cat"}},
    }
    return {"action": "synchronize", "pull_request": {**request, **changes}}


@pytest.mark.parametrize(
    ("changes", "action"),
    [
        ({}, "up"),
        ({"labels": [{"name": "bug"}]}, "up"),
        ({"labels": [{"name": "bug"}, {"name": "no-preview"}]}, "close"),
        ({"state": "closed"}, "close"),
        ({"base": {"ref": "release", "repo": {"full_name": "shop/cat"}}}, "close"),
        ({"number": 9}, "none"),
        ({"head": {"sha": "b" * 40, "repo": {"full_name": "else/cat"}}}, "fork"),
        ({"head": {"sha": "b" * 40, "repo": None}}, "fork"),
        ({"head": {"sha": "b" * 40, "repo": {"full_name": "Shop/CAT"}}}, "up"),
        ({"state": "closed", "head": {"sha": "b" * 40, "repo": None}}, "fork"),
    ],
)
def test_what_is_done_follows_from_how_the_pull_request_stands(changes: dict[str, Any], action: str) -> None:
    assert plan.decide_job(PullRequest.read(event(**changes))) == action


@pytest.mark.parametrize(
    ("text", "known", "wrong"),
    [
        ("config:\n  shopcat:github:\n    repository: shop/cat\n", "Shop/Cat", True),
        ("config:\n  shopcat:github: {repository: 'shop/cat'}\n", "Shop/Cat", True),
        ("config:\n  shopcat:github:\n    repository: Shop/Cat # ours\n", "Shop/Cat", False),
        ("config:\n  shopcat:github:\n    repository: shop/cat\n", "ann/copy", False),
        ("config:\n  # repository: shop/cat\n", "Shop/Cat", False),
    ],
)
def test_a_name_that_aws_would_not_know_is_told_before_a_role_is_asked_for(
    text: str, known: str, *, wrong: bool
) -> None:
    said = plan.spelling_problem(text, {"GITHUB_REPOSITORY": known})
    assert bool(said) is wrong
    assert not wrong or f"set it to {known}" in said


@given(st.binary(max_size=50))
def test_any_event_file_is_one_clear_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "event"
    path.write_bytes(data)
    with pytest.raises(ShopCatError):
        plan.read_event({"GITHUB_EVENT_PATH": str(path)})


@pytest.mark.parametrize("which", ["labeled", "opened", "closed", "anything"])
def test_the_kind_of_event_decides_nothing(which: str) -> None:
    assert plan.decide_job(PullRequest.read({**event(), "action": which})) == "up"


def test_the_api_tells_of_a_pull_request_in_the_same_words() -> None:
    assert PullRequest.read(event()["pull_request"]) == PullRequest.read(event())


@pytest.mark.parametrize("event", [{"ref": "refs/heads/main"}, [], "text", {"pull_request": 1}, {"pull_request": None}])
def test_an_event_without_a_pull_request_is_refused(event: Any) -> None:
    with pytest.raises(ShopCatError, match="pull_request alone"):
        PullRequest.read(event)


@pytest.mark.parametrize("text", [None, "", "{", "[1"])
def test_an_event_that_can_not_be_read_is_one_clear_error(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "event.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ShopCatError, match=r"event\.json can't be read"):
        plan.read_event({"GITHUB_EVENT_PATH": str(path)})


OTHER_HEAD = {"sha": "b" * 40, "repo": {"full_name": "shop/cat"}}


@pytest.mark.parametrize(
    ("then", "now", "action"),
    [
        ({}, {}, "up"),
        ({}, {"head": OTHER_HEAD}, "later"),
        ({"state": "closed"}, {"head": OTHER_HEAD}, "later"),
        ({}, {"state": "closed"}, "close"),
        ({}, {"labels": [{"name": "no-preview"}]}, "close"),
        ({"labels": [{"name": "no-preview"}]}, {}, "up"),
        ({"state": "closed"}, {}, "up"),
        ({"state": "closed"}, {"state": "closed"}, "close"),
    ],
)
def test_a_job_that_is_run_again_goes_by_how_the_pull_request_stands_now(
    served: Served, tmp_path: Path, then: dict[str, Any], now: dict[str, Any], action: str
) -> None:
    served.pulls = [event(**now)["pull_request"]]
    assert plan.decide_now(*plan.read_pull_request(job(served, tmp_path, event(**then)), pause_seconds=0)) == action


def job(served: Served, directory: Path, payload: dict[str, Any]) -> dict[str, str]:
    """What a job's first step finds in its environment."""
    (directory / "event.json").write_text(json.dumps(payload))
    return {
        "GITHUB_EVENT_PATH": str(directory / "event.json"),
        "GITHUB_API_URL": f"http://127.0.0.1:{served.server_port}",
        "GITHUB_REPOSITORY": "shop/cat",
        "GITHUB_TOKEN": "secret",
    }


def test_an_api_that_is_a_moment_behind_the_push_is_asked_again(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.pulls = [event(head=OTHER_HEAD)["pull_request"]]
    environment = job(served, tmp_path, event())

    def later(_: float) -> None:
        served.pulls = [event()["pull_request"]]

    monkeypatch.setattr("time.sleep", later)
    assert plan.decide_now(*plan.read_pull_request(environment)) == "up"


def test_a_pull_request_that_github_does_not_know_is_refused(served: Served, tmp_path: Path) -> None:
    with pytest.raises(ShopCatError, match="no pull request 12"):
        plan.read_pull_request(job(served, tmp_path, event()))


def test_the_setting_is_found_in_the_committed_file_as_yaml_finds_it() -> None:
    text = (ROOT / "Pulumi.prod.yaml").read_text()
    assert plan.api_access(text) == yaml.safe_load(text)["config"]["shopcat:apiAccess"]


@pytest.mark.parametrize("line", ['  shopcat:apiAccess: "private"', "  shopcat:apiAccess: private # inside the VPC"])
def test_other_ways_to_write_it(line: str) -> None:
    assert plan.api_access(f"config:\n{line}\n") == "private"


def test_a_file_without_the_setting_is_refused() -> None:
    with pytest.raises(ShopCatError, match="shopcat:apiAccess"):
        plan.api_access("config:\n  shopcat:domain: a.example\n")


@pytest.mark.parametrize(
    ("access", "runner", "out"),
    [
        ("public", "github-hosted", False),
        ("public", "self-hosted", False),
        ("cidrs", "github-hosted", True),
        ("private", "github-hosted", True),
        ("private", "self-hosted", False),
        ("private", "", False),
    ],
)
def test_a_hosted_runner_reaches_a_public_api_alone(access: str, runner: str, *, out: bool) -> None:
    reason = plan.access_problem(access, {"RUNNER_ENVIRONMENT": runner}, "RUNNER_PRODUCTION")
    assert bool(reason) is out
    assert not out or ("variable RUNNER_PRODUCTION to" in reason and access in reason)


@pytest.mark.parametrize(
    ("ref", "variable"), [("refs/pull/12/merge", "RUNNER"), ("refs/heads/main", "RUNNER_PRODUCTION")]
)
def test_who_is_kept_out_is_told_which_runner_to_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ref: str, variable: str
) -> None:
    (tmp_path / "event.json").write_text(json.dumps(event(state="closed")))
    (tmp_path / "Pulumi.prod.yaml").write_text("config:\n  shopcat:apiAccess: private\n")
    monkeypatch.setattr(plan, "PRODUCTION_FILE", tmp_path / "Pulumi.prod.yaml")
    environment = {
        "GITHUB_EVENT_PATH": str(tmp_path / "event.json"),
        "GITHUB_REF": ref,
        "RUNNER_ENVIRONMENT": "github-hosted",
    }
    with pytest.raises(ShopCatError, match=f"variable {variable} to"):
        plan._plan_job(environment)


def test_it_runs_before_anything_is_installed_and_tells_the_steps_that_follow(tmp_path: Path) -> None:
    files = {name: tmp_path / name for name in ("GITHUB_EVENT_PATH", "GITHUB_OUTPUT", "GITHUB_ENV")}
    files["GITHUB_EVENT_PATH"].write_text(json.dumps(event()))
    # -I -S: no packages, neither the environment's nor the user's.
    program = (
        f"import runpy, sys; sys.path.insert(0, {str(ROOT)!r}); sys.argv[1:] = []; "
        "runpy.run_module('pipeline.plan', run_name='__main__')"
    )
    environment = {name: str(path) for name, path in files.items()}

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-I", "-S", "-c", program], env=environment, text=True, capture_output=True, check=False
        )

    result = run()
    assert result.returncode == 0, result.stderr
    assert files["GITHUB_OUTPUT"].read_text() == "action=up\n"
    assert files["GITHUB_ENV"].read_text().startswith("SHOPCAT_STARTED=")
    files["GITHUB_EVENT_PATH"].write_text("{")
    refused = run()
    assert refused.returncode == 1
    assert "::error title=pipeline::GITHUB_EVENT_PATH" in refused.stdout
    assert not refused.stderr


def test_the_bot_finds_every_image_that_is_pinned() -> None:
    manager = json.loads((ROOT / ".github" / "renovate.json").read_text())["customManagers"][0]
    # JavaScript writes (?<name>…) where Python writes (?P<name>…).
    wanted = re.compile(manager["matchStrings"][0].replace("(?<", "(?P<"))
    found = {}
    for path in (ROOT / "app_docker" / "Dockerfile", *ROOT.glob("Pulumi.*.yaml")):
        name = path.relative_to(ROOT).as_posix()
        assert any(re.search(pattern.strip("/"), name) for pattern in manager["managerFilePatterns"]), name
        text = path.read_text()
        found[name] = [match["depName"] for match in wanted.finditer(text)]
        assert sum(match["currentDigest"] is not None for match in wanted.finditer(text)) == text.count("@sha256:"), (
            name
        )
    assert found["app_docker/Dockerfile"] == ["docker.io/library/python"]


def test_every_action_is_pinned_by_commit_with_its_version_beside_it() -> None:
    lines = [
        line.strip().removeprefix("- ")
        for path in (ROOT / ".github" / "workflows").glob("*.yml")
        for line in path.read_text().splitlines()
        if "uses:" in line
    ]
    assert len(lines) > 20
    for line in lines:
        assert re.fullmatch(r"uses: [\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), line


def workflow(name: str) -> dict[Any, Any]:
    found: dict[Any, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text())
    return found


def test_previews_are_for_the_branch_whose_jobs_may_close_them() -> None:
    # YAML 1.1 reads the key `on` as true.
    assert workflow("preview.yml")[True]["pull_request"]["branches"] == [MAIN_BRANCH]


def test_nothing_waits_behind_another_workflow_and_none_cuts_off_what_runs() -> None:
    queues = [workflow(name)["concurrency"] for name in ("preview.yml", "reaper.yml", "release.yml", "rollback.yml")]
    assert len({one["group"] for one in queues}) == 4
    assert not any(one["cancel-in-progress"] for one in queues)


@pytest.mark.parametrize(("name", "job"), [("release.yml", "release"), ("rollback.yml", "production")])
def test_no_workflow_of_a_branch_cancels_a_release_that_runs(name: str, job: str) -> None:
    """Any workflow may name a queue; a job whose condition still holds goes on (docs.github.com, workflow cancellation)."""
    condition = workflow(name)["jobs"][job]["if"]
    first, *others = condition.split(" && ")
    assert first == "always()"
    assert others
    assert all(word not in condition for word in ("||", "success()", "cancelled()"))
    needed = workflow(name)["jobs"][job].get("needs", [])
    assert not needed or f"needs.{needed}.result == 'success'" in others
    # A step without a condition is cancelled all the same; one with always() alone would run though a step before refused.
    steps = workflow(name)["jobs"][job]["steps"]
    role = next(place for place, step in enumerate(steps) if step.get("id") == "role")
    assert "configure-aws-credentials" in steps[role]["uses"]
    assert all("if" not in step for step in steps[: role + 1])
    assert steps[role + 1 :]
    for step in steps[role + 1 :]:
        assert step["if"].split(" && ")[:2] == ["always()", "steps.role.outcome == 'success'"]


def test_the_scripts_know_the_limit_of_the_job() -> None:
    job = workflow("preview.yml")["jobs"]["preview"]
    condition, minutes = job["timeout-minutes"].split(" && ")
    assert job["env"]["SHOPCAT_LIMIT_SECONDS"].split(" && ") == [condition, "900 || 300 }}"]
    assert minutes == "15 || 5 }}"
    assert f"'{plan.OFF_LABEL}'" in condition


def runner(name: str, job: str) -> str:
    return str(workflow(name)["jobs"][job]["runs-on"])


def test_what_takes_mains_roles_runs_on_no_machine_of_pull_requests() -> None:
    hosted, ours = "ubuntu-24.04", "vars.RUNNER_PRODUCTION || 'ubuntu-24.04'"
    assert runner("release.yml", "release") == f"${{{{ {ours} }}}}"
    assert runner("rollback.yml", "production") == f"${{{{ {ours} }}}}"
    assert runner("reaper.yml", "reaper") == f"${{{{ {ours} }}}}"
    assert runner("release.yml", "version") == runner("preview.yml", "fork") == runner("check.yml", "check") == hosted
    merged, _, pull_request = (
        runner("preview.yml", "preview").removeprefix("${{ ").removesuffix(" }}").partition(") || ")
    )
    assert merged == f"github.ref == 'refs/heads/main' && ({ours}"
    assert pull_request == "vars.RUNNER || 'ubuntu-24.04'"


def caches(name: str) -> list[dict[str, str]]:
    """What a workflow keeps or takes from a cache, but layers and what `make check` needs."""
    steps = [step for job in workflow(name)["jobs"].values() for step in job["steps"]]
    found = [step["with"] for step in steps if step.get("uses", "").startswith("actions/cache")]
    return [one for one in found if one["key"].startswith(("wheels-", "downloads-"))]


def test_what_is_cached_is_found_again_and_only_main_writes_it() -> None:
    assert len(caches("check.yml")) == 2
    assert caches("preview.yml") == caches("check.yml")
    assert caches("reaper.yml") == [one for one in caches("check.yml") if one["key"].startswith("wheels-")]
    for name in ("preview.yml", "reaper.yml"):
        text = (ROOT / ".github" / "workflows" / name).read_text()
        assert "actions/cache@" not in text, f"{name} may read caches only"
        assert "actions/cache/save" not in text


def test_a_job_with_a_role_runs_nothing_from_a_cache_that_it_cannot_verify() -> None:
    """Wheels by their hashes in requirements.txt, archives by theirs in pins.txt, layers in no release."""
    for name in ("preview.yml", "reaper.yml", "release.yml", "rollback.yml"):
        for job in workflow(name)["jobs"].values():
            paths = [step["with"]["path"] for step in job["steps"] if step.get("uses", "").startswith("actions/cache")]
            kinds = {path.removeprefix("${{ runner.temp }}/") for path in paths}
            assert kinds <= {"wheels", "downloads", "build-cache"}, name
            if name in ("release.yml", "rollback.yml"):
                assert kinds == set()
            runs = [step.get("run", "") for step in job["steps"]]
            needs_pulumi = any("pipeline release" in run or "preview up" in run for run in runs)
            installs = "python3 -m pipeline.downloads install" in runs
            assert installs or not needs_pulumi, name
            assert not installs or name != "reaper.yml", "a preview is removed without Pulumi"


def test_buildkit_is_one_version_by_digest() -> None:
    steps = [
        step
        for path in (ROOT / ".github" / "workflows").glob("*.yml")
        for job in workflow(path.name)["jobs"].values()
        for step in job["steps"]
        if step.get("uses", "").startswith("docker/setup-buildx-action")
    ]
    images = {step["with"]["driver-opts"] for step in steps}
    assert len(steps) == 3
    assert len(images) == 1
    assert re.fullmatch(r"image=docker\.io/moby/buildkit:v[0-9.]+@sha256:[0-9a-f]{64}", images.pop())
    dockerfile = (ROOT / "app_docker" / "Dockerfile").read_text()
    assert not re.search(r"^# *syntax *=", dockerfile, re.MULTILINE), "a frontend by a tag that moves"


def test_no_workflow_gives_a_pull_request_more_than_it_needs() -> None:
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        text = path.read_text()
        assert "pull_request_target" not in text, path
        assert "workflow_run" not in text, path
        document = yaml.safe_load(text)
        assert document["permissions"] == {}, path
        for name, job in document["jobs"].items():
            assert "permissions" in job, f"{path.name}: {name}"
            assert job["timeout-minutes"], f"{path.name}: {name}"
