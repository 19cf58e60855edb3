"""The files of previews' state: found and removed without reading any of them.

A pull request may write what it likes into its own folder, so nothing here goes by a file's content: a stack is there if its
file is, it was updated when that was written (by S3's clock), and a lock is as old as its file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from botocore.exceptions import BotoCoreError, ClientError

from infra.clients.aws import AwsClients, explain
from infra.names import PROJECT
from pipeline.errors import StackLockedError

_STACK = re.compile(rf"(?:([1-9][0-9]*)/)?\.pulumi/stacks/{PROJECT}/pr-([1-9][0-9]{{0,8}})\.json")


class Files(Protocol):
    """What is below a folder, by path from there."""

    def listed(self, prefix: str = "") -> dict[str, datetime]:
        """Every file whose path begins so, and when it was written.

        Raises:
            ShopCatError: the folder can't be listed.
        """

    def delete(self, paths: Iterable[str]) -> None:
        """Delete these.

        Raises:
            ShopCatError: one can't be deleted.
        """


@dataclass(frozen=True)
class Bucket:
    """In S3, where what they have in common is any text, such as ``AROA…:`` or ``AROA…:12/``."""

    clients: AwsClients
    name: str
    common: str

    def listed(self, prefix: str = "") -> dict[str, datetime]:
        """As :class:`Files`."""
        with self._explained():
            pages = self.clients.get("s3").get_paginator("list_objects_v2")
            listed = pages.paginate(Bucket=self.name, Prefix=self.common + prefix)
            return {
                one["Key"].removeprefix(self.common): one["LastModified"]
                for page in listed
                for one in page.get("Contents", [])
            }

    def delete(self, paths: Iterable[str]) -> None:
        """As :class:`Files`."""
        with self._explained():
            for path in paths:
                self.clients.get("s3").delete_object(Bucket=self.name, Key=self.common + path)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (BotoCoreError, ClientError) as error:
            raise explain(error, f"S3 bucket {self.name}", self.clients.endpoint_url) from error


@dataclass(frozen=True)
class Directory:
    """On this machine: the twin's."""

    path: Path

    def listed(self, prefix: str = "") -> dict[str, datetime]:
        """As :class:`Files`."""
        found = {}
        for one in self.path.rglob("*"):
            name = one.relative_to(self.path).as_posix()
            if name.startswith(prefix) and one.is_file():
                with suppress(FileNotFoundError):  # an update goes on beside this
                    found[name] = datetime.fromtimestamp(one.stat().st_mtime, UTC)
        return found

    def delete(self, paths: Iterable[str]) -> None:
        """As :class:`Files`."""
        for path in paths:
            (self.path / path).unlink(missing_ok=True)


@dataclass(frozen=True)
class Seen:
    """A preview's stack."""

    number: int
    updated: datetime


def seen(files: Files) -> list[Seen]:
    """The stacks that are named as their folder is, or where all share one folder (the twin) every preview's."""
    matches = ((_STACK.fullmatch(path), when) for path, when in files.listed().items())
    found = [Seen(int(match[2]), when) for match, when in matches if match and match[1] in (None, match[2])]
    return sorted(found, key=lambda one: one.number)


def is_dead(age_seconds: float, stale_after_seconds: float) -> bool:
    """Return whether a lock of that age belongs to no update that runs.

    Args:
        age_seconds: below zero if it claims to be from the future, which none that runs can do for long.
        stale_after_seconds: the age from which on it does.
    """
    return abs(age_seconds) >= stale_after_seconds


def refuse_running(files: Files, stack: str, stale_after_seconds: float) -> None:
    """Return if no update of the stack can be running.

    Raises:
        StackLockedError: a lock of it is younger than ``stale_after_seconds``.
    """
    now = datetime.now(UTC)
    locks = {path: when for path, when in files.listed(_locks(stack)).items() if path.endswith(".json")}
    if not all(is_dead((now - when).total_seconds(), stale_after_seconds) for when in locks.values()):
        raise StackLockedError(f"stack {stack} is locked by an update that may be running; nothing was touched")


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
