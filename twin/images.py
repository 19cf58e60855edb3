"""Images that the twin makes itself, and builds of the application's image; all without a Docker engine.

System images are put together here, layer by layer, and pushed to the plain registry, where both nodes find them under the
paths of the public registries they stand in for. Application images are built by buildah and pushed through ECR's front.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from twin import build, config, machine
from twin.build import cache, debian, golang
from twin.config import PartStatus, Twin
from twin.errors import TwinError

PAUSE = f"registry.k8s.io/pause:{golang.PAUSE}"
"""The sandbox image as kubelet and containerd name it."""

COREDNS = f"eks/coredns:v{golang.COREDNS}"
EXTERNAL_SECRETS = f"external-secrets/external-secrets:v{golang.EXTERNAL_SECRETS}"
BASE = "library/python:3.11-slim-bookworm"
TOOLS = ("library/postgres:16", "curlimages/curl:8.10.1")

_BASE_PACKAGES = (
    "base-files", "base-passwd", "bash", "coreutils", "dash", "grep", "sed", "findutils", "hostname", "netbase",
    "libc-bin", "tzdata", "ca-certificates", "openssl", "python3", "python3-venv", "python3-pip-whl",
    "python3-setuptools-whl",
)  # fmt: skip
_TOOL_PACKAGES = (*_BASE_PACKAGES, "postgresql-client-15", "curl")
_DATABASE_PACKAGES = (*_TOOL_PACKAGES, "postgresql-15")
_DATABASE_LEFT_OUT = ("libllvm", "perl", "libperl", "postgresql-common", "ssl-cert", "ucf", "adduser", "debconf")
"""What Debian's server package is installed and compiled just in time with; PostgreSQL itself runs without."""
_DATABASE_USER = "postgres:x:70:70::/var/lib/postgresql:/bin/sh"
_DATABASE_START = """#!/bin/bash
# As docker-entrypoint.sh of github.com/docker-library/postgres: an empty PGDATA becomes a database, then the server runs.
set -euo pipefail
if [ "${1:-}" != postgres ]; then exec "$@"; fi
export PATH=/usr/lib/postgresql/15/bin:$PATH
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  initdb --username="$POSTGRES_USER" --pwfile=<(printf '%s' "$POSTGRES_PASSWORD") --auth-host=scram-sha-256 --no-sync
  echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
  if [ "$POSTGRES_DB" != postgres ]; then
    echo "CREATE DATABASE \\"$POSTGRES_DB\\"" | postgres --single -j postgres
  fi
fi
exec "$@" -c listen_addresses='*'
"""
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MEDIA = "application/vnd.oci.image.manifest.v1+json"
_MANIFESTS = (_MEDIA, "application/vnd.docker.distribution.manifest.v2+json")


@dataclass(frozen=True)
class Recipe:
    """One image of the twin's own: a layer, and how its process starts."""

    repository: str
    tag: str
    layer: Path
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    user: str = ""


def _split(image: str) -> tuple[str, str]:
    """``registry.k8s.io/pause:3.10`` → ``("pause", "3.10")``: the path on the twin's registry and the tag."""
    first, _, rest = image.partition("/")
    path = rest if rest and ("." in first or ":" in first) else image
    repository, _, tag = path.rpartition(":")
    return repository, tag


def _finish_root(root: Path) -> None:
    """What maintainer scripts would have done that a running container needs."""
    etc = root / "etc"
    master = root / "usr/share/base-passwd"
    for name in ("passwd", "group"):
        if not (etc / name).exists():
            (etc / name).write_text((master / f"{name}.master").read_text())
    shell = root / "usr/bin/sh"
    if not shell.exists():
        shell.symlink_to("dash")
    python = root / "usr/bin/python"
    if not python.exists():
        python.symlink_to("python3")
    certificates = root / "usr/share/ca-certificates"
    bundle = etc / "ssl/certs/ca-certificates.crt"
    bundle.parent.mkdir(parents=True, exist_ok=True)
    bundle.write_text("".join(path.read_text() for path in sorted(certificates.rglob("*.crt"))))
    (root / "tmp").mkdir(exist_ok=True)
    (root / "tmp").chmod(0o1777)
    psql = root / "usr/lib/postgresql/15/bin/psql"
    link = root / "usr/bin/psql"
    if psql.exists():
        link.unlink(missing_ok=True)
        link.symlink_to("../lib/postgresql/15/bin/psql")


_UNNEEDED = (
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/info",
    "usr/share/lintian",
    "usr/lib/udev",
)


