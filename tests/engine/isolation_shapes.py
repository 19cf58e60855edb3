"""Attempts with a preview's own objects: other fields, counts, names, finalizers and spellings of images."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

from infra import settings
from infra.names import PREVIEW_LABEL, PREVIEW_PRIORITY_CLASS, SHOP_PRIORITY_CLASS
from infra.previews import isolation, manifests
from infra.program import PREVIEW_SETTINGS
from tests.engine.isolation_attempts import ADMISSION, ANYONE, APPLY, FORBIDDEN, RBAC, Attempt, Facts, Manifest

Change = Callable[[Facts, Manifest], None]
_SHAPE = "is what infra/previews/manifests.py of the main branch makes"
_DIGEST = f"sha256:{'c' * 64}"


def deployment(facts: Facts, name: str = "shopcat") -> Manifest:
    """The preview's own Deployment, as the program makes it."""
    _, found = settings.read_preview(PREVIEW_SETTINGS, {"shopcat:tag": "d" * 40})
    record = manifests.record(found, facts.preview_image, "https://pr-123.preview.example.com")
    spec = (
        manifests.application_deployment(record, PREVIEW_PRIORITY_CLASS)
        if name == "shopcat"
        else manifests.database_deployment(facts.database_image, PREVIEW_PRIORITY_CLASS)
    )
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": facts.own, "labels": isolation.preview_selector(name)},
        "spec": spec,
    }


def pod(facts: Facts, namespace: str = "", **changes: Any) -> Manifest:
    """A pod as the application's ReplicaSet makes it."""
    template = deployment(facts)["spec"]["template"]
    labels = {**template["metadata"]["labels"], "pod-template-hash": "attempt"}
    spec = {**template["spec"], **changes}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "attempt", "namespace": namespace or facts.own, "labels": labels},
        "spec": spec,
    }


def _changed(change: Change, name: str = "shopcat") -> Callable[[Facts], Manifest]:
    def make(facts: Facts) -> Manifest:
        found = copy.deepcopy(deployment(facts, name))
        change(facts, found)
        return found

    return make


def _of_pod(**changes: Any) -> Change:
    return lambda _, found: found["spec"]["template"]["spec"].update(changes)


def _of_container(**changes: Any) -> Change:
    return lambda _, found: found["spec"]["template"]["spec"]["containers"][0].update(changes)


def _of_spec(**changes: Any) -> Change:
    return lambda _, found: found["spec"].update(changes)


def _image(spelling: Callable[[Facts], str]) -> Change:
    return lambda facts, found: found["spec"]["template"]["spec"]["containers"][0].update({"image": spelling(facts)})


def _volume(**volume: Any) -> Change:
    def change(_: Facts, found: Manifest) -> None:
        found["spec"]["template"]["spec"]["volumes"].append({"name": "more", **volume})

    return change


def _production_volume(facts: Facts, found: Manifest) -> None:
    reference = facts.production_image.partition("@")[0] + ":v1.0.0"
    found["spec"]["template"]["spec"]["volumes"].append({"name": "more", "image": {"reference": reference}})


def _production_init(facts: Facts, found: Manifest) -> None:
    container = {**found["spec"]["template"]["spec"]["containers"][0], "name": "first", "image": facts.production_image}
    for key in ("lifecycle", "startupProbe", "readinessProbe", "livenessProbe", "ports"):
        container.pop(key)
    found["spec"]["template"]["spec"]["initContainers"] = [container]


def _more_environment(*variables: Manifest) -> Change:
    return lambda _, found: found["spec"]["template"]["spec"]["containers"][0]["env"].extend(variables)


