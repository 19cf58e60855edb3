"""``pulumi-resource-kubernetes`` of the twin."""

import gc

from twin.plugins import protocol

gc.disable()
protocol.alone()

from twin.plugins.common import serve  # noqa: E402 - after the lines above
from twin.plugins.kubernetes.provider import KubernetesProvider  # noqa: E402

serve(KubernetesProvider())
