"""Reading and moving weights on moto's load balancer, with a clock of our own and an API that can be ill."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from moto import mock_aws

from infra.clients.aws import AwsClients
from infra.errors import ShopCatError, TrafficError
from infra.release.listener_weights import Timing, all_on
from infra.release.probes import HttpsProber, Probe
from infra.release.traffic_shift import PROBES_BEFORE, Mode, Traffic
from tests.unit.cloudwatch import NO_TARGET, START, CloudWatch
from tests.unit.releases import REGION, client, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TIMING = Timing(settle_seconds=120, canary_seconds=20, proof_deadline_seconds=30)


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.at: list[tuple[float, Callable[[], None]]] = []
        self.passed: Callable[[float, float], None] = lambda _begin, _end: None

    def __call__(self) -> float:
        return self.now

    def date(self) -> str:
        return format_datetime(START + timedelta(seconds=int(self.now)), usegmt=True)

    async def sleep(self, seconds: float) -> None:
        begin = self.now
        self.now += max(seconds, 0.01)
        self.passed(begin, self.now)
        for when, act in list(self.at):
            if self.now >= when:
                self.at.remove((when, act))
                act()


class Ill:
    """A client of which some calls fail for a while, or count; its answers have the date of a clock."""

    def __init__(self, inner: Any, fails: Callable[[str], Exception | None], date: Callable[[], str]) -> None:
        self._inner, self._fails, self._date = inner, fails, date
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        inner = getattr(self._inner, name)
        if name in ("get_paginator", "exceptions", "meta"):
            return inner

        def call(**arguments: Any) -> Any:
            self.calls.append(name)
            error = self._fails(name)
            if error:
                raise error
            answer = inner(**arguments)
            return {**answer, "ResponseMetadata": {"HTTPHeaders": {"date": self._date()}}}

        return call


class Balancer:
    """A load balancer with two groups, a weighted rule and two header rules on each of two listeners."""

    def __init__(self) -> None:
        ec2, self.elb = client("ec2"), client("elbv2")
        vpc = self.vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        subnets = [
            ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.0.{n}.0/24", AvailabilityZone=f"{REGION}{zone}")["Subnet"]
            for n, zone in enumerate("ab")
        ]
        balancer = self.elb.create_load_balancer(Name="shopcat", Subnets=[each["SubnetId"] for each in subnets])
        arn = balancer["LoadBalancers"][0]["LoadBalancerArn"]
        self.groups = {
            colour: self.elb.create_target_group(
                Name=f"shopcat-{colour}", Protocol="HTTP", Port=8080, VpcId=vpc, TargetType="ip"
            )["TargetGroups"][0]["TargetGroupArn"]
            for colour in ("blue", "green")
        }
        self.rules = []
        for port in (8443, 8444):
            listener = self.elb.create_listener(
                LoadBalancerArn=arn,
                Protocol="HTTP",
                Port=port,
                DefaultActions=[{"Type": "fixed-response", "FixedResponseConfig": {"StatusCode": "404"}}],
            )["Listeners"][0]["ListenerArn"]
            for number, colour in enumerate(("blue", "green"), start=1):
                header = {"HttpHeaderName": "X-ShopCat-Colour", "Values": [colour]}
                self.elb.create_rule(
                    ListenerArn=listener,
                    Priority=number,
                    Conditions=[{"Field": "http-header", "HttpHeaderConfig": header}],
                    Actions=[{"Type": "forward", "TargetGroupArn": self.groups[colour]}],
                )
            weighted = self.elb.create_rule(
                ListenerArn=listener,
                Priority=10,
                Conditions=[{"Field": "path-pattern", "Values": ["/*"]}],
                Actions=[self.forward(100, 0)],
            )
            self.rules.append(weighted["Rules"][0]["RuleArn"])

    def forward(self, blue: int, green: int) -> dict[str, Any]:
        tuples = [
            {"TargetGroupArn": self.groups["blue"], "Weight": blue},
            {"TargetGroupArn": self.groups["green"], "Weight": green},
        ]
        return {"Type": "forward", "ForwardConfig": {"TargetGroups": tuples}}


class Stage:
    """The load balancer at 100/0, seen through clients that can be ill, on a clock of its own."""

    def __init__(self, balancer: Balancer) -> None:
        self.balancer, self.elb, self.groups, self.rules = balancer, balancer.elb, balancer.groups, balancer.rules
        for rule in self.rules:
            self.elb.modify_rule(RuleArn=rule, Actions=[balancer.forward(100, 0)])
        self.clock = Clock()
        self.metrics = CloudWatch(self.clock, self.share)
        self.clock.passed = self.metrics.passed
        self.lines: list[str] = []
        self.fails: Callable[[str], Exception | None] = lambda _: None
        self.clients = AwsClients(REGION)
        self.ill = Ill(self.elb, self.ask, self.clock.date)
        self.clients._clients = {"elbv2": self.ill, "cloudwatch": self.metrics}
        self.clients.session = object()
        self.taken: list[str] = []
        self.known: tuple[int, dict[str, int]] | None = None
        self.unknown: Exception | None = None
        self.traffic = Traffic(
            self.clients,
            "shopcat",
            self.lines.append,
            overtaken=self.overtaken,
            sleep=self.clock.sleep,
            clock=self.clock,
        )
        self.history: list[tuple[int, int]] = []
        self.proof: list[str] = []

    def ask(self, name: str) -> Exception | None:
        return self.fails(name)

    async def overtaken(self) -> str:
        if self.unknown:
            raise self.unknown
        return "".join(self.taken)

    def share(self, colour: str) -> float:
        """Of all requests, those that go to the colour."""
        written = self.ill.calls.count("modify_rule")
        if self.known is None or self.known[0] != written:
            action = self.elb.describe_rules(RuleArns=self.rules[:1])["Rules"][0]["Actions"][0]
            names = {arn: name for name, arn in self.groups.items()}
            tuples = action["ForwardConfig"]["TargetGroups"]
            self.known = (written, {names[each["TargetGroupArn"]]: each["Weight"] for each in tuples})
        return self.known[1].get(colour, 0) / 100

    def weights(self) -> list[dict[str, int]]:
        return [dict(rule.weights) for rule in self.traffic.view().rules]

    def start_at(self, blue: int, green: int) -> None:
        for rule in self.rules:
            self.elb.modify_rule(RuleArn=rule, Actions=[self.balancer.forward(blue, green)])

    def move(self, colour: Any = "green", *, prober: Any = None, mode: Mode = "canary") -> None:
        async def readiness() -> list[str]:
            return self.proof

        run(self.traffic.shift_all_traffic(colour, mode=mode, readiness=readiness, timing=TIMING, prober=prober))

    def throttle(self, call: str, until: float) -> None:
        error = ClientError({"Error": {"Code": "Throttling", "Message": "Rate exceeded"}}, call)
        self.fails = lambda name: error if name == call and self.clock.now < until else None


@pytest.fixture(scope="module")
def balancer() -> Iterator[Balancer]:
    with mock_aws():
        yield Balancer()


@pytest.fixture
def stage(balancer: Balancer) -> Stage:
    return Stage(balancer)


BLUE, GREEN = [{"blue": 100, "green": 0}] * 2, [{"blue": 0, "green": 100}] * 2


def test_weights_are_read_from_every_listener_and_header_rules_carry_none(stage: Stage) -> None:
    assert stage.weights() == BLUE
    assert stage.traffic.view().carries("blue")
    assert not stage.traffic.view().carries("green")


def test_nothing_there_is_an_empty_view(stage: Stage) -> None:
    not_found = {"describe_target_groups": "TargetGroupNotFound", "describe_load_balancers": "LoadBalancerNotFound"}
    stage.fails = lambda name: ClientError({"Error": {"Code": not_found[name]}}, name) if name in not_found else None
    view = stage.traffic.view()
    assert (view.groups, view.rules) == ({}, ())


def test_targets_come_with_their_health(stage: Stage) -> None:
    target = [{"Id": "10.0.0.5", "Port": 8080}]
    stage.elb.register_targets(TargetGroupArn=stage.groups["green"], Targets=target)
    targets = stage.traffic.targets("green")
    stage.elb.deregister_targets(TargetGroupArn=stage.groups["green"], Targets=target)
    assert [(each.address, each.port) for each in targets] == [("10.0.0.5", 8080)]


def test_everything_moves_by_a_canary_on_every_listener(stage: Stage) -> None:
    stage.move("green")
    assert stage.weights() == GREEN
    assert any("blue 90 / green 10" in line for line in stage.lines)
    assert stage.clock.now >= TIMING.settle_seconds
    assert stage.ill.calls.count("modify_rule") == 4, "two listeners, two steps, each written once"


def numbered(lines: list[str]) -> list[str]:
    """The steps that were printed, without their time."""
    return [line.partition(" since ")[0] for line in lines if line.startswith("step ")]


def test_a_shift_prints_its_steps_and_few_lines_for_each_wait(stage: Stage) -> None:
    stage.metrics.delay = {"RequestCount": 90}
    stage.move("green", prober=Shop(stage))
    steps = ["6 of 11: check", "7 of 11: canary", "8 of 11: shift", "9 of 11: watch"]
    assert numbered(stage.lines) == [f"step {each} (green)" for each in steps]
    watching = [line for line in stage.lines if line.startswith("watching green: ")]
    assert len(watching) == 1 + 4, "one for the canary's 20 s, four for the 120 s of settling"
    counted = [line for line in stage.lines if "of 2 whole minutes" in line]
    assert 1 <= len(counted) <= 1 + stage.clock.now / 30, counted
    assert len(stage.lines) < 25


def test_a_colour_that_is_not_ready_says_so_once_and_until_when(stage: Stage) -> None:
    stage.proof = ["1 of 2 pods"]
    stage.clock.at.append((20, stage.proof.clear))
    stage.move("green", mode="immediate")
    waits = [line for line in stage.lines if "ready" in line and not line.startswith("step ")]
    assert len(waits) == 2
    assert waits[0].startswith("green is not ready yet: 1 of 2 pods; waits until ")
    assert waits[1] == "green is ready: pods, readiness gates, targets"
    assert numbered(stage.lines) == ["step 6 of 11: check (green)", "step 8 of 11: shift (green)"]


def test_a_second_time_nothing_is_written_but_it_is_watched_again(stage: Stage) -> None:
    stage.move("green")
    stage.ill.calls.clear()
    stage.move("green")
    assert stage.ill.calls.count("modify_rule") == 0
    assert stage.weights() == GREEN


@pytest.mark.parametrize("every", [0, 3, 1])
def test_a_rollback_moves_everything_at_once_and_is_watched_like_a_release(stage: Stage, every: int) -> None:
    stage.move("green", prober=Shop(stage, blue=every), mode="rollback")
    assert stage.weights() == GREEN
    assert not any("blue 90 / green 10" in line for line in stage.lines)
    assert stage.ill.calls.count("modify_rule") == 2, "two listeners, one step"
    steps = ["6 of 11: check", "8 of 11: shift", "9 of 11: watch"]
    assert numbered(stage.lines) == [f"step {each} (green)" for each in steps]
    assert stage.clock.now >= TIMING.settle_seconds


def test_a_rollback_asks_for_the_share_of_failures_without_a_pause(stage: Stage) -> None:
    shop, before = Shop(stage), list[float]()

    async def prober() -> Probe:
        if stage.share("green") == 0:
            before.append(stage.clock.now)
        return await shop()

    stage.move("green", prober=prober, mode="rollback")
    assert len(before) == PROBES_BEFORE
    assert before[-1] < 1


def test_a_rollback_to_what_fails_more_is_put_back(stage: Stage) -> None:
    with pytest.raises(TrafficError, match=r"everything is back on blue \(read back twice\)"):
        stage.move("green", prober=Shop(stage, green=1), mode="rollback")
    assert stage.weights() == BLUE


@pytest.mark.parametrize("ill", ["fails every request", "loses its pods"])
def test_a_rollback_that_has_everything_keeps_it_whatever_the_watch_sees(stage: Stage, ill: str) -> None:
    stage.move("green", mode="immediate")
    writes = stage.ill.calls.count("modify_rule")
    fails = ill == "fails every request"
    stage.proof = [] if fails else ["1 of 2 pods"]
    with pytest.raises(TrafficError, match="stays on green" if fails else "1 of 2 pods"):
        stage.move("green", prober=Shop(stage, green=int(fails)), mode="rollback")
    assert stage.weights() == GREEN
    assert stage.ill.calls.count("modify_rule") == writes


def test_a_rollback_to_what_is_not_ready_moves_nothing(stage: Stage) -> None:
    stage.proof = ["1 of 2 pods"]
    with pytest.raises(TrafficError, match="1 of 2 pods"):
        stage.move("green", prober=Shop(stage, blue=1), mode="rollback")
    assert stage.weights() == BLUE
    assert stage.ill.calls.count("modify_rule") == 0


def test_nobody_to_protect_moves_at_once(stage: Stage) -> None:
    stage.move("green", mode="immediate")
    assert stage.weights() == GREEN
    assert stage.clock.now < 10


def test_what_has_more_than_the_canary_never_gets_less(stage: Stage) -> None:
    stage.start_at(90, 10)
    stage.move("blue")
    assert stage.weights() == BLUE
    assert not any("blue 10 / green 90" in line for line in stage.lines)


def test_a_shift_that_was_killed_at_the_canary_goes_on_from_there(stage: Stage) -> None:
    stage.start_at(90, 10)
    stage.move("green")
    assert stage.weights() == GREEN
    assert stage.ill.calls.count("modify_rule") == 2
    assert stage.clock.now >= TIMING.canary_seconds + TIMING.settle_seconds


def test_going_back_goes_at_once_and_nothing_undoes_it(stage: Stage) -> None:
    stage.start_at(10, 90)

    async def prober() -> Probe:
        return Probe(ok=False, what="HTTP 502")

    with pytest.raises(TrafficError, match=r"everything is on blue \(read back twice\); run it again"):
        stage.move("blue", prober=prober, mode="restore")
    assert stage.weights() == BLUE
    assert stage.ill.calls.count("modify_rule") == 2
    stage.move("blue", prober=prober, mode="restore")


def test_going_back_waits_until_the_load_balancer_has_followed(stage: Stage) -> None:
    stage.start_at(10, 90)
    stage.move("blue", mode="restore")
    assert stage.weights() == BLUE
    assert stage.clock.now >= TIMING.settle_seconds


def test_failures_until_the_load_balancer_has_followed_do_not_fail_a_return(stage: Stage) -> None:
    """A node that has not followed answers 503 by itself: it names no colour, and its other group is empty."""
    stage.start_at(0, 100)

    async def prober() -> Probe:
        follows = stage.clock.now >= TIMING.canary_seconds - 1
        return Probe(ok=follows, what="HTTP 200" if follows else "HTTP 503")

    stage.move("blue", prober=prober, mode="restore")
    assert stage.weights() == BLUE
    assert stage.clock.now >= TIMING.settle_seconds


def test_an_unproven_colour_gets_nothing(stage: Stage) -> None:
    stage.proof = ["1 of 2 pods"]
    with pytest.raises(TrafficError, match="1 of 2 pods"):
        stage.move("green")
    assert stage.weights() == BLUE
    assert stage.ill.calls.count("modify_rule") == 0


def test_failing_own_requests_put_everything_back(stage: Stage) -> None:
    async def prober() -> Probe:
        return Probe(ok=stage.weights() == BLUE, what="HTTP 502")

    with pytest.raises(TrafficError, match="HTTP 502") as caught:
        stage.move("green", prober=prober)
    assert "everything is back on blue (read back twice)" in str(caught.value)
    assert stage.weights() == BLUE


def test_own_requests_that_reach_nobody_before_anything_moved_are_said_as_that(stage: Stage) -> None:
    async def prober() -> Probe:
        return Probe(ok=False, what="connection refused", reached=False)

    with pytest.raises(TrafficError, match=r"don't reach the load balancer before.*: connection refused; nothing was"):
        stage.move("green", prober=prober)
    assert stage.ill.calls.count("modify_rule") == 0


class Shop:
    """A prober of a shop in which some of each colour's requests fail, one in so many; 0 fails none."""

    def __init__(self, stage: Stage, *, blue: int = 0, green: int = 0, named: bool = True) -> None:
        self.stage, self.named = stage, named
        self.every = {"blue": blue, "green": green}
        self.sent = {"blue": 0, "green": 0}

    async def __call__(self) -> Probe:
        total = sum(self.sent.values()) + 1
        colour = "green" if self.sent["green"] < total * self.stage.share("green") else "blue"
        if self.stage.share("blue") == 1:
            colour = "blue"
        self.sent[colour] += 1
        every = self.every[colour]
        ok = not every or self.sent[colour] % every != 0
        return Probe(ok, "HTTP 200" if ok else "HTTP 500", colour if self.named else "")


