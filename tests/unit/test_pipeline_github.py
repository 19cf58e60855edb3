"""GitHub's API as the pipeline uses it, against a server on this machine that answers as GitHub documents."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from infra.errors import Refused
from pipeline.github import Github

MARKER = "<!-- mark -->"


class Served(ThreadingHTTPServer):
    """One repository's comments and tags."""

    def __init__(self) -> None:
        self.comments: list[dict[str, Any]] = []
        self.pulls: list[dict[str, Any]] = []
        self.tags: dict[str, str] = {}
        self.writes: list[str] = []
        self.status = 0
        self.meanwhile: Callable[[], None] = lambda: None
        """Happens once open pull requests were listed."""
        self.raw = b""
        """What is said in place of HTTP."""
        super().__init__(("127.0.0.1", 0), Answers)


class Answers(BaseHTTPRequestHandler):
    server: Served

    def log_message(self, *_: Any) -> None:
        """Not on the screen."""

    def reply(self, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def handle_any(self) -> None:
        parts = urlsplit(self.path)
        path = parts.path.removeprefix("/repos/shop/cat")
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else {}
        served = self.server
        if self.command != "GET":
            served.writes.append(f"{self.command} {path}")
        if served.raw:
            self.wfile.write(served.raw)
        elif self.headers["Authorization"] != "Bearer secret":
            self.reply(401, {"message": "Bad credentials"})
        elif served.status:
            self.reply(served.status, {"message": "Resource not accessible by integration"})
        elif self.command == "GET" and path == "/issues/7/comments":
            page = int(parse_qs(parts.query)["page"][0])
            self.reply(200, served.comments[100 * (page - 1) : 100 * page])
        elif self.command == "POST" and path == "/issues/7/comments":
            served.comments.append({"id": len(served.comments), "body": body["body"]})
            self.reply(201, served.comments[-1])
        elif self.command == "PATCH":
            served.comments[int(path.rpartition("/")[2])]["body"] = body["body"]
            self.reply(200, {})
        elif self.command == "GET" and path == "/pulls":
            self.reply(200, [one for one in served.pulls if one["state"] == "open"])
            served.meanwhile()
        elif self.command == "GET" and (found := [one for one in served.pulls if path == f"/pulls/{one['number']}"]):
            self.reply(200, found[0])
        elif self.command == "GET" and path.endswith(("/commits", "/comments")):
            self.reply(200, [])
        elif self.command == "GET" and path.startswith("/git/ref/tags/"):
            sha = served.tags.get(path.rpartition("/")[2])
            self.reply(200 if sha else 404, {"object": {"sha": sha}} if sha else {"message": "Not Found"})
        elif self.command == "POST" and path == "/git/refs":
            served.tags[body["ref"].removeprefix("refs/tags/")] = body["sha"]
            self.reply(201, {})
        else:
            self.reply(404, {"message": "Not Found"})

    def __getattr__(self, name: str) -> Any:
        """`do_GET` and the others that the server asks for."""
        if name.startswith("do_"):
            return self.handle_any
        raise AttributeError(name)


@pytest.fixture
def served() -> Iterator[Served]:
    server = Served()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def github(served: Served) -> Github:
    found = Github.find(
        {
            "GITHUB_API_URL": f"http://127.0.0.1:{served.server_port}",
            "GITHUB_REPOSITORY": "shop/cat",
            "GITHUB_TOKEN": "secret",
        }
    )
    assert found is not None
    return found


def test_without_a_token_there_is_no_github() -> None:
    assert Github.find({"GITHUB_REPOSITORY": "shop/cat"}) is None
    assert Github.find({"GITHUB_REPOSITORY": "shop/cat", "GITHUB_TOKEN": ""}) is None


def test_one_comment_is_kept_up_to_date_also_behind_a_hundred_others(served: Served, github: Github) -> None:
    served.comments += [{"id": number, "body": f"talk {number} {MARKER}"} for number in range(130)]
    github.comment(7, MARKER, "first")
    github.comment(7, MARKER, "second")
    assert [one["body"] for one in served.comments[130:]] == [f"{MARKER}\nsecond"]
    served.writes.clear()
    github.comment(7, MARKER, "second")
    assert served.writes == []


def test_a_closed_preview_that_never_was_gets_no_comment(served: Served, github: Github) -> None:
    github.comment(7, MARKER, "closed", only_change=True)
    assert served.comments == []


def test_a_tag_is_put_once_and_never_moved(served: Served, github: Github) -> None:
    github.tag("v1.2.0", "a" * 40)
    github.tag("v1.2.0", "a" * 40)
    assert served.writes == ["POST /git/refs"]
    with pytest.raises(Refused, match="never moves"):
        github.tag("v1.2.0", "b" * 40)


def test_a_pull_request_that_is_not_there(github: Github) -> None:
    assert github.pull_request(4711) is None


def test_a_refusal_says_what_the_job_lacks(served: Served, github: Github) -> None:
    served.status = 403
    with pytest.raises(Refused, match=r"403.*permissions"):
        github.comment(7, MARKER, "text")


@pytest.mark.parametrize(
    "raw", [b"no HTTP\r\n\r\n", b"HTTP/1.0 200 OK\r\nContent-Length: 9\r\n\r\n{}", b"HTTP/1.0 200 OK\r\n\r\n<p>"]
)
def test_an_answer_that_breaks_off_or_is_none_is_one_clear_error(served: Served, github: Github, raw: bytes) -> None:
    served.raw = raw
    with pytest.raises(Refused, match="run the job again"):
        github.pull_request(7)


def test_no_answer_is_one_clear_error() -> None:
    with pytest.raises(Refused, match="can't be reached"):
        Github("http://127.0.0.1:9", "shop/cat", "secret").call("GET", "")
