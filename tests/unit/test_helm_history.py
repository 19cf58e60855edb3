"""When Helm takes another revision of a release, and which command makes it take one again."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from infra.clients.kubernetes import KubernetesClient
from infra.foundation.helm_history import read_history

PENDING = ("pending-install", "pending-upgrade", "pending-rollback")
STATUSES = (*PENDING, "deployed", "superseded", "failed", "uninstalling", "uninstalled", "unknown")
NAMESPACE, NAME = "external-secrets", "operator"


def packed(release: Mapping[str, Any]) -> str:
    """A release as Helm's storage of Secrets writes it."""
    return base64.b64encode(base64.b64encode(gzip.compress(json.dumps(release).encode()))).decode()


def helm_secrets(
    name: str, statuses: Sequence[str], releases: Sequence[Mapping[str, Any]] = (), without: str = ""
) -> dict[str, Any]:
    """Helm's Secrets of a release, revision 1 first, as the API server lists them: by name."""
    items = []
    for number, status in enumerate(statuses, 1):
        if status not in ("", without):
            labels = {"owner": "helm", "name": name, "status": status, "version": str(number)}
            release = releases[number - 1] if releases else {}
            metadata = {"name": f"sh.helm.release.v1.{name}.v{number}", "labels": labels}
            items.append({"metadata": metadata, "data": {"release": packed(release)}})
    return {"items": sorted(items, key=lambda each: str(each["metadata"]["name"]))}


class Cluster:
    """Helm's Secrets of one release; an empty status is a revision whose record is gone."""

    def __init__(self, statuses: Sequence[str]) -> None:
        self.statuses = list(statuses)

    def get(self, path: str, *, labelSelector: str) -> Any:  # noqa: N803 - Kubernetes' own name
        assert path == f"/api/v1/namespaces/{NAMESPACE}/secrets"
        without = "superseded" if labelSelector.endswith(",status!=superseded") else ""
        return helm_secrets(NAME, self.statuses, without=without)

    def obstacle(self) -> str:
        return read_history(cast("KubernetesClient", self), NAMESPACE, NAME).obstacle()

    def refuses_upgrade(self) -> str:
        """Helm's own rule (v3.19.0, pkg/action/upgrade.go, prepareUpgrade)."""
        kept = [status for status in self.statuses if status]
        if kept[-1] in PENDING:
            return "another operation is in progress"
        if "deployed" in kept or kept[-1] in ("failed", "superseded"):
            return ""
        return "has no deployed releases"

    def run(self, command: str) -> None:
        """What a command leaves of the records (pkg/action/rollback.go, uninstall.go)."""
        assert command.endswith(f" --namespace {NAMESPACE}")
        words = command.split()
        if words[:3] == ["helm", "rollback", NAME]:
            assert self.statuses[int(words[3]) - 1], "release has no such version"
            self.statuses = ["superseded" if status == "deployed" else status for status in self.statuses] + [
                "deployed"
            ]
        elif words[:3] == ["helm", "uninstall", NAME]:
            self.statuses = []
        else:
            assert words[:4] == [
                "kubectl",
                "delete",
                "secret",
                f"sh.helm.release.v1.{NAME}.v{words[3].rpartition('v')[2]}",
            ]
            self.statuses[int(words[3].rpartition("v")[2]) - 1] = ""


@given(st.lists(st.sampled_from(STATUSES), min_size=1, max_size=12))
def test_each_command_makes_helm_take_another_revision(statuses: list[str]) -> None:
    cluster = Cluster(statuses)
    obstacle = cluster.obstacle()
    assert not cluster.refuses_upgrade() or obstacle
    if not obstacle:
        assert statuses[-1] in ("deployed", "failed", "superseded")
        return
    commands = re.findall(r"\(((?:helm|kubectl) [^)]*)\)", obstacle)
    assert commands
    for command in commands:
        mended = Cluster(statuses)
        mended.run(command)
        while mended.statuses and not mended.statuses[-1]:
            mended.statuses.pop()
        if "delete secret" in command and mended.obstacle():  # more than one was cut off: its command is next
            assert len(mended.statuses) < len(statuses)
            continue
        assert not mended.statuses or not mended.refuses_upgrade()


def test_a_release_that_was_never_installed_has_no_revision() -> None:
    history = read_history(cast("KubernetesClient", Cluster([])), NAMESPACE, NAME)
    assert (history.revisions, history.obstacle(), history.base) == ([], "", None)


def test_records_that_were_replaced_are_read_only_where_the_newest_is_not_deployed() -> None:
    asked: list[str] = []

    class Counting(Cluster):
        def get(self, path: str, *, labelSelector: str) -> Any:  # noqa: N803
            asked.append(labelSelector)
            return super().get(path, labelSelector=labelSelector)

    for statuses, base, queries in (
        (["superseded", "deployed"], 2, 1),
        (["superseded", "superseded", "pending-upgrade"], 2, 2),
        (["superseded", "deployed", "failed"], 2, 2),
    ):
        asked.clear()
        history = read_history(cast("KubernetesClient", Counting(statuses)), NAMESPACE, NAME)
        assert history.base
        assert (history.base.number, len(asked)) == (base, queries)
