"""RDS types. Force-new fields follow terraform-provider-aws internal/service/rds."""

from __future__ import annotations

from typing import Any

from twin.plugins.aws.kind import Aws, Kind, Tagging, existing, pick, wait
from twin.plugins.common import Properties, ProviderError


class _Rds(Kind):
    tagged = True
    tagging = Tagging("rds", "add_tags_to_resource", "remove_tags_from_resource", "ResourceName", by_arn=True)


class SubnetGroup(_Rds):
    """aws_db_subnet_group; the id is the name."""

    token = "aws:rds/subnetGroup:SubnetGroup"
    inputs = frozenset({"name", "description", "subnetIds"})
    replaces = frozenset({"name"})
    name_property = "name"
    name_limit = 255
    defaults = {"description": "Managed by Pulumi"}

    def create(self, aws: Aws, inputs: Properties) -> str:
        aws("rds").create_db_subnet_group(
            DBSubnetGroupName=inputs["name"],
            DBSubnetGroupDescription=inputs["description"],
            SubnetIds=inputs["subnetIds"],
        )
        return str(inputs["name"])

    def read(self, aws: Aws, identifier: str, state: Properties) -> Properties | None:
        del state
        group = aws("rds").describe_db_subnet_groups(DBSubnetGroupName=identifier)["DBSubnetGroups"][0]
        return {"arn": group["DBSubnetGroupArn"], "name": identifier, "vpcId": group.get("VpcId", "")}

    def update(self, aws: Aws, identifier: str, state: Properties, new: Properties, changed: set[str]) -> None:
        del state
        if changed:
            aws("rds").modify_db_subnet_group(
                DBSubnetGroupName=identifier,
                DBSubnetGroupDescription=new["description"],
                SubnetIds=new["subnetIds"],
            )

    def delete(self, aws: Aws, identifier: str, state: Properties) -> None:
        del state
        aws("rds").delete_db_subnet_group(DBSubnetGroupName=identifier)


class ParameterGroup(_Rds):
    """aws_db_parameter_group; the id is the name."""

    token = "aws:rds/parameterGroup:ParameterGroup"
    inputs = frozenset({"name", "family", "description", "parameters", "skipDestroy"})
    replaces = frozenset({"name", "family", "description"})
    name_property = "name"
    name_limit = 255
    defaults = {"description": "Managed by Pulumi"}

    def create(self, aws: Aws, inputs: Properties) -> str:
        aws("rds").create_db_parameter_group(
            DBParameterGroupName=inputs["name"],
            DBParameterGroupFamily=inputs["family"],
            Description=inputs["description"],
        )
        self.update(aws, inputs["name"], {}, inputs, {"parameters"})
        return str(inputs["name"])

    def read(self, aws: Aws, identifier: str, state: Properties) -> Properties | None:
        del state
        # moto answers an unknown name with an empty list, where RDS has an error.
        groups = aws("rds").describe_db_parameter_groups(DBParameterGroupName=identifier)["DBParameterGroups"]
        return {"arn": groups[0]["DBParameterGroupArn"], "name": identifier} if groups else None

    def update(self, aws: Aws, identifier: str, state: Properties, new: Properties, changed: set[str]) -> None:
        parameters = new.get("parameters") or []
        gone = {each["name"] for each in state.get("parameters") or []} - {each["name"] for each in parameters}
        if gone:
            raise ProviderError(
                f"twin: taking a parameter out of its group is not implemented: {', '.join(sorted(gone))}"
            )
        if "parameters" in changed and parameters:
            wanted = [
                {
                    "ParameterName": parameter["name"],
                    "ParameterValue": str(parameter["value"]),
                    "ApplyMethod": parameter.get("applyMethod", "immediate"),
                }
                for parameter in parameters
            ]
            aws("rds").modify_db_parameter_group(DBParameterGroupName=identifier, Parameters=wanted)

    def delete(self, aws: Aws, identifier: str, state: Properties) -> None:
        del state
        aws("rds").delete_db_parameter_group(DBParameterGroupName=identifier)


_RESTORED_WITH = frozenset(
    {
        "AutoMinorVersionUpgrade", "CopyTagsToSnapshot", "DBInstanceClass", "DBParameterGroupName", "DeletionProtection",
        "EnableIAMDatabaseAuthentication", "Iops", "MaxAllocatedStorage", "MultiAZ", "PubliclyAccessible", "StorageType",
        "VpcSecurityGroupIds",
    }
)  # fmt: skip
"""Properties that upstream hands to RestoreDBInstanceToPointInTime (internal/service/rds/instance.go, resourceInstanceCreate)."""


