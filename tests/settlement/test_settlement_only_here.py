"""A row that for over 24 hours is only at the insured place is an alarm (PROTOCOL §10 line 12)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
import structlog
from world import BEIJING, GUANGDONG, GUANGZHOU, World, world

from infra.cli.client import Clients
from infra.cli.roles import builders
from infra.cli.verify import Verification, verify
from infra.runtime.call import CallerType
from infra.runtime.clock import SHANGHAI, ManualClock, monotonic_us
from infra.runtime.config import NATION, Settings
from infra.runtime.database import Database
from infra.runtime.errors import Reason, Refusal
from infra.runtime.links import stub
from infra.runtime.server import Builder, Runtime, Service
from services.settlement import comparing as comparing_module
from services.settlement.comparing import AGE, LOOK_BACK, Comparing, Looked
from services.settlement.store.comparing import ComparingStore
from services.settlement.store.insured import InsuredStore
from yidi.common.v1 import envelope_pb2, types_pb2
from yidi.gateway.v1 import gateway_pb2
from yidi.relay.v1 import relay_pb2, relay_pb2_grpc
from yidi.settlement.v1 import insured_pb2, insured_pb2_grpc

HOUR_MS = 3_600_000
MINUTE_MS = 60_000
START_MS = int(datetime(2026, 11, 20, 14, tzinfo=SHANGHAI).timestamp() * 1000)
_TABLES = [
    f"settlement.{name}"
    for name in (
        "request_key",
        "bill",
        "care_journal",
        "decision",
        "undo",
        "accumulator",
        "account",
        "compared",
    )
]
JOURNALS = {NATION: ["relay.outcome"], BEIJING: _TABLES, GUANGDONG: _TABLES}
Asked = relay_pb2.GetNationJournalDigestRequest


@dataclass
class Wires:
    """What happens between the sites: answers of 广东 lost, the nation not answering provinces."""

    losing: bool = False
    nation_down: bool = False
    asked: list[Asked] = field(default_factory=list)
    """What the nation was asked about its journal."""

    def reset(self) -> None:
        """Everything works."""
        self.losing = self.nation_down = False
        self.asked.clear()

    def relay(self, site: str) -> Builder:
        """The real relay of `site`, with these wires in front of it."""

        async def build(runtime: Runtime) -> Service:
            [make] = builders(runtime.settings, ["relay"])["relay"]
            service = await make(runtime)
            real: Any = service.servicer
            exchange, digest = real.BatchExchange, real.GetNationJournalDigest

            async def lossy(request: Any, call: Any) -> Any:
                answer = await exchange(request, call)
                return relay_pb2.BatchExchangeResponse() if self.losing else answer

            async def counted(request: Asked, call: Any) -> Any:
                self.asked.append(request)
                if self.nation_down and call.caller.type is CallerType.ROLE:
                    raise Refusal(Reason.ERROR_REASON_SERVICE_UNAVAILABLE, service="relay")
                return await digest(request, call)

            if site == NATION:
                real.GetNationJournalDigest = counted
            else:
                real.BatchExchange = lossy
            return service

        return build


@dataclass
class Alone:
    """北京 and 广东 over a nation whose wires the test cuts."""

    world: World
    clock: ManualClock
    wires: Wires
    database: Database
    """Of 广东's settlement, as its app role."""

    async def lost(self, care_area: str = BEIJING) -> str:
        """Decided at 广东; the answer is lost, and the care place is restored from a backup."""
        [patient] = await self.world.patients(1)
        request = self.world.request(patient, care_area=care_area)
        self.wires.losing = True
        try:
            settlement_id = await self._settle(request)
        finally:
            self.wires.losing = False
        site = BEIJING if care_area == BEIJING else GUANGDONG
        admin = await self.world.admin(site)
        for table in ("request_key", "bill", "care_journal"):
            await admin.execute(
                f"DELETE FROM settlement.{table} WHERE settlement_id = $1::uuid", settlement_id
            )
        return settlement_id

    async def _settle(self, request: gateway_pb2.SettleRequest) -> str:
        try:
            settled = await self.world.settle(request)
            return settled.settlement_id
        except Refusal as refusal:
            if refusal.name != "OUTCOME_PENDING":
                raise
            return refusal.details["settlement_id"]

    async def check(self) -> insured_pb2.CheckInsuredInvariantsResponse:
        """What 广东 says should be impossible."""
        insured = self.world.operator(insured_pb2_grpc.InsuredServiceStub, GUANGDONG)
        asked = insured_pb2.CheckInsuredInvariantsRequest()
        return await insured.CheckInsuredInvariants(asked, timeout=30)

    async def found(self) -> list[str]:
        """The settlements that 广东 says only it has; nothing else is wrong."""
        checked = await self.check()
        assert {breach.invariant for breach in checked.breaches} <= {"only_here"}
        assert not checked.not_compared
        return [breach.subject for breach in checked.breaches]

    async def rows(self) -> list[tuple[Any, ...]]:
        """Everything that an undo would change, at both sites."""
        found: list[tuple[Any, ...]] = []
        for site in (BEIJING, GUANGDONG):
            admin = await self.world.admin(site)
            for table in ("decision", "undo", "care_journal", "bill", "accumulator", "account"):
                rows = await admin.fetch(f"SELECT t::text FROM settlement.{table} t ORDER BY 1")
                found += [tuple(row) for row in rows]
        return found

    def comparing(self, nation: Any = None) -> Comparing:
        """A replica's own."""
        channel = self.world.channel(GUANGDONG, "settlement")
        return Comparing(
            site=GUANGDONG,
            insured=InsuredStore(self.database),
            store=ComparingStore(self.database),
            nation=nation or stub(relay_pb2_grpc.RelayServiceStub, channel),
            clock=self.clock,
        )

    async def nation_hears(self, settlement_id: str) -> None:
        """What the alarm asks people to do: the care place asks, the nation journals on the way."""
        decision = await (await self.world.admin(GUANGDONG)).fetchrow(
            "SELECT * FROM settlement.decision WHERE settlement_id = $1::uuid", settlement_id
        )
        item = envelope_pb2.ResolveItem(
            id=settlement_id,
            intent=types_pb2.RESOLVE_INTENT_QUERY,
            origin=envelope_pb2.Origin(
                care_area=decision["care_area"], institution=decision["institution"]
            ),
            insured_area=decision["insured_area"],
            kind=decision["kind"],
            remaining_ms=5_000,
            payload_digest=decision["request_digest"],
        )
        relay = self.world.role(relay_pb2_grpc.RelayServiceStub, BEIJING, "settlement")
        async with asyncio.timeout(30):
            committed = False
            while not committed:  # until everybody's directory is of this instant
                request = relay_pb2.BatchResolveRequest(items=[item])
                [result] = (await relay.BatchResolve(request, timeout=30)).results
                committed = result.HasField("committed") or await asyncio.sleep(0.02, False)


