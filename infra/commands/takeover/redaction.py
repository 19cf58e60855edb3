"""Find the values of a Terraform state that must never be printed, and keep them out of a text.

Terraform marks some attributes itself (`sensitive_attributes`, outputs with `sensitive`), and not all: a provider's schema has
to say so. So whatever has a name like a password, and every value of a generator of secrets, counts as one too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

HIDDEN = "(secret)"
SHORTEST = 8
"""Characters. A longer secret is hidden wherever it stands; a shorter one where it is a whole value, since it may well be a part
of any other word (`shop` of `shopcat`)."""
_SECRET_NAME = re.compile(
    r"password|passwd|passphrase|secret|token|credential|private_?key|api_?key|access_?key|connection_string|bcrypt",
    re.IGNORECASE,
)
_NO_SECRET = re.compile(
    r"(_arn|_id|_ids|_name|_names|_length|_version|_versions|_count|_days|_type|_prefix)$|^(secret_arn|secret_id)$"
)
"""Endings of names that say what a secret is called or how long it is, not what it holds."""
_GENERATORS = re.compile(r"random_(password|string|bytes)|tls_(private_key|self_signed_cert|locally_signed_cert)")
_MANIFEST_TYPES = re.compile(r"kubernetes_\w+|helm_release|kubectl_manifest")
_DATA = frozenset(
    {"data", "stringData", "string_data", "binaryData", "binary_data", "values", "set_sensitive", "yaml_body"}
)
"""Keys of those types below which anything may be secret."""


def is_secret_name(name: str) -> bool:
    """Tell whether an attribute of this name holds a secret."""
    return bool(_SECRET_NAME.search(name)) and not _NO_SECRET.search(name)


def secret_texts(type_name: str, attributes: Mapping[str, Any], paths: Any) -> Iterator[str]:
    """Yield every secret text of one object.

    Args:
        type_name: Terraform's.
        attributes: of the object.
        paths: `sensitive_attributes` as the state has it; what can't be read as such makes all attributes secret.
    """
    if _GENERATORS.fullmatch(type_name):
        yield from texts_of({key: value for key, value in attributes.items() if key != "id"})
    elif _MANIFEST_TYPES.fullmatch(type_name):
        yield from _below(attributes, lambda name: name in _DATA)
    yield from _below(attributes, is_secret_name)
    steps = _read_paths(paths)
    if steps is None:
        yield from texts_of(attributes)
        return
    for path in steps:
        yield from marked_texts(_value_at(attributes, path))


def _read_paths(paths: Any) -> list[list[Any]] | None:
    """Return the steps of each path; None if they are in a form that is not known."""
    readable = []
    for path in paths if isinstance(paths, list) else [] if paths is None else [None]:
        if not isinstance(path, list):
            return None
        steps = []
        for step in path:
            value = step.get("value") if isinstance(step, dict) else None
            value = value.get("value") if isinstance(value, dict) else value
            if not isinstance(value, str | int):
                return None
            steps.append(value)
        readable.append(steps)
    return readable


def _value_at(value: Any, path: list[Any]) -> Any:
    """Return what stands at a path; where the path leads nowhere, all that is left of the way counts."""
    for step in path:
        is_place = isinstance(value, list) and isinstance(step, int) and 0 <= step < len(value)
        if not is_place and not (isinstance(value, dict) and step in value):
            return value
        value = value[step]
    return value


def _below(value: Any, is_secret: Callable[[str], bool]) -> Iterator[str]:
    """Yield the texts below every key that is secret; also where one entry of a list is a name and another its value."""
    if isinstance(value, dict):
        for key, each in value.items():
            is_named = key == "value" and is_secret(str(value.get("name")))
            yield from texts_of(each) if is_named or is_secret(str(key)) else _below(each, is_secret)
    elif isinstance(value, list):
        for each in value:
            yield from _below(each, is_secret)
    elif isinstance(value, str):
        yield from _below(_embedded_document(value), is_secret)


def texts_of(value: Any) -> Iterator[str]:
    """Yield every text in a value; of a text that is JSON itself, also those in it that have a secret's name."""
    for text in strings_in(value):
        if text:
            yield text
        yield from _below(_embedded_document(text), is_secret_name)


def marked_texts(value: Any) -> Iterator[str]:
    """Yield every text of a value that Terraform itself marks, and every number as the text that a message would have."""
    yield from texts_of(value)
    yield from scalars_in(value)


def scalars_in(value: Any) -> Iterator[str]:
    """Yield every text and every number in the maps and lists of a value; an empty text hides nothing."""
    for each in _scalars(value):
        if each != "" and not isinstance(each, bool):
            yield str(int(each)) if isinstance(each, float) and each.is_integer() else str(each)


def strings_in(value: Any) -> Iterator[str]:
    """Yield every text in the maps and lists of a value, as it stands there."""
    return (each for each in _scalars(value) if isinstance(each, str))


def _scalars(value: Any) -> Iterator[str | int | float]:
    if isinstance(value, str | int | float):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _scalars(each)
    elif isinstance(value, list):
        for each in value:
            yield from _scalars(each)


def _embedded_document(text: str) -> Any:
    """Return what a text holds as JSON; nothing if it holds no map and no list."""
    if text[:1] in {"{", "["}:
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return None
    return None


class Redactor:
    """Hides secrets in what is printed: a second line of defence, since nothing is printed that is not asked for."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._exact = {form for text in texts for form in (text, json.dumps(text)[1:-1])}
        self._long = sorted((text for text in self._exact if len(text) >= SHORTEST), key=len, reverse=True)

    def hide(self, text: str) -> str:
        """Return the text without any secret; in a list each entry is a value of its own."""
        if text in self._exact:
            return HIDDEN
        text = ", ".join(HIDDEN if each in self._exact else each for each in text.split(", "))
        for secret in self._long:
            if secret in text:
                text = text.replace(secret, HIDDEN)
        return text
