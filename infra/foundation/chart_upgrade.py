"""Another version of an add-on's chart: whether it can be had, and whether the cluster takes its definitions.

An update looks before anything of it moves. The add-on's chart itself compares the archive again right before Helm is run
(infra/foundation/addons.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from infra.errors import KubernetesError, PreflightError
from infra.foundation import crds
from infra.foundation.addon_isolation import CONTROLLER, CONTROLLER_NAMESPACE, OPERATOR

if TYPE_CHECKING:
    from infra.clients.kubernetes import KubernetesClient
    from infra.settings import Settings

USED_VERSIONS = {
    "targetgroupbindings.elbv2.k8s.aws": "v1beta1",
    "externalsecrets.external-secrets.io": "v1",
    "secretstores.external-secrets.io": "v1",
}
"""Definition → the version of it that this program writes."""
_ADDONS = (
    (CONTROLLER, CONTROLLER_NAMESPACE, "load_balancer_controller", "loadBalancerController"),
    (OPERATOR, OPERATOR, "external_secrets", "externalSecrets"),
)


def running_version(deployment: Mapping[str, Any], chart: str) -> str:
    """Return the version of the chart that a Deployment was made by, as Helm's charts label it; empty without that label."""
    label = str((deployment["metadata"].get("labels") or {}).get("helm.sh/chart", ""))
    return label.removeprefix(f"{chart}-").replace("_", "+") if label.startswith(f"{chart}-") else ""


def definition_refusals(
    definitions: Sequence[Mapping[str, Any]], stored: Mapping[str, Sequence[str]], used: Mapping[str, str]
) -> list[str]:
    """Return why a cluster can't go over to a chart's definitions, one line each.

    Args:
        definitions: of the chart.
        stored: for each definition in the cluster the versions that objects may be stored in (status.storedVersions). The API
            server refuses a definition that lacks one of them.
        used: for each definition the version that this program writes.
    """
    lines = []
    for definition in definitions:
        name, versions = definition["metadata"]["name"], definition["spec"]["versions"]
        if lost := sorted(set(stored.get(name, ())) - {version["name"] for version in versions}):
            lines.append(f"{name} has no {', '.join(lost)} any more, in which objects are stored")
        served = {version["name"] for version in versions if version.get("served")}
        if name in used and used[name] not in served:
            lines.append(f"{name} is not served as {used[name]}, which this program writes")
    return lines


def refuse_unfit_charts(kubernetes: Callable[[], KubernetesClient], settings: Settings) -> None:
    """Check each add-on's chart whose version differs from the one that runs; an add-on that doesn't run takes any.

    Nothing is fetched for a chart that stays. A cluster that does not answer is no reason: the update says so where it needs it.

    Raises:
        ShopCatError: the chart can't be had, is not the one of `chartDigests`, or has definitions that the cluster refuses.
    """
    for chart, namespace, field, setting in _ADDONS:
        wanted = getattr(settings.charts, field)
        try:
            deployment = kubernetes().deployment(namespace, chart)
            present = running_version(deployment, chart) if deployment else ""
        except KubernetesError:
            return
        if present.removeprefix("v") in {"", wanted.removeprefix("v")}:
            continue
        mirror, digest = (getattr(each, field) for each in (settings.chart_mirror, settings.chart_digests))
        definitions = crds.read_crds(crds.fetch_crds(mirror, chart, wanted, digest))
        reasons = definition_refusals(definitions, crds.stored_versions(kubernetes(), definitions), USED_VERSIONS)
        if reasons:
            raise PreflightError(
                f"shopcat:charts.{setting} is {wanted}, and {present} runs: {'; '.join(reasons)}. Nothing was changed; set it to "
                "another version, and read the publisher's notes on what lies between"
            )
