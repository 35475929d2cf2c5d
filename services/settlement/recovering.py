"""Recovery at the care place: it asks and never repeats.

Any replica may run it. Every second it sweeps rows that have been PENDING too long into doubt, and
for each insured site with doubtful rows sends ABORT over the same way that the settlement took: the
answer is final, whatever it is. A commit is never sent again. Sites are asked independently, so one
that does not answer holds up nobody; rows are asked about again with a growing, jittered delay.

A cancellation asked for while the original was in doubt is carried out here: ABORTED ends it, and a
COMMITTED original is undone by a settlement whose id is put on the original's row, compare-and-set,
before it leaves. An undo that turns out ABORTED or REJECTED may be replaced.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import structlog

from infra.runtime.background import Background
from infra.runtime.clock import Clock, business_day, instant, new_id
from infra.runtime.contract import REVISION
from infra.runtime.errors import Refusal
from infra.runtime.exchange import ExchangeClient, take_answer
from infra.runtime.redact import where
from services.settlement.closing import closing_of
from services.settlement.domain.recovery import SWEEP_AFTER_MS, wait_ms
from services.settlement.domain.states import OPEN, State
from services.settlement.store.care import CareStore, Opening
from services.settlement.store.recovery import Cancelled, RecoveryStore
from yidi.common.v1 import envelope_pb2, types_pb2, visit_pb2
from yidi.settlement.v1 import care_pb2, payload_pb2

BATCH = 256
LEASE = timedelta(seconds=10)
"""Longer than any call: while a row is leased its holder is alive or has died."""
CALL_SECONDS = 5.0
EVERY_SECONDS = 1.0
CALLER = "recovery"
_log = structlog.get_logger("yidi.recovery")


class Recovery:
    """Makes doubtful settlements of one care site final; `random` gives the jitter, 0 to 1."""

    def __init__(
        self,
        *,
        care: CareStore,
        store: RecoveryStore,
        exchange: ExchangeClient,
        clock: Clock,
        random: Callable[[], float],
    ) -> None:
        self._care = care
        self._store = store
        self._exchange = exchange
        self._clock = clock
        self._random = random
        self._asking: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._undoing: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._background = Background("recovery", self.tick, rest=lambda: EVERY_SECONDS)

    def start(self) -> None:
        """Run until `stop`."""
        self._background.start()

    async def stop(self) -> None:
        """End; what is under way is left to whoever comes next."""
        await self._background.stop()
        tasks = [*self._asking.values(), *self._undoing.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def tick(self) -> None:
        """Sweep, start asking every site that has doubtful rows, carry out cancellations."""
        now = instant(self._clock)
        await self._store.sweep(now, timedelta(milliseconds=SWEEP_AFTER_MS), 4 * BATCH)
        for key in await self._store.due(now):
            if key not in self._asking:
                _start(self._asking, key, self._ask_site(*key))
        await self._carry_out_cancellations(now)

    async def settle_all(self) -> None:
        """Wait for the asking and undoing that is under way; for tests and the bench."""
        while tasks := [*self._asking.values(), *self._undoing.values()]:
            await asyncio.wait(tasks)

    async def _ask_site(self, site: str, route: int) -> None:
        """Ask about the site's doubtful rows by batches until none is due or none is answered."""
        while True:
            now = instant(self._clock)
            rows = await self._store.lease(site, route, now, now + LEASE, BATCH)
            if not rows or not await self._ask(route, rows):
                return

    async def _ask(self, route: int, rows: Sequence[asyncpg.Record]) -> bool:
        """Send ABORT for leased rows and write what comes back; False when nothing came back."""
        answers: dict[str, envelope_pb2.ExchangeResult] = {}
        try:
            results = await self._exchange.resolve(
                route,  # type: ignore[arg-type]
                [_question(row) for row in rows],
                CALL_SECONDS,
            )
            answers = {result.id: result for result in results}
        except Refusal as refusal:
            _log.info("no answer about doubtful settlements", reason=refusal.name, count=len(rows))
        items = []
        waiting: dict[str, datetime] = {}
        now = instant(self._clock)
        for row in rows:
            answer = answers.get(row["settlement_id"])
            kind = answer.WhichOneof("outcome") if answer is not None else None
            if answer is None or kind not in ("committed", "rejected", "aborted"):
                delay = wait_ms(row["attempts"], self._random())
                waiting[row["settlement_id"]] = now + timedelta(milliseconds=delay)
                continue
            item = care_pb2.CloseItem(id=row["settlement_id"])
            take_answer(item, answer)
            items.append(item)
        if items:
            await self._care.close([closing_of(item) for item in items], now)
        if waiting:
            await self._store.postpone(waiting)
        return bool(items)

    async def _carry_out_cancellations(self, now: datetime) -> None:
        """Look at cancelled settlements that stand; start undoing those that need it, by site."""
        busy = [site for site, _ in self._undoing]
        cancelled = await self._store.cancelled(now, now + LEASE, BATCH, busy)
        finished: list[str] = []
        waiting: dict[str, datetime] = {}
        wanted: defaultdict[tuple[str, int], list[Cancelled]] = defaultdict(list)
        for row in cancelled:
            if row.undone:
                finished.append(row.settlement_id)
            elif row.undo_state in OPEN:
                # It is made final like any other row.
                waiting[row.settlement_id] = now + timedelta(seconds=EVERY_SECONDS)
            else:
                wanted[row.insured_site, row.route].append(row)
        if finished:
            await self._store.finished(finished)
        if waiting:
            await self._store.postpone(waiting)
        for key, rows in wanted.items():
            _start(self._undoing, key, self._undo(key[1], rows))

    async def _undo(self, route: int, rows: Sequence[Cancelled]) -> None:
        """Undo cancelled settlements of one site; after midnight the reversal is a refund."""
        now = instant(self._clock)
        today = business_day(self._clock.now_ms()).isoformat()
        envelopes: list[envelope_pb2.Envelope] = []
        openings: list[Opening] = []
        for row in rows:
            envelope = _envelope(row, new_id(self._clock), today)
            # On the original before it leaves: whoever comes next sees that one is on its way.
            if await self._store.link(row.settlement_id, envelope.id, row.undone_by):
                envelopes.append(envelope)
                openings.append(_opening(row, envelope, now))
        if not openings:
            return
        await self._care.open(openings, now)
        answers: dict[str, envelope_pb2.ExchangeResult] = {}
        refused: Refusal | None = None
        try:
            results = await self._exchange.exchange(
                route,  # type: ignore[arg-type]
                envelopes,
                CALL_SECONDS,
            )
            answers = {result.id: result for result in results}
        except Refusal as refusal:
            refused = refusal
        items = []
        for envelope in envelopes:
            item = care_pb2.CloseItem(id=envelope.id)
            if refused is not None:
                item.refused.status.CopyFrom(refused.status())
            elif envelope.id in answers:
                take_answer(item, answers[envelope.id])
            items.append(item)
        now = instant(self._clock)
        closings = [closing_of(item) for item in items]
        await self._care.close(closings, now)
        # A refused one is replaced when the lease is over; the others are looked at soon.
        refusals = {
            closing.settlement_id for closing in closings if closing.state is State.REJECTED
        }
        soon = now + timedelta(seconds=EVERY_SECONDS)
        waiting = {o.undoes: soon for o in openings if o.undoes and o.settlement_id not in refusals}
        if waiting:
            await self._store.postpone(waiting)