def _tar_tree(root: Path, target: Path) -> None:
    """The tree as a reproducible gzip layer: sorted, owned by root, without times."""
    with target.open("wb") as raw, gzip.GzipFile("", mode="wb", compresslevel=1, fileobj=raw, mtime=0) as packed:
        with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for path in sorted(root.rglob("*")):
                name = str(path.relative_to(root))
                if name.startswith(_UNNEEDED):
                    continue
                entry = archive.gettarinfo(path, name)
                entry.uid = entry.gid = entry.mtime = 0
                entry.uname = entry.gname = ""
                # Readable by the container's user, whatever the builder's umask.
                entry.mode |= 0o555 if entry.isdir() or entry.mode & 0o100 else 0o444
                if entry.isreg():
                    with path.open("rb") as content:
                        archive.addfile(entry, content)
                else:
                    archive.addfile(entry)


def _system_part(name: str, packages: tuple[str, ...]) -> cache.Part:
    def make(step: cache.Step) -> None:
        debian.unpack(packages, step)
        _finish_root(step.directory / "root")
        _tar_tree(step.directory / "root", step.directory / "layer.tar.gz")
        step.run(["rm", "-rf", "root"])

    return cache.Part(f"image-{name}", "bookworm", f"1 {' '.join(packages)}", make)


def _database_part() -> cache.Part:
    """PostgreSQL's server and client, begun as the official image begins."""

    def make(step: cache.Step) -> None:
        debian.unpack(_DATABASE_PACKAGES, step, leave_out=_DATABASE_LEFT_OUT)
        root = step.directory / "root"
        _finish_root(root)
        with (root / "etc/passwd").open("a") as users:
            users.write(f"{_DATABASE_USER}\n")
        # Debian's name for it leads to a script in Perl.
        ready = root / "usr/bin/pg_isready"
        ready.unlink()
        ready.symlink_to("../lib/postgresql/15/bin/pg_isready")
        # A provider that is there and can't be loaded is an error; one that isn't there is left alone.
        (root / "usr/lib/postgresql/15/lib/llvmjit.so").unlink()
        start = root / "usr/local/bin/docker-entrypoint.sh"
        start.parent.mkdir(parents=True, exist_ok=True)
        start.write_text(_DATABASE_START)
        start.chmod(0o755)
        _tar_tree(root, step.directory / "layer.tar.gz")
        step.run(["rm", "-rf", "root"])

    recipe = f"2 {' '.join(_DATABASE_PACKAGES)} {_DATABASE_LEFT_OUT} {_DATABASE_USER} {_DATABASE_START}"
    return cache.Part("image-database", "bookworm", recipe, make)


def _binary_part(name: str, binary: Path, path: str) -> cache.Part:
    """A layer with one static program in it; another build of the program is another layer."""

    def make(step: cache.Step) -> None:
        tree = step.directory / "root"
        program = tree / path.lstrip("/")
        program.parent.mkdir(parents=True)
        shutil.copy(binary, program)
        (tree / "tmp").mkdir(exist_ok=True)
        (tree / "tmp").chmod(0o1777)
        _tar_tree(tree, step.directory / "layer.tar.gz")
        shutil.rmtree(tree)

    built = binary.parent.parent.name
    return cache.Part(f"image-{name}", built.rpartition("-")[0].rpartition("-")[2], f"2 {built} {path}", make)


def recipes(twin: Twin) -> list[Recipe]:
    """Every system image this twin needs, its layer built."""

    def binary(image: str, program: str, path: str, *, user: str = "") -> Recipe:
        part = _binary_part(program, build.program(twin, program), path)
        layer = cache.ensure(twin.cache, part) / "layer.tar.gz"
        repository, tag = _split(image)
        return Recipe(repository, tag, layer, entrypoint=(path,), user=user)

    def system(image: str, name: str, packages: tuple[str, ...], command: tuple[str, ...]) -> Recipe:
        layer = cache.ensure(twin.cache, _system_part(name, packages)) / "layer.tar.gz"
        repository, tag = _split(image)
        return Recipe(repository, tag, layer, command=command, environment={"PATH": _PATH, "LANG": "C.UTF-8"})

    if twin.simulated:
        return []
    found = [
        binary(PAUSE, "pause", "/pause", user="65535:65535"),
        binary(COREDNS, "coredns", "/coredns"),
        binary(EXTERNAL_SECRETS, "external-secrets", "/bin/external-secrets", user="65534:65534"),
        system(BASE, "python", _BASE_PACKAGES, ("python3",)),
    ]
    database, smoke = TOOLS
    found.append(system(smoke, "tools", _TOOL_PACKAGES, ("bash",)))
    repository, tag = _split(database)
    found.append(
        Recipe(
            repository,
            tag,
            cache.ensure(twin.cache, _database_part()) / "layer.tar.gz",
            entrypoint=("/usr/local/bin/docker-entrypoint.sh",),
            command=("postgres",),
            environment={"PATH": _PATH, "LANG": "C.UTF-8"},
        )
    )
    return found


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
    found = {}
    for name, image in zip(names, TOOLS, strict=True):
        repository, tag = _split(image)
        found[name] = f"docker.io/{repository}@{digest(twin, repository, tag)}"
    return found


