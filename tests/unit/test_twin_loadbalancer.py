"""The load balancer stand-in's decisions: target states, rules as configuration, propagation, metrics, admission."""

import ast
import random
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twin import config
from twin.errors import TwinError
from twin.loadbalancer import access_log, dns_names, haproxy_config, metrics, parameters
from twin.loadbalancer.controller import bindings, flags
from twin.loadbalancer.controller.kubernetes import Store
from twin.loadbalancer.controller.queue import WorkQueue
from twin.loadbalancer.elb import UnimplementedError, parse_action, parse_condition, parse_rules
from twin.loadbalancer.haproxy import Slots
from twin.loadbalancer.model import (
    Condition,
    FixedResponse,
    Forward,
    Listener,
    LoadBalancer,
    Redirect,
    Rule,
    Target,
    TargetGroup,
    groups_in_use,
)
from twin.loadbalancer.parameters import Delay
from twin.loadbalancer.propagation import Versions
from twin.loadbalancer.targets import CheckResult, TargetHealth, View, matches, routable, summed_up

PASS = CheckResult(passed=True)
FAIL = CheckResult(passed=False, reason="Target.Timeout", description="Request timed out")


def after(*results: CheckResult, healthy: int = 3, unhealthy: int = 2) -> View:
    view = View().checking_began()
    for result in results:
        view = view.checked(result, healthy_threshold=healthy, unhealthy_threshold=unhealthy)
    return view


# --- targets ---


def test_new_target_is_healthy_after_one_check_whatever_the_threshold() -> None:
    assert after(PASS, healthy=10).state == "healthy"


def test_unhealthy_and_back_take_the_thresholds() -> None:
    assert after(PASS, FAIL).state == "healthy"
    assert after(PASS, FAIL, FAIL).state == "unhealthy"
    assert after(PASS, FAIL, FAIL, PASS, PASS).state == "unhealthy"
    assert after(PASS, FAIL, FAIL, PASS, FAIL, PASS, PASS).state == "unhealthy", "in a row"
    assert after(PASS, FAIL, FAIL, PASS, PASS, PASS).state == "healthy"
    assert after(FAIL).state == "initial"
    assert after(FAIL, FAIL) == View("unhealthy", "Target.Timeout", "Request timed out", 0, 2)


@given(st.lists(st.sampled_from([PASS, FAIL]), max_size=40), st.integers(2, 10), st.integers(2, 10))
def test_states_follow_their_definition(results: list[CheckResult], healthy: int, unhealthy: int) -> None:
    view = after(*results, healthy=healthy, unhealthy=unhealthy)
    if view.state == "initial":
        assert PASS not in results
        assert len(results) < unhealthy
    if len(results) >= unhealthy and all(result is FAIL for result in results[-unhealthy:]):
        assert view.state == "unhealthy"
    if len(results) >= healthy and all(result is PASS for result in results[-healthy:]):
        assert view.state == "healthy"


def test_what_the_api_says() -> None:
    healthy, unhealthy, initial = after(PASS), after(FAIL, FAIL), View()
    assert summed_up([unhealthy, healthy], in_use=True, draining=False).state == "healthy"
    assert summed_up([unhealthy, initial], in_use=True, draining=False).state == "initial"
    assert summed_up([unhealthy, unhealthy], in_use=True, draining=False).reason == "Target.Timeout"
    assert summed_up([healthy], in_use=False, draining=False).reason == "Target.NotInUse"
    assert summed_up([healthy], in_use=True, draining=True).reason == "Target.DeregistrationInProgress"
    assert summed_up([], in_use=True, draining=False) == TargetHealth(
        "initial", "Elb.RegistrationInProgress", "Target registration is in progress"
    )


def test_fail_open_when_no_target_is_healthy() -> None:
    assert routable({"a": after(PASS), "b": after(FAIL, FAIL), "c": View()}) == {"a"}
    assert routable({"b": after(FAIL, FAIL), "c": View()}) == {"b", "c"}
    assert routable({}) == set()


