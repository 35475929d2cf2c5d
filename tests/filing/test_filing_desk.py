"""The desk on a real PostgreSQL: clerks and institutions file, change, end, list and check."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import asyncpg
import pytest
from desk_world import (
    AREA,
    EMPLOYEE,
    HOSPITAL,
    OWN_HOSPITAL,
    Between,
    DeskWorld,
    about,
    applicant,
    application,
    envelope,
    person,
    request_id,
    resident,
    visit_check,
)

from infra.runtime.clock import ManualClock
from infra.runtime.directory import Directory
from infra.runtime.errors import Refusal
from yidi.common.v1 import types_pb2
from yidi.filing.v1 import desk_pb2, filing_pb2

ACCEPTED, PENDING = filing_pb2.FILING_STATE_ACCEPTED, filing_pb2.FILING_STATE_PENDING
ENDED, CANCELLED = filing_pb2.FILING_STATE_ENDED, filing_pb2.FILING_STATE_CANCELLED
NATIONAL, WINDOW = types_pb2.FILING_CHANNEL_NATIONAL_APP, types_pb2.FILING_CHANNEL_WINDOW
UPLOAD = types_pb2.FILING_CHANNEL_HOSPITAL_UPLOAD
REFERRAL = types_pb2.FILING_KIND_REFERRAL
PERMIT, COMMITMENT = filing_pb2.MATERIAL_RESIDENCE_PERMIT, filing_pb2.MATERIAL_COMMITMENT
FORM = filing_pb2.MATERIAL_FILING_FORM


@pytest.fixture
def world(counting: Any, clock: ManualClock, directory: Directory) -> DeskWorld:
    return DeskWorld(counting, clock, directory)


async def rows(admin: asyncpg.Connection, table: str, filing_id: str) -> list[asyncpg.Record]:
    column = "subject" if table == "audit" else "filing_id"
    query = f"SELECT * FROM filing.{table} WHERE {column}::text = $1"
    return list(await admin.fetch(query, filing_id))


async def test_accepted_and_visible_at_once(world: DeskWorld, admin: asyncpg.Connection) -> None:
    """S0-4, S4-10; DOMAIN §5: "filed but not visible at the hospital" cannot be."""
    before = await world.check("desk-1")
    assert Refusal.from_status(before.refusal).name == "FILING_REQUIRED"
    offered = [one.kind for one in before.guidance.kinds]
    assert types_pb2.FILING_KIND_OTHER_TEMPORARY in offered
    assert before.guidance.area_name == "湛江市"
    answer = await world.apply("desk-1", start_date="2026-11-10")
    filing = answer.filing
    assert (filing.state, filing.version, filing.filed_on) == (ACCEPTED, 1, "2026-11-21")
    assert (filing.start_date, filing.end_date) == ("2026-11-10", "2027-05-10")
    assert (filing.insured_area, filing.insurance) == (AREA, EMPLOYEE)
    after = await world.check("desk-1")
    assert (after.entitlement.filing_id, after.entitlement.late_filing) == (filing.filing_id, True)
    assert not after.HasField("guidance")
    (told,) = await rows(admin, "audit", filing.filing_id)
    assert (told["actor"], told["action"]) == (world.clerk.caller.spiffe_id, "apply filing")


async def test_the_same_request_has_one_answer(world: DeskWorld) -> None:
    """Also when the rules or the filing have become others since; other content is refused."""
    asked = application("desk-2")
    request = desk_pb2.ApplyFilingRequest(application=asked)
    first = (await world.servicer.ApplyFiling(request, world.clerk)).answer
    await world.cancel("desk-2", first.filing)
    asked.operator = "另一位经办"
    asked.materials[:] = reversed(asked.materials)
    request = desk_pb2.ApplyFilingRequest(application=asked)
    assert (await world.servicer.ApplyFiling(request, world.clerk)).answer == first
    for change in ({"care_place": "310000"}, {"applicant": applicant("desk-2b")}):
        with pytest.raises(Refusal, match="REQUEST_ID_REUSED") as refused:
            await world.apply("desk-2", request_id=asked.request_id, **change)
        assert refused.value.details == {"request_id": asked.request_id}
    assert len(await world.list("desk-2")) == 1


async def test_what_does_not_stand_side_by_side(world: DeskWorld) -> None:
    """A second long-term filing anywhere, and the same kind at the same place, are refused."""
    first = (await world.apply("desk-3", **resident())).filing
    world.clock.ms += 1
    with pytest.raises(Refusal) as second:
        await world.apply("desk-3", **resident(care_place="310000"))
    assert (second.value.name, second.value.details) == (
        "FILING_OVERLAPS",
        {"place": "北京市", "kind": "异地长期居住人员", "start": "2026-11-21"},
    )
    await world.apply("desk-3")
    await world.apply("desk-3", care_place="310000")
    with pytest.raises(Refusal, match="FILING_OVERLAPS"):
        await world.apply("desk-3", start_date="2026-12-01")
    assert [one.filing.filing_id for one in await world.list("desk-3")][-1] == first.filing_id


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"care_place": "999900"}, "FILING_PLACE_UNKNOWN"),
        ({"care_place": "320000"}, "FILING_NOT_ELIGIBLE"),
        ({"care_place": "440802"}, "FILING_NOT_ELIGIBLE"),
        ({"kind": types_pb2.FILING_KIND_EMERGENCY}, "FILING_NOT_ELIGIBLE"),
        ({"materials": []}, "FILING_MATERIAL_MISSING"),
        ({"channel": types_pb2.FILING_CHANNEL_PHONE}, "FILING_CHANNEL_NOT_ALLOWED"),
        ({"start_date": "2026-02-31"}, "DAY_INVALID"),
        ({"start_date": "0001-01-01"}, "DAY_INVALID"),
        ({"applicant": applicant("nobody")}, "PERSON_NOT_IDENTIFIED"),
        ({"applicant": applicant("lost")}, "SERVICE_UNAVAILABLE"),
        ({"earlier_filing": "0190a8a0-0000-7000-8000-000000000000"}, "FILING_NOT_FOUND"),
    ],
)
async def test_refused_and_nothing_written(
    world: DeskWorld, admin: asyncpg.Connection, fields: dict[str, Any], reason: str
) -> None:
    with pytest.raises(Refusal) as refused:
        await world.apply("desk-4", **fields)
    assert refused.value.name == reason
    for table in ("filing", "person"):
        count = f"SELECT count(*) FROM filing.{table} WHERE person_id = $1"
        assert await admin.fetchval(count, person("desk-4")) == 0


async def test_a_change_ends_one_filing_and_begins_another(world: DeskWorld) -> None:
    old = (await world.apply("desk-5", start_date="2026-11-10")).filing
    new = (await world.change("desk-5", old, care_place="310000", materials=[FORM])).filing
    assert (new.state, new.replaces, new.care_place) == (ACCEPTED, old.filing_id, "310000")
    assert (new.start_date, new.kind, new.version) == ("2026-11-21", old.kind, 1)
    records = {one.filing.filing_id: one for one in await world.list("desk-5")}
    ended = records[old.filing_id]
    assert (ended.filing.state, ended.filing.end_date) == (ENDED, "2026-11-20")
    told = [(one.version, one.action, one.state) for one in ended.history]
    assert told == [
        (1, desk_pb2.FILING_ACTION_APPLY, ACCEPTED),
        (2, desk_pb2.FILING_ACTION_CHANGE, ENDED),
    ]
    assert {one.actor for one in ended.history} == {"operator/440000"}
    assert [one.at.ToMilliseconds() for one in ended.history] == [world.clock.ms] * 2
    # The stay that began before the change keeps what held on its first day.
    assert (await world.check("desk-5")).entitlement.filing_id == old.filing_id


async def test_back_home_and_never_begun(world: DeskWorld) -> None:
    """变更回参保地: also by a county of the area; what never began is void."""
    old = (await world.apply("desk-6", start_date="2026-11-10")).filing
    home = (await world.change("desk-6", old, care_place="440802")).filing
    assert (home.filing_id, home.state, home.end_date) == (old.filing_id, ENDED, "2026-11-20")
    future = (await world.apply("desk-6", start_date="2026-12-01")).filing
    void = (await world.change("desk-6", future, care_place=AREA)).filing
    assert (void.filing_id, void.state) == (future.filing_id, CANCELLED)


async def test_cancelled_or_ended(world: DeskWorld) -> None:
    """取消 while nothing was paid, 终止 on a day not before the first."""
    filing = (await world.apply("desk-7")).filing
    world.settlement.paid.add(filing.filing_id)
    with pytest.raises(Refusal) as refused:
        await world.cancel("desk-7", filing)
    assert (refused.value.name, refused.value.details) == (
        "FILING_STATE_WRONG",
        {"filing": filing.filing_id, "state": "已备案且已有费用", "action": "取消"},
    )
    with pytest.raises(Refusal, match="MESSAGE_INVALID") as wrong:
        await world.cancel("desk-7", filing, last_day="2026-11-20")
    assert wrong.value.violations[0].field == "last_day"
    ended = (await world.cancel("desk-7", filing, last_day="2026-11-25", cause="已回家")).filing
    assert (ended.state, ended.end_date, ended.version) == (ENDED, "2026-11-25", 2)
    (record,) = await world.list("desk-7")
    assert record.history[-1].cause == "已回家"
    with pytest.raises(Refusal, match="FILING_STATE_WRONG") as over:
        await world.cancel("desk-7", ended)
    assert over.value.details["state"] == "已终止"
    assert over.value.details["action"] == "取消"


async def test_the_lock_of_zhanjiang_and_of_jining(world: DeskWorld) -> None:
    """S4-9: six months always. S2-13: six months once cost occurred."""
    locked = (await world.apply("desk-8", **resident())).filing
    with pytest.raises(Refusal, match="FILING_LOCKED") as refused:
        await world.change("desk-8", locked, care_place="310000", materials=[FORM, PERMIT])
    assert refused.value.details["until"] == "2027-05-22"
    jining = (await world.apply("desk-8j", area="370800", **resident())).filing
    world.settlement.paid.add(jining.filing_id)
    with pytest.raises(Refusal, match="FILING_LOCKED") as after_cost:
        await world.change("desk-8j", jining, care_place="370800", start_date="2026-11-22")
    assert "已发生费用" in after_cost.value.message
    world.settlement.paid.clear()
    home = await world.change("desk-8j", jining, care_place="370800", start_date="2026-11-22")
    assert (home.filing.state, home.filing.end_date) == (ENDED, "2026-11-21")


async def test_without_settlement_nothing_is_given_up(world: DeskWorld) -> None:
    filing = (await world.apply("desk-9")).filing
    world.settlement.away = True
    with pytest.raises(Refusal, match="SERVICE_UNAVAILABLE"):
        await world.cancel("desk-9", filing)
    world.settlement.away = False
    assert (await world.cancel("desk-9", filing)).filing.state == CANCELLED


async def test_jining_asks_for_the_channel_of_the_filing(world: DeskWorld) -> None:
    """S2-15."""
    filing = (await world.apply("desk-10", area="370800", channel=NATIONAL)).filing
    with pytest.raises(Refusal) as refused:
        await world.cancel("desk-10", filing, channel=WINDOW)
    assert refused.value.name == "FILING_CHANNEL_NOT_ALLOWED"
    assert refused.value.details["channel"] == "经办窗口"
    assert "国家异地就医备案小程序" in refused.value.details["allowed"]
    mini = types_pb2.FILING_CHANNEL_MINI_PROGRAM
    assert (await world.cancel("desk-10", filing, channel=mini)).filing.state == CANCELLED


async def test_a_promise_and_its_supplement(world: DeskWorld) -> None:
    """S4-14: the promise stands until the material is there."""
    promised = await world.apply("desk-11", **resident(materials=[FORM, COMMITMENT]))
    assert promised.filing.commitment == types_pb2.COMMITMENT_STATE_PROMISED
    assert promised.next_steps == ["备案材料已承诺，请尽快补齐。"]
    done = await world.supplement("desk-11", promised.filing, materials=[PERMIT])
    assert done.filing.commitment == types_pb2.COMMITMENT_STATE_MATERIAL_COMPLETE
    assert (done.filing.version, list(done.next_steps)) == (2, [])
    assert set(done.filing.materials) == {FORM, COMMITMENT, PERMIT}


async def test_the_queue_and_its_reviews(world: DeskWorld) -> None:
    """规程 第九条: two working days, over the weekend; then overdue."""
    area = "140200"
    world.at("2026-11-20")
    asked = resident(channel=NATIONAL, materials=[filing_pb2.MATERIAL_COMMUNITY_CERTIFICATE])
    waiting = [(await world.apply(f"q{n}", area=area, **asked)).filing for n in range(3)]
    assert {(one.state, one.due_date) for one in waiting} == {(PENDING, "2026-11-24")}
    queue = desk_pb2.ListPendingFilingsRequest(insured_area=area, page_size=2)
    first = await world.servicer.ListPendingFilings(queue, world.clerk)
    assert [one.overdue for one in first.filings] == [False, False]
    world.at("2026-11-25")
    queue.page_token = first.next_page_token
    second = await world.servicer.ListPendingFilings(queue, world.clerk)
    assert ([one.overdue for one in second.filings], second.next_page_token) == ([True], "")
    listed = [one.filing.filing_id for one in (*first.filings, *second.filings)]
    assert listed == sorted(one.filing_id for one in waiting)
    with pytest.raises(Refusal, match="FILING_STATE_WRONG"):
        await world.change("q0", waiting[0], care_place="310000")
    accepted = await world.review(waiting[0], accepted=True)
    assert (accepted.state, accepted.start_date, accepted.due_date) == (ACCEPTED, "2026-11-20", "")
    refused = await world.review(waiting[1], cause="居住证明不符")
    assert refused.state == filing_pb2.FILING_STATE_REFUSED
    (record,) = await world.list("q1", area)
    assert (record.history[-1].cause, record.history[-1].channel) == ("居住证明不符", 0)
    with pytest.raises(Refusal, match="FILING_STATE_WRONG"):
        await world.review(refused, accepted=True)
    assert (await world.cancel("q2", waiting[2])).filing.state == CANCELLED
    queue.page_token = ""
    assert not (await world.servicer.ListPendingFilings(queue, world.clerk)).filings
    queue.page_token = "2026-99-99/" + waiting[0].filing_id
    with pytest.raises(Refusal, match="MESSAGE_INVALID"):
        await world.servicer.ListPendingFilings(queue, world.clerk)


async def test_another_persons_filing_is_no_filing(world: DeskWorld) -> None:
    filing = (await world.apply("desk-12")).filing
    unknown = filing_pb2.Filing()
    unknown.CopyFrom(filing)
    unknown.filing_id = "0190a8a0-0000-7000-8000-000000000000"
    answers = []
    for token, one in (("desk-12other", filing), ("desk-12", unknown)):
        with pytest.raises(Refusal, match="FILING_NOT_FOUND") as refused:
            await world.cancel(token, one)
        answers.append(refused.value.message.replace(one.filing_id, ""))
    assert answers[0] == answers[1]
    form = desk_pb2.GetFilingFormRequest(filing_id=filing.filing_id, insured_area="440100", form=1)
    with pytest.raises(Refusal, match="FILING_NOT_FOUND"):
        await world.servicer.GetFilingForm(form, world.clerk)
    with pytest.raises(Refusal, match="FILING_NOT_FOUND"):
        await world.review(unknown, accepted=True)


async def test_what_was_filed_before_a_transfer_is_out_of_reach(world: DeskWorld) -> None:
    """DOMAIN §5: back after a transfer the patient files again, to the same place."""
    old = (await world.apply("desk-13", **resident())).filing
    world.at("2026-12-01")
    world.enrollment.insured_since = "2026-12-01"
    with pytest.raises(Refusal, match="FILING_NOT_FOUND"):
        await world.cancel("desk-13", old)
    new = (await world.apply("desk-13", **resident())).filing
    assert {one.filing.filing_id for one in await world.list("desk-13")} == {
        old.filing_id,
        new.filing_id,
    }


async def test_two_clerks_at_once(world: DeskWorld, admin: asyncpg.Connection) -> None:
    """The second, who decided on the same version, is told; nothing is lost."""
    filing = (await world.apply("desk-14", start_date="2026-11-10")).filing
    between = Between(world.database)
    mine, theirs = world.servicer, world.another_desk(between)

    async def meanwhile() -> None:
        await world.cancel("desk-14", filing, last_day="2026-11-30", cause="我")

    between.before["INSERT INTO filing.person"] = meanwhile
    world.servicer = theirs
    asked = desk_pb2.CancelFilingRequest(
        cancellation=desk_pb2.Cancellation(**about("desk-14", filing), cause="你")
    )
    world.servicer = mine
    with pytest.raises(Refusal, match="FILING_CHANGED_MEANWHILE") as refused:
        await theirs.CancelFiling(asked, world.clerk)
    assert refused.value.details == {"filing": filing.filing_id, "version": "2"}
    (record,) = await world.list("desk-14")
    assert [one.cause for one in record.history] == ["", "我"]
    assert len(await rows(admin, "audit", filing.filing_id)) == 2


async def test_a_race_for_another_filing_of_the_person_is_decided_again(world: DeskWorld) -> None:
    """Two long-term filings at once: the rules see both, whoever writes first."""
    between = Between(world.database)
    theirs = world.another_desk(between)

    async def meanwhile() -> None:
        await world.apply("desk-15", **resident())

    between.before["INSERT INTO filing.person"] = meanwhile
    asked = application("desk-15", **resident(care_place="310000"))
    with pytest.raises(Refusal, match="FILING_OVERLAPS"):
        await theirs.ApplyFiling(desk_pb2.ApplyFilingRequest(application=asked), world.clerk)
    assert [one.filing.care_place for one in await world.list("desk-15")] == ["110000"]


async def test_the_same_request_twice_at_once(world: DeskWorld) -> None:
    asked = desk_pb2.ApplyFilingRequest(application=application("desk-16"))
    desks = [world.another_desk(world.database) for _ in range(2)]
    answers = await asyncio.gather(
        *(desks[number % 2].ApplyFiling(asked, world.clerk) for number in range(20))
    )
    assert len({one.answer.filing.filing_id for one in answers}) == 1
    assert len(await world.list("desk-16")) == 1


async def test_one_request_id_for_two_people_at_once(world: DeskWorld) -> None:
    """The id is the first writer's; the other person has nothing of it."""
    between = Between(world.database)
    theirs = world.another_desk(between)
    shared = request_id()

    async def meanwhile() -> None:
        await world.apply("desk-17a", request_id=shared)

    between.before["INSERT INTO filing.person"] = meanwhile
    asked = application("desk-17b", request_id=shared)
    with pytest.raises(Refusal, match="REQUEST_ID_REUSED"):
        await theirs.ApplyFiling(desk_pb2.ApplyFilingRequest(application=asked), world.clerk)
    assert await world.list("desk-17b") == []


