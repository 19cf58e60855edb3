"""Helm's record of a chart's release: its revisions, and whether Helm takes another one.

Helm keeps each revision in a Secret of the release's namespace (helm.sh/docs/topics/advanced, "Storage backends"). It upgrades a
release whose newest revision is deployed, failed or superseded. An upgrade that was cut off stays pending for ever, and Helm
refuses every other one until somebody ends it ("another operation (install/upgrade/rollback) is in progress";
github.com/helm/helm v3.19.0, pkg/action/upgrade.go, prepareUpgrade).
"""

from __future__ import annotations

import base64
import gzip
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from infra.clients.kubernetes import KubernetesClient

_SETTLED = ("failed", "superseded", "deployed")
"""Statuses that Helm goes on from, the last one first."""


@dataclass(frozen=True)
class Revision:
    """One revision of a release."""

    number: int
    status: str
    secret: Mapping[str, Any]

    def release(self) -> dict[str, Any]:
        """Return what Helm wrote: `chart`, `config` (the values it was given), `manifest` and others (v3, pkg/release)."""
        packed = base64.b64decode(base64.b64decode(self.secret["data"]["release"]))
        release: dict[str, Any] = json.loads(gzip.decompress(packed))
        return release


@dataclass(frozen=True)
class HelmHistory:
    """The revisions of a release, oldest first; none if it was never installed."""

    namespace: str
    name: str
    revisions: Sequence[Revision]

    @property
    def base(self) -> Revision | None:
        """Return the revision that Helm compares the next one with: the newest deployed one, else the newest that ended."""
        ended = [each for each in self.revisions if each.status in _SETTLED]
        return max(ended, key=lambda each: (each.status == "deployed", each.number), default=None)

    @property
    def has_failed(self) -> bool:
        """Check that the newest revision that ended has failed, so that the next update makes it again."""
        ended = [each.status for each in self.revisions if each.status in _SETTLED]
        return ended[-1:] == ["failed"]

    def obstacle(self) -> str:
        """Return why Helm takes no other revision and the command that mends it; empty if it takes one."""
        if not self.revisions or self.revisions[-1].status in _SETTLED:
            return ""
        newest, base = self.revisions[-1], self.base
        name, place = self.name, f"--namespace {self.namespace}"
        seen = f"chart {self.namespace}/{name}: revision {newest.number} is {newest.status}"
        if newest.status == "uninstalled":
            return (
                f"{seen}: only its records are left. Forget them (helm uninstall {name} {place}), then run "
                "`pulumi up --refresh`"
            )
        if not newest.status.startswith("pending"):
            return (
                f"{seen}: its removal was cut off. Bring back what there was of it (helm rollback {name} {newest.number} "
                f"{place}), then run `pulumi up` again"
            )
        if base is None:
            return (
                f"{seen}: its first installation was cut off, and Helm takes up none such. Remove what there is of it (helm "
                f"uninstall {name} {place}), then run `pulumi up` again"
            )
        return (
            f"{seen}: it is being changed just now, or that was cut off, and Helm takes no other change until it ends. If "
            f"nobody changes it now, go back to the last one that ended (helm rollback {name} {base.number} {place}), or, where "
            f"helm is not at hand, delete the record of the one that did not (kubectl delete secret "
            f"{newest.secret['metadata']['name']} {place}); then run `pulumi up` again"
        )


def read_history(client: KubernetesClient, namespace: str, name: str) -> HelmHistory:
    """Read the revisions of a release.

    Those that another replaced are read only where the newest of the others is not deployed: each has up to a megabyte.

    Raises:
        KubernetesUnreachableError: the API server does not answer, or refuses.
    """
    owned = f"owner=helm,name={name}"
    history = HelmHistory(namespace, name, _list_revisions(client, namespace, f"{owned},status!=superseded"))
    if history.revisions and history.revisions[-1].status == "deployed":
        return history
    return HelmHistory(namespace, name, _list_revisions(client, namespace, owned))


def _list_revisions(client: KubernetesClient, namespace: str, selector: str) -> list[Revision]:
    answer = client.get(f"/api/v1/namespaces/{namespace}/secrets", labelSelector=selector)
    listed = [(each["metadata"]["labels"], each) for each in (answer or {"items": []})["items"]]
    revisions = [Revision(int(labels["version"]), labels["status"], each) for labels, each in listed]
    return sorted(revisions, key=lambda each: each.number)
