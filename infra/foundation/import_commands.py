"""The command that takes one thing into the stack's state, without Pulumi's SDK: a takeover plan prints it before any update."""

from __future__ import annotations

import shlex
from collections.abc import Mapping


def import_command(stack: str, urns: Mapping[str, str], kind: str, name: str, identifier: str) -> str:
    """Return the command that takes one thing into the state.

    Args:
        stack: its name.
        urns: of the parent and of the provider.
        kind: type of the resource.
        name: by which the program calls it.
        identifier: of the thing, as the provider's import wants it.
    """
    words = ["pulumi", "import", "--stack", stack, "--yes", "--protect=false", "--generate-code=false"]
    words += [f"--{word}={word}={urn}" for word, urn in urns.items()]
    return shlex.join([*words, kind, name, identifier])


def provider_urn(stack: str, project: str, package: str = "aws") -> str:
    """Return the URN of the provider of a package, which is called as that (infra/foundation/providers.py)."""
    return f"urn:pulumi:{stack}::{project}::pulumi:providers:{package}::{package}"
