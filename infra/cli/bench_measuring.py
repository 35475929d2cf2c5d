"""What benches of a network of their own measure with: rates, times, a role's channel, SQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from infra.cli.client import Clients
from infra.local.supervisor import Network
from infra.runtime.clock import monotonic_us
from infra.runtime.config import load_settings
from infra.runtime.links import RemoteChannel
from infra.runtime.tls import SiteCertificates
from loadtests.settle import Load, Send, closed_loop

Progress = Callable[[str], None]


async def rate(asked: Load, send: Send, seconds: float, callers: int) -> float:
    """Requests answered a second; raise `RuntimeError` when one is refused."""
    await closed_loop(asked, [send], seconds=min(seconds / 5, 1.0), concurrency=callers)
    measured = await closed_loop(asked, [send], seconds=seconds, concurrency=callers)
    if measured.errors:
        raise RuntimeError(f"requests were refused: {measured.errors}")
    return measured.per_second


async def timed(work: Awaitable[Any]) -> float:
    """Seconds that `work` takes."""
    begun = monotonic_us()
    await work
    return (monotonic_us() - begun) / 1e6


@asynccontextmanager
async def channel_as(
    clients: Clients, site: str, caller: str, role: str
) -> AsyncIterator[RemoteChannel]:
    """How the role `caller` of a site reaches its role `role`."""
    at = clients.sites[site]
    channel = RemoteChannel.open(
        at.internal[role],
        SiteCertificates(at.tls).client(caller),
        site=site,
        message_bytes=at.settings.limits.message_bytes,
    )
    try:
        yield channel
    finally:
        await channel.close()


@asynccontextmanager
async def administrator(network: Network, site: str) -> AsyncIterator[asyncpg.Connection]:
    """PostgreSQL of a site, for data that no service writes."""
    at = load_settings(network.plan.site_file(site), {}).database
    connection = await asyncpg.connect(**at.admin_login())
    try:
        yield connection
    finally:
        await connection.close()
