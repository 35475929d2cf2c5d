"""Which settlements have for over 24 hours been nowhere but here, and which days to ask about.

The order of writing is insured place, nation, care place, so whatever the nation lacks no care
place has completed: the care place has lost it, or does not recover. Every hour, and whenever the
operator asks, each day of each care place is compared with the nation's journal over this site's
own relay (LOCAL and IN_PROVINCE with the care journal beside it). A day that ended more than 24
hours ago and is equal is never asked about again; one that differs is followed down to its hours
and settlements. What is found is an alarm: nothing is ever undone here, for the care place may have
answered its institution before it lost the row. Days older than 40 days are left to reconciliation.

Other differences (other bytes, settlements that only the nation has) are `yidi verify`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from enum import Enum

import structlog

from infra.runtime.background import Background
from infra.runtime.clock import SHANGHAI, Clock, instant, monotonic_us
from infra.runtime.config import NATION
from infra.runtime.differing import differing_figures, drill
from infra.runtime.errors import Reason, Refusal
from infra.runtime.journal import MAX_ENTRIES
from services.settlement.store.comparing import ComparingStore, Decided
from services.settlement.store.insured import InsuredStore
from yidi.common.v1 import envelope_pb2
from yidi.relay.v1 import relay_pb2, relay_pb2_grpc

AGE = timedelta(hours=24)
"""How long a settlement may be here alone."""
LOOK_BACK = timedelta(days=40)
MAX_FOUND = 1_000
"""Findings of one look: more would not fit into an answer, and tell nothing more."""
EVERY_SECONDS = 3_600.0
AGAIN_SECONDS = 600.0
"""When not everything was compared: some site may be down, or not up yet."""
CALL_SECONDS = 10.0
_ANSWER_US = 1_000_000
"""What a look leaves of its caller's time."""
_FULL = f"已列出 {MAX_FOUND} 笔，其余未查"
_TOO_MANY = f"一小时内超过 {MAX_ENTRIES} 笔，其余未逐笔查"
_log = structlog.get_logger("yidi.settlement")


@dataclass(frozen=True, slots=True)
class OnlyHere:
    """A committed settlement that the others should have had for long."""

    settlement_id: str
    business_day: date
    care_site: str
    decided_at: datetime
    lacking: tuple[str, ...]
    """Sites without it."""

    @property
    def text(self) -> str:
        """What it is, since when, who lacks it and what to do."""
        since = self.decided_at.astimezone(SHANGHAI)
        names = "、".join(
            f"国家（{site}）" if site == NATION else f"就医地（{site}）" for site in self.lacking
        )
        return (
            f"{since:%Y-%m-%d %H:%M:%S} 已作出决定，超过 24 小时仍只在参保地，"
            f"{names}没有完成的记录；请向其查明原因，不得自行冲正或退费"
        )


@dataclass(frozen=True, slots=True)
class Looked:
    """What one look found."""

    only_here: list[OnlyHere] = field(default_factory=list)
    not_compared: dict[tuple[date, str], str] = field(default_factory=dict)
    """Day and care site → why it could not be compared, or not to its end."""


@dataclass(frozen=True, slots=True)
class _Compared:
    """What came of one day of one care place."""

    only_here: list[OnlyHere]
    equal: bool = False
    incomplete: str = ""
    """Why there may be more."""


class _Journal(Enum):
    NATION = "nation"
    OWN = "own"


@dataclass(frozen=True, slots=True)
class _Look:
    """One day of one care place, and how far to look."""

    day: date
    care_site: str
    before: datetime
    """Later decisions are not looked for."""
    room: int
    """Findings at most."""
    until_us: int | None


