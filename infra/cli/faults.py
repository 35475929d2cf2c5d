"""`yidi faults`: real traffic on a network that is broken on purpose, then an independent check.

The network is of its own: one PostgreSQL per site, every role of both provinces in a process of its
own, a proxy on each way between two sites, failpoints armed while it runs. The main thread breaks
and heals it, since it owns the processes; the callers run in a thread with its own event loop.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Event
from typing import Annotated, Any, TypeVar

import typer

from infra.cli.client import Clients
from infra.cli.starting import prepare
from infra.local.network import SITES, LocalSite, plan_network
from infra.local.state import default_home
from infra.local.supervisor import Network, temporary_network
from infra.runtime.clock import SystemClock, business_day, instant, monotonic_us, new_id
from infra.runtime.config import NATION, ROLES, load_settings
from infra.runtime.failpoints import Place
from loadtests.faults.check import Databases, Findings, check, find_cancelled, find_open
from loadtests.faults.injure import Injuries, parts_of
from loadtests.faults.logs import unforeseen
from loadtests.faults.people import make_insured
from loadtests.faults.plan import TRAFFIC_MS, Parts, Round, make_plan
from loadtests.faults.promises import Promises
from loadtests.faults.traffic import Answer, Traffic, Way

BEIJING, GUANGDONG = "110000", "440000"
CALLERS, PEOPLE = 12, 12
"""So few people that settlements meet at the same accumulators."""
RECOVERY_S = 15.0
"""PROTOCOL: once all sites have been up for so long, nothing older is open."""
_QUIET_S = 2 * RECOVERY_S
"""A cancelled settlement is made final first, and then undone."""
_POLL_S = 0.1
T = TypeVar("T")


@dataclass(slots=True)
class Report:
    """What `yidi faults` prints."""

    rounds: int = 0
    kills: int = 0
    faults: int = 0
    settlements: int = 0
    lost: int = 0
    double: int = 0
    disagree: int = 0
    in_doubt_left: int = 0
    recovery_s_max: float = 0.0
    paid_by_account: int = 0
    postings: int = 0
    places_armed: int = 0
    places_acted: int = 0
    unforeseen: int = 0
    """Errors in the logs that are neither a refusal nor a lost connection."""
    findings: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing was lost, doubled, disputed, left open or unforeseen."""
        wrong = self.lost + self.double + self.disagree + self.in_doubt_left + self.unforeseen
        return wrong == 0

    def facts(self) -> dict[str, Any]:
        """The report for programs."""
        facts = asdict(self)
        del facts["findings"]
        return facts


