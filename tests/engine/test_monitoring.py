"""Alarms, topic, dashboard and budget under the real engine, turned on and off again. Nodes are simulated."""

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest

from tests.tools import aws, command, settings_file, summary
from twin.config import ACCOUNT_ID, Twin
from twin.loadbalancer import alarms
from twin.scenarios import production

pytestmark = pytest.mark.engine

UP = ["pulumi", "up", "-s", "prod", "--yes", "--skip-preview"]
MONITORING = {"email": "ops@example.com", "webhook": "https://hooks.example.com/a", "monthlyBudgetUsd": 300}


def _declared_alarms(twin: Twin) -> dict[str, Any]:
    pages = aws(twin, "cloudwatch").get_paginator("describe_alarms").paginate()
    return {alarm["AlarmName"]: alarm for page in pages for alarm in page["MetricAlarms"]}


def test_logs_are_refused_by_name_and_nothing_is_touched(simulated: Twin, tmp_path: Path) -> None:
    logs = {"image": f"example.com/fluent-bit@sha256:{'a' * 64}"}
    changed = settings_file(simulated, tmp_path, {"shopcat:monitoring": {**MONITORING, "logs": logs}})
    refused = command(simulated, UP, check=False, PULUMI_OPTION_CONFIG_FILE=str(changed))
    assert refused.returncode
    assert "monitoring.logs: what sends the logs reaches AWS's own CloudWatch alone" in refused.stdout + refused.stderr
    assert _declared_alarms(simulated) == {}


def test_monitoring_is_made_changed_refreshed_and_taken_away(simulated: Twin, tmp_path: Path) -> None:
    live = production.outputs(simulated)["liveRelease"]
    on = str(settings_file(simulated, tmp_path, {"shopcat:monitoring": MONITORING}))
    made = summary(command(simulated, UP, PULUMI_OPTION_CONFIG_FILE=on).stdout)
    found = _declared_alarms(simulated)
    assert len(found) > 10
    assert made["created"] >= len(found) + 6, (
        "and a key, a topic with its policy, two subscriptions, a dashboard, a budget"
    )
    assert made["updated"] == 1, "the provider, which gets the endpoints of SNS and Budgets"
    assert not {"deleted", "replaced"} & made.keys(), made

    sns = aws(simulated, "sns")
    (topic,) = [each["TopicArn"] for each in sns.list_topics()["Topics"]]
    assert all(alarm["AlarmActions"] == alarm["OKActions"] == [topic] for alarm in found.values())
    attributes = sns.get_topic_attributes(TopicArn=topic)["Attributes"]
    assert attributes["KmsMasterKeyId"].startswith("arn:")
    services = [each["Principal"]["Service"] for each in json.loads(attributes["Policy"])["Statement"]]
    assert services == ["cloudwatch.amazonaws.com", "budgets.amazonaws.com"]
    told = {each["Protocol"]: each["Endpoint"] for each in sns.list_subscriptions()["Subscriptions"]}
    assert told == {"email": "ops@example.com", "https": "https://hooks.example.com/a"}

    assert set(summary(command(simulated, UP, PULUMI_OPTION_CONFIG_FILE=on).stdout)) == {"unchanged"}
    command(
        simulated,
        ["pulumi", "refresh", "-s", "prod", "--yes", "--skip-preview"],
        PULUMI_OPTION_CONFIG_FILE=on,
    )
    assert set(summary(command(simulated, UP, PULUMI_OPTION_CONFIG_FILE=on).stdout)) == {"unchanged"}

    (budget,) = aws(simulated, "budgets").describe_budgets(AccountId=ACCOUNT_ID)["Budgets"]
    assert float(budget["BudgetLimit"]["Amount"]) == 300

    states = alarms.evaluate(aws(simulated, "cloudwatch"), dt.datetime.now(dt.UTC))
    assert set(states) == set(found)
    assert states["shopcat-database-cpu"] == "OK"

    slower = str(settings_file(simulated, tmp_path, {"shopcat:monitoring": {**MONITORING, "slowestSeconds": 2}}))
    counts = summary(command(simulated, UP, PULUMI_OPTION_CONFIG_FILE=slower).stdout)
    assert counts.get("updated") == 1, counts
    assert _declared_alarms(simulated)["shopcat-slow-answers"]["Threshold"] == 2

    command(simulated, UP)
    assert _declared_alarms(simulated) == {}
    assert sns.list_topics()["Topics"] == []
    assert aws(simulated, "budgets").describe_budgets(AccountId=ACCOUNT_ID).get("Budgets", []) == []
    assert production.outputs(simulated)["liveRelease"] == live