@pytest.mark.parametrize("named", [True, False])
def test_out_of_an_outage_everything_goes_at_once_to_the_colour_that_is_well(stage: Stage, *, named: bool) -> None:
    stage.move("green", prober=Shop(stage, blue=1, named=named))
    assert stage.weights() == GREEN
    assert stage.ill.calls.count("modify_rule") == 2, "no canary"


@pytest.mark.parametrize(("every", "named"), [(2, True), (3, False), (8, True), (8, False)])
def test_errors_from_old_colour_do_not_fail_the_shift(stage: Stage, every: int, *, named: bool) -> None:
    stage.move("green", prober=Shop(stage, blue=every, named=named))
    assert stage.weights() == GREEN


def test_errors_that_metrics_had_before_do_not_fail_the_shift(stage: Stage) -> None:
    stage.metrics.failing = lambda colour, _: 0.1 if colour == "blue" else 0.0
    stage.move("green", prober=Shop(stage, blue=21, named=False))
    assert stage.weights() == GREEN


def test_in_an_outage_a_colour_that_is_no_better_keeps_nothing(stage: Stage) -> None:
    with pytest.raises(TrafficError, match="everything is back on blue"):
        stage.move("green", prober=Shop(stage, blue=1, green=1))
    assert stage.weights() == BLUE


