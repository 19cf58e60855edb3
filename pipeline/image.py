"""The application's image: built with nothing to ask, pushed under a tag that never moves.

* A build is the same image each time: times are 0, so a job that runs again for the same commit pushes nothing new.
* A tag that is there already is fine if it holds exactly this image (the same configuration, which names every layer's
  content), and an error if it holds another one, whoever pushed it and whenever.

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

from botocore.exceptions import BotoCoreError, ClientError

from infra.clients.aws import AwsClients, error_code, explain
from infra.errors import ShopCatError
from pipeline import process
from pipeline.environment import REPOSITORY
from pipeline.errors import PipelineError
from pipeline.steps import Steps

DOCKERFILE = REPOSITORY / "app_docker" / "Dockerfile"
MOST_IMAGES = 100
"""In one call (docs.aws.amazon.com/AmazonECR/latest/APIReference/API_BatchDeleteImage.html)."""
_LOGINS = frozenset({"auths", "credHelpers", "credsStore"})
"""Keys of docker's config.json that say where log-ins are."""
_MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)


class Builder(Protocol):
    """A program that builds images and pushes them."""

    def build(self, context: Path, reference: str, *, fresh: bool) -> str:
        """Build, with ``fresh`` from nothing that was built before; the digest of the image's configuration."""

    def push(self, context: Path, reference: str, built: str, login: Login) -> None:
        """Push what was built, by the digest that the build returned.

        Raises:
            ShopCatError: the registry, or the way there, says no.
        """


@dataclass(frozen=True)
class Login:
    """What opens one registry, for twelve hours."""

    registry: str
    user: str
    password: str


def _run(arguments: Sequence[str | Path], doing: str, environment: process.Environment | None = None) -> None:
    finished = process.show([str(one) for one in arguments], environment=environment)
    if finished.code != 0:
        raise PipelineError(f"{doing} failed (exit {finished.code}); what it said is above")


