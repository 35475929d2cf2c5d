"""A policy document as it is written: the types behind the JSON Schema for editors.

Every table is a list of rows; a row names the facts for which it holds, its value with its unit,
and the source and clause that state it. See docs/policy.md for the meaning with examples.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)

from services.policy.domain import facts, units


def _or_not_stated(text: object, read: Any) -> object:
    return None if text == units.NOT_STATED else read(text)


def _quantity(read: Any, pattern: str, example: str) -> tuple[Any, ...]:
    schema = {"type": "string", "pattern": pattern, "examples": [example]}
    return (BeforeValidator(read), WithJsonSchema(schema))


def _stated(read: Any, pattern: str, example: str, *words: str) -> tuple[Any, ...]:
    schema = {
        "anyOf": [
            {"type": "string", "pattern": pattern, "examples": [example]},
            *({"const": word} for word in (*words, units.NOT_STATED)),
        ]
    }
    return (BeforeValidator(lambda text: _or_not_stated(text, read)), WithJsonSchema(schema))


_MONEY = _quantity(units.fen, units.MONEY_PATTERN, "1300元")
_SHARE = _quantity(units.basis_points, units.SHARE_PATTERN, "85%")
Fen = Annotated[int, *_MONEY]
"""`1300元`, `2.5万元`."""
Share = Annotated[int, *_SHARE]
"""`85%`."""
Points = Annotated[int, *_quantity(units.points, units.POINTS_PATTERN, "10个百分点")]
"""`10个百分点`."""
FenOrNotStated = Annotated[int | None, *_stated(units.fen, units.MONEY_PATTERN, "1300元")]
Limit = Annotated[int | None, *_stated(units.limit, units.MONEY_PATTERN, "30万元", units.UNLIMITED)]
"""`30万元`, `unlimited` (不封顶) or `not_stated`."""
ShareOrNotStated = Annotated[int | None, *_stated(units.basis_points, units.SHARE_PATTERN, "85%")]
Span = Annotated[
    tuple[int, int | None],
    BeforeValidator(units.span),
    WithJsonSchema(
        {"type": "string", "pattern": r"^\d+(-(\d+)?)?$", "examples": ["2", "50-59", "3-"]}
    ),
]
"""`"2"`, `"50-59"`, `"3-"`."""
Day = Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$", examples=["2024-01-01"])]
Text = Annotated[str, Field(min_length=1, max_length=500)]
Code = Annotated[str, Field(pattern=r"^([A-Z]\d{5}|other)$", examples=["M03900", "other"])]
CoveredCode = Annotated[str, Field(pattern=r"^[A-Z]\d{5}$", examples=["M03900"])]
Place = Annotated[str, Field(pattern=r"^(\d{2}|\d{4}|\d{6}|other)$", examples=["51", "other"])]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z_]{0,11}$")]


def _choice(known: Any) -> Any:
    return Literal[tuple(known)]


Route: Any = _choice(facts.ROUTES)
BenefitClass: Any = _choice(facts.BENEFIT_CLASSES)
CareType: Any = _choice(facts.CARE_TYPES)
Person: Any = _choice(facts.PERSON_CLASSES)
Level: Any = _choice(facts.LEVELS)
Grade: Any = _choice(facts.GRADES)
InstitutionKind: Any = _choice(facts.KINDS)
Aid: Any = _choice(facts.AIDS)


class Written(BaseModel):
    """Strict: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Conditions(Written):
    """The facts for which something holds; what is left out does not matter."""

    care_types: tuple[CareType, ...] | None = Field(None, min_length=1, description="医疗类别")
    routes: tuple[Route, ...] | None = Field(None, min_length=1, description="就医路径")
    classes: tuple[BenefitClass, ...] | None = Field(None, min_length=1, description="待遇类别")
    persons: tuple[Person, ...] | None = Field(None, min_length=1, description="人员类别")
    levels: tuple[Level, ...] | None = Field(None, min_length=1, description="机构级别")
    grades: tuple[Grade, ...] | None = Field(None, min_length=1, description="医院等级")
    kinds: tuple[InstitutionKind, ...] | None = Field(None, min_length=1, description="机构类别")
    aids: tuple[Aid, ...] | None = Field(None, min_length=1, description="救助类别")
    ages: Span | None = Field(None, description="周岁")
    stays: Span | None = Field(None, description="年度内第几次住院")
    temporaries: Span | None = Field(None, description="年度内第几次临时外出就医")
    civil_servant: bool | None = Field(None, description="公务员")
    settled_directly: bool | None = Field(None, description="是否直接结算")
    late_filing: bool | None = Field(None, description="是否补办备案")
    unfiled: bool | None = Field(None, description="是否未备案（回参保地手工报销）")
    diseases: tuple[Code, ...] | None = Field(
        None, min_length=1, description="病种编码；other 为本表其他行未列的病种"
    )
    places: tuple[Place, ...] | None = Field(
        None, min_length=1, description="就医地区划前缀；other 为本表其他行未列的地方"
    )

    @property
    def conditions(self) -> dict[str, Any]:
        """What is named."""
        return {key: value for key in facts.DIMENSIONS if (value := getattr(self, key)) is not None}


