"""The Kubernetes API for preflight and hooks, signed in to EKS with the AWS credentials at hand.

EKS takes a presigned STS request as bearer token and so knows the AWS identity that signed it. A token is good for 15 minutes
and is replaced after 10. Pulumi's provider signs in with the kubeconfig, whose command makes the same token.
"""

from __future__ import annotations

import base64
import json
import ssl
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import urllib3
import yaml
from botocore.exceptions import BotoCoreError, ClientError
from botocore.signers import RequestSigner

from infra.clients.aws import AwsClients, error_code, explain
from infra.errors import KubernetesError, KubernetesUnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FIELD_MANAGER = "shopcat"
"""Owner of every field that this program writes, by Pulumi's provider or by itself."""
_TOKEN_SECONDS = 600
_RELEASE_KINDS = {
    "Deployment": "/apis/apps/v1/namespaces/{namespace}/deployments",
    "Service": "/api/v1/namespaces/{namespace}/services",
    "TargetGroupBinding": "/apis/elbv2.k8s.aws/v1beta1/namespaces/{namespace}/targetgroupbindings",
    "PodDisruptionBudget": "/apis/policy/v1/namespaces/{namespace}/poddisruptionbudgets",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies",
    "SecretStore": "/apis/external-secrets.io/v1/namespaces/{namespace}/secretstores",
    "ExternalSecret": "/apis/external-secrets.io/v1/namespaces/{namespace}/externalsecrets",
    "ConfigMap": "/api/v1/namespaces/{namespace}/configmaps",
}
"""Kinds that a person may edit, with where the API server lists them."""
_API_TIMEOUT = urllib3.Timeout(connect=5, read=20)


class KubernetesClient:
    """Client of one cluster's API: GET, DELETE, and server-side apply of what Pulumi does not write.

    That is what Helm leaves out (infra/foundation/crds.py), what somebody deleted by hand, and a colour that is emptied right
    before Pulumi fills it anew; all else is Pulumi's.
    """

    def __init__(self, server: str, context: ssl.SSLContext, token: Callable[[], str], *, name: str) -> None:
        self._server = server.rstrip("/")
        self._name = name
        self._token = token
        self._pool = urllib3.PoolManager(
            ssl_context=context, timeout=_API_TIMEOUT, retries=urllib3.Retry(2, redirect=0)
        )

    def get(self, path: str, **query: str) -> Any | None:
        """Return the object or list at an API path; `None` if there is none.

        Raises:
            KubernetesUnreachableError: no answer, or one that is neither an object nor "not found".
        """
        return self._request("GET", path, query)

    def apply(self, path: str, manifest: Mapping[str, Any], manager: str) -> Any | None:
        """Server-side apply an object, taking over its fields from other managers; return the object as it is then.

        Raises:
            KubernetesUnreachableError: no answer, or a refusal.
        """
        query = {"fieldManager": manager, "force": "true"}
        return self._request("PATCH", path, query, json.dumps(manifest), "application/apply-patch+yaml")

    def delete(self, path: str) -> Any | None:
        """Ask for the deletion of the object at an API path; `None` if there is none.

        Raises:
            KubernetesUnreachableError: no answer, or a refusal.
        """
        return self._request("DELETE", path, {})

    def _request(
        self, method: str, path: str, query: Mapping[str, str], body: str | None = None, content_type: str = ""
    ) -> Any | None:
        headers = {"Accept": "application/json", "Authorization": f"Bearer {self._token()}"}
        if body is not None:
            headers["Content-Type"] = content_type
        url = f"{self._server}{path}" + (f"?{urlencode(query)}" if query else "")
        try:
            response = self._pool.request(method, url, headers=headers, body=body)
        except urllib3.exceptions.HTTPError as error:
            raise KubernetesUnreachableError(
                f"Kubernetes API of {self._name} at {self._server} can't be reached ({error}); "
                "shopcat:apiAccess decides who can"
            ) from error
        if response.status == 404:
            return None
        if response.status not in (200, 201, 202):
            detail = response.data.decode(errors="replace").strip()[:300]
            raise KubernetesUnreachableError(
                f"Kubernetes API of {self._name} answered {response.status} to {method} {path}: {detail}"
            )
        try:
            return json.loads(response.data)
        except ValueError as error:
            raise KubernetesUnreachableError(
                f"Kubernetes API of {self._name} at {self._server} answered {method} {path} with something that is no JSON; "
                "see what stands between"
            ) from error

    def deployment(self, namespace: str, name: str) -> dict[str, Any] | None:
        """Return a Deployment, or `None`."""
        return self.release_object("Deployment", namespace, name)

    def stop_pods(self, namespace: str, name: str) -> None:
        """Set a Deployment's replicas to 0; its pods leave as their grace period says, and nobody waits for them."""
        path, body = _release_path("Deployment", namespace, name), json.dumps({"spec": {"replicas": 0}})
        self._request("PATCH", path, {"fieldManager": FIELD_MANAGER}, body, "application/merge-patch+json")

    def job(self, namespace: str, name: str) -> dict[str, Any] | None:
        """Return a Job, or `None`."""
        job: dict[str, Any] | None = self.get(f"/apis/batch/v1/namespaces/{namespace}/jobs/{name}")
        return job

    def release_object(self, kind: str, namespace: str, name: str) -> dict[str, Any] | None:
        """Return an object of a release, or `None`."""
        manifest: dict[str, Any] | None = self.get(_release_path(kind, namespace, name))
        return manifest

    def jobs(self, namespace: str, labels: Mapping[str, str]) -> list[dict[str, Any]]:
        """List the Jobs with all of these labels."""
        answer = self.get(f"/apis/batch/v1/namespaces/{namespace}/jobs", labelSelector=_selector(labels))
        return list(answer["items"]) if answer else []

    def recreate(self, manifest: Mapping[str, Any]) -> bool:
        """Apply an object of a release as the provider does, by the same manager; False if its namespace is gone."""
        kind, metadata = manifest["kind"], manifest["metadata"]
        path = _release_path(kind, metadata["namespace"], metadata["name"])
        return self.apply(path, manifest, FIELD_MANAGER) is not None

    def pods(self, namespace: str, labels: Mapping[str, str]) -> list[dict[str, Any]]:
        """List the pods with all of these labels."""
        answer = self.get(f"/api/v1/namespaces/{namespace}/pods", labelSelector=_selector(labels))
        return list(answer["items"]) if answer else []

    def release_objects(self, namespace: str) -> dict[str, dict[str, Any]]:
        """Return the objects of a release in their namespace, by `Kind/name`; a kind that the cluster lacks has none."""
        return {
            f"{kind}/{each['metadata']['name']}": each
            for kind, path in _RELEASE_KINDS.items()
            for each in (self.get(path.format(namespace=namespace)) or {"items": []})["items"]
        }


