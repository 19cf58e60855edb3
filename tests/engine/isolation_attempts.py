"""Attempts at the API server, by kubectl: as a pull request's job, and as an administrator."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from infra.names import PREVIEW_CLUSTER_ROLE, PREVIEW_PRIORITY_CLASS, PREVIEW_USER_PREFIX
from infra.previews import isolation

RBAC = "API server: RBAC"
ADMISSION = "API server: admission"
ANYONE = "API server: admission, whoever asks"
FORBIDDEN = "forbidden: User .* cannot"
APPLY = ("apply", "--server-side", "--force-conflicts", "--field-manager=shopcat")


@dataclass(frozen=True)
class Facts:
    """Names that attempts use."""

    number: int
    other: int
    unopened: int
    region: str
    contract: Mapping[str, Any]
    target_groups: Mapping[str, str]
    secrets_role: str
    preview_image: str
    production_image: str
    database_image: str

    @property
    def own(self) -> str:
        return f"pr-{self.number}"

    def words(self) -> dict[str, str]:
        return {"own": self.own, "other": f"pr-{self.other}"}


Manifest = dict[str, Any]


@dataclass(frozen=True)
class Attempt:
    what: str
    by: str
    says: str
    """Text that the refusal must hold."""
    arguments: tuple[str, ...] = ("create",)
    manifest: Callable[[Facts], Manifest] | None = None
    stdin: Manifest | None = None
    """Body of a raw request."""
    unopened: bool = False
    """By the job of a pull request that has no namespace yet."""
    prepare: tuple[tuple[str, ...], ...] = ()
    restore: tuple[str, ...] = ()


def _object(api: str, kind: str, name: str, namespace: str | None, **rest: Any) -> Manifest:
    metadata: dict[str, Any] = {"name": name} if namespace is None else {"name": name, "namespace": namespace}
    return {"apiVersion": api, "kind": kind, "metadata": metadata, **rest}


def _pod_spec(facts: Facts, image: str | None = None, **changes: Any) -> Manifest:
    container = {
        "name": "main",
        "image": image or facts.preview_image,
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "16Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    return {"priorityClassName": PREVIEW_PRIORITY_CLASS, "containers": [container], **changes}


def _deployment(namespace: Callable[[Facts], str], image: Callable[[Facts], str] | None = None, **changes: Any) -> Any:
    def make(facts: Facts) -> Manifest:
        labels = {"app.kubernetes.io/name": "attempt"}
        spec = _pod_spec(facts, image(facts) if image else None, **changes)
        template = {"metadata": {"labels": labels}, "spec": spec}
        whole = {"replicas": 0, "selector": {"matchLabels": labels}, "template": template}
        return _object("apps/v1", "Deployment", "attempt", namespace(facts), spec=whole)

    return make


def _own(facts: Facts) -> str:
    return facts.own


def _pod(namespace: Callable[[Facts], str], image: Callable[[Facts], str] | None = None, **changes: Any) -> Any:
    return lambda facts: _object(
        "v1", "Pod", "attempt", namespace(facts), spec=_pod_spec(facts, image(facts) if image else None, **changes)
    )


def _namespace(name: str, labels: dict[str, str]) -> Manifest:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def _policy(facts: Facts, name: str) -> Manifest:
    spec = {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{}]}
    return _object("networking.k8s.io/v1", "NetworkPolicy", name, facts.own, spec=spec)


def _role_binding(role: str, namespace: Callable[[Facts], str], user: Callable[[Facts], str]) -> Any:
    api = "rbac.authorization.k8s.io"
    return lambda facts: _object(
        f"{api}/v1",
        "RoleBinding",
        "attempt" if role != PREVIEW_CLUSTER_ROLE else PREVIEW_CLUSTER_ROLE,
        namespace(facts),
        roleRef={"apiGroup": api, "kind": "ClusterRole", "name": role},
        subjects=[{"apiGroup": api, "kind": "User", "name": user(facts)}],
    )


def _binding(group: Callable[[Facts], str]) -> Any:
    return lambda facts: _object(
        "elbv2.k8s.aws/v1beta1",
        "TargetGroupBinding",
        "shopcat",
        facts.own,
        spec={
            "serviceRef": {"name": "shopcat", "port": 80},
            "targetGroupARN": facts.target_groups[group(facts)],
            "targetType": "ip",
        },
    )


def _store(spec: Callable[[Facts], Manifest], kind: str = "SecretStore") -> Any:
    return lambda facts: _object(
        "external-secrets.io/v1",
        kind,
        isolation.PREVIEW_STORE,
        facts.own if kind == "SecretStore" else None,
        spec=spec(facts),
    )


def _secret(**spec: Any) -> Any:
    def make(facts: Facts) -> Manifest:
        whole = {
            "refreshPolicy": "CreatedOnce",
            "secretStoreRef": {"kind": "SecretStore", "name": isolation.PREVIEW_STORE},
            "target": {"name": "shopcat", "creationPolicy": "Owner", "deletionPolicy": "Retain"},
            **spec,
        }
        return _object("external-secrets.io/v1", "ExternalSecret", "shopcat", facts.own, spec=whole)

    return make


def _data(key: str) -> list[Manifest]:
    return [{"secretKey": "password", "remoteRef": {"key": key, "property": "password"}}]


_CONFINED = "may write in the namespace pr-<n> of its own number alone"

ATTEMPTS = [
    Attempt(
        "create a Deployment in production's namespace", RBAC, FORBIDDEN, manifest=_deployment(lambda _: "shopcat")
    ),
    Attempt("read production's Secrets", RBAC, FORBIDDEN, ("get", "secrets", "-n", "shopcat")),
    Attempt("read the database namespace's Secrets", RBAC, FORBIDDEN, ("get", "secrets", "-n", "shopcat-database")),
    Attempt("read the Secrets of its own namespace", RBAC, FORBIDDEN, ("get", "secrets", "-n", "{own}")),
    Attempt("read another pull request's Secrets", RBAC, FORBIDDEN, ("get", "secrets", "-n", "{other}")),
    Attempt("read another pull request's Deployments", RBAC, FORBIDDEN, ("get", "deployments", "-n", "{other}")),
    Attempt(
        "create a Deployment in another pull request's namespace",
        RBAC,
        FORBIDDEN,
        manifest=_deployment(lambda facts: f"pr-{facts.other}"),
    ),
    Attempt(
        "make a namespace that isn't called pr-<n>",
        ADMISSION,
        _CONFINED,
        manifest=lambda _: _namespace("staging", isolation.namespace_labels("staging")),
    ),
    Attempt(
        "make the namespace of another pull request",
        ADMISSION,
        _CONFINED,
        manifest=lambda facts: _namespace("pr-555", isolation.namespace_labels("pr-555")),
    ),
    Attempt(
        "make its own namespace without Pod Security",
        ADMISSION,
        "exactly the labels",
        manifest=lambda facts: _namespace(f"pr-{facts.unopened}", {}),
        unopened=True,
    ),
    Attempt(
        "make its own namespace with a finalizer in its spec",
        ADMISSION,
        "no finalizer but Kubernetes' own",
        manifest=lambda facts: {
            **_namespace(f"pr-{facts.unopened}", isolation.namespace_labels(f"pr-{facts.unopened}")),
            "spec": {"finalizers": ["example.com/stay", "kubernetes"]},
        },
        unopened=True,
    ),
    Attempt(
        "take Pod Security off production's namespace",
        ADMISSION,
        f"{_CONFINED}|exactly the labels",  # both policies deny; the API server quotes either
        ("label", "namespace", "shopcat", "pod-security.kubernetes.io/enforce-"),
    ),
    Attempt("delete production's namespace", ADMISSION, _CONFINED, ("delete", "namespace", "shopcat")),
    Attempt("delete another pull request's namespace", ADMISSION, _CONFINED, ("delete", "namespace", "{other}")),
    Attempt(
        "take Pod Security off its namespace",
        ADMISSION,
        "exactly the labels",
        ("label", "namespace", "{own}", "pod-security.kubernetes.io/enforce-"),
    ),
    Attempt(
        "raise its own quota",
        ADMISSION,
        "quota is production's to set",
        (
            "patch",
            "resourcequota",
            "preview",
            "-n",
            "{own}",
            "--type=merge",
            "-p",
            '{{"spec":{{"hard":{{"pods":"99"}}}}}}',
        ),
    ),
    Attempt("delete its own quota", RBAC, FORBIDDEN, ("delete", "resourcequota", "preview", "-n", "{own}")),
    Attempt(
        "change its own limits",
        ADMISSION,
        "limits are production's to set",
        ("patch", "limitrange", "preview", "-n", "{own}", "--type=merge", "-p", '{{"spec":{{"limits":[]}}}}'),
    ),
    Attempt(
        "delete its own NetworkPolicy", RBAC, FORBIDDEN, ("delete", "networkpolicy", "default-deny", "-n", "{own}")
    ),
    Attempt(
        "widen its own NetworkPolicy",
        ADMISSION,
        "network policies are production's to set",
        ("patch", "networkpolicy", "shopcat", "-n", "{own}", "--type=merge", "-p", '{{"spec":{{"egress":[{{}}]}}}}'),
    ),
    Attempt(
        "add a NetworkPolicy that allows everything",
        ADMISSION,
        "network policies are production's to set",
        manifest=lambda facts: _policy(facts, "open"),
    ),
    Attempt(
        "bind cluster-admin in its own namespace",
        RBAC,
        r"\(Forbidden\)",
        manifest=_role_binding("cluster-admin", _own, lambda facts: f"{PREVIEW_USER_PREFIX}{facts.number}"),
    ),
    Attempt(
        "bind the previews' role in production's namespace",
        ADMISSION,
        _CONFINED,
        manifest=_role_binding(
            PREVIEW_CLUSTER_ROLE, lambda _: "shopcat", lambda facts: f"{PREVIEW_USER_PREFIX}{facts.number}"
        ),
    ),
    Attempt(
        "let another user into its own namespace",
        ADMISSION,
        "to its own user alone",
        manifest=_role_binding(PREVIEW_CLUSTER_ROLE, _own, lambda _: "somebody"),
    ),
    Attempt(
        "bind to production's target group",
        ADMISSION,
        "the target group shopcat-pr-<n> of its own number",
        manifest=_binding(lambda _: "shopcat-green"),
    ),
    Attempt(
        "bind to another pull request's target group",
        ADMISSION,
        "the target group shopcat-pr-<n> of its own number",
        manifest=_binding(lambda facts: f"shopcat-pr-{facts.other}"),
    ),
    Attempt(
        "take an address of a load balancer of its own",
        ADMISSION,
        "is what infra/previews/manifests.py of the main branch makes",
        manifest=lambda facts: _object(
            "v1", "Service", "attempt", facts.own, spec={"type": "LoadBalancer", "ports": [{"port": 80}]}
        ),
    ),
    Attempt("make a pod directly", RBAC, FORBIDDEN, manifest=_pod(_own)),
    Attempt(
        "make a ServiceAccount",
        RBAC,
        FORBIDDEN,
        manifest=lambda facts: _object("v1", "ServiceAccount", "attempt", facts.own),
    ),
    Attempt("make a ServiceAccount's token", RBAC, FORBIDDEN, ("create", "token", "default", "-n", "{own}")),
    Attempt(
        "borrow the operator's identity by a token",
        RBAC,
        FORBIDDEN,
        ("create", "token", "external-secrets", "-n", "external-secrets"),
    ),
    Attempt("act as somebody else", RBAC, FORBIDDEN, ("get", "pods", "-n", "shopcat", "--as", "twin-admin")),
    Attempt(
        "name a production secret in an ExternalSecret",
        ADMISSION,
        "of its own number|is what infra/previews/manifests.py",
        manifest=_secret(data=_data("shopcat/application")),
    ),
    Attempt(
        "name another pull request's secret in an ExternalSecret",
        ADMISSION,
        "of its own number|is what infra/previews/manifests.py",
        manifest=_secret(data=_data("shopcat-preview/pr-77/database")),
    ),
    Attempt(
        "find secrets by pattern in an ExternalSecret",
        ADMISSION,
        "of its own number|is what infra/previews/manifests.py",
        manifest=_secret(dataFrom=[{"find": {"name": {"regexp": ".*"}}}]),
    ),
    Attempt(
        "make a SecretStore that reads as the operator itself",
        ADMISSION,
        "reads in the previews' role",
        manifest=_store(lambda facts: {"provider": {"aws": {"service": "SecretsManager", "region": facts.region}}}),
    ),
    Attempt(
        "make a SecretStore that reads for another pull request",
        ADMISSION,
        "reads in the previews' role",
        manifest=_store(lambda facts: isolation.store(f"pr-{facts.other}", facts.region, facts.secrets_role)),
    ),
    Attempt(
        "make a ClusterSecretStore",
        RBAC,
        FORBIDDEN,
        manifest=_store(
            lambda facts: {"provider": {"aws": {"service": "SecretsManager", "region": facts.region}}},
            "ClusterSecretStore",
        ),
    ),
    Attempt(
        "delete an admission policy",
        RBAC,
        FORBIDDEN,
        ("delete", "validatingadmissionpolicy", "shopcat-preview-namespace"),
    ),
    Attempt(
        "change the previews' ClusterRole",
        RBAC,
        FORBIDDEN,
        ("patch", "clusterrole", PREVIEW_CLUSTER_ROLE, "--type=merge", "-p", '{{"rules":[]}}'),
    ),
    Attempt(
        "remove the previews' priority class",
        RBAC,
        FORBIDDEN,
        ("delete", "priorityclass", PREVIEW_PRIORITY_CLASS),
    ),
    Attempt("run a command in a pod", RBAC, FORBIDDEN, ("exec", "deployment/shopcat", "-n", "{own}", "--", "id")),
]

_ANYONE_PRODUCTION = "runs images of .* by digest and the pinned tools, nothing else"


def _digest(name: str) -> Callable[[Facts], str]:
    return lambda _: f"{name}@sha256:{'b' * 64}"


ADMIN_ATTEMPTS = [
    Attempt(
        "an administrator: a preview's image in production's namespace",
        ANYONE,
        _ANYONE_PRODUCTION,
        manifest=_pod(lambda _: "shopcat", lambda facts: facts.preview_image),
    ),
    Attempt(
        "an administrator: `latest` in production's namespace",
        ANYONE,
        _ANYONE_PRODUCTION,
        manifest=_pod(lambda _: "shopcat", lambda facts: facts.production_image.partition("@")[0] + ":latest"),
    ),
    Attempt(
        "an administrator: somebody else's image by digest in production's namespace",
        ANYONE,
        _ANYONE_PRODUCTION,
        manifest=_pod(lambda _: "shopcat", _digest("docker.io/library/busybox")),
    ),
    Attempt(
        "an administrator: another image in the database Job's namespace",
        ANYONE,
        "runs its pinned tool by digest",
        manifest=_pod(lambda _: "shopcat-database", _digest("docker.io/library/busybox")),
    ),
    Attempt(
        "an administrator: production's image in a preview's namespace",
        ANYONE,
        "is what infra/previews/manifests.py of the main branch makes",
        manifest=_pod(_own, lambda facts: facts.production_image),
    ),
]
