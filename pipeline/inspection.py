"""Whether a preview's state may be destroyed with the clean-up role: plain functions of what stands in it.

`pulumi destroy` does what the state says: it starts the plugins that it names, configures them with the inputs that it holds
(a kubeconfig may name any command) and deletes the ids that it lists. A pull request can write its own state, so before
another role than its own destroys that, everything in it must be what infra/preview.py makes for this very number.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from infra.domains import preview_host
from infra.errors import Refused
from infra.fence import SECRET_PATH
from infra.kubernetes_client import kubeconfig
from infra.record import APPLICATION
from pipeline.state import PROJECT

Resource = Mapping[str, Any]

_SIGNATURE, _SECRET = "4dabf18193072939515e22adb298388d", "1b47061264138c4ac30d75fd1eb44270"
"""How the engine marks a value that is no plain one, and that it is a secret (pulumi/sdk, resource.SigKey, SecretSig)."""
_KEYS = frozenset(
    {
        "additionalSecretOutputs", "created", "custom", "customTimeouts", "delete", "deletedWith", "dependencies", "id",
        "initErrors", "inputs", "modified", "outputs", "parent", "pendingReplacement", "propertyDependencies", "provider",
        "resourceHooks", "sourcePosition", "stackTrace", "type", "urn",
    }
)  # fmt: skip
_PLAIN = ("pulumi:pulumi:Stack", "shopcat:index:Preview")
_PROVIDER = "pulumi:providers:"
_PROVIDERS = (f"{_PROVIDER}aws", f"{_PROVIDER}kubernetes")
_PLACE, _SECRET_TYPE, _GROUP, _RULE = (
    "aws:dynamodb/tableItem:TableItem",
    "aws:secretsmanager/secret:Secret",
    "aws:lb/targetGroup:TargetGroup",
    "aws:lb/listenerRule:ListenerRule",
)
_AWS_FLAGS = {"skipCredentialsValidation": "false", "skipRegionValidation": "true"}
"""What the SDK gives the provider by itself."""
_NAMESPACE = "kubernetes:core/v1:Namespace"
_INSIDE = frozenset(
    f"kubernetes:{kind}"
    for kind in (
        "apps/v1:Deployment",
        "core/v1:LimitRange",
        "core/v1:ResourceQuota",
        "core/v1:Service",
        "elbv2.k8s.aws/v1beta1:TargetGroupBinding",
        "external-secrets.io/v1:ExternalSecret",
        "external-secrets.io/v1:SecretStore",
        "networking.k8s.io/v1:NetworkPolicy",
        "rbac.authorization.k8s.io/v1:RoleBinding",
    )
)
TYPES = frozenset({*_PLAIN, *_PROVIDERS, _PLACE, _SECRET_TYPE, _GROUP, _RULE, _NAMESPACE, *_INSIDE})
"""Everything that infra/preview.py declares."""


@dataclass(frozen=True)
class Expected:
    """What this very preview's state may name."""

    number: int
    account: str
    contract: Mapping[str, Any]
    """As infra/contract.py publishes it."""
    endpoint: str | None
    """Of AWS, if it isn't AWS's own (the twin)."""

    @property
    def stack(self) -> str:
        """Name of the stack, and of the namespace."""
        return f"pr-{self.number}"

    @property
    def host(self) -> str:
        """The host of the preview."""
        return preview_host(self.stack, self.contract["previewDomain"])

    def arn(self, service: str, resource: str) -> str:
        """ARN of a resource in this account and region."""
        return f"arn:aws:{service}:{self.contract['region']}:{self.account}:{resource}"

    def kubeconfig(self) -> str:
        """As the program makes it of the contract; the very same text."""
        found = self.contract
        return kubeconfig(found["cluster"], found["clusterEndpoint"], found["clusterAuthority"], found["region"])


