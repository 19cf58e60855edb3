"""GitHub's REST API, as far as the pipeline needs it: one comment kept up to date, pull requests, a tag.

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
"""To wait out rate limits, in one request: a job has five minutes."""
AUTHOR = "github-actions[bot]"
"""Who writes with a job's own token (docs.github.com/actions/tutorials/authenticate-with-github_token)."""
_PAGE = 100
_NESTED = 5
_SECONDS = re.compile(r"[0-9]{1,12}", re.ASCII)


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
        text = self._answered(request, f"{method} {path}")
        try:
            return json.loads(text) if text else None
        except (ValueError, RecursionError) as error:
            raise GithubError(f"GitHub: {method} {path} answered no JSON ({error}); run the job again") from error

    def _answered(self, request: urllib.request.Request, what: str) -> bytes:
        """The answer's body; waits where GitHub limits how often it may be asked."""
        patience = PATIENCE_SECONDS
        while True:
            try:
                with urllib.request.urlopen(request, timeout=GITHUB_TIMEOUT_SECONDS) as answer:
                    text: bytes = answer.read()
                    return text
            except urllib.error.HTTPError as error:
                said = _body(error)
                pause = wait_seconds(error.code, error.headers, said, time.time())
                if pause is None:
                    kind = {401: GithubDeniedError, 403: GithubDeniedError, 404: GithubNotFoundError}.get(
                        error.code, ShopCatError
                    )
                    hint = "; the job's `permissions:` must allow it" if kind is GithubDeniedError else ""
                    raise kind(f"GitHub: {what} answered {error.code}: {said}{hint}") from error
                if pause > patience:
                    raise GithubError(
                        f"GitHub: {what} answered {error.code}: its rate limit is used up ({said}); run the job again in "
                        f"{pause:.0f} s"
                    ) from error
            except (OSError, http.client.HTTPException) as error:
                raise GithubError(f"GitHub: {self.api} can't be reached ({error!r}); run the job again") from error
            print(f"GitHub limits how often it is asked; {what} waits {pause:.0f} s", file=sys.stderr, flush=True)
            time.sleep(pause)
            patience -= pause

    def pages(self, path: str) -> Iterator[dict[str, Any]]:
        """Every item of a list.

        Raises:
            ShopCatError: GitHub says no, or answers no list of objects.
        """
        sign = "&" if "?" in path else "?"
        number = 1
        while True:
            items = self.call("GET", f"{path}{sign}per_page={_PAGE}&page={number}")
            if not isinstance(items, list) or not all(isinstance(one, dict) for one in items):
                raise _unexpected(f"GET {path}", "a list of objects")
            yield from items
            if len(items) < _PAGE:
                return
            number += 1

    def comment(self, number: int, marker: str, text: str, *, only_change: bool = False) -> None:
        """Write this job's one comment that begins with the marker: change it, or make it if it isn't there.

        A person's comment is left alone, also if it begins so.

        Args:
            number: the pull request.
            marker: an HTML comment; nobody sees it.
            text: what stands below it.
            only_change: make none where there is none.

        Raises:
            ShopCatError: GitHub says no.
        """
        body = f"{marker}\n{text}"
        for one in self.pages(f"/issues/{number}/comments"):
            said = str(one.get("body"))
            if (one.get("user") or {}).get("login") == AUTHOR and said.partition("\n")[0].strip() == marker:
                if said != body:
                    self.call("PATCH", f"/issues/comments/{one['id']}", {"body": body})
                return
        if not only_change:
            self.call("POST", f"/issues/{number}/comments", {"body": body})

    def pull_request(self, number: int) -> dict[str, Any] | None:
        """A pull request; None if there is none of this number."""
        try:
            found = self.call("GET", f"/pulls/{number}")
        except GithubNotFoundError:
            return None
        if not isinstance(found, dict):
            raise _unexpected(f"GET /pulls/{number}", "a pull request")
        return found

    def tag(self, name: str, sha: str) -> None:
        """Put a tag on a commit; fine if it is there already.

        Raises:
            ShopCatError: it is there on another commit, or GitHub says no.
        """
        there = self._tagged(name)
        if there is None:
            try:
                self.call("POST", "/git/refs", {"ref": f"refs/tags/{name}", "sha": sha})
            except ShopCatError:
                there = self._tagged(name)  # another job may have put it there meanwhile
                if there is None:
                    raise
        if there not in (None, sha):
            raise GithubError(f"tag {name} is on {there}, not on {sha}; a tag of a release never moves")

    def _tagged(self, name: str) -> str | None:
        """The commit that a tag is on: an annotated one is an object of its own, which says it; None without the tag."""
        path = f"/git/ref/tags/{name}"
        try:
            for _ in range(_NESTED):
                there = self.call("GET", path)["object"]
                if there["type"] != "tag":
                    return str(there["sha"])
                path = f"/git/tags/{there['sha']}"
        except GithubNotFoundError:
            return None
        except (KeyError, TypeError) as error:
            raise _unexpected(f"GET {path}", "a tag") from error
        raise GithubError(f"tag {name} is a tag of a tag of a tag …; put one on the commit itself")


def wait_seconds(status: int, headers: Mapping[str, str] | Message, said: str, now: float) -> float | None:
    """Return how long to wait until the same request may be made again; None if it isn't a rate limit that refused it.

    Source: docs.github.com/rest/using-the-rest-api/best-practices-for-using-the-rest-api (Handle rate limit errors): 403 or
    429; retry-after, in seconds; else x-ratelimit-reset, in seconds since 1970, if x-ratelimit-remaining is 0; else a minute.
    """
    after, used_up = headers.get("retry-after"), headers.get("x-ratelimit-remaining") == "0"
    limited = status == 429 or (status == 403 and (after is not None or used_up or "rate limit" in said.lower()))
    if not limited:
        return None
    if after is not None and _SECONDS.fullmatch(after):
        return max(float(after), 1)
    reset = headers.get("x-ratelimit-reset") or ""
    if used_up and _SECONDS.fullmatch(reset):
        return max(float(reset) - now, 0) + 1  # its clock and ours
    return 60


def _body(error: urllib.error.HTTPError) -> str:
    try:
        return error.read().decode(errors="replace")[:500]
    except (OSError, http.client.HTTPException):
        return "an answer that broke off"


def _unexpected(what: str, wanted: str) -> ShopCatError:
    return ShopCatError(f"GitHub: {what} answered something else than {wanted}; run the job again")
