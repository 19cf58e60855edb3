"""The fault matrix: what breaks during a release, how many requests that may cost, and what heals it.

What is expected stands in `CELLS` before anything runs; the run writes what it saw to docs/faults.md. It takes hours, so it
runs only when it is asked for: `make faults`, or with `CELL=…` the cells whose name holds that text, or with `CELL=1/2` one
half of them (the other half may run beside it on a twin of another SHOPCAT_TWIN_PREFIX).
"""

import fcntl
import json
import os
import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from bench import run
from bench.reconcile import disagreements, orders_lost_or_doubled
from infra.release.decide import up_command
from infra.release.ledger import Ledger
from tests.tools import aws, command, kubectl
from tests.twin import hands
from tests.twin.shop import DELAY_SCALE, SHORT, Shop, fault, open_shop, stop, wait_for
from tests.twin.test_release import COUNT, CRASH, ERRORS_LATER, PAGE
from twin import pulumi
from twin.aws import postgres
from twin.config import Twin
from twin.loadbalancer import service
from twin.paths import REPOSITORY

WANTED = os.environ.get("SHOPCAT_FAULTS", "")
pytestmark = [
    pytest.mark.twin,
    pytest.mark.skipif(not WANTED, reason="the fault matrix takes hours; `make faults` runs it"),
]

TABLE = REPOSITORY / "docs" / "faults.md"
HEAD = (
    "# Fault matrix\n\nWritten by `make faults` on the twin, never by hand. `expected` stood in tests/twin/test_faults.py "
    "before the run.\n\n| accident | expected failed | failed | by kind | what the user is told | what heals it |\n"
    "|---|---|---|---|---|---|\n"
)
NEVER_READY = {'    return web.Response(text="ok\\n")': "    return web.Response(status=503)"}
FAILS_SMOKE = {"async def page(request: web.Request) -> web.Response:\n": (
    "async def page(request: web.Request) -> web.Response:\n    return web.Response(status=500)\n"
    "\n\nasync def unused(request: web.Request) -> web.Response:\n"
)}  # fmt: skip
BREAKS_LATER = {
    f"{PAGE}{COUNT}": f"def broken() -> bool:\n    return os.path.exists('/dev/shm/broken')\n\n\n{PAGE}{COUNT}"
    "    if broken():\n        return web.Response(status=500)\n"
}
"""Edits for a release that fails only when told to: neither smoke test nor canary can see the fault."""

STEPS = {
    "slot taken": "slot taken for attempt",
    "new colour starting": "kubernetes:apps/v1:Deployment deployment-",
    "canary": "watching ",
    "everything shifted": r"weights .*\b100\b.* read back \(2 of 2\)",
    "live pointer": " is live in ",
}
"""Step at which the engine is killed → text that it has just printed."""


@dataclass(frozen=True)
class Cell:
    """One accident."""

    name: str
    act: Callable[[Shop, str], str]
    """Cause the accident in a release of the tag and repair it; return the message that the user sees."""
    heals: str
    most_failed: int = 0
    reason: str = ""
    kinds: tuple[str, ...] = ()


def live(shop: Shop) -> str:
    return str(shop.outputs()["liveRelease"])


def colours(shop: Shop) -> tuple[str, str]:
    """The live colour and the idle one."""
    live_colour = str(shop.outputs()["liveColour"])
    return live_colour, "green" if live_colour == "blue" else "blue"


def pods(shop: Shop, colour: str) -> list[str]:
    items = kubectl(shop.twin, "get", "pods", "-n", "shopcat", "-l", f"shopcat/colour={colour}")["items"]
    return [pod["metadata"]["name"] for pod in items if "deletionTimestamp" not in pod["metadata"]]


