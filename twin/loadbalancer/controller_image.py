"""The controller's image and chart, as the twin's registry and chart mirror serve them."""

from __future__ import annotations

import hashlib
import shutil
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import yaml

from twin.config import PartStatus, Twin
from twin.errors import TwinError
from twin.loadbalancer import simulated_controller

CHART = Path(__file__).with_name("chart")
CONTROLLER_REPOSITORY = "eks/aws-load-balancer-controller"
_CONTROLLER = Path(__file__).with_name("controller")
_DISTRIBUTIONS = ("botocore", "jmespath", "python-dateutil", "six", "urllib3")
# Of botocore's service models, 100 MB in all, only these are spoken.
_SERVICES = ("elbv2", "ec2", "sts")

DOCKERFILE = """\
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
COPY packages /opt/packages
COPY twin /opt/controller/twin
WORKDIR /opt/controller
ENV PYTHONPATH=/opt/controller:/opt/packages PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 65532:65532
ENTRYPOINT ["python3", "-m", "twin.loadbalancer.controller"]
"""


def image_tag() -> str:
    """The tag that the chart asks for."""
    document = yaml.safe_load((CHART / "Chart.yaml").read_text())
    return str(document["appVersion"])


def chart_overrides(twin: Twin) -> dict[str, Any]:
    """Default values that the mirrored chart has on this twin: with simulated nodes its webhooks are on the host."""
    return {"twinWebhookURL": simulated_controller.webhook_url(twin)} if twin.simulated else {}


def _copy_distribution(name: str, target: Path) -> None:
    try:
        package = distribution(name)
    except PackageNotFoundError as error:
        raise TwinError(f"the Python package {name} is missing in the virtual environment; run `make ready`") from error
    for file in package.files or []:
        text = str(file)
        if text.startswith("..") or "__pycache__" in text:
            continue
        service = text.removeprefix("botocore/data/").partition("/")[0]
        if (
            text.startswith("botocore/data/")
            and "/" in text.removeprefix("botocore/data/")
            and service not in _SERVICES
        ):
            continue
        destination = target / file
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(Path(str(file.locate())), destination)


def build_context(directory: Path) -> Path:
    """Write the image's build context: this package's controller, what it imports, a Dockerfile."""
    shutil.rmtree(directory, ignore_errors=True)
    package = directory / "twin" / "loadbalancer"
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(_CONTROLLER, package / "controller", ignore=ignore)
    for init in (package, package.parent):
        (init / "__init__.py").write_text('"""The controller\'s part of the twin."""\n')
    for name in _DISTRIBUTIONS:
        _copy_distribution(name, directory / "packages")
    (directory / "Dockerfile").write_text(DOCKERFILE)
    return directory


def fingerprint(directory: Path) -> str:
    """A hash of a build context, so that an unchanged image is not built again."""
    digest = hashlib.sha256()
    for file in sorted(path for path in directory.rglob("*") if path.is_file()):
        digest.update(f"{file.relative_to(directory)}\0".encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


def push_image(twin: Twin) -> None:
    """Build the controller's image and push it to the twin's registry, unless it is there as it is now.

    Raises:
        TwinError: the build or the push failed.
    """
    from twin.images import buildah, registry_client

    context = build_context(twin.directory / "loadbalancer" / "image")
    base = registry_client.base_image(twin)
    done = twin.directory / "loadbalancer" / "image.pushed"
    state = f"{fingerprint(context)} {base}"
    if done.exists() and done.read_text() == state:
        return
    reference = buildah.build_image(
        twin,
        context=context,
        dockerfile=context / "Dockerfile",
        tag=f"twin.invalid/{CONTROLLER_REPOSITORY}:{image_tag()}",
        build_args={"BASE_IMAGE": base},
    )
    buildah.push(twin, reference, CONTROLLER_REPOSITORY, image_tag(), system=True)
    done.write_text(state)


def up(twin: Twin) -> None:
    """Build and push, unless nodes are simulated and pull nothing."""
    if not twin.simulated:
        push_image(twin)


def down(twin: Twin) -> None:
    """Do nothing: the image goes with the registry's folder."""


def status(twin: Twin) -> list[PartStatus]:
    """Report whether the controller's image was pushed."""
    if twin.simulated:
        return [PartStatus("controller image", ok=True, detail="none: simulated nodes pull nothing")]
    done = (twin.directory / "loadbalancer" / "image.pushed").exists()
    return [PartStatus("controller image", ok=done, detail="pushed" if done else "missing")]