def _selector(labels: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in labels.items())


def _release_path(kind: str, namespace: str, name: str) -> str:
    return f"{_RELEASE_KINDS[kind].format(namespace=namespace)}/{name}"


def _tls_context(authority: str | None) -> ssl.SSLContext:
    """Return a TLS context that trusts the cluster's own authority (PEM text)."""
    context = ssl.create_default_context(cadata=authority)
    # From Python 3.13 on the default asks for an Authority Key Identifier, which EKS's own authorities lack
    # (github.com/kubernetes-client/python/issues/2394); chain, dates and host name are checked as before.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _cached_token(make_token: Callable[[], str]) -> Callable[[], str]:
    """Return a token maker whose result is used for ten minutes."""
    cached: tuple[float, str] | None = None

    def token() -> str:
        nonlocal cached
        if cached is None or time.monotonic() - cached[0] > _TOKEN_SECONDS:
            cached = (time.monotonic(), make_token())
        return cached[1]

    return token


def kubeconfig(name: str, endpoint: str, authority: str, region: str) -> str:
    """Return a kubeconfig that signs in with the AWS credentials at hand; it holds no secret of its own."""
    command = {
        "apiVersion": "client.authentication.k8s.io/v1beta1",
        "command": "aws",
        "args": ["--region", region, "eks", "get-token", "--cluster-name", name, "--output", "json"],
        "interactiveMode": "Never",
    }
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": {"server": endpoint, "certificate-authority-data": authority}}],
            "users": [{"name": name, "user": {"exec": command}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
            "current-context": name,
        }
    )


def eks_token(clients: AwsClients, cluster: str) -> str:
    """Return a bearer token for an EKS cluster: a presigned GetCallerIdentity that names the cluster.

    Raises:
        ShopCatError: there are no credentials to sign with.
    """
    sts = clients.get("sts")
    credentials = clients.session.get_credentials()
    if credentials is None:
        raise KubernetesError(
            "Kubernetes API: no usable AWS credentials; set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    signer = RequestSigner(
        sts.meta.service_model.service_id, clients.region, "sts", "v4", credentials, clients.session.events
    )
    url = signer.generate_presigned_url(
        {
            "method": "GET",
            "url": f"{sts.meta.endpoint_url.rstrip('/')}/?Action=GetCallerIdentity&Version=2011-06-15",
            "body": {},
            "headers": {"x-k8s-aws-id": cluster},
            "context": {},
        },
        region_name=clients.region,
        expires_in=60,
        operation_name="",
    )
    return "k8s-aws-v1." + base64.urlsafe_b64encode(url.encode()).decode().rstrip("=")


def from_eks(clients: AwsClients, cluster: str) -> KubernetesClient | None:
    """Return a client for an EKS cluster of this account; `None` if there is no such cluster, or it is still being made.

    Raises:
        ShopCatError: EKS can't be asked.
    """
    try:
        facts = clients.get("eks").describe_cluster(name=cluster)["cluster"]
    except (BotoCoreError, ClientError) as error:
        if error_code(error) == "ResourceNotFoundException":
            return None
        raise explain(error, f"EKS cluster {cluster}", clients.endpoint_url) from error
    authority = (facts.get("certificateAuthority") or {}).get("data")
    if not facts.get("endpoint") or not authority or facts.get("status") not in ("ACTIVE", "UPDATING"):
        return None
    return of_cluster(clients, cluster, facts["endpoint"], authority)


def of_cluster(clients: AwsClients, name: str, endpoint: str, authority: str) -> KubernetesClient:
    """Return a client for an EKS cluster whose endpoint and certificate authority (base64) are known."""
    context = _tls_context(base64.b64decode(authority).decode())
    return KubernetesClient(endpoint, context, _cached_token(lambda: eks_token(clients, name)), name=name)


def cluster_of(kubeconfig: str) -> dict[str, str]:
    """Return address and CA of the API server in a kubeconfig.

    Raises:
        ShopCatError: it holds no cluster with both.
    """
    try:
        cluster = yaml.safe_load(kubeconfig)["clusters"][0]["cluster"]
        return {"server": cluster["server"], "authority": cluster["certificate-authority-data"]}
    except (KeyError, IndexError, TypeError, yaml.YAMLError) as error:
        raise KubernetesError(
            f"the cluster's kubeconfig names no server with certificate-authority-data ({error!r})"
        ) from error
