"""A metric that CloudWatch counts in a log: how often a line matches a pattern."""

from __future__ import annotations

import pulumi
import pulumi_aws as aws

from infra.names import METRICS_NAMESPACE


def log_metric(
    title: str, log_group: pulumi.Input[str], pattern: str, metric: str, opts: pulumi.ResourceOptions
) -> None:
    """Count the lines of a log group that match, in this program's own namespace and without dimensions.

    Args:
        title: of the filter, unique in the group.
        log_group: its name.
        pattern: docs.aws.amazon.com/AmazonCloudWatch/latest/logs/FilterAndPatternSyntaxForMetricFilters.html.
        metric: name; a minute without a match has no data.
        opts: whose part it is.
    """
    aws.cloudwatch.LogMetricFilter(
        title,
        name=f"shopcat-{title}",
        log_group_name=log_group,
        pattern=pattern,
        metric_transformation=aws.cloudwatch.LogMetricFilterMetricTransformationArgs(
            namespace=METRICS_NAMESPACE, name=metric, value="1"
        ),
        opts=opts,
    )
