"""Pods of a release, rendered from its record alone: the application, its migration, the smoke test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from infra.names import (
    APPLICATION,
    APPLICATION_PORT,
    COLOUR_LABEL,
    HEALTH_PATH,
    RELEASE_LABEL,
    RUNTIME_USER,
    SECRET_KEYS,
    SHOP_NAMESPACE,
    SHOP_PRIORITY_CLASS,
    Colour,
    colour_selector,
    workload_name,
)
from infra.release.record import Record, assert_plain, validated

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CONTAINER = "shopcat"
SERVICE_PORT = 80
MINIMUM_READY_SECONDS = 5
SMOKE = f"{APPLICATION}-smoke"
"""Label of the smoke test's pod."""


def _security(*, read_only: bool = True) -> dict[str, Any]:
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": read_only,
        "capabilities": {"drop": ["ALL"]},
    }


def _pod_security() -> dict[str, Any]:
    return {
        "runAsNonRoot": True,
        "runAsUser": RUNTIME_USER,
        "runAsGroup": RUNTIME_USER,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _container_environment(record: Record, colour: Colour) -> list[dict[str, Any]]:
    plain = {
        **record.template.environment,
        "SHOPCAT_RELEASE": record.tag,
        "SHOPCAT_COLOUR": colour,
        "PORT": str(APPLICATION_PORT),
    }
    return [
        *({"name": name, "value": plain[name]} for name in sorted(plain)),
        *(
            {"name": name, "valueFrom": {"secretKeyRef": {"name": record.secret_name, "key": key}}}
            for name, key in SECRET_KEYS.items()
        ),
    ]


def _container_resources(cpu_millicores: int, memory_mebibytes: int, disk_mebibytes: int = 0) -> dict[str, Any]:
    # No CPU limit: a throttled pod answers late; memory has one, equal to the request.
    disk = {"ephemeral-storage": f"{disk_mebibytes}Mi"} if disk_mebibytes else {}
    return {
        "requests": {"cpu": f"{cpu_millicores}m", "memory": f"{memory_mebibytes}Mi", **disk},
        "limits": {"memory": f"{memory_mebibytes}Mi"},
    }


def render_pod_template(record: Record, colour: Colour) -> dict[str, Any]:
    """Return the pod template of a release in a colour, as Kubernetes' own JSON.

    Raises:
        ShopCatError: the record holds anything but plain values.
    """
    validated(record)
    template, drain = record.template, record.template.drain
    probe = {"httpGet": {"path": HEALTH_PATH, "port": "http"}, "timeoutSeconds": 3}
    pod = {
        "metadata": {
            "labels": {**colour_selector(colour), RELEASE_LABEL: record.name},
        },
        "spec": {
            "terminationGracePeriodSeconds": drain.grace_seconds,
            "priorityClassName": SHOP_PRIORITY_CLASS,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": _pod_security(),
            "topologySpreadConstraints": [
                {
                    "maxSkew": 1,
                    "topologyKey": "kubernetes.io/hostname",
                    "whenUnsatisfiable": "DoNotSchedule",
                    # A cordoned node doesn't count, so one node alone can hold all pods while the other is drained.
                    "nodeTaintsPolicy": "Honor",
                    "labelSelector": {"matchLabels": colour_selector(colour)},
                    "matchLabelKeys": ["pod-template-hash"],
                }
            ],
            "containers": [
                {
                    "name": CONTAINER,
                    "image": template.image,
                    "imagePullPolicy": "IfNotPresent",
                    "ports": [{"name": "http", "containerPort": APPLICATION_PORT}],
                    "env": _container_environment(record, colour),
                    "resources": _container_resources(
                        template.cpu_millicores, template.memory_mebibytes, template.disk_mebibytes
                    ),
                    "securityContext": _security(),
                    "volumeMounts": [{"name": "scratch", "mountPath": "/tmp"}],  # noqa: S108 - inside the container
                    # The application's health path says 200 as long as the process lives, so it tells start and death
                    # apart and nothing else: who gets traffic is decided by gates, preStop and weights.
                    "startupProbe": {
                        **probe,
                        "periodSeconds": 1,
                        "failureThreshold": max(drain.startup_seconds, 1),
                    },
                    "readinessProbe": {**probe, "periodSeconds": 5, "failureThreshold": 3},
                    "livenessProbe": {**probe, "periodSeconds": 10, "failureThreshold": 6},
                    "lifecycle": {"preStop": {"sleep": {"seconds": drain.pre_stop_seconds}}},
                }
            ],
            "volumes": [{"name": "scratch", "emptyDir": {"sizeLimit": "64Mi"}}],
        },
    }
    assert_plain(pod, f"template of {record.tag}")
    return pod


def render_migration(record: Record, colour: Colour) -> dict[str, Any]:
    """Return the pod template of the release's migration: its own image, environment and secret, another command."""
    pod = render_pod_template(record, colour)
    spec, container = pod["spec"], pod["spec"]["containers"][0]
    for key in ("startupProbe", "readinessProbe", "livenessProbe", "lifecycle", "ports"):
        del container[key]
    del spec["topologySpreadConstraints"]
    container["name"] = "migrate"
    container["command"] = list(record.template.migrate)
    template = record.template
    container["resources"] = _container_resources(
        template.migrate_cpu_millicores, template.migrate_memory_mebibytes, template.disk_mebibytes
    )
    spec["restartPolicy"] = "Never"
    spec["terminationGracePeriodSeconds"] = 30
    pod["metadata"]["labels"] = {"app.kubernetes.io/name": f"{APPLICATION}-migrate", RELEASE_LABEL: record.name}
    return pod


SMOKE_SCRIPT = """\
set -eu
check() {
  headers=$(curl --silent --show-error --fail --max-time 10 --output /dev/null --dump-header - "$@") || return 1
  found=$(printf '%s' "$headers" | tr -d '\\r' | sed -n 's/^[Xx]-[Ss]hop[Cc]at-[Rr]elease: *//p')
  if [ -n "$found" ] && [ "$found" != "$RELEASE" ]; then
    echo "$*: expected release $RELEASE, got $found" >&2
    return 1
  fi
  echo "ok: $*"
}
left=10
until check "$SERVICE_URL/healthz"; do
  left=$((left - 1))
  [ "$left" -gt 0 ] || { echo "no answer of release $RELEASE from $SERVICE_URL" >&2; exit 1; }
  sleep 1
done
for path in /healthz / / / / /; do check "$SERVICE_URL$path" || exit 1; done
if [ -n "$PUBLIC_URL" ]; then
  late=$(($(date +%s) + PATIENCE_SECONDS))
  nodes=$(getent ahostsv4 "$LOAD_BALANCER" | cut -d ' ' -f 1 | sort -u)
  for node in ${nodes:-$LOAD_BALANCER}; do
    row=0
    while [ "$row" -lt 6 ]; do
      path=/; [ "$row" -gt 0 ] || path=/healthz
      if check --insecure --connect-to "::$node:" --header "X-ShopCat-Colour: $COLOUR" "$PUBLIC_URL$path"; then
        row=$((row + 1))
      else
        row=0
        [ "$(date +%s)" -lt "$late" ] || exit 1
        sleep 1
      fi
    done
  done
fi
"""
"""Connecting may take a moment after the pods are ready, and until then pods of the colour's former release that are on their
way out may answer; from then on every answer of the Service counts, without a retry.

By header each node of the load balancer answers from the new colour, six times in a row. A target that is healthy to one node
may not have reached the next, which answers 503 until then, and one that was deregistered goes on getting requests for a
while; so the nodes have the time that preStop allows for it, and no weight moves before each has answered so. The certificate
is not what is tested here, and its authority may be one that the image doesn't know."""
_SMOKE_SECONDS = 120
"""Longest time of a smoke test, besides its patience with the load balancer's nodes."""
SECRET_SECONDS = 180
"""Longest time until the operator has written a release's Secret."""


def smoke_deadline_seconds(record: Record) -> int:
    """Return the longest time that a release's smoke test may take."""
    return _SMOKE_SECONDS + record.template.drain.pre_stop_seconds


def render_smoke(record: Record, colour: Colour) -> dict[str, Any]:
    """Return the pod template of the smoke test against the colour's Service: health path and page, and that they are new."""
    pod = {
        "metadata": {"labels": {"app.kubernetes.io/name": SMOKE, RELEASE_LABEL: record.name}},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 5,
            "priorityClassName": SHOP_PRIORITY_CLASS,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": _pod_security(),
            "containers": [
                {
                    "name": "smoke",
                    "image": record.template.smoke_image,
                    "command": ["/bin/sh", "-c", SMOKE_SCRIPT],
                    "env": [
                        {"name": "RELEASE", "value": record.tag},
                        {"name": "COLOUR", "value": colour},
                        {"name": "PUBLIC_URL", "value": record.template.smoke_url},
                        {"name": "LOAD_BALANCER", "value": record.template.smoke_connect},
                        {"name": "PATIENCE_SECONDS", "value": str(record.template.drain.pre_stop_seconds)},
                        {"name": "SERVICE_URL", "value": f"http://{workload_name(colour)}.{SHOP_NAMESPACE}"},
                    ],
                    "resources": _container_resources(50, 64),
                    "securityContext": _security(),
                }
            ],
        },
    }
    assert_plain(pod, f"smoke test of {record.tag}")
    return pod


