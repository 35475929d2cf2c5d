"""What counts as a difference between journals."""

from __future__ import annotations

from datetime import date
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from infra.cli.journals import show_verification
from infra.cli.pairs import Holder
from infra.cli.verify import Comparison, SiteCheck, Verification
from infra.runtime import differing
from infra.runtime.differing import Odd, differing_hours, differing_rows
from infra.runtime.journal import AMOUNTS
from yidi.common.v1 import amounts_pb2, envelope_pb2
from yidi.settlement.v1 import insured_pb2

DAY = date(2026, 11, 21)


def journal(**changes: object) -> envelope_pb2.JournalDigest:
    made = envelope_pb2.JournalDigest(count=2, digest=b"d" * 32, open_count=0)
    made.sums.total_fen = 500
    made.funds.add(code="hifp_pay", fen=300)
    for name, value in changes.items():
        if name in AMOUNTS:
            setattr(made.sums, name, value)
        else:
            setattr(made, name, value)
    return made


def compare(
    care: envelope_pb2.JournalDigest,
    nation: envelope_pb2.JournalDigest | None,
    insured: envelope_pb2.JournalDigest,
) -> tuple[str, ...]:
    return Comparison(DAY, "110000", "440000", care, nation, insured).differences


def test_equal_journals_do_not_differ() -> None:
    assert compare(journal(), journal(), journal()) == ()
    assert compare(journal(), None, journal()) == ()


@given(name=st.sampled_from(AMOUNTS), fen=st.integers(1, 10**12), where=st.integers(0, 2))
def test_any_sum_that_differs_is_named(name: str, fen: int, where: int) -> None:
    journals = [journal(), journal(), journal()]
    setattr(journals[where].sums, name, getattr(journals[where].sums, name) + fen)
    assert compare(*journals) == (name,)


def test_digest_count_and_funds_are_compared() -> None:
    assert compare(journal(), journal(digest=b"e" * 32), journal()) == ("digest",)
    assert compare(journal(count=3), journal(), journal()) == ("count",)
    more = journal()
    more.funds.append(amounts_pb2.FundPayment(code="new_pay", fen=1))
    assert compare(journal(), None, more) == ("fund new_pay",)
    more.funds[-1].fen = 0
    assert compare(journal(), None, more) == ()


def test_open_rows_are_no_difference_and_are_counted_once_per_pair() -> None:
    opened = journal(open_count=4)
    days = (DAY, date(2026, 11, 20))
    verification = Verification(
        tuple(Comparison(d, "110000", "440000", opened, journal(), journal()) for d in days)
    )
    assert verification.ok
    assert verification.open_count == 4
    assert verification.facts()["ok"] is True


def test_a_breach_is_not_ok_although_the_journals_are_equal() -> None:
    breach = insured_pb2.Breach(invariant="sum_of_deltas", subject="x", text="y")
    found = Verification((), (SiteCheck("440000", 0, 1, 0, insured_breaches=(breach,)),))
    assert found.equal
    assert not found.ok
    (site,) = found.facts()["sites"]
    assert site["breaches"] == [
        {"side": "insured", "invariant": "sum_of_deltas", "subject": "x", "text": "y"}
    ]


def test_what_was_not_compared_is_no_breach_and_is_shown() -> None:
    days = tuple(
        insured_pb2.NotCompared(
            business_day=f"2026-11-{day}", care_site="110000", text="SITE_UNREACHABLE: 国家平台"
        )
        for day in (18, 19)
    )
    found = Verification((), (SiteCheck("440000", 0, 1, 0, not_compared=days),))
    assert found.ok
    (site,) = found.facts()["sites"]
    assert [(one["day"], one["care_site"]) for one in site["not_compared"]] == [
        ("2026-11-18", "110000"),
        ("2026-11-19", "110000"),
    ]
    console = Console(file=StringIO(), width=200)
    show_verification(found, console)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "广东: 未比对 not compared: 2 days of care places older than 24 h" in shown
    assert "SITE_UNREACHABLE: 国家平台" in shown


HOLDERS = tuple(Holder)
Rows = dict[int, int]


def rows_of(rows: Rows) -> envelope_pb2.JournalDigest:
    told = envelope_pb2.JournalDigest()
    for number, digest in rows.items():
        told.entries.add(settlement_id=f"{number:08d}", digest=bytes([digest]))
        told.hours.add(hour=number, count=1, digest=bytes([digest]))
    return told


@given(
    rows=st.dictionaries(st.integers(0, 30), st.integers(0, 3), max_size=12),
    lost=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 2)), max_size=4),
    altered=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 2)), max_size=4),
)
def test_drilling_names_exactly_what_was_lost_or_altered(
    rows: Rows, lost: list[tuple[int, int]], altered: list[tuple[int, int]]
) -> None:
    """Proof by hour and id: what is the same everywhere is never named, all else is."""
    books = [dict(rows) for _ in HOLDERS]
    for number, where in altered:
        if number in rows:
            books[where][number] = 10 + where
    for number, where in lost:
        books[where].pop(number, None)
    told = {holder: rows_of(book) for holder, book in zip(HOLDERS, books, strict=True)}
    expected = [
        Odd(
            f"{number:08d}",
            tuple(h for h, book in zip(HOLDERS, books, strict=True) if number not in book),
        )
        for number in sorted(rows)
        if len({book.get(number) for book in books}) > 1
    ]
    assert differing_rows(told) == expected
    assert [f"{hour:08d}" for hour in differing_hours(told)] == [
        odd.settlement_id for odd in expected
    ]


def test_a_journal_that_told_all_it_may_lacks_nothing_behind_its_last_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With one row more at one journal, the rows after the others' last are no difference."""
    monkeypatch.setattr(differing, "MAX_ENTRIES", 4)
    told = {
        Holder.NATION: rows_of({1: 0, 2: 0, 4: 0, 5: 0}),  # 6 is there and was not told
        Holder.INSURED: rows_of({1: 0, 2: 0, 3: 0, 4: 0}),  # 5 and 6 likewise
    }
    assert differing_rows(told) == [Odd("00000003", (Holder.NATION,))]
