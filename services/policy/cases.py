"""A case as a person writes it, in JSON or YAML: see docs/policy.md for the fields.

Here is only what concerns the file: its fields, their types, what the document fixes. What is wrong
with the case itself `validate_case` says; all faults are told at once, each by its name. Whether a
fact is missing is known only when the document asks for it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.policy.domain import facts
from services.policy.domain.case import (
    UNKNOWN_AGE,
    Case,
    CaseFault,
    Counters,
    validate_case,
)
from services.policy.domain.compiling import dotted
from services.policy.domain.compute import period_of
from services.policy.domain.document import Document
from services.policy.domain.scopes import plans
from services.policy.domain.stages import TEMPORARY
from services.policy.reading import NotReadable, read, read_text

_AMOUNTS = ("total", "full_self_pay", "over_limit", "first_self_pay", "in_scope")
_FIELDS: dict[str, tuple[str, ...]] = {
    "": (
        *("note", "area", "insurance", "person", "institution", "route", "benefit_class"),
        *("basis", "care_type", "care_area", "disease", "admitted", "discharged", "settled"),
        *("nth_admission", "nth_temporary", "settled_directly", "late_filing", "unfiled"),
        *("use_account", "account_balance_fen", "amounts_fen", "accumulators_fen"),
    ),
    "person": ("class", "age", "civil_servant", "aid"),
    "institution": ("grade", "level", "deductible_level", "settlement_level", "kind"),
    "amounts_fen": _AMOUNTS,
}


class CaseFaults(ValueError):
    """Everything that is wrong with a case."""

    def __init__(self, faults: list[CaseFault]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(f"{each.field} {each.text}" for each in faults))


@dataclass(frozen=True, slots=True)
class Given:
    """A case with what it starts from."""

    case: Case
    counters: dict[str, Counters]
    balance_fen: int


def read_case_file(path: Path) -> dict[str, Any]:
    """The data of a case in JSON or YAML; raise `NotReadable`, or `CaseFaults` for keys that stand
    twice or are empty."""
    text = read_text(path)
    if text.lstrip().startswith("{"):
        try:
            data: dict[str, Any] = json.loads(
                text, object_pairs_hook=_once, parse_float=str, parse_constant=str
            )
        except json.JSONDecodeError as error:
            raise NotReadable(error.lineno, f"is no JSON: {error.msg}") from error
        except (ValueError, RecursionError) as error:
            raise NotReadable(0, f"is no JSON: {error}") from error
        return data
    found = read(text)
    if found.faults:
        raise CaseFaults(
            [CaseFault("MALFORMED", dotted(each.path), each.text) for each in found.faults]
        )
    return found.data


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"key {twice!r} stands twice")
    return data


def read_case(document: Document, data: Mapping[str, Any]) -> Given:
    """The case that `data` describes; raise `CaseFaults`."""
    reader = _Reader(data)
    given = reader.given(document)
    if reader.faults:
        raise CaseFaults(reader.faults)
    return given


class _Reader:
    """Takes fields from the data and notes what is wrong with them."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.faults: list[CaseFault] = []
        self._data = data
        self._fields: dict[str, str] = {}
        """Name in the case, as its faults give it → field of the data."""
        for group, known in _FIELDS.items():
            inner = self._group(group)
            for name in inner:
                if name not in known:
                    text = f"is no field of a case: it has {', '.join(known)}"
                    self._fault("UNKNOWN_FIELD", f"{group}.{name}" if group else str(name), text)

    def given(self, document: Document) -> Given:
        balance = self._whole("account_balance_fen", "account_balance_fen")
        case = self._case(document, balance)
        counters = self._counters(document, case)
        insurance = self._text("insurance", "insurance")
        written = document.written
        if insurance in facts.INSURANCES and insurance != written.insurance:
            text = f"is {insurance}, but the document is for {written.insurance}"
            self._fault("WRONG_INSURANCE", "insurance", text)
            insurance = ""
        self._add(validate_case(case, insurance or written.insurance, counters, balance))
        if all(each.name != "WRONG_DATE" for each in self.faults):
            self._require_period(document, case)
        return Given(case, counters, balance)

    def _case(self, document: Document, balance: int) -> Case:
        area = self._text("area", "area")
        if area and area != document.area:
            text = f"is {area}, but the document is for {document.area}"
            self._fault("WRONG_AREA", "area", text)
        care_type = self._text("care_type", "care_type")
        if self._value("care_type") in (None, ""):
            text = f"is missing: one of {', '.join(facts.CARE_TYPES)}"
            self._fault("MISSING_FIELD", "care_type", text)
        elif (
            care_type != "chronic"
            and "disease" not in self._data
            and _asks_disease(document, care_type)
        ):
            self._fault("MISSING_FIELD", "disease", "is missing: the document asks for it")
        route = self._text("route", "route")
        benefit_class = self._text("benefit_class", "benefit_class")
        days = self._days(document)
        amounts = self._amounts()
        return Case(
            route=route,
            basis=self._text("basis", "basis") or _basis(route, benefit_class),
            benefit_class=benefit_class,
            care_type=care_type,
            person_class=self._text("person_class", "person.class"),
            age=self._age(),
            deductible_level=self._text(
                "deductible_level", "institution.deductible_level", "institution.level"
            ),
            settlement_level=self._text(
                "settlement_level", "institution.settlement_level", "institution.level"
            ),
            start_date=days[0],
            end_date=days[1],
            business_day=days[2],
            use_account=self._flag("use_account", balance > 0),
            total_fen=amounts["total"],
            full_self_pay_fen=amounts["full_self_pay"],
            over_limit_fen=amounts["over_limit"],
            first_self_pay_fen=amounts["first_self_pay"],
            in_scope_fen=amounts["in_scope"],
            grade=self._text("grade", "institution.grade"),
            institution_kind=self._text("institution_kind", "institution.kind"),
            care_area=self._text("care_area", "care_area"),
            disease=self._text("disease", "disease"),
            civil_servant=self._flag("person.civil_servant", None),
            aid=self._text("aid", "person.aid"),
            settled_directly=self._flag("settled_directly", True),
            late_filing=self._flag("late_filing", False),
            unfiled=self._flag("unfiled", False),
        )

    def _age(self) -> int:
        age = self._whole("age", "person.age", missing=UNKNOWN_AGE)
        if self._value("person.age") == UNKNOWN_AGE:
            self._fault("OUT_OF_RANGE", "person.age", "-1 is no age: leave out what is not known")
        return age

    def _days(self, document: Document) -> tuple[str, str, str]:
        """First, last and settlement day; the start of the document where none is given."""
        first = self._text("start_date", "admitted")
        last = self._text("end_date", "discharged", "admitted", "settled")
        settled = self._text("business_day", "settled", "discharged", "admitted")
        if not last:
            return ("", document.effective_from, document.effective_from)
        return (first or last, last, settled)

    def _require_period(self, document: Document, case: Case) -> None:
        """Note a settlement before the discharge, and a case of another time than the document."""
        if case.business_day < case.end_date:
            text = f"{case.business_day} lies before the discharge"
            self._fault("WRONG_DATE", "settled", text)
        first = case.start_date or case.end_date
        days = {"discharge": case.end_date, "admission": first, "settlement": case.business_day}
        decides = days[document.effective_by]
        if not document.effective_from <= decides <= document.effective_to:
            text = (
                f"{decides} ({document.effective_by}) lies outside the document's period "
                f"{document.effective_from} to {document.effective_to}"
            )
            self._fault("OUTSIDE_PERIOD", "discharged", text)

    def _amounts(self) -> dict[str, int]:
        inner = self._group("amounts_fen")
        for name in ("total", "in_scope"):
            if name not in inner:
                self._fault("MISSING_FIELD", f"amounts_fen.{name}", "is missing: give it in fen")
        return {name: self._whole(f"{name}_fen", f"amounts_fen.{name}") for name in _AMOUNTS}

    def _add(self, found: list[CaseFault]) -> None:
        """Note what is wrong with the case, by the fields of the data, each once."""
        # The sum of amounts that are missing or no numbers says nothing.
        summed = not any(each.field.startswith("amounts_fen") for each in self.faults)
        for each in found:
            field = self._fields.get(each.field, each.field)
            fault = each._replace(field=field)
            if fault not in self.faults and (summed or each.name != "PARTS_DO_NOT_SUM"):
                self.faults.append(fault)

    def _counters(self, document: Document, case: Case) -> dict[str, Counters]:
        """By benefit period: top-level numbers are the period's, nested ones a counter's."""
        period = period_of(document, case)
        found: dict[str, Counters] = {}
        main: dict[str, int] = {}
        for key, value in self._group("accumulators_fen").items():
            field = f"accumulators_fen.{key}"
            if not isinstance(value, dict):
                main |= self._counter(field, key, value, period)
                continue
            named: dict[str, int] = {}
            name = key if re.match(r"\d{4}(-|$)", key) else f"{period}-{key}"
            for inner, number in value.items():
                named |= self._counter(f"{field}.{inner}", inner, number, name)
            found[name] = Counters(**named)
        if main:
            found[period] = Counters(**main)
        benefit = document.benefits.get(case.care_type)
        nth = self._count("nth_admission")
        if nth and benefit is not None:
            year = case.start_date[:4] if document.splits_year_end and case.start_date else period
            own = f"{year}-{benefit.counter}" if benefit.counter else year
            found[own] = found.get(own, Counters())._replace(stay_count=nth - 1)
        nth = self._count("nth_temporary")
        if nth:
            found[f"{period}-{TEMPORARY}"] = Counters(stay_count=nth - 1)
        return found

    def _counter(self, field: str, key: str, value: object, period: str) -> dict[str, int]:
        name = key if key in Counters._fields else f"{key}_fen"
        if name not in Counters._fields:
            text = f"is no accumulator: there are {', '.join(Counters._fields)}"
            self._fault("UNKNOWN_FIELD", field, text)
            return {}
        self._fields[f"{period}.{name}"] = field
        return {name: self._number(field, value, 0)}

    def _group(self, name: str) -> Mapping[str, Any]:
        inner = self._data.get(name, {}) if name else self._data
        if isinstance(inner, dict):
            return inner
        if all(each.field != name for each in self.faults):
            self._fault("WRONG_TYPE", name, "must hold fields of its own")
        return {}

    def _value(self, field: str) -> Any:
        group, _, name = field.rpartition(".")
        return self._group(group).get(name)

    def _text(self, name: str, *fields: str) -> str:
        """`name` of the case: the first of `fields` that is given."""
        field = next((each for each in fields if self._value(each) not in (None, "")), fields[0])
        self._fields[name] = field
        value = self._value(field)
        if value is not None and not isinstance(value, str):
            text = f"{value!r} must be text: put it in quotes"
            if CaseFault("WRONG_TYPE", field, text) not in self.faults:
                self._fault("WRONG_TYPE", field, text)
            return ""
        return value or ""

    def _flag(self, field: str, missing: bool | None) -> Any:
        value = self._value(field)
        if value is None:
            return missing
        if not isinstance(value, bool):
            self._fault("WRONG_TYPE", field, f"{value!r} must be true or false")
        return value

    def _count(self, field: str) -> int:
        """From 1; 0 when it is not given or wrong."""
        if self._value(field) is None:
            return 0
        count = self._whole(field, field, missing=1)
        if not 1 <= count <= facts.MAX_COUNT:
            self._fault("OUT_OF_RANGE", field, f"{count} must be from 1 to {facts.MAX_COUNT}")
            return 0
        return count

    def _whole(self, name: str, field: str, *, missing: int = 0) -> int:
        self._fields[name] = field
        value = self._value(field)
        return missing if value is None else self._number(field, value, missing)

    def _number(self, field: str, value: object, missing: int) -> int:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        self._fault("WRONG_TYPE", field, f"{value!r} must be a whole number")
        return missing

    def _fault(self, name: str, field: str, text: str) -> None:
        self.faults.append(CaseFault(name, field, text))


def _basis(route: str, benefit_class: str) -> str:
    if route == "local":
        return "local"
    return "deemed_emergency" if benefit_class == "emergency" else "filed"


def _asks_disease(document: Document, care_type: str) -> bool:
    benefit = document.benefits.get(care_type)
    if benefit is None:
        return False
    return benefit.diseases is not None or any(
        fact.key == "diseases"
        for plan in plans(document)
        if plan.benefit is benefit
        for place in plan.places()
        for table in (place.table, *place.scopes)
        for fact in table.facts
    )
