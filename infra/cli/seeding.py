"""What `yidi up` puts into a site before it serves: schemas, and the sample data once."""

from __future__ import annotations

import asyncio
from pathlib import Path

from infra.cli.roles import schemas
from infra.runtime.clock import SystemClock
from infra.runtime.config import Settings
from infra.runtime.database import Database
from infra.runtime.migrate import migrate
from services.catalog import load as catalog_load
from services.policy import loader as policy_loader

_SERVICES = Path(policy_loader.__file__).parent.parent


def prepare(settings: Settings) -> None:
    """Migrate the site's database, load its catalogue and policies; repeating changes nothing."""
    asyncio.run(_prepare(settings))


async def _prepare(settings: Settings) -> None:
    clock = SystemClock()
    await migrate(settings, schemas(settings), clock)
    if settings.is_nation:
        return
    async with Database.open(settings, "catalog") as database:
        samples = _SERVICES / "catalog" / "samples" / settings.site.code
        await catalog_load.load_catalogue(database, samples, clock)
    async with Database.open(settings, "policy") as database:
        areas = [area.code for area in settings.site.areas]
        documents = _SERVICES / "policy" / "documents"
        await policy_loader.load_documents(database, documents, clock, areas=areas)
