"""Argo Rollouts beside ours: the canary with `pingPong` that its documentation recommends for an ALB, and its blue/green.

Both have the image, requests, probes, preStop and grace period of the patched chart, and an Ingress of their own. The controller
is the published one of 1.8.3, installed from the manifests in its module, with `--aws-verify-target-group`.

The numbers, and where they are from (argo-rollouts.readthedocs.io/en/stable/features):

* `scaleDownDelaySeconds`: the load balancer's worst propagation and the longest request. traffic-management/alb says that the
  default of 30 s has to be long enough for targets to be deregistered.
* canary: all pods of the new version first (`setCanaryScale`), then 10 % for two whole minutes of CloudWatch, then all. Ours
  does the same.
* `abortScaleDownDelaySeconds`: as long, so that an abort has left the load balancer before the pods go.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from bench import pods, run
from bench.system import State, Target
from bench.systems import execute
from infra.timeouts import METRIC_MINUTES_SECONDS, DrainBudget
from twin import config, pulumi
from twin.build import image_layers, programs
from twin.build.golang import ARGO_ROLLOUTS
from twin.config import Twin
from twin.errors import TwinError
from twin.host import processes
from twin.images.registry_client import push_recipe
from twin.loadbalancer.addresses import NodeAddresses
from twin.scenarios import production

CONTROLLER = "argo-rollouts"
_IMAGE = f"quay.io/argoproj/argo-rollouts:v{ARGO_ROLLOUTS}"
_ROLLOUT = "shopcat"
_CANARY_PERCENT = 10
_READ = [f"elasticloadbalancing:Describe{what}" for what in (
    "TargetGroups", "LoadBalancers", "Listeners", "Rules", "Tags", "TargetHealth",
)]  # fmt: skip
"""What --aws-verify-target-group calls (features/traffic-management/alb, "Required IAM permissions")."""


def install_controller(twin: Twin) -> None:
    """Install the controller as its documentation says, with rights to read the load balancer.

    Raises:
        TwinError: it does not come up.
    """
    push_recipe(twin, image_layers.program_recipe(twin, _IMAGE, "rollouts-controller", "/bin/rollouts-controller"))
    manifests = programs.directory(twin, "rollouts-controller") / "manifests" / "install.yaml"
    documents = [document for document in yaml.safe_load_all(manifests.read_text()) if document]
    for document in documents:
        if document["kind"] == "Deployment":
            _adjust(twin, document["spec"]["template"]["spec"])
    _grant(twin)
    execute(twin, ["kubectl", "create", "namespace", CONTROLLER])
    text = yaml.safe_dump_all(documents)
    apply = ["kubectl", "apply", "--server-side", "-n", CONTROLLER, "-f", "-"]
    execute(twin, apply, stdin=text)
    execute(twin, ["kubectl", "rollout", "status", f"deployment/{CONTROLLER}", "-n", CONTROLLER, "--timeout=180s"])


def _adjust(twin: Twin, pod: dict[str, Any]) -> None:
    (container,) = pod["containers"]
    container |= {"image": _IMAGE, "imagePullPolicy": "IfNotPresent", "args": ["--aws-verify-target-group"]}
    container["env"] = [
        {"name": "AWS_REGION", "value": config.region()},
        {"name": "AWS_ENDPOINT_URL", "value": twin.aws_endpoint},
    ]
    # The module's image runs as a user of its own, which its Dockerfile names; here there is no Dockerfile.
    pod["securityContext"] = {**pod["securityContext"], "runAsUser": 999}


def _grant(twin: Twin) -> None:
    iam, eks = pulumi.client(twin, "iam"), pulumi.client(twin, "eks")
    trust = {
        "Effect": "Allow",
        "Principal": {"Service": "pods.eks.amazonaws.com"},
        "Action": ["sts:AssumeRole", "sts:TagSession"],
    }
    role = iam.create_role(
        RoleName=CONTROLLER, AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    )["Role"]["Arn"]
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": _READ, "Resource": "*"}]}
    iam.put_role_policy(RoleName=CONTROLLER, PolicyName=CONTROLLER, PolicyDocument=json.dumps(policy))
    (cluster,) = eks.list_clusters()["clusters"]
    eks.create_pod_identity_association(
        clusterName=cluster, namespace=CONTROLLER, serviceAccount=CONTROLLER, roleArn=role
    )


class Argo:
    """One Rollout with its Services and its Ingress; the controller is installed already."""

    name = ""
    title = ""
    services: tuple[str, ...] = ()

    def __init__(self, twin: Twin, directory: Path, budget: DrainBudget) -> None:
        self._twin, self._directory, self._budget = twin, directory, budget
        self.namespace = self.name

    def strategy(self) -> dict[str, Any]:
        """Return the Rollout's strategy."""
        raise NotImplementedError

    def ingress(self) -> dict[str, Any]:
        """Return the Ingress."""
        raise NotImplementedError

    # The system -------------------------------------------------------------------------------------------------------

    def install(self, tag: str) -> None:
        """Make namespace, Secret, Services and Ingress; once the load balancer is there the Rollout; wait until it answers."""
        labels = {"elbv2.k8s.aws/pod-readiness-gate-inject": "enabled"}
        self._apply(
            {"kind": "Namespace", "metadata": {"name": self.namespace, "labels": labels}}, "v1", namespaced=False
        )
        secret = run.application_secret(self._twin)
        self._apply(
            {"kind": "Secret", "metadata": {"name": _ROLLOUT}, "stringData": {"password": secret["password"]}}, "v1"
        )
        for service in self.services:
            port = {"name": "http", "port": 80, "targetPort": "http"}
            self._apply(
                {
                    "kind": "Service",
                    "metadata": {"name": service},
                    "spec": {"selector": {"app": _ROLLOUT}, "ports": [port]},
                },
                "v1",
            )
        self._apply(self.ingress(), "networking.k8s.io/v1")
        # Pods that are older than their binding have no readiness gate.
        processes.wait_until(lambda: bool(self.load_balancer()), "Argo's load balancer", timeout_seconds=120)
        self._apply(self._rollout(tag, secret), "argoproj.io/v1alpha1")
        processes.wait_until(lambda: self.state().settled, f"{self.name}: first release", timeout_seconds=300)
        processes.wait_until(lambda: bool(self.addresses()), f"{self.name}: address", timeout_seconds=60)

    def start(self, tag: str) -> subprocess.Popen[str]:
        """Apply the Rollout with another image, and wait until it is healthy or degraded."""
        self._apply(self._rollout(tag, run.application_secret(self._twin)), "argoproj.io/v1alpha1")
        return self._wait()

    def go_on(self, tag: str) -> subprocess.Popen[str]:
        """Wait: the controller goes on by itself, whoever has started it."""
        del tag
        return self._wait()

    def undo(self) -> subprocess.Popen[str]:
        """Abort what is under way, or go back to the former revision, as `kubectl argo rollouts abort` and `undo` do."""
        state = self._read()
        if state["status"].get("phase") in ("Progressing", "Paused"):
            self._patch({"status": {"abort": True}}, subresource="status")
        else:
            self._patch_template(self._former_template())
        return self._wait()

    def state(self) -> State:
        """Read what the Rollout says of itself, and which pods there are."""
        rollout = self._read()
        status = rollout.get("status", {})
        listed = self._get("pods", "-l", f"app={_ROLLOUT}")["items"]
        leaving = any(pods.is_leaving(pod) for pod in listed)
        current = str(status.get("observedGeneration")) == str(rollout["metadata"]["generation"])
        done = status.get("phase") in ("Healthy", "Degraded") and current
        ready = [pod for pod in listed if pods.is_ready(pod)]
        settled = done and not leaving and len(ready) == len(listed) == rollout["spec"]["replicas"]
        tags = {pod["spec"]["containers"][0]["image"].rpartition(":")[2] for pod in ready}
        serving = tags.pop() if len(tags) == 1 else ""
        return State(serving, settled, f"{status.get('phase')}: {status.get('message', '')}")

    def has_ready_pod(self, tag: str) -> bool:
        """Tell whether a pod of the tag is ready."""
        listed = self._get("pods", "-l", f"app={_ROLLOUT}")["items"]
        return any(pods.is_ready(pod) and pod["spec"]["containers"][0]["image"].endswith(f":{tag}") for pod in listed)

    def target(self) -> Target:
        """Return one of its load balancer's nodes, by plain HTTP as its Ingress listens."""
        return Target(self.addresses()[0], f"{self.name}.example.com", 80, None)

    # Its load balancer ------------------------------------------------------------------------------------------------

    def load_balancer(self) -> str:
        """Return the ARN of the Ingress's load balancer; nothing while there is none."""
        ingress = self._get("ingress", _ROLLOUT)
        names = [
            each["hostname"] for each in ((ingress.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []
        ]
        listed = pulumi.client(self._twin, "elbv2").describe_load_balancers()["LoadBalancers"]
        return next((each["LoadBalancerArn"] for each in listed if each["DNSName"].lower() in names), "")

    def addresses(self) -> list[str]:
        """Return the addresses of its nodes on this machine's loopback; none while the load balancer has none."""
        nodes = NodeAddresses(self._twin, self._twin.directory / "loadbalancer" / "ordinals.json")
        try:
            return list(nodes.of(self.load_balancer(), loopback=True))
        except KeyError:
            return []

    # Objects ----------------------------------------------------------------------------------------------------------

    def _image(self, tag: str) -> str:
        return f"{config.registry_host()}/{production.REPOSITORY_NAME}:{tag}"

    def _rollout(self, tag: str, secret: Mapping[str, str]) -> dict[str, Any]:
        plain = {
            "PORT": "8080",
            "DATABASE_HOST": secret["host"],
            "DATABASE_PORT": str(secret["port"]),
            "DATABASE_NAME": secret["dbname"],
            "DATABASE_USER": secret["username"],
            "APP_DRAIN_SECONDS": str(int(self._budget.app_drain_seconds)),
        }
        probe = {"httpGet": {"path": "/healthz", "port": "http"}}
        container = {
            "name": _ROLLOUT,
            "image": self._image(tag),
            "ports": [{"name": "http", "containerPort": 8080}],
            "env": [
                *({"name": name, "value": value} for name, value in plain.items()),
                {"name": "DATABASE_PASSWORD", "valueFrom": {"secretKeyRef": {"name": _ROLLOUT, "key": "password"}}},
            ],
            "livenessProbe": probe,
            "readinessProbe": probe,
            "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(self._budget.pre_stop_seconds)]}}},
            "resources": {"requests": {"cpu": "200m", "memory": "384Mi"}, "limits": {"memory": "384Mi"}},
        }
        return {
            "kind": "Rollout",
            "metadata": {"name": _ROLLOUT},
            "spec": {
                "replicas": 2,
                "revisionHistoryLimit": 2,
                # Back to one of the last two revisions without the canary's steps (features/rollback).
                "rollbackWindow": {"revisions": 2},
                "progressDeadlineSeconds": 120,
                "selector": {"matchLabels": {"app": _ROLLOUT}},
                "template": {
                    # By the second label this cluster's controller chooses the pods that get readiness gates.
                    "metadata": {"labels": {"app": _ROLLOUT, "app.kubernetes.io/name": _ROLLOUT}},
                    "spec": {
                        "terminationGracePeriodSeconds": int(self._budget.grace_seconds),
                        "containers": [container],
                    },
                },
                "strategy": self.strategy(),
            },
        }

    @property
    def drained_seconds(self) -> int:
        """Seconds after which nothing that the load balancer sent to a version before a shift is left."""
        return int(self._budget.propagation_seconds + self._budget.longest_request_seconds)

    def _former_template(self) -> dict[str, Any]:
        sets = self._get("replicasets", "-l", f"app={_ROLLOUT}")["items"]
        revision = "rollout.argoproj.io/revision"
        ordered = sorted(sets, key=lambda each: int(each["metadata"]["annotations"][revision]))
        if len(ordered) < 2:
            raise TwinError(f"{self.name} has no former revision to go back to")
        template: dict[str, Any] = ordered[-2]["spec"]["template"]
        template["metadata"]["labels"].pop("rollouts-pod-template-hash", None)
        return template

    # Tools ------------------------------------------------------------------------------------------------------------

    def _apply(self, document: dict[str, Any], version: str, *, namespaced: bool = True) -> None:
        where = ["-n", self.namespace] if namespaced else []
        execute(
            self._twin,
            ["kubectl", "apply", "--server-side", "--force-conflicts", *where, "-f", "-"],
            stdin=json.dumps({"apiVersion": version, **document}),
        )

    def _get(self, *what: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(
            execute(self._twin, ["kubectl", "get", *what, "-n", self.namespace, "-o", "json"])
        )
        return found

    def _read(self) -> dict[str, Any]:
        return self._get("rollouts.argoproj.io", _ROLLOUT)

    def _patch(self, patch: dict[str, Any], *, subresource: str = "") -> None:
        more = [f"--subresource={subresource}"] if subresource else []
        kubectl = ["kubectl", "patch", "rollouts.argoproj.io", _ROLLOUT, "-n", self.namespace, "--type=merge", *more]
        execute(self._twin, [*kubectl, "-p", json.dumps(patch)])

    def _patch_template(self, template: dict[str, Any]) -> None:
        self._patch({"spec": {"template": template}})

    def _wait(self) -> subprocess.Popen[str]:
        """Start a process that ends when the Rollout is healthy, with 1 if it is degraded."""
        program = (
            "import json, subprocess, sys, time\n"
            "while True:\n"
            "    text = subprocess.run(sys.argv[1:], text=True, capture_output=True, check=True).stdout\n"
            "    found = json.loads(text); status = found.get('status', {})\n"
            "    current = str(status.get('observedGeneration')) == str(found['metadata']['generation'])\n"
            "    if current and status.get('phase') in ('Healthy', 'Degraded'):\n"
            "        print(status['phase'], status.get('message', '')); sys.exit(status['phase'] != 'Healthy')\n"
            "    time.sleep(1)\n"
        )
        time.sleep(1)  # the controller has taken up the change by then
        kubectl = ["kubectl", "get", "rollouts.argoproj.io", _ROLLOUT, "-n", self.namespace, "-o", "json"]
        log = (self._directory / f"{self.name}-{time.monotonic_ns()}.log").open("w")
        return subprocess.Popen(
            [sys.executable, "-c", program, *kubectl],
            env=run.environment(self._twin, self._twin.directory / "Pulumi.prod.yaml"),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )


class ArgoCanary(Argo):
    """Canary with `pingPong` and ALB traffic routing: two Services that change roles, and weights in the Ingress's annotation."""

    name = "argo-canary"
    title = "Argo Rollouts, canary with pingPong"
    services = ("ping", "pong")

    def strategy(self) -> dict[str, Any]:
        """Return all pods first, 10 % for two whole minutes of metrics, then everything."""
        return {
            "canary": {
                "pingPong": {"pingService": "ping", "pongService": "pong"},
                "scaleDownDelaySeconds": self.drained_seconds,
                "abortScaleDownDelaySeconds": self.drained_seconds,
                "trafficRouting": {"alb": {"ingress": _ROLLOUT, "rootService": "root", "servicePort": 80}},
                "steps": [
                    {"setCanaryScale": {"replicas": 2}},
                    {"setWeight": _CANARY_PERCENT},
                    {"pause": {"duration": f"{METRIC_MINUTES_SECONDS}s"}},
                    {"setWeight": 100},
                    {"pause": {"duration": f"{self.drained_seconds}s"}},
                ],
            }
        }

    def ingress(self) -> dict[str, Any]:
        """Return the Ingress whose backend is the annotation that the controller writes."""
        groups = [
            {"serviceName": "ping", "servicePort": "80", "weight": 100},
            {"serviceName": "pong", "servicePort": "80", "weight": 0},
        ]
        action = json.dumps({"type": "forward", "forwardConfig": {"targetGroups": groups}})
        return _ingress({"name": "root", "port": {"name": "use-annotation"}}, **{"actions.root": action})


class ArgoBlueGreen(Argo):
    """Blue/green: the active Service's selector is switched. Documented as not safe with an ALB, and widely used."""

    name = "argo-bluegreen"
    title = "Argo Rollouts, blueGreen"
    services = ("active", "preview")

    def strategy(self) -> dict[str, Any]:
        """Return automatic promotion, with the old pods kept until the load balancer has left them."""
        return {
            "blueGreen": {
                "activeService": "active",
                "previewService": "preview",
                "autoPromotionEnabled": True,
                "scaleDownDelaySeconds": self.drained_seconds,
                "abortScaleDownDelaySeconds": self.drained_seconds,
            }
        }

    def ingress(self) -> dict[str, Any]:
        """Return a plain Ingress to the active Service."""
        return _ingress({"name": "active", "port": {"number": 80}})


def _ingress(service: dict[str, Any], **annotations: str) -> dict[str, Any]:
    named = {
        "scheme": "internet-facing",
        "target-type": "ip",
        "healthcheck-path": "/healthz",
        "healthcheck-interval-seconds": "5",
        "healthcheck-timeout-seconds": "4",
        "target-group-attributes": "deregistration_delay.timeout_seconds=90",
        **annotations,
    }
    path = {"path": "/", "pathType": "Prefix", "backend": {"service": service}}
    return {
        "kind": "Ingress",
        "metadata": {
            "name": _ROLLOUT,
            "annotations": {f"alb.ingress.kubernetes.io/{name}": value for name, value in named.items()},
        },
        "spec": {"ingressClassName": "alb", "rules": [{"http": {"paths": [path]}}]},
    }