def portable(exported: Mapping[str, Any], secrets_provider: str) -> dict[str, Any]:
    """What `pulumi stack export` said, to be read by nobody but us: our key, our plugins, nothing that was under way.

    Raises:
        Refused: it is no state.
    """
    deployment = _mapping(exported.get("deployment"))
    manifest, secrets = _mapping(deployment.get("manifest")), _mapping(deployment.get("secrets_providers"))
    given = _mapping(secrets.get("state"))
    if secrets_provider == "passphrase":
        kind, kept = "passphrase", {"salt": given.get("salt")}
    else:
        kind, kept = "cloud", {"url": secrets_provider, "encryptedkey": given.get("encryptedkey")}
    return {
        **{key: exported[key] for key in ("version", "features") if key in exported},
        "deployment": {
            "manifest": {key: manifest[key] for key in ("time", "magic", "version") if key in manifest},
            "secrets_providers": {"type": kind, "state": kept},
            "resources": [_with_our_plugin(one) for one in _resources(deployment)],
        },
    }


def _with_our_plugin(one: Resource) -> Resource:
    """A pull request may have been brought up with other SDKs; what is installed here destroys what they made."""
    kind = one.get("type")
    if kind not in _PROVIDERS:
        return one
    inputs = {**_mapping(one.get("inputs")), "version": _installed(kind)}
    return {**one, "inputs": inputs, "outputs": inputs}


def _installed(kind: str) -> str:
    return version(f"pulumi-{kind.removeprefix(_PROVIDER)}")


def check(exported: Mapping[str, Any], expected: Expected, hosts: Callable[[str], Sequence[str] | None]) -> None:
    """Let pass what a preview of this number consists of, or a part of it, and nothing else.

    Args:
        exported: the state, by `pulumi stack export --show-secrets`.
        expected: whose it is said to be.
        hosts: the host names that a listener rule is for; None if there is no such rule.

    Raises:
        Refused: something else is in it; which, and what to do.
    """
    for one in _resources(_mapping(exported.get("deployment"))):
        try:
            reason = _foreign(one, expected, hosts)
        except RecursionError:
            reason = "is nested too deep"
        if reason:
            raise Refused(
                f"stack {expected.stack} is not destroyed: in its state, which its pull request can write, "
                f"{str(one.get('urn'))[:200]!r} of type {str(one.get('type'))[:100]!r} {reason}. Find out who put it there, "
                f"then delete what is left of {expected.stack} by hand, and `pulumi stack rm --force {expected.stack}`"
            )


def _foreign(one: Resource, expected: Expected, hosts: Callable[[str], Sequence[str] | None]) -> str:
    """Why a resource is none of this preview's; empty if it is one."""
    kind = one.get("type")
    if not isinstance(kind, str) or kind not in TYPES:
        return "is no part of a preview"
    unknown = sorted({*one} - _KEYS)
    if unknown:
        return f"has {', '.join(unknown)[:100]}"
    if {*_mapping(one.get("resourceHooks"))} - {"BeforeCreate"}:
        return "has hooks other than before its creation"
    urn = str(one.get("urn")).split("::")
    if len(urn) != 4 or urn[:2] != [f"urn:pulumi:{expected.stack}", PROJECT] or urn[2].rpartition("$")[2] != kind:
        return "has a URN of something else"
    if one.get("custom", False) is not (kind not in _PLAIN):
        return "is made by another provider than such a resource is"
    if kind in _PLAIN:
        return ""
    inputs, outputs = _mapping(_plain(one.get("inputs"))), _mapping(_plain(one.get("outputs")))
    if kind in _PROVIDERS:
        return _foreign_provider(kind, inputs, expected)
    wanted = f"urn:pulumi:{expected.stack}::{PROJECT}::{_PROVIDER}{kind.partition(':')[0]}::"
    if not str(one.get("provider")).startswith(wanted):
        return "names another provider than such a resource has"
    identifier, both = str(one.get("id")), (inputs, outputs)
    if kind.startswith("kubernetes:"):
        return _foreign_object(kind, identifier, both, expected.stack)
    return _foreign_in_aws(kind, identifier, both, expected, hosts)


def _foreign_provider(kind: str, inputs: Mapping[str, Any], expected: Expected) -> str:
    """Inputs as infra/providers.py gives them, but for the tags: those are for what is made, and nothing is made any more."""
    wanted: dict[str, Any] = {"version": _installed(kind)}
    given = {key: value for key, value in inputs.items() if (key, value) != ("__internal", {})}
    if kind == f"{_PROVIDER}kubernetes":
        flags = ("enableConfigMapMutable", "enableSecretMutable", "enableServerSideApply", "upsertExistingObjects")
        wanted |= {**dict.fromkeys(flags, "true"), "kubeconfig": expected.kubeconfig()}
    else:
        given.pop("defaultTags", None)
        if not _our_endpoints(given.pop("endpoints", "[]"), expected.endpoint):
            return "has other endpoints than this program gives it"
        wanted |= {"region": expected.contract["region"], **_AWS_FLAGS}
    differing = sorted(key for key in {*wanted, *given} if wanted.get(key) != given.get(key))
    return f"has another {', '.join(differing)[:100]} than this program gives it" if differing else ""