def base_image(twin: Twin) -> str:
    """The Dockerfile's base image, by digest, where buildah finds it."""
    repository, tag = _split(BASE)
    return f"127.0.0.1:{twin.plain_registry_port}/{repository}@{digest(twin, repository, tag)}"


def storage_driver(cache_directory: Path, mountinfo: str) -> str:
    """How buildah stores layers below a folder: no overlay can be stacked on another one (inside a container)."""
    best, kind = 0, ""
    for line in mountinfo.splitlines():
        fields = line.split()
        place = Path(fields[4])
        if cache_directory.is_relative_to(place) and len(str(place)) >= best:
            best, kind = len(str(place)), fields[fields.index("-") + 1]
    return "vfs" if kind == "overlay" else "overlay"


_BLOB_CACHE = Path("/var/lib/containers")
"""Where buildah, run by root, remembers which registry has which layer; no option moves it."""

# In mounts of its own: what buildah mounts and forgets ends with it, and it remembers layers in the cache's folder.
_ALONE = (
    "unshare",
    "--mount",
    "--propagation",
    "private",
    "--",
    "sh",
    "-c",
    'mount --bind "$0" "$1" && shift && exec "$@"',
)


def _blob_cache_lock() -> contextlib.AbstractContextManager[None]:
    """One build or push at a time on the machine, whatever its cache.

    Removing a folder ends a mount on it in every mount namespace, so nobody may while another's buildah is at work.
    """
    return machine.locked(_BLOB_CACHE.parent)


@contextlib.contextmanager
def _storage(twin: Twin) -> Iterator[Path]:
    """Buildah's folder in the cache, for one build or push at a time: twins share it."""
    storage = twin.cache / "buildah"
    (storage / "containers").mkdir(parents=True, exist_ok=True)
    with machine.locked(storage), _blob_cache_lock():
        absent = not _BLOB_CACHE.exists()
        _BLOB_CACHE.mkdir(parents=True, exist_ok=True)
        try:
            yield storage
        finally:
            if absent:
                with contextlib.suppress(OSError):  # somebody's own engine took it meanwhile
                    _BLOB_CACHE.rmdir()


def _buildah(twin: Twin, storage: Path, arguments: Sequence[str | Path], log: Path, title: str) -> None:
    command, environment = _invocation(twin, storage, arguments)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as output:
        output.write(f"$ buildah {' '.join(map(str, arguments))}\n")
    cache.run_logged(command, log=log, title=title, cwd=storage, env=environment)


def _invocation(twin: Twin, storage: Path, arguments: Sequence[str | Path]) -> tuple[list[str | Path], dict[str, str]]:
    """How buildah is called with these arguments."""
    root = build.debian_root(twin)
    program = debian.self_starting(root, "buildah", storage / f"buildah-{root.parent.name}")
    policy = storage / "policy.json"
    policy.write_text(json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))
    registries = storage / "registries.conf"
    registries.write_text("unqualified-search-registries = []\n")
    driver = storage_driver(storage, Path("/proc/self/mountinfo").read_text())
    # A graph is of one driver for good.
    run, graph = ("run", "graph") if driver == "overlay" else (f"run-{driver}", f"graph-{driver}")
    settings = storage / "storage.conf"
    settings.write_text(
        f'[storage]\ndriver = "{driver}"\nrunroot = "{storage / run}"\ngraphroot = "{storage / graph}"\n'
    )
    environment = {
        **os.environ,
        **build.debian_environment(twin),
        "CONTAINERS_STORAGE_CONF": str(settings),
        "CONTAINERS_REGISTRIES_CONF": str(registries),
        "BUILDAH_ISOLATION": "chroot",
        "TMPDIR": str(storage),
    }
    command = [*_ALONE, storage / "containers", _BLOB_CACHE, program, "--registries-conf", registries, arguments[0]]
    if arguments[0] in ("build", "push"):
        command += ["--signature-policy", policy, "--tls-verify=false"]
    return [*command, *arguments[1:]], environment


