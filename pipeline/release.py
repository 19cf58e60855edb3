"""Release main: build the merged commit's image, run `pulumi up -s prod`, and abort at once if that fails.

The image is built here, from the commit that is checked out and without any cached layer: a pull request can write anything
into `shopcat-preview` and into its own build cache, so neither is ever read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from infra.errors import LedgerUnavailableError, ShopCatError
from infra.names import LOAD_BALANCER
from infra.release.decide import up_command
from infra.release.ledger import Ledger
from infra.release.reads import read_load_balancer
from infra.release.record import AFTER_VARIABLE
from infra.release.state import Kind, LedgerState
from infra.settings import Settings, read_settings, stack_file
from pipeline import image, stack
from pipeline.environment import REPOSITORY, aws_clients, source_directory
from pipeline.errors import PipelineError
from pipeline.history import check_complete, check_contains_live, check_on_main
from pipeline.stack import POLICY_PACK, Stack
from pipeline.steps import Steps
from pipeline.version import check_version


@dataclass
class ReleaseJob:
    """A job on production's stack."""

    environment: Mapping[str, str]
    steps: Steps

    def stack(self, more: Mapping[str, str] | None = None) -> Stack:
        """Return production's stack.

        Args:
            more: variables that Pulumi gets besides.

        Raises:
            ShopCatError: no usable credentials.
        """
        backend = stack.production_backend(self.environment, aws_clients())
        return stack.production(replace(backend, more={**backend.more, **(more or {})}), self.environment)


def push(job: ReleaseJob, tag: str) -> str:
    """Build from the checked-out commit and push to the repository of releases; return the digest.

    Raises:
        ShopCatError: a step failed, or production's settings can't be used.
    """
    registry = image.RegistryClient(aws_clients(), release_repository(job.stack()))
    context, builder = source_directory(job.environment), image.choose_builder(job.environment)
    return image.ensure_pushed(registry, builder, context, check_version(tag), job.steps, fresh=True)


def release_repository(production_stack: Stack) -> str:
    """Return the repository that `shopcat:registry.repository` names.

    Raises:
        ShopCatError: production's settings can't be used.
    """
    config = stack_file.handed_over(stack_file.without_secrets(production_stack.document["config"]))
    ours = {key.partition(":")[2]: value for key, value in config.items() if key.startswith("shopcat:")}
    return read_settings(ours).registry.repository


def release(job: ReleaseJob, tag: str, *, pushed: bool = False) -> None:
    """Build and push the image unless it is ``pushed``, and release it.

    Raises:
        ShopCatError: it did not go live; the message says what was done about it.
    """
    # Before the build, so that a run that can't release ends at once; once more by the ledger, when it claims the slot.
    after = compare_with_live(job) if job.environment.get("GITHUB_ACTIONS") else ""
    if not pushed:
        push(job, tag)
    refuse_broken_rules(job, tag, {AFTER_VARIABLE: after})
    _up_or_abort(job, "tag", tag, tag, {AFTER_VARIABLE: after})


def refuse_broken_rules(job: ReleaseJob, tag: str, more: Mapping[str, str]) -> None:
    """Preview the release, judged by the policy pack; an update would be stopped by it in the middle.

    Raises:
        ShopCatError: a rule is broken, or the preview failed; nothing was touched.
    """
    production_stack = job.stack(more)
    with job.steps.timed("pulumi preview"):
        finished = production_stack.show("preview", "--policy-pack", POLICY_PACK, "-c", f"shopcat:tag={tag}")
    if finished.code != 0:
        reason = reason_not_to_abort(read_ledger(production_stack), tag)
        open_still = "it stays open; run this again, or the workflow `rollback` with `abort`"
        raise PipelineError(f"tag {tag} failed: {reason or open_still}")


def compare_with_live(job: ReleaseJob, history: Path = REPOSITORY) -> str:
    """Check that this commit is on main and contains what is live; return the live release's name, or `nothing`.

    Raises:
        ShopCatError: it isn't or doesn't, or that can't be known.
    """
    check_complete(history)
    check_on_main(history)
    record = read_ledger(job.stack()).live_record
    if record is None:
        return "nothing"
    check_contains_live(history, record.name, record.tag, record.provenance.commit)
    return record.name


