"""How Argo Rollouts judges a new version here: by CloudWatch, and by a Job's own requests, as ours does.

argo-rollouts.readthedocs.io/en/stable: analysis/cloudwatch, analysis/job.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from infra.timeouts import METRIC_MINUTES_SECONDS

NAME = "errors"
"""Name of the AnalysisTemplate."""
_FIRST_LOOK_SECONDS = 30
_LOOK_SECONDS = 10
_ERRORS_A_MINUTE = 3
PYTHON = "/opt/venv/bin/python"
"""Interpreter of the shop's image (app_docker/Dockerfile)."""
PROBE = """\
import http.client, sys, time, urllib.request
seconds, *urls = sys.argv[1:]
end, sent, failed = time.monotonic() + float(seconds), 0, 0
while time.monotonic() < end:
    url = urls[sent % len(urls)]
    sent += 1
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            answer.read()
    except (OSError, http.client.HTTPException) as error:
        print(url, repr(error), flush=True)
        failed += getattr(error, "code", 500) >= 500
    if failed == 3:
        sys.exit(1)
    time.sleep(0.5)
"""
"""Asks the URLs in turn for that many seconds, each time on a new connection; exit code 1 at the third request that fails or
answers 5xx."""
_METRICS_LATE_SECONDS = 60
"""CloudWatch has a minute about as late as that."""


def template(load_balancer: str, addresses: Sequence[str], image: str) -> dict[str, Any]:
    """Return the AnalysisTemplate: it fails by CloudWatch, or by a Job's own requests, whichever is first.

    CloudWatch fails it at the first minute with more than a few answers of 5xx, of targets or of the load balancer itself, by
    GetMetricData; a minute without errors has no value (analysis/cloudwatch). It looks for two minutes and the minute by which
    CloudWatch is late. The Job asks for the page meanwhile (PROBE).

    Args:
        load_balancer: its ARN.
        addresses: of its nodes, as pods reach them.
        image: the shop's.
    """
    dimensions = [{"name": "LoadBalancer", "value": load_balancer.partition(":loadbalancer/")[2]}]
    queries = [
        {
            "id": name.lower(),
            "metricStat": {
                "metric": {"namespace": "AWS/ApplicationELB", "metricName": name, "dimensions": dimensions},
                "period": 60,
                "stat": "Sum",
            },
        }
        for name in ("HTTPCode_Target_5XX_Count", "HTTPCode_ELB_5XX_Count")
    ]
    count = (METRIC_MINUTES_SECONDS + _METRICS_LATE_SECONDS - _FIRST_LOOK_SECONDS) // _LOOK_SECONDS
    cloudwatch = {
        "name": "errors",
        "initialDelay": f"{_FIRST_LOOK_SECONDS}s",
        "interval": f"{_LOOK_SECONDS}s",
        "count": count,
        "failureLimit": 0,
        "consecutiveErrorLimit": count,
        "successCondition": f"all(result, {{all(#.Values, {{# <= {_ERRORS_A_MINUTE}}})}})",
        "provider": {"cloudWatch": {"interval": "2m", "metricDataQueries": queries}},
    }
    seconds = _FIRST_LOOK_SECONDS + (count - 1) * _LOOK_SECONDS
    urls = [f"http://{address}/" for address in addresses]
    requests = {"name": "requests", "provider": {"job": {"spec": _probe_job(image, seconds, urls)}}}
    return {"kind": "AnalysisTemplate", "metadata": {"name": NAME}, "spec": {"metrics": [cloudwatch, requests]}}


def _probe_job(image: str, seconds: int, urls: Sequence[str]) -> dict[str, Any]:
    container = {
        "name": "requests",
        "image": image,
        "command": [PYTHON, "-c", PROBE, str(seconds), *urls],
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "64Mi"}},
    }
    evicted = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    return {
        "backoffLimit": 0,
        # A pod that leaves with its node has not failed: another one asks in its place.
        "podFailurePolicy": {"rules": [evicted]},
        "template": {
            "spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 5, "containers": [container]},
        },
    }
