"""PROTOCOL §10 by real `kill -9`: what dies, what the journals hold then, what recovery gives.

Somebody of 湛江 is treated in 北京: 北京 is the care place, 广东 the insured place, the nation lies
between. Each test breaks one thing at one place, looks into the journals with plain SQL, repairs
it, waits until nothing is open, and lets `yidi verify` compare everything.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import asyncpg
import pytest
from ports import free_port
from real_network import RealNetwork, until
from world import BEIJING, GUANGDONG, GUANGZHOU, HOSPITALS, ZHANJIANG, Patient, outcomes

from infra.cli.client import Clients
from infra.cli.verify import verify
from infra.local.network import HOST, Process
from infra.runtime.clock import monotonic_us
from infra.runtime.config import NATION
from infra.runtime.database import app_role
from infra.runtime.errors import Refusal
from infra.runtime.failpoints import Action, Fault, Place, arm, disarm
from yidi.common.v1 import types_pb2
from yidi.gateway.v1 import gateway_pb2

pytestmark = pytest.mark.usefixtures("healed")

COMPLETED = types_pb2.SETTLEMENT_STATE_COMPLETED
CALL_S = 1.5
"""Enough for a settlement, and so short that a row left PENDING is soon swept (5 s later)."""


class Held(NamedTuple):
    """What the three journals hold of one settlement id; None and False: no row."""

    care: str | None
    nation: bool
    insured: str | None


class Line(NamedTuple):
    """A line of the table: who dies at which place, what is held then, what recovery gives."""

    place: Place
    site: str
    role: str
    held: Held
    gives: str


NOTHING = Held(None, False, None)
DOUBTFUL_NOWHERE = Held("IN_DOUBT", False, None)
LINES = {
    "2": Line(
        Place.CARE_OPEN_AFTER, BEIJING, "settlement", Held("PENDING", False, None), "ABORTED"
    ),
    "2-gateway": Line(
        Place.GATEWAY_RELAY_BEFORE, BEIJING, "gateway", Held("PENDING", False, None), "ABORTED"
    ),
    "3": Line(Place.NATION_RELAY_BEFORE, NATION, "relay", DOUBTFUL_NOWHERE, "ABORTED"),
    "4": Line(Place.INSURED_DECIDE_BEFORE, GUANGDONG, "settlement", DOUBTFUL_NOWHERE, "ABORTED"),
    "6": Line(
        Place.INSURED_DECIDE_AFTER,
        GUANGDONG,
        "settlement",
        Held("IN_DOUBT", False, "COMMITTED"),
        "COMPLETED",
    ),
    "6-nation": Line(
        Place.NATION_RELAY_AFTER,
        NATION,
        "relay",
        Held("IN_DOUBT", False, "COMMITTED"),
        "COMPLETED",
    ),
    "7": Line(
        Place.NATION_RECORD_AFTER,
        NATION,
        "relay",
        Held("IN_DOUBT", True, "COMMITTED"),
        "COMPLETED",
    ),
    "8": Line(
        Place.CARE_CLOSE_BEFORE,
        BEIJING,
        "settlement",
        Held("PENDING", True, "COMMITTED"),
        "COMPLETED",
    ),
    "8-gateway": Line(
        Place.GATEWAY_RELAY_AFTER,
        BEIJING,
        "gateway",
        Held("PENDING", True, "COMMITTED"),
        "COMPLETED",
    ),
    "9": Line(
        Place.CARE_CLOSE_AFTER,
        BEIJING,
        "settlement",
        Held("COMPLETED", True, "COMMITTED"),
        "COMPLETED",
    ),
}


@pytest.fixture(scope="module")
async def twin(breakable: RealNetwork) -> AsyncIterator[None]:
    """A second settlement process of 北京: nobody calls it, and it recovers like the first."""
    (first,) = breakable.children(BEIJING, "settlement")
    plan = replace(first.plan, name=f"{BEIJING}-twin", internal=f"{HOST}:{free_port()}")
    breakable.start([plan])
    yield
    process = breakable.network.children.pop(plan.name).process
    process.kill()
    process.wait(5)


@pytest.mark.parametrize("number", LINES)
async def test_a_process_is_killed(breakable: RealNetwork, patient: Patient, number: str) -> None:
    """PROTOCOL §10 lines 2, 3, 4, 6, 7, 8, 9: SIGKILL in the middle of one settlement."""
    line = LINES[number]
    await _arm(breakable, Fault(place=line.place, action=Action.KILL, site=line.site))
    request = breakable.request(patient)
    await _lost(breakable.settle(request, timeout=CALL_S))
    dead = await breakable.killed(line.site, line.role)
    settlement_id = await _id_of(breakable, request)
    await _comes_to(breakable, settlement_id, line.held)
    await _restarted(breakable, dead, patient)
    await breakable.nothing_open()
    await _final(breakable, request, line.gives)


async def test_killed_before_pending_is_durable(breakable: RealNetwork, patient: Patient) -> None:
    """PROTOCOL §10 line 1: nothing exists anywhere, and the caller's retry settles."""
    before = await _census(breakable)
    await _arm(breakable, Fault(place=Place.CARE_OPEN_BEFORE, action=Action.KILL, site=BEIJING))
    request = breakable.request(patient)
    await _lost(breakable.settle(request, timeout=CALL_S))
    dead = await breakable.killed(BEIJING, "settlement")
    assert await _census(breakable) == before
    await _restarted(breakable, dead, patient)
    assert (await breakable.settle(request)).state == COMPLETED
    await _final(breakable, request, "COMPLETED")


