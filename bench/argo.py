"""Argo Rollouts beside ours: the canary with `pingPong` that its documentation recommends for an ALB, and its blue/green.

Both have the pods of the patched chart (patches/02: image, requests, probes, preStop, grace period, minReadySeconds, topology
spread, disruption budget), and an Ingress of their own. The controller is the published one of 1.8.3, installed from the
manifests in its module, with `--aws-verify-target-group`.

The numbers, and where they are from (argo-rollouts.readthedocs.io/en/stable/features):

* `scaleDownDelaySeconds`: the load balancer's worst propagation and the longest request. traffic-management/alb says that the
  default of 30 s has to be long enough for targets to be deregistered.
* analysis: two whole minutes of CloudWatch, and a Job (analysis/job) that asks the page itself meanwhile, twice a second. Ours
  looks at both too.
* canary: all pods of the new version first (`setCanaryScale`), then 10 % for the propagation, then all. The analysis runs in the
  background from the 10 % on (features/analysis, `startingStep`); as the last step it runs once more, so that the old pods
  still run while two whole minutes with everything on the new ones are judged. Ours does the same.
* blueGreen: the same analysis after the switch (`postPromotionAnalysis`). Only after it has succeeded `scaleDownDelaySeconds`
  begins (features/bluegreen, "Sequence of Events", and seen so): an abort switches back to pods that run.
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

from bench import argo_analysis, pods, run, tools
from bench.argo_status import final_phase
from bench.images import Images
from bench.system import State, Target
from bench.systems import ARGO_BLUE_GREEN, ARGO_CANARY, LOAD_BALANCER_CONTROLLER, IngressLoadBalancer
from bench.tools import execute
from infra.timeouts import DrainBudget
from twin import config, pulumi
from twin.build import image_layers, programs
from twin.build.golang import ARGO_ROLLOUTS
from twin.config import Twin
from twin.errors import TwinError
from twin.host import processes
from twin.images.registry_client import push_recipe
from twin.paths import REPOSITORY
from twin.scenarios import production

CONTROLLER = "argo-rollouts"
_IMAGE = f"quay.io/argoproj/argo-rollouts:v{ARGO_ROLLOUTS}"
_ROLLOUT = "shopcat"
_SELECTOR = {"matchLabels": {"app": _ROLLOUT}}
_CANARY_PERCENT = 10
_COMMON = (
    "The analysis fails at a minute of CloudWatch with more than three answers of 5xx, or at the third failed request of a Job "
    "that asks the page twice a second, each time on a new connection to one of the load balancer's two nodes. Pods of the "
    "patched chart (image, requests, probes, preStop, grace period, minReadySeconds, topology spread, disruption budget), "
    "readiness gates, progressDeadlineAbort, rollbackWindow. Undone by `kubectl argo rollouts abort` while a release is under "
    "way, by `undo` afterwards."
)
_READ = [f"elasticloadbalancing:Describe{what}" for what in (
    "TargetGroups", "LoadBalancers", "Listeners", "Rules", "Tags", "TargetHealth",
)] + ["cloudwatch:GetMetricData"]  # fmt: skip
"""Calls of --aws-verify-target-group (features/traffic-management/alb, "Required IAM permissions"), and of the analysis."""


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


def disruption_budget() -> dict[str, Any]:
    """Return the PodDisruptionBudget of the patched chart."""
    spec = {"maxUnavailable": 1, "unhealthyPodEvictionPolicy": "AlwaysAllow", "selector": _SELECTOR}
    return {"kind": "PodDisruptionBudget", "metadata": {"name": _ROLLOUT}, "spec": spec}


class Argo:
    """One Rollout with its Services and its Ingress; the controller is installed already."""

    name = ""
    title = ""
    tuned = ""
    services: tuple[str, ...] = ()
    controllers = (LOAD_BALANCER_CONTROLLER, (CONTROLLER, f"app.kubernetes.io/name={CONTROLLER}"))

    def __init__(self, twin: Twin, directory: Path, images: Images, budget: DrainBudget) -> None:
        self._twin, self._directory, self._images, self._budget = twin, directory, images, budget
        self.balancer = IngressLoadBalancer(twin, self.name, _ROLLOUT)

    def strategy(self) -> dict[str, Any]:
        """Return the Rollout's strategy."""
        raise NotImplementedError

    def ingress(self) -> dict[str, Any]:
        """Return the Ingress."""
        raise NotImplementedError

    # The system -------------------------------------------------------------------------------------------------------

    def install(self, tag: str) -> None:
        """Make namespace, Secret, Services and Ingress; once the load balancer is there all else; wait until it answers."""
        labels = {"elbv2.k8s.aws/pod-readiness-gate-inject": "enabled"}
        self._apply({"kind": "Namespace", "metadata": {"name": self.name, "labels": labels}}, "v1", namespaced=False)
        secret = run.others_secret(self._twin)
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
        self.balancer.wait()
        template = argo_analysis.template(
            self.balancer.arn(), self.balancer.addresses(loopback=False), self._image(tag)
        )
        self._apply(template, "argoproj.io/v1alpha1")
        self._apply(disruption_budget(), "policy/v1")
        self._apply(self._rollout(tag, secret), "argoproj.io/v1alpha1")
        processes.wait_until(lambda: self.state().settled, f"{self.name}: first release", timeout_seconds=300)

    def push(self, tag: str, edits: Mapping[str, str]) -> None:
        """Build and push to the shop's own repository, whose tags can't be changed."""
        self._images.push(tag, edits)

    def push_again(self, content: str) -> None:
        """Push other content under this one's tag."""
        self._images.push_again(content)

    def start(self, tag: str) -> subprocess.Popen[str]:
        """Apply the Rollout with another image, and wait until it is healthy or degraded."""
        self._apply(self._rollout(tag, run.others_secret(self._twin)), "argoproj.io/v1alpha1")
        return self._wait()

    def go_on(self, tag: str) -> subprocess.Popen[str]:
        """Wait: the controller goes on by itself, whoever has started it."""
        del tag
        return self._wait()

    def undo(self) -> subprocess.Popen[str]:
        """Abort what is under way, or go back to the former revision, as `kubectl argo rollouts abort` and `undo` do."""
        if final_phase(self._read()):
            self._patch({"spec": {"template": self._former_template()}})
        else:
            self._patch({"status": {"abort": True}}, subresource="status")
        return self._wait()

    def target(self) -> Target:
        """Return its Ingress's load balancer."""
        return self.balancer.target()

    def load_balancer(self) -> str:
        """Return the name of its Ingress's load balancer."""
        return self.balancer.name()

    def state(self) -> State:
        """Read what the Rollout's status holds, and which pods there are."""
        rollout = self._read()
        phase = final_phase(rollout)
        listed = pods.list_pods(self._twin, self.name)
        left = f"Degraded: {rollout['status'].get('message', '')}" if phase == "Degraded" else ""
        return State(self._images.content(listed), bool(phase) and pods.are_at_rest(listed), left)

    def has_ready_pod(self, tag: str) -> bool:
        """Tell whether a pod of this content is ready."""
        listed = pods.list_pods(self._twin, self.name)
        return any(pods.is_ready(pod) and self._images.content([pod]) == tag for pod in listed)

    def is_shifting(self, tag: str) -> bool:
        """Tell whether the Service or group that users get has pods of it."""
        raise NotImplementedError

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
        health = {"httpGet": {"path": "/healthz", "port": "http"}}
        container = {
            "name": _ROLLOUT,
            "image": self._image(tag),
            "ports": [{"name": "http", "containerPort": 8080}],
            "env": [
                *({"name": name, "value": value} for name, value in plain.items()),
                {"name": "DATABASE_PASSWORD", "valueFrom": {"secretKeyRef": {"name": _ROLLOUT, "key": "password"}}},
            ],
            "startupProbe": {**health, "periodSeconds": 2, "failureThreshold": 30},
            "readinessProbe": {**health, "periodSeconds": 5},
            "livenessProbe": {"tcpSocket": {"port": "http"}, "periodSeconds": 10, "failureThreshold": 6},
            "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(self._budget.pre_stop_seconds)]}}},
            "resources": {"requests": {"cpu": "200m", "memory": "384Mi"}, "limits": {"memory": "384Mi"}},
        }
        return {
            "kind": "Rollout",
            "metadata": {"name": _ROLLOUT},
            "spec": {
                "replicas": 2,
                "minReadySeconds": 5,
                "revisionHistoryLimit": 2,
                # Back to one of the last two revisions without the canary's steps (features/rollback).
                "rollbackWindow": {"revisions": 2},
                "progressDeadlineSeconds": 120,
                "progressDeadlineAbort": True,
                "selector": _SELECTOR,
                "template": {
                    # By the second label this cluster's controller chooses the pods that get readiness gates.
                    "metadata": {"labels": {"app": _ROLLOUT, "app.kubernetes.io/name": _ROLLOUT}},
                    "spec": {
                        "terminationGracePeriodSeconds": int(self._budget.grace_seconds),
                        "topologySpreadConstraints": [
                            {
                                "maxSkew": 1,
                                "topologyKey": "kubernetes.io/hostname",
                                "whenUnsatisfiable": "ScheduleAnyway",
                                "labelSelector": _SELECTOR,
                            }
                        ],
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
        where = ["-n", self.name] if namespaced else []
        execute(
            self._twin,
            ["kubectl", "apply", "--server-side", "--force-conflicts", *where, "-f", "-"],
            stdin=json.dumps({"apiVersion": version, **document}),
        )

    def _get(self, *what: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(
            execute(self._twin, ["kubectl", "get", *what, "-n", self.name, "-o", "json"])
        )
        return found

    def _read(self) -> dict[str, Any]:
        return self._get("rollouts.argoproj.io", _ROLLOUT)

    def _patch(self, patch: dict[str, Any], *, subresource: str = "") -> None:
        more = [f"--subresource={subresource}"] if subresource else []
        kubectl = ["kubectl", "patch", "rollouts.argoproj.io", _ROLLOUT, "-n", self.name, "--type=merge", *more]
        execute(self._twin, [*kubectl, "-p", json.dumps(patch)])

    def _wait(self) -> subprocess.Popen[str]:
        """Start a process that ends when the Rollout is healthy, with 1 if it is degraded."""
        time.sleep(1)  # the controller has taken up the change by then
        kubectl = ["kubectl", "get", "rollouts.argoproj.io", _ROLLOUT, "-n", self.name, "-o", "json"]
        program = [sys.executable, "-P", str(REPOSITORY / "bench" / "argo_status.py")]
        return tools.start(self._twin, [[*program, *kubectl]], self._directory, self.name)


class ArgoCanary(Argo):
    """Canary with `pingPong` and ALB traffic routing: two Services that change roles, and weights in the Ingress's annotation."""

    name = ARGO_CANARY
    title = "Argo Rollouts, canary with pingPong"
    tuned = (
        f"Argo Rollouts {ARGO_ROLLOUTS}: canary with pingPong and ALB traffic routing, --aws-verify-target-group; all pods "
        "first, 10 % for the propagation, then everything with three minutes of analysis, which runs in the background from the "
        "10 % on too; old pods kept for it, propagation and the longest request. "
        f"{_COMMON}"
    )
    services = ("ping", "pong")

    def strategy(self) -> dict[str, Any]:
        """Return all pods first, 10 % for the propagation, then everything; from the 10 % on with an analysis."""
        analyses = {"templates": [{"templateName": argo_analysis.NAME}]}
        return {
            "canary": {
                "analysis": {**analyses, "startingStep": 1},
                "pingPong": {"pingService": "ping", "pongService": "pong"},
                "scaleDownDelaySeconds": self.drained_seconds,
                "abortScaleDownDelaySeconds": self.drained_seconds,
                "trafficRouting": {"alb": {"ingress": _ROLLOUT, "rootService": "root", "servicePort": 80}},
                "steps": [
                    {"setCanaryScale": {"replicas": 2}},
                    {"setWeight": _CANARY_PERCENT},
                    {"pause": {"duration": f"{int(self._budget.propagation_seconds)}s"}},
                    {"setWeight": 100},
                    {"analysis": analyses},
                ],
            }
        }

    def is_shifting(self, tag: str) -> bool:
        """Tell whether the controller has given its pods a weight."""
        weights = (self._read().get("status", {}).get("canary") or {}).get("weights") or {}
        return self.has_ready_pod(tag) and int((weights.get("canary") or {}).get("weight", 0)) > 0

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

    name = ARGO_BLUE_GREEN
    title = "Argo Rollouts, blueGreen"
    tuned = (
        f"Argo Rollouts {ARGO_ROLLOUTS}: blueGreen with --aws-verify-target-group, which its documentation does not recommend "
        "with an ALB; three minutes of postPromotionAnalysis, then the old pods kept for propagation and the longest request. "
        f"{_COMMON}"
    )
    services = ("active", "preview")

    def strategy(self) -> dict[str, Any]:
        """Return automatic promotion, with the old pods kept until the load balancer has left them."""
        return {
            "blueGreen": {
                "activeService": "active",
                "previewService": "preview",
                "autoPromotionEnabled": True,
                "postPromotionAnalysis": {"templates": [{"templateName": argo_analysis.NAME}]},
                "scaleDownDelaySeconds": self.drained_seconds,
                "abortScaleDownDelaySeconds": self.drained_seconds,
            }
        }

    def is_shifting(self, tag: str) -> bool:
        """Tell whether the active Service selects pods of it."""
        selector = self._get("service", "active")["spec"]["selector"]
        listed = pods.list_pods(self._twin, self.name)
        chosen = [pod for pod in listed if selector.items() <= pod["metadata"]["labels"].items()]
        return self._images.content(chosen) == tag

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
