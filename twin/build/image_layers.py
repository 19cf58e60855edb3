"""Layers of the images that the twin makes itself, built into the cache: the system images of its nodes.

Each is put together here without a Docker engine: one program that is built anyway, or unpacked Debian packages.
"""

from __future__ import annotations

import gzip
import shutil
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from twin.build import cache, debian, golang, programs
from twin.config import Twin

PAUSE_IMAGE = f"registry.k8s.io/pause:{golang.PAUSE}"
"""The sandbox image as kubelet and containerd name it."""

COREDNS_IMAGE = f"eks/coredns:v{golang.COREDNS}"
EXTERNAL_SECRETS_IMAGE = f"external-secrets/external-secrets:v{golang.EXTERNAL_SECRETS}"
BASE_IMAGE = "library/python:3.11-slim-bookworm"
TOOL_IMAGES = ("library/postgres:16", "curlimages/curl:8.10.1")

_BASE_PACKAGES = (
    "base-files", "base-passwd", "bash", "coreutils", "dash", "grep", "sed", "findutils", "hostname", "netbase",
    "libc-bin", "tzdata", "ca-certificates", "openssl", "python3", "python3-venv", "python3-pip-whl",
    "python3-setuptools-whl",
)  # fmt: skip
_TOOL_PACKAGES = (*_BASE_PACKAGES, "postgresql-client-15", "curl")
_DATABASE_PACKAGES = (*_TOOL_PACKAGES, "postgresql-15")
_DATABASE_LEFT_OUT = ("libllvm", "perl", "libperl", "postgresql-common", "ssl-cert", "ucf", "adduser", "debconf")
"""Packages for the server's installation and just-in-time compilation, left out: PostgreSQL itself runs without them."""
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


def split_reference(image: str) -> tuple[str, str]:
    """``registry.k8s.io/pause:3.10`` → ``("pause", "3.10")``: the path on the twin's registry and the tag."""
    first, _, rest = image.partition("/")
    path = rest if rest and ("." in first or ":" in first) else image
    repository, _, tag = path.rpartition(":")
    return repository, tag


def _finish_root(root: Path) -> None:
    """Do the steps of Debian's maintainer scripts that a running container needs."""
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


def tar_tree(root: Path, target: Path) -> None:
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


def _system_part(name: str, packages: tuple[str, ...]) -> cache.BuiltPart:
    def make(step: cache.Step) -> None:
        debian.unpack(packages, step)
        _finish_root(step.directory / "root")
        tar_tree(step.directory / "root", step.directory / "layer.tar.gz")
        step.run(["rm", "-rf", "root"])

    return cache.BuiltPart(f"image-{name}", "bookworm", f"1 {' '.join(packages)}", make)


def _database_part() -> cache.BuiltPart:
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
        tar_tree(root, step.directory / "layer.tar.gz")
        step.run(["rm", "-rf", "root"])

    recipe = f"2 {' '.join(_DATABASE_PACKAGES)} {_DATABASE_LEFT_OUT} {_DATABASE_USER} {_DATABASE_START}"
    return cache.BuiltPart("image-database", "bookworm", recipe, make)


def _binary_part(name: str, binary: Path, path: str) -> cache.BuiltPart:
    """A layer with one static program in it; another build of the program is another layer."""

    def make(step: cache.Step) -> None:
        tree = step.directory / "root"
        program = tree / path.lstrip("/")
        program.parent.mkdir(parents=True)
        shutil.copy(binary, program)
        (tree / "tmp").mkdir(exist_ok=True)
        (tree / "tmp").chmod(0o1777)
        tar_tree(tree, step.directory / "layer.tar.gz")
        shutil.rmtree(tree)

    built = binary.parent.parent.name
    return cache.BuiltPart(f"image-{name}", built.rpartition("-")[0].rpartition("-")[2], f"2 {built} {path}", make)


def program_recipe(twin: Twin, image: str, program: str, path: str, *, user: str = "") -> Recipe:
    """Return the image of one program that is built here, with its layer."""
    part = _binary_part(program, programs.program(twin, program), path)
    layer = cache.ensure(twin.cache, part) / "layer.tar.gz"
    repository, tag = split_reference(image)
    return Recipe(repository, tag, layer, entrypoint=(path,), user=user)


def recipes(twin: Twin) -> list[Recipe]:
    """Every system image this twin needs, its layer built."""

    def system(image: str, name: str, packages: tuple[str, ...], command: tuple[str, ...]) -> Recipe:
        layer = cache.ensure(twin.cache, _system_part(name, packages)) / "layer.tar.gz"
        repository, tag = split_reference(image)
        return Recipe(repository, tag, layer, command=command, environment={"PATH": _PATH, "LANG": "C.UTF-8"})

    if twin.simulated:
        return []
    parts = [
        program_recipe(twin, PAUSE_IMAGE, "pause", "/pause", user="65535:65535"),
        program_recipe(twin, COREDNS_IMAGE, "coredns", "/coredns"),
        program_recipe(twin, EXTERNAL_SECRETS_IMAGE, "external-secrets", "/bin/external-secrets", user="65534:65534"),
        system(BASE_IMAGE, "python", _BASE_PACKAGES, ("python3",)),
    ]
    database, smoke = TOOL_IMAGES
    parts.append(system(smoke, "tools", _TOOL_PACKAGES, ("bash",)))
    repository, tag = split_reference(database)
    parts.append(
        Recipe(
            repository,
            tag,
            cache.ensure(twin.cache, _database_part()) / "layer.tar.gz",
            entrypoint=("/usr/local/bin/docker-entrypoint.sh",),
            command=("postgres",),
            environment={"PATH": _PATH, "LANG": "C.UTF-8"},
        )
    )
    return parts
