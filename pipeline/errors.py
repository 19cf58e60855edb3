"""The errors of what the workflows call, beside those of `infra.errors`."""

from __future__ import annotations

from infra.errors import ShopCatError


class PipelineError(ShopCatError):
    """A job can't go on; the message says what mends it."""


class CommandError(PipelineError):
    """A program failed; the message has the end of its output."""


class StackLockedError(PipelineError):
    """An update that may be running holds the stack."""


class GithubError(PipelineError):
    """GitHub did not answer, or not with what is documented."""


class GithubNotFoundError(GithubError):
    """GitHub has no such thing, or hides it from this token."""


class GithubDeniedError(GithubError):
    """This token may not do it."""
