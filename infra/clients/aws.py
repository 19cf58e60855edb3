"""The AWS clients of the program's own reads and writes, made once: region, endpoint, retries, timeouts."""

from __future__ import annotations

import threading
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
)
from botocore.exceptions import (
    ConnectionError as AwsConnectionError,
)

from infra.errors import AwsError

CONNECT_TIMEOUT_SECONDS = 5
READ_TIMEOUT_SECONDS = 20
ATTEMPTS = 5
THROTTLING = frozenset(
    {
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "TooManyRequestsException",
        "ProvisionedThroughputExceededException",
    }
)


class AwsClients:
    """Clients by service name, each made when first asked for; safe to use from several threads."""

    def __init__(self, region: str, endpoint_url: str | None = None) -> None:
        self.region = region
        self.endpoint_url = endpoint_url
        self._clients: dict[str, Any] = {}
        self._lock = threading.Lock()
        self.session: Any = None

    def get(self, service: str) -> Any:
        """Return the client of a service, such as `elbv2`.

        Raises:
            AwsError: the AWS profile that is set doesn't exist.
        """
        with self._lock:
            if self.session is None:
                try:
                    self.session = boto3.session.Session(region_name=self.region)
                except BotoCoreError as error:
                    raise explain(error, "AWS session", self.endpoint_url) from error
            if service not in self._clients:
                self._clients[service] = self.session.client(
                    service,
                    endpoint_url=self.endpoint_url,
                    config=Config(
                        connect_timeout=CONNECT_TIMEOUT_SECONDS,
                        read_timeout=READ_TIMEOUT_SECONDS,
                        retries={"mode": "standard", "max_attempts": ATTEMPTS},
                    ),
                )
            return self._clients[service]

    def identity(self) -> tuple[str, str]:
        """Return account and ARN that the credentials belong to.

        Raises:
            AwsError: no or wrong credentials, or AWS can't be reached.
        """
        try:
            caller = self.get("sts").get_caller_identity()
        except (BotoCoreError, ClientError) as error:
            raise explain(error, "AWS credentials", self.endpoint_url) from error
        return str(caller["Account"]), str(caller["Arn"])


def error_code(error: Exception) -> str:
    """Return AWS's code of an error (`ThrottlingException`); empty if it has none."""
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""


def is_throttled(error: Exception) -> bool:
    """Tell whether AWS asks to come back later."""
    return error_code(error) in THROTTLING


def is_transient(error: Exception) -> bool:
    """Tell whether the same call may succeed later: throttled, unreachable, or an error on AWS's side."""
    if is_throttled(error) or isinstance(error, AwsConnectionError | HTTPClientError):
        return True
    if isinstance(error, ClientError):
        return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)) >= 500
    return False


def explain(error: Exception, doing: str, endpoint_url: str | None = None) -> AwsError:
    """Return an AWS error as one message: what was being done, what came back, what mends it."""
    code = error_code(error)
    if isinstance(error, NoCredentialsError | PartialCredentialsError | ProfileNotFound):
        message = (
            f"no usable AWS credentials ({error}); set AWS_PROFILE, or AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or run where a role is attached"
        )
    elif isinstance(error, AwsConnectionError | HTTPClientError):
        message = f"{endpoint_url or 'AWS'} can't be reached ({error}); check the network and shopcat:awsEndpoint"
    elif code in ("ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "UnrecognizedClientException"):
        message = f"AWS refuses the credentials ({error}); sign in again"
    else:
        message = str(error)
    operation = error.operation_name if isinstance(error, ClientError) else ""
    return AwsError(f"{doing}: {message}", code, operation)
