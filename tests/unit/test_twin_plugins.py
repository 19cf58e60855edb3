"""Pure parts of the stand-in plugins, and that they refuse by name what they don't implement."""

from pathlib import Path
from typing import Any

import pytest
from moto import mock_aws

from twin.plugins import common
from twin.plugins.aws import conformance
from twin.plugins.aws.kind import Aws
from twin.plugins.aws.provider import KINDS, AwsProvider, physical_name
from twin.plugins.common import ProviderError
from twin.plugins.eks.components import refuse


def test_values_survive_the_protocol() -> None:
    values = {"a": 1, "b": [True, {"c": "x", "d": 1.5}], "e": {}}
    assert common.decode(common.encode(values)) == values


def test_differences_name_the_innermost_path() -> None:
    assert common.differing({"a": {"b": [1, 2]}}, {"a": {"b": [1, 3]}}) == ["a.b[1]"]
    assert common.differing({"a": [1]}, {"a": [1, 2]}) == ["a"]
    assert common.differing({"a": 1}, {"a": 1, "c": 2}) == ["c"]
    assert common.differing({"a": 1}, {"a": 1}) == []


def test_a_refresh_sees_drift_and_nothing_else() -> None:
    assert common.prune({"a": 2, "computed": 1}, {"a": 1}) == {"a": 2}
    assert common.prune({}, {"flag": False, "gone": "x"}) == {"flag": False}


def test_previews_keep_nested_computed_values() -> None:
    assert common.merged({"a": {"id": "sg-1", "x": 1}}, {"a": {"x": 2}}) == {"a": {"id": "sg-1", "x": 2}}


def test_physical_names_are_stable_and_fit() -> None:
    name = physical_name("a" * 60, 32, b"seed")
    assert name == physical_name("a" * 60, 32, b"seed")
    assert len(name) == 32


def configured() -> AwsProvider:
    provider = AwsProvider()
    provider.configure({"region": "eu-central-1", "accessKey": "x", "secretKey": "x"})
    return provider


def test_aws_refuses_by_name() -> None:
    provider = configured()
    urn = "urn:pulumi:prod::shopcat::aws:x::thing"
    with pytest.raises(ProviderError, match="aws:s3/bucket:Bucket is not implemented"):
        provider.check("aws:s3/bucket:Bucket", urn, {}, {}, b"")
    with pytest.raises(ProviderError, match="property instanceTenancy"):
        provider.check("aws:ec2/vpc:Vpc", urn, {}, {"cidrBlock": "10.0.0.0/16", "instanceTenancy": "x"}, b"")
    with pytest.raises(ProviderError, match="function aws:s3/getBucket:getBucket"):
        provider.invoke("aws:s3/getBucket:getBucket", {})
    with pytest.raises(ProviderError, match="assumeRole"):
        provider.configure({"assumeRole": {}})


def test_aws_default_tags_and_replacement() -> None:
    provider = AwsProvider()
    provider.configure({"region": "eu-central-1", "defaultTags": '{"tags": {"a": "1"}}'})
    inputs = provider.check(
        "aws:ec2/vpc:Vpc", "u::v::aws::n", {}, {"cidrBlock": "10.0.0.0/16", "tags": {"b": "2"}}, b""
    )
    assert inputs["tagsAll"] == {"a": "1", "b": "2"}
    # As with `ignore_changes`: what was answered before is checked once more.
    assert provider.check("aws:ec2/vpc:Vpc", "u::v::aws::n", inputs, inputs, b"") == inputs
    with pytest.raises(ProviderError, match="property tagsAll"):
        provider.check("aws:ec2/vpc:Vpc", "u::v::aws::n", inputs, {**inputs, "tagsAll": {"a": "2"}}, b"")
    found = provider.difference("aws:ec2/vpc:Vpc", "id", inputs, {}, {**inputs, "cidrBlock": "10.1.0.0/16"})
    assert found.replaces == ["cidrBlock"]


def test_every_aws_type_names_known_fields_alone() -> None:
    assert len(KINDS) > 35
    for kind in KINDS.values():
        assert kind.replaces <= kind.inputs, kind.token
        assert set(kind.defaults) <= kind.inputs, kind.token