async def test_always_too_late_is_busy(world: DeskWorld) -> None:
    between = Between(world.database)
    theirs = world.another_desk(between)
    places = iter(("110000", "310000", "320100", "440100", "140200"))

    async def meanwhile() -> None:
        await world.apply("desk-18", care_place=next(places))
        between.before["INSERT INTO filing.person"] = meanwhile

    between.before["INSERT INTO filing.person"] = meanwhile
    asked = application("desk-18", **resident(care_place="370800"))
    with pytest.raises(Refusal, match="PERSON_BUSY"):
        await theirs.ApplyFiling(desk_pb2.ApplyFilingRequest(application=asked), world.clerk)
    assert len(await world.list("desk-18")) == 5


async def test_a_statement_that_fails_leaves_nothing(
    world: DeskWorld, admin: asyncpg.Connection
) -> None:
    """What cannot be stored spoils nobody else's change, and none of its own parts stays."""
    spoilt = application("desk-19", disease_code="\0", channel=NATIONAL)
    good = application("desk-20", channel=NATIONAL)
    first, second = await world.handle(envelope(application=spoilt), envelope(application=good))
    assert isinstance(first, Refusal)
    assert first.name == "INTERNAL"
    assert isinstance(second, desk_pb2.DeskAnswer)
    assert second.filing.filing.state == ACCEPTED
    for table in ("filing", "person"):
        count = f"SELECT count(*) FROM filing.{table} WHERE person_id = $1"
        assert await admin.fetchval(count, person("desk-19")) == 0
    assert not await admin.fetchval(
        "SELECT count(*) FROM filing.request WHERE request_id = $1", spoilt.request_id
    )


