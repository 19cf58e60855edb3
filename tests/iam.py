"""IAM's decision on one request, for the policies this program writes. Whatever isn't here is refused by name.

As in docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html: an explicit deny wins, then any
allow, else the implicit deny. Policy variables and operators as in …/reference_policies_variables.html and
…/reference_policies_elements_condition_operators.html. With a permissions boundary (…/access_policies_boundaries.html) its
statements have to allow the request too. Resource policies and organisations are left out.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Values = str | Sequence[str]
_ELEMENTS = {"Sid", "Effect", "Action", "Resource", "Principal", "Condition"}


@dataclass(frozen=True)
class Request:
    action: str
    resource: str = "*"
    context: Mapping[str, Values] = field(default_factory=dict)
    principal: str = ""
    """For trust policies: ARN of the identity provider, or of the role that asks."""


@dataclass(frozen=True)
class Decision:
    allowed: bool
    why: str


def as_list(value: Any) -> list[Any]:
    """Return what a policy gives as one value or as several."""
    return value if isinstance(value, list) else [value]


def _pattern(text: str, context: Mapping[str, Values], *, wild: bool) -> re.Pattern[str] | None:
    """The text as an expression; None if it holds a variable that the request has no single value for."""
    parts, at = [], 0
    for found in re.finditer(r"\$\{([^}]+)\}", text):
        parts.append((text[at : found.start()], wild))
        value = {key.lower(): one for key, one in context.items()}.get(found[1].lower())
        if not isinstance(value, str):
            return None
        parts.append((value, False))  # what a variable holds is taken literally
        at = found.end()
    parts.append((text[at:], wild))
    return re.compile(
        "".join(
            re.escape(part).replace(r"\*", ".*").replace(r"\?", ".") if stars else re.escape(part)
            for part, stars in parts
        )
    )


def _matches(pattern: str, value: str, context: Mapping[str, Values], *, wild: bool = True) -> bool:
    compiled = _pattern(pattern, context, wild=wild)
    return compiled is not None and compiled.fullmatch(value) is not None


_OPERATORS = ("StringEquals", "StringLike", "Bool", "ArnLike")


def _condition(operator: str, key: str, wanted: list[str], context: Mapping[str, Values]) -> bool:
    """Evaluate one key of a condition.

    "If the condition key is present in the context of the request, process the key as specified in the policy. If the key
    is not present, evaluate the condition element as true" (`...IfExists`, any operator but Null); without it a key that
    is missing does not match.
    """
    quantifier, _, rest = operator.rpartition(":")
    found = {one.lower(): value for one, value in context.items()}.get(key.lower())
    if operator == "Null":
        return (found is None) == (wanted == ["true"])
    name = rest.removesuffix("IfExists")
    if name not in _OPERATORS or quantifier not in ("", "ForAnyValue"):
        raise NotImplementedError(f"condition operator {operator}")
    if found is None:
        return rest.endswith("IfExists")
    values = [found] if isinstance(found, str) else list(found)
    assert quantifier or len(values) == 1, f"{key} has several values, which {operator} doesn't compare"
    wild = name in ("StringLike", "ArnLike")
    return any(_matches(one, value, context, wild=wild) for one in wanted for value in values)


def _applies(statement: Mapping[str, Any], request: Request) -> bool:
    unknown = set(statement) - _ELEMENTS
    if unknown:
        raise NotImplementedError(f"policy element {sorted(unknown)}")
    actions = [one.lower() for one in as_list(statement["Action"])]
    if not any(_matches(one, request.action.lower(), {}) for one in actions):
        return False
    if "Principal" in statement:
        (named,) = statement["Principal"].values()
        if request.principal not in as_list(named):
            return False
    elif not any(_matches(one, request.resource, request.context) for one in as_list(statement["Resource"])):
        return False
    return all(
        _condition(operator, key, [str(one) for one in as_list(wanted)], request.context)
        for operator, keys in statement.get("Condition", {}).items()
        for key, wanted in keys.items()
    )


def _applying(policies: Sequence[Mapping[str, Any]], request: Request) -> list[str]:
    """Effects of the statements that the request meets."""
    statements = [statement for policy in policies for statement in as_list(policy["Statement"])]
    return [str(statement["Effect"]) for statement in statements if _applies(statement, request)]


def decide(
    policies: Sequence[Mapping[str, Any]], request: Request, *, boundary: Sequence[Mapping[str, Any]] | None = None
) -> Decision:
    """Return what IAM says to the request of somebody with these policies, and with this boundary if there is one."""
    effects, bound = _applying(policies, request), _applying(boundary or [], request)
    if "Deny" in (*effects, *bound):
        return Decision(allowed=False, why="explicit deny")
    if not effects:
        return Decision(allowed=False, why="implicit deny: no statement allows it")
    if boundary is not None and not bound:
        return Decision(allowed=False, why="no statement of the permissions boundary allows it")
    return Decision(allowed=True, why="allowed")


def may_call(policies: Sequence[Mapping[str, Any]], action: str) -> bool:
    """Whether the action is allowed for anything at all."""
    return any(
        _matches(one.lower(), action.lower(), {})
        for policy in policies
        for statement in as_list(policy["Statement"])
        if statement["Effect"] == "Allow"
        for one in as_list(statement["Action"])
    )
