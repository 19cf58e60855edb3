"""The engine's ResourceProvider protocol over plain Python values, for all stand-in plugins.

A plugin subclasses :class:`Provider` and works with dictionaries. Property values are what JSON has; a value that is not
known yet (during a preview) is the string :data:`UNKNOWN`. Secrets: the engine strips them before it asks and marks the
same outputs again afterwards (``acceptSecrets`` is false).
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf import empty_pb2, struct_pb2
from pulumi.runtime.proto import (
    plugin_pb2,
    provider_pb2,
    provider_pb2_grpc,
)

UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
"""The engine's notation of a value that is not known yet (pulumi/pulumi sdk/go/common/resource/plugin/rpc.go)."""

DEFAULTS = "__defaults"
"""Upstream's list, among the inputs, of those that the provider made up. The stand-ins keep it of what was imported alone: empty,
so that the next update takes an imported name for one that was given by hand (pulumi/pulumi#9210)."""

_SIGNATURE = "4dabf18193072939515e22adb298388d"
_SECRET = "1b47061264138c4ac30d75fd1eb44270"
_MESSAGE_BYTES = 400 * 1024 * 1024

Properties = dict[str, Any]


class ProviderError(Exception):
    """An error whose message the engine shows to the user."""


@dataclass
class Difference:
    """Paths of the changed properties, and those of them that need a replacement."""

    changed: list[str] = field(default_factory=list)
    replaces: list[str] = field(default_factory=list)
    delete_before_replace: bool = False


def _decode_value(value: struct_pb2.Value) -> Any:  # noqa: PLR0911 - one line for each kind of value
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        fields = {name: _decode_value(item) for name, item in value.struct_value.fields.items()}
        if fields.get(_SIGNATURE) == _SECRET:
            return fields.get("value")
        return fields
    if kind == "list_value":
        return [_decode_value(item) for item in value.list_value.values]
    if kind == "number_value":
        number = value.number_value
        return int(number) if number.is_integer() else number
    if kind == "string_value":
        return value.string_value
    if kind == "bool_value":
        return value.bool_value
    return None


def decode(message: struct_pb2.Struct) -> Properties:
    """A property map as plain Python values; secrets unwrapped, nulls dropped."""
    properties = {name: _decode_value(value) for name, value in message.fields.items()}
    return {name: value for name, value in properties.items() if value is not None}


def _encode_value(value: Any) -> struct_pb2.Value:
    if value is None:
        return struct_pb2.Value(null_value=struct_pb2.NULL_VALUE)
    if isinstance(value, bool):
        return struct_pb2.Value(bool_value=value)
    if isinstance(value, int | float):
        return struct_pb2.Value(number_value=value)
    if isinstance(value, Mapping):
        return struct_pb2.Value(struct_value=encode(value))
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return struct_pb2.Value(list_value=struct_pb2.ListValue(values=[_encode_value(item) for item in value]))
    return struct_pb2.Value(string_value=str(value))


def encode(properties: Mapping[str, Any]) -> struct_pb2.Struct:
    """A property map for the engine."""
    return struct_pb2.Struct(fields={name: _encode_value(value) for name, value in properties.items()})


def differing(old: Any, new: Any, path: str = "") -> list[str]:
    """Paths at which two values differ, in Pulumi's own notation (``a.b[0]``)."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        paths = []
        for name in [*old, *(key for key in new if key not in old)]:
            if name == DEFAULTS:
                continue
            inner = f"{path}.{name}" if path else str(name)
            paths += differing(old.get(name), new.get(name), inner)
        return paths
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [p for i, (a, b) in enumerate(zip(old, new, strict=True)) for p in differing(a, b, f"{path}[{i}]")]
    return [] if old == new else [path]


def prune(live: Any, like: Any) -> Any:
    """The live value reduced to what the inputs declare, so that a refresh shows drift and nothing else.

    APIs leave out what is false, zero or empty; such an input counts as unchanged when it is missing.
    """
    if isinstance(live, Mapping) and isinstance(like, Mapping):
        return {
            key: prune(live[key], value) if key in live else value
            for key, value in like.items()
            if key in live or not value
        }
    if isinstance(live, list) and isinstance(like, list) and len(live) == len(like):
        return [prune(item, other) for item, other in zip(live, like, strict=True)]
    return live


def merged(old: Any, new: Any) -> Any:
    """Return the outputs known before an update: new inputs over the old outputs, also nested."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return {**old, **{key: merged(old.get(key), value) for key, value in new.items()}}
    return new


