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
from infra.runtime.config import NATION
from infra.runtime.journal import MAX_ENTRIES
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


@dataclass(frozen=True, slots=True)
class Odd:
    """A settlement that the journals do not hold alike."""

    settlement_id: str
    missing: tuple[Holder, ...]
    """Journals that do not hold it; empty when all do, with different bytes."""


@dataclass(frozen=True, slots=True)
class Drilled:
    """The settlements behind the differences of a day."""

    odd: tuple[Odd, ...] = ()
    incomplete: bool = False
    """An hour has more rows than a journal tells: there may be more."""


async def drill(clients: Clients, pair: PairDay) -> Drilled:
    """Find the settlements that differ: by hours first, then the rows of those that differ.

    None is found when all bytes are alike, i.e. when a column beside them was altered.
    """
    hours = await journals_of(clients, pair, detail=envelope_pb2.JOURNAL_DETAIL_HOURS)
    odd: list[Odd] = []
    incomplete = False
    for hour in differing_hours(hours):
        rows = await journals_of(
            clients, pair, detail=envelope_pb2.JOURNAL_DETAIL_ENTRIES, hour=hour
        )
        odd += differing_rows(rows)
        incomplete |= any(len(journal.entries) >= MAX_ENTRIES for journal in rows.values())
    return Drilled(tuple(odd), incomplete)


def differing_hours(journals: Mapping[Holder, envelope_pb2.JournalDigest]) -> list[int]:
    """The hours that the journals do not tell alike."""
    told = [{h.hour: (h.count, h.digest) for h in journal.hours} for journal in journals.values()]
    every = sorted({hour for hours in told for hour in hours})
    return [hour for hour in every if len({hours.get(hour) for hours in told}) > 1]


def differing_rows(journals: Mapping[Holder, envelope_pb2.JournalDigest]) -> list[Odd]:
    """The rows that the journals do not hold alike."""
    told = {
        holder: {entry.settlement_id: entry.digest for entry in journal.entries}
        for holder, journal in journals.items()
    }
    every = sorted({settlement_id for rows in told.values() for settlement_id in rows})
    return [
        Odd(one, tuple(holder for holder, rows in told.items() if one not in rows))
        for one in every
        if len({rows.get(one) for rows in told.values()}) > 1
    ]
