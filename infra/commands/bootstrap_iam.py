"""The part of `make bootstrap` in IAM: the permissions boundaries of all roles, and GitHub's OIDC provider."""

from __future__ import annotations

import json
from typing import Any

from botocore.exceptions import ClientError

from infra.access import boundary
from infra.access.iam_policies import AUDIENCE, ISSUER
from infra.clients.aws import AwsClients, error_code
from infra.commands.kept_resources import KeptProperty, KeptResource
from infra.commands.policy_statements import normalised

POLICY_VERSIONS = 5
"""Most versions of one managed policy (docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html)."""


def role_boundary(clients: AwsClients, account: str, name: str, wanted: str) -> KeptResource:
    """Return a managed policy that bounds the stack's roles (infra/access/boundary.py); its default version is exactly this."""
    iam, arn = clients.get("iam"), boundary.boundary_arn(account, name)

    def exists() -> bool:
        try:
            iam.get_policy(PolicyArn=arn)
        except ClientError as error:
            if error_code(error) == "NoSuchEntity":
                return False
            raise
        return True

    def is_current() -> bool:
        version = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
        document: Any = iam.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]["Document"]
        if isinstance(document, str):
            document = json.loads(document)
        return _normalised_statements(document) == _normalised_statements(json.loads(wanted))

    def replace() -> None:
        versions = iam.list_policy_versions(PolicyArn=arn)["Versions"]
        others = sorted(
            (version for version in versions if not version["IsDefaultVersion"]),
            key=lambda version: version["CreateDate"],
        )
        if len(versions) >= POLICY_VERSIONS:
            iam.delete_policy_version(PolicyArn=arn, VersionId=others[0]["VersionId"])
        iam.create_policy_version(PolicyArn=arn, PolicyDocument=wanted, SetAsDefault=True)

    return KeptResource(
        f"IAM policy {name} (permissions boundary)",
        (
            KeptProperty(
                "made",
                exists,
                lambda: iam.create_policy(
                    PolicyName=name,
                    PolicyDocument=wanted,
                    Description="The most that roles of ShopCat may ever do",
                ),
            ),
            KeptProperty("what roles may do at most", is_current, replace),
        ),
    )


def _normalised_statements(document: dict[str, Any]) -> list[dict[str, Any]]:
    statements = document.get("Statement", [])
    return list(map(normalised, statements if isinstance(statements, list) else [statements]))


def issuer(clients: AwsClients, account: str) -> KeptResource:
    """Return GitHub's OIDC provider; its thumbprints are not compared, since IAM doesn't either.

    IAM checks GitHub's certificate by its own trusted authorities; thumbprints count only where one of those did not
    sign it (docs.aws.amazon.com/IAM/latest/APIReference/API_UpdateOpenIDConnectProviderThumbprint.html).
    """
    iam, arn = clients.get("iam"), f"arn:aws:iam::{account}:oidc-provider/{ISSUER}"

    def exists() -> bool:
        providers = iam.list_open_id_connect_providers()["OpenIDConnectProviderList"]
        return any(provider["Arn"] == arn for provider in providers)

    return KeptResource(
        f"OIDC provider {ISSUER}",
        (
            KeptProperty(
                "made",
                exists,
                lambda: iam.create_open_id_connect_provider(Url=f"https://{ISSUER}", ClientIDList=[AUDIENCE]),
            ),
            KeptProperty(
                f"audience {AUDIENCE}",
                lambda: (
                    AUDIENCE in iam.get_open_id_connect_provider(OpenIDConnectProviderArn=arn).get("ClientIDList", [])
                ),
                lambda: iam.add_client_id_to_open_id_connect_provider(OpenIDConnectProviderArn=arn, ClientID=AUDIENCE),
            ),
        ),
    )
