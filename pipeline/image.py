"""Build the application's image without a question, and push it under a tag that never moves.

* A build gives the same image each time: times are 0, so a job that runs again for the same commit pushes nothing new.
* A tag that exists is fine if it holds exactly this image (the same configuration, which names every layer's content), and
  an error if it holds another one, whoever pushed it and whenever.

Sources: docs.docker.com/reference/cli/docker/buildx/build (--metadata-file), docs.docker.com/build/ci/github-actions/
reproducible-builds, docs.aws.amazon.com/AmazonECR/latest/APIReference/API_BatchGetImage.html.
"""

from __future__ import annotations

import base64
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from infra.clients.aws import AwsClients
from infra.errors import AwsError, ShopCatError
from pipeline import process
from pipeline.environment import REPOSITORY, aws_errors
from pipeline.errors import PipelineError
from pipeline.steps import Steps

DOCKERFILE = REPOSITORY / "app_docker" / "Dockerfile"
MOST_IMAGES = 100
"""Most images in one call (docs.aws.amazon.com/AmazonECR/latest/APIReference/API_BatchDeleteImage.html)."""
_LOGINS = frozenset({"auths", "credHelpers", "credsStore"})
"""Keys of docker's config.json that hold or locate log-ins."""
_MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)


class Builder(Protocol):
    """A program that builds images and pushes them."""

    def build(self, context: Path, reference: str, *, fresh: bool) -> str:
        """Build, with ``fresh`` without any cached layer; return the digest of the image's configuration."""

    def push(self, context: Path, reference: str, built: str, login: RegistryLogin) -> None:
        """Push the image whose digest the build returned.

        Raises:
            ShopCatError: the registry refuses it or can't be reached.
        """


@dataclass(frozen=True)
class RegistryLogin:
    """Credentials of one registry, good for twelve hours."""

    registry: str
    user: str
    password: str


def _run(arguments: Sequence[str | Path], doing: str, environment: process.Environment | None = None) -> None:
    finished = process.show([str(argument) for argument in arguments], environment=environment)
    if finished.code != 0:
        raise PipelineError(f"{doing} failed (exit {finished.code}); its output is above")


@dataclass(frozen=True)
class Docker:
    """BuildKit through `docker buildx`, with a builder of the driver docker-container (GitHub: setup-buildx-action)."""

    build_args: Mapping[str, str]
    cache_from: Path | None = None
    cache_to: Path | None = None

    def build(self, context: Path, reference: str, *, fresh: bool) -> str:
        """See :class:`Builder`; the result stays in BuildKit, so the push that follows builds nothing."""
        arguments: list[str] = ["--pull", "--no-cache"] if fresh else []
        if self.cache_from is not None and not fresh and (self.cache_from / "index.json").exists():
            arguments.append(f"--cache-from=type=local,src={self.cache_from}")
        if self.cache_to is not None:
            arguments.append(f"--cache-to=type=local,dest={self.cache_to},mode=max")
        with tempfile.TemporaryDirectory() as folder:
            metadata = Path(folder) / "metadata.json"
            self._buildx([*arguments, f"--metadata-file={metadata}"], context, reference, push=False)
            digest = json.loads(metadata.read_text()).get("containerimage.config.digest")
        if not digest:
            raise PipelineError(
                "docker buildx reported no containerimage.config.digest; it needs a builder of the driver docker-container: "
                "docker buildx create --use"
            )
        return str(digest)

    def push(self, context: Path, reference: str, built: str, login: RegistryLogin) -> None:
        """Push from BuildKit's cache; :func:`ensure_pushed` compares what the registry has afterwards.

        The log-in is in a folder of this push alone, never in the user's configuration, where it would outlive the job on a
        machine that is kept.
        """
        del built
        # GitHub empties RUNNER_TEMP before and after each job, so a job that is killed here leaves nothing either.
        with tempfile.TemporaryDirectory(dir=os.environ.get("RUNNER_TEMP")) as folder:
            environment = private_configuration(Path(folder), login, os.environ)
            self._buildx([], context, reference, push=True, environment=environment)

    def _buildx(
        self,
        arguments: Sequence[str],
        context: Path,
        reference: str,
        *,
        push: bool,
        environment: process.Environment | None = None,
    ) -> None:
        output = f"type=image,oci-mediatypes=true,rewrite-timestamp=true,push={str(push).lower()}"
        command = ["docker", "buildx", "build", "--progress=plain", "--provenance=false", f"--output={output}"]
        command += ["--build-arg=SOURCE_DATE_EPOCH=0", *(f"--build-arg={k}={v}" for k, v in self.build_args.items())]
        command += [*arguments, f"--tag={reference}", f"--file={DOCKERFILE}", str(context)]
        _run(command, f"{'pushing' if push else 'building'} {reference}", environment)


