"""Compare what Terraform's state has of one thing with what this program declares of it.

Only what is declared is compared: the provider leaves alone what it is not given, where the argument is optional and computed.
Arguments whose absence makes a new resource are listed in kinds.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from infra.commands.takeover.declaration import is_computed, reference
from infra.commands.takeover.redaction import HIDDEN, scalars_in, texts_of

if TYPE_CHECKING:
    from infra.commands.takeover.declaration import Declared
    from infra.commands.takeover.kinds import TerraformType
    from infra.commands.takeover.state import Owned

Resolve = Callable[[tuple[str, str]], set[str] | None]
"""Texts by which others refer to a declared resource that is there; None if it is made anew."""


class Effect(StrEnum):
    """The consequence of a difference for the thing that is there."""

    REPLACES = "would replace"
    IN_PLACE = "in place"
    UNKNOWN = "can't say"


@dataclass(frozen=True)
class Difference:
    """One argument that is not the same."""

    argument: str
    actual: str
    declared: str
    effect: Effect
    note: str = ""
    forced: bool = False
    """True if only a new resource could change this argument, and it is not known that nothing changes."""


OF_THE_PROVIDER = frozenset(
    {
        "allowOverwrite", "applyImmediately", "deletionWindowInDays", "finalSnapshotIdentifier", "forceDelete",
        "recoveryWindowInDays", "resolveConflictsOnCreate", "resolveConflictsOnUpdate", "skipFinalSnapshot",
        "updateDefaultVersion",
    }
)  # fmt: skip
"""Arguments that AWS keeps nothing of: they say how the provider makes or deletes the thing."""
_OF_A_CHART = frozenset({"chart", "name", "namespace", "version"})
"""Arguments that can be compared of a chart's release: its values are merged with the chart's own by Helm alone."""
_ABSENT: tuple[Any, ...] = (None, "", [], {})
_DEFAULTS: tuple[Any, ...] = (*_ABSENT, False, 0)
"""Declared values that say the same as nothing in the state."""
_NEW = "one that is made anew"
NOTHING = "nothing"
"""In a cell, in place of a value that is not there."""
_RDS, _EKS = "aws:rds/instance:Instance", "aws:eks/cluster:Cluster"
NOTES: Mapping[tuple[str, str], str] = {
    (_RDS, "manageMasterUserPassword"): (
        "RDS sets a new master password at once: whatever signs in with the old one is shut out"
    ),
    (_RDS, "backupRetentionPeriod"): "from 0 on and to 0 the database is out for some seconds up to minutes",
    (_RDS, "parameterGroupName"): "at the next restart; this program's own shuts out who connects without TLS",
    (_RDS, "publiclyAccessible"): "whoever connects from outside the network is shut out",
    (_RDS, "engineVersion"): (
        "RDS takes no lower version, and a higher major one only if that is allowed explicitly; the database is out meanwhile"
    ),
    (_RDS, "autoMinorVersionUpgrade"): "RDS moves the minor version by itself no more; engineVersion does",
    (_RDS, "instanceClass"): "the database is out meanwhile, for some minutes",
    (_RDS, "allocatedStorage"): "RDS never makes storage smaller",
    (_RDS, "dbSubnetGroupName"): "RDS may refuse another group of the same VPC",
    (_EKS, "version"): "EKS takes one minor version at a time, and none back",
    (_EKS, "vpcConfig.subnetIds"): "EKS takes only subnets of the same VPC and zones",
    ("aws:ecr/repository:Repository", "imageTagMutability"): (
        "tags that are there stay; none can be moved from then on, so the next push of `latest` fails"
    ),
    ("aws:eks/nodeGroup:NodeGroup", "nodeGroupName"): "new nodes come before these are drained and go",
    ("aws:route53/record:Record", "aliases"): "all users move at once",
}
"""Facts that a person has to know of a difference."""
_UNCERTAIN = frozenset({(_RDS, "dbSubnetGroupName"), (_EKS, "vpcConfig.subnetIds")})
"""Arguments that the provider changes in place and AWS may refuse to."""


def compare(kind: TerraformType, declared: Declared, owned: Owned, resolve: Resolve) -> list[Difference]:
    """Return every difference, those that would replace the thing first."""
    if not owned.comparable:
        return [Difference("(all)", "in Terraform 0.11's flat form", "", Effect.UNKNOWN)]
    is_chart = owned.type_name == "helm_release"
    differences = [Difference("values", "the chart's", "this program's", Effect.UNKNOWN)] if is_chart else []
    for name, value in sorted(declared.inputs.items()):
        if name not in OF_THE_PROVIDER and (not is_chart or name in _OF_A_CHART):
            actual = state_value(name, owned.attributes)
            differences += [
                _judge(kind, declared, path, *pair, resolve, owned.secrets)
                for path, pair in leaves(name, value, actual)
                if not is_same(declared.pulumi_type, path, *pair, resolve)
            ]
    for name in sorted(kind.forces_new_if_removed):
        if owned.attributes.get(name) not in _DEFAULTS and _camel(name) not in declared.inputs:
            actual = _hidden_or_shown(owned.attributes[name], owned.secrets)
            differences.append(Difference(_camel(name), actual, "nothing", Effect.REPLACES))
    order = list(Effect)
    return sorted(differences, key=lambda difference: (order.index(difference.effect), difference.argument))


def _judge(
    kind: TerraformType,
    declared: Declared,
    path: str,
    value: Any,
    actual: Any,
    resolve: Resolve,
    secrets: frozenset[str],
) -> Difference:
    top = path.partition(".")[0]
    forced = any(path == name or path.startswith(f"{name}.") for name in kind.forces_new)
    effect = Effect.REPLACES if forced else Effect.IN_PLACE
    target = reference(value)
    if (declared.pulumi_type, path) in _UNCERTAIN or (
        is_computed(value) and (target is None or target[0] == "unknown")
    ):
        effect = Effect.UNKNOWN
    elif forced and actual in _ABSENT:
        # The encryption of a cluster's secrets may be begun at any time (aws_eks_cluster, ForceNewIfChange).
        effect = Effect.IN_PLACE if top == "encryptionConfig" else Effect.UNKNOWN
    note = NOTES.get((declared.pulumi_type, path)) or NOTES.get((declared.pulumi_type, top), "")
    is_forced = forced and effect is not Effect.IN_PLACE
    return Difference(
        path, _hidden_or_shown(actual, secrets), _cell_text(value, resolve), effect, note, forced=is_forced
    )


def _hidden_or_shown(actual: Any, secrets: frozenset[str]) -> str:
    return HIDDEN if secrets & {*texts_of(actual), *scalars_in(actual)} else _cell_text(actual)


_SAID_BY = {"engineVersion": ("engine_version_actual", "engine_version"), "dbName": ("db_name", "name")}
"""Argument → attributes that say it, the first that holds anything: `engine_version` is what a person wrote ("15"), and before
version 4 of the provider a database's name was `name`."""