@pytest.mark.parametrize("size", [1, 8, 64])
async def test_statements_per_batch_are_constant(
    world: DeskWorld, counting: Any, size: int
) -> None:
    """One identification, one SELECT, one statement that writes, whatever the size."""
    tokens = [f"desk-batch{size}-{number}" for number in range(size)]
    answers = await world.handle(
        *(envelope(application=application(one, channel=NATIONAL)) for one in tokens)
    )
    assert (counting.statements, len(world.enrollment.calls)) == (2, 1)
    filings = [one.filing.filing for one in answers if isinstance(one, desk_pb2.DeskAnswer)]
    cancellations = [
        desk_pb2.Cancellation(**about(token, filing))
        for token, filing in zip(tokens, filings, strict=True)
    ]
    await world.handle(*(envelope(cancellation=one) for one in cancellations))
    assert (counting.statements, len(world.enrollment.calls)) == (4, 2)
    assert [len(one) for one in world.settlement.calls] == [size]
    await world.handle(*(envelope(listing=desk_pb2.Listing(applicant=applicant(one)))
                         for one in tokens))  # fmt: skip
    assert (counting.statements, len(world.enrollment.calls)) == (6, 3)
    await world.handle(*(envelope(check=visit_check(one)) for one in tokens))
    assert (counting.statements, len(world.enrollment.calls)) == (7, 4)
    assert await world.handle() == []
    assert (counting.statements, len(world.enrollment.calls)) == (7, 4)


