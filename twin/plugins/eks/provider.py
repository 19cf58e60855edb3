"""The component provider."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pulumi
from pulumi.provider import ConstructResult, Provider


class EksProvider(Provider):
    """The provider that constructs the components; any other type is refused by name."""

    def construct(
        self, name: str, resource_type: str, inputs: Mapping[str, Any], options: pulumi.ResourceOptions | None = None
    ) -> ConstructResult:
        """Declare the component."""
        from twin.plugins.eks.components import CLUSTER, Cluster

        component_options = options or pulumi.ResourceOptions()
        if resource_type == CLUSTER:
            cluster = Cluster(name, inputs, component_options)
            return ConstructResult(urn=cluster.urn, state=cluster.outputs)
        raise ValueError(f"twin: {resource_type} is not implemented by the stand-in of the eks plugin")