def private_configuration(folder: Path, login: RegistryLogin, environment: Mapping[str, str]) -> dict[str, str]:
    """Write the user's `docker` configuration with this log-in alone; return the variables that make `docker` use it.

    Builders, contexts and plugins stay where they are. Sources: docs.docker.com/reference/cli/docker (DOCKER_CONFIG),
    docs.docker.com/build/building/variables (BUILDX_CONFIG).

    Raises:
        ShopCatError: the user's configuration can't be read.
    """
    usual = Path(environment.get("DOCKER_CONFIG") or Path(environment.get("HOME") or "/root") / ".docker")
    try:
        text = (usual / "config.json").read_text(encoding="utf-8") if (usual / "config.json").exists() else "{}"
        settings = {key: value for key, value in dict(json.loads(text)).items() if key not in _LOGINS}
    except (OSError, ValueError, TypeError) as error:
        raise PipelineError(f"{usual}/config.json can't be read ({error}); mend or remove it") from error
    plugins = [*settings.get("cliPluginsExtraDirs", []), str(usual / "cli-plugins")]
    _write_logins(folder / "config.json", login, {**settings, "cliPluginsExtraDirs": plugins})
    if (usual / "contexts").is_dir():
        (folder / "contexts").symlink_to(usual / "contexts")
    return {"DOCKER_CONFIG": str(folder), "BUILDX_CONFIG": environment.get("BUILDX_CONFIG") or str(usual / "buildx")}


def _write_logins(path: Path, login: RegistryLogin, more: Mapping[str, Any] | None = None) -> None:
    """Write a file that only its owner may read, in the form that docker and buildah share."""
    path.touch(mode=0o600)
    secret = base64.b64encode(f"{login.user}:{login.password}".encode()).decode()
    path.write_text(json.dumps({"auths": {login.registry: {"auth": secret}}, **(more or {})}))


@dataclass(frozen=True)
class Buildah:
    """`buildah`, for machines without a Docker engine; it keeps layers in its own storage."""

    build_args: Mapping[str, str]

    def build(self, context: Path, reference: str, *, fresh: bool) -> str:
        """See :class:`Builder`."""
        with tempfile.TemporaryDirectory() as folder:
            identifier = Path(folder) / "id"
            command: list[str | Path] = ["buildah", "build", "--layers", "--timestamp=0", "--tag", reference]
            command += [f"--build-arg={name}={value}" for name, value in self.build_args.items()]
            if fresh:
                command.append("--no-cache")
            command += ["--iidfile", identifier, "--ignorefile", f"{DOCKERFILE}.dockerignore"]
            _run([*command, "--file", DOCKERFILE, context], f"building {reference}")
            return identifier.read_text().strip()

    def push(self, context: Path, reference: str, built: str, login: RegistryLogin) -> None:
        """See :class:`Builder`."""
        del context
        with tempfile.TemporaryDirectory() as folder:
            keys = Path(folder) / "auth.json"
            _write_logins(keys, login)
            # Not by its tag, which another build on this machine may have moved to its own image.
            image = built.removeprefix("sha256:")
            _run(["buildah", "push", "--authfile", keys, image, f"docker://{reference}"], f"pushing {reference}")


def choose_builder(environment: Mapping[str, str]) -> Builder:
    """Return the builder that SHOPCAT_BUILDER names.

    Raises:
        ShopCatError: no builder has that name, or its arguments are not NAME=value.
    """
    pairs = [pair.partition("=") for pair in environment.get("SHOPCAT_BUILD_ARGS", "").split()]
    if not all(name and sign for name, sign, _ in pairs):
        raise PipelineError("SHOPCAT_BUILD_ARGS: expected NAME=value pairs with spaces between them")
    build_args = {name: value for name, _, value in pairs}
    name = environment.get("SHOPCAT_BUILDER", "docker")
    if name == "docker":
        caches = [environment.get(variable) for variable in ("SHOPCAT_BUILD_CACHE", "SHOPCAT_BUILD_CACHE_TO")]
        return Docker(build_args, *(Path(cache) if cache else None for cache in caches))
    if name == "buildah":
        return Buildah(build_args)
    raise PipelineError(f"SHOPCAT_BUILDER={name}: expected docker or buildah")


