"""``pulumi-resource-eks`` of the twin."""

import sys
from importlib.metadata import version

from pulumi.provider import main

from twin.plugins.eks.provider import EksProvider

if __name__ == "__main__":
    main(EksProvider(version("pulumi-eks")), sys.argv[1:])
