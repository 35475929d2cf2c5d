"""A settlement as people read it: line split, route with hop times, the benefit as a waterfall."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from google.protobuf.descriptor import EnumDescriptor
from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from infra.cli.terminal import DIM, yuan
from infra.runtime.types import chinese, short_name
from yidi.common.v1 import amounts_pb2, types_pb2, visit_pb2
from yidi.filing.v1 import filing_pb2
from yidi.gateway.v1 import gateway_pb2
from yidi.policy.v1 import policy_pb2

FUNDS = {
    "hifp_pay": "统筹基金 pooled fund",
    "hifob_pay": "职工大额 large amount",
    "hifmi_pay": "居民大病 major illness",
    "cvlserv_pay": "公务员补助 civil servant",
    "maf_pay": "医疗救助 assistance",
}
_MARKS = {
    types_pb2.PROVENANCE_OFFICIAL: ("官方", "green"),
    types_pb2.PROVENANCE_SECONDARY: ("转载", "yellow"),
    types_pb2.PROVENANCE_ILLUSTRATIVE: ("示例", "magenta"),
}
LEGEND = Text.assemble(
    ("依据的来源 provenance of each value\n", DIM),
    ("  官方", "green"), ("  official: read in the text itself\n", DIM),
    ("  转载", "yellow"), ("  secondary: read in a repost\n", DIM),
    ("  示例", "magenta"), ("  illustrative: a sample value without a source", DIM),
)  # fmt: skip
_NO_FUNDS, _CAP = "no_funds", "cap"
_CAP_ROW = re.compile(r"^[^/]+/[^/]+/cap")
"""Rows of a fund's limits: they explain what is over the cap."""


@dataclass(frozen=True, slots=True)
class Places:
    """Names of the two ends of a visit."""

    care_site: str
    insured_site: str


def heading(result: gateway_pb2.SettlementResult) -> RenderableType:
    """Route, basis and benefit class, and the rule that decided them."""
    entitled = result.entitlement
    line = Text.assemble(
        _pair(types_pb2.Route.DESCRIPTOR, result.route),
        "  ·  ",
        _pair(types_pb2.FilingBasis.DESCRIPTOR, entitled.basis),
        "  ·  ",
        _pair(types_pb2.BenefitClass.DESCRIPTOR, entitled.benefit_class),
    )
    if entitled.late_filing:
        line.append("  ·  补办备案 late filing", style="yellow")
    return Group(line, _rule(entitled))


def lines_table(result: gateway_pb2.SettlementResult) -> RenderableType:
    """Every line of the bill, its total and the list that split it."""
    table = split_lines(result.lines)
    _add_total(table, result.amounts, 2)
    note = f"就医地目录 catalogue {result.catalogue_version}"
    if result.categories:
        note += "；住院按大类费用上传 it travels as national fee categories"
    return Group(table, Text(note, style=DIM))


def split_lines(lines: Iterable[visit_pb2.LineSplit]) -> Table:
    """Lines split by the care place's list; the reason of what is not wholly in scope."""
    table = _split_table("项目 item", "类")
    for line in lines:
        name = Text(line.name)
        if line.reason and line.in_scope_fen != line.amount_fen:
            name.append(f"\n{line.reason}", style=DIM)
        table.add_row(name, Text(_class(line.catalog_class), style=DIM), *_parts(line))
    return table


def findings_lines(findings: Iterable[visit_pb2.AuditFinding]) -> list[Text]:
    """What the fee audit at the door found, a line for each."""
    return [
        Text(
            f"{chinese(types_pb2.AuditAction.DESCRIPTOR, found.action)} {found.rule}"
            f"（明细 {'、'.join(found.line_ids)}）：{found.message}",
            style="yellow",
        )
        for found in findings
    ]


def categories_table(result: gateway_pb2.SettlementResult) -> RenderableType:
    """An inpatient bill as it travels: national fee categories (大类费用)."""
    table = _split_table("大类费用 fee category")
    for category in result.categories:
        name = chinese(types_pb2.FeeCategory.DESCRIPTOR, category.fee_category)
        table.add_row(name, *_parts(category))
    _add_total(table, result.amounts, 1)
    return table


