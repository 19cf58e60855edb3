"""ECR's registry on the twin: a real registry behind a front that enforces what ECR enforces.

The registry proper (Debian's docker-registry) listens on loopback and takes the twin's own system images. The front, which
nodes and pushes use, lets anybody pull; a push must go to a repository that the twin's ECR knows, an immutable tag is
refused a second digest with ECR's words, and what was pushed is recorded in ECR under its real digest.

Source of the rules: docs.aws.amazon.com/AmazonECR/latest/userguide/image-tag-mutability.html and
docs.aws.amazon.com/AmazonECR/latest/APIReference/API_PutImage.html.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import boto3
import yaml
from aiohttp import ClientConnectionError, ClientResponse, ClientSession, ClientTimeout, web
from botocore.exceptions import BotoCoreError, ClientError
from multidict import CIMultiDict

from twin import config
from twin.build import programs
from twin.config import PartStatus, Twin
from twin.host import ports, processes

if TYPE_CHECKING:
    from mypy_boto3_ecr import ECRClient

_MANIFEST = re.compile(r"/v2/(?P<repository>.+)/manifests/(?P<reference>[^/]+)")
_UPLOAD = re.compile(r"/v2/(?P<repository>.+)/blobs/uploads/")
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "upgrade", "host", "content-length"}


@dataclass(frozen=True)
class Refusal:
    """An error in the registry protocol's own form."""

    status: int
    code: str
    message: str

    def response(self) -> web.Response:
        """Return the refusal in the error format of the OCI distribution specification."""
        return web.json_response({"errors": [{"code": self.code, "message": self.message}]}, status=self.status)


@dataclass(frozen=True)
class Repository:
    """An ECR repository's rule on whether a tag may be moved to another digest."""

    name: str
    mutability: str
    exclusions: tuple[str, ...] = ()
    """Tag patterns, ``*`` for any letters, that the other rule holds for."""

    def immutable(self, tag: str) -> bool:
        """Report whether a tag, once pushed, keeps its digest."""
        by_rule = self.mutability.startswith("IMMUTABLE")
        patterns = (re.escape(pattern).replace(r"\*", ".*") for pattern in self.exclusions)
        excluded = self.mutability.endswith("_WITH_EXCLUSION") and any(
            re.fullmatch(exclusion, tag) for exclusion in patterns
        )
        return by_rule != excluded


def tag_refusal(repository: Repository, tag: str, *, known_digest: str | None, digest: str) -> Refusal | None:
    """Return ECR's refusal of this digest under this tag, or None. Pushing the same digest again is allowed."""
    if known_digest in (None, digest) or not repository.immutable(tag):
        return None
    message = (
        f"The image tag '{tag}' already exists in the '{repository.name}' repository and cannot be overwritten because"
        " the repository is immutable."
    )
    return Refusal(400, "TAG_INVALID", message)


def _passed_on(headers: Mapping[str, str]) -> CIMultiDict[str]:
    kept = CIMultiDict[str]()
    for name, value in headers.items():
        if name.lower() not in _HOP_BY_HOP or name.lower() == "content-length":
            kept.add(name, value)
    return kept


