"""Settings of what tells a person that something is wrong: who is told, and the numbers that only this shop knows."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from infra.settings.values import Model, Seconds, Whole


class LogSettings(Model):
    """Logs of production's pods and the add-ons in CloudWatch (infra/foundation/log_shipper.py)."""

    section = "monitoring.logs."

    image: str
    """AWS for Fluent Bit 3, by digest: public.ecr.aws/aws-observability/aws-for-fluent-bit:3.2.1@sha256:<64 hex digits>, as
    `docker buildx imagetools inspect` prints it."""
    retention_days: Literal[7, 14, 30, 60, 90, 180, 365] = 30


class MonitoringSettings(Model):
    """Alarms of CloudWatch, a dashboard, and a budget. Without this setting none of them is made."""

    section = "monitoring."

    email: str = ""
    """Address that alarms go to. SNS writes to it first and sends nothing before the link in that mail was followed."""
    webhook: str = ""
    """HTTPS URL that alarms go to. A secret where it holds a token: pulumi config set --secret --path
    shopcat:monitoring.webhook. SNS posts a SubscribeURL to it first and sends nothing before somebody has called that."""
    slowest_seconds: Seconds | None = None
    """Time that all but the slowest hundredth of answers stay below; unset, it is drain.longestRequest (0: no such alarm)."""
    logs: LogSettings | None = None
    monthly_budget_usd: Whole = 0
    """Bill of the whole account in a month above which somebody is told; 0 tells nobody."""

    @model_validator(mode="after")
    def _tells_somebody(self) -> MonitoringSettings:
        if not self.email and not self.webhook:
            raise ValueError("nobody would be told; set email, webhook or both, or remove the setting")
        return self