def route_table(result: gateway_pb2.SettlementResult, places: Places) -> RenderableType:
    """The way of the settlement, hop by hop, each with its own time in milliseconds."""
    times = {hop.hop: hop.duration_us / 1000 for hop in result.hops}
    columns: list[tuple[str, str, tuple[types_pb2.Hop.ValueType, ...]]] = [
        (f"{places.care_site} 就医地", "care", (types_pb2.HOP_CATALOG, types_pb2.HOP_CARE_OPEN)),
        ("国家", "nation", (types_pb2.HOP_NATION,)),
        (
            f"{places.insured_site} 参保地",
            "insured",
            (
                types_pb2.HOP_INSURED,
                types_pb2.HOP_ENROLLMENT,
                types_pb2.HOP_FILING,
                types_pb2.HOP_POLICY,
                types_pb2.HOP_DECIDE,
            ),
        ),
        (f"{places.care_site} 就医地", "care", (types_pb2.HOP_CARE_CLOSE,)),
        ("机构", "answered", (types_pb2.HOP_TOTAL,)),
    ]
    shown = [column for column in columns if any(hop in times for hop in column[2])]
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False)
    first: list[RenderableType] = []
    cells: list[RenderableType] = []
    for number, (name, english, hops) in enumerate(shown):
        table.add_column()
        arrow = "" if number == 0 else "> "
        first.append(Text.assemble((arrow, DIM), (name, "bold cyan"), "\n", (english, DIM)))
        cell = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, show_header=False)
        cell.add_column(no_wrap=True, style=DIM)
        cell.add_column(justify="right", no_wrap=True)
        for hop in hops:
            if hop in times:
                cell.add_row(chinese(types_pb2.Hop.DESCRIPTOR, hop), f"{times[hop]:.1f}")
        cells.append(cell)
    table.add_row(*first)
    table.add_row(*cells)
    return Group(table, Text("各环节自身用时，毫秒 each hop's own time, ms", style=DIM))


