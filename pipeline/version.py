"""Derive the next version from the commits since the last one (`python -m pipeline.version`), with Python and git alone.

Versions are semantic (semver.org), commits conventional (conventionalcommits.org/en/v1.0.0), read leniently: a space, an empty
scope or a second line must not hide a commit that is meant to release. Not by git-cliff, which skips such commits silently and
stops at any tag whose name it can't read.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from infra.errors import ShopCatError
from pipeline.errors import PipelineError
from pipeline.github import Github
from pipeline.history import VERSION, check_complete, check_on_main, commit_of, git, main_branch, numbers, tags
from pipeline.plan import append_lines

FIRST = "v1.0.0"
MAJOR, MINOR, PATCH = range(3)
LEVELS: Mapping[str, int] = {"feat": MINOR, "fix": PATCH, "perf": PATCH, "revert": PATCH}
_HEADER = re.compile(r"(?P<type>[A-Za-z][\w-]*) ?(?:\(.*?\) ?)?(?P<breaking>!?) ?: ?(?P<description>.*)")
_REVERTED = re.compile(r'(Revert|Reapply) "')
"""Subject that git or GitHub gives to a commit that reverts another."""
_BREAKING = re.compile(r"^BREAKING[ -]CHANGE: *\S", re.MULTILINE)


@dataclass(frozen=True)
class Commit:
    """A commit since the last version."""

    sha: str
    message: str

    @property
    def subject(self) -> str:
        """First paragraph in one line, as git defines a subject."""
        return " ".join(re.split(r"\n\s*\n", self.message.strip(), maxsplit=1)[0].split())

    @property
    def level(self) -> int | None:
        """Position of the number that it raises; None if it releases nothing."""
        if _REVERTED.match(self.subject):
            return PATCH
        header = _HEADER.match(self.subject)
        if header is None:
            return None
        if header["breaking"] or _BREAKING.search(self.message):
            return MAJOR
        return LEVELS.get(header["type"].lower())

    def describe(self) -> str:
        """Return a line of the release notes: `- a price (0123abcde)`."""
        header = _HEADER.match(self.subject)
        description = header["description"] if header and self.level is not None else ""
        return f"- {description or self.subject} ({self.sha[:9]})"


def check_version(tag: str) -> str:
    """Return the tag if it is a version.

    Raises:
        ShopCatError: it isn't.
    """
    if not VERSION.fullmatch(tag):
        raise PipelineError(f"{tag!r} is not v<major>.<minor>.<patch>, such as v1.4.0")
    return tag


def version_after(base: str | None, levels: Collection[int], taken: Collection[str]) -> str | None:
    """Return the version after `base`: the greatest change counts, and a version that is taken is passed over.

    Args:
        base: the last version; None if there is none.
        levels: of each commit since then that releases something.
        taken: every version tag of the repository, also on other branches, so that no tag ever moves.
    """
    if not levels:
        return None
    level = min(levels)
    version = base or FIRST
    while version == base or version in taken:
        parts = numbers(version)
        version = "v" + ".".join(map(str, [*parts[:level], parts[level] + 1, *[0] * (PATCH - level)]))
    return version


def commits_since_last(directory: Path) -> tuple[str | None, list[Commit]]:
    """Return the highest version that HEAD contains, and HEAD's commits since then, oldest first."""
    base = next(iter(tags(directory, "--merged=HEAD")), None)
    arguments = ["HEAD", f"^refs/tags/{base}"] if base else ["HEAD"]
    # A person's own settings could name another encoding.
    text = git(
        directory, "-c", "log.showSignature=false", "log", "--reverse", "-z", "--encoding=UTF-8", "--format=%H%n%B",
        *arguments, "--",
    )  # fmt: skip
    entries = (entry.partition("\n") for entry in text.split("\0") if entry.strip())
    return base, [Commit(sha, message.replace("\r\n", "\n")) for sha, _, message in entries]


def newer_version(directory: Path) -> str | None:
    """Return the highest version on main that contains HEAD and is not HEAD's own: HEAD is behind it."""
    main = main_branch(directory)
    arguments = ["--contains=HEAD", *([f"--merged={main}"] if main else [])]
    own = tags(directory, "--points-at=HEAD")
    return next((tag for tag in tags(directory, *arguments) if tag not in own), None)


def next_version(directory: Path) -> str | None:
    """Return the version that HEAD is or becomes; None if it is behind a version of main, or no commit releases anything.

    Raises:
        ShopCatError: the clone is shallow, HEAD is not on main, or git fails.
    """
    check_complete(directory)
    check_on_main(directory)
    if newer_version(directory):
        return None
    own = tags(directory, "--points-at=HEAD")
    if own:  # a job that runs again
        return own[0]
    base, commits = commits_since_last(directory)
    levels = [commit.level for commit in commits if commit.level is not None]
    return version_after(base, levels, tags(directory))


def notes(directory: Path) -> str:
    """Return the release notes: one line for each commit that releases something."""
    return "\n".join(commit.describe() for commit in commits_since_last(directory)[1] if commit.level is not None)


def describe_unreleased(commits: Sequence[Commit]) -> str:
    """Return the commits that release nothing, in words, so that a misspelt type is seen."""
    lines = "\n".join(commit.describe() for commit in commits if commit.level is None)
    return f"release nothing (expected fix:, perf:, revert:, feat: or a breaking change):\n{lines}" if lines else ""


def put_tag(directory: Path, tag: str, environment: Mapping[str, str]) -> None:
    """Tag HEAD: on GitHub, or without GitHub (on the twin) in this clone.

    Raises:
        ShopCatError: the tag is on another commit.
    """
    sha = git(directory, "rev-parse", "HEAD")
    github = Github.from_environment(environment)
    if github is not None:
        github.put_tag(tag, sha)
    elif tag not in tags(directory):
        git(directory, "tag", tag)
    elif commit_of(directory, f"refs/tags/{tag}") != sha:
        raise PipelineError(
            f"tag {tag} is on another commit than HEAD; a tag of a release never moves; delete it if nothing was released "
            "from it"
        )


def main() -> int:
    """Print the next version and its notes, write `version` for the steps that follow, and with ``--tag`` tag HEAD."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.version", description=__doc__)
    parser.add_argument("--directory", type=Path, default=Path(), help="the clone")
    parser.add_argument("--tag", action="store_true", help="tag HEAD with it")
    arguments = parser.parse_args()
    try:
        version = next_version(arguments.directory)
        print(_report(arguments.directory, version))
        if version and arguments.tag:
            put_tag(arguments.directory, version, os.environ)
    except ShopCatError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    append_lines(os.environ.get("GITHUB_OUTPUT"), f"version={version or ''}")
    return 0


def _report(directory: Path, version: str | None) -> str:
    later = newer_version(directory)
    if later:
        return f"nothing to release: {later} of main contains this commit already"
    base, commits = commits_since_last(directory)
    title = version or f"nothing to release since {base or 'the beginning'}"
    return "\n".join(filter(None, [title, notes(directory), describe_unreleased(commits)]))


if __name__ == "__main__":
    sys.exit(main())
