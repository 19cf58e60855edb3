"""``pulumi-resource-aws`` of the twin."""

import gc

from twin.plugins import protocol

gc.disable()
protocol.alone()

from twin.plugins.aws.provider import AwsProvider  # noqa: E402
from twin.plugins.common import serve  # noqa: E402 - after the lines above

serve(AwsProvider())
