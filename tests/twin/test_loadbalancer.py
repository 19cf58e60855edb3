"""The load balancer's data plane alone: moto in this process, Python HTTP servers as targets, all on loopback."""

import asyncio
import dataclasses
import http.client
import logging
import shutil
import socket
import ssl
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from twin import config
from twin.config import Twin
from twin.host import pki, processes
from twin.loadbalancer import access_log, front_door, parameters, service
from twin.loadbalancer.elb import Reader
from twin.loadbalancer.engine import Engine
from twin.loadbalancer.front_door import FrontDoor
from twin.loadbalancer.metrics import Metrics
from twin.loadbalancer.parameters import Delay
from twin.paths import is_root

pytestmark = [
    pytest.mark.twin,
    pytest.mark.skipif(not is_root(), reason="load-balancer nodes listen on port 443, which needs root"),
]

REGION = "eu-central-1"
HOST = "shopcat.localhost"
NO_DELAY = Delay(0.0, 0.0, 0.0)
FAST = dataclasses.replace(
    parameters.load(),
    deregistration_seconds=NO_DELAY,
    registration_seconds=NO_DELAY,
    rules_seconds=NO_DELAY,
    metrics_delay_seconds=NO_DELAY,
    connect_timeout_seconds=2,
    poll_seconds=0.2,
    slow_poll_seconds=0.4,
)


