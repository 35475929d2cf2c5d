"""From an institution's bill to an envelope: route, line split, payload."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from infra.runtime.clock import Clock, new_id
from infra.runtime.coalesce import Coalescer
from infra.runtime.contract import REVISION
from infra.runtime.directory import Directory, Place
from infra.runtime.errors import Refusal
from infra.runtime.id_number import birth_date, sex
from infra.runtime.types import STAYS
from yidi.catalog.v1 import catalog_pb2
from yidi.common.v1 import envelope_pb2, types_pb2, visit_pb2
from yidi.gateway.v1 import gateway_pb2
from yidi.settlement.v1 import care_pb2, payload_pb2


@dataclass(frozen=True, slots=True)
class Prepared:
    """A bill that is ready to leave."""

    settlement_id: str
    envelope: envelope_pb2.Envelope
    care: Place
    insured: Place
    route: types_pb2.Route.ValueType
    kept: payload_pb2.ExchangePayload
    """What the care place keeps: the payload without the credential, with every line; of an undo,
    nothing."""
    request: bytes
    """The same serialized, or an undo's payload."""


@dataclass(frozen=True, slots=True)
class Charge:
    """What an institution asks to be quoted or settled."""

    bill: gateway_pb2.Bill
    credential: visit_pb2.Credential
    operator: str
    body_digest: bytes
    expected: payload_pb2.Expected | None
    kind: types_pb2.ExchangeKind.ValueType


class Preparing:
    """Prepares bills of one care site."""

    def __init__(
        self,
        *,
        clock: Clock,
        directory: Directory,
        split: Coalescer[catalog_pb2.SplitFeesItem, catalog_pb2.SplitFeesResult],
    ) -> None:
        self._clock = clock
        self._directory = directory
        self._split = split

    async def prepare(self, charge: Charge, traceparent: str) -> Prepared:
        """Find the route, split the lines, build the payload; refusals here claim nothing."""
        visit = visit_pb2.Visit()
        visit.CopyFrom(charge.bill.visit)
        care = self._directory.place(visit.care_area)
        insured = self._directory.place(visit.insured_area)
        # County codes are aliases: beyond this line there are pooling areas only.
        visit.care_area, visit.insured_area = care.area, insured.area
        self._directory.check_open(insured, visit.insurance, visit.care_type)
        route = self._directory.route(care, insured)
        settlement_id = new_id(self._clock)
        institution = charge.bill.reference.institution
        result = await self._split.submit(
            catalog_pb2.SplitFeesItem(
                id=settlement_id,
                institution=institution,
                visit=visit,
                route=route,
                lines=charge.bill.lines,
                total_fen=charge.bill.total_fen,
                patient=_patient(charge),
            )
        )
        if result.HasField("error"):
            raise Refusal.from_status(result.error)
        split = result.split
        kept = payload_pb2.ExchangePayload(
            bill=charge.bill.reference,
            visit=visit,
            institution=split.institution,
            catalogue_version=split.catalogue_version,
            total_fen=split.total_fen,
            parts=split.parts,
            lines=split.lines,
            expected=charge.expected,
            body_digest=charge.body_digest,
        )
        sent = payload_pb2.ExchangePayload()
        sent.CopyFrom(kept)
        sent.credential.CopyFrom(charge.credential)
        if visit.care_type in STAYS:
            del sent.lines[:]
            sent.categories.extend(split.categories)
            kept.categories.extend(split.categories)
        kept.findings.extend(split.findings)
        payload = sent.SerializeToString()
        envelope = envelope_pb2.Envelope(
            id=settlement_id,
            kind=charge.kind,
            origin=envelope_pb2.Origin(
                care_area=care.area, institution=institution, operator=charge.operator
            ),
            insured_area=insured.area,
            contract_revision=REVISION,
            traceparent=traceparent,
            payload_digest=hashlib.sha256(payload).digest(),
            payload=payload,
        )
        return Prepared(
            settlement_id, envelope, care, insured, route, kept, kept.SerializeToString()
        )

    def prepare_undo(
        self,
        original: care_pb2.JournalRow,
        kind: types_pb2.ExchangeKind.ValueType,
        *,
        care_area: str,
        reason: str,
        operator: str,
        traceparent: str,
    ) -> Prepared:
        """The envelope that undoes a completed settlement of this site."""
        care = self._directory.place(care_area)
        insured = self._directory.place(original.insured_area)
        self._directory.check_downtime(insured)
        undo_id = new_id(self._clock)
        payload = payload_pb2.UndoPayload(
            undoes=original.settlement_id, bill=original.bill, reason=reason
        ).SerializeToString()
        envelope = envelope_pb2.Envelope(
            id=undo_id,
            kind=kind,
            origin=envelope_pb2.Origin(
                care_area=care.area, institution=original.bill.institution, operator=operator
            ),
            insured_area=insured.area,
            contract_revision=REVISION,
            traceparent=traceparent,
            payload_digest=hashlib.sha256(payload).digest(),
            payload=payload,
        )
        nothing = payload_pb2.ExchangePayload()
        return Prepared(undo_id, envelope, care, insured, original.route, nothing, payload)


def _patient(charge: Charge) -> visit_pb2.Patient:
    """Sex and birth date as the bill says; what it leaves out, as an identity card shown says.

    A card number that cannot exist says nothing: whether it is anybody's decides the insured place.
    """
    patient = visit_pb2.Patient()
    patient.CopyFrom(charge.bill.patient)
    shown = charge.credential
    if shown.type == types_pb2.CREDENTIAL_TYPE_ID_CARD:
        if not patient.sex and (told := sex(shown.number)) is not None:
            patient.sex = types_pb2.Sex.ValueType(told)
        if not patient.birth_date and (born := birth_date(shown.number)) is not None:
            patient.birth_date = born.isoformat()
    return patient