class Provider:
    """A plugin's logic over plain values. Errors are ProviderErrors; anything else is a bug and says so."""

    name = ""
    version = ""

    def configure(self, settings: Properties) -> None:
        """Take the provider resource's inputs."""

    def check(self, type_name: str, urn: str, old: Properties, new: Properties, seed: bytes) -> Properties:
        """Inputs with defaults. Raises ProviderError for what is refused."""
        raise NotImplementedError

    def difference(
        self, type_name: str, identifier: str, old_inputs: Properties, outputs: Properties, new: Properties
    ) -> Difference:
        """Return what an update would change."""
        raise NotImplementedError

    def create(self, type_name: str, urn: str, inputs: Properties, timeout: float) -> tuple[str, Properties]:
        """Make it; returns id and outputs."""
        raise NotImplementedError

    def preview(self, type_name: str, inputs: Properties, outputs: Properties) -> Properties:
        """Outputs as far as they are known before an update; computed ones of a new resource are left out."""
        del type_name
        known: Properties = merged(outputs, inputs)
        return known

    def read(
        self, type_name: str, identifier: str, inputs: Properties, outputs: Properties
    ) -> tuple[str, Properties, Properties] | None:
        """Return the id in the state, live inputs and outputs, or None when it is gone; without outputs it is an import."""
        raise NotImplementedError

    def update(
        self,
        type_name: str,
        identifier: str,
        old_inputs: Properties,
        outputs: Properties,
        new: Properties,
        timeout: float,
    ) -> Properties:
        """Change it; returns outputs."""
        raise NotImplementedError

    def delete(self, type_name: str, identifier: str, inputs: Properties, outputs: Properties, timeout: float) -> None:
        """Delete it; gone already is fine."""
        raise NotImplementedError

    def invoke(self, token: str, arguments: Properties) -> Properties:
        """Call a function."""
        del arguments
        raise ProviderError(f"twin: function {token} is not implemented by the stand-in of the {self.name} plugin")

    def explain(self, error: Exception) -> str | None:
        """A message for an error of a library the plugin uses; None for a bug."""
        del error
        return None


