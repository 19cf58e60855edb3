"""Where Pulumi keeps state: names of the buckets and keys that `make bootstrap` makes, for production and for previews."""

from __future__ import annotations


def bucket(state: str, account: str, region: str) -> str:
    """Bucket names are global, so the account and region are part of them."""
    return f"shopcat-state-{state}-{account}-{region}"


def key_alias(state: str) -> str:
    """The key that encrypts a state and the secrets in it."""
    return f"alias/shopcat-state-{state}"


def url(state: str, account: str, region: str) -> str:
    """What `pulumi login` takes."""
    return f"s3://{bucket(state, account, region)}?region={region}"


def secrets_provider(state: str, region: str) -> str:
    """What `--secrets-provider` takes."""
    return f"awskms://{key_alias(state)}?region={region}"
