"""Which version of Kubernetes a cluster may get next."""

from __future__ import annotations

from typing import Any, cast

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from infra.clients.aws import AwsClients
from infra.errors import AwsError, PreflightError
from infra.foundation.upgrade import Insight, refuse_unfit_version, version_refusal

MINORS = st.integers(20, 60)
INSIGHTS = st.lists(
    st.builds(Insight, st.just("a check"), st.sampled_from(["PASSING", "WARNING", "ERROR", "UNKNOWN"]), st.just("so"))
)


@given(MINORS, MINORS, INSIGHTS)
def test_a_cluster_goes_up_one_step_at_a_time_and_only_if_it_is_ready(
    live: int, wanted: int, insights: list[Insight]
) -> None:
    refused = version_refusal(f"1.{live}", f"1.{wanted}", insights)
    failing = any(insight.status == "ERROR" for insight in insights)
    assert bool(refused) == (wanted not in (live, live + 1) or (wanted == live + 1 and failing))


class Eks:
    """EKS with a cluster of a version; counts what it is asked."""

    def __init__(self, version: str, insights: list[dict[str, Any]], error: str = "") -> None:
        self.version, self.insights, self.error = version, insights, error
        self.asked: list[str] = []

    def describe_cluster(self, name: str) -> dict[str, Any]:
        self.asked.append("cluster")
        if self.error:
            raise ClientError({"Error": {"Code": self.error, "Message": name}}, "DescribeCluster")
        return {"cluster": {"version": self.version}}

    def get_paginator(self, operation: str) -> Eks:
        self.asked.append(operation)
        return self

    def paginate(self, **arguments: Any) -> list[dict[str, Any]]:
        assert arguments["filter"]["categories"] == ["UPGRADE_READINESS"]
        return [{"insights": self.insights}]


def refuse(eks: Eks, wanted: str) -> None:
    clients = cast("AwsClients", type("Clients", (), {"get": lambda _, __: eks, "endpoint_url": None})())
    refuse_unfit_version(clients, "shopcat", wanted)


def test_the_same_version_asks_nothing_more() -> None:
    eks = Eks("1.35", [])
    refuse(eks, "1.35")
    assert eks.asked == ["cluster"]


def test_what_eks_finds_is_told_before_anything_moves() -> None:
    status = {"status": "ERROR", "reason": "policy/v1beta1 was called"}
    found = {"name": "Deprecated APIs removed in Kubernetes v1.36", "insightStatus": status}
    with pytest.raises(PreflightError, match=r"kubernetesVersion is 1\.36: .*policy/v1beta1 was called"):
        refuse(Eks("1.35", [found]), "1.36")
    refuse(Eks("1.35", [{**found, "insightStatus": {"status": "PASSING"}}]), "1.36")


def test_a_cluster_that_is_not_there_takes_any_version() -> None:
    refuse(Eks("", [], "ResourceNotFoundException"), "1.36")
    with pytest.raises(AwsError):
        refuse(Eks("", [], "AccessDeniedException"), "1.36")
