"""The pipeline on real pods: how images are built, a preview from push to answering URL, and the tag that was once a trap."""

import json
import os
import re
import shutil
import ssl
import subprocess
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bench.previews import SETTINGS
from tests.tools import aws, command, kubectl
from tests.twin.shop import DELAY_SCALE, SHORT, changed
from twin import pulumi
from twin.config import Twin
from twin.errors import TwinError
from twin.host import pki
from twin.loadbalancer import hostnames, service
from twin.paths import REPOSITORY
from twin.scenarios import preview, production, rehearsal

pytestmark = pytest.mark.twin

APPLICATION = REPOSITORY / "twin" / "application"


def prepare(twin: Twin) -> None:
    """Shorten the drain: its length is not tested here."""
    service.set_faults(twin, delayScale=DELAY_SCALE)
    settings = Path(pulumi.environment(twin)["PULUMI_OPTION_CONFIG_FILE"])
    settings.write_text(changed(settings, SHORT))


def source(directory: Path, mark: str) -> Path:
    """The application, with a mark on every page."""
    target = directory / mark
    shutil.copytree(APPLICATION, target, ignore=shutil.ignore_patterns("__pycache__"))
    main = target / "shopcat" / "__main__.py"
    text = main.read_text()
    assert "Cat tree" in text
    main.write_text(text.replace("Cat tree", f"Cat tree {mark}"))
    return target


@contextmanager
def application(path: Path) -> Iterator[None]:
    """APP_SRC, as a person sets it."""
    before = os.environ.get("APP_SRC")
    os.environ["APP_SRC"] = str(path)
    try:
        yield
    finally:
        if before is None:
            del os.environ["APP_SRC"]
        else:
            os.environ["APP_SRC"] = before


def build(twin: Twin, path: Path, capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The log of a build by the script that the workflows call."""
    with application(path):
        rehearsal.run(twin, "build", *arguments, more=rehearsal.build_environment(twin))
    return capfd.readouterr().out


def identity(log: str) -> str:
    """Return the image's ID in the builder's log."""
    return re.findall(r"^[0-9a-f]{64}$|^sha256:[0-9a-f]{64}$", log, re.MULTILINE)[-1]


def steps(log: str) -> list[tuple[str, bool]]:
    """Each instruction of the Dockerfile as the log tells it, and whether its layer was taken from the cache."""
    instructions: list[tuple[str, bool]] = []
    for line in log.splitlines():
        started = re.match(r"(?:\[\d+/\d+\] )?STEP \d+/\d+: (.*)", line)
        if started:
            instructions.append((started[1], False))
        elif "--> Using cache" in line and instructions:
            instructions[-1] = (instructions[-1][0], True)
    return instructions


def page(twin: Twin, host: str) -> str:
    context = ssl.create_default_context(cafile=str(pki.ca_file(twin)))
    with urllib.request.urlopen(f"https://{host}/", context=context, timeout=15) as answer:
        return str(answer.read().decode())


def test_with_every_layer_invalidated_it_builds_without_a_question_and_the_same_image(
    twin: Twin, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = source(tmp_path, "asked")
    first, again = (build(twin, path, capfd, "--fresh") for _ in range(2))
    assert len(steps(first)) > 10
    assert not any(cached for _, cached in steps(first)), first
    assert identity(first) == identity(again)


def test_a_change_in_the_source_rebuilds_the_last_layer_alone(
    twin: Twin, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    build(twin, source(tmp_path, "before"), capfd)
    # Layers outlive a run of the tests, so the change is one that no run has built before.
    log = build(twin, source(tmp_path, f"after {uuid.uuid4()}"), capfd)
    rebuilt = [instruction for instruction, cached in steps(log) if not cached and not instruction.startswith("FROM ")]
    assert rebuilt == ["COPY shopcat /app/shopcat"], log


def test_from_push_to_an_answering_url_and_back_to_nothing(
    twin: Twin, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    host = f"pr-31.{hostnames.preview_domain(twin)}"
    with application(source(tmp_path, "offered")):
        preview.up(twin, 31, settings=SETTINGS)
        tag = preview.content_tag(rehearsal.source())
    output = capfd.readouterr().out
    assert f"Preview of {tag}: **https://{host}**" in output
    assert "Cat tree offered" in page(twin, host)
    assert {"build", "push", "pulumi up", "answers"} <= set(json.loads(preview.times_file(twin).read_text()))
    preview.close(twin, 31)
    assert "Preview `pr-31` is closed" in capfd.readouterr().out
    assert not preview.exists(twin, "pr-31")
    tags = [
        image.get("imageTag") for image in aws(twin, "ecr").list_images(repositoryName="shopcat-preview")["imageIds"]
    ]
    assert tag not in tags


# What was once a trap: the preview's job overwrote the tag that production ran -----------------------------------------


def live(twin: Twin) -> dict[str, str]:
    data: dict[str, str] = kubectl(twin, "get", "configmap", "shopcat-live", "-n", "shopcat")["data"]
    return data


def running(twin: Twin) -> list[dict[str, Any]]:
    """Production's pods of the live colour, by what their nodes say they run."""
    selector = f"shopcat/colour={live(twin)['colour']}"
    pods: list[dict[str, Any]] = kubectl(twin, "get", "pods", "-n", "shopcat", "-l", selector)["items"]
    return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]


