"""The keys of a file of filing rules: what each depends on and what may be written under it.

A value is read into the type that `AreaRules` holds for its key; what cannot be read is a
`ValueError` that says what to write instead.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, TypeVar

from services.filing.domain.area_rules import (
    BackHome,
    Contact,
    Evidence,
    Exemption,
    Lock,
    Referrals,
)
from services.filing.domain.channels import Family, family
from services.filing.domain.facts import (
    BenefitClass,
    CareType,
    FilingChannel,
    FilingKind,
    InsuranceType,
    Material,
    PersonClass,
    Route,
)
from services.filing.domain.permitted import CLASSES

Member = TypeVar("Member", bound=IntEnum)
Combination = tuple[IntEnum, ...]
"""One value of each dimension of a key, in their order."""
_AREA = re.compile(r"\d{6}")
_INSTITUTION = re.compile(r"[A-Z0-9]{6,30}")


@dataclass(frozen=True, slots=True)
class Dimension:
    """A fact that values may depend on, with the values that it has for its key."""

    name: str
    members: tuple[IntEnum, ...]
    groups: Mapping[str, tuple[IntEnum, ...]]
    """Words for several values: 长期 kinds, national channels."""

    def read(self, word: Any) -> tuple[IntEnum, ...]:
        """The values that `word` names."""
        if not isinstance(word, str):
            raise ValueError(f"{word} is no word")
        if word in self.groups:
            return self.groups[word]
        known = {spelt(one): one for one in type(self.members[0])}
        if word not in known:
            raise ValueError(f"{word} is none of {', '.join([*known, *self.groups])}")
        if known[word] not in self.members:
            raise ValueError(f"{word} can never apply here")
        return (known[word],)


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a file."""

    name: str
    dimensions: tuple[Dimension, ...]
    read: Callable[[Any, Combination], Any]
    """Value as written and the combination that it is for → the value of the table."""
    national: bool = False
    """Whether only `national.yaml` holds it."""


def spelt(member: IntEnum) -> str:
    """How a member is written in a file."""
    return member.name.lower()


def _months(value: Any, _: Combination) -> int | None:
    return None if value == "no_end" else _number(value, 1, "no_end")


def _back_dating(value: Any, _: Combination) -> int | None:
    return None if value == "any" else _number(value, 0, "any")


def _days(value: Any, _: Combination) -> int:
    return _number(value, 0)


def _classes(value: Any, combination: Combination) -> frozenset[PersonClass]:
    (insurance,) = (one for one in combination if isinstance(one, InsuranceType))
    if value == "all":
        return CLASSES[insurance]
    found = frozenset(_members(PersonClass, value, "all"))
    for one in sorted(found - CLASSES[insurance]):
        raise ValueError(f"{spelt(one)} can never apply to {spelt(insurance)}")
    return found


def _evidence(value: Any, _: Combination) -> Evidence:
    written = _map(value, required=list, any_of=list, promise=bool)
    required = frozenset(_members(Material, written["required"]))
    any_of = frozenset(_members(Material, written["any_of"]))
    if Material.COMMITMENT in any_of:
        raise ValueError("commitment stands for any_of by `promise: true`, not as one of them")
    if written["promise"] and not any_of:
        raise ValueError("promise can never apply: any_of is empty")
    return Evidence(required, any_of, written["promise"])


def _channels(value: Any, combination: Combination) -> frozenset[FilingChannel]:
    words = _list(value)
    found = frozenset(one for word in words for one in CHANNEL.read(word))
    if FilingChannel.HOSPITAL_UPLOAD in found and FilingKind.REFERRAL not in combination:
        raise ValueError("hospital_upload can never apply: institutions upload referrals only")
    if not found:
        raise ValueError("must name a channel")
    return frozenset(one for one in found if isinstance(one, FilingChannel))


def _lock(value: Any, _: Combination) -> Lock:
    written = _map(value, months=int, only_after_cost=bool)
    months = _number(written["months"], 0)
    if written["only_after_cost"] and not months:
        raise ValueError("only_after_cost can never apply: months is 0")
    return Lock(months, written["only_after_cost"])


def _flag(value: Any, _: Combination) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def _exemption(value: Any, _: Combination) -> Exemption:
    written = _map(value, routes=list, places=list, benefit_class=str)
    routes = frozenset(
        one
        for word in _list(written["routes"])
        for one in ROUTE.read(word)
        if isinstance(one, Route)
    )
    places = frozenset(_area(one) for one in written["places"])
    return Exemption(routes, places, _member(BenefitClass, written["benefit_class"]))


def _unfiled(value: Any, _: Combination) -> BenefitClass | None:
    return None if value == "none" else _member(BenefitClass, value, "none")


