"""The record of a release: the whole input of its pods, as plain values, and the pods rendered from it.

A colour is always declared from its record, so nothing that changes elsewhere (settings, an output of another resource)
can reach the template of running pods. Everything in a record is text, a number, a list or a map; `from_json` and
`render_pod_template` refuse anything else.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from infra.errors import Refused
from infra.names import (
    APPLICATION,
    APPLICATION_PORT,
    HEALTH_PATH,
    RUNTIME_USER,
    SECRET_KEYS,
    SHOP_NAMESPACE,
    SHOP_PRIORITY_CLASS,
    Colour,
    check_tag,
    colour_selector,
    workload_name,
)

if TYPE_CHECKING:
    from infra.timeouts import DrainBudget


CONTAINER = "shopcat"
SERVICE_PORT = 80
MINIMUM_READY_SECONDS = 5
AFTER_VARIABLE = "SHOPCAT_AFTER"
"""Environment variable with :attr:`Provenance.after`; what was live, by name, or `nothing`."""
SMOKE = f"{APPLICATION}-smoke"
"""Label of the smoke test's pod."""

_RECORDED_TAG = re.compile(r"[a-z0-9][a-z0-9.-]{0,39}")
"""What the ledger may hold from before: it stays readable."""
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")

Plain: TypeAlias = "str | int | bool | list[Plain] | dict[str, Plain] | None"


@dataclass(frozen=True)
class DrainNumbers:
    """The waits that pods of this release live by; from the drain budget at the time of the claim."""

    app_drain_seconds: int
    pre_stop_seconds: int
    grace_seconds: int
    progress_deadline_seconds: int
    startup_seconds: int
    pulumi_timeout_seconds: int

    @staticmethod
    def of(budget: DrainBudget) -> DrainNumbers:
        """Take those that a record keeps."""
        return DrainNumbers(
            app_drain_seconds=budget.app_drain_seconds,
            pre_stop_seconds=budget.pre_stop_seconds,
            grace_seconds=budget.grace_seconds,
            progress_deadline_seconds=budget.progress_deadline_seconds,
            startup_seconds=budget.startup_seconds,
            pulumi_timeout_seconds=budget.pulumi_timeout_seconds,
        )


@dataclass(frozen=True)
class TemplateInput:
    """Everything that decides what the pods and Jobs of a release are. Two equal ones make equal pods.

    Records outlive the program that wrote them: a field that is added later needs a default, and with it
    `render_pod_template` must make the same pods as before.
    """

    image: str
    """The application's image by digest."""
    replicas: int
    cpu_millicores: int
    memory_mebibytes: int
    environment: Mapping[str, str]
    """Plain values; what is secret comes by `secret_id`."""
    secret_id: str
    """Name or ARN of the application's own secret in Secrets Manager."""
    secret_version: str
    """Its version id: a restarted pod keeps the secret its release began with."""
    drain: DrainNumbers
    smoke_image: str
    """A tool image with curl, by digest."""
    smoke_url: str
    """The shop's URL, which the smoke test asks through the load balancer; nothing leaves that out."""
    migrate: tuple[str, ...] = ()
    """Command of the migration Job in the new image; nothing means none."""
    migrate_deadline_seconds: int = 300
    migrate_cpu_millicores: int = 50
    migrate_memory_mebibytes: int = 64
    """The defaults are what every migration had before the settings said it."""
    smoke_connect: str = ""
    """The load balancer's own name, so that the smoke test doesn't hang on a DNS entry."""
    disk_mebibytes: int = 0
    """Part of a node's disk; releases from before it was asked for have none."""
    contracts: bool = False
    """The migration removes something the release before needs: no rollback past this release."""


@dataclass(frozen=True)
class Provenance:
    """Who released it, from what. Never part of a template."""

    who: str = ""
    commit: str = ""
    run: str = ""
    after: str = ""
    """Name of the release that was live when CI found its commit in the history of this one; empty if nobody looked."""


