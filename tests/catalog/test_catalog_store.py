"""Loading and publishing on a real PostgreSQL; the sample files."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace
from datetime import date
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy.exc import DBAPIError

from infra.runtime.clock import ManualClock, instant
from infra.runtime.database import Database
from services.catalog.domain.catalogue import by_code
from services.catalog.domain.item import (
    Band,
    CatalogClass,
    FeeCategory,
    InsuranceType,
    Item,
    Level,
    ListType,
)
from services.catalog.load import CatalogueFileError, load_catalogue, read_folder
from services.catalog.samples.generate import AREAS, FOLDER, extra_institutions, write
from services.catalog.store import (
    Publication,
    Published,
    VersionConflict,
    newest,
    publish,
    read_snapshot,
)
from services.catalog.store.items import content_hash, copy_items
from services.catalog.store.lists import NEWEST, ListStore
from services.catalog.store.publications import (
    StoredPublication,
    open_version,
    publish_open,
    publishing,
)

GUANGDONG = FOLDER / "440000"
TABLES = ("version", "item", "institution", "institution_item")


async def counted(database: Database) -> list[int]:
    return [(await database.run(f"SELECT count(*) FROM catalog.{table}"))[0][0] for table in TABLES]


async def test_what_is_loaded_is_read_back(database: Database, clock: ManualClock) -> None:
    folder = read_folder(GUANGDONG)
    published = await load_catalogue(database, GUANGDONG, clock)
    mapped = len(folder.institution_items)
    assert published == Published(version=True, institutions=7, institution_items=mapped)
    snapshot = await read_snapshot(database, None)
    [catalogue] = snapshot.catalogues["440000"]
    assert catalogue.codes == by_code(folder.publication.items)
    assert [each for kept in snapshot.institutions.values() for each in kept] == sorted(
        folder.registrations, key=lambda each: each.code
    )
    [spell] = snapshot.mapped["H44080000001"]["Y013"]
    assert spell.national_code == "XB01AC06A013-SAMPLE"
    assert snapshot.newest == await newest(database)
    [row] = await database.run("SELECT content_hash, published_at FROM catalog.version")
    assert row["content_hash"] == content_hash(
        folder.publication.effective_from, reversed(folder.publication.items)
    )
    assert row["published_at"] == instant(clock)


def everything(code: str = "XE01-SAMPLE") -> Item:
    """An item that has all that an item can have."""
    shares = {InsuranceType.EMPLOYEE: 1_000, InsuranceType.RESIDENT: 2_050}
    return Item(
        national_code=code,
        name="示例制剂|“一”\n",
        list_type=ListType.PREPARATION,
        catalog_class=CatalogClass.B,
        fee_category=FeeCategory.CHINESE_PATENT_DRUG,
        first_self_pay_bp=dict.fromkeys(InsuranceType, 0),
        limits_micro_yuan={Level.TWO: 0, Level.UNRATED: 12_345_678},
        limited_use="限住院",
        effective_from=date(2024, 2, 29),
        effective_to=date(2026, 12, 31),
        bands=(Band(5_000_000, dict.fromkeys(InsuranceType, 0)), Band(None, shares)),
        day_limit_e4=15_000,
        visit_limit_e4=1,
        dosage_form="丸剂",
        specification="6g×10",
        unit="盒",
        negotiated=True,
        centrally_purchased=True,
        preparing_institution="H44010000001",
    )


async def test_every_attribute_of_an_item_is_kept_and_hashed(
    database: Database, clock: ManualClock
) -> None:
    """What a list says has one hash, here and in the database."""
    plain = replace(
        everything(), bands=(), effective_from=date(2027, 1, 1), effective_to=date.max, unit=""
    )
    published = Publication("440000", "all", date(2024, 1, 1), (plain, everything()))
    await publish(database, publication=published, actor="test", at=instant(clock))
    lists = ListStore(database)
    [found] = await lists.lists(["440000"])
    assert await lists.revisions(found.id, NEWEST, "XE01-SAMPLE") == [everything(), plain]
    [row] = await lists.publications("440000", NEWEST, 10)
    assert row.content_hash == content_hash(published.effective_from, published.items)
    assert (row.codes, row.publication, row.base_id) == (1, 1, None)
    snapshot = await read_snapshot(database, None)
    [catalogue] = snapshot.catalogues["440000"]
    assert catalogue.codes == by_code(published.items)


async def test_the_same_content_again_changes_nothing(
    database: Database, clock: ManualClock
) -> None:
    await load_catalogue(database, GUANGDONG, clock)
    before, rows = await newest(database), await counted(database)
    again = await load_catalogue(database, GUANGDONG, clock)
    assert again == Published(version=False, institutions=0, institution_items=0)
    assert (await newest(database), await counted(database)) == (before, rows)
    known = await read_snapshot(database, None)
    taken = await read_snapshot(database, known)
    assert taken.catalogues["440000"][0] is known.catalogues["440000"][0]


async def test_two_lists_share_what_they_have_in_common(
    database: Database, clock: ManualClock
) -> None:
    """A list takes equal items from the one before it, whether that was held or is read with it."""
    folder = read_folder(GUANGDONG).publication
    await publish(database, publication=folder, actor="test", at=instant(clock))
    known = await read_snapshot(database, None)
    first, *rest = folder.items
    renamed = replace(first, name="改名后的示例药品")
    await publish(
        database,
        publication=replace(folder, version="next", items=(renamed, *rest)),
        actor="test",
        at=instant(clock),
    )
    for snapshot in (await read_snapshot(database, known), await read_snapshot(database, None)):
        older, newer = (each.codes for each in snapshot.catalogues["440000"])
        differing = [code for code in newer if newer[code] is not older[code]]
        assert differing == [first.national_code]
        assert newer[first.national_code][0].name == "改名后的示例药品"


async def test_an_open_version_is_seen_by_nobody_until_it_has_its_number(
    database: Database, clock: ManualClock
) -> None:
    """Numbers follow the publication, not the ids, so a reader that holds all up to one misses
    none, whoever crashes in between."""
    items = (everything(),)
    async with publishing(database) as connection:
        opened = await open_version(connection, "440000", "slow", date(2024, 1, 1))
        await copy_items(connection, opened, items)
    publication = Publication("440800", "quick", date(2024, 1, 1), items)
    await publish(database, publication=publication, actor="test", at=instant(clock))
    between = await read_snapshot(database, None)
    assert list(between.catalogues) == ["440800"]

    async def finish(*, crash: bool) -> StoredPublication:
        async with publishing(database) as connection:
            done = await publish_open(connection, opened, actor="test", at=instant(clock))
            if crash:
                raise RuntimeError("crash")
            return done

    with pytest.raises(RuntimeError, match="crash"):
        await finish(crash=True)
    assert await newest(database) == between.newest
    done = await finish(crash=False)
    quick = between.catalogues["440800"][0]
    assert (done.publication, done.id) == (2, opened)
    assert opened < quick.id, "published out of the order of the ids"
    after = await read_snapshot(database, between)
    assert sorted(after.catalogues) == ["440000", "440800"]
    assert after.catalogues["440800"][0] is quick


async def test_of_two_open_versions_of_one_name_one_is_published(
    database: Database, clock: ManualClock
) -> None:
    async with publishing(database) as connection:
        one, other = [
            await open_version(connection, "440000", "same", date(2024, 1, 1)) for _ in range(2)
        ]
        await publish_open(connection, one, actor="test", at=instant(clock))
        with pytest.raises(VersionConflict, match="same of 440000"):
            await publish_open(connection, other, actor="test", at=instant(clock))
        with pytest.raises(VersionConflict, match="name of a change"):
            await open_version(connection, "440000", "same+1", date(2024, 1, 1))
    assert (await newest(database)).publication == 1


async def test_four_processes_that_load_at_once_publish_once(
    database: Database, clock: ManualClock
) -> None:
    done = await asyncio.gather(*(load_catalogue(database, GUANGDONG, clock) for _ in range(4)))
    assert sorted(each.version for each in done) == [False, False, False, True]
    folder = read_folder(GUANGDONG)
    assert await counted(database) == [
        1,
        len(folder.publication.items),
        7,
        len(folder.institution_items),
    ]


async def test_a_published_version_never_changes(
    database: Database, clock: ManualClock, tmp_path: Path
) -> None:
    await load_catalogue(database, GUANGDONG, clock)
    rows = await counted(database)
    changed = shutil.copytree(GUANGDONG, tmp_path / "changed")
    for name, old, new in (
        ("items.csv", "阿司匹林肠溶片", "阿司匹林肠溶片（改）"),
        ("institutions.csv", "湛江示例中心医院", "湛江示例新医院"),
    ):
        file = changed / name
        file.write_text(file.read_text("utf-8").replace(old, new), "utf-8")
    with pytest.raises(VersionConflict, match="new version name"):
        await load_catalogue(database, changed, clock)
    assert await counted(database) == rows, "the institutions came with it and must not stay"
    head = changed / "catalogue.csv"
    head.write_text(head.read_text("utf-8").replace("440000-2026.", "440000-2027."), "utf-8")
    published = await load_catalogue(database, changed, clock)
    assert published == Published(version=True, institutions=1, institution_items=0)
    snapshot = await read_snapshot(database, None)
    names = [each.version for each in snapshot.catalogues["440000"]]
    assert [name.split("-")[-1][:4] for name in names] == ["2026", "2027"]
    assert snapshot.institutions["H44080000001"][-1].name == "湛江示例新医院"


async def test_a_load_that_fails_leaves_nothing(database: Database, clock: ManualClock) -> None:
    folder = read_folder(GUANGDONG)
    broken = replace(folder.registrations[0], area="44")
    with pytest.raises(DBAPIError):
        await publish(
            database,
            publication=folder.publication,
            registrations=[broken],
            actor="test",
            at=instant(clock),
        )
    assert await counted(database) == [0, 0, 0, 0]


async def test_every_change_leaves_an_audit_row(
    database: Database, admin: asyncpg.Connection, clock: ManualClock
) -> None:
    await load_catalogue(database, GUANGDONG, clock, actor="agency")
    rows = await admin.fetch("SELECT * FROM catalog.audit ORDER BY id")
    assert [(row["action"], row["subject"]) for row in rows] == [
        ("publish_version", f"440000/{read_folder(GUANGDONG).publication.version}"),
        *(
            ("register_institution", f"{each.code}/2023-01-01")
            for each in read_folder(GUANGDONG).registrations
        ),
        ("map_items", "H44010000001"),
        ("map_items", "H44080000001"),
    ]
    assert {(row["actor"], row["at"], len(row["digest"])) for row in rows} == {
        ("agency", instant(clock), 32)
    }


FORBIDDEN = (
    "UPDATE catalog.version SET version = 'x'",
    "UPDATE catalog.version SET publication = publication + 1",
    "UPDATE catalog.request SET answer = ''",
    "UPDATE catalog.item SET first_self_pay_310 = 0",
    "UPDATE catalog.institution SET suspended = false",
    "UPDATE catalog.institution_item SET national_code = ''",
    "UPDATE catalog.audit SET actor = 'x'",
    *(f"DELETE FROM catalog.{table}" for table in (*TABLES, "audit")),
    "SELECT * FROM catalog.audit",
    "CREATE TABLE catalog.mine (id int)",
)


async def test_the_app_role_can_change_nothing_that_is_written(
    database: Database, clock: ManualClock
) -> None:
    await load_catalogue(database, GUANGDONG, clock)
    for statement in FORBIDDEN:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await database.run(statement)


def test_every_fault_of_the_files_is_named(tmp_path: Path) -> None:
    folder = shutil.copytree(GUANGDONG, tmp_path / "faulty")
    for name, old, new in (
        ("items.csv", "奥美拉唑肠溶胶囊,01,09,0,0", "奥美拉唑肠溶胶囊,01,15,0,0"),
        ("items.csv", "注射用泮托拉唑钠,02,09,5,10", "注射用泮托拉唑钠,02,09,5,101"),
        ("items.csv", "多潘立酮片,01,09,0,0", "多潘立酮片,01,09,x,0"),
        ("items.csv", "78.00,78.00,78.00,78.00,78.00", "78.0000001,78,78,78,78"),
        ("institutions.csv", "H44010000002", "H44010000001"),
        ("institutions.csv", "湛江示例大药房,440800,11,9", "湛江示例大药房,440800,11,7"),
    ):
        text = (folder / name).read_text("utf-8")
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1), "utf-8")
    with pytest.raises(CatalogueFileError) as caught:
        read_folder(folder)
    faults = [fault.split(":") for fault in str(caught.value).splitlines()[1:]]
    assert [":".join(fault[:2]) for fault in faults] == [
        "items.csv:2",
        "items.csv:3",
        "items.csv:4",
        "items.csv:7",
        "institutions.csv:8",
        "institutions.csv: 2 rows for H44010000001 2023-01-01",
    ]
    assert [fault[2].strip() for fault in faults[:-1]] == [
        "fee_category",
        "first_self_pay_310",
        "first_self_pay_310",
        "limit_1",
        "deductible_level",
    ]


def test_a_folder_without_catalogue_is_named(tmp_path: Path) -> None:
    with pytest.raises(CatalogueFileError, match=r"items\.csv: .*No such file"):
        read_folder(tmp_path)


def test_the_samples_are_those_of_the_generator(tmp_path: Path) -> None:
    write(tmp_path)
    names = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.csv"))
    assert names == sorted(path.relative_to(FOLDER) for path in FOLDER.rglob("*.csv"))
    for name in names:
        assert (tmp_path / name).read_bytes() == (FOLDER / name).read_bytes(), name


def test_the_samples_say_that_they_are_samples_and_differ() -> None:
    read = {site: read_folder(FOLDER / site) for site in AREAS}
    for site, folder in read.items():
        assert all(item.national_code.endswith("-SAMPLE") for item in folder.publication.items)
        registrations = (*folder.registrations, *extra_institutions(site, 64))
        assert all("示例" in each.name and each.area in AREAS[site] for each in registrations)
        assert len({each.code for each in registrations}) == len(registrations)
        codes = {item.national_code for item in folder.publication.items}
        assert {national_code for _, _, national_code in folder.institution_items} >= codes
    hashes = [
        content_hash(each.publication.effective_from, each.publication.items)
        for each in read.values()
    ]
    assert len(set(hashes)) == len(hashes)
