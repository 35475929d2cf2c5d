"""Whether the journals hold the same bytes, and whether anything is there that should not be.

A settlement is written at the insured place first, then at the nation, then at the care place, so
a pair that is asked while one is under way may differ for a moment: it is asked again. Where a day
still differs, its hours and rows are asked for, down to the settlements. Each province is also
asked for what should be impossible on either of its sides, among it settlements that for over a day
only the insured place holds: it looks further back than the days compared here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from typing import Any

from infra.cli.client import Clients
from infra.cli.pairs import CALL_S, Holder, PairDay, drill, journals_of
from infra.runtime.clock import SystemClock, business_day
from infra.runtime.differing import Drilled, differing_figures
from yidi.common.v1 import envelope_pb2
from yidi.settlement.v1 import care_pb2, care_pb2_grpc, insured_pb2, insured_pb2_grpc

DAYS = 2
_ATTEMPTS = 3
_AGAIN_S = 0.3


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
    drilled: Drilled[Holder] = field(default_factory=Drilled)

    @property
    def pair(self) -> PairDay:
        """What was compared."""
        return PairDay(self.day, self.care_site, self.insured_site)

    @property
    def differences(self) -> tuple[str, ...]:
        """What differs: `count`, a sum, `fund <code>`, `digest`; empty when all are equal."""
        journals = (self.care, self.nation, self.insured)
        return differing_figures(journal for journal in journals if journal is not None)

    @property
    def open_count(self) -> int:
        """Rows of the pair that are pending or in doubt at the care place, whatever their day."""
        return self.care.open_count

    def facts(self) -> dict[str, Any]:
        """The comparison for programs."""
        facts: dict[str, Any] = {
            "day": self.day.isoformat(),
            "care_site": self.care_site,
            "insured_site": self.insured_site,
            "count": self.care.count,
            "total_fen": self.care.sums.total_fen,
            "digest": self.care.digest.hex(),
            "open": self.open_count,
            "differences": list(self.differences),
            "settlements": [
                {"settlement_id": odd.settlement_id, "missing": [str(one) for one in odd.missing]}
                for odd in self.drilled.odd
            ],
        }
        if self.drilled.incomplete:
            facts["settlements_incomplete"] = True
        return facts


@dataclass(frozen=True, slots=True)
class SiteCheck:
    """What a province says of its own two sides."""

    site: str
    care_open: int
    """Rows that are pending or in doubt."""
    accumulators: int
    """Accumulator rows compared with the sum of their deltas."""
    accounts: int
    """Account rows likewise."""
    care_breaches: tuple[insured_pb2.Breach, ...] = ()
    insured_breaches: tuple[insured_pb2.Breach, ...] = ()
    not_compared: tuple[insured_pb2.NotCompared, ...] = ()
    """Days of care places whose settlements may exist only here: nobody could be asked."""

    @property
    def breaches(self) -> tuple[tuple[Holder, insured_pb2.Breach], ...]:
        """What should be impossible, each with its side."""
        return (
            *((Holder.CARE, breach) for breach in self.care_breaches),
            *((Holder.INSURED, breach) for breach in self.insured_breaches),
        )

    def facts(self) -> dict[str, Any]:
        """The check for programs."""
        return {
            "site": self.site,
            "open": self.care_open,
            "accumulators": self.accumulators,
            "accounts": self.accounts,
            "breaches": [
                {
                    "side": str(side),
                    "invariant": breach.invariant,
                    "subject": breach.subject,
                    "text": breach.text,
                }
                for side, breach in self.breaches
            ],
            "not_compared": [
                {"day": one.business_day, "care_site": one.care_site, "text": one.text}
                for one in self.not_compared
            ],
        }


@dataclass(frozen=True, slots=True)
class Verification:
    """What `yidi verify` found."""

    comparisons: tuple[Comparison, ...]
    checks: tuple[SiteCheck, ...] = ()

    @property
    def equal(self) -> bool:
        """Whether no journal differs from another."""
        return not any(comparison.differences for comparison in self.comparisons)

    @property
    def ok(self) -> bool:
        """Whether the journals are equal and nothing is there that should be impossible."""
        return self.equal and not any(check.breaches for check in self.checks)

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
            "pairs": [comparison.facts() for comparison in self.comparisons],
            "sites": [check.facts() for check in self.checks],
        }


async def verify(clients: Clients, days: int = DAYS) -> Verification:
    """Compare the last `days` business days of every pair of provinces, and check each of them."""
    today = business_day(SystemClock().now_ms())
    provinces = list(clients.provinces)
    pairs = [
        PairDay(today - timedelta(days=back), care, insured)
        for back in range(days)
        for care in provinces
        for insured in provinces
    ]
    comparisons = await asyncio.gather(*(_settled(clients, pair) for pair in pairs))
    checks = await asyncio.gather(*(_check(clients, site) for site in provinces))
    return Verification(tuple(comparisons), tuple(checks))


async def check_insured(clients: Clients, site: str) -> insured_pb2.CheckInsuredInvariantsResponse:
    """Balances of `site` that are no sums, settlements that only it holds."""
    insured = clients.operator(insured_pb2_grpc.InsuredServiceStub, site, "settlement")
    asked = insured_pb2.CheckInsuredInvariantsRequest()
    return await insured.CheckInsuredInvariants(asked, timeout=CALL_S)


async def _check(clients: Clients, site: str) -> SiteCheck:
    care = clients.operator(care_pb2_grpc.CareServiceStub, site, "settlement")
    of_care, of_insured = await asyncio.gather(
        care.CheckCareInvariants(care_pb2.CheckCareInvariantsRequest(), timeout=CALL_S),
        check_insured(clients, site),
    )
    return SiteCheck(
        site,
        of_care.open_count,
        of_insured.accumulators,
        of_insured.accounts,
        tuple(of_care.breaches),
        tuple(of_insured.breaches),
        tuple(of_insured.not_compared),
    )


async def _settled(clients: Clients, pair: PairDay) -> Comparison:
    """The comparison, asked again while it differs: what was under way has then arrived."""
    comparison = await _compare(clients, pair)
    for _ in range(_ATTEMPTS - 1):
        if not comparison.differences:
            return comparison
        await asyncio.sleep(_AGAIN_S)
        comparison = await _compare(clients, pair)
    if comparison.differences:
        comparison = replace(comparison, drilled=await drill(clients, pair))
    return comparison


async def _compare(clients: Clients, pair: PairDay) -> Comparison:
    told = await journals_of(clients, pair)
    return Comparison(
        pair.day,
        pair.care_site,
        pair.insured_site,
        told[Holder.CARE],
        told.get(Holder.NATION),
        told[Holder.INSURED],
    )


def counts(comparison: Comparison) -> Sequence[int | None]:
    """The number of settlements at care place, nation and insured place."""
    nation = None if comparison.nation is None else comparison.nation.count
    return comparison.care.count, nation, comparison.insured.count
