"""What the commands share on a terminal: consoles, amounts, refusals."""

from __future__ import annotations

from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from infra.local.processes import LocalNetworkError
from infra.runtime.clock import SHANGHAI
from infra.runtime.errors import Refusal

DIM = "bright_black"


def out() -> Console:
    """The console of results: standard output."""
    return Console(highlight=False)


def err() -> Console:
    """The console of progress and refusals: standard error."""
    return Console(stderr=True, highlight=False)


def yuan(fen: int) -> str:
    """An amount as people read it, e.g. `13,632.00`."""
    sign, fen = ("-", -fen) if fen < 0 else ("", fen)
    return f"{sign}{fen // 100:,}.{fen % 100:02d}"


def local_time(time: Timestamp, form: str = "%H:%M:%S") -> str:
    """An instant on the clocks of Asia/Shanghai."""
    return datetime.fromtimestamp(time.ToMilliseconds() / 1000, SHANGHAI).strftime(form)


def read_instant(text: str, option: str) -> Timestamp:
    """What a person writes after `option` for an instant on the clocks of Asia/Shanghai."""
    for form in ("%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M:%S"):
        try:
            local = datetime.strptime(text, form).replace(tzinfo=SHANGHAI)
        except ValueError:
            continue
        instant = Timestamp()
        instant.FromDatetime(local)
        return instant
    raise LocalNetworkError(f'{option} "{text}": write "2026-12-01 06:00", Asia/Shanghai')


def show_refusal(refusal: Refusal, console: Console) -> None:
    """A refusal as people read it: what is wrong, every fault, what to do, the reason's name."""
    text = Text("✗ ", style="red")
    text.append(refusal.message, style="bold")
    console.print(text)
    for violation in refusal.violations:
        fault = Text("· ").append(violation.field or "message", style="cyan")
        console.print(Padding(fault.append(f"  {violation.description}"), (0, 0, 0, 2)))
    console.print(Padding(Text(f"下一步 Next step: {refusal.next_step}"), (0, 0, 0, 2)))
    facts = [refusal.name]
    for name in ("settlement_id", "state", "request_id"):
        if value := refusal.details.get(name):
            facts.append(f"{name} {value}")
    console.print(Padding(Text("  ".join(facts), style=DIM), (0, 0, 0, 2)))
