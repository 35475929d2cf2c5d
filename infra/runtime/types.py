"""What is known of enum values: names and codes from the options in the contracts, and kinds."""

from __future__ import annotations

from functools import cache

from google.protobuf.descriptor import EnumDescriptor

from yidi.common.v1 import options_pb2, types_pb2

STAYS = frozenset({types_pb2.CARE_TYPE_INPATIENT, types_pb2.CARE_TYPE_INJURY_INPATIENT})
"""Care types that travel as national fee categories; their detail stays at the care place and is
uploaded."""


@cache
def national_code(enum: EnumDescriptor, number: int) -> str:
    """The national code of a value; empty when it has none or is not known."""
    value = enum.values_by_number.get(number)
    return value.GetOptions().Extensions[options_pb2.national_code] if value else ""


@cache
def chinese(enum: EnumDescriptor, number: int) -> str:
    """The Chinese name of a value; its number when a newer neighbour sent it."""
    value = enum.values_by_number.get(number)
    return value.GetOptions().Extensions[options_pb2.zh] if value else str(number)


@cache
def short_name(enum: EnumDescriptor, number: int) -> str:
    """The value's name in lower case without its prefix, e.g. `cross_province`."""
    value = enum.values_by_number.get(number)
    if value is None:
        return str(number)
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return value.name.removeprefix(prefix).lower()
