"""The next version, against a model of git's commits and tags, and which commits may be released at all."""

import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.errors import ShopCatError
from infra.release.record import AFTER_VARIABLE, Provenance, Record
from infra.release.state import Attempt, LedgerState, Live, Release
from pipeline import history, release, version
from pipeline.steps import Steps
from tests.unit.releases import template

WHO = {f"GIT_{who}_{what}": "a@example.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


def git(directory: Path, *arguments: str | bytes) -> str:
    result = subprocess.run(
        ["git", *arguments], cwd=directory, check=True, capture_output=True, env={**os.environ, **WHO}
    )
    return result.stdout.decode().strip()


def commit(directory: Path, message: str) -> str:
    git(directory, "commit", "--quiet", "--allow-empty", "--message", message)
    return git(directory, "rev-parse", "HEAD")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone of main on which v1.1.0 is."""
    git(tmp_path, "init", "--quiet", "--initial-branch=main")
    commit(tmp_path, "feat: before")
    git(tmp_path, "tag", "v1.1.0")
    return tmp_path


# Messages -------------------------------------------------------------------------------------------------------------

TYPES = {"feat": version.MINOR, "fix": version.PATCH, "perf": version.PATCH, "revert": version.PATCH}
OTHERS = ("docs", "chore", "wip", "fixup", "feature", "improvement")
WORDS = st.text("abc äß\u00a0漢.,-\"'`$!?#", min_size=1, max_size=20).filter(str.strip)


def cased(word: str) -> st.SearchStrategy[str]:
    return st.sampled_from([word, word.upper(), word.title()])


@st.composite
def messages(draw: st.DrawFn) -> tuple[str, int | None]:
    """A message by the grammar, and what it raises."""
    if draw(st.booleans()) and draw(st.booleans()):
        word = draw(st.sampled_from(["Revert", "Reapply"]))
        return f'{word} "feat!: one"\n\nThis reverts commit 1234567.', version.PATCH
    name = draw(st.sampled_from([*TYPES, *OTHERS]))
    scope = draw(st.sampled_from(["", "()", "(cart)", "(a(b))", " (cart)", "(a, b/c)", "(a: b)"]))
    breaking = draw(st.sampled_from(["", "", "", "!"]))
    gap = draw(st.sampled_from([": ", ":", " : ", ":\u00a0", ":\n"]))
    more = draw(st.sampled_from(["", "\nthat goes on", "\n\na body\nof two lines", "\r\n\r\nwritten elsewhere"]))
    footer = draw(
        st.sampled_from(
            ["", "", "", "\n\nBREAKING CHANGE: x", "\n\nA: b\nBREAKING-CHANGE: x", "\n\nbreaking change: x"]
        )
    )
    level = version.MAJOR if breaking or "BREAKING" in footer else TYPES.get(name)
    return f"{draw(cased(name))}{scope}{breaking}{gap}{draw(WORDS).strip()}{more}{footer}", level


@settings(max_examples=1000)
@given(messages())
def test_a_message_raises_what_it_means_however_it_is_spelt(given: tuple[str, int | None]) -> None:
    message, level = given
    assert version.Commit("0" * 40, message.replace("\r\n", "\n")).level == level


@given(st.text())
def test_any_text_is_a_message(text: str) -> None:
    one = version.Commit("0" * 40, text)
    assert one.level in (None, version.MAJOR, version.MINOR, version.PATCH)
    assert "\n" not in one.describe()


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        ("fix: a price\nthat was wrong", "v1.1.1"),
        ("feat(a(b)): more cats", "v1.2.0"),
        ("fix(): a price", "v1.1.1"),
        ("fix():", "v1.1.1"),
        ("fix a price", None),
        ("Fix the price: it was wrong", None),
        ("docs: what a `BREAKING CHANGE: x` is", None),
    ],
)
def test_what_was_skipped_in_silence(
    clone: Path, message: str, wanted: str | None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(clone, message)
    assert version.next_version(clone) == wanted
    monkeypatch.setattr("sys.argv", ["version", "--directory", str(clone)])
    monkeypatch.delenv("GITHUB_OUTPUT", raising=False)
    assert version.main() == 0
    said = capsys.readouterr().out
    assert said.startswith(wanted or "nothing to release since v1.1.0\nrelease nothing (expected fix:")
    assert git(clone, "rev-parse", "HEAD")[:9] in said


# Histories ------------------------------------------------------------------------------------------------------------

ODD_TAGS = [b"v01.2.3", b"v2026.01.02", b"v9.9.9\xff", b"v1.-2", b"v9.9", b"v9.9.9-rc1", b"x\xc2\xa0v9.9.9", b"latest"]


@dataclass
class Model:
    """Commits by number, each after its parents; tags by name."""

    parents: list[list[int]] = field(default_factory=list)
    said: list[tuple[str, int | None]] = field(default_factory=list)
    tags: dict[bytes, tuple[int, bool]] = field(default_factory=dict)
    """Name → commit, annotated."""

    def reach(self, commit: int) -> set[int]:
        """It and its ancestors."""
        found, todo = set(), [commit]
        while todo:
            one = todo.pop()
            if one not in found:
                found.add(one)
                todo += self.parents[one]
        return found

    def write(self, directory: Path, main: int) -> list[str]:
        """The same in git; each commit's id."""
        subprocess.run(["git", "init", "--quiet", "--initial-branch=elsewhere"], cwd=directory, check=True)
        stream = b""
        for number, (parents, (message, _)) in enumerate(zip(self.parents, self.said, strict=True)):
            data = message.encode()
            stream += b"commit refs/work/c\nmark :%d\ncommitter a <a@example.com> %d +0000\n" % (
                number + 1,
                1000 + number,
            )
            stream += b"data %d\n%s\n" % (len(data), data)
            for kind, parent in zip([b"from", *[b"merge"] * 9], parents, strict=False):
                stream += b"%s :%d\n" % (kind, parent + 1)
            if not parents:
                stream += b"deleteall\n"
            stream += b"\n" + (b"reset refs/work/c\n" if number + 1 < len(self.parents) else b"")
        for name, (number, annotated) in self.tags.items():
            if annotated:
                stream += b"tag %s\nfrom :%d\ntagger a <a@example.com> 1000 +0000\ndata 1\nx\n" % (name, number + 1)
            else:
                stream += b"reset refs/tags/%s\nfrom :%d\n\n" % (name, number + 1)
        stream += b"reset refs/remotes/origin/main\nfrom :%d\n\n" % (main + 1)
        marks = directory / "marks"
        command = ["git", "fast-import", "--quiet", f"--export-marks={marks}"]
        subprocess.run(command, cwd=directory, check=True, input=stream)
        found = dict(line.split() for line in marks.read_text().splitlines())
        return [found[f":{number + 1}"] for number in range(len(self.parents))]

    def expected(self, head: int, main: int) -> str | None:
        """By the rules, said once more over sets."""
        versions = {
            tuple(map(int, found.groups())): number
            for name, (number, _) in self.tags.items()
            if (found := re.fullmatch(rb"v(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)", name))
        }
        of_main, seen = self.reach(main), self.reach(head)
        if any(head in self.reach(at) and at != head and at in of_main for at in versions.values()):
            return None
        own = [one for one, at in versions.items() if at == head]
        if own:
            return "v{}.{}.{}".format(*max(own))
        base = max((one for one, at in versions.items() if at in seen), default=None)
        new = seen - (self.reach(versions[base]) if base else set())
        levels = [level for number in new if (level := self.said[number][1]) is not None]
        if not levels:
            return None
        found = base or (1, 0, 0)
        while found == base or found in versions:
            major, minor, patch = found
            found = [(major + 1, 0, 0), (major, minor + 1, 0), (major, minor, patch + 1)][min(levels)]
        return "v{}.{}.{}".format(*found)


@st.composite
def models(draw: st.DrawFn) -> Model:
    model = Model()
    for number in range(draw(st.integers(1, 7))):
        latest = list(range(max(0, number - 3), number))
        model.parents.append(
            draw(st.lists(st.sampled_from(latest), min_size=1, max_size=2, unique=True)) if latest else []
        )
        model.said.append(draw(messages()))
    names = [b"v%d.%d.%d" % (a, b, c) for a in (1, 2) for b in (0, 1) for c in (0, 1)] + ODD_TAGS
    chosen = draw(st.lists(st.sampled_from(names), max_size=6, unique=True))
    model.tags = {name: (draw(st.integers(0, len(model.parents) - 1)), draw(st.booleans())) for name in chosen}
    return model


@settings(max_examples=60, deadline=None)
@given(models(), st.data())
def test_the_next_version_of_any_history_is_the_models(model: Model, data: st.DataObject) -> None:
    main = data.draw(st.integers(0, len(model.parents) - 1), label="main")
    head = data.draw(st.integers(0, len(model.parents) - 1), label="head")
    with TemporaryDirectory() as folder:
        directory = Path(folder)
        ids = model.write(directory, main)
        git(directory, "update-ref", "--no-deref", "HEAD", ids[head])
        if head not in model.reach(main):
            with pytest.raises(ShopCatError, match="is not on main"):
                version.next_version(directory)
            return
        found = version.next_version(directory)
        assert found == model.expected(head, main)
        if found:
            version.put_tag(directory, found, {})  # never refused: a version that is taken is passed over
            assert version.next_version(directory) == found


def test_an_older_commit_that_runs_again_makes_no_version(clone: Path) -> None:
    older = commit(clone, "fix: a price")
    commit(clone, "feat: more cats")
    assert version.next_version(clone) == "v1.2.0"
    git(clone, "tag", "--annotate", "--message", "x", "v1.2.0")
    assert version.next_version(clone) == "v1.2.0"
    git(clone, "checkout", "--quiet", older)
    assert version.next_version(clone) is None
    git(clone, "tag", "v1.1.1")
    assert version.next_version(clone) is None


def test_a_hotfix_counts_once_it_is_merged_and_a_branch_that_is_not_blocks_nothing(clone: Path) -> None:
    git(clone, "checkout", "--quiet", "-b", "hotfix")
    commit(clone, "fix: quickly")
    git(clone, "tag", "v1.1.1")
    git(clone, "checkout", "--quiet", "main")
    commit(clone, "fix: a price")
    assert version.next_version(clone) == "v1.1.2"
    git(clone, "merge", "--quiet", "--no-edit", "hotfix")
    assert version.next_version(clone) == "v1.1.2"
    assert "quickly" not in version.notes(clone)


def test_a_tag_on_a_file_is_no_obstacle(clone: Path) -> None:
    git(clone, "tag", "v7.0.0", git(clone, "rev-parse", "HEAD^{tree}"))
    commit(clone, "fix: a price")
    assert version.next_version(clone) == "v1.1.1"


# What is live ---------------------------------------------------------------------------------------------------------


def test_only_a_commit_that_contains_the_live_one_is_released(clone: Path) -> None:
    older = commit(clone, "fix: a price")
    live = commit(clone, "feat: more cats")

    def check(head: str, commit_of_live: str = live, tag: str = "v1.2.0") -> Callable[[], None]:
        git(clone, "checkout", "--quiet", head)
        return lambda: history.check_contains_live(clone, f"{tag}-r1", tag, commit_of_live)

    check(live)()
    newer = commit(clone, "fix: more")
    check(newer)()
    check(newer, "", "v1.1.0")()  # by its git tag, if it was released by hand
    with pytest.raises(ShopCatError, match=r"behind v1\.2\.0-r1, which is live.*rollback"):
        check(older)()
    with pytest.raises(ShopCatError, match=r"not in this clone.*git push origin"):
        check(newer, "a" * 40)()
    with pytest.raises(ShopCatError, match=r"no commit of it.*git push origin"):
        check(newer, "", "v1.2.0")()
    git(clone, "checkout", "--quiet", "-b", "beside", older)
    with pytest.raises(ShopCatError, match=r"merge v1\.2\.0 into main"):
        check(commit(clone, "fix: beside"))()
    with pytest.raises(ShopCatError, match="not on main"):
        history.check_on_main(clone)


def test_the_release_job_compares_its_commit_with_the_ledgers(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    older = commit(clone, "fix: a price")
    live = commit(clone, "feat: more cats")
    newer = commit(clone, "fix: more")
    record = Record("v1.2.0", 1, template(1), Provenance(commit=live))
    known = Release(record, "live", "green", (Attempt(1, "", live, "", "", "live"),))
    state = LedgerState(1, live=Live("v1.2.0", 1, "green"), releases={known.name: known})
    monkeypatch.setattr(release, "read_ledger", lambda _: state)
    monkeypatch.setattr(release.ReleaseJob, "stack", lambda *_: None)
    job = release.ReleaseJob({"GITHUB_ACTIONS": "true"}, Steps())
    ended = {}
    for head in (older, live, newer):
        git(clone, "checkout", "--quiet", head)
        try:
            ended[head] = release.compare_with_live(job, clone)
        except ShopCatError as refused:
            ended[head] = str(refused).partition(",")[0]
    assert ended == {older: f"commit {older} is behind v1.2.0-r1", live: "v1.2.0-r1", newer: "v1.2.0-r1"}
    monkeypatch.setattr(release, "read_ledger", lambda _: LedgerState())
    assert release.compare_with_live(job, clone) == "nothing"


def test_a_release_that_is_refused_builds_nothing_and_what_was_compared_reaches_the_program(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[object] = []

    def compare(_: release.ReleaseJob) -> str:
        if "compared" in done:
            raise ShopCatError("behind")
        done.append("compared")
        return "v1.1.0-r1"

    monkeypatch.setattr(release, "compare_with_live", compare)
    monkeypatch.setattr(release, "push", lambda *_: done.append("pushed"))
    monkeypatch.setattr(release, "refuse_broken_rules", lambda *arguments: done.append(("judged", arguments[-1])))
    monkeypatch.setattr(release, "_up_or_abort", lambda *arguments: done.append(arguments[-1]))
    job = release.ReleaseJob({"GITHUB_ACTIONS": "true"}, Steps())
    release.release(job, "v1.2.0")
    after = {AFTER_VARIABLE: "v1.1.0-r1"}
    assert done == ["compared", "pushed", ("judged", after), after]
    with pytest.raises(ShopCatError, match="behind"):
        release.release(job, "v1.2.0")
    assert len(done) == 4
