"""The load balancer's engine: carries the AWS API's state to each node late, checks health, keeps nodes running."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Mapping, Sequence
from typing import Any

from twin.config import Twin
from twin.errors import TwinError
from twin.host import dns
from twin.loadbalancer import certificates, dns_names, haproxy_config
from twin.loadbalancer.addresses import NodeAddresses, add_to_bridge
from twin.loadbalancer.elb import AWS_ERRORS, Reader
from twin.loadbalancer.front_door import FrontDoor
from twin.loadbalancer.haproxy import NodeProcess
from twin.loadbalancer.health import check_target
from twin.loadbalancer.model import (
    LoadBalancer,
    Snapshot,
    Target,
    TargetGroup,
    groups_in_use,
    target_group_dimension,
)
from twin.loadbalancer.node_state import Membership, NodeState, Registration
from twin.loadbalancer.parameters import Delay, Parameters
from twin.loadbalancer.targets import PASSED, View, summed_up

_log = logging.getLogger(__name__)

_TICK_SECONDS = 0.1
_RETRY_NODE_SECONDS = 5.0


class Engine:
    """Owns every node. All its methods run in one event loop, but for the blocking calls it hands to a thread."""

    def __init__(
        self,
        twin: Twin,
        parameters: Parameters,
        reader: Reader,
        front_door: FrontDoor | None,
        *,
        processes_run: bool,
        targets_answer: bool,
    ) -> None:
        self._twin = twin
        self.parameters = parameters
        self.delay_scale = parameters.delay_scale
        self.delay_worst = False
        self.weight_zero_unused = parameters.weight_zero_unused
        self._random = random.Random(parameters.seed)  # noqa: S311 - delays, not secrets
        self._reader = reader
        self._front_door = front_door
        self._processes_run = processes_run
        self._targets_answer = targets_answer
        self._directory = twin.directory / "loadbalancer"
        self._addresses = NodeAddresses(twin)
        self._nodes: dict[str, tuple[NodeState, ...]] = {}
        self._groups: dict[str, TargetGroup] = {}
        self._registrations: dict[Membership, Registration] = {}
        self._checks: dict[tuple[str, int, str, Target], asyncio.Task[None]] = {}
        self._snapshot: Snapshot | None = None
        self._api_problem = "not asked yet"
        self._problems: list[str] = []
        self._published_names: dict[str, Sequence[str]] = {}
        self._front_door_state: Any = None

    # --- what the AWS API says -------------------------------------------------------------------------------------

    async def poll_forever(self) -> None:
        """Ask the AWS API again and again; when it can't be reached, everything stays as it is."""
        while True:
            try:
                snapshot = await asyncio.to_thread(self._reader.read)
            except AWS_ERRORS as error:
                if self._api_problem != str(error):
                    _log.warning("the AWS API: %s", error)
                self._api_problem = str(error)
            else:
                self._api_problem = ""
                try:
                    self.take_in(snapshot, time.monotonic())
                except TwinError as error:
                    self._problems = [str(error)]
                    _log.warning("%s", error)
            await asyncio.sleep(self.parameters.poll_seconds)

    def _draw(self, delay: Delay) -> float:
        return delay.maximum * self.delay_scale if self.delay_worst else delay.draw(self._random, self.delay_scale)

    def take_in(self, snapshot: Snapshot, now: float) -> None:  # noqa: C901 - each thing that may be new, once
        """Announce to each node whatever is new in the snapshot.

        Raises:
            TwinError: no address is left for another load balancer, or the certificate authority is missing.
        """
        first = self._snapshot is None
        self._snapshot = snapshot
        self._problems = list(snapshot.problems)
        self._groups.update(snapshot.target_groups)
        if self._processes_run:
            wanted = {
                arn
                for load_balancer in snapshot.load_balancers.values()
                for listener in load_balancer.listeners
                for arn in listener.certificates
            }
            if certificates.ensure(self._twin, self._directory / "certificates", wanted, snapshot.certificates):
                for nodes in self._nodes.values():
                    for node in nodes:
                        node.applied = None
        for arn in set(self._nodes) - set(snapshot.load_balancers):
            self._remove(arn)
        self._addresses.keep(snapshot.load_balancers)
        for arn, load_balancer in snapshot.load_balancers.items():
            new = arn not in self._nodes
            if new:
                self._nodes[arn] = self._new_nodes(load_balancer)
            for node in self._nodes[arn]:
                # A new load balancer serves once it is active; only changes to a running one are late.
                delay = (lambda: 0.0) if new else (lambda: self._draw(self.parameters.rules_seconds))
                if node.rules.announce(arn, load_balancer, now, delay) and not new:
                    _log.info("%s: new rules announced to node %d", load_balancer.name, node.number)
                if new:
                    for member in self._registrations:
                        node.members.announce(member, True, now, lambda: 0.0)
        self._take_in_targets(snapshot, now, first=first)
        self._write_names(snapshot)

    def _take_in_targets(self, snapshot: Snapshot, now: float, *, first: bool) -> None:
        registered = {(arn, target) for arn, targets in snapshot.targets.items() for target in targets}
        for member in registered:
            known = self._registrations.get(member)
            if known is None or known.draining_since is not None:
                self._registrations[member] = Registration()
                _log.info("registered: %s in %s", member[1], self._groups[member[0]].name)
                for node in self._every_node():
                    node.views.pop(member, None)
                    # At the daemon's own start everything registered has long arrived.
                    node.members.announce(
                        member, True, now, lambda: 0.0 if first else self._draw(self.parameters.registration_seconds)
                    )
        for member, registration in list(self._registrations.items()):
            if member not in registered and registration.draining_since is None:
                registration.draining_since = now
                _log.info("deregistered: %s in %s", member[1], self._groups[member[0]].name)
                for node in self._every_node():
                    node.members.announce(
                        member, False, now, lambda: self._draw(self.parameters.deregistration_seconds)
                    )

    def _every_node(self) -> list[NodeState]:
        return [node for nodes in self._nodes.values() for node in nodes]

    def _write_names(self, snapshot: Snapshot) -> None:
        addresses = {arn: self._addresses.of(arn, loopback=self._twin.simulated) for arn in self._nodes}
        names = dns_names.name_addresses(snapshot.names, addresses)
        if names != self._published_names:
            dns.publish(self._twin, dns_names.OWNER, names)
            self._published_names = names

    # --- nodes -----------------------------------------------------------------------------------------------------

    def _new_nodes(self, load_balancer: LoadBalancer) -> tuple[NodeState, ...]:
        loopback = self._addresses.of(load_balancer.arn, loopback=True)
        bridge = () if self._twin.simulated else self._addresses.of(load_balancer.arn, loopback=False)
        nodes = []
        for index in range(len(loopback)):
            name = f"alb-{load_balancer.name}-node{index + 1}"
            on_bridge = (bridge[index],) if bridge and add_to_bridge(self._twin, bridge[index]) else ()
            description = haproxy_config.HaproxyNode(
                name=name,
                namespace=self._twin.bridge,
                addresses=(*on_bridge, loopback[index]),
                directory=self._directory / name,
                certificates=self._directory / "certificates",
                pod_networks=(self._twin.pod_cidr(1), self._twin.pod_cidr(2)),
                connect_timeout_seconds=self.parameters.connect_timeout_seconds,
            )
            process = NodeProcess(self._twin, description) if self._processes_run else None
            nodes.append(NodeState(load_balancer.arn, index + 1, process))
        return tuple(nodes)

    def _remove(self, arn: str) -> None:
        for node in self._nodes.pop(arn):
            if node.process is not None:
                node.process.stop()

    async def tick_forever(self) -> None:
        """Let what is due arrive, keep the checks running, and make the nodes follow."""
        while True:
            try:
                await self.tick(time.monotonic())
            except Exception:
                _log.exception("tick")
            await asyncio.sleep(_TICK_SECONDS)

    async def tick(self, now: float) -> None:
        """One step."""
        for node in self._every_node():
            node.rules.advance(now)
            node.members.advance(now)
        self._keep_checking()
        for node in self._every_node():
            if node.process is not None and now >= node.retry_at:
                await self._apply(node, node.process)
        self._end_draining(now)
        await self._open_front_door()

    async def _apply(self, node: NodeState, process: NodeProcess) -> None:
        version = node.version()
        snapshot = self._snapshot
        if version is None or snapshot is None:
            return
        targets = node.routable()
        groups = {arn: self._groups[arn] for arn in version.target_groups()}
        wanted = (version, targets, groups, snapshot.nat_addresses)
        if wanted == node.applied and process.alive():
            return
        try:
            await asyncio.to_thread(process.apply, version, groups, snapshot.nat_addresses, targets)
        except (TwinError, OSError) as error:
            node.problem = str(error)
            node.retry_at = time.monotonic() + _RETRY_NODE_SECONDS
            _log.warning("%s: %s", process.node.name, error)
        else:
            node.applied = wanted
            node.problem = ""

    async def _open_front_door(self) -> None:
        if self._front_door is None or self._snapshot is None:
            return
        keys = {arn: balancer.name for arn, balancer in self._snapshot.load_balancers.items() if arn in self._nodes}
        nodes = {arn: self._addresses.of(arn, loopback=True) for arn in keys}
        known = dict(self._snapshot.names)
        for arn, load_balancer in self._snapshot.load_balancers.items():
            # Names entered by hand elsewhere (`dns: external`) are known from the certificates at least.
            for listener in load_balancer.listeners:
                for certificate in listener.certificates:
                    for name in self._snapshot.certificates.get(certificate, ()):
                        known.setdefault(name, arn)
        state = (known, keys, nodes)
        if state != self._front_door_state:
            await asyncio.to_thread(self._front_door.apply, known, keys, nodes)
            self._front_door_state = state

    def _end_draining(self, now: float) -> None:
        for member, registration in list(self._registrations.items()):
            if registration.draining_since is None:
                continue
            group = self._groups[member[0]]
            if now < registration.draining_since + group.deregistration_delay_seconds:
                continue
            waiting = [node for node in self._every_node() if node.members.get(member)]
            if waiting:
                continue  # a node has not heard yet; what it still sends is cut once it has
            for node in self._every_node():
                if node.process is not None:
                    node.process.cut(group, member[1])
                node.members.forget(member)
                node.views.pop(member, None)
            del self._registrations[member]

    # --- health ----------------------------------------------------------------------------------------------------

    def _in_use(self) -> set[str]:
        snapshot = self._snapshot
        if snapshot is None:
            return set()
        return groups_in_use(list(snapshot.load_balancers.values()), weight_zero_unused=self.weight_zero_unused)

    def _keep_checking(self) -> None:
        wanted = {}
        in_use = self._in_use()
        for node in self._every_node():
            version = node.version()
            used = set(version.target_groups()) & in_use if version is not None else set()
            for member in node.members:
                registration = self._registrations.get(member)
                draining = registration is None or registration.draining_since is not None
                if member[0] not in used:
                    node.views.pop(member, None)
                elif node.members.get(member) and not draining:
                    wanted[node.load_balancer, node.number, *member] = node
        for key in set(self._checks) - set(wanted):
            self._checks.pop(key).cancel()
        for key, node in wanted.items():
            if key not in self._checks:
                member = (key[2], key[3])
                node.views[member] = node.views.get(member, View()).checking_began()
                self._checks[key] = asyncio.create_task(self._check_forever(node, member))

    async def _check_forever(self, node: NodeState, member: Membership) -> None:
        arn, target = member
        # Nodes don't check in step; the first check comes within one interval.
        await asyncio.sleep(self._random.uniform(0, self._groups[arn].health_check.interval_seconds))
        while True:
            check = self._groups[arn].health_check
            started = time.monotonic()
            result = await check_target(target, check) if self._targets_answer else PASSED
            before = node.views.get(member, View())
            after = before.checked(
                result, healthy_threshold=check.healthy_threshold, unhealthy_threshold=check.unhealthy_threshold
            )
            node.views[member] = after
            if before.state != after.state:
                _log.info("node %d: %s is %s %s", node.number, target, after.state, after.reason)
            await asyncio.sleep(max(0.0, check.interval_seconds - (time.monotonic() - started)))

    def target_health(self, arn: str) -> list[dict[str, Any]] | None:
        """DescribeTargetHealth's answer for a target group, or None if there is no such group."""
        if arn not in self._groups:
            return None
        in_use = arn in self._in_use()
        now = time.monotonic()
        group = self._groups[arn]
        descriptions = []
        for member, registration in sorted(self._registrations.items()):
            if member[0] != arn:
                continue
            since = registration.draining_since
            if since is not None and now >= since + group.deregistration_delay_seconds:
                continue
            views = [
                node.views.get(member, View())
                for node in self._every_node()
                if (version := node.version()) is not None and arn in version.target_groups()
            ]
            health = summed_up(views, in_use=in_use or since is not None, draining=since is not None)
            description: dict[str, Any] = {"State": health.state}
            if health.reason:
                description |= {"Reason": health.reason, "Description": health.description}
            descriptions.append(
                {
                    "Target": {"Id": member[1].ip, "Port": member[1].port},
                    "HealthCheckPort": str(member[1].port)
                    if group.health_check.port == "traffic-port"
                    else group.health_check.port,
                    "TargetHealth": description,
                }
            )
        return descriptions

    # --- status and faults -----------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """Return the state of every load balancer, node and target group, and the problems."""
        snapshot = self._snapshot
        group_names = {arn: group.name for arn, group in self._groups.items()}
        load_balancers = []
        for arn, nodes in self._nodes.items():
            version = nodes[0].rules.latest(arn)
            load_balancers.append(
                {
                    "name": version.name if version is not None else arn,
                    "dnsName": version.dns_name if version is not None else "",
                    "nodes": [node.status(group_names) for node in nodes],
                }
            )
        return {
            "simulated": not self._targets_answer,
            "note": "" if self._targets_answer else "targets are simulated pods; they are reported healthy unasked",
            "api": self._api_problem or "ok",
            "problems": self._problems,
            "delayScale": self.delay_scale,
            "weightZeroUnused": self.weight_zero_unused,
            "loadBalancers": load_balancers,
            "targetGroups": {
                group.name: self.target_health(arn)
                for arn, group in self._groups.items()
                if snapshot is not None and arn in snapshot.target_groups
            },
            "names": dict(snapshot.names) if snapshot is not None else {},
        }

    def metric_sources(self) -> list[tuple[str, str, dict[str, str]]]:
        """Return for each running node its log's name, its load balancer's CloudWatch dimension and its groups' by name."""
        return [
            (node.process.node.name, version.dimension, {g.name: target_group_dimension(a) for a, g in groups.items()})
            for node in self._every_node()
            if node.process is not None and (version := node.version()) is not None
            for groups in [dict(self._groups)]
        ]

    def host_counts(self) -> list[tuple[str, str, int, int]]:
        """Return healthy and unhealthy targets by load balancer and group, both as CloudWatch dimensions.

        A group without targets is left out, and so are targets that are neither, such as draining ones.
        """
        counted: dict[tuple[str, str], tuple[str, str, int, int]] = {}
        for node in self._every_node():
            if (version := node.version()) is None:
                continue
            for arn in version.target_groups():
                states = [target["TargetHealth"]["State"] for target in self.target_health(arn) or []]
                if states:
                    key = (version.dimension, target_group_dimension(arn))
                    counted[key] = (*key, states.count("healthy"), states.count("unhealthy"))
        return list(counted.values())

    def set_faults(self, faults: Mapping[str, Any]) -> None:
        """Change the faults that it plays, from now on.

        Raises:
            TwinError: a fault it doesn't know, or a value of the wrong kind.
        """
        known = {"delayScale": (int, float), "delayWorst": (bool,), "weightZeroUnused": (bool,)}
        for name, value in faults.items():
            if name not in known:
                raise TwinError(f"twin: the fault {name} is not implemented by the stand-in; known: {', '.join(known)}")
            if not isinstance(value, known[name]) or (name == "delayScale" and (value is True or value < 0)):
                expected = "a number of at least 0" if name == "delayScale" else "true or false"
                raise TwinError(f"the fault {name} is {value!r}; {expected} is expected")
        self.delay_scale = float(faults.get("delayScale", self.delay_scale))
        self.delay_worst = bool(faults.get("delayWorst", self.delay_worst))
        self.weight_zero_unused = bool(faults.get("weightZeroUnused", self.weight_zero_unused))

    async def close(self) -> None:
        """End the checks; the nodes go on serving what they were told last."""
        for task in self._checks.values():
            task.cancel()
        for task in self._checks.values():
            with contextlib.suppress(asyncio.CancelledError):
                await task
