"""Files of lists for tests, and `ListingService`'s part of imports called in process."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from infra.cli import catalog_files as sending
from infra.cli.catalog_files import ListFile
from infra.runtime.call import Call
from services.catalog.domain.import_layouts import CSV_COLUMNS, NATIONAL_COLUMNS, Layout
from services.catalog.importing import Importing
from yidi.catalog.v1 import listing_pb2

AREA = "440800"
DAY = "2026-01-01"
VERSION = "2026-1"
HEADER = ",".join(CSV_COLUMNS)
_PLAIN = {
    "national_code": "XA01AB01",
    "name": "示例片",
    "catalog_class": "01",
    "fee_category": "09",
    "first_self_pay_310": "0",
    "first_self_pay_390": "0",
    "effective_from": "2025-01-01",
    "list_type": "101",
}
_NATIONAL: dict[Layout, dict[str, str]] = {
    Layout.ITEMS: {
        "hilist_code": "XA01AB01",
        "hilist_name": "示例片",
        "insu_admdvs": AREA,
        "begndate": "2025-01-01 00:00:00",
        "med_chrgitm_type": "09",
        "chrgitm_lv": "02",
        "lmt_used_flag": "0",
        "list_type": "101",
        "vali_flag": "1",
    },
    Layout.LIMITS: {
        "hilist_code": "XA01AB01",
        "hilist_lmtpric_type": "3",
        "insu_admdvs": AREA,
        "begndate": "2025-01-01",
        "hilist_pric_uplmt_amt": "12.5",
        "vali_flag": "1",
    },
    Layout.SHARES: {
        "hilist_code": "XA01AB01",
        "selfpay_prop_psn_type": "310",
        "selfpay_prop_type": "10",
        "insu_admdvs": AREA,
        "begndate": "2025-01-01",
        "selfpay_prop": "0.1",
        "vali_flag": "1",
    },
}


def row(**said: str) -> str:
    """A row of our CSV."""
    cells = _PLAIN | said
    return ",".join(cells.get(name, "") for name in CSV_COLUMNS)


def rows(count: int) -> list[str]:
    """Rows of so many codes."""
    return [row(national_code=f"XA{number:06d}", name=f"示例{number}") for number in range(count)]


def national(layout: Layout, **said: str) -> str:
    """A row of a national table in the order of the interface, `null` for nothing."""
    cells = _NATIONAL[layout] | said
    return "\t".join(cells.get(name, "null") for name in NATIONAL_COLUMNS[layout])


def written(path: Path, lines: Iterable[str], header: str = HEADER) -> ListFile:
    """The file of these rows, opened."""
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return ListFile.open(path)


class ImportDesk:
    """`ListingService`'s part of imports, called in process as the command calls its stub."""

    def __init__(self, importing: Importing, call: Call) -> None:
        self.importing = importing
        self._call = call
        self.parts: list[int] = []

    async def StartListImport(self, request: Any, timeout: float) -> Any:
        return await self.importing.start(request, self._call)

    async def ListImportPart(self, request: Any, timeout: float) -> Any:
        answer = await self.importing.part(request, self._call)
        self.parts.append(request.number)
        return answer

    async def FinishListImport(self, request: Any, timeout: float) -> Any:
        return await self.importing.finish(request, self._call)

    async def start(
        self, file: ListFile, *, version: str = VERSION, day: str = DAY
    ) -> listing_pb2.ListImport:
        request = listing_pb2.StartListImportRequest(
            file_digest=file.digest,
            file_name=file.path.name,
            area=AREA,
            version=version,
            effective_from=day,
            tables=[
                listing_pb2.ImportTable(layout=int(table.layout), header=table.header)
                for table in file.tables
            ],
        )
        return getattr(await self.importing.start(request, self._call), "import")

    async def part(self, import_id: str, part: sending.Part) -> listing_pb2.ListImport:
        request = listing_pb2.ListImportPartRequest(
            import_id=import_id,
            number=part.number,
            table=part.place,
            first_line=part.first_line,
            content=part.content,
        )
        return getattr(await self.importing.part(request, self._call), "import")

    async def finish(
        self, import_id: str, parts: int, *, dry_run: bool = False
    ) -> listing_pb2.ListImport:
        request = listing_pb2.FinishListImportRequest(
            import_id=import_id, parts=parts, dry_run=dry_run
        )
        return getattr(await self.importing.finish(request, self._call), "import")

    async def get(self, import_id: str) -> listing_pb2.ListImport:
        request = listing_pb2.GetListImportRequest(import_id=import_id)
        return getattr(await self.importing.get(request, self._call), "import")

    async def rejected(self, import_id: str, size: int = 0) -> list[tuple[int, int, str, str]]:
        found, token = [], ""
        while True:
            request = listing_pb2.ListRejectedItemRowsRequest(
                import_id=import_id, page_size=size, page_token=token
            )
            page = await self.importing.rejected(request, self._call)
            found += [(one.table, one.line, one.column, one.cause) for one in page.rows]
            if not (token := page.next_page_token):
                return found
