"""A whole network for the end-to-end tests: the nation and three provinces, one for the session."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from subprocess import CompletedProcess

import pytest
from command import run_yidi
from disk import without_waiting

from infra.cli.starting import finish_start, prepare
from infra.local.supervisor import Network, temporary_network

Yidi = Callable[..., "CompletedProcess[str]"]


@pytest.fixture(scope="session")
def network() -> Iterator[Network]:
    """A running network with the sample data; `network.home` is its YIDI_HOME."""
    with temporary_network(prepare=without_waiting(prepare), on_healthy=finish_start) as running:
        yield running


@pytest.fixture(scope="session")
def yidi(network: Network) -> Yidi:
    """Runs the `yidi` command on the network, in this process: `yidi("demo", "--json")`."""

    return partial(run_yidi, network.home)
