"""Ids carry the clock's instant; days are those of Asia/Shanghai (DESIGN §4, PROTOCOL §9)."""

from __future__ import annotations

import uuid
from datetime import UTC, date, datetime

from hypothesis import given
from hypothesis import strategies as st

from infra.runtime.clock import (
    ManualClock,
    business_day,
    first_id_of,
    id_milliseconds,
    instant,
    new_id,
)

MILLISECONDS = st.integers(0, (1 << 48) - 1)
NEAR = st.integers(0, 4_000_000_000_000)


@given(MILLISECONDS)
def test_new_id_is_a_uuid_version_7_that_holds_its_instant(ms: int) -> None:
    made = new_id(ManualClock(ms))
    parsed = uuid.UUID(made)
    assert (parsed.version, parsed.variant, str(parsed)) == (7, uuid.RFC_4122, made)
    assert id_milliseconds(made) == ms


@given(MILLISECONDS, MILLISECONDS)
def test_ids_order_as_their_instants_do(one: int, other: int) -> None:
    assert (new_id(ManualClock(one)) < new_id(ManualClock(other))) == (one < other) or one == other


@given(st.integers(0, (1 << 48) - 2))
def test_first_id_bounds_its_millisecond_from_below(ms: int) -> None:
    assert first_id_of(ms) < new_id(ManualClock(ms)) < first_id_of(ms + 1)
    assert uuid.UUID(first_id_of(ms))


def test_ids_of_one_instant_differ() -> None:
    clock = ManualClock(1_795_000_000_000)
    assert len({new_id(clock) for _ in range(1_000)}) == 1_000


@given(st.uuids(version=4))
def test_other_versions_hold_no_instant(identifier: uuid.UUID) -> None:
    assert id_milliseconds(str(identifier)) == 0


def test_the_day_ends_at_midnight_in_shanghai() -> None:
    last = int(datetime(2026, 12, 31, 15, 59, 59, 999_000, UTC).timestamp() * 1000)
    assert business_day(last) == date(2026, 12, 31)
    assert business_day(last + 1) == date(2027, 1, 1)


@given(NEAR)
def test_instant_is_the_clock_in_utc(ms: int) -> None:
    assert int(instant(ManualClock(ms)).timestamp() * 1000 + 0.5) == ms
    assert instant(ManualClock(ms)).tzinfo is UTC
