"""Check that a release which serves, or will serve, fits the target groups as today's settings declare them.

A record freezes how long its pods wait (preStop, startup, progressDeadline). Deregistration delay and health check belong to
the target groups, which every update writes from the settings, before anything of a release and for both colours. So settings
that are right for the next release may be wrong for the pods that serve meanwhile. The rules are those of infra/timeouts.py,
with the record's numbers in place of today's:

* propagation + longestRequest <= deregistrationDelay. A record does not hold its propagation; its preStop less today's
  controllerLag is the most it can be. Nor does it hold its longestRequest; today's is taken, below the record's appDrain.
* startup + healthInterval * healthThreshold + requeue < progressDeadline, with the record's startup and progressDeadline.

The idle timeout is compared with longestRequest and appKeepAlive alone, which are the settings' own.
"""

from __future__ import annotations

from dataclasses import asdict, replace

from infra.errors import PreflightError
from infra.release.decide import Abort, Decision, Rollback, Wanted
from infra.release.record import DrainNumbers
from infra.release.state import LedgerState
from infra.timeouts import DrainBudget


def drain_misfits(drain: DrainNumbers, budget: DrainBudget) -> list[str]:
    """List the inequalities that break between a record's numbers and today's target groups, each with what mends it.

    Args:
        drain: of a release that serves or will serve.
        budget: what the settings make of the target groups.
    """
    propagation = max(0, drain.pre_stop_seconds - budget.controller_lag_seconds)
    longest_request = max(0, min(budget.longest_request_seconds, drain.app_drain_seconds - 1))
    served = replace(budget, **asdict(drain), propagation_seconds=propagation, longest_request_seconds=longest_request)
    remedies = {
        "deregistrationDelay": f"its preStop of {drain.pre_stop_seconds} s allows for a propagation of {propagation} s; set "
        f"shopcat:drain.deregistrationDelay to at least {propagation + longest_request}",
        "progressDeadline": f"its startup is {drain.startup_seconds} s; set shopcat:drain.healthInterval and healthThreshold "
        f"so that their product and requeue ({budget.requeue_seconds} s) are less than "
        f"{drain.progress_deadline_seconds - drain.startup_seconds} s together",
    }
    return [
        f"{rule.describe_violation()}: {remedies[rule.right]}"
        for rule in served.inequalities()
        if rule.right in remedies and not rule.holds
    ]


def refuse_drain_misfit(wanted: Wanted, decision: Decision, state: LedgerState, budget: DrainBudget) -> list[str]:
    """Refuse settings under which the live release, or the one that an update goes on with, would lose requests.

    A plain update is refused as a release is: it changes the live colour's target group just the same, and pods that leave
    later (a drained node, an eviction) would pay for it. An abort is never asked. A rollback isn't refused either, since
    what it leaves is worse; its notes say what does not fit.

    Returns:
        Notes for a person; none unless a rollback is wanted or open.

    Raises:
        PreflightError: an inequality is broken; each is named with both values and the setting.
    """
    if isinstance(wanted, Abort) or decision.action == "abort":
        return []
    records = {record.name: record for record in (state.live_record, decision.record) if record is not None}
    lines = [
        f"{name}: {line}" for name, record in records.items() for line in drain_misfits(record.template.drain, budget)
    ]
    if not lines:
        return []
    listed = "\n".join(f"  - {line}" for line in lines)
    if isinstance(wanted, Rollback) or (decision.open and decision.open.kind == "rollback"):
        return [f"the rollback goes on, although its drain numbers don't fit today's settings:\n{listed}"]
    raise PreflightError(
        f"drain numbers of a release that serves don't fit today's settings, so nothing was touched:\n{listed}\n"
        "Keep that until a release with today's drain numbers is live"
    )
