"""The record of a release: the whole input of its pods, as plain values, and the pods rendered from it.

A colour is always declared from its record, so nothing that changes elsewhere (settings, an output of another resource)
can reach the template of running pods. Everything in a record is text, a number, a list or a map; `from_json` and
`render_pod_template` refuse anything else.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from infra.errors import LedgerError
from infra.names import APPLICATION, check_tag

if TYPE_CHECKING:
    from infra.timeouts import DrainBudget


AFTER_VARIABLE = "SHOPCAT_AFTER"
"""Environment variable with :attr:`Provenance.after`; what was live, by name, or `nothing`."""

_RECORDED_TAG = re.compile(r"[a-z0-9][a-z0-9.-]{0,39}")
"""Tags that the ledger may hold from before: they stay readable."""
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")

Plain: TypeAlias = "str | int | bool | list[Plain] | dict[str, Plain] | None"


@dataclass(frozen=True)
class DrainNumbers:
    """The waits of a release's pods, from the drain budget at the time of the claim."""

    app_drain_seconds: int
    pre_stop_seconds: int
    grace_seconds: int
    progress_deadline_seconds: int
    startup_seconds: int
    pulumi_timeout_seconds: int

    @staticmethod
    def of(budget: DrainBudget) -> DrainNumbers:
        """Take a budget's numbers that a record keeps."""
        return DrainNumbers(**{each.name: getattr(budget, each.name) for each in fields(DrainNumbers)})


@dataclass(frozen=True)
class TemplateInput:
    """Everything that decides what the pods and Jobs of a release are. Two equal ones make equal pods.

    Records outlive the program that wrote them: a field that is added later needs a default, and with it
    `render_pod_template` must make the same pods as before.
    """

    image: str
    """The application's image by digest."""
    replicas: int
    cpu_millicores: int
    memory_mebibytes: int
    environment: Mapping[str, str]
    """Plain values; what is secret comes by `secret_id`."""
    secret_id: str
    """Name or ARN of the application's own secret in Secrets Manager."""
    secret_version: str
    """Its version id: a restarted pod keeps the secret its release began with."""
    drain: DrainNumbers
    smoke_image: str
    """A tool image with curl, by digest."""
    smoke_url: str
    """The shop's URL, which the smoke test asks through the load balancer; nothing leaves that out."""
    migrate: tuple[str, ...] = ()
    """Command of the migration Job in the new image; nothing means none."""
    migrate_deadline_seconds: int = 300
    migrate_cpu_millicores: int = 50
    migrate_memory_mebibytes: int = 64
    """Both defaults: what every migration had before there was a setting."""
    smoke_connect: str = ""
    """The load balancer's own name, so that the smoke test doesn't hang on a DNS entry."""
    disk_mebibytes: int = 0
    """Part of a node's disk; releases from before it was asked for have none."""
    contracts: bool = False
    """The migration removes something the release before needs: no rollback past this release."""


@dataclass(frozen=True)
class Provenance:
    """The person or workflow that released, and the commit. Never part of a template."""

    who: str = ""
    commit: str = ""
    run: str = ""
    after: str = ""
    """Name of the release that was live when CI found its commit in the history of this one; empty if nobody looked."""


@dataclass(frozen=True)
class Login:
    """The database password of one claim: a version of its colour's secret (infra/release/logins.py)."""

    secret_id: str
    version: str
    """Its id is chosen at the claim, so that a retry finds the password which the first try has made."""
    claim: str
    """The attempt that it was made for, such as `v1.4.0-r1-a1`; the Secret of the pods and the Job have this name."""
    closes_owner: bool
    """No colour signs in as the owner of the tables any more, so that role's own password ends with this one."""


