"""What a change makes of a person, or why it cannot be (参保变更).

Every change returns the person as it then stands; nothing that has been is removed, so what differs
from before is what has to be written. `ChangeRefused` carries the Chinese cause.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import TypeAlias

from services.enrollment.domain.qualification import Qualification
from services.enrollment.domain.registration import Key
from services.enrollment.domain.status import (
    BELONGING,
    ChangeRefused,
    InsuredStatus,
    Spell,
    changed,
    on,
    runs,
)

_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Relation:
    """One insurance of the person in one area."""

    area: str
    insurance_type: int
    person_class: int
    civil_servant: bool
    contracted_institution: str
    statuses: tuple[Spell, ...]
    qualifications: tuple[Qualification, ...] = ()
    account_id: str = ""


@dataclass(frozen=True, slots=True)
class Credential:
    """A number of the person; `replaced_on` is the first day on which it is not valid."""

    key: Key
    replaced_on: date | None = None


@dataclass(frozen=True, slots=True)
class Sharing:
    """A grant to use a personal account (家庭共济); both days are included."""

    owner_id: str
    user_id: str
    account_id: str
    start: date
    end: date | None = None

    def reaches(self, day: date) -> bool:
        """Whether it is in force on `day` or later."""
        return self.end is None or max(self.start, day) <= self.end


@dataclass(frozen=True, slots=True)
class Person:
    """A person with everything that can change; `version` counts the changes."""

    person_id: str
    version: int
    relations: tuple[Relation, ...]
    credentials: tuple[Credential, ...]
    sharings: tuple[Sharing, ...]
    """As owner and as user."""


@dataclass(frozen=True, slots=True)
class SetStatus:
    """Suspend, resume or end the relation."""

    status: InsuredStatus


@dataclass(frozen=True, slots=True)
class Transfer:
    """转移接续; `inside` says that the site keeps the people of `to_area` itself."""

    to_area: str
    inside: bool
    person_class: int


@dataclass(frozen=True, slots=True)
class Attributes:
    """What of a relation is set anew; of the past nothing changes."""

    person_class: int
    civil_servant: bool
    contracted_institution: str


@dataclass(frozen=True, slots=True)
class NewNumber:
    """A number that replaces those of its type; `owner_id` is whose it is already, or None."""

    key: Key
    owner_id: str | None


@dataclass(frozen=True, slots=True)
class Disqualify:
    """End the qualification for a disease."""

    disease: str


@dataclass(frozen=True, slots=True)
class ShareWith:
    """Share the person's own account; `known` says whether the site knows the user."""

    user_id: str
    known: bool


@dataclass(frozen=True, slots=True)
class UnshareWith:
    """End sharing with a user."""

    user_id: str


Change: TypeAlias = (
    SetStatus
    | Transfer
    | Attributes
    | NewNumber
    | Qualification
    | Disqualify
    | ShareWith
    | UnshareWith
)


def apply(
    person: Person, area: str, insurance_type: int, change: Change, *, day: date, today: date
) -> Person:
    """The person after `change` of the relation (area, insurance type) from `day` on.

    Raises `ChangeRefused`. The version is one higher: whoever saw the former one must look again.
    """
    relation = next(
        (
            one
            for one in person.relations
            if (one.area, one.insurance_type) == (area, insurance_type)
        ),
        None,
    )
    if relation is None:
        raise ChangeRefused("参保人在该统筹区没有参加此险种")
    match change:
        case SetStatus(status):
            after = _set_status(person, relation, status, day, today)
        case Transfer():
            after = _transfer(person, relation, change, day, today)
        case Attributes():
            after = _with(person, relation, _set(relation, change))
        case NewNumber():
            after = _renumber(person, change, day)
        case Qualification():
            after = _with(person, relation, _qualify(relation, change, day))
        case Disqualify(disease):
            after = _with(person, relation, _disqualify(relation, disease, day))
        case ShareWith():
            after = _share(person, relation, change, day)
        case UnshareWith(user_id):
            after = _unshare(person, user_id, day)
    return replace(after, version=person.version + 1)


def _with(person: Person, before: Relation, after: Relation) -> Person:
    relations = tuple(after if one is before else one for one in person.relations)
    return replace(person, relations=relations)


def _set_status(
    person: Person, relation: Relation, status: InsuredStatus, day: date, today: date
) -> Person:
    if status is InsuredStatus.NORMAL:
        _refuse_second(person, relation, relation.area, day)
    statuses = changed(relation.statuses, status, day, today=today)
    after = _with(person, relation, replace(relation, statuses=statuses))
    if status is InsuredStatus.ENDED:
        return _stop_sharing(after, lambda one: one.account_id == relation.account_id, day)
    return after