def last_line(output: str) -> str:
    """Return the last line of the engine's output that says what went wrong, not merely that something did."""
    lines = [
        line.strip()
        for line in output.splitlines()
        if ("error:" in line or "is refused" in line or "everything is" in line)
        and not any(words in line for words in ("unhandled error", "update failed", "preview failed"))
    ]
    assert lines, output
    if lines[-1].endswith("errors occurred:"):  # the cause is the last of them: a pod's own
        causes = [line.strip() for line in output.rpartition(lines[-1])[2].splitlines() if line.startswith("    \t* ")]
        assert causes, output
        return causes[-1].removeprefix("* ")[:240]
    return lines[-1].removeprefix("error: ")[:240]


def update_succeeds(shop: Shop, changes: Mapping[str, Any] | None = None, **values: str) -> str:
    """Run `pulumi up`, assert that it succeeds, and return its output."""
    code, output = shop.up(changes, **values)
    assert code == 0, output
    return output


def update_is_refused(shop: Shop, *words: str, changes: Mapping[str, Any] | None = None, **values: str) -> str:
    """Run `pulumi up`, assert that it fails and prints the words, and return its message."""
    code, output = shop.up(changes, **values)
    assert code != 0, output
    assert "Traceback" not in output
    for word in words:
        assert word in output, output
    return last_line(output)


def killed(step: str, then: str) -> Callable[[Shop, str], str]:
    """Kill the engine at a step, then go on in one of four ways."""

    def act(shop: Shop, tag: str) -> str:
        before = live(shop)
        shop.push(tag)
        process, log = shop.start(tag=tag)
        wait_for(log, STEPS[step], process)
        stop(process)
        shop.cancel()
        if then == "same up":
            update_succeeds(shop, tag=tag)
        elif then == "no tag":
            update_succeeds(shop)
        elif then == "abort" and step != "live pointer":
            update_succeeds(shop, abort=tag)
            assert live(shop) == before
            return "aborted"
        elif then == "abort":
            message = update_is_refused(shop, "rollback", abort=tag)
            update_succeeds(shop)
            return message
        else:
            other = f"{tag}1"
            shop.push(other)
            if step == "live pointer":
                update_succeeds(shop)
                return "the release is finished first"
            message = update_is_refused(shop, tag, "abort", tag=other)
            update_succeeds(shop)
            assert live(shop) == tag
            return message
        assert live(shop) == tag
        return "goes on"

    return act


def broken(edits: dict[str, str], *words: str) -> Callable[[Shop, str], str]:
    def act(shop: Shop, tag: str) -> str:
        before = live(shop)
        shop.push(tag, edits)
        message = update_is_refused(shop, *words, up_command("abort", tag), tag=tag)
        update_succeeds(shop, abort=tag)
        assert live(shop) == before
        return message

    return act


def elb(kind: str, seconds: float) -> Callable[[Shop, str], str]:
    """The ELB API throttles or freezes from the moment the canary is watched."""

    def act(shop: Shop, tag: str) -> str:
        shop.push(tag)
        process, log = shop.start(tag=tag)
        wait_for(log, STEPS["canary"], process)
        with fault(shop.twin, service="elasticloadbalancing", kind=kind, seconds=seconds):
            code = process.wait(900)
        output = log.read_text()
        if code != 0:
            update_succeeds(shop)
        assert live(shop) == tag
        return last_line(output) if code else "waits and goes on"

    return act


def controller_stopped(shop: Shop, tag: str) -> str:
    """Stop the controller while the new colour starts: its webhook refuses pods, and the release waits."""
    name = "aws-load-balancer-controller"
    scale = ["kubectl", "scale", "deployment", name, "-n", "kube-system"]
    shop.push(tag)
    command(shop.twin, [*scale, "--replicas=0"])
    process, log = shop.start(tag=tag)
    try:
        wait_for(log, STEPS["new colour starting"], process)
        time.sleep(20)
    finally:
        command(shop.twin, [*scale, "--replicas=2"])
    code = process.wait(900)
    output = log.read_text()
    if code != 0:
        update_succeeds(shop)
    assert live(shop) == tag
    return last_line(output) if code else "waits and goes on"


