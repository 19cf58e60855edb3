"""ECR types. Force-new fields follow terraform-provider-aws internal/service/ecr."""

from __future__ import annotations

from twin.plugins.aws.identity import document
from twin.plugins.aws.kind import Aws, Kind, pick, tag_list
from twin.plugins.common import Properties


class Repository(Kind):
    """aws_ecr_repository; the id is the name."""

    token = "aws:ecr/repository:Repository"
    inputs = frozenset(
        {"name", "imageTagMutability", "imageScanningConfiguration", "encryptionConfigurations", "forceDelete"}
    )
    replaces = frozenset({"name", "encryptionConfigurations"})
    name_property = "name"
    name_limit = 256
    defaults = {"imageTagMutability": "MUTABLE"}
    tagged = True

    def create(self, aws: Aws, inputs: Properties) -> str:
        arguments = pick(inputs, repositoryName="name", imageTagMutability="imageTagMutability")
        arguments |= pick(inputs, imageScanningConfiguration="imageScanningConfiguration")
        encryption = inputs.get("encryptionConfigurations") or []
        if encryption:
            arguments["encryptionConfiguration"] = encryption[0]
        return str(aws("ecr").create_repository(**arguments)["repository"]["repositoryName"])

    def read(self, aws: Aws, identifier: str, state: Properties) -> Properties | None:
        del state
        repository = aws("ecr").describe_repositories(repositoryNames=[identifier])["repositories"][0]
        return {
            "arn": repository["repositoryArn"],
            "name": identifier,
            "registryId": repository["registryId"],
            "repositoryUrl": repository["repositoryUri"],
            "imageTagMutability": repository["imageTagMutability"],
        }

    def update(self, aws: Aws, identifier: str, state: Properties, new: Properties, changed: set[str]) -> None:
        if "imageTagMutability" in changed:
            aws("ecr").put_image_tag_mutability(repositoryName=identifier, imageTagMutability=new["imageTagMutability"])
        if "imageScanningConfiguration" in changed:
            aws("ecr").put_image_scanning_configuration(
                repositoryName=identifier, imageScanningConfiguration=new["imageScanningConfiguration"]
            )
        super().update(aws, identifier, state, new, changed - {*self.inputs})

    def delete(self, aws: Aws, identifier: str, state: Properties) -> None:
        aws("ecr").delete_repository(repositoryName=identifier, force=bool(state.get("forceDelete")))

    def tag(self, aws: Aws, identifier: str, state: Properties, add: dict[str, str], remove: list[str]) -> None:
        del identifier
        if add:
            aws("ecr").tag_resource(resourceArn=state["arn"], tags=tag_list(add))
        if remove:
            aws("ecr").untag_resource(resourceArn=state["arn"], tagKeys=remove)


class _OnRepository(Kind):
    inputs = frozenset({"repository", "policy"})
    replaces = frozenset({"repository"})
    create_before_delete = False
    write: str
    remove: str
    fetch: str
    argument: str

    def create(self, aws: Aws, inputs: Properties) -> str:
        self.update(aws, "", {}, inputs, {"policy"})
        return str(inputs["repository"])

    def read(self, aws: Aws, identifier: str, state: Properties) -> Properties | None:
        del state
        answer = getattr(aws("ecr"), self.fetch)(repositoryName=identifier)
        return {"registryId": answer["registryId"]}

    def update(self, aws: Aws, identifier: str, state: Properties, new: Properties, changed: set[str]) -> None:
        del identifier, state
        if changed:
            text = {self.argument: document(new["policy"])}
            getattr(aws("ecr"), self.write)(repositoryName=new["repository"], **text)

    def delete(self, aws: Aws, identifier: str, state: Properties) -> None:
        del state
        getattr(aws("ecr"), self.remove)(repositoryName=identifier)


class LifecyclePolicy(_OnRepository):
    """aws_ecr_lifecycle_policy."""

    token = "aws:ecr/lifecyclePolicy:LifecyclePolicy"
    write, remove, fetch = "put_lifecycle_policy", "delete_lifecycle_policy", "get_lifecycle_policy"
    argument = "lifecyclePolicyText"


class RepositoryPolicy(_OnRepository):
    """aws_ecr_repository_policy."""

    token = "aws:ecr/repositoryPolicy:RepositoryPolicy"
    write, remove, fetch = "set_repository_policy", "delete_repository_policy", "get_repository_policy"
    argument = "policyText"
