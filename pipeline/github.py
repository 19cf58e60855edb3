"""GitHub's REST API, as far as the pipeline needs it: one comment kept up to date, pull requests, a tag.

Source: docs.github.com/rest (issues/comments, pulls/pulls, git/refs), version 2022-11-28.
"""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from infra.errors import Refused

TIMEOUT_SECONDS = 20
_PAGE = 100


class NotFound(Refused):
    """GitHub has no such thing."""


@dataclass(frozen=True)
class Github:
    """One repository, by the job's own token."""

    api: str
    repository: str
    token: str

    @classmethod
    def find(cls, environment: Mapping[str, str]) -> Github | None:
        """From the environment of a job; None where there is no token (by hand, on the twin)."""
        token, repository = environment.get("GITHUB_TOKEN"), environment.get("GITHUB_REPOSITORY")
        if not token or not repository:
            return None
        return cls(environment.get("GITHUB_API_URL", "https://api.github.com"), repository, token)

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """One request below the repository.

        Raises:
            NotFound: 404.
            Refused: any other answer than success, or none.
        """
        url = f"{self.api}/repos/{self.repository}{path}"
        request = urllib.request.Request(
            url,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Accept": "application/vnd.github+json",
                "Authorization": f"Bearer {self.token}",
                "Content-Type": "application/json",
                "X-GitHub-Api-Version": "2022-11-28",
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            said = error.read().decode(errors="replace")[:500]
            kind = NotFound if error.code == 404 else Refused
            hint = "; the job's `permissions:` must allow it" if error.code in (401, 403) else ""
            raise kind(f"GitHub: {method} {path} answered {error.code}: {said}{hint}") from error
        except (OSError, http.client.HTTPException) as error:
            raise Refused(f"GitHub: {self.api} can't be reached ({error!r}); run the job again") from error
        try:
            return json.loads(text) if text else None
        except ValueError as error:
            raise Refused(f"GitHub: {method} {path} answered no JSON ({error}); run the job again") from error

    def pages(self, path: str) -> Iterator[dict[str, Any]]:
        """Every item of a list."""
        sign = "&" if "?" in path else "?"
        number = 1
        while True:
            items = self.call("GET", f"{path}{sign}per_page={_PAGE}&page={number}")
            yield from items
            if len(items) < _PAGE:
                return
            number += 1

    def comment(self, number: int, marker: str, text: str, *, only_change: bool = False) -> None:
        """Write the one comment that begins with the marker: change it, or make it if it isn't there.

        Args:
            number: the pull request.
            marker: an HTML comment; nobody sees it.
            text: what stands below it.
            only_change: make none where there is none.

        Raises:
            Refused: GitHub says no.
        """
        body = f"{marker}\n{text}"
        for one in self.pages(f"/issues/{number}/comments"):
            if str(one["body"]).startswith(marker):
                if one["body"] != body:
                    self.call("PATCH", f"/issues/comments/{one['id']}", {"body": body})
                return
        if not only_change:
            self.call("POST", f"/issues/{number}/comments", {"body": body})

    def pull_request(self, number: int) -> dict[str, Any] | None:
        """A pull request; None if there is none of this number."""
        try:
            found: dict[str, Any] = self.call("GET", f"/pulls/{number}")
        except NotFound:
            return None
        return found

    def tag(self, name: str, sha: str) -> None:
        """Put a tag on a commit; fine if it is there already.

        Raises:
            Refused: it is there on another commit, or GitHub says no.
        """
        try:
            there = self.call("GET", f"/git/ref/tags/{name}")
        except NotFound:
            self.call("POST", "/git/refs", {"ref": f"refs/tags/{name}", "sha": sha})
            return
        if there["object"]["sha"] != sha:
            raise Refused(f"tag {name} is on {there['object']['sha']}, not on {sha}; a tag of a release never moves")