_COLOUR = {"matchLabels": {"shopcat/colour": "green"}}
_TERM = {"labelSelector": _COLOUR, "namespaces": ["shopcat"], "topologyKey": "kubernetes.io/hostname"}
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_SPREAD = {"maxSkew": 1, "topologyKey": "x", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": _COLOUR}

_ANY = [{"key": "a", "operator": "Exists"}]

CHANGES: Mapping[str, Change] = {
    "keep production's pods off its node by anti-affinity": _of_pod(affinity={"podAntiAffinity": {_REQUIRED: [_TERM]}}),
    "follow production's pods by affinity": _of_pod(affinity={"podAffinity": {_REQUIRED: [_TERM]}}),
    "choose its node by affinity": _of_pod(
        affinity={
            "nodeAffinity": {
                _REQUIRED: {"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Exists"}]}]}
            }
        }
    ),
    "choose its node by selector": _of_pod(nodeSelector={"kubernetes.io/hostname": "node1"}),
    "tolerate every taint": _of_pod(tolerations=[{"operator": "Exists"}]),
    "spread against production's pods": _of_pod(topologySpreadConstraints=[_SPREAD]),
    "take a year to end": _of_pod(terminationGracePeriodSeconds=31_536_000),
    "sleep for hours before it ends": _of_pod(terminationGracePeriodSeconds=7_200),
    "use another container runtime": _of_pod(runtimeClassName="gvisor"),
    "claim a device": _of_pod(resourceClaims=[{"name": "x", "resourceClaimName": "x"}]),
    "share the host's users on purpose": _of_pod(hostUsers=True),
    "use another scheduler": _of_pod(schedulerName="mine"),
    "wait at a scheduling gate": _of_pod(schedulingGates=[{"name": "example.com/wait"}]),
    "push others out": _of_pod(preemptionPolicy="PreemptLowerPriority"),
    "set its priority by number": _of_pod(priority=2_000_000_000),
    "get names elsewhere": _of_pod(dnsPolicy="None", dnsConfig={"nameservers": ["203.0.113.1"]}),
    "get a token of its ServiceAccount": _of_pod(automountServiceAccountToken=True),
    "run as root": _of_pod(securityContext={"runAsUser": 0}),
    "mount production's image as a volume": _production_volume,
    "mount the host's folder": _volume(hostPath={"path": "/"}),
    "mount a ConfigMap": _volume(configMap={"name": "kube-root-ca.crt"}),
    "mount a token": _volume(projected={"sources": [{"serviceAccountToken": {"path": "token"}}]}),
    "write without a limit to a volume": _volume(emptyDir={}),
    "run production's image first": _production_init,
    "run another container beside": lambda _, found: found["spec"]["template"]["spec"]["containers"].append(
        {**found["spec"]["template"]["spec"]["containers"][0], "name": "second"}
    ),
    "annotate its pods": lambda _, found: found["spec"]["template"]["metadata"].update({"annotations": {"a": "b"}}),
    "call itself production": lambda _, found: found["spec"]["template"]["metadata"]["labels"].update(
        {"shopcat/colour": "green"}
    ),
    "have a finalizer on its pods": lambda _, found: found["spec"]["template"]["metadata"].update(
        {"finalizers": ["example.com/stay"]}
    ),
    "ask for more memory": _of_container(resources={"requests": {"memory": "2Gi"}, "limits": {"memory": "2Gi"}}),
    "have no limit of disk": _of_container(
        resources={"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "256Mi"}}
    ),
    "run another command": _of_container(command=["sleep", "infinity"]),
    "run a command before it ends": _of_container(lifecycle={"preStop": {"exec": {"command": ["sleep", "100"]}}}),
    "run a command after it starts": _of_container(lifecycle={"postStart": {"exec": {"command": ["sleep", "100"]}}}),
    "probe another host": _of_container(livenessProbe={"httpGet": {"host": "10.0.0.1", "port": 80}}),
    "take a port of the node": _of_container(ports=[{"containerPort": 8080, "hostPort": 8080}]),
    "have capabilities": _of_container(securityContext={"capabilities": {"add": ["NET_RAW"]}}),
    "pull its image at each start": _of_container(imagePullPolicy="Always"),
    "read another Secret": _more_environment(
        {"name": "X", "valueFrom": {"secretKeyRef": {"name": "other", "key": "x"}}}
    ),
    "read all of a Secret": _of_container(envFrom=[{"secretRef": {"name": "shopcat"}}]),
    "read a field of its pod": _more_environment(
        {"name": "X", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}
    ),
    "have an environment of 200 kB": _more_environment({"name": "X", "value": "x" * 200_000}),
    "run two pods": _of_spec(replicas=2),
    "run 100,000 pods": _of_spec(replicas=100_000),
    "keep a thousand ReplicaSets": _of_spec(revisionHistoryLimit=1000),
    "start many pods at once": _of_spec(strategy={"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 100}}),
    "never say that it failed": _of_spec(progressDeadlineSeconds=2_000_000),
    "pause": _of_spec(paused=True),
}

_HOST = "dkr.ecr.eu-central-1.amazonaws.com"


def _spelled(host: str, repository: str = "shopcat", end: str = f"@{_DIGEST}") -> Callable[[Facts], str]:
    return lambda facts: f"{facts.production_image.partition('.')[0]}.{host}/{repository}{end}"


IMAGES: Mapping[str, Callable[[Facts], str]] = {
    "production's image": lambda facts: facts.production_image,
    "production's image by tag": _spelled(_HOST, end=":v1.0.0"),
    "production's image, the registry in capitals": _spelled(_HOST.upper()),
    "production's image, with the registry's port": _spelled(f"{_HOST}:443"),
    "production's image at the dual-stack name": _spelled("dkr-ecr.eu-central-1.on.aws"),
    "production's image at the FIPS name": _spelled("dkr.ecr-fips.eu-central-1.amazonaws.com"),
    "production's image, the registry with a dot at its end": _spelled(f"{_HOST}."),
    "`latest` of its own repository": _spelled(_HOST, "shopcat-preview", ":latest"),
    "its own repository by tag and digest": _spelled(_HOST, "shopcat-preview", f":x@{_DIGEST}"),
    "its own repository with its port": _spelled(f"{_HOST}:443", "shopcat-preview"),
    "a repository that begins as its own": _spelled(_HOST, "shopcat-preview-2"),
    "a repository below its own": _spelled(_HOST, "shopcat-preview/x"),
    "somebody's image by digest": lambda _: f"docker.io/library/busybox@{_DIGEST}",
}


def _patch(kind: str, change: str, *more: str) -> tuple[str, ...]:
    return ("patch", kind, "shopcat", "-n", "{own}", "--type=merge", "-p", change, *more)


def _named(kind: str, spec: Callable[[Facts], Manifest], api: str, name: str = "attempt", **metadata: Any) -> Any:
    return lambda facts: {
        "apiVersion": api,
        "kind": kind,
        "metadata": {"name": name, "namespace": facts.own, **metadata},
        "spec": spec(facts),
    }


def _secret(**changes: Any) -> Callable[[Facts], Manifest]:
    return lambda facts: {**manifests.external_secret(facts.own), **changes}


def _binding(facts: Facts) -> Manifest:
    return manifests.target_group_binding(facts.target_groups[f"shopcat-{facts.own}"])


_ES, _TGB = "external-secrets.io/v1", "elbv2.k8s.aws/v1beta1"
_STAY = '{{"metadata":{{"finalizers":["example.com/stay"]}}}}'
_NONE = '{{"metadata":{{"finalizers":[]}}}}'
_OWNER = (
    '{{"metadata":{{"ownerReferences":[{{"apiVersion":"v1","kind":"Namespace","name":"x",'
    '"uid":"00000000-0000-0000-0000-000000000000"}}]}}}}'
)
_FINALIZER, _ANNOTATION = "neither adds nor removes a finalizer", "writes no annotations but"
_RAW = "/api/v1/namespaces/{own}"


def _refused_kind(api: str, kind: str, **rest: Any) -> Attempt:
    return Attempt(
        f"make a {kind}",
        RBAC,
        FORBIDDEN,
        manifest=lambda facts: {
            "apiVersion": api,
            "kind": kind,
            "metadata": {"name": "attempt", "namespace": facts.own},
            **rest,
        },
    )


SHAPES = [
    *(Attempt(what, ADMISSION, _SHAPE, APPLY, _changed(change)) for what, change in CHANGES.items()),
    *(Attempt(f"run {what}", ADMISSION, _SHAPE, APPLY, _changed(_image(one))) for what, one in IMAGES.items()),
    Attempt(
        "run production's image as the database",
        ADMISSION,
        _SHAPE,
        APPLY,
        _changed(_image(IMAGES["production's image"]), "database"),
    ),
    Attempt(
        "take a year to end, the database",
        ADMISSION,
        _SHAPE,
        APPLY,
        _changed(_of_pod(terminationGracePeriodSeconds=31_536_000), "database"),
    ),
    Attempt(
        "make a third Deployment",
        ADMISSION,
        "it is called shopcat",
        manifest=_changed(lambda _, found: found["metadata"].update({"name": "attempt"})),
    ),
    Attempt(
        "scale by the subresource", RBAC, FORBIDDEN, ("scale", "deployment/shopcat", "-n", "{own}", "--replicas=100")
    ),
    Attempt(
        "write a status", RBAC, FORBIDDEN, _patch("deployment", '{{"status":{{"replicas":9}}}}', "--subresource=status")
    ),
    Attempt(
        "evict a pod",
        RBAC,
        FORBIDDEN,
        ("create", "--raw", f"{_RAW}/pods/x/eviction"),
        stdin={"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "x"}},
    ),
    Attempt(
        "bind a pod to a node",
        RBAC,
        FORBIDDEN,
        ("create", "--raw", f"{_RAW}/pods/x/binding"),
        stdin={
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": "x"},
            "target": {"kind": "Node", "name": "node1"},
        },
    ),
    Attempt(
        "put an ephemeral container into a pod",
        RBAC,
        FORBIDDEN,
        ("replace", "--raw", f"{_RAW}/pods/x/ephemeralcontainers"),
        stdin={"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}},
    ),
    Attempt(
        "finalize its namespace",
        RBAC,
        FORBIDDEN,
        ("replace", "--raw", f"{_RAW}/finalize"),
        stdin={"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "pr-123"}, "spec": {"finalizers": []}},
    ),
    *(
        _refused_kind(api, kind)
        for api, kind in (
            ("apps/v1", "StatefulSet"),
            ("apps/v1", "DaemonSet"),
            ("apps/v1", "ReplicaSet"),
            ("batch/v1", "Job"),
            ("batch/v1", "CronJob"),
            ("autoscaling/v2", "HorizontalPodAutoscaler"),
            ("policy/v1", "PodDisruptionBudget"),
            ("v1", "ConfigMap"),
            ("v1", "Secret"),
            ("v1", "PersistentVolumeClaim"),
            ("v1", "ReplicationController"),
            ("v1", "PodTemplate"),
            ("networking.k8s.io/v1", "Ingress"),
            ("discovery.k8s.io/v1", "EndpointSlice"),
            ("resource.k8s.io/v1", "ResourceClaim"),
            ("coordination.k8s.io/v1", "Lease"),
        )
    ),
    Attempt(
        "make a third Service",
        ADMISSION,
        "it is called shopcat",
        manifest=_named("Service", lambda _: manifests.service("shopcat"), "v1"),
    ),
    Attempt(
        "name something outside as a Service",
        ADMISSION,
        _SHAPE,
        APPLY,
        _named("Service", lambda _: {"type": "ExternalName", "externalName": "example.com"}, "v1", "shopcat"),
    ),
    Attempt(
        "lead a Service to other pods", ADMISSION, _SHAPE, _patch("service", '{{"spec":{{"selector":{{"a":"b"}}}}}}')
    ),
    Attempt(
        "serve pods that are not ready",
        ADMISSION,
        _SHAPE,
        _patch("service", '{{"spec":{{"publishNotReadyAddresses":true}}}}'),
    ),
    Attempt(
        "make a second ExternalSecret",
        ADMISSION,
        "it is called shopcat",
        manifest=_named("ExternalSecret", _secret(), _ES),
    ),
    Attempt(
        "refresh an ExternalSecret each millisecond",
        ADMISSION,
        _SHAPE,
        _patch("externalsecret", '{{"spec":{{"refreshInterval":"1ms"}}}}'),
    ),
    Attempt(
        "refresh an ExternalSecret for ever",
        ADMISSION,
        _SHAPE,
        _patch("externalsecret", '{{"spec":{{"refreshPolicy":"Periodic"}}}}'),
    ),
    Attempt(
        "have the operator read again by an annotation",
        ADMISSION,
        _ANNOTATION,
        ("annotate", "externalsecret", "shopcat", "-n", "{own}", "force-sync=1"),
    ),
    Attempt(
        "make a second SecretStore",
        ADMISSION,
        "reads in the previews' role",
        manifest=lambda facts: _named(
            "SecretStore", lambda _: isolation.store(facts.own, facts.region, facts.secrets_role), _ES
        )(facts),
    ),
    Attempt(
        "make a second TargetGroupBinding",
        ADMISSION,
        "it is called shopcat",
        manifest=_named("TargetGroupBinding", _binding, _TGB),
    ),
    Attempt(
        "make a second quota",
        ADMISSION,
        "quota is production's to set",
        manifest=_named("ResourceQuota", lambda _: {"hard": isolation.quota()}, "v1"),
    ),
    Attempt(
        "put a finalizer on its namespace",
        ADMISSION,
        _FINALIZER,
        ("patch", "namespace", "{own}", "--type=merge", "-p", _STAY),
    ),
    *(
        Attempt(f"put a finalizer on its {kind}", ADMISSION, _FINALIZER, _patch(kind, _STAY))
        for kind in ("deployment", "service", "externalsecret", "secretstore", "networkpolicy")
    ),
    Attempt(
        "take the controller's finalizer off its binding", ADMISSION, _FINALIZER, _patch("targetgroupbinding", _NONE)
    ),
    Attempt(
        "take the operator's finalizer off its ExternalSecret", ADMISSION, _FINALIZER, _patch("externalsecret", _NONE)
    ),
    Attempt("give its Deployment an owner", ADMISSION, "nor removes an owner reference", _patch("deployment", _OWNER)),
    Attempt(
        "write an annotation of 100 kB",
        ADMISSION,
        _ANNOTATION,
        ("annotate", "deployment", "shopcat", "-n", "{own}", f"a={'x' * 100_000}"),
    ),
    Attempt(
        "forge what the controller remembers of its binding",
        ADMISSION,
        _ANNOTATION,
        ("annotate", "targetgroupbinding", "shopcat", "-n", "{own}", "--overwrite", "elbv2.k8s.aws/checkpoint=x"),
    ),
    Attempt(
        "label its binding",
        ADMISSION,
        "writes no label but",
        ("label", "targetgroupbinding", "shopcat", "-n", "{own}", "a=b"),
    ),
]

_VOLUME = "runs images of .* by digest and the pinned tools, nothing else"


def _production_pod(**changes: Any) -> Callable[[Facts], Manifest]:
    def make(facts: Facts) -> Manifest:
        found = pod(facts, "shopcat", **{"priorityClassName": SHOP_PRIORITY_CLASS, **changes})
        found["spec"]["containers"][0]["image"] = facts.production_image
        found["spec"]["volumes"].append({"name": "more", "image": {"reference": facts.preview_image}})
        return found

    return make


def _with_production_volume(facts: Facts) -> Manifest:
    found = pod(facts)
    found["spec"]["volumes"] = [
        *found["spec"]["volumes"],
        {"name": "more", "image": {"reference": facts.production_image}},
    ]
    return found


def _quota(pods: int) -> tuple[str, ...]:
    change = f'{{"spec":{{"hard":{{"pods":"{pods}"}}}}}}'
    return ("patch", "resourcequota", isolation.QUOTA_NAME, "-n", "pr-123", "--type=merge", "-p", change)


ADMIN_SHAPES = [
    Attempt(
        "an administrator: a pod in a namespace pr-<n> without its NetworkPolicy",
        ANYONE,
        "no params found",
        manifest=lambda facts: pod(facts, "pr-900"),
        prepare=(("create", "namespace", "pr-900"), ("label", "namespace", "pr-900", f"{PREVIEW_LABEL}=true")),
        restore=("delete", "namespace", "pr-900"),
    ),
    Attempt(
        "an administrator: a pod in a preview whose quota was raised",
        ANYONE,
        "not the one that production sets",
        manifest=pod,
        prepare=(_quota(99),),
        restore=_quota(4),
    ),
    Attempt(
        "an administrator: a preview's image as a volume under production's container",
        ANYONE,
        _VOLUME,
        manifest=_production_pod(),
    ),
    Attempt(
        "an administrator: production's image as a volume in a preview",
        ANYONE,
        _SHAPE,
        manifest=_with_production_volume,
    ),
    Attempt(
        "an administrator: a pod in a preview that keeps production's off its node",
        ANYONE,
        _SHAPE,
        manifest=lambda facts: pod(facts, affinity={"podAntiAffinity": {_REQUIRED: [_TERM]}}),
    ),
    Attempt(
        "an administrator: a pod in a preview that takes a year to end",
        ANYONE,
        _SHAPE,
        manifest=lambda facts: pod(facts, terminationGracePeriodSeconds=31_536_000),
    ),
    Attempt(
        "an administrator, or an autoscaler: scale a preview's Deployment",
        ANYONE,
        "one replica at most",
        ("scale", "deployment/shopcat", "-n", "{own}", "--replicas=5"),
    ),
]
