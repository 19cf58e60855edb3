"""Reconciles Ingresses: AWS resources first, then the binding, then the host name in the status."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from typing import Any

import urllib3

from twin.loadbalancer.controller.bindings import GROUP, BackendNotFoundError, Recorder
from twin.loadbalancer.controller.elb import AWS_ERRORS
from twin.loadbalancer.controller.ingress_aws import IngressResources
from twin.loadbalancer.controller.ingress_model import (
    LISTENER_PORT,
    GroupModel,
    IngressModel,
    ModelError,
    backend_services,
    build,
    is_ours,
    stack_labels,
)
from twin.loadbalancer.controller.kubernetes import ApiError, Kubernetes, Object, Store

_log = logging.getLogger(__name__)

INGRESS_FINALIZER = "ingress.k8s.aws/resources"
COLLECTION = "/apis/networking.k8s.io/v1/ingresses"
_BINDING_GONE_SECONDS = 60.0
"""The real controller waits as long for a deleted binding."""
_BINDING_POLL_SECONDS = 0.2


def _ingress_path(namespace: str, name: str) -> str:
    return f"/apis/networking.k8s.io/v1/namespaces/{namespace}/ingresses/{name}"


def _bindings_path(namespace: str, name: str = "") -> str:
    return f"/apis/{GROUP}/v1beta1/namespaces/{namespace}/targetgroupbindings" + (f"/{name}" if name else "")


def ingresses_of_service(ingresses: Store, service: Object) -> list[tuple[str, str]]:
    """Return the keys of the Ingresses that forward to the Service."""
    metadata = service["metadata"]
    return [
        (ingress["metadata"]["namespace"], ingress["metadata"]["name"])
        for ingress in ingresses.all(metadata["namespace"])
        if metadata["name"] in backend_services(ingress)
    ]


class IngressReconciler:
    """One pass over one Ingress."""

    def __init__(
        self,
        kubernetes: Kubernetes,
        resources: IngressResources,
        recorder: Recorder,
        *,
        services: Store,
        cluster: str,
        default_target_type: str,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._kubernetes = kubernetes
        self._resources = resources
        self._recorder = recorder
        self._services = services
        self._cluster = cluster
        self._default_target_type = default_target_type
        self._sleep = sleep

    def _get(self, path: str) -> Object | None:
        try:
            return self._kubernetes.request("GET", path)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def reconcile(self, namespace: str, name: str) -> None:
        """Bring AWS, binding and status in line with an Ingress, or remove what a deleted one had.

        Raises:
            ModelError, BackendNotFoundError, ApiError, botocore errors: to be tried again later.
        """
        ingress = self._get(_ingress_path(namespace, name))
        if ingress is None:
            return
        finalizers = ingress["metadata"].get("finalizers") or []
        if ingress["metadata"].get("deletionTimestamp") or not is_ours(ingress):
            if INGRESS_FINALIZER in finalizers:
                self._clean_up(ingress)
            return
        if INGRESS_FINALIZER not in finalizers:
            ingress = self._write_finalizers(ingress, [*finalizers, INGRESS_FINALIZER])
        model = self._build(ingress)
        try:
            host_name, target_groups, security_group = self._resources.deploy(model)
            for group, arn in zip(model.groups, target_groups, strict=True):
                self._deploy_binding(model, group, arn, security_group)
            self._delete_surplus(model.namespace, model.name, target_groups)
        except ModelError as error:
            self._recorder.event(ingress, "Warning", "FailedBuildModel", f"Failed build model due to {error}")
            raise
        except (ApiError, urllib3.exceptions.HTTPError, *AWS_ERRORS) as error:
            self._recorder.event(ingress, "Warning", "FailedDeployModel", f"Failed deploy model due to {error}")
            raise
        self._write_status(ingress, host_name)
        self._recorder.event(ingress, "Normal", "SuccessfullyReconciled", "Successfully reconciled")

    def _write_finalizers(self, ingress: Object, finalizers: list[str]) -> Object:
        metadata = ingress["metadata"]
        return self._kubernetes.merge_patch(
            _ingress_path(metadata["namespace"], metadata["name"]),
            {"metadata": {"finalizers": finalizers, "resourceVersion": metadata["resourceVersion"]}},
        )

    def _build(self, ingress: Object) -> IngressModel:
        namespace = ingress["metadata"]["namespace"]
        found = {name: self._services.get(namespace, name) for name in backend_services(ingress)}
        services = {name: service for name, service in found.items() if service is not None}
        try:
            return build(ingress, services, cluster=self._cluster, default_target_type=self._default_target_type)
        except (ModelError, BackendNotFoundError) as error:
            self._recorder.event(ingress, "Warning", "FailedBuildModel", f"Failed build model due to {error}")
            raise

    # --- the binding ---

    def _bindings(self, namespace: str, name: str) -> list[Object]:
        labels = stack_labels(namespace, name)
        items: list[Object] = self._kubernetes.request("GET", _bindings_path(namespace))["items"]
        return [item for item in items if labels.items() <= (item["metadata"].get("labels") or {}).items()]

    def _deploy_binding(self, model: IngressModel, group: GroupModel, target_group: str, security_group: str) -> None:
        peers = [{"securityGroup": {"groupID": security_group}}]
        spec: dict[str, Any] = {
            "serviceRef": {"name": group.service, "port": group.service_port},
            "targetGroupARN": target_group,
            "targetGroupProtocol": "HTTP",
            "targetType": "ip",
            "ipAddressType": "ipv4",
            "vpcID": self._resources.vpc,
            "networking": {"ingress": [{"from": peers, "ports": [{"protocol": "TCP", "port": group.target_port}]}]},
        }
        for binding in self._bindings(model.namespace, model.name):
            if binding["spec"].get("targetGroupARN") == target_group:
                if binding["spec"] != spec:
                    path = _bindings_path(model.namespace, binding["metadata"]["name"])
                    self._kubernetes.merge_patch(path, {"spec": spec})
                return
        self._kubernetes.request(
            "POST",
            _bindings_path(model.namespace),
            {
                "apiVersion": f"{GROUP}/v1beta1",
                "kind": "TargetGroupBinding",
                "metadata": {"name": group.group_name, "labels": stack_labels(model.namespace, model.name)},
                "spec": spec,
            },
        )

    def _delete_binding(self, namespace: str, name: str) -> None:
        path = _bindings_path(namespace, name)
        try:
            self._kubernetes.request("DELETE", path)
        except ApiError as error:
            if error.status != 404:
                raise
        deadline = time.monotonic() + _BINDING_GONE_SECONDS
        while self._get(path) is not None:
            if time.monotonic() > deadline:
                raise ApiError(504, f"failed to wait targetGroupBinding deletion: {namespace}/{name}")
            self._sleep(_BINDING_POLL_SECONDS)

    def _delete_surplus(self, namespace: str, name: str, kept: Collection[str]) -> None:
        """Delete the stack's other bindings and target groups; the rule has left them by now."""
        for binding in self._bindings(namespace, name):
            if binding["spec"].get("targetGroupARN") not in kept:
                self._delete_binding(namespace, binding["metadata"]["name"])
        for arn in self._resources.surplus_target_groups(f"{namespace}/{name}", kept):
            self._resources.delete_target_group(arn)

    # --- the Ingress itself ---

    def _write_status(self, ingress: Object, host_name: str) -> None:
        wanted = [{"hostname": host_name, "ports": [{"port": LISTENER_PORT, "protocol": "TCP"}]}]
        status = (ingress.get("status") or {}).get("loadBalancer") or {}
        if [entry.get("hostname") for entry in status.get("ingress") or []] == [host_name]:
            return
        metadata = ingress["metadata"]
        path = f"{_ingress_path(metadata['namespace'], metadata['name'])}/status"
        self._kubernetes.merge_patch(path, {"status": {"loadBalancer": {"ingress": wanted}}})

    def _is_last(self, ingress: Object) -> bool:
        others = self._kubernetes.request("GET", COLLECTION)["items"]
        return not any(
            INGRESS_FINALIZER in (other["metadata"].get("finalizers") or [])
            for other in others
            if other["metadata"]["uid"] != ingress["metadata"]["uid"]
        )

    def _clean_up(self, ingress: Object) -> None:
        metadata = ingress["metadata"]
        namespace, name = metadata["namespace"], metadata["name"]
        stack = f"{namespace}/{name}"
        _log.info("delete what belongs to Ingress %s", stack)
        self._resources.delete_load_balancers(stack)
        self._delete_surplus(namespace, name, ())
        self._resources.delete_security_groups(stack, is_last=self._is_last(ingress))
        rest = [finalizer for finalizer in metadata["finalizers"] if finalizer != INGRESS_FINALIZER]
        try:
            self._write_finalizers(ingress, rest)
        except ApiError as error:
            if error.status != 404:
                raise