def _transfer(
    person: Person, relation: Relation, transfer: Transfer, day: date, today: date
) -> Person:
    to_area = transfer.to_area
    if to_area == relation.area:
        raise ChangeRefused("转入地与转出地是同一统筹区")
    _refuse_second(person, relation, to_area, day, only_there=True)
    left = replace(
        relation,
        statuses=changed(
            relation.statuses, InsuredStatus.TRANSFERRED, day, today=today, to_area=to_area
        ),
    )
    after = _with(person, relation, left)
    if not transfer.inside:
        return _stop_sharing(after, lambda one: one.account_id == relation.account_id, day)
    former = next(
        (
            one
            for one in person.relations
            if (one.area, one.insurance_type) == (to_area, relation.insurance_type)
        ),
        None,
    )
    statuses: tuple[Spell, ...] = (Spell(day, InsuredStatus.NORMAL),)
    if former is not None:
        statuses = changed(former.statuses, InsuredStatus.NORMAL, day, today=today)
        if former.account_id and relation.account_id not in ("", former.account_id):
            raise ChangeRefused(f"参保人在{to_area}另有个人账户，请先合并账户")
    entered = Relation(
        area=to_area,
        insurance_type=relation.insurance_type,
        person_class=transfer.person_class,
        civil_servant=relation.civil_servant,
        contracted_institution="",
        statuses=statuses,
        qualifications=() if former is None else former.qualifications,
        account_id=relation.account_id or (former.account_id if former is not None else ""),
    )
    others = tuple(one for one in after.relations if one is not former)
    return replace(after, relations=(*others, entered))


def _refuse_second(
    person: Person, relation: Relation, area: str, day: date, *, only_there: bool = False
) -> None:
    """Nobody belongs to two areas with one insurance: a change must not make it so."""
    for one in person.relations:
        if one is relation or one.insurance_type != relation.insurance_type:
            continue
        belongs = any(
            spell.status in BELONGING and (last is None or day <= last)
            for spell, last in runs(one.statuses)
        )
        if belongs and (one.area == area or not only_there):
            raise ChangeRefused(f"参保人在{one.area}已参加此险种")


def _set(relation: Relation, attributes: Attributes) -> Relation:
    return replace(
        relation,
        person_class=attributes.person_class,
        civil_servant=attributes.civil_servant,
        contracted_institution=attributes.contracted_institution,
    )


def _renumber(person: Person, number: NewNumber, day: date) -> Person:
    if number.owner_id == person.person_id:
        raise ChangeRefused("该号码已是参保人现在或以前的号码")
    if number.owner_id is not None:
        raise ChangeRefused("该号码已由他人使用")
    kept = tuple(
        replace(one, replaced_on=day)
        if one.key.type is number.key.type and one.replaced_on is None
        else one
        for one in person.credentials
    )
    return replace(person, credentials=(*kept, Credential(number.key)))


def _qualify(relation: Relation, new: Qualification, day: date) -> Relation:
    if new.start != day:
        raise ChangeRefused("资格的开始日期与变更日期不一致")
    if new.void:
        raise ChangeRefused("资格的终止日期早于开始日期")
    kept = []
    for one in relation.qualifications:
        if one.disease == new.disease:
            if one.start > new.start and not one.void:
                raise ChangeRefused(f"此病种已有{one.start}开始的资格，不能在此之前办理")
            if one.start == new.start:
                continue
            if one.covers(new.start):
                one = replace(one, end=new.start - _DAY)
        kept.append(one)
    return replace(relation, qualifications=(*kept, new))


def _disqualify(relation: Relation, disease: str, day: date) -> Relation:
    ended = tuple(
        replace(one, end=day - _DAY) if one.disease == disease and one.covers(day) else one
        for one in relation.qualifications
    )
    if ended == relation.qualifications:
        raise ChangeRefused(f"参保人在{day}没有此病种的资格")
    return replace(relation, qualifications=ended)


def _share(person: Person, relation: Relation, share: ShareWith, day: date) -> Person:
    if share.user_id == person.person_id:
        raise ChangeRefused("不能与本人共济")
    if not share.known:
        raise ChangeRefused("没有找到共济使用人")
    status = on(relation.statuses, day)
    if not relation.account_id or status is None or status.status not in BELONGING:
        raise ChangeRefused("参保人没有可以共济的个人账户")
    if any(
        one.owner_id == person.person_id and one.user_id == share.user_id and one.reaches(day)
        for one in person.sharings
    ):
        raise ChangeRefused("已与该使用人共济")
    new = Sharing(person.person_id, share.user_id, relation.account_id, day)
    # A grant taken back on its first day may be given again from that day on.
    kept = tuple(
        one
        for one in person.sharings
        if (one.owner_id, one.user_id, one.start) != (new.owner_id, new.user_id, day)
    )
    return replace(person, sharings=(*kept, new))


def _unshare(person: Person, user_id: str, day: date) -> Person:
    after = _stop_sharing(person, lambda one: one.user_id == user_id and one.start <= day, day)
    if after == person:
        raise ChangeRefused(f"参保人在{day}没有与该使用人共济")
    return after


def _stop_sharing(person: Person, which: Callable[[Sharing], bool], day: date) -> Person:
    """End what `person` shares from `day` on; a grant that has not begun is void."""
    sharings = tuple(
        replace(one, end=day - _DAY)
        if one.owner_id == person.person_id and one.reaches(day) and which(one)
        else one
        for one in person.sharings
    )
    return replace(person, sharings=sharings)
