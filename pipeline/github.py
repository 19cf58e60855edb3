"""Client of GitHub's REST API: one comment kept up to date, pull requests, a tag.

By urllib.request: the first steps of a job need this before any package is installed. The wait for rate limits is its own, since
GitHub's rules for it need the answer's text.

Source: docs.github.com/rest (issues/comments, pulls/pulls, git/refs), version 2022-11-28.
"""

from __future__ import annotations

import http.client
import json
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.message import Message
from typing import Any

from infra.errors import ShopCatError
from pipeline.errors import GithubDeniedError, GithubError, GithubNotFoundError

GITHUB_TIMEOUT_SECONDS = 20
PATIENCE_SECONDS = 150.0
"""Longest wait of one request for rate limits: a job has five minutes."""
AUTHOR = "github-actions[bot]"
"""Author of what is written with a job's own token (docs.github.com/actions/tutorials/authenticate-with-github_token)."""
_PAGE = 100
_NESTED = 5
_SECONDS = re.compile(r"[0-9]{1,12}", re.ASCII)


@dataclass(frozen=True)
class Github:
    """A repository on GitHub, called with the job's own token."""

    api: str
    repository: str
    token: str

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Github | None:
        """Return the job's own repository; None where there is no token (by hand, on the twin)."""
        token, repository = environment.get("GITHUB_TOKEN"), environment.get("GITHUB_REPOSITORY")
        if not token or not repository:
            return None
        return cls(environment.get("GITHUB_API_URL", "https://api.github.com"), repository, token)

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Send a request below the repository; return the answer's JSON.

        Raises:
            GithubNotFoundError: 404.
            GithubDeniedError: 401 or 403.
            ShopCatError: any other answer than success, or none.
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
        text = self._send(request, f"{method} {path}")
        try:
            return json.loads(text) if text else None
        except (ValueError, RecursionError) as error:
            raise GithubError(f"GitHub: {method} {path} answered no JSON ({error}); run the job again") from error

    def _send(self, request: urllib.request.Request, title: str) -> bytes:
        """Return the answer's body; wait where GitHub limits the rate of requests."""
        patience = PATIENCE_SECONDS
        while True:
            try:
                with urllib.request.urlopen(request, timeout=GITHUB_TIMEOUT_SECONDS) as answer:
                    text: bytes = answer.read()
                    return text
            except urllib.error.HTTPError as error:
                body = _error_body(error)
                pause = wait_seconds(error.code, error.headers, body, time.time())
                if pause is None:
                    kind = {401: GithubDeniedError, 403: GithubDeniedError, 404: GithubNotFoundError}.get(
                        error.code, GithubError
                    )
                    hint = "; run the job again" if error.code >= 500 else ""
                    if kind is GithubDeniedError:
                        hint = "; the job's `permissions:` must allow it"
                    raise kind(f"GitHub: {title} answered {error.code}: {body}{hint}") from error
                if pause > patience:
                    raise GithubError(
                        f"GitHub: {title} answered {error.code}: its rate limit is used up ({body}); run the job again in "
                        f"{pause:.0f} s"
                    ) from error
            except (OSError, http.client.HTTPException) as error:
                raise GithubError(f"GitHub: {self.api} can't be reached ({error!r}); run the job again") from error
            print(f"GitHub limits the rate of requests; {title} waits {pause:.0f} s", file=sys.stderr, flush=True)
            time.sleep(pause)
            patience -= pause

    def list_items(self, path: str) -> Iterator[dict[str, Any]]:
        """Return every item of a list, page by page.

        Raises:
            ShopCatError: GitHub refuses, or answers no list of objects.
        """
        sign = "&" if "?" in path else "?"
        number = 1
        while True:
            items = self.call("GET", f"{path}{sign}per_page={_PAGE}&page={number}")
            if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
                raise _unexpected(f"GET {path}", "a list of objects")
            yield from items
            if len(items) < _PAGE:
                return
            number += 1

    def write_comment(self, number: int, marker: str, text: str, *, only_change: bool = False) -> None:
        """Write the job's one comment that begins with the marker: change it, or create it.

        A person's comment is left alone, even if it begins with the marker.

        Args:
            number: the pull request.
            marker: an HTML comment; nobody sees it.
            text: what stands below it.
            only_change: create none where there is none.

        Raises:
            ShopCatError: GitHub refuses.
        """
        body = f"{marker}\n{text}"
        for comment in self.list_items(f"/issues/{number}/comments"):
            present = str(comment.get("body"))
            if (comment.get("user") or {}).get("login") == AUTHOR and present.partition("\n")[0].strip() == marker:
                if present != body:
                    self.call("PATCH", f"/issues/comments/{comment['id']}", {"body": body})
                return
        if not only_change:
            self.call("POST", f"/issues/{number}/comments", {"body": body})

    def pull_request(self, number: int) -> dict[str, Any] | None:
        """Return a pull request; None if there is none of this number."""
        try:
            answer = self.call("GET", f"/pulls/{number}")
        except GithubNotFoundError:
            return None
        if not isinstance(answer, dict):
            raise _unexpected(f"GET /pulls/{number}", "a pull request")
        return answer

    def put_tag(self, name: str, sha: str) -> None:
        """Put a tag on a commit, unless it is on it already.

        Raises:
            ShopCatError: it is on another commit, or GitHub refuses.
        """
        tagged = self._tagged_commit(name)
        if tagged is None:
            try:
                self.call("POST", "/git/refs", {"ref": f"refs/tags/{name}", "sha": sha})
            except ShopCatError:
                tagged = self._tagged_commit(name)  # another job may have put it there since
                if tagged is None:
                    raise
        if tagged not in (None, sha):
            raise GithubError(
                f"tag {name} is on {tagged}, not on {sha}; a tag of a release never moves; delete it if "
                "nothing was released from it"
            )

    def _tagged_commit(self, name: str) -> str | None:
        """Return the commit that a tag is on, also an annotated one; None without the tag."""
        path = f"/git/ref/tags/{name}"
        try:
            for _ in range(_NESTED):
                target = self.call("GET", path)["object"]
                if target["type"] != "tag":
                    return str(target["sha"])
                path = f"/git/tags/{target['sha']}"  # an annotated tag is an object of its own
        except GithubNotFoundError:
            return None
        except (KeyError, TypeError) as error:
            raise _unexpected(f"GET {path}", "a tag") from error
        raise GithubError(f"tag {name} is a tag of a tag of a tag …; put one on the commit itself")


