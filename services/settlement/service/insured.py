"""The insured place's decisions as a service."""

from __future__ import annotations

import hashlib

import msgspec
import structlog

from infra.runtime.call import Call
from infra.runtime.clock import Clock, instant
from infra.runtime.database import DATA_ERRORS
from infra.runtime.days import parse_day
from infra.runtime.directory import Directory
from infra.runtime.errors import Reason, Refusal
from infra.runtime.paging import UUID, page_token
from services.settlement.comparing import Comparing
from services.settlement.deciding import Decider
from services.settlement.domain.balance import FIELDS, ZERO, PersonKey, Values, add
from services.settlement.resolving import Resolver
from services.settlement.store.costs import CostsStore
from services.settlement.store.external import ExternalStore, Posting
from services.settlement.store.insured import InsuredStore
from services.settlement.store.past import PastDecision
from services.settlement.undoing import KINDS, Undoer
from yidi.common.v1 import envelope_pb2
from yidi.policy.v1 import policy_pb2
from yidi.settlement.v1 import insured_pb2, payload_pb2

PAST_PAGE = 256
_log = structlog.get_logger("yidi.settlement")


class InsuredServicer:
    """`yidi.settlement.v1.InsuredService`."""

    def __init__(
        self,
        *,
        store: InsuredStore,
        external: ExternalStore,
        costs: CostsStore,
        decider: Decider,
        undoer: Undoer,
        resolver: Resolver,
        comparing: Comparing,
        directory: Directory,
        clock: Clock,
    ) -> None:
        self._store = store
        self._external = external
        self._costs = costs
        self._clock = clock
        self._decider = decider
        self._undoer = undoer
        self._resolver = resolver
        self._comparing = comparing
        self._directory = directory

    async def BatchExchange(
        self, request: insured_pb2.BatchExchangeRequest, call: Call
    ) -> insured_pb2.BatchExchangeResponse:
        undos = [item for item in request.items if item.kind in KINDS]
        if not undos:
            results = await self._decider.exchange(request.items)
        else:
            others = [item for item in request.items if item.kind not in KINDS]
            results = await self._undoer.exchange(undos)
            results += await self._decider.exchange(others) if others else []
        return insured_pb2.BatchExchangeResponse(results=results)

    async def BatchResolve(
        self, request: insured_pb2.BatchResolveRequest, call: Call
    ) -> insured_pb2.BatchResolveResponse:
        results = await self._resolver.resolve(request.items)
        return insured_pb2.BatchResolveResponse(results=results)

    async def BatchPostExternal(
        self, request: insured_pb2.BatchPostExternalRequest, call: Call
    ) -> insured_pb2.BatchPostExternalResponse:
        now = instant(self._clock)
        results = []
        for item in request.items:
            try:
                # County codes are aliases: accumulators belong to the pooling area.
                area = self._directory.place(item.insured_area).area
                posting = _posting(item, area, call.caller.spiffe_id)
                posted = await self._external.post(posting, now)
            except Refusal as refusal:
                results.append(insured_pb2.ExternalResult(id=item.id, error=refusal.status()))
                continue
            except DATA_ERRORS:
                posted = False  # e.g. an account that would become negative
            if posted:
                results.append(insured_pb2.ExternalResult(id=item.id, posted=True))
            else:
                conflict = Refusal(Reason.ERROR_REASON_EXTERNAL_CONFLICT, posting_id=item.id)
                results.append(insured_pb2.ExternalResult(id=item.id, error=conflict.status()))
        return insured_pb2.BatchPostExternalResponse(results=results)

    async def BatchHasCosts(
        self, request: insured_pb2.BatchHasCostsRequest, call: Call
    ) -> insured_pb2.BatchHasCostsResponse:
        found = await self._costs.with_costs([item.filing_id for item in request.items])
        results = [
            insured_pb2.HasCostsResult(id=item.id, has_costs=item.filing_id.lower() in found)
            for item in request.items
        ]
        return insured_pb2.BatchHasCostsResponse(results=results)

    async def CheckInsuredInvariants(
        self, request: insured_pb2.CheckInsuredInvariantsRequest, call: Call
    ) -> insured_pb2.CheckInsuredInvariantsResponse:
        checked = await self._external.check()
        for difference in checked.differences:
            _log.error("alarm: a row is not the sum of its deltas", subject=difference.subject)
        looked = await self._comparing.look(call.deadline_us)
        breaches = [
            insured_pb2.Breach(
                invariant="sum_of_deltas",
                subject=d.subject,
                text=f"{d.name} 为 {d.stored}，各笔合计应为 {d.summed}",
            )
            for d in checked.differences
        ]
        breaches += [
            insured_pb2.Breach(invariant="only_here", subject=one.settlement_id, text=one.text)
            for one in looked.only_here
        ]
        return insured_pb2.CheckInsuredInvariantsResponse(
            accumulators=checked.accumulators,
            accounts=checked.accounts,
            breaches=breaches,
            not_compared=[
                insured_pb2.NotCompared(
                    business_day=day.isoformat(), care_site=care_site, text=text
                )
                for (day, care_site), text in looked.not_compared.items()
            ],
        )

    async def GetInsuredJournalDigest(
        self, request: insured_pb2.GetInsuredJournalDigestRequest, call: Call
    ) -> insured_pb2.GetInsuredJournalDigestResponse:
        day = parse_day(request.business_day, "business_day")
        digest = await self._store.digest(
            day, request.care_site, request.insured_site, request.detail, request.hour
        )
        return insured_pb2.GetInsuredJournalDigestResponse(journal=digest)

    async def ListPastCases(
        self, request: insured_pb2.ListPastCasesRequest, call: Call
    ) -> insured_pb2.ListPastCasesResponse:
        size = request.page_size or PAST_PAGE
        token = page_token(request.page_token, UUID)
        # One more than asked for says whether there is another page.
        found = await self._store.past(
            self._directory.place(request.insured_area).area,
            request.insurance,
            parse_day(request.from_day, "from_day"),
            parse_day(request.to_day, "to_day"),
            token,
            size + 1,
        )
        page = found[:size]
        return insured_pb2.ListPastCasesResponse(
            cases=[_past_case(each) for each in page],
            next_page_token=page[-1].settlement_id if len(found) > size else "",
        )


