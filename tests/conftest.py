"""Twins that the tests run on: one with simulated nodes for the engine, one with real pods."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator

import pytest
from hypothesis import settings

from tests import moto_classes
from twin import config, parts
from twin.host import processes
from twin.paths import is_root
from twin.scenarios import production
from twin.scenarios.old_shop import OldShop

WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")
PREFIX = os.environ.get("SHOPCAT_TWIN_PREFIX", "") + (f"{WORKER}-" if WORKER else "")
"""Prefix of the names of the tests' twins, so that two checkouts, or two files of tests, can run side by side."""


# How long an example takes says something about the machine, and nothing about the program.
settings.register_profile("shopcat", deadline=None)
settings.load_profile("shopcat")


def pytest_configure() -> None:
    processes.heed_interrupts()


def _twin(
    name: str,
    *,
    simulated: bool,
    prepare: Callable[[config.Twin], None] | None = None,
    produce: Callable[[config.Twin], None] = production.up,
) -> Iterator[config.Twin]:
    """A twin of its own name, fresh, gone afterwards (kept with SHOPCAT_KEEP_TWIN=1, to look into a failure).

    What prepares it comes before anything of production is there; what produces comes last, production by default.
    """
    twin = config.load(name, simulated=simulated)
    if not os.environ.get("SHOPCAT_KEEP_TWIN"):
        _take_down(twin)
        twin = config.load(name, simulated=simulated)
    parts.up(twin)
    if prepare is not None:
        prepare(twin)
    produce(twin)
    yield twin
    if not os.environ.get("SHOPCAT_KEEP_TWIN"):
        _take_down(twin)


def _take_down(twin: config.Twin) -> None:
    problems = parts.down(twin)
    assert not problems, problems
    shutil.rmtree(twin.directory, ignore_errors=True)
    config.release_index(twin)


@pytest.fixture(scope="module", autouse=True)
def moto_as_it_was() -> Iterator[None]:
    """Keep what a file puts around moto from the files after it in the same process."""
    with moto_classes.kept():
        yield


@pytest.fixture(scope="module")
def simulated() -> Iterator[config.Twin]:
    """Production on simulated nodes."""
    if not sys.platform.startswith("linux"):
        pytest.skip("the twin's control plane needs Linux")
    yield from _twin(f"{PREFIX}engine", simulated=True)


@pytest.fixture(scope="module")
def twin(request: pytest.FixtureRequest) -> Iterator[config.Twin]:
    """Production on real pods; a module's own function ``prepare`` may change what it starts with."""
    if not is_root():
        pytest.skip("real pods need root: network namespaces, mounts and cgroups")
    yield from _twin(f"{PREFIX}test", simulated=False, prepare=getattr(request.module, "prepare", None))


@pytest.fixture(scope="module")
def old_shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OldShop]:
    """The shop before the takeover, on real pods: legacy/ by Terraform (or its recorded state) and Helm, without a stack."""
    if not is_root():
        pytest.skip("real pods need root: network namespaces, mounts and cgroups")
    shop = OldShop(config.load(f"{PREFIX}old", simulated=False), tmp_path_factory.mktemp("old-shop"))

    def produce(twin: config.Twin) -> None:
        shop.twin = twin
        shop.bring_up()

    for _ in _twin(shop.twin.name, simulated=False, produce=produce):
        yield shop


@pytest.fixture(scope="module")
def terraform_shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OldShop]:
    """Terraform's folder of the old shop, on a simulated twin where nothing is made yet."""
    shop = OldShop(config.load(f"{PREFIX}recorded", simulated=True), tmp_path_factory.mktemp("recorded"))
    if reason := shop.find_provider():
        config.release_index(shop.twin)
        pytest.skip(f"only Terraform with its AWS provider can say so: {reason}")
    for twin in _twin(shop.twin.name, simulated=True, produce=lambda _: None):
        shop.twin = twin
        yield shop
