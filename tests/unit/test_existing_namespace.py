"""Pods that ran before the takeover can start again until they are gone."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.errors import ShopCatError
from infra.foundation.existing_namespace import foreign_images, refuse_shut_out
from infra.names import POD_SECURITY, POD_SECURITY_LABEL
from infra.release.manifests import ingress_policy

OLD = "registry.example/shopcat:latest"


def pod(image: str, *, ours: str = "", phase: str = "Running") -> dict[str, Any]:
    labels = {ours: "blue"} if ours else {"app": "shopcat"}
    return {"metadata": {"labels": labels}, "spec": {"containers": [{"image": image}]}, "status": {"phase": phase}}


class Cluster:
    def __init__(self, pods: list[dict[str, Any]], labels: dict[str, str] | None = None) -> None:
        self._pods, self._labels = pods, labels

    def get(self, _: str) -> Any:
        return None if self._labels is None else {"metadata": {"labels": self._labels}}

    def pods(self, *_: Any) -> list[dict[str, Any]]:
        return self._pods


IMAGES = st.sampled_from([OLD, "registry.example/sidecar:1", "registry.example/shopcat@sha256:" + "0" * 64])
PODS = st.builds(
    pod,
    IMAGES,
    ours=st.sampled_from(["", "shopcat/colour", "shopcat/release"]),
    phase=st.sampled_from(["Running", "Pending", "Succeeded", "Failed"]),
)


LABELS: st.SearchStrategy[dict[str, str] | None] = st.sampled_from(
    [None, {}, {POD_SECURITY_LABEL: "baseline"}, {POD_SECURITY_LABEL: POD_SECURITY}]
)


@given(pods=st.lists(PODS, max_size=6), named=st.lists(IMAGES, unique=True), labels=LABELS)
def test_an_update_goes_on_only_if_every_pod_may_start_again(
    pods: list[dict[str, Any]], named: list[str], labels: dict[str, str] | None
) -> None:
    cluster: Any = Cluster(pods, labels)
    stay = {
        each["spec"]["containers"][0]["image"]
        for each in pods
        if "app" in each["metadata"]["labels"] and each["status"]["phase"] in ("Running", "Pending")
    }
    if labels is None or labels.get(POD_SECURITY_LABEL) == POD_SECURITY or stay <= set(named):
        refuse_shut_out(cluster, named)
        return
    with pytest.raises(ShopCatError, match=r"shopcat:cluster\.existing\.oldImages") as refused:
        refuse_shut_out(cluster, named)
    assert all((image in str(refused.value)) is (image not in named) for image in stay)


def test_an_init_container_counts() -> None:
    old = pod(OLD)
    old["spec"]["initContainers"] = [{"image": "registry.example/wait:1"}]
    assert foreign_images([old]) == [OLD, "registry.example/wait:1"]


@pytest.mark.parametrize("is_shared", [True, False])
def test_the_network_policy_leaves_other_programs_pods_alone(*, is_shared: bool) -> None:
    selector = ingress_policy(["10.0.0.0/24"], is_shared=is_shared)["podSelector"]
    assert selector == ({"matchExpressions": [{"key": "shopcat/colour", "operator": "Exists"}]} if is_shared else {})