@pytest.fixture(scope="module")
async def alone_world(
    database_settings: Callable[..., Settings], sample_pki: Path
) -> AsyncIterator[Alone]:
    """A world whose clock goes in leaps, and back for the next test."""
    clock, wires = ManualClock(START_MS), Wires()
    async with (
        world(
            database_settings=database_settings,
            pki=sample_pki,
            clock=clock,
            replaced={site: {"relay": [wires.relay(site)]} for site in (NATION, GUANGDONG)},
            limits={"recover": False, "breaker_failures": 1_000},
        ) as made,
        Database.open(made.settings[GUANGDONG], "settlement") as database,
    ):
        yield Alone(made, clock, wires, database)


@pytest.fixture
async def alone(alone_world: Alone) -> Alone:
    """The same with empty journals, at the time it began."""
    alone_world.clock.ms = START_MS
    alone_world.wires.reset()
    for site, tables in JOURNALS.items():
        await (await alone_world.world.admin(site)).execute(f"TRUNCATE {', '.join(tables)}")
    return alone_world


class _People:
    """The operators of a world, where `yidi verify` expects those of a network."""

    def __init__(self, made: World) -> None:
        self._world = made
        self.provinces = {BEIJING: "北京", GUANGDONG: "广东"}

    def operator(self, kind: Callable[[Any], Any], site: str, role: str) -> Any:
        return self._world.operator(kind, site)


