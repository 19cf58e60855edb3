"""AWS on the twin: moto's server with what it lacks put around it (``python -m twin.aws.server``).

* EKS add-ons, access entries, pod identity: twin/aws/eks.py answers instead of moto.
* RDS: a real PostgreSQL is started, restarted, re-keyed and deleted with the instance.
* ELBv2: target health comes from the load balancer stand-in; weights over 999 are refused; groups that a rule names stay
  attached to their load balancer.
* ``/twin/faults`` slows, fails or kills for a while (twin/aws/faults.py).
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import secrets
import signal
import string
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
from flask import request
from moto.elbv2 import models as elbv2
from moto.elbv2.exceptions import InvalidConfigurationRequest
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from moto.rds import models as rds
from moto.route53 import models as route53
from werkzeug.serving import make_server

from twin import config, postgres
from twin.aws.eks import EksStandIn
from twin.aws.faults import Faults
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


class Application:
    """moto's WSGI application with the twin's additions before and after it."""

    def __init__(self, twin: Twin) -> None:
        self._twin = twin
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._eks = EksStandIn(twin, self._addon_changed)
        self._faults = Faults()
        (twin.directory / "logs").mkdir(parents=True, exist_ok=True)
        self._calls = (twin.logs / "aws-calls.log").open("a", buffering=1)

    def _addon_changed(self, name: str, present: bool) -> None:  # noqa: FBT001 - a callback's only argument
        from twin import cluster_addons
        from twin.aws import pod_identity

        if name == "eks-pod-identity-agent":
            pod_identity.register(self._twin, present=present)
        if not present:
            cluster_addons.delete(self._twin, name)
            return
        cluster_addons.apply(self._twin, name)
        deadline = time.monotonic() + _ADDON_SECONDS
        while cluster_addons.problems(self._twin, name):
            if time.monotonic() > deadline:
                raise TwinError("; ".join(cluster_addons.problems(self._twin, name)))
            time.sleep(0.5)

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
            found: dict[str, Any] = json.loads(content)
            if "cluster" in found:
                name = found["cluster"]["name"]
                if method == "POST" and path == "/clusters":
                    vpc, group = self._security_group(name, request["resourcesVpcConfig"]["subnetIds"])
                    self._eks.created(name, request, self._principal(key)[0], vpc_id=vpc, security_group_id=group)
                if method == "DELETE":
                    group = self._eks.deleted(name)
                    if group:
                        self._client("ec2").delete_security_group(GroupId=group)
                self._eks.complete(found["cluster"])
            return _json(start_response, code, found)
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
        made: str = ec2.create_security_group(
            GroupName=f"eks-cluster-sg-{cluster}-twin", Description="EKS created security group", VpcId=vpc
        )["GroupId"]
        return vpc, made

    def _principal(self, access_key: str) -> tuple[str, str]:
        """ARN of the IAM user or role behind an access key, as an access entry names it, and the session's name."""
        client = self._client("sts", access_key)
        arn = client.get_caller_identity()["Arn"]
        assumed = re.fullmatch(r"arn:aws:sts::(\d+):assumed-role/([^/]+)/(.*)", arn)
        if assumed is None:
            return arn, ""
        return f"arn:aws:iam::{assumed.group(1)}:role/{assumed.group(2)}", assumed.group(3)

    def _own(
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
        """For the pod webhook: the role of a service account, in whichever cluster."""
        wanted = (query["namespace"][0], query["account"][0])
        for state in self._eks.clusters.values():
            for one in state.associations.values():
                if (one["namespace"], one["serviceAccount"]) == wanted:
                    return _json(start_response, 200, {"role": one["roleArn"]})
        return _json(start_response, 404, {"message": "no association"})

    def _access(self, query: dict[str, list[str]], start_response: Any) -> Iterable[bytes]:
        """For the token webhook: the access entry and policies of whoever holds an access key."""
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


def _password() -> str:
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(28))