def waterfall(result: gateway_pb2.SettlementResult) -> RenderableType:
    """From the total to what is left to pay, with the step and the clause behind each amount."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold", ratio=1)
    for label, fen, why, style in _rows(result):
        amount = Text(yuan(fen), style=style if fen else DIM)
        table.add_row(Text(label, style=style if fen else DIM), amount, why)
    return table


def payment(result: gateway_pb2.SettlementResult) -> RenderableType:
    """Who pays: the funds, and what is left to the patient."""
    a = result.amounts
    patient = a.account_fen + a.cash_fen
    line = Text.assemble(
        ("患者付 patient pays ", "bold"), (f"{yuan(patient)} 元", "bold yellow"),
        f"  =  个人账户 account {yuan(a.account_fen)} + 现金 cash {yuan(a.cash_fen)}",
    )  # fmt: skip
    share = f"{a.fund_total_fen * 100 / a.total_fen:.0f} %" if a.total_fen else "0 %"
    others = Text.assemble(
        ("基金付 funds pay ", "bold"), (f"{yuan(a.fund_total_fen)} 元", "bold green"),
        f"  ({share} of the total)",
    )  # fmt: skip
    if a.hospital_fen:
        others.append(f"  ·  医院负担 hospital {yuan(a.hospital_fen)}")
    return Group(line, others, _policy(result))


def explained(
    result: gateway_pb2.SettlementResult, places: Places, *, by_category: bool = False
) -> RenderableType:
    """Everything about one settlement or quote; `by_category` shows categories for the lines."""
    split = categories_table(result) if by_category else lines_table(result)
    parts: list[RenderableType] = [
        heading(result),
        _title("费用分割", "fee split by the care place"),
        split,
        *_audit(result),
        _title("路径", "route"),
        route_table(result, places),
        _title("待遇", "benefit"),
        waterfall(result),
        "",
        payment(result),
    ]
    return Group(*parts)


def _audit(result: gateway_pb2.SettlementResult) -> list[RenderableType]:
    if not result.findings:
        return []
    return [_title("智能审核", "fee audit at the door"), *findings_lines(result.findings)]


def _title(zh: str, english: str) -> RenderableType:
    return Padding(Text.assemble((zh, "bold"), (f" {english}", DIM)), (1, 0, 0, 0))


def _rows(
    result: gateway_pb2.SettlementResult,
) -> Iterator[tuple[str, int, RenderableType, str]]:
    a = result.amounts
    steps: dict[str, list[policy_pb2.Step]] = {}
    for step in result.steps:
        stage = _CAP if _CAP_ROW.search(step.row) else step.stage
        steps.setdefault(stage, []).append(step)
    catalogue = Text("就医地目录 the care place's catalogue", style=DIM)
    yield "医疗费总额 total", a.total_fen, "", "bold"
    yield "－全自费 not covered", a.full_self_pay_fen, catalogue, ""
    yield "－超限价 over limit", a.over_limit_fen, catalogue, ""
    yield "－先行自付 item first pay", a.first_self_pay_fen, catalogue, ""
    yield "＝符合范围 in scope", a.in_scope_fen, "", "bold"
    yield "－转外自理 remote", a.remote_first_pay_fen, _why(steps, "remote_first_pay"), ""
    yield "－起付线 deductible", a.deductible_fen, _why(steps, "deductible"), ""
    yield from _fund_rows(result.funds, steps)
    yield "－按比例自付 own share", a.ratio_self_pay_fen, Text("其余部分 the rest", style=DIM), ""
    yield "－超封顶 over the cap", a.over_cap_fen, _why(steps, _CAP), ""
    if a.account_fen:
        yield "个人账户 account", a.account_fen, _why(steps, "personal_account"), ""


def _fund_rows(
    funds: Sequence[amounts_pb2.FundPayment], steps: Mapping[str, list[policy_pb2.Step]]
) -> Iterator[tuple[str, int, RenderableType, str]]:
    paid = {fund.code: fund.fen for fund in funds}
    if _NO_FUNDS in steps:
        yield "－基金 funds", 0, _why(steps, _NO_FUNDS), "green"
    for code in dict.fromkeys([*(stage for stage in steps if stage in FUNDS), *paid]):
        yield f"－{FUNDS.get(code, f'其他 {code}')}", paid.get(code, 0), _why(steps, code), "green"


def _why(steps: Mapping[str, list[policy_pb2.Step]], stage: str) -> RenderableType:
    return _reasons(steps.get(stage, []))


def _reasons(steps: Sequence[policy_pb2.Step]) -> RenderableType:
    text = Text()
    for step in steps:
        if text:
            text.append("\n")
        mark, style = _MARKS.get(step.provenance, ("未知", "red"))
        text.append(step.text).append(" ").append(mark, style=style)
        # The title of a sample's source says no more than its mark.
        text.append(f" {step.clause.removeprefix('示例数值 ')}", style=DIM)
    return text


def _policy(result: gateway_pb2.SettlementResult) -> Text:
    policy = result.policy
    mark, style = _MARKS.get(policy.provenance, ("未知", "red"))
    text = Text(f"参保地政策 policy {policy.area} {policy.version} ", style=DIM)
    text.append(f"sha256 {policy.hash.hex()[:12]}… ", style=DIM)
    return text.append(mark, style=style).append(
        f" {short_name(types_pb2.Provenance.DESCRIPTOR, policy.provenance)}", style=DIM
    )


def _rule(entitled: filing_pb2.Entitlement) -> RenderableType:
    """Each reason with its clause; an older answer has them joined."""
    reasons = [(each.text, each.clause) for each in entitled.reasons]
    reasons = reasons or [(entitled.reason, entitled.clause)]
    return Group(*(Text.assemble(text, (f"  {clause}", DIM)) for text, clause in reasons))


def _pair(enum: EnumDescriptor, number: int) -> Text:
    name = short_name(enum, number)
    return Text.assemble((chinese(enum, number), "bold"), (f" {name}", DIM))


def _class(number: types_pb2.CatalogClass.ValueType) -> str:
    return chinese(types_pb2.CatalogClass.DESCRIPTOR, number)


def _amount(fen: int) -> Text:
    return Text(yuan(fen)) if fen else Text("-", style=DIM)


def _split_table(*names: str) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), header_style=DIM, pad_edge=False)
    table.add_column(names[0], overflow="fold", ratio=1)
    for name in names[1:]:
        table.add_column(name, no_wrap=True)
    for name in ("金额", "全自费", "超限价", "先行自付", "符合范围"):
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _parts(
    one: visit_pb2.LineSplit | visit_pb2.CategorySum,
) -> tuple[Text, Text, Text, Text, Text]:
    return (
        Text(yuan(one.amount_fen)),
        _amount(one.full_self_pay_fen),
        _amount(one.over_limit_fen),
        _amount(one.first_self_pay_fen),
        _amount(one.in_scope_fen),
    )


def _add_total(table: Table, a: amounts_pb2.Amounts, named: int) -> None:
    table.add_section()
    sums = (a.full_self_pay_fen, a.over_limit_fen, a.first_self_pay_fen, a.in_scope_fen)
    names = ["合计 total", ""][:named]
    table.add_row(*names, yuan(a.total_fen), *(yuan(fen) for fen in sums), style="bold")