def ingress_policy(load_balancer_cidrs: Sequence[str], *, is_shared: bool = False) -> dict[str, Any]:
    """Allow into a pod of this namespace: the nodes of production's load balancer and the smoke test, at the application's port.

    A preview's pods and the previews' load balancer are neither, whatever policies their own namespace has.

    Args:
        load_balancer_cidrs: networks of production's load balancer.
        is_shared: the namespace has other programs' pods, which are left alone.
    """
    smoke = {"podSelector": {"matchLabels": {"app.kubernetes.io/name": SMOKE}}}
    return {
        "podSelector": {"matchExpressions": [{"key": COLOUR_LABEL, "operator": "Exists"}]} if is_shared else {},
        "policyTypes": ["Ingress"],
        "ingress": [
            {
                "from": [*({"ipBlock": {"cidr": cidr}} for cidr in load_balancer_cidrs), smoke],
                "ports": [{"protocol": "TCP", "port": APPLICATION_PORT}],
            }
        ],
    }


def deployment_spec(record: Record, colour: Colour, replicas: int, template: Mapping[str, Any]) -> dict[str, Any]:
    """Return the spec of a colour's Deployment, whose pods are made from ``template``."""
    return {
        "replicas": replicas,
        # `kubectl rollout pause` would keep a new release's pods from ever being made.
        "paused": False,
        "minReadySeconds": MINIMUM_READY_SECONDS,
        "progressDeadlineSeconds": record.template.drain.progress_deadline_seconds,
        "revisionHistoryLimit": 2,
        "selector": {"matchLabels": colour_selector(colour)},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "template": template,
    }
