"""Each alarm has a fault that `make alarms` makes, or a written reason why not; and what is counted in logs."""

import re

import pytest

from infra.foundation.alarms import RESTART_PATTERN, SILENT_NODE_PATTERN
from infra.foundation.log_shipper import UNSYNCED_PATTERN
from tests.twin.alarm_faults import FAULTS, WITHOUT_FAULT
from tests.twin.watch import GOOD, is_match
from tests.unit.test_alarms import ALARMS
from twin.paths import REPOSITORY


def test_every_alarm_has_a_fault_or_a_reason_why_not() -> None:
    faults = [fault.alarm for fault in FAULTS]
    assert len(set(faults)) == len(faults)
    assert sorted([*faults, *WITHOUT_FAULT]) == sorted(ALARMS)
    assert all(len(reason) > 20 for reason in WITHOUT_FAULT.values())


def test_faults_that_are_on_at_the_same_time_stand_together() -> None:
    assert [fault.group for fault in FAULTS] == sorted(fault.group for fault in FAULTS)
    assert {name for fault in FAULTS for name in fault.also} <= set(ALARMS)
    assert {fault.alarm for fault in FAULTS if not fault.is_real} == set(GOOD)


def test_the_page_has_a_row_for_each_alarm_and_each_was_over() -> None:
    page = REPOSITORY / "docs" / "alarms.md"
    if not page.exists():
        pytest.skip("docs/alarms.md is not there: `make alarms` writes it and has not been run yet")
    rows = re.findall(r"^\| \d+ \| `(shopcat-[a-z-]+)` .* \| (\d+) \| (\d+) \|", page.read_text(), re.MULTILINE)
    assert sorted(name for name, *_ in rows) == sorted(fault.alarm for fault in FAULTS)


SILENT = (
    'I1129 10:52:01.219337       1 node_lifecycle_controller.go:965] "Node hasn\'t been updated" node="node2" '
    'duration="45.001s" nodeConditionType="Ready" currentCondition={"type":"Ready"}'
)
BACKED_OFF = (
    'E1129 10:52:01.219337       1 pod_workers.go:1324] "Error syncing pod, skipping" err="failed to \\"StartContainer\\" for '
    '\\"x\\" with CrashLoopBackOff: \\"back-off 10s restarting failed container=x\\"" pod="kube-system/x" podUID="1"'
)


@pytest.mark.parametrize(
    ("pattern", "line", "matches"),
    [
        (SILENT_NODE_PATTERN, SILENT, True),
        (SILENT_NODE_PATTERN, BACKED_OFF, False),
        (RESTART_PATTERN, BACKED_OFF, True),
        (RESTART_PATTERN, BACKED_OFF.replace("CrashLoopBackOff", "ImagePullBackOff"), False),
        (UNSYNCED_PATTERN, '{"msg":"Reconciler error","controller":"externalsecret","namespace":"shopcat"}', True),
        (
            UNSYNCED_PATTERN,
            '{"msg":"Reconciler error","controller":"externalsecret","namespace":"shopcat-database"}',
            True,
        ),
        (UNSYNCED_PATTERN, '{"msg":"Reconciler error","controller":"externalsecret","namespace":"pr-7"}', False),
        (UNSYNCED_PATTERN, '{"msg":"Reconciler error","controller":"secretstore","namespace":"shopcat"}', False),
        (UNSYNCED_PATTERN, "Reconciler error externalsecret shopcat", False),
    ],
)
def test_a_pattern_counts_its_lines_and_no_others(pattern: str, line: str, matches: object) -> None:
    assert is_match(pattern, line) is matches
