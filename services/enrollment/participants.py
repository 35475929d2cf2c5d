"""The participant servicer: what the agency sees of its people and changes of them.

A person is found only through an area where the person has or had a relation; anybody else is
not found, whether known or not.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

from infra.runtime.call import Call
from infra.runtime.clock import Clock, business_day, instant
from infra.runtime.database import Database
from infra.runtime.days import parse_day
from infra.runtime.directory import Place
from infra.runtime.errors import Reason, Refusal
from services.enrollment.domain import changing
from services.enrollment.domain.changing import Change, Person
from services.enrollment.domain.identification import CredentialType, proves
from services.enrollment.domain.registration import Key
from services.enrollment.domain.status import ChangeRefused, InsuredStatus
from services.enrollment.importing import Importing
from services.enrollment.messages import qualification, record
from services.enrollment.registering import ATTEMPTS
from services.enrollment.store.audit import AuditRow
from services.enrollment.store.changing import Asked, ChangingStore, Read, Request, Stored
from services.enrollment.store.participants import EnrollmentStore, Raced
from services.enrollment.vault import Vault
from yidi.enrollment.v1 import participant_pb2


class ParticipantService:
    """Participants of the site's own pooling areas."""

    def __init__(
        self,
        *,
        database: Database,
        clock: Clock,
        secret: bytes,
        place: Callable[[str], Place],
        site: str,
    ) -> None:
        """`secret` as in `EnrollmentService`; `place` finds an area of the country, raising
        `Refusal` (AREA_UNKNOWN, DIRECTORY_STALE), `site` is the own one."""
        self._store = ChangingStore(database)
        self._people = EnrollmentStore(database)
        self._clock = clock
        self._vault = Vault(secret)
        self._importing = Importing(database=database, clock=clock, vault=self._vault)
        self._place = place
        self._site = site

    async def GetParticipant(
        self, request: participant_pb2.GetParticipantRequest, call: Call
    ) -> participant_pb2.GetParticipantResponse:
        """One statement, and one for the audit when nobody is found."""
        if request.HasField("person_id"):
            asked = Asked(person_id=request.person_id)
        else:
            asked = Asked(key=self._key_asked(request))
        stored = (await self._store.read(asked)).stored
        if (
            stored is None
            or not _is_of(stored.person, request.insured_area)
            or not self._proved(request, stored)
        ):
            digest = self._vault.audit_digest(
                request.person_id if asked.key is None else asked.key.index.hex()
            )
            subject = "" if stored is None else stored.person.person_id
            audit = AuditRow(call.caller.spiffe_id, "get not_found", subject, digest)
            await self._people.record_refusals([audit], instant(self._clock))
            raise Refusal(Reason.ERROR_REASON_PARTICIPANT_NOT_FOUND)
        return participant_pb2.GetParticipantResponse(record=self._record(stored, stored.person))

    async def ChangeParticipant(
        self, request: participant_pb2.ChangeParticipantRequest, call: Call
    ) -> participant_pb2.ChangeParticipantResponse:
        """One read and one write; a repetition reads the first answer."""
        caller = call.caller.spiffe_id
        day = parse_day(request.day, "day")
        # A keyed digest, as the request may hold a card number; who typed it does not count.
        body = participant_pb2.ChangeParticipantRequest()
        body.CopyFrom(request)
        body.ClearField("operator")
        digest = self._vault.audit_digest(body.SerializeToString(deterministic=True).hex())
        asked = Asked(
            person_id=request.person_id,
            caller=caller,
            request_id=request.request_id,
            new_number=self._new_number(request),
            user_id=request.share_with or None,
        )
        for _ in range(ATTEMPTS):
            read = await self._store.read(asked)
            if read.answered is not None:
                return self._answer_again(read, request, digest)
            stored = _present(read, request)
            after = self._changed(read, stored.person, request, day)
            answer = participant_pb2.ChangeParticipantResponse(record=self._record(stored, after))
            sealed = self._vault.seal(answer.SerializeToString(), after.person_id, "answer")
            audit = AuditRow(
                caller, f"change {request.WhichOneof('change')}", after.person_id, digest
            )
            try:
                written = await self._store.write(
                    stored.person,
                    after,
                    Request(caller, request.request_id, digest, sealed),
                    audit,
                    instant(self._clock),
                )
            except Raced:
                continue
            if written:
                return answer
        raise Refusal(Reason.ERROR_REASON_PERSON_BUSY)

    async def FillForm(
        self, request: participant_pb2.FillFormRequest, call: Call
    ) -> participant_pb2.FillFormResponse:
        """One statement, which writes the audit row as well."""
        audit = AuditRow(
            actor=call.caller.spiffe_id,
            action=f"fill_form {request.purpose}",
            subject=request.person_id,
            digest=self._vault.audit_digest(request.person_id, request.insured_area),
        )
        found = await self._store.fill_form(
            request.person_id, request.insured_area, audit, instant(self._clock)
        )
        if found is None:
            raise Refusal(Reason.ERROR_REASON_PARTICIPANT_NOT_FOUND)
        name, id_number = found
        return participant_pb2.FillFormResponse(
            name=self._vault.decrypt(name, request.person_id, "name"),
            id_number=self._vault.decrypt(id_number, request.person_id, "id_number"),
        )

    async def StartImport(
        self, request: participant_pb2.StartImportRequest, call: Call
    ) -> participant_pb2.StartImportResponse:
        return await self._importing.start(request, call)

    async def ImportPart(
        self, request: participant_pb2.ImportPartRequest, call: Call
    ) -> participant_pb2.ImportPartResponse:
        return await self._importing.part(request, call)

    async def FinishImport(
        self, request: participant_pb2.FinishImportRequest, call: Call
    ) -> participant_pb2.FinishImportResponse:
        return await self._importing.finish(request, call)

    async def GetImport(
        self, request: participant_pb2.GetImportRequest, call: Call
    ) -> participant_pb2.GetImportResponse:
        return await self._importing.get(request, call)

    async def ListRejectedRows(
        self, request: participant_pb2.ListRejectedRowsRequest, call: Call
    ) -> participant_pb2.ListRejectedRowsResponse:
        return await self._importing.rejected(request, call)

    def _key_asked(self, request: participant_pb2.GetParticipantRequest) -> Key:
        if request.HasField("credential"):
            type_ = CredentialType(request.credential.type)
            return self._vault.key(type_, request.credential.number)
        return self._vault.key(
            CredentialType.PERSONAL_NUMBER, request.personal_number, request.insured_area
        )

    def _proved(self, request: participant_pb2.GetParticipantRequest, stored: Stored) -> bool:
        if not request.HasField("credential"):
            return True
        matches = self._vault.name_matches(
            stored.id_index, stored.name_index, request.credential.name
        )
        return proves(CredentialType(request.credential.type), matches)

    def _new_number(self, request: participant_pb2.ChangeParticipantRequest) -> Key | None:
        match request.new_number.WhichOneof("number"):
            case "social_security_card":
                return self._vault.key(
                    CredentialType.SOCIAL_SECURITY_CARD, request.new_number.social_security_card
                )
            case "personal_number":
                return self._vault.key(
                    CredentialType.PERSONAL_NUMBER,
                    request.new_number.personal_number,
                    request.insured_area,
                )
        return None

    def _answer_again(
        self, read: Read, request: participant_pb2.ChangeParticipantRequest, digest: bytes
    ) -> participant_pb2.ChangeParticipantResponse:
        answered = read.answered
        if answered is None or answered.digest != digest:
            raise Refusal(Reason.ERROR_REASON_REQUEST_ID_REUSED, request_id=request.request_id)
        answer = self._vault.open(answered.answer, answered.person_id, "answer")
        return participant_pb2.ChangeParticipantResponse.FromString(answer)

    def _changed(
        self,
        read: Read,
        person: Person,
        request: participant_pb2.ChangeParticipantRequest,
        day: date,
    ) -> Person:
        try:
            return changing.apply(
                person,
                request.insured_area,
                request.insurance,
                self._change(read, request),
                day=day,
                today=business_day(self._clock.now_ms()),
            )
        except ChangeRefused as refused:
            raise Refusal(
                Reason.ERROR_REASON_PARTICIPANT_CHANGE_REFUSED, cause=refused.cause
            ) from None

    def _change(self, read: Read, request: participant_pb2.ChangeParticipantRequest) -> Change:
        match request.WhichOneof("change"):
            case "suspend":
                return changing.SetStatus(InsuredStatus.SUSPENDED)
            case "resume":
                return changing.SetStatus(InsuredStatus.NORMAL)
            case "end":
                return changing.SetStatus(InsuredStatus.ENDED)
            case "transfer":
                place = self._place(request.transfer.to_area)
                return changing.Transfer(
                    to_area=place.area,
                    inside=place.site == self._site,
                    person_class=request.transfer.person_class,
                )
            case "attributes":
                return changing.Attributes(
                    person_class=request.attributes.person_class,
                    civil_servant=request.attributes.civil_servant,
                    contracted_institution=request.attributes.contracted_institution,
                )
            case "qualify":
                return qualification(request.qualify, "qualify")
            case "disqualify":
                return changing.Disqualify(request.disqualify)
            case "share_with":
                return changing.ShareWith(request.share_with, read.user_known)
            case "unshare_with":
                return changing.UnshareWith(request.unshare_with)
        key = self._new_number(request)
        if key is None:
            raise ValueError("the contract asks for exactly one change")
        return changing.NewNumber(key, read.owner_id)

    def _record(self, stored: Stored, person: Person) -> participant_pb2.ParticipantRecord:
        return record(
            person,
            name=self._vault.decrypt(stored.name, person.person_id, "name"),
            id_number=self._vault.decrypt(stored.id_number, person.person_id, "id_number"),
        )


def _is_of(person: Person, area: str) -> bool:
    return any(one.area == area for one in person.relations)


def _present(read: Read, request: participant_pb2.ChangeParticipantRequest) -> Stored:
    """The person that the clerk has seen; raises `Refusal`."""
    stored = read.stored
    if stored is None or not _is_of(stored.person, request.insured_area):
        raise Refusal(Reason.ERROR_REASON_PARTICIPANT_NOT_FOUND)
    if stored.person.version != request.version:
        raise Refusal(
            Reason.ERROR_REASON_PARTICIPANT_CHANGED_MEANWHILE, version=stored.person.version
        )
    return stored