class Comparing:
    """Looks for settlements that only the insured place `site` has."""

    def __init__(
        self,
        *,
        site: str,
        insured: InsuredStore,
        store: ComparingStore,
        nation: relay_pb2_grpc.RelayServiceStub,
        clock: Clock,
    ) -> None:
        self._site = site
        self._insured = insured
        self._store = store
        self._nation = nation
        self._clock = clock
        self._complete = False
        """Whether the last look compared everything."""
        self._background = Background(
            "comparing",
            self._round,
            rest=lambda: EVERY_SECONDS if self._complete else AGAIN_SECONDS,
        )

    def start(self) -> None:
        """Run until `stop`."""
        self._background.start()

    async def stop(self) -> None:
        """End; another replica, or the next start, looks again."""
        await self._background.stop()

    async def _round(self) -> None:
        self._complete = False
        self._complete = not (await self.look()).not_compared

    async def look(self, until_us: int | None = None) -> Looked:
        """Compare what is not known to be equal, and raise an alarm for each finding.

        `until_us`: when the caller stops waiting; what could not be asked by then is told.
        """
        now = instant(self._clock)
        before = now - AGE
        last = before.astimezone(SHANGHAI).date()
        looked = Looked()
        unreachable: Refusal | None = None
        for day, care_site in await self._store.pairs(last - LOOK_BACK, last):
            room = MAX_FOUND - len(looked.only_here)
            if unreachable is not None and care_site != self._site:
                looked.not_compared[day, care_site] = str(unreachable)
                continue
            if not room:
                looked.not_compared[day, care_site] = _FULL
                continue
            try:
                one = await self._compare(_Look(day, care_site, before, room, until_us))
                if one.equal and day < last:  # its last decision is older than AGE
                    await self._store.equal(day, care_site, now)
            except Refusal as refusal:
                looked.not_compared[day, care_site] = str(refusal)
                if refusal.reason == Reason.ERROR_REASON_SITE_UNREACHABLE:
                    unreachable = refusal
                continue
            _raise_alarm(one.only_here)
            looked.only_here.extend(one.only_here)
            if one.incomplete:
                looked.not_compared[day, care_site] = one.incomplete
        if looked.not_compared:
            _log.warning(
                "days not compared",
                count=len(looked.not_compared),
                why=sorted(set(looked.not_compared.values())),
            )
        return looked

    async def _compare(self, look: _Look) -> _Compared:
        if look.until_us is not None and _left_s(look.until_us) <= 0:
            raise Refusal(Reason.ERROR_REASON_DEADLINE_TOO_SHORT)
        if look.care_site == self._site:
            found = await self._store.missing_at_care(
                look.day, look.care_site, look.before, look.room
            )
            return _compared(look, found, (look.care_site,), equal=not found)

        async def ask(
            detail: envelope_pb2.JournalDetail.ValueType, hour: int
        ) -> Mapping[_Journal, envelope_pb2.JournalDigest]:
            nation = await self._ask_nation(look, detail, hour)
            own = await self._insured.digest(look.day, look.care_site, self._site, detail, hour)
            return {_Journal.NATION: nation, _Journal.OWN: own}

        day = await ask(envelope_pb2.JOURNAL_DETAIL_UNSPECIFIED, 0)
        if not differing_figures(day.values()):
            return _Compared([], equal=True)
        drilled = await drill(ask)
        missing = [one.settlement_id for one in drilled.odd if _Journal.NATION in one.missing]
        found = await self._store.older(missing, look.before, look.room) if missing else []
        return _compared(
            look, found, (NATION, look.care_site), equal=False, incomplete=drilled.incomplete
        )

    async def _ask_nation(
        self, look: _Look, detail: envelope_pb2.JournalDetail.ValueType, hour: int
    ) -> envelope_pb2.JournalDigest:
        seconds = CALL_SECONDS
        if look.until_us is not None:
            seconds = min(seconds, _left_s(look.until_us))
        request = relay_pb2.GetNationJournalDigestRequest(
            business_day=look.day.isoformat(),
            care_site=look.care_site,
            insured_site=self._site,
            detail=detail,
            hour=hour,
        )
        if seconds <= 0:
            raise Refusal(Reason.ERROR_REASON_DEADLINE_TOO_SHORT)
        return (await self._nation.GetNationJournalDigest(request, timeout=seconds)).journal


def _compared(
    look: _Look,
    found: Sequence[Decided],
    lacking: tuple[str, ...],
    *,
    equal: bool,
    incomplete: bool = False,
) -> _Compared:
    only_here = [
        OnlyHere(one.settlement_id, look.day, look.care_site, one.decided_at, lacking)
        for one in found
    ]
    if len(found) >= look.room:
        return _Compared(only_here, incomplete=_FULL)
    return _Compared(only_here, equal, _TOO_MANY if incomplete else "")


def _left_s(until_us: int) -> float:
    return (until_us - monotonic_us() - _ANSWER_US) / 1e6


def _raise_alarm(found: Sequence[OnlyHere]) -> None:
    for one in found:
        _log.error(
            "alarm: only here for over 24 hours",
            settlement_id=one.settlement_id,
            business_day=one.business_day.isoformat(),
            lacking=one.lacking,
        )
