"""The things that a person has on AWS before the first `pulumi up`: the domains' zones, and what `make bootstrap` makes."""

from __future__ import annotations

import os
import subprocess
import sys

from twin import pulumi
from twin.config import PartStatus, Twin
from twin.errors import TwinError
from twin.loadbalancer import hostnames
from twin.paths import REPOSITORY


def up(twin: Twin) -> None:
    """``make bootstrap``, as on AWS, with the twin's endpoint.

    Raises:
        TwinError: it failed; its output is shown.
    """
    result = subprocess.run(
        [sys.executable, "-m", "infra.commands.bootstrap"],
        cwd=REPOSITORY,
        env={**os.environ, **pulumi.environment(twin)},
        text=True,
        check=False,
        capture_output=True,
        stdin=subprocess.DEVNULL,
    )
    _own_domains(twin)
    log = twin.logs / "bootstrap.log"
    log.write_text(result.stdout + result.stderr)
    if result.returncode != 0:
        raise TwinError(f"bootstrap failed (log: {log}):\n{result.stdout}{result.stderr}")


def _own_domains(twin: Twin) -> None:
    """The zones that a person on AWS has from registering the two domains."""
    client = pulumi.client(twin, "route53")
    zones = [zone["Name"].rstrip(".") for zone in client.list_hosted_zones()["HostedZones"]]
    for domain in (hostnames.domain(twin), hostnames.preview_domain(twin)):
        if domain not in zones:
            client.create_hosted_zone(Name=domain, CallerReference=domain)


def down(twin: Twin) -> None:
    """Do nothing: the account ends with the twin's AWS."""


def status(twin: Twin) -> list[PartStatus]:
    """Report whether the account is bootstrapped: the hosted zone exists, which is made last."""
    zones = pulumi.client(twin, "route53").list_hosted_zones()["HostedZones"]
    bootstrapped = hostnames.preview_domain(twin) in [zone["Name"].rstrip(".") for zone in zones]
    return [PartStatus("account", ok=bootstrapped, detail="bootstrapped" if bootstrapped else "not bootstrapped")]
