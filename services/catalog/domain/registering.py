"""Whether an institution may be registered as it is told."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise

from services.catalog.domain.institution import (
    InstitutionKind,
    OpenedDisease,
    Registration,
    Service,
)

_NATIONAL_CODE = re.compile(r"([HP])[0-9]{11}")
"""定点医药机构代码: H a medical institution, P a pharmacy. Other codes tell no kind."""
_KINDS = {"H": InstitutionKind.MEDICAL, "P": InstitutionKind.PHARMACY}


class RegistrationRefused(Exception):
    """The registration contradicts itself or what is known; `cause` in plain Chinese."""

    def __init__(self, cause: str) -> None:
        self.cause = cause
        super().__init__(cause)


def check_registrations(
    registrations: Sequence[Registration],
    *,
    areas: Collection[str],
    known: Mapping[str, InstitutionKind],
) -> None:
    """Raise `RegistrationRefused` for the first fault.

    `areas` are the pooling areas of the site; `known` is the kind under which institutions are
    registered already.
    """
    seen: set[tuple[str, object]] = set()
    for one in registrations:
        key = (one.code, one.effective_from)
        if key in seen:
            raise RegistrationRefused(f"{one.code} 自 {one.effective_from} 起登记了两次")
        seen.add(key)
        cause = _fault(one, areas, known.get(one.code, one.kind))
        if cause:
            raise RegistrationRefused(f"{one.code} {cause}")


def _fault(one: Registration, areas: Collection[str], known: InstitutionKind) -> str:
    services = frozenset[Service]().union(*one.networked.values())
    code = _NATIONAL_CODE.fullmatch(one.code)
    if not one.name.strip():
        return "缺少名称"
    if one.area not in areas:
        return f"所在统筹区 {one.area} 不属于本省"
    if code is not None and _KINDS[code[1]] is not one.kind:
        return "的编号与机构类型不符"
    if known is not one.kind:
        return "已按另一机构类型登记"
    if one.kind is InstitutionKind.PHARMACY and not services <= {Service.PHARMACY}:
        return "是零售药店，只能开通药店购药"
    if one.agreement_end < one.agreement_start:
        return f"的协议在 {one.agreement_end} 结束，早于开始的 {one.agreement_start}"
    if one.diseases and Service.CHRONIC not in services:
        return "列有门诊慢特病病种，却没有开通门诊慢特病"
    return _fault_of_diseases(one.diseases)


def _fault_of_diseases(diseases: Sequence[OpenedDisease]) -> str:
    ordered = sorted(diseases, key=lambda one: (one.code, one.first_day))
    for one in ordered:
        if one.last_day < one.first_day:
            return f"的病种 {one.code} 在 {one.last_day} 结束，早于开始的 {one.first_day}"
    for earlier, later in pairwise(ordered):
        if earlier.code == later.code and later.first_day <= earlier.last_day:
            return f"的病种 {later.code} 在 {later.first_day} 有两段重叠的日期"
    return ""
