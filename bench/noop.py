"""``python -m bench.noop``: time of `pulumi up -s prod` when it has nothing to do, against programs that do nothing.

One of these is empty; one imports the modules of the SDKs that production uses; one declares as many components besides,
without inputs, plugins or dependencies: what one of this size takes that does nothing. All run on the same engine, in turns,
several times; what counts are the ratios of the medians.
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

from twin import config, pulumi
from twin.config import Twin
from twin.errors import TwinError
from twin.host import processes
from twin.paths import REPOSITORY

ROUNDS = 5
MAX_RATIO = 2.0
_STACK = "nothing"


@dataclass(frozen=True)
class NoOp:
    """Seconds of each run, in the order they were made."""

    ours: tuple[float, ...]
    empty: tuple[float, ...]
    importing: tuple[float, ...]
    """A program that imports what ours imports of the SDKs, and declares nothing."""
    declaring: tuple[float, ...]
    """A program that declares as many resources besides: components without inputs."""
    resources: int
    """Number of resources that our program declares."""

    def ratio(self, other: tuple[float, ...]) -> float:
        """Return median of ours ÷ median of the other's."""
        return statistics.median(self.ours) / statistics.median(other)

    def __str__(self) -> str:
        """Return a sentence for a person."""
        ours, empty, importing, declaring = map(
            statistics.median, (self.ours, self.empty, self.importing, self.declaring)
        )
        return (
            f"an update that has nothing to do takes {ours:.1f} s: {ours / declaring:.1f} times as long as a program that "
            f"imports the same SDKs and declares {self.resources} components without inputs (wanted: at most "
            f"{MAX_RATIO:g}). Beside an empty program it takes {ours / empty:.1f} times as long; one that imports the SDKs "
            f"and declares nothing {importing / empty:.1f} times, the one with the components {declaring / empty:.1f} times "
            f"(medians of {len(self.ours)}, in turns)"
        )


def imports() -> str:
    """Return a program that loads the SDKs' modules that production's components name, and declares nothing."""
    modules = set()
    for path in (REPOSITORY / "infra").rglob("*.py"):
        if path.name != "preview.py":
            for sdk, module in re.findall(r"\b(aws|kubernetes)((?:\.[a-z0-9]+)+)\.[A-Z]", path.read_text()):
                modules.add(f"pulumi_{sdk}{module}")
    # The SDKs' modules load themselves when something in them is asked for.
    return "".join(f"import {module}\nhasattr({module}, 'loaded')\n" for module in sorted(modules | {"pulumi_eks"}))


def declaring_components(count: int) -> str:
    """Return a program that declares components and nothing of them."""
    return (
        "import pulumi\n"
        f'for number in range({count}):\n    pulumi.ComponentResource("empty:index:Empty", str(number))\n'
    )


def _program(text: str) -> str:
    # Nor does ours collect garbage.
    return f"import gc\ngc.disable()\n{text}gc.freeze()\n"


def project(name: str) -> str:
    """Return Pulumi.yaml of a program beside ours: the same engine starts the same Python in the same way."""
    runtime = yaml.safe_load((REPOSITORY / "Pulumi.yaml").read_text())["runtime"]
    runtime["options"]["virtualenv"] = str(REPOSITORY / runtime["options"]["virtualenv"])
    return yaml.safe_dump({"name": name, "runtime": runtime})


def _timed(argv: list[str], directory: Path, environment: dict[str, str]) -> tuple[float, str]:
    started = time.monotonic()
    result = subprocess.run(
        argv, cwd=directory, env=environment, text=True, capture_output=True, check=False, stdin=subprocess.DEVNULL
    )
    if result.returncode != 0:
        raise TwinError(f"{' '.join(argv)} failed:\n{result.stdout}{result.stderr}")
    return time.monotonic() - started, result.stdout


def measure(twin: Twin, settings: Path | None = None, rounds: int = ROUNDS) -> NoOp:
    """Time all four, in turns, on a twin whose production has nothing to do with these settings (by default its own).

    Raises:
        TwinError: a run failed, or production had something to do.
    """
    ours_environment = {**os.environ, **pulumi.environment(twin)}
    if settings is not None:
        ours_environment["PULUMI_OPTION_CONFIG_FILE"] = str(settings)
    environment = {key: value for key, value in ours_environment.items() if key != "PULUMI_OPTION_CONFIG_FILE"}
    up = ["pulumi", "up", "--yes", "--skip-preview", "--non-interactive"]

    def once(stack: str, directory: Path, environment: dict[str, str]) -> tuple[float, int]:
        taken, output = _timed([*up, "-s", stack], directory, environment)
        unchanged = re.search(r"^ *(\d+) unchanged$", output, re.MULTILINE)
        if unchanged is None or any(word in output for word in (" created", " updated", " deleted", " replaced")):
            raise TwinError(f"`pulumi up -s {stack}` in {directory} had something to do:\n{output}")
        return taken, int(unchanged[1])

    _, resources = once(pulumi.STACK, REPOSITORY, ours_environment)
    with tempfile.TemporaryDirectory(prefix="shopcat-empty-") as name:
        declaring = imports() + declaring_components(resources)
        environment["PULUMI_BACKEND_URL"] = pulumi.backend_url(Path(name))
        programs = {"empty": "", "importing": _program(imports()), "declaring": _program(declaring)}
        for program, text in programs.items():
            directory = Path(name) / program
            directory.mkdir()
            (directory / "Pulumi.yaml").write_text(project(program))
            (directory / "__main__.py").write_text(text)
            _timed(["pulumi", "stack", "init", _STACK, "--non-interactive"], directory, environment)
        seconds: dict[str, list[float]] = {"ours": [], **{program: [] for program in programs}}
        for program in programs:  # makes the stack, and writes byte code
            _timed([*up, "-s", _STACK], Path(name) / program, environment)
        for _ in range(rounds):
            for program in programs:
                seconds[program].append(once(_STACK, Path(name) / program, environment)[0])
            seconds["ours"].append(once(pulumi.STACK, REPOSITORY, ours_environment)[0])
    return NoOp(**{program: tuple(each) for program, each in seconds.items()}, resources=resources)


def main() -> int:
    """Measure on a twin that is up; exit code 1 if ours takes too long beside the declaring one."""
    processes.heed_interrupts()
    try:
        noop = measure(config.load())
    except TwinError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for name in ("ours", "empty", "importing", "declaring"):
        print(f"{name:<10}{'  '.join(f'{seconds:.1f} s' for seconds in getattr(noop, name))}")
    print(noop)
    return 0 if noop.ratio(noop.declaring) <= MAX_RATIO else 1


if __name__ == "__main__":
    sys.exit(main())
