"""Dockerfiles built, and their images pushed, by buildah; also run by that name, ``buildah``.

The pipeline calls it so, as it would on a runner without a Docker engine. Layers are stored in the cache, which twins share.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from twin import config
from twin.build import cache, debian, programs
from twin.config import Twin
from twin.errors import TwinError
from twin.host import machine


def storage_driver(cache_directory: Path, mountinfo: str) -> str:
    """Return buildah's storage driver for a folder: no overlay can be stacked on another one (inside a container)."""
    best, kind = 0, ""
    for line in mountinfo.splitlines():
        fields = line.split()
        place = Path(fields[4])
        if cache_directory.is_relative_to(place) and len(str(place)) >= best:
            best, kind = len(str(place)), fields[fields.index("-") + 1]
    return "vfs" if kind == "overlay" else "overlay"


_BLOB_CACHE = Path("/var/lib/containers")
"""Folder in which buildah, run by root, remembers which registry has which layer; no option moves it."""

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
    """Return the command line and environment for buildah with these arguments."""
    root = programs.debian_root(twin)
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
        **programs.debian_environment(twin),
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
    led = [here + argument.removeprefix(ecr) if argument.startswith(ecr) else argument for argument in arguments]
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


def main() -> int:
    """Buildah's own exit code."""
    try:
        return run_buildah(config.load(), sys.argv[1:])
    except TwinError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