def _past_case(decision: PastDecision) -> insured_pb2.PastCase:
    header = envelope_pb2.OutcomeHeader.FromString(decision.header)
    details = payload_pb2.OutcomeDetails.FromString(decision.details)
    return insured_pb2.PastCase(
        case=policy_pb2.ComputeCase.FromString(decision.policy_case),
        openings=[
            policy_pb2.Accumulator(period=period, **values)
            for period, values in sorted(decision.openings.items())
        ],
        account_balance_fen=details.account_balance_fen + header.amounts.account_fen,
        amounts=header.amounts,
        funds=header.funds,
        policy=header.policy,
    )


def _posting(item: insured_pb2.ExternalItem, area: str, actor: str) -> Posting:
    deltas: dict[str, Values] = {}
    for delta in item.deltas:  # a period may be named more than once
        values = tuple(getattr(delta, name) for name in FIELDS)
        deltas[delta.period] = add(deltas.get(delta.period, ZERO), values)
    account = (
        {"account_id": item.account_id, "delta": item.account_delta_fen}
        if item.account_id
        else None
    )
    balances = {
        "accumulators": [
            {"period": period, "delta": dict(zip(FIELDS, values, strict=True))}
            for period, values in deltas.items()
        ],
        "account": account,
    }
    body = msgspec.json.encode([area, item.insurance, item.person_id, item.source, balances])
    return Posting(
        posting_id=item.id,
        person=PersonKey(area, item.insurance, item.person_id),
        deltas=deltas,
        account_id=item.account_id or None,
        account_delta_fen=item.account_delta_fen,
        source=item.source,
        body_digest=hashlib.sha256(body).digest(),
        balances=msgspec.json.encode(balances).decode(),
        actor=actor,
    )
