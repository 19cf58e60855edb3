import json

import pytest

from bench import documents
from bench.documents import BEGIN, COMPARED, DOCS, END, POST_MORTEMS


@pytest.mark.parametrize("file", [*POST_MORTEMS, *COMPARED])
def test_the_figures_are_those_of_the_bench(file: str) -> None:
    text = (DOCS / file).read_text()
    table = documents.tables(json.loads((DOCS / "bench.json").read_text()))[file]
    assert table in text
    assert documents.filled(text, table, file) == text


@pytest.mark.parametrize("file", POST_MORTEMS)
def test_a_post_mortem_is_short(file: str) -> None:
    assert documents.count_words((DOCS / file).read_text()) <= documents.MAX_WORDS


def test_only_what_stands_between_the_markers_changes() -> None:
    once = documents.filled(f"a {BEGIN} old {END} b", "new", "a")
    assert once == f"a {BEGIN}\nnew\n{END} b"
    assert documents.filled(once, "newer", "a") == once.replace("new", "newer")


def test_the_matrix_has_the_curve_as_far_as_it_was_measured() -> None:
    cell = {"accident": "nothing", "outcome": "released", "sent": 90, "failed": 3, "settled_seconds": 61.0}
    raw = {
        "schema": 2,
        "accidents": [{"name": "nothing", "title": "quiet"}, {"name": "slow", "title": "slow"}],
        "systems": [{"name": name, "title": name.upper()} for name in ("a", "b")],
        "cells": [{**cell, "system": "a"}, {**cell, "system": "b", "failed": 0, "given_up": True}],
        "curve": [
            {"system": "a", "points": [{"ratio": ratio, "sent": 7, "failed": int(ratio)} for ratio in (0.5, 1, 3)]},
            {"system": "b", "points": [{"ratio": 3, "sent": 8, "failed": 0}]},
            {"system": "c", "points": [{"ratio": 2, "sent": 8, "failed": 0}]},
        ],
        "undo": [{"system": "b", "sent": 9, "failed": 1, "seconds": 4.0}, {"system": "c, kept", "sent": 9}],
    }
    head, _, *rows = documents.matrix(raw, ["a", "b"]).splitlines()
    late = "one pod leaves while the load balancer is {} × as late as budgeted: failed"  # noqa: RUF001
    assert head == "| failed of sent, until at rest, outcome | A | B |"
    assert rows == [
        "| quiet | 3 of 90, 61 s, released | 0 of 90, given up after 300 s, released |",
        f"| {late.format(1)} | 1 of 7 | not run |",
        f"| {late.format(3)} | 3 of 7 | 0 of 8 |",
        f"| {documents.UNDOING} | not run | 1 of 9, 4 s |",
        "",
        "Accidents in which requests failed, of those that were run: A 1 of 1, B 0 of 1.",
        f"C, kept: {documents.UNDOING}: 0 of 9, 0 s.",
    ]


def test_words_are_counted_with_headings_and_without_marks() -> None:
    assert documents.count_words(f"# Two words\n\n- and | three | 4\n{BEGIN}{END}") == 5
