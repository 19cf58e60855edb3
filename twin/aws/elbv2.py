"""Corrections to moto's load balancers: target health, and AWS's limits."""

from __future__ import annotations

import contextlib
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable
from typing import Any, cast

from flask import request
from moto.elbv2 import models as elbv2
from moto.elbv2.exceptions import InvalidConfigurationRequest

from twin.config import Twin


def patch_load_balancing(twin: Twin) -> None:  # noqa: C901 - one small function for each call that moto lacks
    """Target health from the load balancer stand-in, and AWS's limits that moto lets pass."""
    backend = cast("Any", elbv2.ELBv2Backend)
    create_rule, modify_rule = backend.create_rule, backend.modify_rule

    def health(self: Any, arn: str, targets: list[dict[str, Any]]) -> list[dict[str, Any]]:
        group = self.target_groups.get(arn)
        if group is None:
            raise elbv2.TargetGroupNotFoundError
        registered = [{"Id": target["Id"], "Port": int(target["Port"])} for target in group.targets.values()]
        if request.headers.get("X-Twin-Registered-Only"):
            # The load balancer asks what is registered; asking it back would go round in circles.
            return [{"Target": target, "TargetHealth": {"State": "healthy"}} for target in registered]
        url = f"http://127.0.0.1:{twin.load_balancer_port}/target-health?arn={urllib.parse.quote(arn, safe='')}"
        descriptions: list[dict[str, Any]] | None = None
        with contextlib.suppress(OSError, ValueError), urllib.request.urlopen(url, timeout=5) as answer:
            descriptions = json.loads(answer.read())["TargetHealthDescriptions"]
        # Registered, but the load balancer does not answer or has not seen it yet.
        reason = {
            "State": "initial",
            "Reason": "Elb.RegistrationInProgress",
            "Description": "Target registration is in progress",
        }
        known = {
            (description["Target"]["Id"], int(description["Target"]["Port"])) for description in descriptions or []
        }
        descriptions = [*(descriptions or [])] + [
            {"Target": target, "TargetHealth": reason}
            for target in registered
            if (target["Id"], target["Port"]) not in known
        ]
        if not targets:
            return descriptions
        wanted = {(target["Id"], int(target.get("Port") or group.port)) for target in targets}
        chosen = [
            description
            for description in descriptions
            if (description["Target"]["Id"], int(description["Target"]["Port"])) in wanted
        ]
        present = {(description["Target"]["Id"], int(description["Target"]["Port"])) for description in chosen}
        for identifier, port in sorted(wanted - present):
            unknown = {"State": "unused", "Reason": "Target.NotRegistered"}
            chosen.append({"Target": {"Id": identifier, "Port": port}, "TargetHealth": unknown})
        return chosen

    def check_weights(actions: Iterable[Any] | None) -> None:
        for action in actions or []:
            data = action if isinstance(action, dict) else getattr(action, "data", {})
            for group in (data.get("ForwardConfig") or {}).get("TargetGroups") or []:
                if not 0 <= int(group.get("Weight", 1)) <= 999:
                    raise InvalidConfigurationRequest("Weights must be between 0 and 999")

    def creating(self: Any, *args: Any, **kwargs: Any) -> Any:
        check_weights(kwargs.get("actions"))
        return create_rule(self, *args, **kwargs)

    def modifying(self: Any, *args: Any, **kwargs: Any) -> Any:
        check_weights(kwargs.get("actions") or (args[2] if len(args) > 2 else None))
        return modify_rule(self, *args, **kwargs)

    group_type = cast("Any", elbv2.FakeTargetGroup)
    deregister = group_type.deregister

    def deregistering(self: Any, targets: list[dict[str, Any]]) -> None:
        # "If the specified target does not exist, the action returns successfully." (DeregisterTargets)
        deregister(self, [target for target in targets if target["Id"] in self.targets])

    group_type.deregister = deregistering
    backend.describe_target_health = health
    backend.create_rule = creating
    backend.modify_rule = modifying
