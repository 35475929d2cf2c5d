"""Bulk import on a real PostgreSQL: parts, resumption, control totals, rows not taken."""

from __future__ import annotations

import asyncio
import random
from datetime import date
from itertools import islice
from pathlib import Path

import pytest

from infra.cli import importing as sending
from infra.cli.importing import ImportFile, send
from infra.local.people import COUNTIES, SyntheticPerson, make_people
from infra.runtime.call import Call, CallerType, Identity
from infra.runtime.errors import Refusal
from services.enrollment.domain.identification import CredentialType
from services.enrollment.domain.import_parts import AHEAD
from services.enrollment.importing import AT_ONCE, WAITING, Importing
from services.enrollment.store.importing import ImportStore
from services.enrollment.store.participants import Raced
from services.enrollment.vault import Vault
from yidi.common.v1 import types_pb2
from yidi.enrollment.v1 import participant_pb2

AREA = "440800"
SECRET = bytes(range(32))
NAMES = ("psn_name", "certno", "insutype", "psn_type", "begndate", "card_no", "ec_token")
HEADER = ",".join(NAMES)
SEEDS = iter(range(1_000))


def some_people(count: int) -> list[SyntheticPerson]:
    """People whom no other test has."""
    made = make_people(
        random.Random(f"import {next(SEEDS)}"),
        counties=COUNTIES["440800"],
        born_from=date(1940, 1, 1),
        born_until=date(2005, 12, 31),
    )
    return list(islice(made, count))


def row(person: SyntheticPerson, **changes: str) -> str:
    cells = {
        "psn_name": person.name,
        "certno": person.id_number,
        "insutype": "310",
        "psn_type": "11",
        "begndate": "2020-01-01",
        "card_no": person.social_security_card,
        "ec_token": person.electronic_token,
    }
    return ",".join((cells | changes)[name] for name in NAMES)


def written(path: Path, rows: list[str]) -> ImportFile:
    path.write_text("\n".join([HEADER, *rows]) + "\n", encoding="utf-8")
    return ImportFile.open(path)


def totals(rows: int, residents: int = 0) -> participant_pb2.ControlTotals:
    return participant_pb2.ControlTotals(rows=rows, employees=rows - residents, residents=residents)


class Desk:
    """`ParticipantService`'s part of imports, called in process as the command calls its stub."""

    def __init__(self, importing: Importing, call: Call) -> None:
        self.importing = importing
        self._call = call
        self.parts: list[int] = []

    async def StartImport(self, request, timeout: float):
        return await self.importing.start(request, self._call)

    async def ImportPart(self, request, timeout: float):
        answer = await self.importing.part(request, self._call)
        self.parts.append(request.number)
        return answer

    async def FinishImport(self, request, timeout: float):
        return await self.importing.finish(request, self._call)

    async def get(self, import_id: str) -> participant_pb2.Import:
        request = participant_pb2.GetImportRequest(import_id=import_id)
        return getattr(await self.importing.get(request, self._call), "import")

    async def start(self, file: ImportFile, control, area: str = AREA) -> participant_pb2.Import:
        request = participant_pb2.StartImportRequest(
            file_digest=file.digest,
            file_name=file.path.name,
            insured_area=area,
            header=file.header,
            totals=control,
        )
        return getattr(await self.importing.start(request, self._call), "import")

    async def part(self, import_id: str, part: sending.Part) -> participant_pb2.Import:
        request = participant_pb2.ImportPartRequest(
            import_id=import_id,
            number=part.number,
            first_line=part.first_line,
            content=part.content,
        )
        return getattr(await self.importing.part(request, self._call), "import")

    async def finish(self, import_id: str) -> participant_pb2.Import:
        request = participant_pb2.FinishImportRequest(import_id=import_id)
        return getattr(await self.importing.finish(request, self._call), "import")

    async def rejected(self, import_id: str, size: int = 0) -> list[tuple[int, str, str]]:
        found, token = [], ""
        while True:
            request = participant_pb2.ListRejectedRowsRequest(
                import_id=import_id, page_size=size, page_token=token
            )
            page = await self.importing.rejected(request, self._call)
            found += [(one.line, one.column, one.cause) for one in page.rows]
            if not (token := page.next_page_token):
                return found


