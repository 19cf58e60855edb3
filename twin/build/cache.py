"""A cache of things built once: each in a folder named by its version and by the recipe that built it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from twin.errors import TwinError

_PROGRESS_SECONDS = 15.0
_running: set[subprocess.Popen[bytes]] = set()


def stop() -> None:
    """End the commands that other threads run: their recipe fails, and leaves nothing half built."""
    for child in list(_running):
        child.terminate()


def run_logged(
    argv: Sequence[str | Path], *, log: Path, title: str, cwd: Path, env: Mapping[str, str] | None = None
) -> None:
    """Run a command; its output is added to the log, its duration goes to the screen every 15 s.

    Raises:
        TwinError: it failed, which names the log and shows its end, or it does not exist.
    """
    started = time.monotonic()
    with log.open("ab") as output:
        try:
            child = subprocess.Popen(
                [str(part) for part in argv],
                cwd=cwd,
                env=dict(env) if env is not None else None,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        except FileNotFoundError as error:
            raise TwinError(f"{title}: the program {argv[0]} is missing on this machine; install it") from error
        _running.add(child)
        try:
            while True:
                try:
                    code = child.wait(_PROGRESS_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    print(f"  {title} … {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
        finally:
            _running.discard(child)
            if child.poll() is None:
                child.terminate()
                child.wait()
    if code != 0:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise TwinError(f"{title}: `{' '.join(map(str, argv[:4]))} …` failed (log: {log}):\n{tail}")


@dataclass(frozen=True)
class Step:
    """Folder in which a recipe builds, and log of its commands' output."""

    directory: Path
    log: Path
    title: str

    def run(self, argv: Sequence[str | Path], *, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> None:
        """Run a command of the recipe, as :func:`run_logged` does.

        Raises:
            TwinError: it failed or does not exist.
        """
        run_logged(argv, log=self.log, title=self.title, cwd=cwd or self.directory, env=env)


@dataclass(frozen=True)
class BuiltPart:
    """Something built once.

    ``recipe`` is text that changes whenever the result would; ``build`` fills ``step.directory``.
    """

    name: str
    version: str
    recipe: str
    build: Callable[[Step], None]

    def directory(self, cache: Path) -> Path:
        """Return the folder of the result, built or not."""
        key = hashlib.sha256(self.recipe.encode()).hexdigest()[:8]
        return cache / f"{self.name}-{self.version}-{key}"


def ensure(cache: Path, part: BuiltPart) -> Path:
    """The part's folder; built first if it isn't there. Two builders at once: the second waits.

    Raises:
        TwinError: a command of the recipe failed; nothing half built is left.
    """
    target = part.directory(cache)
    if target.exists():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f".{part.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.exists():
            return target
        # The lock is ours, so nobody builds in what a killed builder left.
        for abandoned in cache.glob(f".{part.name}-partial-*"):
            shutil.rmtree(abandoned, ignore_errors=True)
        print(f"  building {part.name} {part.version}", file=sys.stderr, flush=True)
        started = time.monotonic()
        partial = Path(tempfile.mkdtemp(dir=cache, prefix=f".{part.name}-partial-"))
        partial.chmod(0o755)
        log = cache / f"{part.name}.build.log"
        log.write_text("")
        try:
            step = Step(partial, log, f"building {part.name} {part.version}")
            part.build(step)
            # PostgreSQL's user reads the cache too, whatever the builder's umask.
            step.run(["chmod", "--recursive", "a+rX,u+w", partial])
            partial.rename(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        seconds = time.monotonic() - started
        print(f"  built {part.name} {part.version} in {seconds:.0f} s", file=sys.stderr, flush=True)
        _record(cache, f"{part.name} {part.version}", seconds)
    return target


def build_times(cache: Path) -> dict[str, float]:
    """Seconds that each part's latest build took, by name and version; empty if nothing was built here."""
    try:
        times: dict[str, float] = json.loads((cache / "build-times.json").read_text())
    except (OSError, ValueError):
        return {}
    return times


def _record(cache: Path, title: str, seconds: float) -> None:
    path = cache / "build-times.json"
    with (cache / ".build-times.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        times = build_times(cache)
        times[title] = round(seconds, 1)
        path.write_text(json.dumps(times, indent=2) + "\n")
