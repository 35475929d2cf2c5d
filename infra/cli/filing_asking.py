"""How `yidi filing` asks: options become what is asked, and it goes to the desk of the caller.

An institution calls the front door of its own site, an operator the desk of the insured site.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from google.protobuf import json_format
from google.protobuf.message import Message

from infra.cli.client import Clients
from infra.cli.filing_words import Names
from infra.cli.options import choice, shown
from infra.local.processes import LocalNetworkError
from infra.local.state import default_home
from infra.local.supervisor import OPERATOR
from yidi.common.v1 import types_pb2
from yidi.filing.v1 import desk_pb2, desk_pb2_grpc, filing_pb2
from yidi.gateway.v1 import filing_desk_pb2, filing_desk_pb2_grpc

CALL_S = 8.0
M = TypeVar("M", bound=Message)
_WHO = re.compile(r"(institution|operator)/([A-Za-z0-9][A-Za-z0-9_-]{0,39})")
AN_INSTITUTION = re.compile(r"[A-Z](?P<area>[0-9]{6})[0-9]{5}")
"""定点医药机构代码: a letter, the six digits of the district, a number."""


AskFile = Annotated[
    Path | None,
    typer.Option("--file", help="What is asked, as proto JSON; options go before what it says."),
]
Area = Annotated[str | None, typer.Option("--area", help="Pooling area of the insurance.")]
Insurance = Annotated[
    int | None,
    choice(types_pb2.InsuranceType.DESCRIPTOR, "--insurance", "employee or resident."),
]
Kind = Annotated[
    int | None, choice(types_pb2.FilingKind.DESCRIPTOR, "--kind", "Filing kind (备案类型).")
]
Channel = Annotated[
    int | None,
    choice(types_pb2.FilingChannel.DESCRIPTOR, "--channel", "The way it comes (备案渠道)."),
]
Place = Annotated[
    str | None, typer.Option("--place", help="Place of care: a pooling area or a province.")
]
Start = Annotated[
    str | None, typer.Option("--start", metavar="DATE", help="First day; today when left out.")
]
Materials = Annotated[
    list[int] | None,
    choice(filing_pb2.Material.DESCRIPTOR, "--material", "Material given; repeat for more."),
]
FilingId = Annotated[str | None, typer.Option("--filing", metavar="ID", help="The filing.")]
Version = Annotated[
    int | None, typer.Option("--version", help="Its version, as `yidi filing list` shows it.")
]
As = Annotated[
    str,
    typer.Option(
        "--as", help="institution/CODE (at its front door) or operator/NAME (at the desk)."
    ),
]
SiteCode = Annotated[
    str | None,
    typer.Option(
        "--site", help="Site to call: the institution's, or the insured one; found if not said."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the answer as proto JSON.")]
AN_OPERATOR = f"operator/{OPERATOR}"


def written(file: Path | None, ask: M, **fields: Any) -> M:
    """`ask` as FILE says, then with `fields` as `tell`; raise `LocalNetworkError` when the file
    cannot be read. What is missing is told by the desk, every field at once."""
    if file is not None:
        name = ask.DESCRIPTOR.name
        try:
            json_format.Parse(file.read_text(encoding="utf-8"), ask)
        except OSError as error:
            raise LocalNetworkError(f"cannot read {file}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise LocalNetworkError(f"{file} is not UTF-8 text") from error
        except json_format.ParseError as error:
            raise LocalNetworkError(f"{file} is not {name} in proto JSON: {error}") from error
    tell(ask, **fields)
    return ask


def tell(message: Message, **fields: Any) -> None:
    """Set the `fields` that are not None; a list replaces what was there."""
    told = {field: value for field, value in fields.items() if value is not None}
    for field in told:
        message.ClearField(field)
    message.MergeFrom(type(message)(**told))


def tell_applicant(
    applicant: desk_pb2.Applicant,
    credential: str | None,
    name: str | None,
    area: str | None,
    insurance: int | None,
) -> None:
    """What the options say of the person."""
    tell(applicant, insured_area=area, insurance=insurance)
    if credential is not None:
        applicant.credential.CopyFrom(shown(credential))
    tell(applicant.credential, name=name)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: an institution or an operator."""

    name: str
    institution: bool

    @classmethod
    def read(cls, who: str) -> Caller:
        """What `--as` says; raise `LocalNetworkError` when it says nothing."""
        match = _WHO.fullmatch(who)
        if match is None:
            raise LocalNetworkError(f"--as {who}: write institution/CODE or operator/NAME")
        return cls(match[2], match[1] == "institution")


@dataclass(frozen=True, slots=True)
class Desk:
    """The desk as its caller reaches it."""

    clients: Clients
    caller: Caller
    site: str

    async def ask(self, rpc: str, **fields: Any) -> Any:
        """The response of `rpc`, which both contracts have; a refusal is raised."""
        if self.caller.institution:
            requests: Any = filing_desk_pb2
            stub: Any = self.clients.institution(
                filing_desk_pb2_grpc.FilingDeskServiceStub, self.site, self.caller.name
            )
        else:
            requests = desk_pb2
            stub = self.clients.operator(
                desk_pb2_grpc.DeskServiceStub, self.site, "filing", self.caller.name
            )
        request = getattr(requests, f"{rpc}Request")(**fields)
        return await getattr(stub, rpc)(request, timeout=CALL_S)


def asked(who: str, site: str | None, area: str, rpc: str, **fields: Any) -> tuple[Any, Names]:
    """The response of `rpc` for a person of `area`, and the names of places for showing it."""
    caller = Caller.read(who)

    async def call() -> tuple[Any, Names]:
        async with Clients.connect(default_home()) as clients:
            desk = desk_of(clients, caller, site, area)
            return await desk.ask(rpc, **fields), names_of(clients)

    return asyncio.run(call())


def desk_of(clients: Clients, caller: Caller, site: str | None, area: str) -> Desk:
    """Where `caller` asks: at its own site, an operator at the site of `area`."""
    if site is not None:
        return Desk(clients, caller, *clients.chosen(site))
    if caller.institution:
        code = AN_INSTITUTION.fullmatch(caller.name)
        area = code["area"] if code else ""
    found = clients.site_of_area(area)
    if found is None:
        known = ", ".join(f"{code} {name}" for code, name in clients.provinces.items())
        what = f"institution {caller.name}" if caller.institution else f"area {area or '(none)'}"
        raise LocalNetworkError(
            f"{what} is in no province of this network; it has {known}: say --site CODE"
        )
    return Desk(clients, caller, found)


def names_of(clients: Clients) -> Names:
    """Code → name of what the network has."""
    areas = {
        area.code: area.name for at in clients.sites.values() for area in at.settings.site.areas
    }
    return {**clients.provinces, **areas}
