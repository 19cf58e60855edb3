"""Images that a run has built: a tag can be pushed again with other content, so pods are told apart by digest."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench import pods
from twin.config import Twin
from twin.scenarios import production

AGAIN = "-again"
"""End of the name of a content that was pushed over another one."""


class Images:
    """The images of one twin; a content's name is the tag it was built for."""

    def __init__(self, twin: Twin, directory: Path) -> None:
        self._twin, self._directory = twin, directory
        self._contents: dict[str, str] = {}
        self._edits: dict[str, Mapping[str, str]] = {}
        self._seen: dict[str, str] = {}
        self._building = threading.Lock()

    def push(
        self, content: str, edits: Mapping[str, str], *, tag: str = "", repository: str = production.REPOSITORY_NAME
    ) -> str:
        """Build the application and push it; return its digest.

        Args:
            content: its name; two of different names have different digests.
            edits: pieces of its source, and what takes their place.
            tag: the content's name by default.
            repository: of the twin's ECR.

        Raises:
            TwinError: the source lacks a piece, or the registry refuses the tag.
        """
        with self._building:
            source = self._directory / f"application-{repository}-{content}"
            if not source.exists():
                production.copy_application(source, content, edits)
            image = production.push_image(self._twin, source, tag or content, repository=repository)
        digest = image.rpartition("@")[2]
        self._contents[digest] = content
        self._edits[content] = dict(edits)
        return digest

    def push_again(self, content: str, *, tag: str = "", repository: str = production.REPOSITORY_NAME) -> None:
        """Push other content, named ``<content>-again``, under a content's tag.

        Raises:
            TwinError: the registry refuses the tag.
        """
        self.push(f"{content}{AGAIN}", {}, tag=tag or content, repository=repository)

    def edits(self, content: str) -> Mapping[str, str]:
        """Return what a content has replaced."""
        return self._edits[content]

    def content(self, listed: list[dict[str, Any]]) -> str:
        """Return the content that every ready pod of the list runs; empty if there are several or none."""
        running = set()
        for pod in listed:
            if pods.is_ready(pod):
                running.add(self._contents.get(digest_of(pod), "unknown"))
                self._seen[pod["metadata"]["name"]] = self._contents.get(digest_of(pod), "unknown")
        return running.pop() if len(running) == 1 else ""

    def seen(self, pod: str) -> str:
        """Return the content of a pod that was looked at once; empty if none was."""
        return self._seen.get(pod, "")


def digest_of(pod: Mapping[str, Any]) -> str:
    """Return the digest that the pod's first container runs; empty before it has started."""
    containers = pod["status"].get("containerStatuses") or [{}]
    return str(containers[0].get("imageID", "")).rpartition("@")[2]
