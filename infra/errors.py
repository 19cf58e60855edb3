"""The one error a person sees: what was found, what was expected, what mends it."""

from __future__ import annotations


class Refused(Exception):  # noqa: N818 - it is a refusal, not a fault of the program
    """Something is not done, and the message says why and what to do. Entry points print it without a traceback."""
