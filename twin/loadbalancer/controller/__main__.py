"""The controller's process: informers and webhooks at once, reconciling once it leads."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

from twin.loadbalancer.controller import flags as command_line
from twin.loadbalancer.controller.bindings import GATE_PREFIX, GROUP, Caches, Reconciler, Recorder, RequeueNeededError
from twin.loadbalancer.controller.elb import ElasticLoadBalancing
from twin.loadbalancer.controller.informer import (
    Informer,
    trim_binding,
    trim_ingress,
    trim_node,
    trim_pod,
    trim_service,
    trim_slice,
)
from twin.loadbalancer.controller.ingress_aws import IngressResources
from twin.loadbalancer.controller.ingresses import COLLECTION, IngressReconciler, ingresses_of_service
from twin.loadbalancer.controller.kubernetes import Kubernetes, Object, key_of
from twin.loadbalancer.controller.lease import Election
from twin.loadbalancer.controller.queue import WorkQueue
from twin.loadbalancer.controller.webhooks import Admission, serve_health, serve_webhooks

_log = logging.getLogger("controller")

_INGRESS_MAXIMUM_BACKOFF_SECONDS = 1000.0
"""Maximum of client-go's default rate limiter, which the real controller's Ingresses use."""


class Controller:
    """Wires informers to the queue and the queue to the reconciler, as the real controller's event handlers do."""

    def __init__(self, kubernetes: Kubernetes, flags: command_line.Flags) -> None:
        self._flags = flags
        self.services = Informer(kubernetes, "/api/v1/services", trim_service)
        self.slices = Informer(kubernetes, "/apis/discovery.k8s.io/v1/endpointslices", trim_slice)
        self.pods = Informer(kubernetes, "/api/v1/pods", trim_pod)
        self.nodes = Informer(kubernetes, "/api/v1/nodes", trim_node)
        self.bindings = Informer(kubernetes, f"/apis/{GROUP}/v1beta1/targetgroupbindings", trim_binding)
        self.ingresses = Informer(kubernetes, COLLECTION, trim_ingress)
        self.caches = Caches(
            self.services.store, self.slices.store, self.pods.store, self.nodes.store, self.bindings.store
        )
        self.elb = ElasticLoadBalancing(flags.region, flags.endpoints.get("elbv2"), flags.aws_max_retries)
        self._queue = WorkQueue(flags.maximum_backoff_seconds)
        self._ingress_queue = WorkQueue(_INGRESS_MAXIMUM_BACKOFF_SECONDS)
        recorder = Recorder(kubernetes)
        self._reconciler = Reconciler(kubernetes, self.elb, self.caches, recorder, flags.requeue_seconds)
        self._ingress_reconciler = IngressReconciler(
            kubernetes,
            IngressResources(
                flags.region, flags.endpoints, flags.aws_max_retries, cluster=flags.cluster_name, vpc=flags.vpc
            ),
            recorder,
            services=self.services.store,
            cluster=flags.cluster_name,
            default_target_type=flags.default_target_type,
        )
        self._whole: set[tuple[str, str]] = set()
        self.bindings.on_change(self._binding_changed)
        self.slices.on_change(self._slice_changed)
        self.pods.on_change(self._pod_changed)
        self.ingresses.on_change(self._ingress_changed)
        # Services and nodes wake no binding of type ip: the measured controller leaves a pod on a returned node
        # unregistered until its binding is touched.
        self.services.on_change(self._service_changed)

    def start_informers(self) -> None:
        """Begin to watch, and wait for the first lists."""
        informers = (self.services, self.slices, self.pods, self.nodes, self.bindings, self.ingresses)
        for informer in informers:
            informer.start()
        for informer in informers:
            informer.store.synced.wait()

    def _binding_changed(self, _: Object | None, after: Object | None) -> None:
        if after is not None:
            self._queue.add(key_of(after))

    def _slice_changed(self, before: Object | None, after: Object | None) -> None:
        endpoint_slice = after or before
        if endpoint_slice is None or (
            before and after and before["endpoints"] == after["endpoints"] and before["ports"] == after["ports"]
        ):
            return
        namespace = endpoint_slice["metadata"]["namespace"]
        service = endpoint_slice["metadata"].get("labels", {}).get("kubernetes.io/service-name")
        for binding in self.caches.bindings.all(namespace):
            if binding["spec"]["serviceRef"]["name"] == service:
                self._queue.add(key_of(binding))

    def _pod_changed(self, before: Object | None, after: Object | None) -> None:
        pod = after or before
        for gate in (pod or {"spec": {}})["spec"].get("readinessGates") or []:
            prefix, _, name = gate["conditionType"].partition("/")
            if pod is not None and prefix == GATE_PREFIX and name:
                self._queue.add((pod["metadata"]["namespace"], name))

    def _ingress_changed(self, _: Object | None, after: Object | None) -> None:
        if after is not None:
            self._ingress_queue.add(key_of(after))

    def _service_changed(self, before: Object | None, after: Object | None) -> None:
        service = after or before
        if service is not None:
            for key in ingresses_of_service(self.ingresses.store, service):
                self._ingress_queue.add(key)

    def work(self) -> None:
        """Reconcile for ever, in as many threads as the flags say; Ingresses in one of their own, since they wait."""
        for binding in self.caches.bindings.all():
            self._queue.add(key_of(binding))
        for ingress in self.ingresses.store.all():
            self._ingress_queue.add(key_of(ingress))
        for _ in range(self._flags.concurrent_reconciles):
            threading.Thread(target=self._work, args=(self._queue, self._reconcile_binding), daemon=True).start()
        reconcile = self._ingress_reconciler.reconcile
        threading.Thread(target=self._work, args=(self._ingress_queue, reconcile), daemon=True).start()
        threading.Thread(target=self._resync, daemon=True).start()

    def _resync(self) -> None:
        while True:
            time.sleep(self._flags.sync_period_seconds)
            for binding in self.caches.bindings.all():
                self._whole.add(key_of(binding))
                self._queue.add(key_of(binding))
            for ingress in self.ingresses.store.all():
                self._ingress_queue.add(key_of(ingress))

    def _reconcile_binding(self, namespace: str, name: str) -> None:
        key = namespace, name
        self._reconciler.reconcile(*key, whole=key in self._whole)
        self._whole.discard(key)

    @staticmethod
    def _work(queue: WorkQueue, reconcile: Callable[[str, str], None]) -> None:
        while True:
            key = queue.get()
            try:
                reconcile(*key)
            except RequeueNeededError as error:
                queue.forget(key)
                queue.add_after(key, error.after_seconds)
            except Exception as error:
                _log.warning("reconcile %s/%s: %s", *key, error)
                queue.add_rate_limited(key)
            else:
                queue.forget(key)
            finally:
                queue.done(key)


def main() -> int:
    """Entry point."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("botocore").setLevel(logging.ERROR)
    flags = command_line.parse(sys.argv[1:])
    # The lease is not given back: the next leader waits until it runs out, as with the real controller.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))
    kubernetes = Kubernetes()
    controller = Controller(kubernetes, flags)
    controller.start_informers()
    admission = Admission(kubernetes, controller.elb, controller.caches, inject_gates=flags.inject_gates)
    serve_webhooks(admission, flags.webhook_address, flags.webhook_port, flags.webhook_certificates)
    serve_health(flags.health_address, flags.health_port)
    election = Election(kubernetes, flags.namespace or kubernetes.namespace)
    election.acquire()
    controller.work()
    election.keep()
    return 1


if __name__ == "__main__":
    sys.exit(main())
