"""A network of real processes: two gateways and two settlements per province, one of each else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest
from disk import without_waiting
from real_network import RealNetwork
from world import BEIJING, GUANGDONG

from infra.cli.client import Clients
from infra.cli.seeding import prepare
from infra.local.network import SITES
from infra.local.postgres import SUPERUSER
from infra.local.supervisor import Network, temporary_network
from infra.runtime.config import NATION


@pytest.fixture(scope="session")
def network() -> Iterator[Network]:
    """The nation, 北京 and 广东 with `--split gateway,settlement,relay --replicas …=2`."""
    chosen = [site for site in SITES if site.code in (NATION, BEIJING, GUANGDONG)]
    with temporary_network(
        prepare=without_waiting(prepare),
        sites=chosen,
        split=("gateway", "settlement", "relay"),
        replicas={"gateway": 2, "settlement": 2},
    ) as running:
        yield running


@pytest.fixture(scope="session")
async def path(network: Network) -> AsyncIterator[RealNetwork]:
    """Callers of that network and the superuser's view of its databases."""
    async with Clients.connect(network.home) as clients:
        admins: dict[str, asyncpg.Connection] = {}
        for code, site in clients.sites.items():
            at = site.settings.database
            admins[code] = await asyncpg.connect(
                host=at.host,
                port=at.port,
                user=SUPERUSER,
                password=at.admin_password.get_secret_value(),
                database=at.name,
            )
        yield RealNetwork(network, clients, admins)
        for admin in admins.values():
            await admin.close()