class Front:
    """The proxy in front of the registry."""

    def __init__(self, twin: Twin) -> None:
        self._upstream = f"http://127.0.0.1:{twin.plain_registry_port}"
        self._ecr: ECRClient = boto3.client(
            "ecr",
            endpoint_url=twin.aws_endpoint,
            region_name=config.region(),
            aws_access_key_id=config.ACCESS_KEY_ID,
            aws_secret_access_key=config.SECRET_ACCESS_KEY,
        )
        self._session: ClientSession | None = None
        self._pushing = asyncio.Lock()

    async def session(self, _: web.Application) -> AsyncIterator[None]:
        """One client for the whole run."""
        self._session = ClientSession(timeout=ClientTimeout(total=None, connect=5), auto_decompress=False)
        yield
        await self._session.close()

    async def handle(self, request: web.Request) -> web.StreamResponse:  # noqa: PLR0911 - one answer for each kind of request
        """One request of the registry protocol."""
        if request.method in ("GET", "HEAD"):
            try:
                return await self._forward(request, None)
            except ClientConnectionError as error:
                return Refusal(503, "UNKNOWN", f"the registry behind ECR does not answer: {error}").response()
        if request.method == "DELETE":
            return Refusal(
                405, "UNSUPPORTED", "ECR deletes images by its own API: aws ecr batch-delete-image"
            ).response()
        manifest, upload = _MANIFEST.fullmatch(request.path), _UPLOAD.match(request.path)
        match = manifest or upload
        if match is None:
            return Refusal(404, "UNSUPPORTED", f"{request.method} {request.path} is not part of a push").response()
        try:
            repository = await asyncio.to_thread(self._repository, match["repository"])
            if repository is None:
                message = f"The repository with name '{match['repository']}' does not exist in the registry"
                return Refusal(404, "NAME_UNKNOWN", message).response()
            if manifest is None:
                return await self._forward(request, request.content.iter_chunked(1 << 20))
            async with self._pushing:  # two pushes of one tag: the second sees what the first recorded
                return await self._push_manifest(request, repository, manifest["reference"])
        except (ClientError, BotoCoreError) as error:
            return Refusal(503, "UNKNOWN", f"ECR does not answer: {error}").response()
        except ClientConnectionError as error:
            return Refusal(503, "UNKNOWN", f"the registry behind ECR does not answer: {error}").response()

    async def _push_manifest(self, request: web.Request, repository: Repository, reference: str) -> web.StreamResponse:
        """Check, store, record, then answer: who gets the answer finds the image in ECR."""
        body = await request.read()
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        if reference.startswith("sha256:"):
            # A part of a multi-platform image: ECR knows it through the index that follows, under a tag.
            return await self._forward(request, body)
        known = await asyncio.to_thread(self._known_digest, repository.name, reference)
        refusal = tag_refusal(repository, reference, known_digest=known, digest=digest)
        if refusal is not None:
            return refusal.response()
        async with self._ask(request, body) as got:
            answer = web.Response(status=got.status, body=await got.read(), headers=_passed_on(got.headers))
        if answer.status == 201 and known != digest:
            await asyncio.to_thread(
                self._record, repository.name, reference, digest, body.decode(), request.content_type
            )
        return answer

    def _ask(
        self, request: web.Request, body: bytes | AsyncIterator[bytes] | None
    ) -> AbstractAsyncContextManager[ClientResponse]:
        if self._session is None:
            raise RuntimeError("the front has not started")
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP}
        headers.pop("Authorization", None)
        headers["Host"] = request.host  # upload locations must lead back through the front
        if "Content-Length" in request.headers and body is not None:
            headers["Content-Length"] = request.headers["Content-Length"]
        url = self._upstream + request.raw_path
        return self._session.request(request.method, url, headers=headers, data=body, allow_redirects=False)

    async def _forward(self, request: web.Request, body: bytes | AsyncIterator[bytes] | None) -> web.StreamResponse:
        async with self._ask(request, body) as got:
            answer = web.StreamResponse(status=got.status, headers=_passed_on(got.headers))
            await answer.prepare(request)
            async for chunk in got.content.iter_chunked(1 << 20):
                await answer.write(chunk)
            await answer.write_eof()
            return answer

    def _repository(self, name: str) -> Repository | None:
        try:
            description = self._ecr.describe_repositories(repositoryNames=[name])["repositories"][0]
        except self._ecr.exceptions.RepositoryNotFoundException:
            return None
        exclusions = description.get("imageTagMutabilityExclusionFilters", [])
        return Repository(name, description["imageTagMutability"], tuple(rule["filter"] for rule in exclusions))

    def _known_digest(self, repository: str, tag: str) -> str | None:
        try:
            images = self._ecr.describe_images(repositoryName=repository, imageIds=[{"imageTag": tag}])["imageDetails"]
        except self._ecr.exceptions.ImageNotFoundException:
            return None
        return images[0]["imageDigest"]

    def _record(self, repository: str, tag: str, digest: str, manifest: str, media_type: str) -> None:
        try:
            self._ecr.put_image(
                repositoryName=repository,
                imageManifest=manifest,
                imageManifestMediaType=media_type,
                imageTag=tag,
                imageDigest=digest,
            )
        except self._ecr.exceptions.ImageAlreadyExistsException:
            return


def _addresses(twin: Twin) -> list[str]:
    return sorted({"127.0.0.1", twin.host_ip})


def _answers(port: int, host: str = "127.0.0.1") -> bool:
    with urllib.request.urlopen(f"http://{host}:{port}/v2/", timeout=2) as answer:
        return bool(answer.status == 200)


def up(twin: Twin) -> None:
    """Start the registry and its front."""
    storage = twin.directory / "registry"
    storage.mkdir(parents=True, exist_ok=True)
    settings = {
        "version": 0.1,
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(storage)}, "delete": {"enabled": False}},
        "http": {"addr": f"127.0.0.1:{twin.plain_registry_port}", "relativeurls": True},
    }
    path = twin.directory / "registry.yaml"
    path.write_text(yaml.safe_dump(settings))
    if processes.find(twin, "registry") is None:
        ports.require_free(twin, "127.0.0.1", twin.plain_registry_port, "the registry")
    plain = processes.start(
        twin,
        "registry",
        [programs.debian_program(twin, "docker-registry"), "serve", path],
        env=programs.debian_environment(twin),
    )
    processes.wait_until(
        lambda: _answers(twin.plain_registry_port), "the registry answers", timeout_seconds=20, process=plain
    )
    if processes.find(twin, "registry-front") is None:
        for address in _addresses(twin):
            ports.require_free(twin, address, twin.registry_port, "the registry's front")
    front = processes.start(
        twin, "registry-front", [sys.executable, "-m", "twin.aws.registry"], env=config.module_environment(twin)
    )
    processes.wait_until(
        lambda: _answers(twin.registry_port), "the registry's front answers", timeout_seconds=20, process=front
    )


def down(twin: Twin) -> None:
    """Stop both."""
    processes.stop(twin, "registry-front")
    processes.stop(twin, "registry")


def status(twin: Twin) -> list[PartStatus]:
    """Report whether the registry and the front before it run."""
    lines = []
    for name, port in (("registry", twin.plain_registry_port), ("registry-front", twin.registry_port)):
        running = processes.find(twin, name)
        lines.append(PartStatus(name, ok=running is not None, detail=f"port {port}" if running else "not running"))
    return lines


def main() -> None:
    """Run the front until SIGTERM."""
    twin = config.load()
    front = Front(twin)
    application = web.Application(client_max_size=16 << 20)
    application.cleanup_ctx.append(front.session)
    application.router.add_route("*", "/{path:.*}", front.handle)
    web.run_app(application, host=_addresses(twin), port=twin.registry_port, print=None, access_log=None)


if __name__ == "__main__":
    main()
