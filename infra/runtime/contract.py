"""What the contracts say, read from their descriptors once: methods, access, owners, batches.

Batch convention: the request is `repeated items` whose field 1 is `string id`, the response
`repeated results` keyed by `id` with `google.rpc.Status error = 15`. One invalid or foreign item
then fails alone, whatever the service.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor, ServiceDescriptor
from google.protobuf.message import Message

from yidi.common.v1 import options_pb2

CallerKind = options_pb2.CallerKind
Owner = options_pb2.Owner
REVISION = 1
"""The contract revision that this code speaks."""


@dataclass(frozen=True, slots=True)
class AcceptedCaller:
    """One kind of caller that a method accepts."""

    kind: options_pb2.CallerKind.ValueType
    roles: frozenset[str]


@dataclass(frozen=True, slots=True)
class Method:
    """One method of a contract."""

    path: str
    """Path on the wire, `/yidi.policy.v1.PolicyService/BatchCompute`."""
    service: str
    """Full name of the service."""
    name: str
    request: type[Message]
    response: type[Message]
    callers: tuple[AcceptedCaller, ...]
    item: type[Message] | None
    """For a batch: the type of its items."""
    result: type[Message] | None
    """For a batch: the type of its results."""


def methods(service: ServiceDescriptor) -> tuple[Method, ...]:
    """Every method of a service; a method without access option is a fault of the contract."""
    return tuple(_method(service, name) for name in service.methods_by_name)


def _method(service: ServiceDescriptor, name: str) -> Method:
    described = service.methods_by_name[name]
    options = described.GetOptions()
    if not options.HasExtension(options_pb2.access):
        raise ValueError(f"{service.full_name}.{name} has no access option")
    request, response = described.input_type, described.output_type
    batch = "items" in request.fields_by_name and "results" in response.fields_by_name
    return Method(
        path=f"/{service.full_name}/{name}",
        service=service.full_name,
        name=name,
        request=message_factory.GetMessageClass(request),
        response=message_factory.GetMessageClass(response),
        callers=tuple(
            AcceptedCaller(caller.kind, frozenset(caller.roles))
            for caller in options.Extensions[options_pb2.access].callers
        ),
        item=_class_of(request.fields_by_name["items"]) if batch else None,
        result=_class_of(response.fields_by_name["results"]) if batch else None,
    )


def _class_of(field: FieldDescriptor) -> type[Message]:
    return message_factory.GetMessageClass(_nested(field))


def _nested(field: FieldDescriptor) -> Descriptor:
    if field.message_type is None:
        raise ValueError(f"{field.full_name} is not a message")
    return field.message_type


@dataclass(frozen=True, slots=True)
class OwnedField:
    """A field that holds a code which somebody must own."""

    path: str
    owner: options_pb2.Owner.ValueType
    read: Callable[[Any], str]


@cache
def owned_fields(descriptor: Descriptor) -> tuple[OwnedField, ...]:
    """The fields of a message, nested ones included, that carry `owned_by`.

    Repeated messages are not walked: no contract puts an owned code there, and a test says so.
    """
    return tuple(_owned(descriptor, (), frozenset()))


def _owned(
    descriptor: Descriptor, path: tuple[str, ...], seen: frozenset[str]
) -> Iterator[OwnedField]:
    for field in descriptor.fields:
        here = (*path, field.name)
        owner = field.GetOptions().Extensions[options_pb2.owned_by]
        if owner != Owner.OWNER_UNSPECIFIED:
            yield OwnedField(".".join(here), owner, _reader(here))
        elif (
            field.message_type is not None
            and not field.is_repeated
            and field.message_type.full_name not in seen
        ):
            yield from _owned(field.message_type, here, seen | {descriptor.full_name})


def _reader(path: tuple[str, ...]) -> Callable[[Any], str]:
    def read(message: Any) -> str:
        for name in path[:-1]:
            if not message.HasField(name):
                return ""
            message = getattr(message, name)
        return str(getattr(message, path[-1]))

    return read
