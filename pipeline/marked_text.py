"""Replace what stands between two marks of a document, which a command writes and nobody else."""

from __future__ import annotations


def fill(text: str, begin: str, end: str, content: str, *, name: str, error: type[Exception]) -> str:
    """Return a document with other content between its marks.

    Args:
        text: of the document.
        begin: mark before the content.
        end: mark after it.
        content: without line breaks at its ends, which are added.
        name: of the document, for the message.
        error: what is raised if a mark is gone.
    """
    head, first, rest = text.partition(begin)
    _, last, tail = rest.partition(end)
    if not first or not last:
        raise error(f"{name} has lost its marks {begin} and {end}; restore it from git")
    return f"{head}{begin}\n{content}\n{end}{tail}"
