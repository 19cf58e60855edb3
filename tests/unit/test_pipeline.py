"""The pipeline's decisions: comment, version, reaper, image tags, throw-away settings, locks, what follows a failure."""

import base64
import json
import os
import socketserver
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from moto import mock_aws

from infra.clients.aws import AwsClients
from infra.commands.bootstrap import Bootstrap
from infra.errors import ShopCatError
from infra.names import CLUSTER_INFO_PARAMETER, PREVIEW_REPOSITORY, PREVIEWS_BACKEND, state_bucket
from infra.release.listener_weights import Rule, View
from infra.release.state import Attempt, LedgerState, Live, Open, Release
from pipeline import comment, environment, image, preview, process, reaper, release, stack, state, version
from pipeline.comment import PreviewComment
from pipeline.errors import StackLockedError
from pipeline.stack import Backend, Stack
from pipeline.state import PreviewStack
from pipeline.steps import Step, Steps, steps_table
from tests.unit.releases import record
from twin.errors import TwinError
from twin.pulumi import backend_url
from twin.scenarios import pipeline_times

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
SHA = "a" * 40


# The comment ----------------------------------------------------------------------------------------------------------


def test_the_comment_tells_url_commit_changes_and_times() -> None:
    text = comment.render_comment(
        PreviewComment(
            "open",
            "pr-7",
            SHA,
            url="https://pr-7.preview.example",
            former_sha="b" * 40,
            changes={"same": 19, "update": 1},
            steps=[Step("build", 12.4), Step("pulumi up", 40.2)],
            run="https://github.com/shop/cat/actions/runs/1",
            compare="https://github.com/shop/cat/compare/b...a",
        )
    )
    for words in (
        f"Preview of {SHA}: **https://pr-7.preview.example**",
        "1 updated, 19 unchanged",
        "[what changed](https://github.com/shop/cat/compare/b...a)",
        "| build | 12 |",
        "| all together, of 300 | 53 |",
        "no-preview",
    ):
        assert words in text


def test_a_failure_is_shown_whole_and_can_not_end_its_own_block() -> None:
    text = comment.render_comment(
        PreviewComment("failed", "pr-7", SHA, steps=[Step("build", 3, failed=True)], message="no room\n``` <b>")
    )
    assert "no room" in text
    assert text.count("```") == 2
    assert "build (failed)" in text


def test_a_closed_preview_says_why_only_if_the_label_did_it() -> None:
    assert "no-preview" not in comment.render_comment(PreviewComment("closed", "pr-7"))
    assert "no-preview" in comment.render_comment(PreviewComment("closed", "pr-7", message="label"))


def test_what_changed_in_words() -> None:
    assert comment.describe_changes({"create": 20, "same": 0}) == "20 created"
    assert comment.describe_changes({}) == "nothing"


# Steps ----------------------------------------------------------------------------------------------------------------


def test_a_step_that_fails_is_timed_too() -> None:
    steps = Steps()
    with pytest.raises(ValueError, match="no"), steps.timed("build"):
        raise ValueError("no")
    assert steps.done[0].failed
    assert "failed" in steps_table(steps.done)


def test_the_table_says_what_of_the_budget_is_used() -> None:
    assert steps_table([Step("a", 30), Step("b", 60)]).endswith("90.0 s  of 300 s (30 %)")
    assert steps_table([Step("a", 30)], budget_seconds=None).endswith("30.0 s")


# Reaper ---------------------------------------------------------------------------------------------------------------


def test_closed_and_old_previews_are_chosen_and_no_others() -> None:
    seen = [PreviewStack(1, NOW), PreviewStack(2, NOW - timedelta(days=14)), PreviewStack(3, NOW - timedelta(days=13))]
    chosen = reaper.choose_previews(seen, {2, 3}, NOW)
    assert set(chosen) == {1, 2}
    assert "closed" in chosen[1]
    assert "14 days" in chosen[2]


def test_images_of_a_closed_pull_request_without_those_of_open_ones() -> None:
    assert preview.image_tags("c", ["a", "b", "c"], ["b", "z"]) == ["a", "c"]
    assert preview.image_tags("", [], []) == []


# Versions -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    git(tmp_path, "init", "--quiet")
    return tmp_path


