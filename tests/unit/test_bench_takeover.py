"""The rehearsal's page says what was counted, step by step, and which orders were lost."""

from bench.takeover_page import NEW, OLD, Step, page

STEPS = [
    Step("plan", 0.0, 12.4, "0 errors", {OLD: 120}, {OLD: 0}),
    Step("DNS: 1 % new", 20.0, 85.0, "", {OLD: 700, NEW: 650}, {OLD: 0, NEW: 3}),
]
SAME = {"cluster": "arn, made 10:00:00"}


def test_each_step_has_its_counts_and_a_system_without_load_has_none() -> None:
    text = page(STEPS, SAME, SAME, (70, []), 4)
    assert "| plan | 12 | 0 of 120 | - | 0 errors |" in text
    assert "| DNS: 1 % new | 65 | 0 of 700 | 3 of 650 | - |" in text
    assert "Orders confirmed to users: 70; of these not stored exactly once: 0." in text
    assert "4 commands were killed" in text
    assert "| cluster | arn, made 10:00:00 | arn, made 10:00:00 |" in text


def test_a_lost_order_is_counted() -> None:
    assert "not stored exactly once: 2." in page(STEPS, SAME, SAME, (70, ["a", "b"]), 4)
