"""The stand-in's conformance table, made from the code (``python -m twin.plugins.aws.conformance > …/CONFORMANCE.md``)."""

from __future__ import annotations

import inspect
import sys

from twin.plugins.aws.provider import KINDS

_HEAD = """# What the stand-in of the aws plugin follows

Made by `python -m twin.plugins.aws.conformance`; a test holds it against the code. A type, property or function that is
not listed is refused by name.

| behaviour | as upstream in |
|---|---|
| auto-naming: logical name, `-`, seven hex digits, cut to the type's limit | pulumi/pulumi sdk/go/common/resource/resource_id.go (NewUniqueHex) |
| `tagsAll` = the provider's default tags, overridden by `tags` | hashicorp/terraform-provider-aws internal/tags |
| fields below need a new resource; a fixed physical name is deleted first | terraform schema `ForceNew`; pulumi/pulumi-terraform-bridge pkg/tfbridge |
| create waits until the resource is usable, delete until it is gone | the resource's own waiters |
| refresh compares only what the inputs declare | pulumi-terraform-bridge pkg/tfbridge (extractInputs) |

| type | follows | needs a new one when these change |
|---|---|---|
"""


def table() -> str:
    """The whole document."""
    rows = []
    for token, kind in sorted(KINDS.items()):
        module = inspect.getdoc(sys.modules[type(kind).__module__]) or ""
        source = module.splitlines()[0].rpartition("follow ")[2].rstrip(".") if "follow" in module else module
        terraform = (
            (inspect.getdoc(type(kind)) or "").splitlines()[0].split(";")[0].split(",")[0].split(" ")[0].rstrip(".:")
        )
        replaced = ", ".join(f"`{name}`" for name in sorted(kind.replaces)) or "none"
        rows.append(f"| `{token}` | `{terraform}`, {source} | {replaced} |")
    return _HEAD + "\n".join(rows) + "\n"


if __name__ == "__main__":
    print(table(), end="")
