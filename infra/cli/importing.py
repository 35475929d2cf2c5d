"""Sends a file of participants in numbered parts of whole lines (`parts`)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, cast

from infra.cli.parts import cut, read_lines, send_parts
from infra.local.processes import LocalNetworkError
from infra.runtime.errors import Reason, Refusal
from services.enrollment.domain.import_rows import (
    HEADER_LINE,
    LONGEST_LINE,
    NotAHeader,
    Tally,
    columns_of,
)
from services.enrollment.import_codes import import_codes
from yidi.enrollment.v1 import participant_pb2

PART_BYTES = 256 << 10
"""A part's size: some 2,000 rows, written in a fraction of a second."""
CALL_S = 60.0
Participants: TypeAlias = Any
"""A stub of `ParticipantService` over asyncio."""


@dataclass(frozen=True, slots=True)
class Part:
    """Whole lines of a file; the header is line 1."""

    number: int
    first_line: int
    content: bytes


@dataclass(frozen=True, slots=True)
class ImportFile:
    """A file of participants: its first line and what it says of itself."""

    path: Path
    header: str
    digest: bytes

    @classmethod
    def open(cls, path: Path) -> ImportFile:
        """Read it once; raises `LocalNetworkError`, and `Refusal` (IMPORT_INVALID) for a header
        that names no columns."""
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").digest()
                file.seek(0)
                first = file.readline(LONGEST_LINE)
        except OSError as error:
            raise LocalNetworkError(f"cannot read {path}: {error.strerror}") from error
        try:
            header = first.decode("utf-8-sig").rstrip("\r\n")
            columns_of(header)
        except UnicodeDecodeError:
            raise _invalid("第一行不是 UTF-8 编码") from None
        except NotAHeader as fault:
            raise _invalid(str(fault)) from None
        return cls(path, header, digest)

    def parts(self) -> Iterator[Part]:
        """The file in parts; of a line that is too long as much as shows that it is."""
        with self.path.open("rb") as file:
            lines = read_lines(file, LONGEST_LINE)
            next(lines, b"")
            pieces = cut(lines, HEADER_LINE + 1, PART_BYTES)
            for number, (first_line, content) in enumerate(pieces, 1):
                yield Part(number, first_line, content)

    def count(self) -> participant_pb2.ControlTotals:
        """The control totals as the file itself has them."""
        tally = Tally(columns_of(self.header), import_codes())
        for part in self.parts():
            tally.add_part(part.content)
        totals = tally.totals
        return participant_pb2.ControlTotals(
            rows=totals.rows, employees=totals.employees, residents=totals.residents
        )


def read_totals(path: Path) -> participant_pb2.ControlTotals:
    """Control totals from a side file, `{"rows": …, "employees": …, "residents": …}`; raises
    `LocalNetworkError`."""
    names = ("rows", "employees", "residents")
    try:
        found = json.loads(path.read_bytes())
        return participant_pb2.ControlTotals(**{name: found[name] for name in names})
    except OSError as error:
        raise LocalNetworkError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise LocalNetworkError(
            f"{path} must be JSON with the whole numbers rows, employees and residents"
        ) from error


async def send(
    participants: Participants,
    file: ImportFile,
    area: str,
    totals: participant_pb2.ControlTotals,
    told: Callable[[participant_pb2.Import], None] = lambda _: None,
) -> participant_pb2.Import:
    """Import a file or go on with it; `told` hears of the start and of every part taken.

    Raises `Refusal`; what was taken until then stays, and the same call goes on behind it.
    """
    announced = participant_pb2.StartImportRequest(
        file_digest=file.digest,
        file_name=file.path.name,
        insured_area=area,
        header=file.header,
        totals=totals,
    )
    started = getattr(await participants.StartImport(announced, timeout=CALL_S), "import")
    told(started)
    if started.state == participant_pb2.IMPORT_STATE_FINISHED:
        return cast(participant_pb2.Import, started)

    async def take(part: Part) -> None:
        request = participant_pb2.ImportPartRequest(
            import_id=started.import_id,
            number=part.number,
            first_line=part.first_line,
            content=part.content,
        )
        answer = await participants.ImportPart(request, timeout=CALL_S)
        told(getattr(answer, "import"))

    await send_parts(file.parts(), started.next_part, take)
    request = participant_pb2.FinishImportRequest(import_id=started.import_id)
    answer = await participants.FinishImport(request, timeout=CALL_S)
    return cast(participant_pb2.Import, getattr(answer, "import"))


def _invalid(cause: str) -> Refusal:
    return Refusal(Reason.ERROR_REASON_IMPORT_INVALID, cause=cause)
