"""The errors that a person sees: what happened, what was expected, what mends it.

Entry points print a `ShopCatError` without a traceback; every other exception is a fault of the program. The classes say
who has to act on what, so that code can tell them apart without reading a message or a cause.
"""

from __future__ import annotations


class ShopCatError(Exception):
    """Something is not done; the message says why and what to do."""


class SettingsError(ShopCatError):
    """A setting, a stack file or a tag can't be used."""


class PreflightError(ShopCatError):
    """AWS or the cluster holds something that does not fit what this update declares; nothing was touched."""


class LedgerError(ShopCatError):
    """The ledger does not allow what is wanted, or holds something that can't be used."""


class LedgerUnavailableError(LedgerError):
    """The ledger can't be read or written, or contradicts itself.

    Args:
        code: AWS's error code, empty without an answer of AWS.
    """

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class LedgerConflictError(LedgerError):
    """Another update wrote the ledger since this one read it."""


class ReleaseError(ShopCatError):
    """A step of a release is refused or failed; the next `pulumi up` goes on from there."""


class TrafficError(ReleaseError):
    """The load balancer could not be read or written as needed; the message says where the weights are."""


class AwsError(ShopCatError):
    """A call of AWS failed.

    Args:
        code: AWS's error code (`AccessDeniedException`); empty if AWS did not answer.
        operation: the call (`DescribeTable`); empty if AWS did not answer.
    """

    def __init__(self, message: str, code: str = "", operation: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.operation = operation


class UnreachableError(ShopCatError):
    """A server other than AWS and Kubernetes did not answer."""


class KubernetesError(ShopCatError):
    """A kubeconfig can't be used, there are no credentials to sign in with, or the API server refused a request."""


class KubernetesUnreachableError(KubernetesError):
    """The API server can't be reached, or refuses these credentials."""
