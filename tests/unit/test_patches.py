"""patches/ apply to legacy/ in order, and what comes out keeps its promises."""

import json
import os
import re
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

from infra.settings import DrainSettings
from twin import config
from twin.build import programs
from twin.paths import REPOSITORY

PATCHES = sorted((REPOSITORY / "patches").glob("*.diff"))
DIGEST = f"sha256:{'a' * 64}"


def apply(copy: Path, *patches: Path) -> None:
    for patch in patches:
        result = subprocess.run(
            ["git", "apply", "--verbose", str(patch)], cwd=copy, text=True, capture_output=True, check=False
        )
        assert result.returncode == 0, f"{patch.name}: {result.stderr}"


@pytest.fixture
def patched(tmp_path: Path) -> Path:
    """A scratch copy with every patch applied."""
    copy = tmp_path / "shop"
    shutil.copytree(REPOSITORY / "legacy", copy)
    apply(copy, *PATCHES)
    return copy


@pytest.fixture
def patched_with_ingress(tmp_path: Path) -> Path:
    """A scratch copy with the patches that keep the Ingress."""
    copy = tmp_path / "with-ingress"
    shutil.copytree(REPOSITORY / "legacy", copy)
    apply(copy, *PATCHES[:5])
    return copy


@pytest.fixture(scope="session")
def helm() -> str:
    """The helm that the twin built, or the machine's own."""
    path = os.pathsep.join([*map(str, programs.path_directories(config.load("main"))), os.environ.get("PATH", "")])
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


def test_the_patches_apply_with_patch_as_with_git(patched: Path, tmp_path: Path) -> None:
    program = shutil.which("patch")
    if program is None:
        pytest.skip("no `patch` on PATH")
    copy = tmp_path / "by-patch"
    shutil.copytree(REPOSITORY / "legacy", copy)
    for patch in PATCHES:
        with patch.open() as file:
            subprocess.run(
                [program, "-p1", "--fuzz=0", "--batch", "--remove-empty-files"], cwd=copy, stdin=file, check=True
            )

    def files(top: Path) -> dict[str, str]:
        return {str(path.relative_to(top)): path.read_text() for path in top.rglob("*") if path.is_file()}

    assert files(copy) == files(patched)


def test_there_is_a_patch_for_each_fault() -> None:
    assert [patch.name[:2] for patch in PATCHES] == ["01", "02", "03", "04", "05", "06", "07"]


def test_the_database_is_not_lost_with_a_mistake(patched: Path) -> None:
    (database,) = re.findall(
        r'resource "aws_db_instance" "shopcat" {(.*?)\n}', (patched / "terraform" / "rds.tf").read_text(), re.DOTALL
    )
    assert re.search(r"deletion_protection\s+= true", database)
    assert re.search(r"skip_final_snapshot\s+= false", database)
    assert "storage_encrypted" not in database, "on a running database it would have Terraform make an empty one"


@pytest.mark.parametrize("layout", ["terraform", "terraform-modules"])
def test_the_old_repository_has_the_files_it_was_described_with(layout: str) -> None:
    legacy = REPOSITORY / "legacy"
    described = {
        ".github/workflows/deploy.yml",
        "docker/Dockerfile",
        "helm/shopcat/Chart.yaml",
        "helm/shopcat/values.yaml",
        "k8s/ingress.yaml",
        "k8s/namespace.yaml",
        *(f"{layout}/{name}.tf" for name in ("eks", "rds", "outputs")),
    }
    assert {name for name in described if not (legacy / name).is_file()} == set()
    assert {path.name for path in (legacy / layout).iterdir()} == {"eks.tf", "rds.tf", "outputs.tf"}


