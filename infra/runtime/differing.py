"""What journals do not hold alike: the figures of a day, then its hours, then the settlements.

`H` names a journal; what it is, the asker knows.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from infra.runtime.journal import AMOUNTS, MAX_ENTRIES
from yidi.common.v1 import envelope_pb2

H = TypeVar("H")
Journals = Mapping[H, envelope_pb2.JournalDigest]
Ask = Callable[[envelope_pb2.JournalDetail.ValueType, int], Awaitable[Journals[H]]]
"""What every journal says of the day, as deep as asked, of the hour where rows are asked for."""


@dataclass(frozen=True, slots=True)
class Odd(Generic[H]):
    """A settlement that the journals do not hold alike."""

    settlement_id: str
    missing: tuple[H, ...]
    """Journals that do not hold it; empty when all do, with different bytes."""


@dataclass(frozen=True, slots=True)
class Drilled(Generic[H]):
    """The settlements behind the differences of a day."""

    odd: tuple[Odd[H], ...] = ()
    incomplete: bool = False
    """An hour has more rows than a journal tells: there may be more."""


def differing_figures(journals: Iterable[envelope_pb2.JournalDigest]) -> tuple[str, ...]:
    """What differs: `count`, a sum, `fund <code>`, `digest`; empty when all are equal."""
    views = [_view(journal) for journal in journals]
    names = {name: None for view in views for name in view}
    return tuple(name for name in names if len({view.get(name, 0) for view in views}) > 1)


async def drill(ask: Ask[H]) -> Drilled[H]:
    """Find the settlements that differ: by hours first, then the rows of those that differ.

    None is found when all bytes are alike, i.e. when a column beside them was altered.
    """
    odd: list[Odd[H]] = []
    incomplete = False
    for hour in differing_hours(await ask(envelope_pb2.JOURNAL_DETAIL_HOURS, 0)):
        rows = await ask(envelope_pb2.JOURNAL_DETAIL_ENTRIES, hour)
        odd += differing_rows(rows)
        incomplete |= any(len(journal.entries) >= MAX_ENTRIES for journal in rows.values())
    return Drilled(tuple(odd), incomplete)


def differing_hours(journals: Journals[H]) -> list[int]:
    """The hours that the journals do not tell alike."""
    told = [{h.hour: (h.count, h.digest) for h in journal.hours} for journal in journals.values()]
    every = sorted({hour for hours in told for hour in hours})
    return [hour for hour in every if len({hours.get(hour) for hours in told}) > 1]


def differing_rows(journals: Journals[H]) -> list[Odd[H]]:
    """The rows that the journals do not hold alike, as far as all of them tell their rows."""
    told = {
        holder: {entry.settlement_id: entry.digest for entry in journal.entries}
        for holder, journal in journals.items()
    }
    # A journal that told as much as it may is silent about later rows: it does not lack them.
    ends = [max(rows) for rows in told.values() if len(rows) >= MAX_ENTRIES]
    every = sorted({settlement_id for rows in told.values() for settlement_id in rows})
    return [
        Odd(one, tuple(holder for holder, rows in told.items() if one not in rows))
        for one in every
        if all(one <= end for end in ends) and len({rows.get(one) for rows in told.values()}) > 1
    ]


def _view(journal: envelope_pb2.JournalDigest) -> dict[str, int | bytes]:
    """Everything that must be equal, by the name under which a difference is reported."""
    view: dict[str, int | bytes] = {"count": journal.count}
    view |= {name: getattr(journal.sums, name) for name in AMOUNTS}
    view |= {f"fund {fund.code}": fund.fen for fund in journal.funds if fund.fen}
    view["digest"] = journal.digest
    return view
