"""The page of a rehearsed takeover: each step with what was sent and failed meanwhile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

OLD, NEW = "old", "new"


@dataclass
class Step:
    """One step and what was sent meanwhile."""

    name: str
    began: float
    ended: float = 0.0
    note: str = ""
    sent: Mapping[str, int] = field(default_factory=dict)
    failed: Mapping[str, int] = field(default_factory=dict)


def page(
    steps: Sequence[Step],
    before: Mapping[str, str],
    after: Mapping[str, str],
    orders: tuple[int, Sequence[str]],
    kills: int,
    *,
    without_terraform: bool = False,
) -> str:
    """Return docs/takeover-rehearsal.md.

    Args:
        steps: in their order.
        before: name → identity of what must stay, before the takeover.
        after: the same at its end.
        kills: commands that were killed in the middle and run again.
        without_terraform: the old shop was made from a recorded state.
        orders: number of orders that were confirmed to users, and the keys of those that are not stored exactly once.
    """
    confirmed, lost = orders
    rows = [
        f"| {step.name} | {step.ended - step.began:.0f} | {_counts(step, OLD)} | {_counts(step, NEW)} | {step.note or '-'} |"
        for step in steps
    ]
    same = [f"| {name} | {value} | {after[name]} |" for name, value in before.items()]
    return "\n".join(
        [
            "# The takeover, rehearsed",
            "",
            "Written by `make takeover`. The old shop is legacy/, brought up on the twin by",
            "the real Helm and the calls of a recorded Terraform state; so handing over Terraform's state is left out."
            if without_terraform
            else "the real Terraform and the real Helm.",
            "The same load goes to the old load balancer until the last share has moved and the TTL is over, and to the new",
            "one from the first share on.",
            f"{kills} commands were killed in the middle (SIGKILL) and run again.",
            "",
            "| step | seconds | old: failed of sent | new: failed of sent | note |",
            "|---|---:|---:|---:|---|",
            *rows,
            "",
            f"Orders confirmed to users: {confirmed}; of these not stored exactly once: {len(lost)}.",
            "",
            "| | before | after |",
            "|---|---|---|",
            *same,
            "",
            "At the end Helm has no release in the namespace, and `pulumi up -s prod` changes nothing.",
            *([] if without_terraform else ["Terraform's state is empty."]),
            "Gone back and on again on the way: the shares of DNS, the old Deployment, Ingress and chart, and what of",
            "Terraform's state was given up. Not rehearsed: a bake of a day. Ten minutes stand for it, the shortest that",
            "`finish` takes.",
            "",
        ]
    )


def _counts(step: Step, system: str) -> str:
    return f"{step.failed[system]} of {step.sent[system]}" if step.sent.get(system) else "-"