class Founded(Written):
    """Which source states it, and where in it."""

    source: Text = Field(description="`sources` 中的名称")
    clause: Text = Field(description="条款及其内容")


class FoundedRow(Conditions):
    """A row with its source."""

    source: Text = Field(description="`sources` 中的名称")
    clause: Text = Field(description="条款及其内容")


class MoneyRow(FoundedRow):
    """An amount, or a share of the bill with a least amount."""

    value: FenOrNotStated | None = None
    share: Share | None = Field(None, description="按 of 的百分之几计，代替 value")
    of: Literal["total", "in_scope"] | None = None
    at_least: Fen | None = Field(None, description="按比例计时的最低额")

    @model_validator(mode="after")
    def _one_value(self) -> MoneyRow:
        by_share = self.share is not None
        if by_share == ("value" in self.model_fields_set):
            raise ValueError(
                "needs either `value` (e.g. 1300元 or not_stated) or `share` with `of`"
            )
        if by_share != (self.of is not None) or (self.at_least is not None and not by_share):
            raise ValueError("`share` and `of` go together; `at_least` goes with them")
        return self


class CapRow(MoneyRow):
    """A limit, which may be `unlimited` (不封顶)."""

    value: Limit | None = None


class ShareRow(FoundedRow):
    """A share."""

    value: ShareOrNotStated


class BracketRow(ShareRow):
    """The share up to a bound; the row without one is the last bracket."""

    up_to: Fen | None = None


class MoneyChange(FoundedRow):
    """How an amount is changed: exactly one of the keys."""

    value: Literal["unchanged"] | None = None
    set: FenOrNotStated | None = None
    minus: Fen | None = None
    plus: Fen | None = None
    times: Share | None = None
    at_least: Fen | None = None
    at_most: Fen | None = None

    @model_validator(mode="after")
    def _one(self) -> MoneyChange:
        _exactly_one(self, ("value", "set", "minus", "plus", "times", "at_least", "at_most"))
        return self


class ShareChange(FoundedRow):
    """How a share is changed: exactly one of the keys. `own_times` multiplies the patient's side
    (retired: 60 % of the own share of the employed)."""

    value: Literal["unchanged"] | None = None
    set: ShareOrNotStated | None = None
    minus: Points | None = None
    plus: Points | None = None
    times: Share | None = None
    own_times: Share | None = None
    at_least: Share | None = None
    at_most: Share | None = None

    @model_validator(mode="after")
    def _one(self) -> ShareChange:
        _exactly_one(
            self,
            ("value", "set", "minus", "plus", "times", "own_times", "at_least", "at_most"),
        )
        return self


def _exactly_one(row: Written, keys: tuple[str, ...]) -> None:
    named = [key for key in keys if key in row.model_fields_set]
    if len(named) != 1:
        raise ValueError(
            f"needs exactly one of {', '.join(keys)}; has {', '.join(named) or 'none'}"
        )


class MoneyAdjustment(Written):
    """A change of an amount, for the visits that `when` names (all, if left out)."""

    when: Conditions | None = None
    rows: tuple[MoneyChange, ...] = Field(min_length=1)


class ShareAdjustment(Written):
    """A change of a share, for the visits that `when` names."""

    when: Conditions | None = None
    barred: bool = Field(False, description="降低的部分不计入大病等二次报销的合规费用")
    rows: tuple[ShareChange, ...] = Field(min_length=1)


class FirstPay(Written):
    """先行自付: the patient first pays a share of what is left, where it stands in the order."""

    when: Conditions | None = None
    barred: bool = Field(False, description="不计入大病等二次报销的合规费用")
    rows: tuple[ShareRow, ...] = Field(min_length=1)


