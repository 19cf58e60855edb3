"""The stand-in of the pulumi-aws plugin: the types below, done for real through boto3; anything else is refused by name."""

from __future__ import annotations

import hashlib
import inspect
import json
import random
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    EndpointConnectionError,
    NoCredentialsError,
    PartialCredentialsError,
)

from twin.plugins.aws import data, domains, ec2, ecr, eks, elbv2, identity, imports, monitoring, rds, vpc
from twin.plugins.aws.kind import Aws, Kind, gone
from twin.plugins.common import (
    DEFAULTS,
    UNKNOWN,
    Difference,
    Properties,
    Provider,
    ProviderError,
    differing,
    prune,
)


def _kinds(modules: Iterable[Any]) -> dict[str, Kind]:
    kinds = {}
    for module in modules:
        for _, member in inspect.getmembers(module, inspect.isclass):
            if issubclass(member, Kind) and "token" in member.__dict__:
                kinds[member.token] = member()
    return kinds


KINDS: dict[str, Kind] = _kinds((vpc, ec2, identity, ecr, eks, rds, data, elbv2, domains, monitoring))
_REGIONAL = "region"  # pulumi-aws 7 puts a region on every resource; only the provider's own is taken


def physical_name(logical: str, limit: int, seed: bytes) -> str:
    """Pulumi's auto-naming: the logical name and seven hex digits, cut to the type's limit."""
    digits = hashlib.sha256(seed).hexdigest() if seed else f"{random.getrandbits(64):016x}"
    return f"{logical[: limit - 8]}-{digits[:7]}"


