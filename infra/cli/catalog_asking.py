"""How `yidi catalog` asks: an operator, the catalogue of the site that has the list."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import typer
from google.protobuf import json_format
from google.protobuf.message import Message
from rich.text import Text

from infra.cli.catalog_files import Listing
from infra.cli.client import Clients
from infra.cli.terminal import out
from infra.local.processes import LocalNetworkError
from infra.local.state import default_home
from yidi.catalog.v1 import listing_pb2_grpc

T = TypeVar("T")
Area = Annotated[str, typer.Option("--area", help="Pooling area or province of the list.")]
SiteCode = Annotated[str | None, typer.Option("--site", help="Province; looked for when left out.")]
As = Annotated[str, typer.Option("--as", metavar="NAME", help="Operator who acts.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the answer as proto JSON.")]


async def with_clients(act: Callable[[Clients], Awaitable[T]]) -> T:
    """What `act` does on the running network."""
    async with Clients.connect(default_home()) as clients:
        return await act(clients)


def asked(who: str, site: str | None, area: str, ask: Callable[[Listing], Awaitable[T]]) -> T:
    """What `ask` gets of the lists of `site`, else of the site that has `area`."""

    async def act(clients: Clients) -> T:
        return await ask(listing_at(clients, site_of(clients, site, area), who))

    return asyncio.run(with_clients(act))


def listing_at(clients: Clients, site: str, who: str) -> Listing:
    """The lists of `site` as its operator `who` reaches them."""
    return clients.operator(listing_pb2_grpc.ListingServiceStub, site, "catalog", who)


def site_of(clients: Clients, site: str | None, area: str) -> str:
    """The site asked for, else the one that has the pooling area or is the province."""
    found = site or clients.site_of_area(area) or (area if area in clients.provinces else None)
    if found is None:
        raise LocalNetworkError(f"{area} is no area of this network: say --site CODE")
    return clients.chosen(found)[0]


def show(answer: Message, lines: Text | list[Text], as_json: bool) -> None:
    """Print the answer as proto JSON, or the lines."""
    if as_json:
        typer.echo(json_format.MessageToJson(answer, ensure_ascii=False))
        return
    for line in lines if isinstance(lines, list) else [lines]:
        out().print(line, soft_wrap=True)
