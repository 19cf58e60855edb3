"""One load-balancer node: an HAProxy process that is told its weights and targets at run time."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from twin.build import programs
from twin.config import Twin
from twin.errors import TwinError
from twin.host import processes
from twin.loadbalancer import haproxy_config, haproxy_runtime_api
from twin.loadbalancer.haproxy_config import SLOTS_PER_GROUP, slot_name
from twin.loadbalancer.model import LoadBalancer, Target, TargetGroup

_log = logging.getLogger(__name__)

_RELOAD_SECONDS = 15.0


def start_haproxy(twin: Twin, name: str, config: Path, master_socket: Path) -> processes.Process:
    """Start HAProxy in master-worker mode, unless it runs."""
    return processes.start(
        twin,
        name,
        [programs.debian_program(twin, "haproxy"), "-W", "-S", f"{master_socket},level,admin", "-f", config],
        env=programs.debian_environment(twin),
    )


def reload_haproxy(process: processes.Process, master_socket: Path) -> None:
    """Replace the worker without losing a connection: the listening sockets are handed over, the old one finishes.

    Raises:
        TwinError: the new configuration was refused, or no new worker came up in time.
    """
    before = set(haproxy_runtime_api.workers(master_socket)[0])
    failed = haproxy_runtime_api.failed_reloads(master_socket)
    os.kill(process.pid, signal.SIGUSR2)
    deadline = time.monotonic() + _RELOAD_SECONDS
    while time.monotonic() < deadline:
        time.sleep(0.05)
        try:
            current, _ = haproxy_runtime_api.workers(master_socket)
            refused = haproxy_runtime_api.failed_reloads(master_socket) > failed
        except OSError:
            continue  # the master is executing itself anew
        if refused:
            break
        if current and not set(current) & before:
            return
    message = f"{process.name} did not reload and goes on as it was; log: {process.log}\n{processes.tail(process.log)}"
    raise TwinError(message)


class Slots:
    """The server slots of a target group, and the target that each belongs to.

    A target keeps its slot from when it is first routable until :meth:`release`, so its connections can be cut later.
    """

    def __init__(self) -> None:
        self.taken: dict[int, Target] = {}

    def take(self, target: Target) -> int:
        """The target's slot, a free one if it has none.

        Raises:
            TwinError: all slots are taken.
        """
        for number, owner in self.taken.items():
            if owner == target:
                return number
        for number in range(1, SLOTS_PER_GROUP + 1):
            if number not in self.taken:
                self.taken[number] = target
                return number
        message = (
            f"more than {SLOTS_PER_GROUP} targets (draining ones counted) in one target group; no slot is left for "
            f"{target} (SLOTS_PER_GROUP in twin/loadbalancer/haproxy_config.py)"
        )
        raise TwinError(message)

    def of(self, target: Target) -> int | None:
        """The target's slot, if it has one."""
        return next((number for number, owner in self.taken.items() if owner == target), None)

    def release(self, target: Target) -> None:
        """Give the slot back."""
        number = self.of(target)
        if number is not None:
            del self.taken[number]