def unused_without_weight(shop: Shop, tag: str) -> str:
    """The load balancer calls a group unused that has weight 0 everywhere; the header rules keep both in use."""
    shop.push(tag)
    service.set_faults(shop.twin, weightZeroUnused=True)
    try:
        update_succeeds(shop, tag=tag)
    finally:
        service.set_faults(shop.twin, weightZeroUnused=False)
    assert live(shop) == tag
    return "goes on"


def node_drained(shop: Shop, tag: str) -> str:
    shop.push(tag)
    process, log = shop.start(tag=tag)
    wait_for(log, STEPS["canary"], process)
    drain = ["kubectl", "drain", "node2", "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=280s", "--force"]
    try:
        command(shop.twin, drain)
    finally:
        command(shop.twin, ["kubectl", "uncordon", "node2"])
    code = process.wait(900)
    output = log.read_text()
    if code != 0:
        update_succeeds(shop)
    assert live(shop) == tag
    return last_line(output) if code else "waits and goes on"


def database_restarted(shop: Shop, tag: str) -> str:
    shop.push(tag)
    process, log = shop.start(tag=tag)
    wait_for(log, STEPS["canary"], process)
    postgres.restart(postgres.Server(shop.twin))
    code = process.wait(900)
    output = log.read_text()
    if code != 0:
        update_succeeds(shop)
    assert live(shop) == tag
    return last_line(output) if code else "goes on"


def migrate(statement: str) -> dict[str, Any]:
    """Settings of a release whose migration Job runs a statement as the application's own role."""
    program = f"import psycopg; from shopcat.__main__ import _database; psycopg.connect(_database()).{statement}"
    return {"shopcat:release": {**SHORT["shopcat:release"], "migrate": ["/opt/venv/bin/python", "-c", program]}}


def migrated(shop: Shop, tag: str) -> str:
    """An expand-only migration, which the old release doesn't notice."""
    shop.push(tag)
    column = f"note_{tag.replace('.', '_')}"
    change = migrate(f"execute('ALTER TABLE orders ADD COLUMN {column} text').connection.commit()")
    update_succeeds(shop, change, tag=tag)
    assert live(shop) == tag
    count = run.sql(shop.twin, f"SELECT count(*) FROM information_schema.columns WHERE column_name = '{column}'")
    assert count == [["1"]]
    return "goes on"


def migration_fails(shop: Shop, tag: str) -> str:
    before = live(shop)
    shop.push(tag)
    message = update_is_refused(
        shop, f"migrate-{tag}", changes=migrate("execute('ALTER TABLE no_such_table ADD COLUMN x text')"), tag=tag
    )
    update_succeeds(shop, abort=tag)
    assert live(shop) == before
    return message


def pod_deleted(shop: Shop, tag: str) -> str:
    """Delete a live pod, without a release; it leaves as its preStop hook and grace period say."""
    del tag
    name = pods(shop, colours(shop)[0])[0]
    command(shop.twin, ["kubectl", "delete", "pod", name, "-n", "shopcat", "--timeout=300s"])
    return "nothing: the Deployment makes another pod"


def rollback(shop: Shop, tag: str) -> str:
    before = live(shop)
    shop.push(tag)
    update_succeeds(shop, tag=tag)
    update_succeeds(shop, rollback=f"{tag}->{before}")
    assert live(shop) == before
    return "former record, all steps"


def moved_back(shop: Shop, changes: Mapping[str, Any]) -> str:
    """Run `make undo`; return what it says."""
    undo = [sys.executable, "-m", "infra.commands.undo"]
    return command(shop.twin, undo, PULUMI_OPTION_CONFIG_FILE=str(shop.copy(changes))).stdout


