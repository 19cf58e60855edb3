"""Table of a check: what was looked at, what was found, what to do. Nothing here calls AWS."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from infra.clients.aws import error_code
from infra.errors import AwsError, ShopCatError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

DENIED = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "AuthorizationError", "403"})


class FindingState(StrEnum):
    """Meaning of a row for the next update."""

    OK = "ok"
    LOOK = "look"
    """Could not be found out, or is worth knowing; nothing fails by it."""
    CHANGE = "change"
    """The update would fail."""


@dataclass(frozen=True)
class Row:
    """One thing that was looked at."""

    subject: str
    state: FindingState
    finding: str
    todo: str = ""


def findings_table(rows: Sequence[Row]) -> str:
    """Return rows as text, what has to be changed first, each with what to do on a line of its own."""
    order = list(FindingState)[::-1]
    width = max((len(row.subject) for row in rows), default=0)
    lines = []
    for row in sorted(rows, key=lambda row: order.index(row.state)):
        lines.append(f"{row.state:<7} {row.subject:<{width}}  {row.finding}")
        if row.todo:
            lines.append(f"{'':<7} {'':<{width}}  → {row.todo}")
    return "\n".join(lines)


def read_rows(subject: str, read: Callable[[], Sequence[Row]]) -> list[Row]:
    """Return the rows of a read; a read that isn't allowed, or that is answered by nobody or by nonsense, is one row.

    Any other ShopCatError is a finding: something has to be changed. Whatever else goes wrong with one read must not hide
    the others.
    """
    try:
        return list(read())
    except AwsError as error:
        row = unread(subject, error, error.code, error.operation)
    except ShopCatError as error:
        state = FindingState.LOOK if isinstance(error, UnreachableError) else FindingState.CHANGE
        row = Row(subject, state, _line(error))
    except ClientError as error:
        row = unread(subject, error, error_code(error), error.operation_name)
    except Exception as error:
        row = unread(subject, error)
    return [row]


def unread(subject: str, error: Exception, code: str = "", operation: str = "") -> Row:
    """Return the row of something that could not be read."""
    if code in DENIED:
        return Row(
            subject,
            FindingState.LOOK,
            f"these credentials may not call {operation}",
            "allow it, or run this check as an administrator",
        )
    is_answer = isinstance(error, AwsError | ClientError | BotoCoreError)
    text = _line(error) if is_answer else f"{type(error).__name__}: {_line(error)}"
    return Row(subject, FindingState.LOOK, f"can't be read: {text}", "look at it by hand, or run this again later")


def _line(error: Exception) -> str:
    text = " ".join(re.sub(r"<[^>]*>", " ", str(error)).split())  # some answers are a page of HTML
    return text if len(text) <= 300 else f"{text[:299]}…"