class _Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` there and return its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def start(self, work: Coroutine[Any, Any, T]) -> Callable[[], T]:
        """Start `work` there; the function waits for its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result

    def stop(self) -> None:
        """End the loop, and what is left in it when the run was broken off."""
        self.run(_cancel_others())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


@contextmanager
def _loop_thread() -> Iterator[_Loop]:
    loop = _Loop()
    try:
        yield loop
    finally:
        loop.stop()


def run_faults(
    *,
    seed: int,
    rounds: int,
    logs: Path | None = None,
    on_progress: Callable[[str], None] = lambda _: None,
) -> Report:
    """Break a network of its own for `rounds` rounds; must be called from the main thread."""
    with (
        temporary_network(
            prepare=prepare,
            sites=_sites(),
            split=ROLES,
            postgres_per_site=True,
            proxied=True,
            failpoints=True,
            on_progress=on_progress,
        ) as network,
        _loop_thread() as loop,
    ):
        try:
            plan = make_plan(seed, rounds, parts_of(network.plan))
            return _Run(network, loop, on_progress).all(plan)
        finally:
            if logs is not None:
                shutil.copytree(network.home / "logs", logs, dirs_exist_ok=True)


class _Run:
    """One run on one network."""

    def __init__(self, network: Network, loop: _Loop, on_progress: Callable[[str], None]) -> None:
        self._network = network
        self._loop = loop
        self._progress = on_progress
        self._databases = _databases(network)
        self._injuries = Injuries(network)
        self._promises = Promises()
        self._report = Report()
        self._seen = 0
        """How many answers the promises have taken in."""

    def all(self, plan: tuple[Round, ...]) -> Report:
        """Every round of the plan, and the questions about all of them at the end."""
        connecting = Clients.connect(self._network.home)
        clients = self._loop.run(connecting.__aenter__())
        try:
            traffic = self._loop.run(_traffic(clients))
            for one in plan:
                self._round(one, traffic)
                if not self._report.ok:
                    break  # what comes after a broken promise proves nothing
            if self._report.ok:
                self._loop.run(traffic.ask(traffic.answers))
                self._judge(traffic.answers)
        finally:
            self._loop.run(connecting.__aexit__(None, None, None))
        self._report.kills = self._injuries.kills.total()
        self._report.faults = self._injuries.faults
        return self._report

    def _round(self, one: Round, traffic: Traffic) -> None:
        seconds = TRAFFIC_MS / 1000
        for step in one.steps:
            self._progress(f"round {one.number}: {json.dumps(step.facts())}")
        done = self._loop.start(traffic.run(one.traffic_seed, seconds=seconds, callers=CALLERS))
        self._injuries.during(one.steps, seconds=seconds)
        self._injuries.heal()
        recovery_s, late = self._recovered()
        done()
        self._quiet()
        before = self._seen
        findings = self._judge(traffic.answers, late)
        if self._report.ok:
            # Only now: a posting that was lost and is sent again would be there again.
            self._loop.run(traffic.ask(traffic.answers[before:]))
            findings = self._judge(traffic.answers)
        self._report.rounds += 1
        self._report.recovery_s_max = round(max(self._report.recovery_s_max, recovery_s), 2)
        self._tell_places(one)
        told = Counter(
            f"{answer.method} {answer.reason or answer.state}"
            for answer in traffic.answers[before:]
        )
        self._progress(
            f"round {one.number}: {findings.settlements} settlements stand,"
            f" {findings.paid_by_account} by account, {findings.postings} postings,"
            f" recovered in {recovery_s:.1f} s; answers {dict(sorted(told.items()))}"
        )

    def _tell_places(self, one: Round) -> None:
        acted, armed = self._injuries.acted, self._injuries.armed
        self._report.places_acted, self._report.places_armed = len(acted), len(armed)
        idle = ", ".join(sorted(armed - set(acted)))
        self._progress(
            f"round {one.number}: {len(acted)} of {len(Place)} places have acted"
            + (f"; armed without: {idle}" if idle else "")
        )

    def _recovered(self) -> tuple[float, list[str]]:
        """Seconds until nothing is open that was opened before now, at most RECOVERY_S, and what
        still is then. Traffic goes on: what it opens meanwhile has its own 15 seconds."""
        healed_at, healed_us = instant(SystemClock()), monotonic_us()
        while True:
            left = self._loop.run(find_open(self._databases, before=healed_at))
            seconds = (monotonic_us() - healed_us) / 1e6
            if not left or seconds > RECOVERY_S:
                return seconds, left
            Event().wait(_POLL_S)

    def _quiet(self) -> None:
        """Return when nothing moves any more, or when it has had time enough for that."""
        until_us = monotonic_us() + int(_QUIET_S * 1e6)
        while monotonic_us() < until_us:
            open_rows = self._loop.run(
                find_open(self._databases, before=instant(SystemClock()))
            ) or self._loop.run(find_cancelled(self._databases))
            if not open_rows:
                return
            Event().wait(_POLL_S)

    def _judge(self, answers: list[Answer], late: Sequence[str] = ()) -> Findings:
        self._promises.take(answers[self._seen :])
        self._seen = len(answers)
        findings = self._loop.run(check(self._databases, self._promises))
        findings.in_doubt_left = sorted({*findings.in_doubt_left, *late})
        report = self._report
        report.settlements = findings.settlements
        report.paid_by_account, report.postings = findings.paid_by_account, findings.postings
        report.lost, report.double = len(findings.lost), len(findings.double)
        report.disagree, report.in_doubt_left = len(findings.disagree), len(findings.in_doubt_left)
        unexpected = list(unforeseen(self._network.home / "logs"))
        report.unforeseen = len(unexpected)
        report.findings = [*findings.all, *(f"unforeseen: {text}" for text in unexpected)]
        return findings


async def _traffic(clients: Clients) -> Traffic:
    """Register the people, and say where they are treated: over every route, in both directions."""
    clock = SystemClock()
    today = business_day(clock.now_ms())
    ways: list[Way] = []
    for site, area, care_place, treated in (
        (
            GUANGDONG,
            "440800",
            BEIJING,
            [(BEIJING, "H11010100001", BEIJING), (GUANGDONG, "H44080000001", "440800")],
        ),
        (GUANGDONG, "440100", "440800", [(GUANGDONG, "H44080000001", "440800")]),
        (BEIJING, BEIJING, "440100", [(GUANGDONG, "H44010000001", "440100")]),
    ):
        people = await make_insured(
            clients,
            clock,
            number=PEOPLE,
            site=site,
            area=area,
            care_place=care_place,
            day=today,
        )
        for care_site, institution, care_area in treated:
            ways.append(Way(care_site, institution, care_area, area, people))
    traffic = Traffic(clients, ways, day=today, run=new_id(clock)[-12:])
    await traffic.open_accounts()
    return traffic


def _databases(network: Network) -> Databases:
    """How to reach each site's database as superuser."""
    return {
        site.code: load_settings(network.plan.site_file(site.code)).database.admin_login()
        for site in network.plan.sites
    }


def _planned_parts() -> Parts:
    """The parts of the network that a run starts, without starting it."""
    plan = plan_network(
        default_home(),
        20_000,
        sites=_sites(),
        split=ROLES,
        postgres_per_site=True,
        proxied=True,
    )
    return parts_of(plan)


def _sites() -> list[LocalSite]:
    return [site for site in SITES if site.code in (NATION, BEIJING, GUANGDONG)]


def faults(
    seed: Annotated[int, typer.Option(min=0, help="The same seed breaks the same things.")] = 1,
    rounds: Annotated[int, typer.Option(min=1, max=1000, help="Rounds of faults.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    logs: Annotated[Path | None, typer.Option(help="Keep the logs of all processes here.")] = None,
    show_plan: Annotated[bool, typer.Option("--plan", help="Only show what would break.")] = False,
) -> None:
    """Break a network of its own while it settles, heal it, and check every answer ever given."""
    if show_plan:
        for one in make_plan(seed, rounds, _planned_parts()):
            for step in one.steps:
                typer.echo(json.dumps({"round": one.number, **step.facts()}))
        return
    report = run_faults(
        seed=seed, rounds=rounds, logs=logs, on_progress=lambda text: typer.echo(text, err=True)
    )
    for finding in report.findings:
        typer.echo(finding, err=True)
    if as_json:
        typer.echo(json.dumps(report.facts()))
    else:
        for name, value in report.facts().items():
            typer.echo(f"{name:18} {value}")
    raise typer.Exit(0 if report.ok else 1)
