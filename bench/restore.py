"""``make restore``: the backups restored on a twin of its own while requests are counted; the tables in docs/restore.md.

Expected, and fixed before anything runs: no request fails, and every order that was acknowledged is in one of the two databases,
once. After the drill alone every order is in the first one, since no user reaches the other.

First the drill (`make restore-drill`). Then the case that it stands for: somebody damages data, the application goes to the
restored database by a release that users do get, and back again by a rollback; and the release ledger is lost.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from bench import run
from bench.load import Load, Outcome, Stream
from pipeline.marked_text import fill
from pipeline.restore_drill import PAGE, with_restore
from twin import config, parts, pulumi
from twin.aws import point_in_time, postgres
from twin.aws.postgres import Server
from twin.config import Twin
from twin.errors import TwinError
from twin.loadbalancer import service
from twin.paths import REPOSITORY
from twin.scenarios import production

NAME = "restore"
BEGIN, END = "<!-- measured: make restore -->", "<!-- rehearsed until here -->"
MIX = (
    Stream("page, kept alive", 12.0),
    Stream("page, fresh", 4.0, fresh=True),
    Stream("order", 3.0, path="/orders", order=True, expected=201),
    Stream("long", 2.0, path="/slow?seconds=8"),
)
_DRAIN = {
    "appDrain": 10, "longestRequest": 8, "propagation": 15, "controllerLag": 25, "appKeepAlive": 75, "deregistrationDelay": 68,
}  # fmt: skip
_RELEASE = {"replicas": 2, "cpu": "200m", "memory": "384Mi", "env": {"APP_DRAIN_SECONDS": "10"}}
_DELAY_SCALE = 0.25
_STRAGGLERS_SECONDS = 12.0
_MAXIMUM_SECONDS = 3600.0


@dataclass
class Step:
    """One step and what was sent meanwhile."""

    name: str
    began: float
    ended: float = 0.0
    note: str = ""


@dataclass(frozen=True)
class Orders:
    """Where the acknowledged orders are."""

    acknowledged: int
    first: int
    restored: int
    lost: tuple[str, ...]
    """Keys that are in neither database, or in one of them more than once."""


def place_orders(
    acknowledged: list[str], first: Mapping[str, int], restored: Mapping[str, int], before: set[str]
) -> Orders:
    """Tell where each acknowledged order is.

    Args:
        acknowledged: keys of the orders that were confirmed to their users.
        first: key → rows in the first database.
        restored: the same in the restored one.
        before: keys that the restored one has from the first one's backup: in both, and rightly so.
    """
    places = {key: (first.get(key, 0), restored.get(key, 0)) for key in acknowledged}
    in_both = {key for key, place in places.items() if place == (1, 1) and key in before}
    alone = {key: place for key, place in places.items() if key not in in_both}
    lost = tuple(key for key, place in alone.items() if place not in ((1, 0), (0, 1)))
    return Orders(
        len(acknowledged),
        len(in_both) + sum(place == (1, 0) for place in alone.values()),
        sum(place == (0, 1) for place in alone.values()),
        lost,
    )


def page_section(steps: list[Step], outcomes: list[Outcome], orders: Mapping[str, Orders]) -> str:
    """Return the tables of a rehearsal, as they stand in docs/restore.md."""
    rows = []
    for step in steps:
        due = [outcome for outcome in outcomes if step.began <= outcome.due < step.ended]
        failed = sum(bool(outcome.failure) for outcome in due)
        rows.append(f"| {step.name} | {step.ended - step.began:.0f} | {failed} of {len(due)} | {step.note or '-'} |")
    placed = [
        f"| {title} | {each.acknowledged} | {each.first} | {each.restored} | {len(each.lost)} |"
        for title, each in orders.items()
    ]
    return "\n".join(
        [
            "",
            "Expected before it ran: no failed request, no order lost.",
            "",
            "| step, under load | seconds | failed of sent | seen |",
            "|---|---:|---:|---|",
            *rows,
            "",
            "| orders acknowledged so far | all | in the first database | in the restored one alone | lost or doubled |",
            "|---|---:|---:|---:|---:|",
            *placed,
            "",
        ]
    )


def written(page: str, text: str) -> str:
    """Return the page with what stands between its marks replaced.

    Raises:
        TwinError: the marks are gone.
    """
    return fill(page, BEGIN, END, text, name=PAGE.name, error=TwinError)


class Rehearsal:
    """The steps, in their order, on one twin."""

    def __init__(self, twin: Twin, directory: Path) -> None:
        self.twin, self._directory = twin, directory
        self.settings = directory / "Pulumi.prod.yaml"
        self.steps: list[Step] = []
        self.orders: dict[str, Orders] = {}
        self._before: set[str] = set()
        """Orders that the restored database began with."""
        self.load: Load

    def _step(self, name: str, act: Callable[[], str]) -> None:
        step = Step(name, time.time())
        print(f"{name} …", flush=True)
        step.note = act()
        step.ended = time.time()
        self.steps.append(step)
        failures = len(self.load.failures)
        print(f"{name:<50}{step.ended - step.began:6.1f} s  failed so far: {failures}  {step.note}", flush=True)

    def _change(self, change: Callable[[dict[str, Any]], Mapping[str, Any]]) -> None:
        document = yaml.safe_load(self.settings.read_text())
        self.settings.write_text(yaml.safe_dump(dict(change(document)), sort_keys=False))

    def _restore(self, **restore: Any) -> None:
        self._change(lambda document: with_restore(document, restore or None))

    def _command(self, *argv: str) -> str:
        env = {**run.environment(self.twin, self.settings), "SHOPCAT_STACK_FILE": str(self.settings)}
        result = subprocess.run(
            argv, cwd=REPOSITORY, env=env, text=True, capture_output=True, check=False, stdin=subprocess.DEVNULL
        )
        if result.returncode != 0:
            raise TwinError(f"{' '.join(argv[:6])} failed:\n{result.stdout}{result.stderr}")
        return result.stdout

    def _up(self, **values: str) -> str:
        copy = self._directory / "copy.yaml"
        copy.write_text(self.settings.read_text())
        log = self._directory / f"up-{len(list(self._directory.glob('up-*.log')))}.log"
        if run.start_up(self.twin, copy, log, values).wait(900) != 0:
            raise TwinError(f"pulumi up failed:\n{log.read_text()}")
        return ""

    # Orders -----------------------------------------------------------------------------------------------------------

    def _stored(self, place: int) -> dict[str, int]:
        rows = postgres.sql(
            Server(self.twin, place), "SELECT idempotency_key, count(*) FROM orders GROUP BY 1;", database="shopcat"
        )
        return {key: int(count) for key, _, count in (line.partition("|") for line in rows.splitlines())}

    def _count_orders(self, title: str, *, restored: bool) -> None:
        """Count where orders are, once all that are under way have ended."""
        end = time.time()
        time.sleep(_STRAGGLERS_SECONDS)
        keys = [each.key for each in self.load.outcomes if each.key and not each.failure and each.due <= end]
        both = self._stored(1) if restored else {}
        self.orders[title] = place_orders(keys, self._stored(0), both, self._before)

    # The steps --------------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Write the settings: the twin's own, with a drain budget for delays a quarter as long."""
        self.settings.write_text(pulumi.write_settings(self.twin).read_text())
        self._change(
            lambda document: {
                **document,
                "config": {**document["config"], "shopcat:drain": _DRAIN, "shopcat:release": _RELEASE},
            }
        )
        service.set_faults(self.twin, delayScale=_DELAY_SCALE)

    def drill(self) -> None:
        """Run `make restore-drill` under load."""
        self._step("backups reach up to now", self._wait_for_backups)
        self._step("make restore-drill", lambda: self._command(sys.executable, "-m", "pipeline.restore_drill")[:0])
        self._count_orders("after the drill", restored=False)

    def incident(self) -> None:
        """Move users to the restored database by a release, and back by a rollback."""
        tag = str(production.outputs(self.twin)["liveRelease"])
        self._up(tag=tag)  # with these drain numbers, so that what comes back fits them
        live = self._live()
        moment = datetime.now(UTC)
        self._step("the backups reach the moment", lambda: self._wait_for_backups(moment))
        at = f"{moment:%Y-%m-%dT%H:%M:%SZ}"
        self._restore(at=at)
        self._step(f"restored as of {at}", self._up)
        self._before = set(self._stored(1))
        self._restore(at=at, serves=True)
        self._step("the secret leads to the restored database", self._up)
        self._step(f"users to it: {tag} once more", lambda: self._up(tag=tag) or self._live())
        self._count_orders("all users on the restored database", restored=True)
        self._restore(at=at)
        self._step("the secret leads to the first database", self._up)
        self._step("users back: a rollback", lambda: self._up(rollback=f"{self._live()}->{live}") or self._live())
        self._count_orders("all users on the first database again", restored=True)

    def _live(self) -> str:
        listed = self._command(sys.executable, "-m", "infra.commands.releases")
        names = [line.split() for line in listed.splitlines() if " live " in f" {line} "]
        return f"{names[0][0]}-r{names[0][1]}" if names else ""

    def _wait_for_backups(self, moment: datetime | None = None) -> str:
        wanted, deadline = moment or datetime.now(UTC), time.monotonic() + 300
        while (point_in_time.latest(Server(self.twin)) or datetime.fromtimestamp(0, UTC)) < wanted:
            if time.monotonic() > deadline:
                raise TwinError("PostgreSQL archives nothing")
            time.sleep(1)
        return ""

    def run(self, *, whole: bool) -> None:
        """Take every step under load.

        Raises:
            TwinError: one failed.
        """
        self.prepare()
        with run.load_on(self.twin, MIX, maximum_seconds=_MAXIMUM_SECONDS) as self.load:
            time.sleep(5)
            self.drill()
            if whole:
                self.incident()
            self.outcomes = self.load.stop()

    def section(self) -> str:
        """Return the tables for the page."""
        return page_section(self.steps, self.outcomes, self.orders)


def main() -> int:
    """``python -m bench.restore``; with ``--drill`` the drill alone. 1 if a request failed or an order is lost."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--drill", action="store_true", help="the drill alone, without the way to it and back")
    arguments = parser.parse_args()
    run.prepare_process()
    if reason := run.why_not([NAME]):
        print(f"error: {reason}", file=sys.stderr)
        return 1
    twin = config.load(NAME, simulated=False)
    os.environ.pop("PULUMI_OPTION_CONFIG_FILE", None)
    try:
        parts.up(twin)
        production.up(twin)
        with tempfile.TemporaryDirectory() as directory:
            rehearsal = Rehearsal(twin, Path(directory))
            rehearsal.run(whole=not arguments.drill)
            text = rehearsal.section()
            print(text)
            PAGE.write_text(written(PAGE.read_text(), text))
    except TwinError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        run.take_down([NAME])
    failed = [outcome for outcome in rehearsal.outcomes if outcome.failure]
    lost = [key for each in rehearsal.orders.values() for key in each.lost]
    print(json.dumps({"failed": len(failed), "lost": len(lost)}))
    return 1 if failed or lost else 0


if __name__ == "__main__":
    sys.exit(main())
