"""Tokens, pod identity, registry rules and host names of the twin."""

import base64

import pytest

from twin.aws import authenticator, cli, eks, pod_identity
from twin.aws.registry import Repository, tag_refusal
from twin.build import image_layers
from twin.loadbalancer import hostnames


def test_a_token_of_the_aws_command_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATWIN")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    key, url = authenticator.read_token(cli.token("shopcat", "eu-central-1"))
    assert key == "AKIATWIN"
    assert url.startswith("https://sts.eu-central-1.amazonaws.com/?Action=GetCallerIdentity")


def encoded(url: str) -> str:
    return authenticator.PREFIX + base64.urlsafe_b64encode(url.encode()).decode()


@pytest.mark.parametrize(
    ("token", "why"),
    [
        ("abc", "no k8s-aws-v1 token"),
        (encoded("https://x/?Action=AssumeRole"), "GetCallerIdentity"),
        (encoded("https://x/?Action=GetCallerIdentity&X-Amz-SignedHeaders=host"), "x-k8s-aws-id"),
        (encoded("https://x/?Action=GetCallerIdentity&X-Amz-SignedHeaders=host;x-k8s-aws-id"), "credential scope"),
    ],
)
def test_other_tokens_are_refused(token: str, why: str) -> None:
    with pytest.raises(authenticator.AuthenticationError, match=why):
        authenticator.read_token(token)


def test_groups_of_access_entries() -> None:
    admin = {"policyArn": "arn:aws:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy"}
    entry = {"kubernetesGroups": ["previews"]}
    assert authenticator.groups_of(entry, []) == ["previews"]
    assert authenticator.groups_of(entry, [{**admin, "accessScope": {"type": "cluster"}}]) == [
        "previews",
        "system:masters",
    ]
    with pytest.raises(authenticator.AuthenticationError, match="not implemented"):
        authenticator.groups_of(entry, [{**admin, "accessScope": {"type": "namespace", "namespaces": ["a"]}}])


def test_a_session_is_a_user_of_its_own() -> None:
    assert authenticator.username("shopcat-preview:{{SessionName}}", "123") == "shopcat-preview:123"
    role = "arn:aws:iam::123456789012:role/some/path/deployer"
    assert eks.default_username(role) == "arn:aws:sts::123456789012:assumed-role/deployer/{{SessionName}}"
    assert eks.default_username("arn:aws:iam::1:user/me") == "arn:aws:iam::1:user/me"


def test_user_names_that_eks_refuses() -> None:
    assert eks.username_refusal("previews:{{SessionName}}", "STANDARD") is None
    assert "colon" in (eks.username_refusal("previews-{{SessionName}}", "STANDARD") or "")
    assert "system:" in (eks.username_refusal("system:masters", "STANDARD") or "")


def test_credentials_join_a_pods_own_environment() -> None:
    pod = {"spec": {"containers": [{"name": "a"}, {"name": "b", "env": [{"name": "AWS_REGION", "value": "x"}]}]}}
    operations = pod_identity.patch(pod, {"AWS_REGION": "r", "AWS_ACCESS_KEY_ID": "k"})
    assert operations == [
        {
            "op": "add",
            "path": "/spec/containers/0/env",
            "value": [{"name": "AWS_REGION", "value": "r"}, {"name": "AWS_ACCESS_KEY_ID", "value": "k"}],
        },
        {"op": "add", "path": "/spec/containers/1/env/-", "value": {"name": "AWS_ACCESS_KEY_ID", "value": "k"}},
    ]


def test_an_immutable_tag_takes_no_second_digest() -> None:
    frozen, free = Repository("shopcat", "IMMUTABLE"), Repository("shopcat", "MUTABLE")
    refusal = tag_refusal(frozen, "v1", known_digest="sha256:a", digest="sha256:b")
    assert refusal is not None
    assert refusal.code == "TAG_INVALID"
    assert "'v1' already exists in the 'shopcat' repository" in refusal.message
    assert tag_refusal(frozen, "v1", known_digest="sha256:a", digest="sha256:a") is None
    assert tag_refusal(frozen, "v1", known_digest=None, digest="sha256:a") is None
    assert tag_refusal(free, "v1", known_digest="sha256:a", digest="sha256:b") is None


@pytest.mark.parametrize(
    ("image", "parts"),
    [
        ("registry.k8s.io/pause:3.10", ("pause", "3.10")),
        ("library/postgres:16", ("library/postgres", "16")),
        ("eks/coredns:v1", ("eks/coredns", "v1")),
    ],
)
def test_images_keep_their_path(image: str, parts: tuple[str, str]) -> None:
    assert image_layers.split_reference(image) == parts


def test_the_hosts_file_gets_one_marked_line_and_loses_it_again() -> None:
    before = "127.0.0.1 localhost\n"
    once = hostnames.changed(before, "# shopcat twin main", "127.0.0.1 shopcat.localhost")
    assert once == before + "127.0.0.1 shopcat.localhost # shopcat twin main\n"
    assert hostnames.changed(once, "# shopcat twin main", "127.0.0.1 shopcat.localhost") == once
    assert hostnames.changed(once, "# shopcat twin main", None) == before
    assert hostnames.marked(once, "# shopcat twin main") == ["shopcat.localhost"]
    assert hostnames.marked(before, "# shopcat twin main") == []
