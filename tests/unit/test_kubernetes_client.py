"""The program's own client of the Kubernetes API: whom it trusts, and how it identifies itself."""

import ssl
from typing import Any

import pytest

from infra.clients import kubernetes as kubernetes_client


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
    context = kubernetes_client._tls_context(None)
    assert not context.verify_flags & ssl.VERIFY_X509_STRICT
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname
