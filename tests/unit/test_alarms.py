"""The list of alarms, its limits at AWS, its lines in the runbook, and what the component declares of it."""

import json
import re
from pathlib import Path
from typing import Any

import pulumi
import pulumi_aws as aws
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra import settings
from infra.access import iam_policies
from infra.access.iam_policies import AwsScope
from infra.commands import recorded_stacks
from infra.errors import ShopCatError
from infra.foundation import alarms, monitoring, providers
from infra.foundation.alarms import Alarm, WatchedResources
from infra.settings import Settings
from tests.iam import Request, decide
from tests.unit.test_settings import committed
from twin.paths import REPOSITORY

WATCHED = WatchedResources(
    load_balancer="app/shopcat/1",
    target_groups={"blue": "targetgroup/shopcat-blue/2", "green": "targetgroup/shopcat-green/3"},
    certificates={"production": "arn:1", "previews": "arn:2"},
)
SCOPE = AwsScope("123456789012", "eu-central-1", "shopcat", "shopcat-releases")
DAY, WEEK = 86_400, 7 * 86_400


def monitored(**changes: Any) -> Settings:
    """The committed settings with alarms by mail, and a repository whose previews are cleaned up."""
    logs = {"image": f"example.com/fluent-bit@sha256:{'a' * 64}"}
    watched = {"monitoring": {"email": "ops@example.com", "logs": logs}, "github": {"repository": "octo/shop"}}
    return settings.read_settings({**committed(), **watched, **changes})


def named(chosen: Settings) -> dict[str, Alarm]:
    """Each alarm by its name."""
    found = alarms.alarms(chosen, WATCHED)
    by_name = {alarm.name: alarm for alarm in found}
    assert len(by_name) == len(found)
    return by_name


ALARMS = named(monitored())


@pytest.mark.parametrize("alarm", ALARMS.values(), ids=ALARMS)
def test_an_alarm_stays_within_what_cloudwatch_takes(alarm: Alarm) -> None:
    """docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricAlarm.html: a day, or a week with hourly periods."""
    assert 1 <= alarm.datapoints <= alarm.periods
    assert alarm.period_seconds % 60 == 0
    assert alarm.periods * alarm.period_seconds <= (WEEK if alarm.period_seconds >= 3600 else DAY)
    assert all(re.fullmatch("[a-z][A-Za-z0-9_]*", name) for name in alarm.metrics)
    assert len(alarm.metrics) == 1 or alarm.expression
    used = set(re.findall(r"[a-z]\w*", alarm.expression))
    assert not alarm.expression or used == set(alarm.metrics)


def test_each_alarm_has_a_line_in_the_runbook_and_each_line_an_alarm() -> None:
    text = (REPOSITORY / "docs" / "runbook.md").read_text().partition("## What an alarm means")[2].partition("\n## ")[0]
    lines = re.findall(r"^\| `(shopcat-[a-z-]+)` \| (.+) \| (.+) \|$", text, re.MULTILINE)
    assert {name for name, *_ in lines} == set(ALARMS)
    assert len(lines) == len(ALARMS)
    assert all(len(first) > 20 for *_, first in lines)


@given(st.sampled_from(["v1.0.0", "v9.9.9", ""]), st.integers(2, 3), st.sampled_from(["50m", "100m"]))
def test_no_release_changes_an_alarm(tag: str, replicas: int, cpu: str) -> None:
    release = {**committed()["release"], "replicas": replicas, "cpu": cpu, "memory": "128Mi"}
    assert named(monitored(tag=tag, release=release)) == ALARMS


def test_a_kept_former_hides_no_live_pod_that_is_lost() -> None:
    kept = named(monitored(keepFormer=True))
    changed = {name for name, alarm in kept.items() if alarm != ALARMS[name]}
    assert changed == {"shopcat-live-targets", "shopcat-both-colours"}
    for name in changed:
        test_an_alarm_stays_within_what_cloudwatch_takes(kept[name])