@dataclass(frozen=True)
class Docker:
    """BuildKit through `docker buildx`, with a builder of the driver docker-container (GitHub: setup-buildx-action)."""

    build_args: Mapping[str, str]
    cache_from: Path | None = None
    cache_to: Path | None = None

    def build(self, context: Path, reference: str, *, fresh: bool) -> str:
        """As :class:`Builder`; the result stays in BuildKit, so the push that follows builds nothing."""
        arguments: list[str] = ["--pull", "--no-cache"] if fresh else []
        if self.cache_from is not None and not fresh and (self.cache_from / "index.json").exists():
            arguments.append(f"--cache-from=type=local,src={self.cache_from}")
        if self.cache_to is not None:
            arguments.append(f"--cache-to=type=local,dest={self.cache_to},mode=max")
        with tempfile.TemporaryDirectory() as folder:
            metadata = Path(folder) / "metadata.json"
            self._buildx([*arguments, f"--metadata-file={metadata}"], context, reference, push=False)
            found = json.loads(metadata.read_text()).get("containerimage.config.digest")
        if not found:
            raise PipelineError(
                "docker buildx told no containerimage.config.digest; it needs a builder of the driver docker-container: "
                "docker buildx create --use"
            )
        return str(found)

    def push(self, context: Path, reference: str, built: str, login: Login) -> None:
        """Push as :class:`Builder` says; BuildKit takes it from its cache, and what the registry has afterwards is compared.

        The log-in is in a folder of this push alone and never in the user's configuration, where it would outlive the job on a
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


def private_configuration(folder: Path, login: Login, environment: Mapping[str, str]) -> dict[str, str]:
    """Write a configuration for `docker` that is the user's with one log-in, this one; variables that make `docker` take it.

    Builders, contexts and plugins stay where they are. Sources: docs.docker.com/reference/cli/docker (DOCKER_CONFIG),
    docs.docker.com/build/building/variables (BUILDX_CONFIG).

    Raises:
        ShopCatError: the user's configuration can't be read.
    """
    usual = Path(environment.get("DOCKER_CONFIG") or Path(environment.get("HOME") or "/root") / ".docker")
    try:
        text = (usual / "config.json").read_text(encoding="utf-8") if (usual / "config.json").exists() else "{}"
        kept = {key: value for key, value in dict(json.loads(text)).items() if key not in _LOGINS}
    except (OSError, ValueError, TypeError) as error:
        raise PipelineError(f"{usual}/config.json can't be read ({error}); mend or remove it") from error
    plugins = [*kept.get("cliPluginsExtraDirs", []), str(usual / "cli-plugins")]
    _write_logins(folder / "config.json", login, {**kept, "cliPluginsExtraDirs": plugins})
    if (usual / "contexts").is_dir():
        (folder / "contexts").symlink_to(usual / "contexts")
    return {"DOCKER_CONFIG": str(folder), "BUILDX_CONFIG": environment.get("BUILDX_CONFIG") or str(usual / "buildx")}


def _write_logins(path: Path, login: Login, more: Mapping[str, Any] | None = None) -> None:
    """Write a file that only its owner may read, in the form that docker and buildah share."""
    path.touch(mode=0o600)
    secret = base64.b64encode(f"{login.user}:{login.password}".encode()).decode()
    path.write_text(json.dumps({"auths": {login.registry: {"auth": secret}}, **(more or {})}))


@dataclass(frozen=True)
class Buildah:
    """`buildah`, where there is no Docker engine; it keeps layers in its own storage."""

    build_args: Mapping[str, str]

    def build(self, context: Path, reference: str, *, fresh: bool) -> str:
        """As :class:`Builder`."""
        with tempfile.TemporaryDirectory() as folder:
            identifier = Path(folder) / "id"
            command: list[str | Path] = ["buildah", "build", "--layers", "--timestamp=0", "--tag", reference]
            command += [f"--build-arg={name}={value}" for name, value in self.build_args.items()]
            if fresh:
                command.append("--no-cache")
            command += ["--iidfile", identifier, "--ignorefile", f"{DOCKERFILE}.dockerignore"]
            _run([*command, "--file", DOCKERFILE, context], f"building {reference}")
            return identifier.read_text().strip()

    def push(self, context: Path, reference: str, built: str, login: Login) -> None:
        """As :class:`Builder`."""
        del context
        with tempfile.TemporaryDirectory() as folder:
            keys = Path(folder) / "auth.json"
            _write_logins(keys, login)
            # Not by its tag: another build on this machine may have given that to an image of its own meanwhile.
            image = built.removeprefix("sha256:")
            _run(["buildah", "push", "--authfile", keys, image, f"docker://{reference}"], f"pushing {reference}")


def builder(environment: Mapping[str, str]) -> Builder:
    """The builder that the environment names.

    Raises:
        ShopCatError: there is no such builder, or its arguments are not NAME=value.
    """
    pairs = [one.partition("=") for one in environment.get("SHOPCAT_BUILD_ARGS", "").split()]
    if not all(name and sign for name, sign, _ in pairs):
        raise PipelineError("SHOPCAT_BUILD_ARGS: expected NAME=value pairs with spaces between them")
    build_args = {name: value for name, _, value in pairs}
    chosen = environment.get("SHOPCAT_BUILDER", "docker")
    if chosen == "docker":
        places = [environment.get(name) for name in ("SHOPCAT_BUILD_CACHE", "SHOPCAT_BUILD_CACHE_TO")]
        return Docker(build_args, *(Path(one) if one else None for one in places))
    if chosen == "buildah":
        return Buildah(build_args)
    raise PipelineError(f"SHOPCAT_BUILDER={chosen}: expected docker or buildah")


@dataclass(frozen=True)
class Pushed:
    """What ECR has under a tag."""

    digest: str
    configuration: str
    """Digest of the image's configuration; empty for an index of several images."""


