"""Text of the one comment that a pull request gets."""

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
    """Result of a job on a preview."""

    state: Literal["open", "failed", "closed"]
    stack: str
    sha: str = ""
    url: str = ""
    former_sha: str = ""
    """Commit that the preview ran before this job."""
    changes: Mapping[str, int] = field(default_factory=dict)
    steps: Sequence[Step] = ()
    message: str = ""
    run: str = ""
    compare: str = ""
    """URL of the comparison with that commit."""


def describe_changes(changes: Mapping[str, int]) -> str:
    """Return counts in words, without those that are 0: `1 updated, 19 unchanged`."""
    return ", ".join(f"{changes[name]} {word}" for name, word in _WORDS.items() if changes.get(name)) or "nothing"


def render_comment(preview: PreviewComment) -> str:
    """Return the comment's Markdown."""
    if preview.state == "closed":
        reopens = (
            f"; without the label `{OFF_LABEL}`, the next run opens it again" if preview.message == "label" else ""
        )
        return f"Preview `{preview.stack}` is closed{reopens}. Nothing of it is left."
    lines = []
    if preview.state == "open":
        lines.append(f"Preview of {preview.sha}: **{preview.url}**")
    else:
        lines += [
            f"The preview of {preview.sha} failed:",
            "",
            "```",
            preview.message.replace("```", "'''")[-3000:],
            "```",
        ]
        if preview.former_sha:
            lines.append(
                f"What ran before, {preview.former_sha}, may still answer at {preview.url}." if preview.url else ""
            )
    if preview.changes:
        lines += ["", f"Resources: {describe_changes(preview.changes)}."]
    if preview.former_sha and preview.former_sha != preview.sha:
        lines.append(
            f"It was at {preview.former_sha}{f' ([what changed]({preview.compare}))' if preview.compare else ''}."
        )
    if preview.steps:
        total = sum(step.seconds for step in preview.steps)
        lines += ["", "| step | seconds |", "|---|---:|"]
        lines += [
            f"| {step.title}{' (failed)' if step.failed else ''} | {step.seconds:.0f} |" for step in preview.steps
        ]
        lines.append(f"| all together, of {BUDGET_SECONDS} | {total:.0f} |")
    if preview.run:
        lines += ["", f"[Run]({preview.run}). The label `{OFF_LABEL}` closes the preview."]
    return "\n".join(lines)
