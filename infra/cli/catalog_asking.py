"""How `yidi catalog` asks: an operator, the catalogue of the site that has the list."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import typer

from infra.cli.asking import with_clients
from infra.cli.catalog_files import Listing
from infra.cli.client import Clients
from infra.local.processes import LocalNetworkError
from yidi.catalog.v1 import listing_pb2_grpc

T = TypeVar("T")
Area = Annotated[str, typer.Option("--area", help="Pooling area or province of the list.")]


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
