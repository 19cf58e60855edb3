"""Which chart an add-on may go over to, and that nothing is fetched for one that stays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra import settings
from infra.clients.kubernetes import KubernetesClient
from infra.errors import KubernetesUnreachableError, PreflightError
from infra.foundation import chart_upgrade, crds
from infra.foundation.chart_upgrade import definition_refusals, refuse_unfit_charts, running_version
from tests.unit.test_settings import committed

VERSIONS = st.lists(st.sampled_from(["v1alpha1", "v1beta1", "v1", "v2"]), unique=True, max_size=4)
NAMES = ("a.example.com", "b.example.com")


def definition(name: str, versions: Mapping[str, bool]) -> dict[str, Any]:
    spec = {"versions": [{"name": version, "served": served} for version, served in versions.items()]}
    return {"kind": "CustomResourceDefinition", "metadata": {"name": name}, "spec": spec}


@given(
    st.dictionaries(st.sampled_from(NAMES), st.dictionaries(st.sampled_from(["v1beta1", "v1", "v2"]), st.booleans())),
    st.dictionaries(st.sampled_from(NAMES), VERSIONS),
    st.dictionaries(st.sampled_from(NAMES), st.sampled_from(["v1beta1", "v1"])),
)
def test_a_chart_must_keep_what_is_stored_and_serve_what_is_written(
    offered: dict[str, dict[str, bool]], stored: dict[str, list[str]], used: dict[str, str]
) -> None:
    lines = definition_refusals([definition(name, each) for name, each in offered.items()], stored, used)
    lost = {name for name in offered if not set(stored.get(name, [])) <= set(offered[name])}
    unserved = {name for name in offered if name in used and not offered[name].get(used[name])}
    assert {line.split()[0] for line in lines if "stored" in line} == lost
    assert {line.split()[0] for line in lines if "served" in line} == unserved
    assert len(lines) == len(lost) + len(unserved)


@pytest.mark.parametrize(
    ("label", "version"),
    [
        ("external-secrets-0.20.4", "0.20.4"),
        ("external-secrets-1.0.0_build.1", "1.0.0+build.1"),
        ("external-secrets", ""),
        ("another-0.20.4", ""),
    ],
)
def test_the_version_that_runs_is_the_charts_own_label(label: str, version: str) -> None:
    assert running_version({"metadata": {"labels": {"helm.sh/chart": label}}}, "external-secrets") == version
    assert running_version({"metadata": {}}, "external-secrets") == ""


class Cluster:
    """Deployments by chart version; definitions with a stored version."""

    def __init__(self, versions: Mapping[str, str], *, error: bool = False) -> None:
        self.versions, self.error = versions, error

    def deployment(self, _: str, name: str) -> dict[str, Any] | None:
        if self.error:
            raise KubernetesUnreachableError("no answer")
        version = self.versions.get(name)
        return {"metadata": {"labels": {"helm.sh/chart": f"{name}-{version}"}}} if version else None

    def get(self, path: str) -> dict[str, Any] | None:
        return (
            {"status": {"storedVersions": ["v1beta1"]}} if path.endswith("targetgroupbindings.elbv2.k8s.aws") else None
        )


RUNNING = {"aws-load-balancer-controller": "3.5.0", "external-secrets": "0.20.4"}


def refuse(cluster: Cluster, **changes: Any) -> None:
    refuse_unfit_charts(lambda: cast("KubernetesClient", cluster), settings.read_settings({**committed(), **changes}))


def charts(**versions: str) -> dict[str, Any]:
    return {"charts": {**committed()["charts"], **versions}}


def test_nothing_is_fetched_for_charts_that_stay_or_do_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crds, "fetch_crds", lambda *_: pytest.fail("fetched"))
    refuse(Cluster(RUNNING))
    refuse(Cluster(RUNNING), **charts(externalSecrets="v0.20.4"))
    refuse(Cluster({}), **charts(externalSecrets="9.9.9"))
    refuse(Cluster(RUNNING, error=True), **charts(externalSecrets="9.9.9"))


def test_another_version_is_fetched_and_its_definitions_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []
    found = [definition("targetgroupbindings.elbv2.k8s.aws", {"v1": True})]
    monkeypatch.setattr(crds, "fetch_crds", lambda *arguments: asked.append(arguments) or b"")
    monkeypatch.setattr(chart_upgrade.crds, "read_crds", lambda _: found)
    with pytest.raises(PreflightError) as raised:
        refuse(Cluster(RUNNING), **charts(loadBalancerController="4.0.0"))
    assert [each[1:3] for each in asked] == [("aws-load-balancer-controller", "4.0.0")]
    message = str(raised.value)
    assert message.startswith("shopcat:charts.loadBalancerController is 4.0.0, and 3.5.0 runs: ")
    assert "has no v1beta1 any more, in which objects are stored" in message
    assert "is not served as v1beta1, which this program writes" in message
    found[:] = [definition("targetgroupbindings.elbv2.k8s.aws", {"v1beta1": True, "v1": True})]
    refuse(Cluster(RUNNING), **charts(loadBalancerController="4.0.0"))