def rollback_in_an_outage(*, kept: bool) -> Callable[[Shop, str], str]:
    """Make a release that worked answer every page with an error, and go back: at once if the former one's pods are kept."""
    changes = {"shopcat:keepFormer": True} if kept else {}

    def act(shop: Shop, tag: str) -> str:
        before = live(shop)
        shop.push(tag, BREAKS_LATER)
        update_succeeds(shop, changes, tag=tag)
        broken_colour, former_colour = colours(shop)
        former_pods = pods(shop, former_colour)
        assert len(former_pods) == (2 if kept else 0)
        for name in pods(shop, broken_colour):
            command(shop.twin, ["kubectl", "exec", "-n", "shopcat", name, "--", "touch", "/dev/shm/broken"])
        since = time.time()
        output = moved_back(shop, changes) if kept else ""
        output += update_succeeds(shop, changes, **({} if kept else {"rollback": f"{tag}->{before}"}))
        assert live(shop) == before
        assert (shop.replicas(former_colour), shop.replicas(broken_colour)) == (2, 0)
        assert set(former_pods) <= set(pods(shop, former_colour)), "they were not made anew"
        moved = re.search(r"all weight is on .* in \w+|\d+ of \d+ own requests fail before the shift: .*", output)
        assert moved
        late = [failure for failure in shop.failed(since) if failure.release != tag]
        assert not late, "the former release fails nothing"
        return moved[0]

    return act


def weights_moved_by_hand(shop: Shop, tag: str) -> str:
    """Put all weight on the colour without pods, without a release; the next plain `up` puts it back."""
    del tag
    colour, idle = colours(shop)
    client = aws(shop.twin, "elbv2")
    (balancer,) = client.describe_load_balancers(Names=["shopcat"])["LoadBalancers"]
    groups = {
        name: client.describe_target_groups(Names=[f"shopcat-{name}"])["TargetGroups"][0]["TargetGroupArn"]
        for name in (colour, idle)
    }
    tuples = [{"TargetGroupArn": groups[colour], "Weight": 0}, {"TargetGroupArn": groups[idle], "Weight": 100}]
    action = {"Type": "forward", "ForwardConfig": {"TargetGroups": tuples}}
    for listener in client.describe_listeners(LoadBalancerArn=balancer["LoadBalancerArn"])["Listeners"]:
        for rule in client.describe_rules(ListenerArn=listener["ListenerArn"])["Rules"]:
            if len(rule["Actions"][0].get("ForwardConfig", {}).get("TargetGroups", [])) == len(groups):
                client.modify_rule(RuleArn=rule["RuleArn"], Actions=[action])
    output = update_succeeds(shop)
    assert shop.weights() == {colour: 100, idle: 0}
    return re.search(r"[^ ]+ is live in \w+, but the load balancer says: .*", output)[0]  # type: ignore[index]


def scaled_by_hand(shop: Shop, tag: str) -> str:
    """`kubectl scale` owns the number of pods of both colours; a release takes it back."""
    shop.push(tag)
    live_colour, idle = colours(shop)
    for colour, count in ((live_colour, 3), (idle, 1)):
        scale = ["kubectl", "scale", "-n", "shopcat", f"deployment/shopcat-{colour}", f"--replicas={count}"]
        command(shop.twin, scale)
    update_succeeds(shop, tag=tag)
    assert live(shop) == tag
    assert (shop.replicas(live_colour), shop.replicas(idle)) == (0, 2)
    return "goes on"


def secret_lacks_a_key(shop: Shop, tag: str) -> str:
    """The application's secret has lost a key, so the release's Secret never comes."""
    before = live(shop)
    shop.push(tag)
    manager, name = aws(shop.twin, "secretsmanager"), run.application_secret_name(shop.twin)
    whole = manager.get_secret_value(SecretId=name)["SecretString"]
    lacking = {key: value for key, value in json.loads(whole).items() if key != "port"}
    manager.put_secret_value(SecretId=name, SecretString=json.dumps(lacking))
    try:
        message = update_is_refused(shop, up_command("abort", tag), tag=tag)
    finally:
        manager.put_secret_value(SecretId=name, SecretString=whole)
    update_succeeds(shop, abort=tag)
    assert live(shop) == before
    update_succeeds(shop)
    return message


