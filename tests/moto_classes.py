"""The classes of moto as they were: what a file of tests puts around them (twin/aws) is gone for the next file in its process."""

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

_PATCHABLE = (property, classmethod, staticmethod)


def _attributes() -> dict[type, dict[str, Any]]:
    """Functions and properties of each class of moto that is loaded."""
    modules = [module for name, module in sys.modules.items() if name.startswith("moto.")]
    classes = {each for module in modules for each in vars(module).values() if isinstance(each, type)}
    return {
        owner: {name: value for name, value in vars(owner).items() if callable(value) or isinstance(value, _PATCHABLE)}
        for owner in classes
        if owner.__module__.startswith("moto.")
    }


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Put back each attribute that was changed meanwhile, and take away each that was added, of classes loaded before."""
    before = _attributes()
    try:
        yield
    finally:
        after = _attributes()
        for owner, names in before.items():
            for name in after[owner].keys() - names.keys():
                delattr(owner, name)
            for name, value in names.items():
                if vars(owner).get(name) is not value:
                    setattr(owner, name, value)