def test_a_shift_that_was_killed_when_all_was_moved_is_not_measured_by_its_own_errors(stage: Stage) -> None:
    stage.start_at(0, 100)
    stage.metrics.failing = lambda _colour, _second: 0.1
    with pytest.raises(TrafficError, match="10 of 100 requests to green failed since 10:01 UTC"):
        stage.move("green")
    assert stage.weights() == BLUE


def test_an_update_that_was_overtaken_moves_nothing(stage: Stage) -> None:
    stage.taken.append("somebody else has written the ledger")
    with pytest.raises(TrafficError, match="somebody else has written the ledger; the weights were left as they are"):
        stage.move("green")
    assert stage.weights() == BLUE
    assert stage.ill.calls.count("modify_rule") == 0


def test_an_update_that_was_overtaken_at_the_canary_leaves_the_weights_to_the_other(stage: Stage) -> None:
    stage.clock.at.append((15, lambda: stage.taken.append("somebody else")))
    with pytest.raises(TrafficError, match="could NOT be put back"):
        stage.move("green")
    assert stage.weights() == [{"blue": 90, "green": 10}] * 2


def test_without_the_ledger_nothing_is_moved_but_what_is_in_trouble_loses_its_traffic(stage: Stage) -> None:
    stage.unknown = ShopCatError("the ledger can't be read")
    with pytest.raises(ShopCatError, match="can't be read"):
        stage.move("green")
    assert stage.weights() == BLUE
    stage.start_at(90, 10)
    with pytest.raises(ShopCatError, match="everything is back on blue"):
        stage.move("green")
    assert stage.weights() == BLUE


