"""patches/ apply to legacy/ in order, and what comes out keeps its promises."""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.settings import Drain
from twin import build, config
from twin.paths import REPOSITORY

PATCHES = sorted((REPOSITORY / "patches").glob("*.diff"))
DIGEST = f"sha256:{'a' * 64}"


@pytest.fixture
def patched(tmp_path: Path) -> Path:
    """A scratch copy with every patch applied."""
    copy = tmp_path / "shop"
    shutil.copytree(REPOSITORY / "legacy", copy)
    for patch in PATCHES:
        result = subprocess.run(
            ["git", "apply", "--verbose", str(patch)], cwd=copy, text=True, capture_output=True, check=False
        )
        assert result.returncode == 0, f"{patch.name}: {result.stderr}"
    return copy


@pytest.fixture(scope="session")
def helm() -> str:
    """The helm that the twin built, or the machine's own."""
    path = os.pathsep.join([*map(str, build.path_directories(config.load("engine"))), os.environ.get("PATH", "")])
    found = shutil.which("helm", path=path)
    if found is None:
        pytest.skip("no helm on PATH and none built yet; `make build` builds it")
    return found


def template(helm: str, chart: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [helm, "template", "shopcat", str(chart), "--namespace", "shopcat", *arguments]
    return subprocess.run(command, text=True, capture_output=True, check=False)


def rendered(helm: str, chart: Path, *arguments: str) -> list[dict[str, Any]]:
    result = template(helm, chart, *arguments)
    assert result.returncode == 0, result.stderr
    return [one for one in yaml.safe_load_all(result.stdout) if one]


def of_kind(manifests: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [one for one in manifests if one["kind"] == kind]


RELEASE = (
    "--set-json",
    json.dumps({"tag": "v1.1.0", "digest": DIGEST, "replicas": 2}).join(["colours.green=", ""]),
    "--set",
    "releasing=green",
    "--set",
    "database.secretName=shopcat/application",
)


def test_there_is_a_patch_for_each_fault() -> None:
    assert [patch.name[:2] for patch in PATCHES] == ["01", "02", "03", "04", "05", "06"]


def test_the_old_chart_has_the_faults_it_is_blamed_for(helm: str) -> None:
    manifests = rendered(helm, REPOSITORY / "legacy" / "helm" / "shopcat")
    pod = of_kind(manifests, "Deployment")[0]["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert container["image"].endswith(":latest")
    assert container["livenessProbe"]["httpGet"]["path"] == container["readinessProbe"]["httpGet"]["path"] == "/healthz"
    assert pod["terminationGracePeriodSeconds"] == 60
    assert "lifecycle" not in container
    assert "change-me" in json.dumps(of_kind(manifests, "Secret"))
    workflow = (REPOSITORY / "legacy" / ".github" / "workflows" / "deploy.yml").read_text()
    assert "latest" in yaml.safe_load(workflow)["jobs"]["preview"]["steps"][4]["run"]


def test_the_patched_chart_gives_pods_the_time_that_the_drain_budget_asks_for(helm: str, patched: Path) -> None:
    (deployment,) = of_kind(rendered(helm, patched / "helm" / "shopcat", *RELEASE), "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    budget = Drain().budget
    assert container["lifecycle"]["preStop"]["sleep"]["seconds"] >= budget.pre_stop_seconds
    assert pod["terminationGracePeriodSeconds"] >= budget.grace_seconds
    assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert "httpGet" not in container["livenessProbe"]
    assert container["image"].endswith(f"@{DIGEST}")


def test_the_patched_chart_holds_no_secret_value_and_no_latest(helm: str, patched: Path) -> None:
    manifests = rendered(helm, patched / "helm" / "shopcat", *RELEASE)
    assert of_kind(manifests, "Secret") == []
    assert len(of_kind(manifests, "ExternalSecret")) == 1
    everything = "".join(path.read_text() for path in patched.rglob("*") if path.is_file() and ".md" not in path.name)
    assert "change-me" not in everything
    assert ":latest" not in everything


@pytest.mark.parametrize(
    ("release", "message"),
    [
        ({"tag": "latest", "digest": DIGEST}, "latest"),
        ({"tag": "v1.1.0", "digest": ""}, "digest is needed"),
        ({"tag": "v1.1.0", "digest": "sha256:1"}, "64 hexadecimal digits"),
    ],
)
def test_a_release_without_tag_and_digest_is_refused(
    helm: str, patched: Path, release: dict[str, str], message: str
) -> None:
    colours = json.dumps({**release, "replicas": 2})
    result = template(helm, patched / "helm" / "shopcat", *RELEASE, "--set-json", f"colours.green={colours}")
    assert result.returncode != 0
    assert message in result.stderr


def test_nothing_is_claimed_when_nothing_is_released(helm: str, patched: Path) -> None:
    manifests = rendered(helm, patched / "helm" / "shopcat", *RELEASE, "--set", "releasing=")
    assert of_kind(manifests, "Job") == []
    hooks = of_kind(rendered(helm, patched / "helm" / "shopcat", *RELEASE), "Job")
    assert hooks[0]["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"


def test_the_patched_dockerfile_asks_nothing_and_the_preview_job_can_not_reach_production(patched: Path) -> None:
    dockerfile = (patched / "docker" / "Dockerfile").read_text()
    assert "RUN adduser" not in dockerfile
    assert "@sha256:" in dockerfile
    jobs = yaml.safe_load((patched / ".github" / "workflows" / "deploy.yml").read_text())["jobs"]
    assert jobs["preview"]["env"]["IMAGE"] == "shopcat-preview:${{ github.event.pull_request.head.sha }}"
    assert jobs["preview"]["env"]["NAMESPACE"] == "pr-${{ github.event.number }}"
    assert "PREVIEW_ROLE" in json.dumps(jobs["preview"])
    assert "RELEASE_ROLE" not in json.dumps(jobs["preview"])


class Kubernetes(BaseHTTPRequestHandler):
    """As much of the API as the claim needs: one ConfigMap, guarded by its resourceVersion."""

    ledger: dict[str, Any] | None = None
    race = False

    def _answer(self, status: int, body: Any) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def _body(self) -> Any:
        return json.loads(self.rfile.read(int(self.headers["Content-Length"])))

    def do_GET(self) -> None:
        found = type(self).ledger
        self._answer(200, found) if found else self._answer(404, {"message": "not found"})

    def do_POST(self) -> None:
        kind = type(self)
        kind.ledger = {**self._body(), "metadata": {"name": "shopcat-releases", "resourceVersion": "1"}}
        self._answer(201, kind.ledger)

    def do_PUT(self) -> None:
        kind, body = type(self), self._body()
        assert kind.ledger is not None
        version = kind.ledger["metadata"]["resourceVersion"]
        if kind.race or body["metadata"].get("resourceVersion") != version:
            self._answer(409, {"message": "the object has been modified"})
            return
        body["metadata"]["resourceVersion"] = str(int(version) + 1)
        kind.ledger = body
        self._answer(200, body)

    def log_message(self, *args: Any) -> None:
        """Quiet."""


@pytest.fixture
def api() -> Iterator[tuple[str, type[Kubernetes]]]:
    kind = type("Api", (Kubernetes,), {"ledger": None, "race": False})
    server = HTTPServer(("127.0.0.1", 0), kind)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", kind
    server.shutdown()
    server.server_close()


def claim(
    patched: Path, tmp_path: Path, url: str, tag: str, digest: str = DIGEST
) -> "subprocess.CompletedProcess[str]":
    (tmp_path / "token").write_text("t")
    environment = {
        "API": url,
        "NAMESPACE": "shopcat",
        "TAG": tag,
        "DIGEST": digest,
        "ACCOUNT_DIRECTORY": str(tmp_path),
        "TERMINATION_LOG": str(tmp_path / "log"),
    }
    script = patched / "helm" / "shopcat" / "files" / "claim.py"
    return subprocess.run([sys.executable, str(script)], env=environment, text=True, capture_output=True, check=False)


def test_a_used_tag_is_refused_and_the_earlier_release_named(
    patched: Path, tmp_path: Path, api: tuple[str, type[Kubernetes]]
) -> None:
    url, _ = api
    assert claim(patched, tmp_path, url, "v1.0.0").returncode == 0
    assert claim(patched, tmp_path, url, "v1.0.0").returncode == 0, "the newest may be tried again"
    other = claim(patched, tmp_path, url, "v1.0.0", f"sha256:{'b' * 64}")
    assert other.returncode == 1, "the same tag with another image"
    assert claim(patched, tmp_path, url, "v1.1.0").returncode == 0
    again = claim(patched, tmp_path, url, "v1.0.0")
    assert again.returncode == 1
    assert "v1.0.0 was released before" in again.stderr
    assert DIGEST in again.stderr


def test_of_two_claims_at_once_one_is_refused(patched: Path, tmp_path: Path, api: tuple[str, type[Kubernetes]]) -> None:
    url, kind = api
    assert claim(patched, tmp_path, url, "v1.0.0").returncode == 0
    kind.race = True
    lost = claim(patched, tmp_path, url, "v1.1.0")
    assert lost.returncode == 1
    assert "somebody else releases" in lost.stderr
