"""The servicer of `yidi.catalog.v1.CatalogService`: fees split line by line, from memory."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from types import TracebackType

from infra.runtime.call import Call
from infra.runtime.database import Database
from infra.runtime.days import parse_day
from infra.runtime.errors import Reason, Refusal
from infra.runtime.money import yuan
from services.catalog import auditing
from services.catalog.domain.audit import Finding, auditors
from services.catalog.domain.audit_rule import AuditRule
from services.catalog.domain.bill import (
    BillSplit,
    DayInvalid,
    LineAmountMismatch,
    LineRepeated,
    RefundInvalid,
    TotalMismatch,
)
from services.catalog.domain.catalogue import CatalogueNotFound, catalogue_on
from services.catalog.domain.institution import (
    AgreementNotInForce,
    CareType,
    DiseaseNotOpened,
    InstitutionElsewhere,
    InstitutionNotNetworked,
    InstitutionUnknown,
    Registration,
    Route,
    admitted,
)
from services.catalog.domain.item import InsuranceType, Level
from services.catalog.domain.mapping import MappingSpell
from services.catalog.domain.split import split_bill
from services.catalog.snapshot import REFRESH_SECONDS, LiveSnapshot
from services.catalog.store import Snapshot
from yidi.catalog.v1 import catalog_pb2
from yidi.common.v1 import types_pb2, visit_pb2

_LINES_AT_A_STRETCH = 500
"""Lines split before other work of this process gets a turn (some 5 ms)."""
_NONE_MAPPED: dict[str, tuple[MappingSpell, ...]] = {}


class CatalogService:
    """Splits fees by the catalogue of `site`, the province of this deployment.

    Use it as an async context manager, or call `start` and `stop`.
    """

    def __init__(
        self,
        *,
        database: Database,
        site: str,
        audit_rules: Mapping[str, Sequence[AuditRule]] | None = None,
        refresh_seconds: float = REFRESH_SECONDS,
    ) -> None:
        """`site` is the province's code: its catalogue holds where an area has none of its own.

        `audit_rules`: area → rules of the fee audit, of `load_audit_rules`; None audits nothing.
        """
        self._site = site
        self._auditor = auditors(audit_rules or {}, site)
        self._live = LiveSnapshot(database, refresh_seconds=refresh_seconds)

    async def start(self) -> None:
        """Read the catalogue and follow it. Raises `Refusal` when it cannot be read."""
        await self._live.start()

    async def stop(self) -> None:
        """Stop following."""
        await self._live.stop()

    async def refresh(self) -> bool:
        """Take over at once what was published; say whether anything was."""
        return await self._live.refresh()

    async def __aenter__(self) -> CatalogService:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def BatchSplitFees(
        self, request: catalog_pb2.BatchSplitFeesRequest, call: Call
    ) -> catalog_pb2.BatchSplitFeesResponse:
        """Split each bill. No statement is run; the whole batch sees one snapshot.

        Per bill: INSTITUTION_UNKNOWN, FOREIGN_CODE, INSTITUTION_NOT_NETWORKED,
        INSTITUTION_AGREEMENT_NOT_IN_FORCE, INSTITUTION_DISEASE_NOT_OPENED, CATALOGUE_NOT_FOUND,
        DAY_INVALID, LINE_AMOUNT_MISMATCH, LINE_REPEATED, REFUND_LINE_INVALID, TOTAL_MISMATCH,
        FEE_AUDIT_REFUSED. A manual claim is split by its list; it asks no institution and no audit.
        """
        del call  # every caller that gets here is this site's gateway and sees the same catalogue
        snapshot = self._live.current
        response = catalog_pb2.BatchSplitFeesResponse()
        lines = 0
        for item in request.items:
            lines += len(item.lines)
            if lines > _LINES_AT_A_STRETCH:
                lines = 0
                await asyncio.sleep(0)
            result = response.results.add(id=item.id)
            try:
                registration, version, split, findings = self._split(snapshot, item)
            except Refusal as refusal:
                result.error.CopyFrom(refusal.status())
            else:
                _fill(result.split, registration, version, split)
                auditing.fill(result.split, findings)
        return response

    def _split(
        self, snapshot: Snapshot, item: catalog_pb2.SplitFeesItem
    ) -> tuple[Registration | None, str, BillSplit, tuple[Finding, ...]]:
        visit = item.visit
        first_day = parse_day(visit.start_date, "visit.start_date")
        day = parse_day(visit.end_date, "visit.end_date")
        registration = institution = None
        mapped: Mapping[str, Sequence[MappingSpell]] = _NONE_MAPPED
        try:
            if item.HasField("claim"):
                area, level = item.claim.list_area, Level(item.claim.price_limit_level)
            else:
                institution = item.institution
                registration = admitted(
                    snapshot.institutions.get(institution, ()),
                    first_day=first_day,
                    day=day,
                    care_area=visit.care_area,
                    route=Route(item.route),
                    care_type=CareType(visit.care_type),
                    disease=visit.disease_code,
                )
                area, level = registration.area, registration.price_limit_level
                mapped = snapshot.mapped.get(institution, _NONE_MAPPED)
            catalogue = catalogue_on(snapshot.catalogues, area, self._site, day)
            split = split_bill(
                item.lines,
                total_fen=item.total_fen,
                day=day,
                rules=catalogue.rules(InsuranceType(visit.insurance), level),
                institution=institution,
                mapped=mapped,
            )
        except DayInvalid as fault:
            raise Refusal(
                Reason.ERROR_REASON_DAY_INVALID, field=fault.field, value=fault.value
            ) from fault
        except InstitutionUnknown as fault:
            raise Refusal(
                Reason.ERROR_REASON_INSTITUTION_UNKNOWN, institution=item.institution
            ) from fault
        except InstitutionElsewhere as fault:
            raise Refusal(
                Reason.ERROR_REASON_FOREIGN_CODE, field="visit.care_area", value=visit.care_area
            ) from fault
        except InstitutionNotNetworked as fault:
            raise Refusal(
                Reason.ERROR_REASON_INSTITUTION_NOT_NETWORKED, institution=item.institution
            ) from fault
        except AgreementNotInForce as fault:
            raise Refusal(
                Reason.ERROR_REASON_INSTITUTION_AGREEMENT_NOT_IN_FORCE,
                institution=item.institution,
                date=fault.day,
                cause=fault.cause,
            ) from fault
        except DiseaseNotOpened as fault:
            raise Refusal(
                Reason.ERROR_REASON_INSTITUTION_DISEASE_NOT_OPENED,
                institution=item.institution,
                date=fault.day,
                disease=fault.disease,
            ) from fault
        except CatalogueNotFound as fault:
            raise Refusal(
                Reason.ERROR_REASON_CATALOGUE_NOT_FOUND, area=fault.area, date=fault.day
            ) from fault
        except LineAmountMismatch as fault:
            raise Refusal(
                Reason.ERROR_REASON_LINE_AMOUNT_MISMATCH, line_id=fault.line_id
            ) from fault
        except LineRepeated as fault:
            raise Refusal(Reason.ERROR_REASON_LINE_REPEATED, line_id=fault.line_id) from fault
        except RefundInvalid as fault:
            raise Refusal(
                Reason.ERROR_REASON_REFUND_LINE_INVALID, line_id=fault.line_id, cause=fault.cause
            ) from fault
        except TotalMismatch as fault:
            raise Refusal(
                Reason.ERROR_REASON_TOTAL_MISMATCH,
                total=yuan(fault.total_fen),
                sum=yuan(fault.sum_fen),
            ) from fault
        if registration is None:
            return None, catalogue.version, split, ()
        findings = auditing.audit(
            self._auditor(registration.area),
            item,
            days=(first_day, day),
            registration=registration,
            catalogue=catalogue,
            split=split,
        )
        return registration, catalogue.version, split, findings


def _fill(
    answer: catalog_pb2.FeeSplit, registration: Registration | None, version: str, split: BillSplit
) -> None:
    """Write the split into its place in the answer: a message put there later would be copied."""
    if registration is not None:
        _fill_institution(answer.institution, registration)
    answer.catalogue_version = version
    whole = split.parts
    answer.total_fen = whole.amount_fen
    parts = answer.parts
    parts.full_self_pay_fen = whole.full_self_pay_fen
    parts.over_limit_fen = whole.over_limit_fen
    parts.first_self_pay_fen = whole.first_self_pay_fen
    parts.in_scope_fen = whole.in_scope_fen
    add_line = answer.lines.add
    for line in split.lines:
        line_id, code, name, grade, category, amount, full, over, first, rest, reason, rules = line
        add_line(
            line_id=line_id,
            national_code=code,
            name=name,
            catalog_class=grade,
            fee_category=category,
            amount_fen=amount,
            full_self_pay_fen=full,
            over_limit_fen=over,
            first_self_pay_fen=first,
            in_scope_fen=rest,
            reason=reason,
            rules=rules,
        )
    for category, found in split.categories:
        answer.categories.add(
            fee_category=types_pb2.FeeCategory.ValueType(category),
            amount_fen=found.amount_fen,
            full_self_pay_fen=found.full_self_pay_fen,
            over_limit_fen=found.over_limit_fen,
            first_self_pay_fen=found.first_self_pay_fen,
            in_scope_fen=found.in_scope_fen,
        )


def _fill_institution(institution: visit_pb2.Institution, registration: Registration) -> None:
    institution.code = registration.code
    institution.name = registration.name
    institution.area = registration.area
    institution.grade = types_pb2.InstitutionGrade.ValueType(registration.grade)
    institution.deductible_level = _level(registration.deductible_level)
    institution.price_limit_level = _level(registration.price_limit_level)
    institution.settlement_level = _level(registration.settlement_level)


def _level(level: Level) -> types_pb2.InstitutionLevel.ValueType:
    return types_pb2.InstitutionLevel.ValueType(level)
