"""Updates of versions as the EKS stand-in answers them; what they do to the machines is played."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

from twin import config
from twin.aws.eks import EksStandIn
from twin.errors import TwinError


class Machines:
    def __init__(self) -> None:
        self.done: list[str] = []
        self.may_go_on = threading.Event()
        self.error = ""

    def _do(self, what: str) -> None:
        assert self.may_go_on.wait(5)
        if self.error:
            raise TwinError(self.error)
        self.done.append(what)

    def change_addon(self, name: str, *, present: bool, version: str) -> None:
        self._do(f"{name} {version}" if present else f"no {name}")

    def replace_nodes(self) -> None:
        self._do("nodes")

    def restart_control_plane(self) -> None:
        self._do("control plane")

    def deprecated_apis(self, removed_in: str) -> list[str]:
        return ["policy/v1beta1 podsecuritypolicies"] if removed_in == "1.36" else []


def stand_in(tmp_path: Path) -> tuple[EksStandIn, Machines]:
    machines = Machines()
    eks = EksStandIn(config.Twin("x", 1, tmp_path, tmp_path, True), machines)
    eks.created("shop", {}, "arn:aws:iam::123456789012:role/x", vpc_id="vpc-1", security_group_id="sg-1")
    return eks, machines


def post(eks: EksStandIn, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    answer = eks.answer("POST", f"/clusters/shop/{path}", body)
    assert answer is not None
    return answer


def ended(eks: EksStandIn, identifier: str) -> dict[str, Any]:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        answer = eks.answer("GET", f"/clusters/shop/updates/{identifier}", {})
        assert answer is not None
        if answer[1]["update"]["status"] != "InProgress":
            return answer[1]["update"]
        time.sleep(0.01)
    raise AssertionError("the update does not end")


def node_group(eks: EksStandIn) -> dict[str, Any]:
    description = {
        "clusterName": "shop",
        "nodegroupName": "nodes",
        "status": "ACTIVE",
        "releaseVersion": "1",
        "version": "1.35",
    }
    eks.complete_node_group(description)
    return description


def test_a_node_group_has_its_new_release_once_the_nodes_are_replaced(tmp_path: Path) -> None:
    eks, machines = stand_in(tmp_path)
    code, answer = post(eks, "node-groups/nodes/update-version", {"releaseVersion": "2"})
    assert (code, answer["update"]["status"]) == (200, "InProgress")
    assert (node_group(eks)["status"], node_group(eks)["releaseVersion"]) == ("UPDATING", "1")
    assert post(eks, "node-groups/nodes/update-version", {"releaseVersion": "3"})[0] == 409
    machines.may_go_on.set()
    assert ended(eks, answer["update"]["id"])["status"] == "Successful"
    assert machines.done == ["nodes"]
    assert (node_group(eks)["status"], node_group(eks)["releaseVersion"]) == ("ACTIVE", "2")


def test_an_eviction_that_fails_is_the_update_s_error_and_changes_no_version(tmp_path: Path) -> None:
    eks, machines = stand_in(tmp_path)
    machines.error = "PodEvictionFailure: node1 still has shopcat/x"
    machines.may_go_on.set()
    _, answer = post(eks, "node-groups/nodes/update-version", {"version": "1.36"})
    update = ended(eks, answer["update"]["id"])
    assert update["status"] == "Failed"
    assert update["errors"][0]["errorCode"] == "PodEvictionFailure"
    assert (node_group(eks)["status"], node_group(eks)["version"]) == ("ACTIVE", "1.35")


def test_a_cluster_has_its_new_version_once_the_control_plane_is_restarted(tmp_path: Path) -> None:
    eks, machines = stand_in(tmp_path)
    machines.may_go_on.set()
    assert post(eks, "updates", {"version": "latest"})[0] == 400
    _, answer = post(eks, "updates", {"version": "1.36"})
    assert ended(eks, answer["update"]["id"])["status"] == "Successful"
    assert machines.done == ["control plane"]
    assert eks.clusters["shop"].version == "1.36"


def test_an_api_in_use_that_a_version_removes_is_an_error_of_that_version_alone(tmp_path: Path) -> None:
    eks, _ = stand_in(tmp_path)
    wanted = {"categories": ["UPGRADE_READINESS"], "kubernetesVersions": ["1.36", "1.37"]}
    _, answer = post(eks, "insights", {"filter": wanted})
    assert [insight["insightStatus"]["status"] for insight in answer["insights"]] == ["ERROR", "PASSING"]
    assert "policy/v1beta1" in answer["insights"][0]["insightStatus"]["reason"]
    assert post(eks, "insights", {"filter": {}})[0] == 400


def test_another_version_of_an_add_on_rolls_its_pods_and_the_same_one_does_not(tmp_path: Path) -> None:
    eks, machines = stand_in(tmp_path)
    machines.may_go_on.set()

    def settled() -> str:
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            answer = eks.answer("GET", "/clusters/shop/addons/coredns", {})
            assert answer is not None
            if answer[1]["addon"]["status"] == "ACTIVE":
                return str(answer[1]["addon"]["addonVersion"])
            time.sleep(0.01)
        raise AssertionError("the add-on does not settle")

    post(eks, "addons", {"addonName": "coredns", "addonVersion": "v1"})
    assert settled() == "v1"
    for version in ("v2", "v2"):
        post(eks, "addons/coredns/update", {"addonVersion": version})
        assert settled() == "v2"
    assert machines.done == ["coredns ", "coredns v2"]
