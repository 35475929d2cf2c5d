"""A province asks the nation about its journal for its own people, and only about its own days."""

from __future__ import annotations

import pytest
from relay_peers import FakeNation

from infra.runtime.breaker import Breaker, BreakerLimits
from infra.runtime.call import Call, CallerType, Identity
from infra.runtime.clock import monotonic_us
from infra.runtime.errors import Reason, Refusal
from yidi.relay.v1 import relay_pb2

OWN, OTHER, STRANGER = "440000", "110000", "370000"
LIMITS = BreakerLimits(failures=3, open_ms=2_000)


def call(site: str = OWN, seconds: float = 5.0) -> Call:
    return Call(Identity(site, CallerType.ROLE, "settlement"), monotonic_us() + int(seconds * 1e6))


def asked(care: str = OTHER, insured: str = OWN) -> relay_pb2.GetNationJournalDigestRequest:
    return relay_pb2.GetNationJournalDigestRequest(
        business_day="2026-11-20", care_site=care, insured_site=insured
    )


async def test_the_answer_is_the_nations_and_in_time() -> None:
    nation = FakeNation()
    answer = await nation.journal(OWN).digest(asked(), call(seconds=5.0))
    assert answer.journal.count == 1
    assert 4.0 < nation.timeouts[0] <= 4.95
    await nation.journal(OWN).digest(asked(care=OWN, insured=OTHER), call())
    with pytest.raises(Refusal, match="DEADLINE_TOO_SHORT"):
        await nation.journal(OWN).digest(asked(), call(seconds=0.04))
    assert len(nation.timeouts) == 2


@pytest.mark.parametrize(
    ("care", "insured", "caller"),
    [(STRANGER, OTHER, OWN), (OTHER, OTHER, OWN), (OWN, OTHER, OTHER), (OWN, OTHER, "100000")],
)
async def test_others_are_refused_before_anything_is_sent(
    care: str, insured: str, caller: str
) -> None:
    nation = FakeNation()
    with pytest.raises(Refusal, match="ACCESS_DENIED"):
        await nation.journal(OWN).digest(asked(care, insured), call(caller))
    assert not nation.timeouts


async def test_a_nation_that_cannot_be_reached_is_left_alone_for_a_while() -> None:
    now_us = 0
    nation = FakeNation(up=False)
    journal = nation.journal(OWN, Breaker(LIMITS, lambda: now_us))
    for _ in range(4):
        with pytest.raises(Refusal, match="SITE_UNREACHABLE"):
            await journal.digest(asked(), call())
    assert not nation.timeouts
    nation.up = True
    with pytest.raises(Refusal, match="SITE_UNREACHABLE"):
        await journal.digest(asked(), call())
    now_us += LIMITS.open_ms * 1000
    for _ in range(2):  # the trial, and whoever comes after it
        await journal.digest(asked(), call())
    assert len(nation.timeouts) == 2


@pytest.mark.parametrize(
    ("reason", "arrived"),
    [
        (Reason.ERROR_REASON_SERVICE_UNAVAILABLE, 3),
        (Reason.ERROR_REASON_DATABASE_UNAVAILABLE, 3),
        (Reason.ERROR_REASON_DAY_INVALID, 6),
        (Reason.ERROR_REASON_OVERLOADED, 6),
    ],
)
async def test_only_an_answer_that_did_not_come_counts(
    reason: Reason.ValueType, arrived: int
) -> None:
    """A question that the nation refuses closes the way to nobody."""
    nation = FakeNation(broken=Refusal(reason, service="relay", field="x", value="y"))
    journal = nation.journal(OWN, Breaker(LIMITS, lambda: 0))
    for _ in range(6):
        with pytest.raises(Refusal):
            await journal.digest(asked(), call())
    assert len(nation.timeouts) == arrived