def _referrals(value: Any, _: Combination) -> Referrals:
    written = _map(value, named=list, others_accepted=bool)
    named: dict[str, str] = {}
    for one in written["named"]:
        institution = _map(one, code=str, name=str)
        code = institution["code"]
        if not _INSTITUTION.fullmatch(code):
            raise ValueError(f"{code} is no institution code")
        if code in named:
            raise ValueError(f"{code} is named twice")
        named[code] = institution["name"]
    if not named and not written["others_accepted"]:
        raise ValueError("no referral could ever be made: name an institution or accept others")
    return Referrals(named, written["others_accepted"])


def _back_home(value: Any, _: Combination) -> BackHome:
    written = _map(value, promised_months=(int, str), promised_class=str)
    months = written["promised_months"]
    words = {"never": None, "while_open": 0}
    counted = words[months] if months in words else _number(months, 1, "never", "while_open")
    return BackHome(counted, _member(BenefitClass, written["promised_class"]))


def _contact(value: Any, _: Combination) -> Contact:
    written = _map(value, telephone=str, office=str)
    return Contact(written["telephone"], written["office"])


def _sentence(value: Any, _: Combination) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("must be a sentence")
    return value


def _pairs(value: Any, _: Combination) -> Mapping[str, frozenset[str]]:
    linked: dict[str, frozenset[str]] = {}
    for pair in _list(value, list):
        codes = frozenset(_area(one) for one in pair)
        if len(codes) != 2:
            raise ValueError(f"{pair} is no pair of places")
        for code in codes:
            linked[code] = linked.get(code, frozenset()) | (codes - {code})
    return linked


def _areas(value: Any, _: Combination) -> frozenset[str]:
    return frozenset(_area(one) for one in _list(value))


def _number(value: Any, least: int, *words: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(" or ".join([f"must be a whole number from {least}", *words]))
    return value


def _area(value: Any) -> str:
    if not isinstance(value, str) or not _AREA.fullmatch(value):
        raise ValueError(f"{value} is no area code: six digits in quotes")
    return value


def _list(value: Any, of: type = str) -> list[Any]:
    if not isinstance(value, list) or not all(isinstance(one, of) for one in value):
        raise ValueError("must be a list")
    return value


def _map(value: Any, **keys: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"must be a map of {', '.join(keys)}")
    wrong = sorted(keys.keys() ^ value.keys())
    if wrong:
        raise ValueError(f"needs exactly the keys {', '.join(keys)}: look at {', '.join(wrong)}")
    for key, kind in keys.items():
        fits = isinstance(value[key], kind) and (kind is bool or not isinstance(value[key], bool))
        if not fits:
            raise ValueError(f"{key}: {value[key]} is of the wrong type")
    return value


def _member(enum: type[Member], word: Any, *others: str) -> Member:
    known = {spelt(one): one for one in enum if one.value}
    if word not in known:
        raise ValueError(f"{word} is none of {', '.join([*known, *others])}")
    return known[word]


def _members(enum: type[Member], words: Any, *others: str) -> list[Member]:
    return [_member(enum, word, *others) for word in _list(words)]


FILED = tuple(kind for kind in FilingKind if kind is not FilingKind.EMERGENCY)
KIND = Dimension("kind", FILED, {"long_term": tuple(kind for kind in FILED if kind.long_term)})
ROUTE = Dimension("route", (Route.IN_PROVINCE, Route.CROSS_PROVINCE), {})
ANY_ROUTE = Dimension("route", tuple(Route), {})
INSURANCE = Dimension("insurance", tuple(InsuranceType), {})
CARE = Dimension("care_type", tuple(CareType), {})
BOUND_CARE = Dimension("care_type", (CareType.OUTPATIENT, CareType.CHRONIC), {})
CHANNEL = Dimension(
    "channel",
    tuple(FilingChannel),
    {"national": tuple(one for one in FilingChannel if family(one) is Family.NATIONAL)},
)

KEYS = {
    key.name: key
    for key in (
        Key("validity_months", (KIND, ROUTE), _months),
        Key("back_dating_days", (KIND, ROUTE), _back_dating),
        Key("person_classes", (KIND, INSURANCE), _classes),
        Key("evidence", (KIND, ROUTE), _evidence),
        Key("channels", (KIND, ROUTE), _channels),
        Key("handling_days", (KIND, CHANNEL), _days),
        Key("lock", (KIND, ROUTE), _lock),
        Key("same_channel", (KIND,), _flag),
        Key("exemption", (INSURANCE,), _exemption),
        Key("account_without_filing", (INSURANCE, CARE), _flag),
        Key("unfiled_class", (ROUTE, INSURANCE, CARE), _unfiled),
        Key("referrals", (ROUTE,), _referrals),
        Key("back_home", (INSURANCE,), _back_home),
        Key("bound_to_institution", (BOUND_CARE, ANY_ROUTE), _flag),
        Key("contact", (KIND, ROUTE), _contact),
        Key("manual_claim", (KIND, CARE), _sentence),
        Key("linked_places", (), _pairs, national=True),
        Key("province_places", (), _areas, national=True),
    )
}
"""Key → what may stand under it; the names are those of `AreaRules`."""