class Deductible(Written):
    """起付线. `each_stay` is due at every visit; `topped_up` once in a period: the standard of the
    visit less what has been paid already (累计补差, also "the highest level once a year")."""

    due: Literal["each_stay", "topped_up"]
    when: Conditions | None = None
    rows: tuple[MoneyRow, ...] = Field(min_length=1)
    adjust: tuple[MoneyAdjustment, ...] = ()
    year_cap: tuple[MoneyRow, ...] | None = Field(
        None, min_length=1, description="年度内起付线合计的上限"
    )


class Brackets(Written):
    """What the bounds of brackets count."""

    count: Literal["in_scope", "above_deductible"] = Field(
        "in_scope", description="含起付线的符合范围费用，或起付线以上的费用"
    )
    over: Literal["stay", "year"] = Field("stay", description="单次，或年度累计")


class Cap(Written):
    """A limit of one fund. `payment` limits what it pays, `fee` the cost it pays a share of."""

    limit: Literal["payment", "fee"] = "payment"
    over: Literal["stay", "year"] = "year"
    counts: Literal["shared", "own"] = Field(
        "shared", description="年度内各类待遇合计，或仅本类待遇（counter）"
    )
    rows: tuple[CapRow, ...] = Field(min_length=1)


class Floor(Written):
    """保底: the fund pays at least this share of the bill less the deductible, as far as its caps
    and the cost in scope allow."""

    of: Literal["total", "in_scope"]
    when: Conditions | None = None
    rows: tuple[ShareRow, ...] = Field(min_length=1)


class Fund(Written):
    """One fund's share. `remaining` pays what first pays and deductible left over, `over_cap` what
    lies beyond the caps of the funds before it, `own` what the patient is left with (二次报销)."""

    code: Literal[
        "hifp_pay", "hifob_pay", "hifmi_pay", "hifes_pay", "cvlserv_pay", "maf_pay", "oth_pay"
    ] = Field(description="国家接口基金代码")
    name: Text = Field(description="对人说的名称，例如 统筹基金")
    of: Literal["remaining", "over_cap", "own"]
    when: Conditions | None = None
    beyond: tuple[Literal["shared", "own", "stay"], ...] | None = Field(
        None, description="of: over_cap 时只接续这些限额以上的费用"
    )
    parts: (
        tuple[
            Literal[
                "ratio_self_pay", "over_cap", "deductible", "remote_first_pay", "first_self_pay"
            ],
            ...,
        ]
        | None
    ) = Field(None, min_length=1, description="of: own 时计入的个人负担")
    accumulate: Literal["stay", "year"] = Field(
        "stay", description="of: own 时按次，或年度累计计算（大病保险）"
    )
    deductible: tuple[MoneyRow, ...] | None = Field(
        None, min_length=1, description="本基金起付标准"
    )
    adjust_deductible: tuple[MoneyAdjustment, ...] = ()
    brackets: Brackets = Brackets()
    ratio: tuple[BracketRow, ...] = Field(min_length=1)
    adjust: tuple[ShareAdjustment, ...] = ()
    floor: Floor | None = Field(None, description="保底")
    caps: tuple[Cap, ...] = ()

    @model_validator(mode="after")
    def _fits(self) -> Fund:
        own = self.of == "own"
        if own != (self.parts is not None):
            raise ValueError("`of: own` needs `parts`, and only it")
        if not own and (self.accumulate == "year" or self.deductible is not None):
            raise ValueError("`accumulate: year` and `deductible` go with `of: own`")
        if self.beyond is not None and self.of != "over_cap":
            raise ValueError("`beyond` goes with `of: over_cap`")
        if self.brackets.over == "year" and own:
            raise ValueError("`of: own` accumulates by `accumulate: year`, not by `brackets.over`")
        if self.floor is not None and self.of != "remaining":
            raise ValueError("`floor` goes with `of: remaining`")
        if self.of != "remaining" and any(
            cap.limit == "fee" and cap.over == "year" for cap in self.caps
        ):
            raise ValueError(
                "a yearly limit of the fee goes with `of: remaining`: limit the payment instead"
            )
        if self.adjust_deductible and self.deductible is None:
            raise ValueError("`adjust_deductible` needs `deductible`")
        if len({(cap.limit, cap.over, cap.counts) for cap in self.caps}) < len(self.caps):
            raise ValueError("two caps of the same kind: put their rows into one")
        if self.code in _WITHOUT_ACCUMULATOR and any(cap.over == "year" for cap in self.caps):
            raise ValueError(f"what {self.code} pays in a year is not accumulated: cap each stay")
        return self