class _Servicer(provider_pb2_grpc.ResourceProviderServicer):
    """The engine's protocol on one side, a :class:`Provider` on the other."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    def _fail(self, context: grpc.ServicerContext, error: Exception) -> Any:
        message = str(error) if isinstance(error, ProviderError) else self._provider.explain(error)
        if message is None:
            import traceback

            traceback.print_exc()
            message = f"twin: the stand-in of the {self._provider.name} plugin has a fault: {error!r}"
        return context.abort(grpc.StatusCode.UNKNOWN, message)

    def _guard(self, context: grpc.ServicerContext, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except Exception as error:
            return self._fail(context, error)

    def Handshake(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        del request, context
        return provider_pb2.ProviderHandshakeResponse(
            accept_secrets=False, accept_resources=False, accept_outputs=False, supports_autonaming_configuration=False
        )

    def GetPluginInfo(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        del request, context
        return plugin_pb2.PluginInfo(version=self._provider.version)

    def Attach(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        del request, context
        return empty_pb2.Empty()

    def GetSchema(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        del request, context
        return provider_pb2.GetSchemaResponse(schema="{}")

    def GetMapping(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        del request, context
        return provider_pb2.GetMappingResponse()

    def CheckConfig(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        del context
        return provider_pb2.CheckResponse(inputs=request.news)

    def DiffConfig(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        def work() -> Any:
            changed = differing(decode(request.old_inputs), decode(request.news))
            kind = provider_pb2.DiffResponse
            return kind(changes=kind.DIFF_SOME if changed else kind.DIFF_NONE, diffs=changed)

        return self._guard(context, work)

    def Configure(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        def work() -> Any:
            self._provider.configure(decode(request.args))
            return provider_pb2.ConfigureResponse(
                acceptSecrets=False, supportsPreview=True, acceptResources=False, acceptOutputs=False
            )

        return self._guard(context, work)

    def Check(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        def work() -> Any:
            type_name = _type_of(request.urn)
            inputs = self._provider.check(
                type_name, request.urn, decode(request.olds), decode(request.news), request.randomSeed
            )
            return provider_pb2.CheckResponse(inputs=encode(inputs))

        return self._guard(context, work)

    def Diff(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        def work() -> Any:
            difference = self._provider.difference(
                _type_of(request.urn),
                request.id,
                decode(request.old_inputs),
                decode(request.olds),
                decode(request.news),
            )
            kind = provider_pb2.DiffResponse
            detailed = {}
            property_diff = provider_pb2.PropertyDiff
            for path in difference.changed:
                replaced = path in difference.replaces
                detailed[path] = property_diff(
                    kind=property_diff.UPDATE_REPLACE if replaced else property_diff.UPDATE, inputDiff=True
                )
            return kind(
                changes=kind.DIFF_SOME if difference.changed else kind.DIFF_NONE,
                replaces=difference.replaces,
                diffs=sorted({path.split(".")[0].split("[")[0] for path in difference.changed}),
                deleteBeforeReplace=difference.delete_before_replace,
                detailedDiff=detailed,
                hasDetailedDiff=True,
            )

        return self._guard(context, work)

    def Create(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        def work() -> Any:
            inputs = decode(request.properties)
            type_name = _type_of(request.urn)
            if request.preview:
                outputs = self._provider.preview(type_name, inputs, {})
                return provider_pb2.CreateResponse(properties=encode(outputs))
            identifier, outputs = self._provider.create(type_name, request.urn, inputs, request.timeout)
            return provider_pb2.CreateResponse(id=identifier, properties=encode(outputs))

        return self._guard(context, work)

    def Read(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        def work() -> Any:
            state = self._provider.read(
                _type_of(request.urn), request.id, decode(request.inputs), decode(request.properties)
            )
            if state is None:
                return provider_pb2.ReadResponse(id="")
            identifier, inputs, outputs = state
            return provider_pb2.ReadResponse(id=identifier, properties=encode(outputs), inputs=encode(inputs))

        return self._guard(context, work)

    def Update(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        def work() -> Any:
            new, outputs = decode(request.news), decode(request.olds)
            type_name = _type_of(request.urn)
            if request.preview:
                return provider_pb2.UpdateResponse(properties=encode(self._provider.preview(type_name, new, outputs)))
            outputs = self._provider.update(
                type_name, request.id, decode(request.old_inputs), outputs, new, request.timeout
            )
            return provider_pb2.UpdateResponse(properties=encode(outputs))

        return self._guard(context, work)

    def Delete(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        def work() -> Any:
            self._provider.delete(
                _type_of(request.urn),
                request.id,
                decode(request.old_inputs),
                decode(request.properties),
                request.timeout,
            )
            return empty_pb2.Empty()

        return self._guard(context, work)

    def Invoke(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        def work() -> Any:
            answer = self._provider.invoke(request.tok, decode(request.args))
            response = provider_pb2.InvokeResponse()
            getattr(response, "return").CopyFrom(encode(answer))
            return response

        return self._guard(context, work)

    def Construct(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        text = f"twin: component {request.type} is not implemented by the stand-in of the {self._provider.name} plugin"
        return self._fail(context, ProviderError(text))

    def Call(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        text = f"twin: method {request.tok} is not implemented by the stand-in of the {self._provider.name} plugin"
        return self._fail(context, ProviderError(text))

    def Cancel(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        del request, context
        return empty_pb2.Empty()


def _type_of(urn: str) -> str:
    """``urn:pulumi:prod::shopcat::a$b$aws:ec2/vpc:Vpc::main`` → ``aws:ec2/vpc:Vpc``."""
    return urn.split("::")[2].rpartition("$")[2]


def serve(provider: Provider, *, workers: int = 64) -> None:
    """Listen, tell the engine the port on standard output, and serve until the engine goes away."""
    engine = os.getppid()  # asked before it hears of us: from then on it may die at any moment
    options = [("grpc.max_receive_message_length", _MESSAGE_BYTES), ("grpc.max_send_message_length", _MESSAGE_BYTES)]
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=workers), options=options)
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(_Servicer(provider), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    gc.freeze()  # modules live until the end; a plugin's own start turns collecting off while it loads them
    gc.enable()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    while not stop.wait(1.0):
        if os.getppid() != engine:  # it died without a word
            break
    with contextlib.suppress(Exception):
        server.stop(grace=0.5)