def right_after(shop: Shop, tag: str) -> str:
    """The next release goes into a colour whose former pods are on their way out and still asked by the load balancer.

    They hold the colour's former password, so it waits until they have ended. With the real delays, each its worst: they leave
    for as long as pods ever do.
    """
    other = f"{tag}1"
    shop.push(tag)
    shop.push(other)
    real = {"shopcat:drain": {**SHORT["shopcat:drain"], "propagation": 60}}
    before = live(shop)
    service.set_faults(shop.twin, delayScale=1.0, delayWorst=True)
    try:
        update_succeeds(shop, real, tag=tag)
        output = update_succeeds(shop, real, tag=other)
    finally:
        service.set_faults(shop.twin, delayScale=DELAY_SCALE, delayWorst=False)
    assert live(shop) == other
    assert re.search(r"pod shopcat-(blue|green)-\S+: to end before the password of", output), output
    smoke = command(shop.twin, ["kubectl", "logs", "-n", "shopcat", f"job/smoke-{other}-r1-a1"]).stdout
    assert f"expected release {other}, got {before}" not in smoke, f"a former pod still answered:\n{smoke}"
    return "waits and goes on"


def two_at_once(shop: Shop, tag: str) -> str:
    """Two tags from two backends that hold the same state; the ledger's one slot decides."""
    other = f"{tag}1"
    shop.push(tag)
    shop.push(other)
    state = shop.directory / f"backend-{tag}"
    shutil.copytree(shop.twin.directory / "pulumi-state", state)
    first, log = shop.start(tag=tag)
    second_log = shop.directory / f"second-{tag}.log"
    backend = {"PULUMI_BACKEND_URL": pulumi.backend_url(state)}
    second = run.start_up(shop.twin, shop.copy(), second_log, {"tag": other}, more=backend)
    codes = (first.wait(900), second.wait(900))
    assert sorted(code != 0 for code in codes) == [False, True], log.read_text() + second_log.read_text()
    lost = second_log.read_text() if codes[1] else log.read_text()
    assert "Traceback" not in lost
    won = (tag, other)[codes.index(0)]
    # The loser's state is older than what stands there; a plain update from either checkout is none the worse for it.
    older_log = shop.directory / f"older-{tag}.log"
    update_succeeds(shop)
    older = run.start_up(shop.twin, shop.copy(), older_log, {}, more=backend)
    assert older.wait(900) == 0, older_log.read_text()
    update_succeeds(shop)
    assert live(shop) == won
    return last_line(lost)


def pod_crashed(shop: Shop, tag: str) -> str:
    """Kill a live pod at once, without a release. Only requests in flight on it, and those its node still sent, fail."""
    del tag
    name = pods(shop, colours(shop)[0])[0]
    command(shop.twin, ["kubectl", "exec", "-n", "shopcat", name, "--", "kill", "-9", "1"], check=False)
    command(shop.twin, ["kubectl", "delete", "pod", name, "-n", "shopcat", "--grace-period=0", "--force"])
    time.sleep(40)
    return "nothing: the Deployment makes another pod"


def by_hand(what: str, then: str, *, refreshed: bool) -> Callable[[Shop, str], str]:
    """Change the live colour by hand, refresh if asked to, then run an update."""

    def act(shop: Shop, tag: str) -> str:
        with hands.older_state(shop, wanted=what == "state of yesterday restored") as restore:
            before = live(shop)
            if then == "rollback" or what == "state of yesterday restored":
                shop.push(tag)
                update_succeeds(shop, tag=tag)
            restore()
        now, (colour, _) = live(shop), colours(shop)
        try:
            hands.HANDS[what](shop, colour)
            if refreshed:
                command(shop.twin, ["pulumi", "refresh", "-s", "prod", "--yes", "--non-interactive"])
            message = then_updates(shop, then, f"{tag}1", {"rollback": f"{now}->{before}"})
        finally:
            hands.undo(shop)
        settled, idle = colours(shop)
        assert shop.weights() == {settled: 100, idle: 0}
        assert (shop.replicas(settled), shop.replicas(idle)) == (2, 0)
        return message

    return act


