"""`yidi faults`: real traffic on a network that is broken on purpose, then an independent check.

The network is of its own: one PostgreSQL per site, every role of one province in a process of its
own, a proxy on each way between two sites, failpoints armed while it runs. The main thread breaks
and heals it, since it owns the processes; the callers run in a thread with its own event loop.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from threading import Event
from typing import Annotated, Any, TypeVar

import typer

from infra.cli.client import Clients
from infra.cli.starting import prepare
from infra.local.network import SITES, LocalSite, plan_network
from infra.local.state import default_home
from infra.local.supervisor import Network, temporary_network
from infra.runtime.clock import SystemClock, business_day, monotonic_us, new_id
from infra.runtime.config import NATION, ROLES, load_settings
from loadtests.faults.check import Databases, Findings, check, count_open
from loadtests.faults.injure import Injuries, parts_of
from loadtests.faults.plan import TRAFFIC_MS, Parts, Round, make_plan
from loadtests.faults.promises import Promises
from loadtests.faults.traffic import Answer, Traffic, Way
from loadtests.people import register

WHOLE, SPLIT = "110000", "440000"
"""The province in one process, and the one whose roles can each die alone."""
CALLERS, PEOPLE = 8, 12
"""So few people that settlements meet at the same accumulators."""
RECOVERY_S = 15.0
"""PROTOCOL: once all sites have been up for so long, nothing older is open."""
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
    findings: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing was lost, doubled, disputed or left open."""
        return not (self.lost or self.double or self.disagree or self.in_doubt_left)

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
        """End the loop."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@contextmanager
def _loop_thread() -> Iterator[_Loop]:
    loop = _Loop()
    try:
        yield loop
    finally:
        loop.stop()


def run_faults(
    *, seed: int, rounds: int, on_progress: Callable[[str], None] = lambda _: None
) -> Report:
    """Break a network of its own for `rounds` rounds; must be called from the main thread."""
    with (
        temporary_network(
            prepare=prepare,
            sites=_sites(),
            split=ROLES,
            split_sites=(SPLIT,),
            postgres_per_site=True,
            proxied=True,
            failpoints=True,
            on_progress=on_progress,
        ) as network,
        _loop_thread() as loop,
    ):
        return _Run(network, loop, on_progress).all(make_plan(seed, rounds, parts_of(network.plan)))


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
        healed_us = monotonic_us()
        done()
        recovery_s = self._recovered(healed_us)
        before = self._seen
        self._loop.run(traffic.ask(traffic.answers[before:]))
        findings = self._judge(traffic.answers)
        self._report.rounds += 1
        self._report.recovery_s_max = round(max(self._report.recovery_s_max, recovery_s), 2)
        told = Counter(
            f"{answer.method} {answer.reason or answer.state}"
            for answer in traffic.answers[before:]
        )
        self._progress(
            f"round {one.number}: {findings.settlements} settlements stand, recovered in"
            f" {recovery_s:.1f} s; answers {dict(sorted(told.items()))}"
        )

    def _recovered(self, healed_us: int) -> float:
        """Seconds from healing until nothing is open, at most RECOVERY_S."""
        while True:
            seconds = (monotonic_us() - healed_us) / 1e6
            if seconds > RECOVERY_S or not self._loop.run(count_open(self._databases)):
                return seconds
            Event().wait(_POLL_S)

    def _judge(self, answers: list[Answer]) -> Findings:
        self._promises.take(answers[self._seen :])
        self._seen = len(answers)
        findings = self._loop.run(check(self._databases, self._promises))
        report = self._report
        report.settlements = findings.settlements
        report.lost, report.double = len(findings.lost), len(findings.double)
        report.disagree, report.in_doubt_left = len(findings.disagree), len(findings.in_doubt_left)
        report.findings = findings.all
        return findings


async def _traffic(clients: Clients) -> Traffic:
    """Register the people, and say where they are treated: over every route, in both directions."""
    clock = SystemClock()
    today = business_day(clock.now_ms())
    ways: list[Way] = []
    for site, area, care_place, treated in (
        (
            SPLIT,
            "440800",
            WHOLE,
            [(WHOLE, "H11010100001", WHOLE), (SPLIT, "H44080000001", "440800")],
        ),
        (SPLIT, "440100", "440800", [(SPLIT, "H44080000001", "440800")]),
        (WHOLE, WHOLE, "440100", [(SPLIT, "H44010000001", "440100")]),
    ):
        credentials = await register(
            clients,
            clock,
            number=PEOPLE,
            site=site,
            area=area,
            care_place=care_place,
            filed_on=today - timedelta(days=30),
            seed=int(area),
        )
        for care_site, institution, care_area in treated:
            ways.append(Way(care_site, institution, care_area, area, credentials))
    return Traffic(clients, ways, day=today, run=new_id(clock)[-12:])


def _databases(network: Network) -> Databases:
    """How to reach each site's database as superuser."""
    found = {}
    for site in network.plan.sites:
        at = load_settings(network.plan.site_file(site.code)).database
        found[site.code] = {
            "host": at.host,
            "port": at.port,
            "database": at.name,
            "user": at.admin_user,
            "password": at.admin_password.get_secret_value(),
        }
    return found


def _planned_parts() -> Parts:
    """The parts of the network that a run starts, without starting it."""
    plan = plan_network(
        default_home(),
        20_000,
        sites=_sites(),
        split=ROLES,
        split_sites=(SPLIT,),
        postgres_per_site=True,
        proxied=True,
    )
    return parts_of(plan)


def _sites() -> list[LocalSite]:
    return [site for site in SITES if site.code in (NATION, WHOLE, SPLIT)]


def faults(
    seed: Annotated[int, typer.Option(min=0, help="The same seed breaks the same things.")] = 1,
    rounds: Annotated[int, typer.Option(min=1, max=1000, help="Rounds of faults.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    show_plan: Annotated[bool, typer.Option("--plan", help="Only show what would break.")] = False,
) -> None:
    """Break a network of its own while it settles, heal it, and check every answer ever given."""
    if show_plan:
        for one in make_plan(seed, rounds, _planned_parts()):
            for step in one.steps:
                typer.echo(json.dumps({"round": one.number, **step.facts()}))
        return
    report = run_faults(
        seed=seed, rounds=rounds, on_progress=lambda text: typer.echo(text, err=True)
    )
    for finding in report.findings:
        typer.echo(finding, err=True)
    if as_json:
        typer.echo(json.dumps(report.facts()))
    else:
        for name, value in report.facts().items():
            typer.echo(f"{name:18} {value}")
    raise typer.Exit(0 if report.ok else 1)