async def test_one_persons_changes_in_one_batch_see_each_other(
    world: DeskWorld, counting: Any
) -> None:
    first = application("desk-21", channel=NATIONAL)
    again = application("desk-21", channel=NATIONAL)
    elsewhere = application("desk-21", channel=NATIONAL, care_place="310000")
    made, refused, same, beside = await world.handle(
        *(envelope(application=one) for one in (first, again, first, elsewhere))
    )
    assert isinstance(refused, desk_pb2.DeskAnswer)
    assert Refusal.from_status(refused.error).name == "FILING_OVERLAPS"
    assert made == same
    assert isinstance(beside, desk_pb2.DeskAnswer)
    assert beside.filing.filing.care_place == "310000"
    assert counting.statements == 2


async def test_what_institutions_may(world: DeskWorld) -> None:
    """S0-19, S0-20: guide a patient through the national channels; upload one's own referrals."""
    upload = {"kind": REFERRAL, "channel": UPLOAD, "disease_code": "C34"}
    own, foreign, claimed, window = await world.handle(
        envelope(
            OWN_HOSPITAL,
            application=application("desk-22", referral_institution=OWN_HOSPITAL, **upload),
        ),
        envelope(application=application("desk-22", referral_institution=HOSPITAL, **upload)),
        envelope(
            application=application(
                "desk-22", kind=REFERRAL, channel=NATIONAL, referral_institution=OWN_HOSPITAL
            )
        ),
        envelope(application=application("desk-22")),
    )
    assert isinstance(own, desk_pb2.DeskAnswer)
    filing = own.filing.filing
    assert (filing.state, filing.referral_institution) == (ACCEPTED, OWN_HOSPITAL)
    assert errors(foreign, claimed, window) == [
        "FILING_NOT_ELIGIBLE",
        "FOREIGN_CODE",
        "FILING_CHANNEL_NOT_ALLOWED",
    ]
    change = desk_pb2.Change(**about("desk-22", filing), care_place="310000")
    assert errors(*await world.handle(envelope(change=change))) == ["FILING_CHANNEL_NOT_ALLOWED"]
    (moved,) = await world.handle(envelope(OWN_HOSPITAL, change=change))
    assert isinstance(moved, desk_pb2.DeskAnswer)
    assert (moved.filing.filing.care_place, moved.filing.filing.disease_code) == ("310000", "C34")
    history = {event.actor for record in await world.list("desk-22") for event in record.history}
    assert history == {f"institution/{OWN_HOSPITAL}"}


