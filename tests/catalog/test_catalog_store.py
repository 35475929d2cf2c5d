"""Loading and publishing on a real PostgreSQL; the sample files."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy.exc import DBAPIError

from infra.runtime.clock import ManualClock, instant
from infra.runtime.database import Database
from services.catalog.domain.catalogue import content_hash
from services.catalog.load import CatalogueFileError, load_catalogue, read_folder
from services.catalog.samples.generate import AREAS, FOLDER, extra_institutions, write
from services.catalog.store import Published, VersionConflict, newest, publish, read_snapshot

GUANGDONG = FOLDER / "440000"
TABLES = ("version", "item", "institution", "institution_item")


async def counted(database: Database) -> list[int]:
    return [(await database.run(f"SELECT count(*) FROM catalog.{table}"))[0][0] for table in TABLES]


async def test_what_is_loaded_is_read_back(database: Database, clock: ManualClock) -> None:
    folder = read_folder(GUANGDONG)
    published = await load_catalogue(database, GUANGDONG, clock)
    assert published == Published(version=True, institutions=7, institution_items=240)
    snapshot = await read_snapshot(database, None)
    [catalogue] = snapshot.catalogues["440000"]
    stored = [item for revisions in catalogue.items.values() for item in revisions]
    key = lambda item: (item.national_code, item.effective_from)  # noqa: E731
    assert sorted(stored, key=key) == sorted(folder.publication.items, key=key)
    assert [each for kept in snapshot.institutions.values() for each in kept] == sorted(
        folder.registrations, key=lambda each: each.code
    )
    assert snapshot.mapped["H44080000001"]["Y013"] == "XB01AC06A013-SAMPLE"
    assert snapshot.newest == await newest(database)
    [row] = await database.run("SELECT content_hash, published_at FROM catalog.version")
    assert row["content_hash"] == content_hash(
        folder.publication.effective_from, reversed(folder.publication.items)
    )
    assert row["published_at"] == instant(clock)


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


async def test_four_processes_that_load_at_once_publish_once(
    database: Database, clock: ManualClock
) -> None:
    done = await asyncio.gather(*(load_catalogue(database, GUANGDONG, clock) for _ in range(4)))
    assert sorted(each.version for each in done) == [False, False, False, True]
    assert await counted(database) == [1, 120, 7, 240]


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
    head.write_text(head.read_text("utf-8").replace("2026.1", "2026.2"), "utf-8")
    published = await load_catalogue(database, changed, clock)
    assert published == Published(version=True, institutions=1, institution_items=0)
    snapshot = await read_snapshot(database, None)
    assert [each.version[-1] for each in snapshot.catalogues["440000"]] == ["1", "2"]
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
        ("publish_version", "440000/示例目录-440000-2026.1"),
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
    "UPDATE catalog.item SET first_self_pay_310 = 0",
    "UPDATE catalog.institution SET suspended = false",
    "UPDATE catalog.institution_item SET national_code = ''",
    "UPDATE catalog.audit SET actor = 'x'",
    *(f"DELETE FROM catalog.{table}" for table in (*TABLES, "audit")),
    "SELECT * FROM catalog.audit",
    "CREATE TABLE catalog.mine (id int)",
)


async def test_the_app_role_can_change_nothing_that_is_written(database: Database) -> None:
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
    assert str(caught.value).splitlines()[1:] == [
        "items.csv:2: fee_category: '15' is not a code of the national table",
        "items.csv:3: first self-pay is 0 to 100 % and given for every insurance type",
        "items.csv:4: first_self_pay_310: 'x' is not a number",
        "items.csv:7: limit_1: 78.0000001 has too many decimals",
        "institutions.csv:8: deductible_level: '7' is not one of 1, 2, 3, 4, 9",
        "institutions.csv: 2 rows for H44010000001 2023-01-01",
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
