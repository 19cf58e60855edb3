"""Previews on the twin: `make pr PR=123` and `make pr-close PR=123` run the pipeline's own scripts (pipeline/preview.py).

What differs from GitHub and AWS is here: a state backend in a folder, and the stack's settings that say where the twin's
AWS and images are.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from infra.names import CLUSTER_INFO_PARAMETER
from infra.names import PREVIEW_REPOSITORY as REPOSITORY_NAME
from pipeline import stack as pipeline_stack
from pipeline.stack import Backend, Stack
from twin import config, pulumi
from twin.config import Twin
from twin.errors import TwinError
from twin.host import processes
from twin.images import registry_client
from twin.loadbalancer import hostnames
from twin.paths import REPOSITORY
from twin.scenarios import production, rehearsal

__all__ = [
    "REPOSITORY_NAME",
    "close",
    "contract",
    "environment",
    "exists",
    "reap",
    "run",
    "select",
    "settings_file",
    "stacks",
    "up",
]


def settings_file(twin: Twin, stack: str) -> Path:
    """The stack's own settings: where the twin's AWS and images are, and its encryption in place of KMS."""
    return twin.directory / "previews" / f"Pulumi.{stack}.yaml"


def environment(twin: Twin, stack: str) -> dict[str, str]:
    """Environment of production's commands, with the previews' backend and the stack's settings."""
    return {
        **pulumi.environment(twin),
        "PULUMI_BACKEND_URL": pulumi.backend_url(twin.directory / "pulumi-state-previews"),
        "PULUMI_OPTION_CONFIG_FILE": str(settings_file(twin, stack)),
    }


def run(
    twin: Twin, stack: str, *arguments: str, capture: bool = False, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run ``pulumi`` on a preview's stack, as a person would by hand.

    Raises:
        TwinError: it failed (only with ``check``).
    """
    result = subprocess.run(
        ["pulumi", *arguments, "--non-interactive"],
        cwd=REPOSITORY,
        env={**os.environ, **environment(twin, stack)},
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=capture,
    )
    if check and result.returncode != 0:
        shown = f":\n{result.stdout}{result.stderr}" if capture else "; what it says is above"
        raise TwinError(f"`pulumi {' '.join(arguments)}` failed (exit {result.returncode}){shown}")
    return result


def _backend(twin: Twin, stack: str) -> Backend:
    (twin.directory / "pulumi-state-previews").mkdir(exist_ok=True)
    variables = environment(twin, stack)
    return Backend(variables["PULUMI_BACKEND_URL"], "passphrase", more=variables)


def contract(twin: Twin) -> dict[str, Any]:
    """The cluster information that production publishes for previews (infra/previews/cluster_info.py)."""
    parameter = pulumi.client(twin, "ssm").get_parameter(Name=CLUSTER_INFO_PARAMETER)["Parameter"]
    contents: dict[str, Any] = json.loads(parameter["Value"])
    return contents


def stacks(twin: Twin) -> list[str]:
    """Every stack in the previews' backend, whatever is in it."""
    return pipeline_stack.stack_names(_backend(twin, "pr-0"))


def exists(twin: Twin, stack: str) -> bool:
    """Report whether the stack exists, even if it is empty."""
    return stack in stacks(twin)


def select(twin: Twin, stack: str) -> None:
    """Write the stack's settings, and make it unless it is there."""
    _write_settings(twin, stack)
    Stack(stack, _backend(twin, stack)).select_or_create()


def _write_settings(twin: Twin, stack: str, overrides: Mapping[str, Any] | None = None) -> None:
    overlay = {
        **(overrides or {}),
        "shopcat:awsEndpoint": twin.aws_endpoint,
        "shopcat:images": {"database": registry_client.tool_images(twin)["database"]},
    }
    path = settings_file(twin, stack)
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump({"secretsprovider": "passphrase", "config": overlay}, sort_keys=False))


def _script_environment(twin: Twin, stack: str) -> dict[str, str]:
    variables = environment(twin, stack)
    (twin.directory / "pulumi-state-previews").mkdir(exist_ok=True)
    return {
        **{name: variables[name] for name in ("PULUMI_BACKEND_URL", "PULUMI_OPTION_CONFIG_FILE")},
        "SHOPCAT_STACK_FILE": str(settings_file(twin, stack)),
        "SHOPCAT_TIMES": str(times_file(twin)),
    }


