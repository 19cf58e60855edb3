"""``make takeover``: the move from legacy/ to this program, rehearsed on a twin of its own while requests are counted.

The old shop is brought up by the real Terraform and the real Helm. Then every step of docs/takeover.md is taken by the commands
that stand there, while the same load goes to the old load balancer until its users have left, and to the new one from the
first share on. That is more traffic than a weighted name sends to either. Steps that write are killed once in the middle and
taken again. docs/takeover-rehearsal.md is written by this command and never by hand.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import urllib3

from bench import run
from bench.load import Load, Outcome, Stream, summarize
from bench.takeover_handover import HandOver
from bench.takeover_page import NEW, OLD, Step, page
from bench.takeover_settings import PlannedSettings, without_old
from bench.workloads import SHORT_MIX
from infra.release.metrics import LATE_SECONDS
from twin import config, parts, pulumi
from twin.config import Twin
from twin.errors import TwinError
from twin.host import pki, processes
from twin.loadbalancer import hostnames
from twin.loadbalancer.addresses import NodeAddresses
from twin.paths import REPOSITORY
from twin.scenarios import production
from twin.scenarios.old_shop import CLUSTER, NAMESPACE, OldShop

NAME = "takeover"
PAGE = REPOSITORY / "docs" / "takeover-rehearsal.md"
_MAXIMUM_SECONDS = 2 * 3600.0
_BAKE_MINUTES = 10
"""Shortest time without a request at the old load balancer that the move of traffic allows."""
_MOST_ROUNDS = 6
"""Updates that may stop with imports before one goes through."""


class Rehearsal:
    """The steps, in their order, on one twin."""

    def __init__(self, twin: Twin, directory: Path, mix: Sequence[Stream] = SHORT_MIX) -> None:
        self.twin, self._directory, self._mix = twin, directory, tuple(mix)
        self.shop = OldShop(twin, directory)
        self._hand_over = HandOver(self.shop, directory)
        self._settings = PlannedSettings(self.shop, directory, self._command)
        self._loads: dict[str, Load] = {}
        self._outcomes: dict[str, list[Outcome]] = {}
        self.steps: list[Step] = []
        self.before: dict[str, str] = {}
        self.after: dict[str, str] = {}
        self.orders: tuple[int, list[str]] = (0, [])
        self.kills = 0

    # Counting ---------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _step(self, name: str) -> Iterator[Step]:
        step = Step(name, time.time())
        print(f"{name} …", flush=True)
        yield step
        step.ended = time.time()
        self.steps.append(step)
        print(f"{name:<40}{step.ended - step.began:6.1f} s  failed so far: {self.failures}  {step.note}", flush=True)

    def _start(self, system: str) -> None:
        if system == OLD:
            load = Load(
                self.shop.addresses()[0],
                hostnames.domain(self.twin),
                port=80,
                ca_file=None,
                streams=self._mix,
                maximum_seconds=_MAXIMUM_SECONDS,
            )
        else:
            load = Load(
                self._addresses("shopcat")[0],
                hostnames.domain(self.twin),
                ca_file=pki.ca_file(self.twin),
                streams=self._mix,
                maximum_seconds=_MAXIMUM_SECONDS,
            )
        self._loads[system] = load.__enter__()

    def _stop(self, system: str) -> None:
        self._outcomes[system] = self._loads[system].stop()

    @property
    def failures(self) -> int:
        """Return the number of requests that failed, those due between two steps included."""
        return sum(len(load.failures) for load in self._loads.values())

    def _count(self) -> None:
        for step in self.steps:
            due = {
                system: [outcome for outcome in outcomes if step.began <= outcome.due < step.ended]
                for system, outcomes in self._outcomes.items()
            }
            step.sent = {system: len(outcomes) for system, outcomes in due.items()}
            step.failed = {system: summarize(outcomes).failed for system, outcomes in due.items()}

    def page(self) -> str:
        """Return docs/takeover-rehearsal.md."""
        return page(
            self.steps,
            self.before,
            self.after,
            self.orders,
            self.kills,
            without_terraform=bool(self.shop.without_terraform),
        )

    # Tools ------------------------------------------------------------------------------------------------------------

    def _environment(self) -> dict[str, str]:
        return run.environment(self.twin, self._settings.path)

    def _addresses(self, load_balancer: str) -> list[str]:
        """Return the addresses of a load balancer's nodes on this machine's loopback."""
        (balancer,) = pulumi.client(self.twin, "elbv2").describe_load_balancers(Names=[load_balancer])["LoadBalancers"]
        return list(NodeAddresses(self.twin).of(balancer["LoadBalancerArn"], loopback=True))

    def _hosts(self) -> Path:
        """Write what this machine's resolver knows, and the names of this twin's load balancers, which the internet would."""
        path, known = self._directory / "hosts", NodeAddresses(self.twin)
        lines = [hostnames.HOSTS.read_text().rstrip("\n")]
        for balancer in pulumi.client(self.twin, "elbv2").describe_load_balancers()["LoadBalancers"]:
            with contextlib.suppress(KeyError):  # the load balancer has not seen it yet
                address = known.of(balancer["LoadBalancerArn"], loopback=True)[0]
                lines.append(f"{address} {balancer['DNSName']} {balancer['DNSName'].lower()}")
        path.write_text("\n".join([*lines, ""]))
        return path

    def _command(
        self, *argv: str, check: bool = True, kill_after: float = 0.0, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run a command; with ``kill_after`` it is killed if it still runs after so many seconds, and run again either way."""
        # In a mount namespace of its own, so that only this command sees the names.
        command = [
            "unshare",
            "--mount",
            "sh",
            "-c",
            'mount --bind "$0" /etc/hosts && exec "$@"',
            str(self._hosts()),
            *argv,
        ]
        if kill_after:
            log = self._directory / "killed.log"
            with log.open("w") as out:
                process = subprocess.Popen(
                    command, cwd=REPOSITORY, env=self._environment(), stdin=subprocess.DEVNULL, stdout=out,
                    stderr=subprocess.STDOUT, start_new_session=True,
                )  # fmt: skip
                try:
                    process.wait(kill_after)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
                    self.kills += 1
                    if argv[0] == "pulumi":
                        self._command("pulumi", "cancel", pulumi.STACK, "--yes")
        result = subprocess.run(
            command,
            cwd=REPOSITORY,
            env=self._environment(),
            text=True,
            capture_output=True,
            check=False,
            input=stdin,
        )
        if check and result.returncode != 0:
            raise TwinError(f"{' '.join(argv[:6])} failed:\n{result.stdout}{result.stderr}")
        return result

    def _up(self, *options: str, kill_after: float = 0.0) -> str:
        """Run `pulumi up -s prod` and every `pulumi import` that it stops with, until it goes through; return its output."""
        imports = 0
        for _ in range(_MOST_ROUNDS):
            result = self._command(
                "pulumi", "up", "-s", pulumi.STACK, "--yes", "--skip-preview", "--non-interactive", *options,
                check=False, kill_after=kill_after,
            )  # fmt: skip
            kill_after = 0.0
            output = result.stdout + result.stderr
            if result.returncode == 0:
                return output if not imports else f"{output}\n{imports} imported"
            commands = dict.fromkeys(
                line.strip() for line in output.splitlines() if line.strip().startswith("pulumi import ")
            )
            if not commands:
                raise TwinError(f"pulumi up -s prod failed:\n{output}")
            for command in commands:
                self._command("sh", "-c", command)
                imports += 1
        raise TwinError(f"pulumi up -s prod still stops after {_MOST_ROUNDS} rounds of imports:\n{output}")

    def _nothing_to_do(self) -> str:
        output = self._up()
        if any(word in output for word in (" created", " updated", " deleted", " replaced", " imported")):
            raise TwinError(f"a second update changed something:\n{output}")
        return "0 changes"

    # What must stay ---------------------------------------------------------------------------------------------------

    def identities(self) -> dict[str, str]:
        """Return what says that network, cluster, database and repository are the same ones."""
        client = pulumi.client
        cluster = client(self.twin, "eks").describe_cluster(name=CLUSTER)["cluster"]
        (instance,) = client(self.twin, "rds").describe_db_instances()["DBInstances"]
        (repository,) = client(self.twin, "ecr").describe_repositories(repositoryNames=[production.REPOSITORY_NAME])[
            "repositories"
        ]
        return {
            "VPC": str(cluster["resourcesVpcConfig"]["vpcId"]),
            "cluster": f"{cluster['arn']}, made {cluster['createdAt']:%H:%M:%S}",
            "database": f"{instance['DbiResourceId']}, made {instance['InstanceCreateTime']:%H:%M:%S}",
            "repository": f"{repository['repositoryArn']}, made {repository['createdAt']:%H:%M:%S}",
        }

    # The steps --------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Take every step.

        Raises:
            TwinError: one failed; its output is in the message.
        """
        with self._step("the old shop, by Terraform and Helm") as step:
            self.shop.bring_up()
            step.note = self.shop.without_terraform and f"without Terraform: {self.shop.without_terraform}"
        before = self.identities()
        self._point_name_at_old()
        self._start(OLD)
        time.sleep(20)
        with self._step("plan and settings") as step:
            step.note = self._settings.write()
        with self._step("adopt: pulumi up, imports, pulumi up") as step:
            step.note = self._up(kill_after=25).splitlines()[-1]
        with self._step("once more") as step:
            step.note = self._nothing_to_do()
        self._hand_over.prepare()
        if not self.shop.without_terraform:
            with self._step("Terraform: frozen and backed up") as step:
                step.note = self._hand_over.freeze()
            with self._step("Terraform: database and repository given up") as step:
                step.note = self._hand_over.give_up_what_pulumi_has()
            with self._step("Terraform: back to the back-up, given up again") as step:
                step.note = self._hand_over.go_back_and_forth()
        with self._step("a third old pod starts"):
            self._scale_old(3)
        with self._step("first release beside the old one"):
            self.shop.push("v1.0.0")
            self._up("-c", "shopcat:tag=v1.0.0")
            self._wait_until_served()
        self._move_traffic()
        self._end_the_old_shop()
        with self._step("old credentials withdrawn, namespace tightened") as step:
            self._settings.change(without_old)
            self._up(kill_after=8)
            step.note = self._nothing_to_do()
        with self._step("a release under load"):
            self.shop.push("v1.1.0")
            self._up("-c", "shopcat:tag=v1.1.0")
        with self._step("pulumi up at the end") as step:
            step.note = self._nothing_to_do()
        self._stop(NEW)
        self._count()
        self.kills += self._hand_over.kills
        self.before, self.after = before, self.identities()
        if self.before != self.after:
            raise TwinError(f"what must stay is not the same: {self.before} became {self.after}")
        self.orders = self._lost_orders()

    def _move_traffic(self) -> None:
        """Give the new load balancer its shares, once back on the way; each step that writes is killed once."""
        with self._step("DNS: split"):
            self._dns("split", kill_after=4)
        self._start(NEW)
        for name, *words in (
            ("DNS: 1 % new", "weight", "1"),
            ("DNS: back", "back"),
            ("DNS: 1 % new again", "weight", "1"),
            ("DNS: 10 % new", "weight", "10"),
            ("DNS: 50 % new", "weight", "50"),
            ("DNS: 100 % new", "weight", "100"),
        ):
            with self._step(name):
                self._dns(*words, kill_after=4 if words[-1] in ("back", "10") else 0)
        # The last step has waited for the TTL: whoever asks for the name now gets the new load balancer.
        self._stop(OLD)
        moved = time.time()
        if not self.shop.without_terraform:
            with self._step("Terraform: network and cluster given up") as step:
                step.note = self._hand_over.give_up_the_rest()
        with self._step(f"{_BAKE_MINUTES} minutes without a request at the old one"):
            # Counts come in whole periods of five minutes, and late.
            time.sleep(max(0.0, moved + _BAKE_MINUTES * 60 + 300 + LATE_SECONDS - time.time()))
        with self._step("DNS: finish") as step:
            step.note = self._dns("finish", "--bake", f"{_BAKE_MINUTES}m", kill_after=6).splitlines()[-1]
        with self._step("the record imported: dns route53") as step:
            self._settings.change(lambda settings: settings.update({"shopcat:dns": "route53"}))
            step.note = self._up(kill_after=15).splitlines()[-1] + "; " + self._nothing_to_do()

    def _end_the_old_shop(self) -> None:
        """Send the old pods away by their grace period, once back on the way; then Ingress, chart and Helm's records."""
        with self._step("the old Deployment to 0, back, to 0"):
            for replicas in (0, 3, 0):
                self._scale_old(replicas)
        with self._step("old Ingress and chart deleted") as step:
            step.note = self._hand_over.end_the_chart()
        terraform = [] if self.shop.without_terraform else self._hand_over.addresses()
        left = [*terraform, *self._hand_over.helm_releases()]
        if left:
            raise TwinError(f"Terraform's state and Helm still have {left}")

    def _scale_old(self, replicas: int) -> None:
        self.shop.kubectl("scale", "deployment/shopcat", "-n", NAMESPACE, f"--replicas={replicas}")
        if replicas:
            self.shop.kubectl("rollout", "status", "deployment/shopcat", "-n", NAMESPACE, "--timeout=120s")
        else:
            self.shop.kubectl("wait", "pods", "-n", NAMESPACE, "-l", "app=shopcat", "--for=delete", "--timeout=180s")

    def _dns(self, *words: str, kill_after: float) -> str:
        return self._command(sys.executable, "-m", "infra.commands.takeover_dns", *words, kill_after=kill_after).stdout

    def _lost_orders(self) -> tuple[int, list[str]]:
        """Return the number of orders that were confirmed to their users, and the keys of those that are not stored once."""
        stored = run.stored_orders(self.twin)
        confirmed = [
            outcome.key
            for outcomes in self._outcomes.values()
            for outcome in outcomes
            if outcome.key and not outcome.failure
        ]
        return len(confirmed), [key for key in confirmed if stored.get(key) != 1]

    def _wait_until_served(self) -> None:
        """Wait until both nodes of the new load balancer answer: its name leads to the old one still."""
        host, addresses = hostnames.domain(self.twin), self._addresses("shopcat")

        def answers(address: str) -> bool:
            with urllib3.HTTPSConnectionPool(
                address, server_hostname=host, assert_hostname=host, ca_certs=str(pki.ca_file(self.twin)), timeout=5
            ) as pool:
                try:
                    return bool(pool.request("GET", "/", headers={"Host": host}, retries=False).status == 200)
                except urllib3.exceptions.HTTPError:
                    return False

        processes.wait_until(
            lambda: all(map(answers, addresses)), "a page through the new load balancer", timeout_seconds=120
        )

    def _point_name_at_old(self) -> None:
        """Enter the record that led users to the old load balancer all along."""
        route53 = pulumi.client(self.twin, "route53")
        (balancer,) = self.shop.load_balancers()
        domain = hostnames.domain(self.twin)
        zone = next(
            zone["Id"] for zone in route53.list_hosted_zones()["HostedZones"] if zone["Name"].rstrip(".") == domain
        )
        target = {
            "HostedZoneId": balancer["CanonicalHostedZoneId"],
            "DNSName": balancer["DNSName"],
            "EvaluateTargetHealth": False,
        }
        record = {"Name": domain, "Type": "A", "AliasTarget": target}
        route53.change_resource_record_sets(
            HostedZoneId=zone, ChangeBatch={"Changes": [{"Action": "CREATE", "ResourceRecordSet": record}]}
        )


def main() -> int:
    """``python -m bench.takeover``; 1 if a step failed."""
    run.prepare_process()
    reason = run.why_not([NAME])
    if reason:
        print(f"error: {reason}", file=sys.stderr)
        return 1
    twin = config.load(NAME, simulated=False)
    try:
        parts.up(twin)
        with tempfile.TemporaryDirectory() as directory:
            rehearsal = Rehearsal(twin, Path(directory))
            rehearsal.run()
            PAGE.write_text(rehearsal.page())
            print(PAGE.read_text())
    except TwinError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        run.take_down([NAME])
    return 1 if rehearsal.failures or rehearsal.orders[1] else 0


if __name__ == "__main__":
    sys.exit(main())
