"""The program's own client of the Kubernetes API: whom it trusts, and how it identifies itself."""

import json
import ssl
from typing import Any

import pytest

from infra.clients import kubernetes as kubernetes_client
from infra.errors import KubernetesUnreachableError


def test_an_authority_without_key_identifier_is_trusted_and_nothing_else_is_relaxed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make = ssl.create_default_context

    def strict(**given: Any) -> ssl.SSLContext:
        """Behave as from Python 3.13 on."""
        context = make(**given)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    monkeypatch.setattr(ssl, "create_default_context", strict)
    context = kubernetes_client._context(None)
    assert not context.verify_flags & ssl.VERIFY_X509_STRICT
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname


@pytest.mark.parametrize(
    ("command", "arguments", "says"),
    [
        ("no-such-command", [], "`no-such-command` can't be run .*; install no-such-command"),
        ("sh", ["-c", "echo one >&2; echo two >&2; exit 3"], "failed: one two$"),
        ("sleep", ["30"], "`sleep 30` did not end within 0.1 s"),
        ("echo", ["not JSON"], "printed no ExecCredential with a token"),
        ("echo", ["[]"], "printed no ExecCredential with a token"),
        ("echo", [json.dumps({"status": None})], "printed no ExecCredential with a token"),
    ],
    ids=["missing", "fails", "late", "no-json", "a-list", "no-token"],
)
def test_a_credential_command_that_gives_no_token_is_one_line(
    monkeypatch: pytest.MonkeyPatch, command: str, arguments: list[str], says: str
) -> None:
    if command == "sleep":
        monkeypatch.setattr(kubernetes_client, "_COMMAND_SECONDS", 0.1)
    with pytest.raises(KubernetesUnreachableError, match=says) as refused:
        kubernetes_client._executed({"command": command, "args": arguments})()
    assert "\n" not in str(refused.value)