def rollback(job: ReleaseJob, live: str, former: str) -> None:
    """Go from the live release back to a former one.

    Raises:
        ShopCatError: it did not go live; the message says what was done about it.
    """
    _up_or_abort(job, "rollback", f"{live}->{former}", former)


def abort(job: ReleaseJob, tag: str) -> None:
    """Take an open release back.

    Raises:
        ShopCatError: the update failed.
    """
    with job.steps.timed(f"abort {tag}"):
        if job.stack().show("up", "-c", f"shopcat:abort={tag}").code != 0:
            raise PipelineError(f"{tag} could not be aborted; Pulumi's output is above")


def resume(job: ReleaseJob) -> None:
    """Go on with the release that is open: a plain `pulumi up -s prod`.

    Raises:
        ShopCatError: it failed.
    """
    with job.steps.timed("pulumi up"):
        if job.stack().show("up").code != 0:
            raise PipelineError("`pulumi up -s prod` failed; its output is above")


def _up_or_abort(job: ReleaseJob, setting: str, value: str, tag: str, more: Mapping[str, str] | None = None) -> None:
    """Run `pulumi up` with one setting; if it fails and its release is open, abort that.

    Raises:
        ShopCatError: it did not go live; the message says what was done about it.
    """
    production_stack = job.stack(more)
    with job.steps.timed(f"pulumi up, {setting} {value}"):
        finished = production_stack.show("up", "-c", f"shopcat:{setting}={value}")
    if finished.code == 0:
        return
    state = read_ledger(production_stack)
    reason = reason_not_to_abort(state, tag, "release" if setting == "tag" else "rollback")
    if not reason and setting == "rollback":
        reason = _reason_to_stay(state)
    if reason:
        raise PipelineError(f"{setting} {value} failed: {reason}")
    try:
        abort(job, tag)
    except ShopCatError as error:
        raise PipelineError(
            f"{setting} {value} failed, and {error}: the traffic is where the last lines say; abort it by hand: "
            f"{up_command('abort', tag)}"
        ) from error
    live = f"{state.live.name} is live as before" if state.live else "nothing is live"
    raise PipelineError(f"{setting} {value} failed (see above) and was aborted: {live}")


def reason_not_to_abort(state: LedgerState, tag: str, kind: Kind = "release") -> str:
    """Return why a failed update leaves nothing to abort; empty if its release, or its rollback, is open.

    A release and a rollback may be of the same tag: only what this job asked for is its own to abort.
    """
    opened, live = state.open, state.live
    if opened and opened.kind == kind and tag in (opened.tag, opened.name):
        return ""
    if opened:
        return f"refused while {opened.kind} {opened.name} is open; resume or abort that by the workflow `rollback`"
    if live and tag in (live.tag, live.name) and (kind == "release" or _went_live(state) > 1):
        return f"{live.name} is live, but the update did not end; run the workflow `rollback` with `resume`"
    return "refused before anything was touched; the reason is in Pulumi's output above"


def _reason_to_stay(state: LedgerState) -> str:
    """Return why a rollback that failed is not aborted: users are on its target, by `make undo` or by the update that failed.

    Raises:
        ShopCatError: the load balancer can't be read.
    """
    opened = state.open
    if opened is None or not read_load_balancer(aws_clients(), LOAD_BALANCER).carries(opened.colour):
        return ""
    return f"users are on {opened.name} and stay there; run the workflow `rollback` with `resume`"


def _went_live(state: LedgerState) -> int:
    """Return how often the live release went live: more than once after a rollback to it."""
    release = state.releases.get(state.live.name) if state.live else None
    return sum(each.outcome == "live" for each in release.attempts) if release else 0


def read_ledger(production_stack: Stack) -> LedgerState:
    """Return what the ledger holds now.

    Raises:
        LedgerUnavailableError: it can't be read.
    """
    settings = stack_file.handed_over(production_stack.document["config"])
    table = str(settings.get("shopcat:ledgerTable", Settings.model_fields["ledger_table"].default))
    try:
        return Ledger(aws_clients().get("dynamodb"), table).read()
    except LedgerUnavailableError as error:
        raise LedgerUnavailableError(
            f"{error}; so it is unknown whether the release is open: {up_command('abort', '<tag>')} takes it back"
        ) from error
