"""Which document is in force: the published list, as one immutable snapshot."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from services.policy.domain.case import NotFound
from services.policy.domain.document import Document


class Publication(NamedTuple):
    """A published document: its place in the list and when it starts to count."""

    number: int
    activated_ms: int
    document: Document


class Book:
    """The documents by area and insurance, the one that takes precedence first.

    Of those that cover a day, the one that came into effect last holds (a successor ends an open
    predecessor); of two with the same start, the one published last (a correction).
    """

    def __init__(self, publications: Iterable[Publication] = ()) -> None:
        self.publications = tuple(publications)
        self.last_number = max((each.number for each in self.publications), default=0)
        self._documents: dict[tuple[str, str], list[Publication]] = {}
        for each in sorted(
            self.publications,
            key=lambda each: (each.document.effective_from, each.number),
            reverse=True,
        ):
            key = (each.document.area, each.document.insurance)
            self._documents.setdefault(key, []).append(each)

    def find(self, area: str, insurance: str, day: str, now_ms: int) -> Document:
        """The document for a visit that ends on `day` (ISO); raise `NotFound`."""
        for each in self._documents.get((area, insurance), ()):
            document = each.document
            if (
                document.effective_from <= day <= document.effective_to
                and each.activated_ms <= now_ms
            ):
                return document
        raise NotFound(day)
