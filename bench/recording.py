"""``python -m bench.recording TAG``: recorder of `kubectl rollout status` of a real release on the twin, with its picture.

There is no single `deployment/shopcat` in production: a release goes into the colour that carries nothing, so the
Deployment that rolls out is `shopcat-blue` or `shopcat-green`, and the other one goes on serving. The recording is kept as
an asciinema file (docs/rollout.cast) beside the picture made from it (docs/rollout.png).
"""

from __future__ import annotations

import argparse
import json
import os
import pty
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from bench import run
from bench.tools import execute
from twin import config, pulumi
from twin.config import Twin
from twin.errors import TwinError
from twin.paths import REPOSITORY
from twin.scenarios import production

COLUMNS, ROWS = 110, 24
_LONGEST_SECONDS = 600.0

Event = tuple[float, str]


def record(argv: Sequence[str], environment: dict[str, str]) -> list[Event]:
    """Run a command on a terminal of its own; return what it printed and when, in seconds since its start.

    Raises:
        TwinError: it failed or did not end within ten minutes.
    """
    terminal, inside = pty.openpty()
    started = time.monotonic()
    process = subprocess.Popen(argv, env=environment, stdin=subprocess.DEVNULL, stdout=inside, stderr=inside)
    os.close(inside)
    events: list[Event] = [(0.0, f"$ {' '.join(argv)}\r\n")]
    while True:
        ready, _, _ = select.select([terminal], [], [], 1.0)
        if ready:
            try:
                text = os.read(terminal, 4096).decode(errors="replace")
            except OSError:  # the program has ended and closed its side
                break
            events.append((time.monotonic() - started, text))
        if time.monotonic() - started > _LONGEST_SECONDS:
            process.kill()
            raise TwinError(f"{' '.join(argv)} did not end within {_LONGEST_SECONDS:.0f} s")
    os.close(terminal)
    if process.wait(10) != 0:
        raise TwinError(f"{' '.join(argv)} failed:\n{''.join(text for _, text in events)}")
    return events


def write_cast(events: Sequence[Event], path: Path) -> None:
    """Write an asciinema file, version 2."""
    header = {"version": 2, "width": COLUMNS, "height": ROWS}
    lines = [json.dumps(header), *(json.dumps([round(at, 3), "o", text]) for at, text in events)]
    path.write_text("\n".join(lines) + "\n")


def read_cast(path: Path) -> list[Event]:
    """Read the events of an asciinema file."""
    _, *lines = path.read_text().splitlines()
    return [(float(at), str(text)) for at, _, text in map(json.loads, lines)]


def screen(events: Sequence[Event]) -> list[str]:
    """Return each printed line with the second at which it came."""
    lines = []
    for at, text in events:
        lines += [f"{at:6.1f} s  {line}" for line in text.replace("\r", "").split("\n") if line]
    return lines


def draw(events: Sequence[Event], path: Path) -> None:
    """Draw the recording as a picture."""
    lines = screen(events)
    figure = Figure(figsize=(11, 0.6 + 0.22 * len(lines)), facecolor="#1d1f21")
    for place, line in enumerate(lines):
        figure.text(
            0.02, 1 - (place + 1) / (len(lines) + 1), line, family="monospace", fontsize=9, color="#d0d0d0", va="center"
        )
    figure.savefig(path, dpi=110)


def idle_colour(twin: Twin) -> str:
    """Return the colour that the next release takes."""
    return "green" if production.outputs(twin).get("liveColour") == "blue" else "blue"


def _wanted_replicas(twin: Twin, colour: str) -> int:
    command = ["kubectl", "-n", "shopcat", "get", "deployment", f"shopcat-{colour}", "-o", "jsonpath={.spec.replicas}"]
    return int(execute(twin, command) or 0)


def record_release(twin: Twin, tag: str) -> list[Event]:
    """Release the tag while the rollout of the colour that it takes is recorded.

    Raises:
        TwinError: the release failed.
    """
    production.push_image(twin, REPOSITORY / "twin" / "application", tag)
    colour = idle_colour(twin)
    environment = {**os.environ, **pulumi.environment(twin)}
    with pulumi.throw_away_settings(twin) as settings, tempfile.TemporaryDirectory() as directory:
        log = Path(directory) / "up.log"
        release = run.start_up(twin, settings, log, {"tag": tag})
        deadline = time.monotonic() + 180
        while not _wanted_replicas(twin, colour):
            if release.poll() is not None or time.monotonic() > deadline:
                raise TwinError(f"the release never came to {colour}:\n{log.read_text()[-2000:]}")
            time.sleep(0.2)
        command = ["kubectl", "-n", "shopcat", "rollout", "status", f"deployment/shopcat-{colour}", "--watch"]
        events = record(command, environment)
        if release.wait(900) != 0:
            raise TwinError(f"the release failed:\n{log.read_text()[-2000:]}")
    return events


def main() -> int:
    """Record on a running twin."""
    parser = argparse.ArgumentParser(prog="python -m bench.recording", description=__doc__)
    parser.add_argument("tag", help="a tag that was never released, such as v1.1.0")
    tag = parser.parse_args().tag
    try:
        events = record_release(config.load(), tag)
    except TwinError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    write_cast(events, REPOSITORY / "docs" / "rollout.cast")
    draw(events, REPOSITORY / "docs" / "rollout.png")
    print("docs/rollout.cast, docs/rollout.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
