"""One business day of one pair of sites, asked of each journal that holds it, over the contracts.

Every site is asked as that site's own operator, never through a database. A pair of one site is
held by two journals: the nation hears nothing of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Any

from infra.cli.client import Clients
from infra.runtime import differing
from infra.runtime.config import NATION
from infra.runtime.differing import Drilled
from yidi.common.v1 import envelope_pb2
from yidi.relay.v1 import relay_pb2, relay_pb2_grpc
from yidi.settlement.v1 import care_pb2, care_pb2_grpc, insured_pb2, insured_pb2_grpc

CALL_S = 30.0


class Holder(StrEnum):
    """Who keeps a journal."""

    CARE = "care"
    NATION = "nation"
    INSURED = "insured"

    @property
    def zh(self) -> str:
        """Its name for people."""
        return {"care": "就医地", "nation": "国家", "insured": "参保地"}[self]


@dataclass(frozen=True, slots=True)
class PairDay:
    """One business day of one pair of sites."""

    day: date
    care_site: str
    insured_site: str

    @property
    def holders(self) -> tuple[Holder, ...]:
        """The journals that hold it."""
        if self.care_site == self.insured_site:
            return (Holder.CARE, Holder.INSURED)
        return tuple(Holder)


async def journal_at(
    clients: Clients,
    pair: PairDay,
    holder: Holder,
    *,
    detail: envelope_pb2.JournalDetail.ValueType = envelope_pb2.JOURNAL_DETAIL_UNSPECIFIED,
    hour: int = 0,
) -> envelope_pb2.JournalDigest:
    """The digest that `holder` gives of the day, of its hours, or of the rows of `hour`."""
    asked: dict[str, Any] = {
        "business_day": pair.day.isoformat(),
        "care_site": pair.care_site,
        "insured_site": pair.insured_site,
        "detail": detail,
        "hour": hour,
    }
    if holder is Holder.CARE:
        care = clients.operator(care_pb2_grpc.CareServiceStub, pair.care_site, "settlement")
        of_care = care_pb2.GetCareJournalDigestRequest(**asked)
        return (await care.GetCareJournalDigest(of_care, timeout=CALL_S)).journal
    if holder is Holder.INSURED:
        insured = clients.operator(
            insured_pb2_grpc.InsuredServiceStub, pair.insured_site, "settlement"
        )
        of_insured = insured_pb2.GetInsuredJournalDigestRequest(**asked)
        return (await insured.GetInsuredJournalDigest(of_insured, timeout=CALL_S)).journal
    nation = clients.operator(relay_pb2_grpc.RelayServiceStub, NATION, "relay")
    of_nation = relay_pb2.GetNationJournalDigestRequest(**asked)
    return (await nation.GetNationJournalDigest(of_nation, timeout=CALL_S)).journal


async def journals_of(
    clients: Clients, pair: PairDay, **asked: Any
) -> dict[Holder, envelope_pb2.JournalDigest]:
    """What every holder of the day says, asked at the same time."""
    answers = await asyncio.gather(
        *(journal_at(clients, pair, holder, **asked) for holder in pair.holders)
    )
    return dict(zip(pair.holders, answers, strict=True))


async def drill(clients: Clients, pair: PairDay) -> Drilled[Holder]:
    """The settlements of the day that its journals do not hold alike."""

    async def ask(
        detail: envelope_pb2.JournalDetail.ValueType, hour: int
    ) -> Mapping[Holder, envelope_pb2.JournalDigest]:
        return await journals_of(clients, pair, detail=detail, hour=hour)

    return await differing.drill(ask)
