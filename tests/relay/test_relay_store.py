"""The nation's journal by day, hour and entry, and its announcements (PROTOCOL §4, §5)."""

from __future__ import annotations

import asyncio
import hashlib
from datetime import date

import asyncpg
import pytest
from relay_peers import CARE_AREA, CLOCK, INSURED_AREA, NOW_MS, SITES

from gateway.relay.detailing import Detailing
from gateway.relay.listing import Listing
from gateway.relay.service import NationServicer
from gateway.relay.store import NationStore
from infra.runtime.call import Call, CallerType, Identity
from infra.runtime.clock import ManualClock, instant, new_id
from infra.runtime.database import Database
from infra.runtime.errors import Refusal
from infra.runtime.journal import HOUR_MS
from yidi.common.v1 import amounts_pb2, envelope_pb2, types_pb2
from yidi.relay.v1 import relay_pb2

HOURS = envelope_pb2.JOURNAL_DETAIL_HOURS
ENTRIES = envelope_pb2.JOURNAL_DETAIL_ENTRIES
NONE = envelope_pb2.JOURNAL_DETAIL_UNSPECIFIED
HOUR = NOW_MS // HOUR_MS


def outcomes(day: str, *, care: str = "440000", ms: list[int]) -> dict[str, envelope_pb2.Outcome]:
    made = {}
    for fen, at in enumerate(ms, start=1):
        settlement_id = new_id(ManualClock(at))
        header = envelope_pb2.OutcomeHeader(
            settlement_id=settlement_id,
            kind=types_pb2.EXCHANGE_KIND_SETTLE,
            care_area=CARE_AREA,
            care_site=care,
            insured_area=INSURED_AREA,
            insured_site="110000",
            amounts=amounts_pb2.Amounts(total_fen=fen),
            business_day=day,
        ).SerializeToString()
        made[settlement_id] = envelope_pb2.Outcome(
            header=header, digest=hashlib.sha256(header).digest()
        )
    return made


def digest_of(made: dict[str, envelope_pb2.Outcome]) -> bytes:
    return hashlib.sha256(b"".join(made[one].digest for one in sorted(made))).digest()


async def test_a_day_its_hours_and_its_entries_say_the_same(store: NationStore) -> None:
    day = date(2026, 11, 20)
    first = outcomes(
        "2026-11-20", ms=[HOUR * HOUR_MS, HOUR * HOUR_MS + 5, (HOUR + 1) * HOUR_MS - 1]
    )
    second = outcomes("2026-11-20", ms=[(HOUR + 1) * HOUR_MS, (HOUR + 1) * HOUR_MS + 1])
    foreign = outcomes("2026-11-20", care="370000", ms=[HOUR * HOUR_MS])
    await store.record(first | second | foreign, instant(CLOCK))

    whole = await store.digest(day, "440000", "110000", NONE, 0)
    assert (whole.count, whole.sums.total_fen) == (5, 1 + 2 + 3 + 1 + 2)
    assert whole.digest == digest_of(first | second)
    assert not whole.hours
    assert not whole.entries

    by_hour = await store.digest(day, "440000", "110000", HOURS, 0)
    assert by_hour.digest == whole.digest
    assert [(hour.hour, hour.count, hour.digest) for hour in by_hour.hours] == [
        (HOUR, 3, digest_of(first)),
        (HOUR + 1, 2, digest_of(second)),
    ]
    for hour, made in ((HOUR, first), (HOUR + 1, second), (HOUR + 2, {}), (1 << 62, {})):
        entries = (await store.digest(day, "440000", "110000", ENTRIES, hour)).entries
        assert [(entry.settlement_id, entry.digest) for entry in entries] == [
            (one, made[one].digest) for one in sorted(made)
        ]


async def test_an_empty_day_is_the_digest_of_nothing(store: NationStore) -> None:
    empty = await store.digest(date(2020, 1, 1), "440000", "110000", HOURS, 0)
    assert (empty.count, empty.digest) == (0, hashlib.sha256(b"").digest())
    assert not empty.hours


async def test_recording_again_compares_and_never_changes(store: NationStore) -> None:
    made = outcomes("2026-11-21", ms=[NOW_MS])
    [settlement_id] = made
    await store.record(made, instant(CLOCK))
    other = {settlement_id: outcomes("2026-11-21", ms=[NOW_MS, NOW_MS]).popitem()[1]}
    standing = await store.record(other, instant(CLOCK))
    assert standing == {settlement_id: made[settlement_id].digest}


def downtime(
    start_ms: int, end_ms: int, area: str = "", notice: str = "系统升级"
) -> relay_pb2.Downtime:
    made = relay_pb2.Downtime(site="110000", area=area, notice=notice)
    made.start_time.FromMilliseconds(start_ms)
    made.end_time.FromMilliseconds(end_ms)
    return made


def listing(store: NationStore, clock: ManualClock) -> Listing:
    return Listing(sites=SITES, store=store, clock=clock, every_ms=60_000)