def git(directory: Path, *arguments: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
    result = subprocess.run(["git", *who, *arguments], cwd=directory, check=True, text=True, capture_output=True)
    return result.stdout.strip()


def commit(directory: Path, message: str) -> str:
    git(directory, "commit", "--quiet", "--allow-empty", "--message", message)
    return git(directory, "rev-parse", "HEAD")


@pytest.mark.parametrize(
    ("messages", "wanted"),
    [
        (["fix: a price"], "v1.4.1"),
        (["feat(cart): more cats", "fix: a price"], "v1.5.0"),
        (["feat!: other orders"], "v2.0.0"),
        (["fix: a price\n\nBREAKING CHANGE: other orders"], "v2.0.0"),
        (["perf(search): an index"], "v1.4.1"),
        (["revert: a price"], "v1.4.1"),
        (["Fix: a price"], "v1.4.1"),
        (['Revert "feat: one"\n\nReverts shop/cat#3'], "v1.4.1"),
        (['Reapply "feat: one"\n\nThis reverts commit 1234567.'], "v1.4.1"),
        (["feat: one", 'Revert "feat: one"'], "v1.5.0"),
        (["docs: a word", "chore(deps): newer base image", "Merge pull request #3 from shop/fix"], None),
        (["wip: half a cat", "deps: newer base image", "improvement: a price", "fixup: a price"], None),
        (["Revert the price", 'wip: Revert "feat: one"'], None),
        (["chore!: other orders"], "v2.0.0"),
        (["wip(cart)!: other orders"], "v2.0.0"),
        (["refactor: q\n\nBREAKING CHANGE: other orders"], "v2.0.0"),
        (["chore: q\n\nBREAKING CHANGE: other orders", "fix: a price"], "v2.0.0"),
        ([], None),
    ],
)
def test_the_next_version_follows_from_the_commits(clone: Path, messages: list[str], wanted: str | None) -> None:
    commit(clone, "feat: before")
    git(clone, "tag", "v1.4.0")
    git(clone, "tag", "not-a-version")
    for message in messages:
        commit(clone, message)
    if messages:
        assert version.next_version(clone) == wanted
    else:
        assert version.next_version(clone) == "v1.4.0"  # a job that runs again for a commit that has its version


def test_the_notes_name_what_releases_and_nothing_else(clone: Path) -> None:
    for message in ("wip: half a cat", "feat: one", 'Revert "feat: one"', "chore: q\n\nBREAKING CHANGE: other orders"):
        commit(clone, message)
    told = [line.rpartition(" (")[0] for line in version.notes(clone).splitlines()]
    assert told == ["- one", '- Revert "feat: one"', "- q"]


def test_the_first_version_of_all(clone: Path) -> None:
    commit(clone, "Plain words")
    assert version.next_version(clone) is None
    commit(clone, "feat: a shop")
    assert version.next_version(clone) == "v1.0.0"


def test_a_tag_stays_where_it_is(clone: Path) -> None:
    commit(clone, "feat: a shop")
    version.put_tag(clone, "v1.0.0", {})
    version.put_tag(clone, "v1.0.0", {})
    commit(clone, "feat: more")
    with pytest.raises(ShopCatError, match="never moves"):
        version.put_tag(clone, "v1.0.0", {})


def test_a_shallow_clone_is_refused(clone: Path, tmp_path: Path) -> None:
    for message in ("feat: one", "feat: two"):
        commit(clone, message)
    git(tmp_path, "clone", "--quiet", "--depth", "1", f"file://{clone}", "shallow")
    with pytest.raises(ShopCatError, match="fetch-depth"):
        version.next_version(tmp_path / "shallow")


@pytest.mark.parametrize("text", ["1.4.0", "v1.4", "v01.4.0", "latest", "v1.4.0-rc1"])
def test_what_is_no_version_is_refused(text: str) -> None:
    with pytest.raises(ShopCatError, match=r"v1\.4\.0"):
        version.check_version(text)


# Stacks ---------------------------------------------------------------------------------------------------------------


PULUMI = """#!{python}
import os, sys
log = os.environ["LOG"]
settings = os.environ["PULUMI_OPTION_CONFIG_FILE"]
open(log, "a").write(" ".join(sys.argv[1:]) + "|" + open(settings).read().replace("\\n", " ") + "\\n")
if sys.argv[1] == "stack" and os.environ.get("ANSWERS"):
    print({{"output": '{{"url": "u"}}', "history": '[{{"resourceChanges": {{"create": 2}}}}]'}}[sys.argv[2]])
if sys.argv[1] == os.environ.get("BROKEN"):
    sys.exit(255)
if sys.argv[1] in ("preview", "up"):
    open(settings, "a").write("  shopcat:tag: written\\n")
    cancelled = any("cancel" in line for line in open(log)) and not os.environ.get("STAYS_LOCKED")
    if not cancelled and os.environ.get("LOCKED"):
        print("error: the stack is currently locked by 1 lock(s).\\n  " + os.environ["LOCKED"])
        sys.exit(255)
"""


@pytest.fixture
def pulumi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in Pulumi's place that writes into its settings as `up -c` does; the real one runs in tests/engine."""
    program = tmp_path / "bin" / "pulumi"
    program.parent.mkdir()
    program.write_text(PULUMI.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    return tmp_path / "log"


def preview_7() -> Stack:
    return Stack("pr-7", Backend("file:///s", "passphrase"), {"config": {"shopcat:env": {}}})


def test_each_command_gets_settings_that_nobody_wrote_into(pulumi: Path) -> None:
    for _ in range(2):
        assert preview_7().show("up", "-c", "shopcat:tag=x").code == 0
    assert "written" not in pulumi.read_text()


def test_only_a_command_that_changes_something_goes_on_without_asking(pulumi: Path) -> None:
    """`pulumi preview` knows neither option."""
    for verb in ("preview", "up"):
        assert preview_7().show(verb, "--policy-pack", stack.POLICY_PACK).code == 0
    preview, up = pulumi.read_text().splitlines()
    assert preview.startswith("preview --policy-pack policy -s pr-7 --non-interactive|")
    assert up.startswith("up --policy-pack policy -s pr-7 --yes --skip-preview --non-interactive|")
    assert (environment.REPOSITORY / stack.POLICY_PACK / "PulumiPolicy.yaml").is_file()


def test_outputs_and_changes_of_a_stack_with_and_without_an_update(
    pulumi: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (preview_7().outputs(), preview_7().changes()) == ({}, {})
    monkeypatch.setenv("ANSWERS", "1")
    assert (preview_7().outputs(), preview_7().changes()) == ({"url": "u"}, {"create": 2})
    assert "stack history --page-size 1 -s pr-7 --json --non-interactive|" in pulumi.read_text()


def test_a_dead_updates_lock_is_taken_away_once(pulumi: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCKED", "/x.json: created by a@b (pid 1) at 2026-11-25T01:00:00Z")
    assert preview_7().show("up", unlock=True).code == 0
    assert [line.split()[0] for line in pulumi.read_text().splitlines()] == ["up", "cancel", "up"]


def test_a_lock_that_may_be_a_running_updates_is_left(pulumi: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCKED", "/x.json: created by a@b (pid 1) at 2026-11-25T01:00:00Z")
    with pytest.raises(StackLockedError, match="pulumi cancel -s pr-7"):
        preview_7().show("up")
    assert "cancel" not in pulumi.read_text()


def test_a_lock_that_comes_back_is_left(pulumi: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCKED", "/x.json: created by a@b (pid 1) at 2026-11-25T01:00:00Z")
    monkeypatch.setenv("STAYS_LOCKED", "1")
    with pytest.raises(StackLockedError, match="pulumi cancel -s pr-7"):
        preview_7().show("up", unlock=True)
    assert [line.split()[0] for line in pulumi.read_text().splitlines()] == ["up", "cancel", "up"]


def test_state_is_where_bootstrap_made_it_unless_the_environment_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        clients = AwsClients("eu-central-1")
        made = Bootstrap(clients, "123456789012", "shopcat-releases")
        production = stack.production_backend({}, clients)
        assert production.url == f"s3://{made.bucket('prod')}?region=eu-central-1"
        assert production.secrets_provider == f"awskms://{made.alias('prod')}?region=eu-central-1"
        with pytest.raises(ShopCatError, match="pulumi up -s prod"):
            stack.preview_backend(12, {}, clients)
        contract(clients, previewRoleId="")
        with pytest.raises(ShopCatError, match=r"shopcat:github\.repository"):
            stack.preview_backend(12, {}, clients)
        contract(clients, previewRoleId="AROAPREVIEW")
        found = stack.preview_backend(12, {}, clients)
        assert found.url == f"s3://{made.bucket('previews')}/AROAPREVIEW:12?region=eu-central-1"
        assert found.secrets_provider == f"awskms://{made.alias('previews')}?region=eu-central-1"
        given = {"PULUMI_BACKEND_URL": "file:///s", "SHOPCAT_SECRETS_PROVIDER": "passphrase"}
        assert stack.preview_backend(12, given, clients) == Backend("file:///s", "passphrase")


def contract(clients: AwsClients, **fields: str) -> None:
    clients.get("ssm").put_parameter(
        Name=CLUSTER_INFO_PARAMETER, Type="String", Value=json.dumps({"cluster": "shopcat", **fields}), Overwrite=True
    )


@pytest.fixture
def bucket(clients: AwsClients) -> str:
    """The previews' state bucket, and a contract that names whose folders are in it."""
    contract(clients, previewRoleId="AROAPREVIEW")
    name = state_bucket(PREVIEWS_BACKEND, "123456789012", "eu-central-1")
    clients.get("s3").create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    return name


def stored(clients: AwsClients, bucket: str, *keys: str) -> None:
    for key in keys:
        clients.get("s3").put_object(Bucket=bucket, Key=key, Body=b"")


def test_the_reaper_finds_every_preview_in_the_folder_of_its_own_number(clients: AwsClients, bucket: str) -> None:
    stacks = ".pulumi/stacks/shopcat"
    stored(
        clients,
        bucket,
        f"AROAPREVIEW:1000/{stacks}/pr-1000.json",
        f"AROAPREVIEW:12/{stacks}/pr-12.json",
        f"AROAPREVIEW:12/{stacks}/pr-12.json.bak",
        f"AROAPREVIEW:12/{stacks}/pr-11.json",  # another's name in a folder of its own
        f"AROAPREVIEW:12/11/{stacks}/pr-11.json",
        f"AROAPREVIEW:13/{stacks}/prod.json",
        "AROAPREVIEW:14/.pulumi/meta.yaml",  # closed long ago
        f"AROAPREVIEW:x/{stacks}/pr-7.json",
        f"AROAOTHER:9/{stacks}/pr-9.json",
    )
    found = state.preview_stacks(stack.preview_files({}, clients))
    assert [one.number for one in found] == [12, 1000]
    assert abs((datetime.now(UTC) - found[0].updated).total_seconds()) < 3600


def test_on_the_twin_all_previews_share_a_folder(clients: AwsClients, tmp_path: Path) -> None:
    files = stack.preview_files({"PULUMI_BACKEND_URL": backend_url(tmp_path)}, clients)
    (tmp_path / ".pulumi/stacks/shopcat").mkdir(parents=True)
    for name in ("pr-3.json", "pr-12.json", "prod.json"):
        (tmp_path / f".pulumi/stacks/shopcat/{name}").touch()
    assert [one.number for one in state.preview_stacks(files)] == [3, 12]
    with pytest.raises(ShopCatError, match="PULUMI_BACKEND_URL=https://x"):
        stack.preview_files({"PULUMI_BACKEND_URL": "https://x"}, clients)


def test_without_the_bucket_there_is_one_clear_error(clients: AwsClients) -> None:
    contract(clients, previewRoleId="AROAPREVIEW")
    with pytest.raises(ShopCatError, match="S3 bucket shopcat-state-previews"):
        state.preview_stacks(stack.preview_files({}, clients))


@pytest.fixture(params=["bucket", "directory"])
def files(request: pytest.FixtureRequest, clients: AwsClients, tmp_path: Path) -> state.Files:
    if request.param == "directory":
        return state.Directory(tmp_path)
    return state.Bucket(clients, request.getfixturevalue("bucket"), "AROAPREVIEW:7/")


def write(files: state.Files, *paths: str) -> None:
    """Whatever a pull request wrote."""
    for path in paths:
        if isinstance(files, state.Bucket):
            files.clients.get("s3").put_object(Bucket=files.name, Key=files.common + path, Body=b"{")
        elif isinstance(files, state.Directory):
            (files.path / path).parent.mkdir(parents=True, exist_ok=True)
            (files.path / path).write_text("{")


def test_a_young_lock_says_that_an_update_may_be_running(files: state.Files) -> None:
    lock = ".pulumi/locks/organization/shopcat/pr-7/x.json"
    write(files, lock)
    with pytest.raises(StackLockedError, match="pr-7 is locked"):
        state.refuse_running(files, "pr-7", 3600)
    state.refuse_running(files, "pr-7", 0)
    state.refuse_running(files, "pr-77", 3600)
    assert list(files.listed()) == [lock]


@pytest.mark.parametrize(
    ("age_seconds", "stale_after_seconds", "refused"),
    [(0, 0, False), (10, 3600, True), (3700, 3600, False), (-100, 3600, True), (-4000, 3600, False)],
)
def test_a_lock_is_dead_by_its_age_also_if_it_is_from_the_future(
    tmp_path: Path, age_seconds: float, stale_after_seconds: float, *, refused: bool
) -> None:
    files, lock = state.Directory(tmp_path), ".pulumi/locks/organization/shopcat/pr-7/x.json"
    write(files, lock)
    os.utime(tmp_path / lock, (time.time(), time.time() - age_seconds))
    with pytest.raises(StackLockedError) if refused else nullcontext():
        state.refuse_running(files, "pr-7", stale_after_seconds)


def test_a_stack_is_removed_with_its_history_backups_and_locks_and_no_other(files: state.Files) -> None:
    names = ["stacks/shopcat/{}.json", "stacks/shopcat/{}.json.bak", "history/shopcat/{}/x", "backups/shopcat/{}/x",
             "locks/organization/shopcat/{}/x.json"]  # fmt: skip
    write(files, *(f".pulumi/{name.format(one)}" for name in names for one in ("pr-7", "pr-77")))
    assert state.remove_files(files, "pr-7")
    assert not state.remove_files(files, "pr-7")
    assert sorted(files.listed()) == sorted(f".pulumi/{name.format('pr-77')}" for name in names)


def test_production_runs_with_the_committed_settings() -> None:
    found = stack.production(Backend("file:///s", "awskms://k"), {})
    committed = yaml.safe_load((environment.REPOSITORY / "Pulumi.prod.yaml").read_text())
    assert found.document["config"] == committed["config"]
    assert found.document["secretsprovider"] == "awskms://k"


def test_an_interrupted_program_has_time_to_end(tmp_path: Path) -> None:
    script = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGINT, lambda *_: (print('ending'), sys.exit(3)))\n"
        "time.sleep(60)\n"
    )
    finished = process.show([sys.executable, "-c", script], deadline_seconds=1)
    assert (finished.code, finished.interrupted) == (3, True)
    assert "ending" in finished.text


def test_what_a_killed_program_has_started_does_not_outlive_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Pulumi's plugins: in process groups of their own, and their output is nobody's business."""
    monkeypatch.setattr(process, "GRACE_SECONDS", 1)
    script = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], start_new_session=True,\n"
        "                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n"
        "print(child.pid, flush=True); time.sleep(60)"
    )
    finished = process.show([sys.executable, "-c", script], deadline_seconds=1)
    assert finished.interrupted
    child = Path(f"/proc/{int(finished.text)}/stat")
    deadline = time.monotonic() + 10
    while child.exists() and child.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline, "it still runs"
        time.sleep(0.05)


def test_pulumi_is_interrupted_before_the_job_is_cut_off() -> None:
    job = preview.PreviewJob(7, {"SHOPCAT_STARTED": "1000"}, Steps())
    assert job.deadline_seconds(1100) == 300 - 100 - 45
    assert process.GRACE_SECONDS < 45
    with pytest.raises(ShopCatError, match="run the job again"):
        job.deadline_seconds(1240)
    closing = preview.PreviewJob(7, {"SHOPCAT_STARTED": "1000", "SHOPCAT_LIMIT_SECONDS": "900"}, Steps())
    assert closing.deadline_seconds(1240) == 900 - 240 - 45
    assert preview.PreviewJob(7, {}, Steps()).deadline_seconds(time.time()) is None
    assert preview.PreviewJob(7, {}, Steps(), 600).deadline_seconds(time.time()) == 600


@pytest.mark.parametrize(("now", "seconds"), [(1100, 90), (1230, 50), (1295, 0)])
def test_the_wait_for_an_answer_leaves_time_for_the_comment(now: float, seconds: float) -> None:
    assert preview.PreviewJob(7, {"SHOPCAT_STARTED": "1000"}, Steps()).answer_seconds(now) == seconds
    assert preview.PreviewJob(7, {}, Steps()).answer_seconds(now) == preview.ANSWER_SECONDS


@pytest.mark.parametrize("said", [b"no HTTP", b""])
def test_what_answers_without_speaking_http_does_not_answer_yet(said: bytes) -> None:
    class Speaks(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(1000)
            self.request.sendall(said)

    with socketserver.TCPServer(("127.0.0.1", 0), Speaks) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(ShopCatError, match="does not answer"):
            preview.wait_until_answering(f"http://127.0.0.1:{server.server_address[1]}", timeout_seconds=0.3)
        server.shutdown()


def test_a_url_answers_once_ten_connections_in_a_row_were_served() -> None:
    """Each over a connection of its own, though the server would keep them: the load balancer has several nodes."""
    statuses = [200, 200, 503, *[200] * 20]
    connections: list[int] = []

    class Keeping(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            connections.append(len(connections))
            super().setup()

        def do_GET(self) -> None:
            self.send_response(statuses[connections[-1]])
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Not on the screen."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Keeping) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        preview.wait_until_answering(f"http://127.0.0.1:{server.server_port}", timeout_seconds=30)
        server.shutdown()
    assert len(connections) == 3 + preview.ANSWERS_IN_A_ROW


def test_what_the_engine_says_of_a_failure_is_kept_without_the_end_of_the_program() -> None:
    said = (
        "@ updating....\nDiagnostics:\n  pulumi:pulumi:Stack (shopcat-pr-7):\n    error: update failed\n\n"
        "    Traceback (most recent call last):\n      File x, line 1\n    KeyboardInterrupt\n\n"
        "  Deployment:\n    error: no room\n"
    )
    found = preview._failure(said, interrupted=False)
    assert found.startswith("Diagnostics:")
    assert "Traceback" not in found
    assert found.endswith("error: no room")


@pytest.mark.parametrize(
    ("policies", "expected"),
    [
        ("    ❌ shopcat@v0.0.1\n        - [mandatory]  mutable-image  (kubernetes:core/v1:Pod: a)\n", "Policies:"),
        ("    ✅ shopcat@v0.0.1\n        - [advisory]  accepted-by-setting  (aws:rds:Instance: a)\n", "Diagnostics:"),
    ],
)
def test_a_broken_rule_is_said_and_one_that_stopped_nothing_is_not(policies: str, expected: str) -> None:
    """As the engine prints both: the policies first."""
    said = f"@ updating....\nPolicies:\n{policies}\nDiagnostics:\n  Deployment:\n    error: no room\n"
    found = preview._failure(said, interrupted=False)
    assert found.startswith(expected)
    assert found.endswith("error: no room")


def test_a_program_that_is_missing_is_one_clear_error() -> None:
    with pytest.raises(ShopCatError, match="PATH"):
        process.show(["no-such-program-anywhere"])


# Images ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"SHOPCAT_BUILDER": "kaniko"}, "docker or buildah"),
        ({"SHOPCAT_BUILD_ARGS": "BASE_IMAGE"}, "NAME=value"),
    ],
)
def test_a_builder_that_is_not_known_is_refused(given: dict[str, str], words: str) -> None:
    with pytest.raises(ShopCatError, match=words):
        image.choose_builder(given)


def test_the_application_must_be_where_it_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(ShopCatError, match="APP_SRC is not set"):
        environment.source_directory({})
    with pytest.raises(ShopCatError, match=r"requirements\.txt and no shopcat"):
        environment.source_directory({"APP_SRC": str(tmp_path)})


def on_path(directory: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    """A program of this name, before any other; LOG in its environment is where it writes what it was asked."""
    program = directory / "bin" / name
    program.parent.mkdir()
    program.write_text(text.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("LOG", str(directory / "log"))


DOCKER = """#!{python}
import json, os, sys
folder = os.environ["DOCKER_CONFIG"]
seen = folder + "/config.json"
open(os.environ["LOG"], "a").write(" ".join(sys.argv[1:]) + "|" + json.dumps({{
    "folder": folder, "builders": os.environ.get("BUILDX_CONFIG", ""),
    "config": json.load(open(seen)) if os.path.exists(seen) else {{}},
    "mode": oct(os.stat(seen).st_mode & 0o777) if os.path.exists(seen) else "",
    "contexts": os.path.exists(folder + "/contexts/meta"),
}}) + "\\n")
for one in sys.argv:
    if one.startswith("--metadata-file="):
        json.dump({{"containerimage.config.digest": "sha256:1"}}, open(one.partition("=")[2], "w"))
"""


def test_docker_is_asked_for_a_repeatable_image_and_pushes_what_it_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is said to `docker`; no engine runs here."""
    on_path(tmp_path, monkeypatch, "docker", DOCKER)
    usual, temporary = tmp_path / "docker", tmp_path / "temporary"
    for folder in (usual / "contexts" / "meta", temporary):
        folder.mkdir(parents=True)
    others = {"auths": {"other": {"auth": "x"}}, "credsStore": "desktop", "proxies": {"default": {"httpProxy": "p"}}}
    (usual / "config.json").write_text(json.dumps(others))
    monkeypatch.setenv("DOCKER_CONFIG", str(usual))
    monkeypatch.delenv("BUILDX_CONFIG", raising=False)
    monkeypatch.setenv("RUNNER_TEMP", str(temporary))
    cache = tmp_path / "cache"
    maker = image.choose_builder({"SHOPCAT_BUILD_CACHE": str(cache), "SHOPCAT_BUILD_ARGS": "A=1"})
    assert maker.build(tmp_path, "r/shopcat:x", fresh=False) == "sha256:1"
    cache.mkdir()
    (cache / "index.json").touch()
    maker.build(tmp_path, "r/shopcat:x", fresh=False)
    maker.build(tmp_path, "r/shopcat:x", fresh=True)
    maker.push(tmp_path, "r/shopcat:x", "sha256:1", image.RegistryLogin("r", "AWS", "secret"))
    lines = [line.partition("|") for line in (tmp_path / "log").read_text().splitlines()]
    cold, warm, fresh, push = (said for said, _, _ in lines)
    *before, saw = (json.loads(seen) for _, _, seen in lines)
    for line in (cold, warm, fresh, push):
        assert "--build-arg=SOURCE_DATE_EPOCH=0" in line
        assert "rewrite-timestamp=true" in line
        assert "--build-arg=A=1" in line
    assert "--cache-from" not in cold
    assert "--cache-from" in warm
    assert "--no-cache" in fresh
    assert "--cache-from" not in fresh
    assert "push=true" in push
    # The log-in is in a folder that only this push has, with all else of the user's configuration; nothing is left of it.
    assert all(one["config"] == others for one in before)
    assert saw["config"]["auths"] == {"r": {"auth": base64.b64encode(b"AWS:secret").decode()}}
    assert saw["config"]["proxies"] == others["proxies"]
    assert "credsStore" not in saw["config"]
    assert saw["config"]["cliPluginsExtraDirs"] == [f"{usual}/cli-plugins"]
    assert (saw["mode"], saw["builders"], saw["contexts"]) == ("0o600", f"{usual}/buildx", True)
    assert Path(saw["folder"]).parent == temporary
    assert list(temporary.iterdir()) == []
    assert json.loads((usual / "config.json").read_text()) == others
    assert "secret" not in push
    assert not any(word in push for word in ("--no-cache", "--pull"))
    assert all("push=false" in line for line in (cold, warm, fresh))


BUILDAH = """#!{python}
import os, sys
arguments = sys.argv[1:]
open(os.environ["LOG"], "a").write(" ".join(arguments) + chr(10))
for option, value in zip(arguments, arguments[1:]):
    if option == "--iidfile":
        open(value, "w").write("sha256:12")
"""


def test_buildah_pushes_the_image_that_it_built_whoever_has_its_tag_by_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_path(tmp_path, monkeypatch, "buildah", BUILDAH)
    maker = image.choose_builder({"SHOPCAT_BUILDER": "buildah"})
    built = maker.build(tmp_path, "r/shopcat:x", fresh=False)
    maker.push(tmp_path, "r/shopcat:x", built, image.RegistryLogin("r", "AWS", "secret"))
    _, push = (tmp_path / "log").read_text().splitlines()
    assert push.startswith("push --authfile ")
    assert push.endswith(" 12 docker://r/shopcat:x")
    assert "secret" not in push


class Layers:
    """A builder whose push puts a manifest into ECR; what it builds is given."""

    def __init__(self, registry: image.RegistryClient, clients: AwsClients, built: str) -> None:
        self.registry, self.clients, self.built, self.pushes = registry, clients, built, 0

    def build(self, context: Path, reference: str, *, fresh: bool) -> str:
        return self.built

    def push(self, context: Path, reference: str, built: str, login: image.RegistryLogin) -> None:
        self.pushes += 1
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"digest": self.built},
            "layers": [],
        }
        self.clients.get("ecr").put_image(
            repositoryName=self.registry.repository,
            imageManifest=json.dumps(manifest),
            imageManifestMediaType=manifest["mediaType"],
            imageTag=reference.rpartition(":")[2],
        )


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        found = AwsClients("eu-central-1")
        found.get("ecr").create_repository(repositoryName=PREVIEW_REPOSITORY, imageTagMutability="IMMUTABLE")
        yield found


def test_the_same_image_is_pushed_once_and_another_is_an_error(clients: AwsClients, tmp_path: Path) -> None:
    registry = image.RegistryClient(clients, PREVIEW_REPOSITORY)
    maker = Layers(registry, clients, f"sha256:{'1' * 64}")
    first = image.ensure_pushed(registry, maker, tmp_path, SHA, Steps())
    assert image.ensure_pushed(registry, maker, tmp_path, SHA, Steps()) == first
    assert maker.pushes == 1
    other = Layers(registry, clients, f"sha256:{'2' * 64}")
    with pytest.raises(ShopCatError, match=rf"{SHA} holds another image \({first}") as refused:
        image.ensure_pushed(registry, other, tmp_path, SHA, Steps())
    assert "immutable" in str(refused.value)
    assert other.pushes == 0


def test_a_tag_that_another_job_took_meanwhile(clients: AwsClients, tmp_path: Path) -> None:
    registry = image.RegistryClient(clients, PREVIEW_REPOSITORY)

    class Late(Layers):
        def push(self, context: Path, reference: str, built: str, login: image.RegistryLogin) -> None:
            Layers(registry, clients, f"sha256:{'1' * 64}").push(context, reference, built, login)
            raise ShopCatError("the tag is immutable")

    same = Late(registry, clients, f"sha256:{'1' * 64}")
    assert image.ensure_pushed(registry, same, tmp_path, SHA, Steps()).startswith("sha256:")
    with pytest.raises(ShopCatError, match="holds another image"):
        image.ensure_pushed(registry, Late(registry, clients, f"sha256:{'3' * 64}"), tmp_path, "b" * 40, Steps())


def test_without_the_repository_the_platform_comes_first(clients: AwsClients) -> None:
    with pytest.raises(ShopCatError, match="pulumi up -s prod"):
        image.RegistryClient(clients, "shopcat").url()


def test_images_are_deleted_by_tag_also_if_some_never_were(clients: AwsClients, tmp_path: Path) -> None:
    registry = image.RegistryClient(clients, PREVIEW_REPOSITORY)
    image.ensure_pushed(registry, Layers(registry, clients, f"sha256:{'1' * 64}"), tmp_path, SHA, Steps())
    assert registry.delete([SHA, "c" * 40]) == [SHA]
    assert registry.pushed_image(SHA) is None
    assert registry.delete([]) == []


@pytest.mark.parametrize("many", [1, 99, 100, 101, 130, 350])
def test_as_many_images_are_deleted_as_there_are(clients: AwsClients, many: int) -> None:
    registry = image.RegistryClient(clients, PREVIEW_REPOSITORY)
    maker, asked = Layers(registry, clients, f"sha256:{'1' * 64}"), 0
    tags = [f"{number:040x}" for number in range(many)]
    for tag in tags:
        maker.push(Path(), f"x:{tag}", "", image.RegistryLogin("", "", ""))

    def count(params: dict[str, Any], **_: Any) -> None:
        nonlocal asked
        assert len(params["imageIds"]) <= 100  # AWS refuses more, moto doesn't
        asked += len(params["imageIds"])

    clients.get("ecr").meta.events.register("provide-client-params.ecr.BatchDeleteImage", count)
    assert registry.delete(tags) == tags
    assert asked == many
    assert clients.get("ecr").list_images(repositoryName=PREVIEW_REPOSITORY)["imageIds"] == []


# The twin's table ---------------------------------------------------------------------------------------------------------


def test_the_measured_table_replaces_what_stood_between_its_marks() -> None:
    text = pipeline_times.table({"opened": {"build": 10, "push": 1.5}, "closed": {"destroy": 80}})
    assert text.splitlines()[0] == "| step | opened | closed |"
    assert "| build | 10.0 |  |" in text
    assert "| destroy |  | 80.0 |" in text
    assert "| all together, of 300 s | **11.5** | **80.0** |" in text
    page = f"a\n{pipeline_times.BEGIN}\nold\n{pipeline_times.END}\nz\n"
    assert pipeline_times.written(page, "new") == f"a\n{pipeline_times.BEGIN}\nnew\n{pipeline_times.END}\nz\n"
    with pytest.raises(TwinError, match="marks"):
        pipeline_times.written("a", "new")


def test_the_committed_page_has_its_marks() -> None:
    assert pipeline_times.written(pipeline_times.PAGE.read_text(), "new")


# Releases -------------------------------------------------------------------------------------------------------------

LIVE = Live("v1.0.0", 1, "blue")


def attempt_of(outcome: str) -> Attempt:
    return Attempt(1, "ann", "abc", "1", "2026-11-24T10:00:00+00:00", outcome)


OF_V1_1_0 = [
    (LedgerState(live=LIVE, open=Open("v1.1.0", 1, 1, "green", "release")), ""),
    (LedgerState(live=Live("v1.1.0", 1, "green")), "v1.1.0-r1 is live"),
    (LedgerState(live=LIVE, open=Open("v1.0.5", 1, 1, "green", "release")), "while release v1.0.5-r1 is open"),
    (LedgerState(live=LIVE), "before anything was touched"),
]
"""What the ledger may say, and why nothing of v1.1.0 is then to be aborted."""


@pytest.mark.parametrize(("state", "words"), OF_V1_1_0)
def test_a_release_that_breaks_a_rule_is_refused_before_it_begins(
    state: LedgerState, words: str, pulumi: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = Backend("file:///s", "passphrase")
    monkeypatch.setattr(release.ReleaseJob, "stack", lambda *_: Stack("prod", backend, {"config": {"shopcat:env": {}}}))
    monkeypatch.setattr(release, "read_ledger", lambda _: state)
    job = release.ReleaseJob({}, Steps())
    release.refuse_broken_rules(job, "v1.1.0", {})
    monkeypatch.setenv("BROKEN", "preview")
    with pytest.raises(ShopCatError, match=words or "it stays open"):
        release.refuse_broken_rules(job, "v1.1.0", {})
    judged = "preview --policy-pack policy -c shopcat:tag=v1.1.0 -s prod --non-interactive|"
    assert all(line.startswith(judged) for line in pulumi.read_text().splitlines())


@pytest.mark.parametrize(("state", "words"), OF_V1_1_0)
def test_only_a_release_that_is_open_is_aborted(state: LedgerState, words: str) -> None:
    found = release.reason_not_to_abort(state, "v1.1.0")
    assert bool(found) is bool(words)
    assert words in found


ROLLED_BACK = Release(record("v1.1.0"), "live", "green", (attempt_of("live"), attempt_of("live")), 2)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (LedgerState(live=LIVE, open=Open("v1.1.0", 1, 2, "green", "rollback")), ""),
        # Somebody else's release of the tag that was to be rolled back to: not this job's to abort.
        (LedgerState(live=LIVE, open=Open("v1.1.0", 2, 1, "green", "release")), "while release v1.1.0-r2 is open"),
        # It was live before, by its release: the rollback was refused.
        (
            LedgerState(
                live=Live("v1.1.0", 1, "green"),
                releases={"v1.1.0-r1": replace(ROLLED_BACK, attempts=(attempt_of("live"),))},
            ),
            "refused before anything was touched",
        ),
        (LedgerState(live=Live("v1.1.0", 1, "green"), releases={"v1.1.0-r1": ROLLED_BACK}), "v1.1.0-r1 is live"),
    ],
)
def test_a_refused_rollback_is_not_taken_for_what_else_is_open_or_live(state: LedgerState, words: str) -> None:
    found = release.reason_not_to_abort(state, "v1.1.0", "rollback")
    assert bool(found) is bool(words)
    assert words in found


@pytest.mark.parametrize("green", [0, 10, 100])
@pytest.mark.parametrize("setting", ["tag", "rollback"])
def test_a_rollback_that_failed_is_not_aborted_while_it_has_users(
    setting: str, green: int, pulumi: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An abort would move them to the release that somebody wanted gone."""
    kind: Any = "release" if setting == "tag" else "rollback"
    state = LedgerState(live=LIVE, open=Open("v1.1.0", 1, 2, "green", kind))
    view = View({}, [Rule("listener", "", {"blue": 100 - green, "green": green}, [])])
    backend = Backend("file:///s", "passphrase")
    monkeypatch.setattr(release.ReleaseJob, "stack", lambda *_: Stack("prod", backend, {"config": {"shopcat:env": {}}}))
    monkeypatch.setattr(release, "read_ledger", lambda _: state)
    monkeypatch.setattr(release, "read_load_balancer", lambda *_: view)
    monkeypatch.setenv("BROKEN", "up")
    stays = setting == "rollback" and green > 0
    with pytest.raises(
        ShopCatError, match="users are on v1.1.0-r1 and stay there" if stays else "could not be aborted"
    ):
        release._up_or_abort(release.ReleaseJob({}, Steps()), setting, "v1.1.0", "v1.1.0")
    assert any("shopcat:abort=v1.1.0" in line for line in pulumi.read_text().splitlines()) is not stays


@pytest.mark.parametrize("config", [{}, {"shopcat:registry": {"repository": "shop/shopcat"}}, {"shopcat:registry": {}}])
def test_images_are_pushed_to_the_repository_of_the_stack_file(config: dict[str, Any]) -> None:
    committed = stack.production(Backend("file:///x", "passphrase"), {})
    document = {**committed.document, "config": {**committed.document["config"], **config}}
    name = release.release_repository(replace(committed, document=document))
    assert name == config.get("shopcat:registry", {}).get("repository", "shopcat")


def test_no_image_is_built_for_a_repository_that_can_not_be() -> None:
    committed = stack.production(Backend("file:///x", "passphrase"), {})
    document = {"config": {**committed.document["config"], "shopcat:registry": {"repository": "Shop"}}}
    with pytest.raises(ShopCatError, match=r"shopcat:registry\.repository: 'Shop' is not a repository such as"):
        release.release_repository(replace(committed, document=document))


def test_a_refused_release_does_not_abort_a_rollback_to_its_tag() -> None:
    state = LedgerState(live=LIVE, open=Open("v1.1.0", 1, 2, "green", "rollback"))
    assert "while rollback v1.1.0-r1 is open" in release.reason_not_to_abort(state, "v1.1.0", "release")
