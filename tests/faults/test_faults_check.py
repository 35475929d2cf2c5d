"""The check bites: each way in which books or answers can be wrong is found and named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from loadtests.faults.check import Books, Findings, judge
from loadtests.faults.logs import unforeseen
from loadtests.faults.promises import Promises
from loadtests.faults.traffic import POST, POSTED, Answer

MONEY = [
    "total_fen",
    "full_self_pay_fen",
    "over_limit_fen",
    "first_self_pay_fen",
    "in_scope_fen",
    "remote_first_pay_fen",
    "deductible_fen",
    "ratio_self_pay_fen",
    "over_cap_fen",
    "fund_total_fen",
    "account_fen",
    "cash_fen",
    "hospital_fen",
]


def row(key: str, state: str, **changed: Any) -> dict[str, Any]:
    settled = state in ("COMPLETED", "COMMITTED")
    return {
        "id": key,
        "state": state,
        "kind": 2,
        "undoes": None,
        "institution": "H1",
        "visit_id": f"V{key}",
        "bill_id": "1",
        "digest": f"d{key}" if settled else None,
        "sound": True,
        "account_delta": 0,
        "day": "2026-11-22" if settled else None,
        "care_site": "110000",
        "insured_site": "440000",
        **{name: (100 if name == "total_fen" else 0) if settled else None for name in MONEY},
        **changed,
    }


def undo_of(key: str, **changed: Any) -> dict[str, Any]:
    return {"kind": 3, "undoes": key, "total_fen": -100, **changed}


def books(*settled: str) -> Books:
    """Books in which the settlements stand everywhere."""
    return Books(
        care={key: row(key, "COMPLETED") for key in settled},
        decisions={key: row(key, "COMMITTED") for key in settled},
        nation={key: row(key, "COMMITTED") for key in settled},
    )


def undone(found: Books, key: str, undo: str, **changed: Any) -> None:
    found.care[undo] = row(undo, "COMPLETED", **undo_of(key, **changed))
    found.decisions[undo] = row(undo, "COMMITTED", **undo_of(key, **changed))
    found.nation[undo] = row(undo, "COMMITTED", **undo_of(key, **changed))


def answer(**changed: Any) -> Answer:
    asked = {
        "method": "Settle",
        "care_site": "110000",
        "institution": "H1",
        "request_id": "R1",
        "asked_id": "",
    }
    return Answer(**{**asked, **changed})


def told(*answers: Answer) -> Promises:
    promises = Promises()
    promises.take(answers)
    return promises


def posted(key: str, content: str, **changed: Any) -> Answer:
    return answer(**{"method": POST, "request_id": key, "state": POSTED, "content": content,
                     **changed})  # fmt: skip


def kinds(findings: Findings) -> set[str]:
    return {text.split(":")[0] for text in findings.all}


STANDS = answer(settlement_id="a", state="COMPLETED", digest="da")


def test_books_that_agree_have_no_finding() -> None:
    found = books("a", "b")
    undone(found, "b", "u")
    found.care["r"], found.decisions["r"] = row("r", "REJECTED"), row("r", "REJECTED")
    found.care["x"], found.decisions["x"] = row("x", "ABORTED"), row("x", "ABORTED")
    # Refused before it was sent on: the insured place never heard of it.
    found.care["n"] = row("n", "REJECTED")
    promises = told(
        STANDS,
        answer(request_id="R2", reason="FILING_REQUIRED", named_id="r"),
        answer(request_id="R3", reason="SETTLEMENT_ABORTED", named_id="x"),
        answer(method="Reverse", request_id="R4", asked_id="b", settlement_id="u",
               state="COMPLETED", digest="du"),
        answer(method="Refund", request_id="R5", asked_id="b", reason="ALREADY_UNDONE",
               named_id="u"),
        answer(method="Reverse", request_id="R6", asked_id="x", state="ABORTED"),
        answer(request_id="R7", reason="OUTCOME_PENDING", named_id="zzz"),
        posted("p", "what p means"),
        posted("p", "what p means"),
        posted("p", "something else", state="", reason="EXTERNAL_CONFLICT"),
        posted("q", "what q means", state="", reason="SERVICE_UNAVAILABLE"),
        posted("nothing", "never arrived", state="", reason="SERVICE_UNAVAILABLE"),
    )  # fmt: skip
    found.postings = {"p": ("S1", "what p means"), "q": ("S2", "what q means")}
    findings = judge(found, promises)
    assert findings.all == []
    assert findings.settlements == 3


@pytest.mark.parametrize("state", ["PENDING", "IN_DOUBT"])
def test_an_open_row_is_in_doubt_and_nothing_else(state: str) -> None:
    found = books("a")
    found.care["o"], found.decisions["o"] = row("o", state), row("o", "COMMITTED")
    assert kinds(judge(found, told())) == {"in_doubt_left"}


@pytest.mark.parametrize(
    "promise",
    [
        answer(settlement_id="a", state="COMPLETED", digest="other"),
        answer(settlement_id="gone", state="COMPLETED", digest="dgone"),
        answer(reason="FILING_REQUIRED", named_id="a"),
        answer(reason="BILL_ALREADY_SETTLED", named_id="gone"),
        answer(method="Reverse", asked_id="a", state="ABORTED"),
        answer(method="GetSettlement", settlement_id="a", state="REJECTED"),
        answer(method="Refund", asked_id="z", settlement_id="a", state="COMPLETED", digest="da"),
    ],
)
def test_an_answer_that_is_no_longer_true_is_lost(promise: Answer) -> None:
    assert kinds(judge(books("a"), told(promise))) == {"lost"}


@pytest.mark.parametrize(
    ("postings", "answers", "wrong"),
    [
        ({}, [posted("p", "x")], {"lost"}),
        ({"p": ("S", "x")}, [posted("p", "x"), posted("p", "y")], {"lost"}),
        ({"p": ("S", "x")},
         [posted("p", "x"), posted("p", "x", state="", reason="EXTERNAL_CONFLICT")], {"lost"}),
        ({"p": ("S", "y")}, [posted("p", "x")], {"lost", "disagree"}),
        ({"p": ("S", "x"), "w": ("S", "x")}, [posted("p", "x"), posted("w", "x")], {"double"}),
        ({"p": ("S", "x"), "w": ("T", "x")}, [posted("p", "x")], {"disagree"}),
    ],
)  # fmt: skip
def test_a_posting_that_is_lost_doubled_or_unasked_is_found(
    postings: dict[str, tuple[str, str]], answers: list[Answer], wrong: set[str]
) -> None:
    assert kinds(judge(Books(postings=postings), told(*answers))) == wrong


def test_a_cancellation_that_is_not_carried_out_is_in_doubt() -> None:
    found = books("a")
    found.cancelled.append("a")
    assert kinds(judge(found, told())) == {"in_doubt_left"}


def test_two_answers_to_one_request_are_lost() -> None:
    other = answer(settlement_id="b", state="COMPLETED", digest="db")
    assert kinds(judge(books("a", "b"), told(STANDS, other))) == {"lost"}


def test_two_live_settlements_of_one_bill_are_double() -> None:
    found = books("a", "b")
    found.care["b"]["visit_id"] = found.care["a"]["visit_id"]
    assert kinds(judge(found, told())) == {"double"}
    undone(found, "a", "u")
    assert judge(found, told()).all == []


def test_two_undos_of_one_original_are_double() -> None:
    found = books("a")
    undone(found, "a", "u")
    undone(found, "a", "w")
    assert kinds(judge(found, told())) == {"double"}


def test_each_difference_between_the_journals_disagrees() -> None:
    for change in (
        lambda found: found.nation.pop("a"),
        lambda found: found.decisions.pop("a"),
        lambda found: found.care.pop("a"),
        lambda found: found.care["a"].update(state="ABORTED", digest=None),
        lambda found: found.nation["a"].update(total_fen=101),
        lambda found: found.decisions["a"].update(digest="other"),
        lambda found: found.care["a"].update(day="2026-11-23"),
        lambda found: found.care["a"].update(sound=False),
        lambda found: found.balances.append("accumulator"),
        lambda found: found.decisions["a"].update(account_delta=-1),
        lambda found: [
            found.care["a"].update(account_fen=5),
            found.nation["a"].update(account_fen=5),
            found.decisions["a"].update(account_fen=5, account_delta=5),
        ],
        lambda found: undone(found, "a", "u", total_fen=-99),
        lambda found: undone(found, "missing", "u"),
    ):
        found = books("a", "b")
        change(found)
        assert kinds(judge(found, told())) == {"disagree"}


def test_inside_a_site_the_nation_hears_nothing() -> None:
    found = books("a")
    for journal in (found.care, found.decisions):
        journal["a"]["care_site"] = "440000"
    assert kinds(judge(found, told())) == {"disagree"}
    found.nation.clear()
    assert judge(found, told()).all == []


def test_errors_that_nobody_foresaw_are_found_in_the_logs(tmp_path: Path) -> None:
    lines = [
        '{"event": "internal", "method": "/a/B", "at": ["KeyError", "x.py:1 f"]}',
        '{"event": "background waits", "work": "recovery", "reason": "DATABASE_UNAVAILABLE"}',
        '{"event": "background failed", "work": "recovery", "at": ["KeyError", "y.py:2 g"]}',
        "Traceback of a library",
        '{"event": "inter',
    ]
    (tmp_path / "440000-4.log").write_text("\n".join(lines), encoding="utf-8")
    assert list(unforeseen(tmp_path)) == [
        "440000-4: internal /a/B: KeyError, x.py:1 f",
        "440000-4: background failed recovery: KeyError, y.py:2 g",
    ]
