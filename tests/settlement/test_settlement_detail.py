"""A stay's detail reaches the nation within three days, beside the path (规程 第三十九条)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import pytest
from afterwards import OPERATOR, Afterwards, afterwards
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs
from world import BEIJING, GUANGZHOU, World

from infra.runtime.clock import instant
from infra.runtime.config import NATION, Settings
from infra.runtime.database import Database
from infra.runtime.errors import Reason, Refusal
from services.settlement.detail_upload import BATCH, BATCH_BYTES, LEASE, DetailUpload
from services.settlement.domain.audit_case import Duty
from services.settlement.domain.detail import FIRST, LAST, WITHIN, wait
from services.settlement.domain.states import State
from services.settlement.store.details import DetailStore
from yidi.common.v1 import types_pb2
from yidi.relay.v1 import relay_pb2, relay_pb2_grpc
from yidi.settlement.v1 import audit_pb2, audit_pb2_grpc

UPLOAD = Duty.UPLOAD_DETAIL
Listed = audit_pb2.ListDetailUploadsResponse


@pytest.fixture
async def after(database_settings: Callable[..., Settings]) -> AsyncIterator[Afterwards]:
    async with afterwards(database_settings) as made:
        yield made


async def listed(after: Afterwards, **asked: object) -> Listed:
    request = audit_pb2.ListDetailUploadsRequest(**asked)  # type: ignore[arg-type]
    return await after.service.ListDetailUploads(request, OPERATOR)


@given(st.integers(0, 10_000))
def test_the_pause_grows_to_its_end(attempts: int) -> None:
    assert FIRST <= wait(attempts) <= wait(attempts + 1) <= LAST


async def test_only_completed_stays_that_owe_it_are_uploaded_and_once(after: Afterwards) -> None:
    """Undone stays too, for the nation journaled both; their undo has no detail."""
    stay, undone = await after.completed(UPLOAD), await after.completed(UPLOAD)
    await after.undone(undone)
    await after.completed(Duty.INJURY_DECLARED)
    waiting = await after.opened(UPLOAD)
    await after.closed(await after.opened(UPLOAD), State.REJECTED)
    await after.upload().tick()
    details = {detail.id: detail for detail in after.nation.received}
    assert set(details) == {stay, undone}
    detail = details[stay]
    assert detail.care_area == "370100"
    assert [line.amount_fen for line in detail.lines] == [100_00]
    assert (await listed(after)).total_count == 0
    await after.upload().tick()
    assert len(after.nation.received) == 2
    await after.closed(waiting)
    await after.upload().tick()
    assert after.nation.received[-1].id == waiting.settlement_id
    rows = await after.database.run(
        "SELECT action FROM settlement.audit WHERE subject = $1 ORDER BY audit_id", stay
    )
    assert [row["action"] for row in rows] == ["open", "COMPLETED", "detail uploaded"]


async def test_a_silent_nation_is_asked_again_with_growing_pauses(after: Afterwards) -> None:
    stay = await after.completed(UPLOAD)
    after.nation.down = True
    for attempts in range(1, 4):
        await after.upload().tick()
        await after.upload().tick()  # not due yet
        [upload] = (await listed(after)).uploads
        assert (upload.settlement_id, upload.attempts) == (stay, attempts)
        assert "国家平台" in upload.cause
        after.clock.ms += int(wait(attempts) / timedelta(milliseconds=1))
    after.nation.down = False
    after.nation.silent.add(stay)
    await after.upload().tick()
    [upload] = (await listed(after)).uploads
    assert (upload.attempts, upload.cause) == (4, "国家平台没有答复")
    after.nation.silent.clear()
    after.clock.ms += int(LAST / timedelta(milliseconds=1))
    await after.upload().tick()
    assert not (await listed(after)).uploads


async def test_a_header_that_is_not_there_yet_comes_and_one_that_differs_stays(
    after: Afterwards,
) -> None:
    early, odd, good = [await after.completed(UPLOAD) for _ in range(3)]
    refusals = {
        early: Refusal(Reason.ERROR_REASON_SETTLEMENT_NOT_FOUND),
        odd: Refusal(Reason.ERROR_REASON_DETAIL_DIFFERS, settlement_id=odd, cause="少一行"),
    }
    after.nation.answer = refusals.get
    with capture_logs() as logs:
        await after.upload().tick()
        after.clock.ms += int(wait(1) / timedelta(milliseconds=1))
        del refusals[early]
        await after.upload().tick()
    assert [upload.settlement_id for upload in (await listed(after)).uploads] == [odd]
    [upload] = (await listed(after)).uploads
    assert "少一行" in upload.cause
    assert upload.attempts == 2
    alarms = [log for log in logs if log["event"] == "alarm: detail differs from its settlement"]
    assert [(alarm["log_level"], alarm["settlement_id"]) for alarm in alarms] == [("error", odd)]
    assert good in {detail.id for detail in after.nation.received}


async def test_late_ones_are_listed_counted_and_told_once(after: Afterwards) -> None:
    """三日 are 72 hours from completion."""
    after.nation.down = True
    first = await after.completed(UPLOAD)
    completed_ms = after.clock.ms
    second = await after.completed(UPLOAD)
    upload = after.upload()
    after.clock.ms = completed_ms + int(WITHIN / timedelta(milliseconds=1))
    with capture_logs() as logs:
        await upload.tick()
        assert (await listed(after)).late_count == 0
        after.clock.ms += 1
        await upload.tick()
        await upload.tick()
    late = await listed(after, late=True)
    assert [one.settlement_id for one in late.uploads] == [first]
    assert (late.total_count, late.late_count) == (2, 1)
    [due] = late.uploads
    assert due.due_time.ToMilliseconds() - due.complete_time.ToMilliseconds() == 72 * 3_600_000
    alarms = [log["settlement_id"] for log in logs if log["event"] == "alarm: detail is late"]
    assert alarms == [first]
    page = await listed(after, page_size=1)
    rest = await listed(after, page_size=1, page_token=page.next_page_token)
    assert [page.uploads[0].settlement_id, rest.uploads[0].settlement_id] == [first, second]
    assert not rest.next_page_token
    with pytest.raises(Refusal, match="MESSAGE_INVALID"):
        await listed(after, page_token="second")


async def test_batches_are_bounded_by_number_and_bytes_and_the_oldest_go_first(
    after: Afterwards,
) -> None:
    small = [await after.completed(UPLOAD) for _ in range(BATCH + 1)]
    big = [await after.completed(UPLOAD, line_bytes=BATCH_BYTES // 5) for _ in range(2)]
    await after.upload().tick()
    assert after.nation.batches == [set(small[:BATCH]), {small[BATCH], big[0]}, {big[1]}]


async def test_replicas_share_the_work_and_a_dead_one_is_replaced(after: Afterwards) -> None:
    stays = [await after.completed(UPLOAD) for _ in range(20)]
    await asyncio.gather(*(after.upload().tick() for _ in range(4)))
    await after.upload().tick()
    assert sorted(detail.id for detail in after.nation.received) == sorted(stays)
    # One leases a row and dies.
    lost = await after.completed(UPLOAD)
    now = instant(after.clock)
    assert await after.details.take(10) == 1
    [leased] = await after.details.lease(now, now + LEASE, BATCH, BATCH_BYTES)
    assert leased.settlement_id == lost
    await after.upload().tick()
    assert after.nation.received[-1].id != lost
    after.clock.ms += int(LEASE / timedelta(milliseconds=1))
    await after.upload().tick()
    assert after.nation.received[-1].id == lost


async def test_over_three_sites_the_nation_keeps_what_the_care_place_split(sites: World) -> None:
    """Inside the province nothing is owed to the nation; an outpatient bill owes nothing."""
    patient, neighbour = await sites.patients(2)
    stay = await sites.settle(sites.request(patient))
    at_home = await sites.settle(sites.request(neighbour, care_area=GUANGZHOU))
    visit = {"care_type": types_pb2.CARE_TYPE_OUTPATIENT, "inpatient_type": 0, "days": 0}
    outpatient = await sites.settle(sites.request(neighbour, **visit))
    async with Database.open(sites.settings[BEIJING], "settlement") as database:
        upload = DetailUpload(
            store=DetailStore(database),
            relay=sites.role(relay_pb2_grpc.RelayServiceStub, BEIJING, "settlement"),
            clock=sites.clock,
        )
        for _ in range(8):  # other tests have left stays, too
            await upload.tick()
    nation = await sites.admin(NATION)
    kept = await nation.fetch(
        "SELECT settlement_id::text AS id, detail FROM relay.stay_detail "
        "WHERE settlement_id = ANY($1::uuid[])",
        [stay.settlement_id, at_home.settlement_id, outpatient.settlement_id],
    )
    assert [row["id"] for row in kept] == [stay.settlement_id]
    detail = relay_pb2.StayDetail.FromString(kept[0]["detail"])
    assert list(detail.lines) == list(stay.result.lines)
    assert detail.care_area == BEIJING
    audit = sites.operator(audit_pb2_grpc.AuditServiceStub, BEIJING)
    due = await audit.ListDetailUploads(audit_pb2.ListDetailUploadsRequest(), timeout=5)
    assert stay.settlement_id not in {one.settlement_id for one in due.uploads}
