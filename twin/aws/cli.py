"""``aws`` on the twin's PATH: only what kubeconfigs and pushes call; anything else is refused by name."""

from __future__ import annotations

import argparse
import base64
import json
import os
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import botocore.session
from botocore.signers import RequestSigner

VERSION = "aws-cli/2.31.0 twin"
"""Version in the form of the real `aws --version`, which the eks plugin reads."""
_EXPIRES_SECONDS = 60
_VALID_MINUTES = 14


def token(cluster: str, region: str) -> str:
    """A token as `aws eks get-token` makes it: a presigned GetCallerIdentity, signed for the cluster."""
    session = botocore.session.get_session()
    endpoint = os.environ.get("AWS_ENDPOINT_URL", f"https://sts.{region}.amazonaws.com")
    credentials = session.get_credentials()
    if credentials is None:
        sys.exit("aws: Unable to locate credentials")
    service = session.get_service_model("sts").service_id
    signer = RequestSigner(service, region, "sts", "v4", credentials, session.get_component("event_emitter"))
    request = {
        "method": "GET",
        "url": f"{endpoint}/?Action=GetCallerIdentity&Version=2011-06-15",
        "body": {},
        "headers": {"x-k8s-aws-id": cluster},
        "context": {},
    }
    url = signer.generate_presigned_url(request, region_name=region, expires_in=_EXPIRES_SECONDS, operation_name="")
    return "k8s-aws-v1." + base64.urlsafe_b64encode(url.encode()).decode().rstrip("=")


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(prog="aws", description=__doc__)
    parser.add_argument("--region", default=os.environ.get("AWS_REGION", os.environ.get("AWS_DEFAULT_REGION", "")))
    parser.add_argument("--output", default="json")
    parser.add_argument("--version", action="version", version=VERSION)
    parser.add_argument("service")
    parser.add_argument("operation")
    parser.add_argument("--cluster-name")
    arguments, rest = parser.parse_known_args()
    wanted = (arguments.service, arguments.operation)
    if rest and rest != ["--output", "json"]:
        sys.exit(f"twin: aws {' '.join(rest)} is not implemented by the stand-in of the aws command")
    if wanted == ("eks", "get-token"):
        expires = datetime.now(UTC) + timedelta(minutes=_VALID_MINUTES)
        credential = {
            "kind": "ExecCredential",
            "apiVersion": "client.authentication.k8s.io/v1beta1",
            "spec": {},
            "status": {
                "expirationTimestamp": expires.strftime("%Y-%m-%dT%H:%M:%SZ"),
                "token": token(arguments.cluster_name, arguments.region),
            },
        }
        print(json.dumps(credential))
    elif wanted == ("ecr", "get-login-password"):
        print("twin")
    elif wanted == ("sts", "get-caller-identity"):
        client: Any = botocore.session.get_session().create_client("sts", region_name=arguments.region)
        answer = client.get_caller_identity()
        print(json.dumps({key: answer[key] for key in ("UserId", "Account", "Arn")}, indent=4))
    else:
        sys.exit(f"twin: aws {' '.join(wanted)} is not implemented by the stand-in of the aws command")


if __name__ == "__main__":
    main()
