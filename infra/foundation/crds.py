"""Keep a chart's custom resource definitions at the chart's version, which Helm does not.

Helm makes what a chart has in `crds/` when it installs the chart, and never touches it again
(helm.sh/docs/chart_best_practices/custom_resource_definitions). So whenever a release of such a chart is made or changed, a
hook applies the definitions of exactly that version first. The chart comes from where Helm takes it from; an update that
changes no chart fetches nothing.
"""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING
from urllib.parse import urljoin

import urllib3
import yaml

from infra.clients.kubernetes import FIELD_MANAGER
from infra.errors import PreflightError, UnreachableError
from infra.foundation.chart_archive import LOADER, Manifest, read_archive
from infra.settings.limits import CHART_VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from infra.clients.kubernetes import KubernetesClient

ESTABLISHED_SECONDS = 30
"""Longest wait for a definition. It is served about a second after it is made; the API names no bound."""

_PATH = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_DOWNLOAD_TIMEOUT = urllib3.Timeout(connect=10, read=60)


def locate(index: str, repository: str, chart: str, version: str) -> tuple[str, str]:
    """Return URL and SHA-256 of a chart's archive, by its repository's index; the digest is empty where the index has none.

    Raises:
        ShopCatError: the index is none, or doesn't have this version.
    """
    try:
        entries = yaml.load(index, LOADER)["entries"][chart]  # noqa: S506 - both are the safe loader
        by_version = {str(entry["version"]).removeprefix("v"): entry for entry in entries}
        release = by_version.get(version.removeprefix("v"))
        if release is not None:
            return urljoin(f"{repository.rstrip('/')}/", release["urls"][0]), str(release.get("digest") or "")
    except (yaml.YAMLError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise PreflightError(
            f"{repository}/index.yaml is no index of a Helm repository that holds {chart} ({error!r}); check "
            "shopcat:chartMirror"
        ) from error
    newest = next(iter(by_version), "none")
    raise PreflightError(
        f"{repository} has no {chart} {version} (its first is {newest}); set shopcat:charts to one it has"
    )


def versions(repository: str, chart: str) -> list[str]:
    """Return every version of a chart that its repository has and the settings take (shopcat:charts).

    Raises:
        ShopCatError: the repository can't be read.
    """
    base = repository.rstrip("/")
    try:
        entries = yaml.load(get_url(f"{base}/index.yaml"), LOADER)["entries"][chart]  # noqa: S506
        listed = [str(entry["version"]).removeprefix("v") for entry in entries]
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise PreflightError(
            f"{base}/index.yaml is no index of a Helm repository that holds {chart} ({error!r}); check "
            "shopcat:chartMirror"
        ) from error
    return [version for version in listed if not CHART_VERSION.wrong(version)]


def fetch_archive(repository: str, chart: str, version: str, expected: str) -> bytes:
    """Fetch the chart's archive that the settings name, from where the repository's own index says.

    Args:
        repository: URL of a Helm repository.
        chart: its name.
        version: exactly this one.
        expected: `sha256:…` of the archive (shopcat:chartDigests).

    Raises:
        ShopCatError: it can't be had, or is another one than the index or the settings say.
    """
    base = repository.rstrip("/")
    url, digest = locate(get_url(f"{base}/index.yaml").decode(errors="replace"), base, chart, version)
    archive = get_url(url)
    actual = hashlib.sha256(archive).hexdigest()
    if digest and actual != digest:
        raise PreflightError(
            f"{url} is not what {base}/index.yaml says: its SHA-256 is not {digest}; check shopcat:chartMirror"
        )
    if f"sha256:{actual}" != expected:
        raise PreflightError(
            f"{url} is sha256:{actual}, and shopcat:chartDigests says {expected}: after a new version in shopcat:charts, "
            "compare it with what the publisher says and set it; without one, somebody has replaced the archive. Nothing of "
            "it is installed"
        )
    return archive


def get_url(url: str) -> bytes:
    """Return what is at a URL.

    Raises:
        ShopCatError: nothing answers there, or not with success.
    """
    try:
        answer = urllib3.PoolManager(timeout=_DOWNLOAD_TIMEOUT, retries=urllib3.Retry(3, backoff_factor=1)).request(
            "GET", url
        )
    except urllib3.exceptions.HTTPError as error:
        raise UnreachableError(
            f"{url} can't be reached ({error}); check the network and shopcat:chartMirror"
        ) from error
    if answer.status != 200:
        raise PreflightError(f"{url} answered {answer.status}; check shopcat:chartMirror")
    return answer.data


def bring_up_to(
    kubernetes: KubernetesClient,
    repository: str,
    chart: str,
    version: str,
    digest: str,
    sleep: Callable[[float], None] = time.sleep,
) -> list[str]:
    """Apply a chart's definitions and wait until they are served; return their names.

    Raises:
        ShopCatError: the chart can't be had, or the API server refuses a definition; then the release is not changed.
    """
    definitions = read_archive(fetch_archive(repository, chart, version, digest)).crds()
    for each in definitions:
        kubernetes.apply(f"{_PATH}/{each['metadata']['name']}", _without_status(each), FIELD_MANAGER)
    for _ in range(ESTABLISHED_SECONDS):
        waiting = [
            each["metadata"]["name"]
            for each in definitions
            if not _is_established(kubernetes.get(f"{_PATH}/{each['metadata']['name']}"))
        ]
        if not waiting:
            return [each["metadata"]["name"] for each in definitions]
        sleep(1)
    raise PreflightError(
        f"{chart} {version}: the API server doesn't serve {', '.join(waiting)} after {ESTABLISHED_SECONDS} s; see "
        f"`kubectl describe crd {waiting[0]}`, then run it again"
    )


def read_definitions(kubernetes: KubernetesClient, names: Iterable[str]) -> dict[str, Manifest]:
    """Return those of the definitions that the cluster has, by name.

    Raises:
        KubernetesUnreachableError: the API server does not answer, or refuses.
    """
    present = {name: kubernetes.get(f"{_PATH}/{name}") for name in names}
    return {name: each for name, each in present.items() if each}


def _without_status(definition: Manifest) -> Manifest:
    metadata = {key: value for key, value in definition["metadata"].items() if value is not None}  # creationTimestamp
    return {key: value for key, value in {**definition, "metadata": metadata}.items() if key != "status"}


def _is_established(definition: Manifest | None) -> bool:
    conditions = ((definition or {}).get("status") or {}).get("conditions") or []
    return any(condition["type"] == "Established" and condition["status"] == "True" for condition in conditions)
