"""The messages in the runbook's table are those of the code, word for word between its ellipses."""

import ast
import re

import pytest

from twin.paths import REPOSITORY

OTHERS_WORDS = {
    "is not authorized to perform:": "AWS",
    "shopcat-release": "AWS",
    "The 'virtualenv' option in PulumiPolicy.yaml is set to": "Pulumi's language host",
    "policy/shopcat-boundary does not exist or is not attachable": "AWS",
    "'shopcat-operator-secrets'": "the API server, of a policy of ours",
    "denied request": "the API server",
    "UpdateNodegroupVersion": "AWS",
    "ResourceInUseException": "AWS",
    "previously-imported resources that still specify an ID may not be replaced": "the engine",
    "failed to refresh cached credentials": "AWS's SDK for Go",
    "password authentication failed": "PostgreSQL",
    "not permitted to log in": "PostgreSQL",
    "permission denied for": "PostgreSQL",
}
"""Fragment → whose message it is part of."""


def messages() -> list[str]:
    """Read the messages: texts in backticks in the first column of the two tables."""
    page = (REPOSITORY / "docs" / "runbook.md").read_text()
    tables = [text.split("\n\n")[0] for text in page.split("| message | what it means | what mends it |\n")[1:]]
    assert len(tables) == 2
    rows = [line.split(" | ")[0].removeprefix("| ") for table in tables for line in table.splitlines()[1:]]
    return [message for row in rows for message in re.findall(r"`([^`]+)`", row)]


def pieces() -> str:
    """Every literal piece of a string in the program and the pipeline, apart from each other."""
    found = []
    for folder in ("infra", "pipeline"):
        for path in (REPOSITORY / folder).rglob("*.py"):
            tree = ast.parse(path.read_text())
            found += [
                node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
            ]
    return "\0".join(found)


PIECES = pieces()


@pytest.mark.parametrize("message", messages())
def test_a_message_of_the_runbook_is_one_of_the_code(message: str) -> None:
    for fragment in (one.strip(" .:;,") for one in message.split("…")):
        words = [word for word in (fragment, f"{fragment}:") if word in OTHERS_WORDS]
        if len(fragment) < 4 or words or fragment in OTHERS_WORDS:
            continue
        assert fragment in PIECES, f"{fragment!r} of {message!r}"


def test_the_table_is_read() -> None:
    assert len(messages()) > 40
