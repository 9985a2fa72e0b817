"""A resource monitor for Pulumi programs that runs inside this process: no Pulumi CLI, no plugins, no account.

The Pulumi SDK hands every resource of a program to a resource monitor. The CLI's monitor is a gRPC server; this one is
an object. It builds the same URNs, refuses the same duplicates, runs transforms and keeps secrets marked. Without a
provider it previews: what only a cloud would know is unknown.
"""

import asyncio
import contextvars
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol
from urllib.parse import unquote, urlparse

import grpc
import pulumi.runtime
from google.protobuf import empty_pb2, struct_pb2
from pulumi.runtime import rpc
from pulumi.runtime.config import set_all_config
from pulumi.runtime.proto import alias_pb2, callback_pb2, callback_pb2_grpc, engine_pb2, resource_pb2
from pulumi.runtime.settings import SETTINGS
from pulumi.runtime.stack import run_in_stack

from contract.errors import PlatformError
from contract.paths import ROOT

STACK_TYPE = "pulumi:pulumi:Stack"
UNKNOWN = rpc.UNKNOWN
"""Stands in a preview for a value that only an up would know."""


class ProgramError(PlatformError):
    """A Pulumi program failed; the message names the resource and the line that created it."""


@dataclass(frozen=True)
class Secret:
    """A property value that must not be shown or stored as plain text."""

    value: Any

    def __repr__(self) -> str:
        return "[secret]"


@dataclass(frozen=True)
class Resource:
    """One registered resource: what the program asked for, and what came of it."""

    urn: str
    type: str
    name: str
    parent: str
    custom: bool
    inputs: dict[str, Any]
    dependencies: frozenset[str]
    property_dependencies: dict[str, frozenset[str]]
    protect: bool
    ignore_changes: tuple[str, ...]
    replace_on_changes: tuple[str, ...]
    delete_before_replace: bool
    retain_on_delete: bool
    secret_outputs: frozenset[str]
    source: str
    aliases: tuple[str, ...] = ()
    """URNs that the resource had before it was renamed or moved."""
    provider: str = ""
    """URN and id of the provider that makes it, joined by two colons, if it is not the package's default one."""
    id: str = ""
    outputs: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.type} {self.name!r} (created at {self.source})"


class Provider(Protocol):
    """What stands behind the custom resources of an up."""

    def apply(self, resource: Resource) -> tuple[str, dict[str, Any]]:
        """Make the resource be as its inputs say; return its id and its outputs."""


@dataclass
class Deployment:
    """What a run of a program registered."""

    resources: dict[str, Resource] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def of_type(self, type_: str) -> list[Resource]:
        """All resources of a type, such as `aws:s3/bucket:Bucket`, in the order of their URNs."""
        return [resource for _, resource in sorted(self.resources.items()) if resource.type == type_]

    def children(self, urn: str) -> list[Resource]:
        """The resources whose parent is `urn`, in the order of their URNs."""
        return [resource for _, resource in sorted(self.resources.items()) if resource.parent == urn]

    @property
    def stack(self) -> Resource:
        """The root of the tree."""
        return self.of_type(STACK_TYPE)[0]


def run(
    program: Callable[[], None],
    *,
    project: str,
    stack: str,
    config: Mapping[str, str],
    provider: Provider | None = None,
    foresee: Callable[[Resource], dict[str, Any]] | None = None,
) -> Deployment:
    """Run a Pulumi program.

    Args:
        program: declares resources; the body of a `__main__.py`.
        project: name of the Pulumi project.
        stack: name of the stack.
        config: full configuration keys (`namespace:key`) with their values, structured ones as JSON.
        provider: creates the resources; without one the run is a preview.
        foresee: what a preview can tell of a resource's outputs, beside its inputs.

    Raises:
        PlatformError: when the program, an `apply` in it, or the provider fails.
    """
    monitor = Monitor(project, stack, provider, foresee)

    def main() -> None:
        set_all_config(dict(config))
        pulumi.runtime.configure(
            pulumi.runtime.Settings(
                project=project,
                stack=stack,
                organization="organization",
                root_directory=str(ROOT),
                monitor=monitor,
                engine=Engine(monitor.deployment),
                dry_run=provider is None,
            )
        )
        asyncio.run(_run_to_the_end(program))

    contextvars.copy_context().run(main)  # the SDK's settings are context variables: runs cannot see each other
    return monitor.deployment


