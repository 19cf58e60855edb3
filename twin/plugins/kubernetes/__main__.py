"""``pulumi-resource-kubernetes`` of the twin."""

from twin.plugins.common import serve
from twin.plugins.kubernetes.provider import KubernetesProvider

serve(KubernetesProvider())
