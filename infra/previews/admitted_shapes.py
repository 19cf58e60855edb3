"""Templates of what a preview's objects may be, generated from the very functions that declare them (manifests.py).

Production runs these functions on the main branch: each field has the value that they give it, or is one of the few named here
that a pull request may choose, within bounds. Every other field is refused (foundation/cel.py). So scheduling, grace, volumes,
probes, security and whatever Kubernetes adds to a pod one day are production's to change.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from infra import capacity
from infra.foundation.cel import Free, between, default, literal, same_quantities, same_quantity
from infra.names import APPLICATION, PREVIEW_PRIORITY_CLASS, RELEASE_LABEL, SECRET_KEYS
from infra.previews import manifests
from infra.release.record import DrainNumbers, Record, TemplateInput
from infra.settings.limits import BY_DIGEST, LONGEST_WAIT_SECONDS, TAG

ENVIRONMENT_CHARACTERS = 16_384
"""Most characters of the application's environment: an object stays small, however often it is written."""
ENVIRONMENT_VARIABLES = 128
_GATE = f"target-health.elbv2.k8s.aws/{APPLICATION}"
_SCHEDULER_TOLERATIONS = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


def escaped(text: str) -> str:
    """Write the text as a regular expression (RE2) that matches it alone."""
    return text.replace(".", "[.]").replace("+", "[+]")


def application_image(repository: str) -> Free:
    """Leave open an image of the previews' own repository, by digest, in its one spelling."""
    pattern = f"^{escaped(repository)}{BY_DIGEST}$"
    return Free(lambda path: f"{path}.matches({literal(pattern)})", f"{repository}@sha256:<digest>, written exactly so")


def database_image(configured: str) -> Free:
    """Leave open an image of the database's repository as production's settings name it, in any version, by digest."""
    repository = re.sub(r":[^/:]*$", "", configured.partition("@")[0])
    pattern = f"^{escaped(repository)}({TAG})?{BY_DIGEST}$"
    return Free(
        lambda path: f"{path}.matches({literal(pattern)})", f"{repository}@sha256:<digest>, a tag before it or none"
    )


def environment_shape() -> Free:
    """Leave open plain values, and what the application reads of the preview's own Secret."""
    secrets = [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": APPLICATION, "key": key}}}
        for name, key in SECRET_KEYS.items()
    ]

    def holds(path: str) -> str:
        return " && ".join(
            [
                f"{path}.size() <= {ENVIRONMENT_VARIABLES}",
                f"{path}.all(one, one in {literal(secrets)} || one.all(key, key in ['name', 'value']))",
                f"{path}.map(one, one.name.size() + (has(one.value) ? one.value.size() : 0)).sum() <= {ENVIRONMENT_CHARACTERS}",
            ]
        )

    return Free(
        holds,
        f"names with plain values, {ENVIRONMENT_CHARACTERS} characters together, and the preview's own Secret as the program "
        "reads it",
    )


def _quantities(wanted: Mapping[str, str]) -> Free:
    return Free(lambda path: same_quantities(path, wanted), f"exactly {dict(wanted)}")


def _exact_quantity(wanted: str) -> Free:
    return Free(lambda path: same_quantity(path, wanted), f"exactly {wanted}")


def _short_text(most: int) -> Free:
    return Free(lambda path: f"{path}.size() <= {most}", f"at most {most} characters")