def times_file(twin: Twin) -> Path:
    """Steps and seconds of the latest run."""
    return twin.directory / "pipeline-times.json"


def up(
    twin: Twin,
    number: int,
    tag: str | None = None,
    *,
    fresh: bool = False,
    source: Path | None = None,
    settings: Mapping[str, Any] | None = None,
    more: Mapping[str, str] | None = None,
    log: Path | None = None,
) -> str:
    """Open or update a preview as its workflow does; its URL.

    Args:
        twin: where.
        number: the pull request.
        tag: an image that is pushed already; without it the application is built and pushed.
        fresh: build it without anything built before.
        source: the application; without it APP_SRC.
        settings: of the stack, above those of Pulumi.pr.yaml.
        more: what the script finds in its environment besides.
        log: where what it says goes.

    Raises:
        TwinError: a step failed.
    """
    stack = f"pr-{number}"
    host = f"{stack}.{hostnames.preview_domain(twin)}"
    _write_settings(twin, stack, settings)
    hostnames.add(twin, host)
    variables, arguments = _script_environment(twin, stack), ["preview", "up", "--number", str(number)]
    if tag is None:
        source = source or rehearsal.source()
        tag = content_tag(source)
        if twin.simulated:  # nodes that run no pods need no image that could be built
            production.push_image(twin, source, tag, REPOSITORY_NAME)
            arguments.append("--pushed")
        else:
            variables |= rehearsal.build_environment(twin, source)
    else:
        arguments.append("--pushed")
    arguments += ["--sha", tag, *(["--fresh"] if fresh else []), *(["--no-wait"] if twin.simulated else [])]
    rehearsal.run(twin, *arguments, more={**variables, **(more or {})}, log=log)
    return f"https://{host}"


def close(twin: Twin, number: int, *, more: Mapping[str, str] | None = None, log: Path | None = None) -> None:
    """Close a preview as its workflow does; one that never was is closed already.

    Args:
        twin: where.
        number: the pull request.
        more: what the script finds in its environment besides.
        log: where what it says goes.

    Raises:
        TwinError: a step failed.
    """
    stack = f"pr-{number}"
    _write_settings(twin, stack)
    variables = {**_script_environment(twin, stack), **(more or {})}
    rehearsal.run(twin, "preview", "close", "--number", str(number), more=variables, log=log)
    _forget(twin, stack)


def reap(twin: Twin, *, more: Mapping[str, str]) -> None:
    """Close what was missed, as the scheduled workflow does.

    Args:
        twin: where.
        more: what says which pull requests are open, in place of GitHub's variables.

    Raises:
        TwinError: one could not be closed.
    """
    before = stacks(twin)
    backend = {"PULUMI_BACKEND_URL": _backend(twin, "pr-0").url}
    try:
        rehearsal.run(twin, "reaper", more={**backend, **more})
    finally:
        for stack in sorted({*before} - {*stacks(twin)}):
            _forget(twin, stack)


def _forget(twin: Twin, stack: str) -> None:
    settings_file(twin, stack).unlink(missing_ok=True)
    hostnames.remove(twin, f"{stack}.{hostnames.preview_domain(twin)}")


def content_tag(source: Path) -> str:
    """A tag as long as a commit's, of what is in the source: the same source is the same image."""
    digest = hashlib.sha256()
    for path in sorted(
        candidate for candidate in source.rglob("*") if candidate.is_file() and "__pycache__" not in candidate.parts
    ):
        digest.update(f"{path.relative_to(source)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:40]


def _number(text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,8}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a pull request's number, such as 123")
    return int(text)


def main() -> int:
    """``python -m twin.scenarios.preview up|close <number>``."""
    processes.heed_interrupts()
    parser = argparse.ArgumentParser(prog="python -m twin.scenarios.preview", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    opened = commands.add_parser("up", help="open or update the preview of a pull request")
    opened.add_argument("number", type=_number)
    opened.add_argument("--tag", help="an image that is pushed already; without it APP_SRC is built and pushed")
    opened.add_argument("--fresh", action="store_true", help="build without anything built before")
    commands.add_parser("close", help="destroy it").add_argument("number", type=_number)
    arguments = parser.parse_args()
    try:
        twin = config.load()
        if arguments.command == "up":
            up(twin, arguments.number, arguments.tag, fresh=arguments.fresh)
        else:
            close(twin, arguments.number)
    except TwinError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
