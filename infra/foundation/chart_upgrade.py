"""A change of an add-on's chart: whether it can be had, whether the cluster takes it, and whether Helm does.

An update looks before anything of it moves, and only at a chart that it changes: one of another version, with other values, or
whose last change failed, compared with what Helm has recorded of it. So a release needs no chart's mirror; a wrong `chartDigests`
of a chart that stays is found when that chart changes, and installs nothing until then. The add-on's own hook compares the
archive again right before Helm is run (infra/foundation/addons.py).

A chart is accepted only if it has every definition that this program uses, in the way in which Helm keeps the cluster's, and
each serves the version that is written and has those that objects are stored in. An older version is held to the same: it is the
way back from a bad one, though publishers test upgrades alone, so the plan warns of it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from infra.errors import KubernetesError, PreflightError
from infra.foundation import crds
from infra.foundation.addon_isolation import CONTROLLER, CONTROLLER_NAMESPACE, OPERATOR
from infra.foundation.addons import controller_values, external_secrets_values
from infra.foundation.chart_archive import ChartArchive, Manifest, read_archive
from infra.foundation.helm_history import HelmHistory, read_history
from infra.foundation.kubernetes_range import takes_kubernetes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from infra.clients.kubernetes import KubernetesClient
    from infra.settings import Settings

USED_VERSIONS: Mapping[str, Mapping[str, str]] = {
    CONTROLLER: {"targetgroupbindings.elbv2.k8s.aws": "v1beta1"},
    OPERATOR: {"externalsecrets.external-secrets.io": "v1", "secretstores.external-secrets.io": "v1"},
}
"""Chart → definition → the version of it that this program writes."""
_ADDONS = (
    (CONTROLLER, CONTROLLER_NAMESPACE, "load_balancer_controller", "loadBalancerController"),
    (OPERATOR, OPERATOR, "external_secrets", "externalSecrets"),
)
_RELEASE_NAME = "meta.helm.sh/release-name"
"""Annotation of what Helm makes of a template (github.com/helm/helm v3, pkg/action/validate.go)."""


def given_values(settings: Settings, chart: str) -> dict[str, Any]:
    """Return the values that this program gives a chart, but for those of the network."""
    given = external_secrets_values(settings) if chart == OPERATOR else controller_values(settings, None, "")
    return _without_network(given)


def is_changed(history: HelmHistory, version: str, values: Mapping[str, Any]) -> bool:
    """Check that an update changes a release: Helm's record has another version or other values, or its last change failed."""
    base = history.base
    if base is None or history.has_failed:
        return True
    release = base.release()
    return _chart_version(release) != version or _without_network(release.get("config") or {}) != values


def definition_refusals(
    chart: str,
    crds_folder: Sequence[Manifest],
    templated: Sequence[Manifest],
    standing: Mapping[str, Manifest],
) -> list[str]:
    """Return why a cluster can't go over to a chart's definitions, one line each.

    Args:
        chart: its name.
        crds_folder: the chart's definitions that Helm installs and leaves alone.
        templated: those that Helm keeps up, and deletes once they are not rendered any more.
        standing: the cluster's definitions that the chart has or this program uses, by name.
    """
    kept_by_helm = {
        name
        for name, each in standing.items()
        if (each["metadata"].get("annotations") or {}).get(_RELEASE_NAME) == chart
    }
    lines = []
    rendered = {each["metadata"]["name"] for each in templated}
    offered = {each["metadata"]["name"]: each for each in (*crds_folder, *templated)}
    for name, definition in offered.items():
        versions = {each["name"]: each.get("served") is True for each in definition["spec"]["versions"]}
        status = (standing.get(name) or {}).get("status") or {}
        if lost := sorted(set(status.get("storedVersions") or ()) - set(versions)):
            lines.append(f"{name} has no {', '.join(lost)} any more, in which objects are stored")
        used = USED_VERSIONS[chart].get(name)
        if used and not versions.get(used):
            lines.append(f"{name} is not served as {used}, which this program writes")
        if name in rendered and name in standing and name not in kept_by_helm:
            lines.append(f"{name} is a template of it, and Helm takes over no definition that it did not make of one")
    for name in USED_VERSIONS[chart]:
        if name not in offered:
            lines.append(
                f"{name}, which this program uses, is not among its definitions, or under a condition that is not known "
                "to hold (infra/foundation/chart_archive.py)"
            )
        elif name in kept_by_helm - rendered:
            lines.append(f"{name} is no template of it any more, so Helm would delete it with every object of it")
    return lines