def test_one_pod_is_enough_where_there_is_one() -> None:
    one = named(monitored(release={**committed()["release"], "replicas": 1}))
    assert (one["shopcat-live-targets"].threshold, ALARMS["shopcat-live-targets"].threshold) == (1, 2)


def test_the_numbers_of_the_database_follow_its_settings() -> None:
    database = {**committed()["database"], "instanceClass": "db.m6g.large", "storageGibibytes": 100}
    chosen = monitored(database=database)
    found = named(chosen)
    assert found["shopcat-database-connections"].threshold == 0.9 * chosen.database.max_connections
    assert found["shopcat-database-storage"].threshold == 10 * (1 << 30)
    assert "shopcat-database-credits" in ALARMS
    assert "shopcat-database-credits" not in found, "only classes db.t have credits"


def test_no_alarm_waits_for_what_nobody_writes() -> None:
    assert set(ALARMS) - set(named(monitored(github={}))) == {"shopcat-clean-up"}
    unread = monitored(monitoring={"email": "ops@example.com"})
    assert set(ALARMS) - set(named(unread)) == {"shopcat-secrets-not-synced", "shopcat-restart-loop"}


def test_only_a_watched_clean_up_may_write_its_metric_and_no_other_namespace() -> None:
    def may(namespace: str, **choice: bool) -> bool:
        policy = json.loads(iam_policies.cleanup_policy(SCOPE, "AROA", **choice))
        asked = Request("cloudwatch:PutMetricData", "*", {"cloudwatch:namespace": namespace})
        return decide([policy], asked).allowed

    assert may("ShopCat", is_monitored=True)
    assert not may("AWS/ApplicationELB", is_monitored=True)
    assert not may("ShopCat", is_monitored=False)


def test_slow_is_what_the_settings_call_slow() -> None:
    drain = committed()["drain"]
    slow = "shopcat-slow-answers"
    assert ALARMS[slow].threshold == drain["longestRequest"]
    set_apart = monitored(monitoring={"email": "a@example.com", "slowestSeconds": 0.8})
    assert named(set_apart)[slow].threshold == 0.8
    assert slow not in named(monitored(drain={**drain, "longestRequest": 0}))


def _declared(chosen: Settings) -> dict[tuple[str, str], Any]:
    recorded = recorded_stacks.record_production(chosen, SCOPE.region, SCOPE.account)
    return {each.key: each for each in recorded}


def test_without_the_setting_nothing_is_declared_or_changed() -> None:
    without, with_it = _declared(settings.read_settings(committed())), _declared(monitored(github={}))
    assert not [key for key in without if key[0].startswith(("aws:sns", "aws:budgets", "aws:cloudwatch/metricAlarm"))]
    assert {key: with_it[key].inputs for key in without} == {key: each.inputs for key, each in without.items()}


def test_every_alarm_tells_the_topic_also_when_it_is_over() -> None:
    declared = _declared(monitored())
    made = {name: each.inputs for (kind, name), each in declared.items() if kind.endswith(":MetricAlarm")}
    assert set(made) == set(ALARMS)
    for name, inputs in made.items():
        assert inputs["alarmActions"] == inputs["okActions"], name
        assert len(inputs["alarmActions"]) == 1
        assert [query["returnData"] for query in inputs["metricQueries"]].count(True) == 1, name
        assert len(inputs["alarmDescription"]) <= 1024
        assert name in inputs["alarmDescription"]


@pytest.mark.parametrize(
    ("monitoring_settings", "kinds"),
    [
        ({"email": "a@example.com"}, ["email"]),
        ({"webhook": "https://hooks.example.com/x"}, ["https"]),
        ({"email": "a@example.com", "webhook": "https://hooks.example.com/x"}, ["email", "https"]),
    ],
)
def test_who_is_told_is_subscribed(monitoring_settings: dict[str, Any], kinds: list[str]) -> None:
    declared = _declared(monitored(monitoring=monitoring_settings))
    assert sorted(name for kind, name in declared if kind.endswith(":TopicSubscription")) == kinds
    assert not [kind for kind, _ in declared if kind.endswith(":Budget")]


