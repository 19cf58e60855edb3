"""``python -m bench.noop``: what `pulumi up -s prod` takes when it has nothing to do, against programs that declare nothing.

One of these is empty; the other imports the modules of the SDKs that production uses, which is most of what any program
of this size takes. All run on the same engine, in turns, several times; what counts are the ratios of the medians.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import yaml

from twin import config, processes, pulumi
from twin.config import Twin
from twin.errors import TwinError
from twin.paths import REPOSITORY

ROUNDS = 5
MOST_RATIO = 2.0
_STACK = "empty"


@dataclass(frozen=True)
class NoOp:
    """Seconds of each run, in the order they were made."""

    ours: tuple[float, ...]
    empty: tuple[float, ...]
    importing: tuple[float, ...]
    """A program that imports what ours imports of the SDKs, and declares nothing."""

    def ratio(self, other: tuple[float, ...]) -> float:
        """Median of ours ÷ median of the other's."""
        return statistics.median(self.ours) / statistics.median(other)

    def __str__(self) -> str:
        """For a person."""
        ours, empty, importing = map(statistics.median, (self.ours, self.empty, self.importing))
        return (
            f"an update that has nothing to do takes {ours:.1f} s: {ours / empty:.1f} times as long as an empty program "
            f"(wanted: {MOST_RATIO:g}). A program that imports the same SDKs and declares nothing takes "
            f"{importing / empty:.1f} times as long as the empty one; ours takes {ours / importing:.1f} times as long as "
            f"that (medians of {len(self.ours)}, in turns)"
        )


def imports() -> str:
    """A program that loads the SDKs' modules that production's components name, and declares nothing."""
    found = set()
    for path in (REPOSITORY / "infra").glob("*.py"):
        if path.name != "preview.py":
            for sdk, module in re.findall(r"\b(aws|kubernetes)((?:\.[a-z0-9]+)+)\.[A-Z]", path.read_text()):
                found.add(f"pulumi_{sdk}{module}")
    # The SDKs' modules load themselves when something in them is asked for.
    loading = "".join(f"import {module}\nhasattr({module}, 'loaded')\n" for module in sorted(found | {"pulumi_eks"}))
    # Nor does ours collect garbage.
    return f"import gc\ngc.disable()\n{loading}gc.freeze()\n"


def project() -> str:
    """Pulumi.yaml of the programs beside ours: the same engine starts the same Python in the same way."""
    runtime = yaml.safe_load((REPOSITORY / "Pulumi.yaml").read_text())["runtime"]
    runtime["options"]["virtualenv"] = str(REPOSITORY / runtime["options"]["virtualenv"])
    return yaml.safe_dump({"name": "empty", "runtime": runtime})


def _timed(argv: list[str], directory: Path, environment: dict[str, str]) -> tuple[float, str]:
    started = time.monotonic()
    result = subprocess.run(
        argv, cwd=directory, env=environment, text=True, capture_output=True, check=False, stdin=subprocess.DEVNULL
    )
    if result.returncode != 0:
        raise TwinError(f"{' '.join(argv)} failed:\n{result.stdout}{result.stderr}")
    return time.monotonic() - started, result.stdout


def measure(twin: Twin, settings: Path | None = None, rounds: int = ROUNDS) -> NoOp:
    """All three, in turns, on a twin whose production has nothing to do with these settings (by default its own).

    Raises:
        TwinError: a run failed, or production had something to do.
    """
    ours_environment = {**os.environ, **pulumi.environment(twin)}
    if settings is not None:
        ours_environment["PULUMI_OPTION_CONFIG_FILE"] = str(settings)
    environment = {key: value for key, value in ours_environment.items() if key != "PULUMI_OPTION_CONFIG_FILE"}
    up = ["pulumi", "up", "--yes", "--skip-preview", "--non-interactive"]
    with tempfile.TemporaryDirectory(prefix="shopcat-empty-") as name:
        programs = {"empty": "", "importing": imports()}
        for program, text in programs.items():
            directory = Path(name) / program
            directory.mkdir()
            (directory / "Pulumi.yaml").write_text(project())
            (directory / "__main__.py").write_text(text)
        environment["PULUMI_BACKEND_URL"] = f"file://{name}"
        _timed(["pulumi", "stack", "init", _STACK, "--non-interactive"], Path(name) / "empty", environment)
        seconds: dict[str, list[float]] = {"ours": [], **{program: [] for program in programs}}
        for number in range(rounds + 1):
            for program in programs:
                taken, _ = _timed([*up, "-s", _STACK], Path(name) / program, environment)
                seconds[program].append(taken)
            taken, said = _timed([*up, "-s", pulumi.STACK], REPOSITORY, ours_environment)
            seconds["ours"].append(taken)
            if any(word in said for word in (" created", " updated", " deleted", " replaced")):
                raise TwinError(f"`pulumi up -s {pulumi.STACK}` had something to do:\n{said}")
            if number == 0:  # the first round writes byte code and the empty stack itself
                for each in seconds.values():
                    each.clear()
    return NoOp(**{program: tuple(each) for program, each in seconds.items()})


def main() -> int:
    """Measure on a twin that is up; exit code 1 if ours takes too long beside the empty program."""
    processes.heed_interrupts()
    try:
        found = measure(config.load())
    except TwinError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for name, seconds in (("ours", found.ours), ("empty", found.empty), ("importing", found.importing)):
        print(f"{name:<10}{'  '.join(f'{one:.1f} s' for one in seconds)}")
    print(found)
    return 0 if found.ratio(found.empty) <= MOST_RATIO else 1


if __name__ == "__main__":
    sys.exit(main())
