"""Leader election by a Lease with client-go's defaults, not given back at the end, as the real controller does it."""

from __future__ import annotations

import datetime as dt
import logging
import os
import random
import time
import uuid
from typing import Any

import urllib3

from twin.loadbalancer.controller.kubernetes import ApiError, Kubernetes

_log = logging.getLogger(__name__)

NAME = "aws-load-balancer-controller-leader"
LEASE_SECONDS = 15
RENEW_DEADLINE_SECONDS = 10
RETRY_SECONDS = 2.0
JITTER = 1.2


def _now() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Election:
    """Takes the lease and keeps it; a process that loses it ends."""

    def __init__(self, kubernetes: Kubernetes, namespace: str) -> None:
        self._kubernetes = kubernetes
        self._path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._namespace = namespace
        self.identity = f"{os.environ.get('HOSTNAME', 'host')}_{uuid.uuid4()}"
        self._observed: tuple[Any, Any] = (None, None)
        self._observed_at = 0.0

    def _try(self) -> bool:
        """Take or renew the lease once."""
        try:
            lease = self._kubernetes.request("GET", f"{self._path}/{NAME}")
        except ApiError as error:
            if error.status != 404:
                raise
            self._kubernetes.request(
                "POST",
                self._path,
                {
                    "apiVersion": "coordination.k8s.io/v1",
                    "kind": "Lease",
                    "metadata": {"name": NAME, "namespace": self._namespace},
                    "spec": {**self._spec(), "acquireTime": _now(), "leaseTransitions": 0},
                },
            )
            return True
        spec = lease.get("spec") or {}
        seen = (spec.get("holderIdentity"), spec.get("renewTime"))
        if seen != self._observed:
            # Clocks may differ: a lease is old once it has not changed for its duration on our own clock.
            self._observed, self._observed_at = seen, time.monotonic()
        holder = spec.get("holderIdentity")
        if holder not in ("", None, self.identity) and time.monotonic() < self._observed_at + LEASE_SECONDS:
            return False
        renewed = {**spec, **self._spec()}
        if holder != self.identity:
            renewed |= {"acquireTime": _now(), "leaseTransitions": int(spec.get("leaseTransitions") or 0) + 1}
        self._kubernetes.request("PUT", f"{self._path}/{NAME}", {**lease, "spec": renewed})
        return True

    def _spec(self) -> dict[str, Any]:
        return {"holderIdentity": self.identity, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": _now()}

    def _attempt(self) -> bool:
        try:
            return self._try()
        except (ApiError, urllib3.exceptions.HTTPError) as error:
            _log.warning("lease: %s", error)
            return False

    def acquire(self) -> None:
        """Wait until this process leads."""
        while not self._attempt():
            time.sleep(RETRY_SECONDS * (1 + random.random() * JITTER))  # noqa: S311 - jitter
        _log.info("leading as %s", self.identity)

    def keep(self) -> None:
        """Renew until that fails for the renew deadline; then the process must end."""
        renewed_at = time.monotonic()
        while time.monotonic() < renewed_at + RENEW_DEADLINE_SECONDS:
            time.sleep(RETRY_SECONDS)
            if self._attempt():
                renewed_at = time.monotonic()
        _log.error("leader election lost")
