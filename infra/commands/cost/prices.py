"""Prices of one region, each with its source, read from a file that is kept with the program."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from infra.errors import SettingsError

HOURS_PER_MONTH = 730
"""Hours of a month in AWS's own calculator: 365 days of 24 hours, divided by 12 (calculator.aws)."""
PRICES_FOLDER = Path(__file__).resolve().parent


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PriceSource(_Strict):
    """One file or page of AWS."""

    url: str
    published: date
    """The date in it; of a quotation, the date that goes with the number."""
    read: date
    evidence: Literal["page", "copy", "quote"]
    """AWS's page itself, a copy of AWS's file, or a number that somebody else quotes."""
    seen: str = ""
    """Address where a copy or a quotation was read."""

    @model_validator(mode="after")
    def _is_traceable(self) -> PriceSource:
        if not all(url.startswith("https://") for url in (self.url, self.seen or self.url)):
            raise ValueError("url and seen begin with https://")
        if (self.evidence == "page") == bool(self.seen):
            raise ValueError("seen names where a copy or a quotation was read, and a page needs none")
        if self.published > self.read:
            raise ValueError("it was read before it was published")
        return self


class Price(_Strict):
    """Price of one thing, or why it is not known."""

    unit: Literal["hour", "month", "GB-month", "GB", "LCU-hour", "million writes", "million reads"]
    usd: Annotated[Decimal, Field(ge=0)] | None = None
    source: str = ""
    entry: str = ""
    """Name of the number in the source."""
    unknown: str = ""

    @model_validator(mode="after")
    def _has_one_origin(self) -> Price:
        if (self.usd is None) != bool(self.unknown):
            raise ValueError("either usd, with its source and entry, or unknown, with the reason")
        if self.usd is not None and not (self.source and self.entry):
            raise ValueError("usd needs a source and the entry in it")
        return self

    def monthly(self, count: Decimal) -> Decimal | None:
        """Return US dollars per month of so many at once; None if the price is unknown."""
        if self.usd is None:
            return None
        return count * self.usd * (HOURS_PER_MONTH if self.unit == "hour" else 1)


class PriceList(_Strict):
    """All that is known of one region."""

    region: str
    location: str
    source: Mapping[str, PriceSource]
    price: Mapping[str, Price]
    free: Mapping[str, str]
    """Type of resource → why it is on no bill by itself."""

    @model_validator(mode="after")
    def _names_its_sources(self) -> PriceList:
        named = {price.source for price in self.price.values() if price.source}
        if named != set(self.source):
            raise ValueError(
                f"sources that are named and not described, or the reverse: {sorted(named ^ set(self.source))}"
            )
        return self

    def of(self, name: str) -> Price:
        """Return a price by its name.

        Raises:
            SettingsError: there is none, and what to add.
        """
        if name not in self.price:
            raise SettingsError(
                f"there is no price {name}: add [price.{name!r}] to infra/commands/cost/{self.region}.toml, with usd, unit, "
                "source and entry, or with unknown and the reason"
            )
        return self.price[name]


def read_prices(region: str, folder: Path = PRICES_FOLDER) -> PriceList:
    """Return the prices of a region.

    Raises:
        SettingsError: there is no file for it, or the file holds something that has no source.
    """
    path = folder / f"{region}.toml"
    try:
        prices = PriceList.model_validate(tomllib.loads(path.read_text(), parse_float=Decimal))
    except OSError as error:
        known = ", ".join(sorted(each.stem for each in folder.glob("*.toml")))
        raise SettingsError(
            f"aws:region is {region}, and there are prices of {known} alone: add infra/commands/cost/{region}.toml"
        ) from error
    except (tomllib.TOMLDecodeError, ValidationError) as error:
        raise SettingsError(f"infra/commands/cost/{path.name} can't be used: {error}") from error
    if prices.region != region:
        raise SettingsError(
            f"infra/commands/cost/{path.name} holds the prices of {prices.region}; name it by its region"
        )
    return prices