_WITHOUT_ACCUMULATOR = ("hifes_pay", "cvlserv_pay", "oth_pay")
_MAIN_BASE = ("hifmi_pay", "hifob_pay")
"""Funds whose own costs of the year are the one 大病 base; the others keep their own."""
_TAKEN = ("temporary", "hifp", "hifob", "hifmi", "hifes", "cvlserv", "maf", "oth")
"""Names of accumulators that the computation keeps itself."""


class Stage(Written):
    """One stage: exactly one of the keys. The order of the list is the order of the computation."""

    first_pay: FirstPay | None = None
    deductible: Deductible | None = None
    fund: Fund | None = None

    @model_validator(mode="after")
    def _one(self) -> Stage:
        _exactly_one(self, ("first_pay", "deductible", "fund"))
        return self


class Diseases(Founded):
    """门诊慢特病: which diseases this benefit pays, and what becomes of the others."""

    covered: tuple[CoveredCode, ...] = Field(min_length=1)
    otherwise: Literal["outpatient", "refused"]


class Benefit(Written):
    """How one group of care types is paid."""

    care_types: tuple[CareType, ...] = Field(min_length=1)
    counter: Name | None = Field(None, description="本类待遇单独累计起付线和限额时的名称")
    counts_stays: bool = False
    diseases: Diseases | None = None
    no_funds: Founded | None = Field(None, description="基金不支付")
    stages: tuple[Stage, ...] | None = Field(None, min_length=1)

    @model_validator(mode="after")
    def _fits(self) -> Benefit:
        if (self.no_funds is None) == (self.stages is None):
            raise ValueError("needs either `stages` or `no_funds`")
        funds = [stage.fund for stage in self.stages or () if stage.fund is not None]
        if self.stages is not None and not funds:
            raise ValueError("no stage is a fund: write `no_funds` when no fund pays")
        if self.stages is not None and sum(fund.of == "remaining" for fund in funds) != 1:
            raise ValueError("exactly one fund pays what remains (`of: remaining`)")
        by_year = [
            fund
            for fund in funds
            if fund.accumulate == "year" and fund.when is None and fund.code in _MAIN_BASE
        ]
        if len(by_year) > 1:
            raise ValueError("two funds count the same own costs of the year: bound them by `when`")
        if self.counter in _TAKEN:
            raise ValueError(f"`counter: {self.counter}` is taken: choose another name")
        if self.counter is None and any(cap.counts == "own" for fund in funds for cap in fund.caps):
            raise ValueError("a cap that counts `own` needs a `counter`: name it")
        seen_fund = False
        for stage in self.stages or ():
            if stage.fund is not None:
                seen_fund = True
            elif seen_fund:
                raise ValueError("first pays and deductibles come before the funds")
        return self


class Account(Founded):
    """个人账户: what it may pay; all of the personal side when `pays` is left out."""

    pays: (
        tuple[Literal["full_self_pay", "over_limit", "first_self_pay", "in_scope"], ...] | None
    ) = Field(None, min_length=1)


class Source(Written):
    """Where values come from."""

    title: Text
    url: str | None = None
    provenance: Literal["official", "secondary", "illustrative"] = Field(
        description="official 读过原文；secondary 转载；illustrative 示例，非当地规定"
    )


class Effective(Written):
    """From when to when the document holds, and by which day of a visit."""

    start: Day
    end: Day | None = None
    by: Literal["discharge", "admission", "settlement"] = Field(
        "discharge", description="以出院日、入院日还是结算日选用版本"
    )


class Period(Written):
    """The benefit period: the calendar year of a day."""

    by: Literal["settlement", "discharge"] = "settlement"
    year_end: Literal["whole", "split_by_days"] = Field(
        "whole", description="跨年住院：整体结算，或按日均费用乘各年天数拆分"
    )


class WrittenDocument(Written):
    """One pooling area's policy for one insurance type over one effective period."""

    area: str = Field(pattern=r"^\d{6}$", description="统筹区区划代码")
    insurance: Literal["employee", "resident"]
    version: str = Field(pattern=r"^[0-9A-Za-z][0-9A-Za-z.\-]{0,39}$")
    title: Text
    published_on: Day | None = Field(None, description="文件公布日期，与生效日期不同")
    effective: Effective
    period: Period = Period()
    notes: tuple[Text, ...] = Field((), description="读法与取舍，给人看")
    sources: dict[Name, Source] = Field(min_length=1)
    account: Account | None = None
    benefits: dict[Name, Benefit] = Field(min_length=1)
