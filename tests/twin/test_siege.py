"""Production's release and rollback while five pull requests attack it: real pods, under load, every request counted.

Each pull request runs an application that fills its disk and memory and asks for names without end, and a job that tries
everything that must be refused, over and over, and writes, deletes and makes anew what it may. Only with
SHOPCAT_ISOLATION=1 (`make isolation`).
"""

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest

from infra.names import PREVIEW_ROLE
from tests.engine import isolation_table
from tests.engine.isolation_attempts import ADMISSION, APPLY, ATTEMPTS, Attempt, Facts
from tests.engine.isolation_job import GITHUB, Session, facts_of, identity_of, pulumi, session, tried
from tests.engine.isolation_shapes import SHAPES, deployment
from tests.tools import command, kubectl
from tests.twin.shop import Shop, open_shop
from tests.twin.test_release import SERVE
from twin.config import Twin
from twin.loadbalancer import service
from twin.paths import REPOSITORY
from twin.scenarios import preview, production

pytestmark = [
    pytest.mark.twin,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not os.environ.get("SHOPCAT_ISOLATION"), reason="a quarter of an hour: `make isolation`"),
]

NUMBERS = (121, 122, 123, 124, 125)
UNOPENED = 199
SHA = "e" * 40
PAUSE_SECONDS = 2.0
"""Pause between two attempts of one job: five jobs run at once, beside the load, on the machine that runs the whole twin."""
HOG = {
    SERVE: """    def fill() -> None:
        while True:
            with contextlib.suppress(OSError), open("/tmp/hog", "ab") as file:
                file.write(bytes(1 << 20))
            time.sleep(0.2)

    def grow(kept: list[bytes]) -> None:
        while True:
            kept.append(bytes(1 << 20))
            time.sleep(1)

    def ask() -> None:
        while True:
            with contextlib.suppress(OSError):
                socket.getaddrinfo(f"{time.monotonic_ns()}.example.com", 443)
            time.sleep(0.1)

    import contextlib
    import socket
    import threading
    import time

    for hog, arguments in ((fill, ()), (grow, ([],)), (ask, ())):
        threading.Thread(target=hog, args=arguments, daemon=True).start()
"""
    + SERVE
}


@dataclass
class Job:
    """One pull request's job: what it tries, and what came of it."""

    twin: Twin
    facts: Facts
    who: Session
    image: str
    """The application that does what it may not expect to get away with."""
    ended: threading.Event
    tried: Counter[str] = field(default_factory=Counter)
    let_in: set[str] = field(default_factory=set)

    def run(self) -> None:
        """Try everything that must be refused, in random order, with allowed actions in between, until the event."""
        order = random.Random(self.facts.number)  # noqa: S311 - not for secrets
        while not self.ended.is_set():
            rows = [row for row in (*ATTEMPTS, *SHAPES) if not row.unopened]
            for attempt in order.sample(rows, len(rows)):
                if self.ended.wait(PAUSE_SECONDS):
                    return
                if tried(self.twin, attempt, self.who, self.facts).returncode == 0:
                    self.let_in.add(attempt.what)
                self.tried["refused"] += 1
                if self.tried["refused"] % 10 == 0:
                    self.churn()

    def churn(self) -> None:
        """Do what a preview may: delete its own pods, scale its Deployment to 0 and back, have its secret read again."""
        own = ("-n", self.facts.own)
        command(self.twin, ["kubectl", "delete", "pods", "--all", *own, "--wait=false"], check=False, **self.who)
        for replicas in (0, 1):
            base = deployment(replace(self.facts, preview_image=self.image))
            manifest = {**base, "spec": {**base["spec"], "replicas": replicas}}
            again = Attempt("", ADMISSION, "", APPLY, lambda _, manifest=manifest: manifest)  # type: ignore[misc]
            self.tried["let in"] += tried(self.twin, again, self.who, self.facts).returncode == 0
        command(self.twin, ["kubectl", "delete", "externalsecrets", "--all", *own], check=False, **self.who)


@pytest.fixture(scope="module")
def shop(twin: Twin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """Production with the committed drain numbers, so with the load balancer's own delays."""
    with open_shop(twin, tmp_path_factory.mktemp("shop"), {"shopcat:github": GITHUB}) as opened:
        service.set_faults(twin, delayScale=1)
        yield opened


@pytest.fixture(scope="module")
def jobs(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Job]]:
    """Five open previews, each with its job at work."""
    twin = shop.twin
    code, output = shop.up()
    assert code == 0, output
    shop.push("v1.1.0")
    source = shop.source("hog", HOG)
    production.push_image(twin, source, SHA, preview.REPOSITORY_NAME)
    who = {
        number: identity_of(twin, tmp_path_factory.mktemp("job"), session(twin, PREVIEW_ROLE, str(number)))
        for number in NUMBERS
    }
    for number in NUMBERS:
        pulumi(twin, number, who[number], "up", "-c", f"shopcat:tag={SHA}")
    ended = threading.Event()
    live = kubectl(twin, "get", "deployment", "shopcat", "-n", f"pr-{NUMBERS[0]}")["spec"]["template"]["spec"]
    started = [
        Job(twin, facts_of(twin, number, other, UNOPENED), who[number], live["containers"][0]["image"], ended)
        for number, other in zip(NUMBERS, (*NUMBERS[1:], NUMBERS[0]), strict=True)
    ]
    threads = [threading.Thread(target=job.run) for job in started]
    for thread in threads:
        thread.start()
    yield started
    ended.set()
    for thread in threads:
        thread.join(120)


def test_release_and_rollback_fail_no_request(shop: Shop, jobs: list[Job]) -> None:
    start = time.time()
    for values in ({"tag": "v1.1.0"}, {"rollback": "v1.1.0->v1.0.0"}):
        code, output = shop.up(**values)
        assert code == 0, output
    assert shop.outputs()["liveRelease"] == "v1.0.0"
    assert shop.failed(start) == []
    requests = sum(outcome.due >= start for outcome in shop.load.outcomes)
    attempts, churned = (sum(job.tried[what] for job in jobs) for what in ("refused", "let in"))
    assert not set.union(*(job.let_in for job in jobs))
    assert all(job.tried["refused"] and job.tried["let in"] for job in jobs), [job.tried for job in jobs]
    isolation_table.besieged(
        f"Production released v1.1.0 and rolled back to v1.0.0 while five pull requests made {attempts:,} of the attempts above,"
        f" changed their own Deployments {churned:,} times, and ran applications that fill disk and memory and ask for names"
        f" without end: 0 of {requests:,} requests failed."
    )
    isolation_table.write_sections(REPOSITORY / "docs" / "isolation.md")
