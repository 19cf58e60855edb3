"""One health check of one target, the way an application load balancer makes it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl

from twin.loadbalancer.model import HealthCheck, Target
from twin.loadbalancer.targets import PASSED, CheckResult, matches

_LONGEST_STATUS_LINE = 4096


def _unverified() -> ssl.SSLContext:
    # A load balancer does not validate its targets' certificates (AWS documentation, "Target groups").
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def _status_of(host: str, port: int, check: HealthCheck) -> int:
    tls = _unverified() if check.protocol == "HTTPS" else None
    reader, writer = await asyncio.open_connection(host, port, ssl=tls, limit=_LONGEST_STATUS_LINE)
    try:
        writer.write(
            f"GET {check.path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n"
            "User-Agent: ELB-HealthChecker/2.0\r\nAccept-Encoding: gzip, compressed\r\n\r\n".encode()
        )
        await writer.drain()
        version, status, *_ = (await reader.readline()).decode("latin-1").split()
        if not version.startswith("HTTP/"):
            raise ValueError(version)
        return int(status)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def check_target(target: Target, check: HealthCheck) -> CheckResult:
    """Check once. Takes at most the check's timeout."""
    port = target.port if check.port == "traffic-port" else int(check.port)
    try:
        status = await asyncio.wait_for(_status_of(target.ip, port, check), check.timeout_seconds)
    except TimeoutError:
        return CheckResult(passed=False, reason="Target.Timeout", description="Request timed out")
    except (OSError, ValueError):
        return CheckResult(passed=False, reason="Target.FailedHealthChecks", description="Health checks failed")
    if matches(check.matcher, status):
        return PASSED
    return CheckResult(
        passed=False,
        reason="Target.ResponseCodeMismatch",
        description=f"Health checks failed with these codes: [{status}]",
    )
