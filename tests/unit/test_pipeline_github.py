"""GitHub's API as the pipeline uses it, against a server on this machine that answers as GitHub documents."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.errors import ShopCatError
from pipeline.github import Github, wait_seconds

MARKER = "<!-- mark -->"


class Served(ThreadingHTTPServer):
    """One repository's comments and tags."""

    def __init__(self) -> None:
        self.comments: list[dict[str, Any]] = []
        self.pulls: list[dict[str, Any]] = []
        self.tags: dict[str, str] = {}
        self.writes: list[str] = []
        self.status = 0
        self.headers: dict[str, str] = {}
        self.refusals = 10**9
        """How often it refuses with the status."""
        self.objects: dict[str, Any] = {}
        """Annotated tags."""
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
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def handle_any(self) -> None:  # noqa: C901, PLR0912 - one branch for each path of the API
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
        elif served.status and served.refusals > 0:
            served.refusals -= 1
            self.reply(served.status, {"message": "Resource not accessible by integration"})
        elif self.command == "GET" and path == "/issues/7/comments":
            page = int(parse_qs(parts.query)["page"][0])
            self.reply(200, served.comments[100 * (page - 1) : 100 * page])
        elif self.command == "POST" and path == "/issues/7/comments":
            bot = {"login": "github-actions[bot]", "type": "Bot"}
            served.comments.append({"id": len(served.comments), "body": body["body"], "user": bot})
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
            kind = "tag" if sha in served.objects else "commit"
            self.reply(200 if sha else 404, {"object": {"sha": sha, "type": kind}} if sha else {"message": "Not Found"})
        elif self.command == "GET" and (sha := path.removeprefix("/git/tags/")) in served.objects:
            self.reply(200, {"object": served.objects[sha]})
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
    found = Github.from_environment(
        {
            "GITHUB_API_URL": f"http://127.0.0.1:{served.server_port}",
            "GITHUB_REPOSITORY": "shop/cat",
            "GITHUB_TOKEN": "secret",
        }
    )
    assert found is not None
    return found


def test_without_a_token_there_is_no_github() -> None:
    assert Github.from_environment({"GITHUB_REPOSITORY": "shop/cat"}) is None
    assert Github.from_environment({"GITHUB_REPOSITORY": "shop/cat", "GITHUB_TOKEN": ""}) is None


def test_one_comment_is_kept_up_to_date_also_behind_a_hundred_others(served: Served, github: Github) -> None:
    served.comments += [{"id": number, "body": f"talk {number} {MARKER}"} for number in range(130)]
    github.write_comment(7, MARKER, "first")
    github.write_comment(7, MARKER, "second")
    assert [one["body"] for one in served.comments[130:]] == [f"{MARKER}\nsecond"]
    served.writes.clear()
    github.write_comment(7, MARKER, "second")
    assert served.writes == []


def test_a_closed_preview_that_never_was_gets_no_comment(served: Served, github: Github) -> None:
    github.write_comment(7, MARKER, "closed", only_change=True)
    assert served.comments == []


def test_a_tag_is_put_once_and_never_moved(served: Served, github: Github) -> None:
    github.put_tag("v1.2.0", "a" * 40)
    github.put_tag("v1.2.0", "a" * 40)
    assert served.writes == ["POST /git/refs"]
    with pytest.raises(ShopCatError, match="never moves"):
        github.put_tag("v1.2.0", "b" * 40)


def test_an_annotated_tag_is_on_the_commit_that_it_names(served: Served, github: Github) -> None:
    served.tags["v1.2.0"] = "outer"
    served.objects = {"outer": {"type": "tag", "sha": "inner"}, "inner": {"type": "commit", "sha": "a" * 40}}
    github.put_tag("v1.2.0", "a" * 40)
    assert served.writes == []
    with pytest.raises(ShopCatError, match=f"v1.2.0 is on {'a' * 40}, not on {'b' * 40}"):
        github.put_tag("v1.2.0", "b" * 40)


def test_a_tag_of_itself_is_one_clear_error(served: Served, github: Github) -> None:
    served.tags["v1.2.0"] = "outer"
    served.objects = {"outer": {"type": "tag", "sha": "outer"}}
    with pytest.raises(ShopCatError, match="put one on the commit itself"):
        github.put_tag("v1.2.0", "a" * 40)


@pytest.mark.parametrize(
    "other",
    [
        {"body": f"{MARKER}\nmine", "user": {"login": "ann", "type": "User"}},
        {"body": f"{MARKER} mine", "user": {"login": "github-actions[bot]", "type": "Bot"}},
        {"body": f"{MARKER}\nmine", "user": None},
        {"body": None, "user": {"login": "github-actions[bot]", "type": "Bot"}},
    ],
)
def test_what_others_write_is_left_alone(served: Served, github: Github, other: dict[str, Any]) -> None:
    served.comments.append({"id": 0, **other})
    github.write_comment(7, MARKER, "text")
    github.write_comment(7, MARKER, "other text")
    assert served.comments[0]["body"] == other["body"]
    assert [one["body"] for one in served.comments[1:]] == [f"{MARKER}\nother text"]