async def verified(alone: Alone) -> Verification:
    """What `yidi verify` finds."""
    return await verify(cast(Clients, _People(alone.world)), 1)


async def test_alone_for_a_day_is_an_alarm_and_nothing_is_undone(alone: Alone) -> None:
    """Not a minute earlier; it ends when the nation has the row, and is then not asked again."""
    [patient] = await alone.world.patients(1)
    await alone.world.settle(alone.world.request(patient))
    decided_ms = alone.clock.ms
    lost = await alone.lost()
    assert alone.clock.ms == decided_ms
    before = await alone.rows()
    alone.clock.ms = decided_ms + 24 * HOUR_MS - MINUTE_MS
    assert await alone.found() == []
    alone.clock.ms = decided_ms + 24 * HOUR_MS
    assert await alone.found() == []  # not *over* 24 hours
    alone.clock.ms += 1
    with structlog.testing.capture_logs() as log:
        checked = await alone.check()
    [breach] = checked.breaches
    assert (breach.invariant, breach.subject) == ("only_here", lost)
    for words in ("2026-11-20 14:00:00", "国家（100000）", "就医地（110000）", "不得自行冲正"):
        assert words in breach.text
    alarms = [entry for entry in log if entry["event"].startswith("alarm:")]
    assert [entry["settlement_id"] for entry in alarms] == [lost]
    verification = await verified(alone)
    assert verification.equal
    assert not verification.ok
    [site] = [one for one in verification.facts()["sites"] if one["site"] == GUANGDONG]
    assert [(one["side"], one["subject"]) for one in site["breaches"]] == [("insured", lost)]
    # Days later it is still told, and the day is still asked about.
    alone.clock.ms += 3 * 24 * HOUR_MS
    assert await alone.found() == [lost]
    assert await alone.rows() == before, "nothing is undone"
    await alone.nation_hears(lost)
    alone.wires.asked.clear()
    assert await alone.found() == []
    assert [(one.business_day, one.care_site, one.insured_site) for one in alone.wires.asked] == [
        ("2026-11-20", BEIJING, GUANGDONG)
    ]
    alone.wires.asked.clear()
    assert await alone.found() == []
    assert not alone.wires.asked, "an equal day is compared once"
    assert (await verified(alone)).ok
    assert await alone.rows() == before


async def test_an_equal_day_is_asked_about_until_its_last_hour_is_old(alone: Alone) -> None:
    """Its later settlements may still get lost."""
    [patient] = await alone.world.patients(1)
    await alone.world.settle(alone.world.request(patient))
    midnight = alone.clock.ms + 10 * HOUR_MS
    for ms, times in (
        (midnight - 1, 0),
        (midnight + 24 * HOUR_MS - 1, 2),
        (midnight + 24 * HOUR_MS, 1),
    ):
        alone.clock.ms = ms
        alone.wires.asked.clear()
        for _ in range(2):
            assert await alone.found() == []
        assert len(alone.wires.asked) == times


async def test_inside_a_province_the_care_journal_is_asked(alone: Alone) -> None:
    """The nation hears nothing of it."""
    [patient] = await alone.world.patients(1)
    kept = await alone.world.settle(alone.world.request(patient, care_area=GUANGZHOU))
    lost = await alone.lost(GUANGZHOU)
    before = await alone.rows()
    alone.clock.ms += 24 * HOUR_MS - MINUTE_MS
    assert await alone.found() == []
    alone.clock.ms += MINUTE_MS + 1
    checked = await alone.check()
    [breach] = checked.breaches
    assert breach.subject == lost != kept.settlement_id
    assert "就医地（440000）" in breach.text
    assert "国家" not in breach.text
    assert await alone.rows() == before
    assert not alone.wires.asked
    # The care journal has it again: the day is looked at once more, and never after that.
    admin = await alone.world.admin(GUANGDONG)
    await admin.execute(
        """INSERT INTO settlement.care_journal
           SELECT (jsonb_populate_record(j, jsonb_build_object('settlement_id', $1::text))).*
           FROM settlement.care_journal j WHERE j.settlement_id = $2::uuid""",
        lost,
        kept.settlement_id,
    )
    alone.clock.ms += 24 * HOUR_MS
    assert await alone.found() == []
    compared = await admin.fetch("SELECT business_day, care_site FROM settlement.compared")
    assert [tuple(row) for row in compared] == [(date(2026, 11, 20), GUANGDONG)]
    assert await alone.comparing().look() == Looked()


