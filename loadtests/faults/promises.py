"""What answers promise for ever: a pure reading of them, before any database is looked at."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from loadtests.faults.traffic import POST, POSTED, Answer

K = TypeVar("K")
STANDS, NOTHING_PAID = "COMPLETED", "NOTHING_PAID"
_FINAL_REFUSED = ("REJECTED", "ABORTED")
_SAYS_NOTHING = frozenset(
    {
        "OUTCOME_PENDING",
        "BILL_ALREADY_SETTLING",
        "SETTLEMENT_NOT_FOUND",
        "SETTLEMENT_ID_REUSED",
        "SERVICE_UNAVAILABLE",
        "DATABASE_UNAVAILABLE",
    }
)
"""Refusals that may name a settlement and promise nothing of it."""
_STANDS = frozenset({"BILL_ALREADY_SETTLED", "ALREADY_UNDONE"})
"""Refusals that name a settlement which stands."""


@dataclass(slots=True)
class Promises:
    """What must be true of settlement ids, and answers that contradict each other."""

    outcomes: dict[str, str] = field(default_factory=dict)
    """Settlement id → STANDS or NOTHING_PAID."""
    digests: dict[str, str] = field(default_factory=dict)
    """Settlement id → digest of its outcome header, hex."""
    undone: dict[str, str] = field(default_factory=dict)
    """Undo → the settlement that it undid."""
    postings: dict[str, str] = field(default_factory=dict)
    """Posting → everything it means, once it was answered as posted."""
    asked_postings: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Posting → what was asked to be posted under its id, answered or not."""
    broken: list[str] = field(default_factory=list)
    """Two answers that cannot both be true."""
    _by_request: dict[tuple[str, str, str], str] = field(default_factory=dict)
    _told_of_posting: dict[tuple[str, str], str] = field(default_factory=dict)

    def take(self, answers: Iterable[Answer]) -> None:
        """Add what `answers` promise."""
        for answer in answers:
            self._take(answer)

    def _take(self, answer: Answer) -> None:
        if answer.method == POST:
            self._take_posting(answer)
        elif answer.reason in _STANDS:
            self._promise(answer.named_id, STANDS, answer)
        elif answer.reason:
            if answer.named_id and answer.reason not in _SAYS_NOTHING:
                # A stored refusal names its own settlement: it is final and paid nothing.
                self._promise(answer.named_id, NOTHING_PAID, answer)
                self._same_request(answer, answer.named_id)
        elif not answer.settlement_id:
            # An undo of what never stood.
            self._promise(answer.asked_id, NOTHING_PAID, answer)
        elif answer.state == STANDS:
            self._promise(answer.settlement_id, STANDS, answer)
            self._same(self.digests, answer.settlement_id, answer.digest, answer)
            self._same_request(answer, answer.settlement_id)
            if answer.method in ("Reverse", "Refund"):
                self._same(self.undone, answer.settlement_id, answer.asked_id, answer)
        elif answer.state in _FINAL_REFUSED:
            self._promise(answer.settlement_id, NOTHING_PAID, answer)

    def _take_posting(self, answer: Answer) -> None:
        posting_id, content = answer.request_id, answer.content
        self.asked_postings[posting_id].add(content)
        if answer.state == POSTED:
            self._same(self.postings, posting_id, content, answer)
        if answer.state == POSTED or answer.reason == "EXTERNAL_CONFLICT":
            # What stands under an id stands for ever, so each content of it has one answer.
            told = answer.state or answer.reason
            self._same(self._told_of_posting, (posting_id, content), told, answer)

    def _same_request(self, answer: Answer, settlement_id: str) -> None:
        # A question by request id is a question about the settlement of that request. A reversal
        # of an original in doubt is answered with the undo that recovery sends: other ids share it.
        if answer.request_id:
            method = "Settle" if answer.method == "GetSettlement" else answer.method
            key = (answer.institution, method, answer.request_id)
            self._same(self._by_request, key, settlement_id, answer)

    def _promise(self, settlement_id: str, outcome: str, answer: Answer) -> None:
        if settlement_id:
            self._same(self.outcomes, settlement_id, outcome, answer)

    def _same(self, known: dict[K, str], key: K, value: str, answer: Answer) -> None:
        if known.setdefault(key, value) != value:
            self.broken.append(f"{key}: first {known[key]}, then {value} by {answer.method}")