async def test_the_same_disease_again_needs_no_new_certificate(world: DeskWorld) -> None:
    """S0-23, S4-23: the referral before serves for a second transfer."""
    first = (
        await world.apply(
            "desk-23",
            kind=REFERRAL,
            referral_institution=OWN_HOSPITAL,
            disease_code="C34",
            materials=[filing_pb2.MATERIAL_REFERRAL_CERTIFICATE],
        )
    ).filing
    second = await world.apply(
        "desk-23", kind=REFERRAL, care_place="310000", earlier_filing=first.filing_id, materials=[]
    )
    assert second.filing.referral_institution == OWN_HOSPITAL
    assert second.filing.disease_code == "C34"


async def test_envelopes_are_held_against_what_they_carry(world: DeskWorld) -> None:
    asked = application("desk-24", channel=NATIONAL)
    corrupt = envelope(application=asked)
    corrupt.payload_digest = hashlib.sha256(b"other").digest()
    garbled = envelope(application=asked)
    garbled.payload = b"\xff"
    garbled.payload_digest = hashlib.sha256(garbled.payload).digest()
    settle, newer, elsewhere = (envelope(application=asked) for _ in range(3))
    settle.kind = types_pb2.EXCHANGE_KIND_SETTLE
    newer.contract_revision = 99
    elsewhere.insured_area = "440100"
    invalid = envelope(application=application("desk-24", request_id="short"))
    other = visit_check("desk-24")
    other.visit.insured_area = "440100"
    question = desk_pb2.GuidanceQuestion(insured_area=AREA, insurance=EMPLOYEE, care_place="110000")
    answers = await world.handle(
        corrupt, garbled, settle, newer, elsewhere, invalid,
        envelope(check=other), envelope(application=asked), envelope(question=question),
    )  # fmt: skip
    assert errors(*answers[:7]) == [
        "PAYLOAD_CORRUPT",
        "PAYLOAD_CORRUPT",
        "CONTRACT_TOO_OLD",
        "CONTRACT_TOO_OLD",
        "FOREIGN_CODE",
        "MESSAGE_INVALID",
        "FOREIGN_CODE",
    ]
    made, guided = answers[7:]
    assert isinstance(made, desk_pb2.DeskAnswer)
    assert made.filing.filing.state == ACCEPTED
    assert isinstance(guided, desk_pb2.DeskAnswer)
    assert [one.kind for one in guided.guidance.kinds][-1] == (
        types_pb2.FILING_KIND_OTHER_TEMPORARY
    )
    (item,) = (item for call in world.enrollment.calls for item in call.items)
    assert (item.institution, item.day) == (HOSPITAL, "2026-11-21")