def test_a_rule_that_somebody_made_for_one_colour_carries_that_colour(stage: Stage) -> None:
    rule = stage.elb.create_rule(
        ListenerArn=stage.traffic.view().rules[0].listener,
        Priority=5,
        Conditions=[{"Field": "path-pattern", "Values": ["/api/*"]}],
        Actions=[{"Type": "forward", "TargetGroupArn": stage.groups["green"]}],
    )["Rules"][0]["RuleArn"]
    try:
        assert stage.traffic.view().carries("green")
        stage.move("blue", mode="immediate")
        assert stage.weights() == [{"blue": 100, "green": 0}] * 3
    finally:
        stage.elb.delete_rule(RuleArn=rule)


def test_a_weighted_rule_that_somebody_made_simple_gets_both_groups_again(stage: Stage) -> None:
    stage.elb.modify_rule(RuleArn=stage.rules[0], Actions=[{"Type": "forward", "TargetGroupArn": stage.groups["blue"]}])
    assert stage.weights() == BLUE
    stage.move("green", mode="immediate")
    assert stage.weights() == GREEN


def test_errors_in_the_metrics_put_everything_back(stage: Stage) -> None:
    stage.metrics.failing = lambda colour, _: 0.1 if colour == "green" else 0.0
    with pytest.raises(TrafficError, match=r"requests to green failed since 10:00 UTC; 0.50% and what chance adds"):
        stage.move("green")
    assert stage.weights() == BLUE


