"""ACM and Route 53 types. Force-new fields follow terraform-provider-aws internal/service/{acm,route53}."""

from __future__ import annotations

from typing import Any

from twin.plugins.aws.kind import Aws, Kind, pick, tag_list, wait
from twin.plugins.common import Properties, ProviderError


class Certificate(Kind):
    """aws_acm_certificate with DNS validation; the id is the ARN."""

    token = "aws:acm/certificate:Certificate"
    inputs = frozenset({"domainName", "subjectAlternativeNames", "validationMethod", "keyAlgorithm"})
    replaces = inputs
    tagged = True

    def create(self, aws: Aws, inputs: Properties) -> str:
        arguments = pick(inputs, DomainName="domainName", ValidationMethod="validationMethod")
        arguments |= pick(inputs, SubjectAlternativeNames="subjectAlternativeNames", KeyAlgorithm="keyAlgorithm")
        arn = str(aws("acm").request_certificate(**arguments)["CertificateArn"])
        wait(lambda: bool(self._options(aws, arn)), f"validation options of {arn}", 60)
        return arn

    def _options(self, aws: Aws, arn: str) -> list[dict[str, Any]]:
        certificate = aws("acm").describe_certificate(CertificateArn=arn)["Certificate"]
        options = certificate.get("DomainValidationOptions") or []
        return options if all("ResourceRecord" in option for option in options) else []

    def read(self, aws: Aws, identifier: str, state: Properties) -> Properties | None:
        del state
        options = self._options(aws, identifier)
        listed = [
            {
                "domainName": option["DomainName"],
                "resourceRecordName": option["ResourceRecord"]["Name"],
                "resourceRecordType": option["ResourceRecord"]["Type"],
                "resourceRecordValue": option["ResourceRecord"]["Value"],
            }
            for option in options
        ]
        return {"arn": identifier, "domainValidationOptions": listed}

    def delete(self, aws: Aws, identifier: str, state: Properties) -> None:
        del state
        aws("acm").delete_certificate(CertificateArn=identifier)

    def tag(self, aws: Aws, identifier: str, state: Properties, add: dict[str, str], remove: list[str]) -> None:
        del state
        if add:
            aws("acm").add_tags_to_certificate(CertificateArn=identifier, Tags=tag_list(add))
        if remove:
            tags = [{"Key": key} for key in remove]
            aws("acm").remove_tags_from_certificate(CertificateArn=identifier, Tags=tags)


class CertificateValidation(Kind):
    """aws_acm_certificate_validation: nothing in AWS, it waits until the certificate is issued."""

    token = "aws:acm/certificateValidation:CertificateValidation"
    inputs = frozenset({"certificateArn", "validationRecordFqdns"})
    replaces = inputs

    def create(self, aws: Aws, inputs: Properties) -> str:
        arn = inputs["certificateArn"]

        def issued() -> bool:
            status = aws("acm").describe_certificate(CertificateArn=arn)["Certificate"]["Status"]
            if status in ("FAILED", "VALIDATION_TIMED_OUT"):
                raise ProviderError(f"certificate {arn} is {status}")
            return bool(status == "ISSUED")

        wait(issued, f"validation of certificate {arn}", 4500)
        return f"validated-{arn.rpartition('/')[2]}"

    def read(self, aws: Aws, identifier: str, state: Properties) -> Properties | None:
        del identifier
        aws("acm").describe_certificate(CertificateArn=state["certificateArn"])
        return {}

    def delete(self, aws: Aws, identifier: str, state: Properties) -> None:
        """Do nothing: AWS has no such resource."""


class Record(Kind):
    """aws_route53_record, plain and alias; the id is ``zone_name_type``."""

    token = "aws:route53/record:Record"
    inputs = frozenset({"zoneId", "name", "type", "ttl", "records", "aliases", "allowOverwrite"})
    replaces = frozenset({"zoneId", "name", "type"})
    create_before_delete = False

    def _set(self, state: Properties) -> dict[str, Any]:
        record_set: dict[str, Any] = {"Name": state["name"], "Type": state["type"]}
        if state.get("aliases"):
            alias = state["aliases"][0]
            record_set["AliasTarget"] = {
                "HostedZoneId": alias["zoneId"],
                "DNSName": alias["name"],
                "EvaluateTargetHealth": bool(alias.get("evaluateTargetHealth")),
            }
        else:
            record_set["TTL"] = int(state.get("ttl", 300))
            record_set["ResourceRecords"] = [{"Value": value} for value in state.get("records", [])]
        return record_set

    def _change(self, aws: Aws, action: str, state: Properties) -> None:
        batch = {"Changes": [{"Action": action, "ResourceRecordSet": self._set(state)}]}
        aws("route53").change_resource_record_sets(HostedZoneId=state["zoneId"], ChangeBatch=batch)

    def create(self, aws: Aws, inputs: Properties) -> str:
        self._change(aws, "UPSERT" if inputs.get("allowOverwrite") else "CREATE", inputs)
        return f"{inputs['zoneId']}_{inputs['name'].rstrip('.')}_{inputs['type']}"

    def read(self, aws: Aws, identifier: str, state: Properties) -> Properties | None:
        del identifier
        pages = aws("route53").get_paginator("list_resource_record_sets").paginate(HostedZoneId=state["zoneId"])
        record_sets = [record_set for page in pages for record_set in page["ResourceRecordSets"]]
        name = state["name"].rstrip(".")
        for record_set in record_sets:
            if record_set["Name"].rstrip(".").replace("\\052", "*") == name and record_set["Type"] == state["type"]:
                return {"fqdn": name}
        return None

    def update(self, aws: Aws, identifier: str, state: Properties, new: Properties, changed: set[str]) -> None:
        del identifier, state
        if changed:
            self._change(aws, "UPSERT", new)

    def delete(self, aws: Aws, identifier: str, state: Properties) -> None:
        del identifier
        self._change(aws, "DELETE", state)


class Zone(Kind):
    """aws_route53_zone, public; the id is the zone's."""

    token = "aws:route53/zone:Zone"
    inputs = frozenset({"name", "comment", "forceDestroy"})
    replaces = frozenset({"name"})
    tagged = True

    def create(self, aws: Aws, inputs: Properties) -> str:
        import uuid

        answer = aws("route53").create_hosted_zone(Name=inputs["name"], CallerReference=str(uuid.uuid4()))
        return str(answer["HostedZone"]["Id"].rpartition("/")[2])

    def read(self, aws: Aws, identifier: str, state: Properties) -> Properties | None:
        del state
        answer = aws("route53").get_hosted_zone(Id=identifier)
        servers = answer.get("DelegationSet", {}).get("NameServers", [])
        return {"zoneId": identifier, "nameServers": servers, "name": answer["HostedZone"]["Name"].rstrip(".")}

    def delete(self, aws: Aws, identifier: str, state: Properties) -> None:
        del state
        aws("route53").delete_hosted_zone(Id=identifier)

    def tag(self, aws: Aws, identifier: str, state: Properties, add: dict[str, str], remove: list[str]) -> None:
        del state
        if add or remove:
            aws("route53").change_tags_for_resource(
                ResourceType="hostedzone", ResourceId=identifier, AddTags=tag_list(add), RemoveTagKeys=remove
            )
