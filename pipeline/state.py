"""The files of previews' state: list and remove them without reading any.

A pull request may write anything into its own folder, so only names and times count: a stack exists if its file does, it was
updated when that was written (by S3's clock), and a lock is as old as its file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from infra.clients.aws import AwsClients
from infra.names import PROJECT
from pipeline.environment import aws_errors
from pipeline.errors import StackLockedError

_STACK = re.compile(rf"(?:([1-9][0-9]*)/)?\.pulumi/stacks/{PROJECT}/pr-([1-9][0-9]{{0,8}})\.json")


class Files(Protocol):
    """Files below a folder, by their path from there."""

    def listed(self, prefix: str = "") -> dict[str, datetime]:
        """Return every file whose path begins with the prefix, and when it was written.

        Raises:
            ShopCatError: the folder can't be listed.
        """

    def delete(self, paths: Iterable[str]) -> None:
        """Delete these files.

        Raises:
            ShopCatError: a file can't be deleted.
        """


@dataclass(frozen=True)
class Bucket:
    """Files in S3, below any common prefix of their keys, such as ``AROA…:`` or ``AROA…:12/``."""

    clients: AwsClients
    name: str
    common: str

    def listed(self, prefix: str = "") -> dict[str, datetime]:
        """See :class:`Files`."""
        with aws_errors(self.clients, f"S3 bucket {self.name}"):
            pages = self.clients.get("s3").get_paginator("list_objects_v2")
            listed = pages.paginate(Bucket=self.name, Prefix=self.common + prefix)
            return {
                item["Key"].removeprefix(self.common): item["LastModified"]
                for page in listed
                for item in page.get("Contents", [])
            }

    def delete(self, paths: Iterable[str]) -> None:
        """See :class:`Files`."""
        with aws_errors(self.clients, f"S3 bucket {self.name}"):
            for path in paths:
                self.clients.get("s3").delete_object(Bucket=self.name, Key=self.common + path)


@dataclass(frozen=True)
class Directory:
    """Files of a folder on this machine, as the twin's."""

    path: Path

    def listed(self, prefix: str = "") -> dict[str, datetime]:
        """See :class:`Files`."""
        files = {}
        for path in self.path.rglob("*"):
            name = path.relative_to(self.path).as_posix()
            if name.startswith(prefix) and path.is_file():
                with suppress(FileNotFoundError):  # an update goes on beside this
                    files[name] = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        return files

    def delete(self, paths: Iterable[str]) -> None:
        """See :class:`Files`."""
        for path in paths:
            (self.path / path).unlink(missing_ok=True)


@dataclass(frozen=True)
class PreviewStack:
    """A preview's stack, and when it was updated last."""

    number: int
    updated: datetime


def preview_stacks(files: Files) -> list[PreviewStack]:
    """Return the stacks that are named as their folder is, or where all share one folder (the twin) every preview's."""
    matches = ((_STACK.fullmatch(path), when) for path, when in files.listed().items())
    stacks = [PreviewStack(int(match[2]), when) for match, when in matches if match and match[1] in (None, match[2])]
    return sorted(stacks, key=lambda stack: stack.number)


def refuse_running(files: Files, stack: str, stale_after_seconds: float) -> None:
    """Refuse while an update of the stack may be running.

    Raises:
        StackLockedError: a lock of it is younger than ``stale_after_seconds``, or claims to be from the near future.
    """
    now = datetime.now(UTC)
    locks = [when for path, when in files.listed(_locks(stack)).items() if path.endswith(".json")]
    if any(abs((now - when).total_seconds()) < stale_after_seconds for when in locks):
        raise StackLockedError(
            f"stack {stack} is locked by an update that may be running; nothing was touched; run this again when it has ended"
        )


def _locks(stack: str) -> str:
    return f".pulumi/locks/organization/{PROJECT}/{stack}/"


def remove_files(files: Files, stack: str) -> bool:
    """Delete a stack with its history, backups and locks; return whether there was any file of it.

    Raises:
        ShopCatError: something can't be deleted.
    """
    prefixes = [f".pulumi/{kind}/{PROJECT}/{stack}" for kind in ("stacks", "history", "backups")]
    whole = [f"{prefixes[0]}.", *(f"{prefix}/" for prefix in prefixes[1:]), _locks(stack)]
    paths = [path for prefix in whole for path in files.listed(prefix)]
    files.delete(paths)
    return bool(paths)
