"""Options that several groups of commands share, and how their texts are read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer
from google.protobuf.descriptor import EnumDescriptor

from infra.local.processes import LocalNetworkError
from infra.runtime.clock import SystemClock, new_id
from infra.runtime.types import chinese, national_code, short_name
from yidi.common.v1 import types_pb2, visit_pb2


def one_of(enum: EnumDescriptor) -> Callable[[str], int]:
    """Reads a value of `enum` by its short name, its national code or its Chinese name."""
    numbers = [number for number in enum.values_by_number if number]
    known = {
        spelt: number
        for number in numbers
        for spelt in (short_name(enum, number), chinese(enum, number), national_code(enum, number))
    }

    def read(text: str) -> int:
        if not text or text not in known:
            names = ", ".join(short_name(enum, number) for number in numbers)
            raise typer.BadParameter(f"{text!r} is none of {names}.")
        return known[text]

    return read


def choice(enum: EnumDescriptor, name: str, text: str) -> Any:
    return typer.Option(name, parser=one_of(enum), metavar="NAME", help=text)


Credential = Annotated[
    str | None,
    typer.Option(
        "--credential",
        metavar="TYPE:NUMBER",
        help="What the person shows: electronic:TOKEN, id_card:… or social_security_card:….",
    ),
]
Name = Annotated[str | None, typer.Option("--name", help="The name, as printed on a card.")]
SiteCode = Annotated[str | None, typer.Option("--site", help="Province; looked for when left out.")]
As = Annotated[str, typer.Option("--as", metavar="NAME", help="Operator who acts.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the answer as proto JSON.")]
RequestId = Annotated[
    str | None,
    typer.Option("--request-id", help="The same again gives the same answer; default: new."),
]


MOST_INT64 = (1 << 63) - 1
"""The greatest number that a message can hold."""


def new_request_id() -> str:
    """A request id that nobody has used."""
    return new_id(SystemClock())


def shown(credential: str) -> visit_pb2.Credential:
    """What a person shows, from TYPE:NUMBER; no error repeats it."""
    kind, _, number = credential.partition(":")
    try:
        type_ = types_pb2.CredentialType.ValueType(
            one_of(types_pb2.CredentialType.DESCRIPTOR)(kind)
        )
    except typer.BadParameter:
        number = ""
    if not number:
        raise LocalNetworkError(
            "--credential: write electronic:TOKEN, id_card:NUMBER or social_security_card:NUMBER"
        )
    return visit_pb2.Credential(type=type_, number=number)
