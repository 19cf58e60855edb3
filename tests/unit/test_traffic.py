"""Reading and moving weights on moto's load balancer, with a clock of our own and an API that can be ill."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from moto import mock_aws

from infra.aws_clients import AwsClients
from infra.errors import Refused
from infra.traffic import HttpsProber, Probe, Timing, Traffic, TrafficError, all_on
from tests.unit.releases import REGION, client, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TIMING = Timing(settle_seconds=120, canary_seconds=20, proof_deadline_seconds=30)
START = datetime(2026, 11, 24, 10, 0, 0, tzinfo=UTC)


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.at: list[tuple[float, Callable[[], None]]] = []

    def __call__(self) -> float:
        return self.now

    def wall(self) -> datetime:
        return START + timedelta(seconds=self.now)

    async def sleep(self, seconds: float) -> None:
        self.now += max(seconds, 0.01)
        for when, act in list(self.at):
            if self.now >= when:
                self.at.remove((when, act))
                act()


class Ill:
    """A client of which some calls fail for a while, or count."""

    def __init__(self, inner: Any, fails: Callable[[str], Exception | None]) -> None:
        self._inner, self._fails = inner, fails
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
            return inner(**arguments)

        return call


class Metrics:
    """CloudWatch with requests in every minute from a start, and errors in some."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.requests = 100.0
        self.errors_from: float | None = None
        self.errors_until = float("inf")
        self.silent_from: float | None = None
        self.no_target_until: float | None = None
        self.no_target_from: float | None = None

    def without_target(self, second: float) -> bool:
        early = self.no_target_until is not None and second < self.no_target_until
        return early or (self.no_target_from is not None and second >= self.no_target_from)

    def get_paginator(self, _: str) -> Metrics:
        return self

    def paginate(self, MetricDataQueries: list[dict[str, Any]], StartTime: datetime, EndTime: datetime) -> Any:  # noqa: N803
        minutes = []
        moment = StartTime
        while moment + timedelta(minutes=1) <= EndTime:
            minutes.append(moment)
            moment += timedelta(minutes=1)
        seconds = {minute: (minute - START).total_seconds() for minute in minutes}
        if self.silent_from is not None:
            minutes = [minute for minute in minutes if seconds[minute] < self.silent_from]
        results = []
        for query in MetricDataQueries:
            name = query["MetricStat"]["Metric"]["MetricName"]
            if name == "RequestCount":
                points = {minute: self.requests for minute in minutes if not self.without_target(seconds[minute])}
            elif name == "HTTPCode_ELB_503_Count":
                points = {minute: self.requests for minute in minutes if self.without_target(seconds[minute])}
            elif name == "HTTPCode_Target_5XX_Count" and self.errors_from is not None:
                points = {minute: 5.0 for minute in minutes if self.errors_from <= seconds[minute] < self.errors_until}
            else:
                points = {}
            results.append({"Id": query["Id"], "Timestamps": list(points), "Values": list(points.values())})
        yield {"MetricDataResults": results}


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
        self.metrics = Metrics(self.clock)
        self.lines: list[str] = []
        self.fails: Callable[[str], Exception | None] = lambda _: None
        self.clients = AwsClients(REGION)
        self.ill = Ill(self.elb, self.ask)
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
            wall_clock=self.clock.wall,
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
            self.known = (written, self.weights()[0])
        return self.known[1].get(colour, 0) / 100

    def weights(self) -> list[dict[str, int]]:
        return [dict(rule.weights) for rule in self.traffic.view().rules]

    def start_at(self, blue: int, green: int) -> None:
        for rule in self.rules:
            self.elb.modify_rule(RuleArn=rule, Actions=[self.balancer.forward(blue, green)])

    def move(self, colour: Any = "green", *, prober: Any = None, watched: bool = True, returning: bool = False) -> None:
        async def proof() -> list[str]:
            return self.proof

        run(
            self.traffic.make_carry_everything(
                colour, proof=proof, timing=TIMING, prober=prober, watched=watched, returning=returning
            )
        )

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


def test_a_second_time_nothing_is_written_but_it_is_watched_again(stage: Stage) -> None:
    stage.move("green")
    stage.ill.calls.clear()
    stage.move("green")
    assert stage.ill.calls.count("modify_rule") == 0
    assert stage.weights() == GREEN


