"""Which chart an add-on may go over to, and that nothing is fetched for one that stays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from infra import settings
from infra.clients.kubernetes import KubernetesClient
from infra.errors import KubernetesUnreachableError, PreflightError, ShopCatError
from infra.foundation import chart_upgrade, crds
from infra.foundation.addon_isolation import CONTROLLER, OPERATOR
from infra.foundation.chart_upgrade import given_values, refuse_unfit_charts
from tests.unit.test_crds import archive
from tests.unit.test_helm_history import helm_secrets
from tests.unit.test_settings import committed

RUNNING = {CONTROLLER: "3.5.0", OPERATOR: "0.20.4"}
EXTERNAL, STORE, OTHER = (f"{name}.external-secrets.io" for name in ("externalsecrets", "secretstores", "pushsecrets"))


def definition(name: str, versions: Mapping[str, bool]) -> dict[str, Any]:
    spec = {"versions": [{"name": version, "served": served} for version, served in versions.items()]}
    return {"kind": "CustomResourceDefinition", "metadata": {"name": name}, "spec": spec}


FIT = archive(
    {
        "Chart.yaml": "{appVersion: v0.20.4, kubeVersion: '>= 1.22.0-0'}",
        "crds/a.yaml": yaml.safe_dump(definition("targetgroupbindings.elbv2.k8s.aws", {"v1beta1": True})),
        "templates/crds/b.yaml": yaml.safe_dump_all([definition(name, {"v1": True}) for name in (EXTERNAL, STORE)]),
    }
)


@dataclass
class Cluster:
    """An API server: Helm's records of both add-ons, and definitions."""

    versions: Mapping[str, str] = field(default_factory=lambda: RUNNING)
    values: Mapping[str, Any] = field(default_factory=dict)
    """Values of a chart that differ from the settings'."""
    statuses: Sequence[str] = ("deployed",)
    definitions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    unread: Sequence[str] = ()

    def get(self, path: str, **query: str) -> Any:
        if "customresourcedefinitions" in path:
            return self.definitions.get(path.rpartition("/")[2])
        name = query["labelSelector"].split(",")[1].removeprefix("name=")
        if name in self.unread:
            raise KubernetesUnreachableError("403")
        if name not in self.versions:
            return {"items": []}
        config = {**given_values(settings.read_settings(committed()), name), "vpcId": "vpc-1", "region": "eu-central-1"}
        release = {
            "config": {**config, **self.values.get(name, {})},
            "chart": {"metadata": {"version": self.versions[name]}},
        }
        without = "superseded" if query["labelSelector"].endswith("!=superseded") else ""
        return helm_secrets(name, self.statuses, [release] * len(self.statuses), without)


def refuse(cluster: Cluster, **changes: Any) -> list[str]:
    return refuse_unfit_charts(
        lambda: cast("KubernetesClient", cluster), settings.read_settings({**committed(), **changes})
    )


def charts(**versions: str) -> dict[str, Any]:
    return {"charts": {**committed()["charts"], **versions}}


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    asked: list[tuple[Any, ...]] = []
    monkeypatch.setattr(crds, "fetch_archive", lambda *arguments: asked.append(arguments) or FIT)
    return asked


SWITCHES = {
    "": True,
    "if .Values.installCRDs": True,
    "if and (.Values.installCRDs) (.Values.crds.createOther)": True,
    "if not .Values.installCRDs": False,
    "if .Values.crds.install": False,  # a switch of another name
    "if .Values.crds.off": False,
    'if .Capabilities.APIVersions.Has "x"': False,  # not known here
    'if eq .Values.crds.mode "on"': True,
    "with .Values.crds.annotations": False,
}
VALUES = {"installCRDs": False, "crds": {"createOther": True, "off": False, "mode": "on", "annotations": {}}}