def test_errors_that_both_colours_have_at_the_same_time_are_no_reason(stage: Stage) -> None:
    stage.metrics.per_minute = 3000
    stage.metrics.failing = lambda _colour, _second: 0.01
    stage.move("green")
    assert stage.weights() == GREEN


def test_requests_for_which_there_is_no_target_are_requests_that_fail(stage: Stage) -> None:
    stage.metrics.without_target = lambda second: second >= 60
    with pytest.raises(TrafficError, match="requests to green failed"):
        stage.move("green")
    assert stage.weights() == BLUE


def test_out_of_an_outage_without_own_requests_everything_goes_at_once(stage: Stage) -> None:
    stage.metrics.without_target = lambda second: second < 0
    stage.move("green")
    assert stage.weights() == GREEN
    assert stage.ill.calls.count("modify_rule") == 2, "no canary"
    assert any("in each of the last 3 minutes of metrics: 98" in line for line in stage.lines)


@pytest.mark.parametrize("past", [NO_TARGET, "errors", "both fail for ten minutes"])
@pytest.mark.parametrize("probed", [True, False])
def test_a_release_that_fails_one_in_twenty_is_put_back_whatever_the_past(
    stage: Stage, past: str, *, probed: bool
) -> None:
    """As found: start-up polls had met 503s, and 13.44 % of requests were tolerated from then on."""
    if past == NO_TARGET:
        stage.metrics.without_target = lambda second: second < -240
    stage.metrics.per_minute = 300
    failed_until = -200 if past == "errors" else 0
    stage.metrics.failing = lambda colour, second: (
        0.05 if colour == "green" else 0.2 if past != NO_TARGET and second < failed_until else 0.0
    )
    with pytest.raises(TrafficError, match=r"requests to green failed since 10:00 UTC"):
        stage.move("green", prober=Shop(stage) if probed else None)
    assert stage.weights() == BLUE


