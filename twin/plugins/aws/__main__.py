"""``pulumi-resource-aws`` of the twin."""

from twin.plugins.aws.provider import AwsProvider
from twin.plugins.common import serve

serve(AwsProvider())
