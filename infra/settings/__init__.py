"""Typed settings of both kinds of stack, and every reason to refuse one."""

from infra.settings.monitoring import MonitoringSettings
from infra.settings.platform import (
    ChartDigests,
    ChartMirror,
    Charts,
    ClusterSettings,
    DatabaseSettings,
    Images,
    RegistrySettings,
    Vpc,
)
from infra.settings.stacks import (
    DrainSettings,
    GithubSettings,
    PreviewImages,
    PreviewSettings,
    ReleaseSettings,
    Settings,
    check_region,
    read_preview,
    read_settings,
    read_stack,
)

__all__ = [
    "ChartDigests",
    "ChartMirror",
    "Charts",
    "ClusterSettings",
    "DatabaseSettings",
    "DrainSettings",
    "GithubSettings",
    "Images",
    "MonitoringSettings",
    "PreviewImages",
    "PreviewSettings",
    "RegistrySettings",
    "ReleaseSettings",
    "Settings",
    "Vpc",
    "check_region",
    "read_preview",
    "read_settings",
    "read_stack",
]
