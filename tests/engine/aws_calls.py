"""Which IAM actions a run on the twin needed: its AWS calls, as the twin's AWS logged them, and who made each."""

import re
from functools import cache

import boto3

from twin import config
from twin.config import Twin

_ACTION = {
    ("s3", "GET", 1): "s3:ListBucket",
    ("s3", "HEAD", 1): "s3:ListBucket",
    ("s3", "PUT", 1): "s3:CreateBucket",
    ("s3", "GET", 2): "s3:GetObject",
    ("s3", "PUT", 2): "s3:PutObject",
}
"""S3's log lines have a method and a path; what counts is whether it names a bucket or an object."""
_VARIABLE = {"principalArn": "arn:[^/]+/[^/]+", "policyArn": "arn:.+"}
"""Parts of a path that hold a slash."""
_PREFIX = {"monitoring": "cloudwatch"}
"""Services whose requests are signed by another name than IAM's."""
_NO_PERMISSION = {"sts:GetCallerIdentity"}
"""docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html: "No permissions are required"."""
_LOAD_BALANCERS_OWN = {"cloudwatch:DescribeAlarms", "cloudwatch:PutMetricData", "cloudwatch:SetAlarmState"}
"""What the twin's load balancer calls in CloudWatch's place, with the key of the twin's administrator."""
_TRANSACTION = {"dynamodb:ConditionCheckItem", "dynamodb:PutItem", "dynamodb:UpdateItem"}
"""Actions in a transaction of the ledger (infra/release/ledger.py); IAM knows no action of the whole."""


@cache
def _operations(service: str) -> list[tuple[str, re.Pattern[str], str]]:
    """Method, path and name of each operation of a service that is told by its path."""
    model = boto3.client(service, region_name="us-east-1").meta.service_model
    found = []
    for name in model.operation_names:
        http = model.operation_model(name).http
        parts = re.split(r"\{(\w+)\+?\}", http["requestUri"].partition("?")[0].rstrip("/"))
        path = "".join(
            _VARIABLE.get(part, "[^/]+") if index % 2 else re.escape(part) for index, part in enumerate(parts)
        )
        found.append((http["method"], re.compile(path), name))
    return found


def _by_path(service: str, method: str, path: str) -> str:
    if service == "s3":
        return _ACTION[service, method, min(len(path.strip("/").split("/")), 2)]
    found = [
        name for verb, pattern, name in _operations(service) if verb == method and pattern.fullmatch(path.rstrip("/"))
    ]
    assert len(found) >= 1, f"{service} {method} {path}"
    return f"{service}:{found[0]}"


def needed(twin: Twin, access_key: str) -> set[str]:
    """IAM actions of the calls made with an access key."""
    actions: set[str] = set()
    for line in (twin.logs / "aws-calls.log").read_text().splitlines():
        _, service, *call, _, _, key = line.split()
        if key != access_key or service == "-":
            continue
        service = _PREFIX.get(service, service)
        if len(call) == 2:
            actions.add(_by_path(service, *call))
        elif call == ["TransactWriteItems"]:
            actions |= _TRANSACTION
        else:
            actions.add(f"{service}:{call[0]}")
    others = _LOAD_BALANCERS_OWN if access_key == config.ACCESS_KEY_ID else set()
    return actions - _NO_PERMISSION - others
