"""The care place's journal as a service: claims, states, look-ups, day digests."""

from __future__ import annotations

from datetime import datetime, timedelta

import asyncpg
import structlog
from google.rpc import status_pb2

from infra.runtime.call import Call
from infra.runtime.clock import Clock, instant
from infra.runtime.days import parse_day
from infra.runtime.errors import Reason, Refusal
from services.settlement.closing import closing_of
from services.settlement.domain.audit_case import Duty
from services.settlement.domain.states import State
from services.settlement.store.care import CareStore, Closing, Key, Opening
from services.settlement.store.operating import OperatingStore
from services.settlement.store.recovery import RecoveryStore
from yidi.common.v1 import types_pb2
from yidi.settlement.v1 import care_pb2, insured_pb2, payload_pb2

OLD = timedelta(seconds=60)
"""A settlement open for longer is an alarm."""
_log = structlog.get_logger("yidi.settlement")


class CareServicer:
    """`yidi.settlement.v1.CareService`."""

    def __init__(
        self,
        *,
        site: str,
        store: CareStore,
        recovery: RecoveryStore,
        operating: OperatingStore,
        clock: Clock,
    ) -> None:
        self._site = site
        self._store = store
        self._recovery = recovery
        self._operating = operating
        self._clock = clock

    async def BatchOpen(
        self, request: care_pb2.BatchOpenRequest, call: Call
    ) -> care_pb2.BatchOpenResponse:
        now = instant(self._clock)
        openings = [
            Opening(
                settlement_id=item.id,
                caller=item.caller,
                method=item.method,
                request_id=item.request_id,
                body_digest=item.body_digest,
                payload_digest=item.payload_digest,
                institution=item.bill.institution,
                visit_id=item.bill.visit_id,
                bill_id=item.bill.bill_id,
                care_area=item.care_area,
                care_site=self._site,
                insured_area=item.insured_area,
                insured_site=item.insured_site,
                route=item.route,
                kind=item.kind,
                undoes=item.undoes or None,
                request=item.request,
                deadline_at=now + timedelta(milliseconds=item.remaining_ms),
                operator=item.operator,
                traceparent=item.traceparent,
                duties=_duties(item),
            )
            for item in request.items
        ]
        rows = await self._store.open(openings, now)
        by_id = {opening.settlement_id: opening for opening in openings}
        return care_pb2.BatchOpenResponse(
            results=[_open_result(by_id[row["settlement_id"]], row) for row in rows]
        )

    async def BatchClose(
        self, request: care_pb2.BatchCloseRequest, call: Call
    ) -> care_pb2.BatchCloseResponse:
        now = instant(self._clock)
        closings = {item.id: closing_of(item) for item in request.items}
        changed = await self._store.close(list(closings.values()), now)
        lost = [item_id for item_id in closings if item_id not in changed]
        stored = {}
        if lost:
            keys = [Key(id=item_id, institution=None, settlement_id=item_id) for item_id in lost]
            stored = {row["id"]: _row(row) for row in await self._store.get(keys)}
        results = []
        for item_id, closing in closings.items():
            if item_id in changed:
                results.append(care_pb2.CloseResult(id=item_id, row=_written(closing, now)))
            elif item_id in stored:
                results.append(care_pb2.CloseResult(id=item_id, row=stored[item_id]))
            else:
                missing = Refusal(Reason.ERROR_REASON_SETTLEMENT_NOT_FOUND)
                results.append(care_pb2.CloseResult(id=item_id, error=missing.status()))
        return care_pb2.BatchCloseResponse(results=results)

    async def BatchGet(
        self, request: care_pb2.BatchGetRequest, call: Call
    ) -> care_pb2.BatchGetResponse:
        rows = {row["id"]: row for row in await self._store.get([_key(i) for i in request.items])}
        results = []
        for item in request.items:
            row = rows.get(item.id)
            if row is None:
                missing = Refusal(Reason.ERROR_REASON_SETTLEMENT_NOT_FOUND)
                results.append(care_pb2.GetResult(id=item.id, error=missing.status()))
            else:
                results.append(care_pb2.GetResult(id=item.id, row=_row(row)))
        return care_pb2.BatchGetResponse(results=results)

    async def BatchCancel(
        self, request: care_pb2.BatchCancelRequest, call: Call
    ) -> care_pb2.BatchCancelResponse:
        asked = [(item.id, item.institution) for item in request.items]
        await self._recovery.cancel(asked, instant(self._clock))
        keys = [Key(id=item, institution=who, settlement_id=item) for item, who in asked]
        stored = {row["id"]: _row(row) for row in await self._store.get(keys)}
        missing = Refusal(Reason.ERROR_REASON_SETTLEMENT_NOT_FOUND).status()
        return care_pb2.BatchCancelResponse(
            results=[
                care_pb2.CloseResult(id=item, row=stored[item])
                if item in stored
                else care_pb2.CloseResult(id=item, error=missing)
                for item, _ in asked
            ]
        )

    async def ShowSettlement(
        self, request: care_pb2.ShowSettlementRequest, call: Call
    ) -> care_pb2.ShowSettlementResponse:
        row, trail = await self._operating.show(request.settlement_id)
        if row is None:
            raise Refusal(Reason.ERROR_REASON_SETTLEMENT_NOT_FOUND)
        shown = _shown(row)
        if row["kind"] == types_pb2.EXCHANGE_KIND_SETTLE:
            shown.findings.extend(payload_pb2.ExchangePayload.FromString(row["request"]).findings)
        # The one that stands, whoever sent it; else the one that recovery has named on the row.
        shown.row.undone_by = (
            await self._operating.undo_of(request.settlement_id) or shown.row.undone_by
        )
        for entry in trail:
            added = shown.trail.add(actor=entry["actor"], action=entry["action"])
            added.time.FromDatetime(entry["at"])
        return shown

    async def ListInDoubt(
        self, request: care_pb2.ListInDoubtRequest, call: Call
    ) -> care_pb2.ListInDoubtResponse:
        rows = await self._operating.open(request.page_size or 100)
        return care_pb2.ListInDoubtResponse(
            settlements=[_shown(row) for row in rows],
            total_count=rows[0]["total"] if rows else 0,
        )

    async def CheckCareInvariants(
        self, request: care_pb2.CheckCareInvariantsRequest, call: Call
    ) -> care_pb2.CheckCareInvariantsResponse:
        oddities = await self._operating.oddities(instant(self._clock) - OLD)
        for oddity in oddities:
            _log.error("alarm: invariant broken", kind=oddity.invariant, subject=oddity.subject)
        rows = await self._operating.open(1)
        return care_pb2.CheckCareInvariantsResponse(
            open_count=rows[0]["total"] if rows else 0,
            breaches=[
                insured_pb2.Breach(invariant=o.invariant, subject=o.subject, text=o.text)
                for o in oddities
            ],
        )

    async def GetCareJournalDigest(
        self, request: care_pb2.GetCareJournalDigestRequest, call: Call
    ) -> care_pb2.GetCareJournalDigestResponse:
        day = parse_day(request.business_day, "business_day")
        digest = await self._store.digest(
            day, request.care_site, request.insured_site, request.detail, request.hour
        )
        return care_pb2.GetCareJournalDigestResponse(journal=digest)


