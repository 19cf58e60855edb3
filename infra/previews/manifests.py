"""The objects that a preview declares in its namespace, as Kubernetes' own JSON.

The preview declares these objects (preview.py), and production admits nothing else (admitted_shapes.py): both call the same
functions, production those of the main branch. So they are data, and not the SDK's typed arguments.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from infra import capacity
from infra.names import APPLICATION, APPLICATION_PORT, DATABASE_PORT, RELEASE_LABEL, SECRET_KEYS
from infra.previews import isolation, slots
from infra.previews.isolation import DATABASE_WORKLOAD, preview_selector
from infra.release.manifests import MINIMUM_READY_SECONDS, SERVICE_PORT, render_pod_template
from infra.release.record import DrainNumbers, Record, TemplateInput

if TYPE_CHECKING:
    from infra.settings import PreviewSettings as Settings

DATABASE_USER = 70
"""Uid of postgres in the Alpine image (github.com/docker-library/postgres, Dockerfile-alpine.template)."""
_SIZES = {"data": "512Mi", "run": "16Mi", "scratch": "64Mi"}
"""Sizes of the database's folders; together they are less than its disk (capacity.PREVIEW_DATABASE)."""


def record(settings: Settings, image_by_digest: str, url: str) -> Record:
    """Return the application as production would release it, in a preview's size."""
    return Record(
        tag=settings.tag,
        revision=1,
        template=TemplateInput(
            image=image_by_digest,
            replicas=1,
            cpu_millicores=capacity.PREVIEW_APPLICATION.cpu_millicores,
            memory_mebibytes=capacity.PREVIEW_APPLICATION.memory_mebibytes,
            environment={
                **settings.env,
                "DATABASE_POOL_SIZE": str(settings.database_pool_size),
                "DATABASE_SSLMODE": "disable",
                "SHOPCAT_PUBLIC_URL": url,
            },
            secret_id=APPLICATION,
            secret_version="",
            drain=DrainNumbers.of(settings.drain.budget),
            smoke_image=image_by_digest,
            smoke_url=url,
        ),
    )


def application_pod(release: Record, priority_class: str) -> dict[str, Any]:
    """Return production's pod, but for what only production has: colours, two nodes to spread over, its priority."""
    pod = render_pod_template(release, "blue")
    pod["metadata"]["labels"] = {**preview_selector(APPLICATION), RELEASE_LABEL: release.tag}
    spec = pod["spec"]
    spec["priorityClassName"] = priority_class
    del spec["topologySpreadConstraints"]
    container = spec["containers"][0]
    container["resources"] = isolation.resources(capacity.PREVIEW_APPLICATION)
    container["env"] = [variable for variable in container["env"] if variable["name"] != "SHOPCAT_COLOUR"]
    for variable in container["env"]:
        if "valueFrom" in variable:
            variable["valueFrom"]["secretKeyRef"]["name"] = APPLICATION
    return pod


def database_pod(image_by_digest: str, priority_class: str) -> dict[str, Any]:
    """Return PostgreSQL whose data lives as long as its pod."""
    probe = {"exec": {"command": ["pg_isready", "--quiet", "--host=127.0.0.1", f"--username={APPLICATION}"]}}
    folders = {"data": "/var/lib/postgresql/data", "run": "/var/run/postgresql", "scratch": "/tmp"}  # noqa: S108 - inside the container
    return {
        "metadata": {"labels": preview_selector(DATABASE_WORKLOAD)},
        "spec": {
            "terminationGracePeriodSeconds": 5,
            "priorityClassName": priority_class,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": DATABASE_USER,
                "runAsGroup": DATABASE_USER,
                "fsGroup": DATABASE_USER,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "postgresql",
                    "image": image_by_digest,
                    "imagePullPolicy": "IfNotPresent",
                    "ports": [{"name": "postgresql", "containerPort": DATABASE_PORT}],
                    "env": [
                        {"name": "PGDATA", "value": f"{folders['data']}/pgdata"},
                        *(
                            {"name": name, "valueFrom": {"secretKeyRef": {"name": APPLICATION, "key": key}}}
                            for name, key in (
                                ("POSTGRES_DB", SECRET_KEYS["DATABASE_NAME"]),
                                ("POSTGRES_USER", SECRET_KEYS["DATABASE_USER"]),
                                ("POSTGRES_PASSWORD", SECRET_KEYS["DATABASE_PASSWORD"]),
                            )
                        ),
                    ],
                    "resources": isolation.resources(capacity.PREVIEW_DATABASE),
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "readinessProbe": {**probe, "periodSeconds": 2, "failureThreshold": 3},
                    "volumeMounts": [{"name": name, "mountPath": path} for name, path in folders.items()],
                }
            ],
            "volumes": [{"name": name, "emptyDir": {"sizeLimit": _SIZES[name]}} for name in folders],
        },
    }


def application_deployment(release: Record, priority_class: str) -> Any:
    """Return the spec of the application's Deployment."""
    return {
        "replicas": 1,
        "minReadySeconds": MINIMUM_READY_SECONDS,
        "progressDeadlineSeconds": release.template.drain.progress_deadline_seconds,
        "revisionHistoryLimit": 1,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "selector": {"matchLabels": preview_selector(APPLICATION)},
        "template": application_pod(release, priority_class),
    }


def database_deployment(image_by_digest: str, priority_class: str) -> Any:
    """Return the spec of the database's Deployment."""
    return {
        "replicas": 1,
        "revisionHistoryLimit": 1,
        "strategy": {"type": "Recreate"},
        "selector": {"matchLabels": preview_selector(DATABASE_WORKLOAD)},
        "template": database_pod(image_by_digest, priority_class),
    }


def service(name: str) -> Any:
    """Return the spec of the application's or of the database's Service."""
    port, target = (SERVICE_PORT, APPLICATION_PORT) if name == APPLICATION else (DATABASE_PORT, DATABASE_PORT)
    return {
        "type": "ClusterIP",
        "selector": preview_selector(name),
        "ports": [{"name": name, "port": port, "targetPort": target, "protocol": "TCP"}],
    }


def external_secret(namespace: str) -> dict[str, Any]:
    """Return the spec of the ExternalSecret: read once, since the database was made with what was there."""
    secret = slots.secret_name(namespace)
    return {
        "refreshPolicy": "CreatedOnce",
        "secretStoreRef": {"kind": "SecretStore", "name": isolation.PREVIEW_STORE},
        "target": {"name": APPLICATION, "creationPolicy": "Owner", "deletionPolicy": "Retain"},
        "data": [{"secretKey": key, "remoteRef": {"key": secret, "property": key}} for key in SECRET_KEYS.values()],
    }


def target_group_binding(target_group_arn: Any) -> dict[str, Any]:
    """Return the spec of the TargetGroupBinding that puts the application's pods into the preview's target group."""
    return {
        "serviceRef": {"name": APPLICATION, "port": SERVICE_PORT},
        "targetGroupARN": target_group_arn,
        "targetType": "ip",
    }
