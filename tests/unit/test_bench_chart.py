"""Charts: what they draw is what was counted, and no two labels touch."""

import re

from hypothesis import given
from hypothesis import strategies as st

from bench.drawing import chart, timeline
from bench.figures import BUCKET_SECONDS
from bench.histogram import FIRST_SECONDS, RATIO, histogram
from bench.schema import Series

FRACTIONS = st.floats(0, 1)


@given(st.lists(FRACTIONS, min_size=1, max_size=40), st.data())
def test_an_area_is_as_high_as_its_columns(heights: list[float], data: st.DataObject) -> None:
    edges = sorted(data.draw(st.lists(FRACTIONS, min_size=len(heights) + 1, max_size=len(heights) + 1)))
    path = chart.step_path(edges, heights)
    assert path.endswith("z")
    x, y = (int(number) for number in re.findall(r"^M(\d+) (\d+)", path)[0])
    drawn = {}
    for step, text in re.findall(r"([hv])(-?\d+)", path):
        if step == "v":
            y += int(text)
        else:
            drawn.update(dict.fromkeys(range(x, x + int(text)), y))
            x += int(text)
    places = [round(edge * chart.WIDTH) for edge in edges]
    wanted = {
        place: chart.HEIGHT - round(height * chart.HEIGHT)
        for left, right, height in zip(places, places[1:], heights, strict=False)
        for place in range(left, right)
    }
    assert drawn == wanted
    assert y == chart.HEIGHT


@given(st.lists(st.tuples(FRACTIONS, st.floats(1, 300)), max_size=15))
def test_no_two_labels_touch_and_none_leaves_the_chart(marks: list[tuple[float, float]]) -> None:
    marks = sorted(marks)
    labels = chart.stagger([place for place, _ in marks], [width for _, width in marks], 1000)
    boxes = [
        (label.row, place * 1000 - (width if label.flipped else 0), width)
        for (place, width), label in zip(marks, labels, strict=True)
    ]
    for number, (row, left, width) in enumerate(boxes):
        assert left + width <= 1000 + 1e-6
        for other_row, other_left, other_width in boxes[:number]:
            assert row != other_row or left >= other_left + other_width - 1e-6 or left + width <= other_left + 1e-6


@given(
    st.lists(st.integers(0, 400), min_size=1, max_size=300),
    st.integers(0, 1000),
    st.integers(1, 120),
)
def test_a_timeline_counts_every_request_in_few_columns(counts: list[int], first: int, points: int) -> None:
    series = {"blue": Series(first=first * BUCKET_SECONDS, counts=counts)}
    start, end = series["blue"].first, series["blue"].end
    columns = timeline.buckets(series, start, end, points)
    assert columns.columns <= points + 1
    assert round(sum(columns.rates["blue"]) * columns.seconds) == sum(counts)
    edges = timeline.edges_of(columns, start, end)
    assert (edges[0], edges[-1]) == (0, 1)


@given(st.just(0.0) | st.floats(1e-3, 1e7), st.floats(-500, 500), st.floats(1, 15_000))
def test_axes_have_few_round_ticks(value: float, start: float, length: float) -> None:
    ceiling = chart.nice_ceiling(value)
    assert ceiling >= value * (1 - 1e-9)
    assert f"{ceiling:e}"[0] in "125"
    ticks = chart.time_ticks(start, start + length)
    assert len(ticks) <= 8
    assert all(-1e-9 <= tick.at <= 1 + 1e-9 for tick in ticks)
    assert all(tick.text.endswith((" s", " min")) for tick in ticks)
    assert len({tick.text for tick in ticks}) == len(ticks)


@given(st.lists(st.floats(1e-5, 60), max_size=100))
def test_a_histogram_counts_every_latency_between_its_bounds(latencies: list[float]) -> None:
    counted = histogram(latencies)
    counts = counted["counts"]
    assert sum(counts) == len(latencies)
    for number, count in enumerate(counts):
        low, high = FIRST_SECONDS * RATIO**number, FIRST_SECONDS * RATIO ** (number + 1)
        inside = [each for each in latencies if max(each, FIRST_SECONDS) >= low * (1 - 1e-9)]
        assert count <= len([each for each in inside if each <= high * (1 + 1e-9)])