def test_eks_component_refuses_what_it_does_not_build() -> None:
    good = {
        "authenticationMode": "API",
        "skipDefaultNodeGroup": True,
        "skipDefaultSecurityGroups": True,
        "createInstanceRole": False,
        "createOidcProvider": False,
        "useDefaultVpcCni": True,
    }
    assert refuse({**good, "upgradePolicy": {"supportType": "STANDARD"}}) is None
    assert "fargate" in (refuse({**good, "fargate": True}) or "")
    assert "CONFIG_MAP" in (refuse({**good, "authenticationMode": "CONFIG_MAP"}) or "")
    assert "skipDefaultNodeGroup" in (refuse({**good, "skipDefaultNodeGroup": False}) or "")


def test_the_conformance_table_is_the_codes_own() -> None:
    path = Path(conformance.__file__).with_name("CONFORMANCE.md")
    assert path.read_text() == conformance.table(), "run python -m twin.plugins.aws.conformance > " + str(path)


@mock_aws
def test_what_is_made_is_read_tagged_deleted_and_then_gone() -> None:
    aws = Aws({"region": "eu-central-1", "accessKey": "test", "secretKey": "test"})
    statement = '{"Effect": "Allow", "Action": "s3:ListAllMyBuckets", "Resource": "*"}'
    policy = f'{{"Version": "2012-10-17", "Statement": [{statement}]}}'
    vpc = KINDS["aws:ec2/vpc:Vpc"].create(aws, {"cidrBlock": "10.0.0.0/16"})
    subnet = {"vpcId": vpc, "cidrBlock": "10.0.0.0/20", "availabilityZone": "eu-central-1a"}
    schema = {"attributes": [{"name": "id", "type": "S"}], "hashKey": "id", "billingMode": "PAY_PER_REQUEST"}
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("aws:ec2/subnet:Subnet", subnet, "vpcId"),
        ("aws:ec2/routeTable:RouteTable", {"vpcId": vpc}, "vpcId"),
        ("aws:ec2/internetGateway:InternetGateway", {"vpcId": vpc}, "vpcId"),
        ("aws:ec2/eip:Eip", {"domain": "vpc"}, "publicIp"),
        ("aws:ec2/securityGroup:SecurityGroup", {"vpcId": vpc, "name": "a", "description": "b"}, "ownerId"),
        ("aws:ec2/launchTemplate:LaunchTemplate", {"name": "a", "instanceType": "t3.medium"}, "latestVersion"),
        ("aws:iam/role:Role", {"name": "a", "assumeRolePolicy": policy, "path": "/"}, "uniqueId"),
        ("aws:iam/policy:Policy", {"name": "a", "policy": policy, "path": "/"}, "policyId"),
        ("aws:dynamodb/table:Table", {"name": "a", **schema}, "arn"),
        ("aws:kms/key:Key", {"description": "a"}, "keyId"),
        (
            "aws:iam/openIdConnectProvider:OpenIdConnectProvider",
            {"url": "https://oidc.example", "clientIdLists": ["a"]},
            "arn",
        ),
        ("aws:rds/parameterGroup:ParameterGroup", {"name": "a", "family": "postgres15", "description": "b"}, "arn"),
        ("aws:secretsmanager/secret:Secret", {"name": "a", "recoveryWindowInDays": 7}, "arn"),
        ("aws:ssm/parameter:Parameter", {"name": "/a", "type": "String", "value": "b"}, "version"),
        ("aws:ecr/repository:Repository", {"name": "shop"}, "registryId"),
    ]
    for token, declared, computed in cases:
        kind = KINDS[token]
        inputs = {**kind.defaults, **declared}
        identifier = kind.create(aws, inputs)
        live = kind.live(aws, identifier, inputs)
        assert live is not None, token
        assert live[computed], token
        state = {**inputs, **live}
        kind.tag(aws, identifier, state, {"a": "1", "b": "2"}, [])
        kind.tag(aws, identifier, state, {}, ["a"])
        kind.delete(aws, identifier, state)
        assert kind.live(aws, identifier, state) is None, token
    KINDS["aws:ec2/vpc:Vpc"].delete(aws, vpc, {})
    assert KINDS["aws:ec2/vpc:Vpc"].live(aws, vpc, {}) is None