class RegistryClient:
    """One repository in ECR."""

    def __init__(self, clients: AwsClients, repository: str) -> None:
        self._clients = clients
        self.repository = repository

    def url(self) -> str:
        """Its images' name.

        Raises:
            ShopCatError: there is no such repository, or ECR can't be asked.
        """
        try:
            found = self._clients.get("ecr").describe_repositories(repositoryNames=[self.repository])
        except (BotoCoreError, ClientError) as error:
            if error_code(error) == "RepositoryNotFoundException":
                raise PipelineError(
                    f"there is no ECR repository {self.repository} in {self._clients.region}; bring the platform up "
                    "first: pulumi up -s prod"
                ) from error
            raise self._explained(error) from error
        return str(found["repositories"][0]["repositoryUri"])

    def login(self, url: str) -> Login:
        """The right to push, as ECR gives it to this job's role.

        Raises:
            ShopCatError: ECR gives none.
        """
        try:
            data = self._clients.get("ecr").get_authorization_token()["authorizationData"][0]
        except (BotoCoreError, ClientError) as error:
            raise self._explained(error) from error
        user, _, password = base64.b64decode(data["authorizationToken"]).decode().partition(":")
        return Login(url.partition("/")[0], user, password)

    def pushed(self, tag: str) -> Pushed | None:
        """What is under the tag.

        Raises:
            ShopCatError: ECR can't be asked.
        """
        try:
            answer = self._clients.get("ecr").batch_get_image(
                repositoryName=self.repository, imageIds=[{"imageTag": tag}], acceptedMediaTypes=list(_MANIFESTS)
            )
        except (BotoCoreError, ClientError) as error:
            raise self._explained(error) from error
        if not answer["images"]:
            return None
        found: dict[str, Any] = answer["images"][0]
        manifest = json.loads(found["imageManifest"])
        return Pushed(str(found["imageId"]["imageDigest"]), str(manifest.get("config", {}).get("digest", "")))

    def delete(self, tags: Sequence[str]) -> list[str]:
        """Delete what there is of these tags; those that were there.

        Raises:
            ShopCatError: ECR says no.
        """
        deleted: list[str] = []
        try:
            for start in range(0, len(tags), MOST_IMAGES):
                answer = self._clients.get("ecr").batch_delete_image(
                    repositoryName=self.repository,
                    imageIds=[{"imageTag": tag} for tag in tags[start : start + MOST_IMAGES]],
                )
                deleted += [one["imageTag"] for one in answer["imageIds"] if "imageTag" in one]
        except (BotoCoreError, ClientError) as error:
            raise self._explained(error) from error
        return sorted(deleted)

    def _explained(self, error: Exception) -> ShopCatError:
        return explain(error, f"ECR repository {self.repository}", self._clients.endpoint_url)


def ensure_pushed(
    registry: RegistryClient, maker: Builder, context: Path, tag: str, steps: Steps, *, fresh: bool = False
) -> str:
    """Build, and push unless the tag holds this very image already; its digest.

    Raises:
        ShopCatError: it can't be built or pushed, or the tag holds another image.
    """
    url = registry.url()
    with steps.timed("build"):
        built = maker.build(context, f"{url}:{tag}", fresh=fresh)
    with steps.timed("push"):
        there = registry.pushed(tag)
        if there is None:
            try:
                maker.push(context, f"{url}:{tag}", built, registry.login(url))
            except ShopCatError:
                # Another job may have pushed the tag since it was looked up.
                if registry.pushed(tag) is None:
                    raise
            there = registry.pushed(tag)
            if there is None:
                raise PipelineError(f"{url}:{tag} was pushed, but ECR doesn't know it; push again")
        else:
            print(f"{url}:{tag} is there already", flush=True)
        if there.configuration != built:
            raise PipelineError(
                f"{url}:{tag} holds another image ({there.digest}, configuration {there.configuration or 'of an index'}) "
                f"than the one built here (configuration {built}), and an immutable tag keeps its image: find out who "
                "pushed it, then push this one under another tag (a new commit; for a release the next version)"
            )
    print(f"{url}@{there.digest}", flush=True)
    return there.digest
