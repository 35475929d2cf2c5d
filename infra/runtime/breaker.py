"""A circuit breaker for one destination: after failures in a row it refuses at once for a while.

Closed → open after `failures` in a row → after `open_ms` one trial is let through → closed again,
or open for another while. Only unreachability counts; a refusal by the destination is an answer. A
failure of a call that began before the last success says nothing new, nor does a call whose own
caller gave it too little time: neither is counted, so nobody can close a site to the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from infra.runtime.clock import monotonic_us
from infra.runtime.errors import Reason, Refusal
from yidi.common.v1 import envelope_pb2

_UNREACHED = frozenset(
    {
        Reason.ERROR_REASON_SITE_UNREACHABLE,
        Reason.ERROR_REASON_SERVICE_UNAVAILABLE,
        Reason.ERROR_REASON_DATABASE_UNAVAILABLE,
    }
)
"""What a hop says when the destination, or what it decides with, could not be reached."""
_NEUTRAL = frozenset(
    {
        Reason.ERROR_REASON_OVERLOADED,
        Reason.ERROR_REASON_DEADLINE_TOO_SHORT,
        Reason.ERROR_REASON_SITE_DOWNTIME,
        Reason.ERROR_REASON_DIRECTORY_STALE,
    }
)
"""What a hop on the way may say of itself: it tells nothing about the destination."""


@dataclass(frozen=True, slots=True)
class BreakerLimits:
    """When a breaker opens, and for how long."""

    failures: int = 3
    open_ms: int = 2_000
    patience_ms: int = 1_000
    """A call that was given less than this and ran out of time is not counted."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A call under way to the destination."""

    begun_us: int
    given_us: int
    """How long the destination had to answer."""


class Breaker:
    """The breaker of one destination; `now_us` is a clock that only goes forward."""

    def __init__(self, limits: BreakerLimits, now_us: Callable[[], int] = monotonic_us) -> None:
        self._limits = limits
        self._now_us = now_us
        self._failed = 0
        self._open_until_us = 0
        self._trying = False
        self._succeeded_us = -1

    def admit(self, site_name: str) -> None:
        """Let one more in, or refuse with SITE_UNREACHABLE.

        Once the time is over the first caller is the trial; the others go on being refused until
        it has an answer, or another while has passed without one.
        """
        if self._failed < self._limits.failures:
            return
        now_us = self._now_us()
        if now_us < self._open_until_us:
            raise self.refusal(site_name)
        self._open_until_us = now_us + self._limits.open_ms * 1000
        self._trying = True

    @property
    def passes(self) -> bool:
        """Whether what was admitted may be sent: it is closed, or a trial is under way."""
        return self._trying or self._failed < self._limits.failures

    def refusal(self, site_name: str) -> Refusal:
        """SITE_UNREACHABLE, with the time after which trying again makes sense."""
        wait_us = max(self._open_until_us - self._now_us(), 0)
        return Refusal(
            Reason.ERROR_REASON_SITE_UNREACHABLE, site=site_name, retry_ms=wait_us // 1000 + 1
        )

    def begin(self, seconds: float) -> Attempt:
        """A call begins that may take `seconds`."""
        return Attempt(self._now_us(), int(seconds * 1e6))

    def answered(
        self, attempt: Attempt, sent: int, results: Iterable[envelope_pb2.ExchangeResult]
    ) -> None:
        """The call returned; what it returned for the `sent` items tells how the destination is.

        A decided answer to any of them closes the breaker.
        """
        known = unreached = neutral = 0
        for result in results:
            if not result.HasField("error"):
                # An answer without any outcome says as little as a missing one.
                known += result.WhichOneof("outcome") is not None
                continue
            reason = Refusal.from_status(result.error).reason
            if reason in _UNREACHED:
                unreached += 1
            elif result.not_forwarded or reason in _NEUTRAL:
                neutral += 1  # a hop on the way speaks of itself
            else:
                known += 1
        if known:
            self.succeeded()
        elif unreached or sent > neutral:
            self.failed(attempt)

    def broke(self, attempt: Attempt, refusal: Refusal) -> None:
        """The call itself failed."""
        if refusal.reason not in _NEUTRAL:
            self.failed(attempt)

    def succeeded(self) -> None:
        """The destination answered."""
        self._failed = 0
        self._trying = False
        self._succeeded_us = self._now_us()

    def failed(self, attempt: Attempt) -> None:
        """The destination could not be reached, or did not answer in time."""
        now_us = self._now_us()
        if attempt.begun_us < self._succeeded_us:
            return
        # Half of the time given: the hops beyond give up earlier, each by its margin.
        ran_out = now_us - attempt.begun_us >= attempt.given_us // 2
        if ran_out and attempt.given_us < self._limits.patience_ms * 1000:
            return
        self.unreachable()

    def unreachable(self) -> None:
        """There was no connection."""
        self._failed += 1
        self._trying = False
        self._open_until_us = self._now_us() + self._limits.open_ms * 1000
