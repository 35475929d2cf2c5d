"""What `yidi up` puts into a site before it serves: schemas, and the sample data once."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from infra.cli.roles import schemas
from infra.runtime.clock import Clock, SystemClock
from infra.runtime.config import Settings
from infra.runtime.database import Database
from infra.runtime.migrate import migrate
from services.catalog import load as catalog_load
from services.catalog.samples import full
from services.policy import loader as policy_loader

_SERVICES = Path(policy_loader.__file__).parent.parent


def prepare(settings: Settings, *, whole_lists: bool = False) -> None:
    """Migrate the site's database, load its catalogue and policies; repeating changes nothing.

    With `whole_lists` the catalogue has the size of a real one, where the samples have that.
    """
    asyncio.run(_prepare(settings, whole_lists))


async def _prepare(settings: Settings, whole_lists: bool) -> None:
    clock = SystemClock()
    await migrate(settings, schemas(settings), clock)
    if settings.is_nation:
        return
    async with Database.open(settings, "catalog") as database:
        await load_samples(database, settings.site.code, clock, whole_lists=whole_lists)
    async with Database.open(settings, "policy") as database:
        areas = [area.code for area in settings.site.areas]
        documents = _SERVICES / "policy" / "documents"
        await policy_loader.load_documents(database, documents, clock, areas=areas)


async def load_samples(
    database: Database, site: str, clock: Clock, *, whole_lists: bool = False
) -> None:
    """The catalogue, institutions and mappings of a province; repeating changes nothing."""
    samples = catalog_load.read_folder(_SERVICES / "catalog" / "samples" / site)
    if whole_lists and site in full.SITES:
        version = full.full_version(site)
        # To make the list again, only to see that it is there, takes a second.
        if await catalog_load.is_published(database, site, version):
            await catalog_load.register_institutions(
                database,
                samples.registrations,
                clock,
                institution_items=samples.institution_items,
            )
            return
        items = (*samples.publication.items, *full.full_items(site))
        publication = replace(samples.publication, version=version, items=items)
        samples = replace(samples, publication=publication)
    await catalog_load.publish_folder(database, samples, clock)
