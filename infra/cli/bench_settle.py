"""The bench of settlements: a second's worth beside a bare echo through the same door."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from infra.cli.client import Clients
from infra.cli.pairs import PairDay, journals_of
from infra.cli.seeding import prepare
from infra.local.network import SITES, LocalSite
from infra.local.supervisor import SERVE, Network, temporary_network
from infra.runtime.clock import Clock, SystemClock, business_day, monotonic_us, new_id
from infra.runtime.config import NATION, Settings
from infra.runtime.database import Database
from infra.runtime.journal import AMOUNTS
from loadtests.people import register
from loadtests.settle import Bills, Measured, Send, closed_loop, echoing, settling
from services.catalog.load import register_institutions
from services.catalog.samples.generate import extra_institutions
from yidi.gateway.v1 import gateway_pb2_grpc

CARE, INSURED, INSURED_AREA = "110000", "440000", "440800"
PEOPLE, INSTITUTIONS = 10_000, 64
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Report:
    """What the bench prints."""

    settlements_per_s: float
    p50_ms: float
    p99_ms: float
    errors: int
    error_reasons: dict[str, int]
    echo_per_s: float
    echo_p50_ms: float
    ratio: float
    fsync_ms: float
    settlements: int
    verified: int
    concurrency: int
    lines: int
    seconds: float


def bench_settle(*, seconds: float, concurrency: int, lines: int, people: int = PEOPLE) -> Report:
    """Start a network of its own, load it, check every settlement in all three journals."""
    with temporary_network(
        prepare=prepare_bench, sites=bench_sites(), command=(*SERVE, "--bench-echo")
    ) as network:
        return run_loop(_bench(network, seconds, concurrency, lines, people))


def bench_sites() -> list[LocalSite]:
    """The nation, a care place and an insured place."""
    return [site for site in SITES if site.code in (NATION, CARE, INSURED)]


def run_loop(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` on the loop that serving processes use."""
    import uvloop

    return uvloop.run(main)


def prepare_bench(settings: Settings) -> None:
    """Sample data, and further institutions at the care place."""
    prepare(settings)
    if settings.site.code == CARE:
        asyncio.run(_add_institutions(settings))


async def _add_institutions(settings: Settings) -> None:
    async with Database.open(settings, "catalog") as database:
        extra = extra_institutions(CARE, INSTITUTIONS)
        await register_institutions(database, extra, SystemClock())


async def offices(
    clients: Clients, clock: Clock, *, people: int, lines: int
) -> tuple[Bills, list[str]]:
    """Register people and file them; the bills to charge them, and the institutions by number."""
    day = business_day(clock.now_ms())
    credentials = await register(
        clients,
        clock,
        number=people,
        site=INSURED,
        area=INSURED_AREA,
        care_place=CARE,
        filed_on=day - timedelta(days=30),
    )
    institutions = [(row.code, row.area) for row in extra_institutions(CARE, INSTITUTIONS)]
    bills = Bills(
        institutions=institutions,
        credentials=credentials,
        insured_area=INSURED_AREA,
        lines=lines,
        day=day,
        run=new_id(clock)[-12:],
    )
    return bills, [code for code, _ in institutions]


def settling_as(clients: Clients, institutions: Sequence[str]) -> list[Send]:
    """How each institution settles."""
    return [
        settling(clients.institution(gateway_pb2_grpc.InstitutionServiceStub, CARE, code))
        for code in institutions
    ]


async def _bench(
    network: Network, seconds: float, concurrency: int, lines: int, people: int
) -> Report:
    clock = SystemClock()
    first_day = business_day(clock.now_ms())
    async with Clients.connect(network.home) as clients:
        bills, institutions = await offices(clients, clock, people=people, lines=lines)
        settle = settling_as(clients, institutions)
        bare = [
            echoing(clients.institution(lambda channel: channel, CARE, code))
            for code in institutions
        ]
        warm_s = max(min(seconds / 5, 3.0), 0.5)
        warm = await closed_loop(bills, settle, seconds=warm_s, concurrency=concurrency)
        echoes = [await closed_loop(bills, bare, seconds=seconds / 4, concurrency=concurrency)]
        measured = await closed_loop(bills, settle, seconds=seconds, concurrency=concurrency)
        echoes.append(await closed_loop(bills, bare, seconds=seconds / 4, concurrency=concurrency))
        last_day = business_day(clock.now_ms())
        counted = await verified(clients, sorted({first_day, last_day}))
    return _report(network.home, measured, echoes, warm, counted, concurrency, lines)


def _report(
    home: Path,
    measured: Measured,
    echoes: Sequence[Measured],
    warm: Measured,
    verified: int,
    concurrency: int,
    lines: int,
) -> Report:
    if verified < measured.done + warm.done:
        raise RuntimeError(
            f"{measured.done + warm.done} settlements were answered, {verified} are in the journals"
        )
    echo_per_s = sum(echo.done for echo in echoes) / sum(echo.seconds for echo in echoes)
    return Report(
        settlements_per_s=round(measured.per_second, 1),
        p50_ms=round(measured.percentile_ms(0.50), 2),
        p99_ms=round(measured.percentile_ms(0.99), 2),
        errors=sum(measured.errors.values()),
        error_reasons=measured.errors,
        echo_per_s=round(echo_per_s, 1),
        echo_p50_ms=round(median(echo.percentile_ms(0.50) for echo in echoes), 2),
        ratio=round(measured.per_second / echo_per_s, 3),
        fsync_ms=round(fsync_ms(home), 3),
        settlements=measured.done,
        verified=verified,
        concurrency=concurrency,
        lines=lines,
        seconds=round(measured.seconds, 2),
    )


async def verified(clients: Clients, days: Iterable[date]) -> int:
    """Settlements in the journals of the pair, when all hold the same; raises otherwise."""
    count = 0
    for day in days:
        journals = await journals_of(clients, PairDay(day, CARE, INSURED))
        seen = {
            (journal.digest, journal.count, tuple(getattr(journal.sums, n) for n in AMOUNTS))
            for journal in journals.values()
        }
        if len(seen) != 1:
            raise RuntimeError(
                f"the journals of {day} differ: {[one.count for one in journals.values()]}"
            )
        count += seen.pop()[1]
    return count


def fsync_ms(folder: Path, times: int = 50) -> float:
    """The median time of writing 8 KiB and flushing it, in `folder`, milliseconds."""
    took = []
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        for _ in range(times):
            begun = monotonic_us()
            file.write(b"\0" * 8192)
            file.flush()
            os.fsync(file.fileno())
            took.append((monotonic_us() - begun) / 1000)
    return median(took)
