"""Previews on the twin: `make pr PR=123` and `make pr-close PR=123`, with the state backend that previews have of their own."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from twin import config, hostnames, images, parts, production, pulumi
from twin.config import Twin
from twin.errors import TwinError
from twin.paths import REPOSITORY

REPOSITORY_NAME = f"{production.REPOSITORY_NAME}-preview"


def settings_file(twin: Twin, stack: str) -> Path:
    """The stack's own settings: where the twin's AWS and images are, and its encryption in place of KMS."""
    return twin.directory / "previews" / f"Pulumi.{stack}.yaml"


def environment(twin: Twin, stack: str) -> dict[str, str]:
    """What production's commands need, with the previews' backend and the stack's settings."""
    return {
        **pulumi.environment(twin),
        "PULUMI_BACKEND_URL": f"file://{twin.directory}/pulumi-state-previews",
        "PULUMI_OPTION_CONFIG_FILE": str(settings_file(twin, stack)),
    }


def run(
    twin: Twin, stack: str, *arguments: str, capture: bool = False, check: bool = True, directory: Path = REPOSITORY
) -> subprocess.CompletedProcess[str]:
    """Run ``pulumi`` on a preview's stack.

    Raises:
        TwinError: it failed (only with ``check``).
    """
    env = {**os.environ, **environment(twin, stack)}
    if directory != REPOSITORY:
        del env["PULUMI_OPTION_CONFIG_FILE"]
    result = subprocess.run(
        ["pulumi", *arguments, "--non-interactive"],
        cwd=directory,
        env=env,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=capture,
    )
    if check and result.returncode != 0:
        shown = f":\n{result.stdout}{result.stderr}" if capture else "; what it says is above"
        raise TwinError(f"`pulumi {' '.join(arguments)}` failed (exit {result.returncode}){shown}")
    return result


def exists(twin: Twin, stack: str) -> bool:
    """Whether the stack is there, whatever is in it."""
    (twin.directory / "pulumi-state-previews").mkdir(exist_ok=True)
    listed = json.loads(run(twin, stack, "stack", "ls", "--json", capture=True).stdout)
    return stack in [one["name"].rpartition("/")[2] for one in listed]


def select(twin: Twin, stack: str) -> None:
    """``pulumi stack select --create``; on a copy, since making a stack writes its salt beside Pulumi.yaml."""
    path = settings_file(twin, stack)
    path.parent.mkdir(exist_ok=True)
    salt = yaml.safe_load(path.read_text()).get("encryptionsalt") if path.exists() else None
    if not exists(twin, stack) or salt is None:
        with tempfile.TemporaryDirectory(dir=twin.directory) as copy:
            directory = Path(copy)
            shutil.copy(REPOSITORY / "Pulumi.yaml", directory)
            arguments = ("stack", "select", "--create", stack, "--secrets-provider", "passphrase")
            run(twin, stack, *arguments, capture=True, directory=directory)
            made = directory / f"Pulumi.{stack}.yaml"
            salt = yaml.safe_load(made.read_text())["encryptionsalt"] if made.exists() else salt
    overlay = {
        "shopcat:awsEndpoint": twin.aws_endpoint,
        "shopcat:images": {"database": images.tool_images(twin)["database"]},
    }
    document = {"secretsprovider": "passphrase", "config": overlay}
    if salt is not None:
        document["encryptionsalt"] = salt
    path.write_text(yaml.safe_dump(document, sort_keys=False))


def up(twin: Twin, number: int, tag: str | None) -> str:
    """Build and push unless a tag is given, then `pulumi up`; returns the preview's URL.

    Raises:
        TwinError: a step failed.
    """
    stack = f"pr-{number}"
    if tag is None:
        source = Path(os.environ.get("APP_SRC", REPOSITORY / "twin" / "application"))
        tag = _content_tag(source)
        with parts.timed(twin, "image"):
            production.push_image(twin, source, tag, REPOSITORY_NAME)
    select(twin, stack)
    with parts.timed(twin, f"up {stack}"):
        run(twin, stack, "up", "-s", stack, "--yes", "--skip-preview", "-c", f"shopcat:tag={tag}")
    url = f"https://{stack}.preview.{hostnames.domain(twin)}"
    if not twin.simulated:
        with parts.timed(twin, "answers"):
            production.wait_until_served(twin, url)
    return url


def close(twin: Twin, number: int) -> None:
    """`pulumi destroy` and `stack rm`; a preview that never was is closed already.

    Raises:
        TwinError: a step failed.
    """
    stack = f"pr-{number}"
    if exists(twin, stack):
        with parts.timed(twin, f"destroy {stack}"):
            run(twin, stack, "destroy", "-s", stack, "--yes", "--skip-preview")
        run(twin, stack, "stack", "rm", stack, "--yes", capture=True)
    settings_file(twin, stack).unlink(missing_ok=True)


def _content_tag(source: Path) -> str:
    """A tag as long as a commit's, of what is in the source: the same source is the same image."""
    found = hashlib.sha256()
    for path in sorted(one for one in source.rglob("*") if one.is_file() and "__pycache__" not in one.parts):
        found.update(f"{path.relative_to(source)}\0".encode() + path.read_bytes() + b"\0")
    return found.hexdigest()[:40]


def _number(text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,8}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a pull request's number, such as 123")
    return int(text)


def main() -> int:
    """``python -m twin.preview up|close <number>``."""
    parser = argparse.ArgumentParser(prog="python -m twin.preview", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    opened = commands.add_parser("up", help="open or update the preview of a pull request")
    opened.add_argument("number", type=_number)
    opened.add_argument("--tag", help="an image that is pushed already; without it APP_SRC is built and pushed")
    commands.add_parser("close", help="destroy it").add_argument("number", type=_number)
    arguments = parser.parse_args()
    try:
        twin = config.load()
        if arguments.command == "up":
            print(up(twin, arguments.number, arguments.tag))
        else:
            close(twin, arguments.number)
    except TwinError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
