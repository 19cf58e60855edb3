"""Each alarm of production made to fire once by a fault under load, and quiet during a good release.

It takes long, so it runs only when it is asked for: `make alarms`, which writes docs/alarms.md.
"""

import contextlib
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby

import pytest

from infra import settings
from infra.foundation import alarms as alarm_list
from infra.foundation.alarms import RESTART_PATTERN, Alarm, WatchedMetric
from infra.foundation.log_shipper import UNSYNCED_PATTERN
from infra.names import METRICS_NAMESPACE, POD_LOGS_GROUP, RESTART_METRIC, UNSYNCED_METRIC
from tests.tools import aws
from tests.twin.alarm_faults import DEFECT, FAULTS, Fault
from tests.twin.shop import SHORT, Shop, open_shop
from tests.twin.watch import WINDOW, Watch
from twin.config import Twin
from twin.loadbalancer import service
from twin.paths import REPOSITORY
from twin.plugins.aws.monitoring import LogMetricFilter, MetricAlarm

pytestmark = [
    pytest.mark.twin,
    pytest.mark.skipif(not os.environ.get("SHOPCAT_ALARMS"), reason="takes long; `make alarms` runs it"),
]

MONITORED = {"shopcat:monitoring": {"email": "ops@example.com", "slowestSeconds": 10}}
METRICS_SCALE = 0.05
"""Of the delays of the load balancer's metrics, once the release is over."""
FIRES_WITHIN_SECONDS = 420
OVER_WITHIN_SECONDS = 420
PAGE = REPOSITORY / "docs" / "alarms.md"
HEAD = f"""# Alarms, rehearsed

Written by `make alarms` on the twin, never by hand: production under constant load, with `shopcat:monitoring`.

- **Quiet**: no alarm is in ALARM while a good release is made, by its own window and by one of at most {WINDOW} minutes; but for
  `shopcat-both-colours` by the latter, since a release is what it tells of when that takes too long.
- **Faults**: each is begun, kept until its alarm is in ALARM, and mended. An alarm goes to ALARM once and back to OK once; no
  other alarm does, but for those of faults that are on at the same time and those in the column "also". Faults with the same
  number are on at the same time.
- **Windows** longer than {WINDOW} minutes are cut to {WINDOW} minutes here; the column "window" has production's own.
- **Real** is a fault in the pods, the cluster or the load balancer, with a metric counted from what came of it. **Injected** is a
  value written in the place of AWS's own: the twin's PostgreSQL, certificates and clean-up have no metrics.
- Metric filters are held against the lines that the real control plane, kubelets and External Secrets write. Three alarms and two
  filters that the twin's settings leave out are put from the same list: logs are sent to AWS's own CloudWatch alone, and no
  repository's previews are cleaned up.

"""
TABLE = """
| group | alarm | fault | | window | seconds to ALARM | seconds back to OK | also | what to do first |
|---:|---|---|---|---|---:|---:|---|---|
"""


