"""``pulumi-resource-eks`` of the twin."""

import gc
import importlib
import os
import sys
import threading
import time

gc.disable()  # while the SDK's modules are loaded

from importlib.metadata import version  # noqa: E402

from pulumi.provider import main  # noqa: E402

from twin.plugins.eks.provider import EksProvider  # noqa: E402

_SERVES_SECONDS = 0.1
"""Time after which the server listens."""


def leave_with_the_engine(parent: int) -> None:
    """End this process once the engine has ended without notice; Pulumi's own server of components never would."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(0)


def load_components() -> None:
    """Load what components are declared with. The engine waits for a plugin's start, and not yet for a component."""
    importlib.import_module("twin.plugins.eks.components")
    gc.freeze()
    gc.enable()


if __name__ == "__main__":
    threading.Thread(target=leave_with_the_engine, args=(os.getppid(),), daemon=True).start()
    threading.Timer(_SERVES_SECONDS, load_components).start()
    main(EksProvider(version("pulumi-eks")), sys.argv[1:])
