"""Parse the arguments of ``python -m twin``, run the command and print its outcome."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import sys
from pathlib import Path

from twin import config
from twin.errors import TwinError
from twin.host import processes


def _up(arguments: argparse.Namespace) -> None:
    from twin import parts
    from twin.scenarios import production

    twin = config.load(simulated=True if arguments.simulated else None)
    if twin.simulated:
        print(
            "no root (or SHOPCAT_TWIN_SIMULATED=1): two KWOK nodes on a real control plane. `pulumi up` runs whole;"
            " pods don't, so pages, orders, drains and failed requests can only be seen with root."
        )
    if arguments.platform_only:
        parts.up(twin)
        return
    # Nobody pulls the controller's image before the platform is half up.
    production.up(twin, parts.begin(twin, later=("controller image",)))


def _down(_: argparse.Namespace) -> None:
    from twin import parts

    twin = config.load()
    problems = parts.down(twin)
    if problems:
        listed = "\n  ".join(problems)
        raise TwinError(f"not everything could be taken down; run it again after mending:\n  {listed}")
    shutil.rmtree(twin.directory, ignore_errors=True)
    config.release_index(twin)
    print(f"twin {twin.name!r} is gone; its cache stays in {twin.cache}")


def _status(_: argparse.Namespace) -> None:
    from twin import parts

    lines = parts.status(config.load())
    for line in lines:
        print(f"{'ok  ' if line.ok else 'DOWN'}  {line.name:<28} {line.detail}")
    if not all(line.ok for line in lines):
        raise TwinError("a part is down; `make up` starts what is missing")


def _env(_: argparse.Namespace) -> None:
    from twin import pulumi

    for name, value in pulumi.environment(config.load()).items():
        if name == "PATH":
            # Prepend, so that evaluating it twice or in another shell does no harm.
            current = os.environ.get("PATH", "")
            print(f"export PATH={shlex.quote(value.removesuffix(os.pathsep + current))}:$PATH")
        else:
            print(f"export {name}={shlex.quote(value)}")


def _logs(arguments: argparse.Namespace) -> None:
    from twin.host import processes

    twin = config.load()
    if arguments.process is None:
        for log in sorted(twin.logs.glob("*.log")):
            print(f"{log.stem:<28} {log}")
        return
    log = twin.logs / f"{arguments.process}.log"
    if not log.exists():
        known = ", ".join(sorted(path.stem for path in twin.logs.glob("*.log")))
        raise TwinError(f"no log of {arguments.process!r}; there are: {known or 'none yet'}")
    print(processes.tail(log, arguments.lines))


def _build(_: argparse.Namespace) -> None:
    from twin.build import programs

    programs.everything(config.load())


def _image(arguments: argparse.Namespace) -> None:
    from twin.scenarios import production

    print(production.push_image(config.load(), Path(arguments.source), arguments.tag))


def _release(arguments: argparse.Namespace) -> None:
    from twin.scenarios import rehearsal

    rehearsal.release(config.load(), arguments.tag, arguments.message)


def main() -> int:
    """Parse, run, and turn a TwinError into one line."""
    processes.heed_interrupts()
    parser = argparse.ArgumentParser(prog="python -m twin", description="ShopCat on this machine.")
    commands = parser.add_subparsers(required=True)
    up = commands.add_parser("up", help="start everything, then production")
    up.add_argument("--platform-only", action="store_true", help="the twin itself, without running pulumi up")
    up.add_argument("--simulated", action="store_true", help="KWOK nodes even though this is root")
    up.set_defaults(run=_up)
    commands.add_parser("down", help="stop and remove everything this twin made").set_defaults(run=_down)
    commands.add_parser("status", help="each part, and whether it runs").set_defaults(run=_status)
    commands.add_parser("env", help="what to export to use pulumi and kubectl by hand").set_defaults(run=_env)
    logs = commands.add_parser("logs", help="the end of one process's log, or the list of logs")
    logs.add_argument("process", nargs="?")
    logs.add_argument("-n", "--lines", type=int, default=50)
    logs.set_defaults(run=_logs)
    commands.add_parser("build", help="build every program into the cache").set_defaults(run=_build)
    image = commands.add_parser("image", help="build the application's image and push it to ECR")
    image.add_argument("tag", help="an immutable tag such as v1.2.0")
    image.add_argument("--source", default=os.environ.get("APP_SRC", "twin/application"), help="APP_SRC")
    image.set_defaults(run=_image)
    release = commands.add_parser("release", help="release a pushed tag; without one: version, git tag, image, release")
    release.add_argument("tag", nargs="?")
    release.add_argument(
        "--message", default="feat: a release rehearsed", help="the merged commit's, which says what is next"
    )
    release.set_defaults(run=_release)
    arguments = parser.parse_args()
    try:
        arguments.run(arguments)
    except TwinError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; `make down` removes what was started, `make up` goes on", file=sys.stderr)
        return 130
    return 0