async def test_what_is_not_decided_is_not_an_answer(world: DeskWorld) -> None:
    """Nobody may conclude from it that nothing was filed."""
    (lost,) = await world.handle(envelope(application=application("lost", channel=NATIONAL)))
    assert isinstance(lost, Refusal)
    assert (lost.name, lost.decided) == ("SERVICE_UNAVAILABLE", False)


async def test_without_a_fresh_directory_places_are_not_known(world: DeskWorld) -> None:
    """Nothing is filed to a place that cannot be looked up; what stands can be given up."""
    filing = (await world.apply("desk-26")).filing
    world.clock.ms += 3_600_000
    (stale,) = await world.handle(
        envelope(
            OWN_HOSPITAL,
            application=application("desk-26", channel=NATIONAL, care_place="310000"),
        )
    )
    assert isinstance(stale, Refusal)
    assert stale.name == "DIRECTORY_STALE"
    inside = await world.apply("desk-26", care_place="440100")
    assert inside.filing.state == ACCEPTED
    assert (await world.cancel("desk-26", filing)).filing.state == CANCELLED


async def test_request_ids_belong_to_the_institution(world: DeskWorld) -> None:
    shared = request_id()
    mine, theirs = await world.handle(
        envelope(application=application("desk-25", channel=NATIONAL, request_id=shared)),
        envelope(
            "H11010200002",
            application=application(
                "desk-25", channel=NATIONAL, request_id=shared, care_place="310000"
            ),
        ),
    )
    assert isinstance(mine, desk_pb2.DeskAnswer)
    assert isinstance(theirs, desk_pb2.DeskAnswer)
    assert mine.filing.filing.filing_id != theirs.filing.filing.filing_id


