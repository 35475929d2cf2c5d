"""Synthetic people for the demo, the bench and the tests: nobody of them exists.

Their ID numbers have a real county code, a real birth date and a valid check digit (GB 11643-1999,
ISO 7064 MOD 11-2). The caller brings the random source, so that a seed gives the same people.
"""

from __future__ import annotations

import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from random import Random

COUNTIES = {
    "440800": ("440802", "440803", "440804", "440811", "440823", "440825", "440881"),
    "440100": ("440103", "440104", "440105", "440106", "440111"),
    "370800": ("370811", "370826", "370827", "370828", "370829"),
    "370100": ("370102", "370103", "370104", "370105"),
    "110000": ("110101", "110102", "110105", "110106", "110108"),
}
"""County codes (GB/T 2260) of the sample pooling areas, in use for ID numbers."""

_SURNAMES = "王李张刘陈杨黄赵周吴徐孙马朱胡郭何林高罗"
_GIVEN = "伟芳娜敏静强磊军洋勇艳杰娟涛明超兰霞平刚桂英华玉萍红建国文辉力梅"
_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_CARD_LETTERS = string.ascii_uppercase + string.digits


@dataclass(frozen=True, slots=True)
class SyntheticPerson:
    """One made-up person; the texts that look personal stay out of `repr`."""

    name: str = field(repr=False)
    id_number: str = field(repr=False)
    birth_date: date
    female: bool
    social_security_card: str = field(repr=False)
    """A letter and eight characters."""
    electronic_token: str = field(repr=False)
    """32 hexadecimal digits."""


def check_digit(first_17: str) -> str:
    """The 18th character for 17 digits: ISO 7064 MOD 11-2."""
    total = sum(int(digit) * weight for digit, weight in zip(first_17, _WEIGHTS, strict=True))
    return "10X98765432"[total % 11]


def make_person(
    random: Random, *, county: str, born: date, female: bool | None = None
) -> SyntheticPerson:
    """One person born on `born` whose number begins with `county`, six digits."""
    sex = bool(random.getrandbits(1)) if female is None else female
    # Even sequence codes are given to women, odd ones to men.
    sequence = 2 * random.randrange(1, 499) + (0 if sex else 1)
    first_17 = f"{county}{born:%Y%m%d}{sequence:03d}"
    given = "".join(random.choices(_GIVEN, k=random.choice((1, 2, 2))))
    return SyntheticPerson(
        name=random.choice(_SURNAMES) + given,
        id_number=first_17 + check_digit(first_17),
        birth_date=born,
        female=sex,
        social_security_card=random.choice(string.ascii_uppercase)
        + "".join(random.choices(_CARD_LETTERS, k=8)),
        electronic_token=f"{random.getrandbits(128):032x}",
    )


def make_people(
    random: Random,
    *,
    counties: Sequence[str],
    born_from: date,
    born_until: date,
) -> Iterator[SyntheticPerson]:
    """Endless people with birth dates in the range, both days included; no number comes twice.

    Numbers of two runs may meet: some 20 million exist per county and 60 years of births.
    """
    days = (born_until - born_from).days
    seen: set[str] = set()
    while True:
        person = make_person(
            random,
            county=random.choice(counties),
            born=born_from + timedelta(days=random.randint(0, days)),
        )
        keys = {person.id_number, person.social_security_card, person.electronic_token}
        if seen.isdisjoint(keys):
            seen |= keys
            yield person
