"""The names that lead to each load balancer: addresses for the twin's DNS, maps for the front door."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

OWNER = "load-balancers"
"""Owner of these names in the twin's DNS."""


def name_addresses(names: Mapping[str, str], addresses: Mapping[str, Sequence[str]]) -> dict[str, Sequence[str]]:
    """Each name with the addresses of both nodes of its load balancer. Wildcards keep their ``*.``.

    Args:
        names: DNS name → load balancer ARN.
        addresses: load balancer ARN → its nodes' addresses.
    """
    return {name: addresses[arn] for name, arn in names.items() if arn in addresses}


def host_maps(names: Mapping[str, str], keys: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Exact names and wildcard suffixes (``.example.org``) → front-door backend.

    Args:
        names: DNS name → load balancer ARN.
        keys: load balancer ARN → backend.
    """
    exact = {name: keys[arn] for name, arn in names.items() if arn in keys and not name.startswith("*.")}
    suffixes = {name[1:]: keys[arn] for name, arn in names.items() if arn in keys and name.startswith("*.")}
    return exact, suffixes
