"""Leftovers of a preview, and GitHub's answers that decide which images go."""

from typing import Any

import pytest

from infra.errors import ShopCatError
from pipeline.github import Github as Client
from twin.loadbalancer import hostnames
from twin.scenarios import github, leftovers


@pytest.mark.parametrize(
    "name",
    [
        "pr-7",
        "shopcat-pr-7",
        "pr-7.preview.shopcat.localhost",
        "shopcat-preview/pr-7/database",
        "Pulumi.pr-7.yaml",
        "Pod pr-7/shopcat-6d9f",
    ],
)
def test_a_name_that_holds_the_previews_is_its(name: str) -> None:
    assert leftovers.concerns(name, 7)
    assert leftovers.concerns(name, None)
    assert not leftovers.concerns(name, 71)


@pytest.mark.parametrize("name", ["pr-71", "xpr-7", "pr-07", "shopcat-preview", "pr-", "*.preview.shopcat.localhost"])
def test_another_name_is_not(name: str) -> None:
    assert not leftovers.concerns(name, 7)


def test_objects_in_its_namespace_or_with_its_name_are_its() -> None:
    def of(kind: str, name: str, namespace: str | None = None) -> dict[str, Any]:
        return {"kind": kind, "metadata": {"name": name, **({"namespace": namespace} if namespace else {})}}

    items = [
        of("Pod", "shopcat-1", "pr-7"),
        of("Pod", "shopcat-1", "pr-8"),
        of("Pod", "shopcat-blue-1", "shopcat"),
        of("Namespace", "pr-7"),
        of("ClusterRole", "shopcat-preview"),
    ]
    assert leftovers.of_objects(items, 7) == ["Namespace pr-7", "Pod pr-7/shopcat-1"]
    assert leftovers.of_objects(items, None) == ["Namespace pr-7", "Pod pr-7/shopcat-1", "Pod pr-8/shopcat-1"]


def test_names_in_the_hosts_file_are_those_of_the_marked_line() -> None:
    text = "127.0.0.1 localhost\n127.0.0.2 shop pr-7.preview.shop # shopcat twin x\n"
    assert hostnames.marked(text, "# shopcat twin x") == ["shop", "pr-7.preview.shop"]


def test_the_pipeline_finds_its_pull_requests_and_comments_as_on_github() -> None:
    with github.serve() as hub:
        client = Client.from_environment(hub.environment)
        assert client is not None
        for sha in ("a", "b"):
            hub.push(7, sha)
        hub.push(8, "c")
        assert [one["sha"] for one in client.list_items("/pulls/7/commits")] == ["a", "b"]
        assert [(one["number"], one["head"]["sha"]) for one in client.list_items("/pulls?state=open")] == [
            (7, "b"),
            (8, "c"),
        ]
        hub.close(7)
        assert [one["number"] for one in client.list_items("/pulls?state=open")] == [8]
        client.write_comment(7, "<!-- x -->", "first")
        client.write_comment(8, "<!-- x -->", "other")
        client.write_comment(7, "<!-- x -->", "second")
        assert hub.comments(7) == ["<!-- x -->\nsecond"]
        with pytest.raises(ShopCatError):
            client.call("GET", "/actions/runs")
