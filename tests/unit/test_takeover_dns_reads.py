"""What the move reads at AWS, what a person types, and the move where the name is set by hand."""

from __future__ import annotations

import json
import re
import ssl
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from moto import mock_aws

from infra import settings
from infra.commands import takeover_dns
from infra.commands.traffic_move import by_hand, reads, rules
from infra.commands.traffic_move.by_hand import MoveByHand, hand_records, leads_to
from infra.commands.traffic_move.move import TrafficMove
from infra.commands.traffic_move.records import EdgeKind, Shape, plain_name
from infra.commands.traffic_move.rules import BAKE_MINUTES, LiveRelease, RequestCounts
from infra.errors import AwsError, LedgerUnavailableError, PreflightError, SettingsError
from infra.release.ledger import Ledger, table_definition
from infra.release.probes import HttpsProber
from tests.unit.test_settings import committed
from tests.unit.traffic_world import EXTERNAL, HOST, NEW, OLD, TrafficWorld
from twin.paths import REPOSITORY

NOW = datetime(2026, 11, 29, 12, 7, 31, tzinfo=UTC)


# CloudWatch -----------------------------------------------------------------------------------------------------------


def put(world: TrafficWorld, metric: str, at: datetime, value: float, *more: dict[str, str]) -> None:
    dimension = {"Name": "LoadBalancer", "Value": world.old.arn.partition(":loadbalancer/")[2]}
    world.real["cloudwatch"].put_metric_data(
        Namespace="AWS/ApplicationELB",
        MetricData=[{"MetricName": metric, "Dimensions": [dimension, *more], "Timestamp": at, "Value": value}],
    )


def test_requests_of_the_window_are_counted_and_periods_without_any_report_are_seen() -> None:
    with mock_aws(), pytest.MonkeyPatch.context() as patch:
        world = TrafficWorld(patch)
        start, end = reads.count_window(NOW, 60)
        assert (start, end) == (datetime(2026, 11, 29, 11, 0, tzinfo=UTC), datetime(2026, 11, 29, 12, 0, tzinfo=UTC))
        nothing = reads.read_counts(world.clients, world.old, NOW, 60)
        assert nothing == RequestCounts(0, 0, 12, 0)
        assert "no proof of 0" in rules.counts_refusal(nothing, 0, 60)
        for minute in range(55):
            put(world, "ConsumedLCUs", start + timedelta(minutes=minute), 0.0)
        assert reads.read_counts(world.clients, world.old, NOW, 60).reported == 11
        group = world.real["elbv2"].describe_target_groups(LoadBalancerArn=world.old.arn)["TargetGroups"][0]
        group_dimension = {"Name": "TargetGroup", "Value": group["TargetGroupArn"].rpartition(":")[2]}
        put(world, "HealthyHostCount", end - timedelta(minutes=1), 2, group_dimension)
        quiet = reads.read_counts(world.clients, world.old, NOW, 60)
        assert quiet == RequestCounts(0, 0, 12, 12)
        assert rules.counts_refusal(quiet, 0, 60) == ""
        put(world, "RequestCount", start - timedelta(minutes=1), 100)
        put(world, "RequestCount", end, 100)
        put(world, "RequestCount", start + timedelta(minutes=30), 2)
        put(world, "HTTPCode_ELB_503_Count", start + timedelta(minutes=31), 3)
        used = reads.read_counts(world.clients, world.old, NOW, 60)
        assert used == RequestCounts(2, 3, 12, 12)
        assert "counted 5 requests" in rules.counts_refusal(used, 4, 60)


def flows(
    world: TrafficWorld, namespace: str, dimension: tuple[str, str], metric: str, at: datetime, value: float
) -> None:
    name, of = dimension
    world.real["cloudwatch"].put_metric_data(
        Namespace=namespace,
        MetricData=[
            {"MetricName": metric, "Dimensions": [{"Name": name, "Value": of}], "Timestamp": at, "Value": value}
        ],
    )


