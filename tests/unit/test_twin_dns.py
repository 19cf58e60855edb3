"""The twin's name server, message by message."""

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from twin import config
from twin.errors import TwinError
from twin.host import dns, dns_server

A, AAAA, MX = 1, 28, 15


def question(name: str, kind: int = A, *, flags: int = 0x0100, count: int = 1) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!6H", 77, flags, count, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", kind, 1)


def ask(names: dns_server.Names, name: str, kind: int = A) -> tuple[int, int, list[str]]:
    """Response code, number of answers and the IPv4 addresses among them."""
    reply = dns_server.answer(question(name, kind), names)
    assert reply is not None
    identifier, flags, questions, answers, _, _ = struct.unpack_from("!6H", reply)
    assert (identifier, questions, flags & 0x8000) == (77, 1, 0x8000)
    position = len(question(name, kind))
    addresses = []
    for _ in range(answers):
        _, found, _, _, length = struct.unpack_from("!HHHIH", reply, position)
        data = reply[position + 12 : position + 12 + length]
        if found == A:
            addresses.append(".".join(map(str, data)))
        position += 12 + length
    return flags & 0xF, answers, addresses


@pytest.fixture
def twin(tmp_path: Path) -> config.Twin:
    return config.Twin("x", 1, tmp_path, tmp_path, simulated=True)


@pytest.fixture
def names(twin: config.Twin) -> dns_server.Names:
    twin.hosts_directory.mkdir(parents=True)
    return dns_server.Names(twin.hosts_directory)


def test_a_name_answers_the_moment_it_is_published(twin: config.Twin, names: dns_server.Names) -> None:
    assert ask(names, "db.rds.amazonaws.com") == (3, 0, [])
    dns.publish(twin, "rds", {"db.rds.amazonaws.com": ["10.213.0.1"]})
    assert ask(names, "db.rds.amazonaws.com") == (0, 1, ["10.213.0.1"])
    assert ask(names, "DB.RDS.amazonaws.com")[2] == ["10.213.0.1"], "case doesn't matter"
    dns.publish(twin, "rds", {"db.rds.amazonaws.com": ["10.213.0.2"]})
    assert ask(names, "db.rds.amazonaws.com")[2] == ["10.213.0.2"]
    dns.withdraw(twin, "rds")
    assert ask(names, "db.rds.amazonaws.com")[0] == 3


def test_a_name_without_such_a_record_exists_all_the_same(twin: config.Twin, names: dns_server.Names) -> None:
    dns.publish(twin, "alb", {"shop.localhost": ["10.0.0.1", "10.0.0.2"], "six.localhost": ["fd00::1"]})
    assert ask(names, "shop.localhost", AAAA) == (0, 0, [])
    assert ask(names, "shop.localhost", MX) == (0, 0, [])
    assert ask(names, "six.localhost", AAAA)[:2] == (0, 1)
    assert ask(names, "shop.localhost")[2] == ["10.0.0.1", "10.0.0.2"]


def test_owners_are_merged_and_a_wildcard_yields_to_a_name(twin: config.Twin, names: dns_server.Names) -> None:
    dns.publish(twin, "one", {"*.preview.localhost": ["10.0.0.3"], "both.localhost": ["10.0.0.1"]})
    dns.publish(twin, "two", {"pr-1.preview.localhost": ["10.0.0.9"], "both.localhost": ["10.0.0.2", "10.0.0.1"]})
    assert ask(names, "both.localhost")[2] == ["10.0.0.1", "10.0.0.2"]
    assert ask(names, "pr-1.preview.localhost")[2] == ["10.0.0.9"]
    assert ask(names, "pr-2.preview.localhost")[2] == ["10.0.0.3"]
    assert ask(names, "a.b.preview.localhost")[2] == ["10.0.0.3"]
    assert ask(names, "preview.localhost")[0] == 3


def test_half_written_and_odd_files_do_no_harm(twin: config.Twin, names: dns_server.Names) -> None:
    (twin.hosts_directory / ".partial").write_text("10.0.0.1 no.localhost\n")
    (twin.hosts_directory / "binary").write_bytes(b"\xff\xfe")
    (twin.hosts_directory / "odd").write_text("# comment\nnonsense\n\n10.0.0.5 yes.localhost alias.localhost # why\n")
    assert ask(names, "no.localhost")[0] == 3
    assert ask(names, "alias.localhost")[2] == ["10.0.0.5"]
    with pytest.raises(TwinError, match="can't own names"):
        dns.publish(twin, "../x", {})


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (question("x.localhost", count=0), 1),
        (question("x.localhost")[:16], 1),
        (struct.pack("!6H", 1, 0, 1, 0, 0, 0) + b"\xc0\x0c\0\1\0\1", 1),
        (question("x.localhost", flags=0x2000), 4),
    ],
)
def test_bad_questions_get_an_error(names: dns_server.Names, message: bytes, code: int) -> None:
    reply = dns_server.answer(message, names)
    assert reply is not None
    assert struct.unpack_from("!6H", reply)[1] & 0xF == code


def test_answers_and_scraps_get_nothing(names: dns_server.Names) -> None:
    assert dns_server.answer(question("x", flags=0x8000), names) is None
    assert dns_server.answer(b"short", names) is None


def test_many_addresses_come_over_tcp(twin: config.Twin, names: dns_server.Names) -> None:
    dns.publish(twin, "many", {"many.localhost": [f"10.0.0.{n}" for n in range(1, 60)]})
    reply = dns_server.answer(question("many.localhost"), names)
    assert reply is not None
    assert len(reply) > 512
    cut = dns_server.truncated(reply)
    assert len(cut) <= 512
    assert struct.unpack_from("!6H", cut)[1] & 0x0200


def test_the_server_needs_the_standard_library_alone() -> None:
    program = f"import runpy; runpy.run_path({str(Path(dns_server.__file__))!r}, run_name='loaded')"
    result = subprocess.run([sys.executable, "-I", "-S", "-c", program], env=dict(os.environ), check=False)
    assert result.returncode == 0
