"""A world in which the test itself recovers, step by step, on a clock that it moves."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from peers import FakePeer, Pass, Results
from world import BEIJING, GUANGDONG, HOSPITALS, ZHANJIANG, World, world

from infra.runtime.clock import SHANGHAI, ManualClock, instant, new_id
from infra.runtime.config import NATION, Settings
from infra.runtime.database import Database
from infra.runtime.errors import Refusal
from infra.runtime.exchange import ExchangeClient
from infra.runtime.links import stub
from services.policy import service as policy_service
from services.settlement.recovering import Recovery
from services.settlement.store.care import CareStore, Opening
from services.settlement.store.recovery import RecoveryStore
from yidi.common.v1 import envelope_pb2, types_pb2
from yidi.gateway.v1 import gateway_pb2
from yidi.relay.v1 import relay_pb2, relay_pb2_grpc
from yidi.settlement.v1 import insured_pb2, insured_pb2_grpc

MIDNIGHT_MS = int(datetime(2027, 1, 1, tzinfo=SHANGHAI).timestamp() * 1000)
"""The clock starts ten hours before it."""
_JOURNALS = {
    BEIJING: "settlement.care_journal",
    NATION: "relay.outcome",
    GUANGDONG: "settlement.decision",
}


@dataclass
class Healing:
    """北京 settles, 广东 decides behind the fake relay, nobody recovers but who is told to."""

    world: World
    peer: FakePeer
    clock: ManualClock
    care: CareStore
    store: RecoveryStore

    def recovery(self, site: str = BEIJING, *, exchange: ExchangeClient | None = None) -> Recovery:
        """A recoverer of 北京."""
        return Recovery(
            care=self.care,
            store=self.store,
            exchange=exchange or self.exchange(),
            clock=self.clock,
            random=lambda: 0.5,
        )

    def exchange(self) -> ExchangeClient:
        """The way that recovery sends over."""
        channel = self.world.channel(BEIJING, "settlement")
        return ExchangeClient(
            insured=stub(insured_pb2_grpc.InsuredServiceStub, channel),
            relay=stub(relay_pb2_grpc.RelayServiceStub, channel),
        )

    async def heal(self, *recoveries: Recovery, rounds: int = 4) -> None:
        """Let recoverers work, side by side, with time going by in between."""
        workers = recoveries or (self.recovery(),)
        for _ in range(rounds):
            await asyncio.gather(*(worker.tick() for worker in workers))
            await asyncio.gather(*(worker.settle_all() for worker in workers))
            self.clock.ms += 2_500  # past every delay, not past a lease

    @property
    def insured(self) -> insured_pb2_grpc.InsuredServiceStub:
        """The insured place, as the relay of 广东 calls it."""
        return self.world.role(insured_pb2_grpc.InsuredServiceStub, GUANGDONG, "relay")

    async def exchange_one(self, envelope: envelope_pb2.Envelope) -> envelope_pb2.ExchangeResult:
        """One commit straight to the insured place."""
        request = insured_pb2.BatchExchangeRequest(items=[envelope])
        [result] = (await self.insured.BatchExchange(request, timeout=30)).results
        return result

    async def resolve(
        self,
        envelopes: Sequence[envelope_pb2.Envelope],
        intent: types_pb2.ResolveIntent.ValueType = types_pb2.RESOLVE_INTENT_ABORT,
    ) -> list[envelope_pb2.ExchangeResult]:
        """Questions straight to the insured place, in the order of the envelopes."""
        items = [
            envelope_pb2.ResolveItem(
                id=one.id,
                intent=intent,
                origin=one.origin,
                insured_area=one.insured_area,
                kind=one.kind,
                remaining_ms=5_000,
                payload_digest=one.payload_digest,
            )
            for one in envelopes
        ]
        request = insured_pb2.BatchResolveRequest(items=items)
        answer = await self.insured.BatchResolve(request, timeout=30)
        found = {result.id: result for result in answer.results}
        return [found[one.id] for one in envelopes]

    async def doubtful(self, request: gateway_pb2.SettleRequest, *, decided: bool = True) -> str:
        """Settle; the answer is lost, after the decision or with the commit. Returns the id."""

        async def lose(envelopes: Sequence[envelope_pb2.Envelope], onward: Pass) -> Results:
            if decided:
                await onward(envelopes)
            return []

        self.peer.answer = lose
        try:
            await self.world.settle(request)
        except Refusal as refusal:
            if refusal.name != "OUTCOME_PENDING":
                raise
            return refusal.details["settlement_id"]
        finally:
            self.peer.reset()
        raise AssertionError("it was answered")

    async def row(self, settlement_id: str) -> asyncpg.Record:
        """A row of the care journal, with the state of its bill."""
        admin = await self.world.admin(BEIJING)
        return await admin.fetchrow(
            """SELECT j.*, b.state AS bill, b.settlement_id AS live
               FROM settlement.care_journal j
               JOIN settlement.bill b USING (institution, visit_id, bill_id)
               WHERE j.settlement_id = $1::uuid""",
            settlement_id,
        )

    async def state(self, settlement_id: str) -> str:
        """Its state at the care place."""
        state: str = (await self.row(settlement_id))["state"]
        return state

    async def completed(self, settlement_id: str) -> None:
        """Return when it is COMPLETED at the care place."""
        async with asyncio.timeout(30):
            done = False
            while not done:
                done = await self.state(settlement_id) == "COMPLETED" or await asyncio.sleep(
                    0, False
                )

    async def decision(self, settlement_id: str) -> asyncpg.Record | None:
        """The row of the insured place."""
        admin = await self.world.admin(GUANGDONG)
        return await admin.fetchrow(
            """SELECT *, balances::text AS kept FROM settlement.decision
               WHERE settlement_id = $1::uuid""",
            settlement_id,
        )

    async def journals_agree(self) -> None:
        """All three journals hold the same bytes of what crossed the nation, and nothing else."""
        found = []
        completed = await (await self.world.admin(BEIJING)).fetch(
            """SELECT settlement_id FROM settlement.care_journal WHERE state = 'COMPLETED'
               AND route = 3 ORDER BY 1"""
        )
        ids = [row["settlement_id"] for row in completed]
        for site, table in _JOURNALS.items():
            rows = await (await self.world.admin(site)).fetch(
                f"""SELECT settlement_id, outcome_digest, outcome_header, business_day, total_fen
                    FROM {table} WHERE outcome_digest IS NOT NULL AND settlement_id = ANY($1)
                    ORDER BY 1""",
                ids,
            )
            found.append([tuple(row) for row in rows])
        assert found[0] == found[1] == found[2]
        assert len(found[0]) == len(ids)

    async def midnight(self) -> None:
        """Go over the year's end."""
        await self.jump(max(MIDNIGHT_MS - self.clock.ms, 0) + 60_000)

    async def jump(self, ms: int) -> None:
        """Let time go by; return when everybody has heard the news of that instant."""
        self.clock.ms += ms
        relay = self.world.role(relay_pb2_grpc.RelayServiceStub, BEIJING, "gateway")
        async with asyncio.timeout(30):
            fresh = False
            while not fresh:
                answer = await relay.GetDirectory(relay_pb2.GetDirectoryRequest(), timeout=30)
                as_of = answer.as_of_time.ToMilliseconds()
                fresh = as_of >= self.clock.ms or await asyncio.sleep(0.02, False)
        [patient] = await self.world.patients(1, places=())
        probe = self.world.request(patient)
        quote = gateway_pb2.QuoteRequest(credential=probe.credential, bill=probe.bill)
        # The relay of 广东 is played by the test: its filing tells what 广东 has heard.
        await self._heard(lambda: self.world.file([patient], BEIJING))
        await self._heard(lambda: self.world.institution(BEIJING).Quote(quote, timeout=30))
        self.peer.reset()

    async def _heard(self, call: Callable[[], Awaitable[Any]]) -> None:
        """Call until nobody on the way is stale."""
        async with asyncio.timeout(30):
            while True:
                try:
                    await call()
                except Refusal as refusal:
                    if refusal.name not in ("POLICY_STALE", "DIRECTORY_STALE"):
                        raise
                    await asyncio.sleep(0.02)
                else:
                    return


