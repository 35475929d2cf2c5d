"""A world of the nation, 北京 and 广东 on the real clock, shared by this folder."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
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
        database_settings=database_settings, pki=sample_pki, clock=SystemClock()
    ) as made:
        yield made