def test_one_failed_request_of_a_hundred_puts_nothing_back(stage: Stage) -> None:
    stage.metrics.failing = lambda colour, second: 0.01 if colour == "green" and 60 <= second < 120 else 0.0
    stage.move("green")
    assert stage.weights() == GREEN


def test_refused_connections_count_once(stage: Stage) -> None:
    stage.metrics.kind = "refused"
    stage.metrics.failing = lambda colour, second: 0.1 if colour == "green" and second >= 60 else 0.0
    with pytest.raises(TrafficError, match=r"^1[01] of 1\d\d requests to green failed"):
        stage.move("green")


@pytest.mark.parametrize("minutes", [-7, -3, 3, 7])
def test_the_local_clock_does_not_matter(stage: Stage, monkeypatch: pytest.MonkeyPatch, minutes: int) -> None:
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 60 * minutes)
    stage.metrics.silent_from = 60
    with pytest.raises(TrafficError, match=r"has 0 of 2 whole minutes .* missing data is not health"):
        stage.move("green")
    assert stage.weights() == BLUE


def test_an_answer_without_a_date_is_said(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage.ill, "_date", lambda: "")
    with pytest.raises(ShopCatError, match=r"has the Date ''"):
        stage.move("green")
    assert stage.weights() == BLUE


@pytest.mark.parametrize("status", ["InternalError", "PartialData", "Forbidden", ""])
@pytest.mark.parametrize("metric", ["HTTPCode_Target_5XX_Count", "HTTPCode_ELB_502_Count", "RequestCount"])
def test_an_answer_that_is_not_complete_is_not_health(stage: Stage, status: str, metric: str) -> None:
    stage.metrics.status = lambda name: status if name == metric else "Complete"
    with pytest.raises(TrafficError, match=rf"not complete: {metric.lower()}.*: {status}.*missing data is not health"):
        stage.move("green")
    assert stage.weights() == BLUE


