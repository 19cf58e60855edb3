"""Image repositories: one for releases (`shopcat`, or as the settings say), and `shopcat-preview` for pull requests.

Neither ever moves a tag. One that was there before keeps its tags, also `latest`, and takes no other image under any of them.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pulumi
import pulumi_aws as aws

from infra.names import PREVIEW_REPOSITORY, RELEASE_REPOSITORY

if TYPE_CHECKING:
    from infra.settings import RegistrySettings

PREVIEW_DAYS = 14
UNTAGGED_DAYS = 7


def _expire(priority: int, description: str, status: dict[str, Any], days: int) -> dict[str, Any]:
    selection = {**status, "countType": "sinceImagePushed", "countUnit": "days", "countNumber": days}
    return {"rulePriority": priority, "description": description, "selection": selection, "action": {"type": "expire"}}


def release_lifecycle() -> str:
    """Return the rule that expires untagged images alone: every released one has a tag, and a rollback may want it."""
    rule = _expire(1, "pushed without a tag, so never releasable", {"tagStatus": "untagged"}, UNTAGGED_DAYS)
    return json.dumps({"rules": [rule]})


def preview_lifecycle() -> str:
    """Return the rule that expires everything; an open pull request that old is built again by its next push."""
    return json.dumps({"rules": [_expire(1, "previews are short-lived", {"tagStatus": "any"}, PREVIEW_DAYS)]})


class Registry(pulumi.ComponentResource):
    """Both repositories."""

    def __init__(self, name: str, settings: RegistrySettings, *, protect: bool, opts: pulumi.ResourceOptions) -> None:
        super().__init__("shopcat:registry:Registry", name, None, opts)
        self._guarded = protect
        self.release = self._repository(
            RELEASE_REPOSITORY, settings.repository, release_lifecycle(), kms_key=settings.kms_key, keep=True
        )
        self.preview = self._repository(PREVIEW_REPOSITORY, PREVIEW_REPOSITORY, preview_lifecycle(), keep=False)
        self.register_outputs({"releaseUrl": self.release.repository_url, "previewUrl": self.preview.repository_url})

    def _repository(
        self, title: str, name: str, lifecycle: str, *, keep: bool, kms_key: str = ""
    ) -> aws.ecr.Repository:
        encryption = aws.ecr.RepositoryEncryptionConfigurationArgs(
            encryption_type="KMS" if kms_key else "AES256", kms_key=kms_key or None
        )
        repository = aws.ecr.Repository(
            title,
            name=name,
            image_tag_mutability="IMMUTABLE",
            image_scanning_configuration=aws.ecr.RepositoryImageScanningConfigurationArgs(scan_on_push=True),
            encryption_configurations=[encryption],
            force_delete=not keep,
            opts=pulumi.ResourceOptions(parent=self, protect=keep and self._guarded, retain_on_delete=keep),
        )
        aws.ecr.LifecyclePolicy(
            title, repository=repository.name, policy=lifecycle, opts=pulumi.ResourceOptions(parent=self)
        )
        return repository
