"""A verification of the journals as people read it."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from infra.cli.terminal import DIM, yuan
from infra.cli.verify import Comparison, Verification, counts
from infra.local.network import SITES

_NAMES = {site.code: site.name for site in SITES}


def show_verification(verification: Verification, console: Console) -> None:
    """The pairs that hold anything, what differs, and what is still open."""
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
    if verification.open_count:
        console.print(
            f"{verification.open_count} open rows (PENDING or IN_DOUBT) at care places: "
            "no difference in themselves; their outcome is not known yet",
            style="yellow",
        )
    if verification.ok:
        console.print("对账一致：三方账本逐位相同 The journals hold the same bytes.", style="green")
    else:
        console.print("对账不一致 The journals differ.", style="bold red")


def _verdict(comparison: Comparison) -> Text:
    if not comparison.differences:
        return Text("= 一致", style="green")
    return Text("≠ " + ", ".join(comparison.differences), style="red")


def _name(site: str) -> str:
    return _NAMES.get(site, site)
