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


def test_words_are_counted_with_headings_and_without_marks() -> None:
    assert documents.count_words(f"# Two words\n\n- and | three | 4\n{BEGIN}{END}") == 5
