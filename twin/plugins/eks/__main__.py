"""``pulumi-resource-eks`` of the twin."""

import gc
import os
import sys
import threading
import time

gc.disable()  # while the SDK's modules are loaded

from importlib.metadata import version  # noqa: E402

from pulumi.provider import main  # noqa: E402

from twin.plugins.eks.provider import EksProvider  # noqa: E402


def leave_with_the_engine(parent: int) -> None:
    """End this process once the engine has died without a word; Pulumi's own server of components never would."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(0)


if __name__ == "__main__":
    threading.Thread(target=leave_with_the_engine, args=(os.getppid(),), daemon=True).start()
    gc.freeze()
    gc.enable()
    main(EksProvider(version("pulumi-eks")), sys.argv[1:])
