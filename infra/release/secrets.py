"""Secrets Manager → one Kubernetes Secret per claim of a colour.

An ExternalSecret is named by the claim and pins versions, so a pod that restarts months later, in either colour, finds what
its release began with: where the database is from the application's secret, role and password from its colour's. No value
passes through the program: the operator in the cluster reads it with an identity of its own. A release waits until its Secret
is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import pulumi
import pulumi_kubernetes as kubernetes

from infra.names import APPLICATION, EXTERNAL_SECRETS_API, LOGIN_KEYS, RELEASE_LABEL, SECRET_KEYS
from infra.release.manifests import SECRET_SECONDS
from infra.release.record import Record

RELEASE_STORE = APPLICATION
_RESOURCE_TIMEOUTS = pulumi.CustomTimeouts(create=f"{SECRET_SECONDS}s", update=f"{SECRET_SECONDS}s", delete="2m")


class Metadata(Protocol):
    """Makes an object's metadata, marked where somebody changed or deleted the object by hand."""

    def __call__(
        self, kind: str, name: str, spec: Mapping[str, Any], *, annotations: Mapping[str, str], is_expected: bool = True
    ) -> dict[str, Any]:
        """Return name, namespace and annotations."""


def declare_store(
    region: str, metadata: Metadata, opts: pulumi.ResourceOptions
) -> kubernetes.apiextensions.CustomResource:
    """Declare the namespace's store; without `auth` the operator reads with its own identity, which may read no others."""
    spec = {"provider": {"aws": {"service": "SecretsManager", "region": region}}}
    return kubernetes.apiextensions.CustomResource(
        "secret-store",
        api_version=EXTERNAL_SECRETS_API,
        kind="SecretStore",
        metadata=metadata("SecretStore", RELEASE_STORE, spec, annotations={"pulumi.com/waitFor": "condition=Ready"}),
        spec=spec,
        opts=pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(custom_timeouts=_RESOURCE_TIMEOUTS)),
    )


def declare_release_secret(
    record: Record, metadata: Metadata, opts: pulumi.ResourceOptions, *, awaited: bool, is_expected: bool
) -> kubernetes.apiextensions.CustomResource:
    """Declare the release's own ExternalSecret; if it is awaited, it is done once the operator has written the Secret."""
    waiting = {"pulumi.com/waitFor": "condition=Ready"} if awaited else {"pulumi.com/skipAwait": "true"}
    spec = {
        "refreshPolicy": "CreatedOnce",
        "secretStoreRef": {"kind": "SecretStore", "name": RELEASE_STORE},
        "target": {"name": record.secret_name, "creationPolicy": "Owner", "deletionPolicy": "Retain"},
        "data": [
            {"secretKey": key, "remoteRef": {"property": key, **_source(record, key)}} for key in SECRET_KEYS.values()
        ],
    }
    marked = metadata("ExternalSecret", record.secret_name, spec, annotations=waiting, is_expected=is_expected)
    return kubernetes.apiextensions.CustomResource(
        record.secret_resource,
        api_version=EXTERNAL_SECRETS_API,
        kind="ExternalSecret",
        metadata={**marked, "labels": {"app.kubernetes.io/name": APPLICATION, RELEASE_LABEL: record.name}},
        spec=spec,
        opts=pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(custom_timeouts=_RESOURCE_TIMEOUTS)),
    )


def _source(record: Record, key: str) -> dict[str, str]:
    """Return the secret, and its version, that a key comes from."""
    template, login = record.template, record.login
    if login and key in LOGIN_KEYS:
        return {"key": login.secret_id, "version": f"uuid/{login.version}"}
    return {"key": template.secret_id, "version": f"uuid/{template.secret_version}"}
