"""Images on the twin's registry: manifests and layers pushed there without a Docker engine, and digests read back."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twin.build.image_layers import BASE_IMAGE, TOOL_IMAGES, Recipe, split_reference, tar_tree
from twin.config import Twin
from twin.errors import TwinError

_MEDIA = "application/vnd.oci.image.manifest.v1+json"
_MANIFESTS = (_MEDIA, "application/vnd.docker.distribution.manifest.v2+json")


def _call(method: str, url: str, body: Any = None, **headers: str) -> tuple[int, Mapping[str, str], bytes]:
    message = urllib.request.Request(url, data=body, method=method, headers=headers)
    try:
        with urllib.request.urlopen(message, timeout=60) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read()
    except urllib.error.URLError as error:
        raise TwinError(f"the registry at {url} does not answer ({error.reason}); `make status`") from error


def _put_blob(base: str, repository: str, content: bytes) -> str:
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    status, _, _ = _call("HEAD", f"{base}/v2/{repository}/blobs/{digest}")
    if status == 200:
        return digest
    status, headers, answer = _call("POST", f"{base}/v2/{repository}/blobs/uploads/")
    if status != 202:
        raise TwinError(f"the registry refuses an upload to {repository}: {status} {answer.decode()}")
    location = headers["Location"]
    target = location if location.startswith("http") else f"{base}{location}"
    joined = f"{target}{'&' if '?' in target else '?'}digest={digest}"
    status, _, answer = _call("PUT", joined, io.BytesIO(content), **{
        "Content-Type": "application/octet-stream", "Content-Length": str(len(content)),
    })  # fmt: skip
    if status != 201:
        raise TwinError(f"the registry refuses a layer of {repository}: {status} {answer.decode()}")
    return digest


def _manifest(recipe: Recipe, layer: bytes) -> tuple[bytes, bytes]:
    """The image's configuration and manifest as the OCI image specification writes them."""
    configuration: dict[str, Any] = {
        "architecture": "amd64" if os.uname().machine == "x86_64" else "arm64",
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "the twin"}],  # buildah counts layers by it
        "config": {
            "Entrypoint": list(recipe.entrypoint) or None,
            "Cmd": list(recipe.command) or None,
            "Env": [f"{name}={value}" for name, value in recipe.environment.items()],
            "User": recipe.user,
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(gzip.decompress(layer)).hexdigest()}"]},
    }
    packed = json.dumps(configuration, sort_keys=True).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MEDIA,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": f"sha256:{hashlib.sha256(packed).hexdigest()}",
            "size": len(packed),
        },
        "layers": [
            {
                "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                "digest": f"sha256:{hashlib.sha256(layer).hexdigest()}",
                "size": len(layer),
            }
        ],
    }
    return packed, json.dumps(manifest, sort_keys=True).encode()


def push_recipe(twin: Twin, recipe: Recipe, *, system: bool = True) -> str:
    """Push one image of the twin's own, to the plain registry or through ECR's front, and return its digest."""
    base = f"http://127.0.0.1:{twin.plain_registry_port if system else twin.registry_port}"
    layer = recipe.layer.read_bytes()
    configuration, manifest = _manifest(recipe, layer)
    _put_blob(base, recipe.repository, layer)
    _put_blob(base, recipe.repository, configuration)
    url = f"{base}/v2/{recipe.repository}/manifests/{recipe.tag}"
    status, _, answer = _call("PUT", url, manifest, **{"Content-Type": _MEDIA})
    if status != 201:
        raise TwinError(f"the registry refuses {recipe.repository}:{recipe.tag}: {status} {answer.decode()}")
    return f"sha256:{hashlib.sha256(manifest).hexdigest()}"


def digest(twin: Twin, repository: str, tag: str) -> str:
    """Digest of a tag on the twin's registry.

    Raises:
        TwinError: no such image.
    """
    url = f"http://127.0.0.1:{twin.plain_registry_port}/v2/{repository}/manifests/{tag}"
    status, headers, _ = _call("HEAD", url, Accept=", ".join(_MANIFESTS))
    if status != 200:
        raise TwinError(f"the twin's registry has no {repository}:{tag} (HTTP {status}); `make up` pushes it")
    return headers["Docker-Content-Digest"]


def tool_images(twin: Twin) -> dict[str, str]:
    """The program's tool images, by the digests they have on the twin."""
    names = ("database", "smoke")
    if twin.simulated:  # never pulled; any digest will do, and this one says so
        return dict.fromkeys(names, f"simulated.invalid/tools@sha256:{'0' * 64}")
    images = {}
    for name, image in zip(names, TOOL_IMAGES, strict=True):
        repository, tag = split_reference(image)
        images[name] = f"docker.io/{repository}@{digest(twin, repository, tag)}"
    return images


def base_image(twin: Twin) -> str:
    """The Dockerfile's base image, by digest, where buildah finds it."""
    repository, tag = split_reference(BASE_IMAGE)
    return f"127.0.0.1:{twin.plain_registry_port}/{repository}@{digest(twin, repository, tag)}"


def push_unbuilt(twin: Twin, context: Path, repository: str, tag: str) -> str:
    """Push the source itself as one layer, through ECR's front: with simulated nodes nothing runs an image."""
    layer = twin.directory / "unbuilt.tar.gz"
    tar_tree(context, layer)
    return push_recipe(twin, Recipe(repository, tag, layer), system=False)
