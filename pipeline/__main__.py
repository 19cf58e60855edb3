"""``python -m pipeline``: what the workflows call."""

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
        found = plan.read_event(os.environ)
        number, sha = number or found.number, sha or found.sha
    job = preview.PreviewJob(number, os.environ, Steps())
    print(preview.up(job, sha, pushed=arguments.pushed, fresh=arguments.fresh, wait=not arguments.no_wait))


def _preview_close(arguments: argparse.Namespace) -> None:
    number, reason = arguments.number, ""
    if number is None:
        then, found = plan.current(os.environ)
        if plan.decide_now(then, found) != "close":
            print(f"pull request {found.number} has changed since this job began; its own run does what is to be done")
            return
        number, reason = found.number, "label" if found.open else ""
    job = preview.PreviewJob(number, os.environ, Steps())
    if not preview.close(job, reason=reason):
        print("there was none")


def _reaper(arguments: argparse.Namespace) -> None:
    failures = reaper.reap(os.environ, arguments.days)
    if failures:
        raise PipelineError(f"{failures} previews could not be closed; why is above")


def _build(arguments: argparse.Namespace) -> None:
    context, steps = source_directory(os.environ), Steps()
    with steps.timed("build"):
        print(image.builder(os.environ).build(context, "localhost/shopcat:checked", fresh=arguments.fresh))
    print(steps_table(steps.done))


def _run_release(arguments: argparse.Namespace) -> None:
    job = release.ReleaseJob(os.environ, Steps())
    try:
        if arguments.what == "release":
            release.release(job, arguments.tag, pushed=arguments.pushed)
        elif arguments.what == "rollback":
            release.rollback(job, arguments.live, arguments.former)
        elif arguments.what == "abort":
            release.abort(job, arguments.tag)
        else:
            release.resume(job)
    finally:
        print(f"\n{steps_table(job.steps.done, budget_seconds=None)}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipeline", description=__doc__)
    commands = parser.add_subparsers(dest="what", required=True)
    previews = commands.add_parser("preview", help="a pull request's preview").add_subparsers(required=True)
    up = previews.add_parser("up", help="build, push, `pulumi up`, comment")
    up.add_argument("--number", type=_pull_request_number, help="pull request; without it the event's")
    up.add_argument("--sha", help="the commit, and the image's tag; without it the event's")
    up.add_argument("--pushed", action="store_true", help="its image is in shopcat-preview already")
    up.add_argument("--fresh", action="store_true", help="build without anything built before")
    up.add_argument("--no-wait", action="store_true", help="don't wait for the URL to answer")
    up.set_defaults(run=_preview_up)
    closed = previews.add_parser("close", help="remove namespace, what AWS holds, state and images")
    closed.add_argument("--number", type=_pull_request_number)
    closed.set_defaults(run=_preview_close)
    swept = commands.add_parser("reaper", help="close previews that were missed")
    swept.add_argument("--days", type=int, default=reaper.DAYS, help="close what had no push for so long")
    swept.set_defaults(run=_reaper)
    built = commands.add_parser("build", help="build the image, push nothing; its configuration's digest")
    built.add_argument("--fresh", action="store_true", help="without anything built before")
    built.set_defaults(run=_build)
    released = commands.add_parser("release", help="build, push and release a version; aborted if it fails")
    released.add_argument("tag", type=_version_text)
    released.add_argument("--pushed", action="store_true", help="its image is in shopcat already")
    back = commands.add_parser("rollback", help="from the live version to a former one")
    back.add_argument("live", type=_version_text)
    back.add_argument("former", type=_version_text)
    taken_back = commands.add_parser("abort", help="take the open release back")
    taken_back.add_argument("tag", type=_version_text)
    resumed = commands.add_parser("resume", help="go on with the open release")
    for one in (released, back, taken_back, resumed):
        one.set_defaults(run=_run_release)
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
