"""One network to break: a PostgreSQL per site, a process per role, failpoints, proxied ways."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from real_network import RealNetwork
from world import BEIJING, GUANGDONG, Patient

from infra.cli.client import Clients
from infra.cli.starting import prepare
from infra.local.network import SITES
from infra.local.supervisor import Network, temporary_network
from infra.runtime.config import NATION
from infra.runtime.failpoints import disarm
from loadtests.faults.injure import Injuries


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


@pytest.fixture(scope="session")
async def patient(breakable: RealNetwork) -> Patient:
    """Somebody of 湛江 who is filed for care in 北京; whoever settles shares the accumulators."""
    return (await breakable.patients(1))[0]


@pytest.fixture
async def healed(breakable: RealNetwork, patient: Patient) -> AsyncIterator[None]:
    """Whatever the test breaks is whole again for the next one, and every hop has noticed."""
    yield
    disarm(breakable.network.plan.failpoints_folder)
    Injuries(breakable.network).heal()
    await breakable.answers(patient)
