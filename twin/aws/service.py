"""AWS on the twin as a part: moto's server and the API server's token webhook."""

from __future__ import annotations

import sys
import urllib.request

from twin import config
from twin.aws import postgres
from twin.config import PartStatus, Twin
from twin.errors import TwinError
from twin.host import ports, processes

SERVER = "aws"
AUTHENTICATOR = "authenticator"


def up(twin: Twin) -> None:
    """Start both.

    Raises:
        TwinError: AWS was running before and is gone, so the stack's state no longer matches anything.
    """
    marker = twin.directory / "aws-started"
    if marker.exists() and processes.find(twin, SERVER) is None:
        raise TwinError(
            "the twin's AWS ended since the last `make up`, and with it everything it held in memory; "
            f"`make down`, then `make up` starts afresh (its log: {twin.logs / 'aws.log'})"
        )
    if processes.find(twin, SERVER) is None:
        for address in sorted({"127.0.0.1", twin.host_ip}):
            ports.require_free(twin, address, twin.aws_port, "AWS")
    environment = {
        **config.module_environment(twin),
        "MOTO_IAM_LOAD_MANAGED_POLICIES": "true",
        "MOTO_ACM_VALIDATION_WAIT": "1",  # seconds until a requested certificate counts as validated
    }
    server = processes.start(twin, SERVER, [sys.executable, "-m", "twin.aws.server"], env=environment)

    def answers() -> bool:
        with urllib.request.urlopen(f"{twin.aws_endpoint}/twin/health", timeout=2) as answer:
            return bool(answer.status == 200)

    processes.wait_until(answers, "AWS answers", timeout_seconds=60, process=server)
    marker.touch()
    processes.start(twin, AUTHENTICATOR, [sys.executable, "-m", "twin.aws.authenticator"], env=environment)


def down(twin: Twin) -> None:
    """Stop both and the database behind RDS."""
    processes.stop(twin, AUTHENTICATOR)
    processes.stop(twin, SERVER)
    for server in postgres.servers(twin):
        postgres.destroy(server)
    (twin.directory / "aws-started").unlink(missing_ok=True)


def status(twin: Twin) -> list[PartStatus]:
    """Report whether the AWS server, the authenticator and PostgreSQL run."""
    lines = []
    for name, port in ((SERVER, twin.aws_port), (AUTHENTICATOR, twin.authenticator_port)):
        running = processes.find(twin, name) is not None
        lines.append(PartStatus(name, ok=running, detail=f"port {port}" if running else "not running"))
    return [*lines, *postgres.status(twin)]