class Instance(_Rds):
    """aws_db_instance; the id is the resource id, as upstream since v5."""

    token = "aws:rds/instance:Instance"
    inputs = frozenset(
        {
            "identifier", "engine", "engineVersion", "instanceClass", "allocatedStorage", "maxAllocatedStorage",
            "storageType", "storageEncrypted", "kmsKeyId", "dbName", "username", "manageMasterUserPassword",
            "masterUserSecretKmsKeyId", "dbSubnetGroupName", "parameterGroupName", "vpcSecurityGroupIds",
            "publiclyAccessible", "multiAz", "backupRetentionPeriod", "backupWindow", "maintenanceWindow",
            "deletionProtection", "skipFinalSnapshot", "finalSnapshotIdentifier", "copyTagsToSnapshot",
            "autoMinorVersionUpgrade", "applyImmediately", "performanceInsightsEnabled", "caCertIdentifier",
            "enabledCloudwatchLogsExports", "deleteAutomatedBackups", "port", "allowMajorVersionUpgrade",
            "iamDatabaseAuthenticationEnabled", "iops", "restoreToPointInTime",
        }
    )  # fmt: skip
    replaces = frozenset(
        {"identifier", "engine", "storageEncrypted", "kmsKeyId", "dbName", "username", "restoreToPointInTime"}
    )
    computed = frozenset(
        {
            "allocatedStorage", "backupRetentionPeriod", "backupWindow", "caCertIdentifier", "dbName", "dbSubnetGroupName",
            "engine", "engineVersion", "identifier", "iops", "kmsKeyId", "maintenanceWindow", "masterUserSecretKmsKeyId",
            "multiAz", "parameterGroupName", "port", "storageType", "username", "vpcSecurityGroupIds",
        }
    )  # fmt: skip
    name_property = "identifier"
    name_limit = 63

    _FIELDS = {
        "EngineVersion": "engineVersion",
        "DBInstanceClass": "instanceClass",
        "AllocatedStorage": "allocatedStorage",
        "MaxAllocatedStorage": "maxAllocatedStorage",
        "StorageType": "storageType",
        "ManageMasterUserPassword": "manageMasterUserPassword",
        "MasterUserSecretKmsKeyId": "masterUserSecretKmsKeyId",
        "DBParameterGroupName": "parameterGroupName",
        "VpcSecurityGroupIds": "vpcSecurityGroupIds",
        "PubliclyAccessible": "publiclyAccessible",
        "MultiAZ": "multiAz",
        "BackupRetentionPeriod": "backupRetentionPeriod",
        "PreferredBackupWindow": "backupWindow",
        "PreferredMaintenanceWindow": "maintenanceWindow",
        "DeletionProtection": "deletionProtection",
        "CopyTagsToSnapshot": "copyTagsToSnapshot",
        "AutoMinorVersionUpgrade": "autoMinorVersionUpgrade",
        "CACertificateIdentifier": "caCertIdentifier",
        "Iops": "iops",
        "EnableIAMDatabaseAuthentication": "iamDatabaseAuthenticationEnabled",
    }

    def _description(self, aws: Aws, name: str) -> dict[str, Any] | None:
        return existing(lambda: aws("rds").describe_db_instances(DBInstanceIdentifier=name)["DBInstances"][0])

    def _settled(self, aws: Aws, name: str) -> bool:
        status = (self._description(aws, name) or {}).get("DBInstanceStatus")
        if status == "failed":
            raise ProviderError(f"RDS instance {name} failed to start")
        return status == "available"

    def create(self, aws: Aws, inputs: Properties) -> str:
        if inputs.get("restoreToPointInTime"):
            return self._restore(aws, inputs)
        arguments = pick(
            inputs,
            DBInstanceIdentifier="identifier",
            Engine="engine",
            StorageEncrypted="storageEncrypted",
            KmsKeyId="kmsKeyId",
            DBName="dbName",
            MasterUsername="username",
            Port="port",
            DBSubnetGroupName="dbSubnetGroupName",
            EnableCloudwatchLogsExports="enabledCloudwatchLogsExports",
            EnablePerformanceInsights="performanceInsightsEnabled",
            **self._FIELDS,
        )
        answer = aws("rds").create_db_instance(**arguments)
        name = str(inputs["identifier"])
        wait(lambda: self._settled(aws, name), f"RDS instance {name}", 2400)
        return str(answer["DBInstance"].get("DbiResourceId") or name)

    def _restore(self, aws: Aws, inputs: Properties) -> str:
        """Restore it from another's backups, then say what RestoreDBInstanceToPointInTime does not take, as upstream does."""
        source, name = inputs["restoreToPointInTime"], str(inputs["identifier"])
        later = {"ManageMasterUserPassword", "MasterUserSecretKmsKeyId"}
        given = {argument: field for argument, field in self._FIELDS.items() if argument in _RESTORED_WITH}
        answer = aws("rds").restore_db_instance_to_point_in_time(
            TargetDBInstanceIdentifier=name,
            **pick(
                source,
                SourceDBInstanceIdentifier="sourceDbInstanceIdentifier",
                RestoreTime="restoreTime",
                UseLatestRestorableTime="useLatestRestorableTime",
            ),
            **pick(
                inputs, DBSubnetGroupName="dbSubnetGroupName", Port="port", Engine="engine", DBName="dbName", **given
            ),
        )
        wait(lambda: self._settled(aws, name), f"RDS instance {name}", 2400)
        rest = pick(inputs, **{argument: field for argument, field in self._FIELDS.items() if argument in later})
        if rest:
            aws("rds").modify_db_instance(DBInstanceIdentifier=name, ApplyImmediately=True, **rest)
            wait(lambda: self._settled(aws, name), f"RDS instance {name}", 2400)
        return str(answer["DBInstance"].get("DbiResourceId") or name)

    def read(self, aws: Aws, identifier: str, state: Properties) -> Properties | None:
        del identifier
        instance = self._description(aws, state["identifier"])
        if instance is None:
            return None
        endpoint = instance["Endpoint"]
        live = {
            "arn": instance["DBInstanceArn"],
            "address": endpoint["Address"],
            "port": endpoint["Port"],
            "endpoint": f"{endpoint['Address']}:{endpoint['Port']}",
            "status": instance["DBInstanceStatus"],
            "resourceId": instance.get("DbiResourceId", ""),
        }
        secret = instance.get("MasterUserSecret")
        if secret:
            live["masterUserSecrets"] = [
                {"secretArn": secret["SecretArn"], "kmsKeyId": secret.get("KmsKeyId", ""), "secretStatus": "active"}
            ]
        if "backupRetentionPeriod" in state:
            live["backupRetentionPeriod"] = instance.get("BackupRetentionPeriod", state["backupRetentionPeriod"])
        return live

    def update(self, aws: Aws, identifier: str, state: Properties, new: Properties, changed: set[str]) -> None:
        del identifier
        local = {"skipFinalSnapshot", "finalSnapshotIdentifier", "applyImmediately", "deleteAutomatedBackups"}
        known = {argument: name for argument, name in self._FIELDS.items() if name in changed}
        rest = changed - set(known.values()) - local
        super().update(aws, "", state, new, rest)
        if "maxAllocatedStorage" in known.values() and not new.get("maxAllocatedStorage"):
            new = {**new, "maxAllocatedStorage": new["allocatedStorage"]}  # as upstream: RDS's way to say "never"
        if "iamDatabaseAuthenticationEnabled" in changed:
            new = {"iamDatabaseAuthenticationEnabled": False, **new}
        if known:
            aws("rds").modify_db_instance(
                DBInstanceIdentifier=state["identifier"],
                ApplyImmediately=bool(new.get("applyImmediately")),
                **pick(new, **known),
            )
            wait(lambda: self._settled(aws, state["identifier"]), f"RDS instance {state['identifier']}", 2400)

    def delete(self, aws: Aws, identifier: str, state: Properties) -> None:
        del identifier
        arguments: dict[str, Any] = {"SkipFinalSnapshot": bool(state.get("skipFinalSnapshot"))}
        arguments |= pick(state, DeleteAutomatedBackups="deleteAutomatedBackups")
        if not arguments["SkipFinalSnapshot"]:
            if not state.get("finalSnapshotIdentifier"):
                raise ProviderError(
                    "RDS instance: finalSnapshotIdentifier is required when a final snapshot is required"
                )
            arguments["FinalDBSnapshotIdentifier"] = state["finalSnapshotIdentifier"]
        name = state["identifier"]
        aws("rds").delete_db_instance(DBInstanceIdentifier=name, **arguments)
        wait(lambda: self._description(aws, name) is None, f"deletion of RDS instance {name}", 2400)