def test_matcher() -> None:
    assert matches("200", 200)
    assert matches("200,302", 302)
    assert matches("200-299", 204)
    assert not matches("200-299,404", 301)


# --- propagation ---


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 60)), max_size=30))
def test_a_later_change_never_overtakes_an_earlier_one(changes: list[tuple[int, float]]) -> None:
    versions: Versions[str, int] = Versions()
    announced = []
    for now, (value, delay) in enumerate(changes):
        if versions.announce("rule", value, float(now), lambda delay=delay: delay):  # type: ignore[misc]
            announced.append(value)
    seen = []
    for tenth in range(1300):
        if versions.advance(tenth / 10) and (not seen or seen[-1] != versions.get("rule")):
            seen.append(versions.get("rule"))
    assert versions.under_way() == 0
    if announced:
        assert versions.get("rule") == announced[-1]
    remaining = iter(announced)
    assert all(value in remaining for value in seen), "in the order they were announced"


def test_delays_are_uneven_bounded_and_scaled() -> None:
    source = partial(random.Random, 1)
    delay = Delay(median=4.0, sigma=1.0, maximum=60.0)
    drawn = [delay.draw(random.Random(seed), 1.0) for seed in range(4000)]  # noqa: S311
    assert max(drawn) <= 60
    assert 3 < sorted(drawn)[2000] < 5
    assert sum(value > 40 for value in drawn) / 4000 < 0.03
    assert sum(value > 15 for value in drawn) / 4000 > 0.05, "heavy-tailed"
    assert delay.draw(source(), 3.0) == pytest.approx(3 * delay.draw(source(), 1.0))


