"""What changed between two documents, for whom, in plain Chinese and as data.

Stages, adjustments, caps and rows are matched by what they are (kind, fund, conditions), so that a
row moved to another place is no change; what has no counterpart was added or removed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

from services.policy.domain.document import Document
from services.policy.domain.facts import CARE_TYPES, titles
from services.policy.domain.scopes import Path, whom
from services.policy.domain.wording import value_text
from services.policy.domain.written import (
    Benefit,
    Conditions,
    Diseases,
    Stage,
    WrittenDocument,
)

Kind = Literal["added", "removed", "changed", "moved"]
_BY = {"discharge": "出院日", "admission": "入院日", "settlement": "结算日"}
_YEAR_END = {"whole": "跨年住院整体结算", "split_by_days": "跨年住院按日均费用拆分"}
_PROVENANCE = {"official": "官方原文", "secondary": "转载", "illustrative": "示例"}
_OF = {"remaining": "剩余的符合范围费用", "over_cap": "超过限额的费用", "own": "个人负担的费用"}
_DUE = {"each_stay": "每次收取", "topped_up": "年度内累计补差"}
_COUNT = {"in_scope": "含起付线的符合范围费用", "above_deductible": "起付线以上的费用"}
_OVER = {"stay": "单次", "year": "年度累计"}
_LIMIT = {"payment": "支付限额", "fee": "费用限额"}
_COUNTS = {"shared": "各类待遇合计", "own": "仅本类待遇"}
_OTHERWISE = {"outpatient": "其他病种按普通门诊", "refused": "其他病种不予直接结算"}
_FLOOR = {"total": "医疗费总额", "in_scope": "符合范围费用"}
_PARTS = {
    "ratio_self_pay": "按比例自付",
    "over_cap": "超封顶",
    "deductible": "起付线",
    "remote_first_pay": "转外自理",
    "first_self_pay": "先行自付",
    "full_self_pay": "全自费",
    "over_limit": "超限价",
    "in_scope": "符合范围的个人负担",
    "shared": "合计限额",
    "own": "本类限额",
    "stay": "单次限额",
}


class Difference(NamedTuple):
    """One change from the document before to the one after."""

    kind: Kind
    path: Path
    """Where in the data: of the document after, or of the one before for what was removed."""
    subject: str
    """What it is about, e.g. `普通住院 统筹基金支付比例`."""
    whom: str
    """For whom, e.g. `在职；三级`; empty: everybody."""
    before: str
    """The value before, e.g. `85%`; empty when added."""
    after: str
    """The value after; empty when removed."""

    @property
    def text(self) -> str:
        """One sentence."""
        about = f"{self.subject}（{self.whom}）" if self.whom else self.subject
        if self.kind == "added":
            return f"新增{about}：{self.after}。" if self.after else f"新增{about}。"
        if self.kind == "removed":
            return f"删除{about}：原为{self.before}。" if self.before else f"删除{about}。"
        if self.kind == "moved":
            return f"{about}次序由{self.before}改为{self.after}。"
        return f"{about}由{self.before or '无'}改为{self.after or '无'}。"


def differences(before: Document, after: Document) -> list[Difference]:
    """What changed, in the order of the document after; empty when both say the same."""
    return list(_Comparison(before.written, after.written).all())


class _Comparison:
    """Two documents side by side."""

    def __init__(self, before: WrittenDocument, after: WrittenDocument) -> None:
        self._before = before
        self._after = after

    def all(self) -> Iterator[Difference]:
        old, new = self._before, self._after
        yield from _field(("area",), "统筹区", old.area, new.area)
        yield from _field(("insurance",), "险种", old.insurance, new.insurance)
        yield from _field(("title",), "标题", old.title, new.title)
        yield from _field(
            ("published_on",), "公布日期", old.published_on or "", new.published_on or ""
        )
        span = (old.effective, new.effective)
        yield from _field(("effective", "start"), "生效日期", *(each.start for each in span))
        ends = (each.end or "长期有效" for each in span)
        yield from _field(("effective", "end"), "失效日期", *ends)
        yield from _field(("effective", "by"), "版本选用", *(_BY[each.by] for each in span))
        periods = (old.period, new.period)
        yield from _field(("period", "by"), "年度归属", *(_BY[each.by] for each in periods))
        year_ends = (_YEAR_END[each.year_end] for each in periods)
        yield from _field(("period", "year_end"), "跨年住院", *year_ends)
        yield from _field(("notes",), "说明", " ".join(old.notes), " ".join(new.notes))
        yield from self._sources()
        yield from self._account()
        for name, first, second in _named(old.benefits, new.benefits):
            yield from self._benefit(("benefits", name), first, second)

    def _sources(self) -> Iterator[Difference]:
        for name, first, second in _named(self._before.sources, self._after.sources):
            old, new = (
                ""
                if each is None
                else f"《{each.title}》{_PROVENANCE[each.provenance]}{each.url or ''}"
                for each in (first, second)
            )
            yield from _whole(("sources", name), f"来源{name}", "", old, new)

    def _account(self) -> Iterator[Difference]:
        old, new = self._before.account, self._after.account
        pays = ("" if each is None else _list(each.pays) or "全部个人负担" for each in (old, new))
        yield from _whole(("account",), "个人账户支付范围", "", *pays)
        if old is not None and new is not None:
            yield from self._founded(("account",), "个人账户支付范围", "", old, new)

    def _benefit(
        self, path: Path, old: Benefit | None, new: Benefit | None
    ) -> Iterator[Difference]:
        present = new or old
        assert present is not None
        subject = titles("care_types", present.care_types)
        if old is None or new is None:
            yield from _whole(path, f"{subject}待遇", "", _mark(old), _mark(new))
        if old is not None and new is not None:
            cares = (_cares(each) for each in (old, new))
            yield from _field((*path, "care_types"), f"{subject}医疗类别", *cares)
            flags = ("计入住院次数" if each.counts_stays else "不计住院次数" for each in (old, new))
            yield from _field((*path, "counts_stays"), f"{subject}住院次数", *flags)
            yield from _field(
                (*path, "counter"), f"{subject}单独累计", old.counter or "", new.counter or ""
            )
        if new is None:
            return
        former = None if old is None else old.diseases
        yield from self._diseases((*path, "diseases"), subject, former, new.diseases)
        nothing = (
            "" if each is None or each.no_funds is None else "基金不支付" for each in (old, new)
        )
        yield from _whole((*path, "no_funds"), subject, "", *nothing)
        stages = (each.stages or () if each is not None else () for each in (old, new))
        yield from self._stages((*path, "stages"), subject, *stages)

    def _diseases(
        self, path: Path, subject: str, old: Diseases | None, new: Diseases | None
    ) -> Iterator[Difference]:
        former, latter = (set() if each is None else set(each.covered) for each in (old, new))
        for code in sorted(former | latter):
            kept = ("" if code not in each else "支付" for each in (former, latter))
            yield from _whole((*path, "covered"), f"{subject}病种{code}", "", *kept)
        others = ("" if each is None else _OTHERWISE[each.otherwise] for each in (old, new))
        yield from _whole((*path, "otherwise"), f"{subject}未列病种", "", *others)

    def _stages(
        self, path: Path, subject: str, old: Sequence[Stage], new: Sequence[Stage]
    ) -> Iterator[Difference]:
        pairs = _matched(old, new, _exact, _similar)
        yield from _moved(path, subject, pairs, old, new, lambda stage: _stage_name(stage))
        for first, second in pairs:
            stage = new[second] if second is not None else old[first or 0]
            number = second if second is not None else first
            kind, body = _body(stage)
            here: Path = (*path, number or 0, kind)
            name = f"{subject}{_stage_name(stage)}"
            former = None if first is None else _body(old[first])[1]
            latter = None if second is None else body
            if former is None or latter is None:
                told = whom(_conditions(body.when))
                yield from _whole(here, f"{name}一步", told, _mark(former), _mark(latter))
            if latter is not None:
                yield from self._body(here, name, former, latter)

    def _body(self, path: Path, name: str, old: Any, new: Any) -> Iterator[Difference]:
        if old is not None:
            for key, subject, told in _FIELDS:
                if key in type(new).model_fields:
                    values = (told(getattr(each, key)) for each in (old, new))
                    yield from _field((*path, key), f"{name}{subject}", *values)
        for key, subject in _TABLES:
            if key in type(new).model_fields:
                former = getattr(old, key, None) or ()
                yield from self._rows((*path, key), name + subject, former, getattr(new, key) or ())
        for key, subject in (("adjust_deductible", "起付标准"), ("adjust", "")):
            if key in type(new).model_fields:
                former = getattr(old, key, None) or ()
                yield from self._adjustments(
                    (*path, key), f"{name}{subject}", former, getattr(new, key)
                )
        if "floor" in type(new).model_fields:
            yield from self._floor((*path, "floor"), name, old and old.floor, new.floor)
        if "caps" in type(new).model_fields:
            former = () if old is None else old.caps
            for first, second in _matched(former, new.caps, _cap):
                cap = new.caps[second] if second is not None else former[first or 0]
                counted = f"（{_COUNTS[cap.counts]}）" if cap.over == "year" else ""
                title = f"{name}{_OVER[cap.over]}{_LIMIT[cap.limit]}{counted}"
                number = second if second is not None else first or 0
                rows = () if first is None else former[first].rows
                later = () if second is None else new.caps[second].rows
                yield from self._rows((*path, "caps", number, "rows"), title, rows, later)

    def _floor(self, path: Path, name: str, old: Any, new: Any) -> Iterator[Difference]:
        if old is not None and new is not None:
            bases = (_FLOOR[each.of] for each in (old, new))
            yield from _field((*path, "of"), f"{name}保底的基数", *bases)
            whens = (_scope(each.when) for each in (old, new))
            yield from _field((*path, "when"), f"{name}保底适用范围", *whens)
        rows = (() if each is None else each.rows for each in (old, new))
        yield from self._rows((*path, "rows"), f"{name}保底", *rows)

    def _adjustments(
        self, path: Path, name: str, old: Sequence[Any], new: Sequence[Any]
    ) -> Iterator[Difference]:
        pairs = _matched(old, new, _adjustment, lambda each: len(each.rows))
        yield from _moved(path, f"{name}调整", pairs, old, new, lambda each: _scope(each.when))
        for first, second in pairs:
            each = new[second] if second is not None else old[first or 0]
            number = second if second is not None else first or 0
            here: Path = (*path, number)
            scope = whom(_conditions(each.when))
            subject = f"{name}调整" + (f"（限{scope}）" if scope else "")
            if first is not None and second is not None:
                whens = (_scope(one.when) for one in (old[first], each))
                yield from _field((*here, "when"), f"{name}调整适用范围", *whens)
                if hasattr(each, "barred"):
                    marks = (_barred(one.barred) for one in (old[first], each))
                    yield from _field((*here, "barred"), subject, *marks)
            rows = () if first is None else old[first].rows
            later = () if second is None else each.rows
            yield from self._rows((*here, "rows"), subject, rows, later)

    def _rows(
        self, path: Path, subject: str, old: Sequence[Any], new: Sequence[Any]
    ) -> Iterator[Difference]:
        for first, second in _matched(old, new, _row, lambda row: str(row.conditions)):
            row = new[second] if second is not None else old[first or 0]
            number = second if second is not None else first or 0
            here: Path = (*path, number)
            former = "" if first is None else value_text(old[first])
            latter = "" if second is None else value_text(new[second])
            people = whom(row.conditions)
            yield from _whole(here, subject, people, former, latter)
            if first is not None and second is not None:
                yield from self._founded(here, subject, people, old[first], row)

    def _founded(
        self, path: Path, subject: str, people: str, old: Any, new: Any
    ) -> Iterator[Difference]:
        """Another clause or another source; a source that changed itself is told once."""
        known = (self._before.sources[old.source].title, self._after.sources[new.source].title)
        if old.source == new.source or known[0] == known[1]:
            told = (old.clause, new.clause)
        else:
            told = (f"《{known[0]}》{old.clause}", f"《{known[1]}》{new.clause}")
        yield from _field(path, f"{subject}的依据", *told, people)


def _field(
    path: Path, subject: str, before: str, after: str, people: str = ""
) -> Iterator[Difference]:
    """A property that both have."""
    if before != after:
        yield Difference("changed", path, subject, people, before, after)


def _whole(path: Path, subject: str, people: str, before: str, after: str) -> Iterator[Difference]:
    """A part that one of the two may lack (empty)."""
    if before != after:
        kind: Kind = "changed" if before and after else "added" if after else "removed"
        shown = ("" if each == _PRESENT else each for each in (before, after))
        yield Difference(kind, path, subject, people, *shown)


_PRESENT = "有"


def _mark(part: object) -> str:
    return "" if part is None else _PRESENT


def _named(before: dict[str, Any], after: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for name in (*after, *(name for name in before if name not in after)):
        yield name, before.get(name), after.get(name)


Pair = tuple[int | None, int | None]


def _matched(old: Sequence[Any], new: Sequence[Any], *keys: Callable[[Any], object]) -> list[Pair]:
    """Numbers of what belongs together, in the order of `new`, then what was removed.

    The first key matches first; what it leaves is matched by the next one.
    """
    partners: dict[int, int] = {}
    left = list(range(len(old)))
    for key in keys:
        for second, item in enumerate(new):
            if second in partners:
                continue
            wanted = key(item)
            first = next((each for each in left if key(old[each]) == wanted), None)
            if first is not None:
                partners[second] = first
                left.remove(first)
    pairs: list[Pair] = [(partners.get(second), second) for second in range(len(new))]
    return pairs + [(first, None) for first in left]


def _moved(
    path: Path,
    subject: str,
    pairs: Sequence[Pair],
    old: Sequence[Any],
    new: Sequence[Any],
    name: Callable[[Any], str],
) -> Iterator[Difference]:
    """Whether what both have stands in another order."""
    kept = [(first, second) for first, second in pairs if None not in (first, second)]
    order = [first for first, _ in kept if first is not None]
    if order != sorted(order):
        before = "→".join(name(old[first]) for first in sorted(order))
        after = "→".join(name(new[second]) for _, second in kept if second is not None)
        yield Difference("moved", path, subject, "", before, after)


def _body(stage: Stage) -> tuple[str, Any]:
    key = next(key for key in ("first_pay", "deductible", "fund") if getattr(stage, key))
    return key, getattr(stage, key)


def _exact(stage: Stage) -> object:
    return *_similar(stage), str(_conditions(_body(stage)[1].when))


def _similar(stage: Stage) -> tuple[object, ...]:
    kind, body = _body(stage)
    return (kind,) if stage.fund is None else (kind, body.code, body.of)


def _adjustment(each: Any) -> object:
    return str(_conditions(each.when)), [_row(row) for row in each.rows]


def _cap(cap: Any) -> object:
    return cap.limit, cap.over, cap.counts


def _row(row: Any) -> object:
    return str(row.conditions), getattr(row, "up_to", None)


def _conditions(when: Conditions | None) -> dict[str, Any]:
    return {} if when is None else when.conditions


def _scope(when: Conditions | None) -> str:
    return whom(_conditions(when)) or "所有就诊"


def _stage_name(stage: Stage) -> str:
    if stage.fund is not None:
        return stage.fund.name
    return "先行自付" if stage.first_pay is not None else "起付线"


def _cares(benefit: Benefit) -> str:
    return "、".join(CARE_TYPES[each] for each in benefit.care_types)


def _list(names: Sequence[str] | None) -> str:
    return "、".join(_PARTS[name] for name in names or ())


def _barred(barred: bool) -> str:
    return "不计入二次报销" if barred else "计入二次报销"


_FIELDS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("when", "适用范围", _scope),
    ("barred", "", _barred),
    ("due", "收取方式", lambda due: _DUE[due]),
    ("name", "名称", str),
    ("of", "支付对象", lambda of: _OF[of]),
    ("beyond", "接续的限额", lambda names: _list(names) or "全部限额"),
    ("parts", "计入的个人负担", _list),
    ("accumulate", "计算方式", lambda over: _OVER[over]),
    ("brackets", "分段", lambda each: f"{_OVER[each.over]}{_COUNT[each.count]}"),
)
_TABLES = (
    ("rows", ""),
    ("year_cap", "年度合计上限"),
    ("deductible", "起付标准"),
    ("ratio", "支付比例"),
)
