"""The one comment below a pull request, as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pipeline.plan import OFF_LABEL
from pipeline.steps import BUDGET_SECONDS, Step

COMMENT_MARKER = "<!-- shopcat-preview -->"
_WORDS = {"create": "created", "update": "updated", "delete": "deleted", "replace": "replaced", "same": "unchanged"}


@dataclass(frozen=True)
class PreviewComment:
    """What became of a preview."""

    state: Literal["open", "failed", "closed"]
    stack: str
    sha: str = ""
    url: str = ""
    before: str = ""
    """The commit that ran there until now."""
    changes: Mapping[str, int] = field(default_factory=dict)
    steps: Sequence[Step] = ()
    message: str = ""
    run: str = ""
    compare: str = ""
    """URL of the comparison with the commit before."""


def changed(changes: Mapping[str, int]) -> str:
    """`1 updated, 19 unchanged`; what the engine counts as nothing is left out."""
    known = [(name, _WORDS[name]) for name in _WORDS if changes.get(name)]
    return ", ".join(f"{changes[name]} {word}" for name, word in known) or "nothing"


def render_comment(found: PreviewComment) -> str:
    """Markdown."""
    if found.state == "closed":
        why = f"; without the label `{OFF_LABEL}`, the next run opens it again" if found.message == "label" else ""
        return f"Preview `{found.stack}` is closed{why}. Nothing of it is left."
    lines = []
    if found.state == "open":
        lines.append(f"Preview of {found.sha}: **{found.url}**")
    else:
        lines += [
            f"The preview of {found.sha} failed:",
            "",
            "```",
            found.message.replace("```", "'''")[-3000:],
            "```",
        ]
        if found.before:
            lines.append(f"What ran before, {found.before}, may still answer at {found.url}." if found.url else "")
    if found.changes:
        lines += ["", f"Resources: {changed(found.changes)}."]
    if found.before and found.before != found.sha:
        lines.append(f"It was at {found.before}{f' ([what changed]({found.compare}))' if found.compare else ''}.")
    if found.steps:
        total = sum(step.seconds for step in found.steps)
        lines += ["", "| step | seconds |", "|---|---:|"]
        lines += [f"| {one.title}{' (failed)' if one.failed else ''} | {one.seconds:.0f} |" for one in found.steps]
        lines.append(f"| all together, of {BUDGET_SECONDS} | {total:.0f} |")
    if found.run:
        lines += ["", f"[Run]({found.run}). The label `{OFF_LABEL}` closes the preview."]
    return "\n".join(lines)