async def test_a_nation_that_is_down_is_no_breach_and_is_told(alone: Alone) -> None:
    """What could not be asked is not proven; the own journals are compared all the same."""
    lost = await alone.lost()
    inside = await alone.lost(GUANGZHOU)
    alone.clock.ms += 24 * HOUR_MS + 1
    alone.wires.nation_down = True
    checked = await alone.check()
    assert [breach.subject for breach in checked.breaches] == [inside]
    [day] = checked.not_compared
    assert (day.business_day, day.care_site) == ("2026-11-20", BEIJING)
    assert day.text.startswith("SERVICE_UNAVAILABLE")
    verification = await verified(alone)
    [site] = [one for one in verification.facts()["sites"] if one["site"] == GUANGDONG]
    assert [(one["day"], one["care_site"]) for one in site["not_compared"]] == [
        ("2026-11-20", BEIJING)
    ]
    assert lost not in {one["subject"] for one in site["breaches"]}
    alone.wires.nation_down = False
    assert {breach.subject for breach in (await alone.check()).breaches} == {inside, lost}


class _Unreachable:
    """The way to the nation when its breaker is open."""

    def __init__(self) -> None:
        self.asked = 0

    async def GetNationJournalDigest(self, request: Asked, *, timeout: float) -> None:
        self.asked += 1
        raise Refusal(Reason.ERROR_REASON_SITE_UNREACHABLE, site="国家平台")


async def test_a_nation_that_cannot_be_reached_is_asked_once(alone: Alone) -> None:
    """All days go the same way."""
    await alone.lost()
    other = await alone.lost()
    await (await alone.world.admin(GUANGDONG)).execute(
        "UPDATE settlement.decision SET care_site = '370000' WHERE settlement_id = $1::uuid", other
    )
    inside = await alone.lost(GUANGZHOU)
    alone.clock.ms += 24 * HOUR_MS + 1
    nation = _Unreachable()
    looked = await alone.comparing(nation).look()
    assert nation.asked == 1
    assert [one.settlement_id for one in looked.only_here] == [inside]
    assert {care_site for _, care_site in looked.not_compared} == {BEIJING, "370000"}
    assert {text.split(":")[0] for text in looked.not_compared.values()} == {"SITE_UNREACHABLE"}


async def test_who_looks_has_bounds(alone: Alone, monkeypatch: pytest.MonkeyPatch) -> None:
    """In time, in findings, in days; replicas may look side by side."""
    lost = sorted([await alone.lost(), await alone.lost()])
    alone.clock.ms += 24 * HOUR_MS + 1
    late = await alone.comparing().look(monotonic_us())
    assert late.only_here == []
    [text] = late.not_compared.values()
    assert text.startswith("DEADLINE_TOO_SHORT")
    looks = await asyncio.gather(*(alone.comparing().look() for _ in range(3)))
    for looked in looks:
        assert [one.settlement_id for one in looked.only_here] == lost
        assert looked.not_compared == {}
    monkeypatch.setattr(comparing_module, "MAX_FOUND", 1)
    looked = await alone.comparing().look()
    assert [one.settlement_id for one in looked.only_here] == lost[:1]
    assert list(looked.not_compared) == [(date(2026, 11, 20), BEIJING)]
    monkeypatch.undo()
    alone.clock.ms += LOOK_BACK // timedelta(milliseconds=1)
    assert [one.settlement_id for one in (await alone.comparing().look()).only_here] == lost
    alone.clock.ms += 24 * HOUR_MS
    assert (await alone.comparing().look()).only_here == []