def digests(twin: Twin) -> set[str]:
    return {
        status["imageID"].rpartition("@")[2] for pod in running(twin) for status in pod["status"]["containerStatuses"]
    }


def test_no_tag_that_a_pull_request_can_push_ever_runs_in_production(twin: Twin, tmp_path: Path) -> None:
    released = live(twin)["digest"]
    assert digests(twin) == {released}
    merged = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=REPOSITORY, text=True, capture_output=True, check=True
    ).stdout.strip()
    evil = source(tmp_path, "unmerged")
    for tag in (production.FIRST_TAG, "v1.1.0", "latest", merged):
        production.push_image(twin, evil, tag, preview.REPOSITORY_NAME)
    pushed = aws(twin, "ecr").describe_images(
        repositoryName=preview.REPOSITORY_NAME, imageIds=[{"imageTag": "v1.1.0"}]
    )["imageDetails"][0]["imageDigest"]
    assert pushed != released

    command(twin, ["pulumi", "up", "-s", "prod", "--yes", "--skip-preview"])
    for pod in running(twin):
        command(twin, ["kubectl", "delete", "pod", "-n", "shopcat", pod["metadata"]["name"], "--wait=false"])
        command(
            twin,
            [
                "kubectl",
                "rollout",
                "status",
                f"deployment/shopcat-{live(twin)['colour']}",
                "-n",
                "shopcat",
                "--timeout=240s",
            ],
        )
    assert digests(twin) == {released}

    with application(source(tmp_path, "merged")):
        tag = rehearsal.release(twin, None)
    assert tag == "v1.1.0"
    assert live(twin)["tag"] == tag
    assert pushed != live(twin)["digest"] != released
    assert digests(twin) == {live(twin)["digest"]}
    assert "Cat tree merged" in page(twin, hostnames.domain(twin))
    rows: Any = production.outputs(twin)["releases"]
    assert any(row["tag"] == tag and len(row["commit"]) == 40 for row in rows)


def test_the_manual_workflow_goes_back_to_the_former_version(twin: Twin) -> None:
    before = live(twin)
    rehearsal.run(twin, "rollback", before["tag"], production.FIRST_TAG, more=rehearsal.production_environment(twin))
    after = live(twin)
    assert after["tag"] == production.FIRST_TAG
    assert after["colour"] != before["colour"]
    assert digests(twin) == {after["digest"]} != {before["digest"]}


def test_a_release_that_fails_is_aborted_by_itself_and_the_job_says_so(
    twin: Twin, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = live(twin)
    broken = source(tmp_path, "broken")
    main = broken / "shopcat" / "__main__.py"
    main.write_text(f"raise SystemExit('broken')\n{main.read_text()}")
    with application(broken), pytest.raises(TwinError):
        rehearsal.release(twin, None, "fix: what was not broken")
    output = capfd.readouterr()
    assert f"failed (see above) and was aborted: {before['release']} is live as before" in output.err
    assert {**live(twin), "intent": ""} == {**before, "intent": ""}
    rehearsal.run(twin, "resume", more=rehearsal.production_environment(twin))
    rows: Any = production.outputs(twin)["releases"]
    assert rows[0]["state"] == "aborted"
    assert digests(twin) == {before["digest"]}
