"""A computed case as a clerk reads it to a patient: every step, then who pays what."""

from __future__ import annotations

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from infra.cli.terminal import DIM, yuan
from services.policy.domain import explain
from services.policy.domain.case import Benefit, Case, Step
from services.policy.domain.document import Document, Fund, Provenance

_MARKS = {
    Provenance.OFFICIAL: ("官方", "green"),
    Provenance.SECONDARY: ("转载", "yellow"),
    Provenance.ILLUSTRATIVE: ("示例", "magenta"),
}
_STAGES = {
    "remote_first_pay": "转外自理",
    "deductible": "起付线",
    "personal_account": "个人账户",
    "no_funds": "基金不支付",
}
_FUNDS = {
    "hifp_pay": "统筹基金",
    "hifob_pay": "大额补助",
    "hifmi_pay": "大病保险",
    "hifes_pay": "补充保险",
    "cvlserv_pay": "公务员补助",
    "maf_pay": "医疗救助",
    "oth_pay": "其他基金",
}
_SHARED_OUT = ("first_pay", "first_pay_after", "deductible", "deductible_stay", "deductible_year")


def steps(document: Document, case: Case, benefit: Benefit) -> RenderableType:
    """Every step: what went in, what came out, what is left to share out, and why."""
    told: list[RenderableType] = [_line(_HEADS, DIM)]
    left = case.total_fen
    for name, fen in (
        ("全自费", case.full_self_pay_fen),
        ("超限价", case.over_limit_fen),
        ("先行自付", case.first_self_pay_fen),
    ):
        if fen:
            told.append(_line((name, yuan(left), yuan(fen), yuan(left - fen))))
            left -= fen
    told.append(_line(("符合范围", yuan(case.in_scope_fen), "", yuan(left))))
    names = _fund_names(document, case)
    for step in benefit.steps:
        name, shares_out = names.get(step.stage, (_STAGES.get(step.stage, step.stage), False))
        takes = step.result_fen if step.kind in _SHARED_OUT else 0
        if shares_out and step.kind == "bracket":
            takes = step.input_fen
        left -= min(takes, left)
        shown = yuan(left) if takes else ""
        told.append(_line((name, yuan(step.input_fen), yuan(step.result_fen), shown)))
        told.append(Padding(_why(step), (0, 0, 0, 2)))
    return Group(*told, "")


_HEADS = ("阶段 stage", "计入 in", "结果 out", "待分摊 left")


def _line(cells: tuple[str, ...], style: str = "") -> Text:
    """Columns of a fixed width: a Chinese character takes two."""
    name, *numbers = cells
    padded = name + " " * max(16 - cell_len(name), 1)
    padded += "".join(" " * max(16 - cell_len(each), 1) + each for each in numbers)
    return Text(padded, style=style)


def _fund_names(document: Document, case: Case) -> dict[str, tuple[str, bool]]:
    """Fund code → its name in the document, and whether it pays what remains."""
    names = {code: (name, False) for code, name in _FUNDS.items()}
    # A disease that is not covered is paid as ordinary outpatient care.
    for care_type in ("outpatient", case.care_type):
        benefit = document.benefits.get(care_type)
        for stage in () if benefit is None else benefit.stages:
            if isinstance(stage, Fund):
                names[stage.code] = (stage.name, stage.of == "remaining")
    return names


def _why(step: Step) -> Text:
    value = step.value
    mark, style = _MARKS[value.provenance]
    text = Text(explain.text(step)).append(" ").append(mark, style=style)
    for each in (value, *(change.value for change in explain.changes_of(step))):
        text.append(f"\n{each.clause}\n{each.row}", style=DIM)
    return text


def amounts(document: Document, case: Case, benefit: Benefit) -> RenderableType:
    """Who pays what, down to cash."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)

    def row(name: str, fen: int, style: str = "") -> None:
        table.add_row(Text(name, style=style), Text(yuan(fen), style=style))

    names = _fund_names(document, case)
    row("医疗费总额 total", case.total_fen, "bold")
    for code, fen in sorted(benefit.funds.items()):
        row(f"  {names[code][0]} {code}", fen, "green")
    row("基金支付合计 funds", benefit.fund_total_fen, "bold green")
    for name, fen in (
        ("全自费 full_self_pay", case.full_self_pay_fen),
        ("超限价 over_limit", case.over_limit_fen),
        ("先行自付 first_self_pay", case.first_self_pay_fen),
        ("转外自理 remote_first_pay", benefit.remote_first_pay_fen),
        ("起付线 deductible", benefit.deductible_fen),
        ("按比例自付 ratio_self_pay", benefit.ratio_self_pay_fen),
        ("超封顶 over_cap", benefit.over_cap_fen),
    ):
        if fen:
            row(f"  {name}", fen)
    if benefit.outside_scope_fen:
        row("  基金另付的先行自付 paid of it", -benefit.outside_scope_fen)
    row("个人账户 account", benefit.account_fen, "yellow")
    row("现金 cash", benefit.cash_fen, "bold yellow")
    mark, style = _MARKS[benefit.provenance]
    version = f"参保地政策 {document.title} {document.version} "
    table.add_row(Text(version, style=DIM).append(mark, style=style), "")
    return table