async def _run_to_the_end(program: Callable[[], None]) -> None:
    """Run the program; when it fails, let what is under way finish, then raise one error that says where it failed."""
    # One failure reaches many outputs; asyncio would print each of them again when they are collected.
    asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
    try:
        await run_in_stack(program)
    except Exception as error:
        if others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others, timeout=60)
        rpcs = SETTINGS.rpc_manager
        first, trace = rpcs.unhandled_exception or error, rpcs.exception_traceback or error.__traceback__
        raise first if isinstance(first, PlatformError) else ProgramError(_describe(first, trace)) from first


class Engine:
    """Takes the program's log messages."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment

    def Log(self, request: engine_pb2.LogRequest) -> empty_pb2.Empty:  # noqa: N802
        """Keep warnings and what the program says; the SDK's own debug messages go."""
        if request.severity in (engine_pb2.INFO, engine_pb2.WARNING):
            self._deployment.messages.append(request.message)
        return empty_pb2.Empty()


class Monitor:
    """Implements the calls of Pulumi's `ResourceMonitor` service that a Python program makes."""

    def __init__(
        self,
        project: str,
        stack: str,
        provider: Provider | None,
        foresee: Callable[[Resource], dict[str, Any]] | None,
    ) -> None:
        self.deployment = Deployment()
        self._project, self._stack, self._provider, self._foresee = project, stack, provider, foresee
        self._lock = threading.Lock()
        self._transforms: dict[str, list[callback_pb2.Callback]] = {"": []}
        self._parents: dict[str, str] = {}

    def GetDeploymentInfo(self, _: empty_pb2.Empty) -> resource_pb2.DeploymentInfo:  # noqa: N802
        """Tell the SDK what this monitor supports.

        Resource references are left out: a resource passed as a component's input would be looked up through an invoke,
        for which there is no answer during a preview.
        """
        features = ("SECRETS", "ALIAS_SPECS", "DELETED_WITH", "TRANSFORMS")
        return resource_pb2.DeploymentInfo(
            supportedFeatures=[getattr(resource_pb2, f"RESOURCE_MONITOR_FEATURE_{name}") for name in features]
        )

    def RegisterResource(  # noqa: N802
        self, request: resource_pb2.RegisterResourceRequest
    ) -> resource_pb2.RegisterResourceResponse:
        """Register a resource; in an up, have the provider make it."""
        urn = self._urn(request.parent, request.type, request.name)
        self._parents[urn] = request.parent
        self._transforms[urn] = list(request.transforms)
        for callback in self._transforms_for(urn):
            _transform(callback, request)
        resource = _resource(urn, request, tuple(self._former_urn(alias, request) for alias in request.aliases))
        with self._lock:
            if known := self.deployment.resources.get(urn):
                raise ProgramError(
                    f"two resources have the URN {urn}: one is created at {known.source}, the other at "
                    f"{resource.source}; give one of them another name"
                )
            self.deployment.resources[urn] = resource
        outputs = dict(resource.inputs)
        if resource.custom and self._provider:
            try:
                id_, outputs = self._provider.apply(resource)
            except Exception as error:
                raise ProgramError(f"{resource}: {error}") from error
            resource = replace(resource, id=id_)
        elif resource.custom and self._foresee:
            outputs |= self._foresee(resource)
        for name in resource.secret_outputs & outputs.keys():
            if not isinstance(outputs[name], Secret):
                outputs[name] = Secret(outputs[name])
        self.deployment.resources[urn] = replace(resource, outputs=outputs)
        return resource_pb2.RegisterResourceResponse(urn=urn, id=resource.id, object=_to_struct(outputs))

    def RegisterResourceOutputs(  # noqa: N802
        self, request: resource_pb2.RegisterResourceOutputsRequest
    ) -> empty_pb2.Empty:
        """Keep a component's outputs; those of the stack itself are the outputs of the deployment."""
        resource = self.deployment.resources[request.urn]
        outputs = _from_struct(request.outputs)
        self.deployment.resources[request.urn] = replace(resource, outputs=outputs)
        if resource.type == STACK_TYPE:
            self.deployment.outputs = outputs
        return empty_pb2.Empty()

    def RegisterStackTransform(self, request: callback_pb2.Callback) -> empty_pb2.Empty:  # noqa: N802
        """Keep a transform that applies to every resource registered from here on."""
        self._transforms[""].append(request)
        return empty_pb2.Empty()

    def Invoke(self, request: resource_pb2.ResourceInvokeRequest) -> None:  # noqa: N802
        """Refuse look-ups: an environment follows from its settings alone, so that a preview needs no account."""
        raise ProgramError(
            f"the program looks up {request.tok}; a program must not depend on a look-up: make the value a setting"
        )

    def ReadResource(self, request: resource_pb2.ReadResourceRequest) -> None:  # noqa: N802
        """Refuse to read resources that the program does not own."""
        raise ProgramError(f"the program reads {request.type} {request.name!r}; make its properties settings instead")

    def SignalAndWaitForShutdown(self, _: empty_pb2.Empty) -> empty_pb2.Empty:  # noqa: N802
        """Nothing is left to do once the program has run."""
        return empty_pb2.Empty()

    def _urn(self, parent: str, type_: str, name: str, stack: str = "", project: str = "") -> str:
        parent_type = parent.split("::")[2] if parent else ""
        qualified = f"{parent_type}${type_}" if parent_type not in ("", STACK_TYPE) else type_
        return f"urn:pulumi:{stack or self._stack}::{project or self._project}::{qualified}::{name}"

    def _former_urn(self, alias: alias_pb2.Alias, request: resource_pb2.RegisterResourceRequest) -> str:
        """The URN that an alias stands for: what it leaves out is as it is now."""
        if alias.urn:
            return str(alias.urn)
        parent = alias.spec.parentUrn or ("" if alias.spec.noParent else request.parent)
        return self._urn(
            parent,
            alias.spec.type or request.type,
            alias.spec.name or request.name,
            alias.spec.stack,
            alias.spec.project,
        )

    def _transforms_for(self, urn: str) -> Iterator[callback_pb2.Callback]:
        """The resource's own transforms, then those of its parents from the nearest up, then the stack's."""
        while urn:
            yield from self._transforms.get(urn, [])
            urn = self._parents.get(urn, "")
        yield from self._transforms[""]


