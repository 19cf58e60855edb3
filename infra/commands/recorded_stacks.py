"""Record what each kind of stack declares: all that production has in AWS, and a preview.

What is read before a stack is declared (AWS, the cluster, the contract) is answered here with references. Left out: production's
release and the policies that confine previews, which are objects in the cluster alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pulumi

from infra.clients.kubernetes import kubeconfig
from infra.commands.takeover.declaration import UNKNOWN, Declared
from infra.commands.takeover.declared import record_declared, recorded, replaced
from infra.names import (
    PREVIEW_PRIORITY_CLASS,
    PREVIEW_REPOSITORY,
    PREVIEW_SLOTS_TABLE,
    PRODUCTION_STACK,
    RELEASE_REPOSITORY,
)
from infra.previews import cluster_info, preview, slots

if TYPE_CHECKING:
    from infra.settings import PreviewSettings, Settings

PULL_REQUEST = 1
"""Number of the preview that is recorded; no price and no rule depends on it."""
_PREVIEW_IMAGE = f"{PREVIEW_REPOSITORY}@sha256:{'0' * 64}"
"""In place of the preview's image: it is read from ECR, by digest."""


def record_production(settings: Settings, region: str, account: str) -> list[Declared]:
    """Return every resource that production declares in AWS, and its objects in the cluster except the release."""
    config = pulumi.Output.from_input(kubeconfig(settings.cluster.name, "https://cluster.invalid", "Q0E=", region))
    return [
        *record_declared(settings, region, account),
        *recorded(
            PRODUCTION_STACK,
            lambda: cluster_info.publish_cluster_info({}, {}, config, [], pulumi.ResourceOptions()),
        ),
    ]


def record_preview(settings: PreviewSettings, region: str) -> list[Declared]:
    """Return every resource that a preview declares."""
    answers: Mapping[str, Any] = {
        "AwsClients": _SilentClients,
        "preview_image": lambda *_: _PREVIEW_IMAGE,
    }
    with ExitStack() as replacements:
        for name, answer in answers.items():
            replacements.enter_context(replaced(preview, name, answer))
        replacements.enter_context(replaced(cluster_info, "read_cluster_info", lambda _: _contract(region)))
        replacements.enter_context(replaced(slots, "read_slots", lambda *_: []))
        return recorded(f"pr-{PULL_REQUEST}", lambda: _declare_preview(settings, region))


def _declare_preview(settings: PreviewSettings, region: str) -> None:
    preview.Preview(PULL_REQUEST, region, settings)


class _SilentClients:
    """In place of AWS's clients: nothing is asked while a preview is declared."""

    def __init__(self, region: str, endpoint_url: str | None = None) -> None:
        self.region, self.endpoint_url = region, endpoint_url

    def identity(self) -> tuple[str, str]:
        return UNKNOWN, UNKNOWN


def _contract(region: str) -> cluster_info.ClusterInfo:
    """Return what production would have published."""
    return cluster_info.ClusterInfo(
        cluster=UNKNOWN,
        cluster_endpoint="https://cluster.invalid",
        cluster_authority="Q0E=",
        region=region,
        preview_domain="previews.invalid",
        vpc_id=UNKNOWN,
        load_balancer_cidrs=("192.0.2.0/24",),
        preview_listener_arn=UNKNOWN,
        preview_dns_name=UNKNOWN,
        preview_repository=PREVIEW_REPOSITORY,
        preview_repository_url=PREVIEW_REPOSITORY,
        release_repository=RELEASE_REPOSITORY,
        priority_class=PREVIEW_PRIORITY_CLASS,
        places_table=PREVIEW_SLOTS_TABLE,
        preview_role_id=UNKNOWN,
        secrets_role=UNKNOWN,
        previews=1,
    )
