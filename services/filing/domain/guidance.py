"""What an area asks for, for people to read: how somebody files before discharge and then settles.

医保发〔2024〕21号: the texts show material, validity, lock-in, late filing and telephone. Give it
rules without samples (`samples.without_samples`) where sample values must not grant anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from services.filing.domain.area_rules import AreaRules, Lock, Provenance, Stated
from services.filing.domain.channels import Family, family
from services.filing.domain.facts import (
    CareType,
    FilingChannel,
    FilingKind,
    InsuranceType,
    Material,
    PersonClass,
    Route,
)
from services.filing.domain.permitted import CLASSES, place_denied
from services.filing.domain.places import Place, inside

ORDER = (
    FilingKind.RETIRED_RESETTLED,
    FilingKind.LONG_TERM_RESIDENT,
    FilingKind.POSTED_WORKER,
    FilingKind.REFERRAL,
    FilingKind.OTHER_TEMPORARY,
)
"""Best for the patient first."""


@dataclass(frozen=True, slots=True)
class KindGuidance:
    """What one kind of filing asks for; the sentences are plain Chinese without a full stop."""

    kind: FilingKind
    eligible: str
    channels: tuple[FilingChannel, ...]
    required: tuple[Material, ...]
    any_of: tuple[Material, ...]
    promise: bool
    validity: str
    late_filing: str
    lock_in: str
    handling: str
    sources: tuple[tuple[str, Provenance], ...]
    """(document and clause, how well founded), each once."""


@dataclass(frozen=True, slots=True)
class Guidance:
    """How care at one place can be filed for."""

    area_name: str
    kinds: tuple[KindGuidance, ...]
    """Empty where nobody can file to the place."""
    exemption: str
    telephone: str
    office: str
    manual_claim: str


def guide(
    place: Place,
    insurance: InsuranceType,
    rules: AreaRules,
    class_name: Callable[[PersonClass], str],
    *,
    kind: FilingKind | None = None,
    person_class: PersonClass | None = None,
    care_type: CareType = CareType.INPATIENT,
) -> Guidance:
    """The kinds that may be filed to the place.

    Only `kind`, and only what `person_class` may file, where they are given; `care_type` is that of
    the bill that could not be settled. `class_name` gives the Chinese name of a person class.
    """
    kinds = [
        one
        for one in ORDER
        if kind in (None, one)
        and person_class in (None, *rules.person_classes[one, insurance].value)
        and place_denied(place, rules) is None
    ]
    route = _route(place)
    contacts = [rules.contact[one, route].value for one in kinds or ORDER]
    claims = [rules.manual_claim[one, care_type].value for one in kinds or ORDER]
    return Guidance(
        area_name=rules.name,
        kinds=tuple(_kind(one, insurance, route, rules, class_name) for one in kinds),
        exemption=_exemption(place, insurance, rules),
        telephone=_each(one.telephone for one in contacts),
        office=_each(one.office for one in contacts),
        manual_claim=_each(claims),
    )


def _kind(
    kind: FilingKind,
    insurance: InsuranceType,
    route: Route,
    rules: AreaRules,
    class_name: Callable[[PersonClass], str],
) -> KindGuidance:
    persons = rules.person_classes[kind, insurance]
    evidence, channels = rules.evidence[kind, route], rules.channels[kind, route]
    validity, late = rules.validity_months[kind, route], rules.back_dating_days[kind, route]
    lock, same = rules.lock[kind, route], rules.same_channel[(kind,)]
    taken = tuple(sorted(channels.value))
    handling = {one: rules.handling_days[kind, one] for one in taken}
    stated: list[Stated[Any]] = [persons, evidence, channels, validity, late, lock, same]
    stated += handling.values()
    return KindGuidance(
        kind=kind,
        eligible=_eligible(persons.value, insurance, class_name),
        channels=taken,
        required=tuple(sorted(evidence.value.required)),
        any_of=tuple(sorted(evidence.value.any_of)),
        promise=evidence.value.promise,
        validity=_validity(kind, validity.value),
        late_filing=_late_filing(late.value),
        lock_in=_lock_in(lock.value, same_channel=same.value),
        handling=_handling({one: each.value for one, each in handling.items()}),
        sources=tuple(dict.fromkeys((one.citation, one.provenance) for one in stated)),
    )


def _eligible(
    classes: frozenset[PersonClass],
    insurance: InsuranceType,
    class_name: Callable[[PersonClass], str],
) -> str:
    if classes >= CLASSES[insurance]:
        return "不限人员类别"
    return "限" + "、".join(class_name(one) for one in sorted(classes))


def _validity(kind: FilingKind, months: int | None) -> str:
    if months is not None:
        return f"自开始日期起{months}个月，期内可多次就医"
    if kind.long_term:
        return "长期有效，直到变更备案或参保状态变更"
    return "不设截止日期，期内可多次就医"


def _late_filing(days: int | None) -> str:
    limit = "不限天数" if days is None else f"最多早{days}天"
    return f"出院结算前可以补办，开始日期可早于备案日期，{limit}" if days != 0 else "不能补办"


def _lock_in(lock: Lock, *, same_channel: bool) -> str:
    if not lock.months:
        held = "可随时变更、取消"
    elif lock.only_after_cost:
        held = f"备案地没有发生费用的可随时变更、取消；已发生的，自备案起满{lock.months}个月后"
    else:
        held = f"自备案起满{lock.months}个月后可变更、取消，无论是否发生费用"
    return f"{held}；须通过原备案渠道办理" if same_channel else held


def _handling(days: dict[FilingChannel, int]) -> str:
    """By family of channels; in a word where all are the same."""
    by_days: dict[int, dict[Family, None]] = {}
    for channel, each in days.items():
        by_days.setdefault(each, {})[family(channel)] = None
    told = {each: f"{each}个工作日内办结" if each else "即时办理、即时生效" for each in by_days}
    if len(told) == 1:
        return told.popitem()[1]
    return "；".join(
        f"{'、'.join(one.value for one in families)}{told[each]}"
        for each, families in by_days.items()
    )


def _exemption(place: Place, insurance: InsuranceType, rules: AreaRules) -> str:
    if inside(place.code, rules.area):
        return "在参保统筹区内就医，无需备案"
    stated = rules.exemption[(insurance,)]
    if place.route in stated.value.routes:
        return f"省内临时外出就医无需备案（{stated.citation}）"
    if {place.code, place.site} & stated.value.places:
        return f"临时到该地就医无需备案（{stated.citation}）"
    return ""


def _route(place: Place) -> Route:
    """A place inside the area has no row: whom to ask is said as for its province."""
    return Route.IN_PROVINCE if place.route is Route.LOCAL else place.route


def _each(texts: Iterable[str]) -> str:
    return "；".join(dict.fromkeys(text for text in texts if text))