async def test_postgresql_of_the_insured_site_dies_during_the_decide_statement(
    breakable: RealNetwork, patient: Patient
) -> None:
    """PROTOCOL §10 line 5: the statement waits for a lock when its server gets SIGKILL."""
    # So that there is a row to lock.
    assert (await breakable.settle(breakable.request(patient))).state == COMPLETED
    request = breakable.request(patient)
    async with _locked(breakable, patient):
        calling = asyncio.create_task(_lost(breakable.settle(request)))

        async def waits() -> bool:
            return bool(
                await breakable.rows(
                    GUANGDONG,
                    "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND usename = $1",
                    app_role(GUANGDONG, "settlement"),
                )
            )

        await until(waits, within_s=30)
        breakable.network.databases[GUANGDONG].kill()
    await calling
    settlement_id = await _id_of(breakable, request)
    assert await _care_state(breakable, settlement_id) == "IN_DOUBT"
    breakable.network.databases[GUANGDONG].start()
    await breakable.nothing_open()
    # The statement had not been committed: whether recovery or anybody else was quicker is final.
    state = await _care_state(breakable, settlement_id)
    assert state in ("ABORTED", "COMPLETED")
    await breakable.answers(patient)
    await _final(breakable, request, state)


@pytest.mark.parametrize(
    ("place", "action", "journaled"),
    [
        (Place.NATION_RECORD_BEFORE, Action.RAISE, False),
        (Place.NATION_RECORD_AFTER, Action.LOSE_ANSWER, True),
    ],
)
async def test_the_nation_cannot_journal(
    breakable: RealNetwork, patient: Patient, place: Place, action: Action, journaled: bool
) -> None:
    """PROTOCOL §10 line 7: what the nation has not journaled it does not pass on as committed."""
    await _arm(breakable, Fault(place=place, action=action, times=0))
    request = breakable.request(patient)
    await _lost(breakable.settle(request, timeout=CALL_S))
    settlement_id = await _id_of(breakable, request)
    # Recovery meets the same fault, so it stays like this until the nation can write again.
    await _comes_to(breakable, settlement_id, Held("IN_DOUBT", journaled, "COMMITTED"))
    disarm(breakable.network.plan.failpoints_folder)
    await breakable.nothing_open()
    await _final(breakable, request, "COMPLETED")


async def test_postgresql_of_the_nation_dies(breakable: RealNetwork, patient: Patient) -> None:
    """PROTOCOL §10 line 7: decided, and the nation's server gets SIGKILL before its write."""
    folder = await _arm(
        breakable, Fault(place=Place.NATION_RECORD_BEFORE, action=Action.DELAY, ms=500)
    )
    request = breakable.request(patient)
    calling = asyncio.create_task(_lost(breakable.settle(request)))
    await until(lambda: _fired(folder), within_s=30)
    breakable.network.databases[NATION].kill()
    await calling
    settlement_id = await _id_of(breakable, request)
    assert await _care_state(breakable, settlement_id) == "IN_DOUBT"
    assert await _decisions(breakable, settlement_id) == ["COMMITTED"]
    breakable.network.databases[NATION].start()
    await breakable.nothing_open()
    await _final(breakable, request, "COMPLETED")


