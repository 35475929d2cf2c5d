"""The story on the terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import date
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from infra.cli.client import Clients
from infra.cli.demo.story import STORY, Chapter
from infra.cli.explain import LEGEND, Places, explained
from infra.cli.journals import show_verification
from infra.cli.terminal import DIM, show_refusal, yuan
from infra.cli.verify import Verification
from infra.runtime.errors import Refusal
from infra.runtime.types import chinese
from yidi.common.v1 import types_pb2
from yidi.filing.v1 import desk_pb2, filing_pb2
from yidi.gateway.v1 import gateway_pb2


class Screen:
    """Shows each chapter as it happens; without a console it shows nothing."""

    def __init__(self, console: Console | None, clients: Clients) -> None:
        self._console = console or Console(quiet=True)
        self._names = {code: at.settings.site.name for code, at in clients.sites.items()}
        self._seen: dict[object, Chapter] = {}
        """Which chapter has shown a bill line by line."""
        self._areas = {
            area.code: area.name for at in clients.sites.values() for area in at.settings.site.areas
        }

    def opening(self, chapters: int) -> None:
        """What is to come."""
        self._console.print()
        self._console.print(
            Text.assemble(("异地就医直接结算 ", "bold"), ("Yidi demo", DIM)), justify="left"
        )
        self._console.print(
            f"{chapters} visits, each settled over real processes, sockets and databases. "
            "The people are synthetic (合成人员).",
            style=DIM,
        )
        self._console.print(LEGEND)

    def chapter(self, number: int, chapter: Chapter, first: date, last: date) -> None:
        """Who the patient is and what happened."""
        console = self._console
        console.print()
        console.print(
            Rule(Text(f"{number}  {chapter.title}", style="bold"), align="left", style=DIM)
        )
        console.print(chapter.english, style=DIM)
        console.print(chapter.told)
        patient = chapter.patient
        care = chinese(types_pb2.CareType.DESCRIPTOR, chapter.visit.care_type)
        days = f"{first}" if first == last else f"{first} – {last}"
        console.print(
            f"{self._areas[patient.area]} → {self._areas[chapter.visit.care_area]}"
            f"  {chinese(types_pb2.PersonClass.DESCRIPTOR, patient.person_class)}"
            f"  {care}  {days}",
            style="cyan",
        )

    def working(self, text: str) -> AbstractContextManager[object]:
        """A spinner while something is under way."""
        if self._console.quiet or not self._console.is_terminal:
            return contextlib.nullcontext()
        return self._console.status(text, spinner="line")

    def refused(self, refusal: Refusal) -> None:
        """The refusal and its next step."""
        self._console.print()
        show_refusal(refusal, self._console)

    def filed(self, guidance: desk_pb2.KindGuidance, filing: filing_pb2.Filing) -> None:
        """What the insured area asks for, and the filing that the hospital made."""
        kind = chinese(types_pb2.FilingKind.DESCRIPTOR, filing.kind)
        state = chinese(filing_pb2.FilingState.DESCRIPTOR, filing.state)
        days = f"{filing.start_date} 至 {filing.end_date}" if filing.end_date else "长期有效"
        self._console.print()
        self._console.print(f"  有效期：{guidance.validity}", style=DIM)
        self._console.print(f"  补办：{guidance.late_filing}", style=DIM)
        self._console.print(Text.assemble(("✓ ", "green"), f"{state} {kind}，{days}"))
        self._console.print(
            "  filed by the hospital for the patient, before discharge\n", style=DIM
        )

    def settled(self, chapter: Chapter, answer: gateway_pb2.SettleResponse) -> None:
        """Everything about the settlement."""
        places = Places(self._names[chapter.visit.care_site], self._names[chapter.patient.site])
        first = self._seen.setdefault(chapter.visit.bill, chapter)
        if first is chapter:
            self._console.print(explained(answer.result, places))
            return
        number = STORY.index(first) + 1
        self._console.print(f"账单同第{number}次就诊 the same bill as visit {number}", style=DIM)
        self._console.print(explained(answer.result, places, by_category=True))

    def closing(self, settlements: Sequence[dict[str, Any]], verification: Verification) -> None:
        """All visits side by side, and the journals."""
        console = self._console
        console.print()
        console.print(Rule(Text("汇总", style="bold"), align="left", style=DIM))
        console.print("the visits side by side", style=DIM)
        console.print(_side_by_side(settlements))
        console.print(Rule(Text("三方对账", style="bold"), align="left", style=DIM))
        console.print(
            "care place, nation and insured place, each asked over its contract", style=DIM
        )
        show_verification(verification, console)


def _side_by_side(settlements: Sequence[dict[str, Any]]) -> Table:
    titles = {chapter.case: chapter for chapter in STORY}
    table = Table(box=SIMPLE_HEAD, padding=(0, 2, 0, 0), header_style=DIM, pad_edge=False)
    table.add_column("就诊 visit", overflow="fold", ratio=1)
    for name in ("总额 total", "基金 funds", "患者 patient", "毫秒 ms"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in settlements:
        patient = row["account_fen"] + row["cash_fen"]
        table.add_row(
            Text.assemble(titles[row["case"]].title, (f"\n{row['case']}", DIM)),
            yuan(row["total_fen"]),
            Text(yuan(row["fund_total_fen"]), style="green"),
            Text(yuan(patient), style="yellow"),
            Text(f"{row['hops_ms'].get('total', 0):.1f}", style=DIM),
        )
    return table
