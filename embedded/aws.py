"""The emulated AWS as the provider of an up: creates, updates, replaces and deletes resources through boto3.

How a resource type maps to AWS operations is data, in `embedded/resources/`. A type that has no row there is only
recorded, and listed as such.
"""

import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from threading import Lock
from typing import Any

import boto3
from botocore.exceptions import ClientError

from embedded.calls import camel_case, fit
from embedded.monitor import Resource, Secret
from embedded.resources import ROWS
from embedded.resources.row import ACCOUNT, TAGGING, Call, Row
from embedded.state import Held, State


@dataclass
class Step:
    """One thing that an up did to a resource: create, update, replace, delete, keep, or same for nothing."""

    action: str
    urn: str
    type: str
    note: str = ""


@dataclass
class EmulatedAws:
    """Provisions into the emulated AWS at `endpoint` and keeps `state` in step with it."""

    endpoint: str
    region: str
    state: State
    on_step: Callable[[Step], None] = lambda _: None
    steps: list[Step] = field(default_factory=list)
    _clients: dict[str, Any] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def apply(self, resource: Resource) -> tuple[str, dict[str, Any]]:
        """Make one resource be as the program wants it; see `monitor.Provider`."""
        old = self.state.take_over(resource.urn, resource.aliases)
        inputs = dict(resource.inputs)
        if old:
            inputs |= {name: old.inputs[name] for name in resource.ignore_changes if name in old.inputs}
        row = ROWS.get(resource.type)
        if old and old.inputs == inputs:
            self._did("same", resource.urn, resource.type)
            return old.id, old.outputs
        if row is None:
            held = Held(
                resource.urn, resource.type, f"recorded-only-{resource.name}", inputs, inputs, recorded_only=True
            )
            self._did("update" if old else "create", resource.urn, resource.type, "recorded only")
        elif old is None:
            held = self._create(row, resource, inputs)
            self._did("create", resource.urn, resource.type)
        elif calls := _calls_in_place(row, old.inputs, inputs):
            for call in calls:
                self._call(row.service, call, row.prepared({**old.outputs, **inputs, "id": old.id}))
            held = Held(old.urn, old.type, old.id, inputs, {**old.outputs, **inputs}, not_sent=old.not_sent)
            self._did("update", resource.urn, resource.type)
        else:
            held = self._replace(row, resource, old, inputs)
        self.state.put(held)
        return held.id, held.outputs

    def finish(self, registered: Iterable[str]) -> None:
        """Delete what the program replaced or dropped, the youngest first; a bucket that holds objects is kept."""
        gone = [held for urn, held in self.state.resources.items() if urn not in set(registered)]
        with self.state.lock:
            self.state.to_delete += [held for held in gone if held not in self.state.to_delete]
            for held in gone:
                del self.state.resources[held.urn]
            self.state.save()
        for held in reversed(self.state.to_delete.copy()):
            if held.type == "aws:s3/bucket:Bucket" and self._holds_objects(held.id):
                self._did(
                    "keep", held.urn, held.type, f"bucket {held.id} still holds objects; empty it to have it deleted"
                )
                continue
            self._delete(held)
            self._did("delete", held.urn, held.type)

    def client(self, service: str) -> Any:
        """A boto3 client of the emulated AWS."""
        with self._lock:
            if service not in self._clients:
                self._clients[service] = self._session.client(
                    service,
                    endpoint_url=self.endpoint,
                    region_name=self.region,
                    aws_access_key_id="emulated",
                    aws_secret_access_key="emulated",
                )
            return self._clients[service]

    @cached_property
    def _session(self) -> Any:
        return boto3.Session()

    def _create(self, row: Row, resource: Resource, inputs: dict[str, Any], old: Held | None = None) -> Held:
        properties = dict(inputs)
        if row.auto_name and row.auto_name not in properties:
            properties[row.auto_name] = f"{resource.name}-{secrets.token_hex(4)[:7]}"
        properties = row.prepared(properties)
        if row.linked_role:
            properties.setdefault("serviceRole", self._linked_role(row.linked_role))
        try:
            answer, homeless = self._call(row.service, row.create, properties)
        except ClientError as error:
            if not re.search("Exist|Already|Conflict", error.response["Error"]["Code"]) or not row.delete:
                raise
            # In the way is the one to be replaced, or what a run that was killed made but could not write down.
            id_ = str(expand(row.id, properties | self._facts))
            self._delete(old or Held(resource.urn, resource.type, id_, inputs, properties))
            answer, homeless = self._call(row.service, row.create, properties)
        outputs = _described(answer[row.answer] if row.answer else answer)
        outputs |= {name: value for name, value in properties.items() if not isinstance(value, bytes)} | inputs
        outputs["id"] = id_ = str(expand(row.id, outputs | self._facts))
        outputs |= {name: expand(text, outputs | self._facts) for name, text in row.outputs.items()}
        if row.unasked:
            outputs |= row.unasked(self.client, outputs)
        for call in (*row.then, *([TAGGING[row.service]] if "tags" in homeless and row.service in TAGGING else [])):
            if set(call.takes) <= outputs.keys():
                self._call(row.service, call, outputs)
                homeless -= set(call.takes)
        homeless -= row.no_effect
        return Held(
            resource.urn,
            resource.type,
            id_,
            inputs,
            outputs,
            not_sent=(*sorted(homeless), *(text for name, text in row.left_out.items() if name in inputs)),
        )

    def _linked_role(self, service: str) -> str:
        """ARN of the role that AWS makes for a service when it is first used."""
        iam = self.client("iam")
        with self._lock:
            made = iam.list_roles(PathPrefix=f"/aws-service-role/{service}/")["Roles"]
            role = made[0] if made else iam.create_service_linked_role(AWSServiceName=service)["Role"]
        return str(role["Arn"])

    def _replace(self, row: Row, resource: Resource, old: Held, inputs: dict[str, Any]) -> Held:
        """Create the new one and leave the old one to `finish`, unless there cannot be both at a time."""
        same_name = not row.auto_name and expand(row.id, inputs | self._facts) == old.id
        if resource.delete_before_replace or same_name:
            self._delete(old)
            held = self._create(row, resource, inputs)
        else:
            with self.state.lock:
                self.state.to_delete.append(old)
            held = self._create(row, resource, inputs, old)
        self._did("replace", resource.urn, resource.type)
        return held

    def _delete(self, held: Held) -> None:
        row = ROWS.get(held.type)
        deletes = row.delete if row else ()
        for call in (deletes,) if isinstance(deletes, Call) else deletes:
            try:
                self._call(ROWS[held.type].service, call, {**held.outputs, "id": held.id}, only_required=not call.takes)
            except ClientError as error:
                if not re.search("NotFound|NoSuch|NotExist|Unknown", error.response["Error"]["Code"]):
                    raise
        self.state.drop(held)

    def _holds_objects(self, bucket: str) -> bool:
        versions = self.client("s3").list_object_versions(Bucket=bucket, MaxKeys=1)
        return bool(versions.get("Versions"))

    def _call(
        self, service: str, call: Call, properties: Mapping[str, Any], only_required: bool = False
    ) -> tuple[dict[str, Any], set[str]]:
        client = self.client(service)
        shape = client.meta.service_model.operation_model(call.operation).input_shape
        given = {name: expand(template, {**properties, **self._facts}) for name, template in call.parameters.items()}
        named = {call.rename.get(n, n): v for n, v in properties.items() if not call.takes or n in call.takes}
        parameters, homeless = fit(shape, named)
        parameters |= fit(shape, given)[0]
        if only_required:
            parameters = {name: parameters.get(name, properties.get("id")) for name in shape.required_members} | {
                name: parameters[name] for name in given
            }
        back = {new: old for old, new in call.rename.items()}
        operation = re.sub("(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", call.operation).lower()
        return getattr(client, operation)(**parameters), {back.get(name, name) for name in homeless}

    @property
    def _facts(self) -> dict[str, str]:
        return {"region": self.region, "account": ACCOUNT}

    def _did(self, action: str, urn: str, type_: str, note: str = "") -> None:
        step = Step(action, urn, type_, note)
        self.steps.append(step)
        self.on_step(step)