async def test_an_answer_that_never_came_is_reversed(
    breakable: RealNetwork, patient: Patient
) -> None:
    """PROTOCOL §10 line 9: the front door dies before it answers, and the institution reverses."""
    await _arm(breakable, Fault(place=Place.GATEWAY_ANSWER_BEFORE, action=Action.KILL))
    request = breakable.request(patient)
    await _lost(breakable.settle(request, timeout=CALL_S))
    dead = await breakable.killed(BEIJING, "gateway")
    settlement_id = await _id_of(breakable, request)
    await _comes_to(breakable, settlement_id, Held("COMPLETED", True, "COMMITTED"))
    await _restarted(breakable, dead, patient)
    stored = await breakable.settle(request)
    assert stored.settlement_id == settlement_id
    undo = await _reverse(breakable, settlement_id)
    assert undo.state == COMPLETED
    await _undone(breakable, request, undo.settlement_id)


async def test_a_reversal_in_doubt_that_was_decided(
    breakable: RealNetwork, patient: Patient
) -> None:
    """PROTOCOL §10 line 11, line 6 for the undo's own id."""
    request = breakable.request(patient)
    original = await breakable.settle(request)
    await _arm(breakable, Fault(place=Place.INSURED_DECIDE_AFTER, action=Action.KILL))
    undo_request = f"undo-{uuid4()}"
    await _lost(_reverse(breakable, original.settlement_id, undo_request, timeout=CALL_S))
    dead = await breakable.killed(GUANGDONG, "settlement")
    (undo_id,) = await _undos(breakable, original.settlement_id)
    await _comes_to(breakable, undo_id, Held("IN_DOUBT", False, "COMMITTED"))
    assert await _bill_state(breakable, request) == "COMPLETED"
    await _restarted(breakable, dead, patient)
    await breakable.nothing_open()
    again = await _reverse(breakable, original.settlement_id, undo_request)
    assert (again.settlement_id, again.state) == (undo_id, COMPLETED)
    await _undone(breakable, request, undo_id)


async def test_a_refund_in_doubt_that_never_arrived(
    breakable: RealNetwork, patient: Patient
) -> None:
    """PROTOCOL §10 line 11, line 3 for the undo's own id: the original goes on standing."""
    request = breakable.request(patient)
    original = await breakable.settle(request)
    # Recovery meets the same fault until it is mended.
    await _arm(breakable, Fault(place=Place.NATION_RELAY_BEFORE, action=Action.RAISE, times=0))
    undo_request = f"undo-{uuid4()}"
    await _lost(_refund(breakable, original.settlement_id, undo_request, timeout=CALL_S))
    (undo_id,) = await _undos(breakable, original.settlement_id)
    await _comes_to(breakable, undo_id, DOUBTFUL_NOWHERE)
    disarm(breakable.network.plan.failpoints_folder)
    await breakable.nothing_open()
    assert await _held(breakable, undo_id) == Held("ABORTED", False, "ABORTED")
    refused = await _lost(_refund(breakable, original.settlement_id, undo_request))
    assert (refused.name, refused.details["settlement_id"]) == ("SETTLEMENT_ABORTED", undo_id)
    await _final(breakable, request, "COMPLETED")
    undo = await _refund(breakable, original.settlement_id, f"undo-{uuid4()}")
    await _undone(breakable, request, undo.settlement_id)


