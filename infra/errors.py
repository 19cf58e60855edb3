"""The one error a person sees: what was found, what was expected, what mends it."""

from __future__ import annotations


class Refused(Exception):
    """Something is not done, and the message says why and what to do. Entry points print it without a traceback."""
