"""A chart's custom resource definitions stay at the chart's version."""

import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from infra.clients.kubernetes import KubernetesClient
from infra.errors import KubernetesUnreachableError, ShopCatError
from infra.foundation import chart_archive, crds

CHART = "aws-load-balancer-controller"


def definition(name: str, *versions: str) -> dict[str, Any]:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": name, "creationTimestamp": None},
        "spec": {"versions": [{"name": version} for version in versions]},
    }


def archive(files: dict[str, str]) -> bytes:
    """A chart's archive as `helm package` makes it."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(f"{CHART}/{name}")
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
    return target.getvalue()


CRDS = [
    definition("targetgroupbindings.elbv2.k8s.aws", "v1beta1"),
    definition("ingressclassparams.elbv2.k8s.aws", "v1"),
]
FILES = {
    "Chart.yaml": "name: x",
    "crds/crds.yaml": yaml.safe_dump_all(CRDS),
    "crds/kustomization.yaml": "kind: Kustomization",
    "charts/part/crds/more.yml": yaml.safe_dump(definition("more.example.com", "v1")),
    "templates/crds/no.yaml": yaml.safe_dump(definition("template.example.com", "v1")),
    "crds/readme.md": "text",
}


class Server:
    """A chart repository and an API server, on one port."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.objects: dict[str, dict[str, Any]] = {}
        self.applied: list[tuple[str, str]] = []
        self.refuse = ""
        self.established = True
        self.digest = ""
        """Digest in the settings of the archive that was published last."""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None: ...

            def answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path in outer.files:
                    self.answer(200, outer.files[path])
                elif path in outer.objects:
                    self.answer(200, json.dumps(outer.objects[path]).encode())
                else:
                    self.answer(404, b"{}")

            def do_PATCH(self) -> None:
                path, _, query = self.path.partition("?")
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if outer.refuse and outer.refuse in path:
                    self.answer(422, b'{"message": "status.storedVersions holds v1alpha1"}')
                    return
                assert self.headers["Content-Type"] == "application/apply-patch+yaml"
                outer.applied.append((path, query))
                conditions = [{"type": "Established", "status": "True"}] if outer.established else []
                outer.objects[path] = {**body, "status": {"conditions": conditions}}
                self.answer(200, json.dumps(outer.objects[path]).encode())

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.client = KubernetesClient(self.url, None, lambda: "token", name="shopcat")

    def publish(self, version: str, content: bytes, digest: str | None = None) -> None:
        file = f"{CHART}-{version}.tgz"
        entry = {"version": version, "urls": [file], "digest": digest or hashlib.sha256(content).hexdigest()}
        self.files["/index.yaml"] = yaml.safe_dump({"apiVersion": "v1", "entries": {CHART: [entry]}}).encode()
        self.files[f"/{file}"] = content
        self.digest = f"sha256:{hashlib.sha256(content).hexdigest()}"

    @property
    def served(self) -> dict[str, list[str]]:
        return {
            one["metadata"]["name"]: [version["name"] for version in one["spec"]["versions"]]
            for one in self.objects.values()
        }

    def bring_up_to(self, version: str) -> list[str]:
        return crds.bring_up_to(self.client, self.url, CHART, version, self.digest, sleep=lambda _: None)


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


def test_definitions_follow_the_charts_version(server: Server) -> None:
    server.publish("3.5.0", archive(FILES))
    names = server.bring_up_to("3.5.0")
    assert names == [CRDS[0]["metadata"]["name"], CRDS[1]["metadata"]["name"], "more.example.com"]
    assert set(server.served) == set(names)
    assert {query for _, query in server.applied} == {"fieldManager=shopcat&force=true"}
    assert all("creationTimestamp" not in one["metadata"] for one in server.objects.values())
    newer = [definition("targetgroupbindings.elbv2.k8s.aws", "v1beta1", "v1"), definition("new.elbv2.k8s.aws", "v1")]
    server.publish("3.6.0", archive({"crds/crds.yaml": yaml.safe_dump_all(newer)}))
    server.bring_up_to("3.6.0")
    assert server.served["targetgroupbindings.elbv2.k8s.aws"] == ["v1beta1", "v1"]
    assert server.served["new.elbv2.k8s.aws"] == ["v1"]