async def test_recovery_dies_between_naming_an_undo_and_opening_it(
    breakable: RealNetwork, patient: Patient
) -> None:
    """PROTOCOL §10 line 11: a cancelled original stands, its undo's id was never used."""
    await _arm(breakable, Fault(place=Place.NATION_RELAY_AFTER, action=Action.KILL))
    await _arm(breakable, Fault(place=Place.CARE_LINK_AFTER, action=Action.KILL), "link")
    request = breakable.request(patient)
    await _lost(breakable.settle(request, timeout=CALL_S))
    nation = await breakable.killed(NATION, "relay")
    settlement_id = await _id_of(breakable, request)
    cancelled = await _lost(_reverse(breakable, settlement_id, timeout=CALL_S))
    assert cancelled.name == "OUTCOME_PENDING"
    # Recovery may be on its way, and die, before everything else serves.
    dying = [child.plan.name for child in breakable.children(BEIJING, "settlement")]
    breakable.start([nation], without=dying)
    dead = await breakable.killed(BEIJING, "settlement", within_s=30)
    await _comes_to(breakable, settlement_id, Held("COMPLETED", True, "COMMITTED"))
    (named,) = await breakable.rows(
        BEIJING,
        "SELECT undone_by::text AS id FROM settlement.care_journal WHERE settlement_id = $1",
        settlement_id,
    )
    assert await _held(breakable, named["id"]) == NOTHING
    await _restarted(breakable, dead, patient)

    async def free() -> bool:
        return await _bill_state(breakable, request) == "UNDONE"

    await until(free, within_s=30)
    await breakable.nothing_open()
    (undo_id,) = await _undos(breakable, settlement_id)
    assert undo_id != named["id"]
    answer = await _reverse(breakable, settlement_id)
    assert answer.settlement_id == undo_id
    await _undone(breakable, request, undo_id)


async def test_a_commit_delayed_past_abort_is_refused(
    breakable: RealNetwork, patient: Patient
) -> None:
    """PROTOCOL §10 line 4: a commit that comes after ABORT gets the tombstone, nothing is paid."""
    # Counts what the insured place has answered: recovery's question and the late commit.
    answers = Fault(place=Place.RELAY_INSURED_AFTER, action=Action.DELAY, times=9)
    await _arm(breakable, answers, "answers")
    late = Fault(place=Place.NATION_RELAY_BEFORE, action=Action.LATE, ms=6_000)
    folder = await _arm(breakable, late)
    paid = await _accumulators(breakable, patient)
    request = breakable.request(patient)
    await _lost(breakable.settle(request, timeout=CALL_S))
    await breakable.nothing_open()
    settlement_id = await _id_of(breakable, request)
    tombstone = Held("ABORTED", False, "ABORTED")
    assert await _held(breakable, settlement_id) == tombstone
    assert await _fired(folder, "answers") == 1
    await until(lambda: _fired(folder, "answers", at_least=2), within_s=30)
    assert await _held(breakable, settlement_id) == tombstone
    assert await _accumulators(breakable, patient) == paid
    await _final(breakable, request, "ABORTED")


@pytest.mark.parametrize(
    "place",
    [
        Place.CARE_OPEN_AFTER,
        Place.GATEWAY_RELAY_BEFORE,
        Place.NATION_RELAY_BEFORE,
        Place.INSURED_DECIDE_BEFORE,
        Place.INSURED_DECIDE_AFTER,
        Place.CARE_CLOSE_BEFORE,
    ],
)
async def test_the_caller_cancels(breakable: RealNetwork, patient: Patient, place: Place) -> None:
    """PROTOCOL §10 lines 2–8, with a caller that leaves instead of a process that dies."""
    folder = await _arm(breakable, Fault(place=place, action=Action.DELAY, ms=500))
    request = breakable.request(patient)
    calling = asyncio.create_task(breakable.settle(request))
    await until(lambda: _fired(folder), within_s=30)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    await breakable.nothing_open()
    # Once PENDING is durable a caller that leaves changes nothing but who listens.
    told = await breakable.standing(request)
    assert told.state == COMPLETED
    assert told.settlement_id == await _id_of(breakable, request)
    await _final(breakable, request, "COMPLETED")


async def test_one_site_is_a_black_hole(breakable: RealNetwork, patient: Patient) -> None:
    """PROTOCOL §10 line 3 for a whole site: the others go on, its breaker stops new rows."""
    (northern,) = await breakable.patients(1, places=(GUANGZHOU,), area=BEIJING)
    proxies = breakable.network.proxies
    assert proxies is not None
    proxies.set(f"{NATION}-{GUANGDONG}", "blackhole")
    await until(lambda: _refused_at_the_door(breakable, patient), within_s=30)
    before = await _census(breakable)
    refusals = await outcomes(
        breakable.settle(breakable.request(patient), timeout=CALL_S) for _ in range(5)
    )
    assert [refusal.name for refusal in refusals] == ["SITE_UNREACHABLE"] * 5
    assert await _census(breakable) == before
    for where, person in (
        (ZHANJIANG, patient),
        (GUANGZHOU, patient),
        (BEIJING, northern),
        (GUANGZHOU, northern),
    ):
        answer = await breakable.settle(breakable.request(person, care_area=where))
        assert answer.state == COMPLETED
    proxies.heal()
    await breakable.nothing_open()
    await breakable.answers(patient)
    request = breakable.request(patient)
    await breakable.settle(request)
    await _final(breakable, request, "COMPLETED")


