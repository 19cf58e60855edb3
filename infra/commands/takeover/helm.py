"""Read what a Helm release owns: from its Secret in the cluster, or from what `helm get all` or `helm get manifest` prints.

Helm keeps each revision as a Secret of type `helm.sh/release.v1`: a JSON document, compressed by gzip, in base64
(helm/helm, pkg/storage/driver/util.go), and Kubernetes' own base64 around that. Of the document only the manifests are read.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from infra.commands.takeover.redaction import secret_texts
from infra.commands.takeover.state import Owned, decoded
from infra.errors import SettingsError

TYPE = "helm"
"""Type of what Helm owns, in place of Terraform's."""
_ASK = "write it by `helm get all <release> --namespace <namespace> > helm.yaml`"


@dataclass(frozen=True)
class HelmRelease:
    """Objects of one release, and the secrets among them."""

    owned: tuple[Owned, ...] = ()
    secrets: frozenset[str] = frozenset()


def parse_text(content: bytes, name: str, namespace: str) -> HelmRelease:
    """Return the objects in what Helm printed.

    Args:
        content: of the file.
        name: of the file.
        namespace: of objects that name none.

    Raises:
        SettingsError: it holds no manifests.
    """
    try:
        text = decoded(content)
    except UnicodeDecodeError as error:
        raise SettingsError(f"{name} is not UTF-8 text; {_ASK}") from error
    head, marker, rest = f"\n{text}".partition("\nMANIFEST:")
    if marker:
        text = rest.partition("\nNOTES:")[0]
        namespace = next(
            (line.partition(":")[2].strip() for line in head.splitlines() if line.startswith("NAMESPACE:")), namespace
        )
    release = _release(text, name, namespace)
    if not release.owned:
        raise SettingsError(f"{name} holds no Kubernetes objects; {_ASK}")
    return release


def parse_secrets(secrets: Sequence[Mapping[str, Any]], namespace: str) -> HelmRelease:
    """Return the objects of every release whose Secrets these are.

    Raises:
        SettingsError: a Secret holds no release.
    """
    owned: list[Owned] = []
    hidden: set[str] = set()
    for secret in secrets:
        name = f"Secret {namespace}/{(secret.get('metadata') or {}).get('name')}"
        try:
            packed = base64.b64decode(base64.b64decode(secret["data"]["release"]))
            document = json.loads(gzip.decompress(packed) if packed.startswith(b"\x1f\x8b") else packed)
            manifest, chosen = str(document["manifest"]), document.get("config")
        except (KeyError, TypeError, ValueError, OSError, EOFError, zlib.error, binascii.Error) as error:
            raise SettingsError(f"{name} holds no Helm release ({type(error).__name__}); {_ASK}") from error
        release = _release(manifest, name, str(document.get("namespace") or namespace))
        owned += release.owned
        hidden |= release.secrets | set(secret_texts(TYPE, {"secret": chosen}, None))
    return HelmRelease(tuple(owned), frozenset(hidden))


def _release(text: str, name: str, namespace: str) -> HelmRelease:
    try:
        documents = list(yaml.load_all(text, Loader=yaml.BaseLoader))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SettingsError(f"{name} is no YAML ({type(error).__name__}); {_ASK}") from error
    objects = [each for each in documents if isinstance(each, dict) and isinstance(each.get("kind"), str)]
    owned = [_manifest_object(each, namespace) for each in objects]
    secrets = {text for each in objects if each["kind"] == "Secret" for text in _secret_values(each)}
    return HelmRelease(tuple(owned), frozenset(secrets))


def _manifest_object(manifest: Mapping[str, Any], namespace: str) -> Owned:
    metadata = manifest.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    kind, title = str(manifest["kind"]), str(metadata.get("name") or "")
    space = "" if kind == "Namespace" else str(metadata.get("namespace") or namespace)
    where = f"{space}/{title}" if space else title
    return Owned(f"helm: {kind} {where}", TYPE, "", {"kind": kind, "namespace": space, "name": title})


def _secret_values(manifest: Mapping[str, Any]) -> Iterator[str]:
    yield from secret_texts(TYPE, {"secret": manifest.get("stringData")}, None)
    for text in secret_texts(TYPE, {"secret": manifest.get("data")}, None):
        yield text
        try:
            yield base64.b64decode(text, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError, ValueError):
            continue
