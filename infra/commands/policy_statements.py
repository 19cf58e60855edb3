"""Statements that policies of buckets and keys have to hold, whatever else others wrote into them; pure functions."""

from __future__ import annotations

import json
from typing import Any

from infra.access.iam_policies import Statement


def normalised(statement: Statement) -> dict[str, Any]:
    """Return a policy statement in the one form in which two that mean the same are equal; its Sid means nothing.

    AWS stores a list of one as a string and the principal `*` as a map, and people write `false` without quotes.
    """

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(each) for key, each in value.items()}
        return sorted(str(each).lower() if isinstance(each, bool) else str(each) for each in _list(value))

    fields = {key: plain(value) for key, value in statement.items() if key != "Sid"}
    if fields.get("Principal") == {"AWS": ["*"]}:
        fields["Principal"] = ["*"]
    return fields


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def with_statement(policy: str | None, wanted: Statement) -> str | None:
    """Return a policy with this statement added; None if it holds it already."""
    document: dict[str, Any] = json.loads(policy) if policy else {"Version": "2012-10-17"}
    statements = _list(document.get("Statement", []))
    if normalised(wanted) in map(normalised, statements):
        return None
    return json.dumps({**document, "Statement": [*statements, wanted]})


def only_tls(bucket: str) -> Statement:
    """Deny whatever doesn't come by HTTPS."""
    return {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }


def by_iam(account: str) -> Statement:
    """Let the account's IAM policies decide who uses a key; KMS gives a new key this statement by default.

    Without it the roles' policies (infra/access/iam_policies.py) allow nothing, and nobody can change the key's policy again
    (docs.aws.amazon.com/kms/latest/developerguide/key-policy-default.html).
    """
    return {
        "Effect": "Allow",
        "Principal": {"AWS": f"arn:aws:iam::{account}:root"},
        "Action": "kms:*",
        "Resource": "*",
    }
