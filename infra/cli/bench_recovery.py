"""`yidi bench recovery`: how fast settlements in doubt become final when a lost link is back.

The real path settles on a network of its own while a failpoint inside the insured site loses every
answer, to commits and to recovery's questions alike: each settlement is decided there, and neither
the nation nor the care place knows. Recovery runs all the while, as in any outage. The clock starts
when answers pass again and stops when no row is open; then all three journals must hold the same.

Breakers are kept closed meanwhile: they would refuse new settlements before anything is in doubt.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

from infra.cli.bench_measuring import Progress
from infra.cli.bench_settle import (
    CARE,
    INSURED,
    bench_sites,
    offices,
    prepare_bench,
    run_loop,
    settling_as,
    verified,
)
from infra.cli.client import Clients
from infra.cli.pairs import CALL_S
from infra.local.supervisor import Network, temporary_network
from infra.runtime.clock import SystemClock, business_day, monotonic_us
from infra.runtime.failpoints import Action, Fault, Place, arm, disarm
from loadtests.recovery import leave_in_doubt
from yidi.settlement.v1 import care_pb2, care_pb2_grpc

PEOPLE, LINES, CONCURRENCY = 2_000, 5, 256
_POLL_S = 0.1
_BOUND_S = 600.0
_NEVER = str(10**9)


@dataclass(frozen=True, slots=True)
class Report:
    """What the bench prints."""

    settlements: int
    seconds: float
    per_s: float


def bench_recovery(*, settlements: int, on_progress: Progress = lambda _: None) -> Report:
    """Leave `settlements` in doubt on a network of its own, and measure until none is."""
    with (
        _environment("YIDI_LIMITS__BREAKER_FAILURES", _NEVER),
        temporary_network(prepare=prepare_bench, sites=bench_sites(), failpoints=True) as network,
    ):
        return run_loop(_bench(network, settlements, on_progress))


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """Processes started meanwhile have the variable."""
    former = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if former is None:
            del os.environ[name]
        else:
            os.environ[name] = former


async def _bench(network: Network, settlements: int, on_progress: Progress) -> Report:
    clock = SystemClock()
    first_day = business_day(clock.now_ms())
    async with Clients.connect(network.home) as clients:
        people = min(PEOPLE, settlements)
        bills, institutions = await offices(clients, clock, people=people, lines=LINES)
        with _answers_lost(network):
            await leave_in_doubt(
                bills,
                settling_as(clients, institutions),
                number=settlements,
                concurrency=CONCURRENCY,
                on_progress=lambda told: on_progress(f"{told} in doubt"),
            )
            left = await _open(clients)
        begun_us = monotonic_us()
        if left != settlements:
            raise RuntimeError(f"{settlements} were to be left in doubt, {left} are")
        async with asyncio.timeout(_BOUND_S):
            await _none_open(clients)
        seconds = (monotonic_us() - begun_us) / 1e6
        held = await verified(clients, sorted({first_day, business_day(clock.now_ms())}))
    if held != settlements:
        raise RuntimeError(f"{settlements} were recovered, the journals hold {held}")
    return Report(settlements, round(seconds, 2), round(settlements / seconds, 1))


@contextlib.contextmanager
def _answers_lost(network: Network) -> Iterator[None]:
    """Every answer is lost between the insured place's settlement and its relay."""
    fault = Fault(place=Place.RELAY_INSURED_AFTER, action=Action.LOSE_ANSWER, times=0, site=INSURED)
    arm(network.plan.failpoints_folder, "bench", fault)
    try:
        yield
    finally:
        disarm(network.plan.failpoints_folder)


async def _none_open(clients: Clients) -> None:
    while True:
        if not await _open(clients):
            return
        await asyncio.sleep(_POLL_S)


async def _open(clients: Clients) -> int:
    """Open rows of the care place."""
    care = clients.operator(care_pb2_grpc.CareServiceStub, CARE, "settlement")
    answer = await care.ListInDoubt(care_pb2.ListInDoubtRequest(page_size=1), timeout=CALL_S)
    return answer.total_count