def wait_seconds(status: int, headers: Mapping[str, str] | Message, body: str, now: float) -> float | None:
    """Return the seconds until the same request may be made again; None if no rate limit refused it.

    Source: docs.github.com/rest/using-the-rest-api/best-practices-for-using-the-rest-api (Handle rate limit errors): 403 or
    429; retry-after, in seconds; else x-ratelimit-reset, in seconds since 1970, if x-ratelimit-remaining is 0; else a minute.
    """
    after, used_up = headers.get("retry-after"), headers.get("x-ratelimit-remaining") == "0"
    limited = status == 429 or (status == 403 and (after is not None or used_up or "rate limit" in body.lower()))
    if not limited:
        return None
    if after is not None and _SECONDS.fullmatch(after):
        return max(float(after), 1)
    reset = headers.get("x-ratelimit-reset") or ""
    if used_up and _SECONDS.fullmatch(reset):
        return max(float(reset) - now, 0) + 1  # GitHub's clock and ours may differ
    return 60


def _error_body(error: urllib.error.HTTPError) -> str:
    try:
        return error.read().decode(errors="replace")[:500]
    except (OSError, http.client.HTTPException):
        return "an answer that broke off"


def _unexpected(title: str, expected: str) -> GithubError:
    return GithubError(f"GitHub: {title} answered something else than {expected}; run the job again")