def test_a_network_load_balancer_s_connections_are_counted_and_those_that_are_open_still() -> None:
    with mock_aws(), pytest.MonkeyPatch.context() as patch:
        world = TrafficWorld(patch)
        elbv2 = world.real["elbv2"]
        made = elbv2.create_load_balancer(Name="old-nlb", Subnets=world.subnets, Type="network")["LoadBalancers"][0]
        group = elbv2.create_target_group(Name="nlb", Protocol="TCP", Port=443, VpcId=world.vpc, TargetType="ip")
        forward = {"Type": "forward", "TargetGroupArn": group["TargetGroups"][0]["TargetGroupArn"]}
        elbv2.create_listener(
            LoadBalancerArn=made["LoadBalancerArn"], Protocol="TCP", Port=443, DefaultActions=[forward]
        )
        edge = reads.find_edge(world.clients, made["DNSName"])
        assert edge is not None
        assert (edge.name, edge.kind, edge.scheme) == ("old-nlb", EdgeKind.NETWORK, "https")
        assert "no proof of 0" in rules.counts_refusal(reads.read_counts(world.clients, edge, NOW, 60), 0, 60)
        start, end = reads.count_window(NOW, 60)
        of = ("LoadBalancer", edge.arn.partition(":loadbalancer/")[2])
        for minute in range(60):
            flows(
                world,
                "AWS/NetworkELB",
                of,
                "ActiveFlowCount",
                start + timedelta(minutes=minute),
                9.0 if minute < 55 else 0,
            )
        quiet = reads.read_counts(world.clients, edge, NOW, 60)
        assert (quiet.total, quiet.reported, rules.counts_refusal(quiet, 0, 60)) == (0, 12, "")
        flows(world, "AWS/NetworkELB", of, "NewFlowCount", start + timedelta(minutes=2), 4)
        flows(world, "AWS/NetworkELB", of, "ActiveFlowCount", end - timedelta(minutes=1), 2)
        used = rules.counts_refusal(reads.read_counts(world.clients, edge, NOW, 60), 5, 60)
        assert "counted 6 connections in the last 1 hours (2 open still), 5 are accepted" in used


@pytest.mark.parametrize(
    ("protocol", "port", "scheme"), [("HTTP", 80, "http"), ("TCP", 443, "https"), ("SSL", 443, "https")]
)
def test_a_classic_load_balancer_s_requests_are_counted(protocol: str, port: int, scheme: str) -> None:
    with mock_aws(), pytest.MonkeyPatch.context() as patch:
        world = TrafficWorld(patch)
        listener = {"Protocol": protocol, "LoadBalancerPort": port, "InstanceProtocol": "TCP", "InstancePort": 30080}
        made = world.real["elb"].create_load_balancer(
            LoadBalancerName="old-classic", Listeners=[listener], Subnets=world.subnets[:1]
        )
        edge = reads.find_edge(world.clients, made["DNSName"].upper())
        assert edge is not None
        assert (edge.name, edge.kind, edge.scheme, edge.arn) == ("old-classic", EdgeKind.CLASSIC, scheme, "")
        start, _ = reads.count_window(NOW, 60)
        of = ("LoadBalancerName", "old-classic")
        for minute in range(0, 60, 5):
            flows(world, "AWS/ELB", of, "UnHealthyHostCount", start + timedelta(minutes=minute), 0)
        quiet = reads.read_counts(world.clients, edge, NOW, 60)
        assert rules.counts_refusal(quiet, 0, 60) == ""
        flows(world, "AWS/ELB", of, "RequestCount", start + timedelta(minutes=7), 2)
        flows(world, "AWS/ELB", of, "HTTPCode_ELB_5XX", start + timedelta(minutes=8), 3)
        used = rules.counts_refusal(reads.read_counts(world.clients, edge, NOW, 60), 4, 60)
        assert "counted 5 requests in the last 1 hours (3 without a target)" in used


def test_only_an_application_load_balancer_is_this_program_s_own() -> None:
    with mock_aws(), pytest.MonkeyPatch.context() as patch:
        world = TrafficWorld(patch)
        world.delete_new()
        listener = {"Protocol": "HTTP", "LoadBalancerPort": 80, "InstanceProtocol": "HTTP", "InstancePort": 30080}
        world.real["elb"].create_load_balancer(LoadBalancerName=NEW, Listeners=[listener], Subnets=world.subnets[:1])
        assert reads.find_new_edge(world.clients) is None
        assert reads.find_edge(world.clients, NEW) is not None


