"""`yidi catalog import`, `imports` and `rejected`: whole lists from files."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.text import Text

from infra.cli.asking import every_page, held_by, show, with_clients
from infra.cli.catalog_asking import Area, listing_at, site_of
from infra.cli.catalog_files import CALL_S, ListFile, Listing, send
from infra.cli.client import Clients
from infra.cli.options import As, AsJson, SiteCode
from infra.cli.parts import run_import
from infra.cli.terminal import DIM, err, local_time
from infra.local.supervisor import OPERATOR
from infra.runtime.errors import Reason, Refusal
from infra.runtime.types import chinese
from yidi.catalog.v1 import listing_pb2

T = TypeVar("T")
app = typer.Typer(add_completion=False)
ImportId = Annotated[str, typer.Argument(metavar="ID", help="Id of the import.")]


@app.command("import")
def import_(
    path: Annotated[
        Path, typer.Argument(metavar="FILE", help="A CSV, a 1312… .txt, or a .zip of tables.")
    ],
    area: Area,
    version: Annotated[str, typer.Option("--version", help="Its name, new for the area.")],
    effective_from: Annotated[
        str, typer.Option("--from", metavar="DATE", help="First day of the whole list.")
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only check and compare.")] = False,
    site: SiteCode = None,
    who: As = OPERATOR,
    as_json: AsJson = False,
) -> None:
    """Publish the list in FILE, or with --dry-run say what it would change; stopped at any time,
    the same command goes on. A row that cannot be taken stops the whole list: exit code 1."""
    file = ListFile.open(path)
    console = err()
    last: listing_pb2.ListImport | None = None

    def told(found: listing_pb2.ListImport) -> None:
        nonlocal last
        last = found
        if console.is_terminal:
            console.print(f"{found.rows}", end="\r", style=DIM)

    async def act(clients: Clients) -> listing_pb2.ListImport:
        listing = listing_at(clients, site_of(clients, site, area), who)
        return await send(listing, file, area, version, effective_from, dry_run=dry_run, told=told)

    try:
        done = run_import(act)
    except Refusal as refusal:
        if refusal.name == "CATALOGUE_IMPORT_REJECTED" and last is not None:
            hint = f"不能采用的行 rejected rows: yidi catalog rejected {last.import_id}"
            console.print(hint, soft_wrap=True)
        raise
    show(done, _import_line(done), as_json)


@app.command()
def imports(
    import_id: ImportId, site: SiteCode = None, who: As = OPERATOR, as_json: AsJson = False
) -> None:
    """Show how far an import of a list is and what it changes."""

    async def ask(listing: Listing) -> listing_pb2.ListImport:
        request = listing_pb2.GetListImportRequest(import_id=import_id)
        answer = await listing.GetListImport(request, timeout=CALL_S)
        found: listing_pb2.ListImport = getattr(answer, "import")
        return found

    found = asyncio.run(_looked_for(site, who, ask))
    show(found, _import_line(found), as_json)


@app.command()
def rejected(
    import_id: ImportId, site: SiteCode = None, who: As = OPERATOR, as_json: AsJson = False
) -> None:
    """List the rows of an import that cannot be taken: table, line, column, cause."""

    async def ask(listing: Listing) -> listing_pb2.ListRejectedItemRowsResponse:
        request = listing_pb2.ListRejectedItemRowsRequest(import_id=import_id, page_size=1_000)
        found: listing_pb2.ListRejectedItemRowsResponse = await every_page(
            listing.ListRejectedItemRows, request, CALL_S
        )
        return found

    found = asyncio.run(_looked_for(site, who, ask))
    show(found, [_rejected_line(row) for row in found.rows], as_json)


def _import_line(found: listing_pb2.ListImport) -> Text:
    state = chinese(listing_pb2.ListImportState.DESCRIPTOR, found.state)
    line = Text(f"{found.area} {found.version}  ", style="bold")
    line.append(f"{state}  {found.rows} 行，不能采用 {found.rejected} 行", style="default")
    if found.HasField("difference"):
        its = found.difference
        line.append(
            f"  共 {its.codes} 项：新增 {its.added}，变动 {its.changed}，删除 {its.removed}"
        )
    line.append(f"  {found.file_name}  {local_time(found.start_time)}  ", style=DIM)
    return line.append(found.import_id, style=DIM)


def _rejected_line(row: listing_pb2.RejectedItemRow) -> Text:
    line = Text(f"表 {row.table + 1} 第 {row.line} 行  ")
    return line.append(f"{row.column}  " if row.column else "", style="cyan").append(row.cause)


async def _looked_for(site: str | None, who: str, ask: Callable[[Listing], Awaitable[T]]) -> T:
    """The answer of the site that has the import, or the refusal of the last."""

    async def act(clients: Clients) -> T:
        missing = Reason.ERROR_REASON_CATALOGUE_IMPORT_STATE_WRONG
        _, found = await held_by(
            clients, site, missing, lambda one: ask(listing_at(clients, one, who))
        )
        return found

    return await with_clients(act)
