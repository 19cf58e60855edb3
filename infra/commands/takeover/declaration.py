"""One resource that this program declares, and the references in its inputs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_REFERENCE_MARK = re.compile(r"<([^<>]+)::([^<>]+)>")
UNKNOWN = "<unknown::value>"
"""A value that only AWS knows, such as an address."""


@dataclass(frozen=True)
class Declared:
    """One resource that the program declares."""

    pulumi_type: str
    name: str
    inputs: Mapping[str, Any] = field(default_factory=dict)
    protect: bool = False
    """Pulumi's option: an update that would delete it fails."""
    retain_on_delete: bool = False
    """Pulumi's option: what is deleted from the stack stays in AWS."""
    parent: str = ""
    """URN of the component that declares it."""
    is_guarded: bool = False
    """True if an update that would make it stops where AWS has it already (infra/foundation/existing_resources.py)."""

    @property
    def key(self) -> tuple[str, str]:
        """Type and logical name."""
        return self.pulumi_type, self.name


def refer(pulumi_type: str, name: str) -> str:
    """Return what stands in an input in place of an id, ARN or name of another resource."""
    return f"<{pulumi_type}::{name}>"


def reference(value: Any) -> tuple[str, str] | None:
    """Return type and logical name of the declared resource that a value refers to."""
    match = _REFERENCE_MARK.fullmatch(value) if isinstance(value, str) else None
    return (match[1], match[2]) if match else None


def is_computed(value: Any) -> bool:
    """Tell whether a value is only known once something is made: a reference, or a text made of one."""
    return isinstance(value, str) and bool(_REFERENCE_MARK.search(value))