def run_buildah(twin: Twin, arguments: Sequence[str]) -> int:
    """Buildah as a program on PATH, for the pipeline: its output is ours, and pushes to ECR's name reach the twin's ECR.

    Returns:
        Its exit code.
    """
    ecr, here = f"docker://{config.registry_host()}/", f"docker://127.0.0.1:{twin.registry_port}/"
    led = [here + one.removeprefix(ecr) if one.startswith(ecr) else one for one in arguments]
    with _storage(twin) as storage:
        if led[:1] == ["build"]:  # as in build_image
            _buildah(
                twin, storage, ["rm", "--all"], twin.logs / "buildah.log", "clearing up after earlier image builds"
            )
        command, environment = _invocation(twin, storage, led)
        return subprocess.run(command, env=environment, check=False, stdin=subprocess.DEVNULL).returncode


def build_image(
    twin: Twin,
    *,
    context: Path,
    dockerfile: Path,
    tag: str,
    build_args: Mapping[str, str],
    ignorefile: Path | None = None,
    no_cache: bool = False,
) -> str:
    """Build a Dockerfile with buildah, its standard input closed.

    Returns:
        The image's identifier, for :func:`push`: unlike the tag, no other twin's build can take it meanwhile.

    Raises:
        TwinError: the build failed; names its log.
    """
    identifier = twin.directory / f"image-{_file_name(tag)}.id"
    arguments: list[str | Path] = ["build", "--layers", "--timestamp=0", "--tag", tag]
    arguments += ["--iidfile", identifier]
    if ignorefile is not None:
        arguments += ["--ignorefile", ignorefile]
    if no_cache:
        arguments.append("--no-cache")
    for name, value in build_args.items():
        arguments += ["--build-arg", f"{name}={value}"]
    log = twin.logs / f"image-{_file_name(tag)}.log"
    log.unlink(missing_ok=True)
    with _storage(twin) as storage:
        # Builds that were killed leave their working containers; with the lock held, none is at work.
        _buildah(twin, storage, ["rm", "--all"], log, "clearing up after earlier image builds")
        _buildah(twin, storage, [*arguments, "--file", dockerfile, context], log, f"building the image {tag}")
    return identifier.read_text().strip()


def _file_name(tag: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", tag.rpartition("/")[2])


def push_unbuilt(twin: Twin, context: Path, repository: str, tag: str) -> str:
    """With simulated nodes nothing runs an image: the source itself is pushed as one layer, through ECR's front."""
    layer = twin.directory / "unbuilt.tar.gz"
    _tar_tree(context, layer)
    return push_recipe(twin, Recipe(repository, tag, layer), system=False)


def push(twin: Twin, reference: str, repository: str, tag: str, *, system: bool = False) -> str:
    """Push a built image: through ECR's front, or with ``system`` to the plain registry. Returns its digest.

    Raises:
        TwinError: ECR refuses it (no such repository, or an immutable tag with another digest).
    """
    port = twin.plain_registry_port if system else twin.registry_port
    path = twin.directory / f"digest-{repository.replace('/', '-')}"
    target = f"docker://127.0.0.1:{port}/{repository}:{tag}"
    arguments: list[str | Path] = ["push", "--digestfile", path, reference, target]
    log = twin.logs / f"push-{repository.replace('/', '-')}.log"
    with _storage(twin) as storage:
        _buildah(twin, storage, arguments, log, f"pushing {repository}:{tag}")
    return path.read_text().strip()


def up(twin: Twin) -> None:
    """Push every system image that the registry lacks or has from another recipe."""
    record = twin.directory / "system-images.json"
    pushed: dict[str, str] = json.loads(record.read_text()) if record.exists() else {}

    def push_one(recipe: Recipe) -> None:
        image = f"{recipe.repository}:{recipe.tag}"
        if pushed.get(image) != str(recipe.layer) or _missing(twin, [image]):
            push_recipe(twin, recipe)
            pushed[image] = str(recipe.layer)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(push_one, recipes(twin)))
    record.write_text(json.dumps(pushed, indent=2) + "\n")


def down(twin: Twin) -> None:
    """They go with the registry's folder."""


def _missing(twin: Twin, images: Iterable[str]) -> list[str]:
    missing = []
    for image in images:
        repository, tag = _split(image)
        try:
            digest(twin, repository, tag)
        except TwinError:
            missing.append(image)
    return missing


def status(twin: Twin) -> list[PartStatus]:
    """Which system images the registry lacks."""
    if twin.simulated:
        return [PartStatus("images", ok=True, detail="none: simulated nodes pull nothing")]
    missing = _missing(twin, (PAUSE, COREDNS, EXTERNAL_SECRETS, BASE, *TOOLS))
    return [PartStatus("images", ok=not missing, detail=f"missing: {', '.join(missing)}" if missing else "pushed")]