class Handler(BaseHTTPRequestHandler):
    """A target whose behaviour is in the path."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: "Backend"

    def do_GET(self) -> None:
        if self.path == "/healthz":
            return self._answer(self.server.health, b"")
        self.server.requests += 1
        if self.path.startswith("/slow"):
            time.sleep(float(self.path.partition("=")[2]))
        if self.path.startswith("/reset"):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
            return None
        status = int(self.path.partition("=")[2]) if self.path.startswith("/status") else 200
        return self._answer(status, f"{self.server.label} {dict(self.headers)}".encode())

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Label", self.server.label)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


class Backend(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, label: str, ip: str) -> None:
        self.label = label
        self.health = 200
        self.requests = 0
        super().__init__((ip, 0), Handler)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    @property
    def target(self) -> dict[str, Any]:
        return {"Id": self.server_address[0], "Port": self.server_address[1]}


class Rig:
    """moto, an engine in a thread, a load balancer with a weighted rule over two groups."""

    def __init__(self, twin: Twin, port: int) -> None:
        self.twin = twin
        self.endpoint = f"http://127.0.0.1:{port}"
        self.elb = self.client("elbv2")
        self.certificate = self.client("acm").request_certificate(
            DomainName=HOST, SubjectAlternativeNames=[f"*.{HOST}"]
        )["CertificateArn"]
        ec2 = self.client("ec2")
        vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        subnets = [
            ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.0.{i}.0/24", AvailabilityZone=f"{REGION}{zone}")["Subnet"][
                "SubnetId"
            ]
            for i, zone in enumerate("ab")
        ]
        self.vpc = vpc
        created = self.elb.create_load_balancer(Name="shopcat", Subnets=subnets)["LoadBalancers"][0]
        self.arn, self.dns_name = created["LoadBalancerArn"], created["DNSName"]
        self.blue, self.green = self.group("shopcat-blue"), self.group("shopcat-green")
        self.elb.create_listener(
            LoadBalancerArn=self.arn,
            Port=80,
            Protocol="HTTP",
            DefaultActions=[
                {"Type": "redirect", "RedirectConfig": {"Protocol": "HTTPS", "Port": "443", "StatusCode": "HTTP_301"}}
            ],
        )
        self.listener = self.elb.create_listener(
            LoadBalancerArn=self.arn,
            Port=443,
            Protocol="HTTPS",
            SslPolicy="ELBSecurityPolicy-TLS13-1-2-2021-06",
            Certificates=[{"CertificateArn": self.certificate}],
            DefaultActions=[self.forward(100, 0)],
        )["Listeners"][0]["ListenerArn"]
        self.backends: list[Backend] = []
        self.engine: Engine = None  # type: ignore[assignment]
        self.metrics: Metrics = None  # type: ignore[assignment]
        self._loop = asyncio.new_event_loop()
        self._thread: threading.Thread | None = None

    def client(self, name: str) -> Any:
        return boto3.client(
            name,
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id="twin",
            aws_secret_access_key="twin",
        )

    def group(self, name: str, **attributes: str) -> str:
        arn = self.elb.create_target_group(
            Name=name,
            Protocol="HTTP",
            Port=8080,
            VpcId=self.vpc,
            TargetType="ip",
            HealthCheckPath="/healthz",
            HealthCheckIntervalSeconds=5,
            HealthCheckTimeoutSeconds=2,
            HealthyThresholdCount=2,
            UnhealthyThresholdCount=2,
        )["TargetGroups"][0]["TargetGroupArn"]
        wanted = {"deregistration_delay.timeout_seconds": "3", **attributes}
        self.elb.modify_target_group_attributes(
            TargetGroupArn=arn, Attributes=[{"Key": key, "Value": value} for key, value in wanted.items()]
        )
        return arn  # type: ignore[no-any-return]

    def forward(self, blue: int, green: int) -> dict[str, Any]:
        groups = [{"TargetGroupArn": self.blue, "Weight": blue}, {"TargetGroupArn": self.green, "Weight": green}]
        return {"Type": "forward", "ForwardConfig": {"TargetGroups": groups}}

    def shift(self, blue: int, green: int) -> None:
        self.elb.modify_listener(ListenerArn=self.listener, DefaultActions=[self.forward(blue, green)])

    def backend(self, label: str, arn: str | None = None, *, register: bool = True) -> Backend:
        backend = Backend(label, f"127.213.{self.twin.index}.{10 + len(self.backends)}")
        self.backends.append(backend)
        if register:
            self.elb.register_targets(TargetGroupArn=arn or self.blue, Targets=[backend.target])
        return backend

    def start(self, numbers: parameters.Parameters = FAST) -> None:
        reader = Reader(self.endpoint, REGION, numbers.slow_poll_seconds)
        door = FrontDoor(self.twin, self.door, self.twin.directory / "loadbalancer" / "front-door")
        self.engine = Engine(self.twin, numbers, reader, door, processes_run=True, targets_answer=True)
        self.metrics = Metrics(self.twin, self.engine, reader.cloudwatch, 1)

        def run() -> None:
            asyncio.set_event_loop(self._loop)
            self._loop.create_task(self.engine.poll_forever())
            self._loop.create_task(self.engine.tick_forever())
            self._loop.run_forever()

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()
        wait(lambda: [n["running"] for b in self.engine.status()["loadBalancers"] for n in b["nodes"]] == [True, True])

    def stop(self) -> None:
        if self._thread is not None:

            def end() -> None:
                for task in asyncio.all_tasks(self._loop):
                    task.cancel()
                self._loop.call_later(0.1, self._loop.stop)

            self._loop.call_soon_threadsafe(end)
            self._thread.join()
            self._loop.close()
        for backend in self.backends:
            backend.shutdown()
            backend.server_close()

    @property
    def door(self) -> str:
        return f"127.213.{self.twin.index}.1"

    def node(self, number: int) -> str:
        return self.twin.load_balancer_ips(0, loopback=True)[number - 1]

    def connection(self, node: int = 1, *, timeout: float = 20.0) -> http.client.HTTPSConnection:
        """A keep-alive connection to one node, its certificate checked for the site's name."""
        context = ssl.create_default_context(cafile=str(pki.ca_file(self.twin)))
        plain = socket.create_connection((self.node(node), 443), timeout=timeout)
        connection = http.client.HTTPSConnection(HOST, timeout=timeout)
        connection.sock = context.wrap_socket(plain, server_hostname=HOST)
        return connection

    def get(self, path: str = "/", node: int = 1, **headers: str) -> tuple[int, str, str]:
        """Status, the target's label (empty if the load balancer answered itself) and the body."""
        connection = self.connection(node)
        try:
            return ask(connection, path, **headers)
        finally:
            connection.close()

    def states(self, arn: str) -> dict[str, tuple[str, str]]:
        return {
            health["Target"]["Id"]: (health["TargetHealth"]["State"], health["TargetHealth"].get("Reason", ""))
            for health in self.engine.target_health(arn) or []
        }

    def healthy(self, arn: str) -> int:
        return sum(state == "healthy" for state, _ in self.states(arn).values())

    def routable(self, group: str) -> list[list[str]]:
        (load_balancer,) = self.engine.status()["loadBalancers"]
        return [node["routable"].get(group, []) for node in load_balancer["nodes"]]

    def weights(self) -> list[dict[str, int]]:
        (load_balancer,) = self.engine.status()["loadBalancers"]
        return [node["weights"]["443/default"] for node in load_balancer["nodes"]]

    def requests(self, node: int = 1) -> list[access_log.Request]:
        return list(access_log.read(self.twin.logs / f"alb-shopcat-node{node}.log"))


def ask(connection: http.client.HTTPSConnection, path: str = "/", **headers: str) -> tuple[int, str, str]:
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    return answer.status, answer.headers.get("X-Label", ""), answer.read().decode()


