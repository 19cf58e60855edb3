"""Print what a takeover from Terraform and Helm would do, without changing anything (``make takeover-plan STATE=…``).

It reads Terraform's state, Helm's release, AWS, the cluster and the settings, and writes nothing. docs/takeover.md says how to
read the table.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from infra.clients import kubernetes
from infra.clients.aws import AwsClients
from infra.commands.takeover import declared, helm, layout, live
from infra.commands.takeover.plan import TakeoverPlan, plan_takeover
from infra.commands.takeover.redaction import Redactor
from infra.commands.takeover.report import cell, plan_text
from infra.commands.takeover.state import TerraformState, parse_state
from infra.errors import SettingsError, ShopCatError
from infra.names import SHOP_NAMESPACE
from infra.settings import read_stack

if TYPE_CHECKING:
    from infra.settings import Settings

Read = TypeVar("Read")
UNKNOWN_ACCOUNT = "000000000000"
"""In ARNs of what is declared, if neither AWS nor the state says which account it is."""


def _read_file(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{what} {path} can't be read ({error.strerror or error})") from error


@dataclass(frozen=True)
class _Inputs:
    """Arguments of the command."""

    state: TerraformState
    region: str
    settings: Settings
    release: helm.HelmRelease | None
    """Content of the file of Helm's output; None if none is named."""


def _read_inputs(arguments: argparse.Namespace) -> _Inputs:
    """Read state, settings and Helm's output.

    Raises:
        SettingsError: one error with a line for each of them that can't be read.
    """
    errors: list[str] = []

    def attempt(read: Callable[[], Read]) -> Read | None:
        try:
            return read()
        except SettingsError as error:
            errors.append(str(error))
            return None

    state = attempt(lambda: _read_state(arguments.state))
    stack = attempt(lambda: read_stack(Path(os.environ.get("PULUMI_OPTION_CONFIG_FILE", "Pulumi.prod.yaml"))))
    release = attempt(lambda: _read_helm_release(arguments.helm)) if arguments.helm else None
    if state is None or stack is None or errors:
        raise SettingsError("\nerror: ".join(errors))
    return _Inputs(state, *stack, release)


def _read_state(path: Path) -> TerraformState:
    if path == Path():
        raise SettingsError(
            "no state is named: make takeover-plan STATE=terraform.tfstate (`terraform state pull` writes it)"
        )
    return parse_state(_read_file(path, "Terraform's state"), path.name)


def _read_helm_release(path: Path) -> helm.HelmRelease:
    return helm.parse_text(_read_file(path, "Helm's output"), path.name, SHOP_NAMESPACE)


def _ask_cluster(state: TerraformState, settings: Settings, clients: AwsClients | None) -> helm.HelmRelease:
    """Return what Helm owns in the cluster, if that can be reached.

    Raises:
        ShopCatError: it can't, or a release there can't be read.
    """
    client = None
    cluster = layout.production_cluster(state.owned, settings)
    if clients is not None and cluster is not None and cluster.text("name"):
        client = kubernetes.from_eks(clients, cluster.text("name"))
    if client is None:
        raise SettingsError("the cluster can't be asked; set HELM to what `helm get all` prints")
    return live.read_helm(client)


def _plan(arguments: argparse.Namespace) -> tuple[TakeoverPlan, Redactor, int]:
    inputs = _read_inputs(arguments)
    state, region, settings = inputs.state, inputs.region, inputs.settings
    redactor = Redactor(state.secrets)
    heading = f"Terraform {state.terraform_version}, {arguments.state.name}; nothing is changed by this"
    print(cell(heading, redactor))
    clients: AwsClients | None = None if arguments.offline else AwsClients(region, endpoint_url=settings.aws_endpoint)
    account, known = "", live.AwsReading(state.owned)
    if clients is not None:
        try:
            account, _ = clients.identity()
            known = live.read_aws(clients, state.owned)
        except ShopCatError as error:
            clients = None
            print(cell(f"AWS was not asked, so all values are the state's: {error}", redactor))
    release = inputs.release or helm.HelmRelease()
    if inputs.release is None and arguments.offline:
        print("Helm was not asked; HELM=<file> names what `helm get all` prints")
    elif inputs.release is None:
        try:
            release = _ask_cluster(state, settings, clients)
        except ShopCatError as error:
            print(cell(f"Helm was not asked: {error}", redactor))
    print(flush=True)
    plan = plan_takeover(
        [*known.owned, *release.owned],
        declared.record_declared(
            settings, region, account or layout.account_of(state.owned) or UNKNOWN_ACCOUNT, layout.zone_ids(state.owned)
        ),
        settings,
        region=region,
        account=account,
        notes=known.notes,
    )
    return plan, Redactor(state.secrets | (release.secrets - state.open_texts)), state.data_sources


def main(words: Sequence[str] | None = None) -> int:
    """``python -m infra.commands.takeover_plan STATE``; 1 if a takeover is refused, or the plan can't be made.

    PULUMI_OPTION_CONFIG_FILE names another stack file.
    """
    parser = argparse.ArgumentParser(prog="python -m infra.commands.takeover_plan", description=__doc__)
    parser.add_argument("state", type=Path, help="Terraform's state, as `terraform state pull` prints it")
    parser.add_argument("--helm", type=Path, help="what `helm get all` prints; else the cluster is asked")
    parser.add_argument("--offline", action="store_true", help="ask neither AWS nor the cluster")
    arguments = parser.parse_args(words)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    try:
        plan, redactor, data_sources = _plan(arguments)
        print(plan_text(plan, redactor, data_sources=data_sources), flush=True)
    except ShopCatError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # whoever reads it has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 1 if plan.errors else 0


if __name__ == "__main__":
    sys.exit(main())
