"""Preview stacks under the real engine: up, no-op, a new commit, the last place, bad names, destroy. Nodes are simulated."""

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.tools import aws, command, kubectl, summary
from twin.config import Twin
from twin.errors import TwinError
from twin.paths import REPOSITORY
from twin.scenarios import github, preview, production, rehearsal
from twin.scenarios.leftovers import declared, everything

pytestmark = pytest.mark.engine

TABLE = "shopcat-previews"
SHAS = ("a" * 40, "b" * 40)


def run(twin: Twin, number: int, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """`pulumi` on a preview's stack, with everything it says."""
    stack = f"pr-{number}"
    preview.select(twin, stack)
    result = preview.run(twin, stack, *arguments, "-s", stack, "--yes", "--skip-preview", capture=True, check=False)
    assert not check or result.returncode == 0, result.stdout + result.stderr
    return result


def up(twin: Twin, number: int, tag: str = SHAS[0]) -> dict[str, int]:
    return summary(run(twin, number, "up", "-c", f"shopcat:tag={tag}").stdout)


def refusal(twin: Twin, number: int, *arguments: str) -> str:
    """What `up` says when it refuses; it must be one message without a traceback."""
    result = run(twin, number, "up", *arguments, check=False)
    text = result.stdout + result.stderr
    assert result.returncode != 0, text
    assert "Traceback" not in text, text
    return text


def places(twin: Twin) -> dict[str, str]:
    """Place → stack."""
    return {one["place"]["S"]: one["stack"]["S"] for one in aws(twin, "dynamodb").scan(TableName=TABLE)["Items"]}


@pytest.fixture(scope="module", autouse=True)
def images(simulated: Twin, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Two commits' images in the previews' repository, different ones."""
    for sha in SHAS:
        source = tmp_path_factory.mktemp("source")
        command(simulated, ["cp", "-r", f"{REPOSITORY / 'twin' / 'application'}/.", str(source)])
        (source / "shopcat" / "commit.txt").write_text(sha)
        production.push_image(simulated, source, sha, preview.REPOSITORY_NAME)


@pytest.fixture
def full(simulated: Twin) -> Iterator[int]:
    """Every place taken but by previews of others; how many there are."""
    count = int(preview.contract(simulated)["previews"])
    table = aws(simulated, "dynamodb")
    mine = [str(number) for number in range(1, count + 1) if str(number) not in places(simulated)]
    for place in mine:
        item = {"place": place, "stack": f"pr-9{place}", "since": "2026-01-02T03:04:05+00:00"}
        table.put_item(TableName=TABLE, Item={name: {"S": value} for name, value in item.items()})
    yield count
    for place in mine:
        table.delete_item(TableName=TABLE, Key={"place": {"S": place}})


def test_a_preview_comes_up_by_one_command(simulated: Twin) -> None:
    assert set(up(simulated, 123)) == {"created"}
    deployment = kubectl(simulated, "get", "deployment", "shopcat", "-n", "pr-123")
    assert deployment["status"]["availableReplicas"] == 1
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    pushed = aws(simulated, "ecr").describe_images(
        repositoryName=preview.REPOSITORY_NAME, imageIds=[{"imageTag": SHAS[0]}]
    )["imageDetails"][0]["imageDigest"]
    assert container["image"].endswith(f"/shopcat-preview@{pushed}")
    assert {*declared(simulated, 123)} == {"namespaces", "target groups", "rules", "secrets", "places"}


def test_the_namespace_is_fenced(simulated: Twin) -> None:
    labels = kubectl(simulated, "get", "namespace", "pr-123")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    assert labels["elbv2.k8s.aws/pod-readiness-gate-inject"] == "enabled"
    for kind in ("resourcequota", "limitrange", "networkpolicy"):
        assert kubectl(simulated, "get", kind, "-n", "pr-123")["items"], kind


def test_its_pods_wait_for_the_load_balancer_and_yield_to_production(simulated: Twin) -> None:
    (pod,) = kubectl(simulated, "get", "pods", "-n", "pr-123", "-l", "app.kubernetes.io/name=shopcat")["items"]
    assert [one["conditionType"].partition("/")[0] for one in pod["spec"]["readinessGates"]] == [
        "target-health.elbv2.k8s.aws"
    ]
    (live, *_) = kubectl(simulated, "get", "pods", "-n", "shopcat", "-l", "shopcat/colour=green")["items"]
    assert 0 < pod["spec"]["priority"] < live["spec"]["priority"]


def test_its_requests_find_its_target_group(simulated: Twin) -> None:
    elb = aws(simulated, "elbv2")
    (group,) = elb.describe_target_groups(Names=["shopcat-pr-123"])["TargetGroups"]
    targets = elb.describe_target_health(TargetGroupArn=group["TargetGroupArn"])["TargetHealthDescriptions"]
    assert [one["TargetHealth"]["State"] for one in targets] == ["healthy"]
    assert declared(simulated, 123)["rules"] == [f"pr-123.{_domain(simulated)}"]


def _domain(twin: Twin) -> str:
    settings: dict[str, Any] = yaml.safe_load((twin.directory / "Pulumi.prod.yaml").read_text())["config"]
    return str(settings["shopcat:previewDomain"])


def test_a_second_up_changes_nothing(simulated: Twin) -> None:
    assert set(up(simulated, 123)) == {"unchanged"}


def test_a_new_commit_changes_the_deployment_alone(simulated: Twin) -> None:
    result = run(simulated, 123, "up", "-c", f"shopcat:tag={SHAS[1]}")
    counts = summary(result.stdout)
    assert counts.pop("unchanged") > 15
    assert counts == {"updated": 1}
    (container,) = kubectl(simulated, "get", "deployment", "shopcat", "-n", "pr-123")["spec"]["template"]["spec"][
        "containers"
    ]
    assert {one["name"]: one.get("value") for one in container["env"]}["SHOPCAT_RELEASE"] == SHAS[1]


def test_its_password_is_in_no_state(simulated: Twin) -> None:
    secret = aws(simulated, "secretsmanager").get_secret_value(SecretId="shopcat-preview/pr-123/database")
    password = json.loads(secret["SecretString"])["password"]
    assert password not in preview.run(simulated, "pr-123", "stack", "export", "-s", "pr-123", capture=True).stdout


def test_a_second_preview_takes_a_place_of_its_own_and_leaves_nothing(simulated: Twin) -> None:
    up(simulated, 7)
    assert sorted(places(simulated).values()) == ["pr-123", "pr-7"]
    run(simulated, 7, "destroy")
    assert declared(simulated, 7) == {}
    assert list(places(simulated).values()) == ["pr-123"]


def test_one_too_many_is_refused_with_the_list_and_nothing_is_made(simulated: Twin, full: int) -> None:
    text = refusal(simulated, 8, "-c", f"shopcat:tag={SHAS[0]}")
    assert f"{full} previews fit" in text
    assert "pr-123, open for" in text
    assert f"pr-9{full}, open for" in text
    assert declared(simulated, 8) == {}
    # Who has a place can still be updated.
    assert "updated" not in up(simulated, 123, SHAS[1])


def test_a_preview_without_an_image_is_refused(simulated: Twin) -> None:
    text = refusal(simulated, 8, "-c", f"shopcat:tag={'c' * 40}")
    assert "docker push" in text
    assert declared(simulated, 8) == {}


def test_what_is_missing_or_unknown_is_listed_in_one_message(simulated: Twin) -> None:
    preview.settings_file(simulated, "pr-8").unlink(missing_ok=True)
    text = refusal(simulated, 8, "-c", "shopcat:nonsense=1")
    assert "shopcat:tag: missing" in text
    assert "shopcat:nonsense: unknown" in text


@pytest.mark.parametrize("stack", ["pr-0", "pr-x", "staging"])
def test_other_stack_names_are_refused_with_the_rule(simulated: Twin, stack: str) -> None:
    preview.select(simulated, stack)
    try:
        result = preview.run(simulated, stack, "preview", "-s", stack, capture=True, check=False)
        text = result.stdout + result.stderr
        assert result.returncode != 0
        assert "pr-<n>" in text
        assert "Traceback" not in text
    finally:
        preview.run(simulated, stack, "stack", "rm", stack, "--yes", capture=True)


def test_without_the_contract_there_is_one_clear_error(simulated: Twin) -> None:
    ssm = aws(simulated, "ssm")
    contract = ssm.get_parameter(Name="/shopcat/contract")["Parameter"]
    ssm.delete_parameter(Name=contract["Name"])
    try:
        assert "pulumi up -s prod" in refusal(simulated, 8, "-c", f"shopcat:tag={SHAS[0]}")
    finally:
        ssm.put_parameter(Name=contract["Name"], Type="String", Value=contract["Value"])


def test_destroy_after_an_up_that_failed_half_way_leaves_nothing(simulated: Twin) -> None:
    drain = yaml.safe_load((REPOSITORY / "Pulumi.pr.yaml").read_text())["config"]["shopcat:drain"]
    # No image is ever ready within a second or two, so the update fails once everything before the pods is there.
    hurried = {**drain, "startup": 0, "progressDeadline": 16, "pulumiTimeout": 17, "healthThreshold": 2}
    preview.select(simulated, "pr-9")
    path = preview.settings_file(simulated, "pr-9")
    document = yaml.safe_load(path.read_text())
    document["config"] |= {"shopcat:drain": hurried, "shopcat:tag": SHAS[0]}
    path.write_text(yaml.safe_dump(document))
    command(simulated, ["kubectl", "cordon", "-l", "kubernetes.io/os"])
    try:
        result = preview.run(
            simulated, "pr-9", "up", "-s", "pr-9", "--yes", "--skip-preview", capture=True, check=False
        )
    finally:
        command(simulated, ["kubectl", "uncordon", "-l", "kubernetes.io/os"])
    assert result.returncode != 0, result.stdout
    assert {*declared(simulated, 9)} == {"namespaces", "target groups", "rules", "secrets", "places"}
    run(simulated, 9, "destroy")
    assert declared(simulated, 9) == {}


def test_destroy_leaves_nothing_when_the_namespace_is_already_gone(simulated: Twin) -> None:
    command(simulated, ["kubectl", "delete", "namespace", "pr-123", "--timeout=200s"])
    preview.close(simulated, 123)
    assert declared(simulated, 123) == {}
    assert places(simulated) == {}
    assert not preview.exists(simulated, "pr-123")


def test_a_preview_that_never_was_is_closed_already(simulated: Twin) -> None:
    preview.close(simulated, 4711)


def test_the_scripts_of_the_workflows_open_one_and_close_it(simulated: Twin, capfd: pytest.CaptureFixture[str]) -> None:
    preview.up(simulated, 41)
    tag = preview.content_tag(rehearsal.source())
    said = capfd.readouterr().out
    assert f"Preview of {tag}: **https://pr-41.{_domain(simulated)}**" in said
    assert "created." in said
    # A job that was killed has left its lock.
    locks = simulated.directory / "pulumi-state-previews" / ".pulumi" / "locks" / "organization" / "shopcat" / "pr-41"
    locks.mkdir(parents=True, exist_ok=True)
    dead = {"pid": 1, "username": "runner", "hostname": "gone", "timestamp": "2026-11-25T01:00:00Z"}
    (locks / "dead.json").write_text(json.dumps(dead))
    preview.up(simulated, 41)
    again = capfd.readouterr().out
    assert "was killed; unlocking it" in again
    assert f"{sum(summary(said).values())} unchanged" in again
    with pytest.raises(TwinError):
        preview.up(simulated, 41, "c" * 40)
    said = capfd.readouterr().out
    assert f"The preview of {'c' * 40} failed" in said
    assert "docker push" in said
    assert "Traceback" not in said
    preview.close(simulated, 41)
    assert "Preview `pr-41` is closed" in capfd.readouterr().out
    assert everything(simulated, 41, [tag]) == {}


def test_the_reaper_closes_what_was_missed_and_nothing_else(simulated: Twin, capfd: pytest.CaptureFixture[str]) -> None:
    with github.serve() as hub:
        for number in (42, 43):
            hub.push(number, preview.content_tag(rehearsal.source()))
            preview.up(simulated, number, more=hub.environment)
        hub.close(42)
        preview.reap(simulated, more=hub.environment)
        closed = re.findall("^closing (.*):", capfd.readouterr().out, re.MULTILINE)
        assert "pr-42" in closed  # and what other tests have left
        assert "pr-43" not in closed
        assert "is closed" in hub.comments(42)[0]
        assert "is closed" not in hub.comments(43)[0]
        assert preview.stacks(simulated) == ["pr-43"]
        assert declared(simulated, 42) == {}
        assert declared(simulated, 43) != {}
        hub.close(43)
        preview.reap(simulated, more=hub.environment)
        assert preview.stacks(simulated) == []
        assert everything(simulated, 43, [preview.content_tag(rehearsal.source())]) == {}


@contextmanager
def forged(twin: Twin, number: int, change: Callable[[dict[str, Any]], None]) -> Iterator[None]:
    """A preview's state as its pull request could have written it: each resource changed."""
    path = twin.directory / "pulumi-state-previews" / ".pulumi" / "stacks" / "shopcat" / f"pr-{number}.json"
    document = json.loads(path.read_text())
    for one in document["checkpoint"]["latest"]["resources"]:
        change(one)
    path.write_text(json.dumps(document))
    yield


def test_the_reaper_goes_by_the_number_whatever_a_state_says(
    simulated: Twin, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """No command from a state is run, nothing else that it names is deleted, and what it leaves out is found."""
    touched = tmp_path / "touched"

    def forge(one: dict[str, Any]) -> None:
        if one["type"] == "pulumi:providers:kubernetes":
            kubeconfig = json.loads(one["inputs"]["kubeconfig"])
            kubeconfig["users"][0]["user"]["exec"] |= {"command": "touch", "args": [str(touched)]}
            one["inputs"]["kubeconfig"] = json.dumps(kubeconfig)
        if one["type"] == "kubernetes:core/v1:Namespace":
            for part in ("inputs", "outputs"):
                one[part]["metadata"]["name"] = "pr-46"
            one["id"] = "pr-46"

    command(simulated, ["kubectl", "create", "namespace", "pr-46"])
    with github.serve() as hub:
        for number in (44, 45):
            hub.push(number, preview.content_tag(rehearsal.source()))
            preview.up(simulated, number, more=hub.environment)
            hub.close(number)
        with forged(simulated, 44, forge):
            preview.reap(simulated, more=hub.environment)
        assert not touched.exists()
        assert preview.stacks(simulated) == []
        assert declared(simulated, 45) == {}
        assert everything(simulated, 44, [preview.content_tag(rehearsal.source())]) == {}
        assert kubectl(simulated, "get", "namespace", "pr-46")["status"]["phase"] == "Active"
    command(simulated, ["kubectl", "delete", "namespace", "pr-46"])
    capfd.readouterr()


def test_nothing_is_written_beside_the_committed_files(simulated: Twin) -> None:
    del simulated
    assert sorted(path.name for path in REPOSITORY.glob("Pulumi*")) == [
        "Pulumi.pr.yaml",
        "Pulumi.prod.yaml",
        "Pulumi.yaml",
    ]
