"""A verification of the journals as people read it."""

from __future__ import annotations

from collections import Counter

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from infra.cli.pairs import Holder
from infra.cli.terminal import DIM, yuan
from infra.cli.verify import Comparison, SiteCheck, Verification, counts
from infra.local.network import SITES
from infra.runtime.differing import Odd

_NAMES = {site.code: site.name for site in SITES}
_SHOWN = 20
"""Settlements shown of one differing day; `--json` has them all."""


def show_verification(verification: Verification, console: Console) -> None:
    """The pairs that hold anything, what differs down to the settlements, what is open or odd."""
    _show_pairs(verification, console)
    for comparison in verification.comparisons:
        if comparison.differences:
            _show_drilled(comparison, console)
    _show_checks(verification, console)
    if verification.open_count:
        console.print(
            f"{verification.open_count} open rows (PENDING or IN_DOUBT) at care places: "
            "no difference in themselves; their outcome is not known yet",
            style="yellow",
        )
    if verification.equal:
        console.print("对账一致：三方账本逐位相同 The journals hold the same bytes.", style="green")
    else:
        console.print("对账不一致 The journals differ.", style="bold red")


def _show_pairs(verification: Verification, console: Console) -> None:
    table = Table(box=SIMPLE_HEAD, padding=(0, 2, 0, 0), header_style=DIM, pad_edge=False)
    table.add_column("业务日 day", no_wrap=True)
    table.add_column("就医地 → 参保地", no_wrap=True)
    for name in ("care", "nation", "insured"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("总额 total", justify="right", no_wrap=True)
    table.add_column("")
    empty = 0
    for comparison in verification.comparisons:
        if not any(counts(comparison)) and not comparison.differences:
            empty += 1
            continue
        table.add_row(
            comparison.day.isoformat(),
            f"{_name(comparison.care_site)} → {_name(comparison.insured_site)}",
            *("-" if count is None else str(count) for count in counts(comparison)),
            yuan(comparison.care.sums.total_fen),
            _verdict(comparison),
        )
    if table.row_count:
        console.print(table)
    if empty:
        console.print(f"{empty} pairs and days without settlements", style=DIM)


def _show_drilled(comparison: Comparison, console: Console) -> None:
    pair = f"{_name(comparison.care_site)} → {_name(comparison.insured_site)}"
    console.print(f"{comparison.day.isoformat()} {pair}:", style="red")
    odd = comparison.drilled.odd
    if not odd:
        console.print("  逐笔字节相同：改动在字节之外 same bytes; a sum beside them was altered")
    for one in odd[:_SHOWN]:
        console.print(Text(f"  {one.settlement_id}  ").append(_what(one), style="red"))
    if len(odd) > _SHOWN or comparison.drilled.incomplete:
        more = "and more" if comparison.drilled.incomplete else f"{len(odd)} in all"
        console.print(f"  … {more}; `yidi verify --json` names them", style=DIM)


def _what(odd: Odd[Holder]) -> str:
    if odd.missing:
        return (
            "、".join(holder.zh for holder in odd.missing)
            + f"没有 missing: {', '.join(odd.missing)}"
        )
    return "各方字节不同 different bytes"


def _show_checks(verification: Verification, console: Console) -> None:
    if not verification.checks:
        return
    accumulators = sum(check.accumulators for check in verification.checks)
    accounts = sum(check.accounts for check in verification.checks)
    console.print(
        f"{accumulators} accumulators and {accounts} accounts compared with their deltas",
        style=DIM,
    )
    for check in verification.checks:
        for side, breach in check.breaches:
            console.print(
                Text.assemble(
                    (f"✗ {_name(check.site)}{side.zh} {breach.invariant}  ", "bold red"),
                    f"{breach.subject}  {breach.text}",
                )
            )
        _show_not_compared(check, console)


def _show_not_compared(check: SiteCheck, console: Console) -> None:
    for text, number in Counter(one.text for one in check.not_compared).items():
        console.print(
            f"{_name(check.site)}: 未比对 not compared: {number} days of care places"
            f" older than 24 h, {text}",
            style="yellow",
        )


def _verdict(comparison: Comparison) -> Text:
    if not comparison.differences:
        return Text("= 一致", style="green")
    return Text("≠ " + ", ".join(comparison.differences), style="red")


def _name(site: str) -> str:
    return _NAMES.get(site, site)