def patch_rds(twin: Twin) -> None:
    """Give RDS instances a real PostgreSQL. One instance at a time; a second is refused by name."""
    instance = cast("Any", rds.DBInstance)
    backend = cast("Any", rds.RDSBackend)
    secret = cast("Any", rds.MasterUserSecret)
    create, delete, modify = backend.create_db_instance, backend.delete_db_instance, backend.modify_db_instance

    def address(self: Any) -> str:
        return postgres.endpoint_name(twin, self.db_instance_identifier, self.region)

    instance.address = property(address)
    instance.endpoint = property(lambda self: {"Address": self.address, "Port": twin.postgres_port})

    def secret_string(self: Any) -> str:
        user = self.resource.master_username
        return json.dumps({"username": user, "password": _password()})

    def rotate(self: Any) -> None:
        self._status = "rotating"
        content = json.loads(secret_string(self))
        postgres.set_password(twin, content["username"], content["password"])
        self.secretsmanager.put_secret_value(
            self.secret.arn, json.dumps(content), "", str(secrets.token_hex(16)), ["AWSCURRENT"]
        )

    secret._generate_secret_string = secret_string  # noqa: SLF001 - moto has no other seam
    secret.rotate_secret = rotate

    def create_instance(self: Any, kwargs: dict[str, Any]) -> Any:
        if any(known.status != "deleting" for known in self.databases.values()):
            raise rds.InvalidParameterCombination("twin: a second RDS instance is not implemented by the stand-in")
        if kwargs.get("engine") != "postgres":
            raise rds.InvalidParameterCombination(f"twin: RDS engine {kwargs.get('engine')} is not implemented")
        made = create(self, kwargs)
        made.status = "creating"
        threading.Thread(target=_start_database, args=(twin, self, made), daemon=True).start()
        return made

    def delete_instance(self: Any, *args: Any, **kwargs: Any) -> Any:
        gone = delete(self, *args, **kwargs)
        postgres.destroy(twin)
        _publish(twin, None)
        return gone

    def modify_instance(self: Any, identifier: str, kwargs: dict[str, Any]) -> Any:
        changed = modify(self, identifier, kwargs)
        changed.status = "available"
        return changed

    backend.create_db_instance = create_instance
    backend.delete_db_instance = delete_instance
    backend.modify_db_instance = modify_instance


def _publish(twin: Twin, hostname: str | None) -> None:
    path = twin.hosts_directory / "rds"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{twin.host_ip} {hostname}\n" if hostname else "")


def _start_database(twin: Twin, backend: Any, instance: Any) -> None:
    try:
        if getattr(instance, "manage_master_user_password", False):
            found = backend.secretsmanager.get_secret_value(instance.master_user_secret.secret_arn, "", "AWSCURRENT")
            password = json.loads(found["SecretString"])["password"]
        else:
            password = instance.master_user_password
        group = backend.db_parameter_groups.get(instance.db_parameter_group_name or "")
        parameters = dict(group.parameters) if group is not None else {}
        forced = str(parameters.get("rds.force_ssl", {}).get("ParameterValue", "1"))
        # RDS for PostgreSQL 15 and later forces TLS unless the parameter group says otherwise.
        postgres.create(
            twin,
            hostname=instance.address,
            database=instance.db_name or "postgres",
            user=instance.master_username,
            password=password,
            instance_class=instance.db_instance_class,
            force_ssl=forced == "1",
        )
        _publish(twin, instance.address)
        instance.status = "available"
    except Exception:
        log.exception("RDS instance %s", instance.db_instance_identifier)
        instance.status = "failed"


def patch_names() -> None:
    """Let a record that was deleted be made again: moto 5.2.5 finds its creation in the journal and refuses another."""
    zone = cast("Any", route53.FakeZone)
    delete = zone.delete_rrset

    def delete_record(self: Any, record: dict[str, Any]) -> None:
        delete(self, record)
        gone = (record["Name"].strip("."), record["Type"])
        kept = [
            one
            for one in self.rr_changes
            if (one["ResourceRecordSet"]["Name"], one["ResourceRecordSet"]["Type"]) != gone
        ]
        self.rr_changes[:] = kept

    zone.delete_rrset = delete_record


