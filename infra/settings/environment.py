"""Decide what of a person's settings may become the environment and the commands of the application's containers.

Kubernetes replaces `$(NAME)` and `$$` in both (k8s.io/kubernetes/third_party/forked/golang/expansion), and the program sets
variables of its own. Either would silently change what was written, so it is refused when the settings are read. A record
that was written before is rendered as it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence

from infra.names import SECRET_KEYS
from infra.settings.limits import COMMAND_BYTES, ENVIRONMENT_BYTES

OWN_PREFIX = "SHOPCAT_"
RESERVED: Mapping[str, str] = {
    "PORT": "the port is fixed",
    "DATABASE_POOL_SIZE": "set shopcat:database.poolSize, or shopcat:databasePoolSize of a preview",
    "DATABASE_SSLMODE": "the database's own",
    **dict.fromkeys(SECRET_KEYS, "it comes from the application's secret"),
}
"""Variables that the program sets, and where their values come from."""

_NAME = re.compile(r"(?!\.$|\.\.)[-._a-zA-Z][-._a-zA-Z0-9]*")
"""k8s.io/apimachinery/pkg/util/validation, IsEnvVarName."""
_REFERENCE = re.compile(r"\$\(([^)]*)\)")


def wrong_environment(values: Mapping[str, str]) -> list[str]:
    """Say what is wrong with names and values of environment variables, one line each."""
    lines = [f"{_shown(name)}: {line}" for name, value in values.items() for line in _wrong_variable(name, value)]
    size = sum(_bytes(name) + _bytes(value) for name, value in values.items())
    if size > ENVIRONMENT_BYTES:
        lines.append(f"names and values have {size} bytes, the most is {ENVIRONMENT_BYTES}; put files into the image")
    return lines


def wrong_command(words: Sequence[str], names: Mapping[str, str]) -> list[str]:
    """Say what is wrong with a command that runs with these environment variables and the program's own."""
    lines = []
    if words and not words[0].strip():
        lines.append("the first word is empty; expected a program of the image, such as [python, -m, migrate]")
    for word in words:
        lines += [f"{word[:40]!r}: {line}" for line in _unwritable(word)]
        if "$$" in word:
            lines.append(f"{word[:40]!r}: Kubernetes turns $$ into $; write it without")
        for name in _REFERENCE.findall(word):
            if name in names or name in RESERVED or name.startswith(OWN_PREFIX):
                lines.append(f"{word[:40]!r}: Kubernetes replaces $({name}); in a shell write ${{{name}}}")
    size = sum(_bytes(word) for word in words)
    if size > COMMAND_BYTES:
        lines.append(f"has {size} bytes, the most is {COMMAND_BYTES}; put the program into the image")
    return lines


def _wrong_variable(name: str, value: str) -> Iterator[str]:
    if not _NAME.fullmatch(name):
        yield "not a name of an environment variable: letters, digits, `_`, `-` and `.`, not beginning with a digit or `..`"
    elif name in RESERVED:
        yield f"reserved ({RESERVED[name]}); remove it"
    elif name.startswith(OWN_PREFIX):
        yield f"names that begin with {OWN_PREFIX} are the program's own; take another"
    yield from _unwritable(value)
    if "$$" in value:
        yield "Kubernetes turns $$ into $; write the value without it, or put it into the application's secret"
    elif _REFERENCE.search(value):
        yield "Kubernetes replaces $(…) in a value; write out what it stands for, or put it into the application's secret"


def _unwritable(text: str) -> Iterator[str]:
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        yield "holds a NUL or half a character, which no environment can; remove it"


def _bytes(text: str) -> int:
    """Return the length in the JSON that Pulumi hands over: Go escapes what Python does, and three more (encoding/json)."""
    return len(json.dumps(text)) + 5 * sum(map(text.count, "<>&"))


def _shown(name: str) -> str:
    return name if name.isprintable() and 0 < len(name) <= 80 else repr(name[:80])
