"""ShopCat's production stack on the twin, taken through what a person does on AWS: bootstrap, platform, push, release."""

from __future__ import annotations

import json
import os
import shutil
import ssl
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from twin import config, parts, pulumi
from twin.build import cache
from twin.config import Twin
from twin.errors import TwinError
from twin.host import pki, processes
from twin.images import buildah, registry_client
from twin.loadbalancer import front_door
from twin.paths import REPOSITORY

FIRST_TAG = "v1.0.0"
_ROW = 10
REPOSITORY_NAME = "shopcat"


def copy_application(directory: Path, mark: str, edits: Mapping[str, str]) -> None:
    """Copy the twin's application with pieces of its source replaced; the mark makes it another content than every other.

    Raises:
        TwinError: the source has one of the pieces not at all, or more than once.
    """
    shutil.copytree(REPOSITORY / "twin" / "application", directory)
    path = directory / "shopcat" / "__main__.py"
    text = path.read_text()
    for old, new in edits.items():
        if text.count(old) != 1:
            raise TwinError(f"the application has {old!r} {text.count(old)} times; once is expected")
        text = text.replace(old, new)
    path.write_text(f"{text}# {mark}\n")


def _wheels(twin: Twin, source: Path) -> Path:
    """The application's packages as wheels, so that the build itself needs no network; kept in the cache."""
    requirements = source / "requirements.txt"
    if not requirements.exists():
        raise TwinError(f"APP_SRC={source} has no requirements.txt; app_docker/README.md says what it must hold")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--require-hashes", "--only-binary=:all:"]

    def download(step: cache.Step) -> None:
        try:
            step.run([*command, "--dest", step.directory, "--requirement", requirements.resolve()])
        except TwinError as error:
            raise TwinError(f"the packages in {requirements} can't be downloaded: {error}") from error

    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    # Two twins may want them at the same time: the second waits for the first.
    return cache.ensure(twin.cache, cache.BuiltPart("wheels", version, requirements.read_text(), download))


def build_context(twin: Twin, source: Path) -> Path:
    """A build context of the directory and its wheels.

    Raises:
        TwinError: the directory does not keep the contract in app_docker/README.md.
    """
    source = source.resolve()
    if not (source / "shopcat").is_dir():
        raise TwinError(f"APP_SRC={source} has no shopcat/; app_docker/README.md says what it must hold")
    wheels = _wheels(twin, source)
    context = twin.directory / "build-context"
    shutil.rmtree(context, ignore_errors=True)
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
    shutil.copytree(source / "shopcat", context / "shopcat", ignore=ignore)
    shutil.copy(source / "requirements.txt", context)
    shutil.copytree(wheels, context / "wheels")
    return context


def _build_image(twin: Twin, source: Path, tag: str, repository: str) -> tuple[Path, str]:
    """The build context, and the image built from it; simulated nodes run no pods, so for them none is built."""
    context = build_context(twin, source)
    if twin.simulated:
        return context, ""
    return context, buildah.build_image(
        twin,
        context=context,
        dockerfile=REPOSITORY / "app_docker" / "Dockerfile",
        ignorefile=REPOSITORY / "app_docker" / "Dockerfile.dockerignore",
        tag=f"{config.registry_host()}/{repository}:{tag}",
        build_args={"BASE_IMAGE": registry_client.base_image(twin), "PIP_NO_INDEX": "1"},
    )


def _push(twin: Twin, built: tuple[Path, str], tag: str, repository: str) -> str:
    context, reference = built
    if twin.simulated:
        digest = registry_client.push_unbuilt(twin, context, repository, tag)
    else:
        digest = buildah.push(twin, reference, repository, tag)
    return f"{config.registry_host()}/{repository}@{digest}"


def push_image(twin: Twin, source: Path, tag: str, repository: str = REPOSITORY_NAME) -> str:
    """Build the application's image and push it to the twin's ECR under an immutable tag.

    Returns:
        The image by digest, as a release uses it.
    """
    return _push(twin, _build_image(twin, source, tag, repository), tag, repository)


def _pulumi_up(twin: Twin, title: str, *arguments: str, settings: Path | None = None) -> None:
    """`pulumi up`, its output shown as it comes; how long it took stands below it."""
    started = time.monotonic()
    pulumi.run(twin, ["up", "-s", pulumi.STACK, "--yes", "--skip-preview", *arguments], config_file=settings)
    parts.took(twin, title, time.monotonic() - started)


def release(twin: Twin, tag: str) -> None:
    """``pulumi up -s prod`` with ``shopcat:tag`` set for this one run."""
    with pulumi.throw_away_settings(twin) as settings:
        _pulumi_up(twin, f"release {tag}", "-c", f"shopcat:tag={tag}", settings=settings)


def outputs(twin: Twin) -> dict[str, object]:
    """The stack's outputs, secrets left out."""
    result = pulumi.run(twin, ["stack", "output", "-s", pulumi.STACK, "--json"], capture=True)
    values: dict[str, object] = json.loads(result.stdout or "{}")
    return values


def wait_until_served(twin: Twin, url: str) -> None:
    """Wait until a page has come ten times in a row: load balancer nodes take a change over one by one.

    Raises:
        TwinError: not within two minutes.
    """
    context = ssl.create_default_context(cafile=str(pki.ca_file(twin)))
    row = 0

    def probe() -> bool:
        nonlocal row
        try:
            with urllib.request.urlopen(url, context=context, timeout=5) as answer:
                row = row + 1 if answer.status == 200 else 0
        except OSError:
            row = 0
            raise
        return row >= _ROW

    processes.wait_until(probe, f"a page from {url}", timeout_seconds=120)


def up(twin: Twin, rest: Callable[[], None] | None = None) -> None:
    """Platform, image and first release; on a stack that has a release, one `pulumi up` that changes nothing.

    ``rest`` waits for what `parts.begin` has left to be finished meanwhile.
    """
    source = Path(os.environ.get("APP_SRC", REPOSITORY / "twin" / "application"))
    with ThreadPoolExecutor(1) as beside:
        built = None
        if not outputs(twin).get("liveRelease"):
            built = beside.submit(_build_image, twin, source, FIRST_TAG, REPOSITORY_NAME)
        print()
        try:
            _pulumi_up(twin, "platform")
        finally:
            # What went wrong there is why the platform failed, and is what has to be said.
            if rest is not None:
                rest()
        if built is not None:
            with parts.timed(twin, "image"):
                _push(twin, built.result(), FIRST_TAG, REPOSITORY_NAME)
            release(twin, FIRST_TAG)
    url = str(outputs(twin).get("url"))
    if not twin.simulated:
        with parts.timed(twin, "every node serves"):
            wait_until_served(twin, url)
    if twin.simulated:
        print(
            f"\n{url} is declared and released, but simulated nodes run no pods: served pages can only be seen with root."
        )
    else:
        print(f"\nShopCat answers at {url} (certificate from the twin's own authority):")
        # curl takes every name below localhost for 127.0.0.1, whatever /etc/hosts says.
        host, address = url.removeprefix("https://"), front_door.address(twin)
        where = "" if address == "127.0.0.1" else f"--resolve {host}:443:{address} "
        print(f"  curl --cacert {pki.ca_file(twin)} {where}{url}")
    print('By hand: eval "$(make -s env)", then pulumi preview -s prod, kubectl get pods -A')
