"""Where an area's rules leave what the national texts lay down in principle (原则上)."""

from __future__ import annotations

from collections.abc import Iterator

from services.filing.domain.area_rules import AreaRules
from services.filing.domain.channels import Family, family
from services.filing.domain.facts import FilingKind

NOTICE = "医保发〔2022〕22号"
PROCEDURE = "跨省异地就医直接结算经办规程"
LEAST_MONTHS = 6
MOST_LOCKED_MONTHS = 6
MOST_NATIONAL_DAYS = 2


def departures(rules: AreaRules) -> Iterator[tuple[str, str]]:
    """(key, what leaves which clause), each once. They bind cross-province filings; the clause is
    said, nothing is refused: an area may have had its reasons."""
    found = [*_validity(rules), *_lock(rules), *_handling(rules)]
    yield from dict.fromkeys(found)


def _validity(rules: AreaRules) -> Iterator[tuple[str, str]]:
    for (kind, _), stated in rules.validity_months.items():
        months = stated.value
        if months is None:
            continue
        if kind.long_term:
            clause = f"{NOTICE} 二: long-term filings hold until they are changed"
            yield "validity_months", f"{months} months for {_named(kind)}; {clause}"
        elif months < LEAST_MONTHS:
            clause = f"{NOTICE} 二: in principle at least {LEAST_MONTHS} months"
            yield "validity_months", f"{months} months for {_named(kind)}; {clause}"


def _lock(rules: AreaRules) -> Iterator[tuple[str, str]]:
    for (kind, _), stated in rules.lock.items():
        if stated.value.months > MOST_LOCKED_MONTHS:
            clause = f"{NOTICE} 二（三）: in principle at most {MOST_LOCKED_MONTHS} months"
            yield "lock", f"{stated.value.months} months for {_named(kind)}; {clause}"


def _handling(rules: AreaRules) -> Iterator[tuple[str, str]]:
    for (kind, channel), stated in rules.handling_days.items():
        if family(channel) is Family.NATIONAL and stated.value > MOST_NATIONAL_DAYS:
            clause = f"{PROCEDURE} 第九条: at most {MOST_NATIONAL_DAYS} working days online"
            yield "handling_days", f"{stated.value} days for {_named(kind)}; {clause}"


def _named(kind: FilingKind) -> str:
    return kind.name.lower()
