"""`yidi bench settle`: how many settlements a second, as a ratio to a bare echo in the same run."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Annotated

import typer

from infra.cli.client import Clients
from infra.cli.seeding import prepare
from infra.local.network import SITES
from infra.local.supervisor import SERVE, Network, temporary_network
from infra.runtime.clock import SystemClock, business_day, monotonic_us, new_id
from infra.runtime.config import NATION, Settings
from infra.runtime.database import Database
from infra.runtime.journal import AMOUNTS
from loadtests.people import register
from loadtests.settle import Bills, Measured, Send, closed_loop, echoing, settling
from services.catalog.load import register_institutions
from services.catalog.samples.generate import extra_institutions
from yidi.common.v1 import envelope_pb2
from yidi.gateway.v1 import gateway_pb2_grpc
from yidi.relay.v1 import relay_pb2, relay_pb2_grpc
from yidi.settlement.v1 import care_pb2, care_pb2_grpc, insured_pb2, insured_pb2_grpc

CARE, INSURED, INSURED_AREA = "110000", "440000", "440800"
PEOPLE, INSTITUTIONS = 10_000, 64
_CALL_S = 30.0


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
    sites = [site for site in SITES if site.code in (NATION, CARE, INSURED)]
    with temporary_network(
        prepare=_prepare, sites=sites, command=(*SERVE, "--bench-echo")
    ) as network:
        return _run_loop(_bench(network, seconds, concurrency, lines, people))


def _run_loop(main: object) -> Report:
    import uvloop

    return uvloop.run(main)  # type: ignore[arg-type]


def _prepare(settings: Settings) -> None:
    prepare(settings)
    if settings.site.code == CARE:
        asyncio.run(_add_institutions(settings))


async def _add_institutions(settings: Settings) -> None:
    async with Database.open(settings, "catalog") as database:
        extra = extra_institutions(CARE, INSTITUTIONS)
        await register_institutions(database, extra, SystemClock())


async def _bench(
    network: Network, seconds: float, concurrency: int, lines: int, people: int
) -> Report:
    clock = SystemClock()
    first_day = business_day(clock.now_ms())
    async with Clients.connect(network.home) as clients:
        credentials = await register(
            clients,
            clock,
            number=people,
            site=INSURED,
            area=INSURED_AREA,
            care_place=CARE,
            filed_on=first_day - timedelta(days=30),
        )
        institutions = [(r.code, r.area) for r in extra_institutions(CARE, INSTITUTIONS)]
        stubs = [
            clients.institution(gateway_pb2_grpc.InstitutionServiceStub, CARE, code)
            for code, _ in institutions
        ]
        channels = [
            clients.institution(lambda channel: channel, CARE, code) for code, _ in institutions
        ]
        bills = Bills(
            institutions=institutions,
            credentials=credentials,
            insured_area=INSURED_AREA,
            lines=lines,
            day=first_day,
            run=new_id(clock)[-12:],
        )
        settle: list[Send] = [settling(stub) for stub in stubs]
        bare: list[Send] = [echoing(channel) for channel in channels]
        warm_s = max(min(seconds / 5, 3.0), 0.5)
        warm = await closed_loop(bills, settle, seconds=warm_s, concurrency=concurrency)
        echoes = [await closed_loop(bills, bare, seconds=seconds / 4, concurrency=concurrency)]
        measured = await closed_loop(bills, settle, seconds=seconds, concurrency=concurrency)
        echoes.append(await closed_loop(bills, bare, seconds=seconds / 4, concurrency=concurrency))
        last_day = business_day(clock.now_ms())
        verified = await _verified(clients, sorted({first_day, last_day}))
    return _report(network.home, measured, echoes, warm, verified, concurrency, lines)


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


async def _verified(clients: Clients, days: Sequence[object]) -> int:
    """Settlements in the journals, when all three hold the same bytes; raises otherwise."""
    care = clients.operator(care_pb2_grpc.CareServiceStub, CARE, "settlement")
    nation = clients.operator(relay_pb2_grpc.RelayServiceStub, NATION, "relay")
    insured = clients.operator(insured_pb2_grpc.InsuredServiceStub, INSURED, "settlement")
    count = 0
    for day in days:
        asked = {"business_day": str(day), "care_site": CARE, "insured_site": INSURED}
        journals: list[envelope_pb2.JournalDigest] = [
            (
                await care.GetCareJournalDigest(
                    care_pb2.GetCareJournalDigestRequest(**asked), timeout=_CALL_S
                )
            ).journal,
            (
                await nation.GetNationJournalDigest(
                    relay_pb2.GetNationJournalDigestRequest(**asked), timeout=_CALL_S
                )
            ).journal,
            (
                await insured.GetInsuredJournalDigest(
                    insured_pb2.GetInsuredJournalDigestRequest(**asked), timeout=_CALL_S
                )
            ).journal,
        ]
        seen = {
            (journal.digest, journal.count, tuple(getattr(journal.sums, n) for n in AMOUNTS))
            for journal in journals
        }
        if len(seen) != 1:
            raise RuntimeError(f"the journals of {day} differ: {[j.count for j in journals]}")
        count += journals[0].count
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


app = typer.Typer(
    help="Measure as ratios within one run.", no_args_is_help=True, add_completion=False
)


@app.command()
def settle(
    seconds: Annotated[float, typer.Option(min=1, max=600, help="Length of the run.")] = 10,
    concurrency: Annotated[int, typer.Option(min=1, max=1024, help="Callers at once.")] = 64,
    lines: Annotated[int, typer.Option(min=1, max=2000, help="Fee lines of a bill.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Settlements a second over three sites, beside a bare echo through the same door."""
    report = bench_settle(seconds=seconds, concurrency=concurrency, lines=lines)
    if as_json:
        typer.echo(json.dumps(asdict(report)))
        return
    for name, value in asdict(report).items():
        typer.echo(f"{name:18} {value}")
