"""Errors of the pipeline, beside those of `infra.errors`."""

from __future__ import annotations

from infra.errors import ShopCatError


class PipelineError(ShopCatError):
    """A job can't go on; the message says what mends it."""


class CommandError(PipelineError):
    """A program failed; the message has the end of its output."""


class StackLockedError(PipelineError):
    """An update that may be running holds the stack."""


class GithubError(PipelineError):
    """GitHub did not answer, or not as documented."""


class GithubNotFoundError(GithubError):
    """GitHub answered 404: the object does not exist, or this token may not see it."""


class GithubDeniedError(GithubError):
    """GitHub answered 401 or 403: this token may not do it."""
