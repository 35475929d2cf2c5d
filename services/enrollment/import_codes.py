"""What the codes of an import file mean, from the contract."""

from __future__ import annotations

from infra.runtime.types import national_code, short_name
from services.enrollment.domain.import_rows import Codes
from yidi.common.v1 import options_pb2, types_pb2

_INSURANCES = types_pb2.InsuranceType.DESCRIPTOR
_CLASSES = types_pb2.PersonClass.DESCRIPTOR


def import_codes() -> Codes:
    """National codes, former ones too; a person class without one goes by its short name here."""
    insurances: dict[str, int] = {}
    for value in _INSURANCES.values[1:]:
        insurances[national_code(_INSURANCES, value.number)] = value.number
        former = value.GetOptions().Extensions[options_pb2.former_codes]
        insurances |= dict.fromkeys(former, value.number)
    classes = {
        national_code(_CLASSES, value.number) or short_name(_CLASSES, value.number): value.number
        for value in _CLASSES.values[1:]
    }
    return Codes(
        insurances=insurances,
        classes=classes,
        employee=types_pb2.INSURANCE_TYPE_EMPLOYEE,
        employee_classes=frozenset(
            {
                types_pb2.PERSON_CLASS_EMPLOYED,
                types_pb2.PERSON_CLASS_RETIRED,
                types_pb2.PERSON_CLASS_SELF_EMPLOYED,
                types_pb2.PERSON_CLASS_BANKRUPT_UNIT,
            }
        ),
    )