class NodeProcess:
    """Brings one HAProxy to a wanted state with as little as possible: nothing, run-time commands, or a reload."""

    def __init__(self, twin: Twin, node: haproxy_config.HaproxyNode) -> None:
        self._twin = twin
        self.node = node
        self._structure = ""
        self._forwards: dict[str, str] = {}
        self._slots: dict[str, Slots] = {}
        self._ready: dict[str, frozenset[Target]] = {}
        self._reloads = 0

    @property
    def reloads(self) -> int:
        """Number of changes to the structure since this object was made."""
        return self._reloads

    def alive(self) -> bool:
        """Report whether the HAProxy process runs."""
        return processes.find(self._twin, self.node.name) is not None

    def apply(
        self,
        load_balancer: LoadBalancer,
        groups: Mapping[str, TargetGroup],
        nat_addresses: Sequence[str],
        routable: Mapping[str, frozenset[Target]],
    ) -> None:
        """Make HAProxy follow this version of the load balancer and these targets, by target group ARN.

        Raises:
            TwinError: HAProxy refused the configuration or did not start.
        """
        names = {arn: groups[arn].name for arn in load_balancer.target_groups()}
        structure = haproxy_config.render(self.node, load_balancer, groups, nat_addresses, {})
        forwards = haproxy_config.forwards_map(load_balancer, names)
        wanted = {arn: routable.get(arn, frozenset()) for arn in names}
        for arn in names:
            slots = self._slots.setdefault(arn, Slots())
            for target in sorted(wanted[arn]):
                slots.take(target)
        alive = self.alive()
        if structure == self._structure and alive:
            try:
                self._tell(names, forwards, wanted)
            except (haproxy_runtime_api.RuntimeApiError, OSError) as error:
                _log.warning("%s: %s; reloading", self.node.name, error)
            else:
                return
        self._write(load_balancer, groups, nat_addresses, forwards, wanted)
        if alive:
            process = processes.find(self._twin, self.node.name)
            if process is not None:
                _log.info("%s: reload", self.node.name)
                reload_haproxy(process, self.node.master_socket)
                self._reloads += 1
        else:
            self._start()
        self._structure = structure
        self._forwards = forwards
        self._ready = wanted

    def _start(self) -> None:
        process = start_haproxy(self._twin, self.node.name, self.node.config, self.node.master_socket)
        processes.wait_until(
            lambda: bool(haproxy_runtime_api.workers(self.node.master_socket)[0]),
            f"{self.node.name} to listen on {', '.join(self.node.addresses)}",
            timeout_seconds=_RELOAD_SECONDS,
            process=process,
        )

    def _write(
        self,
        load_balancer: LoadBalancer,
        groups: Mapping[str, TargetGroup],
        nat_addresses: Sequence[str],
        forwards: Mapping[str, str],
        wanted: Mapping[str, frozenset[Target]],
    ) -> None:
        slots = {
            arn: {number: owner for number, owner in self._slots[arn].taken.items() if owner in targets}
            for arn, targets in wanted.items()
        }
        self.node.directory.mkdir(parents=True, exist_ok=True)
        self.node.forwards.write_text("".join(f"{key} {value}\n" for key, value in forwards.items()))
        self.node.config.write_text(haproxy_config.render(self.node, load_balancer, groups, nat_addresses, slots))

    def _tell(
        self, names: Mapping[str, str], forwards: dict[str, str], wanted: Mapping[str, frozenset[Target]]
    ) -> None:
        changes: list[tuple[str, tuple[str, int] | None, str]] = []
        for arn, name in names.items():
            before = self._ready.get(arn, frozenset())
            for target in sorted(wanted[arn] - before):
                number = self._slots[arn].take(target)
                changes.append((f"{name}/{slot_name(number)}", (target.ip, target.port), "ready"))
            for target in sorted(before - wanted[arn]):
                slot = self._slots[arn].of(target)
                if slot is not None:
                    changes.append((f"{name}/{slot_name(slot)}", None, "maint"))
        if not changes and forwards == self._forwards:
            return
        current, old = haproxy_runtime_api.workers(self.node.master_socket)
        for pid in current:
            self._tell_worker(pid, forwards, changes)
        for pid in old:
            # A worker that finishes its connections follows too, as far as it knows these groups.
            try:
                self._tell_worker(pid, forwards, changes)
            except (haproxy_runtime_api.RuntimeApiError, OSError) as error:
                _log.info("%s: old worker %d: %s", self.node.name, pid, error)
        self._forwards = forwards
        self._ready = dict(wanted)
        # So that a restart or reload begins where things stand.
        self.node.forwards.write_text("".join(f"{key} {value}\n" for key, value in forwards.items()))

    def _tell_worker(
        self, pid: int, forwards: dict[str, str], changes: Sequence[tuple[str, tuple[str, int] | None, str]]
    ) -> None:
        # New targets first, then weights, then targets that leave: never a moment with fewer than both states have.
        for server, address, state in changes:
            if state == "ready":
                haproxy_runtime_api.set_server(self.node.master_socket, pid, server, address=address, state=state)
        if forwards != self._forwards:
            haproxy_runtime_api.replace_map(self.node.master_socket, pid, self.node.forwards, forwards)
        for server, address, state in changes:
            if state != "ready":
                haproxy_runtime_api.set_server(self.node.master_socket, pid, server, address=address, state=state)

    def cut(self, group: TargetGroup, target: Target) -> None:
        """Cut every request in flight on a target and forget it: its deregistration delay is over."""
        slots = self._slots.get(group.arn)
        number = slots.of(target) if slots is not None else None
        if slots is None or number is None:
            return
        server = f"{group.name}/{slot_name(number)}"
        try:
            current, old = haproxy_runtime_api.workers(self.node.master_socket)
            for pid in [*current, *old]:
                haproxy_runtime_api.tell(self.node.master_socket, pid, f"set server {server} state maint")
                haproxy_runtime_api.shut_sessions(self.node.master_socket, pid, server)
        except OSError as error:
            _log.info("%s: cut %s: %s", self.node.name, server, error)
        self._ready[group.arn] = self._ready.get(group.arn, frozenset()) - {target}
        slots.release(target)

    def stop(self) -> None:
        """Stop HAProxy at once."""
        processes.stop(self._twin, self.node.name)
