"""What may be written in a rule of the fee audit: the keys of each kind and their values.

A value is read into the type that the rule holds; what cannot be read is a `Wrong` that says what
to write instead.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from enum import IntEnum
from typing import Any, TypeVar

from infra.runtime.id_number import Sex
from services.catalog.domain.audit_rule import (
    Ages,
    CareTypes,
    Condition,
    Duplicate,
    Exclusive,
    Frequency,
    OnlySex,
    Places,
    Selector,
)
from services.catalog.domain.institution import CareType, InstitutionGrade, InstitutionKind
from services.catalog.domain.item import FeeCategory, Level, ListType

_LONGEST_TEMPLATE = 140
"""Characters: with the names and days filled in, a message fits the 300 of the contract."""
_SELECTORS = ("codes", "prefixes", "fee_categories", "list_types")
_CODE = re.compile(r"[A-Z][A-Z0-9-]{2,39}")
_WITHIN = re.compile(r"([1-9]\d{0,2}) days")
_E4 = 10_000
Member = TypeVar("Member", bound=IntEnum)


class Wrong(ValueError):
    """A part cannot be read; `part` within the rule."""

    def __init__(self, text: str, *part: str | int) -> None:
        self.part = part
        super().__init__(text)


def read_selector(written: Mapping[str, Any], key: str) -> Selector:
    """What lines a rule is about; a code that a prefix selects already is a mistake."""
    value = written.get(key)
    if not isinstance(value, dict) or not value or not value.keys() <= set(_SELECTORS):
        raise Wrong(f"must be a map of {', '.join(_SELECTORS)}", key)
    codes = _words(value, key, "codes")
    prefixes = _words(value, key, "prefixes")
    for one in prefixes:
        for other in prefixes:
            if one != other and one.startswith(other):
                raise Wrong(f"{one} is selected by {other} already", key, "prefixes")
    for code in codes:
        if code.startswith(tuple(prefixes)):
            raise Wrong(f"{code} is selected by a prefix already", key, "codes")
    return Selector(
        frozenset(codes),
        frozenset(prefixes),
        _members(FeeCategory, value, "fee_categories", key),
        _members(ListType, value, "list_types", key),
    )


def _duplicate(written: Mapping[str, Any]) -> Condition:
    return Duplicate(_whole(written, "most", 1) * _E4 if "most" in written else None)


def _frequency(written: Mapping[str, Any]) -> Condition:
    within, together = written.get("within"), written.get("together", False)
    days = _WITHIN.fullmatch(within) if isinstance(within, str) else None
    if days is None and within not in ("day", "bill"):
        raise Wrong("must be day, bill or a number of days such as `7 days`", "within")
    if not isinstance(together, bool):
        raise Wrong("must be true or false", "together")
    most = _whole(written, "most", 1) * _E4
    return Frequency(most, int(days[1]) if days else 1 if within == "day" else None, together)


def _sex(written: Mapping[str, Any]) -> Condition:
    try:
        return OnlySex(read_member(Sex, written.get("sex")))
    except Wrong as wrong:
        raise Wrong(str(wrong), "sex") from wrong


def _ages(written: Mapping[str, Any]) -> Condition:
    youngest = _whole(written, "youngest", 0) if "youngest" in written else 0
    oldest = _whole(written, "oldest", 0) if "oldest" in written else None
    if oldest is None and youngest == 0:
        raise Wrong("needs youngest or oldest: it lets every age pass")
    if oldest is not None and oldest < youngest:
        raise Wrong("is younger than youngest: it lets no age pass", "oldest")
    return Ages(youngest, oldest)


def _places(written: Mapping[str, Any]) -> Condition:
    of = Places(
        _members(InstitutionGrade, written, "grades"),
        _members(Level, written, "levels"),
        _members(InstitutionKind, written, "kinds"),
    )
    sets = ((of.grades, InstitutionGrade), (of.levels, Level), (of.kinds, InstitutionKind))
    if all(not found or len(found) == len(members) for found, members in sets):
        raise Wrong("needs some of grades, levels, kinds: it lets every institution pass")
    return of


def _exclusive(written: Mapping[str, Any]) -> Condition:
    return Exclusive(read_selector(written, "against"))


def _care_types(written: Mapping[str, Any]) -> Condition:
    found = _members(CareType, written, "care_types")
    if not found or len(found) == len(CareType):
        raise Wrong("must name some care types, not all: else it says nothing", "care_types")
    return CareTypes(found)


KINDS: dict[
    str, tuple[tuple[str, ...], Callable[[Mapping[str, Any]], Condition], type[Condition]]
] = {
    "duplicate": (("most",), _duplicate, Duplicate),
    "frequency": (("most", "within", "together"), _frequency, Frequency),
    "sex": (("sex",), _sex, OnlySex),
    "age": (("youngest", "oldest"), _ages, Ages),
    "institution": (("grades", "levels", "kinds"), _places, Places),
    "exclusive": (("against",), _exclusive, Exclusive),
    "care_type": (("care_types",), _care_types, CareTypes),
}
"""Kind as written → its own keys, what reads them, what comes of it."""
KIND_OF = {type_of: kind for kind, (_, _, type_of) in KINDS.items()}


def spelt(member: IntEnum) -> str:
    """How a member is written in a file."""
    return member.name.lower()


def read_member(kind: type[Member], word: Any) -> Member:
    known = {spelt(one): one for one in kind}
    if not isinstance(word, str) or word not in known:
        raise Wrong(f"{word} is none of {', '.join(known)}")
    return known[word]


def _members(
    kind: type[Member], written: Mapping[str, Any], key: str, *around: str
) -> frozenset[Member]:
    try:
        return frozenset(read_member(kind, word) for word in _words(written, *around, key))
    except Wrong as wrong:
        raise Wrong(str(wrong), *around, key) from wrong


def _words(written: Mapping[str, Any], *path: str) -> list[str]:
    """The list of words under the last of `path`; empty where there is none."""
    words = written.get(path[-1])
    if words is None:
        return []
    if (
        not isinstance(words, list)
        or not words
        or not all(isinstance(one, str) and one for one in words)
    ):
        raise Wrong("must be a list of words; numbers in quotes", *path)
    _check_once(words, path)
    return words


def _check_once(words: Iterable[str], path: tuple[str, ...]) -> None:
    seen: set[str] = set()
    for word in words:
        if word in seen:
            raise Wrong(f"{word} stands twice", *path)
        seen.add(word)


def _whole(written: Mapping[str, Any], key: str, least: int) -> int:
    value = written.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= 100_000:
        raise Wrong(f"must be a whole number, {least} to 100000", key)
    return value


def read_plain(written: Mapping[str, Any], key: str, most: int) -> str:
    value = written.get(key)
    if not isinstance(value, str) or not 1 <= len(value) <= most:
        raise Wrong(f"must be text of 1 to {most} characters")
    return value


def read_code(written: Mapping[str, Any], key: str) -> str:
    value = written.get(key)
    if not isinstance(value, str) or not _CODE.fullmatch(value):
        raise Wrong("must be 3 to 40 capital letters, digits and hyphens, such as BED-A-DAY")
    return value


def read_day(written: Mapping[str, Any], key: str, otherwise: date) -> date:
    if key not in written:
        return otherwise
    try:
        return date.fromisoformat(written[key])
    except (TypeError, ValueError):
        raise Wrong("must be a day such as 2026-01-01") from None


def read_message(written: Mapping[str, Any], allowed: frozenset[str]) -> str:
    """The template; it names the items, so that whoever reads it finds them."""
    text = read_plain(written, "message", _LONGEST_TEMPLATE)
    try:
        fields = list(string.Formatter().parse(text))
    except ValueError as error:
        raise Wrong(f"a brace without its other: {error}") from error
    for _, name, form, conversion in fields:
        if name is not None and (name not in allowed or form or conversion):
            known = ", ".join(f"{{{one}}}" for one in sorted(allowed))
            raise Wrong(f"{{{name}}} is none of {known}")
    if not any(name == "items" for _, name, _, _ in fields):
        raise Wrong("must name the {items}")
    return text
