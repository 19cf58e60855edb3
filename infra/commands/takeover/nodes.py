"""Read the nodes of a Terraform layout: the room that they have, and the security groups that they are in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from infra.capacity import NODE_SHAPES, has_room_of
from infra.commands.takeover.matching import block
from infra.commands.takeover.state import masked
from infra.commands.takeover.suggestions import setting_line
from infra.settings.platform import DEFAULT_DISK_GIBIBYTES

if TYPE_CHECKING:
    from infra.commands.takeover.state import Owned
    from infra.settings.platform import ExistingNodes


@dataclass(frozen=True)
class NodeGroup:
    """A managed node group, as far as it decides how much room there is."""

    address: str
    instance_types: tuple[str, ...]
    count: int
    """The least that an autoscaler leaves."""
    disk_gibibytes: int
    security_group_ids: tuple[str, ...]
    """Groups that its launch template names; the nodes are in the cluster's own only if it names none."""
    unfit: str = ""
    """Why production's pods don't run there; then its nodes are no room."""


def node_groups(cluster: Owned, owned: Sequence[Owned]) -> list[NodeGroup]:
    """Return the managed node groups of a cluster."""
    groups = [each for each in owned if each.type_name == "aws_eks_node_group" and not each.deposed]
    templates = {each.text("id"): each for each in owned if each.type_name == "aws_launch_template"}
    found = []
    for each in groups:
        if each.text("cluster_name") != cluster.text("name"):
            continue
        template = templates.get(str(block(each, "launch_template").get("id")))
        types = each.attributes.get("instance_types")
        types = types if isinstance(types, list) and types else [template.text("instance_type")] if template else []
        least = block(each, "scaling_config").get("min_size")
        found.append(
            NodeGroup(
                each.address,
                tuple(text for text in types if isinstance(text, str) and text),
                least if isinstance(least, int) else 0,
                _disk_gibibytes(each, template),
                _named_groups(template),
                _unfit(each),
            )
        )
    return found


def _unfit(group: Owned) -> str:
    """Return why a node group has no room for production's pods, which tolerate no taint and are built for Linux on x86-64."""
    taints = group.attributes.get("taint")
    effects = [each.get("effect") for each in taints if isinstance(each, dict)] if isinstance(taints, list) else []
    image = group.text("ami_type")
    reasons = {
        "its nodes have a taint": any(effect in {"NO_SCHEDULE", "NO_EXECUTE"} for effect in effects),
        "AWS may take SPOT nodes away at any time": group.text("capacity_type") == "SPOT",
        "its nodes run Windows": image.startswith("WINDOWS"),
        "its nodes are ARM, and images are built for x86-64": "ARM_64" in image,
    }
    return next((reason for reason, is_so in reasons.items() if is_so), "")


def _disk_gibibytes(group: Owned, template: Owned | None) -> int:
    """Return the size of the disk: the group's, the launch template's, or what EKS gives."""
    mapping = block(template, "block_device_mappings") if template else {}
    ebs = mapping.get("ebs")
    ebs = ebs[0] if isinstance(ebs, list) and ebs else ebs
    sizes = (group.attributes.get("disk_size"), ebs.get("volume_size") if isinstance(ebs, dict) else None)
    return next((size for size in sizes if isinstance(size, int) and size > 0), DEFAULT_DISK_GIBIBYTES)


def _named_groups(template: Owned | None) -> tuple[str, ...]:
    if template is None:
        return ()
    ids = template.attributes.get("vpc_security_group_ids") or block(template, "network_interfaces").get(
        "security_groups"
    )
    return tuple(text for text in ids if isinstance(text, str)) if isinstance(ids, list) else ()


def security_groups(cluster: Owned, owned: Sequence[Owned]) -> list[str]:
    """Return the security groups that all nodes are in, and their pods with them; nothing if the state does not say.

    EKS puts nodes into the cluster's own group unless their launch template names others
    (docs.aws.amazon.com/eks/latest/userguide/launch-templates.html, security groups).
    """
    group = block(cluster, "vpc_config").get("cluster_security_group_id")
    of_cluster = (group,) if isinstance(group, str) and group else ()
    each = [found.security_group_ids or of_cluster for found in node_groups(cluster, owned)] or [of_cluster]
    return [group for group in each[0] if all(group in ids for ids in each)]


def _least_type(groups: Sequence[NodeGroup]) -> str:
    """Return the instance type of which every node has at least the room; nothing if there is none."""
    shapes = [NODE_SHAPES.get(name) for group in groups for name in group.instance_types]
    known = [shape for shape in shapes if shape is not None]
    least = [shape for shape in known if all(has_room_of(other, shape) for other in known)]
    return least[0].name if least and len(known) == len(shapes) else ""


def node_lines(groups: Sequence[NodeGroup], owned: Sequence[Owned]) -> Iterator[str]:
    """Yield lines of `shopcat:cluster.existing.nodes` that describe the nodes, as far as the state tells."""
    for group in groups:
        if group.unfit:
            yield f"    # {group.address} is no room for production: {group.unfit}"
    groups = [group for group in groups if not group.unfit]
    least = _least_type(groups)
    if least:
        values = {
            "instanceType": least,
            "count": sum(group.count for group in groups),
            "diskGibibytes": min(group.disk_gibibytes for group in groups),
        }
        yield "    nodes:"
        for name, value in values.items():
            yield setting_line(name, value, 6, owned)
    else:
        types = (
            ", ".join(sorted({masked(name, owned) for group in groups for name in group.instance_types}))
            or "no managed node group that has room for production"
        )
        yield f"    # nodes: the state has {types}; name a type of infra/capacity.py that has no more room than any of them"


def wrong_nodes(cluster: Owned, owned: Sequence[Owned], nodes: ExistingNodes) -> Iterator[str]:
    """Yield which nodes have less room than the settings say."""
    setting, known = "shopcat:cluster.existing.nodes", node_groups(cluster, owned)
    groups = [group for group in known if not group.unfit]
    for group in groups:
        for name in group.instance_types:
            shape, shown = NODE_SHAPES.get(name), masked(name, owned)
            if shape is None:
                yield (
                    f"{group.address}: nobody has worked out how much room a node of {shown} has (infra/capacity.py); use "
                    f"{', '.join(NODE_SHAPES)}"
                )
            elif not has_room_of(shape, nodes.shape):
                yield (
                    f"{group.address}: its nodes are {shown}, and {setting}.instanceType is {nodes.instance_type}, which has "
                    "more room; set it to that"
                )
        if group.disk_gibibytes < nodes.disk_gibibytes:
            yield (
                f"{group.address}: {setting}.diskGibibytes is {nodes.disk_gibibytes}, its nodes have "
                f"{masked(group.disk_gibibytes, owned)}; "
                "set it to that"
            )
    count = sum(group.count for group in groups)
    if known and not groups:
        reasons = "; ".join(f"{group.address}: {group.unfit}" for group in known)
        yield f"{reasons}; make a node group that production's pods can run on, with {nodes.count} nodes"
    if groups and count < nodes.count:
        names = ", ".join(group.address for group in groups)
        yield f"{names}: {setting}.count is {nodes.count}, and {count} are always there (min_size); raise that or lower the count"
