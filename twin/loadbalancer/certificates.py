"""Certificates for HTTPS listeners: for each ACM certificate one from the twin's own authority, for the same names."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from twin.config import Twin
from twin.host import pki
from twin.loadbalancer.haproxy_config import certificate_file


def ensure(twin: Twin, directory: Path, wanted: Iterable[str], names: Mapping[str, tuple[str, ...]]) -> bool:
    """Write certificate and key, in one file, for each ACM ARN that lacks one for its names.

    Returns:
        Whether anything was written.

    Raises:
        TwinError: the twin has no certificate authority.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    issued = False
    for arn in sorted(set(wanted)):
        file = directory / certificate_file(arn)
        record = file.with_suffix(".json")
        issuer = pki.ca_file(twin).read_text() if pki.ca_file(twin).exists() else ""
        content = json.dumps({"names": names[arn], "issuer": issuer})
        if file.exists() and record.exists() and record.read_text() == content:
            continue
        pair = pki.issue_server_certificate(twin, names[arn])
        file.touch(mode=0o600)
        file.write_bytes(pair.certificate + pair.key)
        record.write_text(content)
        issued = True
    return issued
