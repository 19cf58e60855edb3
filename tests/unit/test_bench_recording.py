"""A terminal recording keeps what was printed and when, and a picture is made from the file alone."""

import os
from pathlib import Path

import pytest

from bench import recording
from twin.errors import TwinError


def test_a_recording_survives_its_file_and_becomes_a_picture(tmp_path: Path) -> None:
    script = 'echo first; sleep 0.3; [ -t 1 ] && echo "on a terminal"'
    events = recording.record(["sh", "-c", script], dict(os.environ))
    recording.write_cast(events, tmp_path / "x.cast")
    read = recording.read_cast(tmp_path / "x.cast")
    lines = recording.screen(read)
    assert lines[1].endswith("first")
    assert lines[2].endswith("on a terminal")
    assert read[-1][0] - read[1][0] > 0.2
    recording.draw(read, tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_a_command_that_fails_is_no_recording() -> None:
    with pytest.raises(TwinError, match="failed"):
        recording.record(["sh", "-c", "echo no; exit 3"], dict(os.environ))
