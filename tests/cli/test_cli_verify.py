"""What counts as a difference between journals."""

from __future__ import annotations

from datetime import date

from hypothesis import given
from hypothesis import strategies as st

from infra.cli.verify import AMOUNTS, Comparison, Verification
from yidi.common.v1 import amounts_pb2, envelope_pb2

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
