"""One network to break: a PostgreSQL per site, a process per role, failpoints, proxied ways."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from real_network import RealNetwork
from world import BEIJING, GUANGDONG

from infra.cli.client import Clients
from infra.cli.starting import prepare
from infra.local.network import SITES
from infra.local.supervisor import Network, temporary_network
from infra.runtime.config import NATION


@pytest.fixture(scope="session")
def network() -> Iterator[Network]:
    """The nation, 北京 and 广东; gateway, settlement and relay each die alone."""
    with temporary_network(
        prepare=prepare,
        sites=[site for site in SITES if site.code in (NATION, BEIJING, GUANGDONG)],
        split=("gateway", "settlement", "relay"),
        postgres_per_site=True,
        proxied=True,
        failpoints=True,
    ) as running:
        yield running


@pytest.fixture(scope="session")
async def breakable(network: Network) -> AsyncIterator[RealNetwork]:
    """Callers of that network; its databases are asked anew each time, since they die too."""
    async with Clients.connect(network.home) as clients:
        yield RealNetwork(network, clients, {})