def _our_endpoints(text: Any, endpoint: str | None) -> bool:
    try:
        found = json.loads(text) if isinstance(text, str) else None
    except ValueError:
        return False
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        return False
    return all(value == endpoint for one in found for value in one.values())


def _foreign_object(kind: str, identifier: str, both: Sequence[Mapping[str, Any]], namespace: str) -> str:
    """In Kubernetes: the namespace itself, or what is in it; by id and by each copy of the object."""
    group, _, word = kind.removeprefix("kubernetes:").rpartition(":")
    api_version, place = group.removeprefix("core/"), None if kind == _NAMESPACE else namespace
    prefix, _, name = identifier.rpartition("/")
    if prefix != (place or "") or (place is None and name != namespace):
        return f"has the id {identifier[:200]!r}, which is not in namespace {namespace}"
    inputs, outputs = both
    for found in filter(None, (inputs, outputs, _mapping(inputs.get("__inputs")), _mapping(outputs.get("__inputs")))):
        metadata = _mapping(found.get("metadata"))
        is_this = (found.get("apiVersion"), found.get("kind"), metadata.get("name"), metadata.get("namespace"))
        if is_this != (api_version, word, name, place) or found.get("__initialApiVersion", api_version) != api_version:
            return f"describes another object than its id {identifier[:200]!r} names"
    return "" if inputs else "has no inputs"


def _foreign_in_aws(
    kind: str,
    identifier: str,
    both: Sequence[Mapping[str, Any]],
    expected: Expected,
    hosts: Callable[[str], Sequence[str] | None],
) -> str:
    """In AWS: ids that name the number, and a place and a rule that are this preview's."""
    for found in both:
        if found.get("region", expected.contract["region"]) != expected.contract["region"]:
            return "is in another region"
        if any(found.get(key, identifier) != identifier for key in ("arn", "id")):
            return f"has another id than {identifier[:200]!r}"
    if kind == _PLACE:
        table = expected.contract["placesTable"]
        keys = {"tableName": table, "hashKey": "place", "rangeKey": None}
        mine = all({key: found.get(key) for key in keys} == keys and _holder(found) == expected.stack for found in both)
        return "" if mine and identifier.startswith(f"{table}|") else "is not the place of this preview"
    listener = str(expected.contract["previewListenerArn"]).replace(":listener/", ":listener-rule/", 1)
    patterns = {
        _SECRET_TYPE: re.escape(expected.arn("secretsmanager", f"secret:{SECRET_PATH}/{expected.stack}/"))
        + r"[\w/+=.@-]+",
        _GROUP: re.escape(expected.arn("elasticloadbalancing", f"targetgroup/{APPLICATION}-{expected.stack}/"))
        + r"\w+",
        _RULE: re.escape(f"{listener}/") + r"\w+",
    }
    if not re.fullmatch(patterns[kind], identifier, re.ASCII):
        return f"has the id {identifier[:200]!r}, which is not this preview's"
    if kind == _RULE and hosts(identifier) not in (None, [expected.host]):
        return f"is the rule {identifier[:200]!r}, which is not for {expected.host}"
    return ""


def _holder(found: Mapping[str, Any]) -> Any:
    """Whose place it is."""
    try:
        return json.loads(found["item"])["stack"]["S"]
    except (KeyError, TypeError, ValueError):
        return None


def _resources(deployment: Mapping[str, Any]) -> list[Resource]:
    found = deployment.get("resources") or []
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise Refused("a state whose resources are no list of objects is no state")
    return found


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _plain(value: Any) -> Any:
    """Without the marks of secrets."""
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if not isinstance(value, dict):
        return value
    if value.get(_SIGNATURE) == _SECRET and isinstance(value.get("plaintext"), str):
        try:
            return _plain(json.loads(value["plaintext"]))
        except ValueError:
            return value
    return {key: _plain(one) for key, one in value.items()}