def test_an_answer_that_becomes_complete_is_waited_for(stage: Stage) -> None:
    stage.metrics.status = lambda _: "PartialData" if stage.clock.now < 250 else "Complete"
    stage.move("green")
    assert stage.weights() == GREEN


@pytest.mark.parametrize("seconds", [30, 90, 150, 200])
@pytest.mark.parametrize("kind", ["HTTPCode_Target_5XX_Count", "refused"])
def test_errors_that_come_later_than_their_requests_put_everything_back(stage: Stage, seconds: int, kind: str) -> None:
    stage.metrics.kind = kind
    late = ("HTTPCode_Target_5XX_Count", "HTTPCode_ELB_502_Count", "TargetConnectionErrorCount")
    stage.metrics.delay = dict.fromkeys(late, seconds)
    stage.metrics.failing = lambda colour, _: 0.08 if colour == "green" else 0.0
    with pytest.raises(TrafficError, match="requests to green failed"):
        stage.move("green")
    assert stage.weights() == BLUE


def test_errors_that_never_come_are_not_health_either(stage: Stage) -> None:
    stage.metrics.delay = {"HTTPCode_Target_5XX_Count": 100_000}
    stage.metrics.failing = lambda colour, _: 0.05 if colour == "green" else 0.0
    with pytest.raises(TrafficError, match=r"neither an answer nor an error for .* missing data is not health"):
        stage.move("green")
    assert stage.weights() == BLUE


def test_requests_that_come_later_than_errors_put_nothing_back(stage: Stage) -> None:
    stage.metrics.per_minute = 3000
    stage.metrics.delay = {"RequestCount": 100, "HTTPCode_Target_2XX_Count": 100}
    stage.metrics.failing = lambda _colour, _second: 0.002
    stage.move("green")
    assert stage.weights() == GREEN


def test_counts_that_still_change_are_not_health(stage: Stage) -> None:
    reads = iter(range(100_000))

    def status(_: str) -> str:
        for counts in stage.metrics.counts.values():
            counts["RequestCount", "green"] = 1000 + next(reads)  # type: ignore[assignment]
            counts["HTTPCode_Target_2XX_Count", "green"] = counts["RequestCount", "green"]
        return "Complete"

    stage.metrics.status = status
    with pytest.raises(TrafficError, match="counts of past minutes still change; missing data is not health"):
        stage.move("green")
    assert stage.weights() == BLUE


def test_little_traffic_is_looked_at_longer(stage: Stage) -> None:
    stage.metrics.per_minute = 20
    stage.move("green")
    assert stage.weights() == GREEN
    assert stage.clock.now >= TIMING.settle_seconds + 180, "with 40 requests one failure in 20 would hardly show"


def test_missing_metrics_are_not_health(stage: Stage) -> None:
    stage.metrics.silent_from = 0
    with pytest.raises(TrafficError, match="missing data is not health"):
        stage.move("green")
    assert stage.weights() == BLUE


def test_a_colour_that_stops_being_proven_loses_its_traffic(stage: Stage) -> None:
    stage.clock.at.append((60, lambda: stage.proof.append("pod-1 is unhealthy")))
    with pytest.raises(TrafficError, match="pod-1 is unhealthy"):
        stage.move("green")
    assert stage.weights() == BLUE


def test_throttling_is_waited_out(stage: Stage) -> None:
    stage.throttle("modify_rule", 60)
    stage.move("green")
    assert stage.weights() == GREEN
    lines = [line for line in stage.lines if "Throttling; trying again" in line]
    assert 1 <= len(lines) <= 1 + 60 / 30, lines


