"""The component provider."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pulumi
from pulumi.provider import ConstructResult, Provider


class EksProvider(Provider):
    """Constructs the components; any other type is refused by name."""

    def construct(
        self, name: str, resource_type: str, inputs: Mapping[str, Any], options: pulumi.ResourceOptions | None = None
    ) -> ConstructResult:
        """Declare the component."""
        from twin.plugins.eks.components import CLUSTER, Cluster

        given = options or pulumi.ResourceOptions()
        if resource_type == CLUSTER:
            made = Cluster(name, inputs, given)
            return ConstructResult(urn=made.urn, state=made.outputs)
        raise ValueError(f"twin: {resource_type} is not implemented by the stand-in of the eks plugin")
