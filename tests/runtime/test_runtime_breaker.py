"""A breaker counts unreachability only, and lets one trial through at a time (PROTOCOL §7)."""

from __future__ import annotations

import pytest

from infra.runtime.breaker import Breaker, BreakerLimits
from infra.runtime.errors import Reason, Refusal
from yidi.common.v1 import envelope_pb2

LIMITS = BreakerLimits(failures=3, open_ms=2_000, patience_ms=1_000)
DOWN = Refusal(Reason.ERROR_REASON_SERVICE_UNAVAILABLE, service="peer")


class Time:
    """Microseconds moved by hand."""

    def __init__(self) -> None:
        self.us = 1_000_000

    def __call__(self) -> int:
        return self.us


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def breaker(time: Time) -> Breaker:
    return Breaker(LIMITS, time)


def fail(breaker: Breaker, times: int = 1) -> None:
    for _ in range(times):
        breaker.broke(breaker.begin(6.0), DOWN)


def admitted(breaker: Breaker) -> bool:
    try:
        breaker.admit("北京市")
    except Refusal:
        return False
    return True


def error(reason: Reason.ValueType, *, not_forwarded: bool = False) -> envelope_pb2.ExchangeResult:
    status = Refusal(reason).status()
    return envelope_pb2.ExchangeResult(id="1", error=status, not_forwarded=not_forwarded)


def test_it_opens_after_failures_in_a_row_and_one_success_starts_the_count_again(
    breaker: Breaker,
) -> None:
    fail(breaker, 2)
    breaker.answered(breaker.begin(6.0), 1, [envelope_pb2.ExchangeResult(id="1", rejected=b"r")])
    fail(breaker, 2)
    assert admitted(breaker)
    fail(breaker)
    assert not admitted(breaker)
    assert not breaker.passes


def test_one_trial_at_a_time_and_its_answer_decides(breaker: Breaker, time: Time) -> None:
    fail(breaker, 3)
    time.us += 2_000_000
    assert [admitted(breaker) for _ in range(3)] == [True, False, False]
    assert breaker.passes
    fail(breaker)
    assert not admitted(breaker)
    assert not breaker.passes
    time.us += 2_000_000
    assert admitted(breaker)
    breaker.succeeded()
    assert all(admitted(breaker) for _ in range(3))


def test_a_trial_that_never_left_is_followed_by_another(breaker: Breaker, time: Time) -> None:
    fail(breaker, 3)
    time.us += 2_000_000
    assert admitted(breaker)
    time.us += 2_000_000
    assert admitted(breaker)


def test_the_refusal_says_when_to_try_again(breaker: Breaker, time: Time) -> None:
    fail(breaker, 3)
    time.us += 500_000
    with pytest.raises(Refusal) as refused:
        breaker.admit("北京市")
    assert refused.value.retry_ms == 1_501
    assert refused.value.name == "SITE_UNREACHABLE"
    assert refused.value.details["site"] == "北京市"


def test_a_caller_with_too_little_time_cannot_close_a_site_to_the_others(
    breaker: Breaker, time: Time
) -> None:
    for _ in range(9):
        attempt = breaker.begin(0.2)
        time.us += 190_000
        breaker.broke(attempt, DOWN)
    assert admitted(breaker)
    for _ in range(3):  # refused at once: that is no matter of time
        breaker.broke(breaker.begin(0.2), DOWN)
    assert not admitted(breaker)


def test_a_failure_of_a_call_begun_before_the_last_success_counts_for_nothing(
    breaker: Breaker, time: Time
) -> None:
    old = [breaker.begin(6.0) for _ in range(5)]
    time.us += 5_000_000
    breaker.succeeded()
    for attempt in old:
        breaker.broke(attempt, DOWN)
    assert admitted(breaker)


@pytest.mark.parametrize(
    ("results", "sent", "opens"),
    [
        ([], 1, True),
        ([envelope_pb2.ExchangeResult(id="1")], 1, True),
        ([error(Reason.ERROR_REASON_SITE_UNREACHABLE, not_forwarded=True)], 1, True),
        ([error(Reason.ERROR_REASON_SERVICE_UNAVAILABLE)], 1, True),
        ([error(Reason.ERROR_REASON_DATABASE_UNAVAILABLE)], 1, True),
        ([error(Reason.ERROR_REASON_OVERLOADED, not_forwarded=True)], 1, False),
        ([error(Reason.ERROR_REASON_DEADLINE_TOO_SHORT, not_forwarded=True)], 1, False),
        ([error(Reason.ERROR_REASON_SITE_DOWNTIME, not_forwarded=True)], 1, False),
        ([error(Reason.ERROR_REASON_AREA_UNKNOWN, not_forwarded=True)], 1, False),
        ([error(Reason.ERROR_REASON_PERSON_BUSY)], 1, False),
        ([envelope_pb2.ExchangeResult(id="1", unknown=True)], 2, False),
        (
            [
                error(Reason.ERROR_REASON_SERVICE_UNAVAILABLE),
                envelope_pb2.ExchangeResult(id="2", aborted=b"a"),
            ],
            2,
            False,
        ),
    ],
)
def test_what_counts_as_unreachable(
    breaker: Breaker, results: list[envelope_pb2.ExchangeResult], sent: int, opens: bool
) -> None:
    for _ in range(3):
        breaker.answered(breaker.begin(6.0), sent, results)
    assert admitted(breaker) is not opens


def test_an_answer_of_a_hop_on_the_way_neither_opens_nor_closes(breaker: Breaker) -> None:
    fail(breaker, 2)
    shed = [error(Reason.ERROR_REASON_OVERLOADED, not_forwarded=True)]
    breaker.answered(breaker.begin(6.0), 1, shed)
    fail(breaker)
    assert not admitted(breaker)
