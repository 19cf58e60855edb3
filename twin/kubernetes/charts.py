"""The Helm repository that stands in for the charts' publishers: the real chart of External Secrets, and ours."""

from __future__ import annotations

import functools
import hashlib
import http.server
import shutil
import socketserver
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from twin import config
from twin.build import golang, image_layers, programs
from twin.config import PartStatus, Twin
from twin.errors import TwinError
from twin.host import ports, processes
from twin.images import registry_client
from twin.loadbalancer import controller_image

if TYPE_CHECKING:
    from collections.abc import Mapping

PROCESS = "charts"
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the definitions have 1.6 MB
NEXT_DEFINITION = "nexts.twin.elbv2.k8s.aws"
"""Definition that only the second version of the controller's chart has."""
_NEXT_DEFINITION: dict[str, Any] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": NEXT_DEFINITION},
    "spec": {
        "group": "twin.elbv2.k8s.aws",
        "scope": "Namespaced",
        "names": {"kind": "Next", "listKind": "NextList", "plural": "nexts", "singular": "next"},
        "versions": [
            {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}},
        ],
    },
}


def _directory(twin: Twin) -> Path:
    return twin.directory / "charts"


def _helm(twin: Twin, *arguments: str) -> None:
    result = subprocess.run(
        [programs.program(twin, "helm"), *arguments],
        text=True,
        check=False,
        capture_output=True,
        stdin=subprocess.DEVNULL,
    )
    if result.returncode != 0:
        raise TwinError(f"helm {arguments[0]} failed: {result.stderr.strip()}")


def _external_secrets(twin: Twin, work: Path) -> Path:
    """The module's own chart as a release publishes it: versioned, its definitions as templates, without a chart it never uses.

    The module has the definitions as one file; upstream makes the templates of it when it releases.
    """
    built = programs.directory(twin, "external-secrets")
    chart = work / "external-secrets"
    shutil.copytree(built / "charts" / "external-secrets", chart)
    path = chart / "Chart.yaml"
    document: dict[str, Any] = yaml.safe_load(path.read_text())
    document.pop("dependencies", None)  # bitwarden-sdk-server, off by default
    document.setdefault("annotations", {})["shopcat.twin/left-out"] = "bitwarden-sdk-server"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    (chart / "Chart.lock").unlink(missing_ok=True)
    switches = yaml.safe_load((chart / "values.yaml").read_text())["crds"]
    for text in (built / "crds" / "bundle.yaml").read_text().split("\n---\n"):
        names = yaml.load(text, _LOADER)["spec"]["names"]  # noqa: S506 - both are the safe loader
        (chart / "templates" / "crds" / f"{names['singular']}.yaml").write_text(
            _template(text, names["kind"], switches)
        )
    return chart


def _template(definition: str, kind: str, switches: Mapping[str, Any]) -> str:
    """Return a definition as the release's chart has it: among the templates, behind the values that switch it off."""
    condition = "if .Values.installCRDs"
    if f"create{kind}" in switches:
        condition = f"if and .Values.installCRDs .Values.crds.create{kind}"
    annotations = (
        "  annotations:\n    {{- with .Values.crds.annotations }}\n    {{- toYaml . | nindent 4 }}\n    {{- end }}\n"
    )
    text = definition.strip().replace("  annotations:\n", annotations, 1)
    return f"{{{{- {condition} }}}}\n{text}\n{{{{- end }}}}\n"


def _load_balancer_controller(twin: Twin, work: Path) -> Path:
    chart = work / "aws-load-balancer-controller"
    shutil.copytree(controller_image.CHART, chart)
    path = chart / "values.yaml"
    values: dict[str, Any] = yaml.safe_load(path.read_text())
    values.update(controller_image.chart_overrides(twin))
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return chart


def addon_images(twin: Twin) -> dict[str, str]:
    """The charts' own images, by the digests they have on the twin."""
    images = {
        "loadBalancerController": (
            "public.ecr.aws",
            controller_image.CONTROLLER_REPOSITORY,
            controller_image.image_tag(),
        ),
        "externalSecrets": ("oci.external-secrets.io", *image_layers.EXTERNAL_SECRETS_IMAGE.split(":")),
    }
    if twin.simulated:  # never pulled, as the tools' images
        return {name: f"{host}/{image}:{tag}@sha256:{'0' * 64}" for name, (host, image, tag) in images.items()}
    return {
        name: f"{host}/{image}:{tag}@{registry_client.digest(twin, image, tag)}"
        for name, (host, image, tag) in images.items()
    }


