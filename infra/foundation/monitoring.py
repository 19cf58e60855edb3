"""The component that tells a person: the alarms of infra/foundation/alarms.py, one encrypted topic, a dashboard and a budget.

* Only this account's CloudWatch alarms and budgets may publish to the topic and use its key.
* Each alarm tells also when it is over.
* The dashboard shows each colour's share of the requests, which is its weight as users have it. It has no mark for a release:
  then every release would change it.
* The budget is of the whole account: a filter by tag needs a tag that the account's owner has activated for billing.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pulumi
import pulumi_aws as aws

from infra.foundation.alarms import MINUTE_SECONDS, SILENT_NODE_PATTERN, WatchedResources, alarms
from infra.foundation.log_metric import log_metric
from infra.names import ALARMS_KEY, COLOURS, SILENT_NODE_METRIC

if TYPE_CHECKING:
    from infra.access.iam_policies import AwsScope
    from infra.foundation.alarms import Alarm
    from infra.settings import Settings

_PUBLISHERS = {
    "cloudwatch.amazonaws.com": "cloudwatch:{region}:{account}:alarm:*",
    "budgets.amazonaws.com": "budgets::{account}:*",
}
"""Service that publishes → ARN, behind its `arn:aws:`, of what it publishes for."""
KEY_DELETION_DAYS = 7
"""Shortest that KMS takes (docs.aws.amazon.com/kms/latest/APIReference/API_ScheduleKeyDeletion.html): the key keeps no data."""


def publish_statements(scope: AwsScope, actions: list[str], resource: pulumi.Input[str]) -> list[dict[str, Any]]:
    """Return statements of a resource's policy that let this account's alarms and budgets call these actions, and nobody else's.

    Source: docs.aws.amazon.com/sns/latest/dg/sns-key-management.html, and docs.aws.amazon.com/cost-management/latest/userguide/
    budgets-sns-policy.html.
    """
    return [
        {
            "Effect": "Allow",
            "Principal": {"Service": service},
            "Action": actions,
            "Resource": resource,
            "Condition": {
                "StringEquals": {"aws:SourceAccount": scope.account},
                "ArnLike": {"aws:SourceArn": f"arn:aws:{source.format(region=scope.region, account=scope.account)}"},
            },
        }
        for service, source in _PUBLISHERS.items()
    ]


def key_policy(scope: AwsScope) -> str:
    """Return the policy of the topic's key: the account's IAM decides, and whoever publishes may encrypt."""
    owner = {
        "Effect": "Allow",
        "Principal": {"AWS": f"arn:aws:iam::{scope.account}:root"},
        "Action": ["kms:*"],
        "Resource": "*",
    }
    publishers = publish_statements(scope, ["kms:Decrypt", "kms:GenerateDataKey*"], "*")
    return json.dumps({"Version": "2012-10-17", "Statement": [owner, *publishers]})


def dashboard_body(region: str, watched: WatchedResources, names: list[str]) -> pulumi.Output[str]:
    """Return the dashboard: alarms, each colour's requests and targets, errors, latency.

    Args:
        region: of the metrics.
        watched: what they are of.
        names: ARNs of the alarms, in the order in which they stand.
    """

    def metric(name: str, colour: Any = None, **options: Any) -> list[Any]:
        group = ["TargetGroup", watched.target_groups[colour]] if colour else []
        return ["AWS/ApplicationELB", name, "LoadBalancer", watched.load_balancer, *group, options]

    graphs = {
        "Requests of each colour: its share is its weight": [
            metric("RequestCount", colour, label=colour, stat="Sum") for colour in COLOURS
        ],
        "Targets of each colour": [
            metric(name, colour, label=f"{colour} {label}", stat="Maximum")
            for colour in COLOURS
            for name, label in (("HealthyHostCount", "healthy"), ("UnHealthyHostCount", "unhealthy"))
        ],
        "Errors 5xx": [
            metric("HTTPCode_ELB_5XX_Count", label="load balancer", stat="Sum"),
            *(metric("HTTPCode_Target_5XX_Count", colour, label=colour, stat="Sum") for colour in COLOURS),
        ],
        "Seconds of an answer": [metric("TargetResponseTime", label=stat, stat=stat) for stat in ("p50", "p99")],
    }
    widgets: list[dict[str, Any]] = [
        {"type": "alarm", "width": 24, "height": 4, "properties": {"title": "Alarms", "alarms": names}}
    ]
    widgets += [
        {
            "type": "metric",
            "width": 12,
            "height": 6,
            "properties": {"title": title, "region": region, "period": MINUTE_SECONDS, "metrics": metrics},
        }
        for title, metrics in graphs.items()
    ]
    return pulumi.Output.json_dumps({"widgets": widgets}, sort_keys=True)


class Monitoring(pulumi.ComponentResource):
    """Topic, alarms, dashboard and budget; declared only where `shopcat:monitoring` is set."""

    def __init__(
        self,
        name: str,
        settings: Settings,
        *,
        scope: AwsScope,
        watched: WatchedResources,
        control_plane_logs: pulumi.Input[str] | None,
        opts: pulumi.ResourceOptions,
    ) -> None:
        super().__init__("shopcat:monitoring:Monitoring", name, None, opts)
        if settings.monitoring is None:
            raise ValueError("Monitoring is declared only with settings.monitoring")
        self._child = pulumi.ResourceOptions(parent=self)
        self.topic = self._topic(scope, settings.monitoring.email, settings.monitoring.webhook)
        if control_plane_logs is not None:
            log_metric("silent-nodes", control_plane_logs, SILENT_NODE_PATTERN, SILENT_NODE_METRIC, self._child)
        declared = [self._alarm(alarm) for alarm in alarms(settings, watched)]
        aws.cloudwatch.Dashboard(
            "shopcat",
            dashboard_name="shopcat",
            dashboard_body=dashboard_body(
                scope.region,
                watched,
                [f"arn:aws:cloudwatch:{scope.region}:{scope.account}:alarm:{each}" for each in declared],
            ),
            opts=self._child,
        )
        if settings.monitoring.monthly_budget_usd:
            self._budget(settings.monitoring.monthly_budget_usd)
        self.register_outputs({"topic": self.topic.arn})

    def _topic(self, scope: AwsScope, email: str, webhook: str) -> aws.sns.Topic:
        # AWS's own key for SNS lets no service publish (docs.aws.amazon.com/sns/latest/dg/sns-key-management.html).
        key = aws.kms.Key(
            ALARMS_KEY,
            description="notifications of ShopCat's alarms",
            enable_key_rotation=True,
            deletion_window_in_days=KEY_DELETION_DAYS,
            policy=key_policy(scope),
            opts=self._child,
        )
        topic = aws.sns.Topic("alarms", name="shopcat-alarms", kms_master_key_id=key.arn, opts=self._child)
        statements = publish_statements(scope, ["sns:Publish"], topic.arn)
        policy = aws.sns.TopicPolicy(
            "alarms",
            arn=topic.arn,
            policy=pulumi.Output.json_dumps({"Version": "2012-10-17", "Statement": statements}),
            opts=self._child,
        )
        self._may_publish = pulumi.ResourceOptions(parent=self, depends_on=[policy])
        for protocol, endpoint in (("email", email), ("https", webhook)):
            if endpoint:
                aws.sns.TopicSubscription(
                    protocol,
                    topic=topic.arn,
                    protocol=protocol,
                    # An address may hold a token.
                    endpoint=pulumi.Output.secret(endpoint) if protocol == "https" else endpoint,
                    opts=self._child,
                )
        return topic

    def _alarm(self, alarm: Alarm) -> str:
        """Declare an alarm and return its name."""
        queries = [
            aws.cloudwatch.MetricAlarmMetricQueryArgs(
                id=name,
                metric=aws.cloudwatch.MetricAlarmMetricQueryMetricArgs(
                    namespace=metric.namespace,
                    metric_name=metric.name,
                    stat=metric.statistic,
                    period=alarm.period_seconds,
                    dimensions=metric.dimensions,
                ),
                return_data=not alarm.expression,
            )
            for name, metric in alarm.metrics.items()
        ]
        if alarm.expression:
            queries.append(
                aws.cloudwatch.MetricAlarmMetricQueryArgs(
                    id="result", expression=alarm.expression, label=alarm.name, return_data=True
                )
            )
        aws.cloudwatch.MetricAlarm(
            alarm.name,
            name=alarm.name,
            alarm_description=f"{alarm.summary}. What to do first: docs/runbook.md, {alarm.name}",
            metric_queries=queries,
            comparison_operator=alarm.comparison,
            threshold=alarm.threshold,
            evaluation_periods=alarm.periods,
            datapoints_to_alarm=alarm.datapoints,
            treat_missing_data=alarm.missing,
            alarm_actions=[self.topic.arn],
            ok_actions=[self.topic.arn],
            opts=self._may_publish,
        )
        return alarm.name

    def _budget(self, monthly_usd: int) -> None:
        aws.budgets.Budget(
            "shopcat",
            name="shopcat-monthly",
            budget_type="COST",
            time_unit="MONTHLY",
            limit_amount=str(monthly_usd),
            limit_unit="USD",
            notifications=[
                aws.budgets.BudgetNotificationArgs(
                    comparison_operator="GREATER_THAN",
                    notification_type=kind,
                    threshold=100,
                    threshold_type="PERCENTAGE",
                    subscriber_sns_topic_arns=[self.topic.arn],
                )
                for kind in ("ACTUAL", "FORECASTED")
            ],
            opts=self._may_publish,
        )