async def test_it_looks_by_itself_and_again_soon_when_nobody_answered(
    alone: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the start, then hourly; a failure ends nothing."""
    lost = await alone.lost()
    alone.clock.ms += AGE // timedelta(milliseconds=1) + 1
    monkeypatch.setattr(comparing_module, "AGAIN_SECONDS", 0.01)
    alone.wires.nation_down = True
    before = await alone.rows()
    replica = alone.comparing()
    with structlog.testing.capture_logs() as log:
        replica.start()
        await logged(log, "days not compared")
        await replica.stop()
    assert "alarm: only here for over 24 hours" not in {entry["event"] for entry in log}
    alone.wires.nation_down = False
    replica = alone.comparing()
    with structlog.testing.capture_logs() as log:
        replica.start()
        alarm = await logged(log, "alarm: only here for over 24 hours")
        await replica.stop()
    assert alarm["settlement_id"] == lost
    assert await alone.rows() == before


async def test_a_look_that_fails_ends_nothing(
    alone: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one may do better."""
    monkeypatch.setattr(comparing_module, "AGAIN_SECONDS", 0.01)
    replica = alone.comparing()
    failures: list[Exception] = [
        Refusal(Reason.ERROR_REASON_DATABASE_UNAVAILABLE),
        RuntimeError("odd"),
    ]

    async def fails(until_us: int | None = None) -> Looked:
        raise failures.pop(0) if failures else ValueError("odd")

    monkeypatch.setattr(replica, "look", fails)
    with structlog.testing.capture_logs() as log:
        replica.start()
        await logged(log, "background waits")
        await logged(log, "background failed")
        await replica.stop()
    assert not failures


async def logged(log: list[Any], event: str) -> Any:
    """The first entry of that event, once there is one."""
    async with asyncio.timeout(30):
        found: list[Any] = []
        while not found:
            found = [entry for entry in log if entry["event"] == event] or await asyncio.sleep(
                0.01, []
            )
    return found[0]


async def test_only_the_two_sites_of_a_pair_may_read_it(alone: Alone) -> None:
    """A province's relay asks for its own roles and operators, about its own days."""
    day = alone.world.today.isoformat()
    own = Asked(business_day=day, care_site=BEIJING, insured_site=GUANGDONG)
    strange = Asked(business_day=day, care_site=BEIJING, insured_site="370000")
    for site in (BEIJING, GUANGDONG):
        for relay in (
            alone.world.role(relay_pb2_grpc.RelayServiceStub, site, "settlement"),
            alone.world.operator(relay_pb2_grpc.RelayServiceStub, site),
        ):
            answer = await relay.GetNationJournalDigest(own, timeout=30)
            assert answer.journal.count == 0
    alone.wires.asked.clear()
    callers = [
        alone.world.role(relay_pb2_grpc.RelayServiceStub, GUANGDONG, "settlement"),
        alone.world.operator(relay_pb2_grpc.RelayServiceStub, GUANGDONG),
    ]
    for caller in callers:
        with pytest.raises(Refusal, match="ACCESS_DENIED"):
            await caller.GetNationJournalDigest(strange, timeout=30)
    gateway = alone.world.role(relay_pb2_grpc.RelayServiceStub, GUANGDONG, "gateway")
    with pytest.raises(Refusal, match="ACCESS_DENIED"):
        await gateway.GetNationJournalDigest(own, timeout=30)
    nation = alone.world.relay(relay_pb2_grpc.RelayServiceStub, GUANGDONG, caller=NATION)
    with pytest.raises(Refusal, match="ACCESS_DENIED"):
        await nation.GetNationJournalDigest(own, timeout=30)
    assert not alone.wires.asked, "the nation is not even asked"
    # What the nation itself refuses is an answer: it closes no way.
    for _ in range(4):
        with pytest.raises(Refusal, match="DAY_INVALID"):
            await callers[0].GetNationJournalDigest(
                Asked(business_day="2026-02-31", care_site=BEIJING, insured_site=GUANGDONG),
                timeout=30,
            )