_SHARED_OPTIONS = {  # name in TransformResourceOptions: name in RegisterResourceRequest
    "protect": "protect",
    "retain_on_delete": "retainOnDelete",
    "delete_before_replace": "deleteBeforeReplace",
    "depends_on": "dependencies",
    "ignore_changes": "ignoreChanges",
    "replace_on_changes": "replaceOnChanges",
    "additional_secret_outputs": "additionalSecretOutputs",
}


def _transform(callback: callback_pb2.Callback, request: resource_pb2.RegisterResourceRequest) -> None:
    """Let a transform of the program change the properties and options of `request`, in place."""
    options = resource_pb2.TransformResourceOptions()
    _copy_fields(request, options, {there: here for here, there in _SHARED_OPTIONS.items()})
    question = resource_pb2.TransformRequest(
        type=request.type,
        name=request.name,
        custom=request.custom,
        parent=request.parent,
        properties=request.object,
        options=options,
    )
    with grpc.insecure_channel(callback.target) as channel:
        answer = callback_pb2_grpc.CallbacksStub(channel).Invoke(
            callback_pb2.CallbackInvokeRequest(token=callback.token, request=question.SerializeToString())
        )
    response = resource_pb2.TransformResponse.FromString(answer.response)
    request.object.CopyFrom(response.properties)
    if response.HasField("options"):
        _copy_fields(response.options, request, _SHARED_OPTIONS)


def _copy_fields(source: Any, target: Any, names: Mapping[str, str]) -> None:
    for here, there in names.items():
        value = getattr(source, here)
        if hasattr(value, "extend"):
            del getattr(target, there)[:]
            getattr(target, there).extend(value)
        elif source.HasField(here) if source.DESCRIPTOR.fields_by_name[here].has_presence else value:
            setattr(target, there, value)


