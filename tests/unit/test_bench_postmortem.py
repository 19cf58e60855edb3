import json

import pytest

from bench import postmortem
from bench.postmortem import BEGIN, DOCS, END, FILES


@pytest.mark.parametrize("file", FILES)
def test_the_figures_are_those_of_the_bench_and_the_document_is_short(file: str) -> None:
    text = (DOCS / file).read_text()
    raw = json.loads((DOCS / "bench.json").read_text())
    table = postmortem.figures(raw, file)
    assert table in text
    assert postmortem.fill(text, table) == text
    assert postmortem.count_words(text) <= postmortem.MAX_WORDS


def test_only_what_stands_between_the_markers_changes() -> None:
    once = postmortem.fill(f"a {BEGIN} old {END} b", "new")
    assert once == f"a {BEGIN}\nnew\n{END} b"
    assert postmortem.fill(once, "newer") == once.replace("new", "newer")


def test_words_are_counted_with_headings_and_without_marks() -> None:
    assert postmortem.count_words(f"# Two words\n\n- and | three | 4\n{BEGIN}{END}") == 5