def test_a_budget_tells_of_money_spent_and_money_foreseen() -> None:
    declared = _declared(monitored(monitoring={"email": "a@example.com", "monthlyBudgetUsd": 300}))
    (budget,) = [each.inputs for (kind, _), each in declared.items() if kind.endswith(":Budget")]
    assert (budget["limitAmount"], budget["limitUnit"], budget["timeUnit"]) == ("300", "USD", "MONTHLY")
    assert [one["notificationType"] for one in budget["notifications"]] == ["ACTUAL", "FORECASTED"]


def test_only_this_account_s_alarms_and_budgets_may_publish() -> None:
    for text in (
        json.loads(monitoring.key_policy(SCOPE))["Statement"][1:],
        monitoring.publish_statements(SCOPE, ["a"], "b"),
    ):
        assert [one["Principal"] for one in text] == [
            {"Service": "cloudwatch.amazonaws.com"},
            {"Service": "budgets.amazonaws.com"},
        ]
        for one in text:
            assert one["Condition"]["StringEquals"] == {"aws:SourceAccount": SCOPE.account}
            assert SCOPE.account in one["Condition"]["ArnLike"]["aws:SourceArn"]


def test_a_webhook_is_a_secret_and_no_message_repeats_it() -> None:
    with pytest.raises(ShopCatError) as refused:
        monitored(monitoring={"webhook": "http://hooks.example.com/token-abc"})
    assert "shopcat:monitoring.webhook: is not a URL such as" in str(refused.value)
    assert "token-abc" not in str(refused.value)


def test_an_encrypted_webhook_is_read_without_its_key(tmp_path: Path) -> None:
    text = (REPOSITORY / "Pulumi.prod.yaml").read_text()
    path = tmp_path / "Pulumi.prod.yaml"
    path.write_text(f"{text}  shopcat:monitoring:\n    webhook:\n      secure: AAABAM\n")
    found = settings.read_stack(path)[1].monitoring
    assert found is not None
    assert found.webhook == "[secret]"


@pytest.mark.parametrize("wrong", ["https://hooks.example.com/token-abc", ["https://hooks.example.com/token-abc"]])
def test_a_webhook_in_the_wrong_place_is_not_repeated(wrong: Any) -> None:
    for values in (wrong, {"webhook": [wrong]}):
        with pytest.raises(ShopCatError) as refused:
            monitored(monitoring=values)
        assert "token-abc" not in str(refused.value)


@pytest.mark.parametrize("nobody", [{}, {"email": ""}, {"monthlyBudgetUsd": 5}])
def test_monitoring_that_tells_nobody_is_refused(nobody: dict[str, Any]) -> None:
    with pytest.raises(ShopCatError, match="nobody would be told; set email, webhook or both"):
        monitored(monitoring=nobody)


def test_a_provider_gets_other_endpoints_only_with_monitoring(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[set[str]] = []
    monkeypatch.setattr(aws, "ProviderEndpointArgs", lambda **named: asked.append(set(named)))
    monkeypatch.setattr(aws, "Provider", lambda *_, **__: None)
    for chosen in (settings.read_settings(committed()), monitored()):
        providers.aws_provider(chosen, "eu-central-1", "prod", {})
    assert asked == [set(providers.SERVICES), {*providers.SERVICES, "budgets", "sns"}]


def test_the_dashboard_shows_both_colours_and_every_alarm() -> None:
    found: list[str] = []

    @pulumi.runtime.test
    def program() -> Any:
        return monitoring.dashboard_body("eu-central-1", WATCHED, ["arn:a", "arn:b"]).apply(found.append)

    program()
    body = json.loads(found[0])
    first, *graphs = body["widgets"]
    assert first["properties"]["alarms"] == ["arn:a", "arn:b"]
    for graph in graphs:
        assert all(metric[0] == "AWS/ApplicationELB" for metric in graph["properties"]["metrics"])
    labels = [metric[-1]["label"] for metric in graphs[0]["properties"]["metrics"]]
    assert labels == ["blue", "green"]
