"""Between the contract and the domain: cases in, benefits and refusals out."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.descriptor import EnumDescriptor
from google.rpc import status_pb2

from infra.runtime.errors import Reason, Refusal, Violation
from infra.runtime.money import yuan
from services.policy.domain import explain
from services.policy.domain.case import (
    Ambiguous,
    Benefit,
    CannotCompute,
    Case,
    CaseFault,
    Counters,
    DiseaseRefused,
    NotFound,
    NotStated,
    Step,
    validate_case,
)
from services.policy.domain.document import Document, Provenance, Unit
from services.policy.domain.facts import INSURANCE_CODES
from services.policy.domain.opened import DiseaseNotOpened
from yidi.common.v1 import amounts_pb2, envelope_pb2, types_pb2
from yidi.policy.v1 import policy_pb2


def spelt(enum: EnumDescriptor) -> dict[int, str]:
    """The wire spelling of every value but the first: lower case, without the enum's prefix."""
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return {
        value.number: value.name.removeprefix(prefix).lower()
        for value in enum.values
        if value.number
    }


ROUTES = spelt(types_pb2.Route.DESCRIPTOR)
BASES = spelt(types_pb2.FilingBasis.DESCRIPTOR)
CLASSES = spelt(types_pb2.BenefitClass.DESCRIPTOR)
CARE_TYPES = spelt(types_pb2.CareType.DESCRIPTOR)
PERSONS = spelt(types_pb2.PersonClass.DESCRIPTOR)
LEVELS = spelt(types_pb2.InstitutionLevel.DESCRIPTOR)
GRADES = spelt(types_pb2.InstitutionGrade.DESCRIPTOR)
KINDS = spelt(policy_pb2.InstitutionKind.DESCRIPTOR)
AIDS = spelt(policy_pb2.AidClass.DESCRIPTOR)
INSURANCES: dict[int, str] = {
    types_pb2.INSURANCE_TYPE_EMPLOYEE: "310",
    types_pb2.INSURANCE_TYPE_RESIDENT: "390",
}
INSURANCE_VALUES = {
    "310": types_pb2.INSURANCE_TYPE_EMPLOYEE,
    "390": types_pb2.INSURANCE_TYPE_RESIDENT,
}
_INSURANCE_NAMES = {code: name for name, code in INSURANCE_CODES.items()}
PROVENANCES = {
    Provenance.OFFICIAL: types_pb2.PROVENANCE_OFFICIAL,
    Provenance.SECONDARY: types_pb2.PROVENANCE_SECONDARY,
    Provenance.ILLUSTRATIVE: types_pb2.PROVENANCE_ILLUSTRATIVE,
}
_UNITS = {
    Unit.NONE: policy_pb2.STEP_UNIT_UNSPECIFIED,
    Unit.FEN: policy_pb2.STEP_UNIT_FEN,
    Unit.BASIS_POINTS: policy_pb2.STEP_UNIT_BASIS_POINTS,
}


_FAULTS = {
    "UNKNOWN_VALUE": "不是规定的代码，或与险种不符。",
    "UNKNOWN_COMBINATION": "待遇类别与就医路径不符。",
    "MISSING_FIELD": "门诊慢特病须填写病种编码。",
    "WRONG_DATE": "日期不成立，或末日早于首日。",
    "NEGATIVE_AMOUNT": "金额不能为负；退费按原结算取反。",
    "OUT_OF_RANGE": "超出允许的范围。",
    "PARTS_DO_NOT_SUM": "与四个部分之和不等。",
}
"""What `validate_case` finds, in Chinese."""
_PARTS = ("full_self_pay_fen", "over_limit_fen", "first_self_pay_fen", "in_scope_fen")
_FIELDS = {
    "total_fen": "total_fen",
    "insurance": "insurance",
    "disease": "facts.disease_code",
    **{name: f"parts.{name}" for name in _PARTS},
}
"""Name in the case → field of the message; the others are facts of the same name."""
_RECORDED = {"person_class", "age"}
"""What enrollment holds of a person: no message can be mended, so the refusal is decided."""


def read_case(item: policy_pb2.ComputeCase, insurance: str) -> Case:
    """The case of a message of `insurance` (`310` or `390`); raise `Refusal` with all that is wrong
    with it.

    A fact that is not given is empty: a document that asks for it answers NOT_STATED.
    """
    facts, parts = item.facts, item.parts
    case = Case(
        route=ROUTES.get(facts.route, ""),
        basis=BASES.get(facts.basis, ""),
        benefit_class=CLASSES.get(facts.benefit_class, ""),
        care_type=CARE_TYPES.get(facts.care_type, ""),
        person_class=PERSONS.get(facts.person_class, ""),
        age=facts.age,
        deductible_level=LEVELS.get(facts.deductible_level, ""),
        settlement_level=LEVELS.get(facts.settlement_level, ""),
        start_date=facts.start_date,
        end_date=facts.end_date,
        business_day=facts.business_day,
        use_account=facts.use_account,
        total_fen=item.total_fen,
        full_self_pay_fen=parts.full_self_pay_fen,
        over_limit_fen=parts.over_limit_fen,
        first_self_pay_fen=parts.first_self_pay_fen,
        in_scope_fen=parts.in_scope_fen,
        grade=GRADES.get(facts.grade, ""),
        institution_kind=KINDS.get(facts.institution_kind, "general"),
        care_area=facts.care_area,
        disease=facts.disease_code,
        civil_servant=facts.civil_servant,
        aid=AIDS.get(facts.aid, "none"),
        settled_directly=facts.settled_directly != types_pb2.ANSWER_NO,
        late_filing=facts.late_filing,
        unfiled=facts.unfiled,
    )
    faults = validate_case(case, _INSURANCE_NAMES.get(insurance, ""))
    if faults:
        raise _wrong(case, faults)
    return case


