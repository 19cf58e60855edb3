"""``pulumi-resource-eks`` of the twin."""

import os
import sys
import threading
import time
from importlib.metadata import version

from pulumi.provider import main

from twin.plugins.eks.provider import EksProvider


def leave_with_the_engine(parent: int) -> None:
    """End this process once the engine has died without a word; Pulumi's own server of components never would."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(0)


if __name__ == "__main__":
    threading.Thread(target=leave_with_the_engine, args=(os.getppid(),), daemon=True).start()
    main(EksProvider(version("pulumi-eks")), sys.argv[1:])