def wait(condition: Callable[[], Any], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def playground() -> Iterator[tuple[Twin, int]]:
    twin = config.load("albtest", simulated=False)
    twin.directory.mkdir(parents=True, exist_ok=True)
    pki.up(twin)
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield twin, server.get_host_and_port()[1]
    server.stop()
    pki.down(twin)
    shutil.rmtree(twin.directory)
    config.release_index(twin)


@pytest.fixture
def rig(playground: tuple[Twin, int]) -> Iterator[Rig]:
    twin, port = playground
    http.client.HTTPConnection("127.0.0.1", port).request("POST", "/moto-api/reset")
    time.sleep(0.1)
    opened = Rig(twin, port)
    yield opened
    opened.stop()
    service.down(twin)
    shutil.rmtree(twin.directory / "loadbalancer", ignore_errors=True)
    shutil.rmtree(twin.logs, ignore_errors=True)


def test_page_over_https_through_both_nodes_and_the_front_door(rig: Rig) -> None:
    rig.backend("blue")
    rig.start()
    wait(lambda: rig.healthy(rig.blue) == 1)
    assert [rig.get(node=n)[:2] for n in (1, 2)] == [(200, "blue")] * 2

    context = ssl.create_default_context(cafile=str(pki.ca_file(rig.twin)))
    wait(lambda: processes.find(rig.twin, front_door.PROCESS) is not None)
    with context.wrap_socket(socket.create_connection((rig.door, 443), timeout=5), server_hostname=HOST) as sock:
        sock.sendall(f"GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
        assert b"200 OK" in sock.recv(65536)
    plain = http.client.HTTPConnection(rig.door, 80, timeout=5)
    plain.request("GET", "/orders?x=1", headers={"Host": HOST})
    answer = plain.getresponse()
    assert (answer.status, answer.headers["Location"]) == (301, f"https://{HOST}:443/orders?x=1")

    # ELB passes on who asked, and says who it is when it answers itself.
    body = rig.get()[2]
    assert "'x-forwarded-proto': 'https'" in body
    assert "x-amzn-trace-id" in body
    hosts = (rig.twin.hosts_directory / "load-balancers").read_text()
    assert (
        f"{rig.node(1)} {rig.dns_name.lower()}" in hosts.replace("10.213", "127.213") or rig.dns_name.lower() in hosts
    )


def test_weights_are_per_request_and_change_without_a_reload(rig: Rig) -> None:
    rig.backend("blue")
    rig.backend("green", rig.green)
    rig.start()
    wait(lambda: rig.healthy(rig.blue) == 1 and rig.healthy(rig.green) == 1)
    connection = rig.connection()
    assert {ask(connection)[1] for _ in range(20)} == {"blue"}
    rig.shift(50, 50)
    wait(lambda: all(weights["shopcat-green"] == 50 for weights in rig.weights()))
    wait(lambda: ask(connection)[1] == "green")
    seen = Counter(ask(connection)[1] for _ in range(200))
    assert 60 < seen["green"] < 140, seen
    rig.shift(0, 100)
    wait(lambda: all(weights["shopcat-green"] == 100 for weights in rig.weights()))
    wait(lambda: {ask(connection)[1] for _ in range(20)} == {"green"})
    (load_balancer,) = rig.engine.status()["loadBalancers"]
    assert [node["reloads"] for node in load_balancer["nodes"]] == [0, 0]


def test_empty_weighted_group_is_503_and_never_fails_over(rig: Rig) -> None:
    rig.backend("blue")
    rig.start()
    wait(lambda: rig.healthy(rig.blue) == 1)
    rig.shift(0, 100)
    wait(lambda: all(weights["shopcat-green"] == 100 for weights in rig.weights()))
    wait(lambda: {rig.get()[0] for _ in range(10)} == {503})


def test_rules_by_header_path_and_source(rig: Rig) -> None:
    rig.backend("blue")
    rig.backend("green", rig.green)
    only_green = [{"Type": "forward", "TargetGroupArn": rig.green}]
    header = {"Field": "http-header", "HttpHeaderConfig": {"HttpHeaderName": "X-ShopCat-Colour", "Values": ["green"]}}
    rig.elb.create_rule(
        ListenerArn=rig.listener,
        Priority=10,
        Conditions=[header, {"Field": "source-ip", "SourceIpConfig": {"Values": ["127.0.0.0/8"]}}],
        Actions=only_green,
    )
    rig.elb.create_rule(
        ListenerArn=rig.listener,
        Priority=20,
        Conditions=[{"Field": "path-pattern", "PathPatternConfig": {"Values": ["/elsewhere/*"]}}],
        Actions=[
            {
                "Type": "fixed-response",
                "FixedResponseConfig": {"StatusCode": "404", "ContentType": "text/plain", "MessageBody": 'no "page"'},
            }
        ],
    )
    rig.elb.create_rule(
        ListenerArn=rig.listener,
        Priority=30,
        Conditions=[
            {"Field": "host-header", "HostHeaderConfig": {"Values": ["other.example", "*.other.example"]}},
            {"Field": "source-ip", "SourceIpConfig": {"Values": ["203.0.113.0/24"]}},
        ],
        Actions=only_green,
    )
    rig.start()
    wait(lambda: rig.healthy(rig.blue) == 1 and rig.healthy(rig.green) == 1)
    assert rig.get()[1] == "blue"
    assert rig.get(**{"X-ShopCat-Colour": "green"})[1] == "green"
    assert rig.get("/elsewhere/x")[::2] == (404, 'no "page"')
    assert rig.get(Host="a.other.example")[1] == "blue", "the source address does not match"


def test_target_states_and_fail_open(rig: Rig) -> None:
    backend = rig.backend("one")
    backend.health = 500
    rig.start()
    assert rig.states(rig.blue)[backend.target["Id"]][0] == "initial"
    wait(lambda: rig.states(rig.blue)[backend.target["Id"]] == ("unhealthy", "Target.ResponseCodeMismatch"), 25)
    assert rig.get()[:2] == (200, "one"), "with no healthy target all get requests"
    two = rig.backend("two")
    wait(lambda: rig.states(rig.blue).get(two.target["Id"], ("",))[0] == "healthy")
    wait(lambda: all(len(targets) == 1 for targets in rig.routable("shopcat-blue")))
    wait(lambda: {rig.get()[1] for _ in range(10)} == {"two"})
    lonely = rig.group("lonely")
    rig.backend("unasked", lonely)
    wait(lambda: list(rig.states(lonely).values()) == [("unused", "Target.NotInUse")])


def test_deregistered_target_drains_finishes_and_is_cut_at_the_delay(rig: Rig) -> None:
    old, new = rig.backend("old"), rig.backend("new")
    rig.start()
    wait(lambda: [len(targets) for targets in rig.routable("shopcat-blue")] == [2, 2])
    wait(lambda: {rig.get()[1] for _ in range(10)} == {"old", "new"})
    asked = old.requests + new.requests
    results: dict[str, int] = {}

    def long(name: str, path: str) -> threading.Thread:
        def run() -> None:
            connection = rig.connection()
            connection.request("GET", path)
            try:
                answer = connection.getresponse()
                results[name] = answer.status if answer.headers.get("X-Label") in ("old", None) else -1
            except (OSError, http.client.HTTPException):
                results[name] = 0

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    # As many as needed for both kinds to have met the old target.
    threads = [long(f"short{i}", "/slow=1.5") for i in range(10)] + [long(f"long{i}", "/slow=9") for i in range(10)]
    wait(lambda: old.requests + new.requests == asked + 20)
    rig.elb.deregister_targets(TargetGroupArn=rig.blue, Targets=[old.target])
    wait(lambda: rig.states(rig.blue)[old.target["Id"]] == ("draining", "Target.DeregistrationInProgress"))
    wait(lambda: all(len(targets) == 1 for targets in rig.routable("shopcat-blue")))
    wait(lambda: {rig.get()[1] for _ in range(10)} == {"new"})
    asked = old.requests
    assert {rig.get()[1] for _ in range(10)} == {"new"}
    assert old.requests == asked
    for thread in threads:
        thread.join()
    outcome = sorted(results.values())
    assert outcome.count(200) >= 1, "what ends within the delay is answered"
    assert 502 in outcome or 0 in outcome, f"what lasts longer than the delay is cut: {results}"
    assert old.target["Id"] not in rig.states(rig.blue)


def test_deregistered_target_gets_requests_until_each_node_hears(rig: Rig) -> None:
    old = rig.backend("old")
    rig.start(dataclasses.replace(FAST, deregistration_seconds=Delay(4.0, 0.0, 4.0)))
    wait(lambda: rig.healthy(rig.blue) == 1)
    rig.elb.deregister_targets(TargetGroupArn=rig.blue, Targets=[old.target])
    wait(lambda: rig.states(rig.blue)[old.target["Id"]][0] == "draining")
    assert rig.get()[:2] == (200, "old")
    wait(lambda: rig.get()[0] == 503, 8)


def test_errors_as_elb_gives_them(rig: Rig) -> None:
    blue = rig.backend("blue")
    rig.elb.modify_load_balancer_attributes(
        LoadBalancerArn=rig.arn, Attributes=[{"Key": "idle_timeout.timeout_seconds", "Value": "2"}]
    )
    rig.start()
    wait(lambda: rig.healthy(rig.blue) == 1)
    connection = rig.connection()
    assert ask(connection)[0] == 200
    assert ask(connection, "/reset")[0] == 502, "reset on a reused connection: 502, never a retry"
    before = blue.requests
    assert rig.get("/reset")[0] == 502
    assert blue.requests == before + 1
    assert rig.get("/slow=4")[0] == 504
    assert rig.get("/status=500")[:2] == (500, "blue")
    blue.shutdown()
    blue.server_close()
    time.sleep(4)  # idle connections outlive the listening socket; the load balancer drops them within its idle timeout
    assert rig.get()[0] == 502, "refused"
    wait(lambda: len(rig.requests()) == 6)
    seen = Counter((r.elb_status, r.by_target) for r in rig.requests())
    assert seen[502, False] == 3
    assert seen[504, False] == 1
    assert seen[500, True] == 1

    minute = int(time.time() // 60)
    rig.metrics.step(time.time())  # the tails start at the end of the logs
    for _ in range(3):
        rig.get()
    wait(lambda: len(rig.requests()) == 9)
    rig.metrics.step(time.time())
    rig.metrics.step((minute + 3) * 60)
    points = {
        (metric["MetricName"], tuple(sorted(d["Name"] for d in metric["Dimensions"])))
        for metric in rig.client("cloudwatch").list_metrics(Namespace="AWS/ApplicationELB")["Metrics"]
    }
    assert ("HTTPCode_ELB_502_Count", ("LoadBalancer",)) in points
    assert ("TargetConnectionErrorCount", ("LoadBalancer", "TargetGroup")) in points
    assert ("HTTPCode_ELB_504_Count", ("LoadBalancer",)) not in points


def test_no_request_is_lost_by_a_reload(rig: Rig) -> None:
    rig.backend("blue")
    rig.start()
    wait(lambda: rig.healthy(rig.blue) == 1)
    failures: list[str] = []
    done = 0
    stop = threading.Event()

    def load(*, fresh: bool) -> None:
        nonlocal done
        connection = rig.connection()
        while not stop.is_set():
            try:
                if fresh:
                    connection.close()
                    connection = rig.connection()
                elif connection.sock is None:
                    connection = rig.connection()
                status, label, _ = ask(connection)
                if (status, label) != (200, "blue"):
                    failures.append(f"{status}")
            except (OSError, http.client.HTTPException) as error:
                failures.append(repr(error))
                connection = rig.connection()
            done += 1
            time.sleep(0.005)

    slow: list[tuple[int, str, str]] = []
    threads = [threading.Thread(target=load, kwargs={"fresh": fresh}) for fresh in (True, False, False)]
    threads.append(threading.Thread(target=lambda: slow.append(rig.get("/slow=4"))))
    for thread in threads:
        thread.start()
    for priority in (5, 6, 7):
        rig.elb.create_rule(
            ListenerArn=rig.listener,
            Priority=priority,
            Conditions=[{"Field": "path-pattern", "PathPatternConfig": {"Values": [f"/never{priority}"]}}],
            Actions=[{"Type": "fixed-response", "FixedResponseConfig": {"StatusCode": "410"}}],
        )
        time.sleep(1.2)
    wait(lambda: sum(n["reloads"] for n in rig.engine.status()["loadBalancers"][0]["nodes"]) >= 4)
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert done > 200
    assert slow[0][:2] == (200, "blue")
    assert rig.get("/never7")[0] == 410


def test_unimplemented_is_said_and_not_served(rig: Rig) -> None:
    rig.backend("blue")
    rig.elb.modify_target_group_attributes(
        TargetGroupArn=rig.blue, Attributes=[{"Key": "slow_start.duration_seconds", "Value": "30"}]
    )
    reader = Reader(rig.endpoint, REGION, 0.0)
    snapshot = reader.read()
    assert any("slow_start.duration_seconds=30 is not implemented by the stand-in" in p for p in snapshot.problems)
    assert not snapshot.load_balancers


def test_taken_port_names_who_and_what_moves_it(rig: Rig) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((rig.door, 443))
        taken.listen()
        with pytest.raises(
            service.TwinError, match=r"port 443 on .* is taken by \S+ \(pid \d+\).*SHOPCAT_TWIN_ADDRESS"
        ):
            front_door.refuse_taken_ports(rig.door)
