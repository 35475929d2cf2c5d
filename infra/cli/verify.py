"""Whether the three journals hold the same bytes: each site is asked over its contract.

Every site is asked as that site's own operator through its journal-digest RPC, never through a
database. A settlement is written at the insured place first, then at the nation, then at the care
place, so a pair that is asked while one is under way may differ for a moment: it is asked again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from infra.cli.client import Clients
from infra.runtime.clock import SystemClock, business_day
from infra.runtime.config import NATION
from yidi.common.v1 import amounts_pb2, envelope_pb2
from yidi.relay.v1 import relay_pb2, relay_pb2_grpc
from yidi.settlement.v1 import care_pb2, care_pb2_grpc, insured_pb2, insured_pb2_grpc

DAYS = 2
_CALL_S = 30.0
_ATTEMPTS = 3
_AGAIN_S = 0.3
AMOUNTS = tuple(field.name for field in amounts_pb2.Amounts.DESCRIPTOR.fields)


@dataclass(frozen=True, slots=True)
class Comparison:
    """One business day of one pair of sites in the journals that hold it."""

    day: date
    care_site: str
    insured_site: str
    care: envelope_pb2.JournalDigest
    nation: envelope_pb2.JournalDigest | None
    """None for a pair of one site: the nation hears nothing of it."""
    insured: envelope_pb2.JournalDigest

    @property
    def differences(self) -> tuple[str, ...]:
        """What differs: `count`, a sum, `fund <code>`, `digest`; empty when all are equal."""
        journals = (
            [self.care, self.insured]
            if self.nation is None
            else [
                self.care,
                self.nation,
                self.insured,
            ]
        )
        views = [_view(journal) for journal in journals]
        names = {name: None for view in views for name in view}
        return tuple(name for name in names if len({view.get(name, 0) for view in views}) > 1)

    @property
    def open_count(self) -> int:
        """Rows of the pair that are pending or in doubt at the care place, whatever their day."""
        return self.care.open_count


@dataclass(frozen=True, slots=True)
class Verification:
    """What `yidi verify` found."""

    comparisons: tuple[Comparison, ...]

    @property
    def ok(self) -> bool:
        """Whether no journal differs from another."""
        return not any(comparison.differences for comparison in self.comparisons)

    @property
    def open_count(self) -> int:
        """Open rows over all pairs; the count of a pair is the same on each of its days."""
        pairs = {(c.care_site, c.insured_site): c.open_count for c in self.comparisons}
        return sum(pairs.values())

    def facts(self) -> dict[str, Any]:
        """The verification for programs."""
        return {
            "ok": self.ok,
            "open": self.open_count,
            "pairs": [
                {
                    "day": comparison.day.isoformat(),
                    "care_site": comparison.care_site,
                    "insured_site": comparison.insured_site,
                    "count": comparison.care.count,
                    "total_fen": comparison.care.sums.total_fen,
                    "digest": comparison.care.digest.hex(),
                    "open": comparison.open_count,
                    "differences": list(comparison.differences),
                }
                for comparison in self.comparisons
            ],
        }


async def verify(clients: Clients, days: int = DAYS) -> Verification:
    """Compare the last `days` business days of every pair of provinces in `clients`."""
    today = business_day(SystemClock().now_ms())
    provinces = [code for code in clients.sites if code != NATION]
    asked = [
        (today - timedelta(days=back), care, insured)
        for back in range(days)
        for care in provinces
        for insured in provinces
    ]
    return Verification(tuple(await asyncio.gather(*(_settled(clients, *one) for one in asked))))


async def _settled(clients: Clients, day: date, care: str, insured: str) -> Comparison:
    """The comparison, asked again while it differs: what was under way has then arrived."""
    comparison = await _compare(clients, day, care, insured)
    for _ in range(_ATTEMPTS - 1):
        if not comparison.differences:
            break
        await asyncio.sleep(_AGAIN_S)
        comparison = await _compare(clients, day, care, insured)
    return comparison


async def _compare(clients: Clients, day: date, care: str, insured: str) -> Comparison:
    asked = {"business_day": day.isoformat(), "care_site": care, "insured_site": insured}
    at_care = clients.operator(care_pb2_grpc.CareServiceStub, care, "settlement")
    at_insured = clients.operator(insured_pb2_grpc.InsuredServiceStub, insured, "settlement")
    of_care, of_insured, of_nation = await asyncio.gather(
        at_care.GetCareJournalDigest(
            care_pb2.GetCareJournalDigestRequest(**asked), timeout=_CALL_S
        ),
        at_insured.GetInsuredJournalDigest(
            insured_pb2.GetInsuredJournalDigestRequest(**asked), timeout=_CALL_S
        ),
        _of_nation(clients, asked) if care != insured else _nothing(),
    )
    return Comparison(day, care, insured, of_care.journal, of_nation, of_insured.journal)


async def _of_nation(clients: Clients, asked: dict[str, str]) -> envelope_pb2.JournalDigest:
    nation = clients.operator(relay_pb2_grpc.RelayServiceStub, NATION, "relay")
    answer = await nation.GetNationJournalDigest(
        relay_pb2.GetNationJournalDigestRequest(**asked), timeout=_CALL_S
    )
    return answer.journal


async def _nothing() -> None:
    return None


def _view(journal: envelope_pb2.JournalDigest) -> dict[str, int | bytes]:
    """Everything that must be equal, by the name under which a difference is reported."""
    view: dict[str, int | bytes] = {"count": journal.count}
    view |= {name: getattr(journal.sums, name) for name in AMOUNTS}
    view |= {f"fund {fund.code}": fund.fen for fund in journal.funds if fund.fen}
    view["digest"] = journal.digest
    return view


def counts(comparison: Comparison) -> Sequence[int | None]:
    """The number of settlements at care place, nation and insured place."""
    nation = None if comparison.nation is None else comparison.nation.count
    return comparison.care.count, nation, comparison.insured.count