NOW = 1_800_000_000
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "retry-after": st.one_of(
            st.integers(0, 4000).map(str), st.sampled_from(["", "-1", "soon", "1e9", "Sat, 28 Nov 2026 10:00:00 GMT"])
        ),
        "x-ratelimit-remaining": st.sampled_from(["0", "1", "4999", ""]),
        "x-ratelimit-reset": st.one_of(st.integers(NOW - 10, NOW + 4000).map(str), st.sampled_from(["", "never"])),
    },
)


@given(
    st.sampled_from([400, 401, 403, 404, 422, 429, 500, 503]),
    HEADERS,
    st.sampled_from(["You have exceeded a secondary rate limit", "Resource not accessible by integration"]),
)
def test_a_rate_limit_is_told_from_a_lack_of_permission(status: int, headers: dict[str, str], said: str) -> None:
    found = wait_seconds(status, headers, said, NOW)
    signs = "rate limit" in said or "retry-after" in headers or headers.get("x-ratelimit-remaining") == "0"
    if status == 429 or (status == 403 and signs):
        assert found is not None
        assert 1 <= found <= 4001
        after = headers.get("retry-after", "")
        if after.isdigit():
            assert found == max(int(after), 1)
    else:
        assert found is None


@pytest.mark.parametrize(
    ("status", "headers", "slept"),
    [
        (429, {"Retry-After": "7"}, [7, 7]),
        (403, {"Retry-After": "7"}, [7, 7]),
        (403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1"}, [1, 1]),
        (429, {}, [60, 60]),
    ],
)
def test_a_limited_request_is_made_again(
    served: Served,
    github: Github,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    headers: dict[str, str],
    slept: list[int],
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("pipeline.github.time.sleep", pauses.append)
    served.status, served.headers, served.refusals = status, headers, 2
    github.write_comment(7, MARKER, "text")
    assert pauses == slept
    assert [one["body"] for one in served.comments] == [f"{MARKER}\ntext"]


@pytest.mark.parametrize("headers", [{"Retry-After": "3600"}, {"Retry-After": "60"}])
def test_a_limit_that_lasts_longer_than_the_job_is_named(
    served: Served, github: Github, monkeypatch: pytest.MonkeyPatch, headers: dict[str, str]
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("pipeline.github.time.sleep", pauses.append)
    served.status, served.headers = 403, headers
    with pytest.raises(ShopCatError, match=r"rate limit is used up .*run the job again in \d+ s") as refused:
        github.pull_request(7)
    assert "permissions" not in str(refused.value)
    assert sum(pauses) <= 150


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["object", "sha", "type", "body", "user", "x"]), inner, max_size=3)
    ),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.one_of(JSON.map(lambda body: json.dumps(body).encode()), st.binary(max_size=20), st.just(b"[" * 100_000)))
def test_any_answer_is_taken_or_one_clear_error(served: Served, github: Github, body: bytes) -> None:
    served.raw = b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    for call in (
        lambda: github.pull_request(7),
        lambda: github.put_tag("v1.2.0", "a" * 40),
        lambda: list(github.list_items("/pulls")) if len(body) < 1000 else None,
    ):
        with suppress(ShopCatError):  # any other exception is a traceback
            call()


def test_a_refusal_that_breaks_off_is_one_clear_error(served: Served, github: Github) -> None:
    served.raw = b"HTTP/1.0 500 Oh\r\nContent-Length: 900\r\n\r\nhalf"
    with pytest.raises(ShopCatError, match="answered 500: an answer that broke off"):
        github.pull_request(7)


def test_a_pull_request_that_is_not_there(github: Github) -> None:
    assert github.pull_request(4711) is None


def test_a_refusal_says_what_the_job_lacks(served: Served, github: Github) -> None:
    served.status = 403
    with pytest.raises(ShopCatError, match=r"403.*permissions"):
        github.write_comment(7, MARKER, "text")


@pytest.mark.parametrize(
    "raw", [b"no HTTP\r\n\r\n", b"HTTP/1.0 200 OK\r\nContent-Length: 9\r\n\r\n{}", b"HTTP/1.0 200 OK\r\n\r\n<p>"]
)
def test_an_answer_that_breaks_off_or_is_none_is_one_clear_error(served: Served, github: Github, raw: bytes) -> None:
    served.raw = raw
    with pytest.raises(ShopCatError, match="run the job again"):
        github.pull_request(7)


def test_no_answer_is_one_clear_error() -> None:
    with pytest.raises(ShopCatError, match="can't be reached"):
        Github("http://127.0.0.1:9", "shop/cat", "secret").call("GET", "")
