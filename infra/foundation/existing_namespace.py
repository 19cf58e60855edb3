"""Pods that another program made in the namespace that this one takes over.

This program's namespace asks for restricted pods, images by digest, and requests from its own load balancer alone. Pods that
run already go on under all that, but one that dies, or whose node is drained, would not come up again. So while such pods are
there, their images have to be named in the settings, and the namespace is declared so that they may start again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from infra.errors import PreflightError
from infra.names import COLOUR_LABEL, POD_SECURITY, POD_SECURITY_LABEL, RELEASE_LABEL, SHOP_NAMESPACE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from infra.clients.kubernetes import KubernetesClient
    from infra.settings import Settings

SETTING = "shopcat:cluster.existing.oldImages"


def old_images(settings: Settings) -> tuple[str, ...]:
    """Return the images of pods that another program made and that may start again."""
    existing = settings.cluster.existing
    return existing.old_images if existing else ()


def foreign_images(pods: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the images of pods that this program did not make and that have not ended, each once."""
    images = {
        str(container["image"])
        for pod in pods
        if not {COLOUR_LABEL, RELEASE_LABEL} & set(pod["metadata"].get("labels") or {})
        and (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")
        for key in ("initContainers", "containers")
        for container in pod["spec"].get(key) or []
    }
    return sorted(images)


def refuse_shut_out(client: KubernetesClient, named: Sequence[str]) -> None:
    """Refuse an update after which pods of another program could not start again.

    A namespace that asks for restricted pods already shuts nobody out: whoever runs there came in by its rules.

    Args:
        client: of the cluster that somebody else keeps.
        named: images that the settings let in.

    Raises:
        PreflightError: there are such pods, and an image of theirs is not named.
    """
    namespace = client.get(f"/api/v1/namespaces/{SHOP_NAMESPACE}")
    if not namespace or (namespace["metadata"].get("labels") or {}).get(POD_SECURITY_LABEL) == POD_SECURITY:
        return
    missing = sorted(set(foreign_images(client.pods(SHOP_NAMESPACE, {}))) - set(named))
    if missing:
        raise PreflightError(
            f"namespace {SHOP_NAMESPACE} has pods of another program, which could not start again after this update; name "
            f"their images in {SETTING} until they are gone: [{', '.join(missing)}]"
        )
