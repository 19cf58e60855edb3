"""GitHub's REST API as far as the pipeline's scripts ask it about pull requests, for rehearsals that need their answers.

Which commits a pull request has decides which images go when it closes, and what it is told stands in its one comment.
Source: docs.github.com/rest (pulls/pulls, issues/comments), version 2022-11-28.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

GITHUB_REPOSITORY = "shopcat/shopcat"
_PULL = re.compile(r"/pulls/([0-9]+)")
_COMMITS = re.compile(r"/pulls/([0-9]+)/commits")
_COMMENTS = re.compile(r"/issues/([0-9]+)/comments")
_COMMENT = re.compile(r"/issues/comments/([0-9]+)")


class Github:
    """Pull requests of one repository."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._commits: dict[int, list[str]] = {}
        self._open: set[int] = set()
        self._comments: list[tuple[int, str]] = []
        self.address = ""

    @property
    def environment(self) -> dict[str, str]:
        """Environment that stands in for GitHub's own in a script."""
        return {
            "GITHUB_API_URL": self.address,
            "GITHUB_REPOSITORY": GITHUB_REPOSITORY,
            "GITHUB_TOKEN": "rehearsal",  # opens nothing
        }

    def push(self, number: int, sha: str) -> None:
        """Record a pushed commit; the pull request is open."""
        with self._lock:
            self._commits.setdefault(number, []).append(sha)
            self._open.add(number)

    def close(self, number: int) -> None:
        """Close a pull request."""
        with self._lock:
            self._open.discard(number)

    def comments(self, number: int) -> list[str]:
        """Return the comments on a pull request."""
        with self._lock:
            return [text for issue, text in self._comments if issue == number]

    def answer(self, method: str, path: str, asked: dict[str, list[str]], body: dict[str, Any]) -> tuple[int, Any]:
        """Status and document of one request, path without host and repository."""
        with self._lock:
            listed = self._listed(path, asked) if method == "GET" else None
            if listed is not None:
                size, page = int(asked.get("per_page", ["30"])[0]), int(asked.get("page", ["1"])[0])
                return 200, listed[size * (page - 1) : size * page]
            asked_for = _PULL.fullmatch(path)
            if method == "GET" and asked_for and int(asked_for[1]) in self._commits:
                return 200, self._pull_request(int(asked_for[1]))
            if method == "POST" and (match := _COMMENTS.fullmatch(path)):
                self._comments.append((int(match[1]), str(body["body"])))
                return 201, {"id": len(self._comments), "body": body["body"]}
            changed = _COMMENT.fullmatch(path)
            if method == "PATCH" and changed and 0 < int(changed[1]) <= len(self._comments):
                place = int(changed[1]) - 1
                self._comments[place] = (self._comments[place][0], str(body["body"]))
                return 200, {"id": place + 1, "body": body["body"]}
        return 404, {"message": "Not Found"}

    def _listed(self, path: str, asked: dict[str, list[str]]) -> list[dict[str, Any]] | None:
        if path == "/pulls" and asked.get("state") == ["open"]:
            return [self._pull_request(request) for request in sorted(self._open)]
        if match := _COMMITS.fullmatch(path):
            return [{"sha": sha} for sha in self._commits.get(int(match[1]), [])]
        if match := _COMMENTS.fullmatch(path):
            number = int(match[1])
            # Whoever writes with a workflow's token is this user.
            author = {"login": "github-actions[bot]"}
            return [
                {"id": at + 1, "body": text, "user": author}
                for at, (issue, text) in enumerate(self._comments)
                if issue == number
            ]
        return None

    def _pull_request(self, number: int) -> dict[str, Any]:
        repository = {"full_name": GITHUB_REPOSITORY}
        return {
            "number": number,
            "state": "open" if number in self._open else "closed",
            "head": {"sha": self._commits[number][-1], "repo": repository},
            "base": {"ref": "main", "repo": repository},
            "labels": [],
        }


@contextmanager
def serve() -> Iterator[Github]:
    """Serve it on a port of this machine's loopback until the block ends."""
    github = Github()

    class Answers(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Print nothing."""

        def _reply(self) -> None:
            parts = urlsplit(self.path)
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else {}
            path = parts.path.removeprefix(f"/repos/{GITHUB_REPOSITORY}")
            status, document = github.answer(self.command, path, parse_qs(parts.query), body)
            data = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PATCH = _reply  # noqa: N815 - the names that the server calls

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    github.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, name="github", daemon=True)
    thread.start()
    try:
        yield github
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
