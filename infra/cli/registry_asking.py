"""How `yidi institution` and `yidi mapping` ask: an operator the catalogue of a site, an
institution the front door of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import date
from typing import TypeVar

import typer
from google.protobuf.message import Message

from infra.cli.asking import echo, with_clients
from infra.cli.client import Clients
from infra.cli.filing_asking import AN_INSTITUTION, CALL_S, Caller, desk_of
from infra.local.processes import LocalNetworkError
from infra.runtime.clock import SystemClock, business_day
from yidi.catalog.v1 import registry_pb2_grpc
from yidi.gateway.v1 import catalog_desk_pb2_grpc

T = TypeVar("T")
SECONDS = CALL_S


@dataclass(frozen=True, slots=True)
class Registry:
    """The registry of one site as its caller reaches it."""

    clients: Clients
    caller: Caller
    site: str

    @property
    def agency(self) -> registry_pb2_grpc.RegistryServiceStub:
        """For operators; raise `LocalNetworkError` for anybody else."""
        if self.caller.institution:
            raise LocalNetworkError(
                f"--as institution/{self.caller.name}: only an operator of the site may do this"
            )
        kind = registry_pb2_grpc.RegistryServiceStub
        return self.clients.operator(kind, self.site, "catalog", self.caller.name)

    @property
    def door(self) -> catalog_desk_pb2_grpc.CatalogDeskServiceStub:
        """For institutions, which ask for themselves."""
        kind = catalog_desk_pb2_grpc.CatalogDeskServiceStub
        return self.clients.institution(kind, self.site, self.caller.name)


def asked(who: str, site: str | None, place: str, ask: Callable[[Registry], Awaitable[T]]) -> T:
    """What `ask` gets of the registry of `site`, else of the site of `place`: a pooling area or an
    institution's code."""
    caller = Caller.read(who)
    code = AN_INSTITUTION.fullmatch(place)

    async def act(clients: Clients) -> T:
        desk = desk_of(clients, caller, site, code["area"] if code else place)
        return await ask(Registry(clients, caller, desk.site))

    return asyncio.run(with_clients(act))


def today() -> str:
    """The day on the clocks of Asia/Shanghai, ISO."""
    return business_day(SystemClock().now_ms()).isoformat()


def span(start: str, end: str) -> str:
    """Two days as people read them; empty ones are open ends."""
    if not start and not end:
        return "长期"
    return f"{start or '……'} 至 {end}" if end else f"{start} 起"


def told(answer: Message, as_json: bool) -> bool:
    """Print the answer as JSON when that was asked for, and say so."""
    if as_json:
        echo(answer)
    return as_json


def day_of(text: str) -> str:
    """The day that `--day` names; raise `typer.BadParameter` when there is none."""
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no day such as 2026-01-31.") from None
