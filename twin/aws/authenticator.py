"""IAM authentication for the twin's API server, as EKS does it, and pod identity (``python -m twin.aws.authenticator``).

A token is ``k8s-aws-v1.`` and a base64url of a presigned STS GetCallerIdentity request that was signed with the header
``x-k8s-aws-id: <cluster>``. Whoever made it is looked up among the cluster's access entries; what the associated access
policies allow is granted through groups that this stand-in binds (below).

Source: docs.aws.amazon.com/eks/latest/userguide/access-entries.html and access-policy-permissions.html.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import re
import threading
import urllib.error
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from twin import config
from twin.aws import pod_identity
from twin.aws.eks import SESSION_NAME
from twin.config import Twin

log = logging.getLogger("authenticator")
PREFIX = "k8s-aws-v1."
CLUSTER_ADMIN = "AmazonEKSClusterAdminPolicy"


class AuthenticationError(Exception):
    """The token is not good; the message says why."""


def read_token(token: str) -> tuple[str, str]:
    """The access key and cluster name in a token.

    Raises:
        AuthenticationError: it isn't a token that EKS would take.
    """
    if not token.startswith(PREFIX):
        raise AuthenticationError("no k8s-aws-v1 token")
    encoded = token.removeprefix(PREFIX)
    try:
        url = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise AuthenticationError("token is not base64url") from error
    query = {name: values[0] for name, values in urllib.parse.parse_qs(urllib.parse.urlsplit(url).query).items()}
    if query.get("Action") != "GetCallerIdentity":
        raise AuthenticationError("token is not a GetCallerIdentity request")
    if "x-k8s-aws-id" not in query.get("X-Amz-SignedHeaders", "").split(";"):
        raise AuthenticationError("token was not signed for a cluster (x-k8s-aws-id)")
    credential = query.get("X-Amz-Credential", "")
    if not re.fullmatch(r"[^/]+/\d{8}/[a-z0-9-]+/sts/aws4_request", credential):
        raise AuthenticationError("token has no STS credential scope")
    return credential.partition("/")[0], url


def groups_of(entry: dict[str, Any], policies: list[dict[str, Any]]) -> list[str]:
    """Kubernetes groups of an access entry: its own, and system:masters for a cluster-wide ClusterAdmin policy.

    Raises:
        AuthenticationError: an access policy that the stand-in doesn't implement.
    """
    groups = list(entry.get("kubernetesGroups", []))
    for policy in policies:
        name = policy["policyArn"].rpartition("/")[2]
        if name == CLUSTER_ADMIN and policy["accessScope"]["type"] == "cluster":
            groups.append("system:masters")
        else:
            raise AuthenticationError(
                f"twin: access policy {name} ({policy['accessScope']}) is not implemented by the stand-in"
            )
    return groups


def username(template: str, session: str) -> str:
    """The user of a session: EKS writes its name into the entry's, with `-` for what a user name may not hold."""
    return template.replace(SESSION_NAME, session.replace("@", "-"))


class TokenReviewHandler(BaseHTTPRequestHandler):
    """TokenReview requests of the API server."""

    twin: Twin
    cluster: str

    def do_POST(self) -> None:
        """Answer one review."""
        review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        try:
            status = self._authenticate(review["spec"]["token"])
        except AuthenticationError as error:
            log.info("refused: %s", error)
            status = {"authenticated": False, "error": str(error)}
        body = json.dumps({"apiVersion": review["apiVersion"], "kind": "TokenReview", "status": status}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _authenticate(self, token: str) -> dict[str, Any]:
        key, _ = read_token(token)
        names = self._get("/clusters", "eks")
        for cluster in names.get("clusters", []):
            query = urllib.parse.urlencode({"key": key, "cluster": cluster})
            access = self._get(f"/twin/access?{query}", None)
            if access:
                groups = groups_of(access["entry"], access["policies"])
                name = username(access["entry"]["username"], access["session"])
                user = {"username": name, "groups": groups, "uid": access["principal"]}
                return {"authenticated": True, "user": user}
        raise AuthenticationError("no access entry for the caller")

    def _get(self, path: str, service: str | None) -> dict[str, Any]:
        headers = {}
        if service is not None:
            scope = f"{config.ACCESS_KEY_ID}/20260101/{config.region()}/{service}/aws4_request"
            headers["Authorization"] = f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=none"
        message = urllib.request.Request(f"http://127.0.0.1:{self.twin.aws_port}{path}", headers=headers)
        try:
            with urllib.request.urlopen(message, timeout=10) as answer:
                body: dict[str, Any] = json.loads(answer.read())
                return body
        except urllib.error.HTTPError:
            return {}
        except OSError as error:
            raise AuthenticationError(f"AWS does not answer: {error}") from error

    def log_message(self, *_: Any) -> None:
        """Keep quiet; refusals are logged above."""


def main() -> None:
    """Serve until SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    TokenReviewHandler.twin = config.load()
    threading.Thread(target=pod_identity.serve, args=(TokenReviewHandler.twin,), daemon=True).start()
    ThreadingHTTPServer(("127.0.0.1", TokenReviewHandler.twin.authenticator_port), TokenReviewHandler).serve_forever()


if __name__ == "__main__":
    main()
