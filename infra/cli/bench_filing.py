"""`yidi bench filing`: entitlements decided a second, with the people and filings of a big city.

A network of its own: one PostgreSQL, enrollment and filing each in its own process, called over
mTLS as the site's own roles call them. The people are imported as an agency imports them; their
filings are written by COPY, as test data. The echo answers a bare unary call with the same message
from another process of the site, so the ratios are what remains of this machine's gRPC.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import asyncpg

from infra.cli.bench_measuring import Progress, administrator, channel_as, rate, timed
from infra.cli.bench_settle import INSURED, run_loop
from infra.cli.client import Clients
from infra.cli.importing import ImportFile, send
from infra.cli.roles import schemas
from infra.local.network import SITES
from infra.local.supervisor import SERVE, Network, temporary_network
from infra.runtime.clock import SystemClock, business_day
from infra.runtime.config import NATION, Settings
from infra.runtime.links import stub
from infra.runtime.migrate import migrate
from loadtests import filing as load
from loadtests.settle import Send
from yidi.enrollment.v1 import participant_pb2_grpc
from yidi.filing.v1 import filing_pb2_grpc

CALLERS, BATCH_CALLERS, BATCH = 64, 4, 256
_INSTITUTION = "H44080200001"
_FEW = 10_000
_TABLES = """
    SELECT tablename FROM pg_tables
    WHERE schemaname = 'enrollment' AND tablename !~ '^(import|alembic)' ORDER BY tablename"""
_ALONE, _BATCHES = 10_000, 200
"""Requests made beforehand."""


@dataclass(frozen=True, slots=True)
class Report:
    """What the bench prints; a batch counts as the decisions in it."""

    participants: int
    filings: int
    decisions_per_s: float
    """Asked one by one, by `CALLERS` callers at once."""
    batch_decisions_per_s: float
    """Asked in batches of `BATCH`."""
    echo_per_s: float
    ratio: float
    """Decisions asked one by one to echoes."""
    batch_ratio: float
    """Decisions asked in batches to echoes."""
    import_s: float
    copy_s: float
    """A plain COPY of the rows that the import wrote, into empty tables with the same keys."""
    import_ratio: float
    lookup_ratio: float
    """Decisions in batches with all people there to those with the first `_FEW`."""


def bench_filing(*, people: int, seconds: float, on_progress: Progress = lambda _: None) -> Report:
    """Measure with `people` participants, `seconds` for each rate."""
    sites = [site for site in SITES if site.code in (NATION, INSURED)]
    with (
        tempfile.TemporaryDirectory(prefix="yidi-bench-") as folder,
        temporary_network(
            prepare=_prepare,
            sites=sites,
            split=["enrollment", "filing"],
            command=(*SERVE, "--bench-echo"),
        ) as network,
    ):
        return run_loop(_bench(network, Path(folder), people, seconds, on_progress))


def _prepare(settings: Settings) -> None:
    asyncio.run(migrate(settings, schemas(settings), SystemClock()))


async def _bench(
    network: Network, folder: Path, people: int, seconds: float, on_progress: Progress
) -> Report:
    clock = SystemClock()
    day = business_day(clock.now_ms())
    first = min(_FEW, people // 2)
    files = [folder / "first.csv", folder / "rest.csv"]
    on_progress(f"making {people} people")
    load.write_people(files, [first, people - first], day)
    import_s = 0.0
    in_batches = []
    known: list[str] = []
    async with (
        Clients.connect(network.home) as clients,
        administrator(network, INSURED) as sql,
        _deciding(clients) as deciding,
    ):
        echo = load.echoing(clients.institution(lambda opened: opened, INSURED, _INSTITUTION))
        for file in files:
            on_progress(f"importing {file.name}")
            import_s += await timed(_import(clients, file))
            on_progress("writing filings")
            known = await _file(sql, known, day)
            on_progress(f"deciding on visits of {len(known)} people")
            batches = load.Questions(clock, known, day, batches=_BATCHES, size=BATCH)
            in_batches.append(await rate(batches, deciding, seconds, BATCH_CALLERS) * BATCH)
        alone = load.Questions(clock, known, day, batches=_ALONE, size=1)
        echoes = [await rate(alone, echo, seconds / 2, CALLERS)]
        one_by_one = await rate(alone, deciding, seconds, CALLERS)
        echoes.append(await rate(alone, echo, seconds / 2, CALLERS))
        on_progress("copying the same rows")
        copy_s = await _copied(sql, folder)
        filings = await sql.fetchval("SELECT count(*) FROM filing.filing")
    few, many = in_batches
    echo_per_s = sum(echoes) / len(echoes)
    return Report(
        participants=len(known),
        filings=filings,
        decisions_per_s=round(one_by_one, 1),
        batch_decisions_per_s=round(many, 1),
        echo_per_s=round(echo_per_s, 1),
        ratio=round(one_by_one / echo_per_s, 3),
        batch_ratio=round(many / echo_per_s, 2),
        import_s=round(import_s, 2),
        copy_s=round(copy_s, 4),
        import_ratio=round(import_s / copy_s, 2),
        lookup_ratio=round(many / few, 3),
    )


async def _import(clients: Clients, path: Path) -> None:
    """What `yidi enrollment import` does; raise `RuntimeError` when a row is rejected."""
    participants = clients.operator(
        participant_pb2_grpc.ParticipantServiceStub, INSURED, "enrollment"
    )
    file = ImportFile.open(path)
    done = await send(participants, file, load.AREA, file.count())
    if done.accepted != done.totals.rows:
        raise RuntimeError(f"{done.totals.rows} people were to be imported, {done.accepted} were")


@asynccontextmanager
async def _deciding(clients: Clients) -> AsyncIterator[Send]:
    """How the settlement role asks filing."""
    async with channel_as(clients, INSURED, "settlement", "filing") as channel:
        yield load.asking(stub(filing_pb2_grpc.FilingServiceStub, channel))


async def _file(sql: asyncpg.Connection, filed: Sequence[str], day: date) -> list[str]:
    """Write filings for the people who are not `filed`; return everybody."""
    found = bytearray()

    async def keep(data: bytes) -> None:
        found.extend(data)

    await sql.copy_from_query("SELECT person_id FROM enrollment.participant", output=keep)
    known = set(filed)
    new = [person for person in found.decode("ascii").split() if person not in known]
    await sql.copy_to_table(
        "filing", schema_name="filing", columns=load.COLUMNS, source=load.filing_rows(new, day)
    )
    await sql.execute("VACUUM ANALYZE filing.filing")
    return [*filed, *new]


async def _copied(sql: asyncpg.Connection, folder: Path) -> float:
    """Seconds that the same rows take where nothing is read, checked, compared or encrypted."""
    tables = [row["tablename"] for row in await sql.fetch(_TABLES)]
    await sql.execute("CREATE SCHEMA copied")
    for table in tables:
        file = folder / f"{table}.copy"
        await sql.copy_from_table(table, schema_name="enrollment", output=file, format="binary")
        like = f"LIKE enrollment.{table} INCLUDING ALL"
        await sql.execute(f"CREATE TABLE copied.{table} ({like})")

    async def copy() -> None:
        for table in tables:
            file = folder / f"{table}.copy"
            await sql.copy_to_table(table, schema_name="copied", source=file, format="binary")

    return await timed(copy())
