"""Read a chart's archive: Chart.yaml, and the custom resource definitions that Helm makes of it with the values of this program.

Helm makes a chart's definitions in one of two ways (helm.sh/docs/chart_best_practices/custom_resource_definitions). Those in
`crds/` it installs once and leaves alone. Those among the templates it keeps up, and deletes, with every object of them, as soon
as a version of the chart renders them no more. No `helm` is needed to run this program, so templates are rendered here as far as
definitions need it: conditions on values. What stands under a condition that is not understood here counts as not rendered.
"""

from __future__ import annotations

import gzip
import io
import re
import tarfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from infra.errors import PreflightError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # a repository's index has a megabyte
DEFINITION = "CustomResourceDefinition"
PLACEHOLDER = "template"
"""Stands for what an action within a line writes: no name, version or truth value of a definition."""

_CRDS = re.compile(r"[^/]+(/charts/[^/]+)*/crds/[^/]+\.(ya?ml|json)")
_TEMPLATE = re.compile(r"[^/]+/templates/.+\.(ya?ml|tpl)")
_OWN_FILE = re.compile(r"[^/]+/(Chart|values)\.yaml")
_ACTION = re.compile(r"\{\{-?\s*(.*?)\s*-?\}\}", re.DOTALL)
_TOKEN = re.compile(r'\(|\)|"[^"]*"|[^\s()]+')
_BLOCKS = frozenset({"if", "with", "range", "define", "block"})

Manifest = dict[str, Any]
_FUNCTIONS: Mapping[str, Callable[[list[Any]], Any]] = {
    "and": all,
    "or": any,
    "not": lambda operands: not operands[0],
    "eq": lambda operands: operands[0] in operands[1:],
    "ne": lambda operands: operands[0] not in operands[1:],
}
"""Functions of Go's text/template that conditions on values are made of; only the truth of their result is used."""


@dataclass(frozen=True)
class ChartArchive:
    """A chart's files that say what it is and what it defines, by their path in the archive."""

    files: Mapping[str, str]

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Return Chart.yaml."""
        return self.document("Chart.yaml")

    def crds(self) -> list[Manifest]:
        """Return the definitions in `crds/`, of its dependencies too."""
        return [each for name, text in self.files.items() if _CRDS.fullmatch(name) for each in _definitions(text)]

    def templated(self, values: Mapping[str, Any]) -> list[Manifest]:
        """Return the definitions among its own templates that Helm renders with these values over the chart's own.

        A template that is none, or makes no YAML of its definitions, has none.
        """
        merged = _merge(self.document("values.yaml"), values)
        found = []
        for name, text in self.files.items():
            if _TEMPLATE.fullmatch(name) and DEFINITION in text:
                try:
                    found += _definitions(render(text, merged))
                except (IndexError, yaml.YAMLError):
                    continue
        return found

    def document(self, name: str) -> Mapping[str, Any]:
        """Return a file of the chart's own folder; empty if it has none."""
        texts = [text for path, text in self.files.items() if path.count("/") == 1 and path.endswith(f"/{name}")]
        document = yaml.load(texts[0], LOADER) if texts else None  # noqa: S506 - both are the safe loader
        return document if isinstance(document, dict) else {}