@dataclass(frozen=True)
class Record:
    """One revision of one tag."""

    tag: str
    revision: int
    template: TemplateInput
    provenance: Provenance = field(default_factory=Provenance)
    login: Login | None = None
    """Each claim of a colour has its own; `None` in a release from before: its pods sign in as the owner of the tables."""
    renews: str = ""
    """Name of the release whose pods these are, with a new password: its migration has run."""

    @property
    def digest(self) -> str:
        """Return `sha256:…` of the image."""
        return self.template.image.rpartition("@")[2]

    @property
    def name(self) -> str:
        """Return the release's name in objects and messages: `v1.4.0-r1`."""
        return release_name(self.tag, self.revision)

    @property
    def contracts(self) -> bool:
        """Check for a migration that removes what former releases need; a rotation runs none."""
        return self.template.contracts and not self.renews

    @property
    def secret_name(self) -> str:
        """Return the name of the ExternalSecret and Secret that the pods read."""
        return f"{APPLICATION}-{self.login.claim if self.login else self.name}"

    @property
    def secret_resource(self) -> str:
        """Return the name of that ExternalSecret's resource in the stack."""
        return f"secret-{self.login.claim if self.login else self.name}"

    def to_json(self) -> str:
        """Return the record as text, the same for equal records."""
        return json.dumps(_open(self), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Record:
        """Read the record that `to_json` wrote.

        Raises:
            ShopCatError: it is not one.
        """
        try:
            raw = json.loads(text)
            template = {**raw["template"], "migrate": tuple(raw["template"]["migrate"])}
            template["drain"] = DrainNumbers(**template["drain"])
            record = cls(
                tag=raw["tag"],
                revision=raw["revision"],
                template=TemplateInput(**template),
                provenance=Provenance(**raw["provenance"]),
                login=Login(**raw["login"]) if raw.get("login") else None,
                renews=raw.get("renews", ""),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise LedgerError(f"the ledger holds a release record that this program can't read: {error!r}") from error
        return validated(record)


def _open(value: Any) -> Any:
    """Turn dataclasses into maps, all the way down; other values stay, so that one that isn't plain can still be named."""
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: _open(getattr(value, each.name)) for each in fields(value)}
    return value


def release_name(tag: str, revision: int) -> str:
    """Return `v1.4.0-r1`, usable in names of Kubernetes objects."""
    return f"{tag}-r{revision}"


def validated(record: Record) -> Record:
    """Return the record itself if every value in it is plain and the image is known by digest.

    Raises:
        ShopCatError: it is not.
    """
    if not isinstance(record.tag, str) or not _RECORDED_TAG.fullmatch(record.tag):
        check_tag(str(record.tag))
    assert_plain(_open(record), f"record of {record.tag}")
    for what, image in (("image", record.template.image), ("smoke image", record.template.smoke_image)):
        if not _DIGEST.fullmatch(image.rpartition("@")[2]):
            raise LedgerError(f"{what} {image!r} of {record.tag} is not given by digest (…@sha256:…)")
    if record.revision < 1 or record.template.replicas < 1:
        raise LedgerError(f"record of {record.tag}: revision and replicas start at 1")
    return record


def assert_plain(value: object, where: str) -> None:
    """Refuse anything but text, whole numbers, truth values, and lists and maps of them.

    Raises:
        ShopCatError: something else is in it, such as an output of another resource that is only known later.
    """
    if value is None or type(value) in (str, int, bool):
        return
    if type(value) in (list, tuple):
        for index, each in enumerate(value):  # type: ignore[var-annotated, arg-type]
            assert_plain(each, f"{where}[{index}]")
        return
    if isinstance(value, Mapping):
        for key, each in value.items():
            if type(key) is not str:
                raise LedgerError(f"{where}: key {key!r} is no text; a release is made of plain values only")
            assert_plain(each, f"{where}.{key}")
        return
    raise LedgerError(f"{where} is a {type(value).__name__}; a release is made of plain values only")


def template_differences(wanted: TemplateInput, live: TemplateInput) -> list[str]:
    """List what the settings would change in the live release, one line per value; empty when they agree."""
    before, after = _flat(_open(live)), _flat(_open(wanted))
    return [
        f"{key}: live {before.get(key)!r}, settings {after.get(key)!r}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, each in value.items():
        if isinstance(each, Mapping):
            flat.update(_flat(each, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = each
    return flat


def fingerprint(document: Mapping[str, Any]) -> str:
    """Return a short hash of plain values, such as a pod template; the order of keys doesn't matter."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
