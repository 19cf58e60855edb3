"""Read Terraform's state file, format version 4: every object that Terraform owns, and every secret that it holds.

Source of the format: hashicorp/terraform, internal/states/statefile/version4.go. Terraform 0.12 and later write it. What is no
such file is refused with what it seems to be, since a plan, an older state and a backend's pointer look much the same.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from infra.commands.takeover.redaction import HIDDEN, marked_texts, scalars_in, secret_texts
from infra.errors import SettingsError

STATE_VERSION = 4
DEEPEST_STATE = 100
"""Maps and lists in one another. The deepest block of a provider has about ten."""
_PULL = "`terraform state pull > terraform.tfstate` writes the state, whatever backend it is in"


@dataclass(frozen=True)
class Owned:
    """One object that Terraform or Helm owns."""

    address: str
    """The address as `terraform state list` prints it, or `helm: <kind> <namespace>/<name>`."""
    type_name: str
    module: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    deposed: bool = False
    """Replaced already, and not deleted yet."""
    tainted: bool = False
    """Terraform would replace it at its next apply."""
    comparable: bool = True
    """False if its attributes are in the flat form of Terraform 0.11."""
    secrets: frozenset[str] = frozenset()
    """Every secret text among its attributes."""

    def text(self, name: str) -> str:
        """Return an attribute if it is a text; else nothing."""
        value = self.attributes.get(name)
        return value if isinstance(value, str) else ""

    def shown(self, name: str) -> str:
        """Return an attribute as a message may have it: a secret one is hidden, however short it is."""
        return masked(self.text(name), [self])

    @property
    def identity(self) -> set[str]:
        """Every text by which another object may refer to this one."""
        return {self.text(name) for name in ("id", "arn", "name", "identifier", "key_id", "self_link")} - {""}


def masked(value: str | int, owned: Iterable[Owned]) -> str:
    """Return a value as a message may have it: hidden if any of these objects has it marked."""
    return HIDDEN if any(str(value) in each.secrets for each in owned) else str(value)


@dataclass(frozen=True)
class TerraformState:
    """The content of a state file."""

    owned: tuple[Owned, ...]
    data_sources: int
    """Objects that Terraform only reads."""
    secrets: frozenset[str]
    terraform_version: str

    @property
    def open_texts(self) -> frozenset[str]:
        """Return every whole value that is not secret in it: Terraform itself prints these, so no other source hides them."""
        return frozenset(text for each in self.owned for text in scalars_in(each.attributes)) - self.secrets


def parse_state(content: bytes, name: str) -> TerraformState:
    """Return what a state file holds.

    Raises:
        SettingsError: it is no state of version 4; the message says what it seems to be.
    """
    document = _document(content, name)
    _check_version(document, name)
    if _depth_exceeds(document, DEEPEST_STATE):
        raise SettingsError(f"{name} is nested more than {DEEPEST_STATE} deep, so it is no state; {_PULL}")
    resources = document.get("resources")
    if not isinstance(resources, list):
        raise SettingsError(f"{name}: `resources` is no list; {_PULL}")
    owned: list[Owned] = []
    secrets = set(_secret_outputs(document.get("outputs")))
    data_sources = 0
    for place, resource in enumerate(resources):
        where = f"{name}: resources[{place}]"
        mode, type_name, title = (_part(resource, key, where) for key in ("mode", "type", "name"))
        instances = resource.get("instances")
        if not isinstance(instances, list):
            raise SettingsError(f"{where}: `instances` is no list; {_PULL}")
        module = resource.get("module")
        module = module if isinstance(module, str) else ""
        for instance in instances:
            if not isinstance(instance, dict):
                raise SettingsError(f"{where}: an instance is no object; {_PULL}")
            hidden = _instance_secrets(type_name, instance)
            secrets |= hidden
            if mode == "data":
                data_sources += 1
            else:
                address = ".".join(part for part in (module, type_name, title) if part)
                owned.append(replace(_owned_object(address, type_name, module, instance), secrets=frozenset(hidden)))
    # A value that is marked anywhere, in an output perhaps, is one wherever it is a whole value.
    marked = [replace(each, secrets=each.secrets | (secrets & set(scalars_in(each.attributes)))) for each in owned]
    version = document.get("terraform_version")
    return TerraformState(
        tuple(marked), data_sources, frozenset(secrets), version if isinstance(version, str) else "unknown"
    )


def _instance_secrets(type_name: str, instance: Mapping[str, Any]) -> set[str]:
    texts: set[str] = set()
    for form, paths in (("attributes", instance.get("sensitive_attributes")), ("attributes_flat", None)):
        attributes = instance.get(form)
        if isinstance(attributes, dict):
            texts |= set(secret_texts(type_name, attributes, paths))
    return texts


def _owned_object(address: str, type_name: str, module: str, instance: Mapping[str, Any]) -> Owned:
    attributes, flat = instance.get("attributes"), instance.get("attributes_flat")
    is_nested = isinstance(attributes, dict) and bool(attributes)
    is_flat = not is_nested and isinstance(flat, dict)
    values = attributes if is_nested else flat
    deposed = instance.get("deposed")
    shown = f"{address}{_index(instance.get('index_key'))}"
    return Owned(
        address=f"{shown} (deposed {deposed})" if deposed else shown,
        type_name=type_name,
        module=module,
        attributes=values if isinstance(values, dict) else {},
        deposed=bool(deposed),
        tainted=instance.get("status") == "tainted",
        comparable=not is_flat,
    )


def decoded(content: bytes) -> str:
    """Return a file's text: UTF-8, or UTF-16 with its mark, as `>` of Windows PowerShell 5 writes what a program prints.

    Raises:
        UnicodeDecodeError: it is neither.
    """
    return content.decode("utf-16" if content[:2] in {codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE} else "utf-8-sig")


def _document(content: bytes, name: str) -> dict[str, Any]:
    if content.startswith(b"PK\x03\x04"):
        raise SettingsError(f"{name} is an archive, as `terraform plan -out` writes a plan; {_PULL}")
    if not content.strip():
        raise SettingsError(f"{name} is empty; {_PULL}")
    try:
        document = json.loads(decoded(content))
    except UnicodeDecodeError as error:
        raise SettingsError(f"{name} is not UTF-8 text ({error.reason}), so no state; {_PULL}") from error
    except json.JSONDecodeError as error:
        raise SettingsError(
            f"{name} is no whole JSON (line {error.lineno}, column {error.colno}: {error.msg}); {_PULL}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{name} is no JSON that can be read ({type(error).__name__}); {_PULL}") from error
    if not isinstance(document, dict):
        raise SettingsError(f"{name} holds no JSON object, so no state; {_PULL}")
    return document


def _depth_exceeds(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [
            inner
            for each in level
            for inner in (each.values() if isinstance(each, dict) else each if isinstance(each, list) else ())
        ]
        if not level:
            return False
    return True


def _check_version(document: Mapping[str, Any], name: str) -> None:
    """Refuse every document that is no state of version 4, by what it seems to be."""
    version, backend = document.get("version"), document.get("backend")
    if "encrypted_data" in document:
        raise SettingsError(f"{name} is an encrypted state (OpenTofu); `tofu state pull` writes it in the clear")
    if "format_version" in document:
        kind = "plan" if "resource_changes" in document or "planned_values" in document else "state"
        raise SettingsError(f"{name} is a {kind} as `terraform show -json` prints it; {_PULL}")
    if isinstance(backend, dict) and not document.get("resources"):
        kind = str(backend.get("type"))[:40]
        raise SettingsError(f"{name} only points to a backend ({kind!r}), where the state is; {_PULL}")
    if "version" not in document:
        raise SettingsError(f"{name} has no `version`, so it is no state; {_PULL}")
    if isinstance(version, bool) or version != STATE_VERSION:
        shown = version if isinstance(version, int) and abs(version) < 1000 else type(version).__name__
        raise SettingsError(
            f"{name} is a state of version {shown}; only version {STATE_VERSION} is read (Terraform 0.12 and later). An older "
            "state is rewritten by `terraform apply -refresh-only` of a newer Terraform"
        )


def _part(resource: Any, key: str, where: str) -> str:
    value = resource.get(key) if isinstance(resource, dict) else None
    if not isinstance(value, str) or not value:
        raise SettingsError(f"{where}: `{key}` is missing; {_PULL}")
    return value


def _index(key: Any) -> str:
    if isinstance(key, str):
        return f"[{json.dumps(key)}]"
    return f"[{key}]" if isinstance(key, int) and not isinstance(key, bool) else ""


def _secret_outputs(outputs: Any) -> Iterator[str]:
    for output in outputs.values() if isinstance(outputs, dict) else []:
        if isinstance(output, dict) and output.get("sensitive"):
            yield from marked_texts(output.get("value"))
