"""The images that pods in production's namespaces may run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infra.foundation.admission import AdmissionPolicy, resource_rule
from infra.foundation.cel import literal
from infra.names import SHOP_NAMESPACE
from infra.previews.admission_facts import AdmissionFacts
from infra.previews.admitted_shapes import escaped
from infra.settings.limits import BY_DIGEST

if TYPE_CHECKING:
    from collections.abc import Sequence

    from infra.release.record import Record

_IMAGES = (
    "(has(variables.pod.containers) ? variables.pod.containers.map(one, one.image) : []) + "
    "(has(variables.pod.initContainers) ? variables.pod.initContainers.map(one, one.image) : []) + "
    "(has(variables.pod.ephemeralContainers) ? variables.pod.ephemeralContainers.map(one, one.image) : []) + "
    "(has(variables.pod.volumes) ? variables.pod.volumes.filter(one, has(one.image))"
    ".map(one, has(one.image.reference) ? one.image.reference : '') : [])"
)
"""CEL of every reference to an image that a pod can have, and `""` for one that names none."""


def production_images(facts: AdmissionFacts) -> list[AdmissionPolicy]:
    """Limit pods in production's namespaces to images of production's repository by digest, and to the pinned tools.

    An update that leaves an image as it is passes: pods of a release stay manageable when the tools move on.
    """
    repository = f"^{escaped(facts.repository)}{BY_DIGEST}$"
    return [
        AdmissionPolicy(
            f"{namespace}-images",
            [resource_rule("", "v1", ["pods"]), resource_rule("", "v1", ["pods/ephemeralcontainers"], "UPDATE")],
            {"in-production": f"request.namespace == {literal(namespace)}"},
            [
                (
                    "variables.images.all(one, "
                    + " || ".join(
                        ["one in variables.before", f"one in {literal(sorted(tools))}"]
                        + ([f"one.matches({literal(repository)})"] if namespace == SHOP_NAMESPACE else [])
                    )
                    + ")",
                    f"{namespace} runs images of {facts.repository} by digest and the pinned tools, nothing else"
                    if namespace == SHOP_NAMESPACE
                    else f"{namespace} runs its pinned tool by digest, nothing else",
                )
            ],
            {
                "pod": "object.spec",
                "images": _IMAGES,
                "before": "oldObject == null ? [] : " + _IMAGES.replace("variables.pod", "oldObject.spec"),
            },
        )
        for namespace, tools in sorted(facts.tools.items())
    ]


def smoke_images(configured: str, records: Sequence[Record]) -> list[str]:
    """Return the smoke test's images: today's, and of each release that may come back its own."""
    return sorted({configured, *(record.template.smoke_image for record in records)})
