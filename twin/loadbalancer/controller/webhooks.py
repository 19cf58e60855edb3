"""Admission: readiness gates for new pods, defaults and refusals for bindings, and the refusal of what is not implemented."""

from __future__ import annotations

import base64
import functools
import json
import logging
import os
import re
import ssl
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from twin.loadbalancer.controller.bindings import GROUP, Caches, gate_name
from twin.loadbalancer.controller.elb import AWS_ERRORS, ElasticLoadBalancing
from twin.loadbalancer.controller.ingress_model import is_ours, unplayed
from twin.loadbalancer.controller.kubernetes import Kubernetes, Object

_log = logging.getLogger(__name__)

Patch = list[dict[str, Any]]
Review = Callable[[Object], Patch]
"""Takes an AdmissionRequest; returns a JSON patch, or raises DeniedError."""

_RELOAD_SECONDS = 10.0


_INJECTIONS = {
    "/mutate-v1-pod-server-id": "a QUIC server id",
    "/mutate-alb-target-control-namespace-v1-pod": "ALB Target Control, asked for by the namespace's label",
    "/mutate-alb-target-control-object-v1-pod": "ALB Target Control, asked for by the pod's label",
}
"""Webhooks whose selectors match only objects that ask for something that is not implemented."""


class DeniedError(Exception):
    """The request is refused; the message says why."""


def _unimplemented(what: str) -> DeniedError:
    return DeniedError(f"twin: {what} is not implemented by the stand-in")


class Admission:
    """Every webhook, by path."""

    def __init__(
        self, kubernetes: Kubernetes, elb: ElasticLoadBalancing, caches: Caches, *, inject_gates: bool
    ) -> None:
        self._kubernetes = kubernetes
        self._elb = elb
        self._caches = caches
        self._inject_gates = inject_gates
        self.paths: dict[str, Review] = {
            "/mutate-v1-pod": self.pod,
            "/mutate-v1-service": self.service,
            **{path: functools.partial(self.injection, what) for path, what in _INJECTIONS.items()},
            "/mutate-elbv2-k8s-aws-v1beta1-targetgroupbinding": self.default_binding,
            "/validate-elbv2-k8s-aws-v1beta1-targetgroupbinding": self.validate_binding,
            "/validate-elbv2-k8s-aws-v1beta1-ingressclassparams": self.class_parameters,
            "/validate-networking-v1-ingress": self.ingress,
        }

    def pod(self, request: Object) -> Patch:
        """A gate for each ip binding whose Service selects the new pod."""
        if not self._inject_gates:
            return []
        pod = request["object"]
        labels = pod["metadata"].get("labels") or {}
        namespace = request["namespace"]
        selecting = {
            service["metadata"]["name"]
            for service in self._caches.services.all(namespace)
            if service["spec"]["selector"] and service["spec"]["selector"].items() <= labels.items()
        }
        wanted = [
            gate_name(binding)
            for binding in self._caches.bindings.all(namespace)
            if binding["spec"].get("targetType") == "ip" and binding["spec"]["serviceRef"]["name"] in selecting
        ]
        gates = list(pod["spec"].get("readinessGates") or [])
        new = [name for name in sorted(wanted) if not any(gate["conditionType"] == name for gate in gates)]
        if not new:
            return []
        gates += [{"conditionType": name} for name in new]
        return [{"op": "add", "path": "/spec/readinessGates", "value": gates}]

    def service(self, request: Object) -> Patch:
        """Refuse Services of type LoadBalancer, which nothing serves here."""
        if request["object"]["spec"].get("type") == "LoadBalancer":
            raise _unimplemented("a Service of type LoadBalancer")
        return []

    @staticmethod
    def injection(what: str, _: Object) -> Patch:
        """Refuse a pod that asks for something to be put into it."""
        raise _unimplemented(what)

    @staticmethod
    def class_parameters(request: Object) -> Patch:
        """Parameters of the class alb, which the chart makes empty."""
        if request["object"].get("spec"):
            raise _unimplemented("an IngressClassParams with a spec")
        return []

    def ingress(self, request: Object) -> Patch:
        """Refuse, by name, what of an Ingress of class alb is not played; the real webhook lets it pass."""
        ingress = request["object"]
        if not is_ours(ingress) or ingress["metadata"].get("deletionTimestamp"):
            return []
        refused = unplayed(ingress)
        if refused:
            raise _unimplemented(", ".join(refused))
        return []

    def _group_of(self, spec: Object) -> Object:
        try:
            return self._elb.target_group(arn=spec.get("targetGroupARN"), name=spec.get("targetGroupName"))
        except AWS_ERRORS as error:
            raise DeniedError(str(error)) from error

    def default_binding(self, request: Object) -> Patch:
        """Fill in what follows from the target group."""
        if request["operation"] != "CREATE":
            return []
        spec = request["object"]["spec"]
        if not spec.get("targetGroupARN") and not spec.get("targetGroupName"):
            raise DeniedError("must provide either TargetGroupARN or TargetGroupName")
        wanted = ("targetGroupARN", "targetType", "ipAddressType", "vpcID", "targetGroupProtocol")
        if all(spec.get(name) for name in wanted):
            return []
        group = self._group_of(spec)
        values = {
            "targetGroupARN": group["TargetGroupArn"],
            "targetType": group["TargetType"],
            "ipAddressType": group.get("IpAddressType") or "ipv4",
            "vpcID": group.get("VpcId", ""),
            "targetGroupProtocol": group["Protocol"],
        }
        return [
            {"op": "add", "path": f"/spec/{name}", "value": values[name]}
            for name in wanted
            if not spec.get(name) and values[name]
        ]

    def validate_binding(self, request: Object) -> Patch:
        """Refuse a binding that the real controller refuses, or that needs a feature this controller lacks."""
        binding = request["object"]
        spec = binding["spec"]
        absent = [name for name in ("targetGroupARN", "targetType") if not spec.get(name)]
        if absent:
            names = ",".join(
                {"targetGroupARN": "either TargetGroupARN or TargetGroupName"}.get(n, f"spec.{n}") for n in absent
            )
            raise DeniedError(f"TargetGroupBinding must specify these fields: {names}")
        if request["operation"] == "UPDATE":
            self._check_unchanged(spec, request["oldObject"]["spec"])
        if spec["targetType"] == "ip" and spec.get("nodeSelector") is not None:
            raise DeniedError("TargetGroupBinding cannot set NodeSelector when TargetType is ip")
        self._check_not_bound(binding)
        for name, is_unplayed in {
            "targetType": spec["targetType"] != "ip",
            "iamRoleArnToAssume": bool(spec.get("iamRoleArnToAssume")),
            "assumeRoleExternalId": bool(spec.get("assumeRoleExternalId")),
            "multiClusterTargetGroup": bool(spec.get("multiClusterTargetGroup")),
            "ipAddressType": spec.get("ipAddressType") == "ipv6",
        }.items():
            if is_unplayed:
                raise _unimplemented(f"spec.{name}={spec[name]}")
        if request["operation"] == "CREATE":
            self._check_group(spec)
        return []

    @staticmethod
    def _check_unchanged(spec: Object, old: Object) -> None:
        fields = ("targetGroupARN", "targetType", "ipAddressType", "vpcID")
        changed = [f"spec.{name}" for name in fields if old.get(name) and spec.get(name) != old.get(name)]
        if changed:
            raise DeniedError(f"TargetGroupBinding update may not change these immutable fields: {','.join(changed)}")

    def _check_not_bound(self, binding: Object) -> None:
        arn = binding["spec"]["targetGroupARN"]
        uid = binding["metadata"].get("uid")
        others = self._kubernetes.request("GET", f"/apis/{GROUP}/v1beta1/targetgroupbindings")["items"]
        bound = [
            f"{other['metadata']['namespace']}/{other['metadata']['name']}"
            for other in others
            if other["metadata"]["uid"] != uid and other["spec"].get("targetGroupARN") == arn
        ]
        if bound:
            raise DeniedError(
                f"TargetGroup {arn} is already bound to following TargetGroupBindings [{' '.join(bound)}]. "
                f"Please enable MultiCluster mode on all TargetGroupBindings referencing {arn} "
                "or choose a different Target Group ARN."
            )

    def _check_group(self, spec: Object) -> None:
        group = self._group_of(spec)
        address_type = group.get("IpAddressType") or "ipv4"
        if spec.get("ipAddressType", "ipv4") != address_type:
            raise DeniedError(f"invalid IP address type {address_type} for TargetGroup {spec['targetGroupARN']}")
        vpc = spec.get("vpcID")
        if vpc and not re.fullmatch(r"vpc-[0-9a-f]{8}(?:[0-9a-f]{9})?", vpc):
            raise DeniedError(
                f"ValidationError: vpcID {vpc} failed to satisfy constraint: VPC Id must begin with 'vpc-'"
            )
        if vpc and vpc != group.get("VpcId"):
            raise DeniedError(f"invalid VpcID {vpc} doesnt match VpcID from TargetGroup {spec['targetGroupARN']}")

    def review(self, path: str, document: Object) -> Object:
        """Answer an AdmissionReview."""
        request = document["request"]
        response: dict[str, Any] = {"uid": request["uid"], "allowed": True}
        try:
            patch = self.paths[path](request)
        except DeniedError as error:
            response |= {"allowed": False, "status": {"code": 403, "reason": "Forbidden", "message": str(error)}}
        else:
            if patch:
                encoded = base64.b64encode(json.dumps(patch).encode()).decode()
                response |= {"patchType": "JSONPatch", "patch": encoded}
        return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64


