"""The next version, from the commits since the last one (`python -m pipeline.version`). It needs Python and git alone.

Versions are semantic (semver.org), commits conventional (conventionalcommits.org/en/v1.0.0), read leniently: what is meant to
release must not be skipped because of a space, an empty scope or a second line. Our own rules, since git-cliff skips such
commits in silence and stops at any tag whose name it can't read.
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

FIRST = "v1.0.0"
MAJOR, MINOR, PATCH = range(3)
LEVELS: Mapping[str, int] = {"feat": MINOR, "fix": PATCH, "perf": PATCH, "revert": PATCH}
_HEADER = re.compile(r"(?P<type>[A-Za-z][\w-]*) ?(?:\(.*?\) ?)?(?P<breaking>!?) ?: ?(?P<description>.*)")
_REVERTED = re.compile(r'(Revert|Reapply) "')
"""Subject by which git or GitHub takes a commit back."""
_BREAKING = re.compile(r"^BREAKING[ -]CHANGE: *\S", re.MULTILINE)


@dataclass(frozen=True)
class Commit:
    """One commit since the last version."""

    sha: str
    message: str

    @property
    def subject(self) -> str:
        """The first paragraph in one line: git's own idea of a subject."""
        return " ".join(re.split(r"\n\s*\n", self.message.strip(), maxsplit=1)[0].split())

    @property
    def level(self) -> int | None:
        """The number that it raises; None if it releases nothing."""
        if _REVERTED.match(self.subject):
            return PATCH
        header = _HEADER.match(self.subject)
        if header is None:
            return None
        if header["breaking"] or _BREAKING.search(self.message):
            return MAJOR
        return LEVELS.get(header["type"].lower())

    def describe(self) -> str:
        """`- a price (0123abcde)`."""
        header = _HEADER.match(self.subject)
        said = header["description"] if header and self.level is not None else ""
        return f"- {said or self.subject} ({self.sha[:9]})"


def check_version(tag: str) -> str:
    """The tag, if it is a version.

    Raises:
        ShopCatError: it isn't.
    """
    if not VERSION.fullmatch(tag):
        raise PipelineError(f"{tag!r} is not v<major>.<minor>.<patch>, such as v1.4.0")
    return tag


def raised(base: str | None, levels: Collection[int], taken: Collection[str]) -> str | None:
    """Return the version after `base`: the greatest change counts, and a tag that another branch has is passed over.

    Args:
        base: the last version; None if there is none.
        levels: what each commit since then raises.
        taken: every version tag of the repository, so that no tag ever moves.
    """
    if not levels:
        return None
    level = min(levels)
    found = base or FIRST
    while found == base or found in taken:
        parts = numbers(found)
        found = "v" + ".".join(map(str, [*parts[:level], parts[level] + 1, *[0] * (PATCH - level)]))
    return found


def since_last(directory: Path) -> tuple[str | None, list[Commit]]:
    """The highest version that HEAD contains, and the commits that it doesn't contain, oldest first."""
    base = next(iter(tags(directory, "--merged=HEAD")), None)
    arguments = ["HEAD", f"^refs/tags/{base}"] if base else ["HEAD"]
    # The encoding could be another one by somebody's own settings.
    text = git(
        directory, "-c", "log.showSignature=false", "log", "--reverse", "-z", "--encoding=UTF-8", "--format=%H%n%B",
        *arguments, "--",
    )  # fmt: skip
    parted = (one.partition("\n") for one in text.split("\0") if one.strip())
    return base, [Commit(sha, message.replace("\r\n", "\n")) for sha, _, message in parted]


def newer(directory: Path) -> str | None:
    """The highest version on main that contains HEAD and is not HEAD's own: HEAD is behind it."""
    main = main_branch(directory)
    arguments = ["--contains=HEAD", *([f"--merged={main}"] if main else [])]
    here = tags(directory, "--points-at=HEAD")
    return next((tag for tag in tags(directory, *arguments) if tag not in here), None)


def next_version(directory: Path) -> str | None:
    """The version that HEAD is or becomes; None if it is behind a version of main, or nothing asks for a release.

    Raises:
        ShopCatError: the history is not all there, HEAD is not on main, or git fails.
    """
    check_complete(directory)
    check_on_main(directory)
    if newer(directory):
        return None
    here = tags(directory, "--points-at=HEAD")
    if here:  # a job that runs again
        return here[0]
    base, commits = since_last(directory)
    levels = [one.level for one in commits if one.level is not None]
    return raised(base, levels, tags(directory))


def notes(directory: Path) -> str:
    """What is new since the last version: one line a commit that releases something."""
    return "\n".join(one.describe() for one in since_last(directory)[1] if one.level is not None)


def silent(commits: Sequence[Commit]) -> str:
    """The commits that release nothing, in words: nobody is to wait in vain for one that is spelt in another way."""
    lines = "\n".join(one.describe() for one in commits if one.level is None)
    return f"release nothing (expected fix:, perf:, revert:, feat: or a breaking change):\n{lines}" if lines else ""


def put_tag(directory: Path, tag: str, environment: Mapping[str, str]) -> None:
    """Tag HEAD: on GitHub, or where there is none (the twin) in this clone.

    Raises:
        ShopCatError: the tag is on another commit.
    """
    sha = git(directory, "rev-parse", "HEAD")
    github = Github.find(environment)
    if github is not None:
        github.tag(tag, sha)
    elif tag not in tags(directory):
        git(directory, "tag", tag)
    elif commit_of(directory, f"refs/tags/{tag}") != sha:
        raise PipelineError(f"tag {tag} is on another commit than HEAD; a tag of a release never moves")


def main() -> int:
    """Print the next version and what is new; with ``--tag`` tag HEAD; `version` for the steps that follow."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.version", description=__doc__)
    parser.add_argument("--directory", type=Path, default=Path(), help="the clone")
    parser.add_argument("--tag", action="store_true", help="tag HEAD with it")
    arguments = parser.parse_args()
    try:
        found = next_version(arguments.directory)
        print(_said(arguments.directory, found))
        if found and arguments.tag:
            put_tag(arguments.directory, found, os.environ)
    except ShopCatError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    output = os.environ.get("GITHUB_OUTPUT")
    if output:
        with Path(output).open("a") as file:
            file.write(f"version={found or ''}\n")
    return 0


def _said(directory: Path, found: str | None) -> str:
    later = newer(directory)
    if later:
        return f"nothing to release: {later} of main contains this commit already"
    base, commits = since_last(directory)
    title = found or f"nothing to release since {base or 'the beginning'}"
    return "\n".join(filter(None, [title, notes(directory), silent(commits)]))


if __name__ == "__main__":
    sys.exit(main())