@pytest.mark.parametrize("number", range(len(PATCHES) + 1))
def test_terraform_accepts_every_stage_of_the_patches(tmp_path: Path, number: int) -> None:
    program = shutil.which("terraform")
    if program is None:
        pytest.skip("no terraform on PATH")
    copy = tmp_path / "shop"
    shutil.copytree(REPOSITORY / "legacy", copy)
    apply(copy, *PATCHES[:number])
    result = subprocess.run(
        [program, "fmt", "-check", "-diff", "-recursive", str(copy)],
        env={"PATH": os.environ["PATH"], "TF_CLI_CONFIG_FILE": os.devnull, "CHECKPOINT_DISABLE": "1"},
        text=True,
        capture_output=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_patches_before_blue_green_keep_the_ingress_and_time_its_targets(
    helm: str, patched_with_ingress: Path
) -> None:
    ingress = yaml.safe_load((patched_with_ingress / "k8s" / "ingress.yaml").read_text())
    prefix = "alb.ingress.kubernetes.io/"
    own = {name.removeprefix(prefix): value for name, value in ingress["metadata"]["annotations"].items()}
    assert own["target-type"] == "ip", "readiness gates need pods as targets"
    key, _, seconds = own["target-group-attributes"].partition("=")
    assert key == "deregistration_delay.timeout_seconds"
    budget = DrainSettings().budget
    assert int(seconds) >= budget.propagation_seconds + budget.longest_request_seconds
    (rule,) = ingress["spec"]["rules"]
    (path,) = rule["http"]["paths"]
    release = ("--set", f"image.tag=v1.1.0,image.digest={DIGEST},database.secretName=shopcat/application")
    (service,) = of_kind(rendered(helm, patched_with_ingress / "helm" / "shopcat", *release), "Service")
    backend = path["backend"]["service"]
    assert backend["name"] == service["metadata"]["name"]
    assert backend["port"]["number"] in [port["port"] for port in service["spec"]["ports"]]


def test_with_the_ingress_the_workflow_releases_by_tag_and_digest(patched_with_ingress: Path) -> None:
    text = (patched_with_ingress / ".github" / "workflows" / "deploy.yml").read_text()
    assert "latest" not in text.replace("ubuntu-latest", "")
    production = yaml.safe_load(text)["jobs"]["production"]
    manifests, release = (step["run"] for step in production["steps"][-2:])
    assert manifests == "kubectl apply -f k8s/namespace.yaml -f k8s/ingress.yaml"
    for value in ('image.tag="$TAG"', 'image.digest="$DIGEST"', "database.secretName=shopcat/application"):
        assert f"--set {value}" in release


def test_blue_green_leaves_no_ingress_beside_the_weighted_rule(patched: Path) -> None:
    assert not (patched / "k8s" / "ingress.yaml").exists()
    assert "ingress.yaml" not in (patched / ".github" / "workflows" / "deploy.yml").read_text()


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
    dockerfile = (REPOSITORY / "legacy" / "docker" / "Dockerfile").read_text().splitlines()
    assert "RUN adduser shopcat" in dockerfile, "without --disabled-password and --gecos it asks"


def test_the_patched_chart_gives_pods_the_time_that_the_drain_budget_asks_for(helm: str, patched: Path) -> None:
    (deployment,) = of_kind(rendered(helm, patched / "helm" / "shopcat", *RELEASE), "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    budget = DrainSettings().budget
    program, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
    assert program == "sleep", "the cluster of the old repository is too old for a preStop `sleep` of Kubernetes' own"
    assert int(seconds) >= budget.pre_stop_seconds
    assert pod["terminationGracePeriodSeconds"] >= budget.grace_seconds
    groups = (patched / "terraform" / "alb.tf").read_text()
    delay = re.search(r"deregistration_delay = (\d+)", groups)
    assert delay is not None
    assert int(delay[1]) >= budget.propagation_seconds + budget.longest_request_seconds
    settle = re.search(r"SETTLE_SECONDS = (\d+)", (patched / "helm" / "release.py").read_text())
    assert settle is not None
    assert int(settle[1]) >= budget.propagation_seconds + budget.longest_request_seconds
    namespace = yaml.safe_load((patched / "k8s" / "namespace.yaml").read_text())
    assert namespace["metadata"]["labels"]["elbv2.k8s.aws/pod-readiness-gate-inject"] == "enabled"
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


def test_the_claim_runs_in_the_released_image_or_in_the_one_that_is_named(helm: str, patched: Path) -> None:
    def image(*more: str) -> str:
        (job,) = of_kind(rendered(helm, patched / "helm" / "shopcat", *RELEASE, *more), "Job")
        return str(job["spec"]["template"]["spec"]["containers"][0]["image"])

    assert image().endswith(f"/shopcat@{DIGEST}")
    assert image("--set", "ledger.image=registry.example/python:3.12") == "registry.example/python:3.12"


def test_each_colour_has_pods_service_and_binding_of_its_own(helm: str, patched: Path) -> None:
    blue = json.dumps({"tag": "v1.0.0", "digest": DIGEST, "replicas": 2})
    manifests = rendered(helm, patched / "helm" / "shopcat", *RELEASE, "--set-json", f"colours.blue={blue}")
    pods = {one["metadata"]["name"]: one["spec"]["template"]["metadata"] for one in of_kind(manifests, "Deployment")}
    once = [one for one in yaml.safe_load_all((patched / "k8s" / "colours.yaml").read_text()) if one]
    for colour in ("blue", "green"):
        name = f"shopcat-{colour}"
        (service,) = (one for one in of_kind(once, "Service") if one["metadata"]["name"] == name)
        selecting = [own for own, pod in pods.items() if service["spec"]["selector"].items() <= pod["labels"].items()]
        assert selecting == [name]
        (binding,) = (one for one in of_kind(once, "TargetGroupBinding") if one["metadata"]["name"] == name)
        assert binding["spec"]["serviceRef"]["name"] == name
        assert binding["spec"]["targetGroupARN"] == f"${{{colour.upper()}_TARGET_GROUP_ARN}}"


def test_the_patched_dockerfile_asks_nothing_and_the_preview_job_can_not_reach_production(patched: Path) -> None:
    dockerfile = (patched / "docker" / "Dockerfile").read_text()
    assert "RUN adduser" not in dockerfile
    assert "@sha256:" in dockerfile
    jobs = yaml.safe_load((patched / ".github" / "workflows" / "deploy.yml").read_text())["jobs"]
    assert jobs["preview"]["env"]["IMAGE"] == "shopcat-preview:${{ github.event.pull_request.head.sha }}"
    assert jobs["preview"]["env"]["NAMESPACE"] == "pr-${{ github.event.number }}"
    assert "PREVIEW_ROLE" in json.dumps(jobs["preview"])
    assert "RELEASE_ROLE" not in json.dumps(jobs["preview"])


def test_a_preview_runs_the_pull_requests_own_image_and_holds_no_secret_value(helm: str, patched: Path) -> None:
    chart = patched / "helm" / "preview"
    image = f"123456789012.dkr.ecr.eu-central-1.amazonaws.com/shopcat-preview:{'c' * 40}"
    manifests = rendered(helm, chart, "--set", f"image={image}")
    (deployment,) = of_kind(manifests, "Deployment")
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == image
    assert of_kind(manifests, "Secret") == []
    (secret,) = of_kind(manifests, "ExternalSecret")
    assert secret["apiVersion"] == "external-secrets.io/v1"
    assert template(helm, chart).returncode != 0, "no image, no preview"
    jobs = yaml.safe_load((patched / ".github" / "workflows" / "deploy.yml").read_text())["jobs"]
    deploy, closed = jobs["preview"], jobs["preview-closed"]
    assert deploy["concurrency"] == closed["concurrency"], "a preview that is being made when its pull request closes"
    assert '--namespace "$NAMESPACE"' in deploy["steps"][-1]["run"]


def test_an_eviction_takes_one_pod_of_a_colour_at_a_time(helm: str, patched: Path) -> None:
    budgets = of_kind(rendered(helm, patched / "helm" / "shopcat", *RELEASE), "PodDisruptionBudget")
    selected = {one["spec"]["selector"]["matchLabels"]["colour"]: one["spec"]["maxUnavailable"] for one in budgets}
    assert selected == {"blue": 1, "green": 1}


class Kubernetes(BaseHTTPRequestHandler):
    """Kubernetes API with what the claim needs of it: one ConfigMap, guarded by its resourceVersion."""

    ledger: dict[str, Any] | None = None
    race = False
    forbidden = False

    def _answer(self, status: int, body: Any) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def _body(self) -> Any:
        return json.loads(self.rfile.read(int(self.headers["Content-Length"])))

    def do_GET(self) -> None:
        if type(self).forbidden:
            self._answer(403, {"message": "forbidden"})
            return
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
    kind = type("Api", (Kubernetes,), {"ledger": None, "race": False, "forbidden": False})
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
    assert "v1.0.0 was released before: release 1" in again.stderr
    assert DIGEST in again.stderr
    assert (tmp_path / "log").read_text() in again.stderr


def test_an_older_version_is_refused_also_if_it_never_was_released(
    patched: Path, tmp_path: Path, api: tuple[str, type[Kubernetes]]
) -> None:
    url, kind = api
    for tag in ("v0.0.9", "v0.0.10"):
        assert claim(patched, tmp_path, url, tag).returncode == 0
    before = json.dumps(kind.ledger)
    for older in ("v0.0.8", "v0.0.2"):
        refused = claim(patched, tmp_path, url, older)
        assert refused.returncode == 1
        assert f"{older} is older than v0.0.10" in refused.stderr
    assert json.dumps(kind.ledger) == before
    assert claim(patched, tmp_path, url, "v0.1.0").returncode == 0


def steps(patched: Path, job: str) -> dict[str, str]:
    """The job's scripts by the first words of their names."""
    jobs = yaml.safe_load((patched / ".github" / "workflows" / "deploy.yml").read_text())["jobs"]
    return {" ".join(step["name"].split()[:2]): step["run"] for step in jobs[job]["steps"] if "name" in step}


def test_a_commit_that_is_not_on_main_is_not_released(patched: Path, tmp_path: Path) -> None:
    script = steps(patched, "production")["Refuse a"]

    def git(*arguments: str) -> None:
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@example.com", *arguments]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)

    def ends() -> int:
        return subprocess.run(["bash", "-e", "-c", script], cwd=tmp_path, check=False, capture_output=True).returncode

    git("init", "--quiet")
    git("commit", "--quiet", "--allow-empty", "--message", "one")
    git("update-ref", "refs/remotes/origin/main", "HEAD")
    assert ends() == 0
    git("commit", "--quiet", "--allow-empty", "--message", "two")
    assert ends() == 1


@pytest.mark.parametrize(
    ("status", "removed"),
    [("pending-install", True), ("pending-upgrade", True), ("uninstalling", True), ("failed", False), ("", False)],
)
def test_a_preview_that_a_lost_run_left_half_done_is_made_anew(
    patched: Path, tmp_path: Path, status: str, *, removed: bool
) -> None:
    jobs = yaml.safe_load((patched / ".github" / "workflows" / "deploy.yml").read_text())["jobs"]
    assert {one["concurrency"]["cancel-in-progress"] for one in (jobs["preview"], jobs["preview-closed"])} == {False}
    (tmp_path / "helm").write_text(
        '#!/bin/sh\n[ "$1" = list ] || echo "$*" >> "$LOG"\n[ "$1" = list ] || exit 0\n'
        'case "$*" in *--pending*--uninstalling*) case "$STATUS" in pending-*|uninstalling) echo shopcat;; esac;; esac\n'
    )
    (tmp_path / "helm").chmod(0o755)
    log = tmp_path / "log"
    log.touch()
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    environment = {"PATH": path, "NAMESPACE": "pr-12", "STATUS": status, "LOG": str(log)}
    subprocess.run(["bash", "-e", "-c", steps(patched, "preview")["Remove what"]], env=environment, check=True)
    assert log.read_text() == ("uninstall shopcat --namespace pr-12 --wait --timeout 2m\n" if removed else "")


def test_a_ledger_that_can_not_be_read_releases_nothing(
    patched: Path, tmp_path: Path, api: tuple[str, type[Kubernetes]]
) -> None:
    url, kind = api
    kind.forbidden = True
    refused = claim(patched, tmp_path, url, "v1.0.0")
    assert refused.returncode == 1
    assert "the ledger can't be read (HTTP 403): forbidden" in refused.stderr
    silent = claim(patched, tmp_path, "http://127.0.0.1:1", "v1.0.0")
    assert silent.returncode == 1
    assert "whether the tag is claimed is unknown" in silent.stderr
    assert "Traceback" not in silent.stderr
    assert kind.ledger is None


def test_of_two_claims_at_once_one_is_refused(patched: Path, tmp_path: Path, api: tuple[str, type[Kubernetes]]) -> None:
    url, kind = api
    assert claim(patched, tmp_path, url, "v1.0.0").returncode == 0
    kind.race = True
    lost = claim(patched, tmp_path, url, "v1.1.0")
    assert lost.returncode == 1
    assert "somebody else releases" in lost.stderr


BOTO3 = """
import json, os
def read():
    return json.load(open(os.environ["STATE"]))
class client:
    def __init__(self, service):
        pass
    def describe_rules(self, RuleArns):
        groups = [{"TargetGroupArn": name, "Weight": weight} for name, weight in read()["weights"].items()]
        return {"Rules": [{"Actions": [{"ForwardConfig": {"TargetGroups": groups}}]}]}
    def describe_target_health(self, TargetGroupArn):
        states = read()["health"].split()
        return {"TargetHealthDescriptions": [{"TargetHealth": {"State": state}} for state in states]}
    def modify_rule(self, RuleArn, Actions):
        state = read()
        state["weights"] = {one["TargetGroupArn"]: one["Weight"] for one in Actions[0]["ForwardConfig"]["TargetGroups"]}
        json.dump(state, open(os.environ["STATE"], "w"))
"""
HELM = """#!{python}
import json, os, sys
state = json.load(open(os.environ["STATE"]))
history, verb = state["history"], sys.argv[1]
if verb == "list":
    print(json.dumps(history[-1:]))
elif verb == "history":
    print(json.dumps(history))
elif verb == "get":
    print(json.dumps({{"colours": history[-1]["colours"]}}))
else:
    colours = next(json.loads(one.partition("=")[2]) for one in sys.argv if one.startswith("colours="))
    history.append({{"status": "failed" if state["broken"] else "deployed", "colours": colours}})
    json.dump(state, open(os.environ["STATE"], "w"))
    if state["broken"]:
        print("v1.0.0 was released before")
        sys.exit("Error: pre-upgrade hooks failed")
"""
"""Stand-ins for boto3 and helm that keep weights and revisions in one file."""


class Releases:
    """helm/release.py between a load balancer and a Helm that are files."""

    def __init__(self, patched: Path, directory: Path) -> None:
        self._script, self._directory, self._state = patched / "helm" / "release.py", directory, directory / "state"
        directory.mkdir()
        (directory / "boto3.py").write_text(BOTO3)
        (directory / "helm").write_text(HELM.format(python=sys.executable))
        (directory / "helm").chmod(0o755)
        self.state: dict[str, Any] = {
            "weights": {"B": 100, "G": 0}, "health": "healthy", "history": [], "broken": False
        }  # fmt: skip

    def run(self, tag: str, digest: str = DIGEST, **changes: Any) -> "subprocess.CompletedProcess[str]":
        self._state.write_text(json.dumps({**self.state, **changes}))
        arguments = ["--tag", tag, "--digest", digest, "--rule", "R", "--blue", "B", "--green", "G", "--settle", "0"]
        result = subprocess.run(
            [sys.executable, str(self._script), *arguments],
            env={"PATH": str(self._directory), "PYTHONPATH": str(self._directory), "STATE": str(self._state)},
            text=True,
            capture_output=True,
            check=False,
        )
        self.state = {**json.loads(self._state.read_text()), **{name: self.state[name] for name in changes}}
        return result

    def replicas(self) -> dict[str, int]:
        return {name: one["replicas"] for name, one in self.state["history"][-1]["colours"].items()}


@pytest.fixture
def releases(patched: Path, tmp_path: Path) -> Releases:
    return Releases(patched, tmp_path / "releases")


def test_each_release_takes_the_idle_colour_and_all_weight(releases: Releases) -> None:
    assert releases.run("v1.0.0").returncode == 0
    assert (releases.state["weights"], releases.replicas()) == ({"B": 100, "G": 0}, {"blue": 2, "green": 0})
    assert releases.run("v1.1.0").returncode == 0
    assert (releases.state["weights"], releases.replicas()) == ({"B": 0, "G": 100}, {"blue": 0, "green": 2})


def test_weights_stay_while_the_new_colour_is_unhealthy_and_the_next_run_goes_on(releases: Releases) -> None:
    assert releases.run("v1.0.0").returncode == 0
    failed = releases.run("v1.1.0", health="initial")
    assert failed.returncode != 0
    assert "green is not healthy at the load balancer" in failed.stderr
    assert (releases.state["weights"], releases.replicas()) == ({"B": 100, "G": 0}, {"blue": 2, "green": 2})
    assert releases.run("v1.1.0").returncode == 0
    assert (releases.state["weights"], releases.replicas()) == ({"B": 0, "G": 100}, {"blue": 0, "green": 2})


@pytest.mark.parametrize(
    ("health", "code"),
    [
        ("healthy healthy draining draining", 0),  # pods of the release before the last, on a way back soon after it
        ("draining draining", 1),
        ("healthy initial draining", 1),
        ("healthy unhealthy", 1),
        ("", 1),
    ],
)
def test_only_targets_that_stay_are_asked_for_health(releases: Releases, health: str, code: int) -> None:
    assert releases.run("v1.0.0").returncode == 0
    assert releases.run("v1.1.0", health=health).returncode == code
    assert releases.state["weights"] == ({"B": 100, "G": 0} if code else {"B": 0, "G": 100})


def test_a_first_release_that_failed_is_not_taken_for_live(releases: Releases) -> None:
    assert releases.run("v1.0.0", broken=True).returncode != 0
    again = releases.run("v1.0.0")
    assert again.returncode == 0, again.stderr
    assert "live already" not in again.stdout
    assert releases.state["history"][-1]["status"] == "deployed"


def test_what_the_hook_says_reaches_whoever_releases_and_live_pods_keep_their_image(releases: Releases) -> None:
    assert releases.run("v1.0.0").returncode == 0
    assert releases.run("v1.1.0").returncode == 0
    refused = releases.run("v1.0.0", broken=True)
    assert refused.returncode != 0
    assert "v1.0.0 was released before" in refused.stderr
    other = releases.run("v1.1.0", f"sha256:{'b' * 64}")
    assert other.returncode != 0
    assert "a tag is released once" in other.stderr
    assert releases.state["history"][-1]["colours"]["green"]["digest"] == DIGEST
    assert releases.state["weights"] == {"B": 0, "G": 100}