def state_value(name: str, attributes: Mapping[str, Any]) -> Any:
    """Return the state's value of an argument: Pulumi's plurals are Terraform's blocks of the singular name."""
    if name in _SAID_BY:
        return next((value for key in _SAID_BY[name] if (value := attributes.get(key)) not in _ABSENT), None)
    snake = _snake(name)
    for candidate in (snake, snake.removesuffix("s"), snake.removesuffix("es")):
        if candidate in attributes:
            return attributes[candidate]
    return None


def leaves(path: str, value: Any, actual: Any) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Yield each argument down to what is no map, with both values; a block that may be there once is a list of one."""
    if path.rpartition(".")[2] == "tags":  # its keys are names of tags, not of arguments
        yield path, (value, actual)
    elif isinstance(value, dict):
        if isinstance(actual, list) and len(actual) == 1:
            actual = actual[0]
        for name, each in sorted(value.items()):
            inner = actual.get(_snake(name)) if isinstance(actual, dict) else None
            yield from leaves(f"{path}.{name}", each, inner)
    elif isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
        yield from leaves(path, value[0], actual)
    else:
        yield path, (value, actual)


def is_same(pulumi_type: str, path: str, value: Any, actual: Any, resolve: Resolve) -> bool:
    """Tell whether a declared value says the same as the state's."""
    target = reference(value)
    if target is not None:
        texts = resolve(target)
        return texts is not None and isinstance(actual, str) and actual in texts
    if actual in _ABSENT:
        return value in _DEFAULTS
    if pulumi_type == _RDS and path == "engineVersion":
        return f"{actual}.".startswith(f"{value}.")
    if isinstance(value, list) and isinstance(actual, list):
        return _are_same_lists(pulumi_type, path, value, actual, resolve)
    if isinstance(value, dict) and isinstance(actual, dict):
        return {key: str(each) for key, each in value.items()} == {key: str(each) for key, each in actual.items()}
    return bool(_plain(value) == _plain(actual))


def _are_same_lists(pulumi_type: str, path: str, value: list[Any], actual: list[Any], resolve: Resolve) -> bool:
    """Compare without order: almost all lists of these arguments are sets."""
    if len(value) != len(actual):
        return False
    left = list(actual)
    for each in value:
        for place, other in enumerate(left):
            if isinstance(each, dict):
                pairs = [pair for _, pair in leaves(path, each, other)]
                same = all(is_same(pulumi_type, path, *pair, resolve) for pair in pairs)
            else:
                same = is_same(pulumi_type, path, each, other, resolve)
            if same:
                del left[place]
                break
        else:
            return False
    return True


def _plain(value: Any) -> Any:
    """Return a value such that two that mean the same are equal: `"5"` and 5.0, `"true"` and true, one JSON and another."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else str(value)
    if isinstance(value, str) and value[:1] in {"{", "["}:
        try:
            return json.dumps(json.loads(value), sort_keys=True)
        except (ValueError, RecursionError):
            return value
    return value


def _cell_text(value: Any, resolve: Resolve | None = None) -> str:
    """Return a value for a cell; what is long or nested is only named."""
    target = reference(value)
    if target is not None:
        is_there = resolve is not None and resolve(target)
        return f"{target[0].rpartition(':')[2]} {target[1]}" if is_there else _NEW
    if value in _ABSENT:
        return NOTHING
    if isinstance(value, dict):
        return ", ".join(f"{key}={each}" for key, each in sorted(value.items()))
    if isinstance(value, list):
        is_nested = any(isinstance(each, dict | list) for each in value)
        return f"{len(value)} blocks" if is_nested else ", ".join(_cell_text(each, resolve) for each in value)
    return _scalar_text(value)


def _scalar_text(value: Any) -> str:
    if isinstance(value, str) and value[:1] in {"{", "["}:
        return "a document"
    text = str(_plain(value))
    return _NEW if is_computed(text) else text


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])([A-Z])", lambda match: f"_{match[1].lower()}", name)


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
