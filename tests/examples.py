"""How many examples the long generated tests try."""

import os

QUICK = bool(os.environ.get("SHOPCAT_QUICK"))
"""Set by `make unit`, which a pull request waits for; `make test` tries them all."""


def examples(number: int) -> int:
    """All of them, or a tenth where somebody waits."""
    return max(number // 10, 10) if QUICK else number