async def test_an_announcement_stands_once_and_changes_the_revision_also_after_a_restart(
    store: NationStore,
) -> None:
    start = NOW_MS + 10_000_000
    clock = ManualClock(start)
    first = listing(store, clock)
    await first.refresh()
    before = first.snapshot().revision
    planned = downtime(start + 1_000, start + 5_000, area="110105")
    announced = await first.announce("op", "notice-a1", planned)
    assert announced.area == INSURED_AREA  # the county's pooling area
    after = first.snapshot()
    assert after.revision != before
    assert list(after.downtimes) == [announced]
    assert await first.announce("op", "notice-a1", planned) == announced
    assert first.snapshot().revision == after.revision
    with pytest.raises(Refusal, match="REQUEST_ID_REUSED"):
        await first.announce("op", "notice-a1", downtime(start + 1_000, start + 6_000))

    restarted = listing(store, clock)
    await restarted.refresh()
    assert restarted.snapshot().revision == after.revision
    restarted.check_downtime(INSURED_AREA)  # not yet
    clock.ms = start + 1_000
    with pytest.raises(Refusal, match="SITE_DOWNTIME") as refused:
        restarted.check_downtime("110105")
    assert refused.value.retry_ms == 4_000
    clock.ms = start + 5_000
    restarted.check_downtime(INSURED_AREA)  # the end is not inside
    assert (restarted.snapshot().revision, list(restarted.snapshot().downtimes)) == (before, [])
    # Asked again when it is long over: still the same answer.
    assert await restarted.announce("op", "notice-a1", planned) == announced


async def test_racing_announcements_of_one_request_id_leave_one_row(
    store: NationStore, nation_database: Database
) -> None:
    start = NOW_MS + 50_000_000
    clock = ManualClock(start)
    rivals = [downtime(start, start + 1_000 * n, notice=f"第{n}次") for n in range(1, 9)]
    results = await asyncio.gather(
        *(listing(store, clock).announce("op", "notice-race", one) for one in rivals),
        return_exceptions=True,
    )
    assert sum(isinstance(result, relay_pb2.Downtime) for result in results) == 1
    counted = await nation_database.run(
        "SELECT (SELECT count(*) FROM relay.downtime WHERE request_id = $1) AS rows, "
        "(SELECT count(*) FROM relay.audit WHERE subject = $1) AS audited",
        "notice-race",
    )
    assert (counted[0]["rows"], counted[0]["audited"]) == (1, 1)


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        (relay_pb2.Downtime(site="999999", notice="n"), "downtime.site"),
        (downtime(NOW_MS, NOW_MS + 1_000, area="370100"), "downtime.area"),
        (downtime(NOW_MS + 1_000, NOW_MS + 1_000), "downtime.end_time"),
        (downtime(NOW_MS - 2_000, NOW_MS), "downtime.end_time"),
    ],
)
async def test_an_announcement_that_cannot_be_true_is_refused(
    store: NationStore, asked: relay_pb2.Downtime, field: str
) -> None:
    with pytest.raises(Refusal, match="MESSAGE_INVALID") as refused:
        await listing(store, ManualClock(NOW_MS)).announce("op", "notice-bad", asked)
    assert field in [fault.field for fault in refused.value.violations]


async def test_announcements_and_outcomes_cannot_be_changed_by_the_service(
    nation_database: Database,
) -> None:
    for statement in (
        "UPDATE relay.downtime SET notice = ''",
        "DELETE FROM relay.downtime",
        "DELETE FROM relay.outcome",
        "UPDATE relay.audit SET actor = ''",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await nation_database.run(statement)


async def test_the_servicer_digests_and_lists_as_asked(store: NationStore) -> None:
    made = outcomes("2026-11-19", ms=[NOW_MS])
    await store.record(made, instant(CLOCK))
    listed = listing(store, CLOCK)
    await listed.refresh()
    servicer = NationServicer(
        listing=listed,
        forwarder=None,  # type: ignore[arg-type]
        sites={},
        store=store,
        detailing=Detailing(store=store, clock=CLOCK),
    )
    operator = Call(Identity("100000", CallerType.OPERATOR, "clerk"), 0)
    request = relay_pb2.GetNationJournalDigestRequest(
        business_day="2026-11-19",
        care_site="440000",
        insured_site="110000",
        detail=ENTRIES,
        hour=HOUR,
    )
    answer = await servicer.GetNationJournalDigest(request, operator)
    assert [entry.settlement_id for entry in answer.journal.entries] == list(made)
    stranger = Call(Identity("370000", CallerType.ROLE, "relay"), 0)
    with pytest.raises(Refusal, match="ACCESS_DENIED"):
        await servicer.GetNationJournalDigest(request, stranger)
    announced = await servicer.AnnounceDowntime(
        relay_pb2.AnnounceDowntimeRequest(
            request_id="notice-z9", downtime=downtime(NOW_MS, NOW_MS + 1_000)
        ),
        operator,
    )
    known = await servicer.GetDirectory(
        relay_pb2.GetDirectoryRequest(known_revision=announced.revision), operator
    )
    assert (known.revision, list(known.sites)) == (announced.revision, [])
    assert announced.downtime in known.downtimes  # downtimes are always complete