def _answering(reply: Callable[[str, bytes], tuple[int, bytes]]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def _reply(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, answer = reply(self.path.partition("?")[0], body)
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = _reply  # noqa: N815 - the standard library's names
        do_POST = _reply  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    return Handler


def serve_health(address: str, port: int) -> None:
    """``/healthz`` and ``/readyz``, in a thread of its own."""

    def reply(path: str, _: bytes) -> tuple[int, bytes]:
        return (200, b"ok\n") if path in ("/healthz", "/readyz") else (404, b"")

    threading.Thread(target=_Server((address, port), _answering(reply)).serve_forever, daemon=True).start()


def serve_webhooks(admission: Admission, address: str, port: int, certificates: str) -> None:
    """The webhooks over TLS, in threads of their own; a renewed certificate is taken up."""
    certificate, key = os.path.join(certificates, "tls.crt"), os.path.join(certificates, "tls.key")  # noqa: PTH118
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    def reply(path: str, body: bytes) -> tuple[int, bytes]:
        if path not in admission.paths:
            return 404, b""
        try:
            return 200, json.dumps(admission.review(path, json.loads(body))).encode()
        except Exception:
            _log.exception("webhook %s", path)
            return 500, b""

    server = _Server((address, port), _answering(reply))
    # The handshake is made in the connection's own thread, so that a slow client holds nobody up.
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)

    def renew() -> None:
        seen = os.stat(certificate).st_mtime_ns  # noqa: PTH116
        while True:
            time.sleep(_RELOAD_SECONDS)
            now = os.stat(certificate).st_mtime_ns  # noqa: PTH116
            if now != seen:
                context.load_cert_chain(certificate, key)
                seen = now

    threading.Thread(target=server.serve_forever, daemon=True).start()
    threading.Thread(target=renew, daemon=True).start()
