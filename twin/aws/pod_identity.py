"""EKS Pod Identity on the twin: a pod whose service account has an association gets the role's credentials.

EKS's webhook points pods at the agent on their node, which hands out credentials; here the webhook puts credentials of
the role, assumed in moto's STS, into the environment itself. Source of the behaviour:
docs.aws.amazon.com/eks/latest/userguide/pod-id-how-it-works.html.
"""

from __future__ import annotations

import base64
import json
import logging
import ssl
import urllib.error
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import boto3

from twin import config
from twin.config import Twin
from twin.host import pki
from twin.kubernetes import control_plane

log = logging.getLogger("pod-identity")
PORT_OFFSET = 14
_NAME = "pod-identity-webhook"
_PATH = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"


def webhook(twin: Twin) -> dict[str, Any]:
    """The webhook configuration by which the API server asks here about every new pod."""
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": _NAME},
        "webhooks": [
            {
                "name": "pod-identity.shopcat.twin",
                "clientConfig": {
                    "url": f"https://{twin.host_ip}:{twin.port(PORT_OFFSET)}/mutate",
                    "caBundle": base64.b64encode(pki.ca_file(twin).read_bytes()).decode(),
                },
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "failurePolicy": "Fail",
                "timeoutSeconds": 10,
            }
        ],
    }


def register(twin: Twin, *, present: bool) -> None:
    """Switch the webhook on or off, with the add-on eks-pod-identity-agent."""
    if present:
        control_plane.apply(twin, f"{_PATH}/{_NAME}", webhook(twin), manager="twin")
        return
    try:
        control_plane.call(twin, "DELETE", f"{_PATH}/{_NAME}")
    except control_plane.ApiError as error:
        if error.status != 404:
            raise


def patch(pod: dict[str, Any], variables: dict[str, str]) -> list[dict[str, Any]]:
    """JSON patch that adds the variables to every container; those a pod sets itself stay."""
    operations: list[dict[str, Any]] = []
    for kind in ("initContainers", "containers"):
        for index, container in enumerate(pod["spec"].get(kind) or []):
            own = {variable["name"] for variable in container.get("env") or []}
            added = [{"name": name, "value": value} for name, value in variables.items() if name not in own]
            path = f"/spec/{kind}/{index}/env"
            if not container.get("env"):
                operations.append({"op": "add", "path": path, "value": added})
            else:
                operations += [{"op": "add", "path": f"{path}/-", "value": variable} for variable in added]
    return operations


class PodWebhookHandler(BaseHTTPRequestHandler):
    """AdmissionReview requests of the API server."""

    twin: Twin

    def do_POST(self) -> None:
        """Answer one review."""
        review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        request = review["request"]
        response: dict[str, Any] = {"uid": request["uid"], "allowed": True}
        try:
            pod = request["object"]
            account = pod["spec"].get("serviceAccountName") or "default"
            variables = self._credentials(request["namespace"], account)
            operations = patch(pod, variables) if variables else []
            if operations:
                response["patchType"] = "JSONPatch"
                response["patch"] = base64.b64encode(json.dumps(operations).encode()).decode()
        except Exception as error:
            log.exception("pod in %s", request.get("namespace"))
            response = {"uid": request["uid"], "allowed": False, "status": {"message": f"twin pod identity: {error}"}}
        answer = {"apiVersion": review["apiVersion"], "kind": review["kind"], "response": response}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _credentials(self, namespace: str, account: str) -> dict[str, str]:
        query = urllib.parse.urlencode({"namespace": namespace, "account": account})
        url = f"http://127.0.0.1:{self.twin.aws_port}/twin/pod-identity?{query}"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                role = json.loads(answer.read())["role"]
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return {}
            raise
        sts = boto3.client(
            "sts",
            endpoint_url=f"http://127.0.0.1:{self.twin.aws_port}",
            region_name=config.region(),
            aws_access_key_id=config.ACCESS_KEY_ID,
            aws_secret_access_key=config.SECRET_ACCESS_KEY,
        )
        credentials = sts.assume_role(RoleArn=role, RoleSessionName=f"{namespace}-{account}"[:64])["Credentials"]
        return {
            "AWS_ACCESS_KEY_ID": credentials["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": credentials["SecretAccessKey"],
            "AWS_SESSION_TOKEN": credentials["SessionToken"],
            "AWS_REGION": config.region(),
            "AWS_DEFAULT_REGION": config.region(),
        }

    def log_message(self, *_: Any) -> None:
        """Keep quiet; failures are logged above."""


def serve(twin: Twin) -> None:
    """Serve until the process ends."""
    PodWebhookHandler.twin = twin
    files = pki.server_files(twin, "pod-identity", ["localhost"], [twin.host_ip, "127.0.0.1"])
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files.certificate, files.key)
    server = ThreadingHTTPServer((twin.host_ip, twin.port(PORT_OFFSET)), PodWebhookHandler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.serve_forever()
