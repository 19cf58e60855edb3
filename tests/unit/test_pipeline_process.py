"""Programs that the pipeline runs: any bytes they say are shown, and none is left running."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.errors import ShopCatError
from pipeline import process
from twin.paths import REPOSITORY

ECHO = "import sys; sys.stdout.buffer.write(bytes.fromhex(sys.argv[1])); sys.exit(int(sys.argv[2]))"


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200), st.sampled_from([0, 3]))
def test_any_bytes_are_shown_and_returned(capsys: pytest.CaptureFixture[str], said: bytes, code: int) -> None:
    command = [sys.executable, "-c", ECHO, said.hex(), str(code)]
    wanted = said.decode(errors="replace").replace("\r\n", "\n").replace("\r", "\n")
    finished = process.show(command)
    assert (finished.code, finished.text) == (code, wanted)
    capsys.readouterr()
    if code:
        with pytest.raises(ShopCatError, match="exit 3"):
            process.capture(command)
    else:
        assert process.capture(command) == wanted


def test_an_output_that_can_not_show_it_shows_something_else() -> None:
    said = "a \u2713".encode().hex()
    script = f"from pipeline import process; process.show([{sys.executable!r}, '-c', {ECHO!r}, {said!r}, '0'])"
    result = subprocess.run(
        [sys.executable, "-c", script],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONIOENCODING": "ascii:strict"},
        capture_output=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == b"a ?"


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize("stubborn", [False, True])
def test_a_program_is_ended_when_its_output_can_not_be_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, stubborn: bool
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("builtins.print", broken)
    monkeypatch.setattr(process, "GRACE_SECONDS", 2)
    path = tmp_path / "pid"
    ignored = "signal.signal(signal.SIGINT, signal.SIG_IGN)" if stubborn else "pass"
    script = (
        f"import os, pathlib, signal, time\n{ignored}\npathlib.Path({str(path)!r}).write_text(str(os.getpid()))\n"
        "os.write(1, b'x\\n')\ntime.sleep(60)"
    )
    began = time.monotonic()
    with pytest.raises(BrokenPipeError):
        process.show([sys.executable, "-c", script])
    assert gone(int(path.read_text()))
    assert time.monotonic() - began < 30


def test_a_program_that_does_not_read_its_input_is_no_error() -> None:
    assert process.show(["true"], text="x" * 1_000_000).code == 0


@pytest.mark.parametrize(
    "message",
    [
        "fix: don't",
        'fix: "quotes"',
        "fix: $HOME ${HOME} $(shell echo x) `id` $5",
        "fix: a\\b; false",
        "--help",
        "fix: a\n\nbody",
    ],
)
def test_make_passes_the_message_as_it_was_given(tmp_path: Path, message: str) -> None:
    out = tmp_path / "arguments"
    python = tmp_path / "python"
    python.write_text(
        f"#!{sys.executable}\nimport json, sys\nopen({str(out)!r}, 'w').write(json.dumps(sys.argv[1:]))\n"
    )
    python.chmod(0o755)
    # On the command line, and from the environment.
    for command in (["make", f"MESSAGE={message}"], ["env", f"MESSAGE={message}", "make"]):
        subprocess.run(
            [*command, "--no-print-directory", "release", f"RUN={python}", "READY="], cwd=REPOSITORY, check=True
        )
        assert out.read_text() == json.dumps(["-m", "twin", "release", f"--message={message}"])
