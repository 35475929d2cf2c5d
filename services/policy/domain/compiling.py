"""Turns a document as written into one to compute with; says everything that is wrong at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from typing import Any, NamedTuple, TypeVar

from pydantic import ValidationError

from services.policy.domain import facts
from services.policy.domain.canonical import DocumentError, canonical, content_hash
from services.policy.domain.document import (
    OPEN_END,
    Account,
    Adjustment,
    Benefit,
    Bracket,
    Cap,
    Change,
    Deductible,
    Diseases,
    Document,
    FirstPay,
    Floor,
    Fund,
    Money,
    Operation,
    Provenance,
    Unit,
    Value,
)
from services.policy.domain.planning import plans
from services.policy.domain.table import Table
from services.policy.domain.written import (
    Benefit as WrittenBenefit,
)
from services.policy.domain.written import (
    BracketRow,
    Conditions,
    Founded,
    FoundedRow,
    MoneyAdjustment,
    MoneyChange,
    MoneyRow,
    ShareAdjustment,
    ShareChange,
    ShareRow,
    WrittenDocument,
)
from services.policy.domain.written import (
    Deductible as WrittenDeductible,
)
from services.policy.domain.written import (
    FirstPay as WrittenFirstPay,
)
from services.policy.domain.written import (
    Fund as WrittenFund,
)

R = TypeVar("R")


class Fault(NamedTuple):
    """One thing that is wrong."""

    path: tuple[str | int, ...]
    """Where in the data."""
    text: str
    """What is wrong and what to do."""


class DocumentFaults(DocumentError):
    """Everything that is wrong with a document."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        first = self.faults[0]
        more = f" (and {len(self.faults) - 1} more)" if len(self.faults) > 1 else ""
        super().__init__(dotted(first.path), f"{first.text}{more}")


