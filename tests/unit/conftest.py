"""Fixtures that several files of unit tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from moto import mock_aws

from tests.unit.traffic_world import TrafficWorld


@pytest.fixture
def mocked_aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty account at moto, with credentials for it."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        yield


@pytest.fixture(scope="module")
def whole() -> Iterator[TrafficWorld]:
    """Two load balancers and a zone at moto, for all tests of a file: making them takes longer than a test."""
    with mock_aws(), pytest.MonkeyPatch.context() as patch:
        yield TrafficWorld(patch)


@pytest.fixture
def world(whole: TrafficWorld) -> TrafficWorld:
    """The same with one simple record, which leads to the old load balancer."""
    whole.reset()
    whole.put(whole.alias())
    return whole