@dataclass(frozen=True)
class Offered:
    """A definition of a chart, and the cluster's."""

    place: str
    """`crds`, `templates` or empty: the chart has none."""
    switch: str
    versions: Mapping[str, tuple[bool, str]]
    """Version → whether it is served, and the switch it stands under (in a template)."""
    standing: str
    """`helm`, `other` or empty: who made the cluster's, if it has one."""
    stored: frozenset[str]

    def file(self, name: str) -> str:
        if self.place == "crds":
            return yaml.safe_dump(definition(name, {key: served for key, (served, _) in self.versions.items()}))
        lines = [
            "kind: CustomResourceDefinition",
            "metadata:",
            "  annotations:",
            "    {{- with .Values.crds.annotations }}",
            "    {{- toYaml . | nindent 4 }}",
            "    {{- end }}",
            "    inject: {{ .Release.Namespace }}/{{ .Release.Name }}-webhook",
            f"  name: {name}",
            "spec:",
            "  versions:" if self.versions else "  versions: []",
        ]
        for version, (served, switch) in self.versions.items():
            block = [f"    - name: {version}", f"      served: {str(served).lower()}"]
            lines += [f"{{{{- {switch} }}}}", *block, "{{- end }}"] if switch else block
        return "\n".join([f"{{{{- {self.switch} }}}}", *lines, "{{- end }}"] if self.switch else lines)

    @property
    def rendered(self) -> dict[str, bool] | None:
        """Oracle: version → served, as Helm makes it; None if it makes no such definition."""
        if self.place == "crds":
            return {key: served for key, (served, _) in self.versions.items()}
        if not self.place or not SWITCHES[self.switch]:
            return None
        return {key: served for key, (served, switch) in self.versions.items() if SWITCHES[switch]}

    def is_fit(self, used: str) -> bool:
        """Oracle."""
        if self.rendered is None:
            return not used
        keeps = not self.standing or self.stored <= set(self.rendered)
        is_taken = not (self.place == "templates" and self.standing == "other")
        is_kept = not (used and self.place == "crds" and self.standing == "helm")
        return keeps and is_taken and is_kept and (not used or self.rendered.get(used, False))


switches = st.sampled_from(["", "if .Values.installCRDs"]) | st.sampled_from(list(SWITCHES))
offers = st.builds(
    Offered,
    st.sampled_from(["templates", "templates", "crds", ""]),
    switches,
    st.dictionaries(st.sampled_from(["v1", "v1", "v1beta1", "v2"]), st.tuples(st.booleans(), switches), max_size=3),
    st.sampled_from(["helm", "other", ""]),
    st.frozensets(st.sampled_from(["v1", "v1beta1"]), max_size=2),
)
GOOD = Offered("templates", "if .Values.installCRDs", {"v1": (True, "")}, "helm", frozenset({"v1"}))


@given(offers | st.just(GOOD), offers | st.just(GOOD), offers | st.just(GOOD))
@example(GOOD, GOOD, replace(GOOD, place=""))
@example(replace(GOOD, versions={"v2": (True, "")}), replace(GOOD, place=""), replace(GOOD, place=""))
@example(GOOD, replace(GOOD, switch="if .Values.crds.install"), GOOD)
@example(GOOD, replace(GOOD, place="crds"), GOOD)
@example(GOOD, GOOD, replace(GOOD, versions={"v1": (True, "if .Values.crds.off")}, standing="other"))
def test_a_chart_is_accepted_exactly_if_it_makes_what_is_used_and_stored(
    external: Offered, store: Offered, other: Offered
) -> None:
    offered = {EXTERNAL: external, STORE: store, OTHER: other}
    files = {f"{each.place if each.place == 'crds' else 'templates/crds'}/{name}.yaml": each.file(name)
             for name, each in offered.items() if each.place}  # fmt: skip
    standing = {
        name: {
            "metadata": {"annotations": {"meta.helm.sh/release-name": OPERATOR if each.standing == "helm" else "x"}},
            "status": {"storedVersions": sorted(each.stored)},
        }
        for name, each in offered.items()
        if each.standing
    }
    is_fit = external.is_fit("v1") and store.is_fit("v1") and other.is_fit("")
    cluster = Cluster(definitions=standing)
    with pytest.MonkeyPatch.context() as patch:
        chart = archive({"Chart.yaml": "{}", "values.yaml": yaml.safe_dump(VALUES), **files})
        patch.setattr(crds, "fetch_archive", lambda *_: chart)
        if is_fit:
            refuse(cluster, **charts(externalSecrets="0.21.0"))
            return
        with pytest.raises(PreflightError, match=r"shopcat:charts\.externalSecrets is 0\.21\.0, and 0\.20\.4 runs: "):
            refuse(cluster, **charts(externalSecrets="0.21.0"))


