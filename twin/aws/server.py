"""AWS on the twin: moto's server with what it lacks put around it (``python -m twin.aws.server``).

* EKS add-ons, access entries, pod identity: twin/aws/eks.py answers instead of moto.
* RDS: a real PostgreSQL is started, restarted, re-keyed, restored to a moment and deleted with the instance.
* Secrets Manager: a version keeps its labels.
* DynamoDB: a table with point-in-time recovery is restored as it was at the moment.
* ELBv2: target health comes from the load balancer stand-in; weights over 999 are refused; groups that a rule names stay
  attached to their load balancer.
* ``/twin/faults`` slows, fails or kills for a while (twin/aws/faults.py).
"""

from __future__ import annotations

import json
import logging
import re
import signal
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable
from typing import Any, cast
from wsgiref.types import StartResponse, WSGIEnvironment

import boto3
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

from twin import config
from twin.aws.acm import patch_certificates
from twin.aws.dynamodb import patch_recovery
from twin.aws.eks import EksStandIn
from twin.aws.elbv2 import patch_load_balancing
from twin.aws.faults import Faults
from twin.aws.rds import patch_rds
from twin.aws.route53 import patch_names
from twin.config import Twin
from twin.errors import TwinError

_ADDON_SECONDS = 300.0
log = logging.getLogger("aws")
_SCOPE = re.compile(r"Credential=([^/]+)/\d+/([^/]+)/([^/]+)/aws4_request")
_STATUS = {200: "200 OK", 400: "400 Bad Request", 404: "404 Not Found", 409: "409 Conflict", 503: "503 Unavailable"}