def then_updates(shop: Shop, then: str, tag: str, back: dict[str, str]) -> str:
    """Run the update that follows a manual change; return the message that the user sees."""
    if then == "plain up":
        output = update_succeeds(shop)
        message = re.search(r"changed by hand, put back by this update: [^\n]*", output)
        return message[0][:240] if message else "nothing to do"
    before = live(shop)
    shop.push(tag, FAILS_SMOKE if then == "failed release, abort" else None)
    wish = back if then == "rollback" else {"tag": tag}
    code, output = shop.up(**wish)
    message = "goes on"
    if code and "is not whole" in output:  # nothing was touched; a plain update puts it right
        message = last_line(output)
        update_succeeds(shop)
        code, output = shop.up(**wish)
    if then == "failed release, abort":
        assert code != 0, output
        update_succeeds(shop, abort=tag)
        assert live(shop) == before
        return "aborted"
    assert code == 0, output
    return message


def wanted(cells: Sequence[Cell], text: str) -> list[Cell]:
    """All of them, those whose name holds the text, or with `1/2` the first of two shares."""
    share = re.fullmatch(r"(\d+)/(\d+)", text)
    if share:
        return list(cells[int(share[1]) - 1 :: int(share[2])])
    return [cell for cell in cells if text in ("all", "") or text in cell.name]


CELLS = (
    *(
        Cell(f"engine killed: {step}; then {then}", killed(step, then), then)
        for step in STEPS
        for then in ("same up", "abort", "no tag", "other tag")
    ),
    Cell("ELB API throttled during the shift", elb("throttle", 60), "waits; else the same up"),
    Cell("ELB API frozen during the shift", elb("freeze", 60), "waits; else the same up"),
    Cell("controller stopped while the new colour starts", controller_stopped, "waits; else the same up"),
    Cell("groups without weight are called unused", unused_without_weight, "-"),
    Cell("new colour crash-looping", broken(CRASH), "abort"),
    Cell("new colour never ready", broken(NEVER_READY), "abort"),
    Cell("new colour failing its smoke test", broken(FAILS_SMOKE), "abort"),
    Cell(
        "new colour answering 500 after the shift",
        broken(ERRORS_LATER, "everything is back on"),
        "weights go back by themselves; then abort",
        16 * (15 + 15),
        "broken on purpose: its pages, until two probes have failed and each node has followed the rule",
        ("http-500",),
    ),
    Cell("node drained in mid-release", node_drained, "waits; else the same up"),
    Cell(
        "PostgreSQL restarted",
        database_restarted,
        "the same up, if the probes met it",
        21 * 15,
        "the database is away for some seconds: what needs it is answered 503, or waits",
        ("http-503", "http-500", "http-504", "http-502"),
    ),
    Cell("two ups with two tags from two backends", two_at_once, "the loser: nothing to do"),
    Cell("a compatible migration", migrated, "-"),
    Cell("a migration that fails", migration_fails, "abort"),
    Cell("rollback", rollback, "-"),
    Cell(
        "rollback while the live release answers 500",
        rollback_in_an_outage(kept=False),
        "-",
        16 * 300,
        "broken on purpose: its pages, until the former release has started, is proven and each node has followed",
        ("http-500",),
    ),
    Cell(
        "rollback while the live release answers 500, the former pods kept",
        rollback_in_an_outage(kept=True),
        "-",
        16 * 60,
        "broken on purpose: its pages, until `make undo` has read, checked and moved everything and each node has followed",
        ("http-500",),
    ),
    Cell(
        "weights moved to the empty colour by hand (no release)",
        weights_moved_by_hand,
        "a plain up",
        21 * 120,
        "there is nobody in that colour, until the next update has come to its end and each node has followed",
        ("http-503",),
    ),
    Cell("both colours scaled with kubectl", scaled_by_hand, "-"),
    Cell("the application's secret lacks a key", secret_lacks_a_key, "the secret; then abort"),
    Cell("a release right after the one before", right_after, "waits"),
    Cell("a live pod is deleted (no release)", pod_deleted, "nothing to do"),
    Cell(
        "a live pod crashes (no release)",
        pod_crashed,
        "nothing to do",
        200,
        "in flight on the pod, and what the load balancer sends to its address until it is deregistered",
        ("http-502", "http-504", "http-503", "closed", "reset"),
    ),
)

