"""Bulk import of participants: a file in numbered parts, each taken whole or not at all.

Which parts are there is kept with the rows, so whoever sends the file again goes on where it
stopped. A row says what a registration says and is decided by the same rules.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from infra.runtime.admission import Admission
from infra.runtime.call import Call
from infra.runtime.clock import Clock, instant, new_id
from infra.runtime.database import Database
from infra.runtime.errors import Reason, Refusal
from infra.runtime.paging import NUMBER, page_token
from services.enrollment.domain.import_parts import PartTaken, cannot_be_taken, differences
from services.enrollment.domain.import_rows import (
    Columns,
    NotAHeader,
    Part,
    RejectedRow,
    Totals,
    columns_of,
    read_part,
)
from services.enrollment.domain.registration import Conflict, Known, Registration, plan
from services.enrollment.import_codes import import_codes
from services.enrollment.registering import ATTEMPTS, Applicant, Registering
from services.enrollment.store.audit import AuditRow
from services.enrollment.store.importing import (
    KEY_BYTES,
    ImportStore,
    NewImport,
    RowKey,
    StoredImport,
    Taking,
)
from services.enrollment.store.participants import EnrollmentStore, Raced
from services.enrollment.vault import Vault
from yidi.enrollment.v1 import participant_pb2

AT_ONCE = 3
"""Parts worked on at a time; each holds its rows in memory."""
WAITING = 16
PAGE = 256
_REPEATED = "与本文件另一行重复（同一人、同一险种）"
_CAUSES = {
    Conflict.NAME: ("psn_name", "该居民身份证号码已以另一姓名参保"),
    Conflict.CREDENTIAL: ("", "社会保障卡、电子凭证或人员编号已属于他人"),
    Conflict.CONTENT: ("", "同一人同一险种已参保，内容不同"),
}


@dataclass(frozen=True, slots=True)
class _Read:
    """A part as it was read, with the blind indexes of its rows."""

    part: Part
    applicants: dict[str, Applicant]
    registrations: list[Registration]

    def key(self, registration: Registration) -> RowKey:
        return (registration.id_card.index[:KEY_BYTES], registration.insurance_type)


class Importing:
    """What `ParticipantService` does with import files."""

    def __init__(self, *, database: Database, clock: Clock, vault: Vault) -> None:
        people = EnrollmentStore(database)
        self._people = people
        self._registering = Registering(store=people, vault=vault, clock=clock)
        self._store = ImportStore(database)
        self._clock = clock
        self._vault = vault
        self._codes = import_codes()
        self._parts = Admission(at_once=AT_ONCE, waiting=WAITING)

    async def start(
        self, request: participant_pb2.StartImportRequest, call: Call
    ) -> participant_pb2.StartImportResponse:
        """Announce a file, or find it again; raises `Refusal` (IMPORT_INVALID,
        IMPORT_STATE_WRONG)."""
        _columns(request.header)
        actor = call.caller.spiffe_id
        totals = Totals(request.totals.rows, request.totals.employees, request.totals.residents)
        # Keyed: a file of one row could be guessed from a plain digest.
        digest = self._vault.audit_digest("file", request.file_digest.hex())
        import_id = await self._store.start(
            NewImport(
                import_id=new_id(self._clock),
                actor=actor,
                file_digest=digest,
                area=request.insured_area,
                file_name=request.file_name,
                header=request.header,
                totals=totals,
            ),
            AuditRow(actor, "start import", request.insured_area, digest),
            instant(self._clock),
        )
        stored = await self._stored(import_id)
        if stored.finished and stored.totals != totals:
            raise _wrong(import_id, "该文件已按另外的控制数办结")
        return participant_pb2.StartImportResponse(**{"import": _shown(stored)})

    async def part(
        self, request: participant_pb2.ImportPartRequest, call: Call
    ) -> participant_pb2.ImportPartResponse:
        """Take one part; raises `Refusal` (IMPORT_STATE_WRONG, PERSON_BUSY, OVERLOADED)."""
        async with self._parts.turn():
            stored = await self._stored(request.import_id)
            columns = _columns(stored.header)
            digest = self._vault.audit_digest("part", hashlib.sha256(request.content).hexdigest())
            read = await asyncio.to_thread(self._read, request, columns, stored.area)
            for _ in range(ATTEMPTS):
                if await self._is_there(request, read.part, digest, stored):
                    break
                try:
                    await self._take(request, read, digest, call)
                except Raced:
                    stored = await self._stored(request.import_id)
                    continue
                break
            else:
                raise Refusal(Reason.ERROR_REASON_PERSON_BUSY)
            stored = await self._stored(request.import_id)
        return participant_pb2.ImportPartResponse(**{"import": _shown(stored)})

    async def finish(
        self, request: participant_pb2.FinishImportRequest, call: Call
    ) -> participant_pb2.FinishImportResponse:
        """End an import whose parts are all there; a finished one is answered again. Raises
        `Refusal` (IMPORT_STATE_WRONG, IMPORT_TOTALS_DIFFER)."""
        stored = await self._stored(request.import_id)
        if not stored.finished:
            if not stored.whole:
                raise _wrong(
                    stored.import_id, f"缺少第 {stored.next_part} 部分，或各部分的行不相接"
                )
            if cause := differences(stored.totals, stored.read):
                raise Refusal(Reason.ERROR_REASON_IMPORT_TOTALS_DIFFER, cause=cause)
            digest = self._vault.audit_digest(stored.totals, stored.accepted, stored.unchanged)
            audit = AuditRow(call.caller.spiffe_id, "finish import", stored.import_id, digest)
            at = instant(self._clock)
            ended = await self._store.finish(stored.import_id, stored.parts, audit, at)
            stored = await self._stored(request.import_id)
            if not ended and not stored.finished:
                raise _wrong(stored.import_id, "还有部分正在送来")
        return participant_pb2.FinishImportResponse(**{"import": _shown(stored)})

    async def get(
        self, request: participant_pb2.GetImportRequest, call: Call
    ) -> participant_pb2.GetImportResponse:
        """How far an import is; raises `Refusal` (IMPORT_STATE_WRONG) for an unknown one."""
        stored = await self._stored(request.import_id)
        return participant_pb2.GetImportResponse(**{"import": _shown(stored)})

    async def rejected(
        self, request: participant_pb2.ListRejectedRowsRequest, call: Call
    ) -> participant_pb2.ListRejectedRowsResponse:
        """One page of the rows not taken; raises `Refusal` (IMPORT_STATE_WRONG,
        MESSAGE_INVALID)."""
        after = int(page_token(request.page_token, NUMBER) or 0)
        await self._stored(request.import_id)
        size = request.page_size or PAGE
        found = await self._store.rejected(request.import_id, after, size + 1)
        return participant_pb2.ListRejectedRowsResponse(
            rows=[
                participant_pb2.RejectedRow(line=row.line, column=row.column, cause=row.cause)
                for row in found[:size]
            ],
            next_page_token=str(found[size - 1].line) if len(found) > size else "",
        )

    async def _stored(self, import_id: str) -> StoredImport:
        stored = await self._store.state(import_id)
        if stored is None:
            raise _wrong(import_id, "没有这次导入")
        return stored

    async def _is_there(
        self,
        request: participant_pb2.ImportPartRequest,
        part: Part,
        digest: bytes,
        stored: StoredImport,
    ) -> bool:
        """Whether the very same part was taken before; refuses one that cannot be taken."""
        near = await self._store.near(request.import_id, request.number)
        if near.same is not None:
            if (near.same.first_line, near.same.digest) == (request.first_line, digest):
                return True
            raise _wrong(request.import_id, f"第 {request.number} 部分与先前送来的不同")
        if stored.finished:
            raise _wrong(request.import_id, "已经办结")
        cause = cannot_be_taken(
            request.number, request.first_line, part.next_line, near, stored.next_part
        )
        if cause is not None:
            raise _wrong(request.import_id, cause)
        return False

    async def _take(
        self,
        request: participant_pb2.ImportPartRequest,
        read: _Read,
        digest: bytes,
        call: Call,
    ) -> None:
        registrations = read.registrations
        known = await self._people.known(registrations)
        named = await self._store.named_before(
            request.import_id, [read.key(one) for one in registrations]
        )
        taking = await asyncio.to_thread(
            self._decided, request, read, known, named, digest, call.caller.spiffe_id
        )
        await self._store.take(taking, instant(self._clock))

    def _read(
        self, request: participant_pb2.ImportPartRequest, columns: Columns, area: str
    ) -> _Read:
        part = read_part(request.content, request.first_line, columns, self._codes, area)
        applicants = {
            str(row.line): Applicant(
                item_id=str(row.line),
                name=row.name,
                id_number=row.id_number,
                born=row.born,
                social_security_card=row.social_security_card,
                electronic_token=row.electronic_token,
                personal_number=row.personal_number,
                area=area,
                insurance_type=row.insurance,
                membership=row.membership,
            )
            for row in part.rows
        }
        return _Read(
            part, applicants, [self._registering.registration(one) for one in applicants.values()]
        )

    def _decided(
        self,
        request: participant_pb2.ImportPartRequest,
        read: _Read,
        known: Sequence[Known],
        named: set[RowKey],
        digest: bytes,
        actor: str,
    ) -> Taking:
        planned = plan(read.registrations, known)
        additions = planned.additions
        rejected = list(read.part.rejected)
        keys: set[RowKey] = set()
        for registration in read.registrations:
            line, key = registration.item_id, read.key(registration)
            conflict = planned.conflicts.get(line)
            if conflict in (None, Conflict.CONTENT) and (key in keys or key in named):
                rejected.append(RejectedRow(int(line), "", _REPEATED))
            elif conflict is not None:
                rejected.append(RejectedRow(int(line), *_CAUSES[conflict]))
            else:
                keys.add(key)
        return Taking(
            import_id=request.import_id,
            part=PartTaken(
                number=request.number,
                first_line=request.first_line,
                next_line=read.part.next_line,
                digest=digest,
                totals=read.part.totals,
                accepted=len(additions),
                unchanged=len(keys) - len(additions),
                rejected=len(rejected),
            ),
            people=self._registering.new_people(additions, read.applicants),
            credentials=[(key, one.person_id) for one in additions for key in one.credentials],
            memberships=self._registering.new_memberships(additions),
            rejected=rejected,
            keys=list(keys),
            audit=AuditRow(actor, "import", f"{request.import_id} {request.number}", digest),
        )


def _columns(header: str) -> Columns:
    try:
        return columns_of(header)
    except NotAHeader as fault:
        raise Refusal(Reason.ERROR_REASON_IMPORT_INVALID, cause=str(fault)) from None


def _wrong(import_id: str, cause: str) -> Refusal:
    # The placeholder's name is none in Python.
    details: dict[str, Any] = {"import": import_id, "cause": cause}
    return Refusal(Reason.ERROR_REASON_IMPORT_STATE_WRONG, **details)


def _shown(stored: StoredImport) -> participant_pb2.Import:
    shown = participant_pb2.Import(
        import_id=stored.import_id,
        state=(
            participant_pb2.IMPORT_STATE_FINISHED
            if stored.finished
            else participant_pb2.IMPORT_STATE_OPEN
        ),
        next_part=stored.next_part,
        rows=stored.read.rows,
        accepted=stored.accepted,
        unchanged=stored.unchanged,
        rejected=stored.rejected,
        totals=_control(stored.totals),
        read=_control(stored.read),
        file_name=stored.file_name,
    )
    shown.start_time.FromDatetime(stored.started_at)
    return shown


def _control(totals: Totals) -> participant_pb2.ControlTotals:
    return participant_pb2.ControlTotals(
        rows=totals.rows, employees=totals.employees, residents=totals.residents
    )