def patch_load_balancing(twin: Twin) -> None:
    """Target health from the load balancer stand-in, and AWS's limits that moto lets pass."""
    backend = cast("Any", elbv2.ELBv2Backend)
    create_rule, modify_rule = backend.create_rule, backend.modify_rule

    def health(self: Any, arn: str, targets: list[dict[str, Any]]) -> list[dict[str, Any]]:
        group = self.target_groups.get(arn)
        if group is None:
            raise elbv2.TargetGroupNotFoundError
        registered = [{"Id": target["Id"], "Port": int(target["Port"])} for target in group.targets.values()]
        if request.headers.get("X-Twin-Registered-Only"):
            # The load balancer asks what is registered; asking it back would go round in circles.
            return [{"Target": target, "TargetHealth": {"State": "healthy"}} for target in registered]
        url = f"http://127.0.0.1:{twin.load_balancer_port}/target-health?arn={urllib.parse.quote(arn, safe='')}"
        found: list[dict[str, Any]] | None = None
        with contextlib.suppress(OSError, ValueError), urllib.request.urlopen(url, timeout=5) as answer:
            found = json.loads(answer.read())["TargetHealthDescriptions"]
        # Registered, but the load balancer does not answer or has not seen it yet.
        reason = {
            "State": "initial",
            "Reason": "Elb.RegistrationInProgress",
            "Description": "Target registration is in progress",
        }
        known = {(one["Target"]["Id"], int(one["Target"]["Port"])) for one in found or []}
        found = [*(found or [])] + [
            {"Target": target, "TargetHealth": reason}
            for target in registered
            if (target["Id"], target["Port"]) not in known
        ]
        if not targets:
            return found
        wanted = {(target["Id"], int(target.get("Port") or group.port)) for target in targets}
        chosen = [one for one in found if (one["Target"]["Id"], int(one["Target"]["Port"])) in wanted]
        present = {(one["Target"]["Id"], int(one["Target"]["Port"])) for one in chosen}
        for identifier, port in sorted(wanted - present):
            unknown = {"State": "unused", "Reason": "Target.NotRegistered"}
            chosen.append({"Target": {"Id": identifier, "Port": port}, "TargetHealth": unknown})
        return chosen

    def check_weights(actions: Iterable[Any] | None) -> None:
        for action in actions or []:
            data = action if isinstance(action, dict) else getattr(action, "data", {})
            for group in (data.get("ForwardConfig") or {}).get("TargetGroups") or []:
                if not 0 <= int(group.get("Weight", 1)) <= 999:
                    raise InvalidConfigurationRequest("Weights must be between 0 and 999")

    def creating(self: Any, *args: Any, **kwargs: Any) -> Any:
        check_weights(kwargs.get("actions"))
        return create_rule(self, *args, **kwargs)

    def modifying(self: Any, *args: Any, **kwargs: Any) -> Any:
        check_weights(kwargs.get("actions") or (args[2] if len(args) > 2 else None))
        return modify_rule(self, *args, **kwargs)

    group_type = cast("Any", elbv2.FakeTargetGroup)
    deregister = group_type.deregister

    def deregistering(self: Any, targets: list[dict[str, Any]]) -> None:
        # "If the specified target does not exist, the action returns successfully." (DeregisterTargets)
        deregister(self, [target for target in targets if target["Id"] in self.targets])

    group_type.deregister = deregistering
    backend.describe_target_health = health
    backend.create_rule = creating
    backend.modify_rule = modifying


def main() -> None:
    """Serve until SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    twin = config.load()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    patch_rds(twin)
    patch_load_balancing(twin)
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
