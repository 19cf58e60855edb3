"""Corrections to moto's certificates: who uses one, and that one which is used can't be deleted."""

from __future__ import annotations

from typing import Any, cast

from moto.acm import exceptions
from moto.acm import models as acm
from moto.elbv2 import models as elbv2


class ResourceInUseError(exceptions.AWSError):  # type: ignore[name-defined, misc, unused-ignore]
    """ACM's answer to the deletion of a certificate that a listener has."""

    TYPE = "ResourceInUseException"


def users(account: str, region: str, certificate: str) -> list[str]:
    """Return the ARNs of the load balancers that have a listener with this certificate."""
    balancers = elbv2.elbv2_backends[account][region].load_balancers
    return [
        arn
        for arn, balancer in balancers.items()
        if any(certificate in (listener.certificates or []) for listener in balancer.listeners.values())
    ]


def patch_certificates() -> None:
    """Let certificates know who uses them."""
    backend, bundle = cast("Any", acm.AWSCertificateManagerBackend), cast("Any", acm.CertBundle)
    delete, describe = backend.delete_certificate, bundle.describe

    def delete_certificate(self: Any, arn: str) -> None:
        if using := users(self.account_id, self.region_name, arn):
            raise ResourceInUseError(f"Certificate {arn} is in use by {', '.join(using)}")
        delete(self, arn)

    def description(self: Any) -> Any:
        answer = describe(self)
        _, _, _, region, account, _ = self.arn.split(":", 5)
        answer["Certificate"]["InUseBy"] = users(account, region, self.arn)
        return answer

    backend.delete_certificate = delete_certificate
    bundle.describe = description