def expand(template: Any, values: Mapping[str, Any]) -> Any:
    """Fill `{name}` placeholders; a text that is one placeholder becomes the value itself, whatever its type."""
    match template:
        case Mapping():
            return {name: expand(part, values) for name, part in template.items()}
        case list():
            return [expand(part, values) for part in template]
        case str() if whole := re.fullmatch(r"\{(\w+)\}", template):
            value = values.get(whole[1])
            return value.value if isinstance(value, Secret) else value
        case str():
            return re.sub(r"\{(\w+)\}", lambda m: str(values.get(m[1], "")), template)
        case _:
            return template


def _calls_in_place(row: Row, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Call]:
    """The calls that bring a resource from its old inputs to the new ones, or none if that takes a replacement."""
    changed = {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}
    if row.put:
        return [] if changed & row.identity else [row.create]
    ways = dict(row.update)
    if row.service in TAGGING:
        ways.setdefault("tags", TAGGING[row.service])
    if not changed <= ways.keys():
        return []
    return list({ways[name].operation: ways[name] for name in sorted(changed)}.values())


def _described(answer: Mapping[str, Any]) -> dict[str, Any]:
    """The plain values in an answer, spelt as Pulumi spells them; a list of one counts as what is in it."""
    values: dict[str, Any] = {}
    for name, value in camel_case(answer).items():
        only = value[0] if isinstance(value, list) and len(value) == 1 else value
        if isinstance(only, str | int | float):
            values[name] = only
        elif isinstance(only, Mapping) and isinstance(value, list):
            values = _described(only) | values
    return values
