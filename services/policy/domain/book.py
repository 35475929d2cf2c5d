"""Which document is in force: the published list, as one immutable snapshot."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from services.policy.domain.case import Case, NotFound
from services.policy.domain.document import Document


class Retirement(NamedTuple):
    """From which day on a document no longer holds, and when that starts to count."""

    from_day: str
    activated_ms: int


class Publication(NamedTuple):
    """A published document: its place in the list and when it starts to count."""

    number: int
    activated_ms: int
    document: Document
    retirement: Retirement | None = None

    def covers(self, case: Case, now_ms: int) -> bool:
        """Whether it may decide a visit, by the day that the document goes by."""
        document, retired = self.document, self.retirement
        day = _day(document, case)
        if not document.effective_from <= day <= document.effective_to:
            return False
        if self.activated_ms > now_ms:
            return False
        return retired is None or day < retired.from_day or retired.activated_ms > now_ms


class Book:
    """The documents by area and insurance, the one that takes precedence first.

    Of those that cover a day, the one that came into effect last holds (a successor ends an open
    predecessor); of two with the same start, the one published last (a correction). What is retired
    leaves its days to the next of them.
    """

    def __init__(self, publications: Iterable[Publication] = ()) -> None:
        self.publications = tuple(publications)
        self._documents: dict[tuple[str, str], list[Publication]] = {}
        self._versions: dict[tuple[str, str, str], Document] = {}
        self._hashes: dict[bytes, Document] = {}
        for each in sorted(
            self.publications,
            key=lambda each: (each.document.effective_from, each.number),
            reverse=True,
        ):
            document = each.document
            key = (document.area, document.insurance)
            self._documents.setdefault(key, []).append(each)
            self._versions[*key, document.version] = document
            self._hashes[document.hash] = document

    def find(self, area: str, insurance: str, case: Case, now_ms: int) -> Document:
        """The document for a visit; raise `NotFound`."""
        for each in self._documents.get((area, insurance), ()):
            if each.covers(case, now_ms):
                return each.document
        raise NotFound(case.end_date)

    def version(self, area: str, insurance: str, version: str) -> Document | None:
        """A published version, in force or not."""
        return self._versions.get((area, insurance, version))

    def with_hash(self, digest: bytes) -> Document | None:
        """The published document with a content hash: a decision of the past names it."""
        return self._hashes.get(digest)


def _day(document: Document, case: Case) -> str:
    if document.effective_by == "discharge":
        return case.end_date
    if document.effective_by == "settlement":
        return case.business_day
    return case.start_date or case.end_date