def dotted(path: Sequence[str | int]) -> str:
    """`("benefits", "inpatient", "stages", 0)` → `benefits.inpatient.stages[0]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text or "document"


def compile_document(data: Mapping[str, object]) -> Document:
    """The document that `data` (loaded YAML or JSON) describes; raise `DocumentFaults`.

    Gaps and overlaps of its tables are another question: see `checking`.
    """
    digest = content_hash(canonical(data))
    try:
        written = WrittenDocument.model_validate(data)
    except ValidationError as error:
        raise DocumentFaults([*_faults(error), *_unknown_sources(data)]) from None
    if faults := [*_unknown_sources(data), *_contradictions(written)]:
        raise DocumentFaults(faults)
    compiler = _Compiler(written)
    benefits: dict[str, Benefit] = {}
    for name, benefit in written.benefits.items():
        compiled = compiler.benefit(name, benefit)
        benefits |= dict.fromkeys(benefit.care_types, compiled)
    account = None
    if written.account is not None:
        value = compiler.clause("account", written.account)
        account = Account(written.account.pays or (), value)
    return Document(
        area=written.area,
        insurance=facts.INSURANCE_CODES[written.insurance],
        version=written.version,
        title=written.title,
        published_on=written.published_on,
        effective_from=written.effective.start,
        effective_to=written.effective.end or OPEN_END,
        effective_by=written.effective.by,
        period_by=written.period.by,
        splits_year_end=written.period.year_end == "split_by_days",
        benefits=benefits,
        account=account,
        written=written,
        hash=digest,
    )


def _faults(error: ValidationError) -> list[Fault]:
    """What the model says, in its order; a list is not empty because its items are wrong."""
    errors: list[Any] = list(error.errors())
    paths = [tuple(each["loc"]) for each in errors]
    return [
        _fault(path, each)
        for path, each in zip(paths, errors, strict=True)
        if each["type"] != "too_short"
        or not any(len(other) > len(path) and other[: len(path)] == path for other in paths)
    ]


def _fault(path: tuple[str | int, ...], error: Any) -> Fault:
    if path and path[-1] == "[key]":
        text = f"{path[-2]!r} is no name: write a few small letters"
        return Fault(path[:-1], text)
    told = {
        "extra_forbidden": "is not a key of the model: remove or correct it",
        "missing": "is missing: add it",
        "string_type": f"{error['input']!r} must be text: put it in quotes",
        "too_short": "is empty: add what it should hold",
        "literal_error": f"{error['input']!r} is not known: {error['msg']}",
    }
    text = told.get(error["type"]) or str(error["msg"]).removeprefix("Value error, ")
    return Fault(path, text)


def _contradictions(written: WrittenDocument) -> Iterator[Fault]:
    """What no single key shows: wrong people, days, care types named twice, unused sources."""
    days: dict[tuple[str | int, ...], str | None] = {
        ("effective", "start"): written.effective.start,
        ("effective", "end"): written.effective.end,
        ("published_on",): written.published_on,
    }
    for where, day in days.items():
        if day is not None and not _is_day(day):
            yield Fault(where, f"{day} is no day of the calendar")
    if written.effective.end is not None and written.effective.end < written.effective.start:
        yield Fault(("effective", "end"), "lies before the start")
    known = facts.PERSONS_OF_INSURANCE[written.insurance]
    for path, row in walk(written, Conditions):
        for number, person in enumerate(row.persons or ()):
            if person not in known:
                text = f"{person} is no person class of {written.insurance}: {', '.join(known)}"
                yield Fault((*path, "persons", number), text)
    seen: dict[str, str] = {}
    for name, benefit in written.benefits.items():
        for number, care_type in enumerate(benefit.care_types):
            if care_type in seen:
                text = f"{care_type} is paid by {seen[care_type]} too: name it once"
                yield Fault(("benefits", name, "care_types", number), text)
            seen[care_type] = name
    used = {founded.source for _, founded in walk(written, Founded)}
    used |= {row.source for _, row in walk(written, FoundedRow)}
    for source in sorted(set(written.sources) - used):
        yield Fault(("sources", source), "is used by no row: remove it")


def _unknown_sources(data: Mapping[str, object]) -> Iterator[Fault]:
    """Rows that name a source which the document does not list; also where the model is broken."""
    known = data.get("sources") if isinstance(data, Mapping) else None
    if not isinstance(known, Mapping):
        return
    for part in ("account", "benefits"):
        for path, source in _named(data.get(part), "source", (part,)):
            if source not in known:
                text = f"{source!r} is not among the sources {', '.join(known)}: add or correct it"
                yield Fault(path, text)


def _named(
    value: object, key: str, path: tuple[str | int, ...]
) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Every text that stands under `key`, with its path."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            if name == key and isinstance(item, str):
                yield (*path, name), item
            else:
                yield from _named(item, key, (*path, name))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _named(item, key, (*path, number))


def _is_day(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def walk(
    value: Any, kind: type[R], path: tuple[str | int, ...] = ()
) -> Iterator[tuple[tuple[str | int, ...], R]]:
    """Every part of a kind, with its path."""
    if isinstance(value, kind):
        yield path, value
    if isinstance(value, tuple):
        for number, item in enumerate(value):
            yield from walk(item, kind, (*path, number))
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from walk(item, kind, (*path, key))
    elif hasattr(type(value), "model_fields"):
        for key in type(value).model_fields:
            yield from walk(getattr(value, key), kind, (*path, key))


class _Compiler:
    """Knows the sources of one document."""

    def __init__(self, written: WrittenDocument) -> None:
        self._sources = {
            name: (source.title, Provenance[source.provenance.upper()])
            for name, source in written.sources.items()
        }

    def benefit(self, name: str, benefit: WrittenBenefit) -> Benefit:
        stages: list[FirstPay | Deductible | Fund] = []
        for stage in benefit.stages or ():
            if stage.first_pay is not None:
                stages.append(self._first_pay(f"{name}/first_pay", stage.first_pay))
            elif stage.deductible is not None:
                stages.append(self._deductible(f"{name}/deductible", stage.deductible))
            elif stage.fund is not None:
                stages.append(self._fund(f"{name}/{stage.fund.code}", stage.fund))
        diseases = None
        if benefit.diseases is not None:
            diseases = Diseases(
                frozenset(benefit.diseases.covered),
                benefit.diseases.otherwise,
                self.clause(f"{name}/diseases", benefit.diseases),
            )
        kinds = plans(stages)
        return Benefit(
            name=name,
            care_types=tuple(benefit.care_types),
            counter=benefit.counter or "",
            counts_stays=benefit.counts_stays,
            counts_temporaries=any(
                row.temporaries is not None for _, row in walk(benefit, Conditions)
            ),
            shares_cap=benefit.counter is None
            or any(
                cap.name == "shared"
                for stage in stages
                if isinstance(stage, Fund) and stage.code == "hifp_pay"
                for cap in stage.caps
            ),
            diseases=diseases,
            no_funds=None
            if benefit.no_funds is None
            else self.clause(f"{name}/no_funds", benefit.no_funds),
            stages=tuple(stages),
            plans=kinds,
            asks_stays="stay" in kinds.facts or "temporary" in kinds.facts,
        )

    def clause(self, name: str, founded: Founded) -> Value:
        """A statement that holds no number."""
        return self._value(name, None, Unit.NONE, founded.source, founded.clause, amount=0)

    def _first_pay(self, name: str, stage: WrittenFirstPay) -> FirstPay:
        return FirstPay(
            _scope(name, stage.when), self._table(name, stage.rows, self._share), stage.barred
        )

    def _deductible(self, name: str, stage: WrittenDeductible) -> Deductible:
        return Deductible(
            _scope(name, stage.when, level=_DEDUCTIBLE_LEVEL),
            stage.due == "topped_up",
            self._money_table(name, stage.rows),
            self._money_adjustments(name, stage.adjust),
            None
            if stage.year_cap is None
            else self._money_table(f"{name}/year_cap", stage.year_cap),
        )

    def _fund(self, name: str, fund: WrittenFund) -> Fund:
        caps = [
            Cap(
                "stay" if cap.over == "stay" else cap.counts,
                cap.limit == "fee",
                self._table(f"{name}/cap", cap.rows, self._money),
                number,
            )
            for number, cap in enumerate(fund.caps)
        ]
        return Fund(
            code=fund.code,
            name=fund.name,
            of=fund.of,
            when=_scope(name, fund.when),
            beyond=fund.beyond or ("shared", "own", "stay"),
            parts=fund.parts or (),
            by_year=fund.accumulate == "year",
            deductible=None
            if fund.deductible is None
            else self._table(f"{name}/deductible", fund.deductible, self._money),
            adjust_deductible=self._money_adjustments(
                f"{name}/deductible", fund.adjust_deductible, level="settlement_level"
            ),
            counts_deductible=fund.brackets.count == "in_scope",
            brackets_by_year=fund.brackets.over == "year",
            ratio=self._table(f"{name}/ratio", fund.ratio, self._bracket),
            adjust=tuple(
                self._share_adjustment(f"{name}/adjust{number or ''}", each)
                for number, each in enumerate(fund.adjust)
            ),
            floor=None
            if fund.floor is None
            else Floor(
                _scope(f"{name}/floor", fund.floor.when),
                fund.floor.of == "total",
                self._table(f"{name}/floor", fund.floor.rows, self._share),
            ),
            # Two caps that leave the same room: the narrower one is named first.
            caps=tuple(sorted(caps, key=lambda cap: ("own", "stay", "shared").index(cap.name))),
            counts_fee=fund.brackets.over == "year"
            or any(cap.is_fee and cap.name != "stay" for cap in caps),
            shares_fee=any(cap.is_fee and cap.name == "shared" for cap in caps),
        )

    def _money_table(self, name: str, rows: Sequence[MoneyRow]) -> Table[Money]:
        return self._table(name, rows, self._money, level=_DEDUCTIBLE_LEVEL)

    def _money_adjustments(
        self, name: str, adjustments: Sequence[MoneyAdjustment], level: str = "deductible_level"
    ) -> tuple[Adjustment, ...]:
        return tuple(
            Adjustment(
                _scope(name, each.when, level=level),
                self._table(f"{name}/adjust{number or ''}", each.rows, self._change, level=level),
            )
            for number, each in enumerate(adjustments)
        )

    def _share_adjustment(self, name: str, adjustment: ShareAdjustment) -> Adjustment:
        return Adjustment(
            _scope(name, adjustment.when),
            self._table(name, adjustment.rows, self._change),
            adjustment.barred,
        )

    def _table(
        self,
        name: str,
        rows: Sequence[Any],
        make: Callable[[str, Any], R],
        level: str = "settlement_level",
    ) -> Table[R]:
        made = [(row.conditions, make(name, row)) for row in rows]
        return Table(name, made, level=level)

    def _money(self, name: str, row: MoneyRow) -> Money:
        if row.share is not None:
            value = self._value(name, row, Unit.BASIS_POINTS, row.source, row.clause, row.share)
            return Money(value, row.of, row.at_least or 0)
        return Money(self._value(name, row, Unit.FEN, row.source, row.clause, row.value))

    def _share(self, name: str, row: ShareRow) -> Value:
        return self._value(name, row, Unit.BASIS_POINTS, row.source, row.clause, row.value)

    def _bracket(self, name: str, row: BracketRow) -> Bracket:
        value = self._share(name, row)
        if row.up_to is not None:
            value = value._replace(row=f"{value.row}≤{row.up_to // 100}")
        return Bracket(value, row.up_to)

    def _change(self, name: str, row: MoneyChange | ShareChange) -> Change:
        operation = next(each for each in Operation if each.value in row.model_fields_set)
        if operation is Operation.UNCHANGED:
            value = self._value(name, row, Unit.NONE, row.source, row.clause, 0)
            return Change(value, operation)
        is_fen = isinstance(row, MoneyChange) and operation is not Operation.TIMES
        unit = Unit.FEN if is_fen else Unit.BASIS_POINTS
        amount = getattr(row, operation.value)
        return Change(self._value(name, row, unit, row.source, row.clause, amount), operation)

    def _value(
        self,
        name: str,
        row: Conditions | None,
        unit: Unit,
        source: str,
        clause: str,
        amount: int | None,
    ) -> Value:
        title, provenance = self._sources[source]
        label = name if row is None else f"{name}{_label(row)}"
        return Value(label, amount, unit, f"{title} {clause}", provenance)


_DEDUCTIBLE_LEVEL = "deductible_level"


def _scope(
    name: str, when: Conditions | None, level: str = "settlement_level"
) -> Table[Any] | None:
    if when is None or not when.conditions:
        return None
    return Table(f"{name}/when", [(when.conditions, True)], level=level)


def _label(row: Conditions) -> str:
    """`[levels=three,stays=2-]`: what tells the row from its neighbours."""
    shown = []
    for key, accepted in row.conditions.items():
        if isinstance(accepted, bool):
            text = str(accepted).lower()
        elif facts.DIMENSIONS[key].kind is facts.Kind.SPAN:
            first, last = accepted
            text = f"{first}" if first == last else f"{first}-{last or ''}"
        else:
            text = "|".join(accepted)
        shown.append(f"{key}={text}")
    return f"[{','.join(shown)}]" if shown else ""
