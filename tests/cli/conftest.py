"""A whole network for the commands: the nation and three provinces, where faults can be armed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from subprocess import CompletedProcess
from typing import Any

import asyncpg
import pytest
from command import run_yidi
from disk import without_waiting

from infra.cli.starting import finish_start, prepare
from infra.local.supervisor import Network, temporary_network
from infra.runtime.config import load_settings
from infra.runtime.failpoints import Action, Fault, Place, arm, disarm

Yidi = Callable[..., "CompletedProcess[str]"]
Sql = Callable[..., Any]
Losing = Callable[[], AbstractContextManager[None]]


@pytest.fixture(scope="session")
def network() -> Iterator[Network]:
    """A running network with the sample data; `network.home` is its YIDI_HOME."""
    with temporary_network(
        prepare=without_waiting(prepare), on_healthy=finish_start, failpoints=True
    ) as running:
        yield running


@pytest.fixture(scope="session")
def yidi(network: Network) -> Yidi:
    """Runs the `yidi` command on the network, in this process: `yidi("verify", "--json")`."""

    return partial(run_yidi, network.home)


@pytest.fixture(scope="session")
def sql(network: Network) -> Sql:
    """Runs a statement at a site as superuser, who may do what no role of the suite may."""

    def run(site: str, statement: str, *values: Any) -> Any:
        at = load_settings(network.plan.site_file(site), {}).database

        async def execute() -> Any:
            connection = await asyncpg.connect(**at.admin_login())
            try:
                return await connection.fetchval(statement, *values)
            finally:
                await connection.close()

        return asyncio.run(execute())

    return run


@pytest.fixture
def answers_lost(network: Network) -> Losing:
    """While entered, 广东 decides settlements and every answer is lost inside it."""

    @contextlib.contextmanager
    def losing() -> Iterator[None]:
        fault = Fault(
            place=Place.RELAY_INSURED_AFTER, action=Action.LOSE_ANSWER, times=0, site="440000"
        )
        arm(network.plan.failpoints_folder, "lost", fault)
        try:
            yield
        finally:
            disarm(network.plan.failpoints_folder)

    return losing