@pytest.mark.usefixtures("twin")
async def test_a_recoverer_dies_with_a_leased_row(breakable: RealNetwork, patient: Patient) -> None:
    """PROTOCOL §10 line 10: another recoverer asks when the lease is over; one outcome."""
    await _arm(breakable, Fault(place=Place.CARE_LEASE_AFTER, action=Action.KILL), "lease")
    lost = Fault(place=Place.GATEWAY_RELAY_AFTER, action=Action.LOSE_ANSWER, site=BEIJING)
    await _arm(breakable, lost)
    request = breakable.request(patient)
    await _lost(breakable.settle(request, timeout=CALL_S))
    dead = await breakable.killed(BEIJING, "settlement")
    settlement_id = await _id_of(breakable, request)
    await _comes_to(breakable, settlement_id, Held("IN_DOUBT", True, "COMMITTED"))
    # The other one is enough: nobody is started again.
    await breakable.nothing_open()
    assert await _care_state(breakable, settlement_id) == "COMPLETED"
    await _restarted(breakable, dead, patient)
    await _final(breakable, request, "COMPLETED")
    assert await _closed(breakable, settlement_id) == ["IN_DOUBT", "COMPLETED"]


@pytest.mark.usefixtures("twin")
async def test_the_handler_comes_back_after_two_recoverers(
    breakable: RealNetwork, patient: Patient
) -> None:
    """PROTOCOL §10 line 10: the handler's answer is held until recovery has closed its row."""
    # Counts the closes: recovery's and, when it comes back, the handler's.
    closes = Fault(place=Place.CARE_CLOSE_AFTER, action=Action.DELAY, times=9, site=BEIJING)
    await _arm(breakable, closes, "closes")
    held = Fault(place=Place.GATEWAY_RELAY_AFTER, action=Action.DELAY, ms=8_500, site=BEIJING)
    folder = await _arm(breakable, held)
    request = breakable.request(patient)
    await _lost(breakable.settle(request, timeout=CALL_S))
    settlement_id = await _id_of(breakable, request)
    await _comes_to(breakable, settlement_id, Held("PENDING", True, "COMMITTED"))
    await breakable.nothing_open()
    assert await _fired(folder, "closes") == 1
    await until(lambda: _fired(folder, "closes", at_least=2), within_s=30)
    await _final(breakable, request, "COMPLETED")
    assert await _closed(breakable, settlement_id) == ["IN_DOUBT", "COMPLETED"]


async def _refused_at_the_door(net: RealNetwork, patient: Patient) -> bool:
    """Whether a settlement is refused without leaving a row: the front door's breaker is open."""
    request = net.request(patient)
    await _lost(net.settle(request, timeout=CALL_S))
    return not await net.rows(
        BEIJING,
        "SELECT FROM settlement.request_key WHERE request_id = $1",
        request.request_id,
    )


async def _arm(net: RealNetwork, fault: Fault, name: str = "fault") -> Path:
    """Arm a fault; return the folder that tells how often it has acted."""
    folder = net.network.plan.failpoints_folder
    arm(folder, name, fault)
    # A process looks into the folder when it reaches a place, but not within 50 ms of the last
    # look, and nothing outside shows when it does.
    begun_us = monotonic_us()

    async def looked() -> bool:
        return monotonic_us() - begun_us > 60_000

    await until(looked, within_s=30)
    return folder


async def _fired(folder: Path, name: str = "fault", *, at_least: int = 0) -> int:
    """How often a fault has acted; 0 while that is less than `at_least`."""
    count = _tokens(folder, name)
    return count if count >= at_least else 0