def _resource(urn: str, request: resource_pb2.RegisterResourceRequest, aliases: tuple[str, ...]) -> Resource:
    return Resource(
        urn=urn,
        type=request.type,
        name=request.name,
        parent=request.parent,
        custom=request.custom,
        inputs=_from_struct(request.object),
        dependencies=frozenset(request.dependencies),
        property_dependencies={name: frozenset(deps.urns) for name, deps in request.propertyDependencies.items()},
        protect=request.protect,
        ignore_changes=tuple(request.ignoreChanges),
        replace_on_changes=tuple(request.replaceOnChanges),
        delete_before_replace=request.deleteBeforeReplace,
        retain_on_delete=request.retainOnDelete,
        secret_outputs=frozenset(request.additionalSecretOutputs),
        source=_source(request),
        aliases=aliases,
        provider=request.provider,
    )


def _source(request: resource_pb2.RegisterResourceRequest) -> str:
    if not request.HasField("sourcePosition"):
        return "an unknown line"
    return _line(unquote(urlparse(request.sourcePosition.uri).path), request.sourcePosition.line)


def _line(filename: str, line: int | None) -> str:
    path = Path(filename)
    return f"{path.relative_to(ROOT) if path.is_relative_to(ROOT) else path}:{line}"


def _describe(error: BaseException, trace: TracebackType | None) -> str:
    """Say which resource or output an exception in the program belongs to.

    The SDK does not tell for which resource an `apply` was evaluated; the frame of its coroutine knows.
    """
    where, line = "the program", ""
    for frame, number in _frames(trace):
        if frame.f_code.co_name == "do_register" and "ty" in frame.f_locals:
            where = f"{frame.f_locals['ty']} {frame.f_locals['name']!r}"
            if position := frame.f_locals.get("source_position"):
                where += f" (created at {_line(unquote(urlparse(position.uri).path), position.line)})"
        elif frame.f_code.co_name == "do_register_resource_outputs":
            where = f"the outputs of {frame.f_locals['res']._name!r}"
        if not re.search("/(site-packages|lib/python3[^/]*)/|embedded/monitor.py$", frame.f_code.co_filename):
            line = _line(frame.f_code.co_filename, number)
    return f"{where}: {type(error).__name__}: {error}" + (f" (raised at {line})" if line else "")


def _frames(traceback: TracebackType | None) -> Iterator[tuple[Any, int]]:
    while traceback:
        yield traceback.tb_frame, traceback.tb_lineno
        traceback = traceback.tb_next


def _from_struct(struct: struct_pb2.Struct) -> dict[str, Any]:
    return {name: _from_value(value) for name, value in struct.fields.items()}


def _from_value(value: struct_pb2.Value) -> Any:
    match value.WhichOneof("kind"):
        case "struct_value":
            plain = _from_struct(value.struct_value)
            is_secret = plain.get(rpc._special_sig_key) == rpc._special_secret_sig
            return Secret(plain["value"]) if is_secret else plain
        case "list_value":
            return [_from_value(item) for item in value.list_value.values]
        case "number_value":
            number = value.number_value
            return int(number) if number.is_integer() else number
        case "null_value" | None:
            return None
        case kind:
            return getattr(value, kind)


def _to_struct(plain: Mapping[str, Any]) -> struct_pb2.Struct:
    struct = struct_pb2.Struct()
    for name, value in plain.items():
        struct.fields[name].CopyFrom(_to_value(value))
    return struct


def _to_value(plain: Any) -> struct_pb2.Value:
    match plain:
        case Secret():
            return _to_value({rpc._special_sig_key: rpc._special_secret_sig, "value": plain.value})
        case Mapping():
            return struct_pb2.Value(struct_value=_to_struct(plain))
        case list() | tuple():
            return struct_pb2.Value(list_value=struct_pb2.ListValue(values=[_to_value(item) for item in plain]))
        case bool():
            return struct_pb2.Value(bool_value=plain)
        case int() | float():
            return struct_pb2.Value(number_value=plain)
        case None:
            return struct_pb2.Value(null_value=struct_pb2.NULL_VALUE)
        case _:
            return struct_pb2.Value(string_value=str(plain))