NOBODY_SERVES = {
    "most_failed": 21 * 240,
    "reason": "no pod of the live colour is a target, until the update has written what was changed and targets are healthy",
    "kinds": ("http-503", "http-502", "http-504", "closed", "reset"),
}
CELLS += tuple(
    Cell(
        f"by hand: {what}{', refreshed' if refreshed else ''}; then {then}",
        by_hand(what, then, refreshed=refreshed),
        "nothing to do; a release that is refused for it: a plain up" if what in hands.LEAVES_NOBODY else "-",
        **(NOBODY_SERVES if what in hands.LEAVES_NOBODY else {}),
    )
    for what in hands.HANDS
    for refreshed in (False, True)
    for then in ("plain up", "release", "failed release, abort", "rollback")
)


WANTED_CELLS = wanted(CELLS, WANTED)


@pytest.fixture(scope="module")
def shop(twin: Twin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with open_shop(twin, tmp_path_factory.mktemp("shop")) as opened:
        opened.push("v2.0.0")
        update_succeeds(opened, tag="v2.0.0")
        yield opened


def write_row(name: str, row: str) -> None:
    """Write a row into the table at once: cells that ran replace theirs, others stay. Two runs may share the table."""
    TABLE.touch()
    with TABLE.open("r+") as table:
        fcntl.flock(table, fcntl.LOCK_EX)
        order = {cell.name: place for place, cell in enumerate(CELLS)}
        rows = {line.split("|")[1].strip(): line for line in table.read().splitlines() if line.startswith("| ")}
        rows = {key: line for key, line in {**rows, name: row}.items() if key in order}
        table.seek(0)
        table.truncate()
        table.write(HEAD + "\n".join(rows[key] for key in sorted(rows, key=order.__getitem__)) + "\n")


def close_what_is_open(shop: Shop) -> None:
    """A cell that failed half-way leaves its release open; the next cell begins without one."""
    opened = Ledger(aws(shop.twin, "dynamodb"), "shopcat-releases").read().open
    if opened is not None:
        shop.cancel()
        update_succeeds(shop, abort=opened.tag)


@pytest.mark.parametrize("cell", WANTED_CELLS, ids=[cell.name for cell in WANTED_CELLS])
def test_cell(cell: Cell, shop: Shop) -> None:
    close_what_is_open(shop)
    number = CELLS.index(cell) + 1
    since = time.time()
    message = cell.act(shop, f"v2.{number}.0")
    hurt = shop.failed(since)
    sent = sum(1 for outcome in shop.load.outcomes if outcome.due >= since)
    kinds = Counter(outcome.failure for outcome in hurt)
    shown = ", ".join(f"{name}: {count}" for name, count in kinds.items()) or "-"
    expected = f"≤ {cell.most_failed}: {cell.reason}" if cell.most_failed else "0"
    words = message.replace("|", "/")
    write_row(cell.name, f"| {cell.name} | {expected} | {len(hurt)} of {sent} | {shown} | {words} | {cell.heals} |")
    assert sent >= 100, "the load has ended; a cell without requests says nothing"
    assert len(hurt) <= cell.most_failed, kinds
    assert set(kinds) <= set(cell.kinds), kinds


def test_clients_load_balancer_and_database_tell_the_same_story(shop: Shop) -> None:
    """Run last: compare over all the cells that ran."""
    outcomes = shop.load.stop()
    assert disagreements(outcomes, run.requests_since(shop.twin, shop.load.started - 1)) == []
    assert orders_lost_or_doubled(outcomes, run.stored_orders(shop.twin)) == []
