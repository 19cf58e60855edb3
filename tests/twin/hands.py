"""Manual changes to the cluster (kubectl) and to the state, made before the next update."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.tools import command, kubectl
from tests.twin.shop import Shop

NAMESPACE = "shopcat"
Hand = Callable[[Shop, str], None]
"""Does it to the live colour."""


def _patch(shop: Shop, kind: str, name: str, patch: Any, style: str = "merge") -> None:
    command(shop.twin, ["kubectl", "patch", kind, name, "-n", NAMESPACE, f"--type={style}", "-p", json.dumps(patch)])


def scaled(replicas: int) -> Hand:
    def act(shop: Shop, colour: str) -> None:
        scale = ["kubectl", "scale", "-n", NAMESPACE, f"deployment/shopcat-{colour}", f"--replicas={replicas}"]
        command(shop.twin, scale)

    return act


def restarted(shop: Shop, colour: str) -> None:
    command(shop.twin, ["kubectl", "rollout", "restart", "-n", NAMESPACE, f"deployment/shopcat-{colour}"])


def image_edited(shop: Shop, colour: str) -> None:
    """The other colour's image: a release that was pushed and is not live."""
    other = "green" if colour == "blue" else "blue"
    template = kubectl(shop.twin, "get", "deployment", f"shopcat-{other}", "-n", NAMESPACE)["spec"]["template"]
    image = template["spec"]["containers"][0]["image"]
    edit = ["kubectl", "set", "image", "-n", NAMESPACE, f"deployment/shopcat-{colour}", f"shopcat={image}"]
    command(shop.twin, edit)
    status = ["kubectl", "rollout", "status", "-n", NAMESPACE, f"deployment/shopcat-{colour}", "--timeout=200s"]
    command(shop.twin, status)


def label_changed(shop: Shop, colour: str) -> None:
    """Take one pod out of the colour by its label; the pod stays until it is deleted, and another replaces it."""
    pods = kubectl(shop.twin, "get", "pods", "-n", NAMESPACE, "-l", f"shopcat/colour={colour}")["items"]
    name = next(pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"])
    command(shop.twin, ["kubectl", "label", "pod", name, "-n", NAMESPACE, "--overwrite", "shopcat/colour=debugged"])


def cordoned(shop: Shop, _: str) -> None:
    command(shop.twin, ["kubectl", "cordon", "node2"])


def selector_edited(shop: Shop, colour: str) -> None:
    _patch(shop, "service", f"shopcat-{colour}", {"spec": {"selector": {"shopcat/colour": "nobody"}}})


def deleted(kind: str) -> Hand:
    def act(shop: Shop, colour: str) -> None:
        command(shop.twin, ["kubectl", "delete", kind, f"shopcat-{colour}", "-n", NAMESPACE, "--timeout=120s"])

    return act


HANDS: dict[str, Hand] = {
    "scaled up": scaled(3),
    "scaled down": scaled(1),
    "rollout restart": restarted,
    "image edited": image_edited,
    "a pod's label changed": label_changed,
    "node cordoned": cordoned,
    "Service selector edited": selector_edited,
    "state of yesterday restored": lambda *_: None,
    "Deployment deleted": deleted("deployment"),
    "Service deleted": deleted("service"),
    "TargetGroupBinding deleted": deleted("targetgroupbinding"),
}
LEAVES_NOBODY = ("Service selector edited", "Deployment deleted", "Service deleted", "TargetGroupBinding deleted")
"""Changes after which no pod of the live colour is a target, until an update has written what was changed."""


@contextmanager
def older_state(shop: Shop, *, wanted: bool) -> Iterator[Callable[[], None]]:
    """Keep the state as it is now; the call that is handed out puts it back, if that is wanted."""
    state = shop.twin.directory / "pulumi-state"
    kept = shop.directory / "yesterday"
    shutil.rmtree(kept, ignore_errors=True)
    if wanted:
        shutil.copytree(state, kept)

    def restore() -> None:
        if wanted:
            shutil.rmtree(state)
            shutil.copytree(kept, state)

    yield restore


def undo(shop: Shop) -> None:
    """Uncordon, and delete pods that belong to no colour any more."""
    command(shop.twin, ["kubectl", "uncordon", "node2"])
    command(shop.twin, ["kubectl", "delete", "pod", "-n", NAMESPACE, "-l", "shopcat/colour=debugged", "--wait=false"])