def test_an_api_that_throttles_every_second_call_prints_few_lines(stage: Stage) -> None:
    error = ClientError({"Error": {"Code": "Throttling", "Message": "Rate exceeded"}}, "DescribeLoadBalancers")
    calls = iter(range(100_000))
    stage.fails = lambda name: error if name == "describe_load_balancers" and next(calls) % 2 else None
    stage.move("green")
    stage.fails = lambda _: None
    assert stage.weights() == GREEN
    lines = [line.partition(": ")[0] for line in stage.lines if "Throttling; trying again" in line]
    assert len(lines) >= 2
    assert all(lines.count(what) <= 1 + stage.clock.now / 30 for what in lines)
    assert lines.count("asking AWS for its time") < stage.ill.calls.count("describe_load_balancers") / 4


def test_throttling_without_end_says_where_the_weights_are(stage: Stage) -> None:
    stage.throttle("modify_rule", 100_000)
    with pytest.raises(TrafficError) as caught:
        stage.move("green")
    assert "everything is back on blue (read back twice)" in str(caught.value), "they never left"
    assert stage.weights() == BLUE


def test_when_putting_back_fails_too_it_is_said(stage: Stage) -> None:
    async def prober() -> Probe:
        if stage.weights() == BLUE:
            return Probe(ok=True, what="HTTP 200")
        stage.throttle("modify_rule", 100_000)
        return Probe(ok=False, what="reset")

    with pytest.raises(TrafficError, match="could NOT be put back on blue"):
        stage.move("green", prober=prober)


def test_an_api_that_can_not_be_reached_is_tried_until_the_deadline(stage: Stage) -> None:
    error = EndpointConnectionError(endpoint_url="https://elb.example")
    stage.fails = lambda name: error if name == "describe_target_groups" else None
    with pytest.raises(TrafficError, match="can't be reached"):
        stage.move("green")
    assert stage.clock.now >= TIMING.write_deadline_seconds


def test_a_denial_is_not_tried_again(stage: Stage) -> None:
    error = ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "ModifyRule")
    stage.fails = lambda name: error if name == "modify_rule" else None
    with pytest.raises(ShopCatError, match="AccessDenied"):
        stage.move("green")
    assert stage.ill.calls.count("modify_rule") == 1


def test_a_write_is_not_believed_until_read_back(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    real = stage.elb.modify_rule
    lost = iter([True, True])

    def forgetful(**arguments: Any) -> Any:
        return {} if next(lost, False) else real(**arguments)

    monkeypatch.setattr(stage.elb, "modify_rule", forgetful)
    stage.move("green", mode="immediate")
    assert stage.weights() == GREEN
    assert len([line for line in stage.lines if line.startswith("listener ")]) == 2, (
        "one a listener, however often written"
    )


def test_a_rule_with_a_stranger_is_refused(stage: Stage) -> None:
    other = stage.elb.create_target_group(
        Name="other", Protocol="HTTP", Port=80, TargetType="ip", VpcId=stage.balancer.vpc
    )
    arn = other["TargetGroups"][0]["TargetGroupArn"]
    tuples = [{"TargetGroupArn": stage.groups["blue"], "Weight": 1}, {"TargetGroupArn": arn, "Weight": 1}]
    stage.elb.modify_rule(
        RuleArn=stage.rules[0], Actions=[{"Type": "forward", "ForwardConfig": {"TargetGroups": tuples}}]
    )
    with pytest.raises(TrafficError, match="which is no colour"):
        stage.traffic.view()


def test_all_on_one_colour() -> None:
    assert all_on("blue") == {"blue": 100, "green": 0}


def test_our_own_request_says_what_came_back() -> None:
    seen = []

    class Shop(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers["Host"])
            self.send_response(200 if self.path == "/" else 503)
            self.send_header("X-ShopCat-Colour", "blue")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Shop)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    answers: list[Probe] = []

    async def ask(url: str) -> None:
        answers.append(await HttpsProber(url)())

    address = f"http://shop.localhost:{server.server_port}"
    try:
        for url in (address, f"{address}/broken"):
            run(ask(url))
    finally:
        server.shutdown()
        server.server_close()
    run(ask(address))
    assert answers[:2] == [
        Probe(ok=True, what="HTTP 200", colour="blue"),
        Probe(ok=False, what="HTTP 503", colour="blue"),
    ]
    assert not answers[2].ok
    assert "refused" in answers[2].what
    assert seen[0] == f"shop.localhost:{server.server_port}"