@pytest.mark.parametrize(
    ("version", "content", "digest", "message"),
    [
        ("3.4.0", archive(FILES), None, r"has no aws-load-balancer-controller 3\.5\.0 \(its first is 3\.4\.0\)"),
        ("3.5.0", archive(FILES), "0" * 64, r"SHA-256 is not 0000"),
        ("3.5.0", b"<html>sign in</html>", None, r"archive can't be read"),
        ("3.5.0", archive({"crds/x.yaml": "a: [b"}), None, r"archive can't be read"),
    ],
)
def test_a_chart_that_is_not_what_was_asked_for_changes_nothing(
    server: Server, version: str, content: bytes, digest: str | None, message: str
) -> None:
    server.publish(version, content, digest)
    with pytest.raises(ShopCatError, match=message):
        server.bring_up_to("3.5.0")
    assert not server.applied


def test_an_archive_that_was_replaced_with_its_index_changes_nothing(server: Server) -> None:
    """Whoever can replace the archive can replace the index beside it; the settings' own digest is neither's."""
    server.publish("3.5.0", archive(FILES))
    expected = server.digest
    server.publish("3.5.0", archive({**FILES, "templates/evil.yaml": "kind: Secret"}))
    server.digest = expected
    with pytest.raises(ShopCatError, match=rf"is sha256:[0-9a-f]+, and shopcat:chartDigests says {expected}"):
        server.bring_up_to("3.5.0")
    assert not server.applied
    with pytest.raises(ShopCatError, match="shopcat:chartDigests"):
        crds.fetch_archive(server.url, CHART, "3.5.0", expected)


WHOLE = archive(FILES)


@given(
    st.one_of(
        st.binary(max_size=200),
        st.integers(min_value=0, max_value=len(WHOLE) - 1).map(lambda length: WHOLE[:length]),
        st.tuples(st.integers(min_value=0, max_value=len(WHOLE) - 1), st.integers(min_value=1, max_value=255)).map(
            lambda flip: WHOLE[: flip[0]] + bytes([WHOLE[flip[0]] ^ flip[1]]) + WHOLE[flip[0] + 1 :]
        ),
    )
)
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    refusal = None
    try:
        found = chart_archive.read_archive(content).crds()
    except ShopCatError as error:
        refusal = str(error)
    assert (refusal and "archive can't be read" in refusal) or all(one["metadata"]["name"] for one in found)


@given(
    st.one_of(
        st.text(max_size=60),
        st.sampled_from(["entries: {}", "[]", f"entries: {{{CHART}: [{{version: 1}}]}}", "entries: 3"]),
    )
)
def test_any_index_is_read_or_refused(index: str) -> None:
    with pytest.raises(ShopCatError, match=r"shopcat:(chartMirror|charts)"):
        crds.locate(index, "https://charts.example.com", CHART, "1")


def test_a_repository_that_is_not_there_is_one_message(server: Server) -> None:
    with pytest.raises(ShopCatError, match=r"index\.yaml answered 404; check shopcat:chartMirror"):
        server.bring_up_to("3.5.0")


def test_a_definition_that_the_api_refuses_stops_before_the_release(server: Server) -> None:
    server.publish("3.5.0", archive(FILES))
    server.refuse = "ingressclassparams"
    with pytest.raises(KubernetesUnreachableError, match=r"answered 422 to PATCH .*storedVersions holds v1alpha1"):
        server.bring_up_to("3.5.0")


def test_a_definition_that_is_never_served_is_named(server: Server) -> None:
    server.publish("3.5.0", archive(FILES))
    server.established = False
    with pytest.raises(ShopCatError, match=r"doesn't serve targetgroupbindings.*kubectl describe crd"):
        server.bring_up_to("3.5.0")


def test_urls_of_an_index_may_be_whole_or_relative() -> None:
    for url, expected in (
        ("x-1.tgz", "https://a.example/charts/x-1.tgz"),
        ("https://b.example/x.tgz", "https://b.example/x.tgz"),
    ):
        index = yaml.safe_dump({"entries": {"x": [{"version": "v1.0.0", "urls": [url]}]}})
        assert crds.locate(index, "https://a.example/charts", "x", "1.0.0") == (expected, "")