def _duties(item: care_pb2.OpenItem) -> int:
    return (
        Duty.UPLOAD_DETAIL * item.upload_detail
        | Duty.INJURY_DECLARED * item.injury_declared
        | Duty.AUDIT_FOUND * item.audit_found
    )


def _open_result(opening: Opening, row: asyncpg.Record) -> care_pb2.OpenResult:
    if row["opened"]:
        return care_pb2.OpenResult(id=opening.settlement_id, opened=True)
    if row["key_settlement_id"] is not None:
        if row["key_digest"] == opening.body_digest:
            return care_pb2.OpenResult(
                id=opening.settlement_id, existing_settlement_id=row["key_settlement_id"]
            )
        refusal = Refusal(Reason.ERROR_REASON_REQUEST_ID_REUSED, request_id=opening.request_id)
    else:
        settled = row["bill_state"] == State.COMPLETED
        refusal = Refusal(
            Reason.ERROR_REASON_BILL_ALREADY_SETTLED
            if settled
            else Reason.ERROR_REASON_BILL_ALREADY_SETTLING,
            bill_id=opening.bill_id,
            settlement_id=row["bill_settlement_id"],
            state=row["bill_state"],
            request_id=row["bill_request_id"],
        )
    return care_pb2.OpenResult(id=opening.settlement_id, error=refusal.status())