def _with_defaults(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Complete a pod's spec as the API server does (kubernetes/pkg/apis/core/v1/defaults.go)."""
    completed = {
        "dnsPolicy": "ClusterFirst",
        "restartPolicy": "Always",
        "schedulerName": "default-scheduler",
        **deepcopy(dict(spec)),
    }
    for container in completed["containers"]:
        container |= {"terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"}
        container["ports"] = [{"protocol": "TCP", **port} for port in container["ports"]]
        container["resources"] = {name: _quantities(quantities) for name, quantities in container["resources"].items()}
        for name in ("startupProbe", "readinessProbe", "livenessProbe"):
            if name in container:
                probe = {"timeoutSeconds": 1, "successThreshold": 1, **container[name]}
                if "httpGet" in probe:
                    probe["httpGet"] = {"scheme": "HTTP", **probe["httpGet"]}
                container[name] = probe
    for volume in completed["volumes"]:
        volume["emptyDir"] = {"sizeLimit": _exact_quantity(volume["emptyDir"]["sizeLimit"])}
    return completed


def _sample() -> Record:
    """Return a release of the right shape; what a pull request may choose of it is replaced."""
    size = capacity.PREVIEW_APPLICATION
    return Record(
        tag="sample",
        revision=1,
        template=TemplateInput(
            image=f"sample@sha256:{'0' * 64}",
            replicas=1,
            cpu_millicores=size.cpu_millicores,
            memory_mebibytes=size.memory_mebibytes,
            environment={},
            secret_id=APPLICATION,
            secret_version="",
            drain=DrainNumbers(1, 1, 3, 1, 1, 1),
            smoke_image=f"sample@sha256:{'0' * 64}",
            smoke_url="",
        ),
    )


def application_shape(repository: str, most_grace_seconds: int) -> dict[str, Any]:
    """Return the template of the application's Deployment.

    Args:
        repository: of previews' images, with its registry.
        most_grace_seconds: how long a pod may take to end.
    """
    spec = manifests.application_deployment(_sample(), PREVIEW_PRIORITY_CLASS)
    spec["progressDeadlineSeconds"] = between(1, LONGEST_WAIT_SECONDS, " s")
    spec["replicas"] = between(0, 1)
    template = spec["template"]
    template["metadata"]["labels"][RELEASE_LABEL] = _short_text(63)
    pod = template["spec"] = _with_defaults(template["spec"])
    pod["terminationGracePeriodSeconds"] = between(
        1, most_grace_seconds, " s, as long as production's pods (shopcat:drain)"
    )
    (container,) = pod["containers"]
    container["image"] = application_image(repository)
    container["env"] = environment_shape()
    container["startupProbe"]["failureThreshold"] = between(1, LONGEST_WAIT_SECONDS)
    container["lifecycle"]["preStop"]["sleep"]["seconds"] = between(0, most_grace_seconds, " s")
    return _completed(spec)


def database_shape(configured: str) -> dict[str, Any]:
    """Return the template of the database's Deployment.

    Args:
        configured: an image of the repository that its own may come from.
    """
    spec = manifests.database_deployment("", PREVIEW_PRIORITY_CLASS)
    spec["progressDeadlineSeconds"] = 600
    spec["replicas"] = between(0, 1)
    pod = spec["template"]["spec"] = _with_defaults(spec["template"]["spec"])
    pod["containers"][0]["image"] = database_image(configured)
    return _completed(spec)


def _completed(spec: dict[str, Any]) -> dict[str, Any]:
    """Leave open the `creationTimestamp` of null that a template has up to Kubernetes 1.33."""
    spec["template"]["metadata"]["creationTimestamp"] = default(None)
    return spec


def pod_shape(deployment: Mapping[str, Any], priority: int) -> dict[str, Any]:
    """Return the spec of a pod that the Deployment's ReplicaSet makes, with what admission adds to it before it is judged."""
    tolerated = (
        f"one.key in {literal(list(_SCHEDULER_TOLERATIONS))} && one.effect == 'NoExecute' && one.operator == 'Exists'"
    )
    return {
        **deployment["template"]["spec"],
        "priority": priority,
        "preemptionPolicy": "Never",
        "serviceAccountName": "default",
        "serviceAccount": default("default"),
        "tolerations": Free(
            lambda path: f"{path}.all(one, {tolerated} && has(one.tolerationSeconds) && one.tolerationSeconds <= 300)",
            "those that Kubernetes gives every pod",
            optional=True,
        ),
        "readinessGates": Free(
            lambda path: f"{path}.all(one, one == {literal({'conditionType': _GATE})})", f"{_GATE} alone", optional=True
        ),
    }


def pod_labels(deployment: Mapping[str, Any]) -> dict[str, Any]:
    """Return the labels of such a pod."""
    return {**deployment["template"]["metadata"]["labels"], "pod-template-hash": _short_text(63)}


def service_shape(name: str) -> dict[str, Any]:
    """Return the template of a Service, with the address that it is given."""
    text = Free(lambda path: f"{path}.size() <= 45", "an address")
    several = Free(lambda path: f"{path}.size() <= 2", "one or two")
    return {
        **manifests.service(name),
        "clusterIP": text,
        "clusterIPs": several,
        "ipFamilies": several,
        "ipFamilyPolicy": "SingleStack",
        "internalTrafficPolicy": "Cluster",
        "sessionAffinity": "None",
    }


def external_secret_shape() -> dict[str, Any]:
    """Return the template of the ExternalSecret, with its definition's defaults (external-secrets, apis/externalsecrets/v1)."""
    spec = manifests.external_secret("pr-1")
    before, after = spec["data"][0]["remoteRef"]["key"].split("pr-1")
    named = f"{literal(before)} + request.namespace + {literal(after)}"
    key = Free(lambda path: f"{path} == {named}", f"{before}pr-<n>{after} of its own number")
    defaults = {"conversionStrategy": "Default", "decodingStrategy": "None", "metadataPolicy": "None"}
    for entry in spec["data"]:
        entry["remoteRef"] = {
            **entry["remoteRef"],
            "key": key,
            **{name: default(value) for name, value in defaults.items()},
        }
    hourly = Free(
        lambda path: f"{path} in ['1h', '1h0m0s']", "1h or nothing; with CreatedOnce it says nothing", optional=True
    )
    return {**spec, "refreshInterval": hourly}


def target_group_binding_shape(arn_prefix: str) -> dict[str, Any]:
    """Return the template of the TargetGroupBinding, with what the load balancer controller's webhook adds (webhooks/elbv2).

    Args:
        arn_prefix: CEL of what its target group's ARN starts with.
    """
    arn = Free(lambda path: f"{path}.startsWith({arn_prefix})", "the target group shopcat-pr-<n> of its own number")
    return {
        **manifests.target_group_binding(arn),
        "ipAddressType": default("ipv4"),
        "targetGroupProtocol": default("HTTP"),
        "vpcID": Free(lambda path: f"{path}.size() <= 32", "the VPC's id", optional=True),
    }