@pytest.mark.parametrize("setting", ["loadBalancerController", "externalSecrets"])
def test_a_chart_without_any_definition_is_refused(monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    monkeypatch.setattr(crds, "fetch_archive", lambda *_: archive({"Chart.yaml": "name: x"}))
    with pytest.raises(PreflightError, match="which this program uses, is not among its definitions"):
        refuse(Cluster(), **charts(**{setting: "9.0.0"}))


def test_nothing_is_fetched_for_charts_that_stay_or_do_not_run(fetched: list[tuple[Any, ...]]) -> None:
    wrong = {**committed()["chartDigests"], "loadBalancerController": f"sha256:{'0' * 64}"}
    nowhere = dict.fromkeys(("loadBalancerController", "externalSecrets"), "https://nowhere.invalid")
    assert refuse(Cluster(), chartDigests=wrong, chartMirror=nowhere) == []
    assert refuse(Cluster(versions={**RUNNING, OPERATOR: "v0.20.4"})) == []
    assert refuse(Cluster(versions={}), **charts(externalSecrets="9.9.9")) == []
    assert refuse(Cluster(unread=[CONTROLLER, OPERATOR]), **charts(externalSecrets="9.9.9")) == []

    def no_cluster() -> Any:
        raise PreflightError("EKS cluster shopcat doesn't answer yet")

    assert refuse_unfit_charts(no_cluster, settings.read_settings(committed())) == []
    assert not fetched


@pytest.mark.parametrize(
    ("cluster", "changes", "names"),
    [
        (Cluster(), charts(externalSecrets="0.21.0"), [OPERATOR]),
        (Cluster(), charts(externalSecrets="0.21.0", loadBalancerController="3.6.0"), [CONTROLLER, OPERATOR]),
        (Cluster(values={OPERATOR: {"replicaCount": 2}}), {}, [OPERATOR]),
        (Cluster(), {"drain": {**committed()["drain"], "requeue": 7}}, [CONTROLLER]),
        (Cluster(statuses=["deployed", "failed"]), {}, [CONTROLLER, OPERATOR]),
        (Cluster(unread=[CONTROLLER]), charts(externalSecrets="0.21.0", loadBalancerController="3.6.0"), [OPERATOR]),
        (Cluster(unread=[OPERATOR]), charts(externalSecrets="0.21.0", loadBalancerController="3.6.0"), [CONTROLLER]),
    ],
)
def test_each_chart_that_changes_is_fetched(
    fetched: list[tuple[Any, ...]], cluster: Cluster, changes: dict[str, Any], names: list[str]
) -> None:
    refuse(cluster, **changes)
    assert [each[1] for each in fetched] == names


def test_a_chart_that_can_not_be_had_is_told_before_anything_moves_where_it_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def gone(*_: Any) -> bytes:
        raise ShopCatError("can't be reached")

    monkeypatch.setattr(crds, "fetch_archive", gone)
    images = committed()["images"]
    image = images["externalSecrets"].replace("v0.20.4", "v0.20.5")
    with pytest.raises(ShopCatError, match="can't be reached"):
        refuse(Cluster(), images={**images, "externalSecrets": image})


@pytest.mark.parametrize(
    "status", ["pending-install", "pending-upgrade", "pending-rollback", "uninstalling", "uninstalled"]
)
def test_a_change_that_was_cut_off_is_ended_before_the_next_one(fetched: list[tuple[Any, ...]], status: str) -> None:
    cluster = Cluster(statuses=["superseded", "deployed", status])
    with pytest.raises(PreflightError, match=rf"revision 3 is {status}: .*\(helm .*Nothing was changed"):
        refuse(cluster, **charts(externalSecrets="0.21.0"))
    notes = refuse(cluster)
    assert [OPERATOR in note for note in notes] == [False, True]
    assert all(f"revision 3 is {status}: " in note and "This update does not change it" in note for note in notes)
    assert not fetched


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        (charts(externalSecrets="0.20.5"), []),
        (charts(externalSecrets="0.1.0"), ["is 0.1.0, and 0.20.4 runs"]),
        (
            {"images": {**committed()["images"], "externalSecrets": "x/y:v0.20.3"}},
            ["shopcat:images.externalSecrets is v0.20.3, and chart 0.20.4 is made for v0.20.4"],
        ),
    ],
)
def test_an_older_chart_and_an_image_of_another_version_are_told(
    fetched: list[tuple[Any, ...]], changes: dict[str, Any], parts: list[str]
) -> None:
    notes = refuse(Cluster(), **changes)
    assert len(notes) == len(parts)
    assert all(part in note for part, note in zip(parts, notes, strict=True))
    assert fetched


def test_a_chart_for_another_kubernetes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    chart: Callable[[str], bytes] = lambda text: archive({"Chart.yaml": text})  # noqa: E731
    monkeypatch.setattr(crds, "fetch_archive", lambda *_: chart("kubeVersion: '>= 1.36.0-0'"))
    monkeypatch.setattr(chart_upgrade, "definition_refusals", lambda *_: [])
    with pytest.raises(PreflightError, match=r"wants Kubernetes >= 1\.36\.0-0, and .*kubernetesVersion is 1\.35"):
        refuse(Cluster(), **charts(externalSecrets="0.21.0"))