async def told(call: Callable[[], Awaitable[Any]]) -> Any:
    """The answer or refusal of a call that its server answers just before its time is over.

    On a busy machine that may be too late to be heard; then it is asked again, as callers do.
    """
    while True:
        try:
            return await call()
        except Refusal as refusal:
            if refusal.details.get("cause") != "timeout":
                return refusal


def opening(healing: Healing, **facts: Any) -> Opening:
    """A settlement of 北京 to be decided by 广东, as the front door opens it."""
    values: dict[str, Any] = {
        "settlement_id": new_id(healing.clock),
        "caller": f"spiffe://yidi/site/{BEIJING}/institution/{HOSPITALS[BEIJING]}",
        "method": "Settle",
        "request_id": f"req-{uuid4()}",
        "body_digest": bytes(32),
        "payload_digest": hashlib.sha256(b"payload").digest(),
        "institution": HOSPITALS[BEIJING],
        "visit_id": uuid4().hex,
        "bill_id": "B1",
        "care_area": BEIJING,
        "care_site": BEIJING,
        "insured_area": ZHANJIANG,
        "insured_site": GUANGDONG,
        "route": types_pb2.ROUTE_CROSS_PROVINCE,
        "kind": types_pb2.EXCHANGE_KIND_SETTLE,
        "undoes": None,
        "request": b"kept",
        "deadline_at": instant(healing.clock) + timedelta(seconds=5),
        "operator": "",
        "traceparent": "",
    }
    return Opening(**(values | facts))


@asynccontextmanager
async def healing_world(
    database_settings: Callable[..., Settings], pki: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Healing]:
    """The world, ten hours before the year ends."""
    # Policies are stale after half a minute, and the clock of this world goes in leaps.
    monkeypatch.setattr(policy_service, "POLL_S", 0.02)
    peer = FakePeer()
    clock = ManualClock(MIDNIGHT_MS - 36_000_000)
    async with (
        world(
            database_settings=database_settings,
            pki=pki,
            clock=clock,
            replaced={GUANGDONG: {"relay": [peer.builder()]}},
            limits={"recover": False, "breaker_failures": 1_000},
        ) as made,
        Database.open(made.settings[BEIJING], "settlement") as database,
    ):
        yield Healing(made, peer, clock, CareStore(database), RecoveryStore(database))