def test_nobody_to_protect_moves_at_once(stage: Stage) -> None:
    stage.move("green", watched=False)
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
        stage.move("blue", prober=prober, returning=True)
    assert stage.weights() == BLUE
    assert stage.ill.calls.count("modify_rule") == 2
    stage.move("blue", prober=prober, returning=True)


def test_going_back_waits_until_the_load_balancer_has_followed(stage: Stage) -> None:
    stage.start_at(10, 90)
    stage.move("blue", returning=True)
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
def test_failures_of_the_colour_that_is_left_are_none_of_the_next_one_s(
    stage: Stage, every: int, *, named: bool
) -> None:
    stage.move("green", prober=Shop(stage, blue=every, named=named))
    assert stage.weights() == GREEN


def test_failures_that_the_metrics_knew_before_are_none_of_the_next_one_s(stage: Stage) -> None:
    stage.metrics.errors_from = -6000  # 10 of 100, in each colour's minutes
    stage.metrics.errors_until = 40
    stage.move("green", prober=Shop(stage, blue=21, named=False))
    assert stage.weights() == GREEN


def test_in_an_outage_a_colour_that_is_no_better_keeps_nothing(stage: Stage) -> None:
    with pytest.raises(TrafficError, match="everything is back on blue"):
        stage.move("green", prober=Shop(stage, blue=1, green=1))
    assert stage.weights() == BLUE


def test_a_shift_that_was_killed_when_all_was_moved_is_not_measured_by_its_own_errors(stage: Stage) -> None:
    stage.start_at(0, 100)
    stage.metrics.errors_from = -6000
    with pytest.raises(TrafficError, match="10 of 100 requests failed in the minute"):
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
    stage.unknown = Refused("the ledger can't be read")
    with pytest.raises(Refused, match="can't be read"):
        stage.move("green")
    assert stage.weights() == BLUE
    stage.start_at(90, 10)
    with pytest.raises(Refused, match="everything is back on blue"):
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
        stage.move("blue", watched=False)
        assert stage.weights() == [{"blue": 100, "green": 0}] * 3
    finally:
        stage.elb.delete_rule(RuleArn=rule)


def test_a_weighted_rule_that_somebody_made_simple_gets_both_groups_again(stage: Stage) -> None:
    stage.elb.modify_rule(RuleArn=stage.rules[0], Actions=[{"Type": "forward", "TargetGroupArn": stage.groups["blue"]}])
    assert stage.weights() == BLUE
    stage.move("green", watched=False)
    assert stage.weights() == GREEN


def test_errors_in_the_metrics_put_everything_back(stage: Stage) -> None:
    stage.metrics.errors_from = 60
    with pytest.raises(TrafficError, match="10 of 100 requests failed in the minute"):
        stage.move("green")
    assert stage.weights() == BLUE


def test_the_same_errors_before_are_no_reason(stage: Stage) -> None:
    stage.metrics.errors_from = -6000
    stage.metrics.requests = 1000
    stage.move("green")
    assert stage.weights() == GREEN


def test_requests_for_which_there_is_no_target_are_requests_that_fail(stage: Stage) -> None:
    stage.metrics.no_target_from = 60
    with pytest.raises(TrafficError, match="100 of 100 requests failed in the minute"):
        stage.move("green")
    assert stage.weights() == BLUE


def test_a_release_in_an_outage_is_measured_against_all_requests_of_the_minutes_before(stage: Stage) -> None:
    stage.metrics.no_target_until = 0
    stage.move("green")
    assert stage.weights() == GREEN
    assert any("errors in the 10 minutes before: 100.00% of 1000 requests" in line for line in stage.lines)


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
    assert any("Throttling; trying again" in line for line in stage.lines)


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
    with pytest.raises(Refused, match="AccessDenied"):
        stage.move("green")
    assert stage.ill.calls.count("modify_rule") == 1


def test_a_write_is_not_believed_until_read_back(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    real = stage.elb.modify_rule
    lost = iter([True, True])

    def forgetful(**arguments: Any) -> Any:
        return {} if next(lost, False) else real(**arguments)

    monkeypatch.setattr(stage.elb, "modify_rule", forgetful)
    stage.move("green", watched=False)
    assert stage.weights() == GREEN


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