class Failing:
    """A client whose calls fail."""

    def __init__(self, code: str, status: int = 400) -> None:
        self.error = ClientError(
            {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": status}}, "Call"
        )

    def __getattr__(self, _: str) -> Any:
        def call(**_: Any) -> Any:
            raise self.error

        return call


def test_a_change_that_can_t_be_asked_about_is_waited_for_or_named(
    world: TrafficWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    zone = world.mover().zone
    monkeypatch.setitem(world.clients._clients, "route53", Failing("Throttling"))
    assert not zone.is_in_sync("C1")
    monkeypatch.setitem(world.clients._clients, "route53", Failing("AccessDenied", 403))
    with pytest.raises(AwsError, match="Route 53 change"):
        zone.is_in_sync("C1")
    monkeypatch.setattr(zone, "read", lambda _: pytest.fail("nothing is read after a refusal of another kind"))
    with pytest.raises(AwsError, match=r"change of Route 53 zone example\.com"):
        zone.write(replace(shapes(world), shape=Shape.SIMPLE), world.new, 0)


def shapes(world: TrafficWorld) -> Any:
    return reads.read_shape(HOST, [{"Name": f"{HOST}.", **world.alias()}], world.new)


def test_a_write_whose_answer_was_lost_is_done_once_more(world: TrafficWorld) -> None:
    move = world.mover()
    records = move.zone.read(world.new)
    move.zone.write(records, world.new, 0)
    assert move.zone.write(records, world.new, 0), "the same batch again, as a retry sends it"
    assert world.shares() == {"A": {OLD: 1.0, NEW: 0.0}}
    with pytest.raises(PreflightError, match="are not those that were read"):
        move.zone.write(records, world.new, 1)


def test_the_nearest_zone_is_taken(world: TrafficWorld) -> None:
    zone = reads.find_shop_zone(world.clients, EXTERNAL)
    assert zone is not None
    assert (zone.zone, zone.zone_id) == ("example.com", world.zone_id)
    elsewhere = settings.read_settings({**committed(), "domain": "shop.example.org", "dns": "external"})
    assert reads.find_shop_zone(world.clients, elsewhere) is None
    named = settings.read_settings({**committed(), "domain": HOST, "dns": "external", "hostedZone": "shop.example.com"})
    assert reads.find_shop_zone(world.clients, named) is None


def test_a_load_balancer_is_found_by_name_and_by_dns_name(world: TrafficWorld) -> None:
    assert world.old.scheme == "https"
    for name in (OLD, world.old.dns_name, f"dualstack.{world.old.dns_name.upper()}."):
        assert reads.find_edge(world.clients, name) == world.old
    assert reads.find_edge(world.clients, "k8s-other") is None
    assert plain_name("dualstack.A.example.") == "a.example"


def test_the_ledger_says_what_is_live(world: TrafficWorld) -> None:
    with pytest.raises(LedgerUnavailableError):
        reads.read_live(world.clients, EXTERNAL)
    world.real["dynamodb"].create_table(**table_definition(EXTERNAL.ledger_table))
    Ledger(world.real["dynamodb"], EXTERNAL.ledger_table).initialise()
    assert reads.read_live(world.clients, EXTERNAL) == LiveRelease()


# What a person types --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["gone"], "STEP is 'gone'; expected one of status, split, weight, back, finish"),
        (["weight"], "WEIGHT belongs to STEP=weight"),
        (["back", "10"], "WEIGHT belongs to STEP=weight"),
        (["weight", "101"], "WEIGHT is '101'; expected a whole number from 0 to 100"),
        (["weight", "-1"], "WEIGHT is '-1'"),
        (["weight", "1.5"], "WEIGHT is '1.5'"),
        (["finish", "--bake", "0h"], "BAKE is '0h'; expected hours or minutes"),
        (["finish", "--bake", "24"], "a multiple of 5 minutes from 10m to 336h"),
        (["finish", "--bake", "12m"], "BAKE is '12m'"),
        (["finish", "--bake", "337h"], "BAKE is '337h'"),
        (["finish", "--bake", "m"], "BAKE is 'm'"),
        (["finish", "--bake", ""], "BAKE is ''"),
        (["finish", "--accept", "x"], "ACCEPT is 'x'"),
    ],
)
def test_words_that_mean_nothing_are_refused(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert takeover_dns.main(words) == 1
    assert message in capsys.readouterr().err


def test_the_page_s_commands_are_steps_that_can_be_typed() -> None:
    page = (REPOSITORY / "docs" / "takeover-traffic.md").read_text()
    commands = re.findall(r"make takeover-dns((?: [A-Z_]+=[\w<>-]+)*)", page)
    assert {"", " STEP=split", " STEP=weight WEIGHT=1", " STEP=back", " STEP=finish"} <= set(commands)
    for command in commands:
        values = dict(re.findall(r"([A-Z_]+)=(\S+)", command))
        assert values.keys() <= {"STEP", "WEIGHT", "OLD"}
        words = [values.get("STEP", "status"), *([values["WEIGHT"]] if "WEIGHT" in values else [])]
        takeover_dns.check_arguments(takeover_dns._parse(words))


def test_words_become_numbers() -> None:
    arguments = takeover_dns._parse(["finish", "--accept", "7"])
    takeover_dns.check_arguments(arguments)
    assert (arguments.bake, arguments.accept) == (BAKE_MINUTES[1], 7)
    with pytest.raises(SettingsError):
        takeover_dns.check_arguments(takeover_dns._parse(["weight", "²"]))


def stack_file(tmp_path: Path, **changes: Any) -> Path:
    path = tmp_path / "Pulumi.test.yaml"
    values = {"aws:region": "eu-central-1", **{f"shopcat:{key}": value for key, value in committed(**changes).items()}}
    path.write_text(json.dumps({"config": values}))
    return path


def test_the_command_runs_a_step(
    world: TrafficWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PULUMI_OPTION_CONFIG_FILE", str(stack_file(tmp_path, domain=HOST, dns="external")))
    monkeypatch.setattr(takeover_dns, "AwsClients", lambda *_, **__: world.clients)
    monkeypatch.setattr(takeover_dns, "ask_straight", lambda _: world.ask)
    assert takeover_dns.main(["status"]) == 0
    assert f"simple record A to {world.old.dns_name}, TTL 60 s" in capsys.readouterr().out
    assert takeover_dns.main(["finish"]) == 1
    assert "run STEP=weight WEIGHT=100 first" in capsys.readouterr().err

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(takeover_dns, "run_step", interrupted)
    assert takeover_dns.main(["back"]) == 130
    assert "the same step again" in capsys.readouterr().err


def test_a_name_that_no_zone_here_holds_is_moved_by_hand(world: TrafficWorld) -> None:
    assert isinstance(takeover_dns.choose_move(world.clients, EXTERNAL, ""), TrafficMove)
    world.put()
    assert isinstance(takeover_dns.choose_move(world.clients, EXTERNAL, OLD), MoveByHand)


# By hand --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def hand(world: TrafficWorld) -> MoveByHand:
    return led_by_hand(world, "192.0.2.1")


def led_by_hand(world: TrafficWorld, *shop: str) -> MoveByHand:
    """Return the move by hand of a name that has these addresses: 1 and 2 are the old load balancer's, 9 is the new one's."""
    addresses = {HOST: shop, world.old.dns_name: ("192.0.2.1", "192.0.2.2"), world.new.dns_name: ("192.0.2.9",)}

    def resolve(name: str) -> frozenset[str]:
        return frozenset(addresses[name])

    return MoveByHand(world.clients, EXTERNAL, OLD, world.ask, world.said.append, world.clock(), resolve)


def test_by_hand_each_step_names_the_record_to_set(world: TrafficWorld, hand: MoveByHand) -> None:
    hand.split()
    assert f"{world.old.dns_name}, TTL 60" in world.said[0]
    world.said.clear()
    hand.weight(10)
    text = "\n".join(world.said)
    assert f"{world.old.dns_name}, TTL 60, weight 90" in text
    assert f"{world.new.dns_name}, TTL 60, weight 10" in text
    assert "leads, seen from here, to old" in text
    hand.back()
    hand.status()
    led_by_hand(world, "192.0.2.9").finish(24 * 60, 0)
    assert "leave shopcat:dns external" in world.said[-1]


def test_by_hand_the_same_is_refused(world: TrafficWorld, hand: MoveByHand) -> None:
    world.broken[NEW] = lambda _: True
    with pytest.raises(PreflightError, match="fails its probes"):
        hand.weight(10)
    hand.weight(0)
    world.broken = {OLD: lambda _: True}
    for step in (hand.back, lambda: hand.weight(0), lambda: hand.weight(50)):
        with pytest.raises(PreflightError, match="does not answer"):
            step()
    hand.weight(100)
    world.release = LiveRelease()
    with pytest.raises(PreflightError, match="no release is live"):
        hand.weight(100)
    world.counts = RequestCounts(1, 0, 288, 288)
    with pytest.raises(PreflightError, match="counted 1 requests"):
        led_by_hand(world, "192.0.2.9").finish(24 * 60, 0)


@pytest.mark.parametrize(
    ("shop", "words"),
    [
        (("192.0.2.1",), "to old; STEP=finish expects the new load balancer alone"),
        (("192.0.2.1", "192.0.2.9"), "to old and new;"),
        ((), "to nothing: "),
        (("192.0.2.7",), "to neither of both"),
        (("192.0.2.9", "192.0.2.7"), "to new and others"),
    ],
)
def test_by_hand_finish_wants_the_name_to_lead_to_the_new_one_alone(
    world: TrafficWorld, shop: tuple[str, ...], words: str
) -> None:
    with pytest.raises(PreflightError, match=words):
        led_by_hand(world, *shop).finish(24 * 60, 0)


def test_by_hand_this_program_s_own_record_is_left_alone(hand: MoveByHand) -> None:
    values = settings.read_settings({**committed(), "domain": HOST, "hostedZone": "example.com"})
    own = replace(hand, settings=values)
    for step in (own.split, lambda: own.weight(1), lambda: own.finish(24 * 60, 0)):
        with pytest.raises(PreflightError, match="shopcat:dns is route53"):
            step()
    own.back()


def test_by_hand_back_needs_the_old_load_balancer_alone(world: TrafficWorld, hand: MoveByHand) -> None:
    world.delete_new()
    hand.back()
    assert f"{world.old.dns_name}, TTL 60" in world.said[0]
    hand.status()
    assert f"  new  no load balancer {NEW} in this account and region" in world.said
    with pytest.raises(PreflightError, match="there is no load balancer shopcat"):
        hand.weight(1)


@pytest.mark.parametrize(
    ("name", "words"), [("", "name it: make takeover-dns"), (NEW, "besides the new one"), ("x", "OLD=x")]
)
def test_by_hand_the_old_load_balancer_is_named(hand: MoveByHand, name: str, words: str) -> None:
    with pytest.raises(PreflightError, match=words):
        replace(hand, old_name=name).status()


def test_by_hand_one_or_two_records(world: TrafficWorld) -> None:
    for percent, edge in ((0, world.old), (100, world.new)):
        (line,) = hand_records(HOST, world.old, world.new, percent)
        assert edge.dns_name in line
    assert len(hand_records(HOST, world.old, world.new, 50)) == 3


def test_addresses_tell_where_a_name_leads() -> None:
    old, new = frozenset({"192.0.2.1"}), frozenset({"192.0.2.9"})
    assert leads_to(frozenset(), old, new).startswith("nothing")
    assert leads_to(new, old, new) == "new"
    assert leads_to(old | new, old, new) == "old and new"
    assert leads_to(new | {"192.0.2.7"}, old, new) == "new and others"
    assert "neither of both (192.0.2.7)" in leads_to(frozenset({"192.0.2.7"}), old, new)
    assert by_hand.resolve_addresses("localhost") & {"127.0.0.1", "::1"}
    assert by_hand.resolve_addresses("no.such.name.invalid") == frozenset()


# The prober -----------------------------------------------------------------------------------------------------------


def certificate(folder: Path, host: str) -> Path:
    """Write key and self-signed certificate of a host."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host), x509.IPAddress(ip_address("192.0.2.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    path = folder / f"{host}.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + signed.public_bytes(serialization.Encoding.PEM))
    return path


def test_a_probe_goes_to_one_load_balancer_with_the_shop_s_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real TLS on the loopback: server name, certificate and Host are the shop's, the connection is not."""
    names: list[str | None] = []
    hosts: list[str | None] = []

    class Shop(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hosts.append(self.headers["Host"])
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    pem = certificate(tmp_path, HOST)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    context.sni_callback = lambda _, name, __: names.append(name)
    server = HTTPServer(("127.0.0.1", 0), Shop)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    try:
        probe = HttpsProber(f"https://{HOST}:{server.server_port}", 5, address="127.0.0.1").get()
        other = HttpsProber(f"https://other.example.com:{server.server_port}", 5, address="127.0.0.1").get()
    finally:
        server.shutdown()
        server.server_close()
    assert (probe.ok, probe.what) == (True, "HTTP 200")
    assert names[0] == HOST
    assert hosts == [f"{HOST}:{server.server_port}"]
    assert not other.ok
    assert "doesn't match" in other.what
