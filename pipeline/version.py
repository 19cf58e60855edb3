"""The next version, from the commits since the last tag (`python -m pipeline.version`).

git-cliff reads them, by the rules in pipeline/cliff.toml. Besides it only Python is needed.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from infra.errors import Refused
from pipeline import process
from pipeline.github import Github

RULES = Path(__file__).with_name("cliff.toml")
VERSION = re.compile(r"v(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)")


def check(tag: str) -> str:
    """The tag, if it is a version.

    Raises:
        Refused: it isn't.
    """
    if not VERSION.fullmatch(tag):
        raise Refused(f"{tag!r} is not v<major>.<minor>.<patch>, such as v1.4.0")
    return tag


def _git(directory: Path, *arguments: str) -> str:
    return process.capture(["git", *arguments], cwd=directory).strip()


def tags(directory: Path, *arguments: str) -> list[str]:
    """Versions among a commit's tags, the highest first."""
    found = [one for one in _git(directory, "tag", *arguments).split() if VERSION.fullmatch(one)]
    return sorted(found, key=lambda one: tuple(map(int, one[1:].split("."))), reverse=True)


def next_version(directory: Path) -> str | None:
    """The version that HEAD is or becomes; None if nothing since the last one asks for a release.

    Raises:
        Refused: the history is not all there, or git or git-cliff fails.
    """
    if _git(directory, "rev-parse", "--is-shallow-repository") == "true":
        raise Refused("this is a shallow clone, so the commits since the last version can't be read; fetch-depth: 0")
    here = tags(directory, "--points-at", "HEAD")
    if here:  # a job that runs again
        return here[0]
    found = _cliff(directory, "--bumped-version")
    # It says the last version again where nothing raises it, and the first one of all in a history without any.
    if found in tags(directory, "--merged", "HEAD") or (not tags(directory) and not notes(directory)):
        return None
    return check(found)


def notes(directory: Path) -> str:
    """What is new since the last version: one line a commit."""
    return _cliff(directory, "--unreleased", "--strip", "all")


def _cliff(directory: Path, *arguments: str) -> str:
    beside = Path(sys.executable).with_name("git-cliff")
    program = str(beside) if beside.exists() else "git-cliff"
    return process.capture([program, "--config", str(RULES), *arguments], cwd=directory).strip()


def put_tag(directory: Path, tag: str, environment: Mapping[str, str]) -> None:
    """Tag HEAD: on GitHub, or where there is none (the twin) in this clone.

    Raises:
        Refused: the tag is on another commit.
    """
    sha = _git(directory, "rev-parse", "HEAD")
    github = Github.find(environment)
    if github is not None:
        github.tag(tag, sha)
    elif tag not in tags(directory):
        _git(directory, "tag", tag)
    elif _git(directory, "rev-parse", f"{tag}^{{commit}}") != sha:
        raise Refused(f"tag {tag} is on another commit than HEAD; a tag of a release never moves")


def main() -> int:
    """Print the next version and what is new; with ``--tag`` tag HEAD; `version` for the steps that follow."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.version", description=__doc__)
    parser.add_argument("--directory", type=Path, default=Path(), help="the clone")
    parser.add_argument("--tag", action="store_true", help="tag HEAD with it")
    arguments = parser.parse_args()
    try:
        found = next_version(arguments.directory)
        if found is None:
            print("nothing since the last version asks for a release (fix:, perf:, revert:, feat:, a breaking change)")
        else:
            print(f"{found}\n{notes(arguments.directory)}")
            if arguments.tag:
                put_tag(arguments.directory, found, os.environ)
    except Refused as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    output = os.environ.get("GITHUB_OUTPUT")
    if output:
        with Path(output).open("a") as file:
            file.write(f"version={found or ''}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
