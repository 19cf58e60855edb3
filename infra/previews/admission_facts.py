"""Facts that production's admission policies are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True)
class AdmissionFacts:
    """Facts that the rules are made of."""

    account: str
    region: str
    load_balancer_cidrs: Sequence[str]
    """Networks of the previews' load balancer."""
    secrets_role: str
    """ARN of the role in which the operator reads previews' secrets."""
    tools: Mapping[str, Sequence[str]]
    """Namespace of production → the tool images that its Jobs run, by digest."""
    database_image: str
    """An image of the repository that previews' databases come from."""
    most_grace_seconds: int
    """Longest time that a preview's pod may take to end: as long as production's."""
    repository: str = ""
    """Production's repository, with its registry."""
    preview_repository: str = ""
    """The previews' repository, with its registry."""
