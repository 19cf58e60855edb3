"""A stack's file: read as Pulumi reads it, or refused in one message."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from infra import settings
from infra.errors import ShopCatError
from infra.settings import stack_file
from pipeline import environment, plan, stack
from pipeline.stack import Backend
from tests.unit.test_settings import COMMITTED

if TYPE_CHECKING:
    from pathlib import Path

PULUMI = {
    "on": "on", "OFF": "OFF", "yes": "yes", "No": "No", "y": "y", "true": "true", "True": "true", "TRUE": "true",
    "false": "false", "~": "", "null": "", "Null": "", "12:30": "12:30", "1:2:3": "1:2:3", "0777": "511", "0o17": "15",
    "0x1F": "31", "0b11": "3", "1_000": "1000", "1e3": "1000", "1.10": "1.1", "1.0": "1", "1.5": "1.5", "-0": "0",
    "+5": "5", ".5": "0.5", "5.": "5", "2026-01-02": "2026-01-02 00:00:00 +0000 UTC", "=": "=", "09": "9", "5": "5",
    "-12": "-12", "0": "0", "1.2.3": "1.2.3", "e1": "e1", "v1.4.0": "v1.4.0", "1.35.7-20260903": "1.35.7-20260903",
    "2026-01": "2026-01",
}  # fmt: skip
"""A scalar without quotes, and the text that Pulumi hands to the program for it: measured with `LoadProjectStackBytes` and
`Map.Decrypt` of github.com/pulumi/pulumi/sdk/v3 3.250.0."""
REWRITTEN = {text for text, value in PULUMI.items() if value != text} - {"True", "TRUE", "~", "null", "Null"}


def parse(text: str) -> dict[str, object]:
    return stack_file.parse(text.encode(), "Pulumi.prod.yaml")


@pytest.mark.parametrize("text", sorted(set(PULUMI) - REWRITTEN))
def test_a_scalar_is_what_pulumi_hands_over(text: str) -> None:
    found = parse(f"config:\n  shopcat:a: {text}\n")["config"]
    assert stack_file.handed_over(found) == {"shopcat:a": PULUMI[text]}  # type: ignore[arg-type]


@pytest.mark.parametrize("text", sorted(REWRITTEN))
def test_a_scalar_that_pulumi_writes_otherwise_is_refused_and_taken_in_quotes(text: str) -> None:
    with pytest.raises(ShopCatError, match=r"line 2: Pulumi reads .* put it in quotes"):
        parse(f"config:\n  shopcat:a: {text}\n")
    assert parse(f'config:\n  shopcat:a: "{text}"\n')["config"] == {"shopcat:a": text}


def test_a_key_is_text_as_it_is_for_pulumi() -> None:
    found = parse("config:\n  shopcat:env:\n    OFF: 12:30\n    on: on\n")["config"]
    assert found == {"shopcat:env": {"OFF": "12:30", "on": "on"}}


def test_a_setting_without_a_namespace_is_the_project_s() -> None:
    assert parse("config:\n  domain: a.example\n")["config"] == {"shopcat:domain": "a.example"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "`config:` is missing"),
        (b"- a", "`config:` is missing"),
        (b"text", "`config:` is missing"),
        (b"other: 1", "`config:` is missing"),
        (b"config:", "`config:` holds no settings"),
        (b"config: []", "`config:` holds no settings"),
        (b"config: text", "`config:` holds no settings"),
        (b"config:\n  a: \xff", "line 2 is not UTF-8"),
        ("config:\n  a: é".encode("utf-16"), "not UTF-8"),
        (b"config:\n  a: \x00", "no YAML"),
        (b"config:\n\ta: 1", "line 2"),
        (b"config: {a: 1", "line 1"),
        (b"config:\n  a: 1\n  a: 2", "line 3: 'a' is there twice"),
        (b"config:\n  v: {a: 1, a: 1}", "'a' is there twice"),
        (b"config:\n  a: 1\n  shopcat:a: 2", "shopcat:a is there twice"),
        (b"config: {}\nconfig: {}", "'config' is there twice"),
        (b"config:\n  1: a", "a key that is no text"),
        (b"config:\n  true: a", "a key that is no text"),
        (b"config:\n  ? [a]\n  : b", "a key that is no text"),
        (b"config:\n  <<: {a: 1}", "quotes"),
        (b"config:\n  a: &x 1\n  b: *x", "anchors and aliases"),
        (b"config:\n  a: !!str 1", "tag"),
        (b"config:\n  a: !secret 1", "tag"),
        (b"config:\n  v: [a:, b]", "a key in a list"),
        (b"config: {}\n---\nconfig: {}", "another document"),
        (b"config:\n  a:b:c: 1", "no setting's name"),
        (b"config: " + b"[" * 100_000, "deep"),
        (b"config:\n" + b"".join(b" " * n + b"a:\n" for n in range(1, 400)), "deep"),
        (b"config:\n  a: " + b"9" * 5000, "quotes"),
    ],
)
def test_a_file_that_pulumi_would_read_otherwise_is_refused(content: bytes, words: str) -> None:
    with pytest.raises(ShopCatError) as refused:
        stack_file.parse(content, "Pulumi.prod.yaml")
    assert str(refused.value).startswith("Pulumi.prod.yaml: ")
    assert words in str(refused.value)


def test_each_reader_of_a_file_refuses_it_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bootstrap, the program (previews) and the pipeline."""
    path = tmp_path / "Pulumi.prod.yaml"
    path.write_bytes(b"config:\n  aws:region: eu-central-1\n  shopcat:domain: \xff\n")
    for module in (environment, stack):
        monkeypatch.setattr(module, "PRODUCTION_FILE", path)
    for read in (
        lambda: settings.read_stack(path),
        lambda: settings.read_preview(path, {}),
        environment.region,
        lambda: stack.production(Backend("", ""), {}),
        lambda: stack.preview_stack(12, Backend("", ""), {"SHOPCAT_STACK_FILE": str(path)}),
    ):
        with pytest.raises(ShopCatError, match="line 3 is not UTF-8"):
            read()
    missing = tmp_path / "none.yaml"
    with pytest.raises(ShopCatError, match="can't be read"):
        stack_file.read_stack_file(missing)


def test_a_byte_order_mark_is_no_part_of_the_first_key() -> None:
    assert stack_file.parse(b"\xef\xbb\xbfconfig: {a: b}", "f") == {"config": {"shopcat:a": "b"}}


@pytest.mark.parametrize(
    "text", [*PULUMI, "", " a ", "a: b", "#", "'", '"', "é\x85\u2028\x07\n\t", "\U0001f600", "*a", "?"]
)
def test_a_copy_says_the_same_to_whoever_reads_it(text: str) -> None:
    document = {
        "secretsprovider": text,
        "config": {"shopcat:a": text, "shopcat:b": {text or "k": [text, 1, True, None, 1.5]}},
    }
    assert parse(stack_file.dump(document)) == document


def test_the_committed_files_are_read() -> None:
    assert stack_file.read_stack_file(COMMITTED)["config"]["aws:region"] == "eu-central-1"
    assert "shopcat:drain" in stack_file.read_stack_file(COMMITTED.with_name("Pulumi.pr.yaml"))["config"]


def test_the_first_step_of_a_job_reads_who_reaches_the_api_once() -> None:
    line = "  shopcat:apiAccess: public\n"
    assert plan.api_access(f"config:\n{line}") == "public"
    with pytest.raises(ShopCatError, match="two lines"):
        plan.api_access(f"config:\n{line}  shopcat:apiAccess: private\n")
