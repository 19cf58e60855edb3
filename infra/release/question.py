"""What the settings say of a release, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from infra import capacity
from infra.names import APPLICATION_SECRET, LOAD_BALANCER, RELEASE_REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from infra.settings import Settings
    from infra.timeouts import DrainBudget


@dataclass(frozen=True)
class Question:
    """What the settings say of the release, as plain values."""

    cluster: str
    """Name of the EKS cluster."""
    ledger_table: str
    replicas: int
    cpu_millicores: int
    memory_mebibytes: int
    environment: Mapping[str, str]
    secret_id: str
    smoke_image: str
    public_url: str
    drain: DrainBudget
    production: capacity.ProductionDemand
    tag: str = ""
    abort: str = ""
    rollback: str = ""
    migrate: tuple[str, ...] = ()
    migrate_deadline_seconds: int = 300
    contracts: bool = False
    accept_unserved: str = ""
    """Name of the live release whose ready pods may be no healthy targets when a release starts."""
    load_balancer: str = LOAD_BALANCER
    repository: str = RELEASE_REPOSITORY


def make_question(settings: Settings) -> Question:
    """The settings' part in a release."""
    release, database = settings.release, settings.database
    return Question(
        cluster=settings.cluster.name,
        ledger_table=settings.ledger_table,
        replicas=release.replicas,
        cpu_millicores=release.pod.cpu_millicores,
        memory_mebibytes=release.pod.memory_mebibytes,
        environment={
            **release.env,
            "DATABASE_POOL_SIZE": str(database.pool_size),
            "DATABASE_SSLMODE": "require",
            "SHOPCAT_PUBLIC_URL": settings.url,
        },
        secret_id=APPLICATION_SECRET,
        smoke_image=settings.images.smoke,
        public_url=settings.url,
        drain=settings.drain.budget,
        production=settings.production,
        tag=settings.tag,
        abort=settings.abort,
        rollback=settings.rollback,
        migrate=release.migrate,
        migrate_deadline_seconds=release.migrate_deadline,
        contracts=release.contracts,
        accept_unserved=settings.accept_unserved,
    )
