"""Names that the provider makes up: the logical name, `-` and seven hex digits, kept for as long as the resource is there.

The provider keeps such a name in the state as its own default. An import doesn't know that, so the next update would make the
resource anew under another name (pulumi/pulumi#9210). Types below are made anew for no other reason that leaves the old one in
place, so their name is never compared. A node group is: its name is made here instead, of what it can't change in place.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

import pulumi

if TYPE_CHECKING:
    from collections.abc import Sequence

KEPT = frozenset(
    {
        "aws:ec2/launchTemplate:LaunchTemplate",
        "aws:ec2/securityGroup:SecurityGroup",
        "aws:iam/role:Role",
        "aws:iam/rolePolicy:RolePolicy",
    }
)
_IGNORED = pulumi.ResourceOptions(ignore_changes=["name"])


def keep_name(args: pulumi.ResourceTransformationArgs) -> pulumi.ResourceTransformationResult | None:
    """Keep the name of what this program declares without one."""
    if args.type_ not in KEPT or args.props.get("name"):
        return None
    return pulumi.ResourceTransformationResult(args.props, pulumi.ResourceOptions.merge(args.opts, _IGNORED))


def keep_component_name(args: pulumi.ResourceTransformArgs) -> pulumi.ResourceTransformResult | None:
    """Keep the name of what a component of another plugin declares without one."""
    if args.type_ not in KEPT or args.props.get("name"):
        return None
    return pulumi.ResourceTransformResult(args.props, pulumi.ResourceOptions.merge(args.opts, _IGNORED))


def is_auto_name(logical: str, name: str) -> bool:
    """Tell whether the provider can have made this name for a resource that the program calls so."""
    return re.fullmatch(rf"{re.escape(logical)}-[0-9a-f]{{7}}", name) is not None


def name_of_content(logical: str, content: Sequence[str]) -> str:
    """Return a name that is another one if and only if the content is, in the form of the provider's own."""
    return f"{logical}-{hashlib.sha256(chr(0).join(content).encode()).hexdigest()[:7]}"
