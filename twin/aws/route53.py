"""Corrections to moto's Route 53."""

from __future__ import annotations

from typing import Any, cast

from moto.route53 import models as route53


def patch_names() -> None:
    """Let a record that was deleted be made again: moto 5.2.5 finds its creation in the journal and refuses another."""
    zone = cast("Any", route53.FakeZone)
    delete = zone.delete_rrset

    def delete_record(self: Any, record: dict[str, Any]) -> None:
        delete(self, record)
        gone = (record["Name"].strip("."), record["Type"])
        kept = [
            change
            for change in self.rr_changes
            if (change["ResourceRecordSet"]["Name"], change["ResourceRecordSet"]["Type"]) != gone
        ]
        self.rr_changes[:] = kept

    zone.delete_rrset = delete_record
