"""One value of the settings: its type, its limit, and the message when it is wrong."""

from __future__ import annotations

import ipaddress
import re
import reprlib
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic.alias_generators import to_camel

from infra.errors import SettingsError
from infra.names import check_tag
from infra.settings.environment import wrong_environment
from infra.settings.limits import LIMITS

_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,6})?")

PRIVATE_NETWORKS = tuple(map(ipaddress.IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")))
"""RFC 1918, as AWS recommends (docs.aws.amazon.com/vpc/latest/userguide/vpc-cidr-blocks.html), and RFC 6598."""
_RESERVED = tuple(
    map(
        ipaddress.IPv4Network,
        ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3", *map(str, PRIVATE_NETWORKS)),
    )
)
"""No request comes from these over the internet (RFC 6890)."""


def _number_from_text(value: Any) -> Any:
    """Return a number, also one that Pulumi hands over as text."""
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return float(value) if "." in value else int(value)
    if isinstance(value, bool | str) or (isinstance(value, int | float) and not abs(value) < 1e15):
        raise ValueError(f"{_short(value)} is not a number such as 60")
    return value


def _switch(value: Any) -> Any:
    """Return a truth value, also one that Pulumi hands over as text."""
    if isinstance(value, bool) or (isinstance(value, str) and value in {"true", "false"}):
        return value in {True, "true"}
    raise ValueError(f"{_short(value)} is neither true nor false")


Whole: TypeAlias = Annotated[int, BeforeValidator(_number_from_text)]
Seconds: TypeAlias = Annotated[float, BeforeValidator(_number_from_text)]
Switch: TypeAlias = Annotated[bool, BeforeValidator(_switch)]


def _checked_environment(value: Mapping[str, str]) -> Mapping[str, str]:
    if lines := wrong_environment(value):
        raise ValueError("\n".join(lines))
    return value


CheckedEnvironment: TypeAlias = Annotated[Mapping[str, str], AfterValidator(_checked_environment)]
"""Plain values only; what is secret belongs in the application's secret in Secrets Manager."""


class Model(BaseModel):
    """Settings under one name; each value is compared with infra/settings/limits.py."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)
    section: ClassVar[str] = ""

    @field_validator("*", mode="after")
    @classmethod
    def _within_limits(cls, value: Any, info: ValidationInfo) -> Any:
        limit = LIMITS.get(cls.section + to_camel(info.field_name or ""))
        if limit and value is not None and (wrong := limit.wrong(value)):
            raise ValueError(wrong)
        return value


def checked_tag(value: str) -> str:
    """Return the tag, if a release may have it."""
    try:
        return check_tag(value)
    except SettingsError as error:
        raise ValueError(str(error)) from error


def is_reserved(text: str) -> bool:
    """Tell whether no request comes from some address of a network over the internet."""
    parsed = ipaddress.IPv4Network(text)
    return parsed.prefixlen > 0 and any(parsed.overlaps(reserved) for reserved in _RESERVED)


def network(value: str) -> ipaddress.IPv4Network:
    """Return an IPv4 network, written as AWS writes it back: another spelling would be a difference at each update."""
    try:
        parsed = ipaddress.IPv4Network(value)
    except ValueError as error:
        raise ValueError(f"{value!r} is not a network such as 203.0.113.0/24 ({error})") from error
    if str(parsed) != value:
        raise ValueError(f"{value!r} is not a network as AWS writes it; write {parsed}")
    return parsed


_HELP = {
    "apiAccess": (
        "has no default: set it to public (anyone may connect, IAM decides; needed by hosted CI runners), cidrs (only "
        "apiAccessCidrs) or private (only from inside the VPC)"
    ),
    "domain": "set it to the host name of the shop, such as shop.example.com",
    "previewDomain": (
        "has no default: set it to a domain of another registration than the shop's, such as shop-previews.example.net; pull "
        "requests' code answers below it"
    ),
    "tag": "name the image in shopcat-preview, such as `pulumi up -s pr-<n> -c shopcat:tag=<sha>`",
}


_EXPECTED = {
    "string_type": "expected text; a number or a truth value needs quotes",
    "tuple_type": "expected a list",
    "mapping_type": "expected a map",
    "dict_type": "expected a map",
    "model_type": "expected a map of settings",
    "int_from_float": "expected a whole number",
}
"""In place of what pydantic says, which are Python's words."""


_MAY_BE_SECRET = ("kubeconfig", "cluster.existing", "masterSecret", "monitoring", "webhook")
"""Settings in whose place a person may write a secret itself."""


def _short(value: Any) -> str:
    """Return a value for a message: not longer than a line, whatever it is."""
    return _REPR.repr(value)


_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 80


def name_of(location: tuple[int | str, ...]) -> str:
    """Return a setting's name as it is written in the file."""
    parts = (str(part) for part in location)
    return ".".join(
        part if part.isprintable() and 0 < len(part.strip()) == len(part) <= 80 else repr(part[:80]) for part in parts
    )


def lines_of(error: ValidationError) -> list[str]:
    """Return one line for everything that is wrong, with the setting as it is written in the file."""
    lines: list[str] = []
    for detail in error.errors(include_url=False):
        path, kind = name_of(detail["loc"]), detail["type"]
        name = f"shopcat:{path}" if path else ""
        if kind == "extra_forbidden":
            lines.append(f"{name}: unknown setting; see infra/settings/stacks.py for what there is, or remove it")
        elif kind == "string_unicode":  # a key: pydantic names the map that it is in
            lines.append(
                f"{name or 'shopcat:'}{_short(detail['input'])}: half a character is no setting's name; remove it"
            )
        elif kind == "missing":
            lines.append(f"{name}: missing; {_HELP.get(path, 'set it in the stack file')}")
        elif kind == "value_error":
            reasons = str(detail["ctx"]["error"]).splitlines()
            lines += [f"{name}: {reason}" if name else f"shopcat:{reason}" for reason in reasons]
        else:
            value = "a secret" if path.endswith(_MAY_BE_SECRET) else _short(detail["input"])
            lines.append(f"{name}: {_EXPECTED.get(kind, detail['msg'])} (found {value}){_after(path)}")
    return lines


def _after(path: str) -> str:
    return f"; {_HELP[path]}" if path in _HELP else ""


def settings_refusal(lines: list[str]) -> SettingsError:
    """Return one error of all lines."""
    return SettingsError("settings can't be used:\n" + "\n".join(f"  - {line}" for line in lines))
