"""Route 53 at moto with AWS's rules for change batches, and a look at what each changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from moto.route53.models import RecordSet, Route53Backend

from twin.aws.route53 import apply_batch

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest


def strict_batches(
    monkeypatch: pytest.MonkeyPatch, observe: Callable[[list[RecordSet], list[RecordSet]], None]
) -> None:
    """Give moto AWS's rules; what stood before and after each batch is handed over."""

    def change(backend: Route53Backend, zoneid: str, change_list: list[dict[str, Any]]) -> None:
        before = list(backend.get_hosted_zone(zoneid).rrsets)
        apply_batch(backend, zoneid, change_list)
        observe(before, list(backend.get_hosted_zone(zoneid).rrsets))

    monkeypatch.setattr(Route53Backend, "change_resource_record_sets", change)
