"""Bulk import of lists on a real PostgreSQL: parts, resumption, dry run, one publication."""

from __future__ import annotations

import asyncio
from datetime import date

import asyncpg
import pytest
from downgrading import downgrade
from list_files import AREA, DAY, VERSION, ImportDesk, row, rows, written
from sqlalchemy import text

from infra.cli import catalog_files as sending
from infra.cli.catalog_files import ListFile, send
from infra.runtime.call import Call, CallerType, Identity
from infra.runtime.clock import instant
from infra.runtime.database import Database, transaction
from infra.runtime.errors import Refusal
from infra.runtime.migrate import migrate
from services.catalog.domain.import_layouts import Layout
from services.catalog.domain.import_parts import AHEAD
from services.catalog.domain.item import CatalogClass, FeeCategory, InsuranceType, Item, ListType
from services.catalog.importing import AT_ONCE, WAITING
from services.catalog.store import SCHEMA, import_checking, read_snapshot
from services.catalog.store.items import copy_items
from services.catalog.store.publications import open_version, publish_open, publishing
from yidi.catalog.v1 import listing_pb2


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some four rows a part."""
    monkeypatch.setattr(sending, "PART_BYTES", 300)


async def imported(desk: ImportDesk, file: ListFile, version: str = VERSION, day: str = DAY):
    return await send(desk, file, AREA, version, day)


async def refused(awaitable, reason: str) -> str:
    with pytest.raises(Refusal) as caught:
        await awaitable
    assert caught.value.name == reason
    return caught.value.message


async def published(database: Database) -> dict[str, set[str]]:
    """Codes of each version that replicas see."""
    snapshot = await read_snapshot(database, None)
    return {each.version: set(each.codes) for each in snapshot.catalogues.get(AREA, ())}


async def counts(admin: asyncpg.Connection) -> list[int]:
    return [
        await admin.fetchval(f"SELECT count(*) FROM catalog.{table}")
        for table in ("version", "item", "import", "import_part", "import_rejected", "import_row")
    ]


async def test_a_list_is_imported(desk, database, admin, tmp_path, small_parts):
    """In many parts, and replicas see it as a whole once it is published."""
    done = await imported(desk, written(tmp_path / "items.csv", rows(40)))
    assert done.state == listing_pb2.LIST_IMPORT_STATE_PUBLISHED
    assert (done.rows, done.rejected, done.file_name, done.version) == (
        40,
        0,
        "items.csv",
        VERSION,
    )
    assert done.difference == listing_pb2.ListDifference(codes=40, added=40)
    assert len(desk.parts) > 5
    assert await published(database) == {VERSION: {f"XA{number:06d}" for number in range(40)}}
    audit = await admin.fetch("SELECT action, subject FROM catalog.audit ORDER BY id")
    assert [tuple(one) for one in audit] == [
        ("start_import", f"{AREA}/{VERSION}"),
        ("publish_version", f"{AREA}/{VERSION}"),
    ]


async def test_a_dry_run_reports_and_publishes_nothing(desk, database, tmp_path):
    """The difference is to the list in force on the day; the run after it takes no part again."""
    await imported(desk, written(tmp_path / "first.csv", rows(4)), "2025")
    changed = [*rows(3)[1:], row(national_code="XA000000", name="改名"), row(national_code="NEW01")]
    file = written(tmp_path / "second.csv", changed)
    tried = await send(desk, file, AREA, VERSION, DAY, dry_run=True)
    assert tried.state == listing_pb2.LIST_IMPORT_STATE_OPEN
    expected = listing_pb2.ListDifference(codes=4, added=1, changed=1, removed=1)
    assert tried.difference == expected
    assert set(await published(database)) == {"2025"}
    sent = len(desk.parts)
    done = await imported(desk, file)
    assert len(desk.parts) == sent
    assert (done.import_id, done.difference) == (tried.import_id, expected)
    assert set(await published(database)) == {"2025", VERSION}


async def test_the_same_file_again_changes_nothing(desk, admin, tmp_path, small_parts):
    file = written(tmp_path / "items.csv", rows(10))
    done = await imported(desk, file)
    before, sent = await counts(admin), len(desk.parts)
    assert await imported(desk, file) == done
    assert await desk.finish(done.import_id, 99) == done
    assert (await counts(admin), len(desk.parts)) == (before, sent)
    message = await refused(desk.start(file, day="2026-02-01"), "CATALOGUE_IMPORT_STATE_WRONG")
    assert "另外的生效日期" in message
    await refused(desk.start(file, day="2026-02-30"), "DAY_INVALID")


async def test_a_stopped_import_goes_on_where_it_stopped(
    desk, database, tmp_path, small_parts, monkeypatch
):
    """Ctrl-C cancels the sending between parts; the same file goes on behind what was taken."""
    monkeypatch.setattr("infra.cli.parts.IN_FLIGHT", 1)
    file = written(tmp_path / "items.csv", rows(40))
    told: list[listing_pb2.ListImport] = []

    def stop(found: listing_pb2.ListImport) -> None:
        told.append(found)
        if len(told) == 5:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await send(desk, file, AREA, VERSION, DAY, told=stop)
    stopped = await desk.get(told[0].import_id)
    assert (stopped.state, stopped.next_part) == (listing_pb2.LIST_IMPORT_STATE_OPEN, 5)
    count = len(list(file.parts()))
    message = await refused(desk.finish(stopped.import_id, count), "CATALOGUE_IMPORT_STATE_WRONG")
    assert f"应有 {count} 部分" in message
    assert await published(database) == {}
    before = len(desk.parts)
    done = await imported(desk, file)
    assert done.import_id == stopped.import_id
    assert desk.parts[before:] == list(range(5, count + 1))
    assert len((await published(database))[VERSION]) == 40


async def test_parts_in_any_order_and_twice(desk, database, tmp_path, small_parts):
    file = written(tmp_path / "items.csv", rows(24))
    first, second, third, *rest = file.parts()
    import_id = (await desk.start(file)).import_id
    assert (await desk.part(import_id, third)).next_part == 1
    assert (await desk.part(import_id, second)).next_part == 1
    wrong = "CATALOGUE_IMPORT_STATE_WRONG"
    assert "缺少第 1 部分" in await refused(desk.finish(import_id, 3), wrong)
    taken = await desk.part(import_id, first)
    assert taken.next_part == 4
    for again in (third, first):
        assert await desk.part(import_id, again) == taken
    other = sending.Part(2, 0, second.first_line, second.content + b"x\n")
    assert "与先前送来的不同" in await refused(desk.part(import_id, other), wrong)
    shifted = sending.Part(4, 0, rest[0].first_line + 1, rest[0].content)
    assert "不相接" in await refused(desk.part(import_id, shifted), wrong)
    early = sending.Part(5 + AHEAD, 0, 900, b"x\n")
    assert "来得过早" in await refused(desk.part(import_id, early), wrong)
    elsewhere = sending.Part(4, 1, 1, b"x\n")
    assert "没有第 2 张表" in await refused(desk.part(import_id, elsewhere), wrong)
    # The same part three times at once is taken once.
    answers = await asyncio.gather(*(desk.part(import_id, rest[0]) for _ in range(3)))
    assert len({one.SerializeToString() for one in answers}) == 1
    for part in rest[1:]:
        await desk.part(import_id, part)
    count = 3 + len(rest)
    done = await desk.finish(import_id, count)
    assert (done.rows, done.state) == (24, listing_pb2.LIST_IMPORT_STATE_PUBLISHED)
    assert await desk.part(import_id, first) == done
    late = sending.Part(count + 1, 0, 26, b"x\n")
    assert "已经收齐" in await refused(desk.part(import_id, late), wrong)
    assert len((await published(database))[VERSION]) == 24


async def test_no_part_is_half_taken_when_the_database_breaks(desk, admin, tmp_path):
    """A broken write leaves no row of its part, and the same part is then taken."""
    file = written(tmp_path / "items.csv", [*rows(6), row(name="")])
    (part,) = file.parts()
    import_id = (await desk.start(file)).import_id
    await admin.execute("ALTER TABLE catalog.import_rejected ADD CHECK (line <> 8) NOT VALID")
    with pytest.raises(Exception, match="import_rejected"):
        await desk.part(import_id, part)
    await admin.execute(
        "ALTER TABLE catalog.import_rejected DROP CONSTRAINT import_rejected_line_check"
    )
    assert await counts(admin) == [1, 0, 1, 0, 0, 0]
    taken = await desk.part(import_id, part)
    assert (taken.rows, taken.rejected, taken.next_part) == (7, 1, 2)


async def test_a_rejected_row_stops_the_whole_list(desk, database, tmp_path, small_parts):
    """Every row that cannot be taken is reported by line; nothing is published, not even by a
    second try, and the corrected file is another import."""
    lines = rows(12)
    lines[3] = row(national_code="XA000003", first_self_pay_310="5")
    lines[7] = row(national_code="!")
    file = written(tmp_path / "items.csv", lines)
    for dry_run in (True, False):
        message = await refused(
            send(desk, file, AREA, VERSION, DAY, dry_run=dry_run), "CATALOGUE_IMPORT_REJECTED"
        )
        assert "有 2 行不能采用" in message
    import_id = (await desk.start(file)).import_id
    found = await desk.rejected(import_id, size=1)
    assert [one[:3] for one in found] == [(0, 5, "first_self_pay_310"), (0, 9, "national_code")]
    assert await desk.rejected(import_id) == found
    assert await published(database) == {}
    corrected = written(tmp_path / "items.csv", rows(12))
    done = await imported(desk, corrected)
    assert done.import_id != import_id
    assert len((await published(database))[VERSION]) == 12


async def test_rows_of_a_code_must_not_overlap(desk, database, tmp_path, small_parts):
    """Duplicates and overlaps are found over all parts of a file, each with the line it meets."""
    lines = [
        row(national_code="SAME1"),
        *rows(8),
        row(national_code="SAME1"),
        row(national_code="LONG1", effective_to="2025-12-31"),
        row(national_code="LONG1", effective_from="2025-03-01", effective_to="2025-03-31"),
        row(national_code="LONG1", effective_from="2025-12-31"),
        row(national_code="NEXT1", effective_to="2025-06-30"),
        row(national_code="NEXT1", effective_from="2025-07-01"),
    ]
    file = written(tmp_path / "items.csv", lines)
    await refused(imported(desk, file), "CATALOGUE_IMPORT_REJECTED")
    found = await desk.rejected((await desk.start(file)).import_id)
    assert [(line, column) for _, line, column, _ in found] == [
        (11, "effective_from"),
        (13, "effective_from"),
        (14, "effective_from"),
    ]
    assert "与第 2 行日期重叠" in found[0][3]
    assert await published(database) == {}


async def test_no_list_is_walked_row_by_row_for_want_of_statistics(desk, database, admin, tmp_path):
    """What is just written is in no statistics: a plan made for a few rows takes hours of many."""
    await imported(desk, written(tmp_path / "items.csv", rows(40)))
    await admin.execute("ANALYZE catalog.item")
    [version_id] = (await read_snapshot(database, None)).lists
    said = {"import_id": None, "version_id": version_id + 1, "whole": version_id, "day": date.max}
    async with transaction(database) as connection:
        await import_checking.room(connection)
        for statement in (import_checking._REJECT_OVERLAPS, import_checking._COMPARE):
            plan = await connection.execute(text(f"EXPLAIN {statement.text}"), said)
            assert "Nested Loop" not in "\n".join(plan.scalars())


async def test_a_file_without_items_publishes_nothing(desk, database, tmp_path):
    file = written(tmp_path / "items.csv", [])
    await refused(imported(desk, file), "CATALOGUE_IMPORT_INVALID")
    file = written(tmp_path / "items.csv", [" ", ""])
    message = await refused(imported(desk, file), "CATALOGUE_IMPORT_STATE_WRONG")
    assert "没有项目" in message
    assert await published(database) == {}


async def test_two_files_of_one_version(desk, database, tmp_path, small_parts):
    """Two imports at once keep apart; the first that is finished has the name, the other never."""
    mine = written(tmp_path / "mine.csv", rows(10))
    other = written(tmp_path / "other.csv", rows(9))
    ids = [(await desk.start(file)).import_id for file in (mine, other)]
    pairs = [list(file.parts()) for file in (mine, other)]
    for import_id, parts in zip(ids, pairs, strict=True):
        await asyncio.gather(*(desk.part(import_id, part) for part in parts))
    done = await desk.finish(ids[1], len(pairs[1]))
    message = await refused(desk.finish(ids[0], len(pairs[0])), "CATALOGUE_IMPORT_STATE_WRONG")
    assert "已经发布" in message
    assert (await desk.get(ids[0])).state == listing_pb2.LIST_IMPORT_STATE_OPEN
    assert len((await published(database))[VERSION]) == done.rows == 9
    late = written(tmp_path / "late.csv", rows(8))
    message = await refused(imported(desk, late), "CATALOGUE_IMPORT_STATE_WRONG")
    assert "已经发布" in message
    await refused(imported(desk, late, "2026+1"), "CATALOGUE_IMPORT_STATE_WRONG")


async def test_one_file_sent_twice_at_once_is_published_once(
    desk, database, admin, tmp_path, small_parts
):
    file = written(tmp_path / "items.csv", rows(30))
    one, two = await asyncio.gather(imported(desk, file), imported(desk, file))
    assert one == two
    assert await counts(admin) == [1, 30, 1, len(list(file.parts())), 0, 0]
    assert len((await published(database))[VERSION]) == 30


async def test_a_change_that_arrives_before_the_publication_is_compared_with(
    desk, database, clock, tmp_path
):
    """Publications exclude each other: the difference is to the list with the change in it."""
    await imported(desk, written(tmp_path / "first.csv", rows(4)), "2025")
    base_id = (await read_snapshot(database, None)).catalogues[AREA][0].id
    file = written(tmp_path / "second.csv", rows(4))
    (part,) = file.parts()
    import_id = (await desk.start(file)).import_id
    await desk.part(import_id, part)
    async with publishing(database) as connection:
        finishing = asyncio.create_task(desk.finish(import_id, 1))
        version_id = await open_version(
            connection, AREA, "2025+1", date(2025, 6, 1), base_id=base_id, reason="调价"
        )
        item = Item(
            national_code="XA000001",
            name="调价后",
            list_type=ListType.DRUG,
            catalog_class=CatalogClass.A,
            fee_category=FeeCategory.WESTERN_DRUG,
            first_self_pay_bp=dict.fromkeys(InsuranceType, 0),
            limits_micro_yuan={},
            limited_use="",
            effective_from=date(2025, 1, 1),
        )
        await copy_items(connection, version_id, [item])
        await publish_open(connection, version_id, actor="clerk", at=instant(clock))
    done = await finishing
    assert done.difference == listing_pb2.ListDifference(codes=4, changed=1)
    [*_, newest] = (await read_snapshot(database, None)).catalogues[AREA]
    assert (newest.version, newest.codes["XA000001"][0].name) == (VERSION, "示例1")


async def test_an_import_given_up_is_forgotten_when_another_starts(
    desk, database, admin, clock, tmp_path
):
    """After a week; what is published stays for ever, and no list of it can be deleted."""
    await imported(desk, written(tmp_path / "first.csv", rows(3)), "2025")
    open_file = written(tmp_path / "open.csv", rows(5))
    import_id = (await desk.start(open_file)).import_id
    for part in open_file.parts():
        await desk.part(import_id, part)
    assert await counts(admin) == [2, 8, 2, 2, 0, 0]
    clock.ms += 8 * 86_400_000
    await desk.start(written(tmp_path / "new.csv", rows(2)))
    assert await counts(admin) == [2, 3, 2, 1, 0, 0]
    await refused(desk.get(import_id), "CATALOGUE_IMPORT_STATE_WRONG")
    assert set(await published(database)) == {"2025"}
    kept = await admin.fetchval("SELECT import_id FROM catalog.import WHERE version = '2025'")
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="published"):
        await database.run("SELECT catalog.forget_import($1)", kept)
    assert set(await published(database)) == {"2025"}


async def test_more_parts_at_once_than_the_service_holds(desk, tmp_path, small_parts):
    file = written(tmp_path / "items.csv", rows(200))
    import_id = (await desk.start(file)).import_id
    (first, *_) = file.parts()
    many = [desk.part(import_id, first) for _ in range(AT_ONCE + WAITING + 1)]
    answers = await asyncio.gather(*many, return_exceptions=True)
    refusals = [one for one in answers if isinstance(one, Refusal)]
    assert [one.name for one in refusals] == ["OVERLOADED"]
    assert (await desk.get(import_id)).next_part == 2


async def test_what_is_asked_of_an_import_must_be_true(desk, tmp_path):
    unknown = "0192d3a4-0000-7000-8000-000000000000"
    await refused(desk.get(unknown), "CATALOGUE_IMPORT_STATE_WRONG")
    await refused(desk.rejected(unknown), "CATALOGUE_IMPORT_STATE_WRONG")
    import_id = (await desk.start(written(tmp_path / "items.csv", rows(1)))).import_id
    request = listing_pb2.ListRejectedItemRowsRequest(import_id=import_id, page_token="x")
    call = Call(Identity("440000", CallerType.OPERATOR, "经办"), deadline_us=1 << 62)
    await refused(desk.importing.rejected(request, call), "MESSAGE_INVALID")
    assert await desk.rejected(import_id) == []


def test_the_layouts_are_the_contracts():
    """The domain numbers the tables as the contract does."""
    numbers = listing_pb2.ImportLayout.DESCRIPTOR.values_by_number
    assert {int(one) for one in Layout} == set(numbers) - {0}
    assert numbers[Layout.LIMITS].name.endswith("1318")


async def test_the_tables_go_down_and_up(settings, database, desk, admin, clock, tmp_path):
    """The way back loses the imports and keeps what they published."""
    await imported(desk, written(tmp_path / "items.csv", rows(3)))
    await downgrade(settings, SCHEMA, "catalog_02")
    assert await admin.fetchval("SELECT to_regclass('catalog.import_row')") is None
    await migrate(settings, [SCHEMA], clock)
    assert await counts(admin) == [1, 3, 0, 0, 0, 0]
    assert len((await published(database))[VERSION]) == 3