def _action(environ: WSGIEnvironment, body: bytes) -> str:
    target = environ.get("HTTP_X_AMZ_TARGET", "")
    if target:
        return str(target).rpartition(".")[2]
    form = re.search(rb"(?:^|&)Action=([A-Za-z0-9]+)", body)
    if form:
        return form.group(1).decode()
    query = urllib.parse.parse_qs(environ.get("QUERY_STRING", ""))
    return str(query.get("Action", [f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}"])[0])


class LocalMachines:
    """The twin's control plane, nodes and add-ons, as EKS changes them."""

    def __init__(self, twin: Twin) -> None:
        self._twin = twin

    def change_addon(self, name: str, *, present: bool, version: str) -> None:
        """Apply an add-on's objects and wait until all its pods run, or delete them.

        Raises:
            TwinError: they don't run within five minutes.
        """
        from twin.aws import pod_identity
        from twin.kubernetes import cluster_addons

        if name == "eks-pod-identity-agent":
            pod_identity.register(self._twin, present=present)
        if not present:
            cluster_addons.delete(self._twin, name)
            return
        cluster_addons.apply(self._twin, name, version=version)
        deadline = time.monotonic() + _ADDON_SECONDS
        while cluster_addons.problems(self._twin, name):
            if time.monotonic() > deadline:
                raise TwinError("; ".join(cluster_addons.problems(self._twin, name)))
            time.sleep(0.5)

    def replace_nodes(self) -> None:
        """Drain and replace each node, one after the other.

        Raises:
            TwinError: see node_replacement.replace_all.
        """
        from twin.kubernetes import node_replacement

        node_replacement.replace_all(self._twin)

    def restart_control_plane(self) -> None:
        """Restart the only API server; EKS restarts one of several, so this is harder.

        Raises:
            TwinError: it does not come up again.
        """
        from twin.host import processes
        from twin.kubernetes import control_plane

        processes.stop(self._twin, "kube-apiserver")
        control_plane.up(self._twin)

    def deprecated_apis(self, removed_in: str) -> list[str]:
        """Return what the API server has counted.

        Raises:
            TwinError: it can't be reached.
        """
        from twin.kubernetes import control_plane

        return control_plane.deprecated_apis(self._twin, removed_in)


class Application:
    """moto's WSGI application with the twin's additions before and after it."""

    def __init__(self, twin: Twin) -> None:
        self._twin = twin
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._eks = EksStandIn(twin, LocalMachines(twin))
        self._faults = Faults()
        (twin.directory / "logs").mkdir(parents=True, exist_ok=True)
        self._calls = (twin.logs / "aws-calls.log").open("a", buffering=1)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(length) if length else b""
        path = environ.get("PATH_INFO", "/")
        if path.startswith("/twin/"):
            return self._own(path, environ["REQUEST_METHOD"], body, environ, start_response)
        scope = _SCOPE.search(environ.get("HTTP_AUTHORIZATION", ""))
        service = scope.group(3) if scope else "-"
        action = _action(environ, body)
        started = time.monotonic()
        status_seen = ["-"]

        def respond(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], object]:
            status_seen[0] = status.split(maxsplit=1)[0]
            return start_response(status, headers, exc_info)

        try:
            if self._faults.apply(service, action):
                return self._throttled(service, environ, respond)
            if service == "eks":
                answer = self._call_eks(environ, body, scope.group(1) if scope else "", respond)
            else:
                answer = self._pass_on(environ, body, respond)
            if status_seen[0].startswith("2"):
                self._faults.carried_out(service, action)
            return answer
        finally:
            milliseconds = (time.monotonic() - started) * 1000
            key = scope.group(1) if scope else "-"
            self._calls.write(f"{time.time():.3f} {service} {action} {status_seen[0]} {milliseconds:.0f} {key}\n")

    def _pass_on(self, environ: WSGIEnvironment, body: bytes, start_response: Any) -> Iterable[bytes]:
        import io

        environ["wsgi.input"] = io.BytesIO(body)
        return cast("Iterable[bytes]", self._moto(environ, start_response))

    def _throttled(self, service: str, environ: WSGIEnvironment, start_response: Any) -> Iterable[bytes]:
        message = "Rate exceeded"
        if environ.get("HTTP_X_AMZ_TARGET") or service == "eks":
            return _json(start_response, 400, {"__type": "ThrottlingException", "message": message})
        text = (
            f"<ErrorResponse><Error><Type>Sender</Type><Code>Throttling</Code><Message>{message}</Message></Error>"
            "<RequestId>twin</RequestId></ErrorResponse>"
        ).encode()
        start_response("400 Bad Request", [("Content-Type", "text/xml"), ("Content-Length", str(len(text)))])
        return [text]

    def _call_eks(self, environ: WSGIEnvironment, body: bytes, key: str, start_response: Any) -> Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        raw = environ.get("RAW_URI") or environ.get("REQUEST_URI") or environ["PATH_INFO"]
        address = urllib.parse.urlsplit(raw)
        path = address.path
        request: dict[str, Any] = json.loads(body) if body else dict(urllib.parse.parse_qsl(address.query))
        answer = self._eks.answer(method, path, request)
        if answer is not None:
            return _json(start_response, *answer)
        collected: dict[str, Any] = {}

        def collect(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], object]:
            del exc_info
            collected["status"], collected["headers"] = status, headers
            return lambda _: None

        content = b"".join(self._pass_on(environ, body, collect))
        code = int(collected["status"].split()[0])
        if code == 200:
            document: dict[str, Any] = json.loads(content)
            if "cluster" in document:
                name = document["cluster"]["name"]
                if method == "POST" and path == "/clusters":
                    vpc, group = self._security_group(name, request["resourcesVpcConfig"]["subnetIds"])
                    self._eks.created(name, request, self._principal(key)[0], vpc_id=vpc, security_group_id=group)
                if method == "DELETE":
                    group = self._eks.deleted(name)
                    if group:
                        self._client("ec2").delete_security_group(GroupId=group)
                self._eks.complete(document["cluster"])
            if "nodegroup" in document:
                self._eks.complete_node_group(document["nodegroup"])
            return _json(start_response, code, document)
        start_response(collected["status"], collected["headers"])
        return [content]

    def _client(self, service: str, access_key: str = config.ACCESS_KEY_ID) -> Any:
        return boto3.client(
            service,  # type: ignore[call-overload]
            endpoint_url=f"http://127.0.0.1:{self._twin.aws_port}",
            region_name=config.region(),
            aws_access_key_id=access_key,
            aws_secret_access_key=config.SECRET_ACCESS_KEY,  # moto checks no signature
        )

    def _security_group(self, cluster: str, subnet_ids: list[str]) -> tuple[str, str]:
        """The VPC of a new cluster, and the security group that EKS makes in it for nodes and pods."""
        ec2 = self._client("ec2")
        subnets = ec2.describe_subnets(SubnetIds=subnet_ids[:1])["Subnets"]
        vpc: str = subnets[0]["VpcId"]
        identifier: str = ec2.create_security_group(
            GroupName=f"eks-cluster-sg-{cluster}-twin", Description="EKS created security group", VpcId=vpc
        )["GroupId"]
        return vpc, identifier

    def _principal(self, access_key: str) -> tuple[str, str]:
        """ARN of the IAM user or role behind an access key, as an access entry names it, and the session's name."""
        client = self._client("sts", access_key)
        arn = client.get_caller_identity()["Arn"]
        assumed = re.fullmatch(r"arn:aws:sts::(\d+):assumed-role/([^/]+)/(.*)", arn)
        if assumed is None:
            return arn, ""
        return f"arn:aws:iam::{assumed.group(1)}:role/{assumed.group(2)}", assumed.group(3)

    def _own(  # noqa: PLR0911 - one answer for each path
        self, path: str, method: str, body: bytes, environ: WSGIEnvironment, start_response: Any
    ) -> Iterable[bytes]:
        query = urllib.parse.parse_qs(environ.get("QUERY_STRING", ""))
        if path == "/twin/health":
            return _json(start_response, 200, {"ok": True})
        if path == "/twin/pod-identity" and method == "GET":
            return self._pod_identity(query, start_response)
        if path == "/twin/access" and method == "GET":
            return self._access(query, start_response)
        if path == "/twin/faults" and method == "POST":
            try:
                self._faults.add(json.loads(body))
            except (ValueError, TypeError) as error:
                return _json(start_response, 400, {"message": str(error)})
            return _json(start_response, 200, {})
        if path == "/twin/faults" and method == "DELETE":
            self._faults.clear()
            return _json(start_response, 200, {})
        return _json(start_response, 404, {"message": f"twin: {method} {path} is not implemented"})

    def _pod_identity(self, query: dict[str, list[str]], start_response: Any) -> Iterable[bytes]:
        """Answer the pod webhook: the role of a service account, in any cluster."""
        wanted = (query["namespace"][0], query["account"][0])
        for state in self._eks.clusters.values():
            for association in state.associations.values():
                if (association["namespace"], association["serviceAccount"]) == wanted:
                    return _json(start_response, 200, {"role": association["roleArn"]})
        return _json(start_response, 404, {"message": "no association"})

    def _access(self, query: dict[str, list[str]], start_response: Any) -> Iterable[bytes]:
        """Answer the token webhook: the access entry and policies of an access key's owner."""
        principal, session = self._principal(query["key"][0])
        state = self._eks.clusters.get(query["cluster"][0])
        entry = state.entries.get(principal) if state is not None else None
        if entry is None:
            return _json(start_response, 404, {"message": f"no access entry for {principal}"})
        policies = list(entry.policies.values())
        answer = {"principal": principal, "session": session, "entry": entry.record, "policies": policies}
        return _json(start_response, 200, answer)


def _json(start_response: Any, code: int, content: dict[str, Any]) -> Iterable[bytes]:
    text = json.dumps(content, default=str).encode()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(text)))]
    if "__type" in content:
        headers.append(("x-amzn-ErrorType", content["__type"]))
    start_response(_STATUS.get(code, f"{code} Error"), headers)
    return [text]


def main() -> None:
    """Serve until SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    twin = config.load()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    patch_rds(twin)
    patch_recovery()
    patch_load_balancing(twin)
    patch_certificates()
    patch_names()
    application = Application(twin)
    servers = [
        make_server(host, twin.aws_port, application, threaded=True, request_handler=MotoRequestHandler)
        for host in sorted({"127.0.0.1", twin.host_ip})
    ]
    for server in servers[1:]:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    log.info("AWS answers on port %d", twin.aws_port)
    servers[0].serve_forever()


if __name__ == "__main__":
    main()