@pytest.fixture
def desk(database, clock, call) -> Desk:
    return Desk(Importing(database=database, clock=clock, vault=Vault(SECRET)), call)


@pytest.fixture
def small_parts(monkeypatch) -> None:
    """Some four rows a part."""
    monkeypatch.setattr(sending, "PART_BYTES", 400)


async def count_of(admin, people: list[SyntheticPerson]) -> int:
    vault = Vault(SECRET)
    indexes = [vault.key(CredentialType.ID_CARD, one.id_number).index for one in people]
    return await admin.fetchval(
        "SELECT count(*) FROM enrollment.participant WHERE id_index = ANY ($1)", indexes
    )


async def refused(awaitable, reason: str) -> str:
    with pytest.raises(Refusal) as caught:
        await awaitable
    assert caught.value.name == reason
    return caught.value.message


async def test_a_file_is_imported(desk, admin, tmp_path, small_parts):
    """391 and 380 become residents; employees get an account; names and numbers are encrypted."""
    people = some_people(30)
    rows = [
        row(one, insutype=code, psn_type="15" if code != "310" else "11")
        for one, code in zip(people, ["310", "391", "380", "390", "310"] * 6, strict=True)
    ]
    file = written(tmp_path / "people.csv", rows)
    done = await send(desk, file, AREA, file.count())
    assert done.state == participant_pb2.IMPORT_STATE_FINISHED
    assert (done.rows, done.accepted, done.unchanged, done.rejected) == (30, 30, 0, 0)
    assert done.totals == done.read == totals(30, residents=18)
    assert done.file_name == "people.csv"
    assert len(desk.parts) > 5
    vault = Vault(SECRET)
    index = vault.key(CredentialType.ID_CARD, people[1].id_number).index
    stored = await admin.fetchrow(
        """SELECT person.*, relation.insurance, link.account_id,
                  (SELECT count(*) FROM enrollment.credential AS known
                   WHERE known.person_id = person.person_id) AS credentials
           FROM enrollment.participant AS person JOIN enrollment.relation USING (person_id)
           LEFT JOIN enrollment.account_link AS link USING (person_id)
           WHERE id_index = $1""",
        index,
    )
    assert stored["insurance"] == types_pb2.INSURANCE_TYPE_RESIDENT
    assert (stored["account_id"], stored["credentials"]) == (None, 3)
    person_id = str(stored["person_id"])
    assert vault.decrypt(stored["name"], person_id, "name") == people[1].name
    assert vault.decrypt(stored["id_number"], person_id, "id_number") == people[1].id_number
    employee = vault.key(CredentialType.ID_CARD, people[0].id_number).index
    assert await admin.fetchval(
        """SELECT account_id FROM enrollment.account_link
           JOIN enrollment.participant USING (person_id) WHERE id_index = $1""",
        employee,
    )
    assert not await admin.fetchval(
        "SELECT count(*) FROM enrollment.import_row WHERE import_id = $1", done.import_id
    )


async def test_the_same_file_again_changes_nothing(desk, admin, tmp_path, small_parts):
    people = some_people(10)
    file = written(tmp_path / "people.csv", [row(one) for one in people])
    done = await send(desk, file, AREA, totals(10))
    sent = len(desk.parts)
    assert await send(desk, file, AREA, totals(10)) == done
    assert await desk.finish(done.import_id) == done
    assert len(desk.parts) == sent
    message = await refused(desk.start(file, totals(11)), "IMPORT_STATE_WRONG")
    assert "另外的控制数" in message
    assert await count_of(admin, people) == 10
    # The same people in another file are known already.
    other = written(tmp_path / "again.csv", [row(one) for one in reversed(people)])
    again = await send(desk, other, AREA, totals(10))
    assert (again.import_id == done.import_id, again.accepted, again.unchanged) == (False, 0, 10)


class Broken(Exception):
    """The command was stopped."""


