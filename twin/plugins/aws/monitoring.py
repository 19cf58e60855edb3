"""Alarms, topics and budgets. Force-new fields follow terraform-provider-aws internal/service/{cloudwatch,sns,budgets}."""

from __future__ import annotations

import json
from typing import Any

from twin.plugins.aws.identity import document
from twin.plugins.aws.kind import Aws, Kind, Tagging, pick, upper
from twin.plugins.common import Properties, ProviderError

_ALARM = {
    "AlarmName": "name",
    "AlarmDescription": "alarmDescription",
    "ComparisonOperator": "comparisonOperator",
    "Threshold": "threshold",
    "EvaluationPeriods": "evaluationPeriods",
    "DatapointsToAlarm": "datapointsToAlarm",
    "TreatMissingData": "treatMissingData",
    "AlarmActions": "alarmActions",
    "OKActions": "okActions",
}
_WHOLE = ("EvaluationPeriods", "DatapointsToAlarm")


class PutKind(Kind):
    """A resource whose one call both makes it and changes it, by name; so an update puts it again."""

    def update(self, aws: Aws, identifier: str, state: Properties, new: Properties, changed: set[str]) -> None:
        del identifier, state
        if changed:
            self.create(aws, new)


class MetricAlarm(PutKind):
    """aws_cloudwatch_metric_alarm by metric queries; the id is the name."""

    token = "aws:cloudwatch/metricAlarm:MetricAlarm"
    inputs = frozenset({*_ALARM.values(), "metricQueries"})
    replaces = frozenset({"name"})
    name_property = "name"
    name_limit = 255
    tagged = True
    tagging = Tagging("cloudwatch", "tag_resource", "untag_resource", "ResourceARN", by_arn=True)
    defaults = {"treatMissingData": "missing"}

    def create(self, aws: Aws, inputs: Properties) -> str:
        arguments = pick(inputs, **_ALARM)
        arguments |= {name: int(arguments[name]) for name in _WHOLE if name in arguments}
        metrics = [_query(declared) for declared in inputs.get("metricQueries") or []]
        aws("cloudwatch").put_metric_alarm(**arguments, Metrics=metrics)
        return str(inputs["name"])

    def read(self, aws: Aws, identifier: str, state: Properties) -> Properties | None:
        del state
        for alarm in aws("cloudwatch").describe_alarms(AlarmNames=[identifier])["MetricAlarms"]:
            return {"arn": alarm["AlarmArn"], **{name: alarm[key] for key, name in _ALARM.items() if key in alarm}}
        return None

    def delete(self, aws: Aws, identifier: str, state: Properties) -> None:
        del state
        aws("cloudwatch").delete_alarms(AlarmNames=[identifier])


def _query(declared: Properties) -> dict[str, Any]:
    """Return a metric query as the API takes it."""
    query = pick(declared, Id="id", Expression="expression", Label="label", ReturnData="returnData")
    metric = declared.get("metric")
    if metric:
        query["MetricStat"] = {
            "Metric": {
                "Namespace": metric["namespace"],
                "MetricName": metric["metricName"],
                "Dimensions": [
                    {"Name": key, "Value": value} for key, value in sorted((metric.get("dimensions") or {}).items())
                ],
            },
            "Period": int(metric["period"]),
            "Stat": metric["stat"],
        }
    return query


class Dashboard(PutKind):
    """aws_cloudwatch_dashboard; the id is the name."""

    token = "aws:cloudwatch/dashboard:Dashboard"
    inputs = frozenset({"dashboardName", "dashboardBody"})
    replaces = frozenset({"dashboardName"})

    def create(self, aws: Aws, inputs: Properties) -> str:
        aws("cloudwatch").put_dashboard(DashboardName=inputs["dashboardName"], DashboardBody=inputs["dashboardBody"])
        return str(inputs["dashboardName"])

    def read(self, aws: Aws, identifier: str, state: Properties) -> Properties | None:
        del state
        dashboard = aws("cloudwatch").get_dashboard(DashboardName=identifier)
        return {"dashboardArn": dashboard["DashboardArn"], "dashboardBody": dashboard["DashboardBody"]}

    def delete(self, aws: Aws, identifier: str, state: Properties) -> None:
        del state
        aws("cloudwatch").delete_dashboards(DashboardNames=[identifier])