@dataclass(frozen=True)
class Record:
    """One revision of one tag."""

    tag: str
    revision: int
    template: TemplateInput
    provenance: Provenance = field(default_factory=Provenance)

    @property
    def digest(self) -> str:
        """`sha256:…` of the image."""
        return self.template.image.rpartition("@")[2]

    @property
    def name(self) -> str:
        """The release in object names and messages: `v1.4.0-r1`."""
        return release_name(self.tag, self.revision)

    @property
    def secret_name(self) -> str:
        """The release's own ExternalSecret and Secret."""
        return f"{APPLICATION}-{self.name}"

    def to_json(self) -> str:
        """The record as text, the same for equal records."""
        return json.dumps(_open(self), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Record:
        """The record that `to_json` wrote.

        Raises:
            Refused: it is not one.
        """
        try:
            raw = json.loads(text)
            template = {**raw["template"], "migrate": tuple(raw["template"]["migrate"])}
            template["drain"] = DrainNumbers(**template["drain"])
            record = cls(
                tag=raw["tag"],
                revision=raw["revision"],
                template=TemplateInput(**template),
                provenance=Provenance(**raw["provenance"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise Refused(f"the ledger holds a release record that this program can't read: {error!r}") from error
        return validated(record)


def _open(value: Any) -> Any:
    """Dataclasses as maps, all the way down; other values as they are, so that what isn't plain can still be named."""
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: _open(getattr(value, each.name)) for each in fields(value)}
    return value


def release_name(tag: str, revision: int) -> str:
    """`v1.4.0-r1`, usable in names of Kubernetes objects."""
    return f"{tag}-r{revision}"


def validated(record: Record) -> Record:
    """The record itself, if every value in it is plain and the image is known by digest.

    Raises:
        Refused: it is not.
    """
    if not isinstance(record.tag, str) or not _RECORDED_TAG.fullmatch(record.tag):
        check_tag(str(record.tag))
    assert_plain(_open(record), f"record of {record.tag}")
    for what, image in (("image", record.template.image), ("smoke image", record.template.smoke_image)):
        if not _DIGEST.fullmatch(image.rpartition("@")[2]):
            raise Refused(f"{what} {image!r} of {record.tag} is not given by digest (…@sha256:…)")
    if record.revision < 1 or record.template.replicas < 1:
        raise Refused(f"record of {record.tag}: revision and replicas start at 1")
    return record


def assert_plain(value: object, where: str) -> None:
    """Nothing but text, whole numbers, truth values, lists and maps of them.

    Raises:
        Refused: something else is in it, such as an output of another resource that is only known later.
    """
    if value is None or type(value) in (str, int, bool):
        return
    if type(value) in (list, tuple):
        for index, each in enumerate(value):  # type: ignore[var-annotated, arg-type]
            assert_plain(each, f"{where}[{index}]")
        return
    if isinstance(value, Mapping):
        for key, each in value.items():
            if type(key) is not str:
                raise Refused(f"{where}: key {key!r} is no text; a release is made of plain values only")
            assert_plain(each, f"{where}.{key}")
        return
    raise Refused(f"{where} is a {type(value).__name__}; a release is made of plain values only")


def template_differences(wanted: TemplateInput, live: TemplateInput) -> list[str]:
    """What the settings would change in the live release, one line per value; empty when they agree."""
    before, after = _flat(_open(live)), _flat(_open(wanted))
    return [
        f"{key}: live {before.get(key)!r}, settings {after.get(key)!r}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, each in value.items():
        if isinstance(each, Mapping):
            flat.update(_flat(each, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = each
    return flat


def fingerprint(document: Mapping[str, Any]) -> str:
    """A short hash of plain values, such as a pod template; the order of keys doesn't matter."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def with_image(template: TemplateInput, image: str) -> TemplateInput:
    """The same input for another image."""
    return replace(template, image=image)


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


def _environment(record: Record, colour: Colour) -> list[dict[str, Any]]:
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


def _resources(cpu_millicores: int, memory_mebibytes: int, disk_mebibytes: int = 0) -> dict[str, Any]:
    # No CPU limit: a throttled pod answers late; memory has one, equal to the request.
    disk = {"ephemeral-storage": f"{disk_mebibytes}Mi"} if disk_mebibytes else {}
    return {
        "requests": {"cpu": f"{cpu_millicores}m", "memory": f"{memory_mebibytes}Mi", **disk},
        "limits": {"memory": f"{memory_mebibytes}Mi"},
    }


def render_pod_template(record: Record, colour: Colour) -> dict[str, Any]:
    """The pod template of a release in a colour, as Kubernetes' own JSON.

    Raises:
        Refused: the record holds anything but plain values.
    """
    validated(record)
    template, drain = record.template, record.template.drain
    probe = {"httpGet": {"path": HEALTH_PATH, "port": "http"}, "timeoutSeconds": 3}
    pod = {
        "metadata": {
            "labels": {**colour_selector(colour), "shopcat/release": record.name},
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
                    "env": _environment(record, colour),
                    "resources": _resources(
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
    """The pod template of the release's migration: its own image, environment and secret, another command."""
    pod = render_pod_template(record, colour)
    spec, container = pod["spec"], pod["spec"]["containers"][0]
    for key in ("startupProbe", "readinessProbe", "livenessProbe", "lifecycle", "ports"):
        del container[key]
    del spec["topologySpreadConstraints"]
    container["name"] = "migrate"
    container["command"] = list(record.template.migrate)
    template = record.template
    container["resources"] = _resources(
        template.migrate_cpu_millicores, template.migrate_memory_mebibytes, template.disk_mebibytes
    )
    spec["restartPolicy"] = "Never"
    spec["terminationGracePeriodSeconds"] = 30
    pod["metadata"]["labels"] = {"app.kubernetes.io/name": f"{APPLICATION}-migrate", "shopcat/release": record.name}
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
SMOKE_SECONDS = 120
"""What a smoke test takes at most, besides its patience with the load balancer's nodes."""


def render_smoke(record: Record, colour: Colour) -> dict[str, Any]:
    """The pod template of the smoke test against the colour's Service: health path and page, and that they are new."""
    pod = {
        "metadata": {"labels": {"app.kubernetes.io/name": SMOKE, "shopcat/release": record.name}},
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
                    "resources": _resources(50, 64),
                    "securityContext": _security(),
                }
            ],
        },
    }
    assert_plain(pod, f"smoke test of {record.tag}")
    return pod


def template_fields() -> tuple[str, ...]:
    """Names of everything a template is made of, for messages and documents."""
    return tuple(each.name for each in fields(TemplateInput))