@mock_aws
def test_what_monitoring_needs_is_made_changed_and_deleted() -> None:
    aws = Aws({"region": "eu-central-1", "accessKey": "test", "secretKey": "test"})
    topic = KINDS["aws:sns/topic:Topic"]
    arn = topic.create(aws, {"name": "alarms", "kmsMasterKeyId": "a"})
    assert topic.live(aws, arn, {}) == {"arn": arn, "name": "alarms", "owner": "123456789012", "kmsMasterKeyId": "a"}
    metric = {"namespace": "n", "metricName": "m", "stat": "p99", "period": 60.0, "dimensions": {"a": "b"}}
    alarm = {
        "name": "slow",
        "comparisonOperator": "GreaterThanThreshold",
        "threshold": 1.5,
        "evaluationPeriods": 5.0,
        "datapointsToAlarm": 3.0,
        "treatMissingData": "ignore",
        "alarmActions": [arn],
        "metricQueries": [
            {"id": "m", "metric": metric, "returnData": False},
            {"id": "e", "expression": "m", "returnData": True},
        ],
    }
    budget = {"name": "b", "budgetType": "COST", "timeUnit": "MONTHLY", "limitAmount": "5", "limitUnit": "USD"}
    told = {"comparisonOperator": "GREATER_THAN", "notificationType": "ACTUAL", "threshold": 100.0}
    told |= {"thresholdType": "PERCENTAGE", "subscriberSnsTopicArns": [arn]}
    aws("logs").create_log_group(logGroupName="group")
    counted: dict[str, Any] = {"name": "f", "logGroupName": "group", "pattern": '"a"'}
    counted |= {"metricTransformation": {"namespace": "n", "name": "m", "value": "1"}}
    cases: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        ("aws:cloudwatch/metricAlarm:MetricAlarm", alarm, {"threshold": 2.5}),
        ("aws:cloudwatch/dashboard:Dashboard", {"dashboardName": "d", "dashboardBody": '{"widgets": []}'}, {}),
        ("aws:sns/topicSubscription:TopicSubscription", {"topic": arn, "protocol": "email", "endpoint": "a@b.ch"}, {}),
        ("aws:budgets/budget:Budget", {**budget, "notifications": [told]}, {}),
        ("aws:cloudwatch/logMetricFilter:LogMetricFilter", counted, {"pattern": '"b"'}),
    ]
    for token, inputs, change in cases:
        kind = KINDS[token]
        assert inputs.keys() <= kind.inputs, token
        identifier = kind.create(aws, inputs)
        live = kind.live(aws, identifier, inputs)
        assert live, token
        assert {key: live[key] for key in inputs.keys() & live.keys()} == {
            key: inputs[key] for key in inputs.keys() & live.keys()
        }, token
        kind.update(aws, identifier, inputs, {**inputs, **change}, set(change))
        changed = kind.live(aws, identifier, inputs)
        assert changed, token
        assert changed.items() >= change.items(), token
        kind.delete(aws, identifier, inputs)
        assert kind.live(aws, identifier, inputs) is None, token


@mock_aws
def test_a_metric_query_reaches_cloudwatch_whole() -> None:
    aws = Aws({"region": "eu-central-1", "accessKey": "test", "secretKey": "test"})
    metric = {"namespace": "n", "metricName": "m", "stat": "p99", "period": 60.0, "dimensions": {"a": "b"}}
    inputs = {"name": "a", "comparisonOperator": "LessThanThreshold", "threshold": 1.0, "evaluationPeriods": 1.0}
    KINDS["aws:cloudwatch/metricAlarm:MetricAlarm"].create(
        aws, {**inputs, "metricQueries": [{"id": "m", "metric": metric, "returnData": True}]}
    )
    (alarm,) = aws("cloudwatch").describe_alarms()["MetricAlarms"]
    (query,) = alarm["Metrics"]
    assert query["MetricStat"]["Metric"]["Dimensions"] == [{"Name": "a", "Value": "b"}]
    assert (query["MetricStat"]["Stat"], query["MetricStat"]["Period"]) == ("p99", 60)


@mock_aws
def test_another_way_to_be_told_is_refused_by_name() -> None:
    aws = Aws({"region": "eu-central-1", "accessKey": "test", "secretKey": "test"})
    with pytest.raises(ProviderError, match="protocol sms is not implemented"):
        KINDS["aws:sns/topicSubscription:TopicSubscription"].create(
            aws, {"topic": "arn", "protocol": "sms", "endpoint": "1"}
        )