def _tokens(folder: Path, name: str) -> int:
    return len(list(folder.glob(f"{name}.fired.*")))


async def _restarted(net: RealNetwork, dead: Process, patient: Patient) -> None:
    """Start a process again; return when its neighbours have found it."""
    net.start([dead])
    await net.answers(patient)


async def _lost(call: Awaitable[Any]) -> Refusal:
    """The refusal of a call that must not have an answer."""
    with pytest.raises(Refusal) as caught:
        await call
    return caught.value


async def _reverse(
    net: RealNetwork, settlement_id: str, request_id: str = "", *, timeout: float = 10
) -> gateway_pb2.ReverseResponse:
    request = gateway_pb2.ReverseRequest(
        request_id=request_id or f"undo-{uuid4()}", settlement_id=settlement_id
    )
    answer: gateway_pb2.ReverseResponse = await net.door(BEIJING, HOSPITALS[BEIJING]).Reverse(
        request, timeout=timeout
    )
    return answer


async def _refund(
    net: RealNetwork, settlement_id: str, request_id: str, *, timeout: float = 10
) -> gateway_pb2.RefundResponse:
    request = gateway_pb2.RefundRequest(request_id=request_id, settlement_id=settlement_id)
    answer: gateway_pb2.RefundResponse = await net.door(BEIJING, HOSPITALS[BEIJING]).Refund(
        request, timeout=timeout
    )
    return answer


async def _one(net: RealNetwork, site: str, statement: str, *arguments: Any) -> Any:
    """The first column of the only row, or None without one."""
    rows = await net.rows(site, statement, *arguments)
    assert len(rows) <= 1
    return rows[0][0] if rows else None


async def _id_of(net: RealNetwork, request: gateway_pb2.SettleRequest) -> str:
    return str(
        await _one(
            net,
            BEIJING,
            "SELECT settlement_id FROM settlement.care_journal WHERE request_id = $1",
            request.request_id,
        )
    )


async def _care_state(net: RealNetwork, settlement_id: str) -> str | None:
    state: str | None = await _one(
        net,
        BEIJING,
        "SELECT state FROM settlement.care_journal WHERE settlement_id = $1",
        settlement_id,
    )
    return state


async def _decisions(net: RealNetwork, settlement_id: str) -> list[str]:
    rows = await net.rows(
        GUANGDONG, "SELECT state FROM settlement.decision WHERE settlement_id = $1", settlement_id
    )
    return [row["state"] for row in rows]


async def _held(net: RealNetwork, settlement_id: str) -> Held:
    """What the three journals hold; a second decision row would be a failure of its own."""
    nation = await net.rows(
        NATION, "SELECT FROM relay.outcome WHERE settlement_id = $1", settlement_id
    )
    decided = await _decisions(net, settlement_id)
    assert len(nation) <= 1
    assert len(decided) <= 1
    care = await _care_state(net, settlement_id)
    return Held(care, bool(nation), decided[0] if decided else None)


async def _comes_to(net: RealNetwork, settlement_id: str, held: Held) -> None:
    """Check what the journals hold once the hops that live on have written what they know: the
    caller may be told before, when its time is over."""

    async def look() -> bool:
        return await _held(net, settlement_id) == held

    with suppress(TimeoutError):
        await until(look, within_s=10)
    assert await _held(net, settlement_id) == held


async def _census(net: RealNetwork) -> dict[str, int]:
    """How many rows there are in each table that a settlement may write."""
    tables = (
        (BEIJING, "settlement.care_journal"),
        (BEIJING, "settlement.request_key"),
        (BEIJING, "settlement.bill"),
        (NATION, "relay.outcome"),
        (GUANGDONG, "settlement.decision"),
    )
    return {table: await _one(net, site, f"SELECT count(*) FROM {table}") for site, table in tables}


async def _accumulators(net: RealNetwork, patient: Patient) -> list[asyncpg.Record]:
    return await net.rows(
        GUANGDONG,
        "SELECT * FROM settlement.accumulator WHERE person_id = $1 ORDER BY period",
        patient.person_id,
    )


async def _bill_state(net: RealNetwork, request: gateway_pb2.SettleRequest) -> str:
    return str(
        await _one(
            net,
            BEIJING,
            "SELECT state FROM settlement.bill WHERE (institution, visit_id, bill_id)"
            " = ($1, $2, $3)",
            request.bill.reference.institution,
            request.bill.reference.visit_id,
            request.bill.reference.bill_id,
        )
    )


