"""The twin's one error type."""


class TwinError(Exception):
    """Something a person can mend. The message says what was found, what was expected and what mends it."""