async def test_a_stopped_import_goes_on_where_it_stopped(
    desk, admin, tmp_path, small_parts, monkeypatch
):
    """Stopped between parts: what was taken stays, the same file goes on behind it."""
    monkeypatch.setattr("infra.cli.parts.IN_FLIGHT", 1)
    people = some_people(40)
    file = written(tmp_path / "people.csv", [row(one) for one in people])
    number_of_parts = len(list(file.parts()))
    told: list[participant_pb2.Import] = []

    def stop(found: participant_pb2.Import) -> None:
        told.append(found)
        if len(told) == 5:
            raise Broken

    with pytest.raises(Broken):
        await send(desk, file, AREA, totals(40), stop)
    stopped = await desk.get(told[0].import_id)
    assert stopped.state == participant_pb2.IMPORT_STATE_OPEN
    assert stopped.next_part == 5 < number_of_parts
    message = await refused(desk.finish(stopped.import_id), "IMPORT_TOTALS_DIFFER")
    assert "行数应为 40，实为" in message
    before = len(desk.parts)
    done = await send(desk, file, AREA, totals(40))
    assert done.import_id == stopped.import_id
    assert desk.parts[before:] == list(range(5, number_of_parts + 1))
    assert (done.state, done.accepted) == (participant_pb2.IMPORT_STATE_FINISHED, 40)
    assert await count_of(admin, people) == 40


async def test_no_part_is_half_taken_when_the_database_breaks(desk, admin, tmp_path, monkeypatch):
    """A broken write leaves no row of its part, and the same part is then taken."""
    people = some_people(6)
    file = written(tmp_path / "people.csv", [*map(row, people), row(people[0], certno="1")])
    (part,) = file.parts()
    started = await desk.start(file, totals(7))
    await admin.execute("ALTER TABLE enrollment.import_rejected ADD CHECK (line <> 8) NOT VALID")
    try:
        with pytest.raises(Exception, match="import_rejected"):
            await desk.part(started.import_id, part)
    finally:
        await admin.execute(
            "ALTER TABLE enrollment.import_rejected DROP CONSTRAINT import_rejected_line_check"
        )
    assert await count_of(admin, people) == 0
    assert (await desk.get(started.import_id)).rows == 0
    taken = await desk.part(started.import_id, part)
    assert (taken.accepted, taken.rejected, taken.next_part) == (6, 1, 2)


async def test_parts_in_any_order_and_twice(desk, admin, tmp_path, small_parts):
    people = some_people(20)
    file = written(tmp_path / "people.csv", [row(one) for one in people])
    first, second, third, *rest = file.parts()
    import_id = (await desk.start(file, totals(20))).import_id
    assert (await desk.part(import_id, third)).next_part == 1
    assert (await desk.part(import_id, second)).next_part == 1
    message = await refused(desk.finish(import_id), "IMPORT_STATE_WRONG")
    assert "缺少第 1 部分" in message
    taken = await desk.part(import_id, first)
    assert taken.next_part == 4
    for again in (third, first):
        assert await desk.part(import_id, again) == taken
    changed = sending.Part(2, second.first_line, second.content + b"x\n")
    assert "与先前送来的不同" in await refused(desk.part(import_id, changed), "IMPORT_STATE_WRONG")
    shifted = sending.Part(4, rest[0].first_line + 1, rest[0].content)
    assert "应从第" in await refused(desk.part(import_id, shifted), "IMPORT_STATE_WRONG")
    early = sending.Part(5 + AHEAD, 900, b"x\n")
    assert "来得过早" in await refused(desk.part(import_id, early), "IMPORT_STATE_WRONG")
    # The same part three times at once is taken once.
    answers = await asyncio.gather(*(desk.part(import_id, rest[0]) for _ in range(3)))
    assert len({one.SerializeToString() for one in answers}) == 1
    for part in rest[1:]:
        await desk.part(import_id, part)
    done = await desk.finish(import_id)
    assert (done.accepted, done.unchanged, done.rejected) == (20, 0, 0)
    assert await desk.part(import_id, first) == done
    late = sending.Part(done.next_part, 22, b"x\n")
    assert "已经办结" in await refused(desk.part(import_id, late), "IMPORT_STATE_WRONG")
    assert await count_of(admin, people) == 20


