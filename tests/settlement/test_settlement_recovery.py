"""Recovery asks and never repeats (PROTOCOL §1, §10 lines 2–10)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from healing import Healing, opening
from hypothesis import given
from hypothesis import strategies as st
from peers import Ask, Pass, Questions, Results
from world import BEIJING, GUANGDONG, Patient, envelope, outcomes

from infra.runtime.clock import instant, new_id
from infra.runtime.errors import Reason, Refusal
from infra.runtime.exchange import ExchangeClient
from infra.runtime.failpoints import (
    Action,
    Failpoints,
    Fault,
    FolderFailpoints,
    Place,
    arm,
    disarm,
)
from infra.runtime.links import stub
from services.settlement.closing import closing_of
from services.settlement.domain.recovery import FIRST_MS, LAST_MS, SWEEP_AFTER_MS, wait_ms
from services.settlement.domain.states import State
from services.settlement.recovering import LEASE
from services.settlement.store.care import Closing
from yidi.common.v1 import envelope_pb2, types_pb2
from yidi.relay.v1 import relay_pb2_grpc
from yidi.settlement.v1 import care_pb2, care_pb2_grpc, insured_pb2_grpc

ABORTED = types_pb2.SETTLEMENT_STATE_ABORTED


@pytest.fixture
async def patient(healing: Healing) -> Patient:
    [made] = await healing.world.patients(1)
    return made


async def test_what_was_decided_is_completed_and_what_was_not_is_aborted(
    healing: Healing, patient: Patient
) -> None:
    """§10 lines 3 and 6: ABORT returns the row there is, and the nation journals it on the way."""
    decided = await healing.doubtful(healing.world.request(patient))
    lost_request = healing.world.request(patient)
    lost = await healing.doubtful(lost_request, decided=False)
    commits = len(healing.peer.received)
    await healing.heal()
    assert (await healing.row(decided))["state"] == "COMPLETED"
    assert (await healing.row(decided))["bill"] == "COMPLETED"
    row = await healing.row(lost)
    assert (row["state"], row["bill"], row["next_attempt_at"]) == ("ABORTED", "ABORTED", None)
    assert len(healing.peer.received) == commits == 0, "a commit is never sent again"
    assert {item.id for item in healing.peer.asked} == {decided, lost}
    assert {item.intent for item in healing.peer.asked} == {types_pb2.RESOLVE_INTENT_ABORT}
    # Final for its request id; the bill is free for another.
    with pytest.raises(Refusal) as caught:
        await healing.world.settle(lost_request)
    assert caught.value.name == "SETTLEMENT_ABORTED"
    lost_request.request_id += "-2"
    assert (await healing.world.settle(lost_request)).settlement_id != lost
    await healing.journals_agree()


async def test_the_last_undecided_reason_is_shown_with_aborted(
    healing: Healing, patient: Patient
) -> None:
    """The care row keeps it (PROTOCOL §1)."""

    async def refuse(envelopes: Sequence[envelope_pb2.Envelope], onward: Pass) -> Results:
        busy = Refusal(Reason.ERROR_REASON_PERSON_BUSY).status()
        return [envelope_pb2.ExchangeResult(id=one.id, error=busy) for one in envelopes]

    healing.peer.answer = refuse
    with pytest.raises(Refusal) as caught:
        await healing.world.settle(healing.world.request(patient))
    await healing.heal()
    care = healing.world.operator(care_pb2_grpc.CareServiceStub, BEIJING)
    shown = await care.ShowSettlement(
        care_pb2.ShowSettlementRequest(settlement_id=caught.value.details["settlement_id"]),
        timeout=30,
    )
    assert shown.row.state == ABORTED
    told = Refusal.from_status(shown.row.reason)
    assert (told.name, told.details["cause"]) == ("SETTLEMENT_ABORTED", "PERSON_BUSY")
    assert [entry.action for entry in shown.trail] == ["open", "IN_DOUBT", "ABORTED"]
    assert shown.attempts == 1


async def test_rows_pending_too_long_are_swept(healing: Healing) -> None:
    """Five seconds after the deadline, not before, whoever opened them (§10 line 2)."""
    now = instant(healing.clock)
    late, fresh = (
        opening(healing, deadline_at=now - timedelta(milliseconds=SWEEP_AFTER_MS + extra))
        for extra in (1, 0)
    )
    await healing.care.open([late, fresh], now)
    care = healing.world.operator(care_pb2_grpc.CareServiceStub, BEIJING)
    swept = await healing.store.sweep(now, timedelta(milliseconds=SWEEP_AFTER_MS), 100)
    assert swept == 1
    assert await healing.state(late.settlement_id) == "IN_DOUBT"
    assert (await healing.row(late.settlement_id))["bill"] == "IN_DOUBT"
    assert await healing.state(fresh.settlement_id) == "PENDING"
    listed = await care.ListInDoubt(care_pb2.ListInDoubtRequest(), timeout=30)
    assert {late.settlement_id, fresh.settlement_id} <= {
        one.row.settlement_id for one in listed.settlements
    }
    await healing.heal()
    assert await healing.state(late.settlement_id) == "ABORTED"
    assert await healing.state(fresh.settlement_id) == "ABORTED"
    left = await care.ListInDoubt(care_pb2.ListInDoubtRequest(), timeout=30)
    assert left.total_count == 0


async def test_two_recoverers_and_the_original_handler_make_one_outcome(
    healing: Healing,
) -> None:
    """§10 line 10: all read the same row; whoever loses gets the stored state."""
    patients = await healing.world.patients(12)
    held = asyncio.Event()
    arrived = asyncio.Event()

    async def hold(envelopes: Sequence[envelope_pb2.Envelope], onward: Pass) -> Results:
        arrived.set()
        await held.wait()
        return await onward(envelopes)

    healing.peer.answer = hold
    requests = [healing.world.request(one) for one in patients]
    running = asyncio.ensure_future(outcomes(healing.world.settle(one) for one in requests))
    await arrived.wait()
    healing.clock.ms += 12_000  # the rows are past their deadline; their handlers still wait
    recoverers = [healing.recovery() for _ in range(2)]
    await asyncio.gather(*(one.tick() for one in recoverers))
    held.set()
    await asyncio.gather(*(one.settle_all() for one in recoverers))
    answers = await running
    await healing.heal(*recoverers)
    states = set()
    for request, answer in zip(requests, answers, strict=True):
        row = await (await healing.world.admin(BEIJING)).fetchrow(
            "SELECT settlement_id::text AS id, state FROM settlement.care_journal "
            "WHERE request_id = $1",
            request.request_id,
        )
        decision = await healing.decision(row["id"])
        assert decision is not None
        final = {"COMMITTED": "COMPLETED", "ABORTED": "ABORTED"}[decision["state"]]
        assert row["state"] == final
        if isinstance(answer, Refusal):
            assert answer.name in ("OUTCOME_PENDING", "SETTLEMENT_ABORTED")
        else:
            assert final == "COMPLETED"
        states.add(final)
    assert states
    await healing.journals_agree()


async def test_rows_leased_by_a_dead_recoverer_come_back(
    healing: Healing, patient: Patient
) -> None:
    """A lease is over after ten seconds; until then nobody else asks."""
    settlement_id = await healing.doubtful(healing.world.request(patient))
    route = types_pb2.ROUTE_CROSS_PROVINCE
    now = instant(healing.clock)
    leased = await healing.store.lease(GUANGDONG, route, now, now + LEASE, 10)
    assert [row["settlement_id"] for row in leased] == [settlement_id]  # and its holder dies
    await healing.heal(rounds=3)
    assert await healing.state(settlement_id) == "IN_DOUBT"
    assert not healing.peer.asked
    healing.clock.ms += 3_000
    await healing.heal(rounds=1)
    assert await healing.state(settlement_id) == "COMPLETED"


async def test_two_recoverers_share_the_rows(healing: Healing) -> None:
    """SKIP LOCKED: no row goes to both, none is left out."""
    openings = [opening(healing) for _ in range(40)]
    now = instant(healing.clock)
    await healing.care.open(openings, now)
    await healing.care.close(
        [Closing(o.settlement_id, State.IN_DOUBT, None, None, None, b"") for o in openings], now
    )
    parts = await asyncio.gather(
        *(
            healing.store.lease(GUANGDONG, types_pb2.ROUTE_CROSS_PROVINCE, now, now + LEASE, 15)
            for _ in range(4)
        )
    )
    ids = [row["settlement_id"] for part in parts for row in part]
    assert len(ids) == len(set(ids))
    healing.clock.ms += 11_000
    await healing.heal()
    for one in openings:
        assert await healing.state(one.settlement_id) == "ABORTED"


class _Blackholed(ExchangeClient):
    """The own insured side never answers; the way across works."""

    def __init__(self, healing: Healing) -> None:
        self._works = healing.exchange()
        self.reached = asyncio.Event()
        self.over = asyncio.Event()

    async def resolve(
        self,
        route: types_pb2.Route.ValueType,
        items: Sequence[envelope_pb2.ResolveItem],
        seconds: float,
    ) -> Sequence[envelope_pb2.ExchangeResult]:
        if route != types_pb2.ROUTE_CROSS_PROVINCE:
            self.reached.set()
            await self.over.wait()
            raise Refusal(Reason.ERROR_REASON_SERVICE_UNAVAILABLE, service="settlement")
        return await self._works.resolve(route, items, seconds)

    async def exchange(
        self,
        route: types_pb2.Route.ValueType,
        envelopes: Sequence[envelope_pb2.Envelope],
        seconds: float,
    ) -> Sequence[envelope_pb2.ExchangeResult]:
        if route != types_pb2.ROUTE_CROSS_PROVINCE:
            self.reached.set()
            await self.over.wait()
            raise Refusal(Reason.ERROR_REASON_SERVICE_UNAVAILABLE, service="settlement")
        return await self._works.exchange(route, envelopes, seconds)


async def test_a_blackholed_site_holds_up_no_other(healing: Healing, patient: Patient) -> None:
    """Sites are asked, and undone at, independently of each other."""
    works = await healing.doubtful(healing.world.request(patient))
    holes = [
        opening(
            healing,
            insured_site=BEIJING,
            insured_area=BEIJING,
            route=types_pb2.ROUTE_LOCAL,
        )
        for _ in range(2)
    ]
    now = instant(healing.clock)
    await healing.care.open(holes, now)
    await healing.care.close(
        [Closing(o.settlement_id, State.IN_DOUBT, None, None, None, b"") for o in holes], now
    )
    exchange = _Blackholed(healing)
    recovery = healing.recovery(exchange=exchange)
    await recovery.tick()
    await exchange.reached.wait()
    await recovery.tick()
    await healing.completed(works)
    assert {await healing.state(o.settlement_id) for o in holes} == {"IN_DOUBT"}
    exchange.over.set()
    await recovery.settle_all()
    assert (await healing.row(holes[0].settlement_id))["attempts"] == 1
    await healing.heal(healing.recovery())
    assert {await healing.state(o.settlement_id) for o in holes} == {"ABORTED"}


async def test_a_cancellation_at_a_blackholed_site_holds_up_no_other(
    healing: Healing, patient: Patient
) -> None:
    """The undo waits for its site alone; sweeping and asking go on."""
    stuck = await healing.world.settle(healing.world.request(patient))
    admin = await healing.world.admin(BEIJING)
    await admin.execute(
        """UPDATE settlement.care_journal SET cancel_requested = true, next_attempt_at = $2,
           insured_site = '110000', route = 1 WHERE settlement_id = $1::uuid""",
        stuck.settlement_id,
        instant(healing.clock),
    )
    exchange = _Blackholed(healing)
    recovery = healing.recovery(exchange=exchange)
    async with asyncio.timeout(30):
        await recovery.tick()
        await exchange.reached.wait()
        works = await healing.doubtful(healing.world.request(patient))
        await recovery.tick()
        await healing.completed(works)
    exchange.over.set()
    await recovery.settle_all()
    await admin.execute(
        """UPDATE settlement.care_journal SET insured_site = $2, route = 3
           WHERE settlement_id = $1::uuid OR undoes = $1::uuid""",
        stuck.settlement_id,
        GUANGDONG,
    )
    healing.clock.ms += 11_000
    await healing.heal()
    await healing.heal()
    assert (await healing.row(stuck.settlement_id))["bill"] == "UNDONE"


async def test_who_does_not_answer_is_asked_again_later_and_later(
    healing: Healing, patient: Patient
) -> None:
    """Neither a missing answer, nor an error, nor `not_forwarded`, nor unknown closes a row."""
    settlement_id = await healing.doubtful(healing.world.request(patient))

    async def nothing(items: Questions, onward: Ask) -> Results:
        return []

    async def error(items: Questions, onward: Ask) -> Results:
        down = Refusal(Reason.ERROR_REASON_SITE_UNREACHABLE, site="广东省").status()
        return [
            envelope_pb2.ExchangeResult(id=one.id, error=down, not_forwarded=True) for one in items
        ]

    async def unknown(items: Questions, onward: Ask) -> Results:
        return [envelope_pb2.ExchangeResult(id=one.id, unknown=True) for one in items]

    async def broken(items: Questions, onward: Ask) -> Results:
        raise Refusal(Reason.ERROR_REASON_DATABASE_UNAVAILABLE)

    async def garbage(items: Questions, onward: Ask) -> Results:
        return [envelope_pb2.ExchangeResult(id=one.id, aborted=b"\xff") for one in items]

    recovery = healing.recovery()
    for number, answer in enumerate((nothing, error, unknown, broken, garbage), 1):
        healing.peer.resolve = answer
        before = instant(healing.clock)
        await recovery.tick()
        await recovery.settle_all()
        row = await healing.row(settlement_id)
        assert (row["state"], row["attempts"]) == ("IN_DOUBT", number), answer
        if answer is not garbage:
            expected = timedelta(milliseconds=wait_ms(number, 0.5))
            assert row["next_attempt_at"] == before + expected
        healing.clock.ms += 2_500
    healing.peer.reset()
    healing.clock.ms += 11_000
    await healing.heal()
    assert await healing.state(settlement_id) == "COMPLETED"
    assert not healing.peer.received


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_the_delay_grows_within_its_bounds(attempts: int, jitter: float) -> None:
    """0.2 s to 2 s, jitter over the upper half, never shorter for one attempt more."""
    assert FIRST_MS // 2 <= wait_ms(attempts, jitter) <= LAST_MS
    assert wait_ms(attempts, 0.0) <= wait_ms(attempts, jitter) <= 2 * wait_ms(attempts, 0.0)
    assert wait_ms(attempts, jitter) <= wait_ms(attempts + 1, jitter)


async def test_an_answer_that_cannot_be_read_spoils_only_its_own(healing: Healing) -> None:
    """The bytes of one item must not keep its neighbours in doubt."""
    item = care_pb2.CloseItem(id=new_id(healing.clock), rejected=b"\xff")
    assert closing_of(item).state is State.IN_DOUBT


DOUBTFUL, BATCH = 5_000, 256


async def test_five_thousand_doubtful_rows_drain_beside_new_work(
    healing: Healing, tmp_path: Path
) -> None:
    """Their answers were lost by failpoints: half were decided, half never left. While each batch
    of questions is under way a new settlement begins and ends; a stream of others goes on beside.
    """
    points = FolderFailpoints(tmp_path, site=BEIJING)
    channel = healing.world.channel(BEIJING, "settlement")
    exchange = ExchangeClient(
        insured=stub(insured_pb2_grpc.InsuredServiceStub, channel),
        relay=stub(relay_pb2_grpc.RelayServiceStub, channel),
        failpoints=points,
    )
    patients = await healing.world.patients(BATCH)
    doubtful: list[str] = []
    for place, action in (
        (Place.GATEWAY_RELAY_AFTER, Action.LOSE_ANSWER),
        (Place.GATEWAY_RELAY_BEFORE, Action.RAISE),
    ):
        arm(tmp_path, "lost", Fault(place=place, action=action, times=0))
        await _until_acting(points, place)
        for start in range(0, DOUBTFUL // 2, BATCH):
            part = patients[: min(BATCH, DOUBTFUL // 2 - start)]
            doubtful += await _lose(healing, exchange, part)
    decided = {one.id for one in healing.peer.received}
    assert decided == set(doubtful[: DOUBTFUL // 2])
    assert len(set(doubtful)) == DOUBTFUL
    assert await _states(healing, doubtful) == {("IN_DOUBT", 0): DOUBTFUL}
    disarm(tmp_path)
    await _until_acting(points, None)
    healing.peer.received.clear()

    newcomers = await healing.world.patients(60)
    beside, stream = newcomers[:20], newcomers[20:]
    batches: list[int] = []
    during: list[str] = []

    async def interrupt(items: Questions, onward: Ask) -> Results:
        """The answers are held until one more new settlement is made: who starved would stop it."""
        results = await onward(items)
        request = healing.world.request(beside[len(batches)])
        batches.append(len(items))
        during.append((await healing.world.settle(request)).settlement_id)
        return results

    healing.peer.resolve = interrupt
    recovery = healing.recovery(exchange=exchange)
    async with asyncio.timeout(30):
        await recovery.tick()
        draining = asyncio.ensure_future(recovery.settle_all())
        streamed = [
            (await healing.world.settle(healing.world.request(one))).settlement_id for one in stream
        ]
        await draining
    assert sum(batches) == DOUBTFUL
    assert len(batches) == len(during) == -(-DOUBTFUL // BATCH), "no batch without a new one"
    new = {*during, *streamed}
    assert {await healing.state(one) for one in new} == {"COMPLETED"}
    assert {one.id for one in healing.peer.received} == new, "a commit is never sent again"
    half = DOUBTFUL // 2
    # Each was asked about once: no question ran out of time behind the new work either.
    assert await _states(healing, doubtful) == {("COMPLETED", 1): half, ("ABORTED", 1): half}
    assert await _states(healing, doubtful[:half]) == {("COMPLETED", 1): half}
    await healing.journals_agree()


async def _until_acting(points: Failpoints, place: Place | None) -> None:
    """Return when what is armed acts at `place`, or when nothing acts at the exchange any more."""
    hop = (Place.GATEWAY_RELAY_BEFORE, Place.GATEWAY_RELAY_AFTER)
    async with asyncio.timeout(30):
        while True:
            acting = None
            for one in hop:
                try:
                    await points.at(one)
                except Refusal:
                    acting = one
            if acting is place:
                return
            await asyncio.sleep(0.01)


async def _lose(
    healing: Healing, exchange: ExchangeClient, patients: Sequence[Patient]
) -> list[str]:
    """Open a settlement for each, send them in one batch, close them with what came back."""
    sent = [envelope(one, healing.clock, in_scope_fen=10_000) for one in patients]
    now = instant(healing.clock)
    await healing.care.open(
        [opening(healing, settlement_id=one.id, payload_digest=one.payload_digest) for one in sent],
        now,
    )
    with pytest.raises(Refusal) as lost:
        await exchange.exchange(types_pb2.ROUTE_CROSS_PROVINCE, sent, 10)
    items = [care_pb2.CloseItem(id=one.id) for one in sent]
    for item in items:
        item.refused.status.CopyFrom(lost.value.status())
    await healing.care.close([closing_of(item) for item in items], now)
    return [one.id for one in sent]


async def _states(healing: Healing, ids: Sequence[str]) -> dict[tuple[str, int], int]:
    """How many of the settlements are in which state after how many questions."""
    rows = await (await healing.world.admin(BEIJING)).fetch(
        """SELECT state, attempts, count(*)::int AS number FROM settlement.care_journal
           WHERE settlement_id = ANY($1::uuid[]) GROUP BY 1, 2""",
        list(ids),
    )
    return {(row["state"], row["attempts"]): row["number"] for row in rows}
