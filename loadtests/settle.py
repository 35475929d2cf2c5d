"""The load of `yidi bench settle`: closed-loop callers at the front door, and the bare echo.

Both use the same generator: the same stubs' channels (one per institution, mTLS), the same request
message, the same edge process. The echo answers the request's bytes from a raw handler, so it
shows what this machine and this generator can do at most; `ratio` compares with that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from itertools import count
from typing import Any, Protocol

from infra.runtime.clock import monotonic_us
from infra.runtime.errors import Refusal
from yidi.common.v1 import types_pb2, visit_pb2
from yidi.gateway.v1 import gateway_pb2

ECHO_PATH = "/yidi.bench.Echo/Echo"
_DEADLINE_S = 20.0
_SAMPLES = (
    ("X002", "0011020000120000-SAMPLE", 45, 1),
    ("X001", "0011010000110000-SAMPLE", 5, 1),
    ("X029", "0025030300430000-SAMPLE", 54, 1),
    ("Y007", "XA10BA02A007-SAMPLE", 11, 2),
    ("Y009", "XA10BH01A009-SAMPLE", 6, 3),
)
"""Item code, national code, price in yuan, quantity: lines of an outpatient bill."""

Send = Callable[[Any], Awaitable[Any]]
"""Sends one request of a `Load`."""


class Load(Protocol):
    """What callers send."""

    def next(self) -> tuple[int, Any]:
        """The number of the `Send` to use, and a request."""
        ...


@dataclass(slots=True)
class Measured:
    """What a run of callers saw."""

    done: int = 0
    seconds: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)

    @property
    def per_second(self) -> float:
        """Calls answered per second."""
        return self.done / self.seconds if self.seconds else 0.0

    def percentile_ms(self, share: float) -> float:
        """The latency below which `share` of the calls lie, milliseconds."""
        ordered = sorted(self.latencies_ms)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else 0.0


class Bills:
    """Makes bills, each a new one, over institutions and people by turns."""

    def __init__(
        self,
        *,
        institutions: Sequence[tuple[str, str]],
        credentials: Sequence[visit_pb2.Credential],
        insured_area: str,
        lines: int,
        day: date,
        run: str,
    ) -> None:
        self._institutions = institutions
        self._credentials = credentials
        self._numbers = count()
        self._run = run
        self._bill = gateway_pb2.Bill()
        visit = self._bill.visit
        visit.insured_area = insured_area
        visit.insurance = types_pb2.INSURANCE_TYPE_EMPLOYEE
        visit.care_type = types_pb2.CARE_TYPE_OUTPATIENT
        visit.start_date = visit.end_date = day.isoformat()
        for number in range(lines):
            item, national, price, quantity = _SAMPLES[number % len(_SAMPLES)]
            self._bill.lines.add(
                line_id=str(number + 1),
                item_code=item,
                national_code=national,
                unit_price_micro_yuan=price * 1_000_000,
                quantity_e4=quantity * 10_000,
                amount_fen=price * quantity * 100,
            )
        self._bill.total_fen = sum(line.amount_fen for line in self._bill.lines)

    def next(self) -> tuple[int, gateway_pb2.SettleRequest]:
        """The number of the institution, and a request of its own."""
        number = next(self._numbers)
        door = number % len(self._institutions)
        institution, area = self._institutions[door]
        request = gateway_pb2.SettleRequest(
            request_id=f"{self._run}-{number:08d}",
            credential=self._credentials[number % len(self._credentials)],
            bill=self._bill,
        )
        request.bill.reference.institution = institution
        request.bill.reference.visit_id = f"{self._run}-{number}"
        request.bill.reference.bill_id = "1"
        request.bill.visit.care_area = area
        return door, request


async def closed_loop(
    load: Load, sends: Sequence[Send], *, seconds: float, concurrency: int
) -> Measured:
    """`concurrency` callers, each with one call at a time, for `seconds`."""
    measured = Measured()
    started = monotonic_us()
    until = started + int(seconds * 1e6)

    async def caller() -> None:
        while monotonic_us() < until:
            door, request = load.next()
            begun = monotonic_us()
            try:
                await sends[door](request)
            except Refusal as refusal:
                measured.errors[refusal.name] = measured.errors.get(refusal.name, 0) + 1
            else:
                measured.done += 1
                measured.latencies_ms.append((monotonic_us() - begun) / 1000)

    await asyncio.gather(*(caller() for _ in range(concurrency)))
    measured.seconds = (monotonic_us() - started) / 1e6
    return measured


def settling(stub: Any) -> Send:
    """Sends a request to the front door."""

    async def send(request: gateway_pb2.SettleRequest) -> Any:
        return await stub.Settle(request, timeout=_DEADLINE_S)

    return send


def echoing(channel: Any) -> Send:
    """Sends a request to the echo."""
    call = channel.unary_unary(
        ECHO_PATH,
        gateway_pb2.SettleRequest.SerializeToString,
        gateway_pb2.SettleRequest.FromString,
    )

    async def send(request: gateway_pb2.SettleRequest) -> Any:
        return await call(request, timeout=_DEADLINE_S)

    return send


async def echo(data: bytes, _: Any) -> bytes:
    """The bare handler of the echo: the request's bytes back."""
    return data