async def test_totals_that_differ_leave_the_import_open(desk, tmp_path):
    people = some_people(3)
    file = written(tmp_path / "people.csv", [row(one) for one in people])
    message = await refused(send(desk, file, AREA, totals(4, 1)), "IMPORT_TOTALS_DIFFER")
    assert "行数应为 4，实为 3；居民应为 1，实为 0" in message
    # Who mistook the totals gives the right ones: the parts are there.
    sent = list(desk.parts)
    done = await send(desk, file, AREA, totals(3))
    assert (done.state, done.accepted) == (participant_pb2.IMPORT_STATE_FINISHED, 3)
    assert desk.parts == sent


async def test_rows_not_taken_are_told_without_their_content(desk, admin, tmp_path, call):
    """Duplicates, conflicts with what is known and faulty rows; nothing personal of them stays."""
    known, *people = some_people(8)
    first = written(tmp_path / "first.csv", [row(known)])
    await send(desk, first, AREA, totals(1))
    a, b, c, d, e, f, g = people
    rows = [
        row(a),
        row(a, begndate="2021-01-01"),  # line 3: twice in the file
        row(known, psn_name="某某某"),  # 4: known under another name
        row(b, card_no=known.social_security_card),  # 5: somebody else's card
        row(known, begndate="2019-01-01"),  # 6: known with other content
        row(known),  # 7: known already
        row(known),  # 8: twice in the file
        row(c, certno=c.id_number[:-1] + ("0" if c.id_number[-1] != "0" else "1")),  # 9
        row(d, ec_token=e.electronic_token),
        row(e),  # 11: token of a row before
        row(f, insutype="380", psn_type="16"),
        row(f),  # the other insurance: no duplicate
        row(g) + ",x",  # 14
    ]
    file = written(tmp_path / "people.csv", rows)
    done = await send(desk, file, AREA, file.count())
    expected = [
        (3, "", "与本文件另一行重复（同一人、同一险种）"),
        (4, "psn_name", "该居民身份证号码已以另一姓名参保"),
        (5, "", "社会保障卡、电子凭证或人员编号已属于他人"),
        (6, "", "同一人同一险种已参保，内容不同"),
        (8, "", "与本文件另一行重复（同一人、同一险种）"),
        (9, "certno", "居民身份证号码的校验码或出生日期不正确"),
        (11, "", "社会保障卡、电子凭证或人员编号已属于他人"),
        (14, "", "列数多于表头"),
    ]
    assert await desk.rejected(done.import_id) == expected
    assert await desk.rejected(done.import_id, size=3) == expected
    assert (done.rows, done.accepted, done.unchanged, done.rejected) == (13, 4, 1, 8)
    assert (done.read.employees, done.read.residents) == (11, 1)
    kept = [
        str(tuple(one))
        for table in ("import", "import_part", "import_rejected", "audit")
        for one in await admin.fetch(f"SELECT * FROM enrollment.{table}")
    ]
    for person in (known, *people):
        for personal in (person.name, person.id_number, person.social_security_card):
            assert not [one for one in kept if personal in one]
    assert [one for one in kept if f"{done.import_id} 1" in one and call.caller.spiffe_id in one]


async def test_a_row_twice_in_different_parts(desk, admin, tmp_path, small_parts):
    people = some_people(12)
    rows = [row(one) for one in people]
    file = written(tmp_path / "people.csv", [*rows, rows[0], row(people[1], psn_type="12")])
    done = await send(desk, file, AREA, totals(14))
    assert (done.accepted, done.unchanged, done.rejected) == (12, 0, 2)
    found = await desk.rejected(done.import_id)
    assert [(line, cause[:7]) for line, _, cause in found] == [
        (14, "与本文件另一行"),
        (15, "与本文件另一行"),
    ]
    assert await count_of(admin, people) == 12


