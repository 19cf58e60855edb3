"""The pipeline on the twin: the scripts that the workflows call, with moto, the local registry and buildah.

Here is what they find in their environment, in place of AWS and GitHub's runner; what they do is theirs (pipeline/).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from twin import pulumi
from twin.config import Twin
from twin.errors import TwinError
from twin.images import registry_client
from twin.paths import REPOSITORY
from twin.scenarios import production

_OF_A_JOB = (
    "GITHUB_TOKEN",
    "GITHUB_ACTIONS",
    "GITHUB_OUTPUT",
    "GITHUB_REF",
    "GITHUB_RUN_ID",
    "SHOPCAT_LIMIT_SECONDS",
    "SHOPCAT_STARTED",
)
MESSAGE = "feat: a release rehearsed"


def source() -> Path:
    """The application, as a person names it by APP_SRC."""
    return Path(os.environ.get("APP_SRC", REPOSITORY / "twin" / "application"))


def changed_source(original: Path, folder: Path, word: str) -> Path:
    """The application with one file more in its source: a commit that touches no package."""
    target = folder / word
    shutil.copytree(original, target, ignore=shutil.ignore_patterns("__pycache__"))
    (target / "shopcat" / "commit.txt").write_text(f"{word} {time.time_ns()}\n")
    return target


def environment(twin: Twin) -> dict[str, str]:
    """Environment of every script of the pipeline."""
    return {
        **pulumi.environment(twin),
        "SHOPCAT_SECRETS_PROVIDER": "passphrase",
        # Nothing of a real GitHub, also where the twin runs in one of its jobs.
        **dict.fromkeys(_OF_A_JOB, ""),
        "GITHUB_SHA": _git(REPOSITORY, "rev-parse", "HEAD"),
    }


def build_environment(twin: Twin, application: Path | None = None) -> dict[str, str]:
    """Additional environment of a script that builds: the application (APP_SRC) with its wheels, and the twin's base image."""
    return {
        "SHOPCAT_BUILDER": "buildah",
        "SHOPCAT_BUILD_ARGS": f"BASE_IMAGE={registry_client.base_image(twin)} PIP_NO_INDEX=1",
        "APP_SRC": str(production.build_context(twin, application or source())),
    }


def run(
    twin: Twin,
    *arguments: str,
    more: Mapping[str, str] | None = None,
    module: str = "pipeline",
    log: Path | None = None,
) -> None:
    """Run ``python -m pipeline``, or another of its modules; what it says goes to ``log``, if there is one.

    Raises:
        TwinError: it failed; it has said why, and the end of a log stands in the message.
    """
    command = [sys.executable, "-m", module, *arguments]
    variables = {**os.environ, **environment(twin), **(more or {})}
    title = f"`python -m {module} {' '.join(arguments)}`"
    if log is None:
        if (
            subprocess.run(command, cwd=REPOSITORY, env=variables, check=False, stdin=subprocess.DEVNULL).returncode
            != 0
        ):
            raise TwinError(f"{title} failed; why is above")
        return
    with log.open("w") as out:
        result = subprocess.run(
            command, cwd=REPOSITORY, env=variables, check=False, stdin=subprocess.DEVNULL, stdout=out, stderr=out
        )
    if result.returncode != 0:
        raise TwinError(f"{title} failed:\n{log.read_text()[-3000:]}")


def production_environment(twin: Twin) -> dict[str, str]:
    """Additional environment of a script that works on production: the settings of its stack on the twin."""
    return {"SHOPCAT_STACK_FILE": pulumi.environment(twin)["PULUMI_OPTION_CONFIG_FILE"]}


def release(twin: Twin, tag: str | None, message: str = MESSAGE) -> str:
    """Release a pushed tag; without one rehearse all of it: version, git tag, image, `pulumi up -s prod`.

    Returns:
        The tag.

    Raises:
        TwinError: a step failed.
    """
    settings = production_environment(twin)
    if tag is not None:
        run(twin, "release", tag, "--pushed", more=settings)
        return tag
    live = str(production.outputs(twin).get("liveRelease") or "")
    if not live:
        raise TwinError("nothing is live on the twin yet; `make up` releases the first version")
    with tempfile.TemporaryDirectory(dir=twin.directory) as folder:
        clone = _history(Path(folder), live.rpartition("-r")[0] or live, message)
        run(twin, "--tag", "--directory", str(clone), module="pipeline.version")
        pushed_tag = _git(clone, "tag", "--points-at", "HEAD")
        if not pushed_tag:
            raise TwinError(f"{message!r} releases nothing; a message such as 'fix: …' or 'feat: …' does")
        more = {**settings, "GITHUB_SHA": _git(clone, "rev-parse", "HEAD")}
        if twin.simulated:
            production.push_image(twin, source(), pushed_tag)
            run(twin, "release", pushed_tag, "--pushed", more=more)
        else:
            run(twin, "release", pushed_tag, more={**more, **build_environment(twin)})
    return pushed_tag


def _history(folder: Path, live: str, message: str) -> Path:
    """A history of two commits: the live version, and on top of it what is rehearsed."""
    _git(folder, "init", "--quiet")
    who = ("-c", "user.name=ShopCat", "-c", "user.email=shopcat@example.com")
    _git(folder, *who, "commit", "--quiet", "--allow-empty", "--message", f"feat: what became {live}")
    _git(folder, "tag", live)
    _git(folder, *who, "commit", "--quiet", "--allow-empty", "--message", message)
    return folder


def _git(directory: Path, *arguments: str) -> str:
    result = subprocess.run(["git", *arguments], cwd=directory, text=True, check=False, capture_output=True)
    if result.returncode != 0:
        raise TwinError(f"`git {' '.join(arguments)}` failed in {directory}: {result.stderr.strip()}")
    return result.stdout.strip()
