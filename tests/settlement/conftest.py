"""A world of the nation, 北京 and 广东 on the real clock, shared by this folder: nobody
recovers in it, so that rows stay as they are and statements can be counted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from healing import Healing, healing_world
from world import World, make_pki, world

from infra.runtime.clock import SystemClock
from infra.runtime.config import Settings


@pytest.fixture(scope="session")
def sample_pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates of the sample sites."""
    return make_pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="session")
async def sites(
    database_settings: Callable[..., Settings], sample_pki: Path
) -> AsyncIterator[World]:
    """The nation and two provinces."""
    async with world(
        database_settings=database_settings,
        pki=sample_pki,
        clock=SystemClock(),
        limits={"recover": False},
    ) as made:
        yield made


@pytest.fixture(scope="session")
async def healing_site(
    database_settings: Callable[..., Settings], sample_pki: Path
) -> AsyncIterator[Healing]:
    """A world whose clock and recovery the tests move."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        async with healing_world(database_settings, sample_pki, monkeypatch) as made:
            yield made


@pytest.fixture
def healing(healing_site: Healing) -> Healing:
    """The same, with a neighbour that behaves."""
    healing_site.peer.reset()
    return healing_site