@dataclass
class Report:
    """The page's lines."""

    release: str = "- **The release**: not made."
    rows: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def shop(twin: Twin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with open_shop(twin, tmp_path_factory.mktemp("shop"), {**SHORT, **MONITORED}) as opened:
        yield opened


@pytest.fixture(scope="module")
def watch(shop: Shop) -> Iterator[Watch]:
    code, output = shop.up()
    assert code == 0, output
    put_what_the_settings_leave_out(shop)
    with Watch(shop.twin) as watching:
        yield watching
    assert watching.problems == []


@pytest.fixture(scope="module")
def report() -> Iterator[Report]:
    page = Report()
    yield page
    PAGE.write_text(HEAD + page.release + "\n" + TABLE + "\n".join(page.rows) + "\n")


def every_alarm() -> dict[str, Alarm]:
    """The alarms that production has with every setting on."""
    logs = {"image": f"example.com/fluent-bit@sha256:{'a' * 64}"}
    read = settings.read_stack(REPOSITORY / "Pulumi.prod.yaml")[1]
    watched = {"email": "ops@example.com", "slowestSeconds": 10, "logs": logs}
    chosen = read.model_copy(
        update={
            "monitoring": settings.MonitoringSettings.model_validate(watched),
            "github": read.github.model_copy(update={"repository": "octo/shop"}),
        }
    )
    names = alarm_list.WatchedResources("", {"blue": "", "green": ""}, {"production": "", "previews": ""})
    return {alarm.name: alarm for alarm in alarm_list.alarms(chosen, names)}


def put_what_the_settings_leave_out(shop: Shop) -> None:
    """Put the alarms that the stack has not made, and the filters of the log shipper's group."""
    declared = {each["AlarmName"] for each in aws(shop.twin, "cloudwatch").describe_alarms()["MetricAlarms"]}
    left_out = {name: alarm for name, alarm in every_alarm().items() if name not in declared}
    assert set(left_out) == {"shopcat-clean-up", "shopcat-secrets-not-synced", "shopcat-restart-loop"}
    for alarm in left_out.values():
        put_alarm(shop, alarm)
    aws(shop.twin, "logs").create_log_group(logGroupName=POD_LOGS_GROUP)
    for title, pattern, metric in (
        ("unsynced", UNSYNCED_PATTERN, UNSYNCED_METRIC),
        ("restarts", RESTART_PATTERN, RESTART_METRIC),
    ):
        inputs = {"name": title, "logGroupName": POD_LOGS_GROUP, "pattern": pattern}
        written = {"namespace": METRICS_NAMESPACE, "name": metric, "value": "1"}
        LogMetricFilter().create(lambda name: aws(shop.twin, name), {**inputs, "metricTransformation": written})  # type: ignore[arg-type]


def put_alarm(shop: Shop, alarm: Alarm) -> None:
    queries = [
        {"id": name, "metric": query(metric, alarm.period_seconds), "returnData": not alarm.expression}
        for name, metric in alarm.metrics.items()
    ]
    if alarm.expression:
        queries.append({"id": "result", "expression": alarm.expression, "returnData": True})
    inputs = {
        "name": alarm.name,
        "comparisonOperator": alarm.comparison,
        "threshold": alarm.threshold,
        "evaluationPeriods": alarm.periods,
        "datapointsToAlarm": alarm.datapoints,
        "treatMissingData": alarm.missing,
        "metricQueries": queries,
    }
    MetricAlarm().create(lambda service: aws(shop.twin, service), inputs)  # type: ignore[arg-type]


def query(metric: WatchedMetric, seconds: int) -> dict[str, object]:
    names = {"namespace": metric.namespace, "metricName": metric.name, "stat": metric.statistic}
    return {**names, "period": seconds, "dimensions": dict(metric.dimensions)}


def wait_until_quiet(watch: Watch, seconds: float) -> None:
    """Wait until every alarm has been judged and none is in ALARM."""
    deadline = time.monotonic() + seconds
    while set(watch.states) != set(watch.alarms) or watch.now_alarmed():
        assert time.monotonic() < deadline, (watch.now_alarmed(), watch.changes, watch.problems)
        time.sleep(2)


def test_no_alarm_tells_of_a_good_release(shop: Shop, watch: Watch, report: Report) -> None:
    shop.push("v1.1.0", DEFECT)
    wait_until_quiet(watch, 300)
    deadline = time.monotonic() + 300
    while watch.long_now:
        assert time.monotonic() < deadline, watch.long_now
        time.sleep(2)
    watch.long_alarms.clear()
    began = time.time()
    code, output = shop.up(tag="v1.1.0")
    assert code == 0, output
    assert shop.outputs()["liveRelease"] == "v1.1.0"
    seconds = time.time() - began
    time.sleep(90)  # the release's last minutes are written and judged
    fired = {name for time, name, state in watch.changes if state == "ALARM" and time >= began}
    failed = shop.failed(began)
    sent = sum(1 for outcome in shop.load.outcomes if outcome.due >= began)
    report.release = (
        f"- **The release**: {seconds:.0f} s, {len(failed)} of {sent} requests failed; in ALARM by their own windows: "
        f"{', '.join(sorted(watch.long_alarms)) or 'none'}, by windows of {WINDOW} minutes: {', '.join(sorted(fired)) or 'none'}."
    )
    assert failed == []
    assert sent > 1000
    assert watch.long_alarms == set()
    assert fired <= {"shopcat-both-colours"}


GROUPS = [list(group) for _, group in groupby(FAULTS, key=lambda each: each.group)]


@pytest.mark.parametrize("faults", GROUPS, ids=[str(group[0].group) for group in GROUPS])
def test_each_alarm_tells_of_its_fault_once_and_no_other_does(
    shop: Shop, watch: Watch, report: Report, faults: list[Fault]
) -> None:
    service.set_faults(shop.twin, delayScale=METRICS_SCALE)
    wait_until_quiet(watch, OVER_WITHIN_SECONDS)
    names = {fault.alarm for fault in faults}
    concerned = names.union(*(fault.also for fault in faults))
    begun: dict[str, float] = {}
    start = time.time()
    with contextlib.ExitStack() as stack:
        for fault in faults:
            begun[fault.alarm] = time.time()
            stack.enter_context(fault.begin(shop, watch))
        deadline = time.monotonic() + FIRES_WITHIN_SECONDS
        while not names <= watch.now_alarmed() and time.monotonic() < deadline:
            time.sleep(2)
        silent, mended = names - watch.now_alarmed(), time.time()
    # Not before: what raises in the block above would leave its faults on.
    assert not silent, (silent, watch.changes, watch.problems)
    wait_until_quiet(watch, OVER_WITHIN_SECONDS)
    fired = [name for time, name, state in watch.changes if state == "ALARM" and time >= start]
    for fault in faults:
        report.rows.append(row(watch, fault, begun[fault.alarm], mended))
    assert set(fired) <= concerned, "other alarms are quiet"
    assert sorted(name for name in fired if name in names) == sorted(names), "each fires once"


def row(watch: Watch, fault: Fault, begun: float, mended: float) -> str:
    """Return the page's row; seconds count from when the fault was begun, and from when its mending began."""
    alarmed = watch.changed_at(fault.alarm, "ALARM", begun)
    over = watch.changed_at(fault.alarm, "OK", mended)
    assert alarmed is not None
    assert over is not None
    alarm = every_alarm()[fault.alarm]
    window = f"{alarm.datapoints} of {alarm.periods} periods of {alarm.period_seconds // 60} min"
    return (
        f"| {fault.group} | `{fault.alarm}` | {fault.what} | {'real' if fault.is_real else 'injected'} | {window} "
        f"| {alarmed - begun:.0f} | {over - mended:.0f} | {', '.join(f'`{name}`' for name in sorted(fault.also))} "
        f"| {first_step(fault.alarm)} |"
    )


def first_step(alarm: str) -> str:
    text = (REPOSITORY / "docs" / "runbook.md").read_text()
    (found,) = re.findall(rf"^\| `{alarm}` \| .+ \| (.+) \|$", text, re.MULTILINE)
    return str(found)
