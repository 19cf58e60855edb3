"""Ask AWS and the cluster, by reads alone, what has changed since Terraform wrote its state.

Only what holds data is asked for: whether it is there, and the arguments that decide whether it would be replaced. The state may
be old; what AWS says counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from infra.clients.aws import error_code
from infra.commands.takeover import helm
from infra.names import SHOP_NAMESPACE

if TYPE_CHECKING:
    from infra.clients.aws import AwsClients
    from infra.clients.kubernetes import KubernetesClient
    from infra.commands.takeover.state import Owned

Attributes = dict[str, Any]
Reader = Callable[["AwsClients", "Owned"], Attributes | None]


@dataclass(frozen=True)
class AwsReading:
    """The state, corrected by what AWS answers."""

    owned: tuple[Owned, ...]
    """With AWS's values in place of the state's."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """Address → what AWS says of it that the state does not."""


def _read_database(clients: AwsClients, owned: Owned) -> Attributes | None:
    (description,) = clients.get("rds").describe_db_instances(DBInstanceIdentifier=owned.text("identifier"))[
        "DBInstances"
    ]
    names = {
        "engine": "Engine", "engine_version_actual": "EngineVersion", "instance_class": "DBInstanceClass",
        "allocated_storage": "AllocatedStorage", "storage_type": "StorageType", "storage_encrypted": "StorageEncrypted",
        "username": "MasterUsername", "multi_az": "MultiAZ", "backup_retention_period": "BackupRetentionPeriod",
        "deletion_protection": "DeletionProtection", "publicly_accessible": "PubliclyAccessible", "db_name": "DBName",
        "kms_key_id": "KmsKeyId", "iops": "Iops", "max_allocated_storage": "MaxAllocatedStorage",
        "iam_database_authentication_enabled": "IAMDatabaseAuthenticationEnabled",
    }  # fmt: skip
    endpoint = description.get("Endpoint") or {}
    return {**_picked(description, names), **_picked(endpoint, {"port": "Port"})}


def _read_repository(clients: AwsClients, owned: Owned) -> Attributes | None:
    (description,) = clients.get("ecr").describe_repositories(repositoryNames=[owned.text("name")])["repositories"]
    attributes = _picked(description, {"image_tag_mutability": "imageTagMutability"})
    encryption = description.get("encryptionConfiguration") or {}
    if encryption:
        attributes["encryption_configuration"] = [
            {"encryption_type": encryption.get("encryptionType"), "kms_key": encryption.get("kmsKey", "")}
        ]
    return attributes


def _read_cluster(clients: AwsClients, owned: Owned) -> Attributes | None:
    description = clients.get("eks").describe_cluster(name=owned.text("name"))["cluster"]
    return _picked(description, {"version": "version", "role_arn": "roleArn"})


def _read_vpc(clients: AwsClients, owned: Owned) -> Attributes | None:
    (description,) = clients.get("ec2").describe_vpcs(VpcIds=[owned.text("id")])["Vpcs"]
    return _picked(description, {"cidr_block": "CidrBlock"})


def _read_secret(clients: AwsClients, owned: Owned) -> Attributes | None:
    description = clients.get("secretsmanager").describe_secret(SecretId=owned.text("arn"))
    return None if description.get("DeletedDate") else _picked(description, {"name": "Name"})


READERS: Mapping[str, tuple[str, Reader]] = {
    "aws_db_instance": ("identifier", _read_database),
    "aws_ecr_repository": ("name", _read_repository),
    "aws_eks_cluster": ("name", _read_cluster),
    "aws_secretsmanager_secret": ("arn", _read_secret),
    "aws_vpc": ("id", _read_vpc),
}
"""Type → the attribute that AWS is asked by, and the reader; None of a reader is what is about to be deleted."""


def _picked(description: Mapping[str, Any], names: Mapping[str, str]) -> Attributes:
    return {name: description[key] for name, key in names.items() if key in description}


def read_aws(clients: AwsClients, owned: Sequence[Owned]) -> AwsReading:
    """Return what is owned with AWS's own values; what can't be read keeps the state's, and says so."""
    current: list[Owned] = []
    notes: dict[str, str] = {}
    for each in owned:
        argument, reader = READERS.get(each.type_name, ("", None))
        if reader is None or each.deposed or not each.comparable or not each.text(argument):
            current.append(each)
            continue
        try:
            attributes = reader(clients, each)
        except ClientError as error:
            attributes = {}
            if any(word in error_code(error) for word in ("NotFound", "NoSuch")):
                attributes = None
            else:
                notes[each.address] = f"AWS was asked and answered {error_code(error)}; the values are the state's"
        except BotoCoreError as error:
            attributes, notes[each.address] = {}, f"AWS was asked and can't be reached ({type(error).__name__})"
        except (ValueError, KeyError) as error:
            attributes, notes[each.address] = {}, f"AWS's answer can't be read ({type(error).__name__})"
        if attributes is None:
            notes[each.address] = "AWS has it no more, or is deleting it; the state is old"
            attributes = {}
        changed = [
            name for name, value in attributes.items() if name in each.attributes and each.attributes[name] != value
        ]
        if changed:
            notes[each.address] = f"AWS differs from the state in {', '.join(sorted(changed))}; AWS's values count here"
        current.append(replace(each, attributes={**each.attributes, **attributes}))
    return AwsReading(tuple(current), notes)


def read_helm(client: KubernetesClient) -> helm.HelmRelease:
    """Return what the deployed Helm releases of the shop's namespace own.

    Raises:
        ShopCatError: the cluster can't be asked, or a Secret holds no release.
    """
    secrets = client.get(f"/api/v1/namespaces/{SHOP_NAMESPACE}/secrets", labelSelector="owner=helm,status=deployed")
    return helm.parse_secrets((secrets or {}).get("items") or [], SHOP_NAMESPACE)