class LogMetricFilter(PutKind):
    """aws_cloudwatch_log_metric_filter; the id is the name. moto stores it and counts nothing."""

    token = "aws:cloudwatch/logMetricFilter:LogMetricFilter"
    inputs = frozenset({"name", "logGroupName", "pattern", "metricTransformation"})
    replaces = frozenset({"name", "logGroupName"})
    name_property = "name"
    name_limit = 512

    def create(self, aws: Aws, inputs: Properties) -> str:
        metric = inputs["metricTransformation"]
        if self.read(aws, inputs["name"], inputs):
            self.delete(aws, inputs["name"], inputs)  # AWS's call replaces it, moto's adds another
        aws("logs").put_metric_filter(
            filterName=inputs["name"],
            logGroupName=inputs["logGroupName"],
            filterPattern=inputs["pattern"],
            metricTransformations=[
                {"metricName": metric["name"], "metricNamespace": metric["namespace"], "metricValue": metric["value"]}
            ],
        )
        return str(inputs["name"])

    def read(self, aws: Aws, identifier: str, state: Properties) -> Properties | None:
        found = aws("logs").describe_metric_filters(logGroupName=state["logGroupName"], filterNamePrefix=identifier)
        for live in found["metricFilters"]:
            if live["filterName"] == identifier:
                return {"name": identifier, "logGroupName": live["logGroupName"], "pattern": live["filterPattern"]}
        return None

    def delete(self, aws: Aws, identifier: str, state: Properties) -> None:
        aws("logs").delete_metric_filter(logGroupName=state["logGroupName"], filterName=identifier)


class Topic(Kind):
    """aws_sns_topic; the id is the ARN."""

    token = "aws:sns/topic:Topic"
    inputs = frozenset({"name", "kmsMasterKeyId"})
    replaces = frozenset({"name"})
    name_property = "name"
    name_limit = 256
    tagged = True
    tagging = Tagging("sns", "tag_resource", "untag_resource", "ResourceArn")

    def create(self, aws: Aws, inputs: Properties) -> str:
        attributes = pick(inputs, KmsMasterKeyId="kmsMasterKeyId")
        return str(aws("sns").create_topic(Name=inputs["name"], Attributes=attributes)["TopicArn"])

    def read(self, aws: Aws, identifier: str, state: Properties) -> Properties | None:
        del state
        attributes = aws("sns").get_topic_attributes(TopicArn=identifier)["Attributes"]
        live = {"arn": identifier, "name": identifier.rpartition(":")[2], "owner": attributes["Owner"]}
        return {**live, **pick(attributes, kmsMasterKeyId="KmsMasterKeyId")}

    def update(self, aws: Aws, identifier: str, state: Properties, new: Properties, changed: set[str]) -> None:
        if "kmsMasterKeyId" in changed:
            key = new.get("kmsMasterKeyId") or ""
            aws("sns").set_topic_attributes(TopicArn=identifier, AttributeName="KmsMasterKeyId", AttributeValue=key)
        super().update(aws, identifier, state, new, changed - {"kmsMasterKeyId"})

    def delete(self, aws: Aws, identifier: str, state: Properties) -> None:
        del state
        aws("sns").delete_topic(TopicArn=identifier)


class TopicPolicy(Kind):
    """aws_sns_topic_policy; the id is the topic's ARN. Deleting it gives the topic to its owner alone, as upstream."""

    token = "aws:sns/topicPolicy:TopicPolicy"
    inputs = frozenset({"arn", "policy"})
    replaces = frozenset({"arn"})
    create_before_delete = False

    def create(self, aws: Aws, inputs: Properties) -> str:
        self._set(aws, inputs["arn"], document(inputs["policy"]))
        return str(inputs["arn"])

    def read(self, aws: Aws, identifier: str, state: Properties) -> Properties | None:
        del state
        return {"owner": aws("sns").get_topic_attributes(TopicArn=identifier)["Attributes"]["Owner"]}

    def update(self, aws: Aws, identifier: str, state: Properties, new: Properties, changed: set[str]) -> None:
        del state
        if changed:
            self._set(aws, identifier, document(new["policy"]))

    def delete(self, aws: Aws, identifier: str, state: Properties) -> None:
        del state
        owner = aws.account
        own = {
            "Effect": "Allow",
            "Principal": {"AWS": "*"},
            "Action": ["SNS:Publish", "SNS:Subscribe", "SNS:GetTopicAttributes", "SNS:SetTopicAttributes"],
            "Resource": identifier,
            "Condition": {"StringEquals": {"AWS:SourceOwner": owner}},
        }
        self._set(aws, identifier, json.dumps({"Version": "2012-10-17", "Statement": [own]}))

    @staticmethod
    def _set(aws: Aws, topic: str, policy: str) -> None:
        aws("sns").set_topic_attributes(TopicArn=topic, AttributeName="Policy", AttributeValue=policy)


