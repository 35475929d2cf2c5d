"""`yidi bench catalog`: lines split a second with a list of any length, and its import.

Two parts, one after another: a process that splits with the domain code alone
(`loadtests.catalog`); and a network of its own, where the list is imported as an agency imports it
and bills are split by the catalog role, a process over mTLS and PostgreSQL, asked as the gateway
asks it: in the batches that form while one is under way.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import asyncpg

from infra.cli.bench_measuring import Progress, administrator, channel_as, rate, timed
from infra.cli.bench_settle import CARE, run_loop
from infra.cli.catalog_files import ListFile, send
from infra.cli.client import Clients
from infra.cli.roles.shared import keyed
from infra.cli.seeding import prepare
from infra.local.network import SITES
from infra.local.supervisor import Network, temporary_network
from infra.runtime.clock import SystemClock
from infra.runtime.coalesce import Bounds
from infra.runtime.config import NATION
from infra.runtime.errors import Refusal
from infra.runtime.links import stub
from loadtests import catalog as load
from loadtests.policy import rss_mib
from loadtests.settle import Send
from services.catalog.domain.import_layouts import CSV_COLUMNS
from services.catalog.samples.full import many_items
from services.catalog.samples.written import write_items
from yidi.catalog.v1 import catalog_pb2, catalog_pb2_grpc, listing_pb2_grpc

CALLERS = 64
VERSION, FIRST_DAY = "bench", "2024-01-01"
_CALL_S = 20.0
_SEEN_S = 60.0
_KEPT_AS = {
    "smallint": ("catalog_class", "fee_category", "list_type", "negotiated", "centrally_purchased"),
    "date": ("effective_from", "effective_to"),
    "numeric": (
        "first_self_pay_310",
        "first_self_pay_390",
        *(name for name in CSV_COLUMNS if name.startswith("limit_")),
        "day_limit",
        "visit_limit",
    ),
}
"""Columns of the file that are not text, by the type of the plain table."""


@dataclass(frozen=True, slots=True)
class Report:
    """What the bench prints; rates of bills of `load.SIZES` lines, as many lines in either."""

    items: int
    lines_per_s: float
    """In the domain code, a second of processor time on one core."""
    grpc_lines_per_s: float
    """Answered by the catalog role, `CALLERS` bills at a time."""
    import_s: float
    """From the first call to the list published."""
    copy_s: float
    """A plain COPY of the same file into a table of its columns with the same keys."""
    import_ratio: float
    rss_mib: float
    """Of the catalog role's process, after all that."""
    lines_per_s_of_10000: float
    """In the domain code, with a list of as many items."""
    flatness: float
    """`lines_per_s` to that."""
    lines_per_s_bills_of_20: float
    lines_per_s_bills_of_300: float
    grpc_lines_per_s_bills_of_20: float
    grpc_lines_per_s_bills_of_300: float
    seen_s: float
    """From the list published to the first bill split by it."""


def bench_catalog(
    *, items: int, seconds: float, rounds: int, on_progress: Progress = lambda _: None
) -> Report:
    """Measure with a list of `items` rows, `seconds` for each rate."""
    on_progress(f"splitting with {items} items in memory")
    domain = _in_memory(items, seconds, rounds)
    sites = [site for site in SITES if site.code in (NATION, CARE)]
    with (
        tempfile.TemporaryDirectory(prefix="yidi-bench-") as folder,
        temporary_network(prepare=prepare, sites=sites, split=["catalog"]) as network,
    ):
        served = run_loop(_serve(network, Path(folder), items, seconds, on_progress))
        (child,) = (one for one in network.children.values() if one.plan.roles == ("catalog",))
        rss = rss_mib(child.process.pid)
    flatness = round(domain["lines_per_s"] / domain["lines_per_s_of_10000"], 3)
    return Report(items=items, rss_mib=rss, flatness=flatness, **domain, **served)