def test_every_number_has_its_source_and_none_is_the_programs() -> None:
    numbers = parameters.load()
    assert numbers.delay_scale == 1.0
    blocks = parameters.PARAMETERS_FILE.read_text().split("\n\n")
    for block in blocks[2:]:
        assert block.lstrip().startswith("#"), f"no source: {block}"
    for file in Path(parameters.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not any(module.split(".")[0] == "infra" for module in modules), file


def test_parameter_file_is_checked(tmp_path: Path) -> None:
    file = tmp_path / "parameters.yaml"
    file.write_text(parameters.PARAMETERS_FILE.read_text() + "\nsurprise: 1\n")
    with pytest.raises(TwinError, match=r"unknown \['surprise'\]"):
        parameters.load(file)


# --- rules ---

BLUE, GREEN = (f"arn:aws:elasticloadbalancing:x:1:targetgroup/{name}/1" for name in ("blue", "green"))
NAMES = {BLUE: "blue", GREEN: "green"}
GROUPS = {arn: TargetGroup(arn, name, 8080) for arn, name in NAMES.items()}


def balancer(*rules: Rule, **changes: Any) -> LoadBalancer:
    listener = Listener(443, "HTTPS", rules, ("arn:aws:acm:x:1:certificate/c",), "ELBSecurityPolicy-TLS13-1-2-2021-06")
    values = {"arn": "arn:aws:elasticloadbalancing:x:1:loadbalancer/app/shopcat/1", "name": "shopcat"}
    return LoadBalancer(**{**values, "dns_name": "d", "internet_facing": True, "listeners": (listener,), **changes})


def render(load_balancer: LoadBalancer, **slots: dict[int, Target]) -> str:
    node = haproxy_config.HaproxyNode("n", "ns", ("127.0.0.1",), Path("/d"), Path("/c"), ("10.213.1.0/24",), 10)
    arns = {name: arn for arn, name in NAMES.items()}
    return haproxy_config.render(
        node, load_balancer, GROUPS, ["198.51.100.7"], {arns[name]: taken for name, taken in slots.items()}
    )


def weighted(blue: int, green: int) -> Rule:
    return Rule("default", (), Forward(((BLUE, blue), (GREEN, green))))


@given(st.lists(st.integers(0, 999), min_size=1, max_size=5), st.integers(0, haproxy_config.DICE_SIDES - 1))
def test_weights_give_each_group_its_share(weights: list[int], die: int) -> None:
    arns = [f"g{i}" for i in range(len(weights))]
    line = haproxy_config.forward_line(Forward(tuple(zip(arns, weights, strict=True))), {arn: arn for arn in arns})
    parts = [part.split(":") for part in line.split("|")] if line else []
    assert [name for _, name in parts] == [arn for arn, weight in zip(arns, weights, strict=True) if weight]
    if parts:
        assert int(parts[-1][0]) == haproxy_config.DICE_SIDES
        chosen = next(name for limit, name in parts if int(limit) - die > 0)
        assert weights[arns.index(chosen)] > 0


def test_weights_and_targets_are_no_part_of_the_structure() -> None:
    assert render(balancer(weighted(100, 0))) == render(balancer(weighted(0, 100)))
    taken = render(balancer(weighted(100, 0)), blue={2: Target("10.0.0.1", 8080)})
    assert "server s2 10.0.0.1:8080\n" in taken
    assert render(balancer(weighted(1, 0))) != render(balancer(Rule("5", (), FixedResponse(404)), weighted(1, 0)))
    assert haproxy_config.forwards_map(balancer(weighted(0, 0)), NAMES) == {"443/default": "-"}


def test_nothing_is_tried_twice() -> None:
    text = render(balancer(weighted(1, 1)))
    assert "  retries 0\n" in text
    assert "redispatch" not in text
    assert "retry-on" not in text
    assert "http-reuse always" in text


def test_conditions() -> None:
    rule = Rule(
        "10",
        (
            Condition("host-header", ("*.preview.example",)),
            Condition("http-header", ("blue", "gr?en"), "X-ShopCat-Colour"),
            Condition("source-ip", ("203.0.113.0/24",)),
            Condition("path-pattern", ("/a.b/*",)),
        ),
        Forward(((GREEN, 1),)),
    )
    text = render(balancer(rule, weighted(1, 0)))
    assert r"acl rule0_0 req.hdr(host),field(1,:) -m reg -i '^.*\.preview\.example$'" in text
    assert "acl rule0_1 req.fhdr(X-ShopCat-Colour) -m reg -i '^blue$' '^gr.en$'" in text
    assert "acl rule0_2 src 203.0.113.0/24" in text
    assert r"acl rule0_3 path -m reg '^/a\.b/.*$'" in text
    assert "str(443/10) if !{ var(txn.rule) -m found } rule0_0 rule0_1 rule0_2 rule0_3" in text
    assert "http-request set-src str(198.51.100.7) if { src 10.213.1.0/24 }" in text
    assert "set-src" not in render(balancer(weighted(1, 0), internet_facing=False))


def test_redirect_keeps_path_and_query() -> None:
    text = render(balancer(Rule("default", (), Redirect(301, protocol="HTTPS", port="443"))))
    assert "code 301 location https://%[req.hdr(host),field(1,:)]:443/%[path,regsub(^/,)]?%[query]" in text


def test_tls_policies() -> None:
    assert haproxy_config.tls_versions("ELBSecurityPolicy-TLS13-1-2-2021-06") == ("TLSv1.2", "TLSv1.3")
    assert haproxy_config.tls_versions("ELBSecurityPolicy-TLS13-1-3-2021-06") == ("TLSv1.3", "TLSv1.3")
    assert haproxy_config.tls_versions("ELBSecurityPolicy-2016-08") == ("TLSv1.0", "TLSv1.2")
    assert haproxy_config.tls_versions("ELBSecurityPolicy-Of-Tomorrow") is None


def test_rules_come_in_order_with_the_default_last() -> None:
    action = [{"Type": "forward", "TargetGroupArn": BLUE}]
    documents = [
        {"IsDefault": True, "Priority": "default", "Actions": action},
        {"Priority": "100", "Actions": action},
        {"Priority": "9", "Actions": action},
    ]
    assert [rule.priority for rule in parse_rules(documents)] == ["9", "100", "default"]


@pytest.mark.parametrize(
    ("what", "parse", "document"),
    [
        ("the rule condition query-string", parse_condition, {"Field": "query-string"}),
        ("the rule action authenticate-oidc", parse_action, [{"Type": "authenticate-oidc"}]),
        (
            "target group stickiness in a forward action",
            parse_action,
            [{"Type": "forward", "ForwardConfig": {"TargetGroupStickinessConfig": {"Enabled": True}}}],
        ),
        ("a rule with 2 actions", parse_action, [{"Type": "forward"}, {"Type": "forward"}]),
    ],
)
def test_unimplemented_is_refused_by_name(what: str, parse: Any, document: Any) -> None:
    with pytest.raises(UnimplementedError, match=f"^twin: {what} is not implemented by the stand-in$"):
        parse(document)


def test_weight_zero_group_is_used_or_not_as_switched() -> None:
    load_balancer = balancer(weighted(100, 0))
    assert groups_in_use([load_balancer], weight_zero_unused=False) == {BLUE, GREEN}
    assert groups_in_use([load_balancer], weight_zero_unused=True) == {BLUE}
    by_header = Rule("5", (Condition("http-header", ("green",), "X"),), Forward(((GREEN, 1),)))
    assert groups_in_use([balancer(by_header, weighted(100, 0))], weight_zero_unused=True) == {BLUE, GREEN}


def test_slots_are_kept_until_released() -> None:
    slots = Slots()
    one, two, three = (Target(f"10.0.0.{i}", 80) for i in (1, 2, 3))
    assert (slots.take(one), slots.take(two), slots.take(one)) == (1, 2, 1)
    slots.release(one)
    assert slots.of(one) is None
    assert slots.take(three) == 1
    for port in range(haproxy_config.SLOTS_PER_GROUP - 2):
        slots.take(Target("10.0.1.1", port))
    with pytest.raises(TwinError, match="more than 32 targets"):
        slots.take(Target("10.0.1.2", 80))


def test_names() -> None:
    known = {"shopcat.localhost": "a", "*.preview.shopcat.localhost": "b", "x.elb": "gone"}
    assert dns_names.name_addresses(known, {"a": ["1.1.1.1", "1.1.1.2"], "b": ["2.2.2.1"]}) == {
        "*.preview.shopcat.localhost": ["2.2.2.1"],
        "shopcat.localhost": ["1.1.1.1", "1.1.1.2"],
    }
    assert dns_names.host_maps(known, {"a": "prod", "b": "previews"}) == (
        {"shopcat.localhost": "prod"},
        {".preview.shopcat.localhost": "previews"},
    )


# --- logs and metrics ---


def request(**changes: Any) -> access_log.Request:
    line = (
        '{"time":60000,"node":"n","listener":443,"rule":"443/default","group":"blue","target":"10.0.0.1:8080",'
        '"status":200,"by":"target","flags":"--","queued":0,"connect":0,"response":1,"total":2,"bytes":3,'
        '"client":"1.1.1.1:1","method":"GET","path":"\\/","id":"x"}'
    )
    found = access_log.parse(line.encode())
    assert found is not None
    return access_log.Request(**{**found.__dict__, **changes})


def test_other_lines_are_no_requests() -> None:
    assert access_log.parse(b"[NOTICE]   (1) : New worker (2) forked") is None
    assert access_log.parse(b'{"time":1, broken') is None


def test_metrics_count_what_elb_counts() -> None:
    whole = (("LoadBalancer", "app/s/1"),)
    blue = (*whole, ("TargetGroup", "targetgroup/blue/1"))
    requests = [
        request(),
        request(status=500),
        request(status=502, by_target=False, flags="SC"),
        request(status=502, by_target=False, flags="SH"),
        request(status=504, by_target=False, flags="sH"),
        request(status=503, by_target=False, flags="LR", target=""),
        request(status=-1, by_target=False, flags="CH"),
    ]
    found = metrics.count(requests, "app/s/1", {"blue": "targetgroup/blue/1"})
    assert found["RequestCount", whole] == 6, "the 503 had no target"
    assert found["RequestCount", blue] == 6
    assert found["HTTPCode_Target_5XX_Count", blue] == 1
    assert found["HTTPCode_ELB_502_Count", whole] == 2
    assert found["HTTPCode_ELB_503_Count", whole] == 1
    assert found["HTTPCode_ELB_504_Count", whole] == 1
    assert found["HTTPCode_ELB_460_Count", whole] == 1
    assert found["TargetConnectionErrorCount", blue] == 1
    assert ("HTTPCode_ELB_500_Count", whole) not in found, "no zeros"
    assert all(entry["Value"] > 0 for entry in metrics.metric_data(found, 1))


def test_a_minute_is_written_when_its_delay_is_over_and_the_moment_is_kept(tmp_path: Path) -> None:
    class Sources:
        parameters = parameters.load()
        delay_scale = 0.0

        def metric_sources(self) -> list[tuple[str, str, dict[str, str]]]:
            return [("alb", "app/s/1", {"blue": "targetgroup/blue/1"})]

    class CloudWatch:
        calls = 0

        def put_metric_data(self, **_: Any) -> None:
            self.calls += 1

    twin = config.Twin("x", 1, tmp_path, tmp_path, True)
    twin.logs.mkdir(parents=True)
    (twin.logs / "alb.log").touch()
    cloudwatch = CloudWatch()
    found = metrics.Metrics(twin, cast("Any", Sources()), cloudwatch, 1)
    found._minutes[10] = metrics.count([request()], "app/s/1", {})
    for now in (661.0, 664.5, 670.0):
        found.step(now)
    assert cloudwatch.calls == 1
    assert metrics.written(twin) == {600: 664.5}


def test_targets_are_counted_once_a_minute_with_or_without_requests(tmp_path: Path) -> None:
    class Sources:
        parameters = parameters.load()
        delay_scale = 0.0

        def metric_sources(self) -> list[tuple[str, str, dict[str, str]]]:
            return []

    class CloudWatch:
        def __init__(self) -> None:
            self.points: list[tuple[str, int, float]] = []

        def put_metric_data(self, MetricData: list[dict[str, Any]], **_: Any) -> None:  # noqa: N803
            self.points += [(each["MetricName"], each["Timestamp"].timestamp(), each["Value"]) for each in MetricData]

    twin = config.Twin("x", 1, tmp_path, tmp_path, True)
    twin.logs.mkdir(parents=True)
    cloudwatch = CloudWatch()
    found = metrics.Metrics(twin, cast("Any", Sources()), cloudwatch, 1)
    for second in range(600, 760, 2):
        found.step(float(second), [("app/s/1", "targetgroup/blue/1", 2, 0)])
    assert sorted(cloudwatch.points) == [
        (name, minute, value)
        for name, value in (("HealthyHostCount", 2), ("UnHealthyHostCount", 0))
        for minute in (600, 660)
    ]


def test_errors_are_written_at_a_time_of_their_own(tmp_path: Path) -> None:
    class Sources:
        parameters = parameters.load()
        delay_scale = 1.0

        def metric_sources(self) -> list[tuple[str, str, dict[str, str]]]:
            return []

    class CloudWatch:
        def __init__(self) -> None:
            self.written: dict[str, float] = {}

        def put_metric_data(self, MetricData: list[dict[str, Any]], **_: Any) -> None:  # noqa: N803
            for each in MetricData:
                assert each["MetricName"] not in self.written or len(each["Dimensions"]) > 1
                self.written[each["MetricName"]] = now

    twin = config.Twin("x", 1, tmp_path, tmp_path, True)
    twin.logs.mkdir(parents=True)
    later, earlier = 0, 0
    for seed in range(8):
        cloudwatch = CloudWatch()
        found = metrics.Metrics(twin, cast("Any", Sources()), cloudwatch, seed)
        found._minutes[10] = metrics.count([request(), request(status=500)], "app/s/1", {"blue": "targetgroup/blue/1"})
        for second in range(660, 860):
            now = float(second)
            found.step(now)
        assert set(cloudwatch.written) == {"RequestCount", "HTTPCode_Target_2XX_Count", "HTTPCode_Target_5XX_Count"}
        late = cloudwatch.written["HTTPCode_Target_5XX_Count"] - cloudwatch.written["RequestCount"]
        later, earlier = later + (late > 0), earlier + (late < 0)
        assert not found._minutes, "nothing is left over"
        assert not found._due
    assert later
    assert earlier


# --- controller ---


def test_flags() -> None:
    parsed = flags.parse(
        ["--cluster-name=c", "--aws-region=r", "--targetgroupbinding-requeue-duration=5s", "--ingress-class=alb"]
    )
    assert parsed.requeue_seconds == 5
    assert parsed.sync_period_seconds == 36000
    assert flags.duration_seconds("1m30s") == 90
    with pytest.raises(ValueError, match="no duration"):
        flags.duration_seconds("5 minutes")


def test_unknown_flag_is_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        flags.parse(["--cluster-name=c", "--aws-region=r", "--default-load-balancer-scheme=internal"])
    assert "--default-load-balancer-scheme is not implemented by the stand-in" in capsys.readouterr().err


def cluster(*, ready: bool, terminating: bool = False, containers: str = "True", node: str = "True") -> bindings.Caches:
    stores = {name: Store() for name in ("services", "slices", "pods", "nodes", "bindings")}
    meta = {"namespace": "shopcat"}
    stores["services"].put(
        {"metadata": {**meta, "name": "blue"}, "spec": {"selector": {}, "ports": [{"name": "http", "port": 80}]}}
    )
    stores["pods"].put(
        {
            "metadata": {**meta, "name": "p"},
            "spec": {"nodeName": "node1"},
            "status": {"conditions": [{"type": "ContainersReady", "status": containers}]},
        }
    )
    stores["nodes"].put({"metadata": {"name": "node1"}, "ready": node})
    conditions = {"ready": ready, "serving": True, "terminating": terminating}
    endpoint = {"addresses": ["10.0.0.1"], "conditions": conditions, "targetRef": {"kind": "Pod", "name": "p"}}
    stores["slices"].put(
        {
            "metadata": {**meta, "name": "s", "labels": {"kubernetes.io/service-name": "blue"}},
            "addressType": "IPv4",
            "endpoints": [endpoint],
            "ports": [{"name": "http", "port": 8080}],
        }
    )
    return bindings.Caches(**stores)


@pytest.mark.parametrize(
    ("state", "registered"),
    [
        ({"ready": True}, True),
        ({"ready": False}, True),  # only the gate is missing
        ({"ready": False, "containers": "False"}, False),
        ({"ready": False, "terminating": True}, False),
        ({"ready": False, "node": "False"}, False),
        ({"ready": False, "node": "Unknown"}, True),  # nothing better is known
    ],
)
def test_which_pods_are_registered(state: dict[str, Any], *, registered: bool) -> None:
    found = bindings.endpoints_of(cluster(**state), "shopcat", "blue", 80)
    assert [endpoint.identity for endpoint in found] == ([("10.0.0.1", 8080)] if registered else [])


def test_missing_service_or_port() -> None:
    with pytest.raises(bindings.BackendNotFoundError, match='Service "green" not found'):
        bindings.endpoints_of(cluster(ready=True), "shopcat", "green", 80)
    with pytest.raises(bindings.BackendNotFoundError, match="unable to find port 81"):
        bindings.endpoints_of(cluster(ready=True), "shopcat", "blue", 81)


def test_work_queue_never_gives_a_key_twice_at_once() -> None:
    queue = WorkQueue(1000)
    queue.add(("n", "a"))
    queue.add(("n", "a"))
    assert queue.get() == ("n", "a")
    queue.add(("n", "a"))
    queue.add(("n", "b"))
    assert queue.get() == ("n", "b")
    queue.done(("n", "a"))
    assert queue.get() == ("n", "a")