@dataclass(frozen=True)
class PushedImage:
    """Image that ECR holds under a tag."""

    digest: str
    configuration: str
    """Digest of the image's configuration; empty for an index of several images."""


class RegistryClient:
    """A repository in ECR."""

    def __init__(self, clients: AwsClients, repository: str) -> None:
        self._clients = clients
        self.repository = repository

    def url(self) -> str:
        """Return the name of its images, without a tag.

        Raises:
            ShopCatError: the repository does not exist, or ECR can't be asked.
        """
        try:
            answer = self._call("describe_repositories", repositoryNames=[self.repository])
        except AwsError as error:
            if error.code != "RepositoryNotFoundException":
                raise
            raise PipelineError(
                f"there is no ECR repository {self.repository} in {self._clients.region}; bring the platform up "
                "first: pulumi up -s prod"
            ) from error
        return str(answer["repositories"][0]["repositoryUri"])

    def login(self, url: str) -> RegistryLogin:
        """Return the credentials that ECR gives to this job's role.

        Raises:
            ShopCatError: ECR refuses.
        """
        data = self._call("get_authorization_token")["authorizationData"][0]
        user, _, password = base64.b64decode(data["authorizationToken"]).decode().partition(":")
        return RegistryLogin(url.partition("/")[0], user, password)

    def pushed_image(self, tag: str) -> PushedImage | None:
        """Return the image under the tag; None if there is none.

        Raises:
            ShopCatError: ECR can't be asked.
        """
        images = [{"imageTag": tag}]
        answer = self._call(
            "batch_get_image", repositoryName=self.repository, imageIds=images, acceptedMediaTypes=list(_MANIFESTS)
        )
        if not answer["images"]:
            return None
        entry: dict[str, Any] = answer["images"][0]
        manifest = json.loads(entry["imageManifest"])
        return PushedImage(str(entry["imageId"]["imageDigest"]), str(manifest.get("config", {}).get("digest", "")))

    def delete(self, tags: Sequence[str]) -> list[str]:
        """Delete the images under these tags; return the tags that existed.

        Raises:
            ShopCatError: ECR refuses.
        """
        deleted: list[str] = []
        for start in range(0, len(tags), MOST_IMAGES):
            images = [{"imageTag": tag} for tag in tags[start : start + MOST_IMAGES]]
            answer = self._call("batch_delete_image", repositoryName=self.repository, imageIds=images)
            deleted += [image["imageTag"] for image in answer["imageIds"] if "imageTag" in image]
        return sorted(deleted)

    def _call(self, operation: str, **arguments: Any) -> Any:
        with aws_errors(self._clients, f"ECR repository {self.repository}"):
            return getattr(self._clients.get("ecr"), operation)(**arguments)


def ensure_pushed(
    registry: RegistryClient, builder: Builder, context: Path, tag: str, steps: Steps, *, fresh: bool = False
) -> str:
    """Build, and push unless the tag holds this very image already; return its digest.

    Raises:
        ShopCatError: it can't be built or pushed, or the tag holds another image.
    """
    url = registry.url()
    with steps.timed("build"):
        built = builder.build(context, f"{url}:{tag}", fresh=fresh)
    with steps.timed("push"):
        pushed = registry.pushed_image(tag)
        if pushed is None:
            try:
                builder.push(context, f"{url}:{tag}", built, registry.login(url))
            except ShopCatError:
                # Another job may have pushed the tag since it was looked up.
                if registry.pushed_image(tag) is None:
                    raise
            pushed = registry.pushed_image(tag)
            if pushed is None:
                raise PipelineError(f"{url}:{tag} was pushed, but ECR doesn't know it; push again")
        else:
            print(f"{url}:{tag} is there already", flush=True)
        if pushed.configuration != built:
            raise PipelineError(
                f"{url}:{tag} holds another image ({pushed.digest}, configuration {pushed.configuration or 'of an index'}) "
                f"than the one built here (configuration {built}), and an immutable tag keeps its image: find out who "
                "pushed it, then push this one under another tag (a new commit; for a release the next version)"
            )
    print(f"{url}@{pushed.digest}", flush=True)
    return pushed.digest