@pytest.mark.parametrize(
    ("number", "title", "labels"),
    [
        (1, "跨省异地就医登记备案表", {"备案类型": "异地长期居住人员", "备案地": "北京市"}),
        (2, "个人承诺书", {"开始日期": "2026-11-21", "承诺人签名": ""}),
    ],
)
async def test_forms(world: DeskWorld, number: int, title: str, labels: dict[str, str]) -> None:
    filing = (await world.apply(f"form{number}", **resident())).filing
    request = desk_pb2.GetFilingFormRequest(
        filing_id=filing.filing_id, insured_area=AREA, form=number
    )
    form = await world.servicer.GetFilingForm(request, world.clerk)
    assert (form.title, form.person_id) == (title, person(f"form{number}"))
    assert [one.filled_by for one in form.fields][:3] == ["name", "id_number", ""]
    assert labels.items() <= {one.label: one.value for one in form.fields}.items()
    assert bool(form.text) is (number == 2)


async def test_guidance_for_a_clerk(world: DeskWorld) -> None:
    """医保发〔2024〕21号: material, validity, lock-in and late filing, with their clauses."""
    question = desk_pb2.GuidanceQuestion(
        insured_area="440802",
        insurance=EMPLOYEE,
        care_place="110105",
        kind=types_pb2.FILING_KIND_LONG_TERM_RESIDENT,
    )
    request = desk_pb2.GetGuidanceRequest(question=question)
    (kind,) = (await world.servicer.GetGuidance(request, world.clerk)).guidance.kinds
    assert (list(kind.required), list(kind.any_of), kind.promise) == ([FORM], [PERMIT], True)
    assert "6个月" in kind.lock_in
    assert all(one.citation and one.provenance for one in kind.sources)


async def test_no_credential_nor_clerk_is_kept(world: DeskWorld, admin: asyncpg.Connection) -> None:
    secret = "token-of-the-desk"
    await world.apply(secret, operator="经办人姓名")
    for table in ("filing", "history", "request", "audit", "person"):
        for (row,) in await admin.fetch(f"SELECT t::text FROM filing.{table} AS t"):
            assert secret not in row
            assert "经办人姓名" not in row


def errors(*answers: desk_pb2.DeskAnswer | Refusal) -> list[str]:
    """The reasons of refusals that were decided."""
    names = []
    for one in answers:
        assert isinstance(one, desk_pb2.DeskAnswer), one
        assert one.HasField("error"), one
        names.append(Refusal.from_status(one.error).name)
    return names
