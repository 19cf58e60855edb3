"""The Pulumi CLI that a person has installed already, used instead of a built one when it is new enough."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

from twin.build import golang
from twin.build.cache import BuiltPart, Step

_COMPANIONS = ("pulumi-language-python", "pulumi-language-python-exec")
_ANSWER_SECONDS = 20


def new_enough(answer: str, wanted: str = golang.PULUMI) -> bool:
    """Report whether a ``pulumi version`` answer is at least ``wanted``, of the same major version, and no pre-release."""
    version = re.fullmatch(r"v?(\d+)\.(\d+)\.(\d+)", answer.strip())
    if version is None:
        return False
    major, minor, patch = (int(number) for number in version.groups())
    wanted_major, wanted_minor, wanted_patch = (int(number) for number in wanted.split("."))
    return major == wanted_major and (minor, patch) >= (wanted_minor, wanted_patch)


@functools.cache
def _version(program: Path, _changed_nanoseconds: int) -> str:
    environment = {**os.environ, "PULUMI_SKIP_UPDATE_CHECK": "true"}
    try:
        answer = subprocess.run(
            [program, "version"],
            env=environment,
            text=True,
            capture_output=True,
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=_ANSWER_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""


def pulumi(cache: Path) -> BuiltPart | None:
    """The installed CLI, with the language host beside it, as a part of the cache; None if there is none to use.

    Only a CLI that has its language host beside it is used: both come from one release. What the cache itself put on
    PATH (``make env``) doesn't count.
    """
    command = shutil.which("pulumi")
    if command is None:
        return None
    program = Path(command).resolve()
    programs = [program, *(program.parent / name for name in _COMPANIONS)]
    if cache.resolve() in program.parents or not all(path.exists() for path in programs):
        return None
    version = _version(program, program.stat().st_mtime_ns)
    if not new_enough(version):
        return None

    def link(step: Step) -> None:
        folder = step.directory / "bin"
        folder.mkdir()
        for path in programs:
            (folder / path.name).symlink_to(path)

    recipe = hashlib.sha256(f"{program} {version}".encode()).hexdigest()
    return BuiltPart("pulumi-installed", version.removeprefix("v"), recipe, link)
