"""Move the shop's users from the old load balancer to this program's by weighted DNS, one step a command (``make takeover-dns``).

`status` changes nothing. `split` turns the simple record into a weighted pair, all at the old load balancer. `weight` gives the
new one a share and watches it. `back` sends all to the old one. `finish` leaves the one record that this program declares.
docs/takeover-traffic.md has the order, what each step prints, and the AWS actions that a person needs.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from infra.clients.aws import AwsClients
from infra.commands.traffic_move.by_hand import MoveByHand
from infra.commands.traffic_move.move import TrafficMove
from infra.commands.traffic_move.reads import find_shop_zone
from infra.commands.traffic_move.records import Shape
from infra.commands.traffic_move.rules import BAKE_MINUTES
from infra.commands.traffic_move.watch import ask_straight
from infra.errors import SettingsError, ShopCatError
from infra.settings import Settings, read_stack

MOVE_STEPS = ("status", "split", "weight", "back", "finish")


def choose_move(clients: AwsClients, settings: Settings, old: str) -> TrafficMove | MoveByHand:
    """Return the move in Route 53 if this account's zone holds the shop's record, else the one by hand.

    Raises:
        ShopCatError: AWS can't be asked, or the zone's records can't be moved.
    """
    ask = ask_straight(settings.domain)
    zone = find_shop_zone(clients, settings)
    if zone is None or zone.read(None).shape is Shape.NONE:
        return MoveByHand(clients, settings, old, ask)
    return TrafficMove(clients, settings, zone, ask, old_name=old)


def run_step(move: TrafficMove | MoveByHand, arguments: argparse.Namespace) -> None:
    """Run one step.

    Raises:
        ShopCatError: refused or failed; the message says what stands.
    """
    steps: dict[str, Callable[[], None]] = {
        "status": move.status,
        "split": move.split,
        "weight": lambda: move.weight(arguments.percent),
        "back": move.back,
        "finish": lambda: move.finish(arguments.bake, arguments.accept),
    }
    steps[arguments.step]()


def _parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m infra.commands.takeover_dns", description=__doc__)
    parser.add_argument("step", help=", ".join(MOVE_STEPS))
    parser.add_argument("percent", nargs="?", default="", help="of `weight`: the new load balancer's share, 0 to 100")
    parser.add_argument("--old", default="", help="the old load balancer's name or DNS name, if no record leads there")
    parser.add_argument(
        "--bake", default="24h", help="of `finish`: time without a request at the old one, such as 24h or 30m"
    )
    parser.add_argument(
        "--accept", default="0", help="of `finish`: requests of scanners in that time, by the access logs"
    )
    return parser.parse_args(words)


def check_arguments(arguments: argparse.Namespace) -> None:
    """Check a step's words and turn its numbers into numbers.

    Raises:
        SettingsError: one of them can't be used.
    """
    if arguments.step not in MOVE_STEPS:
        raise SettingsError(f"STEP is {arguments.step!r}; expected one of {', '.join(MOVE_STEPS)}")
    if bool(arguments.percent) != (arguments.step == "weight"):
        raise SettingsError(
            "WEIGHT belongs to STEP=weight: make takeover-dns STEP=weight WEIGHT=1, and no other step has one"
        )
    arguments.percent = _whole_number("WEIGHT", arguments.percent or "0", 0, 100)
    arguments.bake = _bake_minutes(arguments.bake)
    arguments.accept = _whole_number("ACCEPT", arguments.accept, 0, 1_000_000)


def _bake_minutes(text: str) -> int:
    least, _, most = BAKE_MINUTES
    number, unit = text[:-1], text[-1:]
    if number.isascii() and number.isdecimal() and len(number) <= 7 and unit in ("h", "m"):
        minutes = int(number) * (60 if unit == "h" else 1)
        if least <= minutes <= most and minutes % 5 == 0:
            return minutes
    raise SettingsError(
        f"BAKE is {text!r}; expected hours or minutes, such as 24h or 30m: a multiple of 5 minutes from {least}m to {most // 60}h"
    )


def _whole_number(name: str, text: str, least: int, most: int) -> int:
    if text.isascii() and text.isdecimal() and len(text) <= 7 and least <= int(text) <= most:
        return int(text)
    raise SettingsError(f"{name} is {text!r}; expected a whole number from {least} to {most}")


def main(words: Sequence[str] | None = None) -> int:
    """``python -m infra.commands.takeover_dns STEP [PERCENT]``; 1 if the step was refused or failed, 130 if interrupted.

    PULUMI_OPTION_CONFIG_FILE names another stack file.
    """
    arguments = _parse(words)
    try:
        check_arguments(arguments)
        region, settings = read_stack(Path(os.environ.get("PULUMI_OPTION_CONFIG_FILE", "Pulumi.prod.yaml")))
        move = choose_move(AwsClients(region, endpoint_url=settings.aws_endpoint), settings, arguments.old)
        run_step(move, arguments)
    except ShopCatError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "interrupted: what was written stands, and nobody watches it; look at `make takeover-dns STEP=status`, then run "
            "the same step again, or STEP=back",
            file=sys.stderr,
        )
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
