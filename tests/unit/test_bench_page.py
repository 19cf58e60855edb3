"""The page: small, complete, readable at any width, and drawn from one file of figures alone."""

import json
import re
import typing
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import page, schema
from bench.accidents import Outcome
from bench.drawing import about, chart, colours, matrix_table
from bench.drawing.matrix_table import anchor
from tests.unit.bench_sample import ACCIDENTS, NOT_RUN, REASON, SYSTEMS, sample
from twin.paths import REPOSITORY

SHORT = json.loads((REPOSITORY / "docs" / "bench-full.json").read_text())
SAMPLE = sample({**SHORT, "full": False})
DRAWN = page.draw(SAMPLE)
SMALLEST_PIXELS = 11
DASH = "\u2013"


class Cells(HTMLParser):
    """Reads the matrix: the classes and the text of each cell, row by row, and every id and link of the page."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[tuple[str, str]]] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.outside: list[str] = []
        self._inside = self._in_cell = False

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attributes}
        self.ids += [values["id"]] if "id" in values else []
        self.links += [values["href"]] if tag == "a" else []
        self.outside += [values[name] for name in ("src", "srcset", "data", "action") if name in values]
        self.outside += [tag] if tag in {"link", "img", "iframe"} else []
        if tag == "table":
            self._inside = "matrix" in values.get("class", "")
        elif self._inside and tag == "tr":
            self.rows.append([])
        elif self._inside and tag in {"td", "th"}:
            self._in_cell = tag == "td"
            if self._in_cell:
                self.rows[-1].append((values["class"], ""))

    def handle_data(self, data: str) -> None:
        if self._inside and self._in_cell:
            css, text = self.rows[-1][-1]
            self.rows[-1][-1] = (css, f"{text} {data}".strip())

    def handle_endtag(self, tag: str) -> None:
        if tag == "table":
            self._inside = self._in_cell = False


def parsed(text: str) -> Cells:
    cells = Cells()
    cells.feed(text)
    return cells


def test_a_whole_run_makes_a_small_page_that_loads_nothing() -> None:
    text = DRAWN
    assert len(text.encode()) < page.LARGEST_BYTES
    assert parsed(text).outside == []
    assert "url(" not in text
    assert "http" not in text.replace("http-502", "")
    assert "prefers-color-scheme:dark" in text


def test_every_link_leads_somewhere_and_every_id_stands_once() -> None:
    cells = parsed(DRAWN)
    assert len(set(cells.ids)) == len(cells.ids)
    assert {link.removeprefix("#") for link in cells.links} <= set(cells.ids)
    run = len(ACCIDENTS) * len(SYSTEMS) - len(NOT_RUN) - 1
    assert len([link for link in cells.links if "--" in link]) == run


def test_no_text_is_smaller_than_eleven_pixels() -> None:
    pictures = page.pictures(SAMPLE)
    assert set(pictures) == {"matrix.svg", "release.svg"}
    assert "<text" not in DRAWN, "text in a drawing that stretches would stretch too"
    for text in (DRAWN, *pictures.values()):
        sizes = [float(size) for size in re.findall(r"font(?:-size)?:[^;}]*?([\d.]+)px", text)]
        assert sizes
        assert min(sizes) >= SMALLEST_PIXELS
        assert not re.findall(r"font(?:-size)?:[^;}]*?[\d.]+(?:em|%|pt)", text)


@given(st.sets(st.tuples(st.sampled_from(sorted(ACCIDENTS)), st.sampled_from(sorted(SYSTEMS))), max_size=12))
def test_the_matrix_holds_every_cell_and_says_which_were_not_run(missing: set[tuple[str, str]]) -> None:
    cells = [cell for cell in SAMPLE["cells"] if (cell["accident"], cell["system"]) not in missing]
    known = {(cell["accident"], cell["system"]): cell for cell in cells}
    text = page.matrix_html(schema.read({**SAMPLE, "cells": cells, "short": None}))
    heads, *rows = parsed(text).rows
    assert heads == []
    assert len(rows) == len(ACCIDENTS)
    for accident, row in zip(ACCIDENTS, rows, strict=True):
        assert len(row) == len(SYSTEMS)
        for system, (css, shown) in zip(SYSTEMS, row, strict=True):
            cell = known.get((accident, system))
            assert ("ours" in css) == (system == "ours")
            if cell is None:
                assert (css.split()[0], shown) == ("not-run", "not run")
            elif cell["outcome"] == "unsupported":
                assert (css.split()[0], shown) == ("unsupported", f"{DASH} {REASON}")
            else:
                assert f"{cell['failed']:,} failed" in shown
                assert f"of {cell['sent']:,} in {cell['settled_seconds']:.0f} s" in shown
                assert cell["outcome"] in shown
                assert f'href="#{anchor(accident, system)}"' in text


def test_a_failure_is_told_by_a_sign_too() -> None:
    (_, *rows) = parsed(DRAWN).rows
    signs = {css.split()[0]: set() for row in rows for css, _ in row}
    for row in rows:
        for css, shown in row:
            signs[css.split()[0]].add(shown[0])
    assert signs == {
        "fine": {"✓"},
        "few": {"▲"},
        "many": {"✕"},
        "wrong": {"⚠"},
        "unsupported": {DASH},
        "not-run": {"n"},
    }
    marks = colours.signs([*SYSTEMS, "another", "one more"])
    assert len({sign for _, sign in marks.values()}) == len(marks)


def test_what_is_not_run_or_not_possible_is_said_in_the_other_sections_too() -> None:
    text = page.draw({**SAMPLE, "undo": SAMPLE["undo"][:2]})
    assert text.count(f"<p>{REASON}</p>") == 1, "beside the timelines"
    assert (
        "Not run: patched chart, blue/green; Argo Rollouts, canary; Argo Rollouts, blueGreen; this program.</p>" in text
    )
    assert f"patched chart, rolling: {DASH}</h3><p>Helm keeps no former version that still runs</p>" in text
    assert "Not run:" not in DRAWN


def test_a_newcomer_is_told_what_the_columns_and_the_outcomes_are() -> None:
    document = schema.read(SAMPLE)
    sentence = matrix_table.systems_html(document)
    assert f"6 ways to release the same shop: {'; '.join(SYSTEMS.values())}." in sentence
    assert f'href="#{matrix_table.CONFIGURED}"' in sentence
    untuned = [{"name": "ours", "title": "this program"}]
    assert "href" not in matrix_table.systems_html(schema.read({**SAMPLE, "systems": untuned}))
    after = matrix_table.matrix_html(document).partition("</table>")[2]
    assert all(f"<b>{word}</b>: " in after for word in typing.get_args(Outcome))


def test_a_release_that_was_given_up_is_not_called_at_rest() -> None:
    cell = {**SAMPLE["cells"][0], "settled_seconds": 312.0, "given_up": True}
    figures = {**SAMPLE, "cells": [cell], "short": None}
    text = page.draw(figures)
    assert text.count("given up after 300 s") == 3, "the headline, the matrix and the timeline"
    assert f"of {cell['sent']:,}, given up after 300 s" in text
    assert "312 s" not in text
    assert "given up, released" in page.pictures(figures)["matrix.svg"]


def test_every_section_is_there_and_a_document_without_figures_can_be_drawn() -> None:
    keys = [
        "matrix",
        "peers",
        "undo",
        "release",
        "floor",
        "curve",
        "latency",
        "expected",
        "timelines",
        "scenarios",
        "about",
    ]
    every = {**SAMPLE, "curve": [{"system": "ours", "points": [{"ratio": 1, "sent": 9, "failed": 0}]}]}
    assert [key for key in parsed(page.draw(every)).ids if key in keys] == keys
    assert [key for key in parsed(page.draw({"schema": 2})).ids if key in keys] == ["about"]
    only_matrix = {name: SAMPLE[name] for name in ("schema", "accidents", "systems")}
    assert page.draw(only_matrix).count("not run") >= len(ACCIDENTS) * len(SYSTEMS)


def test_a_long_mark_is_short_in_the_chart_and_whole_below_it() -> None:
    long = "refused: " + " ".join(["a tag that was released once"] * 8)
    cell = next(each for each in SAMPLE["cells"] if each["outcome"] == "released")
    text = page.draw({**SAMPLE, "cells": [{**cell, "marks": [{"at": 5.0, "text": long}]}]})
    assert f'<ol class="words always"><li>{long}</ol>' in text
    assert text.count(long) == 1
    assert f"<b>{chart.short(long)}</b>" in text
    assert len(chart.short(long)) < 40


def test_the_release_is_drawn_from_a_cell_with_its_steps() -> None:
    (cell,) = (dict(each) for each in SAMPLE["cells"] if (each["accident"], each["system"]) == ("nothing", "ours"))
    began = cell["began"]
    cell["steps"] = [{"at": began + at, "name": name} for at, name in ((5, "claim"), (9, "canary"), (30, "shift"))]
    cell["floor"] = [["canary", 15.0], ["settle and two metric minutes", 100.0]]
    text = page.draw({**SAMPLE, "cells": [cell], "short": None})
    assert "<b>canary</b> from 9 s on, 21 s: 10 % of the requests" in text
    assert f"{cell['seconds'] / 115:.2f} of its floor" in text
    assert "weights in the load balancer&#x27;s rule" in text


@pytest.mark.parametrize("sign", ["<b onload=x>", "\"'", "&amp;"])
def test_texts_of_the_figures_are_no_markup(sign: str) -> None:
    text = f"before{sign}after"
    figures = {
        "schema": 2,
        "accidents": [{"name": "nothing", "title": text, "reason": text}],
        "systems": [{"name": "ours", "title": text, "tuned": text}, {"name": "legacy", "title": text}],
        "cells": [
            {"accident": "nothing", "system": "legacy", "outcome": "unsupported", "reason": text},
            {
                "accident": "nothing",
                "system": "ours",
                "outcome": "stuck",
                "sent": 1,
                "detail": text,
                "by_failure": {text: 1},
            },
        ],
        "undo": [{"system": "ours", "sent": 1, "steps": [{"name": text, "seconds": 1}], "series": {text: _SERIES}}],
        "machine": {text: text},
        "problems": [text],
    }
    drawn = page.draw(figures)
    assert text not in drawn
    assert drawn.count(escape(text)) > 15
    picture = page.pictures(figures)["matrix.svg"]
    assert "<b" not in picture
    assert ET.fromstring(picture).get("aria-label")  # noqa: S314 - our own


_SERIES = {"first": 0, "counts": [1, 2]}


def test_pictures_are_well_formed_and_say_what_they_show() -> None:
    for text in page.pictures(SAMPLE).values():
        picture = ET.fromstring(text)  # noqa: S314 - our own
        assert picture.get("aria-label")
        width = float(picture.get("width", "0"))
        places = [float(each.get("x", "0")) for each in picture.iter("{http://www.w3.org/2000/svg}text")]
        assert places
        assert all(0 <= place <= width for place in places)


def test_the_picture_counts_the_accidents_that_were_not_run() -> None:
    cells = [cell for cell in SAMPLE["cells"] if cell["accident"] in {"nothing", "slow"}]
    text = page.pictures({**SAMPLE, "cells": cells})["matrix.svg"]
    assert f"Not run: {len(ACCIDENTS) - 2} more." in text
    assert "Not run" not in page.pictures(SAMPLE)["matrix.svg"]
    assert text.count("not run") == sum(accident in {"nothing", "slow"} for accident, _ in NOT_RUN)


def test_figures_of_one_run_are_a_document_of_only_these() -> None:
    assert schema.read(SHORT).short == SHORT
    assert schema.read(SHORT).is_full
    with pytest.raises(pydantic.ValidationError, match="misspelt"):
        schema.read({"schema": 2, "cells": [{**SAMPLE["cells"][0], "misspelt": 1}]})


@pytest.mark.parametrize("path", page.PUBLISHED, ids=lambda path: path.stem)
def test_the_committed_page_is_that_of_the_committed_figures_and_both_are_small(path: Path) -> None:
    figures: dict[str, Any] = json.loads(path.read_text())
    assert path.with_suffix(".html").read_text() == page.draw(figures)
    if not schema.read(figures).is_full:
        for name, text in page.pictures(figures).items():
            assert (path.parent / name).read_text() == text


def test_the_page_and_its_pictures_are_written_beside_the_figures(tmp_path: Path) -> None:
    (tmp_path / "bench.json").write_text(json.dumps(SAMPLE))
    (tmp_path / "bench-full.json").write_text(json.dumps(SHORT))
    page.main([tmp_path / "bench.json", tmp_path / "bench-full.json"])
    written = {file.name for file in tmp_path.iterdir()}
    assert written == {"bench.json", "bench-full.json", "bench.html", "bench-full.html", "matrix.svg", "release.svg"}
    assert (tmp_path / "bench.html").read_text() == DRAWN


def test_names_are_spoken_with_their_units() -> None:
    names = {"memoryGibibytes": "memory, GiB", "controller_lag_seconds": "controller lag, s", "kernel": "kernel"}
    assert {name: about.spoken(name) for name in names} == names
    assert about.spoken("requests per second") == "requests per second"