def _start(
    running: dict[tuple[str, int], asyncio.Task[None]],
    key: tuple[str, int],
    work: Coroutine[Any, Any, None],
) -> None:
    """Run work on one site beside the others; what fails is tried again when its lease is over."""
    task = asyncio.get_running_loop().create_task(work)
    running[key] = task

    def ended(task: asyncio.Task[None]) -> None:
        running.pop(key, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.warning("recovery of a site failed", site=key[0], at=where(error))

    task.add_done_callback(ended)


def _envelope(row: Cancelled, undo_id: str, today: str) -> envelope_pb2.Envelope:
    payload = payload_pb2.UndoPayload(
        undoes=row.settlement_id,
        bill=visit_pb2.BillReference(
            institution=row.institution, visit_id=row.visit_id, bill_id=row.bill_id
        ),
        reason="原结算结果未定时请求冲正",
    ).SerializeToString()
    return envelope_pb2.Envelope(
        id=undo_id,
        kind=types_pb2.EXCHANGE_KIND_REVERSAL
        if row.business_day == today
        else types_pb2.EXCHANGE_KIND_REFUND,
        origin=envelope_pb2.Origin(
            care_area=row.care_area, institution=row.institution, operator=row.operator
        ),
        insured_area=row.insured_area,
        contract_revision=REVISION,
        remaining_ms=int(CALL_SECONDS * 1000),
        payload_digest=hashlib.sha256(payload).digest(),
        payload=payload,
    )


def _opening(row: Cancelled, envelope: envelope_pb2.Envelope, now: datetime) -> Opening:
    return Opening(
        settlement_id=envelope.id,
        caller=CALLER,
        method="cancel",
        request_id=envelope.id,
        body_digest=envelope.payload_digest,
        payload_digest=envelope.payload_digest,
        institution=row.institution,
        visit_id=row.visit_id,
        bill_id=row.bill_id,
        care_area=row.care_area,
        care_site=row.care_site,
        insured_area=row.insured_area,
        insured_site=row.insured_site,
        route=row.route,
        kind=envelope.kind,
        undoes=row.settlement_id,
        request=envelope.payload,
        deadline_at=now + timedelta(seconds=CALL_SECONDS),
        operator=row.operator,
        traceparent="",
    )


def _question(row: asyncpg.Record) -> envelope_pb2.ResolveItem:
    return envelope_pb2.ResolveItem(
        id=row["settlement_id"],
        intent=types_pb2.RESOLVE_INTENT_ABORT,
        origin=envelope_pb2.Origin(care_area=row["care_area"], institution=row["institution"]),
        insured_area=row["insured_area"],
        kind=row["kind"],
        remaining_ms=int(CALL_SECONDS * 1000),
        traceparent=row["traceparent"],
        payload_digest=row["payload_digest"],
    )
