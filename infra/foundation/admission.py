"""A ValidatingAdmissionPolicy of ours and its binding, as plain values and declared."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pulumi
import pulumi_kubernetes as kubernetes

from infra.names import PREVIEW_LABEL

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True)
class AdmissionPolicy:
    """A ValidatingAdmissionPolicy and its binding, before they are Kubernetes' own JSON."""

    name: str
    rules: Sequence[Mapping[str, Any]]
    conditions: Mapping[str, str]
    """Named expressions that must all hold."""
    validations: Sequence[tuple[str, str]]
    """Expressions that must hold, each with the message otherwise."""
    variables: Mapping[str, str] = field(default_factory=dict)
    beside: tuple[str, str, str] | None = None
    """API version, kind and name of an object of the same namespace (`params`) that must be there.

    It is looked for before the conditions are: such a policy applies to namespaces that carry the previews' label, which
    those that the preview identity makes always do.
    """

    def spec(self) -> dict[str, Any]:
        """Return the policy's spec."""
        optional: dict[str, Any] = {}
        if self.beside:
            optional["paramKind"] = {"apiVersion": self.beside[0], "kind": self.beside[1]}
        if self.variables:
            optional["variables"] = [{"name": name, "expression": text} for name, text in self.variables.items()]
        selected = {"namespaceSelector": {"matchLabels": {PREVIEW_LABEL: "true"}}} if self.beside else {}
        return {
            **optional,
            "failurePolicy": "Fail",
            "matchConstraints": {**selected, "resourceRules": [dict(rule) for rule in self.rules]},
            "matchConditions": [{"name": name, "expression": text} for name, text in self.conditions.items()],
            "validations": [{"expression": text, "message": message} for text, message in self.validations],
        }

    def binding(self) -> dict[str, Any]:
        """Return the spec of its binding: it denies."""
        binding: dict[str, Any] = {"policyName": self.name, "validationActions": ["Deny"]}
        if self.beside:
            binding["paramRef"] = {"name": self.beside[2], "parameterNotFoundAction": "Deny"}
        return binding


def bound_policy(
    name: str,
    spec: pulumi.Input[Any],
    binding: pulumi.Input[Any],
    opts: pulumi.ResourceOptions,
) -> list[pulumi.Resource]:
    """Declare a policy, and its binding once it is there."""
    kinds, metadata = kubernetes.admissionregistration.v1, kubernetes.meta.v1.ObjectMetaArgs(name=name)
    policy = kinds.ValidatingAdmissionPolicy(name, metadata=metadata, spec=spec, opts=opts)
    after = pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=[policy]))
    return [policy, kinds.ValidatingAdmissionPolicyBinding(name, metadata=metadata, spec=binding, opts=after)]


def all_of(*expressions: str) -> str:
    """Join expressions that must all hold."""
    return " && ".join(expressions)


def resource_rule(group: str, versions: str, resources: list[str], *operations: str) -> dict[str, Any]:
    """Return the resources and operations that a policy is about: to create and to update, if none is named."""
    return {
        "apiGroups": [group],
        "apiVersions": [versions],
        "operations": list(operations or ("CREATE", "UPDATE")),
        "resources": resources,
        "scope": "*",
    }