def _written(closing: Closing, now: datetime) -> care_pb2.JournalRow:
    """The row as this call has just written it; the caller knows its own request."""
    row = care_pb2.JournalRow(
        settlement_id=closing.settlement_id, state=_state(closing.state), outcome=closing.outcome
    )
    if closing.reason is not None:
        row.reason.ParseFromString(closing.reason)
    row.state_time.FromDatetime(now)
    return row


def _row(row: asyncpg.Record) -> care_pb2.JournalRow:
    message = care_pb2.JournalRow(
        settlement_id=row["settlement_id"],
        state=_state(State(row["state"])),
        body_digest=row["body_digest"],
        request_id=row["request_id"],
        route=row["route"],
        request=row["request"],
        kind=row["kind"],
        undoes=row["undoes"] or "",
        undone_by=row["undone_by"] or "",
        cancel_requested=row["cancel_requested"],
        insured_area=row["insured_area"],
        insured_site=row["insured_site"],
    )
    message.bill.institution = row["institution"]
    message.bill.visit_id = row["visit_id"]
    message.bill.bill_id = row["bill_id"]
    if row["outcome_digest"] is not None:
        message.outcome.header = row["outcome_header"]
        message.outcome.details = row["outcome_details"]
        message.outcome.digest = row["outcome_digest"]
    if row["reason"] is not None:
        message.reason.CopyFrom(_reason(row["state"], row["reason"], row["doubt"]))
    if row["hops"] is not None:
        message.hops.extend(care_pb2.CloseItem.FromString(row["hops"]).hops)
    message.open_time.FromDatetime(row["opened_at"])
    message.state_time.FromDatetime(row["state_at"])
    return message


def _reason(state: str, reason: bytes, doubt: bytes | None) -> status_pb2.Status:
    """The reason of a row; a tombstone tells why nobody knew, too."""
    status = status_pb2.Status.FromString(reason)
    if state != State.ABORTED or doubt is None:
        return status
    refusal = Refusal.from_status(status)
    refusal.details["cause"] = Refusal.from_status(status_pb2.Status.FromString(doubt)).name
    return refusal.status()


def _shown(row: asyncpg.Record) -> care_pb2.ShowSettlementResponse:
    shown = care_pb2.ShowSettlementResponse(row=_row(row), attempts=row["attempts"])
    shown.row.ClearField("request")
    if row["next_attempt_at"] is not None:
        shown.next_attempt_time.FromDatetime(row["next_attempt_at"])
    return shown


def _key(item: care_pb2.GetItem) -> Key:
    kind = item.WhichOneof("key")
    if kind == "settlement_id":
        return Key(item.id, item.institution, settlement_id=item.settlement_id)
    if kind == "request":
        key = item.request
        return Key(
            item.id,
            item.institution,
            caller=key.caller,
            method=key.method,
            request_id=key.request_id,
        )
    return Key(item.id, item.institution, visit_id=item.bill.visit_id, bill_id=item.bill.bill_id)


def _state(state: State) -> types_pb2.SettlementState.ValueType:
    return types_pb2.SettlementState.Value(f"SETTLEMENT_STATE_{state.value}")