async def _undos(net: RealNetwork, original_id: str) -> list[str]:
    """The settlements that were opened to undo an original."""
    rows = await net.rows(
        BEIJING,
        "SELECT settlement_id::text AS id FROM settlement.care_journal WHERE undoes = $1",
        original_id,
    )
    return [row["id"] for row in rows]


async def _closed(net: RealNetwork, settlement_id: str) -> list[str]:
    """The states that a row was given after it was opened, in order."""
    rows = await net.rows(
        BEIJING,
        "SELECT action FROM settlement.audit WHERE subject = $1"
        " AND action NOT IN ('open', 'detail uploaded') ORDER BY at",
        settlement_id,
    )
    return [row["action"] for row in rows]


async def _equal(net: RealNetwork, settlement_id: str) -> bytes:
    """Check that all three journals hold the same bytes; return their digest."""
    digests = [
        await _one(
            net, site, f"SELECT outcome_digest FROM {table} WHERE settlement_id = $1", settlement_id
        )
        for site, table in (
            (BEIJING, "settlement.care_journal"),
            (NATION, "relay.outcome"),
            (GUANGDONG, "settlement.decision"),
        )
    ]
    assert digests[0] is not None
    assert digests == [digests[0]] * 3
    return bytes(digests[0])


async def _final(net: RealNetwork, request: gateway_pb2.SettleRequest, gives: str) -> None:
    """Check a settlement that has its outcome `gives`: journals, bill, answer, `yidi verify`."""
    settlement_id = await _id_of(net, request)
    assert await _bill_state(net, request) == gives
    if gives == "COMPLETED":
        assert await _held(net, settlement_id) == Held("COMPLETED", True, "COMMITTED")
        digest = await _equal(net, settlement_id)
        answer = await net.settle(request)
        assert (answer.settlement_id, answer.state) == (settlement_id, COMPLETED)
        assert answer.result.outcome_digest == digest
    else:
        assert await _held(net, settlement_id) == Held("ABORTED", False, "ABORTED")
        refused = await _lost(net.settle(request))
        assert refused.name == "SETTLEMENT_ABORTED"
        assert refused.details["settlement_id"] == settlement_id
        # Final for its request id; the bill is free.
        again = gateway_pb2.SettleRequest()
        again.CopyFrom(request)
        again.request_id = f"req-{uuid4()}"
        answer = await net.settle(again)
        assert answer.state == COMPLETED
        assert answer.settlement_id != settlement_id
        await _equal(net, answer.settlement_id)
    await _clean(net)


async def _undone(net: RealNetwork, request: gateway_pb2.SettleRequest, undo_id: str) -> None:
    """Check that the settlement of `request` is undone by `undo_id`, once, at every site."""
    original_id = await _id_of(net, request)
    for settlement_id in (original_id, undo_id):
        assert await _held(net, settlement_id) == Held("COMPLETED", True, "COMMITTED")
        await _equal(net, settlement_id)
    assert await _bill_state(net, request) == "UNDONE"
    undos = await net.rows(
        GUANGDONG,
        "SELECT undo_id::text AS id FROM settlement.undo WHERE original_id = $1",
        original_id,
    )
    assert [row["id"] for row in undos] == [undo_id]
    await _clean(net)


async def _clean(net: RealNetwork) -> None:
    """What `yidi verify` says."""
    # Connections of its own, as the command has: the others may wait for a restarted process.
    clients = Clients(net.clients.sites)
    try:
        verification = await verify(clients)
    finally:
        await clients.close()
    assert verification.ok, verification.facts()
    assert verification.open_count == 0


@asynccontextmanager
async def _locked(net: RealNetwork, patient: Patient) -> AsyncIterator[None]:
    """Hold the person's accumulators, until the end or until the server dies."""
    connection = await net.connect(GUANGDONG)
    try:
        await connection.execute("BEGIN")
        rows = await connection.fetch(
            "SELECT FROM settlement.accumulator WHERE person_id = $1 FOR UPDATE", patient.person_id
        )
        assert rows
        yield
    finally:
        connection.terminate()