class TopicSubscription(Kind):
    """aws_sns_topic_subscription by mail or HTTPS; the id is the ARN. Nobody confirms it here, and moto needs no confirmation."""

    token = "aws:sns/topicSubscription:TopicSubscription"
    inputs = frozenset({"topic", "protocol", "endpoint"})
    replaces = frozenset({"topic", "protocol", "endpoint"})

    def create(self, aws: Aws, inputs: Properties) -> str:
        protocol = inputs["protocol"]
        if protocol not in ("email", "https"):
            raise ProviderError(f"twin: {self.token} with protocol {protocol} is not implemented by the stand-in")
        made = aws("sns").subscribe(
            TopicArn=inputs["topic"], Protocol=protocol, Endpoint=inputs["endpoint"], ReturnSubscriptionArn=True
        )
        return str(made["SubscriptionArn"])

    def read(self, aws: Aws, identifier: str, state: Properties) -> Properties | None:
        del state
        attributes = aws("sns").get_subscription_attributes(SubscriptionArn=identifier)["Attributes"]
        return {"arn": identifier, "ownerId": attributes["Owner"], "endpoint": attributes["Endpoint"]}

    def delete(self, aws: Aws, identifier: str, state: Properties) -> None:
        del state
        aws("sns").unsubscribe(SubscriptionArn=identifier)


class Budget(Kind):
    """aws_budgets_budget of a fixed amount; the id is `<account>:<name>`."""

    token = "aws:budgets/budget:Budget"
    inputs = frozenset({"name", "budgetType", "timeUnit", "limitAmount", "limitUnit", "notifications"})
    replaces = frozenset({"name"})
    name_property = "name"
    name_limit = 100

    def create(self, aws: Aws, inputs: Properties) -> str:
        account, name = aws.account, str(inputs["name"])
        budget = {
            **pick(inputs, BudgetName="name", BudgetType="budgetType", TimeUnit="timeUnit"),
            "BudgetLimit": {"Amount": inputs["limitAmount"], "Unit": inputs["limitUnit"]},
        }
        aws("budgets").create_budget(AccountId=account, Budget=budget)
        self._notify(aws, account, name, inputs)
        return f"{account}:{name}"

    @staticmethod
    def _notify(aws: Aws, account: str, name: str, inputs: Properties) -> None:
        for notification in inputs.get("notifications") or []:
            topics = notification.get("subscriberSnsTopicArns") or []
            plain = {key: value for key, value in notification.items() if not key.startswith("subscriber")}
            aws("budgets").create_notification(
                AccountId=account,
                BudgetName=name,
                Notification=upper(plain),
                Subscribers=[{"SubscriptionType": "SNS", "Address": topic} for topic in topics],
            )

    def update(self, aws: Aws, identifier: str, state: Properties, new: Properties, changed: set[str]) -> None:
        """Make all notifications anew where one has changed, as upstream does (updateBudgetNotifications)."""
        if "notifications" in changed:
            account, _, name = identifier.partition(":")
            target = {"AccountId": account, "BudgetName": name}
            for notification in aws("budgets").describe_notifications_for_budget(**target)["Notifications"]:
                aws("budgets").delete_notification(**target, Notification=notification)
            self._notify(aws, account, name, new)
        super().update(aws, identifier, state, new, changed - {"notifications"})

    def read(self, aws: Aws, identifier: str, state: Properties) -> Properties | None:
        del state
        account, _, name = identifier.partition(":")
        budget = aws("budgets").describe_budget(AccountId=account, BudgetName=name)["Budget"]
        return {"accountId": account, "name": name, "limitUnit": budget["BudgetLimit"]["Unit"]}

    def delete(self, aws: Aws, identifier: str, state: Properties) -> None:
        del state
        account, _, name = identifier.partition(":")
        aws("budgets").delete_budget(AccountId=account, BudgetName=name)