async def test_two_imports_of_the_same_people_at_once(
    database, clock, desk, admin, tmp_path, monkeypatch
):
    """Both read before either writes: the second finds the people of the first known."""
    people = some_people(5)
    other = Desk(
        Importing(database=database, clock=clock, vault=Vault(SECRET)),
        Call(Identity("440000", CallerType.OPERATOR, "另一经办"), deadline_us=1 << 62),
    )
    barrier, take, writes = asyncio.Barrier(2), ImportStore.take, 0

    async def together(self, *arguments) -> None:
        nonlocal writes
        writes += 1
        if writes <= 2:
            await barrier.wait()
        await take(self, *arguments)

    monkeypatch.setattr(ImportStore, "take", together)
    first = written(tmp_path / "first.csv", [row(one) for one in people])
    second = written(tmp_path / "second.csv", [row(one) for one in reversed(people)])
    answers = await asyncio.gather(
        send(desk, first, AREA, totals(5)), send(other, second, AREA, totals(5))
    )
    assert sorted((one.accepted, one.unchanged) for one in answers) == [(0, 5), (5, 0)]
    assert writes == 3
    assert await count_of(admin, people) == 5


async def test_the_same_file_by_two_people_and_for_two_areas_are_imports_of_their_own(
    database, clock, desk, tmp_path
):
    file = written(tmp_path / "people.csv", [row(one) for one in some_people(1)])
    other = Desk(desk.importing, Call(Identity("440000", CallerType.OPERATOR, "另一经办"), 1 << 62))
    started = [
        await desk.start(file, totals(1)),
        await other.start(file, totals(1)),
        await desk.start(file, totals(1), "440100"),
    ]
    assert len({one.import_id for one in started}) == 3


async def test_a_part_that_others_keep_overtaking_is_given_back(desk, tmp_path, monkeypatch):
    file = written(tmp_path / "people.csv", [row(one) for one in some_people(1)])

    async def raced(self, *arguments) -> None:
        raise Raced

    monkeypatch.setattr(ImportStore, "take", raced)
    await refused(send(desk, file, AREA, totals(1)), "PERSON_BUSY")


async def test_parts_wait_in_a_bounded_queue(desk, tmp_path, monkeypatch):
    """Three are worked on, some wait, more are refused at once."""
    file = written(tmp_path / "people.csv", [row(one) for one in some_people(1)])
    (part,) = file.parts()
    import_id = (await desk.start(file, totals(1))).import_id
    go, known = asyncio.Event(), desk.importing._stored

    async def held(import_id: str):
        await go.wait()
        return await known(import_id)

    monkeypatch.setattr(desk.importing, "_stored", held)
    waiting = [asyncio.create_task(desk.part(import_id, part)) for _ in range(AT_ONCE + WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(Refusal) as shed:
        await desk.part(import_id, part)
    assert (shed.value.name, bool(shed.value.retry_ms)) == ("OVERLOADED", True)
    go.set()
    assert {(await one).accepted for one in waiting} == {1}


@pytest.mark.parametrize("ask", ["get", "finish", "rejected"])
async def test_an_unknown_import(desk, ask: str):
    unknown = "0198f000-0000-7000-8000-000000000001"
    assert "没有这次导入" in await refused(getattr(desk, ask)(unknown), "IMPORT_STATE_WRONG")
    part = sending.Part(1, 2, b"x\n")
    await refused(desk.part(unknown, part), "IMPORT_STATE_WRONG")


async def test_a_page_token_of_our_own_only(desk, tmp_path):
    file = written(tmp_path / "people.csv", [])
    done = await send(desk, file, AREA, totals(0))
    assert (done.state, done.rows) == (participant_pb2.IMPORT_STATE_FINISHED, 0)
    request = participant_pb2.ListRejectedRowsRequest(import_id=done.import_id, page_token="王")
    await refused(desk.importing.rejected(request, desk._call), "MESSAGE_INVALID")


async def test_a_header_without_the_columns_is_not_started(desk, tmp_path):
    file = ImportFile(tmp_path / "people.csv", "psn_name,certno", b"d" * 32)
    message = await refused(desk.start(file, totals(0)), "IMPORT_INVALID")
    assert "缺少列 insutype" in message
