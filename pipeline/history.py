"""Read version tags, main and the ancestry of commits from git.

Names of tags and commit messages are bytes to git. What is not UTF-8 in them is replaced, so it never looks like a version.
"""

from __future__ import annotations

import re
from pathlib import Path

from infra.errors import ShopCatError
from infra.names import MAIN_BRANCH
from pipeline import process
from pipeline.errors import PipelineError

_VERSION_NUMBER = r"(0|[1-9][0-9]{0,8})"
VERSION = re.compile(rf"v{_VERSION_NUMBER}\.{_VERSION_NUMBER}\.{_VERSION_NUMBER}")


def git(directory: Path, *arguments: str) -> str:
    """Return the output of a git command.

    Raises:
        ShopCatError: it failed.
    """
    return process.capture(["git", *arguments], cwd=directory).strip("\n")


def tags(directory: Path, *arguments: str) -> list[str]:
    """Return version tags, the highest first; any other name than v<major>.<minor>.<patch> is ignored.

    Args:
        directory: the clone.
        arguments: of `git for-each-ref`, such as `--points-at=HEAD`.
    """
    names = git(directory, "for-each-ref", "--format=%(refname:strip=2)", *arguments, "refs/tags").split("\n")
    return sorted(filter(VERSION.fullmatch, names), key=numbers, reverse=True)


def numbers(tag: str) -> list[int]:
    """Return the numbers of a version: `[1, 4, 0]` of `v1.4.0`."""
    return [int(each) for each in tag[1:].split(".")]


def contains(directory: Path, commit: str, other: str) -> bool:
    """Return true if `other` is `commit` or one of its ancestors."""
    return not git(directory, "rev-list", "--max-count=1", other, f"^{commit}", "--")


def commit_of(directory: Path, name: str) -> str | None:
    """Return the commit of a reference or an id; None if this clone doesn't have it."""
    try:
        return git(directory, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    except ShopCatError:
        return None


def check_complete(directory: Path) -> None:
    """Refuse a shallow clone.

    Raises:
        ShopCatError: it is one.
    """
    if git(directory, "rev-parse", "--is-shallow-repository") == "true":
        raise PipelineError(
            "this is a shallow clone, so the commits since the last version can't be read; check out with fetch-depth: 0"
        )


def main_branch(directory: Path) -> str | None:
    """Return the reference of main, the remote's or else this clone's own; None in a repository without main."""
    for name in (f"refs/remotes/origin/{MAIN_BRANCH}", f"refs/heads/{MAIN_BRANCH}"):
        if commit_of(directory, name):
            return name
    return None


def check_on_main(directory: Path) -> None:
    """Refuse to release a commit that main doesn't hold (any more).

    Raises:
        ShopCatError: HEAD is not on main.
    """
    main = main_branch(directory)
    if main and not contains(directory, main, "HEAD"):
        raise PipelineError(
            f"commit {git(directory, 'rev-parse', 'HEAD')} is not on {MAIN_BRANCH} (any more), so it is not released; "
            f"run the workflow of a commit that is on {MAIN_BRANCH}"
        )


def check_contains_live(directory: Path, live: str, tag: str, commit: str) -> None:
    """Refuse to release HEAD unless it contains the live commit: only a rollback moves production back.

    Args:
        directory: a clone with the whole history.
        live: name of the live release.
        tag: its version.
        commit: its commit in the ledger; empty if it was released by hand, then its git tag names the commit.

    Raises:
        ShopCatError: HEAD is behind it or on another branch, or this clone doesn't have the live commit.
    """
    live_commit = commit_of(directory, commit or f"refs/tags/{tag}")
    if live_commit is None:
        where = f"its commit {commit} is" if commit else f"the ledger has no commit of it, and its git tag {tag} is"
        raise PipelineError(
            f"{live} is live, but {where} not in this clone, so it is unknown whether this commit is newer; put its tag "
            f"back (`git push origin <commit>:refs/tags/{tag}`) and run the job again"
        )
    if contains(directory, "HEAD", live_commit):
        return
    head = git(directory, "rev-parse", "HEAD")
    if contains(directory, live_commit, head):
        raise PipelineError(
            f"commit {head} is behind {live}, which is live (commit {live_commit}), so it is not released; to go back on "
            "purpose, run the workflow `rollback`"
        )
    raise PipelineError(
        f"{live} is live (commit {live_commit}) with commits that {head} doesn't contain, so releasing it would take them back; "
        f"merge {tag} into {MAIN_BRANCH} first"
    )
