"""Where stacks keep their state: a bucket and a key for production, others for previews; made by `make bootstrap`.

Within the previews' bucket each pull request has a folder of its own, named by whoever may use it (`aws:userid` of the
preview role's session, infra/permissions.py): `pulumi login s3://<bucket>/<role id>:<n>`.
"""

from __future__ import annotations

PRODUCTION = "prod"
PREVIEWS = "previews"
STACKS = (PRODUCTION, PREVIEWS)


def bucket(stack: str, account: str, region: str) -> str:
    """Bucket names are global, so the account and region are part of them."""
    return f"shopcat-state-{stack}-{account}-{region}"


def alias(stack: str) -> str:
    """Name of the key that encrypts a stack's secrets and state."""
    return f"alias/shopcat-state-{stack}"


def backend(stack: str, account: str, region: str, owner: str = "") -> str:
    """URL for `pulumi login`; with ``owner`` (``AROA…:<n>``, as `aws sts get-caller-identity` prints it) a preview's."""
    folder = f"/{owner}" if owner else ""
    return f"s3://{bucket(stack, account, region)}{folder}?region={region}"
