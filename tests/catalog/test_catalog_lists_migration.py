"""Lists of the first tables are there after the migration, and after the way back."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from shutil import copy

import asyncpg
from downgrading import downgrade

from infra.runtime.clock import ManualClock
from infra.runtime.config import Settings
from infra.runtime.migrate import migrate
from infra.runtime.schema import Schema
from services.catalog.domain.item import CatalogClass, FeeCategory, InsuranceType, Item, ListType
from services.catalog.store import SCHEMA
from services.catalog.store.items import content_hash

CLOCK = ManualClock(1_795_000_000_000)
BEGIN = date(2026, 1, 1)


async def _upgrade(settings: Settings, folder: Path, words: str) -> None:
    (migration,) = SCHEMA.migrations.glob(f"*_{words}.py")
    copy(migration, folder)
    await migrate(settings, [Schema("catalog", folder)], CLOCK)


def item(code: str, category: FeeCategory, list_type: ListType, first: date = BEGIN) -> Item:
    return Item(
        national_code=code,
        name=f"示例{code}",
        list_type=list_type,
        catalog_class=CatalogClass.A,
        fee_category=category,
        first_self_pay_bp=dict.fromkeys(InsuranceType, 0),
        limits_micro_yuan={},
        limited_use="",
        effective_from=first,
        effective_to=date(2026, 6, 30) if first == BEGIN else date.max,
    )


ITEMS = [
    item("b-SAMPLE", FeeCategory.MATERIAL, ListType.CONSUMABLE),
    item("a-SAMPLE", FeeCategory.WESTERN_DRUG, ListType.DRUG, date(2026, 7, 1)),
    item("a-SAMPLE", FeeCategory.WESTERN_DRUG, ListType.DRUG),
    item("B-SAMPLE", FeeCategory.LABORATORY, ListType.SERVICE),
]


async def test_lists_go_up_and_down(unmade: Settings, tmp_path: Path) -> None:
    """A list keeps its id as its number, and what it says gets the new hash: loading it again
    changes nothing."""
    await _upgrade(unmade, tmp_path, "first_tables")
    rows = await asyncpg.connect(**unmade.database.admin_login())
    try:
        await rows.execute(
            """INSERT INTO catalog.version (area, version, effective_from, content_hash,
                                            published_at)
               VALUES ('440000', '2026', $1, $2, $3), ('440800', 'empty', $1, $2, $3)""",
            BEGIN,
            b"h" * 32,
            datetime(2026, 1, 1, tzinfo=UTC),
        )
        await rows.executemany(
            """INSERT INTO catalog.item
               VALUES (1, $1, $2, $3, $4, 1, $5, 0, 0, NULL, NULL, NULL, NULL, NULL, '')""",
            [
                (
                    each.national_code,
                    each.effective_from,
                    None if each.effective_to == date.max else each.effective_to,
                    each.name,
                    each.fee_category,
                )
                for each in ITEMS
            ],
        )
        await _upgrade(unmade, tmp_path, "lists_and_changes")
        versions = await rows.fetch("SELECT * FROM catalog.version ORDER BY id")
        assert [(row["publication"], row["codes"], row["kind"]) for row in versions] == [
            (1, 3, "FULL"),
            (2, 0, "FULL"),
        ]
        assert [row["content_hash"] for row in versions] == [
            content_hash(BEGIN, ITEMS),
            content_hash(BEGIN, []),
        ]
        found = await rows.fetch("SELECT line, national_code, list_type FROM catalog.item")
        assert sorted(map(tuple, found)) == [
            (1, "B-SAMPLE", ListType.SERVICE),
            (2, "a-SAMPLE", ListType.DRUG),
            (3, "a-SAMPLE", ListType.DRUG),
            (4, "b-SAMPLE", ListType.CONSUMABLE),
        ]
        # Changes and open versions are of the new tables only.
        await rows.execute(
            """INSERT INTO catalog.version (area, version, effective_from, kind, base_id)
               VALUES ('440000', '2026+1', $1, 'CHANGE', 1), ('440000', 'open', $1, 'FULL', NULL)
            """,
            BEGIN,
        )
        await rows.execute(
            """INSERT INTO catalog.item (version_id, line, national_code, effective_from, name,
                   list_type, catalog_class, fee_category, first_self_pay_310, first_self_pay_390,
                   limited_use)
               VALUES (3, 1, 'b-SAMPLE', $1, 'x', 1, 1, 1, 0, 0, '')""",
            BEGIN,
        )
        await downgrade(unmade, Schema("catalog", tmp_path), "catalog_01")
        left = await rows.fetch("SELECT id, version FROM catalog.version ORDER BY id")
        assert [tuple(row) for row in left] == [(1, "2026"), (2, "empty")]
        assert await rows.fetchval("SELECT count(*) FROM catalog.item") == len(ITEMS)
        await _upgrade(unmade, tmp_path, "lists_and_changes")
        again = await rows.fetchval("SELECT content_hash FROM catalog.version WHERE id = 1")
        assert again == content_hash(BEGIN, ITEMS)
    finally:
        await rows.close()