def _in_memory(items: int, seconds: float, rounds: int) -> dict[str, float]:
    """What a process of its own measures."""
    arguments = [str(items), str(seconds), str(rounds)]
    done = subprocess.run(
        [sys.executable, "-m", "loadtests.catalog", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


async def _serve(
    network: Network, folder: Path, items: int, seconds: float, on_progress: Progress
) -> dict[str, float]:
    file = folder / "items.csv"
    on_progress(f"writing {items} rows")
    write_items(file, many_items(load.AREA, items))
    async with (
        Clients.connect(network.home) as clients,
        administrator(network, CARE) as sql,
        _splitting(clients) as splitting,
    ):
        charged = load.drawn_items(items)
        bills = {size: _Bills(load.bills(charged, size)) for size in load.SIZES}
        on_progress("copying and importing them")
        copies = [await _copied(sql, file)]
        import_s = await timed(_import(clients, file))
        seen_s = await timed(_seen(splitting, bills[load.SIZES[0]]))
        copies.append(await _copied(sql, file))
        on_progress("splitting over gRPC")
        rates = {
            size: await rate(bills[size], splitting, seconds, CALLERS) * size for size in bills
        }
    copy_s = sum(copies) / len(copies)
    return {
        "grpc_lines_per_s": round(len(rates) / sum(1 / each for each in rates.values()), 1),
        **{f"grpc_lines_per_s_bills_of_{size}": round(rates[size], 1) for size in rates},
        "import_s": round(import_s, 2),
        "copy_s": round(copy_s, 3),
        "import_ratio": round(import_s / copy_s, 2),
        "seen_s": round(seen_s, 2),
    }


async def _import(clients: Clients, path: Path) -> None:
    """What `yidi catalog import` does; raises `Refusal`."""
    listing = clients.operator(listing_pb2_grpc.ListingServiceStub, CARE, "catalog")
    await send(listing, ListFile.open(path), load.AREA, VERSION, FIRST_DAY)


class _Bills:
    """Bills to split, asked for by turns."""

    def __init__(self, drawn: Sequence[load.Bill]) -> None:
        # None may be in one batch twice.
        enough = islice(cycle(drawn), max(len(drawn), 4 * CALLERS))
        self._items = cycle(list(load.requests(SystemClock(), enough)))

    def next(self) -> tuple[int, catalog_pb2.SplitFeesItem]:
        """The next one, for the only way to send it."""
        return 0, next(self._items)


@asynccontextmanager
async def _splitting(clients: Clients) -> AsyncIterator[Send]:
    """How the gateway asks the catalog role; raises `Refusal` for a bill that is not split."""
    limits = clients.sites[CARE].settings.limits
    bounds = Bounds(
        items=limits.batch_items,
        bytes=limits.batch_bytes,
        in_flight=limits.in_flight,
        queue=limits.queue_items,
    )
    async with channel_as(clients, CARE, "gateway", "catalog") as channel:
        catalog: Any = stub(catalog_pb2_grpc.CatalogServiceStub, channel)

        async def call(items: list[catalog_pb2.SplitFeesItem]) -> Sequence[Any]:
            request = catalog_pb2.BatchSplitFeesRequest(items=items)
            answer = await catalog.BatchSplitFees(request, timeout=_CALL_S)
            results: Sequence[Any] = answer.results
            return results

        batches = keyed(call, bounds)

        async def send(item: catalog_pb2.SplitFeesItem) -> Any:
            result = await batches.submit(item)
            if result.HasField("error"):
                raise Refusal.from_status(result.error)
            return result.split

        yield send


async def _seen(splitting: Send, bills: _Bills) -> None:
    """Return when a bill is split by the imported list."""
    async with asyncio.timeout(_SEEN_S):
        while True:
            _, item = bills.next()
            if (await splitting(item)).catalogue_version == VERSION:
                return
            await asyncio.sleep(0.05)


async def _copied(sql: asyncpg.Connection, file: Path) -> float:
    """Seconds that the file takes where no row is checked, compared or told of."""
    kinds = {name: kind for kind, names in _KEPT_AS.items() for name in names}
    columns = ", ".join(f"{name} {kinds.get(name, 'text')}" for name in CSV_COLUMNS)
    await sql.execute(f"""
        DROP TABLE IF EXISTS public.copied;
        CREATE TABLE public.copied (
            version_id bigint NOT NULL DEFAULT 1,
            line bigint GENERATED ALWAYS AS IDENTITY,
            {columns},
            PRIMARY KEY (version_id, line)
        );
        ALTER TABLE public.copied ALTER national_code TYPE text COLLATE "C";
        CREATE INDEX ON public.copied (version_id, national_code)""")

    async def copy() -> None:
        await sql.copy_to_table(
            "copied",
            schema_name="public",
            source=file,
            columns=CSV_COLUMNS,
            format="csv",
            header=True,
        )

    return await timed(copy())