def _wrong(case: Case, faults: Sequence[CaseFault]) -> Refusal:
    """NOT_STATED, TOTAL_MISMATCH or DAY_INVALID where that is all, else every fault."""
    first = faults[0]
    if {each.field for each in faults} <= _RECORDED:
        missing = f"{first.field}/{getattr(case, first.field)}"
        return Refusal(Reason.ERROR_REASON_POLICY_NOT_STATED, missing=missing)
    if len(faults) == 1 and first.name == "PARTS_DO_NOT_SUM":
        parts = sum(getattr(case, name) for name in _PARTS)
        return Refusal(
            Reason.ERROR_REASON_TOTAL_MISMATCH, total=yuan(case.total_fen), sum=yuan(parts)
        )
    if len(faults) == 1 and first.name == "WRONG_DATE":
        return Refusal(
            Reason.ERROR_REASON_DAY_INVALID,
            field=f"facts.{first.field}",
            value=getattr(case, first.field),
        )
    violations = [
        Violation(_FIELDS.get(each.field, f"facts.{each.field}"), _FAULTS[each.name])
        for each in faults
    ]
    return Refusal(Reason.ERROR_REASON_MESSAGE_INVALID, violations=violations)


def read_counters(opening: policy_pb2.Accumulator) -> Counters:
    """What has been used of one benefit period."""
    return Counters(*(getattr(opening, name) for name in Counters._fields))


def refused(refusal: CannotCompute, area: str) -> Refusal:
    """Why there is no benefit, as the catalogue says it."""
    if isinstance(refusal, NotStated):
        return Refusal(Reason.ERROR_REASON_POLICY_NOT_STATED, missing=refusal.missing)
    if isinstance(refusal, Ambiguous):
        return Refusal(Reason.ERROR_REASON_POLICY_AMBIGUOUS, missing=refusal.rows)
    if isinstance(refusal, NotFound):
        return Refusal(Reason.ERROR_REASON_POLICY_NOT_FOUND, area=area, date=str(refusal))
    if isinstance(refusal, DiseaseNotOpened):
        return Refusal(
            Reason.ERROR_REASON_DISEASE_NOT_OPENED, disease=refusal.disease, date=refusal.day
        )
    if isinstance(refusal, DiseaseRefused):
        return Refusal(Reason.ERROR_REASON_DISEASE_NOT_COVERED, area=area, disease=refusal.disease)
    return Refusal(Reason.ERROR_REASON_POLICY_NOT_OFFICIAL, area=area)


def case_result(
    item: policy_pb2.ComputeCase, outcome: Benefit | CannotCompute | Refusal, area: str
) -> policy_pb2.CaseResult:
    """The answer to one case."""
    if isinstance(outcome, Benefit):
        return policy_pb2.CaseResult(id=item.id, benefit=benefit_of(item, outcome))
    error: status_pb2.Status = (
        outcome.status() if isinstance(outcome, Refusal) else refused(outcome, area).status()
    )
    return policy_pb2.CaseResult(id=item.id, error=error)


def benefit_of(item: policy_pb2.ComputeCase, benefit: Benefit) -> policy_pb2.Benefit:
    """A benefit with its steps and what it adds to the accumulators."""
    return policy_pb2.Benefit(
        amounts=amounts_of(item, benefit),
        funds=funds_of(benefit),
        policy=reference(benefit.document, benefit.provenance),
        deltas=[
            policy_pb2.Accumulator(period=period, **delta._asdict())
            for period, delta in sorted(benefit.deltas.items())
        ],
        steps=[_step(step) for step in explain.told(benefit.steps)],
    )


def amounts_of(item: policy_pb2.ComputeCase, benefit: Benefit) -> amounts_pb2.Amounts:
    """Every amount: the four parts as they came, and what the benefit makes of them."""
    parts = item.parts
    return amounts_pb2.Amounts(
        total_fen=item.total_fen,
        full_self_pay_fen=parts.full_self_pay_fen,
        over_limit_fen=parts.over_limit_fen,
        first_self_pay_fen=parts.first_self_pay_fen,
        in_scope_fen=parts.in_scope_fen,
        remote_first_pay_fen=benefit.remote_first_pay_fen,
        deductible_fen=benefit.deductible_fen,
        ratio_self_pay_fen=benefit.ratio_self_pay_fen,
        over_cap_fen=benefit.over_cap_fen,
        fund_total_fen=benefit.fund_total_fen,
        account_fen=benefit.account_fen,
        cash_fen=benefit.cash_fen,
    )


def funds_of(benefit: Benefit) -> list[amounts_pb2.FundPayment]:
    """Every fund that pays, ordered by code."""
    return [
        amounts_pb2.FundPayment(code=code, fen=fen) for code, fen in sorted(benefit.funds.items())
    ]


def reference(document: Document, provenance: Provenance) -> envelope_pb2.PolicyReference:
    """A document as answers and journals name it."""
    return envelope_pb2.PolicyReference(
        area=document.area,
        insurance=INSURANCE_VALUES[document.insurance],
        version=document.version,
        hash=document.hash,
        provenance=PROVENANCES[provenance],
    )


def _step(step: Step) -> policy_pb2.Step:
    value = step.value
    return policy_pb2.Step(
        stage=step.stage,
        row=value.row,
        input_fen=step.input_fen,
        result_fen=step.result_fen,
        value=value.amount or 0,
        unit=_UNITS[value.unit],
        clause=value.clause,
        provenance=PROVENANCES[value.provenance],
        text=explain.text(step),
    )