class AwsProvider(Provider):
    """pulumi-aws as far as the twin needs it."""

    name = "aws"
    version = version("pulumi-aws")

    def __init__(self) -> None:
        self._aws: Aws | None = None

    @property
    def aws(self) -> Aws:
        """Clients; the engine configures the provider first."""
        if self._aws is None:
            raise ProviderError("twin: the aws plugin was used before it was configured")
        return self._aws

    def configure(self, settings: Properties) -> None:
        known = {
            "region", "accessKey", "secretKey", "token", "profile", "endpoints", "defaultTags", "allowedAccountIds",
            "skipCredentialsValidation", "skipMetadataApiCheck", "skipRegionValidation", "skipRequestingAccountId",
            "s3UsePathStyle", "maxRetries", "retryMode", "version", "assumeRoles",
        }  # fmt: skip
        unknown = sorted(set(settings) - known)
        if unknown:
            raise ProviderError(f"twin: aws provider setting {', '.join(unknown)} is not implemented by the stand-in")
        self._aws = Aws(settings)

    def _kind(self, type_name: str) -> Kind:
        kind = KINDS.get(type_name)
        if kind is None:
            raise ProviderError(f"twin: {type_name} is not implemented by the stand-in of the aws plugin")
        return kind

    def check(self, type_name: str, urn: str, old: Properties, new: Properties, seed: bytes) -> Properties:
        kind = self._kind(type_name)
        allowed = {*kind.inputs, *({"tags"} if kind.tagged else set()), _REGIONAL}
        # With `ignore_changes` the engine hands back what this has answered before.
        answered = {"tagsAll"} if new.get("tagsAll") == old.get("tagsAll") else set()
        unknown = sorted(set(new) - allowed - answered - {DEFAULTS})
        if unknown:
            raise ProviderError(
                f"twin: {type_name} property {', '.join(unknown)} is not implemented by the stand-in of the aws plugin"
            )
        region = new.get(_REGIONAL)
        if region not in (None, UNKNOWN, self.aws.region):
            raise ProviderError(f"twin: {type_name} in region {region}: a second region is not implemented")
        inputs: Properties = {**kind.defaults, **{key: new[key] for key in new if key not in (DEFAULTS, _REGIONAL)}}
        if kind.name_property and not inputs.get(kind.name_property):
            logical = urn.rpartition("::")[2]
            before = None if DEFAULTS in old else old.get(kind.name_property)
            inputs[kind.name_property] = before or physical_name(logical, kind.name_limit, seed)
        if kind.tagged:
            inputs["tagsAll"] = {**self.aws.default_tags, **(inputs.get("tags") or {})}
        if DEFAULTS in old:
            inputs[DEFAULTS] = []
        return inputs

    def difference(
        self, type_name: str, identifier: str, old_inputs: Properties, outputs: Properties, new: Properties
    ) -> Difference:
        del identifier, outputs
        kind = self._kind(type_name)
        changed = differing(old_inputs, kind.with_computed(old_inputs, new))
        replaces = [path for path in changed if path.split(".")[0].split("[")[0] in kind.replaces]
        # Names given by hand can't exist twice: upstream deletes first then.
        first = bool(replaces) and (
            not kind.create_before_delete
            or (kind.name_property is not None and old_inputs.get(kind.name_property) == new.get(kind.name_property))
        )
        return Difference(changed, replaces, delete_before_replace=first)

    def create(self, type_name: str, urn: str, inputs: Properties, timeout: float) -> tuple[str, Properties]:
        del urn, timeout
        kind = self._kind(type_name)
        inputs = {key: value for key, value in inputs.items() if key != DEFAULTS}
        identifier = kind.create(self.aws, inputs)
        live = kind.live(self.aws, identifier, inputs)
        if live is None:
            raise ProviderError(f"{type_name} {identifier} was made and is gone")
        outputs = {**inputs, **live}
        if kind.tagged and inputs.get("tagsAll"):
            kind.tag(self.aws, identifier, outputs, inputs["tagsAll"], [])
        return identifier, outputs

    def read(
        self, type_name: str, identifier: str, inputs: Properties, outputs: Properties
    ) -> tuple[str, Properties, Properties] | None:
        kind = self._kind(type_name)
        if not outputs:
            imported = imports.inputs(self.aws, type_name, identifier)
            if imported is None:
                return None
            inputs = outputs = imported
            identifier = imports.state_id(self.aws, type_name, identifier)
        live = kind.live(self.aws, identifier, outputs)
        if live is None:
            return None
        seen = {key: prune(live[key], value) if key in live else value for key, value in inputs.items()}
        return identifier, seen, {**outputs, **live}

    def update(
        self,
        type_name: str,
        identifier: str,
        old_inputs: Properties,
        outputs: Properties,
        new: Properties,
        timeout: float,
    ) -> Properties:
        del timeout
        kind = self._kind(type_name)
        top = {path.split(".")[0].split("[")[0] for path in differing(old_inputs, kind.with_computed(old_inputs, new))}
        kind.update(self.aws, identifier, outputs, new, top - {"tags", "tagsAll"})
        before, after = old_inputs.get("tagsAll") or {}, new.get("tagsAll") or {}
        if kind.tagged and before != after:
            kind.tag(self.aws, identifier, outputs, after, sorted(set(before) - set(after)))
        live = kind.live(self.aws, identifier, {**outputs, **new})
        if live is None:
            raise ProviderError(f"{type_name} {identifier} is gone; `pulumi refresh` takes note of it")
        return {**outputs, **new, **live}

    def delete(self, type_name: str, identifier: str, inputs: Properties, outputs: Properties, timeout: float) -> None:
        del inputs, timeout
        try:
            self._kind(type_name).delete(self.aws, identifier, outputs)
        except ClientError as error:
            if not gone(error):
                raise

    def invoke(self, token: str, arguments: Properties) -> Properties:
        functions = {
            "aws:index/getCallerIdentity:getCallerIdentity": self._caller,
            "aws:index/getPartition:getPartition": self._partition,
            "aws:index/getRegion:getRegion": self._region,
            "aws:route53/getZone:getZone": self._zone,
            "aws:ssm/getParameter:getParameter": self._parameter,
            "aws:iam/getPolicyDocument:getPolicyDocument": self._document,
        }
        if token not in functions:
            return super().invoke(token, arguments)
        return functions[token](arguments)

    def _caller(self, _: Properties) -> Properties:
        identity = self.aws("sts").get_caller_identity()
        account = identity["Account"]
        return {"accountId": account, "arn": identity["Arn"], "userId": identity["UserId"], "id": account}

    def _partition(self, _: Properties) -> Properties:
        answer = {"partition": "aws", "dnsSuffix": "amazonaws.com", "reverseDnsPrefix": "com.amazonaws", "id": "aws"}
        return dict(answer)

    def _region(self, _: Properties) -> Properties:
        region = self.aws.region
        return {"name": region, "region": region, "id": region, "endpoint": f"ec2.{region}.amazonaws.com"}

    def _zone(self, arguments: Properties) -> Properties:
        wanted = arguments.get("zoneId") or arguments.get("name", "").rstrip(".")
        for page in self.aws("route53").get_paginator("list_hosted_zones").paginate():
            for zone in page["HostedZones"]:
                identifier, name = zone["Id"].rpartition("/")[2], zone["Name"].rstrip(".")
                if wanted in (identifier, name):
                    return {"zoneId": identifier, "name": name, "id": identifier, "nameServers": []}
        raise ProviderError(f"no Route 53 zone {wanted!r} in this account")

    def _parameter(self, arguments: Properties) -> Properties:
        try:
            parameter = self.aws("ssm").get_parameter(Name=arguments["name"], WithDecryption=True)["Parameter"]
        except ClientError as error:
            if gone(error):
                raise ProviderError(f"no SSM parameter {arguments['name']!r} in this account and region") from error
            raise
        return {
            "name": parameter["Name"], "value": parameter["Value"], "type": parameter["Type"], "arn": parameter["ARN"],
            "version": parameter["Version"], "id": parameter["Name"],
        }  # fmt: skip

    def _document(self, arguments: Properties) -> Properties:
        statements = []
        for declared in arguments.get("statements") or []:
            statement: dict[str, Any] = {"Effect": declared.get("effect", "Allow")}
            for key, name in (("sid", "Sid"), ("actions", "Action"), ("resources", "Resource")):
                if declared.get(key):
                    statement[name] = declared[key]
            for principal in declared.get("principals") or []:
                statement.setdefault("Principal", {})[principal["type"]] = principal["identifiers"]
            for condition in declared.get("conditions") or []:
                statement.setdefault("Condition", {}).setdefault(condition["test"], {})[condition["variable"]] = (
                    condition["values"]
                )
            statements.append(statement)
        text = json.dumps({"Version": "2012-10-17", "Statement": statements}, indent=2)
        return {
            "json": text,
            "minifiedJson": json.dumps(json.loads(text)),
            "id": hashlib.sha256(text.encode()).hexdigest(),
        }

    def explain(self, error: Exception) -> str | None:
        if isinstance(error, ClientError):
            detail = error.response["Error"]
            return f"AWS {error.operation_name}: {detail['Code']}: {detail['Message']}"
        if isinstance(error, NoCredentialsError | PartialCredentialsError):
            return "no AWS credentials: set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        if isinstance(error, EndpointConnectionError):
            return f"AWS can't be reached: {error}; see the provider's `endpoints` and `region`"
        if isinstance(error, BotoCoreError):
            return f"AWS: {error}"
        return None