def refuse_unfit_charts(kubernetes: Callable[[], KubernetesClient], settings: Settings) -> list[str]:
    """Check each add-on's chart that this update changes; an add-on that was never installed takes any.

    Nothing is fetched for a chart that stays. A cluster that is not there or does not answer is no reason: the update says so
    where it needs it.

    Returns:
        Sentences for the plan.

    Raises:
        ShopCatError: the chart can't be had, is not the one of `chartDigests`, or is one that the cluster or Helm refuses.
    """
    notes = []
    for chart, namespace, field, setting in _ADDONS:
        values, wanted = given_values(settings, chart), getattr(settings.charts, field)
        try:
            history = read_history(kubernetes(), namespace, chart)
        except (KubernetesError, PreflightError):  # the second: no such cluster yet
            continue
        if not history.revisions:
            continue
        obstacle = history.obstacle()
        if not is_changed(history, wanted, values):
            notes += [f"{obstacle}. This update does not change it"] if obstacle else []
            continue
        if obstacle:
            raise PreflightError(f"{obstacle}. Nothing was changed")
        mirror, digest = (getattr(each, field) for each in (settings.chart_mirror, settings.chart_digests))
        archive = read_archive(crds.fetch_archive(mirror, chart, wanted, digest))
        present = _chart_version(history.base.release()) if history.base else ""
        if reasons := _chart_refusals(kubernetes(), archive, chart, values, settings):
            raise PreflightError(
                f"shopcat:charts.{setting} is {wanted}, and {present} runs: {'; '.join(reasons)}. Nothing was changed; set it to "
                "another version, and read the publisher's notes on what lies between"
            )
        notes += _notes(archive, setting, (present, wanted), getattr(settings.images, field))
    return notes


def _without_network(values: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what is not known before the network is declared, and is never another one for a cluster that is there."""
    return {key: each for key, each in values.items() if key not in ("region", "vpcId")}


def _chart_version(release: Mapping[str, Any]) -> str:
    return str(release["chart"]["metadata"]["version"]).removeprefix("v")


def _chart_refusals(
    kubernetes: KubernetesClient, archive: ChartArchive, chart: str, values: Mapping[str, Any], settings: Settings
) -> list[str]:
    folder, templated = archive.crds(), archive.templated(values)
    names = {*USED_VERSIONS[chart], *(each["metadata"]["name"] for each in (*folder, *templated))}
    reasons = definition_refusals(chart, folder, templated, crds.read_definitions(kubernetes, sorted(names)))
    constraint, minor = str(archive.metadata.get("kubeVersion") or ""), settings.cluster.kubernetes_version
    if settings.cluster.existing is None and constraint and not takes_kubernetes(constraint, minor):
        reasons.append(f"it wants Kubernetes {constraint}, and shopcat:cluster.kubernetesVersion is {minor}")
    return reasons


def _notes(archive: ChartArchive, setting: str, versions: tuple[str, str], image: str) -> list[str]:
    notes = []
    present, wanted = (tuple(int(part) for part in re.findall(r"\d+", each)[:3]) for each in versions)
    if wanted < present:
        notes.append(
            f"shopcat:charts.{setting} is {versions[1]}, and {versions[0]} runs: its definitions fit, but publishers test no "
            "way back; look at the add-on's log afterwards"
        )
    made_for, tag = str(archive.metadata.get("appVersion") or ""), image.partition("@")[0].rpartition(":")[2]
    if made_for and tag.removeprefix("v") != made_for.removeprefix("v"):
        notes.append(
            f"shopcat:images.{setting} is {tag}, and chart {versions[1]} is made for {made_for}: set it to that image, by "
            "its digest"
        )
    return notes
