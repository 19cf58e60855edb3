"""A stack's file, read as Pulumi reads it, or refused.

Pulumi reads YAML with gopkg.in/yaml.v3 (sdk/go/common/workspace/loaders.go) and hands every setting to the program as text
or JSON (sdk/go/common/resource/config/object.go). PyYAML follows YAML 1.1, where `on` is true and `12:30` is 750. So
scalars are resolved here by yaml.v3's rules; what yaml.v3 would turn into another text than was written (0777, 1_000, 1e3,
1.10, a date) is refused with the request to quote it, and so is what hides a second value: a key that is there twice, a
merge key, an alias, a tag, a second document. What `dump` writes has every text in quotes, so any YAML reader agrees on it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from infra.errors import SettingsError
from infra.names import PROJECT

DEEPEST = 32
"""Maps and lists in one another; no setting has more than four."""

_PLAIN_WORDS: Mapping[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
"""yaml.v3, resolve.go, resolveMap."""
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,17}")
_FRACTION = re.compile(r"-?(0|[1-9][0-9]{0,9})\.[0-9]{0,3}[1-9]")
_CHANGED = re.compile(
    r"([-+]_*)?0_*[xXoObB]?[0-9a-fA-F_]+"
    r"|([-+]_*)?(\.[0-9_]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9_]+)?"
    r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
    r"|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt ].*)?"
    r"|<<"
)
"""All that yaml.v3 reads as a number, a time or a merge key (resolve.go), and a little more."""


class _Loader(yaml.SafeLoader):
    """Composes nodes; refuses what yaml.v3 or PyYAML reads as something that is not written there."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise yaml.MarkedYAMLError(problem="anchors and aliases are not read here", problem_mark=event.start_mark)
        if event.tag is not None:
            raise yaml.MarkedYAMLError(problem=f"tag {event.tag} is not read here", problem_mark=event.start_mark)
        mark = event.start_mark
        if isinstance(event, yaml.MappingStartEvent) and event.flow_style and mark.buffer[mark.pointer] != "{":
            # In a list in brackets yaml.v3 takes `a:` for text where PyYAML sees a map of one key.
            raise yaml.MarkedYAMLError(problem="a key in a list: write {key: value}, or quote it", problem_mark=mark)
        self.depth += 1
        if self.depth > DEEPEST:
            raise yaml.MarkedYAMLError(problem=f"nested more than {DEEPEST} deep", problem_mark=event.start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


_Loader.yaml_implicit_resolvers = {}


class _Dumper(yaml.SafeDumper):
    """Writes every text in double quotes."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - the base class's name and arguments
        return True


_Dumper.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"'))


def read_stack_file(path: Path) -> dict[str, Any]:
    """Return the file's content; keys below `config` have their namespace.

    Raises:
        ShopCatError: it can't be read, or Pulumi would read something else in it.
    """
    try:
        return parse(path.read_bytes(), path.name)
    except OSError as error:
        raise SettingsError(f"{path} can't be read ({error.strerror or error}); restore it from git") from error


def parse(content: bytes, name: str) -> dict[str, Any]:
    """Return the content of a file's bytes, as `read_stack_file` does.

    Raises:
        ShopCatError: it can't be read, or Pulumi would read something else in it.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise SettingsError(f"{name}: line {line} is not UTF-8 ({error.reason}); save the file as UTF-8") from error
    try:
        node = yaml.compose(text, Loader=_Loader)
        document = None if node is None else _value(node)
    except yaml.MarkedYAMLError as error:
        at = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise SettingsError(f"{name}: {at}{error.problem}; mend the file or restore it from git") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise SettingsError(f"{name}: it is no YAML ({error}); mend the file or restore it from git") from error
    if not isinstance(document, dict) or not isinstance(document.get("config"), dict):
        state = "is missing" if not isinstance(document, dict) or "config" not in document else "holds no settings"
        raise SettingsError(f"{name}: `config:` {state}; expected a map, as in the file in git")
    document["config"] = _namespaced(document["config"], name)
    return document


def dump(document: Mapping[str, Any]) -> str:
    """Return a stack's file with this content."""
    return yaml.dump(dict(document), Dumper=_Dumper, sort_keys=False, allow_unicode=False)


def handed_over(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a file's settings as the program gets them from the engine: what is no map and no list is text there."""
    return {key: value if isinstance(value, dict | list) else plain(_text_of(value)) for key, value in config.items()}


def plain(text: str) -> Any:
    """Return a setting from the engine's text: maps and lists are JSON."""
    if text[:1] in {"{", "["}:
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return text
    return text


def _text_of(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def without_secrets(value: Any) -> Any:
    """Return the same with `[secret]` in place of what Pulumi has encrypted, as the engine shows it without the key."""
    if isinstance(value, dict):
        if set(value) == {"secure"} and isinstance(value["secure"], str):
            return "[secret]"
        return {key: without_secrets(each) for key, each in value.items()}
    return [without_secrets(each) for each in value] if isinstance(value, list) else value


def _namespaced(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for key, value in config.items():
        whole = key if ":" in key else f"{PROJECT}:{key}"
        if whole.count(":") != 1:
            raise SettingsError(f"{name}: {key!r} is no setting's name; expected <namespace>:<name>")
        if whole in settings:
            raise SettingsError(f"{name}: {whole} is there twice, with its namespace and without; keep one")
        settings[whole] = value
    return settings


def _value(node: yaml.Node) -> Any:
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node) if node.style is None else node.value
    if isinstance(node, yaml.SequenceNode):
        return [_value(each) for each in node.value]
    mapping: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = _value(key_node)
        if not isinstance(key, str):
            raise _refused(key_node, "a key that is no text; put it in quotes")
        if key in mapping:
            raise _refused(key_node, f"{key!r} is there twice; keep one")
        mapping[key] = _value(value_node)
    return mapping


def _scalar(node: yaml.ScalarNode) -> Any:
    """Return the value of a scalar without quotes, by yaml.v3's rules."""
    text = str(node.value)
    if text in _PLAIN_WORDS:
        return _PLAIN_WORDS[text]
    if _WHOLE.fullmatch(text):
        return int(text)
    if _FRACTION.fullmatch(text):
        return float(text)
    if _CHANGED.fullmatch(text):
        raise _refused(node, f"Pulumi reads {text} as another value than is written; put it in quotes")
    return text


def _refused(node: yaml.Node, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
