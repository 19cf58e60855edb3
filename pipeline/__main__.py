"""Command line of the pipeline: ``python -m pipeline``.

By argparse, as the first steps of a job: it is in the standard library, and those run before anything is installed.
"""

from __future__ import annotations

import argparse
import os
import sys

from infra.errors import ShopCatError
from pipeline import image, plan, preview, reaper, release, version
from pipeline.environment import source_directory
from pipeline.errors import PipelineError
from pipeline.steps import Steps, steps_table


def _preview_up(arguments: argparse.Namespace) -> None:
    number, sha = arguments.number, arguments.sha
    if number is None or sha is None:
        pull_request = plan.read_event(os.environ)
        number, sha = number or pull_request.number, sha or pull_request.sha
    job = preview.PreviewJob(number, os.environ, Steps())
    print(preview.up(job, sha, pushed=arguments.pushed, fresh=arguments.fresh, wait=not arguments.no_wait))


def _preview_close(arguments: argparse.Namespace) -> None:
    number, reason = arguments.number, ""
    if number is None:
        at_event, now = plan.read_pull_request(os.environ)
        if plan.decide_now(at_event, now) != "close":
            print(f"pull request {now.number} has changed since this job began; the run of that change acts on it")
            return
        number, reason = now.number, "label" if now.open else ""
    job = preview.PreviewJob(number, os.environ, Steps())
    if not preview.close(job, reason=reason):
        print(f"pr-{number}: there was no preview")


def _reaper(_: argparse.Namespace) -> None:
    failures = reaper.reap(os.environ)
    if failures:
        raise PipelineError(f"{failures} previews could not be closed; the reasons are above. The next run tries again")


def _build(arguments: argparse.Namespace) -> None:
    context, steps = source_directory(os.environ), Steps()
    with steps.timed("build"):
        print(image.choose_builder(os.environ).build(context, "localhost/shopcat:checked", fresh=arguments.fresh))
    print(steps_table(steps.done))


def _run_release(arguments: argparse.Namespace) -> None:
    job = release.ReleaseJob(os.environ, Steps())
    try:
        if arguments.command == "release":
            release.release(job, arguments.tag, pushed=arguments.pushed)
        elif arguments.command == "rollback":
            release.rollback(job, arguments.live, arguments.former)
        elif arguments.command == "abort":
            release.abort(job, arguments.tag)
        else:
            release.resume(job)
    finally:
        print(f"\n{steps_table(job.steps.done, budget_seconds=None)}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipeline", description="What the workflows run.")
    commands = parser.add_subparsers(dest="command", required=True)
    previews = commands.add_parser("preview", help="a pull request's preview").add_subparsers(required=True)
    up = previews.add_parser("up", help="build, push, `pulumi up`, comment")
    up.add_argument("--number", type=_pull_request_number, help="pull request; without it the event's")
    up.add_argument("--sha", help="the commit, and the image's tag; without it the event's")
    up.add_argument("--pushed", action="store_true", help="its image is in shopcat-preview already")
    up.add_argument("--fresh", action="store_true", help="build without anything built before")
    up.add_argument("--no-wait", action="store_true", help="don't wait for the URL to answer")
    up.set_defaults(run=_preview_up)
    close = previews.add_parser("close", help="remove namespace, what AWS holds, state and images")
    close.add_argument("--number", type=_pull_request_number)
    close.set_defaults(run=_preview_close)
    reap = commands.add_parser("reaper", help="close previews that were missed")
    reap.set_defaults(run=_reaper)
    build = commands.add_parser("build", help="build the image, push nothing; print its configuration's digest")
    build.add_argument("--fresh", action="store_true", help="without anything built before")
    build.set_defaults(run=_build)
    new = commands.add_parser("release", help="build, push and release a version; abort it if that fails")
    new.add_argument("tag", type=_version_text)
    new.add_argument("--pushed", action="store_true", help="its image is in shopcat already")
    rollback = commands.add_parser("rollback", help="from the live version to a former one")
    rollback.add_argument("live", type=_version_text)
    rollback.add_argument("former", type=_version_text)
    abort = commands.add_parser("abort", help="take the open release back")
    abort.add_argument("tag", type=_version_text)
    resume = commands.add_parser("resume", help="go on with the open release")
    for command in (new, rollback, abort, resume):
        command.set_defaults(run=_run_release)
    return parser


def _pull_request_number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or text.startswith("0") or len(text) > 9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a pull request's number, such as 123")
    return int(text)


def _version_text(text: str) -> str:
    try:
        return version.check_version(text)
    except ShopCatError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def main() -> int:
    """Run a command; a refusal is one error without a traceback."""
    arguments = _parser().parse_args()
    try:
        arguments.run(arguments)
    except ShopCatError as error:
        print(f"error: {error}", file=sys.stderr)
        if os.environ.get("GITHUB_ACTIONS"):
            print(f"::error::{str(error).splitlines()[0]}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
