"""Whether an identity number can exist, and the birth date and sex it carries (GB 11643-1999).

The place code is not looked up: a number keeps the code of the day it was given, which is not the
day of birth, and codes are abolished later, so a table of dated codes would refuse real people.
"""

from __future__ import annotations

from datetime import date
from enum import IntEnum

from stdnum.cn import ric
from stdnum.exceptions import ValidationError


class Sex(IntEnum):
    """性别 (gend), numbered as in the contract and in the national table."""

    MALE = 1
    FEMALE = 2


def birth_date(id_number: str) -> date | None:
    """The birth date inside `id_number` (18 characters, capital X), or None.

    None means that the number cannot exist: its check digit is wrong (GB 11643-1999, ISO 7064
    MOD 11-2) or its date is not a day of the calendar.
    """
    if len(id_number) != 18 or not (id_number[:17].isascii() and id_number[:17].isdecimal()):
        return None
    if ric.calc_check_digit(id_number) != id_number[17]:
        return None
    try:
        born: date = ric.get_birth_date(id_number)
    except ValidationError:
        return None
    return born


def sex(id_number: str) -> Sex | None:
    """The sex inside `id_number`: its seventeenth digit is odd for men; None as of `birth_date`."""
    if birth_date(id_number) is None:
        return None
    return Sex.MALE if int(id_number[16]) % 2 else Sex.FEMALE


def age_on(born: date, day: date) -> int:
    """Full years (周岁) on `day`; 0 before birth. Who is born on 29 February ages on 1 March."""
    years = day.year - born.year - ((day.month, day.day) < (born.month, born.day))
    return max(years, 0)
