"""Staging labels of moto's secrets: a version that is current no more keeps its own labels, as in Secrets Manager.

There a label moves only to a version that is given it (docs.aws.amazon.com/secretsmanager/latest/apireference,
API_PutSecretValue, VersionStages); moto takes all of them away but AWSPREVIOUS.
"""

from __future__ import annotations

from typing import Any, cast

from moto.secretsmanager import models

_MOVED = ("AWSCURRENT", "AWSPREVIOUS")


def patch_labels() -> None:
    """Let versions keep their own labels."""
    secret = cast("Any", models.FakeSecret)
    reset = secret.reset_default_version

    def reset_default_version(self: Any, version: dict[str, Any], version_id: str) -> None:
        former = self.versions.get(self.default_version_id) or {"version_stages": []}
        own = [label for label in former["version_stages"] if label not in _MOVED]
        reset(self, version, version_id)
        if former is not version:
            former["version_stages"] = [*former["version_stages"], *own]

    secret.reset_default_version = reset_default_version