def read_archive(content: bytes) -> ChartArchive:
    """Return what a chart's archive holds.

    Raises:
        ShopCatError: it is no chart's archive, or a file in it that needs no rendering is no YAML.
    """
    files = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(content))) as archive:
            for member in archive:
                name = member.name.removeprefix("./")
                if member.isfile() and any(each.fullmatch(name) for each in (_CRDS, _TEMPLATE, _OWN_FILE)):
                    opened = archive.extractfile(member)
                    files[name] = opened.read().decode() if opened else ""
        chart = ChartArchive(files)
        for each in ("Chart.yaml", "values.yaml"):
            chart.document(each)
        chart.crds()
    except (OSError, EOFError, zlib.error, tarfile.TarError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise PreflightError(f"a chart's archive can't be read: {error}") from error
    return chart


def render(text: str, values: Mapping[str, Any]) -> str:
    """Return a template's text with the blocks whose conditions hold; whatever else it would write is a placeholder or left out.

    Raises:
        IndexError: a block ends that never began, or never ends.
    """
    kept: list[str] = []
    blocks: list[tuple[bool, bool]] = []  # of each block that is open: its branch is rendered; a later branch may be
    position = 0
    for action in _ACTION.finditer(text):
        is_rendered = all(shown for shown, _ in blocks)
        kept += [text[position : action.start()]] if is_rendered else []
        position = action.end()
        keyword, _, rest = action[1].partition(" ")
        if keyword in _BLOCKS:
            holds = _holds(rest, values) if keyword in ("if", "with") else None
            blocks.append((holds is True, holds is False))
        elif keyword == "else":
            holds = _holds(rest.removeprefix("if "), values) if rest else True
            _, is_left = blocks.pop()
            blocks.append((is_left and holds is True, is_left and holds is False))
        elif keyword == "end":
            blocks.pop()
        elif is_rendered and not _is_alone(text, action):
            kept.append(PLACEHOLDER)
    if blocks:
        raise IndexError
    return "".join(kept) + text[position:]


def _is_alone(text: str, action: re.Match[str]) -> bool:
    """Check that an action has its lines for itself: what it writes there is whole lines."""
    start, end = text.rfind("\n", 0, action.start()) + 1, text.find("\n", action.end())
    return not (text[start : action.start()] + text[action.end() : end if end >= 0 else len(text)]).strip()


def _holds(condition: str, values: Mapping[str, Any]) -> bool | None:
    """Return whether a condition holds; None if it is not understood here."""
    tokens = _TOKEN.findall(condition)
    try:
        result = bool(_call(tokens, values))
    except (LookupError, ValueError, TypeError):
        return None
    return None if tokens else result


def _call(tokens: list[str], values: Mapping[str, Any]) -> Any:
    """Take an operand, or a function and its operands, off the tokens and return the value."""
    function = _FUNCTIONS.get(tokens[0])
    operands = []
    if function:
        tokens.pop(0)
    while tokens and tokens[0] != ")":
        operands.append(_operand(tokens, values))
    if function:
        return function(operands)
    (single,) = operands
    return single


def _operand(tokens: list[str], values: Mapping[str, Any]) -> Any:
    word = tokens.pop(0)
    if word.startswith("("):
        value = _call(tokens, values)
        if tokens.pop(0) != ")":
            raise LookupError(word)
        return value
    if word.startswith('"'):
        return word.strip('"')
    if word in ("true", "false"):
        return word == "true"
    root, *path = word.removeprefix("$").removeprefix(".").split(".")
    value = {"Values": values}[root]
    for key in path:
        value = value[key] if key in value else None  # noqa: SIM401 - a text is no map
    return value


def _merge(defaults: Any, values: Any) -> Any:
    """Return values over a chart's own, as Helm lays them: maps key by key, anything else whole."""
    if not (isinstance(defaults, dict) and isinstance(values, dict)):
        return values
    return {**defaults, **{key: _merge(defaults.get(key), value) for key, value in values.items()}}


def _definitions(text: str) -> list[Manifest]:
    documents = yaml.load_all(text, LOADER)
    found = [each for each in documents if isinstance(each, dict) and each.get("kind") == DEFINITION]
    for each in found:
        try:
            each["spec"]["versions"] = each["spec"]["versions"] or []  # a template that renders none of them
            named = [each["metadata"]["name"], *(version["name"] for version in each["spec"]["versions"])]
        except (KeyError, TypeError) as error:
            raise yaml.YAMLError(f"a {DEFINITION} lacks its name or its versions") from error
        if not all(isinstance(name, str) for name in named):
            raise yaml.YAMLError(f"a {DEFINITION} has names that are no text: {named}")
    return found
