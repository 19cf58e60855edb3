"""Settings of both kinds of stack, typed, and everything that a wrong one is refused for."""

from infra.settings.platform import ChartDigests, ChartMirror, Charts, ClusterSettings, DatabaseSettings, Images, Vpc
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
    "PreviewImages",
    "PreviewSettings",
    "ReleaseSettings",
    "Settings",
    "Vpc",
    "check_region",
    "read_preview",
    "read_settings",
    "read_stack",
]
