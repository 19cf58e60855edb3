"""Which names lead to which load balancer: a hosts file for the twin's DNS, maps for the front door."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def hosts_file(names: Mapping[str, str], addresses: Mapping[str, Sequence[str]]) -> str:
    """One ``ip name`` per line, both nodes of each load balancer. Wildcards keep their ``*.``.

    Args:
        names: DNS name → load balancer ARN.
        addresses: load balancer ARN → its nodes' addresses.
    """
    return "".join(
        f"{address} {name}\n" for name, arn in sorted(names.items()) if arn in addresses for address in addresses[arn]
    )


def host_maps(names: Mapping[str, str], keys: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Exact names and wildcard suffixes (``.example.org``) → front-door backend.

    Args:
        names: DNS name → load balancer ARN.
        keys: load balancer ARN → backend.
    """
    exact = {name: keys[arn] for name, arn in names.items() if arn in keys and not name.startswith("*.")}
    suffixes = {name[1:]: keys[arn] for name, arn in names.items() if arn in keys and name.startswith("*.")}
    return exact, suffixes