def _package(twin: Twin) -> None:
    target = _directory(twin)
    work = twin.directory / "charts-work"
    for folder in (target, work):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    version = golang.EXTERNAL_SECRETS
    _helm(
        twin, "package", str(_external_secrets(twin, work)), "--destination", str(target),
        "--version", version, "--app-version", f"v{version}",
    )  # fmt: skip
    _helm(twin, "package", str(_load_balancer_controller(twin, work)), "--destination", str(target))
    _helm(twin, "repo", "index", str(target))
    shutil.rmtree(work)


def publish_next(twin: Twin) -> dict[str, tuple[str, str]]:
    """Serve a second version of each chart: the same content under the next number, the controller's with one definition more.

    No other version of the real charts can be had here. Returns version and SHA-256 of each archive, by its name in the
    settings; the charts that were served stay.

    Raises:
        TwinError: Helm says no.
    """
    target, work = _directory(twin) / "next", twin.directory / "charts-work"
    for folder in (target, work):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    controller = _load_balancer_controller(twin, work)
    (controller / "crds" / "next.yaml").write_text(yaml.safe_dump(_NEXT_DEFINITION))
    published = {}
    for setting, chart, version in (
        ("loadBalancerController", controller, yaml.safe_load((controller / "Chart.yaml").read_text())["version"]),
        ("externalSecrets", _external_secrets(twin, work), golang.EXTERNAL_SECRETS),
    ):
        major, minor, patch = version.split(".")
        following = f"{major}.{minor}.{int(patch) + 1}"
        _helm(
            twin, "package", str(chart), "--destination", str(target), "--version", following, "--app-version", f"v{following}",
        )  # fmt: skip
        archive = target / f"{chart.name}-{following}.tgz"
        published[setting] = (following, f"sha256:{hashlib.sha256(archive.read_bytes()).hexdigest()}")
    _helm(twin, "repo", "index", str(_directory(twin)))
    shutil.rmtree(work)
    return published


def digests(twin: Twin) -> dict[str, str]:
    """SHA-256 of each archive that is served, by its name in the settings.

    Raises:
        TwinError: they aren't packaged yet.
    """
    digest_of = {}
    for setting, chart in (
        ("loadBalancerController", "aws-load-balancer-controller"),
        ("externalSecrets", "external-secrets"),
    ):
        archives = list(_directory(twin).glob(f"{chart}-[0-9]*.tgz"))
        if len(archives) != 1:
            raise TwinError(f"{_directory(twin)} holds {len(archives)} archives of {chart}, expected one; run make up")
        digest_of[setting] = f"sha256:{hashlib.sha256(archives[0].read_bytes()).hexdigest()}"
    return digest_of


def _addresses(twin: Twin) -> list[str]:
    return sorted({"127.0.0.1", twin.host_ip})


def _answers(twin: Twin) -> bool:
    with urllib.request.urlopen(f"{twin.chart_mirror}/index.yaml", timeout=2) as answer:
        return bool(answer.status == 200)


def up(twin: Twin) -> None:
    """Package the charts and serve them."""
    if processes.find(twin, PROCESS) is None:
        for address in _addresses(twin):
            ports.require_free(twin, address, twin.charts_port, "the chart mirror")
        _package(twin)
    process = processes.start(
        twin, PROCESS, [sys.executable, "-m", "twin.kubernetes.charts"], env=config.module_environment(twin)
    )
    processes.wait_until(lambda: _answers(twin), "the chart mirror answers", timeout_seconds=20, process=process)


def down(twin: Twin) -> None:
    """Stop serving."""
    processes.stop(twin, PROCESS)


def status(twin: Twin) -> list[PartStatus]:
    """Report whether the chart mirror runs."""
    running = processes.find(twin, PROCESS) is not None
    return [PartStatus("chart mirror", ok=running, detail=twin.chart_mirror if running else "not running")]


def main() -> None:
    """Serve the folder until SIGTERM."""
    twin = config.load()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(_directory(twin)))
    socketserver.ThreadingTCPServer.allow_reuse_address = True
    servers = [socketserver.ThreadingTCPServer((host, twin.charts_port), handler) for host in _addresses(twin)]
    for server in servers[1:]:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    servers[0].serve_forever()


if __name__ == "__main__":
    main()
